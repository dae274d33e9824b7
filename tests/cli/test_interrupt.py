"""Ctrl-C and SIGTERM, sent to real processes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.project import ProjectFolder

SLOW = """
import pathlib, time
from headwater import asset

HERE = pathlib.Path(__file__).parent

@asset
def quick() -> int:
    return 1

@asset
def slow(quick: int) -> int:
    (HERE / "started").touch()
    {body}
    return 2

@asset
def after(slow: int) -> int:
    return 3
"""


def wait_for(file: Path, process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 60
    while not file.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def start(project: ProjectFolder, body: str, *arguments: str):  # type: ignore[no-untyped-def]
    project.write(SLOW.format(body=body))
    process = project.start("materialize", "--json", *arguments)
    wait_for(project.path / "started", process)
    return process


def outcomes(project: ProjectFolder) -> tuple[str, dict[str, str]]:
    run = project.json("runs")["runs"][0]
    return run["status"], {step["key"]: step["status"] for step in run["steps"]}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_first_signal_lets_the_running_step_finish(project: ProjectFolder, number: int, code: int) -> None:
    process = start(project, 'while not (HERE / "go").exists(): time.sleep(0.01)')
    process.send_signal(number)
    time.sleep(0.2)
    (project.path / "go").touch()
    out, err = process.communicate(timeout=30)
    assert process.returncode == code, out + err
    assert outcomes(project) == ("CANCELED", {"quick": "SUCCESS", "slow": "SUCCESS", "after": "CANCELED"})
    assert project.built() == {"after": "SUCCESS"}, "it goes on where it was stopped"


@pytest.mark.parametrize("executor", ["in_process", "threads"])
def test_the_second_signal_stops_the_running_step(project: ProjectFolder, executor: str) -> None:
    process = start(project, "for _ in range(6000): time.sleep(0.01)", "--executor", executor)
    started = time.monotonic()
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130
    assert time.monotonic() - started < 10
    status, steps = outcomes(project)
    assert (status, steps["quick"]) == ("CANCELED", "SUCCESS")
    assert steps["slow"] in ("CANCELED", "INTERRUPTED")
    project.edit("for _ in range(6000): time.sleep(0.01)", "pass")
    assert project.built() == {"slow": "SUCCESS", "after": "SUCCESS"}


@pytest.mark.parametrize("executor", ["in_process", "threads", "processes"])
def test_one_signal_stops_a_step_that_does_not_end(project: ProjectFolder, executor: str) -> None:
    process = start(project, "for _ in range(60000): time.sleep(0.01)", "--executor", executor)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143
    assert outcomes(project)[1]["slow"] in ("CANCELED", "INTERRUPTED")


def test_a_step_that_swallows_the_interrupt_does_not_keep_the_process(project: ProjectFolder) -> None:
    body = """
    while True:
        try:
            time.sleep(60)
        except BaseException:
            pass
    """
    process = start(project, body)
    started = time.monotonic()
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert time.monotonic() - started < 10
    assert "CANCELED  slow did not stop" in err
    assert outcomes(project) == ("CANCELED", {"quick": "SUCCESS", "slow": "CANCELED", "after": "CANCELED"})


def test_a_killed_run_is_settled_by_the_next_one(project: ProjectFolder) -> None:
    process = start(project, "for _ in range(6000): time.sleep(0.01)")
    process.kill()
    process.communicate()
    assert outcomes(project)[0] == "INTERRUPTED", "readers say so without writing"
    events = [event["kind"] for event in project.json("events")["events"]]
    assert "RUN_INTERRUPTED" not in events
    project.edit("for _ in range(6000): time.sleep(0.01)", "pass")
    assert project.built() == {"quick": "SUCCESS", "slow": "SUCCESS", "after": "SUCCESS"} or project.statuses() == {
        "quick": "FRESH",
        "slow": "FRESH",
        "after": "FRESH",
    }
    statuses = [run["status"] for run in project.json("runs")["runs"]]
    assert statuses == ["SUCCESS", "INTERRUPTED"]


def test_other_processes_see_what_a_run_does_while_it_goes_on(project: ProjectFolder) -> None:
    process = start(project, 'while not (HERE / "go").exists(): time.sleep(0.01)')
    assert project.statuses() == {"quick": "FRESH", "slow": "MISSING", "after": "MISSING"}
    (run,) = project.json("runs")["runs"]
    assert (run["status"], run["pid"]) == ("STARTED", process.pid)
    (project.path / "go").touch()
    process.communicate(timeout=30)
    assert process.returncode == 0
    assert project.statuses() == {"quick": "FRESH", "slow": "FRESH", "after": "FRESH"}


def test_a_second_run_of_the_same_cells_waits_or_fails(project: ProjectFolder) -> None:
    process = start(project, 'while not (HERE / "go").exists(): time.sleep(0.01)')
    failed = project.run("materialize", "slow", "--on-conflict", "fail", code=7)
    assert f"process {process.pid}" in failed.err and "headwater run cancel" in failed.err
    waiting = project.start("materialize")
    assert waiting.stderr is not None and "Waiting for it" in waiting.stderr.readline()
    (project.path / "go").touch()
    process.communicate(timeout=30)
    out, err = waiting.communicate(timeout=30)
    assert (process.returncode, waiting.returncode) == (0, 0), err
    assert "Nothing to do" in out, "the first one built it"
    second, first = project.json("runs")["runs"]
    assert (second["status"], second["started"], second["steps"]) == ("SUCCESS", None, []), "it waited, for nothing"
    assert (first["status"], first["queued"]) == ("SUCCESS", None)


def test_cancel_tells_a_run_in_another_process_to_stop(project: ProjectFolder) -> None:
    process = start(project, 'print("running", flush=True)\n    while not (HERE / "go").exists(): time.sleep(0.01)')
    run_id = os.listdir(project.path / ".headwater" / "logs")[0]
    assert "There is no run" in project.run("run", "cancel", "ffffffff", code=2).err
    project.run("run", "cancel", run_id[:13])
    (project.path / "go").touch()
    process.communicate(timeout=30)
    assert process.returncode == 130
    assert "is over: CANCELED" in project.run("run", "cancel", run_id, code=2).err


SHOWN = """
import pathlib, time
from headwater import asset

