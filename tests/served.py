"""A real server of a home's catalog, in a process of its own, and certificates for it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trustme

from headwater.catalog.clock import SystemClock
from headwater.catalog.storage.sharing.remote import Address
from headwater.catalog.storage.sharing.shared import SharedStorage


@dataclass
class Served:
    """What `headwater catalog serve` was started with, and the process that it is now."""

    home: Path
    arguments: tuple[str, ...] = ()
    ca_file: Path | None = None
    url: str = ""
    process: "subprocess.Popen[str]" = field(init=False)

    def start(self) -> None:
        """Start it, the second time at the same place, and wait until it listens."""
        place = self.url.rpartition(":")[2] or "0"
        command = ["catalog", "serve", "--json", "--host", "localhost", "--port", place, *self.arguments]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "headwater", "--home", str(self.home), *command],
            env={name: value for name, value in os.environ.items() if not name.startswith("HEADWATER")},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.process.communicate()[1]
        self.url = json.loads(line)["url"]

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it with a signal, and tell how it ended."""
        self.process.send_signal(number)
        self.process.communicate(timeout=60)
        return self.process.returncode

    def address(self, token: str | None = None) -> Address:
        """Where it is, with its own token or another one."""
        return Address.of(self.url, token or self.token(), self.ca_file)

    def token(self, name: str = "serve.token") -> str:
        """What is in a file of tokens in the home."""
        return (self.home / name).read_text("ascii").strip()

    def join(self, token: str | None = None, *, wait: float = 30.0, read_only: bool = False) -> SharedStorage:
        """The catalog as another host has it."""
        return SharedStorage(self.address(token), wait=wait, clock=SystemClock(), read_only=read_only)


@contextmanager
def serving(home: Path, *arguments: str, ca_file: Path | None = None) -> Generator[Served]:
    """A server while the block runs."""
    served = Served(home, arguments, ca_file)
    served.start()
    try:
        yield served
    finally:
        if served.process.poll() is None:
            served.process.kill()
            served.process.communicate()


@dataclass(frozen=True)
class Certificates:
    """A certificate for some names, its key, and the authority that signed it."""

    certificate: Path
    key: Path
    ca_file: Path

    @staticmethod
    def make(folder: Path, *names: str) -> "Certificates":
        """New ones."""
        folder.mkdir()
        made = Certificates(folder / "server.pem", folder / "server.key", folder / "ca.pem")
        authority = trustme.CA()
        issued = authority.issue_cert(*names)
        authority.cert_pem.write_to_path(made.ca_file)
        issued.private_key_pem.write_to_path(made.key)
        for part in issued.cert_chain_pems:
            part.write_to_path(made.certificate, append=True)
        return made

    @property
    def arguments(self) -> tuple[str, ...]:
        """What a server is told."""
        return ("--tls-cert", str(self.certificate), "--tls-key", str(self.key))

    @property
    def pair(self) -> tuple[Path, Path]:
        """The certificate and its key."""
        return self.certificate, self.key
