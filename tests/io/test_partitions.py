"""Several partitions at once: what annotations give, and what a file read by itself is promised."""

import copy
import datetime as dt
import shlex
from collections.abc import Callable, Mapping
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any, Optional, cast

import pytest

from headwater.catalog.errors import ChecksumError, MissingDataError, StorageError, UnstorableValueError, UserCodeError
from headwater.catalog.partitions.multi import MultiPartitionKey
from headwater.catalog.records import Pointer
from headwater.io import FileIOManager, InMemoryIOManager, IOManager, JsonIOManager, ParquetIOManager, PickleIOManager
from headwater.io.base import InputContext, OutputContext, PartitionsInputContext
from headwater.io.engines import arrow, duckdb, numpy, pandas, polars
from headwater.io.pointers import verify_pointer
from headwater.io.united_frames import join_types
from tests.io.support import files_below, store_partitions
from tests.s3_server import Bucket

pa, pl, pd, np, duck = arrow(), polars(), pandas(), numpy(), duckdb()

FRAMES: dict[str, Any] = {
    "polars": pl.DataFrame,
    "lazy": pl.LazyFrame,
    "pandas": pd.DataFrame,
    "arrow": pa.Table,
    "reader": pa.RecordBatchReader,
    "duckdb": duck.DuckDBPyRelation,
}
#: From an Arrow table to each kind of frame.
MAKE: dict[str, Callable[[Any], Any]] = {
    "polars": pl.from_arrow,
    "lazy": lambda table: pl.from_arrow(table).lazy(),
    "pandas": lambda table: table.to_pandas(),
    "arrow": lambda table: table,
    "reader": lambda table: table.to_reader(),
    "duckdb": duck.from_arrow,
}
DAYS: dict[str, Any] = {f"2024-01-0{i}": pa.table({"a": [i, i * 10], "b": ["x", None]}) for i in (1, 2, 3)}
ROWS = [{"a": a, "b": b} for i in (1, 2, 3) for a, b in ((i, "x"), (i * 10, None))]
TEXTS: dict[str, Any] = {"day": list(DAYS), "odd'|\"": ["a|b", "%7C", "'; drop"]}


class Custom(IOManager):
    """What users write: it keeps what it is given, and returns it whatever the annotation says."""

    def __init__(self) -> None:
        self.kept: dict[str, Any] = {}
        self.asked: list[Any] = []

    def handle_output(self, context: OutputContext, obj: Any) -> Pointer | None:
        self.kept[context.version_id] = obj
        return None

    def load_input(self, context: InputContext) -> Any:
        self.asked.append((context.partition_key, context.annotation))
        return copy.copy(self.kept[context.version_id])


MANAGERS: dict[str, Callable[[], IOManager]] = {
    "files": FileIOManager,
    "parquet": ParquetIOManager,
    "pickle": PickleIOManager,
    "memory": InMemoryIOManager,
    "custom": Custom,
}


@pytest.fixture
def manager(tmp_path: Path) -> FileIOManager:
    manager = FileIOManager()
    manager.bind(tmp_path / "home")
    return manager


@pytest.fixture(params=FRAMES)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def table_of(frame: Any) -> Any:
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


def rows_of(frame: Any) -> list[dict[str, Any]]:
    return table_of(frame).to_pylist()


