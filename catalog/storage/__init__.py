"""Where the catalog is kept: a small protocol, an in-memory storage and DuckDB."""
