"""`headwater catalog`: real projects, real processes, real files."""

import json
import os
import pty
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.project import ProjectFolder
from tests.s3_server import Bucket

SOURCE = """
import polars as pl
from headwater import asset

@asset
def a() -> pl.DataFrame:
    return pl.DataFrame({"i": [1, 2, 3]})

@asset
def b(a: pl.DataFrame) -> pl.DataFrame:
    return a * 2
"""


@pytest.fixture
def built(project: ProjectFolder) -> ProjectFolder:
    """A project with two assets, built."""
    project.write(SOURCE)
    assert set(project.built().values()) == {"SUCCESS"}
    return project


def home_of(project: ProjectFolder) -> Path:
    """The project's home."""
    return project.path / ".headwater"


def files_of(project: ProjectFolder, asset: str) -> list[Path]:
    """The stored files of an asset, oldest first."""
    return sorted((home_of(project) / "data" / asset).glob("*.parquet"))


def codes(found: Any) -> list[str]:
    """The codes of the problems of a doctor's answer."""
    return [problem["code"] for problem in found["problems"]]


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, but for the lock, in which readers write who they are."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "catalog.lock"
    }


def test_backup_and_restore(built: ProjectFolder) -> None:
    made = built.json("catalog", "backup")
    backup = Path(made["path"])
    assert backup.parent == home_of(built) / "backups" and backup.stat().st_mode & 0o777 == 0o600
    assert backup.parent.stat().st_mode & 0o777 == 0o700
    assert made["bytes"] == backup.stat().st_size and made["events"] > 5 and made["last_event"].endswith("Z")
    assert "already" in built.run("catalog", "backup", str(backup), code=7).err
    assert built.run("catalog", "backup", str(backup), "--force").out.strip() == str(backup)
    built.edit("[1, 2, 3]", "[1, 2, 4]")
    built.built()
    current = built.json("versions", "a")["versions"]
    assert len(current) == 2

    refused = built.run("catalog", "restore", str(backup), code=2)
    assert "--yes" in refused.err and "will only be in the files that are kept aside" in refused.err
    assert built.json("versions", "a")["versions"] == current

    done = built.run("catalog", "restore", str(backup), "--yes", "--json")
    answer = json.loads(done.out)
    assert answer["lost_events"] > 3 and answer["events"] == made["events"] and not answer["another_catalog"]
    assert [v["version_id"] for v in built.json("versions", "a")["versions"]] == [current[1]["version_id"]]
    kept = Path(answer["kept"])
    assert (kept / "catalog.duckdb").is_file()
    # The versions that the backup does not know are found by the doctor, and built again on demand.
    found = built.json("catalog", "doctor")
    assert len(found["orphans"]) == 2 and found["ok"]
    assert set(built.built().values()) == {"SUCCESS"}
    # And back again.
    built.run("catalog", "restore", str(kept / "catalog.duckdb"), "--yes")
    assert len(built.json("versions", "a")["versions"]) == 2


def test_restore_asks_a_terminal(built: ProjectFolder) -> None:
    backup = built.json("catalog", "backup")["path"]
    for answer, code in ((b"n\n", 7), (b"y\n", 0)):
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-m", "headwater", "catalog", "restore", backup],
            cwd=built.path,
            env=built.environment(),
            stdin=theirs,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        os.write(ours, answer)
        _, err = process.communicate(timeout=60)
        os.close(ours)
        os.close(theirs)
        assert process.returncode == code, err
        assert b"Nothing will be lost." in err and b"Restore it?" in err


