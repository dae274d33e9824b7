"""A process that builds what it is told to, line by line: `{"home", "asset", "partition", "on_conflict", "mark"}`.

It answers each with a line: the run, how it ended, and the versions that it is told are durable; or what was raised.
Processes of this kind start at once, race for a partition, and are killed, without the cost of starting Python.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import headwater as hw

ROWS = 200
ASSETS = 16

SOURCE = f"""
import headwater as hw
import polars as pl

#: What rows are filled with: whoever builds says something else.
mark = ["nothing"]


def one(number: int) -> hw.AssetsDefinition:
    @hw.asset(name=f"own{{number}}", code_version="1")
    def own() -> pl.DataFrame:
        return pl.DataFrame({{"mark": mark * {ROWS}, "row": range({ROWS})}})

    return own


@hw.asset(code_version="1", partitions_def=hw.StaticPartitionsDefinition(["a", "b"]))
def shared() -> pl.DataFrame:
    return pl.DataFrame({{"mark": mark * {ROWS}, "row": range({ROWS})}})


definitions = hw.Definitions([*(one(number) for number in range({ASSETS})), shared])
"""


def project() -> dict[str, Any]:
    """The project as its file defines it."""
    names: dict[str, Any] = {}
    exec(compile(SOURCE, "assets.py", "exec"), names)
    return names


def build(names: dict[str, Any], order: dict[str, Any]) -> dict[str, Any]:
    """Do what one line says."""
    names["mark"][0] = order["mark"]
    with hw.Instance.open(Path(order["home"]), wait=120) as instance:
        result = hw.materialize(
            names["definitions"],
            instance=instance,
            selection=[order["asset"]],
            partition_key=order.get("partition"),
            force=True,
            on_conflict=order.get("on_conflict", "queue"),
        )
    made = {m.version_id: order["mark"] for m in result.materializations}
    return {"run": result.run_id, "status": str(result.status), "made": made}


def main() -> None:
    names = project()
    hw.materialize(names["definitions"], selection=["own0"])  # imports are behind us when it is said that we are ready
    answers = os.dup(1)  # what a step prints is captured
    os.write(answers, b'{"ready": true}\n')
    for line in sys.stdin:
        try:
            answer = build(names, json.loads(line))
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        os.write(answers, json.dumps(answer).encode() + b"\n")


if __name__ == "__main__":
    main()
