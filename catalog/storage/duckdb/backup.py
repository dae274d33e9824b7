"""A backup of a catalog that is open: a copy in SQL, made while others go on writing.

DuckDB copies one database to another in one statement, which sees one state. The copy is made in a private folder of
the home, the only place beside the database that the catalog's connection may reach, and gets its name when it is
complete and synced. It carries the journal and the catalog's identifier, so it opens by itself; a head it needs none,
as nothing can be lost from what never had a write-ahead log.
"""

import contextlib
import errno
import os
import shutil
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from headwater.catalog.errors import CatalogError, ConflictError, DiskFullError, UsageError
from headwater.catalog.records import Backup
from headwater.catalog.storage.duckdb.connection import Database, attachment, literal
from headwater.catalog.storage.duckdb.reading import ask
from headwater.catalog.storage.duckdb.rows import aware

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

#: The folder below the home that backups go to unless another place is named.
BACKUPS = "backups"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@runtime_checkable
class SupportsBackup(Protocol):
    """A storage that can back itself up: one that has the file open, or asks who has."""

    def backup(self, target: Path, *, replace: bool = False) -> Backup:
        """See `DuckDBStorage.backup`."""
        ...


def default_name(now: datetime) -> str:
    """What a backup is called that is made now."""
    return f"catalog-{now:%Y%m%dT%H%M%SZ}.duckdb"


def make(database: Database, target: Path, *, replace: bool) -> Backup:
    """Back the open `database` up to the file `target`; one caller at a time.

    Raises `ConflictError` where there is one and it is not to be replaced, `UsageError` for a place that a backup
    cannot have, `DiskFullError` and `CatalogError`; nothing is left then.
    """
    home = database.path.parent
    target = target.parent.resolve() / target.name
    if target.is_dir() or (target.parent == home and target.name.startswith("catalog.")):
        raise UsageError(f"A backup cannot be called {target}.", remedy="Name a file of its own.")
    if not replace and os.path.lexists(target):
        raise _exists(target)
    unfinished = database.unfinished
    shutil.rmtree(unfinished, ignore_errors=True)  # what a killed process left
    try:
        _check_room(database)
        unfinished.mkdir(mode=0o700)
        copy = unfinished / "catalog.duckdb"
        with database.cursor() as cursor:
            catalog_id, events, last = _copy(cursor, copy)
        copy.chmod(0o600)
        _publish(copy, target, replace)
    except OSError as error:
        kind = DiskFullError if error.errno in _FULL else CatalogError
        raise kind(
            f"The backup {target} could not be written: {error.strerror}.",
            remedy="Name a place where there is room and where you may write. The catalog is as it was.",
        ) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return Backup(path=target, catalog_id=catalog_id, events=events, last=last, bytes=target.stat().st_size)


def _copy(cursor: "DuckDBPyConnection", copy: Path) -> tuple[str, int, datetime | None]:
    """Copy the database of `cursor` to a new file: which catalog it is, how many events it holds, until when."""
    ((name,),) = cursor.execute("select current_database()").fetchall()
    cursor.execute(attachment(copy, "backup")).fetchall()
    try:
        cursor.execute(f'copy from database "{name}" to backup').fetchall()
        cursor.execute("checkpoint backup").fetchall()
        cursor.execute("use backup").fetchall()
        ((seq, _, _),) = ask(cursor, "last_event")
        ((catalog_id, last),) = ask(cursor, "identity")
        return catalog_id, seq, None if last is None else aware(last)
    finally:
        cursor.execute(f"use {literal(name)}").fetchall()
        cursor.execute("detach backup").fetchall()


def _check_room(database: Database) -> None:
    """Raise `DiskFullError` before DuckDB meets a full disk, which costs it the connections to the catalog too."""
    needed = database.path.stat().st_size + database.log_bytes()
    state = os.statvfs(database.path.parent)
    free = state.f_bavail * state.f_frsize
    if free < needed:
        raise DiskFullError(
            f"A backup takes up to {needed:,} bytes, and {free:,} are free in {database.path.parent}.",
            remedy="Make room there; a backup is made there, wherever it is put then.",
        )


def _publish(copy: Path, target: Path, replace: bool) -> None:
    """Give a complete copy its name, so that it is there whole or not at all, whatever happens."""
    sync(copy)
    if copy.stat().st_dev != target.parent.stat().st_dev:
        beside = target.with_name(f".{target.name}.{os.urandom(4).hex()}")
        try:
            with copy.open("rb") as source, os.fdopen(os.open(beside, _CREATE, 0o600), "wb") as written:
                shutil.copyfileobj(source, written, 1024 * 1024)
            sync(beside)
            _rename(beside, target, replace)
        finally:
            beside.unlink(missing_ok=True)
    else:
        _rename(copy, target, replace)
    sync(target.parent)


_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def _rename(source: Path, target: Path, replace: bool) -> None:
    if replace:
        source.replace(target)
        return
    try:
        os.link(source, target)  # unlike a rename it replaces nothing, whoever was quicker
    except FileExistsError:
        raise _exists(target) from None
    except OSError:  # a file system without links
        if os.path.lexists(target):
            raise _exists(target) from None
        source.replace(target)
    else:
        source.unlink()


def sync(path: Path) -> None:
    """Let a file, or the names in a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError) if path.is_dir() else contextlib.nullcontext():
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _exists(target: Path) -> ConflictError:
    return ConflictError(f"There is a file {target} already.", remedy="Name another, or replace it with --force.")
