"""A store in a bucket, through obstore: S3, Google Cloud Storage, Azure.

How files are written is in `headwater.io.object_sink`. obstore retries; how often and how long is an option.
Nothing depends on listing but the search for files that nobody refers to.
"""

import contextlib
import io
import threading
from collections.abc import Generator, Iterator, Mapping
from importlib import import_module
from typing import Any, BinaryIO, cast

from headwater.catalog.errors import ConfigError, CredentialsError, StorageError
from headwater.catalog.printable import printable_line
from headwater.io.location import EXTENSIONS, valid_name
from headwater.io.object_options import parse_options
from headwater.io.object_sink import PART_BYTES, PARTS_AT_ONCE, SMALL_BYTES, ObjectSink
from headwater.io.store import StoredFile

_REFUSED = ("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "AccessDenied", "Forbidden")
_memory: dict[str, Any] = {}
_lock = threading.Lock()


class ObjectStore:
    """Objects below a prefix of a bucket."""

    is_remote = True

    def __init__(self, root: str, options: Mapping[str, Any]) -> None:
        scheme, _, rest = root.partition("://")
        self._bucket, _, self._prefix = rest.rstrip("/").partition("/")
        if "@" in self._bucket:
            raise ConfigError(
                f"A root of {scheme}:// holds credentials.",
                remedy="Give them as storage_options or in the environment.",
            )
        if not self._bucket:
            raise ConfigError(
                f"'{printable_line(root, 120)}' names no bucket.", remedy=f"Write {scheme}://bucket/prefix."
            )
        self._scheme = scheme
        self._options = parse_options(scheme, options)
        self._connected: Any = None

    def __repr__(self) -> str:
        return f"ObjectStore({self.root!r})"

    @property
    def root(self) -> str:
        """`scheme://bucket/prefix`."""
        return self._address(self._prefix)

    def uri(self, path: str) -> str:
        """`scheme://bucket/prefix/path`, with nothing encoded, which is how tools of object stores write it."""
        return self._address(self._key(path))

    def path_of(self, uri: str) -> str | None:
        """The path of an address below the root; None for any other."""
        prefix = f"{self.root}/"
        return uri[len(prefix) :] if uri.startswith(prefix) else None

    def create(self, path: str, *, run_id: str) -> ObjectSink:
        """A stream into a new object."""
        return ObjectSink(self, path)

    def open(self, path: str, size: int | None = None) -> BinaryIO:
        """A seekable reader: of memory for a small object, by ranges otherwise."""
        if size is None or size <= SMALL_BYTES:
            with self.translated(path):
                found = _obstore().get(self.client, self._key(path))
                size = cast(int, found.meta["size"])
                if size <= SMALL_BYTES:
                    return io.BytesIO(found.bytes().to_bytes())
        return cast(BinaryIO, io.BufferedReader(_Ranges(self, path, size), 256 * 1024))

    def read_bytes(self, path: str) -> bytes:
        """All bytes of an object."""
        with self.translated(path):
            return cast(bytes, _obstore().get(self.client, self._key(path)).bytes().to_bytes())

    def read_range(self, path: str, start: int, length: int) -> memoryview:
        """`length` bytes of an object from `start` on."""
        with self.translated(path):
            return memoryview(_obstore().get_range(self.client, self._key(path), start=start, length=length))

    def size(self, path: str) -> int:
        """How many bytes an object has."""
        with self.translated(path):
            return cast(int, _obstore().head(self.client, self._key(path))["size"])

    def exists(self, path: str) -> bool:
        """Whether the object is there."""
        try:
            self.size(path)
        except FileNotFoundError:
            return False
        return True

    def delete(self, path: str) -> None:
        """Remove an object; one that is not there is fine."""
        with contextlib.suppress(FileNotFoundError), self.translated(path):
            _obstore().delete(self.client, self._key(path))

    def check_writable(self, folder: str) -> None:
        """Only a request would tell."""

    def sweep(self, folder: str, version_id: str, run_id: str) -> None:
        """Remove what was published of a version that was never committed; nothing is staged where it can be seen."""
        for extension in EXTENSIONS:
            self.delete(f"{folder}/{valid_name(version_id)}.{extension}")

    def native(self, path: str) -> tuple[str, Mapping[str, Any]] | None:
        """The object's address, and the options and credentials for polars."""
        return None if self._scheme == "memory" else (self.uri(path), self._options.for_polars())

    def files(self) -> Iterator[StoredFile]:
        """Every object below the root, a request a thousand."""
        with self.translated(""):
            for page in _obstore().list(self.client, prefix=self._prefix or None, chunk_size=1000):
                for found in page:
                    yield StoredFile(self._below(found["path"]), found["size"], found["last_modified"])

    def uploads(self) -> list[StoredFile] | None:
        """Uploads of S3's that were neither completed nor aborted; obstore does not list them, boto3 does."""
        client = self._options.boto3_client()
        if client is None:
            return None
        try:
            pages = client.get_paginator("list_multipart_uploads").paginate(Bucket=self._bucket, Prefix=self._prefix)
            found = [upload for page in pages for upload in page.get("Uploads", ())]
        except Exception as error:
            raise self._error(error, "") from None
        return [StoredFile(self._below(upload["Key"]), 0, upload["Initiated"]) for upload in found]

    def put(self, path: str, data: bytes) -> None:
        """Create a small object. One that is there already and holds the same bytes is what we want: an answer
        was lost and the request repeated."""
        obstore = _obstore()
        key = self._key(path)
        with self.translated(path, writing=True):
            try:
                obstore.put(self.client, key, data, mode="create", use_multipart=False)
            except import_module("obstore.exceptions").AlreadyExistsError:
                if obstore.get(self.client, key).bytes().to_bytes() != data:
                    raise StorageError(
                        f"'{self.uri(path)}' exists already.", remedy="A version is written only once."
                    ) from None

    def replace(self, path: str, data: bytes) -> None:
        """Create a small object, in place of one that is there already."""
        with self.translated(path, writing=True):
            _obstore().put(self.client, self._key(path), data, mode="overwrite")

    def paths(self, folder: str) -> list[str]:
        """The paths of the objects below a folder, sorted."""
        above = f"{self._prefix}/" if self._prefix else ""
        with self.translated(folder):
            pages = _obstore().list(self.client, self._key(folder))
            found = [cast(str, one["path"]) for page in pages for one in page]
        return sorted(path.removeprefix(above) for path in found)

    def put_parts(self, path: str, parts: Iterator[bytes | bytearray]) -> None:
        """Create a large object of parts as they come; when `parts` raises, the upload is aborted."""
        with self.translated(path, writing=True):
            _obstore().put(self.client, self._key(path), parts, chunk_size=PART_BYTES, max_concurrency=PARTS_AT_ONCE)

    @property
    def client(self) -> Any:
        """obstore's store, connected when it is first used. Raises `CredentialsError`."""
        with _lock:
            if self._connected is None:
                self._connected = self._connect()
            return self._connected

    @contextlib.contextmanager
    def translated(self, path: str, *, writing: bool = False) -> Generator[None]:
        """Errors of obstore as ours; when reading, a missing object stays a `FileNotFoundError`."""
        exceptions = import_module("obstore.exceptions")
        try:
            yield
        except FileNotFoundError as error:
            if not writing and "NoSuchBucket" not in str(error):
                raise FileNotFoundError(f"no object {self.uri(path)}") from None
            raise StorageError(
                f"The bucket of '{self.uri(path)}' does not exist.", remedy="Create the bucket, or correct the root."
            ) from None
        except exceptions.UnknownConfigurationKeyError as error:
            raise ConfigError(
                f"{self._scheme}:// has a storage option that obstore does not know: {error}.",
                remedy="The options are listed in headwater.io.object_options and in obstore's documentation.",
            ) from None
        except (exceptions.BaseError, ValueError, OSError) as error:
            raise self._error(error, path) from None

    def _error(self, error: Exception, path: str) -> StorageError:
        exceptions = import_module("obstore.exceptions")
        text = self._options.redact(str(error).split("\n\nDebug source", 1)[0])
        place = self.uri(path)
        denied = isinstance(error, exceptions.PermissionDeniedError | exceptions.UnauthenticatedError)
        if denied or any(code in text for code in _REFUSED) or "169.254.169.254" in text:
            return CredentialsError(
                f"'{place}' is refused to us: {printable_line(text, 400)}",
                remedy="Check the access key, its expiry and its rights on the bucket.",
            )
        return StorageError(
            f"'{place}': {printable_line(text, 400)}", remedy="Check that the endpoint can be reached, then try again."
        )

    def _connect(self) -> Any:
        stores = import_module("obstore.store")
        if self._scheme == "memory":
            return _memory.setdefault(self._bucket, stores.MemoryStore())
        kind = {"s3": stores.S3Store, "gs": stores.GCSStore, "az": stores.AzureStore}[self._scheme]
        return kind(self._bucket, **self._options.for_obstore())

    def _below(self, key: str) -> str:
        return key[len(self._prefix) + 1 :] if self._prefix else key

    def _key(self, path: str) -> str:
        return f"{self._prefix}/{path}" if self._prefix else path

    def _address(self, key: str) -> str:
        return f"{self._scheme}://{self._bucket}/{key}".rstrip("/")


class _Ranges(io.RawIOBase):
    """A large object, a request a read."""

    def __init__(self, store: ObjectStore, path: str, size: int) -> None:
        super().__init__()
        self._store = store
        self._path = path
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any, /) -> int:
        target = memoryview(buffer).cast("B")
        length = min(len(target), self._size - self._position)
        if length <= 0:
            return 0
        found = self._store.read_range(self._path, self._position, length)
        target[: len(found)] = found
        self._position += len(found)
        return len(found)


def _obstore() -> Any:
    return import_module("obstore")