def test_restore_refuses_what_is_no_backup_and_a_catalog_in_use(built: ProjectFolder) -> None:
    lite = built.path / "lite.db"
    with sqlite3.connect(lite) as connection:
        connection.execute("create table t (i)")
    before = snapshot(home_of(built))
    assert "E-CATALOG-FOREIGN" in built.run("catalog", "restore", str(lite), "--yes", code=6).err
    assert built.run("catalog", "restore", "nowhere", "--yes", code=2).err
    assert snapshot(home_of(built)) == before

    backup = built.json("catalog", "backup")["path"]
    built.write(SOURCE + "\n@asset\ndef slow() -> int:\n    import time\n    time.sleep(60)\n    return 1\n")
    run = built.start("materialize", "slow")
    try:
        deadline = time.monotonic() + 30
        while (code := built.run("--wait", "0", "catalog", "restore", backup, "--yes", code=None)).code != 7:
            assert time.monotonic() < deadline, code
        assert f"process {run.pid}" in code.err and "materialize" in code.err
        assert "held by process" in built.run("--wait", "0", "catalog", "doctor", code=1).out
    finally:
        run.kill()
        run.communicate()


def test_migrate_says_what_there_is(built: ProjectFolder, tmp_path: Path) -> None:
    found = built.json("catalog", "migrate", "--dry-run")
    assert found["before"] == found["known"] and found["backup"] is None
    assert "up to date" in built.run("catalog", "migrate").out
    assert built.run("--home", str(tmp_path / "nothing"), "catalog", "migrate", code=6).err


def test_migrate_brings_an_older_catalog_up_to_date(built: ProjectFolder) -> None:
    import duckdb

    with duckdb.connect(
        str(home_of(built) / "catalog.duckdb")
    ) as connection:  # as a program that knew one less left it
        for (view,) in connection.execute("select view_name from duckdb_views() where not internal").fetchall():
            connection.execute(f'drop view "{view}"')
        connection.execute("delete from migration where number = 2")
    assert "headwater catalog migrate" in built.run("runs", code=6).err
    found = built.json("catalog", "doctor", code=1)
    assert any("headwater catalog migrate" in note["remedy"] for note in found["notes"])
    dry = built.json("catalog", "migrate", "--dry-run")
    assert (dry["before"], dry["known"], dry["schema"], dry["backup"]) == (1, 2, 1, None)
    done = built.json("catalog", "migrate")
    assert (done["before"], done["schema"]) == (1, 2) and Path(done["backup"]).is_file()
    assert built.json("runs")["runs"] and built.json("catalog", "doctor")["ok"]


def test_a_newer_catalog_is_refused(built: ProjectFolder) -> None:
    import duckdb

    with duckdb.connect(str(home_of(built) / "catalog.duckdb")) as connection:
        connection.execute("update meta set value = '99' where name in ('min_reader', 'min_writer')")
    before = snapshot(home_of(built))
    for command in (["migrate"], ["migrate", "--dry-run"]):
        assert "E-CATALOG-NEWER" in built.run("catalog", *command, code=6).err
    assert "E-CATALOG-NEWER" in codes(built.json("catalog", "doctor", code=1))
    assert snapshot(home_of(built)) == before


def test_a_doctor_finds_nothing_and_changes_nothing(built: ProjectFolder, tmp_path: Path) -> None:
    before = snapshot(built.path)
    found = built.json("catalog", "doctor", "--all", "--data")
    assert found["ok"] and not found["problems"] and not found["orphans"] and not found["notes"]
    assert found["data"]["versions"] == 2 and found["data"]["bytes"] > 0
    assert found["catalog"]["head"] == found["catalog"]["events"] and found["catalog"]["schema"] == 2
    assert "Nothing is wrong." in built.run("catalog", "doctor").out
    assert snapshot(built.path) == before
    assert built.json("--home", str(tmp_path / "nothing"), "catalog", "doctor")["ok"]
    assert not (tmp_path / "nothing").exists()


