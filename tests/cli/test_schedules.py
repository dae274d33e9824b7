"""Schedules on the command line, with real processes that are really killed."""

import json
import signal
import subprocess
import sys
from collections import Counter
from typing import Any

import pytest

from tests.project import ProjectFolder

ASSETS = """
import pathlib
from headwater import Definitions, ScheduleDefinition, SkipReason, asset, define_asset_job, schedule

@asset
def orders() -> int:
    with (pathlib.Path(__file__).parent / "built").open("a") as file:
        file.write("x")
    return 1

job = define_asset_job("nightly", "orders")
early = ScheduleDefinition(job, "30 2 * * *", "early", execution_timezone="America/New_York")

@schedule(["0 6 * * *", "0 18 * * *"], job=job, catch_up="all")
def twice(context):
    \"\"\"Twice a day, but not at the beginning of a month.\"\"\"
    return SkipReason("the first") if context.scheduled_execution_time.day == 1 else {}

definitions = Definitions([orders], schedules=[early, twice])
"""
NOW = "2024-03-10T07:00:00Z"


@pytest.fixture
def clocks(project: ProjectFolder) -> ProjectFolder:
    project.write(ASSETS)
    return project


def wait(project: ProjectFolder, run_ids: list[str]) -> None:
    for run_id in run_ids:
        project.run("run", "wait", run_id)


def test_schedules_are_listed_started_stopped_and_previewed(clocks: ProjectFolder) -> None:
    early, twice = clocks.json("schedules")["schedules"]
    assert (early["name"], early["cron"], early["timezone"]) == ("early", "30 2 * * *", "America/New_York")
    assert (early["status"], early["next"], early["job"]) == ("STOPPED", None, "nightly")
    assert twice["cron"] == ["0 6 * * *", "0 18 * * *"]
    assert clocks.json("schedules", "start", "early")["status"] == "RUNNING"
    (early, _) = clocks.json("schedules", "ls")["schedules"]
    assert early["status"] == "RUNNING"
    assert early["next"][13:] in (":30:00Z", ":00:00Z")
    assert "early" in clocks.run("schedules").out
    assert clocks.run("schedules", "stop", "early").out == "STOPPED  early\n"
    shown = clocks.json("schedules", "preview", "early", "--from", "2024-03-09T00:00:00Z", "--count", "3")
    assert shown["ticks"] == ["2024-03-09T07:30:00Z", NOW, "2024-03-11T06:30:00Z"]
    assert "Sun 2024-03-10 03:00 EDT" in clocks.run("schedules", "preview", "early", "--from", "2024-03-10").out
    assert "There is no schedule `erly`." in clocks.run("schedules", "start", "erly", code=2).err
    assert "is no time" in clocks.run("schedules", "preview", "early", "--from", "soon", code=2).err


def test_a_tick_starts_what_is_due_and_the_history_says_so(clocks: ProjectFolder) -> None:
    assert clocks.json("tick", "--now", NOW)["ticks"] == []
    clocks.run("schedules", "start", "early")
    clocks.run("schedules", "start", "twice")
    (done,) = clocks.json("tick", "--now", NOW)["ticks"]
    assert (done["name"], done["at"], done["status"], done["reason"]) == ("early", NOW, "SUCCESS", None)
    wait(clocks, done["run_ids"])
    shown = clocks.json("run", "show", done["run_ids"][0])
    assert (shown["job"], shown["status"], shown["tags"]["headwater/schedule"]) == ("nightly", "SUCCESS", "early")
    assert "Nothing was due." in clocks.run("tick", "--now", NOW).err
    # Nothing of this is carried out: runs may not begin.
    (clocks.path / ".headwater" / "instance.toml").write_text("[run_queue]\nmax_concurrent_runs = 0\n", "utf-8")
    later = clocks.json("tick", "--now", "2024-04-01T12:00:00Z")["ticks"]
    assert Counter((one["name"], one["status"]) for one in later) == Counter(
        {("early", "SKIPPED"): 21, ("early", "SUCCESS"): 1, ("twice", "SUCCESS"): 43, ("twice", "SKIPPED"): 1}
    )
    assert clocks.json("ticks", "twice", "--limit", "1")["ticks"][0]["reason"] == "the first"
    assert len(clocks.json("ticks", "--limit", "100")["ticks"]) == 67
    waiting = clocks.json("runs", "--status", "queued", "--limit", "100")["runs"]
    assert len(waiting) == 44
    assert clocks.json("run", "cancel", waiting[0]["run_id"])["status"] == "CANCELED"


