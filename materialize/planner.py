"""What a run would do: steps in order, each with its reasons. Pure.

`headwater plan` prints the plan that `headwater materialize` executes.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from headwater.catalog.errors import UsageError
from headwater.catalog.keys import AssetKey
from headwater.catalog.lineage.asset_graph import AssetGraph
from headwater.catalog.records import Cell
from headwater.materialize.staleness import Cause, CauseKind, Staleness, Status


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanCell:
    """A cell to build, and why."""

    cell: Cell
    status: Status
    causes: tuple[Cause, ...]

    @property
    def certain(self) -> bool:
        """Whether it is to be built whatever its upstream turns out to hold."""
        return self.status is Status.MISSING or any(not cause.transitive for cause in self.causes)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanStep:
    """A step to run: what it builds, why, and which of the plan's steps come before."""

    key: str
    cells: tuple[PlanCell, ...]
    after: frozenset[str]

    @property
    def certain(self) -> bool:
        """Whether it runs whatever its upstream turns out to hold; otherwise it may be left alone."""
        return any(cell.certain for cell in self.cells)

    @property
    def causes(self) -> tuple[Cause, ...]:
        """The reasons of all its cells, each once, those that decide first."""
        causes = dict.fromkeys(cause for cell in self.cells for cause in cell.causes)
        return tuple(sorted(causes, key=lambda cause: cause.transitive))

    @property
    def reason(self) -> str:
        """Why it is to run, in words."""
        causes = self.causes
        if not causes:
            return "computed together with a stale asset"
        shown = [cause for cause in causes if not cause.transitive] or list(causes)
        text = "; ".join(str(cause) for cause in shown[:3])
        return f"{text}; and {len(shown) - 3} more" if len(shown) > 3 else text


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Steps in an order in which they can run."""

    steps: tuple[PlanStep, ...]
    #: How many assets were selected.
    selected: int
    #: Selected assets that are only stale further up, where nothing is planned: rebuilding them changes nothing.
    waiting: tuple[AssetKey, ...] = ()
    #: Selected assets that cannot be built: optional outputs that their step did not make, and what depends on those.
    absent: tuple[AssetKey, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.steps)


def build_plan(
    graph: AssetGraph,
    staleness: Staleness,
    selected: Collection[AssetKey],
    *,
    force: bool = False,
    upstream: bool = True,
    only_missing: bool = False,
) -> Plan:
    """The steps that make `selected` fresh.

    With `upstream`, whatever they depend on that is stale or missing is built too. With `force`, the selected assets
    are built although fresh. With `only_missing`, nothing that exists is rebuilt. Raises `UsageError` where a selected
    asset would have to load one that was never materialized and is not to be. What depends on an optional output that
    its step does not make is left out.
    """
    targets = {key for key in selected if not graph[key].external}
    candidates = targets | graph.upstream(targets) if upstream else targets
    forced = targets if force else set[AssetKey]()
    rebuilt: dict[AssetKey, str] = {}  # asset → the step of this plan that computes it
    steps: list[PlanStep] = []
    waiting: list[AssetKey] = []
    absent: dict[AssetKey, None] = {}
    for step, members in graph.steps.items():
        cells: dict[AssetKey, PlanCell] = {}
        blocked = any(dep.key in absent for key in members for dep in graph[key].deps)
        for key in members:
            if staleness.is_not_made(key) and key not in forced:
                absent[key] = None
                continue
            if key not in candidates:
                continue
            causes = _causes(graph, staleness, key, forced=key in forced, rebuilt=rebuilt, only_missing=only_missing)
            if blocked and causes != ():
                absent[key] = None
            elif causes:
                cells[key] = PlanCell(cell=Cell(key), status=staleness.of(key).status, causes=causes)
                rebuilt[key] = step
            elif causes is None:
                waiting.append(key)
        if not cells:
            continue
        if not graph[members[0]].can_subset:  # the others come along
            for key in members:
                status = staleness.of(key)
                cells.setdefault(key, PlanCell(cell=Cell(key), status=status.status, causes=status.causes))
                rebuilt[key] = step
                absent.pop(key, None)
        after = {rebuilt[dep.key] for key in cells for dep in graph[key].deps if dep.key in rebuilt} - {step}
        ordered = tuple(cells[key] for key in members if key in cells)
        steps.append(PlanStep(key=step, cells=ordered, after=frozenset(after)))
    _check_inputs(graph, staleness, steps, rebuilt)
    return Plan(
        steps=tuple(steps),
        selected=len(selected),
        waiting=tuple(key for key in waiting if key not in rebuilt),
        absent=tuple(key for key in absent if key in targets),
    )


def _causes(
    graph: AssetGraph,
    staleness: Staleness,
    key: AssetKey,
    *,
    forced: bool,
    rebuilt: Mapping[AssetKey, str],
    only_missing: bool,
) -> tuple[Cause, ...] | None:
    """Why an asset is built; nothing for one that is not, None for one that waits for what is not built here."""
    status = staleness.of(key)
    if forced:
        return (*status.causes, Cause(kind=CauseKind.FORCED))
    if status.status is Status.MISSING:
        return status.causes
    if only_missing:
        return ()
    if any(not cause.transitive or cause.upstream in rebuilt for cause in status.causes):
        return status.causes
    # What is above may be rebuilt although fresh: forced, or in one step with something stale.
    above = next((dep.key for dep in graph[key].deps if dep.key in rebuilt), None)
    if above is not None:
        return (*status.causes, Cause(kind=CauseKind.UPSTREAM_REBUILT, upstream=above))
    return None if status.causes else ()


def _check_inputs(
    graph: AssetGraph, staleness: Staleness, steps: Sequence[PlanStep], rebuilt: Mapping[AssetKey, str]
) -> None:
    for step in steps:
        for cell in step.cells:
            for dep in graph[cell.cell.asset].deps:
                if dep.parameter is None or dep.key in rebuilt or graph[dep.key].external:
                    continue
                if staleness.of(dep.key).status is Status.MISSING:
                    raise UsageError(
                        f"`{cell.cell}` reads `{dep.key}`, which was never materialized and is not part of this plan.",
                        remedy=f"Build it too: select `+{cell.cell.asset}` without --no-upstream.",
                    )