def test_missing_cut_and_changed_files(built: ProjectFolder) -> None:
    built.edit("[1, 2, 3]", "[1, 2, 4]")
    built.built()
    old, new = files_of(built, "a")
    (b_old, b_new) = files_of(built, "b")
    old.unlink()
    data = new.read_bytes()
    new.write_bytes(data[:-1])
    b_new.write_bytes(b_new.read_bytes()[:-20] + b"\0" * 8 + b_new.read_bytes()[-12:])
    found = built.json("catalog", "doctor", code=1)
    assert codes(found) == ["E-CHECKSUM"] and f"{len(data) - 1:,} bytes" in found["problems"][0]["message"]
    assert "headwater materialize a --force" in found["problems"][0]["remedy"]
    assert codes(built.json("catalog", "doctor", "--data", code=1)) == ["E-CHECKSUM", "E-CHECKSUM"]
    found = built.json("catalog", "doctor", "--all", code=1)
    assert sorted(codes(found)) == ["E-CHECKSUM", "E-MISSING-DATA"] and b_old.exists()
    assert str(old) in next(p["message"] for p in found["problems"] if p["code"] == "E-MISSING-DATA")


def age(file: Path, hours: float) -> None:
    """Let a file have been written so long ago."""
    then = time.time() - hours * 3600
    os.utime(file, (then, then))


def test_orphans_are_listed_and_old_ones_removed(built: ProjectFolder) -> None:
    (version,) = files_of(built, "a")
    orphans = [
        version.with_name("01900000-0000-7000-8000-000000000001.parquet"),
        version.with_name("01900000-0000-7000-8000-000000000002.json"),
        home_of(built) / "data/.staging/01900000-0000-7000-8000-000000000009/"
        "01900000-0000-7000-8000-000000000003.parquet.0a1b2c3d",
    ]
    mine = version.with_name("notes.txt")
    for file in (*orphans, mine):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"12345")
        age(file, 100)
    age(orphans[1], 1)
    age(version, 1000)
    (home_of(built) / "data" / "link").symlink_to("/etc")
    found = built.json("catalog", "doctor", code=1)
    assert {orphan["uri"].rpartition("/")[2]: orphan["old"] for orphan in found["orphans"]} == {
        orphans[0].name: True,
        orphans[1].name: False,
        orphans[2].name: True,
    }
    assert {orphan["bytes"] for orphan in found["orphans"]} == {5} and all(file.exists() for file in orphans)
    shown = built.run("catalog", "doctor", code=1).out
    assert "`--fix` removes it" in shown and "too young to remove" in shown
    found = built.json("catalog", "doctor", "--fix")
    assert [file.exists() for file in orphans] == [False, True, False] and mine.exists() and version.exists()
    assert sum(orphan["removed"] for orphan in found["orphans"]) == 2
    built.run("catalog", "doctor", "--fix", "--grace", "30m")
    assert not orphans[1].exists() and built.json("status")
    assert built.run("catalog", "doctor", "--grace", "soon", code=2).err


def test_what_a_killed_run_left_is_kept_until_the_run_is_settled(project: ProjectFolder) -> None:
    project.write(
        SOURCE + "\n@asset\ndef dies(a: pl.DataFrame) -> pl.DataFrame:\n    import os, signal\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n    return a\n"
    )
    project.run("materialize", code=None)
    before = snapshot(home_of(project))
    found = project.json("catalog", "doctor")
    assert found["ok"] and found["catalog"]["in_journal"] > 0
    assert any("journal" in note["message"] for note in found["notes"])
    assert snapshot(home_of(project)) == before, "a doctor changes nothing, not even what is left in the journal"


