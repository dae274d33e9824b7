"""The keeper: a process that owns a catalog's file and answers everybody else, started when there is company.

`python -m headwater.catalog.storage.sharing.keeper HOME` with `keeper.lock` open and locked as descriptor 3: it is
held for as long as a keeper is coming or there, so there is never a second one. It leaves when nobody has been
connected for a while, when its home is gone, and on SIGTERM, each time with everything in the database file.
"""

import contextlib
import fcntl
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from headwater.catalog.clock import Clock, SystemClock
from headwater.catalog.errors import BusyError, HeadwaterError
from headwater.catalog.processes import this_host
from headwater.catalog.storage.duckdb.opening import open_catalog
from headwater.catalog.storage.duckdb.storage import DuckDBStorage
from headwater.catalog.storage.lock import holder
from headwater.catalog.storage.sharing.answer import answer
from headwater.catalog.storage.sharing.client import Client
from headwater.catalog.storage.sharing.joining import INHERITED
from headwater.catalog.storage.sharing.serving import HomeServer
from headwater.catalog.storage.sharing.wire import Disconnected

#: Seconds without a client after which it leaves.
IDLE = 15.0
#: Seconds between two looks around.
_LOOK = 0.5
#: Seconds to get hold of the catalog: of an owner that is asked to make way, and of readers that end by themselves.
_PATIENCE = 60.0
#: Seconds that closing the catalog may take it.
_LEAVING = 5.0
_MAX_LOG = 1 << 20


def keep(home: Path, clock: Clock, stop: threading.Event, *, idle: float = IDLE) -> None:
    """Own the catalog in `home` and answer others, until `stop` is set or nobody needs it any more.

    Raises `BusyError` where it cannot be had in time, and what opening it raises.
    """
    storage = _open(home, clock)
    lock = storage.lock
    assert lock is not None  # it is open for writing

    def respond(name: str, arguments: Mapping[str, Any]) -> Any:
        if name != "make_way":
            return answer(storage, name, arguments)
        if server.clients > 1:
            raise BusyError(f"{server.clients - 1} others use the catalog in {home}.", remedy="Wait for them.")
        return stop.set()

    server = HomeServer(home, lock, respond, keeper=True)
    try:
        since, greeted = clock.monotonic(), 0
        while not stop.wait(_LOOK) and lock.is_of(home):
            if server.clients or server.greeted > greeted:
                since, greeted = clock.monotonic(), server.greeted
            elif clock.monotonic() - since >= idle:
                break
    finally:
        server.close()
        storage.close()


def dismiss(home: Path) -> None:
    """Have the keeper of the catalog in `home` leave before its time, if there is one that nobody else needs."""
    found = holder(home)
    if found is not None and found.keeper and found.host == this_host():
        client = Client(found)
        with contextlib.suppress(Disconnected, BusyError):
            client.ask("make_way", {})
            deadline = time.monotonic() + _LEAVING
            while found == holder(home) and time.monotonic() < deadline:
                time.sleep(0.01)
        client.close()


def _open(home: Path, clock: Clock) -> DuckDBStorage:
    deadline = clock.monotonic() + _PATIENCE
    while True:
        try:
            return open_catalog(home, wait=0.05, clock=clock, command="headwater keeper")
        except BusyError:
            if clock.monotonic() > deadline:
                raise
        found = holder(home)
        if found is not None and found.address and not found.keeper:
            client = Client(found)
            with contextlib.suppress(Disconnected):
                client.ask("make_way", {})
            client.close()


def main() -> None:
    """Run a keeper for the home that is named on the command line."""
    home = Path(sys.argv[1])
    os.chdir("/")
    os.closerange(INHERITED + 1, 256)
    try:
        fcntl.flock(INHERITED, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        sys.exit("A keeper is started by Headwater itself, with keeper.lock as descriptor 3.")
    os.set_inheritable(INHERITED, False)
    _redirect(home / "logs" / "keeper.log")
    stop = threading.Event()

    def on_term(number: int, frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, on_term)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        keep(home, SystemClock(), stop, idle=float(os.environ.get("HEADWATER_KEEPER_IDLE", IDLE)))
    except HeadwaterError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)


def _redirect(log: Path) -> None:
    """Write what goes wrong into a file of its own, which stays small."""
    with contextlib.suppress(OSError):
        log.parent.mkdir(mode=0o700, exist_ok=True)
        full = log.exists() and log.stat().st_size > _MAX_LOG
        flags = os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | (os.O_TRUNC if full else 0)
        file = os.open(log, flags, 0o600)
        os.dup2(file, 1)
        os.dup2(file, 2)
        os.close(file)


if __name__ == "__main__":
    main()
