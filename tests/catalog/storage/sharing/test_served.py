"""A catalog that is served to other hosts, over real sockets: who is let in, what may be asked, what harms nobody."""

import contextlib
import os
import shutil
import signal
import socket
import ssl
import stat
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from headwater.catalog.clock import SystemClock
from headwater.catalog.errors import (
    AccessDeniedError,
    InsecurePermissionsError,
    ReadOnlyCatalogError,
    UnreachableCatalogError,
    UsageError,
)
from headwater.catalog.events import DynamicPartitionsChanged, LogMessage
from headwater.catalog.storage.base import CatalogReader
from headwater.catalog.storage.sharing import wire
from headwater.catalog.storage.sharing.client import Client
from headwater.catalog.storage.sharing.network import LIMITS, MAX_ROWS, serve, tls_context
from headwater.catalog.storage.sharing.remote import Address
from headwater.catalog.storage.sharing.serving import Limits
from headwater.catalog.storage.sharing.shared import SharedStorage
from headwater.catalog.storage.sharing.tokens import make_token, read_token
from headwater.catalog.storage.sharing.wire import OPERATIONS, Access
from tests.served import Certificates, Served, serving

if TYPE_CHECKING:
    from headwater.tests.histories import History

WORKER = Path(__file__).with_name("serve_worker.py")
TOKEN = "t" * 64


