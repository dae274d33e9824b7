"""One frame of several partitions, divided by the columns that say of which partition each row is."""

import bisect
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, time
from typing import Any, cast

from headwater.catalog.definitions.spec import AssetSpec
from headwater.catalog.errors import UserCodeError
from headwater.catalog.keys import AssetKey
from headwater.catalog.metadata import MetadataValue
from headwater.catalog.partitions.definition import TimeWindow
from headwater.catalog.partitions.multi import MultiPartitionKey, MultiPartitionsDefinition
from headwater.catalog.partitions.time_window import TimeWindowPartitionsDefinition
from headwater.catalog.printable import printable_line
from headwater.materialize.execution.partitions import PARTITION_EXPR, StepPartitions


def split_by_columns(frame: Any, spec: AssetSpec, partitions: StepPartitions) -> Mapping[str, Any]:
    """The part of `frame` that belongs to each of `partitions`; one without rows where there are none for it.

    A value of the column is a partition key, or a date or time in a partition's window: one without a time zone is on
    the clocks of the definition's. Raises `UserCodeError` for rows that belong to none of `partitions`.
    """
    from headwater.io.splitting import split_frame, without_rows

    dimensions = [_dimension(spec, column, name, partitions) for name, column in _columns(spec, partitions).items()]
    keys = functools.partial(_keys_of_rows, spec, dimensions, frozenset(partitions.keys))
    parts = split_frame(frame, keys, list(dict.fromkeys(one.column for one in dimensions)))
    return {key: parts[key] if key in parts else without_rows(frame) for key in partitions.keys}


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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Dimension:
    """A column and what its values may be."""

    asset: AssetKey
    column: str
    #: None for the only one.
    name: str | None
    texts: frozenset[str]
    #: Windows of the step in order, with the text of each and their starts as seconds; empty for other partitions.
    windows: Sequence[tuple[TimeWindow, str]] = ()
    starts: Sequence[float] = ()
    #: When on a day windows start: what a date without a time means.
    tick: time = time()

    def text_of(self, value: Any) -> str:
        """The partition key of a value in this dimension. Raises `UserCodeError`."""
        if value is not None:
            text = self._window_of(value) if self.windows and isinstance(value, date) else str(value)
            if text in self.texts:
                return text
        raise UserCodeError(
            f"`{self.asset}` has rows whose '{printable_line(self.column, 80)}' is "
            f"{printable_line('null' if value is None else repr(value), 80)}, which is in no partition of this step.",
            remedy="Give rows of context.partition_keys alone: filter by them, or by context.partition_time_window.",
        )

    def _window_of(self, value: date) -> str | None:
        moment = value if isinstance(value, datetime) else datetime.combine(value, self.tick)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=self.windows[0][0].start.tzinfo)
        place = bisect.bisect_right(self.starts, moment.timestamp()) - 1
        if place < 0 or moment.timestamp() >= self.windows[place][0].end.timestamp():
            return None
        return self.windows[place][1]


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
    fields = definition.cron_fields
    return replace(
        plain,
        windows=ordered,
        starts=[window.start.timestamp() for window, _ in ordered],
        tick=time(fields.hours[0], fields.minutes[0]),
    )


def _keys_of_rows(
    spec: AssetSpec, dimensions: Sequence[_Dimension], known: frozenset[str], rows: Any
) -> list[str | None]:
    """The partition key of each row of a table of the columns."""
    texts = [map(one.text_of, rows.column(one.column).to_pylist()) for one in dimensions]
    keys: list[str | None] = []
    for row in zip(*texts, strict=True):
        named = {one.name: text for one, text in zip(dimensions, row, strict=True)}
        key = row[0] if None in named else MultiPartitionKey(cast(dict[str, str], named))
        if key not in known:
            raise UserCodeError(
                f"`{spec.key}` has rows of the partition '{printable_line(key, 80)}', and this step does not compute "
                "it.",
                remedy="Give rows of context.partition_keys alone.",
            )
        keys.append(key)
    return keys
