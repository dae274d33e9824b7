"""The partitions that exist at a moment: keys and ordinals, one at a time and a million at a time."""

import difflib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import repeat
from typing import Any, Generic, TypeVar, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from headwater.catalog.errors import CronError, DefinitionError, InvalidKeyError, UnknownPartitionError, UsageError
from headwater.catalog.partitions import intervals
from headwater.catalog.partitions.boxes import boxes_of, flatten
from headwater.catalog.partitions.definition import (
    PartitionKeyRange,
    PartitionsContext,
    PartitionsDefinition,
    TimeWindow,
)
from headwater.catalog.partitions.dynamic import DynamicPartitionsDefinition
from headwater.catalog.partitions.intervals import Intervals
from headwater.catalog.partitions.key_arrays import NO_TIME, format_keys, parse_keys
from headwater.catalog.partitions.key_format import print_offset
from headwater.catalog.partitions.multi import MultiPartitionKey, MultiPartitionsDefinition, parse_values, print_values
from headwater.catalog.partitions.series import DAY, Int64s, int64s, wall_clock, windows_of
from headwater.catalog.partitions.static import StaticPartitionsDefinition
from headwater.catalog.partitions.subset import PartitionSubset
from headwater.catalog.partitions.time_window import TimeWindowPartitionsDefinition
from headwater.catalog.partitions.zone import FIRST_HORIZON, LAST_HORIZON, load_zone
from headwater.catalog.printable import printable_line

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: Keys are written with four digits for the year.
_LAST_INSTANT = int((datetime(LAST_HORIZON, 12, 31, tzinfo=UTC) - _EPOCH).total_seconds())
_FIRST_HORIZON = int((datetime(FIRST_HORIZON - 10, 1, 1, tzinfo=UTC) - _EPOCH).total_seconds())
#: Seconds by which a key may be before the window it names: every format has the year.
_YEAR = 367 * DAY
#: Keys among which the nearest to a mistyped one is looked for.
_COMPARED = 10_000
_MOST = 1 << 62

D = TypeVar("D", bound=PartitionsDefinition)


