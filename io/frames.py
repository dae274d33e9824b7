"""Frames in and out of Parquet files, whatever library they belong to.

`write_frame` takes every representation and everything with `__arrow_c_stream__`; `read_frame` gives the one
that is asked for. A LazyFrame, a reader and a DuckDB relation are streams both ways: what they stand for need not
fit in memory.
"""

import base64
import contextlib
import io
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import Any, BinaryIO, cast

from headwater.catalog.errors import (
    ChecksumError,
    StorageError,
    UnstorableValueError,
    UserCodeError,
    nearest,
)
from headwater.catalog.printable import printable_line
from headwater.io.data_version import type_text
from headwater.io.engines import arrow, blake3, duckdb, parquet, polars
from headwater.io.parquet_file import RESTORED_BY_CAST, Encoding, Written, write_batches, write_polars, write_table
from headwater.io.pointers import Owner, damaged
from headwater.io.representation import Representation, class_name, of_value
from headwater.io.store import Sink, Store

#: Files up to this size are read into memory before they are decoded, by one thread.
_SMALL_BYTES = 1024 * 1024
_BATCH_ROWS = 128 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ParquetSource:
    """A Parquet file that is to be read."""

    store: Store
    path: str
    #: In bytes, as it was written; None where nobody knows.
    size: int | None = None
    #: BLAKE3 of its bytes, in hex. Compared where all of them are read anyway: of a file up to 1 MiB on a disk, or as
    #: much as comes in one request from an object store. Of a larger one only the size is, until somebody verifies it.
    checksum: str | None = None
    #: Whose data it is, as errors name it.
    owner: Owner = field(default_factory=Owner)

    @property
    def uri(self) -> str:
        """Its address."""
        return self.store.uri(self.path)

    @property
    def name(self) -> str:
        """What errors call it."""
        return f"'{self.uri}'" if self.owner.asset is None else str(self.owner)


def write_frame(sink: Sink, frame: Any, encoding: Encoding) -> Written:
    """Write any frame into a sink.

    Raises `UnstorableValueError` for one that would not come back equal, before the first byte where it can be
    known; what a stream raises while it is read; and `StorageError`.
    """
    match of_value(frame):
        case Representation.PANDAS:
            from headwater.io.pandas_frames import to_table

            table, notes = to_table(frame)
            written = write_table(sink, table, encoding)
            return replace(written, notes=(*written.notes, *notes))
        case Representation.POLARS | Representation.POLARS_LAZY:
            return write_polars(sink, frame, encoding)
        case _ if isinstance(frame, arrow().Table):
            return write_table(sink, frame, encoding)
        case _ if isinstance(frame, arrow().RecordBatch):
            return write_table(sink, arrow().Table.from_batches([frame]), encoding)
        case _:
            return _write_stream(sink, frame, encoding)


def read_frame(source: ParquetSource, wanted: Representation, columns: tuple[str, ...] | None) -> Any:
    """The file as `wanted`, with these columns in this order, or all.

    Raises `FileNotFoundError`, `ChecksumError` for a file that is not the one that was written, `UserCodeError`
    for a column that it does not have, `StorageError`.
    """
    match wanted:
        case Representation.POLARS | Representation.POLARS_LAZY:
            return _read_polars(source, columns, lazy=wanted is Representation.POLARS_LAZY)
        case Representation.DUCKDB:
            return _read_duckdb(source, columns)
        case Representation.ARROW_READER:
            return read_batches(source, columns)
        case Representation.PANDAS:
            from headwater.io.pandas_frames import from_table

            return from_table(read_table(source, columns, with_index=True))
        case _:
            return read_table(source, columns)


def _write_stream(sink: Sink, frame: Any, encoding: Encoding) -> Written:
    reader = _reader_of(frame)
    with contextlib.closing(reader):  # an unread DuckDB result keeps its connection busy
        return write_batches(sink, reader.schema, _checked(frame, reader), encoding)


def _checked(frame: Any, reader: Any) -> Any:
    if of_value(frame) is not Representation.DUCKDB:
        return reader
    from headwater.io.duckdb_types import checked

    return checked(frame, reader)


def _reader_of(frame: Any) -> Any:
    pa = arrow()
    try:
        return frame if isinstance(frame, pa.RecordBatchReader) else pa.RecordBatchReader.from_stream(frame)
    except (pa.ArrowException, TypeError, AttributeError) as error:
        raise UnstorableValueError(
            f"A {class_name(frame)} is no table: {printable_line(str(error), 200)}",
            remedy="Return a data frame or an Arrow table; a single column needs .to_frame().",
        ) from error


