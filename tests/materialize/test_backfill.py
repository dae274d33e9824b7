"""Backfills: what is built, in which runs, what is remembered, and how they go on after whatever happened."""

import json
import os
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import headwater
from headwater import (
    AssetExecutionContext,
    AssetOut,
    AssetsDefinition,
    BackfillPolicy,
    Config,
    DailyPartitionsDefinition,
    Definitions,
    DynamicPartitionsDefinition,
    EnvVar,
    Failure,
    HourlyPartitionsDefinition,
    Output,
    StaticPartitionsDefinition,
    TimeWindowPartitionMapping,
    asset,
    multi_asset,
)
from headwater.catalog.clock import SystemClock
from headwater.catalog.errors import ConflictError, UnknownBackfillError, UnknownPartitionError, UsageError
from headwater.catalog.instance import Instance
from headwater.catalog.keys import AssetKey
from headwater.catalog.records import Backfill, BackfillStatus
from headwater.materialize.backfill import (
    BackfillResult,
    BackfillSettings,
    backfill,
    cancel_backfill,
    find_backfill,
    resume_backfill,
    settle_requests,
)
from headwater.materialize.backfill_signals import cancel_requests, request_cancel, running_backfill

TEN = DailyPartitionsDefinition(start_date="2024-01-01", end_date="2024-01-11")
LETTERS = StaticPartitionsDefinition(["a", "b", "c"])
SUCCESS, FAILURE, CANCELED = BackfillStatus.SUCCESS, BackfillStatus.FAILURE, BackfillStatus.CANCELED


@dataclass
class Passing(SystemClock):
    """It is June 1 of 2024, until somebody lets time pass."""

    moment: datetime = datetime(2024, 6, 1, tzinfo=UTC)

    def now(self) -> datetime:
        self.moment += timedelta(milliseconds=2)  # so that identifiers sort
        return self.moment


@dataclass
class World:
    """An instance, what steps were called for, and which of them are to fail."""

    clock: Passing = field(default_factory=Passing)
    calls: list[str] = field(default_factory=list[str])
    bad: set[str] = field(default_factory=set[str])
    #: Called in a step.
    during: Callable[[str], None] = lambda _: None

    def __post_init__(self) -> None:
        self.instance = Instance.ephemeral(clock=self.clock)

    def one(self, name: str, *above: str, **arguments: Any) -> AssetsDefinition:
        """An asset that notes its calls, and fails when it is told to."""

        @asset(name=name, deps=list(above), code_version="1", **arguments)
        def step(context: AssetExecutionContext) -> Any:
            partitions = context.partition_keys if "partitions_def" in arguments else [""]
            for partition in partitions:
                call = f"{name} {partition}".strip()
                self.calls.append(call)
                self.during(call)
                if call in self.bad:
                    raise ValueError(call)
            return dict.fromkeys(partitions, 1) if len(partitions) > 1 else 1

        return step

    def start(self, assets: list[Any], settings: BackfillSettings | None = None, **arguments: Any) -> BackfillResult:
        return backfill(Definitions(assets), instance=self.instance, settings=settings, **arguments)

    def resume(self, assets: list[Any], found: BackfillResult, **settings: Any) -> BackfillResult:
        assert found.backfill_id is not None
        given = BackfillSettings(**settings)
        return resume_backfill(Definitions(assets), found.backfill_id, instance=self.instance, settings=given)

    def record(self, found: BackfillResult) -> Backfill:
        assert found.backfill_id is not None
        return find_backfill(self.instance, found.backfill_id)

    def versions(self, key: str) -> dict[str | None, int]:
        """How often each cell of an asset was made."""
        return dict(Counter(made.partition for made in self.instance.catalog.materializations(AssetKey(key))))


@pytest.fixture
def world() -> World:
    return World()


def few(steps: int) -> BackfillSettings:
    return BackfillSettings(steps_per_run=steps)


def numbers(found: BackfillResult) -> tuple[int, int, int, int]:
    progress = found.progress
    return progress.done, progress.failed, progress.blocked, progress.total


