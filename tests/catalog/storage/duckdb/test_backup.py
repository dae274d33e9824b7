"""Backups: consistent while others write, private, whole or not there, and complete by themselves."""

import os
import shutil
import stat
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from headwater.catalog.errors import ConflictError, DiskFullError, ReadOnlyCatalogError, UsageError
from headwater.catalog.storage.base import CatalogWriter
from headwater.catalog.storage.duckdb import open_catalog

if TYPE_CHECKING:
    from headwater.tests.histories import History


@pytest.fixture
def home(tmp_path: Path, empty_home: Path) -> Path:
    """An empty catalog, closed."""
    return shutil.copytree(empty_home, tmp_path / "home")


def opened_alone(backup: Path, folder: Path) -> Path:
    """A home that has nothing but the backup."""
    folder.mkdir(mode=0o700)
    shutil.copy(backup, folder / "catalog.duckdb")
    return folder


def test_a_backup_opens_by_itself_and_holds_everything(home: Path, tmp_path: Path, history: "History") -> None:
    with open_catalog(home, wait=0) as storage:
        run = history.start("a", "b")
        storage.append([run, history.step(run, 0), history.succeed(run, 0)])
        storage.append([history.step(run, 1)])  # in the journal
        mask = os.umask(0)
        try:
            made = storage.backup(tmp_path / "copy.duckdb")
        finally:
            os.umask(mask)
        events = storage.events()
        storage.append([history.succeed(run, 1)])
        assert made.events == len(events) == events[-1].seq
        assert made.last == events[-1].time
        assert made.bytes == made.path.stat().st_size
        assert stat.S_IMODE(made.path.stat().st_mode) == 0o600
        assert not (home / "catalog.backup").exists() and sorted(os.listdir(tmp_path)) == ["copy.duckdb", "home"]
    with open_catalog(opened_alone(made.path, tmp_path / "alone"), wait=0) as storage:
        assert storage.events() == events
        assert storage.append([history.start("c")]) == made.events + 1


def test_a_backup_is_one_state_while_others_write(home: Path, tmp_path: Path, history: "History") -> None:
    stop = threading.Event()
    acknowledged: list[int] = []

    def write(storage: CatalogWriter) -> None:
        while not stop.is_set():
            run = history.start("a")
            acknowledged.append(storage.append([run, history.step(run, 0)]))
            acknowledged.append(storage.append([history.succeed(run, 0), history.finish(run)]))

    made: list[tuple[int, int, Path]] = []
    with open_catalog(home, wait=0, checkpoint_bytes=100_000) as storage:
        writer = threading.Thread(target=write, args=(storage,))
        writer.start()
        for number in range(6):
            before = acknowledged[-1] if acknowledged else 0
            backup = storage.backup(tmp_path / f"{number}.duckdb")
            made.append((before, backup.events, backup.path))
        stop.set()
        writer.join()
        events = storage.events(limit=None)
    assert len({count for _, count, _ in made}) > 3, "nothing was written meanwhile"
    for number, (before, count, path) in enumerate(made):
        assert count >= before, "what was acknowledged before is in it"
        with open_catalog(opened_alone(path, tmp_path / f"alone{number}"), wait=0) as storage:
            assert storage.events(limit=None) == events[:count]
            runs = storage.runs(limit=10_000)
            assert sum(storage.run(run.run_id) is not None for run in runs) == len(runs)
            current = storage.cells()
            assert len(current) <= 1 and all(
                storage.materialization(state.version_id) is not None for state in current.values()
            )


def test_what_is_there_is_not_overwritten_unasked(home: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.write_text("mine")
    with open_catalog(home, wait=0) as storage:
        with pytest.raises(ConflictError, match="already"):
            storage.backup(there)
        assert there.read_text() == "mine"
        storage.backup(there, replace=True)
        assert there.stat().st_size > 10_000
        for place in (home / "catalog.duckdb", home / "catalog.head", tmp_path):
            with pytest.raises(UsageError):
                storage.backup(place, replace=True)


def test_a_backup_goes_to_another_file_system(home: Path, tmp_path: Path) -> None:
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no other file system")
    target = other / f"headwater-{os.getpid()}.duckdb"
    try:
        with open_catalog(home, wait=0) as storage:
            made = storage.backup(target)
            assert stat.S_IMODE(target.stat().st_mode) == 0o600
            assert sorted(name for name in os.listdir(other) if f"headwater-{os.getpid()}" in name) == [target.name]
            with pytest.raises(ConflictError):
                storage.backup(target)
        with open_catalog(opened_alone(made.path, tmp_path / "alone"), wait=0) as storage:
            assert storage.events() == []
    finally:
        target.unlink(missing_ok=True)


def test_a_backup_needs_room_and_a_catalog_that_may_be_written(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, history: "History"
) -> None:
    with open_catalog(home, wait=0, read_only=True) as storage, pytest.raises(ReadOnlyCatalogError):
        storage.backup(tmp_path / "copy")
    state = os.statvfs(home)
    with open_catalog(home, wait=0) as storage:
        with monkeypatch.context() as patched:
            values = list(state)
            values[4] = 0  # f_bavail
            full = os.statvfs_result(values)

            def statvfs(path: Path) -> os.statvfs_result:
                return full

            patched.setattr(os, "statvfs", statvfs)
            with pytest.raises(DiskFullError, match="free"):
                storage.backup(tmp_path / "copy")
        assert storage.append([history.start("a")]) == 1
    assert not (tmp_path / "copy").exists()


def test_a_killed_backup_leaves_nothing_that_stays(home: Path, tmp_path: Path) -> None:
    left = home / "catalog.backup"
    left.mkdir(mode=0o700)
    (left / "catalog.duckdb").write_bytes(b"half")
    with open_catalog(home, wait=0) as storage:
        storage.backup(tmp_path / "copy")
    assert not left.exists()


def test_queries_reach_no_file_while_backups_may_be_made(home: Path) -> None:
    with open_catalog(home, wait=0) as storage:
        for sql in ("select * from read_text('/etc/hostname')", f"select * from read_blob('{home}/catalog.backup/x')"):
            with pytest.raises(UsageError):
                storage.query(sql)
