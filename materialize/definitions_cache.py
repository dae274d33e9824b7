"""Remembering what definitions amount to, so that most commands need not import the user's code.

While definitions are loaded, everything that they read is noted: source files of the project, other files, folders
that were listed, environment variables. The graph is kept in the home together with a fingerprint of each, and is
good for as long as all of these are what they were. What is never remembered, and what cannot be noted, is in
docs/decisions/0005-definitions-cache.md.
"""

import contextlib
import hashlib
import os
import stat
import sys
import time
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeGuard

import msgspec

import headwater
from headwater.catalog.definitions.installed import is_installed
from headwater.catalog.errors import HeadwaterError
from headwater.catalog.lineage.asset_graph import AssetGraph
from headwater.catalog.lineage.node import nodes_from_bytes, nodes_to_bytes
from headwater.materialize.project import Project

if TYPE_CHECKING:
    from headwater.catalog.definitions.definitions import Definitions

#: Changes when what is remembered changes its form.
_FORM = 4
_DIGEST_BYTES = 16
#: What changed so shortly before loading may have been read as it was before: some file systems count in 2 s.
_SETTLED_NS = 2_000_000_000
_IMPURE = (
    *("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty"),
    *("socket.connect", "socket.sendto", "socket.getaddrinfo", "sqlite3.connect"),
)
_LISTING = ("os.listdir", "os.scandir")
#: Files there are different each time they are read.
_NEVER_THE_SAME = ("/dev/", "/proc/", "/sys/")


@dataclass(slots=True)
class _Reads:
    """What loading definitions has read, each as it was right before."""

    files: dict[str, bytes | None] = field(default_factory=dict[str, bytes | None])
    folders: dict[str, bytes | None] = field(default_factory=dict[str, bytes | None])
    #: Those of the folders in which modules are looked for.
    searched: set[str] = field(default_factory=set[str])
    variables: set[str] = field(default_factory=set[str])
    #: Where relative paths started from; None where there were none.
    working_folder: str | None = None
    pure: bool = True
    #: The environment before: the next process begins with that one, whatever loading makes of it.
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    began: int = field(default_factory=time.time_ns)

    def note_file(self, name: str) -> None:
        path = self._absolute(name)
        if path in self.files:
            return
        self.files[path] = None  # looking at it is observed too
        if _is_stream(path):
            self.pure = False
        else:
            self.files[path] = _file_version(path)

    def note_folder(self, name: str) -> None:
        path = self._absolute(name)
        if path not in self.folders:
            self.folders[path] = None
            self.folders[path] = _folder_version(path)

    def _absolute(self, path: str) -> str:
        if not os.path.isabs(path):
            self.working_folder = os.getcwd()
        return os.path.abspath(path)


_recording: _Reads | None = None
_hooked: bool = False


class DefinitionsCache:
    """The definitions of a project, loaded once at most, and its graph, from memory where that is good."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._path = project.home / "cache" / "definitions.msgpack"
        #: What was loaded and what that read: a second time nothing is read, as the modules are there.
        self._loaded: tuple[Definitions, _Reads | None] | None = None

    def graph(self) -> AssetGraph:
        """The project's graph: remembered, or from loading the definitions."""
        remembered = self._read() if self._project.cache and self._loaded is None else None
        return remembered if remembered is not None else self.definitions().graph

    def definitions(self) -> "Definitions":
        """The definitions, loaded for real, once; their graph is remembered as soon as there is a home."""
        if self._loaded is None:
            self._loaded = self._load()
        definitions, reads = self._loaded
        if reads is not None and reads.pure:
            self._write(definitions.graph, reads)
        return definitions

    def _load(self) -> "tuple[Definitions, _Reads | None]":
        from headwater.materialize.code_location import load_definitions

        if not self._project.cache:
            return load_definitions(self._project), None
        with _record() as reads:
            # Python may have listed these before: then it asks nobody whether there is a module.
            for folder in (str(self._project.root), *sys.path):
                if os.path.isdir(folder) and not is_installed(folder + "/x"):
                    reads.note_folder(folder)
            reads.searched.update(reads.folders)
            return load_definitions(self._project), reads

    def sources(self) -> set[str]:
        """The files, and folders that were listed, that the definitions were made from, as far as that was noted.

        Where they did not load, what was read until then.
        """
        found = {*map(str, self._project.files), *_project_sources()}
        reads = self._loaded[1] if self._loaded is not None else None
        return found if reads is None else found | reads.files.keys() | (reads.folders.keys() - reads.searched)

    def _read(self) -> AssetGraph | None:
        try:
            data = self._path.read_bytes()
            digest, content = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
            if _digest(content) != digest:
                return None
            kept = msgspec.msgpack.decode(content)
            if kept["key"] != self._key() or not _unchanged(kept):
                return None
            return AssetGraph(nodes_from_bytes(kept["nodes"]))
        except (OSError, HeadwaterError, LookupError, TypeError, ValueError):
            return None

    def _write(self, graph: AssetGraph, reads: _Reads) -> None:
        """Remember `graph`, if the home is there and can be written; a cache is never a reason to fail."""
        # What importing modules reads goes unobserved: it may be compiled code, made from a source that has changed
        # since. So are packages. They are told by their times.
        unobserved = {*map(str, self._project.files), *_project_sources(), *_import_folders()}
        if any(_changed_since(path, reads.began - _SETTLED_NS) for path in unobserved) or self._is_installed():
            return
        for file in (*self._project.files, *_project_sources()):
            reads.note_file(str(file))
        for folder in _import_folders():
            reads.note_folder(folder)
        kept = {
            "key": self._key(),
            "files": reads.files,
            "folders": reads.folders,
            "variables": {name: _variable_version(reads.environment, name) for name in reads.variables},
            "working_folder": reads.working_folder,
            "nodes": nodes_to_bytes(graph),
        }
        temporary = self._path.with_suffix(f".{os.getpid()}")
        try:
            if not self._project.home.is_dir():
                return
            content = msgspec.msgpack.encode(kept)
            self._path.parent.mkdir(mode=0o700, exist_ok=True)
            temporary.touch(mode=0o600)
            temporary.write_bytes(_digest(content) + content)
            temporary.replace(self._path)
        except (OSError, UnicodeError):  # the latter for names that are no text
            with contextlib.suppress(OSError):
                temporary.unlink()

    def _is_installed(self) -> bool:
        """Whether what defines the assets is an installed package: what such a one reads is not noted."""
        files = (getattr(sys.modules.get(name), "__file__", None) for name in self._project.modules)
        return any(file is None or is_installed(file) for file in files)

    def _key(self) -> list[Any]:
        python = [sys.version, sys.prefix, os.environ.get("PYTHONPATH")]
        return [_FORM, headwater.__version__, python, self._project.locator]


