"""Big tables written and read, hash and statistics included, against the raw libraries (goals D1 and D2).

`BENCH_ROWS` changes how many rows they have. Raw work is as durable as ours: it ends with an fsync.
"""

import os
import tempfile
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.harness import Row, measure_pair
from headwater.catalog.keys import AssetKey
from headwater.io.base import InputContext, OutputContext
from headwater.io.file_manager import FileIOManager

ROWS = int(os.environ.get("BENCH_ROWS", "10_000_000"))
COLUMNS = 20
#: The column that is read alone.
WANTED = "c7"


def rows() -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="headwater-bench-") as temporary:
        bench = _Bench(Path(temporary))
        return [*bench.six_columns(), *bench.one_of_twenty()]


class _Bench:
    def __init__(self, folder: Path) -> None:
        self.raw = folder / "raw.parquet"
        self.manager = FileIOManager()
        self.manager.bind(folder)
        self.numbers = count()
        self.written: list[Any] = []

    def six_columns(self) -> list[Row]:
        found: list[Row] = []
        arrow = _six_columns()
        for name in ("arrow", "polars", "polars lazy", "pandas"):
            value = _AS[name](arrow)
            ours, raw = measure_pair(
                lambda value=value: self.write(value), lambda value=value: self.raw_write(value), after=self.tidy
            )
            found.append(Row("D1", f"write {ROWS:,} × 6, {name}", ours, f"raw {name}", raw, goal="≤ 1.10×"))
            self.raw_write(value)
            staged = self.write(value)
            if name != "polars lazy":
                ours, raw = measure_pair(
                    lambda staged=staged, value=value: self.read(staged, type(value)),
                    lambda name=name: _RAW_READ[name](self.raw, None),
                )
                found.append(Row("D1", f"read {ROWS:,} × 6, {name}", ours, f"raw {name}", raw, goal="≤ 1.10×"))
            self.tidy()
        return found

    def one_of_twenty(self) -> list[Row]:
        chance = np.random.default_rng(0)
        frame = pl.DataFrame({f"c{i}": chance.integers(0, 10**6, ROWS) for i in range(COLUMNS)})
        self.raw_write(frame)
        staged = self.write(frame)
        found: list[Row] = []
        for name, kind in (("arrow", pa.Table), ("polars", pl.DataFrame), ("pandas", pd.DataFrame)):
            ours, raw = measure_pair(
                lambda kind=kind: self.read(staged, kind, (WANTED,)),
                lambda name=name: _RAW_READ[name](self.raw, [WANTED]),
            )
            found.append(Row("D2", f"read 1 of {COLUMNS} columns, {name}", ours, f"raw {name}", raw, goal="≤ 1.10×"))
        return found

    def write(self, value: Any) -> Any:
        context = OutputContext(
            asset_key=AssetKey("big"),
            version_id=f"00000000-0000-7000-8000-{next(self.numbers):012d}",
            run_id="r",
            step_key="big",
        )
        staged = self.manager.stage(context, value)
        staged.publish()
        self.written.append(staged)
        return staged

    def raw_write(self, value: Any) -> None:
        if isinstance(value, pl.LazyFrame):
            value.sink_parquet(self.raw, compression="zstd")
        elif isinstance(value, pl.DataFrame):
            value.write_parquet(self.raw, compression="zstd")
        else:
            table = pa.Table.from_pandas(value) if isinstance(value, pd.DataFrame) else value
            pq.write_table(table, self.raw, compression="zstd")
        descriptor = os.open(self.raw, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)

    def read(self, staged: Any, kind: Any, columns: tuple[str, ...] | None = None) -> Any:
        context = InputContext(
            asset_key=AssetKey("big"), version_id="v", pointer=staged.pointer, annotation=kind, columns=columns
        )
        return self.manager.load_input(context)

    def tidy(self) -> None:
        self.raw.unlink(missing_ok=True)
        while self.written:
            self.written.pop().discard()


_AS: dict[str, Callable[[Any], Any]] = {
    "arrow": lambda table: table,
    "polars": pl.from_arrow,
    "polars lazy": lambda table: pl.DataFrame(pl.from_arrow(table)).lazy(),
    "pandas": lambda table: table.to_pandas(),
}
_RAW_READ: dict[str, Callable[[Path, list[str] | None], Any]] = {
    "arrow": lambda path, columns: pq.ParquetFile(path).read(columns=columns),
    "polars": lambda path, columns: pl.read_parquet(path, columns=columns),
    "pandas": lambda path, columns: pq.ParquetFile(path).read(columns=columns, use_pandas_metadata=True).to_pandas(),
}


def _six_columns() -> pa.Table:
    chance = np.random.default_rng(0)
    names = pa.array([f"k{i}" for i in range(1000)])
    return pa.table(
        {
            "small": chance.integers(0, 1000, ROWS),
            "float": chance.random(ROWS),
            "large": chance.integers(0, 10**12, ROWS),
            "price": chance.random(ROWS).round(2),
            "name": names.take(pa.array(np.arange(ROWS) % 1000)),
            "flag": pa.array(chance.integers(0, 2, ROWS).astype(bool)),
        }
    )
