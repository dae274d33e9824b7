import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headwater.catalog.errors import (
    ChecksumError,
    ConfigError,
    MissingDataError,
    StorageError,
    UnstorableValueError,
    UserCodeError,
)
from headwater.catalog.keys import AssetKey
from headwater.catalog.records import Pointer
from headwater.io import FileIOManager, IOManager, JsonIOManager, ParquetIOManager
from headwater.io.base import InputContext, OutputContext
from headwater.io.data_version import json_version
from headwater.io.engines import arrow, pandas, polars
from tests.io.support import files_below, input_of, output, round_trip, store
from tests.s3_server import Bucket

pa, pd, pl = arrow(), pandas(), polars()
TABLE: Any = pa.table({"a": [1, 2]})


@pytest.fixture
def manager(tmp_path: Path) -> FileIOManager:
    manager = FileIOManager()
    manager.bind(tmp_path / "home")
    return manager


def test_the_default_root_is_in_the_home(manager: FileIOManager, tmp_path: Path) -> None:
    context, pointer = store(manager, TABLE, output("shop/orders", partition="2024-01-31"))
    path = tmp_path / "home/data/shop/orders/partition=2024-01-31" / f"{context.version_id}.parquet"
    assert pointer.uri == path.as_uri().replace("%3D", "=")
    assert path.stat().st_size == pointer.bytes
    assert manager.folder_of(AssetKey("shop/orders"), "2024-01-31") == pointer.uri.rpartition("/")[0]


def test_a_manager_without_home_or_root_says_so() -> None:
    with pytest.raises(StorageError, match="no root yet"):
        FileIOManager().stage(output(), TABLE)


def test_everything_about_a_version_is_in_its_pointer(manager: FileIOManager) -> None:
    context = output()
    staged = manager.stage(context, pl.DataFrame({"a": [1, None], "b": ["x", "y"]}))
    pointer = staged.pointer
    assert (pointer.format, pointer.representation, pointer.rows) == ("parquet", "polars.DataFrame", 2)
    assert [(c.name, c.type, c.nulls, c.min, c.max) for c in pointer.columns] == [
        ("a", "int64", 1, 1, 1),
        ("b", "string", 0, "x", "y"),
    ]
    assert all((column.version or "").startswith("b3-1:") for column in pointer.columns)
    assert staged.data_version and staged.notes == ()
    staged.publish()
    manager.verify(input_of(context, pointer))


@pytest.mark.parametrize("value", [None, True, 0, 1.5, "text", [1, [2, None]], {"a": {"b": "ü"}}, [], {}])
def test_plain_values_are_kept_as_json(value: Any, manager: FileIOManager, tmp_path: Path) -> None:
    context, pointer = store(manager, value)
    assert pointer.format == "json" and pointer.representation == type(value).__name__
    back = manager.load_input(input_of(context, pointer))
    assert back == value and type(back) is type(value)
    assert files_below(tmp_path)[0].endswith(f"{context.version_id}.json")


def test_dicts_that_are_equal_have_equal_versions(manager: FileIOManager) -> None:
    one = manager.stage(output(), {"a": 1, "b": 2})
    other = manager.stage(output(), {"b": 2, "a": 1})
    assert one.data_version == other.data_version == json_version(b'{"a":1,"b":2}')
    assert manager.stage(output(), {"a": 1, "b": 3}).data_version != one.data_version


@pytest.mark.parametrize(
    ("annotation", "value", "stored"),
    [
        (None, None, True),
        (pl.DataFrame | None, None, True),
        ("pd.DataFrame | None", None, True),
        (dict, None, True),
        (pl.DataFrame, None, False),
        ("pl.LazyFrame", None, False),
    ],
)
def test_a_forgotten_return_is_noticed(annotation: Any, value: Any, stored: bool, manager: FileIOManager) -> None:
    context = output(annotation=annotation)
    if stored:
        assert manager.stage(context, value).pointer.format == "json"
    else:
        with pytest.raises(UnstorableValueError, match="returned None"):
            manager.stage(context, value)


@pytest.mark.parametrize("value", [3, "x", [1], {"a": [1]}], ids=lambda value: type(value).__name__)
def test_a_declared_frame_is_one(value: Any, manager: FileIOManager, tmp_path: Path) -> None:
    with pytest.raises(UnstorableValueError, match=r"declares a polars\.DataFrame"):
        manager.stage(output(annotation=pl.DataFrame | None), value)
    assert files_below(tmp_path) == []
    assert manager.stage(output(annotation=pd.DataFrame), TABLE).pointer.representation == "pyarrow.Table"


@pytest.mark.parametrize(
    "value",
    [object(), {1, 2}, (1, 2), b"x", lambda: 1, Path("x"), {"a": (1,)}, pa.array([1]), pd.Series([1]), iter([TABLE])],
    ids=lambda value: type(value).__name__,
)
def test_nothing_is_ever_pickled(value: Any, manager: FileIOManager, tmp_path: Path) -> None:
    with pytest.raises(UnstorableValueError) as caught:
        manager.stage(output(), value)
    assert caught.value.code == "E-TYPE" and caught.value.remedy
    assert files_below(tmp_path) == []


