"""Processes of one host and one catalog: embedded until shared, then kept by a keeper.

Whoever comes first owns the file in its own process, as fast as can be, and listens. Who comes second starts a keeper
(`sharing.keeper`); that one asks the owner to make way, opens the file, and from then on both ask the keeper. When a
keeper dies, by `kill -9` too, the kernel drops its lock, and the next one who asks something starts another.
"""

import contextlib
import fcntl
import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headwater.catalog.clock import Clock
from headwater.catalog.errors import AccessDeniedError, BusyError
from headwater.catalog.events import Event
from headwater.catalog.processes import this_host
from headwater.catalog.storage import lock
from headwater.catalog.storage.base import QueryResult

if TYPE_CHECKING:
    from headwater.catalog.storage.duckdb.storage import DuckDBStorage
    from headwater.catalog.storage.sharing.guest import Guest
    from headwater.catalog.storage.sharing.serving import HomeServer

KEEPER_LOCK = "keeper.lock"
#: The descriptor under which a keeper inherits the locked `keeper.lock`.
INHERITED = 3
#: Most commands are over after this long: only who waits longer starts a keeper.
_SHORT = 0.1
#: Seconds between two attempts, doubling from the first to the last.
_FIRST_PAUSE, _LAST_PAUSE = 0.002, 0.05


class Owner:
    """The file is open in this process, which listens for a keeper that wants it, if it may write."""

    def __init__(self, storage: "DuckDBStorage", server: "HomeServer | None") -> None:
        self.storage = storage
        self.server = server

    def ask(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """See `Backend.ask`."""
        from headwater.catalog.storage.sharing.answer import answer

        return answer(self.storage, name, arguments)

    def append(self, events: Sequence[Event], **conditions: Any) -> int:
        """See `Backend.append`."""
        return self.storage.append(events, **conditions)

    def query(self, sql: str, parameters: Sequence[Any], relations: Mapping[str, Any]) -> QueryResult:
        """See `Backend.query`."""
        return self.storage.query(sql, parameters, relations=relations)

    def forget(self) -> None:
        """See `Backend.forget`."""
        if self.server is not None:
            self.server.forget()

    def close(self) -> None:
        """See `Backend.close`."""
        if self.server is not None:
            self.server.close()
        self.storage.close()


class HomeJoining:
    """See `shared.Joining`: of the catalog in `home`. `make_way` is what an owner's server answers."""

    def __init__(
        self,
        home: Path,
        clock: Clock,
        read_only: bool,
        crowded: bool,
        make_way: Callable[[str, Mapping[str, Any]], None],
    ) -> None:
        self.read_only = read_only
        self._home = home
        self._clock = clock
        self._crowded = crowded
        self._make_way = make_way

    def __str__(self) -> str:
        return f"in {self._home}"

    def lost(self) -> None:
        """There was company, so there will be some again."""
        self._crowded = True

    def join(self, wait: float) -> "Owner | Guest":
        """See `Joining.join`."""
        from headwater.catalog.storage.sharing.guest import Guest
        from headwater.catalog.storage.sharing.wire import Disconnected

        clock = self._clock
        started = clock.monotonic()
        pause = _FIRST_PAUSE
        while True:
            found = lock.holder(self._home)
            if found is None or (self.read_only and found.shared):
                if not self._crowded and not self._is_coming():
                    with contextlib.suppress(BusyError):  # somebody was faster
                        return self._own()
                elif not self._start_keeper():
                    self._crowded = False
            elif found.host == this_host() and found.address:
                if found.keeper:
                    with contextlib.suppress(Disconnected, AccessDeniedError):  # it left in between
                        return Guest(found, self._home)
                elif self._crowded or clock.monotonic() - started >= min(_SHORT, wait):
                    self._start_keeper()
            left = started + wait - clock.monotonic()
            if left <= 0:
                raise lock.busy(self._home, found, wait)
            clock.sleep(min(pause, left))
            pause = min(2 * pause, _LAST_PAUSE)

    def _own(self) -> Owner:
        from headwater.catalog.storage.duckdb.opening import open_catalog

        storage = open_catalog(self._home, wait=0, read_only=self.read_only, clock=self._clock)
        held = storage.lock
        if held is None or held.shared:
            self.read_only = True
            return Owner(storage, None)
        from headwater.catalog.storage.sharing.serving import HomeServer

        try:
            return Owner(storage, HomeServer(self._home, held, self._make_way, keeper=False))
        except OSError:  # there is no socket to be had here: then nobody else comes in, as long as this takes
            return Owner(storage, None)

    def _is_coming(self) -> bool:
        """Whether a keeper is being started, or there."""
        try:
            descriptor = os.open(self._home / KEEPER_LOCK, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        else:
            return False
        finally:
            os.close(descriptor)

    def _start_keeper(self) -> bool:
        """Start a keeper unless one is coming. False where none can be started."""
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            self._home.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self._home / KEEPER_LOCK, flags, 0o600)
        except OSError:
            return False
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return True
            command = [sys.executable, "-P", "-m", "headwater.catalog.storage.sharing.keeper", str(self._home)]
            if descriptor == INHERITED:
                os.set_inheritable(descriptor, True)
            # In a session of its own: Ctrl-C in a terminal is not for it. It keeps the lock with the descriptor.
            pid = os.posix_spawn(
                sys.executable,
                command,
                os.environ,
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, descriptor, INHERITED),
                ],
                setsid=True,
            )
        except (OSError, NotImplementedError):
            return False
        finally:
            os.close(descriptor)
        threading.Thread(target=self._watch, args=(pid,), name="headwater-keeper", daemon=True).start()
        return True

    def _watch(self, pid: int) -> None:
        """Wait for the keeper that this process started; one that could not begin says why to who opens it here."""
        with contextlib.suppress(ChildProcessError):
            if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) > 0:  # a signal's is negative: that one was there
                self._crowded = False
