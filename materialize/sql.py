"""SQL over the catalog's views and over the data of assets, each under its key."""

import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

from headwater.catalog.errors import UnknownTableError, UsageError
from headwater.catalog.instance import Instance
from headwater.catalog.keys import AssetKey
from headwater.catalog.records import Materialization, Pointer
from headwater.catalog.storage.base import FileRelation, QueryResult
from headwater.io.pointers import Owner, load_pointer, verify_pointer

_SHOW_TABLES = re.compile(r"\s*show(\s+all)?(\s+tables)?\s*;?\s*", re.IGNORECASE)


def query_catalog(instance: Instance, sql: str, parameters: Sequence[Any] = ()) -> QueryResult:
    """The answer to a read-only query.

    An asset's current data is a table named after its key; only assets whose key occurs in the text are offered.
    Local Parquet files are scanned in place, so only the columns that the query uses are read; data in an object store
    is loaded. Raises `UsageError` for a query that fails, or that does more than read, `StorageError` where that is
    because the data is damaged or gone.
    """
    text = sql.casefold().replace('""', '"')  # a quote inside a quoted name is written twice
    keys = instance.catalog.definitions()
    lists = _SHOW_TABLES.fullmatch(sql) is not None
    mentioned = list(keys) if lists else [key for key in keys if key.casefold() in text]
    latest = instance.catalog.latest(mentioned) if mentioned else {}
    tables = {
        key: (made.pointer, Owner(key, made.partition, made.version_id))
        for key, made in latest.items()
        if made.pointer is not None and made.pointer.format == "parquet"
    }
    relations: dict[str, Any] = {key: None if lists else _relation(*found) for key, found in tables.items()}
    try:
        return instance.catalog.query(sql, parameters, relations=relations)
    except UnknownTableError as error:
        key = next((key for key in keys if key.casefold() == error.name.casefold()), None)
        if key is None:
            raise UnknownTableError(error.name, [*error.known, *keys]) from None
        raise _no_table(key, latest.get(key)) from None
    except UsageError:
        for pointer, owner in tables.values():
            if pointer.checksum is not None:
                verify_pointer(pointer, owner=owner)
        raise


def _no_table(key: AssetKey, made: Materialization | None) -> UsageError:
    """Why an asset is no table."""
    if made is None:
        return UsageError(f"`{key}` was never materialized.", remedy=f"headwater materialize {key}")
    if made.pointer is None:
        return UsageError(
            f"`{key}` stores nothing: its function writes what it makes by itself.",
            remedy="Ask where the function puts it.",
        )
    return UsageError(
        f"`{key}` holds a value, not a table: it is stored as {made.pointer.format}.",
        remedy=f'In Python, headwater.load_asset("{key}") gives it; an asset that returns a data frame is a table.',
    )


def _relation(pointer: Pointer, owner: Owner) -> Any:
    if pointer.uri.startswith("file://"):
        path = unquote(urlsplit(pointer.uri).path)
        quoted = path.replace("'", "''")
        return FileRelation(sql=f"select * from read_parquet('{quoted}')", paths=(path,))  # noqa: S608  (quoted)
    return load_pointer(pointer, owner=owner, annotation="pa.Table")
