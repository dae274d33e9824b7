"""An asset as the graph sees it: plain data, without the function that computes it.

Nodes are made from definitions, kept as JSON in the catalog and as bytes in the definitions cache, so that most
commands need not import the user's code. They are msgspec structs, not dataclasses: there are 10,000 of them, made
ten times faster, and read from bytes without a line of Python each.
"""

import functools
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from headwater.catalog.errors import InvalidKeyError
from headwater.catalog.keys import AssetKey
from headwater.catalog.metadata import MetadataValue
from headwater.catalog.metadata import from_json as metadata_from_json
from headwater.catalog.metadata import to_json as metadata_to_json
from headwater.catalog.records import Fingerprint

if TYPE_CHECKING:
    from headwater.catalog.freshness import FreshnessPolicy
    from headwater.catalog.partitions.definition import PartitionsDefinition
    from headwater.catalog.partitions.mapping import PartitionMapping

#: The part of a fingerprint that only a run's configuration settles: it is not known, and so differs from nothing.
UNBOUND = "unbound:"


class Dependency(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """An edge: what an asset depends on, and how."""

    key: AssetKey
    #: The parameter that receives its value; None where nothing is loaded.
    parameter: str | None = None
    #: The columns that are read; None for all.
    columns: tuple[str, ...] | None = None
    #: Which of its partitions each partition reads, as canonical JSON; None where neither asset is partitioned.
    mapping: str | None = None

    @property
    def partition_mapping(self) -> "PartitionMapping | None":
        """Which of its partitions each partition reads; None where neither asset is partitioned."""
        return None if self.mapping is None else _mapping_of(self.mapping)


@functools.lru_cache(maxsize=1 << 16)
def plain_dependency(key: AssetKey, columns: tuple[str, ...] | None = None, mapping: str | None = None) -> Dependency:
    """A dependency that is not loaded; one object for all who have it."""
    return Dependency(key=key, columns=columns, mapping=mapping)


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
    #: What it is divided into, as canonical JSON; one object for all assets that are divided so.
    partitions: str | None = None
    #: How many of its partitions one step computes; None for all of them in one step.
    batch: int | None = 1
    #: The pool in which its step has to find a place.
    pool: str | None = None
    #: How old its data may become, as canonical JSON; None for any age.
    freshness: str | None = None

    @property
    def freshness_policy(self) -> "FreshnessPolicy | None":
        """How old its data may become; None for any age."""
        return None if self.freshness is None else _policy_of(self.freshness)

    @property
    def partitions_def(self) -> "PartitionsDefinition | None":
        """What it is divided into; None for an unpartitioned asset."""
        return None if self.partitions is None else _definition_of(self.partitions)

    @property
    def parents(self) -> tuple[AssetKey, ...]:
        """The other assets that it depends on: an edge to itself leads from a partition to earlier ones."""
        return tuple(dep.key for dep in self.deps if dep.mapping is None or dep.key != self.key)

    @property
    def external(self) -> bool:
        """Whether something else computes it."""
        return self.step is None

    @property
    def code_version(self) -> str | None:
        """The code version as people see it: without its scheme, where it was given by the user."""
        return self.fingerprint.code.removeprefix("user:") if self.fingerprint else None


def canonical_json(data: Any) -> str:
    """The same text for equal plain data, in every process."""
    return msgspec.json.encode(data, order="deterministic").decode()


@functools.lru_cache(maxsize=1 << 14)
def _definition_of(text: str) -> "PartitionsDefinition":
    from headwater.catalog.partitions.definition import definition_from_json

    return definition_from_json(_parsed(text))


@functools.lru_cache(maxsize=1 << 14)
def _mapping_of(text: str) -> "PartitionMapping":
    from headwater.catalog.partitions.mapping import mapping_from_json

    return mapping_from_json(_parsed(text))


@functools.lru_cache(maxsize=1 << 14)
def _policy_of(text: str) -> "FreshnessPolicy":
    from headwater.catalog.freshness import policy_from_json

    return policy_from_json(_parsed(text))


@functools.lru_cache(maxsize=1 << 14)
def _parsed(text: str) -> Any:
    return msgspec.json.decode(text)


def node_to_json(node: AssetNode) -> dict[str, Any]:
    """Plain JSON data; `node_from_json` reads it back. The catalog's views rely on these names."""
    # Left out where there is none: what was recorded before there was such a thing has not changed.
    more = {"pool": node.pool, "freshness_policy": None if node.freshness is None else _parsed(node.freshness)}
    return {
        "key": str(node.key),
        "group": node.group,
        "description": node.description,
        "kinds": list(node.kinds),
        "owners": list(node.owners),
        "tags": dict(node.tags),
        "metadata": metadata_to_json(node.metadata),
        "deps": list(map(_dependency_to_json, node.deps)),
        "step": node.step,
        "can_subset": node.can_subset,
        "optional": node.optional,
        "code_version": node.code_version,
        "fingerprint": fingerprint_to_json(node.fingerprint) if node.fingerprint else None,
        "io_manager": node.io_manager,
        "stored": node.stored,
        "external": node.external,
        "source": node.source,
        "partitions_def": None if node.partitions is None else _parsed(node.partitions),
        "backfill_policy": None if node.batch == 1 else {"max_partitions_per_run": node.batch},
    } | {name: value for name, value in more.items() if value is not None}


def _dependency_to_json(dep: Dependency) -> dict[str, Any]:
    data: dict[str, Any] = {
        "key": str(dep.key),
        "parameter": dep.parameter,
        "columns": dep.columns and list(dep.columns),
    }
    # Left out where there is none: what was recorded before there were partitions has not changed.
    return data if dep.mapping is None else {**data, "mapping": _parsed(dep.mapping)}


def node_from_json(data: Mapping[str, Any]) -> AssetNode:
    """What `node_to_json` wrote."""
    fingerprint = data["fingerprint"]
    partitions, policy = data.get("partitions_def"), data.get("backfill_policy")
    freshness = data.get("freshness_policy")
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
                mapping=canonical_json(d["mapping"]) if "mapping" in d else None,
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
        partitions=None if partitions is None else canonical_json(partitions),
        batch=1 if policy is None else policy["max_partitions_per_run"],
        pool=data.get("pool"),
        freshness=None if freshness is None else canonical_json(freshness),
    )


def nodes_to_bytes(nodes: Iterable[AssetNode]) -> bytes:
    """Nodes in msgpack, in the order of their fields; `nodes_from_bytes` reads them back."""
    return msgspec.msgpack.encode(list(nodes), enc_hook=str)


def nodes_from_bytes(data: bytes) -> list[AssetNode]:
    """What `nodes_to_bytes` wrote. Raises `ValueError` for anything else."""
    try:
        nodes = msgspec.msgpack.decode(data, type=list[AssetNode], dec_hook=_decode_key)
    except (msgspec.DecodeError, InvalidKeyError) as error:
        raise ValueError(str(error)) from None
    texts: dict[str, str] = {}
    for node in nodes:
        if node.partitions is not None:
            msgspec.structs.force_setattr(node, "partitions", texts.setdefault(node.partitions, node.partitions))
    return nodes


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
        "partitions": fingerprint.partitions,
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
        "partitions",
    }
    if before.get("code") != after.get("code"):
        parts |= {"code_version"}
    return tuple(sorted(parts))
