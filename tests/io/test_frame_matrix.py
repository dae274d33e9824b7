"""The shapes that break things (reliability.md, rows 47 to 58), each through every kind of frame."""

import datetime as dt
import math
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from headwater.catalog.errors import DuplicateColumnError, NoColumnsError, SchemaDriftError, UnstorableValueError
from headwater.catalog.records import Pointer
from headwater.io import ParquetIOManager
from headwater.io.base import Staged
from headwater.io.engines import arrow, duckdb, pandas, polars
from tests.io.support import files_below, input_of, output, store

pa, pl, pd, duck = arrow(), polars(), pandas(), duckdb()

#: From an Arrow table to each kind of frame, keeping its types.
KINDS: dict[str, Callable[[Any], Any]] = {
    "polars": lambda table: pl.from_arrow(table),
    "lazy": lambda table: pl.from_arrow(table).lazy(),
    "pandas": lambda table: table.to_pandas(types_mapper=pd.ArrowDtype),
    "arrow": lambda table: table,
    "reader": lambda table: table.to_reader(2),
    "duckdb": lambda table: duck.from_arrow(table),
}
UTC = dt.UTC


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def manager(tmp_path: Path) -> ParquetIOManager:
    return ParquetIOManager(tmp_path)


def stored(manager: ParquetIOManager, kind: str, table: Any) -> tuple[Staged, Any]:
    """What was staged of a table as `kind`, and the table that came back, by the same kind."""
    context = output()
    staged = manager.stage(context, KINDS[kind](table))
    staged.publish()
    return staged, as_table(manager.load_input(input_of(context, staged.pointer)))


def as_table(frame: Any) -> Any:
    match frame:
        case pl.LazyFrame():
            return frame.collect().to_arrow()
        case pl.DataFrame():
            return frame.to_arrow()
        case pa.RecordBatchReader():
            return frame.read_all()
        case duck.DuckDBPyRelation():
            return frame.to_arrow_table()
        case pd.DataFrame():
            return pa.Table.from_pandas(frame, preserve_index=False)
        case _:
            return frame


def limits(pointer: Pointer) -> list[tuple[int | None, Any, Any]]:
    return [(column.nulls, column.min, column.max) for column in pointer.columns]


class TestShapes:
    def test_no_rows(self, kind: str, manager: ParquetIOManager) -> None:
        table = pa.table({"a": pa.array([], pa.int64()), "b": pa.array([], pa.large_string())})
        staged, back = stored(manager, kind, table)
        assert (staged.pointer.rows, back.num_rows, back.column_names) == (0, 0, ["a", "b"])
        assert [column.type for column in staged.pointer.columns] == ["int64", "string"]
        assert limits(staged.pointer) == [(0, None, None)] * 2

    def test_no_columns(self, kind: str, manager: ParquetIOManager, tmp_path: Path) -> None:
        if kind == "duckdb":
            pytest.skip("DuckDB has no relation without columns")
        with pytest.raises(NoColumnsError) as caught:
            manager.stage(output(), KINDS[kind](pa.table({})))
        assert caught.value.code == "E-NO-COLUMNS"
        assert files_below(tmp_path) == []

    def test_nothing_but_nulls(self, kind: str, manager: ParquetIOManager) -> None:
        """A column without a type is reported, one with a type keeps it."""
        table = pa.table({"a": pa.nulls(3), "b": pa.array([None] * 3, pa.int64()), "c": [1, 2, 3]})
        staged, back = stored(manager, kind, table)
        assert limits(staged.pointer) == [(3, None, None), (3, None, None), (0, 1, 3)]
        assert [back.column(name).null_count for name in "abc"] == [3, 3, 0]
        assert staged.pointer.columns[1].type == "int64"
        (note,) = staged.notes
        assert "'a' holds nothing but nulls" in note

    def test_duplicate_names(self, kind: str, manager: ParquetIOManager, tmp_path: Path) -> None:
        made = {
            "pandas": lambda: pd.DataFrame([[1, 2]], columns=["x", "x"]),
            "arrow": lambda: pa.table([[1], [2]], names=["x", "x"]),
            "reader": lambda: pa.table([[1], [2]], names=["x", "x"]).to_reader(),
            "duckdb": lambda: duck.sql("select 1 as x, 2 as x"),
        }
        if kind not in made:
            pytest.skip("polars has no such frame")
        with pytest.raises(DuplicateColumnError, match="more than one column 'x'") as caught:
            manager.stage(output(), made[kind]())
        assert caught.value.code == "E-DUP-COLUMN"
        assert files_below(tmp_path) == []

    def test_names_that_differ_by_case(self, kind: str, manager: ParquetIOManager) -> None:
        table = pa.table({"id": [1], "ID": [2]})
        frame = duck.sql("select 1::bigint as id, 2::bigint as ID") if kind == "duckdb" else KINDS[kind](table)
        context = output()
        staged = manager.stage(context, frame)
        (note,) = staged.notes
        assert "'id' and 'ID' differ by case" in note
        staged.publish()
        back = manager.load_input(input_of(context, staged.pointer, annotation=pa.Table))
        assert back.to_pylist() == [{"id": 1, "ID": 2}]

    def test_ten_thousand_columns(self, kind: str, manager: ParquetIOManager) -> None:
        names = [f"column_{i}" for i in range(10_000)]
        table = pa.table([pa.array([i, None], pa.int64()) for i in range(10_000)], names=names)
        context, pointer = store(manager, KINDS[kind](table))
        assert len(pointer.columns) == 10_000
        assert (pointer.columns[-1].name, *limits(pointer)[-1]) == ("column_9999", 1, 9999, 9999)
        back = as_table(manager.load_input(input_of(context, pointer, columns=("column_9999", "column_3"))))
        assert back.to_pylist() == [{"column_9999": 9999, "column_3": 3}, {"column_9999": None, "column_3": None}]


