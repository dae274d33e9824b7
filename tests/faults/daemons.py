"""Two daemons on two hosts, simulated: killed at any call to the catalog, with clocks that somebody sets.

The daemons, their rounds and the catalog in memory are production code. Time is a number that is moved on to where
something happens next; a seed decides what happens.
"""

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast
from unittest import mock

from headwater import Definitions, Instance, ScheduleDefinition, asset, define_asset_job
from headwater.catalog.errors import BusyError, ConflictError, RunOverError
from headwater.catalog.events import RunEnded, RunMoved, RunStarted
from headwater.catalog.records import AutomationStatus, RunStatus, TickStatus
from headwater.catalog.storage.base import CatalogWriter
from headwater.catalog.storage.leases import LEASE
from headwater.catalog.storage.memory import MemoryStorage
from headwater.materialize import launching
from headwater.materialize.automation.daemon import Daemon
from headwater.materialize.automation.leadership import Candidate, take
from headwater.materialize.automation.schedules import AT, SCHEDULE
from headwater.materialize.automation.standing import move
from tests.catalog.partitions.zones import at, ticks
from tests.faults.sizes import SIZES

ZONES = (
    *("America/New_York", "Europe/London", "Europe/Berlin", "Australia/Lord_Howe", "Pacific/Apia", "Africa/Cairo"),
    *("America/Sao_Paulo", "Asia/Kolkata", "Asia/Kathmandu", "Australia/Sydney", "Asia/Tehran", "UTC"),
)
ORIGIN = {"folder": "/project", "files": ["/project/assets.py"], "modules": []}
#: Seconds: a daemon that was killed is back after so many at most, and clocks are set by so many at most.
AWAY, SHIFT = 9 * 3600, 3 * 3600


class Killed(BaseException):
    """The process is dead; nothing that it does from then on has an effect."""


@asset
def orders() -> int:
    return 1


JOB = define_asset_job("job", "orders")


@dataclass
class Clock:
    """The clock of a host."""

    world: "World"
    shift: float = 0.0

    def now(self) -> datetime:
        return self.world.start + timedelta(seconds=self.world.seconds + self.shift)

    def monotonic(self) -> float:
        return self.world.seconds

    def sleep(self, seconds: float) -> None:
        raise AssertionError("nothing here waits")


class Mortal:
    """A catalog, used by a process that may be killed right before or after each call, or sleep for a while."""

    def __init__(self, world: "World", host: "Host") -> None:
        self._world = world
        self._host = host

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._world.storage, name)

        def asked(*arguments: Any, **more: Any) -> Any:
            self._world.maybe_kill(f"before {name}")
            self._world.maybe_sleep(self._host)
            answer = call(*arguments, **more)
            self._world.maybe_kill(f"after {name}")
            return answer

        return asked


@dataclass
class Host:
    """A host, on which a daemon is started again and again."""

    world: "World"
    name: str
    clock: Clock
    #: Counts its processes.
    pid: int = 0
    daemon: Daemon | None = None
    instance: Instance | None = None

    def act(self) -> None:
        """What its process does now: be the daemon, or look whether it can be."""
        try:
            if self.instance is None:
                self.pid += 1
                self.instance = Instance(Path("/home"), cast(CatalogWriter, Mortal(self.world, self)), self.clock)
            if self.daemon is None:
                place = take(self.instance, Candidate(self.name, self.pid, self.pid))
                self.daemon = Daemon(place, self.world.definitions, ORIGIN, tell=self.world.told.append)
            self.daemon.look()
        except BusyError:
            pass
        except RunOverError:
            self.daemon = None
        except Killed:
            self.daemon = self.instance = None


