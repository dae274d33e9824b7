"""Putting things after what they need, and finding the circle where that is impossible."""

from collections import deque
from collections.abc import Collection, Iterable, Mapping
from typing import TypeVar

T = TypeVar("T")

#: Steps that the search for the shortest circle takes at most; beyond them it settles for the best it has found.
MAX_SEARCH = 2_000_000


def sort_topologically(needs: Mapping[T, Collection[T]]) -> list[T] | None:
    """The keys of `needs`, each after all that it needs; None where they go round in a circle.

    Stable: they keep the order in which they come, apart from those that somebody before them needs, which go right
    before the first who does. Depth-first search; time and memory are linear in keys and needs.
    """
    done: dict[T, bool] = {}  # False while what it needs is being placed
    order: list[T] = []
    for start in needs:
        if start in done:
            continue
        done[start] = False
        path = [(start, iter(needs[start]))]
        while path:
            key, rest = path[-1]
            for need in rest:
                placed = done.get(need)
                if placed is None:
                    done[need] = False
                    path.append((need, iter(needs[need])))
                    break
                if not placed:
                    return None
            else:
                path.pop()
                done[key] = True
                order.append(key)
    return order


def find_circle(needs: Mapping[T, Collection[T]]) -> list[T]:
    """A shortest circle, each element needed by the one after it and the last by the first; empty if there is none.

    Breadth-first search from one element after the other, each of which is then taken out together with all that is
    on no circle any more. That is quick unless many circles are tangled up: then `MAX_SEARCH` ends it.
    """
    left = {key: dict.fromkeys(need for need in found if need in needs) for key, found in needs.items()}
    users: dict[T, list[T]] = {key: [] for key in left}
    for key, found in left.items():
        for need in found:
            users[need].append(key)
    best: list[T] = []
    budget = MAX_SEARCH
    _peel(left, users, list(left))
    while left and budget > 0 and len(best) != 1:
        start = next(iter(left))
        circle, steps = _shortest_through(start, left, len(best))
        budget -= steps
        best = circle or best
        _peel(left, users, _take_out(start, left, users))
    return best


def _peel(left: dict[T, dict[T, None]], users: Mapping[T, list[T]], doubtful: Iterable[T]) -> None:
    """Take out what needs nothing that is left, or is needed by nothing that is: it is on no circle."""
    stack = list(doubtful)
    while stack:
        key = stack.pop()
        if key in left and not (left[key] and any(user in left for user in users[key])):
            stack.extend(_take_out(key, left, users))


def _take_out(key: T, left: dict[T, dict[T, None]], users: Mapping[T, list[T]]) -> list[T]:
    """Remove `key`; returns what it needed and what needed it."""
    using = [user for user in users[key] if user in left and user != key]
    for user in using:
        left[user].pop(key, None)
    return [*using, *left.pop(key)]


def _shortest_through(start: T, needs: Mapping[T, Collection[T]], limit: int) -> tuple[list[T], int]:
    """A shortest circle through `start` that is shorter than `limit` (0 for none), and the steps that took."""
    user_of: dict[T, T] = {}
    depth = {start: 0}
    queue = deque([start])
    steps = 0
    while queue:
        key = queue.popleft()
        if limit and depth[key] + 1 >= limit:
            break
        for need in needs[key]:
            steps += 1
            if need == start:
                path = [start]
                while key != start:
                    path.append(key)
                    key = user_of[key]
                return path, steps
            if need not in depth:
                user_of[need] = key
                depth[need] = depth[key] + 1
                queue.append(need)
    return [], steps
