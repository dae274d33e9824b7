"""Data that a changed definition takes over."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import headwater
from headwater import (
    AllPartitionMapping,
    AssetDep,
    AssetKey,
    DailyPartitionsDefinition,
    Definitions,
    HourlyPartitionsDefinition,
    MonthlyPartitionsDefinition,
    MultiPartitionsDefinition,
    StaticPartitionsDefinition,
    asset,
)
from headwater.catalog.clock import SystemClock
from headwater.catalog.errors import UsageError, UserCodeError
from headwater.catalog.instance import Instance
from headwater.materialize.reader import CellCounts, Reader
from headwater.materialize.repartition import migrate, plan_migration

DAYS = DailyPartitionsDefinition("2024-01-01", end_date="2024-01-04")
HOURS = HourlyPartitionsDefinition("2024-01-01-00:00", end_date="2024-01-04-00:00")
ONE = AssetKey("events")


class Midsummer(SystemClock):
    """It is June 1 of 2024 all day."""

    def now(self) -> datetime:
        return datetime(2024, 6, 1, tzinfo=UTC)


@pytest.fixture
def instance() -> Instance:
    return Instance.ephemeral(clock=Midsummer())


def rows_of(day: int) -> pl.DataFrame:
    times = [datetime(2024, 1, day, hour, 30) for hour in (0, 5, 23)]
    return pl.DataFrame({"at": times, "origin": ["JFK", "LGA", "JFK"], "n": [day, day, day]})


def project(partitions: Any) -> Definitions:
    @asset(partitions_def=DAYS)
    def source() -> int:
        return 1

    # Names that are no days read all of them.
    every = AllPartitionMapping() if isinstance(partitions, StaticPartitionsDefinition) else None

    @asset(partitions_def=partitions, code_version="1", deps=[AssetDep(source, partition_mapping=every)])
    def events(context: headwater.AssetExecutionContext) -> pl.DataFrame:
        if not context.has_partition_key:
            return pl.concat([rows_of(day) for day in (1, 2, 3)])
        return rows_of(int(context.partition_key[8:10]))

    return Definitions([source, events])


def counts(definitions: Definitions, instance: Instance) -> CellCounts:
    return Reader(definitions.graph, instance.catalog, instance.clock.now()).counts(ONE)


def build(partitions: Any, instance: Instance) -> None:
    assert headwater.materialize(project(partitions), instance=instance, all_partitions=True).success


def everything(instance: Instance) -> pl.DataFrame:
    return headwater.load_asset(ONE, instance=instance).collect().sort("n", "at")


def test_from_days_to_hours(instance: Instance) -> None:
    build(DAYS, instance)
    before = everything(instance)
    hourly = project(HOURS)
    assert counts(hourly, instance) == CellCounts(fresh=0, stale=0, missing=72, failed=0, total=72)
    plan = plan_migration(hourly, ONE, instance=instance, columns="at")
    assert [move.partition for move in plan.moves][:3] == ["2024-01-01-00:00", "2024-01-01-05:00", "2024-01-01-23:00"]
    assert (len(plan.moves), plan.rows, plan.unused) == (9, 9, ())
    # Until now nothing was written.
    assert counts(hourly, instance).missing == 72
    run = migrate(hourly, plan, instance=instance)
    assert counts(hourly, instance) == CellCounts(fresh=9, stale=0, missing=63, failed=0, total=72)
    assert everything(instance).equals(before)
    made = instance.catalog.current(ONE, "2024-01-02-05:00")
    assert made is not None and made.run_id == run
    assert str(made.metadata["migrated_from"].value) == "2024-01-02"
    assert [(str(one.asset), one.partition) for one in made.inputs] == [("source", "2024-01-02")]
    # What was there before can still be read, and nothing is left to do a second time.
    assert headwater.load_asset(ONE, partition="2024-01-02", instance=instance).collect().equals(rows_of(2))
    again = plan_migration(hourly, ONE, instance=instance, columns="at")
    assert (again.moves, len(again.kept)) == ((), 9)


@pytest.mark.parametrize(
    ("before", "after", "columns", "cells"),
    [
        (None, DAYS, "at", 3),
        (DAYS, MonthlyPartitionsDefinition("2024-01-01", end_date="2024-02-01"), "at", 1),
        (DAYS, StaticPartitionsDefinition(["JFK", "LGA"]), "origin", 2),
        (
            DAYS,
            MultiPartitionsDefinition({"day": DAYS, "origin": StaticPartitionsDefinition(["JFK", "LGA"])}),
            {"day": "at", "origin": "origin"},
            6,
        ),
        (DAYS, None, None, 1),
    ],
)
def test_from_one_definition_to_another(instance: Instance, before: Any, after: Any, columns: Any, cells: int) -> None:
    build(before, instance)
    data = everything(instance)
    definitions = project(after)
    plan = plan_migration(definitions, ONE, instance=instance, columns=columns)
    assert (len(plan.moves), plan.rows) == (cells, 9)
    migrate(definitions, plan, instance=instance)
    assert counts(definitions, instance) == CellCounts(fresh=cells, stale=0, missing=0, failed=0, total=cells)
    assert everything(instance).equals(data)


def test_partitions_get_other_names(instance: Instance) -> None:
    build(DAYS, instance)
    definitions = project(StaticPartitionsDefinition(["first", "second"]))
    plan = plan_migration(definitions, ONE, instance=instance, renames={"2024-01-01": "first"})
    assert plan.unused == ("2024-01-02", "2024-01-03")
    migrate(definitions, plan, instance=instance)
    assert headwater.load_asset(ONE, partition="first", instance=instance).collect().equals(rows_of(1))
    assert counts(definitions, instance).fresh == 1


def test_what_cannot_be_migrated(instance: Instance) -> None:
    build(DAYS, instance)
    with pytest.raises(UsageError, match="no data outside"):
        plan_migration(project(DAYS), ONE, instance=instance)
    hourly = project(HOURS)
    with pytest.raises(UsageError, match="By which column"):
        plan_migration(hourly, ONE, instance=instance)
    with pytest.raises(UserCodeError, match="nonsense"):
        plan_migration(hourly, ONE, instance=instance, columns="nonsense")
    short = project(HourlyPartitionsDefinition("2024-01-01-00:00", end_date="2024-01-03-12:00"))
    # In words of what is migrated: no step is run, and nobody's code failed.
    with pytest.raises(UsageError, match=r"`events \[2024-01-03\]` .* is 2024-01-03 23:30:00") as left_behind:
        plan_migration(short, ONE, instance=instance, columns="at")
    assert "in no partition of the definition as it is now" in str(left_behind.value)
    with pytest.raises(UsageError, match="no partition '2023-01-01' outside"):
        plan_migration(hourly, ONE, instance=instance, renames={"2023-01-01": "2024-01-01-00:00"})


def test_a_migration_that_fails_changes_nothing(tmp_path: Path) -> None:
    with Instance.open(tmp_path / "home", clock=Midsummer()) as home:
        build(DAYS, home)
        hourly = project(HOURS)
        plan = plan_migration(hourly, ONE, instance=home, columns="at")
        lost = home.catalog.current(ONE, "2024-01-03")
        assert lost is not None and lost.pointer is not None
        Path(lost.pointer.uri.removeprefix("file://")).unlink()
        with pytest.raises(headwater.catalog.errors.MissingDataError):
            migrate(hourly, plan, instance=home)
        assert counts(hourly, home).missing == 72
        (run, *_) = home.catalog.runs()
        assert run.status == "FAILURE"
        assert not list((tmp_path / "home" / "data").rglob("*hour*"))
