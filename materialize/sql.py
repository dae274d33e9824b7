"""SQL over the catalog's views and over the data of assets, each under its key."""

from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

from headwater.catalog.errors import UsageError
from headwater.catalog.instance import Instance
from headwater.catalog.records import Pointer
from headwater.catalog.storage.base import FileRelation, QueryResult
from headwater.io.pointers import load_pointer, verify_pointer


def query_catalog(instance: Instance, sql: str, parameters: Sequence[Any] = ()) -> QueryResult:
    """The answer to a read-only query.

    An asset's current data is a table named after its key; only assets whose key occurs in the text are offered.
    Local Parquet files are scanned in place, so only the columns that the query uses are read; data in an object store
    is loaded. Raises `UsageError` for a query that fails, or that does more than read, `StorageError` where that is
    because the data is damaged or gone.
    """
    text = sql.casefold()
    mentioned = [key for key in instance.catalog.definitions() if key.casefold() in text]
    latest = instance.catalog.latest(mentioned) if mentioned else {}
    pointers = {key: made.pointer for key, made in latest.items() if made.pointer and made.pointer.format == "parquet"}
    relations: dict[str, Any] = {key: _relation(pointer) for key, pointer in pointers.items()}
    try:
        return instance.catalog.query(sql, parameters, relations=relations)
    except UsageError:
        for pointer in pointers.values():
            if pointer.checksum is not None:
                verify_pointer(pointer)
        raise


def _relation(pointer: Pointer) -> Any:
    if pointer.uri.startswith("file://"):
        path = unquote(urlsplit(pointer.uri).path)
        quoted = path.replace("'", "''")
        return FileRelation(sql=f"select * from read_parquet('{quoted}')", paths=(path,))  # noqa: S608  (quoted)
    return load_pointer(pointer, annotation="pa.Table")
