"""The coordinator of a run: the only one that writes to the catalog.

It asks `RunState` what to do, has an executor do it, and records what came of it. A step's materializations are
recorded with the end of the step, in one transaction; what depends on it may start once its files are durable, and
is recorded after it. Results are settled in whatever thread brings them, so that none waits for a step that computes:
one lock keeps decisions and events in order.
"""

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from headwater.catalog.definitions.definitions import Definitions
from headwater.catalog.definitions.hooks import HookDefinition, HookEvent
from headwater.catalog.errors import ConflictError, RunOverError, TimedOutError
from headwater.catalog.events import (
    AssetDefinition,
    DefinitionsChanged,
    Event,
    LogMessage,
    RunEnded,
    RunStarted,
    StepEnded,
    StepRetried,
    StepStarted,
)
from headwater.catalog.ids import new_id
from headwater.catalog.instance import Instance
from headwater.catalog.keys import AssetKey
from headwater.catalog.lineage.asset_graph import AssetGraph
from headwater.catalog.lineage.node import changed_parts, node_to_json
from headwater.catalog.metadata import metadata_line
from headwater.catalog.processes import start_ticks, this_host, user_name
from headwater.catalog.records import (
    Cell,
    DefinitionChange,
    ErrorRecord,
    Fingerprint,
    LogSlice,
    Materialization,
    PlannedCell,
    PlannedStep,
    RunStatus,
    StepCell,
    StepStatus,
)
from headwater.catalog.storage.base import CellState, cell_state
from headwater.io.compute_logs import ComputeLogManager, compute_log_manager
from headwater.materialize.conflict import refuse_taken
from headwater.materialize.execution.capture import OutputCapture
from headwater.materialize.execution.context import RunInfo
from headwater.materialize.execution.hooks import HookContext, call_hook
from headwater.materialize.execution.interrupt import Interruption
from headwater.materialize.execution.pooled import PooledSteps, pools_of
from headwater.materialize.execution.python_logs import level_of, logged_by, python_logging
from headwater.materialize.execution.recorder import Recorder
from headwater.materialize.execution.redaction import Redaction
from headwater.materialize.execution.resources import Resources
from headwater.materialize.execution.state import Decision, Left, RunState, worst
from headwater.materialize.execution.step import (
    CANCELED,
    Attempt,
    CellFailure,
    StepEnvironment,
    StepFailure,
    StepOutput,
    StepResult,
    StepSpec,
    attempt_step,
    describe_failure,
)
from headwater.materialize.execution.versions import Versions
from headwater.materialize.executors.base import Executor
from headwater.materialize.executors.fit import PROCESSES, THREADS, check_fit
from headwater.materialize.executors.in_process import InProcessExecutor, ThreadExecutor
from headwater.materialize.io_managers import IOManagers
from headwater.materialize.monitoring import max_runtime, too_long
from headwater.materialize.planner import Plan, PlanCell, PlanStep
from headwater.materialize.queue import check_turn, open_runs
from headwater.materialize.reader import UNFINISHED
from headwater.materialize.waiting_run import WaitingRun

if TYPE_CHECKING:
    from headwater.materialize.cell_table import CellTable
    from headwater.materialize.executors.processes import Pool


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """Everything that a run is told."""

    plan: Plan
    definitions: Definitions
    graph: AssetGraph
    #: The current state of unpartitioned assets.
    states: Mapping[Cell, CellState]
    #: That of partitions; needed where the plan holds any.
    table: "CellTable | None" = None
    run_config: Mapping[str, Any] = field(default_factory=dict[str, Any])
    #: `in_process`, or `threads` or `processes` with `max_workers` of them.
    executor: str = "in_process"
    max_workers: int | None = None
    #: What it is about, and where it stands in the queue.
    place: WaitingRun
    #: Whether it builds what another run builds already, rather than raise `CellTakenError`; the last to end wins.
    supersede: bool = False
    #: Called just before it begins, when nobody else can begin unnoticed: may raise `CellTakenError`.
    check: Callable[[], None] = lambda: None
    #: Asked now and then whether somebody wants the run to be canceled.
    stop_asked: Callable[[], bool] = lambda: False
    #: Told each event as it happens, before it is durable: one at a time, from any thread.
    listener: Callable[[Event], None] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOutcome:
    """What became of a run. Everything in it is durable."""

    run_id: str
    status: RunStatus
    steps: tuple[StepEnded, ...]
    #: 0, or the exit code of the first failure; 130 or 143 for a run that a signal ended.
    exit_code: int
    #: The first failure's exception, where it was raised in this process.
    exception: BaseException | None = None
    #: The signal that asked it to stop, even if nothing was left to stop.
    signal: int | None = None
    #: Why it failed, where that is not what a step failed of.
    error: ErrorRecord | None = None


