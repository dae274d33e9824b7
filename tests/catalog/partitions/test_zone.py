import random
import zoneinfo
from datetime import timedelta

import pytest

from headwater.catalog.errors import TimeZoneError
from headwater.catalog.partitions.series import WallClock, int64s
from headwater.catalog.partitions.zone import canonical_zone, find_changes
from tests.catalog.partitions.zones import EPOCH, ZONES

_SOME = sorted({*ZONES, *random.Random(1).sample(sorted(zoneinfo.available_timezones()), 40)})


@pytest.mark.parametrize("name", _SOME)
def test_offsets_are_those_of_zoneinfo(name: str) -> None:
    zone = zoneinfo.ZoneInfo(name)
    changes = find_changes(name)
    chance = random.Random(name)
    instants = [chance.randrange(-3 * 10**9, 4 * 10**9) for _ in range(20)]
    instants += [start + step for start in changes.starts[1:] for step in (-1, 0, 1)]
    local, offsets, repeated = WallClock(changes).to_local(int64s(instants))
    back = WallClock(changes).to_instants(local)
    for i, instant in enumerate(instants):
        moment = (EPOCH + timedelta(seconds=instant)).astimezone(zone)
        assert moment.utcoffset() == timedelta(seconds=int(offsets[i]))
        assert moment.fold == repeated[i]
        assert repeated[i] or back[i] == instant
        assert changes.to_instant(int(local[i])) == back[i]
        assert changes.to_local(instant) == (local[i], offsets[i], repeated[i])


def test_offsets_go_on_after_the_rules_in_the_file() -> None:
    zone = zoneinfo.ZoneInfo("America/New_York")
    changes = find_changes("America/New_York", 2150)
    late = [one for one in changes.starts if one > 5_500_000_000]
    assert len(late) > 10
    for instant in (one + step for one in late for step in (-1, 0)):
        moment = (EPOCH + timedelta(seconds=instant)).astimezone(zone)
        assert moment.utcoffset() == timedelta(seconds=changes.to_local(instant)[1])


@pytest.mark.parametrize(
    "name", ["Europe/Lodnon", "", "../../etc/passwd", "/etc/localtime", "Europe", "a\0b", "UTC ", "x" * 300, 3, None]
)
def test_a_zone_that_is_none_is_refused(name: object) -> None:
    with pytest.raises(TimeZoneError):
        canonical_zone(name)


def test_a_mistyped_zone_is_told() -> None:
    with pytest.raises(TimeZoneError, match="Europe/London"):
        canonical_zone("Europe/Lodnon")


def test_all_names_of_utc_are_one() -> None:
    assert canonical_zone("Etc/UTC") == canonical_zone("UTC") == "UTC"
