"""An executor that computes in other processes, which stay for the next step: docs/decisions/0018-process-pool.md.

A step that takes its process along (a crash, a kill, no memory) fails alone. Everything happens in the run's own
thread: it sends steps, takes what workers say, and watches the clock for those that are told to stop.
"""

import contextlib
import os
import selectors
import signal
import socket
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import msgspec

from headwater.catalog.clock import Clock
from headwater.catalog.config import substitute
from headwater.catalog.definitions.definitions import Definitions
from headwater.catalog.definitions.policies import NO_LIMITS, StepLimits
from headwater.catalog.errors import (
    HeadwaterError,
    MemoryLimitError,
    ResourceError,
    TimedOutError,
    UsageError,
    WorkerDiedError,
)
from headwater.catalog.keys import AssetKey
from headwater.catalog.records import LogSlice
from headwater.catalog.settings import PythonLogs
from headwater.materialize.code_location import location_of
from headwater.materialize.execution.context import RunInfo
from headwater.materialize.execution.step import (
    CANCELED,
    StepFailure,
    StepResult,
    StepSpec,
    describe_failure,
)
from headwater.materialize.execution.waiting import WaitingSteps
from headwater.materialize.executors.fork_server import ForkServer, ending, read_now
from headwater.materialize.executors.memory import memory_of
from headwater.materialize.executors.nursery import FORKED
from headwater.materialize.executors.wire import (
    Began,
    Done,
    Frames,
    Logged,
    News,
    Setting,
    Torn,
    news_of,
    result_of,
    send,
    step_to_bytes,
    to_bytes,
)