def test_every_cell_is_built_once_in_runs_of_bounded_size(world: World) -> None:
    assets = [
        world.one("days", partitions_def=TEN),
        world.one("batches", "days", partitions_def=TEN, backfill_policy=BackfillPolicy.multi_run(4)),
        world.one("whole", "days", partitions_def=TEN, backfill_policy=BackfillPolicy.single_run()),
        world.one("total", "whole"),
    ]
    found = world.start(assets, BackfillSettings(steps_per_run=4, tags={"who": "me"}), title="first", selection="*")
    assert (found.status, found.exit_code, numbers(found)) == (SUCCESS, 0, (31, 0, 0, 31))
    assert len(world.calls) == 31 == len(set(world.calls))
    assert world.calls.index("days 2024-01-10") < world.calls.index("batches 2024-01-01")
    assert world.calls[-1] == "total"
    record = world.record(found)
    assert (record.done, record.failed, record.total, record.title) == (31, 0, 31, "first")
    assert record.runs == tuple(run.run_id for run in found.runs)
    for run_id in record.runs:
        run = world.instance.catalog.run(run_id)
        assert run is not None
        assert (run.backfill_id, run.tags, run.selection) == (record.backfill_id, {"who": "me"}, "*")
        assert sum(run.step_counts.values()) <= 4
    assert len(record.runs) == 4


def test_what_is_fresh_is_built_again_and_only_what_was_asked_for(world: World) -> None:
    assets = [world.one("days", partitions_def=TEN), world.one("copies", "days", partitions_def=TEN)]
    world.start(assets)
    world.calls.clear()
    found = world.start(
        assets, selection="copies", partition_range="2024-01-02..2024-01-03", partition_keys=["2024-01-09"]
    )
    assert found.status is SUCCESS
    assert world.calls == ["copies 2024-01-02", "copies 2024-01-03", "copies 2024-01-09"]
    with pytest.raises(UnknownPartitionError):
        world.start(assets, partition_keys=["2024-02-30"])
    with pytest.raises(UsageError):
        world.start(assets, partition_range="2024-01-03..2024-01-02")
    with pytest.raises(UsageError):
        world.start(assets, only=["purple"])
    with pytest.raises(UsageError):
        world.start(assets, few(0))
    assert len(world.instance.catalog.backfills()) == 2, "what cannot be is not recorded"


def test_upstream_comes_first_unless_it_is_left_alone(world: World) -> None:
    assets = [world.one("days", partitions_def=TEN), world.one("copies", "days", partitions_def=TEN)]
    found = world.start(assets, selection="copies", partition_keys=["2024-01-05"])
    assert world.calls == ["days 2024-01-05", "copies 2024-01-05"]
    assert numbers(found) == (2, 0, 0, 2)
    world.calls.clear()
    world.start(assets, selection="copies", partition_keys=["2024-01-06"], upstream=False)
    assert world.calls == ["copies 2024-01-06"]


def test_a_failure_blocks_its_readers_and_a_resume_builds_just_what_is_left(world: World) -> None:
    assets = [
        world.one("days", partitions_def=TEN),
        world.one("copies", "days", partitions_def=TEN),
        world.one("others", partitions_def=TEN),
        world.one("total", "copies"),
    ]
    world.bad = {"days 2024-01-04", "others 2024-01-01"}
    found = world.start(assets, few(7))
    assert (found.status, found.exit_code, numbers(found)) == (FAILURE, 4, (27, 2, 2, 31))
    assert "copies 2024-01-04" not in world.calls and "total" not in world.calls
    assert len(world.calls) == 29, "nothing is tried twice"
    record = world.record(found)
    assert (record.status, record.done, record.failed) == (FAILURE, 27, 2)
    world.calls.clear()
    world.bad = {"others 2024-01-01"}
    found = world.resume(assets, found)
    assert sorted(world.calls) == ["copies 2024-01-04", "days 2024-01-04", "others 2024-01-01", "total"]
    assert (found.status, found.exit_code, numbers(found)) == (FAILURE, 4, (30, 1, 0, 31))
    world.bad = set()
    found = world.resume(assets, found)
    assert (found.status, found.exit_code, numbers(found)) == (SUCCESS, 0, (31, 0, 0, 31))
    assert world.versions("days") == {f"2024-01-{day:02}": 1 for day in range(1, 11)}
    with pytest.raises(ConflictError, match="is done"):
        world.resume(assets, found)


def test_partitions_of_a_batch_fail_alone(world: World) -> None:
    @asset(partitions_def=TEN, backfill_policy=BackfillPolicy.multi_run(5), code_version="1")
    def days(context: AssetExecutionContext) -> Any:
        world.calls.extend(context.partition_keys)
        return {key: Failure(key) if key in world.bad else 1 for key in context.partition_keys}

    world.bad = {"2024-01-02", "2024-01-04", "2024-01-07"}
    found = world.start([days])
    assert (found.status, numbers(found)) == (FAILURE, (7, 3, 0, 10))
    world.bad = set()
    world.calls.clear()
    found = world.resume([days], found)
    assert (world.calls, len(found.runs[0].steps)) == (["2024-01-02", "2024-01-04", "2024-01-07"], 1)