def execute(request: RunRequest, instance: Instance) -> RunOutcome:
    """Run a plan. User code's errors are recorded, not raised; errors of catalog and configuration are raised.

    Raises `CellTakenError` when another run that goes on builds something of it, `QueuedError` when limits do not let
    it begin, and `RunStoppedError` when it was canceled before, having done nothing.
    """
    return _Coordinator(request, instance).run()


class _Coordinator:
    def __init__(self, request: RunRequest, instance: Instance) -> None:
        self.request = request
        self.instance = instance
        self.clock = instance.clock
        self.place = request.place
        self.run_id = self.place.run_id
        self.info = RunInfo(run_id=self.run_id, tags=self.place.asked.tags)
        self.state = RunState(
            request.plan,
            request.graph,
            {cell.asset: state for cell, state in request.states.items()},
            request.table,
        )
        self.numbers = {step.key: number for number, step in enumerate(request.plan.steps)}
        #: Each step of which something is computed: what it computes, and what of it is left alone.
        self.decisions: dict[str, Decision] = {}
        #: What attempts made of steps that are tried again for the rest.
        self.kept: dict[str, list[StepOutput]] = {}
        #: What of such steps is not tried again.
        self.given_up: dict[str, list[CellFailure]] = {}
        self.ended: list[StepEnded] = []
        self.exit_code = 0
        self.exception: BaseException | None = None
        #: Held while the state of the run changes and while events are handed on.
        self.lock = threading.RLock()
        self.executor: Executor | None = None
        self.in_flight = 0
        #: The attempts that compute right now.
        self.running: dict[str, StepSpec] = {}
        #: What the attempts at each step printed.
        self.printed: dict[str, tuple[LogSlice, ...]] = {}
        #: The steps of which there was an attempt.
        self.attempted: set[str] = set()
        self.pooled = PooledSteps(instance, self.run_id, self._admit, self._say_waits, self._wake)
        #: Hooks to call when the lock is free, and with what.
        self.hooks: list[tuple[HookDefinition, HookContext]] = []
        #: Why the run is given up, once it took too long.
        self.overdue: ErrorRecord | None = None

    def run(self) -> RunOutcome:
        assets = [cell.cell.asset for step in self.request.plan.steps for cell in step.cells]
        resources = Resources(self.request.definitions, assets, self.request.run_config)
        settings = self.instance.settings
        self.log_level = level_of(settings.python_logs)
        self.redaction = Redaction([*resources.references(), *settings.references], settings.secrets)
        self.managers = IOManagers(self.request.definitions, resources.values, self.instance.artifacts)
        check_fit(self.request.executor, self.request.definitions, self.managers, assets)
        logs = compute_log_manager(settings, self.instance.home)
        folder = logs.folder(self.run_id)
        self.pool = self._pool(assets, folder) if self.request.executor == PROCESSES else None
        self.planned = self._planned_cells()
        self.versions = Versions.of(
            self.request.plan,
            self.request.graph,
            self.request.table,
            self.instance.catalog,
        )
        self.recorder = Recorder(lambda events: self.instance.catalog.append(events, by=self.run_id))
        self.capture = OutputCapture(
            folder,
            side_by_side=self.request.executor == THREADS,
            redaction=self.redaction,
        )
        self.interruption = Interruption(on_first=self._on_first_signal, on_second=self._wake, on_stuck=self._on_stuck)
        try:
            self._start()
            try:
                for cell in self.planned.values():
                    if cell.folder is not None:
                        self.managers.for_output(cell.asset).check_writable(cell.asset, cell.partition)
                # Processes that compute have resources of their own; here are only those of hooks then.
                only = resources.of_hooks() if self.pool else None
                with (
                    self.interruption,
                    self._in_time(),
                    self._keeping(logs),
                    self.capture,
                    python_logging(settings.python_logs, self._log, self.redaction.text),
                    resources.set_up(self.info, self.redaction, only) as ready,
                ):
                    self.environment = StepEnvironment(
                        definitions=self.request.definitions,
                        io_managers=self.managers,
                        resources=ready,
                        check_resources=resources.check,
                        log=self._log,
                    )
                    with self._executor() as executor, self.pooled:
                        self._loop(executor)
                    self._hook_run()
                return self._end()
            except RunOverError:
                # Nothing of it is taken any more, so nobody will ever know of the files.
                with contextlib.suppress(Exception):
                    self.managers.sweep(self.run_id, self.instance.catalog.planned(self.run_id))
                raise
            except BaseException as error:
                # A place that cannot be used, a resource that cannot be torn down, a catalog that cannot be written
                # any more, or an error of ours: whatever it is, nothing stays unfinished that can be finished.
                failure = describe_failure(error)
                with contextlib.suppress(Exception):
                    self._emit(*self._last_events(failure.error, canceled=failure.canceled))
                raise
        finally:
            self.recorder.close()

    @contextlib.contextmanager
    def _keeping(self, logs: ComputeLogManager) -> Generator[None]:
        """Have what is printed taken care of. What goes wrong with it is told, and harms nobody."""
        self.keeper = logs.keeper(self.run_id, self.redaction.bytes)
        try:
            yield
        finally:
            problem = self.keeper.close()
            if problem:
                self._log(None, "WARNING", problem)

    def _start(self) -> None:
        """Record the run and the version that each cell is going to get, before anything is written."""
        observing = self.request.definitions.observing
        changes = None if observing else definitions_changed(self.instance, self.request.graph)
        steps = tuple(
            PlannedStep(
                step_key=step.key,
                cells=tuple(self.planned[cell.cell] for cell in step.cells),
                reason=step.reason,
            )
            for step in self.request.plan.steps
        )
        catalog, asked = self.instance.catalog, self.place.asked
        self.place.pools, self.place.first_pools = pools_of(self.request.plan, self.request.graph)
        while True:
            claims_before = catalog.claims()
            self.place.check_not_stopped()
            others = open_runs(catalog)
            if not self.request.supersede:
                refuse_taken(catalog, self.planned, others)
            check_turn(self.instance, self.place.as_run(), others)
            self.request.check()
            started = RunStarted(
                time=self.clock.now(),
                run_id=self.run_id,
                steps=steps,
                job=asked.job,
                selection=asked.selection,
                backfill_id=asked.backfill_id,
                tags=asked.tags,
                parent_run_id=asked.parent_run_id,
                root_run_id=asked.root_run_id,
                pools=self.place.pools,
                request=asked.request,
                user=user_name(),
                host=this_host(),
                pid=os.getpid(),
                start_ticks=start_ticks(os.getpid()),
                claims_before=claims_before,
            )
            events = [self.redaction.event(event) for event in (changes, started) if event is not None]
            try:
                catalog.append(events, by=self.run_id)
            except ConflictError:  # another one was granted something at this moment, or this one was canceled
                continue
            break
        if self.request.listener is not None:
            for event in events:
                self.request.listener(event)

    def _loop(self, executor: Executor) -> None:
        self.executor = executor
        self._proceed(executor)
        while self.in_flight:
            executor.advance()
            self.pooled.check()
            self._proceed(executor)  # a signal may have come

    def _take(self, result: StepResult) -> None:
        """What executors hand results to, from any thread."""
        executor = self.executor
        assert executor is not None  # it is what calls
        with self.lock:
            self._settle(result, executor)
            self._proceed(executor)
        self._call_hooks()
        with self.lock:
            # Last: until then there is something to wait for, if only what goes wrong here.
            self.in_flight -= 1

    def _proceed(self, executor: Executor) -> None:
        """Start what can start, and settle what need not run, until only running steps are left."""
        with self.lock:
            if not self.state.canceled and (self.interruption.requested is not None or self._stop_asked()):
                self.state.cancel()
                for spec in (*executor.abandon(), *self.pooled.take_all()):
                    self._settle(StepResult(spec=spec, seconds=0.0, failure=CANCELED), executor)
                    self.in_flight -= 1
            while decisions := self.state.ready():
                for decision in decisions:
                    if decision.status is None:
                        self.decisions[decision.step.key] = decision
                        self._submit(executor, self._spec(decision.step, decision.run))
                    else:
                        self._leave(decision, decision.status)

    def _stop_asked(self) -> bool:
        return self.place.heartbeat.is_over or self.request.stop_asked()

    def _leave(self, decision: Decision, status: StepStatus) -> None:
        """Record a step that is not run."""
        self._finish(decision.step, status, cells=self._left(decision.left), message=decision.message)

    def _left(self, left: Iterable[Left]) -> list[StepCell]:
        """What became of cells that are not computed."""
        return [
            StepCell(
                asset=one.cell.cell.asset,
                partition=one.cell.cell.partition,
                status=one.status,
                version_id=self.versions.version_id(one.cell.cell) if one.status is StepStatus.VERIFIED else None,
            )
            for one in left
        ]

    def _settle(self, result: StepResult, executor: Executor) -> None:
        """Record what an attempt made, or have what failed of it tried again."""
        spec = result.spec
        self.printed[spec.step_key] = self.printed.get(spec.step_key, ()) + result.logs
        self.keeper.keep(result.logs)
        self.kept.setdefault(spec.step_key, []).extend(result.outputs)
        failed = result.failed
        if result.failure is not None:
            own = {one.cell.version_id: one for one in failed}
            failed = tuple(own.get(c.version_id, CellFailure(cell=c, failure=result.failure)) for c in spec.cells)
        passing = [one for one in failed if one.failure.allow_retries]
        delay = self._retry_delay(spec, passing)
        given_up = self.given_up.setdefault(spec.step_key, [])
        if delay is None:
            self._end_step(result, [*given_up, *failed])
            return
        given_up += [one for one in failed if not one.failure.allow_retries]
        self._emit(
            StepRetried(
                time=self.clock.now(),
                run_id=self.run_id,
                step_key=spec.step_key,
                attempt=spec.attempt,
                delay=delay,
                error=passing[0].failure.error,
            )
        )
        again = {(one.cell.asset, one.cell.partition) for one in passing}
        decision = self.decisions[spec.step_key]
        cells = [cell for cell in decision.run if (cell.cell.asset, cell.cell.partition) in again]
        self._submit(executor, self._spec(decision.step, cells, attempt=spec.attempt + 1), delay)

    def _submit(self, executor: Executor, spec: StepSpec, delay: float = 0.0) -> None:
        """Have a step attempted; one of a pool when it has a place there."""
        pool = self.request.definitions.definition_of(spec.cells[0].asset).pool
        if pool is None or not self.pooled.is_limited(pool):
            executor.submit(spec, delay)
        else:
            self.pooled.add(spec, pool, delay)
        self.in_flight += 1

    def _admit(self, spec: StepSpec) -> None:
        """A step has its place in a pool. From any thread."""
        executor = self.executor
        assert executor is not None  # it is there as long as steps wait
        with self.lock:
            if self.state.canceled:
                self._settle(StepResult(spec=spec, seconds=0.0, failure=CANCELED), executor)
                self.in_flight -= 1
            else:
                executor.submit(spec)
        executor.wake()

    def _say_waits(self, spec: StepSpec, text: str) -> None:
        self._log(spec.step_key, "INFO", text)

    @contextlib.contextmanager
    def _in_time(self) -> Generator[None]:
        """A block that is interrupted when the run takes longer than it may."""
        seconds = max_runtime(self.instance.settings, self.place.asked.tags)
        if seconds is None:
            yield
            return
        timer = threading.Timer(seconds, self._out_of_time, [seconds])
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()  # or else its signal might come when nobody takes it

    def _out_of_time(self, seconds: float) -> None:
        self.overdue = too_long(seconds)
        self._wake()
        self.interruption.stop(signal.SIGTERM)

    def _hook(self, event: HookEvent, context: HookContext, hooks: Iterable[HookDefinition]) -> None:
        """Have hooks called as soon as nobody is kept waiting by it."""
        chosen = sorted((hook for hook in hooks if hook.event is event), key=lambda hook: hook.name)
        self.hooks += [(hook, context.for_hook(hook, self.environment.resources)) for hook in chosen]

    def _hook_run(self) -> None:
        status, error, _ = self._verdict()
        if status is not RunStatus.CANCELED:
            event = HookEvent.RUN_SUCCESS if status is RunStatus.SUCCESS else HookEvent.RUN_FAILURE
            first = error or next((step.error for step in self.ended if step.error is not None), None)
            context = HookContext(run=self.info, log=self._log, error=first, op_exception=self.exception)
            self._hook(event, context, self.request.definitions.run_hooks)
        self._call_hooks()

    def _call_hooks(self) -> None:
        with self.lock:
            hooks, self.hooks = self.hooks, []
        for hook, context in hooks:
            call_hook(hook, context, self._log)

    def _end_step(self, result: StepResult, failed: Sequence[CellFailure]) -> None:
        """Record the end of a step: what it made, all at once, and what failed."""
        spec = result.spec
        decision = self.decisions[spec.step_key]
        now = self.clock.now()
        outputs = {Cell(o.cell.asset, o.cell.partition): o for o in self.kept.pop(spec.step_key)}
        lost = {Cell(one.cell.asset, one.cell.partition): one.failure for one in failed}
        failure = next((one.failure for one in failed if not one.failure.canceled), None)
        made: dict[Cell, Materialization] = {}
        cells: list[StepCell] = []
        # A step may make assets that depend on each other: in the order of the graph.
        order = {key: at for at, key in enumerate(self.request.graph.sorted({c.cell.asset for c in decision.run}))}
        for cell in sorted(decision.run, key=lambda cell: order[cell.cell.asset]):
            output = outputs.get(cell.cell)
            status = StepStatus.SKIPPED
            if output is not None and (last := self._seen_before(spec, cell, output)) is not None:
                cells.append(last)
                continue
            if output is not None:
                made[cell.cell] = self._materialization(spec.step_key, cell, output, result.seconds, now, made)
                status = StepStatus.SUCCESS
            elif cell.cell in lost:
                status = StepStatus.CANCELED if lost[cell.cell].canceled else StepStatus.FAILURE
            cells.append(
                StepCell(
                    asset=cell.cell.asset,
                    partition=cell.cell.partition,
                    status=status,
                    version_id=output.cell.version_id if output else None,
                    rows=output.pointer.rows if output and output.pointer else None,
                    error=self._own_error(lost.get(cell.cell), failure),
                )
            )
        ended = worst(cell.status for cell in cells)
        if self.request.definitions.observing and spec.partitions is not None:
            cells = [cell for cell in cells if cell.status is not StepStatus.SKIPPED]  # nothing was said of those
        if ended is StepStatus.SKIPPED:
            ended = StepStatus.SUCCESS  # it ran, and chose to make nothing
        if failure is not None and not self.exit_code:
            self.exit_code, self.exception = failure.exit_code, failure.exception
        self.versions.made(made.values())
        self._finish(
            decision.step,
            ended,
            cells=[*cells, *self._left(decision.left)],
            made=tuple(made.values()),
            error=failure.error if failure else None,
        )
        self.pooled.released()
        event = {StepStatus.SUCCESS: HookEvent.STEP_SUCCESS, StepStatus.FAILURE: HookEvent.STEP_FAILURE}.get(ended)
        if event is not None:
            context = HookContext(
                run=self.info,
                log=self._log,
                step_key=spec.step_key,
                cells=tuple(cell.cell for cell in decision.run),
                materializations=tuple(made.values()),
                error=failure.error if failure else None,
                op_exception=failure.exception if failure else None,
            )
            definition = self.request.definitions.definition_of(decision.run[0].cell.asset)
            self._hook(event, context, self.request.definitions.hooks_of(definition))

    def _seen_before(self, spec: StepSpec, cell: PlanCell, output: StepOutput) -> StepCell | None:
        """What an observation comes to that saw no other version than the last one; None where it is a new version."""
        if not self.request.definitions.observing:
            return None
        last = self.versions.current.get(cell.cell)
        if output.data_version is not None and (last is None or last.data_version != output.data_version):
            return None
        if output.metadata:
            self._log(spec.step_key, "INFO", metadata_line(output.metadata))
        return StepCell(
            asset=cell.cell.asset,
            partition=cell.cell.partition,
            status=StepStatus.VERIFIED,
            version_id=None if last is None else last.version_id,
        )

    @staticmethod
    def _own_error(failure: StepFailure | None, of_step: StepFailure | None) -> ErrorRecord | None:
        """Why a cell failed, where that is not why its step did."""
        if failure is None or failure.canceled or (of_step is not None and failure.error == of_step.error):
            return None
        return failure.error

    def _finish(
        self,
        step: PlanStep,
        status: StepStatus,
        *,
        cells: Sequence[StepCell],
        made: tuple[Materialization, ...] = (),
        error: ErrorRecord | None = None,
        message: str = "",
    ) -> None:
        """Record the end of a step, and tell the state of the run."""
        event = StepEnded(
            time=self.clock.now(),
            run_id=self.run_id,
            step_key=step.key,
            status=status,
            cells=tuple(cells),
            materializations=made,
            error=error,
            logs=self.printed.get(step.key, ()),
            message=message,
        )
        self.ended.append(cast(StepEnded, self.redaction.event(event)))
        self._emit(event)
        self.state.finished(
            step.key,
            status,
            made={materialization.cell: cell_state(materialization) for materialization in made},
            lost={
                Cell(cell.asset, cell.partition): cell.status
                for cell in cells
                if cell.status not in (StepStatus.SUCCESS, StepStatus.VERIFIED)
            },
            message=message,
        )

    def _materialization(
        self,
        step_key: str,
        cell: PlanCell,
        output: StepOutput,
        seconds: float,
        now: datetime,
        made: Mapping[Cell, Materialization],
    ) -> Materialization:
        """The record of a version that a step made; `made` are those that the same step made before."""
        version = output.cell.version_id
        return Materialization(
            version_id=version,
            asset=cell.cell.asset,
            partition=cell.cell.partition,
            run_id=self.run_id,
            step_key=step_key,
            created=now,
            fingerprint=self._fingerprint(cell.cell.asset),
            # Nobody knows what it holds: every version of it counts as different.
            data_version=output.data_version or f"version:{version}",
            pointer=output.pointer,
            inputs=self.versions.recorded(cell, made),
            metadata=output.metadata,
            tags=output.tags,
            seconds=seconds,
        )

    def _retry_delay(self, spec: StepSpec, failed: Sequence[CellFailure]) -> float | None:
        """Seconds until what failed of a step is tried again; None when it is not."""
        if not failed or self.state.canceled or self.interruption.requested is not None:
            return None
        asked = [one.failure.retry for one in failed if one.failure.retry is not None]
        if asked:
            limit, seconds = asked[0]
            return seconds if spec.attempt <= limit else None
        policy = self.request.definitions.definition_of(spec.cells[0].asset).retry_policy
        if policy is None or spec.attempt > policy.max_retries:
            return None
        return policy.calculate_delay(spec.attempt)

    def _began(self, spec: StepSpec) -> None:
        """An attempt begins."""
        self._emit(StepStarted(time=self.clock.now(), run_id=self.run_id, step_key=spec.step_key, attempt=spec.attempt))
        self.attempted.add(spec.step_key)
        self.running[spec.step_key] = spec

    def _over(self, spec: StepSpec) -> None:
        """An attempt has computed."""
        del self.running[spec.step_key]
        if self.executor is not None and self._stop_asked():
            self.executor.wake()  # or else the next step might begin before anybody looks

    def _attempt(self, spec: StepSpec) -> Attempt:
        """What executors in this process call: an attempt, announced, captured and open to interruption."""
        self._began(spec)
        with self.capture.step(spec.number, spec.step_key, spec.attempt) as logs, logged_by(spec.step_key):
            try:
                with self.interruption.interruptible():
                    attempt = attempt_step(spec, self.environment)
            except KeyboardInterrupt:  # it came between two lines of ours
                attempt = Attempt(spec, 0.0)
                attempt.failure = CANCELED
        self._over(spec)
        attempt.logs = tuple(logs)
        return attempt

    def _executor(self) -> Executor:
        if self.pool is not None:
            from headwater.materialize.executors.processes import Coordinator, ProcessExecutor

            def settle(result: StepResult) -> None:
                self._over(result.spec)
                self._take(result)

            run = Coordinator(
                began=self._began,
                settle=settle,
                log=self._log,
                sweep=self._sweep,
                salvage=self.capture.salvage,
                stopping=lambda: self.interruption.stopping,
            )
            return ProcessExecutor(self.pool, self.request.definitions, run, self.clock)
        if self.request.executor == THREADS:
            workers = self.request.max_workers or os.cpu_count() or 1
            return ThreadExecutor(self._attempt, self._take, self.clock, workers)
        return InProcessExecutor(self._attempt, self._take, self.clock)

    def _pool(self, assets: Sequence[AssetKey], log_folder: Path | None) -> "Pool":
        from headwater.materialize.executors.processes import Pool

        return Pool.of(
            self.request.definitions,
            run=self.info,
            run_config=self.request.run_config,
            assets=assets,
            artifacts=self.instance.artifacts,
            log_folder=log_folder,
            python_logs=self.instance.settings.python_logs,
            secrets=self.redaction.secrets,
            max_workers=self.request.max_workers,
        )

    def _sweep(self, spec: StepSpec) -> None:
        """Remove whatever an attempt has written."""
        for cell in spec.cells:
            if cell.folder is not None:
                with contextlib.suppress(Exception):  # it is left to a later sweep
                    self.managers.for_output(cell.asset).sweep(cell.folder, cell.version_id, self.run_id)

    def _spec(self, step: PlanStep, cells: Sequence[PlanCell], attempt: int = 1) -> StepSpec:
        """What an attempt at some cells of a step is told."""
        definition = self.request.definitions.definition_of(cells[0].cell.asset)
        previous: dict[Cell, tuple[Any, bool]] = {}
        provenance: dict[Cell, dict[str, str]] = {}
        for cell in cells:
            fingerprint = self._fingerprint(cell.cell.asset)
            previous[cell.cell] = self.versions.previous(cell.cell, fingerprint.code)
            provenance[cell.cell] = {
                "headwater.asset": cell.cell.asset,
                "headwater.run_id": self.run_id,
                "headwater.version_id": self.planned[cell.cell].version_id,
                "headwater.code_version": fingerprint.code,
                **{f"headwater.input.{key}": version for key, version in self.versions.ids(cell).items()},
            }
        return StepSpec(
            run=self.info,
            step_key=step.key,
            number=self.numbers[step.key],
            attempt=attempt,
            cells=tuple(self.planned[cell.cell] for cell in cells),
            partitions=self.versions.partitions(cells),
            inputs=self.versions.inputs(definition, cells),
            previous=previous,
            provenance=provenance,
            run_config=self.request.run_config,
        )

    def _planned_cells(self) -> dict[Cell, PlannedCell]:
        now = self.clock.now()
        planned: dict[Cell, PlannedCell] = {}
        for step in self.request.plan.steps:
            for cell in step.cells:
                key = cell.cell.asset
                partition = self._typed(cell.cell)
                planned[cell.cell] = PlannedCell(
                    asset=key,
                    partition=partition,
                    version_id=new_id(now),
                    folder=self.managers.for_output(key).folder_of(key, partition)
                    if self.request.graph[key].stored
                    else None,
                )
        return planned

    def _typed(self, cell: Cell) -> str | None:
        """A cell's partition key; of several dimensions one that knows them."""
        from headwater.catalog.partitions.multi import MultiPartitionsDefinition

        definition = self.request.graph[cell.asset].partitions_def
        if cell.partition is None or not isinstance(definition, MultiPartitionsDefinition):
            return cell.partition
        return definition.key(cell.partition)

    def _end(self) -> RunOutcome:
        status, error, code = self._verdict()
        self._emit(RunEnded(time=self.clock.now(), run_id=self.run_id, status=status, error=error))
        self.recorder.flush()
        return RunOutcome(
            run_id=self.run_id,
            status=status,
            steps=tuple(self.ended),
            exit_code=code,
            exception=self.exception,
            signal=None if self.overdue else self.interruption.requested,
            error=error,
        )

    def _verdict(self) -> tuple[RunStatus, ErrorRecord | None, int]:
        """How the run ends: its status, why as far as no step says so, and the exit code."""
        if any(step.status is StepStatus.CANCELED for step in self.ended):
            if self.overdue is not None:
                return RunStatus.FAILURE, self.overdue, TimedOutError.exit_code
            return RunStatus.CANCELED, None, 128 + (self.interruption.requested or 2)
        return RunStatus.FAILURE if self.exit_code else RunStatus.SUCCESS, None, self.exit_code

    def _emit(self, *events: Event) -> None:
        events = tuple(map(self.redaction.event, events))
        with self.lock:
            self.recorder.append(*events)
            if self.request.listener is not None:
                for event in events:
                    self.request.listener(event)

    def _log(self, step_key: str | None, level: str, message: str) -> None:
        if logging.getLevelNamesMapping().get(level, logging.CRITICAL) < self.log_level:
            return
        self._emit(
            LogMessage(time=self.clock.now(), run_id=self.run_id, step_key=step_key, level=level, message=message)
        )

    def _on_first_signal(self, number: int) -> None:
        if self.running:
            said = "Finishing the running step; nothing new is started. Press Ctrl-C again to stop it now."
        else:
            said = "Stopping: nothing new is started."
        self.capture.terminal().write(f"\n{said}\n")
        self._wake()

    def _wake(self) -> None:
        if self.executor is not None:
            self.executor.wake()

    def _on_stuck(self, number: int) -> None:
        """User code does not let itself be stopped: record that, say so, and leave without it."""
        with contextlib.suppress(Exception):
            # Not through `_emit`: its lock may be held by what is stuck.
            self.recorder.append(*self._last_events(CANCELED.error, canceled=True))
            self.recorder.flush()
            stuck = f"{', '.join(self.running)} did not stop, and was left" if self.running else "stopped"
            self.capture.terminal().write(f"\n{RunStatus.CANCELED}  {stuck}\nrun {self.run_id}\n")
        os._exit(128 + number)

    def _last_events(self, error: ErrorRecord, *, canceled: bool) -> list[Event]:
        """The ends of the run and of each of its steps that has none yet."""
        now = self.clock.now()
        events: list[Event] = []
        for step in self.request.plan.steps:
            if step.key in self.state.statuses:
                continue
            started = step.key in self.attempted and not canceled
            status = UNFINISHED[StepStatus.STARTED if started else StepStatus.PENDING]
            cells = tuple(StepCell(asset=c.cell.asset, partition=c.cell.partition, status=status) for c in step.cells)
            events.append(
                StepEnded(
                    time=now,
                    run_id=self.run_id,
                    step_key=step.key,
                    status=status,
                    cells=cells,
                    logs=self.printed.get(step.key, ()),
                    message=_OVER,
                )
            )
        status = RunStatus.CANCELED if canceled and self.overdue is None else RunStatus.FAILURE
        events.append(RunEnded(time=now, run_id=self.run_id, status=status, error=self.overdue or error))
        return events

    def _fingerprint(self, key: AssetKey) -> Fingerprint:
        fingerprint = self.request.graph[key].fingerprint
        assert fingerprint is not None  # only external assets have none, and they are not computed
        return fingerprint


_OVER = "the run ended before it"


def definitions_changed(instance: Instance, graph: AssetGraph) -> DefinitionsChanged | None:
    """What is different between the definitions as recorded last and those at hand; None for nothing."""
    now = instance.clock.now()
    recorded = instance.catalog.definitions()
    changes: list[DefinitionChange] = []
    definitions: list[AssetDefinition] = []
    for node in graph:
        data = node_to_json(node)
        old = recorded.pop(node.key, None)
        if old is not None and dict(old.data) == data:
            continue
        parts = () if old is None else changed_parts(old.data, data)
        definitions.append(AssetDefinition(asset=node.key, data=data, metadata=dict(node.metadata)))
        if old is None or parts:
            changes.append(
                DefinitionChange(asset=node.key, changed=now, change="added" if old is None else "changed", parts=parts)
            )
    changes.extend(DefinitionChange(asset=key, changed=now, change="removed") for key in recorded)
    if not changes and not definitions:
        return None
    return DefinitionsChanged(time=now, changes=tuple(changes), definitions=tuple(definitions))
