"""pandas columns of Python objects: to Arrow and back, equal or refused.

Every value is compared with what Arrow gives back for it, except where pyarrow's own conversion is known to be
exact (text, bytes, booleans, integers, floats, numeric arrays). Two things are unified and reported instead of
refused: structs that lack keys others have, and integers among floats.
"""

import math
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, cast

from headwater.catalog.errors import MixedTimeZonesError, UnstorableValueError
from headwater.catalog.printable import printable_line, with_article
from headwater.io.engines import arrow, numpy, pandas
from headwater.io.representation import class_name

#: What pandas calls columns whose conversion is exact.
_EXACT = frozenset({"string", "bytes", "boolean", "integer", "floating"})
_UNIFIED_KEYS = "keys that some of its structs lack were added as nulls"
_UNIFIED_NUMBERS = "integers among floating-point numbers became floating-point"


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """A column as Arrow, what it takes to restore it, and what a person should know."""

    array: Any
    entry: dict[str, Any]
    notes: tuple[str, ...] = ()


def convert_objects(values: Any, where: str) -> Converted:
    """A NumPy array of objects as Arrow. Raises `UnstorableValueError` naming `where`, the row and the type."""
    pa = arrow()
    kind = pandas().api.types.infer_dtype(values, skipna=True)
    try:
        if kind == "empty":
            array = pa.nulls(len(values))
        elif kind in _EXACT:
            array = pa.array(values, from_pandas=True)
        else:  # not from_pandas, which would take a NaN inside of a list for a null
            array = pa.array([None if _is_null(value) else value for value in values])
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        if kind == "integer":
            return _convert_unsigned(values, where)
        raise _blame(values, where, error) from error
    notes: list[str] = []
    cells = None
    if kind not in _EXACT:
        cells = _cell_class(values)
        if not (cells == "array" and _are_numeric_arrays(values)):
            notes += _verify(values, array, where)
    nulls, mixed = _null_kind(values, array)
    if mixed:
        notes.append(f"The {where} holds several kinds of nulls; all of them come back as None.")
    return Converted(array=array, entry={"dtype": "object", "nulls": nulls, "cells": cells}, notes=tuple(notes))


def restore_objects(column: Any, entry: Mapping[str, Any]) -> Any:
    """The `pandas.Series` of objects that `convert_objects` was given."""
    pd = pandas()
    if entry["cells"] == "array":
        return column.to_pandas().astype(object)
    null = {"nan": math.nan, "NA": pd.NA, "NaT": pd.NaT}.get(entry["nulls"])
    cells = column.to_pylist()
    if null is not None:
        cells = [null if cell is None else cell for cell in cells]
    if entry["cells"] == "tuple":
        cells = [tuple(cast(list[Any], cell)) if isinstance(cell, list) else cell for cell in cells]
    values = numpy().empty(len(cells), dtype=object)
    for i, cell in enumerate(cells):  # an assignment at once would make rows of lists of equal length
        values[i] = cell
    return pd.Series(values, dtype=object)


def _convert_unsigned(values: Any, where: str) -> Converted:
    pa = arrow()
    try:
        array = pa.array(values, type=pa.uint64(), from_pandas=True)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise _blame(values, where, error) from error
    return Converted(array=array, entry={"dtype": "object", "nulls": _null_kind(values, array)[0], "cells": None})


def _cell_class(values: Any) -> str | None:
    classes: set[type[Any]] = {type(value) for value in values if not _is_null(value)}
    if classes == {numpy().ndarray}:
        return "array"
    return "tuple" if classes and all(issubclass(cls, tuple) for cls in classes) else None


def _are_numeric_arrays(values: Any) -> bool:
    found = {(value.dtype, value.ndim) for value in values if not _is_null(value)}
    return len(found) == 1 and all(dtype.kind in "biuf" and ndim == 1 for dtype, ndim in found)


def _is_null(value: Any) -> bool:
    pd = pandas()
    return value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and math.isnan(value))


def _null_kind(values: Any, array: Any) -> tuple[str | None, bool]:
    """The one kind of null among the values (None, nan, NA, NaT), and whether there are several."""
    if not array.null_count:
        return None, False
    pd = pandas()
    kinds: set[str | None] = set()
    for value in values[pd.isna(values)] if values.ndim == 1 else values:
        kinds.add(None if value is None else "NA" if value is pd.NA else "NaT" if value is pd.NaT else "nan")
    return (kinds.pop(), False) if len(kinds) == 1 else (None, len(kinds) > 1)


