"""Zones in which something strange happens, and when; cron by brute force, minute by minute."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from headwater.catalog.partitions.cron import parse_cron

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

#: A zone, and a day around which its clocks change.
CHANGES = [
    ("UTC", "2024-03-10"),
    ("America/New_York", "2024-03-10"),
    ("America/New_York", "2024-11-03"),
    ("Europe/London", "2024-03-31"),
    ("Europe/London", "2024-10-27"),
    ("Australia/Lord_Howe", "2024-04-07"),  # half an hour
    ("Australia/Lord_Howe", "2024-10-06"),
    ("Pacific/Apia", "2011-12-30"),  # no such day
    ("Pacific/Kwajalein", "1993-08-21"),  # no such day
    ("Africa/Cairo", "2024-04-26"),  # at midnight
    ("Africa/Cairo", "2024-10-31"),
    ("America/Sao_Paulo", "2018-11-04"),  # at midnight
    ("America/Sao_Paulo", "2018-02-18"),
    ("Asia/Kolkata", "2024-06-01"),  # half an hour from UTC, no changes
    ("Africa/Casablanca", "2024-03-10"),  # Ramadan
    ("Asia/Pyongyang", "2018-05-05"),  # half an hour, 23:30
    ("Antarctica/Troll", "2024-03-31"),  # two hours
]
ZONES = sorted({zone for zone, _ in CHANGES})


def seconds(moment: datetime) -> int:
    """Since 1970."""
    return int((moment - EPOCH).total_seconds())


def at(second: int, zone: str) -> datetime:
    """The moment in a zone."""
    return (EPOCH + timedelta(seconds=second)).astimezone(ZoneInfo(zone))


def matches_day(cron: str, day: date) -> bool:
    """Whether the day fields name a day: numbers, lists and ranges of them alone."""
    fields = parse_cron(cron)
    by_day, by_weekday = (
        day.day in fields.days,
        day.isoweekday() in fields.weekdays or (day.isoweekday() == 7 and 0 in fields.weekdays),
    )
    return day.month in fields.months and (by_day and by_weekday if fields.both_days else by_day or by_weekday)


def ticks(cron: str, zone: str, start: datetime, end: datetime) -> list[int]:
    """Every tick from `start` to before `end`, found by looking at each minute or each day."""
    fields = parse_cron(cron)
    if fields.follows_clock:
        return list(_by_minute(cron, zone, start, end))
    found: set[int] = set()
    day = start.astimezone(ZoneInfo(zone)).date() - timedelta(days=2)
    while day <= end.astimezone(ZoneInfo(zone)).date() + timedelta(days=2):
        if matches_day(cron, day):
            for hour in fields.hours:
                for minute in fields.minutes:
                    found.add(_first_instant(datetime(day.year, day.month, day.day, hour, minute), zone))
        day += timedelta(days=1)
    return sorted(one for one in found if seconds(start) <= one < seconds(end))


def _by_minute(cron: str, zone: str, start: datetime, end: datetime) -> Iterator[int]:
    fields = parse_cron(cron)
    moment = start.astimezone(UTC).replace(second=0, microsecond=0)
    while moment < end:
        local = moment.astimezone(ZoneInfo(zone))
        named = local.minute in fields.minutes and local.hour in fields.hours
        if named and moment >= start and matches_day(cron, local.date()):
            yield seconds(moment)
        moment += timedelta(minutes=1)


def _first_instant(wall: datetime, zone: str) -> int:
    """The first instant at which clocks show `wall`; where they never do, the first one later than it."""
    while True:
        moment = wall.replace(tzinfo=ZoneInfo(zone), fold=0).astimezone(UTC)
        if moment.astimezone(ZoneInfo(zone)).replace(tzinfo=None) == wall:
            return seconds(moment)
        wall += timedelta(minutes=1)
