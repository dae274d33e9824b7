"""Backfills: many cells, built in runs of bounded size, remembered in the catalog until each of them is done.

A backfill is a set of cells. What became of them is told by the runs that it made: a cell is done when one of them
made it, so a backfill whose process was killed goes on with what is not done, and nothing is built twice.
"""

import json
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from headwater.catalog.config import substitute
from headwater.catalog.definitions.definitions import Definitions
from headwater.catalog.errors import CellTakenError, ConflictError, RunStoppedError, UnknownBackfillError, UsageError
from headwater.catalog.events import BackfillEnded, BackfillResumed, BackfillStarted, Event, StepEnded
from headwater.catalog.ids import new_id
from headwater.catalog.instance import Instance
from headwater.catalog.keys import AssetKey
from headwater.catalog.lineage.asset_graph import AssetGraph
from headwater.catalog.partitions.definition import PartitionKeyRange
from headwater.catalog.processes import this_host, user_name
from headwater.catalog.records import Backfill, BackfillStatus, BackfillTarget, RunStatus, StepStatus
from headwater.materialize.api import carry_out, check_run_config, partition_choice, record_definitions
from headwater.materialize.backfill_signals import (
    Beacon,
    cancel_requests,
    forget_request,
    goes_on,
    is_cancel_requested,
    request_cancel,
    running_backfill,
)
from headwater.materialize.backfill_standing import Attempted, BackfillProgress, Standing, left_out, stand
from headwater.materialize.execution.run import RunOutcome
from headwater.materialize.execution.starting import RunSpec
from headwater.materialize.executors.fit import IN_PROCESS, check_executor
from headwater.materialize.monitoring import recover
from headwater.materialize.partition_choice import PartitionChoice
from headwater.materialize.planner import Plan, PlanGroup, build_plan
from headwater.materialize.reader import Reader
from headwater.materialize.staleness import Cells
from headwater.materialize.waiting_run import Asked, WaitingRun

#: Steps of one run. Between two runs everything is looked at afresh, which takes some milliseconds and, with ten
#: million cells, some seconds.
STEPS_PER_RUN = 2_000
#: Cells of one run, unless a single step has more: what is planned for each of them is in memory while it goes on.
CELLS_PER_RUN = 100_000
#: Runs of one backfill that go on at the same time are fewer.
_NEWEST = 20
#: How a backfill ends for good.
OVER = frozenset({BackfillStatus.SUCCESS, BackfillStatus.CANCELED})


@dataclass(frozen=True, slots=True, kw_only=True)
class BackfillResult:
    """What became of a backfill as far as it was carried out here."""

    #: None where there was nothing to do.
    backfill_id: str | None
    #: STARTED where it was interrupted.
    status: BackfillStatus | None
    progress: BackfillProgress
    runs: tuple[RunOutcome, ...] = ()
    #: What was planned at first.
    plan: Plan | None = None
    #: The signal that interrupted it.
    signal: int | None = None

    @property
    def exit_code(self) -> int:
        """0, or that of the first run that did not succeed; 128 and a signal's number where it was stopped."""
        if self.status in (BackfillStatus.STARTED, BackfillStatus.CANCELED):
            return 128 + (self.signal or 2)
        code = next((run.exit_code for run in self.runs if run.exit_code), 0)
        # Without a failure some cells can still not be built, as what they read does not exist any more.
        return code or int(self.status is BackfillStatus.FAILURE)


@dataclass(frozen=True, slots=True, kw_only=True)
class BackfillSettings:
    """How a backfill is carried out. The catalog remembers all but the listeners, for who resumes it."""

    executor: str | None = None
    max_workers: int | None = None
    steps_per_run: int | None = None
    run_config: Mapping[str, Any] = field(default_factory=dict[str, Any])
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    listener: Callable[[Event], None] | None = None
    #: Told before each run: the backfill, what the run is going to do, and how far all has come.
    on_run: Callable[[str, Plan, BackfillProgress], None] | None = None


