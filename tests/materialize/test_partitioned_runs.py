"""Runs over partitions, from definitions to data: what is built, recorded, left alone and refused."""

import os
import resource
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import headwater
from headwater import (
    AllPartitionMapping,
    AssetIn,
    BackfillPolicy,
    DailyPartitionsDefinition,
    Definitions,
    Failure,
    HourlyPartitionsDefinition,
    LastPartitionMapping,
    MonthlyPartitionsDefinition,
    MultiPartitionsDefinition,
    Output,
    RetryPolicy,
    StaticPartitionsDefinition,
    TimeWindowPartitionMapping,
    WeeklyPartitionsDefinition,
    asset,
    multi_asset,
)
from headwater.catalog.clock import SystemClock
from headwater.catalog.errors import UnknownPartitionError, UsageError
from headwater.catalog.instance import Instance
from headwater.catalog.records import Cell, RunStatus, StepStatus
from headwater.materialize.api import RunResult
from headwater.materialize.reader import CellCounts, Reader
from headwater.materialize.sql import query_catalog

DAYS = DailyPartitionsDefinition(start_date="2024-01-01", end_date="2024-02-01")
LETTERS = StaticPartitionsDefinition(["a", "b", "c"])


class Midsummer(SystemClock):
    """It is June 1 of 2024 all day."""

    def now(self) -> datetime:
        return datetime(2024, 6, 1, tzinfo=UTC)


@pytest.fixture
def instance() -> Instance:
    return Instance.ephemeral(clock=Midsummer())


def run(definitions: Definitions, instance: Instance, **arguments: Any) -> RunResult:
    return headwater.materialize(definitions, instance=instance, raise_on_error=False, **arguments)


def reader(definitions: Definitions, instance: Instance) -> Reader:
    return Reader(definitions.graph, instance.catalog, instance.clock.now())


def counts(definitions: Definitions, instance: Instance, key: str) -> CellCounts:
    return reader(definitions, instance).counts(headwater.AssetKey(key))


def chain(calls: list[str]) -> Definitions:
    """Days, a copy of each day, a total of each month, and one number of all."""

    @asset(partitions_def=DAYS)
    def days(context: headwater.AssetExecutionContext) -> pl.DataFrame:
        calls.append(f"days {context.partition_key}")
        return pl.DataFrame({"day": [context.partition_key], "n": [1]})

    @asset(partitions_def=DAYS)
    def copies(context: headwater.AssetExecutionContext, days: pl.DataFrame) -> pl.DataFrame:
        calls.append(f"copies {context.partition_key}")
        return days

    @asset(partitions_def=MonthlyPartitionsDefinition(start_date="2024-01-01", end_date="2024-02-01"))
    def months(copies: pl.LazyFrame) -> int:
        calls.append("months")
        return copies.select(pl.col("n").sum()).collect().item()

    @asset
    def total(months: dict[str, int]) -> int:
        calls.append("total")
        return sum(months.values())

    return Definitions([days, copies, months, total])


def test_a_run_mixes_partition_definitions_and_builds_nothing_twice(instance: Instance) -> None:
    calls: list[str] = []
    definitions = chain(calls)
    result = run(definitions, instance, all_partitions=True)
    assert result.success
    assert len(calls) == 31 + 31 + 1 + 1
    assert result.asset_value("total") == 31
    assert counts(definitions, instance, "copies") == CellCounts(fresh=31, stale=0, missing=0, failed=0, total=31)
    assert not run(definitions, instance, all_partitions=True).plan
    assert len(calls) == 64


def test_a_day_means_its_month_too_and_only_that(instance: Instance) -> None:
    calls: list[str] = []
    definitions = chain(calls)
    run(definitions, instance, all_partitions=True)
    calls.clear()
    result = run(definitions, instance, selection=["days", "months"], partition_key="2024-01-05", force=True)
    assert result.success
    assert calls == ["days 2024-01-05", "copies 2024-01-05", "months"] or calls == ["days 2024-01-05", "months"]
    # What was made again is what it was, so nothing else has to be.
    assert counts(definitions, instance, "total").fresh == 1


