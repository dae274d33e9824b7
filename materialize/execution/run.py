"""The coordinator of a run: the only one that writes to the catalog.

It asks `RunState` what to do, has an executor do it, and records what came of it. A step's materializations are
recorded with the end of the step, in one transaction; what depends on it may start once its files are durable, and
is recorded after it. Results are settled in whatever thread brings them, so that none waits for a step that computes:
one lock keeps decisions and events in order.
"""

import contextlib
import getpass
import os
import platform
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from headwater.catalog.definitions.definitions import Definitions
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
from headwater.catalog.records import (
    Cell,
    DefinitionChange,
    ErrorRecord,
    Fingerprint,
    Input,
    LogSlice,
    Materialization,
    PlannedCell,
    PlannedStep,
    RunStatus,
    StepCell,
    StepStatus,
)
from headwater.catalog.storage.base import CellState
from headwater.io.compute_logs import run_folder
from headwater.materialize.execution.capture import OutputCapture
from headwater.materialize.execution.context import RunInfo
from headwater.materialize.execution.interrupt import Interruption
from headwater.materialize.execution.recorder import Recorder
from headwater.materialize.execution.redaction import Redaction
from headwater.materialize.execution.resources import Resources
from headwater.materialize.execution.state import Decision, RunState
from headwater.materialize.execution.step import (
    Attempt,
    StepEnvironment,
    StepFailure,
    StepInput,
    StepResult,
    StepSpec,
    StoredPart,
    attempt_step,
    describe_failure,
)
from headwater.materialize.executors.base import Executor
from headwater.materialize.executors.in_process import InProcessExecutor, ThreadExecutor
from headwater.materialize.io_managers import IOManagers
from headwater.materialize.planner import Plan
from headwater.materialize.reader import UNFINISHED


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """Everything that a run is told."""

    plan: Plan
    definitions: Definitions
    graph: AssetGraph
    states: Mapping[Cell, CellState]
    run_config: Mapping[str, Any] = field(default_factory=dict[str, Any])
    #: `in_process`, or `threads` with `max_workers` of them.
    executor: str = "in_process"
    max_workers: int | None = None
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    selection: str | None = None
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


def execute(request: RunRequest, instance: Instance) -> RunOutcome:
    """Run a plan. User code's errors are recorded, not raised; errors of catalog and configuration are raised."""
    return _Coordinator(request, instance).run()


