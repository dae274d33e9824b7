"""Serving a catalog to other hosts: what is listened to, who is let in, and how much may be asked.

The catalog itself is one of `SharedStorage`: this process has it while it is alone, and asks the host's keeper once
there is one. So processes of this host go on using the home beside it, and killing the server harms nobody.
"""

import contextlib
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headwater.catalog.errors import UsageError
from headwater.catalog.storage.sharing.serving import Limits, Server
from headwater.catalog.storage.sharing.shared import SharedStorage
from headwater.catalog.storage.sharing.tcp import is_loopback
from headwater.catalog.storage.sharing.wire import Access

if TYPE_CHECKING:
    import ssl

LIMITS = Limits(question=16 << 20, append=512 << 20, answer=512 << 20, clients=256, stall=60.0)
#: Of one answer, where the question has a limit.
MAX_ROWS = 100_000


def serve(
    storage: SharedStorage,
    host: str,
    port: int,
    tokens: Mapping[str, Access],
    *,
    tls: "ssl.SSLContext | None" = None,
    limits: Limits = LIMITS,
) -> tuple[Server, int]:
    """Answer other hosts until the server is closed. Returns it and the port, which it chose where that is 0.

    Raises `UsageError` for a host that others can reach without `tls`, and for a place where it cannot listen.
    """
    if tls is None and not is_loopback(host):
        raise UsageError(
            f"Whoever is on the way to {host} could read what is sent there without TLS, the token first of all.",
            remedy="Give --tls-cert and --tls-key, or serve on 127.0.0.1 and let others come through a tunnel.",
        )

    def respond(name: str, arguments: dict[str, Any]) -> Any:
        return storage.ask(name, _bounded(name, arguments))

    listener = _listen(host, port)
    return Server(listener, respond, tokens, tls=tls, limits=limits), listener.getsockname()[1]


def tls_context(certificate: Path, key: Path) -> "ssl.SSLContext":
    """What a server needs for TLS. Raises `UsageError` for files that do not serve."""
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        # A key with a passphrase is refused: nobody is there to be asked.
        context.load_cert_chain(certificate, key, password=lambda: b"")
    except OSError as error:  # `SSLError` is one
        reason = "they do not fit together" if "MISMATCH" in str(error) else error.strerror or str(error)
        raise UsageError(
            f"The certificate {certificate} and the key {key} cannot be used: {reason}.",
            remedy="Both are PEM files, the key without a passphrase. docs/reference/serving.md makes some.",
        ) from error
    return context


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, place = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_ADDRCONFIG
        )[0]
        return socket.create_server(place, family=family, backlog=128)
    except OSError as error:
        raise UsageError(
            f"It is not possible to listen at {host}, port {port}: {error.strerror or error}.",
            remedy="Choose another --port, or a --host of this machine.",
        ) from error


def _bounded(name: str, arguments: dict[str, Any]) -> Mapping[str, Any]:
    """The arguments with which an operation gives no more rows than one answer may have. Raises `UsageError`."""
    if name == "query":
        return {**arguments, "max_rows": MAX_ROWS}
    with contextlib.suppress(KeyError):
        limit = arguments["limit"]
        if limit is None or limit > MAX_ROWS:
            raise UsageError(
                f"'{name}' is asked for {'everything' if limit is None else f'{limit:,} rows'} at once, "
                f"and {MAX_ROWS:,} is the most.",
                remedy="Ask in pages: each from where the one before it ended.",
            )
    return arguments
