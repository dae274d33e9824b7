"""What a storage of the catalog promises. One conformance suite holds every implementation to it.

`CatalogReader` answers questions about current state and history; `CatalogWriter` adds the one write operation.
Values go in and out as the plain records of `headwater.catalog.records`.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from headwater.catalog.events import AssetDefinition, Event
from headwater.catalog.keys import AssetKey
from headwater.catalog.records import (
    Cell,
    DefinitionChange,
    Failure,
    Fingerprint,
    Input,
    LoggedEvent,
    Materialization,
    PlannedCell,
    Run,
    RunStatus,
    Step,
)


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


class CatalogReader(Protocol):
    """Reads. Every call sees one consistent state."""

    def cells(self, assets: Collection[AssetKey] | None = None) -> dict[Cell, CellState]:
        """The current version of each cell, of all assets or of some."""
        ...

    def failures(self) -> dict[Cell, Failure]:
        """The last failure of each cell that was to be built and was not, since its current version was made."""
        ...

    def current(self, asset: AssetKey, partition: str | None = None) -> Materialization | None:
        """The current version of one cell, in full."""
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
        limit: int = 100,
        before: str | None = None,
    ) -> list[Run]:
        """Runs, newest first; those that planned to build `asset`, if given; older than run `before`, if given."""
        ...

    def run(self, run_id: str) -> Run | None:
        """One run, by its identifier or an unambiguous beginning of it (at least 4 characters)."""
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
        run_id: str | None = None,
        step_key: str | None = None,
        kinds: Collection[str] | None = None,
        after: int = 0,
        limit: int | None = 1000,
    ) -> list[LoggedEvent]:
        """The event log in order, from the event after number `after`.

        With `asset`: events of that asset, and of the steps that built it.
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

    def append(self, events: Sequence[Event]) -> int:
        """Append events and bring current state up to date, all in one durable transaction.

        Returns the number of the last event. When it returns, the events survive `kill -9` and power loss;
        when it raises, none of them is there. Raises `ReadOnlyCatalogError`, `DiskFullError`, `CatalogError`.
        A `StepEnded` or `RunEnded` for a step or run that already has a final status changes nothing but the log:
        terminal states are final.
        """
        ...

    def close(self) -> None:
        """Let go of the catalog. Idempotent."""
        ...
