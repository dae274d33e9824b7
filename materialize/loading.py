"""Reading assets from Python."""

import contextlib
import shlex
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headwater.catalog.definitions.definitions import Definitions
from headwater.catalog.errors import MissingDataError, UnknownAssetError, UsageError
from headwater.catalog.instance import DEFAULT_WAIT, Instance
from headwater.catalog.keys import AssetKey, CoercibleToAssetKey
from headwater.catalog.lineage.node import node_from_json
from headwater.catalog.partitions.definition import PartitionsContext
from headwater.catalog.printable import printable_line
from headwater.catalog.records import Cell, Materialization
from headwater.io.base import InputContext, PartitionsInputContext, StoredPartition
from headwater.materialize.io_managers import IOManagers

if TYPE_CHECKING:
    from headwater.catalog.partitions.space import Partitions


def load_asset(
    key: CoercibleToAssetKey,
    *,
    as_type: Any = None,
    columns: Sequence[str] | None = None,
    partition: str | None = None,
    partition_range: str | tuple[str, str] | None = None,
    version: str | None = None,
    instance: Instance | None = None,
    definitions: Definitions | None = None,
    home: str | Path | None = None,
) -> Any:
    """The value of an asset: its current version, or the one called `version` (the start of its id is enough).

    Tables come as a `polars.LazyFrame` unless `as_type` asks for another representation; plain values as they were.
    Of a partitioned asset, all partitions are one table, or those of `partition_range` ("first..last", or a pair);
    plain values come as a dict by partition. `partition` is one alone, which may be one that the definition does not
    have any more. The home is `home`, else the project's as the command line would find it. `definitions` are only
    needed for assets that a custom IO manager stores.

    Raises `UnknownAssetError`, `UnknownPartitionError`, `MissingDataError`.
    """
    if instance is None:
        with open_to_read(home) as opened:
            return load_asset(
                key,
                as_type=as_type,
                columns=columns,
                partition=partition,
                partition_range=partition_range,
                version=version,
                instance=opened,
                definitions=definitions,
            )
    asset = AssetKey(key)
    chosen = None if columns is None else tuple(columns)
    partitions = None if version is not None or partition is not None else recorded_partitions(instance, asset)
    if partitions is not None:
        return _load_partitions(instance, asset, partitions, partition_range, as_type, chosen, definitions)
    if partition_range is not None:
        raise UsageError(f"`{asset}` is not partitioned.", remedy="Leave out partition_range.")
    found = _find_version(instance, asset, partition, version)
    if found.pointer is None:
        raise _stores_nothing(asset)
    wanted = as_type
    if wanted is None and found.pointer.format == "parquet" and definitions is None:
        wanted = "pl.LazyFrame"
    if definitions is None:
        from headwater.io.pointers import Owner, load_pointer

        return load_pointer(
            found.pointer, owner=Owner(asset, found.partition, found.version_id), annotation=wanted, columns=chosen
        )
    manager = IOManagers(definitions, None, instance.artifacts).for_output(asset)
    return manager.load_input(
        InputContext(
            asset_key=asset,
            partition_key=found.partition,
            version_id=found.version_id,
            pointer=found.pointer,
            annotation=wanted,
            columns=chosen,
        )
    )


@contextlib.contextmanager
def open_to_read(home: str | Path | None = None, *, wait: float = DEFAULT_WAIT) -> Generator[Instance]:
    """A home for reading; without one, that of the project that the current folder is in."""
    with Instance.open(home_of(home), read_only=True, wait=wait) as instance:
        yield instance


def home_of(home: str | Path | None) -> Path:
    """`home` itself, or that of the project that the current folder is in."""
    if home is None:
        from headwater.materialize.project import find_project

        home = find_project().home
    return Path(home).absolute()


