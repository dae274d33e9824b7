"""Typed, tidied and joined: what the analyses start from."""

from collections.abc import Iterator
from datetime import timedelta

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from flights.days import DAYS, MONTHS
from headwater import AssetExecutionContext, AssetIn, BackfillPolicy, Output, TimeWindowPartitionMapping, asset

#: A departure this many minutes late counts as late, as it does for the Bureau of Transportation Statistics.
LATE = 15
#: What is kept of the weather.
GAUGES = ["temp", "humid", "wind_speed", "precip", "visib"]


def route(origin: str = "origin", dest: str = "dest") -> pl.Expr:
    """Both airports as one text, such as EWR-IAH."""
    return pl.concat_str(origin, dest, separator="-").alias("route")


@asset(group_name="cleaned", kinds={"polars"}, owners=["team:flights"], tags={"tier": "core"}, partitions_def=DAYS)
def flights(raw_flights: pl.DataFrame) -> pl.DataFrame:
    """The flights that took off, with their scheduled hour in UTC, their route and whether they left late."""
    return (
        raw_flights.filter(pl.col("dep_time").is_not_null())
        .with_columns(
            pl.col("time_hour").str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_unit="us").dt.replace_time_zone("UTC"),
            route(),
            late=pl.col("dep_delay") >= LATE,
        )
        .drop("year", "minute", "date")
    )


@asset(
    group_name="cleaned",
    kinds={"pandas"},
    owners=["team:weather"],
    tags={"tier": "core"},
    partitions_def=DAYS,
    backfill_policy=BackfillPolicy.multi_run(31),
    ins={
        "raw_weather": AssetIn(
            columns=["origin", "time_hour", *GAUGES],
            # Of the day before too: what was measured last before midnight fills the gaps after it.
            partition_mapping=TimeWindowPartitionMapping(start_offset=-1),
        )
    },
)
def weather(context: AssetExecutionContext, raw_weather: pd.DataFrame) -> Iterator[Output[pd.DataFrame]]:
    """One row an airport and hour; the gaps of an hour or two in the gauges are filled from before."""
    frame = raw_weather.assign(time_hour=pd.to_datetime(raw_weather["time_hour"], utc=True))
    frame = frame.drop_duplicates(["origin", "time_hour"]).sort_values(["origin", "time_hour"])
    # Day by day, so that a day comes out alike whichever others are built with it.
    for key, (start, end) in zip(context.partition_keys, context.partition_time_windows, strict=True):
        known = frame[frame["time_hour"].between(start - timedelta(days=1), end, inclusive="left")]
        filled = known.assign(**known.groupby("origin")[GAUGES].ffill(limit=2))
        today = known["time_hour"] >= start
        gaps = {"gaps": known[today].isna(), "gaps left": filled[today].isna()}
        metadata = {name: int(found.to_numpy().sum()) for name, found in gaps.items()}
        yield Output(filled[today].reset_index(drop=True), partition_key=key, metadata=metadata)


@asset(
    group_name="cleaned",
    kinds={"arrow"},
    owners=["team:flights"],
    ins={"raw_planes": AssetIn("raw_planes", columns=["tailnum", "year", "manufacturer", "seats"])},
)
def planes(raw_planes: pa.Table) -> pa.Table:
    """The planes whose year of construction is known. Reads four of nine columns: others may change as they like."""
    return raw_planes.filter(pc.is_valid(raw_planes["year"])).rename_columns(["tailnum", "built", "maker", "seats"])


@asset(
    group_name="cleaned",
    kinds={"polars"},
    owners=["team:flights", "team:weather"],
    tags={"tier": "core"},
    partitions_def=MONTHS,
)
def flights_weather(flights: pl.LazyFrame, weather: pl.LazyFrame) -> pl.LazyFrame:
    """Each flight of a month with the weather at its airport in the hour of its departure."""
    return flights.join(weather, on=["origin", "time_hour"], how="left", maintain_order="left")
