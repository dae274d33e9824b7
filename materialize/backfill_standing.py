"""How a backfill stands: which of its cells are done, lost, and still to be built. Pure."""

import contextlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from headwater.catalog.errors import UsageError
from headwater.catalog.keys import AssetKey
from headwater.catalog.lineage.asset_graph import AssetGraph
from headwater.catalog.records import Backfill, BackfillCells, BackfillStatus, BackfillTarget
from headwater.materialize.edges import Edges, holds_any, without
from headwater.materialize.planner import Plan
from headwater.materialize.staleness import Cells


@dataclass(frozen=True, slots=True, kw_only=True)
class AssetProgress:
    """How far a backfill has come with one asset."""

    key: AssetKey
    total: int
    done: int
    failed: int

    @property
    def remaining(self) -> int:
        """How many cells are neither done nor failed."""
        return self.total - self.done - self.failed


@dataclass(frozen=True, slots=True, kw_only=True)
class BackfillProgress:
    """How far a backfill has come."""

    total: int
    done: int = 0
    failed: int = 0
    #: Cells that are not built because something that they read failed or cannot be built.
    blocked: int = 0
    #: Optional outputs that their step did not make, and what reads those.
    absent: int = 0
    #: Cells that the definitions do not have any more.
    gone: int = 0
    #: What is left at the pace since this process began; None as long as there is none.
    remaining: timedelta | None = None
    assets: tuple[AssetProgress, ...] = ()

    @property
    def open(self) -> int:
        """How many cells are still to be built."""
        return self.total - self.done - self.failed - self.blocked - self.absent - self.gone


