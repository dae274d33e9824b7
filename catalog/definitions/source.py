"""Where in the user's files a definition stands, so that errors can point at it."""

import sys
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, FunctionType


@dataclass(frozen=True, slots=True)
class SourceLocation:
    """A line of a file."""

    file: str
    line: int

    def __str__(self) -> str:
        try:
            shown = str(Path(self.file).relative_to(Path.cwd()))
        except (ValueError, OSError):  # elsewhere, or the current folder is gone
            shown = self.file
        return f"{shown}:{self.line}"

    @staticmethod
    def of(function: FunctionType) -> "SourceLocation":
        """Where `function` is defined."""
        return SourceLocation(function.__code__.co_filename, function.__code__.co_firstlineno)

    @staticmethod
    def of_caller() -> "SourceLocation":
        """The nearest line outside Headwater that led here."""
        frame: FrameType | None = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]
        while frame is not None and str(frame.f_globals.get("__name__", "")).startswith("headwater."):
            frame = frame.f_back
        if frame is None:
            return SourceLocation("<unknown>", 0)
        return SourceLocation(frame.f_code.co_filename, frame.f_lineno)
