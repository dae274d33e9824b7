"""Cron expressions as sets of fields."""

import functools
import re
from dataclasses import dataclass
from datetime import UTC, datetime

from headwater.catalog.errors import CronError
from headwater.catalog.printable import printable_line

_ALIASES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
#: Expressions whose fields are one number or all: those of hourly, daily, weekly and monthly definitions.
_SIMPLE = re.compile(r"(?:(?:[0-9]{1,2}|\*) ){4}(?:[0-9]|\*)")
_RANGES = (range(60), range(24), range(1, 32), range(1, 13), range(8))
_NAMES = ("minute", "hour", "day-of-month", "month", "day-of-week")
#: In place of a day of the month: the last one, the last weekday; in place of a count of weekdays, the last.
LAST, LAST_WEEKDAY = -1000, -1001

Weekday = int | tuple[int, int]


@dataclass(frozen=True, slots=True)
class CronFields:
    """What a cron expression names; minutes and hours are sorted."""

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int]
    months: frozenset[int]
    #: 0 and 7 are Sunday; a pair is the nth such day of its month.
    weekdays: frozenset[Weekday]
    #: Both day fields have to match, not either: one of them starts with `*`.
    both_days: bool
    #: Minutes or hours start with `*`: it follows the clock on the wall through repeated and skipped hours.
    follows_clock: bool

    @property
    def every_month_day(self) -> bool:
        """No restriction to days of a month or to months."""
        return len(self.days) == 31 and len(self.months) == 12 and self.both_days


def normalize_cron(expression: object) -> str:
    """The five fields of `expression`, `@daily` and its like spelled out. Raises `CronError`."""
    if not isinstance(expression, str):
        raise CronError(
            f"A cron expression is text, not {type(expression).__name__}.", remedy="Write it like '0 6 * * *'."
        )
    text = " ".join(expression.split())
    if text.startswith("@"):
        if text.lower() not in _ALIASES:
            raise _error(text, f"it is none of {', '.join(_ALIASES)}")
        return _ALIASES[text.lower()]
    if len(text.split()) != 5:
        raise _error(text, f"it has {len(text.split())} fields, not five")
    return text.upper()


@functools.lru_cache(maxsize=1024)
def parse_cron(expression: str) -> CronFields:
    """The fields of `expression`. Raises `CronError`, naming the field at fault."""
    text = normalize_cron(expression)
    return _parse_simple(text) if _SIMPLE.fullmatch(text) else _parse_any(text)


def _parse_simple(text: str) -> CronFields:
    """Without the library, which takes 13 ms to import."""
    fields = text.split()
    sets: list[tuple[int, ...]] = []
    for field, allowed, name in zip(fields, _RANGES, _NAMES, strict=True):
        if field != "*" and int(field) not in allowed:
            raise _error(text, f"its {name} is {field}")
        sets.append(tuple(allowed) if field == "*" else (int(field),))
    minutes, hours, days, months, weekdays = sets
    found = CronFields(
        minutes,
        hours,
        frozenset(days),
        frozenset(months),
        frozenset(weekdays),
        "*" in (fields[2], fields[4]),
        "*" in fields[:2],
    )
    longest = max(29 if month == 2 else 30 if month in (4, 6, 9, 11) else 31 for month in months)
    if found.both_days and min(days) > longest:
        raise _error(text, "none of its months has that day")
    return found


def _parse_any(text: str) -> CronFields:
    from cronsim import CronSim, CronSimError

    try:
        parsed = CronSim(text, datetime(2000, 1, 1, tzinfo=UTC))
    except (CronSimError, ValueError, TypeError, AssertionError) as error:
        reason = str(error)
        raise _error(text, f"its {reason[4:]} is wrong" if reason.startswith("Bad ") else "it does not parse") from None
    fields = text.split()
    return CronFields(
        tuple(sorted(parsed.minutes)),
        tuple(sorted(parsed.hours)),
        frozenset(parsed.days),
        frozenset(parsed.months),
        frozenset(parsed.weekdays),
        parsed.day_and,
        fields[0].startswith("*") or fields[1].startswith("*"),
    )


def _error(text: str, reason: str) -> CronError:
    return CronError(
        f"The cron expression '{printable_line(text, 80)}' cannot be used: {reason}.",
        remedy="Write minute, hour, day of month, month and day of week, like '0 6 * * 1-5'.",
    )
