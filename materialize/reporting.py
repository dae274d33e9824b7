"""Recording what was made or seen elsewhere. A report is a run that somebody else carried out: it ends as it begins."""

import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from headwater.catalog.definitions.results import AssetMaterialization, AssetObservation
from headwater.catalog.errors import UnknownPartitionError, UsageError
from headwater.catalog.events import LogMessage, RunEnded, RunStarted, StepEnded
from headwater.catalog.ids import new_id
from headwater.catalog.instance import Instance
from headwater.catalog.keys import AssetKey
from headwater.catalog.lineage.asset_graph import AssetGraph
from headwater.catalog.lineage.node import AssetNode, node_from_json
from headwater.catalog.metadata import MetadataValue, metadata_line, normalize
from headwater.catalog.partitions.definition import PartitionsContext
from headwater.catalog.processes import start_ticks, this_host, user_name
from headwater.catalog.records import (
    Cell,
    Fingerprint,
    Input,
    Materialization,
    PlannedCell,
    PlannedStep,
    RunStatus,
    StepCell,
    StepStatus,
)
from headwater.materialize.execution.versions import Versions
from headwater.materialize.partition_choice import PartitionChoice
from headwater.materialize.reader import Reader

if TYPE_CHECKING:
    from headwater.catalog.definitions.definitions import Definitions

#: The tag of runs that are reports.
REPORTED = "headwater/reported"
#: What a version of an asset is of that something else computes: nothing of ours decides its data.
NO_FINGERPRINT = Fingerprint(code="")


def report(
    event: AssetMaterialization | AssetObservation,
    *,
    instance: Instance,
    definitions: "Definitions | AssetGraph | None" = None,
    at: datetime | None = None,
) -> Materialization | None:
    """Record that an asset, or one of its partitions, was made elsewhere, or seen; returns the version that it has now.

    A materialization is a version like any other, made by the code that there is now from what there is now upstream:
    so it is fresh. `at` says when it was made, by default now. An observation of an asset that something else computes
    makes a version where the data version is not that of the last one; otherwise it returns None.

    Without `definitions`, the assets are those that the catalog has recorded. Raises `UnknownAssetError`,
    `UnknownPartitionError`, `UsageError` and `UserCodeError` for what cannot be kept.
    """
    now = instance.clock.now()
    key = event.asset_key
    assert key is not None  # its constructor asks for it
    graph = definitions if isinstance(definitions, AssetGraph) else _graph(instance, definitions)
    node = graph.find(key)
    partition = _partition(node, event.partition, instance, now)
    made_at = now if at is None else _moment(at, now)
    metadata = normalize(event.metadata, f"The report about `{node.key}`")
    seen = isinstance(event, AssetObservation)
    if seen and not node.external:
        raise UsageError(
            f"`{node.key}` is computed here: what version it has is known.",
            remedy="Report an AssetMaterialization of it, if something else made it.",
        )
    last = instance.catalog.current(node.key, partition) if seen else None
    if last is not None and last.data_version == event.data_version:
        _record(instance, node, partition, now, last, metadata, made=False)
        return None
    version = new_id(now)
    made = Materialization(
        version_id=version,
        asset=node.key,
        partition=partition,
        run_id=new_id(now),
        step_key=node.step or str(node.key),
        created=made_at,
        fingerprint=node.fingerprint or NO_FINGERPRINT,
        data_version=event.data_version or f"version:{version}",
        inputs=() if node.external else _inputs(graph, instance, node.key, partition, now),
        metadata=metadata,
        tags=event.tags,
    )
    _record(instance, node, partition, now, made, metadata, made=True)
    return made


def _graph(instance: Instance, definitions: "Definitions | None") -> AssetGraph:
    if definitions is not None:
        return definitions.graph
    return AssetGraph([node_from_json(one.data) for one in instance.catalog.definitions().values()])


def _partition(node: AssetNode, given: str | None, instance: Instance, now: datetime) -> str | None:
    """The partition that is meant, checked."""
    definition = node.partitions_def
    if definition is None:
        if given is not None:
            raise UsageError(f"`{node.key}` is not partitioned.", remedy="Leave the partition out.")
        return None
    if given is None:
        raise UsageError(f"`{node.key}` is partitioned.", remedy="Say which partition the report is about.")
    partitions = definition.at(PartitionsContext(now, instance.catalog.dynamic_keys))
    try:
        return partitions.key(partitions.ordinal(given))
    except UnknownPartitionError as error:
        raise UnknownPartitionError(f"`{node.key}`: {error.message}", remedy=error.remedy) from None


def _moment(at: datetime, now: datetime) -> datetime:
    moment = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    if moment > now:
        raise UsageError(f"{at.isoformat()} is in the future.", remedy="Say when it was made, or leave that out.")
    return moment


def _inputs(
    graph: AssetGraph, instance: Instance, key: AssetKey, partition: str | None, now: datetime
) -> tuple[Input, ...]:
    """The versions that a step would read now."""
    reader = Reader(graph, instance.catalog, now).within([key])
    choice = PartitionChoice(keys=() if partition is None else (partition,))
    plan = reader.plan([key], partitions=choice, force=True, upstream=False)
    cells = [cell for step in plan.steps for cell in step.cells]
    cell = next((cell for cell in cells if (cell.cell.asset, cell.cell.partition) == (key, partition)), None)
    if cell is None:
        raise UsageError(f"`{Cell(key, partition)}` cannot be made now.", remedy=f"headwater plan {key} tells more.")
    return Versions.of(plan, graph, reader.table, instance.catalog).recorded(cell, {})


def _record(
    instance: Instance,
    node: AssetNode,
    partition: str | None,
    now: datetime,
    version: Materialization,
    metadata: dict[str, MetadataValue],
    *,
    made: bool,
) -> None:
    """Write the run, all at once; `made` where the version is a new one."""
    run_id, step_key = version.run_id if made else new_id(now), version.step_key if made else str(node.key)
    status = StepStatus.SUCCESS if made else StepStatus.VERIFIED
    cell = PlannedCell(asset=node.key, partition=partition, version_id=version.version_id if made else new_id(now))
    kept = StepCell(asset=node.key, partition=partition, status=status, version_id=version.version_id)
    words = "made elsewhere" if made and not node.external else "seen elsewhere"
    events = [
        RunStarted(
            time=now,
            run_id=run_id,
            steps=(PlannedStep(step_key=step_key, cells=(cell,), reason=words),),
            selection=str(node.key),
            tags={REPORTED: "true"},
            user=user_name(),
            host=this_host(),
            pid=os.getpid(),
            start_ticks=start_ticks(os.getpid()),
        ),
        *_said(now, run_id, step_key, {} if made else metadata),
        StepEnded(
            time=now,
            run_id=run_id,
            step_key=step_key,
            status=status,
            cells=(kept,),
            materializations=(version,) if made else (),
            message="" if made else "the same data version as before",
        ),
        RunEnded(time=now, run_id=run_id, status=RunStatus.SUCCESS),
    ]
    instance.catalog.append(events)


def _said(now: datetime, run_id: str, step_key: str, metadata: dict[str, MetadataValue]) -> list[LogMessage]:
    """What was said of a version that is none: a line of the run's events."""
    if not metadata:
        return []
    text = metadata_line(metadata)
    return [LogMessage(time=now, run_id=run_id, step_key=step_key, level="INFO", message=text)]
