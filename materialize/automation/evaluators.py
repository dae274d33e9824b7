"""Whoever evaluates sensors: warm processes, as many as are of use, which stay from round to round.

Nobody waits for a sensor that takes its time: it is asked for again in the next round, killed when its time is over,
and takes no other's place meanwhile.
"""

import contextlib
import os
import selectors
import signal
import socket
import sys
import tempfile
import time
from collections import deque
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import BinaryIO, Protocol, Self

from headwater.catalog.definitions.definitions import Definitions
from headwater.catalog.definitions.resource import resource_references
from headwater.catalog.definitions.sensor import SensorDefinition
from headwater.catalog.errors import HeadwaterError, TimedOutError, UserCodeError, WorkerDiedError
from headwater.catalog.instance import Instance
from headwater.catalog.records import Automation
from headwater.catalog.storage.text import map_text
from headwater.materialize.automation.evaluation import Evaluated, Evaluation, evaluate, failed
from headwater.materialize.automation.sensor_worker import READY, SensorSetting
from headwater.materialize.code_location import location_of
from headwater.materialize.execution.redaction import Redaction
from headwater.materialize.executors.fork_server import ForkServer, ending, read_now
from headwater.materialize.executors.nursery import FORKED
from headwater.materialize.executors.wire import Frames, from_bytes, send, to_bytes

#: Processes that evaluate at the same time, where the settings say nothing.
WORKERS = min(4, os.cpu_count() or 1)
#: Seconds after which a process that still evaluates is taken to wait for something, and counts no more.
SLOW = 1.0
#: Processes that there are at most, those included.
MAX_PROCESSES = 64
#: Evaluations after which a process makes room for a new one: what leaks, goes.
MAX_EVALUATIONS = 10_000
#: Bytes that an evaluation may print before it is killed, and that are kept of it: its beginning and its end.
MAX_PRINTED, KEPT_PRINTED = 64 << 20, 32 << 10
_WORK = "headwater.materialize.automation.sensor_worker"


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """A sensor that is due."""

    wanted: Evaluation
    #: What the catalog said of it when that was decided.
    known: Automation | None
    #: The instant of its tick.
    at: datetime
    #: Seconds that it may take.
    timeout: float


class Evaluators(Protocol):
    """Evaluates sensors of one project's definitions. Close it, or use it as a context manager."""

    #: Those that are under way, by name.
    under_way: dict[str, Due]
    #: When each was last asked for, by a clock that never goes back.
    asked: dict[str, float]

    def has_rested(self, sensor: SensorDefinition) -> bool:
        """Whether its interval has passed since it was last asked for."""
        last = self.asked.get(sensor.name)
        return last is None or time.monotonic() - last >= sensor.minimum_interval_seconds

    def submit(self, due: Due) -> None:
        """Have a sensor evaluated that is not under way."""
        ...

    def take(self, seconds: float) -> list[tuple[Due, Evaluated]]:
        """What has come of those under way: once that is all, or so many seconds have passed."""
        ...

    def close(self) -> None:
        """Give up what is under way."""
        ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_evaluators(instance: Instance, definitions: Definitions) -> Evaluators:
    """Processes that evaluate the sensors of `definitions`; where no other can load these, this one does."""
    if location_of(definitions) is None or instance.is_ephemeral:
        return InThisProcess(instance, definitions)
    return SensorProcesses(instance, definitions)


class InThisProcess(Evaluators):
    """Evaluates at once, without a time-out: for definitions that only this process has."""

    def __init__(self, instance: Instance, definitions: Definitions) -> None:
        self.under_way, self.asked = {}, {}
        self._instance = instance
        self._definitions = definitions
        self._done: list[tuple[Due, Evaluated]] = []

    def submit(self, due: Due) -> None:
        """See `Evaluators.submit`."""
        self.asked[due.wanted.sensor] = time.monotonic()
        self._done.append((due, evaluate(self._definitions, due.wanted, lambda: self._instance)))

    def take(self, seconds: float) -> list[tuple[Due, Evaluated]]:
        """See `Evaluators.take`."""
        found, self._done = self._done, []
        return found

    def close(self) -> None:
        """Nothing is under way."""


