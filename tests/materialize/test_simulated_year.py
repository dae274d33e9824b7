"""A year goes by: whoever asks now and then which partitions there are sees every window once."""

from bisect import bisect_right
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import takewhile
from zoneinfo import ZoneInfo

import pytest

from headwater import AssetKey, DailyPartitionsDefinition, Definitions, HourlyPartitionsDefinition, asset
from headwater.catalog.definitions.asset import AssetsDefinition
from headwater.catalog.instance import Instance
from headwater.catalog.partitions.space import WindowPartitions
from headwater.materialize.reader import Reader

#: A zone, and a year in which something happens to its clocks.
YEARS = [
    ("America/New_York", 2024),
    ("Europe/London", 2024),
    ("Australia/Lord_Howe", 2024),
    ("Pacific/Apia", 2011),
    ("Africa/Cairo", 2024),
    ("America/Sao_Paulo", 2018),
    ("Asia/Kolkata", 2024),
]
KINDS = {"hourly": HourlyPartitionsDefinition, "daily": DailyPartitionsDefinition}
OFFSETS = (-1, 0, 1)
HALF_HOUR = timedelta(minutes=30)


def boundaries(clocks: dict[datetime, datetime]) -> dict[str, list[datetime]]:
    """Where hours and days begin: whenever clocks show a full hour; when they show a date for the first time."""
    hours = [moment for moment, local in clocks.items() if local.minute == 0]
    days: dict[date, datetime] = {}
    for moment, local in clocks.items():
        days.setdefault(local.date(), moment)
    return {"hourly": hours, "daily": list(days.values())}


def visits(clocks: dict[datetime, datetime]) -> Iterator[datetime]:
    """When somebody looks: every half an hour in the days around a change of clocks, otherwise every now and then."""
    offsets = {moment: local.utcoffset() for moment, local in clocks.items()}
    changes = [moment for moment, offset in offsets.items() if offsets.get(moment - HALF_HOUR, offset) != offset]
    due = next(iter(clocks))
    for moment in clocks:
        if moment >= due or any(abs(moment - change) < timedelta(hours=15) for change in changes):
            due = moment + timedelta(hours=41, minutes=30)
            yield moment


def key_of(kind: str, moment: datetime, zone: ZoneInfo) -> str:
    """How a window is written, apart from the offset that tells the second of two hours from the first."""
    return moment.astimezone(zone).strftime("%Y-%m-%d-%H:%M" if kind == "hourly" else "%Y-%m-%d")


def of_kind(kind: str, offset: int, start: datetime, zone: str) -> AssetsDefinition:
    @asset(
        name=f"{kind}/{offset}", code_version="1", partitions_def=KINDS[kind](start, timezone=zone, end_offset=offset)
    )
    def compute() -> None: ...

    return compute


@pytest.mark.parametrize(("name", "year"), YEARS)
def test_every_window_appears_once(name: str, year: int) -> None:
    zone = ZoneInfo(name)
    start = datetime(year, 1, 1, tzinfo=zone)
    first, last = start.astimezone(UTC), datetime(year + 1, 1, 1, tzinfo=zone).astimezone(UTC)
    # What clocks show every half an hour; no zone of the list does anything in between.
    moments = [first + at * HALF_HOUR for at in range((last - first + timedelta(days=3)) // HALF_HOUR)]
    clocks = {moment: moment.astimezone(zone) for moment in moments}
    expected = boundaries(clocks)
    seconds = {kind: [int(one.timestamp()) for one in starts] for kind, starts in expected.items()}
    names = {(kind, offset): AssetKey(f"{kind}/{offset}") for kind in KINDS for offset in OFFSETS}
    graph = Definitions([of_kind(kind, offset, start, name) for kind, offset in names]).graph
    seen: dict[tuple[str, int], list[str]] = {one: [] for one in names}
    with Instance.ephemeral() as instance:
        for visit, moment in enumerate([*takewhile(lambda one: one < last, visits(clocks)), last]):
            reader = Reader(graph, instance.catalog, moment)
            for (kind, offset), key in names.items():
                found, known, starts = reader.partitions(key), seen[kind, offset], expected[kind]
                assert isinstance(found, WindowPartitions)
                assert found.count == max(0, bisect_right(starts, moment) - 1 + offset)
                assert not known or found.key(len(known) - 1) == known[-1]
                new = range(len(known), found.count)
                known += found.keys(new.start, new.stop)
                assert found.starts(new).tolist() == seconds[kind][new.start : new.stop]
                assert found.ends(new).tolist() == seconds[kind][new.start + 1 : new.stop + 1]
            if visit % 40 == 0:
                status = reader.partition_status(names["hourly", 0])
                assert int(status.missing.sum()) == len(seen["hourly", 0])
    for (kind, offset), known in seen.items():
        assert len(set(known)) == len(known)
        written: set[str] = set()
        for text, moment in zip(known, expected[kind], strict=False):
            plain = key_of(kind, moment, zone)
            assert text == plain if plain not in written else text.startswith(plain)
            written.add(plain)
        assert len(known) == bisect_right(expected[kind], last) - 1 + offset
