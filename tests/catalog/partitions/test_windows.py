"""Windows against brute force, in zones where clocks do strange things."""

import itertools
from datetime import UTC, date, datetime, timedelta
from typing import Any, cast
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from cronsim import CronSim
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.catalog.errors import CronError
from headwater.catalog.partitions.definition import PartitionsContext
from headwater.catalog.partitions.series import CALENDAR, int64s, ticks_of
from headwater.catalog.partitions.space import WindowPartitions
from headwater.catalog.partitions.time_window import (
    DailyPartitionsDefinition,
    HourlyPartitionsDefinition,
    MonthlyPartitionsDefinition,
    TimeWindowPartitionsDefinition,
    WeeklyPartitionsDefinition,
)
from tests.catalog.partitions.zones import CHANGES, EPOCH, ZONES, at, seconds, ticks


def windows(definition: TimeWindowPartitionsDefinition, moment: datetime | str) -> WindowPartitions:
    """Those that have ended; a text is a time in UTC."""
    if isinstance(moment, str):
        moment = datetime.fromisoformat(moment).replace(tzinfo=UTC)
    found = definition.at(PartitionsContext(moment))
    assert isinstance(found, WindowPartitions)
    return found


CRONS = [
    "0 * * * *", "45 * * * *", "*/30 * * * *", "0 */2 * * *", "*/20 1,2 * * *", "0 0 * * *", "30 0 * * *",
    "30 1 * * *", "30 2 * * *", "0 2 * * *", "15,45 1,2 * * *", "0 0,1,2,3 * * *", "30 23 * * *", "0 12 * * 1-5",
    "0 0 * * 0", "30 2 * * 7,6", "0 0 1,15 * *", "0 6 1 * 5", "59 23 31 12 *",
]  # fmt: skip


@pytest.mark.parametrize(("zone", "day"), CHANGES)
def test_ticks_are_those_of_brute_force(zone: str, day: str) -> None:
    middle = datetime.fromisoformat(day).replace(tzinfo=ZoneInfo(zone))
    start, end = middle - timedelta(days=2), middle + timedelta(days=3)
    for cron in CRONS:
        found = ticks_of(cron, zone)
        first, last = (int(one) for one in found.rank(int64s([seconds(start), seconds(end)])))
        assert found.instants(np.arange(first, last)).tolist() == ticks(cron, zone, start, end), cron


_FIELD = st.one_of(st.just("*"), st.sampled_from(["*/2", "*/7", "1-5"]))
_MINUTES = st.one_of(st.just("*"), st.sampled_from(["*/15", "0", "30", "7,52", "10-50/20"]))
_HOURS = st.one_of(st.just("*"), st.sampled_from(["*/3", "0", "1", "2", "0,3,23", "0-4"]))
_DAYS = st.one_of(_FIELD, st.integers(1, 28).map(str))
_CRONS = st.tuples(_MINUTES, _HOURS, _DAYS, st.sampled_from(["*", "*", "1-6"]), _FIELD).map(" ".join)


@settings(max_examples=60)
@given(cron=_CRONS, change=st.sampled_from(CHANGES), hours=st.integers(-40, 40), offset=st.integers(-3, 3))
def test_any_window_of_any_cron(cron: str, change: tuple[str, str], hours: int, offset: int) -> None:
    zone, day = change
    start = datetime.fromisoformat(day).replace(tzinfo=UTC) + timedelta(hours=hours, minutes=7)
    moment = start + timedelta(days=2, hours=5)
    definition = TimeWindowPartitionsDefinition(cron, start, timezone=zone, fmt="%Y-%m-%d %H:%M", end_offset=offset)
    found = windows(definition, moment)
    # Brute force over a month more, for the windows that an offset adds.
    every = ticks(cron, zone, start, moment + timedelta(days=4))
    pairs = list(itertools.pairwise(every))
    ended = sum(end <= seconds(moment) for _, end in pairs)
    count = max(0, ended + offset)
    if count > len(pairs) or not every or seconds(moment) < every[0]:
        return
    assert found.count == count
    assert (
        list(zip(found.starts(range(count)).tolist(), found.ends(range(count)).tolist(), strict=True)) == pairs[:count]
    )
    keys = found.keys()
    assert len(set(keys)) == count
    assert found.ordinals(keys).tolist() == list(range(count))
    assert found.ordinals_starting([start for start, _ in pairs[:count]]).tolist() == list(range(count))


