"""Two builders of the same partition at the same time: one whole winner, and a record that tells of it."""

import subprocess
import sys
import threading
from pathlib import Path

import polars as pl
import pytest

import headwater
from headwater import AssetKey, Definitions, StaticPartitionsDefinition, asset
from headwater.catalog.definitions.asset import AssetsDefinition
from headwater.catalog.errors import BusyError
from headwater.catalog.instance import Instance
from headwater.catalog.records import RunStatus
from headwater.materialize.api import RunResult

ROWS = 1000
CELL = AssetKey("letters")

#: Builds the partition `b` with its name in every row; says when it computes, and goes on when it is told to.
WORKER = """
import os
import sys
from pathlib import Path
import polars as pl
import headwater
from headwater import Definitions, Instance, StaticPartitionsDefinition, asset

home, name, rows = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
terminal = os.dup(1)  # what a step prints is captured

@asset(code_version="1", partitions_def=StaticPartitionsDefinition(["a", "b"]))
def letters() -> pl.DataFrame:
    os.write(terminal, b"computing\\n")
    sys.__stdin__.readline()
    return pl.DataFrame({"who": [name] * rows})

with Instance.open(home, wait=120) as instance:
    headwater.materialize(Definitions([letters]), instance=instance, partition_key="b", force=True)
"""


def read(instance: Instance, definitions: Definitions) -> str:
    """Who wrote the current version: all of its rows say so, and its record has as many, of the same content."""
    made = instance.catalog.current(CELL, "b")
    assert made is not None and made.pointer is not None
    assert made.pointer.rows == ROWS
    frame = headwater.load_asset(CELL, as_type=pl.DataFrame, partition="b", instance=instance, definitions=definitions)
    (who,) = frame["who"].unique().to_list()
    assert len(frame) == ROWS
    return str(who)


@asset(code_version="1", partitions_def=StaticPartitionsDefinition(["a", "b"]))
def letters() -> pl.DataFrame:
    return pl.DataFrame({"who": ["nobody"] * ROWS})


def test_a_process_waits_for_another_that_builds_or_is_told_that_it_is_busy(tmp_path: Path) -> None:
    home = tmp_path / "home"
    Instance.open(home).close()

    def start(name: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", WORKER, str(home), name, str(ROWS)]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    processes = [start("first")]
    try:
        assert processes[0].stdout is not None and "computing" in processes[0].stdout.readline()
        with pytest.raises(BusyError, match=str(processes[0].pid)) as caught:
            Instance.open(home, wait=0)
        assert caught.value.remedy
        processes.append(start("second"))  # it waits
        for process in processes:
            process.communicate("go\n")
        assert [process.returncode for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    with Instance.open(home) as instance:
        assert [run.status for run in instance.catalog.runs()] == [RunStatus.SUCCESS] * 2
        assert read(instance, Definitions([letters])) == "second"


@pytest.mark.parametrize("durable", [False, True])
def test_two_threads_build_one_partition(tmp_path: Path, durable: bool) -> None:
    barrier, computing = threading.Barrier(2, timeout=60), threading.Event()

    def build(name: str) -> AssetsDefinition:
        @asset(name="letters", code_version="1", partitions_def=StaticPartitionsDefinition(["a", "b"]))
        def compute() -> pl.DataFrame:
            computing.set()
            barrier.wait()
            return pl.DataFrame({"who": [name] * ROWS})

        return compute

    instance = Instance.open(tmp_path / "home") if durable else Instance.ephemeral()
    with instance:
        results: list[RunResult] = []

        def run(name: str) -> None:
            assets = Definitions([build(name)])
            made = headwater.materialize(assets, instance=instance, partition_key="b", on_conflict="supersede")
            results.append(made)

        threads = [threading.Thread(target=run, args=(name,)) for name in ("first", "second")]
        threads[0].start()
        assert computing.wait(60)
        threads[1].start()  # it finds a run that goes on, and leaves it alone
        for thread in threads:
            thread.join()
        assert [result.success for result in results] == [True, True]
        made = {m.version_id: m for result in results for m in result.materializations}
        assert len(made) == 2
        current = instance.catalog.current(CELL, "b")
        assert current is not None
        winner = made[current.version_id]
        assert current.pointer == winner.pointer
        assert current.data_version == winner.data_version
        assert read(instance, Definitions([letters])) in ("first", "second")
        # The other version is whole as well, and known as an earlier one.
        versions = [m.version_id for m in instance.catalog.materializations(CELL, partition="b")]
        assert sorted(versions) == sorted(made)
        assert versions[0] == current.version_id
        assert [run.status for run in instance.catalog.runs()] == [RunStatus.SUCCESS] * 2
