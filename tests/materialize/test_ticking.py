"""Rounds of what is due: which runs are requested, and that clocks and crashes change nothing of it."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from headwater import Config, Definitions, Instance, RunRequest, ScheduleDefinition, SkipReason, asset, define_asset_job
from headwater.catalog.definitions.due import instants
from headwater.catalog.errors import ConflictError
from headwater.catalog.records import AutomationStatus, RunStatus, TickStatus
from headwater.materialize.automation.requesting import RUN_KEY
from headwater.materialize.automation.schedules import AT, MAX_DROPPED, SCHEDULE, tick
from headwater.materialize.automation.standing import move

ORIGIN = {"folder": "/project", "files": ["/project/assets.py"], "modules": []}
START = datetime(2024, 3, 10, 0, 0, 30, tzinfo=UTC)


class Settings(Config):
    """What `orders` may be told."""

    rows: int = 1


@asset(pool="warehouse")
def orders(config: Settings) -> int:
    return config.rows


JOB = define_asset_job("nightly", "orders", tags={"team": "core"}, config={"ops": {"orders": {"config": {"rows": 2}}}})


def hourly(**settings: Any) -> Definitions:
    settings = {"default_status": "RUNNING", "cron_schedule": "0 * * * *", **settings}
    return Definitions([orders], schedules=[ScheduleDefinition(JOB, name="hourly", **settings)])


def after(**time: float) -> datetime:
    return START + timedelta(**time)


def fired(instance: Instance) -> list[datetime]:
    """The instants that have a run, by its tags: each as often as there is one."""
    runs = instance.catalog.runs(limit=10_000)
    return sorted(datetime.fromisoformat(run.tags[AT]) for run in runs)


def test_what_is_due_is_requested_and_anybody_can_carry_it_out() -> None:
    with Instance.ephemeral() as instance:
        (done,) = tick(instance, hourly(tags={"by": "clock"}), ORIGIN, after(hours=1))
        (run,) = instance.catalog.runs()
        assert (done.at, done.status, done.run_ids) == (
            datetime(2024, 3, 10, 1, tzinfo=UTC),
            TickStatus.SUCCESS,
            (run.run_id,),
        )
        assert (run.status, run.pid, run.job, run.selection) == (RunStatus.QUEUED, 0, "nightly", "orders")
        assert run.tags == {"team": "core", "by": "clock", SCHEDULE: "hourly", AT: done.at.isoformat()}
        assert run.pools == ("warehouse",)
        assert run.request["origin"] == ORIGIN
        json.dumps(run.request)
        assert tick(instance, hourly(), ORIGIN, after(hours=1, minutes=59)) == []
        assert len(tick(instance, hourly(), ORIGIN, after(hours=2))) == 1


def test_what_is_stopped_is_not_evaluated_and_what_was_due_meanwhile_never_is() -> None:
    definitions = hourly(default_status="STOPPED")
    one = definitions.schedule("hourly")
    with Instance.ephemeral() as instance:
        assert tick(instance, definitions, ORIGIN, after(hours=1)) == []
        assert instance.catalog.automations() == {}
        move(instance, one.name, AutomationStatus.RUNNING)  # now, which is years later
        assert [done.at.hour for done in tick(instance, definitions, ORIGIN, after(hours=1))] == [1]
        move(instance, one.name, AutomationStatus.STOPPED)
        assert tick(instance, definitions, ORIGIN, instance.clock.now() + timedelta(days=1)) == []
        move(instance, one.name, AutomationStatus.RUNNING)
        # As of a time before it was started, what is due in that minute counts, and nothing before.
        assert [done.at.hour for done in tick(instance, definitions, ORIGIN, after(hours=5))] == [5]


@pytest.mark.parametrize(("policy", "kept"), [("latest", 1), ("all", 5), ("none", 0)])
def test_every_instant_that_was_missed_has_a_tick(policy: str, kept: int) -> None:
    definitions = hourly(catch_up=policy, max_catch_up=5)
    with Instance.ephemeral() as instance:
        tick(instance, definitions, ORIGIN, START)
        done = tick(instance, definitions, ORIGIN, after(hours=20, minutes=10))
        assert [one.at.hour for one in done] == list(range(1, 21))
        assert [one.status for one in done] == ["SKIPPED"] * (20 - kept) + ["SUCCESS"] * kept
        assert f"catch_up is {policy}" in done[0].reason
        assert len(instance.catalog.ticks(["hourly"])) == 21


def test_of_very_many_the_oldest_are_one_tick() -> None:
    definitions = hourly(cron_schedule="* * * * *")
    with Instance.ephemeral() as instance:
        tick(instance, definitions, ORIGIN, START)
        done = tick(instance, definitions, ORIGIN, after(days=30))
        assert len(done) == MAX_DROPPED + 2
        assert sum(one.instants for one in done) == 30 * 24 * 60
        assert [one.status for one in done[-2:]] == ["SKIPPED", "SUCCESS"]
        assert done[0].instants == 30 * 24 * 60 - 1 - MAX_DROPPED


def test_a_clock_that_goes_back_and_forth_fires_nothing_twice_and_misses_nothing() -> None:
    definitions = hourly(catch_up="all", max_catch_up=100)
    with Instance.ephemeral() as instance:
        tick(instance, definitions, ORIGIN, START)
        for hours in (1, 3, 2, 0.5, 3, 5.5, -20, 5, 9, 9, 4, 12):
            tick(instance, definitions, ORIGIN, after(hours=hours))
        assert [at.hour for at in fired(instance)] == list(range(13))  # at midnight, when it was seen, it was due


@pytest.mark.parametrize(
    "zone",
    [
        *("America/New_York", "Europe/London", "Australia/Lord_Howe", "Africa/Cairo"),
        *("America/Sao_Paulo", "Asia/Kolkata", "Pacific/Apia"),
    ],
)
def test_rounds_at_odd_moments_fire_each_instant_of_weeks_around_changes_of_clocks_once(zone: str) -> None:
    crons = ["30 2 * * *", "0 0 * * *", "0 */6 * * *"]
    definitions = hourly(cron_schedule=crons, execution_timezone=zone, catch_up="all", max_catch_up=1000)
    for start in (
        datetime(2024, 3, 8, tzinfo=UTC),
        datetime(2024, 10, 26, tzinfo=UTC),
        datetime(2011, 12, 28, tzinfo=UTC),
    ):
        with Instance.ephemeral() as instance:
            now = start
            for step in range(60):
                tick(instance, definitions, ORIGIN, now)
                now += timedelta(minutes=(7, 190, -45, 600, 61, 0)[step % 6])
            tick(instance, definitions, ORIGIN, now)
            assert fired(instance) == instants(crons, zone, start - timedelta(seconds=1), now)


def test_of_two_who_decide_at_the_same_time_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one looked before the first one was done."""
    definitions = hourly(catch_up="all")
    with Instance.ephemeral() as instance:
        tick(instance, definitions, ORIGIN, START)
        stale = instance.catalog.automations()
        assert len(tick(instance, definitions, ORIGIN, after(hours=3))) == 3
        monkeypatch.setattr(instance.catalog, "automations", lambda: stale)
        assert tick(instance, definitions, ORIGIN, after(hours=4)) == []
        monkeypatch.undo()
        assert len(tick(instance, definitions, ORIGIN, after(hours=4))) == 1
        assert [at.hour for at in fired(instance)] == [0, 1, 2, 3, 4]


