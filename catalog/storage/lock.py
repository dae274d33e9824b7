"""Who may use a catalog: one process that writes, or any number that only read.

An OS lock (flock) on a file of its own beside the database. Never on the database file itself: POSIX locks, which
DuckDB takes, are dropped when the process closes any descriptor of the locked file, and a second process could
then write without anybody noticing. flock is dropped by the kernel when its holder dies, however it dies.
"""

import contextlib
import fcntl
import json
import os
import socket
import weakref
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from headwater.catalog.clock import Clock
from headwater.catalog.errors import BusyError, ReadOnlyCatalogError
from headwater.catalog.processes import exists, this_host

LOCK_FILE = "catalog.lock"

#: Seconds between two attempts, doubling from the first to the last.
_FIRST_PAUSE, _LAST_PAUSE = 0.002, 0.05
#: A probe by `holder` takes the lock for microseconds: even who does not want to wait tries again this long after.
_GRACE = 0.02
_MAX_RECORD = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class LockHolder:
    """Who holds a catalog's lock, as it wrote itself into the lock file."""

    pid: int
    host: str
    command: str
    #: When it took the lock, in UTC, ISO 8601.
    started: str
    #: Whether it only reads, and others may read beside it.
    shared: bool
    #: The Unix socket at which it listens; empty where it does not.
    address: str = ""
    #: What a client has to send first, which only those know who may read the lock file.
    token: str = field(default="", repr=False)
    #: Whether it serves others; one that does not can be asked to make way for one that does.
    keeper: bool = False

    def connect(self, timeout: float) -> socket.socket:
        """A connection to where it listens, with that time-out. Raises `OSError`."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(timeout)
            connection.connect(self.address)
        except BaseException:
            connection.close()
            raise
        return connection

    def __str__(self) -> str:
        if self == _NAMELESS:
            return "a process that left no name"
        how = "serving" if self.keeper else "reading" if self.shared else "writing"
        return f"process {self.pid} on {self.host} ({self.command}), {how} since {self.started}"


_NAMELESS = LockHolder(pid=0, host="", command="", started="", shared=True)


class CatalogLock:
    """A held lock. `release` lets go; so does the end of the process.

    A child made by `fork` does not inherit it: its copy of the descriptor is closed at once, since the lock would
    otherwise outlive this process for as long as the child does.
    """

    def __init__(self, descriptor: int, me: LockHolder) -> None:
        self._descriptor: int | None = descriptor
        self._pid = os.getpid()
        self._me = me
        self.shared = me.shared
        _held.add(self)

    def listen(self, address: str, token: str, *, keeper: bool) -> None:
        """Let others know where the holder listens, and as what."""
        if self._descriptor is not None:
            self._me = replace(self._me, address=address, token=token, keeper=keeper)
            _write(self._descriptor, self._me)

    def is_of(self, home: Path) -> bool:
        """Whether the lock file in `home` is still the one that is locked: false once somebody removed it."""
        try:
            there = os.stat(home / LOCK_FILE)
        except OSError:
            return False
        return self._descriptor is not None and os.path.samestat(there, os.fstat(self._descriptor))

    def release(self) -> None:
        """Let go. Idempotent."""
        descriptor, self._descriptor = self._descriptor, None
        _held.discard(self)
        if descriptor is None:
            return
        if os.getpid() == self._pid:
            with contextlib.suppress(OSError):
                if not self.shared:
                    os.ftruncate(descriptor, 0)
                fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)

    def forget(self) -> None:
        """Close the descriptor in a forked child, leaving the lock to the parent."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


_held: "weakref.WeakSet[CatalogLock]" = weakref.WeakSet()


def _forget_held() -> None:
    for lock in list(_held):
        lock.forget()
    _held.clear()


os.register_at_fork(after_in_child=_forget_held)


def acquire(home: Path, *, shared: bool, wait: float, clock: Clock, command: str) -> CatalogLock | None:
    """The lock of the catalog in `home`, waiting for it up to `wait` seconds.

    None where it is shared and there can be no lock file: nothing may be written there, so nobody writes.
    Raises `BusyError`, which names the holder, and `ReadOnlyCatalogError`.
    """
    path = home / LOCK_FILE
    descriptor = _open(path, shared)
    if descriptor is None:
        return None
    try:
        _lock(descriptor, home, shared, wait, clock)
        me = LockHolder(
            pid=os.getpid(),
            host=this_host(),
            command=command,
            started=clock.now().isoformat(timespec="seconds"),
            shared=shared,
        )
        _write(descriptor, me)
    except BaseException:
        os.close(descriptor)
        raise
    return CatalogLock(descriptor, me)


def holder(home: Path) -> LockHolder | None:
    """Who holds the catalog in `home` for writing, or one of those who read it; None where nobody does."""
    try:
        descriptor = os.open(home / LOCK_FILE, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return _read(descriptor)
    else:
        return None
    finally:
        os.close(descriptor)


def _open(path: Path, shared: bool) -> int | None:
    flags = os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o600)
    except OSError as error:
        if not shared:
            raise ReadOnlyCatalogError(
                f"The catalog's lock file {path} cannot be written: {error.strerror}.",
                remedy="Reading works. To write, make the folder and its files writable.",
            ) from error
    try:
        return os.open(path, os.O_RDONLY | flags)
    except OSError:
        return None


def _lock(descriptor: int, home: Path, shared: bool, wait: float, clock: Clock) -> None:
    operation = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB
    deadline = clock.monotonic() + max(wait, _GRACE)
    pause = _FIRST_PAUSE
    while True:
        try:
            return fcntl.flock(descriptor, operation)
        except BlockingIOError:
            left = deadline - clock.monotonic()
            if left <= 0:
                raise busy(home, _read(descriptor), wait) from None
        clock.sleep(min(pause, left))
        pause = min(2 * pause, _LAST_PAUSE)


def busy(home: Path, by: LockHolder | None, wait: float) -> BusyError:
    """The error for a catalog that somebody still holds after `wait` seconds."""
    waited = f" after {wait:g} seconds" if wait else ""
    return BusyError(
        f"The catalog in {home} is still held{waited} by {by or _NAMELESS}.",
        remedy="Wait longer for it, or end that process.",
    )


def _write(descriptor: int, record: LockHolder) -> None:
    """Write the holder's name; it helps people only, so a full or read-only disk is no reason to fail."""
    data = json.dumps(asdict(record)).encode()
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, data, 0)


def _read(descriptor: int) -> LockHolder:
    """The record in the lock file, unless it is damaged or left behind by a process that is gone.

    Readers that hold the lock together overwrite each other's; the last one to come is named while it lives.
    """
    try:
        data = cast(Mapping[str, Any], json.loads(os.pread(descriptor, _MAX_RECORD, 0)))
        found = LockHolder(
            pid=int(data["pid"]),
            host=str(data["host"]),
            command=str(data["command"]),
            started=str(data["started"]),
            shared=bool(data["shared"]),
            address=str(data.get("address", "")),
            token=str(data.get("token", "")),
            keeper=bool(data.get("keeper", False)),
        )
    except (OSError, ValueError, LookupError, TypeError):
        return _NAMELESS
    return found if found.host != this_host() or exists(found.pid) else _NAMELESS
