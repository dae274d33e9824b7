"""Conditions of many assets, evaluated when nothing happened and when something did (goal A4)."""

from datetime import datetime, timedelta

from benchmarks.cells import MOMENT, Then, chain, fill, home
from benchmarks.harness import Row, measure
from headwater import AutomationCondition, Instance
from headwater.catalog.events import ConditionsEvaluated
from headwater.catalog.lineage.asset_graph import AssetGraph
from headwater.catalog.storage.duckdb import open_catalog
from headwater.materialize.automation.conditions.quiet import is_quiet, settled
from headwater.materialize.automation.conditions.state import State
from headwater.materialize.automation.conditions.tick import evaluate

EAGER = AutomationCondition.eager()


def rows() -> list[Row]:
    return [
        *_rows(500, 1, "≤ 0.05 s"),
        *_rows(500, 100, "≤ 0.2 s"),
        *_rows(1_000, 1_000, ""),
    ]


def _rows(assets: int, partitions: int, goal: str) -> list[Row]:
    graph = chain(assets, partitions)
    with home() as filled:
        fill(filled, assets, partitions)
        filled.catalog.close()
        instance = Instance(filled.home, open_catalog(filled.home, wait=0, clock=Then()), Then())
        conditions = {node.key: EAGER for node in graph}

        def look(seconds: int) -> State:
            result = evaluate(graph, conditions, instance.catalog, State.last(instance.catalog), _at(seconds))
            states = settled(result).to_records(result.changed)
            instance.catalog.append([ConditionsEvaluated(time=_at(seconds), states=states)])
            return result.state

        for seconds in range(3):
            look(seconds)
        whole = measure(
            lambda: evaluate(graph, conditions, instance.catalog, State.last(instance.catalog), _at(30)).requested
        )
        first = measure(lambda: evaluate(graph, conditions, instance.catalog, State(), _at(30)).requested)
        idle = measure(lambda: _idle(instance, graph))
        instance.catalog.close()
    work = f"`eager` over {assets:,} assets × {partitions:,}"
    return [
        Row("A4", f"{work}: a tick, nothing happened", idle, "the same, evaluated anew", whole, goal=goal),
        Row("A4", f"{work}: evaluated for the first time", first),
    ]


def _idle(instance: Instance, graph: AssetGraph) -> None:
    conditions = {node.key: EAGER for node in graph}
    before = State.last(instance.catalog, common=True)
    assert is_quiet(instance.catalog, graph, conditions, before, _at(60))


def _at(seconds: int) -> datetime:
    return MOMENT + timedelta(seconds=seconds)
