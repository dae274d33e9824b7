"""What a sequence of events means in rows: everything that one transaction is going to insert, delete and update."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from headwater.catalog.cell_hash import input_hash, key_hash, sum_hashes, version_hash
from headwater.catalog.events import (
    BackfillEnded,
    BackfillResumed,
    BackfillStarted,
    DefinitionsChanged,
    DynamicPartitionsChanged,
    Event,
    LogMessage,
    RunEnded,
    RunStarted,
    StepEnded,
    StepRetried,
    StepStarted,
)
from headwater.catalog.keys import AssetKey
from headwater.catalog.records import BackfillStatus, ErrorRecord, Fingerprint, Materialization
from headwater.catalog.storage.admission import Progress, check
from headwater.catalog.storage.duckdb.dictionary import Dictionary
from headwater.catalog.storage.duckdb.rows import (
    backfill_row,
    inputs_text,
    json_text,
    pointer_values,
    run_row,
    timestamp,
)
from headwater.catalog.storage.duckdb.tables import (
    ASSET,
    BACKFILL,
    CELL,
    DEFINITION,
    DEFINITION_CHANGE,
    EVENT,
    FINGERPRINT,
    MATERIALIZATION,
    PARTITION_KEY,
    PLANNED_CELL,
    RUN,
    STEP,
    Row,
    Table,
)
from headwater.catalog.storage.log import entries, error_data


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
        #: Of backfills that ended or go on, by number: status, time of the end, error, and user, host and process,
        #: None where they stay.
        self.moved_backfills: dict[int, Row] = {}
        #: Assets whose definition is replaced or gone.
        self.redefined: set[int] = set()
        self._rows: dict[str, list[Row]] = defaultdict(list)
        self._cells: dict[tuple[int, str | None], Row] = {}
        #: The numbers of the partition keys of its cells; None stands for no partition.
        self._partitions: dict[str | None, int | None] = {None: None}
        self._new_partitions: list[Row] = []
        #: What becomes of keys of dynamic partitions: whether they are to be deleted, and then added, in this order.
        self._dynamic: dict[tuple[str, str], tuple[bool, bool]] = {}

    @property
    def size(self) -> int:
        """The number of rows of the log."""
        return self.seq - self.known.seq

    def add(self, events: Sequence[Event]) -> None:
        """Take in `events`. Raises `CatalogError` for one that the catalog cannot hold."""
        for event in events:
            check(event)
            self._add(event)

    def partitions(self) -> list[str]:
        """The partition keys of its cells."""
        return list({partition for _, partition in self._cells if partition is not None})

    def number_partitions(self, known: Mapping[str, int]) -> None:
        """Give a number to each of `partitions`, of which those in `known` have one already.

        To be called before `rows` and `renewed`.
        """
        self._partitions = {None: None, **known}
        new = (partition for partition in self.partitions() if partition not in known)
        self._new_partitions = [
            (number, partition, key_hash(partition)) for number, partition in enumerate(new, self.known.partitions)
        ]
        self._partitions |= {partition: number for number, partition, _ in self._new_partitions}

    def rows(self) -> Iterator[tuple[Table, list[Row]]]:
        """What to insert."""
        yield ASSET, [(number, str(key)) for number, key in self.known.assets.added()]
        codes = self.known.fingerprints.added()
        yield (
            FINGERPRINT,
            [(at, c.code, c.definition, c.config, c.resources, c.io, c.partitions) for at, c in codes],
        )
        for table in (EVENT, RUN, STEP, PLANNED_CELL, MATERIALIZATION, DEFINITION, DEFINITION_CHANGE, BACKFILL):
            yield table, self._rows[table.name]
        yield PARTITION_KEY, self._new_partitions
        yield CELL, [(asset, self._partitions[key], *row) for (asset, key), row in self._cells.items()]

    def renewed(self) -> list[tuple[int, int | None]]:
        """The cells, by the numbers of asset and partition, that may have an earlier version."""
        built = self.known.built
        numbers = ((asset, self._partitions[partition]) for asset, partition in self._cells if asset in built)
        return [(asset, number) for asset, number in numbers if number is None or number < self.known.partitions]

    def deleted_keys(self) -> list[Row]:
        """Keys of dynamic partitions to delete before others are added: name, key, its hash."""
        return [(*pair, key_hash(pair[1])) for pair, (deleted, _) in self._dynamic.items() if deleted]

    def added_keys(self) -> list[Row]:
        """Keys of dynamic partitions to add where they are not there, in their order: name, key, its hash."""
        return [(*pair, key_hash(pair[1])) for pair, (_, added) in self._dynamic.items() if added]

    def commit(self) -> None:
        """The transaction stands: `known` is right."""
        known = self.known
        known.seq = self.seq
        known.assets.commit()
        known.fingerprints.commit()
        known.progress.commit()
        known.built.update(asset for asset, _ in self._cells)
        known.cells += len(self._cells)
        known.partitions += len(self._new_partitions)

    def _add(self, event: Event) -> None:
        progress = self.known.progress
        match event:
            case RunStarted():
                self._start_run(event)
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
            case DynamicPartitionsChanged():
                self._log(event, None)
                self._change_keys(event)

    def _log(
        self, event: Event, run: int | None, step: int | None = None, *, late: bool = False, attempt: int | None = None
    ) -> None:
        time = timestamp(event.time)
        rows = self._rows[EVENT.name]
        for entry in entries(event, late=late):
            self.seq += 1
            asset = None if entry.asset is None else self.known.assets.number(entry.asset)
            data = json_text(entry.data)
            rows.append(
                (
                    self.seq,
                    time,
                    entry.kind.value,
                    run,
                    step,
                    asset,
                    entry.partition,
                    attempt,
                    late,
                    entry.message,
                    data,
                )
            )

    def _start_run(self, event: RunStarted) -> None:
        progress = self.known.progress
        run = progress.start(event).number
        number = self.known.assets.number
        backfill = None if event.backfill_id is None else progress.backfill(event.backfill_id).number
        self._rows[RUN.name].append(run_row(run, event, backfill))
        self._rows[STEP.name] += [(run, at, step.step_key, step.reason) for at, step in enumerate(event.steps)]
        self._rows[PLANNED_CELL.name] += [
            (run, at, number(cell.asset), cell.partition, cell.version_id, cell.folder)
            for at, step in enumerate(event.steps)
            for cell in step.cells
        ]
        self._log(event, run)

    def _end_step(self, event: StepEnded) -> None:
        progress = self.known.progress
        run, step = progress.run(event.run_id).number, progress.step(event.run_id, event.step_key).number
        late = not progress.end(event)
        self._log(event, run, step, late=late)
        if not late:
            first = self.seq - len(event.materializations) + 1
            for seq, made in enumerate(event.materializations, first):
                self._materialize(seq, made, run, step)

    def _materialize(self, seq: int, made: Materialization, run: int, step: int) -> None:
        known = self.known
        asset = known.assets.number(made.asset)
        fingerprint = known.fingerprints.number(made.fingerprint)
        hashes = [input_hash(source) for source in made.inputs]
        inputs = inputs_text(made.inputs, [known.assets.number(source.asset) for source in made.inputs], hashes)
        pointer = pointer_values(made.pointer)
        self._rows[MATERIALIZATION.name].append(
            (
                seq,
                made.version_id,
                asset,
                made.partition,
                run,
                step,
                timestamp(made.created),
                made.seconds,
                fingerprint,
                made.data_version,
                *pointer,
                inputs,
                json_text(made.metadata),
                json_text(made.tags),
            )
        )
        alone = made.partition is None
        self._cells[asset, made.partition] = (
            seq,
            fingerprint,
            version_hash(made.asset, made.partition, made.data_version),
            sum_hashes((source.asset for source in made.inputs), hashes),
            *((made.version_id, made.data_version, pointer[-1], inputs, made.pointer is not None) if alone else _APART),
        )

    def _redefine(self, event: DefinitionsChanged) -> None:
        number = self.known.assets.number
        first = self.seq + 1
        self._log(event, None)
        recorded = timestamp(event.time)
        data = {definition.asset: json_text(definition.data) for definition in event.definitions}
        self._rows[DEFINITION_CHANGE.name] += [
            (
                seq,
                number(change.asset),
                timestamp(change.changed),
                change.change,
                json_text(change.parts),
                data.get(change.asset),
            )
            for seq, change in enumerate(event.changes, first)
        ]
        gone = {number(change.asset) for change in event.changes if change.change == "removed"}
        current = {
            number(definition.asset): (recorded, data[definition.asset], json_text(definition.metadata))
            for definition in event.definitions
        }
        changed = gone | current.keys()
        self.redefined |= changed
        kept = [row for row in self._rows[DEFINITION.name] if row[0] not in changed]
        self._rows[DEFINITION.name] = kept + [(asset, *values) for asset, values in current.items()]

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


def _error_text(error: ErrorRecord | None) -> str | None:
    return None if error is None else json_text(error_data(error))
