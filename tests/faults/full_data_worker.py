"""What `test_together.py` runs: a step whose file is larger than files may be. Argument: the home.

The kernel says EFBIG for it, where a full disk says ENOSPC: that needs no rights.
"""

import resource
import signal
import sys
from pathlib import Path

import numpy as np
import polars as pl

import headwater as hw
from headwater.catalog.errors import DiskFullError
from headwater.catalog.records import RunStatus
from headwater.io import verify_pointer

LIMIT = 6 * 1024 * 1024
rows = [1_000]


@hw.asset(code_version="1")
def noise() -> pl.DataFrame:
    return pl.DataFrame({"noise": np.random.default_rng(1).random(rows[0])})


@hw.asset(code_version="1")
def small() -> int:
    return 1


def main() -> None:
    home = Path(sys.argv[1])
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with hw.Instance.open(home) as instance:

        def build() -> RunStatus:
            return hw.materialize([noise, small], instance=instance, force=True, raise_on_error=False).status

        assert build() is RunStatus.SUCCESS
        before = instance.catalog.current(hw.AssetKey("noise"))
        rows[0] = 4_000_000
        resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, resource.RLIM_INFINITY))
        assert build() is RunStatus.FAILURE
        (run,) = instance.catalog.runs(statuses=[RunStatus.FAILURE])
        (error,) = [step.error for step in instance.catalog.steps(run.run_id) if step.error]
        assert error.kind == DiskFullError.code and error.remedy and "noise" in error.message
        after = instance.catalog.current(hw.AssetKey("noise"))
        assert before is not None and after == before and before.pointer is not None
        verify_pointer(before.pointer)
        assert len([path for path in (home / "data").rglob("*") if path.is_file()]) == 3
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert build() is RunStatus.SUCCESS


if __name__ == "__main__":
    main()
