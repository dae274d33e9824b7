"""Full disks, folders that may not be written, killed processes: for real, in processes of their own."""

import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headwater.catalog.errors import DiskFullError, MissingDataError
from headwater.io import FileIOManager, ParquetIOManager
from headwater.io.engines import arrow
from tests.io.support import RUN, as_ordinary_user, environment, files_below, input_of, output, run_python, store

pytestmark = pytest.mark.faults

pa: Any = arrow()

#: Writes a good version, then as much as fits of another, and reports the error and what is left.
_FILL = """
import sys, resource
from headwater.catalog.errors import HeadwaterError
from headwater.io import ParquetIOManager
from headwater.io.engines import arrow
from tests.io.support import files_below, input_of, output, store
from pathlib import Path
import random

pa = arrow()
root, limit = Path(sys.argv[1]), int(sys.argv[2])
manager = ParquetIOManager(root)
good = pa.table({"a": [1, 2, 3]})
context, pointer = store(manager, good)
before = files_below(root)
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
noise = random.Random(1).randbytes(8_000_000)
big = pa.table({"a": [noise[i : i + 100] for i in range(0, len(noise), 100)]})
try:
    store(manager, big)
except HeadwaterError as error:
    print(error.code)
    print(error.message)
assert files_below(root) == before, files_below(root)
assert manager.load_input(input_of(context, pointer)).equals(good)
store(manager, good)  # what fits can be written again
"""


def test_a_full_disk_by_limit(tmp_path: Path) -> None:
    done = run_python(_FILL, str(tmp_path / "root"), "1000000")
    assert done.returncode == 0, done.stderr
    code, message = done.stdout.splitlines()
    assert code == DiskFullError.code
    assert "bytes" in message and ".parquet" in message


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A real file system of 4 MiB."""
    folder = Path(tempfile.mkdtemp())
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if done.returncode:
        folder.rmdir()
        pytest.skip("no right to mount a file system here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)
    folder.rmdir()


def test_a_full_disk(small_disk: Path) -> None:
    done = run_python(_FILL, str(small_disk / "root"), "0")
    assert done.returncode == 0, done.stderr
    code, message = done.stdout.splitlines()
    assert code == DiskFullError.code
    assert "No space left" in message and "are free" in message


_READ_ONLY = """
import sys
from pathlib import Path
from headwater.catalog.errors import HeadwaterError
from headwater.io import FileIOManager
from headwater.io.engines import arrow, polars, pandas
from tests.io.support import files_below, input_of, output, store

arrow(), polars()
root = Path(sys.argv[1])
manager = FileIOManager(root)
context, pointer = store(manager, {"a": 1})
before = files_below(root)
import os
for folder in (root, *root.rglob("*")):
    if folder.is_dir():
        os.chmod(folder, 0o555)
    else:
        os.chmod(folder, 0o444)
"""
_TRY = """
for what in ("stage", "publish"):
    try:
        staged = manager.stage(output(), {"a": 2})
        staged.publish()
    except HeadwaterError as error:
        print(error.code, error.message)
assert files_below(root) == before
assert manager.load_input(input_of(context, pointer)) == {"a": 1}
"""


def test_a_folder_that_may_not_be_written() -> None:
    folder = Path(tempfile.mkdtemp())  # not tmp_path, which nobody but its owner may enter
    folder.chmod(0o755)
    try:
        code = _READ_ONLY + as_ordinary_user() + _TRY
        done = run_python(code, str(folder / "root"))
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("E-STORAGE-RO")
        assert "Permission denied" in done.stdout
    finally:
        for path in folder.rglob("*"):
            if path.is_dir():
                path.chmod(0o755)
        shutil.rmtree(folder)


_KILLED = """
import sys, time
from headwater.io import FileIOManager
from headwater.io.engines import arrow
from tests.io.support import output
pa = arrow()
root, version, point = sys.argv[1:]
manager = FileIOManager(root)

def batches():
    for i in range(40):
        if i == 35 and point == "writing":
            print("ready", flush=True)
            time.sleep(60)
        yield pa.record_batch({"a": pa.array(range(i * 100_000, (i + 1) * 100_000))})

schema = pa.schema([("a", pa.int64())])
staged = manager.stage(output(version_id=version), pa.RecordBatchReader.from_batches(schema, batches()))
if point == "staged":
    print("ready", flush=True)
    time.sleep(60)
staged.publish()
print("ready", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("point", ["writing", "staged", "published"])
def test_a_killed_writer(tmp_path: Path, point: str) -> None:
    """The version before is untouched, nothing is visible, and one sweep removes what is left."""
    root = tmp_path / "root"
    manager = FileIOManager(root)
    good = pa.table({"a": [1, 2, 3]})
    context, pointer = store(manager, good)
    kept = {name: (root / name).read_bytes() for name in files_below(root)}
    lost = output()

    command = [sys.executable, "-c", _KILLED, str(root), lost.version_id, point]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment()) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        child.send_signal(signal.SIGKILL)
        child.wait()

    left = [name for name in files_below(root) if name not in kept]
    assert len(left) == 1
    if point != "published":
        assert left[0].startswith(f".staging/{RUN}/{lost.version_id}.parquet")
    assert manager.load_input(input_of(context, pointer)).equals(good)
    manager.sweep(manager.folder_of(lost.asset_key, None), lost.version_id, RUN)
    assert {name: (root / name).read_bytes() for name in files_below(root)} == kept
    assert not (root / ".staging" / RUN).exists()
    with pytest.raises(MissingDataError):
        manager.load_input(
            input_of(
                lost, pointer.__class__(uri=manager.folder_of(lost.asset_key, None) + "/x.parquet", format="parquet")
            )
        )


def test_two_writers_of_one_cell_make_two_whole_versions(tmp_path: Path) -> None:
    code = """
import sys
from headwater.io import FileIOManager
from headwater.io.engines import arrow
from tests.io.support import store
pa = arrow()
value = int(sys.argv[2])
for _ in range(10):
    context, pointer = store(FileIOManager(sys.argv[1]), pa.table({"a": [value] * 50_000}))
    print(pointer.uri)
"""
    root = tmp_path / "root"
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(root), str(value)],
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        for value in (1, 2)
    ]
    uris: list[set[str]] = []
    for writer in writers:
        uris.append(set(writer.communicate(timeout=120)[0].split()))
        assert writer.returncode == 0
    assert len(uris[0] | uris[1]) == 20
    manager = ParquetIOManager(root)
    for value, found in enumerate(uris, start=1):
        for uri in found:
            path = manager.store.path_of(uri)
            assert path is not None
            with manager.store.open(path) as file:
                column = pa.parquet.ParquetFile(file).read().column("a")
            assert column.unique().to_pylist() == [value]
            assert len(column) == 50_000
