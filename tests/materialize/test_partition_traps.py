"""Where others say FRESH, or never stop saying STALE: one test for each, over many partitions."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import headwater
from headwater import (
    AllPartitionMapping,
    AssetDep,
    AssetKey,
    AssetSpec,
    BackfillPolicy,
    Config,
    DailyPartitionsDefinition,
    Definitions,
    Failure,
    HourlyPartitionsDefinition,
    IdentityPartitionMapping,
    LastPartitionMapping,
    MaterializeResult,
    MonthlyPartitionsDefinition,
    PartitionMapping,
    StaticPartitionsDefinition,
    TimeWindowPartitionMapping,
    WeeklyPartitionsDefinition,
    asset,
    multi_asset,
)
from headwater.catalog.clock import SystemClock
from headwater.catalog.errors import PartitionMappingError
from headwater.catalog.instance import Instance
from headwater.catalog.records import BackfillStatus, Fingerprint, Materialization, StepStatus
from headwater.materialize.api import RunResult
from headwater.materialize.backfill import backfill
from headwater.materialize.causes import CauseKind, Status
from headwater.materialize.reader import CellCounts, Reader
from tests.histories import History

YEAR = DailyPartitionsDefinition("2023-01-01", end_date="2024-01-01")
MONTHS = MonthlyPartitionsDefinition("2023-01-01", end_date="2024-01-01")
ALL_AT_ONCE = BackfillPolicy.single_run()


class Hand(SystemClock):
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.moment = datetime(2024, 6, 1, tzinfo=UTC)

    def now(self) -> datetime:
        return self.moment


@pytest.fixture
def clock() -> Hand:
    return Hand()


@pytest.fixture
def instance(clock: Hand) -> Iterator[Instance]:
    with Instance.ephemeral(clock=clock) as one:
        yield one


#: What partitions hold, by key; everything else holds "1".
Versions = dict[str, str]


def made(name: str, versions: Versions, *, code: str = "1", deps: Any = (), partitions: Any = YEAR) -> Any:
    """An asset that stores nothing, and says of each partition what it holds."""

    @asset(name=name, code_version=code, deps=deps, partitions_def=partitions, backfill_policy=ALL_AT_ONCE)
    def compute(context: headwater.AssetExecutionContext) -> Iterator[MaterializeResult[Any] | Failure]:
        for key in context.partition_keys:
            version = versions.get(key, "1")
            if version == "broken":
                yield Failure("broken", partition_key=key)
            else:
                yield MaterializeResult(partition_key=key, data_version=version)

    return compute


def single(name: str, *deps: Any, version: str = "1") -> Any:
    """An unpartitioned asset."""

    @asset(name=name, code_version="1", deps=deps)
    def compute() -> MaterializeResult[Any]:
        return MaterializeResult(data_version=version)

    return compute


def run(instance: Instance, *assets: Any, **arguments: Any) -> RunResult:
    arguments.setdefault("all_partitions", not {"partition_key", "partition_keys"} & arguments.keys())
    return headwater.materialize(Definitions(assets), instance=instance, raise_on_error=False, **arguments)


def look(instance: Instance, *assets: Any) -> Reader:
    return Reader(Definitions(assets).graph, instance.catalog, instance.clock.now())


def counts(reader: Reader, key: str) -> tuple[int, int, int]:
    """Fresh, stale, missing."""
    found = reader.counts(AssetKey(key))
    return found.fresh, found.stale, found.missing


def causes(reader: Reader, key: str, partition: str | None = None) -> list[tuple[CauseKind, str | None]]:
    status = reader.status(AssetKey(key), partition)
    return [(cause.kind, cause.upstream and str(cause.upstream)) for cause in status.causes]


def ended(result: RunResult, key: str) -> dict[StepStatus, int]:
    """How the cells of an asset ended."""
    found: dict[StepStatus, int] = {}
    for cell in result.cells:
        if cell.asset == key:
            found[cell.status] = found.get(cell.status, 0) + 1
    return found


def test_rule_4_a_partitioned_asset_asked_as_a_whole_is_not_fresh_by_definition(instance: Instance) -> None:
    days = made("days", {})
    assert look(instance, days).statuses()[AssetKey("days")] == Status.MISSING
    run(instance, days, partition_key="2023-05-05")
    reader = look(instance, days)
    assert reader.statuses()[AssetKey("days")] == Status.STALE
    assert counts(reader, "days") == (1, 0, 364)
    (cause,) = reader.status(AssetKey("days")).causes
    assert (cause.kind, cause.detail) == (CauseKind.NEVER_MATERIALIZED, "364 of 365 partitions")


def test_rule_5_a_code_version_that_comes_or_goes_counts_for_every_cell(instance: Instance) -> None:
    run(instance, made("days", {}))
    assert counts(look(instance, made("days", {}, code="2")), "days") == (0, 365, 0)

    @asset(name="days", partitions_def=YEAR)
    def hashed() -> int:
        return 1

    assert counts(look(instance, hashed), "days") == (0, 365, 0)


def test_rule_6_staleness_is_transitive_and_only_where_it_is_read(instance: Instance) -> None:
    def chain(code: str) -> list[Any]:
        return [
            made("a", {}, code=code),
            made("b", {}, deps=["a"]),
            made("c", {}, deps=["b"], partitions=MONTHS),
            single("d", "c"),
        ]

    run(instance, *chain("1"))
    reader = look(instance, *chain("2"))
    assert [counts(reader, key) for key in "abcd"] == [(0, 365, 0), (0, 365, 0), (0, 12, 0), (0, 1, 0)]
    assert causes(reader, "c", "2023-02-01") == [(CauseKind.UPSTREAM_STALE, "b")]
    run(instance, *chain("2"), selection="a", partition_keys=[f"2023-01-{day:02}" for day in range(1, 32)])
    reader = look(instance, *chain("2"))
    assert [counts(reader, key) for key in "abcd"] == [(31, 334, 0), (31, 334, 0), (1, 11, 0), (0, 1, 0)]


def test_rule_7_equal_data_stops_a_change_cell_by_cell(instance: Instance) -> None:
    def chain(code: str, versions: Versions) -> list[Any]:
        return [
            made("days", versions, code=code),
            made("months", {}, deps=["days"], partitions=MONTHS),
            single("total", "months"),
        ]

    run(instance, *chain("1", {}))
    result = run(instance, *chain("2", {"2023-07-09": "2"}))
    assert ended(result, "days") == {StepStatus.SUCCESS: 365}
    assert ended(result, "months") == {StepStatus.VERIFIED: 11, StepStatus.SUCCESS: 1}
    assert result.status_of("months", "2023-07-01") is StepStatus.SUCCESS
    assert ended(result, "total") == {StepStatus.VERIFIED: 1}
    assert not run(instance, *chain("2", {"2023-07-09": "2"})).plan


def test_rule_8_a_missing_cell_above_is_told_and_matters_when_it_is_made(instance: Instance) -> None:
    assets = made("days", {}), made("months", {}, deps=["days"], partitions=MONTHS)
    run(instance, *assets, selection="months", upstream=False)
    reader = look(instance, *assets)
    assert counts(reader, "months") == (0, 12, 0)
    assert causes(reader, "months", "2023-02-01") == [(CauseKind.UPSTREAM_MISSING, "days")]
    run(instance, *assets, selection="days", partition_key="2023-02-03")
    reader = look(instance, *assets)
    assert causes(reader, "months", "2023-01-01") == [(CauseKind.UPSTREAM_MISSING, "days")]
    assert causes(reader, "months", "2023-02-01") == [
        (CauseKind.UPSTREAM_DATA_CHANGED, "days"),
        (CauseKind.UPSTREAM_MISSING, "days"),
    ]
    run(instance, *assets)
    assert counts(look(instance, *assets), "months") == (12, 0, 0)


def test_rule_8_a_failed_run_changes_nothing(instance: Instance) -> None:
    versions: Versions = {}
    assets = made("days", versions), made("months", {}, deps=["days"], partitions=MONTHS)
    run(instance, *assets)
    versions["2023-02-03"] = "broken"
    result = run(instance, *assets, selection="days", partition_key="2023-02-03", force=True)
    assert result.status_of("days", "2023-02-03") is StepStatus.FAILURE
    reader = look(instance, *assets)
    assert (counts(reader, "days"), counts(reader, "months")) == ((365, 0, 0), (12, 0, 0))
    # With other code it stays what it was, stale, and what reads it is left alone as well.
    result = run(instance, made("days", versions, code="2"), assets[1])
    assert ended(result, "days") == {StepStatus.SUCCESS: 364, StepStatus.FAILURE: 1}
    assert result.status_of("months", "2023-02-01") is StepStatus.SKIPPED
    assert ended(result, "months") == {StepStatus.VERIFIED: 11, StepStatus.SKIPPED: 1}
    reader = look(instance, made("days", versions, code="2"), assets[1])
    assert reader.counts(AssetKey("days")) == CellCounts(fresh=364, stale=1, missing=0, failed=1, total=365)
    assert causes(reader, "months", "2023-02-01") == [(CauseKind.UPSTREAM_STALE, "days")]


def test_rule_9_versions_are_compared_that_were_read_whatever_happened_between(instance: Instance) -> None:
    versions: Versions = {}
    assets = made("days", versions), made("months", {}, deps=["days"], partitions=MONTHS)
    run(instance, *assets)
    for version, fresh in (("2", 11), ("3", 11), ("1", 12)):
        versions["2023-04-30"] = version
        run(instance, *assets, selection="days", partition_key="2023-04-30", force=True)
        assert look(instance, *assets).counts(AssetKey("months")).fresh == fresh


def test_rule_10_an_unpartitioned_asset_below_a_year_of_days(instance: Instance) -> None:
    versions: Versions = {}
    assets = made("days", versions), single("total", "days")
    run(instance, *assets)
    assert counts(look(instance, *assets), "total") == (1, 0, 0)
    versions["2023-05-05"] = "2"
    run(instance, *assets, selection="days", partition_key="2023-05-05", force=True)
    assert causes(look(instance, *assets), "total") == [(CauseKind.UPSTREAM_DATA_CHANGED, "days")]
    result = run(instance, *assets)
    assert [cell.asset for cell in result.cells] == ["total"]
    made_last = instance.catalog.current(AssetKey("total"))
    assert made_last is not None
    assert len(made_last.inputs) == 365
    assert not run(instance, *assets).plan


def test_rule_10_a_hundred_and_more_partitions_above_each_cell(instance: Instance) -> None:
    versions: Versions = {}
    letters = StaticPartitionsDefinition(["a", "b"])
    dep = AssetDep("days", partition_mapping=AllPartitionMapping())
    assets = made("days", versions), made("all", {}, deps=[dep], partitions=letters), made("copies", {}, deps=["days"])
    run(instance, *assets)
    versions["2023-12-31"] = "2"
    run(instance, *assets, selection="days", partition_key="2023-12-31", force=True)
    reader = look(instance, *assets)
    assert (counts(reader, "all"), counts(reader, "copies")) == ((0, 2, 0), (364, 1, 0))
    run(instance, *assets)
    reader = look(instance, *assets)
    assert (counts(reader, "all"), counts(reader, "copies")) == ((2, 0, 0), (365, 0, 0))


@pytest.mark.parametrize(("first", "last", "stale"), [(-1, -1, 306), (-3, -2, 305)])
def test_rule_10_an_asset_that_reads_itself_over_a_year(instance: Instance, first: int, last: int, stale: int) -> None:
    versions: Versions = {}
    before = AssetDep("running", partition_mapping=TimeWindowPartitionMapping(first, last))
    assets = made("days", versions), made("running", {}, deps=["days", before])
    run(instance, *assets)
    assert counts(look(instance, *assets), "running") == (365, 0, 0)
    versions["2023-03-01"] = "2"
    run(instance, *assets, selection="days", partition_key="2023-03-01", force=True)
    reader = look(instance, *assets)
    assert counts(reader, "running") == (365 - stale, stale, 0)
    assert causes(reader, "running", "2023-03-01") == [(CauseKind.UPSTREAM_DATA_CHANGED, "days")]
    assert causes(reader, "running", "2023-12-31") == [(CauseKind.UPSTREAM_STALE, "running")]
    assert sum(len(step.cells) for step in reader.plan("running", partitions=_one("2023-03-03")).steps) == 4 + last
    run(instance, *assets)
    assert counts(look(instance, *assets), "running") == (365, 0, 0)


def test_rule_10_the_last_of_very_many_needs_all_before_it(instance: Instance) -> None:
    hours = HourlyPartitionsDefinition("2000-01-01-00:00", end_date="2012-01-01-00:00")
    before = AssetDep("running", partition_mapping=TimeWindowPartitionMapping(-1, -1))
    reader = look(instance, made("running", {}, deps=[before], partitions=hours))
    found = reader.plan("running", partitions=_one("2011-12-31-22:00"))
    (group,) = found.groups
    assert group.partitions is not None
    assert len(group.partitions) == reader.partitions(AssetKey("running")).count - 1 == 105_191


def test_rule_10_a_day_at_a_time_a_change_stops_where_it_changes_nothing(instance: Instance) -> None:
    versions: Versions = {}

    @asset(
        code_version="1",
        partitions_def=YEAR,
        deps=[AssetDep("running", partition_mapping=TimeWindowPartitionMapping(-1, -1)), "days"],
    )
    def running() -> MaterializeResult[Any]:
        return MaterializeResult(data_version="1")

    assets = made("days", versions), running
    run(instance, *assets, partition_keys=[f"2023-01-{day:02}" for day in range(1, 21)])
    versions["2023-01-05"] = "2"
    run(instance, *assets, selection="days", partition_key="2023-01-05", force=True)
    result = run(instance, *assets, selection="running", partition_key="2023-01-20")
    assert ended(result, "running") == {StepStatus.SUCCESS: 1, StepStatus.VERIFIED: 15}


def test_rule_11_an_external_asset_is_observed_partition_by_partition(instance: Instance) -> None:
    feed = AssetSpec("feed", partitions_def=YEAR)
    assets = feed, made("days", {}, deps=["feed"]), single("total", "feed")
    run(instance, *assets)
    assert counts(look(instance, *assets), "days") == (365, 0, 0)
    _observe(instance, "feed", "2023-05-05", "f1")
    reader = look(instance, *assets)
    assert (counts(reader, "days"), counts(reader, "total")) == ((364, 1, 0), (0, 1, 0))
    assert causes(reader, "days", "2023-05-05") == [(CauseKind.UPSTREAM_DATA_CHANGED, "feed")]
    run(instance, *assets)
    assert counts(look(instance, *assets), "days") == (365, 0, 0)
    _observe(instance, "feed", "2023-05-05", "f1")
    assert not run(instance, *assets).plan
    _observe(instance, "feed", "2023-05-05", "f2")
    assert [str(cell.partition) for cell in run(instance, *assets).cells] == ["2023-05-05", "None"]


class Settings(Config):
    factor: int = 1


def test_rule_12_another_configuration_is_another_version_of_each_cell(instance: Instance) -> None:
    @asset(code_version="1", partitions_def=YEAR)
    def days(config: Settings) -> int:
        return config.factor

    @asset(code_version="1", partitions_def=YEAR)
    def copies(days: int) -> int:
        return days

    three = ["2023-01-01", "2023-01-02", "2023-01-03"]
    run(instance, days, copies, partition_keys=three)
    other = {"ops": {"days": {"config": {"factor": 2}}}}
    run(instance, days, copies, selection="days", partition_key=three[1], run_config=other)
    reader = look(instance, days, copies)
    assert causes(reader, "days", three[1]) == [(CauseKind.CONFIG_CHANGED, None)]
    assert (CauseKind.UPSTREAM_DATA_CHANGED, "days") in causes(reader, "copies", three[1])
    assert [counts(reader, key)[:2] for key in ("days", "copies")] == [(2, 1), (2, 1)]
    changed = Reader(Definitions([days, copies]).graph_with(other), instance.catalog, instance.clock.now())
    assert counts(changed, "days")[:2] == (1, 2)


def test_the_last_partition_moves_on(instance: Instance, clock: Hand) -> None:
    days = DailyPartitionsDefinition("2024-05-20")
    last = AssetDep("days", partition_mapping=LastPartitionMapping())
    assets = made("days", {}, partitions=days), single("latest", last), single("every", "days")
    run(instance, *assets)
    assert counts(look(instance, *assets), "latest") == (1, 0, 0)
    clock.moment += timedelta(hours=23)
    assert not run(instance, *assets).plan
    clock.moment += timedelta(hours=1)
    reader = look(instance, *assets)
    assert counts(reader, "days") == (12, 0, 1)
    assert causes(reader, "latest") == [(CauseKind.UPSTREAM_DATA_CHANGED, "days"), (CauseKind.UPSTREAM_MISSING, "days")]
    assert causes(reader, "every") == [(CauseKind.UPSTREAM_MISSING, "days")]
    result = run(instance, *assets)
    assert [str(m.cell) for m in result.materializations] == ["days [2024-06-01]", "latest", "every"]
    assert not run(instance, *assets).plan


def test_an_asset_that_is_divided_no_more_is_not_taken_for_one_of_its_partitions(instance: Instance) -> None:
    letters = StaticPartitionsDefinition(["a", "b"])
    run(instance, made("source", {"a": "0"}, partitions=letters), single("sink", "source"))
    # What there is now is equal to one of the partitions that were read.
    whole = single("source", version="1"), single("sink", "source")
    run(instance, *whole, selection="source")
    assert causes(look(instance, *whole), "sink") == [(CauseKind.UPSTREAM_DATA_CHANGED, "source")]
    run(instance, *whole)
    assert not run(instance, *whole).plan


def test_what_reads_partitions_that_cannot_be_built_is_left_out_with_them(instance: Instance) -> None:
    weeks = WeeklyPartitionsDefinition("2023-01-01", end_date="2024-03-01")

    @asset(code_version="1", partitions_def=weeks, deps=["days"], backfill_policy=ALL_AT_ONCE)
    def weekly(context: headwater.AssetExecutionContext) -> dict[str, int]:
        return dict.fromkeys(context.partition_keys, 1)

    @asset(code_version="1")
    def total(weekly: dict[str, int]) -> int:
        return sum(weekly.values())

    assets = made("days", {}), weekly, total
    result = run(instance, *assets)
    assert result.success
    assert [str(one) for one in result.plan.impossible] == [
        "`weekly [2023-12-31..2024-02-18 (8)]` needs partitions of `days` that do not exist: 2024-01-01, 2024-01-02, "
        "2024-01-03, 2024-01-04, 2024-01-05 and more",
        "`total` needs what cannot be built of `weekly`",
    ]
    assert ended(result, "weekly") == {StepStatus.SUCCESS: 52}
    assert counts(look(instance, *assets), "total") == (0, 0, 1)
    found = backfill(Definitions(assets), instance=instance)
    assert (found.status, found.progress.done) == (BackfillStatus.SUCCESS, 365 + 52)


def test_assets_of_one_function_read_no_later_partitions_of_each_other() -> None:
    def both(mapping: PartitionMapping | None) -> Any:
        dep = AssetDep("first", partition_mapping=mapping)

        @multi_asset(specs=[AssetSpec("first"), AssetSpec("second", deps=[dep])], partitions_def=YEAR)
        def compute() -> None: ...

        return Definitions([compute]).graph

    for mapping in (AllPartitionMapping(), LastPartitionMapping(), TimeWindowPartitionMapping(0, 1)):
        with pytest.raises(PartitionMappingError, match="`second` cannot read `first`, which the same function"):
            both(mapping)
    for fine in (
        None,
        IdentityPartitionMapping(),
        TimeWindowPartitionMapping(-2, 0),
        TimeWindowPartitionMapping(-1, -1),
    ):
        assert both(fine)


def test_the_steps_of_a_function_that_reads_earlier_partitions_of_itself_wait_for_each_other(
    instance: Instance,
) -> None:
    order: list[str] = []
    month = DailyPartitionsDefinition("2023-01-01", end_date="2023-02-01")
    dep = AssetDep("state", partition_mapping=TimeWindowPartitionMapping(-1, -1))

    @multi_asset(
        specs=[AssetSpec("state", code_version="1"), AssetSpec("diff", deps=[dep], code_version="1")],
        partitions_def=month,
    )
    def compute(context: headwater.AssetExecutionContext) -> None:
        order.append(context.partition_key)

    assert run(instance, compute, executor="threads", max_workers=4).success
    assert order == sorted(order)
    assert not run(instance, compute).plan


def test_a_batch_that_reads_itself_is_computed_to_its_end(instance: Instance) -> None:
    versions: Versions = {}
    before = AssetDep("running", partition_mapping=TimeWindowPartitionMapping(-1, -1))
    days = made("days", versions)

    @asset(code_version="1", partitions_def=YEAR, deps=["days", before], backfill_policy=ALL_AT_ONCE)
    def running(context: headwater.AssetExecutionContext) -> Iterator[MaterializeResult[Any]]:
        changed = ""
        for key in context.partition_keys:  # a change is handed on within the step
            changed = changed or versions.get(key, "")
            yield MaterializeResult(partition_key=key, data_version=f"{key} {changed}")

    run(instance, days, running)
    versions["2023-12-30"] = "2"
    run(instance, days, selection="days", partition_key="2023-12-30", force=True)
    result = run(instance, days, running)
    assert ended(result, "running") == {StepStatus.SUCCESS: 2}
    assert not run(instance, days, running).plan


def test_a_backfill_builds_of_each_asset_of_a_function_what_is_asked_of_it(instance: Instance) -> None:
    letters = StaticPartitionsDefinition(["a", "b", "c"])

    @multi_asset(
        specs=[AssetSpec("left", code_version="1"), AssetSpec("right", code_version="1", deps=["left"])],
        can_subset=True,
        partitions_def=letters,
    )
    def compute(context: headwater.AssetExecutionContext) -> None: ...

    run(instance, compute)
    found = backfill(Definitions([compute]), instance=instance, selection="right", partition_keys=["b"])
    assert [str(m.cell) for one in found.runs for step in one.steps for m in step.materializations] == ["right [b]"]


def test_c7_an_asset_says_how_many_of_its_partitions_are_stale(instance: Instance) -> None:
    versions: Versions = {}
    assets = made("days", versions), made("copies", {}, deps=["days"])
    run(instance, *assets)
    for day in ("2023-01-01", "2023-06-01"):
        versions[day] = "2"
    run(instance, *assets, selection="days", partition_keys=list(versions), force=True)
    status = look(instance, *assets).status(AssetKey("copies"))
    assert status.status is Status.STALE
    assert [str(cause) for cause in status.causes] == ["days has new data (2 of 365 partitions)"]


def _observe(instance: Instance, key: str, partition: str, version: str) -> None:
    """Something that Headwater does not run reports what a partition holds."""
    history = History(len(instance.catalog.events()) + 1000)
    started = history.start((key, [partition]))
    ended = history.succeed(
        started, fingerprint=Fingerprint(code=""), data_version=version, pointer=None, inputs=(), seconds=0.0
    )
    assert isinstance(ended.materializations[0], Materialization)
    instance.catalog.append([started, ended, history.finish(started)])


def _one(key: str) -> Any:
    from headwater.materialize.partition_choice import PartitionChoice

    return PartitionChoice(keys=(key,))
