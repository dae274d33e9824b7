"""What asset functions may return or yield besides a plain value."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from headwater.catalog.errors import UserCodeError
from headwater.catalog.keys import AssetKey, CoercibleToAssetKey
from headwater.catalog.printable import printable_line

T = TypeVar("T")

#: Characters of a data version or a tag.
MAX_TEXT = 1024


class NoValue:
    """The type of the one value that means that there is none, as None is a value."""

    def __repr__(self) -> str:
        return "<no value>"


NO_VALUE = NoValue()


@dataclass(frozen=True, slots=True, kw_only=True)
class DataVersion:
    """A version of an asset's content that the user vouches for."""

    value: str

    def __init__(self, value: str) -> None:
        object.__setattr__(self, "value", _text(value, "data version"))


class Output(Generic[T]):
    """A value with metadata; in a `@multi_asset`, the one of the output called `output_name`.

    `partition_key` is needed where a step computes several partitions.
    """

    __slots__ = ("data_version", "metadata", "output_name", "partition_key", "tags", "value")

    def __init__(
        self,
        value: T,
        output_name: str = "result",
        metadata: Mapping[str, Any] | None = None,
        data_version: DataVersion | str | None = None,
        tags: Mapping[str, str] | None = None,
        partition_key: str | None = None,
    ) -> None:
        self.value = value
        self.output_name = output_name
        self.partition_key = partition_text(partition_key)
        self.metadata = entries(metadata, "An Output's metadata")
        self.data_version = _version_text(data_version)
        self.tags = _tags(tags)


class MaterializeResult(Generic[T]):
    """Says that an asset was materialized, with metadata.

    Without a `value` nothing is stored: the function wrote its data itself, and a downstream asset lists it in
    `deps`. With one, the IO manager stores it. `asset_key` is needed where a step makes several assets, and
    `partition_key` where it computes several partitions.
    """

    __slots__ = ("asset_key", "data_version", "metadata", "partition_key", "tags", "value")

    def __init__(
        self,
        *,
        asset_key: CoercibleToAssetKey | None = None,
        metadata: Mapping[str, Any] | None = None,
        data_version: DataVersion | str | None = None,
        tags: Mapping[str, str] | None = None,
        value: T | NoValue = NO_VALUE,
        partition_key: str | None = None,
    ) -> None:
        self.asset_key = None if asset_key is None else AssetKey(asset_key)
        self.partition_key = partition_text(partition_key)
        self.metadata = entries(metadata, "A MaterializeResult's metadata")
        self.data_version = _version_text(data_version)
        self.tags = _tags(tags)
        self.value = value


@dataclass(frozen=True, slots=True, init=False)
class DataVersionsByPartition:
    """What the function of an observable source returns of a partitioned one: the data version of each partition.

    Partitions that are left out stay as they are.
    """

    data_versions_by_partition: Mapping[str, str]

    def __init__(self, data_versions_by_partition: Mapping[str, DataVersion | str]) -> None:
        given = entries(data_versions_by_partition, "DataVersionsByPartition")
        versions = {partition_text(key) or "": _version_text(version) or "" for key, version in given.items()}
        object.__setattr__(self, "data_versions_by_partition", versions)


@dataclass(frozen=True, slots=True, init=False)
class _About:
    """An asset, or one of its partitions, and what somebody says of it."""

    asset_key: AssetKey | None
    partition: str | None
    metadata: Mapping[str, Any]
    data_version: str | None
    tags: Mapping[str, str]

    def _set(
        self,
        asset_key: CoercibleToAssetKey | None,
        partition: str | None,
        metadata: Mapping[str, Any] | None,
        data_version: DataVersion | str | None,
        tags: Mapping[str, str] | None,
    ) -> None:
        values = {
            "asset_key": None if asset_key is None else AssetKey(asset_key),
            "partition": partition_text(partition),
            "metadata": entries(metadata, f"The metadata of an {type(self).__name__}"),
            "data_version": _version_text(data_version),
            "tags": _tags(tags),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)


class ObserveResult(_About):
    """What the function of an observable source saw: which data version there is, with metadata.

    `asset_key` is needed where a function observes several assets, `partition_key` where the asset has partitions.
    """

    __slots__ = ()

    def __init__(
        self,
        *,
        asset_key: CoercibleToAssetKey | None = None,
        metadata: Mapping[str, Any] | None = None,
        data_version: DataVersion | str | None = None,
        tags: Mapping[str, str] | None = None,
        partition_key: str | None = None,
    ) -> None:
        self._set(asset_key, partition_key, metadata, data_version, tags)


class AssetMaterialization(_About):
    """Says that an asset, or one of its partitions, was made elsewhere: what `headwater.report` records.

    Without a `data_version`, every report counts as different data.
    """

    __slots__ = ()

    def __init__(
        self,
        asset_key: CoercibleToAssetKey,
        *,
        partition: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        data_version: DataVersion | str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        self._set(asset_key, partition, metadata, data_version, tags)


class AssetObservation(_About):
    """Says which data version of a source somebody saw elsewhere: what `headwater.report` records if it is another."""

    __slots__ = ()

    def __init__(
        self,
        asset_key: CoercibleToAssetKey,
        *,
        data_version: DataVersion | str,
        partition: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        self._set(asset_key, partition, metadata, data_version, tags)


def partition_text(key: object) -> str | None:
    """The partition key that user code gave. Raises `UserCodeError` for what is no text."""
    if key is None or isinstance(key, str):
        return key
    raise UserCodeError(
        f"A partition_key is text, not {type(key).__name__}.",
        remedy="Give one of context.partition_keys; for several dimensions MultiPartitionKey({'dimension': 'value'}).",
    )


def entries(given: object, what: str) -> dict[str, Any]:
    """A copy of the mapping that user code gave, empty for None. Raises `UserCodeError` for anything else."""
    if given is None or isinstance(given, Mapping):
        return dict(cast(Mapping[str, Any], given or {}))
    raise UserCodeError(
        f"{what} is a mapping of labels to values, not {type(given).__name__}.", remedy="Write it as {'label': value}."
    )


def _version_text(version: DataVersion | str | None) -> str | None:
    if version is None or isinstance(version, DataVersion):
        return version and version.value
    return _text(version, "data version")


def _tags(tags: Mapping[str, str] | None) -> dict[str, str]:
    return {
        _text(name, "tag's name"): _text(value, "tag's value")
        for name, value in entries(tags, "A tags argument").items()
    }


def _text(value: object, what: str) -> str:
    """`value` itself, where it is text that can be kept."""
    if not isinstance(value, str):
        raise UserCodeError(f"A {what} is text, not {type(value).__name__}.", remedy="Convert it with str().")
    if len(value) > MAX_TEXT or any("\ud800" <= char <= "\udfff" for char in value):
        raise UserCodeError(
            f"The {what} '{printable_line(value, 80)}' cannot be kept.",
            remedy=f"It is up to {MAX_TEXT} characters, and none of them a lone surrogate.",
        )
    return str(value)
