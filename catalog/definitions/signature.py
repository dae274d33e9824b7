"""What an asset function asks for: the role of each parameter, read from its name and annotation."""

import re
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import FunctionType, NoneType
from typing import TYPE_CHECKING, Any, cast, get_origin

from headwater.catalog.config import is_config_class
from headwater.catalog.definitions.dependencies import AssetIn, PartitionColumns
from headwater.catalog.definitions.resource import is_resource_annotation
from headwater.catalog.definitions.results import MaterializeResult, Output
from headwater.catalog.definitions.source import SourceLocation
from headwater.catalog.errors import DefinitionError, nearest
from headwater.catalog.keys import AssetKey

if TYPE_CHECKING:
    from headwater.catalog.partitions.mapping import PartitionMapping

_TAKES_KEYWORDS = 0x08
_IS_ASYNC = 0x80 | 0x200
_SPECIAL = _TAKES_KEYWORDS | _IS_ASYNC
#: `Output[T]` as text, where T is a name that only type checkers see.
_RESULT_TEXT = re.compile(r"(?:\w+\.)*(?:Output|MaterializeResult)(?:\[(.*)\])?", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class InputDefinition:
    """A parameter that is filled with an upstream asset's value."""

    parameter: str
    key: AssetKey
    #: True where the key is just the parameter's name, which may turn out to name a resource.
    by_name: bool
    #: True where the parameter has a default, which is used if no asset is called so.
    optional: bool = False
    #: The annotation: a type, the text of one that could not be evaluated, or None.
    annotation: Any = None
    columns: tuple[str, ...] | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])
    input_manager_key: str | None = None
    #: As it was given: what is not is inferred, and stands in the graph.
    partition_mapping: "PartitionMapping | None" = None
    #: The columns by which a frame of several partitions tells them apart; None for none.
    partition_columns: PartitionColumns | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """The roles of a function's parameters, and what it says it returns."""

    inputs: tuple[InputDefinition, ...] = ()
    #: Parameter → name of the resource that fills it.
    resources: Mapping[str, str] = field(default_factory=dict[str, str])
    #: Parameter → the class that its annotation wants the resource to be of, where it is one.
    resource_classes: Mapping[str, type] = field(default_factory=dict[str, type])
    context_parameter: str | None = None
    config_parameter: str | None = None
    config_class: type | None = None
    return_annotation: Any = None
    #: True for `-> None`: the function stores what it makes by itself.
    stores_nothing: bool = False


_NOTHING = Signature()


def read_signature(function: FunctionType, ins: Mapping[str, AssetIn], source: SourceLocation) -> Signature:
    """What each parameter of `function` is for; `ins` says more of some. Raises `DefinitionError`."""
    code = function.__code__
    if ins:
        _check_ins(ins, source)
    if not (ins or code.co_argcount or code.co_kwonlyargcount or code.co_flags & _SPECIAL or function.__annotations__):
        return _NOTHING
    annotations: dict[str, Any] = {}
    defaulted: dict[str, bool] = {}  # every parameter, and whether it has a default
    takes_any = False
    for level in _levels(function):
        code = level.__code__
        if code.co_flags & _IS_ASYNC:
            raise DefinitionError(
                f"{source}: {function.__name__}() is asynchronous; an asset function is not.",
                remedy="Write `def`, and run what has to be awaited with asyncio.run(…) in it.",
            )
        if code.co_posonlyargcount:
            raise DefinitionError(
                f"{source}: {function.__name__}() has positional-only parameters; an asset's are filled by name.",
                remedy="Remove the `/`.",
            )
        names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        values = len(level.__defaults__ or ())
        with_default = {*names[code.co_argcount - values : code.co_argcount], *(level.__kwdefaults__ or ())}
        for name in names:
            defaulted.setdefault(name, name in with_default)
        if level.__annotations__:
            annotations.update((n, evaluate_annotation(a, level)) for n, a in level.__annotations__.items())
        takes_any = bool(code.co_flags & _TAKES_KEYWORDS)
    if ins:
        unknown = [parameter for parameter in ins if parameter not in defaulted and not takes_any]
        if unknown:
            raise DefinitionError(
                f"{source}: ins names `{unknown[0]}`, which is no parameter of {function.__name__}().",
                remedy=nearest(unknown[0], defaulted, f"Its parameters are {', '.join(defaulted) or 'none'}."),
            )
        defaulted = {**defaulted, **dict.fromkeys(ins, False)}
    return _assign(function, ins, source, annotations, defaulted)


