"""Processes that carry out runs by themselves: they survive the terminal, and whoever started them."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from headwater.catalog.clock import Clock
from headwater.catalog.errors import StorageError
from headwater.catalog.events import RunQueued
from headwater.catalog.ids import new_id
from headwater.catalog.instance import Instance
from headwater.catalog.processes import start_ticks, this_host, user_name
from headwater.catalog.records import BUSY, Run, RunStatus
from headwater.materialize.queue import Limits, in_order, open_runs, refusals
from headwater.materialize.retries import group, is_to_be_retried, retry_tags

#: Below the home: what processes of their own print, and the errors that end them.
LOGS = Path("logs", "runs")
#: Processes that are started in one go where no limit says less; each that ends starts others.
_AT_ONCE = 25


def spawn(home: Path, origin: Mapping[str, Any], arguments: Sequence[str], name: str) -> "subprocess.Popen[bytes]":
    """Start the command line in a session of its own, which no terminal ends. It prints to `log_file(home, name)`.

    `origin` is that of the project (`Project.origin`). Raises `StorageError` where that cannot be.
    """
    options = [["--home", str(home)], *(["-f", file] for file in origin["files"])]
    options += [["-m", module] for module in origin["modules"]]
    command = [sys.executable, "-P", "-m", "headwater", *(word for option in options for word in option), *arguments]
    file = log_file(home, name)
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        log = os.open(file, flags, 0o600)
        try:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=origin["folder"],
                start_new_session=True,
            )
        finally:
            os.close(log)
    except OSError as error:
        raise StorageError(
            f"A process of its own could not be started: {error.strerror}.", remedy=f"See to {file.parent}."
        ) from None


def log_file(home: Path, name: str) -> Path:
    """Where a process of its own prints to."""
    return home / LOGS / f"{name}.log"


def launch(instance: Instance, request: Mapping[str, Any], **about: Any) -> tuple[str, "subprocess.Popen[bytes]"]:
    """Record a run as QUEUED and start a process that carries it out when its turn comes.

    `about` is what else `RunQueued` holds. Returns the run's identifier once it is recorded, and the process.
    """
    now = instance.clock.now()
    run_id = new_id(now)
    process = spawn(instance.home, request["origin"], ["run", "execute", run_id], run_id)
    try:
        instance.catalog.append(
            [
                RunQueued(
                    time=instance.clock.now(),
                    run_id=run_id,
                    user=user_name(),
                    host=this_host(),
                    pid=process.pid,
                    start_ticks=start_ticks(process.pid),
                    request=request,
                    **about,
                )
            ],
            by=run_id,
        )
    except BaseException:
        process.kill()
        raise
    return run_id, process


class Started:
    """Processes that this one started lately, by what they are for, so that none is started a second time.

    One that ends without having begun what it is for may be started again `PAUSE` seconds after it was.
    """

    PAUSE = 10.0

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._processes: dict[str, tuple[float, subprocess.Popen[bytes]]] = {}

    def may_start(self, name: str) -> bool:
        """Whether there is none for this, nor was one a moment ago."""
        self._forget()
        return name not in self._processes

    def add(self, name: str, process: "subprocess.Popen[bytes]") -> None:
        """One was started."""
        self._processes[name] = self._clock.monotonic(), process

    @property
    def pids(self) -> list[int]:
        """Of those that go on."""
        return [one.pid for _, one in self._processes.values() if one.poll() is None]

    def _forget(self) -> None:
        before = self._clock.monotonic() - self.PAUSE
        over = [name for name, (since, one) in self._processes.items() if one.poll() is not None and since < before]
        for name in over:
            del self._processes[name]


def launch_waiting(instance: Instance, started: Started | None = None) -> list[str]:
    """Start processes for runs in the queue that are nobody's yet and whose turn has come. Returns their identifiers.

    Anybody may do so at any time: of several processes for one run, one gets it, and the others end. `started` are
    those of this process, which are not started again. Raises `StorageError` for a process that could not be started,
    after starting the others.
    """
    started = Started(instance.clock) if started is None else started
    runs = open_runs(instance.catalog)
    waiting = [run for run in runs if run.status is RunStatus.QUEUED and not run.pid and _is_ours(run)]
    if not waiting:
        return []
    others = [run for run in runs if run.status is RunStatus.QUEUED and run.pid]
    busy = [run for run in runs if run.status in BUSY]
    held = refusals([*waiting, *others], busy, Limits.of(instance.settings))
    launched: list[str] = []
    failure: StorageError | None = None
    for run in [run for run in in_order(waiting) if run.run_id not in held][:_AT_ONCE]:
        if not started.may_start(run.run_id):
            continue
        try:
            words = ["run", "execute", run.run_id]
            started.add(run.run_id, spawn(instance.home, run.request["origin"], words, run.run_id))
            launched.append(run.run_id)
        except StorageError as error:
            failure = failure or error
    if failure is not None:
        raise failure
    return launched


def _is_ours(run: Run) -> bool:
    return "origin" in run.request and run.host in ("", this_host())


def relaunch(instance: Instance, run: Run) -> str:
    """Start another try at a run that is over, in a process of its own. Returns its identifier.

    For a run whose `request` says where its definitions are, and that `is_to_be_retried` is true of.
    """
    number = len(group(instance.catalog, run))
    run_id, _ = launch(
        instance,
        run.request,
        job=run.job,
        selection=run.selection,
        tags=retry_tags(run.tags, number),
        pools=run.pools,
        parent_run_id=run.run_id,
        root_run_id=run.root_run_id or run.run_id,
    )
    return run_id


def lately_interrupted(instance: Instance) -> list[Run]:
    """The runs that were killed in the last day."""
    since = instance.clock.now() - timedelta(days=1)
    found = instance.catalog.runs(statuses=[RunStatus.INTERRUPTED], limit=1000)
    return [run for run in found if run.ended is not None and run.ended >= since]


def due_retries(instance: Instance, runs: Sequence[Run]) -> list[Run]:
    """Those of `runs` that are to be tried again and can be, by another process."""
    return [run for run in runs if run.request.get("origin") and is_to_be_retried(instance, run)]
