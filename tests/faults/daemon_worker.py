"""The command line, killed at a named point: daemon_worker.py POINT HOURS ARGUMENTS. Its clock is so many hours ahead.

A point is before or after the first call of something that a round does.
"""

import os
import signal
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.append(str(Path(__file__).parents[2]))

from headwater.catalog.clock import SystemClock
from headwater.catalog.events import TickEnded
from headwater.catalog.storage.sharing.shared import SharedStorage
from headwater.materialize import launching
from headwater.materialize.automation import daemon, leadership, schedules
from headwater.materialize.automation import round as rounds

CALLS: dict[str, tuple[Any, str]] = {
    "take": (leadership.Place, "__init__"),
    "recover": (rounds, "recover"),
    "retries": (rounds, "due_retries"),
    "tick": (schedules, "tick"),
    "append": (SharedStorage, "append"),
    "launch": (rounds, "launch_waiting"),
    "spawn": (launching, "spawn"),
    "resume": (rounds, "resume_dead"),
    "purge": (daemon, "purge"),
}
POINTS = [f"{when} {name}" for name in CALLS for when in ("before", "after")]


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def mortal(call: Callable[..., Any], when: str) -> Callable[..., Any]:
    def called(*arguments: Any, **more: Any) -> Any:
        counts = call.__name__ != "append" or any(isinstance(event, TickEnded) for event in arguments[1])
        if counts and when == "before":
            die()
        answer = call(*arguments, **more)
        if counts:
            die()
        return answer

    return called


def main() -> None:
    point, hours = sys.argv[1], int(sys.argv[2])
    now = SystemClock.now
    SystemClock.now = lambda self: now(self) + timedelta(hours=hours)
    if point != "never":
        when, _, name = point.partition(" ")
        owner, attribute = CALLS[name]
        setattr(owner, attribute, mortal(getattr(owner, attribute), when))
    from headwater.cli.main import main as run

    run(sys.argv[3:])


if __name__ == "__main__":
    main()