@pytest.fixture
def home(tmp_path: Path, empty_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HEADWATER_KEEPER_IDLE", "1")
    shutil.copytree(empty_home, tmp_path / "home")
    return tmp_path / "home"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates.make(tmp_path_factory.mktemp("tls") / "files", "localhost", "127.0.0.1")


@pytest.fixture
def encrypted(home: Path, certificates: Certificates) -> Iterator[Served]:
    with serving(home, *certificates.arguments, ca_file=certificates.ca_file) as served:
        yield served


class Here:
    """A server in this process, whose limits are the test's."""

    def __init__(self, home: Path, **limits: Any) -> None:
        self.storage = SharedStorage(home, wait=20, clock=SystemClock())
        self.server, self.port = serve(self.storage, "127.0.0.1", 0, {TOKEN: Access.WRITE}, limits=Limits(**limits))
        self.address = Address(host="127.0.0.1", port=self.port, tls=False, token=TOKEN)

    def join(self) -> SharedStorage:
        return SharedStorage(self.address, wait=20, clock=SystemClock())

    def connect(self) -> socket.socket:
        connection = self.address.connect(20)
        connection.settimeout(20)
        return connection

    def __enter__(self) -> "Here":
        return self

    def __exit__(self, *_: object) -> None:
        self.server.close()
        self.storage.close()


def keys(name: str, *added: str) -> DynamicPartitionsChanged:
    return DynamicPartitionsChanged(time=SystemClock().now(), name=name, added=added)


def until(holds: Any, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.01)


def start(served: Served, name: str, count: int) -> "subprocess.Popen[str]":
    command = [sys.executable, str(WORKER), served.url, str(served.ca_file), name, str(count)]
    return subprocess.Popen(
        command, env={**os.environ, "HEADWATER_CATALOG_TOKEN": served.token()}, stdout=subprocess.PIPE, text=True
    )


def test_another_host_reads_and_writes_beside_this_one(encrypted: Served, history: "History") -> None:
    assert encrypted.url.startswith("headwater+tls://localhost:")
    run = history.start("a")
    with encrypted.join() as theirs, SharedStorage(encrypted.home, wait=60, clock=SystemClock()) as ours:
        theirs.append([run])
        ours.append([history.succeed(run)])
        assert theirs.run(run.run_id) == ours.run(run.run_id)
        assert theirs.materializations(run.steps[0].cells[0].asset) != []
    assert encrypted.stop() == 0


def test_tokens_are_made_private_and_stay(home: Path) -> None:
    with serving(home, "--read-only-token-file", str(home / "read.token")) as served:
        first = served.token(), served.token("read.token")
        for name in ("serve.token", "read.token"):
            assert stat.S_IMODE((home / name).stat().st_mode) == 0o600
        assert [len(token) for token in first] == [64, 64] and first[0] != first[1]
        arguments = Path(f"/proc/{served.process.pid}/cmdline")
        assert not arguments.exists() or first[0].encode() not in arguments.read_bytes()
        assert served.stop() == 0
        served.start()
        assert (served.token(), served.token("read.token")) == first


def test_a_token_that_others_may_read_is_refused(tmp_path: Path) -> None:
    make_token(tmp_path / "token")
    assert len(read_token(tmp_path / "token")) == 64
    (tmp_path / "token").chmod(0o640)
    with pytest.raises(InsecurePermissionsError, match="mode 640"):
        read_token(tmp_path / "token")
    (tmp_path / "token").chmod(0o600)
    for weak in ("", "short", "with a space " * 5, "x" * 300):
        (tmp_path / "token").write_text(weak)
        with pytest.raises(UsageError) as caught:
            read_token(tmp_path / "token")
        assert not weak or weak not in str(caught.value)


def test_a_wrong_token_is_refused_at_once(encrypted: Served) -> None:
    with pytest.raises(AccessDeniedError):
        encrypted.join("w" * 64, wait=600)


def test_a_token_that_only_reads_changes_nothing(home: Path, certificates: Certificates) -> None:
    more = ("--read-only-token-file", str(home / "read.token"))
    with (
        serving(home, *certificates.arguments, *more, ca_file=certificates.ca_file) as served,
        served.join(served.token("read.token")) as reader,
        served.join() as writer,
    ):
        with pytest.raises(ReadOnlyCatalogError, match="token"):
            reader.append([keys("a", "1")])
        with pytest.raises(UsageError, match=f"takes {LIMITS.question:,}"):
            reader.query("select ?", ["x" * LIMITS.question])
        writer.append([keys("a", "1")])
        assert reader.dynamic_keys.slice("a", 0, 9) == ["1"]
        assert reader.query("select 1 as n").rows == [(1,)]
        for one in (reader, writer):
            with pytest.raises(AccessDeniedError, match="own host"):
                one.backup(home / "backup.duckdb")
            with pytest.raises(AccessDeniedError):
                one.ask("make_way", {})
        assert not (home / "backup.duckdb").exists()


def test_whatever_is_no_question_takes_a_token_that_writes() -> None:
    questions = {name for name in dir(CatalogReader) if not name.startswith("_")}
    questions |= {"table", "applied", "dynamic_count", "dynamic_indexes", "dynamic_slice"}
    assert {name for name, one in OPERATIONS.items() if one.access is Access.READ} == questions - {"dynamic_keys"}


def test_who_the_server_is_has_to_be_certain(encrypted: Served, tmp_path: Path) -> None:
    port = int(encrypted.url.rpartition(":")[2])
    strangers = Certificates.make(tmp_path / "strangers", "localhost")

    def join(host: str = "localhost", ca_file: Path | None = encrypted.ca_file, port: int = port) -> None:
        address = Address(host=host, port=port, tls=True, token=encrypted.token(), ca_file=ca_file)
        SharedStorage(address, wait=600, clock=SystemClock()).close()

    join()
    join("127.0.0.1")
    with pytest.raises(UnreachableCatalogError, match="not known to be localhost"):
        join(ca_file=strangers.ca_file)
    with pytest.raises(UnreachableCatalogError, match="not known to be localhost"):
        join(ca_file=None)
    others = Certificates.make(tmp_path / "others", "warehouse.example.org")
    with SharedStorage(encrypted.home, wait=60, clock=SystemClock()) as storage:
        server, another = serve(storage, "127.0.0.1", 0, {TOKEN: Access.WRITE}, tls=tls_context(*others.pair))
        with pytest.raises(UnreachableCatalogError, match="not known to be localhost"):
            join(ca_file=others.ca_file, port=another)
        server.close()
    with pytest.raises(UnreachableCatalogError, match="cannot be read"):
        join(ca_file=tmp_path / "none.pem")


def test_tls_is_not_spoken_to_who_does_not_speak_it(home: Path) -> None:
    with Here(home) as here:
        address = Address(host="127.0.0.1", port=here.port, tls=True, token=TOKEN)
        with pytest.raises(UnreachableCatalogError):
            SharedStorage(address, wait=0.5, clock=SystemClock())


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("headwater+tls://", "no address"),
        ("headwater+tls://host:port", "no address"),
        ("headwater+tls://host:99999", "no address"),
        ("headwater+tls://user@host:1", "no address"),
        ("grpc+tls://host:1", "no address"),
        ("headwater+tcp://192.0.2.1:7390", "read the token"),
    ],
)
def test_an_address_has_to_make_sense(url: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        Address.of(url, TOKEN)


def test_an_address_is_a_url_and_shows_no_token() -> None:
    for url, host, port in (
        ("headwater+tls://warehouse.example.org:1234", "warehouse.example.org", 1234),
        ("headwater+tls://warehouse", "warehouse", 7390),
        ("headwater+tcp://[::1]:1", "::1", 1),
    ):
        address = Address.of(url, TOKEN)
        assert (address.host, address.port) == (host, port)
        assert Address.of(str(address), TOKEN) == address
        assert TOKEN not in f"{address} {address!r}"


def test_nobody_serves_others_without_tls(home: Path, tmp_path: Path) -> None:
    with SharedStorage(home, wait=20, clock=SystemClock()) as storage:
        for host in ("0.0.0.0", "::", "192.0.2.1"):
            with pytest.raises(UsageError, match="without TLS"):
                serve(storage, host, 0, {TOKEN: Access.WRITE})
        one, other = (Certificates.make(tmp_path / name, "localhost") for name in ("one", "other"))
        with pytest.raises(UsageError, match="do not fit"):
            tls_context(one.certificate, other.key)
        with pytest.raises(UsageError, match="No such file"):
            tls_context(tmp_path / "none", other.key)
        server, port = serve(storage, "127.0.0.1", 0, {TOKEN: Access.WRITE})
        with pytest.raises(UsageError, match="not possible to listen"):
            serve(storage, "127.0.0.1", port, {TOKEN: Access.WRITE})
        server.close()


def is_hung_up_on(connection: socket.socket) -> bool:
    """Whether the other side ends the connection, without an answer."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:  # it left what was sent unread
        return True


JUNK = {
    "nothing": b"",
    "one byte": b"\x00",
    "HTTP": b"GET / HTTP/1.1\r\n\r\n",
    "ones": b"\xff" * 64,
    "huge": struct.pack("<Q", 1 << 62),
    "TLS": b"\x16\x03\x01" + b"\x00" * 9,
}


@pytest.mark.parametrize("junk", JUNK.values(), ids=JUNK)
def test_strangers_who_send_nonsense_harm_nobody(home: Path, junk: bytes) -> None:
    with Here(home, stall=60.0) as here, here.join() as storage:
        with here.connect() as stranger:
            stranger.sendall(junk)
            assert storage.append([keys("a", "1")]) == 1
            with contextlib.suppress(OSError):  # it is gone already
                stranger.shutdown(socket.SHUT_WR)
            assert is_hung_up_on(stranger)
        assert here.server.clients >= 1


JUNK_OF_CLIENTS = {**JUNK, "half": struct.pack("<Q", 100) + b"half", "no request": struct.pack("<Q", 4) + b"\x92\xa4no"}


@pytest.mark.parametrize("junk", JUNK_OF_CLIENTS.values(), ids=JUNK_OF_CLIENTS)
def test_clients_who_send_nonsense_harm_nobody(home: Path, junk: bytes) -> None:
    with Here(home, append=1 << 20) as here, here.join() as storage:
        with here.connect() as client:
            wire.send(client, TOKEN.encode())
            assert wire.read_greeting(wire.receive(client)) == 1 << 20
            client.sendall(junk)
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_WR)
                while client.recv(4096):
                    pass
        assert storage.append([keys("a", "1")]) == 1
        until(lambda: here.server.clients == 1)


def test_an_endless_handshake_ends_and_holds_up_nobody(encrypted: Served) -> None:
    port = int(encrypted.url.rpartition(":")[2])
    silent = [socket.create_connection(("localhost", port)) for _ in range(100)]
    try:
        with encrypted.join() as storage:
            assert storage.append([keys("a", "1")]) == 1
        for one in silent:
            one.settimeout(60)
            assert is_hung_up_on(one), "at once where there are too many, or a few seconds later"
    finally:
        for one in silent:
            one.close()


def test_a_stranger_has_seconds_for_all_of_its_token(home: Path) -> None:
    with Here(home) as here, here.connect() as stranger:
        gone = threading.Event()

        def drip() -> None:
            try:
                for byte in struct.pack("<Q", 64) + TOKEN.encode():
                    stranger.sendall(bytes([byte]))
                    if gone.wait(1):
                        return
            except OSError:
                pass

        thread = threading.Thread(target=drip)
        thread.start()
        stranger.settimeout(60)
        assert is_hung_up_on(stranger)
        gone.set()
        thread.join()


def test_a_client_that_stalls_in_a_request_is_left(home: Path) -> None:
    with Here(home, stall=0.2) as here, here.connect() as client:
        wire.send(client, TOKEN.encode())
        wire.receive(client)
        client.sendall(struct.pack("<Q", 100) + b"half")
        assert is_hung_up_on(client)
        with here.join() as idle:
            until(lambda: here.server.clients == 1)
            time.sleep(0.5)  # between requests a client may be silent for longer than within one
            assert idle.claims() == 0


def test_requests_have_a_limit(home: Path) -> None:
    with Here(home, append=10_000) as here, here.join() as storage:
        with pytest.raises(UsageError, match=r"takes 10,000"):
            storage.append([keys("a", *(str(number) for number in range(5_000)))])
        assert storage.append([keys("a", "1")]) == 1
        with here.connect() as client:
            wire.send(client, TOKEN.encode())
            wire.receive(client)
            client.sendall(struct.pack("<Q", 10_001))
            with pytest.raises(UsageError, match="too large"):
                wire.read_answer("runs", wire.receive(client))
            assert client.recv(1) == b""


def history_line(run_id: str, at: datetime, number: int) -> LogMessage:
    return LogMessage(time=at, run_id=run_id, step_key=None, level="INFO", message=f"line {number}")


def test_answers_have_a_limit(home: Path, history: "History") -> None:
    run = history.start("a")
    lines = [history_line(run.run_id, run.time, number) for number in range(10_050)]
    with Here(home, answer=50_000) as here, here.join() as storage:
        storage.append([run, *lines])
        with pytest.raises(UsageError, match=r"50,000 is the most"):
            storage.query("select message from events")
        with pytest.raises(UsageError, match=f"more than {MAX_ROWS:,} rows"):
            storage.query(f"select * from range({MAX_ROWS + 1})")
        with closing(Client(here.address)) as client, pytest.raises(UsageError, match="everything at once"):
            client.ask("events", {"limit": None})
    with Here(home, answer=LIMITS.answer) as here, here.join() as storage:
        with pytest.raises(UsageError, match=f"{MAX_ROWS + 1:,} rows at once"):
            storage.definition_history(limit=MAX_ROWS + 1)
        found = storage.events(run_id=run.run_id, kinds=["LOG_MESSAGE"], limit=None)
        assert [event.message for event in found] == [line.message for line in lines], "which the client asks in pages"
        assert storage.events(limit=10_010) == storage.events(limit=None)[:10_010]


def test_there_is_room_for_so_many_clients(home: Path) -> None:
    with Here(home, clients=2) as here, here.join() as first, here.join() as second:
        assert first.claims() == second.claims() == 0
        with pytest.raises(Exception, match="2 clients"):
            SharedStorage(here.address, wait=0.2, clock=SystemClock())
        second.close()
        until(lambda: here.server.clients == 1)
        with here.join() as third:
            assert third.claims() == 0


def test_one_who_cannot_be_reached_is_named(home: Path) -> None:
    with Here(home) as here:
        address = here.address
    with pytest.raises(UnreachableCatalogError, match=f"headwater\\+tcp://127.0.0.1:{address.port}") as caught:
        SharedStorage(address, wait=0.3, clock=SystemClock())
    assert "catalog serve" in caught.value.remedy


@pytest.mark.faults
def test_writers_go_on_while_servers_are_killed_and_nothing_is_lost_or_done_twice(encrypted: Served) -> None:
    names = [f"p{number}" for number in range(4)]
    processes = [start(encrypted, name, 100) for name in names]
    try:
        with encrypted.join(wait=60) as watcher:
            for at in (40, 120, 200):
                until(lambda at=at: sum(watcher.dynamic_keys.count(name) for name in names) >= at)
                encrypted.stop(signal.SIGKILL)
                encrypted.start()
        told = [process.communicate(timeout=200)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * 4
    assert [text.split() for text in told] == [[str(number) for number in range(100)]] * 4
    with encrypted.join() as storage:
        for name in names:
            assert storage.dynamic_keys.slice(name, 0, 200) == [f"{name}-{number}" for number in range(100)]
        assert len(storage.events(limit=None)) == 400


def test_who_did_not_hear_the_answer_does_not_guess(home: Path) -> None:
    """A server that commits, and dies before it can say so."""
    with SharedStorage(home, wait=20, clock=SystemClock()) as storage:
        asked: list[str] = []

        class Deaf(SharedStorage):
            def ask(self, name: str, arguments: Any) -> Any:
                asked.append(name)
                answer = storage.ask(name, arguments)
                if asked.count("append") == 1 and name == "append":
                    raise wire.Disconnected("as if it had been killed")
                return answer

        server, port = serve(Deaf.__new__(Deaf), "127.0.0.1", 0, {TOKEN: Access.WRITE})
        address = Address(host="127.0.0.1", port=port, tls=False, token=TOKEN)
        with SharedStorage(address, wait=20, clock=SystemClock()) as client:
            assert client.append([keys("a", "1")]) == 1
        server.close()
        assert asked == ["append", "applied"]
        assert len(storage.events()) == 1


def test_a_server_finishes_what_it_was_asked_before_it_leaves(home: Path) -> None:
    asked, go_on = threading.Event(), threading.Event()

    class Slow(SharedStorage):
        def ask(self, name: str, arguments: Any) -> Any:
            asked.set()
            assert go_on.wait(60)
            return super().ask(name, arguments)

    with Slow(home, wait=20, clock=SystemClock()) as storage:
        server, port = serve(storage, "127.0.0.1", 0, {TOKEN: Access.WRITE})
        address = Address(host="127.0.0.1", port=port, tls=False, token=TOKEN)
        with SharedStorage(address, wait=20, clock=SystemClock()) as client:
            answers: list[int] = []
            asking = threading.Thread(target=lambda: answers.append(client.claims()))
            asking.start()
            assert asked.wait(60)
            closing = threading.Thread(target=server.close)
            closing.start()
            until(lambda: not _listens(port))
            assert closing.is_alive()
            go_on.set()
            closing.join(60)
            asking.join(60)
            assert answers == [0]


def test_the_second_signal_ends_a_server_at_once(home: Path) -> None:
    slow = "select count(*) from range(3000000) as a(x), range(3000000) as b(y) where (x * y) % 7 = 3"
    with serving(home) as served, served.join(wait=1) as storage:
        storage._patience = 1.0  # pyright: ignore[reportPrivateUsage]
        raised: list[BaseException] = []

        def ask() -> None:
            try:
                storage.query(slow)
            except UnreachableCatalogError as error:
                raised.append(error)

        thread = threading.Thread(target=ask)
        thread.start()
        until(lambda: _seconds_of_cpu(served.process.pid) > 1.5)
        served.process.send_signal(signal.SIGTERM)
        until(lambda: not _listens(int(served.url.rpartition(":")[2])))
        assert served.stop() == 128 + signal.SIGTERM
        thread.join()
        assert len(raised) == 1


def _seconds_of_cpu(pid: int) -> float:
    import psutil

    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def test_plain_text_is_nothing_to_a_server_with_tls(encrypted: Served) -> None:
    port = int(encrypted.url.rpartition(":")[2])
    with socket.create_connection(("localhost", port)) as client:
        client.settimeout(60)
        wire.send(client, encrypted.token().encode())
        with pytest.raises((wire.Disconnected, ssl.SSLError)):
            while True:
                wire.receive(client)
