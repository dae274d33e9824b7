"""The default IO manager: frames as Parquet files, plain values as JSON files, a file a version."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headwater.catalog.errors import ConfigError, MissingDataError, StorageError, UnstorableValueError
from headwater.catalog.keys import AssetKey
from headwater.catalog.printable import with_article
from headwater.catalog.records import Column, Pointer
from headwater.io.base import InputContext, IOManager, OutputContext, PartitionsInputContext, Staged
from headwater.io.data_version import json_version
from headwater.io.json_codec import canonical, encode_value
from headwater.io.location import absolute_root, folder_path, moved_path, version_path
from headwater.io.parquet_file import COMPRESSIONS, Encoding, describe, read_footer
from headwater.io.pointers import Owner, read_stored, verify_stored
from headwater.io.representation import Representation, class_name, of_annotation, of_value
from headwater.io.schema_drift import POLICIES, SchemaDrift, compare, enforce
from headwater.io.store import StagedFile, Store, locate, store_for

if TYPE_CHECKING:
    from headwater.io.frames import ParquetSource


class FileIOManager(IOManager):
    """Keeps data frames of polars, pandas, Arrow and DuckDB as Parquet, and JSON-able values as JSON.

    Every version gets a file of its own (see `headwater.io.location`), which appears whole or not at all. What
    would not come back equal is refused; nothing is ever pickled.

    `root` is a folder or the address of an object store (see `headwater.io.store`); without one it is the folder
    `data` of the project's home. A relative folder starts from the folder of the project's settings while its
    definitions are imported, and otherwise, in a notebook say, from the current one. `storage_options` configure the
    object store. `compression` is zstd, snappy, lz4, gzip, brotli or none. `schema_drift` says which changes of a
    frame's columns are taken while the code is the same (see `headwater.io.schema_drift`). Raises `ConfigError` for
    settings that are none.
    """

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        *,
        storage_options: Mapping[str, Any] | None = None,
        compression: str = "zstd",
        schema_drift: SchemaDrift = "additive",
    ) -> None:
        if compression not in COMPRESSIONS:
            raise ConfigError(f"No compression '{compression}'.", remedy=f"Choose one of {', '.join(COMPRESSIONS)}.")
        if schema_drift not in POLICIES:
            raise ConfigError(f"No schema_drift '{schema_drift}'.", remedy=f"Choose one of {', '.join(POLICIES)}.")
        self._root = None if root is None else os.fspath(root)
        self._options = dict(storage_options or {})
        self._compression = compression
        self._drift: SchemaDrift = schema_drift
        self._home: Path | None = None
        self._store = None if self._root is None else store_for(absolute_root(self._root), self._options)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({'' if self._root is None else repr(self._root)})"

    def bind(self, home: Path) -> None:
        """Learn where the project's home is, which the default root lies in."""
        self._home = Path(home).absolute()
        if self._root is None:
            self._store = store_for(self._home / "data")

    @property
    def store(self) -> Store:
        """Where the files lie. Raises `StorageError` as long as nobody said where home is."""
        if self._store is None:
            raise StorageError(
                f"{self!r} has no root yet.", remedy="Give it one, or call bind(home) before it is used."
            )
        return self._store

    def handle_output(self, context: OutputContext, obj: Any) -> Pointer:
        """Store `obj` durably and say where. Raises as `stage` and `publish` do."""
        staged = self.stage(context, obj)
        staged.publish()
        return staged.pointer

    def stage(self, context: OutputContext, obj: Any) -> "StagedOutput":
        """Write `obj` so that nobody sees it before it is published.

        Raises `UnstorableValueError` for what would not come back equal, `SchemaDriftError`, `StorageError`, and
        what a lazy frame or a stream raises while it is read. Nothing is left behind then.
        """
        form = of_value(obj)
        declared = of_annotation(context.annotation)
        if declared.representation.is_frame and not form.is_frame and not (obj is None and declared.optional):
            returned = "None" if obj is None else f"a {class_name(obj)}"
            raise UnstorableValueError(
                f"{_owner(context)} returned {returned}, and declares a {declared.representation}.",
                remedy="Return the frame; or declare `… | None` if there may be none."
                if obj is None
                else "Return a frame, of any kind; or declare what is returned.",
            )
        if form.is_frame:
            return self.stage_frame(context, obj, form)
        if form is Representation.VALUE:
            return self.stage_value(context, obj)
        raise UnstorableValueError(
            f"{_owner(context)} returned {with_article(class_name(obj))}, which {type(self).__name__} does not keep.",
            remedy="Return a frame of polars, pandas, Arrow or DuckDB, or JSON-able data; "
            "PickleIOManager keeps any Python object.",
        )

    def stage_frame(self, context: OutputContext, frame: Any, form: Representation) -> "StagedOutput":
        """Write a frame as Parquet."""
        from headwater.io.frames import write_frame

        def approve(columns: Mapping[str, str]) -> None:
            change = compare(context.previous, columns)
            if not context.code_changed:
                enforce(change, self._drift, _owner(context))
            if change:
                context.added_metadata["schema_change"] = change.to_json()

        encoding = Encoding(compression=self._compression, provenance=provenance(context), approve=approve)
        path = version_path(context.asset_key, context.partition_key, context.version_id, "parquet")
        with self.store.create(path, run_id=context.run_id) as sink:
            written = write_frame(sink, frame, encoding)
            file = sink.finish()
        try:
            columns = describe(written, read_footer(file))
        except BaseException:
            file.discard()
            raise
        notes = written.notes
        for note in notes:
            context.log.warning("%s: %s", _owner(context), note)
        pointer = _pointer(file, "parquet", form.value, rows=written.rows, columns=columns)
        return StagedOutput(file, pointer, written.data_version, notes)

    def stage_value(self, context: OutputContext, value: Any) -> "StagedOutput":
        """Write a plain value as JSON."""
        data = encode_value(value)
        path = version_path(context.asset_key, context.partition_key, context.version_id, "json")
        with self.store.create(path, run_id=context.run_id) as sink:
            sink.write(data)
            file = sink.finish()
        pointer = _pointer(file, "json", class_name(value))
        return StagedOutput(file, pointer, json_version(canonical(data)))

    def load_input(self, context: InputContext) -> Any:
        """The stored value in the representation that the annotation asks for.

        Raises `MissingDataError`, `ChecksumError`, `UserCodeError`, `StorageError`.
        """

        def read(store: Store, path: str) -> Any:
            return read_stored(
                store, path, context.pointer, annotation=context.annotation, columns=context.columns, owner=owner
            )

        owner = owner_of(context)
        return self.read_where_it_lies(context, read)

    def load_united(self, context: PartitionsInputContext, representation: Representation) -> Any:
        """One frame of several partitions, in one scan where all of them are Parquet."""
        if any(partition.pointer.format != "parquet" for partition in context.partitions):
            return super().load_united(context, representation)
        from headwater.io.partition_files import PartitionFiles

        files = PartitionFiles(
            [self._source(context.of_partition(partition, None)) for partition in context.partitions],
            [partition.pointer for partition in context.partitions],
            columns=context.columns,
            added=context.partition_columns,
        )
        try:
            return files.read(representation)
        except MissingDataError:
            moved = [
                self._source(context.of_partition(partition, None), moved=True) for partition in context.partitions
            ]
            if moved == files.sources:
                raise
            return files.at(moved).read(representation)

    def verify(self, context: InputContext) -> None:
        """Read every byte of a version and compare it with its pointer.

        Raises `MissingDataError`, `ChecksumError`.
        """
        owner = owner_of(context)
        self.read_where_it_lies(context, lambda store, path: verify_stored(store, path, context.pointer, owner=owner))

    def delete(self, pointer: Pointer) -> None:
        """Remove the file of a version. Idempotent."""
        store, path = self._place(pointer.uri)
        store.delete(path)

    def folder_of(self, asset_key: AssetKey, partition_key: str | None) -> str:
        """The address of the folder that holds every version of the cell."""
        return self.store.uri(folder_path(asset_key, partition_key))

    def check_writable(self, asset_key: AssetKey, partition_key: str | None) -> None:
        """Raises `ReadOnlyStorageError` where this user may not write the cell's folder."""
        self.store.check_writable(folder_path(asset_key, partition_key))

    def sweep(self, folder: str, version_id: str, run_id: str) -> None:
        """Remove what is left of a version that was never committed, staged or published."""
        store, path = self._place(f"{folder}/{version_id}")
        store.sweep(path.rpartition("/")[0], version_id, run_id)

    def fingerprint(self) -> Any:
        """The class, and the root unless it is the default."""
        settings = {"class": f"{type(self).__module__}.{type(self).__qualname__}"}
        if self._root is not None:
            settings["root"] = self._root
        return settings

    def _source(self, context: InputContext, *, moved: bool = False) -> "ParquetSource":
        from headwater.io.frames import ParquetSource

        store, path = self._place(context.pointer.uri)
        if moved and not store.exists(path) and (here := self._moved(context)) is not None:
            store, path = self.store, here
        size, checksum = context.pointer.bytes, context.pointer.checksum
        return ParquetSource(store=store, path=path, size=size, checksum=checksum, owner=owner_of(context))

    def _place(self, uri: str) -> tuple[Store, str]:
        path = self.store.path_of(uri)
        return locate(uri, self._options) if path is None else (self.store, path)

    def read_where_it_lies(self, context: InputContext, read: Callable[[Store, str], Any]) -> Any:
        """What `read` makes of a version's file, which may lie below another root than it was written to."""
        try:
            return read(*self._place(context.pointer.uri))
        except MissingDataError:
            moved = self._moved(context)
            if moved is None:
                raise
            return read(self.store, moved)

    def _moved(self, context: InputContext) -> str | None:
        """Where a version lies whose root was moved since: in the same place below the present root."""
        here = moved_path(context.pointer.uri, context.asset_key, context.version_id)
        return here if here is not None and self.store.exists(here) else None


