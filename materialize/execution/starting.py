"""How a run begins: what it is told, and what is recorded before anything is written."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from headwater.catalog.definitions.definitions import Definitions
from headwater.catalog.errors import ConflictError
from headwater.catalog.events import AssetDefinition, DefinitionsChanged, Event, RunStarted
from headwater.catalog.ids import new_id
from headwater.catalog.instance import Instance
from headwater.catalog.lineage.asset_graph import AssetGraph
from headwater.catalog.lineage.node import changed_parts, node_to_json
from headwater.catalog.processes import start_ticks, this_host, user_name
from headwater.catalog.records import Cell, DefinitionChange, PlannedCell, PlannedStep
from headwater.catalog.storage.base import CellState
from headwater.materialize.conflict import refuse_taken
from headwater.materialize.execution.pooled import pools_of
from headwater.materialize.execution.redaction import Redaction
from headwater.materialize.io_managers import IOManagers
from headwater.materialize.planner import Plan
from headwater.materialize.queue import check_turn, open_runs
from headwater.materialize.waiting_run import WaitingRun

if TYPE_CHECKING:
    from headwater.materialize.cell_table import CellTable


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSpec:
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


def planned_cells(run: RunSpec, managers: IOManagers, now: datetime) -> dict[Cell, PlannedCell]:
    """The version that each cell is going to get, and where it will lie."""
    planned: dict[Cell, PlannedCell] = {}
    for step in run.plan.steps:
        for cell in step.cells:
            key, partition = cell.cell.asset, _typed(run.graph, cell.cell)
            stored = run.graph[key].stored
            planned[cell.cell] = PlannedCell(
                asset=key,
                partition=partition,
                version_id=new_id(now),
                folder=managers.for_output(key).folder_of(key, partition) if stored else None,
            )
    return planned


def _typed(graph: AssetGraph, cell: Cell) -> str | None:
    """A cell's partition key; of several dimensions one that knows them."""
    from headwater.catalog.partitions.multi import MultiPartitionsDefinition

    definition = graph[cell.asset].partitions_def
    if cell.partition is None or not isinstance(definition, MultiPartitionsDefinition):
        return cell.partition
    return definition.key(cell.partition)


def record_start(
    run: RunSpec, instance: Instance, planned: Mapping[Cell, PlannedCell], redaction: Redaction
) -> list[Event]:
    """Record that a run begins, with the versions it is going to make, and what definitions have changed.

    Returns what was recorded. Raises as `execute` does.
    """
    # What is observed is something else's: its definitions here are those of the observation.
    changes = None if run.definitions.observing else definitions_changed(instance, run.graph)
    steps = tuple(
        PlannedStep(step_key=step.key, cells=tuple(planned[cell.cell] for cell in step.cells), reason=step.reason)
        for step in run.plan.steps
    )
    catalog, place = instance.catalog, run.place
    asked = place.asked
    place.pools, place.first_pools = pools_of(run.plan, run.graph)
    while True:
        claims_before = catalog.claims()
        place.check_not_stopped()
        others = open_runs(catalog)
        if not run.supersede:
            refuse_taken(catalog, planned, others)
        check_turn(instance, place.as_run(), others)
        run.check()
        started = RunStarted(
            time=instance.clock.now(),
            run_id=place.run_id,
            steps=steps,
            job=asked.job,
            selection=asked.selection,
            backfill_id=asked.backfill_id,
            tags=asked.tags,
            parent_run_id=asked.parent_run_id,
            root_run_id=asked.root_run_id,
            pools=place.pools,
            request=asked.request,
            user=user_name(),
            host=this_host(),
            pid=os.getpid(),
            start_ticks=start_ticks(os.getpid()),
            claims_before=claims_before,
        )
        events = [redaction.event(event) for event in (changes, started) if event is not None]
        try:
            catalog.append(events, by=place.run_id)
        except ConflictError:  # another one was granted something at this moment, or this one was canceled
            continue
        return events


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
