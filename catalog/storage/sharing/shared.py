"""A catalog that any number of processes use at the same time, whoever has it open: this process or another.

Who that is may change at any moment: see `sharing.joining` for processes of one host, `sharing.remote` for others.
Nothing is lost or done twice then: an append carries a name, and who did not hear the answer first asks whether it was
done.
"""

import os
import threading
import weakref
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from headwater.catalog.clock import Clock
from headwater.catalog.errors import CatalogError, ReadOnlyCatalogError
from headwater.catalog.events import AssetDefinition, Event
from headwater.catalog.keys import AssetKey
from headwater.catalog.partitions.definition import DynamicKeys
from headwater.catalog.records import (
    Automation,
    Backfill,
    BackfillCells,
    BackfillStatus,
    Backup,
    Cell,
    ConditionState,
    Daemon,
    DefinitionChange,
    Fact,
    FactTopic,
    Failure,
    LoggedEvent,
    Materialization,
    PlannedCell,
    Run,
    RunStatus,
    Slot,
    Step,
    Tick,
    TickStatus,
)
from headwater.catalog.storage.base import CellState, PartitionCells, QueryResult

if TYPE_CHECKING:
    from numpy import int64, uint64
    from numpy.typing import NDArray

    from headwater.catalog.storage.sharing.remote import Address

#: Seconds that somebody who had the catalog waits for the next one who has it: longer than any restart takes.
_PATIENCE = 60.0


