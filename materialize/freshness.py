"""How fresh assets are: their policies, and what the catalog says of when they were last updated. Reads, never writes.

An asset was last updated when its newest version was made. Of windows of time only the newest one that is built
counts, and for no longer than it is the newest that has ended: old windows that are built again, or late, do not make
data fresh. Of all other partitions any counts.
"""

from collections.abc import Collection
from datetime import UTC, datetime

from headwater.catalog.freshness import NOT_APPLICABLE, Freshness
from headwater.catalog.keys import AssetKey
from headwater.catalog.lineage.asset_graph import AssetGraph
from headwater.catalog.lineage.node import AssetNode
from headwater.catalog.storage.base import CatalogReader

#: How many of the newest windows are looked up first.
_LOOKED_UP = 30


def freshness_of(
    graph: AssetGraph, catalog: CatalogReader, keys: Collection[AssetKey], moment: datetime
) -> dict[AssetKey, Freshness]:
    """How fresh some assets are at a moment; NOT_APPLICABLE for those without a policy, about which nothing is read."""
    nodes = {key: graph[key] for key in keys}
    judged = [key for key, node in nodes.items() if node.freshness is not None]
    latest = catalog.latest(judged) if judged else {}
    found = dict.fromkeys(nodes, NOT_APPLICABLE)
    for key in judged:
        policy, made = nodes[key].freshness_policy, latest.get(key)
        assert policy is not None
        updated = None if made is None else _updated(nodes[key], catalog, made.created, moment)
        found[key] = policy.evaluate(updated, moment)
    return found


def _updated(node: AssetNode, catalog: CatalogReader, newest: datetime, moment: datetime) -> datetime | None:
    """When an asset was last updated of which the newest version of all was made at `newest`."""
    if node.partitions is None:
        return newest
    from headwater.catalog.partitions.definition import PartitionsContext
    from headwater.catalog.partitions.space import WindowPartitions, partitions_at

    windows = partitions_at(node.partitions_def, PartitionsContext(moment, catalog.dynamic_keys))
    if not isinstance(windows, WindowPartitions):
        return newest
    stop, many = windows.count, _LOOKED_UP
    while stop > 0:
        start = max(0, stop - many)
        keys = windows.keys(start, stop)
        built = catalog.currents(node.key, keys)
        for ordinal, key in zip(range(stop - 1, start - 1, -1), reversed(keys), strict=True):
            if key in built:
                made = built[key].created
                return made if ordinal + 1 == windows.count else min(made, windows.window_at(ordinal + 1).end)
        stop, many = start, many * 4
    return None


def freshness(graph: AssetGraph, catalog: CatalogReader, key: AssetKey, moment: datetime) -> Freshness:
    """How fresh one asset is at a moment."""
    return freshness_of(graph, catalog, [key], moment.astimezone(UTC))[key]
