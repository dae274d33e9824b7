"""Configuration: classes that say what it looks like, and values that come from the environment.

A `Config` class is a msgspec struct: fields with types and defaults, checked when a run's configuration is
bound, before any step starts. Models of other libraries with `model_validate` and `model_dump` (pydantic) work too.
"""

import copy
import functools
import os
import sys
from abc import ABCMeta
from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, TypeGuard, cast

import msgspec

from headwater.catalog.errors import ConfigError, DefinitionError

#: A default that is one of these could be changed: every instance gets its own copy.
_MUTABLE = (list, dict, set, bytearray)


class FieldsMeta(msgspec.StructMeta, ABCMeta):
    """Makes the classes whose annotated attributes are fields, with defaults of any kind, abstract ones as well."""

    def __new__(mcls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **settings: Any) -> Any:
        """The class, in which a mutable default is a recipe for copies.

        Raises `DefinitionError` for a field that would hide a method.
        """
        for field, annotation in _annotations(namespace).items():
            if any(callable(getattr(base, field, None)) for base in bases):
                raise DefinitionError(
                    f"{namespace.get('__module__')}.{name} has the field `{field}`, which would hide a method.",
                    remedy="Give the field another name.",
                )
            default = namespace.get(field)
            if isinstance(default, _MUTABLE) and "ClassVar" not in str(annotation):
                namespace[field] = msgspec.field(default_factory=functools.partial(copy.deepcopy, default))
        return super().__new__(mcls, name, bases, namespace, **settings)


