"""What `test_kill.py` kills: builds a small graph over and over, and says which runs it was told are durable.

Every table's rows all hold the same token, a new one for each version, and `below` repeats the tokens of what it read:
so a torn table, a mixed one and a wrong provenance all show.
"""

import os
import sys
from pathlib import Path

import polars as pl

import headwater as hw

ROWS = 500
WIDTH = 4


def token() -> str:
    return os.urandom(8).hex()


def top(number: int) -> hw.AssetsDefinition:
    @hw.asset(name=f"top{number}", code_version="1")
    def one() -> pl.DataFrame:
        mark = token()
        return pl.DataFrame({"token": [mark] * ROWS, "n": range(ROWS)})

    return one


def below(number: int) -> hw.AssetsDefinition:
    @hw.asset(name=f"below{number}", ins={"up": hw.AssetIn(f"top{number}")}, code_version="1")
    def one(up: pl.DataFrame) -> pl.DataFrame:
        return up.with_columns(own=pl.lit(token()))

    return one


@hw.asset(code_version="1", deps=[f"below{n}" for n in range(WIDTH)])
def last() -> dict[str, str]:
    return {"token": token()}


definitions = hw.Definitions([*(top(n) for n in range(WIDTH)), *(below(n) for n in range(WIDTH)), last])


def main() -> None:
    home = Path(sys.argv[1])
    # Imports take longer than runs: have them behind us before the clock starts.
    hw.materialize(definitions)
    print("ready", flush=True)
    with hw.Instance.open(home) as instance:
        while True:
            result = hw.materialize(definitions, instance=instance, force=True)
            made = ",".join(f"{m.asset}={m.version_id}" for m in result.materializations)
            print(f"done {result.run_id} {made}", flush=True)


if __name__ == "__main__":
    main()
