"""Which events a storage accepts, and which of them still change anything. The same for every storage.

The life of a run is RunQueued and RunMoved, if it has to wait, then RunStarted, then anything, then RunEnded; of a
step SlotClaimed, StepStarted, StepRetried, StepEnded. What comes after the end of a step or of its run is late: it
goes to the log and changes nothing else, so that a worker that was given up cannot move what others have built upon
since. The life of a backfill is BackfillStarted, then BackfillEnded and BackfillResumed until it ended as SUCCESS or
CANCELED; what comes after is late too. The life of a schedule or sensor is AutomationMoved, and TickEnded in the order
of the instants: whoever writes one says up to when everything was decided when it looked, and is refused where that is
not so any more. Daemons are numbered by epochs: each is DaemonStarted and maybe DaemonStopped, and over when the next
starts. Facts are likewise: FactChanged says what the fact was.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from headwater.catalog.errors import CatalogError, ConflictError
from headwater.catalog.events import (
    AutomationMoved,
    BackfillEnded,
    BackfillResumed,
    BackfillStarted,
    DaemonStarted,
    DaemonStopped,
    DefinitionsChanged,
    Event,
    FactChanged,
    RunEnded,
    RunMoved,
    RunQueued,
    RunStarted,
    SlotClaimed,
    StepEnded,
    TickEnded,
    TicksPurged,
)
from headwater.catalog.keys import AssetKey
from headwater.catalog.records import (
    BUSY,
    OPEN,
    Automation,
    AutomationStatus,
    BackfillStatus,
    Daemon,
    Fact,
    FactTopic,
    Materialization,
    RunStatus,
    StepStatus,
    TickStatus,
)
from headwater.catalog.storage.identifiers import check_identifier

#: How a backfill ends for good.
_OVER = frozenset({BackfillStatus.SUCCESS, BackfillStatus.CANCELED})
#: From which statuses a run comes to another one, but for its end.
_MOVES = {
    RunStatus.QUEUED: frozenset({RunStatus.QUEUED, RunStatus.STARTING}),
    RunStatus.STARTING: frozenset({RunStatus.QUEUED}),
    RunStatus.CANCELING: BUSY,
}
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
    status: RunStatus = RunStatus.STARTED

    @property
    def ended(self) -> bool:
        """Whether it is over."""
        return self.status.is_over


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
    #: All schedules, by name: they are few.
    find_automations: Callable[[], Mapping[str, Automation]]
    #: The same for the last daemon.
    find_daemon: Callable[[], Daemon | None]
    #: Those facts of a topic that there are, of some names.
    find_facts: Callable[[FactTopic, Collection[str]], Mapping[str, Fact]]
    next_number: int
    next_backfill: int
    #: How often anything was claimed: see `RunStarted.claims_before`.
    claims: int
    _runs: dict[str, RunProgress] = field(default_factory=dict[str, RunProgress])
    #: What to take back when the transaction fails.
    _started: list[str] = field(default_factory=list[str])
    _backfills: dict[str, BackfillProgress] = field(default_factory=dict[str, BackfillProgress])
    _started_backfills: list[str] = field(default_factory=list[str])
    #: Backfills that moved on, with the status before.
    _moved: list[tuple[BackfillProgress, BackfillStatus]] = field(
        default_factory=list[tuple[BackfillProgress, BackfillStatus]]
    )
    #: Runs that moved on, as they were before.
    _moved_runs: list[tuple[str, RunProgress, RunStatus, dict[str, StepProgress]]] = field(
        default_factory=list[tuple[str, RunProgress, RunStatus, dict[str, StepProgress]]]
    )
    _ended_steps: list[StepProgress] = field(default_factory=list[StepProgress])
    _claimed: int = 0
    _automations: dict[str, Automation] = field(default_factory=dict[str, Automation])
    _has_automations: bool = False
    #: Runs that the catalog does not have, as somebody looked, in this transaction.
    absent: set[str] = field(default_factory=set[str])
    #: Schedules that changed, as they were before.
    _before: list[tuple[str, Automation | None]] = field(default_factory=list[tuple[str, Automation | None]])
    #: The last daemon, and the one before this transaction, each where it was asked after.
    _daemon: list[Daemon | None] = field(default_factory=list[Daemon | None])
    _daemon_before: list[Daemon | None] = field(default_factory=list[Daemon | None])
    #: Facts that this transaction changes, or is going to; None for those that there were not.
    _facts: dict[tuple[FactTopic, str], Fact | None] = field(default_factory=dict[tuple[FactTopic, str], Fact | None])

    def queue(self, event: RunQueued) -> RunProgress:
        """Take in a run that waits for its turn. Raises `CatalogError` for one that the catalog has already."""
        if self._find(event.run_id) is not None:
            raise _known(event.run_id)
        return self._add(event, {}, RunStatus.QUEUED)

    def start(self, event: RunStarted) -> RunProgress:
        """Take in that a run begins.

        Raises `CatalogError` for one that began already, `ConflictError` for one that was taken out of the queue, and
        where `claims_before` is not met.
        """
        steps = {step.step_key: StepProgress(number) for number, step in enumerate(event.steps)}
        if len(steps) < len(event.steps):
            raise CatalogError(f"Run {event.run_id} plans two steps of the same name.", remedy=_REMEDY)
        run = self._find(event.run_id)
        if run is not None and run.status not in (RunStatus.QUEUED, RunStatus.STARTING):
            raise _known(event.run_id) if run.steps else _not_waiting(event.run_id, run.status)
        self.claim(event)
        if run is None:
            return self._add(event, steps, RunStatus.STARTED)
        self._move(event.run_id, run, RunStatus.STARTED)
        run.steps = steps
        return run

    def move(self, event: RunMoved) -> bool:
        """Take in that a run waits or stops; False when that comes late.

        Raises `ConflictError` where the run is not what it was thought to be, and where `claims_before` is not met.
        """
        run = self.run(event.run_id)
        if event.status is RunStatus.CANCELING and run.ended:
            return False
        if run.status not in _MOVES[event.status]:
            raise _not_waiting(event.run_id, run.status)
        if event.status is RunStatus.STARTING:
            self.claim(event)
        self._move(event.run_id, run, event.status)
        return True

    def claim(self, event: RunStarted | RunMoved | SlotClaimed) -> None:
        """Take in a claim. Raises `ConflictError` where others claimed something since whoever made it looked."""
        if event.claims_before not in (None, self.claims):
            raise ConflictError(
                f"Run {event.run_id} looked when there were {event.claims_before} claims, and there are {self.claims}.",
                remedy="Look again at what others do.",
            )
        self.claims += 1
        self._claimed += 1

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
        if isinstance(event, RunEnded):
            if run.ended:
                return False
            self._move(event.run_id, run, event.status)
            return True
        step = self.step(event.run_id, event.step_key)
        if run.ended or step.ended:
            return False
        step.ended = True
        self._ended_steps.append(step)
        return True

    def is_over(self, identifier: str) -> bool:
        """Whether this is a run or backfill that has ended for good, or a daemon; what is not there yet has not."""
        if identifier.startswith("daemon-"):
            daemon, epoch = self.daemon(), int(identifier.removeprefix("daemon-"))
            return daemon is not None and (daemon.epoch, daemon.ended is not None) > (epoch, False)
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

    def automation(self, name: str) -> Automation | None:
        """What a schedule is by now; None for one that was never seen."""
        if not self._has_automations:
            self._automations = {**self.find_automations(), **self._automations}
            self._has_automations = True
        return self._automations.get(name)

    def move_automation(self, event: AutomationMoved) -> Automation:
        """Take in that a schedule is started or stopped, or seen; returns what it is from now on.

        Raises `ConflictError` where somebody else moved it since `after` was read.
        """
        known = self.automation(event.name)
        if (None if known is None else known.until) != event.after:
            raise _decided(event.name)
        ticked = None if known is None else known.ticked
        until = event.until if ticked is None else max(event.until, ticked)
        moved = Automation(
            name=event.name,
            status=event.status,
            until=until,
            ticked=ticked,
            cursor=event.cursor,
            last_run_key=None if known is None else known.last_run_key,
        )
        return self._keep(moved, known)

    def tick(self, event: TickEnded) -> Automation:
        """Take in a tick; returns what its schedule is from now on.

        Raises `ConflictError` where the instant was decided by somebody else, or the schedule was stopped, and
        `CatalogError` for a schedule that was never seen.
        """
        known = self.automation(event.name)
        if known is None:
            raise CatalogError(f"The schedule '{event.name}' was never seen.", remedy=_REMEDY)
        if known.until != event.after or event.at <= known.until or known.status is AutomationStatus.STOPPED:
            raise _decided(event.name)
        ticked = replace(
            known,
            until=event.at,
            ticked=event.at,
            cursor=known.cursor if event.cursor is None else event.cursor,
            last_run_key=next(reversed([*event.run_keys]), known.last_run_key),
            failures=known.failures + 1 if event.status is TickStatus.FAILURE else 0,
        )
        return self._keep(ticked, known)

    def daemon(self) -> Daemon | None:
        """The last daemon; None where there never was one."""
        if not self._daemon:
            self._daemon.append(self.find_daemon())
        return self._daemon[0]

    def start_daemon(self, event: DaemonStarted) -> Daemon:
        """Take in a new daemon. Raises `ConflictError` where another one was faster."""
        known = self.daemon()
        if event.epoch != (1 if known is None else known.epoch + 1):
            raise ConflictError("Another process became the daemon meanwhile.", remedy="Look again who it is.")
        return self._keep_daemon(
            Daemon(
                epoch=event.epoch,
                started=event.time,
                user=event.user,
                host=event.host,
                pid=event.pid,
                start_ticks=event.start_ticks,
            )
        )

    def stop_daemon(self, event: DaemonStopped) -> Daemon | None:
        """Take in that a daemon gives its place back; None when that comes late."""
        known = self.daemon()
        if known is None or known.epoch != event.epoch or known.ended is not None:
            return None
        return self._keep_daemon(replace(known, ended=event.time))

    def find_out(self, events: Iterable[Event]) -> None:
        """Look up the facts that some events are going to change, all at once."""
        for topic in FactTopic:
            names = [one.name for one in events if isinstance(one, FactChanged) and one.topic is topic]
            new = [name for name in names if (topic, name) not in self._facts]
            found: Mapping[str, Fact] = self.find_facts(topic, new) if new else {}
            self._facts |= {(topic, name): found.get(name) for name in new}

    def change_fact(self, event: FactChanged) -> Fact:
        """Take in a fact; returns it. Raises `ConflictError` where it is not what it was when somebody looked."""
        key = (event.topic, event.name)
        self.find_out([event])
        known = self._facts[key]
        if (None if known is None else known.value) != event.before:
            raise ConflictError(
                f"Somebody else found out about '{event.name}' meanwhile.", remedy="Look again at what is known of it."
            )
        fact = Fact(topic=event.topic, name=event.name, value=event.value, changed=event.time)
        self._facts[key] = fact
        return fact

    def commit(self) -> None:
        """The transaction stands. Runs and backfills that are over are forgotten."""
        for run_id, run, *_ in self._moved_runs:
            if run.ended:
                self._runs.pop(run_id, None)
        if any(backfill.status in _OVER for backfill, _ in self._moved):
            self._backfills = {key: kept for key, kept in self._backfills.items() if kept.status not in _OVER}
        self._forget()

    def rollback(self) -> None:
        """The transaction failed: everything since the last commit did not happen."""
        for step in self._ended_steps:
            step.ended = False
        for _, run, status, steps in reversed(self._moved_runs):
            run.status, run.steps = status, steps
        for backfill, status in reversed(self._moved):
            backfill.status = status
        for run_id in self._started:
            del self._runs[run_id]
        for backfill_id in self._started_backfills:
            del self._backfills[backfill_id]
        self.next_number -= len(self._started)
        self.next_backfill -= len(self._started_backfills)
        self.claims -= self._claimed
        for name, automation in reversed(self._before):
            if automation is None:
                del self._automations[name]
            else:
                self._automations[name] = automation
        if self._daemon_before:
            self._daemon = self._daemon_before[:1]
        self._forget()

    def _forget(self) -> None:
        self._facts.clear()
        self._started.clear()
        self._moved_runs.clear()
        self._ended_steps.clear()
        self._claimed = 0
        self._started_backfills.clear()
        self._moved.clear()
        self._before.clear()
        self._daemon_before.clear()
        self.absent.clear()

    def _keep(self, automation: Automation, before: Automation | None) -> Automation:
        self._before.append((automation.name, before))
        self._automations[automation.name] = automation
        return automation

    def _keep_daemon(self, daemon: Daemon) -> Daemon:
        self._daemon_before += self._daemon
        self._daemon = [daemon]
        return daemon

    def _add(self, event: RunQueued | RunStarted, steps: dict[str, StepProgress], status: RunStatus) -> RunProgress:
        if event.backfill_id is not None:
            self.backfill(event.backfill_id)
        run = self._runs[event.run_id] = RunProgress(self.next_number, steps, status)
        self.next_number += 1
        self._started.append(event.run_id)
        return run

    def _move(self, run_id: str, run: RunProgress, status: RunStatus) -> None:
        self._moved_runs.append((run_id, run, run.status, run.steps))
        run.status = status

    def _find_backfill(self, backfill_id: str) -> BackfillProgress | None:
        backfill = self._backfills.get(backfill_id)
        if backfill is None:
            backfill = self.find_backfill(backfill_id)
            if backfill is not None:
                self._backfills[backfill_id] = backfill
        return backfill

    def _find(self, run_id: str) -> RunProgress | None:
        run = self._runs.get(run_id)
        if run is None and run_id not in self.absent:
            run = self.find(run_id)
            if run is not None:
                self._runs[run_id] = run
        return run


def _known(run_id: str) -> CatalogError:
    return CatalogError(f"Run {run_id} is in the catalog already.", remedy=_REMEDY)


def _not_waiting(run_id: str, status: RunStatus) -> ConflictError:
    return ConflictError(f"Run {run_id} is {status} by now.", remedy=f"headwater run show {run_id} tells more.")


def _decided(name: str) -> ConflictError:
    return ConflictError(
        f"Somebody else decided about '{name}' meanwhile.", remedy=f"headwater ticks {name} shows what was decided."
    )


def check(event: Event) -> None:
    """Raise `CatalogError` for an event that no catalog can hold, whatever came before it."""
    _check_time(event.time, type(event).__name__)
    match event:
        case RunQueued():
            _check_run(event)
            _check_other_run(event.behind)
        case RunMoved():
            if event.status not in _MOVES:
                raise CatalogError(f"Run {event.run_id} cannot be moved to {event.status}.", remedy=_REMEDY)
            _check_other_run(event.behind)
        case RunStarted():
            _check_run(event)
            for step in event.steps:
                for cell in step.cells:
                    check_identifier(cell.version_id, "version")
        case BackfillStarted():
            check_identifier(event.backfill_id, "backfill")
        case BackfillEnded(status=BackfillStatus.STARTED):
            raise CatalogError(f"Backfill {event.backfill_id} cannot end as {event.status}.", remedy=_REMEDY)
        case RunEnded():
            if event.status in OPEN:
                raise CatalogError(f"Run {event.run_id} cannot end as {event.status}.", remedy=_REMEDY)
        case StepEnded():
            if event.status in _OPEN_STEP:
                raise CatalogError(f"Step '{event.step_key}' cannot end as {event.status}.", remedy=_REMEDY)
            for materialization in event.materializations:
                _check_materialization(event, materialization)
        case DefinitionsChanged():
            for change in event.changes:
                _check_time(change.changed, "DefinitionChange")
        case AutomationMoved():
            _check_times(event, event.until, event.after)
        case TicksPurged():
            _check_times(event, event.before)
        case FactChanged() if event.topic.of_assets:
            AssetKey(event.name)  # or else nobody could read the log
        case TickEnded():
            _check_times(event, event.at, event.after)
            for run_id in (*event.run_ids, *event.run_keys.values()):
                check_identifier(run_id, "run")
        case _:
            pass


def _check_times(event: Event, *times: datetime | None) -> None:
    for time in times:
        if time is not None:
            _check_time(time, type(event).__name__)


def _check_run(event: RunQueued | RunStarted) -> None:
    check_identifier(event.run_id, "run")
    if event.backfill_id is not None:
        check_identifier(event.backfill_id, "backfill")
    _check_other_run(event.parent_run_id)
    _check_other_run(event.root_run_id)


def _check_other_run(run_id: str | None) -> None:
    if run_id is not None:
        check_identifier(run_id, "run")


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
