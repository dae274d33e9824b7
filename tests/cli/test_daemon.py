"""The daemon as a process: told to stop, killed, waited for, and with definitions that change."""

import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.project import ProjectFolder

ASSETS = """
import pathlib
from headwater import Definitions, ScheduleDefinition, asset, define_asset_job

@asset
def orders() -> int:
    with (pathlib.Path(__file__).parent / "built").open("a") as file:
        file.write("x")
    return 1

job = define_asset_job("job", "orders")
often = ScheduleDefinition(job, "0 0 1 1 *", "yearly", execution_timezone="UTC", default_status="RUNNING")
definitions = Definitions([orders], schedules=[often])
"""


def until(condition: Callable[[], bool], *processes: "subprocess.Popen[str]", seconds: float = 120) -> None:
    """Wait for something, which processes that end do not do any more."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        for process in processes:
            assert process.poll() is None, process.communicate()
        time.sleep(0.02)


class Listener:
    """What a service manager hears."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.settimeout(120)

    def hear(self, wanted: str) -> str:
        """The first message that says this."""
        while wanted not in (said := self._socket.recv(4096).decode()):
            pass
        return said

    def close(self) -> None:
        self._socket.close()


Start = Callable[..., "tuple[subprocess.Popen[str], Listener]"]


@pytest.fixture
def start(project: ProjectFolder, tmp_path: Path) -> Iterator[Start]:
    """Starts a command under a service manager; what it prints is in NAME.log."""
    listeners: list[Listener] = []

    def start(name: str, *arguments: str) -> "tuple[subprocess.Popen[str], Listener]":
        listeners.append(Listener(tmp_path / name))
        with (tmp_path / f"{name}.log").open("w") as log:
            project.env |= {"NOTIFY_SOCKET": str(tmp_path / name), "WATCHDOG_USEC": "5000000"}
            process = project.start(*arguments, stdout=log, stderr=log)
            project.env.clear()
        return process, listeners[-1]

    yield start
    for listener in listeners:
        listener.close()


def test_one_goes_on_another_stands_by_and_takes_over(project: ProjectFolder, start: Start, tmp_path: Path) -> None:
    project.write(ASSETS)
    assert project.json("daemon", "--check", code=1)["reason"] == "no daemon was ever started"
    first, service = start("first", "daemon", "--metrics-port", "0")
    service.hear("READY=1")
    service.hear("WATCHDOG=1")
    refused = project.run("daemon", code=7)
    assert f"process {first.pid} on {socket.gethostname()}" in refused.err and "--standby" in refused.err
    alive = project.json("daemon", "--check")
    assert (alive["alive"], alive["reason"], alive["daemon"]["pid"]) == (True, None, first.pid)

    # What somebody else puts into the queue is carried out by a process that the daemon starts.
    project.write(
        """
        from headwater import Instance
        from headwater.catalog.processes import this_host
        from headwater.materialize.automation.requesting import requested_run
        from headwater import RunRequest
        from headwater.materialize.code_location import load_definitions
        from headwater.materialize.project import find_project
        project = find_project()
        definitions = load_definitions(project)
        with Instance.open(project.home) as instance:
            run = requested_run(instance, definitions, project.origin, RunRequest(), job=definitions.job("job"),
                                config={}, tags={}, about={})
            instance.catalog.append([run])
        """,
        "ask.py",
    )
    subprocess.run([sys.executable, "ask.py"], cwd=project.path, env=project.environment(), check=True)
    until((project.path / "built").exists, first)

    url = re.findall(r"http://\S+/metrics", (tmp_path / "first.log").read_text())[0]
    with urllib.request.urlopen(url) as answer:
        served = answer.read().decode()
    for shown in (served, project.run("daemon", "--metrics").out):
        assert "headwater_daemon_up 1\n" in shown and "# TYPE headwater_runs gauge\n" in shown
        assert 'headwater_runs{status="CANCELED"} 0\n' in shown
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(url + "s")

    second, standby = start("second", "daemon", "--standby")
    standby.hear("STATUS=It stands by.")
    first.kill()
    standby.hear("STATUS=It is the daemon.")
    assert project.json("daemon", "--check")["daemon"]["epoch"] == 2
    second.send_signal(signal.SIGTERM)
    standby.hear("STOPPING=1")
    assert second.wait(60) == 0
    found = project.json("daemon", "--check", code=1)
    assert found["reason"].startswith(f"process {second.pid} on ") and "stopped at" in found["reason"]
    kinds = [event["kind"] for event in project.json("events")["events"]]
    assert [kind for kind in kinds if kind.startswith("DAEMON")] == ["DAEMON_START", "DAEMON_START", "DAEMON_STOP"]


def test_definitions_that_change_are_loaded_again_and_broken_ones_are_not(
    project: ProjectFolder, start: Start, tmp_path: Path
) -> None:
    source = ASSETS + "\nprint('loaded', 1)\n"
    project.write(source.replace("asset\n", "asset(\n", 1))
    log = tmp_path / "dev.log"
    process, service = start("dev", "dev")
    service.hear("READY=1")
    assert "SyntaxError" in log.read_text() and "nothing is evaluated" in log.read_text()
    project.write(source)
    until(lambda: "loaded 1" in log.read_text(), process)
    service.hear("READY=1")
    project.edit("'loaded', 1", "'loaded', 1 / 0")
    until(lambda: "those from before stay in effect" in log.read_text(), process)
    assert "ZeroDivisionError" in log.read_text()
    assert project.json("daemon", "--check")["daemon"]["pid"] == process.pid
    project.edit("'loaded', 1 / 0", "'loaded', 2")
    service.hear("RELOADING=1")
    service.hear("READY=1")
    assert "loaded 2" in log.read_text()
    project.run("materialize")
    until(lambda: "SUCCESS" in log.read_text(), process)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0
