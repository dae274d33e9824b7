"""Keys, ordinals and sets against plain Python."""

import json
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.catalog.errors import UnknownPartitionError, UsageError
from headwater.catalog.partitions import intervals
from headwater.catalog.partitions.definition import InMemoryDynamicKeys, PartitionsContext, PartitionsDefinition
from headwater.catalog.partitions.dynamic import DynamicPartitionsDefinition
from headwater.catalog.partitions.multi import MultiPartitionsDefinition
from headwater.catalog.partitions.series import int64s
from headwater.catalog.partitions.space import MultiPartitions, Partitions, partitions_at
from headwater.catalog.partitions.static import StaticPartitionsDefinition
from headwater.catalog.partitions.subset import PartitionSubset
from headwater.catalog.partitions.time_window import (
    DailyPartitionsDefinition,
    HourlyPartitionsDefinition,
    MonthlyPartitionsDefinition,
    TimeWindowPartitionsDefinition,
    WeeklyPartitionsDefinition,
)

NOW = datetime(2024, 3, 12, 5, 30, tzinfo=UTC)
CUSTOMERS = InMemoryDynamicKeys({"customers": [f"c{i}" for i in range(30)]})
CONTEXT = PartitionsContext(NOW, CUSTOMERS)
MULTI = MultiPartitionsDefinition(
    {
        "b": StaticPartitionsDefinition(["x", "y|", "z"]),
        "a": DynamicPartitionsDefinition("customers"),
        "c": DailyPartitionsDefinition("2024-03-01", end_date="2024-03-06"),
    }
)
SPACES: list[PartitionsDefinition | None] = [
    StaticPartitionsDefinition([f"k{i}" for i in range(40)]),
    StaticPartitionsDefinition([]),
    DynamicPartitionsDefinition("customers"),
    DailyPartitionsDefinition("2024-02-01", timezone="America/New_York"),
    DailyPartitionsDefinition("2024-02-01", exclusions=["0 0 * * 0,6"]),
    MULTI,
    None,
]
_NUMBERS = st.sets(st.integers(0, 60))


@given(_NUMBERS, _NUMBERS)
def test_intervals_are_sets(one: set[int], other: set[int]) -> None:
    a, b = intervals.of_numbers(int64s(list(one))), intervals.of_numbers(int64s(list(other)))
    for found, expected in (
        (a, one),
        (intervals.union(a, b), one | other),
        (intervals.intersection(a, b), one & other),
        (intervals.difference(a, b), one - other),
        (intervals.complement(a, 61), set(range(61)) - one),
        (intervals.of_mask(intervals.mask(a, 61)), one),
    ):
        assert intervals.numbers(found).tolist() == sorted(expected)
        assert found.total == len(expected)
        assert (found.starts[1:] > found.ends[:-1]).all()
        assert (found.ends > found.starts).all()
    assert intervals.contains(a, np.arange(-1, 63)).tolist() == [n in one for n in range(-1, 63)]
    assert intervals.nth(a, np.arange(len(one))).tolist() == sorted(one)
    assert intervals.rank(a, np.arange(-1, 63)).tolist() == [sum(m < n for m in one) for n in range(-1, 63)]


@settings(max_examples=150)
@given(definition=st.sampled_from(SPACES), one=_NUMBERS, other=_NUMBERS, page=st.integers(0, 20))
def test_subsets_are_sets_of_keys(
    definition: PartitionsDefinition | None, one: set[int], other: set[int], page: int
) -> None:
    found = partitions_at(definition, CONTEXT)
    keys = found.keys()
    assert len(keys) == len(found) == len(set(keys))
    a, b = found.subset_of_ordinals(list(one)), found.subset_of_ordinals(list(other))
    plain_a, plain_b = ({keys[i] for i in numbers if i < len(keys)} for numbers in (one, other))

    def ordered(plain: set[str]) -> list[str]:
        return [key for key in keys if key in plain]

    assert (a | b).keys() == ordered(plain_a | plain_b)
    assert (a & b).keys() == ordered(plain_a & plain_b)
    assert (a - b).keys() == ordered(plain_a - plain_b)
    assert list(~a) == ordered(set(keys) - plain_a)
    assert a.keys(page, page + 3) == ordered(plain_a)[page : page + 3]
    assert (a == b) == (plain_a == plain_b)
    assert bool(a) == bool(plain_a)
    assert found.subset(plain_a) == a
    assert [key in a for key in keys] == [key in plain_a for key in keys]
    assert a.positions(a.ordinals()).tolist() == list(range(len(a)))
    assert [key for one in a.ranges() for key in found.subset_of_range(one)] == ordered(plain_a)
    assert sum(len(found.parse_range(str(one))) for one in a.ranges()) == len(a)
    assert found.read_subset(json.loads(json.dumps(a.to_json()))) == (a, 0)
    assert a.describe().endswith(f"({len(a):,})")


