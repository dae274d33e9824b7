"""Every shape of a pandas frame comes back equal, or is refused with its column, row and type named."""

import datetime as dt
import math
import pathlib
import uuid
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any, cast
from zoneinfo import ZoneInfo

import pytest

from headwater.catalog.errors import UnstorableValueError
from headwater.io import ParquetIOManager
from headwater.io.engines import arrow, numpy, pandas, parquet
from headwater.io.pandas_frames import from_table, to_table
from tests.io.support import files_below, input_of, output, store

pa, np, pd = arrow(), numpy(), pandas()
Frame, Series = pd.DataFrame, pd.Series
UTC = dt.UTC
BERLIN = ZoneInfo("Europe/Berlin")


def column(values: Any, dtype: Any = None) -> Any:
    return Frame({"a": Series(values, dtype=dtype)})


def objects(*values: Any) -> Any:
    cells = np.empty(len(values), dtype=object)
    for i, value in enumerate(values):
        cells[i] = value
    return Frame({"a": Series(cells, dtype=object)})


def indexed(index: Any) -> Any:
    return Frame({"a": range(len(index))}, index=index)


def labelled(*labels: Any) -> Any:
    return Frame([list(range(len(labels)))], columns=list(labels))


EQUAL: dict[str, Callable[[], Any]] = {
    "integers": lambda: column([1, -2, 2**63 - 1]),
    "small unsigned": lambda: column([0, 255], "uint8"),
    "large unsigned": lambda: column([2**64 - 1], "uint64"),
    "float16": lambda: column([1.5, np.nan], "float16"),
    "float32": lambda: column([1.5, np.nan, np.inf], "float32"),
    "floats": lambda: column([1.5, np.nan, -np.inf, -0.0]),
    "booleans": lambda: column([True, False]),
    "text": lambda: column(["x", None, "", "é\0🙂"]),
    "text as string": lambda: column(["x", None], "string"),
    "text in Python": lambda: column(["x", None], "string[python]"),
    "text as objects": lambda: objects("x", None),
    "text with NaN": lambda: objects("x", math.nan),
    "text with NA": lambda: objects("x", pd.NA),
    "bytes": lambda: objects(b"x", None, b"\x00\xff"),
    "bytearrays": lambda: objects(bytearray(b"x")),
    "integers as objects": lambda: objects(1, 2),
    "integers and None": lambda: objects(2**60 + 1, None),
    "integers and NA": lambda: objects(1, pd.NA),
    "unsigned as objects": lambda: objects(2**64 - 1, 1),
    "booleans and None": lambda: objects(True, None),
    "floats as objects": lambda: objects(1.5, 2.5),
    "floats and None": lambda: objects(1.5, None),
    "numpy scalars": lambda: objects(np.int64(1), np.int64(2)),
    "decimals": lambda: objects(Decimal("1.10"), None, Decimal("-2.30")),
    "decimals of mixed scale": lambda: objects(Decimal("1.1"), Decimal("2.345"), Decimal("1E+5")),
    "decimals of 50 digits": lambda: objects(Decimal("1" * 50), Decimal("0.1")),
    "dates": lambda: objects(dt.date(2020, 1, 1), None, dt.date(1, 1, 1)),
    "times of day": lambda: objects(dt.time(1, 2, 3, 4), None),
    "durations as objects": lambda: objects(dt.timedelta(days=1, microseconds=3), None),
    "datetimes as objects": lambda: objects(dt.datetime(2020, 1, 1, 5), None),
    "datetimes of the year 1 as objects": lambda: objects(dt.datetime(1, 1, 1), dt.datetime(9999, 12, 31)),
    "zoned datetimes as objects": lambda: objects(dt.datetime(2020, 1, 1, tzinfo=UTC), None),
    "timestamps in seconds": lambda: column(["2020-01-01", None], "datetime64[s]"),
    "timestamps in milliseconds": lambda: column(["2020-01-01", None], "datetime64[ms]"),
    "timestamps in microseconds": lambda: column([dt.datetime(1, 1, 1), None], "datetime64[us]"),
    "timestamps in nanoseconds": lambda: column(["2020-01-01T00:00:00.123456789", None], "datetime64[ns]"),
    "durations in seconds": lambda: column([1, None], "timedelta64[s]"),
    "durations in nanoseconds": lambda: column([1, None], "timedelta64[ns]"),
    "zoned": lambda: Frame({"a": pd.to_datetime(["2020-01-01", None]).tz_localize("Europe/Berlin")}),
    "fixed offset": lambda: Frame({"a": pd.to_datetime(["2020"]).tz_localize(dt.timezone(dt.timedelta(hours=5.5)))}),
    "nullable integers": lambda: column([1, None, 2**60 + 1], "Int64"),
    "nullable small integers": lambda: column([1, None], "UInt8"),
    "nullable floats": lambda: column([1.5, None], "Float64"),
    "nullable booleans": lambda: column([True, None], "boolean"),
    "categorical": lambda: Frame({"a": pd.Categorical(["x", "y", None])}),
    "ordered categorical with unused": lambda: Frame(
        {"a": pd.Categorical(["x", "y"], categories=["y", "x", "z"], ordered=True)}
    ),
    "categorical of integers": lambda: Frame({"a": pd.Categorical([2, 1, None], categories=[3, 2, 1])}),
    "categorical of booleans": lambda: Frame({"a": pd.Categorical([True, False])}),
    "categorical of times": lambda: Frame({"a": pd.Categorical(pd.to_datetime(["2020", "2021"]))}),
    "categorical of intervals": lambda: Frame({"a": pd.cut([1, 2, 3], 2)}),
    "categorical of nothing": lambda: Frame({"a": pd.Categorical([None, None], categories=[])}),
    "categorical of dates": lambda: Frame({"a": pd.Categorical([dt.date(2020, 1, 1)])}),
    "periods": lambda: Frame({"a": pd.period_range("2020-01", periods=2, freq="M")}),
    "intervals": lambda: Frame({"a": pd.interval_range(0, 2, closed="left")}),
    "identifiers": lambda: objects(uuid.UUID(int=1), None),
    "lists": lambda: objects([1, 2], None, [], [3]),
    "lists with nulls and NaN": lambda: objects([1.5, math.nan, None], [None]),
    "lists of text": lambda: objects(["a", None], ["é"]),
    "lists of lists": lambda: objects([[1], []], [None]),
    "tuples": lambda: objects((1, 2), (3,), None),
    "arrays": lambda: objects(np.array([1.5, np.nan]), np.array([]), None),
    "structs": lambda: objects({"x": 1, "y": "a"}, {"x": None, "y": "b"}, None),
    "nested": lambda: objects({"x": [{"y": None}, {"y": 1}]}, {"x": []}),
    "Arrow integers": lambda: column([1, None], pd.ArrowDtype(pa.int32())),
    "Arrow text": lambda: column(["x", None], pd.ArrowDtype(pa.string())),
    "Arrow lists": lambda: column([[1], None], pd.ArrowDtype(pa.list_(pa.int64()))),
    "Arrow decimals": lambda: column([Decimal("1.10"), None], pd.ArrowDtype(pa.decimal128(5, 2))),
    "Arrow times": lambda: column([dt.datetime(2020, 1, 1)], pd.ArrowDtype(pa.timestamp("s", "UTC"))),
    "nothing but None": lambda: objects(None, None),
    "nothing but NaN": lambda: column([np.nan, np.nan]),
    "no rows": lambda: column([], "int64"),
    "no rows of objects": lambda: objects(),
    "many columns": lambda: Frame({f"c{i}": [i] for i in range(500)}),
    "not contiguous": lambda: Frame(np.arange(10).reshape(2, 5)[:, ::2], columns=list("abc")),
    "every second row": lambda: Frame({"a": range(10), "b": list("abcdefghij")})[::2].reset_index(drop=True),
    "names that differ by case": lambda: Frame({"a": [1], "A": [2]}),
    "an empty name": lambda: labelled(""),
    "a strange name": lambda: labelled("a.b", "x\ny", "é", "[/red]", "'; --"),
    "a missing label": lambda: labelled("a", None),
    "integer labels": lambda: labelled(0, 1, 5),
    "float labels": lambda: labelled(1.5, 2.5),
    "time labels": lambda: labelled(pd.Timestamp("2020"), pd.Timestamp("2021")),
    "labels of two levels": lambda: Frame([[1, 2]], columns=pd.MultiIndex.from_tuples([("a", "x"), ("a", "y")])),
    "named labels": lambda: labelled("a", "b").rename_axis(columns="kind"),
    "index of text": lambda: indexed(["x", "y"]),
    "index of a range": lambda: indexed(pd.RangeIndex(5, 9, 2)),
    "index of a named range": lambda: indexed(pd.RangeIndex(3, name="i")),
    "index with a name": lambda: indexed(pd.Index([3, 1, 3], name="k")),
    "index named like a column": lambda: indexed(pd.Index([3, 4], name="a")),
    "index with a number for a name": lambda: indexed(pd.Index([3, 4], name=7)),
    "index of times": lambda: indexed(pd.date_range("2020", periods=2, freq="D", name="t", tz="UTC")),
    "index of durations": lambda: indexed(pd.to_timedelta([1, 2], "D")),
    "index of periods": lambda: indexed(pd.period_range("2020", periods=2, freq="D")),
    "index of intervals": lambda: indexed(pd.interval_range(0, 2)),
    "index of categories": lambda: indexed(pd.CategoricalIndex(["x", "y"], categories=["y", "x", "z"], name="c")),
    "index of dates": lambda: indexed(pd.Index([dt.date(2020, 1, 1), dt.date(2021, 1, 1)], dtype=object)),
    "index of nullable integers": lambda: indexed(pd.Index([1, None], dtype="Int64")),
    "index with NaN": lambda: indexed(pd.Index([1, np.nan])),
    "index of two levels": lambda: indexed(pd.MultiIndex.from_tuples([("x", 1), ("y", 2)], names=["p", None])),
    "index of two special levels": lambda: indexed(
        pd.MultiIndex.from_arrays([pd.Categorical(["x", "y"]), [dt.date(2020, 1, 1), None]], names=["c", 3])
    ),
    "index level zero as a column": lambda: Frame({"__index_level_0__": [1, 2]}, index=["x", "y"]),
}

