"""An IO manager for frames only."""

from typing import Any

from headwater.catalog.errors import UnstorableValueError
from headwater.catalog.printable import with_article
from headwater.io.base import OutputContext
from headwater.io.file_manager import FileIOManager, StagedOutput


class ParquetIOManager(FileIOManager):
    """Keeps data frames of polars, pandas, Arrow and DuckDB as Parquet, and refuses everything else.

    Takes the settings of `FileIOManager`, on local disk as on an object store:

        ParquetIOManager("s3://bucket/warehouse", storage_options={"endpoint_url": "http://127.0.0.1:9000"})
    """

    def stage_value(self, context: OutputContext, value: Any) -> StagedOutput:
        """Refuse a plain value."""
        kind = with_article(type(value).__name__)
        raise UnstorableValueError(
            f"{context.asset_key} returned {kind}, and ParquetIOManager keeps frames only.",
            remedy="Return a frame, or use FileIOManager, which keeps plain values too.",
        )
