"""The write side: an append is one durable commit, as cheap as DuckDB has them.

Bringing an event into the tables of current state takes four statements or more at a millisecond each, whether for
one event or for many. So a small append inserts one row into the journal, in the same file and with the same commit,
and is then as durable as can be; its events are moved on into the tables together with others': when enough have
come together, before anybody asks a question, when the catalog is closed, and when the next one opens it after this
process was killed. Nobody who asks through a storage can tell the difference. A large append skips the journal.

Appends that wait for each other share a commit, and a row: whoever's turn it is takes along everybody who came
meanwhile. Waiting for more to come (PostgreSQL's commit_delay) was tried, and gave nothing.
"""

import contextlib
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headwater.catalog.errors import HeadwaterError
from headwater.catalog.events import Event, RunQueued, TicksPurged
from headwater.catalog.storage import journal
from headwater.catalog.storage.admission import Progress
from headwater.catalog.storage.duckdb.batch import Batch, Known
from headwater.catalog.storage.duckdb.connection import Database
from headwater.catalog.storage.duckdb.reading import ask, numbered_partitions
from headwater.catalog.storage.duckdb.rows import json_text, timestamp
from headwater.catalog.storage.duckdb.sql import queries
from headwater.catalog.storage.duckdb.tables import JOURNAL, Row
from headwater.catalog.storage.identifiers import is_identifier
from headwater.catalog.storage.text import storable

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

#: So many events are moved into the tables at once: then each costs 0.1 ms, and all of them 20-30 ms.
ENOUGH_EVENTS = 256
#: Requests are remembered for so many events.
REMEMBERED = 100_000
#: DuckDB's optimizer is off where we write; a DELETE by key from more cells than this is faster with it, since only
#: then it reads no more than the blocks that may hold the key (a million cells: 1.0 instead of 5.2 ms).
MANY_CELLS = 20_000

#: So many new runs in one append are looked up together, as a question costs a millisecond.
MANY_RUNS = 4