HERE = pathlib.Path(__file__).parent

@asset
def a() -> int:
    return 1

@asset
def b() -> int:
    while not (HERE / "go").exists(): time.sleep(0.01)
    return 2
"""


def test_a_finished_step_is_shown_while_the_next_one_computes(project: ProjectFolder) -> None:
    project.write(SHOWN)
    process = project.start("materialize")
    assert process.stderr is not None
    assert process.stderr.readline().startswith("✓ a"), "b has not been told to go"
    (project.path / "go").touch()
    assert process.communicate(timeout=60)[0].startswith("SUCCESS")


KILLED = """
import pathlib, time
import headwater as hw

HERE = pathlib.Path(__file__).parent
instance = hw.Instance.open(HERE / ".headwater")

@hw.asset
def a() -> int:
    return 1

@hw.asset
def b() -> int:
    while instance.catalog.current(hw.AssetKey("a")) is None: time.sleep(0.01)
    while not instance.catalog.events(step_key="b", kinds=["STEP_START"]): time.sleep(0.01)
    (HERE / "started").touch()
    time.sleep(600)
    return 2

@hw.asset
def c(b: int) -> int:
    return 3

hw.materialize([a, b, c], instance=instance)
"""


def test_a_finished_step_is_durable_while_the_next_one_computes(project: ProjectFolder) -> None:
    script = project.write(KILLED)
    process = subprocess.Popen(
        [sys.executable, script], env=project.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_for(project.path / "started", process)
    process.kill()
    process.communicate()
    settled = ("INTERRUPTED", {"a": "SUCCESS", "b": "INTERRUPTED", "c": "CANCELED"})
    assert outcomes(project) == settled, "readers say so without writing"
    assert "1 success, 1 canceled, 1 interrupted" in project.run("runs").out
    project.write(SHOWN)
    (project.path / "go").touch()
    assert project.built() == {"b": "SUCCESS"}
    told = project.run("sql", "select step_key, status from steps order by all", "--csv").out
    assert told.split() == ["step_key,status", "a,SUCCESS", "b,INTERRUPTED", "b,SUCCESS", "c,CANCELED"]


RETRIED = """
import pathlib
from headwater import RetryPolicy, asset

HERE = pathlib.Path(__file__).parent

@asset(retry_policy=RetryPolicy(max_retries=5, delay=3000))
def flaky() -> int:
    raise ValueError("again")

@asset
def after(flaky: int) -> int:
    return 3
"""


@pytest.mark.parametrize("executor", ["in_process", "threads"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_run_that_waits_to_try_again(
    project: ProjectFolder, executor: str, number: int, code: int
) -> None:
    project.write(RETRIED)
    process = project.start("materialize", "--executor", executor)
    assert process.stderr is not None
    assert "again in" in process.stderr.readline()
    time.sleep(0.1)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert "Stopping" in err and "CANCELED" in out
    assert outcomes(project) == ("CANCELED", {"flaky": "CANCELED", "after": "CANCELED"})
