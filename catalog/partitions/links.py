"""A dependency between two assets' partitions at a moment: sets mapped both ways, and sums over what cells read.

docs/decisions/0013-partitions.md tells what they are for.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from headwater.catalog.errors import UsageError
from headwater.catalog.partitions import intervals
from headwater.catalog.partitions.boxes import boxes_of, flatten
from headwater.catalog.partitions.intervals import Intervals
from headwater.catalog.partitions.mapping import (
    BusinessCalendarPartitionMapping,
    IdentityPartitionMapping,
    MultiToSingleDimensionPartitionMapping,
    PartitionMapping,
    TimeWindowPartitionMapping,
    infer_mapping,
)
from headwater.catalog.partitions.series import Int64s, int64s
from headwater.catalog.partitions.space import (
    MultiPartitions,
    Partitions,
    Unpartitioned,
    WindowPartitions,
)
from headwater.catalog.partitions.subset import PartitionSubset

Numbers = NDArray[Any]
Ranges = tuple[Int64s, Int64s]
#: Nonexistent partitions named in messages.
_EXAMPLES = 5
#: Downstream partitions up to which each is summed on its own: some 20 µs each.
_FEW = 32


@dataclass(frozen=True, slots=True, eq=False)
class UpstreamPartitions:
    """What a set of downstream partitions reads."""

    subset: PartitionSubset
    #: How many upstream partitions are required and do not exist.
    nonexistent: int
    #: The keys of the first of them.
    examples: tuple[str, ...]
    #: The downstream partitions that require one of them.
    incomplete: PartitionSubset


class Links(ABC):
    """What each downstream partition reads, for all of them at once."""

    __slots__ = ("downstream_partitions", "upstream_partitions")
    #: Whether every downstream partition reads the same.
    constant: ClassVar[bool] = False

    def __init__(self, downstream: Partitions, upstream: Partitions) -> None:
        self.downstream_partitions = downstream
        self.upstream_partitions = upstream

    @abstractmethod
    def upstream(self, subset: PartitionSubset) -> UpstreamPartitions:
        """What these downstream partitions read. Raises `UsageError` for a set of other partitions."""

    @abstractmethod
    def downstream(self, subset: PartitionSubset) -> PartitionSubset:
        """The downstream partitions that read one of these. Raises `UsageError` for a set of other partitions."""

    @abstractmethod
    def sum(self, values: Numbers) -> Numbers:
        """For every downstream partition, the sum of the `values` of what it reads: one value an upstream partition.

        Whole numbers wrap around, so hashes may be added. O(downstream + upstream), however much each one reads.
        """

    def sum_at(self, values: Numbers, ordinals: Int64s) -> Numbers:
        """`sum` for some downstream partitions alone."""
        return self.sum(values)[ordinals]

    def read_by(self, ordinal: int) -> Int64s:
        """The upstream ordinals that one downstream partition reads, ascending."""
        return self.upstream(self.downstream_partitions.subset_of_ordinals([ordinal])).subset.ordinals()

    def pairs(self, ordinals: Int64s) -> tuple[Int64s, Int64s]:
        """What each of some downstream partitions reads: places in `ordinals`, and upstream ordinals, as pairs."""
        found = [self.read_by(at) for at in ordinals.tolist()]
        places = np.repeat(np.arange(len(found), dtype=np.int64), [len(one) for one in found])
        return places, np.concatenate([int64s([]), *found])

    def any(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """For every downstream partition, whether it reads one whose entry is true."""
        return self.sum(mask.astype(np.int64)) > 0

    def counts(self) -> Int64s:
        """For every downstream partition, how many existing ones it reads."""
        return self.sum(np.ones(self.upstream_partitions.count, np.int64))

    def incomplete(self) -> PartitionSubset:
        """The downstream partitions that require an upstream partition that does not exist."""
        return self.upstream(self.downstream_partitions.all()).incomplete

    def _check(self, subset: PartitionSubset, side: Partitions) -> Intervals:
        if not subset.partitions.same_as(side):
            raise UsageError(
                f"This is a set of other partitions: {subset.partitions.describe()}, not {side.describe()}.",
                remedy="Ask all definitions at the same moment.",
            )
        return subset.intervals


class ConstantLinks(Links):
    """Every partition reads the same set."""

    __slots__ = ("_missing", "_set")
    constant: ClassVar[bool] = True

    def __init__(
        self, downstream: Partitions, upstream: Partitions, found: PartitionSubset, missing: Sequence[str] = ()
    ) -> None:
        super().__init__(downstream, upstream)
        self._set = found
        self._missing = missing

    def upstream(self, subset: PartitionSubset) -> UpstreamPartitions:
        """The set."""
        self._check(subset, self.downstream_partitions)
        if not subset:
            return UpstreamPartitions(self.upstream_partitions.none(), 0, (), subset)
        incomplete = subset if self._missing else self.downstream_partitions.none()
        return UpstreamPartitions(self._set, len(self._missing), tuple(self._missing[:_EXAMPLES]), incomplete)

    def downstream(self, subset: PartitionSubset) -> PartitionSubset:
        """All or none."""
        self._check(subset, self.upstream_partitions)
        return self.downstream_partitions.all() if subset & self._set else self.downstream_partitions.none()

    def sum(self, values: Numbers) -> Numbers:
        """One sum for all."""
        found = self._set.intervals
        whole = len(found.starts) == 1 and found.total == len(values)
        total = values.sum() if whole else values[intervals.numbers(found)].sum()
        return np.full(self.downstream_partitions.count, total)


class RangeLinks(Links):
    """The partition n reads `targets[starts[n]:ends[n]]`; without `targets`, that range of ordinals.

    What is required and missing is told as ranges too, of numbers that `_missing_keys` knows the keys of.
    """

    __slots__ = ("_targets",)

    def __init__(self, downstream: Partitions, upstream: Partitions, targets: Int64s | None = None) -> None:
        super().__init__(downstream, upstream)
        self._targets = targets

    @abstractmethod
    def _ranges(self, ordinals: Int64s) -> Ranges:
        """What of `targets` these downstream ordinals read."""

    @abstractmethod
    def _missing(self, ordinals: Int64s) -> list[Ranges]:
        """What these downstream ordinals require and do not find."""

    @abstractmethod
    def _missing_keys(self, numbers: Int64s) -> list[str]: ...

    def _suspects(self, subset: PartitionSubset) -> PartitionSubset:
        """Those of a set that may be incomplete."""
        return subset

    def _union(self, found: Intervals) -> Intervals:
        """What of `targets` these downstream intervals read."""
        return intervals.normalize(*self._ranges(intervals.numbers(found)))

    def upstream(self, subset: PartitionSubset) -> UpstreamPartitions:
        """The union of ranges."""
        read = self._union(self._check(subset, self.downstream_partitions))
        if self._targets is not None:
            read = intervals.of_numbers(self._targets[intervals.numbers(read)])
        suspects = self._suspects(subset).ordinals()
        incomplete = np.zeros(len(suspects), np.bool_)
        missing = intervals.EMPTY
        for starts, ends in self._missing(suspects) if len(suspects) else ():
            incomplete |= ends > starts
            missing = intervals.union(missing, intervals.normalize(starts, ends))
        total = missing.total
        first = intervals.nth(missing, np.arange(min(total, _EXAMPLES), dtype=np.int64))
        return UpstreamPartitions(
            PartitionSubset(self.upstream_partitions, read),
            total,
            tuple(self._missing_keys(first)) if total else (),
            self.downstream_partitions.subset_of_ordinals(suspects[incomplete]),
        )

    def sum_at(self, values: Numbers, ordinals: Int64s) -> Numbers:
        """Range by range, where they are few."""
        if len(ordinals) > _FEW:
            return self.sum(values)[ordinals]
        return np.array([values[self.read_by(at)].sum() for at in ordinals.tolist()], values.dtype)

    def read_by(self, ordinal: int) -> Int64s:
        """Its range."""
        starts, ends = self._ranges(int64s([ordinal]))
        found = np.arange(int(starts[0]), int(ends[0]), dtype=np.int64)
        return found if self._targets is None else np.sort(self._targets[found])

    def pairs(self, ordinals: Int64s) -> tuple[Int64s, Int64s]:
        """The ranges, one after the other."""
        starts, ends = self._ranges(ordinals)
        sizes = np.maximum(ends - starts, 0)
        places = np.repeat(np.arange(len(ordinals), dtype=np.int64), sizes)
        first = np.repeat(starts - (np.cumsum(sizes) - sizes), sizes)
        found = first + np.arange(len(places), dtype=np.int64)
        return places, found if self._targets is None else self._targets[found]

    def downstream(self, subset: PartitionSubset) -> PartitionSubset:
        """Those whose range holds one of the set."""
        self._check(subset, self.upstream_partitions)
        return self.downstream_partitions.subset_of_mask(self.any(subset.mask()))

    def sum(self, values: Numbers) -> Numbers:
        """The difference of two sums from the beginning; of a table, line by line along its first axis."""
        if self._targets is not None:
            values = values[self._targets]
        before = np.zeros((len(values) + 1, *values.shape[1:]), values.dtype)
        np.cumsum(values, axis=0, out=before[1:])
        starts, ends = self._ranges(np.arange(self.downstream_partitions.count, dtype=np.int64))
        return before[ends] - before[starts]


class KeyLinks(RangeLinks):
    """Ranges as arrays, one for each downstream partition; -1 as a start is an upstream partition that is missing."""

    __slots__ = ("_ends", "_starts")

    def __init__(
        self, downstream: Partitions, upstream: Partitions, starts: Int64s, ends: Int64s, targets: Int64s | None = None
    ) -> None:
        super().__init__(downstream, upstream, targets)
        self._starts = starts
        self._ends = ends

    def _ranges(self, ordinals: Int64s) -> Ranges:
        return np.maximum(self._starts[ordinals], 0), self._ends[ordinals]

    def _missing(self, ordinals: Int64s) -> list[Ranges]:
        return [(ordinals, ordinals + (self._starts[ordinals] < 0))]

    def _missing_keys(self, numbers: Int64s) -> list[str]:
        return self.downstream_partitions.keys_at(numbers)


class WindowLinks(RangeLinks):
    """Windows that overlap windows, with offsets. Both directions are arithmetic on the ends of ranges."""

    __slots__ = ("_allow", "_down", "_end", "_start", "_up")

    def __init__(
        self, downstream: WindowPartitions, upstream: WindowPartitions, start_offset: int, end_offset: int, allow: bool
    ) -> None:
        super().__init__(downstream, upstream)
        self._down, self._up = downstream, upstream
        self._start, self._end = start_offset, end_offset
        self._allow = allow

    @property
    def _contiguous(self) -> bool:
        return self._down.windows.contiguous and self._up.windows.contiguous

    def _overlapping(self, first: Int64s, last: Int64s) -> Ranges:
        """The upstream windows, existing or not, that overlap the downstream windows from `first` to `last`."""
        if self._down.windows is self._up.windows:
            return first, last + 1
        found = self._up.windows.first_ending(self._down.windows.starts(first) + 1)
        return found, self._up.windows.first_starting(self._down.windows.ends(last))

    def _clip(self, starts: Int64s, ends: Int64s) -> Ranges:
        starts = np.clip(starts, 0, self._up.count)
        return starts, np.maximum(np.clip(ends, 0, self._up.count), starts)

    def _ranges(self, ordinals: Int64s) -> Ranges:
        return self._clip(*self._overlapping(ordinals + self._start, ordinals + self._end))

    def _union(self, found: Intervals) -> Intervals:
        if not self._contiguous:
            return super()._union(found)
        first, last = found.starts + self._start, found.ends - 1 + self._end
        return intervals.normalize(*self._clip(*self._overlapping(first, last)))

    def _missing(self, ordinals: Int64s) -> list[Ranges]:
        starts, ends = self._overlapping(ordinals + self._start, ordinals + self._end)
        own_starts, own_ends = self._overlapping(ordinals, ordinals)
        count = self._up.count
        low_from, low_to = starts, np.minimum(ends, 0)
        if self._start < 0:
            low_from, low_to = np.maximum(low_from, own_starts), np.minimum(low_to, own_ends)
        high_from, high_to = np.maximum(starts, count), ends
        if self._end > 0:
            high_from, high_to = np.maximum(high_from, own_starts), np.minimum(high_to, own_ends)
        return [(low_from, np.maximum(low_to, low_from)), (high_from, np.maximum(high_to, high_from))]

    def _missing_keys(self, numbers: Int64s) -> list[str]:
        return self._up.keys_at(numbers)

    def _suspects(self, subset: PartitionSubset) -> PartitionSubset:
        if self._allow:
            return self._down.none()
        if not self._contiguous:
            return subset
        down, up, count = self._down.windows, self._up.windows, self._up.count
        # The first ones reach before the first upstream window, the last ones behind the last.
        before = int(down.first_starting(up.ends(int64s([-1])))[0]) - max(self._start, 0)
        after = int(down.first_ending(up.starts(int64s([count])) + 1)[0]) - min(self._end, 0)
        whole = self._down.count
        low, high = min(max(before, 0), whole), min(max(after, 0), whole)
        edges = intervals.normalize(int64s([0, high]), int64s([low, whole]))
        return subset & PartitionSubset(self._down, edges)

    def downstream(self, subset: PartitionSubset) -> PartitionSubset:
        """The inverse, by the ends of ranges."""
        found = self._check(subset, self.upstream_partitions)
        starts, ends = found.starts, found.ends
        if not self._contiguous:
            starts = intervals.numbers(found)
            ends = starts + 1
        if self._down.windows is self._up.windows:
            first, last = starts, ends
        else:
            first = self._down.windows.first_ending(self._up.windows.starts(starts) + 1)
            last = self._down.windows.first_starting(self._up.windows.ends(ends - 1))
        return self._down.subset_of_intervals(Intervals(first - self._end, last - self._start))


class BusinessLinks(RangeLinks):
    """Windows on business days, which are numbered from year 1; targets are the upstream windows that start on one."""

    __slots__ = ("_calendar", "_down", "_first", "_last", "_mapping", "_numbers")
    _START = np.datetime64("0001-01-01", "D")

    def __init__(
        self, downstream: WindowPartitions, upstream: WindowPartitions, mapping: BusinessCalendarPartitionMapping
    ) -> None:
        self._calendar = np.busdaycalendar(mapping.working_days, [np.datetime64(str(day)) for day in mapping.holidays])
        self._mapping = mapping
        self._down = downstream
        days = upstream.local_days(upstream.starts(np.arange(max(upstream.count, 1))))
        business = np.is_busday(days.astype("M8[D]"), busdaycal=self._calendar)[: upstream.count]
        super().__init__(downstream, upstream, np.flatnonzero(business).astype(np.int64))
        self._numbers = self._number(days[: upstream.count][business])
        #: The numbers of business days that upstream windows go from and to.
        self._first = int(self._number(days[:1])[0])
        self._last = int(self._number(days[-1:] + 1)[0]) if upstream.count else self._first

    def _number(self, days: Int64s) -> Int64s:
        """How many business days come before each day."""
        return np.busday_count(self._START, days.astype("M8[D]"), busdaycal=self._calendar).astype(np.int64)

    def _wanted(self, ordinals: Int64s) -> tuple[Int64s, Int64s, Int64s, Int64s]:
        """Numbers of the business days that are read, and of the window's own."""
        low = self._number(self._down.local_days(self._down.starts(ordinals)))
        high = self._number(self._down.local_days(self._down.ends(ordinals) - 1) + 1)
        start, end = self._mapping.start_offset, self._mapping.end_offset
        return (
            low + start if start <= 0 else high - 1 + start,
            low + end + 1 if end < 0 else high + end,
            low,
            high,
        )

    def _ranges(self, ordinals: Int64s) -> Ranges:
        starts, ends, _, _ = self._wanted(ordinals)
        found = self._numbers.searchsorted(starts, "left")
        return found, np.maximum(self._numbers.searchsorted(ends, "left"), found)

    def _missing(self, ordinals: Int64s) -> list[Ranges]:
        if self._mapping.allow_nonexistent_upstream_partitions:
            return []
        starts, ends, own_starts, own_ends = self._wanted(ordinals)
        low_from, low_to = starts, np.minimum(ends, self._first)
        if self._mapping.start_offset < 0:
            low_from, low_to = np.maximum(low_from, own_starts), np.minimum(low_to, own_ends)
        high_from, high_to = np.maximum(starts, self._last), ends
        if self._mapping.end_offset > 0:
            high_from, high_to = np.maximum(high_from, own_starts), np.minimum(high_to, own_ends)
        return [(low_from, np.maximum(low_to, low_from)), (high_from, np.maximum(high_to, high_from))]

    def _missing_keys(self, numbers: Int64s) -> list[str]:
        days = np.busday_offset(self._START, numbers, roll="forward", busdaycal=self._calendar)
        return [str(day) for day in days]


