"""What goes on by itself: schedules that are due at once, from the instant to user code, and the daemon that idles."""

import os
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest import mock

from benchmarks.harness import RUNS, Figure, Row
from headwater import Definitions, Instance, ScheduleDefinition, asset, define_asset_job
from headwater.catalog.clock import SystemClock
from headwater.materialize import launching
from headwater.materialize.automation.daemon import Daemon
from headwater.materialize.automation.leadership import Candidate, take
from headwater.materialize.automation.schedules import tick

SCHEDULES = 1_000
TICKS = 10_000
#: Seconds that an idle daemon is watched for.
IDLE = float(os.environ.get("BENCH_SECONDS", "20"))
ORIGIN = {"folder": "/project", "files": ["/project/assets.py"], "modules": []}
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@asset
def orders() -> int:
    return 1


JOB = define_asset_job("job", "orders")


def rows() -> Iterator[Row]:
    """The lines of the table, as they come."""
    yield due_at_once()
    yield many_ticks()
    yield from started_and_idle()


def due_at_once() -> Row:
    """Schedules that are due at the same instant: decided, and their runs queued, in a catalog that a keeper has."""
    definitions = Definitions(
        [orders],
        schedules=[
            ScheduleDefinition(JOB, "0 * * * *", f"s{number}", default_status="RUNNING", execution_timezone=zone)
            for number in range(SCHEDULES)
            for zone in [("UTC", "America/New_York", "Europe/London", "Asia/Kolkata")[number % 4]]
        ],
    )
    walls: list[float] = []
    cpus: list[float] = []
    with tempfile.TemporaryDirectory() as folder, Instance.open(folder, crowded=True) as instance:
        tick(instance, definitions, ORIGIN, NOON + timedelta(minutes=40))
        for number in range(1, RUNS + 1):
            wall, cpu = time.perf_counter(), time.process_time()
            done = tick(instance, definitions, ORIGIN, NOON + timedelta(hours=number, minutes=40))
            walls.append(time.perf_counter() - wall)
            cpus.append(time.process_time() - cpu)
            assert len(done) >= SCHEDULES
    middle = len(walls) // 2
    figure = Figure(sorted(walls)[middle], sorted(cpus)[middle])
    return Row("A1", f"{SCHEDULES:,} schedules due at once, decided and queued", figure, goal="1 s")


class _Hurried(SystemClock):
    """A clock that is moved by hand."""

    seconds = 0.0

    def now(self) -> datetime:
        return NOON + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return self.seconds


def many_ticks() -> Row:
    """Growth of a daemon that evaluates a schedule of every minute, and whose runs end."""
    from headwater.catalog.events import RunEnded
    from headwater.catalog.records import RunStatus

    clock = _Hurried()
    definitions = Definitions(
        [orders], schedules=[ScheduleDefinition(JOB, "* * * * *", "minutely", default_status="RUNNING")]
    )
    sizes: list[float] = []
    with tempfile.TemporaryDirectory() as folder, Instance.open(folder, clock=clock, crowded=True) as instance:
        daemon = Daemon(take(instance, Candidate.this()), definitions, ORIGIN, tell=print)
        cpu, wall = time.process_time(), time.perf_counter()
        with mock.patch.object(launching, "spawn", _spawn):
            for number in range(TICKS):
                clock.seconds += 60
                daemon.look()
                ended = [
                    RunEnded(time=clock.now(), run_id=run.run_id, status=RunStatus.CANCELED)
                    for run in instance.catalog.runs(statuses=[RunStatus.QUEUED])
                ]
                instance.catalog.append(ended)
                if number in (TICKS // 10, TICKS - 1):
                    sizes.append(_memory(os.getpid()))
    figure = Figure(time.perf_counter() - wall, time.process_time() - cpu, sizes[-1])
    grown = f"{sizes[1] - sizes[0]:+.1f} MiB"
    return Row("A5", f"the daemon, {TICKS:,} ticks", figure, per=TICKS, goal="5 MB more", more={"RSS": grown})


class _Ended:
    pid = 0

    def poll(self) -> int:
        return 0


def _spawn(*_: object) -> _Ended:
    return _Ended()


def started_and_idle() -> Iterator[Row]:
    """How fast the daemon starts, how long it takes from an instant to user code, and what it costs to wait."""
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder)
        (project / "headwater.toml").write_text('files = ["assets.py"]\n')
        (project / "assets.py").write_text(
            textwrap.dedent("""
            import pathlib, time
            from headwater import Definitions, ScheduleDefinition, asset, define_asset_job

            @asset
            def orders() -> int:
                with (pathlib.Path(__file__).parent / "said").open("a") as file:
                    file.write(f"{time.time()}\\n")
                return 1

            job = define_asset_job("job", "orders")
            minutely = ScheduleDefinition(job, "* * * * *", "minutely", default_status="RUNNING")
            definitions = Definitions([orders], schedules=[minutely])
            """)
        )
        said = project / "said"
        began = time.perf_counter()
        daemon = subprocess.Popen(
            [sys.executable, "-m", "headwater", "daemon"], cwd=project, stderr=subprocess.PIPE, text=True
        )
        try:
            assert daemon.stderr is not None
            daemon.stderr.readline()
            yield Row("A3", "the daemon is there", Figure(time.perf_counter() - began, _cpu(daemon.pid)))
            late: list[float] = []
            seen = 0
            while len(late) < min(RUNS, 3):
                time.sleep(0.05)
                times = [float(line) for line in said.read_text().splitlines()] if said.exists() else []
                # The first one, of the minute in which it began, is no measure.
                late += [moment % 60 for moment in times[max(seen, 1) :]]
                seen = len(times)
            figure = Figure(sorted(late)[len(late) // 2], 0.0)
            yield Row("A3", "from the instant of a cron to the first line of user code", figure, goal="1 s")
            time.sleep(3)
            before = _cpu(daemon.pid)
            time.sleep(IDLE)
            used = _cpu(daemon.pid) - before
            yield Row(
                "A5",
                f"an idle daemon, {IDLE:.0f} s",
                Figure(IDLE, used, _memory(daemon.pid)),
                more={"CPU": f"{used / IDLE:.2%}"},
            )
        finally:
            daemon.terminate()
            daemon.communicate()


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _memory(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) / 1024