def backfill(
    definitions: Definitions,
    *,
    instance: Instance,
    selection: Any = None,
    partition_keys: Iterable[str] = (),
    partition_range: str | tuple[str, str] | PartitionKeyRange | None = None,
    partition_ranges: Iterable[str] = (),
    only: Collection[str] = (),
    upstream: bool = True,
    title: str = "",
    backfill_id: str | None = None,
    settings: BackfillSettings | None = None,
    on_plan: Callable[[Plan], None] | None = None,
) -> BackfillResult:
    """Build the selected partitions, each exactly once, whether they are fresh or not.

    Without keys or a range all partitions of the selected assets are meant. `only` narrows them to those that are
    "missing", "stale" or "failed". With `upstream`, what they depend on that is stale or missing is built before.
    A backfill that stops before its end, killed or interrupted, goes on with `resume_backfill`. `on_plan` is told what
    is going to be built, before anything is. `backfill_id` is a new identifier, made where none is given.

    Raises `UsageError`, `UnknownPartitionError`, `DefinitionError`, `ConfigError`, `CatalogError`; errors of user code
    are recorded.
    """
    settings = settings or BackfillSettings()
    _check(settings)
    config = check_run_config(settings.run_config, definitions)
    recover(instance, definitions)
    settle_requests(instance)
    reader = Reader(definitions.graph_with(config), instance.catalog, instance.clock.now())
    chosen = partition_choice(None, partition_keys, partition_range, False)
    choice = replace(chosen, ranges=(*chosen.ranges, *partition_ranges))
    found = plan_backfill(reader, selection, choice, only=only, upstream=upstream)
    if on_plan is not None:
        on_plan(found)
    if not found:
        record_definitions(instance, reader.graph)
        return BackfillResult(backfill_id=None, status=None, progress=BackfillProgress(total=0), plan=found)
    now = instance.clock.now()
    backfill_id = backfill_id or new_id(now)
    instance.catalog.append(
        [
            BackfillStarted(
                time=now,
                backfill_id=backfill_id,
                targets=tuple(_targets(found.groups)),
                title=title,
                selection=None if selection is None else str(selection),
                options={"only": sorted(only), **_options(settings)},
                tags=dict(settings.tags),
                user=user_name(),
                host=this_host(),
                pid=os.getpid(),
            )
        ],
        by=backfill_id,
    )
    return _Backfiller(definitions, instance, find_backfill(instance, backfill_id), settings).run(found)


def plan_backfill(
    reader: Reader, selection: Any, choice: PartitionChoice, *, only: Collection[str] = (), upstream: bool = True
) -> Plan:
    """What `backfill` would build. Raises `UsageError`, `UnknownPartitionError`."""
    keys = reader.select(selection)
    narrowed = PartitionChoice(
        keys=choice.keys, ranges=choice.ranges, all=not (choice.keys or choice.ranges), only=frozenset(only)
    )
    targets = reader.targets(keys, narrowed)
    strict = bool(choice.keys or choice.ranges)
    return build_plan(reader.edges, reader.staleness, targets, force=True, upstream=upstream, strict=strict)


def resume_backfill(
    definitions: Definitions, backfill_id: str, *, instance: Instance, settings: BackfillSettings | None = None
) -> BackfillResult:
    """Go on with a backfill that was killed, interrupted or failed: build what is not done, what failed once more.

    What `settings` leave open is as it was when it began.

    Raises `UnknownBackfillError`, `ConflictError` for one that is done or was canceled, and `UsageError` where it
    needs a configuration that could not be written down.
    """
    given = settings or BackfillSettings()
    _check(given)
    recover(instance, definitions)
    settle_requests(instance)
    found = find_backfill(instance, backfill_id)
    if found.status in OVER:
        ended = "was canceled" if found.status is BackfillStatus.CANCELED else "is done"
        raise ConflictError(
            f"The backfill {found.backfill_id} {ended}.",
            remedy="Start another one: `headwater backfill`.",
        )
    if goes_on(instance.home, found):
        running = running_backfill(instance.home, found.backfill_id) or found
        raise ConflictError(
            f"The backfill {found.backfill_id} goes on in process {running.pid} on {running.host}.",
            remedy="`headwater backfill show` says how far it is.",
        )
    resumed = BackfillResumed(
        time=instance.clock.now(),
        backfill_id=found.backfill_id,
        user=user_name(),
        host=this_host(),
        pid=os.getpid(),
    )
    return _Backfiller(definitions, instance, found, _remembered(found, given)).run(first_event=resumed)


