"""What both ends of a TCP connection to a catalog have to know."""

import contextlib
import socket
from ipaddress import ip_address

#: Where a server listens unless it is told.
DEFAULT_PORT = 7390
TLS, PLAIN = "headwater+tls", "headwater+tcp"
#: Seconds after which a peer that is silent is asked for a sign of life, and then after which it is given up.
_IDLE, _GIVE_UP = 30, 30


def url_of(host: str, port: int, *, tls: bool) -> str:
    """The URL of what is served there."""
    return f"{TLS if tls else PLAIN}://{f'[{host}]' if ':' in host else host}:{port}"


def is_loopback(host: str) -> bool:
    """Whether a name or address means this host, and nobody else can send anything to it."""
    with contextlib.suppress(ValueError):
        return ip_address(host).is_loopback
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return False
    return all(ip_address(str(place[0]).partition("%")[0]).is_loopback for *_, place in found)


def prepare(connection: socket.socket) -> None:
    """Have a TCP connection send at once what is small, and notice that the other host is gone."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    times = {"TCP_KEEPIDLE": _IDLE, "TCP_KEEPALIVE": _IDLE, "TCP_KEEPINTVL": _GIVE_UP // 3, "TCP_KEEPCNT": 3}
    for name, value in times.items():  # not every system has all of them
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
