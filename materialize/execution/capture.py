"""Capturing what steps print, at the level of file descriptors: C libraries and child processes included.

Descriptors 1 and 2 point straight at append-only files for the length of a run: nothing is pumped, a full pipe
cannot block a step, and what was written survives `kill -9`. A step's share is a range of bytes of those files.
Steps that run side by side cannot be told apart by descriptor: there, what Python prints goes to a file of the
step's own, and only what C code prints stays in the shared one.
"""

import contextlib
import ctypes
import errno
import io
import os
import sys
import threading
from collections.abc import Callable, Generator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO, cast

from headwater.catalog.errors import DiskFullError, ReadOnlyStorageError, StorageError
from headwater.catalog.records import LogSlice
from headwater.io.compute_logs import MAX_STEP_BYTES, STREAMS
from headwater.io.log_index import IndexWriter
from headwater.materialize.execution.redaction import Redaction

_FLAGS = os.O_CREAT | os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0)
#: Seconds between two looks at how much a running step has printed.
_LOOK = 0.2
#: Seconds between two words on what of the output holds no secret.
_CLEAN = 1.0


class OutputCapture:
    """Captures stdout and stderr while it is entered. One at a time in a process; a second one captures nothing.

    Several processes may write into one `folder`: the names of a process's files begin with its `prefix`.
    """

    _active = threading.Lock()

    def __init__(
        self,
        folder: Path | None,
        *,
        prefix: str = "",
        side_by_side: bool = False,
        redaction: Redaction | None = None,
    ) -> None:
        """With a `folder` of None, what is printed is kept nowhere."""
        self._folder = folder
        self._prefix = prefix
        self._index = None if folder is None else IndexWriter(folder)
        self._redaction = redaction or Redaction([])
        self._side_by_side = side_by_side
        self._own: dict[str, _Stream] = {}
        self._entered = False
        self._done = threading.Event()

    def __enter__(self) -> "OutputCapture":
        self._entered = self._active.acquire(blocking=False)
        if self._entered:
            try:
                self._begin()
            except OSError as error:
                for stream in self._own.values():
                    stream.close()
                self._active.release()
                self._entered = False
                raise _explain(error, self._folder) from error
        return self

    def _begin(self) -> None:
        if self._folder is None or self._index is None:
            for number, name in enumerate(STREAMS, 1):
                self._own[name] = _Stream(name, number, None, self._prefix, self._redaction)
            return
        # Each by itself, as the folders that `parents` makes have the mode that the umask leaves.
        self._folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder.mkdir(exist_ok=True, mode=0o700)
        for number, name in enumerate(STREAMS, 1):
            self._own[name] = _Stream(name, number, self._folder, self._prefix, self._redaction)
        if self._redaction:
            self._index.guard()
        threading.Thread(target=self._bound, name="headwater-logs", daemon=True).start()

    def __exit__(self, *_: object) -> None:
        if self._entered:
            self._done.set()
            for stream in self._own.values():
                stream.close()
            self._active.release()
        if self._folder is not None and self._index is not None:
            with contextlib.suppress(OSError):
                if self._prefix:  # other processes go on
                    self._index.close()
                else:
                    self._index.over()
                    self._folder.rmdir()  # when nothing was printed

    @contextlib.contextmanager
    def step(self, number: int, name: str = "", attempt: int = 1) -> Generator[list[LogSlice]]:
        """Capture an attempt at one step, the plan's `number`th, called `name`.

        The list yielded holds its slices once the block has ended.
        """
        slices: list[LogSlice] = []
        index = self._index
        if not self._entered or index is None:
            yield slices
            return
        places = [stream.begin(number if self._side_by_side else None) for stream in self._own.values()]
        with contextlib.suppress(OSError):  # a full disk is told where it costs more than a place in an index
            for file, start in places:
                index.began(name, attempt, file, start)
        try:
            yield slices
        finally:
            for stream in self._own.values():
                slices.extend(replace(one, attempt=attempt) for one in stream.end())
            ends = {one.file: one.offset + one.size for one in slices}
            with contextlib.suppress(OSError):
                for file, start in places:
                    index.ended(name, attempt, file, start, ends.get(file, start))

    def terminal(self) -> TextIO:
        """A stream that still goes where stderr went before."""
        stream = self._own.get("stderr")
        return cast(TextIO, stream.outside) if stream else sys.stderr

    def salvage(self, prefix: str, since: Mapping[str, int], step: str | None, attempt: int = 1) -> list[LogSlice]:
        """What another process with this `prefix` printed behind `since` of each stream, and died before it said so.

        It is the output of an attempt at `step`, or of none.
        """
        slices: list[LogSlice] = []
        if self._folder is None or self._index is None:
            return slices
        for stream in STREAMS:
            path, start = self._folder / f"{prefix}{stream}", since.get(stream, 0)
            try:
                file = os.open(path, _FLAGS & ~os.O_CREAT)
            except OSError:  # it did not get so far
                continue
            try:
                size = _shorten(file, start)
            finally:
                os.close(file)
            if size > 0:
                self._redaction.blot(path, start, size)
                slices.append(LogSlice(stream=stream, file=path.name, offset=start, size=size, attempt=attempt))
            elif not start:
                path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            for one in slices:
                if step is not None:
                    self._index.ended(step, attempt, one.file, one.offset, one.offset + one.size)
        return slices

    def _bound(self) -> None:
        index = self._index
        assert index is not None  # without a folder, nothing is looked through
        looks = 0
        while not self._done.wait(_LOOK):
            looks += 1
            for stream in self._own.values():
                stream.bound()
                if self._redaction and looks % round(_CLEAN / _LOOK) == 0:
                    with contextlib.suppress(OSError):
                        stream.clean(index.clean)


