"""A command pays only for the libraries that it needs: which ones are loaded, not how long that takes."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import headwater
import headwater.io
from tests.project import ProjectFolder

#: What every command stands on. msgspec brings typing_extensions where it is installed.
LIGHT = {"click", "headwater", "msgspec", "typing_extensions"}

#: A project over the heavy libraries, whose definitions need not be loaded to look at it.
PROJECT = """
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
from headwater import asset

@asset(owners=["team:x"])
def orders() -> pl.DataFrame:
    print("selling")
    return pl.DataFrame({"id": [1, 2]})

@asset
def report(orders: pd.DataFrame) -> pa.Table:
    return pa.Table.from_pandas(orders)
"""

#: Prints the packages that are loaded beyond Python's own and those that were there at the start.
FOUND = """
def found():
    names = {name.partition(".")[0] for name in sys.modules.keys() - before}
    return sorted(name for name in names - sys.stdlib_module_names if not name.startswith("_sysconfigdata"))
"""


#: What counts partitions, or reads millions of them: imported where somebody asks for keys.
NUMERIC = {
    f"headwater.catalog.partitions.{name}"
    for name in ("boxes", "intervals", "key_arrays", "links", "series", "space", "subset")
} | {
    *(
        f"headwater.materialize.automation.conditions.{name}"
        for name in ("catalog_facts", "evaluator", "explaining", "facts", "moments", "rules")
    ),
    "headwater.catalog.storage.duckdb.arrays",
    "headwater.materialize.cell_table",
    "headwater.materialize.heat_map",
    "headwater.materialize.partition_staleness",
}


def loaded(code: str, *, cwd: Path | None = None, env: dict[str, str] | None = None) -> Any:
    """What `code`, run by a new Python, leaves in `answer`; `found()` gives the packages loaded until then."""
    text = f"import json, sys\nbefore = set(sys.modules)\n{FOUND}\n{code}\nprint(json.dumps(answer), file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", text], cwd=cwd, env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stderr.splitlines()[-1])


def test_importing_headwater() -> None:
    assert loaded("import headwater\nanswer = found()") == ["headwater"]


def test_importing_every_module() -> None:
    code = """
import importlib, pkgutil
for name in ("headwater.catalog", "headwater.io", "headwater.materialize", "headwater.cli"):
    for module in pkgutil.walk_packages(importlib.import_module(name).__path__, f"{name}."):
        if module.name not in NUMERIC:
            importlib.import_module(module.name)
answer = found()
"""
    assert set(loaded(f"NUMERIC = {NUMERIC!r}\n{code}")) <= LIGHT


def test_defining_partitions() -> None:
    """Numbers of them are for whoever counts."""
    code = """
import headwater as P

day = P.DailyPartitionsDefinition("2013-01-01", timezone="Europe/London")
both = P.MultiPartitionsDefinition({"day": day, "origin": P.StaticPartitionsDefinition(["EWR", "JFK"])})
flights = P.asset(lambda: 1, name="flights", partitions_def=day)
delays = P.asset(lambda flights: 1, name="delays", partitions_def=both, backfill_policy=P.BackfillPolicy.single_run())
graph = P.Definitions([flights, delays]).graph
assert [node.partitions_def for node in graph] == [day, both]
assert graph.find("delays").deps[0].partition_mapping == P.MultiToSingleDimensionPartitionMapping()
answer = found()
"""
    assert set(loaded(code)) <= LIGHT


def test_making_io_managers() -> None:
    code = """
from pathlib import Path
from headwater import FileIOManager, InMemoryIOManager, JsonIOManager, ParquetIOManager, PickleIOManager
remote = ParquetIOManager("s3://bucket/x")
for manager in (FileIOManager(), remote, JsonIOManager(), PickleIOManager(), InMemoryIOManager()):
    manager.bind(Path("/nonexistent"))
    manager.fingerprint()
answer = found()
"""
    assert set(loaded(code)) <= LIGHT


@pytest.mark.parametrize("package", [headwater, headwater.io])
def test_public_names(package: Any) -> None:
    for name in package.__all__:
        assert getattr(package, name) is not None
    with pytest.raises(AttributeError, match="nonsense"):
        _ = package.nonsense


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> ProjectFolder:
    """A project that is built, and whose definitions are remembered."""
    project = ProjectFolder(tmp_path_factory.mktemp("warm"))
    project.write('files = ["assets.py"]', "headwater.toml")
    project.write(PROJECT)
    project.run("materialize")
    return project


def commands(project: ProjectFolder, *every: Sequence[str]) -> dict[str, list[str]]:
    """Run commands one after the other in one new process: the packages that are loaded after each."""
    code = f"""
from headwater.cli.main import main
answer = {{}}
for arguments in {[list(one) for one in every]!r}:
    try:
        main(arguments)
    except SystemExit as end:
        assert not end.code, arguments
    answer[" ".join(arguments)] = found()
"""
    return loaded(code, cwd=project.path, env=project.environment())


def test_commands_that_need_no_catalog(warm: ProjectFolder) -> None:
    found = commands(
        warm,
        ["--version"],
        ["--help"],
        ["materialize", "--help"],
        ["completion", "bash"],
        ["ls"],
        ["ls", "+report", "--json"],
        ["lineage"],
    )
    assert {name: packages for name, packages in found.items() if not set(packages) <= LIGHT} == {}


def test_commands_that_read_the_catalog(warm: ProjectFolder) -> None:
    """And those that find nothing to do."""
    run = warm.json("runs")["runs"][0]["run_id"]
    found = commands(
        warm,
        ["status"],
        ["why", "report"],
        ["show", "orders"],
        ["search", "orders"],
        ["lineage", "report"],
        ["ls", "stale:"],
        ["runs"],
        ["run", "show", run],
        ["logs", run],
        ["events"],
        ["versions", "orders"],
        ["plan"],
        ["plan", "--json"],
        ["materialize"],
        ["sql", "select * from materializations"],
    )
    light = LIGHT | {"duckdb", "_duckdb"}
    assert {name: packages for name, packages in found.items() if not set(packages) <= light} == {}
