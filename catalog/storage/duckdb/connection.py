"""The connection to the database file: how it is opened, what guards it, what its errors mean."""

import contextlib
import os
import re
import threading
import weakref
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from headwater.catalog.errors import (
    BusyError,
    CatalogCorruptError,
    CatalogError,
    CatalogTooNewError,
    DiskFullError,
    ForeignCatalogError,
    ForkedCatalogError,
    HeadwaterError,
    ReadOnlyCatalogError,
)

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

#: The file format: that of the oldest DuckDB we work with, so that two versions may share a catalog.
STORAGE_VERSION = "v1.5.0"
#: 16 KiB, DuckDB's least, so that a small table takes 16 KiB and not 256; scans of millions of rows are as fast.
BLOCK_BYTES = 16384
#: What DuckDB may use for sorting, joining and caching. Beyond it, it spills to `catalog.duckdb.tmp`.
MEMORY_LIMIT = "2GB"
MAX_THREADS = 4
#: Larger than any write-ahead log gets: we checkpoint ourselves, apart from commits (see `Database.checkpoint`).
_NEVER = "1TB"

_DISK_FULL = re.compile("No space left on device|File too large|Disk quota exceeded", re.IGNORECASE)
_DAMAGED = re.compile(
    "corrupt|checksum|could not read enough bytes|replaying WAL|deserializ|WAL does not match|INTERNAL Error",
    re.IGNORECASE,
)
_RESTORE = "Put a backup in its place with `headwater catalog restore FILE`, which keeps this one aside."


