"""Ticks of sensors: what is recorded together, what comes again, and what failures and clocks change."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from headwater import (
    Definitions,
    DynamicPartitionsDefinition,
    Instance,
    RunRequest,
    RunStatus,
    SensorResult,
    SkipReason,
    asset,
    asset_sensor,
    define_asset_job,
    materialize,
    multi_asset_sensor,
    run_failure_sensor,
    run_status_sensor,
    sensor,
)
from headwater.catalog.definitions.event_sensors import SENSOR
from headwater.catalog.definitions.run_request import MAX_REQUESTS
from headwater.catalog.events import RunEnded, RunQueued, RunStarted
from headwater.catalog.ids import new_id
from headwater.catalog.records import AutomationStatus, TickStatus
from headwater.materialize.automation.evaluators import InThisProcess
from headwater.materialize.automation.requesting import RUN_KEY
from headwater.materialize.automation.sensors import MAX_FAILURES, is_paused, next_evaluation, tick
from headwater.materialize.automation.standing import move, set_cursor

ORIGIN = {"folder": "/project", "files": ["/project/assets.py"], "modules": []}
START = datetime(2024, 3, 10, 0, 0, 30, tzinfo=UTC)
CUSTOMERS = DynamicPartitionsDefinition("customers")


@asset
def orders() -> int:
    return 1


@asset(partitions_def=CUSTOMERS)
def invoices() -> int:
    return 1


JOB = define_asset_job("nightly", "orders", tags={"team": "core"})
BY_CUSTOMER = define_asset_job("by_customer", "invoices")


def watching(function: Callable[..., object], **settings: Any) -> Definitions:
    given: dict[str, Any] = {"job": JOB, "name": "s", "default_status": "RUNNING", **settings}
    return Definitions([orders, invoices], jobs=[JOB, BY_CUSTOMER], sensors=[sensor(**given)(function)])


def after(**time: float) -> datetime:
    return START + timedelta(**time)


def counting(context: Any) -> SensorResult:
    """Requests a run for each time that it is called."""
    number = int(context.cursor or 0) + 1
    return SensorResult([RunRequest(run_key=str(number))], cursor=str(number))


def test_cursor_tick_and_runs_are_recorded_together() -> None:
    definitions = watching(counting, tags={"by": "watch"})
    with Instance.ephemeral() as instance:
        (first,) = tick(instance, definitions, ORIGIN, START)
        assert (first.at, first.status, first.cursor) == (START, TickStatus.SUCCESS, "1")
        assert tick(instance, definitions, ORIGIN, after(seconds=29.9)) == []
        (second,) = tick(instance, definitions, ORIGIN, after(seconds=30))
        newest, oldest = instance.catalog.runs()
        assert (oldest.status, oldest.pid, oldest.request["origin"]) == (RunStatus.QUEUED, 0, ORIGIN)
        assert oldest.tags == {"team": "core", "by": "watch", SENSOR: "s", RUN_KEY: "1"}
        assert second.run_ids == (newest.run_id,)
        known = instance.catalog.automations()["s"]
        assert (known.cursor, known.last_run_key, known.ticked) == ("2", "2", second.at)


def test_what_its_context_holds() -> None:
    seen: list[Any] = []

    def looks(context: Any) -> SkipReason:
        seen.append((context.cursor, context.last_run_key, context.last_tick_completion_time))
        assert context.is_first_tick_since_sensor_start is (len(seen) == 1)
        assert context.sensor_name == "s" and context.definitions.sensors.keys() == {"s"}
        assert len(context.instance.catalog.ticks()) == len(seen) - 1
        context.update_cursor(f"c{len(seen)}")
        return SkipReason("only looked")

    definitions = watching(looks)
    with Instance.ephemeral() as instance:
        for minutes in (0, 1):
            (done,) = tick(instance, definitions, ORIGIN, after(minutes=minutes))
            assert (done.status, done.reason) == (TickStatus.SKIPPED, "only looked")
        assert seen == [(None, None, None), ("c1", None, START)]
        assert instance.catalog.automations()["s"].cursor == "c2"


def test_one_that_is_stopped_is_not_evaluated_and_one_that_is_started_is_at_once() -> None:
    definitions = watching(counting, default_status="STOPPED", minimum_interval_seconds=3600)
    with Instance.ephemeral() as instance:
        assert tick(instance, definitions, ORIGIN) == []
        assert instance.catalog.automations() == {}
        move(instance, "s", AutomationStatus.RUNNING)
        assert len(tick(instance, definitions, ORIGIN)) == 1
        assert tick(instance, definitions, ORIGIN) == []
        move(instance, "s", AutomationStatus.STOPPED)
        assert tick(instance, definitions, ORIGIN, instance.clock.now() + timedelta(days=1)) == []
        move(instance, "s", AutomationStatus.RUNNING)
        (done,) = tick(instance, definitions, ORIGIN)
        assert done.cursor == "2"  # stopping and starting leaves what it remembers


def test_a_run_key_is_requested_once_whatever_became_of_its_run() -> None:
    definitions = watching(lambda: [RunRequest("a"), RunRequest("a"), RunRequest("b")])
    with Instance.ephemeral() as instance:
        (done,) = tick(instance, definitions, ORIGIN, START)
        assert done.run_keys.keys() == {"a", "b"}
        failed = RunEnded(time=START, run_id=done.run_keys["a"], status=RunStatus.FAILURE)
        instance.catalog.append([failed])
        (again,) = tick(instance, definitions, ORIGIN, after(minutes=1))
        assert (again.status, again.reason) == (TickStatus.SKIPPED, "each of its runs was requested before")
        assert len(instance.catalog.runs()) == 2
        # Keys are of one sensor.
        other = watching(lambda: RunRequest("a"), name="other")
        assert tick(instance, other, ORIGIN, START)[0].run_keys.keys() == {"a"}


def test_more_than_a_thousand_with_keys_come_with_the_next_ticks_and_the_cursor_waits_for_them() -> None:
    keys = [str(number) for number in range(2 * MAX_REQUESTS + 5)]
    definitions = watching(lambda: SensorResult([RunRequest(key) for key in keys], cursor="all"))
    with Instance.ephemeral() as instance:
        done = [tick(instance, definitions, ORIGIN, after(minutes=minute))[0] for minute in range(4)]
        assert [len(one.run_ids) for one in done] == [MAX_REQUESTS, MAX_REQUESTS, 5, 0]
        assert [one.cursor for one in done] == [None, None, "all", "all"]
        assert "others come with the next tick" in done[0].reason
        tags = {run.tags[RUN_KEY] for run in instance.catalog.runs(limit=10_000)}
        assert tags == set(keys)
        without = watching(lambda: [RunRequest() for _ in range(MAX_REQUESTS + 1)], name="without")
        (refused,) = tick(instance, without, ORIGIN, START)
        assert refused.error is not None and "requests 1,001 runs at once" in refused.error.message


def test_keys_of_dynamic_partitions_are_there_with_the_runs_for_them() -> None:
    def looks(context: Any) -> SensorResult:
        if context.cursor is None:
            changes = [CUSTOMERS.build_add_request(["ann", "bob"])]
            return SensorResult([RunRequest(partition_key="ann")], None, "1", changes)
        return SensorResult(
            skip_reason="bob left", dynamic_partitions_requests=[CUSTOMERS.build_delete_request(["bob"])]
        )

    definitions = watching(looks, job=BY_CUSTOMER)
    with Instance.ephemeral() as instance:
        tick(instance, definitions, ORIGIN, START)
        assert instance.get_dynamic_partitions("customers") == ["ann", "bob"]
        (run,) = instance.catalog.runs()
        assert (run.job, run.request["partitions"]["keys"]) == ("by_customer", ["ann"])
        tick(instance, definitions, ORIGIN, after(minutes=1))
        assert instance.get_dynamic_partitions("customers") == ["ann"]


def test_what_fails_leaves_no_trace_but_its_tick() -> None:
    def breaks(context: Any) -> SensorResult:
        context.update_cursor("lost")
        if context.last_tick_completion_time is None:
            raise ValueError("no idea")
        add = [CUSTOMERS.build_add_request(["eve"])]
        return SensorResult([RunRequest(), RunRequest(job_name="absent")], dynamic_partitions_requests=add)

    definitions = watching(breaks)
    with Instance.ephemeral() as instance:
        (first,) = tick(instance, definitions, ORIGIN, START)
        assert first.status == TickStatus.FAILURE and first.error is not None
        assert (first.error.kind, first.error.message) == ("ValueError", "no idea")
        assert "in breaks" in first.error.traceback
        (second,) = tick(instance, definitions, ORIGIN, after(minutes=1))
        assert second.error is not None and "There is no job `absent`." in second.error.message
        assert instance.catalog.runs() == [] and instance.get_dynamic_partitions("customers") == []
        known = instance.catalog.automations()["s"]
        assert (known.cursor, known.failures) == (None, 2)


def test_one_that_fails_is_asked_ever_less_often_and_in_the_end_not_any_more() -> None:
    broken = [True]

    def breaks() -> SkipReason:
        if broken[0]:
            raise ValueError("no idea")
        return SkipReason("better")

    definitions = watching(breaks)
    one = definitions.sensor("s")
    with Instance.ephemeral() as instance:
        now, waited = START, list[float]()
        while not is_paused(known := instance.catalog.automations().get("s")):
            due = next_evaluation(one, known) or now
            assert due == now or tick(instance, definitions, ORIGIN, due - timedelta(seconds=1)) == []
            waited.append((due - now).total_seconds())
            now = due
            assert tick(instance, definitions, ORIGIN, now)[0].status == TickStatus.FAILURE
        assert waited[:8] == [0, 60, 120, 240, 480, 960, 1920, 3600] and waited[-1] == 3600
        assert len(waited) == MAX_FAILURES
        assert tick(instance, definitions, ORIGIN, now + timedelta(days=30)) == []
        broken.clear()
        broken.append(False)
        move(instance, "s", AutomationStatus.RUNNING)
        assert tick(instance, definitions, ORIGIN, now)[0].reason == "better"
        assert instance.catalog.automations()["s"].failures == 0


def test_a_cursor_that_somebody_sets_wins_over_an_evaluation_under_way() -> None:
    with Instance.ephemeral() as instance:

        def interrupted(context: Any) -> SensorResult:
            if context.cursor is None:
                set_cursor(instance, "s", "41")
            return counting(context)

        definitions = watching(interrupted)
        assert tick(instance, definitions, ORIGIN, START) == []
        assert instance.catalog.runs() == []
        assert tick(instance, definitions, ORIGIN, START)[0].cursor == "42"
        set_cursor(instance, "s", None)
        assert instance.catalog.automations()["s"].cursor is None


def test_of_two_who_evaluate_at_the_same_time_one_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one looked before the first one was done; other sensors of its round are not lost for that."""
    other = sensor(job=JOB, name="other", default_status="RUNNING")(counting)
    definitions = watching(counting)
    both = Definitions([orders, invoices], sensors=[definitions.sensor("s"), other])
    with Instance.ephemeral() as instance:
        stale = instance.catalog.automations()
        assert len(tick(instance, definitions, ORIGIN, START)) == 1
        monkeypatch.setattr(instance.catalog, "automations", lambda: stale)
        assert [done.name for done in tick(instance, both, ORIGIN, START)] == ["other"]
        assert len(instance.catalog.runs()) == 2


