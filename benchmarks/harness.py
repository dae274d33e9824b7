"""Measuring: repeated, with CPU seconds beside wall seconds, and each figure beside what it is compared with."""

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PEERS = ROOT / ".peers"
#: Runs of everything; medians are quoted.
RUNS = int(os.environ.get("BENCH_RUNS", "5"))


@dataclass(frozen=True)
class Figure:
    """Medians over several runs."""

    wall: float
    cpu: float
    #: Peak resident memory of the largest process, in MiB; 0 where it was not measured.
    memory: float = 0.0


@dataclass
class Row:
    """One line of the table: what was measured, ours, what it is compared with, the goal."""

    name: str
    work: str
    ours: Figure
    #: Such as "raw pyarrow" or "dagster".
    against: str = ""
    other: Figure | None = None
    #: Divides every figure: assets, for milliseconds an asset.
    per: int = 1
    goal: str = ""
    more: dict[str, Any] = field(default_factory=dict[str, Any])


def measure(work: Callable[[], Any], *, runs: int = RUNS, before: Callable[[], Any] | None = None) -> Figure:
    """Medians of calling `work` in this process; `before` prepares each call and is not counted."""
    walls: list[float] = []
    cpus: list[float] = []
    for _ in range(runs):
        if before is not None:
            before()
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return Figure(statistics.median(walls), statistics.median(cpus))


def measure_pair(
    ours: Callable[[], Any], other: Callable[[], Any], *, runs: int = RUNS, after: Callable[[], Any] | None = None
) -> tuple[Figure, Figure]:
    """Medians of two calls made in turn, so that a noisy machine disturbs both; each is tried once before.

    `after` tidies up behind each call and is not counted.
    """
    taken: dict[Callable[[], Any], list[tuple[float, float]]] = {ours: [], other: []}
    for run in range(runs + 1):
        for work, figures in taken.items():
            wall, cpu = time.perf_counter(), time.process_time()
            work()
            figure = time.perf_counter() - wall, time.process_time() - cpu
            if run:
                figures.append(figure)
            if after is not None:
                after()
    first, second = (
        Figure(*(statistics.median(column) for column in zip(*taken[work], strict=True))) for work in (ours, other)
    )
    return first, second


def measure_process(
    command: Sequence[str],
    *,
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
    runs: int = RUNS,
    before: Callable[[], Any] | None = None,
) -> Figure:
    """Medians of running `command` as a whole process, which has to succeed.

    Compiled code is kept, as it is where a package is installed: a first run, which makes it, is not counted.
    """
    walls: list[float] = []
    cpus: list[float] = []
    memory = 0.0
    for number in range(runs + 1):
        if before is not None:
            before()
        start = time.perf_counter()
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "", **(env or {})},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        assert process.stderr is not None
        errors = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            raise RuntimeError(f"{' '.join(command)} failed:\n{errors.decode()}")
        if number == 0:
            continue
        walls.append(time.perf_counter() - start)
        cpus.append(usage.ru_utime + usage.ru_stime)
        memory = max(memory, usage.ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1024))
    return Figure(statistics.median(walls), statistics.median(cpus), memory)


def write_project(folder: Path, source: str) -> Path:
    """A project with one file, which was not changed just now: such a one is not remembered."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "headwater.toml").write_text('files = ["assets.py"]\n')
    (folder / "assets.py").write_text(source)
    then = time.time() - 60
    os.utime(folder / "assets.py", (then, then))
    return folder


def peak_memory() -> float:
    """This process's peak resident memory in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1024)


def run_peer(script: str, *arguments: str) -> dict[str, Any] | None:
    """Run one of the scripts in `benchmarks/peers` with the peers' own Python; None where they are not installed."""
    python = PEERS / "bin" / "python"
    if not python.exists():
        return None
    done = subprocess.run(
        [str(python), str(ROOT / "benchmarks" / "peers" / script), *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        print(f"{script}: {done.stderr[-2000:]}", file=sys.stderr)
        return None
    return json.loads(done.stdout.splitlines()[-1])


def show(rows: Sequence[Row]) -> None:
    """Print rows as a Markdown table."""
    print("\n| row | work | ours: wall (CPU) | against | other: wall (CPU) | ratio wall (CPU) | goal |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        other = row.other
        cpu = f" ({row.ours.cpu / other.cpu:.2f})" if other and other.cpu and row.ours.cpu else ""
        ratio = f"{row.ours.wall / other.wall:.2f}{cpu}" if other and other.wall else ""
        memory = f", {row.ours.memory:.0f} MB" if row.ours.memory else ""
        extra = "; ".join(f"{name} {value}" for name, value in row.more.items())
        work = f"{row.work} ({extra})" if extra else row.work
        print(
            f"| {row.name} | {work} | {_time(row.ours, row.per)}{memory} | {row.against} "
            f"| {_time(other, row.per) if other else ''} | {ratio} | {row.goal} |"
        )


def _time(figure: Figure, per: int) -> str:
    def one(seconds: float) -> str:
        seconds /= per
        return f"{seconds * 1000:.2f} ms" if seconds < 0.1 else f"{seconds:.2f} s"

    return f"{one(figure.wall)} ({one(figure.cpu)})"
