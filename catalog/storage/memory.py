"""The catalog in memory: the twin that says, in plain Python, what every storage does. Nothing outlives it."""

import threading
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from headwater.catalog.cell_hash import MODULUS, input_hash, inputs_hash, version_hash
from headwater.catalog.clock import Clock
from headwater.catalog.errors import CatalogError, UsageError
from headwater.catalog.events import (
    AssetDefinition,
    AutomationMoved,
    BackfillEnded,
    BackfillResumed,
    BackfillStarted,
    ConditionsEvaluated,
    DaemonStarted,
    DaemonStopped,
    DefinitionsChanged,
    DynamicPartitionsChanged,
    Event,
    FactChanged,
    LogMessage,
    RunEnded,
    RunMoved,
    RunQueued,
    RunStarted,
    SlotClaimed,
    StepEnded,
    StepRetried,
    StepStarted,
    TickEnded,
    TicksPurged,
)
from headwater.catalog.keys import AssetKey
from headwater.catalog.partitions.definition import DynamicKeys, InMemoryDynamicKeys
from headwater.catalog.records import (
    OPEN,
    Automation,
    Backfill,
    BackfillCells,
    BackfillStatus,
    Cell,
    ConditionState,
    Daemon,
    DefinitionChange,
    Fact,
    FactTopic,
    Failure,
    LoggedEvent,
    Materialization,
    PlannedCell,
    PlannedStep,
    Run,
    RunStatus,
    Slot,
    Step,
    StepCell,
    StepStatus,
    Tick,
    TickStatus,
)
from headwater.catalog.storage.admission import BackfillProgress, Progress, RunProgress, check
from headwater.catalog.storage.base import AssetCells, CellState, PartitionCells, QueryResult, cell_state
from headwater.catalog.storage.identifiers import bounds
from headwater.catalog.storage.leases import Leases
from headwater.catalog.storage.log import entries
from headwater.catalog.storage.text import storable

if TYPE_CHECKING:
    from numpy import int64, uint64
    from numpy.typing import NDArray

Item = TypeVar("Item")


@dataclass(slots=True)
class _Run:
    run: Run
    plan: tuple[PlannedStep, ...]
    progress: RunProgress
    steps: dict[str, Step]
    committed: set[str] = field(default_factory=set[str])
    #: The last attempt at a step that was to be followed by another one.
    retried: dict[str, int] = field(default_factory=dict[str, int])


class _Keys:
    """Implements `DynamicKeys` by those that `now` gives."""

    def __init__(self, now: Callable[[], DynamicKeys]) -> None:
        self._now = now

    def count(self, name: str) -> int:
        return self._now().count(name)

    def indexes(self, name: str, keys: Sequence[str]) -> Sequence[int]:
        return self._now().indexes(name, keys)

    def slice(self, name: str, start: int, stop: int) -> Sequence[str]:
        return self._now().slice(name, start, stop)