def test_a_clock_that_goes_back_keeps_nobody_from_being_evaluated() -> None:
    definitions = watching(counting)
    with Instance.ephemeral() as instance:
        for days in (0, 365, 1, 1.5):
            assert len(tick(instance, definitions, ORIGIN, after(days=days))) == 1
        ticks = instance.catalog.ticks(["s"])
        assert [one.at for one in ticks] == sorted({one.at for one in ticks}, reverse=True)
        assert instance.catalog.automations()["s"].cursor == "4"
        # Who goes round again and again knows how long it is ago by a clock that never goes back.
        with InThisProcess(instance, definitions) as evaluators:
            assert len(tick(instance, definitions, ORIGIN, after(days=2), evaluators)) == 1
            assert tick(instance, definitions, ORIGIN, after(days=2), evaluators) == []


def test_an_asset_sensor_misses_no_materialization_and_sees_none_twice() -> None:
    seen: list[str | None] = []

    @asset_sensor("invoices", job=JOB, default_status="RUNNING")
    def watches(context: Any, event: Any) -> Any:
        seen.append(event.partition)
        if event.partition == "bad" and seen.count("bad") < 2:
            raise ValueError("bad")
        return SkipReason("dull") if event.partition == "dull" else RunRequest(run_key=event.version_id)

    definitions = Definitions([orders, invoices], sensors=[watches])
    with Instance.ephemeral() as instance:
        customers = ("old", "first", "a", "b", "bad", "dull")
        instance.add_dynamic_partitions("customers", customers)

        def build(*keys: str) -> None:
            for key in keys:
                materialize(definitions, selection="invoices", partition_key=key, instance=instance, force=True)

        assert tick(instance, definitions, ORIGIN, START)[0].reason == "`invoices` was not materialized since"
        build("old", "first")
        (done,) = tick(instance, definitions, ORIGIN, after(minutes=1))
        assert (seen, len(done.run_ids)) == (["first"], 1)
        build("a", "b", "bad", "dull")
        # What comes before a failure counts; what failed comes again.
        (done,) = tick(instance, definitions, ORIGIN, after(minutes=2))
        assert (seen[1:], done.status, len(done.run_ids)) == (["a", "b", "bad"], TickStatus.SUCCESS, 2)
        (done,) = tick(instance, definitions, ORIGIN, after(minutes=3))
        assert (seen[4:], len(done.run_ids)) == (["bad", "dull"], 1)
        (done,) = tick(instance, definitions, ORIGIN, after(minutes=4))
        assert (len(seen), done.status) == (6, TickStatus.SKIPPED)