class Partitions(ABC):
    """What exists of a definition at a moment. Ordinals are positions: 0 to before `count`."""

    __slots__ = ("context", "count")
    context: PartitionsContext
    #: How many partitions there are.
    count: int

    def __len__(self) -> int:
        return self.count

    @property
    @abstractmethod
    def defined_by(self) -> PartitionsDefinition | None:
        """The definition; None for an asset without partitions."""

    @abstractmethod
    def describe(self) -> str:
        """One line for messages."""

    @abstractmethod
    def same_as(self, other: "Partitions") -> bool:
        """Whether equal ordinals mean equal partitions."""

    @abstractmethod
    def keys_at(self, ordinals: Int64s) -> list[str]:
        """The keys of these ordinals, in any order; they have to exist."""

    @abstractmethod
    def ordinals(self, keys: Sequence[str]) -> Int64s:
        """The ordinal of each key, -1 for what is no key now. A million take well under a second."""

    @abstractmethod
    def write_intervals(self, found: Intervals) -> dict[str, Any]:
        """Plain data for `read_intervals`."""

    @abstractmethod
    def read_intervals(self, data: Mapping[str, Any]) -> Intervals:
        """What of `data` exists."""

    def explain_unknown(self, key: str) -> str:
        """The remedy for a key that does not exist."""
        known = self.keys(max(0, self.count - _COMPARED))
        close = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
        if close:
            return f"Did you mean `{close[0]}`?"
        return f"There are {self.count:,}, from `{known[0]}` to `{known[-1]}`." if known else "There are none yet."

    def keys(self, start: int = 0, stop: int | None = None) -> list[str]:
        """A page of keys, in order."""
        first, last, _ = slice(start, stop).indices(self.count)
        return self.keys_at(np.arange(first, max(first, last), dtype=np.int64))

    def key(self, ordinal: int) -> str:
        """The key of one ordinal, negative ones counted from the end. Raises `UnknownPartitionError`."""
        found = ordinal + self.count if ordinal < 0 else ordinal
        if not 0 <= found < self.count:
            raise UnknownPartitionError(
                f"There is no partition number {ordinal} of {self.count:,} ({self.describe()}).",
                remedy="Ordinals are counted from 0.",
            )
        return self.keys_at(int64s([found]))[0]

    def find(self, key: str) -> int | None:
        """The ordinal of a key, None for what is no key now."""
        found = int(self.ordinals([key])[0])
        return None if found < 0 else found

    def ordinal(self, key: str) -> int:
        """The ordinal of a key. Raises `UnknownPartitionError`, naming the nearest key."""
        if not isinstance(cast(object, key), str):
            raise UsageError(f"A partition key is text, not {type(key).__name__}.", remedy="Convert it with str().")
        found = self.find(key)
        if found is None:
            raise UnknownPartitionError(
                f"There is no partition `{printable_line(key, 100)}` ({self.describe()}).",
                remedy=self.explain_unknown(key),
            )
        return found

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self.find(key) is not None

    def all(self) -> PartitionSubset:
        """Every partition."""
        return PartitionSubset(self, intervals.one(0, self.count))

    def none(self) -> PartitionSubset:
        """The empty set."""
        return PartitionSubset(self, intervals.EMPTY)

    def last(self) -> PartitionSubset:
        """The last partition, if there is one."""
        return PartitionSubset(self, intervals.one(max(0, self.count - 1), self.count))

    def subset(self, keys: Iterable[str]) -> PartitionSubset:
        """The partitions with these keys. Raises `UnknownPartitionError` for the first that does not exist."""
        listed = list(keys)
        found = self.ordinals(listed)
        if len(found) and int(found.min()) < 0:
            self.ordinal(listed[int(found.argmin())])
        return self.subset_of_ordinals(found)

    def subset_of_ordinals(self, ordinals: ArrayLike) -> PartitionSubset:
        """The partitions with these ordinals, in any order; those that do not exist are left out."""
        return self.subset_of_intervals(intervals.of_numbers(int64s(ordinals)))

    def subset_of_mask(self, mask: NDArray[np.bool_]) -> PartitionSubset:
        """The partitions whose entry is true."""
        return PartitionSubset(self, intervals.of_mask(mask[: self.count]))

    def subset_of_intervals(self, found: Intervals) -> PartitionSubset:
        """The partitions with these ordinals; those that do not exist are left out."""
        return PartitionSubset(
            self, intervals.normalize(np.maximum(found.starts, 0), np.minimum(found.ends, self.count))
        )

    def range(self, start: str, end: str) -> PartitionSubset:
        """From one key to another, both included. Raises `UnknownPartitionError`, and `UsageError` if backwards."""
        first, last = self.ordinal(start), self.ordinal(end)
        if first > last:
            raise UsageError(
                f"The range {printable_line(start, 80)}..{printable_line(end, 80)} runs backwards.",
                remedy=f"Write {printable_line(end, 80)}..{printable_line(start, 80)}.",
            )
        return PartitionSubset(self, intervals.one(first, last + 1))

    def parse_range(self, text: str) -> PartitionSubset:
        """A key, or `first..last`. A key that holds `..` itself is found too. Raises as `range`."""
        if self.find(text) is not None or ".." not in text:
            return self.range(text, text)
        at = text.find("..")
        while at >= 0:
            start, end = text[:at], text[at + 2 :]
            if start in self and end in self:
                return self.range(start, end)
            at = text.find("..", at + 1)
        start, _, end = text.partition("..")
        return self.range(start, end)

    def subset_of_range(self, keys: PartitionKeyRange) -> PartitionSubset:
        """As `range`."""
        return self.range(keys.start, keys.end)

    def read_subset(self, data: Mapping[str, Any]) -> tuple[PartitionSubset, int]:
        """What `PartitionSubset.to_json` wrote, and how many of it do not exist (any more, or yet).

        Raises `UsageError` for what it did not write.
        """
        try:
            found = self.subset_of_intervals(self.read_intervals(data))
            return found, max(0, int(data["count"]) - len(found))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UsageError(
                f"This is no set of partitions ({self.describe()}): {printable_line(repr(error), 100)}.",
                remedy="It was written for another kind of definition.",
            ) from None

    def boxes(self, subset: PartitionSubset) -> list[dict[str, PartitionSubset]]:
        """For several dimensions: see `PartitionSubset.boxes`."""
        raise UsageError(f"These partitions have one dimension: {self.describe()}.", remedy="Use the set itself.")

    def describe_intervals(self, found: Intervals, limit: int) -> list[str]:
        """The first `limit` ranges as texts, and how many more there are."""
        shown = PartitionSubset(self, Intervals(found.starts[:limit], found.ends[:limit])).ranges()
        texts = [one.start if one.start == one.end else str(one) for one in shown]
        more = len(found.starts) - limit
        return [*texts, f"and {more:,} more ranges"] if more > 0 else texts

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.count:,}, {printable_line(self.describe(), 200)}>"