@pytest.mark.parametrize("zone", ZONES)
def test_a_year_has_no_missing_or_doubled_window(zone: str) -> None:
    year = (
        2011 if "Apia" in zone else 1993 if "Kwajalein" in zone else 2018 if "Sao" in zone or "Pyong" in zone else 2024
    )
    end = datetime(year + 1, 1, 1, tzinfo=ZoneInfo(zone))
    start = datetime(year, 1, 1, tzinfo=ZoneInfo(zone))
    for cls in (HourlyPartitionsDefinition, DailyPartitionsDefinition, WeeklyPartitionsDefinition):
        found = windows(cls(start, timezone=zone), end)
        starts, ends = found.starts(range(found.count)), found.ends(range(found.count))
        assert (starts[1:] == ends[:-1]).all()
        assert (ends > starts).all()
        keys = found.keys()
        assert len(set(keys)) == len(keys)
        assert found.ordinals(keys).tolist() == list(range(len(keys)))
        if cls is not WeeklyPartitionsDefinition:
            assert (starts[0], ends[-1]) == (seconds(start), seconds(end))
        if cls is DailyPartitionsDefinition:
            seen = {at(one, zone).date() for one in range(seconds(start), seconds(end), 3600)}
            assert keys == [day.isoformat() for day in sorted(seen)]


def test_cronsim_agrees_where_no_day_is_skipped() -> None:
    for zone in ("America/New_York", "Europe/London", "Australia/Lord_Howe"):
        for cron in [*CRONS, "0 0 L * *", "0 0 LW * *", "0 0 * * 5L", "0 0 * * 1#2", "0 4 13 * 5", "0 0 29 2 *"]:
            start = datetime(2024, 1, 1, tzinfo=ZoneInfo(zone))
            expected = [seconds(tick) for tick in itertools.islice(CronSim(cron, start - timedelta(seconds=1)), 60)]
            found = ticks_of(cron, zone)
            first = int(found.rank(int64s([seconds(start)]))[0])
            assert found.instants(np.arange(first, first + 60)).tolist() == expected, (zone, cron)


def test_ticks_far_away_follow_the_calendar() -> None:
    for cron in ("0 0 29 2 *", "0 0 L * *", "30 6 * * 1#1"):
        found = ticks_of(cron, "UTC")
        year = 86400 * CALENDAR
        base = found.rank(int64s([0, year, -year]))
        assert base[1] - base[0] == base[0] - base[2]
        near = found.instants(base[0] + np.arange(50))
        assert (found.instants(base[1] + np.arange(50)) == near + year).all()
        assert (found.instants(base[2] + np.arange(50)) == near - year).all()


# What features.md B1 tells, one by one.


def test_a_window_exists_when_it_has_ended() -> None:
    daily = DailyPartitionsDefinition("2024-01-01")
    assert windows(daily, "2024-03-12T05:30").key(-1) == "2024-03-11"
    assert windows(daily, "2024-03-12T00:00").key(-1) == "2024-03-11"
    assert windows(daily, "2024-03-11T23:59:59.999999").key(-1) == "2024-03-10"
    assert windows(DailyPartitionsDefinition("2024-01-01", end_offset=1), "2024-03-12T00:00").key(-1) == "2024-03-12"
    assert windows(DailyPartitionsDefinition("2024-01-01", end_offset=-1), "2024-03-12T00:00").key(-1) == "2024-03-10"
    ended = DailyPartitionsDefinition("2024-01-01", end_date="2024-02-01", end_offset=1)
    assert windows(ended, "2024-03-12T00:00").key(-1) == "2024-01-31"
    assert windows(daily, "2023-03-12T00:00").count == 0
    assert windows(DailyPartitionsDefinition("2024-01-01", end_offset=1), "2023-12-31T00:00").count == 0
    assert windows(DailyPartitionsDefinition("2024-01-01", end_offset=1), "2024-01-01T00:00").keys() == ["2024-01-01"]


