"""Frames of polars, Arrow and DuckDB, through files and back, as what they were and as each other."""

import datetime as dt
import os
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from headwater.catalog.errors import ChecksumError, StorageError, UnstorableValueError, UserCodeError
from headwater.io import ParquetIOManager
from headwater.io.engines import arrow, duckdb, numpy, pandas, parquet, polars
from headwater.io.frames import ParquetSource, from_arrow, read_frame, to_arrow
from headwater.io.local import LocalStore
from headwater.io.parquet_file import _SMALL_BYTES  # pyright: ignore[reportPrivateUsage]
from headwater.io.representation import Representation as R
from tests.io.support import files_below, input_of, output, round_trip, store
from tests.s3_server import Bucket

pa, pl, pd, np, duck = arrow(), polars(), pandas(), numpy(), duckdb()

POLARS: dict[str, Callable[[], Any]] = {
    "integers": lambda: pl.Series([1, None, -(2**63)]),
    "int8": lambda: pl.Series([1, None], dtype=pl.Int8),
    "uint64": lambda: pl.Series([2**64 - 1, None], dtype=pl.UInt64),
    "float16": lambda: pl.Series([1.5, None], dtype=pl.Float16),
    "float32": lambda: pl.Series([1.5, float("nan"), None, float("inf")], dtype=pl.Float32),
    "floats": lambda: pl.Series([1.5, float("nan"), None, -0.0]),
    "booleans": lambda: pl.Series([True, None, False]),
    "text": lambda: pl.Series(["a", None, "", "é\0🙂", "x" * 100]),
    "binary": lambda: pl.Series([b"a", None, b"\x00\xff"]),
    "dates": lambda: pl.Series([dt.date(1, 1, 1), None, dt.date(9999, 12, 31)]),
    "times": lambda: pl.Series([dt.time(1, 2, 3, 4), None]),
    "milliseconds": lambda: pl.Series([dt.datetime(2020, 1, 1), None], dtype=pl.Datetime("ms")),
    "microseconds": lambda: pl.Series([dt.datetime(1, 1, 1), None], dtype=pl.Datetime("us")),
    "nanoseconds": lambda: pl.Series([1, None]).cast(pl.Datetime("ns")),
    "zoned": lambda: pl.Series([dt.datetime(2020, 7, 1), None], dtype=pl.Datetime("us", "Europe/Berlin")),
    "durations": lambda: pl.Series([dt.timedelta(days=1), None]),
    "durations in ms": lambda: pl.Series([dt.timedelta(days=1), None], dtype=pl.Duration("ms")),
    "decimals": lambda: pl.Series([Decimal("1.10"), None], dtype=pl.Decimal(38, 2)),
    "categorical": lambda: pl.Series(["a", "b", None, "a"], dtype=pl.Categorical),
    "enum": lambda: pl.Series(["a", None], dtype=pl.Enum(["b", "a", "unused"])),
    "nulls": lambda: pl.Series([None, None]),
    "lists": lambda: pl.Series([[1], None, [], [None]]),
    "lists of text": lambda: pl.Series([["a", None], None]),
    "lists of categories": lambda: pl.Series([["a"], None], dtype=pl.List(pl.Categorical)),
    "arrays": lambda: pl.Series([[1, 2], None], dtype=pl.Array(pl.Int64, 2)),
    "arrays of arrays": lambda: pl.Series([[[1, 2], [3, 4]]], dtype=pl.Array(pl.Int64, (2, 2))),
    "structs": lambda: pl.Series([{"a": 1, "b": "x"}, None, {"a": None, "b": "y"}]),
    "structs of enums": lambda: pl.Series([{"a": "x"}], dtype=pl.Struct({"a": pl.Enum(["x", "y"])})),
    "no rows": lambda: pl.Series([], dtype=pl.String),
}

