"""Which events a storage accepts, and which of them still change anything. The same for every storage.

The life of a run is RunStarted, then anything, then RunEnded; of a step StepStarted, StepRetried, StepEnded. What
comes after the end of a step or of its run is late: it goes to the log and changes nothing else, so that a worker
that was given up cannot move what others have built upon since. The life of a backfill is BackfillStarted, then
BackfillEnded and BackfillResumed until it ended as SUCCESS or CANCELED; what comes after is late too.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from headwater.catalog.errors import CatalogError, ConflictError
from headwater.catalog.events import (
    BackfillEnded,
    BackfillResumed,
    BackfillStarted,
    DefinitionsChanged,
    Event,
    RunEnded,
    RunStarted,
    StepEnded,
)
from headwater.catalog.records import BackfillStatus, Materialization, RunStatus, StepStatus
from headwater.catalog.storage.identifiers import check_identifier

#: How a backfill ends for good.
_OVER = frozenset({BackfillStatus.SUCCESS, BackfillStatus.CANCELED})
_OPEN_STEP = frozenset({StepStatus.PENDING, StepStatus.STARTED})
_UTC = timedelta(0)
_REMEDY = "This is an error in the program that records: please report it."


@dataclass(slots=True)
class StepProgress:
    """How far a step of the plan got; `number` is its place in the plan."""

    number: int
    ended: bool = False


@dataclass(slots=True)
class RunProgress:
    """How far a run got; `number` counts the runs of the catalog from 0."""

    number: int
    steps: dict[str, StepProgress]
    ended: bool = False


@dataclass(slots=True)
class BackfillProgress:
    """How far a backfill got; `number` counts the backfills of the catalog from 0."""

    number: int
    status: BackfillStatus = BackfillStatus.STARTED


@dataclass(slots=True)
class Progress:
    """The runs and backfills under way, kept so that an append need not read. Not thread-safe: its owner locks."""

    #: Finds a run that is not in memory; None where the catalog has no such run.
    find: Callable[[str], RunProgress | None]
    #: The same for backfills.
    find_backfill: Callable[[str], BackfillProgress | None]
    next_number: int
    next_backfill: int
    _runs: dict[str, RunProgress] = field(default_factory=dict[str, RunProgress])
    #: What to take back when the transaction fails.
    _started: list[str] = field(default_factory=list[str])
    _backfills: dict[str, BackfillProgress] = field(default_factory=dict[str, BackfillProgress])
    _started_backfills: list[str] = field(default_factory=list[str])
    #: Backfills that moved on, with the status before.
    _moved: list[tuple[BackfillProgress, BackfillStatus]] = field(
        default_factory=list[tuple[BackfillProgress, BackfillStatus]]
    )
    _ended: list[tuple[str, RunProgress | StepProgress]] = field(
        default_factory=list[tuple[str, RunProgress | StepProgress]]
    )

    def start(self, event: RunStarted) -> RunProgress:
        """Take in a new run.

        Raises `CatalogError` for one that the catalog has already, `ConflictError` where `runs_before` is not met.
        """
        if self._find(event.run_id) is not None:
            raise CatalogError(f"Run {event.run_id} is in the catalog already.", remedy=_REMEDY)
        if event.runs_before not in (None, self.next_number):
            raise ConflictError(
                f"Run {event.run_id} was to be number {event.runs_before}, and is number {self.next_number}.",
                remedy="Look again at what the runs in between do.",
            )
        if event.backfill_id is not None:
            self.backfill(event.backfill_id)
        steps = {step.step_key: StepProgress(number) for number, step in enumerate(event.steps)}
        if len(steps) < len(event.steps):
            raise CatalogError(f"Run {event.run_id} plans two steps of the same name.", remedy=_REMEDY)
        run = RunProgress(self.next_number, steps)
        self.next_number += 1
        self._runs[event.run_id] = run
        self._started.append(event.run_id)
        return run

    def run(self, run_id: str) -> RunProgress:
        """A run. Raises `CatalogError` for one that was never started."""
        run = self._find(run_id)
        if run is None:
            raise CatalogError(f"Run {run_id} was never started.", remedy=_REMEDY)
        return run

    def step(self, run_id: str, step_key: str) -> StepProgress:
        """A step. Raises `CatalogError` for one that its run did not plan."""
        try:
            return self.run(run_id).steps[step_key]
        except KeyError:
            raise CatalogError(f"Run {run_id} has no step '{step_key}'.", remedy=_REMEDY) from None

    def end(self, event: RunEnded | StepEnded) -> bool:
        """Take in an end; False when it comes late."""
        run = self.run(event.run_id)
        part = self.step(event.run_id, event.step_key) if isinstance(event, StepEnded) else run
        if run.ended or part.ended:
            return False
        part.ended = True
        self._ended.append((event.run_id, part))
        return True

    def is_over(self, identifier: str) -> bool:
        """Whether this is a run or backfill that has ended for good; what is not there yet has not."""
        run = self._find(identifier)
        if run is not None:
            return run.ended
        backfill = self._find_backfill(identifier)
        return backfill is not None and backfill.status in _OVER

    def start_backfill(self, event: BackfillStarted) -> BackfillProgress:
        """Take in a new backfill. Raises `CatalogError` for one that the catalog has already."""
        if self._find_backfill(event.backfill_id) is not None:
            raise CatalogError(f"Backfill {event.backfill_id} is in the catalog already.", remedy=_REMEDY)
        backfill = self._backfills[event.backfill_id] = BackfillProgress(self.next_backfill)
        self.next_backfill += 1
        self._started_backfills.append(event.backfill_id)
        return backfill

    def backfill(self, backfill_id: str) -> BackfillProgress:
        """A backfill. Raises `CatalogError` for one that was never started."""
        backfill = self._find_backfill(backfill_id)
        if backfill is None:
            raise CatalogError(f"Backfill {backfill_id} was never started.", remedy=_REMEDY)
        return backfill

    def move_backfill(self, event: BackfillResumed | BackfillEnded) -> bool:
        """Take in how a backfill goes on; False when that comes late."""
        backfill = self.backfill(event.backfill_id)
        if backfill.status in _OVER:
            return False
        self._moved.append((backfill, backfill.status))
        backfill.status = event.status if isinstance(event, BackfillEnded) else BackfillStatus.STARTED
        return True

    def commit(self) -> None:
        """The transaction stands. Runs and backfills that are over are forgotten."""
        for run_id, part in self._ended:
            if isinstance(part, RunProgress):
                self._runs.pop(run_id, None)
        if any(backfill.status in _OVER for backfill, _ in self._moved):
            self._backfills = {key: kept for key, kept in self._backfills.items() if kept.status not in _OVER}
        self._forget()

    def rollback(self) -> None:
        """The transaction failed: everything since the last commit did not happen."""
        for _, part in self._ended:
            part.ended = False
        for backfill, status in reversed(self._moved):
            backfill.status = status
        for run_id in self._started:
            del self._runs[run_id]
        for backfill_id in self._started_backfills:
            del self._backfills[backfill_id]
        self.next_number -= len(self._started)
        self.next_backfill -= len(self._started_backfills)
        self._forget()

    def _forget(self) -> None:
        self._started.clear()
        self._ended.clear()
        self._started_backfills.clear()
        self._moved.clear()

    def _find_backfill(self, backfill_id: str) -> BackfillProgress | None:
        backfill = self._backfills.get(backfill_id)
        if backfill is None:
            backfill = self.find_backfill(backfill_id)
            if backfill is not None:
                self._backfills[backfill_id] = backfill
        return backfill

    def _find(self, run_id: str) -> RunProgress | None:
        run = self._runs.get(run_id)
        if run is None:
            run = self.find(run_id)
            if run is not None:
                self._runs[run_id] = run
        return run


def check(event: Event) -> None:
    """Raise `CatalogError` for an event that no catalog can hold, whatever came before it."""
    _check_time(event.time, type(event).__name__)
    match event:
        case RunStarted():
            check_identifier(event.run_id, "run")
            if event.backfill_id is not None:
                check_identifier(event.backfill_id, "backfill")
            for step in event.steps:
                for cell in step.cells:
                    check_identifier(cell.version_id, "version")
        case BackfillStarted():
            check_identifier(event.backfill_id, "backfill")
        case BackfillEnded(status=BackfillStatus.STARTED):
            raise CatalogError(f"Backfill {event.backfill_id} cannot end as {event.status}.", remedy=_REMEDY)
        case RunEnded(status=RunStatus.STARTED):
            raise CatalogError(f"Run {event.run_id} cannot end as {event.status}.", remedy=_REMEDY)
        case StepEnded():
            if event.status in _OPEN_STEP:
                raise CatalogError(f"Step '{event.step_key}' cannot end as {event.status}.", remedy=_REMEDY)
            for materialization in event.materializations:
                _check_materialization(event, materialization)
        case DefinitionsChanged():
            for change in event.changes:
                _check_time(change.changed, "DefinitionChange")
        case _:
            pass


def _check_materialization(event: StepEnded, made: Materialization) -> None:
    check_identifier(made.version_id, "version")
    _check_time(made.created, "Materialization")
    if (made.run_id, made.step_key) != (event.run_id, event.step_key):
        raise CatalogError(f"Version {made.version_id} of {made.cell} is of another step or run.", remedy=_REMEDY)
    for source in made.inputs:
        if source.version_id is not None:
            check_identifier(source.version_id, "version")


def _check_time(time: datetime, what: str) -> None:
    if time.utcoffset() != _UTC:
        raise CatalogError(f"A {what} has the time {time.isoformat()}, which is not in UTC.", remedy=_REMEDY)