REFUSED: dict[str, tuple[Callable[[], Any], str, str]] = {
    "long double": (lambda: column(np.array([1.0], dtype="longdouble")), "E-TYPE", "column 'a'.*float128"),
    "complex": (lambda: column([1 + 2j]), "E-TYPE", "column 'a'.*complex128"),
    "complex objects": (lambda: objects(None, 1j), "E-TYPE", "column 'a'.*complex.*row 1"),
    "big-endian": (lambda: column(np.array([1], dtype=">i4")), "E-TYPE", "column 'a'.*>i4"),
    "sparse": (lambda: Frame({"a": pd.arrays.SparseArray([0, 0, 1])}), "E-TYPE", "column 'a'.*sparse"),
    "more than 64 bits": (lambda: objects(1, 2**70), "E-TYPE", "column 'a'.*int in row 1.*1180591620717411303424"),
    "numbers and text": (lambda: objects(1, 2, "x"), "E-TYPE", "column 'a'.*str in row 2.*'x'"),
    "booleans and integers": (lambda: objects(True, 1), "E-TYPE", "column 'a'.*int in row 1"),
    "bytes and text": (lambda: objects(b"x", "x"), "E-TYPE", "column 'a'.*str in row 1"),
    "sets": (lambda: objects(None, {1, 2}), "E-TYPE", "column 'a'.*set in row 1"),
    "frozen sets": (lambda: objects(frozenset({1})), "E-TYPE", "column 'a'.*frozenset in row 0"),
    "sets in lists": (lambda: objects([{1}]), "E-TYPE", "column 'a'.*list in row 0"),
    "mixed lists": (lambda: objects([1, 2], [1, "a"]), "E-TYPE", "column 'a'.*list in row 1"),
    "objects": (lambda: objects(object()), "E-TYPE", "column 'a'.*object in row 0"),
    "functions": (lambda: objects(len), "E-TYPE", "column 'a'.*builtin_function_or_method in row 0"),
    "paths": (lambda: objects(pathlib.PurePosixPath("x")), "E-TYPE", "column 'a'.*PurePosixPath in row 0"),
    "structs without fields": (lambda: objects({}, {}), "E-TYPE", "column 'a'.*without fields"),
    "structs without fields inside": (lambda: objects({"x": [{}]}), "E-TYPE", r"column 'a\.x'.*without fields"),
    "structs with numbers for keys": (lambda: objects({1: 2}), "E-TYPE", "column 'a'.*dict in row 0"),
    "half a surrogate": (lambda: objects("x", "\ud800"), "E-TYPE", r"column 'a'.*str in row 1.*\\ud800"),
    "NaN of Decimal": (lambda: objects(Decimal("1"), Decimal("NaN")), "E-TYPE", "column 'a'.*Decimal in row 1"),
    "infinity of Decimal": (lambda: objects(Decimal("1"), Decimal("inf")), "E-TYPE", "column 'a'.*Decimal in row 1"),
    "decimals of 80 digits": (lambda: objects(Decimal("1" * 80)), "E-TYPE", "column 'a'.*Decimal in row 0"),
    "zones mixed": (
        lambda: objects(dt.datetime(2020, 1, 1, tzinfo=BERLIN), dt.datetime(2020, 1, 1, tzinfo=UTC)),
        "E-MIXED-TZ",
        "column 'a'.*Europe/Berlin and UTC.*row 1",
    ),
    "zones of the same offset mixed": (
        lambda: objects(dt.datetime(2020, 1, 1, tzinfo=UTC), dt.datetime(2020, 1, 1, tzinfo=ZoneInfo("Europe/London"))),
        "E-MIXED-TZ",
        "column 'a'.*UTC and Europe/London",
    ),
    "aware and naive": (
        lambda: objects(dt.datetime(2020, 1, 1), dt.datetime(2020, 1, 1, tzinfo=UTC)),
        "E-MIXED-TZ",
        "column 'a'.*None and UTC",
    ),
    "aware times of day": (lambda: objects(dt.time(1, tzinfo=UTC)), "E-TYPE", "column 'a'.*datetime.time in row 0"),
    "dates and datetimes": (
        lambda: objects(dt.date(2020, 1, 1), dt.datetime(2020, 1, 1, 5)),
        "E-TYPE",
        "column 'a'.*datetime.datetime in row 1",
    ),
    "nanoseconds in objects": (
        lambda: objects(pd.Timestamp("2020-01-01T00:00:00.123456789")),
        "E-TYPE",
        "column 'a'.*Timestamp in row 0",
    ),
    "categories of mixed types": (lambda: Frame({"a": pd.Categorical([1, "a"])}), "E-TYPE", "categories.*column 'a'"),
    "offsets": (lambda: objects(pd.DateOffset(days=1)), "E-TYPE", "column 'a'.*DateOffset in row 0"),
    "no columns": (lambda: Frame(), "E-NO-COLUMNS", "no columns"),
    "no columns and an index": (lambda: Frame(index=[1, 2]), "E-NO-COLUMNS", "no columns"),
    "duplicate names": (lambda: labelled("a", "b", "a"), "E-DUP-COLUMN", "'a'"),
    "mixed labels": (lambda: labelled(0, "b"), "E-TYPE", "labels"),
    "a label called like a missing one": (lambda: labelled("nan", None), "E-TYPE", "labels"),
    "boolean labels": (lambda: labelled(True, False), "E-TYPE", "labels"),
    "categorical labels": (
        lambda: Frame([[1, 2]], columns=pd.CategoricalIndex(["a", "b"])),
        "E-TYPE",
        "labels",
    ),
    "interval labels": (lambda: Frame([[1, 2]], columns=pd.interval_range(0, 2)), "E-TYPE", "labels"),
    "mixed index": (lambda: indexed(pd.Index([1, "a"])), "E-TYPE", "index level 0.*str in row 1"),
    "an index named by an object": (
        lambda: indexed(pd.Index([1], name=dt.date(2020, 1, 1))),
        "E-TYPE",
        "index level 0",
    ),
}

