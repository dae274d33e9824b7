"""Production code in simulated worlds: any order of everything, kills, power cuts, full disks, clocks that jump.

A seed that fails is replayed with `python -m tests.faults.simulation --seed N --log`.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.simulation.checker import simulate
from tests.faults.simulation.world import World
from tests.faults.sizes import PARTS, SIZES, share

pytestmark = [pytest.mark.faults, pytest.mark.timeout(0)]

KNOWN = [
    int(line.split()[0])
    for line in (Path(__file__).parent / "seeds" / "simulation.txt").read_text().splitlines()
    if not line.startswith("#")
]
#: Where seeds begin: those that are known are simulated by themselves.
FIRST = 10_000


def replay(seed: int, violations: list[str]) -> str:
    lines = "\n".join(violations)
    return f"{lines}\npython -m tests.faults.simulation --seed {seed} --log"


@pytest.mark.parametrize("seed", KNOWN)
def test_what_went_wrong_once(seed: int) -> None:
    violations = simulate(World(seed))
    assert not violations, replay(seed, violations)


@pytest.mark.parametrize("part", range(PARTS))
def test_worlds(part: int) -> None:
    injected = reads = 0
    for number in share(SIZES.seeds, part):
        world = World(FIRST + number)
        violations = simulate(world)
        assert not violations, replay(FIRST + number, violations)
        injected += len(world.injected)
        reads += world.calls
    assert injected, "nothing went wrong anywhere: that proves nothing"


def traces(hash_seed: str) -> str:
    code = (
        "from tests.faults.simulation.checker import simulate\n"
        "from tests.faults.simulation.world import World\n"
        "for seed in range(6):\n"
        "    world = World(seed); simulate(world); print(world.scheduler.trace, world.injected)\n"
    )
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[2], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_seed_decides_everything() -> None:
    """The same order of the same calls, whatever Python's hashes are."""
    first, second = traces("1"), traces("2")
    assert first == second
    assert len(set(first.splitlines())) == 6