class Unpartitioned(Partitions):
    """The one cell of an asset without partitions; its key is the empty text."""

    __slots__ = ()

    def __init__(self, context: PartitionsContext) -> None:
        self.context = context
        self.count = 1

    @property
    def defined_by(self) -> None:
        """None."""

    def describe(self) -> str:
        """It has no partitions."""
        return "unpartitioned"

    def same_as(self, other: Partitions) -> bool:
        """With another of these."""
        return isinstance(other, Unpartitioned)

    def keys_at(self, ordinals: Int64s) -> list[str]:
        """Empty texts."""
        return [""] * len(ordinals)

    def ordinals(self, keys: Sequence[str]) -> Int64s:
        """0 for the empty text."""
        return int64s([-1 if key else 0 for key in keys])

    def write_intervals(self, found: Intervals) -> dict[str, Any]:
        """Nothing but the count."""
        return {}

    def read_intervals(self, data: Mapping[str, Any]) -> Intervals:
        """The cell, if it was counted."""
        return intervals.one(0, min(1, int(data["count"])))


class DefinedPartitions(Partitions, Generic[D]):
    """Those of a definition."""

    __slots__ = ("definition",)
    definition: D

    def __init__(self, definition: D, context: PartitionsContext) -> None:
        self.definition = definition
        self.context = context

    @property
    def defined_by(self) -> PartitionsDefinition:
        """The definition."""
        return self.definition

    def describe(self) -> str:
        """The definition's line."""
        return printable_line(self.definition.describe(), 200)

    def same_as(self, other: Partitions) -> bool:
        """When the definition is equal and as many exist."""
        return self is other or (self.count == other.count and self.definition == other.defined_by)


class StaticPartitions(DefinedPartitions[StaticPartitionsDefinition]):
    """The keys of a list."""

    __slots__ = ()

    def __init__(self, definition: StaticPartitionsDefinition, context: PartitionsContext) -> None:
        super().__init__(definition, context)
        self.count = len(definition.partition_keys)

    def keys_at(self, ordinals: Int64s) -> list[str]:
        """Looked up."""
        keys = self.definition.partition_keys
        return [keys[at] for at in ordinals.tolist()]

    def ordinals(self, keys: Sequence[str]) -> Int64s:
        """Looked up."""
        return np.fromiter(map(self.definition.indexes.get, keys, repeat(-1)), np.int64, len(keys))

    def write_intervals(self, found: Intervals) -> dict[str, Any]:
        """The keys."""
        return {"keys": self.keys_at(intervals.numbers(found))}

    def read_intervals(self, data: Mapping[str, Any]) -> Intervals:
        """Those that exist."""
        found = self.ordinals(cast(list[str], data["keys"]))
        return intervals.of_numbers(found[found >= 0])


class DynamicPartitions(DefinedPartitions[DynamicPartitionsDefinition]):
    """The keys that the source has; it is asked for what is needed, in as few slices as it takes."""

    __slots__ = ()

    def __init__(self, definition: DynamicPartitionsDefinition, context: PartitionsContext) -> None:
        super().__init__(definition, context)
        self.count = context.dynamic.count(definition.name)

    def same_as(self, other: Partitions) -> bool:
        """With the same source too."""
        return super().same_as(other) and self.context.dynamic is other.context.dynamic

    def keys_at(self, ordinals: Int64s) -> list[str]:
        """One slice for ordinals that lie close together."""
        name, source = self.definition.name, self.context.dynamic
        if not len(ordinals):
            return []
        first, last = int(ordinals.min()), int(ordinals.max())
        if last - first < 20 * len(ordinals) + 1000:
            page = source.slice(name, first, last + 1)
            positions: list[int] = (ordinals - first).tolist()
            return [page[at] for at in positions]
        found = intervals.of_numbers(ordinals)
        known: dict[int, str] = {}
        for start, end in zip(found.starts.tolist(), found.ends.tolist(), strict=True):
            known.update(enumerate(source.slice(name, start, end), start))
        return [known[at] for at in ordinals.tolist()]

    def ordinals(self, keys: Sequence[str]) -> Int64s:
        """Asked for."""
        return int64s(self.context.dynamic.indexes(self.definition.name, keys))

    def write_intervals(self, found: Intervals) -> dict[str, Any]:
        """The keys."""
        return {"keys": self.keys_at(intervals.numbers(found))}

    def read_intervals(self, data: Mapping[str, Any]) -> Intervals:
        """Those that exist."""
        found = self.ordinals(cast(list[str], data["keys"]))
        return intervals.of_numbers(found[found >= 0])


