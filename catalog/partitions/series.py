"""Ticks of a cron in a zone, and the windows between them, as arithmetic on arrays.

docs/decisions/0013-partitions.md tells why nothing is enumerated.
"""

import functools
import threading
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from headwater.catalog.errors import CronError
from headwater.catalog.partitions.cron import LAST, LAST_WEEKDAY, CronFields, parse_cron
from headwater.catalog.partitions.zone import EVER, FIRST_HORIZON, Changes, find_changes

Int64s = NDArray[np.int64]

DAY = 86400
#: Days after which the Gregorian calendar repeats, weekdays included.
CALENDAR = 146_097
#: Windows looked at in one go for exclusions.
_CHUNK = 1 << 14
#: Seconds without a window that stays after which none is looked for: 60 years, as a leap day is a Monday every 28.
_PATIENCE = 60 * 366 * DAY


def int64s(values: ArrayLike) -> Int64s:
    """`values` as an array of whole numbers."""
    return np.asarray(values, np.int64)


class WallClock:
    """A zone's changes as arrays: instants to wall-clock time and back."""

    __slots__ = ("_local_starts", "offsets", "starts")

    def __init__(self, changes: Changes) -> None:
        self.starts = int64s(changes.starts)
        self.offsets = int64s(changes.offsets)
        # The wall-clock time, by the offset before, at which each offset begins.
        self._local_starts = self.starts.copy()
        self._local_starts[1:] += self.offsets[:-1]

    def to_local(self, instants: Int64s) -> tuple[Int64s, Int64s, NDArray[np.bool_]]:
        """Wall-clock seconds, their offsets, and whether clocks show them for the second time."""
        if len(self.starts) == 1:
            return instants + self.offsets[0], np.broadcast_to(self.offsets[0], instants.shape), instants < EVER
        at = self.starts.searchsorted(instants, "right") - 1
        offsets = self.offsets[at]
        local = instants + offsets
        return local, offsets, (local < self._local_starts[at]) & (at > 0)

    def to_instants(self, local: Int64s) -> Int64s:
        """The first instants at which clocks show these times or, where they skip them, the end of the gap."""
        at = np.maximum(self._local_starts.searchsorted(local, "right") - 1, 0)
        return np.maximum(local - self.offsets[at], self.starts[at])


@functools.lru_cache(maxsize=64)
def wall_clock(zone: str, horizon: int = FIRST_HORIZON) -> WallClock:
    """The clock of a zone."""
    return WallClock(find_changes(zone, horizon))


class Pattern:
    """The wall-clock times that a cron names, numbered in order; 1970-01-01 00:00 is second 0. Raises `CronError`."""

    __slots__ = ("_days", "_per_period", "_period", "_times")

    def __init__(self, cron: CronFields) -> None:
        self._times = int64s([hour * 3600 + minute * 60 for hour in cron.hours for minute in cron.minutes])
        self._days, self._period = _days_of(cron)
        if not len(self._days):
            raise CronError("The cron expression names no day that ever comes.", remedy="Check its day and month.")
        self._per_period = len(self._days)

    def times(self, numbers: Int64s) -> Int64s:
        """The wall-clock seconds of these numbers."""
        if len(self._times) == 1:
            day, time = numbers, self._times[0]
        else:
            day, within = np.divmod(numbers, len(self._times))
            time = self._times[within]
        if self._period > 1:
            period, within = np.divmod(day, self._per_period)
            day = period * self._period + self._days[within]
        return day * DAY + time

    def rank(self, local: Int64s) -> Int64s:
        """How many of the times come before each of these: the number of the first one that does not."""
        day, second = np.divmod(local, DAY)
        before = self._times.searchsorted(second, "left")
        if self._period == 1:
            return day * len(self._times) + before
        period, within = np.divmod(day, self._period)
        at = self._days.searchsorted(within, "left")
        named = self._days[np.minimum(at, self._per_period - 1)] == within
        return (period * self._per_period + at) * len(self._times) + np.where(named, before, 0)


