"""Opening a catalog: who may, what has to be there, what must not be wrong, in an order in which nothing is lost."""

import contextlib
import errno
import os
import stat
import sys
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from headwater.catalog.clock import Clock, SystemClock
from headwater.catalog.errors import (
    BusyError,
    CatalogCorruptError,
    CatalogError,
    DiskFullError,
    InsecurePermissionsError,
    LostCommitsError,
    ReadOnlyCatalogError,
)
from headwater.catalog.ids import new_id
from headwater.catalog.storage.duckdb import reserve, schema
from headwater.catalog.storage.duckdb.connection import Database, connect, copy, reported
from headwater.catalog.storage.duckdb.head import HEAD_FILE, Head, HeadFile, read_head
from headwater.catalog.storage.duckdb.reading import ask
from headwater.catalog.storage.duckdb.storage import CHECKPOINT_BYTES, DuckDBStorage
from headwater.catalog.storage.lock import LOCK_FILE, acquire

DATABASE_FILE = "catalog.duckdb"

#: What DuckDB writes commits to before they are in the database file: the log, and its parts during a checkpoint.
LOGS = tuple(f"{DATABASE_FILE}.wal{part}" for part in ("", ".checkpoint", ".recovery"))
_OURS = (DATABASE_FILE, *LOGS, HEAD_FILE, LOCK_FILE)
_OTHERS_MAY_WRITE = 0o022


def open_catalog(
    home: Path,
    *,
    wait: float,
    read_only: bool = False,
    clock: Clock | None = None,
    command: str | None = None,
    checkpoint_bytes: int = CHECKPOINT_BYTES,
) -> DuckDBStorage:
    """Open the catalog in the folder `home`, which is made if need be, waiting up to `wait` seconds for others.

    Any number of processes may read it at once, or one may write. A catalog that may not be written is opened for
    reading; `append` then raises `ReadOnlyCatalogError`. `command` is how others learn who holds it. After
    `checkpoint_bytes` of write-ahead log the database file is brought up to date.

    Raises `BusyError` naming who holds it; `CatalogCorruptError`, `LostCommitsError`, `ForeignCatalogError` and
    `CatalogTooNewError`, having touched nothing; `ReadOnlyCatalogError` where a catalog would have to be made, and
    may not; `InsecurePermissionsError`; `DiskFullError`; `CatalogError` where there is nothing to read.
    """
    clock = clock or SystemClock()
    command = command_line() if command is None else command
    home = home.resolve()
    with reachable(home):
        writable = not read_only and make_home(home) and _is_writable(home)
        check_permissions(home)
        if not writable and not (home / DATABASE_FILE).exists():
            check_absent(home)
            raise _nothing_to_read(home, read_only)
        lock = acquire(home, shared=not writable, wait=wait, clock=clock, command=command)
        try:
            with private_files():
                opened = _open_to_write(home, clock) if writable else _open_to_read(home)
            if writable or not opened.left_behind:
                return DuckDBStorage(opened.database, lock, opened.head, opened.left_behind, checkpoint_bytes, clock)
            opened.database.close()
        except BaseException:
            if lock is not None:
                lock.release()
            raise
        if lock is not None:
            lock.release()
        return _open_after_kill(home, wait, clock, command)