def _annotations(namespace: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a class body annotates, from the namespace that it left."""
    if "__annotations__" in namespace or sys.version_info < (3, 14):
        return namespace.get("__annotations__", {})
    import annotationlib

    annotate = annotationlib.get_annotate_from_class_namespace(namespace)
    return annotationlib.call_annotate_function(annotate, annotationlib.Format.FORWARDREF) if annotate else {}


if TYPE_CHECKING:

    class _Frozen(msgspec.Struct, metaclass=FieldsMeta, kw_only=True):
        """Type checkers want `frozen` repeated by every subclass; msgspec hands it down."""

else:

    class _Frozen(msgspec.Struct, metaclass=FieldsMeta, frozen=True, kw_only=True, forbid_unknown_fields=True):
        """What a config is at run time: it does not change, and takes no fields that it does not have."""


class Config(_Frozen):
    """Subclass it and annotate the fields; take it as a parameter of an asset function.

    ```python
    class Limits(Config):
        top: int = 10

    @asset
    def best(config: Limits, flights: pl.DataFrame): ...
    ```
    """


class EnvVar(str):
    """The value of an environment variable, looked up when a run starts and never stored or shown.

    It stands where a string is expected; `EnvVar.int("PORT")` where a number is. In configuration that is written
    down, `{"env": "PORT"}` means the same.
    """

    __slots__ = ("kind",)
    kind: type

    def __new__(cls, name: str, kind: type = str) -> "EnvVar":
        """The variable `name`, whose value is converted to `kind`: str, int, float or bool."""
        self = super().__new__(cls, name)
        self.kind = kind
        return self

    @classmethod
    def int(cls, name: str) -> Any:
        """A variable that holds a whole number."""
        return cls(name, int)

    @property
    def name(self) -> str:
        """The variable's name."""
        return str.__str__(self)

    @property
    def reference(self) -> str:
        """How it is shown and recorded: `env:NAME`."""
        return f"env:{self.name}"

    def get_value(self, default: str | None = None) -> str | None:
        """The variable's value now, or `default`."""
        return os.environ.get(self.name, default)

    def resolve(self, path: str) -> Any:
        """The value now, of the right type. Raises `ConfigError` naming `path` and the variable, never the value."""
        value = os.environ.get(self.name)
        if value is None:
            raise ConfigError(
                f"{path}: the environment variable {self.name} is not set.",
                remedy=f"export {self.name}=… and run again.",
            )
        try:
            return msgspec.convert(value, cast(type[Any], self.kind), strict=False)
        except msgspec.ValidationError:
            raise ConfigError(
                f"{path}: the environment variable {self.name} does not hold a valid {self.kind.__name__}.",
                remedy="Correct it and run again.",
            ) from None

    def __repr__(self) -> str:
        return f"EnvVar({self.name!r})"


def is_config_class(annotation: Any) -> TypeGuard[type]:
    """Whether a parameter annotated so receives configuration."""
    return isinstance(annotation, type) and (
        issubclass(annotation, Config)
        or (hasattr(cast(Any, annotation), "model_validate") and hasattr(cast(Any, annotation), "model_dump"))
    )


def bind_config(cls: type, data: Any, path: str) -> Any:
    """An instance of the config class `cls` made of `data`, with references to the environment resolved.

    `data` is a mapping, an instance of `cls`, or None for the defaults. Variables are text, so numbers may be
    text wherever there is a reference. Raises `ConfigError` whose message starts with the precise path, such as
    `ops:best:config:top`, and never holds a value from the environment.
    """
    bound = _make(cls, _plain(data), path)
    held = _plain(bound)
    return _make(cls, held, path) if references(held) else bound  # a default refers to the environment


def describe_config(cls: type, data: Any, path: str) -> Any:
    """A config as plain JSON data for the record, the same whatever the environment holds.

    What comes from the environment is shown as `env:NAME`. Raises `ConfigError` for data that does not fit.
    """
    given = _plain(data)
    if not references(given):
        return mask(_plain(_make(cls, given, path)))
    return mask({**_defaults(cls), **given} if isinstance(given, Mapping) else given)


def references(data: Any) -> list[EnvVar]:
    """Every reference to the environment in `data`."""
    found: list[EnvVar] = []
    substitute(data, lambda reference, _: found.append(reference))
    return found


def config_references(cls: type, data: Any) -> list[EnvVar]:
    """Every reference to the environment in a config of class `cls` made of `data`, its defaults included."""
    return references([_defaults(cls), _plain(data)])


def resolve(data: Any, path: str) -> Any:
    """`data` with every reference replaced by the variable's value. Raises `ConfigError` naming the path."""
    return substitute(data, EnvVar.resolve, path)


def mask(data: Any) -> Any:
    """`data` as JSON data, references as `env:NAME`, objects that JSON does not have as the name of their class."""
    shown = substitute(data, lambda reference, _: reference.reference)
    return msgspec.to_builtins(shown, str_keys=True, order="deterministic", enc_hook=_stand_in)


def substitute(data: Any, replace: Callable[[EnvVar, str], Any], path: str = "") -> Any:
    """`data` with what `replace(reference, its path)` gives for each `EnvVar` and each `{"env": "NAME"}`."""
    match data:
        case EnvVar():
            return replace(data, path)
        case {"env": str(name), **rest} if not rest:
            return replace(EnvVar(name), path)
        case Mapping():
            items = cast(Mapping[Any, Any], data).items()
            return {key: substitute(item, replace, f"{path}:{key}") for key, item in items}
        case list() | tuple():
            return [substitute(item, replace, f"{path}:{i}") for i, item in enumerate(cast(list[Any], data))]
        case _:
            return data


def explain(error: Exception, data: Any) -> str:
    """What a library says of `data` that does not fit, unless it would show a value from the environment."""
    message = str(error)
    for reference in references(data):
        value = reference.get_value()
        if value and value in message:
            return f"what {reference.reference} holds does not fit"
    return message


def _make(cls: type, data: Any, path: str) -> Any:
    resolved = resolve({} if data is None else data, path)
    if not issubclass(cls, msgspec.Struct):
        try:
            return cast(Any, cls).model_validate(resolved)
        except ValueError as error:
            raise ConfigError(f"{path}: {explain(error, data)}", remedy="Correct the configuration.") from None
    try:
        return msgspec.convert(resolved, cls, strict=not references(data))
    except msgspec.ValidationError as error:
        reason, _, where = explain(error, data).partition(" - at `$")
        parts = where.rstrip("`").replace("[", ".").replace("]", "").split(".")
        place = ":".join([path, *(part for part in parts if part)])
        raise ConfigError(
            f"{place}: {reason}.", remedy=f"{cls.__name__} has the fields {', '.join(_describe_fields(cls))}."
        ) from None


def _plain(value: Any) -> Any:
    """Config instances, anywhere in `value`, as mappings; references stay what they are."""
    match value:
        case EnvVar():
            return value
        case msgspec.Struct():
            return {f.encode_name: _plain(getattr(value, f.name)) for f in msgspec.structs.fields(value)}
        case Mapping():
            return {key: _plain(item) for key, item in cast(Mapping[Any, Any], value).items()}
        case list() | tuple():
            return [_plain(item) for item in cast(list[Any], value)]
        case _ if is_config_class(type(value)):
            return _plain(value.model_dump())
        case _:
            return value


def _defaults(cls: type) -> dict[str, Any]:
    if not issubclass(cls, msgspec.Struct):
        return {}
    defaults: dict[str, Any] = {}
    for field in msgspec.structs.fields(cls):
        if field.default is not msgspec.NODEFAULT:
            defaults[field.encode_name] = _plain(field.default)
        elif field.default_factory is not msgspec.NODEFAULT:
            defaults[field.encode_name] = _plain(field.default_factory())
    return defaults


def _describe_fields(cls: type[msgspec.Struct]) -> list[str]:
    described: list[str] = []
    for field in msgspec.structs.fields(cls):
        kind = getattr(field.type, "__name__", str(field.type))
        described.append(f"{field.encode_name}: {kind}" + (" (required)" if field.required else ""))
    return described or ["none"]


def _stand_in(value: object) -> str:
    """What is shown of a value that JSON does not have; not its module, which depends on how that was imported."""
    return str(value) if isinstance(value, PurePath) else type(value).__qualname__
