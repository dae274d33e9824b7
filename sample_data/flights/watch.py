"""What is looked at every half minute, once `headwater sensors start changed_files` was said."""

from collections.abc import Iterator

from flights.raw import FOLDER
from headwater import RunRequest, define_asset_job, sensor

TABLES = ("airlines", "airports", "planes")
lookups = define_asset_job("lookups", " or ".join(f"raw_{table}" for table in TABLES))


@sensor(job=lookups)
def changed_files() -> Iterator[RunRequest]:
    """A run for each file that is new or has changed: one that was requested is not requested again."""
    for table in TABLES:
        file = FOLDER / f"{table}.parquet"
        if file.is_file():
            yield RunRequest(run_key=f"{file.name} {file.stat().st_mtime_ns}", asset_selection=f"raw_{table}")