class Database:
    """An open database file, for one process and any number of threads.

    Reads each take a `cursor`. The one `writer` works without DuckDB's optimizer, which costs a fifth of a small
    INSERT and does nothing for it.
    """

    def __init__(self, path: Path, *, read_only: bool, in_memory: bool = False) -> None:
        self.path = path
        self._read_only = read_only
        #: Work on a copy in memory, which may change whatever `path` may.
        self._in_memory = in_memory
        self._pid = os.getpid()
        self._closed = False
        #: Whether something in the file was found damaged.
        self._damaged = False
        self._root: DuckDBPyConnection | None = None
        self._writer: DuckDBPyConnection | None = None
        self._cursors: set[DuckDBPyConnection] = set()
        self._changed = threading.Condition()
        self._connect()
        _databases.add(self)

    @property
    def unfinished(self) -> Path:
        """The folder that backups are made in: the one place beside the database that its connections may reach."""
        return self.path.parent / "catalog.backup"

    @property
    def writer(self) -> "DuckDBPyConnection":
        """The connection that writes; its user sees to it that there is one user at a time.

        Raises `ForkedCatalogError` after a fork and `CatalogError` once closed, as `cursor` does.
        """
        self._connect()
        assert self._writer is not None
        return self._writer

    @contextmanager
    def cursor(self) -> "Generator[DuckDBPyConnection]":
        """A connection that reads, for a while. DuckDB's errors inside become ours."""
        self._check_process()
        with self._changed:
            cursor = self._connect().cursor()
            self._cursors.add(cursor)
        try:
            with self.reported():
                yield cursor
        finally:
            with self._changed:
                cursor.close()
                self._cursors.discard(cursor)
                self._changed.notify_all()

    @contextmanager
    def reported(self) -> Generator[None]:
        """A block whose DuckDB errors become ours; after one about damage, the file and its log stay as
        they are: no checkpoint mixes what is broken with what is not."""
        try:
            with reported(self.path):
                yield
        except CatalogCorruptError:
            self._damaged = True
            raise

    def drop(self) -> None:
        """Give up connections that an error made useless; the next use opens the file afresh."""
        import duckdb

        with self._changed:
            connections = (self._writer, self._root)
            if self._damaged and self._root is not None:
                with contextlib.suppress(duckdb.Error):
                    self._root.execute("pragma disable_checkpoint_on_shutdown").fetchall()
            self._writer = self._root = None
            for connection in connections:
                if connection is not None:
                    with contextlib.suppress(duckdb.Error):
                        connection.close()

    def checkpoint(self) -> None:
        """Bring the database file up to date and empty the write-ahead log, if it is sound and nobody is in the way.

        DuckDB invalidates the whole database when it fails, on a full disk say. Nothing is lost then but time.
        """
        import duckdb

        if self._damaged:
            return
        try:
            self.writer.execute("checkpoint").fetchall()
        except duckdb.TransactionException:
            pass  # a long read is under way
        except duckdb.Error:
            self.drop()

    def log_bytes(self) -> int:
        """The size of the write-ahead log, which is made private: DuckDB makes a new one after each checkpoint."""
        log = f"{self.path}.wal"
        try:
            status = os.stat(log)
            if status.st_mode & 0o077:
                os.chmod(log, 0o600)
        except FileNotFoundError:
            return 0
        return status.st_size

    def close(self) -> None:
        """Let go of the file, bringing it up to date first if it is sound, and interrupting who still reads.

        Idempotent; does nothing in a forked child.
        """
        if os.getpid() != self._pid:
            return
        with self._changed:
            self._closed = True
            for cursor in self._cursors:
                cursor.interrupt()
            self._changed.wait_for(lambda: not self._cursors)
            self.drop()

    def leak(self) -> None:
        """In a forked child: make sure that the connections are never destroyed.

        DuckDB's destructor would checkpoint the parent's file and unlink the write-ahead log that the parent goes
        on writing to: measured with DuckDB 1.5.5 and 2.0.0, on an ordinary exit of the child.
        """
        import ctypes

        for connection in (self._root, self._writer):
            if connection is not None:
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise ForkedCatalogError(
                f"Process {os.getpid()} uses the catalog that process {self._pid} opened before it forked.",
                remedy="Open the catalog again in the new process, or start processes with 'spawn' or 'forkserver'.",
            )

    def _connect(self) -> "DuckDBPyConnection":
        self._check_process()
        with self._changed:
            if self._closed:
                raise CatalogError(f"The catalog {self.path} is closed.", remedy="Open it again.")
            if self._root is None:
                # Within one process DuckDB hands out the same instance, invalid or not, until its last user is gone.
                self._changed.wait_for(lambda: not self._cursors)
                with reported_as_opening(self.path):
                    reach = None if self._read_only else self.unfinished
                    root = (
                        copy(self.path)
                        if self._in_memory
                        else connect(self.path, read_only=self._read_only, reach=reach)
                    )
                    self._root = root
                    if self._in_memory or not self._read_only:
                        self._writer = self._root.cursor()
                        self._writer.execute("pragma disable_optimizer").fetchall()
            return self._root


_databases: "weakref.WeakSet[Database]" = weakref.WeakSet()


def _leak_all() -> None:
    for database in list(_databases):
        database.leak()


os.register_at_fork(after_in_child=_leak_all)


def connect(
    path: Path | str, *, read_only: bool = False, external: bool = False, reach: Path | None = None
) -> "DuckDBPyConnection":
    """A connection to the database at `path`, which it makes where there is none.

    Without `external`, SQL reaches no file but this one, and those in the folder `reach`. No extension is loaded
    beyond those in the wheel.
    """
    import duckdb

    connection = duckdb.connect(
        str(path),
        read_only=read_only,
        config={
            "storage_compatibility_version": STORAGE_VERSION,
            "default_block_size": BLOCK_BYTES,
            "memory_limit": MEMORY_LIMIT,
            "threads": min(MAX_THREADS, os.cpu_count() or 1),
            "checkpoint_threshold": _NEVER,
            "enable_external_access": external or reach is not None,
            "python_enable_replacements": False,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        },
    )
    connection.execute("set TimeZone = 'UTC'").fetchall()
    if reach is not None:
        connection.execute(f"set allowed_directories = [{literal(reach)}]").fetchall()
        connection.execute("set enable_external_access = false").fetchall()
    return connection


