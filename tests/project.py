"""A project in a folder, and the command line run on it as a real process."""

import json
import os
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


def date(file: Path, age: float = 60) -> None:
    """Let a file have changed so many seconds ago: definitions that changed just now are not remembered."""
    then = time.time() - age
    os.utime(file, (then, then))


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one document on stdout."""
        return json.loads(self.out)


@dataclass
class ProjectFolder:
    """A folder with a `headwater.toml` and source files."""

    path: Path
    env: dict[str, str] = field(default_factory=dict[str, str])
    _started: list[subprocess.Popen[str]] = field(default_factory=list[subprocess.Popen[str]], init=False, repr=False)

    def end(self) -> None:
        """Kill what a test left running: its pipes would otherwise be reported as another test's."""
        for process in self._started:
            if process.poll() is None:
                process.kill()
            with process:  # closes the pipes and waits
                pass

    def write(self, source: str, name: str = "assets.py") -> Path:
        """Write a source file."""
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(source).lstrip("\n"), "utf-8")
        date(file)
        return file

    def edit(self, old: str, new: str, name: str = "assets.py") -> None:
        """Replace a text that occurs once."""
        file = self.path / name
        text = file.read_text("utf-8")
        assert text.count(old) == 1, f"{old!r} occurs {text.count(old)} times"
        file.write_text(text.replace(old, new), "utf-8")
        date(file)

    def environment(self) -> dict[str, str]:
        """What commands run with: nothing of the caller's settings for Headwater or its terminal."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("HEADWATER", "COV_", "PYTEST")) and name not in ("NO_COLOR", "FORCE_COLOR")
        }
        return {**kept, "PYTHONDONTWRITEBYTECODE": "1", **self.env}

    def start(self, *arguments: str, **options: Any) -> "subprocess.Popen[str]":
        """Start a command and return at once."""
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process: subprocess.Popen[str] = subprocess.Popen(
            [sys.executable, "-m", "headwater", *arguments],
            cwd=self.path,
            env=self.environment(),
            text=True,
            **{**pipes, **options},
        )
        self._started.append(process)
        return process

    def run(self, *arguments: str, code: int | None = 0, timeout: float = 120) -> Done:
        """Run a command; with a `code`, it has to exit with that."""
        process = self.start(*arguments)
        out, err = process.communicate(timeout=timeout)
        done = Done(process.returncode, out, err)
        assert code is None or done.code == code, f"headwater {' '.join(arguments)}: {done.code}\n{out}\n{err}"
        return done

    def json(self, *arguments: str, code: int | None = 0) -> Any:
        """Run a command with --json and return its document."""
        return self.run(*arguments, "--json", code=code).json

    def built(self, *arguments: str, code: int | None = 0) -> dict[str, str]:
        """Materialize, and what became of each asset."""
        return {step["key"]: step["status"] for step in self.json("materialize", *arguments, code=code)["steps"]}

    def statuses(self) -> dict[str, str]:
        """The status of each asset."""
        return {asset["key"]: asset["status"] for asset in self.json("status")["assets"]}