def _explain(error: OSError, folder: Path | None) -> StorageError:
    kind = DiskFullError if error.errno in (errno.ENOSPC, errno.EDQUOT) else ReadOnlyStorageError
    return kind(
        f"What steps print cannot be kept in {folder}: {error.strerror}.",
        remedy="Free some space, or let this user write there. No step was run.",
    )


class _Stream:
    """One of the two streams: its descriptor, the Python object over it, and the files that they write to."""

    def __init__(self, name: str, number: int, folder: Path | None, prefix: str, redaction: Redaction) -> None:
        self.name = name
        self._redaction = redaction
        self._number = number
        self._folder = folder or Path(os.devnull).parent
        #: How far each file that is written to was looked through for secrets.
        self._looked: dict[Path, int] = {}
        #: Held while a file is cut or looked through: what lies where must not change meanwhile.
        self._lock = threading.Lock()
        self._python: TextIO = getattr(sys, name)
        with contextlib.suppress(ValueError, OSError):
            self._python.flush()
        self._path = Path(os.devnull) if folder is None else folder / f"{prefix}{name}"
        self._file = os.open(self._path, _FLAGS if folder else os.O_WRONLY | os.O_CLOEXEC, 0o600)
        self._saved = os.dup(number)
        self.outside = _Outside(self._python, self._saved)
        os.dup2(self._file, number)
        self._steps = threading.local()
        self._start: int | None = None
        setattr(sys, name, _Router(self._file, self._steps))

    def begin(self, own: int | None) -> tuple[str, int]:
        """A step starts; with a number, in a file of its own. Returns which file, and where in it."""
        if own is None:
            self._flush()
            self._start = os.fstat(self._file).st_size
            return self._path.name, self._start
        path = self._steps.path = self._folder / f"{own}.{self.name}"
        self._steps.file = None
        self._steps.start = start = path.stat().st_size if path.exists() else 0  # behind an earlier attempt's
        self._looked[path] = start
        return path.name, start

    def end(self) -> list[LogSlice]:
        """The step that began in this thread is over: what it wrote."""
        own: Path | None = getattr(self._steps, "path", None)
        if own is not None:
            file: int | None = self._steps.file
            self._steps.path = self._steps.file = None
            with self._lock:
                self._looked.pop(own, None)
                if file is None:
                    return []
                start = cast(int, self._steps.start)
                size = _shorten(file, start)
                os.close(file)
                self._redaction.blot(own, start, size)
            return [LogSlice(stream=self.name, file=own.name, offset=start, size=size)]
        self._flush()
        start, self._start = self._start, None
        if start is None:
            return []
        with self._lock:
            size = _shorten(self._file, start)
            self._redaction.blot(self._path, start, size)
            self._looked[self._path] = start + size
        return [LogSlice(stream=self.name, file=self._path.name, offset=start, size=size)] if size else []

    def bound(self) -> None:
        """Give back the disk space of the middle of what a running step has printed too much of."""
        start = self._start
        if start is None:
            return
        half = MAX_STEP_BYTES // 2
        size = os.fstat(self._file).st_size - start
        if size > 2 * MAX_STEP_BYTES:
            _punch(self._file, start + half, size - 2 * half)

    def clean(self, say: Callable[[str, int], None]) -> None:
        """Make secrets in what was printed lately unreadable, and say how far each file holds none from now on.

        What is at the very end may be the beginning of one.
        """
        for path in (self._path, *list(self._looked)):
            with self._lock, contextlib.suppress(FileNotFoundError):  # of a step that has printed nothing yet
                if path != self._path and path not in self._looked:
                    continue  # it is over
                size, before = path.stat().st_size, self._looked.get(path, 0)
                until = size - self._redaction.overlap
                if until > before:
                    self._redaction.blot(path, before, size - before)
                    self._looked[path] = until
                    say(path.name, until)

    def close(self) -> None:
        """Everything as it was."""
        self._flush()
        setattr(sys, self.name, self._python)
        os.dup2(self._saved, self._number)
        self.outside.detach_descriptor()
        os.close(self._saved)
        size = os.fstat(self._file).st_size
        os.close(self._file)
        if self._path == Path(os.devnull):
            return
        if size:
            self._redaction.blot(self._path, 0, size)  # what resources printed when they were set up and torn down
        else:
            self._path.unlink(missing_ok=True)

    def _flush(self) -> None:
        # Whoever kept the old object, such as a logging handler, may have text in its buffer.
        with contextlib.suppress(ValueError, OSError):
            self._python.flush()


