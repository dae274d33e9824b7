"""How events read in the log. One function for every storage, so that the log is the same everywhere."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from headwater.catalog import metadata
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
from headwater.catalog.records import DefinitionChange, ErrorRecord, Materialization, StepCell


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of the log, but for what its event says: number, time, run and step."""

    kind: EventKind
    message: str
    data: Mapping[str, Any]
    asset: AssetKey | None = None
    partition: str | None = None


def entries(event: Event, *, late: bool = False) -> Iterator[Entry]:
    """The rows of the log that `event` becomes, in order; `late` when it came too late to change anything.

    Their `data`, by kind, with whatever is empty or None left out:

    - RUN_QUEUED: job, selection, tags, user, host, pid, backfill_id, parent_run_id, root_run_id, pools, behind, request
    - RUN_START: the same without behind, and steps (how many), cells (how many)
    - RUN_STARTING, RUN_CANCELING, and RUN_QUEUED for a run that gives its turn back: user, host, pid, behind
    - RUN_SUCCESS, RUN_FAILURE, RUN_CANCELED, RUN_INTERRUPTED: error
    - SLOT_CLAIMED: pool, attempt; STEP_START: attempt; STEP_RETRY: attempt, delay (seconds), error
    - STEP_SUCCESS and the other ends of a step: cells, error, logs
    - ASSET_MATERIALIZATION: version_id, data_version, uri, rows, bytes
    - LOG_MESSAGE: level; DEFINITIONS_CHANGED: change, parts
    - DYNAMIC_PARTITIONS_CHANGED: name, added, deleted
    - BACKFILL_START: backfill_id, selection, options, tags, user, host, pid, assets (how many), cells (how many)
    - AUTOMATION_RUNNING, AUTOMATION_STOPPED, AUTOMATION_SEEN: name, until, cursor, user, host, pid
    - TICK_SUCCESS, TICK_SKIPPED, TICK_FAILURE: name, at, run_ids, run_keys, error, cursor, instants where it is not 1
    - TICKS_PURGED: status, before, names (how many)
    - DAEMON_START: epoch, user, host, pid; DAEMON_STOP: epoch
    - AUTOMATION_RUNNING, AUTOMATION_STOPPED, AUTOMATION_SEEN: name, until, user, host, pid
    - TICK_SUCCESS, TICK_SKIPPED, TICK_FAILURE: name, at, run_ids, run_keys, error, instants where it is not 1
    - FRESHNESS_CHANGED, STALENESS_CHANGED, ALERTING_CHANGED, ALERT_CHANGED: name, value, before
    - CONDITION_EVALUATED: assets (how many are different); for each of them requested (how many cells), tree
    - BACKFILL_RESUME: backfill_id, user, host, pid; BACKFILL_SUCCESS and other ends: backfill_id, error

    A late one has `late: true` besides, and what it materialized as versions.
    """
    mark: dict[str, Any] = {"late": True} if late else {}
    match event:
        case RunQueued():
            yield Entry(EventKind.RUN_QUEUED, event.selection or event.job or "", _run_data(event))
        case RunMoved():
            data = _present(user=event.user, host=event.host, pid=event.pid, behind=event.behind) | mark
            yield Entry(EventKind[f"RUN_{event.status}"], "", data)
        case RunStarted():
            plan = {"steps": len(event.steps), "cells": sum(len(step.cells) for step in event.steps)}
            yield Entry(EventKind.RUN_START, event.selection or event.job or "", _run_data(event) | plan)
        case RunEnded():
            data = _present(error=error_data(event.error)) | mark
            yield Entry(EventKind[f"RUN_{event.status}"], _message(event.error), data)
        case SlotClaimed():
            yield Entry(EventKind.SLOT_CLAIMED, event.pool, {"pool": event.pool, "attempt": event.attempt} | mark)
        case StepStarted():
            yield Entry(EventKind.STEP_START, "", {"attempt": event.attempt} | mark)
        case StepRetried():
            data = {"attempt": event.attempt, "delay": event.delay, "error": error_data(event.error)} | mark
            yield Entry(EventKind.STEP_RETRY, event.error.message, data)
        case StepEnded():
            yield step_end(event, late=late)
            if not late:
                for made in event.materializations:
                    data = materialization_data(made)
                    yield Entry(EventKind.ASSET_MATERIALIZATION, "", data, made.asset, made.partition)
        case LogMessage():
            yield Entry(EventKind.LOG_MESSAGE, event.message, _present(level=event.level))
        case DefinitionsChanged():
            yield from map(_definition_change, event.changes)
        case DynamicPartitionsChanged():
            data = _present(name=event.name, added=list(event.added), deleted=list(event.deleted))
            yield Entry(EventKind.DYNAMIC_PARTITIONS_CHANGED, _counts(event), data)
        case BackfillStarted():
            yield Entry(EventKind.BACKFILL_START, event.title or event.selection or "", _backfill_data(event))
        case BackfillResumed():
            data = _present(backfill_id=event.backfill_id, user=event.user, host=event.host, pid=event.pid) | mark
            yield Entry(EventKind.BACKFILL_RESUME, "", data)
        case BackfillEnded():
            data = _present(backfill_id=event.backfill_id, error=error_data(event.error)) | mark
            yield Entry(EventKind[f"BACKFILL_{event.status}"], _message(event.error), data)
        case AutomationMoved():
            more = _present(cursor=event.cursor, user=event.user, host=event.host, pid=event.pid)
            data = {"name": event.name, "until": event.until.isoformat()} | more
            yield Entry(EventKind[f"AUTOMATION_{event.status or 'SEEN'}"], event.name, data)
        case TickEnded():
            yield Entry(EventKind[f"TICK_{event.status}"], event.reason or _message(event.error), _tick_data(event))
        case TicksPurged():
            data = {"status": event.status.value, "before": event.before.isoformat(), "names": len(event.names)}
            yield Entry(EventKind.TICKS_PURGED, "", data)
        case DaemonStarted():
            data = {"epoch": event.epoch} | _present(user=event.user, host=event.host, pid=event.pid)
            yield Entry(EventKind.DAEMON_START, "", data)
        case DaemonStopped():
            yield Entry(EventKind.DAEMON_STOP, "", {"epoch": event.epoch} | mark)
        case FactChanged():
            data = {"name": event.name, "value": dict(event.value)} | _present(
                before=event.before and dict(event.before)
            )
            about = AssetKey(event.name) if event.topic.of_assets else None
            yield Entry(EventKind[f"{event.topic}_CHANGED"], event.message, data, about)
        case ConditionsEvaluated():
            yield Entry(EventKind.CONDITION_EVALUATED, "", _present(assets=len(event.evaluations)))
            for one in event.evaluations:
                data = _present(requested=one.requested) | {"tree": one.tree}
                yield Entry(EventKind.CONDITION_EVALUATED, "", data, one.asset)