def _days_of(cron: CronFields) -> tuple[Int64s, int]:
    """The days a cron names in one period, counted from 1970-01-01, and the period's length."""
    all_weekdays = len(cron.weekdays) == 8
    if cron.every_month_day and all_weekdays:
        return int64s([0]), 1
    period = 7 if cron.every_month_day and all(isinstance(day, int) for day in cron.weekdays) else CALENDAR
    days = np.arange(period, dtype=np.int64)
    weekday = (days + 4) % 7
    dates = days.astype("M8[D]")
    months = dates.astype("M8[M]")
    day = (dates - months.astype("M8[D]")).astype(np.int64) + 1
    last = ((months + 1).astype("M8[D]") - months.astype("M8[D]")).astype(np.int64)
    by_day = np.isin(day, [one for one in cron.days if one > 0])
    if LAST in cron.days:
        by_day |= day == last
    if LAST_WEEKDAY in cron.days:
        last_weekday = (weekday + last - day) % 7
        by_day |= day == last - np.where(last_weekday == 0, 2, np.where(last_weekday == 6, 1, 0))
    by_weekday = np.isin(weekday, [one % 7 for one in cron.weekdays if isinstance(one, int)])
    for one in cron.weekdays:
        if isinstance(one, tuple):
            nth = (day + 7 > last) if one[1] == LAST else ((day + 6) // 7 == one[1])
            by_weekday |= (weekday == one[0] % 7) & nth
    found = (by_day & by_weekday) if cron.both_days else (by_day | by_weekday)
    found &= np.isin(months.astype(np.int64) % 12 + 1, list(cron.months))
    return np.flatnonzero(found).astype(np.int64), period


class Ticks:
    """The instants at which a cron ticks in a zone, numbered in order from a number without meaning.

    Between two changes of the zone's offset ticks are a run of the pattern's times: a piece. `_index` is the number
    of a piece's first tick, `_number` the pattern's number of it.
    """

    __slots__ = ("_first", "_index", "_number", "_offset", "_pattern")

    def __init__(self, cron: CronFields, changes: Changes) -> None:
        self._pattern = pattern = Pattern(cron)
        starts, offsets = int64s(changes.starts), int64s(changes.offsets)
        opens = starts + offsets
        closes = np.append(starts[1:] + offsets[:-1], -EVER)
        if cron.follows_clock:
            gap_opens = opens
        else:
            # A repeated hour counts the first time only.
            reached = np.maximum.accumulate(closes)
            gap_opens = np.append(opens[:1], reached[:-1])
            opens = np.maximum(opens, gap_opens)
        first, after, gap = (
            pattern.rank(opens).tolist(),
            pattern.rank(closes).tolist(),
            pattern.rank(gap_opens).tolist(),
        )
        at_opening = pattern.times(int64s(first)) == opens
        index = number = first[0]
        pieces: list[tuple[int, int, int]] = []
        for i, offset in enumerate(changes.offsets):
            # Times that the zone skips all fall on the end of the gap, once.
            if i and first[i] > gap[i] and not at_opening[i]:
                number = gap[i]
                pieces.append((index, number, int(pattern.times(int64s([number]))[0]) - changes.starts[i]))
                index += 1
            if after[i] > first[i]:
                pieces.append((index, first[i], offset))
                index += after[i] - first[i]
        self._index, self._number, self._offset = (int64s(column) for column in zip(*pieces, strict=True))
        self._first = pattern.times(self._number) - self._offset

    def instants(self, indexes: Int64s) -> Int64s:
        """When the ticks of these numbers are."""
        if len(self._index) == 1:
            return self._pattern.times(indexes) - self._offset[0]
        at = np.maximum(self._index.searchsorted(indexes, "right") - 1, 0)
        return self._pattern.times(indexes - (self._index - self._number)[at]) - self._offset[at]

    def rank(self, instants: Int64s) -> Int64s:
        """The number of the first tick that is not before each of these instants."""
        if len(self._index) == 1:
            return self._pattern.rank(instants + self._offset[0])
        at = np.maximum(self._first.searchsorted(instants, "right") - 1, 0)
        found = self._pattern.rank(instants + self._offset[at]) + (self._index - self._number)[at]
        return np.clip(found, self._index[at], np.append(self._index[1:], -EVER)[at])


@functools.lru_cache(maxsize=256)
def ticks_of(cron_schedule: str, zone: str, horizon: int = FIRST_HORIZON) -> Ticks:
    """The ticks of a cron. Raises `CronError`."""
    return Ticks(parse_cron(cron_schedule), find_changes(zone, horizon))


class Windows(Protocol):
    """Windows of time numbered in both directions; 0 is the first that starts at or after a definition's start."""

    #: Each window ends where the next one starts.
    contiguous: bool

    def starts(self, numbers: Int64s) -> Int64s:
        """Where windows start."""
        ...

    def ends(self, numbers: Int64s) -> Int64s:
        """Where windows end."""
        ...

    def first_starting(self, instants: Int64s) -> Int64s:
        """The first window that starts at or after each instant."""
        ...

    def first_ending(self, instants: Int64s) -> Int64s:
        """The first window that ends at or after each instant."""
        ...


class RegularWindows:
    """From each tick to the next."""

    __slots__ = ("_origin", "_ticks", "contiguous")

    def __init__(self, ticks: Ticks, start: int) -> None:
        self._ticks = ticks
        self._origin = ticks.rank(int64s([start]))[0]
        self.contiguous = True

    def starts(self, numbers: Int64s) -> Int64s:
        """Where windows start."""
        return self._ticks.instants(numbers + self._origin)

    def ends(self, numbers: Int64s) -> Int64s:
        """Where windows end."""
        return self._ticks.instants(numbers + (self._origin + 1))

    def first_starting(self, instants: Int64s) -> Int64s:
        """The first window that starts at or after each instant."""
        return self._ticks.rank(instants) - self._origin

    def first_ending(self, instants: Int64s) -> Int64s:
        """The first window that ends at or after each instant."""
        return self._ticks.rank(instants) - self._origin - 1


class RemainingWindows:
    """Regular windows without those that start at an excluded tick or moment: a list, grown as far as it is asked for.

    `_kept` holds the numbers of regular windows from `_low` to `_high` that stay; the one at `_zero` is number 0.
    """

    __slots__ = ("_excluded", "_growing", "_high", "_kept", "_low", "_moments", "_windows", "_zero", "contiguous")

    def __init__(self, windows: RegularWindows, excluded: list[Ticks], moments: list[int]) -> None:
        self._windows = windows
        self._excluded = excluded
        self._moments = int64s(moments)
        self._low: int = 0
        self._high: int = 0
        self._kept = int64s([])
        self._zero = 0
        # Definitions are shared between threads.
        self._growing = threading.RLock()
        self.contiguous = False

    def starts(self, numbers: Int64s) -> Int64s:
        """Where windows start."""
        return self._windows.starts(self._regular(numbers))

    def ends(self, numbers: Int64s) -> Int64s:
        """Where windows end."""
        return self._windows.ends(self._regular(numbers))

    def first_starting(self, instants: Int64s) -> Int64s:
        """The first window that starts at or after each instant."""
        return self._first_from(self._windows.first_starting(instants))

    def first_ending(self, instants: Int64s) -> Int64s:
        """The first window that ends at or after each instant."""
        return self._first_from(self._windows.first_ending(instants))

    def _first_from(self, regular: Int64s) -> Int64s:
        with self._growing:
            if len(regular):
                self._look(int(regular.min()), int(regular.max()) + 1)
            return self._kept.searchsorted(regular, "left") - self._zero

    def _regular(self, numbers: Int64s) -> Int64s:
        with self._growing:
            self._find(numbers)
            return self._kept[numbers + self._zero]

    def _find(self, numbers: Int64s) -> None:
        """Have looked until these numbers are known."""
        if len(numbers):
            lowest, highest = int(numbers.min()), int(numbers.max())
            step = _CHUNK
            searched = 0
            while (below := lowest + self._zero < 0) or highest + self._zero >= len(self._kept):
                known = len(self._kept)
                edge = self._low if below else self._high
                further = edge - step if below else edge + step
                self._look(min(further, self._low), max(further, self._high))
                span = self._windows.starts(int64s([edge, further]))
                searched = searched + abs(int(span[1] - span[0])) if len(self._kept) == known else 0
                if searched > _PATIENCE:
                    raise CronError("The exclusions leave no window.", remedy="Exclude less.")
                step *= 2

    def _look(self, low: int, high: int) -> None:
        """Have looked at the regular windows from `low` to `high`."""
        if low < self._low:
            low = min(low, self._low - _CHUNK)
            found = self._staying(low, self._low)
            self._kept = np.concatenate((found, self._kept))
            self._zero += len(found)
            self._low = low
        if high > self._high:
            high = max(high, self._high + _CHUNK)
            self._kept = np.concatenate((self._kept, self._staying(self._high, high)))
            self._high = high

    def _staying(self, low: int, high: int) -> Int64s:
        numbers = np.arange(low, high, dtype=np.int64)
        starts = self._windows.starts(numbers)
        stays = ~np.isin(starts, self._moments)
        for ticks in self._excluded:
            stays &= ticks.instants(ticks.rank(starts)) != starts
        return numbers[stays]


@functools.lru_cache(maxsize=64)
def windows_of(
    cron_schedule: str, zone: str, start: int, exclusions: tuple[str | int, ...], horizon: int = FIRST_HORIZON
) -> Windows:
    """The windows of a definition. Raises `CronError`."""
    regular = RegularWindows(ticks_of(cron_schedule, zone, horizon), start)
    if not exclusions:
        return regular
    crons = [ticks_of(one, zone, horizon) for one in exclusions if isinstance(one, str)]
    return RemainingWindows(regular, crons, [one for one in exclusions if isinstance(one, int)])