class MemoryStorage:
    """A `CatalogWriter` that keeps everything in lists and dicts. Thread-safe; has no SQL."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._lock = threading.RLock()
        self._closed = False
        self._log: list[LoggedEvent] = []
        self._runs: dict[str, _Run] = {}
        #: Those that are not over, oldest first.
        self._open: dict[str, _Run] = {}
        self._versions: list[Materialization] = []
        #: The numbers of the versions' events.
        self._seqs: dict[str, int] = {}
        self._cells: dict[Cell, Materialization] = {}
        self._failures: dict[Cell, Failure] = {}
        self._definitions: dict[AssetKey, AssetDefinition] = {}
        self._changes: list[DefinitionChange] = []
        #: Keys of dynamic partitions in their order, by name.
        self._dynamic: dict[str, dict[str, None]] = {}
        self._dynamic_keys = InMemoryDynamicKeys()
        self._backfills: dict[str, Backfill] = {}
        self._automations: dict[str, Automation] = {}
        self._applied: dict[str, int] = {}
        self._daemon: Daemon | None = None
        self._facts: dict[tuple[FactTopic, str], Fact] = {}
        self._progress = Progress(
            self._find_progress,
            self._find_backfill,
            lambda: self._automations,
            lambda: self._daemon,
            self._find_facts,
            0,
            0,
            0,
        )
        self._ticks: list[Tick] = []
        #: By name, the run keys that were ever requested, with their runs.
        self._run_keys: dict[str, dict[str, str]] = {}
        self._conditions: dict[AssetKey | None, ConditionState] = {}
        self._leases = Leases(clock)
        self._slots: list[Slot] = []

    def append(
        self,
        events: Sequence[Event],
        *,
        request: str | None = None,
        by: str | None = None,
        lapsed: Collection[str] = (),
    ) -> int:
        """See `CatalogWriter.append`."""
        with self._lock:
            self._check_open()
            events = [storable(event) for event in events]
            self._leases.admit(self._progress, by, lapsed)
            try:
                late = [self._admit(event) for event in events]
            except BaseException:
                self._progress.rollback()
                raise
            for event, is_late in zip(events, late, strict=True):
                self._write_log(event, is_late)
                if not is_late:
                    self._apply(event)
            self._progress.commit()
            if request is not None:
                self._applied[request] = len(self._log)
            return len(self._log)

    def applied(self, request: str) -> int | None:
        """See `CatalogWriter.applied`."""
        return self._applied.get(request)

    def close(self) -> None:
        """Forget everything."""
        self._closed = True

    def cells(self, assets: Collection[AssetKey] | None = None) -> dict[Cell, CellState]:
        """See `CatalogReader.cells`."""
        with self._reading():
            return {
                cell: cell_state(made)
                for cell, made in self._cells.items()
                if cell.partition is None and (assets is None or cell.asset in assets)
            }

    def partition_cells(self, assets: Collection[AssetKey] | None = None) -> PartitionCells:
        """See `CatalogReader.partition_cells`."""
        import numpy as np

        with self._reading():
            cells = [
                (cell, made)
                for cell, made in self._cells.items()
                if cell.partition is not None and (assets is None or cell.asset in assets)
            ]
            keys = {key: number for number, key in enumerate(dict.fromkeys(cell.partition for cell, _ in cells))}
            fingerprints = {one: at for at, one in enumerate(dict.fromkeys(made.fingerprint for _, made in cells))}
            by_asset: dict[AssetKey, list[tuple[str | None, Materialization]]] = {}
            for cell, made in cells:
                by_asset.setdefault(cell.asset, []).append((cell.partition, made))
            return PartitionCells(
                {
                    asset: AssetCells(
                        np.array([keys[key] for key, _ in made], np.int32),
                        np.array([self._seqs[one.version_id] for _, one in made], np.int64),
                        np.array([fingerprints[one.fingerprint] for _, one in made], np.int32),
                        np.array([version_hash(asset, key, one.data_version) for key, one in made], np.uint64),
                        np.array([inputs_hash(one.inputs) for _, one in made], np.uint64),
                    )
                    for asset, made in by_asset.items()
                },
                np.array(list(keys), np.object_),
                list(fingerprints),
            )

    def cell_states(self, asset: AssetKey, partitions: Sequence[str]) -> dict[str, CellState]:
        """See `CatalogReader.cell_states`."""
        found = self.currents(asset, partitions)
        return {key: cell_state(made) for key, made in found.items() if key is not None}

    def input_hashes(
        self, asset: AssetKey, seqs: "NDArray[int64]"
    ) -> "Mapping[AssetKey, tuple[NDArray[int64], NDArray[uint64]]]":
        """See `CatalogReader.input_hashes`."""
        import numpy as np

        with self._reading():
            made = {self._seqs[one.version_id]: one for one in self._versions if one.asset == asset}
        found: dict[AssetKey, dict[int, int]] = {}
        for position, seq in enumerate(seqs.tolist()):
            for source in made[seq].inputs if seq in made else ():
                sums = found.setdefault(source.asset, {})
                sums[position] = (sums.get(position, 0) + input_hash(source)) % MODULUS
        return {
            source: (np.array(list(sums), np.int64), np.array(list(sums.values()), np.uint64))
            for source, sums in found.items()
        }

    def failures(self) -> dict[Cell, Failure]:
        """See `CatalogReader.failures`."""
        with self._reading():
            return dict(self._failures)

    def current(self, asset: AssetKey, partition: str | None = None) -> Materialization | None:
        """See `CatalogReader.current`."""
        with self._reading():
            return self._cells.get(Cell(asset, partition))

    def currents(self, asset: AssetKey, partitions: Sequence[str] | None = None) -> dict[str | None, Materialization]:
        """See `CatalogReader.currents`."""
        wanted = None if partitions is None else set(partitions)
        with self._reading():
            return {
                cell.partition: made
                for cell, made in self._cells.items()
                if cell.asset == asset and (wanted is None or cell.partition in wanted)
            }

    @property
    def dynamic_keys(self) -> DynamicKeys:
        """See `CatalogReader.dynamic_keys`."""
        return _Keys(self._keys)

    def dynamic_partition_names(self) -> list[str]:
        """See `CatalogReader.dynamic_partition_names`."""
        with self._reading():
            return sorted(name for name, keys in self._dynamic.items() if keys)

    def latest(self, assets: Collection[AssetKey] | None = None) -> dict[AssetKey, Materialization]:
        """See `CatalogReader.latest`."""
        with self._reading():
            return {made.asset: made for made in self._versions if assets is None or made.asset in assets}

    def materialization(self, version_id: str) -> Materialization | None:
        """See `CatalogReader.materialization`."""
        with self._reading():
            return next((made for made in self._versions if made.version_id == version_id), None)

    def materializations(
        self, asset: AssetKey, partition: str | None = None, *, limit: int = 100, before: str | None = None
    ) -> list[Materialization]:
        """See `CatalogReader.materializations`."""
        with self._reading():
            found = [
                made
                for made in _before(self._versions, before, lambda made: made.version_id, "version")
                if made.asset == asset and partition in (None, made.partition)
            ]
            return found[:limit]

    def runs(
        self,
        *,
        statuses: Collection[RunStatus] | None = None,
        asset: AssetKey | None = None,
        job: str | None = None,
        backfill: str | None = None,
        root: str | None = None,
        limit: int = 100,
        before: str | None = None,
    ) -> list[Run]:
        """See `CatalogReader.runs`."""
        with self._reading():
            few = statuses is not None and before is None and OPEN.issuperset(statuses)
            found = [
                self._counted(kept)
                for kept in _before((self._open if few else self._runs).values(), before, _run_id, "run")
                if (statuses is None or kept.run.status in statuses)
                and (job is None or kept.run.job == job)
                and (backfill is None or kept.run.backfill_id == backfill)
                and (root is None or root in (kept.run.run_id, kept.run.root_run_id))
                and (asset is None or any(cell.asset == asset for step in kept.plan for cell in step.cells))
            ]
            return found[:limit]

    def run(self, run_id: str) -> Run | None:
        """See `CatalogReader.run`."""
        with self._reading():
            kept = _only(self._runs, run_id, "run")
            return self._counted(kept) if kept else None

    def claims(self) -> int:
        """See `CatalogReader.claims`."""
        with self._reading():
            return self._progress.claims

    def slots(self) -> list[Slot]:
        """See `CatalogReader.slots`."""
        with self._reading():
            return [slot for slot in self._slots if self._is_held(slot)]

    def backfills(
        self,
        *,
        statuses: Collection[BackfillStatus] | None = None,
        limit: int = 100,
        before: str | None = None,
    ) -> list[Backfill]:
        """See `CatalogReader.backfills`."""
        with self._reading():
            found = [
                self._with_runs(kept)
                for kept in _before(self._backfills.values(), before, lambda kept: kept.backfill_id, "backfill")
                if statuses is None or kept.status in statuses
            ]
            return found[:limit]

    def backfill(self, backfill_id: str) -> Backfill | None:
        """See `CatalogReader.backfill`."""
        with self._reading():
            kept = _only(self._backfills, backfill_id, "backfill")
            return self._with_runs(kept) if kept else None

    def backfill_cells(self, backfill_id: str) -> Mapping[AssetKey, BackfillCells]:
        """See `CatalogReader.backfill_cells`."""
        with self._reading():
            done = {made.cell for made in self._versions if self._runs[made.run_id].run.backfill_id == backfill_id}
            last: dict[Cell, str] = {}
            for event in self._log:
                run = self._runs[event.run_id].run if event.run_id else None
                if run is None or run.backfill_id != backfill_id or "late" in event.data:
                    continue
                for cell in event.data.get("cells", ()) if event.step_key is not None else ():
                    last[Cell(AssetKey(cell["asset"]), cell.get("partition"))] = cell["status"]
        done |= {cell for cell, status in last.items() if status == StepStatus.VERIFIED}
        failed = {cell for cell, status in last.items() if status == StepStatus.FAILURE} - done
        return {
            asset: BackfillCells(_partitions(done, asset), _partitions(failed, asset))
            for asset in {cell.asset for cell in done | failed}
        }

    def automations(self) -> dict[str, Automation]:
        """See `CatalogReader.automations`."""
        with self._reading():
            return dict(sorted(self._automations.items()))

    def facts(
        self, topic: FactTopic, names: Collection[str] | None = None, *, limit: int | None = None
    ) -> dict[str, Fact]:
        """See `CatalogReader.facts`."""
        with self._reading():
            found = [one for one in self._facts.values() if one.topic is topic and (names is None or one.name in names)]
            return {one.name: one for one in found[::-1][:limit]}

    def ticks(
        self,
        names: Collection[str] | None = None,
        *,
        statuses: Collection[TickStatus] | None = None,
        before: datetime | None = None,
        limit: int = 100,
    ) -> list[Tick]:
        """See `CatalogReader.ticks`."""
        with self._reading():
            found = (
                tick
                for tick in reversed(self._ticks)
                if (names is None or tick.name in names)
                and (statuses is None or tick.status in statuses)
                and (before is None or tick.evaluated < before)
            )
            return list(islice(found, limit))

    def requested(self, name: str, keys: Collection[str]) -> dict[str, str]:
        """See `CatalogReader.requested`."""
        with self._reading():
            made = self._run_keys.get(name, {})
            return {key: made[key] for key in keys if key in made}

    def daemon(self) -> Daemon | None:
        """See `CatalogReader.daemon`."""
        with self._reading():
            return self._leases.heard(self._daemon)

    def condition_states(self, *, common: bool = False) -> list[ConditionState]:
        """See `CatalogReader.condition_states`."""
        with self._reading():
            return [one for one in self._conditions.values() if one.asset is None or not common]

    def last_event(self) -> int:
        """See `CatalogReader.last_event`."""
        with self._reading():
            return len(self._log)

    def steps(self, run_id: str) -> list[Step]:
        """See `CatalogReader.steps`."""
        with self._reading():
            kept = self._runs.get(run_id)
            if kept is None:
                return []
            return [_with_cells(step, plan) for step, plan in zip(kept.steps.values(), kept.plan, strict=True)]

    def planned(self, run_id: str) -> list[PlannedCell]:
        """See `CatalogReader.planned`."""
        with self._reading():
            kept = self._runs.get(run_id)
            if kept is None:
                return []
            return [cell for step in kept.plan for cell in step.cells if cell.version_id not in kept.committed]

    def events(
        self,
        *,
        asset: AssetKey | None = None,
        partition: str | None = None,
        run_id: str | None = None,
        step_key: str | None = None,
        kinds: Collection[str] | None = None,
        after: int = 0,
        limit: int | None = 1000,
    ) -> list[LoggedEvent]:
        """See `CatalogReader.events`."""
        with self._reading():
            start = bisect_right(self._log, after, key=lambda event: event.seq)
            found = [
                event
                for event in self._log[start:]
                if (asset is None or self._is_about(event, asset, partition))
                and run_id in (None, event.run_id)
                and step_key in (None, event.step_key)
                and (kinds is None or event.kind in kinds)
            ]
            return found[:limit]

    def definitions(self) -> dict[AssetKey, AssetDefinition]:
        """See `CatalogReader.definitions`."""
        with self._reading():
            return dict(self._definitions)

    def definition_history(self, asset: AssetKey | None = None, *, limit: int = 100) -> list[DefinitionChange]:
        """See `CatalogReader.definition_history`."""
        with self._reading():
            found = [change for change in reversed(self._changes) if asset in (None, change.asset)]
            return found[:limit]

    def query(
        self, sql: str, parameters: Sequence[Any] = (), *, relations: Mapping[str, Any] | None = None
    ) -> QueryResult:
        """Raises `UsageError`: there is no SQL here."""
        raise UsageError("The catalog in memory has no SQL.", remedy="Open a catalog in a folder.")

    def _keys(self) -> DynamicKeys:
        with self._reading():
            return self._dynamic_keys

    def _reading(self) -> threading.RLock:
        self._check_open()
        return self._lock

    def _check_open(self) -> None:
        if self._closed:
            raise CatalogError("The catalog is closed.", remedy="Open it again.")

    def _find_progress(self, run_id: str) -> RunProgress | None:
        kept = self._runs.get(run_id)
        return kept.progress if kept else None

    def _find_facts(self, topic: FactTopic, names: Collection[str]) -> Mapping[str, Fact]:
        return {name: self._facts[topic, name] for name in names if (topic, name) in self._facts}

    def _find_backfill(self, backfill_id: str) -> BackfillProgress | None:
        number = next((at for at, name in enumerate(self._backfills) if name == backfill_id), None)
        return None if number is None else BackfillProgress(number, self._backfills[backfill_id].status)

    def _counted(self, kept: _Run) -> Run:
        counts: dict[StepStatus, int] = {}
        for step in kept.steps.values():
            counts[step.status] = counts.get(step.status, 0) + 1
        return self._leases.judged(replace(kept.run, step_counts=counts), kept.run.run_id)

    def _with_runs(self, kept: Backfill) -> Backfill:
        cells = self.backfill_cells(kept.backfill_id).values()
        found = replace(
            kept,
            runs=tuple(run for run, one in self._runs.items() if one.run.backfill_id == kept.backfill_id),
            done=sum(len(one.done) for one in cells),
            failed=sum(len(one.failed) for one in cells),
        )
        return self._leases.judged(found, found.backfill_id)

    def _admit(self, event: Event) -> bool:
        check(event)
        match event:
            case RunQueued():
                self._progress.queue(event)
            case RunMoved():
                return not self._progress.move(event)
            case RunStarted():
                self._progress.start(event)
            case SlotClaimed():
                if self._progress.step(event.run_id, event.step_key).ended or self._progress.run(event.run_id).ended:
                    return True
                self._progress.claim(event)
            case RunEnded() | StepEnded():
                return not self._progress.end(event)
            case StepStarted() | StepRetried():
                return self._progress.step(event.run_id, event.step_key).ended or self._progress.run(event.run_id).ended
            case LogMessage(step_key=None):
                self._progress.run(event.run_id)
            case LogMessage(step_key=step_key):
                self._progress.step(event.run_id, step_key or "")
            case BackfillStarted():
                self._progress.start_backfill(event)
            case BackfillResumed() | BackfillEnded():
                return not self._progress.move_backfill(event)
            case AutomationMoved():
                self._progress.move_automation(event)
            case TickEnded():
                self._progress.tick(event)
            case FactChanged():
                self._progress.change_fact(event)
            case DaemonStarted():
                self._progress.start_daemon(event)
            case DaemonStopped():
                return self._progress.stop_daemon(event) is None
            case DefinitionsChanged() | DynamicPartitionsChanged() | TicksPurged() | ConditionsEvaluated():
                pass
        return False

    def _write_log(self, event: Event, late: bool) -> None:
        run_id: str | None = getattr(event, "run_id", None)
        step_key: str | None = getattr(event, "step_key", None)
        for entry in entries(event, late=late):
            self._log.append(
                LoggedEvent(
                    seq=len(self._log) + 1,
                    time=event.time,
                    kind=entry.kind,
                    run_id=run_id,
                    step_key=step_key,
                    asset=entry.asset,
                    partition=entry.partition,
                    message=entry.message,
                    data=entry.data,
                )
            )

    def _apply(self, event: Event) -> None:
        match event:
            case RunQueued():
                run = replace(_new_run(event), status=RunStatus.QUEUED, queued=event.time, behind=event.behind)
                kept = _Run(run, (), self._progress.run(event.run_id), {})
                self._runs[event.run_id] = self._open[event.run_id] = kept
            case RunMoved():
                kept = self._runs[event.run_id]
                kept.run = replace(
                    kept.run,
                    status=event.status,
                    moved=event.time,
                    host=event.host or kept.run.host,
                    pid=event.pid or kept.run.pid,
                    start_ticks=event.start_ticks if event.pid else kept.run.start_ticks,
                    behind=event.behind if event.status is RunStatus.QUEUED else None,
                )
            case RunStarted():
                self._start_run(event)
            case SlotClaimed():
                slot = Slot(pool=event.pool, run_id=event.run_id, step_key=event.step_key, attempt=event.attempt)
                self._slots.append(slot)
            case RunEnded():
                kept = self._runs[event.run_id]
                kept.run = replace(kept.run, status=event.status, ended=event.time, error=event.error, behind=None)
                del self._open[event.run_id]
            case StepStarted() | StepRetried():
                kept = self._runs[event.run_id]
                steps = kept.steps
                step = steps[event.step_key]
                if isinstance(event, StepRetried):
                    kept.retried[event.step_key] = max(event.attempt, kept.retried.get(event.step_key, 0))
                started = event.time if isinstance(event, StepStarted) else None
                steps[event.step_key] = _attempted(step, event.attempt, started)
            case StepEnded():
                self._apply_end(event)
            case DefinitionsChanged():
                self._changes += event.changes
                for change in event.changes:
                    if change.change == "removed":
                        self._definitions.pop(change.asset, None)
                self._definitions |= {definition.asset: definition for definition in event.definitions}
            case DynamicPartitionsChanged():
                keys = self._dynamic.setdefault(event.name, {})
                for key in event.deleted:
                    keys.pop(key, None)
                keys |= dict.fromkeys(event.added)
                self._dynamic_keys = InMemoryDynamicKeys({name: list(kept) for name, kept in self._dynamic.items()})
            case BackfillStarted():
                self._backfills[event.backfill_id] = _new_backfill(event)
            case BackfillResumed():
                self._backfills[event.backfill_id] = replace(
                    self._backfills[event.backfill_id],
                    status=BackfillStatus.STARTED,
                    ended=None,
                    error=None,
                    user=event.user,
                    host=event.host,
                    pid=event.pid,
                )
            case BackfillEnded():
                kept = self._backfills[event.backfill_id]
                ended = replace(kept, status=event.status, ended=event.time, error=event.error)
                self._backfills[event.backfill_id] = ended
            case AutomationMoved():
                self._keep_automation(event.name)
            case TickEnded():
                self._keep_automation(event.name)
                self._ticks.append(_tick(event))
                self._run_keys.setdefault(event.name, {}).update(event.run_keys)
            case TicksPurged():
                old = [tick for tick in self._ticks if _is_purged(tick, event)][: event.limit]
                gone = {(tick.name, tick.at) for tick in old}
                self._ticks = [tick for tick in self._ticks if (tick.name, tick.at) not in gone]
            case DaemonStarted() | DaemonStopped():
                self._daemon = self._progress.daemon()
            case FactChanged():
                self._facts.pop((event.topic, event.name), None)  # the last one changed last
                self._facts[event.topic, event.name] = Fact(
                    topic=event.topic, name=event.name, value=event.value, changed=event.time
                )
            case ConditionsEvaluated():
                self._conditions |= {one.asset: one for one in event.states}
            case LogMessage():
                pass

    def _keep_automation(self, name: str) -> None:
        automation = self._progress.automation(name)
        assert automation is not None  # the event was admitted
        self._automations[name] = automation

    def _start_run(self, event: RunStarted) -> None:
        kept = self._runs.get(event.run_id)
        run = replace(
            _new_run(event) if kept is None else kept.run,
            status=RunStatus.STARTED,
            started=event.time,
            host=event.host,
            pid=event.pid,
            start_ticks=event.start_ticks,
            behind=None,
        )
        steps = {
            one.step_key: Step(run_id=event.run_id, step_key=one.step_key, status=StepStatus.PENDING, reason=one.reason)
            for one in event.steps
        }
        kept = _Run(run, event.steps, self._progress.run(event.run_id), steps)
        self._runs[event.run_id] = self._open[event.run_id] = kept

    def _apply_end(self, event: StepEnded) -> None:
        kept = self._runs[event.run_id]
        kept.steps[event.step_key] = replace(
            kept.steps[event.step_key],
            status=event.status,
            ended=event.time,
            error=event.error,
            logs=event.logs,
            cells=event.cells,
        )
        if event.status is StepStatus.FAILURE:
            failure = Failure(run_id=event.run_id, step_key=event.step_key, time=event.time, error=event.error)
            failed = (cell for cell in event.cells if cell.status is StepStatus.FAILURE)
            self._failures |= {Cell(cell.asset, cell.partition): failure for cell in failed}
        first = len(self._log) - len(event.materializations) + 1
        for seq, made in enumerate(event.materializations, first):
            self._versions.append(made)
            self._seqs[made.version_id] = seq
            self._cells[made.cell] = made
            self._failures.pop(made.cell, None)
            kept.committed.add(made.version_id)

    def _is_held(self, slot: Slot) -> bool:
        kept = self._runs[slot.run_id]
        ended = kept.steps[slot.step_key].ended is not None or kept.retried.get(slot.step_key, 0) >= slot.attempt
        return not (ended or kept.run.status.is_over)

    def _is_about(self, event: LoggedEvent, asset: AssetKey, partition: str | None) -> bool:
        if event.asset == asset:
            return partition in (None, event.partition)
        if event.step_key is None or event.run_id is None:
            return False
        kept = self._runs[event.run_id]
        step = kept.plan[kept.progress.steps[event.step_key].number]
        return any(cell.asset == asset and partition in (None, cell.partition) for cell in step.cells)


def _run_id(kept: _Run) -> str:
    return kept.run.run_id


def _new_run(event: RunQueued | RunStarted) -> Run:
    return Run(
        run_id=event.run_id,
        status=RunStatus.STARTED,
        job=event.job,
        selection=event.selection,
        tags=event.tags,
        user=event.user,
        host=event.host,
        pid=event.pid,
        start_ticks=event.start_ticks,
        backfill_id=event.backfill_id,
        parent_run_id=event.parent_run_id,
        root_run_id=event.root_run_id,
        pools=event.pools,
        request=event.request,
    )


def _new_backfill(event: BackfillStarted) -> Backfill:
    return Backfill(
        backfill_id=event.backfill_id,
        status=BackfillStatus.STARTED,
        started=event.time,
        title=event.title,
        selection=event.selection,
        options=event.options,
        tags=event.tags,
        targets=event.targets,
        user=event.user,
        host=event.host,
        pid=event.pid,
        total=sum(target.cells for target in event.targets),
    )


def _tick(event: TickEnded) -> Tick:
    return Tick(
        name=event.name,
        at=event.at,
        evaluated=event.time,
        status=event.status,
        reason=event.reason,
        error=event.error,
        run_ids=event.run_ids,
        run_keys=event.run_keys,
        instants=event.instants,
    )


def _is_purged(tick: Tick, event: TicksPurged) -> bool:
    return tick.name in event.names and tick.status is event.status and tick.evaluated < event.before


def _partitions(cells: Collection[Cell], asset: AssetKey) -> list[str | None]:
    found = (cell.partition for cell in cells if cell.asset == asset)
    return sorted(found, key=lambda partition: (partition is not None, partition or ""))


def _attempted(step: Step, attempt: int, started: datetime | None) -> Step:
    return replace(
        step,
        status=StepStatus.STARTED,
        started=step.started or started,
        attempts=max(step.attempts, attempt),
    )


def _with_cells(step: Step, plan: PlannedStep) -> Step:
    if step.ended is not None:
        return step
    cells = (StepCell(asset=cell.asset, partition=cell.partition, status=step.status) for cell in plan.cells)
    return replace(step, cells=tuple(cells))


def _only(items: Mapping[str, Item], beginning: str, what: str) -> Item | None:
    if beginning in items:
        return items[beginning]
    between = bounds(beginning, what)
    found = [item for name, item in items.items() if between and between[0] <= name <= between[1]]
    if len(found) > 1:
        raise UsageError(f"More than one {what} starts with '{beginning}'.", remedy="Give more of the identifier.")
    return found[0] if found else None


def _before(items: Iterable[Item], before: str | None, name: Callable[[Item], str], what: str) -> list[Item]:
    newest_first = list(items)[::-1]
    if before is None:
        return newest_first
    for place, item in enumerate(newest_first):
        if name(item) == before:
            return newest_first[place + 1 :]
    raise UsageError(f"There is no {what} {before}.", remedy=f"Give the identifier of a {what} that was listed.")
