"""The queue, pools, retries and runs in processes of their own, with real processes that are really killed."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.project import ProjectFolder

#: Steps that say when they run, and go on when they may.
ASSETS = """
import os, pathlib, time
from headwater import asset

HERE = pathlib.Path(__file__).parent

def work(name):
    (HERE / f"{name}.started").write_text(str(os.getpid()))
    print("working on", name, flush=True)
    while not (HERE / f"{name}.go").exists():
        time.sleep(0.01)

def make(name, **settings):
    @asset(name=name, **settings)
    def step() -> int:
        work(name)
        return 1
    return step

a, b, c, d = (make(name) for name in "abcd")
p, q, r = (make(name, pool="duckdb") for name in "pqr")
"""


def settings(project: ProjectFolder, text: str) -> None:
    home = project.path / ".headwater"
    home.mkdir(exist_ok=True)
    (home / "instance.toml").write_text(text, "utf-8")


@pytest.fixture
def slow(project: ProjectFolder) -> ProjectFolder:
    project.write(ASSETS)
    settings(project, "[run_queue]\nmax_concurrent_runs = 1\n")
    return project


def until(holds: Callable[[], Any], what: str) -> Any:
    """Wait until something is the case."""
    end = time.monotonic() + 90
    while not (found := holds()):
        assert time.monotonic() < end, what
        time.sleep(0.02)
    return found


def started(project: ProjectFolder, name: str) -> int:
    """Wait until a step runs; the process it runs in."""
    file = project.path / f"{name}.started"
    return int(until(lambda: file.exists() and file.read_text("utf-8"), f"{name} runs"))


def go(project: ProjectFolder, *names: str) -> None:
    for name in names:
        (project.path / f"{name}.go").touch()


def statuses(project: ProjectFolder) -> dict[str, str]:
    """Of each run, by what it selects, the newest one."""
    return {run["selection"]: run["status"] for run in reversed(project.json("runs")["runs"])}


def finish(process: "subprocess.Popen[str]", code: int | None = 0) -> str:
    """Wait for a command; what it said."""
    out, err = process.communicate(timeout=90)
    assert code in (None, process.returncode), out + err
    return err


def detached(project: ProjectFolder, *arguments: str) -> dict[str, Any]:
    run = project.json("materialize", "--detach", *arguments)
    _DETACHED.append(run["pid"])
    return run


#: Processes of a test that nobody else ends, should it fail.
_DETACHED: list[int] = []


@pytest.fixture(autouse=True)
def leave_nothing() -> Iterator[None]:
    """End whatever a test left."""
    yield
    while _DETACHED:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(_DETACHED.pop(), signal.SIGKILL)


def test_a_second_run_waits_says_so_and_starts_when_the_first_has_ended(slow: ProjectFolder) -> None:
    first = slow.start("materialize", "a")
    started(slow, "a")
    second = slow.start("materialize", "b")
    until(lambda: statuses(slow).get("b") == "QUEUED", "b is queued")
    listed = slow.json("runs", "--status", "queued")["runs"]
    assert [(run["selection"], run["started"]) for run in listed] == [("b", None)]
    assert not (slow.path / "b.started").exists()
    go(slow, "a", "b")
    finish(first)
    err = finish(second)
    assert "1 run at a time, says run_queue.max_concurrent_runs. Waiting in the queue." in err
    kinds = [event["kind"] for event in slow.json("events", listed[0]["run_id"])["events"] if "RUN" in event["kind"]]
    assert kinds == ["RUN_QUEUED", "RUN_START", "RUN_SUCCESS"]
    assert statuses(slow) == {"a": "SUCCESS", "b": "SUCCESS"}


def test_the_most_urgent_goes_first_and_one_that_was_canceled_or_killed_does_not(slow: ProjectFolder) -> None:
    first = slow.start("materialize", "a")
    started(slow, "a")
    waiting = {name: detached(slow, name, "--tag", f"headwater/priority={n}") for name, n in (("b", 1), ("c", 5))}
    waiting["d"] = detached(slow, "d", "--tag", "dagster/priority=9")
    assert statuses(slow) == {"a": "STARTED", "b": "QUEUED", "c": "QUEUED", "d": "QUEUED"}
    assert slow.json("run", "cancel", waiting["b"]["run_id"])["status"] == "CANCELED"
    os.kill(waiting["d"]["pid"], signal.SIGKILL)
    until(lambda: statuses(slow)["d"] == "INTERRUPTED", "a killed one is not in the queue")
    go(slow, "a", "c")
    assert slow.run("run", "wait", waiting["c"]["run_id"], code=0).out.startswith("SUCCESS")
    finish(first)
    assert slow.run("run", "wait", waiting["b"]["run_id"], code=130).out.startswith("CANCELED")
    assert slow.run("run", "wait", waiting["d"]["run_id"], code=1).out.startswith("INTERRUPTED")
    assert not any((slow.path / f"{name}.started").exists() for name in "bd")


def test_no_more_runs_go_on_than_may(project: ProjectFolder) -> None:
    project.write("""
        import os, pathlib, time
        from headwater import asset

        HERE = pathlib.Path(__file__).parent

        def make(name):
            @asset(name=name)
            def step() -> int:
                mark = HERE / f"{name}.running"
                mark.touch()
                (HERE / f"{name}.count").write_text(str(len(list(HERE.glob("*.running")))))
                time.sleep(0.3)
                mark.unlink()
                return 1
            return step

        a, b, c, d, e = (make(name) for name in "abcde")
    """)
    settings(project, "[run_queue]\nmax_concurrent_runs = 2\n")
    processes = [project.start("materialize", name) for name in "abcde"]
    for process in processes:
        finish(process)
    counts = [int((project.path / f"{name}.count").read_text("utf-8")) for name in "abcde"]
    assert max(counts) <= 2, counts
    assert {run["status"] for run in project.json("runs")["runs"]} == {"SUCCESS"}


def test_with_no_runs_at_all_a_run_is_refused(slow: ProjectFolder) -> None:
    settings(slow, "[run_queue]\nmax_concurrent_runs = 0\n")
    done = slow.run("materialize", "a", code=7)
    assert "[E-QUEUED] No run may begin: run_queue.max_concurrent_runs is 0." in done.err
    assert slow.json("runs")["runs"] == []


def test_with_the_default_coordinator_runs_start_at_once(slow: ProjectFolder) -> None:
    settings(slow, '[run_coordinator]\nclass = "DefaultRunCoordinator"\n')
    go(slow, *"ab")
    for name in "ab":
        detached(slow, name)
    until(lambda: statuses(slow) == {"a": "SUCCESS", "b": "SUCCESS"}, "both are done")


def test_a_run_that_waits_for_another_ones_cells_is_in_the_queue_and_holds_nobody_up(slow: ProjectFolder) -> None:
    settings(slow, "[run_queue]\nmax_concurrent_runs = 2\n")
    first = slow.start("materialize", "a")
    started(slow, "a")
    second = slow.start("materialize", "a", "--force")
    queued = until(lambda: slow.json("runs", "--status", "queued")["runs"], "the second one waits")
    assert queued[0]["behind"] == slow.json("runs", "--status", "started")["runs"][0]["run_id"]
    go(slow, *"ab")
    assert slow.built("b") == {"b": "SUCCESS"}
    for process in (first, second):
        finish(process)


def test_steps_of_a_pool_wait_for_each_other_across_runs_and_the_rest_goes_on(slow: ProjectFolder) -> None:
    settings(
        slow,
        "[concurrency.pools]\nlimits = { duckdb = 1 }\n"
        "[run_queue.block_op_concurrency_limited_runs]\nenabled = false\n",
    )
    first = slow.start("materialize", "p")
    holder = started(slow, "p")
    second = slow.start("materialize", "q or a", "--executor", "threads")
    started(slow, "a")
    run = slow.json("runs")["runs"][0]["run_id"]
    until(lambda: "waits for the pool 'duckdb'" in slow.run("events", run).out, "it says what it waits for")
    assert not (slow.path / "q.started").exists()
    go(slow, "a", "q")
    os.kill(holder, signal.SIGKILL)  # who is killed holds no place
    finish(second)
    finish(first, None)
    slots = [event["data"] for event in slow.json("events", "--kind", "SLOT_CLAIMED")["events"]]
    assert slots == [{"pool": "duckdb", "attempt": 1}] * 2


def test_a_run_of_which_every_first_step_would_wait_for_a_pool_waits_in_the_queue(slow: ProjectFolder) -> None:
    settings(slow, "[concurrency.pools]\nlimits = { duckdb = 1 }\n")
    first = slow.start("materialize", "p")
    started(slow, "p")
    second = detached(slow, "q")
    mixed = detached(slow, "r or a")
    started(slow, "a")
    assert statuses(slow) == {"p": "STARTED", "q": "QUEUED", "r or a": "STARTED"}
    go(slow, *"paqr")
    finish(first)
    for run in (second, mixed):
        slow.run("run", "wait", run["run_id"])


def test_with_granularity_run_a_pool_counts_runs(slow: ProjectFolder) -> None:
    settings(slow, '[concurrency.pools]\ngranularity = "run"\ndefault_limit = 1\n')
    first = slow.start("materialize", "p")
    started(slow, "p")
    done = detached(slow, "q or a")
    assert statuses(slow)["q or a"] == "QUEUED"
    shown = slow.json("run", "show", done["run_id"])
    assert shown["pools"] == ["duckdb"]
    go(slow, *"paq")
    finish(first)
    slow.run("run", "wait", done["run_id"])


def test_a_detached_run_survives_whoever_started_it(slow: ProjectFolder) -> None:
    command = f'"{sys.executable}" -m headwater materialize a --detach --json > run.json'
    shell = subprocess.Popen(
        ["sh", "-c", f"{command}; cat"],
        cwd=slow.path,
        env=slow.environment(),
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    run = until(lambda: _document(slow.path / "run.json"), "the run is recorded")
    assert started(slow, "a") == run["pid"]
    os.killpg(shell.pid, signal.SIGHUP)
    shell.communicate(timeout=60)
    assert os.getsid(run["pid"]) == run["pid"]
    follower = slow.start("logs", run["run_id"], "--follow")
    go(slow, "a")
    slow.run("run", "wait", run["run_id"])
    out, _ = follower.communicate(timeout=60)
    assert "working on a" in out
    log = Path(run["log"])
    assert log.parent == slow.path / ".headwater" / "logs" / "runs"
    assert log.stat().st_mode & 0o777 == 0o600
    assert "SUCCESS" in log.read_text("utf-8")


def _document(file: Path) -> Any:
    try:
        return json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return None


def test_a_detached_run_that_cannot_load_its_definitions_fails_and_says_why(slow: ProjectFolder) -> None:
    detached(slow, "a")
    started(slow, "a")
    second = detached(slow, "b")
    slow.write("import nowhere\n")
    go(slow, "a")
    slow.run("run", "wait", second["run_id"], code=4)
    shown = slow.json("run", "show", second["run_id"])
    assert (shown["status"], shown["started"]) == ("FAILURE", None)
    assert "nowhere" in shown["error"]["message"]


def test_cancel_reaches_a_detached_run_and_kills_one_that_does_not_listen(slow: ProjectFolder) -> None:
    slow.write("""
        import pathlib, signal, time
        from headwater import asset

        HERE = pathlib.Path(__file__).parent

        @asset
        def deaf() -> int:
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM])
            (HERE / "deaf.started").write_text("1")
            while True:
                time.sleep(1)

        @asset
        def after(deaf: int) -> int:
            return 1
    """)
    settings(slow, "[run_monitoring]\ncancel_timeout_seconds = 0\n")
    run = detached(slow)
    started(slow, "deaf")
    assert slow.json("run", "cancel", run["run_id"])["status"] == "CANCELING"
    assert slow.json("runs")["runs"][0]["status"] == "CANCELING"
    slow.run("run", "cancel", run["run_id"])
    slow.run("run", "wait", run["run_id"], code=130)
    assert slow.json("runs", "--status", "canceled")["runs"][0]["run_id"] == run["run_id"]
    slow.run("run", "cancel", run["run_id"], code=2)
    kinds = [event["kind"] for event in slow.json("events", run["run_id"])["events"] if "RUN" in event["kind"]]
    assert kinds == ["RUN_QUEUED", "RUN_STARTING", "RUN_START", "RUN_CANCELING"]


def test_a_run_that_takes_too_long_is_stopped_and_fails(slow: ProjectFolder) -> None:
    done = slow.run("materialize", "a", "--json", "--tag", "dagster/max_runtime=0.5", code=8)
    run = slow.json("run", "show", done.json["run_id"])
    assert (run["status"], run["error"]["kind"]) == ("FAILURE", "E-TIMEOUT")
    assert [step["status"] for step in run["steps"]] == ["CANCELED"]
    slow.run("run", "wait", run["run_id"], code=8)


def test_a_run_that_outlives_its_time_is_stopped_by_others(slow: ProjectFolder) -> None:
    run = detached(slow, "a")
    process = started(slow, "a")
    assert statuses(slow) == {"a": "STARTED"}  # from now on somebody else keeps the catalog
    os.kill(process, signal.SIGSTOP)  # it cannot look at its clock
    settings(slow, "[run_monitoring]\nmax_runtime_seconds = 1\n[run_queue]\nmax_concurrent_runs = 1\n")
    go(slow, "b")
    slow.run("materialize", "b")
    shown = slow.json("run", "show", run["run_id"])
    assert (shown["status"], shown["error"]["kind"]) == ("FAILURE", "E-TIMEOUT")
    assert [step["status"] for step in shown["steps"]] == ["INTERRUPTED"]


FLAKY = """
import pathlib
from headwater import asset

