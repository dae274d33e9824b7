"""1,000 tiny tables through Parquet with a catalog that persists (goal F4), against raw work that syncs as often."""

import io
import os
import tempfile
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

import headwater as hw
from benchmarks.harness import Figure, Row, measure, run_peer

COUNT = 1000
FRAME = pd.DataFrame({"a": [1, 2, 3], "b": ["x", "y", "z"], "c": [0.5, 1.5, 2.5]})


def chain(count: int) -> list[Any]:
    """Each asset reads the one before."""
    made: list[Any] = []
    for i in range(count):
        if i == 0:

            @hw.asset(name="a0")
            def first() -> pd.DataFrame:
                return FRAME

            made.append(first)
        else:

            @hw.asset(name=f"a{i}", ins={"before": hw.AssetIn(f"a{i - 1}")})
            def one(before: pd.DataFrame) -> pd.DataFrame:
                return before

            made.append(one)
    return made


def wide(count: int) -> list[Any]:
    """None reads another."""
    made: list[Any] = []
    for i in range(count):

        @hw.asset(name=f"a{i}")
        def one() -> pd.DataFrame:
            return FRAME

        made.append(one)
    return made


def raw(folder: Path, count: int) -> None:
    """Write, sync, rename, sync the folder, commit one row, read: as often as the assets do."""
    connection = duckdb.connect(str(folder / "raw.duckdb"))
    connection.execute("create table t (i integer, s varchar)").fetchall()
    for i in range(count):
        place = folder / f"a{i}"
        place.mkdir()
        sink = io.BytesIO()
        pq.write_table(pa.Table.from_pandas(FRAME), sink, compression="zstd")
        descriptor = os.open(place / "tmp", os.O_CREAT | os.O_WRONLY)
        os.write(descriptor, sink.getbuffer())
        os.fsync(descriptor)
        os.close(descriptor)
        os.rename(place / "tmp", place / "v.parquet")
        directory = os.open(place, os.O_RDONLY)
        os.fsync(directory)
        os.close(directory)
        connection.execute("insert into t values (?, ?)", [i, str(place)]).fetchall()
        pq.ParquetFile(place / "v.parquet").read().to_pandas()
    connection.close()


def rows() -> list[Row]:
    found: list[Row] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        counter = iter(range(10_000))

        def fresh() -> Path:
            place = folder / str(next(counter))
            place.mkdir()
            return place

        limit = measure(lambda: raw(fresh(), COUNT), runs=3)
        for name, shape in (("chain", chain), ("wide", wide)):
            definitions = hw.Definitions(shape(COUNT))

            def build(definitions: hw.Definitions = definitions) -> None:
                with hw.Instance.open(fresh() / "home") as instance:
                    result = hw.materialize(definitions, instance=instance)
                    assert len(result.materializations) == COUNT

            build()  # imports
            row = Row(
                "F4",
                f"{COUNT} tiny tables, {name}, an asset",
                measure(build, runs=3),
                "write, fsync, rename, fsync folder, commit, read",
                limit,
                per=COUNT,
                goal="≤ 1.5×, ≤ 3 ms CPU",
            )
            found.append(row)
            peer = run_peer("dagster_tiny.py", name, str(COUNT))
            if peer:
                found.append(
                    Row(
                        "F4",
                        f"the same, {name}",
                        row.ours,
                        "dagster",
                        Figure(peer["wall"], peer["cpu"]),
                        COUNT,
                        "≥ 14× in CPU",
                    )
                )
        for count in (100, 10_000):
            definitions = hw.Definitions(wide(count))

            def build_many(definitions: hw.Definitions = definitions) -> None:
                with hw.Instance.open(fresh() / "home") as instance:
                    hw.materialize(definitions, instance=instance)

            found.append(
                Row("F4", f"{count} tiny tables, wide, an asset", measure(build_many, runs=1), per=count, goal="flat")
            )
    return found
