"""`Definitions`: everything that a project defines, checked as a whole when it is loaded."""

import copy
import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar, cast

from headwater.catalog.config import EnvVar, bind_config, config_references, describe_config
from headwater.catalog.definitions.alerts import AlertPolicy, check_alerts
from headwater.catalog.definitions.asset import AssetsDefinition, move_spec
from headwater.catalog.definitions.code_version import CodeVersions
from headwater.catalog.definitions.dependencies import merge_columns, merge_mappings
from headwater.catalog.definitions.hooks import HookDefinition, all_hooks
from headwater.catalog.definitions.job import JobDefinition, named
from headwater.catalog.definitions.resource import describe_resource, hash_json
from headwater.catalog.definitions.schedule import ScheduleDefinition, check_schedule
from headwater.catalog.definitions.sensor import SensorDefinition, check_sensor
from headwater.catalog.definitions.signature import InputDefinition
from headwater.catalog.definitions.source import SourceLocation
from headwater.catalog.definitions.spec import DEFAULT_IO_MANAGER, AssetSpec, replace_spec
from headwater.catalog.definitions.values import exact_type
from headwater.catalog.errors import (
    ConfigError,
    DefinitionError,
    DuplicateAssetError,
    MissingResourceError,
    PartitionMappingError,
    UnknownDependencyError,
    UsageError,
    UserCodeError,
    nearest,
)
from headwater.catalog.keys import AssetKey
from headwater.catalog.lineage.asset_graph import AssetGraph
from headwater.catalog.lineage.node import UNBOUND, AssetNode, Dependency, canonical_json, plain_dependency
from headwater.catalog.metadata import normalize
from headwater.catalog.records import Fingerprint

if TYPE_CHECKING:
    from headwater.catalog.definitions.condition import AutomationCondition
    from headwater.catalog.freshness import FreshnessPolicy
    from headwater.catalog.partitions.definition import PartitionsDefinition
    from headwater.catalog.partitions.mapping import PartitionMapping

Kind = TypeVar("Kind")