class WindowPartitions(DefinedPartitions[TimeWindowPartitionsDefinition]):
    """Windows that have ended. `windows` knows those before the first and after the last as well."""

    __slots__ = ("_clock", "_edges", "windows")

    def __init__(self, definition: TimeWindowPartitionsDefinition, context: PartitionsContext) -> None:
        super().__init__(definition, context)
        now = int((context.moment - _EPOCH) // timedelta(seconds=1))
        end = definition.end_seconds
        limit = _LAST_INSTANT if end is None else min(end, _LAST_INSTANT)
        self._open(FIRST_HORIZON if max(now, definition.start_seconds) < _FIRST_HORIZON else LAST_HORIZON)
        try:
            self.windows.starts(int64s([0]))
        except CronError as error:
            raise CronError(f"{self.describe()}: {error.message}", remedy=error.remedy) from None
        count = self._ended(now) + definition.end_offset
        if self._last_end(count) > _FIRST_HORIZON:
            self._open(LAST_HORIZON)
            count = self._ended(now) + definition.end_offset
        # Asked for only where it matters: with exclusions, finding the limit means looking at all windows before it.
        self.count = max(0, self._ended(limit) if self._last_end(count) > limit else count)
        #: Instants between which to look for keys: with exclusions, looking far away costs what lies between.
        self._edges = (definition.start_seconds - _YEAR, max(self._last_end(self.count), definition.start_seconds))

    def _last_end(self, count: int) -> int:
        return int(self.windows.ends(int64s([count - 1]))[0]) if count > 0 else 0

    def _open(self, horizon: int) -> None:
        one = self.definition
        self.windows = windows_of(one.cron_schedule, one.timezone, one.start_seconds, one.exclusions, horizon)
        self._clock = wall_clock(one.timezone, horizon)

    def _ended(self, instant: int) -> int:
        return int(self.windows.first_ending(int64s([instant + 1]))[0])

    def starts(self, ordinals: ArrayLike) -> Int64s:
        """Where windows start, in seconds since 1970; ordinals may lie outside of what exists."""
        return self.windows.starts(int64s(ordinals))

    def ends(self, ordinals: ArrayLike) -> Int64s:
        """Where windows end, in seconds since 1970."""
        return self.windows.ends(int64s(ordinals))

    def ordinals_starting(self, instants: ArrayLike) -> Int64s:
        """The windows that start at exactly these instants, -1 where none that exists does."""
        wanted = np.clip(int64s(instants), *self._edges)
        found = self.windows.first_starting(wanted)
        inside = (found >= 0) & (found < self.count)
        inside[inside] = self.windows.starts(found[inside]) == int64s(instants)[inside]
        return np.where(inside, found, -1)

    def window(self, key: str) -> TimeWindow:
        """The window of a key. Raises `UnknownPartitionError`."""
        return self.window_at(self.ordinal(key))

    def window_at(self, ordinal: int) -> TimeWindow:
        """The window of an ordinal, which may lie outside of what exists."""
        return self.windows_at([ordinal])[0]

    def windows_at(self, ordinals: ArrayLike) -> list[TimeWindow]:
        """The window of each ordinal."""
        return self._stretches(self.starts(ordinals), self.ends(ordinals))

    def time_windows(self, subset: PartitionSubset) -> list[TimeWindow]:
        """The stretches of time that a set covers, one for each of its ranges."""
        return self._stretches(self.starts(subset.intervals.starts), self.ends(subset.intervals.ends - 1))

    def _stretches(self, starts: Int64s, ends: Int64s) -> list[TimeWindow]:
        return [
            TimeWindow(self._moment(start), self._moment(end))
            for start, end in zip(starts.tolist(), ends.tolist(), strict=True)
        ]

    def overlapping(self, start: datetime, end: datetime) -> PartitionSubset:
        """The windows that share time with the stretch from `start` to before `end`. Raises `UsageError`."""
        if start.utcoffset() is None or end.utcoffset() is None:
            raise UsageError("A stretch of time needs datetimes with a time zone.", remedy="Add tzinfo.")
        if not start < end:
            return self.none()
        # Windows are whole seconds: one overlaps if it ends after the second that `start` is in.
        seconds = int((start - _EPOCH) // timedelta(seconds=1)) + 1, -int(-(end - _EPOCH) // timedelta(seconds=1))
        low, high = np.clip(seconds, *self._edges).tolist()
        first, last = self.windows.first_ending(int64s([low])), self.windows.first_starting(int64s([high]))
        return self.subset_of_intervals(Intervals(first, last))

    def containing(self, moment: datetime) -> PartitionSubset:
        """The window that `moment` is in, if it exists."""
        return self.overlapping(moment, moment + timedelta(microseconds=1))

    def local_days(self, instants: Int64s) -> Int64s:
        """The dates on the zone's clocks, in days since 1970-01-01."""
        return self._clock.to_local(instants)[0] // DAY

    def local_starts(self, ordinals: ArrayLike) -> Int64s:
        """What the zone's clocks show when windows start, in seconds since 1970-01-01 00:00."""
        return self._clock.to_local(self.starts(ordinals))[0]

    def ordinals_from_local(self, local: Int64s) -> Int64s:
        """The first window that starts when clocks show this or later, for each; may lie outside of what exists."""
        return self.windows.first_starting(np.clip(self._clock.to_instants(local), *self._edges))

    def _moment(self, second: int | np.int64) -> datetime:
        return (_EPOCH + timedelta(seconds=int(second))).astimezone(load_zone(self.definition.timezone))

    def keys_at(self, ordinals: Int64s) -> list[str]:
        """Their starts, written."""
        local, offsets, repeated = self._clock.to_local(self.windows.starts(ordinals))
        keys = format_keys(self.definition.key_format, local)
        for at in np.flatnonzero(repeated).tolist():
            keys[at] += print_offset(int(offsets[at]))
        return keys

    def ordinals(self, keys: Sequence[str]) -> Int64s:
        """Parsed."""
        form = self.definition.key_format
        local = parse_keys(form, keys)
        valid = local != NO_TIME
        low, high = self._edges
        instants = self._clock.to_instants(np.where(valid, local, 0))
        valid &= (instants >= low) & (instants < high)
        found = self.windows.first_starting(np.where(valid, instants, self.definition.start_seconds))
        valid &= (found >= 0) & (found < self.count)
        found = np.where(valid, found, -1)
        # The text has to be exactly how the window found is written.
        starts, _, repeated = self._clock.to_local(self.windows.starts(np.maximum(found, 0)))
        if form.fields is None:
            check = np.flatnonzero(valid)
            written = self.keys_at(found[check])
            valid[check] = [keys[at] == text for at, text in zip(check.tolist(), written, strict=True)]
        else:
            valid &= ~repeated & (_floor(starts, len(form.fields) // 2) == local)
        found = np.where(valid, found, -1)
        unknown = np.flatnonzero(~valid)
        # Texts with the offset of a repeated hour are few, if there are any.
        with_offset = [at for at in unknown.tolist() if keys[at][-5:-4] in "+-" or keys[at][-7:-6] in "+-"]
        for at in with_offset:
            found[at] = self._repeated(keys[at])
        return found

    def _repeated(self, key: str) -> int:
        text, offset = self.definition.key_format.split_offset(key)
        if offset is None:
            return -1
        local = int(parse_keys(self.definition.key_format, [text])[0])
        if local == NO_TIME:
            return -1
        if not self._edges[0] <= local - offset < self._edges[1]:
            return -1
        found = int(self.windows.first_starting(int64s([local - offset]))[0])
        return found if 0 <= found < self.count and self.keys_at(int64s([found]))[0] == key else -1

    def explain_unknown(self, key: str) -> str:
        """Why a window does not exist: too early, too late, not over, or not its start."""
        if not self.count:
            return f"None exists yet: the first window ends at {self.window_at(0).end.isoformat()}."
        first, last = self.keys_at(int64s([0, self.count - 1]))
        known = f"They go from `{first}` to `{last}`"
        local = int(parse_keys(self.definition.key_format, [key])[0])
        if local == NO_TIME:
            return f"{known}."
        instant = int(self._clock.to_instants(int64s([local]))[0])
        if not self._edges[0] <= instant < self._edges[1] + _YEAR:
            return f"{known}."
        at = int(self.windows.first_starting(int64s([instant]))[0])
        if at < 0:
            return f"{known}; it is before the first."
        if at >= self.count and int(self.ends([at])[0]) > _LAST_INSTANT:
            return f"{known}."
        if at >= self.count:
            window = self.window_at(at)
            end = self.definition.end
            if end is not None and window.end > end:
                return f"{known}; the definition ends at {end.isoformat()}."
            return f"{known}; its window ends at {window.end.isoformat()}."
        return f"{known}; the next one is `{self.keys_at(int64s([at]))[0]}`."

    def write_intervals(self, found: Intervals) -> dict[str, Any]:
        """Where each range starts and ends."""
        return {
            "windows": [
                list(pair)
                for pair in zip(self.starts(found.starts).tolist(), self.ends(found.ends - 1).tolist(), strict=True)
            ]
        }

    def read_intervals(self, data: Mapping[str, Any]) -> Intervals:
        """The windows that lie in the ranges entirely."""
        pairs = int64s([(int(start), int(end)) for start, end in data["windows"]]).reshape(-1, 2).clip(*self._edges)
        return Intervals(self.windows.first_starting(pairs[:, 0]), self.windows.first_ending(pairs[:, 1] + 1))


def _floor(local: Int64s, fields: int) -> Int64s:
    """Wall-clock seconds cut to year, month, day, hour or minute: 1 to 5 fields."""
    if fields >= 3:
        size = (DAY, 3600, 60)[fields - 3]
        return local // size * size
    unit = "M8[Y]" if fields == 1 else "M8[M]"
    return (local // DAY).astype("M8[D]").astype(unit).astype("M8[D]").astype(np.int64) * DAY


class MultiPartitions(DefinedPartitions[MultiPartitionsDefinition]):
    """Every combination of what exists in the dimensions; ordinals count the last of `order` fastest."""

    __slots__ = ("dimensions", "shape")

    def __init__(self, definition: MultiPartitionsDefinition, context: PartitionsContext) -> None:
        super().__init__(definition, context)
        #: The partitions of each dimension, from the most to the least significant.
        self.dimensions: dict[str, Partitions] = {
            name: definition.dimensions[name].at(context) for name in definition.order
        }
        self.shape: tuple[int, ...] = tuple(one.count for one in self.dimensions.values())
        self.count = 1
        for size in self.shape:
            self.count *= size
        if self.count > _MOST:
            raise DefinitionError(
                f"There would be {self.count} partitions ({self.describe()}).", remedy="Use fewer dimensions."
            )

    def same_as(self, other: Partitions) -> bool:
        """In every dimension."""
        return self is other or (
            isinstance(other, MultiPartitions)
            and self.dimensions.keys() == other.dimensions.keys()
            and all(one.same_as(other.dimensions[name]) for name, one in self.dimensions.items())
        )

    def typed_key(self, ordinal: int) -> MultiPartitionKey:
        """The key of one ordinal with its dimensions. Raises `UnknownPartitionError`."""
        return self.definition.key(self.key(ordinal))

    def by_dimension(self, ordinals: Int64s) -> dict[str, Int64s]:
        """The ordinals in each dimension."""
        found: dict[str, Int64s] = {}
        for name, one in reversed(self.dimensions.items()):
            ordinals, found[name] = np.divmod(ordinals, max(one.count, 1))
        return {name: found[name] for name in self.dimensions}

    def combine(self, by_dimension: Mapping[str, Int64s]) -> Int64s:
        """The inverse of `by_dimension`; -1 where one of them is."""
        flat = missing = None
        for name, one in self.dimensions.items():
            ordinals = by_dimension[name]
            flat = ordinals if flat is None else flat * one.count + ordinals
            missing = ordinals < 0 if missing is None else missing | (ordinals < 0)
        assert flat is not None and missing is not None
        return np.where(missing, -1, flat)

    def keys_at(self, ordinals: Int64s) -> list[str]:
        """Values of dimensions, joined."""
        columns: dict[str, list[str]] = {}
        for name, within in self.by_dimension(ordinals).items():
            one = self.dimensions[name]
            if one.count <= 4 * len(ordinals):
                keys, which = one.keys(), within
            else:
                unique, which = np.unique(within, return_inverse=True)
                keys = one.keys_at(unique)
            keys = [print_values((key,)) for key in keys]
            columns[name] = [keys[at] for at in which.tolist()]
        return ["|".join(row) for row in zip(*(columns[name] for name in self.definition.dimensions), strict=True)]

    def ordinals(self, keys: Sequence[str]) -> Int64s:
        """Values of dimensions, split."""
        names = tuple(self.definition.dimensions)
        fits = np.fromiter(map(str.count, keys, repeat("|")), np.int64, len(keys)) == len(names) - 1
        if not fits.all():
            found = np.full(len(keys), -1, np.int64)
            if fits.any():
                found[fits] = self.ordinals([keys[at] for at in np.flatnonzero(fits).tolist()])
            return found
        if not len(keys):
            return int64s([])
        # One long list: a million short ones cost ten times as much.
        values = "|".join(keys).split("|")
        columns: dict[str, Int64s] = {}
        for at, name in enumerate(names):
            column = values[at :: len(names)]
            unique = list(dict.fromkeys(column))
            ordinals = self.dimensions[name].ordinals([_unescape_exactly(value) for value in unique])
            known = dict(zip(unique, ordinals.tolist(), strict=True))
            columns[name] = np.fromiter(map(known.__getitem__, column), np.int64, len(column))
        return self.combine(columns)

    def product(self, **subsets: PartitionSubset) -> PartitionSubset:
        """The partitions whose value in each named dimension is in that set. Raises `UsageError`."""
        for name in subsets.keys() - self.dimensions.keys():
            raise UsageError(
                f"There is no dimension '{printable_line(name, 60)}' ({self.describe()}).",
                remedy=f"Use {', '.join(self.dimensions)}.",
            )
        box = [subsets[name].intervals if name in subsets else one.all().intervals for name, one in self.items()]
        return PartitionSubset(self, flatten(box, self.shape))

    def items(self) -> Iterable[tuple[str, Partitions]]:
        """Names and partitions of dimensions, from the most to the least significant."""
        return self.dimensions.items()

    def boxes(self, subset: PartitionSubset) -> list[dict[str, PartitionSubset]]:
        """One box for rows that are alike."""
        return [
            {name: PartitionSubset(one, found) for (name, one), found in zip(self.items(), box, strict=True)}
            for box in boxes_of(subset.intervals, self.shape)
        ]

    def explain_unknown(self, key: str) -> str:
        """The first dimension whose value does not exist."""
        try:
            values = self.definition.key(key).keys_by_dimension
        except InvalidKeyError as error:
            return error.remedy
        for name, value in values.items():
            if value not in self.dimensions[name]:
                return f"{name}: {self.dimensions[name].explain_unknown(value)}"
        return "Write a % that is followed by 7C or 25 as %25."

    def write_intervals(self, found: Intervals) -> dict[str, Any]:
        """Boxes."""
        return {
            "boxes": [
                {name: one.to_json() for name, one in box.items()} for box in self.boxes(PartitionSubset(self, found))
            ]
        }

    def read_intervals(self, data: Mapping[str, Any]) -> Intervals:
        """What of the boxes exists."""
        found = [
            flatten([one.read_subset(box[name])[0].intervals for name, one in self.items()], self.shape)
            for box in data["boxes"]
        ]
        starts = np.concatenate([intervals.EMPTY.starts, *(one.starts for one in found)])
        return intervals.normalize(starts, np.concatenate([intervals.EMPTY.ends, *(one.ends for one in found)]))

    def describe_intervals(self, found: Intervals, limit: int) -> list[str]:
        """Boxes, such as `date 2013-01-01..2013-03-31 × origin JFK`."""
        boxes = self.boxes(PartitionSubset(self, found))
        texts = [
            " × ".join(
                f"{name} {', '.join(one.partitions.describe_intervals(one.intervals, limit))}"
                for name, one in box.items()
            )
            for box in boxes[:limit]
        ]
        return [*texts, f"and {len(boxes) - limit:,} more"] if len(boxes) > limit else texts


def _unescape_exactly(value: str) -> str:
    """The value that is printed so; nothing, which is no key, where it would be printed otherwise."""
    if "%" not in value:
        return value
    found = parse_values(value)
    return found[0] if print_values(found) == value else ""


def partitions_at(definition: PartitionsDefinition | None, context: PartitionsContext) -> Partitions:
    """The partitions of an asset, which may have none: then its one cell."""
    return Unpartitioned(context) if definition is None else definition.at(context)