def test_only_what_reads_new_data_is_built_again(instance: Instance) -> None:
    data = {"a": 1, "b": 2, "c": 3}
    calls: list[str] = []

    @asset(partitions_def=LETTERS)
    def source(context: headwater.AssetExecutionContext) -> int:
        return data[context.partition_key]

    @asset(partitions_def=LETTERS)
    def doubled(context: headwater.AssetExecutionContext, source: int) -> int:
        calls.append(context.partition_key)
        return 2 * source

    @asset
    def top(doubled: dict[str, int]) -> int:
        calls.append("top")
        return max(doubled.values())

    definitions = Definitions([source, doubled, top])
    run(definitions, instance, all_partitions=True)
    assert sorted(calls) == ["a", "b", "c", "top"]
    data["b"] = 20
    calls.clear()
    run(definitions, instance, selection="source", all_partitions=True, force=True)
    seen = reader(definitions, instance)
    assert [seen.status(headwater.AssetKey("doubled"), key).status for key in "abc"] == ["FRESH", "STALE", "FRESH"]
    (cause,) = seen.status(headwater.AssetKey("doubled"), "b").causes
    assert str(cause) == "source has new data (b)"
    assert str(seen.status(headwater.AssetKey("top")).causes[0]) == "doubled is stale (1 of 3 partitions)"
    result = run(definitions, instance, all_partitions=True)
    assert calls == ["b", "top"]
    assert result.asset_value("top") == 40
    # And nothing new when the data is what it was: what depends on it is left alone.
    calls.clear()
    result = run(definitions, instance, all_partitions=True, force=True, selection="source")
    result = run(definitions, instance, all_partitions=True)
    assert (calls, bool(result.plan)) == ([], False)


def test_cells_whose_inputs_turn_out_the_same_are_left_alone(instance: Instance) -> None:
    calls: list[str] = []

    def make(factor: int) -> Definitions:
        @asset(partitions_def=LETTERS, code_version=str(factor))
        def source(context: headwater.AssetExecutionContext) -> int:
            return factor if context.partition_key == "c" else 1

        @asset(partitions_def=LETTERS, code_version="1", backfill_policy=BackfillPolicy.single_run())
        def sink(context: headwater.AssetExecutionContext, source: dict[str, int]) -> dict[str, int]:
            calls.append(",".join(context.partition_keys))
            return source

        return Definitions([source, sink])

    run(make(1), instance, all_partitions=True)
    assert calls == ["a,b,c"]
    result = run(make(2), instance, all_partitions=True)
    assert calls == ["a,b,c", "c"]
    assert result.status_of("sink", "a") is StepStatus.VERIFIED
    assert result.status_of("sink", "c") is StepStatus.SUCCESS
    assert counts(make(2), instance, "sink").fresh == 3


@pytest.mark.parametrize(("size", "steps"), [(1, 7), (3, 3), (None, 1)])
def test_steps_follow_the_backfill_policy(instance: Instance, size: int | None, steps: int) -> None:
    keys = StaticPartitionsDefinition(list("abcdefg"))
    sizes: list[int] = []

    @asset(partitions_def=keys, backfill_policy=BackfillPolicy(max_partitions_per_run=size))
    def one(context: headwater.AssetExecutionContext) -> Any:
        sizes.append(len(context.partition_keys))
        return 1 if size == 1 else dict.fromkeys(context.partition_keys, 1)

    result = run(Definitions([one]), instance, all_partitions=True)
    assert result.success, result.cells
    assert (len(sizes), sum(sizes), max(sizes)) == (steps, 7, size or 7)
    assert {m.partition for m in result.materializations} == set("abcdefg")