@settings(max_examples=100)
@given(numbers=st.sets(st.integers(0, 449)))
def test_boxes_are_a_partition_of_the_set(numbers: set[int]) -> None:
    found = MULTI.at(CONTEXT)
    assert isinstance(found, MultiPartitions)
    assert found.shape == (5, 30, 3)
    subset = found.subset_of_ordinals(list(numbers))
    boxes = subset.boxes()
    assert sum(len(box["a"]) * len(box["b"]) * len(box["c"]) for box in boxes) == len(subset)
    again = found.none()
    for box in boxes:
        again |= found.product(**box)
    assert again == subset


def test_boxes_are_few() -> None:
    found = MULTI.at(CONTEXT)
    assert isinstance(found, MultiPartitions)
    one = found.product(
        b=found.dimensions["b"].subset(["x", "z"]), c=found.dimensions["c"].range("2024-03-02", "2024-03-04")
    )
    assert len(one) == 2 * 30 * 3
    assert len(one.boxes()) == 1
    assert str(one) == "c 2024-03-02..2024-03-04 × a c0..c29 × b x, z (180)"
    assert one.keys(0, 2) == ["c0|x|2024-03-02", "c0|z|2024-03-02"]
    assert found.ordinals(["c0|y%7C|2024-03-02", "c0|y|2024-03-02", "c0|x", "", "c0|%79%7C|2024-03-02"]).tolist() == [
        91,
        -1,
        -1,
        -1,
        -1,
    ]
    with pytest.raises(UsageError, match="dimension 'd'"):
        found.product(d=found.dimensions["b"].all())


FORMATS = [
    (HourlyPartitionsDefinition, "%Y-%m-%d-%H:%M"),
    (HourlyPartitionsDefinition, "%d.%m.%Y um %H Uhr"),
    (HourlyPartitionsDefinition, "%Y%j%H"),
    (DailyPartitionsDefinition, "%Y-%m-%d"),
    (DailyPartitionsDefinition, "day=%Y/%m/%d"),
    (DailyPartitionsDefinition, "%d %m %Y"),
    (DailyPartitionsDefinition, "%Y年%m月%d日"),
    (DailyPartitionsDefinition, "%G-W%V-%u"),
    (DailyPartitionsDefinition, "%Y-%m-%d %%"),
    (WeeklyPartitionsDefinition, "%G-W%V"),
    (WeeklyPartitionsDefinition, "%Y-%U"),
    (WeeklyPartitionsDefinition, "%Y week %W"),
    (MonthlyPartitionsDefinition, "%Y-%m"),
    (MonthlyPartitionsDefinition, "%m of %Y"),
]


@pytest.mark.parametrize(("cls", "fmt"), FORMATS)
@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Africa/Cairo"])
def test_keys_in_any_format(cls: type[DailyPartitionsDefinition], fmt: str, zone: str) -> None:
    for minute in (0, 45):
        start = datetime(2022, 12, 20, tzinfo=UTC)
        definition = cls(
            start,
            minute_offset=minute,
            timezone=zone,
            fmt=fmt,
            end_date=start + timedelta(days=200 if "%H" in fmt else 900),
        )
        found = definition.at(CONTEXT)
        keys = found.keys()
        assert len(set(keys)) == len(keys) > 10
        assert found.ordinals(keys).tolist() == list(range(len(keys)))
        assert found.ordinals(keys[::-3]).tolist() == list(range(len(keys)))[::-3]
        for key in keys[:3]:
            assert found.ordinals([key + " ", " " + key, key + "0", key[:-1], key.lower() + "é"]).tolist() == [-1] * 5


@settings(max_examples=200)
@given(st.text(st.sampled_from("0123456789-+:é٣ "), max_size=18))
def test_only_the_written_form_is_a_key(text: str) -> None:
    for cls, fmt in FORMATS[:4]:
        found = cls("2024-01-01", fmt=fmt).at(CONTEXT)
        at = found.find(text)
        assert at is None or found.key(at) == text
    daily = DailyPartitionsDefinition("2024-01-01").at(CONTEXT)
    assert (
        daily.ordinals(["2024-1-5", "2024-01-05 ", "2024-01-32", "2024-13-01", "2024-02-30", "0000-01-01"]).tolist()
        == [-1] * 6
    )


