"""Two runs that would build the same cell: one builds, the other waits, fails, or takes its chance."""

from collections.abc import Collection, Sequence

from headwater.catalog.errors import CellTakenError
from headwater.catalog.records import Cell, Run, RunStatus
from headwater.catalog.storage.base import CatalogReader

#: What to do about a cell that another run builds already.
ON_CONFLICT = ("queue", "fail", "supersede")


def refuse_taken(catalog: CatalogReader, cells: Collection[Cell], others: Sequence[Run]) -> None:
    """Raise `CellTakenError` where one of `others`, runs that go on, builds one of `cells`."""
    for run in others:
        if run.status not in (RunStatus.STARTED, RunStatus.CANCELING):
            continue
        for planned in catalog.planned(run.run_id):
            cell = Cell(planned.asset, planned.partition)
            if cell in cells:
                raise CellTakenError(
                    f"Run {run.run_id} (process {run.pid} of {run.user} on {run.host}) builds {cell} right now.",
                    run_id=run.run_id,
                    remedy=f"Wait for it, or stop it: headwater run cancel {run.run_id}",
                )