def test_a_root_that_others_share_keeps_what_may_be_theirs(project: ProjectFolder, tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    project.write(
        SOURCE + f"\nfrom headwater import Definitions, FileIOManager\n"
        f"defs = Definitions([a, b], resources={{'io_manager': FileIOManager({str(lake)!r})}})\n"
    )
    project.built()
    (mine,) = (lake / "a").glob("*.parquet")
    theirs = mine.with_name("01900000-0000-7000-8000-000000000001.parquet")
    shutil.copy(mine, theirs)
    age(theirs, 1000)
    for options in ((), ("--fix",)):
        found = project.json("catalog", "doctor", *options)
        assert [(o["ours"], o["removed"]) for o in found["orphans"]] == [(False, False)] and theirs.exists()
        assert found["data"]["versions"] == 2
    # Without the definitions, the pointers say where to look.
    alone = project.json("--home", str(home_of(project)), "-f", str(project.write("", "empty.py")), "catalog", "doctor")
    assert alone["data"]["versions"] == 2 and len(alone["orphans"]) == 1


def test_a_project_that_does_not_load_is_examined_all_the_same(built: ProjectFolder) -> None:
    built.write("raise ValueError('no')\n")
    found = built.json("catalog", "doctor")
    assert found["data"]["versions"] == 2 and any("do not load" in note["message"] for note in found["notes"])


@pytest.mark.parametrize("damage", ["lost", "corrupt", "permissions", "gone"])
def test_a_damaged_catalog_is_told_with_what_to_do(built: ProjectFolder, damage: str) -> None:
    home = home_of(built)
    backup = built.json("catalog", "backup")["path"]
    if damage == "lost":
        built.run("materialize", "a", "--force")
        shutil.copy(backup, home / "catalog.duckdb")
    elif damage == "corrupt":
        data = bytearray((home / "catalog.duckdb").read_bytes())
        data[20_000:60_000] = bytes(40_000)
        (home / "catalog.duckdb").write_bytes(data)
    elif damage == "permissions":
        (home / "catalog.head").chmod(0o666)
    else:
        (home / "catalog.duckdb").unlink()
    found = built.json("catalog", "doctor", code=1)
    code, text = {
        "lost": ("E-CATALOG-LOST-COMMITS", "headwater catalog restore"),
        "corrupt": ("E-CATALOG-CORRUPT", "headwater catalog restore"),
        "permissions": ("E-PERM", "chmod go-w"),
        "gone": ("E-CATALOG-LOST-COMMITS", "headwater catalog restore"),
    }[damage]
    assert codes(found)[0] == code and text in found["problems"][0]["remedy"]
    assert not found["ok"]
    if damage != "permissions":
        built.run("catalog", "restore", backup, "--yes")
        assert built.json("catalog", "doctor")["ok"]


def test_an_object_store(project: ProjectFolder, bucket: Bucket) -> None:
    boto3 = pytest.importorskip("boto3")
    options = bucket.options
    project.write(
        SOURCE + "\nfrom headwater import Definitions, FileIOManager\n"
        f"manager = FileIOManager({bucket.root!r}, storage_options={options!r})\n"
        "defs = Definitions([a, b], resources={'io_manager': manager})\n"
    )
    project.built()
    client = boto3.client(
        "s3",
        endpoint_url=bucket.endpoint,
        region_name="us-east-1",
        aws_access_key_id=options["aws_access_key_id"],
        aws_secret_access_key=options["aws_secret_access_key"],
    )
    found = project.json("catalog", "doctor", "--data")
    assert found["ok"] and found["data"]["versions"] == 2 and bucket.root in found["data"]["roots"]
    key = next(key for key in sorted(bucket.keys()) if "/a/" in key)
    client.put_object(Bucket=bucket.name, Key="warehouse/a/01900000-0000-7000-8000-000000000001.parquet", Body=b"1")
    client.put_object(Bucket=bucket.name, Key="elsewhere/a/01900000-0000-7000-8000-000000000002.parquet", Body=b"1")
    client.create_multipart_upload(Bucket=bucket.name, Key="warehouse/a/begun.parquet")
    client.put_object(Bucket=bucket.name, Key=key, Body=b"short")
    found = project.json("catalog", "doctor", "--grace", "0", code=1)
    assert codes(found) == ["E-CHECKSUM", "E-STORAGE"] and "begun.parquet" in found["problems"][1]["message"]
    assert [orphan["uri"].rpartition("/")[2][-7:] for orphan in found["orphans"]] == ["parquet"]
    client.delete_object(Bucket=bucket.name, Key=key)
    assert codes(project.json("catalog", "doctor", code=1))[0] == "E-MISSING-DATA"
    assert options["aws_secret_access_key"] not in project.run("catalog", "doctor", code=1).out