class ProductLinks(Links):
    """Dimension by dimension: the value in each upstream dimension depends on that in one downstream dimension."""

    __slots__ = ("_by_axis", "_down", "_up")

    def __init__(
        self,
        downstream: Partitions,
        upstream: Partitions,
        down: Sequence[Partitions],
        up: Sequence[Partitions],
        by_axis: Sequence[tuple[int, Links] | None],
    ) -> None:
        super().__init__(downstream, upstream)
        self._down, self._up = down, up
        #: For each upstream dimension, the downstream dimension and the links to it; None where all is read.
        self._by_axis = by_axis

    @property
    def _down_shape(self) -> tuple[int, ...]:
        return tuple(one.count for one in self._down)

    @property
    def _up_shape(self) -> tuple[int, ...]:
        return tuple(one.count for one in self._up)

    def upstream(self, subset: PartitionSubset) -> UpstreamPartitions:
        """Box by box."""
        self._check(subset, self.downstream_partitions)
        read: list[Intervals] = []
        incomplete: list[Intervals] = []
        nonexistent = 0
        examples: list[str] = []
        for box in boxes_of(subset.intervals, self._down_shape):
            found: list[Intervals] = []
            existing = required = 1
            for up, by in zip(self._up, self._by_axis, strict=True):
                one = up.all()
                missing = 0
                if by is not None:
                    axis, links = by
                    mapped = links.upstream(PartitionSubset(self._down[axis], box[axis]))
                    one, missing = mapped.subset, mapped.nonexistent
                    examples += mapped.examples
                    incomplete.append(
                        flatten([*box[:axis], mapped.incomplete.intervals, *box[axis + 1 :]], self._down_shape)
                    )
                found.append(one.intervals)
                existing *= len(one)
                required *= len(one) + missing
            nonexistent += required - existing
            read.append(flatten(found, self._up_shape))
        return UpstreamPartitions(
            PartitionSubset(self.upstream_partitions, _union(read)),
            nonexistent,
            tuple(dict.fromkeys(examples))[:_EXAMPLES],
            PartitionSubset(self.downstream_partitions, _union(incomplete)),
        )

    def downstream(self, subset: PartitionSubset) -> PartitionSubset:
        """Box by box."""
        self._check(subset, self.upstream_partitions)
        found: list[Intervals] = []
        for box in boxes_of(subset.intervals, self._up_shape):
            axes = [one.all().intervals for one in self._down]
            for up, by, values in zip(self._up, self._by_axis, box, strict=True):
                if by is not None:
                    axis, links = by
                    axes[axis] = links.downstream(PartitionSubset(up, values)).intervals
            found.append(flatten(axes, self._down_shape))
        return PartitionSubset(self.downstream_partitions, _union(found))

    def sum(self, values: Numbers) -> Numbers:
        """Dimension by dimension, each as its links do it."""
        table = values.reshape(self._up_shape)
        axes: list[int | None] = []
        for at, by in enumerate(self._by_axis):
            if by is None:
                table = table.sum(axis=at, keepdims=True, dtype=table.dtype)
                axes.append(None)
            else:
                table = _sum_along(by[1], table, at)
                axes.append(by[0])
        kept = [at for at, axis in enumerate(axes) if axis is not None]
        table = table.squeeze(tuple(at for at, axis in enumerate(axes) if axis is None))
        order = sorted(range(len(kept)), key=lambda i: axes[kept[i]] or 0)
        table = table.transpose(order)
        used = {axes[at] for at in kept}
        for axis in range(len(self._down)):
            if axis not in used:
                table = np.expand_dims(table, axis)
        return np.broadcast_to(table, self._down_shape).ravel()


