"""Reading what steps print while they do, from any process, out of the files of a run's log folder."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from headwater.io.compute_logs import STREAMS
from headwater.io.log_index import INDEX, Index

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Printed:
    """A piece of what was printed; of no step where `step` is None."""

    step: str | None
    attempt: int
    stream: str
    data: bytes
    #: What happened to the file, in place of data.
    marker: str = ""


class LogFollower:
    """What is new in a run's log folder, each time it is asked.

    Files may be cut, replaced, deleted and made again in the meantime: an open file is read to its end, a new one
    from its start, and a marker says what happened.
    """

    def __init__(self, folder: Path, *, streams: tuple[str, ...] = STREAMS) -> None:
        self._folder = folder
        self._streams = streams
        self._index = Index()
        self._files: dict[str, _Tail] = {}
        self._lines = _Tail(folder / INDEX)
        self._line = b""

    @property
    def over(self) -> bool:
        """Whether the run said that it prints no more."""
        return self._index.over

    def read(self) -> Iterator[Printed]:
        """What was printed since the last time."""
        self._read_index()
        try:
            names = sorted(os.listdir(self._folder), key=lambda name: (len(name), name))
        except FileNotFoundError:
            names = []
        for name in dict.fromkeys((*self._files, *names)):
            stream = next((one for one in self._streams if name == one or name.endswith(f".{one}")), None)
            if stream is not None:
                if name not in self._files:
                    self._files[name] = _Tail(self._folder / name)
                yield from self._read(name, stream, self._files[name])

    def close(self) -> None:
        """Let go of the files."""
        for tail in (self._lines, *self._files.values()):
            tail.close()

    def __enter__(self) -> "LogFollower":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read_index(self) -> None:
        for data in self._lines.news(None):
            if isinstance(data, bytes):
                *lines, self._line = (self._line + data).split(b"\n")
                self._index.take(lines)

    def _read(self, name: str, stream: str, tail: "_Tail") -> Iterator[Printed]:
        for news in tail.news(lambda size: self._index.shown(name, size)):
            if isinstance(news, str):
                yield Printed(step=None, attempt=1, stream=stream, data=b"", marker=f"{name} {news}")
                continue
            start = tail.position - len(news)
            for one, first, last in self._index.parts(name, start, tail.position):
                yield Printed(
                    step=one.step if one else None,
                    attempt=one.attempt if one else 1,
                    stream=stream,
                    data=news[first - start : last - start],
                )


class _Tail:
    """A file that grows, and what of it was read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None
        self._gone = False
        self.position = 0

    def news(self, shown: Callable[[int], int] | None) -> Iterator[bytes | str]:
        """What came since the last time, and what happened to the file; `shown` tells how much of it may be read."""
        if self._file is None and not self._open():
            return
        yield from self._rest(shown)
        try:
            now = self._path.stat()
        except FileNotFoundError:
            if self.position and not self._gone:  # an empty one is removed when the run is over
                yield "was deleted"
            self._gone = True
            return
        assert self._file is not None  # it was opened above
        if now.st_ino != os.fstat(self._file).st_ino:
            yield from self._rest(shown)
            self.close()
            if self._open():
                yield "was rotated"
                yield from self._rest(shown)

    def close(self) -> None:
        """Let go of it; the next one is read from its start."""
        if self._file is not None:
            os.close(self._file)
        self._file = None
        self.position = 0
        self._gone = False

    def _open(self) -> bool:
        try:
            self._file = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0))
        except FileNotFoundError:
            return False
        return True

    def _rest(self, shown: Callable[[int], int] | None) -> Iterator[bytes | str]:
        assert self._file is not None  # whoever calls has opened it
        size = os.fstat(self._file).st_size
        if size < self.position:
            self.position = size
            yield "was cut"
        until = size if shown is None else shown(size)
        while self.position < until:
            data = os.pread(self._file, min(_CHUNK, until - self.position), self.position)
            if not data:
                return
            self.position += len(data)
            yield data
