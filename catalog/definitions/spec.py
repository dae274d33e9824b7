"""What is said of one asset, apart from how it is computed, and the rules for it."""

import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeGuard

from headwater.catalog.definitions.dependencies import AssetDep, mapping, one_definition, read_deps, texts
from headwater.catalog.definitions.source import SourceLocation
from headwater.catalog.errors import DefinitionError, nearest
from headwater.catalog.keys import AssetKey, CoercibleToAssetKey
from headwater.catalog.metadata import RawMetadata

if TYPE_CHECKING:
    from headwater.catalog.definitions.condition import AutomationCondition
    from headwater.catalog.definitions.observation import Observation
    from headwater.catalog.freshness import FreshnessPolicy
    from headwater.catalog.partitions.definition import PartitionsDefinition

DEFAULT_GROUP = "default"
DEFAULT_IO_MANAGER = "io_manager"
#: Characters of a description or an explicit code version.
MAX_TEXT = 64 * 1024

_GROUP = re.compile(r"[A-Za-z0-9_]+(/[A-Za-z0-9_]+)*")
_KIND = re.compile(r"[A-Za-z0-9_.\-]{1,63}")
_TAG_KEY = re.compile(r"([A-Za-z0-9_.\-]{1,63}/)?[A-Za-z0-9_.\-]{1,63}")
_TAG_VALUE = re.compile(r"[A-Za-z0-9_.\-]{0,63}")
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
_TEAM = re.compile(r"team:\S+")


@dataclass(frozen=True, slots=True)
class AssetSpec:
    """What is said of one asset. By itself it stands for an asset that something else computes.

    Raises `DefinitionError` naming the place, the asset and the rule.
    """

    key: AssetKey
    deps: tuple[AssetDep, ...] = ()
    description: str | None = None
    metadata: RawMetadata = field(default_factory=dict[str, Any])
    group_name: str = DEFAULT_GROUP
    #: An explicit code version; None to have the code hashed.
    code_version: str | None = None
    owners: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    kinds: frozenset[str] = frozenset()
    #: An IO manager, or the name of one among the resources.
    io_manager: Any = DEFAULT_IO_MANAGER
    #: What the asset is divided into; None for one that is not.
    partitions_def: "PartitionsDefinition | None" = None
    #: How old its data may become; None for any age.
    freshness_policy: "FreshnessPolicy | None" = None
    #: How to see which version it has, where something else computes it; None where nobody can.
    observe: "Observation | None" = None
    #: When it is built by itself; None for never.
    automation_condition: "AutomationCondition | None" = None
    source: SourceLocation = field(default_factory=SourceLocation.of_caller)

    def __init__(
        self,
        key: CoercibleToAssetKey,
        *,
        deps: Iterable[Any] = (),
        description: str | None = None,
        metadata: RawMetadata | None = None,
        group_name: str | None = None,
        code_version: str | None = None,
        owners: Sequence[str] | None = None,
        tags: Mapping[str, str] | None = None,
        kinds: Iterable[str] | None = None,
        io_manager: Any = None,
        io_manager_key: str | None = None,
        partitions_def: "PartitionsDefinition | None" = None,
        freshness_policy: "FreshnessPolicy | None" = None,
        observe: "Observation | Callable[..., Any] | None" = None,
        automation_condition: "AutomationCondition | None" = None,
        source: SourceLocation | None = None,
    ) -> None:
        put = object.__setattr__
        put(self, "key", AssetKey(key))
        put(self, "source", source or SourceLocation.of_caller())
        try:
            put(self, "deps", read_deps(deps) if deps else ())
            put(self, "description", None if description is None else _text("description", description))
            put(self, "metadata", dict(mapping(metadata, "metadata")) if metadata else {})
            put(self, "group_name", _group(group_name) if group_name else DEFAULT_GROUP)
            put(self, "code_version", None if code_version is None else _text("code_version", code_version))
            put(self, "owners", tuple(map(_owner, texts(owners, "owners"))) if owners else ())
            put(self, "tags", _tags(mapping(tags, "tags")) if tags else {})
            put(self, "kinds", frozenset(map(_kind, texts(kinds, "kinds"))) if kinds else frozenset())
            put(self, "io_manager", one_io_manager(io_manager, io_manager_key) or DEFAULT_IO_MANAGER)
            put(self, "partitions_def", one_definition(partitions_def))
            put(self, "freshness_policy", None if freshness_policy is None else _policy(freshness_policy))
            put(self, "observe", None if observe is None else _observation(observe))
            put(
                self, "automation_condition", None if automation_condition is None else _condition(automation_condition)
            )
        except (DefinitionError, AttributeError, TypeError, ValueError) as error:
            reason = error.message if isinstance(error, DefinitionError) else str(error)
            remedy = error.remedy if isinstance(error, DefinitionError) else "Write mappings as {'name': value}."
            raise DefinitionError(f"{self.source}: asset `{self.key}`: {reason}", remedy=remedy) from None

    def __hash__(self) -> int:
        return hash(self.key)


#: What Dagster calls the spec of an asset that something else computes.
SourceAsset = AssetSpec


