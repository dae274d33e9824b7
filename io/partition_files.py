"""The Parquet files of several partitions as one frame, in one scan.

Each file is checked as it is when it is read by itself. Columns that differ are united as in
`headwater.io.united_frames`; whether they do is known from the pointers, but for dictionaries, whose text leaves out
what they consist of.
"""

import io
import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from importlib import import_module
from typing import Any

from headwater.catalog.records import Pointer
from headwater.io.engines import arrow, numpy, polars
from headwater.io.frames import (
    ParquetSource,
    check,
    check_for_duckdb,
    is_pattern,
    is_small,
    native_file,
    original_schema,
    parquet_file,
    polars_reads,
    present,
    read_batches,
    read_frame,
    read_table,
    scan_parquet,
    scan_with_duckdb,
    selected,
    with_columns,
)
from headwater.io.pointers import missing
from headwater.io.representation import Representation
from headwater.io.united_frames import (
    Piece,
    check_added,
    check_exact,
    encodable,
    unite_batches,
    unite_pandas,
    unite_polars,
    unite_schemas,
    unite_tables,
)

#: Small files of up to this many bytes together are scanned from memory, where they were put to be checked.
_HELD_BYTES = 64 * 1024 * 1024
#: Requests to an object store at a time.
_REQUESTS = 16


