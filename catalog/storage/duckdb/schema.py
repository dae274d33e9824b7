"""The catalog's schema: numbered migrations, and who may use a catalog that was made by another version.

A migration is a file `NNNN_name.sql`, numbered from 1 without gaps and never changed once released. It says in its
first lines which programs may go on using the catalog afterwards: `-- min_reader: N` and `-- min_writer: N` are the
least numbers of migrations that a program must know to read and to write it (the rule of Delta Lake's protocol
versions). Each is applied in one transaction together with its record, and followed by a checkpoint, so that no
change of the schema is ever replayed from the write-ahead log.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from headwater import __version__
from headwater.catalog.errors import CatalogError, CatalogTooNewError, ForeignCatalogError
from headwater.catalog.storage.duckdb.rows import timestamp

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

FORMAT = "headwater-catalog"

_FILE = re.compile(r"(\d{4})_(\w+)\.sql")
_HEADER = re.compile(r"-- min_reader: (\d+)\n-- min_writer: (\d+)\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """One step of the schema."""

    number: int
    name: str
    sql: str
    checksum: str
    #: What a program must know to read and to write the catalog after it.
    min_reader: int
    min_writer: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """What a catalog says of itself."""

    catalog_id: str
    #: The number of its last migration.
    schema: int
    min_reader: int
    min_writer: int
    #: Which program applied the last migration.
    program: str


def load(folder: Path | None = None) -> tuple[Migration, ...]:
    """The migrations in `folder`, in order; by default those of this program.

    Raises `ValueError` for a file that breaks the rules above.
    """
    found: list[Migration] = []
    for path in sorted((folder or Path(__file__).parent / "migrations").glob("*.sql")):
        sql = path.read_text(encoding="utf-8")
        named, header = _FILE.fullmatch(path.name), _HEADER.match(sql)
        if named is None or header is None:
            raise ValueError(f"{path.name}: not named NNNN_name.sql, or without min_reader and min_writer")
        number = int(named[1])
        if number != len(found) + 1:
            raise ValueError(f"{path.name}: migration {len(found) + 1:04} is missing, or there are two")
        found.append(
            Migration(
                number=number,
                name=named[2],
                sql=sql,
                checksum=hashlib.blake2b(sql.encode(), digest_size=16).hexdigest(),
                min_reader=int(header[1]),
                min_writer=int(header[2]),
            )
        )
    return tuple(found)


def inspect(connection: "DuckDBPyConnection", path: Path, migrations: Sequence[Migration]) -> Version:
    """What the open database at `path` is. Changes nothing.

    Raises `ForeignCatalogError` for a database that is no catalog, `CatalogError` for a catalog whose migrations are
    not ours.
    """
    meta = _meta(connection)
    if meta.get("format") != FORMAT:
        raise ForeignCatalogError(
            f"{path} is a database, and not a catalog of Headwater's.",
            remedy="Move it away, or name another home; it was not touched.",
        )
    applied = connection.execute("select number, name, checksum, program from migration order by number").fetchall()
    for (number, name, checksum, _), expected in zip(applied, migrations, strict=False):
        if (number, checksum) != (expected.number, expected.checksum):
            raise CatalogError(
                f"The catalog {path} was brought to version {number} by another migration, '{name}', than this "
                f"program's '{expected.name}'.",
                remedy="Use the program that wrote it; it was not touched.",
            )
    return Version(
        catalog_id=meta["catalog_id"],
        schema=len(applied),
        min_reader=int(meta["min_reader"]),
        min_writer=int(meta["min_writer"]),
        program=applied[-1][3],
    )


def check_usable(version: Version, path: Path, known: int, *, read_only: bool) -> None:
    """Raise `CatalogTooNewError` where a program that knows `known` migrations must not use a catalog."""
    if version.min_reader > known:
        raise CatalogTooNewError(
            f"The catalog {path} was written by Headwater {version.program}, which this one cannot read.",
            remedy=f"Upgrade Headwater to {version.program} or newer; the catalog was not touched.",
        )
    if version.min_writer > known and not read_only:
        raise CatalogTooNewError(
            f"The catalog {path} was written by Headwater {version.program}; this one may only read it.",
            remedy=f"Upgrade Headwater to {version.program} or newer, or open it read-only; it was not touched.",
        )
    if version.schema < known and read_only:
        raise CatalogError(
            f"The catalog {path} is of an older Headwater and has to be brought up to date first.",
            remedy="Run `headwater catalog migrate`; a backup is made.",
        )


def migrate(
    connection: "DuckDBPyConnection", migrations: Sequence[Migration], now: datetime, *, catalog_id: str | None = None
) -> None:
    """Apply `migrations`, all or none; `catalog_id` is given for a new catalog. Raises `duckdb.Error`."""
    connection.begin()
    try:
        for migration in migrations:
            connection.execute(migration.sql).fetchall()
            connection.execute(
                "insert into migration values (?, ?, ?, ?, ?)",
                [migration.number, migration.name, migration.checksum, timestamp(now), __version__],
            ).fetchall()
            connection.execute("delete from meta where name in ('min_reader', 'min_writer')").fetchall()
            meta = {"min_reader": str(migration.min_reader), "min_writer": str(migration.min_writer)}
            if catalog_id is not None and migration.number == 1:
                meta |= {"format": FORMAT, "catalog_id": catalog_id, "created": timestamp(now)}
            for entry in meta.items():
                connection.execute("insert into meta values (?, ?)", list(entry)).fetchall()
        connection.commit()
    except BaseException:
        connection.rollback()
        raise
    connection.execute("checkpoint").fetchall()


def _meta(connection: "DuckDBPyConnection") -> Mapping[str, str]:
    """The rows of `meta`, none where there is no such table or another of that name."""
    import duckdb

    try:
        return dict(connection.execute("select name::varchar, value::varchar from meta").fetchall())
    except (duckdb.CatalogException, duckdb.BinderException):
        return {}
