"""Pictures of partitions: every cell is in exactly one square, and in the right one."""

from collections import Counter
from datetime import UTC, datetime

import numpy as np
import pytest

from headwater import (
    DailyPartitionsDefinition,
    HourlyPartitionsDefinition,
    MonthlyPartitionsDefinition,
    MultiPartitionsDefinition,
    StaticPartitionsDefinition,
    TimeWindowPartitionsDefinition,
    WeeklyPartitionsDefinition,
)
from headwater.catalog.partitions.definition import PartitionsContext, PartitionsDefinition
from headwater.catalog.partitions.space import Partitions
from headwater.materialize.heat_map import HeatMap, Tile, draw_heat_map, draw_line
from headwater.materialize.partition_staleness import PartitionsStatus

NOW = PartitionsContext(datetime(2014, 1, 1, tzinfo=UTC))


def status_of(partitions: Partitions, seed: int = 0) -> PartitionsStatus:
    """Cells with statuses in no order."""
    kinds = np.random.default_rng(seed).integers(0, 3, partitions.count)
    none = np.zeros(partitions.count, np.bool_)
    stale = kinds == 2
    return PartitionsStatus(partitions, missing=kinds == 1, direct=stale, stale=stale, not_made=none, causes=())


def tiles(found: HeatMap) -> list[tuple[str, str, Tile]]:
    """Every square with the labels of its row and its column."""
    return [
        (row.label, found.columns[at] if found.columns else "", tile)
        for row in found.rows
        for at, tile in enumerate(row.tiles)
        if tile is not None
    ]


LETTERS = StaticPartitionsDefinition([f"k{i}" for i in range(100)])
DEFINITIONS: dict[str, tuple[PartitionsDefinition, str]] = {
    "a year of days": (DailyPartitionsDefinition("2013-01-01"), "month/day"),
    "ten years of days": (DailyPartitionsDefinition("2004-01-01", timezone="America/New_York"), "year/week"),
    "a century of days": (DailyPartitionsDefinition("1910-01-01"), "decade/year"),
    "three days": (DailyPartitionsDefinition("2013-12-29"), "month/day"),
    "hours through a change of clocks": (
        HourlyPartitionsDefinition("2013-11-01", end_date="2013-11-06", timezone="America/New_York"),
        "day/hour",
    ),
    "half hours": (TimeWindowPartitionsDefinition("*/30 * * * *", "2013-12-31"), "hour/minute"),
    "weeks": (WeeklyPartitionsDefinition("2012-01-01"), "year/week"),
    "months": (MonthlyPartitionsDefinition("2010-01-01"), "year/month"),
    "business days": (DailyPartitionsDefinition("2013-01-01", exclusions=["0 0 * * 0,6"]), "month/day"),
    "keys": (LETTERS, "/"),
    "no keys": (StaticPartitionsDefinition([]), "/"),
    "days and keys": (
        MultiPartitionsDefinition({"key": LETTERS, "date": DailyPartitionsDefinition("2013-01-01")}),
        "date/key",
    ),
    "three dimensions": (
        MultiPartitionsDefinition(
            {
                "key": LETTERS,
                "few": StaticPartitionsDefinition(["x", "y"]),
                "date": DailyPartitionsDefinition("2013-12-20"),
            }
        ),
        "date/key",
    ),
}


@pytest.mark.parametrize("name", DEFINITIONS)
def test_every_cell_is_counted_once(name: str) -> None:
    definition, titles = DEFINITIONS[name]
    partitions = definition.at(NOW)
    status = status_of(partitions)
    failed = partitions.subset_of_mask(status.missing & (np.arange(partitions.count) % 5 == 0))
    found = draw_heat_map(status, failed)
    assert f"{found.row_title}/{found.column_title}" == titles
    every = [tile for _, _, tile in tiles(found)]
    assert sum(tile.total for tile in every) == partitions.count
    assert sum(tile.stale for tile in every) == int(status.stale.sum())
    assert sum(tile.missing for tile in every) == int(status.missing.sum())
    assert sum(tile.failed for tile in every) == len(failed)
    assert len({tile.first for tile in every}) == len(every)
    if found.kind != "grid":
        assert [tile.first for tile in every] == [sum(one.total for one in every[:at]) for at in range(len(every))]
    assert sum(tile.fresh for tile in every) == int((~status.behind).sum())
    assert found.largest == max((tile.total for tile in every), default=0)
    assert len(found.rows) <= 40 and all(len(row.tiles) <= 60 for row in found.rows)
    line = draw_line(status, failed)
    assert sum(tile.total for _, _, tile in tiles(line)) == partitions.count and len(line.rows) <= 1


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia"])
def test_a_day_is_in_its_month_at_its_place(zone: str) -> None:
    partitions = DailyPartitionsDefinition("2011-06-01", end_date="2012-06-01", timezone=zone).at(NOW)
    keys = partitions.keys()
    found = draw_heat_map(status_of(partitions))
    assert [(f"{row}-{column}", tile.total) for row, column, tile in tiles(found)] == [(key, 1) for key in keys]
    assert ("2011-12-30" in keys) is (zone != "Pacific/Apia")


def test_an_hour_that_comes_twice_is_one_square() -> None:
    definition, _ = DEFINITIONS["hours through a change of clocks"]
    partitions = definition.at(NOW)
    expected = Counter((key[:10], key[11:13]) for key in partitions.all())
    assert expected["2013-11-03", "01"] == 2
    found = draw_heat_map(status_of(partitions))
    assert {(row, column): tile.total for row, column, tile in tiles(found)} == expected


def test_a_grid_counts_each_pair_of_values() -> None:
    origins = StaticPartitionsDefinition(["EWR", "JFK", "LGA"])
    months = MonthlyPartitionsDefinition("2013-01-01")
    partitions = MultiPartitionsDefinition({"origin": origins, "month": months}).at(NOW)
    status = status_of(partitions)
    found = draw_heat_map(status)
    assert [partitions.key(tile.first) for _, _, tile in tiles(found)] == partitions.keys()
    assert {(row, column): tile.missing for row, column, tile in tiles(found)} == {
        tuple(key.split("|")): int(missing)
        for key, missing in zip(partitions.keys(), status.missing.tolist(), strict=True)
    }


def test_only_what_is_within_a_set_is_drawn() -> None:
    partitions = DailyPartitionsDefinition("2013-01-01").at(NOW)
    within = partitions.range("2013-03-02", "2013-04-03") - partitions.subset(["2013-03-05"])
    found = draw_heat_map(status_of(partitions), within=within)
    assert [f"{row}-{column}" for row, column, _ in tiles(found)] == within.keys()


def test_a_million_cells_are_few_squares() -> None:
    partitions = HourlyPartitionsDefinition("1900-01-01", timezone="America/New_York").at(NOW)
    assert partitions.count > 999_000
    found = draw_heat_map(status_of(partitions))
    assert [row.label for row in found.rows] == [f"{year}s" for year in range(1900, 2020, 10)]
    assert sum(tile.total for _, _, tile in tiles(found)) == partitions.count
