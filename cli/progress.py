"""What a run looks like while it goes on: a line for each finished step, and on a terminal what is running now.

Of an asset's many partitions there is one line when all are through: until then how far they are, on a terminal in its
last line, elsewhere every few seconds.
"""

import contextlib
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self, TextIO

import click

from headwater.catalog.events import Event, LogMessage, RunStarted, StepEnded, StepRetried, StepStarted
from headwater.catalog.keys import AssetKey
from headwater.catalog.printable import printable, printable_line
from headwater.catalog.records import ErrorRecord, PlannedStep, StepCell, StepStatus
from headwater.cli import output
from headwater.cli.cells import NAMED, by_asset, name_of, outcome_text, rows_of

_MARKS = {
    StepStatus.SUCCESS: "✓",
    StepStatus.VERIFIED: "=",
    StepStatus.FAILURE: "✗",
    StepStatus.SKIPPED: "-",
    StepStatus.CANCELED: "!",
}
#: Seconds between two looks of the clock in the status line.
_TICK = 0.25
#: Seconds between two lines about many partitions where there is no status line.
_REPORT = 5.0
#: Steps of one name that are told of one by one.
_FEW = 10


@dataclass(slots=True)
class _Many:
    """The steps that build many partitions of one asset, or of several together."""

    name: str
    total: int
    finished: int = 0
    #: When the first of them began, and when was last told of them.
    started: float | None = None
    told: float = 0.0
    rows: int | None = None
    #: Cells by how they ended.
    ends: Counter[StepStatus] = field(default_factory=Counter[StepStatus])
    #: Failures, of which only the first few are told of.
    failures: int = 0
    #: Why the first that was left alone was.
    reason: str = ""

    def begin(self, now: float) -> None:
        """The first of them is begun, or found to be nothing to do."""
        if self.started is None:
            self.started = self.told = now

    def text(self, now: float) -> str:
        """How far they are, and how long it is going to take at this pace."""
        parts = [f"{self.name} {self.finished:,} of {self.total:,}"]
        if self.ends[StepStatus.FAILURE]:
            parts.append(f"{self.ends[StepStatus.FAILURE]:,} failed")
        if self.finished and self.started is not None:
            left = (now - self.started) / self.finished * (self.total - self.finished)
            parts.append(f"about {output.duration(left)} left")
        return ", ".join(parts)


