"""A run that waits for its turn: recorded as QUEUED when it has to wait for the first time, and then until it begins.

Nobody else has to start it: the process that waits looks, and takes its turn.
"""

import contextlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from headwater.catalog.errors import CellTakenError, ConflictError, QueuedError, RunStoppedError
from headwater.catalog.events import Event, RunEnded, RunMoved, RunQueued
from headwater.catalog.ids import new_id
from headwater.catalog.instance import Instance
from headwater.catalog.processes import start_ticks, this_host, user_name
from headwater.catalog.records import ErrorRecord, Run, RunStatus
from headwater.materialize.execution.step import describe_failure
from headwater.materialize.heartbeat import Heartbeat
from headwater.materialize.queue import check_turn, open_runs

#: Seconds before the first second look, doubling up to `dequeue_interval_seconds`.
_FIRST_LOOK = 0.05
#: Seconds between two times that what others left, or should have left, is put in order.
_TIDY = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a run is about, before anybody knows its plan."""

    job: str | None = None
    selection: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    backfill_id: str | None = None
    #: The run that it is another try at, and the first one of all of them.
    parent_run_id: str | None = None
    root_run_id: str | None = None
    #: What another process needs to carry it out; empty where it could not.
    request: Mapping[str, Any] = field(default_factory=dict[str, Any])


class WaitingRun:
    """A run to be, as a context manager: one that is left before it began, by an exception, is canceled."""

    def __init__(self, instance: Instance, asked: Asked, run_id: str | None = None) -> None:
        """`run_id` is given for one that is in the queue already."""
        self.instance = instance
        self.asked = asked
        self.run_id = run_id or new_id(instance.clock.now())
        self.is_recorded = run_id is not None
        self.heartbeat = Heartbeat(instance.catalog, self.run_id)
        #: The pools of its plan, and those of its first steps.
        self.pools: tuple[str, ...] = ()
        self.first_pools: tuple[str, ...] = ()

    def __enter__(self) -> Self:
        self.instance.running.add(self.run_id)
        self.heartbeat.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.heartbeat.__exit__(kind, error, trace)
        if self.is_recorded and error is not None:
            with contextlib.suppress(Exception):  # what is raised already says more
                self._end_unbegun(error)
        self.instance.running.discard(self.run_id)

    def _end_unbegun(self, error: BaseException) -> None:
        status = self._status
        if status is None or status.is_over:
            return
        if isinstance(error, KeyboardInterrupt | RunStoppedError):
            self.end(RunStatus.CANCELED)
        else:
            self.end(RunStatus.FAILURE, describe_failure(error).error)

    @property
    def _status(self) -> RunStatus | None:
        found = self.instance.catalog.run(self.run_id)
        return None if found is None else found.status

    def end(self, status: RunStatus, error: ErrorRecord | None = None) -> None:
        """It ends without having begun."""
        if self.is_recorded:
            self.instance.catalog.append(
                [RunEnded(time=self.instance.clock.now(), run_id=self.run_id, status=status, error=error)]
            )

    def wait(self, why: QueuedError | CellTakenError, tidy: Callable[[], object]) -> None:
        """Wait for the moment when it can be tried again; `tidy` is called now and then.

        Raises `RunStoppedError` when it is canceled meanwhile, and `why` itself where waiting does not help.
        """
        if isinstance(why, QueuedError) and why.is_final:
            raise why
        behind = why.run_id if isinstance(why, CellTakenError) else None
        self.instance.catalog.append([self._queued(behind)], by=self.run_id)
        self.is_recorded = True
        clock, longest = self.instance.clock, self.instance.settings.run_queue.dequeue_interval_seconds
        pause, tidied = min(_FIRST_LOOK, longest), clock.monotonic()
        while not self._may_begin(behind):
            clock.sleep(pause)
            pause = min(2 * pause, longest)
            if clock.monotonic() - tidied >= _TIDY:
                tidy()
                tidied = clock.monotonic()

    def take_turn(self, tidy: Callable[[], object]) -> bool:
        """Wait until it may begin and note that it does, so that its place is kept while its plan is made.

        For one that is in the queue already; False where another process took it. Raises `RunStoppedError` and
        `QueuedError`.
        """
        behind: str | None = None
        while True:
            if self._status in (RunStatus.STARTING, RunStatus.STARTED):
                return False
            claims = self.instance.catalog.claims()
            if self._may_begin(behind):
                moved = RunMoved(
                    time=self.instance.clock.now(),
                    run_id=self.run_id,
                    status=RunStatus.STARTING,
                    host=this_host(),
                    pid=os.getpid(),
                    start_ticks=start_ticks(os.getpid()),
                    claims_before=claims,
                )
                with contextlib.suppress(ConflictError):
                    self.instance.catalog.append([moved], by=self.run_id)
                    return True
                continue
            self.instance.clock.sleep(min(_FIRST_LOOK * 4, self.instance.settings.run_queue.dequeue_interval_seconds))
            tidy()

    def as_run(self) -> Run:
        """What `check_turn` is asked about."""
        now = self.instance.clock.now()
        kept = self.instance.catalog.run(self.run_id) if self.is_recorded else None
        if kept is not None:
            return kept
        return Run(
            run_id=self.run_id,
            status=RunStatus.QUEUED,
            queued=now,
            tags=self.asked.tags,
            pools=self.pools,
            request={"first_pools": list(self.first_pools)},
        )

    def check_not_stopped(self) -> None:
        """Raise `RunStoppedError` where somebody canceled it."""
        status = self._status if self.is_recorded else None
        if status is not None and (status.is_over or status is RunStatus.CANCELING):
            raise RunStoppedError(
                f"Run {self.run_id} was canceled before it began.", remedy="Start it again: headwater materialize."
            )

    def _may_begin(self, behind: str | None) -> bool:
        self.check_not_stopped()
        others = open_runs(self.instance.catalog)
        if any(other.run_id == behind for other in others):
            return False
        try:
            check_turn(self.instance, self.as_run(), others)
        except QueuedError as refusal:
            if refusal.is_final:
                raise
            return False
        return True

    def _queued(self, behind: str | None) -> Event:
        now, asked = self.instance.clock.now(), self.asked
        if self.is_recorded:
            return RunMoved(time=now, run_id=self.run_id, status=RunStatus.QUEUED, behind=behind)
        return RunQueued(
            time=now,
            run_id=self.run_id,
            job=asked.job,
            selection=asked.selection,
            tags=asked.tags,
            user=user_name(),
            host=this_host(),
            pid=os.getpid(),
            start_ticks=start_ticks(os.getpid()),
            backfill_id=asked.backfill_id,
            parent_run_id=asked.parent_run_id,
            root_run_id=asked.root_run_id,
            pools=self.pools,
            behind=behind,
            request={**asked.request, "first_pools": list(self.first_pools)},
        )
