import os
import pickle
import tempfile
import threading
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from headwater.catalog.errors import (
    ChecksumError,
    ConfigError,
    MissingDataError,
    StorageError,
    UnstorableValueError,
    UserCodeError,
)
from headwater.catalog.records import Pointer
from headwater.io import PickleIOManager
from tests.io.support import files_below, input_of, output, round_trip, store
from tests.s3_server import Bucket

RAN: list[str] = []


class Thing:
    def __init__(self, value: int) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Thing) and self.value == other.value

    def __hash__(self) -> int:
        return hash(self.value)


class Exploit:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return RAN.append, ("owned",)


@pytest.fixture
def manager(tmp_path: Path) -> PickleIOManager:
    manager = PickleIOManager()
    manager.bind(tmp_path / "home")
    return manager


@pytest.fixture(autouse=True)
def nothing_ran() -> Any:
    RAN.clear()
    yield
    assert RAN == []


@pytest.mark.parametrize(
    "value", [Thing(3), {1, 2}, (1, b"x"), None, {"a": Thing(1)}, 1j], ids=lambda value: type(value).__name__
)
def test_objects_come_back_equal(value: Any, manager: PickleIOManager) -> None:
    back = round_trip(manager, value)
    assert back == value and type(back) is type(value)


def test_columns_are_those_of_a_frame(manager: PickleIOManager) -> None:
    frame = pl.DataFrame({"a": [1], "b": [2]})
    assert round_trip(manager, frame, columns=("b",)).columns == ["b"]
    with pytest.raises(UserCodeError, match="holds a dict, which has no columns"):
        round_trip(manager, {"a": 1}, columns=("a",))


def test_the_key_lies_outside_of_the_data_and_is_its_owners_alone(manager: PickleIOManager, tmp_path: Path) -> None:
    store(manager, Thing(1))
    key = tmp_path / "home/pickle.key"
    assert key.stat().st_mode & 0o777 == 0o600 and len(key.read_bytes()) == 32
    assert [name for name in files_below(tmp_path) if "pickle.key" in name] == ["home/pickle.key"]
    before = key.read_bytes()
    store(manager, Thing(2))
    assert key.read_bytes() == before


def planted(manager: PickleIOManager, data: bytes) -> tuple[Any, Pointer]:
    context, pointer = store(manager, Thing(1))
    path = manager.store.path_of(pointer.uri)
    assert path is not None
    manager.store.delete(path)
    with manager.store.create(path, run_id="run") as sink:
        sink.write(data)
        sink.finish().publish()
    return context, pointer


@pytest.mark.parametrize(
    "data",
    [
        pickle.dumps(Exploit()),
        b"HWPKL1\n" + pickle.dumps(Exploit()) + bytes(32),
        b"HWPKL1\n" + pickle.dumps(Exploit()),
        b"",
        b"HWPKL1\n",
        bytes(32),
        b"HWPKL1\n" + bytes(32),
    ],
)
def test_a_planted_pickle_is_never_run(data: bytes, manager: PickleIOManager) -> None:
    context, pointer = planted(manager, data)
    with pytest.raises(ChecksumError, match="was not written by this project"):
        manager.load_input(input_of(context, pointer))


def test_a_pickle_of_another_project_is_never_run(manager: PickleIOManager, tmp_path: Path) -> None:
    other = PickleIOManager()
    other.bind(tmp_path / "other")
    context = output()
    staged = other.stage(context, Exploit())
    staged.publish()
    data = other.store.read_bytes(str(other.store.path_of(staged.pointer.uri)))
    mine, pointer = planted(manager, data)
    with pytest.raises(ChecksumError):
        manager.load_input(input_of(mine, pointer))


def test_one_version_is_not_passed_off_as_another(manager: PickleIOManager) -> None:
    """Even one that this project wrote."""
    context, pointer = store(manager, Thing(1), output("a"))
    data = manager.store.read_bytes(str(manager.store.path_of(pointer.uri)))
    assert manager.load_input(input_of(context, pointer)) == Thing(1)
    for key, partition in (("a", None), ("b", None), ("a", "p")):
        other, where = store(manager, Thing(2), output(key, partition=partition))
        path = str(manager.store.path_of(where.uri))
        manager.store.delete(path)
        with manager.store.create(path, run_id="run") as sink:
            sink.write(data)
            sink.finish().publish()
        with pytest.raises(ChecksumError):
            manager.load_input(input_of(other, where))