HERE = pathlib.Path(__file__).parent

def count(name):
    file = HERE / name
    number = int(file.read_text()) + 1 if file.exists() else 1
    file.write_text(str(number))
    return number

@asset
def good() -> int:
    return count("good")

@asset
def flaky(good: int) -> int:
    if count("flaky") < {passes}:
        raise ValueError("not yet")
    return 1
"""


def tries(project: ProjectFolder) -> list[dict[str, Any]]:
    """Oldest first; each links to the one before it and to the first."""
    runs = project.json("runs")["runs"][::-1]
    assert [run["parent_run_id"] for run in runs] == [None, *(run["run_id"] for run in runs[:-1])]
    assert {run["root_run_id"] for run in runs[1:]} <= {runs[0]["run_id"]}
    return runs


def count(project: ProjectFolder, name: str) -> int:
    return int((project.path / name).read_text("utf-8"))


def test_a_run_that_fails_twice_is_tried_again_from_where_it_failed(project: ProjectFolder) -> None:
    project.write(FLAKY.format(passes=3))
    settings(project, "[run_retries]\nenabled = true\nmax_retries = 2\n")
    done = project.run("materialize")
    assert "this is retry 2" in done.err
    assert [run["status"] for run in tries(project)] == ["FAILURE", "FAILURE", "SUCCESS"]
    assert (count(project, "good"), count(project, "flaky")) == (1, 3)


def test_enabling_retries_alone_retries_nothing_and_a_tag_does(project: ProjectFolder) -> None:
    project.write(FLAKY.format(passes=9))
    settings(project, "[run_retries]\nenabled = true\n")
    project.run("materialize", code=4)
    assert len(tries(project)) == 1
    retried = project.run("run", "retry", "--from-failure", tries(project)[0]["run_id"], code=4)
    assert "FAILURE" in retried.out
    assert len(tries(project)) == 2
    project.run("materialize", "flaky", "--tag", "dagster/max_retries=2", code=4)
    newest = project.json("runs")["runs"][:3]
    assert [run["tags"].get("headwater/retry_number") for run in newest] == ["2", "1", None]
    assert (count(project, "good"), count(project, "flaky")) == (1, 5)


def test_all_steps_builds_everything_again(project: ProjectFolder) -> None:
    project.write(FLAKY.format(passes=2))
    tags = ("--tag", "headwater/max_retries=1", "--tag", "headwater/retry_strategy=ALL_STEPS")
    project.run("materialize", *tags)
    assert (count(project, "good"), count(project, "flaky")) == (2, 2)
    done = project.run("materialize", "--force", "--tag", "headwater/retry_strategy=SOME", code=2)
    assert "There is no retry strategy SOME." in done.err


def test_failed_steps_are_not_retried_where_only_broken_off_runs_are(project: ProjectFolder) -> None:
    project.write(FLAKY.format(passes=2))
    settings(project, "[run_retries]\nenabled = true\nmax_retries = 3\nretry_on_asset_or_op_failure = false\n")
    project.run("materialize", code=4)
    assert len(tries(project)) == 1


def test_a_run_that_was_killed_is_tried_again_in_the_background(slow: ProjectFolder) -> None:
    run = detached(slow, "a", "--tag", "headwater/max_retries=1")
    os.kill(started(slow, "a"), signal.SIGKILL)
    until(lambda: statuses(slow)["a"] == "INTERRUPTED", "its process is gone")
    (again,) = slow.json("run", "retry", "--interrupted")["runs"]
    assert again["parent_run_id"] == run["run_id"]
    assert slow.json("run", "retry", "--interrupted")["runs"] == []
    go(slow, "a")
    slow.run("run", "wait", again["run_id"])
    assert [one["status"] for one in tries(slow)] == ["INTERRUPTED", "SUCCESS"]


def test_a_detached_backfill_goes_on_by_itself_and_can_be_canceled_and_resumed(project: ProjectFolder) -> None:
    project.write("""
        import pathlib, time
        from headwater import StaticPartitionsDefinition, asset

        HERE = pathlib.Path(__file__).parent

        @asset(partitions_def=StaticPartitionsDefinition(["a", "b", "c"]))
        def parts(context) -> str:
            (HERE / f"{context.partition_key}.started").write_text("1")
            while not (HERE / f"{context.partition_key}.go").exists():
                time.sleep(0.01)
            return context.partition_key
    """)
    begun = project.json("backfill", "parts", "--detach", "--title", "a title")
    started(project, "a")
    shown = project.json("backfill", "show", begun["backfill_id"])
    assert (shown["status"], shown["title"], shown["total"]) == ("STARTED", "a title", 3)
    go(project, "a")
    started(project, "b")
    os.kill(begun["pid"], signal.SIGKILL)
    until(lambda: project.json("backfills")["backfills"][0]["status"] == "INTERRUPTED", "its process is gone")
    again = project.json("backfill", "resume", begun["backfill_id"], "--detach")
    assert (again["backfill_id"], again["pid"] != begun["pid"]) == (begun["backfill_id"], True)
    go(project, *"bc")
    until(lambda: project.json("backfills")["backfills"][0]["status"] == "SUCCESS", "it is done")
    assert [run["status"] for run in project.json("runs")["runs"]] == ["SUCCESS", "INTERRUPTED"]
    failed = project.run("backfill", "nothing", "--detach", code=2)
    assert "nothing" in failed.err
