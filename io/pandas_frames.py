"""pandas to Arrow and back: a frame comes back equal, or is refused before anything is written.

pyarrow converts most columns exactly, and brings back the rest as something else without a word: a set becomes
an array, an aware time of day loses its zone, a categorical of numbers its categories, a Decimal NaN its value.
Those columns (objects, categoricals, Arrow-backed and Python-backed text) are converted here, one by one, and
what it takes to restore them is kept in the schema's metadata under `headwater.pandas`. Other readers of the file
find the usual `pandas` metadata and plain Arrow types.

What is not known to survive is rehearsed: the empty frame goes there and back, and its labels, types and index
have to be the same.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

from headwater.catalog.errors import DuplicateColumnError, NoColumnsError, UnstorableValueError
from headwater.catalog.printable import printable_line
from headwater.io.engines import arrow, numpy, pandas
from headwater.io.pandas_objects import Converted, convert_objects, restore_objects

_KEY = b"headwater.pandas"
#: Up to this many columns are set one by one, each at a cost that grows with the width of the frame.
_FEW = 100
#: Bytes of one categorical's categories, which lie in the file's footer, read by every reader.
_MAX_CATEGORIES = 4 * 1024 * 1024


def to_table(frame: Any) -> tuple[Any, tuple[str, ...]]:
    """A `pandas.DataFrame` as a `pyarrow.Table`, and what a person should know about the conversion.

    Raises `UnstorableValueError` naming the column, the row and the type of what would not come back equal.
    """
    _check_labels(frame)
    index = frame.index
    trivial = is_trivial(index)
    levels = [] if trivial else [index.get_level_values(level) for level in range(index.nlevels)]
    special: dict[int, Converted] = {}
    plain = trivial and _are_plain_labels(frame.columns)
    for position, dtype in enumerate([*frame.dtypes, *(level.dtype for level in levels)]):
        if _is_plain(dtype):
            continue
        plain = False
        width = len(frame.columns)
        if position < width:
            values, where = frame.iloc[:, position], f"column {frame.columns[position]!r}"
        else:
            values, where = pandas().Series(levels[position - width].array), f"index level {position - width}"
        converted = _convert(values, dtype, where)
        if converted is None and position >= width and dtype.kind in "biuf":
            # pyarrow forgets that an index was of a nullable type.
            converted = Converted(array=arrow().array(values.array), entry={"dtype": dtype.name})
        if converted is not None:
            special[position] = converted
    names = [] if trivial else list(index.names)
    notes = [note for converted in special.values() for note in converted.notes]
    table = _table(frame, levels, names, special, notes)
    if not plain:
        _rehearse(table, frame)
    return table, tuple(notes)


def from_table(table: Any) -> Any:
    """The `pandas.DataFrame` that `to_table` was given; any other table as pandas users expect it.

    An integer column with nulls becomes `float64`, as everywhere, unless that would change a number: then `Int64`.
    """
    metadata: dict[bytes, bytes] = table.schema.metadata or {}
    if _KEY not in metadata:
        return _from_foreign(table)
    pa = arrow()
    details = json.loads(metadata[_KEY])
    names: dict[str, None] = dict.fromkeys(table.column_names)
    entries = {name: entry for name, entry in details["columns"].items() if name in names}
    hidden = _with_columns(table, {name: pa.nulls(table.num_rows) for name in entries})
    frame = hidden.to_pandas(integer_object_nulls=True)
    index_columns: list[Any] = json.loads(metadata[b"pandas"])["index_columns"]
    outside = {name for name in index_columns if isinstance(name, str)}
    inside = {name: i for i, name in enumerate(name for name in names if name not in outside)}
    restored = {name: _restore(table.column(name), entry) for name, entry in entries.items()}
    frame = _with_values(frame, {inside[name]: values for name, values in restored.items() if name not in outside})
    if details["index"] and all(level["column"] in names for level in details["index"]):
        _restore_index(frame, details["index"], restored)
    return frame


def stored_index(table: Any) -> tuple[str, ...]:
    """The columns of a table made by `to_table` that hold the frame's index; none where rows are just numbered."""
    metadata: dict[bytes, bytes] = table.schema.metadata or {}
    if b"pandas" not in metadata:
        return ()
    columns: list[Any] = json.loads(metadata[b"pandas"])["index_columns"]
    return tuple(name for name in columns if isinstance(name, str))


