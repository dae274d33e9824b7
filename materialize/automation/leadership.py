"""Which process is the daemon: a place in the catalog that one at a time has, found by comparing.

Whoever has it gives a sign of life with every look. It is taken over from one that gave it back, or whose process is
gone: on the same host the process is looked at, on another one its lease has to have run out. What the one before
appends from then on is refused, so one that was only asleep does nothing any more.
"""

import contextlib
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, cast

from headwater.catalog.errors import BusyError, ConflictError
from headwater.catalog.events import DaemonStarted, DaemonStopped, Event
from headwater.catalog.instance import Instance
from headwater.catalog.processes import is_running, start_ticks, this_host, user_name
from headwater.catalog.records import Daemon
from headwater.catalog.storage.base import CatalogWriter
from headwater.catalog.storage.leases import LEASE

#: Seconds between two questions of one that waits.
_ASK = 2.0


@dataclass(frozen=True, slots=True)
class Candidate:
    """A process that may be the daemon."""

    host: str
    pid: int
    start_ticks: int | None

    @staticmethod
    def this() -> "Candidate":
        """This process."""
        return Candidate(this_host(), os.getpid(), start_ticks(os.getpid()))

    def is_of(self, daemon: Daemon) -> bool:
        """Whether it is that daemon itself, as when it began anew within the same process."""
        return (self.host, self.pid, self.start_ticks) == (daemon.host, daemon.pid, daemon.start_ticks)


def trouble(daemon: Daemon | None) -> str | None:
    """Why a daemon is not one that goes on; None for one that does."""
    if daemon is None:
        return "no daemon was ever started"
    who = f"process {daemon.pid} on {daemon.host}"
    if daemon.ended is not None:
        return f"{who} stopped at {daemon.ended:%Y-%m-%d %H:%M:%S} UTC"
    if daemon.host == this_host() and not is_running(daemon.host, daemon.pid, daemon.start_ticks):
        return f"{who} died"
    if daemon.silent > LEASE:
        return f"{who} gave no sign of life for {daemon.silent:.0f} seconds"
    return None


def goes_on(daemon: Daemon, candidate: Candidate) -> bool:
    """Whether a daemon has its place still, and `candidate` cannot have it."""
    if daemon.ended is not None or candidate.is_of(daemon):
        return False
    if daemon.host == candidate.host:  # one that hangs is not taken for gone: it may wake up
        return is_running(daemon.host, daemon.pid, daemon.start_ticks)
    return daemon.silent <= LEASE


class Place:
    """The place of the daemon, taken."""

    def __init__(self, instance: Instance, epoch: int) -> None:
        self.epoch = epoch
        self._catalog = _Fenced(instance.catalog, f"daemon-{epoch}")
        #: For everything that the daemon does: what it appends is refused once another one is the daemon.
        self.instance = Instance(instance.home, cast(CatalogWriter, self._catalog), instance.clock)

    def beat(self) -> int:
        """Give a sign of life; returns the number of the catalog's last event.

        Raises `RunOverError` where another one is the daemon by now.
        """
        return self._catalog.append([])

    def give_back(self) -> None:
        """Let another one have it."""
        self._catalog.append([DaemonStopped(time=self.instance.clock.now(), epoch=self.epoch)])


def take(instance: Instance, candidate: Candidate) -> Place:
    """Become the daemon. Raises `BusyError`, which names the one that goes on."""
    while True:
        found = instance.catalog.daemon()
        if found is not None and goes_on(found, candidate):
            raise BusyError(
                f"The daemon goes on already: process {found.pid} on {found.host}, by {found.user} since "
                f"{found.started:%Y-%m-%d %H:%M:%S} UTC.",
                remedy="Give --standby to wait and take over when it is gone, or end that process.",
            )
        started = DaemonStarted(
            time=instance.clock.now(),
            epoch=1 if found is None else found.epoch + 1,
            user=user_name(),
            host=candidate.host,
            pid=candidate.pid,
            start_ticks=candidate.start_ticks,
        )
        silent = found is not None and found.ended is None and found.host != candidate.host
        try:
            instance.catalog.append(
                [started], by=f"daemon-{started.epoch}", lapsed=[found.name] if found is not None and silent else ()
            )
        except ConflictError:  # somebody was faster, or woke up
            continue
        return Place(instance, started.epoch)


class Waiting:
    """Waits for the place of another daemon: looks at its process, and now and then into the catalog."""

    def __init__(self, instance: Instance, candidate: Candidate) -> None:
        self._instance = instance
        self._candidate = candidate
        self._daemon: Daemon | None = None
        self._asked = float("-inf")

    def look(self) -> Place | None:
        """The place, if it is to be had by now. Raises what the catalog raises."""
        now = self._instance.clock.monotonic()
        if now - self._asked < _ASK and self._daemon is not None and trouble(self._daemon) is None:
            return None
        self._asked, self._daemon = now, self._instance.catalog.daemon()
        with contextlib.suppress(BusyError):
            return take(self._instance, self._candidate)
        return None


class _Fenced:
    """A catalog to which one daemon appends; a run or backfill that appends through it has its own sign of life."""

    def __init__(self, catalog: CatalogWriter, name: str) -> None:
        self._catalog = catalog
        self._name = name

    def append(
        self,
        events: Sequence[Event],
        *,
        request: str | None = None,
        by: str | None = None,
        lapsed: Collection[str] = (),
    ) -> int:
        return self._catalog.append(events, request=request, by=by or self._name, lapsed=lapsed)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._catalog, name)
