"""One frame that holds several partitions, split into a frame for each.

For a step that computes many partitions at once and returns all of them together.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from headwater.catalog.errors import UserCodeError, nearest
from headwater.catalog.printable import printable_line, with_article
from headwater.io.engines import arrow, numpy, polars
from headwater.io.frames import from_arrow, to_arrow
from headwater.io.representation import Representation, class_name, of_value

#: How much of a row without a partition an error shows.
_SHOWN = 200


@dataclass(frozen=True, slots=True)
class _Order:
    """The rows of a frame by partition: `rows` holds their positions, those of each key between two of `ends`."""

    keys: list[str]
    rows: Any
    ends: list[int]


def split_frame(frame: Any, keys: Callable[[Any], Sequence[str | None]], columns: Sequence[str]) -> dict[str, Any]:
    """A frame of any kind as one frame of that kind for each partition that has rows, by partition key.

    `keys` is called once, with the distinct rows of `columns` as a `pyarrow.Table`, and gives the partition key of
    each; None for a row of no partition. Rows keep their order, partitions come in the order of their first rows.
    A lazy frame, a reader and a relation are run once. A pandas index is kept, unless it just numbers the rows.

    Raises `UserCodeError` for what is no frame, a column that is not there and a row without a partition; what
    `keys` raises; and what a stream raises while it is read.
    """
    form = of_value(frame)
    if not form.is_frame:
        raise UserCodeError(
            f"{with_article(class_name(frame)).capitalize()} cannot be split into partitions.",
            remedy="Return a frame with a column that tells the partition, or a result for each partition.",
        )
    whole = _in_memory(frame, form)
    names = list(columns)
    known = [str(name) for name in (whole.column_names if isinstance(whole, arrow().Table) else whole.columns)]
    for name in names:
        if name not in known:
            raise UserCodeError(
                f"The frame has no column '{printable_line(name, 80)}', which tells the partition of each row.",
                remedy=nearest(name, known, f"It has {printable_line(', '.join(known), 300)}."),
            )
    order = _order(_key_table(whole, names), keys)
    return {key: _as(part, form) for key, part in zip(order.keys, _parts(whole, order), strict=True)}


def _in_memory(frame: Any, form: Representation) -> Any:
    match form:
        case Representation.POLARS_LAZY:
            return frame.collect(engine="streaming")
        case Representation.POLARS | Representation.PANDAS:
            return frame
        case _:
            return to_arrow(frame)


def _key_table(frame: Any, names: list[str]) -> Any:
    """The columns that tell the partition, as a table."""
    match of_value(frame):
        case Representation.POLARS:
            return to_arrow(frame.select(polars().selectors.by_name(names)))
        case Representation.PANDAS:
            return to_arrow(frame[names].reset_index(drop=True))
        case _:
            return frame.select(names)


def _order(table: Any, keys: Callable[[Any], Sequence[str | None]]) -> _Order:
    np, pl = numpy(), polars()
    groups = (
        pl.from_arrow(table.rename_columns([str(i) for i in range(table.num_columns)]))
        .with_row_index("row")
        .group_by(pl.selectors.exclude("row"), maintain_order=True)
        .agg("row")["row"]
    )
    distinct = table.take(groups.list.first().to_arrow())
    codes: dict[str, int] = {}
    found = [codes.setdefault(_checked(key, distinct, i), len(codes)) for i, key in enumerate(_called(keys, distinct))]
    rows = groups.explode(empty_as_null=False).to_numpy()
    sizes = groups.list.len().to_numpy()
    if len(codes) < len(found):  # else the rows of each group are those of a partition, in order
        partition = np.empty(len(rows), "u2" if len(codes) <= 1 << 16 else "u4")  # 16 bits are sorted by radix
        partition[rows] = np.repeat(np.array(found), sizes)
        rows = np.argsort(partition, kind="stable")
        sizes = np.bincount(partition, minlength=len(codes))
    return _Order(list(codes), rows, np.cumsum(sizes).tolist())


def _called(keys: Callable[[Any], Sequence[str | None]], distinct: Any) -> Sequence[str | None]:
    if not distinct.num_rows:
        return ()
    found = keys(distinct)
    if len(found) != distinct.num_rows:
        raise UserCodeError(
            f"{len(found):,} partition keys were given for {distinct.num_rows:,} rows.",
            remedy="Give one for each row, None for a row of no partition.",
        )
    return found


def _checked(key: str | None, distinct: Any, i: int) -> str:
    if key is None:
        row = ", ".join(f"{name} = {value!r}" for name, value in distinct.slice(i, 1).to_pylist()[0].items())
        raise UserCodeError(
            f"The frame has rows of no partition that is computed: {printable_line(row, _SHOWN)}.",
            remedy="Leave such rows out before the frame is returned, or compute their partition too.",
        )
    return key


def _parts(frame: Any, order: _Order) -> list[Any]:
    ordered = _taken(frame, order.rows)
    starts = [0, *order.ends[:-1]]
    slices = [(start, end) for start, end in zip(starts, order.ends, strict=False)]
    if of_value(frame) is not Representation.PANDAS:
        return [ordered.slice(start, end - start) for start, end in slices]
    from headwater.io.pandas_frames import is_trivial

    parts = [ordered.iloc[start:end] for start, end in slices]
    return [part.reset_index(drop=True) for part in parts] if is_trivial(frame.index) else parts


def _taken(frame: Any, rows: Any) -> Any:
    if bool((rows[1:] > rows[:-1]).all()):  # they are in order already
        return frame
    match of_value(frame):
        case Representation.POLARS:
            return frame[rows]
        case Representation.PANDAS:
            return frame.iloc[rows]
        case _:
            return frame.take(arrow().array(rows))


def _as(part: Any, form: Representation) -> Any:
    match form:
        case Representation.POLARS_LAZY:
            return part.lazy()
        case Representation.ARROW_READER | Representation.DUCKDB:
            return from_arrow(part, form)
        case _:
            return part


def without_rows(frame: Any) -> Any:
    """A frame of the same kind and columns, and no row. Runs nothing: a stream may have been read before."""
    match of_value(frame):
        case Representation.POLARS | Representation.POLARS_LAZY:
            return frame.clear()
        case Representation.PANDAS:
            return frame.iloc[:0]
        case Representation.ARROW_READER:
            return arrow().RecordBatchReader.from_batches(frame.schema, [])
        case Representation.DUCKDB:
            return frame.limit(0)
        case _:
            return frame.slice(0, 0)
