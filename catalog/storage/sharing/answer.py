"""From an operation's name to the method that carries it out."""

from collections.abc import Mapping
from typing import Any

from headwater.catalog.storage.duckdb.storage import DuckDBStorage


def answer(storage: DuckDBStorage, name: str, arguments: Mapping[str, Any]) -> Any:
    """What an open catalog says to one of `wire.OPERATIONS`."""
    keys = name.removeprefix("dynamic_")
    if keys in ("count", "indexes", "slice"):
        return getattr(storage.dynamic_keys, keys)(**arguments)
    return getattr(storage, name)(**arguments)