def _sum_along(links: Links, table: Numbers, axis: int) -> Numbers:
    """`links.sum` for every line along an axis."""
    moved = np.moveaxis(table, axis, 0)
    if isinstance(links, RangeLinks):
        return np.moveaxis(links.sum(moved), 0, axis)
    lines = moved.reshape(moved.shape[0], -1)
    columns = [links.sum(lines[:, at]) for at in range(lines.shape[1])]
    shape = (links.downstream_partitions.count, *moved.shape[1:])
    result = np.stack(columns, axis=1) if columns else np.zeros(shape, table.dtype)
    return np.moveaxis(result.reshape(shape), 0, axis)


def _union(found: Sequence[Intervals]) -> Intervals:
    starts = np.concatenate([intervals.EMPTY.starts, *(one.starts for one in found)])
    return intervals.normalize(starts, np.concatenate([intervals.EMPTY.ends, *(one.ends for one in found)]))


def links_of_pairs(downstream: Partitions, upstream: Partitions, downs: Int64s, ups: Int64s) -> Links:
    """Links from pairs of ordinals; pairs with what does not exist (-1) are left out."""
    exist = (downs >= 0) & (ups >= 0)
    downs, ups = downs[exist], ups[exist]
    order = np.lexsort((ups, downs))
    all_downs = np.arange(downstream.count, dtype=np.int64)
    starts = downs[order].searchsorted(all_downs, "left")
    return KeyLinks(downstream, upstream, starts, downs[order].searchsorted(all_downs, "right"), ups[order])