class Writer:
    """Writes events, one transaction at a time, from any thread.

    `load` reads what a writer has to know from the tables; `committed` is told the number of the last event after
    each commit, and must not fail. `left_behind` says that the journal is not empty.
    """

    def __init__(
        self, database: Database, load: Callable[[], Known], committed: Callable[[int], None], *, left_behind: bool
    ) -> None:
        self._database = database
        self._load = load
        self._committed = committed
        self._lock = threading.Lock()
        #: Appends that wait for their turn. A list's `append` and being replaced are atomic.
        self._waiting: list[_Append] = []
        #: What the journal holds, as rows; None where that has to be found out: at first, and after a failure.
        self._pending: Batch | None = None
        #: Whether the journal may hold anything.
        self._unsettled = left_behind

    def append(
        self,
        events: Sequence[Event],
        request: str | None = None,
        admit: Callable[[Progress], None] = lambda _: None,
    ) -> int:
        """Commit `events` and return the number of the last event; `request` is remembered with them.

        `admit` is asked first, within the transaction, and raises where they are not to be written.

        Raises the errors of `CatalogWriter.append`; then nothing of it is kept, in the catalog or in memory.
        """
        mine = _Append(events, request, admit)
        self._waiting.append(mine)
        with self._lock:
            if not mine.over:
                group, self._waiting = self._waiting, []
                self._commit(group)
        if mine.error is not None:
            raise mine.error
        return mine.seq

    def applied(self, request: str) -> int | None:
        """The number of the last event of the append that `request` was given with; None where it was not kept."""
        self.settle()
        with self._database.cursor() as cursor:
            found = ask(cursor, "applied_request", request=request)
        return found[0][0] if found else None

    def _commit(self, group: "Sequence[_Append]") -> None:
        """Commit all of a group at once; where that fails, each by itself, so that each has its own error."""
        try:
            self._commit_together(group)
        except BaseException as error:
            if len(group) == 1:
                group[0].error = error
            else:
                for one in group:
                    if not one.over:
                        self._commit([one])
        finally:
            for one in group:
                one.over = True

    def _commit_together(self, group: "Sequence[_Append]") -> None:
        try:
            self._write(group)
        except UnicodeEncodeError:
            for one in group:
                one.events = [storable(event) for event in one.events]
            self._write(group)

    def _write(self, group: "Sequence[_Append]") -> None:
        batch = self._take()
        appends: list[journal.Append] = []
        for one in group:
            before = batch.seq
            self._look_up(batch.known.progress, one.events)
            one.admit(batch.known.progress)
            batch.add(one.events)
            one.seq = batch.seq
            if batch.seq > before:
                batch.remember(one.request)
                appends.append((one.request, one.events))
        if not appends:
            self._pending = batch
            return
        small = batch.size < ENOUGH_EVENTS and not batch.is_wide
        text = journal.write_appends(appends) if small else ""
        try:
            with self._database.reported():
                if small:
                    self._unsettled = True
                    JOURNAL.insert(self._database.writer, JOURNAL.rows([(batch.seq, text)]))
                    self._pending = batch
                else:
                    self._move(batch)
        except BaseException as error:
            self._pending = None
            if not self._stands(batch.seq) or not isinstance(error, HeadwaterError):
                raise
        self._committed(batch.seq)

    def _look_up(self, progress: Progress, events: Sequence[Event]) -> None:
        """Ask at once which of many new runs there are already, and not for each by itself."""
        new = {event.run_id for event in events if isinstance(event, RunQueued) and is_identifier(event.run_id)}
        if len(new) >= MANY_RUNS:
            with self._database.cursor() as cursor:
                known = ask(cursor, "known_runs", runs=json_text(sorted(new)))
            progress.absent |= new.difference(run_id for (run_id,) in known)

    def settle(self) -> None:
        """Move what the journal holds into the tables. Raises `DiskFullError` and `CatalogError`."""
        if not self._unsettled:
            return
        with self._lock:
            batch = self._take()
            try:
                with self._database.reported():
                    self._move(batch)
            except BaseException:
                self._pending = None
                self._stands(batch.seq)
                raise
            self._committed(batch.seq)

    def _take(self) -> Batch:
        """The pending batch, taken away so that it is read again from the journal unless all goes well."""
        batch, self._pending = self._pending, None
        if batch is None:
            batch = Batch(self._load())
            with self._database.cursor() as cursor:
                texts = ask(cursor, "journal")
            for (text,) in texts:
                for request, events in journal.read_appends(text):
                    batch.add(events)
                    batch.remember(request)
        return batch

    def _move(self, batch: Batch) -> None:
        """One transaction for everything in `batch`, which the journal holds in part."""
        batch.number_partitions(self._known_partitions(batch))
        connection = self._database.writer
        connection.begin()
        _make_room(connection, batch)
        if batch.new_partitions:
            first = batch.known.partitions
            _execute(connection, "add_partition_keys", first=first, keys=json_text(batch.new_partitions))
        for table, rows in batch.rows():
            table.insert(connection, rows)
        for seq, one in batch.purges:
            _purge(connection, seq, one)
        if batch.moved_runs:
            names = ("run_no", "status", "moved", "started", "host", "pid", "start_ticks", "steps", "behind", "claims")
            _execute(
                connection, "move_runs", runs=_lists(names, [(run, *row) for run, row in batch.moved_runs.items()])
            )
        if batch.ended_runs:
            _execute(connection, "end_runs", runs=_lists(("run_no", "ended", "status", "error"), batch.ended_runs))
        if batch.moved_backfills:
            names = ("backfill_no", "status", "ended", "error", "user_name", "host", "pid")
            moved = [(number, *row) for number, row in batch.moved_backfills.items()]
            _execute(connection, "move_backfills", backfills=_lists(names, moved))
        _change_keys(connection, batch.deleted_keys(), batch.added_keys())
        if batch.seq // REMEMBERED > batch.known.seq // REMEMBERED:
            _execute(connection, "forget_requests", before=batch.seq - REMEMBERED)
        _execute(connection, "empty_journal")
        connection.commit()
        batch.commit()
        self._pending = Batch(batch.known)
        self._unsettled = False

    def _known_partitions(self, batch: Batch) -> Mapping[str, int]:
        """The numbers of those of the batch's partition keys that have one."""
        keys = batch.partitions() if batch.known.partitions else []
        if not keys:
            return {}
        with self._database.cursor() as cursor:
            return numbered_partitions(cursor, keys)

    def _stands(self, seq: int) -> bool:
        """After an error: put the connection in order, and see whether event `seq` is committed in spite of it."""
        import duckdb

        connection = self._database.writer
        with contextlib.suppress(duckdb.TransactionException):  # there is none where a failed COMMIT ended it
            connection.rollback()
        try:
            connection.execute("pragma disable_optimizer").fetchall()
        except duckdb.Error:
            self._database.drop()
        with self._database.cursor() as cursor:
            return ask(cursor, "last_event")[0][0] >= seq