class Progress:
    """Shows events on stderr as they happen. It keeps a descriptor of its own: a run captures the usual one.

    `steps` tells the name of the step that computes each asset: those of one name are told of together where they are
    many.
    """

    def __init__(self, *, quiet: bool = False, steps: Mapping[AssetKey, str] | None = None) -> None:
        self._quiet = quiet
        self._steps = steps or {}
        #: By step key, of those that are many.
        self._many: dict[str, _Many] = {}
        self._total = 0
        self._finished = 0
        self._running: dict[str, float] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._colour = False
        self._drawn = False

    def __enter__(self) -> Self:
        self._stream = _own_stderr()
        terminal = self._stream.isatty() and os.environ.get("TERM") != "dumb"
        context = click.get_current_context(silent=True)
        self._colour = terminal and (context is None or context.color is not False)
        self._live = terminal and not self._quiet
        if self._live:
            threading.Thread(target=self._tick, name="headwater-progress", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        with self._lock:
            self._clear()
        with contextlib.suppress(OSError):  # it flushes what could not be written before
            self._stream.close()

    def show(self, event: Event) -> None:
        """Show one event."""
        with self._lock:
            match event:
                case RunStarted():
                    self._finished, self._total = 0, len(event.steps)
                    self._many = self._find_many(event.steps)
                case StepStarted():
                    now = self._running[event.step_key] = time.monotonic()
                    if event.step_key in self._many:
                        self._many[event.step_key].begin(now)
                case StepEnded():
                    started = self._running.pop(event.step_key, None)
                    self._finished += 1
                    many = self._many.get(event.step_key)
                    if many is not None:
                        self._end_one_of(many, event)
                    else:
                        seconds = None if started is None else time.monotonic() - started
                        made = event.materializations
                        self._end(event, made[0].seconds if made else seconds)
                case StepRetried():
                    self._running.pop(event.step_key, None)
                    text = (
                        f"{event.step_key}: attempt {event.attempt} failed ({event.error.kind}: {event.error.message})"
                    )
                    self._print(f"↻ {text}, again in {output.duration(event.delay)}", "yellow")
                case LogMessage():
                    if event.level not in ("DEBUG", "NOTSET"):
                        colour = output.COLOURS.get(event.level)
                        self._print(f"  {event.step_key or ''}: {event.message}", colour)
                case _:
                    pass
            self._draw()

    def _find_many(self, steps: Sequence[PlannedStep]) -> dict[str, _Many]:
        """The steps whose name many have, by their keys."""
        names = {step.step_key: self._steps.get(step.cells[0].asset, step.step_key) for step in steps}
        counts = Counter(names.values())
        many = {name: _Many(name, count) for name, count in counts.items() if count > _FEW}
        return {key: many[name] for key, name in names.items() if name in many}

    def _end_one_of(self, many: _Many, event: StepEnded) -> None:
        """One of many steps is through: what failed is told, and the rest when all are."""
        now = time.monotonic()
        many.begin(now)
        many.finished += 1
        many.reason = many.reason or event.message
        many.ends.update(cell.status for cell in event.cells)
        rows = rows_of(event.cells)
        if rows is not None:
            many.rows = (many.rows or 0) + rows
        failed = [cell for cell in event.cells if cell.status is StepStatus.FAILURE]
        for cell in failed[: max(0, NAMED - many.failures)]:
            self._print(f"✗ {name_of(cell)}  failed", output.COLOURS[StepStatus.FAILURE])
            self._print_error(cell.error or event.error)
        many.failures += len(failed)
        if many.finished == many.total:
            worst = next((one for one in _WORST if many.ends[one]), StepStatus.SUCCESS)
            ends = ", ".join(f"{many.ends[one]:,} {output.word(one)}" for one in StepStatus if many.ends[one])
            text = _line(worst, many.name, now - (many.started or now), many.rows, ends)
            self._print(f"{text} ({many.reason})" if many.reason else text, output.COLOURS.get(worst))
        elif not self._live and now - many.told >= _REPORT:
            many.told = now
            self._print(f"  {many.text(now)}", None)

    def _end(self, event: StepEnded, seconds: float | None) -> None:
        for cells in by_asset(event.cells).values():
            if len(cells) > 1:
                self._end_together(event, cells, seconds)
            else:
                self._end_cell(event, cells[0], seconds)
        if event.error is not None and not any(cell.error for cell in event.cells):
            self._print_error(event.error)

    def _end_cell(self, event: StepEnded, cell: StepCell, seconds: float | None) -> None:
        left_out = event.status is StepStatus.SUCCESS and cell.status is StepStatus.SKIPPED
        status = cell.status if left_out else event.status
        text = event.message or output.word(event.status) if event.status is not StepStatus.SUCCESS else ""
        if left_out:
            text, seconds = "optional, and not made", None
        self._print(_line(status, name_of(cell), seconds, cell.rows, text), output.COLOURS.get(status))
        self._print_error(cell.error)

    def _end_together(self, event: StepEnded, cells: Sequence[StepCell], seconds: float | None) -> None:
        """A step is through with several partitions of an asset."""
        worst = next((one for one in _WORST if any(cell.status is one for cell in cells)), StepStatus.SUCCESS)
        text = _line(worst, cells[0].asset, seconds, rows_of(cells), outcome_text(cells))
        self._print(text, output.COLOURS.get(worst))
        for cell in [cell for cell in cells if cell.error is not None][:NAMED]:
            self._print(f"  {name_of(cell)}", None)
            self._print_error(cell.error)

    def _print_error(self, error: ErrorRecord | None) -> None:
        if error is not None:
            lines = output.failure_text(error).splitlines()
            self._print("\n".join(f"    {line}" for line in lines), None, block=True)

    def _print(self, text: str, colour: str | None, *, block: bool = False) -> None:
        if self._quiet:
            return
        self._clear()
        safe = printable(text) if block else printable_line(text)
        self._write((click.style(safe, fg=colour) if self._colour and colour else safe) + "\n")

    def _draw(self) -> None:
        if not self._live or not self._running:
            return
        now = time.monotonic()
        shown: dict[str, str] = {}
        for key, started in self._running.items():
            many = self._many.get(key)
            shown[many.name if many else key] = many.text(now) if many else f"{key} {output.duration(now - started)}"
        running = ", ".join(list(shown.values())[:3])
        more = f" and {len(shown) - 3} more" if len(shown) > 3 else ""
        try:
            room = os.get_terminal_size(self._stream.fileno()).columns or 80
        except OSError:
            room = 80
        line = output.cut(printable_line(f"[{self._finished}/{self._total}] {running}{more}"), room - 1)
        self._write(f"\r\x1b[K{line}")
        self._drawn = True

    def _clear(self) -> None:
        if self._drawn:
            self._write("\r\x1b[K")
            self._drawn = False

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except OSError:  # a terminal that went away is no reason to stop a run
            self._quiet = True
            self._live = False

    def _tick(self) -> None:
        while not self._closed.wait(_TICK):
            with self._lock:
                if not self._closed.is_set():
                    self._draw()


#: Which end of several decides the mark and the colour of a line.
_WORST = (StepStatus.FAILURE, StepStatus.CANCELED, StepStatus.SKIPPED, StepStatus.SUCCESS, StepStatus.VERIFIED)


def _line(status: StepStatus, name: str, seconds: float | None, rows: int | None, text: str) -> str:
    """A line about what is through."""
    parts = [f"{_MARKS.get(status, '?')} {name}"]
    if seconds is not None:
        parts.append(output.duration(seconds))
    if rows is not None:
        parts.append(output.counted(rows, "row"))
    return "  ".join([*parts, text] if text else parts)


def _own_stderr() -> TextIO:
    sys.stderr.flush()
    return os.fdopen(os.dup(2), "w", encoding=sys.stderr.encoding or "utf-8", errors="backslashreplace")
