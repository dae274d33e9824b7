"""A store on a local disk: written apart, synced, renamed.

A file grows as `<root>/.staging/<run id>/<name>`; `publish` syncs it, renames it to its final place and syncs
that folder, and the folder's parents when they are new. Nothing is ever written over.

Paths are walked folder by folder with open handles and O_NOFOLLOW, so a symbolic link planted below the root
leads nowhere, at the time of the check as at the time of use.
"""

import contextlib
import errno
import os
import stat
import threading
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, BinaryIO
from urllib.parse import quote, unquote

from headwater.catalog.errors import DiskFullError, ReadOnlyStorageError, StorageError
from headwater.catalog.printable import printable_line
from headwater.io.location import valid_name
from headwater.io.store import Sink, StagedFile, StoredFile, file_uri

STAGING = ".staging"

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
#: Without O_NONBLOCK, opening a planted FIFO would wait for ever.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_READ_ONLY = {errno.EROFS, errno.EACCES, errno.EPERM}


class _Folder:
    """An open handle on a folder, closed with its last user."""

    __slots__ = ("handle",)

    def __init__(self, handle: int) -> None:
        self.handle = handle

    def __enter__(self) -> int:
        return self.handle

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        handle, self.handle = self.handle, -1
        if handle >= 0:
            os.close(handle)

    def __del__(self) -> None:
        with contextlib.suppress(OSError):
            self.close()


class _Translated:
    """Turns errors of the operating system into ours; when only reading, a missing file stays one."""

    __slots__ = ("_path", "_size", "_store")

    def __init__(self, store: "LocalStore", path: str, size: int | None) -> None:
        self._store = store
        self._path = path
        self._size = size

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, OSError) and not (self._size is None and isinstance(error, FileNotFoundError)):
            raise self._store.explain(error, self._path, self._size or 0) from error


