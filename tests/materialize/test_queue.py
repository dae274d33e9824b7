"""Which runs may begin: the rule as a function of what waits, what goes on, and the limits."""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.catalog.records import Run, RunStatus
from headwater.catalog.settings import TagConcurrencyLimit
from headwater.materialize.queue import Limits, PoolLimits, Refusal, in_order, priority, refusals

START = datetime(2026, 1, 1, tzinfo=UTC)
TEAMS, USERS = ("red", "blue"), ("ann", "bob", "eve")


def run(number: int, status: RunStatus = RunStatus.QUEUED, pools: Sequence[str] = (), **tags: str) -> Run:
    return Run(
        run_id=f"run {number:03}",
        status=status,
        queued=START + timedelta(seconds=number // 3),  # several came at the same moment
        tags={name.replace("__", "/"): value for name, value in tags.items()},
        pools=tuple(pools),
    )


@st.composite
def runs(draw: st.DrawFn, status: RunStatus, start: int) -> list[Run]:
    found: list[Run] = []
    for number in range(start, start + draw(st.integers(0, 8))):
        tags: dict[str, str] = {}
        if draw(st.booleans()):
            tags["team"] = draw(st.sampled_from(TEAMS))
        if draw(st.booleans()):
            tags["user"] = draw(st.sampled_from(USERS))
        if draw(st.booleans()):
            tags["headwater__priority"] = str(draw(st.integers(-2, 2)))
        found.append(run(number, status, draw(st.lists(st.sampled_from("pq"), unique=True)), **tags))
    return found


@st.composite
def limits(draw: st.DrawFn) -> Limits:
    some = st.integers(0, 3)
    tags: list[TagConcurrencyLimit] = []
    if draw(st.booleans()):
        tags.append(TagConcurrencyLimit(key="team", value="red", limit=draw(some)))
    if draw(st.booleans()):
        tags.append(TagConcurrencyLimit(key="team", limit=draw(some)))
    if draw(st.booleans()):
        tags.append(TagConcurrencyLimit(key="user", per_unique_value=True, limit=draw(some)))
    pools = PoolLimits(default=draw(st.none() | some), named={"p": draw(some)}) if draw(st.booleans()) else None
    return Limits(runs=draw(st.integers(-1, 4)), tags=tuple(tags), pools=pools)


def exceeds(going_on: Sequence[Run], rule: Limits) -> bool:
    """Whether runs are too many, counted in the plainest way."""
    if 0 <= rule.runs < len(going_on):
        return True
    for limit in rule.tags:
        values = [one.tags[limit.key] for one in going_on if limit.key in one.tags]
        if limit.value is not None:
            counts = [values.count(limit.value)]
        elif limit.per_unique_value:
            counts = list(Counter(values).values())
        else:
            counts = [len(values)]
        if any(count > limit.limit for count in counts):
            return True
    for pool in "pq" if rule.pools else "":
        assert rule.pools is not None
        most = rule.pools.of_pool(pool)
        if most is not None and sum(pool in one.pools for one in going_on) > most:
            return True
    return False


@given(queued=runs(RunStatus.QUEUED, 0), busy=runs(RunStatus.STARTED, 100), rule=limits())
def test_whoever_may_begin_exceeds_no_limit_and_nobody_waits_in_vain(
    queued: list[Run], busy: list[Run], rule: Limits
) -> None:
    waiting = refusals(queued, busy, rule)
    ahead = list(busy)
    for one in in_order(queued):
        # Limits that are exceeded already, as they were lowered say, keep out only whom they are about.
        fits = not exceeds([*ahead, one], rule) if not exceeds(ahead, rule) else None
        if fits is not None:
            assert (one.run_id in waiting) is not fits
        if one.run_id not in waiting:
            ahead.append(one)
    assert refusals([], busy, rule) == {}


@given(queued=runs(RunStatus.QUEUED, 0))
def test_the_most_urgent_go_first_and_of_these_the_oldest(queued: list[Run]) -> None:
    ordered = in_order(reversed(queued))
    keys = [(-priority(one.tags), one.created, one.run_id) for one in ordered]
    assert keys == sorted(keys)
    assert sorted(one.run_id for one in ordered) == sorted(one.run_id for one in queued)


def test_a_run_that_has_to_wait_keeps_none_back_that_needs_something_else() -> None:
    rule = Limits(runs=3, tags=(TagConcurrencyLimit(key="team", value="red", limit=1),))
    busy = [run(9, RunStatus.STARTED, team="red")]
    first, second, third, fourth = run(0, team="red"), run(1), run(2, team="blue"), run(3)
    assert refusals([first, second, third, fourth], busy, rule) == {
        first.run_id: Refusal("1 run with tag team=red at a time, says run_queue.tag_concurrency_limits"),
        fourth.run_id: Refusal("3 runs at a time, says run_queue.max_concurrent_runs"),
    }


def test_a_limit_of_nothing_is_not_worth_waiting_for() -> None:
    found = refusals([run(0)], [], Limits(runs=0))
    assert found == {"run 000": Refusal("No run may begin: run_queue.max_concurrent_runs is 0", is_final=True)}


def test_a_run_waits_where_all_its_first_steps_would() -> None:
    one = Run(run_id="a", status=RunStatus.QUEUED, queued=START, request={"first_pools": ["p", "q"]})
    assert refusals([one], [], Limits(), {"p"}) == {}
    assert refusals([one], [], Limits(), {"p", "q"}) == {
        "a": Refusal("Pools 'p', 'q' have no place for its first steps")
    }


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({}, 0),
        ({"headwater/priority": "3"}, 3),
        ({"dagster/priority": "-1"}, -1),
        ({"dagster/priority": "5", "headwater/priority": "2"}, 2),
        ({"headwater/priority": "soon", "dagster/priority": "4"}, 4),
    ],
)
def test_priority(tags: dict[str, str], expected: int) -> None:
    assert priority(tags) == expected