@pytest.mark.parametrize("position", [0, 7, 20, -33, -32, -1])
def test_any_flipped_bit_is_found_before_unpickling(position: int, manager: PickleIOManager, tmp_path: Path) -> None:
    context, pointer = store(manager, {"a": Thing(1)})
    (path,) = (tmp_path / "home/data").rglob("*.pickle")
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)
    with pytest.raises(ChecksumError):
        manager.load_input(input_of(context, pointer))


def test_a_key_that_others_may_read_is_no_key(manager: PickleIOManager, tmp_path: Path) -> None:
    context, pointer = store(manager, Thing(1))
    key = tmp_path / "home/pickle.key"
    key.chmod(0o644)
    for act in (lambda: manager.load_input(input_of(context, pointer)), lambda: store(manager, Thing(2))):
        with pytest.raises(StorageError, match="only its owner"):
            act()
    key.chmod(0o600)
    key.write_bytes(b"short")
    with pytest.raises(StorageError, match="only its owner"):
        manager.load_input(input_of(context, pointer))
    key.unlink()
    with pytest.raises(StorageError, match="cannot be read"):
        manager.load_input(input_of(context, pointer))
    assert not key.exists()  # reading makes no key


def open_file() -> Any:
    return tempfile.TemporaryFile()


@pytest.mark.parametrize("make", [lambda: lambda: 1, threading.Lock, open_file, lambda: (i for i in ())])
def test_what_pickle_refuses_leaves_nothing(make: Any, manager: PickleIOManager, tmp_path: Path) -> None:
    value = make()
    with pytest.raises(UnstorableValueError, match="cannot be pickled"):
        manager.stage(output(), {"a": value})
    assert [name for name in files_below(tmp_path) if "pickle.key" not in name] == []
    if make is open_file:
        value.close()


def test_equal_objects_have_equal_versions(manager: PickleIOManager) -> None:
    one, same, other = (manager.stage(output(), Thing(n)) for n in (1, 1, 2))
    assert one.data_version == same.data_version != other.data_version
    assert one.pointer.format == "pickle" and str(one.pointer.representation).endswith("Thing")


def test_the_first_stores_of_many_agree_on_one_key(tmp_path: Path) -> None:
    managers = [PickleIOManager() for _ in range(8)]
    found: list[tuple[PickleIOManager, Any, Pointer]] = []

    def run(manager: PickleIOManager) -> None:
        manager.bind(tmp_path / "home")
        found.append((manager, *store(manager, Thing(1))))

    threads = [threading.Thread(target=run, args=(manager,)) for manager in managers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    for _, context, pointer in found:
        assert managers[0].load_input(input_of(context, pointer)) == Thing(1)
    assert [name for name in os.listdir(tmp_path / "home") if "pickle" in name] == ["pickle.key"]


def test_a_missing_pickle(manager: PickleIOManager) -> None:
    context, pointer = store(manager, Thing(1))
    manager.delete(pointer)
    with pytest.raises(MissingDataError, match=context.version_id):
        manager.load_input(input_of(context, pointer))


def test_it_needs_a_home(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no key yet"):
        PickleIOManager(tmp_path).stage(output(), Thing(1))


def test_an_object_store_only_for_those_who_say_so(bucket: Bucket, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="run by whoever reads them"):
        PickleIOManager(bucket.root, storage_options=bucket.options)
    manager = PickleIOManager(bucket.root, storage_options=bucket.options, allow_remote=True)
    manager.bind(tmp_path)
    assert round_trip(manager, Thing(7)) == Thing(7)


def test_the_default_manager_never_reads_a_pickle(manager: PickleIOManager, tmp_path: Path) -> None:
    from headwater.io import FileIOManager, load_pointer

    context, pointer = store(manager, Thing(1))
    files = FileIOManager()
    files.bind(tmp_path / "home")
    with pytest.raises(StorageError, match="format 'pickle'"):
        files.load_input(input_of(context, pointer))
    with pytest.raises(StorageError, match="format 'pickle'"):
        load_pointer(pointer)