class LocalStore:
    """Files below a folder, which is created when something is written. Only its owner may read them."""

    is_remote = False

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = os.path.abspath(os.path.expanduser(folder))
        self._lock = threading.Lock()
        #: Folders that are known to survive a power cut, by path below the root.
        self._durable: set[str] = set()
        #: The staging folder of the run that wrote last.
        self._staging: tuple[str, _Folder] | None = None

    def __repr__(self) -> str:
        return f"LocalStore({self.folder!r})"

    def __reduce__(self) -> tuple[type["LocalStore"], tuple[str]]:
        return LocalStore, (self.folder,)

    @property
    def root(self) -> str:
        """The folder as a `file://` address."""
        return file_uri(self.folder)

    def uri(self, path: str) -> str:
        """The `file://` address of a path."""
        return f"{file_uri(self.folder)}/{quote(path, safe='/=~')}"

    def path_of(self, uri: str) -> str | None:
        """The path of an address below the root; None for any other."""
        prefix = f"{file_uri(self.folder)}/"
        return unquote(uri[len(prefix) :]) if uri.startswith(prefix) else None

    def create(self, path: str, *, run_id: str) -> "LocalSink":
        """A stream into a new file, staged under the run's identifier."""
        name = f"{path.rpartition('/')[2]}.{os.urandom(4).hex()}"
        with self.translated(path, 0):
            try:
                folder = self._staging_of(run_id)
                descriptor = os.open(name, _CREATE, 0o600, dir_fd=folder.handle)
            except FileNotFoundError:  # somebody tidied the empty folder away
                self._staging = None
                folder = self._staging_of(run_id)
                descriptor = os.open(name, _CREATE, 0o600, dir_fd=folder.handle)
        return LocalSink(_LocalFile(self, path, folder, name, descriptor))

    def open(self, path: str, size: int | None = None) -> BinaryIO:
        """A seekable reader of a regular file inside of the root."""
        folder, _, name = path.rpartition("/")
        with self.translated(path), self.opened(folder) as parent:
            descriptor = os.open(name, _READ, dir_fd=parent)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise StorageError(f"'{self._shown(path)}' is not a file.", remedy="Something else was put in its place.")
        return os.fdopen(descriptor, "rb", buffering=0)

    def read_bytes(self, path: str) -> bytes:
        """All bytes of a file."""
        with self.open(path) as file:
            return file.read()

    def size(self, path: str) -> int:
        """How many bytes a file has."""
        with self.open(path) as file:
            return os.fstat(file.fileno()).st_size

    def exists(self, path: str) -> bool:
        """Whether a file lies there."""
        try:
            self.open(path).close()
        except FileNotFoundError:
            return False
        return True

    def delete(self, path: str) -> None:
        """Remove a file; one that is not there is fine."""
        folder, _, name = path.rpartition("/")
        with self.translated(path), contextlib.suppress(FileNotFoundError), self.opened(folder) as parent:
            os.unlink(name, dir_fd=parent)

    def check_writable(self, folder: str) -> None:
        """Ask whether a file could be staged, and then published in `folder`. Raises `ReadOnlyStorageError`."""
        for path in (f"{self.folder}/{STAGING}", f"{self.folder}/{folder}"):
            while not os.path.lexists(path):
                path = os.path.dirname(path)
            if os.path.isdir(path) and not os.access(path, os.W_OK | os.X_OK):
                raise self.explain(PermissionError(errno.EACCES, os.strerror(errno.EACCES)), folder, 0)

    def sweep(self, folder: str, version_id: str, run_id: str) -> None:
        """Remove what is left of a version that was never committed, staged or published."""
        valid_name(version_id)
        staged = f"{STAGING}/{valid_name(run_id)}"
        with self.translated(folder):
            for place in (staged, folder):
                with contextlib.suppress(FileNotFoundError), self.opened(place) as parent:
                    for name in os.listdir(parent):
                        if name.startswith(f"{version_id}."):
                            os.unlink(name, dir_fd=parent)
            with contextlib.suppress(OSError), self.opened(STAGING) as parent:
                os.rmdir(run_id, dir_fd=parent)

    def native(self, path: str) -> tuple[str, Mapping[str, Any]]:
        """The file's own path, once it is sure to be a regular file inside of the root."""
        self.open(path).close()
        return f"{self.folder}/{path}", {}

    def files(self) -> Iterator[StoredFile]:
        """Every file below the root; links lead nowhere. A folder that goes away meanwhile has none."""
        folders = [""]
        while folders:
            folder = folders.pop()
            try:
                with self.translated(folder), os.scandir(f"{self.folder}/{folder}") as entries:
                    for entry in entries:
                        path = f"{folder}{entry.name}"
                        if entry.is_dir(follow_symlinks=False):
                            folders.append(f"{path}/")
                        elif entry.is_file(follow_symlinks=False):
                            with contextlib.suppress(FileNotFoundError):
                                state = entry.stat(follow_symlinks=False)
                                yield StoredFile(path, state.st_size, datetime.fromtimestamp(state.st_mtime, UTC))
            except FileNotFoundError:
                continue

    def uploads(self) -> list[StoredFile]:
        """None: what is staged is a file."""
        return []

    def opened(self, folder: str, *, create: bool = False, durable: bool = False) -> _Folder:
        """A handle on a folder below the root, walked to without following links.

        With `create`, missing folders are made; with `durable`, they and whoever leads to them are synced too.
        """
        if not create:
            return _Folder(self._walk(folder))
        if not os.path.isdir(self.folder):
            self._create_root()
        current = _Folder(os.open(self.folder, _FOLDER & ~os.O_NOFOLLOW))
        walked = ""
        for segment in folder.split("/") if folder else ():
            _check_segment(segment, folder)
            walked = f"{walked}/{segment}"
            with current as parent:
                try:
                    child = os.open(segment, _FOLDER, dir_fd=parent)
                except FileNotFoundError:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(segment, 0o700, dir_fd=parent)
                    child = os.open(segment, _FOLDER, dir_fd=parent)
                current = _Folder(child)
                if durable and walked not in self._durable:
                    os.fsync(parent)
                    with self._lock:
                        self._durable.add(walked)
        return current

    def _walk(self, folder: str) -> int:
        """A handle on a folder that is there, as quickly as it goes: who reads many files comes here for each."""
        current = os.open(self.folder, _FOLDER & ~os.O_NOFOLLOW)
        try:
            for segment in folder.split("/") if folder else ():
                _check_segment(segment, folder)
                child = os.open(segment, _FOLDER, dir_fd=current)
                os.close(current)
                current = child
        except BaseException:
            os.close(current)
            raise
        return current

    def translated(self, path: str, size: int | None = None) -> _Translated:
        """A block whose errors become ours; `size` says how many bytes were written, None that it only reads."""
        return _Translated(self, path, size)

    def explain(self, error: OSError, path: str, size: int) -> StorageError:
        """An error of the operating system as ours."""
        place = self._shown(path)
        if error.errno in _FULL:
            free = "too few"
            with contextlib.suppress(OSError):
                state = os.statvfs(self.folder)
                free = f"{state.f_bavail * state.f_frsize:,}"
            return DiskFullError(
                f"'{place}' could not be written: {os.strerror(error.errno)}, after {size:,} bytes; {free} are free.",
                remedy="Free some space, or give the IO manager a root on another disk. Nothing was changed.",
            )
        if error.errno in _READ_ONLY:
            return ReadOnlyStorageError(
                f"'{place}' cannot be reached or written: {os.strerror(error.errno)}.",
                remedy="Let this user write below the root, or give the IO manager another one.",
            )
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            return StorageError(
                f"The path of '{place}' leads through a symbolic link or a file.",
                remedy="Links below the root are not followed: remove it, or give the IO manager another root.",
            )
        if isinstance(error, FileNotFoundError):
            return StorageError(
                f"'{place}' could not be written: its staged file or its root is gone.",
                remedy="Another process removed it, perhaps because it took this run for dead: materialize again.",
            )
        return StorageError(f"'{place}': {error.strerror or error}.")

    def _staging_of(self, run_id: str) -> _Folder:
        staging = self._staging
        if staging is None or staging[0] != run_id:
            with contextlib.suppress(OSError), self.opened(STAGING) as parent:
                for name in os.listdir(parent):  # folders of runs that are over
                    with contextlib.suppress(OSError):
                        os.rmdir(name, dir_fd=parent)
            staging = run_id, self.opened(f"{STAGING}/{valid_name(run_id)}", create=True)
            self._staging = staging
        return staging[1]

    def _create_root(self) -> None:
        missing = [self.folder]
        while not os.path.isdir(parent := os.path.dirname(missing[-1])):
            missing.append(parent)
        for folder in reversed(missing):
            with contextlib.suppress(FileExistsError):
                os.mkdir(folder, 0o700)
            descriptor = os.open(os.path.dirname(folder), os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def _shown(self, path: str) -> str:
        return printable_line(f"{self.folder}/{path}", 300)


def _check_segment(segment: str, path: str) -> None:
    if segment in ("", ".", ".."):
        raise StorageError(f"'{printable_line(path, 120)}' is not a path below a root.")


class LocalSink(Sink):
    """A stream into a staged file."""

    def __init__(self, staged: "_LocalFile") -> None:
        super().__init__()
        self._staged = staged

    def _store(self, chunk: bytes | bytearray) -> None:
        self._staged.write(chunk, self._position)

    def _finish(self, size: int, checksum: str) -> StagedFile:
        self._staged.size, self._staged.checksum = size, checksum
        return self._staged

    def _abort(self) -> None:
        self._staged.discard()


class _LocalFile(StagedFile):
    """A staged file and the handle that wrote it, which its sync goes through."""

    def __init__(self, store: LocalStore, path: str, folder: _Folder, name: str, descriptor: int) -> None:
        self.uri = store.uri(path)
        self.size = 0
        self.checksum = ""
        self._descriptor = descriptor
        self._store = store
        self._path = path
        #: Where it is staged, until it is published or gone.
        self._staged: tuple[_Folder, str] | None = folder, name
        self._published = False

    def write(self, chunk: bytes | bytearray, size: int) -> None:
        """Append bytes to what will be a file of at least `size`. Raises `StorageError`."""
        rest = memoryview(chunk)
        with self._store.translated(self._path, size):
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]

    def tail(self, size: int) -> bytes:
        size = min(self.size, size)
        return os.pread(self._descriptor, size, self.size - size)

    def publish(self) -> None:
        folder, _, name = self._path.rpartition("/")
        try:
            with self._store.translated(self._path, self.size):
                if self._staged is None:
                    raise StorageError(f"'{self.uri}' was published or discarded before.")
                source, staged = self._staged
                os.fsync(self._descriptor)
                with self._store.opened(folder, create=True, durable=True) as target:
                    if _lies_in(target, name):
                        raise StorageError(f"'{self.uri}' exists already.", remedy="A version is written only once.")
                    os.rename(staged, name, src_dir_fd=source.handle, dst_dir_fd=target)
                    self._staged, self._published = None, True
                    os.fsync(target)
        except BaseException:
            self.discard()
            raise
        self._close()

    def discard(self) -> None:
        self._close()
        with contextlib.suppress(OSError, StorageError):
            if self._staged is not None:
                (folder, name), self._staged = self._staged, None
                os.unlink(name, dir_fd=folder.handle)
            elif self._published:
                self._published = False
                self._store.delete(self._path)

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def __del__(self) -> None:
        self._close()


def _lies_in(folder: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True