def test_a_start_inside_a_window_rounds_forward() -> None:
    assert windows(WeeklyPartitionsDefinition("2024-02-14"), "2024-04-01").key(0) == "2024-02-18"
    assert windows(MonthlyPartitionsDefinition("2024-01-15"), "2024-04-01").key(0) == "2024-02-01"
    assert windows(DailyPartitionsDefinition("2024-01-15T00:00:00.5"), "2024-04-01").key(0) == "2024-01-16"
    late = DailyPartitionsDefinition("2024-01-15", hour_offset=6, minute_offset=30, fmt="%Y-%m-%d")
    assert windows(late, "2024-04-01").window("2024-01-15").start == datetime(2024, 1, 15, 6, 30, tzinfo=UTC)


def test_new_york_in_spring_and_fall() -> None:
    zone = "America/New_York"
    hourly = HourlyPartitionsDefinition("2024-01-01", timezone=zone)
    found = windows(hourly, "2025-01-01")
    assert found.keys(*_around(found, "2024-03-10-01:00", 2)) == ["2024-03-10-01:00", "2024-03-10-03:00"]
    assert found.keys(*_around(found, "2024-11-03-00:00", 4)) == [
        "2024-11-03-00:00",
        "2024-11-03-01:00",
        "2024-11-03-01:00-0500",
        "2024-11-03-02:00",
    ]
    for wrong in ("2024-03-10-02:00", "2024-11-03-01:00-0400", "2024-11-03-02:00-0500", "2024-11-03-01:00+0500"):
        assert found.find(wrong) is None
    second = windows(HourlyPartitionsDefinition("2024-11-03T06:00+00:00", timezone=zone), "2024-11-04")
    assert second.key(0) == "2024-11-03-01:00-0500"
    assert second.find("2024-11-03-01:00") is None
    daily = windows(DailyPartitionsDefinition("2024-01-01", timezone=zone), "2025-01-01")
    hours = (daily.ends(range(daily.count)) - daily.starts(range(daily.count))) // 3600
    assert hours[daily.ordinal("2024-03-10")] == 23
    assert hours[daily.ordinal("2024-11-03")] == 25
    assert np.unique(hours).tolist() == [23, 24, 25]


def _around(found: WindowPartitions, key: str, count: int) -> tuple[int, int]:
    first = found.ordinal(key)
    return first, first + count


def test_a_skipped_day_is_no_partition() -> None:
    found = windows(DailyPartitionsDefinition("2011-12-28", timezone="Pacific/Apia"), "2012-01-02")
    assert found.keys()[:4] == ["2011-12-28", "2011-12-29", "2011-12-31", "2012-01-01"]
    assert found.find("2011-12-30") is None
    assert "next one is `2011-12-31`" in found.explain_unknown("2011-12-30")


def test_midnight_that_does_not_exist() -> None:
    found = windows(DailyPartitionsDefinition("2024-04-24", timezone="Africa/Cairo"), "2024-05-01")
    start, end = found.window("2024-04-26")
    assert start == datetime(2024, 4, 26, 1, tzinfo=ZoneInfo("Africa/Cairo"))
    assert end.astimezone(UTC) - start.astimezone(UTC) == timedelta(hours=23)


def test_exclusions() -> None:
    weekdays = DailyPartitionsDefinition(
        "2024-03-01", exclusions=["0 0 * * 0,6", datetime(2024, 3, 5), "2024-03-07"], timezone="Europe/London"
    )
    found = windows(weekdays, "2024-03-12T05:30")
    assert found.keys() == ["2024-03-01", "2024-03-04", "2024-03-06", "2024-03-08", "2024-03-11"]
    assert found.window("2024-03-01").end == datetime(2024, 3, 2, tzinfo=ZoneInfo("Europe/London"))
    assert found.find("2024-03-02") is None
    assert found.overlapping(datetime(2024, 3, 2, tzinfo=UTC), datetime(2024, 3, 5, tzinfo=UTC)).keys() == [
        "2024-03-04"
    ]
    assert not found.overlapping(datetime(2024, 3, 2, tzinfo=UTC), datetime(2024, 3, 3, 1, tzinfo=UTC))
    # Before the first as well: mappings look there.
    assert found.window_at(-1).start.date() == date(2024, 2, 29)
    assert found.window_at(-5000).start.weekday() < 5


