"""The state of a run: what may start, what need not, what cannot any more. Pure: no I/O, no clock.

The coordinator asks `ready` what to do, does it, and tells `finished` what came of it, until `done`.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from graphlib import TopologicalSorter

from headwater.catalog.keys import AssetKey
from headwater.catalog.lineage.asset_graph import AssetGraph
from headwater.catalog.records import StepStatus
from headwater.catalog.storage.base import CellState
from headwater.materialize.planner import Plan, PlanCell, PlanStep
from headwater.materialize.staleness import CauseKind, direct_causes


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What to do with a step whose turn it is."""

    step: PlanStep
    #: The cells to compute; none when the step need not or cannot run.
    run: tuple[PlanCell, ...] = ()
    #: VERIFIED, SKIPPED or CANCELED for a step that is not run.
    status: StepStatus | None = None
    #: Why it is not run, in words.
    message: str = ""

    @property
    def assets(self) -> tuple[AssetKey, ...]:
        """What the step computes, or would have."""
        cells = self.run if self.status is None else self.step.cells
        return tuple(cell.cell.asset for cell in cells)


@dataclass(slots=True)
class RunState:
    """How far a run has come."""

    plan: Plan
    graph: AssetGraph
    #: The current state of every cell that matters, brought up to date as steps finish.
    current: dict[AssetKey, CellState]
    #: Assets that this run should have made and did not, with the reason.
    unavailable: dict[AssetKey, str] = field(default_factory=dict[AssetKey, str])
    statuses: dict[str, StepStatus] = field(default_factory=dict[str, StepStatus])
    canceled: bool = False

    def __post_init__(self) -> None:
        self._steps = {step.key: step for step in self.plan.steps}
        self._order = {step.key: i for i, step in enumerate(self.plan.steps)}
        self._sorter = TopologicalSorter({step.key: step.after for step in self.plan.steps})
        self._sorter.prepare()

    _steps: dict[str, PlanStep] = field(init=False)
    _order: dict[str, int] = field(init=False)
    _sorter: "TopologicalSorter[str]" = field(init=False)

    @property
    def done(self) -> bool:
        """Whether every step has come to its end."""
        return len(self.statuses) == len(self._steps)

    def ready(self) -> list[Decision]:
        """The steps whose turn it is now, each once, in the order of the plan."""
        keys = sorted(self._sorter.get_ready(), key=self._order.__getitem__)
        return [self._decide(self._steps[key]) for key in keys]

    def finished(
        self,
        key: str,
        status: StepStatus,
        *,
        ran: Collection[AssetKey] = (),
        made: Mapping[AssetKey, CellState] | None = None,
        message: str = "",
    ) -> None:
        """A step came to its end: it was to make `ran`, and made `made`."""
        self.statuses[key] = status
        self.current.update(made or {})
        for asset in ran:
            if asset not in (made or {}):
                self.unavailable[asset] = message or f"`{asset}` {_UNAVAILABLE.get(status, 'was not produced')}"
        self._sorter.done(key)

    def cancel(self) -> None:
        """From now on nothing is started."""
        self.canceled = True

    def _decide(self, step: PlanStep) -> Decision:
        if self.canceled:
            return Decision(step=step, status=StepStatus.CANCELED, message="the run was canceled")
        for cell in step.cells:
            for parent in self.graph.parents(cell.cell.asset):
                if parent in self.unavailable and self.graph[parent].step != step.key:
                    return Decision(step=step, status=StepStatus.SKIPPED, message=self.unavailable[parent])
        run = self._needed(step)
        if run:
            return Decision(step=step, run=run)
        return Decision(
            step=step, status=StepStatus.VERIFIED, message="its inputs turned out to be what it was built from"
        )

    def _needed(self, step: PlanStep) -> tuple[PlanCell, ...]:
        """The cells that have a reason of their own to be computed, now that everything upstream is settled."""
        needed: dict[AssetKey, PlanCell] = {}
        for cell in step.cells:  # in topological order: they may depend on each other
            key = cell.cell.asset
            if self._needs(cell) or not needed.keys().isdisjoint(self.graph.parents(key)):
                needed[key] = cell
        together = any(not self.graph[cell.cell.asset].can_subset for cell in step.cells)
        return step.cells if needed and together else tuple(needed.values())

    def _needs(self, cell: PlanCell) -> bool:
        state = self.current.get(cell.cell.asset)
        if state is None or any(cause.kind is CauseKind.FORCED for cause in cell.causes):
            return True
        return bool(direct_causes(self.graph[cell.cell.asset], state, self.current))


_UNAVAILABLE: Mapping[StepStatus, str] = {
    StepStatus.FAILURE: "failed",
    StepStatus.SKIPPED: "was skipped",
    StepStatus.CANCELED: "was canceled",
}
