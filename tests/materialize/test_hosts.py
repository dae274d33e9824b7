"""Two hosts and one catalog: what each sees of the other's runs, who is taken for gone, and what a zombie may do."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from headwater.catalog.clock import SystemClock
from headwater.catalog.errors import ConflictError, RunOverError
from headwater.catalog.keys import AssetKey
from headwater.catalog.records import RunStatus
from headwater.catalog.storage.duckdb import open_catalog
from headwater.catalog.storage.leases import LEASE
from headwater.catalog.storage.memory import MemoryStorage
from headwater.catalog.storage.sharing.shared import SharedStorage
from headwater.tests.histories import History
from tests.project import Done, ProjectFolder
from tests.served import Served, serving

ON_HOST = Path(__file__).with_name("on_host.py")


class Hand(SystemClock):
    """A clock whose seconds a test counts."""

    seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds


@pytest.fixture(params=["memory", "duckdb", "shared"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Any, Hand]]:
    clock = Hand()
    makers: dict[str, Callable[[], Any]] = {
        "memory": lambda: MemoryStorage(clock),
        "duckdb": lambda: open_catalog(tmp_path, wait=0, clock=clock),
        "shared": lambda: SharedStorage(tmp_path, wait=0, clock=clock),
    }
    storage = makers[request.param]()
    yield storage, clock
    storage.close()


def test_a_lease_runs_out_by_the_clock_of_who_has_the_catalog(store: tuple[Any, Hand], history: History) -> None:
    storage, clock = store
    run, backfill = history.start("a"), history.backfill("a")
    clock.seconds = 100.0  # long after it was opened
    storage.append([run], by=run.run_id)
    storage.append([backfill], by=backfill.backfill_id)
    for _ in range(3):
        clock.seconds += LEASE
        assert not storage.run(run.run_id).lapsed and not storage.runs()[0].lapsed
        assert not storage.backfill(backfill.backfill_id).lapsed
        storage.append([], by=run.run_id)
        storage.append([], by=backfill.backfill_id)
    clock.seconds += LEASE + 0.001
    assert storage.run(run.run_id).lapsed and storage.runs()[0].lapsed
    assert storage.backfill(backfill.backfill_id).lapsed and storage.backfills()[0].lapsed
    storage.append([history.step(run)], by=run.run_id)
    assert not storage.run(run.run_id).lapsed, "whoever was not settled yet may go on"
    with pytest.raises(ConflictError):
        storage.append([history.finish(run, RunStatus.INTERRUPTED)], lapsed=[run.run_id])
    clock.seconds += LEASE + 0.001
    storage.append([history.finish(run, RunStatus.INTERRUPTED)], lapsed=[run.run_id])
    assert not storage.run(run.run_id).lapsed, "what has ended needs no lease"
    with pytest.raises(RunOverError):
        storage.append([history.succeed(run)], by=run.run_id)
    assert storage.current(AssetKey("a")) is None


def test_whoever_opens_the_catalog_takes_everybody_for_alive_at_first(tmp_path: Path, history: History) -> None:
    run = history.start("a")
    with open_catalog(tmp_path, wait=0) as storage:
        storage.append([run])
    clock = Hand()
    with open_catalog(tmp_path, wait=0, clock=clock) as storage:
        for seconds, lapsed in ((0.0, False), (LEASE, False), (LEASE + 0.001, True)):
            clock.seconds = seconds
            found = storage.run(run.run_id)
            assert found is not None and found.lapsed is lapsed


@dataclass
class Host:
    """A host with its own home, the project and the address of the catalog."""

    name: str
    project: ProjectFolder
    home: Path

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, str(ON_HOST), self.name, "--home", str(self.home), *arguments],
            cwd=self.project.path,
            env=self.project.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, code: int | None = 0) -> Done:
        process = self.start(*arguments)
        out, err = process.communicate(timeout=200)
        assert code is None or process.returncode == code, f"{process.returncode}\n{out}\n{err}"
        return Done(process.returncode, out, err)

    def json(self, *arguments: str) -> Any:
        return self.run(*arguments, "--json").json

    def runs(self) -> list[str]:
        return [run["status"] for run in self.json("runs")["runs"]]


SOURCE = """
    import time
    from pathlib import Path
    import headwater as hw

    @hw.asset
    def one():
        Path("begun").touch()
        while Path("hold").exists():
            time.sleep(0.01)
        return 1

    @hw.asset
    def two(one):
        return one + 1
