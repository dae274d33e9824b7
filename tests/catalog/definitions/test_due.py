"""Instants at which schedules are due, against a clock that is read minute by minute."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from headwater.catalog.definitions.due import CatchUp, caught_up, instants, upcoming

MINUTE = timedelta(minutes=1)
#: Stretches around changes of clocks: a gap or a fold of an hour or half an hour, at midnight, and a skipped day.
STRETCHES = [
    ("America/New_York", datetime(2024, 3, 9, tzinfo=UTC)),
    ("America/New_York", datetime(2024, 11, 2, tzinfo=UTC)),
    ("Europe/London", datetime(2024, 3, 30, tzinfo=UTC)),
    ("Europe/London", datetime(2024, 10, 26, tzinfo=UTC)),
    ("Australia/Lord_Howe", datetime(2024, 4, 5, tzinfo=UTC)),
    ("Australia/Lord_Howe", datetime(2024, 10, 4, tzinfo=UTC)),
    ("Pacific/Apia", datetime(2011, 12, 28, tzinfo=UTC)),
    ("Africa/Cairo", datetime(2024, 4, 25, tzinfo=UTC)),
    ("Africa/Cairo", datetime(2024, 10, 30, tzinfo=UTC)),
    ("America/Sao_Paulo", datetime(2018, 11, 3, tzinfo=UTC)),
    ("America/Sao_Paulo", datetime(2018, 2, 16, tzinfo=UTC)),
    ("Asia/Kolkata", datetime(2024, 3, 9, tzinfo=UTC)),
]
DAYS = 4


def fixed(hour: int, minute: int, zone: str, after: datetime, until: datetime) -> list[datetime]:
    """Once a day, as a person would read clocks: the first minute of that day at which they show it or more.

    A day that is skipped has its time when the gap is over.
    """
    clock = ZoneInfo(zone)
    start = after - timedelta(days=3)
    wanted = start.astimezone(clock).replace(tzinfo=None, hour=hour, minute=minute, second=0, microsecond=0)
    found: list[datetime] = []
    moment = start.replace(second=0, microsecond=0)
    while moment.astimezone(clock).replace(tzinfo=None) >= wanted:
        wanted += timedelta(days=1)
    while moment <= until:
        if moment.astimezone(clock).replace(tzinfo=None) >= wanted:
            if moment > after:
                found.append(moment)
            while moment.astimezone(clock).replace(tzinfo=None) >= wanted:
                wanted += timedelta(days=1)
        moment += MINUTE
    return found


def running(every: int, zone: str, after: datetime, until: datetime) -> list[datetime]:
    """Every so many minutes of the hour, whenever clocks show that."""
    clock = ZoneInfo(zone)
    moments = (after + MINUTE * at for at in range(1, int((until - after) / MINUTE) + 1))
    return [moment for moment in moments if moment.astimezone(clock).minute % every == 0]


@pytest.mark.parametrize(("zone", "start"), STRETCHES)
def test_fixed_times_are_due_once_a_day(zone: str, start: datetime) -> None:
    end = start + timedelta(days=DAYS)
    for hour, minute in ((0, 0), (0, 30), (1, 30), (2, 0), (2, 15), (2, 30), (12, 0), (23, 30)):
        cron = f"{minute} {hour} * * *"
        assert instants([cron], zone, start, end) == fixed(hour, minute, zone, start, end), cron


@pytest.mark.parametrize(("zone", "start"), STRETCHES)
def test_what_follows_the_clock_is_due_in_every_hour_that_passes(zone: str, start: datetime) -> None:
    end = start + timedelta(days=DAYS)
    for every, cron in ((60, "0 * * * *"), (30, "*/30 * * * *"), (15, "*/15 * * * *")):
        found = instants([cron], zone, start, end)
        # Lord Howe's gap of half an hour hides minutes 0 to 29: those are due at its end.
        extra = [moment for moment in found if moment.astimezone(ZoneInfo(zone)).minute % every]
        assert [moment for moment in found if moment not in extra] == running(every, zone, start, end), cron
        assert extra == ([] if zone != "Australia/Lord_Howe" or every < 60 or start.month == 4 else extra[:1]), cron


def test_the_days_of_new_york_have_25_and_23_hours_and_half_past_one_comes_once() -> None:
    zone, clock = "America/New_York", ZoneInfo("America/New_York")

    def of_day(cron: str, month: int, day: int) -> list[datetime]:
        start = datetime(2024, month, day, tzinfo=clock)
        return instants(
            [cron], zone, start.astimezone(UTC) - MINUTE, (start + timedelta(days=1)).astimezone(UTC) - MINUTE
        )

    assert [len(of_day("0 * * * *", *day)) for day in ((3, 10), (11, 3), (7, 4))] == [23, 25, 24]
    assert of_day("30 1 * * *", 11, 3) == [datetime(2024, 11, 3, 5, 30, tzinfo=UTC)]  # the first one, still in summer
    assert of_day("30 2 * * *", 3, 10) == [datetime(2024, 3, 10, 7, 0, tzinfo=UTC)]  # 03:00, when the gap is over


def test_no_tick_is_on_the_day_that_apia_skipped() -> None:
    zone = ZoneInfo("Pacific/Apia")
    for cron in ("0 12 * * *", "0 0 * * *", "*/30 * * * *"):
        found = instants([cron], zone.key, datetime(2011, 12, 28, tzinfo=UTC), datetime(2012, 1, 2, tzinfo=UTC))
        assert all(moment.astimezone(zone).day != 30 for moment in found)
        assert len(set(found)) == len(found)


def test_several_crons_are_one_schedule_and_an_instant_of_both_comes_once() -> None:
    start, end = datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 2, tzinfo=UTC)
    found = instants(["0 6 * * *", "0 */6 * * *"], "UTC", start, end)
    assert [moment.hour for moment in found] == [6, 12, 18, 0]
    assert upcoming(["0 6 * * *", "0 */6 * * *"], "UTC", start, 4) == found


def test_after_is_excluded_and_until_is_not() -> None:
    at = datetime(2024, 1, 1, 6, tzinfo=UTC)
    little = timedelta(microseconds=1)
    assert instants(["0 6 * * *"], "UTC", at - little, at) == [at]
    assert instants(["0 6 * * *"], "UTC", at, at + timedelta(hours=1)) == []
    assert instants(["0 6 * * *"], "UTC", at - MINUTE, at - little) == []
    assert instants(["0 6 * * *"], "UTC", at, at - timedelta(days=3)) == []


def test_what_is_next_is_what_is_due_then() -> None:
    for zone, start in STRETCHES:
        for cron in ("30 2 * * *", "*/20 * * * *", "0 0 1 * *"):
            due = upcoming([cron], zone, start, 50)
            assert instants([cron], zone, start, due[-1]) == due


def test_which_of_those_that_were_missed_still_count() -> None:
    now = datetime(2024, 1, 1, 12, 0, 30, tzinfo=UTC)
    due = [datetime(2024, 1, 1, hour, tzinfo=UTC) for hour in range(9, 13)]
    assert caught_up(due, CatchUp.LATEST, 100, now) == (due[:3], due[3:])
    assert caught_up(due, CatchUp.ALL, 100, now) == ([], due)
    assert caught_up(due, CatchUp.ALL, 2, now) == (due[:2], due[2:])
    assert caught_up(due, CatchUp.NONE, 100, now) == (due[:3], due[3:])
    assert caught_up(due[:3], CatchUp.NONE, 100, now) == (due[:3], [])
    for policy in CatchUp:
        assert caught_up([], policy, 1, now) == ([], [])
