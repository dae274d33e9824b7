"""What a value is and what a reader wants, decided by module and class name: no library is imported for it."""

import ast
import collections.abc
import types
import typing
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any, cast


class Representation(StrEnum):
    """The forms in which data is handed to and taken from user code."""

    POLARS = "polars.DataFrame"
    POLARS_LAZY = "polars.LazyFrame"
    PANDAS = "pandas.DataFrame"
    ARROW = "pyarrow.Table"
    ARROW_READER = "pyarrow.RecordBatchReader"
    DUCKDB = "duckdb.DuckDBPyRelation"
    #: A plain value that JSON has: None, a boolean, a number, text, a list or a dict of these.
    VALUE = "value"
    #: Nothing that is known here.
    UNKNOWN = "unknown"

    @property
    def is_frame(self) -> bool:
        """Whether it is a table of some kind."""
        return self not in (Representation.VALUE, Representation.UNKNOWN)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an annotation asks for."""

    representation: Representation
    #: Whether it allows None.
    optional: bool = False


@dataclass(frozen=True, slots=True)
class MappingOf:
    """What an annotation like `dict[str, T]` asks for."""

    #: T, a type or text; None where there is none.
    element: Any = None


_BY_CLASS = {
    ("polars", "DataFrame"): Representation.POLARS,
    ("polars", "LazyFrame"): Representation.POLARS_LAZY,
    ("pandas", "DataFrame"): Representation.PANDAS,
    ("pyarrow", "Table"): Representation.ARROW,
    ("pyarrow", "RecordBatch"): Representation.ARROW,
    ("pyarrow", "RecordBatchReader"): Representation.ARROW_READER,
    ("duckdb", "DuckDBPyRelation"): Representation.DUCKDB,
    ("_duckdb", "DuckDBPyRelation"): Representation.DUCKDB,
}
#: How people abbreviate the modules in annotations that are only text.
_MODULES = {"pl": "polars", "pd": "pandas", "pa": "pyarrow"}
#: Names that only one of the libraries has.
_UNMISTAKABLE = {
    "LazyFrame": Representation.POLARS_LAZY,
    "RecordBatchReader": Representation.ARROW_READER,
    "DuckDBPyRelation": Representation.DUCKDB,
}
_PLAIN = frozenset({"bool", "int", "float", "str", "list", "dict", "List", "Dict"})
_MAPPINGS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)
_MAPPING_NAMES = frozenset({"dict", "Dict", "Mapping", "MutableMapping"})
_MAPPING_MODULES = frozenset({"", "builtins", "typing", "t", "collections.abc", "abc"})
_ANYTHING_NAMES = frozenset({"Any", "typing.Any", "t.Any", "object", "builtins.object", ""})
_NOTHING = Wanted(Representation.UNKNOWN)


def of_value(value: Any) -> Representation:
    """What a returned value is. VALUE says that it may be plain, not that everything inside of it is."""
    return of_class(cast(type[Any], type(value)))


@lru_cache(maxsize=1024)
def of_class(cls: type[Any]) -> Representation:
    """What instances of a class are; a subclass is what its base is."""
    for base in cls.__mro__:
        found = _BY_CLASS.get((base.__module__.partition(".")[0], base.__name__))
        if found is not None:
            return found
    if issubclass(cls, bool | int | float | str | list | dict | types.NoneType):
        return Representation.VALUE
    if hasattr(cls, "__arrow_c_stream__"):
        return Representation.ARROW_READER
    module = cls.__module__.partition(".")[0]
    return Representation.VALUE if module == "numpy" and hasattr(cls, "item") else Representation.UNKNOWN


def class_name(value: object) -> str:
    """The class of a value as errors name it."""
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def of_name(name: str | None) -> Representation:
    """The representation that a pointer names; UNKNOWN for the name of anything else."""
    try:
        return Representation(name)
    except ValueError:
        return Representation.UNKNOWN


def says_nothing(annotation: Any) -> bool:
    """Whether an annotation leaves it open what is wanted: None, `Any`, `object`."""
    if isinstance(annotation, str):
        return annotation.strip() in _ANYTHING_NAMES
    return annotation is None or annotation is Any or annotation is object


def mapping_of(annotation: Any) -> MappingOf | None:
    """What a `dict`, `dict[str, T]` or `Mapping[str, T]` asks for, optional or not; None for any other annotation."""
    if isinstance(annotation, str):
        return _mapping_of_text(annotation)
    if isinstance(annotation, typing.ForwardRef):
        return _mapping_of_text(annotation.__forward_arg__)
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return mapping_of(arguments[0])
    if origin in (typing.Union, types.UnionType):
        parts = [part for part in arguments if part is not types.NoneType]
        return mapping_of(parts[0]) if len(parts) == 1 else None
    if (origin or annotation) not in _MAPPINGS:
        return None
    # A bare `typing.Dict` has type variables for arguments in some versions of Python.
    given = len(arguments) == 2 and not isinstance(arguments[1], typing.TypeVar)
    return MappingOf(arguments[1] if given else None)


def of_annotation(annotation: Any) -> Wanted:
    """What an annotation asks for: a type, or the text of one; unions of several forms ask for nothing."""
    if annotation is None or annotation is types.NoneType:
        return Wanted(Representation.UNKNOWN, optional=annotation is not None)
    if isinstance(annotation, str):
        return _of_text(annotation)
    if isinstance(annotation, typing.ForwardRef):
        return _of_text(annotation.__forward_arg__)
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return of_annotation(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return _of_union([of_annotation(part or types.NoneType) for part in typing.get_args(annotation)])
    cls: Any = origin or annotation
    if not isinstance(cls, type):
        return _NOTHING
    found = of_class(cast(type[Any], cls))
    return Wanted(found) if found.is_frame or cls.__name__ in _PLAIN else _NOTHING


def _of_union(parts: list[Wanted]) -> Wanted:
    optional = any(part.optional for part in parts)
    forms = {part.representation for part in parts if not (part.optional and not part.representation.is_frame)}
    return Wanted(forms.pop() if len(forms) == 1 else Representation.UNKNOWN, optional)


@lru_cache(maxsize=1024)
def _of_text(text: str) -> Wanted:
    try:
        return _of_node(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return _NOTHING


@lru_cache(maxsize=1024)
def _mapping_of_text(text: str) -> MappingOf | None:
    try:
        return _mapping_of_node(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _mapping_of_node(node: ast.expr) -> MappingOf | None:
    match node:
        case ast.Constant(value=str(text)):
            return _mapping_of_text(text)
        case ast.BinOp(op=ast.BitOr()):
            return _mapping_of_union(_alternatives(node))
        case ast.Subscript(value=value, slice=inside):
            parts = inside.elts if isinstance(inside, ast.Tuple) else [inside]
            match ast.unparse(value).rpartition(".")[2]:
                case "Optional" | "Union":
                    return _mapping_of_union(parts)
                case "Annotated":
                    return _mapping_of_node(parts[0])
                case _ if _mapping_of_node(value) is None:
                    return None
                case _:
                    return MappingOf(ast.unparse(parts[1]) if len(parts) == 2 else None)
        case ast.Name() | ast.Attribute():
            module, _, name = ast.unparse(node).rpartition(".")
            return MappingOf() if name in _MAPPING_NAMES and module in _MAPPING_MODULES else None
        case _:
            return None


def _mapping_of_union(parts: list[ast.expr]) -> MappingOf | None:
    found = [part for part in parts if not (isinstance(part, ast.Constant) and part.value is None)]
    return _mapping_of_node(found[0]) if len(found) == 1 else None


def _alternatives(node: ast.expr) -> list[ast.expr]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return [*_alternatives(node.left), *_alternatives(node.right)]
    return [node]


def _of_node(node: ast.expr) -> Wanted:
    match node:
        case ast.Constant(value=None):
            return Wanted(Representation.UNKNOWN, optional=True)
        case ast.Constant(value=str(text)):
            return _of_text(text)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _of_union([_of_node(left), _of_node(right)])
        case ast.Subscript(value=value, slice=inside):
            parts = inside.elts if isinstance(inside, ast.Tuple) else [inside]
            match ast.unparse(value).rpartition(".")[2]:
                case "Optional":
                    return _of_union([_of_node(parts[0]), Wanted(Representation.UNKNOWN, optional=True)])
                case "Union":
                    return _of_union([_of_node(part) for part in parts])
                case "Annotated":
                    return _of_node(parts[0])
                case _:
                    return _of_node(value)
        case ast.Name() | ast.Attribute():
            return _of_name(ast.unparse(node))
        case _:
            return _NOTHING


def _of_name(dotted: str) -> Wanted:
    module, _, name = dotted.rpartition(".")
    first = module.partition(".")[0]
    found = _BY_CLASS.get((_MODULES.get(first, first), name)) or _UNMISTAKABLE.get(name)
    if found is None and name in _PLAIN and first in ("", "builtins", "typing"):
        found = Representation.VALUE
    return Wanted(found) if found else _NOTHING
