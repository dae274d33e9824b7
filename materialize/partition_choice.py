"""Which partitions a request means: keys, ranges, everything, or those that have a status. Pure."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from headwater.catalog.errors import UnknownPartitionError, UsageError
from headwater.catalog.keys import AssetKey
from headwater.catalog.lineage.asset_graph import AssetGraph
from headwater.catalog.printable import printable_line
from headwater.materialize.edges import Edges, holds_any
from headwater.materialize.staleness import Cells, Staleness

if TYPE_CHECKING:
    from headwater.catalog.partitions.space import Partitions

#: What a request may be narrowed to.
NARROWINGS = ("missing", "stale", "failed")


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionChoice:
    """The partitions that a request names. One that names none means every partition, if `all` says so.

    A key or range names partitions of the selected assets that have it. Of the other selected partitioned assets,
    the partitions that read those are meant: with daily and monthly assets selected, a day means its month too.
    """

    keys: tuple[str, ...] = ()
    #: `first..last`, both included.
    ranges: tuple[str, ...] = ()
    all: bool = False
    #: Only partitions with one of these: missing, stale, failed.
    only: frozenset[str] = frozenset()
    #: Exactly which, by asset, as `PartitionSubset.to_json` writes them; None for one without partitions. Of the assets
    #: that are named here nothing else counts.
    cells: Mapping[str, Mapping[str, Any] | None] = field(default_factory=dict[str, Mapping[str, Any] | None])

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "PartitionChoice":
        """What `to_json` wrote."""
        return PartitionChoice(
            keys=tuple(data.get("keys", ())),
            ranges=tuple(data.get("ranges", ())),
            all=data.get("all", False),
            cells=data.get("cells", {}),
        )

    def to_json(self) -> dict[str, Any]:
        """As plain data, for another process; without `only`, which is about a moment."""
        cells = {"cells": dict(self.cells)} if self.cells else {}
        return {"keys": list(self.keys), "ranges": list(self.ranges), "all": self.all, **cells}

    def __post_init__(self) -> None:
        unknown = sorted(self.only - set(NARROWINGS))
        if unknown:
            raise UsageError(
                f"Partitions cannot be narrowed to '{printable_line(unknown[0], 40)}'.",
                remedy=f"Choose of {', '.join(NARROWINGS)}.",
            )

    def __bool__(self) -> bool:
        return bool(self.keys or self.ranges or self.all or self.only or self.cells)


def choose(
    edges: Edges,
    staleness: Staleness,
    selected: Sequence[AssetKey],
    choice: PartitionChoice,
    failed: Mapping[AssetKey, Collection[str | None]],
) -> dict[AssetKey, Cells]:
    """The cells that a request means, by asset; `selected` comes in topological order.

    Raises `UnknownPartitionError` for a key that none of the assets has, and for an asset of which nothing is meant.
    """
    graph = edges.graph
    partitioned = [key for key in selected if graph[key].partitions is not None and not graph[key].external]
    named = choice.keys or choice.ranges
    if named and not partitioned:
        raise UsageError(
            "None of the selected assets is partitioned.", remedy="Leave out the partition, or select others."
        )
    targets: dict[AssetKey, Cells] = {
        key: _exactly(edges, key, choice.cells[str(key)]) for key in selected if str(key) in choice.cells
    }
    if named:
        targets.update(_named(edges, partitioned, choice))
        _follow(edges, selected, targets)
        for key in partitioned:
            if key not in targets:
                raise _unknown(edges, key, choice)
    for key in selected:
        if key not in targets:
            targets[key] = edges.all(key)
        if choice.only and not graph[key].external:
            targets[key] = targets[key] & _narrowed(edges, staleness, key, choice.only, failed.get(key, ()))
    return {key: targets[key] for key in selected}


def _exactly(edges: Edges, key: AssetKey, data: Mapping[str, Any] | None) -> Cells:
    """Of partitions that were written when there were others, those that there are."""
    if data is None or edges.graph[key].partitions is None:
        return edges.all(key)
    return _partitions(edges, key).read_subset(data)[0].mask()


def _named(edges: Edges, partitioned: Sequence[AssetKey], choice: PartitionChoice) -> dict[AssetKey, Cells]:
    """The partitions that have the names. Raises for a name that nobody has."""
    found: dict[AssetKey, Any] = {}
    problems: list[UsageError | UnknownPartitionError] = []
    for text, is_range in [*((key, False) for key in choice.keys), *((one, True) for one in choice.ranges)]:
        taken = False
        for key in partitioned:
            partitions = _partitions(edges, key)
            try:
                subset = partitions.parse_range(text) if is_range else partitions.subset([text])
            except (UnknownPartitionError, UsageError) as error:
                problems.append(error)
                continue
            mask = subset.mask()
            found[key] = found[key] | mask if key in found else mask
            taken = True
        if not taken:
            # What is wrong with a range of keys that there are says more than that others do not know them.
            raise next((one for one in problems if not isinstance(one, UnknownPartitionError)), problems[0])
        problems.clear()
    return found


def _follow(edges: Edges, selected: Sequence[AssetKey], targets: dict[AssetKey, Cells]) -> None:
    """Add, of selected partitioned assets that have none of the names, the partitions that read what is meant."""
    graph = edges.graph
    reached: dict[AssetKey, Cells] = dict(targets)
    for key in graph.sorted(graph.downstream(targets) - targets.keys()):
        node = graph[key]
        cells = edges.none(key)
        for dep in node.deps:
            if dep.key in reached and dep.key != key:
                cells = cells | edges.readers(node, dep, reached[dep.key])
        if holds_any(cells):
            reached[key] = cells
    for key in selected:
        if key not in targets and key in reached and graph[key].partitions is not None:
            targets[key] = reached[key]


def _narrowed(
    edges: Edges, staleness: Staleness, key: AssetKey, only: frozenset[str], failed: Collection[str | None]
) -> Cells:
    cells = edges.none(key)
    if "missing" in only:
        cells = cells | staleness.missing(key)
    if "stale" in only:
        cells = cells | staleness.stale(key)
    if "failed" in only and failed:
        if edges.graph[key].partitions is None:
            return True
        partitions = _partitions(edges, key)
        ordinals = partitions.ordinals([one for one in failed if one is not None])
        cells = cells | partitions.subset_of_ordinals(ordinals[ordinals >= 0]).mask()
    return cells


def _unknown(edges: Edges, key: AssetKey, choice: PartitionChoice) -> UnknownPartitionError:
    text = (*choice.keys, *choice.ranges)[0]
    partitions = _partitions(edges, key)
    return UnknownPartitionError(
        f"`{key}` has no partition `{printable_line(text, 100)}` ({partitions.describe()}), and reads no asset "
        "selected that has.",
        remedy=partitions.explain_unknown(text),
    )


def _partitions(edges: Edges, key: AssetKey) -> "Partitions":
    assert edges.table is not None  # there is one where something is partitioned
    return edges.table.partitions(key)


def refuse_without(graph: AssetGraph, edges: Edges, selected: Sequence[AssetKey], selection: Any) -> None:
    """Raise `UsageError` where partitioned assets are selected and no partitions: with commands that would do."""
    partitioned = [key for key in selected if graph[key].partitions is not None and not graph[key].external]
    if not partitioned:
        return
    key = partitioned[0]
    partitions = _partitions(edges, key)
    others = f" and {len(partitioned) - 1} more of the selected assets" if len(partitioned) > 1 else ""
    verb = "are" if others else "is"
    if partitions.count:
        first, last = (printable_line(name, 60) for name in (partitions.key(0), partitions.key(-1)))
        example = f"--partition '{last}', --partition-range '{first}..{last}', or "
    else:
        example = ""
    raise UsageError(
        f"`{key}`{others} {verb} partitioned ({partitions.describe()}), and no partitions are named.",
        remedy=f"headwater materialize {_shell(selection)} with {example}--all-partitions for every one that is stale; "
        f"`headwater backfill {_shell(selection)}` does it in portions that can be resumed.",
    )


def _shell(selection: Any) -> str:
    import shlex

    return shlex.quote(printable_line(str(selection), 100)) if selection not in (None, "*") else "'*'"
