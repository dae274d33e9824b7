"""Definitions and mappings as values: JSON, equality, bad input."""

import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.catalog.errors import CronError, DefinitionError, HeadwaterError, InvalidKeyError, UsageError
from headwater.catalog.partitions.definition import PartitionsContext, PartitionsDefinition, definition_from_json
from headwater.catalog.partitions.dynamic import DynamicPartitionsDefinition
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
    mapping_from_json,
)
from headwater.catalog.partitions.multi import (
    MultiPartitionKey,
    MultiPartitionsDefinition,
    parse_values,
    print_values,
)
from headwater.catalog.partitions.static import StaticPartitionsDefinition
from headwater.catalog.partitions.time_window import (
    DailyPartitionsDefinition,
    HourlyPartitionsDefinition,
    MonthlyPartitionsDefinition,
    TimeWindowPartitionsDefinition,
    WeeklyPartitionsDefinition,
)
from tests.corpus import HOSTILE

NEW_YORK = "America/New_York"
DEFINITIONS: list[PartitionsDefinition] = [
    StaticPartitionsDefinition(["a", "b|c", "%7C"]),
    StaticPartitionsDefinition([]),
    DynamicPartitionsDefinition("customers"),
    DailyPartitionsDefinition("2013-01-01"),
    DailyPartitionsDefinition("2013-01-01", end_date="2014-01-01", timezone=NEW_YORK, hour_offset=3, end_offset=1),
    HourlyPartitionsDefinition("2013-01-01-00:00", minute_offset=30),
    WeeklyPartitionsDefinition("2013-01-01", day_offset=1, fmt="%G-W%V"),
    MonthlyPartitionsDefinition("2013-01-01", fmt="%Y/%m"),
    TimeWindowPartitionsDefinition("*/5 * * * 1-5", "2013-01-01", exclusions=["0 0 * * *", "2013-02-01"]),
    MultiPartitionsDefinition(
        {
            "origin": StaticPartitionsDefinition(["JFK", "LGA"]),
            "date": DailyPartitionsDefinition("2013-01-01"),
            "customer": DynamicPartitionsDefinition("customers"),
        }
    ),
]
MAPPINGS: list[PartitionMapping] = [
    IdentityPartitionMapping(),
    AllPartitionMapping(),
    LastPartitionMapping(),
    SpecificPartitionsPartitionMapping(["b", "a", "b"]),
    StaticPartitionMapping({"jan": "q1", "feb": {"q1", "h1"}}),
    TimeWindowPartitionMapping(-2, 1, allow_nonexistent_upstream_partitions=True),
    BusinessCalendarPartitionMapping(-1, -1, holidays=[date(2024, 12, 25), "2024-12-26"]),
    MultiPartitionMapping(
        {
            "day": DimensionPartitionMapping("month", TimeWindowPartitionMapping(-1, 0)),
            "origin": DimensionPartitionMapping("origin"),
        }
    ),
    MultiToSingleDimensionPartitionMapping("date", TimeWindowPartitionMapping(-1, -1)),
    MultiToSingleDimensionPartitionMapping(),
]


@pytest.mark.parametrize("definition", DEFINITIONS, ids=str)
def test_a_definition_survives_json_and_pickle(definition: PartitionsDefinition) -> None:
    for again in (
        definition_from_json(json.loads(json.dumps(definition.to_json()))),
        pickle.loads(pickle.dumps(definition)),
    ):
        assert again == definition
        assert type(again) is type(definition)
        assert hash(again) == hash(definition)
        assert again.fingerprint == definition.fingerprint
        assert again.to_json() == definition.to_json()
    assert len({one.fingerprint for one in DEFINITIONS}) == len(DEFINITIONS)
    with pytest.raises(AttributeError):
        cast(Any, definition).name = "other"


def test_definitions_are_equal_when_they_mean_the_same() -> None:
    daily = DailyPartitionsDefinition("2013-01-01", timezone="Etc/UTC")
    assert daily == TimeWindowPartitionsDefinition("@daily", date(2013, 1, 1), fmt="%Y-%m-%d")
    assert daily == DailyPartitionsDefinition(datetime(2013, 1, 1, 9, tzinfo=timezone(timedelta(hours=9))))
    assert daily != DailyPartitionsDefinition("2013-01-01", timezone="Europe/London")
    assert daily.fingerprint == "acb1336d9a4568b14e5c60054587d1e7"
    assert "daily from 2013-01-01, UTC" in repr(daily)


