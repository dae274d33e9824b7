"""Executors that compute in this process: one step at a time, or several in threads."""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from enum import Enum, auto
from typing import Self

from headwater.catalog.clock import Clock
from headwater.materialize.execution.step import Attempt, StepResult, StepSpec
from headwater.materialize.execution.waiting import WaitingSteps

#: Threads that wait for the disk while the next independent step computes.
PUBLISHERS = 4
#: Outputs that wait for the disk while further steps compute: each keeps a file open, of which a process may often
#: have 1,024.
MAX_WAITING = 200


class _News(Enum):
    RESULT = auto()
    WOKEN = auto()


class _InProcess:
    """Steps that wait for their time, and the news that the run's own thread waits for.

    `attempt` computes a step; `settle` takes its result, from any thread.
    """

    def __init__(
        self, attempt: Callable[[StepSpec], Attempt], settle: Callable[[StepResult], None], clock: Clock
    ) -> None:
        self._attempt = attempt
        self._settle = settle
        #: A simple queue, as its `put` may be called by a signal handler at any time.
        self._news: queue.SimpleQueue[_News | BaseException] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._waiting = WaitingSteps(clock)
        #: Outputs that are written and not published.
        self._unpublished = 0

    def submit(self, spec: StepSpec, delay: float = 0.0) -> None:
        """Have a step attempted, not before `delay` seconds have passed."""
        self._waiting.add(spec, delay)

    def wake(self) -> None:
        """End the waiting in `advance`."""
        self._news.put(_News.WOKEN)

    def abandon(self) -> list[StepSpec]:
        """Give up what has not started yet, and return it."""
        return self._waiting.take_all()

    def _written(self, attempt: Attempt) -> None:
        """An attempt is going to be published."""
        with self._lock:
            self._unpublished += len(attempt.outputs)

    def _publish(self, attempt: Attempt) -> None:
        """Publish and hand over, in another thread than the run's own."""
        count = len(attempt.outputs)
        try:
            result = attempt.publish()
            with self._lock:  # before anybody who waits for that is told
                self._unpublished -= count
            self._settle(result)
        except BaseException as error:
            self._news.put(error)
        else:
            self._news.put(_News.RESULT)

    def _next(self, *, wait: bool, timeout: float | None = None) -> _News | None:
        """The next piece of news; None when there is none in time. Raises what went wrong in another thread."""
        try:
            news = self._news.get(wait, timeout)
        except queue.Empty:
            return None
        if isinstance(news, BaseException):
            raise news
        return news

    def _wait(self) -> _News | None:
        """Wait for news, at most until the next step is due."""
        return self._next(wait=True, timeout=self._waiting.seconds())


class InProcessExecutor(_InProcess):
    """Computes one step at a time, in the run's own thread.

    Only the waiting for disks happens elsewhere: while one step's files are synced, the next independent step runs.
    """

    def __enter__(self) -> Self:
        self._publishers = ThreadPoolExecutor(PUBLISHERS, thread_name_prefix="headwater-publish")
        return self

    def __exit__(self, *_: object) -> None:
        self._publishers.shutdown(wait=True)

    def advance(self) -> None:
        """Compute the steps that are due until a result was handed over."""
        while self._next(wait=False) is None:
            if self._unpublished >= MAX_WAITING:
                self._next(wait=True)
                return
            spec = self._waiting.take()
            if spec is not None:
                attempt = self._attempt(spec)
                if not self._waiting:  # nothing to do meanwhile: spare the hand-over to another thread
                    self._settle(attempt.publish())
                    return
                self._written(attempt)
                self._publishers.submit(self._publish, attempt)
            elif self._wait() is not None:
                return


class ThreadExecutor(_InProcess):
    """Computes up to `max_workers` independent steps side by side, in threads."""

    def __init__(
        self,
        attempt: Callable[[StepSpec], Attempt],
        settle: Callable[[StepResult], None],
        clock: Clock,
        max_workers: int,
    ) -> None:
        super().__init__(attempt, settle, clock)
        self._max_workers = max_workers
        self._running = 0

    def __enter__(self) -> Self:
        self._workers = ThreadPoolExecutor(self._max_workers, thread_name_prefix="headwater-step")
        return self

    def __exit__(self, *_: object) -> None:
        self._workers.shutdown(wait=True)

    def advance(self) -> None:
        """Start the steps that are due as workers come free, until a result was handed over."""
        while True:
            while self._running < self._max_workers and (spec := self._waiting.take()) is not None:
                self._running += 1
                self._workers.submit(self._compute, spec)
            news = self._wait() if self._running < self._max_workers else self._next(wait=True)
            if news is _News.RESULT:
                self._running -= 1
            if news is not None:
                return

    def _compute(self, spec: StepSpec) -> None:
        try:
            attempt = self._attempt(spec)
        except BaseException as error:
            self._news.put(error)
        else:
            self._written(attempt)
            self._publish(attempt)
