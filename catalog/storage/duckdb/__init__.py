"""The catalog in one DuckDB file."""

from headwater.catalog.storage.duckdb.opening import open_catalog
from headwater.catalog.storage.duckdb.storage import DuckDBStorage

__all__ = ["DuckDBStorage", "open_catalog"]
