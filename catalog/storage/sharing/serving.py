"""Listening at a socket and answering: what a keeper, an owner that can be asked to make way, and a server do."""

import contextlib
import os
import secrets
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hmac import compare_digest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headwater.catalog.errors import AccessDeniedError, BusyError, ReadOnlyCatalogError, UsageError
from headwater.catalog.storage.lock import CatalogLock
from headwater.catalog.storage.sharing.tcp import prepare
from headwater.catalog.storage.sharing.wire import (
    MAX_MESSAGE,
    OPERATIONS,
    Access,
    Disconnected,
    Oversized,
    read_request,
    receive,
    send,
    write_answer,
    write_error,
    write_greeting,
)

if TYPE_CHECKING:
    import ssl

#: Bytes that the path of a Unix socket may have on Linux (108) and elsewhere (104), less its end.
_MAX_PATH = 100
_MAX_TOKEN = 256
#: Seconds that a client may take to send its token, and before that for the handshake of TLS.
_GREETING = 5.0
#: Clients that have not sent their token yet; the longest there goes when another one comes.
_MAX_STRANGERS = 64
#: Seconds until another client is accepted when this process may open no more files.
_PAUSE = 0.05

Answer = Callable[[str, dict[str, Any]], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much clients may ask of a server. Without any, as much as they like: they are this user's own."""

    #: Bytes of a question, and of a request by who may write: one step may record a hundred thousand versions.
    question: int = MAX_MESSAGE
    append: int = MAX_MESSAGE
    answer: int = MAX_MESSAGE
    #: At a time.
    clients: int | None = None
    #: Seconds for which nothing of a message may move that has begun.
    stall: float | None = None

    def request(self, access: Access) -> int:
        """Bytes of a request by who has this access."""
        return self.question if access is Access.READ else self.append


class Server:
    """Answers requests at the socket `listener`, each client in a thread of its own.

    `answer` is called for each request that the client's token allows, from any thread; what it raises goes to the
    client. Closing it, which is idempotent, waits until requests under way are answered.
    """

    def __init__(
        self,
        listener: socket.socket,
        answer: Answer,
        tokens: Mapping[str, Access],
        *,
        tls: "ssl.SSLContext | None" = None,
        limits: Limits | None = None,
    ) -> None:
        self._socket = listener
        self._answer = answer
        self._tokens = tokens
        self._tls = tls
        self._limits = limits or Limits()
        self._changed = threading.Condition()
        #: Those who have not sent their token yet, in the order in which they came.
        self._strangers: dict[socket.socket, None] = {}
        self._clients: set[socket.socket] = set()
        #: Those whose request is being answered.
        self._busy: set[socket.socket] = set()
        self._closed = False
        self._pid = os.getpid()
        #: How many clients there ever were, so that one who watches sees that there was one between two looks.
        self.greeted = 0
        threading.Thread(target=self._accept, name="headwater-listener", daemon=True).start()

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
            self._withdraw()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes whoever accepts
        self._socket.close()
        me = threading.current_thread()
        with self._changed:
            for client in (self._clients | self._strangers.keys()) - self._busy:
                _hang_up(client)
            own = getattr(me, "headwater_client", None)
            self._changed.wait_for(lambda: self._busy <= {own})

    def forget(self) -> None:
        """In a forked child: close what it inherited, so that nobody waits for an answer from it."""
        self._closed = True
        self._socket.close()
        for client in list(self._clients):
            client.close()

    def _withdraw(self) -> None:
        """Let nobody find the listener any more."""

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                if self._closed:
                    return
                time.sleep(_PAUSE)  # too many files are open, or the client was gone again
                continue
            with contextlib.suppress(OSError, RuntimeError):  # of a client that is gone, of threads that there are not
                if client.family != socket.AF_UNIX:
                    prepare(client)
                if self._tls is not None:
                    client = self._tls.wrap_socket(client, server_side=True, do_handshake_on_connect=False)
                with self._changed:
                    if self._closed:
                        client.close()
                        return
                    self._strangers[client] = None
                    if len(self._strangers) > _MAX_STRANGERS:
                        _hang_up(next(iter(self._strangers)))
                threading.Thread(target=self._serve, args=(client,), name="headwater-client", daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        threading.current_thread().headwater_client = client  # pyright: ignore[reportAttributeAccessIssue]
        with client, contextlib.suppress(Disconnected, OSError):
            try:
                access = self._greet(client)
            finally:
                with self._changed:
                    self._strangers.pop(client, None)
            try:
                while access is not None and self._respond(client, access):
                    pass
            finally:
                with self._changed:
                    self._clients.discard(client)

    def _greet(self, client: socket.socket) -> Access | None:
        """What the client's token allows, if it is one and there is room; then it is a client from now on."""
        client.settimeout(_GREETING)
        if self._tls is not None:
            client.do_handshake()  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
        token = bytes(receive(client, _MAX_TOKEN, within=_GREETING))
        # All of them, and each in constant time.
        granted = [access for known, access in self._tokens.items() if compare_digest(token, known.encode())]
        with self._changed:
            full = self._limits.clients is not None and len(self._clients) >= self._limits.clients
            if granted and not full and not self._closed:
                self._clients.add(client)
                self.greeted += 1
                error = None
            elif granted:
                error = BusyError(
                    f"The server has {len(self._clients)} clients, which is as many as it serves.",
                    remedy="Try again when some of them have finished.",
                )
            else:
                error = AccessDeniedError(
                    "The token is none of the catalog's.", remedy="Ask whoever serves the catalog for the right one."
                )
        send(client, write_greeting(self._limits.request(max(granted))) if error is None else write_error(error))
        client.settimeout(None)
        return None if error is not None else max(granted)

    def _respond(self, client: socket.socket, access: Access) -> bool:
        """Answer one request; False once there are to be no more."""
        limits = self._limits
        if limits.stall is not None:
            client.settimeout(None)
        try:
            message = receive(client, limits.request(access), stall=limits.stall)
        except Oversized:
            most = f"It may have {limits.request(access):,} bytes."
            send(client, write_error(UsageError("The request is too large.", remedy=most)))
            raise
        with self._changed:
            if self._closed:
                return False
            self._busy.add(client)
        try:
            try:
                name, arguments = read_request(message)
                _check_access(name, access)
                answer = write_answer(name, self._answer(name, arguments))
                if len(answer) > limits.answer:
                    raise UsageError(
                        f"The answer to '{name}' has {len(answer):,} bytes, and {limits.answer:,} is the most.",
                        remedy="Ask for less at a time: a selection, a filter, a limit.",
                    )
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


class HomeServer(Server):
    """A server for this user's processes on this host: at a Unix socket, its address and token in the lock file."""

    def __init__(self, home: Path, lock: CatalogLock, answer: Answer, *, keeper: bool) -> None:
        self._folder: Path | None = None
        path = home / f"catalog.{os.getpid()}.sock"
        if len(os.fsencode(path)) > _MAX_PATH:
            self._folder = Path(tempfile.mkdtemp(prefix="headwater-"))
            path = self._folder / "catalog.sock"
        self._path = path
        for left in home.glob("catalog.*.sock"):  # by those that were killed: who listens holds the lock
            left.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.bind(str(path))
            os.chmod(path, 0o600)
            listener.listen(128)
        except BaseException:
            listener.close()
            raise
        token = secrets.token_hex(32)
        super().__init__(listener, answer, {token: Access.OWNER})
        lock.listen(str(path), token, keeper=keeper)

    def _withdraw(self) -> None:
        self._path.unlink(missing_ok=True)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def _hang_up(client: socket.socket) -> None:
    """End a connection that another thread may be reading from."""
    with contextlib.suppress(OSError):
        # Not as `SSLSocket` does it: that makes the other thread go on in plain text.
        socket.socket.shutdown(client, socket.SHUT_RDWR)


def _check_access(name: str, access: Access) -> None:
    needed = OPERATIONS[name].access
    if access >= needed:
        return
    if needed is Access.WRITE:
        raise ReadOnlyCatalogError(
            "The token in use only allows reading the catalog.", remedy="Use one that allows writing."
        )
    raise AccessDeniedError(f"'{name}' is not for clients on other hosts.", remedy="Do it on the catalog's own host.")