def cancel_backfill(instance: Instance, backfill_id: str) -> Backfill:
    """End a backfill for good: nothing more of it is built. One that is done or canceled stays as it is.

    One that this process carries out stops when its running steps have ended.

    Raises `UnknownBackfillError`.
    """
    found = find_backfill(instance, backfill_id)
    _cancel(instance, found.backfill_id)
    # Where it goes on in another thread of this process, its run stops too.
    if request_cancel(instance.home, found.backfill_id) is None:
        forget_request(instance.home, found.backfill_id)
    return find_backfill(instance, found.backfill_id)


def find_backfill(instance: Instance, backfill_id: str) -> Backfill:
    """A backfill by its identifier, or the beginning of it. Raises `UnknownBackfillError`."""
    found = instance.catalog.backfill(backfill_id)
    if found is None:
        raise UnknownBackfillError(backfill_id, [one.backfill_id for one in instance.catalog.backfills(limit=20)])
    return found


def settle_requests(instance: Instance) -> None:
    """Cancel what somebody asked to cancel, where the process that was asked died before it did."""
    for backfill_id in cancel_requests(instance.home):
        found = instance.catalog.backfill(backfill_id)
        if found is not None and found.status not in OVER:
            _cancel(instance, backfill_id)
        forget_request(instance.home, backfill_id)


def _cancel(instance: Instance, backfill_id: str) -> None:
    canceled = BackfillStatus.CANCELED
    instance.catalog.append(
        [BackfillEnded(time=instance.clock.now(), backfill_id=backfill_id, status=canceled, error=None)]
    )


def _check(settings: BackfillSettings) -> None:
    check_executor(settings.executor or IN_PROCESS)
    if settings.steps_per_run is not None and settings.steps_per_run < 1:
        raise UsageError("A run has at least one step.", remedy="Choose steps_per_run of at least 1.")


def _options(settings: BackfillSettings) -> dict[str, Any]:
    """What of the settings the catalog remembers, as plain JSON data: references to the environment, no values."""
    options: dict[str, Any] = {
        "executor": settings.executor,
        "max_workers": settings.max_workers,
        "steps_per_run": settings.steps_per_run,
    }
    plain = substitute(settings.run_config, lambda reference, _: {"env": reference.name})
    try:
        options["run_config"] = json.loads(json.dumps(plain, allow_nan=False))
    except (TypeError, ValueError):
        options["needs_run_config"] = True
    return options


def _remembered(found: Backfill, given: BackfillSettings) -> BackfillSettings:
    """The settings of a backfill that goes on."""
    old = found.options
    if old.get("needs_run_config") and not given.run_config:
        raise UsageError(
            f"The backfill {found.backfill_id} was started with a configuration that JSON has no form for.",
            remedy="Give it again: --config FILE, or settings with run_config.",
        )
    return replace(
        given,
        executor=given.executor or old.get("executor"),
        max_workers=given.max_workers or old.get("max_workers"),
        steps_per_run=given.steps_per_run or old.get("steps_per_run"),
        run_config=given.run_config or old.get("run_config") or {},
        tags={**found.tags, **given.tags},
    )


