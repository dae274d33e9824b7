"""A full disk under the catalog: what was acknowledged stays, the rest is not, and there is room to say so."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.faults


def work(home: Path, limit: str) -> int:
    """The number of events that were acknowledged before the disk was full."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.full_disk_worker", str(home), limit],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_files_that_may_not_grow(tmp_path: Path) -> None:
    """The nearest to a full disk that needs no rights: RLIMIT_FSIZE."""
    assert work(tmp_path / "home", "1000000") > 10


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 12 MiB: the reserve takes 8."""
    command = ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(tmp_path)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no right to mount a file system here")
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_disk_that_is_full(small_disk: Path) -> None:
    work(small_disk / "home", str(small_disk / "filler"))
