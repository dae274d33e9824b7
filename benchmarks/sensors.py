"""A thousand sensors that are due at once and want nothing (goal A2), and how soon one that is due is evaluated (A3).

Beside the first, with processes that are warm and ones that have to be started first, the same in this process: what
recording takes by itself.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import headwater as hw
from benchmarks.harness import RUNS, Figure, Row, write_project
from headwater.materialize.automation.evaluators import Evaluators, InThisProcess, open_evaluators
from headwater.materialize.automation.sensors import tick
from headwater.materialize.code_location import load_definitions
from headwater.materialize.project import Project

COUNT = 1000
SOURCE = """
import time
import headwater as hw

@hw.asset
def orders() -> int:
    return 1

job = hw.define_asset_job("nightly", "orders")


def make(number):
    @hw.sensor(job=job, name=f"s{number}", default_status="RUNNING")
    def one():
        return hw.SkipReason("nothing new")

    return one


definitions = hw.Definitions([orders], sensors=[make(number) for number in range({count})])
"""


def rows() -> list[Row]:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        numbers = iter(range(10_000))

        def load(count: int) -> hw.Definitions:
            root = write_project(folder / f"of{count}", SOURCE.replace("{count}", str(count)))
            sys.modules.pop("assets", None)
            return load_definitions(Project(root=root, home=root / "home", files=(root / "assets.py",)))

        def measured(count: int, kind: Callable[[hw.Instance, hw.Definitions], Evaluators] | None) -> Figure:
            """Seconds from when they are due until the ticks of all are recorded; without a kind, of a round alone."""
            definitions = load(count)
            walls: list[float] = []
            with hw.Instance.open(folder / f"home{next(numbers)}") as instance:
                now = instance.clock.now()

                def go(evaluators: Evaluators | None) -> float:
                    nonlocal now
                    now += timedelta(minutes=1)
                    begin = time.perf_counter()
                    done = len(tick(instance, definitions, {}, now, evaluators))
                    while done < count:
                        done += len(tick(instance, definitions, {}, now, evaluators))
                    return time.perf_counter() - begin

                if kind is None:
                    walls += (go(None) for _ in range(RUNS))
                else:
                    with kind(instance, definitions) as evaluators:
                        go(evaluators)
                        walls += (go(evaluators) for _ in range(RUNS))
            return Figure(sorted(walls)[len(walls) // 2], 0.0)

        here = measured(COUNT, InThisProcess)
        return [
            Row(
                "A2",
                f"{COUNT:,} sensors due at once, warm",
                measured(COUNT, open_evaluators),
                "in this process",
                here,
                goal="≤ 5 s",
            ),
            Row(
                "A2",
                f"{COUNT:,} sensors due at once, cold",
                measured(COUNT, None),
                "in this process",
                here,
                goal="≤ 5 s",
            ),
            Row("A3", "one sensor, from when it is due to its tick, warm", measured(1, open_evaluators), goal="≤ 1 s"),
        ]
