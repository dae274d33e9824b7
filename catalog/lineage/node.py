"""An asset as the graph sees it: plain data, without the function that computes it.

Nodes are made from definitions, kept as JSON in the catalog and as bytes in the definitions cache, so that most
commands need not import the user's code. They are msgspec structs, not dataclasses: there are 10,000 of them, made
ten times faster, and read from bytes without a line of Python each.
"""

import functools
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from headwater.catalog.errors import InvalidKeyError
from headwater.catalog.keys import AssetKey
from headwater.catalog.metadata import MetadataValue
from headwater.catalog.metadata import from_json as metadata_from_json
from headwater.catalog.metadata import to_json as metadata_to_json
from headwater.catalog.records import Fingerprint

#: The part of a fingerprint that only a run's configuration settles: it is not known, and so differs from nothing.
UNBOUND = "unbound:"


class Dependency(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """An edge: what an asset depends on, and how."""

    key: AssetKey
    #: The parameter that receives its value; None where nothing is loaded.
    parameter: str | None = None
    #: The columns that are read; None for all.
    columns: tuple[str, ...] | None = None


@functools.lru_cache(maxsize=1 << 16)
def plain_dependency(key: AssetKey, columns: tuple[str, ...] | None = None) -> Dependency:
    """A dependency that is not loaded; one object for all who have it."""
    return Dependency(key=key, columns=columns)


class AssetNode(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """One asset of the graph."""

    key: AssetKey
    group: str = "default"
    description: str | None = None
    kinds: tuple[str, ...] = ()
    owners: tuple[str, ...] = ()
    tags: Mapping[str, str] = msgspec.field(default_factory=dict[str, str])
    metadata: Mapping[str, MetadataValue] = msgspec.field(default_factory=dict[str, MetadataValue])
    #: What it depends on, each asset once.
    deps: tuple[Dependency, ...] = ()
    #: The step that computes it; None for an external asset, which something else computes.
    step: str | None = None
    #: Whether its step can compute it without its other assets.
    can_subset: bool = True
    #: Whether its step may end without having made it.
    optional: bool = False
    #: What decides its data, with the configuration that a run gets by default; None for an external asset.
    fingerprint: Fingerprint | None = None
    #: The name of its IO manager.
    io_manager: str = "io_manager"
    #: False where the function stores what it makes by itself.
    stored: bool = True
    #: Where it is defined, as `file:line`.
    source: str = ""

    @property
    def external(self) -> bool:
        """Whether something else computes it."""
        return self.step is None

    @property
    def code_version(self) -> str | None:
        """The code version as people see it: without its scheme, where it was given by the user."""
        return self.fingerprint.code.removeprefix("user:") if self.fingerprint else None


def node_to_json(node: AssetNode) -> dict[str, Any]:
    """Plain JSON data; `node_from_json` reads it back. The catalog's views rely on these names."""
    return {
        "key": str(node.key),
        "group": node.group,
        "description": node.description,
        "kinds": list(node.kinds),
        "owners": list(node.owners),
        "tags": dict(node.tags),
        "metadata": metadata_to_json(node.metadata),
        "deps": [
            {"key": str(d.key), "parameter": d.parameter, "columns": d.columns and list(d.columns)} for d in node.deps
        ],
        "step": node.step,
        "can_subset": node.can_subset,
        "optional": node.optional,
        "code_version": node.code_version,
        "fingerprint": fingerprint_to_json(node.fingerprint) if node.fingerprint else None,
        "io_manager": node.io_manager,
        "stored": node.stored,
        "external": node.external,
        "source": node.source,
    }


def node_from_json(data: Mapping[str, Any]) -> AssetNode:
    """What `node_to_json` wrote."""
    fingerprint = data["fingerprint"]
    return AssetNode(
        key=AssetKey(data["key"]),
        group=data["group"],
        description=data["description"],
        kinds=tuple(data["kinds"]),
        owners=tuple(data["owners"]),
        tags=data["tags"],
        metadata=metadata_from_json(data["metadata"]),
        deps=tuple(
            Dependency(
                key=AssetKey(d["key"]),
                parameter=d["parameter"],
                columns=None if d["columns"] is None else tuple(d["columns"]),
            )
            for d in data["deps"]
        ),
        step=data["step"],
        can_subset=data["can_subset"],
        optional=data["optional"],
        fingerprint=Fingerprint(**fingerprint) if fingerprint else None,
        io_manager=data["io_manager"],
        stored=data["stored"],
        source=data["source"],
    )


def nodes_to_bytes(nodes: Iterable[AssetNode]) -> bytes:
    """Nodes in msgpack, in the order of their fields; `nodes_from_bytes` reads them back."""
    return msgspec.msgpack.encode(list(nodes), enc_hook=str)


def nodes_from_bytes(data: bytes) -> list[AssetNode]:
    """What `nodes_to_bytes` wrote. Raises `ValueError` for anything else."""
    try:
        return msgspec.msgpack.decode(data, type=list[AssetNode], dec_hook=_decode_key)
    except (msgspec.DecodeError, InvalidKeyError) as error:
        raise ValueError(str(error)) from None


def _decode_key(_: type, text: Any) -> AssetKey:
    return AssetKey(text)


def fingerprint_to_json(fingerprint: Fingerprint) -> dict[str, str]:
    """Its parts by name."""
    return {
        "code": fingerprint.code,
        "definition": fingerprint.definition,
        "config": fingerprint.config,
        "resources": fingerprint.resources,
        "io": fingerprint.io,
    }


#: What of a node may differ without its definition having changed.
_IRRELEVANT = frozenset({"source", "fingerprint", "key", "external"})


def changed_parts(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of what differs between two nodes as JSON, the parts of the fingerprint by their own names."""
    parts = {name for name in old.keys() | new.keys() if name not in _IRRELEVANT and old.get(name) != new.get(name)}
    before: dict[str, Any] = old.get("fingerprint") or {}
    after: dict[str, Any] = new.get("fingerprint") or {}
    parts |= {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)} - {
        "code",
        "definition",
    }
    if before.get("code") != after.get("code"):
        parts |= {"code_version"}
    return tuple(sorted(parts))
