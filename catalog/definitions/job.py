"""Jobs: selections of assets with a name, and how they are run."""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeVar, cast

from headwater.catalog.definitions.hooks import HookDefinition, all_hooks
from headwater.catalog.definitions.selection import AssetSelection, coerce_selection
from headwater.catalog.definitions.source import SourceLocation
from headwater.catalog.errors import DefinitionError, HeadwaterError
from headwater.catalog.keys import AssetKey
from headwater.catalog.lineage.asset_graph import AssetGraph

if TYPE_CHECKING:
    from headwater.catalog.partitions.definition import PartitionsDefinition

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobDefinition:
    """Assets that are built together, under a name. `define_asset_job` makes one."""

    name: str
    selection: AssetSelection
    description: str = ""
    config: Mapping[str, Any] = field(default_factory=dict[str, Any])
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    executor: str | None = None
    #: What its partitioned assets are divided into, where that is said.
    partitions_def: "PartitionsDefinition | None" = None
    hooks: frozenset[HookDefinition] = frozenset()
    source: SourceLocation

    def partitions(self, graph: AssetGraph) -> "PartitionsDefinition | None":
        """What its assets are divided into: what it says, or else what all of the partitioned ones are."""
        if self.partitions_def is not None:
            return self.partitions_def
        nodes = [graph[key] for key in self.selection.resolve(graph, _NothingKnown())]
        found = {node.partitions: node.partitions_def for node in nodes if node.partitions is not None}
        return next(iter(found.values())) if len(found) == 1 else None

    def check(self, graph: AssetGraph) -> None:
        """Raise `DefinitionError` where it cannot be a job over `graph`."""
        facts = _NothingKnown()
        try:
            keys = self.selection.resolve(graph, facts)
        except HeadwaterError as error:
            raise DefinitionError(
                f"{self.source}: the job `{self.name}`: {error.message}", remedy=error.remedy
            ) from None
        if not facts.asked and all(graph[key].external for key in keys):
            raise DefinitionError(
                f"{self.source}: the job `{self.name}` selects no asset that can be built, by '{self.selection}'.",
                remedy="`headwater ls SELECTION` shows what a selection means.",
            )
        own = self.partitions_def
        if own is None:
            return
        for node in sorted((graph[key] for key in keys), key=lambda node: node.key):
            if node.partitions is not None and node.partitions_def != own:
                raise DefinitionError(
                    f"{self.source}: the job `{self.name}` has the partitions {own.describe()}, and its asset "
                    f"`{node.key}` has {node.partitions_def.describe() if node.partitions_def else 'none'}.",
                    remedy="Leave out partitions_def: a run may build assets that are divided in different ways.",
                )


@dataclass(slots=True)
class _NothingKnown:
    """Facts as they are of an empty catalog; notes whether anybody asked."""

    asked: bool = False

    def statuses(self) -> Mapping[AssetKey, str]:
        self.asked = True
        return {}

    def failed(self) -> Collection[AssetKey]:
        self.asked = True
        return ()

    def columns(self) -> Mapping[AssetKey, Collection[str]]:
        self.asked = True
        return {}

    states = statuses


def define_asset_job(
    name: str,
    selection: Any = "*",
    *,
    description: str = "",
    config: Mapping[str, Any] | None = None,
    tags: Mapping[str, str] | None = None,
    executor: str | None = None,
    partitions_def: "PartitionsDefinition | None" = None,
    hooks: Iterable[HookDefinition] = (),
) -> JobDefinition:
    """Name a selection of assets, to be launched by that name, also by schedules and sensors.

    `selection` is a string in the grammar, assets, an `AssetSelection`, or a list of these. A run of the job builds
    those of them that depend on nothing that Headwater computes, as what they read may have changed, and of the others
    what is stale then; nothing else. `config` is a run's configuration, `{"ops": {…}}`; what a run is given comes
    before it. `executor` is "in_process", "threads" or "processes". `hooks` are called besides those of the project.

    `Definitions(jobs=[…])` takes it. Raises `DefinitionError`.
    """
    source = SourceLocation.of_caller()
    place = f"{source}: the job `{name}`"
    try:
        chosen = coerce_selection(selection)
    except HeadwaterError as error:
        raise DefinitionError(f"{place}: {error.message}", remedy=error.remedy) from None
    return JobDefinition(
        name=check_name(name, "job", source),
        selection=chosen,
        description=description,
        config=check_mapping(config, "config", place),
        tags=check_tags(tags, place),
        executor=executor,
        partitions_def=partitions_def,
        hooks=all_hooks(hooks, place),
        source=source,
    )


def check_name(name: object, what: str, source: SourceLocation) -> str:
    """A name for something that is called by it. Raises `DefinitionError`."""
    if not isinstance(name, str) or not _NAME.fullmatch(name) or len(name) > 255:
        raise DefinitionError(
            f"{source}: a {what} cannot be called {name!r:.80}.",
            remedy="Names are letters, digits, '_', '-' and '.', 255 at most.",
        )
    return name


def check_tags(tags: object, place: str) -> dict[str, str]:
    """Tags of runs, values as texts. Raises `DefinitionError`."""
    given = check_mapping(tags, "tags", place)
    for key, value in given.items():
        if not isinstance(value, str | int | float):
            raise DefinitionError(f"{place} has the tag {key!r} with a {type(value).__name__}.", remedy="Give a text.")
    return {str(key): str(value) for key, value in given.items()}


def check_mapping(given: object, what: str, place: str) -> dict[str, Any]:
    """A copy of a mapping, empty for None. Raises `DefinitionError`."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise DefinitionError(f"{place} has {what} that are a {type(given).__name__}.", remedy="Give a mapping.")
    return dict(cast(Mapping[str, Any], given))


Kind = TypeVar("Kind", bound=StrEnum)


def one_of(kind: type[Kind], value: object, what: str) -> Kind:
    """A member of an enumeration, given itself or as text. Raises `DefinitionError`."""
    try:
        return kind(getattr(value, "value", value))
    except ValueError:
        raise DefinitionError(f"{what} is {value!r}.", remedy=f"It is one of {', '.join(kind)}.") from None


Named = TypeVar("Named")


def named(given: object, kind: type[Named], what: str, how: str) -> dict[str, Named]:
    """Definitions by their names. Raises `DefinitionError` where two are called the same, and for anything else."""
    if not isinstance(given, Iterable) or isinstance(given, str):
        raise DefinitionError(
            f"{SourceLocation.of_caller()}: {what}s is a list, not a {type(given).__name__}.", remedy=f"Write [{how}]."
        )
    found: dict[str, Any] = {}
    for one in cast(Iterable[Any], given):
        if not isinstance(one, kind):
            raise DefinitionError(
                f"{SourceLocation.of_caller()}: Definitions({what}s=…) holds a {type(one).__name__}.",
                remedy=f"It takes what {how} gives.",
            )
        other = found.setdefault(cast(Any, one).name, one)
        if other is not one:
            raise DefinitionError(
                f"Two {what}s are called `{other.name}`: {other.source} and {cast(Any, one).source}.",
                remedy="Rename one of them.",
            )
    return found