def is_restored_alike(tables: Sequence[Any]) -> bool:
    """Whether what `from_table` does to restore columns and index is the same for all tables."""
    entries: list[dict[bytes, bytes]] = [table.schema.metadata or {} for table in tables]
    return len({metadata.get(_KEY) for metadata in entries}) == 1


def _check_labels(frame: Any) -> None:
    columns = frame.columns
    if not len(columns):
        raise NoColumnsError(
            "The frame has no columns: most readers refuse a Parquet file without any.",
            remedy="Return at least one column, or None.",
        )
    if not columns.is_unique:
        name = columns[columns.duplicated()][0]
        raise DuplicateColumnError(
            f"The frame has more than one column {printable_line(repr(name), 80)}.",
            remedy="Rename one of them.",
        )
    if columns.nlevels == 1 and pandas().api.types.infer_dtype(columns, skipna=False).startswith("mixed"):
        raise UnstorableValueError(
            "The frame's column labels are of several types, and would all become text.",
            remedy="Make every label text: frame.columns = frame.columns.map(str).",
        )


def _are_plain_labels(columns: Any) -> bool:
    return type(columns) is pandas().Index and columns.name is None and all(type(label) is str for label in columns)


def is_trivial(index: Any) -> bool:
    """Whether an index just numbers the rows."""
    return (
        isinstance(index, pandas().RangeIndex)
        and index.start == 0
        and index.step == 1
        and index.name is None
        and index.stop == len(index)
    )


def _is_plain(dtype: Any) -> bool:
    """Whether pyarrow brings a column of this type back as it was, whatever its values."""
    if isinstance(dtype, numpy().dtype):
        return dtype.kind in "biufmM" and dtype.isnative and dtype.itemsize <= 8
    return dtype.name == "str" or isinstance(dtype, pandas().DatetimeTZDtype)


def _convert(values: Any, dtype: Any, where: str) -> Converted | None:
    """A column that pyarrow alone would change; None where it is left to pyarrow and the rehearsal."""
    pd, pa = pandas(), arrow()
    if isinstance(dtype, pd.SparseDtype):
        raise UnstorableValueError(
            f"The {where} is sparse, which Parquet does not have.", remedy="Call .sparse.to_dense() on it."
        )
    if isinstance(dtype, pd.CategoricalDtype):
        return _convert_categorical(values, where)
    if isinstance(dtype, pd.ArrowDtype):
        return Converted(array=pa.array(values.array), entry={"dtype": "arrow"})
    if dtype.kind == "O" and isinstance(dtype, numpy().dtype):
        return convert_objects(values.to_numpy(), where)
    if isinstance(dtype, pd.StringDtype) and dtype.storage == "python":
        converted = convert_objects(values.to_numpy(dtype=object), where)
        return Converted(array=converted.array.cast(pa.large_string()), entry={"dtype": "string[python]"})
    if isinstance(dtype, numpy().dtype):
        raise UnstorableValueError(
            f"The {where} has the type {dtype}, which Parquet does not have.",
            remedy="Convert it: a complex number to two columns, other numbers to a native 64-bit type.",
        )
    return None


def _convert_categorical(values: Any, where: str) -> Converted:
    pa, pd = arrow(), pandas()
    categories = values.cat.categories
    try:
        known, notes = to_table(pd.DataFrame({"categories": categories}))
    except UnstorableValueError as error:
        raise UnstorableValueError(f"The categories of the {where}: {error.message}", remedy=error.remedy) from None
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, known.schema) as stream:
        stream.write_table(known)
    packed = sink.getvalue()
    if packed.size > _MAX_CATEGORIES:
        raise UnstorableValueError(
            f"The {where} has categories of {packed.size:,} bytes; {_MAX_CATEGORIES:,} is the most.",
            remedy="A column of that many different values is better kept as what it holds: use .astype(str).",
        )
    codes = values.cat.codes.to_numpy()
    dictionary = known.column(0).combine_chunks()
    if isinstance(dictionary, pa.ChunkedArray):
        dictionary = dictionary.chunk(0) if dictionary.num_chunks else pa.array([], dictionary.type)
    array = pa.DictionaryArray.from_arrays(pa.array(codes, mask=codes < 0), dictionary, ordered=values.cat.ordered)
    if not (pa.types.is_string(dictionary.type) or pa.types.is_large_string(dictionary.type)):
        array = array.dictionary.take(array.indices)  # Parquet keeps dictionaries of text only
    entry = {
        "dtype": "category",
        "ordered": bool(values.cat.ordered),
        "categories": base64.b64encode(packed).decode(),
    }
    return Converted(array=array, entry=entry, notes=notes if len(categories) else ())


