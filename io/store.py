"""Where bytes lie: one protocol, a local disk and object stores behind it.

A file is written through a `Sink`: bytes go in, `finish` gives a `StagedFile` that nobody else can see, and
its `publish` makes it durable under its final name. An exception before that leaves nothing behind.

    with store.create("orders/0198….parquet", run_id=run_id) as sink:
        sink.write(data)
        staged = sink.finish()
    staged.publish()

Paths are relative to the store's root, with `/` between segments, and come from `headwater.io.location`.
"""

import io
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Protocol, Self, cast
from urllib.parse import unquote, urlsplit

from headwater.catalog.errors import ConfigError, StorageError
from headwater.catalog.printable import printable_line
from headwater.io.engines import blake3

#: What is kept of a file's end while it streams away, for whoever wants to read its footer.
TAIL_BYTES = 16 * 1024 * 1024

#: Small writes are gathered up to this many bytes.
CHUNK_BYTES = 1024 * 1024
#: A write of this many bytes is taken as it is.
_WHOLE_BYTES = 64 * 1024

#: The object stores that a root may name, by URL scheme.
REMOTE_SCHEMES = ("s3", "gs", "az", "memory")


class StagedFile(ABC):
    """A file that is written whole and that nobody sees yet."""

    #: Where it will lie.
    uri: str
    #: In bytes.
    size: int
    #: BLAKE3 of its bytes, in hex.
    checksum: str

    @abstractmethod
    def tail(self, size: int) -> bytes:
        """Its last `size` bytes; fewer where it is shorter, or streamed away more than `TAIL_BYTES` ago."""

    @abstractmethod
    def publish(self) -> None:
        """Make it durable under its final name. Thread-safe, once.

        Raises `DiskFullError`, `ReadOnlyStorageError`, `CredentialsError` or `StorageError`; then nothing of it
        is left.
        """

    @abstractmethod
    def discard(self) -> None:
        """Remove it, staged or published. Never raises."""


