"""A year of schedules in twelve zones, with two daemons that are killed and clocks that are set: each instant once."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from headwater.catalog.events import Event, RunQueued, TickEnded
from headwater.catalog.records import Automation
from headwater.catalog.storage.admission import Progress
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
    assert len(world.kills) > 5 and world.shifts > 100 and len(world.executed) > 1_000


@pytest.mark.parametrize("part", range(min(PARTS, SIZES.weeks)))
def test_weeks(part: int) -> None:
    worlds = [check(week, seed) for seed in share(SIZES.weeks, part)]
    assert any(world.kills["after spawn"] or world.kills["after append"] for world in worlds)


def two_transactions(world: World, patch: pytest.MonkeyPatch) -> None:
    """Ticks are recorded before their runs are."""
    append = world.storage.append

    def split(events: Sequence[Event], **conditions: Any) -> int:
        runs = [event for event in events if isinstance(event, RunQueued)]
        if runs:
            append([event for event in events if event not in runs], **conditions)
            world.maybe_kill("between")
        return append(runs or events, **conditions)

    patch.setattr(world.storage, "append", split)


def nothing_is_compared(world: World, patch: pytest.MonkeyPatch) -> None:
    """Whoever ticks is believed that nobody else did, and that it is the daemon."""
    tick = Progress.tick

    def believe(self: Progress, event: TickEnded) -> Automation:
        known = self.automation(event.name)
        assert known is not None
        if event.at > known.until:
            return tick(self, replace(event, after=known.until))
        return known

    patch.setattr(Progress, "tick", believe)

    def is_over(self: Progress, identifier: str) -> bool:
        return False

    patch.setattr(Progress, "is_over", is_over)


#: Two daemons that go on at the same time rarely look at one instant: it shows in a week out of eight.
MUTANT_WEEKS = 40


@pytest.mark.parametrize("mutant", [two_transactions, nothing_is_compared])
def test_without_a_safety_step_it_goes_wrong(mutant: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(MUTANT_WEEKS):
        world = week(seed)
        with monkeypatch.context() as patch:
            mutant(world, patch)
            if world.run():
                return
    raise AssertionError("nobody noticed")