class TestFrames:
    @pytest.mark.parametrize("name", MANAGERS)
    def test_one_frame_of_all(self, name: str, kind: str, tmp_path: Path) -> None:
        manager = MANAGERS[name]()
        manager.bind(tmp_path)
        stored = "arrow" if name in ("pickle", "custom") else kind
        context = store_partitions(manager, {key: MAKE[stored](table) for key, table in DAYS.items()})
        frame = manager.load_partitions(replace(context, annotation=FRAMES[kind]))
        assert isinstance(frame, FRAMES[kind])
        assert rows_of(frame) == ROWS

    @pytest.mark.parametrize("name", MANAGERS)
    def test_the_text_of_each_partition_as_columns(self, name: str, kind: str, tmp_path: Path) -> None:
        manager = MANAGERS[name]()
        manager.bind(tmp_path)
        context = store_partitions(manager, DAYS, annotation=FRAMES[kind], partition_columns=TEXTS)
        table = table_of(manager.load_partitions(context))
        assert table.column_names == ["a", "b", *TEXTS]
        added = [{name: texts[i] for name, texts in TEXTS.items()} for i in (0, 0, 1, 1, 2, 2)]
        assert table.to_pylist() == [{**row, **more} for row, more in zip(ROWS, added, strict=True)]
        assert all(pa.types.is_string(t) or pa.types.is_large_string(t) for t in table.schema.types[2:])

    def test_one_partition_is_a_frame_too(self, kind: str, manager: FileIOManager) -> None:
        context = store_partitions(manager, {"2024": DAYS["2024-01-01"]}, annotation=FRAMES[kind])
        frame = manager.load_partitions(context)
        assert isinstance(frame, FRAMES[kind]) and rows_of(frame) == ROWS[:2]

    def test_columns_in_the_order_that_is_asked_for(self, kind: str, manager: FileIOManager) -> None:
        context = store_partitions(manager, DAYS, annotation=FRAMES[kind], columns=("b", "a"))
        table = table_of(manager.load_partitions(context))
        assert table.column_names == ["b", "a"] and table.to_pylist() == ROWS
        added = replace(context, columns=("b",), partition_columns={"a": TEXTS["day"]})
        table = table_of(manager.load_partitions(added))
        assert table.column_names == ["b", "a"] and table["a"].to_pylist() == [day for day in DAYS for _ in "ab"]
        with pytest.raises(UserCodeError, match=r"`shop/orders` has no column 'A'"):
            manager.load_partitions(replace(context, columns=("A",)))

    @pytest.mark.parametrize("columns", [None, ("a",)])
    def test_a_column_for_the_partition_that_is_there(self, columns: Any, kind: str, manager: FileIOManager) -> None:
        context = store_partitions(manager, DAYS, annotation=FRAMES[kind], columns=columns)
        with pytest.raises(UserCodeError, match=r"'a' of partition keys .*shop/orders \[2024-01-01\]"):
            manager.load_partitions(replace(context, partition_columns={"a": list("xyz")}))

    @pytest.mark.parametrize("name", ["files", "memory"])
    def test_a_column_added_later(self, name: str, kind: str, tmp_path: Path) -> None:
        manager = MANAGERS[name]()
        manager.bind(tmp_path)
        days = {
            "1": pa.table({"a": [1, 2]}),
            "2": pa.table({"b": ["x"], "a": [3]}),
            "3": pa.table({"b": pa.nulls(1), "a": pa.nulls(1), "c": [dt.date(2024, 1, 1)]}),
            "4": pa.table({"a": [1.5]}),
        }
        expected = [
            {"a": 1.0, "b": None, "c": None},
            {"a": 2.0, "b": None, "c": None},
            {"a": 3.0, "b": "x", "c": None},
            {"a": None, "b": None, "c": dt.date(2024, 1, 1)},
            {"a": 1.5, "b": None, "c": None},
        ]
        context = store_partitions(manager, days, annotation=FRAMES[kind])
        table = table_of(manager.load_partitions(context))
        assert table.column_names == ["a", "b", "c"] and table.to_pylist() == expected
        assert table.schema.field("a").type == pa.float64()
        context = replace(context, columns=("c", "b"), partition_columns={"day": list("wxyz")})
        table = table_of(manager.load_partitions(context))
        assert table.column_names == ["c", "b", "day"]
        days_of = ["w", "w", "x", "y", "z"]
        assert table.to_pylist() == [
            {"c": row["c"], "b": row["b"], "day": day} for row, day in zip(expected, days_of, strict=True)
        ]
        only = table_of(manager.load_partitions(replace(context, columns=("c",), partition_columns={})))
        assert only.to_pylist() == [{"c": row["c"]} for row in expected]

    def test_what_cannot_be_united_names_both(self, kind: str, manager: FileIOManager) -> None:
        days = {"1": pa.table({"a": [1]}), "2": pa.table({"a": [2], "b": [1]}), "3": pa.table({"a": [2], "b": ["x"]})}
        context = store_partitions(manager, days, annotation=FRAMES[kind])
        with pytest.raises(UserCodeError) as caught:
            manager.load_partitions(context)
        for part in ("'b'", "nt64", "tring", "shop/orders [2]", "shop/orders [3]"):
            assert part in caught.value.message
        assert "dict[str, T]" in caught.value.remedy
        assert rows_of(manager.load_partitions(replace(context, columns=("a",)))) == [{"a": 1}, {"a": 2}, {"a": 2}]

    def test_an_integer_that_is_no_float(self, kind: str, manager: FileIOManager) -> None:
        days = {"1": pa.table({"a": [0.5]}), "2": pa.table({"a": [1, 2**53]}), "3": pa.table({"a": [1, 2**53 + 1]})}
        context = store_partitions(manager, days, annotation=FRAMES[kind])
        assert rows_of(manager.load_partitions(replace(context, partitions=context.partitions[:2])))[2] == {
            "a": 2.0**53
        }
        with pytest.raises(UserCodeError, match=r"'a' of `shop/orders \[3\]"):
            frame = manager.load_partitions(context)
            rows_of(frame)

    def test_partitions_without_rows(self, kind: str, manager: FileIOManager) -> None:
        empty = DAYS["2024-01-01"].slice(0, 0)
        context = store_partitions(manager, {"1": empty, "2": DAYS["2024-01-01"], "3": empty}, annotation=FRAMES[kind])
        assert rows_of(manager.load_partitions(context)) == ROWS[:2]
        added = replace(context, partition_columns={"p": ["1", "2", "3"]})
        assert rows_of(manager.load_partitions(added)) == [{**row, "p": "2"} for row in ROWS[:2]]
        nothing = replace(added, partitions=added.partitions[:1], partition_columns={"p": ["1"]})
        assert table_of(manager.load_partitions(nothing)).column_names == ["a", "b", "p"]

    def test_names_that_are_patterns_elsewhere(self, kind: str, tmp_path: Path) -> None:
        manager = FileIOManager(tmp_path / "a*[b]?")
        table = pa.table({"*": [1], "^a.*$": [2], "path": [3], "file_row_number": [4]})
        context = store_partitions(manager, {"*": table, "[a]": table}, annotation=FRAMES[kind])
        assert rows_of(manager.load_partitions(context)) == table.to_pylist() * 2
        context = replace(context, columns=("^a.*$",), partition_columns={"*": ["1", "2"]})
        assert rows_of(manager.load_partitions(context)) == [{"^a.*$": 2, "*": "1"}, {"^a.*$": 2, "*": "2"}]

    @pytest.mark.parametrize("place", ["bucket", "memory"])
    def test_on_an_object_store(self, place: str, kind: str, bucket: Bucket, tmp_path: Path) -> None:
        root, options = (bucket.root, bucket.options) if place == "bucket" else (f"memory://{bucket.name}/x", {})
        manager = FileIOManager(root, storage_options=options)
        frames: dict[str, Any] = {
            MultiPartitionKey({"day": key, "shop": "a b/c"}): table for key, table in DAYS.items()
        }
        context = store_partitions(manager, frames, annotation=FRAMES[kind])
        assert rows_of(manager.load_partitions(context)) == ROWS
        added = replace(context, columns=("a",), partition_columns={"day": list(DAYS)})
        days = [day for day in DAYS for _ in "ab"]
        expected = [{"a": row["a"], "day": day} for row, day in zip(ROWS, days, strict=True)]
        assert rows_of(manager.load_partitions(added)) == expected
        drifted = store_partitions(manager, {"1": pa.table({"a": [1]}), "2": pa.table({"a": [0.5], "b": [2]})})
        frame = manager.load_partitions(replace(drifted, annotation=FRAMES[kind]))
        assert rows_of(frame) == [{"a": 1.0, "b": None}, {"a": 0.5, "b": 2}]
        manager.delete(context.partitions[1].pointer)
        with pytest.raises(MissingDataError, match=r"2024-01-02\|a b/c"):
            rows_of(manager.load_partitions(context))

    def test_large_files(self, kind: str, manager: FileIOManager) -> None:
        """From 1 MiB on a file is not read to be checked."""
        rng = np.random.default_rng(1)
        big = {f"{i}": pa.table({"i": np.full(200_000, i), "x": rng.random(200_000)}) for i in range(3)}
        context = store_partitions(manager, big, annotation=FRAMES[kind], partition_columns={"p": list("abc")})
        assert all((partition.pointer.bytes or 0) > 1024 * 1024 for partition in context.partitions)
        table = table_of(manager.load_partitions(context))
        assert (
            table.select(["i", "x"]).cast(big["0"].schema).combine_chunks()
            == pa.concat_tables(big.values()).combine_chunks()
        )
        assert table["p"].to_pylist() == [text for text in "abc" for _ in range(200_000)]
        path = Path(str(context.partitions[1].pointer.uri).removeprefix("file://"))
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(ChecksumError, match=r"shop/orders \[1\]"):
            manager.load_partitions(context)

    def test_a_key_that_is_no_unicode_text(self, kind: str, manager: FileIOManager) -> None:
        context = store_partitions(manager, {"\ud800": pa.table({"a": [1]})}, annotation=FRAMES[kind])
        assert rows_of(manager.load_partitions(context)) == [{"a": 1}]
        with pytest.raises(UserCodeError, match="no Unicode text"):
            manager.load_partitions(replace(context, partition_columns={"p": ["\ud800"]}))


