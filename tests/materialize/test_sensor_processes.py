"""Sensors in processes of their own: what they can do, and that none of them harms or delays another."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest

from headwater import Definitions, Instance
from headwater.catalog.events import TickEnded
from headwater.materialize.automation.evaluators import KEPT_PRINTED, Evaluators, SensorProcesses, open_evaluators
from headwater.materialize.automation.sensor_logs import MAX_BYTES, keep_printed, log_file
from headwater.materialize.automation.sensors import tick
from headwater.materialize.code_location import load_definitions
from headwater.materialize.project import Project
from tests.project import ProjectFolder

ORIGIN = {"folder": "/project", "files": ["/project/assets.py"], "modules": []}
START = datetime(2024, 3, 10, tzinfo=UTC)

SOURCE = """
    import os, pathlib, sys, time
    import headwater as hw

    here = pathlib.Path(__file__).parent
    with (here / "loaded").open("a") as file:
        file.write("x")

    @hw.asset
    def orders() -> int:
        return 1

    job = hw.define_asset_job("nightly", "orders")
    sensor = lambda **settings: hw.sensor(job=job, default_status="RUNNING", **settings)

    class Bucket(hw.ConfigurableResource):
        key: str

        def setup_for_execution(self, context):
            self.ready = True
"""
ENDINGS = """
    definitions = hw.Definitions(
        [orders],
        resources={"bucket": Bucket(key=hw.EnvVar("SENSOR_KEY"))},
        sensors=[one for one in list(globals().values()) if isinstance(one, hw.SensorDefinition)],
    )
