"""A worker: a process that attempts one step after the other, as it is told through a socket.

It loads the definitions and sets up the resources once. It never opens the catalog.
"""

import faulthandler
import os
import signal
import socket
import sys
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from headwater.catalog.definitions.definitions import Definitions
from headwater.catalog.errors import ConflictError, ResourceError
from headwater.materialize.execution.capture import OutputCapture
from headwater.materialize.execution.python_logs import logged_by, python_logging
from headwater.materialize.execution.redaction import Redaction
from headwater.materialize.execution.resources import Resources
from headwater.materialize.execution.step import (
    Attempt,
    StepEnvironment,
    StepSpec,
    attempt_step,
    describe_failure,
)
from headwater.materialize.executors.memory import memory_of
from headwater.materialize.executors.wire import (
    Began,
    Done,
    Logged,
    News,
    Setting,
    Torn,
    done_of,
    receive,
    refusal,
    send,
    setting_of,
    step_of,
    to_bytes,
)
from headwater.materialize.io_managers import IOManagers


def serve(connection: socket.socket) -> None:
    """Attempt the steps that come through `connection`, until it closes or it is time for a new worker."""
    messages = receive(connection)
    setting = next(messages, None)
    if setting is not None:
        _Worker(connection, setting_of(setting)).run(messages)


class _Worker:
    def __init__(self, connection: socket.socket, setting: Setting) -> None:
        self._connection = connection
        self._setting = setting
        self._sending = threading.Lock()
        self._steps = 0
        self._redaction = Redaction((), {os.fsdecode(value): shown for value, shown in setting.secrets.items()})
        #: The signal that told it to stop, and what it raises there and then, if anything.
        self._signal: int | None = None
        self._stops_with: BaseException | None = None

    def run(self, messages: Iterator[bytes]) -> None:
        signal.signal(signal.SIGTERM, self._stop)
        sys.path[:] = self._setting.path
        folder = None if self._setting.log_folder is None else Path(self._setting.log_folder)
        with (
            OutputCapture(folder, prefix=self._setting.log_prefix, redaction=self._redaction) as self._capture,
            python_logging(self._setting.python_logs, self._log, self._redaction.text),
        ):
            faulthandler.enable(file=2, all_threads=False)
            try:
                with self._stopping_with(KeyboardInterrupt()):
                    definitions = self._setting.location.load()
                    resources = Resources(definitions, self._setting.assets, self._setting.run_config)
                    managers = IOManagers(definitions, resources.values, Path(self._setting.artifacts))
            except BaseException as error:
                failure = describe_failure(error)
                if next(messages, None) is not None:
                    self._say(refusal(failure, self._signal))
                return
            try:
                with resources.set_up(self._setting.run, self._redaction) as ready:
                    environment = StepEnvironment(
                        definitions=definitions,
                        io_managers=managers,
                        resources=ready,
                        check_resources=resources.check,
                        log=self._log,
                    )
                    self._work(messages, environment)
            except ResourceError as error:
                self._say(Torn(error.message, error.remedy))

    def _work(self, messages: Iterator[bytes], environment: StepEnvironment) -> None:
        while True:
            with self._stopping_with(SystemExit(128 + signal.SIGTERM)):
                message = next(messages, None)
            if message is None:
                return
            spec = step_of(message, self._setting, environment.definitions)
            self._say(Began())
            done = self._attempt(spec, environment)
            self._say(done)
            if done.retires:
                return

    def _attempt(self, spec: StepSpec, environment: StepEnvironment) -> Done:
        with self._capture.step(spec.number, spec.step_key, spec.attempt) as logs, logged_by(spec.step_key):
            try:
                with self._stopping_with(KeyboardInterrupt()):
                    _check_code(spec, environment.definitions)
                    attempt = attempt_step(spec, environment)
            except BaseException as error:  # a signal that came between two lines of ours, or other code
                attempt = Attempt(spec, 0.0)
                attempt.failure = describe_failure(error)
        attempt.logs = tuple(logs)
        result = attempt.publish()
        self._steps += 1
        retires = (
            self._signal is not None
            or self._steps >= self._setting.max_steps
            or memory_of(os.getpid()) > self._setting.max_memory
        )
        return done_of(result, retires=retires, signal=self._signal)

    def _say(self, news: News) -> None:
        data = to_bytes(news)
        with self._unstopped(), self._sending:
            send(self._connection, data)

    def _log(self, step_key: str | None, level: str, message: str) -> None:
        self._say(Logged(step_key, level, message))

    @contextmanager
    def _stopping_with(self, error: BaseException) -> Generator[None]:
        """A block that SIGTERM ends with `error`; elsewhere it lets what is being done be finished."""
        self._stops_with = error
        try:
            yield
        finally:
            self._stops_with = None

    @contextmanager
    def _unstopped(self) -> Generator[None]:
        """A block that SIGTERM ends only when it is over: half a message would spoil all that come after it."""
        if threading.current_thread() is not threading.main_thread():  # no signal comes to it
            yield
            return
        heard, held, self._stops_with = self._signal, self._stops_with, None
        try:
            yield
        finally:
            self._stops_with = held
        if held is not None and self._signal != heard:
            raise held

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._signal = number
        if self._stops_with is not None:
            raise self._stops_with


def _check_code(spec: StepSpec, definitions: Definitions) -> None:
    """Raise `ConflictError` where this process has loaded other code than the run recorded."""
    for cell in spec.cells:
        node = definitions.graph.nodes.get(cell.asset)
        code = node.fingerprint.code if node is not None and node.fingerprint is not None else None
        if any(
            made.get("headwater.code_version") != code for of, made in spec.provenance.items() if of.asset == cell.asset
        ):
            raise ConflictError(
                f"The code of `{cell.asset}` changed after the run had begun, and was not run.",
                remedy="Run it again.",
            )