class Definitions:
    """The assets, jobs, schedules, sensors and resources of a project.

    `assets` is an asset definition, a spec of an external asset, a module whose assets are meant, or a list of these.
    `resources` holds the objects that parameters ask for, IO managers among them: the one called `io_manager` stores
    whatever names no other. `freshness_policy` is that of each asset that is computed here and has none of its own.
    Everything is checked here: raises `DuplicateAssetError`, `CycleError`,
    `UnknownDependencyError`, `MissingResourceError`, `PartitionMappingError` and `DefinitionError`, which name every
    place concerned.
    """

    def __init__(
        self,
        assets: Any = None,
        resources: Mapping[str, Any] | None = None,
        executor: Any = None,
        hooks: Iterable[HookDefinition] = (),
        jobs: Iterable[JobDefinition] = (),
        schedules: Iterable[ScheduleDefinition] = (),
        sensors: Iterable[SensorDefinition] = (),
        *,
        freshness_policy: "FreshnessPolicy | None" = None,
        alerts: Iterable[AlertPolicy] = (),
    ) -> None:
        found = [] if assets is None else _collect(assets)
        if freshness_policy is not None:
            found = [_with_policy(one, freshness_policy) for one in {id(one): one for one in found}.values()]
        #: As they were given; `assets` holds them with every parameter settled.
        self._given = list({id(definition): definition for definition in found}.values())
        self.resources: Mapping[str, Any] = _check_names(resources or {})
        #: How the steps of a run are executed where nobody says otherwise: a name such as "in_process".
        self.executor = executor
        #: What is called at the end of every step, or of a run.
        self.hooks = all_hooks(hooks, "Definitions")
        #: Those that `in_job` was called of.
        self.whole = self
        #: Whether what it computes is what others make, only to see what there is: see `observations`.
        self.observing = False
        self.specs: Sequence[AssetSpec] = [d for d in self._given if isinstance(d, AssetSpec)]
        self.assets: Sequence[AssetsDefinition] = self._resolve(
            [d for d in self._given if isinstance(d, AssetsDefinition)]
        )
        given = named(schedules, ScheduleDefinition, "schedule", "ScheduleDefinition(…)")
        #: By name.
        self.sensors: Mapping[str, SensorDefinition] = named(sensors, SensorDefinition, "sensor", "@sensor")
        _check_one_name(given, self.sensors)
        theirs = [one.job for one in given.values()]
        theirs += [job for one in self.sensors.values() for job in (*one.jobs, *one.monitored_jobs)]
        their_jobs = [job for job in theirs if isinstance(job, JobDefinition)]
        #: By name; those of schedules and sensors too.
        self.jobs: Mapping[str, JobDefinition] = named(
            [*named(jobs, JobDefinition, "job", "define_asset_job(…)").values(), *their_jobs], JobDefinition, "job", ""
        )
        self._check_resources()
        for job in self.jobs.values():
            job.check(self.graph)
        for one in given.values():
            check_schedule(one, self.jobs)
        for one in self.sensors.values():
            check_sensor(one, self.jobs, self.resources, self.graph)
        #: By name.
        self.schedules: Mapping[str, ScheduleDefinition] = {
            name: one.settled(self.jobs[one.job_name].partitions(self.graph)) if one.of_partitions else one
            for name, one in given.items()
        }
        #: By name.
        self.alerts: Mapping[str, AlertPolicy] = named(alerts, AlertPolicy, "alert", "AlertPolicy(…)")
        check_alerts(self.alerts, self.jobs, self.graph)
        _ = self.graph
        if any(spec.observe is not None for spec in self.specs):
            _ = self.observations
        #: When assets are built by themselves, of those that say.
        self.conditions: Mapping[AssetKey, AutomationCondition] = self._conditions()

    @staticmethod
    def merge(*definitions: "Definitions") -> "Definitions":
        """All of several definitions. The same resource under the same name is fine, two different ones are not."""
        resources: dict[str, Any] = {}
        executor = None
        hooks: set[HookDefinition] = set()
        jobs: dict[int, JobDefinition] = {}
        schedules: dict[int, ScheduleDefinition] = {}
        sensors: dict[int, SensorDefinition] = {}
        alerts: dict[int, AlertPolicy] = {}
        for one in definitions:
            hooks |= one.hooks
            jobs |= {id(job): job for job in one.jobs.values()}
            alerts |= {id(kept): kept for kept in one.alerts.values()}
            schedules |= {id(kept): kept for kept in one.schedules.values()}
            sensors |= {id(kept): kept for kept in one.sensors.values()}
            for name, resource in one.resources.items():
                if name in resources and resources[name] is not resource:
                    raise DefinitionError(
                        f"Two different resources are called `{name}`.",
                        remedy="Rename one of them, or define it once and import it.",
                    )
                resources[name] = resource
            executor = one.executor if one.executor is not None else executor
        return Definitions(
            [one._given for one in definitions],
            resources,
            executor,
            hooks,
            jobs.values(),
            schedules.values(),
            sensors.values(),
            alerts=alerts.values(),
        )

    @cached_property
    def graph(self) -> AssetGraph:
        """What depends on what, with the fingerprint that each asset has under the default configuration."""
        return AssetGraph(self._nodes({}))

    @cached_property
    def observations(self) -> "Definitions":
        """The sources that can be observed, as if they were computed here: a run of these observes them."""
        found = Definitions(
            [spec.observe.definition(spec) for spec in self.specs if spec.observe is not None], self.resources
        )
        found.whole, found.observing = self, True
        return found

    def graph_with(self, run_config: Mapping[str, Any]) -> AssetGraph:
        """The graph under a run's configuration. Raises `ConfigError` naming the path."""
        return AssetGraph(self._nodes(run_config)) if run_config else self.graph

    def job(self, name: str) -> JobDefinition:
        """The job called `name`. Raises `UsageError`."""
        if name not in self.jobs:
            raise UsageError(
                f"There is no job `{name}`.", remedy=nearest(name, self.jobs, "`headwater jobs` lists what there is.")
            )
        return self.jobs[name]

    def schedule(self, name: str) -> ScheduleDefinition:
        """The schedule called `name`. Raises `UsageError`."""
        if name not in self.schedules:
            hint = nearest(name, self.schedules, "`headwater schedules` lists what there is.")
            raise UsageError(f"There is no schedule `{name}`.", remedy=hint)
        return self.schedules[name]

    def sensor(self, name: str) -> SensorDefinition:
        """The sensor called `name`. Raises `UsageError`."""
        if name not in self.sensors:
            hint = nearest(name, self.sensors, "`headwater sensors` lists what there is.")
            raise UsageError(f"There is no sensor `{name}`.", remedy=hint)
        return self.sensors[name]

    def in_job(self, job: JobDefinition) -> "Definitions":
        """The same, with the hooks of a job besides."""
        if not job.hooks:
            return self
        found = copy.copy(self)
        found.hooks = self.hooks | job.hooks
        return found

    def hooks_of(self, definition: AssetsDefinition) -> frozenset[HookDefinition]:
        """What is called when a step has ended."""
        return definition.hooks | {hook for hook in self.hooks if not hook.event.of_run}

    @property
    def run_hooks(self) -> frozenset[HookDefinition]:
        """What is called when a run has ended."""
        return frozenset(hook for hook in self.hooks if hook.event.of_run)

    def definition_of(self, key: AssetKey) -> AssetsDefinition:
        """What computes the asset `key`."""
        return self._by_key[key]

    def spec_of(self, key: AssetKey) -> AssetSpec | None:
        """What is said of the asset `key`; None where it is only a name in somebody's deps."""
        if key in self._by_key:
            return self._by_key[key].output(key).spec
        return self._external_specs.get(key)

    def partitions_of(self, key: AssetKey) -> "PartitionsDefinition | None":
        """What the asset `key` is divided into; None for an unpartitioned one, and for one that is only a name."""
        return self._partitions.get(key)

    def io_manager_of(self, key: AssetKey) -> Any:
        """The IO manager that stores the asset `key`; None for the default one."""
        spec = self.spec_of(key)
        return self._io_manager(spec.io_manager if spec else DEFAULT_IO_MANAGER)

    def config_of(self, definition: AssetsDefinition, run_config: Mapping[str, Any]) -> Any:
        """The bound configuration of a step; None for one that takes none.

        `run_config` is `{"ops": {<step>: {"config": {…}}}}`, with `assets` as another word for `ops`.
        """
        if definition.config_class is None:
            return None
        data, path = self._raw_config(definition, run_config)
        return bind_config(definition.config_class, data, path)

    def references_of(self, definition: AssetsDefinition, run_config: Mapping[str, Any]) -> list[EnvVar]:
        """The environment variables that the configuration of a step refers to; see `config_of`."""
        if definition.config_class is None:
            return []
        return config_references(definition.config_class, self._raw_config(definition, run_config)[0])

    @cached_property
    def _by_key(self) -> Mapping[AssetKey, AssetsDefinition]:
        return {key: definition for definition in self.assets for key in definition.keys}

    @cached_property
    def _external_specs(self) -> Mapping[AssetKey, AssetSpec]:
        return {spec.key: spec for spec in self.specs}

    @cached_property
    def _partitions(self) -> "Mapping[AssetKey, PartitionsDefinition]":
        """What every partitioned asset is divided into."""
        specs = [*self.specs, *(output.spec for definition in self.assets for output in definition.outputs)]
        return {spec.key: spec.partitions_def for spec in specs if spec.partitions_def is not None}

    @cached_property
    def _mappings(self) -> "dict[tuple[int, str | None, str | None], str]":
        """Resolved mappings as text, by the identity of what was given and the texts of both definitions."""
        return {}

    @cached_property
    def _partition_texts(self) -> "_PartitionTexts":
        return _PartitionTexts()

    @cached_property
    def _code_versions(self) -> CodeVersions:
        return CodeVersions()

    def _resolve(self, definitions: Sequence[AssetsDefinition]) -> list[AssetsDefinition]:
        """The definitions with every parameter settled: an upstream asset's key, or a resource."""
        places: dict[AssetKey, SourceLocation] = {}
        entries = [output.spec for d in definitions for output in d.outputs]
        for spec in (*entries, *self.specs):
            if spec.key in places:
                raise DuplicateAssetError(
                    f"Two definitions of the asset `{spec.key}`: {places[spec.key]} and {spec.source}.",
                    remedy="Rename one of them, or give it a key_prefix.",
                )
            places[spec.key] = spec.source
        steps: dict[str, AssetsDefinition] = {}
        for definition in definitions:
            other = steps.setdefault(definition.name, definition)
            if other is not definition:
                raise DuplicateAssetError(
                    f"Two steps are called `{definition.name}`: {other.source} and {definition.source}.",
                    remedy="Give one of them a name=….",
                )
        if all(item.key in places for definition in definitions for item in definition.inputs):
            return list(definitions)
        named: dict[str, list[AssetKey]] = {}
        for key in places:
            named.setdefault(key.name, []).append(key)
        return [self._settle(definition, places, named) for definition in definitions]

    def _settle(
        self,
        definition: AssetsDefinition,
        places: Mapping[AssetKey, SourceLocation],
        named: Mapping[str, list[AssetKey]],
    ) -> AssetsDefinition:
        if all(item.key in places for item in definition.inputs):
            return definition
        inputs: list[InputDefinition] = []
        resources = dict(definition.resources)
        for item in definition.inputs:
            key = item.key
            if key not in places and item.by_name:
                if item.parameter in self.resources:
                    resources[item.parameter] = item.parameter
                    continue
                found = _nearby(definition, item, named)
                if found is None and item.optional:
                    continue
                key = found or key
            if key not in places:
                raise UnknownDependencyError(
                    f"{definition.source}: the parameter `{item.parameter}` of `{definition.name}` asks for the asset "
                    f"`{key}`, and there is none.",
                    remedy=_suggest(item, key, places),
                )
            inputs.append(replace(item, key=key))
        return replace(definition, inputs=tuple(inputs), resources=resources)

    def _check_resources(self) -> None:
        jobs = (job.hooks for job in self.jobs.values())
        for hook in self.hooks.union(*(definition.hooks for definition in self.assets), *jobs):
            missing = sorted(hook.required_resource_keys - self.resources.keys())
            if missing:
                raise MissingResourceError(
                    f"The hook `{hook.name}` needs the resource `{missing[0]}`; nobody provides it.",
                    remedy=nearest(missing[0], self.resources) or "Add it to Definitions(resources={…}).",
                )
        for definition in self.assets:
            wanted = [*definition.resources.values(), *definition.required_resource_keys]
            wanted += [item.input_manager_key for item in definition.inputs if item.input_manager_key]
            managers = [output.spec.io_manager for output in definition.outputs]
            wanted += [name for name in managers if isinstance(name, str) and name != DEFAULT_IO_MANAGER]
            if not wanted:
                continue
            missing = sorted(set(wanted) - self.resources.keys())
            if missing:
                known = ", ".join(f"`{name}`" for name in self.resources) or "none"
                raise MissingResourceError(
                    f"{definition.source}: `{definition.name}` needs the resource `{missing[0]}`; nobody provides it.",
                    remedy=nearest(missing[0], self.resources)
                    or f"Add it to Definitions(resources={{'{missing[0]}': …}}). Given are: {known}.",
                )
            for parameter, cls in definition.resource_classes.items():
                given = self.resources[definition.resources[parameter]]
                if not isinstance(given, cls):
                    raise DefinitionError(
                        f"{definition.source}: the parameter `{parameter}` of `{definition.name}` wants a "
                        f"{cls.__qualname__}, and the resource `{definition.resources[parameter]}` is of the type "
                        f"{type(given).__qualname__}.",
                        remedy=f"Provide a {cls.__qualname__}; or annotate the parameter ResourceParam[…], which takes "
                        "anything.",
                    )

    def _conditions(self) -> "dict[AssetKey, AutomationCondition]":
        specs = [*self.specs, *(output.spec for definition in self.assets for output in definition.outputs)]
        found = {spec.key: spec.automation_condition for spec in specs if spec.automation_condition is not None}
        for key, condition in found.items():
            place = f"{cast(AssetSpec, self.spec_of(key)).source}: the condition of `{key}`"
            if self.graph[key].external:
                raise DefinitionError(
                    f"{place} can never be met: something else computes it.", remedy="Leave out automation_condition."
                )
            for node in condition.nodes():
                other = node.arguments[0] if node.name == "asset_matches" else key
                if other not in self.graph:
                    raise DefinitionError(
                        f"{place} asks for the asset `{other}`, and there is none.",
                        remedy=nearest(str(other), map(str, self.graph.keys)) or "Define it, or leave that out.",
                    )
        return found

    def _nodes(self, run_config: Mapping[str, Any]) -> list[AssetNode]:
        nodes = [node for definition in self.assets for node in self._nodes_of(definition, run_config)]
        return nodes + [self._node(spec, {}) for spec in self.specs]

    def _nodes_of(self, definition: AssetsDefinition, run_config: Mapping[str, Any]) -> list[AssetNode]:
        loaded: dict[AssetKey, Dependency] = {}
        for item in definition.inputs:
            dep = Dependency(key=item.key, parameter=item.parameter, columns=item.columns)
            same = loaded.setdefault(item.key, dep)
            if same is not dep:  # two parameters that load one asset
                columns = merge_columns(same.columns, dep.columns)
                loaded[item.key] = Dependency(key=item.key, parameter=same.parameter, columns=columns)
        # Reading source takes a millisecond and more: only where somebody wants it.
        hashed = any(output.spec.code_version is None for output in definition.outputs)
        code = self._code_versions.of_function(definition.function) if hashed else ""
        own = definition.partitions_def
        wiring = _hash_wiring(
            definition.is_multi,
            tuple(self._input_wiring(definition, item) for item in definition.inputs),
        )
        partitions = "" if own is None else self._partition_texts.meaning_of(own)
        config = self._hash_config(definition, run_config) if definition.config_class else ""
        used = sorted({*definition.resources.values(), *definition.required_resource_keys})
        resources = hash_json([[name, self._describe(name, run_config)] for name in used]) if used else ""
        nodes: list[AssetNode] = []
        for output in definition.outputs:
            spec = output.spec
            given = f"user:{spec.code_version}" if spec.code_version is not None else code
            fingerprint = Fingerprint(
                code=given,
                definition=wiring,
                config=config,
                resources=resources,
                io=self._hash_io_manager(spec.io_manager),
                partitions=partitions,
            )
            nodes.append(
                self._node(
                    spec,
                    loaded,
                    definition,
                    step=definition.name,
                    can_subset=definition.can_subset or not definition.is_multi,
                    optional=not output.is_required,
                    fingerprint=fingerprint,
                    stored=not definition.stores_nothing,
                    batch=definition.batch,
                    pool=definition.pool,
                )
            )
        return nodes

    def _input_wiring(self, definition: AssetsDefinition, item: InputDefinition) -> tuple[Any, ...]:
        """What of a parameter decides the data, the columns that partitions add included."""
        wiring = (item.parameter, item.key, item.columns)
        if item.partition_columns is None:
            return wiring
        try:
            columns = item.partition_columns.of(self.partitions_of(item.key))
        except DefinitionError as error:
            raise DefinitionError(
                f"{definition.source}: `{definition.name}` asks for the partition columns of `{item.key}`, and "
                f"{error.message}.",
                remedy=error.remedy,
            ) from None
        return (*wiring, tuple(columns.items()))

    def _dependencies(
        self, spec: AssetSpec, loaded: Mapping[AssetKey, Dependency], definition: AssetsDefinition | None
    ) -> tuple[Dependency, ...]:
        """What an asset depends on, those that it loads first, with the mapping wherever there are partitions."""
        others = [plain_dependency(dep.asset, dep.columns) for dep in spec.deps if dep.asset not in loaded]
        deps = (*loaded.values(), *others)
        given = _given_mappings(spec, definition)
        if given or self._partitions or spec.key in [dep.key for dep in deps]:
            deps = tuple(self._mapped(spec, dep, given.get(dep.key)) for dep in deps)
            mates = definition.keys if definition is not None and definition.is_multi else ()
            for dep in deps:
                if dep.key in mates:
                    _check_together(spec, dep)
        return deps

    def _mapped(self, spec: AssetSpec, dep: Dependency, given: "PartitionMapping | None") -> Dependency:
        own, other = spec.partitions_def, self.partitions_of(dep.key)
        if own is None and other is None and given is None and dep.key != spec.key:
            return dep
        texts = self._partition_texts
        alike = (
            id(given),
            None if own is None else texts.text_of(own),
            None if other is None else texts.text_of(other),
        )
        text = self._mappings.get(alike) if dep.key != spec.key else None
        if text is None:
            text = self._mappings[alike] = texts.text_of(self._resolve_mapping(spec, dep.key, given))
        if own is None and other is None:
            return dep
        if dep.parameter is None:
            return plain_dependency(dep.key, dep.columns, text)
        return Dependency(key=dep.key, parameter=dep.parameter, columns=dep.columns, mapping=text)

    def _resolve_mapping(
        self, spec: AssetSpec, upstream: AssetKey, given: "PartitionMapping | None"
    ) -> "PartitionMapping":
        from headwater.catalog.partitions.mapping import resolve_mapping

        own, other = spec.partitions_def, self.partitions_of(upstream)
        try:
            return resolve_mapping(given, own, other, downstream_name=spec.key, upstream_name=upstream)
        except PartitionMappingError as error:
            above = self.spec_of(upstream)
            place = f" `{upstream}` is defined at {above.source}." if above and upstream != spec.key else ""
            raise PartitionMappingError(f"{spec.source}: {error.message}{place}", remedy=error.remedy) from None

    def _node(
        self,
        spec: AssetSpec,
        loaded: Mapping[AssetKey, Dependency],
        definition: AssetsDefinition | None = None,
        **computed: Any,
    ) -> AssetNode:
        """The node of an asset: what its spec says, and how it is `computed`."""
        manager = spec.io_manager
        try:
            metadata = normalize(spec.metadata, f"{spec.source}: asset `{spec.key}`") if spec.metadata else {}
        except UserCodeError as error:
            raise DefinitionError(error.message, remedy=error.remedy) from error.__cause__
        return AssetNode(
            key=spec.key,
            group=spec.group_name,
            description=spec.description,
            kinds=tuple(sorted(spec.kinds)),
            owners=spec.owners,
            tags=spec.tags,
            metadata=metadata,
            deps=self._dependencies(spec, loaded, definition),
            partitions=None if spec.partitions_def is None else self._partition_texts.text_of(spec.partitions_def),
            io_manager=manager if isinstance(manager, str) else type(manager).__qualname__,
            source=f"{spec.source.file}:{spec.source.line}",
            freshness=None if spec.freshness_policy is None else canonical_json(spec.freshness_policy.to_json()),
            **computed,
        )

    def _hash_config(self, definition: AssetsDefinition, run_config: Mapping[str, Any]) -> str:
        """The version of a step's configuration: its class's code and its values, those of the environment by name."""
        assert definition.config_class is not None
        data, path = self._raw_config(definition, run_config)
        try:
            described = describe_config(definition.config_class, data, path)
        except ConfigError as error:
            if data is None:  # required values, which are left to the run
                return UNBOUND
            if data is definition.config:
                raise DefinitionError(f"{definition.source}: {error.message}", remedy=error.remedy) from None
            raise
        return hash_json([self._code_versions.of_class(definition.config_class), described])

    def _hash_io_manager(self, named: Any) -> str:
        manager = self._io_manager(named)
        if manager is None:
            return ""
        if id(manager) not in self._io_hashes:
            described = [self._code_versions.of_class(exact_type(manager)), describe_resource(manager)]
            self._io_hashes[id(manager)] = hash_json(described)
        return self._io_hashes[id(manager)]

    @cached_property
    def _io_hashes(self) -> dict[int, str]:
        return {}

    def _raw_config(self, definition: AssetsDefinition, run_config: Mapping[str, Any]) -> tuple[Any, str]:
        """What a run's configuration says of a step, or else what its definition does, and the path of that."""
        for section in ("ops", "assets"):
            entry = run_config.get(section, {}).get(definition.name)
            if entry is not None:
                return entry.get("config", {}), f"{section}:{definition.name}:config"
        return definition.config, f"ops:{definition.name}:config"

    def _io_manager(self, named: Any) -> Any:
        return self.resources.get(named) if isinstance(named, str) else named

    def _describe(self, name: str, run_config: Mapping[str, Any]) -> Any:
        """What tells one state of a resource from another: its class's code, its settings."""
        resource = self.resources[name]
        given = run_config.get("resources", {}).get(name)
        override = None if given is None else given.get("config", given)
        return [self._code_versions.of_class(exact_type(resource)), describe_resource(resource), override]


