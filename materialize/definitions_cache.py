"""Remembering what definitions amount to, so that most commands need not import the user's code.

While definitions are loaded, everything that they read is noted: source files of the project, other files, folders
that were listed, environment variables. The graph is kept in the home together with a fingerprint of each, and is
good for as long as all of these are what they were. Loading that starts a process or opens a connection is never
remembered. What cannot be noted is the clock, and whether a file exists that was only asked after: a project whose
definitions depend on those says `cache = false`.
"""

import hashlib
import os
import sys
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, cast

import msgspec

import headwater
from headwater.catalog.definitions.definitions import Definitions
from headwater.catalog.definitions.sources import is_installed
from headwater.catalog.lineage.asset_graph import AssetGraph
from headwater.catalog.lineage.node import node_from_json, node_to_json
from headwater.materialize.code_location import Project, load_definitions

#: Changes when what is remembered changes its form.
_FORM = 1
_IMPURE = ("socket.connect", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "sqlite3.connect")
_LISTING = ("os.listdir", "os.scandir", "glob.glob")


@dataclass(slots=True)
class _Reads:
    """What loading definitions has read."""

    files: set[str] = field(default_factory=set[str])
    folders: set[str] = field(default_factory=set[str])
    variables: set[str] = field(default_factory=set[str])
    pure: bool = True


_recording: _Reads | None = None
_hooked: bool = False


class DefinitionsCache:
    """The graph of a project, from memory where that is good."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._path = project.home / "cache" / "definitions.msgpack"
        #: What was loaded, and what that read: a second time nothing is read, as the modules are there.
        self._loaded: tuple[Definitions, _Reads] | None = None

    def graph(self) -> AssetGraph:
        """The project's graph: remembered, or from loading the definitions."""
        remembered = self._read() if self._project.cache else None
        return remembered if remembered is not None else self.load().graph

    def load(self) -> Definitions:
        """Load the definitions for real, once, and remember their graph as soon as there is a home."""
        if self._loaded is None:
            with _record() as reads:
                self._loaded = load_definitions(self._project), reads
        definitions, reads = self._loaded
        if self._project.cache and reads.pure:
            self._write(definitions.graph, reads)
        return definitions

    def _read(self) -> AssetGraph | None:
        try:
            kept = msgspec.msgpack.decode(self._path.read_bytes())
            if kept["key"] != self._key() or not _unchanged(kept):
                return None
            return AssetGraph(node_from_json(node) for node in kept["nodes"])
        except (OSError, msgspec.DecodeError, KeyError, TypeError, ValueError):
            return None

    def _write(self, graph: AssetGraph, reads: _Reads) -> None:
        """Remember `graph`, if the home is there and can be written; a cache is never a reason to fail."""
        sources = {str(file) for file in self._project.files} | set(_project_sources())
        kept = {
            "key": self._key(),
            "files": {path: _file_version(path) for path in sorted(reads.files | sources)},
            "folders": {path: _folder_version(path) for path in sorted(reads.folders | set(_import_folders()))},
            "variables": {name: _variable_version(name) for name in sorted(reads.variables)},
            "nodes": [node_to_json(node) for node in graph],
        }
        temporary = self._path.with_suffix(f".{os.getpid()}")
        try:
            if not self._project.home.is_dir():
                return
            self._path.parent.mkdir(mode=0o700, exist_ok=True)
            temporary.touch(mode=0o600)
            temporary.write_bytes(msgspec.msgpack.encode(kept))
            temporary.replace(self._path)
        except OSError:
            temporary.unlink(missing_ok=True)

    def _key(self) -> list[Any]:
        return [_FORM, headwater.__version__, sys.version, self._project.locator]


def _unchanged(kept: Mapping[str, Any]) -> bool:
    return (
        all(_file_version(path) == version for path, version in kept["files"].items())
        and all(_folder_version(path) == version for path, version in kept["folders"].items())
        and all(_variable_version(name) == version for name, version in kept["variables"].items())
    )


def _file_version(path: str) -> str | None:
    try:
        return hashlib.blake2b(Path(path).read_bytes(), digest_size=16).hexdigest()
    except OSError:
        return None


def _folder_version(path: str) -> str | None:
    """A folder's version: its names, or, for one that packages are installed to, when it last changed."""
    try:
        if is_installed(path + "/x"):
            return str(os.stat(path).st_mtime_ns)
        names = sorted(name for name in os.listdir(path) if name != "__pycache__")
    except OSError:
        return None
    return hashlib.blake2b("\0".join(names).encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


def _variable_version(name: str) -> str | None:
    """A hash of a variable's value, as it may be a secret."""
    value = os.environ.get(name)
    if value is None:
        return None
    return hashlib.blake2b(value.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


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
        path, mode = arguments[0], arguments[1]
        if isinstance(path, str | bytes | os.PathLike) and (mode is None or "r" in str(mode)) and _asked_by_project():
            reads.files.add(os.path.abspath(os.fsdecode(cast(str, path))))
    elif event in _LISTING:
        path = arguments[0] or "."
        if isinstance(path, str | bytes | os.PathLike) and _asked_by_project():
            reads.folders.add(os.path.abspath(os.fsdecode(cast(str, path))))
    elif event in _IMPURE and _asked_by_project():
        reads.pure = False


def _asked_by_project() -> bool:
    """Whether the nearest code on the stack that is neither Python's nor Headwater's belongs to the project."""
    frame: FrameType | None = sys._getframe(2)  # pyright: ignore
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        file = frame.f_code.co_filename
        if not module.startswith("headwater.") and not file.startswith("<"):
            if not is_installed(file):
                return True
            if "-packages" in file:
                return False
        frame = frame.f_back
    return False
