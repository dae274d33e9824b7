"""A run's own copies of the resources that its steps use: configured, set up, torn down."""

import contextlib
import logging
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping
from typing import Any

import msgspec

from headwater.catalog.config import EnvVar
from headwater.catalog.definitions.asset import AssetsDefinition
from headwater.catalog.definitions.definitions import Definitions
from headwater.catalog.definitions.resource import ConfigurableResource, resolve_resource, resource_references
from headwater.catalog.definitions.spec import DEFAULT_IO_MANAGER
from headwater.catalog.errors import ConfigError, ResourceError
from headwater.catalog.keys import AssetKey
from headwater.materialize.execution.context import RunContext, RunInfo
from headwater.materialize.execution.redaction import Redaction
from headwater.materialize.execution.step import describe_failure


class Resources:
    """The resources that computing `assets` takes, with what the run and the environment say of them.

    Raises `ConfigError` for configuration of resources and steps that does not fit, before anything starts.
    """

    def __init__(self, definitions: Definitions, assets: Iterable[AssetKey], run_config: Mapping[str, Any]) -> None:
        self._definitions = definitions
        self._run_config = run_config
        self._steps = tuple({id(found): found for found in map(definitions.definition_of, assets)}.values())
        config: Mapping[str, Any] = run_config.get("resources", {})
        unknown = sorted(config.keys() - definitions.resources.keys())
        if unknown:
            raise ConfigError(
                f"resources:{unknown[0]}: there is no resource of this name.",
                remedy=f"The resources are {', '.join(definitions.resources) or 'none'}.",
            )
        self._failures: dict[str, ResourceError] = {}
        used = self._used()
        self._configured = {
            name: _configured(resource, config.get(name))
            for name, resource in definitions.resources.items()
            if name in used
        }
        #: By name, with everything that the environment was to supply.
        self.values = {name: resolve_resource(one, f"resources:{name}") for name, one in self._configured.items()}

    def references(self) -> Iterator[EnvVar]:
        """Every environment variable that the resources and the steps' configurations refer to."""
        for resource in self._configured.values():
            yield from resource_references(resource)
        for step in self._steps:
            yield from self._definitions.references_of(step, self._run_config)
            for spec in map(self._definitions.spec_of, (*step.keys, *(item.key for item in step.inputs))):
                yield from resource_references(spec.io_manager if spec else None)

    @contextlib.contextmanager
    def set_up(
        self, run: RunInfo, redaction: Redaction, only: Collection[str] | None = None
    ) -> Generator[dict[str, Any]]:
        """The resources, ready for use, all or `only` some; torn down afterwards in reverse order.

        One that cannot be set up is left out, for `check` to say. Raises `ResourceError`, without secrets, for one
        that cannot be torn down.
        """
        with contextlib.ExitStack() as stack:
            ready: dict[str, Any] = {}
            for name, resource in self.values.items():
                if only is not None and name not in only:
                    ready[name] = resource
                    continue
                try:
                    ready[name] = stack.enter_context(set_up_resource(name, resource, run, redaction))
                except ResourceError as error:
                    self._failures[name] = error
            yield ready

    def check(self, step: AssetsDefinition) -> None:
        """Raise `ResourceError` for a step that needs a resource that could not be set up."""
        failed = self._failures.keys() & self._needed_by(step) if self._failures else ()
        if failed:
            error = self._failures[min(failed)]
            raise ResourceError(error.message, remedy=error.remedy) from error.__cause__

    def _used(self) -> set[str]:
        used = {DEFAULT_IO_MANAGER}
        for step in self._steps:
            self._definitions.config_of(step, self._run_config)
            used |= self._needed_by(step)
        return used | self.of_hooks()

    def of_hooks(self) -> set[str]:
        """Those that hooks of the steps and of the run use."""
        hooks = self._definitions.run_hooks.union(*map(self._definitions.hooks_of, self._steps))
        return {name for hook in hooks for name in hook.required_resource_keys}

    def _needed_by(self, step: AssetsDefinition) -> set[str]:
        """What a step is given, and what stores its assets and loads its inputs."""
        needed = {*step.resources.values(), *step.required_resource_keys}
        needed.update(item.input_manager_key for item in step.inputs if item.input_manager_key)
        loaded = (item.key for item in step.inputs if not item.input_manager_key)
        for key in (*step.keys, *loaded):
            spec = self._definitions.spec_of(key)
            manager = spec.io_manager if spec else DEFAULT_IO_MANAGER
            if isinstance(manager, str):
                needed.add(manager)
        return needed


@contextlib.contextmanager
def set_up_resource(name: str, resource: Any, run: RunInfo, redaction: Redaction) -> Generator[Any]:
    """A resource, ready for use; torn down afterwards. Raises `ResourceError`, without secrets, where either fails."""
    if not isinstance(resource, ConfigurableResource):
        yield resource
        return
    with _blamed(name, "set up", redaction):
        manager = resource.yield_for_execution(RunContext(run=run, log=logging.getLogger("headwater")))
        ready = manager.__enter__()
    with contextlib.ExitStack() as stack:
        stack.push(_blamed(name, "torn down", redaction)(manager.__exit__))
        yield ready


@contextlib.contextmanager
def _blamed(name: str, what: str, redaction: Redaction) -> Generator[None]:
    """A block whose exceptions are the resource's own: they become `ResourceError`, without secrets."""
    try:
        yield
    except (Exception, SystemExit) as error:
        failure = describe_failure(error).error
        text = redaction.text(failure.traceback or f"{failure.kind}: {failure.message}")
        raise ResourceError(
            f"The resource `{name}` could not be {what}:\n{text.rstrip()}", remedy=redaction.text(failure.remedy)
        ) from error


def _configured(resource: Any, config: Mapping[str, Any] | None) -> Any:
    """A resource with the fields that a run's configuration sets."""
    if config is None:
        return resource
    values = config.get("config", config)
    if not isinstance(resource, ConfigurableResource):
        raise ConfigError(
            f"A {type(resource).__name__} takes no configuration from a run.",
            remedy="Make it a ConfigurableResource, or configure it where it is defined.",
        )
    known = [f.name for f in msgspec.structs.fields(resource)]
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ConfigError(
            f"{type(resource).__name__} has no field `{unknown[0]}`.", remedy=f"Its fields are {', '.join(known)}."
        )
    return msgspec.structs.replace(resource, **values)
