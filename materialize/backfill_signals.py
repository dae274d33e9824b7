"""What a backfill and other processes tell each other, in two kinds of files of the home.

`running-backfill/<identifier>` says how far it has come. `cancel-backfill/<identifier>` asks it to stop for good;
should its process be killed before it looks, the request still tells whoever would go on with it.
"""

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from headwater.catalog.clock import Clock
from headwater.catalog.errors import UsageError
from headwater.catalog.keys import AssetKey
from headwater.catalog.processes import exists, is_running, start_ticks, this_host
from headwater.catalog.records import Backfill, BackfillStatus
from headwater.catalog.storage.base import CatalogWriter
from headwater.catalog.storage.identifiers import is_identifier
from headwater.materialize.backfill_standing import AssetProgress, BackfillProgress
from headwater.materialize.heartbeat import Heartbeat

_RUNNING = "running-backfill"
_REQUESTS = "cancel-backfill"
#: Seconds between two reports.
_PACE = 0.5
#: The part of an identifier that says when it was made, to the millisecond.
_MOMENT = 13


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A backfill that a process carries out right now."""

    backfill_id: str
    pid: int
    start_ticks: int | None
    host: str
    #: When this process began with it.
    started: datetime
    title: str
    selection: str | None
    progress: BackfillProgress
    #: The runs that this process made so far.
    runs: tuple[str, ...]


class Beacon:
    """Says how far a backfill has come, and to other hosts that it goes on, while it is entered."""

    def __init__(self, home: Path, clock: Clock, record: Backfill, catalog: CatalogWriter) -> None:
        self._heartbeat = Heartbeat(catalog, record.backfill_id)
        self._path = home / _RUNNING / record.backfill_id
        self._clock = clock
        self._told = float("-inf")
        self._about: dict[str, Any] = {
            "backfill_id": record.backfill_id,
            "pid": os.getpid(),
            "start_ticks": start_ticks(os.getpid()),
            "host": this_host(),
            "started": clock.now().isoformat(),
            "title": record.title,
            "selection": record.selection,
        }

    def __enter__(self) -> Self:
        self._heartbeat.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._heartbeat.__exit__(kind, error, traceback)
        for path in (self._path, self._draft):
            with contextlib.suppress(OSError):
                path.unlink()
        with contextlib.suppress(OSError):
            self._path.parent.rmdir()  # refused while there are others

    @property
    def is_over(self) -> bool:
        """Whether somebody else ended the backfill."""
        return self._heartbeat.is_over

    @property
    def _draft(self) -> Path:
        return self._path.with_suffix(".draft")

    @property
    def due(self) -> bool:
        """Whether the last report is so old that there should be a new one."""
        return self._clock.monotonic() - self._told >= _PACE

    def show(self, progress: BackfillProgress, runs: Sequence[str]) -> None:
        """Report. A report that cannot be written changes nothing of what is done."""
        self._told = self._clock.monotonic()
        text = json.dumps({**self._about, "runs": list(runs), "progress": _progress_to_json(progress)})
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(mode=0o700, exist_ok=True)
            self._draft.write_text(text, "ascii")
            self._draft.replace(self._path)


def running_backfill(home: Path, beginning: str = "") -> Running | None:
    """The newest backfill that goes on in `home` and whose identifier starts with `beginning`; None where none does."""
    try:
        paths = sorted((home / _RUNNING).iterdir(), reverse=True)
    except OSError:  # there is none, or a disk that cannot be read, which is told where it matters
        return None
    for path in paths:
        if is_identifier(path.name) and path.name.startswith(beginning.lower()):
            found = _read(path)
            if found is not None:
                return found
    return None


def goes_on(home: Path, found: Backfill) -> bool:
    """Whether a process carries out a backfill, of whatever host and home."""
    if found.status is not BackfillStatus.STARTED:
        return False
    if running_backfill(home, found.backfill_id) is not None:
        return True
    here = found.host == this_host()
    return not found.lapsed and not (here and (found.pid == os.getpid() or not exists(found.pid)))


def _read(path: Path) -> Running | None:
    try:
        data = json.loads(path.read_text("ascii"))
        found = Running(
            backfill_id=data["backfill_id"],
            pid=data["pid"],
            start_ticks=data["start_ticks"],
            host=data["host"],
            started=datetime.fromisoformat(data["started"]),
            title=data["title"],
            selection=data["selection"],
            progress=_progress_of_json(data["progress"]),
            runs=tuple(data["runs"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
    # What a killed process left says nothing.
    return found if is_running(found.host, found.pid, found.start_ticks) else None


def request_cancel(home: Path, backfill_id: str) -> Running | None:
    """Ask the process that carries out a backfill to cancel it; None where none does. The moment of an id is enough.

    Raises `UsageError` where less than that is given, and could mean another one.
    """
    found = running_backfill(home, backfill_id)
    if found is None:
        return None
    if len(backfill_id) < _MOMENT:
        raise UsageError(
            f"The backfill {found.backfill_id} is going on, and '{backfill_id}' may mean another one.",
            remedy=f"Give more of it: {found.backfill_id[:_MOMENT]}.",
        )
    folder = home / _REQUESTS
    folder.mkdir(mode=0o700, exist_ok=True)
    (folder / found.backfill_id).touch(mode=0o600)
    return found


def is_cancel_requested(home: Path, backfill_id: str) -> bool:
    """Whether somebody asked to cancel a backfill."""
    return (home / _REQUESTS / backfill_id).exists()


def cancel_requests(home: Path) -> list[str]:
    """The backfills that somebody asked to cancel, and that nobody has canceled yet."""
    try:
        return sorted(path.name for path in (home / _REQUESTS).iterdir() if is_identifier(path.name))
    except OSError:
        return []


def forget_request(home: Path, backfill_id: str) -> None:
    """A cancel was heard."""
    folder = home / _REQUESTS
    with contextlib.suppress(OSError):
        (folder / backfill_id).unlink()
    with contextlib.suppress(OSError):
        folder.rmdir()  # refused while there are others


def _progress_to_json(progress: BackfillProgress) -> dict[str, Any]:
    left = progress.remaining
    return {
        **{name: getattr(progress, name) for name in _NUMBERS},
        "remaining": None if left is None else left.total_seconds(),
        "assets": [[str(one.key), one.total, one.done, one.failed] for one in progress.assets],
    }


def _progress_of_json(data: Mapping[str, Any]) -> BackfillProgress:
    left = data["remaining"]
    return BackfillProgress(
        **{name: int(data[name]) for name in _NUMBERS},
        remaining=None if left is None else timedelta(seconds=left),
        assets=tuple(
            AssetProgress(key=AssetKey(key), total=total, done=done, failed=failed)
            for key, total, done, failed in data["assets"]
        ),
    )


_NUMBERS = ("total", "done", "failed", "blocked", "absent", "gone")
