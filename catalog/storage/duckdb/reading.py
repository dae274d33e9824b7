"""The read side: questions about what is the case and what happened, each answered from one consistent state."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar, cast

from headwater.catalog.clock import Clock
from headwater.catalog.errors import UsageError
from headwater.catalog.events import AssetDefinition
from headwater.catalog.keys import AssetKey
from headwater.catalog.partitions.definition import DynamicKeys
from headwater.catalog.records import (
    Automation,
    Backfill,
    BackfillCells,
    BackfillStatus,
    Cell,
    ConditionState,
    Daemon,
    DefinitionChange,
    Fact,
    FactTopic,
    Failure,
    Fingerprint,
    Input,
    LoggedEvent,
    Materialization,
    PlannedCell,
    Run,
    RunStatus,
    Slot,
    Step,
    StepStatus,
    Tick,
    TickStatus,
)
from headwater.catalog.storage.base import AssetCells, CellState, PartitionCells, QueryResult, cell_state
from headwater.catalog.storage.duckdb.connection import Database
from headwater.catalog.storage.duckdb.dictionary import Dictionary
from headwater.catalog.storage.duckdb.rows import (
    automation,
    aware,
    backfill,
    daemon,
    definition,
    fact,
    failure,
    from_json,
    json_text,
    materialization,
    run,
    step,
    step_status,
    tick,
    timestamp,
)
from headwater.catalog.storage.duckdb.sql import queries
from headwater.catalog.storage.identifiers import bounds, is_identifier
from headwater.catalog.storage.leases import Leases
from headwater.catalog.storage.text import storable_only

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection
    from numpy import int64, uint64
    from numpy.typing import NDArray


Item = TypeVar("Item")


class StoredKeys:
    """Implements `DynamicKeys`, page by page; `ask` answers a named query."""

    def __init__(self, ask: "Callable[..., list[tuple[Any, ...]]]") -> None:
        self._ask = ask

    def count(self, name: str) -> int:
        """See `DynamicKeys.count`."""
        return self._ask("dynamic_count", name=name)[0][0] if storable_only([name]) else 0

    def indexes(self, name: str, keys: Sequence[str]) -> Sequence[int]:
        """See `DynamicKeys.indexes`."""
        wanted = storable_only(keys) if storable_only([name]) else []
        found: dict[str, int] = dict(self._ask("dynamic_indexes", name=name, keys=json_text(wanted))) if wanted else {}
        return [found.get(key, -1) for key in keys]

    def slice(self, name: str, start: int, stop: int) -> Sequence[str]:
        """See `DynamicKeys.slice`."""
        if not storable_only([name]):
            return []
        return [key for (key,) in self._ask("dynamic_slice", name=name, start=start, stop=stop)]


class Reader:
    """Implements the reads of `CatalogReader` for a database that is open."""

    def __init__(self, database: Database, clock: Clock | None = None) -> None:
        self._database = database
        self._leases = Leases(clock)
        self._assets: Dictionary[AssetKey] = Dictionary(self._load_assets)
        self._fingerprints: Dictionary[Fingerprint] = Dictionary(self._load_fingerprints)

    def cells(self, assets: Collection[AssetKey] | None = None) -> dict[Cell, CellState]:
        """See `CatalogReader.cells`."""
        numbers = self._number_list(assets)
        with self._reading() as cursor:
            cursor.begin()
            cells = ask(cursor, "cells", assets=numbers)
            inputs = ask(cursor, "cell_inputs", assets=numbers)
            cursor.commit()
        asset, fingerprint = self._assets.lookup, self._fingerprints.lookup
        found = _inputs(inputs, asset)
        none: Mapping[str, str] = {}
        return {
            Cell(asset(asset_id)): CellState(
                version_id,
                fingerprint(fingerprint_id),
                data_version,
                found.get(seq, ()),
                from_json(columns, dict[str, str]) if columns else none,
                stored,
            )
            for seq, asset_id, version_id, fingerprint_id, data_version, columns, stored in cells
        }

    def partition_cells(self, assets: Collection[AssetKey] | None = None) -> PartitionCells:
        """See `CatalogReader.partition_cells`."""
        from headwater.catalog.storage.duckdb.arrays import by_asset, key_texts

        numbers = self._number_list(assets)
        with self._reading() as cursor:
            cursor.begin()
            cells = ask_arrays(cursor, "partition_cells", assets=numbers)
            keys = ask_arrays(cursor, "partition_keys", assets=numbers)
            cursor.commit()
        return PartitionCells(
            {self._assets.lookup(number): AssetCells(*columns) for number, columns in by_asset(cells)},
            key_texts(keys),
            self._fingerprints.values,
        )

    def cell_states(self, asset: AssetKey, partitions: Sequence[str]) -> dict[str, CellState]:
        """See `CatalogReader.cell_states`."""
        found = self.currents(asset, partitions)
        return {key: cell_state(made) for key, made in found.items() if key is not None}

    def input_hashes(
        self, asset: AssetKey, seqs: "NDArray[int64]"
    ) -> "Mapping[AssetKey, tuple[NDArray[int64], NDArray[uint64]]]":
        """See `CatalogReader.input_hashes`."""
        from headwater.catalog.storage.duckdb.arrays import by_asset, numbered

        with self._reading() as cursor:
            cursor.register("wanted", numbered(seqs))
            found = ask_arrays(cursor, "input_hashes", asset=self._assets.find(asset))
        return {self._assets.lookup(number): (at, sums) for number, (at, sums) in by_asset(found)}

    def failures(self) -> dict[Cell, Failure]:
        """See `CatalogReader.failures`."""
        with self._reading() as cursor:
            cursor.begin()
            cells = ask(cursor, "failures")
            seqs = sorted({seq for _, _, seq in cells})
            steps = {seq: failure(row) for seq, *row in ask(cursor, "failed_steps", seqs=json_text(seqs))}
            cursor.commit()
        asset = self._assets.lookup
        return {Cell(asset(number), partition): steps[seq] for number, partition, seq in cells}

    def current(self, asset: AssetKey, partition: str | None = None) -> Materialization | None:
        """See `CatalogReader.current`."""
        number = self._assets.find(asset)
        if number is None:
            return None
        if partition is None:
            return _first(self._materializations(cell_asset=number, whole=True))
        return self.currents(asset, [partition]).get(partition)

    def currents(self, asset: AssetKey, partitions: Sequence[str] | None = None) -> dict[str | None, Materialization]:
        """See `CatalogReader.currents`."""
        number = self._assets.find(asset)
        if number is None:
            return {}
        partition_numbers = None
        if partitions is not None:
            with self._reading() as cursor:
                partition_numbers = json_text(list(numbered_partitions(cursor, partitions).values()))
        found = self._materializations(cell_asset=number, partitions=partition_numbers)
        return {made.partition: made for made in found}

    @property
    def dynamic_keys(self) -> DynamicKeys:
        """See `CatalogReader.dynamic_keys`."""
        return StoredKeys(self._ask)

    def dynamic_partition_names(self) -> list[str]:
        """See `CatalogReader.dynamic_partition_names`."""
        return [name for (name,) in self._ask("dynamic_names")]

    def latest(self, assets: Collection[AssetKey] | None = None) -> dict[AssetKey, Materialization]:
        """See `CatalogReader.latest`."""
        numbers = self._number_list(assets)
        return {made.asset: made for made in self._materializations(latest=True, assets=numbers)}

    def materialization(self, version_id: str) -> Materialization | None:
        """See `CatalogReader.materialization`."""
        return _first(self._materializations(version=version_id)) if is_identifier(version_id) else None

    def materializations(
        self, asset: AssetKey, partition: str | None = None, *, limit: int = 100, before: str | None = None
    ) -> list[Materialization]:
        """See `CatalogReader.materializations`."""
        if before is not None and self.materialization(before) is None:
            raise _unknown("version", before)
        number = self._assets.find(asset)
        if number is None or (partition is not None and not storable_only([partition])):
            return []
        return self._materializations(asset=number, partition=partition, before=before, limit=limit)

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
        if before is not None and self._run_number(before) is None:
            raise _unknown("run", before)
        number = None if asset is None else self._assets.find(asset)
        if asset is not None and number is None:
            return []
        if not all(is_identifier(one) for one in (backfill, root) if one is not None):
            return []
        return self._runs(
            statuses=None if statuses is None else json_text(list(statuses)),
            asset=number,
            job=job,
            backfill=backfill,
            root=root,
            limit=limit,
            before=before,
        )

    def run(self, run_id: str) -> Run | None:
        """See `CatalogReader.run`."""
        return _only(self._runs, run_id, "run")

    def last_event(self) -> int:
        """See `CatalogReader.last_event`."""
        return self._ask("last_event")[0][0] or 0

    def claims(self) -> int:
        """See `CatalogReader.claims`."""
        return self._ask("claims")[0][0]

    def slots(self) -> list[Slot]:
        """See `CatalogReader.slots`."""
        return [
            Slot(pool=pool, run_id=run_id, step_key=step_key, attempt=attempt)
            for pool, run_id, step_key, attempt in self._ask("slots")
        ]

    def backfills(
        self,
        *,
        statuses: Collection[BackfillStatus] | None = None,
        limit: int = 100,
        before: str | None = None,
    ) -> list[Backfill]:
        """See `CatalogReader.backfills`."""
        if before is not None and self._backfill_number(before) is None:
            raise _unknown("backfill", before)
        names = None if statuses is None else json_text(list(statuses))
        return self._backfills(statuses=names, limit=limit, before=before)

    def backfill(self, backfill_id: str) -> Backfill | None:
        """See `CatalogReader.backfill`."""
        return _only(self._backfills, backfill_id, "backfill")

    def backfill_cells(self, backfill_id: str) -> Mapping[AssetKey, BackfillCells]:
        """See `CatalogReader.backfill_cells`."""
        rows = self._ask("backfill_cells", backfill=backfill_id) if is_identifier(backfill_id) else []
        return {AssetKey(asset): BackfillCells(done or [], failed or []) for asset, done, failed in rows}

    def automations(self) -> dict[str, Automation]:
        """See `CatalogReader.automations`."""
        return {row[0]: automation(row) for row in self._ask("automations")}

    def facts(
        self, topic: FactTopic, names: Collection[str] | None = None, *, limit: int | None = None
    ) -> dict[str, Fact]:
        """See `CatalogReader.facts`."""
        wanted = None if names is None else json_text(storable_only(names))
        return {row[1]: fact(row) for row in self._ask("facts", topic=topic, names=wanted, limit=limit)}

    def ticks(
        self,
        names: Collection[str] | None = None,
        *,
        statuses: Collection[TickStatus] | None = None,
        before: datetime | None = None,
        limit: int = 100,
    ) -> list[Tick]:
        """See `CatalogReader.ticks`."""
        return [
            tick(row)
            for row in self._ask(
                "ticks",
                names=None if names is None else json_text(storable_only(names)),
                statuses=None if statuses is None else json_text(list(statuses)),
                before=None if before is None else timestamp(before),
                limit=limit,
            )
        ]

    def requested(self, name: str, keys: Collection[str]) -> dict[str, str]:
        """See `CatalogReader.requested`."""
        if not storable_only([name]):
            return {}
        return dict(self._ask("requested", name=name, keys=json_text(storable_only(list(keys)))))

    def daemon(self) -> Daemon | None:
        """See `CatalogReader.daemon`."""
        rows = self._ask("daemon")
        return self._leases.heard(daemon(rows[0])) if rows else None

    def condition_states(self, *, common: bool = False) -> list[ConditionState]:
        """See `CatalogReader.condition_states`."""
        lookup = self._assets.lookup
        return [
            ConditionState(asset=None if asset is None else lookup(asset), data=from_json(data, dict[str, Any]))
            for asset, data in self._ask("condition_states", common=common or None)
        ]

    def steps(self, run_id: str) -> list[Step]:
        """See `CatalogReader.steps`."""
        number = self._run_number(run_id)
        if number is None:
            return []
        with self._reading() as cursor:
            cursor.begin()
            rows = ask(cursor, "steps", run=number)
            planned = ask(cursor, "planned_cells", run=number)
            cursor.commit()
        cells: dict[int, list[tuple[AssetKey, str | None]]] = defaultdict(list)
        for number, asset, partition, _, _ in planned:
            cells[number].append((self._assets.lookup(asset), partition))
        return [step(run_id, row, cells[row[0]]) for row in rows]

    def planned(self, run_id: str) -> list[PlannedCell]:
        """See `CatalogReader.planned`."""
        number = self._run_number(run_id)
        if number is None:
            return []
        rows = self._ask("planned_cells", run=number, uncommitted=True)
        return [
            PlannedCell(asset=self._assets.lookup(asset), partition=partition, version_id=version_id, folder=folder)
            for _, asset, partition, version_id, folder in rows
        ]

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
        number = None if asset is None else self._assets.find(asset)
        run = None if run_id is None else self._run_number(run_id)
        if (asset is not None and number is None) or (run_id is not None and run is None):
            return []
        if partition is not None and not storable_only([partition]):
            return []
        rows = self._ask(
            "events",
            asset=number,
            partition=None if asset is None else partition,
            run=run,
            step_key=step_key,
            kinds=None if kinds is None else json_text([str(kind) for kind in kinds]),
            after=after,
            limit=limit,
        )
        return [
            LoggedEvent(
                seq=seq,
                time=aware(time),
                kind=kind,
                run_id=run_id,
                step_key=step_key,
                asset=None if asset_id is None else self._assets.lookup(asset_id),
                partition=partition,
                message=message,
                data=from_json(data, dict[str, Any]),
            )
            for seq, time, kind, run_id, step_key, asset_id, partition, message, data in rows
        ]

    def definitions(self) -> dict[AssetKey, AssetDefinition]:
        """See `CatalogReader.definitions`."""
        rows = self._ask("definitions")
        found = (definition(row, self._assets.lookup) for row in rows)
        return {one.asset: one for one in found}

    def definition_history(self, asset: AssetKey | None = None, *, limit: int = 100) -> list[DefinitionChange]:
        """See `CatalogReader.definition_history`."""
        number = None if asset is None else self._assets.find(asset)
        if asset is not None and number is None:
            return []
        rows = self._ask("definition_changes", asset=number, limit=limit)
        return [
            DefinitionChange(
                asset=self._assets.lookup(number),
                changed=aware(changed),
                change=change,
                parts=tuple(from_json(parts, list[str])),
            )
            for number, changed, change, parts in rows
        ]

    def query(
        self,
        sql: str,
        parameters: Sequence[Any] = (),
        *,
        relations: Mapping[str, Any] | None = None,
        max_rows: int | None = None,
    ) -> QueryResult:
        """See `CatalogReader.query`. Raises `UsageError` for more than `max_rows` of the catalog's own."""
        from headwater.catalog.storage.duckdb.user_queries import answer

        with self._reading() as cursor:
            return answer(cursor, sql, parameters, relations or {}, max_rows=max_rows)

    def table(self, name: str) -> bytes:
        """What a table or view holds, as a Parquet file, for processes that ask SQL about it and about files."""
        from headwater.catalog.storage.duckdb.user_queries import contents, parquet_bytes

        with self._reading() as cursor:
            return parquet_bytes(contents(cursor, name), self._database.path.parent)

    def _reading(self) -> "AbstractContextManager[DuckDBPyConnection]":
        """A connection to ask, with every event in the tables."""
        return self._database.cursor()

    def _materializations(self, **conditions: Any) -> list[Materialization]:
        rows = self._ask("materializations", **conditions)
        return [materialization(row, self._assets.lookup, self._fingerprints.lookup) for row in rows]

    def _runs(self, **conditions: Any) -> list[Run]:
        with self._reading() as cursor:
            cursor.begin()
            rows = ask(cursor, "runs", **conditions)
            numbers = [row[0] for row in rows]
            counted = ask(cursor, "step_counts", runs=json_text(numbers), least=numbers[-1]) if rows else []
            cursor.commit()
        counts: dict[int, dict[StepStatus, int]] = defaultdict(dict)
        for number, ended_as, count in counted:
            counts[number][step_status(ended_as)] = count
        found: list[Run] = []
        for number, *row, steps in rows:
            pending = steps - sum(counts[number].values())
            found.append(run(row, counts[number] | ({StepStatus.PENDING: pending} if pending else {})))
        return [self._leases.judged(one, one.run_id) for one in found]

    def _backfills(self, **conditions: Any) -> list[Backfill]:
        with self._reading() as cursor:
            cursor.begin()
            rows = ask(cursor, "backfills", **conditions)
            names = [row[0] for row in rows]
            counted = ask(cursor, "backfill_counts", least=min(names), greatest=max(names)) if rows else []
            cursor.commit()
        counts = {name: (done, failed) for name, done, failed in counted}
        found = [backfill((*row, *counts.get(row[0], (0, 0)))) for row in rows]
        return [self._leases.judged(one, one.backfill_id) for one in found]

    def _backfill_number(self, backfill_id: str) -> int | None:
        if not is_identifier(backfill_id):
            return None
        rows = self._ask("backfill_number", backfill=backfill_id)
        return rows[0][0] if rows else None

    def _run_number(self, run_id: str) -> int | None:
        if not is_identifier(run_id):
            return None
        rows = self._ask("run_number", run_id=run_id)
        return rows[0][0] if rows else None

    def _number_list(self, assets: Iterable[AssetKey] | None) -> str | None:
        """The numbers of `assets` as a parameter; None for all of them."""
        if assets is None:
            return None
        return json_text([number for number in map(self._assets.find, assets) if number is not None])

    def _ask(self, query: str, **parameters: Any) -> list[tuple[Any, ...]]:
        with self._reading() as cursor:
            return ask(cursor, query, **parameters)

    def _load_assets(self) -> list[AssetKey]:
        with self._database.cursor() as cursor:
            return [AssetKey(key) for (key,) in ask(cursor, "assets")]

    def _load_fingerprints(self) -> list[Fingerprint]:
        with self._database.cursor() as cursor:
            return [
                Fingerprint(
                    code=code, definition=definition, config=config, resources=resources, io=io, partitions=partitions
                )
                for code, definition, config, resources, io, partitions in ask(cursor, "fingerprints")
            ]


