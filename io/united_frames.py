"""Frames of several partitions as one: united by the names of their columns.

A column that some lack is null there. Types that differ are widened where no value changes: integers and floats to what
holds both, decimals, units of time, a column of nothing but nulls to what the others are; inside of lists and
structs too. What cannot be united is an error that names both partitions. The order of rows is that of the partitions.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from headwater.catalog.errors import UserCodeError
from headwater.catalog.printable import printable_line
from headwater.catalog.records import Column
from headwater.io.data_version import type_text
from headwater.io.engines import arrow, pandas, polars
from headwater.io.pointers import Owner
from headwater.io.representation import Representation

#: Integers up to here are floats exactly.
_EXACT_FLOAT = 2**53
_REMEDY = "Make the older one anew, or annotate the parameter dict[str, T] to get each partition by itself."


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One partition's part of a larger frame."""

    #: Of the representation that is asked for; for pandas a table that `pandas_frames.to_table` made does as well.
    frame: Any
    owner: Owner
    #: Columns to add at the end: name → text.
    added: Mapping[str, str] = field(default_factory=dict[str, str])


def unite(pieces: Sequence[Piece], representation: Representation) -> Any:
    """One frame of the kind `representation` of frames of that kind, at least one.

    Raises `UserCodeError` for columns that do not go together.
    """
    match representation:
        case Representation.POLARS | Representation.POLARS_LAZY:
            return unite_polars([_with_literals(piece) for piece in pieces], last=tuple(pieces[0].added))
        case Representation.PANDAS:
            return unite_pandas(pieces)
        case Representation.ARROW_READER:
            return unite_batches(
                [piece.frame.schema for piece in pieces],
                [piece.owner for piece in pieces],
                [piece.added for piece in pieces],
                (piece.frame for piece in pieces),
            )
        case Representation.DUCKDB:
            from headwater.io.frames import from_arrow, to_arrow

            tables = [_with_frame(piece, to_arrow(piece.frame)) for piece in pieces]
            return from_arrow(unite_tables(tables), representation)
        case _:
            return unite_tables(pieces)


def unite_columns(
    columns: Iterable[tuple[Owner, Mapping[str, Any]]],
    join: Callable[[Any, Any], Any],
    text: Callable[[Any], str],
) -> dict[str, Any]:
    """Every column with a type for all; `join` gives the one of two types that holds both, or None.

    Raises `UserCodeError` naming two partitions, the column and its types.
    """
    found: dict[str, tuple[Owner, Any]] = {}
    for owner, kinds in columns:
        for name, kind in kinds.items():
            first, before = found.setdefault(name, (owner, kind))
            if before == kind:
                continue
            joined = join(before, kind)
            if joined is None:
                raise UserCodeError(
                    f"The column '{printable_line(name, 80)}' is {text(before)} in {first}, and {text(kind)} in "
                    f"{owner}: no type holds both.",
                    remedy=_REMEDY,
                )
            found[name] = (owner if joined == kind else first, joined)
    return {name: kind for name, (_, kind) in found.items()}


def check_added(names: Iterable[str], added: Iterable[str], owner: Owner) -> None:
    """Raises `UserCodeError` for a column that is to be added and is there."""
    for name in set(names) & set(added):
        raise UserCodeError(
            f"A column '{printable_line(name, 80)}' of partition keys is to be added, and {owner} has one already.",
            remedy="Name the added column otherwise, or leave it out: the data has it.",
        )


def check_exact(owner: Owner, columns: Iterable[Column], floats: Collection[str]) -> None:
    """Raises `UserCodeError` where an integer of the columns that become `floats` is known to change by that."""
    for column in columns:
        if column.name in floats and column.type in ("int64", "uint64"):
            for bound in (column.min, column.max):
                if isinstance(bound, int) and abs(bound) > _EXACT_FLOAT:
                    raise inexact(column.name, owner, f"the integer {bound} is no float")


def inexact(name: str, owner: Owner, reason: str) -> UserCodeError:
    """The error for a value that a wider type does not hold."""
    return UserCodeError(
        f"The column '{printable_line(name, 80)}' of {owner} cannot take the type of the other partitions: "
        f"{printable_line(reason, 200)}.",
        remedy=_REMEDY,
    )


