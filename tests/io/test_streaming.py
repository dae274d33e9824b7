"""Data larger than the memory it may take, in processes of their own whose peak is measured."""

from pathlib import Path

import pytest

from tests.io.support import run_python

ROWS = 14_000_000
#: In memory as Arrow: six columns of 8 bytes.
DATA_BYTES = ROWS * 6 * 8
#: A bare interpreter with the libraries takes about 130 MB.
LIMIT_BYTES = 440_000_000

_MAKE = """
import sys
import polars as pl
n = int(sys.argv[2])
a = pl.col("a")
pl.LazyFrame().select(a=pl.int_range(0, n, dtype=pl.Int64)).with_columns(
    b=a * 7 % 1000003, c=a.cast(pl.Float64) / 3, d=a % 10, e=a % 100_000, f=-a
).sink_parquet(sys.argv[1])
"""
_STORE = """
import sys
from tests.io.support import input_of, store
from headwater.io import ParquetIOManager
source, root, kind = sys.argv[1:]
if kind == "lazy":
    import polars as pl
    value = pl.scan_parquet(source).with_columns(f=pl.col("c") * 2)
elif kind == "reader":
    import pyarrow.parquet as pq, pyarrow as pa
    file = pq.ParquetFile(source)
    value = pa.RecordBatchReader.from_batches(file.schema_arrow, file.iter_batches(100_000))
else:
    import duckdb
    value = duckdb.read_parquet(source)
manager = ParquetIOManager(root)
context, pointer = store(manager, value)
back = manager.load_input(input_of(context, pointer))
if kind == "lazy":
    total = back.select(pl.col("a").sum()).collect(engine="streaming").item()
elif kind == "reader":
    total = sum(int(batch.column("a").to_numpy().sum()) for batch in back)
else:
    total = back.aggregate("sum(a)").fetchall()[0][0]
# Not getrusage, which counts the process that this one was started from.
(peak,) = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(pointer.rows, total, int(peak) * 1024)
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("large") / "source.parquet"
    done = run_python(_MAKE, str(path), str(ROWS))
    assert done.returncode == 0, done.stderr
    return path


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="measures by /proc")
@pytest.mark.parametrize(
    "kind", ["lazy", pytest.param("reader", marks=pytest.mark.slow), pytest.param("duckdb", marks=pytest.mark.slow)]
)
def test_more_data_than_memory(kind: str, source: Path, tmp_path: Path) -> None:
    assert DATA_BYTES > 1.5 * LIMIT_BYTES
    done = run_python(_STORE, str(source), str(tmp_path), kind)
    assert done.returncode == 0, done.stderr
    rows, total, peak = done.stdout.splitlines()[-1].split()  # DuckDB draws a progress bar above it
    assert int(rows) == ROWS
    assert int(total) == ROWS * (ROWS - 1) // 2
    assert int(peak) < LIMIT_BYTES