def ask(connection: "DuckDBPyConnection", query: str, **parameters: Any) -> list[tuple[Any, ...]]:
    """The rows of a named query."""
    text, bound = queries()[query].bind(parameters)
    return connection.execute(text, bound).fetchall()


def ask_arrays(connection: "DuckDBPyConnection", query: str, **parameters: Any) -> "dict[str, NDArray[Any]]":
    """The columns of what a named query gives, by name."""
    text, bound = queries()[query].bind(parameters)
    return cast("dict[str, NDArray[Any]]", connection.execute(text, bound).fetchnumpy())


def numbered_partitions(connection: "DuckDBPyConnection", keys: Sequence[str]) -> dict[str, int]:
    """The numbers of those of `keys` that have one."""
    wanted = set(storable_only(keys))
    return {
        key: number for key, number in ask(connection, "partition_numbers", keys=json_text(wanted)) if key in wanted
    }


def _inputs(rows: Iterable[tuple[Any, ...]], asset: Callable[[int], AssetKey]) -> dict[int, tuple[Input, ...]]:
    """The inputs of each cell by its seq. Cells that read the same version share one `Input`."""
    shared: dict[tuple[Any, ...], Input] = {}
    found: dict[int, list[Input]] = defaultdict(list)
    for row in rows:
        key = row[1:]
        source = shared.get(key)
        if source is None:
            asset_id, partition, version_id, data_version, columns = key
            source = shared[key] = Input(
                asset=asset(asset_id),
                partition=partition,
                version_id=version_id,
                data_version=data_version,
                columns=None if columns is None else from_json(columns, dict[str, str]),
            )
        found[row[0]].append(source)
    return {seq: tuple(sources) for seq, sources in found.items()}


def _first(found: Sequence[Any]) -> Any:
    return found[0] if found else None


def _only(find: Callable[..., list[Item]], beginning: str, what: str) -> Item | None:
    """The one that has an identifier, or one with this beginning."""
    between = bounds(beginning, what)
    if between is None:
        return None
    found = find(least=between[0], greatest=between[1], limit=2)
    if len(found) > 1:
        raise UsageError(f"More than one {what} starts with '{beginning}'.", remedy="Give more of the identifier.")
    return _first(found)


def _unknown(what: str, identifier: str) -> UsageError:
    return UsageError(f"There is no {what} {identifier}.", remedy=f"Give the identifier of a {what} that was listed.")
