"""A year of schedules in twelve zones, with two daemons that are killed and clocks that are set: each instant once."""

from collections.abc import Callable

import pytest

from tests.faults.daemons import World, week, year
from tests.faults.sizes import PARTS, SIZES, share

pytestmark = [pytest.mark.faults, pytest.mark.timeout(0)]


def check(make: Callable[[int], World], seed: int) -> World:
    world = make(seed)
    violations = world.run()
    assert not violations, (make.__name__, seed, violations[:5])
    return world


@pytest.mark.parametrize("seed", range(SIZES.years))
def test_a_year(seed: int) -> None:
    world = check(year, seed)
    assert len(world.kills) > 5 and world.shifts > 100 and len(world.executed) > 3_000


@pytest.mark.parametrize("part", range(min(PARTS, SIZES.weeks)))
def test_weeks(part: int) -> None:
    worlds = [check(week, seed) for seed in share(SIZES.weeks, part)]
    assert any(world.kills["after spawn"] or world.kills["after append"] for world in worlds)
