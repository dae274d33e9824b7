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
from tests.faults.sizes import SIZES

SEEDS = 4
KILLS = SIZES.kills // SEEDS


def work_and_die(home: Path, runs_before: int, seconds: float) -> dict[str, dict[str, str]]:
    """Let a real process build until it is told of so many runs, and `seconds` longer, and kill it.

    Returns the runs that it was told are durable. What it says goes to a file, which nobody's death cuts off.
    """
    said = home.with_name("said")
    with said.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.kill_worker", str(home)],
            cwd=Path(__file__).parents[2],
            stdout=file,
            stderr=subprocess.PIPE,
            text=True,
        )
        while said.read_text().count("\n") < 1 + runs_before:
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.002)
        time.sleep(seconds)
        process.kill()
        _, err = process.communicate(timeout=60)
    assert process.returncode == -9, err
    out = said.read_text()
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
@pytest.mark.timeout(0)
@pytest.mark.parametrize("seed", range(SEEDS))
def test_kills_at_random_moments(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    home = tmp_path / "home"
    acknowledged: dict[str, dict[str, str]] = {}
    for number in range(KILLS):
        # Half of them die at any moment, in the middle of their first run too; half after one run to four.
        told = 1 + number // 2 % 4 if number % 2 else 0
        acknowledged.update(work_and_die(home, told, chance.uniform(0.0, 0.8)))
        check(home, acknowledged, everything=number == KILLS - 1)
    assert len(acknowledged) >= KILLS, "what is asked of every second one"

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
        assert len(recorded) >= 10 * KILLS
        found = {str(path) for path in (home / "data").rglob("*") if path.is_file()}
        assert found == recorded, "files that no version points at, or versions without a file"