def _tick_data(event: TickEnded) -> dict[str, Any]:
    more = _present(
        run_ids=list(event.run_ids),
        run_keys=dict(event.run_keys),
        error=error_data(event.error),
        cursor=event.cursor,
        instants=event.instants if event.instants > 1 else 0,
    )
    return {"name": event.name, "at": event.at.isoformat()} | more


def error_data(error: ErrorRecord | None) -> dict[str, Any] | None:
    """An error as JSON data, from which `msgspec.convert` makes an `ErrorRecord` again."""
    if error is None:
        return None
    more = _present(traceback=error.traceback, remedy=error.remedy, metadata=metadata.to_json(error.metadata))
    return {"kind": error.kind, "message": error.message} | more


def _run_data(event: RunQueued | RunStarted) -> dict[str, Any]:
    return _present(
        job=event.job,
        selection=event.selection,
        tags=dict(event.tags),
        user=event.user,
        host=event.host,
        pid=event.pid,
        backfill_id=event.backfill_id,
        parent_run_id=event.parent_run_id,
        root_run_id=event.root_run_id,
        pools=list(event.pools),
        behind=event.behind if isinstance(event, RunQueued) else None,
        request=dict(event.request),
    )


def _backfill_data(event: BackfillStarted) -> dict[str, Any]:
    data = _present(
        backfill_id=event.backfill_id,
        selection=event.selection,
        options=dict(event.options),
        tags=dict(event.tags),
        user=event.user,
        host=event.host,
        pid=event.pid,
    )
    return data | {"assets": len(event.targets), "cells": sum(target.cells for target in event.targets)}


def step_end(event: StepEnded, *, late: bool) -> Entry:
    """The row for the end of a step itself."""
    data = _present(
        cells=[_cell_data(cell) for cell in event.cells],
        error=error_data(event.error),
        logs=[asdict(log) for log in event.logs],
    )
    if late:
        data |= {"late": True} | _present(versions=[made.version_id for made in event.materializations])
    return Entry(EventKind[f"STEP_{event.status}"], event.message or _message(event.error), data)


def _cell_data(cell: StepCell) -> dict[str, Any]:
    data: dict[str, Any] = {"asset": str(cell.asset), "status": cell.status.value}
    if cell.partition is not None:
        data["partition"] = cell.partition
    if cell.version_id is not None:
        data["version_id"] = cell.version_id
    if cell.rows is not None:
        data["rows"] = cell.rows
    if cell.error is not None:
        data["error"] = error_data(cell.error)
    return data


def materialization_data(made: Materialization) -> dict[str, Any]:
    """The data of the row for a version that was made."""
    data: dict[str, Any] = {"version_id": made.version_id, "data_version": made.data_version}
    pointer = made.pointer
    if pointer is not None:
        data["uri"] = pointer.uri
        if pointer.rows is not None:
            data["rows"] = pointer.rows
        if pointer.bytes is not None:
            data["bytes"] = pointer.bytes
    return data


def _definition_change(change: DefinitionChange) -> Entry:
    message = f"{change.change}: {', '.join(change.parts)}" if change.parts else change.change
    data = {"change": change.change} | _present(parts=list(change.parts))
    return Entry(EventKind.DEFINITIONS_CHANGED, message, data, change.asset)


def _counts(event: DynamicPartitionsChanged) -> str:
    counts = (
        f"{len(event.added)} added" if event.added else "",
        f"{len(event.deleted)} deleted" if event.deleted else "",
    )
    return f"{event.name}: {', '.join(filter(None, counts))}"


def _message(error: ErrorRecord | None) -> str:
    return "" if error is None else error.message


def _present(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value}
