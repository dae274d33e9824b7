"""What an asset depends on, as users write it."""

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from headwater.catalog.definitions.source import SourceLocation
from headwater.catalog.definitions.values import exact_type
from headwater.catalog.errors import DefinitionError
from headwater.catalog.keys import AssetKey, CoercibleToAssetKey
from headwater.catalog.printable import printable_line

if TYPE_CHECKING:
    from headwater.catalog.partitions.definition import PartitionsDefinition
    from headwater.catalog.partitions.mapping import PartitionMapping


@dataclass(frozen=True, slots=True)
class AssetDep:
    """A dependency whose value is not loaded: order and lineage only.

    `asset` is a key, a definition or a spec. `columns` names the columns that are read from it, where that is
    known: changes in others do not matter then. `partition_mapping` says which of its partitions each partition reads,
    where that is not what `infer_mapping` finds.
    """

    asset: AssetKey
    columns: tuple[str, ...] | None = None
    partition_mapping: "PartitionMapping | None" = None

    def __init__(
        self, asset: Any, *, columns: Iterable[str] | None = None, partition_mapping: "PartitionMapping | None" = None
    ) -> None:
        object.__setattr__(self, "asset", key_of(asset))
        object.__setattr__(self, "columns", None if columns is None else texts(columns, "AssetDep's columns"))
        object.__setattr__(self, "partition_mapping", one_mapping(partition_mapping, f"AssetDep of `{self.asset}`"))


@dataclass(frozen=True, slots=True)
class PartitionColumns:
    """The columns that tell, in a frame of several partitions, which partition a row is of."""

    #: The column of each dimension, by the dimension's name; empty where every dimension gets one of its name.
    by_dimension: Mapping[str, str] = field(default_factory=dict[str, str])
    #: The column of the only dimension, where it was named without saying of which dimension.
    single: str | None = None

    @staticmethod
    def read(given: Any) -> "PartitionColumns | None":
        """What users write: True, a column's name, the names of dimensions, or columns by dimension."""
        if given is None or given is False:
            return None
        if given is True:
            return PartitionColumns()
        if isinstance(given, str):
            return PartitionColumns(single=given)
        if isinstance(given, Mapping):
            names = cast(Mapping[Any, Any], given)
            return PartitionColumns(
                dict(zip(texts(names, _COLUMNS_WHAT), texts(names.values(), _COLUMNS_WHAT), strict=True))
            )
        names = texts(given, _COLUMNS_WHAT)
        return (
            PartitionColumns(single=names[0]) if len(names) == 1 else PartitionColumns({name: name for name in names})
        )

    def of(self, definition: "PartitionsDefinition | None") -> Mapping[str, str | None]:
        """The dimension that each column tells of, None for the whole key. Raises `DefinitionError`."""
        from headwater.catalog.partitions.multi import MultiPartitionsDefinition

        if definition is None:
            raise DefinitionError("it has no partitions", remedy="Leave out partition_columns.")
        if not isinstance(definition, MultiPartitionsDefinition):
            if self.by_dimension:
                raise DefinitionError(
                    f"it has one dimension, and partition_columns names {len(self.by_dimension)}",
                    remedy="Write partition_columns='…', the name of the column.",
                )
            return {self.single or "partition": None}
        if self.single is None and not self.by_dimension:
            return {name: name for name in definition.dimensions}
        columns = {self.single: self.single} if self.single is not None else self.by_dimension
        unknown = [name for name in columns if name not in definition.dimensions]
        if unknown:
            raise DefinitionError(
                f"it has no dimension '{printable_line(unknown[0], 60)}'",
                remedy=f"Its dimensions are {', '.join(definition.dimensions)}; another name for a column is written "
                "partition_columns={'dimension': 'column'}.",
            )
        if len(set(columns.values())) < len(columns):
            raise DefinitionError("two of its dimensions would be one column", remedy="Name each column once.")
        return {columns[name]: name for name in definition.dimensions if name in columns}

    def values(self, definition: "PartitionsDefinition", keys: Sequence[str]) -> Mapping[str, Sequence[str]]:
        """What each column holds for each of the partitions `keys`."""
        from headwater.catalog.partitions.multi import MultiPartitionsDefinition

        if not isinstance(definition, MultiPartitionsDefinition):
            return dict.fromkeys(self.of(definition), keys)
        parts = [definition.key(key).keys_by_dimension for key in keys]
        return {column: [part[str(name)] for part in parts] for column, name in self.of(definition).items()}


_COLUMNS_WHAT = "AssetIn's partition_columns"


