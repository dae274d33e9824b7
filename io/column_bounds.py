"""The smallest and largest value of each column, from the statistics in a Parquet file's footer.

Bounds are JSON scalars: times and dates as ISO 8601 text (nanoseconds kept, zoned times in UTC), decimals as text,
infinities as `inf` and `-inf`. Floats leave NaN out, and their zero is 0.0: a Parquet file says of either zero that
it may be the other one. There are none for nested and binary columns, nor where a row
group does not say. Statistics: https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift
"""

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any

from headwater.io.data_version import type_text
from headwater.io.engines import arrow

#: polars cuts the text bounds of its statistics at 64 bytes, so a text of that length may be no value at all.
_EXACT_TEXT_BYTES = 63
_NANOSECONDS = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}


def column_bounds(schema: Any, footer: Any) -> Iterator[tuple[Any, Any]]:
    """Smallest and largest value of each column of the Arrow schema that was written; None where unknown."""
    groups = [footer.row_group(i) for i in range(footer.num_row_groups)]
    leaf = 0
    for item in schema:
        kind = item.type.value_type if arrow().types.is_dictionary(item.type) else item.type
        try:
            yield _bounds(groups, leaf, kind)
        except (OverflowError, ValueError):
            yield None, None  # a year that Python does not have
        leaf += _leaves(kind)


@lru_cache(maxsize=512)
def _leaves(kind: Any) -> int:
    """How many columns of a Parquet file an Arrow type takes."""
    types = arrow().types
    if isinstance(kind, arrow().BaseExtensionType):
        return _leaves(kind.storage_type)
    if types.is_struct(kind):
        return sum(_leaves(item.type) for item in kind.fields)
    if types.is_map(kind):
        return _leaves(kind.key_type) + _leaves(kind.item_type)
    return _leaves(kind.value_type) if hasattr(kind, "value_type") else 1


def _bounds(groups: list[Any], leaf: int, kind: Any) -> tuple[Any, Any]:
    """The smallest and largest value over all row groups as JSON scalars; None where any group does not say."""
    read = _reader(kind)
    if read is None:
        return None, None
    lows: list[Any] = []
    highs: list[Any] = []
    for group in groups:
        chunk = group.column(leaf)
        statistics = chunk.statistics
        if statistics is None:
            return None, None
        if statistics.has_min_max:
            lows.append(read(statistics, "min"))
            highs.append(read(statistics, "max"))
        elif statistics.null_count != chunk.num_values and not arrow().types.is_floating(kind):
            return None, None  # floats have no bounds where all of them are NaN
    if not lows or None in lows or None in highs:
        return None, None
    return _scalar(min(lows), kind), _scalar(max(highs), kind)


@lru_cache(maxsize=512)
def _reader(kind: Any) -> Callable[[Any, str], Any] | None:
    types = arrow().types
    if types.is_timestamp(kind) or types.is_time(kind):
        # pyarrow would import pandas to show nanoseconds.
        return lambda statistics, bound: getattr(statistics, f"{bound}_raw")
    if types.is_floating(kind) and kind.bit_width == 16:
        return None
    if type_text(kind) == "string":
        return lambda statistics, bound: _exact_text(getattr(statistics, bound))
    simple = types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind) or types.is_decimal(kind)
    if simple or types.is_date(kind):
        return lambda statistics, bound: getattr(statistics, bound)
    return None


def _exact_text(value: Any) -> str | None:
    return value if isinstance(value, str) and len(value.encode()) <= _EXACT_TEXT_BYTES else None


def _scalar(value: Any, kind: Any) -> Any:
    types = arrow().types
    if types.is_timestamp(kind) or types.is_time(kind):
        # Parquet has no seconds: pyarrow writes them as milliseconds.
        total = value * _NANOSECONDS["ms" if kind.unit == "s" else kind.unit]
        return _clock(total) if types.is_time(kind) else _moment(total) + ("Z" if kind.tz else "")
    if isinstance(value, float):
        return value + 0.0 if value - value == 0 else repr(value)  # -0.0 + 0.0 is 0.0
    if isinstance(value, date):
        return (value.date() if isinstance(value, datetime) else value).isoformat()
    return str(value) if isinstance(value, Decimal) else value


def _moment(total: int) -> str:
    micros, nanos = divmod(total, 1000)
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)
    text = moment.replace(tzinfo=None).isoformat()
    if nanos:
        text = f"{text if '.' in text else text + '.000000'}{nanos:03d}"
    return text


def _clock(total: int) -> str:
    seconds, nanos = divmod(total, 1_000_000_000)
    text = f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
    return f"{text}.{nanos:09d}".rstrip("0") if nanos else text
