"""A run's own copies of the resources that its steps use: configured, set up, torn down."""

import contextlib
import logging
from collections.abc import Generator, Iterable, Mapping
from typing import Any

import msgspec

from headwater.catalog.definitions.definitions import Definitions
from headwater.catalog.definitions.resource import ConfigurableResource, resolve_resource
from headwater.catalog.errors import ConfigError
from headwater.catalog.keys import AssetKey
from headwater.materialize.execution.context import RunContext, RunInfo

#: The name of the IO manager of every asset that names none.
DEFAULT_IO_MANAGER = "io_manager"


def resolve_resources(
    definitions: Definitions, assets: Iterable[AssetKey], run_config: Mapping[str, Any]
) -> dict[str, Any]:
    """The resources that computing `assets` takes, with what the run and the environment say of them.

    Raises `ConfigError` for configuration of resources and steps that does not fit, before anything starts.
    """
    config: Mapping[str, Any] = run_config.get("resources", {})
    unknown = sorted(config.keys() - definitions.resources.keys())
    if unknown:
        raise ConfigError(
            f"resources:{unknown[0]}: there is no resource of this name.",
            remedy=f"The resources are {', '.join(definitions.resources) or 'none'}.",
        )
    used = _used(definitions, assets, run_config)
    return {
        name: resolve_resource(_configured(resource, config.get(name)), f"resources:{name}")
        for name, resource in definitions.resources.items()
        if name in used
    }


@contextlib.contextmanager
def set_up(resources: Mapping[str, Any], run: RunInfo) -> Generator[dict[str, Any]]:
    """The resources, ready for use; torn down afterwards in reverse order."""
    context = RunContext(run=run, log=logging.getLogger("headwater"))
    with contextlib.ExitStack() as stack:
        ready: dict[str, Any] = {}
        for name, resource in resources.items():
            is_ours = isinstance(resource, ConfigurableResource)
            ready[name] = stack.enter_context(resource.yield_for_execution(context)) if is_ours else resource
        yield ready


def _used(definitions: Definitions, assets: Iterable[AssetKey], run_config: Mapping[str, Any]) -> set[str]:
    used = {DEFAULT_IO_MANAGER}
    for definition in {id(found): found for found in map(definitions.definition_of, assets)}.values():
        definitions.config_of(definition, run_config)
        used.update(definition.resources.values(), definition.required_resource_keys)
        used.update(item.input_manager_key for item in definition.inputs if item.input_manager_key)
        for key in (*definition.keys, *(item.key for item in definition.inputs)):
            spec = definitions.spec_of(key)
            if spec is not None and isinstance(spec.io_manager, str):
                used.add(spec.io_manager)
    return used


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
