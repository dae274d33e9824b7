"""Schedules as they are defined, what they want, and what is refused."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from headwater import (
    DailyPartitionsDefinition,
    Definitions,
    HourlyPartitionsDefinition,
    RunRequest,
    ScheduleDefinition,
    ScheduleEvaluationContext,
    SkipReason,
    StaticPartitionsDefinition,
    asset,
    build_schedule_context,
    build_schedule_from_partitioned_job,
    define_asset_job,
    schedule,
)
from headwater.catalog.errors import CronError, DefinitionError, TimeZoneError, UserCodeError

JOB = define_asset_job("nightly")
AT = datetime(2024, 3, 12, 6, tzinfo=UTC)


@asset
def orders() -> int:
    return 1


def wanted(one: ScheduleDefinition, at: datetime = AT) -> Any:
    return one.evaluate(build_schedule_context(at))


def test_it_has_the_name_of_its_job_and_is_stopped_and_its_job_need_not_be_listed() -> None:
    one = ScheduleDefinition(JOB, "@daily")
    assert (one.name, one.default_status, one.cron_schedule) == ("nightly_schedule", "STOPPED", ("0 0 * * *",))
    definitions = Definitions([orders], schedules=[one])
    assert definitions.job("nightly") is JOB
    assert definitions.schedule("nightly_schedule") is one
    assert wanted(one) == [RunRequest()]


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"cron_schedule": "* * *"}, CronError, "it has 3 fields, not five"),
        ({"cron_schedule": "0 0 0 6 * *"}, CronError, "it has 6 fields, not five"),
        ({"cron_schedule": "0 0 30 2 *"}, CronError, "none of its months has that day"),
        ({"cron_schedule": "0 0 30 FEB *"}, CronError, "cannot be used"),
        ({"cron_schedule": ["0 6 * * *", "61 * * * *"]}, CronError, "minute"),
        ({"execution_timezone": "Europe/Lodnon"}, TimeZoneError, "There is no time zone 'Europe/Lodnon'"),
        ({"default_status": "ON"}, DefinitionError, "default_status is 'ON'"),
        ({"catch_up": "some"}, DefinitionError, "catch_up is 'some'"),
        ({"max_catch_up": 0}, DefinitionError, "max_catch_up=0"),
        ({"name": "a b"}, DefinitionError, "cannot be called 'a b'"),
        ({"tags": {"a": None}}, DefinitionError, "has the tag 'a'"),
        ({"job": 3}, DefinitionError, "a schedule of an int"),
    ],
)
def test_what_makes_no_sense_is_refused_at_once(settings: Any, error: type[DefinitionError], message: str) -> None:
    with pytest.raises(error) as raised:
        given: dict[str, Any] = {"job": JOB, "cron_schedule": "0 6 * * *", **settings}
        ScheduleDefinition(**given)
    assert message in raised.value.message
    assert "test_schedule.py" in raised.value.message


def test_a_job_that_is_not_there_and_two_of_a_name() -> None:
    with pytest.raises(DefinitionError) as error:
        Definitions([orders], jobs=[JOB], schedules=[ScheduleDefinition("nigthly", "@daily")])
    assert "nightly" in error.value.remedy
    with pytest.raises(DefinitionError, match="Two schedules are called `s`"):
        Definitions(
            [orders], schedules=[ScheduleDefinition(JOB, "@daily", "s"), ScheduleDefinition(JOB, "@daily", "s")]
        )


def test_a_function_says_which_runs_are_wanted() -> None:
    seen: list[datetime] = []

    @schedule("0 6 * * *", job=JOB, execution_timezone="America/New_York")
    def busy(context: ScheduleEvaluationContext) -> Iterator[RunRequest]:
        """As busy as can be."""
        seen.append(context.scheduled_execution_time)
        yield RunRequest(run_key="a")
        yield RunRequest(run_key="b", tags={"k": "v"})

    assert (busy.name, busy.description) == ("busy", "As busy as can be.")
    assert [one.run_key for one in wanted(busy)] == ["a", "b"]
    assert seen == [AT]
    assert next(busy(build_schedule_context(AT))).run_key == "a"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (RunRequest(partition_key="p"), [RunRequest(partition_key="p")]),
        (SkipReason("a holiday"), SkipReason("a holiday")),
        ([SkipReason("a holiday")], SkipReason("a holiday")),
        ({"ops": {}}, [RunRequest(run_config={"ops": {}})]),
        (None, SkipReason("its function returned nothing")),
        ([], SkipReason("its function returned nothing")),
    ],
)
def test_what_a_function_may_give(value: Any, expected: Any) -> None:
    @schedule("0 6 * * *", job=JOB)
    def one() -> Any:
        return value

    assert wanted(one) == expected


@pytest.mark.parametrize(
    "value", ["text", 3, [RunRequest(), SkipReason("x")], [RunRequest(), 3], [RunRequest()] * 1001]
)
def test_what_a_function_may_not_give(value: Any) -> None:
    @schedule("0 6 * * *", job=JOB)
    def one() -> Any:
        return value

    with pytest.raises(UserCodeError, match="The schedule `one`"):
        wanted(one)


def test_should_execute_is_asked_first() -> None:
    def on_the_first(context: ScheduleEvaluationContext) -> bool:
        return context.scheduled_execution_time.day == 1

    one = ScheduleDefinition(JOB, "@daily", should_execute=on_the_first)
    assert isinstance(wanted(one), SkipReason)
    assert wanted(one, datetime(2024, 3, 1, tzinfo=UTC)) == [RunRequest()]


def partitioned(partitions: Any, **settings: Any) -> ScheduleDefinition:
    @asset(partitions_def=partitions)
    def parts() -> int:
        return 1

    job = define_asset_job("job")
    return Definitions([parts, orders], schedules=[build_schedule_from_partitioned_job(job, **settings)]).schedule(
        "job_schedule"
    )


def test_of_a_job_with_partitions_the_last_window_that_has_ended_is_wanted() -> None:
    daily = partitioned(DailyPartitionsDefinition("2024-03-10", timezone="America/New_York"), hour_of_day=6)
    assert (daily.cron_schedule, daily.execution_timezone) == (("0 6 * * *",), "America/New_York")
    assert daily.catch_up == "all"
    assert wanted(daily) == [RunRequest(run_key="2024-03-11", partition_key="2024-03-11")]
    # Four in the morning in UTC is midnight in New York.
    assert wanted(daily, datetime(2024, 3, 12, 3, 59, tzinfo=UTC))[0].partition_key == "2024-03-10"
    assert wanted(daily, datetime(2024, 3, 9, tzinfo=UTC)) == SkipReason("no window has ended yet")
    hourly = partitioned(HourlyPartitionsDefinition("2024-03-10"), minute_of_hour=5)
    assert hourly.cron_schedule == ("5 * * * *",)
    assert wanted(hourly)[0].partition_key == "2024-03-12-05:00"


def test_static_partitions_are_wanted_all() -> None:
    one = partitioned(StaticPartitionsDefinition(["a", "b"]), hour_of_day=3)
    assert one.cron_schedule == ("0 3 * * *",)
    assert wanted(one) == [RunRequest(partition_key="a"), RunRequest(partition_key="b")]


def test_a_schedule_of_partitions_that_cannot_be() -> None:
    with pytest.raises(DefinitionError, match="would miss windows"):
        partitioned(HourlyPartitionsDefinition("2024-03-10"), hour_of_day=5)
    with pytest.raises(DefinitionError, match="have none, or different ones"):
        partitioned(None)
