"""Metadata: facts attached to a definition or to one materialization, each with a kind that says how to show it.

`normalize` turns what users write (plain Python values, or `MetadataValue.md("…")`) into `MetadataValue`s;
`to_json` and `from_json` keep them: `{"kind": "md", "value": "## title"}`.
"""

import functools
import json
import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from enum import StrEnum
from pathlib import PurePath
from typing import Any, ParamSpec, SupportsFloat, SupportsIndex, TypeVar, cast

from headwater.catalog.errors import HeadwaterError, UserCodeError
from headwater.catalog.keys import AssetKey, CoercibleToAssetKey
from headwater.catalog.printable import printable_line

#: Bytes of one metadata value as JSON, entries of one event, bytes of all of them together, bytes of a label.
MAX_VALUE_BYTES = 64 * 1024
MAX_ENTRIES = 256
MAX_TOTAL_BYTES = 1024 * 1024
MAX_LABEL_BYTES = 512
#: Levels of JSON inside each other.
MAX_DEPTH = 64

#: What a timestamp may be, in seconds since 1970.
FIRST_SECOND = datetime.min.replace(tzinfo=UTC).timestamp()
LAST_SECOND = datetime.max.replace(tzinfo=UTC, microsecond=0).timestamp()

#: The class below has methods called int and float.
Number = int | float

P = ParamSpec("P")
T = TypeVar("T")
#: What numbers of other libraries are, too.
_Int, _Float = SupportsIndex, SupportsFloat | SupportsIndex


class MetadataKind(StrEnum):
    """How a metadata value is meant, and so how it is shown."""

    TEXT = "text"
    INT = "int"
    FLOAT = "float"
    BOOL = "bool"
    NULL = "null"
    JSON = "json"
    MARKDOWN = "md"
    PATH = "path"
    URL = "url"
    NOTEBOOK = "notebook"
    TIMESTAMP = "timestamp"
    TABLE = "table"
    TABLE_SCHEMA = "table_schema"
    COLUMN_LINEAGE = "column_lineage"
    PYTHON_ARTIFACT = "python_artifact"
    ASSET = "asset"
    JOB = "job"
    RUN = "dagster_run"
    POOL = "pool"


@dataclass(frozen=True, slots=True)
class TableColumnConstraints:
    """What holds for the values of a column."""

    nullable: bool = True
    unique: bool = False
    other: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "other", tuple(self.other))


@dataclass(frozen=True, slots=True)
class TableColumn:
    """A column: its name, its type as text, what holds for it."""

    name: str
    type: str = "string"
    description: str | None = None
    constraints: TableColumnConstraints = TableColumnConstraints()
    tags: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class TableConstraints:
    """What holds for a table as a whole."""

    other: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "other", tuple(self.other))


@dataclass(frozen=True, slots=True)
class TableSchema:
    """The columns of a table, in order."""

    columns: tuple[TableColumn, ...]
    constraints: TableConstraints = TableConstraints()

    def __init__(self, columns: Iterable[TableColumn], constraints: TableConstraints | None = None) -> None:
        object.__setattr__(self, "columns", tuple(columns))
        object.__setattr__(self, "constraints", constraints or TableConstraints())

    @staticmethod
    def from_name_type_dict(columns: Mapping[str, Any]) -> "TableSchema":
        """A schema of names and types alone."""
        return TableSchema(
            [
                TableColumn(name, kind.__name__ if isinstance(kind, type) else str(kind))
                for name, kind in columns.items()
            ]
        )


@dataclass(frozen=True, slots=True)
class TableRecord:
    """One row of a table shown as metadata."""

    data: Mapping[str, str | int | float | bool | None]


@dataclass(frozen=True, slots=True)
class TableColumnDep:
    """A column that another one is computed from."""

    asset_key: AssetKey
    column_name: str

    def __init__(self, asset_key: CoercibleToAssetKey, column_name: str) -> None:
        object.__setattr__(self, "asset_key", AssetKey(asset_key))
        object.__setattr__(self, "column_name", column_name)


