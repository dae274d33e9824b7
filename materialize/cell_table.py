"""What is recorded of every cell, by ordinal: the arrays on which staleness, plans and runs decide.

A cell's versions are numbers here: `version_hash` of what it holds, and the sum of those that it was built from
(see `headwater.catalog.cell_hash`). So whether cells are up to date with what they read is one comparison of two
arrays, whatever the number of cells and however many each of them reads.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from headwater.catalog.cell_hash import MODULUS, input_hash, inputs_hash, sum_hashes, version_hash
from headwater.catalog.keys import AssetKey
from headwater.catalog.lineage.asset_graph import AssetGraph
from headwater.catalog.lineage.node import AssetNode, Dependency
from headwater.catalog.partitions.definition import PartitionsContext
from headwater.catalog.partitions.links import Links
from headwater.catalog.partitions.mapping import AllPartitionMapping
from headwater.catalog.partitions.series import Int64s, int64s
from headwater.catalog.partitions.space import Partitions, partitions_at
from headwater.catalog.records import Cell, Fingerprint
from headwater.catalog.storage.base import CellState, PartitionCells

Mask = NDArray[np.bool_]
Hashes = NDArray[np.uint64]

#: An ordinal that was not looked up yet; -1 is a key that is no partition now.
_UNKNOWN = -2


class CellSource(Protocol):
    """Where recorded cells come from: a reader of the catalog."""

    def partition_cells(self, assets: Collection[AssetKey] | None = None) -> PartitionCells:
        """The current versions of partitions, as arrays."""
        ...

    def input_hashes(
        self, asset: AssetKey, seqs: NDArray[np.int64]
    ) -> Mapping[AssetKey, tuple[NDArray[np.int64], Hashes]]:
        """What some versions were built from, by input asset: places in `seqs`, and sums of hashes."""
        ...

    def cell_states(self, asset: AssetKey, partitions: Sequence[str]) -> dict[str, CellState]:
        """The current versions of some partitions, with what they were built from."""
        ...


@dataclass(slots=True, eq=False)
class CellArrays:
    """The recorded cells of one asset, an entry an ordinal; `built` says where there is one at all."""

    partitions: Partitions
    built: Mask
    #: The number of the version's event.
    seqs: Int64s
    #: Numbers into `CellTable.fingerprints`.
    fingerprints: NDArray[np.int32]
    versions: Hashes
    inputs: Hashes
    #: The keys of cells that the definition does not have (any more).
    outside: Sequence[str] = ()


class CellTable:
    """The recorded cells of a graph at a moment. `made` brings it up to date while a run goes on.

    `assets` are those that it is going to be asked about; by default all.
    """

    def __init__(
        self,
        graph: AssetGraph,
        cells: Mapping[Cell, CellState],
        source: CellSource,
        context: PartitionsContext,
        assets: Collection[AssetKey] | None = None,
    ) -> None:
        self.graph = graph
        self.context = context
        self._cells = cells
        self._source = source
        self._assets = graph.nodes.keys() if assets is None else assets
        self._records: PartitionCells | None = None
        #: Every fingerprint that a recorded cell has.
        self.fingerprints: list[Fingerprint] = []
        self._arrays: dict[AssetKey, CellArrays] = {}
        self._spaces: dict[str | None, Partitions] = {}
        self._links: dict[tuple[str | None, str | None, str | None], Links] = {}
        self._ordinals: dict[str, Int64s] = {}
        self._made: dict[Cell, CellState] = {}

    def partitions(self, key: AssetKey) -> Partitions:
        """The partitions of an asset; of an unpartitioned one, its one cell."""
        node = self.graph[key]
        if node.partitions not in self._spaces:
            self._spaces[node.partitions] = partitions_at(node.partitions_def, self.context)
        return self._spaces[node.partitions]

    def links(self, node: AssetNode, dep: Dependency) -> Links:
        """What each cell of `node` reads of the asset that it depends on."""
        up = self.graph[dep.key]
        name = (dep.mapping, node.partitions, up.partitions)
        if name not in self._links:
            mapping = dep.partition_mapping or AllPartitionMapping()
            self._links[name] = mapping.links(self.partitions(node.key), self.partitions(dep.key))
        return self._links[name]

    def arrays(self, key: AssetKey) -> CellArrays:
        """What is recorded of an asset."""
        found = self._arrays.get(key)
        if found is None:
            _ = self._recorded_cells  # whose fingerprints come first
            node = self.graph[key]
            found = self._single(node) if node.partitions is None else self._recorded(node)
            self._arrays[key] = found
        return found

    def cell(self, key: AssetKey, ordinal: int) -> Cell:
        """The cell of an asset with an ordinal."""
        return Cell(key, None if self.graph[key].partitions is None else self.partitions(key).key(ordinal))

    def states(self, key: AssetKey, ordinals: Int64s) -> dict[int, CellState]:
        """The current states of an asset's cells in full, of those that have one."""
        if self.graph[key].partitions is None:
            state = self._made.get(Cell(key)) or self._cells.get(Cell(key))
            return {} if state is None or not len(ordinals) else {0: state}
        keys = self.partitions(key).keys_at(ordinals)
        asked = [name for name in keys if Cell(key, name) not in self._made]
        found = self._source.cell_states(key, asked) if asked else {}
        states = (
            (at, self._made.get(Cell(key, name)) or found.get(name))
            for at, name in zip(ordinals.tolist(), keys, strict=True)
        )
        return {at: state for at, state in states if state is not None}

    def expected(self, node: AssetNode, ordinals: Int64s | None = None) -> Hashes:
        """The `inputs_hash` that each cell of an asset would get if it were built now: of all, or of some."""
        count = self.partitions(node.key).count if ordinals is None else len(ordinals)
        own = sum_hashes((dep.key for dep in node.deps), ())
        total = np.full(count, own, np.uint64)
        for dep in node.deps:
            total += self.read(node, dep, ordinals)
        return total

    def read(self, node: AssetNode, dep: Dependency, ordinals: Int64s | None = None) -> Hashes:
        """The sums of the versions that cells would read of one dependency now."""
        links, versions = self.links(node, dep), self.arrays(dep.key).versions
        return links.sum(versions) if ordinals is None else links.sum_at(versions, ordinals)

    def recorded_reads(self, key: AssetKey, ordinals: Int64s) -> Mapping[AssetKey, tuple[Int64s, Hashes]]:
        """What built cells read when they were built, by asset: places in `ordinals`, and sums of versions."""
        if self.graph[key].partitions is not None:
            return self._source.input_hashes(key, self.arrays(key).seqs[ordinals])
        sums: dict[AssetKey, int] = {}
        for item in self._cells[Cell(key)].inputs:
            sums[item.asset] = (sums.get(item.asset, 0) + input_hash(item)) % MODULUS
        return {asset: (int64s([0]), np.array([total], np.uint64)) for asset, total in sums.items()}

    def made(self, cell: Cell, state: CellState) -> None:
        """A new version of a cell is current from now on."""
        self._made[cell] = state
        arrays = self._arrays.get(cell.asset)
        if arrays is None and self.graph[cell.asset].partitions is None:
            return  # nobody looked yet, and `_single` is going to find it
        arrays = arrays or self.arrays(cell.asset)
        ordinal = 0 if cell.partition is None else arrays.partitions.find(cell.partition)
        if ordinal is not None:
            arrays.built[ordinal] = True
            arrays.fingerprints[ordinal] = self._fingerprint(state.fingerprint)
            arrays.versions[ordinal] = version_hash(cell.asset, cell.partition, state.data_version)
            arrays.inputs[ordinal] = inputs_hash(state.inputs)

    def _fingerprint(self, fingerprint: Fingerprint) -> int:
        if fingerprint not in self.fingerprints:
            self.fingerprints.append(fingerprint)
        return self.fingerprints.index(fingerprint)

    @property
    def _recorded_cells(self) -> PartitionCells:
        """Read when somebody first asks for more than which partitions there are."""
        if self._records is None:
            partitioned = [key for key in self._assets if self.graph[key].partitions is not None]
            self._records = self._source.partition_cells(partitioned)
            self.fingerprints += self._records.fingerprints
        return self._records

    def _single(self, node: AssetNode) -> CellArrays:
        """The arrays of an unpartitioned asset: one entry."""
        state = self._made.get(Cell(node.key)) or self._cells.get(Cell(node.key))
        arrays = _empty(self.partitions(node.key))
        if state is not None:
            arrays.built[0] = True
            arrays.fingerprints[0] = self._fingerprint(state.fingerprint)
            arrays.versions[0] = version_hash(node.key, None, state.data_version)
            arrays.inputs[0] = inputs_hash(state.inputs)
        return arrays

    def _recorded(self, node: AssetNode) -> CellArrays:
        records = self._recorded_cells
        arrays = _empty(self.partitions(node.key))
        cells = records.by_asset.get(node.key)
        if cells is None:
            return arrays
        at = self._at(node, cells.keys)
        if node.fingerprint is not None:
            known = self.fingerprints
            other = [i for i, one in enumerate(known) if one.partitions != node.fingerprint.partitions]
            if other:  # keys that meant something else name no partition of this definition
                at = np.where(np.isin(cells.fingerprints, other), -1, at)
        if len(at) and int(at.min()) < 0:
            outside = at < 0
            arrays.outside = records.keys[cells.keys[outside]].tolist()
            inside = ~outside
            at = at[inside]
        else:
            inside = slice(None)
        arrays.built[at] = True
        arrays.seqs[at] = cells.seqs[inside]
        arrays.fingerprints[at] = cells.fingerprints[inside]
        arrays.versions[at] = cells.version_hashes[inside]
        arrays.inputs[at] = cells.inputs_hashes[inside]
        return arrays

    def _at(self, node: AssetNode, numbers: NDArray[np.int32]) -> Int64s:
        """The ordinals of keys by their numbers. Assets that are partitioned alike look each key up once."""
        assert node.partitions is not None  # `_single` does the others
        keys: Any = self._recorded_cells.keys
        known = self._ordinals.get(node.partitions)
        if known is None:
            known = self._ordinals[node.partitions] = np.full(len(keys), _UNKNOWN, np.int64)
        found = known[numbers]
        new = numbers[found == _UNKNOWN]
        if len(new):
            known[new] = self.partitions(node.key).ordinals(keys[new].tolist())
            found = known[numbers]
        return found


def _empty(partitions: Partitions) -> CellArrays:
    count = partitions.count
    return CellArrays(
        partitions=partitions,
        built=np.zeros(count, np.bool_),
        seqs=np.zeros(count, np.int64),
        fingerprints=np.full(count, -1, np.int32),
        versions=np.zeros(count, np.uint64),
        inputs=np.zeros(count, np.uint64),
    )
