"""What a storage of the catalog promises. One conformance suite holds every implementation to it.

`CatalogReader` answers questions about current state and history; `CatalogWriter` adds the one write operation.
Values go in and out as the plain records of `headwater.catalog.records`.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

from headwater.catalog.events import AssetDefinition, Event
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
    Tick,
    TickStatus,
)

if TYPE_CHECKING:
    from numpy import int32, int64, object_, uint64
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRelation:
    """A relation made of files, for one query: a SELECT that may read `paths` and nothing else.

    A path that ends in a slash stands for everything below it.
    """

    sql: str
    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CellState:
    """What staleness needs to know of the current version of one cell, and no more."""

    version_id: str
    fingerprint: Fingerprint
    data_version: str
    inputs: tuple[Input, ...]
    #: Column name → column version; empty where the version has none.
    columns: Mapping[str, str]
    stored: bool


@dataclass(frozen=True, slots=True, eq=False)
class AssetCells:
    """The current versions of one asset's partitions: arrays with one entry each, in no order."""

    #: Of the partitions' keys: numbers into `PartitionCells.keys`.
    keys: "NDArray[int32]"
    #: Of the versions' events.
    seqs: "NDArray[int64]"
    #: Numbers into `PartitionCells.fingerprints`.
    fingerprints: "NDArray[int32]"
    #: What `cell_hash.version_hash` makes of the versions.
    version_hashes: "NDArray[uint64]"
    #: What `cell_hash.inputs_hash` makes of what they were made from.
    inputs_hashes: "NDArray[uint64]"


@dataclass(frozen=True, slots=True, eq=False)
class PartitionCells:
    """What staleness needs to know of the current versions of millions of partitions."""

    #: The assets that have any.
    by_asset: Mapping[AssetKey, AssetCells]
    #: Partition keys by number; None for numbers that do not occur.
    keys: "NDArray[object_]"
    fingerprints: Sequence[Fingerprint]


def cell_state(made: Materialization) -> CellState:
    """The state of the cell that `made` is the current version of."""
    columns = made.pointer.columns if made.pointer else ()
    return CellState(
        version_id=made.version_id,
        fingerprint=made.fingerprint,
        data_version=made.data_version,
        inputs=made.inputs,
        columns={column.name: column.version for column in columns if column.version is not None},
        stored=made.pointer is not None,
    )


