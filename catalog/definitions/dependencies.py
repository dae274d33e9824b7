"""What an asset depends on, as users write it."""

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from headwater.catalog.errors import DefinitionError
from headwater.catalog.keys import AssetKey, CoercibleToAssetKey


@dataclass(frozen=True, slots=True)
class AssetDep:
    """A dependency whose value is not loaded: order and lineage only.

    `asset` is a key, a definition or a spec. `columns` names the columns that are read from it, where that is
    known: changes in others do not matter then.
    """

    asset: AssetKey
    columns: tuple[str, ...] | None = None

    def __init__(self, asset: Any, *, columns: Iterable[str] | None = None) -> None:
        object.__setattr__(self, "asset", key_of(asset))
        object.__setattr__(self, "columns", None if columns is None else texts(columns, "AssetDep's columns"))


@dataclass(frozen=True, slots=True)
class AssetIn:
    """How a parameter is filled: from which asset, which columns of it, by which IO manager."""

    key: AssetKey | None = None
    key_prefix: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])
    #: The columns to load; None for all. A change in another column does not make the reader stale.
    columns: tuple[str, ...] | None = None
    input_manager_key: str | None = None

    def __init__(
        self,
        key: Any = None,
        *,
        key_prefix: str | Sequence[str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        columns: Iterable[str] | None = None,
        input_manager_key: str | None = None,
    ) -> None:
        if key is not None and key_prefix is not None:
            raise DefinitionError("AssetIn takes key or key_prefix, not both.", remedy="Write the whole key as key=….")
        object.__setattr__(self, "key", None if key is None else key_of(key))
        object.__setattr__(self, "key_prefix", () if key_prefix is None else AssetKey(key_prefix).path)
        object.__setattr__(self, "metadata", dict(mapping(metadata, "AssetIn's metadata")) if metadata else {})
        object.__setattr__(self, "columns", None if columns is None else texts(columns, "AssetIn's columns"))
        object.__setattr__(self, "input_manager_key", input_manager_key)


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
            found[one.asset] = AssetDep(one.asset, columns=merge_columns(known.columns, one.columns))
    return tuple(found.values())


@functools.lru_cache(maxsize=1 << 16)
def _plain_dep(key: str) -> AssetDep:
    """One object a key: a graph of 10,000 assets has 30,000 dependencies."""
    return AssetDep(key)


def merge_columns(one: tuple[str, ...] | None, other: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """The columns that one or the other means, where None means all."""
    return None if one is None or other is None else tuple(dict.fromkeys((*one, *other)))


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