class TestValues:
    def test_zero_and_minus_zero(self, kind: str, manager: ParquetIOManager) -> None:
        """They are one in the bounds, two in the version, and come back with their signs."""
        found: dict[str, str | None] = {}
        for name, values in {"plus": [0.0, 0.0], "minus": [-0.0, -0.0], "both": [-0.0, 0.0]}.items():
            staged, back = stored(manager, kind, pa.table({"z": values}))
            (column,) = staged.pointer.columns
            assert (str(column.min), str(column.max)) == ("0.0", "0.0")
            assert [math.copysign(1, value) for value in back["z"].to_pylist()] == [math.copysign(1, v) for v in values]
            found[name] = staged.data_version
        assert len(set(found.values())) == 3
        assert found == {
            name: manager.stage(output(), pa.table({"z": values})).data_version
            for name, values in {"plus": [0.0, 0.0], "minus": [-0.0, -0.0], "both": [-0.0, 0.0]}.items()
        }

    def test_nan_is_a_value_and_no_bound(self, kind: str, manager: ParquetIOManager) -> None:
        table = pa.table({"some": [math.nan, 1.0, None], "all": [math.nan] * 3, "ends": [math.inf, -math.inf, None]})
        staged, back = stored(manager, kind, table)
        assert limits(staged.pointer) == [(1, 1.0, 1.0), (0, None, None), (1, "-inf", "inf")]
        assert math.isnan(back["some"][0].as_py()) and back["some"][2].as_py() is None
        assert back["all"].null_count == 0

    def test_nested(self, kind: str, manager: ParquetIOManager) -> None:
        rows: list[dict[str, Any]] = [
            {"n": {"a": [1, None], "b": {"c": "x"}}},
            {"n": None},
            {"n": {"a": [], "b": None}},
        ]
        schema = pa.schema([("n", pa.struct([("a", pa.list_(pa.int64())), ("b", pa.struct([("c", pa.string())]))]))])
        staged, back = stored(manager, kind, pa.Table.from_pylist(rows, schema))
        assert back.to_pylist() == rows
        assert staged.pointer.columns[0].type == "struct<a: list<int64>, b: struct<c: string>>"

    def test_an_empty_struct(self, kind: str, manager: ParquetIOManager, tmp_path: Path) -> None:
        table = pa.table({"n": pa.array([[{}]], pa.list_(pa.struct([])))})
        with pytest.raises(UnstorableValueError, match=r"column 'n'.*without fields") as caught:
            manager.stage(output(), KINDS[kind](table))
        assert caught.value.code == "E-TYPE"
        assert files_below(tmp_path) == []

    def test_moments(self, kind: str, manager: ParquetIOManager) -> None:
        """Zones, the first year there is, nanoseconds."""
        zone = "Etc/UTC" if kind == "duckdb" else "Europe/Berlin"  # DuckDB has the session's zone only
        first, last = dt.datetime(1, 1, 1, tzinfo=UTC), dt.datetime(9999, 12, 31, tzinfo=UTC)
        table = pa.table(
            {
                "zoned": pa.array([first, last, None], pa.timestamp("us", zone)),
                "naive": pa.array([first.replace(tzinfo=None), None, None], pa.timestamp("us")),
                "nanos": pa.array([1, -1, None], pa.timestamp("ns")),
                "day": pa.array([first.date(), last.date(), None]),
            }
        )
        staged, back = stored(manager, kind, table)
        assert back.cast(table.schema).equals(table)
        assert back.schema.field("zoned").type == pa.timestamp("us", zone)
        assert limits(staged.pointer) == [
            (1, "0001-01-01T00:00:00Z", "9999-12-31T00:00:00Z"),
            (2, "0001-01-01T00:00:00", "0001-01-01T00:00:00"),
            (1, "1969-12-31T23:59:59.999999999", "1970-01-01T00:00:00.000000001"),
            (1, "0001-01-01", "9999-12-31"),
        ]

    def test_decimals(self, kind: str, manager: ParquetIOManager) -> None:
        values = [Decimal("1.10"), Decimal("-123456789012345678901234567890123456.78"), None]
        table = pa.table({"amount": pa.array(values, pa.decimal128(38, 2))})
        staged, back = stored(manager, kind, table)
        assert back["amount"].to_pylist() == values
        assert limits(staged.pointer) == [(1, str(values[1]), str(values[0]))]

    def test_categories(self, kind: str, manager: ParquetIOManager) -> None:
        table = pa.table({"c": pa.array(["b", None, "a", "b"]).dictionary_encode()})
        staged, back = stored(manager, kind, table)
        assert back["c"].to_pylist() == ["b", None, "a", "b"]
        assert pa.types.is_dictionary(back["c"].type) or kind == "duckdb", "DuckDB reads them as text"
        assert limits(staged.pointer) == [(1, "a", "b")]

    def test_the_versions_agree(self, kind: str, manager: ParquetIOManager) -> None:
        """Whatever kind of frame holds it, the same content has the same version."""
        table = pa.table({"i": [1, None], "f": [1.5, math.nan], "t": ["é", None], "n": [[1], []], "b": [True, None]})
        staged, _ = stored(manager, kind, table)
        assert staged.data_version == manager.stage(output(), table).data_version


