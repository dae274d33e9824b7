"""The operating system as production modules see it: their `os`, `Path` and `/proc`, over a simulated disk.

Only what they call is here. A call that is new to them fails with an AttributeError until it is simulated too.
"""

import errno
import io
import itertools
import os
import posixpath
import stat
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path, PosixPath
from types import SimpleNamespace
from typing import Any, Self

from tests.faults.simulation.disk import Disk, File, Folder, entry, fail
from tests.faults.simulation.scheduler import Process

#: How calls may fail.
CREATE = (errno.ENOSPC, errno.EACCES, errno.EIO)
WRITE = (errno.ENOSPC, errno.EIO)
READ = (errno.EIO, errno.EACCES)
CHANGE = (errno.EIO, errno.EACCES)

#: Told of each call: its name, what it is about, how it may fail. Raises what is to go wrong.
Call = Callable[[str, str, tuple[int, ...]], None]


@dataclass(eq=False)
class _Open:
    node: File | Folder
    path: str


class System:
    """One machine: a disk, the descriptors that are open, the processes there are."""

    def __init__(
        self, disk: Disk, call: Call, *, random_bytes: Callable[[int], bytes], wall: Callable[[], float]
    ) -> None:
        self.disk = disk
        self.call = call
        self.random_bytes = random_bytes
        self.wall = wall
        #: May shorten a write.
        self.shorten: Callable[[int], int] = lambda size: size
        #: Whether `fsync` of a file and of a folder does anything: what mutants switch off.
        self.syncs_files = self.syncs_folders = True
        self.processes: dict[int, Process] = {}
        self.current: Callable[[], Process | None] = lambda: None
        self._open: dict[int, _Open] = {}
        self.os = self._module()

    def _module(self) -> Any:
        """What a module sees as `os`."""
        constants = {name: value for name, value in vars(os).items() if name.isupper() and isinstance(value, int)}
        path = SimpleNamespace(
            **{name: getattr(posixpath, name) for name in ("abspath", "expanduser", "dirname", "basename", "join")},
            lexists=self._lexists,
            isdir=self._isdir,
        )
        return SimpleNamespace(
            **constants,
            PathLike=os.PathLike,
            fspath=os.fspath,
            strerror=os.strerror,
            cpu_count=lambda: 2,
            getuid=os.getuid,
            path=path,
            urandom=self.random_bytes,
            getpid=self.getpid,
            kill=self.kill,
            open=self.open,
            close=self.close,
            write=self.write,
            pread=self.pread,
            fsync=self.fsync,
            fdopen=self.fdopen,
            fstat=self.fstat,
            stat=self.stat,
            access=self.access,
            statvfs=self.statvfs,
            mkdir=self.mkdir,
            rmdir=self.rmdir,
            unlink=self.unlink,
            rename=self.rename,
            listdir=self.listdir,
            scandir=self.scandir,
        )

    def getpid(self) -> int:
        process = self.current()
        return process.pid if process else os.getpid()

    def kill(self, pid: int, number: int) -> None:
        assert number == 0, "nobody sends signals here"
        self.call("kill", str(pid), ())
        if not self.processes.get(pid, _NOBODY).alive:
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))

    def proc(self, path: str) -> Any:
        """What `catalog/processes.py` sees as `Path`: a file of proc(5)."""
        self.call("proc", path, ())
        process = self.processes.get(int(path.split("/")[2]), _NOBODY)
        if not process.alive:
            raise fail(errno.ENOENT, path)
        text = f"{process.pid} (python) {' '.join(['S', *['0'] * 18, str(int(process.began * 100))])} 0\n"
        return SimpleNamespace(read_bytes=text.encode)

    def open(self, path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        creates = bool(flags & os.O_CREAT)
        self.call("open", self._shown(path, dir_fd), CREATE if creates else READ)
        parent, name = self._parent(path, dir_fd)
        if creates:
            if name in parent.names:
                raise fail(errno.EEXIST, path)
            node: File | Folder = File(self.disk.number(), self.wall())
            parent.names[name] = node
        else:
            node = entry(parent, name, path) if name else parent
            if flags & os.O_DIRECTORY and not isinstance(node, Folder):
                raise fail(errno.ENOTDIR, path)
        descriptor = next(_descriptors)
        self._open[descriptor] = _Open(node, self._shown(path, dir_fd))
        return descriptor

    def close(self, descriptor: int) -> None:
        """No switch point: it happens whenever Python has it."""
        self._open.pop(descriptor, None)

    def write(self, descriptor: int, data: memoryview) -> int:
        file = self._file(descriptor)
        self.call("write", self._open[descriptor].path, WRITE)
        size = self.shorten(len(data))
        file.data += data[:size]
        file.modified = self.wall()
        return size

    def pread(self, descriptor: int, size: int, offset: int) -> bytes:
        return bytes(self._file(descriptor).data[offset : offset + size])

    def fsync(self, descriptor: int) -> None:
        found = self._open[descriptor]
        self.call("fsync", found.path, WRITE)
        if self.syncs_files if isinstance(found.node, File) else self.syncs_folders:
            found.node.sync()

    def fdopen(self, descriptor: int, mode: str, buffering: int = -1) -> "_Reader":
        assert mode == "rb"
        return _Reader(self, self._file(descriptor), descriptor)

    def fstat(self, descriptor: int) -> Any:
        return _state(self._open[descriptor].node)

    def stat(self, path: str, *, dir_fd: int | None = None, follow_symlinks: bool = True) -> Any:
        self.call("stat", self._shown(path, dir_fd), READ)
        parent, name = self._parent(path, dir_fd)
        return _state(entry(parent, name, path))

    def access(self, path: str, mode: int) -> bool:
        return self._lexists(path)

    def statvfs(self, path: str) -> Any:
        return SimpleNamespace(f_bavail=0, f_frsize=4096)

    def mkdir(self, path: str, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        self.call("mkdir", self._shown(path, dir_fd), CREATE)
        parent, name = self._parent(path, dir_fd)
        if name in parent.names:
            raise fail(errno.EEXIST, path)
        parent.names[name] = Folder(self.disk.number())

    def rmdir(self, path: str, *, dir_fd: int | None = None) -> None:
        self.call("rmdir", self._shown(path, dir_fd), CHANGE)
        parent, name = self._parent(path, dir_fd)
        found = entry(parent, name, path)
        if not isinstance(found, Folder):
            raise fail(errno.ENOTDIR, path)
        if found.names:
            raise fail(errno.ENOTEMPTY, path)
        del parent.names[name]

    def unlink(self, path: str, *, dir_fd: int | None = None) -> None:
        self.call("unlink", self._shown(path, dir_fd), CHANGE)
        parent, name = self._parent(path, dir_fd)
        if isinstance(entry(parent, name, path), Folder):
            raise fail(errno.EISDIR, path)
        del parent.names[name]

    def rename(self, source: str, target: str, *, src_dir_fd: int | None = None, dst_dir_fd: int | None = None) -> None:
        self.call("rename", self._shown(target, dst_dir_fd), CREATE)
        old, old_name = self._parent(source, src_dir_fd)
        new, new_name = self._parent(target, dst_dir_fd)
        found = entry(old, old_name, source)
        if new is not old and self._is_removed(new):
            raise fail(errno.ENOENT, target)
        new.names[new_name] = found
        del old.names[old_name]

    def listdir(self, place: str | int) -> list[str]:
        self.call("listdir", self._open[place].path if isinstance(place, int) else place, READ)
        found = self._open[place].node if isinstance(place, int) else self.disk.folder(place)
        assert isinstance(found, Folder)
        return sorted(found.names)

    def scandir(self, path: str) -> "_Listing":
        self.call("scandir", path, READ)
        folder = self.disk.folder(path)
        return _Listing([_Entry(name, folder.names[name]) for name in sorted(folder.names)])

    def _parent(self, path: str, dir_fd: int | None) -> tuple[Folder, str]:
        if dir_fd is not None:
            folder = self._open[dir_fd].node
            assert isinstance(folder, Folder) and "/" not in path
            if self._is_removed(folder):
                raise fail(errno.ENOENT, path)
            return folder, path
        above, _, name = path.rstrip("/").rpartition("/")
        return self.disk.folder(above), name

    def _is_removed(self, folder: Folder) -> bool:
        """Whether a folder has no name any more: nothing can be made in one that is held open."""
        seen = [self.disk.root]
        while seen:
            at = seen.pop()
            if at is folder:
                return False
            seen.extend(child for child in at.names.values() if isinstance(child, Folder))
        return True

    def _file(self, descriptor: int) -> File:
        node = self._open[descriptor].node
        if not isinstance(node, File):
            raise fail(errno.EISDIR)
        return node

    def _shown(self, path: str, dir_fd: int | None) -> str:
        return path if dir_fd is None else f"{self._open[dir_fd].path}/{path}"

    def _lexists(self, path: str) -> bool:
        try:
            self.disk.find(path)
        except OSError:
            return False
        return True

    def _isdir(self, path: str) -> bool:
        return self._lexists(path) and isinstance(self.disk.find(path), Folder)

    def path(self, place: str) -> Path:
        """A `pathlib` path on this disk, with the methods that are used of a home."""
        return _path_class(self)(place)


#: No two worlds have the same ones: objects of an earlier one may be collected, and close theirs, at any time.
_descriptors = itertools.count(1000)
_NOBODY = Process(0, "nobody", 0.0, alive=False)


def _state(node: File | Folder) -> Any:
    is_file = isinstance(node, File)
    return SimpleNamespace(
        st_mode=(stat.S_IFREG | 0o600) if is_file else (stat.S_IFDIR | 0o700),
        st_size=len(node.data) if is_file else 0,
        st_mtime=node.modified if is_file else 0.0,
    )


class _Reader(io.RawIOBase):
    def __init__(self, system: System, file: File, descriptor: int) -> None:
        super().__init__()
        self._system = system
        self._data = file.data
        self._descriptor = descriptor
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, len(self._data))[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        self._system.call("read", "", READ)
        view = memoryview(buffer).cast("B")
        chunk = self._data[self._at : self._at + len(view)]
        view[: len(chunk)] = chunk
        self._at += len(chunk)
        return len(chunk)


class _Entry:
    def __init__(self, name: str, node: File | Folder) -> None:
        self.name = name
        self._node = node

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        return isinstance(self._node, Folder)

    def is_file(self, *, follow_symlinks: bool = True) -> bool:
        return isinstance(self._node, File)

    def stat(self, *, follow_symlinks: bool = True) -> Any:
        return _state(self._node)


class _Listing(list[_Entry]):
    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def _path_class(system: System) -> type[Path]:
    calls = system.os

    class SimulatedPath(PosixPath):
        __slots__ = ()

        def exists(self, **_: Any) -> bool:
            system.call("stat", str(self), ())
            return calls.path.lexists(str(self))

        def is_file(self, **_: Any) -> bool:
            return calls.path.lexists(str(self)) and not calls.path.isdir(str(self))

        def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
            try:
                calls.mkdir(str(self), mode)
            except FileExistsError:
                if not exist_ok:
                    raise

        def touch(self, mode: int = 0o666, exist_ok: bool = True) -> None:
            try:
                calls.open(str(self), os.O_CREAT, mode)
            except FileExistsError:
                if not exist_ok:
                    raise

        def unlink(self, missing_ok: bool = False) -> None:
            calls.unlink(str(self))

        def rmdir(self) -> None:
            calls.rmdir(str(self))

        def replace(self, target: Any) -> Any:
            calls.rename(str(self), str(target))
            return target

        def write_text(self, data: str, *_: Any, **__: Any) -> int:
            self.touch()
            found = system.disk.find(str(self))
            assert isinstance(found, File)
            found.data[:] = b""
            system.call("write", str(self), WRITE)
            found.data[:] = data.encode()
            return len(data)

        def read_text(self, *_: Any, **__: Any) -> str:
            system.call("read", str(self), READ)
            found = system.disk.find(str(self))
            if not isinstance(found, File):
                raise fail(errno.EISDIR, self)
            return found.data.decode()

        def iterdir(self) -> Generator[Any]:
            yield from [self / name for name in calls.listdir(str(self))]

    return SimulatedPath