def test_a_partition_that_reads_the_one_before_waits_for_it_over_runs_and_failures(world: World) -> None:
    above = world.one("above", partitions_def=TEN)
    yesterday = TimeWindowPartitionMapping(start_offset=-1, end_offset=-1)

    @asset(partitions_def=TEN, deps=["above"], ins={"running": headwater.AssetIn(partition_mapping=yesterday)})
    def running(context: AssetExecutionContext, running: int | None) -> int:
        world.calls.append(f"running {context.partition_key}")
        return (running or 0) + 1

    world.bad = {"above 2024-01-04"}
    found = world.start([above, running], few(4))
    assert [call for call in world.calls if call.startswith("running")] == [f"running 2024-01-0{n}" for n in (1, 2, 3)]
    assert (found.status, numbers(found)) == (FAILURE, (12, 1, 7, 20))
    world.bad = set()
    found = world.resume([above, running], found)
    assert (found.status, numbers(found)) == (SUCCESS, (20, 0, 0, 20))
    assert headwater.load_asset("running", partition="2024-01-10", instance=world.instance) == 10


def test_windows_that_end_meanwhile_are_neither_built_nor_in_the_way(world: World) -> None:
    hours = HourlyPartitionsDefinition(start_date="2024-05-31-22:00")
    assets = [world.one("hours", partitions_def=hours), world.one("copies", "hours", partitions_def=hours)]
    world.bad = {"hours 2024-05-31-22:00"}

    def pass_time(_: str) -> None:
        world.clock.moment += timedelta(hours=1)

    world.during = pass_time
    found = world.start(assets, few(1))
    assert (found.status, numbers(found)) == (FAILURE, (2, 1, 1, 4))
    world.bad, world.during = set(), lambda _: None
    assert numbers(world.resume(assets, found)) == (4, 0, 0, 4)
    assert world.versions("copies") == {"2024-05-31-22:00": 1, "2024-05-31-23:00": 1}


def test_dynamic_keys_that_come_and_go(world: World) -> None:
    world.instance.add_dynamic_partitions("shops", ["x", "y", "[31mz|'/..", "w"])
    assets = [world.one("shops", partitions_def=DynamicPartitionsDefinition(name="shops"))]
    world.bad = {"shops y", "shops w"}
    found = world.start(assets)
    assert numbers(found) == (2, 2, 0, 4)
    world.instance.delete_dynamic_partition("shops", "x")
    world.instance.delete_dynamic_partition("shops", "w")
    world.instance.add_dynamic_partitions("shops", ["new"])
    world.bad = set()
    world.calls.clear()
    found = world.resume(assets, found)
    assert world.calls == ["shops y"]
    assert (found.status, numbers(found), found.progress.gone) == (SUCCESS, (2, 0, 0, 4), 2)


def test_definitions_that_are_not_what_they_were(world: World) -> None:
    def assets(partitions: Any, *more: AssetsDefinition) -> list[AssetsDefinition]:
        return [world.one("kept", partitions_def=TEN), world.one("changed", partitions_def=partitions), *more]

    world.bad = {"kept 2024-01-02", "changed 2024-01-02", "removed"}
    first = world.start(assets(TEN, world.one("removed")))
    assert numbers(first) == (18, 3, 0, 21)
    world.bad = set()
    world.calls.clear()
    # A range that shrank: what lies outside is not built, what lies inside goes on.
    short = DailyPartitionsDefinition(start_date="2024-01-01", end_date="2024-01-05")
    found = world.resume(assets(short), first)
    assert sorted(world.calls) == ["changed 2024-01-02", "kept 2024-01-02"]
    assert (found.status, numbers(found), found.progress.gone) == (SUCCESS, (14, 0, 0, 21), 7)
    # An asset that is partitioned in quite another way.
    world.bad = {"kept 2024-01-02"}
    second = world.start(assets(TEN))
    world.bad = set()
    world.calls.clear()
    found = world.resume(assets(LETTERS), second)
    assert world.calls == ["kept 2024-01-02"]
    assert (found.status, found.progress.gone) == (SUCCESS, 10)
    # One that is not partitioned any more.
    world.bad = {"kept 2024-01-02"}
    third = world.start(assets(TEN))
    world.bad = set()
    assert world.resume(assets(None), third).progress.gone == 10