@contextmanager
def reachable(home: Path) -> Generator[None]:
    """A block in which an error of the operating system becomes ours for the catalog in `home`."""
    try:
        yield
    except OSError as error:
        raise CatalogError(
            f"The catalog in {home} cannot be opened: {error.strerror}: {error.filename}.",
            remedy="See to it that this is a folder of yours, and that you may read what is in it.",
        ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class _Opened:
    database: Database
    version: schema.Version
    #: The number of the last event.
    seq: int
    #: Whether the journal holds events, of a process that was killed.
    left_behind: bool
    head: HeadFile | None = None


def _open_to_write(home: Path, clock: Clock) -> _Opened:
    path = home / DATABASE_FILE
    migrations = schema.load()
    if not path.exists():
        _create(home, migrations, clock)
    if any((home / log).exists() for log in LOGS):
        # Opened for writing, DuckDB replays and then removes the log, whatever it made of it. So look first.
        _check(Database(path, read_only=True), migrations, read_only=False).database.close()
    opened = _check(Database(path, read_only=False), migrations, read_only=False)
    try:
        if opened.version.schema < len(migrations):
            opened.database.close()
            _migrate(path, opened.version, migrations, clock)
            opened = _check(Database(path, read_only=False), migrations, read_only=False)
        reserve.keep(home)
        is_new = not (home / HEAD_FILE).exists()
        head = HeadFile(home / HEAD_FILE, opened.version.catalog_id)
        head.write(opened.seq, sync=is_new)
    except BaseException:
        opened.database.close()
        raise
    return replace(opened, head=head)


def _open_to_read(home: Path) -> _Opened:
    return _check(Database(home / DATABASE_FILE, read_only=True), schema.load(), read_only=True)


def _open_after_kill(home: Path, wait: float, clock: Clock, command: str) -> DuckDBStorage:
    """Open for reading a catalog whose writer was killed, so that what it wrote last is still in the journal.

    If we may, and there is room, we enter it into the tables. If not, into a copy in memory.
    """
    if _is_writable(home):
        with contextlib.suppress(BusyError, DiskFullError):
            with open_catalog(home, wait=0, clock=clock, command=command) as storage:
                storage.settle()
            return open_catalog(home, wait=wait, read_only=True, clock=clock, command=command)
    return open_copy(home, wait=wait, clock=clock, command=command)


def open_copy(home: Path, *, wait: float, clock: Clock, command: str | None = None) -> DuckDBStorage:
    """Open a copy in memory of the catalog in `home`, for who reads what the journal holds too and changes nothing.

    Raises as `open_catalog` does.
    """
    command = command_line() if command is None else command
    lock = acquire(home, shared=True, wait=wait, clock=clock, command=command)
    try:
        return DuckDBStorage(
            Database(home / DATABASE_FILE, read_only=True, in_memory=True), lock, None, True, clock=clock
        )
    except BaseException:
        if lock is not None:
            lock.release()
        raise


def _check(database: Database, migrations: Sequence[schema.Migration], *, read_only: bool) -> _Opened:
    """What the open database is. Closes it and raises for everything that is wrong with it."""
    path = database.path
    try:
        with database.cursor() as cursor:
            version = schema.inspect(cursor, path, migrations)
            schema.check_usable(version, path, len(migrations), read_only=read_only)
            ((seq, count, last),) = ask(cursor, "last_event")
        if last != count:
            raise CatalogCorruptError(
                f"The catalog {path} holds {count} events, and the last one is number {last}.",
                remedy="Put a backup in its place with `headwater catalog restore FILE`; it was not touched.",
            )
        head = read_head(path.parent / HEAD_FILE)
        if head is not None:
            compare(path, version, seq, head)
    except BaseException:
        database.close()
        raise
    return _Opened(database=database, version=version, seq=seq, left_behind=seq > count)


def compare(path: Path, version: schema.Version, seq: int, head: Head) -> None:
    """Raise `LostCommitsError` where the database at `path`, whose last event is `seq`, holds less than its head says.

    And `CatalogCorruptError` for a head of another catalog.
    """
    if head.catalog_id != version.catalog_id:
        raise CatalogCorruptError(
            f"{path.parent / HEAD_FILE} belongs to another catalog than {path}, so neither can vouch for the other.",
            remedy=f"Put back the one that belongs here. To go on with this catalog: rm {path.parent / HEAD_FILE}",
        )
    if head.seq > seq:
        missing = head.seq - seq
        raise LostCommitsError(
            f"The catalog {path} holds {seq} events, and {head.seq} were committed: the last {missing} are gone.",
            remedy=f"Bring back {path.name}.wal if the database was moved or copied without it, or put a backup in its "
            "place with `headwater catalog restore FILE`. Nothing was touched. "
            f"To go on without them: rm {path.parent / HEAD_FILE}",
        )


def check_absent(home: Path) -> None:
    """Raise `LostCommitsError` where the database file is gone, and not just not made yet."""
    with reachable(home):
        left = [log for log in LOGS if (home / log).exists()]
        head = read_head(home / HEAD_FILE)
    if left or (head is not None and head.seq):
        rest = left[0] if left else HEAD_FILE
        raise LostCommitsError(
            f"There is no {DATABASE_FILE} in {home}, but {rest}: the database was moved or removed.",
            remedy="Bring it back, or put a backup in its place with `headwater catalog restore FILE`. "
            f"To begin a new catalog: rm {home}/catalog.*",
        )


def _create(home: Path, migrations: Sequence[schema.Migration], clock: Clock) -> None:
    """Make a catalog: under another name, renamed when it is complete, so that there is never half of one."""
    check_absent(home)
    unfinished = home / f"{DATABASE_FILE}.new"
    for leftover in (unfinished, home / f"{unfinished.name}.wal"):
        leftover.unlink(missing_ok=True)
    catalog_id = new_id(clock.now())
    with reported(unfinished):
        connection = connect(unfinished)
        try:
            schema.migrate(connection, migrations, clock.now(), catalog_id=catalog_id)
        finally:
            connection.close()
    head = HeadFile(home / HEAD_FILE, catalog_id)
    head.write(0, sync=True)
    head.close()
    unfinished.rename(home / DATABASE_FILE)
    folder = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _migrate(path: Path, version: schema.Version, migrations: Sequence[schema.Migration], clock: Clock) -> Path:
    """Bring a catalog up to date; says where it is kept as it was."""
    now = clock.now()
    backup = path.with_name(f"catalog.backup-{version.schema:04}-{now:%Y%m%dT%H%M%S.%f}.duckdb")
    with reported(path):
        copy(path, backup).close()
        connection = connect(path)
        try:
            schema.migrate(connection, migrations[version.schema :], now)
        finally:
            connection.close()
    return backup


@dataclass(frozen=True, slots=True, kw_only=True)
class Migrated:
    """What bringing a catalog up to date did, or would do."""

    #: The numbers of migrations that it had, and that this program knows.
    before: int
    known: int
    #: Which program applied the last of those that it had.
    program: str
    #: Where it is kept as it was; None where nothing was done.
    backup: Path | None = None


def migrate(home: Path, *, wait: float, dry_run: bool, clock: Clock | None = None) -> Migrated:
    """Bring the catalog in `home` up to date, as opening it for writing does; with `dry_run`, only look.

    Raises as `open_catalog` does; for a catalog of a newer program `CatalogTooNewError`.
    """
    clock = clock or SystemClock()
    home, migrations = home.resolve(), schema.load()
    path = home / DATABASE_FILE
    with reachable(home):
        check_permissions(home)
        if not path.exists():
            check_absent(home)
            raise _nothing_to_read(home, True)
        lock = acquire(home, shared=dry_run, wait=wait, clock=clock, command=command_line())
        try:
            found = _check(Database(path, read_only=True), migrations, read_only=False)
            found.database.close()
            version = found.version
            result = Migrated(before=version.schema, known=len(migrations), program=version.program)
            if dry_run or version.schema >= len(migrations):
                return result
            with private_files():
                return replace(result, backup=_migrate(path, version, migrations, clock))
        finally:
            if lock is not None:
                lock.release()


def make_home(home: Path) -> bool:
    """Make the folder, for its owner alone; False where that is not allowed."""
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
    except PermissionError:
        return False
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
        return False
    return True


def _is_writable(home: Path) -> bool:
    if not os.access(home, os.W_OK | os.X_OK):
        return False
    return all(os.access(home / name, os.W_OK) for name in _OURS if (home / name).exists())


def insecure(home: Path) -> Iterator[InsecurePermissionsError]:
    """What others than the owner could change of the catalog in `home`."""
    for path in (home, *(home / name for name in _OURS)):
        try:
            mode = path.lstat().st_mode
        except FileNotFoundError:
            continue
        if stat.S_ISLNK(mode):
            yield InsecurePermissionsError(
                f"{path} is a symbolic link, and whoever can change where it leads could change the catalog.",
                remedy="Put the catalog itself there, or name the folder that it is in as the home.",
            )
        elif mode & _OTHERS_MAY_WRITE:
            yield InsecurePermissionsError(
                f"{path} may be written by others than its owner (mode {stat.S_IMODE(mode):04o}).",
                remedy=f"If nobody else had a hand in it: chmod go-w {path}",
            )


def check_permissions(home: Path) -> None:
    """Raise `InsecurePermissionsError` where others than the owner could change the catalog in `home`."""
    for error in insecure(home):
        raise error


def _nothing_to_read(home: Path, read_only: bool) -> CatalogError:
    if read_only:
        return CatalogError(
            f"There is no catalog in {home}.", remedy="Materialize something first, or name another home."
        )
    return ReadOnlyCatalogError(
        f"There is no catalog in {home}, and you may not make one there.",
        remedy="Make the folder writable by you, or name another home.",
    )


def command_line() -> str:
    """The command as its user typed it, for the eyes of who waits for it."""
    return " ".join(sys.argv)[:200]


_umask = threading.Lock()


@contextmanager
def private_files() -> Generator[None]:
    """Files made inside are for their owner alone. The mask is the whole process's, so one thread at a time."""
    with _umask:
        before = os.umask(0o077)
        try:
            yield
        finally:
            os.umask(before)