def to_arrow(frame: Any) -> Any:
    """Any frame as a `pyarrow.Table`, in memory. Raises as `write_frame`."""
    pa = arrow()
    match of_value(frame):
        case Representation.PANDAS:
            from headwater.io.pandas_frames import to_table

            return to_table(frame)[0]
        case Representation.POLARS:
            return frame.to_arrow()
        case Representation.POLARS_LAZY:
            return frame.collect(engine="streaming").to_arrow()
        case _ if isinstance(frame, pa.Table):
            return frame
        case _ if isinstance(frame, pa.RecordBatch):
            return pa.Table.from_batches([frame])
        case _:
            with contextlib.closing(_reader_of(frame)) as reader:
                return pa.Table.from_batches(_checked(frame, reader), reader.schema)


def from_arrow(frame: Any, wanted: Representation, columns: tuple[str, ...] | None = None) -> Any:
    """A frame in memory, of any kind, as `wanted`, with these columns or all.

    A pandas frame is handed out as a copy that shares its memory until somebody writes to it.
    Raises `UserCodeError` for a column that it does not have, and as `write_frame`.
    """
    form = of_value(frame)
    if columns is not None:
        known = frame.column_names if form is Representation.ARROW else frame.columns
        names = selected("The frame", list(known), columns)
        match form:
            case Representation.PANDAS:
                frame = frame[names]
            case Representation.POLARS:
                frame = frame.select(polars().selectors.by_name(names))
            case _:
                frame = frame.select(names)
    if form is wanted:
        return frame.copy(deep=False) if form is Representation.PANDAS else frame
    table = to_arrow(frame)
    match wanted:
        case Representation.PANDAS:
            from headwater.io.pandas_frames import from_table

            return from_table(table)
        case Representation.POLARS:
            return polars().from_arrow(table)
        case Representation.POLARS_LAZY:
            return polars().from_arrow(table).lazy()
        case Representation.ARROW_READER:
            return table.to_reader()
        case Representation.DUCKDB:
            return duckdb().default_connection().cursor().from_arrow(table)
        case _:
            return table


@contextlib.contextmanager
def _as_written(source: ParquetSource) -> Generator[None]:
    """Whatever a decoder says of a file that is no Parquet any more, as `ChecksumError`."""
    pa = arrow()
    try:
        yield
    except FileNotFoundError:
        raise
    except pa.ArrowNotImplementedError as error:  # such as dictionaries in lists, in more than one piece
        raise StorageError(
            f"pyarrow cannot read {source.name}: {printable_line(str(error), 200)}.",
            remedy="Ask for a polars frame, or leave out the column by AssetIn(columns=…).",
        ) from error
    except (pa.ArrowException, OSError, EOFError) as error:
        raise damaged(source.uri, source.owner, str(error)) from error


def is_small(source: ParquetSource) -> bool:
    """Whether its bytes are read at once, and compared with their checksum."""
    return source.size is not None and source.size <= _SMALL_BYTES


def check(source: ParquetSource, *, keep: bool = False) -> bytes | None:
    """Make sure that a file is there and, as far as it is read for that, the one that was written.

    Gives the bytes of a small one that were read, which those of a remote one are only to `keep` them.
    Raises as `read_frame`.
    """
    if is_small(source) and (keep or not source.store.is_remote):
        with _opened(source) as file:
            return _verified(source, file.read())
    if source.store.is_remote:
        size = source.store.size(source.path)
        if source.size not in (None, size):
            raise _wrong_size(source, size)
    else:
        _opened(source).close()
    return None


def _opened(source: ParquetSource) -> BinaryIO:
    file = source.store.open(source.path, source.size)
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    if source.size is not None and size != source.size:
        file.close()
        raise _wrong_size(source, size)
    return file


def _wrong_size(source: ParquetSource, size: int) -> ChecksumError:
    return damaged(source.uri, source.owner, f"it has {size:,} bytes instead of {source.size:,}")


def _verified(source: ParquetSource, data: bytes) -> bytes:
    if source.checksum is not None and blake3()(data).hexdigest() != source.checksum:
        raise damaged(source.uri, source.owner, "its bytes are others")
    return data


