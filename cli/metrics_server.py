"""Metrics over HTTP, for whoever collects them from this machine."""

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from headwater.catalog.errors import HeadwaterError, UsageError

#: Seconds that one who asks may take to say what.
_PATIENCE = 10.0


class MetricsServer:
    """Answers `GET /metrics` at a port of the loopback interface, from threads of its own."""

    def __init__(self, port: int, text: Callable[[], str]) -> None:
        """Raises `UsageError` where the port cannot be had."""

        class Handler(BaseHTTPRequestHandler):
            timeout = _PATIENCE

            def do_GET(self) -> None:
                if self.path != "/metrics":
                    return self.send_error(404)
                try:
                    body = text().encode()
                except HeadwaterError as error:
                    return self.send_error(503, error.code)
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
                return None

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Nobody reads this."""

        try:
            self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        except OSError as error:
            raise UsageError(
                f"Port {port} cannot be listened at: {error.strerror}.", remedy="Choose another --metrics-port."
            ) from None
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, name="headwater-metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
