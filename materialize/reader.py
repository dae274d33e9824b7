"""What there is to see: definitions and catalog put together, as plain values. Front ends read through this."""

import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from headwater.catalog.definitions.selection import coerce_selection
from headwater.catalog.errors import UsageError
from headwater.catalog.instance import Instance
from headwater.catalog.keys import AssetKey
from headwater.catalog.lineage.asset_graph import AssetGraph
from headwater.catalog.lineage.node import changed_parts, node_to_json
from headwater.catalog.processes import is_running, this_host
from headwater.catalog.records import Cell, Failure, Materialization, Run, RunStatus, Step, StepStatus
from headwater.catalog.storage.base import CatalogReader, CellState
from headwater.materialize.causes import Cause, CauseKind, CellStatus, Status
from headwater.materialize.edges import Edges
from headwater.materialize.partition_choice import PartitionChoice, choose, refuse_without
from headwater.materialize.planner import Plan, build_plan
from headwater.materialize.staleness import Staleness, evaluate

if TYPE_CHECKING:
    from headwater.catalog.partitions.space import Partitions
    from headwater.catalog.partitions.subset import PartitionSubset
    from headwater.materialize.cell_table import CellTable
    from headwater.materialize.partition_staleness import PartitionsStatus

#: Upstream partitions that an explanation follows, of each cause.
MAX_LED_TO = 3

