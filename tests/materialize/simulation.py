"""A world without files and databases: assets whose data are versions, and runs that happen in memory."""

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace

from headwater.catalog.keys import AssetKey
from headwater.catalog.lineage.asset_graph import AssetGraph
from headwater.catalog.lineage.node import AssetNode, Dependency
from headwater.catalog.records import Cell, Fingerprint, Input, StepStatus
from headwater.catalog.storage.base import CellState
from headwater.materialize.edges import Edges
from headwater.materialize.execution.state import Decision, RunState
from headwater.materialize.planner import Plan, build_plan
from headwater.materialize.staleness import Staleness, evaluate

#: Every asset of the world has these columns, unless it has none.
COLUMNS = ("x", "y")


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What a simulated step produced for an asset: a version of its data, and one of each column."""

    data: str
    columns: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(slots=True)
class World:
    """A graph that can be edited, and what was recorded."""

    nodes: dict[AssetKey, AssetNode]
    states: dict[Cell, CellState] = field(default_factory=dict[Cell, CellState])
    _counter: Iterator[int] = field(default_factory=itertools.count)

    @property
    def graph(self) -> AssetGraph:
        return AssetGraph(self.nodes.values())

    def edit(self, key: str, **changes: object) -> None:
        """Change a definition: parts of the fingerprint by their names, everything else as a field of the node."""
        node = self.nodes[AssetKey(key)]
        parts = {
            name: changes.pop(name) for name in ("code", "definition", "config", "resources", "io") if name in changes
        }
        if parts and node.fingerprint:
            changes["fingerprint"] = replace(node.fingerprint, **parts)  # pyright: ignore[reportArgumentType]
        fields = {name: getattr(node, name) for name in node.__struct_fields__}
        self.nodes[node.key] = AssetNode(**{**fields, **changes})  # pyright: ignore[reportArgumentType]

    def record(self, graph: AssetGraph, key: AssetKey, made: Made, current: Mapping[AssetKey, CellState]) -> CellState:
        """What the coordinator records of an asset that was just made from what is `current`."""
        inputs: list[Input] = []
        for dep in graph[key].deps:
            state = current.get(dep.key)
            columns = (
                None
                if dep.columns is None or state is None
                else {c: state.columns[c] for c in dep.columns if c in state.columns}
            )
            inputs.append(
                Input(
                    asset=dep.key,
                    version_id=state and state.version_id,
                    data_version=state and state.data_version,
                    columns=columns,
                )
            )
        return CellState(
            version_id=f"v{next(self._counter)}",
            fingerprint=graph[key].fingerprint or Fingerprint(code=""),
            data_version=made.data,
            inputs=tuple(inputs),
            columns=dict(made.columns),
            stored=True,
        )

    def observe(self, key: str, made: Made) -> None:
        """A version of an external asset is reported."""
        self.states[Cell(AssetKey(key))] = self.record(self.graph, AssetKey(key), made, {})

    def staleness(self) -> Staleness:
        return evaluate(self.graph, self.states)

    def plan(self, selected: Collection[str] | None = None, **options: bool) -> Plan:
        graph = self.graph
        keys = graph.keys if selected is None else {AssetKey(key) for key in selected}
        return build_plan(Edges(graph, None), self.staleness(), dict.fromkeys(keys, True), **options)

    def run(self, plan: Plan, produce: Callable[[AssetKey], Made | None]) -> dict[str, StepStatus]:
        """Carry out a plan; `produce` makes an asset, or leaves out an optional one, or raises."""
        graph = self.graph
        state = RunState(plan, graph, {cell.asset: known for cell, known in self.states.items()})
        while not state.done:
            for decision in state.ready():
                self._step(state, graph, decision, produce)
        return state.statuses

    def _step(
        self, state: RunState, graph: AssetGraph, decision: Decision, produce: Callable[[AssetKey], Made | None]
    ) -> None:
        key = decision.step.key
        if decision.status is not None:
            state.finished(key, decision.status, lost=lost(decision), message=decision.message)
            return
        made: dict[AssetKey, CellState] = {}
        try:
            for asset in graph.sorted([cell.cell.asset for cell in decision.cells]):
                result = produce(asset)
                if result is not None:
                    made[asset] = self.record(graph, asset, result, {**state.current, **made})
        except RuntimeError:
            state.finished(key, StepStatus.FAILURE, lost=dict.fromkeys(lost(decision), StepStatus.FAILURE))
            return
        new = {Cell(asset): known for asset, known in made.items()}
        left_out = {cell: ended for cell, ended in lost(decision).items() if cell not in new}
        state.finished(key, StepStatus.SUCCESS, made=new, lost=left_out)
        self.states.update(new)


def lost(decision: Decision) -> dict[Cell, StepStatus]:
    """The cells of a step that is not to end as it should, with how each would end."""
    if decision.status is StepStatus.VERIFIED:
        return {}
    return dict.fromkeys((cell.cell for cell in decision.cells), decision.status or StepStatus.SKIPPED)


def node(
    key: str, *deps: str | Dependency, external: bool = False, step: str | None = None, **fields: object
) -> AssetNode:
    """A node: `"a"` loads the asset a, `"-a"` only depends on it, `"a:x,y"` reads these columns of it."""
    given = {
        "can_subset": True,
        "fingerprint": None if external else Fingerprint(code="py1:1", definition="cfg1:1"),
        **fields,
    }
    return AssetNode(
        key=AssetKey(key),
        deps=tuple(_dependency(dep) for dep in deps),
        step=None if external else step or key,
        source=f"{key}.py:1",
        **given,  # pyright: ignore[reportArgumentType]
    )


def _dependency(dep: str | Dependency) -> Dependency:
    if isinstance(dep, Dependency):
        return dep
    name, _, columns = dep.removeprefix("-").partition(":")
    return Dependency(
        key=AssetKey(name),
        parameter=None if dep.startswith("-") else name,
        columns=tuple(columns.split(",")) if columns else None,
    )


def world(*nodes: AssetNode) -> World:
    """A world of these nodes, in which nothing has been made."""
    return World({one.key: one for one in nodes})
