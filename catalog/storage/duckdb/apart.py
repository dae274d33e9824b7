"""Looking at a database file that may be damaged or somebody else's, in a process of its own.

DuckDB promises nothing for files that it did not write: reading one may crash the process, or never end. So a child
reads it, with limits, and says what it found; what becomes of the child is a finding too.

    python -m headwater.catalog.storage.duckdb.apart SOURCE [TARGET]
"""

import json
import resource
import signal
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headwater.catalog import errors
from headwater.catalog.errors import CatalogCorruptError, HeadwaterError, TimedOutError
from headwater.catalog.storage import journal
from headwater.catalog.storage.duckdb import schema
from headwater.catalog.storage.duckdb.connection import connect, copy, reported_as_opening
from headwater.catalog.storage.duckdb.reading import ask
from headwater.catalog.storage.duckdb.rows import aware_or_none

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

#: What the child may take: four times DuckDB's own limit of memory in addresses, and half an hour.
ADDRESS_BYTES = 8 * 1024**3
SECONDS = 1800


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What a file holds, all of which was read."""

    version: schema.Version
    #: The number of the last event.
    seq: int
    #: How many of them are in the journal.
    in_journal: int
    #: When the last event happened.
    last: datetime | None


def look(source: Path, target: Path | None = None) -> Contents:
    """Read every block of the catalog in the file `source`; with `target`, by copying it to that new file.

    Nobody else may have it open. What is in a write-ahead log beside it counts; neither is changed.
    Raises `CatalogCorruptError`, `ForeignCatalogError`, `CatalogTooNewError`, `CatalogError`, `BusyError` and
    `TimedOutError`.
    """
    command = [sys.executable, "-P", "-m", __name__, str(source), *([] if target is None else [str(target)])]
    try:
        done = subprocess.run(command, capture_output=True, check=False, timeout=SECONDS, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        raise TimedOutError(
            f"{source} was not read within {SECONDS // 60} minutes.", remedy="It may be damaged: use another backup."
        ) from None
    try:
        answer: Any = json.loads(done.stdout)
    except ValueError:
        raise CatalogCorruptError(
            f"{source} {_fate(done.returncode, done.stderr)}, so it is damaged or no catalog.",
            remedy="Use another backup; it was not touched.",
        ) from None
    if "error" in answer:
        kind: type[HeadwaterError] = getattr(errors, answer["error"])
        raise kind(answer["message"], remedy=answer["remedy"])
    last = answer["last"]
    return Contents(
        version=schema.Version(**answer["version"]),
        seq=answer["seq"],
        in_journal=answer["in_journal"],
        last=None if last is None else datetime.fromisoformat(last),
    )


def _fate(code: int, stderr: bytes) -> str:
    if code < 0:
        return f"ended the process that read it with {signal.Signals(-code).name}"
    lines = stderr.decode(errors="replace").strip().splitlines()
    return f"could not be read ({lines[-1] if lines else f'exit code {code}'})"


def main(source: Path, target: Path | None) -> None:
    """Read a file and print what it holds, or what is wrong with it, as JSON."""
    for limit, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_AS, ADDRESS_BYTES),
        (resource.RLIMIT_CPU, SECONDS),
    ):
        resource.setrlimit(limit, (value, value))
    try:
        with reported_as_opening(source):
            found = _read(source, target)
    except HeadwaterError as error:
        answer = {"error": type(error).__name__, "message": error.message, "remedy": error.remedy}
    else:
        answer = {**asdict(found), "last": found.last and found.last.isoformat()}
    sys.stdout.write(json.dumps(answer))


def _read(source: Path, target: Path | None) -> Contents:
    if target is not None:
        # The views of a stranger are copied as text: they read nothing before somebody asks for them.
        connection = copy(source, target)
        connection.execute("checkpoint target").fetchall()
        connection.execute("use target").fetchall()
    else:
        connection = connect(source, read_only=True)
    try:
        if target is None:
            _read_all(connection)
        return _contents(connection, source)
    finally:
        connection.close()


def _read_all(connection: "DuckDBPyConnection") -> None:
    """Every column of every row, as DuckDB compares a block's checksum when it reads it."""
    names = connection.execute("select table_name from duckdb_tables() where database_name = current_database()")
    for (name,) in names.fetchall():
        quoted = '"' + name.replace('"', '""') + '"'
        connection.execute(f"select bit_xor(hash(everything)) from {quoted} as everything").fetchall()  # noqa: S608


def _contents(connection: "DuckDBPyConnection", source: Path) -> Contents:
    version = schema.inspect(connection, source, schema.load())
    ((seq, count, last_in_tables),) = ask(connection, "last_event")
    if count != last_in_tables:
        raise CatalogCorruptError(
            f"{source} holds {count} events, and the last one is number {last_in_tables}.",
            remedy="Use another backup; it was not touched.",
        )
    ((_, last),) = ask(connection, "identity")
    found = Contents(version=version, seq=seq, in_journal=seq - count, last=aware_or_none(last))
    texts = ask(connection, "journal")
    return replace(found, last=journal.read_appends(texts[-1][0])[-1][1][-1].time) if texts else found


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
