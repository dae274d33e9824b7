"""A catalog that many processes share: transactions, taking over after a kill, an idle keeper (goals S1, S3, S4)."""

import contextlib
import multiprocessing
import os
import signal
import sqlite3
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.harness import Figure, Row
from headwater import Instance
from headwater.catalog.events import LogMessage, RunStarted
from headwater.catalog.ids import new_id
from headwater.catalog.storage.lock import holder

NOW = datetime(2026, 1, 1, tzinfo=UTC)
#: Seconds that each number of processes writes for.
SECONDS = float(os.environ.get("BENCH_SECONDS", "5"))
COUNTS = (1, 4, 8, 64)
KEEPER_KILLS = 5


@dataclass(frozen=True)
class Load:
    """What a number of writers did: seconds of each transaction, and of all of it."""

    taken: Sequence[float]
    wall: float
    #: CPU seconds of the keeper, or of the only process.
    cpu: float

    def row(self, work: str, against: str = "", other: "Load | None" = None, goal: str = "") -> Row:
        ranked = sorted(self.taken)
        rate = len(ranked) / self.wall
        times = f" = {rate * other.wall / len(other.taken):.1f} times as many" if other else ""
        return Row(
            "S1",
            work,
            self.figure,
            against=against,
            other=other.figure if other else None,
            goal=goal,
            more={
                "a second": f"{rate:,.0f}{times}",
                "p99": f"{ranked[int(len(ranked) * 0.99)] * 1000:.1f} ms",
                "worst": f"{ranked[-1] * 1000:.0f} ms",
            },
        )

    @property
    def figure(self) -> Figure:
        return Figure(statistics.median(self.taken), self.cpu / len(self.taken))


def rows() -> Iterator[Row]:
    """The lines of the table, as they come."""
    bare = bare_duckdb()
    for count in COUNTS:
        goal = "bare + 0.5 ms" if count == 1 else "2,000 a second, worst 100 ms" if count >= 8 else ""
        yield shared(count).row(f"a transaction through the keeper, {count} processes", "duckdb commit", bare, goal)
    yield owned().row("the same in the process that owns the catalog", "duckdb commit", bare)
    yield sqlite(8).row("one SQLite file that 8 processes open", "duckdb commit", bare)
    yield take_over()
    yield idle()


def shared(count: int) -> Load:
    """Transactions of `count` processes of one home."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        with Instance.open(home) as instance:
            run_id = new_run(instance)
            with company(home):
                instance.catalog.claims()
                keeper = keeper_of(home)
                before = cpu_seconds(keeper)
                taken, wall = together(count, _write, home, run_id)
                return Load(taken, wall, cpu_seconds(keeper) - before)


def owned() -> Load:
    """Transactions of the only process."""
    with tempfile.TemporaryDirectory() as folder, Instance.open(folder) as instance:
        run_id, before = new_run(instance), time.process_time()
        taken, wall = _timed(lambda: instance.catalog.append([message(run_id)]))
        return Load(taken, wall, time.process_time() - before)


def bare_duckdb() -> Load:
    """The raw limit: one row, one commit, one connection."""
    import duckdb

    with tempfile.TemporaryDirectory() as folder, duckdb.connect(f"{folder}/bare.duckdb") as connection:
        connection.execute("create table event (seq bigint, body varchar)")
        before = time.process_time()
        taken, wall = _timed(lambda: connection.execute("insert into event values (?, ?)", [1, "x" * 200]).fetchall())
        return Load(taken, wall, time.process_time() - before)


def sqlite(count: int) -> Load:
    """What a file that everybody opens does: SQLite with a write-ahead log, as durable as ours."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "events.sqlite"
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("pragma journal_mode = wal")
            connection.execute("create table event (seq integer primary key, body text)")
        taken, wall = together(count, _write_sqlite, path, "")
        return Load(taken, wall, 0.0)


