"""The analyses: who is late, where, and when."""

from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa

from flights.days import AIRPORT_MONTHS, MONTHS
from headwater import (
    AssetExecutionContext,
    AssetIn,
    AssetOut,
    AutomationCondition,
    Config,
    MetadataValue,
    MultiPartitionKey,
    Output,
    TableColumnDep,
    asset,
    multi_asset,
)


class Ranking(Config):
    """How long the ranked lists are, and from how many flights on a route counts."""

    top: int = 10
    min_flights: int = 100


@asset(group_name="delays", kinds={"polars"}, owners=["team:analytics"], partitions_def=MONTHS)
def monthly_delays(flights: pl.LazyFrame) -> pl.LazyFrame:
    """Flights, late departures and minutes of delay by carrier, of the days of a month."""
    delays = flights.group_by("carrier").agg(
        flights=pl.len(), late=pl.col("late").sum(), minutes=pl.col("dep_delay").sum()
    )
    return delays.sort("carrier")


@asset(
    group_name="delays",
    kinds={"polars"},
    owners=["team:analytics"],
    partitions_def=AIRPORT_MONTHS,
    ins={"flights_weather": AssetIn(columns=["origin", "hour", "dep_delay", "late", "visib"])},
)
def airport_months(context: AssetExecutionContext, flights_weather: pl.LazyFrame) -> pl.LazyFrame:
    """Delays at one airport in one month by scheduled hour, and the visibility, as sums that can be added up."""
    key = context.partition_key
    assert isinstance(key, MultiPartitionKey)
    here = flights_weather.filter(pl.col("origin") == key.keys_by_dimension["origin"])
    delays = here.group_by("hour").agg(
        flights=pl.len(),
        late=pl.col("late").sum(),
        minutes=pl.col("dep_delay").sum(),
        miles=pl.col("visib").sum(),
        seen=pl.col("visib").count(),
    )
    return delays.sort("hour")


@asset(
    group_name="delays", kinds={"polars"}, owners=["team:analytics"], automation_condition=AutomationCondition.eager()
)
def delays_by_carrier(monthly_delays: pl.LazyFrame, raw_airlines: pl.LazyFrame) -> Output[pl.LazyFrame]:
    """Flights, share of late departures and mean delay of the year by carrier, the latest first."""
    delays = (
        monthly_delays.group_by("carrier")
        .agg(pl.col("flights", "late", "minutes").sum())
        .select(
            "carrier",
            "flights",
            late=pl.col("late") / pl.col("flights"),
            mean_delay=pl.col("minutes") / pl.col("flights"),
        )
        .join(raw_airlines, on="carrier")
        .sort("mean_delay", "carrier", descending=[True, False])
    )
    lineage = {
        "mean_delay": [TableColumnDep("monthly_delays", "minutes"), TableColumnDep("monthly_delays", "flights")],
        "late": [TableColumnDep("monthly_delays", "late"), TableColumnDep("monthly_delays", "flights")],
        "name": [TableColumnDep("raw_airlines", "name")],
    }
    return Output(delays, metadata={"columns from": MetadataValue.column_lineage(lineage)})


@asset(
    group_name="delays", kinds={"duckdb"}, owners=["team:analytics"], automation_condition=AutomationCondition.eager()
)
def delays_by_route(flights: duckdb.DuckDBPyRelation) -> duckdb.DuckDBPyRelation:
    """Flights and delays by route, in SQL."""
    return flights.query(
        "flights",
        """
        select route, origin, dest, count(*) as flights, avg(dep_delay) as mean_delay, avg(late::int) as late
        from flights
        group by all
        order by flights desc, route
        """,
    )


@asset(group_name="delays", kinds={"pandas"}, owners=["team:analytics"])
def delays_by_hour(airport_months: pd.DataFrame) -> pd.DataFrame:
    """Delays of the year by scheduled hour of departure, with the mean visibility in miles."""
    sums = airport_months.groupby("hour", as_index=False).sum()
    return pd.DataFrame(
        {
            "hour": sums["hour"],
            "flights": sums["flights"],
            "mean_delay": sums["minutes"] / sums["flights"],
            "late": sums["late"] / sums["flights"],
            "visibility": sums["miles"] / sums["seen"],
        }
    )


@multi_asset(
    outs={
        "busiest_routes": AssetOut(group_name="delays", owners=["team:analytics"], description="Most flights first."),
        "slowest_routes": AssetOut(group_name="delays", owners=["team:analytics"], description="Latest flights first."),
    }
)
def ranked_routes(config: Ranking, delays_by_route: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The routes at both ends, of those that are flown often enough to tell."""
    often = delays_by_route.filter(pl.col("flights") >= config.min_flights)
    return (
        often.sort("flights", "route", descending=[True, False]).head(config.top),
        often.sort("mean_delay", "route", descending=[True, False]).head(config.top),
    )


@asset(
    group_name="delays",
    kinds={"arrow"},
    owners=["team:analytics"],
    ins={"flights": AssetIn("flights", columns=["carrier", "tailnum"])},
)
def fleet_age(flights: pl.LazyFrame, planes: pl.LazyFrame) -> pa.Table:
    """How old the planes are that each carrier flies, in years, weighted by flights."""
    flown = flights.join(planes, on="tailnum").with_columns(age=2013 - pl.col("built"))
    grouped = flown.group_by("carrier").agg(
        flights=pl.len(), mean_age=pl.col("age").mean(), seats=pl.col("seats").mean()
    )
    return grouped.sort("carrier").collect().to_arrow()


@asset(
    group_name="delays", kinds={"json"}, owners=["team:analytics"], automation_condition=AutomationCondition.on_stale()
)
def delay_report(
    delays_by_carrier: pl.DataFrame, delays_by_hour: pl.DataFrame, slowest_routes: pl.DataFrame
) -> Output[dict[str, Any]]:
    """The year in a few figures."""
    worst, best = delays_by_carrier.row(0, named=True), delays_by_carrier.row(-1, named=True)
    hour = delays_by_hour.filter(pl.col("flights") > 1000).sort("mean_delay").row(0, named=True)
    report = {
        "flights": int(delays_by_carrier["flights"].sum()),
        "latest carrier": {"name": worst["name"], "minutes": round(worst["mean_delay"], 1)},
        "most punctual carrier": {"name": best["name"], "minutes": round(best["mean_delay"], 1)},
        "best hour to leave": int(hour["hour"]),
        "slowest route": slowest_routes["route"][0],
    }
    text = f"**{worst['name']}** was the latest carrier of 2013, **{best['name']}** the most punctual one."
    return Output(report, metadata={"summary": MetadataValue.md(text)})
