"""Which of the cells that an evaluation requests go in one run."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from headwater.catalog.keys import AssetKey
from headwater.catalog.lineage.asset_graph import AssetGraph

if TYPE_CHECKING:
    from headwater.catalog.partitions.subset import PartitionSubset


def grouped(
    graph: AssetGraph, requested: "Mapping[AssetKey, PartitionSubset]"
) -> "list[dict[AssetKey, PartitionSubset]]":
    """The cells of each run: together are assets that depend on each other, and those with the same partitions."""
    parents = {key: key for key in requested}

    def first(key: AssetKey) -> AssetKey:
        while parents[key] != key:
            parents[key] = key = parents[parents[key]]
        return key

    alike: dict[tuple[str | None, bytes, bytes], AssetKey] = {}
    for key, subset in requested.items():
        node = graph[key]
        starts, ends = subset.intervals
        same = alike.setdefault((node.partitions, starts.tobytes(), ends.tobytes()), key)
        for other in (same, *(dep.key for dep in node.deps if dep.key in requested)):
            parents[first(key)] = first(other)
    runs: dict[AssetKey, dict[AssetKey, PartitionSubset]] = {}
    for key, subset in requested.items():
        runs.setdefault(first(key), {})[key] = subset
    return list(runs.values())