def _unchanged(kept: Mapping[str, Any]) -> bool:
    return (
        kept["working_folder"] in (None, os.getcwd())
        and all(_file_version(path) == version for path, version in kept["files"].items())
        and all(_folder_version(path) == version for path, version in kept["folders"].items())
        and all(_variable_version(os.environ, name) == version for name, version in kept["variables"].items())
    )


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).digest()


def _file_version(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, _hash).digest()
    except OSError:
        return None


def _hash() -> hashlib.blake2b:
    return hashlib.blake2b(digest_size=_DIGEST_BYTES)


def _is_stream(path: str) -> bool:
    """Whether a file gives what it holds only once: a pipe, a terminal, a socket."""
    try:
        kind = os.stat(path).st_mode
    except OSError:
        return False
    return not stat.S_ISREG(kind) and not stat.S_ISDIR(kind)


def _folder_version(path: str) -> bytes | None:
    """A folder's version: its names, or, for one that packages are installed to, when it last changed."""
    try:
        if is_installed(path + "/x"):
            return str(os.stat(path).st_mtime_ns).encode()
        names = sorted(name for name in os.listdir(path) if name != "__pycache__")
    except OSError:
        return None
    return _digest("\0".join(names).encode("utf-8", "surrogateescape"))


def _variable_version(environment: Mapping[str, str], name: str) -> bytes | None:
    """A hash of a variable's value, as it may be a secret."""
    value = environment.get(name)
    return None if value is None else _digest(value.encode("utf-8", "surrogateescape"))


def _changed_since(path: str, moment: int) -> bool:
    try:
        return os.stat(path).st_mtime_ns >= moment
    except OSError:
        return False


def _project_sources() -> Iterable[str]:
    """The source files of every loaded module of the user's."""
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and name.partition(".")[0] not in ("headwater", "__main__") and not is_installed(file):
            yield file


def _import_folders() -> Iterable[str]:
    """The folders that packages are installed to: installing one changes the folder."""
    return (path for path in sys.path if path and is_installed(path + "/x") and os.path.isdir(path))


@contextmanager
def _record() -> Generator[_Reads]:
    """Note what the project's code reads in this block."""
    global _recording, _hooked
    if not _hooked:
        sys.addaudithook(_audit)
        _hooked = True
    reads = _Reads()
    _recording = reads
    environ_class = os.environ.__class__
    os.environ.__class__ = _RecordingEnviron
    try:
        yield reads
    finally:
        os.environ.__class__ = environ_class
        _recording = None


class _RecordingEnviron(os._Environ):  # type: ignore[type-arg]  # pyright: ignore
    """`os.environ`, noting which variables the project's code looks at."""

    def __getitem__(self, key: str) -> str:
        if _recording is not None and _asked_by_project():
            _recording.variables.add(key)
        return super().__getitem__(key)  # pyright: ignore

    def __iter__(self) -> Any:
        if _recording is not None and _asked_by_project():
            _recording.variables.update(str(key) for key in super().__iter__())  # pyright: ignore
        return super().__iter__()  # pyright: ignore


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    reads = _recording
    if reads is None:
        return
    if event == "open":
        path, _, flags = arguments
        if _is_path(path) and flags & os.O_ACCMODE != os.O_WRONLY and not flags & os.O_TRUNC:
            file = os.fsdecode(path)
            # Compiled code follows from its source, which is noted as that of a loaded module.
            if not file.startswith(_NEVER_THE_SAME) and not file.endswith(".pyc") and _asked_by_project():
                reads.note_file(file)
    elif event in _LISTING:
        path = arguments[0] or "."
        if _is_path(path) and _asked_by_project():
            reads.note_folder(os.fsdecode(path))
    elif event in _IMPURE and _asked_by_project():
        reads.pure = False


def _is_path(argument: object) -> TypeGuard[str | bytes | os.PathLike[str]]:
    """Whether what is opened has a name; it may be a number."""
    return isinstance(argument, str | bytes | os.PathLike)


def _asked_by_project() -> bool:
    """Whether something is read for the project, and not by a package for itself while it is imported."""
    in_package = False
    frame: FrameType | None = sys._getframe(2)  # pyright: ignore
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith("<"):
            if in_package and file.startswith("<frozen importlib"):
                return False
        elif not str(frame.f_globals.get("__name__", "")).startswith("headwater."):
            if not is_installed(file):
                return True
            in_package = in_package or "-packages" in file
        frame = frame.f_back
    return not in_package