class Sink(io.RawIOBase):
    """A binary stream into a file that does not exist yet.

    Leaving its `with` block without `finish`, above all by an exception, removes every trace. A failure to
    write is kept in `failure`, because encoders wrap what their stream raises; leaving the block raises it again.
    """

    def __init__(self) -> None:
        super().__init__()
        self.failure: StorageError | None = None
        self.finished = False
        self._hasher = blake3()()
        self._position = 0
        self._buffer = bytearray()

    def writable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """How many bytes were written."""
        return self._position

    def write(self, data: Any, /) -> int:
        """Take the next bytes, of anything with a buffer. Raises `StorageError`."""
        if isinstance(data, bytes) and len(data) >= _WHOLE_BYTES:  # nobody can change it, so it needs no copy
            self._drain()
            self._position += len(data)
            self._keep(data)
            return len(data)
        before = len(self._buffer)
        self._buffer += data
        size = len(self._buffer) - before
        self._position += size
        if len(self._buffer) >= CHUNK_BYTES:
            self._drain()
        return size

    def finish(self) -> StagedFile:
        """End the file. Raises `StorageError`."""
        self._drain()
        staged = self._finish(self._position, self._hasher.hexdigest())
        self.finished = True
        return staged

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.finished:
            self._abort()
        self.close()
        if error is not None and self.failure is not None and error is not self.failure:
            raise self.failure from error

    def _drain(self) -> None:
        chunk, self._buffer = self._buffer, bytearray()
        if chunk:
            self._keep(chunk)

    def _keep(self, chunk: bytes | bytearray) -> None:
        try:
            self._store(chunk)
        except StorageError as error:
            self.failure = error
            raise
        self._hasher.update(chunk)

    @abstractmethod
    def _store(self, chunk: bytes | bytearray) -> None:
        """Keep the next bytes; the caller does not touch them again."""

    @abstractmethod
    def _finish(self, size: int, checksum: str) -> StagedFile:
        """No more bytes come."""

    @abstractmethod
    def _abort(self) -> None:
        """Remove every trace. Never raises."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """What a listing says of a file."""

    #: Below the root.
    path: str
    size: int
    modified: datetime


class Store(Protocol):
    """A root below which files are written once, read and deleted."""

    @property
    def root(self) -> str:
        """The root as an address, without credentials."""
        ...

    @property
    def is_remote(self) -> bool:
        """Whether bytes go over a network."""
        ...

    def uri(self, path: str) -> str:
        """The address of a path."""
        ...

    def path_of(self, uri: str) -> str | None:
        """The path of an address below the root; None for any other."""
        ...

    def create(self, path: str, *, run_id: str) -> Sink:
        """A stream into a new file at `path`, invisible until it is published."""
        ...

    def open(self, path: str, size: int | None = None) -> BinaryIO:
        """A seekable binary reader; `size`, where known, saves asking for it.

        Raises `FileNotFoundError` where nothing lies, `StorageError` otherwise.
        """
        ...

    def read_bytes(self, path: str) -> bytes:
        """All bytes of a file. Raises as `open`."""
        ...

    def size(self, path: str) -> int:
        """How many bytes a file has. Raises as `open`."""
        ...

    def exists(self, path: str) -> bool:
        """Whether a file lies there."""
        ...

    def delete(self, path: str) -> None:
        """Remove a file; one that is not there is fine."""
        ...

    def check_writable(self, folder: str) -> None:
        """Raises `ReadOnlyStorageError` where it is known without trying that nothing can be written there."""
        ...

    def sweep(self, folder: str, version_id: str, run_id: str) -> None:
        """Remove what is left of a version that was never committed, staged or published."""
        ...

    def native(self, path: str) -> tuple[str, Mapping[str, Any]] | None:
        """What polars needs to scan the file by itself: its address and keyword arguments; None if it cannot."""
        ...

    def files(self) -> Iterator[StoredFile]:
        """Every file below the root, staged ones too, in no order; for who looks for what nobody refers to."""
        ...

    def uploads(self) -> list[StoredFile] | None:
        """What was begun to be written and has not appeared, where that cannot be seen as a file; None: unknown."""
        ...


def store_for(root: str | os.PathLike[str], options: Mapping[str, Any] | None = None) -> Store:
    """The store that a root names: a folder, a `file://` address, `s3://bucket/prefix`, `gs://…`, `az://…`.

    `options` configure an object store (see `headwater.io.object_options`). `memory://name` is kept in this
    process. Raises `ConfigError` for an address or option that is none.
    """
    text = os.fspath(root)
    scheme, separator, _ = text.partition("://")
    if not separator or scheme == "file":
        from headwater.io.local import LocalStore

        return LocalStore(_file_path(text) if separator else text)
    if scheme not in REMOTE_SCHEMES:
        raise ConfigError(
            f"No store for '{printable_line(text, 120)}'.",
            remedy=f"Roots are folders or start with {', '.join(f'{name}://' for name in REMOTE_SCHEMES)}.",
        )
    from headwater.io.object_store import ObjectStore

    return ObjectStore(text, options or {})


def locate(uri: str, options: Mapping[str, Any] | None = None) -> tuple[Store, str]:
    """The store and the path below it of a file's address."""
    if uri.startswith("file://"):
        path = Path(_file_path(uri))
        return store_for(path.parent), path.name
    head, _, name = uri.rpartition("/")
    return store_for(head, options), name


@lru_cache(maxsize=256)
def file_uri(folder: str) -> str:
    """The `file://` address of an absolute folder, without a slash at its end."""
    return Path(folder).as_uri().rstrip("/")


def _file_path(uri: str) -> str:
    parts = urlsplit(uri)
    if parts.netloc not in ("", "localhost") or not parts.path:
        raise ConfigError(
            f"'{printable_line(uri, 120)}' names another machine.", remedy="Use file:///absolute/path, or a plain path."
        )
    return unquote(parts.path)


def checksum_of(reader: BinaryIO) -> str:
    """BLAKE3 of everything that a reader gives, in hex."""
    hasher = blake3()()
    while chunk := reader.read(1024 * 1024):
        hasher.update(chunk)
    return cast(str, hasher.hexdigest())
