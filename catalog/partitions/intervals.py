"""Sets of whole numbers as sorted intervals that neither overlap nor touch: pairs of arrays, starts and ends."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from headwater.catalog.partitions.series import Int64s, int64s


class Intervals(NamedTuple):
    """`starts[i] <= n < ends[i]` for some i."""

    starts: Int64s
    ends: Int64s

    @property
    def total(self) -> int:
        """How many numbers."""
        return int((self.ends - self.starts).sum())


EMPTY = Intervals(int64s([]), int64s([]))


def one(start: int, end: int) -> Intervals:
    """The numbers from `start` to before `end`."""
    return Intervals(int64s([start]), int64s([end])) if end > start else EMPTY


def normalize(starts: Int64s, ends: Int64s) -> Intervals:
    """Any intervals, overlapping and empty ones too, made disjoint and sorted: O(n log n), O(n) when sorted."""
    filled = ends > starts
    if not filled.all():
        starts, ends = starts[filled], ends[filled]
    if len(starts) < 2:
        return Intervals(starts, ends)
    if (starts[1:] < starts[:-1]).any():
        order = starts.argsort(kind="stable")
        starts, ends = starts[order], ends[order]
    reached = np.maximum.accumulate(ends)
    opens = np.append(True, starts[1:] > reached[:-1])
    return Intervals(starts[opens], reached[np.append(opens[1:], True)])


def of_numbers(numbers: Int64s) -> Intervals:
    """The set of these numbers, in any order."""
    return normalize(numbers, numbers + 1)


def of_mask(mask: NDArray[np.bool_]) -> Intervals:
    """The numbers whose entry is true."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], mask, [False])).view(np.int8)))
    return Intervals(edges[::2].astype(np.int64), edges[1::2].astype(np.int64))


def numbers(intervals: Intervals) -> Int64s:
    """All of them, one by one."""
    starts, ends = intervals
    lengths = ends - starts
    if len(starts) == 1:
        return np.arange(starts[0], ends[0], dtype=np.int64)
    first = np.cumsum(lengths) - lengths
    return np.repeat(starts - first, lengths) + np.arange(int(lengths.sum()), dtype=np.int64)


def mask(intervals: Intervals, count: int) -> NDArray[np.bool_]:
    """An array of `count` entries, true for those in the set."""
    edges = np.zeros(count + 1, np.int8)
    edges[intervals.starts] += 1
    edges[intervals.ends] -= 1
    return np.cumsum(edges[:-1], dtype=np.int8).view(np.bool_)


def union(a: Intervals, b: Intervals) -> Intervals:
    """In either."""
    return normalize(np.concatenate((a.starts, b.starts)), np.concatenate((a.ends, b.ends)))


def intersection(a: Intervals, b: Intervals) -> Intervals:
    """In both: each piece begins where the later of two overlapping intervals does."""
    if not len(a.starts) or not len(b.starts):
        return EMPTY
    low = b.ends.searchsorted(a.starts, "right")
    high = b.starts.searchsorted(a.ends, "left")
    overlaps = np.maximum(high - low, 0)
    mine = np.repeat(np.arange(len(a.starts)), overlaps)
    first = np.cumsum(overlaps) - overlaps
    theirs = np.arange(int(overlaps.sum())) + np.repeat(low - first, overlaps)
    return Intervals(np.maximum(a.starts[mine], b.starts[theirs]), np.minimum(a.ends[mine], b.ends[theirs]))


def complement(a: Intervals, count: int) -> Intervals:
    """Those below `count` that are not in the set."""
    starts = np.append(int64s([0]), a.ends)
    ends = np.append(a.starts, int64s([count]))
    filled = ends > starts
    return Intervals(starts[filled], ends[filled])


def difference(a: Intervals, b: Intervals) -> Intervals:
    """In `a`, not in `b`."""
    if not len(a.ends):
        return EMPTY
    return intersection(a, complement(b, int(a.ends[-1])))


def contains(a: Intervals, numbers: Int64s) -> NDArray[np.bool_]:
    """Whether each number is in the set."""
    at = a.starts.searchsorted(numbers, "right") - 1
    return (at >= 0) & (numbers < np.append(a.ends, int64s([np.iinfo(np.int64).min]))[at])


def nth(a: Intervals, positions: Int64s) -> Int64s:
    """The numbers at these positions of the set, counted from its smallest."""
    before = np.cumsum(a.ends - a.starts)
    at = before.searchsorted(positions, "right")
    return a.ends[at] - (before[at] - positions)


def rank(a: Intervals, numbers: Int64s) -> Int64s:
    """How many of the set are below each number."""
    before = np.append(int64s([0]), np.cumsum(a.ends - a.starts))
    at = a.starts.searchsorted(numbers, "left")
    inside = np.maximum(np.append(int64s([0]), a.ends)[at] - numbers, 0)
    return before[at] - np.where(at > 0, inside, 0)
