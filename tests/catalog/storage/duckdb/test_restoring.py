"""Restoring: what is checked before, what is kept aside, and what a kill in between leaves."""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from headwater.catalog.clock import SystemClock
from headwater.catalog.errors import (
    BusyError,
    CatalogCorruptError,
    CatalogTooNewError,
    ForeignCatalogError,
    HeadwaterError,
    LostCommitsError,
    UsageError,
)
from headwater.catalog.storage.duckdb import apart, open_catalog
from headwater.catalog.storage.duckdb.restoring import restoring

if TYPE_CHECKING:
    from headwater.tests.histories import History

CLOCK = SystemClock()
DATABASE = "catalog.duckdb"


@pytest.fixture
def home(tmp_path: Path, history: "History", empty_home: Path) -> Path:
    """A catalog with five events, the first two of which `backup.duckdb` beside it holds."""
    home = shutil.copytree(empty_home, tmp_path / "home")
    with open_catalog(home, wait=0) as storage:
        storage.append([history.start("a"), history.start("b")])
        storage.backup(tmp_path / "backup.duckdb")
        storage.append([history.start("c"), history.start("d"), history.start("e")])
    return home


def names(home: Path) -> set[str]:
    """What lies in a home."""
    return set(os.listdir(home))


def test_a_backup_takes_the_place_of_the_catalog(home: Path, tmp_path: Path, history: "History") -> None:
    before = (home / DATABASE).read_bytes()
    with restoring(tmp_path / "backup.duckdb", home, wait=0, clock=CLOCK) as found:
        assert (found.backup.seq, found.committed, found.lost, found.is_another) == (2, 5, 3, False)
        assert found.present is not None and found.backup.last is not None and found.present.last is not None
        assert found.backup.last < found.present.last
        with pytest.raises(BusyError):
            open_catalog(home, wait=0)
        aside = found.carry_out()
    assert aside is not None and (aside / DATABASE).read_bytes() == before
    assert names(home) == {DATABASE, "catalog.head", "catalog.lock", "catalog.reserve", aside.name}
    assert stat.S_IMODE((home / DATABASE).stat().st_mode) == 0o600 and stat.S_IMODE(aside.stat().st_mode) == 0o700
    with open_catalog(home, wait=0) as storage:
        assert len(storage.events()) == 2
        assert storage.append([history.start("f")]) == 3
    # What was put aside is a catalog too.
    aside.rename(tmp_path / "old")
    with open_catalog(tmp_path / "old", wait=0) as storage:
        assert len(storage.events()) == 5


def test_nothing_changes_before_it_is_carried_out(home: Path, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in home.iterdir() if path.name != "catalog.lock"}
    with restoring(tmp_path / "backup.duckdb", home, wait=0, clock=CLOCK):
        pass
    assert {path.name: path.read_bytes() for path in home.iterdir() if path.name != "catalog.lock"} == before


def test_a_home_that_is_gone_comes_back(home: Path, tmp_path: Path) -> None:
    with restoring(tmp_path / "backup.duckdb", tmp_path / "new", wait=0, clock=CLOCK) as found:
        assert (found.present, found.damage, found.lost) == (None, "", 0)
        assert found.carry_out() is None
    with open_catalog(tmp_path / "new", wait=0) as storage:
        assert len(storage.events()) == 2


@pytest.mark.parametrize("damage", ["database", "head", "no database"])
def test_a_catalog_that_does_not_open_is_replaced(home: Path, tmp_path: Path, damage: str) -> None:
    if damage == "database":
        (home / DATABASE).write_bytes(b"\0" * 100_000)
    elif damage == "head":
        (home / "catalog.head").write_bytes(b"garbage")
    else:
        (home / DATABASE).unlink()
    with pytest.raises(CatalogCorruptError if damage != "database" else HeadwaterError) as caught:
        open_catalog(home, wait=0)
    if damage != "database":
        assert "headwater catalog restore" in caught.value.remedy
    with restoring(tmp_path / "backup.duckdb", home, wait=0, clock=CLOCK) as found:
        assert bool(found.damage) == (damage == "database")
        assert found.lost == 3
        found.carry_out()
    with open_catalog(home, wait=0) as storage:
        assert len(storage.events()) == 2


def test_another_catalogs_backup_is_told_from_our_own(home: Path, tmp_path: Path, history: "History") -> None:
    with open_catalog(tmp_path / "other", wait=0) as storage:
        storage.append([history.start("x")])
        storage.backup(tmp_path / "other.duckdb")
    with restoring(tmp_path / "other.duckdb", home, wait=0, clock=CLOCK) as found:
        assert found.is_another and found.lost == 5
        found.carry_out()
    with open_catalog(home, wait=0) as storage:
        assert len(storage.events()) == 1


