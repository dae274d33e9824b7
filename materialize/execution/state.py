"""The state of a run: what may start, what need not, what cannot any more. Pure: no I/O, no clock.

The coordinator asks `ready` what to do, does it, and tells `finished` what came of it, until `done`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING

from headwater.catalog.keys import AssetKey
from headwater.catalog.lineage.asset_graph import AssetGraph
from headwater.catalog.lineage.node import AssetNode, Dependency
from headwater.catalog.records import Cell, StepStatus
from headwater.catalog.storage.base import CellState
from headwater.materialize.causes import CauseKind, direct_causes
from headwater.materialize.planner import Plan, PlanCell, PlanStep
from headwater.materialize.staleness import reads_partitions

if TYPE_CHECKING:
    from headwater.materialize.cell_table import CellTable


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """A cell that is not computed, and why."""

    cell: PlanCell
    #: VERIFIED, SKIPPED or CANCELED.
    status: StepStatus
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What to do with a step whose turn it is."""

    step: PlanStep
    #: The cells to compute; none when the step need not or cannot run.
    run: tuple[PlanCell, ...] = ()
    #: The other ones.
    left: tuple[Left, ...] = ()

    @property
    def status(self) -> StepStatus | None:
        """How a step that is not run ends: VERIFIED, SKIPPED or CANCELED; None for one that runs."""
        return None if self.run else worst(one.status for one in self.left)

    @property
    def cells(self) -> tuple[PlanCell, ...]:
        """What is computed, or would have been."""
        return self.run or self.step.cells

    @property
    def message(self) -> str:
        """Why it is not run, in words."""
        return next((one.message for one in self.left if one.status is self.status), "")


def worst(statuses: Iterable[StepStatus]) -> StepStatus:
    """The status of a step whose cells ended in several ways."""
    found = set(statuses)
    return next(status for status in _WORST_FIRST if status in found)


_WORST_FIRST = (
    StepStatus.FAILURE,
    StepStatus.INTERRUPTED,
    StepStatus.CANCELED,
    StepStatus.SUCCESS,
    StepStatus.SKIPPED,
    StepStatus.VERIFIED,
)