@dataclass(slots=True)
class Attempted:
    """The cells that one process tried to build and did not, by their keys; the next one tries them again.

    By keys, as the numbers of cells change when windows end and dynamic keys come and go.
    """

    failed: dict[AssetKey, set[str | None]] = field(default_factory=dict[AssetKey, set[str | None]])
    #: Because something above failed, or because the step chose to make nothing.
    skipped: dict[AssetKey, set[str | None]] = field(default_factory=dict[AssetKey, set[str | None]])


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What is to be built yet, and how far the rest has come."""

    open: Mapping[AssetKey, Cells]
    progress: BackfillProgress


def stand(
    edges: Edges, record: Backfill, made: Mapping[AssetKey, BackfillCells], attempted: Attempted | None = None
) -> Standing:
    """How a backfill stands after what its runs `made`, in a process that `attempted` some cells in vain."""
    graph, attempted = edges.graph, attempted or Attempted()
    wanted = {
        target.asset: read_target(edges, target)
        for target in record.targets
        if target.asset in graph and not graph[target.asset].external
    }
    done = {key: cells & cells_of(edges, key, _done(made, key)) for key, cells in wanted.items()}
    left = {key: without(cells, done[key]) for key, cells in wanted.items()}
    failed = {key: cells & cells_of(edges, key, attempted.failed.get(key, ())) for key, cells in left.items()}
    left = {key: without(cells, failed[key]) for key, cells in left.items()}
    blocked = _reached(edges, left, failed)
    left = {key: without(cells, blocked[key]) for key, cells in left.items()}
    absent = {
        key: cells & (cells_of(edges, key, attempted.skipped.get(key, ())) | _left_out(edges, key, done))
        for key, cells in left.items()
    }
    left = {key: without(cells, absent[key]) for key, cells in left.items()}
    also = _reached(edges, left, absent)
    counts = {key: count(cells) for key, cells in done.items()}
    lost = {key: count(cells) for key, cells in failed.items()}
    return Standing(
        open={key: cells for key, all_left in left.items() if holds_any(cells := without(all_left, also[key]))},
        progress=BackfillProgress(
            total=sum(target.cells for target in record.targets),
            done=sum(counts.values()),
            failed=sum(lost.values()),
            blocked=sum(map(count, blocked.values())),
            absent=sum(map(count, absent.values())) + sum(map(count, also.values())),
            gone=sum(target.cells - count(wanted.get(target.asset, False)) for target in record.targets),
            assets=tuple(
                AssetProgress(
                    key=target.asset,
                    total=target.cells,
                    done=counts.get(target.asset, 0),
                    failed=lost.get(target.asset, 0),
                )
                for target in record.targets
            ),
        ),
    )


def recorded_progress(record: Backfill, made: Mapping[AssetKey, BackfillCells]) -> BackfillProgress:
    """How far a backfill has come as the catalog alone tells it, without definitions."""
    assets = [
        AssetProgress(
            key=target.asset,
            total=target.cells,
            # A step that cannot leave any of its assets out may make more than was asked for.
            done=min(target.cells, len(_done(made, target.asset))),
            failed=len(made[target.asset].failed) if target.asset in made else 0,
        )
        for target in record.targets
    ]
    # What neither is when all that could be tried was.
    blocked = sum(one.remaining for one in assets) if record.status is BackfillStatus.FAILURE else 0
    return BackfillProgress(
        total=record.total,
        done=sum(one.done for one in assets),
        failed=sum(one.failed for one in assets),
        blocked=blocked,
        assets=tuple(assets),
    )


def left_out(edges: Edges, standing: Standing, plan: Plan) -> tuple[int, int]:
    """How many open cells a plan does not build: those that it cannot, and those that nobody makes."""
    lost: dict[AssetKey, Cells] = {}
    for one in plan.impossible:  # a cell may be so for several reasons
        cells = True if one.partitions is None else one.partitions.mask()
        lost[one.asset] = lost[one.asset] | cells if one.asset in lost else cells
    impossible = sum(map(count, lost.values()))
    planned = {key: subset for group in plan.groups for key, subset in zip(group.assets, group.subsets, strict=True)}
    left = 0
    for key, cells in standing.open.items():
        if key in planned:
            subset = planned[key]
            cells = without(cells, True if subset is None else subset.mask())
        left += count(cells)
    return impossible, left - impossible


def read_target(edges: Edges, target: BackfillTarget) -> Cells:
    """The cells of a target that exist; none where the asset is partitioned in another way now."""
    none = edges.none(target.asset)
    if (edges.graph[target.asset].partitions is None) != (target.partitions is None):
        return none
    if target.partitions is None:
        return True
    assert edges.table is not None  # there is one where something is partitioned
    with contextlib.suppress(UsageError):
        return edges.table.partitions(target.asset).read_subset(target.partitions)[0].mask()
    return none


def cells_of(edges: Edges, key: AssetKey, partitions: Collection[str | None]) -> Cells:
    """The cells of an asset that have these keys, of those that exist."""
    if edges.graph[key].partitions is None:
        return None in partitions
    names = [one for one in partitions if one is not None]
    if not names:
        return edges.none(key)
    assert edges.table is not None  # there is one where something is partitioned
    space = edges.table.partitions(key)
    ordinals = space.ordinals(names)
    return space.subset_of_ordinals(ordinals[ordinals >= 0]).mask()


def count(cells: Cells) -> int:
    """How many cells a set holds."""
    return int(cells) if isinstance(cells, bool) else int(cells.sum())


def _done(made: Mapping[AssetKey, BackfillCells], key: AssetKey) -> Collection[str | None]:
    found = made.get(key)
    return () if found is None else found.done


def _left_out(edges: Edges, key: AssetKey, done: Mapping[AssetKey, Cells]) -> Cells:
    """The cells of an optional output whose step ran in this backfill: it made the others."""
    found = edges.none(key)
    if edges.graph[key].optional:
        for other in _made_together(edges.graph, key):
            found = found | done.get(other, found)
    return found


def _reached(edges: Edges, cells: Mapping[AssetKey, Cells], lost: Mapping[AssetKey, Cells]) -> dict[AssetKey, Cells]:
    """Those of `cells` that read what is lost, directly or through each other, or are made together with such."""
    graph: AssetGraph = edges.graph
    reached = {key: edges.none(key) for key in cells}
    order = graph.sorted(cells)
    again = True
    while again:
        again = False
        for key in order:
            _reach(edges, key, cells, lost, reached)
            for other in _made_together(graph, key):
                new = without(cells[other] & reached[key], reached[other]) if other in cells else edges.none(key)
                if holds_any(new):
                    reached[other] = reached[other] | new
                    again = True
    return reached


def _reach(
    edges: Edges,
    key: AssetKey,
    cells: Mapping[AssetKey, Cells],
    lost: Mapping[AssetKey, Cells],
    reached: dict[AssetKey, Cells],
) -> None:
    """Add the cells of one asset that read what is lost or reached."""
    node = edges.graph[key]
    itself = None
    for dep in node.deps:
        if dep.key == key:
            itself = dep
        elif dep.key in cells:
            above = lost[dep.key] | reached[dep.key]
            reached[key] = reached[key] | (cells[key] & edges.readers(node, dep, above))
    # Last, as it carries on what the others began.
    new = lost[key] | reached[key]
    while itself is not None and holds_any(new):
        new = without(cells[key] & edges.readers(node, itself, new), reached[key])
        reached[key] = reached[key] | new


def _made_together(graph: AssetGraph, key: AssetKey) -> Collection[AssetKey]:
    """The other assets of a step that cannot make one without the others."""
    node = graph[key]
    if node.can_subset or node.step is None:
        return ()
    return [other for other in graph.steps[node.step] if other != key]