def test_one_that_somebody_else_decided_keeps_no_other_from_being_decided(monkeypatch: pytest.MonkeyPatch) -> None:
    schedules = [ScheduleDefinition(JOB, "0 * * * *", name, default_status="RUNNING") for name in ("one", "other")]
    definitions = Definitions([orders], schedules=schedules)
    with Instance.ephemeral() as instance:
        tick(instance, definitions, ORIGIN, START)
        stale = instance.catalog.automations()
        tick(instance, Definitions([orders], schedules=schedules[:1]), ORIGIN, after(hours=1))
        monkeypatch.setattr(instance.catalog, "automations", lambda: stale)
        assert [done.name for done in tick(instance, definitions, ORIGIN, after(hours=1))] == ["other"]


def test_what_user_code_raises_is_the_ticks_and_the_next_instant_is_evaluated() -> None:
    def broken(context: Any) -> Any:
        if context.scheduled_execution_time.hour == 1:
            raise ValueError("no \x1b[31m idea")
        return RunRequest(run_config={"ops": {"nothing": {}}} if context.scheduled_execution_time.hour == 2 else None)

    definitions = hourly(execution_fn=broken, catch_up="all")
    with Instance.ephemeral() as instance:
        tick(instance, definitions, ORIGIN, START - timedelta(minutes=30))
        first, second, third, last = tick(instance, definitions, ORIGIN, after(hours=3))
        assert [one.status for one in (first, second, third, last)] == ["SUCCESS", "FAILURE", "FAILURE", "SUCCESS"]
        assert second.error is not None and third.error is not None
        assert (second.error.kind, second.error.message) == ("ValueError", "no \x1b[31m idea")
        assert "in broken" in second.error.traceback
        assert "there is no such step" in third.error.message
        assert len(instance.catalog.runs()) == 2


def test_a_run_key_is_requested_once_whatever_became_of_its_run() -> None:
    def daily(context: Any) -> Any:
        at = context.scheduled_execution_time
        return [RunRequest(run_key=f"{at:%d}"), RunRequest(run_key=f"{at:%d}")] if at.hour % 2 else SkipReason("even")

    definitions = hourly(execution_fn=daily, catch_up="all")
    with Instance.ephemeral() as instance:
        for hours in (0, 3, 5, 26):
            tick(instance, definitions, ORIGIN, after(hours=hours))
        assert [at.isoformat()[:13] for at in fired(instance)] == ["2024-03-10T01", "2024-03-11T01"]
        assert sorted(run.tags[RUN_KEY] for run in instance.catalog.runs()) == ["10", "11"]
        reasons = [one.reason for one in instance.catalog.ticks(["hourly"], limit=100) if one.status == "SKIPPED"]
        assert set(reasons) == {"even", "each of its runs was requested before"}


def test_a_schedule_that_was_started_while_somebody_decided_wins() -> None:
    definitions = hourly()
    one = definitions.schedule("hourly")
    with Instance.ephemeral() as instance:
        tick(instance, definitions, ORIGIN, START)
        move(instance, one.name, AutomationStatus.STOPPED)
        with pytest.raises(ConflictError):
            from headwater.catalog.events import TickEnded

            until = instance.catalog.automations()["hourly"].until
            at = until + timedelta(hours=1)
            event = TickEnded(time=START, name="hourly", at=at, after=until, status=TickStatus.SKIPPED)
            instance.catalog.append([event])