class CatalogReader(Protocol):
    """Reads. Every call sees one consistent state."""

    def cells(self, assets: Collection[AssetKey] | None = None) -> dict[Cell, CellState]:
        """The current version of each cell without a partition, of all assets or of some."""
        ...

    def partition_cells(self, assets: Collection[AssetKey] | None = None) -> PartitionCells:
        """The current version of each cell with a partition, of all assets or of some: made for millions of them."""
        ...

    def cell_states(self, asset: AssetKey, partitions: Sequence[str]) -> dict[str, CellState]:
        """The current versions of some partitions of an asset, those that have one."""
        ...

    def input_hashes(
        self, asset: AssetKey, seqs: "NDArray[int64]"
    ) -> "Mapping[AssetKey, tuple[NDArray[int64], NDArray[uint64]]]":
        """What versions of an asset, by the numbers of their events, were made from, by the asset that was read.

        The positions in `seqs` of the versions that depended on it, and for each the sum (modulo 2^64) of the hashes
        of its versions that were read: 0 where there was none.
        """
        ...

    def failures(self) -> dict[Cell, Failure]:
        """The last failure of each cell that a step says failed, since its current version was made."""
        ...

    def current(self, asset: AssetKey, partition: str | None = None) -> Materialization | None:
        """The current version of one cell, in full."""
        ...

    def currents(self, asset: AssetKey, partitions: Sequence[str] | None = None) -> dict[str | None, Materialization]:
        """The current versions of some partitions of an asset, or of all its cells, in full."""
        ...

    @property
    def dynamic_keys(self) -> DynamicKeys:
        """The keys of dynamic partitions, as they are whenever it is asked."""
        ...

    def dynamic_partition_names(self) -> list[str]:
        """The names of dynamic partitions that have keys, sorted."""
        ...

    def latest(self, assets: Collection[AssetKey] | None = None) -> dict[AssetKey, Materialization]:
        """Each asset's newest materialization of any partition."""
        ...

    def materialization(self, version_id: str) -> Materialization | None:
        """One version."""
        ...

    def materializations(
        self, asset: AssetKey, partition: str | None = None, *, limit: int = 100, before: str | None = None
    ) -> list[Materialization]:
        """Versions of an asset, newest first; of one partition, if given; older than version `before`, if given."""
        ...

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
        """Runs, newest first; those that planned to build `asset`, if given; older than run `before`, if given.

        `job` and `backfill` are the name and the identifier of what they are to be a part of; with `root`, that run
        and all other tries at it.
        """
        ...

    def last_event(self) -> int:
        """The number of the last event; 0 where there is none."""
        ...

    def claims(self) -> int:
        """How often anything was claimed: what `RunStarted.claims_before` is compared with."""
        ...

    def slots(self) -> list[Slot]:
        """The places in pools that are held, oldest first: also by runs whose process died, until they are settled."""
        ...

    def backfills(
        self,
        *,
        statuses: Collection[BackfillStatus] | None = None,
        limit: int = 100,
        before: str | None = None,
    ) -> list[Backfill]:
        """Backfills, newest first; older than backfill `before`, if given."""
        ...

    def backfill(self, backfill_id: str) -> Backfill | None:
        """One backfill, by its identifier or an unambiguous beginning of it (at least 4 characters)."""
        ...

    def backfill_cells(self, backfill_id: str) -> Mapping[AssetKey, BackfillCells]:
        """How far a backfill got, by the assets of which its runs did or failed anything."""
        ...

    def run(self, run_id: str) -> Run | None:
        """One run, by its identifier or an unambiguous beginning of it (at least 4 characters)."""
        ...

    def automations(self) -> dict[str, Automation]:
        """The schedules and sensors that were started, stopped or seen, by name."""
        ...

    def facts(
        self, topic: FactTopic, names: Collection[str] | None = None, *, limit: int | None = None
    ) -> dict[str, Fact]:
        """What is known of a topic, by name, those that changed last first; of some names, or of all."""
        ...

    def ticks(
        self,
        names: Collection[str] | None = None,
        *,
        statuses: Collection[TickStatus] | None = None,
        before: datetime | None = None,
        limit: int = 100,
    ) -> list[Tick]:
        """Ticks, of some schedules and sensors or of all, the last recorded ones first.

        Those evaluated `before` a time, if given.
        """
        ...

    def requested(self, name: str, keys: Collection[str]) -> dict[str, str]:
        """Which of these run keys were requested by ticks of `name`, with the identifiers of their runs."""
        ...

    def daemon(self) -> Daemon | None:
        """The last process that was the daemon, be it still; None where there never was one."""

    def condition_states(self, *, common: bool = False) -> list[ConditionState]:
        """What the last evaluation of conditions left for the next one; with `common`, only what is about all."""
        ...

        ...

    def steps(self, run_id: str) -> list[Step]:
        """A run's steps in the order of its plan."""
        ...

    def planned(self, run_id: str) -> list[PlannedCell]:
        """The cells that a run planned to build and whose version was never committed."""
        ...

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
        """The event log in order, from the event after number `after`.

        With `asset`: events of that asset, and of the steps that built it; with its `partition`, of that alone.
        """
        ...

    def definitions(self) -> dict[AssetKey, AssetDefinition]:
        """The definitions as they were last recorded."""
        ...

    def definition_history(self, asset: AssetKey | None = None, *, limit: int = 100) -> list[DefinitionChange]:
        """How definitions changed, newest first."""
        ...

    def query(
        self, sql: str, parameters: Sequence[Any] = (), *, relations: Mapping[str, Any] | None = None
    ) -> "QueryResult":
        """Read-only SQL over the documented views, and over `relations` for this one query.

        A relation is a `FileRelation` or anything with Arrow's stream protocol. Raises `UsageError` for a statement
        that does more than read, for one that fails, and where the storage has no SQL.
        """
        ...


@dataclass(frozen=True, slots=True)
class QueryResult:
    """The answer of a query: column names, their types as text, and the rows."""

    columns: tuple[str, ...]
    types: tuple[str, ...]
    rows: list[tuple[Any, ...]]


class CatalogWriter(CatalogReader, Protocol):
    """Reads and writes."""

    def append(
        self,
        events: Sequence[Event],
        *,
        request: str | None = None,
        by: str | None = None,
        lapsed: Collection[str] = (),
    ) -> int:
        """Append events and bring current state up to date, all in one durable transaction.

        `request` is kept with them, so that `applied` can tell whether it was done to whoever did not hear. Returns the
        number of the last event. When it returns, the events survive `kill -9` and power loss; when it raises, none of
        them is there. Raises `ReadOnlyCatalogError`, `DiskFullError`, `CatalogError`.
        A `StepEnded`, `RunEnded` or `BackfillEnded` for what already has a final status changes nothing but the log,
        and so does resuming such a backfill: terminal states are final. Raises `ConflictError` for an event whose
        `claims_before` is not the number of claims: of several that looked at the same time, one gets what it wants;
        and for a run that starts, or moves, and is not in the queue any more; and for a tick, or a schedule or sensor
        that moves, where somebody else decided something about that one since `after` was read; for a daemon that
        starts and whose epoch is not the next one; and for a fact that is not what it was `before`.

        `by` is the run, backfill or daemon that appends, be it nothing: its sign of life. Raises `RunOverError` where
        that is over, so that who was taken for gone and was not cannot go on. `lapsed` are those that somebody takes
        for gone: raises `ConflictError` where one of them gave a sign of life since.
        """
        ...

    def applied(self, request: str) -> int | None:
        """The number of the last event of the append that `request` was given with; None where that was not done.

        Requests are remembered for the last hundred thousand events at least.
        """
        ...

    def close(self) -> None:
        """Let go of the catalog. Idempotent."""
        ...
