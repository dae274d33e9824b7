"""What a service manager is told of how the daemon is: the protocol of sd_notify(3), a datagram each time."""

import contextlib
import os
import socket
import time

#: Seconds that one which does not listen may hold the daemon up.
_PATIENCE = 1.0


def notify(*lines: str) -> None:
    """Tell the service manager, where one wants to know (Type=notify); `lines` are such as `READY=1`."""
    _send("\n".join(lines), _PATIENCE)


def alive() -> None:
    """Tell that it does not hang, where that is watched (WatchdogSec)."""
    if "WATCHDOG_USEC" in os.environ:
        _send("WATCHDOG=1", 0.0)  # where there is no room for it, nobody has read the one before


def reloading() -> None:
    """Tell that it begins anew and is going to be ready again."""
    notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")


def _send(text: str, patience: float) -> None:
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    if address.startswith("@"):  # of Linux's abstract ones
        address = "\0" + address[1:]
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        sender.settimeout(patience)
        sender.sendto(text.encode(), address)