ARROW: dict[str, Callable[[], Any]] = {
    "nulls": lambda: pa.nulls(2),
    "seconds": lambda: pa.array([1, None], pa.timestamp("s")),
    "zoned seconds": lambda: pa.array([1, None], pa.timestamp("s", "Europe/Berlin")),
    "nanoseconds": lambda: pa.array([1, None], pa.timestamp("ns", "UTC")),
    "dates of ms": lambda: pa.array([86_400_000, None], pa.date64()),
    "times of s": lambda: pa.array([1, None], pa.time32("s")),
    "times of ns": lambda: pa.array([1, None], pa.time64("ns")),
    "durations of s": lambda: pa.array([1, None], pa.duration("s")),
    "float16": lambda: pa.array([1.5, None], pa.float16()),
    "decimal32": lambda: pa.array([1, None], pa.decimal32(5, 2)),
    "decimal256": lambda: pa.array([Decimal("1" * 60), None], pa.decimal256(62, 2)),
    "large text": lambda: pa.array(["a", None], pa.large_string()),
    "text views": lambda: pa.array(["a", None, "x" * 40], pa.string_view()),
    "binary views": lambda: pa.array([b"a", None], pa.binary_view()),
    "fixed binary": lambda: pa.array([b"ab", None], pa.binary(2)),
    "lists": lambda: pa.array([[1], None, []], pa.list_(pa.int8())),
    "large lists": lambda: pa.array([[1], None, []], pa.large_list(pa.int8())),
    "list views": lambda: pa.array([[1], None, [2, 3], []], pa.list_view(pa.int8())),
    "fixed lists": lambda: pa.array([[1, 2], None], pa.list_(pa.int8(), 2)),
    "maps": lambda: pa.array([[("a", 1)], None, []], pa.map_(pa.string(), pa.int8())),
    "structs": lambda: pa.array([{"a": 1, "b": [None]}, None]),
    "dictionary of text": lambda: pa.array(["a", "b", None]).dictionary_encode(),
    "dictionary of integers": lambda: pa.array([5, 7, None, 5]).dictionary_encode(),
    "dictionary of times": lambda: pa.array([1, None], pa.timestamp("us")).dictionary_encode(),
    "ordered dictionary": lambda: pa.DictionaryArray.from_arrays(
        pa.array([0, 1, None]), pa.array(["a", "b"]), ordered=True
    ),
    "structs of seconds": lambda: pa.array([{"t": 1}, None], pa.struct([("t", pa.timestamp("s"))])),
    "lists of seconds": lambda: pa.array([[1, None], None], pa.list_(pa.timestamp("s"))),
    "identifiers": lambda: pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"0" * 16, None], pa.binary(16))),
    "JSON": lambda: pa.ExtensionArray.from_storage(pa.json_(), pa.array(["{}", None])),
    "no rows": lambda: pa.array([], pa.int8()),
}


@pytest.fixture
def manager(tmp_path: Path) -> ParquetIOManager:
    return ParquetIOManager(tmp_path)


@pytest.mark.parametrize("lazy", [False, True], ids=["eager", "lazy"])
@pytest.mark.parametrize("case", POLARS)
def test_polars_comes_back_equal(case: str, lazy: bool, manager: ParquetIOManager) -> None:
    frame = pl.DataFrame({"x": POLARS[case](), "é": pl.Series(range(POLARS[case]().len()), dtype=pl.Int64)})
    back = round_trip(manager, frame.lazy() if lazy else frame)
    assert isinstance(back, pl.LazyFrame if lazy else pl.DataFrame)
    back = back.lazy().collect()
    assert back.schema == frame.schema
    assert back.equals(frame)


@pytest.mark.parametrize("case", POLARS)
def test_what_polars_stored_can_be_read_by_the_others(case: str, manager: ParquetIOManager) -> None:
    frame = pl.DataFrame({"x": POLARS[case]()})
    table = round_trip(manager, frame, pa.Table)
    assert pl.from_arrow(table).equals(frame)
    assert round_trip(manager, frame, pd.DataFrame).shape == frame.shape
    if frame.height:
        assert len(round_trip(manager, frame, duck.DuckDBPyRelation).to_arrow_table()) == frame.height


@pytest.mark.parametrize("case", ARROW)
def test_arrow_comes_back_equal(case: str, manager: ParquetIOManager) -> None:
    table = pa.table({"x": ARROW[case](), "n": range(len(ARROW[case]()))})
    back = round_trip(manager, table)
    assert back.schema == table.schema
    assert back.equals(table)
    back.validate(full=True)
    stream = round_trip(manager, table.to_reader())
    assert isinstance(stream, pa.RecordBatchReader)
    assert stream.schema == table.schema
    assert stream.read_all().equals(table)


