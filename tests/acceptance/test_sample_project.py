"""The sample project in real processes: whole, on a disk and in a bucket, then edited as people edit."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.project import ProjectFolder
from tests.s3_server import Bucket

SAMPLE = Path(__file__).resolve().parents[2] / "sample_data"
ASSETS = 16
CLEANED = "flights/cleaned.py"

#: Every kind of frame from one asset, and a plain value, as somebody reads them in a notebook.
LOAD = """
import json
import duckdb, pandas as pd, polars as pl, pyarrow as pa
from headwater import load_asset

found = {}
for kind in (pl.DataFrame, pl.LazyFrame, pd.DataFrame, pa.Table, pa.RecordBatchReader, duckdb.DuckDBPyRelation):
    frame = load_asset("planes", as_type=kind, columns=["tailnum", "built"])
    assert isinstance(frame, kind), type(frame)
    if kind is pl.LazyFrame:
        frame = frame.collect()
    elif kind is duckdb.DuckDBPyRelation:
        frame = frame.to_arrow_table()
    frame = pl.DataFrame(frame.read_all() if kind is pa.RecordBatchReader else frame)
    found[str(kind)] = [frame.columns, frame.height, int(frame["built"].sum()), frame["tailnum"].min()]
print(json.dumps({"planes": found, "report": load_asset("delay_report")}))
"""


def copied(folder: Path, env: Mapping[str, str]) -> ProjectFolder:
    shutil.copytree(SAMPLE, folder, ignore=shutil.ignore_patterns(".headwater", "__pycache__"))
    return ProjectFolder(folder, dict(env))


def query(project: ProjectFolder, sql: str) -> list[dict[str, Any]]:
    return project.json("sql", sql)["rows"]


def data_versions(project: ProjectFolder) -> dict[str, str]:
    found = query(project, "select asset, data_version from materializations where is_current")
    return {row["asset"]: row["data_version"] for row in found}


def loaded(project: ProjectFolder) -> Any:
    done = subprocess.run(
        [sys.executable, "-c", LOAD],
        cwd=project.path,
        env=project.environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def environment_of(bucket: Bucket) -> dict[str, str]:
    """What the project's README tells people to set."""
    return {
        "FLIGHTS_ROOT": bucket.root,
        "AWS_ENDPOINT_URL": bucket.endpoint,
        "AWS_ACCESS_KEY_ID": bucket.options["aws_access_key_id"],
        "AWS_SECRET_ACCESS_KEY": bucket.options["aws_secret_access_key"],
        "AWS_REGION": bucket.options["region"],
    }


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory: pytest.TempPathFactory) -> ProjectFolder:
    """A copy that is built on the local disk, for reading."""
    project = copied(tmp_path_factory.mktemp("disk") / "flights", {})
    assert set(project.built().values()) == {"SUCCESS"}
    return project


