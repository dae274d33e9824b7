"""Mappings both ways against brute force."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.catalog.errors import PartitionMappingError, UsageError
from headwater.catalog.partitions.definition import InMemoryDynamicKeys, PartitionsContext, PartitionsDefinition
from headwater.catalog.partitions.dynamic import DynamicPartitionsDefinition
from headwater.catalog.partitions.links import Links
from headwater.catalog.partitions.mapping import (
    AllPartitionMapping,
    BusinessCalendarPartitionMapping,
    DimensionPartitionMapping,
    IdentityPartitionMapping,
    LastPartitionMapping,
    MultiPartitionMapping,
    MultiToSingleDimensionPartitionMapping,
    PartitionMapping,
    SpecificPartitionsPartitionMapping,
    StaticPartitionMapping,
    TimeWindowPartitionMapping,
    infer_mapping,
    resolve_mapping,
)
from headwater.catalog.partitions.multi import MultiPartitionsDefinition
from headwater.catalog.partitions.space import WindowPartitions, partitions_at
from headwater.catalog.partitions.static import StaticPartitionsDefinition
from headwater.catalog.partitions.time_window import (
    DailyPartitionsDefinition,
    HourlyPartitionsDefinition,
    MonthlyPartitionsDefinition,
    TimeWindowPartitionsDefinition,
    WeeklyPartitionsDefinition,
)
from tests.catalog.partitions.zones import ZONES, seconds

NOW = datetime(2024, 3, 12, 5, 30, tzinfo=UTC)
CONTEXT = PartitionsContext(NOW, InMemoryDynamicKeys({"customers": [f"c{i}" for i in range(7)], "none": []}))

Maybe = PartitionsDefinition | None


def links(mapping: PartitionMapping | None, down: Maybe, up: Maybe) -> Links:
    found = resolve_mapping(mapping, down, up)
    return found.links(partitions_at(down, CONTEXT), partitions_at(up, CONTEXT))


def check(found: Links, numbers: set[int]) -> list[set[int]]:
    """Everything that links tell agrees; what each downstream partition reads."""
    down, up = found.downstream_partitions, found.upstream_partitions
    reads: list[set[int]] = []
    incomplete: set[int] = set()
    for at in range(down.count):
        one = found.upstream(down.subset_of_ordinals([at]))
        reads.append(set(one.subset.ordinals().tolist()))
        assert (one.nonexistent > 0) == bool(one.incomplete)
        assert len(one.examples) == min(5, one.nonexistent) or one.nonexistent > 5 or len(one.examples) <= 5
        incomplete |= set(one.incomplete.ordinals().tolist())
    for at in range(up.count):
        back = found.downstream(up.subset_of_ordinals([at]))
        assert back.ordinals().tolist() == [i for i, one in enumerate(reads) if at in one]
    chosen = {number for number in numbers if number < down.count}
    many = found.upstream(down.subset_of_ordinals(list(chosen)))
    assert set(many.subset.ordinals().tolist()) == set().union(*(reads[i] for i in chosen))
    assert set(many.incomplete.ordinals().tolist()) == incomplete & chosen
    assert set(found.incomplete().ordinals().tolist()) == incomplete
    wanted = {number for number in numbers if number < up.count}
    affected = found.downstream(up.subset_of_ordinals(list(wanted)))
    assert set(affected.ordinals().tolist()) == {i for i, one in enumerate(reads) if one & wanted}
    values = (np.arange(up.count, dtype=np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    expected = [sum(int(values[i]) for i in one) % (1 << 64) for one in reads]
    assert found.sum(values).tolist() == expected
    assert found.counts().tolist() == [len(one) for one in reads]
    mask = np.array([i in wanted for i in range(up.count)], np.bool_)
    assert found.any(mask).tolist() == [bool(one & wanted) for one in reads]
    return reads


_KINDS = [
    (HourlyPartitionsDefinition, 30),
    (DailyPartitionsDefinition, 300),
    (WeeklyPartitionsDefinition, 1200),
    (MonthlyPartitionsDefinition, 4000),
]
_WEEKENDS = ["* * * * 0,6"]


@st.composite
def window_definitions(draw: st.DrawFn, zone: str) -> TimeWindowPartitionsDefinition:
    cls, hours = draw(st.sampled_from(_KINDS))
    start = NOW - timedelta(hours=draw(st.integers(0, hours)))
    end = start + timedelta(hours=draw(st.integers(1, hours))) if draw(st.booleans()) else None
    return cls(
        start,
        end_date=end,
        timezone=zone,
        minute_offset=draw(st.sampled_from([0, 0, 30])),
        end_offset=draw(st.sampled_from([0, 0, 1, -1])),
        exclusions=draw(st.sampled_from([None, None, _WEEKENDS if hours <= 300 else ["* * * 2,4,6 *"]])),
    )


@settings(max_examples=60)
@given(
    data=st.data(), offsets=st.sampled_from([(0, 0), (-1, 0), (-1, -1), (0, 2), (1, 1), (-3, 1)]), allow=st.booleans()
)
def test_windows_read_the_windows_they_overlap(data: st.DataObject, offsets: tuple[int, int], allow: bool) -> None:
    zone = data.draw(st.sampled_from(ZONES))
    down_def, up_def = data.draw(window_definitions(zone)), data.draw(window_definitions(zone))
    found = links(TimeWindowPartitionMapping(*offsets, allow), down_def, up_def)
    reads = check(found, data.draw(st.sets(st.integers(0, 60))))
    down, up = found.downstream_partitions, found.upstream_partitions
    assert isinstance(down, WindowPartitions)
    assert isinstance(up, WindowPartitions)
    # Nonexistent: windows of the upstream's schedule around what exists.
    around = np.concatenate((np.arange(-4000, 0), np.arange(up.count, up.count + 4000)))
    around_starts, around_ends = up.starts(around), up.ends(around)
    by_offset = np.where(around < 0, offsets[0] < 0, offsets[1] > 0)
    starts, ends = up.starts(range(up.count)), up.ends(range(up.count))
    for at, one in enumerate(reads):
        low, high = int(down.starts([at + offsets[0]])[0]), int(down.ends([at + offsets[1]])[0])
        assert one == set(np.flatnonzero((starts < high) & (ends > low)).tolist())
        own_low, own_high = int(down.starts([at])[0]), int(down.ends([at])[0])
        reached = (around_starts < high) & (around_ends > low)
        itself = (around_starts < own_high) & (around_ends > own_low)
        missing = 0 if allow else int((reached & (itself | ~by_offset)).sum())
        if not reached[0] and not reached[-1]:
            assert found.upstream(down.subset_of_ordinals([at])).nonexistent == missing


STATIC = StaticPartitionsDefinition(["a", "b", "c", "d"])
OTHER = StaticPartitionsDefinition(["d", "x", "b"])
DAILY = DailyPartitionsDefinition("2024-02-25")
ENDED = DailyPartitionsDefinition("2024-02-25", end_date="2024-03-10")
MONTHLY = MonthlyPartitionsDefinition("2024-01-01", end_offset=1)
CUSTOMERS = DynamicPartitionsDefinition("customers")
BY_DAY = MultiPartitionsDefinition({"day": DAILY, "kind": STATIC})
BY_MONTH = MultiPartitionsDefinition({"month": MONTHLY, "kind": OTHER, "customer": CUSTOMERS})
CASES: list[tuple[PartitionMapping | None, Maybe, Maybe]] = [
    (None, STATIC, STATIC),
    (None, STATIC, OTHER),
    (None, CUSTOMERS, CUSTOMERS),
    (None, DynamicPartitionsDefinition("none"), CUSTOMERS),
    (None, CUSTOMERS, DynamicPartitionsDefinition("none")),
    (None, None, None),
    (None, None, DAILY),
    (None, DAILY, None),
    (None, BY_DAY, None),
    (None, BY_DAY, BY_DAY),
    (None, STATIC, BY_DAY),
    (None, BY_DAY, STATIC),
    (None, BY_DAY, DAILY),
    (IdentityPartitionMapping(), DAILY, DailyPartitionsDefinition("2024-03-01", end_offset=1)),
    (IdentityPartitionMapping(), DAILY, MONTHLY),
    (LastPartitionMapping(), STATIC, DAILY),
    (LastPartitionMapping(), STATIC, DynamicPartitionsDefinition("none")),
    (LastPartitionMapping(), None, CUSTOMERS),
    (AllPartitionMapping(), STATIC, BY_DAY),
    (SpecificPartitionsPartitionMapping(["d", "a"]), CUSTOMERS, STATIC),
    (SpecificPartitionsPartitionMapping(["c3", "gone"]), None, CUSTOMERS),
    (StaticPartitionMapping({"a": "d", "b": {"d", "x"}, "c": "x"}), OTHER, STATIC),
    (MultiToSingleDimensionPartitionMapping("day"), MONTHLY, BY_DAY),
    (MultiToSingleDimensionPartitionMapping("day", TimeWindowPartitionMapping(-1, -1)), DAILY, BY_DAY),
    (MultiToSingleDimensionPartitionMapping("month"), BY_MONTH, DAILY),
    (MultiToSingleDimensionPartitionMapping("customer", AllPartitionMapping()), BY_MONTH, STATIC),
    (MultiPartitionMapping({"day": DimensionPartitionMapping("month")}), BY_MONTH, BY_DAY),
    (
        MultiPartitionMapping({"kind": DimensionPartitionMapping("kind"), "day": DimensionPartitionMapping("month")}),
        BY_MONTH,
        BY_DAY,
    ),
    (
        MultiPartitionMapping(
            {
                "month": DimensionPartitionMapping("day"),
                "customer": DimensionPartitionMapping("kind", LastPartitionMapping()),
            }
        ),
        BY_DAY,
        BY_MONTH,
    ),
    (MultiPartitionMapping({}), BY_DAY, BY_MONTH),
    (
        MultiPartitionMapping(
            {
                "day": DimensionPartitionMapping("day", TimeWindowPartitionMapping(-1, -1)),
                "kind": DimensionPartitionMapping("kind"),
            }
        ),
        BY_DAY,
        BY_DAY,
    ),
    (BusinessCalendarPartitionMapping(-1, -1, holidays=["2024-03-01"]), DAILY, DAILY),
    (BusinessCalendarPartitionMapping(0, 0), WeeklyPartitionsDefinition("2024-02-25"), DAILY),
    (BusinessCalendarPartitionMapping(-1, 1), DAILY, HourlyPartitionsDefinition("2024-03-06")),
]


@settings(max_examples=1)
@pytest.mark.parametrize(("mapping", "down", "up"), CASES)
@given(numbers=st.sets(st.integers(0, 60)))
def test_both_ways_agree(mapping: PartitionMapping | None, down: Maybe, up: Maybe, numbers: set[int]) -> None:
    found = links(mapping, down, up)
    check(found, set())
    check(found, {0, 1, 5, 6, 7, 20, 30, 31})


def test_what_is_inferred() -> None:
    for down, up, expected in (
        (None, None, AllPartitionMapping),
        (None, DAILY, AllPartitionMapping),
        (BY_DAY, None, AllPartitionMapping),
        (DAILY, BY_DAY, MultiToSingleDimensionPartitionMapping),
        (BY_DAY, STATIC, MultiToSingleDimensionPartitionMapping),
        (DAILY, DAILY, TimeWindowPartitionMapping),
        (MONTHLY, DAILY, TimeWindowPartitionMapping),
        (STATIC, DAILY, IdentityPartitionMapping),
        (STATIC, CUSTOMERS, IdentityPartitionMapping),
        (BY_DAY, BY_DAY, IdentityPartitionMapping),
        (MONTHLY, BY_DAY, IdentityPartitionMapping),
        (STATIC, MultiPartitionsDefinition({"a": STATIC, "b": STATIC}), IdentityPartitionMapping),
    ):
        assert type(infer_mapping(down, up)) is expected


def told(mapping: PartitionMapping, down: PartitionsDefinition, up: PartitionsDefinition, key: str) -> tuple[Any, ...]:
    found = links(mapping, down, up)
    one = found.upstream(found.downstream_partitions.subset([key]))
    return one.subset.keys(), one.nonexistent, one.examples


def test_offsets_and_bounds() -> None:
    yesterday = TimeWindowPartitionMapping(-1, -1)
    assert told(yesterday, DAILY, DAILY, "2024-02-25") == ([], 0, ())
    assert told(yesterday, DAILY, DAILY, "2024-03-02") == (["2024-03-01"], 0, ())
    assert told(TimeWindowPartitionMapping(-1), DAILY, DAILY, "2024-02-25") == (["2024-02-25"], 0, ())
    assert told(TimeWindowPartitionMapping(0, 1), DAILY, DAILY, "2024-03-11") == (["2024-03-11"], 0, ())
    # An upstream that has more history.
    assert told(yesterday, DAILY, DailyPartitionsDefinition("2024-01-01"), "2024-02-25") == (["2024-02-24"], 0, ())
    hourly = HourlyPartitionsDefinition("2024-02-25")
    keys, missing, _ = told(TimeWindowPartitionMapping(), DAILY, hourly, "2024-03-10")
    assert (len(keys), missing) == (24, 0)
    # Today's daily window is not over, whatever the offset adds before it.
    assert told(TimeWindowPartitionMapping(), hourly, DAILY, "2024-03-12-03:00") == ([], 1, ("2024-03-12",))
    keys, missing, examples = told(TimeWindowPartitionMapping(-24), hourly, DAILY, "2024-03-12-03:00")
    assert (keys, missing, examples) == (["2024-03-11"], 1, ("2024-03-12",))
    assert told(TimeWindowPartitionMapping(0, 0, True), hourly, DAILY, "2024-03-12-03:00") == ([], 0, ())
    weekly = WeeklyPartitionsDefinition("2024-02-18", timezone="America/New_York")
    daily = DailyPartitionsDefinition("2024-02-23", timezone="America/New_York")
    keys, missing, examples = told(TimeWindowPartitionMapping(), weekly, daily, "2024-02-18")
    assert (keys, missing) == (["2024-02-23", "2024-02-24"], 5)
    assert examples == ("2024-02-18", "2024-02-19", "2024-02-20", "2024-02-21", "2024-02-22")


def test_business_days() -> None:
    before = BusinessCalendarPartitionMapping(-1, -1, holidays=[date(2024, 2, 29)])
    assert told(before, DAILY, DAILY, "2024-03-04")[0] == ["2024-03-01"]  # Monday
    assert told(before, DAILY, DAILY, "2024-03-01")[0] == ["2024-02-28"]  # after a holiday
    assert told(before, DAILY, DAILY, "2024-03-03")[0] == ["2024-03-01"]  # Sunday
    assert told(before, DAILY, DAILY, "2024-02-25") == ([], 0, ())
    assert told(BusinessCalendarPartitionMapping(), DAILY, DAILY, "2024-03-03") == ([], 0, ())
    assert told(BusinessCalendarPartitionMapping(-1, 1), DAILY, DAILY, "2024-03-04")[0] == [
        "2024-03-01",
        "2024-03-04",
        "2024-03-05",
    ]
    weekly = WeeklyPartitionsDefinition("2024-02-25")
    assert told(BusinessCalendarPartitionMapping(), weekly, DAILY, "2024-03-03")[0] == [
        f"2024-03-{day:02d}" for day in range(4, 9)
    ]
    late = DailyPartitionsDefinition("2024-03-07")
    assert told(BusinessCalendarPartitionMapping(), weekly, late, "2024-03-03") == (
        ["2024-03-07", "2024-03-08"],
        3,
        ("2024-03-04", "2024-03-05", "2024-03-06"),
    )
    gulf = BusinessCalendarPartitionMapping(-1, -1, working_days="1111001")
    assert told(gulf, DAILY, DAILY, "2024-03-10")[0] == ["2024-03-07"]


BAD: list[tuple[PartitionMapping | None, Maybe, Maybe, str]] = [
    (
        None,
        DAILY,
        DailyPartitionsDefinition("2024-01-01", timezone="Europe/London"),
        "time zones are Europe/London and UTC",
    ),
    (TimeWindowPartitionMapping(), DAILY, STATIC, "windows of time"),
    (TimeWindowPartitionMapping(), DAILY, None, "windows of time"),
    (BusinessCalendarPartitionMapping(), None, DAILY, "windows of time"),
    (IdentityPartitionMapping(), None, DAILY, "only one of them is partitioned"),
    (None, MONTHLY, BY_DAY, "only one of them has several dimensions"),
    (None, BY_DAY, BY_MONTH, "dimensions are not the same"),
    (None, STATIC, StaticPartitionsDefinition(["x", "y"]), "no key in common"),
    (None, STATIC, DAILY, "no key in common"),
    (None, DAILY, StaticPartitionsDefinition(["2024-3-1", "2023-01-01"]), "no key in common"),
    (LastPartitionMapping(), DAILY, None, "no partitions"),
    (LastPartitionMapping(), DAILY, BY_DAY, "no last one"),
    (SpecificPartitionsPartitionMapping(["a", "z"]), DAILY, STATIC, "'z'"),
    (SpecificPartitionsPartitionMapping(["a"]), DAILY, None, "no partitions"),
    (SpecificPartitionsPartitionMapping(["2024-03-01", "March"]), None, DAILY, "'March'"),
    (SpecificPartitionsPartitionMapping(["2023-01-01"]), None, DAILY, "'2023-01-01'"),
    (SpecificPartitionsPartitionMapping(["2024-04-01"]), None, ENDED, "'2024-04-01'"),
    (StaticPartitionMapping({"a": "z"}), OTHER, STATIC, "no downstream partition 'z'"),
    (StaticPartitionMapping({"z": "x"}), OTHER, STATIC, "no upstream partition 'z'"),
    (StaticPartitionMapping({"a": "x"}), DAILY, STATIC, "static"),
    (MultiToSingleDimensionPartitionMapping(), MONTHLY, BY_DAY, "not clear"),
    (MultiToSingleDimensionPartitionMapping("dya"), DAILY, BY_DAY, "no dimension 'dya'"),
    (MultiToSingleDimensionPartitionMapping(), BY_DAY, BY_DAY, "both have several"),
    (MultiToSingleDimensionPartitionMapping(), DAILY, STATIC, "several dimensions"),
    (MultiPartitionMapping({}), DAILY, BY_DAY, "several dimensions"),
    (MultiPartitionMapping({"x": DimensionPartitionMapping("day")}), BY_DAY, BY_DAY, "upstream dimension 'x'"),
    (MultiPartitionMapping({"day": DimensionPartitionMapping("x")}), BY_DAY, BY_DAY, "downstream dimension 'x'"),
    (
        MultiPartitionMapping(
            {"day": DimensionPartitionMapping("day"), "kind": DimensionPartitionMapping("day", AllPartitionMapping())}
        ),
        BY_DAY,
        BY_DAY,
        "used twice",
    ),
    (
        MultiPartitionMapping({"kind": DimensionPartitionMapping("day", TimeWindowPartitionMapping())}),
        BY_DAY,
        BY_DAY,
        "windows of time",
    ),
]


@pytest.mark.parametrize(("mapping", "down", "up", "reason"), BAD)
def test_what_cannot_be_mapped_is_told(mapping: PartitionMapping | None, down: Maybe, up: Maybe, reason: str) -> None:
    with pytest.raises(PartitionMappingError, match=reason) as caught:
        resolve_mapping(mapping, down, up, downstream_name="report", upstream_name="facts")
    message = caught.value.message
    assert message.startswith("`report` cannot read `facts`.")
    for one in (down, up):
        # A mapping inside a dimension names the dimensions' definitions.
        assert one is None or one.describe()[:40] in message or isinstance(mapping, MultiPartitionMapping)
    assert caught.value.remedy


def test_an_asset_may_read_only_its_earlier_windows() -> None:
    def resolve(mapping: PartitionMapping | None, one: PartitionsDefinition) -> PartitionMapping:
        return resolve_mapping(mapping, one, one, downstream_name="balance", upstream_name="balance")

    assert resolve(TimeWindowPartitionMapping(-1, -1), DAILY)
    assert resolve(BusinessCalendarPartitionMapping(-2, -1), DAILY)
    assert resolve(
        MultiPartitionMapping({"day": DimensionPartitionMapping("day", TimeWindowPartitionMapping(-1, -1))}), BY_DAY
    )
    for mapping, one in ((None, DAILY), (TimeWindowPartitionMapping(-1), DAILY), (None, STATIC), (None, BY_DAY)):
        with pytest.raises(PartitionMappingError, match="read themselves"):
            resolve(mapping, one)


def test_sets_of_others_are_refused() -> None:
    found = links(AllPartitionMapping(), DAILY, STATIC)
    with pytest.raises(UsageError, match="other partitions"):
        found.upstream(STATIC.at(CONTEXT).all())
    with pytest.raises(UsageError, match="other partitions"):
        found.downstream(DAILY.at(CONTEXT).all())
    with pytest.raises(UsageError, match="resolve_mapping"):
        TimeWindowPartitionMapping().links(STATIC.at(CONTEXT), DAILY.at(CONTEXT))


def test_a_million_windows_map_by_their_ends() -> None:
    minutes = TimeWindowPartitionsDefinition("* * * * *", "2020-01-01", timezone="Europe/London")
    days = DailyPartitionsDefinition("2020-01-01", timezone="Europe/London")
    found = links(None, days, minutes)
    down, up = found.downstream_partitions, found.upstream_partitions
    all_of_it = found.upstream(down.all())
    assert isinstance(up, WindowPartitions)
    assert all_of_it.subset == up.overlapping(datetime(2020, 1, 1, tzinfo=UTC), datetime(2024, 3, 12, tzinfo=UTC))
    assert (
        len(all_of_it.subset)
        == (seconds(datetime(2024, 3, 12, tzinfo=UTC)) - seconds(datetime(2020, 1, 1, tzinfo=UTC))) // 60
    )
    assert found.downstream(all_of_it.subset) == down.all()
    assert int(found.counts().sum()) == len(all_of_it.subset)


def test_keys_that_may_come_to_exist() -> None:
    """What is not there yet is said when it is asked for, not when definitions are loaded."""
    links(SpecificPartitionsPartitionMapping(["2030-01-01"]), None, DAILY)
    links(None, StaticPartitionsDefinition(["2024-03-01", "latest"]), DAILY)


def test_every_key_may_be_one() -> None:
    for zone in ZONES:
        for of_zone in (
            HourlyPartitionsDefinition("2024-01-01", end_date="2025-01-01", timezone=zone),
            DailyPartitionsDefinition("2011-12-30", end_date="2012-01-02", timezone=zone),
            DailyPartitionsDefinition("2024-01-01", end_date="2024-01-09", timezone=zone, fmt="%d.%m.%Y"),
            TimeWindowPartitionsDefinition(
                "*/7 * * * *", "2024-11-01", end="2024-11-09", timezone=zone, fmt="%Y%m%d%H%M"
            ),
        ):
            keys = partitions_at(of_zone, PartitionsContext(datetime(2025, 3, 1, tzinfo=UTC))).keys()
            assert keys
            assert all(map(of_zone.may_have, keys))
