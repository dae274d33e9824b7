"""Compute logs: what steps print, kept in files below `<home>/logs/<run id>/`, and maybe elsewhere.

A step's output is a list of slices of those files (`records.LogSlice`). Lines of several steps that ran one after
the other share a file; steps that ran side by side have files of their own. Steps always write to files of their
machine, so that nothing waits for a network; a `ComputeLogManager` says where these are and what becomes of them.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from headwater.catalog.config import resolve
from headwater.catalog.errors import ConfigError
from headwater.catalog.records import LogSlice
from headwater.catalog.settings import CustomLogs, LocalLogs, NoLogs, Settings

STREAMS = ("stdout", "stderr")

#: Bytes of one step's stream that are kept; of more, the first and the last half.
MAX_STEP_BYTES = 64 * 1024 * 1024


class LogKeeper(Protocol):
    """What takes care of one run's output while it goes on. No method waits for a network but `close`."""

    def keep(self, slices: Sequence[LogSlice]) -> None:
        """An attempt at a step is over, and this is where its output lies."""
        ...

    def close(self) -> str | None:
        """The run is over. What went wrong with its output, if anything did: that never fails a run."""
        ...


class ComputeLogManager(Protocol):
    """Where what the steps of runs print is kept, and how it is read."""

    def folder(self, run_id: str) -> Path | None:
        """The folder of this machine that a run writes to; None for a run whose output is not kept."""
        ...

    def keeper(self, run_id: str, redact: Callable[[bytes], bytes]) -> LogKeeper:
        """What takes care of a run's output; no secret is left in what went through `redact`."""
        ...

    def read_slices(self, run_id: str, slices: Iterable[LogSlice], stream: str) -> Iterator[bytes]:
        """What a step wrote to `stream`, in pieces; nothing where it is gone."""
        ...

    def read_rest(self, run_id: str, slices: Iterable[LogSlice], stream: str) -> Iterator[bytes]:
        """What a run wrote to `stream` outside of all its steps' `slices`, in pieces."""
        ...


class NothingToKeep:
    """A `LogKeeper` for output that is where it stays, or nowhere."""

    def keep(self, slices: Sequence[LogSlice]) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class LocalComputeLogManager:
    """Keeps output in files of this machine."""

    def __init__(self, base_dir: str | Path) -> None:
        self.base_dir = Path(base_dir)

    def folder(self, run_id: str) -> Path:
        """Where a run's files lie, and stay."""
        return self.base_dir / run_id

    def keeper(self, run_id: str, redact: Callable[[bytes], bytes]) -> LogKeeper:
        """There is nothing to be done."""
        return NothingToKeep()

    def read_slices(self, run_id: str, slices: Iterable[LogSlice], stream: str) -> Iterator[bytes]:
        """From the files."""
        return read_slices(self.folder(run_id), slices, stream)

    def read_rest(self, run_id: str, slices: Iterable[LogSlice], stream: str) -> Iterator[bytes]:
        """From the files."""
        return read_rest(self.folder(run_id), slices, stream)


class NoOpComputeLogManager:
    """Keeps no output."""

    def folder(self, run_id: str) -> None:
        """None."""

    def keeper(self, run_id: str, redact: Callable[[bytes], bytes]) -> LogKeeper:
        """There is nothing to be done."""
        return NothingToKeep()

    def read_slices(self, run_id: str, slices: Iterable[LogSlice], stream: str) -> Iterator[bytes]:
        """Nothing."""
        return iter(())

    def read_rest(self, run_id: str, slices: Iterable[LogSlice], stream: str) -> Iterator[bytes]:
        """Nothing."""
        return iter(())


def compute_log_manager(settings: Settings, home: Path) -> ComputeLogManager:
    """What keeps the output of a home's runs. Raises `ConfigError` for settings that cannot be followed."""
    local = settings.artifacts(home) / "logs"
    match settings.compute_logs:
        case LocalLogs(base_dir=base_dir):
            return LocalComputeLogManager(local if base_dir is None else settings.folder(base_dir, home))
        case NoLogs():
            return NoOpComputeLogManager()
        case CustomLogs() as custom:
            return _custom(custom)
        case remote:
            from headwater.io.object_logs import ObjectComputeLogManager, address_of, options_of

            folder = local if remote.local_dir is None else settings.folder(remote.local_dir, home)
            return ObjectComputeLogManager(
                address_of(remote), options_of(remote), folder, upload_interval=remote.upload_interval
            )


def _custom(settings: CustomLogs) -> ComputeLogManager:
    from importlib import import_module

    name = f"{settings.module}.{settings.class_name}"
    try:
        kind: Any = getattr(import_module(settings.module), settings.class_name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"compute_logs: {name} cannot be imported: {error}.", remedy="Install it, or correct module and class."
        ) from None
    manager: Any = kind(**resolve(settings.config, "compute_logs:config"))
    missing = [one for one in ("folder", "keeper", "read_slices", "read_rest") if not hasattr(manager, one)]
    if missing:
        raise ConfigError(
            f"compute_logs: {name} has no {' and no '.join(missing)}.",
            remedy="Give it the methods of headwater.io.compute_logs.ComputeLogManager.",
        )
    return manager


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
