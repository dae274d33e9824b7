import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.catalog.lineage.order import find_circle, sort_topologically

Needs = dict[int, list[int]]


@st.composite
def graphs(draw: st.DrawFn, *, acyclic: bool = False) -> Needs:
    """Up to eight nodes in some order, and what each needs."""
    size = draw(st.integers(0, 8))
    nodes = draw(st.permutations(range(size)))
    return {
        node: draw(
            st.lists(
                st.sampled_from([n for n in range(size) if n < node or not acyclic] or [0]), max_size=3, unique=True
            )
        )
        if node or not acyclic
        else []
        for node in nodes
    }


def naive_circles(needs: Needs) -> list[tuple[int, ...]]:
    """Every simple circle, by trying all orders of all sets of nodes."""
    return [
        order
        for size in range(1, len(needs) + 1)
        for order in itertools.permutations(needs, size)
        if order[0] == min(order)
        and all(before in needs[after] for before, after in zip(order, (*order[1:], order[0]), strict=True))
    ]


@given(graphs(acyclic=True))
def test_everything_comes_once_and_after_what_it_needs(needs: Needs) -> None:
    order = sort_topologically(needs)
    assert order is not None
    assert sorted(order) == sorted(needs)
    assert all(order.index(need) < order.index(key) for key in needs for need in needs[key])
    assert find_circle(needs) == []


@given(graphs(acyclic=True))
def test_an_order_that_is_right_stays(needs: Needs) -> None:
    order = sort_topologically(needs)
    assert order is not None
    assert sort_topologically({key: needs[key] for key in order}) == order


def test_what_is_needed_goes_right_before_the_first_that_needs_it() -> None:
    assert sort_topologically({"a": [], "b": ["d"], "c": [], "d": []}) == ["a", "d", "b", "c"]
    assert sort_topologically({"c": ["a", "b"], "b": [], "a": ["b"]}) == ["b", "a", "c"]


@given(graphs())
def test_the_circle_is_a_shortest_one(needs: Needs) -> None:
    every = naive_circles(needs) if len(needs) <= 6 else None
    circle = find_circle(needs)
    assert (sort_topologically(needs) is None) == bool(circle)
    if circle:
        assert len(set(circle)) == len(circle)
        assert all(before in needs[after] for before, after in zip(circle, [*circle[1:], circle[0]], strict=True))
    if every is not None:
        assert len(circle) == min(map(len, every), default=0)


@pytest.mark.parametrize("size", [1, 2, 20_000])
def test_long_chains_and_circles_take_no_stack(size: int) -> None:
    chain: Needs = {i: [i - 1] if i else [] for i in range(size)}
    assert sort_topologically(dict(reversed(chain.items()))) == list(range(size))
    circle = {**chain, 0: [size - 1]}
    assert sort_topologically(circle) is None
    assert len(find_circle(circle)) == size


def test_a_tangle_of_circles_is_given_up_in_time() -> None:
    rng = random.Random(1)
    size = 5000
    needs = {i: [rng.randrange(size) for _ in range(10)] for i in range(size)}
    for i in range(size):
        needs[i] = [need for need in needs[i] if need != i and i not in needs[need]]
    assert 3 <= len(find_circle(needs)) <= 10
