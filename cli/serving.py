"""`catalog serve`: the home's catalog for other hosts."""

import os
import signal
import socket
import sys
import threading
from pathlib import Path
from types import FrameType

import click

from headwater.catalog.clock import SystemClock
from headwater.catalog.errors import UsageError
from headwater.cli import output
from headwater.cli.app import App, json_option, pass_app

#: Hosts that stand for every address of this machine.
_ANY = ("0.0.0.0", "::", "")
_TOKEN_FILE = "serve.token"
#: Seconds between two looks at whether a signal came.
_LOOK = 0.5

_file = click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen at; 0.0.0.0 is every one.")
@click.option("--port", type=click.IntRange(0, 65535), help="0 is any that is free. [default: 7390]")
@click.option("--token-file", type=_file, metavar="FILE", help="[default: serve.token in the home, made if need be]")
@click.option("--read-only-token-file", type=_file, metavar="FILE", help="A token that only allows reading.")
@click.option("--tls-cert", type=_file, metavar="FILE", help="The server's certificate, and those above it, as PEM.")
@click.option("--tls-key", type=_file, metavar="FILE", help="The certificate's key.")
@json_option
@pass_app
def serve(
    app: App,
    host: str,
    port: int | None,
    token_file: Path | None,
    read_only_token_file: Path | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    as_json: bool,
) -> None:
    """Serve the home's catalog to other hosts, until SIGTERM or Ctrl-C; requests under way are finished.

    Clients come in with a token, which is in a private file or the variable HEADWATER_CATALOG_TOKEN. Where others can
    listen on the way, it takes TLS. Processes of this host use the home as ever.

    \b
    Examples:
      headwater catalog serve
      headwater catalog serve --host 0.0.0.0 --tls-cert server.pem --tls-key server.key
      headwater --catalog headwater+tls://warehouse:7390 status      on another host
    """
    from headwater.catalog.storage.sharing.network import serve as listen
    from headwater.catalog.storage.sharing.network import tls_context
    from headwater.catalog.storage.sharing.shared import SharedStorage
    from headwater.catalog.storage.sharing.tcp import DEFAULT_PORT, url_of
    from headwater.catalog.storage.sharing.tokens import VARIABLE, check_token, make_token, read_token
    from headwater.catalog.storage.sharing.wire import Access

    if (tls_cert is None) != (tls_key is None):
        raise UsageError("A certificate and its key belong together.", remedy="Give --tls-cert and --tls-key.")
    tls = None if tls_cert is None or tls_key is None else tls_context(tls_cert, tls_key)
    stop = _stop_on_signals()
    with SharedStorage(app.own_catalog(), wait=app.wait, clock=SystemClock()) as storage:
        given = os.environ.get(VARIABLE)
        if token_file is None and given is not None:
            token, told = check_token(given, VARIABLE), f"the token in {VARIABLE}"
        else:
            token_file = token_file or app.project.home / _TOKEN_FILE
            make_token(token_file)
            token, told = read_token(token_file), f"the token in {token_file}"
        tokens = {token: Access.WRITE}
        if read_only_token_file is not None:
            make_token(read_only_token_file)
            only_reads = read_token(read_only_token_file)
            if only_reads in tokens:
                raise UsageError("The two tokens are the same.", remedy="Name another --read-only-token-file.")
            tokens[only_reads] = Access.READ
        server, chosen = listen(storage, host, DEFAULT_PORT if port is None else port, tokens, tls=tls)
        url = url_of(socket.getfqdn() if host in _ANY else host, chosen, tls=tls is not None)
        if as_json:
            output.say_json({"url": url, "token_file": None if token_file is None else str(token_file)})
        else:
            output.say(url)
            output.note(f"Clients set HEADWATER_CATALOG to that, and {VARIABLE} to {told}.")
            if tls is not None:
                output.note("A certificate that no public authority signed is named to them as catalog.ca_file.")
        sys.stdout.flush()
        try:
            while not stop.wait(_LOOK):  # a signal may reach another thread, which does not end a wait
                pass
        finally:
            server.close()


def _stop_on_signals() -> threading.Event:
    """Set by the first SIGTERM or SIGINT; the second ends the process at once."""
    stop = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            os._exit(128 + number)
        stop.set()

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)
    return stop