class _Backfiller:
    """Carries out one backfill, run by run."""

    def __init__(
        self, definitions: Definitions, instance: Instance, record: Backfill, settings: BackfillSettings
    ) -> None:
        self.definitions = definitions
        self.instance = instance
        self.record = record
        self.backfill_id = record.backfill_id
        self.settings = settings
        self.config = check_run_config(settings.run_config, definitions)
        self.graph: AssetGraph = definitions.graph_with(self.config)
        self.started = instance.clock.now()
        #: How many cells were done when this process began, once that is known.
        self.before: int | None = None
        self.attempted = Attempted()
        self.runs: list[RunOutcome] = []
        self.run_ids: list[str] = []
        self.progress = BackfillProgress(total=record.total)
        #: Its newest runs when it was looked at last, whoever made them.
        self.seen: list[tuple[str, RunStatus]] = []
        #: What the run that goes on made and lost so far, by asset.
        self.made = Counter[AssetKey]()
        self.lost = Counter[AssetKey]()

    def run(self, first: Plan | None = None, *, first_event: Event | None = None) -> BackfillResult:
        """Build what is open until nothing is; `first_event` is recorded once it is known that this can go on."""
        with Beacon(self.instance.home, self.instance.clock, self.record, self.instance.catalog) as self.beacon:
            self.beacon.show(self.progress, ())
            reader, standing = self._look()
            self.before = self.progress.done
            plan = self._plan(reader, standing)
            if first_event is not None:
                elsewhere = self.record.status is BackfillStatus.STARTED and self.record.host != this_host()
                gone = [self.backfill_id] if elsewhere else []
                self.instance.catalog.append([first_event], by=self.backfill_id, lapsed=gone)
            while plan and not self._canceled():
                outcome = self._execute(reader, plan)
                reader, standing = self._look()
                if outcome is None:
                    plan = self._plan(reader, standing)
                    continue
                if outcome.signal is not None and standing.open:
                    return self._result(BackfillStatus.STARTED, first, outcome.signal)
                if self._canceled():
                    break
                plan = self._plan(reader, standing)
        if self._canceled():
            return self._end(BackfillStatus.CANCELED, first)
        lost = self.progress.failed or self.progress.blocked
        return self._end(BackfillStatus.FAILURE if lost else BackfillStatus.SUCCESS, first)

    def _look(self) -> tuple[Reader, Standing]:
        """Everything as it is now."""
        everything = Reader(self.graph, self.instance.catalog, self.instance.clock.now())
        reader = everything.within([one.asset for one in self.record.targets if one.asset in self.graph])
        self.seen = self._runs()  # before what they made
        made = self.instance.catalog.backfill_cells(self.backfill_id)
        standing = stand(reader.edges, self.record, made, self.attempted)
        self.made.clear()
        self.lost.clear()
        self.progress = replace(standing.progress, remaining=self._remaining(standing.progress))
        return reader, standing

    def _plan(self, reader: Reader, standing: Standing) -> Plan:
        """What the next run builds of what is open."""
        plan = build_plan(reader.edges, reader.staleness, standing.open, force=True, upstream=False)
        impossible, nobodys = left_out(standing, plan)
        self.progress = replace(
            self.progress, blocked=self.progress.blocked + impossible, absent=self.progress.absent + nobodys
        )
        return self._limited(reader, plan)

    def _limited(self, reader: Reader, plan: Plan) -> Plan:
        """The beginning of a plan: no more steps and cells than one run has."""
        steps, cells = self.settings.steps_per_run or STEPS_PER_RUN, CELLS_PER_RUN
        if plan.step_count <= steps and sum(_size(group) for group in plan.groups) <= cells:
            return plan
        targets: dict[AssetKey, Cells] = {}
        for group in plan.groups:
            of_step = _size(group) if group.batch is None else group.batch * len(group.assets)
            count = min(group.steps, steps, cells // of_step if targets else max(1, cells // of_step))
            if not count:
                break
            subset = group.partitions
            chosen: Cells = True
            if subset is not None:
                end = len(subset) if group.batch is None else count * group.batch
                chosen = subset.partitions.subset_of_ordinals(subset.ordinals(0, end)).mask()
            for key, own in zip(group.assets, group.subsets, strict=True):
                targets[key] = chosen if own is None else chosen & own.mask()
            steps, cells = steps - count, cells - count * of_step
            if count < group.steps:
                break  # what comes after it may read the rest
        return build_plan(reader.edges, reader.staleness, targets, force=True, upstream=False)

    def _execute(self, reader: Reader, plan: Plan) -> RunOutcome | None:
        """Make one run, and note what it lost; None where there was nothing left for it when its turn came."""
        asked = Asked(selection=self.record.selection, tags=self.settings.tags, backfill_id=self.backfill_id)
        prepared: RunSpec | None = self._prepare(reader, plan, WaitingRun(self.instance, asked))

        def prepare(_: WaitingRun) -> RunSpec | None:
            nonlocal prepared
            if self._canceled():
                return None
            request, prepared = prepared, None
            if request is None:  # it has waited
                now, standing = self._look()
                left = self._plan(now, standing)
                request = self._prepare(now, left, place) if left else None
            return request

        place = prepared.place
        outcome = carry_out(place, prepare, tidy=self._tidy)
        if outcome is None:
            return None
        self.runs.append(outcome)
        self.run_ids.append(outcome.run_id)
        for step in outcome.steps:
            for cell in step.cells:
                if cell.status in (StepStatus.FAILURE, StepStatus.SKIPPED):
                    failed = cell.status is StepStatus.FAILURE
                    noted = self.attempted.failed if failed else self.attempted.skipped
                    noted.setdefault(cell.asset, set()).add(cell.partition)
        return outcome

    def _runs(self) -> list[tuple[str, RunStatus]]:
        """The newest runs of this backfill that began, with how they stand: another list where any began or ended."""
        runs = self.instance.catalog.runs(backfill=self.backfill_id, limit=_NEWEST)
        return [(run.run_id, run.status) for run in runs if run.started is not None]

    def _check_unchanged(self) -> None:
        """Raise `CellTakenError` where another run of this backfill began or ended since it was looked at.

        Two who resume it at the same moment do not see each other, and must not build what the other one has built.
        """
        runs = self._runs()
        if runs != self.seen:
            taken_by, _ = next(one for one in runs if one not in self.seen)
            raise CellTakenError(
                f"Run {taken_by} builds cells of the backfill {self.backfill_id} too.",
                run_id=taken_by,
                remedy="Look again at what is left.",
            )

    def _tidy(self) -> None:
        """What is done now and then while it waits."""
        if self._canceled():
            raise RunStoppedError("The backfill was canceled.", remedy="")
        recover(self.instance, self.definitions)

    def _prepare(self, reader: Reader, plan: Plan, place: WaitingRun) -> RunSpec:
        """What the next run is told."""
        self.beacon.show(self.progress, self.run_ids)
        if self.settings.on_run is not None:
            self.settings.on_run(self.backfill_id, plan, self.progress)
        return RunSpec(
            plan=plan,
            definitions=self.definitions,
            graph=self.graph,
            states=reader.cells,
            table=reader.table,
            run_config=self.config,
            executor=check_executor(self.settings.executor or self.definitions.executor or IN_PROCESS),
            max_workers=self.settings.max_workers,
            place=place,
            check=self._check_unchanged,
            listener=self._watch,
            stop_asked=self._canceled,
        )

    def _watch(self, event: Event) -> None:
        """Hand an event on, and report now and then how far all has come."""
        if self.settings.listener is not None:
            self.settings.listener(event)
        if not isinstance(event, StepEnded):
            return
        for cell in event.cells:
            if cell.status in (StepStatus.SUCCESS, StepStatus.VERIFIED):
                self.made[cell.asset] += 1
            elif cell.status is StepStatus.FAILURE:
                self.lost[cell.asset] += 1
        if self.beacon.due:
            self.beacon.show(self._meanwhile(), [*self.run_ids, event.run_id])

    def _meanwhile(self) -> BackfillProgress:
        """How far all has come, within a run."""
        now = replace(
            self.progress,
            done=self.progress.done + self.made.total(),
            failed=self.progress.failed + self.lost.total(),
            assets=tuple(
                replace(one, done=one.done + self.made[one.key], failed=one.failed + self.lost[one.key])
                for one in self.progress.assets
            ),
        )
        return replace(now, remaining=self._remaining(now))

    def _remaining(self, progress: BackfillProgress) -> timedelta | None:
        made = 0 if self.before is None else progress.done - self.before
        if made <= 0:
            return None
        return (self.instance.clock.now() - self.started) * (progress.open / made)

    def _canceled(self) -> bool:
        return self.beacon.is_over or is_cancel_requested(self.instance.home, self.backfill_id)

    def _result(self, status: BackfillStatus, plan: Plan | None, signal: int | None = None) -> BackfillResult:
        return BackfillResult(
            backfill_id=self.backfill_id,
            status=status,
            progress=self.progress,
            runs=tuple(self.runs),
            plan=plan,
            signal=signal,
        )

    def _end(self, status: BackfillStatus, plan: Plan | None) -> BackfillResult:
        now = self.instance.clock.now()
        self.instance.catalog.append([BackfillEnded(time=now, backfill_id=self.backfill_id, status=status, error=None)])
        forget_request(self.instance.home, self.backfill_id)
        self.progress = replace(self.progress, remaining=None)
        # Another thread may have canceled it just before.
        return self._result(find_backfill(self.instance, self.backfill_id).status, plan)


def _size(group: PlanGroup) -> int:
    """How many cells its steps build."""
    return sum(1 if subset is None else len(subset) for subset in group.subsets)


def _targets(groups: Iterable[PlanGroup]) -> Iterator[BackfillTarget]:
    for group in groups:
        for key, subset in zip(group.assets, group.subsets, strict=True):
            yield BackfillTarget(
                asset=key,
                cells=1 if subset is None else len(subset),
                partitions=None if subset is None else subset.to_json(),
            )
