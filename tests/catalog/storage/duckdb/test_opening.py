"""Opening a catalog: what is made, what is refused and left alone, and who comes first."""

import multiprocessing
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import pytest

from headwater.catalog.errors import (
    BusyError,
    CatalogCorruptError,
    CatalogError,
    ForeignCatalogError,
    ForkedCatalogError,
    InsecurePermissionsError,
    LostCommitsError,
    ReadOnlyCatalogError,
)
from headwater.catalog.keys import AssetKey
from headwater.catalog.storage.duckdb import open_catalog
from headwater.catalog.storage.lock import holder

if TYPE_CHECKING:
    from multiprocessing.synchronize import Barrier

    from headwater.tests.histories import History

DATABASE = "catalog.duckdb"


@pytest.fixture
def home(tmp_path: Path, history: "History", empty_home: Path) -> Path:
    """A catalog with three events, closed."""
    home = shutil.copytree(empty_home, tmp_path / "home")
    with open_catalog(home, wait=0) as storage:
        run = history.start("a")
        storage.append([run, history.succeed(run)])
    return home


def contents(home: Path) -> dict[str, bytes]:
    """The files of a catalog that nobody has open, but for the lock."""
    return {path.name: path.read_bytes() for path in home.iterdir() if path.name != "catalog.lock"}


def test_what_is_made(tmp_path: Path) -> None:
    mask = os.umask(0)
    try:
        storage = open_catalog(tmp_path / "new" / "home", wait=0)
    finally:
        os.umask(mask)
    home = storage.home
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert {path.name for path in home.iterdir()} == {DATABASE, "catalog.head", "catalog.lock", "catalog.reserve"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in home.iterdir()} == {0o600}
    assert (home / DATABASE).stat().st_size < 400_000
    storage.close()
    assert not list(home.glob("*.wal"))


def test_the_log_is_private_too(home: Path, history: "History") -> None:
    mask = os.umask(0)
    try:
        with open_catalog(home, wait=0, checkpoint_bytes=1) as storage:
            for _ in range(3):  # each checkpoint removes the log, and the next commit makes a new one
                storage.append([history.start("a")])
                assert {stat.S_IMODE(path.stat().st_mode) for path in home.iterdir()} == {0o600}
    finally:
        os.umask(mask)


def test_the_file_format_is_that_of_the_oldest_duckdb(home: Path) -> None:
    with duckdb.connect(str(home / DATABASE), read_only=True) as connection:
        tags = connection.execute("select tags from duckdb_databases() where database_name = 'catalog'").fetchall()
        size = connection.execute("select block_size from pragma_database_size()").fetchall()
    assert "v1.5.0" in str(tags) or "v1.5.0+" in str(tags), tags
    assert size == [(16384,)]


@pytest.mark.parametrize("name", ["", DATABASE, "catalog.head", "catalog.lock"])
@pytest.mark.parametrize("mode", [0o020, 0o002])
def test_what_others_may_write_is_refused(home: Path, name: str, mode: int) -> None:
    path = home / name
    path.chmod(stat.S_IMODE(path.stat().st_mode) | mode)
    for read_only in (False, True):
        with pytest.raises(InsecurePermissionsError) as caught:
            open_catalog(home, wait=0, read_only=read_only)
        assert str(path) in caught.value.message and f"chmod go-w {path}" in caught.value.remedy
    path.chmod(stat.S_IMODE(path.stat().st_mode) & ~mode)
    open_catalog(home, wait=0).close()


