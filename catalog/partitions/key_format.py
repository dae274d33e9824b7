"""How the start of a window is written as a key."""

import functools
import re
from datetime import datetime, timedelta

from headwater.catalog.errors import DefinitionError
from headwater.catalog.keys import validate_partition_key
from headwater.catalog.partitions.cron import CronFields
from headwater.catalog.printable import printable_line

_DIRECTIVE = re.compile(r"%(.)", re.DOTALL)
#: Directives of a fixed number of digits, from coarse to fine.
WIDTHS = {"Y": 4, "m": 2, "d": 2, "H": 2, "M": 2}
_MINUTE, _HOUR, _DAY, _MONTH, _YEAR = range(5)
_WEEKDAYS = frozenset("uw")
#: Not the same in every locale, or not enough to find the window by.
_UNSTABLE = frozenset("aAbBhcxXpIyzZsfDFTrR")
#: A time whose every field shows.
_SAMPLE = datetime(2013, 12, 28, 17, 46)
#: The offset behind a time that a clock shows for the second time.
OFFSET = re.compile(r"([+-])([0-9]{2})([0-9]{2})([0-9]{2})?\Z")


class KeyFormat:
    """A `strftime` format, checked to tell the windows of a cron apart.

    Raises `DefinitionError`.
    """

    __slots__ = ("fields", "fmt", "resolution", "weekday")

    def __init__(self, fmt: str, cron: CronFields) -> None:
        validate_partition_key(fmt, "partition key format")
        self.fmt = fmt
        #: Literal texts and single letters of WIDTHS in turn, where the format is made of nothing else.
        self.fields: tuple[str, ...] | None = None
        #: What is added to a format of weeks without a weekday, which `strptime` refuses, and to its text.
        self.weekday: tuple[str, str] = ("", "")
        letters = _DIRECTIVE.findall(fmt)
        self.resolution = self._check(letters, cron)
        plain = [letter for letter in letters if letter != "%"]
        ordered = [letter for letter in WIDTHS if letter in plain]
        if sorted(plain) == sorted(ordered) and ordered == list(WIDTHS)[: len(ordered)] and "%%" not in fmt:
            self.fields = tuple(_DIRECTIVE.split(fmt))
        if not set(letters) & _WEEKDAYS and "d" not in letters and "j" not in letters:
            if "V" in letters:
                self.weekday = (" %u", " 1")
            elif "U" in letters or "W" in letters:
                self.weekday = (" %w", " 0" if "U" in letters else " 1")
        try:
            again = self.parse(self.format(_SAMPLE))
        except (ValueError, OverflowError):
            again = None
        if again is None or self.format(again) != self.format(_SAMPLE):
            raise self._error("a key written with it cannot be read again")

    def _check(self, letters: list[str], cron: CronFields) -> int:
        found = set(letters)
        if not found & {"Y", "G"}:
            raise self._error("it has no year with four digits", "%Y")
        if found & _UNSTABLE:
            raise self._error(f"it has %{min(found & _UNSTABLE)}", "%Y, %m, %d, %H and %M")
        needs = _resolution(cron)
        month = "m" in found
        week = bool(found & set("UVW"))
        day = "j" in found or ("d" in found and month) or (week and bool(found & _WEEKDAYS))
        week_only = needs == _DAY and week and len(cron.weekdays) == 1 and cron.every_month_day
        if needs <= _MONTH and not (month or day or week):
            raise self._error("it has no month", "%m")
        if needs <= _DAY and not (day or week_only):
            raise self._error("it has no day", "%d")
        if needs <= _HOUR and "H" not in found:
            raise self._error("it has no hour", "%H")
        if needs <= _MINUTE and "M" not in found:
            raise self._error("it has no minute", "%M")
        return needs

    def _error(self, reason: str, instead: str = "") -> DefinitionError:
        return DefinitionError(
            f"The format '{printable_line(self.fmt, 80)}' does not name every partition: {reason}.",
            remedy=f"Use {instead or '%Y-%m-%d'} in it.",
        )

    def format(self, local: datetime) -> str:
        """`local` as a key."""
        # glibc writes the year 987 in three digits, which strptime refuses.
        fmt = self.fmt.replace("%Y", f"{local.year:04d}") if local.year < 1000 else self.fmt
        return local.strftime(fmt)

    def parse(self, text: str) -> datetime:
        """The earliest wall-clock time that may be written so. Raises `ValueError`."""
        more, value = self.weekday
        return datetime.strptime(text + value, self.fmt + more)

    def split_offset(self, text: str) -> tuple[str, int | None]:
        """The key without the offset of a repeated hour behind it, and that offset in seconds."""
        match = OFFSET.search(text)
        if match is None or match.start() == 0:
            return text, None
        sign, hours, minutes, seconds = match.groups()
        size = int(hours) * 3600 + int(minutes) * 60 + int(seconds or 0)
        return text[: match.start()], -size if sign == "-" else size


@functools.lru_cache(maxsize=1024)
def make_format(fmt: str, cron: CronFields) -> KeyFormat:
    """The format `fmt` for windows of `cron`. Raises `DefinitionError`."""
    return KeyFormat(fmt, cron)


def print_offset(offset: int) -> str:
    """`-18000` as `-0500`."""
    sign, size = ("-", -offset) if offset < 0 else ("+", offset)
    seconds = f"{size % 60:02d}" if size % 60 else ""
    return f"{sign}{size // 3600:02d}{size // 60 % 60:02d}{seconds}"


def default_format(cron: CronFields) -> str:
    """The format of a definition that gives none."""
    return "%Y-%m-%d-%H:%M" if _resolution(cron) < _DAY else "%Y-%m-%d"


def _resolution(cron: CronFields) -> int:
    """The finest field that changes from one window to the next."""
    if len(cron.minutes) > 1:
        return _MINUTE
    if len(cron.hours) > 1:
        return _HOUR
    if len(cron.days) > 1 or len(cron.weekdays) < 8 or not cron.both_days:
        return _DAY
    return _MONTH if len(cron.months) > 1 else _YEAR


def parse_wall_time(text: str, fmt: str | None) -> datetime:
    """A time given as text: in `fmt`, or as ISO 8601 has it. Raises `ValueError`."""
    if fmt is not None:
        try:
            return datetime.strptime(text, fmt)
        except ValueError:
            pass
    return datetime.fromisoformat(text)


def round_up(moment: datetime) -> datetime:
    """To whole seconds."""
    return moment.replace(microsecond=0) + timedelta(seconds=1) if moment.microsecond else moment
