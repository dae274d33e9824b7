"""What a service manager is told of how the daemon is: the protocol of sd_notify(3), which is one datagram."""

import contextlib
import os
import socket
import time


def notify(*lines: str) -> None:
    """Tell the service manager, where one wants to know (Type=notify); `lines` are such as `READY=1`."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    if address.startswith("@"):  # of Linux's abstract ones
        address = "\0" + address[1:]
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        sender.sendto("\n".join(lines).encode(), address)


def reloading() -> None:
    """Tell that it begins anew and is going to be ready again."""
    notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
