"""What became of many cells, in few lines."""

from collections import Counter
from collections.abc import Iterable, Sequence

from headwater.catalog.keys import AssetKey
from headwater.catalog.printable import printable_line
from headwater.catalog.records import Cell, StepCell, StepStatus
from headwater.cli import output

#: Partitions that are named where more have come to the same end.
NAMED = 5
#: Ends that partitions are named for.
_LOST = (StepStatus.FAILURE, StepStatus.SKIPPED, StepStatus.CANCELED, StepStatus.INTERRUPTED)


def by_asset(cells: Iterable[StepCell]) -> dict[AssetKey, list[StepCell]]:
    """Cells by their asset, in the order in which they come."""
    found: dict[AssetKey, list[StepCell]] = {}
    for cell in cells:
        found.setdefault(cell.asset, []).append(cell)
    return found


def outcome_text(cells: Sequence[StepCell]) -> str:
    """Such as `360 built, 5 failed: 2013-01-05, 2013-01-07 and 3 more`."""
    counts = Counter(cell.status for cell in cells)
    parts: list[str] = []
    for status in StepStatus:
        if counts[status]:
            text = f"{counts[status]:,} {output.word(status)}" if len(cells) > 1 else output.word(status)
            lost = [cell.partition for cell in cells if cell.status is status and cell.partition is not None]
            parts.append(f"{text}: {some(lost)}" if status in _LOST and lost else text)
    return ", ".join(parts)


def some(keys: Sequence[str]) -> str:
    """The first few keys, safe to print, and how many more there are."""
    shown = ", ".join(printable_line(key, 80) for key in keys[:NAMED])
    return shown + (f" and {len(keys) - NAMED:,} more" if len(keys) > NAMED else "")


def name_of(cell: StepCell) -> str:
    """A cell as people write it."""
    return str(Cell(cell.asset, cell.partition))


def rows_of(cells: Iterable[StepCell]) -> int | None:
    """How many rows cells have together; None where no number is known."""
    known = [cell.rows for cell in cells if cell.rows is not None]
    return sum(known) if known else None