@pytest.mark.parametrize("mapping", MAPPINGS, ids=lambda mapping: type(mapping).__name__)
def test_a_mapping_survives_json_and_pickle(mapping: PartitionMapping) -> None:
    assert mapping_from_json(json.loads(json.dumps(mapping.to_json()))) == mapping
    assert pickle.loads(pickle.dumps(mapping)) == mapping
    assert hash(mapping_from_json(mapping.to_json())) == hash(mapping)


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"kind": "yearly"},
        {"kind": "daily"},
        {"kind": "static", "keys": 3},
        [],
        {"kind": "multi", "dimensions": {"a": {}}},
    ],
)
def test_json_of_something_else_is_refused(data: Any) -> None:
    with pytest.raises(DefinitionError):
        definition_from_json(data)
    with pytest.raises(DefinitionError):
        mapping_from_json(data)


BAD: list[tuple[Callable[[], object], type[HeadwaterError], str]] = [
    (lambda: StaticPartitionsDefinition(["a", "b", "a"]), DefinitionError, "'a' is given twice"),
    (lambda: StaticPartitionsDefinition("abc"), DefinitionError, "list"),
    (lambda: StaticPartitionsDefinition([cast(str, 3)]), InvalidKeyError, "int"),
    (lambda: StaticPartitionsDefinition([""]), InvalidKeyError, "empty"),
    (lambda: StaticPartitionsDefinition(["x" * 513]), InvalidKeyError, "513 bytes"),
    (lambda: StaticPartitionsDefinition(["e\u0301"]), InvalidKeyError, "normal form"),
    (lambda: DynamicPartitionsDefinition("a\nb"), InvalidKeyError, "000A"),
    (lambda: DailyPartitionsDefinition("yesterday"), DefinitionError, "'yesterday' as start is no time"),
    (lambda: DailyPartitionsDefinition(cast(str, 3)), DefinitionError, "int"),
    (lambda: DailyPartitionsDefinition("2013-01-01", end_date="2012-01-01"), DefinitionError, "not after the start"),
    (lambda: DailyPartitionsDefinition("2013-01-01", hour_offset=24), DefinitionError, "hour_offset is 24"),
    (lambda: HourlyPartitionsDefinition("2013-01-01", minute_offset=True), DefinitionError, "minute_offset"),
    (lambda: MonthlyPartitionsDefinition("2013-01-01", day_offset=31), DefinitionError, "day_offset is 31"),
    (lambda: DailyPartitionsDefinition("2013-01-01", end_offset=cast(int, 0.5)), DefinitionError, "end_offset"),
    (lambda: DailyPartitionsDefinition("2013-01-01", fmt="%Y-%m"), DefinitionError, "no day"),
    (lambda: HourlyPartitionsDefinition("2013-01-01", fmt="%Y-%m-%d"), DefinitionError, "no hour"),
    (lambda: TimeWindowPartitionsDefinition("*/5 * * * *", "2013-01-01", fmt="%Y%m%d %H"), DefinitionError, "minute"),
    (lambda: DailyPartitionsDefinition("2013-01-01", fmt="%d/%m/%y"), DefinitionError, "no year"),
    (lambda: DailyPartitionsDefinition("2013-01-01", fmt="%Y-%m-%d %Z"), DefinitionError, "%Z"),
    (lambda: DailyPartitionsDefinition("2013-01-01", fmt="%d %b %Y"), DefinitionError, "%b"),
    (lambda: DailyPartitionsDefinition("2013-01-01", fmt="%Y-%m-%d%"), DefinitionError, "read again"),
    (lambda: DailyPartitionsDefinition("2013-01-01", fmt="%Y-%m-%d-%Q"), DefinitionError, "read again"),
    (lambda: DailyPartitionsDefinition("2013-01-01", fmt="%Y-%m-%d\n"), InvalidKeyError, "000A"),
    (lambda: DailyPartitionsDefinition("2013-01-01", fmt=cast(str, 3)), DefinitionError, "format is text"),
    (lambda: DailyPartitionsDefinition("2013-01-01", exclusions=cast(Any, "0 0 * * 0")), DefinitionError, "list"),
    (lambda: DailyPartitionsDefinition("2013-01-01", exclusions=["0 0 * * 9"]), CronError, "day-of-week"),
    (lambda: TimeWindowPartitionsDefinition("61 * * * *", "2013-01-01"), CronError, "minute"),
    (lambda: TimeWindowPartitionsDefinition("0 0 31 2 *", "2013-01-01"), CronError, "day"),
    (lambda: TimeWindowPartitionsDefinition("0 0 30-31 2 *", "2013-01-01"), CronError, "day"),
    (lambda: TimeWindowPartitionsDefinition("* * *", "2013-01-01"), CronError, "3 fields"),
    (lambda: TimeWindowPartitionsDefinition("0 0 0 * * *", "2013-01-01"), CronError, "6 fields"),
    (lambda: TimeWindowPartitionsDefinition("@reboot", "2013-01-01"), CronError, "@daily"),
    (lambda: TimeWindowPartitionsDefinition("a b c d e", "2013-01-01"), CronError, "minute"),
    (lambda: TimeWindowPartitionsDefinition(cast(str, None), "2013-01-01"), CronError, "NoneType"),
    (lambda: MultiPartitionsDefinition({"a": StaticPartitionsDefinition(["x"])}), DefinitionError, "two dimensions"),
    (lambda: MultiPartitionsDefinition({"a": DEFINITIONS[-1], "b": DEFINITIONS[0]}), DefinitionError, "dimension 'a'"),
    (lambda: MultiPartitionsDefinition({"a": DEFINITIONS[0], "": DEFINITIONS[0]}), InvalidKeyError, "empty"),
    (lambda: MultiPartitionKey({"a": "x"}), InvalidKeyError, "two dimensions"),
    (lambda: MultiPartitionKey({"a": "x", "b": "\u202e"}), InvalidKeyError, "202E"),
    (lambda: PartitionsContext(datetime(2024, 1, 1)), UsageError, "time zone"),
    (lambda: PartitionsContext(cast(datetime, "now")), UsageError, "time zone"),
    (lambda: TimeWindowPartitionMapping(0, -1), DefinitionError, "nothing would be read"),
    (lambda: TimeWindowPartitionMapping(cast(int, "a")), DefinitionError, "whole numbers"),
    (lambda: SpecificPartitionsPartitionMapping("abc"), DefinitionError, "list"),
    (lambda: StaticPartitionMapping(cast(Any, ["a"])), DefinitionError, "mapping"),
    (lambda: BusinessCalendarPartitionMapping(holidays=["Christmas"]), DefinitionError, "no date"),
    (lambda: BusinessCalendarPartitionMapping(working_days="0000000"), DefinitionError, "seven signs"),
    (lambda: MultiPartitionMapping({"a": cast(Any, "b")}), DefinitionError, "mapped by a str"),
]


