"""Data larger than the memory it may take, in processes of their own whose peak is measured."""

from pathlib import Path

import pytest

from tests.io.support import run_python

COPIES = 40
ROWS = COPIES * 1_000_000
#: In memory as Arrow: six columns of 8 bytes, 1.9 GB.
DATA_BYTES = ROWS * 6 * 8
#: Streaming peaks at 280 to 470 MB, whatever the size of the data; a process that gathers them once takes 3 GB.
LIMIT_BYTES = DATA_BYTES * 6 // 10

# A million rows that compress to nothing, read over and over: only the process under test handles much data.
_MAKE = """
import sys
import polars as pl
a = pl.col("a")
frame = pl.select(a=pl.int_range(0, 1_000_000, dtype=pl.Int64) // 1000)
frame.with_columns(b=a + 1, c=a * 2.5, d=a % 7, e=-a, f=a // 10).write_parquet(sys.argv[1])
"""
_STORE = """
import sys
from tests.io.support import input_of, store
from headwater.io import ParquetIOManager
part, root, kind = sys.argv[1:4]
copies = int(sys.argv[4])
if kind == "lazy":
    import polars as pl
    value = pl.concat([pl.scan_parquet(part)] * copies).with_columns(f=pl.col("a") * 2)
elif kind == "reader":
    import pyarrow.parquet as pq, pyarrow as pa
    batches = (batch for _ in range(copies) for batch in pq.ParquetFile(part).iter_batches(100_000))
    value = pa.RecordBatchReader.from_batches(pq.ParquetFile(part).schema_arrow, batches)
else:
    import duckdb
    duckdb.execute("set threads = 2")
    value = duckdb.read_parquet([part] * copies)
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
def part(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("large") / "part.parquet"
    done = run_python(_MAKE, str(path))
    assert done.returncode == 0, done.stderr
    return path


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="measures by /proc")
@pytest.mark.parametrize("kind", ["lazy", "reader", "duckdb"])
def test_more_data_than_memory(kind: str, part: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Every thread holds some rows, so a machine with more cores must not take more memory.
    for name in ("POLARS_MAX_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "2")
    done = run_python(_STORE, str(part), str(tmp_path), kind, str(COPIES))
    assert done.returncode == 0, done.stderr
    rows, total, peak = done.stdout.splitlines()[-1].split()  # DuckDB draws a progress bar above it
    assert int(rows) == ROWS
    assert int(total) == COPIES * 1000 * sum(range(1000))
    assert int(peak) < LIMIT_BYTES