class Backend(Protocol):
    """Who has the catalog, be it this process."""

    def ask(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """The answer to one of `wire.OPERATIONS`. Raises `Disconnected`: then it may have been heard, or not."""
        ...

    def append(self, events: Sequence[Event], **conditions: Any) -> int:
        """See `CatalogWriter.append`. Raises `Disconnected`."""
        ...

    def query(self, sql: str, parameters: Sequence[Any], relations: Mapping[str, Any]) -> QueryResult:
        """See `CatalogReader.query`. Raises `Disconnected`."""
        ...

    def forget(self) -> None:
        """In a forked child: close what is the parent's."""
        ...

    def close(self) -> None:
        """Let go of it. Idempotent."""
        ...


class Joining(Protocol):
    """How to find who has the catalog. As text, where the catalog is: `in FOLDER`, `at ADDRESS`."""

    read_only: bool

    def join(self, wait: float) -> Backend:
        """Who has it, found within `wait` seconds. Raises what opening a catalog raises."""
        ...

    def lost(self) -> None:
        """Whoever had it has it no more."""
        ...


class SharedStorage:
    """A `CatalogWriter` for one of many processes; one that was opened read-only refuses to append. Thread-safe.

    The catalog is in a folder of this host, or with a server. Raises what opening a catalog raises; `BusyError` or
    `UnreachableCatalogError` when it cannot be had within `wait` seconds. With `crowded`, a keeper is started at once
    rather than when somebody else comes.
    """

    def __init__(
        self, place: "Path | Address", *, wait: float, clock: Clock, read_only: bool = False, crowded: bool = False
    ) -> None:
        self._clock = clock
        self._patience = max(wait, _PATIENCE)
        self._closed = False
        #: Guards the following; its lock is held while the catalog changes hands.
        self._changed = threading.Condition()
        self._in_flight = 0
        self._backend: Backend | None = None
        self._joining: Joining
        if isinstance(place, Path):
            from headwater.catalog.storage.sharing.joining import HomeJoining

            self._joining = HomeJoining(place.resolve(), clock, read_only, crowded, self._make_way)
        else:
            from headwater.catalog.storage.sharing.remote import RemoteJoining

            self._joining = RemoteJoining(place, clock, read_only)
        with self._changed:
            self._backend = self._joining.join(wait)
        _open.add(self)

    @property
    def read_only(self) -> bool:
        """Whether `append` raises `ReadOnlyCatalogError`."""
        return self._joining.read_only

    def append(
        self,
        events: Sequence[Event],
        *,
        request: str | None = None,
        by: str | None = None,
        lapsed: Collection[str] = (),
    ) -> int:
        """See `CatalogWriter.append`."""
        if self.read_only:
            raise ReadOnlyCatalogError(
                f"The catalog {self._joining} is open for reading only.",
                remedy="Make its folder and files writable by you, or use another home.",
            )
        name = request or os.urandom(16).hex()

        def append(backend: Backend, again: bool) -> int:
            done = backend.ask("applied", {"request": name}) if again else None
            return backend.append(events, request=name, by=by, lapsed=list(lapsed)) if done is None else done

        return self._with_backend(append)

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

    def last_event(self) -> int:
        """See `CatalogReader.last_event`."""
        return self._ask("last_event")

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

    def facts(
        self, topic: FactTopic, names: Collection[str] | None = None, *, limit: int | None = None
    ) -> dict[str, Fact]:
        """See `CatalogReader.facts`."""
        return self._ask("facts", topic=topic, names=names, limit=limit)

    def ticks(
        self,
        names: Collection[str] | None = None,
        *,
        statuses: Collection[TickStatus] | None = None,
        before: datetime | None = None,
        limit: int = 100,
    ) -> list[Tick]:
        """See `CatalogReader.ticks`."""
        return self._ask("ticks", names=names, statuses=statuses, before=before, limit=limit)

    def requested(self, name: str, keys: Collection[str]) -> dict[str, str]:
        """See `CatalogReader.requested`."""
        return self._ask("requested", name=name, keys=keys)

    def daemon(self) -> Daemon | None:
        """See `CatalogReader.daemon`."""
        return self._ask("daemon")

    def condition_states(self, *, common: bool = False) -> list[ConditionState]:
        """See `CatalogReader.condition_states`."""
        return self._ask("condition_states", common=common)

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
        return self._with_backend(lambda backend, _: backend.query(sql, parameters, relations or {}))

    def backup(self, target: Path, *, replace: bool = False) -> Backup:
        """See `DuckDBStorage.backup`."""
        return self._ask("backup", target=target.absolute(), replace=replace)

    def ask(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """The answer to one of `wire.OPERATIONS`, with its arguments as that takes them."""
        if name == "append":
            return self.append(**arguments)
        return self._with_backend(lambda backend, _: backend.ask(name, arguments))

    def __enter__(self) -> "SharedStorage":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, name: str, /, **arguments: Any) -> Any:
        return self._with_backend(lambda backend, _: backend.ask(name, arguments))

    def _with_backend(self, ask: Callable[[Backend, bool], Any]) -> Any:
        """The answer of whoever has the catalog; of the next one, where that one is gone.

        `ask` is told whether it asked before, and may have been heard.
        """
        from headwater.catalog.storage.sharing.wire import Disconnected

        deadline: float | None = None
        while True:
            backend = self._enter()
            try:
                return ask(backend, deadline is not None)
            except Disconnected as error:
                now = self._clock.monotonic()
                deadline = deadline or now + self._patience
                if now > deadline:
                    raise CatalogError(
                        f"The connection to the catalog {self._joining} broke again and again: {error}.",
                        remedy="Whether the last change was made is not known: look before you repeat it.",
                    ) from error
            finally:
                self._leave()
            self._leave_for_another(backend)

    def _enter(self) -> "Backend":
        """Begin to use the catalog, which does not change hands before `_leave`."""
        with self._changed:
            if self._closed:
                raise CatalogError(f"The catalog {self._joining} is closed.", remedy="Open it again.")
            if self._backend is None:
                self._backend = self._joining.join(self._patience)
            self._in_flight += 1
            return self._backend

    def _leave(self) -> None:
        with self._changed:
            self._in_flight -= 1
            self._changed.notify_all()

    def _leave_for_another(self, gone: "Backend") -> None:
        with self._changed:
            if self._backend is gone:
                gone.close()
                self._backend = None
                self._joining.lost()

    def _make_way(self, name: str, arguments: Mapping[str, Any]) -> None:
        """What the owner's server answers: a keeper wants the catalog. Returns when it can have it."""
        from headwater.catalog.storage.sharing.joining import Owner

        if name != "make_way":
            raise CatalogError(f"The owner of the catalog does not answer '{name}'.", remedy="Ask a keeper.")
        with self._changed:
            self._changed.wait_for(lambda: not self._in_flight)
            backend, self._backend = self._backend, None
            self._joining.lost()
            if isinstance(backend, Owner):
                backend.storage.close()
        if isinstance(backend, Owner) and backend.server is not None:
            backend.server.close()

    def forget(self) -> None:
        """In a forked child: a keeper may be asked from here too, but what the parent owns is the parent's."""
        self._changed = threading.Condition()
        self._in_flight = 0
        if self._backend is not None:
            self._backend.forget()


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