def identity_links(downstream: Partitions, upstream: Partitions) -> Links:
    """Partitions with the same key."""
    if isinstance(downstream, MultiPartitions) and isinstance(upstream, MultiPartitions):
        if downstream.dimensions.keys() == upstream.dimensions.keys():
            same = {name: (name, IdentityPartitionMapping()) for name in upstream.dimensions}
            return product_links(downstream, upstream, same)
    elif isinstance(downstream, WindowPartitions) and isinstance(upstream, WindowPartitions):
        if _same_windows(downstream, upstream):
            return WindowLinks(downstream, upstream, 0, 0, allow=False)
    elif isinstance(downstream, Unpartitioned) and isinstance(upstream, Unpartitioned):
        return ConstantLinks(downstream, upstream, upstream.all())
    if downstream.same_as(upstream):
        found = np.arange(downstream.count, dtype=np.int64)
    else:
        found = upstream.ordinals(downstream.keys())
    return KeyLinks(downstream, upstream, found, found + 1)


def _same_windows(one: WindowPartitions, other: WindowPartitions) -> bool:
    a, b = one.definition, other.definition
    return (a.cron_schedule, a.timezone, a.fmt, a.exclusions) == (b.cron_schedule, b.timezone, b.fmt, b.exclusions)


def window_links(mapping: TimeWindowPartitionMapping, downstream: Partitions, upstream: Partitions) -> Links:
    """Windows that overlap. Raises `UsageError` for what was not validated."""
    down, up = _windows(mapping, downstream, upstream)
    return WindowLinks(
        down, up, mapping.start_offset, mapping.end_offset, mapping.allow_nonexistent_upstream_partitions
    )


