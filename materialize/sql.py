"""SQL over the catalog's views and over the data of assets, each under its key."""

import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

from headwater.catalog.errors import UnknownTableError, UsageError
from headwater.catalog.instance import Instance
from headwater.catalog.keys import AssetKey
from headwater.catalog.records import Materialization
from headwater.catalog.storage.base import FileRelation, QueryResult
from headwater.io.pointers import Owner, load_pointer, verify_pointer
from headwater.materialize.loading import current_parts, load_asset, recorded_partitions

_SHOW_TABLES = re.compile(r"\s*show(\s+all)?(\s+tables)?\s*;?\s*", re.IGNORECASE)


def query_catalog(instance: Instance, sql: str, parameters: Sequence[Any] = ()) -> QueryResult:
    """The answer to a read-only query.

    An asset's current data, of a partitioned one that of all partitions, is a table named after its key; only assets
    whose key occurs in the text are offered.
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
        key: [made] for key, made in latest.items() if made.pointer is not None and made.pointer.format == "parquet"
    }
    if not lists:
        tables = {key: _parts(instance, made[0]) for key, made in tables.items()}
    relations: dict[str, Any] = {
        key: None if lists else _relation(instance, key, parts) for key, parts in tables.items() if parts
    }
    try:
        return instance.catalog.query(sql, parameters, relations=relations)
    except UnknownTableError as error:
        key = next((key for key in keys if key.casefold() == error.name.casefold()), None)
        if key is None:
            raise UnknownTableError(error.name, [*error.known, *keys]) from None
        raise _no_table(key, latest.get(key)) from None
    except UsageError:
        for made in (one for parts in tables.values() for one in parts):
            if made.pointer is not None and made.pointer.checksum is not None:
                verify_pointer(made.pointer, owner=Owner(made.asset, made.partition, made.version_id))
        raise


def _parts(instance: Instance, newest: Materialization) -> list[Materialization]:
    """What an asset consists of now, given its newest version: itself, or its partitions in their order."""
    partitions = recorded_partitions(instance, newest.asset)
    if partitions is not None:
        return current_parts(instance, newest.asset, partitions)
    if newest.partition is None:
        return [newest]
    current = instance.catalog.current(newest.asset)  # it was partitioned once
    return [] if current is None else [current]


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


def _relation(instance: Instance, key: AssetKey, parts: Sequence[Materialization]) -> Any:
    pointers = [made.pointer for made in parts if made.pointer is not None]
    if all(pointer.uri.startswith("file://") and pointer.format == "parquet" for pointer in pointers):
        paths = tuple(unquote(urlsplit(pointer.uri).path) for pointer in pointers)
        quoted = ", ".join("'" + path.replace("'", "''") + "'" for path in paths)
        # By name: a column may have been added between two partitions.
        sql = f"select * from read_parquet([{quoted}], union_by_name={len(paths) > 1})"  # noqa: S608  (quoted)
        return FileRelation(sql=sql, paths=paths)
    if len(parts) == 1 and pointers:
        made = parts[0]
        return load_pointer(pointers[0], owner=Owner(key, made.partition, made.version_id), annotation="pa.Table")
    return load_asset(key, as_type="pa.Table", instance=instance)