@dataclass(frozen=True, slots=True)
class TableColumnLineage:
    """For each column of a table, the columns it is computed from."""

    deps_by_column: Mapping[str, Sequence[TableColumnDep]]


def _explained(make: Callable[P, T]) -> Callable[P, T]:
    """What a method of `MetadataValue` raises about its argument, as `UserCodeError` that names the method."""

    @functools.wraps(make)
    def explained(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return make(*args, **kwargs)
        except HeadwaterError:
            raise
        except Exception as error:  # a value's own methods may raise anything
            raise UserCodeError(
                f"MetadataValue.{make.__name__}(…) cannot keep this: {error}.",
                remedy=f"It is for: {make.__doc__}" if make.__doc__ else "",
            ) from None

    return explained


def _wanted(value: Any, kind: Any, what: str) -> Any:
    """`value` itself, where it is of a kind."""
    if isinstance(value, kind):
        return value
    raise TypeError(f"a {type(value).__name__} is not {what}")


@dataclass(frozen=True, slots=True)
class MetadataValue:
    """A fact and its kind. Build one with the static methods; `value` is always plain JSON data.

    The shapes of `value`: a scalar for text, int, float, bool, null, md, path, url, notebook, python_artifact
    (`module:name`), asset, job, dagster_run, pool; seconds since 1970 for timestamp; any JSON for json;
    `{"columns": […], "records": […]}` for table; `{"columns": […], "constraints": […]}` for table_schema;
    `{column: [[asset key, column], …]}` for column_lineage. Each raises `UserCodeError` for what is not of its kind.
    """

    kind: MetadataKind
    value: Any

    @staticmethod
    @_explained
    def text(text: str) -> "MetadataValue":
        """Plain text."""
        return MetadataValue(MetadataKind.TEXT, str(text))

    @staticmethod
    @_explained
    def int(value: int) -> "MetadataValue":
        """A whole number of 64 bits."""
        return _normalize_int(_wanted(value, _Int, "a whole number"))

    @staticmethod
    @_explained
    def float(value: float) -> "MetadataValue":
        """A number; NaN and the infinities are kept."""
        return MetadataValue(MetadataKind.FLOAT, _json_float(_wanted(value, _Float, "a number")))

    @staticmethod
    @_explained
    def bool(value: bool) -> "MetadataValue":
        """True or false."""
        return MetadataValue(MetadataKind.BOOL, bool(value))

    @staticmethod
    @_explained
    def null() -> "MetadataValue":
        """Nothing, on purpose."""
        return MetadataValue(MetadataKind.NULL, None)

    @staticmethod
    @_explained
    def json(data: Any) -> "MetadataValue":
        """Any JSON-able data."""
        return MetadataValue(MetadataKind.JSON, _json_data(data))

    @staticmethod
    @_explained
    def md(text: str) -> "MetadataValue":
        """Markdown."""
        return MetadataValue(MetadataKind.MARKDOWN, str(text))

    @staticmethod
    @_explained
    def path(path: str | PurePath) -> "MetadataValue":
        """A file or folder."""
        return MetadataValue(MetadataKind.PATH, str(path))

    @staticmethod
    @_explained
    def url(url: str) -> "MetadataValue":
        """An address."""
        return MetadataValue(MetadataKind.URL, str(url))

    @staticmethod
    @_explained
    def notebook(path: str | PurePath) -> "MetadataValue":
        """A notebook file."""
        return MetadataValue(MetadataKind.NOTEBOOK, str(path))

    @staticmethod
    @_explained
    def timestamp(value: datetime | Number) -> "MetadataValue":
        """A moment of the years 1 to 9999: an aware datetime, or seconds since 1970."""
        if isinstance(value, datetime):
            if value.tzinfo is None:
                raise UserCodeError(
                    f"The timestamp {value.isoformat()} has no time zone.",
                    remedy="Use an aware datetime, such as datetime.now(timezone.utc).",
                )
            value = value.timestamp()
        seconds = float(_wanted(value, _Float, "a datetime or a number of seconds"))
        if not FIRST_SECOND <= seconds <= LAST_SECOND:
            raise UserCodeError(
                f"The timestamp {seconds} is not between the years 1 and 9999.",
                remedy="Give seconds since 1970, not milliseconds or nanoseconds.",
            )
        return MetadataValue(MetadataKind.TIMESTAMP, seconds)

    @staticmethod
    @_explained
    def table(records: Sequence[TableRecord | Mapping[str, Any]], schema: TableSchema | None = None) -> "MetadataValue":
        """A small table, shown whole."""
        _wanted(records, Iterable, "a list of rows")
        rows = [_json_data(record.data if isinstance(record, TableRecord) else record) for record in records]
        if schema is None:
            names = dict.fromkeys(name for row in rows for name in row)
            schema = TableSchema([TableColumn(name, _kind_of_first(rows, name)) for name in names])
        return MetadataValue(MetadataKind.TABLE, {**_schema_to_json(schema), "records": rows})

    @staticmethod
    @_explained
    def table_schema(schema: TableSchema | Mapping[str, Any]) -> "MetadataValue":
        """A schema; a plain mapping of names to types will do."""
        if not isinstance(schema, TableSchema):
            schema = TableSchema.from_name_type_dict(_wanted(schema, Mapping, "a TableSchema or a mapping of types"))
        return MetadataValue(MetadataKind.TABLE_SCHEMA, _schema_to_json(schema))

    @staticmethod
    @_explained
    def column_lineage(
        lineage: TableColumnLineage | Mapping[str, Sequence[TableColumnDep]],
    ) -> "MetadataValue":
        """Which columns each column comes from."""
        deps = lineage.deps_by_column if isinstance(lineage, TableColumnLineage) else lineage
        _wanted(deps, Mapping, "a TableColumnLineage or a mapping of columns")
        value = {column: [[str(dep.asset_key), dep.column_name] for dep in sources] for column, sources in deps.items()}
        return MetadataValue(MetadataKind.COLUMN_LINEAGE, value)

    @staticmethod
    @_explained
    def python_artifact(thing: Any) -> "MetadataValue":
        """A function or class, by module and name."""
        return MetadataValue(MetadataKind.PYTHON_ARTIFACT, f"{thing.__module__}:{thing.__qualname__}")

    @staticmethod
    @_explained
    def asset(key: CoercibleToAssetKey) -> "MetadataValue":
        """A reference to an asset."""
        return MetadataValue(MetadataKind.ASSET, str(AssetKey(key)))

    @staticmethod
    @_explained
    def job(name: str) -> "MetadataValue":
        """A reference to a job."""
        return MetadataValue(MetadataKind.JOB, str(name))

    @staticmethod
    @_explained
    def dagster_run(run_id: str) -> "MetadataValue":
        """A reference to a run; `run` is the shorter name."""
        return MetadataValue(MetadataKind.RUN, str(run_id))

    run = dagster_run

    @staticmethod
    def pool(name: str) -> "MetadataValue":
        """A reference to a pool."""
        return MetadataValue(MetadataKind.POOL, str(name))


#: What users may write as the value of a metadata entry.
RawMetadata = Mapping[str, Any]


def metadata_line(metadata: Mapping[str, "MetadataValue"]) -> str:
    """All of it in a line of a log."""
    return printable_line(json.dumps(to_json(metadata), ensure_ascii=False), MAX_VALUE_BYTES)


def normalize(metadata: RawMetadata | None, owner: str) -> dict[str, MetadataValue]:
    """Every value with its kind: scalars by type, dicts and lists as JSON, paths as paths, schemas as schemas.

    A string stays text even when it looks like an address, a date becomes text; inside JSON, NaN and the infinities
    become text too, and sets sorted lists. `owner` names, in errors, whose metadata it is.
    Raises `UserCodeError` naming the entry for a value that cannot be kept, is too large, or one too many.
    """
    if not metadata:
        return {}
    if len(metadata) > MAX_ENTRIES:
        raise UserCodeError(
            f"{owner} has {len(metadata)} metadata entries; {MAX_ENTRIES} is the most.",
            remedy="Put them together as one MetadataValue.json(…), or store them as an asset.",
        )
    result: dict[str, MetadataValue] = {}
    total = 0
    for label, raw in metadata.items():
        try:
            name = _checked_label(label)
            entry = _normalize_value(raw)
            total += _json_size(entry.value)
        except Exception as error:  # the value's own methods may raise anything
            reason = error.message if isinstance(error, UserCodeError) else str(error)
            raise UserCodeError(
                f"{owner}: the metadata entry {_shown(label)} cannot be kept: {reason}",
                remedy="Use a plain JSON-able value or one of the MetadataValue kinds; make what is large an asset.",
            ) from error
        result[name] = entry
    if total > MAX_TOTAL_BYTES:
        raise UserCodeError(
            f"{owner} has {total} bytes of metadata; {MAX_TOTAL_BYTES} is the most.",
            remedy="Keep the facts here and store what is large as an asset.",
        )
    return result


def _checked_label(label: object) -> str:
    if not isinstance(label, str):
        raise TypeError(f"a label is text, not {type(label).__name__}")
    if not 0 < len(label.encode()) <= MAX_LABEL_BYTES:
        raise ValueError(f"a label has 1 to {MAX_LABEL_BYTES} bytes")
    return str.__str__(label)


def _shown(label: object) -> str:
    return f"'{printable_line(label, 80)}'" if isinstance(label, str) else f"of the type {type(label).__name__}"


def _json_size(value: Any) -> int:
    """Bytes of a value as JSON. Raises `ValueError` where it is too large or holds a lone surrogate."""
    size = len(json.dumps(value, ensure_ascii=False).encode())
    if size > MAX_VALUE_BYTES:
        raise ValueError(f"it is {size} bytes large, and {MAX_VALUE_BYTES} is the most")
    return size


def _normalize_value(raw: Any) -> MetadataValue:
    match raw:
        case MetadataValue():
            return MetadataValue(MetadataKind(raw.kind), _json_data(raw.value))
        case None:
            return MetadataValue.null()
        case bool():
            return MetadataValue(MetadataKind.BOOL, raw)
        case int():
            return _normalize_int(raw)
        case float():
            return MetadataValue.float(raw)
        case AssetKey():
            return MetadataValue.asset(raw)
        case str():
            return MetadataValue(MetadataKind.TEXT, str.__str__(raw))
        case PurePath():
            return MetadataValue.path(raw)
        case datetime():
            return MetadataValue.timestamp(raw)
        case date():
            return MetadataValue.text(raw.isoformat())
        case TableSchema():
            return MetadataValue.table_schema(raw)
        case TableColumnLineage():
            return MetadataValue.column_lineage(raw)
        case Mapping() | list() | tuple() | set() | frozenset():
            return MetadataValue.json(raw)
        case _ if callable(raw) and hasattr(raw, "__qualname__"):
            return MetadataValue.python_artifact(raw)
        case _ if hasattr(raw, "item") and getattr(raw, "shape", None) == ():  # a NumPy scalar
            return _normalize_value(raw.item())
        case _:
            raise TypeError(f"a {type(raw).__module__}.{type(raw).__qualname__} is not JSON-able")


def _normalize_int(value: int) -> MetadataValue:
    value = operator.index(value)
    if not -(2**63) <= value < 2**63:
        raise ValueError(f"a whole number of {value.bit_length()} bits does not fit 64; keep it as text")
    return MetadataValue(MetadataKind.INT, value)


def _json_float(value: float) -> float | str:
    value = float(value)
    return value if math.isfinite(value) else repr(value)


def _json_data(data: Any, depth: int = 0) -> Any:
    """`data` made of exactly the types that JSON has: no subclasses of them, no NaN."""
    if depth > MAX_DEPTH:
        raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels")
    match data:
        case None | bool():
            return data
        case str():
            return str.__str__(data)
        case int():
            return _normalize_int(data).value
        case float():
            return _json_float(data)
        case PurePath():
            return str(data)
        case date():  # datetimes are dates
            return data.isoformat()
        case Mapping():
            items = cast(Mapping[Any, Any], data).items()
            return {_label(key): _json_data(item, depth + 1) for key, item in items}
        case list() | tuple():
            return [_json_data(item, depth + 1) for item in cast(Iterable[Any], data)]
        case set() | frozenset():
            return sorted((_json_data(item, depth + 1) for item in cast(Iterable[Any], data)), key=json.dumps)
        case _ if hasattr(data, "item") and getattr(data, "shape", None) == ():
            return _json_data(data.item(), depth + 1)
        case _:
            raise TypeError(f"a {type(data).__module__}.{type(data).__qualname__} is not JSON-able")


def _label(key: Any) -> str:
    if not isinstance(key, str | int | float | bool | None):
        raise TypeError(f"a JSON object has text labels, not {type(key).__name__}")
    return str.__str__(key) if isinstance(key, str) else str(key)


def _kind_of_first(rows: Sequence[Mapping[str, Any]], name: str) -> str:
    value = next((row[name] for row in rows if row.get(name) is not None), None)
    return type(value).__name__ if value is not None else "string"


def _schema_to_json(schema: TableSchema) -> dict[str, Any]:
    columns: list[dict[str, Any]] = []
    for column in schema.columns:
        entry: dict[str, Any] = {"name": column.name, "type": column.type}
        if column.description:
            entry["description"] = column.description
        if not column.constraints.nullable:
            entry["nullable"] = False
        if column.constraints.unique:
            entry["unique"] = True
        if column.constraints.other:
            entry["constraints"] = list(column.constraints.other)
        if column.tags:
            entry["tags"] = dict(column.tags)
        columns.append(entry)
    return {"columns": columns, "constraints": list(schema.constraints.other)}


def to_json(metadata: Mapping[str, MetadataValue]) -> dict[str, Any]:
    """Plain JSON data: `{label: {"kind": …, "value": …}}`."""
    return {label: {"kind": str(entry.kind), "value": entry.value} for label, entry in metadata.items()}


def from_json(data: Mapping[str, Any]) -> dict[str, MetadataValue]:
    """What `to_json` wrote."""
    return {label: MetadataValue(MetadataKind(entry["kind"]), entry["value"]) for label, entry in data.items()}


def display(value: MetadataValue) -> str:
    """A short text for a person; unsafe characters are still in it (see `printable_line`)."""
    try:
        return _display(value)
    except (TypeError, ValueError, LookupError, AttributeError, OverflowError):  # the value is not of its kind
        return json.dumps(value.value, ensure_ascii=False, default=str)


def _display(value: MetadataValue) -> str:
    match value.kind:
        case MetadataKind.NULL:
            return "null"
        case MetadataKind.BOOL:
            return "true" if value.value else "false"
        case MetadataKind.INT:
            return f"{value.value:,}"
        case MetadataKind.FLOAT:
            return value.value if isinstance(value.value, str) else f"{value.value:.6g}"
        case MetadataKind.TIMESTAMP:
            return datetime.fromtimestamp(value.value, UTC).isoformat().replace("+00:00", "Z")
        case MetadataKind.TABLE_SCHEMA:
            return ", ".join(f"{c['name']} {c['type']}" for c in value.value["columns"])
        case MetadataKind.TABLE:
            return f"{len(value.value['records'])} rows"
        case MetadataKind.COLUMN_LINEAGE:
            return ", ".join(
                f"{column} ← {' + '.join('.'.join(source) for source in sources)}"
                for column, sources in value.value.items()
            )
        case MetadataKind.JSON:
            return json.dumps(value.value, ensure_ascii=False)
        case _:
            return str(value.value)
