"""The daemon, look by look: who has the place, when it goes a round, and what goes wrong."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from headwater import Definitions, Instance, ScheduleDefinition, asset, define_asset_job, sensor
from headwater.catalog.errors import BusyError, CatalogError, RunOverError
from headwater.catalog.events import BackfillStarted, RunEnded, RunQueued, RunStarted, TickEnded
from headwater.catalog.ids import new_id
from headwater.catalog.keys import AssetKey
from headwater.catalog.processes import start_ticks, this_host
from headwater.catalog.records import AutomationStatus, BackfillTarget, Run, RunStatus, TickStatus
from headwater.catalog.storage.leases import LEASE
from headwater.catalog.storage.memory import MemoryStorage
from headwater.materialize import launching
from headwater.materialize.automation import backfills
from headwater.materialize.automation.conditions.tick import NAME as CONDITIONS
from headwater.materialize.automation.daemon import FIRST_PAUSE, LOOK, PACE, TIDY, Daemon
from headwater.materialize.automation.leadership import Candidate, Waiting, goes_on, take, trouble
from headwater.materialize.automation.metrics import Gauge, text
from headwater.materialize.automation.reloading import Watch, python_files
from headwater.materialize.automation.retention import purge
from headwater.materialize.automation.schedules import AT
from headwater.materialize.automation.standing import move

START = datetime(2024, 3, 10, 0, 0, 30, tzinfo=UTC)
ORIGIN = {"folder": "/project", "files": ["/project/assets.py"], "modules": []}
NEAR, FAR, FARTHER = Candidate.this(), Candidate("far", 7, 1), Candidate("farther", 7, 1)


class SteppedClock:
    """A clock that is moved by hand; `shift` is what somebody set it by."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.shift = timedelta()

    def now(self) -> datetime:
        return START + timedelta(seconds=self.seconds) + self.shift

    def monotonic(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock()


@pytest.fixture
def instance(clock: SteppedClock, tmp_path: Path) -> Iterator[Instance]:
    with Instance(tmp_path, MemoryStorage(clock), clock) as found:
        yield found


@pytest.fixture
def spawned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of processes that would have been started; each is over at once."""
    names: list[str] = []

    class Ended:
        pid = 4321

        def poll(self) -> int:
            return 0

    def spawn(home: Path, origin: Any, arguments: Any, name: str) -> Ended:
        names.append(name)
        return Ended()

    monkeypatch.setattr(launching, "spawn", spawn)
    return names


@asset
def orders() -> int:
    return 1


JOB = define_asset_job("job", "orders")
HOURLY = ScheduleDefinition(JOB, "0 * * * *", "hourly", default_status="RUNNING")


def daemon_of(
    instance: Instance, *schedules: ScheduleDefinition, broken: bool = False, told: list[str] | None = None
) -> Daemon:
    definitions = None if broken else Definitions([orders], schedules=schedules)
    said = [] if told is None else told
    return Daemon(take(instance, FAR), definitions, ORIGIN, tell=said.append)


def live(daemon: Daemon, clock: SteppedClock, seconds: float) -> int:
    """Look and sleep for so long; returns how often it looked."""
    until, looks = clock.seconds + seconds, 0
    while clock.seconds < until:
        clock.seconds += daemon.look()
        looks += 1
    return looks


def queue(instance: Instance) -> str:
    run = RunQueued(
        time=instance.clock.now(), run_id=new_id(instance.clock.now()), host=this_host(), request={"origin": ORIGIN}
    )
    instance.catalog.append([run])
    return run.run_id


def test_one_at_a_time_is_the_daemon(instance: Instance, clock: SteppedClock) -> None:
    place = take(instance, FAR)
    clock.seconds += LEASE
    with pytest.raises(BusyError, match="process 7 on far"):
        take(instance, FARTHER)
    waiting = Waiting(instance, FARTHER)
    assert waiting.look() is None
    place.beat()
    clock.seconds += LEASE
    assert waiting.look() is None
    clock.seconds += 3
    taken = waiting.look()
    assert taken is not None and taken.epoch == 2
    # Who was asleep does nothing any more, and gives back nothing.
    for late in (place.beat, place.give_back, lambda: place.instance.catalog.append([])):
        with pytest.raises(RunOverError):
            late()
    taken.beat()
    taken.give_back()
    assert take(instance, FAR).epoch == 3


def test_of_the_same_host_the_process_is_looked_at_and_no_lease(instance: Instance, clock: SteppedClock) -> None:
    gone = Candidate(this_host(), NEAR.pid, (start_ticks(NEAR.pid) or 0) + 1)  # its number was given out again
    take(instance, gone)
    assert "died" in str(trouble(instance.catalog.daemon()))
    place = take(instance, NEAR)
    clock.seconds += 10 * LEASE
    found = instance.catalog.daemon()
    assert found is not None and goes_on(found, gone)
    assert "no sign of life for 300 seconds" in str(trouble(found))
    with pytest.raises(BusyError):
        take(instance, gone)
    place.beat()
    assert trouble(instance.catalog.daemon()) is None
    # The same process again, as when it began anew: that is nobody else.
    assert take(instance, NEAR).epoch == 3
    assert trouble(None) == "no daemon was ever started"


def test_what_is_due_is_evaluated_at_its_instant(instance: Instance, clock: SteppedClock, spawned: list[str]) -> None:
    daemon = daemon_of(instance, HOURLY)
    live(daemon, clock, 3 * 3600)
    ticks = instance.catalog.ticks()
    hours = [START.replace(hour=hour, minute=0, second=0) for hour in (3, 2, 1, 0)]
    assert [tick.at for tick in ticks if tick.instants == 1][:3] == hours[:3]
    assert all((tick.evaluated - tick.at) < timedelta(milliseconds=1) for tick in ticks[:3])
    runs = [run.run_id for run in instance.catalog.runs() if run.tags[AT] != hours[3].isoformat()]
    assert {name for name in spawned if name in runs} == set(runs)


def test_a_clock_that_is_set_changes_nothing_but_when(
    instance: Instance, clock: SteppedClock, spawned: list[str]
) -> None:
    daemon = daemon_of(instance, HOURLY)
    live(daemon, clock, 3600)
    clock.shift = -timedelta(hours=1)
    live(daemon, clock, 1800)
    assert len([tick for tick in instance.catalog.ticks() if tick.at > START]) == 1
    clock.shift = timedelta(hours=2)
    live(daemon, clock, 1)
    assert [(tick.at.hour, tick.status) for tick in instance.catalog.ticks()][:2] == [(3, "SUCCESS"), (2, "SKIPPED")]


def test_what_others_queue_is_started_soon_and_once(
    instance: Instance, clock: SteppedClock, spawned: list[str]
) -> None:
    daemon = daemon_of(instance)
    live(daemon, clock, 60)
    run_id = queue(instance)
    live(daemon, clock, PACE)
    assert spawned == [run_id]
    live(daemon, clock, launching.Started.PAUSE - 1)
    assert spawned == [run_id]  # its process may be about to take it
    live(daemon, clock, TIDY + 2)
    assert spawned == [run_id] * 2  # and it ended without


def test_nothing_is_read_while_nothing_happens(
    instance: Instance, clock: SteppedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = daemon_of(instance, HOURLY)
    live(daemon, clock, 60)
    asked: list[None] = []

    def runs(**_: Any) -> list[Run]:
        asked.append(None)
        return []

    monkeypatch.setattr(instance.catalog, "runs", runs)
    looks = live(daemon, clock, 60)
    assert looks == pytest.approx(60 / LOOK, abs=2)
    rounds = len(asked) / 2  # each asks for those to settle and those to start
    assert rounds == pytest.approx(60 / TIDY, abs=1)


def test_a_round_that_fails_is_told_and_tried_again(
    instance: Instance, clock: SteppedClock, monkeypatch: pytest.MonkeyPatch, spawned: list[str]
) -> None:
    told: list[str] = []
    daemon = daemon_of(instance, HOURLY, told=told)

    def broken(**_: Any) -> list[Run]:
        raise ZeroDivisionError

    def away(**_: Any) -> list[Run]:
        raise CatalogError("It is away.")

    with monkeypatch.context() as patch:
        patch.setattr(instance.catalog, "runs", broken)
        pauses = [daemon.look() for _ in range(3)]
        for pause in pauses:
            clock.seconds += pause
        patch.setattr(instance.catalog, "runs", away)
        clock.seconds += TIDY
        daemon.look()
    assert pauses[0] == FIRST_PAUSE
    assert "ZeroDivisionError" in told[0] and "Trying again in 1 seconds." in told[0]
    assert told[-1].startswith("It is away.")
    live(daemon, clock, 3600)
    assert instance.catalog.ticks()[0].status == "SUCCESS"
    count = len(told)
    live(daemon, clock, 60)
    assert len(told) == count


def test_without_definitions_the_queue_goes_on(instance: Instance, clock: SteppedClock, spawned: list[str]) -> None:
    daemon = daemon_of(instance, broken=True)
    run_id = queue(instance)
    live(daemon, clock, 1)
    assert spawned == [run_id]


def test_a_daemon_that_is_not_it_any_more_stops(instance: Instance, clock: SteppedClock) -> None:
    daemon = daemon_of(instance, HOURLY)
    daemon.look()
    clock.seconds += LEASE + 1
    take(instance, FARTHER)
    clock.seconds += 3600
    with pytest.raises(RunOverError):
        daemon.look()
    assert all(tick.at < START for tick in instance.catalog.ticks())


def test_files_that_change_are_noticed(tmp_path: Path) -> None:
    file, new = tmp_path / "a.py", tmp_path / "b.py"
    file.write_text("1")
    watch = Watch([str(file), str(new)])
    assert not watch.changed()
    file.write_text("12")
    assert watch.changed() and not watch.changed()
    new.touch()
    assert watch.changed() and not watch.changed()
    file.unlink()
    assert watch.changed() and not watch.changed()
    watch.add([str(file), str(tmp_path)])
    assert not watch.changed()
    (tmp_path / "c.py").touch()
    assert watch.changed()
    (tmp_path / "venv").mkdir()
    for name in ("pyvenv.cfg", "d.py"):
        (tmp_path / "venv" / name).touch()
    assert set(python_files(tmp_path)) == {str(tmp_path), str(new), str(tmp_path / "c.py")}


def test_old_ticks_are_forgotten_bit_by_bit(instance: Instance, clock: SteppedClock, spawned: list[str]) -> None:
    (instance.home / "instance.toml").write_text(
        "[retention.schedule.purge_after_days]\nskipped = 2\nsuccess = -1\nfailure = 1\n"
    )
    frequent = ScheduleDefinition(JOB, "* * * * *", "frequent", default_status="RUNNING", catch_up="none")
    daemon = daemon_of(instance, frequent)
    daemon.look()
    for day in range(1, 5):  # nobody evaluates anything for a day, again and again
        clock.seconds = day * 86400.0
        daemon.place.instance.catalog.append(
            [
                TickEnded(
                    time=clock.now(),
                    name="frequent",
                    at=clock.now(),
                    after=instance.catalog.automations()["frequent"].until,
                    status=TickStatus.FAILURE if day == 1 else TickStatus.SKIPPED,
                )
            ]
        )
        live(daemon, clock, 10)
    kept = [(tick.status, tick.evaluated) for tick in instance.catalog.ticks(limit=10_000)]
    assert all(at >= clock.now() - timedelta(days=2, hours=1.1) for status, at in kept if status == "SKIPPED")
    assert "FAILURE" not in dict(kept) and "SUCCESS" in dict(kept)
    assert [event.kind for event in instance.catalog.events(kinds=["TICKS_PURGED"])]


def test_ticks_are_kept_as_long_as_is_said_of_their_kind(instance: Instance, clock: SteppedClock) -> None:
    @sensor(JOB)
    def polled() -> None:
        """It never wants anything."""

    timed = ScheduleDefinition(JOB, "* * * * *", "timed")
    definitions = Definitions([orders], schedules=[timed], sensors=[polled])
    names = ("timed", "polled", CONDITIONS)
    for name in names:
        move(instance, name, AutomationStatus.RUNNING)
    for day in (1, 4):
        clock.seconds = day * 86400.0
        standing = instance.catalog.automations()
        instance.catalog.append(
            [
                TickEnded(
                    time=clock.now(), name=name, at=clock.now(), after=standing[name].until, status=TickStatus.SKIPPED
                )
                for name in names
            ]
        )
    clock.seconds = 10 * 86400.0
    assert purge(instance, definitions) and not purge(instance, definitions)
    kept = [(tick.name, (tick.at - START).days) for tick in instance.catalog.ticks()]
    # Of what is asked all the time, ticks that came to nothing are kept for a week.
    assert sorted(kept) == sorted([(name, 4) for name in names] + [("timed", 1)])


def test_metrics_are_escaped() -> None:
    found = text([Gauge("a", "one\nline \\", [({"name": 'x"\\\n'}, 1.5), ({}, 2.0), ({"b": ""}, float("inf"))])])
    assert found == ('# HELP a one\\nline \\\\\n# TYPE a gauge\na{name="x\\"\\\\\\n"} 1.5\na 2\na{b=""} +Inf\n')


def test_a_backfill_whose_process_died_goes_on(
    instance: Instance, clock: SteppedClock, monkeypatch: pytest.MonkeyPatch, spawned: list[str]
) -> None:
    monkeypatch.setattr(backfills, "spawn", launching.spawn)

    def begin(asset: str = "orders", **more: Any) -> str:
        target = BackfillTarget(asset=AssetKey(asset), cells=1)
        begun = BackfillStarted(time=clock.now(), backfill_id=new_id(clock.now()), targets=(target,), **more)
        instance.catalog.append([begun])
        return begun.backfill_id

    dead = begin(host=this_host(), pid=0)
    begin(host="elsewhere", pid=7)
    begin(host=this_host(), pid=os.getppid())  # that one goes on
    begin("unknown", host=this_host(), pid=0)
    stopped = begin(host=this_host(), pid=0)
    run = RunStarted(time=clock.now(), run_id=new_id(clock.now()), steps=(), backfill_id=stopped)
    instance.catalog.append([run, RunEnded(time=clock.now(), run_id=run.run_id, status=RunStatus.CANCELED)])
    live(daemon_of(instance), clock, 2)
    assert spawned == [dead]


def test_a_retry_is_not_lost_where_it_was_killed_before(
    instance: Instance, clock: SteppedClock, spawned: list[str]
) -> None:
    """The run is over already, and nobody tried it again."""
    started = RunStarted(
        time=clock.now(),
        run_id=new_id(clock.now()),
        steps=(),
        tags={"headwater/max_retries": "1"},
        request={"origin": ORIGIN},
    )
    ended = RunEnded(time=clock.now(), run_id=started.run_id, status=RunStatus.INTERRUPTED)
    instance.catalog.append([started, ended])
    live(daemon_of(instance), clock, 1)
    again = instance.catalog.runs(root=started.run_id)[0]
    assert (again.parent_run_id, spawned[0]) == (started.run_id, again.run_id)
    assert len(instance.catalog.runs(root=started.run_id)) == 2
    clock.seconds += LEASE
    live(daemon_of(instance), clock, 1)
    assert len(instance.catalog.runs(root=started.run_id)) == 2