def recorded_partitions(instance: Instance, asset: AssetKey) -> "Partitions | None":
    """The partitions of an asset as its definition was last recorded; None for an unpartitioned one."""
    recorded = instance.catalog.definitions().get(asset)
    definition = None if recorded is None else node_from_json(recorded.data).partitions_def
    if definition is None:
        return None
    return definition.at(PartitionsContext(instance.clock.now(), instance.catalog.dynamic_keys))


def current_parts(
    instance: Instance, asset: AssetKey, partitions: "Partitions", partition_range: str | None = None
) -> list[Materialization]:
    """The current versions of an asset's partitions, in their order: of all that were built, or of some.

    Cells of an earlier definition, whose keys meant something else, are none of them.
    """
    recorded = instance.catalog.definitions().get(asset)
    meant = None if recorded is None else node_from_json(recorded.data).fingerprint
    names = None if partition_range is None else partitions.parse_range(partition_range).keys()
    found = instance.catalog.currents(asset, names)
    keys = [
        key
        for key, made in found.items()
        if key is not None and (meant is None or made.fingerprint.partitions == meant.partitions)
    ]
    placed = sorted((at, key) for at, key in zip(partitions.ordinals(keys).tolist(), keys, strict=True) if at >= 0)
    return [found[key] for _, key in placed]


def _load_partitions(
    instance: Instance,
    asset: AssetKey,
    partitions: "Partitions",
    partition_range: str | tuple[str, str] | None,
    as_type: Any,
    columns: tuple[str, ...] | None,
    definitions: Definitions | None,
) -> Any:
    chosen = partition_range if isinstance(partition_range, str | None) else "..".join(partition_range)
    made = current_parts(instance, asset, partitions, chosen)
    stored = tuple(
        StoredPartition(partition_key=one.partition, version_id=one.version_id, pointer=one.pointer)
        for one in made
        if one.pointer is not None and one.partition is not None
    )
    if not made:
        where = "" if chosen is None else f" of {printable_line(chosen, 100)}"
        raise MissingDataError(
            f"No partition{where} of `{asset}` was ever materialized.",
            remedy=f"headwater materialize {asset} --all-partitions",
        )
    if not stored:
        raise _stores_nothing(asset)
    tables = all(one.pointer.format == "parquet" for one in stored)
    context = PartitionsInputContext(
        asset_key=asset,
        partitions=stored,
        annotation="pl.LazyFrame" if as_type is None and tables and definitions is None else as_type,
        columns=columns,
    )
    if definitions is None:
        from headwater.io.file_manager import FileIOManager

        files = FileIOManager()
        files.bind(instance.artifacts)
        return files.load_partitions(context)
    return IOManagers(definitions, None, instance.artifacts).for_output(asset).load_partitions(context)


def _stores_nothing(asset: AssetKey) -> MissingDataError:
    return MissingDataError(
        f"`{asset}` stores nothing: its function writes what it makes by itself.",
        remedy="Read it where the function puts it; `headwater show` prints the metadata.",
    )


def _find_version(instance: Instance, asset: AssetKey, partition: str | None, version: str | None) -> Materialization:
    if version is None:
        found = instance.catalog.current(asset, partition)
        if found is None:
            known = instance.catalog.latest()
            if asset in instance.catalog.definitions():
                cell = Cell(asset, partition)
                where = "" if partition is None else f" --partition {shlex.quote(printable_line(partition, 100))}"
                raise MissingDataError(
                    f"`{printable_line(str(cell), 200)}` was never materialized.",
                    remedy=f"headwater materialize {asset}{where}",
                )
            raise UnknownAssetError(asset, known)
        return found
    matching = [
        m
        for m in instance.catalog.materializations(asset, partition, limit=100_000)
        if m.version_id.startswith(version)
    ]
    if len(matching) != 1:
        raise MissingDataError(
            f"`{asset}` has {len(matching) or 'no'} version{'s' if matching else ''} starting with '{version}'.",
            remedy=f"`headwater versions {asset}` lists them.",
        )
    return matching[0]
