"""A real daemon, killed between any two steps of its round, one after the other: each instant has its run, once."""

import signal
import subprocess
import sys
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from tests.cli.test_daemon import until
from tests.faults.daemon_worker import POINTS
from tests.faults.sizes import SIZES
from tests.project import ProjectFolder

ASSETS = """
import pathlib
from headwater import Definitions, ScheduleDefinition, asset, define_asset_job

@asset
def orders() -> int:
    with (pathlib.Path(__file__).parent / "built").open("a") as file:
        file.write("x")
    return 1

job = define_asset_job("job", "orders")
definitions = Definitions([orders], schedules=[ScheduleDefinition(job, "0 * * * *", "hourly", catch_up="all")])
"""


def daemon(project: ProjectFolder, point: str, hours: int) -> "subprocess.Popen[str]":
    worker = Path(__file__).with_name("daemon_worker.py")
    command = [sys.executable, str(worker), point, str(hours), "daemon"]
    with (project.path / "daemon.log").open("a") as log:
        return subprocess.Popen(command, cwd=project.path, env=project.environment(), stdout=log, stderr=log, text=True)


@pytest.mark.faults
@pytest.mark.timeout(600)
def test_killed_at_each_point(project: ProjectFolder) -> None:
    project.write(ASSETS)
    project.run("schedules", "start", "hourly")
    # By the daemon's clock, each run would take hours to begin.
    (project.path / ".headwater" / "instance.toml").write_text("[run_monitoring]\nenabled = false\n")
    points = POINTS[:: SIZES.point_stride]
    for hours, point in enumerate(points, 1):
        process = daemon(project, point, hours)
        assert process.wait(120) == -signal.SIGKILL, (point, (project.path / "daemon.log").read_text())
    last = daemon(project, "never", len(points) + 1)

    def all_over() -> bool:
        statuses = [run["status"] for run in project.json("runs", "--limit", "1000")["runs"]]
        return len(statuses) > len(points) and set(statuses) == {"SUCCESS"}

    until(all_over, last)
    last.terminate()
    assert last.wait(60) == 0, (project.path / "daemon.log").read_text()
    ticks = project.json("ticks", "--limit", "1000")["ticks"]
    instants = sorted(datetime.fromisoformat(tick["at"]) for tick in ticks)
    assert all(after - before == timedelta(hours=1) for before, after in pairwise(instants))
    assert {(tick["status"], len(tick["run_ids"])) for tick in ticks} == {("SUCCESS", 1)}
    runs = [run["run_id"] for run in project.json("runs", "--limit", "1000")["runs"]]
    assert sorted(runs) == sorted(tick["run_ids"][0] for tick in ticks)
    assert (project.path / "built").read_text() == "x" * len(runs)
