"""Sets of the partitions of one definition."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from headwater.catalog.errors import UsageError
from headwater.catalog.partitions import intervals
from headwater.catalog.partitions.definition import PartitionKeyRange
from headwater.catalog.partitions.intervals import Intervals
from headwater.catalog.partitions.series import Int64s, int64s
from headwater.catalog.printable import printable_line

if TYPE_CHECKING:
    from headwater.catalog.partitions.space import Partitions

#: Keys that iteration makes in one go.
_PAGE = 10_000


class PartitionSubset:
    """Some of the partitions there are at a moment; immutable, made by `Partitions`.

    n intervals of ordinals: `|`, `&`, `-` and `~` cost O(n log n) (O(n) where they come sorted), `len` nothing, `in`,
    `contains` and a page of keys O(log n) a key. Raises `UsageError` when sets of different partitions meet.
    """

    __slots__ = ("_count", "intervals", "partitions")

    def __init__(self, partitions: "Partitions", found: Intervals) -> None:
        self.partitions = partitions
        self.intervals = found
        self._count = found.total

    def __len__(self) -> int:
        return self._count

    def __bool__(self) -> bool:
        return self._count > 0

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, PartitionSubset)
            and self.partitions.same_as(other.partitions)
            and np.array_equal(self.intervals.starts, other.intervals.starts)
            and np.array_equal(self.intervals.ends, other.intervals.ends)
        )

    __hash__ = None  # type: ignore[assignment]

    def _others(self, other: "PartitionSubset") -> Intervals:
        if not self.partitions.same_as(other.partitions):
            raise UsageError(
                f"Sets of different partitions do not mix: {self.partitions.describe()} and "
                f"{other.partitions.describe()}.",
                remedy="Ask both definitions at the same moment, or map one set to the other.",
            )
        return other.intervals

    def __or__(self, other: "PartitionSubset") -> "PartitionSubset":
        return PartitionSubset(self.partitions, intervals.union(self.intervals, self._others(other)))

    def __and__(self, other: "PartitionSubset") -> "PartitionSubset":
        return PartitionSubset(self.partitions, intervals.intersection(self.intervals, self._others(other)))

    def __sub__(self, other: "PartitionSubset") -> "PartitionSubset":
        return PartitionSubset(self.partitions, intervals.difference(self.intervals, self._others(other)))

    def __invert__(self) -> "PartitionSubset":
        return PartitionSubset(self.partitions, intervals.complement(self.intervals, self.partitions.count))

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and bool(self.contains(self.partitions.ordinals([key]))[0])

    def contains(self, ordinals: ArrayLike) -> NDArray[np.bool_]:
        """Whether each ordinal is in the set."""
        return intervals.contains(self.intervals, int64s(ordinals))

    def ordinals(self, start: int = 0, stop: int | None = None) -> Int64s:
        """The ordinals from the `start`th of the set to before the `stop`th, ascending."""
        first, last, _ = slice(start, stop).indices(self._count)
        if (first, last) == (0, self._count):
            return intervals.numbers(self.intervals)
        return intervals.nth(self.intervals, np.arange(first, max(first, last), dtype=np.int64))

    def positions(self, ordinals: ArrayLike) -> Int64s:
        """How many of the set come before each ordinal: where it is in the set, if it is."""
        return intervals.rank(self.intervals, int64s(ordinals))

    def mask(self) -> NDArray[np.bool_]:
        """One entry for every partition there is, true for those in the set."""
        return intervals.mask(self.intervals, self.partitions.count)

    def keys(self, start: int = 0, stop: int | None = None) -> list[str]:
        """A page of keys: the `start`th to before the `stop`th, in the definition's order."""
        return self.partitions.keys_at(self.ordinals(start, stop))

    def __iter__(self) -> Iterator[str]:
        for start in range(0, self._count, _PAGE):
            yield from self.keys(start, start + _PAGE)

    @property
    def range_count(self) -> int:
        """How many ranges without holes."""
        return len(self.intervals.starts)

    def ranges(self, start: int = 0, stop: int | None = None) -> list[PartitionKeyRange]:
        """A page of the ranges without holes that make up the set."""
        firsts = self.partitions.keys_at(self.intervals.starts[start:stop])
        lasts = self.partitions.keys_at(self.intervals.ends[start:stop] - 1)
        return [PartitionKeyRange(first, last) for first, last in zip(firsts, lasts, strict=True)]

    def boxes(self) -> list[dict[str, "PartitionSubset"]]:
        """For several dimensions: products of a set in each dimension that together are this set, none twice."""
        return self.partitions.boxes(self)

    def to_json(self) -> dict[str, Any]:
        """Plain data for `Partitions.read_subset`: instants of windows, or keys, never ordinals.

        It means the same partitions when the definition has grown.
        """
        return {"count": self._count, **self.partitions.write_intervals(self.intervals)}

    def describe(self, limit: int = 5) -> str:
        """Such as `2013-01-01..2013-03-31 (90)`, with at most `limit` ranges; safe to print."""
        shown = [printable_line(part) for part in self.partitions.describe_intervals(self.intervals, limit)]
        return f"{', '.join(shown) if shown else 'none'} ({self._count:,})"

    def __str__(self) -> str:
        return self.describe()

    def __repr__(self) -> str:
        return f"<PartitionSubset {self.describe()}>"