class StagedOutput(Staged):
    """A file that is written and not yet seen."""

    def __init__(
        self, file: StagedFile, pointer: Pointer, data_version: str | None, notes: tuple[str, ...] = ()
    ) -> None:
        self._file = file
        self.pointer = pointer
        self.data_version = data_version
        self.notes = notes

    def publish(self) -> None:
        """Make it durable at its place."""
        self._file.publish()

    def discard(self) -> None:
        """Remove every trace of it."""
        self._file.discard()


def provenance(context: OutputContext) -> dict[str, str]:
    """What a file says of itself in its footer."""
    entries = {
        "asset": str(context.asset_key),
        "version": context.version_id,
        "run": context.run_id,
        "step": context.step_key,
        **context.provenance,
    }
    if context.partition_key is not None:
        entries["partition"] = context.partition_key
    return {f"headwater.{name}": _encodable(value) for name, value in entries.items()}


def _encodable(text: str) -> str:
    """`text` without the half surrogates that only a partition key could hold."""
    return text.encode(errors="backslashreplace").decode()


def owner_of(context: InputContext) -> Owner:
    """A version as errors name it."""
    return Owner(context.asset_key, context.partition_key, context.version_id)


def _owner(context: OutputContext) -> str:
    partition = "" if context.partition_key is None else f" [{context.partition_key}]"
    return f"{context.asset_key}{partition}"


def _pointer(
    file: StagedFile,
    format_name: str,
    representation: str,
    *,
    rows: int | None = None,
    columns: tuple[Column, ...] = (),
) -> Pointer:
    return Pointer(
        uri=file.uri,
        format=format_name,
        representation=representation,
        rows=rows,
        bytes=file.size,
        checksum=file.checksum,
        columns=columns,
    )