#: What a step that has no end is once its run is over: broken off, or never begun.
UNFINISHED: Mapping[StepStatus, StepStatus] = {
    StepStatus.STARTED: StepStatus.INTERRUPTED,
    StepStatus.PENDING: StepStatus.CANCELED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Why one cell has its status, or a partitioned asset as a whole, and which ones are to be explained next."""

    #: Without a partition, a partitioned asset as a whole.
    cell: Cell
    status: Status
    causes: tuple[Cause, ...]
    #: The upstream cells that transitive causes lead to.
    because: tuple[Cell, ...] = ()
    #: How many more they lead to.
    more: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CellCounts:
    """How many cells of an asset have each status. A failed one is missing or stale as well."""

    fresh: int
    stale: int
    missing: int
    failed: int
    total: int


class Reader:
    """A graph and a catalog, read together. What it has read once it keeps: make a new one to see what is new."""

    def __init__(
        self, graph: AssetGraph, catalog: CatalogReader, moment: datetime, scope: Collection[AssetKey] | None = None
    ) -> None:
        self.graph = graph
        self.catalog = catalog
        #: When it is: time windows that have ended by then are partitions.
        self.moment = moment
        #: The only assets that it is asked about; None for all.
        self.scope = scope

    def within(self, keys: Collection[AssetKey]) -> "Reader":
        """A reader that knows just these assets and what their status takes; itself, if it has read more already."""
        if self.scope is not None or "staleness" in self.__dict__:
            return self
        scope = self.graph.self_contained(keys)
        return self if len(scope) == len(self.graph) else Reader(self.graph, self.catalog, self.moment, scope)

    @cached_property
    def cells(self) -> Mapping[Cell, CellState]:
        """The current state of every recorded cell of unpartitioned assets."""
        return self.catalog.cells(self.scope)

    @cached_property
    def table(self) -> "CellTable | None":
        """What is recorded of every cell, as arrays; None where no asset is partitioned."""
        if all(node.partitions is None for node in self.graph):
            return None
        from headwater.catalog.partitions.definition import PartitionsContext
        from headwater.materialize.cell_table import CellTable

        context = PartitionsContext(self.moment, self.catalog.dynamic_keys)
        return CellTable(self.graph, self.cells, self.catalog, context, self.scope)

    @cached_property
    def edges(self) -> Edges:
        """Which cells read which."""
        return Edges(self.graph, self.table)

    @cached_property
    def staleness(self) -> Staleness:
        """The status of every cell."""
        return evaluate(self.graph, self.cells, self.table, self.scope)

    @cached_property
    def failures(self) -> Mapping[Cell, Failure]:
        """The cells that are not fresh and whose last attempt failed."""
        found = self.catalog.failures()
        behind = self._behind(found)
        return {cell: failure for cell, failure in found.items() if cell in behind}

    def _behind(self, cells: Iterable[Cell]) -> set[Cell]:
        """Those of some cells that the definitions have, and that are not fresh."""
        found: set[Cell] = set()
        partitions: dict[AssetKey, list[str]] = {}
        for cell in cells:
            if cell.asset not in self.staleness.partitioned:
                status = self.staleness.cells.get(cell)
                if status is not None and status.status is not Status.FRESH:
                    found.add(cell)
            elif cell.partition is not None:
                partitions.setdefault(cell.asset, []).append(cell.partition)
        for key, names in partitions.items():
            many = self.staleness.partitioned[key]
            behind, ordinals = many.behind, many.partitions.ordinals(names).tolist()
            found.update(Cell(key, name) for name, at in zip(names, ordinals, strict=True) if at >= 0 and behind[at])
        return found

    def partitions(self, key: AssetKey) -> "Partitions":
        """The partitions of an asset. Raises `UsageError` for an unpartitioned one."""
        if self.table is None or self.graph[key].partitions is None:
            raise UsageError(f"`{key}` is not partitioned.", remedy="Give the asset without a partition.")
        return self.table.partitions(key)

    def partition_status(self, key: AssetKey) -> "PartitionsStatus":
        """The status of every partition of an asset. Raises `UsageError` for an unpartitioned or external one."""
        self.partitions(key)
        if self.graph[key].external:
            raise UsageError(
                f"`{key}` is computed by something else.", remedy="Only what is computed here can be stale or missing."
            )
        return self.staleness.partitioned[key]

    def failed_partitions(self, key: AssetKey) -> "PartitionSubset":
        """The partitions of an asset whose last attempt failed. Raises `UsageError` for an unpartitioned one."""
        names = [name for name in self._failed_partitions.get(key, ()) if name is not None]
        return self.partitions(key).subset(names)

    def counts(self, key: AssetKey, within: "PartitionSubset | None" = None) -> CellCounts:
        """How many cells of an asset have each status, of all or of those `within` a set."""
        many = self.staleness.partitioned.get(key)
        if many is None:
            counts = {self.staleness.of(key).status: 1}
            failed, total = len(self._failed_partitions.get(key, ())), 1
        elif within is None:
            counts, failed, total = many.counts(), len(self.failed_partitions(key)), many.partitions.count
        else:
            counts = {status: len(many.with_status(status) & within) for status in Status}
            failed, total = len(self.failed_partitions(key) & within), len(within)
        return CellCounts(
            fresh=counts.get(Status.FRESH, 0),
            stale=counts.get(Status.STALE, 0),
            missing=counts.get(Status.MISSING, 0),
            failed=failed,
            total=total,
        )

    def last_failure(self, key: AssetKey) -> Failure | None:
        """The last failure of an asset's cells that are not fresh."""
        found = (self.failures[Cell(key, name)] for name in self._failed_partitions.get(key, ()))
        return max(found, key=lambda failure: failure.time, default=None)

    @cached_property
    def _failed_partitions(self) -> Mapping[AssetKey, Collection[str | None]]:
        found: dict[AssetKey, list[str | None]] = {}
        for cell in self.failures:
            found.setdefault(cell.asset, []).append(cell.partition)
        return found

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

    def status(self, key: AssetKey, partition: str | None = None) -> CellStatus:
        """The status of an unpartitioned asset, a partition, or a partitioned asset as a whole.

        Causes name the columns that changed where they can be known; those of a whole asset how many partitions have
        them. Raises `UnknownPartitionError`, and `UsageError` for a partition of an unpartitioned asset.
        """
        if partition is not None:
            many, at = self.partition_status(key), self.partitions(key).ordinal(partition)
            status = many.of(at)
            return replace(status, causes=tuple(self._with_partitions(key, at, cause) for cause in status.causes))
        many = self.staleness.partitioned.get(key)
        if many is None:
            status = self.staleness.of(key)
            return replace(status, causes=tuple(self._with_columns(cause) for cause in status.causes))
        total = many.partitions.count
        causes = tuple(
            replace(cause, detail=f"{count:,} of {total:,} partitions")
            for cause, count in many.cause_counts(many.behind)
        )
        return CellStatus(status=many.whole, causes=causes)

    def explain(self, key: AssetKey, partition: str | None = None) -> dict[Cell, Reason]:
        """Why a cell has its status: the cell, and every one further up that it leads to, each once.

        Without a partition, a partitioned asset as a whole. Follow `Reason.because` to the causes that started it.
        """
        found: dict[Cell, Reason] = {}
        pending = [Cell(key, partition)]
        while pending:
            cell = pending.pop()
            if cell in found:
                continue
            status = self.status(cell.asset, cell.partition)
            led_to = [self._leads_to(cell, cause) for cause in status.causes if cause.transitive]
            because = tuple(dict.fromkeys(up for cells, _ in led_to for up in cells))
            more = sum(count for _, count in led_to)
            found[cell] = Reason(cell=cell, status=status.status, causes=status.causes, because=because, more=more)
            pending.extend(reversed(because))
        return found

    def _leads_to(self, cell: Cell, cause: Cause) -> tuple[list[Cell], int]:
        """The first upstream cells that a transitive cause of a cell is about, and how many more there are."""
        upstream = cause.upstream
        assert upstream is not None  # transitive causes name one
        many = self.staleness.partitioned.get(upstream)
        node = self.graph[cell.asset]
        if many is None or self.table is None or (cell.partition is None and node.partitions is not None):
            return [Cell(upstream)], 0
        dep = next(dep for dep in node.deps if dep.key == upstream)
        at = 0 if cell.partition is None else self.table.partitions(cell.asset).ordinal(cell.partition)
        read = self.table.links(node, dep).read_by(at)
        mask = many.missing if cause.kind is CauseKind.UPSTREAM_MISSING else many.stale
        chosen = read[mask[read]]
        names = many.partitions.keys_at(chosen[:MAX_LED_TO])
        return [Cell(upstream, name) for name in names], len(chosen) - len(names)

    def plan(
        self,
        selection: Any = None,
        *,
        partitions: PartitionChoice | None = None,
        force: bool | Collection[AssetKey] = False,
        upstream: bool = True,
        only_missing: bool = False,
    ) -> Plan:
        """What materializing a selection would do.

        Raises `UsageError` where partitioned assets are selected and no `partitions`, and for partitions that are
        named and need what does not exist; `UnknownPartitionError`.
        """
        keys = self.select(selection)
        choice = partitions or PartitionChoice()
        if not choice:
            refuse_without(self.graph, self.edges, keys, selection)
        scoped = self.within(keys)
        return build_plan(
            scoped.edges,
            scoped.staleness,
            scoped.targets(keys, choice),
            force=force,
            upstream=upstream,
            only_missing=only_missing,
            strict=bool(choice.keys or choice.ranges),
        )

    def targets(self, keys: Sequence[AssetKey], choice: PartitionChoice) -> dict[AssetKey, Any]:
        """The cells of assets that a choice of partitions means."""
        failed: Mapping[AssetKey, Collection[str | None]] = {}
        if "failed" in choice.only:
            failed = self._failed_partitions
        return choose(self.edges, self.staleness, keys, choice, failed)

    def _with_partitions(self, key: AssetKey, ordinal: int, cause: Cause) -> Cause:
        """Which upstream partitions a partition read another version of."""
        if cause.kind is not CauseKind.UPSTREAM_DATA_CHANGED or self.table is None or cause.upstream is None:
            return cause
        node = self.graph[key]
        dep = next(dep for dep in node.deps if dep.key == cause.upstream)
        state = self.table.states(
            key, self.table.partitions(key).ordinals([self.table.partitions(key).key(ordinal)])
        ).get(ordinal)
        if state is None or self.graph[dep.key].partitions is None:
            return cause
        read = self.table.links(node, dep).read_by(ordinal)
        before = {
            item.partition: item.data_version for item in state.inputs if item.asset == dep.key and item.version_id
        }
        keys = self.table.partitions(dep.key).keys_at(read)
        now = {
            name: one.data_version
            for at, one in self.table.states(dep.key, read).items()
            for name in (self.table.partitions(dep.key).key(at),)
        }
        changed = [
            name
            for name in dict.fromkeys((*keys, *(one for one in before if one is not None)))
            if before.get(name) != now.get(name)
        ]
        more = f" and {len(changed) - 2:,} more" if len(changed) > 2 else ""
        return replace(cause, detail=", ".join(changed[:2]) + more) if changed else cause

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


def maybe_run(catalog: CatalogReader, text: str) -> Run | None:
    """The run whose identifier starts with `text`, where `text` looks like the start of one."""
    bare = text.replace("-", "")
    if len(bare) < 4 or any(char not in "0123456789abcdef" for char in bare.lower()):
        return None
    return catalog.run(text.lower())


def find_run(catalog: CatalogReader, run_id: str) -> Run:
    """The run whose identifier starts with `run_id`. Raises `UsageError` where there is none, or several."""
    found = maybe_run(catalog, run_id)
    if found is None:
        raise UsageError(f"There is no run '{run_id}'.", remedy="`headwater runs` lists them; 4 characters are enough.")
    return found


def is_interrupted(run: Run) -> bool:
    """Whether a run is not finished and has lost its process; that of another host is known by its signs of life.

    One in the queue may be anybody's to carry out.
    """
    if run.status.is_over or (run.status is RunStatus.QUEUED and not run.pid):
        return False
    if run.host != this_host():
        return run.lapsed
    if run.pid == os.getpid():
        return run.run_id not in Instance.running
    return not is_running(run.host, run.pid, run.start_ticks)


def settled(run: Run) -> Run:
    """A run as the next one who writes is going to settle it.

    One that has lost its process is interrupted, or canceled where that was asked for.
    """
    if not is_interrupted(run):
        return run
    counts = Counter[StepStatus]()
    for one, count in run.step_counts.items():
        counts[UNFINISHED.get(one, one)] += count
    ended = RunStatus.CANCELED if run.status is RunStatus.CANCELING else RunStatus.INTERRUPTED
    return replace(run, status=ended, step_counts={one: counts[one] for one in StepStatus if counts[one]})


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
