"""Frames as Parquet files: written in a stream, described from their own footer.

Arrow data goes through pyarrow's writer, polars frames through polars' own, which encodes on every core and
streams a LazyFrame that is larger than memory. Both feed the same hasher with the same batches that they write,
so a data version does not depend on who wrote.

`ParquetWriter` is never used as a context manager: leaving one by an exception writes a footer, and makes a valid
file of half the rows.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from headwater.catalog.errors import DuplicateColumnError, NoColumnsError, StorageError, UnstorableValueError
from headwater.catalog.printable import printable_line, with_article
from headwater.catalog.records import Column
from headwater.io.column_bounds import column_bounds
from headwater.io.data_version import TableHasher, table_version, type_text
from headwater.io.engines import arrow, parquet, polars
from headwater.io.representation import class_name
from headwater.io.store import Sink, StagedFile

#: A row group ends at this many rows or bytes in memory, whatever comes first.
GROUP_ROWS = 1024 * 1024
GROUP_BYTES = 128 * 1024 * 1024
#: Rows of a polars frame that are converted to Arrow at a time, to be hashed.
_SLICE_ROWS = 512 * 1024
#: From this size on, hashing runs beside encoding.
_PARALLEL_BYTES = 8 * 1024 * 1024
#: A frame of polars up to this size goes through pyarrow too, whose writer starts quicker.
_SMALL_BYTES = 256 * 1024
#: A table this small takes one block of the disk either way: compressing it costs time and saves nothing.
_ONE_BLOCK = 4096
#: The end of a file that is read first; the footer of an ordinary table fits.
_FOOTER_GUESS = 64 * 1024

#: Marks, in a footer, a file with types that come back only by a cast: Parquet has no seconds, pyarrow restores
#: no dates of milliseconds, and dictionaries of text only.
RESTORED_BY_CAST = "headwater.cast"

COMPRESSIONS = ("zstd", "snappy", "lz4", "gzip", "brotli", "none")


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What went into a file."""

    rows: int
    #: Name to data version.
    versions: Mapping[str, str]
    nulls: Mapping[str, int]
    #: The Arrow schema.
    schema: Any
    notes: tuple[str, ...] = ()

    @property
    def data_version(self) -> str:
        """The version of the whole table."""
        return table_version(self.versions)


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """How a file is to be written."""

    compression: str = "zstd"
    #: What goes into the footer, for whoever finds the file without a catalog.
    provenance: Mapping[str, str] = field(default_factory=dict[str, str])
    #: Called with the types of the columns as text before anything is written; it may refuse them by raising.
    approve: Callable[[Mapping[str, str]], None] = lambda columns: None