@dataclass(slots=True)
class RunState:
    """How far a run has come."""

    plan: Plan
    graph: AssetGraph
    #: The current state of every unpartitioned asset that matters, brought up to date as steps finish.
    current: dict[AssetKey, CellState]
    #: The same for partitions; None where there are none.
    table: "CellTable | None" = None
    #: Cells that this run should have made and did not, by ordinal, with the reason.
    unavailable: dict[AssetKey, dict[int, str]] = field(default_factory=dict[AssetKey, dict[int, str]])
    statuses: dict[str, StepStatus] = field(default_factory=dict[str, StepStatus])
    canceled: bool = False

    def __post_init__(self) -> None:
        self._steps = {step.key: step for step in self.plan.steps}
        self._order = {step.key: i for i, step in enumerate(self.plan.steps)}
        self._sorter = TopologicalSorter[str | _AllOf]()
        awaited = {name for step in self.plan.steps for name in step.after_all}
        for step in self.plan.steps:
            self._sorter.add(step.key, *step.after, *map(_AllOf, step.after_all))
            if step.name in awaited:
                self._sorter.add(_AllOf(step.name), step.key)
        self._sorter.prepare()

    _steps: dict[str, PlanStep] = field(init=False)
    _order: dict[str, int] = field(init=False)
    _sorter: "TopologicalSorter[str | _AllOf]" = field(init=False)

    @property
    def done(self) -> bool:
        """Whether every step has come to its end."""
        return len(self.statuses) == len(self._steps)

    def ready(self) -> list[Decision]:
        """The steps whose turn it is now, each once, in the order of the plan."""
        keys: list[str] = []
        while nodes := self._sorter.get_ready():
            for node in nodes:
                if isinstance(node, _AllOf):
                    self._sorter.done(node)
                else:
                    keys.append(node)
        keys.sort(key=self._order.__getitem__)
        return [self._decide(self._steps[key]) for key in keys]

    def finished(
        self,
        key: str,
        status: StepStatus,
        *,
        made: Mapping[Cell, CellState] | None = None,
        lost: Mapping[Cell, StepStatus] | None = None,
        message: str = "",
    ) -> None:
        """A step came to its end: it `made` cells, and others, which it was to make, ended in another way.

        `message` says why a step that was skipped was.
        """
        self.statuses[key] = status
        for cell, state in (made or {}).items():
            if cell.partition is None:
                self.current[cell.asset] = state
            if self.table is not None:
                self.table.made(cell, state)
        if lost:
            ordinals = {cell.cell: cell.ordinal for cell in self._steps[key].cells}
            for cell, ended in lost.items():
                words = (
                    "was not produced"
                    if ended is StepStatus.SKIPPED is not status
                    else _UNAVAILABLE.get(ended, "was not produced")
                )
                reason = message if message and ended is StepStatus.SKIPPED else f"`{cell}` {words}"
                self.unavailable.setdefault(cell.asset, {})[ordinals[cell]] = reason
        self._sorter.done(key)

    def cancel(self) -> None:
        """From now on nothing is started."""
        self.canceled = True

    def _decide(self, step: PlanStep) -> Decision:
        if self.canceled:
            canceled = StepStatus.CANCELED
            return Decision(
                step=step, left=tuple(Left(cell=c, status=canceled, message="the run was canceled") for c in step.cells)
            )
        possible: list[PlanCell] = []
        left: list[Left] = []
        together = not self.graph[step.cells[0].cell.asset].can_subset
        lost: dict[int, str] = {}
        for cell in step.cells:
            reason = self._why_unavailable(cell)
            if reason:
                lost.setdefault(cell.ordinal if together else id(cell), reason)
        for cell in step.cells:
            reason = lost.get(cell.ordinal if together else id(cell))
            if reason is None:
                possible.append(cell)
            else:
                left.append(Left(cell=cell, status=StepStatus.SKIPPED, message=reason))
        needed = self._needed(possible, together)
        run = tuple(cell for cell in possible if id(cell) in needed)
        left += [
            Left(cell=cell, status=StepStatus.VERIFIED, message="its inputs turned out to be what it was built from")
            for cell in possible
            if id(cell) not in needed
        ]
        return Decision(step=step, run=run, left=tuple(left))

    def _why_unavailable(self, cell: PlanCell) -> str | None:
        """Why something that a cell reads is not there."""
        if not self.unavailable:
            return None
        node = self.graph[cell.cell.asset]
        for dep in node.deps:
            reasons = self.unavailable.get(dep.key)
            if reasons:
                found = next((at for at in self._read(node, dep, cell.ordinal) if at in reasons), None)
                if found is not None:
                    return reasons[found]
        return None

    def _read(self, node: AssetNode, dep: Dependency, ordinal: int) -> list[int]:
        """The ordinals that one cell reads of one of its dependencies."""
        if self.table is None or (node.partitions is None and self.graph[dep.key].partitions is None):
            return [0]
        return self.table.links(node, dep).read_by(ordinal).tolist()

    def _needed(self, cells: list[PlanCell], together: bool) -> set[int]:
        """By identity, the cells that have a reason to be computed now that everything upstream is settled."""
        reasons = self._with_reason(cells)
        needed: dict[AssetKey, set[int]] = {}
        for cell in cells:  # in an order in which they can be computed: they may depend on each other
            node = self.graph[cell.cell.asset]
            if id(cell) in reasons or any(
                not needed[dep.key].isdisjoint(self._read(node, dep, cell.ordinal))
                for dep in node.deps
                if dep.key in needed
            ):
                needed.setdefault(cell.cell.asset, set()).add(cell.ordinal)
        if together:
            every = set[int]().union(*needed.values())
            return {id(cell) for cell in cells if cell.ordinal in every}
        return {id(cell) for cell in cells if cell.ordinal in needed.get(cell.cell.asset, ())}

    def _with_reason(self, cells: list[PlanCell]) -> set[int]:
        """By identity, the cells that have a reason of their own."""
        found: set[int] = set()
        asked: dict[AssetKey, list[PlanCell]] = {}
        for cell in cells:
            if any(cause.kind is CauseKind.FORCED for cause in cell.causes):
                found.add(id(cell))
            elif reads_partitions(self.graph, self.graph[cell.cell.asset]):
                asked.setdefault(cell.cell.asset, []).append(cell)
            else:
                state = self.current.get(cell.cell.asset)
                if state is None or direct_causes(self.graph[cell.cell.asset], state, self.current):
                    found.add(id(cell))
        for key, chosen in asked.items():
            found.update(self._partitions_with_reason(key, chosen))
        return found

    def _partitions_with_reason(self, key: AssetKey, cells: list[PlanCell]) -> set[int]:
        from headwater.catalog.partitions.series import int64s
        from headwater.materialize.partition_staleness import direct_causes_of

        assert self.table is not None  # there is one where something is partitioned
        ordinals = int64s([cell.ordinal for cell in cells])
        needed = ~self.table.arrays(key).built[ordinals]
        if not needed.all():
            for _, mask in direct_causes_of(self.graph[key], self.table, ordinals):
                needed |= mask
        return {id(cell) for cell, is_needed in zip(cells, needed.tolist(), strict=True) if is_needed}


@dataclass(frozen=True, slots=True)
class _AllOf:
    """In the order of steps: the end of all steps of one name."""

    name: str


_UNAVAILABLE: Mapping[StepStatus, str] = {
    StepStatus.FAILURE: "failed",
    StepStatus.SKIPPED: "was skipped",
    StepStatus.CANCELED: "was canceled",
}