def test_keys_far_away_are_not_looked_for() -> None:
    hourly = HourlyPartitionsDefinition("2024-03-01", exclusions=["0 * * * 0,6"])
    found = windows(hourly, "2024-03-12")
    assert found.ordinals(["0001-01-01-00:00", "9998-12-30-00:00", "9998-12-30-00:00+0000"]).tolist() == [-1] * 3
    assert "They go from" in found.explain_unknown("9998-12-30-00:00")
    far = datetime(1, 1, 2, tzinfo=UTC), datetime(9998, 1, 1, tzinfo=UTC)
    assert found.overlapping(*far) == found.all()
    data = {"count": found.count, "windows": [[seconds(one) for one in far]]}
    assert found.read_subset(data) == (found.all(), 0)
    assert found.ordinals_starting([seconds(far[0]), int(found.starts([3])[0]), seconds(far[1])]).tolist() == [
        -1,
        3,
        -1,
    ]
    # 70 million windows lie between.
    assert len(cast(Any, found.windows)._kept) < 100_000


def test_exclusions_that_leave_nothing() -> None:
    sundays = WeeklyPartitionsDefinition("2024-03-01", exclusions=["* * * * 0"])
    with pytest.raises(CronError, match="weekly from 2024-03-01, UTC, 1 exclusions: The exclusions leave no window"):
        windows(sundays, "2024-06-01")


@settings(max_examples=30)
@given(
    crons=st.lists(st.sampled_from(["0 3 * * *", "0 * * * 6", "0 */2 * * *", "0 0 1 * *"]), max_size=2),
    zone=st.sampled_from(ZONES),
    moments=st.lists(st.integers(0, 200), max_size=3),
)
def test_exclusions_leave_the_others(crons: list[str], zone: str, moments: list[int]) -> None:
    start = datetime(2018, 1, 30, tzinfo=UTC)
    end = start + timedelta(days=30)
    gone = [start + timedelta(hours=one) for one in moments]
    every = windows(HourlyPartitionsDefinition(start, timezone=zone), end)
    found = windows(HourlyPartitionsDefinition(start, timezone=zone, exclusions=[*crons, *gone]), end)
    excluded = {seconds(one) for one in gone}.union(*(ticks(one, zone, start, end) for one in crons))
    pairs = zip(every.starts(range(every.count)).tolist(), every.ends(range(every.count)).tolist(), strict=True)
    expected = [pair for pair in pairs if pair[0] not in excluded]
    numbers = range(found.count)
    assert list(zip(found.starts(numbers).tolist(), found.ends(numbers).tolist(), strict=True)) == expected
    assert found.ordinals(found.keys()).tolist() == list(numbers)


@settings(max_examples=60)
@given(
    zone=st.sampled_from(ZONES),
    cls=st.sampled_from([HourlyPartitionsDefinition, DailyPartitionsDefinition, MonthlyPartitionsDefinition]),
    start=st.integers(-100_000, 300_000),
    length=st.integers(0, 300_000),
)
def test_overlapping(zone: str, cls: type[HourlyPartitionsDefinition], start: int, length: int) -> None:
    found = windows(cls("2018-01-01", timezone=zone), "2018-03-03")
    low = datetime(2018, 1, 1, tzinfo=UTC) + timedelta(seconds=start, microseconds=start % 2)
    high = low + timedelta(seconds=length)
    expected = [
        i for i in range(found.count) if found.window_at(i).start < high and found.window_at(i).end > low and length > 0
    ]
    if found.count > 100:
        numbers = np.arange(found.count)
        edges = (low - EPOCH).total_seconds(), (high - EPOCH).total_seconds()
        expected = np.flatnonzero((found.starts(numbers) < edges[1]) & (found.ends(numbers) > edges[0])).tolist()
        expected = expected if length else []
    assert found.overlapping(low, high).ordinals().tolist() == expected


def test_far_from_now() -> None:
    daily = DailyPartitionsDefinition("0001-01-03", timezone="America/New_York")
    found = windows(daily, "2024-01-01")
    assert found.key(0) == "0001-01-03"
    assert found.ordinals(found.keys(0, 1000)).tolist() == list(range(1000))
    late = windows(
        HourlyPartitionsDefinition("2024-01-01", timezone="America/New_York", end_offset=3_000_000), "2024-06-01"
    )
    assert late.ordinal(late.key(-1)) == late.count - 1
    assert late.find("2300-07-01-12:00") is not None
    # 2300-07-01 is in summer time: the rules go on.
    assert late.window("2300-07-01-12:00").start.utcoffset() == timedelta(hours=-4)
    most = windows(DailyPartitionsDefinition("2024-01-01", end_offset=1 << 30), "2024-06-01")
    assert most.key(-1) == "9998-12-30"
