"""Partitions that are windows of time: hourly, daily, weekly, monthly, or by any cron expression."""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

from headwater.catalog.errors import DefinitionError
from headwater.catalog.partitions.cron import CronFields, normalize_cron, parse_cron
from headwater.catalog.partitions.definition import PartitionsContext, PartitionsDefinition, set_field
from headwater.catalog.partitions.key_format import KeyFormat, default_format, make_format, parse_wall_time, round_up
from headwater.catalog.partitions.zone import canonical_zone, find_changes, horizon_for, load_zone
from headwater.catalog.printable import printable_line

if TYPE_CHECKING:
    from headwater.catalog.partitions.space import Partitions

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

#: A moment: aware, or on the clock of the definition's zone, as a datetime, a date or text (in the definition's
#: format or ISO 8601).
Moment = datetime | date | str


class TimeWindowPartitionsDefinition(PartitionsDefinition):
    """A window from each tick of `cron_schedule` to the next, of those that lie between `start` and `end`.

    A window is half-open and its key is its start, written with `fmt`. It exists when it has ended; `end_offset=1`
    adds the one that has not, `-1` leaves the last one out. `exclusions` are cron expressions and moments: windows
    that start at one of them do not exist. A cron with fixed minutes and hours ticks once a day, whatever clocks do;
    one with `*` in minutes or hours follows the clock on the wall through repeated hours (the second `01:00` has the
    key `…01:00-0500`) and skipped ones.

    Raises `CronError`, `TimeZoneError` and `DefinitionError`.
    """

    __slots__ = ("cron_schedule", "end_offset", "end_seconds", "exclusions", "fmt", "start_seconds", "timezone")
    kind: ClassVar[str] = "time_window"
    #: Five fields.
    cron_schedule: str
    #: A name of the IANA database.
    timezone: str
    fmt: str
    #: Seconds since 1970 in UTC.
    start_seconds: int
    end_seconds: int | None
    end_offset: int
    #: Cron expressions, and seconds since 1970.
    exclusions: tuple[str | int, ...]

    def __init__(
        self,
        cron_schedule: str,
        start: Moment,
        *,
        end: Moment | None = None,
        timezone: str | None = None,
        fmt: str | None = None,
        end_offset: int = 0,
        exclusions: Sequence[Moment] | None = None,
    ) -> None:
        cron = normalize_cron(cron_schedule)
        fields = parse_cron(cron)
        zone = canonical_zone("UTC" if timezone is None else timezone)
        if fmt is not None and not isinstance(cast(object, fmt), str):
            raise DefinitionError(f"A format is text, not {type(fmt).__name__}.", remedy="Write it like '%Y-%m-%d'.")
        key_format = make_format(default_format(fields) if fmt is None else fmt, fields)
        set_field(self, "cron_schedule", cron)
        set_field(self, "timezone", zone)
        set_field(self, "fmt", key_format.fmt)
        set_field(self, "start_seconds", self._seconds(start, "start"))
        set_field(self, "end_seconds", None if end is None else self._seconds(end, "end"))
        if not isinstance(cast(object, end_offset), int) or abs(end_offset) > 1 << 31:
            raise DefinitionError(f"end_offset is {end_offset!r}, no number of windows.", remedy="Use a whole number.")
        set_field(self, "end_offset", int(end_offset))
        if exclusions is not None and not isinstance(cast(object, exclusions), list | tuple | set | frozenset):
            raise DefinitionError(
                "exclusions is a list of cron expressions and moments.", remedy="Write it like ['0 0 * * 0,6']."
            )
        found: set[str | int] = set()
        for one in exclusions or ():
            if isinstance(one, str) and (one.startswith("@") or len(one.split()) == 5):
                parse_cron(one)
                found.add(normalize_cron(one))
            else:
                found.add(self._seconds(one, "one of the exclusions"))
        set_field(self, "exclusions", tuple(sorted(found, key=lambda one: (isinstance(one, str), one))))
        self._check_bounds()

    def _seconds(self, given: object, what: str) -> int:
        if isinstance(given, str):
            try:
                given = parse_wall_time(given, self.fmt)
            except ValueError:
                raise DefinitionError(
                    f"'{printable_line(given, 60)}' as {what} is no time.",
                    remedy=f"Write it as {self.fmt} or in ISO 8601, such as 2024-01-31T06:00.",
                ) from None
        elif isinstance(given, date) and not isinstance(given, datetime):
            given = datetime(given.year, given.month, given.day)
        if not isinstance(given, datetime):
            raise DefinitionError(
                f"{given!r} as {what} is no time but a {type(given).__name__}.", remedy="Use a datetime, date or text."
            )
        given = round_up(given)
        if given.utcoffset() is not None:
            return int((given - _EPOCH) // timedelta(seconds=1))
        local = int((given.replace(tzinfo=UTC) - _EPOCH) // timedelta(seconds=1))
        return find_changes(self.timezone, horizon_for(given.year)).to_instant(local)

    def _check_bounds(self) -> None:
        if self.end_seconds is not None and self.end_seconds <= self.start_seconds:
            raise DefinitionError(
                f"The end {self.end} is not after the start {self.start}.",
                remedy="Exchange them, or leave out the end.",
            )

    @property
    def start(self) -> datetime:
        """Where the first window may start."""
        return (_EPOCH + timedelta(seconds=self.start_seconds)).astimezone(load_zone(self.timezone))

    @property
    def end(self) -> datetime | None:
        """Where the last window may end."""
        if self.end_seconds is None:
            return None
        return (_EPOCH + timedelta(seconds=self.end_seconds)).astimezone(load_zone(self.timezone))

    @property
    def cron_fields(self) -> CronFields:
        """The schedule, parsed."""
        return parse_cron(self.cron_schedule)

    @property
    def key_format(self) -> KeyFormat:
        """How keys are written."""
        return make_format(self.fmt, self.cron_fields)

    def at(self, context: PartitionsContext) -> "Partitions":
        """The windows that have ended at `context.moment`."""
        from headwater.catalog.partitions.space import WindowPartitions

        return WindowPartitions(self, context)

    def may_have(self, key: str) -> bool:
        """Whether `key` could be one of its keys at some moment: written in its format, between its bounds."""
        text, _ = self.key_format.split_offset(key)
        # A format may itself end with what looks like an offset: `2024-03-1000` does.
        for candidate in (key, text):
            try:
                local = self.key_format.parse(candidate)
            except ValueError:
                continue
            if self.key_format.format(local) == candidate:
                # Clocks are compared, and a window may start later than they say where they skip an hour or a day.
                slack = timedelta(days=2)
                after_start = local >= self.start.replace(tzinfo=None) - slack
                return after_start and (self.end is None or local < self.end.replace(tzinfo=None) + slack)
        return False

    def to_json(self) -> dict[str, Any]:
        """`{"kind": "daily", "cron": "0 0 * * *", "timezone": …, "fmt": …, "start": seconds, …}`."""
        return {**self._meaning(), "kind": self.kind}

    def _meaning(self) -> dict[str, Any]:
        return {
            "kind": TimeWindowPartitionsDefinition.kind,
            "cron": self.cron_schedule,
            "timezone": self.timezone,
            "fmt": self.fmt,
            "start": self.start_seconds,
            "end": self.end_seconds,
            "end_offset": self.end_offset,
            "exclusions": list(self.exclusions),
        }

    def key_meaning(self) -> dict[str, str]:
        """The schedule, its zone and how keys are written: what makes a window of a key."""
        return {"cron": self.cron_schedule, "timezone": self.timezone, "fmt": self.fmt}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The definition that `to_json` described."""

        def moment(seconds: int) -> datetime:
            return _EPOCH + timedelta(seconds=seconds)

        self = object.__new__(cls)
        TimeWindowPartitionsDefinition.__init__(
            self,
            data["cron"],
            moment(data["start"]),
            end=None if data["end"] is None else moment(data["end"]),
            timezone=data["timezone"],
            fmt=data["fmt"],
            end_offset=data["end_offset"],
            exclusions=[one if isinstance(one, str) else moment(one) for one in data["exclusions"]],
        )
        return self

    def describe(self) -> str:
        """Such as "daily from 2013-01-01 to 2014-01-01, Europe/London"."""
        name = self.kind if self.kind != TimeWindowPartitionsDefinition.kind else f"windows of '{self.cron_schedule}'"
        parts = [f"{name} from {_short(self.start)}"]
        if self.end is not None:
            parts[0] += f" to {_short(self.end)}"
        parts.append(self.timezone)
        if self.end_offset:
            parts.append(f"end_offset {self.end_offset}")
        if self.exclusions:
            parts.append(f"{len(self.exclusions)} exclusions")
        return ", ".join(parts)


def _short(moment: datetime) -> str:
    text = moment.replace(tzinfo=None).isoformat(timespec="minutes")
    return text.removesuffix("T00:00")


def _offset(value: object, name: str, allowed: range) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value not in allowed:
        raise DefinitionError(f"{name} is {value!r}.", remedy=f"Use a whole number from {allowed[0]} to {allowed[-1]}.")
    return value


class HourlyPartitionsDefinition(TimeWindowPartitionsDefinition):
    """A partition for every hour from `start_date`, with keys like `2024-03-10-14:00`.

    As `TimeWindowPartitionsDefinition`.
    """

    __slots__ = ()
    kind: ClassVar[str] = "hourly"

    def __init__(
        self,
        start_date: Moment,
        *,
        end_date: Moment | None = None,
        minute_offset: int = 0,
        timezone: str | None = None,
        fmt: str | None = None,
        end_offset: int = 0,
        exclusions: Sequence[Moment] | None = None,
    ) -> None:
        minute = _offset(minute_offset, "minute_offset", range(60))
        super().__init__(
            f"{minute} * * * *",
            start_date,
            end=end_date,
            timezone=timezone,
            fmt="%Y-%m-%d-%H:%M" if fmt is None else fmt,
            end_offset=end_offset,
            exclusions=exclusions,
        )


class DailyPartitionsDefinition(TimeWindowPartitionsDefinition):
    """A partition for every day from `start_date`, with keys like `2024-03-10`; days are 23 to 25 hours long.

    As `TimeWindowPartitionsDefinition`.
    """

    __slots__ = ()
    kind: ClassVar[str] = "daily"

    def __init__(
        self,
        start_date: Moment,
        *,
        end_date: Moment | None = None,
        minute_offset: int = 0,
        hour_offset: int = 0,
        timezone: str | None = None,
        fmt: str | None = None,
        end_offset: int = 0,
        exclusions: Sequence[Moment] | None = None,
    ) -> None:
        minute = _offset(minute_offset, "minute_offset", range(60))
        hour = _offset(hour_offset, "hour_offset", range(24))
        super().__init__(
            f"{minute} {hour} * * *",
            start_date,
            end=end_date,
            timezone=timezone,
            fmt="%Y-%m-%d" if fmt is None else fmt,
            end_offset=end_offset,
            exclusions=exclusions,
        )


class WeeklyPartitionsDefinition(TimeWindowPartitionsDefinition):
    """A partition for every week from `start_date`, with its first day as key; `day_offset` 0 is Sunday.

    As `TimeWindowPartitionsDefinition`.
    """

    __slots__ = ()
    kind: ClassVar[str] = "weekly"

    def __init__(
        self,
        start_date: Moment,
        *,
        end_date: Moment | None = None,
        minute_offset: int = 0,
        hour_offset: int = 0,
        day_offset: int = 0,
        timezone: str | None = None,
        fmt: str | None = None,
        end_offset: int = 0,
        exclusions: Sequence[Moment] | None = None,
    ) -> None:
        minute = _offset(minute_offset, "minute_offset", range(60))
        hour = _offset(hour_offset, "hour_offset", range(24))
        day = _offset(day_offset, "day_offset", range(7))
        super().__init__(
            f"{minute} {hour} * * {day}",
            start_date,
            end=end_date,
            timezone=timezone,
            fmt="%Y-%m-%d" if fmt is None else fmt,
            end_offset=end_offset,
            exclusions=exclusions,
        )


class MonthlyPartitionsDefinition(TimeWindowPartitionsDefinition):
    """A partition for every month from `start_date`, with its first day as key; `day_offset` is that day, 1 to 28.

    As `TimeWindowPartitionsDefinition`.
    """

    __slots__ = ()
    kind: ClassVar[str] = "monthly"

    def __init__(
        self,
        start_date: Moment,
        *,
        end_date: Moment | None = None,
        minute_offset: int = 0,
        hour_offset: int = 0,
        day_offset: int = 1,
        timezone: str | None = None,
        fmt: str | None = None,
        end_offset: int = 0,
        exclusions: Sequence[Moment] | None = None,
    ) -> None:
        minute = _offset(minute_offset, "minute_offset", range(60))
        hour = _offset(hour_offset, "hour_offset", range(24))
        # A month without its day would be no partition; whoever wants that writes the cron.
        day = _offset(day_offset, "day_offset", range(1, 29))
        super().__init__(
            f"{minute} {hour} {day} * *",
            start_date,
            end=end_date,
            timezone=timezone,
            fmt="%Y-%m-%d" if fmt is None else fmt,
            end_offset=end_offset,
            exclusions=exclusions,
        )


TIME_WINDOW_KINDS: dict[str, type[TimeWindowPartitionsDefinition]] = {
    cls.kind: cls
    for cls in (
        TimeWindowPartitionsDefinition,
        HourlyPartitionsDefinition,
        DailyPartitionsDefinition,
        WeeklyPartitionsDefinition,
        MonthlyPartitionsDefinition,
    )
}
