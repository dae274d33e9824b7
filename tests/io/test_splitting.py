import datetime as dt
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.catalog.errors import UserCodeError
from headwater.io.engines import arrow, duckdb, numpy, pandas, polars
from headwater.io.splitting import split_frame

pa, pl, pd, np, duck = arrow(), polars(), pandas(), numpy(), duckdb()

TABLE: Any = pa.table(
    {
        "day": [dt.date(2024, 1, 31), dt.date(2024, 2, 1), dt.date(2024, 1, 1), dt.date(2024, 2, 1), None],
        "shop": ["b", "a", "b", "a", "a"],
        "v": [1, 2, 3, 4, 5],
    }
)
KINDS: dict[str, tuple[Any, Callable[[Any], Any], Callable[[Any], Any]]] = {
    "polars": (pl.DataFrame, pl.from_arrow, lambda frame: frame.to_arrow()),
    "lazy": (pl.LazyFrame, lambda table: pl.from_arrow(table).lazy(), lambda frame: frame.collect().to_arrow()),
    "pandas": (pd.DataFrame, lambda table: table.to_pandas(), pa.Table.from_pandas),
    "arrow": (pa.Table, lambda table: table, lambda table: table),
    "batch": (pa.Table, lambda table: table.combine_chunks().to_batches()[0], lambda table: table),
    "reader": (pa.RecordBatchReader, lambda table: table.to_reader(2), lambda reader: reader.read_all()),
    "duckdb": (duck.DuckDBPyRelation, duck.from_arrow, lambda relation: relation.to_arrow_table()),
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def by_month(rows: Any) -> list[str | None]:
    return ["never" if day is None else f"{day:%Y-%m}" for day in rows["day"].to_pylist()]


def test_a_frame_for_each_partition(kind: str) -> None:
    cls, make, table_of = KINDS[kind]
    parts = split_frame(make(TABLE), by_month, ["day"])
    assert list(parts) == ["2024-01", "2024-02", "never"]
    assert all(isinstance(part, cls) for part in parts.values())
    tables = {key: table_of(part) for key, part in parts.items()}
    assert {key: table["v"].to_pylist() for key, table in tables.items()} == {
        "2024-01": [1, 3],
        "2024-02": [2, 4],
        "never": [5],
    }
    assert all(table.column_names == TABLE.column_names for table in tables.values())


def test_by_several_columns_in_any_order(kind: str) -> None:
    _, make, table_of = KINDS[kind]
    seen: list[Any] = []

    def keys(rows: Any) -> list[str | None]:
        seen.append(rows)
        return [f"{row['shop']}|{row['day']}" for row in rows.to_pylist()]

    parts = split_frame(make(TABLE), keys, ["shop", "day"])
    (rows,) = seen
    assert isinstance(rows, pa.Table) and rows.column_names == ["shop", "day"] and rows.num_rows == 4
    assert {key: table_of(part)["v"].to_pylist() for key, part in parts.items()} == {
        "b|2024-01-31": [1],
        "a|2024-02-01": [2, 4],
        "b|2024-01-01": [3],
        "a|None": [5],
    }


def test_a_row_of_no_partition_is_shown(kind: str) -> None:
    _, make, _ = KINDS[kind]
    with pytest.raises(UserCodeError, match=r"rows of no partition that is computed: day = datetime\.date\(2024, 2, 1"):
        split_frame(
            make(TABLE), lambda rows: [None if d and d.month == 2 else "k" for d in rows["day"].to_pylist()], ["day"]
        )


def test_a_column_that_is_not_there(kind: str) -> None:
    _, make, _ = KINDS[kind]
    with pytest.raises(UserCodeError, match="no column 'dya', which tells the partition") as caught:
        split_frame(make(TABLE), by_month, ["dya"])
    assert "day" in caught.value.remedy


def test_no_rows_are_no_partitions(kind: str) -> None:
    _, make, _ = KINDS[kind]
    if kind == "batch":
        return
    assert split_frame(make(TABLE.slice(0, 0)), by_month, ["day"]) == {}


@pytest.mark.parametrize("value", [None, 3, {"day": [1]}, [TABLE]], ids=lambda value: type(value).__name__)
def test_what_is_no_frame(value: Any) -> None:
    with pytest.raises(UserCodeError, match="cannot be split"):
        split_frame(value, by_month, ["day"])


def test_keys_that_are_too_few() -> None:
    with pytest.raises(UserCodeError, match="1 partition keys were given for 4 rows"):
        split_frame(TABLE, lambda rows: ["x"], ["day"])


def test_what_the_keys_raise_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        split_frame(TABLE, lambda rows: [str(1 // 0)], ["day"])


def test_lazy_frames_are_run_once() -> None:
    runs: list[int] = []

    def count(frame: Any) -> Any:
        runs.append(1)
        return frame

    split_frame(pl.from_arrow(TABLE).lazy().map_batches(count, streamable=False), by_month, ["day"])
    assert len(runs) == 1


def test_a_pandas_index_is_kept_unless_it_numbers_the_rows() -> None:
    frame = TABLE.to_pandas()
    for part in split_frame(frame, by_month, ["day"]).values():
        assert part.index.equals(pd.RangeIndex(len(part)))
    named = frame.set_index("v")
    parts = split_frame(named, by_month, ["day"])
    assert [list(part.index) for part in parts.values()] == [[1, 3], [2, 4], [5]]
    with pytest.raises(UserCodeError, match="no column 'v'"):
        split_frame(named, by_month, ["v"])


def test_types_stay(kind: str) -> None:
    if kind in ("pandas", "duckdb"):
        return
    _, make, table_of = KINDS[kind]
    table = pa.table(
        {
            "c": pa.array(["x", "y", "x"]).dictionary_encode(),
            "l": [[1], None, []],
            "t": pa.array([1, 2, 3], pa.timestamp("ns", "Europe/Berlin")),
        }
    )
    frame = make(table)
    parts = split_frame(frame, lambda rows: [f"k{value}" for value in rows["c"].to_pylist()], ["c"])
    whole = table_of(make(table))
    found = {key: table_of(part) for key, part in parts.items()}
    assert all(part.schema.equals(whole.schema) for part in found.values())
    assert found["kx"].to_pylist() == [table.to_pylist()[0], table.to_pylist()[2]]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), max_size=40))
def test_every_row_is_in_its_partition_and_in_order(rows: list[tuple[int, int]]) -> None:
    table = pa.table(
        {
            "a": pa.array([a for a, _ in rows], pa.int64()),
            "b": pa.array([b for _, b in rows], pa.int64()),
            "i": range(len(rows)),
        }
    )
    parts = split_frame(table, lambda found: [str((r["a"] * r["b"]) % 4) for r in found.to_pylist()], ["a", "b"])
    expected: dict[str, list[int]] = {}
    for i, (a, b) in enumerate(rows):
        expected.setdefault(str((a * b) % 4), []).append(i)
    assert {key: part["i"].to_pylist() for key, part in parts.items()} == expected
    assert list(parts) == list(expected)