"""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving(tmp_path / "central") as served:
        yield served


@pytest.fixture
def hosts(project: ProjectFolder, tmp_path: Path, served: Served) -> tuple[Host, Host]:
    project.write(SOURCE)
    settings = {
        "catalog": {"url": served.url, "token_file": str(served.home / "serve.token")},
        "local_artifact_storage": {"class": "LocalArtifactStorage", "config": {"base_dir": str(tmp_path / "data")}},
    }
    made: list[Host] = []
    for name in ("alpha", "beta"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "instance.yaml").write_text(json.dumps(settings))
        made.append(Host(name, project, tmp_path / name))
    return made[0], made[1]


def until(holds: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.02)


def test_what_one_host_builds_the_other_has(hosts: tuple[Host, Host], served: Served) -> None:
    alpha, beta = hosts
    alpha.run("materialize")
    assert [asset["status"] for asset in beta.json("status")["assets"]] == ["FRESH", "FRESH"]
    assert beta.runs() == ["SUCCESS"]
    run = beta.json("runs")["runs"][0]["run_id"]
    assert "alpha" in beta.run("run", "show", run).out
    assert not (beta.home / "catalog.duckdb").exists() and not (alpha.home / "catalog.duckdb").exists()
    assert "nothing" in beta.run("materialize").out.lower()
    assert "shared" in beta.run("instance", "show").err
    refused = beta.run("catalog", "backup", code=2)
    assert served.url in refused.err
    assert beta.json("catalog", "doctor")["ok"]


def test_a_run_goes_on_for_other_hosts_until_its_lease_is_over(hosts: tuple[Host, Host], served: Served) -> None:
    alpha, beta = hosts
    hold = alpha.project.path / "hold"
    hold.touch()
    process = alpha.start("materialize")
    until((alpha.project.path / "begun").exists)
    assert beta.runs() == ["STARTED"], "it has no process on this host, and goes on"
    run = beta.json("runs")["runs"][0]["run_id"]
    refused = beta.run("materialize", "--on-conflict", "fail", code=7)
    assert "alpha" in refused.err
    assert "alpha" in beta.run("run", "cancel", run, code=2).err
    assert process.poll() is None

    # A server that is killed and comes back loses nobody.
    served.stop(signal.SIGKILL)
    served.start()
    assert beta.runs() == ["STARTED"]

    process.send_signal(signal.SIGSTOP)
    until(lambda: beta.runs() == ["INTERRUPTED"])
    hold.unlink()
    beta.run("materialize")
    assert sorted(beta.runs()) == ["INTERRUPTED", "SUCCESS"]
    before = beta.json("versions", "one")

    process.send_signal(signal.SIGCONT)  # the zombie
    _, err = process.communicate(timeout=120)
    assert process.returncode == 7, err
    assert "E-RUN-OVER" in err and run in err
    assert beta.json("versions", "one") == before
    assert sorted(beta.runs()) == ["INTERRUPTED", "SUCCESS"]
    doctor = beta.json("catalog", "doctor")
    assert doctor["orphans"] == [], "it took away what it had written"


def test_a_killed_run_is_interrupted_at_once_where_it_ran(hosts: tuple[Host, Host]) -> None:
    alpha, _ = hosts
    (alpha.project.path / "hold").touch()
    process = alpha.start("materialize")
    until((alpha.project.path / "begun").exists)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert alpha.runs() == ["INTERRUPTED"]
    (alpha.project.path / "hold").unlink()
    alpha.run("materialize")
    assert sorted(alpha.runs()) == ["INTERRUPTED", "SUCCESS"]