@dataclass(slots=True, eq=False)
class _Process:
    """A process that evaluates, as this one knows it."""

    connection: socket.socket
    printed: BinaryIO
    frames: Frames = field(default_factory=Frames)
    #: When it was asked for.
    made: float = field(default_factory=time.monotonic)
    #: Its number and its group's; None until it was forked.
    number: int | None = None
    #: Whether its definitions are loaded.
    ready: bool = False
    due: Due | None = None
    #: When it began with that.
    began: float | None = None
    evaluations: int = 0
    #: Why it was killed.
    killed: HeadwaterError | None = None


class SensorProcesses(Evaluators):
    """Evaluates in processes, each of which has loaded the definitions."""

    def __init__(self, instance: Instance, definitions: Definitions) -> None:
        self.under_way, self.asked = {}, {}
        location = location_of(definitions)
        assert location is not None  # whoever opens it looked
        settings = instance.settings
        self._setting = SensorSetting(location=location, path=tuple(sys.path), home=str(instance.home))
        self._workers = settings.sensors.num_workers or WORKERS
        self._startup = float(settings.code_servers.local_startup_timeout)
        references = [one for given in definitions.resources.values() for one in resource_references(given)]
        self._redaction = Redaction([*references, *settings.references], settings.secrets)
        self._selector = selectors.DefaultSelector()
        self._waiting: deque[Due] = deque()
        self._processes: list[_Process] = []
        #: Those that were asked for and not forked yet.
        self._unborn: deque[_Process] = deque()
        self._done: list[tuple[Due, Evaluated]] = []
        self._server: ForkServer | None = None

    def submit(self, due: Due) -> None:
        """See `Evaluators.submit`."""
        self.under_way[due.wanted.sensor] = due
        self.asked[due.wanted.sensor] = time.monotonic()
        self._waiting.append(due)

    def take(self, seconds: float) -> list[tuple[Due, Evaluated]]:
        """See `Evaluators.take`."""
        deadline = time.monotonic() + seconds
        while True:
            self._give()
            if not self.under_way:
                break
            now = time.monotonic()
            self._hear(max(0.0, min(deadline, self._next_look(now)) - now))
            self._watch()
            if time.monotonic() >= deadline:
                break
        found, self._done = self._done, []
        return found

    def close(self) -> None:
        """Kill what is under way."""
        self._stop_server()
        for process in self._processes:
            process.connection.close()
            process.printed.close()
        self._processes.clear()
        self._waiting.clear()
        self.under_way.clear()
        self._selector.close()

    # Processes come and go

    def _give(self) -> None:
        """Have what waits begun, as far as there is room."""
        now = time.monotonic()
        counted = [one for one in self._processes if one.began is None or now - one.began < SLOW]
        idle = [one for one in counted if one.due is None and one.killed is None]
        room = min(self._workers - len(counted), MAX_PROCESSES - len(self._processes))
        while self._waiting and (idle or room > 0):
            if idle:
                process = idle.pop()
            else:
                process, room = self._new_process(), room - 1
            process.due = self._waiting.popleft()
            if process.ready:
                self._begin(process, process.due)

    def _begin(self, process: _Process, due: Due) -> None:
        process.began = time.monotonic()
        process.evaluations += 1
        os.ftruncate(process.printed.fileno(), 0)
        os.lseek(process.printed.fileno(), 0, os.SEEK_SET)  # the place is one for both processes
        with contextlib.suppress(OSError):  # it died: that is about to be heard
            send(process.connection, to_bytes(due.wanted))

    def _new_process(self) -> _Process:
        if self._server is None:
            self._server = ForkServer(_WORK)
            self._selector.register(self._server.control, selectors.EVENT_READ)
        process = _Process(self._server.fork(), tempfile.TemporaryFile())  # noqa: SIM115  (it lives as long)
        self._processes.append(process)
        self._unborn.append(process)
        self._selector.register(process.connection, selectors.EVENT_READ, process)
        with contextlib.suppress(OSError):
            socket.send_fds(process.connection, [b"+"], [process.printed.fileno()])
            send(process.connection, to_bytes(self._setting))
        return process

    def _hear(self, seconds: float) -> None:
        for key, _ in self._selector.select(seconds):
            if self._server is not None and key.fileobj is self._server.control:
                self._hear_server(self._server)
            elif key.data in self._processes:
                self._hear_process(key.data)

    def _hear_server(self, server: ForkServer) -> None:
        answers = server.hear()
        if answers is None:
            self._stop_server()
            for process in list(self._processes):
                self._gone(process, -signal.SIGKILL)  # by its server, or with it
            return
        for number, status in answers:
            if status == FORKED:
                self._unborn.popleft().number = number
                continue
            process = next((one for one in self._processes if one.number == number), None)
            if process is not None:
                self._gone(process, os.waitstatus_to_exitcode(status))

    def _hear_process(self, process: _Process) -> None:
        data = read_now(process.connection)
        if data:
            self._listen(process, data)
        else:
            self._selector.unregister(process.connection)  # the server knows how it ended

    def _listen(self, process: _Process, data: bytes) -> None:
        for message in process.frames.feed(data):
            if message != READY:
                self._ended(process, from_bytes(message, Evaluated))
                continue
            process.ready = True
            if process.due is not None:
                self._begin(process, process.due)

    def _ended(self, process: _Process, done: Evaluated) -> None:
        due, process.due, process.began = process.due, None, None
        assert due is not None  # it answers
        self._settle(due, done, self._printed_by(process))
        idle = sum(one.due is None for one in self._processes)
        if not process.ready or idle > self._workers or process.evaluations >= MAX_EVALUATIONS:
            self._dismiss(process)

    def _settle(self, due: Due, done: Evaluated, printed: str) -> None:
        del self.under_way[due.wanted.sensor]
        redact = self._redaction.text
        done = replace(done, printed=redact(printed), reason=redact(done.reason), error=map_text(done.error, redact))
        self._done.append((due, done))

    def _dismiss(self, process: _Process) -> None:
        """Let a process go that evaluates nothing."""
        self._processes.remove(process)
        with contextlib.suppress(KeyError):
            self._selector.unregister(process.connection)
        process.connection.close()
        process.printed.close()

    def _gone(self, process: _Process, code: int) -> None:
        """A process ended with this exit code."""
        while process in self._processes and (data := read_now(process.connection)):  # what it said before
            self._listen(process, data)
        due, process.due = process.due, None
        if due is not None:
            error = process.killed or WorkerDiedError(
                f"The process that evaluated the sensor `{due.wanted.sensor}` {ending(code)}.",
                remedy="Look at what it printed.",
            )
            self._settle(due, failed(error), self._printed_by(process))
        if process in self._processes:
            self._dismiss(process)

    def _stop_server(self) -> None:
        if self._server is not None:
            self._selector.unregister(self._server.control)
            self._server.stop()
            self._server = None
            self._unborn.clear()

    # Those that take too much

    def _next_look(self, now: float) -> float:
        """When there is something to do unless there is news."""
        times = [now + SLOW]
        for one in self._processes:
            if one.due is not None:
                times.append(self._end_of(one))
                if self._waiting and one.began is not None and now - one.began < SLOW:
                    times.append(one.began + SLOW)
        return min(times)

    def _end_of(self, process: _Process) -> float:
        assert process.due is not None
        return process.made + self._startup if process.began is None else process.began + process.due.timeout

    def _watch(self) -> None:
        now = time.monotonic()
        for process in self._processes:
            if process.due is None or process.killed is not None or process.number is None:
                continue
            name = process.due.wanted.sensor
            if now >= self._end_of(process):
                what = "load its definitions" if process.began is None else "end"
                seconds = self._startup if process.began is None else process.due.timeout
                process.killed = TimedOutError(
                    f"The sensor `{name}` did not {what} within {seconds:g} s, and was killed.",
                    remedy="Give it less to do, or more time: timeout_seconds=….",
                )
            elif os.fstat(process.printed.fileno()).st_size > MAX_PRINTED:
                process.killed = UserCodeError(
                    f"The sensor `{name}` printed more than {MAX_PRINTED >> 20} MiB, and was killed.",
                    remedy="Have it print less.",
                )
            if process.killed is not None:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.number, signal.SIGKILL)

    def _printed_by(self, process: _Process) -> str:
        file, half = process.printed.fileno(), KEPT_PRINTED // 2
        size = os.fstat(file).st_size
        if size <= 2 * half:
            return os.pread(file, size, 0).decode("utf-8", "replace")
        parts = os.pread(file, half, 0), os.pread(file, half, size - half)
        begin, end = (part.decode("utf-8", "replace") for part in parts)
        return f"{begin}\n… {size - 2 * half:,} bytes left out …\n{end}"
