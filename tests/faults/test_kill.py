"""`kill -9` at any moment: nothing acknowledged is lost, nothing half-written is seen, nothing has to be repaired."""

import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import headwater as hw
from headwater.catalog.records import RunStatus
from headwater.io import verify_pointer
from tests.faults import kill_worker
from tests.faults.kill_worker import ROWS, WIDTH, definitions

#: 4 × 25 kills in the default run.
KILLS = 25


def work_and_die(home: Path, seconds: float) -> dict[str, dict[str, str]]:
    """Let a real process build, kill it after `seconds` of work; the runs it was told are durable."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.faults.kill_worker", str(home)],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n", process.stderr.read() if process.stderr else ""
    time.sleep(seconds)
    process.kill()
    out, err = process.communicate(timeout=30)
    assert process.returncode == -9, err
    runs: dict[str, dict[str, str]] = {}
    for line in out.splitlines():
        parts = line.split(" ")
        if parts[0] == "done" and len(parts) == 3 and line.count("=") == 2 * WIDTH + 1 and len(line) > 300:
            runs[parts[1]] = dict(entry.split("=") for entry in parts[2].split(","))
    return runs


def check_table(frame: Any, name: str) -> str:
    """A table is whole: all its rows, all of one token. Returns the token."""
    assert frame.height == ROWS, name
    assert frame["token"].n_unique() == 1, name
    assert frame["n"].to_list() == list(range(ROWS)), name
    return str(frame["token"][0])


def check(home: Path, acknowledged: dict[str, dict[str, str]], *, everything: bool) -> None:
    """Read the home as anybody would, without any repair."""
    with hw.Instance.open(home, read_only=True) as instance:
        catalog = instance.catalog
        known = set(acknowledged) if everything else set(list(acknowledged)[-3:])
        for run_id in known:
            assert catalog.run(run_id) is not None, "an acknowledged run is lost"
            for asset, version in acknowledged[run_id].items():
                made = catalog.materialization(version)
                assert made is not None, "an acknowledged version is lost"
                assert made.asset == asset
                assert made.pointer is not None
                verify_pointer(made.pointer)
        for number in range(WIDTH):
            versions: dict[str, Any] = {}
            for name in (f"top{number}", f"below{number}"):
                made = catalog.current(hw.AssetKey(name))
                if made is not None:
                    versions[name] = made
                    check_table(hw.load_asset(name, as_type="pl.DataFrame", instance=instance), name)
            below = versions.get(f"below{number}")
            if below is not None:
                read = hw.load_asset(
                    f"top{number}", version=below.inputs[0].version_id, as_type="pl.DataFrame", instance=instance
                )
                mine = hw.load_asset(f"below{number}", as_type="pl.DataFrame", instance=instance)
                assert check_table(mine, "below") == check_table(read, "top"), "provenance names what was read"
        events = catalog.events(limit=None)
        assert [event.seq for event in events] == list(range(1, len(events) + 1))


@pytest.mark.faults
@pytest.mark.parametrize("seed", range(4))
def test_kills_at_random_moments(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    home = tmp_path / "home"
    acknowledged: dict[str, dict[str, str]] = {}
    for number in range(KILLS):
        acknowledged.update(work_and_die(home, chance.uniform(0.0, 0.8)))
        check(home, acknowledged, everything=number == KILLS - 1)
    assert len(acknowledged) >= KILLS // 2, "the processes lived long enough to be told something"

    # The next one to build settles what the dead left, and nothing of it stays on the disk.
    with hw.Instance.open(home) as instance:
        assert hw.materialize(kill_worker.definitions, instance=instance, force=True).success
        assert instance.catalog.runs(statuses=[RunStatus.STARTED]) == []
        interrupted = instance.catalog.runs(statuses=[RunStatus.INTERRUPTED], limit=1000)
        assert interrupted, "at least one process died in the middle of a run"
        recorded: set[str] = set()
        for key in definitions.graph.nodes:
            for made in instance.catalog.materializations(key, limit=100_000):
                assert made.pointer is not None
                recorded.add(made.pointer.uri.removeprefix("file://"))
        found = {str(path) for path in (home / "data").rglob("*") if path.is_file()}
        assert found == recorded, "files that no version points at, or versions without a file"