def test_a_failed_write_leaves_the_version_before_byte_for_byte(manager: FileIOManager, tmp_path: Path) -> None:
    context, pointer = store(manager, TABLE)
    before = {name: (tmp_path / name).read_bytes() for name in files_below(tmp_path)}

    def batches() -> Iterator[Any]:
        yield TABLE.to_batches()[0]
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        manager.stage(output(), pa.RecordBatchReader.from_batches(TABLE.schema, batches()))
    manager.stage(output(), {"x": 1}).discard()
    assert {name: (tmp_path / name).read_bytes() for name in files_below(tmp_path)} == before
    assert manager.load_input(input_of(context, pointer)).equals(TABLE)


def test_versions_of_one_cell_lie_side_by_side(manager: FileIOManager) -> None:
    first, one = store(manager, {"v": 1})
    second, two = store(manager, {"v": 2})
    assert manager.load_input(input_of(first, one)) == {"v": 1}
    assert manager.load_input(input_of(second, two)) == {"v": 2}
    manager.delete(one)
    manager.delete(one)
    with pytest.raises(MissingDataError):
        manager.load_input(input_of(first, one))
    assert manager.load_input(input_of(second, two)) == {"v": 2}


class TestLoading:
    def test_a_missing_file_names_everything(self, manager: FileIOManager) -> None:
        context, pointer = store(manager, TABLE, output("shop/orders", partition="2024"))
        manager.delete(pointer)
        with pytest.raises(MissingDataError) as caught:
            manager.load_input(input_of(context, pointer))
        for part in ("shop/orders [2024]", context.version_id, pointer.uri):
            assert part in caught.value.message
        assert caught.value.remedy
        with pytest.raises(MissingDataError):
            manager.verify(input_of(context, pointer))

    @pytest.mark.parametrize("value", [TABLE, {"a": 1}], ids=["parquet", "json"])
    @pytest.mark.parametrize("damage", ["truncated", "longer", "flipped", "empty"])
    def test_a_damaged_file_is_found_out(self, value: Any, damage: str, manager: FileIOManager, tmp_path: Path) -> None:
        context, pointer = store(manager, value)
        (name,) = files_below(tmp_path)
        data = bytearray((tmp_path / name).read_bytes())
        if damage == "truncated":
            del data[-1:]
        elif damage == "longer":
            data += b" "
        elif damage == "flipped":
            data[len(data) // 2] ^= 1
        else:
            data.clear()
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ChecksumError) as caught:
            manager.verify(input_of(context, pointer))
        assert pointer.uri in caught.value.message and context.version_id in caught.value.message
        if damage != "flipped" or pointer.format == "json":  # a bit in a page of data is for `verify` to find
            with pytest.raises(ChecksumError):
                manager.load_input(input_of(context, pointer))

    def test_an_annotation_that_does_not_fit(self, manager: FileIOManager) -> None:
        context, pointer = store(manager, {"a": 1})
        with pytest.raises(UserCodeError, match=r"holds a dict, and a polars\.DataFrame is asked for"):
            manager.load_input(input_of(context, pointer, annotation=pl.DataFrame))
        with pytest.raises(UserCodeError, match="no columns"):
            manager.load_input(input_of(context, pointer, columns=("a",)))
        frame, where = store(manager, TABLE)
        with pytest.raises(UserCodeError, match="holds a frame"):
            manager.load_input(input_of(frame, where, annotation=dict))

    def test_none_for_whoever_allows_it(self, manager: FileIOManager) -> None:
        context, pointer = store(manager, None)
        assert manager.load_input(input_of(context, pointer, annotation=pl.DataFrame | None)) is None
        with pytest.raises(UserCodeError, match="holds a NoneType"):
            manager.load_input(input_of(context, pointer, annotation=pl.DataFrame))

    def test_a_home_may_move(self, manager: FileIOManager, tmp_path: Path) -> None:
        context, pointer = store(manager, TABLE, output("a b", partition="x/y"))
        (tmp_path / "home").rename(tmp_path / "elsewhere")
        moved = FileIOManager()
        moved.bind(tmp_path / "elsewhere")
        assert moved.load_input(input_of(context, pointer)).equals(TABLE)
        value, where = store(moved, {"a": 1})
        assert moved.load_input(input_of(value, where)) == {"a": 1}

    def test_another_root_may_be_read_too(self, manager: FileIOManager, tmp_path: Path) -> None:
        context, pointer = store(manager, TABLE)
        other = FileIOManager(tmp_path / "other")
        assert other.load_input(input_of(context, pointer)).equals(TABLE)
        other.sweep(manager.folder_of(context.asset_key, None), context.version_id, context.run_id)
        other.delete(pointer)
        with pytest.raises(MissingDataError):
            manager.load_input(input_of(context, pointer))

    @pytest.mark.parametrize("uri", ["", "x", "file://host/x", "ftp://x/y", "memory:x", "../x", "file:///etc/passwd"])
    def test_a_pointer_to_nowhere(self, uri: str, manager: FileIOManager) -> None:
        context = output()
        with pytest.raises((StorageError, ConfigError)):
            manager.load_input(input_of(context, Pointer(uri=uri, format="json", bytes=5)))