"""


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[Instance]:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "instance.toml").write_text("[sensors]\nuse_threads = true\nnum_workers = 1\n", "utf-8")
    with Instance.open(tmp_path / "home") as opened:
        yield opened


@pytest.fixture
def load(project: ProjectFolder) -> Iterator[Callable[[str], Definitions]]:
    """Loads a source file as a project, and lets this process forget it afterwards."""
    path, modules = list(sys.path), set(sys.modules)

    def load_source(source: str) -> Definitions:
        file = project.write(SOURCE + source + ENDINGS)
        return load_definitions(Project(root=project.path, home=project.path / "home", files=(file,)))

    yield load_source
    sys.path[:] = path
    for name in sys.modules.keys() - modules:
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(project.path)):
            del sys.modules[name]


class Rounds:
    """Rounds of a process that keeps its evaluators open."""

    def __init__(self, instance: Instance, definitions: Definitions, evaluators: Evaluators) -> None:
        self.instance, self.definitions, self.evaluators = instance, definitions, evaluators
        self.now = START

    def until(self, *names: str, minutes: float = 0) -> dict[str, TickEnded]:
        """Go round until each of these had a tick; later by so many minutes."""
        self.now += timedelta(minutes=minutes)
        found: dict[str, TickEnded] = {}
        deadline = time.monotonic() + 120
        while not found.keys() >= set(names):
            assert time.monotonic() < deadline
            done = tick(self.instance, self.definitions, ORIGIN, self.now, self.evaluators)
            assert found.keys().isdisjoint(one.name for one in done)
            found |= {one.name: one for one in done}
        return found


def gone(process: int) -> bool:
    return not psutil.pid_exists(process) or psutil.Process(process).status() == psutil.STATUS_ZOMBIE


def test_processes_stay_and_none_that_hangs_dies_or_prints_harms_another(
    load: Callable[[str], Definitions],
    instance: Instance,
    project: ProjectFolder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SENSOR_KEY", "hunter22")
    definitions = load("""
    @sensor(timeout_seconds=3600)
    def hangs():
        print("going to hang", os.getpid())
        (here / "hangs").write_text(str(os.getpid()))
        time.sleep(3600)

    @sensor(timeout_seconds=0.2)
    def is_killed():
        print("before it was killed")
        time.sleep(3600)

    @sensor()
    def dies():
        os.write(2, b"last words\\n")
        os.kill(os.getpid(), 9)

    @sensor()
    def leaves():
        sys.exit(3)

    @sensor()
    def is_well(context, bucket: Bucket):
        assert bucket.ready
        print("the key is", bucket.key)
        context.log.info("logged")
        known = context.instance.catalog.automations().get("is_well")
        cursor = f"{known and known.cursor}, {os.getpid()}"
        return hw.SensorResult([hw.RunRequest(run_config={"ops": {}})], cursor=cursor)
    """)
    with open_evaluators(instance, definitions) as evaluators:
        assert isinstance(evaluators, SensorProcesses)
        rounds = Rounds(instance, definitions, evaluators)
        # With room for one at a time, and one that hangs first.
        done = rounds.until("is_killed", "dies", "leaves", "is_well")
        assert evaluators.under_way.keys() == {"hangs"}
        errors = {name: one.error.message for name, one in done.items() if one.error is not None}
        assert errors == {
            "is_killed": "The sensor `is_killed` did not end within 0.2 s, and was killed.",
            "dies": "The process that evaluated the sensor `dies` was killed by SIGKILL.",
            "leaves": "SystemExit(3)",
        }
        said, process = str(done["is_well"].cursor).split(", ")
        assert (said, process != str(os.getpid())) == ("None", True)
        again = rounds.until("is_well", minutes=0.5)
        assert str(again["is_well"].cursor).startswith(f"{said}, {process}, ")
        assert len(instance.catalog.runs()) == 2
        hanging = int((project.path / "hangs").read_text())
        assert not gone(hanging)
    assert gone(hanging) and gone(int(process))
    for name, text in (("is_killed", "before it was killed"), ("dies", "last words")):
        assert text in log_file(instance.home, name).read_text()
    printed = log_file(instance.home, "is_well").read_text()
    assert "the key is env:SENSOR_KEY" in printed and "hunter22" not in printed
    assert "INFO headwater.sensors.is_well: logged" in printed
    assert not log_file(instance.home, "leaves").exists()


def test_definitions_are_loaded_once_and_where_they_cannot_be_sensors_say_why(
    load: Callable[[str], Definitions],
    instance: Instance,
    project: ProjectFolder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("headwater.materialize.automation.evaluators.SLOW", 3600.0)
    definitions = load("""
    for number in range(20):
        globals()[f"s{number}"] = sensor(name=f"s{number}")(lambda: hw.SkipReason("x" * 100_000))
    """)
    (project.path / "loaded").unlink()
    ticks = tick(instance, definitions, ORIGIN, START)  # in processes of this round
    assert len(ticks) == 20 and {one.status for one in ticks} == {"SKIPPED"}
    assert (project.path / "loaded").read_text() == "x"
    project.edit("import os,", "import absent, os,")
    ticks = tick(instance, definitions, ORIGIN, START + timedelta(minutes=1))
    assert {one.status for one in ticks} == {"FAILURE"} and len(ticks) == 20
    assert ticks[0].error is not None and "No module named 'absent'" in ticks[0].error.message


def test_what_is_printed_is_bounded(
    load: Callable[[str], Definitions], instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headwater.materialize.automation.evaluators.MAX_PRINTED", 1 << 20)
    definitions = load("""
    @sensor()
    def says_much():
        print("first", "x" * 500_000, "last")

    @sensor()
    def never_stops():
        while True:
            print("y" * 1000)
    """)
    done = {one.name: one for one in tick(instance, definitions, ORIGIN, START)}
    assert done["says_much"].status == "SKIPPED"
    error = done["never_stops"].error
    assert error is not None and error.message == "The sensor `never_stops` printed more than 1 MiB, and was killed."
    text = log_file(instance.home, "says_much").read_text()
    assert KEPT_PRINTED < len(text) < KEPT_PRINTED + 200
    assert "first" in text and "bytes left out" in text and text.endswith("last\n")


def test_what_was_printed_long_ago_goes(tmp_path: Path) -> None:
    for number in range(100):
        keep_printed(tmp_path, "s", START, f"{number} {'x' * (MAX_BYTES // 20)}")
    (folder,) = (tmp_path / "logs").iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["s.log", "s.log.1"]
    assert all(path.stat().st_size < 1.1 * MAX_BYTES for path in folder.iterdir())
    assert "\n99 xx" in log_file(tmp_path, "s").read_text()
