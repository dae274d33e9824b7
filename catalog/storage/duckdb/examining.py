"""Examining the files of a catalog, without changing anything and without failing at the first thing that is wrong."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from headwater.catalog.clock import Clock
from headwater.catalog.errors import BusyError, CatalogError, HeadwaterError, LostCommitsError
from headwater.catalog.storage.duckdb import schema
from headwater.catalog.storage.duckdb.apart import Contents, look
from headwater.catalog.storage.duckdb.head import HEAD_FILE, Head, read_head
from headwater.catalog.storage.duckdb.opening import (
    DATABASE_FILE,
    LOGS,
    check_absent,
    command_line,
    compare,
    insecure,
    reachable,
)
from headwater.catalog.storage.lock import LockHolder, acquire, holder

#: File systems that lie on another machine, or may: DuckDB's log and our lock need a local disk.
_NETWORK = frozenset(("9p", "afs", "beegfs", "ceph", "cifs", "davfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "smb3"))
_NETWORK_PREFIXES = ("fuse.", "smbfs", "wekafs")


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """What the files of a catalog are."""

    #: Who held it; None where nobody did.
    holder: LockHolder | None
    #: None where it could not be read: another process writes, it is damaged, there is none.
    contents: Contents | None
    #: The number of the schema that this program makes.
    known: int
    head: Head | None
    file_system: str
    #: Bytes that are committed and not yet in the database file.
    log_bytes: int
    #: What is wrong.
    problems: tuple[HeadwaterError, ...]
    #: What is as it may be, and should be known.
    notes: tuple[HeadwaterError, ...]


def examine(home: Path, *, clock: Clock) -> Examination:
    """Examine the catalog in `home`. Raises `CatalogError` for a home that cannot be looked at."""
    home = home.resolve()
    path = home / DATABASE_FILE
    with reachable(home):
        problems: list[HeadwaterError] = list(insecure(home))
        log_bytes = sum((home / log).stat().st_size for log in LOGS if (home / log).exists())
        held, contents = holder(home), None
        if not path.exists():
            problems += _raised_by_absence(home)
        elif not problems:
            try:
                lock = acquire(home, shared=True, wait=0, clock=clock, command=command_line())
                try:
                    contents = look(path)
                finally:
                    if lock is not None:
                        lock.release()
            except BusyError:
                held = held or holder(home)
            except HeadwaterError as error:
                problems.append(error)
        head = None
        try:
            head = read_head(home / HEAD_FILE)
            if contents and head:
                compare(path, contents.version, contents.seq, head)
        except HeadwaterError as error:
            problems.append(error)
    known = len(schema.load())
    if contents is not None:
        try:
            schema.check_usable(contents.version, path, known, read_only=False)
        except HeadwaterError as error:
            problems.append(error)
    file_system = file_system_of(home, Path("/proc/self/mountinfo"))
    if file_system in _NETWORK or file_system.startswith(_NETWORK_PREFIXES):
        problems.append(
            CatalogError(
                f"{home} lies on a network file system ({file_system}), where a lock may not hold, and a commit "
                "that was acknowledged may not be there after a failure.",
                remedy="Put the home on a local disk (--home, HEADWATER_HOME); data may stay where they are.",
            )
        )
    return Examination(
        holder=held,
        contents=contents,
        known=known,
        head=head,
        file_system=file_system,
        log_bytes=log_bytes,
        problems=tuple(problems),
        notes=tuple(_notes(path, contents, known, head, held)),
    )


def _raised_by_absence(home: Path) -> list[HeadwaterError]:
    try:
        check_absent(home)
    except HeadwaterError as error:
        return [error]
    return []


def _notes(
    path: Path, contents: Contents | None, known: int, head: Head | None, held: LockHolder | None
) -> Iterator[HeadwaterError]:
    if held is not None:
        yield CatalogError(f"The catalog is held by {held}.", remedy="Nothing is wrong with that.")
    if contents is None:
        return
    if contents.in_journal:
        yield CatalogError(
            f"{path} holds {contents.in_journal} committed events in its journal that a killed process left there.",
            remedy="The next command that opens it moves them on; nothing is lost.",
        )
    if contents.version.schema < known:
        yield CatalogError(
            f"{path} is of schema {contents.version.schema}, and this Headwater makes {known}.",
            remedy="`headwater catalog migrate` brings it up to date, and so does any command that writes.",
        )
    if head is None and contents.seq:
        yield LostCommitsError(
            f"There is no {path.parent / HEAD_FILE}, so nothing would tell if the last commits of {path} were gone.",
            remedy="The next command that writes makes one.",
        )


def file_system_of(folder: Path, mounts: Path) -> str:
    """The type of the file system that `folder` lies on, by Linux's list of `mounts`; empty where that is not known."""
    try:
        lines = os.fsdecode(mounts.read_bytes()).splitlines()
    except OSError:
        return ""
    best, found = "", ""
    for line in lines:
        fields, _, rest = line.partition(" - ")
        point = fields.split(" ")[4].encode().decode("unicode_escape") if len(fields.split(" ")) > 4 else ""
        inside = point == "/" or f"{folder}/".startswith(f"{point}/")
        if point and inside and len(point) >= len(best):  # of two mounts on one folder, the later hides the earlier
            best, found = point, rest.split(" ", 1)[0]
    return found