@dataclass(frozen=True, slots=True)
class AssetIn:
    """How a parameter is filled: from which asset, which columns and partitions of it, by which IO manager.

    `partition_mapping` says which partitions each partition reads, where that is not what `infer_mapping` finds. With
    `partition_columns`, a frame of several partitions has a text column more for each dimension, called like it
    (`partition` where there is only one); or only those that are named, or by the names that
    `{"dimension": "column"}` gives.
    """

    key: AssetKey | None = None
    key_prefix: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])
    #: The columns to load; None for all. A change in another column does not make the reader stale.
    columns: tuple[str, ...] | None = None
    input_manager_key: str | None = None
    partition_mapping: "PartitionMapping | None" = None
    partition_columns: PartitionColumns | None = None

    def __init__(
        self,
        key: Any = None,
        *,
        key_prefix: str | Sequence[str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        columns: Iterable[str] | None = None,
        input_manager_key: str | None = None,
        partition_mapping: "PartitionMapping | None" = None,
        partition_columns: bool | str | Iterable[str] | Mapping[str, str] | None = None,
    ) -> None:
        if key is not None and key_prefix is not None:
            raise DefinitionError("AssetIn takes key or key_prefix, not both.", remedy="Write the whole key as key=….")
        object.__setattr__(self, "key", None if key is None else key_of(key))
        object.__setattr__(self, "key_prefix", () if key_prefix is None else AssetKey(key_prefix).path)
        object.__setattr__(self, "metadata", dict(mapping(metadata, "AssetIn's metadata")) if metadata else {})
        object.__setattr__(self, "columns", None if columns is None else texts(columns, "AssetIn's columns"))
        object.__setattr__(self, "input_manager_key", input_manager_key)
        object.__setattr__(self, "partition_mapping", one_mapping(partition_mapping, "AssetIn"))
        object.__setattr__(self, "partition_columns", PartitionColumns.read(partition_columns))


def key_of(asset: Any) -> AssetKey:
    """The key that users mean by a key, a string, a spec or a definition of one asset. Raises `DefinitionError`."""
    if isinstance(asset, str | Sequence):
        return AssetKey(cast(CoercibleToAssetKey, asset))
    if isinstance(asset, AssetDep):
        return asset.asset
    key = getattr(asset, "key", None)
    if not isinstance(key, AssetKey):
        raise DefinitionError(
            f"A thing of the type {type(asset).__name__} is no asset.",
            remedy="Name an asset by its key, or by what @asset made of its function.",
        )
    return key


def read_deps(deps: Iterable[Any]) -> tuple[AssetDep, ...]:
    """What users write as `deps`, each asset once; a definition of several assets stands for all of them."""
    if isinstance(deps, str):
        raise DefinitionError("deps is a list of assets, not text.", remedy=f"Write deps=[{deps!r}].")
    if not isinstance(cast(object, deps), Iterable):
        raise DefinitionError(f"deps is a list of assets, not {type(deps).__name__}.", remedy="Write it as a list.")
    found: dict[AssetKey, AssetDep] = {}
    for dep in deps:
        keys = getattr(dep, "keys", None)
        if isinstance(keys, tuple):  # an AssetsDefinition
            for key in cast(tuple[AssetKey, ...], keys):
                found.setdefault(key, _plain_dep(key))
            continue
        one = _plain_dep(dep) if type(dep) is str else dep if isinstance(dep, AssetDep) else AssetDep(dep)
        known = found.setdefault(one.asset, one)
        if known is not one:
            found[one.asset] = AssetDep(
                one.asset,
                columns=merge_columns(known.columns, one.columns),
                partition_mapping=merge_mappings(one.asset, known.partition_mapping, one.partition_mapping),
            )
    return tuple(found.values())


@functools.lru_cache(maxsize=1 << 16)
def _plain_dep(key: str) -> AssetDep:
    """One object a key: a graph of 10,000 assets has 30,000 dependencies."""
    return AssetDep(key)


def merge_columns(one: tuple[str, ...] | None, other: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """The columns that one or the other means, where None means all."""
    return None if one is None or other is None else tuple(dict.fromkeys((*one, *other)))


def merge_mappings(
    asset: AssetKey, one: "PartitionMapping | None", other: "PartitionMapping | None"
) -> "PartitionMapping | None":
    """The one that is given, as an asset is read through one mapping. Raises `DefinitionError` for two."""
    if one is not None and other is not None and one != other:
        raise DefinitionError(
            f"it reads `{asset}` through two mappings, {type(one).__name__} and {type(other).__name__}.",
            remedy="Give one mapping that reads all that is needed, and annotate the parameter dict[str, …] to tell "
            "the partitions apart.",
        )
    return one if one is not None else other


def one_mapping(given: Any, what: str) -> "PartitionMapping | None":
    """The mapping that a user gave for `what`. Raises `DefinitionError` for anything else."""
    if given is None:
        return None
    from headwater.catalog.partitions.mapping import PartitionMapping

    if isinstance(given, PartitionMapping):
        return given
    raise DefinitionError(
        f"{SourceLocation.of_caller()}: the partition_mapping of {what} is of the type {exact_type(given).__name__}.",
        remedy="Use a mapping such as TimeWindowPartitionMapping().",
    )


def one_definition(given: Any) -> "PartitionsDefinition | None":
    """The partitions definition that a user gave. Raises `DefinitionError` for anything else."""
    if given is None:
        return None
    from headwater.catalog.partitions.definition import PartitionsDefinition

    if isinstance(given, PartitionsDefinition):
        return given
    raise DefinitionError(
        f"the partitions_def is of the type {exact_type(given).__name__}.",
        remedy="Use a definition such as DailyPartitionsDefinition(start_date='2013-01-01').",
    )


def mapping(values: Any, what: str) -> Mapping[Any, Any]:
    """A mapping that a user wrote. Raises `DefinitionError` for anything else."""
    if isinstance(values, Mapping):
        return cast(Mapping[Any, Any], values)
    raise DefinitionError(
        f"{what} is a mapping of names to values, not {type(values).__name__}.", remedy="Write it as {'name': value}."
    )


def texts(values: Any, what: str) -> tuple[str, ...]:
    """A list of texts that a user wrote, as a tuple. Raises `DefinitionError` for a single text or other things."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise DefinitionError(
            f"{what} is a list of texts, not {type(values).__name__}.",
            remedy=f"Write [{values!r}]." if isinstance(values, str) else "Write it as a list.",
        )
    listed = tuple(cast(Iterable[Any], values))
    for value in listed:
        if not isinstance(value, str):
            raise DefinitionError(
                f"{what} holds a thing of the type {type(value).__name__} where there should be text.",
                remedy="Write texts.",
            )
    return listed