class _Router(io.TextIOBase):
    """What `sys.stdout` is during a run: unbuffered, and never fails for a character."""

    def __init__(self, shared: int, steps: threading.local) -> None:
        super().__init__()
        self._shared = shared
        self._steps = steps

    @property
    def encoding(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        return "utf-8"

    @property
    def buffer(self) -> io.RawIOBase:
        """A binary view of the same."""
        return _RawRouter(self)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor()

    def reconfigure(self, **_: Any) -> None:
        """Accepted, as user code may ask for another buffering; there is none."""

    def write(self, text: str, /) -> int:
        self.write_bytes(text.encode("utf-8", "backslashreplace"))
        return len(text)

    def write_bytes(self, data: bytes) -> None:
        """Write all of `data`."""
        view = memoryview(data)
        descriptor = self._descriptor()
        while view:
            view = view[os.write(descriptor, view) :]

    def _descriptor(self) -> int:
        path: Path | None = getattr(self._steps, "path", None)
        if path is None:
            return self._shared
        if self._steps.file is None:
            self._steps.file = os.open(path, _FLAGS, 0o600)
        return cast(int, self._steps.file)


class _RawRouter(io.RawIOBase):
    def __init__(self, router: _Router) -> None:
        super().__init__()
        self._router = router

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._router.fileno()

    def write(self, data: Any, /) -> int:
        taken = bytes(data)
        self._router.write_bytes(taken)
        return len(taken)


class _Outside(io.TextIOBase):
    """A stream's old destination, for what is said during a run and is nobody's output."""

    def __init__(self, python: TextIO, descriptor: int) -> None:
        super().__init__()
        self._python = python
        # Only an object over the real descriptor has to be bypassed: a notebook's or a test's goes elsewhere anyway.
        try:
            self._descriptor: int | None = descriptor if python.fileno() in (1, 2) else None
        except (OSError, ValueError, AttributeError):
            self._descriptor = None

    @property
    def encoding(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self._python.encoding or "utf-8"

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return self._descriptor is not None and os.isatty(self._descriptor)

    def fileno(self) -> int:
        if self._descriptor is None:
            return self._python.fileno()
        return self._descriptor

    def write(self, text: str, /) -> int:
        if self._descriptor is None:
            return self._python.write(text)
        view = memoryview(text.encode(self.encoding, "backslashreplace"))
        while view:
            view = view[os.write(self._descriptor, view) :]
        return len(text)

    def detach_descriptor(self) -> None:
        """From now on the Python object is the way out again."""
        self._descriptor = None


def _shorten(file: int, start: int) -> int:
    """Cut what lies behind `start` to its first and last part with a marker between; returns its size."""
    size = os.fstat(file).st_size - start
    if size <= MAX_STEP_BYTES:
        return size
    half = MAX_STEP_BYTES // 2
    tail = os.pread(file, half, start + size - half)
    marker = f"\n… {size - 2 * half:,} bytes of output left out …\n".encode()
    os.ftruncate(file, start + half)
    for part in (marker, tail):  # the descriptor appends
        view = memoryview(part)
        while view:
            view = view[os.write(file, view) :]
    return half + len(marker) + len(tail)


def _punch(file: int, offset: int, size: int) -> None:
    """Free the disk blocks of a range, where the system can: fallocate(2) with PUNCH_HOLE | KEEP_SIZE, Linux only."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if hasattr(libc, "fallocate64"):
            libc.fallocate64(file, 0x03, ctypes.c_int64(offset), ctypes.c_int64(size))