def _check_one_name(schedules: Mapping[str, ScheduleDefinition], sensors: Mapping[str, SensorDefinition]) -> None:
    """Raise `DefinitionError` where a schedule and a sensor are called the same: the catalog knows them by name."""
    for name in schedules.keys() & sensors.keys():
        raise DefinitionError(
            f"A schedule and a sensor are called `{name}`: {schedules[name].source} and {sensors[name].source}.",
            remedy="Rename one of them.",
        )


def _check_names(resources: object) -> dict[str, Any]:
    """A copy of what was given as resources, where that is a mapping of names."""
    if not isinstance(resources, Mapping):
        raise DefinitionError(
            f"{SourceLocation.of_caller()}: resources is a mapping of names to objects, not "
            f"{type(resources).__name__}.",
            remedy="Write resources={'warehouse': Warehouse(…)}.",
        )
    for name in cast(Mapping[Any, Any], resources):
        if not isinstance(name, str):
            raise DefinitionError(
                f"{SourceLocation.of_caller()}: resources holds the name {name!r}, which is no text.",
                remedy="Write resources={'warehouse': Warehouse(…)}.",
            )
    return dict(cast(Mapping[str, Any], resources))


@functools.lru_cache(maxsize=1 << 12)
def _hash_wiring(is_multi: bool, inputs: tuple[tuple[Any, ...], ...]) -> str:
    return hash_json([is_multi, inputs])