class TestTypes:
    """What a single read brings back comes back from several."""

    def test_categories_of_polars(self, manager: FileIOManager) -> None:
        kinds = {"e": pl.Enum(["x", "y"]), "c": pl.Categorical(), "l": pl.List(pl.Categorical())}
        frames = {
            key: pl.DataFrame({"e": ["x", None], "c": [text, None], "l": [[text], []]}, schema=kinds)
            for key, text in {"1": "a", "2": "b"}.items()
        }
        context = store_partitions(manager, frames)
        for annotation in (pl.DataFrame, pl.LazyFrame, None):
            frame = manager.load_partitions(replace(context, annotation=annotation)).lazy().collect()
            assert frame.schema == pl.Schema(kinds)
            assert frame.rows() == [("x", "a", ["a"]), (None, None, []), ("x", "b", ["b"]), (None, None, [])]
        table = manager.load_partitions(replace(context, annotation=pa.Table))
        assert pl.from_arrow(table).equals(manager.load_partitions(replace(context, annotation=pl.DataFrame)))

    def test_enumerations_that_differ(self, manager: FileIOManager) -> None:
        frames = {name: pl.DataFrame({"e": ["x"]}, schema={"e": pl.Enum(["x", name])}) for name in ("y", "z")}
        context = store_partitions(manager, frames, annotation=pl.LazyFrame)
        with pytest.raises(UserCodeError, match=r"'e' is Enum.*\[y\].*Enum.*\[z\]"):
            manager.load_partitions(context)
        assert rows_of(manager.load_partitions(replace(context, annotation=pa.Table))) == [{"e": "x"}] * 2

    def test_types_that_come_back_by_a_cast(self, manager: FileIOManager) -> None:
        table = pa.table(
            {
                "s": pa.array([1], pa.timestamp("s", "Europe/Berlin")),
                "d": pa.array([86_400_000], pa.date64()),
                "n": pa.array([7, 8, 7]).dictionary_encode().slice(0, 1),
            }
        )
        context = store_partitions(manager, {"1": table, "2": table})
        expected = pa.concat_tables([table, table])
        assert manager.load_partitions(replace(context, annotation=pa.Table)).schema.equals(table.schema)
        for annotation in (pa.Table, pa.RecordBatchReader):
            back = table_of(manager.load_partitions(replace(context, annotation=annotation)))
            assert back.schema.equals(table.schema) and back.to_pylist() == expected.to_pylist()

    @pytest.mark.parametrize("annotation", [pl.DataFrame, pl.LazyFrame, pa.Table, pa.RecordBatchReader])
    def test_small_and_large_frames_of_polars(self, annotation: Any, manager: FileIOManager) -> None:
        """They go through two writers."""
        values: dict[str, tuple[Any, Any]] = {
            "i": (1, pl.Int8()),
            "u": (2**63, pl.UInt64()),
            "f": (1.5, pl.Float32()),
            "m": (Decimal("1.10"), pl.Decimal(20, 2)),
            "d": (dt.timedelta(seconds=1), pl.Duration("ms")),
            "t": (dt.time(1, 2, 3), pl.Time()),
            "ns": (dt.datetime(2024, 1, 1), pl.Datetime("ns", "Europe/Berlin")),
            "ms": (dt.datetime(2024, 1, 1), pl.Datetime("ms")),
            "b": (b"x", pl.Binary()),
            "l": ([1, None], pl.List(pl.Int32())),
            "s": ({"a": 1, "b": ["x"]}, pl.Struct({"a": pl.Int64(), "b": pl.List(pl.String())})),
            "a": ([1, 2], pl.Array(pl.Int64(), 2)),
            "c": ("a", pl.Categorical()),
            "e": ("a", pl.Enum(["a", "b"])),
            "o": (True, pl.Boolean()),
        }
        large, small = (
            pl.DataFrame([pl.Series(name, [value] * rows, dtype=kind) for name, (value, kind) in values.items()])
            for rows in (20_000, 2)
        )
        context = store_partitions(manager, {"1": small, "2": large, "3": large.lazy()}, annotation=annotation)
        back = manager.load_partitions(context)
        frame = back.collect() if annotation is pl.LazyFrame else pl.DataFrame(table_of(back))
        assert frame.schema == large.schema and frame.equals(pl.concat([small, large, large]))

    def test_a_pandas_index(self, manager: FileIOManager) -> None:
        frames = {
            key: pd.DataFrame({"v": [i, i + 1]}, index=pd.MultiIndex.from_tuples([("a", i), ("b", i)], names=["x", 7]))
            for i, key in enumerate("pq")
        }
        context = store_partitions(manager, frames)
        back = manager.load_partitions(context)
        pd.testing.assert_frame_equal(back, pd.concat(frames.values()))
        added = manager.load_partitions(replace(context, columns=("v",), partition_columns={"p": ["1", "2"]}))
        pd.testing.assert_frame_equal(added, pd.concat(frames.values()).assign(p=["1", "1", "2", "2"]))

    def test_pandas_rows_are_numbered_anew(self, manager: FileIOManager) -> None:
        frames = {key: pd.DataFrame({"v": [1, 2], "s": ["a", None]}) for key in "pq"}
        back = manager.load_partitions(store_partitions(manager, frames))
        pd.testing.assert_frame_equal(back, pd.concat(frames.values(), ignore_index=True))
        assert isinstance(back.index, pd.RangeIndex)

    def test_pandas_indexes_that_differ(self, manager: FileIOManager) -> None:
        frames = {"p": pd.DataFrame({"v": [1]}), "q": pd.DataFrame({"v": [1]}, index=pd.Index([5], name="i"))}
        with pytest.raises(UserCodeError, match=r"\[p\].*number of the row.*\[q\].*'i'") as caught:
            manager.load_partitions(store_partitions(manager, frames))
        assert "reset_index" in caught.value.remedy

    def test_pandas_categories_of_all(self, manager: FileIOManager) -> None:
        frames = {
            "p": pd.DataFrame(
                {"c": pd.Categorical(["b", None]), "o": [b"x", float("nan")], "i": pd.array([1, None], "Int64")}
            ),
            "q": pd.DataFrame({"c": pd.Categorical(["a"]), "o": [b"y"], "i": pd.array([2], "Int64")}),
        }
        context = store_partitions(manager, frames, partition_columns={"p": ["1", "2"]})
        back = manager.load_partitions(context)
        assert list(back.columns) == ["c", "o", "i", "p"]
        assert list(back["c"].cat.categories) == ["b", "a"] and back["c"].tolist()[::2] == ["b", "a"]
        assert str(back["i"].dtype) == "Int64" and back["i"].tolist()[::2] == [1, 2]
        assert back["p"].tolist() == ["1", "1", "2"] and back["o"].tolist()[0] == b"x"
        ordered = {key: pd.DataFrame({"c": pd.Categorical([key], categories=[key, "z"], ordered=True)}) for key in "pq"}
        with pytest.raises(UserCodeError, match=r"ordered categories.*'c'.*\[p\].*\[q\]"):
            manager.load_partitions(store_partitions(manager, ordered))

    def test_a_pandas_column_added_later(self, manager: FileIOManager) -> None:
        frames = {
            "1": pd.DataFrame({"a": [1]}),
            "2": pd.DataFrame({"a": [2], "t": [("x", 1)][:1], "c": pd.Categorical(["k"])}),
        }
        back = manager.load_partitions(
            store_partitions(manager, {k: v.drop(columns="t", errors="ignore") for k, v in frames.items()})
        )
        assert back["a"].tolist() == [1, 2] and list(back.columns) == ["a", "c"]
        assert pd.isna(back["c"].tolist()[0]) and back["c"].tolist()[1] == "k"

    @pytest.mark.parametrize(
        ("one", "other", "both"),
        [
            (pa.int8(), pa.int64(), pa.int64()),
            (pa.uint32(), pa.int32(), pa.int64()),
            (pa.int64(), pa.float32(), pa.float64()),
            (pa.float32(), pa.float64(), pa.float64()),
            (pa.decimal128(10, 2), pa.decimal128(12, 4), pa.decimal128(12, 4)),
            (pa.timestamp("us"), pa.timestamp("ns"), pa.timestamp("ns")),
            (pa.timestamp("us", "UTC"), pa.timestamp("ms", "UTC"), pa.timestamp("us", "UTC")),
            (pa.string(), pa.large_string(), pa.large_string()),
            (pa.list_(pa.int32()), pa.list_(pa.int64()), pa.list_(pa.int64())),
            (
                pa.struct([("a", pa.int32())]),
                pa.struct([("a", pa.float64()), ("b", pa.string())]),
                pa.struct([("a", pa.float64()), ("b", pa.string())]),
            ),
            (pa.uint64(), pa.int64(), None),
            (pa.bool_(), pa.int64(), None),
            (pa.string(), pa.binary(), None),
            (pa.string(), pa.int64(), None),
            (pa.decimal128(10, 2), pa.float64(), None),
            (pa.timestamp("us", "UTC"), pa.timestamp("us"), None),
            (pa.date32(), pa.timestamp("us"), None),
            (pa.list_(pa.int32()), pa.list_(pa.string()), None),
            (pa.dictionary(pa.int32(), pa.string(), True), pa.dictionary(pa.int32(), pa.string(), False), None),
        ],
        ids=str,
    )
    def test_joined_types(self, one: Any, other: Any, both: Any) -> None:
        for left, right in ((one, other), (other, one)):
            joined = join_types(left, right)
            names = {"a", "b"} if pa.types.is_struct(left) and joined else set[str]()
            assert {item.name for item in joined.fields} == names if names else joined == both
            assert join_types(left, left) == left and join_types(left, pa.null()) == left
        assert join_types(pa.string_view(), pa.large_string()) in (pa.string_view(), pa.large_string())

    def test_decimals_stay_what_they_are(self, kind: str, manager: FileIOManager) -> None:
        frames = {
            "1": pa.table({"m": pa.array([Decimal("1.10")], pa.decimal128(10, 2))}),
            "2": pa.table({"m": pa.array([Decimal("2.1234")], pa.decimal128(12, 4))}),
        }
        back = rows_of(manager.load_partitions(store_partitions(manager, frames, annotation=FRAMES[kind])))
        assert [row["m"] for row in back] == [Decimal("1.10"), Decimal("2.1234")]


