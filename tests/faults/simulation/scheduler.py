"""Real threads, one at a time, in an order that a seed decides.

Code under test runs in ordinary threads. Whoever holds the baton runs; at a switch point the seed decides who is next.
So the same seed gives the same order of everything, and code that waits is waited for in simulated time.
"""

import hashlib
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

#: Switch points after which a world that has not ended never will.
MAX_STEPS = 60_000
#: Deep enough for what runs here; the default of 8 MiB takes longer to map.
_STACK = 512 * 1024


class Killed(BaseException):
    """The process of the thread that gets it was killed: no `except Exception` takes it for its own."""


@dataclass(eq=False)
class Process:
    """A simulated process: threads that die together, and a number that others ask for."""

    pid: int
    name: str
    #: When it began, in seconds of the simulated monotonic clock.
    began: float
    alive: bool = True


@dataclass(eq=False)
class Task:
    """A thread of a simulated process."""

    process: Process
    name: str
    ready: bool = True
    #: When it goes on though nobody woke it.
    deadline: float | None = None
    #: Held, but for the moment in which the baton comes.
    gate: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.gate.acquire()


class Scheduler:
    """Hands the baton around among tasks."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        #: Seconds of the monotonic clock.
        self.now = 1000.0
        self.steps = 0
        #: What went wrong with the world as such: it never ends, or nobody can go on.
        self.problems: list[str] = []
        self._tasks: list[Task] = []
        self._mine = threading.local()
        self._over = threading.Event()
        self._trace = hashlib.blake2b(digest_size=16)
        #: How likely whoever runs goes on, at a switch point. Much switching finds other things than little.
        self._sticky = rng.choice((0.0, 0.5, 0.8, 0.95))
        self.log: list[str] | None = None

    @property
    def trace(self) -> str:
        """A hash of everything that happened, in its order."""
        return self._trace.hexdigest()

    @property
    def task(self) -> Task | None:
        """The task of this thread; None for threads that nobody simulates."""
        return getattr(self._mine, "task", None)

    def spawn(self, process: Process, name: str, work: Callable[[], object]) -> Task:
        """Have `work` done by a new thread of a process."""
        task = Task(process, name)
        self._tasks.append(task)

        def main() -> None:
            self._mine.task = task
            task.gate.acquire()
            try:
                if process.alive:
                    work()
            except Killed:
                pass
            finally:
                self._tasks.remove(task)
                self._hand_over()

        threading.Thread(target=main, name=f"{process.name}.{name}", daemon=True).start()
        return task

    def run(self) -> None:
        """Let all tasks run until none is left."""
        if not self._tasks:
            return
        self._over.clear()
        self._hand_over()
        self._over.wait()

    def point(self, what: str) -> None:
        """A switch point, just before something happens that others could see. Raises `Killed`."""
        task = self.task
        if task is None:
            return
        if not task.process.alive:
            raise Killed
        self.steps += 1
        if self.steps > MAX_STEPS:
            self._stop("does not end")
            raise Killed
        self._pass_on(task)
        self.note(f"{task.process.name}.{task.name} {what}")
        if not task.process.alive:
            raise Killed

    def block(self, seconds: float | None = None) -> None:
        """Wait to be woken, for so many seconds at most. Raises `Killed`."""
        task = self.task
        assert task is not None, "only simulated threads wait for each other"
        if not task.process.alive:
            raise Killed
        task.ready = False
        task.deadline = None if seconds is None else self.now + seconds
        self._pass_on(task)
        task.ready, task.deadline = True, None
        if not task.process.alive:
            raise Killed

    def note(self, what: str) -> None:
        """Add a line to the trace."""
        self._trace.update(what.encode("utf-8", "surrogatepass") + b"\n")
        if self.log is not None:
            self.log.append(what)

    def kill(self, process: Process) -> None:
        """End a process: its threads get `Killed` wherever they are, and nothing that they do has an effect."""
        process.alive = False
        for task in self._tasks:
            if task.process is process:
                task.ready = True

    def _stop(self, problem: str) -> None:
        if problem not in self.problems:
            self.problems.append(problem)
        for task in self._tasks:
            task.process.alive = False
            task.ready = True

    def _pass_on(self, task: Task) -> None:
        following = task if task.ready and self.rng.random() < self._sticky else self._pick()
        if following is not task:
            following.gate.release()
            task.gate.acquire()

    def _hand_over(self) -> None:
        if self._tasks:
            self._pick().gate.release()
        else:
            self._over.set()

    def _pick(self) -> Task:
        self.now += self.rng.choice((0.0, 0.0, 0.001, 0.05))
        while True:
            ready = [t for t in self._tasks if t.ready or (t.deadline is not None and t.deadline <= self.now)]
            if ready:
                return self.rng.choice(ready)
            deadlines = [t.deadline for t in self._tasks if t.deadline is not None]
            if deadlines:
                self.now = min(deadlines)
            else:
                waiting = ", ".join(f"{t.process.name}.{t.name}" for t in self._tasks)
                self._stop(f"nobody can go on: {waiting}")
