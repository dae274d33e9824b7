"""The part of a traceback that says something to the user: from where their own code begins."""

import os
import sysconfig
import traceback
from functools import lru_cache
from pathlib import Path

from headwater.catalog.errors import HeadwaterError

_ROOT = Path(__file__).resolve().parents[2]
#: Folders beside these may hold other people's code: in a checkout the root is a working folder.
_OURS = tuple(str(_ROOT / name) + os.sep for name in ("catalog", "cli", "io", "materialize", "tui"))
_STANDARD = os.path.realpath(sysconfig.get_path("stdlib")) + os.sep
_INSTALLED = (os.sep + "site-packages" + os.sep, os.sep + "dist-packages" + os.sep)
#: Sources of compiled libraries, such as pyarrow/array.pxi, whose frames do not say where they are installed.
_COMPILED = (".pyx", ".pxi")


def user_traceback(error: BaseException) -> str:
    """The traceback from where user code begins; empty for an error of ours that none of it led to.

    Never raises, whatever the exception is.
    """
    try:
        trace = traceback.TracebackException.from_exception(error, compact=True)
        frames = _trim(trace)
        if isinstance(error, HeadwaterError):
            frames = [name for name in frames if not _is_installed(name)]
        return "".join(trace.format()) if frames else ""
    except Exception:
        return ""


def user_frames(error: BaseException) -> str:
    """Where in user code an error was raised, without the error itself; empty where none of it is."""
    trace = traceback.TracebackException.from_exception(error)
    trace.__cause__ = trace.__context__ = None
    files = [name for name in _trim(trace) if not _is_installed(name)]
    stack = [frame for frame in trace.stack if not _is_machinery(frame.filename)]
    return "".join(traceback.StackSummary.from_list(stack).format()) if files else ""


def _trim(trace: traceback.TracebackException) -> list[str]:
    """Drop the frames before the first of the user's; the files of those left, here and in what led to it."""
    stack = list(trace.stack)
    first = next((i for i, frame in enumerate(stack) if not _is_machinery(frame.filename)), len(stack))
    trace.stack = traceback.StackSummary.from_list(stack[first:])
    files = [frame.filename for frame in trace.stack if not _is_machinery(frame.filename)]
    for other in (trace.__cause__, trace.__context__):
        if other is not None:
            files += _trim(other)
    return files


@lru_cache(maxsize=4096)
def _is_machinery(filename: str) -> bool:
    """Whether a file is Headwater's or the standard library's."""
    if filename.startswith("<frozen "):
        return True
    path = os.path.realpath(filename)
    return path.startswith(_OURS) or (path.startswith(_STANDARD) and not _is_installed(path))


def _is_installed(filename: str) -> bool:
    return filename.endswith(_COMPILED) or any(folder in filename for folder in _INSTALLED)
