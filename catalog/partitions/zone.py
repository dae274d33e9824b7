"""Time zones: the moments at which the offset from UTC changes."""

import functools
import struct
import zoneinfo
from bisect import bisect_right
from datetime import UTC, datetime, timedelta
from pathlib import Path

from headwater.catalog.errors import TimeZoneError, nearest
from headwater.catalog.printable import printable_line

#: All names of one zone.
_UTC = frozenset({"UTC", "Etc/UTC", "Etc/UCT", "UCT", "Zulu", "Etc/Zulu", "Universal", "Etc/Universal"})
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: Years a zone's changes are worked out to, at first and at most: rules without an end cost 30 µs a year.
FIRST_HORIZON, LAST_HORIZON = 2100, 9998


#: `zoneinfo` itself remembers eight.
_zone = functools.lru_cache(maxsize=64)(zoneinfo.ZoneInfo)


def load_zone(name: object) -> zoneinfo.ZoneInfo:
    """The zone `name`. Raises `TimeZoneError`."""
    if not isinstance(name, str):
        raise TimeZoneError(
            f"A time zone is a name, not {type(name).__name__}.", remedy="Write it like 'Europe/London'."
        )
    try:
        return _zone(name)
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
        known = zoneinfo.available_timezones()
        otherwise = (
            "Use a name of the IANA database, like 'Europe/London'."
            if known
            else "This machine has no database of time zones: `pip install tzdata`."
        )
        raise TimeZoneError(
            f"There is no time zone '{printable_line(name, 60)}'.", remedy=nearest(name, known, otherwise)
        ) from None


def canonical_zone(name: object) -> str:
    """`name` of a zone that exists, all names of UTC made one. Raises `TimeZoneError`."""
    load_zone(name)
    return "UTC" if name in _UTC else str(name)


class Changes:
    """A zone's offsets from UTC: `offsets[i]` seconds hold from the instant `starts[i]`; the first since ever."""

    __slots__ = ("offsets", "starts")

    def __init__(self, starts: list[int], offsets: list[int]) -> None:
        self.starts = starts
        self.offsets = offsets

    def to_local(self, instant: int) -> tuple[int, int, bool]:
        """Wall-clock seconds at an instant, their offset, and whether they come for the second time."""
        at = bisect_right(self.starts, instant) - 1
        offset = self.offsets[at]
        repeated = at > 0 and instant + offset < self.starts[at] + self.offsets[at - 1]
        return instant + offset, offset, repeated

    def to_instant(self, local: int) -> int:
        """The first instant at which clocks show `local` or, where they skip it, the end of that gap."""
        at = len(self.starts) - 1
        while at > 0 and local < self.starts[at] + self.offsets[at - 1]:
            at -= 1
        return max(local - self.offsets[at], self.starts[at])


#: Stands for "since ever": far before year 1, and far from the ends of int64.
EVER = -(1 << 48)


@functools.lru_cache(maxsize=128)
def find_changes(name: str, horizon: int = FIRST_HORIZON) -> Changes:
    """The changes of a zone until the end of the year `horizon`, after which its last offset goes on."""
    if name == "UTC":
        return Changes([EVER], [0])
    starts, offsets, rule = _read_file(name)
    if rule:
        _extend(load_zone(name), starts, offsets, horizon)
    return _without_repeats(starts, offsets)


def horizon_for(year: int) -> int:
    """How far to work out changes for what happens in `year`."""
    return FIRST_HORIZON if year < FIRST_HORIZON - 10 else LAST_HORIZON


def _read_file(name: str) -> tuple[list[int], list[int], bool]:
    """Changes in the zone's TZif file (RFC 8536), and whether a rule says how it goes on."""
    data = _file_bytes(name)
    header = ">4sc15x6l"
    _, version, *counts = struct.unpack_from(header, data)
    at, size = struct.calcsize(header), 4
    if version >= b"2":
        utc, std, leap, times, types, chars = counts
        at += times * 5 + types * 6 + chars + leap * 8 + std + utc
        _, _, *counts = struct.unpack_from(header, data, at)
        at, size = at + struct.calcsize(header), 8
    utc, std, leap, times, types, chars = counts
    starts = struct.unpack_from(f">{times}{'q' if size == 8 else 'l'}", data, at)
    which = struct.unpack_from(f">{times}B", data, at + times * size)
    at += times * (size + 1)
    kinds = [struct.unpack_from(">lBB", data, at + 6 * i) for i in range(types)]
    at += types * 6 + chars + leap * (size + 4) + std + utc
    rule = data[at:].strip(b"\n").decode("ascii", "replace") if version >= b"2" else ""
    # As zoneinfo does: before the first change, the first kind that is standard time.
    first = next((kind[0] for kind in kinds if not kind[1]), kinds[0][0])
    # A rule with a comma changes every year; one without is what the last change says already.
    return [EVER, *starts], [first, *(kinds[i][0] for i in which)], "," in rule


def _file_bytes(name: str) -> bytes:
    load_zone(name)
    for folder in zoneinfo.TZPATH:
        path = Path(folder, name)
        if path.is_file():
            return path.read_bytes()
    # 10 ms to import, and rarely wanted.
    import importlib.resources

    return importlib.resources.files("tzdata").joinpath("zoneinfo", *name.split("/")).read_bytes()


def _extend(zone: zoneinfo.ZoneInfo, starts: list[int], offsets: list[int], horizon: int) -> None:
    """Add the changes after those in the file, found by asking `zone` every ten days and halving."""
    step = 10 * 86400

    def offset_at(instant: int) -> int:
        found = (_EPOCH + timedelta(seconds=instant)).astimezone(zone).utcoffset()
        assert found is not None
        return round(found.total_seconds())

    end = int(datetime(horizon + 1, 1, 1, tzinfo=UTC).timestamp())
    low = max(starts[-1], int(datetime(1970, 1, 1, tzinfo=UTC).timestamp()))
    before = offset_at(low)
    while low < end:
        high = low + step
        after = offset_at(high)
        if after != before:
            lower, upper = low, high
            while upper - lower > 1:
                middle = (lower + upper) // 2
                lower, upper = (middle, upper) if offset_at(middle) == before else (lower, middle)
            starts.append(upper)
            offsets.append(after)
        low, before = high, after


def _without_repeats(starts: list[int], offsets: list[int]) -> Changes:
    """Changes of daylight flags or names alone are left out."""
    kept = [0] + [i for i in range(1, len(starts)) if offsets[i] != offsets[i - 1]]
    return Changes([starts[i] for i in kept], [offsets[i] for i in kept])