def _table(frame: Any, levels: list[Any], names: list[Any], special: dict[int, Converted], notes: list[str]) -> Any:
    pa, pd = arrow(), pandas()
    width = len(frame.columns)
    named = [name if name is None or isinstance(name, str) else None for name in names]
    if special or named != names or frame.attrs:
        nothing = numpy().full(len(frame), None, dtype=object)
        frame = _with_values(frame.copy(deep=False), {position: nothing for position in special if position < width})
        if any(position >= width for position in special) or named != names:
            zeros = numpy().zeros(len(frame), "i8")
            kept = [zeros if width + i in special else level.array for i, level in enumerate(levels)]
            if len(kept) == 1:
                frame.index = pd.Index(kept[0], name=named[0])
            else:
                frame.index = pd.MultiIndex.from_arrays(kept, names=named)
        if not _is_json(frame.attrs):
            frame.attrs = {}
            notes.append("The frame's attrs are not JSON-able and were not kept.")
    try:
        table = pa.Table.from_pandas(frame, preserve_index=True if levels else None)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        reason = str(error.args[0]) if error.args else str(error)
        place = str(error.args[-1]) if len(error.args) > 1 else "the frame"
        raise UnstorableValueError(
            f"pyarrow cannot convert the frame: {printable_line(reason, 200)} ({printable_line(place, 120)}).",
            remedy="Convert that column to another type before it is returned.",
        ) from error
    entries = {table.schema.field(position).name: converted.entry for position, converted in special.items()}
    arrays = {table.schema.field(position).name: converted.array for position, converted in special.items()}
    table = _with_columns(table, arrays)
    index: list[dict[str, Any]] = []
    if levels and (named != names or any(position >= width for position in special)):
        for i, name in enumerate(names):
            if not _is_json(name):
                raise UnstorableValueError(
                    f"The frame's index level {i} is named {name!r}.", remedy="Name it by text or a number."
                )
            index.append({"name": name, "column": table.schema.field(width + i).name})
    if entries or index:
        details = json.dumps({"columns": entries, "index": index})
        table = table.replace_schema_metadata({**table.schema.metadata, _KEY: details})
    return table


def _with_columns(table: Any, arrays: Mapping[str, Any]) -> Any:
    """The table with other columns under these names, at once: each by itself costs as much as the table is wide."""
    if not arrays:
        return table
    pa = arrow()
    columns = [arrays.get(item.name, column) for item, column in zip(table.schema, table.columns, strict=True)]
    fields = [pa.field(item.name, arrays[item.name].type) if item.name in arrays else item for item in table.schema]
    return pa.Table.from_arrays(columns, schema=pa.schema(fields, metadata=table.schema.metadata))


def _with_values(frame: Any, values: Mapping[int, Any]) -> Any:
    """The frame with other values in the columns at these positions."""
    if len(values) <= _FEW:
        for position, column in values.items():
            frame.isetitem(position, column.set_axis(frame.index) if hasattr(column, "set_axis") else column)
        return frame
    columns = {i: values[i] if i in values else frame.iloc[:, i] for i in range(len(frame.columns))}
    arrays = {i: getattr(column, "array", column) for i, column in columns.items()}
    wide = pandas().DataFrame(arrays, index=frame.index, copy=False)
    wide.columns = frame.columns
    wide.attrs = frame.attrs
    return wide