def _assign(
    function: FunctionType,
    ins: Mapping[str, AssetIn],
    source: SourceLocation,
    annotations: Mapping[str, Any],
    defaulted: Mapping[str, bool],
) -> Signature:
    inputs: list[InputDefinition] = []
    resources: dict[str, str] = {}
    resource_classes: dict[str, type] = {}
    context: list[str] = []
    config: list[tuple[str, type]] = []
    for parameter, optional in defaulted.items():
        annotation = annotations.get(parameter)
        given = ins.get(parameter)
        if given is not None:
            inputs.append(_given_input(parameter, given, annotation))
        elif parameter in ("context", "_context") or _is_context(annotation):
            context.append(parameter)
        elif is_config_class(annotation):
            config.append((parameter, annotation))
        elif is_resource_annotation(annotation):
            resources[parameter] = parameter
            if isinstance(annotation, type):
                resource_classes[parameter] = annotation
        else:
            key = AssetKey(parameter)
            inputs.append(
                InputDefinition(parameter=parameter, key=key, by_name=True, optional=optional, annotation=annotation)
            )
    for role, several in (("context", context), ("config", [name for name, _ in config])):
        if len(several) > 1:
            raise DefinitionError(
                f"{source}: {function.__name__}() has several {role} parameters, {' and '.join(several)}.",
                remedy="Keep one of them.",
            )
    returned = annotations.get("return", _UNSAID)
    return Signature(
        inputs=tuple(inputs),
        resources=resources,
        resource_classes=resource_classes,
        context_parameter=context[0] if context else None,
        config_parameter=config[0][0] if config else None,
        config_class=config[0][1] if config else None,
        return_annotation=None if returned is _UNSAID else _unwrap_result(returned),
        stores_nothing=returned is None or returned is NoneType,
    )


_UNSAID = object()


def _check_ins(ins: object, source: SourceLocation) -> None:
    values: list[object] = list(cast(Mapping[Any, Any], ins).values()) if isinstance(ins, Mapping) else [ins]
    wrong = [value for value in values if not isinstance(value, AssetIn)]
    if wrong or not isinstance(ins, Mapping):
        raise DefinitionError(
            f"{source}: ins holds AssetIns by parameter, not a {type((wrong or [ins])[0]).__name__}.",
            remedy="Write ins={'parameter': AssetIn('key')}.",
        )


def _given_input(parameter: str, given: AssetIn, annotation: Any) -> InputDefinition:
    return InputDefinition(
        parameter=parameter,
        key=given.key or AssetKey([*given.key_prefix, parameter]),
        by_name=given.key is None and not given.key_prefix,
        annotation=annotation,
        columns=given.columns,
        metadata=given.metadata,
        input_manager_key=given.input_manager_key,
        partition_mapping=given.partition_mapping,
        partition_columns=given.partition_columns,
    )


def _levels(function: FunctionType) -> Iterator[FunctionType]:
    """The function and, for as long as they hand on any keyword, what it wraps (`functools.wraps`)."""
    seen: list[Any] = []
    level: Any = function
    while isinstance(level, FunctionType) and level not in seen:
        seen.append(level)
        yield level
        level = getattr(level, "__wrapped__", None) if level.__code__.co_flags & _TAKES_KEYWORDS else None


def evaluate_annotation(annotation: Any, function: FunctionType) -> Any:
    """An annotation as the object it names, or, where a name is not there at run time, as its text."""
    if not isinstance(annotation, str):
        return annotation
    try:
        return eval(annotation, function.__globals__)  # noqa: S307  (what Python itself would have done)
    except Exception:
        return annotation


def _is_context(annotation: Any) -> bool:
    if isinstance(annotation, str):
        return annotation.rpartition(".")[2] == "AssetExecutionContext"
    return isinstance(annotation, type) and getattr(annotation, "__headwater_context__", False)


def _unwrap_result(annotation: Any) -> Any:
    """`Output[T]`, `MaterializeResult[T]` and iterators of them as T; the bare classes say nothing of the value."""
    if isinstance(annotation, str):
        match = _RESULT_TEXT.fullmatch(annotation.strip())
        return match.group(1) if match else annotation
    origin = get_origin(annotation) or annotation
    if any(origin is result for result in (Output, MaterializeResult)):
        return _first_argument(annotation)
    if any(origin is iterator for iterator in (Generator, Iterable, Iterator)):
        return _unwrap_result(_first_argument(annotation))
    return annotation


def _first_argument(annotation: Any) -> Any:
    arguments = getattr(annotation, "__args__", ())
    return arguments[0] if arguments else None
