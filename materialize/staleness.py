"""What is stale, and why.

Pure: takes a graph and the recorded state of cells, returns values, touches nothing. One pass over the graph in
topological order decides every cell: unpartitioned assets one by one, partitioned ones and those that read them a
whole asset at a time. The work is proportional to cells and edges.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from headwater.catalog.errors import UsageError
from headwater.catalog.keys import AssetKey
from headwater.catalog.lineage.asset_graph import AssetGraph
from headwater.catalog.lineage.node import AssetNode
from headwater.catalog.records import Cell
from headwater.catalog.storage.base import CellState
from headwater.materialize.causes import (
    FRESH,
    MISSING,
    NOT_MADE,
    Cause,
    CauseKind,
    CellStatus,
    Status,
    direct_causes,
)

if TYPE_CHECKING:
    from headwater.materialize.cell_table import CellTable
    from headwater.materialize.partition_staleness import PartitionsStatus

#: Some cells of an asset: True or False for that of an unpartitioned asset, else a mask over ordinals.
Cells = Any


@dataclass(frozen=True, slots=True)
class Staleness:
    """The status of every cell of every asset that is computed here."""

    #: Of unpartitioned assets.
    cells: Mapping[Cell, CellStatus]
    #: Of partitioned assets.
    partitioned: "Mapping[AssetKey, PartitionsStatus]" = field(default_factory=dict[AssetKey, Any])

    def of(self, asset: AssetKey) -> CellStatus:
        """The status of an unpartitioned asset. Raises `UsageError` for a partitioned one."""
        if asset in self.partitioned:
            raise UsageError(f"`{asset}` is partitioned.", remedy="Ask for one of its partitions.")
        return self.cells[Cell(asset)]

    def missing(self, asset: AssetKey) -> Cells:
        """The cells that were never built."""
        many = self.partitioned.get(asset)
        return self.cells[Cell(asset)].status is Status.MISSING if many is None else many.missing

    def stale(self, asset: AssetKey) -> Cells:
        """The cells that are stale."""
        many = self.partitioned.get(asset)
        return self.cells[Cell(asset)].status is Status.STALE if many is None else many.stale

    def direct(self, asset: AssetKey) -> Cells:
        """The stale cells that have a cause of their own."""
        many = self.partitioned.get(asset)
        if many is not None:
            return many.direct
        status = self.cells[Cell(asset)]
        return status.status is Status.STALE and any(not cause.transitive for cause in status.causes)

    def not_made(self, asset: AssetKey) -> Cells:
        """The cells of an optional output that its step left out, and would again."""
        many = self.partitioned.get(asset)
        if many is not None:
            return many.not_made
        status = self.cells.get(Cell(asset))
        return status is not None and status.status is Status.MISSING and status.settled

    def statuses(self) -> Mapping[AssetKey, Status]:
        """Each asset's status: missing when all of its cells are, fresh when all of them are, otherwise stale."""
        found = {cell.asset: status.status for cell, status in self.cells.items()}
        return found | {key: status.whole for key, status in self.partitioned.items()}


def evaluate(
    graph: AssetGraph,
    states: Mapping[Cell, CellState],
    table: "CellTable | None" = None,
    scope: Collection[AssetKey] | None = None,
) -> Staleness:
    """The status of every cell, given the recorded current state of each; a cell that is not recorded is missing.

    `states` are those of unpartitioned assets; `table` is needed where some are partitioned. With `scope`, only these
    assets are decided: everything that they depend on has to be among them (see `AssetGraph.self_contained`).

    A cell is STALE when it has a direct cause, or when something that it depends on is stale or missing (a
    transitive cause). Exact: an edge is never skipped, and an external asset without a recorded version causes nothing.
    An optional output that its step left out is MISSING, but only its step's other outputs are a reason to try again.
    """
    current = {cell.asset: state for cell, state in states.items() if cell.partition is None}
    statuses: dict[Cell, CellStatus] = {}
    many: dict[AssetKey, PartitionsStatus] = {}
    #: What each unpartitioned asset that is not fresh is to those that depend on it.
    behind: dict[AssetKey, Cause] = {}
    for node in graph:
        if node.step is None or (scope is not None and node.key not in scope):
            continue
        key = node.key
        state = current.get(key)
        if table is not None and reads_partitions(graph, node):
            status = _evaluate_partitions(graph, node, table, statuses, many)
            if status is None:
                continue
        elif state is None:
            status = MISSING
        else:
            causes = direct_causes(node, state, current)
            causes += [behind[dep.key] for dep in node.deps if dep.key in behind]
            status = CellStatus(status=Status.STALE, causes=tuple(causes)) if causes else FRESH
        statuses[Cell(key)] = status
        if status.status is not Status.FRESH:
            missing = status.status is Status.MISSING
            kind = CauseKind.UPSTREAM_MISSING if missing else CauseKind.UPSTREAM_STALE
            behind[key] = Cause(kind=kind, upstream=key)
    for members in graph.steps.values():
        # Where all are computed together, one that is fresh proves that the step ran on what there is now.
        if not graph[members[0]].can_subset and any(statuses.get(Cell(key)) is FRESH for key in members):
            left_out = (key for key in members if graph[key].optional and statuses[Cell(key)] is MISSING)
            statuses.update((Cell(key), NOT_MADE) for key in left_out)
    if many:
        from headwater.materialize.partition_staleness import settle_not_made

        settle_not_made(graph, many)
    return Staleness(statuses, many)


def reads_partitions(graph: AssetGraph, node: AssetNode) -> bool:
    """Whether an asset is partitioned or depends on one that is."""
    return node.partitions is not None or any(graph[dep.key].partitions is not None for dep in node.deps)


def _evaluate_partitions(
    graph: AssetGraph,
    node: AssetNode,
    table: "CellTable",
    statuses: Mapping[Cell, CellStatus],
    many: "dict[AssetKey, PartitionsStatus]",
) -> CellStatus | None:
    """Note the status of a partitioned asset; of an unpartitioned one that reads partitions, give it."""
    from headwater.materialize.partition_staleness import evaluate_partitions, of_one

    above: dict[AssetKey, PartitionsStatus] = {}
    for dep in node.deps:
        if dep.key in many:
            above[dep.key] = many[dep.key]
        elif Cell(dep.key) in statuses:
            above[dep.key] = of_one(statuses[Cell(dep.key)], table.partitions(dep.key))
    status = evaluate_partitions(node, table, above)
    if node.partitions is None:
        return status.of(0)
    many[node.key] = status
    return None