NOTED: dict[str, tuple[Callable[[], Any], Callable[[], Any], str]] = {
    "ragged structs": (
        lambda: objects({"x": 1}, {"y": 2}),
        lambda: objects({"x": 1, "y": None}, {"x": None, "y": 2}),
        "keys that some of its structs lack",
    ),
    "integers among floats": (lambda: objects(1, 2.5), lambda: objects(1.0, 2.5), "became floating-point"),
    "integers among floats inside": (
        lambda: objects({"x": 1}, {"x": 2.5}),
        lambda: objects({"x": 1.0}, {"x": 2.5}),
        "became floating-point",
    ),
    "kinds of nulls mixed": (lambda: objects("x", None, np.nan), lambda: objects("x", None, None), "kinds of nulls"),
    "nothing but nulls": (lambda: objects(None, None), lambda: objects(None, None), "nothing but nulls"),
    "names that differ by case": (
        lambda: Frame({"id": [1], "ID": [2]}),
        lambda: Frame({"id": [1], "ID": [2]}),
        "differ by case",
    ),
}


def assert_same(before: Any, after: Any) -> None:
    pd.testing.assert_frame_equal(before, after, check_freq=False, check_index_type="equiv")
    for i, dtype in enumerate(before.dtypes):
        if dtype.kind == "O":  # assert_frame_equal takes a list for an array, and NaN for None
            for one, other in zip(before.iloc[:, i], after.iloc[:, i], strict=True):
                assert _kind(one) == _kind(other), (one, other)
    for i in range(before.index.nlevels):
        one, other = before.index.get_level_values(i), after.index.get_level_values(i)
        assert one.dtype == other.dtype
    assert before.columns.equals(after.columns) and before.columns.names == after.columns.names


