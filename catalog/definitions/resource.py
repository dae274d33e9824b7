"""Resources: named objects that asset functions take as parameters, such as a database or an API client."""

import hashlib
import json
from collections.abc import Generator
from contextlib import contextmanager
from typing import Annotated, Any, TypeVar, get_origin

import msgspec

from headwater.catalog.config import EnvVar, FieldsMeta, explain, mask, references, resolve
from headwater.catalog.definitions.values import exact_type
from headwater.catalog.errors import ConfigError

T = TypeVar("T")

_MARK = object()

#: Annotate a parameter `ResourceParam[Client]` to have it filled with the resource of its name.
ResourceParam = Annotated[T, _MARK]


class ConfigurableResource(msgspec.Struct, metaclass=FieldsMeta, kw_only=True, dict=True):
    """Subclass it and annotate the fields; take it as a parameter of an asset function.

    Fields may hold `EnvVar`s, which are resolved when a run starts. A run makes its own copy of each resource,
    sets it up before its first step and tears it down after its last; attributes that are no fields are free for
    its own use.

    ```python
    class Warehouse(ConfigurableResource):
        path: str

        def connect(self): ...

    Definitions(assets=[orders], resources={"warehouse": Warehouse(path=EnvVar("WAREHOUSE"))})
    ```
    """

    def setup_for_execution(self, context: Any) -> None:
        """Called once before the first step of a run that uses it. `context` is the run's `RunContext`."""

    def teardown_after_execution(self, context: Any) -> None:
        """Called once after the last step, also when the run failed."""

    @contextmanager
    def yield_for_execution(self, context: Any) -> Generator["ConfigurableResource"]:
        """Override this instead of the two above to set up and tear down in one place."""
        self.setup_for_execution(context)
        try:
            yield self
        finally:
            self.teardown_after_execution(context)


def is_resource_annotation(annotation: Any) -> bool:
    """Whether a parameter annotated so receives a resource."""
    if isinstance(annotation, type):
        return issubclass(annotation, ConfigurableResource)
    return get_origin(annotation) is Annotated and any(mark is _MARK for mark in annotation.__metadata__)


def resolve_resource(resource: Any, path: str) -> Any:
    """A fresh copy of `resource` with its references to the environment resolved and its plain fields checked.

    Objects that are no `ConfigurableResource` are handed out as they are. Raises `ConfigError` naming the path.
    """
    if not isinstance(resource, ConfigurableResource):
        return resource
    values: dict[str, Any] = {}
    for field in msgspec.structs.fields(resource):
        place = f"{path}:{field.name}"
        given = getattr(resource, field.name)
        refers = bool(references(given))
        value = resolve(given, place) if refers else resolve_resource(given, place)
        if isinstance(value, str | int | float | bool | None):
            try:
                value = msgspec.convert(value, field.type, strict=not refers)
            except msgspec.ValidationError as error:
                raise ConfigError(
                    f"{place}: {explain(error, given)}.",
                    remedy=f"Correct the {field.name} of {type(resource).__name__}.",
                ) from None
            except TypeError:  # a type that msgspec does not know is the class's own business
                pass
        values[field.name] = value
    return type(resource)(**values)


def resource_references(resource: Any) -> list[EnvVar]:
    """Every reference to the environment in the fields of a resource and of those inside of it."""
    if not isinstance(resource, ConfigurableResource):
        return references(resource)
    fields = msgspec.structs.fields(resource)
    return [found for field in fields for found in resource_references(getattr(resource, field.name))]


def describe_resource(resource: Any) -> Any:
    """JSON-able settings that tell one configuration of a resource from another, secrets as references.

    An object that is no `ConfigurableResource` may say what matters of it with a method `fingerprint()`.
    """
    cls = exact_type(resource)
    kind = cls.__qualname__
    # Asked of the class: an object may make up attributes as it is asked for them.
    if callable(getattr(cls, "fingerprint", None)):
        return [kind, mask(resource.fingerprint())]
    if isinstance(resource, ConfigurableResource):
        return [kind, describe_fields(resource)]
    return mask(resource)


def describe_fields(resource: ConfigurableResource) -> dict[str, Any]:
    """The fields of a resource as JSON-able settings, secrets as references."""
    return {field.name: _describe(getattr(resource, field.name)) for field in msgspec.structs.fields(resource)}


def _describe(value: Any) -> Any:
    return describe_resource(value) if isinstance(value, ConfigurableResource) else mask(value)


def hash_json(data: Any, scheme: str = "cfg1") -> str:
    """A version of JSON-able data: `scheme:` and 32 hex digits of the BLAKE2b of its canonical form."""
    text = json.dumps(data, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return f"{scheme}:{hashlib.blake2b(text.encode(), digest_size=16).hexdigest()}"
