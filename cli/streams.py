"""The process's own streams: what becomes of the answer when nobody takes it, and of messages that cannot be said."""

import contextlib
import io
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any


class OutputError(OSError):
    """The answer could not be written, for the reason `cause`.

    It tells a full disk below stdout from one below anything else. It has no errno of its own, as Click exits by
    itself on one about a pipe.
    """

    def __init__(self, cause: OSError) -> None:
        super().__init__(str(cause))
        self.cause = cause


class _Answer(io.FileIO):
    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            raise OutputError(error) from error


class _Messages(io.FileIO):
    """What cannot be said changes nothing of what is done."""

    def write(self, data: Any, /) -> int:
        with contextlib.suppress(OSError):
            return super().write(data)
        return len(data)


def take_streams() -> None:
    """Make stdout raise `OutputError`, and stderr nothing, where they are the process's own and not somebody else's.

    A closed descriptor is opened to nowhere first: the next file, the catalog say, would get its number, and what is
    printed.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    for name, number, kind in (("stdout", 1, _Answer), ("stderr", 2, _Messages)):
        stream = getattr(sys, name)
        if stream is not None and (stream is not getattr(sys, f"__{name}__") or stream.fileno() != number):
            continue
        raw = kind(number, "w", closefd=False)
        text = io.TextIOWrapper(
            io.BufferedWriter(raw),
            encoding=stream.encoding if stream else "utf-8",
            errors=stream.errors if stream else "backslashreplace",
            line_buffering=number == 2 or raw.isatty(),
        )
        setattr(sys, name, text)


def drop_answer() -> None:
    """Send all that is and will be written to stdout nowhere, at exit too."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


@contextmanager
def stdout_to_stderr() -> Generator[None]:
    """What user code prints while it is imported is not the command's answer."""
    sys.stdout.flush()
    saved = os.dup(1)
    try:
        os.dup2(2, 1)
        yield
    finally:
        try:
            sys.stdout.flush()
        except OSError:  # what cannot be said must not come out with the answer
            drop_answer()
            sys.stdout.flush()
        os.dup2(saved, 1)
        os.close(saved)