class TestDicts:
    @pytest.mark.parametrize("name", MANAGERS)
    @pytest.mark.parametrize("annotation", [dict[str, pl.DataFrame], "Mapping[str, pl.DataFrame] | None"])
    def test_always_a_dict(self, name: str, annotation: Any, tmp_path: Path) -> None:
        manager = MANAGERS[name]()
        manager.bind(tmp_path)
        context = store_partitions(manager, {key: pl.from_arrow(table) for key, table in DAYS.items()})
        for count in (3, 1, 0):
            part = replace(context, annotation=annotation, partitions=context.partitions[:count])
            found = manager.load_partitions(part)
            assert type(found) is dict and list(cast(dict[str, Any], found)) == list(DAYS)[:count]
            assert all(isinstance(frame, pl.DataFrame) for frame in cast(dict[str, Any], found).values())

    def test_each_as_its_annotation_says(self, kind: str, manager: FileIOManager) -> None:
        context = store_partitions(manager, DAYS, annotation=dict[str, FRAMES[kind]], columns=("b",))
        found = manager.load_partitions(context)
        assert all(isinstance(frame, FRAMES[kind]) for frame in found.values())
        assert rows_of(found["2024-01-02"]) == [{"b": "x"}, {"b": None}]
        added = manager.load_partitions(replace(context, partition_columns={"d": ["1", "2", "3"]}))
        assert isinstance(added["2024-01-02"], FRAMES[kind])
        assert rows_of(added["2024-01-02"]) == [{"b": "x", "d": "2"}, {"b": None, "d": "2"}]
        with pytest.raises(UserCodeError, match="'b' of partition keys"):
            manager.load_partitions(replace(context, partition_columns={"b": ["1", "2", "3"]}))

    def test_a_bare_dict_has_what_the_producer_returned(self, manager: FileIOManager) -> None:
        values = {"1": pl.DataFrame({"a": [1]}), "2": pd.DataFrame({"a": [1]}), "3": {"a": 1}, "4": None}
        context = store_partitions(manager, values, annotation=dict)
        found = manager.load_partitions(context)
        assert [type(value) for value in found.values()] == [pl.DataFrame, pd.DataFrame, dict, type(None)]

    def test_values(self, tmp_path: Path) -> None:
        manager = JsonIOManager(tmp_path)
        context = store_partitions(manager, {"1": {"n": 1}, "2": {"n": 2}})
        for annotation in (None, Any, "Any", dict, dict[str, dict[str, int]], "dict[str, dict] | None"):
            assert manager.load_partitions(replace(context, annotation=annotation)) == {"1": {"n": 1}, "2": {"n": 2}}
        with pytest.raises(UserCodeError, match="has no columns"):
            manager.load_partitions(replace(context, partition_columns={"p": ["1", "2"]}))
        with pytest.raises(UserCodeError, match=r"\[1\].*holds a dict, and a polars\.DataFrame is asked for"):
            manager.load_partitions(replace(context, annotation=pl.DataFrame))

    def test_a_manager_of_ones_own_is_asked_for_each(self) -> None:
        manager = Custom()
        context = store_partitions(manager, {"1": 1, "2": 2}, annotation="dict[str, int]")
        assert manager.load_partitions(context) == {"1": 1, "2": 2}
        assert manager.asked == [("1", "int"), ("2", "int")]
        with pytest.raises(UserCodeError, match=r"\[1\].*holds an int, and a pyarrow\.Table is asked for"):
            manager.load_partitions(replace(context, annotation=pa.Table))


