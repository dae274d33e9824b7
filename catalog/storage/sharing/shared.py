"""A catalog that any number of processes use at the same time: embedded until shared, then kept by a keeper.

Whoever comes first owns the file in its own process, as fast as can be, and listens. Who comes second starts a keeper
(`sharing.keeper`); that one asks the owner to make way, opens the file, and from then on both ask the keeper. When a
keeper dies, by `kill -9` too, the kernel drops its lock, and the next one who asks something starts another. Nothing
is lost or done twice: an append carries a name, and who did not hear the answer first asks whether it was done.
"""

import contextlib
import fcntl
import os
import sys
import threading
import weakref
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from headwater.catalog.clock import Clock
from headwater.catalog.errors import BusyError, CatalogError, ReadOnlyCatalogError
from headwater.catalog.events import AssetDefinition, Event
from headwater.catalog.keys import AssetKey
from headwater.catalog.partitions.definition import DynamicKeys
from headwater.catalog.processes import this_host
from headwater.catalog.records import (
    Automation,
    Backfill,
    BackfillCells,
    BackfillStatus,
    Backup,
    Cell,
    DefinitionChange,
    Failure,
    LoggedEvent,
    Materialization,
    PlannedCell,
    Run,
    RunStatus,
    Slot,
    Step,
    Tick,
)
from headwater.catalog.storage import lock
from headwater.catalog.storage.base import CellState, PartitionCells, QueryResult
from headwater.catalog.storage.lock import LockHolder

if TYPE_CHECKING:
    from numpy import int64, uint64
    from numpy.typing import NDArray

    from headwater.catalog.storage.duckdb.storage import DuckDBStorage
    from headwater.catalog.storage.sharing.serving import Server

KEEPER_LOCK = "keeper.lock"
#: The descriptor under which a keeper inherits the locked `keeper.lock`.
INHERITED = 3
#: Most commands are over after this long: only who waits longer starts a keeper.
_SHORT = 0.1
#: Seconds between two attempts, doubling from the first to the last.
_FIRST_PAUSE, _LAST_PAUSE = 0.002, 0.05
#: Seconds that somebody who had the catalog waits for the next keeper: longer than any restart takes.
_PATIENCE = 60.0


class _Backend(Protocol):
    """Who answers: the storage in this process, or the keeper."""

    def ask(self, name: str, arguments: Mapping[str, Any]) -> Any: ...

    def append(self, events: Sequence[Event], request: str | None) -> int: ...

    def query(self, sql: str, parameters: Sequence[Any], relations: Mapping[str, Any]) -> QueryResult: ...

    def close(self) -> None: ...


class _Owner:
    """The file is open in this process, which listens for a keeper that wants it, if it may write."""

    def __init__(self, storage: "DuckDBStorage", server: "Server | None") -> None:
        self.storage = storage
        self.server = server

    def ask(self, name: str, arguments: Mapping[str, Any]) -> Any:
        from headwater.catalog.storage.sharing.answer import answer

        return answer(self.storage, name, arguments)

    def append(self, events: Sequence[Event], request: str | None) -> int:
        return self.storage.append(events, request=request)

    def query(self, sql: str, parameters: Sequence[Any], relations: Mapping[str, Any]) -> QueryResult:
        return self.storage.query(sql, parameters, relations=relations)

    def close(self) -> None:
        if self.server is not None:
            self.server.close()
        self.storage.close()


class _Guest:
    """A keeper has the file."""

    def __init__(self, holder: LockHolder, home: Path) -> None:
        from headwater.catalog.storage.sharing.client import Client

        self._home = home
        self._client = Client(holder)
        self._client.greet()

    def ask(self, name: str, arguments: Mapping[str, Any]) -> Any:
        return self._client.ask(name, arguments)

    def append(self, events: Sequence[Event], request: str | None) -> int:
        from headwater.catalog.storage import journal
        from headwater.catalog.storage.admission import check
        from headwater.catalog.storage.text import storable

        for event in events:
            check(event)
        try:
            text = journal.write(events)
        except UnicodeEncodeError:
            text = journal.write([storable(event) for event in events])
        return self._client.ask("append", {"events": text, "request": request})

    def query(self, sql: str, parameters: Sequence[Any], relations: Mapping[str, Any]) -> QueryResult:
        """A query of the catalog alone is the keeper's to answer; files of data are read in this process."""
        if not relations:
            return self._client.ask("query", {"sql": sql, "parameters": parameters})
        from headwater.catalog.storage.sharing.files import query_with_files

        return query_with_files(
            sql, parameters, relations, lambda name: self._client.ask("table", {"name": name}), self._home
        )

    def close(self) -> None:
        self._client.close()


