"""What each name in a condition means: of which cells of an asset it is true."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np

from headwater.catalog.definitions.condition import AutomationCondition
from headwater.catalog.keys import AssetKey
from headwater.catalog.lineage.node import Dependency
from headwater.catalog.partitions.space import MultiPartitions, Partitions, WindowPartitions
from headwater.catalog.partitions.subset import PartitionSubset
from headwater.materialize.automation.conditions.moments import moments
from headwater.materialize.cell_table import Mask

if TYPE_CHECKING:
    from headwater.materialize.automation.conditions.evaluator import Evaluator

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: Which runs made what: asked only of cells of which the rest of a conjunction is true, as it costs most.
OF_RUNS = frozenset({"executed_with_root_target", "executed_with_tags"})

#: The evaluation, a part of a condition, the asset of whose cells it is asked, and the one whose condition it is.
Rule = Callable[["Evaluator", AutomationCondition, AssetKey, AssetKey], Mask]


def _and(self: "Evaluator", one: AutomationCondition, key: AssetKey, root: AssetKey) -> Mask:
    space = self.space(key)
    found = space.all
    for operand in one.operands:
        if not is_of_runs(operand):
            mask = self.true(operand, key, root)
            if mask is not space.all:
                found = mask if found is space.all else found & mask
    for operand in filter(is_of_runs, one.operands):
        inverted = operand.name == "not"
        mask = runs_match(self, operand.operands[0] if inverted else operand, key, root, found)
        found = found & ~mask if inverted else mask
    return found


def _or(self: "Evaluator", one: AutomationCondition, key: AssetKey, root: AssetKey) -> Mask:
    space = self.space(key)
    found = space.none
    for operand in one.operands:
        mask = self.true(operand, key, root)
        if mask is not space.none:
            found = mask if found is space.none else found | mask
    return found


def _not(self: "Evaluator", one: AutomationCondition, key: AssetKey, root: AssetKey) -> Mask:
    space, mask = self.space(key), self.true(one.operands[0], key, root)
    if mask is space.none:
        return space.all
    return space.none if mask is space.all else ~mask


def _since(self: "Evaluator", one: AutomationCondition, key: AssetKey, root: AssetKey) -> Mask:
    trigger, reset = (self.true(operand, key, root) for operand in one.operands)
    before = self.remembered(one, key, root)
    none = self.space(key).none
    if trigger is none and (before is none or reset is none):
        found = before
    else:
        found = (before | trigger) & ~reset
        both = np.flatnonzero(trigger & reset)
        if len(both):
            set_at, reset_at = (moments(self, operand, key, root, both) for operand in one.operands)
            found[both] = (set_at > reset_at) & (reset_at > 0)
    return self.keep(one, key, root, found, before)


def _newly_true(self: "Evaluator", one: AutomationCondition, key: AssetKey, root: AssetKey) -> Mask:
    now, before = self.true(one.operands[0], key, root), self.remembered(one, key, root)
    self.keep(one, key, root, now, before)
    return self.space(key).none if now is before else now & ~before


def _any_deps_match(self: "Evaluator", one: AutomationCondition, key: AssetKey, root: AssetKey) -> Mask:
    space = self.space(key)
    found = space.none
    for dep in self.deps(one, key):
        mask = _readers(self, key, dep, self.true(one.operands[0], dep.key, root))
        if mask is not space.none:
            found = mask if found is space.none else found | mask
    return found


def _all_deps_match(self: "Evaluator", one: AutomationCondition, key: AssetKey, root: AssetKey) -> Mask:
    space = self.space(key)
    found = space.all
    for dep in self.deps(one, key):
        mask = _readers(self, key, dep, self.true(one.operands[0], dep.key, root))
        if mask is not space.all:
            found = mask if found is space.all else found & mask
    return found


def _readers(self: "Evaluator", key: AssetKey, dep: Dependency, mask: Mask) -> Mask:
    """The cells that read one of some cells of a dependency."""
    above, space = self.space(dep.key), self.space(key)
    if mask is above.none:
        return space.none
    if above is space and len(mask) == 1:
        return mask
    return self.settled(key, self.facts.links(self.facts.graph[key], dep).any(mask))


def _asset_matches(self: "Evaluator", one: AutomationCondition, key: AssetKey, root: AssetKey) -> Mask:
    other, graph, space = one.arguments[0], self.facts.graph, self.space(key)
    mask = self.true(one.operands[0], other, root)
    if other == key:
        return mask
    for dep in graph[other].deps:
        if dep.key == key:
            links = self.facts.links(graph[other], dep)
            return links.upstream(links.downstream_partitions.subset_of_mask(mask)).subset.mask()
    for dep in graph[key].deps:
        if dep.key == other:
            return _readers(self, key, dep, mask)
    if space.partitions.same_as(self.space(other).partitions):
        return mask
    return space.all if mask.any() else space.none


def _any_downstream_conditions(self: "Evaluator", one: AutomationCondition, key: AssetKey, root: AssetKey) -> Mask:
    found = self.space(key).none
    for condition in self.downstream_conditions(key, root):
        found = found | self.true(condition, key, root)
    return found


def _will_be_requested(self: "Evaluator", one: AutomationCondition, key: AssetKey, root: AssetKey) -> Mask:
    return self.requested.get(key, self.space(key).none)


def _newly_requested(self: "Evaluator", one: AutomationCondition, key: AssetKey, root: AssetKey) -> Mask:
    return self.read(key, self.before.of(key).requested)


def _newly_updated(self: "Evaluator", one: AutomationCondition, key: AssetKey, root: AssetKey) -> Mask:
    ordinals = () if self.before.at is None else self.facts.updates(key).ordinals
    if not len(ordinals):
        return self.space(key).none
    found = self.space(key).none.copy()
    found[ordinals] = True
    return found


def _data_version_changed(self: "Evaluator", one: AutomationCondition, key: AssetKey, root: AssetKey) -> Mask:
    return self.space(key).none if self.before.at is None else self.facts.changed(key)


def _code_version_changed(self: "Evaluator", one: AutomationCondition, key: AssetKey, root: AssetKey) -> Mask:
    space, before = self.space(key), self.before.of(key).code
    fingerprint = self.facts.graph[key].fingerprint
    now = self.codes[key] = "external" if fingerprint is None else fingerprint.code
    return space.none if before in (None, now) else space.all


def _initial_evaluation(self: "Evaluator", one: AutomationCondition, key: AssetKey, root: AssetKey) -> Mask:
    return self.space(key).all if self.is_new(root) else self.space(key).none


def _cron_tick_passed(self: "Evaluator", one: AutomationCondition, key: AssetKey, root: AssetKey) -> Mask:
    return self.space(key).none if self.passed(one) is None else self.space(key).all


def _in_latest_time_window(self: "Evaluator", one: AutomationCondition, key: AssetKey, root: AssetKey) -> Mask:
    return self.latest(key, *one.arguments)


def _freshness(self: "Evaluator", one: AutomationCondition, key: AssetKey, root: AssetKey) -> Mask:
    return self.space(key).all if self.facts.freshness(key) == one.arguments[0] else self.space(key).none


def _of_runs(self: "Evaluator", one: AutomationCondition, key: AssetKey, root: AssetKey) -> Mask:
    return runs_match(self, one, key, root, self.space(key).all)


def is_of_runs(one: AutomationCondition) -> bool:
    """Whether this is about the runs that made cells, or says that it is not so."""
    return one.name in OF_RUNS or (one.name == "not" and one.operands[0].name in OF_RUNS)


def runs_match(self: "Evaluator", one: AutomationCondition, key: AssetKey, root: AssetKey, among: Mask) -> Mask:
    """The cells `among` some that were made by such a run. What is found out of each is kept in `of_runs`."""
    space = self.space(key)
    known, value = self.of_runs.get((one.text, key, root), (space.none, space.none))
    new = np.flatnonzero(among & ~known)
    if len(new):
        value = value.copy()
        by_run: dict[str, list[int]] = {}
        for ordinal, run_id in zip(new.tolist(), self.facts.makers(key, new), strict=True):
            if run_id is not None:
                by_run.setdefault(run_id, []).append(ordinal)
        for run_id, ordinals in by_run.items():
            if one.name == "executed_with_tags":
                tags = self.facts.tags(run_id)
                value[ordinals] = all(tag in tags and wanted in (None, tags[tag]) for tag, wanted in one.arguments)
            else:
                value[ordinals] = _built_with(self, run_id, key, root)[ordinals]
        self.of_runs[one.text, key, root] = known | among, value
    return self.trace(key, self.settled(key, value & among))


def _built_with(self: "Evaluator", run_id: str, key: AssetKey, root: AssetKey) -> Mask:
    """The cells of `key` of which a run planned to build everything of `root` that reads them."""
    planned, graph = self.facts.planned(run_id, root), self.facts.graph
    if root == key or not planned.any():
        return planned if root == key else self.space(key).none
    found = self.space(key).all
    for dep in graph[root].deps:
        if dep.key == key:
            links = self.facts.links(graph[root], dep)
            others = links.downstream_partitions.subset_of_mask(~planned)
            found = found & ~links.upstream(others).subset.mask()
    return found


def latest_windows(partitions: Partitions, lookback: float | None = None) -> PartitionSubset:
    """The last window, or those that reach into `lookback` seconds before its end; all of what is not of time."""
    if isinstance(partitions, MultiPartitions):
        timed = {name: one for name, one in partitions.items() if isinstance(one, WindowPartitions)}
        return partitions.product(**{name: latest_windows(one, lookback) for name, one in timed.items()})
    if not isinstance(partitions, WindowPartitions) or not partitions.count:
        return partitions.all()
    if lookback is None:
        return partitions.last()
    end = _EPOCH + timedelta(seconds=int(partitions.ends([partitions.count - 1])[0]))
    return partitions.overlapping(end - timedelta(seconds=lookback), end)


RULES: Mapping[str, Rule] = {
    "and": _and,
    "or": _or,
    "not": _not,
    "since": _since,
    "newly_true": _newly_true,
    "any_deps_match": _any_deps_match,
    "all_deps_match": _all_deps_match,
    "asset_matches": _asset_matches,
    "any_downstream_conditions": _any_downstream_conditions,
    "missing": lambda self, one, key, root: self.facts.missing(key),
    "stale": lambda self, one, key, root: self.facts.stale(key, bool(one.arguments)),
    "run_in_progress": lambda self, one, key, root: self.facts.in_run(key),
    "backfill_in_progress": lambda self, one, key, root: self.facts.in_backfill(key),
    "execution_failed": lambda self, one, key, root: self.facts.failed(key),
    "will_be_requested": _will_be_requested,
    "newly_requested": _newly_requested,
    "newly_updated": _newly_updated,
    "data_version_changed": _data_version_changed,
    "code_version_changed": _code_version_changed,
    "initial_evaluation": _initial_evaluation,
    "cron_tick_passed": _cron_tick_passed,
    "in_latest_time_window": _in_latest_time_window,
    "freshness": _freshness,
    "executed_with_root_target": _of_runs,
    "executed_with_tags": _of_runs,
}
