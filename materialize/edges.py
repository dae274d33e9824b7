"""Sets of cells across the edges of a graph, for assets with and without partitions alike.

A set of cells is True or False for the one cell of an unpartitioned asset, and a mask over ordinals for a
partitioned one. Where nothing is partitioned, nothing here needs numpy.
"""

from collections.abc import Callable
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

    def reads_on(self, node: AssetNode, dep: Dependency, cells: Cells) -> Cells:
        """Some cells, and all that they read along the edge of their asset to itself, directly or not."""
        if _in_a_row(dep) and holds_any(cells):
            last = len(cells) - int(cells[::-1].argmax())
            found = cells.copy()
            found[:last] = True
            return found
        return self._spread(cells, lambda new: self.reads(node, dep, new), self.all(node.key))

    def readers_on(self, node: AssetNode, dep: Dependency, cells: Cells, within: Cells) -> Cells:
        """Some cells, and those of `within` that read them along the edge of their asset to itself, directly or not."""
        if _in_a_row(dep) and holds_any(cells):
            import numpy as np

            first = int(cells.argmax())
            if within[first:].all():  # in one go to the end, whatever else is read
                return cells | (np.arange(len(cells)) >= first)
        return self._spread(cells, lambda new: self.readers(node, dep, new), within)

    def _spread(self, cells: Cells, step: Callable[[Cells], Cells], within: Cells) -> Cells:
        new = cells
        while holds_any(new):
            new = without(step(new), cells) & within
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


def _in_a_row(dep: Dependency) -> bool:
    """Whether each partition of an asset that reads itself reads the one before it."""
    mapping = dep.partition_mapping
    return mapping is not None and mapping.reads_the_one_before


def holds_any(cells: Cells) -> bool:
    """Whether a set holds any cell."""
    return cells if isinstance(cells, bool) else bool(cells.any())


def without(cells: Cells, others: Cells) -> Cells:
    """The cells of a set that are not in another of the same asset."""
    return cells and not others if isinstance(cells, bool) else cells & ~others


def _mask(cells: Cells) -> Any:
    import numpy as np

    return np.array([cells]) if isinstance(cells, bool) else cells