def test_a_sensor_of_several_assets_says_what_it_has_dealt_with() -> None:
    @multi_asset_sensor(["orders", "invoices"], job=JOB, default_status="RUNNING")
    def joins(context: Any) -> Any:
        found = context.latest_materialization_records_by_key()
        if not all(found.values()):
            return SkipReason("not both yet")
        partitions = context.latest_materialization_records_by_partition("invoices")
        context.advance_all_cursors()
        return RunRequest(run_key=found["orders"].version_id, tags={"partitions": ",".join(sorted(partitions))})

    definitions = Definitions([orders, invoices], sensors=[joins])
    with Instance.ephemeral() as instance:
        instance.add_dynamic_partitions("customers", ["a", "b"])
        assert tick(instance, definitions, ORIGIN, START)[0].reason == "not both yet"
        materialize(definitions, selection="orders", instance=instance)
        assert tick(instance, definitions, ORIGIN, after(minutes=1))[0].reason == "not both yet"
        materialize(definitions, selection="invoices", partition_key="a", instance=instance)
        (done,) = tick(instance, definitions, ORIGIN, after(minutes=2))
        assert instance.catalog.runs()[0].tags["partitions"] == "a" and len(done.run_ids) == 1
        assert tick(instance, definitions, ORIGIN, after(minutes=3))[0].reason == "not both yet"
        for _ in range(2):
            materialize(definitions, selection="invoices", partition_key="b", instance=instance, force=True)
        assert tick(instance, definitions, ORIGIN, after(minutes=4))[0].reason == "not both yet"
        materialize(definitions, selection="orders", instance=instance, force=True)
        (done,) = tick(instance, definitions, ORIGIN, after(minutes=5))
        assert instance.catalog.run(done.run_ids[0]).tags["partitions"] == "b"  # pyright: ignore


