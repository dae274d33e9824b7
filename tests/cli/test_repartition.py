"""`partitions --migrate`: what was built before partitions were redefined, on the command line."""

from pathlib import Path
from typing import Any

from tests.cli import test_partitions
from tests.project import Done, ProjectFolder

PROJECT = """
from datetime import datetime

import polars as pl
from headwater import DailyPartitionsDefinition, HourlyPartitionsDefinition, StaticPartitionsDefinition, asset

partitions = PARTITIONS


@asset(partitions_def=partitions, code_version="1")
def events(context) -> pl.DataFrame:
    day = context.partition_key if context.has_partition_key else "2024-01-01"
    times = [datetime.fromisoformat(f"{day}T{hour}:30") for hour in ("05", "23")]
    return pl.DataFrame({"at": times, "origin": ["JFK", "LGA"]})
"""
DAYS = 'DailyPartitionsDefinition("2024-01-01", end_date="2024-01-03")'
HOURS = 'HourlyPartitionsDefinition("2024-01-01-00:00", end_date="2024-01-03-00:00")'


class Project:
    """A project whose only asset is partitioned in another way in each of its files: a process loads a file once."""

    def __init__(self, path: Path) -> None:
        self.folder = ProjectFolder(path)
        self.folder.write('files = ["days.py"]', "headwater.toml")
        self.file = ""

    def define(self, name: str, partitions: str) -> None:
        self.file = f"{name}.py"
        self.folder.write(PROJECT.replace("PARTITIONS", partitions, 1), self.file)

    def call(self, *arguments: str, code: int = 0) -> Done:
        return test_partitions.call(self.folder, "-f", self.file, *arguments, code=code)

    def ask(self, *arguments: str) -> Any:
        return test_partitions.ask(self.folder, "-f", self.file, *arguments)


def test_migrating(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.define("days", DAYS)
    project.call("materialize", "--all-partitions")
    assert "no data outside" in project.call("partitions", "events", "--migrate", "--column", "at", code=2).err

    project.define("hours", HOURS)
    assert project.ask("partitions", "events", "--outside")["outside"] == 2
    assert "By which column" in project.call("partitions", "events", "--migrate", code=2).err
    assert "belong to --migrate" in project.call("partitions", "events", "--column", "at", code=2).err
    dry = project.call("partitions", "events", "--migrate", "--column", "at", "--dry-run")
    assert "Would make 4 partitions of 4 rows. Nothing was written." in dry.out
    assert project.ask("partitions", "events", "--counts")["counts"]["fresh"] == 0
    done = project.ask("partitions", "events", "--migrate", "--column", "at")
    assert [move["partition"] for move in done["moves"]][:2] == ["2024-01-01-05:00", "2024-01-01-23:00"]
    assert done["moves"][0]["sources"] == ["2024-01-01"]
    assert project.ask("partitions", "events", "--counts")["counts"]["fresh"] == 4
    assert project.ask("runs")["runs"][0]["run_id"] == done["run_id"]
    assert "Nothing to migrate" in project.call("partitions", "events", "--migrate", "--column", "at").out

    project.define("whole", "None")
    assert "unpartitioned; 6 partitions outside" in project.call("partitions", "events", "--outside").out
    joined = project.ask("partitions", "events", "--migrate")
    assert [(move["partition"], move["rows"]) for move in joined["moves"]] == [(None, 8)]
    assert project.ask("status")["assets"][0]["status"] == "FRESH"

    project.define("origins", 'StaticPartitionsDefinition(["JFK", "LGA"])')
    wrong = project.call("partitions", "events", "--migrate", "--rename", "2024-01-01", code=2)
    assert "--rename old=new" in wrong.err
    divided = project.ask("partitions", "events", "--migrate", "--column", "origin")
    assert {move["partition"]: move["rows"] for move in divided["moves"]} == {"JFK": 8, "LGA": 8}