def test_a_resume_that_cannot_be_is_not_recorded(world: World) -> None:
    days = world.one("days", partitions_def=TEN)
    world.bad = {"days 2024-01-02"}
    found = world.start([days])

    @asset(partitions_def=TEN)
    def added() -> int:
        return 1

    @asset(name="days", partitions_def=TEN)
    def reader(added: int) -> int:
        return added

    with pytest.raises(UsageError, match="never materialized"):
        world.resume([added, reader], found)
    assert world.record(found).status is FAILURE
    assert running_backfill(world.instance.home) is None
    headwater.materialize([added, reader], selection="added", all_partitions=True, instance=world.instance)
    assert world.resume([added, reader], found).status is SUCCESS


def test_only_what_is_missing_stale_or_failed(world: World) -> None:
    assets = [world.one("days", partitions_def=TEN), world.one("single")]
    world.start(assets, selection="days", partition_range="2024-01-01..2024-01-08")
    world.bad = {"days 2024-01-09", "days 2024-01-03"}
    world.start(assets, selection="days", partition_range="2024-01-03..2024-01-03")
    world.start(assets, selection="days", partition_range="2024-01-09..2024-01-09")
    world.bad = set()
    world.calls.clear()
    # A fresh partition that could not be built again is not behind.
    assert world.start(assets, selection="days", only=["failed"]).status is SUCCESS
    assert world.calls == ["days 2024-01-09"]
    world.calls.clear()
    world.start(assets, only=["missing", "failed"])
    assert sorted(world.calls) == ["days 2024-01-10", "single"]
    world.calls.clear()
    nothing = world.start(assets, only=["missing"])
    assert (nothing.backfill_id, nothing.exit_code, world.calls) == (None, 0, [])


def test_two_backfills_of_the_same_cells_each_build_them(world: World) -> None:
    assets = [world.one("days", partitions_def=TEN)]
    first, second = world.start(assets), world.start(assets)
    assert first.backfill_id != second.backfill_id
    assert set(world.versions("days").values()) == {2}


def test_optional_outputs_that_are_not_made_are_no_failures(world: World) -> None:
    @multi_asset(
        outs={"always": AssetOut(), "sometimes": AssetOut(is_required=False)}, partitions_def=LETTERS, can_subset=False
    )
    def both(context: AssetExecutionContext) -> Any:
        world.calls.append(f"both {context.partition_key}")
        yield Output(1, output_name="always")
        if context.partition_key == "a":
            yield Output(1, output_name="sometimes")

    assets = [both, world.one("reader", "sometimes", partitions_def=LETTERS), world.one("last", partitions_def=LETTERS)]
    world.bad = {"last c"}
    found = world.start(assets, few(2))
    assert (found.status, numbers(found), found.progress.absent) == (FAILURE, (7, 1, 0, 12), 4)
    assert [call for call in world.calls if call.startswith("both")] == ["both a", "both b", "both c"]
    world.bad = set()
    world.calls.clear()
    found = world.resume(assets, found)
    assert world.calls == ["last c"], "a step whose optional output nobody got is not run again"
    assert (found.status, numbers(found), found.progress.absent) == (SUCCESS, (8, 0, 0, 12), 4)


def test_what_reads_partitions_that_cannot_be_built_is_left_out(world: World) -> None:
    late = DailyPartitionsDefinition(start_date="2024-01-03", end_date="2024-01-11")
    assets = [
        world.one("late", partitions_def=late),
        world.one("needs", "late", partitions_def=TEN),
        world.one("below", "needs", partitions_def=TEN),
        world.one("total", "below"),
    ]
    found = world.start(assets)
    assert (found.status, numbers(found)) == (SUCCESS, (24, 0, 0, 24))
    assert found.plan is not None
    assert [(one.asset, 1 if one.partitions is None else len(one.partitions)) for one in found.plan.impossible] == [
        ("needs", 2),
        ("below", 2),
        ("total", 1),
    ]
    assert "2024-01-01..2024-01-02" in str(found.plan.impossible[1])
    # What is in the way since is not built, and says so.
    world.bad = {"late 2024-01-05"}
    found = world.start(assets[:2])
    later = DailyPartitionsDefinition(start_date="2024-01-06", end_date="2024-01-11")
    found = world.resume([world.one("late", partitions_def=later), assets[1]], found)
    assert (found.status, found.exit_code) == (FAILURE, 1)
    assert (found.progress.blocked, found.progress.gone) == (1, 3)


