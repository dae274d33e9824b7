"""Two runs that would build the same cell: one builds, the other waits, fails, or takes its chance."""

from collections.abc import Collection

from headwater.catalog.errors import CellTakenError
from headwater.catalog.instance import Instance
from headwater.catalog.records import Cell, RunStatus
from headwater.catalog.storage.base import CatalogReader
from headwater.materialize.reader import is_interrupted

#: What to do about a cell that another run builds already.
ON_CONFLICT = ("queue", "fail", "supersede")
#: Seconds between two looks at whether somebody else's run is over.
_LOOK = 0.1
#: Runs that go on at a time are fewer.
_MAX_RUNS = 1000


def refuse_taken(catalog: CatalogReader, cells: Collection[Cell]) -> None:
    """Raise `CellTakenError` where a run that goes on builds one of `cells`."""
    for run in catalog.runs(statuses=[RunStatus.STARTED], limit=_MAX_RUNS):
        if is_interrupted(run):
            continue
        for planned in catalog.planned(run.run_id):
            cell = Cell(planned.asset, planned.partition)
            if cell in cells:
                raise CellTakenError(
                    f"Run {run.run_id} (process {run.pid} of {run.user} on {run.host}) builds {cell} right now.",
                    run_id=run.run_id,
                    remedy=f"Wait for it, or stop it: headwater run cancel {run.run_id}",
                )


def await_run(instance: Instance, run_id: str) -> None:
    """Wait until a run is over, or its process is."""
    while (run := instance.catalog.run(run_id)) is not None and run.status is RunStatus.STARTED:
        if is_interrupted(run):
            return
        instance.clock.sleep(_LOOK)