def test_fingerprints_hold_neither_homes_nor_secrets(tmp_path: Path) -> None:
    one, other = FileIOManager(), FileIOManager()
    one.bind(tmp_path / "one")
    other.bind(tmp_path / "other")
    assert one.fingerprint() == other.fingerprint() == {"class": "headwater.io.file_manager.FileIOManager"}
    assert FileIOManager(compression="snappy", schema_drift="any").fingerprint() == one.fingerprint()
    assert ParquetIOManager().fingerprint() != one.fingerprint() != JsonIOManager().fingerprint()
    remote = ParquetIOManager("s3://b/x", storage_options={"key": "AKIA", "secret": "canary-9"})
    assert remote.fingerprint() == {"class": "headwater.io.parquet.ParquetIOManager", "root": "s3://b/x"}
    assert "canary-9" not in repr(remote)
    assert FileIOManager(tmp_path / "x").fingerprint() != FileIOManager(tmp_path / "y").fingerprint()


def test_parquet_takes_frames_only(tmp_path: Path) -> None:
    manager = ParquetIOManager(tmp_path)
    assert round_trip(manager, TABLE).equals(TABLE)
    with pytest.raises(UnstorableValueError, match="keeps frames only"):
        manager.stage(output(), {"a": 1})
    assert len(files_below(tmp_path)) == 1


def test_json_takes_values_only(tmp_path: Path) -> None:
    manager = JsonIOManager(tmp_path)
    assert round_trip(manager, {"a": 1}) == {"a": 1}
    for frame in (TABLE, pl.LazyFrame({"a": [1]}), pd.DataFrame({"a": [1]})):
        with pytest.raises(UnstorableValueError, match="keeps plain values only"):
            manager.stage(output(), frame)
    assert len(files_below(tmp_path)) == 1


def test_a_subclass_of_a_frame_is_stored_as_its_base(manager: FileIOManager) -> None:
    class GeoFrame(pd.DataFrame):
        pass

    back = round_trip(manager, GeoFrame({"a": [1]}))
    assert type(back) is pd.DataFrame


def test_anything_that_speaks_arrow_is_stored(manager: FileIOManager) -> None:
    class Foreign:
        def __arrow_c_stream__(self, requested_schema: object = None) -> object:
            return TABLE.__arrow_c_stream__(requested_schema)

    assert round_trip(manager, Foreign(), pa.Table).equals(TABLE)


def test_notes_are_logged_with_the_asset(manager: FileIOManager, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        staged = manager.stage(output("shop/orders"), pl.DataFrame({"a": [None], "b": [1], "B": [2]}))
    assert len(staged.notes) == 2
    assert all(f"shop/orders: {note}" in caplog.text for note in staged.notes)


def test_a_manager_of_ones_own_keeps_working(tmp_path: Path) -> None:
    """Only `handle_output` and `load_input`, as the interface asks for."""

    class Mine(IOManager):
        def handle_output(self, context: OutputContext, obj: Any) -> Pointer | None:
            (tmp_path / context.asset_key.name).write_text(str(obj))
            return None

        def load_input(self, context: InputContext) -> Any:
            return (tmp_path / context.asset_key.name).read_text()

    manager = Mine()
    manager.bind(tmp_path)
    context = output("mine")
    staged = manager.stage(context, 42)
    staged.publish()
    assert staged.notes == () and staged.data_version is None
    assert manager.load_input(input_of(context, staged.pointer)) == "42"
    manager.delete(staged.pointer)
    manager.sweep("x", context.version_id, context.run_id)
    staged.discard()
    assert manager.folder_of(context.asset_key, None) is None
    assert manager.in_process_only is False


def test_values_on_an_object_store(bucket: Bucket) -> None:
    manager = FileIOManager(bucket.root, storage_options=bucket.options)
    context, pointer = store(manager, {"a": [1, None]})
    assert bucket.keys() == [f"warehouse/shop/orders/{context.version_id}.json"]
    assert manager.load_input(input_of(context, pointer)) == {"a": [1, None]}
    manager.verify(input_of(context, pointer))
    lost = output()
    staged = manager.stage(lost, TABLE)
    staged.publish()
    manager.sweep(manager.folder_of(lost.asset_key, None), lost.version_id, lost.run_id)
    assert len(bucket.keys()) == 1
    manager.delete(pointer)
    assert bucket.keys() == []
    with pytest.raises(MissingDataError):
        manager.load_input(input_of(context, pointer))