def native_file(source: ParquetSource) -> Any:
    """The file as Arrow reads it: in C++ where it can, because Python's file objects cost the interpreter lock."""
    pa = arrow()
    file = _opened(source)
    if source.store.is_remote and not isinstance(file, io.BytesIO):
        return pa.PythonFile(file, mode="r")
    with file:
        if source.store.is_remote or is_small(source):
            return pa.BufferReader(_verified(source, file.read()))
        # Opens the very file that was checked, without following its path a second time.
        return pa.OSFile(f"/dev/fd/{file.fileno()}")


def parquet_file(source: ParquetSource) -> Any:
    """The file as pyarrow's `ParquetFile`. Raises as `read_frame`."""
    with _as_written(source):
        return parquet().ParquetFile(native_file(source), pre_buffer=source.store.is_remote)


def read_table(
    source: ParquetSource, columns: tuple[str, ...] | None, *, with_index: bool = False, lenient: bool = False
) -> Any:
    """The file as a `pyarrow.Table`; with `lenient`, a column that it does not have is one of nulls, without a type.

    Raises as `read_frame`.
    """
    reader = parquet_file(source)
    original = original_schema(reader)
    names = present(original, columns) if lenient else selected(source.name, original.names, columns)
    with _as_written(source):
        table = reader.read(
            columns=names,
            use_threads=not is_small(source),
            use_pandas_metadata=with_index and names is not None,
        )
    if names is not None:
        index = [name for name in table.column_names if name not in set(names)] if with_index else []
        table = table.select([*names, *index])
    table = _as_original(table, original)
    return with_columns(table, columns) if lenient and columns is not None else table


def present(schema: Any, columns: tuple[str, ...] | None) -> list[str] | None:
    """Those of the columns that a schema has; None for all."""
    known = set(schema.names)
    return None if columns is None else [name for name in columns if name in known]


def with_columns(table: Any, columns: tuple[str, ...]) -> Any:
    """A table that starts with these columns, in this order; those that it lacks are nulls, without a type."""
    if table.column_names[: len(columns)] == list(columns):
        return table
    pa = arrow()
    items = {item.name: item for item in table.schema}
    fields = [items.pop(name, pa.field(name, pa.null())) for name in columns] + list(items.values())
    known = set(table.column_names)
    arrays = [table.column(item.name) if item.name in known else pa.nulls(table.num_rows) for item in fields]
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields, metadata=table.schema.metadata))


def read_batches(source: ParquetSource, columns: tuple[str, ...] | None) -> Any:
    """The file as a `pyarrow.RecordBatchReader`. Raises as `read_frame`."""
    pa = arrow()
    reader = parquet_file(source)
    original = original_schema(reader)
    names = selected(source.name, original.names, columns)
    restored = reader.schema_arrow
    schema = restored if names is None else pa.schema([restored.field(name) for name in names])

    def batches() -> Iterator[Any]:
        for batch in reader.iter_batches(_BATCH_ROWS, columns=names):
            table = pa.Table.from_batches([batch])
            yield from _as_original(table if names is None else table.select(names), original).to_batches()

    return pa.RecordBatchReader.from_batches(_as_original(schema.empty_table(), original).schema, batches())


def original_schema(reader: Any) -> Any:
    """The schema that was written, most of which pyarrow restores; `RESTORED_BY_CAST` marks a file where not all."""
    pa = arrow()
    schema = reader.schema_arrow
    metadata: dict[bytes, bytes] = reader.metadata.metadata or {}
    if RESTORED_BY_CAST.encode() not in metadata or b"ARROW:schema" not in metadata:
        return schema
    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(metadata[b"ARROW:schema"])))


def _as_original(table: Any, original: Any) -> Any:
    pa = arrow()
    if original.equals(table.schema):
        return table
    for i, item in enumerate(table.schema):
        kind = original.field(item.name).type
        if kind != item.type:
            column = table.column(i)
            column = column.dictionary_encode().cast(kind) if pa.types.is_dictionary(kind) else column.cast(kind)
            table = table.set_column(i, pa.field(item.name, kind), column)
    return table


def selected(what: str, known: list[str], columns: tuple[str, ...] | None) -> list[str] | None:
    """The columns as a list, once `what` is known to have them; None for all. Raises `UserCodeError`."""
    if columns is None:
        return None
    for name in columns:
        if name not in known:
            raise UserCodeError(
                f"{what} has no column '{printable_line(name, 80)}'.",
                remedy=nearest(name, known, f"It has {printable_line(', '.join(known), 300)}."),
            )
    return list(columns)


