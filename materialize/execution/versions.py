"""The versions that the steps of a run read and replace."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headwater.catalog.definitions.asset import AssetsDefinition
from headwater.catalog.keys import AssetKey
from headwater.catalog.lineage.asset_graph import AssetGraph
from headwater.catalog.lineage.node import AssetNode, Dependency
from headwater.catalog.records import Cell, Fingerprint, Input, Materialization, Pointer
from headwater.catalog.storage.base import CatalogReader
from headwater.materialize.execution.partitions import StepPartitions, step_partitions
from headwater.materialize.execution.step import StepInput, StoredPart
from headwater.materialize.planner import Plan, PlanCell

if TYPE_CHECKING:
    from headwater.catalog.partitions.series import Int64s
    from headwater.materialize.cell_table import CellTable


@dataclass(slots=True)
class Versions:
    """The current version of every cell that a plan reads or replaces, brought up to date as cells are made."""

    graph: AssetGraph
    table: "CellTable | None"
    current: dict[Cell, Materialization]

    @staticmethod
    def of(
        plan: Plan,
        graph: AssetGraph,
        table: "CellTable | None",
        catalog: CatalogReader,
    ) -> "Versions":
        """Those that the catalog has when the run begins: one question for all unpartitioned assets, one an asset
        for partitions."""
        versions = Versions(graph, table, {})
        single: set[AssetKey] = set()
        for group in plan.groups:
            for key in group.assets:
                node = graph[key]
                if group.partitions is None:
                    single.add(key)
                else:
                    versions._fetch(catalog, key, group.partitions.ordinals())
                for dep in node.deps:
                    if graph[dep.key].partitions is None:
                        single.add(dep.key)
                    elif table is not None:
                        links = table.links(node, dep)
                        read = links.upstream(group.partitions or links.downstream_partitions.all()).subset
                        versions._fetch(catalog, dep.key, read.ordinals())
        if single:
            latest = catalog.latest(single)
            for key, made in latest.items():
                found = made if made.partition is None else catalog.current(key)  # it was partitioned once
                if found is not None:
                    versions.current[Cell(key)] = found
        return versions

    def _fetch(self, catalog: CatalogReader, key: AssetKey, ordinals: "Int64s") -> None:
        """Read the current versions of some partitions of an asset."""
        assert self.table is not None  # it has partitions
        built = self.table.arrays(key).built[ordinals]
        if built.any():
            asked = self.table.partitions(key).keys_at(ordinals[built])
            asked = [name for name in asked if Cell(key, name) not in self.current]
            for partition, made in catalog.currents(key, asked).items() if asked else ():
                self.current[Cell(key, partition)] = made

    def fingerprint(self, key: AssetKey) -> Fingerprint:
        """What a version of an asset is made with, as of now."""
        fingerprint = self.graph[key].fingerprint
        assert fingerprint is not None  # only external assets have none, and they are not computed
        return fingerprint

    def made(self, materializations: Iterable[Materialization]) -> None:
        """These are current from now on."""
        for materialization in materializations:
            self.current[materialization.cell] = materialization

    def partitions(self, cells: Sequence[PlanCell]) -> StepPartitions | None:
        """What a step computes, as its context tells it; None for unpartitioned assets."""
        if self.table is None or cells[0].cell.partition is None:
            return None
        names = dict.fromkeys(cell.cell.partition or "" for cell in cells)
        return step_partitions(self.table.partitions(cells[0].cell.asset), list(names))

    def inputs(self, definition: AssetsDefinition, cells: Sequence[PlanCell]) -> tuple[StepInput, ...]:
        """What the parameters of a step are filled with."""
        node = self.graph[cells[0].cell.asset]
        deps = {dep.key: dep for dep in node.deps}
        own = {cell.cell for cell in cells}
        inputs: list[StepInput] = []
        for item in definition.inputs:
            dep = deps[item.key]
            several = self._several(node, dep)
            parts = [part for part in self._read(node, dep, cells) if Cell(dep.key, part) not in own]
            stored: list[StoredPart] = []
            for part in parts:
                made = self.current.get(Cell(dep.key, part))
                if made is not None:
                    stored.append(StoredPart(partition=part, version_id=made.version_id, pointer=made.pointer))
            columns: Mapping[str, Sequence[str]] = {}
            above = self.graph[dep.key].partitions_def
            if item.partition_columns is not None and above is not None:
                columns = item.partition_columns.values(above, [one.partition or "" for one in stored])
            inputs.append(
                StepInput(
                    parameter=item.parameter,
                    asset=item.key,
                    parts=tuple(stored),
                    several=several,
                    optional=not parts,
                    columns=item.columns,
                    partition_columns=columns,
                )
            )
        return tuple(inputs)

    def recorded(self, cell: PlanCell, made: Mapping[Cell, Materialization]) -> tuple[Input, ...]:
        """What a cell was just computed from, given what its step `made` besides."""
        node = self.graph[cell.cell.asset]
        inputs: list[Input] = []
        for dep in node.deps:
            found: list[Input] = []
            for part in self._read(node, dep, [cell]):
                source = Cell(dep.key, part)
                version = made.get(source) or self.current.get(source)
                if version is not None and source != cell.cell:
                    found.append(_input(dep, version))
            inputs += found or [Input(asset=dep.key)]  # a dependency of which nothing was read
        return tuple(inputs)

    def previous(self, cell: Cell, code: str) -> tuple[Pointer | None, bool]:
        """Where the current version of a cell lies, and whether other code than `code` made it."""
        last = self.current.get(cell)
        return (last and last.pointer, last is None or last.fingerprint.code != code)

    def ids(self, cell: PlanCell) -> dict[str, str]:
        """The versions of what a cell reads, by asset, for its file's footer: of one each, or how many there are."""
        node = self.graph[cell.cell.asset]
        found: dict[str, str] = {}
        for dep in node.deps:
            read = [self.current.get(Cell(dep.key, part)) for part in self._read(node, dep, [cell])]
            known = [version.version_id for version in read if version is not None]
            found[str(dep.key)] = known[0] if len(known) == 1 else f"{len(known)} partitions" if known else ""
        return found

    def version_id(self, cell: Cell) -> str | None:
        """The current version of a cell."""
        last = self.current.get(cell)
        return last.version_id if last else None

    def _several(self, node: AssetNode, dep: Dependency) -> bool:
        """Whether a parameter stands for several partitions: told by definitions, so that its type never depends on
        how many there happen to be."""
        if dep.mapping is None or self.graph[dep.key].partitions is None:
            return False
        mapping = dep.partition_mapping
        assert mapping is not None  # it has a text
        one = mapping.reads_one(node.partitions_def, self.graph[dep.key].partitions_def)
        return not one or (node.batch != 1 and node.partitions is not None and not _constant(self.table, node, dep))

    def _read(self, node: AssetNode, dep: Dependency, cells: Sequence[PlanCell]) -> list[Any]:
        """The partitions that cells read of a dependency, in their order; [None] for an unpartitioned one."""
        if self.table is None or self.graph[dep.key].partitions is None:
            return [None]
        links = self.table.links(node, dep)
        if len(cells) == 1 or node.partitions is None:
            read = links.read_by(cells[0].ordinal)
        else:
            chosen = links.downstream_partitions.subset_of_ordinals([cell.ordinal for cell in cells])
            read = links.upstream(chosen).subset.ordinals()
        return typed_keys(self.table, dep.key, read)


def typed_keys(table: "CellTable", asset: AssetKey, ordinals: "Int64s") -> list[str]:
    """Partition keys; of several dimensions those that know them."""
    from headwater.catalog.partitions.multi import MultiPartitionsDefinition

    keys = table.partitions(asset).keys_at(ordinals)
    definition = table.graph[asset].partitions_def
    return [definition.key(key) for key in keys] if isinstance(definition, MultiPartitionsDefinition) else keys


def _constant(table: "CellTable | None", node: AssetNode, dep: Dependency) -> bool:
    """Whether all partitions read the same."""
    return table is not None and table.links(node, dep).constant


def _input(dep: Dependency, version: Materialization) -> Input:
    columns = None
    if dep.columns is not None:
        known = {c.name: c.version for c in version.pointer.columns if c.version is not None} if version.pointer else {}
        columns = {name: known[name] for name in dep.columns if name in known}
    return Input(
        asset=dep.key,
        partition=version.partition,
        version_id=version.version_id,
        data_version=version.data_version,
        columns=columns,
    )