def _kind(value: object) -> object:
    if isinstance(value, dt.datetime):
        return dt.datetime
    if isinstance(value, bytearray | memoryview):
        return bytes
    item: Any = getattr(value, "item", None) if isinstance(value, np.generic) else None
    return cast(type[object], type(item() if item else value))


@pytest.mark.parametrize("case", EQUAL)
def test_comes_back_equal(case: str, tmp_path: Path) -> None:
    frame = EQUAL[case]()
    untouched = frame.copy(deep=True)
    manager = ParquetIOManager(tmp_path)
    context, pointer = store(manager, frame)
    back = manager.load_input(input_of(context, pointer))
    assert_same(untouched, back)
    assert_same(untouched, frame)  # and the user's own frame was not changed
    assert pointer.rows == len(frame)
    # Whoever reads the file without us finds plain Parquet.
    (name,) = files_below(tmp_path)
    assert parquet().ParquetFile(tmp_path / name).metadata.num_rows == len(frame)


@pytest.mark.parametrize("case", REFUSED)
def test_is_refused_before_anything_is_visible(case: str, tmp_path: Path) -> None:
    make, code, words = REFUSED[case]
    manager = ParquetIOManager(tmp_path)
    with pytest.raises(UnstorableValueError, match=words) as caught:
        manager.stage(output(), make())
    assert caught.value.code == code
    assert caught.value.remedy
    assert str(caught.value).isprintable() or "\n" in str(caught.value)
    assert files_below(tmp_path) == []


