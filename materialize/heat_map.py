"""A picture of a million partitions: squares that count the cells behind them by status. Pure.

Squares are ranges of ordinals, so a picture costs a sum over each status and then as much as it has squares. Windows of
time lie on a calendar, in the finest unit that fits; two dimensions are rows and columns, of more the two largest;
everything else is a strip in the order of its keys.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headwater.catalog.partitions.series import DAY, Int64s
from headwater.catalog.partitions.space import MultiPartitions, Partitions, WindowPartitions
from headwater.catalog.partitions.subset import PartitionSubset
from headwater.materialize.partition_staleness import PartitionsStatus

#: Rows that a picture may have before it takes larger squares: what is seen without scrolling.
MAX_ROWS = 40
#: Columns of a strip and of a grid; a year of weeks fits.
MAX_COLUMNS = 60


@dataclass(frozen=True, slots=True)
class Tile:
    """One square: how many cells are behind it, and how many of them have each status. A failed one is behind too."""

    #: The ordinal at which it starts.
    first: int
    total: int
    stale: int
    missing: int
    failed: int

    @property
    def fresh(self) -> int:
        """The cells that are fresh."""
        return self.total - self.stale - self.missing


@dataclass(frozen=True, slots=True)
class HeatRow:
    """Squares in a line; None where there is no partition."""

    label: str
    tiles: tuple[Tile | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HeatMap:
    """Rows of squares. Labels are keys, or parts of them: any text."""

    #: `calendar`, `grid` or `strip`.
    kind: str
    #: What a row and a column stand for, such as month and day; empty in a strip.
    row_title: str
    column_title: str
    #: Of every column; empty in a strip.
    columns: tuple[str, ...]
    rows: tuple[HeatRow, ...]
    #: The most cells that one square counts.
    largest: int
    #: Dimensions that are neither rows nor columns: squares count all of their values.
    summed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class _Counts:
    """What is counted, an entry a cell: each is summed by itself."""

    total: NDArray[Any]
    stale: NDArray[Any]
    missing: NDArray[Any]
    failed: NDArray[Any]

    def each(self) -> tuple[NDArray[Any], ...]:
        return self.total, self.stale, self.missing, self.failed


@dataclass(frozen=True, slots=True, eq=False)
class _Axis:
    """One dimension cut into stretches: where each starts, and what it is called; the last one ends at `stop`."""

    edges: Int64s
    stop: int
    labels: Sequence[str]


def draw_heat_map(
    status: PartitionsStatus,
    failed: PartitionSubset | None = None,
    within: PartitionSubset | None = None,
    *,
    rows: int = MAX_ROWS,
    columns: int = MAX_COLUMNS,
) -> HeatMap:
    """The picture of an asset's partitions, or of those `within` a set.

    `rows` and `columns` are the most that a strip or a grid may have; a calendar has at most `rows`.
    """
    partitions = status.partitions
    chosen = partitions.all() if within is None else within
    if not chosen:
        return HeatMap(kind="strip", row_title="", column_title="", columns=(), rows=(), largest=0)
    counts = _counts(status, failed, None if within is None else within.mask())
    first, stop = int(chosen.intervals.starts[0]), int(chosen.intervals.ends[-1])
    if isinstance(partitions, WindowPartitions):
        return _calendar(partitions, counts, first, stop, rows)
    if isinstance(partitions, MultiPartitions):
        return _grid(partitions, counts, rows, columns)
    return _strip(partitions, counts, first, stop, rows, columns)


def draw_line(
    status: PartitionsStatus, failed: PartitionSubset | None = None, *, columns: int = MAX_COLUMNS
) -> HeatMap:
    """All partitions in a line of at most `columns` squares, in the order of their keys."""
    partitions = status.partitions
    return _strip(partitions, _counts(status, failed, None), 0, partitions.count, 1, columns)


def _counts(status: PartitionsStatus, failed: PartitionSubset | None, within: NDArray[np.bool_] | None) -> _Counts:
    count = status.partitions.count
    lost = np.zeros(count, np.bool_) if failed is None else failed.mask()
    if within is None:
        return _Counts(np.ones(count, np.bool_), status.stale, status.missing, lost)
    return _Counts(within, status.stale & within, status.missing & within, lost & within)


def _strip(partitions: Partitions, counts: _Counts, first: int, stop: int, rows: int, columns: int) -> HeatMap:
    """Stretches of equal length, row after row."""
    if stop <= first:
        return HeatMap(kind="strip", row_title="", column_title="", columns=(), rows=(), largest=0)
    size = -(-(stop - first) // (rows * columns))
    edges = np.arange(first, stop, size, dtype=np.int64)
    tiles = _tiles(edges, _sums(counts, edges, stop))
    starts = np.arange(first, stop, size * columns, dtype=np.int64)
    labels = partitions.keys_at(starts) if rows > 1 else [""]
    found = [
        HeatRow(label, tuple(tiles[at : at + columns]))
        for label, at in zip(labels, range(0, len(tiles), columns), strict=True)
    ]
    return HeatMap(kind="strip", row_title="", column_title="", columns=(), rows=tuple(found), largest=_largest(found))


@dataclass(frozen=True, slots=True)
class _Unit:
    """A calendar: what is a row, and what a column."""

    row: str
    column: str


_UNITS = (
    _Unit("hour", "minute"),
    _Unit("day", "hour"),
    _Unit("month", "day"),
    _Unit("year", "week"),
    _Unit("year", "month"),
    _Unit("decade", "year"),
    _Unit("century", "decade"),
)
#: Seconds that a column lasts at least: how many squares there are is known before they are made.
_COLUMN_SECONDS = {
    "minute": 60,
    "hour": 3600,
    "day": DAY,
    "week": DAY,
    "month": 28 * DAY,
    "year": 365 * DAY,
    "decade": 3652 * DAY,
}
#: Squares that are tried at most, of which most may turn out to be empty: a few milliseconds.
_MAX_TRIED = 50_000
#: Clocks that are turned back show less at the last window than before.
_TURNED_BACK = 2 * 3600


def _calendar(partitions: WindowPartitions, counts: _Counts, first: int, stop: int, rows: int) -> HeatMap:
    """The calendar that tells most windows apart; of those that do as well, the shortest, then the coarsest."""
    best: tuple[int, int, _Unit, _Squares] | None = None
    for unit, squares in _fitting(partitions, first, stop, rows):
        found = (len(squares.edges), -len(np.unique(squares.rows)), unit, squares)
        if best is None or found[:2] >= best[:2]:
            best = found
    assert best is not None  # centuries always fit
    _, _, unit, squares = best
    tiles = _tiles(squares.edges, _sums(counts, squares.edges, stop))
    columns = np.unique(squares.columns)
    if unit.column not in ("minute", "hour"):  # of these, a schedule may name a few
        columns = np.arange(int(columns[0]), int(columns[-1]) + 1, dtype=np.int64)
    grid = _place(tiles, squares.rows, np.searchsorted(columns, squares.columns), len(columns))
    found = [HeatRow(_row_label(unit, row), tuple(cells)) for row, cells in grid]
    return HeatMap(
        kind="calendar",
        row_title=unit.row,
        column_title=unit.column,
        columns=tuple(_column_label(unit, column) for column in columns.tolist()),
        rows=tuple(found),
        largest=_largest(found),
    )


def _fitting(partitions: WindowPartitions, first: int, stop: int, rows: int) -> Iterator[tuple[_Unit, "_Squares"]]:
    """The calendars that need no more than so many rows, those with the smallest squares first; the last one always."""
    low, high = partitions.local_starts([first, stop - 1]).tolist()
    for unit in _UNITS:
        last = unit is _UNITS[-1]
        if (high - low) // _COLUMN_SECONDS[unit.column] > _MAX_TRIED and not last:
            continue
        squares = _squares(unit, low, high + _TURNED_BACK)
        edges = np.clip(partitions.ordinals_from_local(squares.starts), first, stop)
        filled = np.diff(edges, append=stop) > 0
        found = squares.only(filled, edges)
        if last or len(np.unique(found.rows)) <= rows:
            yield unit, found


@dataclass(frozen=True, slots=True, eq=False)
class _Squares:
    """Stretches of wall-clock time, in order: where each starts, and its row and column."""

    starts: Int64s
    rows: Int64s
    columns: Int64s
    edges: Int64s

    def only(self, filled: NDArray[np.bool_], edges: Int64s) -> "_Squares":
        """Those in which windows start, with the ordinal of the first one."""
        return _Squares(self.starts[filled], self.rows[filled], self.columns[filled], edges[filled])


def _squares(unit: _Unit, low: int, high: int) -> _Squares:
    """The squares of a calendar from wall-clock second `low` to `high`, in seconds since 1970."""
    if unit.column in ("minute", "hour"):
        size = 60 if unit.column == "minute" else 3600
        starts = np.arange(low // size, high // size + 1, dtype=np.int64) * size
        row, within = np.divmod(starts, 60 * size if unit.column == "minute" else DAY)
        return _Squares(starts, row, within // size, starts)
    if unit.column in ("day", "week"):
        days = np.arange(low // DAY, high // DAY + 1, dtype=np.int64)
        dates = days.astype("M8[D]")
        row = dates.astype("M8[M]" if unit.column == "day" else "M8[Y]")
        column = (dates - row.astype("M8[D]")).astype(np.int64)
        if unit.column == "week":
            opens = column % 7 == 0
            opens[0] = True
            days, row, column = days[opens], row[opens], column[opens] // 7
        return _Squares(days * DAY, row.astype(np.int64), column, days)
    if unit.column == "month":
        months = np.arange(_month(low), _month(high) + 1, dtype=np.int64)
        starts = months.astype("M8[M]").astype("M8[D]").astype(np.int64) * DAY
        return _Squares(starts, months // 12, months % 12, starts)
    size = 1 if unit.column == "year" else 10
    years = np.arange((_month(low) // 12 + 1970) // size, (_month(high) // 12 + 1970) // size + 1, dtype=np.int64)
    starts = (years * size - 1970).astype("M8[Y]").astype("M8[D]").astype(np.int64) * DAY
    return _Squares(starts, years // 10, years % 10, starts)


def _month(second: int) -> int:
    """The number of the month that a wall-clock second is in, counted from January 1970."""
    return int(np.int64(second // DAY).astype("M8[D]").astype("M8[M]").astype(np.int64))


def _row_label(unit: _Unit, row: int) -> str:
    match unit.row:
        case "hour":
            return str(np.int64(row).astype("M8[h]")).replace("T", " ") + "h"
        case "day":
            return str(np.int64(row).astype("M8[D]"))
        case "month":
            return str(np.int64(row).astype("M8[M]"))
        case "year":
            return str(np.int64(row).astype("M8[Y]"))
        case "decade":
            return f"{row}0s"
        case _:
            return f"{row}00s"


def _column_label(unit: _Unit, column: int) -> str:
    match unit.column:
        case "day" | "week" | "month":
            return f"{column + 1:02}"
        case "decade":
            return f"{column}0s"
        case "year":
            return str(column)
        case _:
            return f"{column:02}"


def _grid(partitions: MultiPartitions, counts: _Counts, rows: int, columns: int) -> HeatMap:
    """The two largest dimensions, the more significant one downwards."""
    names = list(partitions.dimensions)
    largest = sorted(range(len(names)), key=lambda at: (-partitions.shape[at], at))[:2]
    down, across = sorted(largest)
    others = tuple(at for at in range(len(names)) if at not in largest)
    flat = [values.reshape(partitions.shape) for values in counts.each()]
    if others:
        flat = [values.sum(axis=others, dtype=np.int64) for values in flat]
    vertical = _axis(partitions.dimensions[names[down]], rows)
    horizontal = _axis(partitions.dimensions[names[across]], columns)
    sums = [_sum_blocks(values, vertical, horizontal) for values in flat]
    corners = {name: np.zeros(1, np.int64) for name in names}
    corners |= {names[down]: vertical.edges[:, np.newaxis], names[across]: horizontal.edges[np.newaxis, :]}
    firsts = np.broadcast_to(partitions.combine(corners), sums[0].shape)
    tiles = _tiles(firsts.ravel(), [values.ravel() for values in sums])
    width = len(horizontal.edges)
    lines = (HeatRow(label, tuple(tiles[at * width : (at + 1) * width])) for at, label in enumerate(vertical.labels))
    found = [line for line in lines if any(line.tiles)]
    return HeatMap(
        kind="grid",
        row_title=names[down],
        column_title=names[across],
        columns=tuple(horizontal.labels),
        rows=tuple(found),
        largest=_largest(found),
        summed=tuple(names[at] for at in others),
    )


def _sum_blocks(values: NDArray[Any], vertical: _Axis, horizontal: _Axis) -> Int64s:
    """Sums over rectangles; first along the rows, which lie together in memory."""
    if len(horizontal.edges) < horizontal.stop:
        values = np.add.reduceat(values, horizontal.edges, axis=1, dtype=np.int64)
    if len(vertical.edges) < vertical.stop:
        values = np.add.reduceat(values, vertical.edges, axis=0, dtype=np.int64)
    return values.astype(np.int64)


def _axis(partitions: Partitions, limit: int) -> _Axis:
    """A dimension as at most `limit` stretches: windows by the calendar, others of equal length."""
    count = partitions.count
    if count > limit and isinstance(partitions, WindowPartitions):
        unit, squares = next(iter(_fitting(partitions, 0, count, limit)))
        names, opens = np.unique(squares.rows, return_index=True)
        return _Axis(squares.edges[opens], count, [_row_label(unit, row) for row in names.tolist()])
    edges = np.arange(0, count, max(1, -(-count // limit)), dtype=np.int64)
    return _Axis(edges, count, partitions.keys_at(edges))


def _sums(counts: _Counts, edges: Int64s, stop: int) -> list[Int64s]:
    """The sums of stretches that start at `edges`, none of them empty; the last one ends at `stop`."""
    return [np.add.reduceat(values[:stop], edges, dtype=np.int64) for values in counts.each()]


def _tiles(firsts: Int64s, sums: Sequence[Int64s]) -> list[Tile | None]:
    rows = zip(firsts.tolist(), *(values.tolist() for values in sums), strict=True)
    return [Tile(*row) if row[1] else None for row in rows]


def _place(
    tiles: Sequence[Tile | None], rows: Int64s, columns: Int64s, width: int
) -> Iterator[tuple[int, list[Tile | None]]]:
    """Squares in their rows; those of one row come together."""
    line: list[Tile | None] = []
    current: int | None = None
    for tile, row, column in zip(tiles, rows.tolist(), columns.tolist(), strict=True):
        if row != current:
            if current is not None:
                yield current, line
            current, line = row, [None] * width
        line[column] = tile
    if current is not None:
        yield current, line


def _largest(rows: Sequence[HeatRow]) -> int:
    return max((tile.total for row in rows for tile in row.tiles if tile is not None), default=0)
