from typing import Any

import pytest

from headwater.catalog.errors import MissingDataError, UserCodeError
from headwater.io import FileIOManager, InMemoryIOManager
from headwater.io.engines import arrow, duckdb, pandas, polars
from tests.io.support import input_of, output, round_trip, store

pa, pd, pl, duck = arrow(), pandas(), polars(), duckdb()
TABLE: Any = pa.table({"a": [1, 2], "b": ["x", None]})


@pytest.fixture
def manager() -> InMemoryIOManager:
    return InMemoryIOManager()


@pytest.mark.parametrize(
    "value", [None, 1, {"a": [1, {2}]}, (1,), object(), TABLE, len], ids=lambda value: type(value).__name__
)
def test_values_come_back(value: Any, manager: InMemoryIOManager) -> None:
    back = round_trip(manager, value)
    assert back == value or back.equals(value)


def test_every_version_is_kept(manager: InMemoryIOManager) -> None:
    stored = [(n, *store(manager, n)) for n in range(3)]
    assert [manager.load_input(input_of(context, pointer)) for _, context, pointer in stored] == [0, 1, 2]
    manager.delete(stored[1][2])
    manager.delete(stored[1][2])
    with pytest.raises(MissingDataError, match="memory of a process"):
        manager.load_input(input_of(stored[1][1], stored[1][2]))
    assert manager.load_input(input_of(stored[2][1], stored[2][2])) == 2


def test_nobody_sees_what_is_not_published(manager: InMemoryIOManager) -> None:
    context = output()
    staged = manager.stage(context, 1)
    with pytest.raises(MissingDataError):
        manager.load_input(input_of(context, staged.pointer))
    staged.publish()
    assert manager.load_input(input_of(context, staged.pointer)) == 1
    staged.discard()
    with pytest.raises(MissingDataError):
        manager.load_input(input_of(context, staged.pointer))


def test_what_readers_do_to_a_value_stays_with_them(manager: InMemoryIOManager) -> None:
    value: Any = {"a": [1]}
    frame = pd.DataFrame({"a": [1, 2]})
    for thing in (value, frame):
        context, pointer = store(manager, thing)
        first = manager.load_input(input_of(context, pointer))
        first["a"] = 9
        thing["b"] = 3
        second = manager.load_input(input_of(context, pointer))
        assert list(second["a"]) in ([1], [1, 2]) and "b" not in second


def test_streams_are_run_once(manager: InMemoryIOManager) -> None:
    calls: list[int] = []

    def count(frame: Any) -> Any:
        calls.append(1)
        return frame

    lazy = pl.from_arrow(TABLE).lazy().map_batches(count)
    context, pointer = store(manager, lazy)
    done = len(calls)
    for _ in range(2):
        back = manager.load_input(input_of(context, pointer))
        assert isinstance(back, pl.LazyFrame) and back.collect().to_arrow().to_pylist() == TABLE.to_pylist()
    assert len(calls) == done
    for stream in (TABLE.to_reader(), duck.from_arrow(TABLE)):
        context, pointer = store(manager, stream)
        for _ in range(2):
            back = manager.load_input(input_of(context, pointer, annotation=pa.Table))
            assert back.to_pylist() == TABLE.to_pylist()


def test_versions_are_those_of_files(manager: InMemoryIOManager, tmp_path: Any) -> None:
    files = FileIOManager(tmp_path)
    for value in (TABLE, pl.from_arrow(TABLE), TABLE.to_pandas(), {"b": 1, "a": 2}):
        one, other = manager.stage(output(), value), files.stage(output(), value)
        assert one.data_version == other.data_version
        assert [column.version for column in one.pointer.columns] == [c.version for c in other.pointer.columns]
        assert one.pointer.rows == other.pointer.rows
    assert manager.stage(output(), object()).data_version is None
    assert manager.stage(output(), {"a": {1}}).data_version is None
    assert manager.stage(output(), pd.DataFrame({"a": [{1}]})).data_version is None


def test_an_annotation_that_does_not_fit(manager: InMemoryIOManager) -> None:
    with pytest.raises(UserCodeError, match="holds a dict"):
        round_trip(manager, {"a": 1}, pl.DataFrame)
    with pytest.raises(UserCodeError, match="holds a frame"):
        round_trip(manager, TABLE, dict)
    with pytest.raises(UserCodeError, match="no column"):
        round_trip(manager, TABLE, None, ("zz",))
    assert round_trip(manager, None, pl.DataFrame | None) is None


def test_it_says_what_it_is_for(manager: InMemoryIOManager) -> None:
    assert manager.in_process_only
    assert manager.folder_of(output().asset_key, None) is None
    assert manager.fingerprint() == {"class": "headwater.io.memory.InMemoryIOManager"}