@dataclass(frozen=True, slots=True)
class AssetOut:
    """One of the assets that a `@multi_asset` computes; its key is the output's name unless `key` says otherwise."""

    key: AssetKey | None = None
    key_prefix: tuple[str, ...] = ()
    #: False where the function may leave it out; what depends on it is then skipped.
    is_required: bool = True
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def __init__(
        self,
        key: CoercibleToAssetKey | None = None,
        *,
        key_prefix: str | Sequence[str] | None = None,
        is_required: bool = True,
        description: str | None = None,
        metadata: RawMetadata | None = None,
        group_name: str | None = None,
        code_version: str | None = None,
        owners: Sequence[str] | None = None,
        tags: Mapping[str, str] | None = None,
        kinds: Iterable[str] | None = None,
        io_manager: Any = None,
        io_manager_key: str | None = None,
        partitions_def: "PartitionsDefinition | None" = None,
        freshness_policy: "FreshnessPolicy | None" = None,
        automation_condition: "AutomationCondition | None" = None,
    ) -> None:
        if key is not None and key_prefix is not None:
            raise DefinitionError("AssetOut takes key or key_prefix, not both.", remedy="Write the whole key as key=….")
        object.__setattr__(self, "key", None if key is None else AssetKey(key))
        object.__setattr__(self, "key_prefix", () if key_prefix is None else AssetKey(key_prefix).path)
        object.__setattr__(self, "is_required", is_required)
        given = {
            "description": description,
            "metadata": metadata,
            "group_name": group_name,
            "code_version": code_version,
            "owners": owners,
            "tags": tags,
            "kinds": kinds,
            "io_manager": one_io_manager(io_manager, io_manager_key),
            "partitions_def": partitions_def,
            "freshness_policy": freshness_policy,
            "automation_condition": automation_condition,
        }
        object.__setattr__(self, "settings", {k: v for k, v in given.items() if v is not None})

    def spec(self, name: str, **defaults: Any) -> AssetSpec:
        """The spec of this output, called `name`, with `defaults` for what it does not say itself."""
        key = self.key or AssetKey((*self.key_prefix, *AssetKey(name).path))
        return AssetSpec(key, **{**defaults, **self.settings})


def replace_spec(spec: AssetSpec, **changes: Any) -> AssetSpec:
    """A copy of `spec` with some attributes changed."""
    attributes = {name: getattr(spec, name) for name in AssetSpec.__dataclass_fields__}
    return AssetSpec(**{**attributes, **changes})


#: Arguments that Dagster's decorators have and ours do not: nothing may be said with them.
_OF_DAGSTER = frozenset(
    {
        *("auto_materialize_policy", "op_tags"),
        *("check_specs", "config_schema", "resource_defs", "dagster_type"),
        *("legacy_freshness_policy", "non_argument_deps", "internal_asset_deps"),
    }
)


def refuse_others(others: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    """Raise `DefinitionError` for arguments that there are not; those of Dagster's may say nothing."""
    for name, value in others.items():
        if name not in _OF_DAGSTER:
            names = list(known)
            raise DefinitionError(
                f"{SourceLocation.of_caller()}: {where} has no argument `{name}`.",
                remedy=nearest(name, names) or f"Its arguments are {', '.join(names)}.",
            )
        if value is not None and value != {} and value != []:
            raise DefinitionError(
                f"{SourceLocation.of_caller()}: {where} knows the argument `{name}` from Dagster, and does not support "
                "it.",
                remedy="Leave it out.",
            )


def one_io_manager(io_manager: Any, io_manager_key: str | None) -> Any:
    """The IO manager that is meant: an object, the name of a resource, or None."""
    if io_manager is not None and io_manager_key is not None:
        raise DefinitionError(
            "An asset has one IO manager, but io_manager and io_manager_key were both given.", remedy="Keep one."
        )
    return io_manager if io_manager is not None else io_manager_key


def _group(name: object) -> str:
    if _is_text(name) and _GROUP.fullmatch(name):
        return name
    raise DefinitionError(
        f"it has the group {name!r}.",
        remedy="A group name is made of letters, digits and _, in segments joined by /.",
    )


@functools.lru_cache(maxsize=1024)
def _kind(kind: str) -> str:
    if _KIND.fullmatch(kind):
        return kind
    raise DefinitionError(f"it has the kind {kind!r}.", remedy="A kind is 1 to 63 letters, digits, _, - and dots.")


@functools.lru_cache(maxsize=1024)
def _owner(owner: str) -> str:
    if _TEAM.fullmatch(owner) or _EMAIL.fullmatch(owner):
        return owner
    raise DefinitionError(
        f"it has the owner {owner!r}.",
        remedy=f"An owner is an e-mail address or 'team:<name>', such as 'team:{owner}'.",
    )


def _tags(tags: Mapping[Any, Any]) -> dict[str, str]:
    for name, value in tags.items():
        if not _is_text(name) or not _TAG_KEY.fullmatch(name):
            raise DefinitionError(
                f"it has the tag {name!r}.",
                remedy="A tag's name is [prefix/]name, each part 1 to 63 of A-Z a-z 0-9 _ . -",
            )
        if not _is_text(value) or not _TAG_VALUE.fullmatch(value):
            raise DefinitionError(
                f"it has the tag {name}={value!r}.", remedy="A tag's value is 0 to 63 of A-Z a-z 0-9 _ . -"
            )
    return dict(tags)


def _condition(given: object) -> "AutomationCondition":
    from headwater.catalog.definitions.condition import one_condition

    return one_condition(given)


def _policy(given: object) -> "FreshnessPolicy":
    from headwater.catalog.freshness import one_policy

    return one_policy(given)


def _observation(given: object) -> "Observation":
    from headwater.catalog.definitions.observation import Observation

    return Observation.of(given)


def _text(attribute: str, value: object) -> str:
    if not _is_text(value):
        raise DefinitionError(f"its {attribute} is of the type {type(value).__name__}.", remedy="Write it as text.")
    if len(value) > MAX_TEXT or any("\ud800" <= char <= "\udfff" for char in value):
        raise DefinitionError(
            f"its {attribute} cannot be kept.",
            remedy=f"It is up to {MAX_TEXT} characters, and none of them a lone surrogate.",
        )
    return value


def _is_text(value: object) -> TypeGuard[str]:
    return isinstance(value, str)
