"""The other end of the socket: asking the process that has the catalog."""

import contextlib
import os
import socket
import threading
from collections.abc import Mapping
from typing import Any

from headwater.catalog.storage.lock import LockHolder
from headwater.catalog.storage.sharing.wire import Disconnected, read_answer, receive, send, write_request

#: Seconds to connect, which takes microseconds unless the other side is stuck.
_CONNECTING = 5.0
#: Connections that are kept for the next request.
_KEPT = 8


class Client:
    """Connections to one process, for any number of threads; one is made for each request that goes on at a time."""

    def __init__(self, holder: LockHolder) -> None:
        self._holder = holder
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._idle: list[socket.socket] = []
        self._closed = False

    def ask(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """The answer to one operation. Raises what it raised there, and `Disconnected`: then nobody knows."""
        request = write_request(name, arguments)
        connection = self._take()
        try:
            send(connection, request)
            answer = receive(connection)
        except BaseException:  # of an interruption too: the answer would be taken for the next request's
            connection.close()
            raise
        self._keep(connection)
        return read_answer(name, answer)

    def greet(self) -> None:
        """Connect, so that the other side knows. Raises `Disconnected`."""
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
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(_CONNECTING)
            connection.connect(self._holder.address)
            send(connection, self._holder.token.encode())
            connection.settimeout(None)
        except (OSError, Disconnected) as error:
            connection.close()
            raise Disconnected(str(error)) from error
        return connection

    def _keep(self, connection: socket.socket) -> None:
        with self._lock:
            if not self._closed and len(self._idle) < _KEPT:
                self._idle.append(connection)
                return
        with contextlib.suppress(OSError):
            connection.close()
