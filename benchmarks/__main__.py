"""Run the benchmarks: `python -m benchmarks [NAME …] [--peers]`.

Each file beside this one is a group with a function `rows()`. With `--peers`, Dagster is installed apart in `.peers`
and does the same work in the same run.
"""

import importlib
import subprocess
import sys

from benchmarks.harness import PEERS, show

GROUPS = (
    "cold_start",
    "tiny_assets",
    "staleness",
    "graph",
    "parquet",
    "partitions",
    "cells",
    "sharing",
    "process_pool",
    "sensors",
    "automation",
    "conditions",
)
PEER_REQUIREMENTS = ("dagster", "pandas", "pyarrow", "polars")


def main() -> None:
    arguments = sys.argv[1:]
    if {"-h", "--help"} & set(arguments):
        print(__doc__, f"Groups: {', '.join(GROUPS)}.", sep="\n")
        return
    if "--peers" in arguments:
        arguments.remove("--peers")
        if not (PEERS / "bin" / "python").exists():
            subprocess.run([sys.executable, "-m", "venv", str(PEERS)], check=True)
            subprocess.run([str(PEERS / "bin" / "pip"), "install", "--quiet", *PEER_REQUIREMENTS], check=True)
    unknown = [name for name in arguments if name not in GROUPS]
    if unknown:
        sys.exit(f"There is no benchmark '{unknown[0]}': {', '.join(GROUPS)}.")
    for name in arguments or GROUPS:
        show(importlib.import_module(f"benchmarks.{name}").rows())


if __name__ == "__main__":
    main()