def test_a_cancel_sticks(world: World) -> None:
    assets = [world.one("days", partitions_def=TEN)]
    world.bad = {"days 2024-01-04"}
    found = world.start(assets)
    assert found.backfill_id is not None
    assert request_cancel(world.instance.home, found.backfill_id) is None, "nobody carries it out"
    assert cancel_backfill(world.instance, found.backfill_id[:20]).status is CANCELED
    assert cancel_backfill(world.instance, found.backfill_id).status is CANCELED
    assert cancel_requests(world.instance.home) == []
    with pytest.raises(ConflictError, match="was canceled"):
        world.resume(assets, found)
    world.bad = set()
    done = world.start(assets)
    assert done.backfill_id is not None
    assert cancel_backfill(world.instance, done.backfill_id).status is SUCCESS, "what is done stays so"
    for name in ("ffffffff", "\x1b[31m", "../../etc", "' or 1=1"):
        with pytest.raises(UnknownBackfillError):
            cancel_backfill(world.instance, name)


@pytest.mark.parametrize("how", ["request", "catalog"])
def test_a_cancel_of_one_that_goes_on(world: World, how: str) -> None:
    assets = [world.one("days", partitions_def=TEN)]

    def cancel(call: str) -> None:
        if call != "days 2024-01-03":
            return
        running = running_backfill(world.instance.home)
        assert running is not None
        if how == "catalog":
            assert cancel_backfill(world.instance, running.backfill_id).status is CANCELED
            return
        with pytest.raises(UsageError, match="Give more"):
            request_cancel(world.instance.home, running.backfill_id[:8])
        assert request_cancel(world.instance.home, "ffffffff-ffff") is None
        assert request_cancel(world.instance.home, running.backfill_id[:13].upper()) == running

    world.during = cancel
    found = world.start(assets, few(5))
    assert (found.status, found.exit_code, numbers(found)) == (CANCELED, 130, (3, 0, 0, 10))
    assert world.record(found).status is CANCELED
    assert not list(world.instance.home.glob("*backfill*"))
    with pytest.raises(ConflictError, match="was canceled"):
        world.resume(assets, found)


def test_a_cancel_is_heard_by_whoever_comes_after_a_process_that_died(world: World) -> None:
    assets = [world.one("days", partitions_def=TEN)]
    world.bad = {"days 2024-01-04"}
    found = world.start(assets)
    assert found.backfill_id is not None
    folder = world.instance.home / "cancel-backfill"
    folder.mkdir()
    for name in (found.backfill_id, "00000000-0000-7000-8000-000000000000", "rubbish"):
        (folder / name).touch()
    with pytest.raises(ConflictError, match="was canceled"):
        world.resume(assets, found)
    assert [path.name for path in folder.iterdir()] == ["rubbish"]
    settle_requests(world.instance)


def test_what_a_dead_process_said_of_itself_is_not_believed(world: World) -> None:
    seen: list[bytes] = []
    folder = world.instance.home / "running-backfill"
    world.during = lambda _: seen.extend(path.read_bytes() for path in folder.iterdir() if not path.suffix)
    found = world.start([world.one("days", partitions_def=TEN)])
    assert len(seen) == 10 and not folder.exists() and found.backfill_id is not None
    folder.mkdir()
    beacon = folder / found.backfill_id
    beacon.write_bytes(seen[0].replace(f'"pid": {os.getpid()}'.encode(), b'"pid": 4194305'))
    assert running_backfill(world.instance.home) is None
    # As after a restart in a container, where this process gets the number that the dead one had.
    data = json.loads(seen[0])
    beacon.write_text(json.dumps(data | {"start_ticks": data["start_ticks"] - 1}))
    assert running_backfill(world.instance.home) is None
    beacon.write_bytes(seen[0])
    assert running_backfill(world.instance.home) is not None
    for rubbish in (b"", b"[]", b"{}", b"\xff", b'"x"'):
        beacon.write_bytes(rubbish)
        assert running_backfill(world.instance.home) is None


