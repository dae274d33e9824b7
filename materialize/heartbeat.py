"""Signs of life: what tells other hosts that a run or a backfill goes on."""

import threading
from typing import Self

from headwater.catalog.errors import HeadwaterError, RunOverError
from headwater.catalog.storage.base import CatalogWriter
from headwater.catalog.storage.leases import RENEWAL


class Heartbeat:
    """Renews the lease of a run or backfill while it is entered, from a thread of its own.

    A step that lets no other thread run for longer than a lease is taken for gone by other hosts.
    """

    def __init__(self, catalog: CatalogWriter, identifier: str, *, every: float = RENEWAL) -> None:
        self._catalog = catalog
        self._identifier = identifier
        self._every = every
        self._stop = threading.Event()
        #: Whether somebody else ended it.
        self.is_over = False

    def __enter__(self) -> Self:
        threading.Thread(target=self._beat, name="headwater-heartbeat", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()

    def _beat(self) -> None:
        while not self._stop.wait(self._every):
            try:
                self._catalog.append([], by=self._identifier)
            except RunOverError:
                self.is_over = True
                return
            except HeadwaterError:  # whoever carries it out learns of it by itself, or the next beat comes through
                continue