class _PartitionTexts:
    """Definitions and mappings as canonical JSON, each made once, and one text for all that are equal."""

    def __init__(self) -> None:
        #: By identity, which is kept alive: comparing costs more than writing.
        self._texts: dict[int, tuple[object, str]] = {}
        self._meanings: dict[int, tuple[object, str]] = {}
        self._same: dict[str, str] = {}

    def text_of(self, one: "PartitionsDefinition | PartitionMapping") -> str:
        known = self._texts.get(id(one))
        if known is None:
            text = canonical_json(one.to_json())
            known = self._texts[id(one)] = (one, self._same.setdefault(text, text))
        return known[1]

    def meaning_of(self, definition: "PartitionsDefinition") -> str:
        """What keys mean, as a part of a fingerprint; empty where they mean themselves."""
        known = self._meanings.get(id(definition))
        if known is None:
            meaning = definition.key_meaning()
            known = self._meanings[id(definition)] = (definition, "" if meaning is None else hash_json(meaning))
        return known[1]


def _check_together(spec: AssetSpec, dep: Dependency) -> None:
    """Assets that a step computes from each other: of later partitions there is nothing yet."""
    mapping = dep.partition_mapping
    if mapping is not None and not mapping.reads_none_later:
        raise PartitionMappingError(
            f"{spec.source}: `{spec.key}` cannot read `{dep.key}`, which the same function computes, through "
            f"{type(mapping).__name__}: partitions would read others that are computed after them.",
            remedy="Within a function, read the same partition or earlier ones; or split the function.",
        )


