"""The other end of the socket: asking the process that has the catalog."""

import contextlib
import os
import socket
import threading
from collections.abc import Mapping
from typing import Any, Protocol

from headwater.catalog.errors import UsageError
from headwater.catalog.storage.sharing.wire import (
    MAX_MESSAGE,
    Disconnected,
    read_answer,
    read_greeting,
    receive,
    send,
    write_request,
)

#: Seconds to connect, and again to be greeted, which takes microseconds unless the other side is stuck.
_CONNECTING = 5.0
#: Connections that are kept for the next request.
_KEPT = 8


class Listener(Protocol):
    """Who listens: the holder of a lock file, or a server on whatever host."""

    @property
    def token(self) -> str:
        """What it wants to be sent first."""
        ...

    def connect(self, timeout: float) -> socket.socket:
        """A connection to it, with that time-out. Raises `OSError`, and `HeadwaterError` where it is no use to try."""
        ...


class Client:
    """Connections to one process, for any number of threads; one is made for each request that goes on at a time."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._max_request = MAX_MESSAGE
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._idle: list[socket.socket] = []
        self._closed = False

    def ask(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """The answer to one operation. Raises what it raised there, and `Disconnected`: then nobody knows.

        Raises `UsageError` for more than the other side takes in one request.
        """
        request = write_request(name, arguments)
        connection = self._take()
        try:
            if len(request) > self._max_request:
                raise UsageError(
                    f"The catalog is asked for '{name}' with {len(request):,} bytes, and takes {self._max_request:,}.",
                    remedy="Ask for less at a time: fewer partitions in a run, or a backfill, which makes many runs.",
                )
            send(connection, request)
            answer = receive(connection)
        except BaseException:  # of an interruption too: the answer would be taken for the next request's
            connection.close()
            raise
        self._keep(connection)
        return read_answer(name, answer)

    def greet(self) -> None:
        """Connect, so that the other side knows. Raises `Disconnected`, and why the other side does not want that."""
        self._keep(self._take())

    def close(self) -> None:
        """Let go of the connections. Idempotent."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _take(self) -> socket.socket:
        if os.getpid() != self._pid:  # forked: the parent goes on using its connections
            self._lock = threading.Lock()
            self._pid = os.getpid()
            for connection in self._idle:
                connection.close()
            self._idle = []
        with self._lock:
            if self._idle:
                return self._idle.pop()
        try:
            connection = self._listener.connect(_CONNECTING)
        except OSError as error:
            raise Disconnected(str(error)) from error
        try:
            connection.settimeout(_CONNECTING)
            send(connection, self._listener.token.encode())
            self._max_request = read_greeting(receive(connection))
            connection.settimeout(None)
        except BaseException:
            connection.close()
            raise
        return connection

    def _keep(self, connection: socket.socket) -> None:
        with self._lock:
            if not self._closed and len(self._idle) < _KEPT:
                self._idle.append(connection)
                return
        with contextlib.suppress(OSError):
            connection.close()
