"""A backfill that is killed again and again, and resumed each time: every day is built exactly once."""

import random
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

import headwater as hw
from headwater.catalog.records import BackfillStatus, RunStatus
from headwater.io import verify_pointer
from tests.project import ProjectFolder

DAYS = 365
KILLS = 5
#: Days that a process which is going to be killed gets on with: fewer than are left, whatever the machine's speed.
REACH = 60

SOURCE = """
import os, pathlib, time
from headwater import BackfillPolicy, DailyPartitionsDefinition, asset

CALLS = pathlib.Path(__file__).parent / "calls"
REACH = int(os.environ.get("REACH", "1000000"))

@asset(
    partitions_def=DailyPartitionsDefinition(start_date="2013-01-01", end_date="2014-01-01"),
    backfill_policy=BackfillPolicy.multi_run({batch}),
)
def days(context) -> dict[str, str]:
    for day in context.partition_keys:
        with CALLS.open("a") as file:
            file.write(day[-1])
        while CALLS.stat().st_size > REACH:
            time.sleep(1)
    made = {{day: {{"day": day}} for day in context.partition_keys}}
    return made if len(made) > 1 else next(iter(made.values()))
"""


def kill(process: "subprocess.Popen[str]", calls: Path, target: int, delay: float, ready: Callable[[], bool]) -> None:
    """Kill a process some moments after the step was called for so many days, and something else is so."""
    deadline = time.monotonic() + 120
    while (calls.stat().st_size if calls.exists() else 0) < target:
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.001)
    while not ready():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    time.sleep(delay)
    process.kill()
    _, err = process.communicate(timeout=30)
    assert process.returncode == -9, err


def check(home: Path) -> int:
    """Read the catalog as anybody would, without any repair: how many days are built, none of them twice."""
    with hw.Instance.open(home, read_only=True) as instance:
        (found,) = instance.catalog.backfills()
        assert found.status is BackfillStatus.STARTED
        made = Counter(one.partition for one in instance.catalog.materializations(hw.AssetKey("days"), limit=10_000))
        assert set(made.values()) <= {1}
        assert found.done == len(made)
        return len(made)


@pytest.mark.faults
@pytest.mark.parametrize("batch", [1, 10])
def test_five_kills_at_random_moments(project: ProjectFolder, batch: int) -> None:
    chance = random.Random(batch)
    home, calls = project.path / ".headwater", project.path / "calls"
    project.write(SOURCE.format(batch=batch))
    built, backfill_id, arguments = [0], "", ["backfill", "days", "--json"]
    for number in range(KILLS):
        calls.unlink(missing_ok=True)
        project.env["REACH"] = str(REACH)
        # From the first call to when the next one would be for more than it is to reach; often amid a commit.
        # The last one has recorded something, however slow the machine is.
        ready = (lambda: check(home) > 0) if number == KILLS - 1 else lambda: True
        kill(project.start(*arguments), calls, chance.randint(2 * batch, REACH), chance.uniform(0.0, 0.1), ready)
        built.append(check(home))
        backfill_id = max(path.name for path in (home / "running-backfill").iterdir() if not path.suffix)
        arguments = ["backfill", "resume", backfill_id, "--json"]
    assert built == sorted(built) and 0 < built[-1] < DAYS, "each went on where the one before was killed"

    del project.env["REACH"]
    answer = project.run(*arguments).json
    assert (answer["status"], answer["done"], answer["total"], answer["failed"]) == ("SUCCESS", DAYS, DAYS, 0)
    with hw.Instance.open(home, read_only=True) as instance:
        made = instance.catalog.materializations(hw.AssetKey("days"), limit=10_000)
        assert Counter(Counter(one.partition for one in made).values()) == {1: DAYS}
        statuses = Counter(run.status for run in instance.catalog.runs(backfill=backfill_id))
        assert statuses == {RunStatus.INTERRUPTED: KILLS, RunStatus.SUCCESS: 1}
        recorded: set[str] = set()
        for one in made:
            assert one.pointer is not None
            verify_pointer(one.pointer)
            recorded.add(one.pointer.uri.removeprefix("file://"))
    found = {str(path) for path in (home / "data").rglob("*") if path.is_file()}
    assert found == recorded, "files that no version points at, or versions without a file"
    assert not list(home.glob("*backfill*"))
