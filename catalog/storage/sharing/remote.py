"""A catalog that another host serves: where it is, and how it is reached and reached again."""

import random
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headwater.catalog.clock import Clock
from headwater.catalog.errors import BusyError, UnreachableCatalogError, UsageError
from headwater.catalog.records import LoggedEvent
from headwater.catalog.storage.sharing.guest import Guest
from headwater.catalog.storage.sharing.tcp import DEFAULT_PORT, PLAIN, TLS, is_loopback, prepare, url_of
from headwater.catalog.storage.sharing.wire import Disconnected

if TYPE_CHECKING:
    import ssl

_URL = re.compile(r"(?P<scheme>[a-z+]+)://(?P<host>\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(?::(?P<port>\d{1,5}))?/?")
#: Seconds between two attempts, doubling from the first to the last; of each a random part of up to half is left out,
#: so that clients of a server that comes back do not all come at once.
_FIRST_PAUSE, _LAST_PAUSE = 0.05, 2.0
#: Events that are asked for at a time.
_PAGE = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a catalog is served, and what it takes to come in. As text, its URL."""

    host: str
    port: int
    tls: bool
    token: str = field(repr=False)
    #: The certificates that are trusted; those of the system without it.
    ca_file: Path | None = None

    @staticmethod
    def of(url: str, token: str, ca_file: Path | None = None) -> "Address":
        """The address that a URL means. Raises `UsageError` for one that makes no sense, or would show the token."""
        found = _URL.fullmatch(url)
        port = int(found["port"] or DEFAULT_PORT) if found else 0
        if found is None or found["scheme"] not in (TLS, PLAIN) or not 0 < port < 65536:
            raise UsageError(f"'{url}' is no address of a catalog.", remedy=f"Write {TLS}://HOST:PORT.")
        address = Address(
            host=found["host"].strip("[]"), port=port, tls=found["scheme"] == TLS, token=token, ca_file=ca_file
        )
        if not address.tls and not is_loopback(address.host):
            raise UsageError(
                f"With {PLAIN}, anybody on the way to {address.host} could read the token and change the catalog.",
                remedy=f"Have it served with TLS, and write {TLS}://; or reach it through a tunnel to this host.",
            )
        return address

    def connect(self, timeout: float) -> socket.socket:
        """See `client.Listener`."""
        connection = socket.create_connection((self.host, self.port), timeout)
        try:
            prepare(connection)
            return self._encrypted(connection) if self.tls else connection
        except BaseException:
            connection.close()
            raise

    def _encrypted(self, connection: socket.socket) -> "ssl.SSLSocket":
        import ssl

        try:
            context = ssl.create_default_context(cafile=None if self.ca_file is None else str(self.ca_file))
        except OSError as error:
            raise UnreachableCatalogError(
                f"The certificates in {self.ca_file} cannot be read: {error.strerror or error}.",
                remedy="Name a PEM file with the certificate that signed the server's, or the server's own.",
            ) from error
        try:
            return context.wrap_socket(connection, server_hostname=self.host)
        except ssl.SSLCertVerificationError as error:
            raise UnreachableCatalogError(
                f"The server at {self} is not known to be {self.host}: {error.verify_message}.",
                remedy="Name the certificate that signed its own as ca_file, and the host as it is named in there.",
            ) from error
        except ssl.SSLError as error:
            if error.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST"):
                raise UnreachableCatalogError(
                    f"What listens at {self} does not speak TLS.", remedy=f"Serve it with TLS, or write {PLAIN}://."
                ) from error
            raise

    def __str__(self) -> str:
        return url_of(self.host, self.port, tls=self.tls)


class RemoteGuest(Guest):
    """One who asks a server, which gives no more than so much at a time."""

    def ask(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """See `Backend.ask`. Events come in pages, however many are asked for."""
        left = arguments.get("limit")
        if name != "events" or (left is not None and left <= _PAGE):
            return super().ask(name, arguments)
        found: list[LoggedEvent] = []
        after = arguments["after"]
        while left is None or left > 0:
            limit = _PAGE if left is None else min(left, _PAGE)
            page: list[LoggedEvent] = super().ask(name, {**arguments, "after": after, "limit": limit})
            found += page
            if len(page) < limit:
                break
            after = page[-1].seq
            left = None if left is None else left - limit
        return found


class RemoteJoining:
    """See `shared.Joining`: of the catalog that is served at `address`."""

    def __init__(self, address: Address, clock: Clock, read_only: bool) -> None:
        self.read_only = read_only
        self._address = address
        self._clock = clock

    def __str__(self) -> str:
        return f"at {self._address}"

    def lost(self) -> None:
        """It is looked for where it was."""

    def join(self, wait: float) -> RemoteGuest:
        """See `Joining.join`. Raises `UnreachableCatalogError`, `BusyError`, and at once `AccessDeniedError`."""
        deadline = self._clock.monotonic() + wait
        pause = _FIRST_PAUSE
        while True:
            try:
                return RemoteGuest(self._address, None)
            except (Disconnected, BusyError) as error:
                left = deadline - self._clock.monotonic()
                if left <= 0:
                    if isinstance(error, BusyError):
                        raise
                    raise UnreachableCatalogError(
                        f"The catalog at {self._address} cannot be reached: {error}.",
                        remedy="See whether `headwater catalog serve` runs there, and wait longer with --wait SECONDS.",
                    ) from error
            self._clock.sleep(min(pause * random.uniform(0.5, 1), left))
            pause = min(2 * pause, _LAST_PAUSE)