def business_links(mapping: BusinessCalendarPartitionMapping, downstream: Partitions, upstream: Partitions) -> Links:
    """Windows on business days. Raises `UsageError` for what was not validated."""
    down, up = _windows(mapping, downstream, upstream)
    return BusinessLinks(down, up, mapping)


def _windows(
    mapping: PartitionMapping, downstream: Partitions, upstream: Partitions
) -> tuple[WindowPartitions, WindowPartitions]:
    if not isinstance(downstream, WindowPartitions) or not isinstance(upstream, WindowPartitions):
        raise _not_validated(mapping, downstream, upstream)
    mapping.validate(downstream.definition, upstream.definition)
    return downstream, upstream


def product_links(
    downstream: Partitions, upstream: Partitions, by_dimension: Mapping[str, tuple[str, PartitionMapping | None]]
) -> Links:
    """A mapping for each upstream dimension. Raises `UsageError` for what was not validated."""
    if not isinstance(downstream, MultiPartitions) or not isinstance(upstream, MultiPartitions):
        raise _not_validated(None, downstream, upstream)
    names = list(downstream.dimensions)
    by_axis: list[tuple[int, Links] | None] = []
    for name, up in upstream.items():
        if name not in by_dimension:
            by_axis.append(None)
            continue
        dimension, mapping = by_dimension[name]
        axis = names.index(dimension)
        by_axis.append((axis, _mapped(mapping, downstream.dimensions[dimension], up)))
    return ProductLinks(
        downstream, upstream, list(downstream.dimensions.values()), list(upstream.dimensions.values()), by_axis
    )