class TestUnannotated:
    def test_frames_come_as_the_first_was_returned(self, kind: str, manager: FileIOManager) -> None:
        frames = {key: MAKE[kind](table) for key, table in DAYS.items()}
        frame = manager.load_partitions(store_partitions(manager, frames))
        assert isinstance(frame, FRAMES[kind]) and rows_of(frame) == ROWS

    def test_memory_gives_what_files_would(self, kind: str) -> None:
        manager = InMemoryIOManager()
        frame = manager.load_partitions(
            store_partitions(manager, {key: MAKE[kind](table) for key, table in DAYS.items()})
        )
        assert isinstance(frame, FRAMES[kind]) and rows_of(frame) == ROWS

    def test_anything_else_is_a_dict(self, manager: FileIOManager) -> None:
        context = store_partitions(manager, {"1": DAYS["2024-01-01"], "2": 3})
        found = manager.load_partitions(context)
        assert list(found) == ["1", "2"] and found["2"] == 3
        assert found["1"].equals(DAYS["2024-01-01"])

    def test_pickles_are_a_dict(self, tmp_path: Path) -> None:
        manager = PickleIOManager()
        manager.bind(tmp_path)
        assert manager.load_partitions(store_partitions(manager, {"1": (1,), "2": {2}})) == {"1": (1,), "2": {2}}


