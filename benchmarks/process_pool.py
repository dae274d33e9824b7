"""Steps in a pool of processes (goal S2): the first of a cold pool, and steps that do nothing in a warm one.

Beside the first, what no new process can do without: starting Python and importing as much. Beside the others, the same
steps in the run's own process.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import headwater as hw
from benchmarks.harness import RUNS, Figure, Row, measure_process, write_project
from headwater.catalog.events import Event, StepEnded
from headwater.materialize.code_location import load_definitions
from headwater.materialize.project import Project

COUNT = 300
SOURCE = """
import headwater as hw
{imports}


def make(number):
    @hw.asset(name=f"a{number}", deps={deps})
    def one() -> None:
        pass

    return one


definitions = hw.Definitions([make(number) for number in range({count})])
"""
CHAIN, WIDE = "[f'a{number - 1}'] if number else []", "[]"
#: What most projects import.
HEAVY = "import pandas, polars"


def build(definitions: hw.Definitions, home: Path, executor: str) -> tuple[float, float]:
    """Build everything anew: seconds until the first step had ended, and from then until the last had."""
    ends: list[float] = []

    def listen(event: Event) -> None:
        if isinstance(event, StepEnded):
            ends.append(time.perf_counter())

    with hw.Instance.open(home) as instance:
        start = time.perf_counter()
        result = hw.materialize(definitions, instance=instance, executor=executor, max_workers=2, listener=listen)
        assert result.success
    return ends[0] - start, ends[-1] - ends[0]


def rows() -> list[Row]:
    found: list[Row] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        homes = (folder / f"home{number}" for number in range(10_000))

        def load(name: str, count: int, deps: str, imports: str = "") -> hw.Definitions:
            source = SOURCE.replace("{count}", str(count)).replace("{deps}", deps).replace("{imports}", imports)
            root = write_project(folder / name, source)
            sys.modules.pop("assets", None)
            return load_definitions(Project(root=root, home=root / "home", files=(root / "assets.py",)))

        def median(work: Callable[[], float]) -> Figure:
            walls = sorted(work() for _ in range(RUNS))
            return Figure(walls[len(walls) // 2], 0.0)

        for name, imports, goal in (("light", "", "≤ 0.8 s"), ("pandas and polars", HEAVY, "")):
            definitions = load(name.replace(" ", "_"), 1, WIDE, imports)
            code = f"{imports}\nimport headwater.materialize.executors.worker"
            found.append(
                Row(
                    "S2",
                    f"first step of a cold pool, {name}",
                    median(lambda definitions=definitions: build(definitions, next(homes), "processes")[0]),
                    "python -c with the same imports",
                    measure_process([sys.executable, "-c", code]),
                    goal=goal,
                )
            )
        for name, deps in (("wide", WIDE), ("chain", CHAIN)):
            definitions = load(name, COUNT, deps)
            found.append(
                Row(
                    "S2",
                    f"{COUNT} steps that do nothing, {name}, warm, a step",
                    median(lambda definitions=definitions: build(definitions, next(homes), "processes")[1]),
                    "in this process",
                    median(lambda definitions=definitions: build(definitions, next(homes), "in_process")[1]),
                    per=COUNT,
                    goal="≤ 8 ms",
                )
            )
    return found
