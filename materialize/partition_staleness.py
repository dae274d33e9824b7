"""Which partitions are stale, and why: the rules of `headwater.materialize.causes`, a whole asset at a time.

A cell whose recorded `inputs_hash` is what it would be now has read what there is now. Only where the two differ it
is looked up what was read, asset by asset, and, where a dependency is on columns alone, cell by cell.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headwater.catalog.cell_hash import MODULUS, version_hash
from headwater.catalog.keys import AssetKey
from headwater.catalog.lineage.asset_graph import AssetGraph
from headwater.catalog.lineage.node import AssetNode, Dependency
from headwater.catalog.partitions.links import Links
from headwater.catalog.partitions.series import Int64s
from headwater.catalog.partitions.space import Partitions
from headwater.catalog.partitions.subset import PartitionSubset
from headwater.catalog.records import Fingerprint
from headwater.catalog.storage.base import CellState
from headwater.materialize.causes import (
    FRESH,
    MISSING,
    NOT_MADE,
    Cause,
    CauseKind,
    CellStatus,
    Status,
    fingerprint_causes,
)
from headwater.materialize.cell_table import CellTable, Mask

#: A cause, and which of some cells have it.
CauseMask = tuple[Cause, Mask]


@dataclass(slots=True, eq=False)
class PartitionsStatus:
    """The status of every cell of an asset, by ordinal."""

    partitions: Partitions
    missing: Mask
    #: Cells that have a cause of their own.
    direct: Mask
    stale: Mask
    #: Missing cells that their step chose not to make.
    not_made: Mask
    #: Direct causes first.
    causes: tuple[CauseMask, ...]
    #: Keys of recorded cells that the definition does not have (any more).
    outside: Sequence[str] = ()

    @property
    def behind(self) -> Mask:
        """The cells that are not fresh."""
        return self.missing | self.stale

    def of(self, ordinal: int) -> CellStatus:
        """The status of one cell."""
        if self.missing[ordinal]:
            return NOT_MADE if self.not_made[ordinal] else MISSING
        causes = self.causes_of(ordinal)
        return CellStatus(status=Status.STALE, causes=causes) if causes else FRESH

    def causes_of(self, ordinal: int) -> tuple[Cause, ...]:
        """Why one cell that exists is stale."""
        return tuple(cause for cause, mask in self.causes if mask[ordinal])

    def status_at(self, ordinal: int) -> Status:
        """The status of one cell, without causes."""
        if self.missing[ordinal]:
            return Status.MISSING
        return Status.STALE if self.stale[ordinal] else Status.FRESH

    def with_status(self, status: Status) -> PartitionSubset:
        """The cells that have a status."""
        masks = {Status.MISSING: self.missing, Status.STALE: self.stale, Status.FRESH: ~self.behind}
        return self.partitions.subset_of_mask(masks[status])

    def counts(self) -> dict[Status, int]:
        """How many cells have each status."""
        missing, stale = int(np.count_nonzero(self.missing)), int(np.count_nonzero(self.stale))
        return {Status.FRESH: self.partitions.count - missing - stale, Status.STALE: stale, Status.MISSING: missing}

    @property
    def whole(self) -> Status:
        """That of the asset: missing when all cells are, fresh when all are, otherwise stale."""
        counts = self.counts()
        alike = (status for status in (Status.FRESH, Status.MISSING) if counts[status] == self.partitions.count)
        return next(alike, Status.STALE)

    def cause_counts(self, among: Mask) -> list[tuple[Cause, int]]:
        """Why the cells `among` all are not fresh: each cause with how many of them have it."""
        never = self.missing & ~self.not_made
        found = [
            (Cause(kind=CauseKind.NEVER_MATERIALIZED), int(np.count_nonzero(never & among))),
            (Cause(kind=CauseKind.NOT_MADE), int(np.count_nonzero(self.not_made & among))),
        ]
        found += [(cause, int(np.count_nonzero(mask & among))) for cause, mask in self.causes]
        return [(cause, count) for cause, count in found if count]


def evaluate_partitions(
    node: AssetNode, table: CellTable, statuses: Mapping[AssetKey, PartitionsStatus]
) -> PartitionsStatus:
    """The status of every cell of an asset; `statuses` holds those of the assets above it that are computed here."""
    arrays = table.arrays(node.key)
    built = arrays.built
    direct = direct_causes_of(node, table)
    own = np.zeros(len(built), np.bool_)
    for _, mask in direct:
        own |= mask
    missing = ~built
    above: list[CauseMask] = []
    for dep in node.deps:
        if dep.key == node.key:
            continue
        status = statuses.get(dep.key)
        if status is not None:
            links = table.links(node, dep)
            for kind, mask in (
                (CauseKind.UPSTREAM_MISSING, status.missing),
                (CauseKind.UPSTREAM_STALE, status.stale),
            ):
                if mask.any():
                    _add(above, kind, dep, links, mask, built)
    stale = own.copy()
    for _, mask in above:
        stale |= mask
    itself = next((dep for dep in node.deps if dep.key == node.key), None)
    if itself is not None:
        links = table.links(node, itself)
        behind = reached(links, itself, missing | stale)
        _add(above, CauseKind.UPSTREAM_MISSING, itself, links, missing, built)
        _add(above, CauseKind.UPSTREAM_STALE, itself, links, behind & ~missing, built)
        stale = behind & built
    return PartitionsStatus(
        partitions=arrays.partitions,
        missing=missing,
        direct=own,
        stale=stale,
        not_made=np.zeros(len(built), np.bool_),
        causes=(*direct, *above),
        outside=arrays.outside,
    )


def of_one(status: CellStatus, partitions: Partitions) -> PartitionsStatus:
    """The status of an unpartitioned asset in the form of that of a partitioned one."""

    def mask(value: bool) -> Mask:
        return np.array([value])

    return PartitionsStatus(
        partitions=partitions,
        missing=mask(status.status is Status.MISSING),
        direct=mask(any(not cause.transitive for cause in status.causes)),
        stale=mask(status.status is Status.STALE),
        not_made=mask(status is NOT_MADE),
        causes=tuple((cause, mask(True)) for cause in status.causes),
    )


def settle_not_made(graph: AssetGraph, statuses: Mapping[AssetKey, PartitionsStatus]) -> None:
    """Mark the cells that their step left out: where the whole step ran, as another of its cells proves."""
    for members in graph.steps.values():
        found = [statuses[key] for key in members if key in statuses]
        if len(found) < 2 or graph[members[0]].can_subset:
            continue
        ran = np.logical_or.reduce([~status.behind for status in found])
        for key, status in zip(members, found, strict=True):
            if graph[key].optional:
                status.not_made = status.missing & ran


def reached(links: Links, dep: Dependency, seeds: Mask) -> Mask:
    """`seeds` and, of an asset that reads its own earlier partitions, whatever reads them, directly or not."""
    mapping = dep.partition_mapping
    if mapping is not None and mapping.reads_the_one_before:  # once behind, behind to the end
        return np.logical_or.accumulate(seeds) if len(seeds) else seeds
    found = seeds.copy()
    while (more := links.any(found) & ~found).any():
        found |= more
    return found


def direct_causes_of(node: AssetNode, table: CellTable, ordinals: Int64s | None = None) -> list[CauseMask]:
    """Why cells that are recorded are stale on their own account: of all of an asset, or of some.

    The masks have an entry for each of `ordinals`.
    """
    arrays = table.arrays(node.key)
    chosen = slice(None) if ordinals is None else ordinals
    built = arrays.built[chosen]
    causes = _fingerprint_masks(node, table.fingerprints, arrays.fingerprints[chosen], built)
    differ = built & (arrays.inputs[chosen] != table.expected(node, ordinals))
    if differ.any():
        where = np.flatnonzero(differ)
        at = where if ordinals is None else ordinals[where]
        causes += [(cause, _spread(mask, where, len(built))) for cause, mask in _changed_inputs(node, table, at)]
    return causes


def _fingerprint_masks(
    node: AssetNode, known: Sequence[Fingerprint], fingerprints: NDArray[np.int32], built: Mask
) -> list[CauseMask]:
    if node.fingerprint is None:
        return []
    found: dict[Cause, Mask] = {}
    numbers: list[int] = np.unique(fingerprints[built]).tolist()
    for number in numbers:
        if known[number] == node.fingerprint:
            continue
        for cause in fingerprint_causes(known[number], node.fingerprint):
            mask = built & (fingerprints == number)
            found[cause] = found[cause] | mask if cause in found else mask
    return list(found.items())


def _changed_inputs(node: AssetNode, table: CellTable, ordinals: Int64s) -> list[CauseMask]:
    """What is different about the inputs of cells whose hashes differ; masks over `ordinals`."""
    recorded = dict(table.recorded_reads(node.key, ordinals))
    causes: list[CauseMask] = []
    for dep in node.deps:
        known = np.zeros(len(ordinals), np.bool_)
        sums = np.zeros(len(ordinals), np.uint64)
        if dep.key in recorded:
            places, values = recorded.pop(dep.key)
            known[places] = True
            sums[places] = values
        if not known.all():
            causes.append((Cause(kind=CauseKind.DEPENDENCY_ADDED, upstream=dep.key), ~known))
        changed = known & (sums != table.read(node, dep, ordinals))
        if dep.columns is not None and changed.any():
            where = np.flatnonzero(changed)
            changed[where] = _columns_changed(node, dep, table, ordinals[where])
        if changed.any():
            causes.append((Cause(kind=CauseKind.UPSTREAM_DATA_CHANGED, upstream=dep.key), changed))
    for key, (places, _) in recorded.items():
        mask = np.zeros(len(ordinals), np.bool_)
        mask[places] = True
        causes.append((Cause(kind=CauseKind.DEPENDENCY_REMOVED, upstream=key), mask))
    return causes


def _columns_changed(node: AssetNode, dep: Dependency, table: CellTable, ordinals: Int64s) -> Mask:
    """Of cells that read other versions of a dependency than there are now: whether columns that they read differ."""
    columns = dep.columns or ()
    links = table.links(node, dep)
    read = links.upstream(links.downstream_partitions.subset_of_ordinals(ordinals)).subset.ordinals()
    now = np.zeros(links.upstream_partitions.count, np.uint64)
    for at, state in table.states(dep.key, read).items():
        cell = table.cell(dep.key, at)
        now[at] = version_hash(cell.asset, cell.partition, _columns_version(state.columns, columns, state.data_version))
    expected = links.sum_at(now, ordinals)
    states = table.states(node.key, ordinals)
    changed = np.ones(len(ordinals), np.bool_)
    for place, ordinal in enumerate(ordinals.tolist()):
        state = states.get(ordinal)
        if state is not None:
            changed[place] = _read_columns(state, dep.key, columns) != int(expected[place])
    return changed


def _read_columns(state: CellState, upstream: AssetKey, columns: Sequence[str]) -> int:
    """The sum of what a cell read of some columns when it was built."""
    total = 0
    for item in state.inputs:
        if item.asset == upstream and item.data_version is not None:
            text = _columns_version(item.columns or {}, columns, item.data_version)
            total += version_hash(item.asset, item.partition, text)
    return total % MODULUS


def _columns_version(versions: Mapping[str, str], columns: Sequence[str], whole: str) -> str:
    """The versions of some columns as one text; the whole's where columns have none."""
    if not versions:
        return whole
    parts = [f"{name}\0{versions.get(name)}" for name in columns]
    return "\0".join(f"{len(part)}:{part}" for part in parts)


def _add(causes: list[CauseMask], kind: CauseKind, dep: Dependency, links: Links, mask: Mask, among: Mask) -> None:
    """Note the cells that read one of `mask`."""
    reads = links.any(mask) & among
    if not reads.any():
        return
    detail = ""
    if len(mask) > 1 and len(reads) == 1:
        detail = f"{int(links.sum(mask.astype(np.int64))[0]):,} of {int(links.counts()[0]):,} partitions"
    causes.append((Cause(kind=kind, upstream=dep.key, detail=detail), reads))


def _spread(mask: Mask, where: Int64s, count: int) -> Mask:
    """A mask over some cells as one over all."""
    found = np.zeros(count, np.bool_)
    found[where] = mask
    return found