def single_dimension_links(
    mapping: MultiToSingleDimensionPartitionMapping, downstream: Partitions, upstream: Partitions
) -> Links:
    """Several dimensions on one side. Raises `UsageError` for what was not validated."""
    multi, single = (upstream, downstream) if isinstance(upstream, MultiPartitions) else (downstream, upstream)
    if not isinstance(multi, MultiPartitions) or single.defined_by is None or isinstance(single, MultiPartitions):
        raise _not_validated(mapping, downstream, upstream)
    name = mapping.dimension(multi.definition, single.defined_by)
    if name not in multi.dimensions:
        raise _not_validated(mapping, downstream, upstream)
    axis = list(multi.dimensions).index(name)
    one = multi.dimensions[name]
    every = list(multi.dimensions.values())
    if multi is upstream:
        by_axis = [
            (0, _mapped(mapping.partition_mapping, single, one)) if i == axis else None for i in range(len(every))
        ]
        return ProductLinks(downstream, upstream, [single], every, by_axis)
    return ProductLinks(
        downstream, upstream, every, [single], [(axis, _mapped(mapping.partition_mapping, one, single))]
    )


def _mapped(mapping: PartitionMapping | None, downstream: Partitions, upstream: Partitions) -> Links:
    if mapping is None:
        mapping = infer_mapping(downstream.defined_by, upstream.defined_by)
    return mapping.links(downstream, upstream)


def _not_validated(mapping: PartitionMapping | None, downstream: Partitions, upstream: Partitions) -> UsageError:
    name = "A mapping by dimensions" if mapping is None else type(mapping).__name__
    return UsageError(
        f"{name} cannot map {upstream.describe()} to {downstream.describe()}.",
        remedy="Check the mapping with resolve_mapping() first.",
    )
