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
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from headwater.catalog.definitions.hooks import HookEvent
from headwater.catalog.errors import RunOverError, TimedOutError
from headwater.catalog.events import (
    Event,
    LogMessage,
    RunEnded,
    StepEnded,
    StepRetried,
    StepStarted,
)
from headwater.catalog.instance import Instance
from headwater.catalog.keys import AssetKey
from headwater.catalog.records import (
    Cell,
    ErrorRecord,
    LogSlice,
    Materialization,
    RunStatus,
    StepCell,
    StepStatus,
)
from headwater.catalog.storage.base import cell_state
from headwater.io.compute_logs import ComputeLogManager, compute_log_manager
from headwater.materialize.execution.capture import OutputCapture
from headwater.materialize.execution.context import RunInfo
from headwater.materialize.execution.hooks import HookCalls, HookContext
from headwater.materialize.execution.interrupt import Interruption
from headwater.materialize.execution.pooled import PooledSteps
from headwater.materialize.execution.python_logs import level_of, logged_by, python_logging
from headwater.materialize.execution.recorder import Recorder
from headwater.materialize.execution.redaction import Redaction
from headwater.materialize.execution.resources import Resources
from headwater.materialize.execution.starting import RunSpec, planned_cells, record_start
from headwater.materialize.execution.state import Decision, RunState
from headwater.materialize.execution.step import (
    CANCELED,
    Attempt,
    CellFailure,
    StepEnvironment,
    StepOutput,
    StepResult,
    StepSpec,
    attempt_step,
    describe_failure,
)
from headwater.materialize.execution.step_end import left_alone, step_end
from headwater.materialize.execution.versions import Versions
from headwater.materialize.executors.base import Executor
from headwater.materialize.executors.fit import PROCESSES, THREADS, check_fit
from headwater.materialize.executors.in_process import InProcessExecutor, ThreadExecutor
from headwater.materialize.io_managers import IOManagers
from headwater.materialize.monitoring import max_runtime, too_long
from headwater.materialize.planner import PlanCell, PlanStep
from headwater.materialize.reader import UNFINISHED

if TYPE_CHECKING:
    from headwater.materialize.executors.processes import Pool


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


def execute(request: RunSpec, instance: Instance) -> RunOutcome:
    """Run a plan. User code's errors are recorded, not raised; errors of catalog and configuration are raised.

    Raises `CellTakenError` when another run that goes on builds something of it, `QueuedError` when limits do not let
    it begin, and `RunStoppedError` when it was canceled before, having done nothing.
    """
    return _Coordinator(request, instance).run()


class _Coordinator:
    def __init__(self, request: RunSpec, instance: Instance) -> None:
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
        self.hooks = HookCalls(self._log)
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
        self.planned = planned_cells(self.request, self.managers, self.clock.now())
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
            self._tell(record_start(self.request, self.instance, self.planned, self.redaction))
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
        self.hooks.call()
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
        self._finish(decision.step, status, cells=left_alone(decision, self.versions), message=decision.message)

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

    def _hook_run(self) -> None:
        status, error, _ = self._verdict()
        if status is not RunStatus.CANCELED:
            event = HookEvent.RUN_SUCCESS if status is RunStatus.SUCCESS else HookEvent.RUN_FAILURE
            first = error or next((step.error for step in self.ended if step.error is not None), None)
            context = HookContext(run=self.info, log=self._log, error=first, op_exception=self.exception)
            self.hooks.add(event, context, self.request.definitions.run_hooks, self.environment.resources)
        self.hooks.call()

    def _end_step(self, result: StepResult, failed: Sequence[CellFailure]) -> None:
        """Record the end of a step: what it made, all at once, and what failed."""
        spec = result.spec
        decision = self.decisions[spec.step_key]
        outputs = self.kept.pop(spec.step_key)
        observing = self.request.definitions.observing
        end = step_end(result, decision, outputs, failed, self.versions, observing=observing, now=self.clock.now())
        for line in end.said:
            self._log(spec.step_key, "INFO", line)
        failure = end.failure
        if failure is not None and not self.exit_code:
            self.exit_code, self.exception = failure.exit_code, failure.exception
        self.versions.made(end.made)
        error = failure.error if failure else None
        cells = [*end.cells, *left_alone(decision, self.versions)]
        self._finish(decision.step, end.status, cells=cells, made=end.made, error=error)
        self.pooled.released()
        event = {StepStatus.SUCCESS: HookEvent.STEP_SUCCESS, StepStatus.FAILURE: HookEvent.STEP_FAILURE}.get(end.status)
        if event is not None:
            context = HookContext(
                run=self.info,
                log=self._log,
                step_key=spec.step_key,
                cells=tuple(cell.cell for cell in decision.run),
                materializations=end.made,
                error=error,
                op_exception=failure.exception if failure else None,
            )
            definition = self.request.definitions.definition_of(decision.run[0].cell.asset)
            hooks = self.request.definitions.hooks_of(definition)
            self.hooks.add(event, context, hooks, self.environment.resources)

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
            fingerprint = self.versions.fingerprint(cell.cell.asset)
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
            self._tell(events)

    def _tell(self, events: Iterable[Event]) -> None:
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


_OVER = "the run ended before it"
