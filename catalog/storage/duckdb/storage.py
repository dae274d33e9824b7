"""A catalog in a DuckDB file: what `open_catalog` gives."""

import contextlib
import threading
from collections.abc import Collection, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from headwater.catalog.clock import Clock
from headwater.catalog.errors import CatalogError, DiskFullError, ReadOnlyCatalogError
from headwater.catalog.events import Event
from headwater.catalog.records import Automation, BackfillStatus, Daemon, Fact, FactTopic, RunStatus
from headwater.catalog.storage.admission import BackfillProgress, Progress, RunProgress, StepProgress
from headwater.catalog.storage.duckdb.backup import Backup, make
from headwater.catalog.storage.duckdb.batch import Known
from headwater.catalog.storage.duckdb.connection import Database
from headwater.catalog.storage.duckdb.dictionary import Dictionary
from headwater.catalog.storage.duckdb.head import HeadFile
from headwater.catalog.storage.duckdb.reading import Reader, ask
from headwater.catalog.storage.duckdb.reserve import release
from headwater.catalog.storage.duckdb.rows import automation, daemon, fact, json_text
from headwater.catalog.storage.duckdb.writing import Writer
from headwater.catalog.storage.identifiers import is_identifier
from headwater.catalog.storage.lock import CatalogLock

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

#: Bytes of write-ahead log after which the database file is brought up to date: DuckDB's own default.
CHECKPOINT_BYTES = 16 * 1024 * 1024


class DuckDBStorage(Reader):
    """A `CatalogWriter` in one DuckDB file; one that was opened read-only refuses to append. Thread-safe.

    Made by `open_catalog`. It must be closed, best as a context manager; a process that dies loses nothing.
    """

    def __init__(
        self,
        database: Database,
        lock: CatalogLock | None,
        head: HeadFile | None,
        left_behind: bool,
        checkpoint_bytes: int = CHECKPOINT_BYTES,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(database, clock)
        self._lock = lock
        self._head = head
        self._writer = Writer(database, self._load_known, self._committed, left_behind=left_behind)
        self._checkpoint_bytes = self._checkpoint_at = checkpoint_bytes
        self._backing_up = threading.Lock()

    @property
    def home(self) -> Path:
        """The folder that the catalog lies in."""
        return self._database.path.parent

    @property
    def lock(self) -> CatalogLock | None:
        """The lock that it holds; None where there can be none."""
        return self._lock

    @property
    def read_only(self) -> bool:
        """Whether `append` raises `ReadOnlyCatalogError`."""
        return self._head is None

    def append(
        self,
        events: Sequence[Event],
        *,
        request: str | None = None,
        by: str | None = None,
        lapsed: Collection[str] = (),
    ) -> int:
        """See `CatalogWriter.append`.

        On a full disk it raises `DiskFullError` and gives up a reserve of some MiB that was kept for this moment, so
        that the failure itself can be recorded.
        """
        if self._head is None:
            raise ReadOnlyCatalogError(
                f"The catalog in {self.home} is open for reading only.",
                remedy="Make its folder and files writable by you, or use another home.",
            )
        try:
            return self._writer.append(events, request, lambda progress: self._leases.admit(progress, by, lapsed))
        except DiskFullError:
            release(self.home)
            raise

    def applied(self, request: str) -> int | None:
        """See `CatalogWriter.applied`."""
        return self._writer.applied(request)

    def settle(self) -> None:
        """Move what the journal holds into the tables, as every question does first.

        Raises `DiskFullError`, having given up the reserve too, and `CatalogError`. Nothing is lost then.
        """
        try:
            self._writer.settle()
        except DiskFullError:
            release(self.home)
            self._writer.settle()

    def backup(self, target: Path, *, replace: bool = False) -> Backup:
        """Write a consistent copy to the new file `target`, while other threads go on reading and writing.

        With `replace`, a file that is there gives way once the copy is complete. Raises `ConflictError` where one is
        there, `UsageError` for a place that a backup cannot have, `ReadOnlyCatalogError`, `DiskFullError` and
        `CatalogError`; nothing is left then.
        """
        if self._head is None:
            raise ReadOnlyCatalogError(
                f"A backup is made in the home first, and {self.home} is open for reading only.",
                remedy="Make the folder and its files writable by you.",
            )
        self.settle()
        with self._backing_up:
            return make(self._database, target, replace=replace)

    def close(self) -> None:
        """Bring the database file up to date and let go of the catalog. Idempotent."""
        with contextlib.suppress(CatalogError, DiskFullError):  # the journal keeps it for the next one who opens
            self.settle()
        self._database.close()
        if self._head is not None:
            self._head.close()
        if self._lock is not None:
            self._lock.release()

    @contextmanager
    def _reading(self) -> "Generator[DuckDBPyConnection]":
        self.settle()
        with self._database.cursor() as cursor:
            yield cursor

    def __enter__(self) -> "DuckDBStorage":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _committed(self, seq: int) -> None:
        """After a commit. Nothing here may fail: the events are kept, and whoever appended must hear so."""
        if self._head is None:
            return
        with contextlib.suppress(OSError):
            self._head.write(seq)
        size = self._database.log_bytes()
        if size >= self._checkpoint_at:
            self._database.checkpoint()
            self._checkpoint_at = self._database.log_bytes() + self._checkpoint_bytes

    def _load_known(self) -> Known:
        """What a writer has to know, from the tables. In the middle of an append, so nothing here may settle."""
        self._assets = Dictionary(self._load_assets)
        self._fingerprints = Dictionary(self._load_fingerprints)
        with self._database.cursor() as cursor:
            ((seq, next_run, cells, partitions, next_backfill, claims),) = ask(cursor, "writer_state")
            built = {asset for (asset,) in ask(cursor, "assets_with_cells")}
        return Known(
            seq=seq,
            assets=self._assets,
            fingerprints=self._fingerprints,
            progress=Progress(
                self._find_progress,
                self._find_backfill,
                self._find_automations,
                self._find_daemon,
                self._find_facts,
                next_run,
                next_backfill,
                claims,
            ),
            built=built,
            cells=cells,
            partitions=partitions,
        )

    def _find_automations(self) -> dict[str, Automation]:
        with self._database.cursor() as cursor:
            return {row[0]: automation(row) for row in ask(cursor, "automations")}

    def _find_daemon(self) -> Daemon | None:
        with self._database.cursor() as cursor:
            found = ask(cursor, "daemon")
        return daemon(found[0]) if found else None

    def _find_facts(self, topic: FactTopic, names: Collection[str]) -> Mapping[str, Fact]:
        with self._database.cursor() as cursor:
            found = ask(cursor, "facts", topic=topic, names=json_text(list(names)))
        return {row[1]: fact(row) for row in found}

    def _find_backfill(self, backfill_id: str) -> BackfillProgress | None:
        if not is_identifier(backfill_id):
            return None
        with self._database.cursor() as cursor:
            found = ask(cursor, "backfill_number", backfill=backfill_id)
        return BackfillProgress(found[0][0], BackfillStatus(found[0][1])) if found else None

    def _find_progress(self, run_id: str) -> RunProgress | None:
        if not is_identifier(run_id):
            return None
        with self._database.cursor() as cursor:
            runs = ask(cursor, "run_number", run_id=run_id)
            if not runs:
                return None
            number, status = runs[0]
            rows = ask(cursor, "run_steps", run=number)
        return RunProgress(number, {key: StepProgress(at, ended) for key, at, ended in rows}, RunStatus(status))
