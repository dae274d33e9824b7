"""What a run says of many partitions while it goes on: few lines, whatever their number."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pytest

from headwater.catalog.events import Event, RunStarted, StepEnded, StepStarted
from headwater.catalog.keys import AssetKey
from headwater.catalog.records import ErrorRecord, PlannedCell, PlannedStep, StepCell, StepStatus
from headwater.cli.progress import Progress

if TYPE_CHECKING:
    from tests.histories import History

DAYS, MONTHLY = AssetKey("days"), AssetKey("monthly")
ERROR = ErrorRecord(kind="ValueError", message="no \x1b[31mdata", traceback="ValueError: no \x1b[31mdata")


def step(history: "History", asset: AssetKey, *partitions: str) -> PlannedStep:
    cells = (PlannedCell(asset=asset, partition=one, version_id=history.identifier()) for one in partitions)
    return PlannedStep(step_key=f"{asset} [{partitions[0]}]", cells=tuple(cells), reason="missing")


def events(history: "History", steps: Sequence[PlannedStep], failing: Sequence[str]) -> list[Event]:
    """A run of these steps, in which partitions fail; those in steps of several by themselves."""
    run = RunStarted(time=history.time(), run_id=history.identifier(), steps=tuple(steps))
    found: list[Event] = [run]
    for one in steps:
        found.append(StepStarted(time=history.time(), run_id=run.run_id, step_key=one.step_key))
        several = len(one.cells) > 1
        cells = [
            StepCell(
                asset=cell.asset,
                partition=cell.partition,
                status=StepStatus.FAILURE if cell.partition in failing else StepStatus.SUCCESS,
                rows=None if cell.partition in failing else 10,
                error=ERROR if several and cell.partition in failing else None,
            )
            for cell in one.cells
        ]
        failed = any(cell.status is StepStatus.FAILURE for cell in cells)
        found.append(
            StepEnded(
                time=history.time(),
                run_id=run.run_id,
                step_key=one.step_key,
                status=StepStatus.FAILURE if failed else StepStatus.SUCCESS,
                cells=tuple(cells),
                error=ERROR if failed else None,
            )
        )
    return found


def shown(capfd: pytest.CaptureFixture[str], found: Sequence[Event]) -> list[str]:
    with Progress(steps={DAYS: "days", MONTHLY: "monthly"}) as progress:
        for event in found:
            progress.show(event)
    out, err = capfd.readouterr()
    assert out == "" and "\x1b" not in err
    return err.splitlines()


def test_few_partitions_have_a_line_each(history: "History", capfd: pytest.CaptureFixture[str]) -> None:
    lines = shown(capfd, events(history, [step(history, DAYS, f"d{i}") for i in range(3)], ["d1"]))
    assert [line[:11] for line in lines] == ["✓ days [d0]", "✗ days [d1]", "    ValueEr", "✓ days [d2]"]
    assert lines[2] == "    ValueError: no \\x1b[31mdata"


def test_many_partitions_are_told_together(history: "History", capfd: pytest.CaptureFixture[str]) -> None:
    days = [f"d{i:03}" for i in range(365)]
    steps = [*(step(history, DAYS, day) for day in days), step(history, MONTHLY, "m")]
    lines = shown(capfd, events(history, steps, days[10:50]))
    told = [line for line in lines if not line.startswith("  days")]  # how far they are, where it takes long
    assert told[:3:2] == ["✗ days [d010]  failed", "✗ days [d011]  failed"]
    assert told[1] == told[3] == "    ValueError: no \\x1b[31mdata"
    assert len(told) == 2 * 5 + 2, "the first five failures, and a line for each asset"
    assert told[-2].startswith("✗ days  ") and told[-2].endswith("3,250 rows  325 built, 40 failed")
    assert told[-1].startswith("✓ monthly [m]  ")


def test_a_step_over_many_partitions_is_one_line(history: "History", capfd: pytest.CaptureFixture[str]) -> None:
    days = [f"d{i:03}" for i in range(365)]
    lines = shown(capfd, events(history, [step(history, DAYS, *days)], days[100:200]))
    assert lines[0].startswith("✗ days  ")
    assert lines[0].endswith("2,650 rows  265 built, 100 failed: d100, d101, d102, d103, d104 and 95 more")
    assert lines[1:3] == ["  days [d100]", "    ValueError: no \\x1b[31mdata"]
    assert len(lines) == 1 + 2 * 5
