"""A world in which the production code runs: one machine, one catalog, processes that come and are killed.

The catalog is the real storage in memory, shared by all processes as if it were durable: it stands for DuckDB, one
atomic transaction an append. Everything else is the production code itself, down to its calls of the operating
system, which modules make through their own `os`, `threading` and so on: those names are replaced here, and nowhere
in production code does anything know of it (docs/decisions/0025-faults.md).
"""

import contextlib
import errno
import functools
import os
import random
import sys
import traceback
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from headwater.catalog.errors import DiskFullError
from headwater.catalog.events import Event
from headwater.catalog.instance import Instance
from headwater.catalog.storage.memory import MemoryStorage
from headwater.materialize.execution.capture import OutputCapture
from tests.faults.simulation.disk import Disk
from tests.faults.simulation.scheduler import Killed, Process, Scheduler
from tests.faults.simulation.system import System
from tests.faults.simulation.threads import pool_of, queue_of, threading_of

HOME = "/sim/home"
#: Where the simulated wall clock starts.
_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)

CRASH, POWER_CUT = -1, -2
#: Stands for DuckDB's own failures, in the terms of the operating system.
CATALOG = (errno.ENOSPC,)


class Faults(Protocol):
    """Decides what goes wrong."""

    def choose(self, world: "World", process: Process, name: str, errors: tuple[int, ...]) -> int:
        """0 for nothing, the number of an error, `CRASH` or `POWER_CUT`."""
        ...


class NoFaults:
    """Nothing goes wrong."""

    def choose(self, world: "World", process: Process, name: str, errors: tuple[int, ...]) -> int:
        return 0


class RandomFaults:
    """A few things go wrong at random; how many, and which kinds, the seed says."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._left = rng.choice((0, 1, 2, 2, 3, 4))
        self._kinds = rng.choice(("crash", "crash", "power", "error", "all"))
        self._rate = rng.choice((0.005, 0.02, 0.05))

    def choose(self, world: "World", process: Process, name: str, errors: tuple[int, ...]) -> int:
        if not self._left or self._rng.random() >= self._rate:
            return 0
        kinds = [CRASH] * (self._kinds in ("crash", "all")) + [POWER_CUT] * (self._kinds in ("power", "all"))
        if self._kinds in ("error", "all"):
            kinds += errors
        if not kinds:
            return 0
        self._left -= 1
        return self._rng.choice(kinds)


class Recorded:
    """Nothing goes wrong; `calls` has how each call could have."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, ...]] = []

    def choose(self, world: "World", process: Process, name: str, errors: tuple[int, ...]) -> int:
        self.calls.append(errors)
        return 0


class FaultAt:
    """One thing goes wrong, at the call of this number, from 1."""

    def __init__(self, number: int, kind: int) -> None:
        self._number = number
        self._kind = kind

    def choose(self, world: "World", process: Process, name: str, errors: tuple[int, ...]) -> int:
        return self._kind if world.calls == self._number else 0


class Clock:
    """A `Clock` that goes on as the world does, and whose wall time may jump."""

    def __init__(self, world: "World") -> None:
        self._world = world

    def now(self) -> datetime:
        self._world.scheduler.point("now")
        return self._world.wall

    def monotonic(self) -> float:
        return self._world.scheduler.now

    def sleep(self, seconds: float) -> None:
        self._world.scheduler.point("sleep")
        self._world.scheduler.block(seconds)


class _OfProcess:
    """A set that each process has for itself."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._sets: dict[Process | None, set[str]] = {}

    def add(self, item: str) -> None:
        self._sets.setdefault(self._world.process, set()).add(item)

    def discard(self, item: str) -> None:
        self._sets.setdefault(self._world.process, set()).discard(item)

    def __contains__(self, item: str) -> bool:
        return item in self._sets.get(self._world.process, ())


class Catalog:
    """The one storage as a process sees it: each call may be its last, an append's also after the commit."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._storage = world.storage

    def append(self, events: Sequence[Event], **options: Any) -> int:
        world = self._world
        what = ",".join(type(event).__name__ for event in events)
        try:
            world.call("append", what, CATALOG)
        except OSError as error:
            raise DiskFullError("The disk of the catalog is full.", remedy="Free some space.") from error
        seq = self._storage.append(events, **options)
        world.call("acknowledge", what, ())
        return seq

    def close(self) -> None:
        """The storage outlives its processes."""

    @property
    def dynamic_keys(self) -> Any:
        return self._storage.dynamic_keys

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._storage, name)

        def ask(*arguments: Any, **options: Any) -> Any:
            self._world.call(name, "", ())
            return method(*arguments, **options)

        return ask


@dataclass(frozen=True, slots=True)
class Replaced:
    """A name in a module, or in a class, that means something else in the world."""

    owner: Any
    name: str
    value: Any


