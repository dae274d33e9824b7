# pyright: reportUnknownParameterType=false, reportMissingParameterType=false, reportUnknownLambdaType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnknownMemberType=false
"""A step with several partitions that returns one frame."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import headwater as P
from headwater.catalog.partitions.definition import PartitionsDefinition
from headwater.io.engines import duckdb
from tests.materialize.execution.test_step import BOTH, DAYS, THREE, Bench, batch, failed

MONTHS = P.MonthlyPartitionsDefinition("2013-01-01", timezone="America/New_York")
TWO = ("2013-01-01", "2013-02-01")


def split(
    frame: Any, expression: Any, tmp_path: Path, definition: PartitionsDefinition = DAYS, keys: Sequence[str] = THREE
) -> Any:
    """The rows of each partition, or why there are none."""
    one = bench(frame, expression, tmp_path, definition)
    result = one.attempt("a", keys)
    if result.failure is not None:
        return f"{result.failure.error.message} {result.failure.error.remedy}"
    assert failed(result) == {}
    manager: Any = one.manager
    return {key: value["n"].to_list() for (_, key), value in manager.values.items()}


def bench(frame: Any, expression: Any, tmp_path: Path, definition: PartitionsDefinition = DAYS) -> Bench:
    return Bench([batch(lambda: frame, definition, metadata={"partition_expr": expression})], tmp_path)


def by(column: str, values: Sequence[Any], **options: Any) -> pl.DataFrame:
    return pl.DataFrame({"n": range(len(values)), column: pl.Series(values, **options)})


EAST = timezone(timedelta(hours=1))
DATES = [date(2013, 1, 3), date(2013, 1, 1), date(2013, 1, 3)]


@pytest.mark.parametrize(
    "frame",
    [
        by("day", DATES),
        by("day", [str(day) for day in DATES]),
        by("day", [str(day) for day in DATES], dtype=pl.Categorical),
        by("day", [datetime(day.year, day.month, day.day, 23, 59) for day in DATES]),
        by(
            "day",
            [datetime(2013, 1, 4, tzinfo=timezone(timedelta(hours=1))), datetime(2013, 1, 1), datetime(2013, 1, 3)],
        ),
    ],
)
def test_values_of_a_column(frame: pl.DataFrame, tmp_path: Path) -> None:
    assert split(frame, "day", tmp_path) == {THREE[0]: [1], THREE[1]: [], THREE[2]: [0, 2]}


def test_longer_windows(tmp_path: Path) -> None:
    """What has no time zone is on the definition's clocks."""
    moments = [datetime(2013, 2, 1, 4, 59, tzinfo=UTC), datetime(2013, 2, 1, 5, tzinfo=UTC)]
    assert split(by("t", moments), "t", tmp_path, MONTHS, TWO) == {TWO[0]: [0], TWO[1]: [1]}
    assert split(by("t", [datetime(2013, 1, 31, 23, 59), datetime(2013, 2, 1)]), "t", tmp_path, MONTHS, TWO) == {
        TWO[0]: [0],
        TWO[1]: [1],
    }
    assert split(by("t", [date(2013, 2, 28), date(2013, 1, 1)]), "t", tmp_path, MONTHS, TWO) == {
        TWO[0]: [1],
        TWO[1]: [0],
    }


def test_a_date_is_the_day_on_which_a_window_starts(tmp_path: Path) -> None:
    days = P.DailyPartitionsDefinition("2013-01-01", hour_offset=3)
    assert split(by("day", DATES[:2]), "day", tmp_path, days) == {THREE[0]: [1], THREE[1]: [], THREE[2]: [0]}
    moments = [datetime(2013, 1, 2, 2, 59), datetime(2013, 1, 2, 3)]
    assert split(by("day", moments), "day", tmp_path, days, THREE[:2]) == {THREE[0]: [0], THREE[1]: [1]}


def test_the_hour_that_a_clock_shows_twice(tmp_path: Path) -> None:
    """The first one, where nothing tells which."""
    hours = P.HourlyPartitionsDefinition("2013-11-01", timezone="America/New_York")
    keys = ["2013-11-03-01:00", "2013-11-03-01:00-0500"]
    moments = [datetime(2013, 11, 3, 5, 30, tzinfo=UTC), datetime(2013, 11, 3, 6, 30, tzinfo=UTC)]
    assert split(by("t", moments), "t", tmp_path, hours, keys) == {keys[0]: [0], keys[1]: [1]}
    assert split(by("t", [datetime(2013, 11, 3, 1, 30)]), "t", tmp_path, hours, keys) == {keys[0]: [0], keys[1]: []}


def test_other_partitions(tmp_path: Path) -> None:
    years = P.StaticPartitionsDefinition(["2012", "2013"])
    assert split(by("year", [2013, 2012, 2013]), "year", tmp_path, years, ["2012", "2013"]) == {
        "2012": [1],
        "2013": [0, 2],
    }


