"""Writing to an object store so that nothing is seen before it is published.

Up to `SMALL_BYTES` a file waits in memory and `publish` puts it in one request that must create it. A larger one
streams while it is written, as the parts of an upload that `publish` completes: parts that were not completed are
no object, so neither an exception nor a killed process leaves anything to see. An exception aborts the upload
too. (What a killed process began is invisible storage: let the bucket's lifecycle abort such uploads after a day.)
"""

import contextlib
import queue
import threading
from collections import deque
from collections.abc import Iterator
from typing import Protocol

from headwater.catalog.errors import StorageError
from headwater.io.store import TAIL_BYTES, Sink, StagedFile

#: Files up to this size are written by one request, and read by one.
SMALL_BYTES = 16 * 1024 * 1024
#: A part of a larger upload; S3 takes 10,000 of them, so 160 GB a file.
PART_BYTES = 16 * 1024 * 1024
#: How many parts may be under way.
PARTS_AT_ONCE = 4


class Bucket(Protocol):
    """What writing needs of an object store."""

    def uri(self, path: str) -> str:
        """The address of a path."""
        ...

    def put(self, path: str, data: bytes) -> None:
        """Create a small object."""
        ...

    def put_parts(self, path: str, parts: Iterator[bytes | bytearray]) -> None:
        """Create a large object of parts as they come."""
        ...

    def size(self, path: str) -> int:
        """How many bytes an object has."""
        ...

    def delete(self, path: str) -> None:
        """Remove an object."""
        ...


class ObjectSink(Sink):
    """A stream into memory, and once it is large into an upload."""

    def __init__(self, store: Bucket, path: str) -> None:
        super().__init__()
        self._staged = _ObjectFile(store, path)

    def _store(self, chunk: bytes | bytearray) -> None:
        self._staged.add(chunk)

    def _finish(self, size: int, checksum: str) -> StagedFile:
        self._staged.size, self._staged.checksum = size, checksum
        return self._staged

    def _abort(self) -> None:
        self._staged.discard()


class _ObjectFile(StagedFile):
    """A small file in memory, or a large one on its way."""

    def __init__(self, store: Bucket, path: str) -> None:
        self.uri = store.uri(path)
        self.size = 0
        self.checksum = ""
        self._store = store
        self._path = path
        #: All of a small file; the last of a large one.
        self._chunks: deque[bytes | bytearray] = deque()
        self._held = 0
        self._upload: _Upload | None = None
        self._published = False

    def add(self, chunk: bytes | bytearray) -> None:
        """Keep or send the next bytes."""
        if self._upload is None and self._held + len(chunk) > SMALL_BYTES:
            self._upload = _Upload(self._store, self._path)
            for earlier in self._chunks:
                self._upload.send(earlier)
        if self._upload is not None:
            self._upload.send(chunk)
        self._chunks.append(chunk)
        self._held += len(chunk)
        while self._held - len(self._chunks[0]) >= max(TAIL_BYTES, SMALL_BYTES):
            self._held -= len(self._chunks.popleft())

    def tail(self, size: int) -> bytes:
        found: list[bytes | bytearray] = []
        missing = size
        for chunk in reversed(self._chunks):
            if missing <= 0:
                break
            found.append(chunk[-missing:])
            missing -= len(chunk)
        return b"".join(reversed(found))

    def publish(self) -> None:
        try:
            if self._upload is None:
                self._store.put(self._path, b"".join(self._chunks))
            else:
                self._upload.complete()
                self._upload = None
            self._published = True
        except StorageError:
            if not self._arrived():
                self.discard()
                raise
        self._chunks.clear()

    def discard(self) -> None:
        self._chunks.clear()
        with contextlib.suppress(Exception):
            if self._upload is not None:
                self._upload.abort()
            elif self._published:
                self._store.delete(self._path)

    def _arrived(self) -> bool:
        """Whether a large upload was completed though its answer was lost: its key is nobody else's."""
        try:
            return self._upload is not None and self._store.size(self._path) == self.size
        except (StorageError, FileNotFoundError):
            return False


class _Abandoned(Exception):
    """Raised inside of an upload to make obstore abort it."""


class _Upload:
    """An upload that runs beside its writer, fed through a short queue."""

    def __init__(self, store: Bucket, path: str) -> None:
        self._queue: queue.Queue[bytes | bytearray | _Abandoned | None] = queue.Queue(4)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(store, path), name=f"upload {path}", daemon=True)
        self._thread.start()

    def send(self, chunk: bytes | bytearray | _Abandoned | None) -> None:
        """Hand over the next bytes, waiting while the network is behind. Raises what the upload raised."""
        while self._thread.is_alive():
            with contextlib.suppress(queue.Full):
                self._queue.put(chunk, timeout=0.2)
                return
        raise self._error or StorageError("An upload ended early.")

    def complete(self) -> None:
        """Wait until the object is there. Raises `StorageError`."""
        self.send(None)
        self._thread.join()
        if self._error is not None:
            raise self._error

    def abort(self) -> None:
        """End the upload so that nothing remains of it."""
        with contextlib.suppress(BaseException):
            self.send(_Abandoned())
        self._thread.join()

    def _run(self, store: Bucket, path: str) -> None:
        try:
            store.put_parts(path, self._parts())
        except BaseException as error:
            self._error = error

    def _parts(self) -> Iterator[bytes | bytearray]:
        while (chunk := self._queue.get()) is not None:
            if isinstance(chunk, _Abandoned):
                raise chunk
            yield chunk
