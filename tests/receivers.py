"""Servers that alerts are sent to, on loopback: they keep what they are told."""

import queue
import socket
import ssl
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


@dataclass(slots=True)
class Hook:
    """A web server: its address, what to answer next, and what it was told."""

    url: str = ""
    statuses: list[int] = field(default_factory=list[int])
    #: Set to let requests that are kept waiting go on.
    go_on: threading.Event = field(default_factory=threading.Event)
    told: "queue.Queue[tuple[dict[str, str], bytes]]" = field(
        default_factory=lambda: queue.Queue[tuple[dict[str, str], bytes]]()
    )


@contextmanager
def web_server() -> Generator[Hook]:
    """A web server that answers 200, or what its `statuses` say: 0 is no answer until `go_on`."""
    hook = Hook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            hook.told.put((dict(self.headers), body))
            status = hook.statuses.pop(0) if hook.statuses else 200
            if status == 0:
                hook.go_on.wait(30)
                return
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("Location", hook.url)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hook.url = f"http://127.0.0.1:{server.server_address[1]}/services/T0/secret-path"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield hook
    finally:
        hook.go_on.set()
        server.shutdown()
        thread.join()
        server.server_close()


@dataclass(slots=True)
class Mailbox:
    """A mail server: its port, who may send, and what was sent."""

    port: int = 0
    #: As base64 of "\0user\0password" where one has to say who one is.
    credentials: str | None = None
    sent: "queue.Queue[bytes]" = field(default_factory=lambda: queue.Queue[bytes]())
    #: The commands that came, in clear text and after encryption began.
    clear: list[str] = field(default_factory=list[str])
    encrypted: list[str] = field(default_factory=list[str])


@contextmanager
def mail_server(certificate: Path | None = None, *, credentials: str | None = None) -> Generator[Mailbox]:
    """An SMTP server (RFC 5321), with STARTTLS (RFC 3207) where there is a certificate, and AUTH PLAIN (RFC 4616)."""
    box = Mailbox(credentials=credentials)
    listening = socket.create_server(("127.0.0.1", 0))
    box.port = listening.getsockname()[1]
    context: ssl.SSLContext | None = None
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)

    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            line = _Lines(connection)
            _converse(line, box, context)
            line.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield box
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join()


def _converse(line: "_Lines", box: Mailbox, context: ssl.SSLContext | None) -> None:
    known = False
    line.say("220 here")
    while (said := line.read()) is not None:
        (box.encrypted if line.encrypted else box.clear).append(said)
        match said.upper().partition(" ")[0]:
            case "EHLO" | "HELO":
                for offer in ("here", *(["STARTTLS"] if context and not line.encrypted else [])):
                    line.say(f"250-{offer}")
                line.say("250 AUTH PLAIN")
            case "STARTTLS" if context is not None:
                line.say("220 go on")
                if not line.encrypt(context):
                    return
            case "AUTH":
                known = said.split(" ")[-1] == box.credentials
                line.say("235 yes" if known else "535 no")
            case "MAIL" if box.credentials is not None and not known:
                line.say("530 who are you")
            case "MAIL" | "RCPT" | "RSET":
                line.say("250 yes")
            case "DATA":
                line.say("354 go on")
                sent: list[str] = []
                while (text := line.read()) not in (None, "."):
                    sent.append(text.removeprefix(".") if text else "")
                box.sent.put("\n".join([*sent, ""]).encode("latin-1"))
                line.say("250 yes")
            case "QUIT":
                line.say("221 bye")
                return
            case _:
                line.say("502 what")


class _Lines:
    """A connection, line by line."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(30)
        self._connection = connection
        self.encrypted = False

    def close(self) -> None:
        self._connection.close()

    def say(self, text: str) -> None:
        self._connection.sendall(text.encode() + b"\r\n")

    def read(self) -> str | None:
        """The next line; None where there is none."""
        found = b""
        while not found.endswith(b"\r\n"):
            try:
                byte = self._connection.recv(1)  # and nothing of what comes encrypted
            except OSError:
                return None
            if not byte:
                return None
            found += byte
        return found[:-2].decode("latin-1")

    def encrypt(self, context: ssl.SSLContext) -> bool:
        try:
            self._connection = context.wrap_socket(self._connection, server_side=True)
        except OSError:
            return False
        self.encrypted = True
        return True
