"""Whether those on other hosts who carry out runs and backfills, or are the daemon, still do: leases.

They are judged by whoever has the catalog. Each sign of life is good for `LEASE` seconds of that process's clock,
whatever the clocks of others say. Leases are in its memory only, so renewing one costs no commit and leaves nothing
behind; a process that has just opened the catalog takes everybody for alive until as long after. So nobody is lost by a
restart, and who is gone is found out one lease later.
"""

import threading
from collections.abc import Collection
from dataclasses import replace
from typing import TypeVar

from headwater.catalog.clock import Clock, SystemClock
from headwater.catalog.errors import ConflictError, RunOverError
from headwater.catalog.records import OPEN, Backfill, BackfillStatus, Daemon, Run
from headwater.catalog.storage.admission import Progress

#: Seconds that a sign of life is good for, and after which there should be another one.
LEASE, RENEWAL = 30.0, 10.0
#: Leases that are kept before those that have run out are forgotten.
_MANY = 1000

_GOING_ON = OPEN | {BackfillStatus.STARTED}
Led = TypeVar("Led", Run, Backfill)


class Leases:
    """The leases of runs, backfills and the daemon, by their identifiers. Thread-safe."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._since = self._clock.monotonic()
        self._renewed: dict[str, float] = {}
        self._lock = threading.Lock()

    def lapsed(self, identifier: str) -> bool:
        """Whether there was no sign of life for so long that it is taken for gone."""
        return self.silent(identifier) > LEASE

    def silent(self, identifier: str) -> float:
        """Seconds since the last sign of life, or since the catalog was opened."""
        return self._clock.monotonic() - self._renewed.get(identifier, self._since)

    def heard(self, daemon: Daemon | None) -> Daemon | None:
        """A daemon with what is known of its lease."""
        return None if daemon is None else replace(daemon, silent=self.silent(daemon.name))

    def judged(self, one: Led, identifier: str) -> Led:
        """A run or backfill with what is known of its lease."""
        return replace(one, lapsed=True) if one.status in _GOING_ON and self.lapsed(identifier) else one

    def admit(self, progress: Progress, by: str | None, lapsed: Collection[str]) -> None:
        """What `CatalogWriter.append` promises of `by`, whose lease is renewed, and `lapsed`.

        Raises `RunOverError` and `ConflictError`.
        """
        for one in lapsed:
            if not self.lapsed(one):
                raise ConflictError(f"{one} goes on: it gave a sign of life.", remedy="Let it finish.")
        if by is None:
            return
        if progress.is_over(by):
            raise RunOverError(
                f"{by} is over: somebody else ended it, and nothing of it is taken any more.",
                remedy=f"It was canceled, or gave no sign of life for {LEASE:g} seconds. Build what is still stale.",
            )
        with self._lock:
            self._renewed[by] = self._clock.monotonic()
            if len(self._renewed) > _MANY:
                self._renewed = {one: at for one, at in self._renewed.items() if not self.lapsed(one)}