MIXED: dict[str, tuple[Callable[[], Any], str]] = {
    "polars": (lambda: pl.DataFrame({"x": [None, {1}, "a"]}, schema={"x": pl.Object}), "'x'.*a set in row 1"),
    "lazy": (lambda: pl.LazyFrame({"x": [{1}]}, schema={"x": pl.Object}), "'x' is of type Object"),
    "pandas": (lambda: pd.DataFrame({"x": [1, 2, "a"]}), "'x'.*str in row 2.*'a'"),
    "pandas, sets": (lambda: pd.DataFrame({"x": [None, {1}]}), "'x'.*set in row 1"),
    "pandas, large": (lambda: pd.DataFrame({"x": [1, 2**70]}), "'x'.*int in row 1"),
    "duckdb": (lambda: duck.sql("select union_value(a := 1) as x"), "'x'.*union"),
}


@pytest.mark.parametrize("case", MIXED)
def test_mixed_objects_name_column_row_and_type(case: str, manager: ParquetIOManager, tmp_path: Path) -> None:
    make, words = MIXED[case]
    with pytest.raises(UnstorableValueError, match=words) as caught:
        manager.stage(output(), make())
    assert caught.value.code == "E-TYPE" and caught.value.remedy
    assert files_below(tmp_path) == []


def test_a_dropped_column_is_refused_before_anything_is_visible(
    kind: str, manager: ParquetIOManager, tmp_path: Path
) -> None:
    _, previous = store(manager, pa.table({"a": [1], "b": ["x"]}))
    before = files_below(tmp_path)
    with pytest.raises(SchemaDriftError, match="- b string"):
        manager.stage(output(previous=previous, code_changed=False), KINDS[kind](pa.table({"a": [2]})))
    assert files_below(tmp_path) == before
    staged = manager.stage(output(previous=previous, code_changed=True), KINDS[kind](pa.table({"a": [2]})))
    assert [column.name for column in staged.pointer.columns] == ["a"]
    staged.discard()


@pytest.mark.parametrize("value", [object(), {1, 2}, 1j, iter([]), len, b"x"], ids=lambda value: type(value).__name__)
def test_what_nobody_can_store(value: Any, manager: ParquetIOManager, tmp_path: Path) -> None:
    with pytest.raises(UnstorableValueError) as caught:
        manager.stage(output(), value)
    assert caught.value.remedy
    assert files_below(tmp_path) == []


class TestReadersAndWriters:
    """Row 73: whoever reads goes on with the version that it began with."""

    @pytest.mark.parametrize("reading", ["lazy", "reader", "duckdb"])
    def test_a_reader_keeps_its_version(self, reading: str, manager: ParquetIOManager) -> None:
        table = pa.table({"a": range(300_000)})
        context, pointer = store(manager, KINDS[reading](table))
        began = manager.load_input(input_of(context, pointer))
        batches: Iterator[Any] | None = iter(began) if reading == "reader" else None
        head = next(batches).num_rows if batches else 0
        store(manager, pa.table({"a": [7]}), output())  # the next version of the same asset
        rest = sum(batch.num_rows for batch in batches) if batches else as_table(began).num_rows
        assert head + rest == 300_000
