"""When what is true became so: asked only of cells of which the trigger and the reset of a `since` both are."""

from collections.abc import Sequence
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np

from headwater.catalog.definitions.condition import AutomationCondition
from headwater.catalog.keys import AssetKey
from headwater.catalog.lineage.node import Dependency
from headwater.catalog.partitions.series import Int64s
from headwater.materialize.automation.conditions.facts import microseconds
from headwater.materialize.cell_table import Mask

if TYPE_CHECKING:
    from headwater.materialize.automation.conditions.evaluator import Evaluator


def moments(self: "Evaluator", one: AutomationCondition, key: AssetKey, root: AssetKey, ordinals: Int64s) -> Int64s:
    """For each of some cells of which a part is true when it became so, in microseconds since 1970.

    0 where nobody knows, as of what is not about something that happens.
    """
    unknown = np.zeros(len(ordinals), np.int64)
    match one.name:
        case "newly_updated" | "data_version_changed":
            updates = self.facts.updates(key)
            times = np.zeros(self.space(key).partitions.count, np.int64)
            times[updates.ordinals] = updates.times
            return times[ordinals]
        case "cron_tick_passed":
            passed = self.passed(one)
            return unknown if passed is None else unknown + microseconds(passed)
        case "newly_requested":
            return unknown if self.before.at is None else unknown + microseconds(self.before.at)
        case "will_be_requested":
            return unknown + microseconds(self.facts.now)
        case "and":
            return reduce(np.maximum, (moments(self, part, key, root, ordinals) for part in one.operands))
        case "or":
            return _last(
                [
                    (self.shown(part, key, root)[ordinals], moments(self, part, key, root, ordinals))
                    for part in one.operands
                ],
                unknown,
            )
        case "any_deps_match" | "all_deps_match":
            return _last(
                [_above(self, one.operands[0], key, root, dep, ordinals) for dep in self.deps(one, key)], unknown
            )
        case _:
            return unknown


def _above(
    self: "Evaluator", one: AutomationCondition, key: AssetKey, root: AssetKey, dep: Dependency, ordinals: Int64s
) -> tuple[Mask, Int64s]:
    """For each of some cells whether a part is true of something that it reads, and when the last became so."""
    true = self.true(one, dep.key, root)
    places, read = self.facts.links(self.facts.graph[key], dep).pairs(ordinals)
    places, read = places[true[read]], read[true[read]]
    found = np.zeros(len(ordinals), np.bool_)
    found[places] = True
    times = moments(self, one, dep.key, root, read)
    last = np.zeros(len(ordinals), np.int64)
    np.maximum.at(last, places, times)
    last[places[times == 0]] = 0
    return found, last


def _last(parts: Sequence[tuple[Mask, Int64s]], unknown: Int64s) -> Int64s:
    """The last of what is true; where anything that is true has no known time, nobody knows."""
    last, nobody = unknown.copy(), np.zeros(len(unknown), np.bool_)
    for true, times in parts:
        last = np.where(true, np.maximum(last, times), last)
        nobody |= true & (times == 0)
    return np.where(nobody, 0, last)