def encodable(text: str, name: str, owner: Owner) -> str:
    """A text that is to be a value of the column `name`. Raises `UserCodeError` where no frame can hold it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UserCodeError(
            f"The column '{printable_line(name, 80)}' for the partition cannot hold the key of {owner}, "
            "which is no Unicode text.",
            remedy="Leave out the column, or give the partition another key.",
        ) from None
    return str(text)


# Arrow


def join_types(one: Any, other: Any) -> Any:
    """The Arrow type that holds the values of both, None where there is none."""
    if not _goes_with(one, other):
        return None
    pa = arrow()
    try:
        schemas = [pa.schema([("x", one)]), pa.schema([("x", other)])]
        return pa.unify_schemas(schemas, promote_options="permissive").field(0).type
    except (pa.ArrowTypeError, pa.ArrowInvalid):
        return one if type_text(one) == type_text(other) else None


def _goes_with(one: Any, other: Any) -> bool:
    types = arrow().types
    if types.is_null(one) or types.is_null(other) or type_text(one) == type_text(other):
        return True
    if types.is_integer(one) and types.is_integer(other):
        # No integer holds these and negative ones.
        return not any(types.is_uint64(kind) for kind in (one, other)) or all(
            types.is_unsigned_integer(kind) for kind in (one, other)
        )
    numbers = [types.is_integer(kind) or types.is_floating(kind) for kind in (one, other)]
    decimals = [types.is_integer(kind) or types.is_decimal(kind) for kind in (one, other)]
    if all(numbers) or all(decimals):
        return True
    if types.is_timestamp(one) and types.is_timestamp(other):
        return one.tz == other.tz
    for same in (types.is_date, types.is_time, types.is_duration):
        if same(one) and same(other):
            return True
    if any(all(is_list(kind) for kind in (one, other)) for is_list in (types.is_list, types.is_large_list)):
        return _goes_with(one.value_type, other.value_type)
    if types.is_struct(one) and types.is_struct(other):
        fields = {item.name: item.type for item in other.fields}
        return all(_goes_with(item.type, fields[item.name]) for item in one.fields if item.name in fields)
    return False


def unite_schemas(schemas: Sequence[Any], owners: Sequence[Owner]) -> Any:
    """One Arrow schema for all; with the metadata that all share. Raises `UserCodeError`."""
    pa = arrow()
    first = schemas[0]
    if all(schema is first or schema.equals(first, check_metadata=True) for schema in schemas):
        return first
    items = [{item.name: item for item in schema} for schema in schemas]
    kinds = unite_columns(
        (
            (owner, {name: item.type for name, item in fields.items()})
            for owner, fields in zip(owners, items, strict=True)
        ),
        join_types,
        type_text,
    )
    fields = [
        pa.field(name, kind, metadata=_shared([known[name].metadata or {} for known in items if name in known]))
        for name, kind in kinds.items()
    ]
    metadata = _shared([schema.metadata or {} for schema in schemas])
    if first.metadata and b"pandas" in first.metadata:
        metadata[b"pandas"] = first.metadata[b"pandas"]  # differs by the number of rows, which nobody relies on
    return pa.schema(fields, metadata=metadata)


def _shared(entries: Sequence[Mapping[bytes, bytes]]) -> dict[bytes, bytes]:
    return {name: value for name, value in entries[0].items() if all(other.get(name) == value for other in entries[1:])}


def conform(table: Any, schema: Any, owner: Owner, added: Mapping[str, str] = {}) -> Any:
    """A table as rows of `schema`, which was united of it and others, with the columns that are added.

    Raises `UserCodeError` for a value that its new type cannot hold.
    """
    pa = arrow()
    if not table.schema.equals(schema):
        names = set(table.column_names)
        columns = [
            _cast(table.column(item.name), item, owner) if item.name in names else pa.nulls(table.num_rows, item.type)
            for item in schema
        ]
        table = pa.Table.from_arrays(columns, schema=schema) if columns else table.select([])
    elif table.schema.metadata != schema.metadata:
        table = table.replace_schema_metadata(schema.metadata)
    for name, text in added.items():
        value = pa.scalar(encodable(text, name, owner), pa.string())
        table = table.append_column(pa.field(name, pa.string()), pa.repeat(value, table.num_rows))
    return table


def _cast(column: Any, item: Any, owner: Owner) -> Any:
    pa = arrow()
    if column.type == item.type:
        return column
    try:
        return column.cast(item.type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise inexact(item.name, owner, str(error)) from error


def unite_tables(pieces: Sequence[Piece]) -> Any:
    """Tables one below the other. Raises `UserCodeError`."""
    schema = unite_schemas([piece.frame.schema for piece in pieces], [piece.owner for piece in pieces])
    check_added(schema.names, pieces[0].added, pieces[0].owner)
    return arrow().concat_tables([conform(piece.frame, schema, piece.owner, piece.added) for piece in pieces])


def unite_batches(
    schemas: Sequence[Any], owners: Sequence[Owner], added: Sequence[Mapping[str, str]], readers: Iterable[Any]
) -> Any:
    """A reader of all batches of `readers`, which are taken one by one, and whose schemas are known before.

    Raises `UserCodeError`.
    """
    pa = arrow()
    schema = unite_schemas(schemas, owners)
    check_added(schema.names, added[0], owners[0])

    def batches() -> Iterator[Any]:
        for owner, texts, reader in zip(owners, added, readers, strict=True):
            for batch in reader:
                yield from conform(pa.Table.from_batches([batch]), schema, owner, texts).to_batches()

    whole = conform(schema.empty_table(), schema, owners[0], added[0]).schema
    return pa.RecordBatchReader.from_batches(whole, batches())


def _with_frame(piece: Piece, frame: Any) -> Piece:
    return Piece(frame=frame, owner=piece.owner, added=piece.added)


# polars


def join_polars_types(one: Any, other: Any) -> Any:
    """The polars type that holds the values of both, None where there is none."""
    pl = polars()
    if isinstance(one, pl.Enum) or isinstance(other, pl.Enum):
        return other if one == pl.Null else one if other == pl.Null else None
    joined = join_types(pl.Series([], dtype=one).to_arrow().type, pl.Series([], dtype=other).to_arrow().type)
    return None if joined is None else pl.from_arrow(arrow().array([], joined)).dtype


def unite_polars(pieces: Sequence[Piece], last: Sequence[str] = ()) -> Any:
    """Eager or lazy frames one below the other; the columns `last`, which all have, come last.

    Raises `UserCodeError`.
    """
    pl = polars()
    if len(pieces) == 1:
        return pieces[0].frame
    schemas = [piece.frame.collect_schema() for piece in pieces]
    frames = [piece.frame for piece in pieces]
    if any(schema != schemas[0] or schema.names() != schemas[0].names() for schema in schemas):
        owners = [piece.owner for piece in pieces]
        target = unite_columns(zip(owners, schemas, strict=True), join_polars_types, str)
        target = {name: target[name] for name in sorted(target, key=lambda name: name in last)}
        frames = [_conform_polars(frame, schema, target) for frame, schema in zip(frames, schemas, strict=True)]
    return pl.concat(frames, how="vertical", rechunk=False)


def _conform_polars(frame: Any, schema: Mapping[str, Any], target: Mapping[str, Any]) -> Any:
    pl = polars()
    named = pl.selectors.by_name  # pl.col takes `*` and `^…$` for patterns
    changes = [
        pl.lit(None, dtype=kind).alias(name) if name not in schema else named(name).cast(kind)
        for name, kind in target.items()
        if schema.get(name) != kind
    ]
    # Not by one `select`: of nothing but literals it makes one row.
    return frame.with_columns(changes).select(named(list(target)))


def _with_literals(piece: Piece) -> Piece:
    if not piece.added:
        return piece
    pl = polars()
    check_added(piece.frame.collect_schema().names(), piece.added, piece.owner)
    texts = [
        pl.lit(encodable(text, name, piece.owner), dtype=pl.String).alias(name) for name, text in piece.added.items()
    ]
    return _with_frame(piece, piece.frame.with_columns(texts))


# pandas


def unite_pandas(pieces: Sequence[Piece]) -> Any:
    """pandas frames, or tables made of them, one below the other: with their index, or numbered anew.

    Raises `UserCodeError`.
    """
    from headwater.io.pandas_frames import from_table, is_restored_alike, stored_index, to_table

    tables = [
        piece if isinstance(piece.frame, arrow().Table) else _with_frame(piece, to_table(piece.frame)[0])
        for piece in pieces
    ]
    index = stored_index(tables[0].frame)
    for piece in tables:
        if stored_index(piece.frame) != index:
            raise UserCodeError(
                f"The index of {tables[0].owner} is {_index_text(index)}, that of {piece.owner} "
                f"{_index_text(stored_index(piece.frame))}.",
                remedy=f"Call reset_index() before the frame is returned. {_REMEDY}",
            )
    if is_restored_alike([piece.frame for piece in tables]):
        return from_table(unite_tables(tables))
    schema = unite_schemas([piece.frame.schema for piece in tables], [piece.owner for piece in tables])
    added = list(tables[0].added)
    check_added(schema.names, added, tables[0].owner)
    frames = [from_table(conform(piece.frame, piece.frame.schema, piece.owner, piece.added)) for piece in tables]
    _unite_categories(frames, [piece.owner for piece in tables])
    whole = pandas().concat(frames, ignore_index=not index)
    return whole[[*(name for name in whole.columns if name not in added), *added]]


def _unite_categories(frames: list[Any], owners: Sequence[Owner]) -> None:
    """Give columns of categories that are alike in all frames the categories of all; the frames are changed."""
    pd = pandas()
    for name in {name for frame in frames for name in frame.columns}:
        found = [(i, frame[name]) for i, frame in enumerate(frames) if name in frame.columns]
        if not all(isinstance(column.dtype, pd.CategoricalDtype) for _, column in found):
            continue
        first, column = found[0]
        differ = [(i, other) for i, other in found if other.dtype != column.dtype]
        if not differ:
            continue
        if any(other.cat.ordered for _, other in found):
            raise UserCodeError(
                f"The ordered categories of the column '{printable_line(str(name), 80)}' in {owners[first]} are not "
                f"those in {owners[differ[0][0]]}.",
                remedy=_REMEDY,
            )
        categories = pd.api.types.union_categoricals([other for _, other in found]).categories
        for i, other in found:
            frames[i][name] = other.cat.set_categories(categories)


def _index_text(index: Sequence[str]) -> str:
    return f"'{printable_line(', '.join(index), 80)}'" if index else "the number of the row"