@pytest.mark.parametrize("case", NOTED)
def test_is_reported(case: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make, expected, words = NOTED[case]
    manager = ParquetIOManager(tmp_path)
    context = output()
    staged = manager.stage(context, make())
    assert len(staged.notes) == 1 and words in staged.notes[0]
    assert words in caplog.text
    staged.publish()
    assert_same(expected(), manager.load_input(input_of(context, staged.pointer)))


@pytest.mark.parametrize("case", ["integers", "text", "categorical", "index of two levels", "dates", "structs"])
def test_columns_are_projected(case: str, tmp_path: Path) -> None:
    frame = EQUAL[case]().assign(b=1.5, c=["z"] * len(EQUAL[case]()))
    manager = ParquetIOManager(tmp_path)
    context, pointer = store(manager, frame)
    back = manager.load_input(input_of(context, pointer, columns=("c", "a")))
    assert_same(frame[["c", "a"]], back)


def test_attributes_are_kept_or_left_out_with_a_note(tmp_path: Path) -> None:
    frame = column([1])
    frame.attrs["unit"] = {"a": "m"}
    back = from_table(to_table(frame)[0])
    assert back.attrs == {"unit": {"a": "m"}}
    frame.attrs["f"] = len
    table, notes = to_table(frame)
    assert "attrs" in notes[0]
    assert from_table(table).attrs == {}
    assert frame.attrs["f"] is len


def test_the_table_of_others_is_what_pandas_users_expect() -> None:
    table = pa.table(
        {
            "small": pa.array([1, None], pa.int64()),
            "large": pa.array([2**60 + 1, None], pa.int64()),
            "unsigned": pa.array([2**64 - 1, None], pa.uint64()),
            "whole": pa.array([2**60 + 1, 3], pa.int64()),
            "text": pa.array(["x", None]),
            "date": pa.array([dt.date(2020, 1, 1), None]),
        }
    )
    frame = from_table(table)
    assert [str(dtype) for dtype in frame.dtypes] == ["float64", "Int64", "UInt64", "int64", "str", "object"]
    assert frame["large"][0] == 2**60 + 1 and frame["large"][1] is pd.NA
    assert frame["unsigned"][0] == 2**64 - 1


def test_large_categories_are_refused() -> None:
    frame = Frame({"a": pd.Categorical([f"{i:064d}" for i in range(80_000)])})
    with pytest.raises(UnstorableValueError, match=r"column 'a'.*categories"):
        to_table(frame)


def test_the_version_counts_the_index() -> None:
    from headwater.io.data_version import TableHasher, table_version

    def version(frame: Any) -> str:
        table, _ = to_table(frame)
        hasher = TableHasher(table.schema)
        hasher.update(table)
        return table_version(hasher.columns())

    frames = [
        indexed(pd.RangeIndex(0, 2)),
        indexed(pd.RangeIndex(1, 3)),
        indexed(["x", "y"]),
        indexed(pd.RangeIndex(0, 4, 2)),
    ]
    assert len({version(frame) for frame in frames}) == 4
    assert version(indexed([0, 1])) != version(indexed([0, 2]))


def test_a_repr_that_fails_does_not_hide_the_error() -> None:
    class Hostile:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    with pytest.raises(UnstorableValueError, match=r"Hostile in row 0.*repr\(\) fails"):
        to_table(objects(Hostile()))