@dataclass(slots=True, eq=False)
class _Append:
    """One call of `append`, and what came of it."""

    events: Sequence[Event]
    request: str | None
    admit: Callable[[Progress], None]
    #: The number of its last event.
    seq: int = 0
    error: BaseException | None = None
    over: bool = False


def _make_room(connection: "DuckDBPyConnection", batch: Batch) -> None:
    """Delete the rows that the batch replaces."""
    assets, partitions = batch.renewed()
    if len(assets) == 1 and batch.known.cells < MANY_CELLS:
        _execute(connection, "delete_cell", asset=assets[0], partition=partitions[0])
    elif assets:
        with _optimizer(connection):
            _execute(connection, "delete_cells", cells=json_text({"asset_id": assets, "partition_id": partitions}))
    if batch.redefined:
        _execute(connection, "delete_definitions", assets=json_text(sorted(batch.redefined)))
    if batch.conditions:
        _execute(connection, "delete_condition_states", assets=json_text(list(batch.conditions)))
    if batch.automations:
        _execute(connection, "delete_automations", names=json_text(list(batch.automations)))
    if batch.daemon is not None:
        _execute(connection, "delete_daemon")
    if batch.facts:
        _execute(connection, "delete_facts", facts=_lists(("topic", "name"), list(batch.facts)))


def _purge(connection: "DuckDBPyConnection", seq: int, event: TicksPurged) -> None:
    with _optimizer(connection):
        _execute(
            connection,
            "purge_ticks",
            seq=seq,
            names=json_text(event.names),
            status=event.status.value,
            before=timestamp(event.before),
            limit=event.limit,
        )


def _change_keys(connection: "DuckDBPyConnection", deleted: Sequence[Row], added: Sequence[Row]) -> None:
    """Delete and then add keys of dynamic partitions."""
    names = ("name", "key")
    if not deleted and not added:
        return
    with _optimizer(connection):
        if deleted:
            _execute(connection, "delete_dynamic_keys", deleted=_lists(names, deleted))
            _execute(connection, "close_dynamic_gaps", names=json_text(sorted({name for name, *_ in deleted})))
        if added:
            _execute(connection, "add_dynamic_keys", added=_lists(names, added))


@contextmanager
def _optimizer(connection: "DuckDBPyConnection") -> Generator[None]:
    """A block in which DuckDB's optimizer is on; `Writer` puts it off again after an error."""
    connection.execute("pragma enable_optimizer").fetchall()
    yield
    connection.execute("pragma disable_optimizer").fetchall()


def _lists(names: Sequence[str], rows: Sequence[Row]) -> str:
    """Rows as a parameter: a list for each column. There is at least one row."""
    return json_text(dict(zip(names, zip(*rows, strict=True), strict=True)))


def _execute(connection: "DuckDBPyConnection", query: str, **parameters: object) -> None:
    text, bound = queries()[query].bind(parameters)
    connection.execute(text, bound).fetchall()
