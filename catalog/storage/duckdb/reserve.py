"""Space kept back for the moment when the disk is full, so that there is room to record that it was."""

import contextlib
import os
from pathlib import Path

RESERVE_FILE = "catalog.reserve"

#: Room for some thousand events of a failing run, or for one checkpoint of a log of that size.
RESERVE_BYTES = 8 * 1024 * 1024


def keep(home: Path) -> None:
    """Set the reserve aside in `home` if it is not there. Does nothing where there is no room for it."""
    path = home / RESERVE_FILE
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError:
        return
    try:
        os.posix_fallocate(descriptor, 0, RESERVE_BYTES)
    except OSError:
        release(home)
    finally:
        os.close(descriptor)


def release(home: Path) -> None:
    """Give the reserve up; it is kept again when the catalog is next opened."""
    with contextlib.suppress(OSError):
        os.unlink(home / RESERVE_FILE)