class World:
    """Everything there is. `seed` decides all that is not decided by the code."""

    def __init__(self, seed: int, faults: Callable[[random.Random], Faults] = RandomFaults) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.scheduler = Scheduler(self.rng)
        self.faults = faults(self.rng)
        self.disk = Disk()
        self.disk.make(HOME)
        self.storage = MemoryStorage(Clock(self))
        self.system = System(self.disk, self.call, random_bytes=self.rng.randbytes, wall=lambda: self.wall.timestamp())
        self.system.current = lambda: self.process
        if self.rng.random() < 0.3:
            self.system.shorten = lambda size: self.rng.randint(1, size)
        self.home: Path = self.system.path(HOME)
        #: Calls that could have gone wrong, and those that did, with where.
        self.calls = 0
        self.injected: list[str] = []
        self.power_cuts = 0
        #: How likely an unsynced change of a name survives a power cut.
        self.survival = 0.5
        #: What must never be.
        self.violations: list[str] = []
        #: How likely the wall clock jumps at a call, and how far it has.
        self.jumpy = self.rng.choice((0.0, 0.0, 0.01))
        self.jumped = 0.0
        self._next_pid = 4_194_304  # as large as a pid can be on Linux
        #: What of production code is broken on purpose.
        self.mutations: list[Replaced] = []

    @property
    def wall(self) -> datetime:
        """What the clock on the wall says."""
        return _EPOCH + timedelta(seconds=self.scheduler.now + self.jumped)

    def instance(self) -> Instance:
        """The home, as a process opens it."""
        return Instance(self.home, Catalog(self), Clock(self))  # pyright: ignore[reportArgumentType]

    def start(self, name: str, work: Callable[[], object]) -> Process:
        """Start a process, sometimes with a number that a dead one had."""
        free = [pid for pid, process in self.system.processes.items() if not process.alive]
        if free and self.rng.random() < 0.5:
            pid = self.rng.choice(free)
        else:
            self._next_pid += 1
            pid = self._next_pid
        process = Process(pid, name, self.scheduler.now)
        self.system.processes[pid] = process

        def main() -> None:
            try:
                work()
            except Exception as error:
                self.violations.append(f"{name}: {type(error).__name__}: {error}\n{traceback.format_exc()}")
            finally:
                self.scheduler.kill(process)  # its threads end with it

        self.scheduler.spawn(process, "main", main)
        return process

    def run(self) -> None:
        """Until every process is over."""
        self.scheduler.run()
        self.violations += self.scheduler.problems
        self.scheduler.problems.clear()

    def call(self, name: str, about: str, errors: tuple[int, ...]) -> None:
        """A call of what is outside of a process: here it may be interrupted, fail, or be killed."""
        task = self.scheduler.task
        if task is None:
            return
        self.scheduler.point(f"{name} {about}")
        self.calls += 1
        if self.jumpy and self.rng.random() < self.jumpy:
            self.jumped += self.rng.choice((-86_400, -5, 5, 3_600, 86_400))
        kind = self.faults.choose(self, task.process, name, errors)
        if not kind:
            return
        where = f"{task.process.name} {name} {about}"
        if kind == CRASH:
            self.note(f"killed before {where}")
            self.scheduler.kill(task.process)
            raise Killed
        if kind == POWER_CUT:
            self.note(f"power cut before {where}")
            self.cut_power()
            raise Killed
        self.note(f"{errno.errorcode[kind]} at {where}")
        raise OSError(kind, os.strerror(kind))

    def cut_power(self) -> None:
        """The machine is off: every process is gone, and what the disk had not yet got may be."""
        for process in self.system.processes.values():
            self.scheduler.kill(process)
        self.disk.power_cut(self.rng, self.survival)
        self.power_cuts += 1

    def note(self, what: str) -> None:
        """Something was made to go wrong."""
        self.injected.append(what)
        self.scheduler.note(what)

    @property
    def process(self) -> Process | None:
        """The process that runs right now."""
        task = self.scheduler.task
        return task.process if task else None

    def _replacements(self) -> list[Replaced]:
        threads = threading_of(self.scheduler)
        users_of_os = (
            "headwater.io.local",
            "headwater.catalog.ids",
            "headwater.catalog.processes",
            "headwater.materialize.backfill",
            "headwater.materialize.backfill_signals",
            "headwater.materialize.monitoring",
            "headwater.materialize.reader",
            "headwater.materialize.waiting_run",
            "headwater.materialize.execution.run",
            "headwater.materialize.execution.starting",
        )
        users_of_threads = (
            "headwater.io.local",
            "headwater.materialize.heartbeat",
            "headwater.materialize.execution.recorder",
            "headwater.materialize.execution.run",
            "headwater.materialize.executors.in_process",
        )
        return [
            *(Replaced(module, "os", self.system.os) for module in users_of_os),
            *(Replaced(module, "threading", threads) for module in users_of_threads),
            Replaced("headwater.materialize.executors.in_process", "queue", queue_of(self.scheduler)),
            Replaced("headwater.materialize.executors.in_process", "ThreadPoolExecutor", pool_of(self.scheduler)),
            Replaced("headwater.catalog.processes", "Path", self.system.proc),
            Replaced(Instance, "running", _OfProcess(self)),
        ]

    @contextlib.contextmanager
    def entered(self) -> Generator[None]:
        """Production code lives in this world. One at a time in a process."""
        _unlock_cached_properties()
        with replaced([*self._replacements(), *self.mutations]), OutputCapture._active:  # pyright: ignore[reportPrivateUsage]
            # Held, so that no run redirects this process's own output.
            yield


@functools.cache
def _unlock_cached_properties() -> None:
    """Before Python 3.12 a cached property is computed under one lock for all objects, which knows no baton."""
    for name, module in list(sys.modules.items()):
        if name.startswith("headwater."):
            for one in list(vars(module).values()):
                attributes: list[Any] = list(vars(one).values()) if isinstance(one, type) else []
                for attribute in attributes:
                    if isinstance(attribute, functools.cached_property) and "lock" in vars(attribute):  # pyright: ignore
                        vars(attribute)["lock"] = contextlib.nullcontext()  # pyright: ignore


@contextlib.contextmanager
def replaced(names: Sequence[Replaced]) -> Generator[None]:
    """Names in modules mean something else inside."""
    owners = [import_module(one.owner) if isinstance(one.owner, str) else one.owner for one in names]
    values = [getattr(owner, one.name) for owner, one in zip(owners, names, strict=True)]
    try:
        for owner, one in zip(owners, names, strict=True):
            setattr(owner, one.name, one.value)
        yield
    finally:
        for owner, one, value in zip(owners, names, values, strict=True):
            setattr(owner, one.name, value)