class PartitionFiles:
    """The files of partitions in their order, of which `columns` are read, in this order, or all.

    `added` are columns to add at the end: name → the text of each partition.
    """

    def __init__(
        self,
        sources: Sequence[ParquetSource],
        pointers: Sequence[Pointer],
        *,
        columns: tuple[str, ...] | None = None,
        added: Mapping[str, Sequence[str]] = {},
    ) -> None:
        self.sources = list(sources)
        self._pointers = pointers
        self._columns = columns
        self._added = {
            name: [encodable(text, name, source.owner) for text, source in zip(texts, sources, strict=True)]
            for name, texts in added.items()
        }

    def at(self, sources: Sequence[ParquetSource]) -> "PartitionFiles":
        """The same partitions at other places."""
        return PartitionFiles(sources, self._pointers, columns=self._columns, added=self._added)

    def read(self, wanted: Representation) -> Any:
        """One frame of the kind `wanted`.

        Raises `MissingDataError` and `ChecksumError` naming the partition, `UserCodeError` for columns that do not go
        together or that no partition has, `StorageError`.
        """
        what = f"The data of `{self.sources[0].owner.asset}`"
        names = selected(what, self._known, self._columns) or self._known
        check_added(names, self._added, self.sources[0].owner)
        match wanted:
            case Representation.POLARS | Representation.POLARS_LAZY:
                return self._read_polars(lazy=wanted is Representation.POLARS_LAZY)
            case Representation.DUCKDB:
                return self._read_duckdb(names)
            case Representation.ARROW_READER:
                return self._read_batches()
            case Representation.PANDAS:
                return unite_pandas(self._tables(with_index=True))
            case _:
                return unite_tables(self._tables())

    @cached_property
    def _known(self) -> list[str]:
        """The columns that any of the files has."""
        names: dict[str, None] = {}
        for i in dict(zip(reversed(self._kinds), reversed(range(len(self._kinds))), strict=True)).values():
            names.update(dict.fromkeys([column.name for column in self._pointers[i].columns] or self._schemas[i].names))
        return list(names)

    @cached_property
    def _kinds(self) -> list[Any]:
        """The same for files that are known to have the same columns; the position where that cannot be known."""
        return [
            i
            if not pointer.columns or any("dictionary" in column.type for column in pointer.columns)
            else tuple([(column.name, column.type) for column in pointer.columns])
            for i, pointer in enumerate(self._pointers)
        ]

    @cached_property
    def _schemas(self) -> list[Any]:
        """The Arrow schema of each file, of those that are alike read from the first one."""
        first: dict[Any, int] = {}
        for i, kind in enumerate(self._kinds):
            first.setdefault(kind, i)
        found = self._each(lambda i: original_schema(parquet_file(self.sources[i])), list(first.values()))
        schemas = dict(zip(first, found, strict=True))
        return [schemas[kind] for kind in self._kinds]

    def _each(
        self, act: Callable[[int], Any], which: Sequence[int] | None = None, *, decodes: bool = False
    ) -> list[Any]:
        """What `act` gives for each file, or for those at some positions.

        They are done beside each other where that is quicker: when they wait for a network, or are `decodes`.
        """

        def named(i: int) -> Any:
            try:
                return act(i)
            except FileNotFoundError:
                raise missing(self._pointers[i], self.sources[i].owner) from None

        positions = range(len(self.sources)) if which is None else which
        remote = any(self.sources[i].store.is_remote for i in positions)
        workers = min(len(positions), _REQUESTS if remote else (os.cpu_count() or 1) if decodes else 1)
        if workers < 2:
            return [named(i) for i in positions]
        with ThreadPoolExecutor(workers) as pool:
            return list(pool.map(named, positions))

    def _texts(self, i: int) -> dict[str, str]:
        return {name: texts[i] for name, texts in self._added.items()}

    # Arrow and pandas

    def _tables(self, *, with_index: bool = False) -> list[Piece]:
        tables = self._each(
            lambda i: read_table(self.sources[i], self._columns, with_index=with_index, lenient=True), decodes=True
        )
        return [
            Piece(frame=table, owner=source.owner, added=self._texts(i))
            for i, (table, source) in enumerate(zip(tables, self.sources, strict=True))
        ]

    def _read_batches(self) -> Any:
        self._each(lambda i: check(self.sources[i]))
        schemas = [self._projected(schema) for schema in self._schemas]
        owners = [source.owner for source in self.sources]
        added = [self._texts(i) for i in range(len(self.sources))]
        return unite_batches(schemas, owners, added, map(self._batches, range(len(self.sources))))

    def _projected(self, schema: Any) -> Any:
        return schema if self._columns is None else with_columns(_select(schema, self._columns), self._columns).schema

    def _batches(self, i: int) -> Iterator[Any]:
        names = present(self._schemas[i], self._columns)
        (reader,) = self._each(lambda i: read_batches(self.sources[i], None if names is None else tuple(names)), [i])
        for batch in reader:
            if self._columns is None:
                yield batch
            else:
                yield from with_columns(arrow().Table.from_batches([batch]), self._columns).to_batches()

    # DuckDB

    def _read_duckdb(self, names: list[str]) -> Any:
        self._each(lambda i: check(self.sources[i]))
        pa = arrow()
        wanted = set(names)
        schemas = [pa.schema([item for item in schema if item.name in wanted]) for schema in self._schemas]
        schema = unite_schemas(schemas, [source.owner for source in self.sources])
        fields = [schema.field(name) for name in names] + [pa.field(name, pa.string()) for name in self._added]
        every = [*names, *self._added]
        self._check_exact({item.name for item in schema if pa.types.is_floating(item.type)})
        check_for_duckdb(f"`{self.sources[0].owner.asset}`", pa.schema(fields), every)
        paths = self._paths()
        if paths and len(set(self._kinds)) == 1 and not self._added and not any(is_pattern(path) for path in paths):
            return scan_with_duckdb(paths, self._schemas[0].names, every)
        return scan_with_duckdb(self._dataset(pa.schema(fields), paths), every, every)

    def _paths(self) -> list[str] | None:
        """Where the files lie on a disk; None where they do not."""
        if any(source.store.is_remote for source in self.sources):
            return None
        return [path for path, _ in self._each(lambda i: self.sources[i].store.native(self.sources[i].path))]

    def _dataset(self, schema: Any, paths: list[str] | None) -> Any:
        """The files as a dataset, which fills in and widens columns, and leaves out files by the added ones."""
        datasets = import_module("pyarrow.dataset")
        file_format = datasets.ParquetFileFormat()
        disk = import_module("pyarrow.fs").LocalFileSystem()

        def fragment(i: int) -> Any:
            expression: Any = None
            for name, text in self._texts(i).items():
                here = datasets.field(name) == arrow().scalar(text, arrow().string())
                expression = here if expression is None else expression & here
            if paths is None:
                return file_format.make_fragment(native_file(self.sources[i]), partition_expression=expression)
            return file_format.make_fragment(paths[i], filesystem=disk, partition_expression=expression)

        return datasets.FileSystemDataset(self._each(fragment), schema, file_format)

    # polars

    def _read_polars(self, *, lazy: bool) -> Any:
        by_path = lazy and bool(self._added)
        held: list[bytes] | None = None
        natives: list[Any] = []
        if self._fit_memory and not by_path:
            held = self._each(lambda i: check(self.sources[i], keep=True))
        else:
            natives = self._each(lambda i: self.sources[i].store.native(self.sources[i].path))
            whole = None in natives  # polars cannot read them by itself
            if whole and by_path:
                return self._read_polars(lazy=False).lazy()
            held = self._each(lambda i: check(self.sources[i], keep=whole) or (self._bytes(i) if whole else None))
            held = held if whole else None
        with polars_reads(self.sources[0]):
            runs = list(self._runs())
            pieces = [
                Piece(frame=self._scan(start, stop, held, natives), owner=self.sources[start].owner)
                for start, stop in runs
            ]
            frame = unite_polars(pieces, last=list(self._added) if by_path else ())
            if self._columns is not None:
                names = [*self._columns, *(self._added if by_path else ())]
                frame = frame.select(polars().selectors.by_name(names))
            if len(runs) > 1:
                self._check_exact({name for name, kind in frame.collect_schema().items() if kind.is_float()})
        return frame if lazy else self._with_texts(self._collect(frame))

    @property
    def _fit_memory(self) -> bool:
        return (
            all(is_small(source) for source in self.sources)
            and sum(source.size or 0 for source in self.sources) <= _HELD_BYTES
        )

    def _check_exact(self, floats: set[str]) -> None:
        for source, pointer in zip(self.sources, self._pointers, strict=True):
            check_exact(source.owner, pointer.columns, floats)

    def _collect(self, frame: Any) -> Any:
        exceptions = polars().exceptions
        try:
            return frame.collect()
        except (exceptions.PanicException, exceptions.ComputeError, OSError) as error:
            for source in self.sources:  # one of them says no as well, and can be named
                read_frame(source, Representation.POLARS, None)
            with polars_reads(self.sources[0]):
                raise error

    def _bytes(self, i: int) -> bytes:
        return self.sources[i].store.read_bytes(self.sources[i].path)

    def _runs(self) -> Iterator[tuple[int, int]]:
        """First and last position of the files that one scan takes: those in a row that are alike."""
        start = 0
        for _, run in itertools.groupby(range(len(self.sources)), self._run_of):
            stop = start + len(list(run))
            yield start, stop
            start = stop

    def _run_of(self, i: int) -> Any:
        kind = self._kinds[i]
        if kind == i:
            # What polars makes of a dictionary is in the metadata of its field.
            kind = [(item.name, item.type, item.metadata) for item in self._schemas[i]]
        return kind, self.sources[i].store.is_remote

    def _scan(self, start: int, stop: int, held: list[bytes] | None, natives: list[Any]) -> Any:
        if held is not None:
            return self._select(scan_parquet([io.BytesIO(data) for data in held[start:stop]], {}))
        pl = polars()
        paths = [path for path, _ in natives[start:stop]]
        options: Mapping[str, Any] = natives[start][1]
        if not self._added:
            return self._select(scan_parquet(paths, options))
        hidden = _unused(self._known + list(self._added))
        scan = scan_parquet(paths, options, include_file_paths=hidden)
        texts = [
            pl.col(hidden).replace_strict(paths, texts[start:stop], return_dtype=pl.String).alias(name)
            for name, texts in self._added.items()
        ]
        return self._select(scan.with_columns(texts).drop(hidden))

    def _select(self, scan: Any) -> Any:
        """A scan with those of the wanted columns that it has, at least one."""
        if self._columns is None:
            return scan
        known: list[str] = scan.collect_schema().names()
        wanted = {*self._columns, *self._added}
        return scan.select(polars().selectors.by_name([name for name in known if name in wanted] or known[:1]))

    def _with_texts(self, frame: Any) -> Any:
        if not self._added:
            return frame
        pl, np = polars(), numpy()
        rows = self._each(lambda i: self._rows(i))
        positions = pl.Series(np.repeat(np.arange(len(rows)), rows))
        return frame.with_columns(
            [pl.Series(name, texts, dtype=pl.String).gather(positions) for name, texts in self._added.items()]
        )

    def _rows(self, i: int) -> int:
        rows = self._pointers[i].rows
        return parquet_file(self.sources[i]).metadata.num_rows if rows is None else rows


def _select(schema: Any, columns: tuple[str, ...]) -> Any:
    wanted = set(columns)
    return arrow().schema([item for item in schema if item.name in wanted], metadata=schema.metadata).empty_table()


def _unused(names: Sequence[str]) -> str:
    name = "path"
    while name in names:
        name += "_"
    return name
