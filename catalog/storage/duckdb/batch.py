"""What a sequence of events means in rows: everything that one transaction is going to insert, delete and update."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, repeat
from operator import itemgetter
from typing import Any

from headwater.catalog.cell_hash import input_hash, sum_hashes, version_hash
from headwater.catalog.events import (
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
    EventKind,
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
from headwater.catalog.records import (
    Automation,
    BackfillStatus,
    Daemon,
    ErrorRecord,
    FactTopic,
    Fingerprint,
    Materialization,
    RunStatus,
)
from headwater.catalog.storage.admission import Progress, check
from headwater.catalog.storage.duckdb.dictionary import Dictionary, Value
from headwater.catalog.storage.duckdb.rows import (
    POINTER_COLUMNS,
    automation_row,
    backfill_row,
    daemon_row,
    fact_row,
    inputs_text,
    json_text,
    pointer_values,
    run_row,
    tick_row,
    timestamp,
)
from headwater.catalog.storage.duckdb.tables import (
    APPLIED_REQUEST,
    ASSET,
    AUTOMATION,
    BACKFILL,
    CELL,
    CONDITION_STATE,
    DAEMON,
    DEFINITION,
    DEFINITION_CHANGE,
    EVENT,
    FACT,
    FINGERPRINT,
    MANY_ROWS,
    MATERIALIZATION,
    PLANNED_CELL,
    RUN,
    RUN_KEY,
    SLOT,
    STEP,
    TICK,
    Row,
    Rows,
    Table,
)
from headwater.catalog.storage.log import entries, error_data, materialization_data, step_end


@dataclass(slots=True)
class Known:
    """What the writer keeps in memory of the catalog. After a failure it is thrown away and read again."""

    seq: int
    assets: Dictionary[AssetKey]
    fingerprints: Dictionary[Fingerprint]
    progress: Progress
    #: The assets that have a current version of any cell.
    built: set[int]
    #: About how many cells there are.
    cells: int
    #: How many partition keys have a number.
    partitions: int


#: Tables that rows are only added to.
_GROWING = (
    EVENT,
    RUN,
    STEP,
    SLOT,
    PLANNED_CELL,
    MATERIALIZATION,
    DEFINITION_CHANGE,
    BACKFILL,
    TICK,
    RUN_KEY,
    APPLIED_REQUEST,
)
#: What a cell with a partition has in its last columns.
_APART = (None, None, None, "null", None)


class Batch:
    """The rows of some events, by table, for one transaction.

    Adding to one advances `known` as if the events were committed already; who drops one drops that with it.
    """

    def __init__(self, known: Known) -> None:
        self.known = known
        #: The number of the last event in it.
        self.seq = known.seq
        #: Of runs that ended: number, time, status, error.
        self.ended_runs: list[Row] = []
        #: Of runs that wait, or have waited, by number: status, when it moved, when it started, host, process, when
        #: that began, how many steps it has, each None where that stays; the run that it waits for, and how many
        #: claims it made.
        self.moved_runs: dict[int, Row] = {}
        #: Of backfills that ended or go on, by number: status, time of the end, error, and user, host and process,
        #: None where they stay.
        self.moved_backfills: dict[int, Row] = {}
        #: Schedules that changed, by name.
        self.automations: dict[str, Automation] = {}
        #: Ticks that are not kept any more, with the number of the event that says so.
        self.purges: list[tuple[int, TicksPurged]] = []
        #: The last daemon, where that changed.
        self.daemon: Daemon | None = None
        #: Facts that changed, by topic and name.
        self.facts: dict[tuple[FactTopic, str], Row] = {}
        #: What evaluations of conditions left, by the number of the asset; None for what is about all.
        self.conditions: dict[int | None, str] = {}
        #: Assets whose definition is replaced or gone.
        self.redefined: set[int] = set()
        self._rows: dict[str, Rows] = {table.name: table.rows() for table in _GROWING}
        #: By asset, new definitions.
        self._definitions: dict[int, Row] = {}
        #: New versions of cells, with the partition's key in place of its number; and where those of each asset are.
        self._cells = CELL.rows()
        self._places: dict[int, dict[str | None, int]] = defaultdict(dict)
        #: The numbers of the partition keys of its cells; None stands for no partition.
        self._partitions: dict[str | None, int | None] = {None: None}
        #: Partition keys that get the next numbers, in this order.
        self.new_partitions: list[str] = []
        #: What becomes of keys of dynamic partitions: whether they are to be deleted, and then added, in this order.
        self._dynamic: dict[tuple[str, str], tuple[bool, bool]] = {}

    @property
    def size(self) -> int:
        """The number of rows of the log."""
        return self.seq - self.known.seq

    @property
    def is_wide(self) -> bool:
        """Whether a plan in it has so many cells that writing them into the journal first would be felt."""
        return len(self._rows[PLANNED_CELL.name]) >= MANY_ROWS

    def add(self, events: Sequence[Event]) -> None:
        """Take in `events`. Raises `CatalogError` for one that the catalog cannot hold."""
        if any(isinstance(event, FactChanged) for event in events):
            self.known.progress.find_out(events)
        for event in events:
            check(event)
            self._add(event)

    def remember(self, request: str | None) -> None:
        """What was added last was asked for by `request`, if by any."""
        if request is not None:
            self._rows[APPLIED_REQUEST.name].append((request, self.seq))

    def partitions(self) -> list[str]:
        """The partition keys of its cells."""
        return [key for key in dict.fromkeys(self._cells.columns[1]) if key is not None]

    def number_partitions(self, known: Mapping[str, int]) -> None:
        """Give a number to each of `partitions`, of which those in `known` have one already.

        To be called before `rows` and `renewed`.
        """
        self._partitions = {None: None, **known}
        self.new_partitions = [partition for partition in self.partitions() if partition not in known]
        self._partitions |= zip(self.new_partitions, count(self.known.partitions), strict=False)

    def rows(self) -> Iterator[tuple[Table, Rows]]:
        """What to insert."""
        yield ASSET, ASSET.rows((number, str(key)) for number, key in self.known.assets.added())
        codes = self.known.fingerprints.added()
        yield (
            FINGERPRINT,
            FINGERPRINT.rows((at, c.code, c.definition, c.config, c.resources, c.io, c.partitions) for at, c in codes),
        )
        for table in _GROWING:
            yield table, self._rows[table.name]
        yield AUTOMATION, AUTOMATION.rows(map(automation_row, self.automations.values()))
        yield DAEMON, DAEMON.rows(() if self.daemon is None else (daemon_row(self.daemon),))
        yield FACT, FACT.rows(self.facts.values())
        yield CONDITION_STATE, CONDITION_STATE.rows(self.conditions.items())
        yield DEFINITION, DEFINITION.rows((asset, *row) for asset, row in self._definitions.items())
        cells = CELL.rows()
        assets, keys, *rest = self._cells.columns
        cells.extend(assets, map(self._partitions.__getitem__, keys), *rest)
        yield CELL, cells

    def renewed(self) -> tuple[list[int], list[int | None]]:
        """The cells that may have an earlier version: the numbers of their assets, and those of their partitions."""
        assets: list[int] = []
        partitions: list[int | None] = []
        for asset in self._places.keys() & self.known.built:
            numbers = map(self._partitions.__getitem__, self._places[asset])
            old = [number for number in numbers if number is None or number < self.known.partitions]
            assets += [asset] * len(old)
            partitions += old
        return assets, partitions

    def deleted_keys(self) -> list[Row]:
        """Keys of dynamic partitions to delete before others are added: name and key."""
        return [pair for pair, (deleted, _) in self._dynamic.items() if deleted]

    def added_keys(self) -> list[Row]:
        """Keys of dynamic partitions to add where they are not there, in their order: name and key."""
        return [pair for pair, (_, added) in self._dynamic.items() if added]

    def commit(self) -> None:
        """The transaction stands: `known` is right."""
        known = self.known
        known.seq = self.seq
        known.assets.commit()
        known.fingerprints.commit()
        known.progress.commit()
        known.built.update(self._places)
        known.cells += len(self._cells)
        known.partitions += len(self.new_partitions)

    def _add(self, event: Event) -> None:
        progress = self.known.progress
        match event:
            case RunQueued():
                run = progress.queue(event).number
                self._add_run(run, event)
                self._log(event, run)
            case RunMoved():
                self._move_run(event)
            case RunStarted():
                self._start_run(event)
            case SlotClaimed():
                run, step = progress.run(event.run_id), progress.step(event.run_id, event.step_key)
                late = run.ended or step.ended
                if not late:
                    progress.claim(event)
                    self._rows[SLOT.name].append((run.number, step.number, event.attempt, event.pool))
                self._log(event, run.number, step.number, late=late, attempt=event.attempt)
            case RunEnded():
                run = progress.run(event.run_id)
                late = not progress.end(event)
                self._log(event, run.number, late=late)
                if not late:
                    end = (timestamp(event.time), event.status.value, _error_text(event.error))
                    self.ended_runs.append((run.number, *end))
            case StepStarted() | StepRetried():
                run, step = progress.run(event.run_id), progress.step(event.run_id, event.step_key)
                self._log(event, run.number, step.number, late=run.ended or step.ended, attempt=event.attempt)
            case StepEnded():
                self._end_step(event)
            case LogMessage():
                run = progress.run(event.run_id)
                step = None if event.step_key is None else progress.step(event.run_id, event.step_key)
                self._log(event, run.number, None if step is None else step.number)
            case DefinitionsChanged():
                self._redefine(event)
            case BackfillStarted():
                self._rows[BACKFILL.name].append(backfill_row(progress.start_backfill(event).number, event))
                self._log(event, None)
            case BackfillResumed() | BackfillEnded():
                self._move_backfill(event)
            case AutomationMoved():
                self.automations[event.name] = progress.move_automation(event)
                self._log(event, None)
            case TickEnded():
                self.automations[event.name] = progress.tick(event)
                self._log(event, None)
                self._rows[TICK.name].append(tick_row(self.seq, event))
                for key, run_id in event.run_keys.items():
                    self._rows[RUN_KEY.name].append((event.name, key, run_id))
            case TicksPurged():
                self._log(event, None)
                self.purges.append((self.seq, event))
            case DaemonStarted():
                self.daemon = progress.start_daemon(event)
                self._log(event, None)
            case DaemonStopped():
                stopped = progress.stop_daemon(event)
                self.daemon = stopped or self.daemon
                self._log(event, None, late=stopped is None)
            case FactChanged():
                changed = progress.change_fact(event)
                self._log(event, None)
                self.facts[event.topic, event.name] = fact_row(self.seq, changed)
            case ConditionsEvaluated():
                self._log(event, None)
                number = self.known.assets.number
                for one in event.states:
                    self.conditions[None if one.asset is None else number(one.asset)] = json_text(one.data)
            case DynamicPartitionsChanged():
                self._log(event, None)
                self._change_keys(event)

    def _log(
        self, event: Event, run: int | None, step: int | None = None, *, late: bool = False, attempt: int | None = None
    ) -> None:
        time = timestamp(event.time)
        found = (step_end(event, late=late),) if isinstance(event, StepEnded) else entries(event, late=late)
        for entry in found:
            self.seq += 1
            asset = None if entry.asset is None else self.known.assets.number(entry.asset)
            said = (asset, entry.partition, attempt, late, entry.message, json_text(entry.data))
            self._rows[EVENT.name].append((self.seq, time, entry.kind.value, run, step, *said))

    def _add_run(self, run: int, event: RunQueued | RunStarted) -> None:
        backfill = None if event.backfill_id is None else self.known.progress.backfill(event.backfill_id).number
        self._rows[RUN.name].append(run_row(run, event, backfill))

    def _move_run(self, event: RunMoved) -> None:
        progress = self.known.progress
        run = progress.run(event.run_id).number
        late = not progress.move(event)
        self._log(event, run, late=late)
        if not late:
            at, claims = timestamp(event.time), int(event.status is RunStatus.STARTING)
            moved = (event.status.value, at, None, event.host or None, event.pid or None, event.start_ticks, None)
            self._change_run(run, moved, event.behind, claims)

    def _change_run(self, run: int, row: Row, behind: str | None, claims: int) -> None:
        *before, _, claimed = self.moved_runs.get(run, (*(None for _ in row), None, 0))
        kept = (old if new is None else new for old, new in zip(before, row, strict=True))
        self.moved_runs[run] = (*kept, behind, claimed + claims)

    def _start_run(self, event: RunStarted) -> None:
        progress, number = self.known.progress, self.known.assets.number
        new = progress.next_number
        run = progress.start(event).number
        if run == new:
            self._add_run(run, event)
        else:
            process = event.host, event.pid, event.start_ticks
            started = (RunStatus.STARTED.value, None, timestamp(event.time), *process, len(event.steps))
            self._change_run(run, started, None, 1)
        for at, step in enumerate(event.steps):
            self._rows[STEP.name].append((run, at, step.step_key, step.reason))
            for cell in step.cells:
                row = (run, at, number(cell.asset), cell.partition, cell.version_id, cell.folder)
                self._rows[PLANNED_CELL.name].append(row)
        self._log(event, run)

    def _end_step(self, event: StepEnded) -> None:
        progress = self.known.progress
        run, step = progress.run(event.run_id).number, progress.step(event.run_id, event.step_key).number
        late = not progress.end(event)
        self._log(event, run, step, late=late)
        if not late:
            self._materialize(event.materializations, timestamp(event.time), run, step)

    def _materialize(self, made: Sequence[Materialization], time: str, run: int, step: int) -> None:
        # Column by column: a step may have made a hundred thousand.
        many = len(made)
        seqs = range(self.seq + 1, self.seq + many + 1)
        self.seq += many
        assets = _numbers(self.known.assets, [one.asset for one in made])
        fingerprints = _numbers(self.known.fingerprints, [one.fingerprint for one in made])
        partitions = [one.partition for one in made]
        hashes = [[input_hash(source) for source in one.inputs] for one in made]
        inputs = [self._inputs_text(one, versions) for one, versions in zip(made, hashes, strict=True)]
        pointers = [pointer_values(one.pointer) for one in made]
        self._rows[EVENT.name].extend(
            seqs,
            repeat(time, many),
            repeat(EventKind.ASSET_MATERIALIZATION.value, many),
            repeat(run, many),
            repeat(step, many),
            assets,
            partitions,
            repeat(None, many),
            repeat(False, many),
            repeat("", many),
            [json_text(materialization_data(one)) for one in made],
        )
        self._rows[MATERIALIZATION.name].extend(
            seqs,
            [one.version_id for one in made],
            assets,
            partitions,
            repeat(run, many),
            repeat(step, many),
            [timestamp(one.created) for one in made],
            [one.seconds for one in made],
            fingerprints,
            [one.data_version for one in made],
            *(map(itemgetter(place), pointers) for place in range(POINTER_COLUMNS)),
            inputs,
            [json_text(one.metadata) for one in made],
            [json_text(one.tags) for one in made],
        )
        for at, one in enumerate(made):
            alone = one.partition is None
            details = (one.version_id, one.data_version, pointers[at][-1], inputs[at], one.pointer is not None)
            self._renew(
                assets[at],
                one.partition,
                seqs[at],
                fingerprints[at],
                version_hash(one.asset, one.partition, one.data_version),
                sum_hashes([source.asset for source in one.inputs], hashes[at]),
                *(details if alone else _APART),
            )

    def _inputs_text(self, made: Materialization, hashes: Sequence[int]) -> str:
        return inputs_text(made.inputs, [self.known.assets.number(source.asset) for source in made.inputs], hashes)

    def _renew(self, *cell: Any) -> None:
        """Take in a cell's new version; only its last one is inserted."""
        places = self._places[cell[0]]
        place = places.setdefault(cell[1], len(self._cells))
        if place < len(self._cells):
            self._cells.replace(place, cell)
        else:
            self._cells.append(cell)

    def _redefine(self, event: DefinitionsChanged) -> None:
        number = self.known.assets.number
        first = self.seq + 1
        self._log(event, None)
        recorded = timestamp(event.time)
        data = {definition.asset: json_text(definition.data) for definition in event.definitions}
        for seq, change in enumerate(event.changes, first):
            what = (timestamp(change.changed), change.change, json_text(change.parts), data.get(change.asset))
            self._rows[DEFINITION_CHANGE.name].append((seq, number(change.asset), *what))
        gone = {number(change.asset) for change in event.changes if change.change == "removed"}
        current = {
            number(definition.asset): (recorded, data[definition.asset], json_text(definition.metadata))
            for definition in event.definitions
        }
        changed = gone | current.keys()
        self.redefined |= changed
        self._definitions = {asset: row for asset, row in self._definitions.items() if asset not in changed} | current

    def _move_backfill(self, event: BackfillResumed | BackfillEnded) -> None:
        progress = self.known.progress
        number = progress.backfill(event.backfill_id).number
        late = not progress.move_backfill(event)
        self._log(event, None, late=late)
        if late:
            return
        if isinstance(event, BackfillResumed):
            row = (BackfillStatus.STARTED.value, None, None, event.user, event.host, event.pid)
        else:
            *_, user, host, pid = self.moved_backfills.get(number, (None, None, None))
            row = (event.status.value, timestamp(event.time), _error_text(event.error), user, host, pid)
        self.moved_backfills[number] = row

    def _change_keys(self, event: DynamicPartitionsChanged) -> None:
        for key in event.deleted:
            self._dynamic.pop((event.name, key), None)
            self._dynamic[event.name, key] = (True, False)
        for key in event.added:
            deleted, added = self._dynamic.get((event.name, key), (False, False))
            if not added:
                self._dynamic.pop((event.name, key), None)
                self._dynamic[event.name, key] = (deleted, True)


def _numbers(dictionary: Dictionary[Value], values: Iterable[Value]) -> list[int]:
    """The numbers of `values`, in which the same one comes many times in a row."""
    last: object = None
    number = -1
    found: list[int] = []
    for value in values:
        if value is not last:
            last, number = value, dictionary.number(value)
        found.append(number)
    return found


def _error_text(error: ErrorRecord | None) -> str | None:
    return None if error is None else json_text(error_data(error))