def ended(instance: Instance, status: RunStatus, job: str | None = None, **tags: str) -> str:
    """A run that came to its end."""
    now = instance.clock.now()
    run_id = new_id(now)
    instance.catalog.append(
        [
            RunQueued(time=now, run_id=run_id, job=job, tags=tags),
            RunStarted(time=now, run_id=run_id, steps=()),
            RunEnded(time=now, run_id=run_id, status=status),
        ]
    )
    return run_id


def test_sensors_of_runs_see_what_ends_after_they_began() -> None:
    failures: list[str] = []
    successes: list[str] = []

    @run_failure_sensor(default_status="RUNNING")
    def tells(context: Any) -> None:
        failures.append(context.run.run_id)

    @run_status_sensor(RunStatus.SUCCESS, monitored_jobs=[JOB], request_job=BY_CUSTOMER, default_status="RUNNING")
    def goes_on(context: Any) -> RunRequest:
        successes.append(context.run.run_id)
        return RunRequest(run_key=context.run.run_id, partition_key="a")

    definitions = Definitions([orders, invoices], sensors=[tells, goes_on])
    with Instance.ephemeral() as instance:
        ended(instance, RunStatus.FAILURE)
        ended(instance, RunStatus.SUCCESS, "nightly")
        assert {one.reason for one in tick(instance, definitions, ORIGIN, START)} == {"it begins here"}
        failed = [ended(instance, RunStatus.FAILURE), ended(instance, RunStatus.INTERRUPTED, "nightly")]
        passed = ended(instance, RunStatus.SUCCESS, "nightly")
        ended(instance, RunStatus.SUCCESS, "by_customer")
        ended(instance, RunStatus.SUCCESS, "nightly", **{SENSOR: "goes_on"})  # it would never end
        first, second = tick(instance, definitions, ORIGIN, after(minutes=1))
        assert (failures, successes) == (failed, [passed])
        assert (first.status, second.run_keys.keys()) == (TickStatus.SKIPPED, {passed})
        assert [one.status for one in tick(instance, definitions, ORIGIN, after(minutes=2))] == ["SKIPPED"] * 2
        assert (len(failures), len(successes)) == (2, 1)