@pytest.mark.parametrize("place", ["disk", "bucket"])
def test_the_whole_story(place: str, on_disk: ProjectFolder, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    bucket: Bucket | None = request.getfixturevalue("bucket") if place == "bucket" else None
    project = copied(tmp_path / "flights", environment_of(bucket) if bucket else {})

    built = project.built()
    assert len(built) == ASSETS
    assert set(built.values()) == {"SUCCESS"}
    done = project.run("materialize")
    assert "Nothing to do" in done.out
    assert project.statuses() == dict.fromkeys(built, "FRESH")

    # What was computed does not depend on where it lies.
    assert data_versions(project) == data_versions(on_disk)
    everything = loaded(project)
    assert everything == loaded(on_disk)
    kinds = everything["planes"]
    assert len(kinds) == 6
    assert len({json.dumps(found) for found in kinds.values()}) == 1
    assert everything["report"]["flights"] == 328_521
    joined = query(
        project,
        "select count(*) as flights, count(distinct c.name) as names "
        "from flights f join delays_by_carrier c using (carrier)",
    )
    assert joined == [{"flights": 328_521, "names": 16}]

    if bucket:
        keys = bucket.keys()
        assert len(keys) == ASSETS
        assert all(key.startswith("warehouse/") for key in keys)
        assert bucket.uploads() == []
        assert not (project.path / ".headwater" / "data").exists()
        secret = bucket.options["aws_secret_access_key"].encode()
        written = [path for path in (project.path / ".headwater").rglob("*") if path.is_file()]
        assert not [path for path in written if secret in path.read_bytes()]

    # A comment: nothing is stale.
    project.edit("#: A departure this many", "#: Whatever leaves this many", CLEANED)
    assert project.statuses() == dict.fromkeys(built, "FRESH")
    assert project.built() == {}

    # Other code, the same output: that asset alone.
    project.edit('pc.is_valid(raw_planes["year"])', 'pc.field("year").is_valid()', CLEANED)
    assert project.statuses() == {**dict.fromkeys(built, "FRESH"), "planes": "STALE", "fleet_age": "STALE"}
    assert project.built() == {"planes": "SUCCESS", "fleet_age": "VERIFIED"}
    assert data_versions(project) == data_versions(on_disk)

    # Another output: what reads it, too, and nothing else.
    project.edit('pc.field("year").is_valid()', 'pc.field("year") >= 2000', CLEANED)
    assert project.built() == {"planes": "SUCCESS", "fleet_age": "SUCCESS"}
    changed = {key for key, version in data_versions(project).items() if version != data_versions(on_disk)[key]}
    assert changed == {"planes", "fleet_age"}
    assert set(project.statuses().values()) == {"FRESH"}

    versions = project.json("versions", "planes")["versions"]
    assert [version["current"] for version in versions] == [True, False, False]
    assert versions[0]["rows"] < versions[1]["rows"] == versions[2]["rows"]
    assert versions[1]["data_version"] == versions[2]["data_version"]
    assert len({version["uri"] for version in versions}) == 3
    assert query(project, "select count(*) as planes from planes") == [{"planes": versions[0]["rows"]}]


def test_another_root_is_another_place(on_disk: ProjectFolder, tmp_path: Path) -> None:
    """The very first command of a project remembers which variables its code read, too."""
    moved = ProjectFolder(on_disk.path, {"FLIGHTS_ROOT": str(tmp_path)})
    assert set(moved.statuses().values()) == {"STALE"}
    assert set(on_disk.statuses().values()) == {"FRESH"}


def test_a_bucket_that_does_not_exist(tmp_path: Path, bucket: Bucket) -> None:
    env = {**environment_of(bucket), "FLIGHTS_ROOT": f"s3://no-such-{bucket.name}/x"}
    project = copied(tmp_path / "flights", env)
    done = project.run("materialize", "raw_airlines", code=5)
    assert "does not exist" in done.err
    assert done.err.count("Create the bucket") == 1
    assert "Traceback" not in done.err, "it is no error of the user's code"
    assert project.statuses()["raw_airlines"] == "MISSING"


def test_the_demo(tmp_path: Path) -> None:
    """`make demo`: it runs through, says what its story promises, and leaves the folder that it lies in alone."""
    folder = tmp_path / "sample_data"
    shutil.copytree(SAMPLE, folder, ignore=shutil.ignore_patterns(".headwater", "__pycache__"))
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    done = subprocess.run(
        [sys.executable, str(folder / "demo.py")],
        cwd=tmp_path,
        env={**ProjectFolder(folder).environment(), "TMPDIR": str(scratch)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    parts: dict[str, str] = {}
    for text in done.stdout.split("\n# ")[1:]:
        title, _, parts[title] = text.partition("\n")
    assert parts and all("$ headwater " in text for text in parts.values())

    def part(start: str) -> str:
        (found,) = [text for title, text in parts.items() if title.startswith(start)]
        return found

    assert f"SUCCESS  {ASSETS} built" in part("Nothing was built yet")
    assert "Nothing to do" in part("A second time")
    assert part("Edit a comment").count("FRESH") == ASSETS
    assert "SUCCESS  1 built, 1 left alone" in part("Rewrite the code")
    assert "SUCCESS  9 built" in part("Count a departure")
    assert "code changed" in part("Count a departure")
    assert "Frontier Airlines" in part("The result")
    assert "Traceback" not in done.stderr
    assert "\x1b" not in done.stdout
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    assert os.listdir(scratch) == []
