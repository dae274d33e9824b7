"""Putting a backup in the place of a catalog.

The file is read in full in a process of its own, which makes a copy of it for us: what is put in place is a file that
our DuckDB wrote. Then, with the lock held, the present files are kept aside under a dated name, and the write-ahead
log goes, the database is replaced and the head is written, in this order: killed in between, what is left holds less
than its head says, so it is refused with the remedy to restore, never opened as something that it is not.
"""

import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from headwater.catalog.clock import Clock
from headwater.catalog.errors import CatalogError, HeadwaterError, UsageError
from headwater.catalog.storage.duckdb import schema
from headwater.catalog.storage.duckdb.apart import Contents, look
from headwater.catalog.storage.duckdb.backup import sync
from headwater.catalog.storage.duckdb.head import HEAD_FILE, HeadFile, read_head
from headwater.catalog.storage.duckdb.opening import (
    DATABASE_FILE,
    LOGS,
    check_permissions,
    command_line,
    make_home,
    private_files,
    reachable,
)
from headwater.catalog.storage.lock import acquire


@dataclass(frozen=True, slots=True, kw_only=True)
class Restoration:
    """A backup that is ready to be put in the place of the catalog in `home`."""

    home: Path
    source: Path
    backup: Contents
    #: What is there now; None where it cannot be read, and where nothing is there.
    present: Contents | None
    #: Why what is there now cannot be read.
    damage: str
    #: How many events were ever committed, as far as anything knows.
    committed: int
    #: The checked copy.
    copy: Path
    #: Where the present files are kept aside.
    aside: Path

    @property
    def is_another(self) -> bool:
        """Whether the backup is of another catalog than the one that is there."""
        return self.present is not None and self.present.version.catalog_id != self.backup.version.catalog_id

    @property
    def lost(self) -> int:
        """How many events are in no place but aside, afterwards."""
        return self.committed if self.is_another else max(0, self.committed - self.backup.seq)

    def carry_out(self) -> Path | None:
        """Put the backup in place; says where the files that were there are, None where there were none."""
        with reachable(self.home), private_files():
            kept = self._keep_aside()
            for log in LOGS:
                (self.home / log).unlink(missing_ok=True)
            sync(self.home)
            self.copy.replace(self.home / DATABASE_FILE)
            (self.home / HEAD_FILE).unlink(missing_ok=True)
            head = HeadFile(self.home / HEAD_FILE, self.backup.version.catalog_id)
            head.write(self.backup.seq, sync=True)
            head.close()
            sync(self.home)
        return kept

    def _keep_aside(self) -> Path | None:
        """Copies of the files that are there: links, where there can be, as none of them is written to any more."""
        present = [name for name in (DATABASE_FILE, *LOGS, HEAD_FILE) if (self.home / name).is_file()]
        if not present:
            return None
        self.aside.mkdir()
        for name in present:
            try:
                os.link(self.home / name, self.aside / name)
            except OSError:
                shutil.copyfile(self.home / name, self.aside / name)
                sync(self.aside / name)
        sync(self.aside)
        sync(self.home)
        return self.aside


@contextmanager
def restoring(
    source: Path, home: Path, *, wait: float, clock: Clock, command: str | None = None
) -> Generator[Restoration]:
    """Check the backup `source`, and hold the catalog in `home` while somebody decides.

    Nothing is changed before `Restoration.carry_out`. Raises `BusyError` naming who holds the catalog, and for the file
    what `apart.look` raises.
    """
    source, home = source.resolve(), home.resolve()
    if not source.is_file():
        raise UsageError(f"There is no file {source}.", remedy="`headwater catalog backup` makes backups.")
    if source == home / DATABASE_FILE:
        raise UsageError(f"{source} is the catalog itself.", remedy="Name the backup to put in its place.")
    with reachable(home):
        if not make_home(home) or not os.access(home, os.W_OK | os.X_OK):
            raise CatalogError(f"You may not write in {home}.", remedy="Make the folder writable by you.")
        check_permissions(home)
        lock = acquire(home, shared=False, wait=wait, clock=clock, command=command or command_line())
        unfinished = home / "catalog.restore"
        try:
            with private_files():
                shutil.rmtree(unfinished, ignore_errors=True)
                unfinished.mkdir()
            copy = unfinished / DATABASE_FILE
            backup = look(source, copy)
            schema.check_usable(backup.version, source, len(schema.load()), read_only=False)
            copy.chmod(0o600)
            sync(copy)
            present, damage = _present(home)
            yield Restoration(
                home=home,
                source=source,
                backup=backup,
                present=present,
                damage=damage,
                committed=max(_head_seq(home), present.seq if present else 0),
                copy=copy,
                aside=home / f"catalog.replaced-{clock.now():%Y%m%dT%H%M%S.%f}",
            )
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
            if lock is not None:
                lock.release()


def _present(home: Path) -> tuple[Contents | None, str]:
    """What the catalog in `home` holds, or why that cannot be said."""
    if not (home / DATABASE_FILE).exists():
        return None, ""
    try:
        return look(home / DATABASE_FILE), ""
    except HeadwaterError as error:
        return None, error.message


def _head_seq(home: Path) -> int:
    try:
        head = read_head(home / HEAD_FILE)
    except (HeadwaterError, OSError):
        return 0
    return head.seq if head else 0