def _given_mappings(spec: AssetSpec, definition: AssetsDefinition | None) -> "Mapping[AssetKey, PartitionMapping]":
    """The mappings that an asset's definition gives. Raises `DefinitionError` where they contradict each other."""
    given: dict[AssetKey, PartitionMapping | None] = {}
    for item in definition.inputs if definition is not None else ():
        if item.key in given and given[item.key] != item.partition_mapping:
            raise DefinitionError(
                f"{spec.source}: two parameters of `{spec.key}` read `{item.key}` through different mappings.",
                remedy="Read it once, through one mapping that reads all that is needed, as dict[str, …].",
            )
        given[item.key] = item.partition_mapping
    try:
        for dep in spec.deps:
            given[dep.asset] = merge_mappings(dep.asset, given.get(dep.asset), dep.partition_mapping)
    except DefinitionError as error:
        raise DefinitionError(f"{spec.source}: asset `{spec.key}`: {error.message}", remedy=error.remedy) from None
    return {key: one for key, one in given.items() if one is not None}


def _nearby(
    definition: AssetsDefinition, item: InputDefinition, named: Mapping[str, list[AssetKey]]
) -> AssetKey | None:
    """The asset that a parameter means when no key is just its name: one beside it, or the only one called so."""
    candidates = named.get(item.parameter, [])
    for own in definition.keys:
        beside = [key for key in candidates if key.path[:-1] == own.path[:-1]]
        if beside:
            return beside[0]
    if item.optional or not candidates:
        return None
    if len(candidates) > 1:
        raise UnknownDependencyError(
            f"{definition.source}: the parameter `{item.parameter}` of `{definition.name}` may mean "
            f"{' or '.join(f'`{key}`' for key in candidates)}.",
            remedy=f"Say which: ins={{'{item.parameter}': AssetIn('{candidates[0]}')}}.",
        )
    return candidates[0]