class _Coordinator:
    def __init__(self, request: RunRequest, instance: Instance) -> None:
        self.request = request
        self.instance = instance
        self.clock = instance.clock
        self.run_id = new_id(self.clock.now())
        self.info = RunInfo(run_id=self.run_id, tags=request.tags)
        self.state = RunState(
            request.plan, request.graph, {cell.asset: state for cell, state in request.states.items()}
        )
        self.numbers = {step.key: number for number, step in enumerate(request.plan.steps)}
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

    def run(self) -> RunOutcome:
        assets = [cell.cell.asset for step in self.request.plan.steps for cell in step.cells]
        resources = Resources(self.request.definitions, assets, self.request.run_config)
        self.redaction = Redaction(resources.references())
        self.managers = IOManagers(self.request.definitions, resources.values, self.instance.home)
        self.planned = self._planned_cells()
        self.pointers = self._current_pointers()
        self.recorder = Recorder(self.instance.catalog.append)
        self.capture = OutputCapture(
            run_folder(self.instance.home, self.run_id),
            side_by_side=self.request.executor == "threads",
            blot=self.redaction.blot,
        )
        self.interruption = Interruption(on_first=self._on_first_signal, on_stuck=self._on_stuck)
        try:
            self._start()
            try:
                for cell in self.planned.values():
                    if cell.folder is not None:
                        self.managers.for_output(cell.asset).check_writable(cell.asset, cell.partition)
                with self.interruption, self.capture, resources.set_up(self.info, self.redaction) as ready:
                    self.environment = StepEnvironment(
                        definitions=self.request.definitions,
                        io_managers=self.managers,
                        resources=ready,
                        check_resources=resources.check,
                        log=self._log,
                    )
                    with self._executor() as executor:
                        self._loop(executor)
            except BaseException as error:
                # A place that cannot be used, a resource that cannot be torn down, a catalog that cannot be written
                # any more, or an error of ours: whatever it is, nothing stays unfinished that can be finished.
                failure = describe_failure(error)
                with contextlib.suppress(Exception):
                    self._emit(*self._last_events(failure.error, canceled=failure.canceled))
                raise
            return self._end()
        finally:
            self.recorder.close()

    def _start(self) -> None:
        """Record the run and the version that each cell is going to get, before anything is written."""
        changes = definitions_changed(self.instance, self.request.graph)
        events: list[Event] = [] if changes is None else [changes]
        events.append(
            RunStarted(
                time=self.clock.now(),
                run_id=self.run_id,
                steps=tuple(
                    PlannedStep(
                        step_key=step.key,
                        cells=tuple(self.planned[cell.cell.asset] for cell in step.cells),
                        reason=step.reason,
                    )
                    for step in self.request.plan.steps
                ),
                selection=self.request.selection,
                tags=self.request.tags,
                user=_user(),
                host=platform.node(),
                pid=os.getpid(),
            )
        )
        self._emit(*events)
        self.recorder.flush()

    def _loop(self, executor: Executor) -> None:
        self.executor = executor
        self._proceed(executor)
        while self.in_flight:
            executor.advance()
            self._proceed(executor)  # a signal may have come

    def _take(self, result: StepResult) -> None:
        """What executors hand results to, from any thread."""
        executor = self.executor
        assert executor is not None  # it is what calls
        with self.lock:
            self._settle(result, executor)
            self._proceed(executor)
            # Last: until then there is something to wait for, if only what goes wrong here.
            self.in_flight -= 1

    def _proceed(self, executor: Executor) -> None:
        """Start what can start, and settle what need not run, until only running steps are left."""
        with self.lock:
            if self.interruption.requested is not None and not self.state.canceled:
                self.state.cancel()
                for spec in executor.abandon():
                    failure = StepFailure(error=_CANCELED, canceled=True, allow_retries=False)
                    self._settle(StepResult(spec=spec, seconds=0.0, failure=failure), executor)
                    self.in_flight -= 1
            while decisions := self.state.ready():
                for decision in decisions:
                    if decision.status is None:
                        executor.submit(self._spec(decision))
                        self.in_flight += 1
                    else:
                        self._leave(decision, decision.status)

    def _leave(self, decision: Decision, status: StepStatus) -> None:
        self._record(
            StepEnded(
                time=self.clock.now(),
                run_id=self.run_id,
                step_key=decision.step.key,
                status=status,
                cells=tuple(
                    StepCell(asset=key, status=status, version_id=self._known_version(key, status))
                    for key in decision.assets
                ),
                message=decision.message,
            )
        )
        ran = () if status is StepStatus.VERIFIED else decision.assets
        message = decision.message if status is StepStatus.SKIPPED else ""
        self.state.finished(decision.step.key, status, ran=ran, message=message)

    def _settle(self, result: StepResult, executor: Executor) -> None:
        spec = result.spec
        printed = self.printed[spec.step_key] = self.printed.get(spec.step_key, ()) + result.logs
        if result.failure is None:
            self._succeed(result)
            return
        delay = self._retry_delay(result)
        if delay is not None:
            self._emit(
                StepRetried(
                    time=self.clock.now(),
                    run_id=self.run_id,
                    step_key=spec.step_key,
                    attempt=spec.attempt,
                    delay=delay,
                    error=result.failure.error,
                )
            )
            executor.submit(replace(spec, attempt=spec.attempt + 1), delay)
            self.in_flight += 1
            return
        status = StepStatus.CANCELED if result.failure.canceled else StepStatus.FAILURE
        if status is StepStatus.FAILURE and not self.exit_code:
            self.exit_code, self.exception = result.failure.exit_code, result.failure.exception
        ended = self._end_of(spec, status, self.clock.now())
        error = result.failure.error if status is StepStatus.FAILURE else None
        self._record(replace(ended, error=error, logs=printed))
        self.state.finished(spec.step_key, status, ran=[cell.asset for cell in spec.cells])

    def _succeed(self, result: StepResult) -> None:
        spec = result.spec
        now = self.clock.now()
        made: dict[AssetKey, CellState] = {}
        materializations: list[Materialization] = []
        outputs = {output.cell.asset: output for output in result.outputs}
        # A step may make assets that depend on each other.
        for key in self.request.graph.sorted(outputs):
            output = outputs[key]
            version = output.cell.version_id
            materialization = Materialization(
                version_id=version,
                asset=key,
                partition=output.cell.partition,
                run_id=self.run_id,
                step_key=spec.step_key,
                created=now,
                fingerprint=self._fingerprint(key),
                # Nobody knows what it holds: every version of it counts as different.
                data_version=output.data_version or f"version:{version}",
                pointer=output.pointer,
                inputs=self._inputs(key, made),
                metadata=output.metadata,
                tags=output.tags,
                seconds=result.seconds,
            )
            materializations.append(materialization)
            made[key] = cell_state(materialization)
            self.pointers[key] = materialization
        cells = [
            StepCell(
                asset=cell.asset,
                partition=cell.partition,
                status=StepStatus.SUCCESS if cell.asset in made else StepStatus.SKIPPED,
                version_id=cell.version_id if cell.asset in made else None,
                rows=pointer.rows if cell.asset in made and (pointer := outputs[cell.asset].pointer) else None,
            )
            for cell in spec.cells
        ]
        self._record(
            StepEnded(
                time=now,
                run_id=self.run_id,
                step_key=spec.step_key,
                status=StepStatus.SUCCESS,
                cells=tuple(cells),
                materializations=tuple(materializations),
                logs=self.printed[spec.step_key],
            )
        )
        self.state.finished(spec.step_key, StepStatus.SUCCESS, ran=[c.asset for c in spec.cells], made=made)

    def _end_of(self, spec: StepSpec, status: StepStatus, now: datetime) -> StepEnded:
        """The end of a step that made nothing."""
        return StepEnded(
            time=now,
            run_id=self.run_id,
            step_key=spec.step_key,
            status=status,
            cells=tuple(StepCell(asset=c.asset, partition=c.partition, status=status) for c in spec.cells),
        )

    def _retry_delay(self, result: StepResult) -> float | None:
        """Seconds until a failed step is tried again; None when it is not."""
        failure, attempt = result.failure, result.spec.attempt
        assert failure is not None  # only failures are asked about
        if not failure.allow_retries or self.state.canceled or self.interruption.requested is not None:
            return None
        if failure.retry is not None:
            limit, seconds = failure.retry
            return seconds if attempt <= limit else None
        policy = self.request.definitions.definition_of(result.spec.cells[0].asset).retry_policy
        if policy is None or attempt > policy.max_retries:
            return None
        return policy.calculate_delay(attempt)

    def _attempt(self, spec: StepSpec) -> Attempt:
        """What executors in this process call: an attempt, announced, captured and open to interruption."""
        self._emit(StepStarted(time=self.clock.now(), run_id=self.run_id, step_key=spec.step_key, attempt=spec.attempt))
        self.attempted.add(spec.step_key)
        self.running[spec.step_key] = spec
        with self.capture.step(spec.number) as logs:
            try:
                with self.interruption.interruptible():
                    attempt = attempt_step(spec, self.environment)
            except KeyboardInterrupt:  # it came between two lines of ours
                attempt = Attempt(spec, 0.0)
                attempt.failure = StepFailure(error=_CANCELED, canceled=True, allow_retries=False)
        del self.running[spec.step_key]
        attempt.logs = tuple(replace(one, attempt=spec.attempt) for one in logs)
        return attempt

    def _executor(self) -> Executor:
        if self.request.executor == "threads":
            workers = self.request.max_workers or os.cpu_count() or 1
            return ThreadExecutor(self._attempt, self._take, self.clock, workers)
        return InProcessExecutor(self._attempt, self._take, self.clock)

    def _spec(self, decision: Decision) -> StepSpec:
        graph = self.request.graph
        keys = [cell.cell.asset for cell in decision.run]
        definition = self.request.definitions.definition_of(keys[0])
        previous: dict[Cell, tuple[Any, bool]] = {}
        provenance: dict[Cell, dict[str, str]] = {}
        for key in keys:
            last = self.pointers.get(key)
            fingerprint = self._fingerprint(key)
            previous[Cell(key)] = (last and last.pointer, last is None or last.fingerprint.code != fingerprint.code)
            provenance[Cell(key)] = {
                "headwater.asset": key,
                "headwater.run_id": self.run_id,
                "headwater.version_id": self.planned[key].version_id,
                "headwater.code_version": fingerprint.code,
                **{f"headwater.input.{dep}": self._version(dep) for dep in graph.parents(key)},
            }
        return StepSpec(
            run=self.info,
            step_key=decision.step.key,
            number=self.numbers[decision.step.key],
            attempt=1,
            cells=tuple(self.planned[key] for key in keys),
            inputs=tuple(
                StepInput(
                    parameter=item.parameter,
                    asset=item.key,
                    parts=(StoredPart(partition=None, version_id=last.version_id, pointer=last.pointer),)
                    if (last := self.pointers.get(item.key))
                    else (),
                    columns=item.columns,
                )
                for item in definition.inputs
            ),
            previous=previous,
            provenance=provenance,
            run_config=self.request.run_config,
        )

    def _inputs(self, key: AssetKey, made: Mapping[AssetKey, CellState]) -> tuple[Input, ...]:
        """The versions that `key` was just computed from."""
        inputs: list[Input] = []
        for dep in self.request.graph[key].deps:
            state = made.get(dep.key) or self.state.current.get(dep.key)
            inputs.append(
                Input(
                    asset=dep.key,
                    version_id=state.version_id if state else None,
                    data_version=state.data_version if state else None,
                    columns=None
                    if dep.columns is None or state is None
                    else {c: state.columns[c] for c in dep.columns if c in state.columns},
                )
            )
        return tuple(inputs)

    def _planned_cells(self) -> dict[AssetKey, PlannedCell]:
        now = self.clock.now()
        planned: dict[AssetKey, PlannedCell] = {}
        for step in self.request.plan.steps:
            for cell in step.cells:
                key = cell.cell.asset
                planned[key] = PlannedCell(
                    asset=key,
                    partition=cell.cell.partition,
                    version_id=new_id(now),
                    folder=self.managers.for_output(key).folder_of(key, cell.cell.partition)
                    if self.request.graph[key].stored
                    else None,
                )
        return planned

    def _current_pointers(self) -> dict[AssetKey, Materialization]:
        """The current version of everything that the plan's steps read or replace."""
        keys = set(self.planned)
        keys.update(parent for key in self.planned for parent in self.request.graph.parents(key))
        known = {cell.asset for cell in self.request.states}
        return self.instance.catalog.latest(keys & known)

    def _end(self) -> RunOutcome:
        signal = self.interruption.requested
        canceled = any(step.status is StepStatus.CANCELED for step in self.ended)
        if canceled:
            status, code = RunStatus.CANCELED, 128 + (signal or 2)
        else:
            status = RunStatus.FAILURE if self.exit_code else RunStatus.SUCCESS
            code = self.exit_code
        self._emit(RunEnded(time=self.clock.now(), run_id=self.run_id, status=status))
        self.recorder.flush()
        return RunOutcome(
            run_id=self.run_id, status=status, steps=tuple(self.ended), exit_code=code, exception=self.exception
        )

    def _record(self, event: StepEnded) -> None:
        self.ended.append(event)
        self._emit(event)

    def _emit(self, *events: Event) -> None:
        events = tuple(map(self.redaction.event, events))
        with self.lock:
            self.recorder.append(*events)
            if self.request.listener is not None:
                for event in events:
                    self.request.listener(event)

    def _log(self, step_key: str, level: str, message: str) -> None:
        self._emit(
            LogMessage(time=self.clock.now(), run_id=self.run_id, step_key=step_key, level=level, message=message)
        )

    def _on_first_signal(self, number: int) -> None:
        if self.running:
            said = "Finishing the running step; nothing new is started. Press Ctrl-C again to stop it now."
        else:
            said = "Stopping: nothing new is started."
        self.capture.terminal().write(f"\n{said}\n")
        if self.executor is not None:
            self.executor.wake()

    def _on_stuck(self, number: int) -> None:
        """User code does not let itself be stopped: record that, say so, and leave without it."""
        with contextlib.suppress(Exception):
            # Not through `_emit`: its lock may be held by what is stuck.
            self.recorder.append(*self._last_events(_CANCELED, canceled=True))
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
        status = RunStatus.CANCELED if canceled else RunStatus.FAILURE
        events.append(RunEnded(time=now, run_id=self.run_id, status=status, error=error))
        return events

    def _fingerprint(self, key: AssetKey) -> Fingerprint:
        fingerprint = self.request.graph[key].fingerprint
        assert fingerprint is not None  # only external assets have none, and they are not computed
        return fingerprint

    def _version(self, key: AssetKey) -> str:
        state = self.state.current.get(key)
        return state.version_id if state else ""

    def _known_version(self, key: AssetKey, status: StepStatus) -> str | None:
        return self._version(key) or None if status is StepStatus.VERIFIED else None


_OVER = "the run ended before it"
_CANCELED = ErrorRecord(kind="Canceled", message="the run was canceled")


def cell_state(materialization: Materialization) -> CellState:
    """What staleness needs to know of a materialization that is now current."""
    pointer = materialization.pointer
    return CellState(
        version_id=materialization.version_id,
        fingerprint=materialization.fingerprint,
        data_version=materialization.data_version,
        inputs=materialization.inputs,
        columns={c.name: c.version for c in pointer.columns if c.version is not None} if pointer else {},
        stored=pointer is not None,
    )


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


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in many containers
        return str(os.getuid())
