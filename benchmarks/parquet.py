"""Writing and reading big tables, hash and statistics included, against the raw libraries (goal D1)."""

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.harness import Row, measure
from headwater.catalog.keys import AssetKey
from headwater.io.base import InputContext, OutputContext
from headwater.io.file_manager import FileIOManager

ROWS = 2_000_000


def table() -> pa.Table:
    chance = np.random.default_rng(0)
    return pa.table(
        {
            "small": chance.integers(0, 1000, ROWS),
            "float": chance.random(ROWS),
            "large": chance.integers(0, 10**12, ROWS),
            "price": chance.random(ROWS).round(2),
            "name": pa.array([f"k{i % 1000}" for i in range(ROWS)]),
            "flag": pa.array(chance.integers(0, 2, ROWS).astype(bool)),
        }
    )


def rows() -> list[Row]:
    arrow = table()
    frames: dict[str, Any] = {"arrow": arrow, "polars": pl.from_arrow(arrow), "pandas": arrow.to_pandas()}
    found: list[Row] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        manager = FileIOManager()
        manager.bind(folder)
        counter = iter(range(10_000))

        def write(value: Any) -> Any:
            number = next(counter)
            context = OutputContext(
                asset_key=AssetKey("big"),
                version_id=f"00000000-0000-7000-8000-{number:012d}",
                run_id="r",
                step_key="big",
            )
            staged = manager.stage(context, value)
            staged.publish()
            return staged.pointer

        def raw_write(name: str, value: Any) -> None:
            path = folder / f"raw-{name}.parquet"
            if name == "polars":
                value.write_parquet(path, compression="zstd")
            else:
                data = pa.Table.from_pandas(value) if name == "pandas" else value
                pq.write_table(data, path, compression="zstd")
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)

        def raw_read(name: str) -> Any:
            path = folder / f"raw-{name}.parquet"
            if name == "polars":
                return pl.read_parquet(path)
            data = pq.ParquetFile(path).read()
            return data.to_pandas() if name == "pandas" else data

        for name, value in frames.items():
            raw = measure(lambda name=name, value=value: raw_write(name, value))
            ours = measure(lambda value=value: write(value))
            found.append(Row("D1", f"write {ROWS:,} × 6 rows, {name}", ours, f"raw {name}", raw, goal="≤ 1.10×"))
            pointer = write(value)
            context = InputContext(asset_key=AssetKey("big"), version_id="v", pointer=pointer, annotation=type(value))
            read = measure(lambda context=context: manager.load_input(context))
            raw = measure(lambda name=name: raw_read(name))
            found.append(Row("D1", f"read {ROWS:,} × 6 rows, {name}", read, f"raw {name}", raw, goal="≤ 1.10×"))
            one = InputContext(
                asset_key=AssetKey("big"), version_id="v", pointer=pointer, annotation=type(value), columns=("price",)
            )
            found.append(Row("D2", f"read 1 of 6 columns, {name}", measure(lambda one=one: manager.load_input(one))))
    return found
