"""`backfill` and `backfills`, as real processes."""

import signal
import subprocess
import time

from tests.project import ProjectFolder

SOURCE = """
import pathlib
from headwater import DailyPartitionsDefinition, StaticPartitionsDefinition, asset

HERE = pathlib.Path(__file__).parent
DAYS = DailyPartitionsDefinition(start_date="2013-01-01", end_date="2013-01-09")

@asset(partitions_def=DAYS, code_version="1")
def days(context) -> int:
    if (HERE / "bad").exists() and context.partition_key.endswith(("03", "05")):
        raise ValueError("no such day: \\x1b[31m" + context.partition_key)
    return 1

@asset(partitions_def=DAYS, code_version="1")
def copies(days: int) -> int:
    return days

@asset(code_version="1")
def total(copies: dict[str, int]) -> int:
    return sum(copies.values())

@asset(partitions_def=StaticPartitionsDefinition(["a|b'; --", "[2m/.."]), code_version="1")
def show() -> int:
    return 1
"""


def test_a_backfill_that_fails_is_shown_and_resumed(project: ProjectFolder) -> None:
    project.write(SOURCE)
    (project.path / "bad").touch()
    planned = project.json("backfill", "+total", "--dry-run")
    assert (planned["backfill_id"], planned["total"]) == (None, 17)
    assert [(one["key"], one["steps"]) for one in planned["assets"]] == [("days", 8), ("copies", 8), ("total", 1)]

    started = project.run("backfill", "+total", "--title", "all of\x1b[2J it", "--steps-per-run", "8", code=4)
    assert "2013-01-01..2013-01-08 (8)" in started.out.split("FAILURE")[0], "the plan comes first"
    assert "FAILURE  12 of 17 built, 2 failed, 3 blocked by what failed" in started.out
    assert "backfill: 6 of 17 built, 2 failed, 3 blocked by what failed, about" in started.err
    (listed,) = project.json("backfills")["backfills"]
    backfill_id = listed["backfill_id"]
    assert f"headwater backfill resume {backfill_id[:13]}" in started.err

    shown = project.run("backfill", "show", backfill_id[:20])
    assert "days    ███████████████▒▒▒▒▒  6 of 8       2          0" in shown.out
    assert "days [2013-01-03] failed in run" in shown.out and "no such day" in shown.out
    assert "\x1b" not in started.out + started.err + shown.out + shown.err
    assert f"headwater backfill resume {backfill_id[:13]}" in shown.err
    answer = project.json("backfill", "show", backfill_id)
    assert [one["partition"] for one in answer.pop("errors")] == ["2013-01-03", "2013-01-05"]
    assert answer == listed
    assert (answer["status"], answer["total"], answer["done"], answer["failed"], answer["blocked"]) == (
        "FAILURE",
        17,
        12,
        2,
        3,
    )
    assert answer["assets"][1] == {"key": "copies", "total": 8, "done": 6, "failed": 0, "remaining": 2}

    (project.path / "bad").unlink()
    resumed = project.json("backfill", "resume", backfill_id)
    assert (resumed["status"], resumed["done"], resumed["failed"], resumed["blocked"]) == ("SUCCESS", 17, 0, 0)
    assert resumed["runs"][:-1] == answer["runs"]
    for word in ("resume", "cancel"):
        assert "is done" in project.run("backfill", word, backfill_id, code=7).err
    assert "There is no backfill" in project.run("backfill", "show", "' or 1=1", code=2).err
    run = project.json("runs", "--limit", "1")["runs"][0]
    assert run["backfill_id"] == backfill_id
    assert backfill_id in project.run("run", "show", run["run_id"]).out
    assert project.run("backfill", "days", "--only-missing", "--only", "stale").out == (
        "Nothing to do: nothing selected is missing or stale.\n"
    )


def test_an_asset_called_like_a_word_and_what_is_refused(project: ProjectFolder) -> None:
    project.write(SOURCE)
    made = project.json("backfill", 'key:"show"', "--partition", "a|b'; --")
    assert [(one["key"], one["done"]) for one in made["assets"]] == [("show", 1)]
    assert "2013-02-30" in project.run("backfill", "days", "--partition", "2013-02-30", code=2).err


SLOW = """
import pathlib, time
from headwater import DailyPartitionsDefinition, asset

HERE = pathlib.Path(__file__).parent

@asset(partitions_def=DailyPartitionsDefinition(start_date="2013-01-01", end_date="2013-01-09"), code_version="1")
def days(context) -> int:
    (HERE / context.partition_key).touch()
    while context.partition_key.endswith(("03", "06")) and not (HERE / f"go{context.partition_key[-1]}").exists():
        time.sleep(0.01)
    return 1
"""


def wait_for(project: ProjectFolder, name: str, process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 60
    while not (project.path / name).exists():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.01)


def test_interrupted_resumed_and_canceled_from_elsewhere(project: ProjectFolder) -> None:
    project.write(SLOW)
    process = project.start("backfill", "days", "--tag", "why=test")
    wait_for(project, "2013-01-03", process)
    (listed,) = project.json("backfills")["backfills"]
    backfill_id = listed["backfill_id"]
    shown = project.json("backfill", "show", backfill_id)
    assert (listed["status"], shown["status"], shown["total"]) == ("STARTED", "STARTED", 8)
    assert "goes on in process" in project.run("backfill", "resume", backfill_id, code=7).err
    process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    (project.path / "go3").touch()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "INTERRUPTED  3 of 8 built" in out
    assert f"headwater backfill resume {backfill_id[:13]}" in err
    (listed,) = project.json("backfills", "--status", "interrupted")["backfills"]
    assert (listed["status"], listed["done"]) == ("INTERRUPTED", 3)

    process = project.start("backfill", "resume", backfill_id)
    wait_for(project, "2013-01-06", process)
    asked = project.run("backfill", "cancel", backfill_id)
    assert f"Asked process {process.pid}" in asked.err and "finishes the running step" in asked.err
    cancel = project.start("--wait", "60", "backfill", "cancel", backfill_id[:13])
    (project.path / "go6").touch()
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out.splitlines()[0]) == (130, "CANCELED  6 of 8 built")
    out, err = cancel.communicate(timeout=60)
    assert (cancel.returncode, out) == (0, "CANCELED  6 of 8 built\n") or "already" in out, err
    assert "was canceled" in project.run("backfill", "resume", backfill_id, code=7).err
    assert not (project.path / "2013-01-07").exists()
    assert not list((project.path / ".headwater").glob("*backfill*"))
