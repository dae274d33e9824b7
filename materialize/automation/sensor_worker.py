"""A process that evaluates one sensor after the other, as it is told through a socket: definitions are loaded once.

What it prints goes to a file that whoever asks holds, too, and so survives the process.
"""

import logging
import os
import socket
import sys
from dataclasses import dataclass
from functools import cache

from headwater.catalog.instance import Instance
from headwater.materialize.automation.evaluation import Evaluated, Evaluation, evaluate, failed
from headwater.materialize.code_location import CodeLocation
from headwater.materialize.executors.wire import from_bytes, receive, send, to_bytes

#: That the definitions are loaded. Where they cannot be, why: that is the answer to whatever is asked first.
READY = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class SensorSetting:
    """What a process is told first."""

    location: CodeLocation
    #: Where modules are looked for.
    path: tuple[str, ...]
    home: str


def serve(connection: socket.socket) -> None:
    """Evaluate the sensors that come through `connection`, until it closes."""
    _, files, _, _ = socket.recv_fds(connection, 1, 1)
    for printed in files:
        os.dup2(printed, 1)
        os.dup2(printed, 2)
        os.close(printed)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True, errors="backslashreplace")  # pyright: ignore
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    messages = receive(connection)
    first = next(messages, None)
    if first is None:
        return
    setting = from_bytes(first, SensorSetting)
    sys.path[:] = setting.path

    @cache
    def open_instance() -> Instance:
        return Instance.open(setting.home)

    try:
        definitions = setting.location.load()
    except BaseException as error:
        _say(connection, failed(error))
        return
    send(connection, READY)
    for message in messages:
        _say(connection, evaluate(definitions, from_bytes(message, Evaluation), open_instance))


def _say(connection: socket.socket, done: Evaluated) -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    try:
        data = to_bytes(done)
    except Exception as error:  # a configuration that holds what no message can
        data = to_bytes(failed(error))
    send(connection, data)