def test_one_bad_partition_fails_alone(instance: Instance) -> None:
    bad = {"b"}
    seen: list[str] = []

    @asset(partitions_def=LETTERS, backfill_policy=BackfillPolicy.single_run())
    def many(context: headwater.AssetExecutionContext) -> Any:
        return {k: Failure(f"no {k}") if k in bad else 1 for k in context.partition_keys}

    @asset(partitions_def=LETTERS)
    def each(context: headwater.AssetExecutionContext, many: int) -> int:
        seen.append(context.partition_key)
        return many

    definitions = Definitions([many, each])
    result = run(definitions, instance, all_partitions=True)
    assert result.status is RunStatus.FAILURE
    assert [result.status_of("many", key) for key in "abc"] == [
        StepStatus.SUCCESS,
        StepStatus.FAILURE,
        StepStatus.SUCCESS,
    ]
    assert result.status_of("each", "b") is StepStatus.SKIPPED
    assert sorted(seen) == ["a", "c"]
    assert counts(definitions, instance, "many") == CellCounts(fresh=2, stale=0, missing=1, failed=1, total=3)
    assert counts(definitions, instance, "each") == CellCounts(fresh=2, stale=0, missing=1, failed=0, total=3)
    assert [str(cell) for cell in reader(definitions, instance).failures] == ["many [b]"]
    bad.clear()
    assert run(definitions, instance, all_partitions=True).success
    assert seen[2:] == ["b"]


def test_only_what_failed_is_tried_again(instance: Instance) -> None:
    asked: list[tuple[str, ...]] = []

    @asset(
        partitions_def=LETTERS,
        backfill_policy=BackfillPolicy.single_run(),
        retry_policy=RetryPolicy(max_retries=2, delay=0),
    )
    def flaky(context: headwater.AssetExecutionContext) -> Any:
        asked.append(tuple(context.partition_keys))
        for key in context.partition_keys:
            if key == "b" and context.retry_number == 0:
                raise ValueError("not yet")
            yield Output(key, partition_key=key)

    result = run(Definitions([flaky]), instance, all_partitions=True)
    assert result.success
    assert asked == [("a", "b", "c"), ("b", "c")]
    assert len(result.materializations) == 3


def test_what_may_not_be_tried_again_fails_while_the_rest_is(instance: Instance) -> None:
    asked: list[tuple[str, ...]] = []

    @asset(
        partitions_def=LETTERS,
        backfill_policy=BackfillPolicy.single_run(),
        retry_policy=RetryPolicy(max_retries=2, delay=0),
    )
    def flaky(context: headwater.AssetExecutionContext) -> Any:
        asked.append(tuple(context.partition_keys))
        for key in context.partition_keys:
            if key == "a":
                yield Output(1, partition_key=key)
            elif key == "b":
                yield Failure("hopeless", allow_retries=False, partition_key=key)
            elif context.retry_number == 0:
                yield Failure("not yet", partition_key=key)
            else:
                yield Output(3, partition_key=key)

    result = run(Definitions([flaky]), instance, all_partitions=True)
    assert asked == [("a", "b", "c"), ("c",)]
    assert [result.status_of("flaky", key) for key in "abc"] == [
        StepStatus.SUCCESS,
        StepStatus.FAILURE,
        StepStatus.SUCCESS,
    ]
    (cell,) = [one for one in result.cells if one.partition == "b"]
    assert result.outcome is not None
    (step,) = result.outcome.steps
    assert step.error is not None and "hopeless" in step.error.message and cell.error is None


def test_an_asset_reads_its_own_yesterday(instance: Instance) -> None:
    yesterday = {"before": AssetIn("running", partition_mapping=TimeWindowPartitionMapping(-1, -1))}
    factor = [1]

    @asset(partitions_def=DAYS)
    def amounts(context: headwater.AssetExecutionContext) -> int:
        return factor[0] if context.partition_key == "2024-01-30" else 1

    @asset(partitions_def=DAYS, ins=yesterday)
    def running(amounts: int, before: int | None) -> int:
        return amounts + (before or 0)

    definitions = Definitions([amounts, running])
    result = run(definitions, instance, all_partitions=True)
    assert result.asset_value("running", partition="2024-01-31") == 31
    factor[0] = 5
    run(definitions, instance, selection="amounts", partition_key="2024-01-30", force=True)
    assert counts(definitions, instance, "running") == CellCounts(fresh=29, stale=2, missing=0, failed=0, total=31)
    result = run(definitions, instance, all_partitions=True)
    assert [m.partition for m in result.materializations] == ["2024-01-30", "2024-01-31"]
    assert result.asset_value("running", partition="2024-01-31") == 35