def copy(source: Path, target: Path | None = None) -> "DuckDBPyConnection":
    """A connection to a new copy of the database `source`, which this process has not open: in memory or at `target`.

    The copy is made in SQL: a file copy would miss what is in the write-ahead log.
    """
    connection = connect(":memory:", external=True)
    try:
        name = "memory"
        if target is not None:
            name = "target"
            connection.execute(attachment(target, name)).fetchall()
        connection.execute(f"attach {literal(source)} as source (read_only)").fetchall()
        connection.execute(f"copy from database source to {name}").fetchall()
        connection.execute("detach source").fetchall()
        connection.execute("set enable_external_access = false").fetchall()
    except BaseException:
        connection.close()
        raise
    return connection


def attachment(path: Path, name: str) -> str:
    """The statement that attaches a new database file in our format."""
    return f"attach {literal(path)} as {name} (storage_version '{STORAGE_VERSION}', block_size {BLOCK_BYTES})"


def literal(text: Path | str) -> str:
    """A text in SQL, for the few statements that take no parameter: ATTACH, SET."""
    return "'" + str(text).replace("'", "''") + "'"


@contextmanager
def reported_as_opening(path: Path) -> Generator[None]:
    """Turn DuckDB's errors, inside, into ours for a catalog at `path` that does not open."""
    import duckdb

    try:
        yield
    except duckdb.Error as error:
        raise _opening_error(path, str(error)) from error


@contextmanager
def reported(path: Path) -> Generator[None]:
    """Turn DuckDB's errors, inside, into ours for an open catalog."""
    import duckdb

    try:
        yield
    except duckdb.Error as error:
        raise running_error(path, str(error)) from error


def is_damage(reason: str) -> bool:
    """Whether what DuckDB said is about a broken or full disk rather than about the statement."""
    return bool(_DAMAGED.search(reason) or _DISK_FULL.search(reason))


def running_error(path: Path, reason: str) -> HeadwaterError:
    """Our error for what DuckDB said about the open catalog at `path`."""
    if _DISK_FULL.search(reason):
        return DiskFullError(
            f"There is no space for the catalog in {path.parent}: {_first_line(reason)}",
            remedy="Make room there and try again. Nothing of this write was kept; everything before it is safe.",
        )
    if _DAMAGED.search(reason):
        return CatalogCorruptError(f"The catalog {path} is damaged: {_first_line(reason)}", remedy=_RESTORE)
    return CatalogError(f"The catalog {path} could not do it: {_first_line(reason)}", remedy="Please report it.")


def _opening_error(path: Path, reason: str) -> HeadwaterError:
    line = _first_line(reason)
    if "lock on file" in reason or "different configuration" in reason:
        return BusyError(
            f"The catalog {path} is open in another program, which took no lock of ours: {line}",
            remedy="Close the other program; `headwater sql` reads a catalog that is in use.",
        )
    if "version number" in reason:
        return CatalogTooNewError(f"The catalog {path} needs a newer DuckDB: {line}", remedy="Upgrade duckdb.")
    # DuckDB takes a file of SQLite's for one that it needs an extension for.
    if any(sign in reason for sign in ("not a valid DuckDB database file", "external extensions", "sqlite_scanner")):
        return ForeignCatalogError(
            f"{path} is not a DuckDB database.", remedy="Move it away, or name another home; it was not touched."
        )
    if "Permission denied" in reason or "Read-only file system" in reason:
        return ReadOnlyCatalogError(f"The catalog {path} may not be opened: {line}", remedy="Check its permissions.")
    if _DISK_FULL.search(reason):
        return running_error(path, reason)
    return CatalogCorruptError(f"The catalog {path} does not open: {line}", remedy=f"Nothing was changed. {_RESTORE}")


def _first_line(reason: str) -> str:
    return reason.strip().partition("\n")[0]