def take_over() -> Row:
    """The longest silence of one of 8 writers around each `kill -9` of the keeper, and whether anything was lost."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        with Instance.open(home) as instance:
            run_id = new_run(instance)
            with company(home):
                instance.catalog.claims()
                done = threading.Event()
                killer = threading.Thread(target=_kill_keepers, args=(home, done))
                killer.start()
                taken, wall = together(8, _write, home, run_id, seconds=KEEPER_KILLS * 2.0)
                done.set()
                killer.join()
                kept = len(instance.catalog.events(run_id=run_id, kinds=["LOG_MESSAGE"], limit=None))
    return Row(
        "S3",
        f"worst transaction of 8 processes, {KEEPER_KILLS} times kill -9 of the keeper",
        Figure(max(taken), 0.0),
        goal="1 s, nothing lost",
        more={"acknowledged": len(taken), "kept": kept - 8, "a second": f"{len(taken) / wall:,.0f}"},
    )


def idle() -> Row:
    """What a keeper costs that has a client and nothing to do."""
    seconds = max(SECONDS, 5.0)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        with Instance.open(home) as instance:
            new_run(instance)
            with company(home):
                instance.catalog.claims()
                keeper = keeper_of(home)
                before = cpu_seconds(keeper)
                time.sleep(seconds)
                used = cpu_seconds(keeper) - before
                status = Path(f"/proc/{keeper}/status").read_text()
                memory = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) / 1024
    return Row(
        "S4",
        f"an idle keeper, {seconds:.0f} s",
        Figure(seconds, used, memory),
        goal="0.5 % CPU, 150 MB",
        more={"CPU": f"{used / seconds:.2%}"},
    )


def new_run(instance: Instance) -> str:
    run_id = new_id(NOW)
    instance.catalog.append([RunStarted(time=NOW, run_id=run_id, steps=())])
    return run_id


def message(run_id: str) -> LogMessage:
    return LogMessage(time=NOW, run_id=run_id, step_key=None, level="INFO", message="x" * 120)


@contextlib.contextmanager
def company(home: Path) -> Iterator[None]:
    """Another process that has the catalog open, which is what a keeper is for."""
    context = multiprocessing.get_context("spawn")
    ready, leave = context.Event(), context.Event()
    other = context.Process(target=_stay, args=(home, ready, leave))
    other.start()
    ready.wait()
    try:
        yield
    finally:
        leave.set()
        other.join()


def together(
    count: int, work: Callable[..., None], target: Path, run_id: str, *, seconds: float = SECONDS
) -> tuple[list[float], float]:
    """Have `count` processes work at the same time; the seconds of each transaction, and of all of it."""
    context = multiprocessing.get_context("spawn")
    barrier, answers = context.Barrier(count + 1), context.SimpleQueue()
    workers = [context.Process(target=work, args=(target, run_id, seconds, barrier, answers)) for _ in range(count)]
    for worker in workers:
        worker.start()
    barrier.wait()
    start = time.perf_counter()
    taken = [one for _ in workers for one in answers.get()]
    wall = time.perf_counter() - start
    for worker in workers:
        worker.join()
    return taken, wall


def keeper_of(home: Path) -> int:
    found = holder(home)
    assert found is not None and found.keeper, "nobody keeps the catalog"
    return found.pid


def cpu_seconds(pid: int) -> float:
    """CPU seconds of a process: user and system, of proc(5)."""
    fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _timed(work: Callable[[], Any], seconds: float = SECONDS) -> tuple[list[float], float]:
    taken: list[float] = []
    begin = now = time.perf_counter()
    while now - begin < seconds:
        work()
        after = time.perf_counter()
        taken.append(after - now)
        now = after
    return taken, now - begin


def _write(home: Path, run_id: str, seconds: float, barrier: Any, answers: Any) -> None:
    with Instance.open(home) as instance:
        instance.catalog.append([message(run_id)])  # connects; not counted
        barrier.wait()
        answers.put(_timed(lambda: instance.catalog.append([message(run_id)]), seconds)[0])


def _write_sqlite(path: Path, _: str, seconds: float, barrier: Any, answers: Any) -> None:
    with contextlib.closing(sqlite3.connect(path, timeout=60, isolation_level=None)) as connection:
        connection.execute("pragma synchronous = full")
        insert = "insert into event (body) values (?)"
        barrier.wait()
        answers.put(_timed(lambda: connection.execute(insert, ["x" * 200]).fetchall(), seconds)[0])


def _stay(home: Path, ready: Any, leave: Any) -> None:
    with Instance.open(home) as instance:
        instance.catalog.claims()
        ready.set()
        leave.wait()


def _kill_keepers(home: Path, done: threading.Event) -> None:
    for _ in range(KEEPER_KILLS):
        if done.wait(1.5):
            return
        found = holder(home)
        if found is not None and found.keeper:
            os.kill(found.pid, signal.SIGKILL)
