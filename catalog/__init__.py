"""What exists and what happened: definitions, lineage, events, versions, runs, kept in DuckDB."""
