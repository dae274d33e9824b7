"""Many processes and one catalog: who owns it, how it changes hands, and that nothing is lost or done twice."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from headwater.catalog.clock import SystemClock
from headwater.catalog.errors import (
    AccessDeniedError,
    BusyError,
    CatalogCorruptError,
    CatalogError,
    ConflictError,
    ForkedCatalogError,
    ReadOnlyCatalogError,
    UnknownTableError,
    UsageError,
)
from headwater.catalog.events import DynamicPartitionsChanged
from headwater.catalog.storage.base import FileRelation
from headwater.catalog.storage.lock import LockHolder, holder
from headwater.catalog.storage.sharing import wire
from headwater.catalog.storage.sharing.client import Client
from headwater.catalog.storage.sharing.shared import SharedStorage

if TYPE_CHECKING:
    from headwater.tests.histories import History

WORKER = Path(__file__).with_name("share_worker.py")


@pytest.fixture
def home(tmp_path: Path, empty_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("HEADWATER_KEEPER_IDLE", "1")
    shutil.copytree(empty_home, tmp_path / "home")
    yield tmp_path / "home"
    found = holder(tmp_path / "home")
    if found is not None and found.keeper:
        os.kill(found.pid, signal.SIGTERM)
        until(lambda: holder(tmp_path / "home") is None)


def shared(home: Path, *, wait: float = 60.0, read_only: bool = False, crowded: bool = False) -> SharedStorage:
    return SharedStorage(home, wait=wait, clock=SystemClock(), read_only=read_only, crowded=crowded)


def keys(name: str, *added: str) -> DynamicPartitionsChanged:
    return DynamicPartitionsChanged(time=SystemClock().now(), name=name, added=added)


def until(holds: Any, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.01)


def keeper(home: Path) -> LockHolder:
    found = holder(home)
    assert found is not None and found.keeper
    return found


def start(home: Path, name: str, count: int, *more: str) -> "subprocess.Popen[str]":
    command = [sys.executable, str(WORKER), str(home), name, str(count), *more]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_alone_a_process_owns_the_catalog_and_starts_nothing(home: Path) -> None:
    with shared(home) as storage:
        storage.append([keys("a", "1")])
        found = holder(home)
        assert found is not None and (found.pid, found.keeper, found.shared) == (os.getpid(), False, False)
        assert found.token not in repr(found) and found.token not in str(found)
    assert holder(home) is None
    assert not list(home.glob("*.sock"))


def test_an_owner_makes_way_for_company_and_goes_on(home: Path) -> None:
    process = start(home, "theirs", 3, "wait")
    assert process.stdout is not None and process.stdout.readline() == "0\n"
    with shared(home) as storage:
        assert keeper(home).pid not in (os.getpid(), process.pid)
        assert storage.dynamic_keys.count("theirs") == 1
        storage.append([keys("ours", "1")])
        process.communicate("go on\n")
        assert process.returncode == 0
        assert storage.dynamic_keys.slice("theirs", 0, 9) == ["theirs-0", "theirs-1", "theirs-2"]
    until(lambda: holder(home) is None)  # nobody needs a keeper any more
    assert not list(home.glob("*.sock"))
    with shared(home) as storage:
        assert [storage.dynamic_keys.count(name) for name in ("theirs", "ours")] == [3, 1]


def test_two_in_one_process_share_too(home: Path) -> None:
    with shared(home) as first, shared(home) as second:
        first.append([keys("a", "1")])
        second.append([keys("a", "2")])
        assert first.dynamic_keys.slice("a", 0, 9) == second.dynamic_keys.slice("a", 0, 9) == ["1", "2"]


def test_files_and_sockets_are_private(home: Path) -> None:
    with shared(home, crowded=True) as storage:
        storage.append([keys("a", "1")])
        for path in (*home.iterdir(), *(home / "logs").iterdir()):
            assert path.stat().st_mode & 0o077 == 0, path


def test_a_wrong_token_is_refused(home: Path) -> None:
    with shared(home, crowded=True):
        stranger = Client(replace(keeper(home), token="0" * 64))
        with pytest.raises(AccessDeniedError):
            stranger.ask("runs", {})


@pytest.mark.parametrize("junk", [b"", b"\x00", b"\xff" * 40, b"\x92\xa4nope\x80", b"\x92\xa4runs\x81\xa5limit\xa1x"])
def test_nonsense_ends_the_connection_and_nothing_else(home: Path, junk: bytes) -> None:
    with shared(home, crowded=True) as storage:
        client = Client(keeper(home))
        connection = client._take()  # pyright: ignore[reportPrivateUsage]
        wire.send(connection, junk)
        with pytest.raises(wire.Disconnected):
            wire.receive(connection)
        connection.close()
        assert storage.append([keys("a", "1")]) == 1


def test_a_keeper_that_is_killed_is_followed_by_another(home: Path) -> None:
    with shared(home, crowded=True) as storage:
        for number in range(3):
            storage.append([keys("a", str(number))])
            before = keeper(home)
            os.kill(before.pid, signal.SIGKILL)
            assert storage.dynamic_keys.count("a") == number + 1
            assert keeper(home).pid != before.pid


@pytest.mark.faults
def test_eight_processes_while_keepers_are_killed_lose_nothing_and_do_nothing_twice(home: Path) -> None:
    names = [f"p{number}" for number in range(8)]
    processes = [start(home, name, 150) for name in names]
    killed: set[int] = set()
    try:
        while any(process.poll() is None for process in processes) and len(killed) < 6:
            found = holder(home)
            if found is not None and found.keeper and found.pid not in killed:
                time.sleep(0.3)
                os.kill(found.pid, signal.SIGKILL)
                killed.add(found.pid)
            time.sleep(0.02)
        acknowledged = [process.communicate()[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert len(killed) >= 2
    assert [process.returncode for process in processes] == [0] * 8
    assert [text.split() for text in acknowledged] == [[str(number) for number in range(150)]] * 8
    with shared(home) as storage:
        for name in names:
            assert storage.dynamic_keys.slice(name, 0, 200) == [f"{name}-{number}" for number in range(150)]
        assert len(storage.events(limit=None)) == 8 * 150, "an append that was asked for twice is done once"


@pytest.mark.faults
def test_sixteen_processes_start_at_once_in_a_fresh_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWATER_KEEPER_IDLE", "1")
    home = tmp_path / "fresh"
    processes = [start(home, f"p{number}", 2) for number in range(16)]
    for process in processes:
        process.communicate(timeout=120)
    assert [process.returncode for process in processes] == [0] * 16
    with shared(home) as storage:
        assert [storage.dynamic_keys.count(f"p{number}") for number in range(16)] == [2] * 16
    until(lambda: holder(home) is None)


def test_an_append_whose_answer_was_lost_is_not_done_again(home: Path) -> None:
    with shared(home, crowded=True) as storage:
        assert storage.append([keys("a", "1")], request="first") == 1
        assert storage.applied("first") == 1
        assert storage.applied("second") is None
        os.kill(keeper(home).pid, signal.SIGKILL)
        assert storage.applied("first") == 1, "what was kept in the journal is remembered as well"


def test_threads_share_a_keeper_and_their_commits(home: Path) -> None:
    with shared(home, crowded=True) as storage:

        def work(name: str) -> None:
            for number in range(20):
                storage.append([keys(name, str(number))])

        threads = [threading.Thread(target=work, args=(f"t{number}",)) for number in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [storage.dynamic_keys.count(f"t{number}") for number in range(12)] == [20] * 12


def test_one_bad_append_in_a_group_harms_no_other(home: Path, history: "History") -> None:
    unknown = history.start("a")
    good: list[int] = []
    bad: list[BaseException] = []
    with shared(home, crowded=True) as storage:

        def work(number: int) -> None:
            try:
                if number % 3:
                    good.append(storage.append([keys("a", str(number))]))
                else:
                    storage.append([history.succeed(unknown)])
            except CatalogError as error:
                bad.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(30)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (sorted(good), len(bad)) == (list(range(1, 21)), 10)
        assert all("was never started" in str(error) for error in bad)


def test_errors_arrive_as_they_were_raised(home: Path, history: "History") -> None:
    with shared(home, crowded=True) as storage:
        with pytest.raises(UnknownTableError) as caught:
            storage.query("select * from rums")
        assert caught.value.name == "rums" and "runs" in caught.value.known and "Did you mean" in caught.value.remedy
        with pytest.raises(UsageError, match="too short"):
            storage.run("abc")
        first, second = (replace(history.start(name), claims_before=0) for name in ("a", "b"))
        storage.append([first])
        with pytest.raises(ConflictError):
            storage.append([second])
        assert storage.claims() == 1
        storage.append([history.claim(first, pool="p", claims_before=1)])
        assert [slot.pool for slot in storage.slots()] == ["p"]


def test_sql_values_survive_the_socket(home: Path) -> None:
    sql = """select 1::hugeint << 100 as huge, 1.50::decimal(9, 2) as dec, date '2024-02-29' as day,
        timestamp '2024-01-01 00:00:00.000001' as at, interval 3 days as span, 'ü\U0001f30a' as text, null as nothing,
        [1, null] as list, {'a': 1, 'b': [date '2024-01-01']} as struct, map {'k': 2} as map,
        '\\x00\\xff'::blob as bytes,
        '550e8400-e29b-41d4-a716-446655440000'::uuid as id, ? as given"""
    with shared(home) as owner:
        expected = owner.query(sql, [date(2024, 1, 2)])
    with shared(home, crowded=True) as guest:
        assert guest.query(sql, [date(2024, 1, 2)]) == expected
    (row,) = expected.rows
    assert row[:5] == (
        1 << 100,
        Decimal("1.50"),
        date(2024, 2, 29),
        datetime(2024, 1, 1, 0, 0, 0, 1),
        timedelta(days=3),
    )
    assert row[11] == UUID("550e8400-e29b-41d4-a716-446655440000")


def test_sql_over_files_and_views_together(home: Path, history: "History", tmp_path: Path) -> None:
    import duckdb

    file = tmp_path / "data.parquet"
    duckdb.execute(f"copy (select 'orders' as asset, 3 as n) to '{file}'").fetchall()
    relation = FileRelation(sql=f"select * from read_parquet('{file}')", paths=(str(file),))
    run = history.start("orders")
    for crowded in (False, True):
        with shared(home, crowded=crowded) as storage:
            if not crowded:
                storage.append([run, history.succeed(run)])
            sql = "select m.asset, n from materializations as m join data using (asset)"
            assert storage.query(sql, relations={"data": relation}).rows == [("orders", 3)]
            with pytest.raises(UsageError):
                storage.query("select * from data, read_csv('/etc/passwd')", relations={"data": relation})
    assert not [path for path in home.iterdir() if path.name.startswith("tmp")]


def test_readers_cannot_write_and_come_in_beside_a_run(home: Path) -> None:
    with shared(home) as owner:
        owner.append([keys("a", "1")])
        with shared(home, read_only=True) as reader:
            assert reader.dynamic_keys.count("a") == 1
            with pytest.raises(ReadOnlyCatalogError):
                reader.append([keys("a", "2")])
        owner.append([keys("a", "2")])


def test_a_forked_child_may_ask_a_keeper_and_not_its_parent(home: Path) -> None:
    def in_child(work: Any) -> int:
        pid = os.fork()
        if not pid:
            try:
                os._exit(work())
            except BaseException:
                os._exit(99)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def refused(storage: SharedStorage) -> int:
        try:
            storage.cells()
        except ForkedCatalogError:
            return 7
        return 0

    with shared(home) as owner:
        owner.append([keys("a", "1")])
        assert in_child(lambda: refused(owner)) == 7
        owner.append([keys("a", "2")])
    with shared(home, crowded=True) as guest:
        assert in_child(lambda: guest.append([keys("a", "3")])) == 3
        assert guest.dynamic_keys.count("a") == 3


def test_what_is_wrong_with_a_catalog_is_said_by_who_asks(home: Path) -> None:
    (home / "catalog.duckdb").write_bytes(b"nonsense" * 4096)
    with pytest.raises(CatalogError) as caught:
        shared(home, crowded=True, wait=10.0)
    assert not isinstance(caught.value, CatalogCorruptError) or "catalog.duckdb" in caught.value.message
    assert holder(home) is None


def test_a_home_that_is_removed_lets_its_keeper_go(home: Path) -> None:
    storage = shared(home, crowded=True)
    pid = keeper(home).pid
    shutil.rmtree(home)
    until(lambda: not Path(f"/proc/{pid}").exists() or b") Z " in Path(f"/proc/{pid}/stat").read_bytes())
    storage.close()


def test_who_cannot_make_way_is_named(home: Path) -> None:
    process = start(home, "a", 2, "wait")
    assert process.stdout is not None and process.stdout.readline()
    process.send_signal(signal.SIGSTOP)
    try:
        with pytest.raises(BusyError, match=str(process.pid)):
            shared(home, wait=0.3)
    finally:
        process.send_signal(signal.SIGCONT)
        process.communicate("go on\n")
    assert process.returncode == 0


def test_a_long_home_has_its_socket_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWATER_KEEPER_IDLE", "1")
    home = tmp_path / ("long" * 25)
    with shared(home, crowded=True) as storage:
        storage.append([keys("a", "1")])
        address = Path(keeper(home).address)
        assert not address.is_relative_to(home) and address.parent.stat().st_mode & 0o077 == 0
        os.kill(keeper(home).pid, signal.SIGTERM)
        until(lambda: not address.exists())