def test_who_is_killed_between_the_tick_and_its_run_loses_nothing(clocks: ProjectFolder) -> None:
    clocks.run("schedules", "start", "early")
    script = f"""
        import os, signal
        from datetime import datetime
        from headwater import Instance
        from headwater.materialize.code_location import load_definitions
        from headwater.materialize.project import find_project
        from headwater.materialize.automation.schedules import tick

        project = find_project()
        instance = Instance.open(project.home)
        done = tick(instance, load_definitions(project), project.origin, datetime.fromisoformat("{NOW}"))
        assert len(done) == 1
        os.kill(os.getpid(), signal.SIGKILL)
    """
    file = clocks.write(script, "killed.py")
    process = subprocess.run([sys.executable, str(file)], cwd=clocks.path, env=clocks.environment(), check=False)
    assert process.returncode == -signal.SIGKILL
    (run,) = clocks.json("runs")["runs"]
    assert (run["status"], run["pid"]) == ("QUEUED", 0)
    assert not (clocks.path / "built").exists()
    again = clocks.json("tick", "--now", NOW)
    assert (again["ticks"], again["launched"]) == ([], [run["run_id"]])
    wait(clocks, again["launched"])
    assert clocks.json("tick", "--now", NOW)["launched"] == []
    assert (clocks.path / "built").read_text() == "x"
    assert len(clocks.json("runs")["runs"]) == 1


def test_of_two_processes_for_one_run_one_carries_it_out(clocks: ProjectFolder) -> None:
    """As when two launch what waits at the same time."""
    home = clocks.path / ".headwater"
    home.mkdir()
    (home / "instance.toml").write_text("[run_queue]\nmax_concurrent_runs = 0\n", "utf-8")
    clocks.run("schedules", "start", "early")
    (done,) = clocks.json("tick", "--now", NOW)["ticks"]
    (run_id,) = done["run_ids"]
    assert clocks.json("tick", "--now", NOW)["launched"] == []
    (home / "instance.toml").unlink()
    processes = [clocks.start("run", "execute", run_id) for _ in range(3)]
    codes = [process.wait(90) for process in processes]
    for process in processes:
        process.communicate()
    wait(clocks, [run_id])
    assert codes == [0, 0, 0]
    assert (clocks.path / "built").read_text() == "x"


def test_several_that_tick_at_the_same_time_decide_each_instant_once(clocks: ProjectFolder) -> None:
    for name in ("early", "twice"):
        clocks.run("schedules", "start", name)
    clocks.run("tick", "--now", "2024-03-10T12:00:00Z")
    later = "2024-03-12T05:00:00Z"
    processes = [clocks.start("tick", "--now", later, "--json") for _ in range(4)]
    answers: list[Any] = []
    for process in processes:
        out, err = process.communicate(timeout=90)
        assert process.returncode == 0, err
        answers += json.loads(out)["ticks"]
    instants = Counter((one["name"], one["at"]) for one in answers)
    assert instants == Counter(
        [
            ("early", "2024-03-11T06:30:00Z"),
            *(("twice", f"2024-03-{day}:00:00Z") for day in ("10T18", "11T06", "11T18")),
        ]
    )
    runs = clocks.json("runs", "--limit", "100")["runs"]
    assert sorted(run["run_id"] for run in runs) == sorted(run_id for one in answers for run_id in one["run_ids"])
    wait(clocks, [run["run_id"] for run in runs])
    assert (clocks.path / "built").read_text() == "x" * len(runs)
