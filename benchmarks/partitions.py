"""Partitions as arithmetic, without a catalog: 1,000,000 hourly windows and 10,000,000 cells (goals P2, P4, P5)."""

from datetime import UTC, datetime
from functools import partial

import numpy as np

from benchmarks.harness import Row, measure
from headwater import (
    DailyPartitionsDefinition,
    DimensionPartitionMapping,
    HourlyPartitionsDefinition,
    MonthlyPartitionsDefinition,
    MultiPartitionMapping,
    MultiPartitionsDefinition,
    PartitionsContext,
    StaticPartitionsDefinition,
    TimeWindowPartitionMapping,
    TimeWindowPartitionsDefinition,
)
from headwater.catalog.partitions.series import ticks_of, wall_clock, windows_of
from headwater.catalog.partitions.space import Partitions, WindowPartitions
from headwater.catalog.partitions.zone import find_changes

ZONE = "America/New_York"
CONTEXT = PartitionsContext(datetime(2026, 3, 12, 5, 30, tzinfo=UTC))
HOURLY = HourlyPartitionsDefinition("1912-01-01", timezone=ZONE)
DAILY = DailyPartitionsDefinition("1912-01-01", timezone=ZONE)
MINUTES = TimeWindowPartitionsDefinition("*/5 * * * 1-5", "2013-01-01", timezone=ZONE)
WORKING = HourlyPartitionsDefinition("1912-01-01", timezone=ZONE, exclusions=["* * * * 0,6"])


def windows(definition: TimeWindowPartitionsDefinition) -> WindowPartitions:
    found = definition.at(CONTEXT)
    assert isinstance(found, WindowPartitions)
    return found


def forget() -> None:
    """What is remembered about zones and schedules."""
    for cache in (find_changes, wall_clock, ticks_of, windows_of):
        cache.cache_clear()


def rows() -> list[Row]:
    hours = windows(HOURLY)
    million = f"{hours.count:,} hourly windows"
    cold = measure(partial(windows, HOURLY), before=forget)
    found = [
        Row("P4", f"count {million}, nothing remembered", cold, goal="≤ 20 ms"),
        Row("P4", f"count {million}", measure(partial(windows, HOURLY)), goal="≤ 20 ms"),
        Row("P4", f"a page of 100 of {million}", measure(lambda: hours.keys(500_000, 500_100)), goal="≤ 20 ms"),
    ]
    for what, definition in (("every 5 minutes on weekdays", MINUTES), ("hourly, weekends excluded", WORKING)):
        page = measure(lambda one=definition: windows(one).keys(500_000, 500_100), before=forget)
        found.append(Row("P4", f"a page of windows {what}, nothing remembered", page, goal="≤ 20 ms"))
    chance = np.random.default_rng(1)
    mask = chance.random(hours.count) < 0.5
    built = hours.subset_of_mask(mask)
    other = hours.subset_of_mask(np.roll(mask, 7))
    holes = hours.all() - hours.range("1950-01-01-00:00", "1950-06-01-00:00")
    found += [
        Row("P4", f"missing of {million}, 2 ranges", measure(lambda: len(~holes)), goal="≤ 20 ms"),
        Row(
            "P4",
            f"missing of {million}, {built.range_count:,} ranges",
            measure(lambda: len(~built)),
            "numpy: ~mask, sum",
            measure(lambda: int((~mask).sum())),
            goal="≤ 20 ms",
        ),
        Row(
            "P4", f"intersection with {built.range_count:,} ranges", measure(lambda: len(built & other)), goal="≤ 20 ms"
        ),
        Row("P4", f"union with {other.range_count:,} ranges", measure(lambda: len(built | other)), goal="≤ 20 ms"),
    ]
    days = windows(DAILY)
    mapping = TimeWindowPartitionMapping(start_offset=-1)
    up = mapping.links(days, hours)
    down = mapping.links(hours, days)
    found += [
        Row("P4", f"{days.count:,} days to their hours", measure(lambda: up.upstream(days.all())), goal="≤ 20 ms"),
        Row("P4", f"{million} to their days", measure(lambda: up.downstream(hours.all())), goal="≤ 20 ms"),
        Row(
            "P4",
            f"{built.range_count:,} ranges of hours to days",
            measure(lambda: up.downstream(built)),
            goal="≤ 20 ms",
        ),
    ]
    keys = hours.keys()
    raw = measure(lambda: [key[:10] for key in keys])
    found += [
        Row("P2", f"parse {million}", measure(lambda: hours.ordinals(keys)), "slice each text", raw),
        Row("P2", f"format {million}", measure(lambda: hours.keys()), "slice each text", raw),
    ]
    hashes = chance.integers(0, 1 << 63, hours.count).astype(np.uint64)
    some = hashes[: days.count]
    adding = measure(lambda: hashes.sum())
    found += [
        Row("P2", "a sum for each day over its hours", measure(lambda: up.sum(hashes)), "numpy: sum", adding),
        Row("P2", "a sum for each hour over its days", measure(lambda: down.sum(some)), "numpy: sum", adding),
    ]
    chain = [hashes.copy() for _ in range(10)]
    itself = TimeWindowPartitionMapping().links(hours, hours)

    def decide() -> int:
        """Ten assets in a row: which cells read something else than they were built from."""
        stale = np.zeros(hours.count, np.bool_)
        for recorded, current in zip(chain, chain[1:] + chain[:1], strict=True):
            stale = (itself.sum(current) != recorded) | itself.any(stale)
        return int(stale.sum())

    found.append(
        Row("P2", "sums and comparisons of 10 × 1,000,000 cells in a chain", measure(decide), goal="part of ≤ 5 s")
    )
    found += _several()
    year = DailyPartitionsDefinition("2013-01-01", end_date="2014-01-01")

    def plan() -> int:
        """Fifty assets one below the other: what of each a backfill of the root reaches."""
        space: Partitions = year.at(CONTEXT)
        reached = space.all()
        links = TimeWindowPartitionMapping().links(space, space)
        for _ in range(50):
            reached = links.downstream(reached)
        return len(reached)

    found.append(Row("P5", "a backfill of 365 days down 50 assets", measure(plan), goal="≤ 0.2 s with the plan"))
    return found


def _several() -> list[Row]:
    codes = StaticPartitionsDefinition([f"c{i}" for i in range(1000)])
    year = DailyPartitionsDefinition("2020-01-01", end_date="2022-09-27")
    month = MonthlyPartitionsDefinition("2020-01-01", end_date="2022-10-01")
    down = MultiPartitionsDefinition({"when": month, "code": codes}).at(CONTEXT)
    up = MultiPartitionsDefinition({"when": year, "code": codes}).at(CONTEXT)
    mapping = MultiPartitionMapping(
        {"when": DimensionPartitionMapping("when"), "code": DimensionPartitionMapping("code")}
    )
    links = mapping.links(down, up)
    values = np.arange(up.count, dtype=np.uint64)
    keys = up.keys()
    month_of_all = down.subset_of_ordinals(np.arange(1000))
    return [
        Row("P2", f"parse {up.count:,} keys of two dimensions", measure(lambda: up.ordinals(keys))),
        Row("P2", f"format {up.count:,} keys of two dimensions", measure(lambda: up.keys())),
        Row(
            "P2",
            f"sums for {down.count:,} cells, month × code, over {up.count:,}, day × code",
            measure(lambda: links.sum(values)),
        ),
        Row("P4", "one month of every code to its days", measure(lambda: links.upstream(month_of_all))),
    ]
