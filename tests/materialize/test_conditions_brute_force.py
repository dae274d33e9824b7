"""Conditions evaluated for whole assets at a time, against the same rules cell by cell in plain Python."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater import AllPartitionMapping, AssetDep, DailyPartitionsDefinition, Definitions, TimeWindowPartitionMapping
from headwater import AutomationCondition as On
from headwater.catalog.keys import AssetKey
from headwater.catalog.lineage.asset_graph import AssetGraph
from headwater.catalog.lineage.node import AssetNode, Dependency
from headwater.catalog.partitions.definition import PartitionsContext
from headwater.catalog.partitions.links import Links
from headwater.catalog.partitions.mapping import AllPartitionMapping as Everything
from headwater.catalog.partitions.series import int64s
from headwater.catalog.partitions.space import Partitions, partitions_at
from headwater.materialize.automation.conditions.evaluator import Evaluator
from headwater.materialize.automation.conditions.facts import Updates, microseconds
from headwater.materialize.automation.conditions.state import State
from headwater.materialize.cell_table import Mask
from tests.materialize.test_conditions import made

DAYS = DailyPartitionsDefinition("2024-03-01")
NOW = datetime(2024, 3, 5, 12, tzinfo=UTC)
BEFORE = TimeWindowPartitionMapping(start_offset=-1, allow_nonexistent_upstream_partitions=True)
ASSETS = [
    made("u", partitions_def=DAYS),
    made("v"),
    made("d", "u", "v", partitions_def=DAYS),
    made("e", AssetDep("d", partition_mapping=BEFORE), partitions_def=DAYS),
    made("m", AssetDep("u", partition_mapping=AllPartitionMapping()), "d", "v"),
]
GRAPH = Definitions(ASSETS).graph
CONTEXT = PartitionsContext(NOW)
SPACES = {text: partitions_at(node.partitions_def, CONTEXT) for node in GRAPH for text in [node.partitions]}
CELLS = [(node.key, at) for node in GRAPH for at in range(SPACES[node.partitions].count)]
LINKS: dict[tuple[AssetKey, AssetKey], Links] = {
    (node.key, dep.key): (dep.partition_mapping or Everything()).links(
        SPACES[node.partitions], SPACES[GRAPH[dep.key].partitions]
    )
    for node in GRAPH
    for dep in node.deps
}
Cell = tuple[AssetKey, int]
#: Facts that are sets of cells.
SETS = ("missing", "stale", "run_in_progress", "execution_failed")


@dataclass
class World:
    """What is the case at one evaluation. Implements `Facts`, as far as these conditions ask."""

    sets: Mapping[str, set[Cell]]
    #: When cells were updated, in seconds after the evaluation before.
    updated: Mapping[Cell, int]
    due: int | None
    now: datetime
    graph: AssetGraph = GRAPH
    seen: int = 0

    def partitions(self, key: AssetKey) -> Partitions:
        return SPACES[self.graph[key].partitions]

    def links(self, node: AssetNode, dep: Dependency) -> Links:
        return LINKS[node.key, dep.key]

    def mask(self, name: str, key: AssetKey) -> Mask:
        return np.array([(key, at) in self.sets[name] for at in range(self.partitions(key).count)], np.bool_)

    def missing(self, key: AssetKey) -> Mask:
        return self.mask("missing", key)

    def stale(self, key: AssetKey, transitive: bool) -> Mask:
        return self.mask("stale", key)

    def in_run(self, key: AssetKey) -> Mask:
        return self.mask("run_in_progress", key)

    def failed(self, key: AssetKey) -> Mask:
        return self.mask("execution_failed", key)

    def updates(self, key: AssetKey) -> Updates:
        found = {at: self.moment(seconds) for (asset, at), seconds in self.updated.items() if asset == key}
        return Updates(int64s(list(found)), int64s([microseconds(time) for time in found.values()]), (), ())

    def cron(self, cron: str, zone: str, after: datetime) -> datetime | None:
        return None if self.due is None else self.moment(self.due)

    def moment(self, seconds: int) -> datetime:
        return self.now - timedelta(minutes=1) + timedelta(seconds=seconds)

    in_backfill = changed = makers = planned = tags = freshness = selected = None  # nobody asks for them


@dataclass
class Naive:
    """The rules, cell by cell. What is remembered is remembered for each place in each condition by itself."""

    conditions: Mapping[AssetKey, On]
    world: World = field(init=False)
    before: datetime | None = None
    asked_before: set[Cell] = field(default_factory=set[Cell])
    kept: dict[Any, bool] = field(default_factory=dict[Any, bool])

    def evaluate(self, world: World) -> set[Cell]:
        self.world, self.asked, self.keeping = world, set[Cell](), dict[Any, bool]()
        for node in GRAPH:
            condition = self.conditions.get(node.key)
            if condition is not None:
                cells = [cell for cell in CELLS if cell[0] == node.key]
                self.asked |= {cell for cell in cells if self.true(condition, cell, (node.key,))[0]}
        self.before, self.asked_before, self.kept = world.now, self.asked, self.keeping
        return self.asked

    def true(self, one: On, cell: Cell, path: tuple[Any, ...]) -> tuple[bool, int]:
        """Whether it is true, and when it became so: 0 where nobody knows."""
        world, parts = self.world, [(part, (*path, at)) for at, part in enumerate(one.operands)]
        match one.name:
            case "and":
                found = [self.true(part, cell, below) for part, below in parts]
                return all(true for true, _ in found), max(time for _, time in found)
            case "or":
                return last([self.true(part, cell, below) for part, below in parts])
            case "not":
                return not self.true(*parts[0][:1], cell, parts[0][1])[0], 0
            case "since":
                (trigger, set_at), (reset, reset_at) = (self.true(part, cell, below) for part, below in parts)
                found = (self.kept.get((path, cell), False) or trigger) and not reset
                if trigger and reset:
                    found = bool(set_at and reset_at and set_at > reset_at)
                self.keeping[path, cell] = found
                return found, 0
            case "newly_true":
                now = self.true(parts[0][0], cell, parts[0][1])[0]
                self.keeping[path, cell] = now
                return now and not self.kept.get((path, cell), False), 0
            case "any_deps_match" | "all_deps_match":
                found = [self.above(parts[0][0], cell, dep.key, parts[0][1]) for dep in GRAPH[cell[0]].deps]
                if one.name == "any_deps_match":
                    return last(found)
                return all(true for true, _ in found), last(found)[1]
            case "newly_updated":
                known = cell in world.updated and self.before is not None
                return known, microseconds(world.moment(world.updated[cell])) if known else 0
            case "cron_tick_passed":
                passed = world.due is not None and self.before is not None
                return passed, microseconds(world.moment(world.due or 0)) if passed else 0
            case "newly_requested":
                return cell in self.asked_before, 0 if self.before is None else microseconds(self.before)
            case "will_be_requested":
                return cell in self.asked, microseconds(world.now)
            case "initial_evaluation":
                return self.before is None, 0
            case "in_latest_time_window":
                return cell[1] == SPACES[GRAPH[cell[0]].partitions].count - 1, 0
            case name:
                return cell in world.sets[name], 0

    def above(self, part: On, cell: Cell, key: AssetKey, path: tuple[Any, ...]) -> tuple[bool, int]:
        read = LINKS[cell[0], key].read_by(cell[1]).tolist()
        found = {at: self.true(part, (key, at), (*path, key)) for at in range(SPACES[GRAPH[key].partitions].count)}
        return last([found[at] for at in read])


def last(found: list[tuple[bool, int]]) -> tuple[bool, int]:
    times = [time for true, time in found if true]
    return bool(times), 0 if 0 in times else max(times, default=0)


LEAVES = st.sampled_from(
    [
        *(On.missing(), On.stale(), On.run_in_progress(), On.execution_failed(), On.newly_updated()),
        *(On.newly_requested(), On.will_be_requested(), On.initial_evaluation(), On.in_latest_time_window()),
        *(On.cron_tick_passed("0 0 * * *"), On.newly_updated(), On.eager().replace("any_deps_updated", On.stale())),
    ]
).map(lambda one: one.replace("run_in_progress", On.run_in_progress()).replace("in_progress", On.run_in_progress()))
TREES = st.recursive(
    LEAVES,
    lambda below: st.one_of(
        st.tuples(below, below).map(lambda pair: pair[0] & pair[1]),
        st.tuples(below, below).map(lambda pair: pair[0] | pair[1]),
        st.tuples(below, below).map(lambda pair: pair[0].since(pair[1])),
        below.map(lambda one: ~one),
        below.map(On.newly_true),
        below.map(On.any_deps_match),
        below.map(On.all_deps_match),
        below.map(On.since_last_handled),
    ),
    max_leaves=5,
)
SUBSETS = st.sets(st.sampled_from(CELLS), max_size=6)
WORLDS = st.builds(
    World,
    sets=st.fixed_dictionaries(dict.fromkeys(SETS, SUBSETS)),
    updated=st.dictionaries(st.sampled_from(CELLS), st.integers(1, 5), max_size=6),
    due=st.none() | st.integers(1, 5),
    now=st.just(NOW),
)


@settings(max_examples=150)
@given(
    conditions=st.dictionaries(st.sampled_from([node.key for node in GRAPH]), TREES, min_size=2),
    worlds=st.lists(WORLDS, min_size=2, max_size=4),
)
def test_whole_assets_at_a_time_and_cell_by_cell_are_the_same(conditions: Any, worlds: list[World]) -> None:
    naive, state = Naive(conditions), State()
    for step, world in enumerate(worlds):
        world.now = NOW + timedelta(minutes=step)
        result = Evaluator(world, conditions, state).evaluate()  # pyright: ignore[reportArgumentType]
        found = {(key, at) for key, subset in result.requested.items() for at in subset.ordinals().tolist()}
        assert found == naive.evaluate(world)
        state = result.state
