"""Real processes at the same time: starting in a fresh home, racing for a partition, killed while others go on."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from pathlib import Path

import pytest

import headwater as hw
from headwater.catalog.records import RunStatus
from headwater.catalog.storage.lock import holder
from tests.faults import builder
from tests.faults.building import Builder, check_home
from tests.faults.sizes import SIZES
from tests.project import ProjectFolder

pytestmark = [pytest.mark.faults, pytest.mark.timeout(0)]


@contextlib.contextmanager
def builders(count: int) -> Generator[list[Builder]]:
    with contextlib.ExitStack() as stack:
        started = [stack.enter_context(Builder()) for _ in range(count)]
        for one in started:
            one.wait_until_ready()
        yield started
        assert [one.stop() for one in started] == [0] * count


def test_processes_that_start_at_once_in_a_fresh_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each finds no catalog, or one that somebody makes, or a keeper that comes: all of them build."""
    monkeypatch.setenv("HEADWATER_KEEPER_IDLE", "0.5")
    with builders(SIZES.starting) as started:
        for turn in range(SIZES.first_starts):
            home = tmp_path / str(turn)
            for number, one in enumerate(started):
                one.tell(home, f"own{number}", f"{turn}-{number}")
            acknowledged: dict[str, str] = {}
            for one in started:
                answer = one.answer()
                assert answer is not None and answer.get("status") == "SUCCESS", answer
                acknowledged |= answer["made"]
            assert len(acknowledged) == SIZES.starting
            assert check_home(home, acknowledged) == SIZES.starting


def test_races_for_one_partition(tmp_path: Path) -> None:
    """Two processes build the same partition, neither heeding the other: one whole winner each time."""
    home, acknowledged = tmp_path / "home", dict[str, str]()
    with builders(2) as started:
        for turn in range(SIZES.races):
            how = ("supersede", "queue")[turn % 4 == 3]
            for number, one in enumerate(started):
                one.tell(home, "shared", f"{turn}-{number}", partition="a", on_conflict=how)
            made: dict[str, str] = {}
            for one in started:
                answer = one.answer()
                assert answer is not None and answer.get("status") == "SUCCESS", answer
                made |= answer["made"]
            with hw.Instance.open(home, read_only=True, wait=120) as instance:
                current = instance.catalog.current(hw.AssetKey("shared"), "a")
                assert current is not None and current.version_id in made
            acknowledged |= made
    assert check_home(home, acknowledged) == len(acknowledged) == 2 * SIZES.races


#: Processes that build.
WIDTH = 8


class Crowd:
    """Builders that go on, one after the other in each of some places, and what they were told."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.acknowledged: dict[str, str] = {}
        self.errors: list[str] = []
        self.stop = threading.Event()
        self.killed: set[int] = set()
        self._changed = threading.Condition()
        self._at_work: dict[int, Builder] = {}
        self._threads = [threading.Thread(target=self._work, args=(place,)) for place in range(WIDTH)]
        for thread in self._threads:
            thread.start()

    def wait_for_another(self) -> None:
        """Until somebody was told of something new."""
        with self._changed:
            before = len(self.acknowledged)
            assert self._changed.wait_for(lambda: len(self.acknowledged) > before or self.errors, 120)

    def kill(self, place: int) -> None:
        """`kill -9` of whoever works in a place, and somebody else comes."""
        with self._changed:
            found = self._at_work.get(place)
            if found is not None:
                self.killed.add(found.process.pid)
                found.process.kill()

    def join(self) -> None:
        self.stop.set()
        for thread in self._threads:
            thread.join()

    def _work(self, place: int) -> None:
        try:
            while not self.stop.is_set():
                with Builder() as one:
                    self._let(one, place)
        except BaseException as error:
            self.errors.append(repr(error))
            raise

    def _let(self, one: Builder, place: int) -> None:
        answer = one.answer()
        with self._changed:
            self._at_work[place] = one
        number = 0
        while answer is not None and not self.stop.is_set():
            if "error" in answer:
                self.errors.append(answer["error"])
            with self._changed:
                self.acknowledged |= answer.get("made", {})
                self._changed.notify_all()
            number += 1
            with contextlib.suppress(BrokenPipeError):
                one.tell(self.home, f"own{place}", f"{one.process.pid}-{number}")
            answer = one.answer()
        with self._changed:
            self._at_work.pop(place, None)
        if answer is None:
            if one.process.pid not in self.killed:
                self.errors.append(f"process {one.process.pid} ended by itself: {one.process.wait()}")
        elif "error" in answer:
            self.errors.append(answer["error"])
        else:
            self.acknowledged |= answer.get("made", {})
            one.stop()


@pytest.mark.skipif(not SIZES.together, reason="takes long: make faults")
def test_builders_and_keepers_are_killed_while_others_go_on(project: ProjectFolder) -> None:
    """Eight processes build, a ninth asks for the status in a loop; every few moments somebody is killed with -9."""
    chance = random.Random(4)
    project.write(builder.SOURCE)
    home = project.path / ".headwater"
    crowd = Crowd(home)
    keepers: set[int] = set()
    looks = [0]

    def look() -> None:
        while not crowd.stop.is_set():
            done = project.run("status", "--json", code=None)
            looks[0] += 1
            if done.code:
                crowd.errors.append(f"status: {done.code} {done.err}")
            else:
                json.loads(done.out)

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        began = time.monotonic()
        while not crowd.errors and (
            time.monotonic() - began < SIZES.together or len(keepers) < 3 or len(crowd.killed) < 3 or looks[0] < 3
        ):
            crowd.wait_for_another()
            time.sleep(chance.uniform(0.0, 2.0))
            found = holder(home)
            if chance.random() < 0.5:
                crowd.kill(chance.randrange(WIDTH))
            elif found is not None and found.keeper:
                keepers.add(found.pid)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(found.pid, signal.SIGKILL)
    finally:
        crowd.join()
        watcher.join()
    assert not crowd.errors
    assert check_home(home, crowd.acknowledged) >= len(crowd.acknowledged) > 10
    # Who comes next settles what the killed ones left, and nothing of it stays on the disk.
    project.run("materialize", "own0", "--force")
    with hw.Instance.open(home, read_only=True) as instance:
        assert instance.catalog.runs(statuses=[RunStatus.STARTED]) == []
        recorded = {
            made.pointer.uri.removeprefix("file://")
            for number in range(builder.ASSETS)
            for made in instance.catalog.materializations(hw.AssetKey(f"own{number}"), limit=100_000)
            if made.pointer
        }
    assert {str(path) for path in (home / "data").rglob("*") if path.is_file()} == recorded
    sys.stderr.write(
        f"{len(crowd.acknowledged)} versions, {len(keepers)} keepers and {len(crowd.killed)} builders killed, "
        f"{looks[0]} looks\n"
    )


def test_a_disk_that_is_full_while_a_run_writes(tmp_path: Path) -> None:
    """The step fails and says so, the version before is as it was, nothing is left over, and it works again."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.full_data_worker", str(tmp_path / "home")],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
