"""What production code takes from `threading`, `queue` and `concurrent.futures`, on the simulated scheduler."""

import queue
import threading
from collections import deque
from collections.abc import Callable
from types import SimpleNamespace, TracebackType
from typing import Any, Self

from tests.faults.simulation.scheduler import Killed, Scheduler, Task


class _Waiters:
    """Tasks that wait for something to change."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._tasks: list[Task] = []

    def wait(self, timeout: float | None = None) -> None:
        task = self._scheduler.task
        assert task is not None
        self._tasks.append(task)
        try:
            self._scheduler.block(timeout)
        finally:
            self._tasks.remove(task)

    def wake(self) -> None:
        for task in self._tasks:
            task.ready = True

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> bool:
        deadline = None if timeout is None else self._scheduler.now + timeout
        while not predicate():
            left = None if deadline is None else deadline - self._scheduler.now
            if left is not None and left <= 0:
                return False
            self.wait(left)
        return True


class Lock:
    """A lock, reentrant too. What a dead process holds or wants matters to nobody."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._waiters = _Waiters(scheduler)
        self._owner: Task | None = None
        self._count = 0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        task = self._scheduler.task
        if task is None or not task.process.alive:
            return True
        if self._owner not in (None, task):
            if not blocking:
                return False
            self._waiters.wait_for(lambda: self._owner is None)
        self._owner = task
        self._count += 1
        return True

    def release(self) -> None:
        task = self._scheduler.task
        if task is not None and self._owner is task:
            self._count -= 1
            if not self._count:
                self._owner = None
                self._waiters.wake()

    def release_all(self) -> int:
        count, self._count = self._count, 1
        self.release()
        return count

    def acquire_again(self, count: int) -> None:
        if self.acquire() and self._owner is self._scheduler.task:
            self._count = count

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class Condition:
    """A condition with a lock of its own."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._lock = Lock(scheduler)
        self._waiters = _Waiters(scheduler)

    def wait(self, timeout: float | None = None) -> None:
        count = self._lock.release_all()
        try:
            self._waiters.wait(timeout)
        finally:
            self._lock.acquire_again(count)

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> bool:
        deadline = None if timeout is None else self._scheduler.now + timeout
        while not predicate():
            left = None if deadline is None else deadline - self._scheduler.now
            if left is not None and left <= 0:
                return False
            self.wait(left)
        return True

    def notify_all(self) -> None:
        self._waiters.wake()

    def __enter__(self) -> Self:
        self._lock.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()


class Event:
    """A flag that can be waited for."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._waiters = _Waiters(scheduler)
        self._set = False

    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        self._set = True
        self._waiters.wake()

    def wait(self, timeout: float | None = None) -> bool:
        return self._set or self._waiters.wait_for(lambda: self._set, timeout)


class SimpleQueue:
    """A queue without bounds."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._waiters = _Waiters(scheduler)
        self._items: deque[Any] = deque()

    def put(self, item: Any) -> None:
        self._items.append(item)
        self._waiters.wake()

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        if block:
            self._waiters.wait_for(lambda: self._items, timeout)
        if not self._items:
            raise queue.Empty
        return self._items.popleft()


class Thread:
    """A thread of the process that starts it."""

    def __init__(
        self, scheduler: Scheduler, target: Callable[..., object], name: str = "thread", args: tuple[Any, ...] = ()
    ) -> None:
        self._scheduler = scheduler
        self._target = target
        self._args = args
        self._name = name
        self._waiters = _Waiters(scheduler)
        self._over = False

    def start(self) -> None:
        task = self._scheduler.task
        assert task is not None

        def work() -> None:
            try:
                self._target(*self._args)
            finally:
                self._over = True
                self._waiters.wake()

        self._scheduler.point(f"start {self._name}")
        self._scheduler.spawn(task.process, self._name, work)

    def join(self, timeout: float | None = None) -> None:
        self._waiters.wait_for(lambda: self._over, timeout)


class ThreadPoolExecutor:
    """A pool that starts a thread for what is submitted while fewer than so many work."""

    def __init__(self, scheduler: Scheduler, max_workers: int, thread_name_prefix: str = "pool") -> None:
        self._scheduler = scheduler
        self._max = max_workers
        self._prefix = thread_name_prefix
        self._waiters = _Waiters(scheduler)
        self._work: deque[Callable[[], object]] = deque()
        self._workers = 0

    def submit(self, function: Callable[..., object], *args: Any) -> None:
        self._work.append(lambda: function(*args))
        if self._workers < self._max:
            self._workers += 1
            Thread(self._scheduler, self._drain, f"{self._prefix}_{self._workers}").start()

    def shutdown(self, wait: bool = True) -> None:
        if wait:
            self._waiters.wait_for(lambda: not self._workers)

    def _drain(self) -> None:
        try:
            while self._work:
                self._work.popleft()()
        finally:
            self._workers -= 1
            self._waiters.wake()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if kind is not Killed:
            self.shutdown()


def threading_of(scheduler: Scheduler) -> Any:
    """What a module sees as `threading`."""

    def thread(*, target: Callable[..., object], name: str, daemon: bool = False, args: tuple[Any, ...] = ()) -> Thread:
        return Thread(scheduler, target, name, args)

    return SimpleNamespace(
        Lock=lambda: Lock(scheduler),
        RLock=lambda: Lock(scheduler),
        Condition=lambda: Condition(scheduler),
        Event=lambda: Event(scheduler),
        Thread=thread,
        local=threading.local,
        current_thread=threading.current_thread,
        main_thread=threading.main_thread,
    )


def queue_of(scheduler: Scheduler) -> Any:
    """What a module sees as `queue`."""
    return SimpleNamespace(SimpleQueue=lambda: SimpleQueue(scheduler), Empty=queue.Empty)


def pool_of(scheduler: Scheduler) -> Any:
    """What a module sees as `ThreadPoolExecutor`."""

    def pool(max_workers: int, thread_name_prefix: str = "pool") -> ThreadPoolExecutor:
        return ThreadPoolExecutor(scheduler, max_workers, thread_name_prefix)

    return pool
