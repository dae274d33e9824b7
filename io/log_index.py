"""Which step writes where: a line in `steps.jsonl` of a run's log folder when one begins and when it ends.

The catalog learns where a step's output lies when the step is over. Until then this says it, to whoever wants to see
what is printed right now; and of a killed run it is what is left. Lines are appended whole, by whatever process.
"""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

INDEX = "steps.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """A part of a file that one attempt at a step writes, or wrote: without an end as long as it does."""

    step: str
    attempt: int
    file: str
    start: int
    end: int | None = None


class IndexWriter:
    """Says where steps write. The file is made when there is something to say."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / INDEX
        self._file: int | None = None

    def guard(self) -> None:
        """Say that nothing may be shown before `clean` says so: it may hold secrets until then."""
        self._say({"guarded": True})

    def began(self, step: str, attempt: int, file: str, start: int) -> None:
        """A step writes to `file` from now on."""
        self._say({"step": step, "attempt": attempt, "file": file, "start": start})

    def ended(self, step: str, attempt: int, file: str, start: int, end: int) -> None:
        """It does so no more."""
        self._say({"step": step, "attempt": attempt, "file": file, "start": start, "end": end})

    def clean(self, file: str, until: int) -> None:
        """Up to there, no secret is left in `file`."""
        self._say({"file": file, "clean": until})

    def over(self) -> None:
        """The run is over: nobody says anything more. Without a word where nobody ever did."""
        if not self._path.exists():
            return
        self._say({"over": True})
        self.close()
        if os.listdir(self._path.parent) == [INDEX]:  # nothing was printed
            self._path.unlink()

    def close(self) -> None:
        """Nothing more is said by this process."""
        if self._file is not None:
            os.close(self._file)
        self._file = None

    def _say(self, line: dict[str, Any]) -> None:
        if self._file is None:
            flags = os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0)
            self._file = os.open(self._path, flags, 0o600)
        os.write(self._file, json.dumps(line).encode() + b"\n")


@dataclass(slots=True)
class Index:
    """What the lines so far say."""

    #: The stretches of each file, in its order.
    stretches: dict[str, dict[int, Stretch]] = field(default_factory=dict[str, dict[int, Stretch]])
    guarded: bool = False
    over: bool = False
    _clean: dict[str, int] = field(default_factory=dict[str, int])

    def take(self, lines: Iterable[bytes]) -> None:
        """Learn what more lines say; one that makes no sense is left out."""
        for line in lines:
            try:
                said = json.loads(line)
            except ValueError:
                continue
            match said:
                case {"step": str(step), "attempt": int(attempt), "file": str(file), "start": int(start), **more}:
                    one = Stretch(step=step, attempt=attempt, file=file, start=start, end=more.get("end"))
                    self.stretches.setdefault(file, {})[start] = one
                    if one.end is not None:  # the file may have been cut, and what is left holds no secret
                        self._clean[file] = one.end
                case {"file": str(file), "clean": int(until)}:
                    self._clean[file] = until
                case {"guarded": True}:
                    self.guarded = True
                case {"over": True}:
                    self.over = True
                case _:
                    pass

    def shown(self, file: str, size: int) -> int:
        """How much of a file that has `size` bytes may be shown."""
        return size if self.over or not self.guarded else min(size, self._clean.get(file, 0))

    def parts(self, file: str, start: int, end: int) -> list[tuple[Stretch | None, int, int]]:
        """A range of a file, divided by what wrote it; None is no step."""
        found: list[tuple[Stretch | None, int, int]] = []
        at = start
        for _, one in sorted(self.stretches.get(file, {}).items()):
            last = end if one.end is None else min(one.end, end)
            if one.start > at and at < end:
                found.append((None, at, min(one.start, end)))
                at = min(one.start, end)
            if last > at >= one.start:
                found.append((one, at, last))
                at = last
        if at < end:
            found.append((None, at, end))
        return found
