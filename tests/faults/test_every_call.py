"""Something goes wrong at every single call of a process that writes: once each, and in every way that the call can.

SQLite's way of testing. Before and after the call that fails, everything goes well; then all is looked at as it was
left, everything is built again, and all is looked at once more.
"""

import errno

import pytest

from tests.faults.simulation.checker import simulate
from tests.faults.simulation.scenario import write_alone
from tests.faults.simulation.world import CRASH, POWER_CUT, FaultAt, Recorded, World
from tests.faults.sizes import SIZES

pytestmark = [pytest.mark.faults, pytest.mark.timeout(0)]

SEED = 1
KINDS = {
    "crash": (CRASH, 0.5),
    "power cut": (POWER_CUT, 0.5),
    "power cut, all unsynced names lost": (POWER_CUT, 0.0),
    "ENOSPC": (errno.ENOSPC, 0.5),
    "EIO": (errno.EIO, 0.5),
    "EACCES": (errno.EACCES, 0.5),
}
#: So that two workers share each kind.
PARTS = 4


def calls() -> list[tuple[int, ...]]:
    """How each call can fail while nothing does, up to where everybody is dead and all is looked at."""
    recorded = Recorded()
    world = World(SEED, lambda _: recorded)
    assert simulate(world, write_alone) == []
    return recorded.calls


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("name", KINDS)
def test_a_fault_at_every_call(name: str, part: int) -> None:
    kind, survival = KINDS[name]
    possible = [number for number, errors in enumerate(calls(), 1) if kind < 0 or kind in errors]
    assert len(possible) > (300 if kind < 0 else 30), "the calls of the scenario were not seen"
    for number in possible[part :: PARTS * SIZES.stride]:
        faults = FaultAt(number, kind)
        world = World(SEED, lambda _, faults=faults: faults)
        world.survival = survival
        violations = simulate(world, write_alone)
        assert len(world.injected) == 1, f"call {number} was not reached"
        assert not violations, f"{name} at call {number}, {world.injected}:\n" + "\n".join(violations)