def test_the_way_a_polars_frame_is_written_makes_no_difference(manager: ParquetIOManager) -> None:
    """Small frames go through pyarrow, large and lazy ones through polars: the versions have to agree."""
    frame = pl.DataFrame({name: POLARS[name]().head(1) for name in POLARS if name != "no rows"})
    many = pl.concat([frame] * 3000)
    assert many.to_arrow().nbytes > _SMALL_BYTES
    one = manager.stage(output(), many.head(10))
    other = manager.stage(output(), many.head(10).lazy())
    assert one.data_version == other.data_version
    large, lazy = manager.stage(output(), many), manager.stage(output(), many.lazy())
    assert large.data_version == lazy.data_version == manager.stage(output(), many.to_arrow()).data_version
    for staged in (large, lazy):
        staged.publish()
        context = output()
        back = manager.load_input(input_of(context, staged.pointer, annotation=pl.DataFrame))
        assert back.schema == many.schema and back.equals(many)


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "objects": (lambda: pl.DataFrame({"x": [object()]}), "column 'x' is of type Object.*object in row 0"),
    "objects after nulls": (
        lambda: pl.DataFrame({"x": [None, {1}]}, schema={"x": pl.Object}),
        "column 'x' is of type Object.*a set in row 1",
    ),
    "objects, lazy": (lambda: pl.LazyFrame({"x": [object()]}), "column 'x' is of type Object"),
    "128-bit integers": (lambda: pl.DataFrame({"x": pl.Series([1], dtype=pl.Int128)}), "column 'x' is of type Int128"),
    "128-bit inside": (
        lambda: pl.DataFrame({"x": pl.Series([[1]], dtype=pl.List(pl.UInt128))}),
        "column 'x' is of type UInt128",
    ),
    "struct without fields": (lambda: pl.DataFrame({"x": [{}]}, schema={"x": pl.Struct([])}), "'x'.*without fields"),
    "no columns": (lambda: pl.DataFrame(), "no columns"),
    "no columns, lazy": (lambda: pl.LazyFrame(), "no columns"),
    "lists of length zero": (lambda: pa.table({"x": pa.array([[]], pa.list_(pa.int8(), 0))}), "'x'.*length 0"),
    "duplicate names": (lambda: pa.table([[1], [2]], names=["x", "x"]), "more than one column 'x'"),
    "struct inside": (lambda: pa.table({"x": pa.array([[{"y": {}}]])}), r"'x\.y'.*without fields"),
    "union": (
        lambda: pa.table(
            {"x": pa.UnionArray.from_dense(pa.array([0], pa.int8()), pa.array([0], pa.int32()), [pa.array([1])])}
        ),
        "'x'.*union",
    ),
    "interval": (lambda: pa.table({"x": pa.array([(1, 2, 3)], pa.month_day_nano_interval())}), "'x'.*interval"),
    "run ends": (lambda: pa.table({"x": pa.RunEndEncodedArray.from_arrays([1], [1])}), "'x'"),
    "a series": (lambda: pl.Series([1]), "is no table"),
    "an interval of DuckDB": (lambda: duck.sql("select interval 1 day as x"), "'x'.*interval"),
    "a union of DuckDB": (lambda: duck.sql("select union_value(a := 1) as x"), "'x'.*union"),
    "an unsigned hugeint": (lambda: duck.sql("select 1::uhugeint as x"), "'x'.*UHUGEINT"),
    "bits": (lambda: duck.sql("select '101'::bit as x"), "'x'.*BIT"),
    "bits inside": (lambda: duck.sql("select {'y': ['101'::bit]} as x"), "'x'.*BIT"),
    "a bignum": (lambda: duck.sql("select 1::bignum as x"), "'x'.*BIGNUM"),
    "a time with a zone": (lambda: duck.sql("select '01:02:03+01'::timetz as x"), "'x'.*TIME WITH TIME ZONE"),
    "a hugeint of 39 digits": (
        lambda: duck.sql("select ('1' || repeat('0', (36 + i)::int))::hugeint as x from range(3) t(i)"),
        "'x'.*38 digits in row 2",
    ),
    "a hugeint of 39 digits inside": (
        lambda: duck.sql("select [{'y': (-170141183460469231731687303715884105727)::hugeint}] as x"),
        "'x'.*38 digits in row 0",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_is_refused_before_anything_is_visible(case: str, manager: ParquetIOManager, tmp_path: Path) -> None:
    make, words = REFUSED[case]
    with pytest.raises(UnstorableValueError, match=words):
        manager.stage(output(), make())
    assert files_below(tmp_path) == []


SAMPLE: Any = pa.table(
    {
        "id": pa.array([1, 2, 3], pa.int64()),
        "name": pa.array(["a", None, "ü"]),
        "at": pa.array([dt.datetime(2020, 1, 1), None, dt.datetime(2021, 1, 1)], pa.timestamp("us")),
        "amount": pa.array([1.5, 2.5, None]),
    }
)
FORMS: dict[R, Callable[[Any], Any]] = {
    R.POLARS: lambda table: pl.from_arrow(table),
    R.POLARS_LAZY: lambda table: pl.from_arrow(table).lazy(),
    R.PANDAS: lambda table: table.to_pandas(),
    R.ARROW: lambda table: table,
    R.ARROW_READER: lambda table: table.to_reader(2),
    R.DUCKDB: lambda table: duck.from_arrow(table),
}
TYPES = {
    R.POLARS: pl.DataFrame,
    R.POLARS_LAZY: pl.LazyFrame,
    R.PANDAS: pd.DataFrame,
    R.ARROW: pa.Table,
    R.ARROW_READER: pa.RecordBatchReader,
    R.DUCKDB: duck.DuckDBPyRelation,
}


def rows(frame: Any) -> list[dict[str, Any]]:
    if isinstance(frame, pd.DataFrame):
        return [{k: None if pd.isna(v) else v for k, v in row.items()} for row in frame.to_dict("records")]
    if isinstance(frame, pl.DataFrame | pl.LazyFrame):
        return frame.lazy().collect().to_dicts()
    if isinstance(frame, duck.DuckDBPyRelation):
        return frame.to_arrow_table().to_pylist()
    return (frame.read_all() if isinstance(frame, pa.RecordBatchReader) else frame).to_pylist()


@pytest.mark.parametrize("producer", FORMS, ids=str)
@pytest.mark.parametrize("consumer", FORMS, ids=str)
def test_every_form_becomes_every_other(producer: R, consumer: R, manager: ParquetIOManager) -> None:
    context, pointer = store(manager, FORMS[producer](SAMPLE))
    assert pointer.representation == producer.value
    for annotation in (TYPES[consumer], str(consumer), TYPES[consumer] | None):
        found = manager.load_input(input_of(context, pointer, annotation=annotation))
        assert isinstance(found, TYPES[consumer])
        assert rows(found) == SAMPLE.to_pylist()
    unannotated = manager.load_input(input_of(context, pointer))
    assert isinstance(unannotated, TYPES[producer])
    some = manager.load_input(input_of(context, pointer, annotation=TYPES[consumer], columns=("at", "id")))
    found = rows(some)
    assert found == SAMPLE.select(["at", "id"]).to_pylist()
    assert [*found[0]] == ["at", "id"]


@pytest.mark.parametrize("producer", FORMS, ids=str)
def test_every_form_has_the_same_version(producer: R, manager: ParquetIOManager) -> None:
    staged = manager.stage(output(), FORMS[producer](SAMPLE))
    expected = manager.stage(output(), SAMPLE)
    assert staged.data_version == expected.data_version
    assert [(c.name, c.type, c.version, c.nulls, c.min, c.max) for c in staged.pointer.columns] == [
        (c.name, c.type, c.version, c.nulls, c.min, c.max) for c in expected.pointer.columns
    ]
    staged.discard()
    expected.discard()


@pytest.mark.parametrize("consumer", FORMS, ids=str)
def test_a_column_that_is_not_there(consumer: R, manager: ParquetIOManager) -> None:
    context, pointer = store(manager, SAMPLE)
    with pytest.raises(UserCodeError, match="no column 'naem'") as caught:
        manager.load_input(input_of(context, pointer, annotation=TYPES[consumer], columns=("naem",)))
    assert "`name`" in caught.value.remedy


@pytest.mark.parametrize(
    "name", ['a"b', "a'b; drop table x; --", "a.b", "*", "^.*$", "x y", "é", "\\", "[a]", "a\nb", ""]
)
def test_strange_column_names_are_only_names(name: str, manager: ParquetIOManager) -> None:
    table = pa.table({name: [1], "other": [2], f"{name}x": [3]})
    for kind in TYPES.values():
        if name or kind is not duck.DuckDBPyRelation:
            assert rows(round_trip(manager, table, kind, (name,))) == [{name: 1}]
    if name:
        assert rows(from_arrow(pl.from_arrow(table), R.POLARS, (name,))) == [{name: 1}]


def test_duckdb_does_not_mix_up_columns(manager: ParquetIOManager) -> None:
    """It renames `ID` beside `id`, and gives `id` to whoever asks for `ID`."""
    table = pa.table({"id": [1], "ID": [2], "": [3]})
    assert rows(round_trip(manager, table, duck.DuckDBPyRelation, ("ID",))) == [{"ID": 2}]
    assert rows(round_trip(manager, table, duck.DuckDBPyRelation, ("id",))) == [{"id": 1}]
    for columns in (("id", "ID"), ("",), None):
        with pytest.raises(UserCodeError, match="DuckDB cannot tell"):
            round_trip(manager, table, duck.DuckDBPyRelation, columns)


def test_a_relation_may_be_read_often_and_used_by_name(manager: ParquetIOManager) -> None:
    orders = round_trip(manager, SAMPLE, duck.DuckDBPyRelation)
    assert orders.count("*").fetchall() == [(3,)]
    assert orders.filter("id > 1").count("*").fetchall() == [(2,)]
    assert duck.sql("select sum(id) from orders").fetchall() == [(6,)]
    other = round_trip(manager, SAMPLE, duck.DuckDBPyRelation)
    reader = other.to_arrow_reader(1)
    assert reader.read_next_batch().num_rows == 1
    assert orders.count("*").fetchall() == [(3,)]  # each is busy alone
    reader.close()


def test_no_path_is_a_pattern(tmp_path: Path) -> None:
    """Neither a star nor a bracket in a root, nor `partition=` in a path, means anything to a reader."""
    manager = ParquetIOManager(tmp_path / "x[1]*?{a,b}")
    context = output(partition="2024-01-01")
    store(manager, SAMPLE, context)
    pointer = store(manager, SAMPLE.slice(0, 1), output(partition="2024-01-02"))[1]
    for kind in TYPES.values():
        found = manager.load_input(input_of(context, pointer, annotation=kind))
        assert rows(found) == SAMPLE.slice(0, 1).to_pylist()


def test_duckdb_is_not_let_near_numbers_that_it_would_round(manager: ParquetIOManager) -> None:
    table = pa.table({"d": pa.array([Decimal("1" * 60)], pa.decimal256(62, 2)), "n": [1]})
    with pytest.raises(UnstorableValueError, match="'d'"):
        round_trip(manager, table, duck.DuckDBPyRelation)
    assert rows(round_trip(manager, table, duck.DuckDBPyRelation, ("n",))) == [{"n": 1}]


def test_polars_says_what_it_cannot_read(manager: ParquetIOManager, capfd: pytest.CaptureFixture[str]) -> None:
    table = pa.table({"x": pa.array([[1]], pa.list_view(pa.int8()))})
    with pytest.raises(StorageError, match="polars cannot read"):
        round_trip(manager, table, pl.DataFrame)
    capfd.readouterr()  # polars prints its panic


class TestStreams:
    def test_a_stream_that_raises_leaves_nothing(self, manager: ParquetIOManager, tmp_path: Path) -> None:
        def batches() -> Iterator[Any]:
            yield SAMPLE.to_batches()[0]
            raise RuntimeError("mine")

        with pytest.raises(RuntimeError, match="mine"):
            manager.stage(output(), pa.RecordBatchReader.from_batches(SAMPLE.schema, batches()))
        assert files_below(tmp_path) == []

    def test_a_lazy_frame_that_raises_leaves_nothing(self, manager: ParquetIOManager, tmp_path: Path) -> None:
        def fail(_: int) -> int:
            raise RuntimeError("mine")

        lazy = pl.LazyFrame({"a": [1, 2]}).with_columns(pl.col("a").map_elements(fail, return_dtype=pl.Int64))
        with pytest.raises(RuntimeError, match="mine"):
            manager.stage(output(), lazy)
        assert files_below(tmp_path) == []

    def test_a_lazy_frame_of_a_missing_file(self, manager: ParquetIOManager, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            manager.stage(output(), pl.scan_parquet(tmp_path / "none.parquet"))
        assert files_below(tmp_path) == []

    def test_a_query_that_fails_leaves_nothing_and_a_usable_connection(
        self, manager: ParquetIOManager, tmp_path: Path
    ) -> None:
        connection = duck.connect()
        relation = connection.sql(
            "select i, case when i = 150000 then error('boom') else 'a' end as t from range(200000) t(i)"
        )
        with pytest.raises(OSError, match="boom"):
            manager.stage(output(), relation)
        assert connection.execute("select 1").fetchall() == [(1,)]
        assert files_below(tmp_path) == []
        connection.close()

    def test_a_refused_query_leaves_a_usable_connection(self, manager: ParquetIOManager) -> None:
        connection = duck.connect()
        relation = connection.sql("select i, interval 1 day as x from range(1000000) t(i)")
        with pytest.raises(UnstorableValueError):
            manager.stage(output(), relation)
        assert connection.execute("select 1").fetchall() == [(1,)]
        connection.close()

    def test_a_lazy_frame_is_run_once(self, manager: ParquetIOManager) -> None:
        """A frame that draws random numbers is hashed as it is stored, not a second time."""
        calls: list[int] = []

        def count(frame: Any) -> Any:
            calls.append(frame.height)
            return frame

        lazy = pl.LazyFrame({"a": range(1000)}).map_batches(count)
        staged = manager.stage(output(), lazy)
        assert sum(calls) == 1000
        staged.publish()
        back = manager.load_input(input_of(output(), staged.pointer, annotation=pa.Table))
        check = manager.stage(output(), back)
        assert check.data_version == staged.data_version
        check.discard()

    def test_row_groups_are_bounded(self, manager: ParquetIOManager, tmp_path: Path) -> None:
        schema = pa.schema([("a", pa.int64())])
        batch = pa.record_batch({"a": pa.array(range(300_000))})
        context, pointer = store(manager, pa.RecordBatchReader.from_batches(schema, (batch for _ in range(8))))
        (name,) = files_below(tmp_path)
        metadata = parquet().ParquetFile(tmp_path / name).metadata
        groups = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
        assert sum(groups) == pointer.rows == 2_400_000
        assert groups == [1024 * 1024, 151_424, 1024 * 1024, 148_576] or max(groups) <= 1024 * 1024
        assert (pointer.columns[0].min, pointer.columns[0].max) == (0, 299_999)
        assert manager.load_input(input_of(context, pointer)).read_all().num_rows == 2_400_000

    def test_a_stream_without_batches(self, manager: ParquetIOManager) -> None:
        schema = pa.schema([("a", pa.int64()), ("b", pa.string())])
        back = round_trip(manager, pa.RecordBatchReader.from_batches(schema, []))
        assert back.schema == schema and back.read_all().num_rows == 0


class TestDamage:
    @pytest.fixture
    def source(self, tmp_path: Path) -> ParquetSource:
        disk = LocalStore(tmp_path)
        parquet().write_table(SAMPLE, tmp_path / "v.parquet")
        return ParquetSource(store=disk, path="v.parquet", size=os.path.getsize(tmp_path / "v.parquet"))

    @pytest.mark.parametrize("form", FORMS, ids=str)
    def test_a_file_of_another_size(self, form: R, source: ParquetSource, tmp_path: Path) -> None:
        with (tmp_path / "v.parquet").open("ab") as file:
            file.write(b"x")
        with pytest.raises(ChecksumError, match="bytes instead of"):
            read_frame(source, form, None)

    @pytest.mark.parametrize("form", FORMS, ids=str)
    def test_a_file_of_garbage(self, form: R, source: ParquetSource, tmp_path: Path) -> None:
        (tmp_path / "v.parquet").write_bytes(os.urandom(source.size or 0))
        with pytest.raises(ChecksumError, match=r"v\.parquet"):
            found = read_frame(source, form, ("id",))
            rows(found)

    @pytest.mark.parametrize("form", FORMS, ids=str)
    def test_a_file_that_is_gone(self, form: R, source: ParquetSource, tmp_path: Path) -> None:
        (tmp_path / "v.parquet").unlink()
        with pytest.raises(FileNotFoundError):
            read_frame(source, form, None)

    def test_a_large_file_is_read_without_its_path(self, tmp_path: Path) -> None:
        table = pa.table({"a": np.random.default_rng(1).random(300_000)})
        manager = ParquetIOManager(tmp_path)
        context, pointer = store(manager, table)
        assert (pointer.bytes or 0) > 1024 * 1024
        assert manager.load_input(input_of(context, pointer)).equals(table)
        assert manager.load_input(input_of(context, pointer, annotation=pl.DataFrame)).height == 300_000


class TestRemote:
    @pytest.fixture
    def remote(self, bucket: Bucket) -> ParquetIOManager:
        return ParquetIOManager(bucket.root, storage_options=bucket.options)

    @pytest.mark.parametrize("producer", FORMS, ids=str)
    def test_every_form(self, producer: R, remote: ParquetIOManager) -> None:
        context = output("a b/日本", partition="2024/01")
        _, pointer = store(remote, FORMS[producer](SAMPLE), context)
        for kind in TYPES.values():
            found = remote.load_input(input_of(context, pointer, annotation=kind, columns=("name", "id")))
            assert isinstance(found, kind)
            assert rows(found) == SAMPLE.select(["name", "id"]).to_pylist()

    def test_a_large_table_in_parts(self, remote: ParquetIOManager, bucket: Bucket) -> None:
        table = pa.table({"a": np.random.default_rng(1).random(3_000_000), "b": np.arange(3_000_000)})
        context, pointer = store(remote, table)
        assert (pointer.bytes or 0) > 20_000_000
        assert bucket.uploads() == []
        found = remote.load_input(input_of(context, pointer, columns=("b",)))
        assert found.equals(table.select(["b"]))
        for kind in (pl.LazyFrame, duck.DuckDBPyRelation, pa.RecordBatchReader):
            found = remote.load_input(input_of(context, pointer, annotation=kind, columns=("b",)))
            count = found.select(pl.len()).collect().item() if kind is pl.LazyFrame else len(rows(found))
            assert count == 3_000_000

    def test_a_stream_that_raises_leaves_nothing(self, remote: ParquetIOManager, bucket: Bucket) -> None:
        noise = np.random.default_rng(1).random(500_000)

        def batches() -> Iterator[Any]:
            for _ in range(10):
                yield pa.record_batch({"a": noise})
            raise RuntimeError("mine")

        schema = pa.schema([("a", pa.float64())])
        with pytest.raises(RuntimeError, match="mine"):
            remote.stage(output(), pa.RecordBatchReader.from_batches(schema, batches()))
        assert bucket.keys() == [] and bucket.uploads() == []


@pytest.mark.parametrize("wanted", FORMS, ids=str)
@pytest.mark.parametrize("given", FORMS, ids=str)
def test_in_memory_every_form_becomes_every_other(given: R, wanted: R) -> None:
    frame = FORMS[given](SAMPLE)
    value = to_arrow(frame) if given in (R.POLARS_LAZY, R.ARROW_READER, R.DUCKDB) else frame
    found = from_arrow(value, wanted)
    assert isinstance(found, TYPES[wanted])
    assert rows(found) == SAMPLE.to_pylist()
    assert rows(from_arrow(value, wanted, ("at", "id"))) == SAMPLE.select(["at", "id"]).to_pylist()
    with pytest.raises(UserCodeError, match="no column"):
        from_arrow(value, wanted, ("none",))