def _read_polars(source: ParquetSource, columns: tuple[str, ...] | None, *, lazy: bool) -> Any:
    pl = polars()
    native = source.store.native(source.path) if lazy or not is_small(source) else None
    if native is None:
        with _opened(source) as file:
            native = (cast(Any, io.BytesIO(_verified(source, file.read()))), cast(Mapping[str, Any], {}))
    else:
        check(source)
    with polars_reads(source):
        scan = scan_parquet(native[0], native[1])
        if columns is not None:
            # Not by `select(names)`, which takes `*` and `^…$` for patterns.
            scan = scan.select(pl.selectors.by_name(selected(source.name, scan.collect_schema().names(), columns)))
        return scan if lazy else scan.collect()


def scan_parquet(sources: Any, options: Mapping[str, Any], **more: Any) -> Any:
    """`polars.scan_parquet` of paths or bytes as they are: neither patterns, nor does `partition=…` make a column."""
    return polars().scan_parquet(sources, glob=False, hive_partitioning=False, **options, **more)


@contextlib.contextmanager
def polars_reads(source: ParquetSource) -> Generator[None]:
    """What polars says of a file that it cannot read, as ours."""
    exceptions = polars().exceptions
    try:
        yield
    except exceptions.PanicException as error:  # no Exception
        raise StorageError(
            f"polars cannot read '{source.uri}': {printable_line(str(error), 200)}.",
            remedy="Ask for pa.Table, or have the asset return columns of types that polars has.",
        ) from error
    except (exceptions.ComputeError, OSError) as error:
        if source.store.is_remote:
            raise StorageError(
                f"polars cannot read '{source.uri}': {printable_line(str(error), 300)}.",
                remedy="Check that the endpoint can be reached, then try again.",
            ) from error
        raise damaged(source.uri, source.owner, str(error)) from error


def _read_duckdb(source: ParquetSource, columns: tuple[str, ...] | None) -> Any:
    schema = parquet_file(source).schema_arrow
    names = selected(source.name, schema.names, columns) or schema.names
    check_for_duckdb(source.name, schema, names)
    native = None if source.store.is_remote else source.store.native(source.path)
    scanned = _dataset(source) if native is None or is_pattern(native[0]) else native[0]
    return scan_with_duckdb(scanned, schema.names, names)


def is_pattern(path: str) -> bool:
    """Whether DuckDB would take a path for a pattern."""
    return any(char in path for char in "*?[")


def scan_with_duckdb(scanned: Any, known: list[str], names: list[str]) -> Any:
    """A relation over a path, a list of paths or an Arrow dataset with the columns `known`: those of `names`."""
    # A cursor on the default connection: its relations may be used by name in `duckdb.sql(…)`, and each is busy
    # alone while it is read.
    connection = duckdb().default_connection().cursor()
    connection.execute("SET enable_progress_bar = false")  # drawn on the standard output, whoever reads that
    if isinstance(scanned, str | list):
        relation = connection.read_parquet(scanned, hive_partitioning=False)
    else:
        relation = connection.from_arrow(scanned)
    # DuckDB renames columns whose names differ by case only, so they are found by position.
    physical = dict(zip(known, relation.columns, strict=True))
    if names == relation.columns:
        return relation
    return relation.project(", ".join(f"{_quoted(physical[name])} AS {_quoted(name)}" for name in names))


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def check_for_duckdb(what: str, schema: Any, names: list[str]) -> None:
    """Raises `UserCodeError` for names, `UnstorableValueError` for types of `what` that DuckDB would change."""
    seen: dict[str, str] = {}
    for name in names:
        if not name or name.casefold() in seen:
            other = f" apart from '{seen[name.casefold()]}'" if name else ""
            raise UserCodeError(
                f"DuckDB cannot tell the column '{printable_line(name, 80)}' of {what}{other}.",
                remedy="Leave it out by AssetIn(columns=…), or ask for another kind of frame.",
            )
        seen[name.casefold()] = name
        if arrow().types.is_decimal256(schema.field(name).type):
            raise UnstorableValueError(
                f"DuckDB would read the column '{name}' of {what}, a {type_text(schema.field(name).type)}, as floats.",
                remedy="Leave it out by AssetIn(columns=…), or ask for pa.Table.",
            )


def _dataset(source: ParquetSource) -> Any:
    """The file as a dataset, which DuckDB scans through our store as often as it likes."""
    datasets = import_module("pyarrow.dataset")
    parquet_format = datasets.ParquetFileFormat()
    fragment = parquet_format.make_fragment(native_file(source))
    return datasets.FileSystemDataset([fragment], fragment.physical_schema, parquet_format)