def _suggest(item: InputDefinition, key: AssetKey, places: Mapping[AssetKey, SourceLocation]) -> str:
    if isinstance(item.annotation, str):
        return (
            f"Its annotation {item.annotation!r} names something that is not there at run time: if it is a Config or a "
            "resource, import it outside of TYPE_CHECKING."
        )
    known = {str(k): place for k, place in places.items()}
    hint = nearest(str(key), known)
    close = [name for name in known if f"`{name}`" in hint]
    if close:
        return f"{hint} ({', '.join(f'{name}: {known[name]}' for name in close)})"
    return f"Define it, or list it in deps=['{key}'] if something else computes it and its value is not needed."


def _with_policy(definition: AssetsDefinition | AssetSpec, policy: "FreshnessPolicy") -> AssetsDefinition | AssetSpec:
    """The same with a freshness policy, where it is computed here and has none."""
    if isinstance(definition, AssetSpec):
        return definition
    specs = [
        output.spec if output.spec.freshness_policy is not None else replace_spec(output.spec, freshness_policy=policy)
        for output in definition.outputs
    ]
    outputs = tuple(replace(output, spec=spec) for output, spec in zip(definition.outputs, specs, strict=True))
    return replace(definition, outputs=outputs)


def _collect(entry: Any) -> list[AssetsDefinition | AssetSpec]:
    """The definitions that an entry of `Definitions(assets=…)` stands for."""
    if isinstance(entry, AssetsDefinition | AssetSpec):
        return [entry]
    if isinstance(entry, ModuleType):
        return assets_of_module(entry)
    if isinstance(entry, Iterable) and not isinstance(entry, str | bytes):
        return [definition for item in cast(Iterable[Any], entry) for definition in _collect(item)]
    name = entry if isinstance(entry, str) else getattr(entry, "__name__", None)
    raise DefinitionError(
        f"{SourceLocation.of_caller()}: Definitions(assets=…) holds a {type(entry).__name__}"
        + (f", `{name}`." if isinstance(name, str) else "."),
        remedy="It takes functions decorated with @asset or @multi_asset, AssetSpecs, modules, and lists of these.",
    )


