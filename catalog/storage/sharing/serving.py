"""Listening at a Unix socket and answering: what both a keeper and an owner that can be asked to make way do."""

import contextlib
import os
import secrets
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable
from hmac import compare_digest
from pathlib import Path
from typing import Any

from headwater.catalog.storage.lock import CatalogLock
from headwater.catalog.storage.sharing.wire import (
    Disconnected,
    read_request,
    receive,
    send,
    write_answer,
    write_error,
)

#: Bytes that the path of a Unix socket may have on Linux (108) and elsewhere (104), less its end.
_MAX_PATH = 100
_MAX_TOKEN = 256
#: Seconds that a client may take to send its token.
_GREETING = 5.0

Answer = Callable[[str, dict[str, Any]], Any]


class Server:
    """Answers requests at a socket whose address and token stand in the lock file, each client in a thread of its own.

    `answer` is called for each request, from any thread; what it raises goes to the client. Closing it, which is
    idempotent, waits until requests under way are answered.
    """

    def __init__(self, home: Path, lock: CatalogLock, answer: Answer, *, keeper: bool) -> None:
        self._answer = answer
        self._token = secrets.token_hex(32)
        self._changed = threading.Condition()
        self._clients: set[socket.socket] = set()
        #: Those whose request is being answered.
        self._busy: set[socket.socket] = set()
        self._closed = False
        self._pid = os.getpid()
        #: How many clients there ever were, so that one who watches sees that there was one between two looks.
        self.greeted = 0
        self._folder: Path | None = None
        path = home / f"catalog.{os.getpid()}.sock"
        if len(os.fsencode(path)) > _MAX_PATH:
            self._folder = Path(tempfile.mkdtemp(prefix="headwater-"))
            path = self._folder / "catalog.sock"
        self._path = path
        for left in home.glob("catalog.*.sock"):  # by those that were killed: who listens holds the lock
            left.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.bind(str(path))
            os.chmod(path, 0o600)
            self._socket.listen(128)
        except BaseException:
            self._socket.close()
            raise
        threading.Thread(target=self._accept, name="headwater-listener", daemon=True).start()
        lock.listen(str(path), self._token, keeper=keeper)

    @property
    def clients(self) -> int:
        """How many clients are connected."""
        return len(self._clients)

    def close(self) -> None:
        """Take no more requests, and wait until those under way are answered."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
        if os.getpid() == self._pid:
            self._path.unlink(missing_ok=True)
            if self._folder is not None:
                shutil.rmtree(self._folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes whoever accepts
        self._socket.close()
        me = threading.current_thread()
        with self._changed:
            for client in self._clients - self._busy:
                with contextlib.suppress(OSError):
                    client.shutdown(socket.SHUT_RDWR)
            own = getattr(me, "headwater_client", None)
            self._changed.wait_for(lambda: self._busy <= {own})

    def forget(self) -> None:
        """In a forked child: close what it inherited, so that nobody waits for an answer from it."""
        self._closed = True
        self._socket.close()
        for client in list(self._clients):
            client.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), name="headwater-client", daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        threading.current_thread().headwater_client = client  # pyright: ignore[reportAttributeAccessIssue]
        with client, contextlib.suppress(Disconnected, OSError):
            client.settimeout(_GREETING)
            if not compare_digest(receive(client, _MAX_TOKEN), self._token.encode()):
                return
            client.settimeout(None)
            with self._changed:
                if self._closed:
                    return
                self._clients.add(client)
                self.greeted += 1
            try:
                while self._respond(client):
                    pass
            finally:
                with self._changed:
                    self._clients.discard(client)

    def _respond(self, client: socket.socket) -> bool:
        """Answer one request; False once there are to be no more."""
        message = receive(client)
        with self._changed:
            if self._closed:
                return False
            self._busy.add(client)
        try:
            try:
                name, arguments = read_request(message)
                answer = write_answer(name, self._answer(name, arguments))
            except Disconnected:
                raise
            except BaseException as error:
                answer = write_error(error)
            send(client, answer)
        finally:
            with self._changed:
                self._busy.discard(client)
                self._changed.notify_all()
        return not self._closed