def test_links_are_refused(home: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.duckdb"
    (home / DATABASE).rename(elsewhere)
    (home / DATABASE).symlink_to(elsewhere)
    with pytest.raises(InsecurePermissionsError, match="symbolic link"):
        open_catalog(home, wait=0)


def test_a_linked_home_is_the_home_it_leads_to(home: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(home)
    with open_catalog(tmp_path / "link", wait=0) as storage:
        assert storage.home == home
        with pytest.raises(BusyError):
            open_catalog(home, wait=0)


def _fill(path: Path, data: bytes) -> None:
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.write_bytes(data)
    path.chmod(0o600)


def _plain_database(path: Path) -> None:
    with duckdb.connect(str(path)) as connection:
        connection.execute("create table meta (name varchar, value varchar)").fetchall()
    path.chmod(0o600)


def _sqlite(path: Path) -> None:
    import sqlite3

    connection = sqlite3.connect(path)
    connection.execute("create table t (i)")
    connection.commit()
    connection.close()
    path.chmod(0o600)


FOREIGN: dict[str, Callable[[Path], None]] = {
    "empty": lambda path: _fill(path, b""),
    "one byte": lambda path: _fill(path, b"x"),
    "text": lambda path: _fill(path, b"hello" * 10_000),
    "zeros": lambda path: _fill(path, bytes(100_000)),
    "another database": _plain_database,
    "sqlite": _sqlite,
}


@pytest.mark.parametrize("make", FOREIGN.values(), ids=FOREIGN)
def test_what_is_no_catalog_is_left_alone(tmp_path: Path, make: Callable[[Path], None]) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    make(home / DATABASE)
    before = contents(home)
    for read_only in (False, True):
        with pytest.raises(ForeignCatalogError) as caught:
            open_catalog(home, wait=0, read_only=read_only)
        assert str(home / DATABASE) in caught.value.message and caught.value.remedy
        assert caught.value.exit_code == 6
    assert contents(home) == before


def test_a_folder_in_place_of_the_database(tmp_path: Path) -> None:
    (tmp_path / "home" / DATABASE).mkdir(parents=True, mode=0o700)
    (tmp_path / "home").chmod(0o700)
    with pytest.raises(CatalogError, match=DATABASE):
        open_catalog(tmp_path / "home", wait=0)


def test_a_file_in_place_of_the_home(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("")
    (tmp_path / "home").chmod(0o600)
    for where in (tmp_path / "home", tmp_path / "home" / "below"):
        with pytest.raises(CatalogError, match="home"):
            open_catalog(where, wait=0)


def test_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="no catalog"):
        open_catalog(tmp_path / "home", wait=0, read_only=True)
    assert not (tmp_path / "home").exists()


def test_reading_changes_nothing(home: Path) -> None:
    before = contents(home)
    with open_catalog(home, wait=0, read_only=True) as reader:
        assert reader.read_only
        assert len(reader.cells()) == 1
        with pytest.raises(ReadOnlyCatalogError) as caught:
            reader.append([])
        assert str(home) in caught.value.message and caught.value.code == "E-CATALOG-RO"
    assert contents(home) == before


def test_opening_and_closing_changes_nothing(home: Path) -> None:
    before = contents(home)
    open_catalog(home, wait=0).close()
    assert contents(home) == before


def test_many_may_read_and_one_may_write(home: Path) -> None:
    readers = [open_catalog(home, wait=0, read_only=True) for _ in range(3)]
    with pytest.raises(BusyError, match="reading"):
        open_catalog(home, wait=0)
    readers[0].close()
    assert len(readers[1].cells()) == 1
    for reader in readers:
        reader.close()
    with open_catalog(home, wait=0, command="headwater something") as storage:
        held = holder(home)
        assert held is not None and (held.command, held.pid) == ("headwater something", os.getpid())
        for read_only in (False, True):
            with pytest.raises(BusyError, match="headwater something"):
                open_catalog(home, wait=0, read_only=read_only)
        assert storage.append([]) == 3
    assert holder(home) is None


def test_another_program_has_the_database_open(home: Path) -> None:
    """Someone with a DuckDB of their own takes DuckDB's lock and not ours."""
    script = f"""
import duckdb, sys
connection = duckdb.connect({str(home / DATABASE)!r})
print("open", flush=True)
sys.stdin.read()
"""
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(BusyError, match=str(process.pid)):
            open_catalog(home, wait=0)
        process.kill()
    open_catalog(home, wait=0).close()


def test_a_failed_opening_lets_go_of_the_lock(home: Path) -> None:
    (home / "catalog.head").write_bytes(b"")
    with pytest.raises(CatalogCorruptError):
        open_catalog(home, wait=0)
    assert holder(home) is None


def test_the_umask_is_put_back(home: Path) -> None:
    before = os.umask(0o022)
    try:
        open_catalog(home, wait=0).close()
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)


# ---- what was lost


def _image(home: Path, history: "History", tmp_path: Path) -> tuple[Path, int]:
    """A catalog as a `kill -9` leaves it, with a log, and the number of its last event."""
    with open_catalog(home, wait=0) as storage:
        run = history.start("b")
        storage.append([run])
        seq = storage.append([history.succeed(run)])
        image = tmp_path / "image"
        shutil.copytree(home, image)
    return image, seq


def test_the_log_was_removed(home: Path, history: "History", tmp_path: Path) -> None:
    image, seq = _image(home, history, tmp_path)
    log = image / f"{DATABASE}.wal"
    data = log.read_bytes()
    log.unlink()
    before = contents(image)
    for read_only in (False, True):
        with pytest.raises(LostCommitsError) as caught:
            open_catalog(image, wait=0, read_only=read_only)
        assert f"holds 3 events, and {seq} were committed: the last {seq - 3} are gone" in caught.value.message
        assert f"{DATABASE}.wal" in caught.value.remedy
    assert contents(image) == before
    _fill(log, data)
    with open_catalog(image, wait=0) as storage:
        assert storage.append([]) == seq
        assert len(storage.cells()) == 2


def test_the_loss_can_be_accepted_as_the_error_says(home: Path, history: "History", tmp_path: Path) -> None:
    image, _ = _image(home, history, tmp_path)
    (image / f"{DATABASE}.wal").unlink()
    with pytest.raises(LostCommitsError) as caught:
        open_catalog(image, wait=0)
    command = caught.value.remedy.rpartition("To go on without them: ")[2]
    subprocess.run(command, shell=True, check=True)
    with open_catalog(image, wait=0) as storage:
        assert storage.append([history.start("c")]) == 4
    open_catalog(image, wait=0).close()


def test_the_database_was_removed(home: Path, history: "History", tmp_path: Path) -> None:
    """DuckDB, asked to open a database that is not there, removes the log that is."""
    image, _ = _image(home, history, tmp_path)
    (image / DATABASE).unlink()
    before = contents(image)
    for read_only in (False, True):
        with pytest.raises(LostCommitsError, match="moved or removed"):
            open_catalog(image, wait=0, read_only=read_only)
    assert contents(image) == before
    (image / f"{DATABASE}.wal").unlink()
    with pytest.raises(LostCommitsError, match=r"catalog\.head"):
        open_catalog(image, wait=0)


def test_a_log_of_another_database(home: Path, history: "History", tmp_path: Path) -> None:
    image, _ = _image(home, history, tmp_path)
    other = tmp_path / "other"
    with open_catalog(other, wait=0) as storage:
        storage.append([history.start("x")])
        shutil.copyfile(other / f"{DATABASE}.wal", image / f"{DATABASE}.wal")
    before = contents(image)
    with pytest.raises(CatalogCorruptError, match="WAL"):
        open_catalog(image, wait=0)
    assert contents(image) == before


@pytest.mark.parametrize("data", [b"", b"x", bytes(128), b"HWHEAD1\n" + bytes(120), b"\xa5" * 128, bytes(129)])
def test_a_damaged_head_is_reported(home: Path, data: bytes) -> None:
    head = home / "catalog.head"
    head.write_bytes(data)
    before = contents(home)
    for read_only in (False, True):
        with pytest.raises(CatalogCorruptError) as caught:
            open_catalog(home, wait=0, read_only=read_only)
        assert str(head) in caught.value.message
    assert contents(home) == before
    subprocess.run(caught.value.remedy.rpartition("To accept it as it is: ")[2], shell=True, check=True)
    open_catalog(home, wait=0).close()
    assert head.stat().st_size == 128


def test_the_head_of_another_catalog(home: Path, tmp_path: Path) -> None:
    open_catalog(tmp_path / "other", wait=0).close()
    shutil.copyfile(tmp_path / "other" / "catalog.head", home / "catalog.head")
    with pytest.raises(CatalogCorruptError, match="another catalog"):
        open_catalog(home, wait=0)


def test_an_older_head_is_no_alarm(home: Path, history: "History") -> None:
    """It is not synced at each commit: after a power cut it may be older than the catalog."""
    older = (home / "catalog.head").read_bytes()
    with open_catalog(home, wait=0) as storage:
        storage.append([history.start("b")])
    (home / "catalog.head").write_bytes(older)
    with open_catalog(home, wait=0) as storage:
        assert storage.append([]) == 4
    assert (home / "catalog.head").read_bytes() != older


def test_making_a_catalog_may_be_cut_short_at_any_point(tmp_path: Path) -> None:
    """What a killed creation leaves: a database under another name, perhaps with a log, and a head of nothing."""
    home = tmp_path / "home"
    open_catalog(home, wait=0).close()
    (home / DATABASE).rename(home / f"{DATABASE}.new")
    _fill(home / f"{DATABASE}.new.wal", b"half")
    open_catalog(home, wait=0).close()
    assert not list(home.glob("*.new*"))


# ---- what a killed writer leaves in the journal


def _journal_left(home: Path, history: "History", tmp_path: Path) -> Path:
    image, _ = _image(home, history, tmp_path)
    with duckdb.connect(str(image / DATABASE), read_only=True) as connection:
        assert connection.execute("select count(*) from journal").fetchall() == [(2,)]
    return image


def test_a_reader_that_may_write_enters_it(home: Path, history: "History", tmp_path: Path) -> None:
    image = _journal_left(home, history, tmp_path)
    with open_catalog(image, wait=0, read_only=True) as reader:
        assert len(reader.cells()) == 2
    with duckdb.connect(str(image / DATABASE), read_only=True) as connection:
        assert connection.execute("select count(*) from journal").fetchall() == [(0,)]


def test_a_reader_among_readers_works_on_a_copy(home: Path, history: "History", tmp_path: Path) -> None:
    image = _journal_left(home, history, tmp_path)
    script = """
import sys, time
from pathlib import Path
from headwater.catalog.clock import SystemClock
from headwater.catalog.storage.lock import acquire
acquire(Path(sys.argv[1]), shared=True, wait=0, clock=SystemClock(), command="")
print("held", flush=True)
sys.stdin.read()
"""
    arguments = [sys.executable, "-c", script, str(image)]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        before = contents(image)
        for _ in range(2):
            with open_catalog(image, wait=0, read_only=True) as reader:
                assert len(reader.cells()) == 2
                assert [event.seq for event in reader.events()] == [1, 2, 3, 4, 5, 6]
                assert reader.query("select count(*) from events").rows == [(6,)]
                with pytest.raises(ReadOnlyCatalogError):
                    reader.append([history.start("c")])
        assert contents(image) == before
        process.kill()


def test_a_damaged_block_behind_a_journal_is_reported_and_left_alone(
    home: Path, history: "History", tmp_path: Path
) -> None:
    """Closing must not bring up to date what could not be read: DuckDB would, and the log would be gone."""
    image = _journal_left(home, history, tmp_path)
    good = contents(image)
    met: list[int] = []
    for at in range(12288 + 100, len(good[DATABASE]), 16384):  # a byte of each block
        data = bytearray(good[DATABASE])
        data[at] ^= 1
        for name, content in (good | {DATABASE: bytes(data)}).items():
            _fill(image / name, content)
        before = contents(image)
        try:
            with open_catalog(image, wait=0) as storage:
                storage.settle()
        except CatalogCorruptError:
            assert contents(image) == before
            with pytest.raises(CatalogCorruptError):
                open_catalog(image, wait=0, read_only=True)
            assert contents(image) == before
            met.append(at)
    assert len(met) >= 3


# ---- who may not write


@pytest.fixture
def public(history: "History") -> Iterator[Path]:
    """A folder that any user can reach, unlike pytest's when root runs it."""
    root = Path(tempfile.mkdtemp(prefix="headwater-test-"))
    root.chmod(0o755)
    yield root
    for path in (root, *root.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o700)
    shutil.rmtree(root)


AS_A_USER = """
import os, sys
from pathlib import Path
import duckdb, msgspec
from headwater.catalog.errors import HeadwaterError
from headwater.catalog.storage.duckdb import open_catalog, opening, user_queries
from headwater.catalog.keys import AssetKey
home = Path(sys.argv[1])
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
storage = open_catalog(home, wait=0)
print(storage.read_only, len(storage.cells()), storage.query("select count(*) from runs").rows[0][0])
try:
    storage.append([])
except HeadwaterError as error:
    print(error.code)
storage.close()
"""


def run_as_a_user(home: Path) -> "subprocess.CompletedProcess[str]":
    """Run the script above as an ordinary user, who root can become and others are."""
    return subprocess.run([sys.executable, "-c", AS_A_USER, str(home)], capture_output=True, text=True, check=False)


def _hand_over(home: Path, folder_mode: int, file_mode: int) -> None:
    if os.geteuid() == 0:
        for path in (home, *home.iterdir()):
            os.chown(path, 65534, 65534)
    for path in home.iterdir():
        path.chmod(file_mode)
    home.chmod(folder_mode)


@pytest.mark.parametrize(
    ("folder_mode", "file_mode", "killed", "lock_file"),
    [
        (0o500, 0o400, False, True),
        (0o500, 0o400, True, False),
        (0o700, 0o400, True, True),
        (0o500, 0o600, False, False),
        (0o500, 0o600, True, True),
    ],
)
def test_a_catalog_that_may_not_be_written_is_read(
    public: Path, history: "History", folder_mode: int, file_mode: int, killed: bool, lock_file: bool
) -> None:
    with open_catalog(public / "home", wait=0) as storage:
        run = history.start("a")
        storage.append([run, history.succeed(run)])
        if killed:
            shutil.copytree(public / "home", public / "image")
    home = public / ("image" if killed else "home")
    if not lock_file:
        (home / "catalog.lock").unlink()
    _hand_over(home, folder_mode, file_mode)
    before = contents(home)
    result = run_as_a_user(home)
    assert result.stdout == "True 1 1\nE-CATALOG-RO\n", result.stderr
    assert {name: data for name, data in contents(home).items() if name in before} == before


def test_a_catalog_that_may_not_be_made(public: Path) -> None:
    home = public / "closed"
    home.mkdir()
    _hand_over(home, 0o500, 0o400)
    for where in (home, home / "below"):
        result = run_as_a_user(where)
        assert "ReadOnlyCatalogError" in result.stderr and "may not make one there" in result.stderr


# ---- processes


def _start_first(home: Path, start: "Barrier", name: str) -> None:
    from datetime import UTC, datetime

    from headwater.catalog.events import RunStarted
    from headwater.catalog.ids import new_id

    start.wait()
    with open_catalog(home, wait=120, command=name) as storage:
        now = datetime.now(UTC)
        storage.append([RunStarted(time=now, run_id=new_id(now), steps=(), job=name)])


def test_the_first_start_of_many_processes_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["headwater.catalog.storage.duckdb", "duckdb", "msgspec"])
    for number in range(2):
        home = tmp_path / f"home{number}"
        start = context.Barrier(16)
        processes = [context.Process(target=_start_first, args=(home, start, f"p{i}")) for i in range(16)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        assert [process.exitcode for process in processes] == [0] * 16
        with open_catalog(home, wait=0) as storage:
            assert sorted(str(run.job) for run in storage.runs()) == sorted(f"p{i}" for i in range(16))
            assert [event.seq for event in storage.events()] == list(range(1, 17))


def test_a_forked_child_may_not_use_it(home: Path, history: "History") -> None:
    with open_catalog(home, wait=0) as storage:
        receive, send = os.pipe()
        child = os.fork()
        if child == 0:
            said: list[str] = []
            for use in (storage.cells, lambda: storage.append([history.start("x")]), lambda: storage.query("select 1")):
                try:
                    use()
                except ForkedCatalogError as error:
                    said.append(error.code)
            storage.close()
            os.write(send, " ".join(said).encode())
            os._exit(0)
        os.waitpid(child, 0)
        assert os.read(receive, 1000) == b"E-FORK E-FORK E-FORK"
        os.close(receive)
        os.close(send)
        assert storage.append([history.start("b")]) == 4
        assert len(storage.cells()) == 1


def test_a_forked_child_that_ends_does_not_touch_the_file(home: Path) -> None:
    """DuckDB's destructor in a forked child would checkpoint the parent's file and unlink the parent's log."""
    script = f"""
import os, sys
from datetime import UTC, datetime
from pathlib import Path
from headwater.catalog.events import RunStarted
from headwater.catalog.ids import new_id
from headwater.catalog.storage.duckdb import open_catalog
home = Path({str(home)!r})
storage = open_catalog(home, wait=0)
now = datetime.now(UTC)
def append():
    storage.append([RunStarted(time=now, run_id=new_id(now), steps=())])
append()
child = os.fork()
if child == 0:
    del storage
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
append()
print((home / "catalog.duckdb.wal").exists(), flush=True)
os.kill(os.getpid(), 9)
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert result.stdout == "True\n", result.stderr
    with open_catalog(home, wait=0) as storage:
        assert storage.append([]) == 5
        assert AssetKey("a") in storage.latest()
