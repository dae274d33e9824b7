"""The catalog of a home in which nothing was made yet: nothing in it, but every question has its answer."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import closing
from typing import Any

from headwater.catalog.clock import SystemClock
from headwater.catalog.errors import ReadOnlyCatalogError
from headwater.catalog.events import Event
from headwater.catalog.storage.base import QueryResult
from headwater.catalog.storage.memory import MemoryStorage


class UnmadeStorage(MemoryStorage):
    """A `CatalogReader` without a file."""

    def append(
        self,
        events: Sequence[Event],
        *,
        request: str | None = None,
        by: str | None = None,
        lapsed: Collection[str] = (),
    ) -> int:
        """Raises `ReadOnlyCatalogError`."""
        raise ReadOnlyCatalogError("The catalog is open for reading only.", remedy="Open it for writing.")

    def query(
        self, sql: str, parameters: Sequence[Any] = (), *, relations: Mapping[str, Any] | None = None
    ) -> QueryResult:
        """See `CatalogReader.query`: the documented views are there, and empty."""
        from headwater.catalog.storage.duckdb import schema
        from headwater.catalog.storage.duckdb.connection import connect
        from headwater.catalog.storage.duckdb.user_queries import answer

        with closing(connect(":memory:")) as connection:
            schema.migrate(connection, schema.load(), SystemClock().now())
            return answer(connection, sql, parameters, relations or {})