#: Seconds between SIGTERM and SIGKILL for a step that exceeds its time-out.
TIMEOUT_GRACE = 10.0
#: The same for a canceled run, which leaves 5 s after it told its steps to stop (`interrupt.GRACE`).
CANCEL_GRACE = 3.0
#: Seconds that workers get to tear down resources at the end of a run.
EXIT_GRACE = 10.0
#: A worker makes room for a new one after so many steps, or when it holds so many bytes after one: what leaks, goes.
MAX_STEPS = 1000
MAX_MEMORY = 1 << 30
#: Seconds between two looks at the memory of a step with a limit.
WATCH = 0.05
#: Bytes and lines of stderr that an error shows.
_TAIL_BYTES = 8192
_TAIL_LINES = 20
#: The end of what Python writes at a segmentation fault: a list of a kilobyte and more.
_NOISE = ("Extension modules:",)
#: How workers go about it.
_WORK = "headwater.materialize.executors.worker"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """What the workers of a run are told and how many there may be."""

    setting: Setting
    max_workers: int

    @staticmethod
    def of(
        definitions: Definitions,
        *,
        run: RunInfo,
        run_config: Any,
        assets: Sequence[AssetKey],
        artifacts: Path,
        log_folder: Path | None,
        python_logs: PythonLogs,
        secrets: Mapping[str, str],
        max_workers: int | None,
    ) -> "Pool":
        """Those of one run. Raises `UsageError` for definitions and configurations that only this process has."""
        location = location_of(definitions)
        if location is None:
            raise UsageError(
                "Other processes cannot load these definitions: they were put together in this one.",
                remedy="Let a module that can be imported hold the Definitions object, and import it from there; "
                "or name the file with `headwater -f`.",
            )
        plain = substitute(run_config, lambda reference, _: {"env": reference.name})
        try:
            msgspec.msgpack.encode(plain)
        except (TypeError, ValueError, OverflowError) as error:
            raise UsageError(
                f"This configuration cannot be given to another process: {error}.",
                remedy="Let it hold texts, numbers, lists and mappings, as a file would.",
            ) from None
        setting = Setting(
            location=location,
            path=tuple(sys.path),
            run=run,
            run_config=plain,
            assets=tuple(assets),
            artifacts=str(artifacts),
            log_folder=None if log_folder is None else str(log_folder),
            log_prefix="",
            python_logs=python_logs,
            secrets={os.fsencode(value): shown for value, shown in secrets.items()},
            max_steps=MAX_STEPS,
            max_memory=MAX_MEMORY,
        )
        return Pool(setting=setting, max_workers=max_workers or os.cpu_count() or 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Coordinator:
    """What of a run the executor calls, each from the run's own thread."""

    #: An attempt begins.
    began: Callable[[StepSpec], None]
    #: An attempt is over.
    settle: Callable[[StepResult], None]
    #: User code logged a line: step, level, message.
    log: Callable[[str | None, str, str], None]
    #: Removes whatever a step has written.
    sweep: Callable[[StepSpec], None]
    #: `OutputCapture.salvage`.
    salvage: Callable[[str, Mapping[str, int], str | None, int], list[LogSlice]]
    #: Whether running steps are to be stopped.
    stopping: Callable[[], bool]


@dataclass(slots=True, kw_only=True, eq=False)
class _Worker:
    """A worker as the run knows it."""

    connection: socket.socket
    log_prefix: str
    frames: Frames = field(default_factory=Frames)
    #: Its number and its group's; None until it was forked.
    process: int | None = None
    #: The step that it was given.
    spec: StepSpec | None = None
    #: When it began with that.
    began: float | None = None
    #: Why it was told to stop, and when it is killed unless it has.
    stopped: StepFailure | None = None
    kill_at: float | None = None
    #: It takes no more steps.
    retires: bool = False
    #: The end of what is known of each stream.
    printed: dict[str, int] = field(default_factory=dict[str, int])

    def kill(self, number: int) -> None:
        """Send a signal to it and to all that it started."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process, number)


class ProcessExecutor:
    """Computes up to `max_workers` independent steps side by side, each in a process of its own."""

    def __init__(self, pool: Pool, definitions: Definitions, run: Coordinator, clock: Clock) -> None:
        self._pool = pool
        self._definitions = definitions
        self._run = run
        self._clock = clock
        self._waiting = WaitingSteps(clock)
        self._selector = selectors.DefaultSelector()
        self._workers: list[_Worker] = []
        #: Those that were asked for and not forked yet.
        self._unborn: deque[_Worker] = deque()
        self._born = self._made = 0
        self._torn: Torn | None = None
        self._woken, self._wake = socket.socketpair()
        for end in (self._woken, self._wake):
            end.setblocking(False)
        self._selector.register(self._woken, selectors.EVENT_READ)

    def __enter__(self) -> Self:
        self._start_nursery()
        return self

    def __exit__(self, *_: object) -> None:
        """Let the workers tear down their resources and go. Raises `ResourceError` for what they could not."""
        lost = [worker.spec for worker in self._workers if worker.spec is not None]
        for worker in self._workers:
            if worker.spec is None:
                self._dismiss(worker)
            else:  # something went wrong in this process
                worker.spec = None
                worker.kill(signal.SIGKILL)
        deadline = self._clock.monotonic() + EXIT_GRACE
        while self._workers and (left := deadline - self._clock.monotonic()) > 0:
            self._hear(left)
        self._stop_nursery()
        for worker in list(self._workers):
            worker.kill(signal.SIGKILL)
            self._gone(worker, None)
        for spec in lost:
            self._run.sweep(spec)
        self._selector.close()
        for end in (self._woken, self._wake):
            end.close()
        if self._torn is not None:
            raise ResourceError(self._torn.message, remedy=self._torn.remedy)

    def submit(self, spec: StepSpec, delay: float = 0.0) -> None:
        """Have a step attempted, not before `delay` seconds have passed."""
        self._waiting.add(spec, delay)

    def abandon(self) -> list[StepSpec]:
        """Give up what has not started yet, and return it."""
        return self._waiting.take_all()

    def wake(self) -> None:
        """End the waiting in `advance`."""
        with contextlib.suppress(BlockingIOError):
            self._wake.send(b"!")

    def advance(self) -> None:
        """Give steps that are due to workers until a result was handed over."""
        while True:
            while self._has_room() and (spec := self._waiting.take()) is not None:
                self._give(spec)
            if self._hear(self._seconds()):
                return

    # Workers come and go

    def _start_nursery(self) -> None:
        self._nursery = ForkServer(_WORK)
        self._selector.register(self._nursery.control, selectors.EVENT_READ)
        self._born = 0

    def _stop_nursery(self) -> None:
        """End the process that forks, and with it every worker."""
        self._selector.unregister(self._nursery.control)
        self._nursery.stop()

    def _has_room(self) -> bool:
        taking = [worker for worker in self._workers if not worker.retires]
        return len(taking) < self._pool.max_workers or any(worker.spec is None for worker in taking)

    def _give(self, spec: StepSpec) -> None:
        """Have a step begun, by a worker that is there or a new one."""
        worker = next((one for one in self._workers if one.spec is None and not one.retires), None)
        if worker is None:
            worker = self._new_worker()
        worker.spec, worker.began = spec, None
        self._run.began(spec)
        with contextlib.suppress(ConnectionError):  # it died: the nursery is about to say so
            send(worker.connection, step_to_bytes(spec))

    def _new_worker(self) -> _Worker:
        ours = self._nursery.fork()
        self._made += 1
        worker = _Worker(connection=ours, log_prefix=f"worker-{self._made}.")
        self._unborn.append(worker)
        self._workers.append(worker)
        self._selector.register(ours, selectors.EVENT_READ, worker)
        setting = replace(self._pool.setting, log_prefix=worker.log_prefix)
        with contextlib.suppress(ConnectionError):
            send(ours, to_bytes(setting))
        return worker

    def _dismiss(self, worker: _Worker) -> None:
        """Let a worker without a step go, and still hear what it has to say."""
        worker.retires = True
        with contextlib.suppress(OSError):
            worker.connection.shutdown(socket.SHUT_WR)

    def _gone(self, worker: _Worker, status: int | None) -> bool:
        """A worker ended; whether that settled a step."""
        self._workers.remove(worker)
        settled = False
        while data := read_now(worker.connection):  # what it said before
            settled |= self._listen(worker, data)
        with contextlib.suppress(KeyError):
            self._selector.unregister(worker.connection)
        worker.connection.close()
        spec, worker.spec = worker.spec, None
        if spec is None:
            self._run.salvage(worker.log_prefix, worker.printed, None, 1)
            return settled
        logs = self._run.salvage(worker.log_prefix, worker.printed, spec.step_key, spec.attempt)
        failure = worker.stopped or _died(spec, status)
        if not failure.canceled:
            message = failure.error.message + _last_lines(self._pool.setting.log_folder, logs)
            failure = replace(failure, error=replace(failure.error, message=message))
        self._run.sweep(spec)
        seconds = 0.0 if worker.began is None else self._clock.monotonic() - worker.began
        self._run.settle(
            StepResult(
                spec=spec,
                seconds=seconds,
                failure=failure,
                logs=tuple(logs),
            )
        )
        return True

    # What is heard

    def _hear(self, seconds: float | None) -> bool:
        """Wait for news; whether a step was settled or somebody called `wake`."""
        settled = False
        for key, _ in self._selector.select(seconds):
            if key.fileobj is self._woken:
                settled |= bool(read_now(self._woken))
            elif key.fileobj is self._nursery.control:
                settled |= self._hear_nursery()
            elif key.data in self._workers:
                settled |= self._hear_worker(key.data)
        self._watch()
        return settled

    def _hear_nursery(self) -> bool:
        answers = self._nursery.hear()
        if answers is None:
            return self._nursery_gone()
        settled = False
        for process, status in answers:
            if status == FORKED:
                self._unborn.popleft().process = process
                self._born += 1
                continue
            worker = next((one for one in self._workers if one.process == process), None)
            if worker is not None:
                settled |= self._gone(worker, status)
        return settled

    def _nursery_gone(self) -> bool:
        """The process that forks was killed, and so every worker was."""
        self._stop_nursery()
        self._unborn.clear()
        settled = False
        for worker in list(self._workers):
            worker.kill(signal.SIGKILL)
            settled |= self._gone(worker, None)
        if not self._born:
            raise WorkerDiedError(
                f"The process pool did not start: its process {ending(self._nursery.exit_code)}.",
                remedy="Use the executor 'in_process', and report this.",
            )
        self._start_nursery()
        return settled

    def _hear_worker(self, worker: _Worker) -> bool:
        data = read_now(worker.connection)
        if data:
            return self._listen(worker, data)
        self._selector.unregister(worker.connection)  # the nursery knows how it ended
        return False

    def _listen(self, worker: _Worker, data: bytes) -> bool:
        settled = False
        for message in worker.frames.feed(data):
            news: News = news_of(message)
            match news:
                case Began():
                    worker.began = self._clock.monotonic()
                case Logged():
                    self._run.log(news.step_key, news.level, news.message)
                case Torn():
                    self._torn = news
                case Done():
                    self._done(worker, news)
                    settled = True
        return settled

    def _done(self, worker: _Worker, done: Done) -> None:
        spec, worker.spec = worker.spec, None
        assert spec is not None  # it speaks of the one that it was given
        for one in done.logs:
            worker.printed[one.stream] = one.offset + one.size
        if done.retires:
            self._dismiss(worker)
        result = result_of(done, spec)
        reason = worker.stopped
        if reason is None and done.signal is not None and result.failure is not None and result.failure.canceled:
            reason = _died(spec, done.signal)  # somebody else told it to stop
        if reason is not None and not reason.canceled:
            failed = tuple(replace(one, failure=reason) if one.failure.canceled else one for one in result.failed)
            if result.outputs and failed:  # of several partitions, those that were done by then are
                result = replace(result, failed=failed)
            else:
                if result.outputs:
                    self._run.sweep(spec)
                result = replace(result, outputs=(), failed=(), failure=reason)
        self._run.settle(result)

    # Those that take too much

    def _seconds(self) -> float | None:
        """How long there is nothing to do unless there is news."""
        now = self._clock.monotonic()
        times = [] if not self._has_room() or (delay := self._waiting.seconds()) is None else [delay]
        for worker in self._workers:
            limits = self._limits(worker)
            if worker.kill_at is not None:
                times.append(worker.kill_at - now)
            elif worker.began is not None and limits.timeout is not None:
                times.append(worker.began + limits.timeout - now)
            if limits.memory is not None:
                times.append(WATCH)
        return max(0.0, min(times)) if times else None

    def _limits(self, worker: _Worker) -> StepLimits:
        """What the step that a worker computes may take."""
        return NO_LIMITS if worker.spec is None else self._definitions.definition_of(worker.spec.cells[0].asset).limits

    def _watch(self) -> None:
        """Stop who exceeds a limit or is to stop, and kill who did not."""
        now = self._clock.monotonic()
        stopping = self._run.stopping()
        for worker in self._workers:
            if worker.spec is None:
                continue
            limits = self._limits(worker)
            if worker.kill_at is not None and now >= worker.kill_at:
                worker.kill_at = None
                worker.kill(signal.SIGKILL)
            elif stopping and worker.stopped is None:
                self._stop(worker, CANCELED, CANCEL_GRACE)
            elif worker.stopped is None and worker.began is not None:
                if limits.timeout is not None and now >= worker.began + limits.timeout:
                    self._stop(worker, _timed_out(worker.spec, limits.timeout), TIMEOUT_GRACE)
                elif limits.memory is not None and worker.process is not None:
                    taken = memory_of(worker.process)
                    if taken > limits.memory:
                        worker.stopped = _took_too_much(worker.spec, taken, limits.memory)
                        worker.kill(signal.SIGKILL)

    def _stop(self, worker: _Worker, reason: StepFailure, grace: float) -> None:
        worker.stopped = reason
        worker.kill_at = self._clock.monotonic() + grace
        worker.kill(signal.SIGTERM)


def _died(spec: StepSpec, status: int | None) -> StepFailure:
    """Why a step failed whose process ended, with what `wait` says of it; None where nobody could wait for it."""
    code = -signal.SIGKILL if status is None else os.waitstatus_to_exitcode(status)
    remedy = "Look at what it printed; the previous version stays."
    if code == -signal.SIGKILL:
        remedy = (
            "When memory runs out, the system kills what takes most of it: let fewer steps run at once "
            "(--max-workers), or process less at a time."
        )
    error = WorkerDiedError(f"The process that computed `{spec.step_key}` {ending(code)}.", remedy=remedy)
    return _failure(error)


def _timed_out(spec: StepSpec, seconds: float) -> StepFailure:
    return _failure(
        TimedOutError(
            f"`{spec.step_key}` did not end within its time-out of {seconds:g} s, and was stopped.",
            remedy="Give it a longer timeout, or less to do.",
        )
    )


def _took_too_much(spec: StepSpec, taken: int, limit: int) -> StepFailure:
    return _failure(
        MemoryLimitError(
            f"`{spec.step_key}` took {taken / 2**20:,.0f} MiB of memory, more than its limit of "
            f"{limit / 2**20:,.0f} MiB, and was killed.",
            remedy="Give it a higher memory_limit, or process less at a time: a pl.LazyFrame is streamed.",
        )
    )


def _failure(error: HeadwaterError) -> StepFailure:
    """What the record says of an error that user code did not raise: there is no exception to raise again."""
    return replace(describe_failure(error), exception=None)


def _last_lines(folder: str | None, logs: Sequence[LogSlice]) -> str:
    """What a process wrote to stderr last, to be added to a message."""
    for one in logs:
        if folder is not None and one.stream == "stderr":
            with Path(folder, one.file).open("rb") as file:
                file.seek(max(one.offset, one.offset + one.size - _TAIL_BYTES))
                lines = file.read(_TAIL_BYTES).decode("utf-8", "replace").rstrip().splitlines()
            kept = [line for line in lines if not line.startswith(_NOISE)][-_TAIL_LINES:]
            return "\n".join(["\nThe last of its stderr:", *kept])
    return ""
