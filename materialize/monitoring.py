"""Runs that are over or should be: what killed ones left is put in order, and who outstays its time is stopped."""

import contextlib
import os
import signal
from collections.abc import Mapping
from datetime import datetime, timedelta

from headwater.catalog.definitions.definitions import Definitions
from headwater.catalog.errors import ConflictError, TimedOutError, UsageError
from headwater.catalog.events import Event, RunEnded, RunMoved, StepEnded
from headwater.catalog.instance import Instance
from headwater.catalog.processes import is_running, this_host, user_name
from headwater.catalog.records import OPEN, ErrorRecord, Run, RunStatus
from headwater.catalog.settings import Settings
from headwater.materialize.io_managers import IOManagers
from headwater.materialize.reader import UNFINISHED, is_interrupted, settled, settled_steps

#: Tags that say how many seconds a run may take.
MAX_RUNTIME = ("headwater/max_runtime", "dagster/max_runtime")
#: Seconds that a run's own process gets to end it, before others do.
_GRACE = 15.0
#: Seconds that a killed process gets to be gone.
_DYING = 5.0


def max_runtime(settings: Settings, tags: Mapping[str, str]) -> float | None:
    """The seconds a run may take; None for any number. Raises `UsageError` for a tag that is no number."""
    for name in MAX_RUNTIME:
        if name in tags:
            try:
                seconds = float(tags[name])
            except ValueError:
                raise UsageError(
                    f"The tag {name}={tags[name]} is no number of seconds.", remedy="Such as 3600."
                ) from None
            return seconds if seconds > 0 else None
    monitoring = settings.run_monitoring
    return monitoring.max_runtime_seconds or None if monitoring.enabled else None


def too_long(seconds: float) -> ErrorRecord:
    """Why a run that took longer than that is over."""
    return ErrorRecord(
        kind=TimedOutError.code,
        message=f"the run took longer than the {seconds:g} seconds that it may",
        remedy="run_monitoring.max_runtime_seconds, or the tag headwater/max_runtime, is another limit.",
    )


def recover(instance: Instance, definitions: Definitions) -> list[str]:
    """Settle what killed runs left: sweep their unfinished files, record how they and their steps ended.

    Runs that outstay their time are stopped first. Returns the identifiers of the runs that are over from now on.
    """
    runs = instance.catalog.runs(statuses=list(OPEN), limit=1000)
    overdue = {run.run_id: error for run in runs if (error := _stop_overdue(instance, run)) is not None}
    dead = [run for run in runs if is_interrupted(run)]
    if not dead:
        return []
    managers = IOManagers(definitions, None, instance.artifacts)
    over: list[str] = []
    for run in dead:
        # One of this host has no process any more; one of another may wake up until this moment, and not after it.
        elsewhere = [run.run_id] if run.host != this_host() else []
        planned = [cell for cell in instance.catalog.planned(run.run_id) if cell.asset in definitions.graph]
        if not elsewhere:
            managers.sweep(run.run_id, planned)
        now = instance.clock.now()
        unfinished = [step for step in instance.catalog.steps(run.run_id) if step.status in UNFINISHED]
        events: list[Event] = [
            StepEnded(time=now, run_id=run.run_id, step_key=step.step_key, status=step.status, cells=step.cells)
            for step in settled_steps(unfinished)
        ]
        error = overdue.get(run.run_id)
        status = settled(run).status if error is None else RunStatus.FAILURE
        events.append(RunEnded(time=now, run_id=run.run_id, status=status, error=error))
        try:
            instance.catalog.append(events, lapsed=elsewhere)
        except ConflictError:
            continue
        if elsewhere:
            managers.sweep(run.run_id, planned)
        over.append(run.run_id)
    return over


def stop_canceled(instance: Instance) -> None:
    """Kill runs that were told to stop and did not in time. What they leave is settled by `recover`."""
    for run in instance.catalog.runs(statuses=[RunStatus.CANCELING], limit=1000):
        _stop_overdue(instance, run)


def _stop_overdue(instance: Instance, run: Run) -> ErrorRecord | None:
    """Kill a run that should be over; returns why, where it was not asked to stop. Nothing happens to other runs."""
    monitoring, now = instance.settings.run_monitoring, instance.clock.now()
    if run.host != this_host() or run.pid in (0, os.getpid()) or is_interrupted(run):
        return None
    error: ErrorRecord | None = None
    if run.status is RunStatus.CANCELING:
        if not _has_passed(run.moved, monitoring.cancel_timeout_seconds, now):
            return None
    elif run.status is RunStatus.STARTING:
        if not monitoring.enabled or not _has_passed(run.moved, monitoring.start_timeout_seconds, now):
            return None
        error = ErrorRecord(
            kind=TimedOutError.code,
            message=f"the run did not start within {monitoring.start_timeout_seconds} seconds",
            remedy=f"logs/runs/{run.run_id}.log in the home may say why.",
        )
    elif run.status is RunStatus.STARTED:
        with contextlib.suppress(UsageError):
            seconds = max_runtime(instance.settings, run.tags)
            if seconds is not None and _has_passed(run.started, seconds + _GRACE, now):
                error = too_long(seconds)
        if error is None:
            return None
    else:
        return None
    return error if _kill(instance, run) else None


def _has_passed(since: datetime | None, seconds: float, now: datetime) -> bool:
    return since is not None and now - since >= timedelta(seconds=seconds)


def _kill(instance: Instance, run: Run) -> bool:
    """Kill a run's process, with its group where that is its own, and wait until it is gone."""
    try:
        if os.getpgid(run.pid) == run.pid:
            os.killpg(run.pid, signal.SIGKILL)
        else:
            os.kill(run.pid, signal.SIGKILL)
    except ProcessLookupError:
        return True
    except PermissionError:  # somebody else's
        return False
    clock = instance.clock
    end = clock.monotonic() + _DYING
    while is_running(run.host, run.pid, run.start_ticks) and clock.monotonic() < end:
        clock.sleep(0.01)
    return True


def cancel(instance: Instance, run: Run) -> Run:
    """Have a run stop: one in the queue never begins, another one finishes its running step and begins no other.

    One that was told so before, and does not stop in time, is killed. Returns what the catalog knows of it then.
    """
    now, catalog = instance.clock.now(), instance.catalog
    if run.status is RunStatus.QUEUED:
        catalog.append([RunEnded(time=now, run_id=run.run_id, status=RunStatus.CANCELED)])
        found = catalog.run(run.run_id) or run
        if found.status.is_over:
            return found
        run = found
    if run.host != this_host():
        raise UsageError(
            f"Run {run.run_id} goes on in process {run.pid} on {run.host}, and this is {this_host()}.",
            remedy=f"Cancel it there: headwater run cancel {run.run_id}",
        )
    if run.status is RunStatus.CANCELING:
        _stop_overdue(instance, run)
    else:
        moved = RunMoved(time=now, run_id=run.run_id, status=RunStatus.CANCELING, user=user_name())
        with contextlib.suppress(ConflictError):  # it is over by now
            catalog.append([moved])
    with contextlib.suppress(ProcessLookupError):
        os.kill(run.pid, signal.SIGINT)
    return catalog.run(run.run_id) or run