def test_two_dimensions(instance: Instance) -> None:
    grid = MultiPartitionsDefinition(
        {"origin": StaticPartitionsDefinition(["JFK", "LGA"]), "month": MonthlyPartitionsDefinition("2024-01-01")}
    )

    @asset(partitions_def=MonthlyPartitionsDefinition("2024-01-01"))
    def weather(context: headwater.AssetExecutionContext) -> str:
        return context.partition_key

    @asset(partitions_def=grid)
    def delays(context: headwater.AssetExecutionContext, weather: str) -> dict[str, str]:
        by = context.partition_key.keys_by_dimension  # type: ignore[attr-defined]
        return {"origin": by["origin"], "month": by["month"], "weather": weather}

    @asset(partitions_def=StaticPartitionsDefinition(["JFK", "LGA"]))
    def by_origin(delays: dict[str, Any]) -> list[str]:
        return sorted(delays)

    definitions = Definitions([weather, delays, by_origin])
    result = run(definitions, instance, all_partitions=True)
    assert result.success
    assert counts(definitions, instance, "delays").fresh == 10
    value = result.asset_value("delays", partition="2024-02-01|JFK")
    assert value == {"origin": "JFK", "month": "2024-02-01", "weather": "2024-02-01"}
    assert result.asset_value("by_origin", partition="LGA")[0] == "2024-01-01|LGA"
    made = instance.catalog.current(headwater.AssetKey("delays"), "2024-02-01|JFK")
    assert made is not None and made.pointer is not None
    assert "/delays/month=2024-02-01/origin=JFK/" in made.pointer.uri


