"""Sets in several dimensions: flat intervals, counted row by row, and products of a set in each dimension."""

from collections.abc import Sequence
from math import prod

import numpy as np

from headwater.catalog.partitions import intervals
from headwater.catalog.partitions.intervals import EMPTY, Intervals
from headwater.catalog.partitions.series import Int64s, int64s


def flatten(box: Sequence[Intervals], shape: Sequence[int]) -> Intervals:
    """The flat intervals of a product: as many as rows, unless whole rows are in it."""
    found, size = box[-1], shape[-1]
    for rows, count in zip(reversed(box[:-1]), reversed(shape[:-1]), strict=True):
        if not len(found.starts):
            return EMPTY
        if len(found.starts) == 1 and int(found.starts[0]) == 0 and int(found.ends[0]) == size:
            found = Intervals(rows.starts * size, rows.ends * size)
        else:
            first = (intervals.numbers(rows) * size)[:, np.newaxis]
            found = intervals.normalize((first + found.starts).ravel(), (first + found.ends).ravel())
        size *= count
    return found


def boxes_of(found: Intervals, shape: Sequence[int]) -> list[tuple[Intervals, ...]]:
    """Products that together are the set, none twice: one for all rows that are alike, dimension by dimension."""
    if not len(found.starts):
        return []
    if len(shape) == 1:
        return [(found,)]
    size = prod(shape[1:])
    first_row, last_row = found.starts // size, (found.ends - 1) // size
    # Whole rows, and at most one part of a row at either end of an interval.
    whole_from, whole_to = -(-found.starts // size), found.ends // size
    whole = intervals.normalize(whole_from, whole_to)
    head = (found.starts % size != 0) | (first_row == whole_to)
    tail = (found.ends % size != 0) & (last_row > first_row)
    row = np.concatenate((first_row[head], last_row[tail]))
    low = np.concatenate((found.starts[head] - first_row[head] * size, np.zeros(int(tail.sum()), np.int64)))
    high = np.concatenate(
        (np.minimum(found.ends[head] - first_row[head] * size, size), found.ends[tail] - last_row[tail] * size)
    )
    groups = [(whole, intervals.one(0, size))] if len(whole.starts) else []
    if len(row):
        order = np.lexsort((low, row))
        groups += _alike(row[order], low[order], high[order])
    return [(rows, *inner) for rows, pattern in groups for inner in boxes_of(pattern, shape[1:])]


def _alike(row: Int64s, low: Int64s, high: Int64s) -> list[tuple[Intervals, Intervals]]:
    """Rows with equal parts: their numbers, and the parts."""
    opens = np.flatnonzero(np.append(True, row[1:] != row[:-1]))
    parts = np.diff(np.append(opens, len(row)))
    groups: list[tuple[Intervals, Intervals]] = []
    for count in sorted({int(one) for one in parts}):
        at = opens[parts == count].reshape(-1, 1) + np.arange(count)
        pattern = np.ascontiguousarray(np.concatenate((low[at], high[at]), axis=1))
        _, example, which = np.unique(
            pattern.view(np.dtype((np.void, pattern.dtype.itemsize * 2 * count))).ravel(),
            return_index=True,
            return_inverse=True,
        )
        rows = row[at[:, 0]]
        order = which.argsort(kind="stable")
        bounds = np.searchsorted(which[order], np.arange(len(example) + 1))
        for i, one in enumerate(example.tolist()):
            numbers = rows[order[bounds[i] : bounds[i + 1]]]
            groups.append(
                (intervals.of_numbers(numbers), Intervals(int64s(pattern[one, :count]), int64s(pattern[one, count:])))
            )
    return groups