def write_table(sink: Sink, table: Any, encoding: Encoding) -> Written:
    """Write a `pyarrow.Table`. Raises `UnstorableValueError` before the first byte, `StorageError`."""
    size = table.nbytes
    group_rows = max(1, min(GROUP_ROWS, table.num_rows * GROUP_BYTES // max(size, 1)))
    compression = encoding.compression if size > _ONE_BLOCK else "none"
    return _write(sink, table.schema, [table], encoding, group_rows, compression)


def write_batches(sink: Sink, schema: Any, batches: Iterable[Any], encoding: Encoding) -> Written:
    """Write record batches as they come, a row group at a time. Raises as `write_table`, and what `batches` raises."""
    return _write(sink, schema, _grouped(batches), encoding, GROUP_ROWS, encoding.compression)


def write_polars(sink: Sink, frame: Any, encoding: Encoding) -> Written:
    """Write a `polars.DataFrame`, or a `polars.LazyFrame` in one streaming pass. Raises as `write_batches`."""
    pl = polars()
    lazy = isinstance(frame, pl.LazyFrame)
    kinds = frame.collect_schema() if lazy else frame.schema
    for name, kind in kinds.items():
        if kind == pl.Object and not lazy:
            _refuse_objects(frame.get_column(name))
        _check_polars_type(kind, name)
    table = pl.DataFrame(schema=kinds).to_arrow() if lazy else frame.head(_SLICE_ROWS).to_arrow()
    if not lazy and frame.height <= _SLICE_ROWS and table.nbytes <= _SMALL_BYTES:
        return write_table(sink, table, encoding)
    hasher, notes = _begin(table.schema, encoding)
    options: dict[str, Any] = {
        "compression": "uncompressed" if encoding.compression == "none" else encoding.compression,
        "metadata": dict(encoding.provenance),
    }
    if lazy:
        _sink_lazy(sink, frame, hasher, options)
    else:
        with ThreadPoolExecutor(1) as beside:
            hashing = beside.submit(_hash_slices, hasher, frame)
            frame.write_parquet(sink, **options)
            hashing.result()
    return _written(hasher, table.schema, notes)


def check_schema(schema: Any) -> tuple[str, ...]:
    """What a person should know about a schema. Raises `UnstorableValueError` for one that Parquet cannot hold."""
    names: list[str] = schema.names
    if not names:
        raise NoColumnsError(
            "The frame has no columns: most readers refuse a Parquet file without any.",
            remedy="Return at least one column, or None.",
        )
    seen: dict[str, str] = {}
    notes: list[str] = []
    for item in schema:
        name: str = item.name
        folded = name.casefold()
        if folded in seen:
            if seen[folded] == name:
                raise DuplicateColumnError(
                    f"The frame has more than one column '{printable_line(name, 80)}'.", remedy="Rename one of them."
                )
            notes.append(f"The columns '{seen[folded]}' and '{name}' differ by case only, which SQL does not see.")
        seen[folded] = name
        _check_type(item.type, name)
        if arrow().types.is_null(item.type):
            notes.append(f"The column '{name}' holds nothing but nulls, so it has no type.")
    return tuple(notes)


def read_footer(staged: StagedFile) -> Any:
    """The `FileMetaData` of a staged file, from its own bytes. Raises `StorageError` if it is no Parquet file."""
    tail = staged.tail(_FOOTER_GUESS)
    size = int.from_bytes(tail[-8:-4], "little") + 8
    if size > len(tail):
        tail = staged.tail(size)
    try:
        return parquet().ParquetFile(arrow().BufferReader(tail)).metadata
    except (arrow().ArrowException, OSError) as error:
        raise StorageError(
            f"'{staged.uri}' was written without a readable footer: {printable_line(str(error), 120)}",
            remedy="Write fewer columns or larger row groups; if that does not help, report this as a bug.",
        ) from error


def describe(written: Written, footer: Any) -> tuple[Column, ...]:
    """The columns of a written file, bounds from the statistics of its footer.

    Raises `StorageError` when the footer counts other rows than were written.
    """
    if footer.num_rows != written.rows:
        raise StorageError(
            f"{written.rows:,} rows were written, and the file's footer counts {footer.num_rows:,}.",
            remedy="Nothing was published: materialize again, and report this as a bug.",
        )
    return tuple(
        Column(
            name=item.name,
            type=type_text(item.type),
            version=written.versions[item.name],
            nulls=written.nulls[item.name],
            min=low,
            max=high,
        )
        for item, (low, high) in zip(written.schema, column_bounds(written.schema, footer), strict=True)
    )


def _begin(schema: Any, encoding: Encoding) -> tuple[TableHasher, tuple[str, ...]]:
    notes = check_schema(schema)
    encoding.approve({item.name: type_text(item.type) for item in schema})
    return TableHasher(schema), notes


def _written(hasher: TableHasher, schema: Any, notes: tuple[str, ...]) -> Written:
    return Written(rows=hasher.rows, versions=hasher.columns(), nulls=hasher.nulls(), schema=schema, notes=notes)


def _hash_slices(hasher: TableHasher, frame: Any) -> None:
    for start in range(0, frame.height, _SLICE_ROWS):
        hasher.update(frame.slice(start, _SLICE_ROWS).to_arrow())


def _sink_lazy(sink: Sink, frame: Any, hasher: TableHasher, options: Mapping[str, Any]) -> None:
    """Run a LazyFrame once, in batches that are hashed on their way into polars' writer."""
    failures: list[BaseException] = []

    def hashed(columns: list[str] | None, *_: Any) -> Iterator[Any]:
        try:
            with ThreadPoolExecutor(1) as beside:
                for batch in frame.collect_batches(engine="streaming"):
                    hashing = beside.submit(_hash_slices, hasher, batch)
                    yield batch if columns is None else batch.select(columns)
                    hashing.result()
        except BaseException as error:
            failures.append(error)
            raise

    source = polars().io.plugins.register_io_source(hashed, schema=frame.collect_schema())
    try:
        source.sink_parquet(sink, **options)
    except BaseException as error:
        if failures and failures[0] is not error:
            raise failures[0] from error
        raise


def _write(
    sink: Sink, schema: Any, tables: Iterable[Any], encoding: Encoding, group_rows: int, compression: str
) -> Written:
    hasher, notes = _begin(schema, encoding)
    writer = parquet().ParquetWriter(sink, schema, compression=compression, use_dictionary=compression != "none")
    for table in tables:
        if table.nbytes < _PARALLEL_BYTES:
            hasher.update(table)
            _encode(writer, table, group_rows)
        else:
            with ThreadPoolExecutor(1) as beside:
                hashing = beside.submit(hasher.update, table)
                _encode(writer, table, group_rows)
                hashing.result()
        del table  # or it would be held while the next group is gathered
    marks = {RESTORED_BY_CAST: "1"} if any(_needs_cast(item.type) for item in schema) else {}
    writer.add_key_value_metadata({**encoding.provenance, **marks})
    writer.close()
    return _written(hasher, schema, notes)


def _encode(writer: Any, table: Any, group_rows: int) -> None:
    pa = arrow()
    try:
        writer.write_table(table, row_group_size=group_rows)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
        raise UnstorableValueError(
            f"The frame cannot be written as Parquet: {printable_line(str(error), 200)}",
            remedy="Convert the column to another type before it is returned.",
        ) from error


def _grouped(batches: Iterable[Any]) -> Iterator[Any]:
    pa = arrow()
    pending: list[Any] = []
    rows = size = 0
    for batch in batches:
        pending.append(batch)
        rows += batch.num_rows
        size += batch.nbytes
        if rows >= GROUP_ROWS or size >= GROUP_BYTES:
            yield pa.Table.from_batches(pending)
            pending, rows, size = [], 0, 0
    if pending:
        yield pa.Table.from_batches(pending)


@lru_cache(maxsize=512)
def _needs_cast(kind: Any) -> bool:
    types = arrow().types
    if types.is_dictionary(kind):
        return type_text(kind.value_type) != "string"
    seconds = (types.is_timestamp(kind) or types.is_time(kind)) and kind.unit == "s"
    inner = kind.fields if types.is_struct(kind) else ()
    return bool(seconds or types.is_date64(kind) or any(_needs_cast(item.type) for item in inner)) or (
        hasattr(kind, "value_type") and _needs_cast(kind.value_type)
    )


def _check_type(kind: Any, path: str) -> None:
    types = arrow().types
    if types.is_struct(kind):
        if not kind.num_fields:
            raise UnstorableValueError(
                f"The column '{printable_line(path, 120)}' is a struct without fields, which Parquet does not have.",
                remedy="Drop it, or give its structs a field.",
            )
        for item in kind.fields:
            _check_type(item.type, f"{path}.{item.name}")
    elif types.is_union(kind) or types.is_interval(kind) or types.is_run_end_encoded(kind):
        raise UnstorableValueError(
            f"The column '{printable_line(path, 120)}' has the type {type_text(kind)}, which Parquet does not have.",
            remedy="Convert it to another type before it is returned.",
        )
    elif types.is_fixed_size_list(kind) and not kind.list_size:
        raise UnstorableValueError(
            f"The column '{printable_line(path, 120)}' holds lists of length 0, which pyarrow cannot read back.",
            remedy="Drop it, or make it a list of variable length.",
        )
    elif types.is_map(kind):
        _check_type(kind.key_type, f"{path}.key")
        _check_type(kind.item_type, f"{path}.value")
    elif isinstance(kind, arrow().BaseExtensionType):
        _check_type(kind.storage_type, path)
    elif hasattr(kind, "value_type"):
        _check_type(kind.value_type, path)


def _refuse_objects(series: Any) -> None:
    """Name the first object of a column of Python objects."""
    for row, value in enumerate(series):
        if value is not None:
            raise UnstorableValueError(
                f"The column '{printable_line(series.name, 120)}' is of type Object, which Parquet does not have: "
                f"it holds {with_article(printable_line(class_name(value), 80))} in row {row}.",
                remedy="Convert it to what its objects hold: text, numbers, lists, structs.",
            )


def _check_polars_type(kind: Any, path: str) -> None:
    """Structs without fields are left to `check_schema`, which sees them too."""
    pl = polars()
    if isinstance(kind, pl.Object | pl.Int128 | pl.UInt128):
        raise UnstorableValueError(
            f"The column '{printable_line(path, 120)}' is of type {kind}, which Parquet readers do not have.",
            remedy="Cast it: a 128-bit integer to Decimal(38, 0) or String, an Object to what it holds.",
        )
    if isinstance(kind, pl.Struct):
        for item in kind.fields:
            _check_polars_type(item.dtype, f"{path}.{item.name}")
    elif isinstance(kind, pl.List | pl.Array):
        _check_polars_type(kind.inner, path)
