"""What is written of a frame into its file, and what is known of it afterwards."""

import datetime as dt
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from headwater.catalog.errors import ConfigError, StorageError
from headwater.catalog.records import Column
from headwater.io import FileIOManager, ParquetIOManager
from headwater.io.engines import arrow, duckdb, numpy, parquet, polars
from headwater.io.parquet_file import Encoding, describe, read_footer, write_table
from headwater.io.store import Sink, StagedFile
from tests.io.support import files_below, input_of, output, store

pa, pl, np, duck = arrow(), polars(), numpy(), duckdb()


def bounds(array: Any, path: Path) -> tuple[Any, Any]:
    return _limits(ParquetIOManager(path).stage(output(), pa.table({"x": array})).pointer.columns[0])


def _limits(column: Column) -> tuple[Any, Any]:
    return column.min, column.max


@pytest.mark.parametrize(
    ("array", "low", "high"),
    [
        (pa.array([3, None, -1]), -1, 3),
        (pa.array([2**64 - 1, 0], pa.uint64()), 0, 2**64 - 1),
        (pa.array([1.5, float("nan"), -2.5]), -2.5, 1.5),
        (pa.array([float("inf"), 1.0]), 1.0, "inf"),
        (pa.array([float("nan")]), None, None),
        (pa.array([True, False, None]), False, True),
        (pa.array(["b", "a", None]), "a", "b"),
        (pa.array(["é", "z"]), "z", "é"),
        (pa.array(["a", "x" * 64]), None, None),  # polars cuts such a bound, so none is believed
        (pa.array(["b", "a", None]).dictionary_encode(), "a", "b"),
        (pa.array([b"a"]), None, None),
        (pa.array([dt.date(2020, 2, 3), dt.date(1, 1, 1)]), "0001-01-01", "2020-02-03"),
        (pa.array([86_400_000], pa.date64()), "1970-01-02", "1970-01-02"),
        (pa.array([-1, 1], pa.timestamp("us")), "1969-12-31T23:59:59.999999", "1970-01-01T00:00:00.000001"),
        (pa.array([0, 1_000_000_001], pa.timestamp("ns")), "1970-01-01T00:00:00", "1970-01-01T00:00:01.000000001"),
        (pa.array([1], pa.timestamp("s")), "1970-01-01T00:00:01", "1970-01-01T00:00:01"),
        (pa.array([1], pa.timestamp("s", "Europe/Berlin")), "1970-01-01T00:00:01Z", "1970-01-01T00:00:01Z"),
        (pa.array([1], pa.timestamp("ms", "UTC")), "1970-01-01T00:00:00.001000Z", "1970-01-01T00:00:00.001000Z"),
        (pa.array([2**62], pa.timestamp("us")), None, None),  # a year that Python does not have
        (pa.array([3_661, 0], pa.time32("s")), "00:00:00", "01:01:01"),
        (pa.array([1], pa.time64("ns")), "00:00:00.000000001", "00:00:00.000000001"),
        (pa.array([Decimal("1.10"), Decimal("-2.00")]), "-2.00", "1.10"),
        (pa.array([1.5], pa.float16()), None, None),
        (pa.nulls(2), None, None),
        (pa.array([None], pa.int64()), None, None),
        (pa.array([], pa.int64()), None, None),
        (pa.array([{"a": 1}]), None, None),
        (pa.array([[1]]), None, None),
        (pa.array([1], pa.duration("s")), None, None),
    ],
)  # fmt: skip
def test_bounds(array: Any, low: Any, high: Any, tmp_path: Path) -> None:
    assert bounds(array, tmp_path) == (low, high)


def test_bounds_of_columns_after_nested_ones(tmp_path: Path) -> None:
    """A nested column takes several of the file's columns."""
    table = pa.table(
        {
            "s": [{"a": 100, "b": {"c": 200}}],
            "x": [1],
            "m": pa.array([[("k", 300)]], pa.map_(pa.string(), pa.int64())),
            "l": [[400]],
            "s.a": [2],
            "y": ["t"],
        }
    )
    columns = ParquetIOManager(tmp_path).stage(output(), table).pointer.columns
    found = {column.name: _limits(column) for column in columns}
    assert found == {
        "s": (None, None),
        "x": (1, 1),
        "m": (None, None),
        "l": (None, None),
        "s.a": (2, 2),
        "y": ("t", "t"),
    }


def test_bounds_over_row_groups(tmp_path: Path) -> None:
    batches = [
        pa.record_batch({"a": pa.array(range(start, start + 700_000)), "n": pa.array([None] * 700_000, pa.int64())})
        for start in (1_000_000, 0, 5_000_000)
    ]
    batches.append(pa.record_batch({"a": pa.array([7] * 10), "n": pa.array([3] * 10)}))
    reader = pa.RecordBatchReader.from_batches(batches[0].schema, batches)
    pointer = ParquetIOManager(tmp_path).stage(output(), reader).pointer
    assert [_limits(column) for column in pointer.columns] == [(0, 5_699_999), (3, 3)]
    assert [column.nulls for column in pointer.columns] == [0, 2_100_000]


@pytest.mark.parametrize("compression", ["zstd", "snappy", "lz4", "gzip", "brotli", "none"])
def test_compressions(compression: str, tmp_path: Path) -> None:
    manager = FileIOManager(tmp_path, compression=compression)
    table = pa.table({"a": np.arange(100_000)})
    for frame in (table, pl.from_arrow(table), pl.from_arrow(table).lazy()):
        context, pointer = store(manager, frame)
        path = manager.store.path_of(pointer.uri)
        found = parquet().ParquetFile(tmp_path / str(path)).metadata.row_group(0).column(0).compression
        assert found == {"none": "UNCOMPRESSED"}.get(compression, compression.upper())
        assert manager.load_input(input_of(context, pointer, annotation=pa.Table)).equals(table)


