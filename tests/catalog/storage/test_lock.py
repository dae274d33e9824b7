"""The lock of a catalog: who gets it, who is named, and that it goes with its holder."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from headwater.catalog.clock import SystemClock
from headwater.catalog.errors import BusyError, ReadOnlyCatalogError
from headwater.catalog.storage.lock import LOCK_FILE, CatalogLock, LockHolder, acquire, holder

HOLD = """
import sys, time
from pathlib import Path
from headwater.catalog.clock import SystemClock
from headwater.catalog.storage.lock import acquire
lock = acquire(Path(sys.argv[1]), shared=sys.argv[2] == "shared", wait=0, clock=SystemClock(), command="the other one")
print("held", flush=True)
sys.stdin.read()
"""


class FixedClock(SystemClock):
    """Says that it is always the same moment, and counts how long somebody waited."""

    def __init__(self) -> None:
        self.waited = 0.0

    def now(self) -> datetime:
        return datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

    def monotonic(self) -> float:
        return self.waited

    def sleep(self, seconds: float) -> None:
        self.waited += seconds


def take(home: Path, *, shared: bool = False, wait: float = 0) -> CatalogLock:
    lock = acquire(home, shared=shared, wait=wait, clock=FixedClock(), command="headwater test")
    assert lock is not None
    return lock


def elsewhere(home: Path, how: str = "exclusive") -> "subprocess.Popen[str]":
    """A process that holds the lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(home), how], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def end(process: "subprocess.Popen[str]") -> None:
    process.kill()
    process.communicate()


def test_nobody_holds_it_at_first(tmp_path: Path) -> None:
    assert holder(tmp_path) is None
    take(tmp_path).release()
    assert holder(tmp_path) is None


@pytest.mark.parametrize(("first", "second"), [(False, False), (False, True), (True, False)])
def test_one_writer_excludes_all_others(tmp_path: Path, first: bool, second: bool) -> None:
    lock = take(tmp_path, shared=first)
    with pytest.raises(BusyError) as caught:
        take(tmp_path, shared=second)
    for part in (str(tmp_path), str(os.getpid()), socket.gethostname(), "headwater test", "2026-01-02T03:04:05+00:00"):
        assert part in caught.value.message
    assert ("reading" if first else "writing") in caught.value.message
    assert caught.value.exit_code == 7
    lock.release()
    lock.release()
    take(tmp_path, shared=second).release()


def test_readers_share_it(tmp_path: Path) -> None:
    locks = [take(tmp_path, shared=True) for _ in range(3)]
    for lock in locks:
        with pytest.raises(BusyError):
            take(tmp_path)
        lock.release()
    take(tmp_path).release()


def test_who_holds_it_can_be_asked_without_disturbing(tmp_path: Path) -> None:
    lock = take(tmp_path)
    expected = LockHolder(
        pid=os.getpid(),
        host=socket.gethostname(),
        command="headwater test",
        started="2026-01-02T03:04:05+00:00",
        shared=False,
    )
    assert holder(tmp_path) == expected == holder(tmp_path)
    lock.release()


def test_waiting_ends_when_the_holder_lets_go(tmp_path: Path) -> None:
    process = elsewhere(tmp_path)
    timer = threading.Timer(0.2, end, [process])
    timer.start()
    lock = acquire(tmp_path, shared=False, wait=60, clock=SystemClock(), command="")
    assert lock is not None
    timer.join()
    lock.release()


def test_waiting_ends_when_the_time_is_up(tmp_path: Path) -> None:
    lock = take(tmp_path)
    clock = FixedClock()
    with pytest.raises(BusyError, match=r"after 7\.5 seconds"):
        acquire(tmp_path, shared=False, wait=7.5, clock=clock, command="")
    assert clock.waited == pytest.approx(7.5)
    lock.release()


@pytest.mark.parametrize("how", ["exclusive", "shared"])
def test_it_goes_with_a_process_that_is_killed(tmp_path: Path, how: str) -> None:
    process = elsewhere(tmp_path, how)
    held = holder(tmp_path)
    assert held is not None
    assert (held.pid, held.command, held.shared) == (process.pid, "the other one", how == "shared")
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert holder(tmp_path) is None
    take(tmp_path).release()


def test_a_forked_child_does_not_keep_it(tmp_path: Path) -> None:
    """The kernel drops a lock when the last copy of its descriptor is closed, and fork copies descriptors."""
    script = f"""
import os, signal, sys
from pathlib import Path
from headwater.catalog.clock import SystemClock
from headwater.catalog.storage.lock import acquire
lock = acquire(Path({str(tmp_path)!r}), shared=False, wait=0, clock=SystemClock(), command="")
if os.fork() == 0:
    os.write(1, b"%d\\n" % os.getpid())
signal.pause()
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            child = int(process.stdout.readline())
            try:
                assert holder(tmp_path) is not None
                process.kill()
                process.wait()
                assert holder(tmp_path) is None
            finally:
                os.kill(child, signal.SIGKILL)
        finally:
            process.kill()


def test_a_forked_child_does_not_let_go_of_it(tmp_path: Path) -> None:
    lock = take(tmp_path)
    child = os.fork()
    if child == 0:
        lock.release()
        os._exit(0)
    os.waitpid(child, 0)
    assert holder(tmp_path) is not None
    lock.release()


@pytest.mark.parametrize("record", ["", "{", "[]", '{"pid": 1}', "\0" * 100, json.dumps({"pid": "x", "host": 1})])
def test_a_damaged_record_names_nobody(tmp_path: Path, record: str) -> None:
    lock = take(tmp_path)
    (tmp_path / LOCK_FILE).write_text(record)
    held = holder(tmp_path)
    assert held is not None and str(held) == "a process that left no name"
    with pytest.raises(BusyError, match="left no name"):
        take(tmp_path)
    lock.release()


def test_the_record_of_a_process_that_is_gone_is_not_believed(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    lock = take(tmp_path)
    record = json.loads((tmp_path / LOCK_FILE).read_text())
    (tmp_path / LOCK_FILE).write_text(json.dumps(record | {"pid": process.pid}))
    held = holder(tmp_path)
    assert held is not None and held.pid == 0
    lock.release()


def test_it_is_private(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        take(tmp_path).release()
    finally:
        os.umask(before)
    assert (tmp_path / LOCK_FILE).stat().st_mode & 0o777 == 0o600


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("precious")
    (tmp_path / LOCK_FILE).symlink_to(target)
    with pytest.raises(ReadOnlyCatalogError, match=LOCK_FILE):
        take(tmp_path)
    assert target.read_text() == "precious"
    assert holder(tmp_path) is None