def test_two_who_resume_it_at_the_same_moment_build_nothing_twice(world: World) -> None:
    """Each looked before it could see the other. What one builds meanwhile the other finds when it begins a run."""
    days = world.one("days", partitions_def=TEN)
    world.bad = {"days 2024-01-05"}
    found = world.start([days], few(3))
    assert found.status is FAILURE
    world.bad = set()
    beacons = world.instance.home / "running-backfill"
    others: list[BackfillResult] = []

    def meanwhile(*_: object) -> None:
        if not others:
            for beacon in beacons.iterdir():  # as long as it is not there yet
                beacon.unlink()
            others.append(found)
            others.append(world.resume([days], found, steps_per_run=2))

    mine = world.resume([days], found, steps_per_run=2, on_run=meanwhile)
    assert [others[1].status, mine.status] == [SUCCESS, SUCCESS]
    assert set(world.versions("days").values()) == {1} and len(world.versions("days")) == 10


@pytest.mark.parametrize("steps", [1, 100])
def test_a_signal_stops_it_until_it_is_resumed(world: World, steps: int) -> None:
    assets = [world.one("days", partitions_def=TEN)]
    world.during = lambda call: os.kill(os.getpid(), signal.SIGINT) if call.endswith("03") else None
    found = world.start(assets, few(steps))
    assert (found.status, found.exit_code, numbers(found)) == (BackfillStatus.STARTED, 130, (3, 0, 0, 10))
    assert world.record(found).status is BackfillStatus.STARTED
    world.during = lambda _: None
    found = world.resume(assets, found)
    assert (found.status, found.exit_code) == (SUCCESS, 0)
    assert len(world.calls) == 10


def test_a_signal_at_the_very_end_changes_nothing(world: World) -> None:
    world.during = lambda call: os.kill(os.getpid(), signal.SIGINT) if call.endswith("10") else None
    found = world.start([world.one("days", partitions_def=TEN)])
    assert (found.status, found.exit_code) == (SUCCESS, 0)


def test_what_it_was_started_with_is_remembered(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    class Limit(Config):
        top: str

    seen: list[tuple[str, str]] = []

    @asset(partitions_def=LETTERS)
    def letters(context: AssetExecutionContext, config: Limit) -> int:
        seen.append((context.partition_key, config.top))
        if context.partition_key in world.bad:
            raise ValueError(context.partition_key)
        return 1

    monkeypatch.setenv("LIMIT", "canary")
    world.bad = {"b", "c"}
    config = {"ops": {"letters": {"config": {"top": EnvVar("LIMIT")}}}}
    settings = BackfillSettings(run_config=config, steps_per_run=1, executor="threads", max_workers=2)
    found = world.start([letters], settings)
    options = world.record(found).options
    assert options["run_config"] == {"ops": {"letters": {"config": {"top": {"env": "LIMIT"}}}}}
    assert (options["executor"], options["max_workers"]) == ("threads", 2)
    world.bad = set()
    found = world.resume([letters], found)
    assert (found.status, len(found.runs)) == (SUCCESS, 2)
    assert seen[-1] == ("c", "canary")
    with pytest.raises(UsageError, match="executor"):
        world.resume([letters], found, executor="carrier pigeon")


def test_a_configuration_that_cannot_be_written_down_is_asked_for_again(world: World) -> None:
    class Since(Config):
        moment: datetime

    @asset(partitions_def=LETTERS)
    def letters(context: AssetExecutionContext, config: Since) -> int:
        if context.partition_key in world.bad:
            raise ValueError(context.partition_key)
        return 1

    world.bad = {"b"}
    config = {"ops": {"letters": {"config": {"moment": datetime(2024, 1, 1)}}}}
    found = world.start([letters], BackfillSettings(run_config=config))
    world.bad = set()
    with pytest.raises(UsageError, match="configuration"):
        world.resume([letters], found)
    assert world.resume([letters], found, run_config=config).status is SUCCESS


def test_how_far_it_is_and_how_long_it_takes(world: World) -> None:
    seen: list[tuple[int, timedelta | None]] = []

    def minute(_: str) -> None:
        world.clock.moment += timedelta(minutes=1)

    world.during = minute
    settings = BackfillSettings(steps_per_run=5, on_run=lambda _, plan, how: seen.append((how.done, how.remaining)))
    world.start([world.one("days", partitions_def=TEN)], settings)
    assert [done for done, _ in seen] == [0, 5]
    assert seen[0][1] is None
    left = seen[1][1]
    assert left is not None and timedelta(minutes=5) <= left < timedelta(minutes=6)
