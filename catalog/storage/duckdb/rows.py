"""Records as rows and back. Times are naive UTC, nested parts JSON text; see the migrations for the columns.

JSON texts: columns `[{"name", "type", "nulls"?, "min"?, "max"?}]`; column_versions `{name: version}`; metadata and
errors as `headwater.catalog.metadata` and `headwater.catalog.storage.log` write them.
"""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec

from headwater.catalog.events import AssetDefinition, BackfillStarted, RunQueued, RunStarted, TickEnded
from headwater.catalog.keys import AssetKey
from headwater.catalog.metadata import MetadataValue
from headwater.catalog.records import (
    Automation,
    AutomationStatus,
    Backfill,
    BackfillStatus,
    BackfillTarget,
    Column,
    Daemon,
    ErrorRecord,
    Fact,
    FactTopic,
    Failure,
    Fingerprint,
    Input,
    LogSlice,
    Materialization,
    Pointer,
    Run,
    RunStatus,
    Step,
    StepCell,
    StepStatus,
    Tick,
    TickStatus,
)
from headwater.catalog.storage.duckdb.tables import Row
from headwater.catalog.storage.journal import plain, revive
from headwater.catalog.storage.log import error_data

Kind = TypeVar("Kind")

#: How many columns `pointer_values` gives.
POINTER_COLUMNS = 8


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What the data of an event that ended a step says of it."""

    cells: tuple[StepCell, ...] = ()
    error: ErrorRecord | None = None
    logs: tuple[LogSlice, ...] = ()


_encode = msgspec.json.Encoder(enc_hook=plain).encode


def json_text(data: Any) -> str:
    """`data` as JSON text."""
    return _encode(data).decode()


def from_json(text: str, kind: type[Kind]) -> Kind:
    """What `json_text` wrote, as a `kind`. Raises `msgspec.DecodeError` for anything else."""
    return _decoder(kind).decode(text)


def timestamp(time: datetime) -> str:
    """A time in UTC as DuckDB reads a TIMESTAMP: without its zone."""
    return time.replace(tzinfo=None).isoformat(" ")


def aware(time: datetime) -> datetime:
    """A TIMESTAMP as a time in UTC."""
    return time.replace(tzinfo=UTC)


def aware_or_none(time: datetime | None) -> datetime | None:
    """The same, where there may be none."""
    return None if time is None else time.replace(tzinfo=UTC)


def run_row(number: int, event: RunQueued | RunStarted, backfill: int | None) -> Row:
    """A row of `run`."""
    time = timestamp(event.time)
    waits = isinstance(event, RunQueued)
    return (
        number,
        event.run_id,
        None if waits else time,
        None,
        (RunStatus.QUEUED if waits else RunStatus.STARTED).value,
        event.job,
        event.selection,
        json_text(event.tags),
        event.user,
        event.host,
        event.pid,
        event.start_ticks,
        0 if waits else len(event.steps),
        backfill,
        None,
        time if waits else None,
        None,
        event.parent_run_id,
        event.root_run_id,
        json_text(event.pools),
        event.behind if waits else None,
        json_text(event.request),
        0 if waits else 1,
    )


def backfill_row(number: int, event: BackfillStarted) -> Row:
    """A row of `backfill`."""
    return (
        number,
        event.backfill_id,
        timestamp(event.time),
        None,
        BackfillStatus.STARTED.value,
        event.title,
        event.selection,
        json_text(event.options),
        json_text(event.tags),
        event.user,
        event.host,
        event.pid,
        json_text(event.targets),
        sum(target.cells for target in event.targets),
        None,
    )


def run(row: Row, step_counts: Mapping[StepStatus, int]) -> Run:
    """A run from a row of query `runs`."""
    run_id, status, started, ended, job, selection, tags, user, host, pid, ticks, error, backfill_id, *queue = row
    queued, moved, parent, root, pools, behind, request = queue
    return Run(
        run_id=run_id,
        status=RunStatus(status),
        started=aware_or_none(started),
        ended=aware_or_none(ended),
        queued=aware_or_none(queued),
        moved=aware_or_none(moved),
        job=job,
        selection=selection,
        tags=from_json(tags, dict[str, str]),
        user=user,
        host=host,
        pid=pid,
        start_ticks=ticks,
        error=None if error is None else from_json(error, ErrorRecord),
        backfill_id=backfill_id,
        parent_run_id=parent,
        root_run_id=root,
        pools=from_json(pools, tuple[str, ...]),
        behind=behind,
        request=from_json(request, dict[str, Any]),
        step_counts=step_counts,
    )


def backfill(row: Row) -> Backfill:
    """A backfill from a row of query `backfills`."""
    (
        backfill_id,
        status,
        started,
        ended,
        title,
        selection,
        options,
        tags,
        user,
        host,
        pid,
        targets,
        total,
        error,
        runs,
        done,
        failed,
    ) = row
    return Backfill(
        backfill_id=backfill_id,
        status=BackfillStatus(status),
        started=aware(started),
        ended=aware_or_none(ended),
        title=title,
        selection=selection,
        options=from_json(options, dict[str, Any]),
        tags=from_json(tags, dict[str, str]),
        targets=from_json(targets, tuple[BackfillTarget, ...]),
        user=user,
        host=host,
        pid=pid,
        runs=tuple(runs),
        done=done,
        failed=failed,
        total=total,
        error=None if error is None else from_json(error, ErrorRecord),
    )


def automation(row: Row) -> Automation:
    """A schedule or sensor from a row of query `automations`."""
    name, status, until, ticked, cursor, last_run_key, failures = row
    return Automation(
        name=name,
        status=None if status is None else AutomationStatus(status),
        until=aware(until),
        ticked=aware_or_none(ticked),
        cursor=cursor,
        last_run_key=last_run_key,
        failures=failures,
    )


def automation_row(automation: Automation) -> Row:
    """A row of `automation`."""
    ticked = None if automation.ticked is None else timestamp(automation.ticked)
    return (
        automation.name,
        automation.status,
        timestamp(automation.until),
        ticked,
        automation.cursor,
        automation.last_run_key,
        automation.failures,
    )


def daemon(row: Row) -> Daemon:
    """A daemon from a row of query `daemon`."""
    epoch, started, ended, user, host, pid, ticks = row
    return Daemon(
        epoch=epoch,
        started=aware(started),
        ended=aware_or_none(ended),
        user=user,
        host=host,
        pid=pid,
        start_ticks=ticks,
    )


def daemon_row(daemon: Daemon) -> Row:
    """A row of `daemon`."""
    ended = None if daemon.ended is None else timestamp(daemon.ended)
    process = daemon.host, daemon.pid, daemon.start_ticks
    return daemon.epoch, timestamp(daemon.started), ended, daemon.user, *process


def fact(row: Row) -> Fact:
    """A fact from a row of query `facts`."""
    topic, name, changed, value = row
    return Fact(topic=FactTopic(topic), name=name, value=from_json(value, dict[str, Any]), changed=aware(changed))


def fact_row(seq: int, fact: Fact) -> Row:
    """A row of `fact`."""
    return seq, fact.topic.value, fact.name, timestamp(fact.changed), json_text(fact.value)


def tick(row: Row) -> Tick:
    """A tick from a row of query `ticks`."""
    name, at, evaluated, status, reason, error, run_ids, run_keys, instants = row
    return Tick(
        name=name,
        at=aware(at),
        evaluated=aware(evaluated),
        status=TickStatus(status),
        reason=reason,
        error=None if error is None else from_json(error, ErrorRecord),
        run_ids=from_json(run_ids, tuple[str, ...]),
        run_keys=from_json(run_keys, dict[str, str]),
        instants=instants,
    )


def tick_row(seq: int, event: TickEnded) -> Row:
    """A row of `tick`."""
    return (
        seq,
        event.name,
        timestamp(event.at),
        timestamp(event.time),
        event.status.value,
        event.reason,
        None if event.error is None else json_text(error_data(event.error)),
        json_text(event.run_ids),
        json_text(event.run_keys),
        event.instants,
    )


def step_status(ended_as: str | None) -> StepStatus:
    """The status of a step that started, from the kind of the event that ended it."""
    return StepStatus.STARTED if ended_as is None else StepStatus(ended_as.removeprefix("STEP_"))


def step(run_id: str, row: Row, planned: Iterable[tuple[AssetKey, str | None]]) -> Step:
    """A step from a row of query `steps` and the cells that it planned."""
    _, step_key, reason, started, attempts, ended_as, ended, data, pending = row
    status = StepStatus.PENDING if pending else step_status(ended_as)
    outcome = (
        from_json(data, _Outcome)
        if data
        else _Outcome(tuple(StepCell(asset=asset, partition=partition, status=status) for asset, partition in planned))
    )
    return Step(
        run_id=run_id,
        step_key=step_key,
        status=status,
        reason=reason,
        started=aware_or_none(started),
        ended=aware_or_none(ended),
        attempts=attempts,
        error=outcome.error,
        logs=outcome.logs,
        cells=outcome.cells,
    )


def failure(row: Row) -> Failure:
    """The end of a query `failed_steps` row."""
    run_id, step_key, time, error = row
    record = None if error is None else from_json(error, ErrorRecord)
    return Failure(run_id=run_id, step_key=step_key, time=aware(time), error=record)


def inputs_text(inputs: Sequence[Input], numbers: Sequence[int], hashes: Sequence[int]) -> str:
    """The inputs of a materialization, the assets by number, with the hashes of their versions."""
    if not inputs:
        return "[]"
    return json_text(
        [
            {
                "asset_id": number,
                "partition": source.partition,
                "version_id": source.version_id,
                "data_version": source.data_version,
                "columns": None if source.columns is None else json_text(source.columns),
                "hash": version,
            }
            for source, number, version in zip(inputs, numbers, hashes, strict=True)
        ]
    )


def pointer_values(pointer: Pointer | None) -> tuple[Any, ...]:
    """The columns of `materialization` from uri to column_versions."""
    if pointer is None:
        return (None,) * POINTER_COLUMNS
    columns: list[dict[str, Any]] = []
    versions: dict[str, str] = {}
    for column in pointer.columns:
        data: dict[str, Any] = {"name": column.name, "type": column.type}
        if column.nulls is not None:
            data["nulls"] = column.nulls
        if column.min is not None:
            data["min"] = column.min
        if column.max is not None:
            data["max"] = column.max
        columns.append(data)
        if column.version is not None:
            versions[column.name] = column.version
    return (
        pointer.uri,
        pointer.format,
        pointer.representation,
        pointer.rows,
        pointer.bytes,
        pointer.checksum,
        json_text(columns),
        json_text(versions),
    )


def materialization(
    row: Row, asset: Callable[[int], AssetKey], fingerprint: Callable[[int], Fingerprint]
) -> Materialization:
    """A materialization from a row of query `materializations`."""
    (
        version_id,
        asset_id,
        partition,
        run_id,
        step_key,
        created,
        seconds,
        fingerprint_id,
        data_version,
        uri,
        form,
        representation,
        rows,
        size,
        checksum,
        columns,
        column_versions,
        inputs,
        meta,
        tags,
    ) = row
    pointer = None
    if uri is not None:
        pointer = Pointer(
            uri=uri,
            format=form,
            representation=representation,
            rows=rows,
            bytes=size,
            checksum=checksum,
            columns=_columns(columns, column_versions),
        )
    return Materialization(
        version_id=version_id,
        asset=asset(asset_id),
        partition=partition,
        run_id=run_id,
        step_key=step_key,
        created=aware(created),
        fingerprint=fingerprint(fingerprint_id),
        data_version=data_version,
        pointer=pointer,
        inputs=tuple(_input(entry, asset) for entry in from_json(inputs, list[dict[str, Any]])),
        metadata=from_json(meta, dict[str, MetadataValue]),
        tags=from_json(tags, dict[str, str]),
        seconds=seconds,
    )


def definition(row: Row, asset: Callable[[int], AssetKey]) -> AssetDefinition:
    """A definition from a row of query `definitions`."""
    asset_id, data, meta = row
    return AssetDefinition(
        asset=asset(asset_id), data=from_json(data, dict[str, Any]), metadata=from_json(meta, dict[str, MetadataValue])
    )


def _columns(columns: str, column_versions: str) -> tuple[Column, ...]:
    versions = from_json(column_versions, dict[str, str])
    return tuple(
        Column(version=versions.get(data["name"]), **data) for data in from_json(columns, list[dict[str, Any]])
    )


def _input(entry: dict[str, Any], asset: Callable[[int], AssetKey]) -> Input:
    columns = entry["columns"]
    return Input(
        asset=asset(entry["asset_id"]),
        partition=entry["partition"],
        version_id=entry["version_id"],
        data_version=entry["data_version"],
        columns=None if columns is None else from_json(columns, dict[str, str]),
    )


@functools.cache
def _decoder(kind: type[Kind]) -> "msgspec.json.Decoder[Kind]":
    return msgspec.json.Decoder(kind, dec_hook=revive)
