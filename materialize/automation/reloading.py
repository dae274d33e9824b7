"""Noticing that what the definitions were made from has changed, and beginning anew with it.

A process cannot forget what it imported. So a change is tried in another process first, and where the definitions load
there, this one executes itself: the same process, with nothing of what it had imported. Where they do not load, it
keeps those that it has.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

#: The processes that this one started before it began anew: they are its children still.
_CHILDREN = "HEADWATER_CHILDREN"
#: Files and folders of a project that are looked at while its definitions do not load.
_MANY = 10_000

_Stamp = tuple[int, int, int]


class Watch:
    """Files, and folders by what is in them: whether one of them is not what it was."""

    def __init__(self, paths: Iterable[str]) -> None:
        self._paths = sorted(set(paths))
        self._stamps = self._look()

    def add(self, paths: Iterable[str]) -> None:
        """Watch these as well, from now on."""
        new = sorted(set(paths).difference(self._paths))
        self._paths += new
        self._stamps = {**self._stamps, **{path: _stamp(path) for path in new}}

    def changed(self) -> bool:
        """Whether one is different from when this was asked last."""
        before, self._stamps = self._stamps, self._look()
        return before != self._stamps

    def _look(self) -> Mapping[str, _Stamp | None]:
        return {path: _stamp(path) for path in self._paths}


def _stamp(path: str) -> _Stamp | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def python_files(root: Path) -> list[str]:
    """The Python files below a folder, and its folders: what may mend definitions that do not load."""
    found: list[str] = []
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith((".", "__pycache__"))]
        if "pyvenv.cfg" in files:
            folders.clear()
            continue
        found += [folder, *(os.path.join(folder, name) for name in files if name.endswith(".py"))]
        if len(found) >= _MANY:
            break
    return found


class Trial:
    """This command, loading its definitions in another process; `option` has it do that and no more."""

    def __init__(self, option: str, patience: float) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        self._patience = patience
        self._until = time.monotonic() + patience
        self._process = subprocess.Popen(
            [*_command(), option], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self._errors
        )

    def is_over(self) -> bool:
        """Whether it ended, or took too long."""
        return self._process.poll() is not None or time.monotonic() > self._until

    def end(self) -> str | None:
        """Why the definitions do not load, of one that is over; None where they do. Stops one that is not."""
        code = self._process.poll()
        if code is None:
            self._process.kill()
            self._process.wait()
        with self._errors:
            self._errors.seek(0)
            text = self._errors.read().decode("utf-8", "replace").rstrip()
        if code is None:
            return f"Loading the definitions took more than {self._patience:g} seconds."
        return None if code == 0 else text or f"Loading the definitions ended with exit code {code}."


class Changes:
    """Whether a process is to begin anew, as what its definitions were made from changed, and loads.

    `sources` are watched, and while definitions do not load, all Python files below `root`. `option` is that of a
    `Trial`; where the definitions that the process has are broken, there is nothing to lose and no trial.
    """

    def __init__(self, sources: Iterable[str], root: Path, option: str, patience: float, *, is_broken: bool) -> None:
        self._watch = Watch(sources)
        self._root = root
        self._option = option
        self._patience = patience
        self._is_broken = is_broken
        self._trial: Trial | None = None
        if is_broken:
            self._watch.add(python_files(root))

    def look(self, *, asked: bool, tell: Callable[[str], object]) -> bool:
        """Whether it is time to begin anew; `asked` that somebody wants that. `tell` is told why it is or is not."""
        if self._watch.changed() or asked:
            self.close()
            if not self._is_broken:
                self._trial = Trial(self._option, self._patience)
            return self._is_broken
        if self._trial is None or not self._trial.is_over():
            return False
        trial, self._trial = self._trial, None
        failure = trial.end()
        if failure is None:
            tell("The definitions changed, and are loaded again.")
            return True
        self._watch.add(python_files(self._root))
        tell(f"The definitions changed, and are broken: those from before stay in effect.\n{failure}")
        return False

    def close(self) -> None:
        """Stop a trial that goes on."""
        if self._trial is not None:
            self._trial.end()
            self._trial = None


def begin_anew(children: Iterable[int]) -> None:
    """Execute this command again, in this process, which has to wait for its children then. Does not return."""
    os.environ[_CHILDREN] = ",".join(map(str, children))
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    command = _command()
    os.execv(command[0], command)


def wait_for_children() -> None:
    """In a process that began anew: hear how those ended that it started before."""
    pids = [int(pid) for pid in os.environ.pop(_CHILDREN, "").split(",") if pid.isdecimal()]
    if pids:
        threading.Thread(target=_wait, args=(pids,), name="headwater-children", daemon=True).start()


def _wait(pids: Iterable[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)


def _command() -> list[str]:
    return [sys.executable, *sys.orig_argv[1:]]