class TestAnnotations:
    @pytest.mark.parametrize("annotation", [int, "list[pl.DataFrame]", list[pl.DataFrame], "Thing", set, str | None])
    def test_one_that_takes_no_partitions(self, annotation: Any, manager: FileIOManager) -> None:
        context = store_partitions(manager, DAYS, annotation=annotation)
        with pytest.raises(UserCodeError, match=r"3 partitions of `shop/orders`") as caught:
            manager.load_partitions(context)
        assert "dict[str, T]" in caught.value.remedy

    def test_no_partitions(self, manager: FileIOManager) -> None:
        context = store_partitions(manager, {})
        for annotation in (None, pl.DataFrame, "pl.LazyFrame | None", int, Any):
            assert manager.load_partitions(replace(context, annotation=annotation)) is None
        for annotation in (dict, dict[str, int], Mapping[str, pl.DataFrame], "dict[str, X]", Optional[dict[str, int]]):  # noqa: UP045
            assert manager.load_partitions(replace(context, annotation=annotation)) == {}

    def test_partitions_that_may_be_none(self, manager: FileIOManager) -> None:
        context = store_partitions(manager, {"1": DAYS["2024-01-01"], "2": None, "3": DAYS["2024-01-02"]})
        frame = manager.load_partitions(
            replace(context, annotation=pl.DataFrame | None, partition_columns={"p": list("abc")})
        )
        assert rows_of(frame) == [{**row, "p": p} for row, p in zip(ROWS[:4], "aacc", strict=True)]
        nothing = replace(context, annotation=pl.DataFrame | None, partitions=context.partitions[1:2])
        assert manager.load_partitions(nothing) is None
        with pytest.raises(UserCodeError, match=r"\[2\].*holds a NoneType"):
            manager.load_partitions(replace(context, annotation=pl.DataFrame))


