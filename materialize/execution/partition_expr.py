"""One frame of several partitions, divided by the columns that say of which partition each row is."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from headwater.catalog.definitions.spec import AssetSpec
from headwater.catalog.errors import UserCodeError
from headwater.catalog.keys import AssetKey
from headwater.catalog.metadata import MetadataValue
from headwater.catalog.partitions.definition import TimeWindow
from headwater.catalog.partitions.multi import MultiPartitionKey, MultiPartitionsDefinition
from headwater.catalog.partitions.time_window import TimeWindowPartitionsDefinition
from headwater.catalog.printable import printable_line
from headwater.io.engines import arrow, numpy
from headwater.materialize.execution.partitions import PARTITION_EXPR, StepPartitions

#: Of Arrow's units of time.
_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}


def split_by_columns(frame: Any, spec: AssetSpec, partitions: StepPartitions) -> Mapping[str, Any]:
    """The part of `frame` that belongs to each of `partitions`; one without rows where there are none for it.

    A value of the column is a partition key, or a date or time in a partition's window: one without a time zone is on
    the clocks of the definition's. Raises `UserCodeError` for rows that belong to none of `partitions`.
    """
    from headwater.io.splitting import without_rows

    parts = divide(frame, spec, partitions)
    return {key: parts[key] if key in parts else without_rows(frame) for key in partitions.keys}


def divide(frame: Any, spec: AssetSpec, partitions: StepPartitions) -> Mapping[str, Any]:
    """The part of `frame` that belongs to each of `partitions` that has any. Raises as `split_by_columns`."""
    from headwater.io.splitting import split_frame

    dimensions = [_dimension(spec, column, name, partitions) for name, column in _columns(spec, partitions).items()]
    keys = functools.partial(_keys_of_rows, spec, dimensions, frozenset(partitions.keys))
    return split_frame(frame, keys, list(dict.fromkeys(one.column for one in dimensions)))


def _columns(spec: AssetSpec, partitions: StepPartitions) -> Mapping[str | None, str]:
    """The column of each dimension; that of the only one under None."""
    entry: Any = spec.metadata[PARTITION_EXPR]
    given: object = entry.value if isinstance(entry, MetadataValue) else entry
    first = partitions.keys[0]
    names = list(first.keys_by_dimension) if isinstance(first, MultiPartitionKey) else []
    if not names and isinstance(given, str):
        return {None: given}
    if names and isinstance(given, Mapping):
        named = cast(Mapping[Any, Any], given)
        if set(named) == set(names) and all(isinstance(column, str) for column in named.values()):
            return {name: named[name] for name in names}
    wanted = "{" + ", ".join(f"{name!r}: 'column'" for name in names) + "}" if names else "'column'"
    raise UserCodeError(
        f"The {PARTITION_EXPR} of `{spec.key}` is {printable_line(repr(cast(object, given)), 120)}.",
        remedy=f"Write metadata={{'{PARTITION_EXPR}': {printable_line(wanted, 300)}}}.",
    )


class RowOfNoPartitionError(UserCodeError):
    """A row belongs to none of the partitions that it could be of."""

    def __init__(self, asset: AssetKey, column: str, value: str) -> None:
        self.found = f"rows whose '{printable_line(column, 80)}' is {printable_line(value, 80)}"
        super().__init__(
            f"`{asset}` has {self.found}, which is in no partition of this step.",
            remedy="Give rows of context.partition_keys alone: filter by them, or by context.partition_time_window.",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Dimension:
    """A column and what its values may be."""

    asset: AssetKey
    column: str
    #: None for the only one.
    name: str | None
    texts: frozenset[str]
    #: The windows of the step, in order, and the definition that they are of; none for other partitions.
    windows: Sequence[tuple[TimeWindow, str]] = ()
    definition: TimeWindowPartitionsDefinition | None = None

    def texts_of(self, values: Any) -> list[str]:
        """The partition key in this dimension of each value of an Arrow column. Raises `UserCodeError`."""
        if values.null_count:
            raise self._foreign("null")
        if self.definition is not None:
            seconds = _seconds(values, self.definition)
            if seconds is not None:
                return self._texts_at(seconds, values)
        texts = [str(value) for value in values.to_pylist()]
        for i, text in enumerate(texts):
            if text not in self.texts:
                raise self._foreign(repr(values[i].as_py()))
        return texts

    def _texts_at(self, seconds: Any, values: Any) -> list[str]:
        np = numpy()
        starts, ends = (
            np.array([int(window[side].timestamp()) for window, _ in self.windows], "i8") for side in (0, 1)
        )
        places = starts.searchsorted(seconds, "right") - 1
        outside = (places < 0) | (seconds >= ends[places])
        if outside.any():
            raise self._foreign(str(values[int(outside.argmax())]))
        return np.array([text for _, text in self.windows], object)[places].tolist()

    def _foreign(self, value: str) -> RowOfNoPartitionError:
        return RowOfNoPartitionError(self.asset, self.column, value)


def _seconds(values: Any, definition: TimeWindowPartitionsDefinition) -> Any:
    """The instants, in seconds since 1970, that dates or times of an Arrow column mean; None for another column.

    A date is the moment of that day at which windows start.
    """
    from headwater.catalog.partitions.series import DAY, wall_clock
    from headwater.catalog.partitions.zone import horizon_for

    pa, fields = arrow(), definition.cron_fields
    types = pa.types
    if types.is_date(values.type):
        local = values.cast(pa.date32()).cast(pa.int32()).to_numpy().astype("i8") * DAY
        local += fields.hours[0] * 3600 + fields.minutes[0] * 60
    elif types.is_timestamp(values.type):
        local = values.cast(pa.int64()).to_numpy() // _PER_SECOND[values.type.unit]
        if values.type.tz is not None:
            return local
    else:
        return None
    latest = int(local.max()) // (366 * DAY) + 1971 if len(local) else 0
    return wall_clock(definition.timezone, horizon_for(latest)).to_instants(local)


def _dimension(spec: AssetSpec, column: str, name: str | None, partitions: StepPartitions) -> _Dimension:
    keys = partitions.keys
    texts = [key.keys_by_dimension[name] if name and isinstance(key, MultiPartitionKey) else key for key in keys]
    plain = _Dimension(asset=spec.key, column=column, name=name, texts=frozenset(texts))
    definition = spec.partitions_def
    if isinstance(definition, MultiPartitionsDefinition):
        definition = definition.dimensions[name or ""]
    if partitions.windows is None or not isinstance(definition, TimeWindowPartitionsDefinition):
        return plain
    windows = dict(zip(texts, partitions.windows, strict=True))
    ordered = sorted(((window, text) for text, window in windows.items()), key=lambda pair: pair[0].start.timestamp())
    return replace(plain, windows=ordered, definition=definition)


def _keys_of_rows(spec: AssetSpec, dimensions: Sequence[_Dimension], known: frozenset[str], rows: Any) -> Sequence[str]:
    """The partition key of each row of a table of the columns."""
    texts = [one.texts_of(rows.column(one.column)) for one in dimensions]
    if len(dimensions) == 1:
        return texts[0]
    combined = list(zip(*texts, strict=True))
    keys: dict[tuple[str, ...], str] = {}
    for row in dict.fromkeys(combined):
        named = {str(one.name): text for one, text in zip(dimensions, row, strict=True)}
        keys[row] = MultiPartitionKey(named)
        if keys[row] not in known:
            raise UserCodeError(
                f"`{spec.key}` has rows of the partition '{printable_line(keys[row], 80)}', and this step does not "
                "compute it.",
                remedy="Give rows of context.partition_keys alone.",
            )
    return [keys[row] for row in combined]
