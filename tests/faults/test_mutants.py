"""Production code that lacks one safety step must be found out: `simulation/mutants.py` says which, and how.

With `-s`, each says which seed caught it, and as what.
"""

import sys

import pytest

from tests.faults.simulation.checker import simulate
from tests.faults.simulation.mutants import MUTANTS
from tests.faults.simulation.world import World
from tests.faults.sizes import SIZES

pytestmark = [pytest.mark.faults, pytest.mark.timeout(0)]


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_caught(name: str) -> None:
    for seed in range(SIZES.mutant_seeds):
        world = World(seed)
        MUTANTS[name](world)
        violations = simulate(world)
        if violations:
            sys.stderr.write(f"{name}: {seed + 1} seeds, {violations[0].splitlines()[0]}\n")
            return
    pytest.fail(f"{SIZES.mutant_seeds} seeds did not find out that {name}")