def _restore(column: Any, entry: dict[str, Any]) -> Any:
    pd, pa = pandas(), arrow()
    match entry["dtype"]:
        case "object":
            return restore_objects(column, entry)
        case "arrow":
            return pd.Series(pd.arrays.ArrowExtensionArray(column))
        case "category":
            reader = pa.ipc.open_stream(base64.b64decode(entry["categories"]))
            categories = pd.Index(from_table(reader.read_all())["categories"].array)
            if pa.types.is_dictionary(column.type):
                values = column.cast(column.type.value_type).to_pandas()
            else:
                values = from_table(pa.table({"values": column}))["values"]
            return pd.Series(pd.Categorical(values, categories=categories, ordered=entry["ordered"]))
        case dtype:
            return column.to_pandas().astype(dtype)


def _restore_index(frame: Any, levels: list[dict[str, Any]], restored: dict[str, Any]) -> None:
    pd = pandas()
    values = [restored.get(level["column"], frame.index.get_level_values(i)) for i, level in enumerate(levels)]
    names = [level["name"] for level in levels]
    if len(values) == 1:
        frame.index = pd.Index(values[0].array, name=names[0], dtype=values[0].dtype)
    else:
        frame.index = pd.MultiIndex.from_arrays(values, names=names)


def _from_foreign(table: Any) -> Any:
    """A table as pandas users expect it: integers with nulls as floats, but never another number."""
    pa, pc = arrow(), arrow().compute
    wide: dict[str, Any] = {}
    for field, column in zip(table.schema, table.columns, strict=True):
        if pa.types.is_integer(field.type) and field.type.bit_width == 64 and column.null_count:
            bounds = pc.min_max(column).as_py()
            if bounds["max"] is not None and max(abs(bounds["min"]), abs(bounds["max"])) > 2**53:
                wide[field.name] = column
    frame = table.to_pandas()
    for name, column in wide.items():
        if name in frame.columns and frame[name].dtype.kind == "f" and isinstance(frame[name].dtype, numpy().dtype):
            kind = "UInt64" if pa.types.is_unsigned_integer(column.type) else "Int64"
            frame[name] = column.to_pandas(integer_object_nulls=True).astype(kind).set_axis(frame.index)
    return frame


def _rehearse(table: Any, frame: Any) -> None:
    try:
        back = from_table(table.slice(0, 0))
    except (TypeError, ValueError, NotImplementedError) as error:
        raise UnstorableValueError(
            f"The frame's labels or types would not survive: {printable_line(str(error), 200)}.",
            remedy="Use text as column labels, and reset_index().",
        ) from error
    if not _same_labels(frame.columns, back.columns):
        raise UnstorableValueError(
            f"The frame's column labels, of type {frame.columns.dtype}, would come back as {back.columns.dtype}.",
            remedy="Use text as column labels: frame.columns = frame.columns.map(str).",
        )
    for label, before, after in zip(frame.columns, frame.dtypes, back.dtypes, strict=True):
        if before != after:
            raise UnstorableValueError(
                f"The column {label!r} of type {before} would come back as {after}.",
                remedy="Convert it with .astype(…) before it is returned.",
            )
    old, new = frame.index, back.index
    for level in range(old.nlevels):
        before, after = old.get_level_values(level).dtype, new.get_level_values(level).dtype
        if before != after or old.names != new.names:
            raise UnstorableValueError(
                f"The frame's index {list(old.names)} of type {before} would come back as {list(new.names)} of "
                f"type {after}.",
                remedy="Call reset_index(), or convert the index to a common type.",
            )


def _same_labels(before: Any, after: Any) -> bool:
    return bool(
        before.nlevels == after.nlevels
        and before.names == after.names
        and before.equals(after)
        and all(
            _label_kind(before.get_level_values(i)) == _label_kind(after.get_level_values(i))
            for i in range(before.nlevels)
        )
    )


def _label_kind(labels: Any) -> str:
    """The type of labels; text is text, whether as objects or not."""
    kind = cast(str, pandas().api.types.infer_dtype(labels, skipna=False))
    return kind if kind == "string" else f"{kind} {labels.dtype}"


def _is_json(value: Any) -> bool:
    try:
        return bool(json.loads(json.dumps(value)) == value)
    except (TypeError, ValueError):
        return False