def test_a_partitioned_asset_without_a_partition_is_refused_with_the_commands(instance: Instance) -> None:
    definitions = chain([])
    with pytest.raises(UsageError, match=r"partitioned .daily from 2024-01-01") as caught:
        headwater.materialize(definitions, instance=instance, selection="days")
    assert "--partition '2024-01-31'" in caught.value.remedy
    assert "--all-partitions" in caught.value.remedy
    assert "headwater backfill days" in caught.value.remedy
    # What is selected is not partitioned, and what it needs is clear.
    assert run(definitions, instance, selection="total").success


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"partition_key": "2024-01-99"}, UnknownPartitionError, "no partition `2024-01-99`"),
        ({"partition_key": "2024-02-01"}, UnknownPartitionError, "no partition `2024-02-01`"),
        ({"partition_range": ("2024-01-09", "2024-01-03")}, UsageError, "runs backwards"),
        ({"partition_keys": "2024-01-01"}, UsageError, "a list of keys"),
    ],
)
def test_partitions_that_there_are_not(
    instance: Instance, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        run(chain([]), instance, selection="days", **arguments)
    assert instance.catalog.runs() == []


def test_what_needs_a_partition_that_does_not_exist(instance: Instance) -> None:
    @asset(partitions_def=DAYS)
    def days() -> int:
        return 1

    @asset(partitions_def=WeeklyPartitionsDefinition(start_date="2024-01-01", end_date="2024-03-01"))
    def weeks(days: dict[str, int]) -> int:
        return len(days)

    definitions = Definitions([days, weeks])
    with pytest.raises(
        UsageError, match=r"needs partitions of `days` that do not exist: 2024-02-01, 2024-02-02, 2024-02-03\."
    ):
        run(definitions, instance, selection="weeks", partition_key="2024-01-28")
    with pytest.raises(UsageError, match=r"2024-02-04, .*, 2024-02-08 and more") as several:
        run(definitions, instance, selection="weeks", partition_key="2024-02-04")
    assert "allow_nonexistent" in several.value.remedy
    result = run(definitions, instance, all_partitions=True)
    assert result.success
    assert [str(one.partitions) for one in result.plan.impossible] == ["2024-01-28..2024-02-18 (4)"]
    assert counts(definitions, instance, "weeks") == CellCounts(fresh=3, stale=0, missing=4, failed=0, total=7)


def test_a_remedy_that_the_mapping_has(instance: Instance) -> None:
    @asset(partitions_def=StaticPartitionsDefinition(["a"]))
    def few() -> int:
        return 1

    @asset(partitions_def=StaticPartitionsDefinition(["a", "b"]))
    def more(few: int) -> int:
        return few

    with pytest.raises(UsageError, match="needs partitions of `few` that do not exist: b") as refused:
        run(Definitions([few, more]), instance, selection="more", partition_key="b")
    assert refused.value.remedy == "Choose other partitions, or give `few` those."


def test_a_new_key_makes_nothing_stale_that_does_not_read_it(instance: Instance) -> None:
    def make(*keys: str) -> Definitions:
        letters = StaticPartitionsDefinition(keys)

        @asset(partitions_def=letters)
        def source() -> int:
            return 1

        @asset(partitions_def=letters)
        def copies(source: int) -> int:
            return source

        @asset(ins={"source": AssetIn(partition_mapping=LastPartitionMapping())})
        def last(source: int) -> int:
            return source

        @asset
        def every(source: dict[str, int]) -> int:
            return len(source)

        return Definitions([source, copies, last, every])

    run(make("a", "b"), instance, all_partitions=True)
    grown = make("a", "b", "c")
    assert counts(grown, instance, "copies") == CellCounts(fresh=2, stale=0, missing=1, failed=0, total=3)
    assert counts(grown, instance, "last").stale == 1
    assert counts(grown, instance, "every").stale == 1
    shrunk = make("b")
    assert counts(shrunk, instance, "copies") == CellCounts(fresh=1, stale=0, missing=0, failed=0, total=1)
    assert reader(shrunk, instance).partition_status(headwater.AssetKey("copies")).outside == ["a"]
    assert counts(shrunk, instance, "every").stale == 1
    assert counts(shrunk, instance, "last").fresh == 1
    # What is out of the definition can still be read.
    assert headwater.load_asset("source", partition="a", instance=instance) == 1


def test_from_partitioned_to_not_and_back(instance: Instance) -> None:
    def make(partitions: Any) -> Definitions:
        @asset(partitions_def=partitions)
        def one() -> int:
            return 1

        return Definitions([one])

    run(make(LETTERS), instance, all_partitions=True)
    assert counts(make(None), instance, "one") == CellCounts(fresh=0, stale=0, missing=1, failed=0, total=1)
    assert run(make(None), instance).success
    assert counts(make(None), instance, "one").fresh == 1
    assert counts(make(LETTERS), instance, "one").fresh == 3


def test_what_a_key_means_is_part_of_the_definition(instance: Instance) -> None:
    def make(partitions: Any) -> Definitions:
        @asset(partitions_def=partitions)
        def one() -> int:
            return 1

        return Definitions([one])

    # 2024-09-01 is a Sunday and the first of a month.
    weeks = make(WeeklyPartitionsDefinition(start_date="2024-01-07", end_date="2024-03-01"))
    months = make(MonthlyPartitionsDefinition(start_date="2024-01-01", end_date="2024-06-01"))
    run(weeks, instance, all_partitions=True)
    later = make(WeeklyPartitionsDefinition(start_date="2024-01-14", end_date="2024-05-01"))
    assert counts(later, instance, "one").stale == 0
    assert counts(months, instance, "one").fresh == 0


def test_hours_of_days(instance: Instance) -> None:
    @asset(partitions_def=HourlyPartitionsDefinition("2024-01-01-00:00", end_date="2024-01-03-00:00"))
    def hours(context: headwater.AssetExecutionContext) -> pl.DataFrame:
        window = context.partition_time_window
        return pl.DataFrame({"at": [window.start], "seconds": [(window.end - window.start).total_seconds()]})

    @asset(
        partitions_def=DailyPartitionsDefinition("2024-01-01", end_date="2024-01-03"),
        ins={"hours": AssetIn(partition_columns="hour")},
    )
    def days(hours: pl.DataFrame) -> pl.DataFrame:
        return hours

    result = run(Definitions([hours, days]), instance, selection="days", partition_key="2024-01-02")
    assert result.success
    assert len(result.materializations) == 25
    frame = result.asset_value("days", pl.DataFrame, partition="2024-01-02")
    assert frame["seconds"].sum() == 86400
    assert frame["hour"].to_list()[:2] == ["2024-01-02-00:00", "2024-01-02-01:00"]


def test_several_assets_of_one_step(instance: Instance) -> None:
    calls: list[str] = []

    @multi_asset(
        outs={"left": headwater.AssetOut(), "right": headwater.AssetOut()},
        partitions_def=LETTERS,
    )
    def both(context: headwater.AssetExecutionContext) -> Any:
        calls.append(context.partition_key)
        return 1, 2

    @asset(partitions_def=LETTERS)
    def after(left: int, right: int) -> int:
        return left + right

    definitions = Definitions([both, after])
    result = run(definitions, instance, selection="after", partition_keys=["a", "c"])
    assert result.success
    assert sorted(calls) == ["a", "c"]
    assert counts(definitions, instance, "right").fresh == 2
    assert result.asset_value("after", partition="c") == 3


def test_recorded_inputs_are_those_of_each_cell(instance: Instance) -> None:
    definitions = chain([])
    run(definitions, instance, all_partitions=True)
    made = instance.catalog.current(headwater.AssetKey("copies"), "2024-01-07")
    assert made is not None
    assert [(str(one.asset), one.partition) for one in made.inputs] == [("days", "2024-01-07")]
    month = instance.catalog.current(headwater.AssetKey("months"), "2024-01-01")
    assert month is not None
    assert [one.partition for one in month.inputs] == [f"2024-01-{day:02}" for day in range(1, 32)]
    assert all(one.version_id for one in month.inputs)


def test_all_of_a_partitioned_asset_for_each_partition(instance: Instance) -> None:
    @asset(partitions_def=LETTERS)
    def source(context: headwater.AssetExecutionContext) -> str:
        return context.partition_key

    @asset(partitions_def=LETTERS, ins={"source": AssetIn(partition_mapping=AllPartitionMapping())})
    def joined(source: dict[str, str]) -> str:
        return "".join(source.values())

    result = run(Definitions([source, joined]), instance, selection="joined", partition_key="b")
    assert result.asset_value("joined", partition="b") == "abc"
    assert len(result.materializations) == 4


HOSTILE = ["..", "a/b", "a b", "'; drop table cell; --", "한국", "a|b", "%2F", "con", "x" * 300]


def test_keys_may_be_any_text(instance: Instance) -> None:
    keys = HOSTILE

    @asset(partitions_def=StaticPartitionsDefinition(keys))
    def odd(context: headwater.AssetExecutionContext) -> str:
        return context.partition_key

    @asset
    def gathered(odd: dict[str, str]) -> bool:
        return all(key == value for key, value in odd.items()) and list(odd) == keys

    result = run(Definitions([odd, gathered]), instance, selection="gathered")
    assert result.success, result.outcome
    assert result.asset_value("gathered") is True
    assert Cell(headwater.AssetKey("odd"), "..") in {m.cell for m in result.materializations}


def test_threads_build_partitions_side_by_side(instance: Instance) -> None:
    definitions = chain([])
    result = run(definitions, instance, all_partitions=True, executor="threads", max_workers=4)
    assert result.success
    assert result.asset_value("total") == 31


def test_all_partitions_are_one_table_in_sql(tmp_path: Path) -> None:
    with Instance.open(tmp_path, clock=Midsummer()) as home:
        assert run(chain([]), home, selection="copies", partition_range="2024-01-05..2024-01-09").success
        answer = query_catalog(home, "select count(*), min(day), sum(n) from copies")
        assert answer.rows == [(5, "2024-01-05", 5)]
        rows = query_catalog(home, "select asset, count(*) from partitions group by all order by all").rows
        assert rows == [("copies", 5), ("days", 5)]


@pytest.fixture
def few_files() -> Iterator[None]:
    """Allow at most 250 open files more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/dev/fd")) + 250, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("policy", [BackfillPolicy.single_run(), BackfillPolicy.multi_run(1)], ids=["one step", "many"])
def test_more_partitions_than_a_process_may_have_open_files(
    instance: Instance, few_files: None, policy: BackfillPolicy
) -> None:
    hours = HourlyPartitionsDefinition(start_date="2024-01-01-00:00", end_date="2024-01-15-00:00")

    @asset(partitions_def=hours, backfill_policy=policy)
    def many(context: headwater.AssetExecutionContext) -> Any:
        return dict.fromkeys(context.partition_keys, 1) if policy.max_partitions_per_run is None else 1

    result = run(Definitions([many]), instance, all_partitions=True)
    assert result.success
    assert len(result.materializations) == 14 * 24
