"""The asset graph: what depends on what, over plain nodes. Immutable."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property

from headwater.catalog.errors import CycleError, DuplicateAssetError, UnknownAssetError
from headwater.catalog.keys import AssetKey, CoercibleToAssetKey
from headwater.catalog.lineage.node import AssetNode
from headwater.catalog.lineage.order import find_circle, sort_topologically

#: Assets of a circle that an error names.
MAX_SHOWN = 20


class AssetGraph:
    """Assets and their dependencies, in topological order, otherwise in the order in which they come.

    A dependency that no node has becomes an external node, right before the first that depends on it. An asset that
    reads its own earlier partitions depends on itself in its node's `deps`, and not here.
    Raises `DuplicateAssetError` and `CycleError`; both name every place.
    """

    def __init__(self, nodes: Iterable[AssetNode]) -> None:
        by_key: dict[AssetKey, AssetNode] = {}
        for node in nodes:
            other = by_key.get(node.key)
            if other is not None:
                raise DuplicateAssetError(
                    f"Two definitions of the asset `{node.key}`: {other.source} and {node.source}.",
                    remedy="Rename one of them, or give it a key_prefix.",
                )
            by_key[node.key] = node
        self._nodes: Mapping[AssetKey, AssetNode] = _sorted(by_key)
        #: What each step computes, steps in topological order.
        self.steps: Mapping[str, tuple[AssetKey, ...]] = _steps(self._nodes)

    @property
    def nodes(self) -> Mapping[AssetKey, AssetNode]:
        """Every node by key; each comes after all that it depends on."""
        return self._nodes

    def __iter__(self) -> Iterator[AssetNode]:
        return iter(self._nodes.values())

    def __len__(self) -> int:
        return len(self._nodes)

    def __contains__(self, key: object) -> bool:
        return key in self._nodes

    def __getitem__(self, key: AssetKey) -> AssetNode:
        return self._nodes[key]

    def find(self, name: CoercibleToAssetKey) -> AssetNode:
        """The node that a user means by `name`. Raises `UnknownAssetError` with the nearest names."""
        key = AssetKey(name)
        node = self._nodes.get(key)
        if node is None:
            raise UnknownAssetError(str(key), [str(known) for known in self._nodes])
        return node

    @cached_property
    def keys(self) -> frozenset[AssetKey]:
        """All keys."""
        return frozenset(self._nodes)

    @cached_property
    def materializable(self) -> frozenset[AssetKey]:
        """The keys of all assets that are computed here."""
        return frozenset(key for key, node in self._nodes.items() if not node.external)

    def upstream(self, keys: Collection[AssetKey], depth: int | None = None) -> set[AssetKey]:
        """What `keys` depend on, to `depth` edges away, without themselves unless they depend on each other."""
        return self._reach(keys, depth, self._parents)

    def downstream(self, keys: Collection[AssetKey], depth: int | None = None) -> set[AssetKey]:
        """What depends on `keys`, to `depth` edges away, without themselves unless they depend on each other."""
        return self._reach(keys, depth, self._children)

    def self_contained(self, keys: Collection[AssetKey]) -> set[AssetKey]:
        """`keys`, all that they depend on, and all that is computed together with any of these."""
        found = set(keys)
        new = found
        while new:
            found = found | self.upstream(new)
            together = {mate for key in found if (step := self._nodes[key].step) for mate in self.steps[step]}
            new = together - found
            found |= together
        return found

    def parents(self, key: AssetKey) -> tuple[AssetKey, ...]:
        """What `key` depends on directly, in the order of its definition; never itself."""
        return self._nodes[key].parents

    def children(self, key: AssetKey) -> tuple[AssetKey, ...]:
        """What depends directly on `key`, in topological order."""
        return tuple(self._order[i] for i in self._children[self._index[key]])

    def roots(self, keys: Collection[AssetKey]) -> set[AssetKey]:
        """Those of `keys` that depend directly on none of the others."""
        chosen = set(keys)
        return {key for key in chosen if chosen.isdisjoint(self._nodes[key].parents)}

    def sinks(self, keys: Collection[AssetKey]) -> set[AssetKey]:
        """Those of `keys` on which none of the others depends directly."""
        chosen = set(keys)
        used = {parent for key in chosen for parent in self._nodes[key].parents}
        return chosen - used

    def sorted(self, keys: Collection[AssetKey]) -> list[AssetKey]:
        """`keys` in topological order."""
        return sorted(keys, key=self._index.__getitem__)

    @cached_property
    def _order(self) -> list[AssetKey]:
        return list(self._nodes)

    @cached_property
    def _index(self) -> Mapping[AssetKey, int]:
        return {key: i for i, key in enumerate(self._nodes)}

    @cached_property
    def _parents(self) -> list[list[int]]:
        """What each node depends on, as places in the order: whole graphs are walked in numbers."""
        index = self._index
        return [[index[parent] for parent in node.parents] for node in self._nodes.values()]

    @cached_property
    def _children(self) -> list[list[int]]:
        children: list[list[int]] = [[] for _ in self._nodes]
        for child, parents in enumerate(self._parents):
            for parent in parents:
                children[parent].append(child)
        return children

    def _reach(
        self, keys: Collection[AssetKey], depth: int | None, neighbours: Sequence[Sequence[int]]
    ) -> set[AssetKey]:
        layer = {self._index[key] for key in keys}
        reached: set[int] = set()
        while layer and depth != 0:
            layer = {n for i in layer for n in neighbours[i]} - reached
            reached |= layer
            depth = None if depth is None else depth - 1
        return {self._order[i] for i in reached}


def _sorted(nodes: dict[AssetKey, AssetNode]) -> Mapping[AssetKey, AssetNode]:
    """The nodes and those that they only name, in topological order, otherwise in the order they came."""
    placed: set[AssetKey] = set()
    for node in nodes.values():
        if not placed.issuperset(node.parents):
            return _sort(nodes)
        placed.add(node.key)
    return nodes


def _sort(nodes: dict[AssetKey, AssetNode]) -> Mapping[AssetKey, AssetNode]:
    every = dict(nodes)
    for node in nodes.values():
        for dep in node.deps:
            if dep.key not in every:
                every[dep.key] = AssetNode(key=dep.key, source=node.source)
    needs = {key: node.parents for key, node in every.items()}
    order = sort_topologically(needs)
    if order is None:
        cycle = [every[key] for key in find_circle(needs)]
        path = " → ".join(_shortened([f"`{node.key}`" for node in (*cycle, cycle[0])]))
        places = "\n".join(_shortened([f"  {node.key}: {node.source}" for node in cycle]))
        raise CycleError(
            f"Assets depend on each other in a circle: {path}\n{places}", remedy="Remove one of these dependencies."
        )
    return {key: every[key] for key in order}


def _shortened(lines: list[str]) -> list[str]:
    """What fits a screen of a circle of any length."""
    return lines if len(lines) <= MAX_SHOWN else [*lines[: MAX_SHOWN // 2], "…", *lines[-MAX_SHOWN // 2 :]]


def _steps(nodes: Mapping[AssetKey, AssetNode]) -> Mapping[str, tuple[AssetKey, ...]]:
    """The assets of each step, in topological order. Refuses a step that would have to run before and after others."""
    members: dict[str, list[AssetNode]] = {}
    for node in nodes.values():
        if node.step is not None:
            members.setdefault(node.step, []).append(node)
    if len(members) == sum(map(len, members.values())):
        return {step: (node.key,) for step, (node,) in members.items()}
    needs = {
        step: {s: None for node in group for key in node.parents if (s := nodes[key].step) is not None and s != step}
        for step, group in members.items()
    }
    order = sort_topologically(needs)
    if order is not None:
        return {step: tuple(node.key for node in members[step]) for step in order}
    circle = find_circle(needs)
    step = next(step for step in circle if len(members[step]) > 1)
    lines = [
        f"  {node.key} depends on {key}: {node.source}"
        for needed, user in zip(circle, (*circle[1:], circle[0]), strict=True)
        for node in members[user]
        for key in node.parents
        if nodes[key].step == needed
    ]
    raise CycleError(
        f"The step `{step}` computes several assets, and would have to run both before and after others:\n"
        + "\n".join(_shortened(lines)),
        remedy="Split it into one asset function for what comes before and one for what comes after.",
    )
