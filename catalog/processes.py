"""Whether a process is still there: how what a killed one left is told from what goes on."""

import getpass
import os
import socket
from pathlib import Path


def this_host() -> str:
    """The name of this host, as it is recorded."""
    return socket.gethostname()


def user_name() -> str:
    """Who runs this process."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in many containers
        return str(os.getuid())


def exists(pid: int) -> bool:
    """Whether this host has a process of that number, whosever it is."""
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def start_ticks(pid: int) -> int | None:
    """When a process began, in clock ticks since the system was booted; None where that cannot be known.

    Together with its number that names a process (Linux: proc(5), /proc/pid/stat). Unlike a time of day it stays what
    it is when somebody sets the clock.
    """
    fields = _status(pid)
    return int(fields[19]) if len(fields) > 19 else None


def is_running(host: str, pid: int, ticks: int | None) -> bool:
    """Whether the process that had this number, and began at these `start_ticks`, still goes on.

    One on another host cannot share a catalog. Where the ticks are not known, one that got the number since is taken
    for it.
    """
    if host != this_host() or not exists(pid):
        return False
    fields = _status(pid)
    if fields and fields[0] in (b"Z", b"X"):  # it is dead, and nobody has asked how it ended
        return False
    return ticks is None or len(fields) <= 19 or int(fields[19]) == ticks


def _status(pid: int) -> list[bytes]:
    """What the system says of a process, from its state on; nothing where that cannot be known, or it is gone."""
    try:
        # Behind the name, which may hold anything but is in parentheses.
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return []
