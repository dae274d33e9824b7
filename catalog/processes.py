"""Whether a process is still there: how what a killed one left is told from what goes on."""

import getpass
import os
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path

#: Linux tells when it was booted in whole seconds.
_COARSE = timedelta(seconds=2)


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


def is_running(host: str, pid: int, since: datetime) -> bool:
    """Whether the process that had this number at a time still goes on. One on another host cannot share a catalog.

    Where the system tells when processes began (Linux: proc(5), /proc/pid/stat), another one that got the number
    since is not taken for it.
    """
    if host != this_host() or not exists(pid):
        return False
    if pid == os.getpid():
        return True
    fields = _status(pid)
    if fields and fields[0] in (b"Z", b"X"):  # it is dead, and nobody has asked how it ended
        return False
    began = _began(fields)
    return began is None or began <= since + _COARSE


def _status(pid: int) -> list[bytes]:
    """What the system says of a process, from its state on; nothing where that cannot be known, or it is gone."""
    try:
        # Behind the name, which may hold anything but is in parentheses.
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return []


def _began(fields: list[bytes]) -> datetime | None:
    """When a process began; None where that cannot be known, or it is gone."""
    try:
        ticks = int(fields[19])  # since boot
        boot = next(
            int(line[6:]) for line in Path("/proc/stat").read_bytes().splitlines() if line.startswith(b"btime ")
        )
    except (OSError, ValueError, IndexError, StopIteration):
        return None
    return datetime.fromtimestamp(boot, UTC) + timedelta(seconds=ticks / os.sysconf("SC_CLK_TCK"))
