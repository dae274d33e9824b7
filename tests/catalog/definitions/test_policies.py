import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.catalog.definitions.policies import MAX_DELAY, Backoff, Failure, Jitter, RetryPolicy, RetryRequested
from headwater.catalog.errors import DefinitionError


@pytest.mark.parametrize(
    ("policy", "delays"),
    [
        (RetryPolicy(), [0, 0, 0]),
        (RetryPolicy(max_retries=3, delay=2), [2, 2, 2]),
        (RetryPolicy(max_retries=3, delay=2, backoff=Backoff.LINEAR), [2, 4, 6]),
        (RetryPolicy(max_retries=3, delay=2, backoff=Backoff.EXPONENTIAL), [2, 6, 14]),
    ],
)
def test_delays_grow_as_the_backoff_says(policy: RetryPolicy, delays: list[float]) -> None:
    assert [policy.calculate_delay(n) for n in (1, 2, 3)] == delays


@given(st.integers(1, 10**6), st.floats(0, MAX_DELAY, exclude_max=True), st.sampled_from(Backoff), st.integers())
def test_no_delay_is_longer_than_a_year(retry: int, delay: float, backoff: Backoff, seed: int) -> None:
    for jitter in (None, *Jitter):
        policy = RetryPolicy(max_retries=retry, delay=delay, backoff=backoff, jitter=jitter)
        assert 0 <= policy.calculate_delay(retry, random.Random(seed)) <= MAX_DELAY


def test_jitter_spreads_the_delay() -> None:
    rng = random.Random(1)
    full = [RetryPolicy(delay=10, jitter=Jitter.FULL).calculate_delay(1, rng) for _ in range(300)]
    around = [RetryPolicy(delay=10, jitter=Jitter.PLUS_MINUS).calculate_delay(1, rng) for _ in range(300)]
    assert 0 <= min(full) < 1 < 9 < max(full) <= 10
    assert 0 <= min(around) < 2 < 18 < max(around) <= 20


@pytest.mark.parametrize(
    "settings",
    [
        {"max_retries": -1},
        {"delay": -1},
        {"delay": float("nan")},
        {"delay": float("inf")},
        {"delay": MAX_DELAY},
        {"backoff": Backoff.LINEAR},
        {"jitter": Jitter.FULL},
        {"max_retries": "x"},
        {"max_retries": 1.5},
        {"delay": "x"},
        {"delay": 1, "backoff": "exponential"},
        {"delay": 1, "jitter": "FULL"},
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(DefinitionError) as caught:
        RetryPolicy(**settings)
    assert caught.value.remedy


def test_what_user_code_raises_says_what_it_wants() -> None:
    failure = Failure("no data", metadata={"path": "/x"}, allow_retries=False)
    assert (str(failure), failure.metadata, failure.allow_retries) == ("no data", {"path": "/x"}, False)
    assert Failure().allow_retries
    again = RetryRequested(max_retries=3, seconds_to_wait=1.5)
    assert (again.max_retries, again.seconds_to_wait) == (3, 1.5)
