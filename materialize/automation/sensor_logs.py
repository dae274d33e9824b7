"""What sensors print: a file for each in the home, of bounded size."""

import contextlib
import os
from datetime import datetime
from pathlib import Path

#: Below the home.
LOGS = Path("logs", "sensors")
#: Bytes that a file may have before it becomes the previous one, of which there is one.
MAX_BYTES = 1 << 20
_FLAGS = os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW


def log_file(home: Path, sensor: str) -> Path:
    """What a sensor printed lately; before that, the same name with `.1` behind it."""
    return home / LOGS / f"{sensor}.log"


def keep_printed(home: Path, sensor: str, time: datetime, printed: str) -> None:
    """Keep what an evaluation printed, behind a line with its time. Where that cannot be, it is lost."""
    path = log_file(home, sensor)
    end = "" if printed.endswith("\n") else "\n"
    with contextlib.suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.exists() and path.stat().st_size > MAX_BYTES:
            path.replace(path.with_name(f"{path.name}.1"))
        file = os.open(path, _FLAGS, 0o600)
        try:
            os.write(
                file, f"--- {time.isoformat(timespec='seconds')}\n{printed}{end}".encode("utf-8", "backslashreplace")
            )
        finally:
            os.close(file)
