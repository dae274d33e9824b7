from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from headwater.catalog.errors import ChecksumError, MissingDataError, StorageError, UserCodeError
from headwater.catalog.records import Pointer
from headwater.io import FileIOManager, load_pointer, verify_pointer
from headwater.io.engines import arrow, polars
from tests.io.support import output, store
from tests.s3_server import Bucket

pa, pl = arrow(), polars()
TABLE: Any = pa.table({"a": [1, 2], "b": ["x", None]})


def test_a_pointer_is_all_it_takes(tmp_path: Path) -> None:
    _, pointer = store(FileIOManager(tmp_path / "ü x#y"), pl.DataFrame(TABLE), output("a/b", partition="p%q/r"))
    assert isinstance(load_pointer(pointer), pl.DataFrame)
    assert load_pointer(pointer, annotation=pa.Table, columns=("b",)).to_pylist() == [{"b": "x"}, {"b": None}]
    assert load_pointer(replace(pointer, representation=None)).to_pylist() == TABLE.to_pylist()
    assert load_pointer(replace(pointer, representation="mine.Frame")).num_rows == 2
    verify_pointer(pointer)
    _, value = store(FileIOManager(tmp_path), {"a": 1})
    assert load_pointer(value) == {"a": 1}
    verify_pointer(value)


def test_on_an_object_store(bucket: Bucket) -> None:
    _, pointer = store(FileIOManager(bucket.root, storage_options=bucket.options), TABLE)
    assert load_pointer(pointer, storage_options=bucket.options).equals(TABLE)
    assert load_pointer(pointer, annotation="pl.LazyFrame", storage_options=bucket.options).collect().height == 2
    verify_pointer(pointer, storage_options=bucket.options)


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    _, pointer = store(FileIOManager(tmp_path), TABLE)
    with pytest.raises(UserCodeError, match="no column"):
        load_pointer(pointer, columns=("z",))
    with pytest.raises(ChecksumError):
        load_pointer(replace(pointer, bytes=5))
    with pytest.raises(ChecksumError, match="bytes are others"):
        verify_pointer(replace(pointer, checksum="0" * 64))
    with pytest.raises(ChecksumError, match="instead of"):
        verify_pointer(replace(pointer, bytes=5))
    Path(tmp_path / str(FileIOManager(tmp_path).store.path_of(pointer.uri))).unlink()
    for act in (load_pointer, verify_pointer):
        with pytest.raises(MissingDataError, match=pointer.uri.rpartition("/")[2]):
            act(pointer)


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="no file here that can be opened and not read")
def test_a_disk_that_breaks_off() -> None:
    """The beginning of a process's memory is a regular file whose reading is an input/output error."""
    pointer = Pointer(uri="file:///proc/self/mem", format="json", checksum="0" * 64)
    for act in (load_pointer, verify_pointer):
        with pytest.raises(StorageError, match="/proc/self/mem' cannot be read: Input/output error") as caught:
            act(pointer)
        assert caught.value.remedy


@pytest.mark.parametrize("format_name", ["pickle", "memory", "mine", ""])
def test_only_the_manager_itself_can_read_its_own_format(format_name: str) -> None:
    pointer = Pointer(uri="file:///x/y", format=format_name)
    for act in (load_pointer, verify_pointer):
        with pytest.raises(StorageError, match="format"):
            act(pointer)