@pytest.mark.parametrize("step", ["replace", "unlink"])
def test_killed_in_between_it_is_refused_and_restored_again(
    home: Path, tmp_path: Path, history: "History", monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    with open_catalog(home, wait=0) as storage:  # as a killed process leaves it, with a log
        storage.append([history.start("f")])
        killed = {name: (home / name).read_bytes() for name in (DATABASE, f"{DATABASE}.wal", "catalog.head")}
    for name, data in killed.items():
        (home / name).write_bytes(data)
        (home / name).chmod(0o600)
    unlink = Path.unlink

    class Killed(BaseException):
        pass

    def replace(path: Path, target: Path) -> Path:
        raise Killed

    def keep_head(path: Path, missing_ok: bool = False) -> None:
        if path.name == "catalog.head":
            raise Killed
        unlink(path, missing_ok=missing_ok)

    with restoring(tmp_path / "backup.duckdb", home, wait=0, clock=CLOCK) as found:
        assert found.lost == 4
        with pytest.raises(Killed), monkeypatch.context() as patched:
            patched.setattr(Path, step, replace if step == "replace" else keep_head)
            found.carry_out()
    with pytest.raises(LostCommitsError, match="headwater catalog restore"):
        open_catalog(home, wait=0)
    with restoring(tmp_path / "backup.duckdb", home, wait=0, clock=CLOCK) as found:
        found.carry_out()
    with open_catalog(home, wait=0) as storage:
        assert len(storage.events()) == 2


def test_what_is_no_backup_is_refused(home: Path, tmp_path: Path) -> None:
    import duckdb

    backup = tmp_path / "backup.duckdb"
    data = backup.read_bytes()
    plain = tmp_path / "plain.duckdb"
    with duckdb.connect(str(plain)) as connection:
        connection.execute("create table t as select 1 as i")
    newer = shutil.copy(backup, tmp_path / "newer.duckdb")
    with duckdb.connect(str(newer)) as connection:
        connection.execute("update meta set value = '99' where name in ('min_reader', 'min_writer')")
    (tmp_path / "garbage").write_bytes(os.urandom(50_000))
    (tmp_path / "cut").write_bytes(data[: len(data) // 2])
    for name, kind in (
        ("plain.duckdb", ForeignCatalogError),
        ("newer.duckdb", CatalogTooNewError),
        ("garbage", ForeignCatalogError),
        ("cut", CatalogCorruptError),
        ("nowhere", UsageError),
        ("home/catalog.duckdb", UsageError),
    ):
        with pytest.raises(kind), restoring(tmp_path / name, home, wait=0, clock=CLOCK):
            pass
    with open_catalog(home, wait=0) as storage:
        assert len(storage.events()) == 5


def test_a_bit_anywhere_in_a_backup_is_found_or_harms_nothing(home: Path, tmp_path: Path) -> None:
    data = (tmp_path / "backup.duckdb").read_bytes()
    flipped = tmp_path / "flipped.duckdb"
    refused = 0
    for at in range(100, len(data), len(data) // 12):
        flipped.write_bytes(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
        try:
            assert apart.look(flipped).seq == 2
        except CatalogCorruptError:
            refused += 1
    assert refused >= 2


def test_the_end_of_the_process_that_reads_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killer = tmp_path / "python"
    killer.write_text("#!/bin/sh\nkill -SEGV $$\n")
    killer.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(killer))
    with pytest.raises(CatalogCorruptError, match="SIGSEGV"):
        apart.look(tmp_path / "backup.duckdb")


def test_it_refuses_while_another_process_holds_the_catalog(home: Path, tmp_path: Path) -> None:
    script = (
        "import sys\nfrom pathlib import Path\nfrom headwater.catalog.storage.duckdb import open_catalog\n"
        "with open_catalog(Path(sys.argv[1]), wait=0, command='the other one'):\n"
        "    print('open', flush=True)\n    sys.stdin.read()\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", script, str(home)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "open\n"
        with (
            pytest.raises(BusyError, match=f"process {holder.pid} .*the other one"),
            restoring(tmp_path / "backup.duckdb", home, wait=0, clock=CLOCK),
        ):
            pass
    finally:
        holder.communicate()


def test_lost_commits_name_the_command(home: Path) -> None:
    (home / DATABASE).unlink()
    with pytest.raises(LostCommitsError) as caught:
        open_catalog(home, wait=0)
    assert "headwater catalog restore FILE" in caught.value.remedy