def test_dimensions(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {"n": [0, 1, 2], "d": [DATES[1], DATES[1], DATES[1] + timedelta(1)], "o": ["JFK", "EWR", "JFK"]}
    )
    keys = ["2013-01-01|EWR", "2013-01-01|JFK", "2013-01-02|JFK", "2013-01-02|LGA"]
    columns = {"day": "d", "origin": "o"}
    assert split(frame, columns, tmp_path, BOTH, keys) == dict(zip(keys, [[1], [0], [2], []], strict=True))
    found = split(frame, columns, tmp_path, BOTH, [keys[0], keys[2]])
    assert "`a` has rows of the partition '2013-01-01|JFK', and this step does not compute it." in found


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([*DATES, None], "is null, which is in no partition of this step"),
        ([date(2013, 1, 4)], "is 2013-01-04, which"),
        ([datetime(2012, 12, 31)], "is 2012-12-31 00:00:00"),
        (["\x1b[2J"], "is '\\x1b[2J'"),
        ([3], "is 3"),
    ],
)
def test_rows_of_no_partition(values: list[Any], reason: str, tmp_path: Path) -> None:
    found = split(by("day", values), "day", tmp_path)
    assert "`a` has rows whose 'day'" in found
    assert reason in found
    assert "context.partition_time_window" in found


@pytest.mark.parametrize(
    ("expression", "definition", "keys", "remedy"),
    [
        (5, DAYS, THREE, "{'partition_expr': 'column'}"),
        ({"day": "d"}, DAYS, THREE, "{'partition_expr': 'column'}"),
        ("d", BOTH, ["2013-01-01|EWR", "2013-01-02|EWR"], "{'partition_expr': {'day': 'column', 'origin': 'column'}}"),
        ({"day": "d"}, BOTH, ["2013-01-01|EWR", "2013-01-02|EWR"], "'origin': 'column'"),
        ({"day": "d", "origin": 3}, BOTH, ["2013-01-01|EWR", "2013-01-02|EWR"], "'origin': 'column'"),
    ],
)
def test_an_expression_that_names_no_column(
    expression: Any, definition: PartitionsDefinition, keys: Sequence[str], remedy: str, tmp_path: Path
) -> None:
    found = split(by("day", DATES), expression, tmp_path, definition, keys)
    assert "The partition_expr of `a` is" in found
    assert remedy in found


def test_a_column_that_is_not_there(tmp_path: Path) -> None:
    assert "has no column 'dya'" in split(by("day", DATES), "dya", tmp_path)


def test_what_is_no_frame_is_told_as_ever(tmp_path: Path) -> None:
    assert "`a` gave an int for 3 partitions" in split(5, "day", tmp_path)
    one = bench(dict.fromkeys(THREE, 1), "day", tmp_path)
    assert len(one.attempt("a", THREE).outputs) == 3


def test_the_one_left_over_is_divided_too(tmp_path: Path) -> None:
    assert split(by("day", DATES[1:2]), "day", tmp_path, keys=THREE[:1]) == {THREE[0]: [0]}
    assert "has rows whose 'day'" in split(by("day", DATES), "day", tmp_path, keys=THREE[:1])


def test_as_the_value_of_a_result(tmp_path: Path) -> None:
    one = bench(P.Output(by("day", DATES), metadata={"n": 1}), "day", tmp_path)
    result = one.attempt("a", THREE)
    assert [output.metadata["n"].value for output in result.outputs] == [1, 1, 1]


KINDS: Mapping[str, Callable[[pl.DataFrame], Any]] = {
    "polars": lambda frame: frame,
    "lazy": lambda frame: frame.lazy(),
    "pandas": lambda frame: frame.to_pandas(),
    "arrow": lambda frame: frame.to_arrow(),
    "reader": lambda frame: frame.to_arrow().to_reader(),
    "duckdb": lambda frame: duckdb().from_arrow(frame.to_arrow()),
}


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("empty", [False, True])
def test_every_kind_of_frame(kind: str, empty: bool, tmp_path: Path) -> None:
    """Each partition is stored as a frame of the same kind and columns, those without rows too."""
    frame = by("day", DATES)
    asset = batch(lambda: KINDS[kind](frame.clear() if empty else frame), metadata={"partition_expr": "day"})
    result = Bench([asset], tmp_path, P.FileIOManager()).attempt("a", THREE)
    assert result.failure is None, result.failure
    pointers = [output.pointer for output in result.outputs]
    assert [pointer and pointer.rows for pointer in pointers] == ([0, 0, 0] if empty else [1, 0, 2])
    assert len({pointer and pointer.representation for pointer in pointers}) == 1
    types = [[(column.name, column.type) for column in pointer.columns] for pointer in pointers if pointer]
    assert types[0] == types[1] == types[2]
