"""How a step ends: what became of each of its cells, and the records of the versions that it made."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from headwater.catalog.metadata import metadata_line
from headwater.catalog.records import Cell, ErrorRecord, Materialization, StepCell, StepStatus
from headwater.materialize.execution.state import Decision, worst
from headwater.materialize.execution.step import CellFailure, StepFailure, StepOutput, StepResult
from headwater.materialize.execution.versions import Versions
from headwater.materialize.planner import PlanCell


@dataclass(frozen=True, slots=True, kw_only=True)
class StepEnd:
    """What there is to record of what a step computed."""

    status: StepStatus
    cells: Sequence[StepCell]
    made: tuple[Materialization, ...]
    #: Why it failed, the first reason of several.
    failure: StepFailure | None
    #: Lines for the log.
    said: Sequence[str]


def step_end(
    result: StepResult,
    decision: Decision,
    outputs: Iterable[StepOutput],
    failed: Iterable[CellFailure],
    versions: Versions,
    *,
    observing: bool,
    now: datetime,
) -> StepEnd:
    """What became of the cells that a step computed, in one attempt or several: `outputs` it made, `failed` it did not.

    A cell of neither was left out by its code, on purpose. One that is observed (`observing`) and is as it was seen
    last is VERIFIED, and no new version.
    """
    by_cell = {Cell(one.cell.asset, one.cell.partition): one for one in outputs}
    lost = {Cell(one.cell.asset, one.cell.partition): one.failure for one in failed}
    failure = next((one for one in lost.values() if not one.canceled), None)
    made: dict[Cell, Materialization] = {}
    cells: list[StepCell] = []
    said: list[str] = []
    # A step may make assets that depend on each other: in the order of the graph.
    order = {key: at for at, key in enumerate(versions.graph.sorted({cell.cell.asset for cell in decision.run}))}
    for cell in sorted(decision.run, key=lambda cell: order[cell.cell.asset]):
        output = by_cell.get(cell.cell)
        status = StepStatus.SKIPPED
        if output is not None and observing and _is_as_before(cell, output, versions):
            status = StepStatus.VERIFIED
            said += [metadata_line(output.metadata)] if output.metadata else []
        elif output is not None:
            made[cell.cell] = _materialization(result, cell, output, versions, made, now)
            status = StepStatus.SUCCESS
        elif cell.cell in lost:
            status = StepStatus.CANCELED if lost[cell.cell].canceled else StepStatus.FAILURE
        cells.append(
            StepCell(
                asset=cell.cell.asset,
                partition=cell.cell.partition,
                status=status,
                version_id=_version(cell, output, status, versions),
                rows=output.pointer.rows if output and output.pointer else None,
                error=_own_error(lost.get(cell.cell), failure),
            )
        )
    ended = worst(cell.status for cell in cells)
    if observing and result.spec.partitions is not None:
        cells = [cell for cell in cells if cell.status is not StepStatus.SKIPPED]  # nothing was said of those
    if ended is StepStatus.SKIPPED:
        ended = StepStatus.SUCCESS  # it ran, and chose to make nothing
    return StepEnd(status=ended, cells=cells, made=tuple(made.values()), failure=failure, said=said)


def left_alone(decision: Decision, versions: Versions) -> list[StepCell]:
    """What became of those cells of a step that are not computed."""
    return [
        StepCell(
            asset=one.cell.cell.asset,
            partition=one.cell.cell.partition,
            status=one.status,
            version_id=versions.version_id(one.cell.cell) if one.status is StepStatus.VERIFIED else None,
        )
        for one in decision.left
    ]


def _is_as_before(cell: PlanCell, output: StepOutput, versions: Versions) -> bool:
    """Whether an observation saw what was seen last, or says nothing about that."""
    last = versions.current.get(cell.cell)
    return output.data_version is None or (last is not None and last.data_version == output.data_version)


def _version(cell: PlanCell, output: StepOutput | None, status: StepStatus, versions: Versions) -> str | None:
    if status is StepStatus.VERIFIED:
        return versions.version_id(cell.cell)
    return output.cell.version_id if output else None


def _own_error(failure: StepFailure | None, of_step: StepFailure | None) -> ErrorRecord | None:
    """Why a cell failed, where that is not why its step did."""
    if failure is None or failure.canceled or (of_step is not None and failure.error == of_step.error):
        return None
    return failure.error


def _materialization(
    result: StepResult,
    cell: PlanCell,
    output: StepOutput,
    versions: Versions,
    made: Mapping[Cell, Materialization],
    now: datetime,
) -> Materialization:
    """The record of a version; `made` are those that the same step made before."""
    version = output.cell.version_id
    return Materialization(
        version_id=version,
        asset=cell.cell.asset,
        partition=cell.cell.partition,
        run_id=result.spec.run.run_id,
        step_key=result.spec.step_key,
        created=now,
        fingerprint=versions.fingerprint(cell.cell.asset),
        # Nobody knows what it holds: every version of it counts as different.
        data_version=output.data_version or f"version:{version}",
        pointer=output.pointer,
        inputs=versions.recorded(cell, made),
        metadata=output.metadata,
        tags=output.tags,
        seconds=result.seconds,
    )
