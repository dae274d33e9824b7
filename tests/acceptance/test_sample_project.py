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
ASSETS = 18
CLEANED = "flights/cleaned.py"
#: Of December: four assets by day, two by month, one by month and airport, and eleven others.
CELLS = 4 * 31 + 2 + 3 + 11

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
parts = {
    "day": load_asset("flights", partition="2013-12-31", as_type=pl.DataFrame).height,
    "days": len(load_asset("weather", partition_range="2013-12-03..2013-12-05", as_type=pd.DataFrame)),
    "last": len(load_asset("weather", partition="2013-12-31", as_type=pd.DataFrame)),
    "airport": int(load_asset("airport_months", partition="2013-12-01|JFK", as_type=pd.DataFrame)["flights"].sum()),
}
print(json.dumps({"planes": found, "parts": parts, "report": load_asset("delay_report")}))
"""


def copied(folder: Path, env: Mapping[str, str]) -> ProjectFolder:
    """The project with the last month of its year, which ends with a day without any weather."""
    shutil.copytree(SAMPLE, folder, ignore=shutil.ignore_patterns(".headwater", "__pycache__"))
    project = ProjectFolder(folder, dict(env))
    project.edit('"2013-01-01"', '"2013-12-01"', "flights/days.py")
    return project


def built(project: ProjectFolder) -> dict[str, str]:
    return project.built("--all-partitions")


def query(project: ProjectFolder, sql: str) -> list[dict[str, Any]]:
    return project.json("sql", sql)["rows"]


def data_versions(project: ProjectFolder) -> dict[tuple[str, str | None], str]:
    found = query(project, "select asset, partition, data_version from materializations where is_current")
    return {(row["asset"], row["partition"]): row["data_version"] for row in found}


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
    assert set(built(project).values()) == {"SUCCESS"}
    return project


@pytest.mark.parametrize("place", ["disk", "bucket"])
def test_the_whole_story(place: str, on_disk: ProjectFolder, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    bucket: Bucket | None = request.getfixturevalue("bucket") if place == "bucket" else None
    project = copied(tmp_path / "flights", environment_of(bucket) if bucket else {})

    assets = built(project)
    assert len(assets) == ASSETS
    assert set(assets.values()) == {"SUCCESS"}
    assert "Nothing to do" in project.run("materialize", "--all-partitions").out
    assert project.statuses() == dict.fromkeys(assets, "FRESH")

    # What was computed does not depend on where it lies.
    assert data_versions(project) == data_versions(on_disk)
    everything = loaded(project)
    assert everything == loaded(on_disk)
    kinds = everything["planes"]
    assert len(kinds) == 6
    assert len({json.dumps(found) for found in kinds.values()}) == 1
    assert everything["parts"] == {"day": 760, "days": 216, "last": 0, "airport": 8_963}
    assert everything["report"]["flights"] == 27_110
    joined = query(
        project,
        "select count(*) as flights, count(distinct c.name) as names "
        "from flights f join delays_by_carrier c using (carrier)",
    )
    assert joined == [{"flights": 27_110, "names": 15}]

    if bucket:
        keys = bucket.keys()
        assert len(keys) == CELLS
        assert all(key.startswith("warehouse/") for key in keys)
        assert bucket.uploads() == []
        assert not (project.path / ".headwater" / "data").exists()
        secret = bucket.options["aws_secret_access_key"].encode()
        written = [path for path in (project.path / ".headwater").rglob("*") if path.is_file()]
        assert not [path for path in written if secret in path.read_bytes()]

    # A comment: nothing is stale.
    project.edit("#: A departure this many", "#: Whatever leaves this many", CLEANED)
    assert project.statuses() == dict.fromkeys(assets, "FRESH")
    assert built(project) == {}

    # Other code, the same output: that asset alone.
    project.edit('pc.is_valid(raw_planes["year"])', 'pc.field("year").is_valid()', CLEANED)
    assert project.statuses() == {**dict.fromkeys(assets, "FRESH"), "planes": "STALE", "fleet_age": "STALE"}
    assert built(project) == {"planes": "SUCCESS", "fleet_age": "VERIFIED"}
    assert data_versions(project) == data_versions(on_disk)

    # Another output: what reads it, too, and nothing else.
    project.edit('pc.field("year").is_valid()', 'pc.field("year") >= 2000', CLEANED)
    assert built(project) == {"planes": "SUCCESS", "fleet_age": "SUCCESS"}
    before = data_versions(on_disk)
    changed = {cell for cell, version in data_versions(project).items() if version != before[cell]}
    assert changed == {("planes", None), ("fleet_age", None)}
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
    # A year of two months is told in half the time.
    ProjectFolder(folder).edit('"2014-01-01"', '"2013-03-01"', "flights/days.py")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    elsewhere = {"TMPDIR": scratch, "HEADWATER_HOME": tmp_path / "home", "FLIGHTS_ROOT": tmp_path / "root"}
    done = subprocess.run(
        [sys.executable, str(folder / "demo.py")],
        cwd=tmp_path,
        env={**ProjectFolder(folder).environment(), **{name: str(path) for name, path in elsewhere.items()}},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    parts: dict[str, str] = {}
    for text in done.stdout.split("\n# ")[1:]:
        title, _, rest = text.partition("\n")
        parts[title] = rest
    assert parts and all("$ headwater " in text for text in parts.values())

    def part(start: str) -> str:
        (found,) = [text for title, text in parts.items() if title.startswith(start)]
        return found

    month = part("Nothing was built yet")
    assert "SUCCESS  125 built" in month
    assert "31 of 59 fresh, 28 missing" in month
    assert f"2013-01  {'█' * 31}\n2013-02  {'·' * 28}\n" in month
    assert part("Backfill what is missing").count("132 of 132") == 2
    assert "Nothing to do" in part("A second time")
    assert part("Read one day again").count("FRESH") == ASSETS
    assert part("Edit a comment").count("FRESH") == ASSETS
    assert "SUCCESS  1 built, 1 left alone" in part("Rewrite the code")
    assert "SUCCESS  75 built, 1 left alone" in part("Count a departure")
    assert "= fleet_age" in done.stderr
    assert "code changed" in part("Count a departure")
    assert "Frontier Airlines" in part("The result")
    assert "50173    10.405" in part("The result"), "as without partitions"
    assert "Traceback" not in done.stderr
    assert "\x1b" not in done.stdout
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    assert os.listdir(scratch) == []
    assert sorted(os.listdir(tmp_path)) == ["sample_data", "scratch"]