@pytest.mark.parametrize(("make", "error", "text"), BAD)
def test_bad_input_is_told(make: Callable[[], object], error: type[HeadwaterError], text: str) -> None:
    with pytest.raises(error, match=text) as caught:
        make()
    assert caught.value.remedy


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_are_keys_or_refused(text: str) -> None:
    context = PartitionsContext(datetime(2024, 1, 1, tzinfo=UTC))
    for one in DEFINITIONS:
        assert one.at(context).find(text) is None or text in "ab"
    try:
        static = StaticPartitionsDefinition(["first", text])
    except (InvalidKeyError, DefinitionError):
        return
    found = static.at(context)
    assert found.key(found.ordinal(text)) == text
    assert text in found.subset([text])
    assert found.parse_range(f"first..{text}").keys() == ["first", text]
    assert found.read_subset(json.loads(json.dumps(found.all().to_json()))) == (found.all(), 0)
    str(found.all())
    multi = MultiPartitionsDefinition({"a": static, "b": static, "c": static})
    key = MultiPartitionKey({"c": text, "a": "first", "b": text})
    assert multi.key(str(key)).keys_by_dimension == key.keys_by_dimension
    several = multi.at(context)
    assert several.key(several.ordinal(key)) == key
    assert several.ordinals(several.keys()).tolist() == list(range(8))


@given(st.lists(st.text(st.sampled_from("%7C25|a."), min_size=1, max_size=8), min_size=2, max_size=4))
def test_the_printed_form_is_exact(values: list[str]) -> None:
    printed = print_values(tuple(values))
    assert parse_values(printed) == tuple(values)
    key = MultiPartitionKey(dict(zip("abcd", values, strict=False)))
    assert key == printed
    assert pickle.loads(pickle.dumps(key)).keys_by_dimension == key.keys_by_dimension


def test_defining_needs_no_numpy() -> None:
    code = """
import sys
import headwater
headwater.MultiPartitionsDefinition({"a": headwater.DailyPartitionsDefinition("2013-01-01", timezone="Europe/London"),
    "b": headwater.StaticPartitionsDefinition(["x"])}).fingerprint
headwater.TimeWindowPartitionMapping(start_offset=-1)
assert "numpy" not in sys.modules and "cronsim" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
