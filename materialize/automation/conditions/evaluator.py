"""Evaluates conditions, a whole asset at a time. Pure: facts and what was remembered go in, values come out.

A part of a condition that is the same for several assets is evaluated once: such as whether what they all read is
missing. What is remembered of it is therefore shared too.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import numpy as np

from headwater.catalog.definitions.condition import AutomationCondition
from headwater.catalog.keys import AssetKey
from headwater.catalog.lineage.node import Dependency
from headwater.catalog.partitions import intervals
from headwater.catalog.partitions.space import Partitions
from headwater.catalog.partitions.subset import PartitionSubset
from headwater.materialize.automation.conditions.facts import Facts
from headwater.materialize.automation.conditions.rules import OF_RUNS, RULES, is_of_runs, latest_windows
from headwater.materialize.automation.conditions.state import AssetState, State
from headwater.materialize.automation.conditions.tree import Part
from headwater.materialize.cell_table import Mask

#: What is different for each asset whose condition it is part of.
_OF_ROOT = frozenset({"executed_with_root_target", "initial_evaluation", "any_downstream_conditions"})
_WORD = (1 << 64) - 1
#: What the evaluation of other assets decides.
_OF_OTHERS = frozenset({"will_be_requested", "any_downstream_conditions"})


@dataclass(frozen=True, slots=True, eq=False)
class Evaluated:
    """What came of an evaluation."""

    #: What is requested, of the assets of which anything is; in topological order.
    requested: Mapping[AssetKey, PartitionSubset]
    state: State
    #: The assets of which something else is to be remembered than before.
    changed: frozenset[AssetKey]
    #: Those of which something else is true than before.
    different: frozenset[AssetKey]
    evaluator: "Evaluator"

    def tree(self, key: AssetKey) -> Part:
        """The condition of an asset, and where each of its parts is true."""
        return self.evaluator.part(self.evaluator.conditions[key], key, key)


@dataclass(slots=True, eq=False)
class Space:
    """The partitions of an asset, and the two masks that most are: known by identity, and never written to."""

    partitions: Partitions
    none: Mask
    all: Mask


class Evaluator:
    """One evaluation. The rules (`conditions.rules`) ask it for what they need."""

    def __init__(self, facts: Facts, conditions: Mapping[AssetKey, AutomationCondition], before: State) -> None:
        self.facts = facts
        self.conditions = conditions
        self.before = before
        #: What is requested so far.
        self.requested: dict[AssetKey, Mask] = {}
        #: The code of assets, where a condition asks for that.
        self.codes: dict[AssetKey, str] = {}
        #: Of the parts in `OF_RUNS`, with their asset and root: of which cells it is known, and where it is true.
        self.of_runs: dict[tuple[str, AssetKey, AssetKey], tuple[Mask, Mask]] = {}
        self._spaces: dict[AssetKey, Space] = {}
        self._alike: dict[int, Space] = {}
        self._latest: dict[tuple[int, float | None], Mask] = {}
        #: Where parts are true, with a digest of that and of where all is that they are made of.
        self._memo: dict[tuple[str, AssetKey, AssetKey | None], tuple[Mask, int]] = {}
        #: The same, of what is so only while the condition of one asset is evaluated.
        self._passing: dict[tuple[str, AssetKey, AssetKey | None], tuple[Mask, int]] = {}
        #: Digests of what was asked for by the part that is being evaluated.
        self._trace: list[int] = []
        #: Digests of masks, by identity, which is kept alive.
        self._coded: dict[int, tuple[Mask, int]] = {}
        self._passed: dict[str, datetime | None] = {}
        self._decided: set[AssetKey] = set()
        #: What is to be remembered, by asset and name, with what was.
        self._kept: dict[AssetKey, dict[str, tuple[Mask, Mask]]] = {}
        #: Conditions of assets downstream that are being evaluated for one upstream.
        self._borrowed: list[AutomationCondition] = []

    def evaluate(self) -> Evaluated:
        """Evaluate every condition, in topological order."""
        graph = self.facts.graph
        digests: dict[AssetKey, str] = {}
        for node in graph:
            condition = self.conditions.get(node.key)
            if condition is not None:
                self._passing.clear()
                found = self.true(condition, node.key, node.key)
                digests[node.key] = f"{digest_of(condition.text)} {self._trace.pop() & _WORD:x}"
                self._request(node.key, found)
            self._decided.add(node.key)
        state, changed = self._state(digests)
        different = {key for key, one in digests.items() if self.before.of(key).digest != one}
        requested = {node.key: self._subset(node.key, mask) for node in graph if (mask := self._asked(node.key)).any()}
        return Evaluated(requested, state, frozenset(changed), frozenset(different), self)

    def true(self, one: AutomationCondition, key: AssetKey, root: AssetKey) -> Mask:
        """The cells of `key` of which a part of the condition of `root` is true."""
        of_root, of_others, borrows = _traits(one)
        at = one.text, key, root if of_root else None
        trace = self._trace
        found = self._memo.get(at) or (self._passing.get(at) if of_others else None)
        if found is None:
            first = len(trace)
            mask = self.settled(key, RULES[one.name](self, one, key, root))
            found = mask, hash((self._code(key, mask), *trace[first:]))
            del trace[first:]
            if not of_others or (key in self._decided and not borrows):
                self._memo[at] = found
            elif not self._borrowed:
                self._passing[at] = found
        trace.append(found[1])
        return found[0]

    def trace(self, key: AssetKey, mask: Mask) -> Mask:
        """Have a mask that a part depends on, and that is no part's own, count for whether anything is different."""
        self._trace.append(self._code(key, mask))
        return mask

    def _code(self, key: AssetKey, mask: Mask) -> int:
        space = self.space(key)
        if mask is space.none or mask is space.all:
            return int(mask is space.all)
        known = self._coded.get(id(mask))
        if known is None:
            edges = b"".join(one.tobytes() for one in intervals.of_mask(mask))
            known = self._coded[id(mask)] = mask, int.from_bytes(blake2b(edges, digest_size=7).digest())
        return known[1]

    def shown(self, one: AutomationCondition, key: AssetKey, root: AssetKey) -> Mask:
        """The same, of what was found out in this evaluation."""
        if one.name in OF_RUNS:
            known = self.of_runs.get((one.text, key, root))
            return self.space(key).none if known is None else self.settled(key, known[1])
        return ~self.shown(one.operands[0], key, root) if is_of_runs(one) else self.true(one, key, root)

    def part(self, one: AutomationCondition, key: AssetKey, root: AssetKey) -> Part:
        """The tree of a part, when everything is evaluated."""
        found = self._subset(key, self.shown(one, key, root))
        return Part(
            name=one.name,
            label=one.label,
            text=one.text,
            asset=key,
            true=found,
            operands=tuple(self.part(*below) for below in self._below(one, key, root)),
        )

    # What rules ask for.

    def space(self, key: AssetKey) -> Space:
        """The partitions of an asset, with the masks of none and of all."""
        found = self._spaces.get(key)
        if found is None:
            partitions = self.facts.partitions(key)
            found = self._alike.get(id(partitions))
            if found is None:
                none, every = np.zeros(partitions.count, np.bool_), np.ones(partitions.count, np.bool_)
                found = self._alike[id(partitions)] = Space(partitions, none, every)
            self._spaces[key] = found
        return found

    def settled(self, key: AssetKey, mask: Mask) -> Mask:
        """The mask itself, or the one of none or of all."""
        space = self.space(key)
        if mask is space.none or mask is space.all:
            return mask
        if not mask.any():
            return space.none
        return space.all if mask.all() else mask

    def read(self, key: AssetKey, data: Mapping[str, Any] | None) -> Mask:
        """The mask of a set that was remembered."""
        if data is None:
            return self.space(key).none
        return self.settled(key, self.space(key).partitions.read_subset(data)[0].mask())

    def remembered(self, one: AutomationCondition, key: AssetKey, root: AssetKey) -> Mask:
        """What `keep` was given at the evaluation before."""
        return self.read(key, self.before.of(key).parts.get(_name(one, key, root)))

    def keep(self, one: AutomationCondition, key: AssetKey, root: AssetKey, mask: Mask, before: Mask) -> Mask:
        """Remember a mask for the next evaluation, in the place of `before`."""
        self._kept.setdefault(key, {})[_name(one, key, root)] = (mask, before)
        return mask

    def deps(self, one: AutomationCondition, key: AssetKey) -> list[Dependency]:
        """The dependencies at which a part looks."""
        found = [dep for dep in self.facts.graph[key].deps if dep.key != key]
        allow, ignore = one.arguments
        if allow is None and ignore is None:
            return found
        if allow is not None:
            allowed = self.facts.selected(allow)
            found = [dep for dep in found if dep.key in allowed]
        if ignore is not None:
            ignored = self.facts.selected(ignore)
            found = [dep for dep in found if dep.key not in ignored]
        return found

    def downstream_conditions(self, key: AssetKey, root: AssetKey) -> Iterator[AutomationCondition]:
        """The different conditions of assets downstream, each to be evaluated before the next is asked for."""
        if self._borrowed:  # what its own one is made of is asked for already
            return
        own = self.conditions.get(root)
        below = (self.conditions.get(other) for other in self.facts.graph.sorted(self.facts.graph.downstream([key])))
        for condition in dict.fromkeys(one for one in below if one is not None and one != own):
            self._borrowed.append(condition)
            yield condition
            self._borrowed.pop()

    def is_new(self, root: AssetKey) -> bool:
        """Whether the condition of an asset was never evaluated as it is written now."""
        return self.before.of(root).condition != digest_of(self.conditions[root].text)

    def passed(self, one: AutomationCondition) -> datetime | None:
        """When a schedule was last due since the evaluation before."""
        if self.before.at is None:
            return None
        if one.text not in self._passed:
            cron, zone = one.arguments
            self._passed[one.text] = self.facts.cron(cron, zone, self.before.at)
        return self._passed[one.text]

    def latest(self, key: AssetKey, lookback: float | None = None) -> Mask:
        """The last windows of an asset; all of what is not divided by time."""
        partitions = self.space(key).partitions
        found = self._latest.get((id(partitions), lookback))
        if found is None:
            mask = self.settled(key, latest_windows(partitions, lookback).mask())
            found = self._latest[id(partitions), lookback] = mask
        return found

    # What came out.

    def _asked(self, key: AssetKey) -> Mask:
        return self.requested.get(key, self.space(key).none)

    def _request(self, key: AssetKey, found: Mask) -> None:
        """Note that cells are requested, of everything that is computed with them."""
        graph = self.facts.graph
        node = graph[key]
        for mate in (key,) if node.can_subset or node.step is None else graph.steps[node.step]:
            known = self.requested.get(mate)
            self.requested[mate] = found if known is None else self.settled(mate, known | found)

    def _state(self, digests: Mapping[AssetKey, str]) -> tuple[State, set[AssetKey]]:
        assets = {key: one for key, one in self.before.assets.items() if key in self.facts.graph}
        changed = self.before.assets.keys() - assets.keys()
        for key in {*self._kept, *self.codes, *digests, *self.requested, *assets}:
            old = self.before.of(key)
            mask = self._asked(key)
            new = AssetState(
                condition=digest_of(self.conditions[key].text) if key in self.conditions else "",
                requested=None if mask is self.space(key).none else self._subset(key, mask).to_json(),
                code=self.codes.get(key),
                parts=self._parts(key, old),
                digest=digests.get(key, ""),
            )
            if new != old:
                assets[key] = new
                changed.add(key)
        return State(at=self.facts.now, seen=self.facts.seen, assets=assets), changed

    def _parts(self, key: AssetKey, old: AssetState) -> dict[str, Mapping[str, Any]]:
        found: dict[str, Mapping[str, Any]] = {}
        for name, (mask, before) in self._kept.get(key, {}).items():
            if mask is not self.space(key).none and mask.any():
                same = name in old.parts and (mask is before or np.array_equal(mask, before))
                found[name] = old.parts[name] if same else self._subset(key, mask).to_json()
        return found

    def _below(
        self, one: AutomationCondition, key: AssetKey, root: AssetKey
    ) -> Iterator[tuple[AutomationCondition, AssetKey, AssetKey]]:
        """What a part is made of: of what, and of which asset."""
        if one.name in ("any_deps_match", "all_deps_match"):
            yield from ((one.operands[0], dep.key, root) for dep in self.deps(one, key))
        elif one.name == "asset_matches":
            yield one.operands[0], one.arguments[0], root
        else:
            yield from ((operand, key, root) for operand in one.operands)

    def _subset(self, key: AssetKey, mask: Mask) -> PartitionSubset:
        return self.space(key).partitions.subset_of_mask(mask)


def _name(one: AutomationCondition, key: AssetKey, root: AssetKey) -> str:
    """Under which a part is remembered: for all that it is part of, unless it is different for each."""
    shared = root == key or not _traits(one)[0]
    return digest_of(one.text) if shared else f"{digest_of(one.text)} {root}"


@lru_cache(maxsize=1 << 16)
def digest_of(text: str) -> str:
    """A short name for a part of a condition."""
    return blake2b(text.encode(), digest_size=8).hexdigest()


def _traits(one: AutomationCondition) -> tuple[bool, bool, bool]:
    """Whether a part is different for each root, whether other assets decide it, whether it borrows conditions."""
    found = one.__dict__.get("_traits")
    if found is None:
        names = {node.name for node in one.nodes()}
        found = not names.isdisjoint(_OF_ROOT), not names.isdisjoint(_OF_OTHERS), "any_downstream_conditions" in names
        one.__dict__["_traits"] = found
    return found
