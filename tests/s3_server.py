"""A real S3 server for tests: moto in a process of its own, spoken to over HTTP."""

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from dataclasses import dataclass

_NAMESPACE = "{http://s3.amazonaws.com/doc/2006-03-01/}"


@dataclass(frozen=True)
class Bucket:
    """A bucket of its own for one test, and how to reach it."""

    name: str
    endpoint: str

    @property
    def root(self) -> str:
        return f"s3://{self.name}/warehouse"

    @property
    def options(self) -> dict[str, str]:
        """Storage options that reach the server, and fail fast."""
        return {
            "endpoint_url": self.endpoint,
            "aws_access_key_id": "AKIATESTTESTTEST",
            "aws_secret_access_key": "canary-secret-5f1d",
            "region": "us-east-1",
            "max_retries": "2",
            "retry_timeout": "10",
        }

    def keys(self) -> list[str]:
        """The keys of every object."""
        listing = self._get("?list-type=2&max-keys=1000")
        return [item.text or "" for item in listing.iter(f"{_NAMESPACE}Key")]

    def uploads(self) -> list[str]:
        """The keys of uploads that were begun and neither completed nor aborted."""
        return [item.text or "" for item in self._get("?uploads").iter(f"{_NAMESPACE}Key")]

    def _get(self, query: str) -> ElementTree.Element:
        with urllib.request.urlopen(f"{self.endpoint}/{self.name}{query}", timeout=10) as answer:
            return ElementTree.fromstring(answer.read())


class S3Server:
    """A moto server on a free port of this machine.

    With `open_requests`, only that many requests are let in without a valid key.
    """

    def __init__(self, open_requests: int | None = None) -> None:
        environment = dict(os.environ)
        if open_requests is not None:
            environment["INITIAL_NO_AUTH_ACTION_COUNT"] = str(open_requests)
        for _ in range(5):  # somebody may take the port between our look and the server's
            self.port = _free_port()
            self._process = _start(self.port, environment)
            if self._process is not None:
                break
        else:
            raise RuntimeError("moto_server did not start")

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def bucket(self) -> Bucket:
        """A new, empty bucket."""
        name = f"b-{uuid.uuid4().hex}"
        request = urllib.request.Request(f"{self.endpoint}/{name}", method="PUT")
        with urllib.request.urlopen(request, timeout=10):
            return Bucket(name=name, endpoint=self.endpoint)

    def stop(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _start(port: int, environment: Mapping[str, str]) -> subprocess.Popen[bytes] | None:
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(
        command, env=dict(environment), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/"
    )
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return process
        time.sleep(0.05)
    process.kill()
    process.wait()
    return None
