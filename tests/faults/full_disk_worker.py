"""What `test_full_disk.py` runs: writes to a catalog until the disk is full, and on after there is space again.

Arguments: the home, and the size at which files end, or a file that fills the disk.
"""

import random
import resource
import shutil
import signal
import sys
from pathlib import Path

from headwater.catalog.errors import DiskFullError
from headwater.catalog.storage.duckdb import open_catalog
from tests.histories import History

INFINITY = resource.RLIM_INFINITY


def main() -> None:
    home, limit = Path(sys.argv[1]), sys.argv[2]
    filler = None if limit.isdigit() else Path(limit)
    history, noise = History(), random.Random(1)
    open_catalog(home, wait=0).close()
    with open_catalog(home, wait=0) as storage:
        assert (home / "catalog.reserve").exists()
        if filler is None:
            # The kernel says EFBIG for any file and to anybody, where a full disk says ENOSPC.
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), INFINITY))
        else:
            fill(filler)
        acknowledged = 0
        try:
            while True:
                acknowledged = storage.append([history.start("a", tags={"x": noise.randbytes(6000).hex()})])
        except DiskFullError as error:
            assert error.remedy and str(home) in error.message
        assert not (home / "catalog.reserve").exists(), "there is room now to record what failed"
        assert storage.append([history.start("small")]) == acknowledged + 1
        if filler is None:
            shutil.copytree(home, home.with_name("killed"), ignore=shutil.ignore_patterns("catalog.lock"))
            read_without_room(home.with_name("killed"), acknowledged + 1)
            resource.setrlimit(resource.RLIMIT_FSIZE, (INFINITY, INFINITY))
        else:
            filler.unlink()
        assert storage.append([history.start("b")]) == acknowledged + 2
    with open_catalog(home, wait=0, read_only=True) as storage:
        assert [event.seq for event in storage.events(limit=None)] == list(range(1, acknowledged + 3))
    print(acknowledged)


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return


def read_without_room(home: Path, events: int) -> None:
    """A catalog that a killed process left on a full disk is read all the same, from a copy in memory if need be."""
    with open_catalog(home, wait=0, read_only=True) as storage:
        assert len(storage.events(limit=None)) == events


if __name__ == "__main__":
    main()
