"""Sources that can be observed: a function that looks at what something else makes, and says what version it has."""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import GeneratorType
from typing import TYPE_CHECKING, Any, cast

from headwater.catalog.definitions.asset import (
    AssetsDefinition,
    OutputDefinition,
    docstring,
    own_key,
    plain_function,
)
from headwater.catalog.definitions.dependencies import texts
from headwater.catalog.definitions.policies import BackfillPolicy
from headwater.catalog.definitions.results import (
    DataVersion,
    DataVersionsByPartition,
    MaterializeResult,
    ObserveResult,
)
from headwater.catalog.definitions.signature import read_signature
from headwater.catalog.definitions.source import SourceLocation
from headwater.catalog.definitions.spec import AssetSpec, one_io_manager, refuse_others, replace_spec
from headwater.catalog.errors import DefinitionError, UserCodeError
from headwater.catalog.keys import CoercibleToAssetKey
from headwater.catalog.metadata import RawMetadata
from headwater.catalog.printable import with_article

if TYPE_CHECKING:
    from headwater.catalog.freshness import FreshnessPolicy
    from headwater.catalog.partitions.definition import PartitionsDefinition

#: Minutes between observations, at least and at most.
MIN_INTERVAL, MAX_INTERVAL = 1, 366 * 24 * 60


@dataclass(frozen=True, slots=True)
class Observation:
    """How a source is observed: `AssetSpec(…, observe=…)`.

    The function gets resources and a context as an asset's does, and returns a `DataVersion`, an `ObserveResult`, or
    `DataVersionsByPartition`. With an interval, rounds of `headwater tick` observe it that often. Raises
    `DefinitionError`.
    """

    function: Callable[..., Any]
    auto_observe_interval_minutes: float | None = None
    required_resource_keys: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        plain_function(self.function, "observable_source_asset")
        every = self.auto_observe_interval_minutes
        if every is not None and (
            not isinstance(cast(object, every), int | float) or not MIN_INTERVAL <= every <= MAX_INTERVAL
        ):
            raise DefinitionError(
                f"auto_observe_interval_minutes is {every!r}.",
                remedy=f"Give minutes, from {MIN_INTERVAL} to {MAX_INTERVAL:,}.",
            )
        keys = self.required_resource_keys
        object.__setattr__(
            self, "required_resource_keys", frozenset(texts(keys, "required_resource_keys") if keys else ())
        )

    @staticmethod
    def of(given: object) -> "Observation":
        """What was given as the way to observe a source: that, or only a function."""
        return given if isinstance(given, Observation) else Observation(cast(Any, given))

    def definition(self, spec: AssetSpec) -> AssetsDefinition:
        """The source as something that is computed, of which nothing is stored: what a run of observations runs."""
        function = plain_function(self.function, "observable_source_asset")
        signature = read_signature(function, {}, spec.source)
        if signature.inputs and any(not item.by_name for item in signature.inputs):
            raise DefinitionError(
                f"{spec.source}: the function that observes `{spec.key}` reads assets.", remedy="It has no inputs."
            )
        return AssetsDefinition(
            name=str(spec.key),
            function=_observing(function, spec),
            # What it sees is its own; which code saw it makes no difference.
            outputs=(
                OutputDefinition(
                    name="result",
                    spec=replace_spec(spec, deps=(), code_version="", observe=None),
                    is_required=spec.partitions_def is None,
                ),
            ),
            inputs=signature.inputs,
            resources=signature.resources,
            resource_classes=signature.resource_classes,
            required_resource_keys=self.required_resource_keys,
            context_parameter=signature.context_parameter,
            backfill_policy=None if spec.partitions_def is None else BackfillPolicy.single_run(),
            stores_nothing=True,
            source=spec.source,
        )


def _observing(function: Callable[..., Any], spec: AssetSpec) -> Callable[..., Any]:
    """A function that gives what `function` saw as results of a step."""

    @functools.wraps(function)
    def observe(**arguments: Any) -> Any:
        seen = function(**arguments)
        given = cast(Iterator[Any], seen) if isinstance(seen, GeneratorType | list | tuple) else iter([seen])
        found = [result for one in given for result in _results(one, spec)]
        if not found:
            raise UserCodeError(f"Observing `{spec.key}` gave nothing.", remedy="Return DataVersion('…').")
        return found[0] if spec.partitions_def is None and len(found) == 1 else _each(found)

    return observe


def _each(results: Sequence[MaterializeResult[Any]]) -> Iterator[MaterializeResult[Any]]:
    yield from results


def _results(seen: object, spec: AssetSpec) -> list[MaterializeResult[Any]]:
    match seen:
        case DataVersion():
            return [MaterializeResult(data_version=seen)]
        case DataVersionsByPartition():
            versions = seen.data_versions_by_partition
            return [MaterializeResult(partition_key=key, data_version=version) for key, version in versions.items()]
        case ObserveResult():
            return [
                MaterializeResult(
                    asset_key=seen.asset_key,
                    metadata=seen.metadata,
                    data_version=seen.data_version,
                    tags=seen.tags,
                    partition_key=seen.partition,
                )
            ]
        case _:
            raise UserCodeError(
                f"Observing `{spec.key}` gave {with_article(type(seen).__name__)}.",
                remedy="Return DataVersion('…'), ObserveResult(data_version='…') or DataVersionsByPartition({…}).",
            )


def observable_source_asset(
    observe_fn: Callable[..., Any] | None = None,
    *,
    name: str | None = None,
    key: CoercibleToAssetKey | None = None,
    key_prefix: str | Sequence[str] | None = None,
    group_name: str | None = None,
    description: str | None = None,
    kinds: Iterable[str] | None = None,
    tags: Mapping[str, str] | None = None,
    owners: Sequence[str] | None = None,
    metadata: RawMetadata | None = None,
    io_manager: Any = None,
    io_manager_key: str | None = None,
    partitions_def: "PartitionsDefinition | None" = None,
    freshness_policy: "FreshnessPolicy | None" = None,
    auto_observe_interval_minutes: float | None = None,
    required_resource_keys: Iterable[str] = (),
    **others: Any,
) -> Any:
    """Declare that a function observes an asset that something else computes; usable as `@observable_source_asset`.

    The function returns a `DataVersion`: what reads the asset becomes stale when that is another one. It returns an
    `ObserveResult` to say more, and of a partitioned asset `DataVersionsByPartition`. `headwater observe` calls it, and
    rounds of `headwater tick` do every `auto_observe_interval_minutes`. The other arguments are those of `asset`.

    Returns an `AssetSpec`. Raises `DefinitionError`.
    """
    own = [name for name in observable_source_asset.__annotations__ if name not in ("others", "return")]
    refuse_others(others, own, "@observable_source_asset")

    def define(function: Callable[..., Any]) -> AssetSpec:
        plain = plain_function(function, "observable_source_asset")
        source = SourceLocation.of(plain)
        try:
            observation = Observation(plain, auto_observe_interval_minutes, frozenset(required_resource_keys))
        except DefinitionError as error:
            raise DefinitionError(f"{source}: {error.message}", remedy=error.remedy) from None
        return AssetSpec(
            own_key(key, name, key_prefix, plain.__name__, source),
            description=description if description is not None else docstring(plain),
            metadata=metadata,
            group_name=group_name,
            owners=owners,
            tags=tags,
            kinds=kinds,
            io_manager=one_io_manager(io_manager, io_manager_key),
            partitions_def=partitions_def,
            freshness_policy=freshness_policy,
            observe=observation,
            source=source,
        )

    return define if observe_fn is None else define(observe_fn)