def test_unknown_keys_are_told() -> None:
    daily = DailyPartitionsDefinition("2024-01-01").at(CONTEXT)
    for key, remedy in (
        ("2023-12-31", "before the first"),
        ("2024-03-12", "its window ends at 2024-03-13T00:00:00"),
        ("9999-12-31", "from `2024-01-01` to `2024-03-11`"),
        ("yesterday", "from `2024-01-01` to `2024-03-11`"),
    ):
        with pytest.raises(UnknownPartitionError, match=remedy):
            daily.ordinal(key)
    with pytest.raises(UnknownPartitionError, match="Did you mean `k1`"):
        StaticPartitionsDefinition(["k1", "other"]).at(CONTEXT).subset(["other", "k1 "])
    with pytest.raises(UnknownPartitionError, match="b: There are 3, from `x` to `z`"):
        MULTI.at(CONTEXT).ordinal("c1|w|2024-03-02")
    with pytest.raises(UnknownPartitionError, match="Write it as a"):
        MULTI.at(CONTEXT).ordinal("c1|w")
    with pytest.raises(UnknownPartitionError, match="first window ends"):
        DailyPartitionsDefinition("2025-01-01").at(CONTEXT).ordinal("2025-01-01")
    ended = DailyPartitionsDefinition("2023-01-01", end_date="2023-02-01").at(CONTEXT)
    with pytest.raises(UnknownPartitionError, match="definition ends at 2023-02-01"):
        ended.ordinal("2023-02-01")
    with pytest.raises(UnknownPartitionError):
        daily.key(10_000)
    with pytest.raises(UsageError, match="runs backwards"):
        daily.range("2024-01-05", "2024-01-04")
    with pytest.raises(UnknownPartitionError, match="2024-01-0x"):
        daily.parse_range("2024-01-01..2024-01-0x")
    with pytest.raises(UsageError, match="different partitions"):
        assert daily.all() | ended.all()
    with pytest.raises(UsageError, match="no set of partitions"):
        daily.read_subset({"count": 1, "keys": ["a"]})


def test_a_set_means_the_same_when_its_definition_has_grown() -> None:
    def grown(
        definition: PartitionsDefinition, subset: PartitionSubset, moment: datetime = NOW
    ) -> tuple[Partitions, PartitionSubset, int]:
        space = definition.at(PartitionsContext(moment, InMemoryDynamicKeys({"customers": ["new", "c3", "c1"]})))
        return space, *space.read_subset(json.loads(json.dumps(subset.to_json())))

    daily = DailyPartitionsDefinition("2024-01-01").at(CONTEXT).range("2024-02-01", "2024-02-10")
    _, same, lost = grown(DailyPartitionsDefinition("2023-01-01"), daily, NOW + timedelta(days=9))
    assert (same.keys(), lost) == (daily.keys(), 0)
    _, some, lost = grown(DailyPartitionsDefinition("2024-02-05"), daily)
    assert (some.keys(), lost) == (daily.keys()[4:], 4)
    # Of an hourly set only whole days are days.
    hours = HourlyPartitionsDefinition("2024-01-01").at(CONTEXT).range("2024-02-01-05:00", "2024-02-04-04:00")
    assert grown(DailyPartitionsDefinition("2024-01-01"), hours)[1].keys() == ["2024-02-02", "2024-02-03"]
    customers = DynamicPartitionsDefinition("customers").at(CONTEXT).subset(["c1", "c2", "c3"])
    _, some, lost = grown(DynamicPartitionsDefinition("customers"), customers)
    assert (some.keys(), lost) == (["c3", "c1"], 1)
    several = MULTI.at(CONTEXT).subset(["c1|x|2024-03-02", "c5|x|2024-03-02", "c3|z|2024-03-04"])
    _, some, lost = grown(MULTI, several)
    assert (some.keys(), lost) == (["c1|x|2024-03-02", "c3|z|2024-03-04"], 1)


def test_a_set_of_a_million_windows_is_a_line() -> None:
    found = TimeWindowPartitionsDefinition("* * * * *", "2022-01-01", timezone="Europe/London").at(CONTEXT)
    assert len(found) > 1_000_000
    assert len(json.dumps(found.all().to_json())) < 100
    half = found.all() - found.range("2022-10-30-01:00", "2022-10-30-01:00+0000")
    assert len(half) == len(found) - 61
    assert str(half) == f"2022-01-01-00:00..2022-10-30-00:59, 2022-10-30-01:01+0000..2024-03-12-05:29 ({len(half):,})"