class SharedStorage:
    """A `CatalogWriter` for one of many processes; one that was opened read-only refuses to append. Thread-safe.

    Raises what opening a catalog raises; `BusyError` when it cannot be had within `wait` seconds. With `crowded`, a
    keeper is started at once rather than when somebody else comes.
    """

    def __init__(
        self, home: Path, *, wait: float, clock: Clock, read_only: bool = False, crowded: bool = False
    ) -> None:
        self.home = home.resolve()
        self.read_only = read_only
        self._clock = clock
        self._crowded = crowded
        self._closed = False
        #: Guards the following; its lock is held while the catalog changes hands.
        self._changed = threading.Condition()
        self._in_flight = 0
        self._backend: _Backend | None = None
        with self._changed:
            self._backend = self._join(wait)
        _open.add(self)

    def append(self, events: Sequence[Event], *, request: str | None = None) -> int:
        """See `CatalogWriter.append`."""
        from headwater.catalog.storage.sharing.wire import Disconnected

        if self.read_only:
            raise ReadOnlyCatalogError(
                f"The catalog in {self.home} is open for reading only.",
                remedy="Make its folder and files writable by you, or use another home.",
            )
        request = request or os.urandom(16).hex()
        again = False
        while True:
            backend = self._enter()
            try:
                done = backend.ask("applied", {"request": request}) if again else None
                return backend.append(events, request) if done is None else done
            except Disconnected:
                again = True
            finally:
                self._leave()
            self._leave_for_another(backend)

    def applied(self, request: str) -> int | None:
        """See `CatalogWriter.applied`."""
        return self._ask("applied", request=request)

    def close(self) -> None:
        """Let go of the catalog. Idempotent."""
        with self._changed:
            self._closed = True
            backend, self._backend = self._backend, None
            self._changed.notify_all()
        if backend is not None:
            backend.close()

    def cells(self, assets: Collection[AssetKey] | None = None) -> dict[Cell, CellState]:
        """See `CatalogReader.cells`."""
        return self._ask("cells", assets=assets)

    def partition_cells(self, assets: Collection[AssetKey] | None = None) -> PartitionCells:
        """See `CatalogReader.partition_cells`."""
        return self._ask("partition_cells", assets=assets)

    def cell_states(self, asset: AssetKey, partitions: Sequence[str]) -> dict[str, CellState]:
        """See `CatalogReader.cell_states`."""
        return self._ask("cell_states", asset=asset, partitions=partitions)

    def input_hashes(
        self, asset: AssetKey, seqs: "NDArray[int64]"
    ) -> "Mapping[AssetKey, tuple[NDArray[int64], NDArray[uint64]]]":
        """See `CatalogReader.input_hashes`."""
        return self._ask("input_hashes", asset=asset, seqs=seqs)

    def failures(self) -> dict[Cell, Failure]:
        """See `CatalogReader.failures`."""
        return self._ask("failures")

    def current(self, asset: AssetKey, partition: str | None = None) -> Materialization | None:
        """See `CatalogReader.current`."""
        return self._ask("current", asset=asset, partition=partition)

    def currents(self, asset: AssetKey, partitions: Sequence[str] | None = None) -> dict[str | None, Materialization]:
        """See `CatalogReader.currents`."""
        return self._ask("currents", asset=asset, partitions=partitions)

    @property
    def dynamic_keys(self) -> DynamicKeys:
        """See `CatalogReader.dynamic_keys`."""
        return _DynamicKeys(self._ask)

    def dynamic_partition_names(self) -> list[str]:
        """See `CatalogReader.dynamic_partition_names`."""
        return self._ask("dynamic_partition_names")

    def latest(self, assets: Collection[AssetKey] | None = None) -> dict[AssetKey, Materialization]:
        """See `CatalogReader.latest`."""
        return self._ask("latest", assets=assets)

    def materialization(self, version_id: str) -> Materialization | None:
        """See `CatalogReader.materialization`."""
        return self._ask("materialization", version_id=version_id)

    def materializations(
        self, asset: AssetKey, partition: str | None = None, *, limit: int = 100, before: str | None = None
    ) -> list[Materialization]:
        """See `CatalogReader.materializations`."""
        return self._ask("materializations", asset=asset, partition=partition, limit=limit, before=before)

    def runs(
        self,
        *,
        statuses: Collection[RunStatus] | None = None,
        asset: AssetKey | None = None,
        job: str | None = None,
        backfill: str | None = None,
        root: str | None = None,
        limit: int = 100,
        before: str | None = None,
    ) -> list[Run]:
        """See `CatalogReader.runs`."""
        return self._ask(
            "runs",
            statuses=statuses,
            asset=asset,
            job=job,
            backfill=backfill,
            root=root,
            limit=limit,
            before=before,
        )

    def claims(self) -> int:
        """See `CatalogReader.claims`."""
        return self._ask("claims")

    def slots(self) -> list[Slot]:
        """See `CatalogReader.slots`."""
        return self._ask("slots")

    def backfills(
        self, *, statuses: Collection[BackfillStatus] | None = None, limit: int = 100, before: str | None = None
    ) -> list[Backfill]:
        """See `CatalogReader.backfills`."""
        return self._ask("backfills", statuses=statuses, limit=limit, before=before)

    def backfill(self, backfill_id: str) -> Backfill | None:
        """See `CatalogReader.backfill`."""
        return self._ask("backfill", backfill_id=backfill_id)

    def backfill_cells(self, backfill_id: str) -> Mapping[AssetKey, BackfillCells]:
        """See `CatalogReader.backfill_cells`."""
        return self._ask("backfill_cells", backfill_id=backfill_id)

    def run(self, run_id: str) -> Run | None:
        """See `CatalogReader.run`."""
        return self._ask("run", run_id=run_id)

    def automations(self) -> dict[str, Automation]:
        """See `CatalogReader.automations`."""
        return self._ask("automations")

    def ticks(self, name: str | None = None, *, limit: int = 100) -> list[Tick]:
        """See `CatalogReader.ticks`."""
        return self._ask("ticks", name=name, limit=limit)

    def requested(self, name: str, keys: Collection[str]) -> dict[str, str]:
        """See `CatalogReader.requested`."""
        return self._ask("requested", name=name, keys=keys)

    def steps(self, run_id: str) -> list[Step]:
        """See `CatalogReader.steps`."""
        return self._ask("steps", run_id=run_id)

    def planned(self, run_id: str) -> list[PlannedCell]:
        """See `CatalogReader.planned`."""
        return self._ask("planned", run_id=run_id)

    def events(
        self,
        *,
        asset: AssetKey | None = None,
        partition: str | None = None,
        run_id: str | None = None,
        step_key: str | None = None,
        kinds: Collection[str] | None = None,
        after: int = 0,
        limit: int | None = 1000,
    ) -> list[LoggedEvent]:
        """See `CatalogReader.events`."""
        return self._ask(
            "events",
            asset=asset,
            partition=partition,
            run_id=run_id,
            step_key=step_key,
            kinds=kinds,
            after=after,
            limit=limit,
        )

    def definitions(self) -> dict[AssetKey, AssetDefinition]:
        """See `CatalogReader.definitions`."""
        return self._ask("definitions")

    def definition_history(self, asset: AssetKey | None = None, *, limit: int = 100) -> list[DefinitionChange]:
        """See `CatalogReader.definition_history`."""
        return self._ask("definition_history", asset=asset, limit=limit)

    def query(
        self, sql: str, parameters: Sequence[Any] = (), *, relations: Mapping[str, Any] | None = None
    ) -> QueryResult:
        """See `CatalogReader.query`."""
        return self._with_backend(lambda backend: backend.query(sql, parameters, relations or {}))

    def backup(self, target: Path, *, replace: bool = False) -> Backup:
        """See `DuckDBStorage.backup`."""
        return self._ask("backup", target=target.absolute(), replace=replace)

    def __enter__(self) -> "SharedStorage":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, name: str, /, **arguments: Any) -> Any:
        return self._with_backend(lambda backend: backend.ask(name, arguments))

    def _with_backend(self, ask: Callable[[_Backend], Any]) -> Any:
        """The answer of whoever has the catalog; of the next one, where that one is gone: reading twice is harmless."""
        from headwater.catalog.storage.sharing.wire import Disconnected

        while True:
            backend = self._enter()
            try:
                return ask(backend)
            except Disconnected:
                pass
            finally:
                self._leave()
            self._leave_for_another(backend)

    def _enter(self) -> _Backend:
        """Begin to use the catalog, which does not change hands before `_leave`."""
        with self._changed:
            if self._closed:
                raise CatalogError(f"The catalog in {self.home} is closed.", remedy="Open it again.")
            if self._backend is None:
                self._backend = self._join(_PATIENCE)
            self._in_flight += 1
            return self._backend

    def _leave(self) -> None:
        with self._changed:
            self._in_flight -= 1
            self._changed.notify_all()

    def _leave_for_another(self, gone: _Backend) -> None:
        """The keeper is gone: there was company, so there will be another one."""
        with self._changed:
            if self._backend is gone:
                gone.close()
                self._backend = None
                self._crowded = True

    def _make_way(self, name: str, arguments: Mapping[str, Any]) -> None:
        """What the owner's server answers: a keeper wants the catalog. Returns when it can have it."""
        if name != "make_way":
            raise CatalogError(f"The owner of the catalog does not answer '{name}'.", remedy="Ask a keeper.")
        with self._changed:
            self._changed.wait_for(lambda: not self._in_flight)
            backend, self._backend = self._backend, None
            self._crowded = True
            if isinstance(backend, _Owner):
                backend.storage.close()
        if isinstance(backend, _Owner) and backend.server is not None:
            backend.server.close()

    def _join(self, wait: float) -> _Backend:
        """Find who has the catalog, be it this process. Called with the lock held."""
        from headwater.catalog.storage.sharing.wire import Disconnected

        clock = self._clock
        started = clock.monotonic()
        pause = _FIRST_PAUSE
        while True:
            found = lock.holder(self.home)
            if found is None or (self.read_only and found.shared):
                if not self._crowded and not self._is_coming():
                    with contextlib.suppress(BusyError):  # somebody was faster
                        return self._own()
                elif not self._start_keeper():
                    self._crowded = False
            elif found.host == this_host() and found.address:
                if found.keeper:
                    with contextlib.suppress(Disconnected):
                        return _Guest(found, self.home)
                elif self._crowded or clock.monotonic() - started >= min(_SHORT, wait):
                    self._start_keeper()
            left = started + wait - clock.monotonic()
            if left <= 0:
                raise lock.busy(self.home, found, wait)
            clock.sleep(min(pause, left))
            pause = min(2 * pause, _LAST_PAUSE)

    def _own(self) -> _Owner:
        from headwater.catalog.storage.duckdb.opening import open_catalog

        storage = open_catalog(self.home, wait=0, read_only=self.read_only, clock=self._clock)
        held = storage.lock
        if held is None or held.shared:
            self.read_only = True
            return _Owner(storage, None)
        from headwater.catalog.storage.sharing.serving import Server

        try:
            return _Owner(storage, Server(self.home, held, self._make_way, keeper=False))
        except OSError:  # there is no socket to be had here: then nobody else comes in, as long as this takes
            return _Owner(storage, None)

    def _is_coming(self) -> bool:
        """Whether a keeper is being started, or there."""
        try:
            descriptor = os.open(self.home / KEEPER_LOCK, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
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
            self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self.home / KEEPER_LOCK, flags, 0o600)
        except OSError:
            return False
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return True
            command = [sys.executable, "-P", "-m", "headwater.catalog.storage.sharing.keeper", str(self.home)]
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

    def forget(self) -> None:
        """In a forked child: a keeper may be asked from here too, but what the parent owns is the parent's."""
        self._changed = threading.Condition()
        self._in_flight = 0
        if isinstance(self._backend, _Owner) and self._backend.server is not None:
            self._backend.server.forget()


class _DynamicKeys:
    """Implements `DynamicKeys` by asking."""

    def __init__(self, ask: Any) -> None:
        self._ask = ask

    def count(self, name: str) -> int:
        return self._ask("dynamic_count", name=name)

    def indexes(self, name: str, keys: Sequence[str]) -> Sequence[int]:
        return self._ask("dynamic_indexes", name=name, keys=keys)

    def slice(self, name: str, start: int, stop: int) -> Sequence[str]:
        return self._ask("dynamic_slice", name=name, start=start, stop=stop)


_open: "weakref.WeakSet[SharedStorage]" = weakref.WeakSet()


def _forget_open() -> None:
    for storage in list(_open):
        storage.forget()


os.register_at_fork(after_in_child=_forget_open)