def _verify(values: Any, array: Any, where: str) -> list[str]:
    unified: set[str] = set()
    zones: dict[str, int] = {}
    for row, (value, back) in enumerate(zip(values, array.to_pylist(), strict=True)):
        if _is_null(value):
            continue
        if isinstance(value, datetime):
            zones.setdefault(str(value.tzinfo), row)
        if not _same(value, back, unified):
            if len(zones) > 1:
                break
            raise _refused(value, row, where)
    if len(zones) > 1:
        (first, _), (second, row) = list(zones.items())[:2]
        raise MixedTimeZonesError(
            f"The {where} mixes the time zones {first} and {second}, first in row {row}.",
            remedy="Convert it to one zone: pd.to_datetime(column, utc=True).",
        )
    return [f"In the {where}, {note}." for note in sorted(unified)]


def _same(original: Any, back: Any, unified: set[str]) -> bool:
    """Whether Arrow's value for an object equals it; `unified` collects what was made equal on purpose."""
    np = numpy()
    if isinstance(original, float) and math.isnan(original):
        return isinstance(back, float) and math.isnan(back)
    if _is_null(cast(Any, original)):
        return back is None
    value: Any = cast(Any, original)
    if isinstance(value, np.ndarray):
        value = value.tolist()
    elif isinstance(value, np.generic):
        value = value.item()
    match value:
        case bool() | str():
            return type(back) is (bool if isinstance(value, bool) else str) and value == back
        case int():
            if isinstance(back, float) and int(back) == value:
                unified.add(_UNIFIED_NUMBERS)
                return True
            return isinstance(back, int) and not isinstance(back, bool) and value == back
        case float():
            return isinstance(back, float) and value == back
        case bytes() | bytearray() | memoryview():
            return isinstance(back, bytes) and bytes(cast(bytes, value)) == back
        case Decimal():
            return isinstance(back, Decimal) and value == back
        case datetime():
            return isinstance(back, datetime) and value == back and value.utcoffset() == back.utcoffset()
        case date() | time() | timedelta():
            return type(back) in (date, time, timedelta) and value == back
        case Mapping():
            return _same_mapping(cast(Mapping[Any, Any], value), back, unified)
        case AbstractSet():
            return False
        case Sequence():
            items = cast(Sequence[Any], value)
            return (
                isinstance(back, list)
                and len(items) == len(cast(list[Any], back))
                and all(_same(item, other, unified) for item, other in zip(items, cast(list[Any], back), strict=True))
            )
        case _:
            return type(value) is type(back) and bool(value == back)


def _same_mapping(value: Mapping[Any, Any], back: Any, unified: set[str]) -> bool:
    if not isinstance(back, dict):
        return False
    found = cast(dict[Any, Any], back)
    if not all(name in found and _same(item, found[name], unified) for name, item in value.items()):
        return False
    missing = found.keys() - value.keys()
    if missing:
        unified.add(_UNIFIED_KEYS)
    return all(found[name] is None for name in missing)


def _blame(values: Any, where: str, error: Exception) -> UnstorableValueError:
    """The first value that Arrow does not take alone, else the first of another type than those before it."""
    pa = arrow()
    seen: str | None = None
    other: tuple[Any, int] | None = None
    for row, value in enumerate(values):
        if _is_null(value):
            continue
        try:
            pa.array([value])
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            return _refused(value, row, where)
        if seen is None:
            seen = class_name(value)
        elif other is None and class_name(value) != seen:
            other = value, row
    if other is not None and seen is not None:
        refusal = _refused(*other, where)
        return UnstorableValueError(f"{refusal.message} Others are {seen}.", remedy=refusal.remedy)
    return UnstorableValueError(
        f"The {where} cannot be kept: {printable_line(str(error), 200)}.", remedy="Convert it to a plain type."
    )


def _refused(value: Any, row: int, where: str) -> UnstorableValueError:
    name = class_name(value)
    return UnstorableValueError(
        f"The {where} holds {with_article(name)} in row {row} that would not come back equal: "
        f"{printable_line(_text(value), 80)}.",
        remedy="Convert the column to text, numbers, times, lists or structs of one type; "
        "PickleIOManager keeps any Python object.",
    )


def _text(value: Any) -> str:
    try:
        return repr(value)
    except Exception:
        return "(its repr() fails)"