class TestDamage:
    def test_a_missing_file_says_how_to_make_it_anew(self, kind: str, manager: FileIOManager) -> None:
        context = store_partitions(manager, {"2024": DAYS["2024-01-01"], "it's|2025": DAYS["2024-01-02"]})
        manager.delete(context.partitions[1].pointer)
        for annotation in (FRAMES[kind], dict[str, FRAMES[kind]]):
            for more in ({}, {"partition_columns": {"p": ["1", "2"]}}):
                with pytest.raises(MissingDataError) as caught:
                    manager.load_partitions(replace(context, annotation=annotation, **more))
                assert "`shop/orders [it's|2025]`" in caught.value.message
                word = shlex.quote("it's|2025")
                assert f"`headwater materialize shop/orders --partition {word} --force`" in caught.value.remedy

    @pytest.mark.parametrize("damage", ["truncated", "flipped", "empty"])
    def test_a_damaged_file_names_its_partition(self, damage: str, kind: str, manager: FileIOManager) -> None:
        context = store_partitions(manager, DAYS, annotation=FRAMES[kind])
        path = Path(context.partitions[1].pointer.uri.removeprefix("file://"))
        data = bytearray(path.read_bytes())
        if damage == "flipped":
            data[len(data) // 2] ^= 1
        path.write_bytes({"truncated": data[:-1], "flipped": data, "empty": b""}[damage])
        with pytest.raises(ChecksumError, match=r"shop/orders \[2024-01-02\].*is not the file") as caught:
            manager.load_partitions(context)
        assert "--partition 2024-01-02 --force" in caught.value.remedy

    def test_a_large_file_that_decodes_to_nothing_is_found(self, manager: FileIOManager) -> None:
        big = {key: pl.DataFrame({"x": np.random.default_rng(1).random(200_000)}) for key in "ab"}
        context = store_partitions(manager, big, annotation=pl.DataFrame)
        path = Path(context.partitions[1].pointer.uri.removeprefix("file://"))
        data = bytearray(path.read_bytes())
        data[:64] = data[1000:400_000] = b""
        path.write_bytes(bytes((context.partitions[1].pointer.bytes or 0) - len(data)) + data)
        with pytest.raises((ChecksumError, StorageError), match=r"\[b\]"):
            manager.load_partitions(context)

    def test_a_reader_finds_out_when_it_gets_there(self, manager: FileIOManager) -> None:
        context = store_partitions(manager, DAYS, annotation=pa.RecordBatchReader)
        reader = manager.load_partitions(context)
        assert reader.read_next_batch().num_rows == 2
        manager.delete(context.partitions[2].pointer)
        with pytest.raises(MissingDataError, match=r"\[2024-01-03\]"):
            reader.read_all()

    def test_a_root_may_move(self, kind: str, manager: FileIOManager, tmp_path: Path) -> None:
        keys = [MultiPartitionKey({"day": day, "shop": "a/b"}) for day in DAYS]
        context = store_partitions(manager, dict(zip(keys, DAYS.values(), strict=True)), annotation=FRAMES[kind])
        plain = replace(
            context,
            partitions=tuple(replace(part, partition_key=str(part.partition_key)) for part in context.partitions),
        )
        (tmp_path / "home").rename(tmp_path / "elsewhere")
        moved = FileIOManager()
        moved.bind(tmp_path / "elsewhere")
        assert rows_of(moved.load_partitions(plain)) == ROWS
        assert list(moved.load_partitions(replace(plain, annotation=dict))) == [str(key) for key in keys]
        moved.delete(replace(plain.partitions[0].pointer))
        for path in files_below(tmp_path)[:1]:
            (tmp_path / path).unlink()
        with pytest.raises(MissingDataError):
            rows_of(moved.load_partitions(plain))

    def test_every_file_is_the_one_that_was_written(self, manager: FileIOManager) -> None:
        context = store_partitions(manager, DAYS)
        for partition in context.partitions:
            verify_pointer(partition.pointer)


def test_duckdb_refuses_what_it_would_change(manager: FileIOManager) -> None:
    context = store_partitions(
        manager,
        {"1": pa.table({"id": [1], "ID": [2], "w": pa.array([Decimal(1)], pa.decimal256(50, 2))})},
        annotation=duck.DuckDBPyRelation,
    )
    with pytest.raises(UserCodeError, match="DuckDB cannot tell the column 'ID'"):
        manager.load_partitions(context)
    with pytest.raises(UserCodeError, match="DuckDB cannot tell the column 'Id'"):
        manager.load_partitions(replace(context, columns=("id",), partition_columns={"Id": ["x"]}))
    with pytest.raises(UnstorableValueError, match="as floats"):
        manager.load_partitions(replace(context, columns=("w",)))
    assert rows_of(manager.load_partitions(replace(context, columns=("ID",)))) == [{"ID": 2}]


def test_pointers_that_tell_no_columns(kind: str, manager: FileIOManager) -> None:
    """Nor sizes, nor rows: of a manager of one's own, which wrote Parquet."""
    context = store_partitions(manager, DAYS, annotation=FRAMES[kind], partition_columns=TEXTS)
    bare = tuple(
        replace(partition, pointer=Pointer(uri=partition.pointer.uri, format="parquet"))
        for partition in context.partitions
    )
    expected = table_of(manager.load_partitions(context))
    assert table_of(manager.load_partitions(replace(context, partitions=bare))).to_pylist() == expected.to_pylist()
    first = replace(context, partitions=bare, partition_columns={}, columns=("b",), annotation=None)
    assert manager.load_partitions(first).column_names == ["b"]


def test_a_context_for_one_of_them() -> None:
    context = store_partitions(Custom(), {"1": 1}, columns=("a",), metadata={"m": 1}, definition_metadata={"d": 2})
    one = context.of_partition(context.partitions[0], int)
    assert (one.partition_key, one.annotation, one.columns) == ("1", int, ("a",))
    assert (one.metadata, one.definition_metadata, one.asset_key) == ({"m": 1}, {"d": 2}, context.asset_key)
    assert isinstance(context, PartitionsInputContext) and one.has_partition_key
