"""Steps that wait for a place in a pool, which all runs of a home share.

A place is a claim in the catalog, by compare-and-set, counted as long as its run is there: who is killed holds none.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from headwater.catalog.errors import ConflictError
from headwater.catalog.events import SlotClaimed
from headwater.catalog.instance import Instance
from headwater.catalog.lineage.asset_graph import AssetGraph
from headwater.materialize.execution.step import StepSpec
from headwater.materialize.planner import Plan
from headwater.materialize.queue import PoolLimits, open_runs, slots_held

#: Seconds between two looks for a place, doubling from the first to the last.
_FIRST_LOOK, _LAST_LOOK = 0.05, 0.5


@dataclass(frozen=True, slots=True)
class _Waiting:
    spec: StepSpec
    pool: str
    #: By the monotonic clock.
    due: float


class PooledSteps:
    """The steps of one run that wait for a place. Entered while the run goes on; thread-safe.

    `admit` is called with a step that has its place, `say` once for each that has to wait, with why, and `wake` when
    the looking failed; all from a thread of its own, so that the rest of the run goes on.
    """

    def __init__(
        self,
        instance: Instance,
        run_id: str,
        admit: Callable[[StepSpec], None],
        say: Callable[[StepSpec, str], None],
        wake: Callable[[], None],
    ) -> None:
        self._instance = instance
        self._run_id = run_id
        self._admit = admit
        self._say = say
        self._wake = wake
        self._limits: PoolLimits | None = None
        self._changed = threading.Condition()
        self._waiting: list[_Waiting] = []
        self._told: set[tuple[str, int]] = set()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._pause = _FIRST_LOOK
        self._error: BaseException | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def is_limited(self, pool: str) -> bool:
        """Whether the places in a pool of steps are counted."""
        settings = self._instance.settings
        if self._limits is None:
            self._limits = PoolLimits.of(settings)
        return settings.concurrency.pools.granularity == "op" and self._limits.of_pool(pool) is not None

    def add(self, spec: StepSpec, pool: str, delay: float = 0.0) -> None:
        """Let a step wait for a place, and for at least `delay` seconds."""
        with self._changed:
            self._waiting.append(_Waiting(spec, pool, self._instance.clock.monotonic() + delay))
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="headwater-pools", daemon=True)
                self._thread.start()
            self._look_soon()

    def released(self) -> None:
        """A step of this run has ended: maybe there is a place now."""
        with self._changed:
            self._look_soon()

    def take_all(self) -> list[StepSpec]:
        """Every step that waits; none of them waits any more."""
        with self._changed:
            waiting, self._waiting = self._waiting, []
        return [one.spec for one in waiting]

    def check(self) -> None:
        """Raise what went wrong with the looking."""
        if self._error is not None:
            raise self._error

    def _watch(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._waiting)
                if self._closed:
                    return
            try:
                self._look()
            except BaseException as error:
                self._error = error
                self._wake()
                return
            with self._changed:
                if not self._closed:
                    self._changed.wait(self._pause)
                    self._pause = min(2 * self._pause, _LAST_LOOK)

    def _look_soon(self) -> None:
        self._pause = _FIRST_LOOK
        self._changed.notify_all()

    def _look(self) -> None:
        """Give a place to every step that can have one."""
        catalog, clock = self._instance.catalog, self._instance.clock
        assert self._limits is not None  # something is limited, or nobody would wait
        claims = catalog.claims()
        held = slots_held(catalog, open_runs(catalog))
        with self._changed:
            due = [one for one in self._waiting if one.due <= clock.monotonic()]
        for one in due:
            limit = self._limits.of_pool(one.pool)
            if limit is not None and held[one.pool] >= limit:
                self._tell(one, limit)
                continue
            claim = SlotClaimed(
                time=clock.now(),
                run_id=self._run_id,
                step_key=one.spec.step_key,
                attempt=one.spec.attempt,
                pool=one.pool,
                claims_before=claims,
            )
            with self._changed:
                if one not in self._waiting:
                    continue
                self._waiting.remove(one)
            try:
                catalog.append([claim], by=self._run_id)
            except ConflictError:  # somebody else claimed something at this moment
                with self._changed:
                    self._waiting.insert(0, one)
                return
            claims += 1
            held[one.pool] += 1
            self._admit(one.spec)

    def _tell(self, one: _Waiting, limit: int) -> None:
        key = (one.spec.step_key, one.spec.attempt)
        if key not in self._told:
            self._told.add(key)
            places = (
                "the only place is"
                if limit == 1
                else f"all {limit} places are"
                if limit
                else "it has no places; none is"
            )
            self._say(one.spec, f"waits for the pool '{one.pool}': {places} taken")


def pools_of(plan: Plan, graph: AssetGraph) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The pools of a plan's steps; and those of its first steps, none where one of these needs no place."""
    found: set[str] = set()
    first: set[str | None] = set()
    for step in plan.steps:
        pool = graph[step.cells[0].cell.asset].pool
        if pool is not None:
            found.add(pool)
        if not (step.after or step.after_all):
            first.add(pool)
    return tuple(sorted(found)), tuple(sorted(pool for pool in first if pool)) if None not in first else ()
