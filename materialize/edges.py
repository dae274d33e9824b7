"""Sets of cells across the edges of a graph, for assets with and without partitions alike.

A set of cells is True or False for the one cell of an unpartitioned asset, and a mask over ordinals for a
partitioned one. Where nothing is partitioned, nothing here needs numpy.
"""

from typing import TYPE_CHECKING, Any

from headwater.catalog.keys import AssetKey
from headwater.catalog.lineage.asset_graph import AssetGraph
from headwater.catalog.lineage.node import AssetNode, Dependency
from headwater.materialize.staleness import Cells

if TYPE_CHECKING:
    from headwater.catalog.partitions.subset import PartitionSubset
    from headwater.materialize.cell_table import CellTable


class Edges:
    """Which cells read which."""

    def __init__(self, graph: AssetGraph, table: "CellTable | None") -> None:
        self.graph = graph
        self.table = table

    def none(self, key: AssetKey) -> Cells:
        """No cell of an asset."""
        return False if self.graph[key].partitions is None else self._many(key, False)

    def all(self, key: AssetKey) -> Cells:
        """Every cell of an asset."""
        return True if self.graph[key].partitions is None else self._many(key, True)

    def readers(self, node: AssetNode, dep: Dependency, cells: Cells) -> Cells:
        """The cells of `node` that read one of some cells of the asset it depends on."""
        if not holds_any(cells):
            return self.none(node.key)
        if self.table is None or (node.partitions is None and isinstance(cells, bool)):
            return True
        found = self.table.links(node, dep).any(_mask(cells))
        return bool(found[0]) if node.partitions is None else found

    def reads(self, node: AssetNode, dep: Dependency, cells: Cells) -> Cells:
        """The cells of the asset that `node` depends on which some cells of `node` read."""
        if not holds_any(cells):
            return self.none(dep.key)
        one = self.graph[dep.key].partitions is None
        if self.table is None or (one and isinstance(cells, bool)):
            return True
        links = self.table.links(node, dep)
        found = links.upstream(links.downstream_partitions.subset_of_mask(_mask(cells))).subset
        return len(found) > 0 if one else found.mask()

    def with_earlier(self, node: AssetNode, itself: Dependency, cells: Cells) -> Cells:
        """Some cells of an asset that reads itself, and all that they read of it, directly or not."""
        if _reads_the_one_before(itself):
            import numpy as np

            return np.logical_or.accumulate(cells[::-1])[::-1]
        new = cells
        while holds_any(new):
            new = without(self.reads(node, itself, new), cells)
            cells = cells | new
        return cells

    def with_later(self, node: AssetNode, itself: Dependency, cells: Cells, within: Cells) -> Cells:
        """Some cells of an asset that reads itself, and those `within` others that read them, directly or not."""
        if _reads_the_one_before(itself, alone=True):
            import numpy as np

            # From a cell on everything follows, up to the next that is not `within`: who came last, it or such a one?
            places = np.arange(len(cells))
            last = np.maximum.accumulate(np.where(cells, places, -1))
            possible: Any = cells | within
            barrier = np.maximum.accumulate(np.where(possible, -1, places))
            return last > barrier
        new = cells
        while holds_any(new):
            new = without(self.readers(node, itself, new), cells) & within
            cells = cells | new
        return cells

    def subset(self, key: AssetKey, cells: Cells) -> "PartitionSubset | None":
        """The partitions that a set holds; None for an unpartitioned asset."""
        if self.table is None or isinstance(cells, bool):
            return None
        return self.table.partitions(key).subset_of_mask(cells)

    def _many(self, key: AssetKey, value: bool) -> Cells:
        import numpy as np

        assert self.table is not None  # there is one where something is partitioned
        return np.full(self.table.partitions(key).count, value)


def holds_any(cells: Cells) -> bool:
    """Whether a set holds any cell."""
    return cells if isinstance(cells, bool) else bool(cells.any())


def without(cells: Cells, others: Cells) -> Cells:
    """The cells of a set that are not in another of the same asset."""
    return cells and not others if isinstance(cells, bool) else cells & ~others


def _reads_the_one_before(itself: Dependency, *, alone: bool = False) -> bool:
    """Whether each partition reads the one before it, among others or `alone`."""
    from headwater.catalog.partitions.mapping import TimeWindowPartitionMapping

    mapping = itself.partition_mapping
    if not isinstance(mapping, TimeWindowPartitionMapping) or mapping.end_offset != -1:
        return False
    return not alone or mapping.start_offset == -1


def _mask(cells: Cells) -> Any:
    import numpy as np

    return np.array([cells]) if isinstance(cells, bool) else cells
