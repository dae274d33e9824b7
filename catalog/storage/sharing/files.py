"""SQL about the catalog and files of data together, when another process has the catalog."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from headwater.catalog.clock import SystemClock
from headwater.catalog.storage.base import FileRelation, QueryResult


def query_with_files(
    sql: str,
    parameters: Sequence[Any],
    relations: Mapping[str, Any],
    table: Callable[[str], bytes],
    folder: Path | None,
) -> QueryResult:
    """The answer to a query that may read `relations`, in this process.

    The files may be large and damaged, so the catalog's owner does not read them: it gives copies of the tables and
    views that the query names, as Parquet files (`table`), which lie in `folder` meanwhile,
    or where temporary files do.
    """
    from tempfile import TemporaryDirectory

    from headwater.catalog.storage.duckdb import schema
    from headwater.catalog.storage.duckdb.connection import connect, literal
    from headwater.catalog.storage.duckdb.user_queries import answer

    with TemporaryDirectory(dir=folder) as scratch, closing(connect(":memory:")) as connection:

        def copied(name: str) -> FileRelation:
            file = Path(scratch, f"{len(list(Path(scratch).iterdir()))}.parquet")
            file.write_bytes(table(name))
            return FileRelation(sql=f"from read_parquet({literal(file)})", paths=(str(file),))

        schema.migrate(connection, schema.load(), SystemClock().now())
        return answer(connection, sql, parameters, relations, copied)
