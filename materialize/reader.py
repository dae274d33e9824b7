"""What there is to see: definitions and catalog put together, as plain values. Front ends read through this."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from headwater.catalog.definitions.selection import coerce_selection
from headwater.catalog.keys import AssetKey
from headwater.catalog.lineage.asset_graph import AssetGraph
from headwater.catalog.lineage.node import changed_parts, node_to_json
from headwater.catalog.records import Cell, Failure, Materialization, Run, RunStatus, Step, StepStatus
from headwater.catalog.storage.base import CatalogReader, CellState
from headwater.materialize.planner import Plan, build_plan
from headwater.materialize.staleness import Cause, CauseKind, CellStatus, Staleness, Status, evaluate

#: What a step that has no end is once its run is over: broken off, or never begun.
UNFINISHED: Mapping[StepStatus, StepStatus] = {
    StepStatus.STARTED: StepStatus.INTERRUPTED,
    StepStatus.PENDING: StepStatus.CANCELED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Why one asset has its status, and which upstream assets are to be explained next."""

    asset: AssetKey
    status: Status
    causes: tuple[Cause, ...]
    #: The upstream assets that transitive causes name.
    because: tuple[AssetKey, ...] = ()


class Reader:
    """A graph and a catalog, read together. What it has read once it keeps: make a new one to see what is new."""

    def __init__(self, graph: AssetGraph, catalog: CatalogReader) -> None:
        self.graph = graph
        self.catalog = catalog

    @cached_property
    def cells(self) -> Mapping[Cell, CellState]:
        """The current state of every recorded cell."""
        return self.catalog.cells()

    @cached_property
    def staleness(self) -> Staleness:
        """The status of every cell."""
        return evaluate(self.graph, self.cells)

    @cached_property
    def failures(self) -> Mapping[Cell, Failure]:
        """The cells that are not fresh and whose last attempt failed."""
        statuses = self.staleness.cells
        return {
            cell: failure
            for cell, failure in self.catalog.failures().items()
            if cell in statuses and statuses[cell].status is not Status.FRESH
        }

    def select(self, selection: Any) -> list[AssetKey]:
        """The assets that a selection means, in topological order. Raises `SelectionError`, `UnknownAssetError`."""
        return self.graph.sorted(coerce_selection(selection).resolve(self.graph, self))

    def statuses(self) -> Mapping[AssetKey, str]:
        """Each asset's status."""
        return self.staleness.statuses()

    def failed(self) -> Collection[AssetKey]:
        """The assets of which a cell's last attempt failed."""
        return {cell.asset for cell in self.failures}

    def columns(self) -> Mapping[AssetKey, Collection[str]]:
        """The columns of each asset's newest version."""
        return {
            key: [column.name for column in materialization.pointer.columns]
            for key, materialization in self.catalog.latest().items()
            if materialization.pointer
        }

    def states(self) -> Mapping[AssetKey, str]:
        """`new` or `modified` for each asset whose definition is not the one that was recorded last."""
        recorded = self.catalog.definitions()
        found: dict[AssetKey, str] = {}
        for node in self.graph:
            old = recorded.get(node.key)
            if old is None:
                found[node.key] = "new"
            elif changed_parts(old.data, node_to_json(node)):
                found[node.key] = "modified"
        return found

    def status(self, key: AssetKey) -> CellStatus:
        """An asset's status, with the columns that changed where they can be known."""
        status = self.staleness.of(key)
        return replace(status, causes=tuple(self._with_columns(cause) for cause in status.causes))

    def explain(self, key: AssetKey) -> dict[AssetKey, Reason]:
        """Why an asset has its status: the asset, and every one further up that it leads to, each once.

        Follow `Reason.because` from the asset to the causes that started it.
        """
        found: dict[AssetKey, Reason] = {}
        pending = [key]
        while pending:
            asset = pending.pop()
            if asset in found:
                continue
            status = self.status(asset)
            because = tuple(c.upstream for c in status.causes if c.transitive and c.upstream is not None)
            found[asset] = Reason(asset=asset, status=status.status, causes=status.causes, because=because)
            pending.extend(reversed(because))
        return found

    def plan(
        self, selection: Any = None, *, force: bool = False, upstream: bool = True, only_missing: bool = False
    ) -> Plan:
        """What materializing a selection would do."""
        keys = self.select(selection)
        return build_plan(self.graph, self.staleness, keys, force=force, upstream=upstream, only_missing=only_missing)

    def _with_columns(self, cause: Cause) -> Cause:
        """The columns whose data is not what it was when it was read."""
        if cause.kind is not CauseKind.UPSTREAM_DATA_CHANGED or cause.columns or cause.read_version is None:
            return cause
        old = self.catalog.materialization(cause.read_version)
        new = self.cells.get(Cell(cause.upstream)) if cause.upstream is not None else None
        before = column_versions(old)
        if not before or new is None or not new.columns:
            return cause
        names = dict.fromkeys((*new.columns, *before))
        return replace(cause, columns=tuple(n for n in names if before.get(n) != new.columns.get(n)))


def column_versions(materialization: Materialization | None) -> dict[str, str]:
    """Column name → column version; empty where nothing is known."""
    if materialization is None or materialization.pointer is None:
        return {}
    return {c.name: c.version for c in materialization.pointer.columns if c.version is not None}


def settled(run: Run) -> Run:
    """A run as somebody sees it who holds the catalog: one that is not finished has lost its process."""
    status = RunStatus.INTERRUPTED if run.status is RunStatus.STARTED else run.status
    counts = Counter[StepStatus]()
    for one, count in run.step_counts.items():
        counts[UNFINISHED.get(one, one)] += count
    return replace(run, status=status, step_counts={one: counts[one] for one in StepStatus if counts[one]})


def settled_steps(steps: Iterable[Step]) -> list[Step]:
    """The steps of a run that is over, each with how it ended."""
    return [
        replace(
            step,
            status=UNFINISHED[step.status],
            cells=tuple(replace(cell, status=UNFINISHED[step.status]) for cell in step.cells),
        )
        if step.status in UNFINISHED
        else step
        for step in steps
    ]