def assets_of_module(module: ModuleType) -> list[AssetsDefinition | AssetSpec]:
    """The asset definitions and specs among a module's globals and the lists in them, each once."""
    return [*objects_of_module(module, AssetsDefinition, AssetSpec)]


def objects_of_module(module: ModuleType, *kinds: type[Kind]) -> list[Kind]:
    """What is of some kinds among a module's globals and the lists in them, each once."""
    found: dict[int, Kind] = {}
    for value in list(vars(module).values()):
        items: Iterable[Any] = cast(Iterable[Any], value) if isinstance(value, list | tuple) else (value,)
        found |= {id(item): item for item in items if isinstance(item, kinds)}
    return list(found.values())


def load_assets_from_modules(
    modules: Iterable[ModuleType], *, group_name: str | None = None, key_prefix: str | Sequence[str] | None = None
) -> list[AssetsDefinition | AssetSpec]:
    """The assets of several modules, below a prefix or in a group where asked for.

    A prefix goes before the keys of these assets wherever they are mentioned: an asset of theirs that reads another
    one still does.
    """
    found: dict[int, AssetsDefinition | AssetSpec] = {}
    for module in modules:
        found.update({id(definition): definition for definition in assets_of_module(module)})
    prefix = None if key_prefix is None else AssetKey(key_prefix)
    keys: dict[AssetKey, AssetKey] = {}
    if prefix is not None:
        own = [key for d in found.values() for key in (d.keys if isinstance(d, AssetsDefinition) else (d.key,))]
        keys = {key: key.with_prefix(prefix) for key in own}
    moved: list[AssetsDefinition | AssetSpec] = []
    for definition in found.values():
        if isinstance(definition, AssetSpec):
            moved.append(move_spec(definition, keys, group_name=group_name))
        else:
            name = definition.name if prefix is None else f"{prefix}/{definition.name}"
            moved.append(definition.moved(keys, name=name, group_name=group_name))
    return moved


def load_assets_from_package_module(
    package: ModuleType, *, group_name: str | None = None, key_prefix: str | Sequence[str] | None = None
) -> list[AssetsDefinition | AssetSpec]:
    """The assets of a package and of every module below it."""
    import importlib
    import pkgutil

    if not hasattr(package, "__path__"):
        raise DefinitionError(f"`{package.__name__}` is no package.", remedy="Use load_assets_from_modules([…]).")
    names = [info.name for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]
    modules = [package, *(importlib.import_module(name) for name in names)]
    return load_assets_from_modules(modules, group_name=group_name, key_prefix=key_prefix)


def load_assets_from_current_module(
    *, group_name: str | None = None, key_prefix: str | Sequence[str] | None = None
) -> list[AssetsDefinition | AssetSpec]:
    """The assets of the module that calls this, as far as they are defined by then."""
    import sys

    namespace = sys._getframe(1).f_globals  # pyright: ignore[reportPrivateUsage]
    module = ModuleType(str(namespace.get("__name__")))
    vars(module).update(namespace)
    return load_assets_from_modules([module], group_name=group_name, key_prefix=key_prefix)