@dataclass
class World:
    """What a seed makes of some schedules from `start` on, for so many days; crons are due in every zone."""

    seed: int
    start: datetime
    days: int
    crons: tuple[str, ...]
    #: Kills and settings of clocks, a day.
    faults: float = 2.0
    seconds: float = 0.0
    kills: Counter[str] = field(default_factory=Counter[str])
    shifts: int = 0
    naps: int = 0
    told: list[str] = field(default_factory=list[str])

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self.storage = MemoryStorage(Clock(self))
        self.hosts = [Host(self, name, Clock(self)) for name in ("a", "b")]
        self.executed: Counter[str] = Counter()
        self.spawned = 0
        #: What happens when.
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._number = itertools.count()
        #: Calls to the catalog before the next kill; None while nobody is to be killed.
        self._left: int | None = None
        #: The same before one sleeps for longer than its lease.
        self._awake: int | None = None
        self.schedules = {
            f"{zone.replace('/', '-')}.{number}": (cron, zone)
            for number, cron in enumerate(self.crons)
            for zone in ZONES
        }
        self.definitions = Definitions(
            [orders],
            schedules=[
                ScheduleDefinition(
                    JOB,
                    cron,
                    name,
                    execution_timezone=zone,
                    catch_up="all" if self.catches_up(name) else "latest",
                    max_catch_up=1000,
                )
                for name, (cron, zone) in self.schedules.items()
            ],
        )

    def catches_up(self, name: str) -> bool:
        """Whether a schedule catches up with everything; the others with the last instant."""
        return list(self.schedules).index(name) % 2 == 0

    def maybe_kill(self, point: str) -> None:
        """Called around each call to the catalog."""
        if self._left is not None:
            self._left -= 1
            if self._left < 0:
                self._left = None
                self.kills[point] += 1
                raise Killed(point)

    def maybe_sleep(self, host: Host) -> None:
        """Called in the midst of what a host does: it is stopped, and the other one takes over."""
        if self._awake is None:
            return
        self._awake -= 1
        if self._awake < 0 and host.daemon is not None:
            self._awake, self.naps = None, self.naps + 1
            self.seconds += 2 * LEASE
            (other,) = [one for one in self.hosts if one is not host]
            if other.instance is not None:
                other.act()

    def run(self) -> list[str]:
        """Let all of it happen; returns what is wrong in the end."""
        with _without_processes(self), Instance(Path("/home"), self.storage, Clock(self)) as instance:
            for name in self.schedules:
                move(instance, name, AutomationStatus.RUNNING)
            self._happen()
            return list(self._violations())

    def at(self, seconds: float, what: Callable[[], None]) -> None:
        """Something happens then."""
        heapq.heappush(self._agenda, (seconds, next(self._number), what))

    def spawn(self, run_id: str) -> None:
        """A process for a run is started, which some moments later takes it, or dies before."""
        self.spawned += 1
        if self.chance.random() < 0.95:
            self.at(self.seconds + self.chance.uniform(0.1, 20.0), lambda: self._execute(run_id))

    def _execute(self, run_id: str) -> None:
        run = self.storage.run(run_id)
        if run is None or run.status is not RunStatus.QUEUED:
            return
        now, claims = Clock(self).now(), self.storage.claims()
        moved = RunMoved(time=now, run_id=run_id, status=RunStatus.STARTING, host="w", pid=1, claims_before=claims)
        try:
            self.storage.append([moved])
        except ConflictError:
            return
        self.executed[run_id] += 1
        self.storage.append([RunStarted(time=now, run_id=run_id, steps=())])
        self.storage.append([RunEnded(time=now, run_id=run_id, status=RunStatus.SUCCESS)])

    def _happen(self) -> None:
        end = self.days * 86400.0
        for second in sorted({one - int(self.start.timestamp()) for name in self.schedules for one in self.due(name)}):
            self.at(second, lambda: None)
        for _ in range(int(self.days * self.faults)):
            self.at(self.chance.uniform(0, end), self._strike)
        down: dict[str, float] = {}
        while self._agenda:
            then, _, what = heapq.heappop(self._agenda)
            self.seconds = max(then, self.seconds)
            what()
            # The one that is the daemon mostly gives a sign of life first; sometimes it was asleep for that long.
            hosts = sorted(self.hosts, key=lambda host: host.daemon is None)
            for host in reversed(hosts) if self.chance.random() < 0.02 else hosts:
                if down.get(host.name, 0.0) > self.seconds:
                    continue
                host.act()
                if host.instance is None:  # killed
                    down[host.name] = self.seconds + self.chance.choice((0.1, 60.0, self.chance.uniform(0, AWAY)))
                    self.at(down[host.name], lambda: None)
            if not self._agenda:
                self._settle(down)

    def _settle(self, down: dict[str, float]) -> None:
        """At the end: clocks are right, nobody is killed any more, and what is in the queue is carried out."""
        self._left = self._awake = None
        shifted = any(host.clock.shift for host in self.hosts)
        for host in self.hosts:
            host.clock.shift = 0.0
        if shifted or down or self.storage.runs(statuses=[RunStatus.QUEUED], limit=1):
            down.clear()
            self.at(max(self.seconds, self.days * 86400.0) + 60.0, lambda: None)

    def _strike(self) -> None:
        kind = self.chance.random()
        if kind < 0.5:
            self._left = self.chance.randrange(60)
            return
        if kind < 0.7:
            self._awake = self.chance.randrange(60)
            return
        self.shifts += 1
        host = self.chance.choice(self.hosts)
        host.clock.shift = self.chance.choice((0.0, self.chance.uniform(-SHIFT, SHIFT)))

    def due(self, name: str) -> list[int]:
        """When a schedule is due, by a clock that is read day by day or minute by minute."""
        cron, zone = self.schedules[name]
        return ticks(cron, zone, self.start + timedelta(seconds=1), self.start + timedelta(days=self.days, seconds=1))

    def _violations(self) -> Iterator[str]:
        runs = {run.run_id: run for run in self.storage.runs(limit=10**6)}
        by_instant = Counter((run.tags[SCHEDULE], run.tags[AT]) for run in runs.values())
        yield from (f"{count} runs of {one}" for one, count in by_instant.items() if count != 1)
        if set(self.executed) != set(runs) or set(self.executed.values()) - {1}:
            yield f"{len(runs)} runs, {sum(self.executed.values())} carried out"
        last = self.start + timedelta(days=self.days)
        for name in self.schedules:
            found = [tick for tick in reversed(self.storage.ticks([name], limit=10**6)) if tick.at <= last]
            expected = [at(second, "UTC") for second in self.due(name)]
            if self.catches_up(name) and [tick.at for tick in found] != expected:
                yield f"{name}: {set(expected) ^ {tick.at for tick in found}}"
            if sum(tick.instants for tick in found) != len(expected) or {tick.at for tick in found} - set(expected):
                yield f"{name}: {sum(tick.instants for tick in found)} of {len(expected)} instants"
            for tick in found:
                wanted = tick.status is TickStatus.SUCCESS
                if (
                    len(tick.run_ids) != wanted
                    or (self.catches_up(name) and not wanted)
                    or set(tick.run_ids) - set(runs)
                ):
                    yield f"{name}: {tick}"
        if self.told:
            yield self.told[0]


@contextmanager
def _without_processes(world: World) -> Generator[None]:
    class Process:
        pid = 0

        def poll(self) -> int:
            return 0

    def spawn(home: Path, origin: Any, arguments: Any, name: str) -> Process:
        world.maybe_kill("before spawn")
        world.spawn(name)
        world.maybe_kill("after spawn")
        return Process()

    with mock.patch.object(launching, "spawn", spawn):
        yield


def year(seed: int) -> World:
    """A year in twelve zones, a fixed time a day that some of them skip and some show twice.

    In short only Sundays and Fridays, on which clocks change.
    """
    return World(seed, datetime(2024 if seed % 2 else 2011, 1, 1, tzinfo=UTC), 366, (f"30 2 * * {SIZES.weekdays}",))


def week(seed: int) -> World:
    """A week at some time of a year, twice an hour and once a day."""
    chance = random.Random(seed)
    first = datetime(chance.choice((2011, 2018, 2022, 2024)), 1, 1, tzinfo=UTC)
    return World(seed, first + timedelta(days=chance.randrange(360)), 7, ("0 * * * *", "30 1 * * *"), faults=20.0)
