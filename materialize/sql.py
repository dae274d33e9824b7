"""SQL over the catalog's views and over the data of assets, each under its key."""

from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

from headwater.catalog.instance import Instance
from headwater.catalog.records import Materialization
from headwater.catalog.storage.base import FileRelation, QueryResult


def query_catalog(instance: Instance, sql: str, parameters: Sequence[Any] = ()) -> QueryResult:
    """The answer to a read-only query.

    An asset's current data is a table named after its key; only assets whose key occurs in the text are offered.
    Local Parquet files are scanned in place, so only the columns that the query uses are read; data in an object store
    is loaded. Raises `UsageError` for a query that fails, or that does more than read.
    """
    text = sql.casefold()
    mentioned = [key for key in instance.catalog.definitions() if key.casefold() in text]
    relations: dict[str, Any] = {}
    if mentioned:
        for key, made in instance.catalog.latest(mentioned).items():
            if made.pointer is not None and made.pointer.format == "parquet":
                relations[key] = _relation(made)
    return instance.catalog.query(sql, parameters, relations=relations)


def _relation(made: Materialization) -> Any:
    pointer = made.pointer
    assert pointer is not None  # the caller looked
    if pointer.uri.startswith("file://"):
        path = unquote(urlsplit(pointer.uri).path)
        quoted = path.replace("'", "''")
        return FileRelation(sql=f"select * from read_parquet('{quoted}')", paths=(path,))  # noqa: S608  (quoted)
    from headwater.io import load_pointer

    return load_pointer(pointer, annotation="pa.Table")
