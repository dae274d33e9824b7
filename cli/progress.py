"""What a run looks like while it goes on: a line for each finished step, and on a terminal what is running now."""

import contextlib
import os
import sys
import threading
import time
from typing import Self, TextIO

import click

from headwater.catalog.events import Event, LogMessage, RunStarted, StepEnded, StepRetried, StepStarted
from headwater.catalog.printable import printable, printable_line
from headwater.catalog.records import StepStatus
from headwater.cli import output

_MARKS = {
    StepStatus.SUCCESS: "✓",
    StepStatus.VERIFIED: "=",
    StepStatus.FAILURE: "✗",
    StepStatus.SKIPPED: "-",
    StepStatus.CANCELED: "!",
}
#: Seconds between two looks of the clock in the status line.
_TICK = 0.25


class Progress:
    """Shows events on stderr as they happen. It keeps a descriptor of its own: a run captures the usual one."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
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
                    self._total = len(event.steps)
                case StepStarted():
                    self._running[event.step_key] = time.monotonic()
                case StepEnded():
                    started = self._running.pop(event.step_key, None)
                    self._finished += 1
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

    def _end(self, event: StepEnded, seconds: float | None) -> None:
        for cell in event.cells:
            left_out = event.status is StepStatus.SUCCESS and cell.status is StepStatus.SKIPPED
            colour = output.COLOURS.get(cell.status if left_out else event.status)
            parts = [f"{_MARKS.get(cell.status if left_out else event.status, '?')} {cell.asset}"]
            if left_out:
                parts.append("optional, and not made")
            elif seconds is not None:
                parts.append(output.duration(seconds))
            if cell.rows is not None:
                parts.append(output.counted(cell.rows, "row"))
            if event.status is not StepStatus.SUCCESS:
                parts.append(event.message or output.word(event.status))
            self._print("  ".join(parts), colour)
        if event.error is not None:
            lines = output.failure_text(event.error).splitlines()
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
        running = ", ".join(
            f"{key} {output.duration(now - started)}" for key, started in list(self._running.items())[:3]
        )
        more = f" and {len(self._running) - 3} more" if len(self._running) > 3 else ""
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


def _own_stderr() -> TextIO:
    sys.stderr.flush()
    return os.fdopen(os.dup(2), "w", encoding=sys.stderr.encoding or "utf-8", errors="backslashreplace")