def test_a_compression_that_is_none() -> None:
    with pytest.raises(ConfigError, match="lzma"):
        FileIOManager(compression="lzma")


@pytest.mark.parametrize("kind", ["arrow", "polars", "lazy"])
def test_a_file_says_what_it_is(kind: str, tmp_path: Path) -> None:
    table = pa.table({"a": np.arange(50_000)})
    frame = {"arrow": table, "polars": pl.from_arrow(table), "lazy": pl.from_arrow(table).lazy()}[kind]
    context = output("shop/orders", partition="2024-01-01", provenance={"code": "ast-1:ab", "inputs": "{}"})
    store(ParquetIOManager(tmp_path), frame, context)
    (name,) = files_below(tmp_path)
    metadata: Mapping[bytes, bytes] = parquet().ParquetFile(tmp_path / name).metadata.metadata
    found = {key.decode(): value.decode() for key, value in metadata.items() if key.startswith(b"headwater.")}
    assert found == {
        "headwater.asset": "shop/orders",
        "headwater.partition": "2024-01-01",
        "headwater.version": context.version_id,
        "headwater.run": context.run_id,
        "headwater.step": "step",
        "headwater.code": "ast-1:ab",
        "headwater.inputs": "{}",
    }


def test_others_can_read_the_files(tmp_path: Path) -> None:
    store(ParquetIOManager(tmp_path), pl.DataFrame({"a": [1, 2], "b": ["x", None]}))
    (name,) = files_below(tmp_path)
    path = str(tmp_path / name)
    assert duck.sql("select sum(a) from read_parquet($path)", params={"path": path}).fetchall() == [(3,)]
    assert parquet().ParquetFile(path).read().to_pylist() == [{"a": 1, "b": "x"}, {"a": 2, "b": None}]


def test_a_footer_is_read_back_and_its_rows_are_counted(tmp_path: Path) -> None:
    manager = ParquetIOManager(tmp_path)
    with manager.store.create("a/v.parquet", run_id="run") as sink:
        written = write_table(sink, pa.table({"a": [1, 2, 3]}), Encoding())
        staged = sink.finish()
    footer = read_footer(staged)
    assert footer.num_rows == 3
    assert [column.name for column in describe(written, footer)] == ["a"]
    other = pa.BufferOutputStream()
    parquet().write_table(pa.table({"a": [1]}), other)
    with pytest.raises(StorageError, match="3 rows were written"):
        describe(written, parquet().ParquetFile(pa.BufferReader(other.getvalue())).metadata)
    staged.discard()


def test_a_file_without_a_footer_is_not_published(tmp_path: Path) -> None:
    manager = ParquetIOManager(tmp_path)
    with manager.store.create("a/v.parquet", run_id="run") as sink:
        sink.write(b"PAR1 and no more")
        staged = sink.finish()
    with pytest.raises(StorageError, match="without a readable footer"):
        read_footer(staged)
    staged.discard()


def test_an_encoder_that_loses_rows_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = parquet().ParquetWriter
    real = writer.write_table

    def lose(self: Any, table: Any, **options: Any) -> None:
        real(self, table.slice(1), **options)

    monkeypatch.setattr(writer, "write_table", lose)
    with pytest.raises(StorageError, match="footer counts 2"):
        ParquetIOManager(tmp_path).stage(output(), pa.table({"a": [1, 2, 3]}))
    assert files_below(tmp_path) == []


def test_a_large_footer_is_read_whole(tmp_path: Path) -> None:
    table = pa.table({f"column_{i:05}": [i] for i in range(3000)})
    pointer = ParquetIOManager(tmp_path).stage(output(), table).pointer
    assert len(pointer.columns) == 3000
    assert _limits(pointer.columns[-1]) == (2999, 2999)


def test_the_hash_is_that_of_what_was_written_beside_it(tmp_path: Path) -> None:
    """From 8 MB on hashing runs in another thread; what it raises is raised."""
    table = pa.table({"a": np.arange(2_000_000), "b": np.random.default_rng(1).random(2_000_000)})
    manager = ParquetIOManager(tmp_path)
    whole = manager.stage(output(), table)
    pieces = manager.stage(output(), pa.RecordBatchReader.from_batches(table.schema, table.to_batches(1000)))
    assert whole.data_version == pieces.data_version
    assert whole.pointer.columns == pieces.pointer.columns


class _Full(Sink):
    def _store(self, chunk: bytes | bytearray) -> None:
        raise StorageError("the disk is full")

    def _finish(self, size: int, checksum: str) -> StagedFile:
        raise NotImplementedError

    def _abort(self) -> None:
        pass


@pytest.mark.parametrize("kind", ["arrow", "polars", "lazy"])
def test_what_the_sink_raises_reaches_the_caller(kind: str) -> None:
    from headwater.io.frames import write_frame

    table = pa.table({"a": np.random.default_rng(1).random(1_000_000)})
    frame = {"arrow": table, "polars": pl.from_arrow(table), "lazy": pl.from_arrow(table).lazy()}[kind]
    with pytest.raises(StorageError, match="the disk is full"), _Full() as sink:
        write_frame(sink, frame, Encoding())
