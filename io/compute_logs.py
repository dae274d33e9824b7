"""Compute logs: what steps print, kept in files below `<home>/logs/<run id>/`.

A step's output is a list of slices of those files (`records.LogSlice`). Lines of several steps that ran one after
the other share a file; steps that ran side by side have files of their own.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from headwater.catalog.records import LogSlice

STREAMS = ("stdout", "stderr")

#: Bytes of one step's stream that are kept; of more, the first and the last half.
MAX_STEP_BYTES = 64 * 1024 * 1024


def run_folder(home: Path, run_id: str) -> Path:
    """Where a run's logs lie."""
    return home / "logs" / run_id


def read_slices(folder: Path, slices: Iterable[LogSlice], stream: str, *, chunk: int = 1 << 20) -> Iterator[bytes]:
    """What a step wrote to `stream`, in pieces; nothing for files that are gone."""
    for piece in slices:
        if piece.stream == stream:
            yield from _read(folder / piece.file, piece.offset, piece.size, chunk)


def read_rest(folder: Path, slices: Iterable[LogSlice], stream: str, *, chunk: int = 1 << 20) -> Iterator[bytes]:
    """What a run wrote to `stream` outside of `slices`, in pieces: of all steps' slices, it is what no step wrote.

    That is what resources wrote when they were set up and torn down, and what steps wrote that came to no end.
    """
    known = sorted((piece.file, piece.offset, piece.size) for piece in slices if piece.stream == stream)
    for path in sorted(folder.glob(f"*{stream}"), key=lambda path: (len(path.name), path.name)):
        at = 0
        for file, offset, size in known:
            if file == path.name:
                yield from _read(path, at, offset - at, chunk)
                at = offset + size
        yield from _read(path, at, path.stat().st_size - at, chunk)


def _read(path: Path, offset: int, size: int, chunk: int) -> Iterator[bytes]:
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        file.seek(offset)
        while size > 0:
            data = file.read(min(chunk, size))
            if not data:
                return
            size -= len(data)
            yield data
