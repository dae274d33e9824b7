"""Executors that compute in this process: one step at a time, or several in threads."""

import heapq
import itertools
import queue
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Self

from headwater.catalog.clock import Clock
from headwater.materialize.execution.step import Attempt, StepResult, StepSpec

#: Threads that wait for the disk while the next independent step computes.
PUBLISHERS = 4


class _InProcess:
    """Steps that wait for their time, and results that wait to be fetched."""

    def __init__(self, attempt: Callable[[StepSpec], Attempt], clock: Clock) -> None:
        self._attempt = attempt
        self._clock = clock
        self._results: queue.SimpleQueue[StepResult] = queue.SimpleQueue()
        self._waiting: list[tuple[float, int, StepSpec]] = []
        self._count = itertools.count()

    def submit(self, spec: StepSpec, delay: float = 0.0) -> None:
        """Have a step attempted, not before `delay` seconds have passed."""
        due = self._clock.monotonic() + delay if delay > 0 else 0.0
        heapq.heappush(self._waiting, (due, next(self._count), spec))

    def abandon(self) -> list[StepSpec]:
        """Give up what has not started yet, and return it."""
        specs = [spec for *_, spec in sorted(self._waiting)]
        self._waiting.clear()
        return specs

    def _compute(self, spec: StepSpec) -> None:
        self._publish(self._attempt(spec))

    def _publish(self, attempt: Attempt) -> None:
        self._results.put(attempt.publish())

    def _due(self) -> StepSpec | None:
        if self._waiting and self._waiting[0][0] <= self._clock.monotonic():
            return heapq.heappop(self._waiting)[2]
        return None

    def _wait(self) -> StepResult | None:
        """Wait for a result, at most until the next step is due."""
        if not self._waiting:
            return self._results.get()
        seconds = self._waiting[0][0] - self._clock.monotonic()
        try:
            return self._results.get(timeout=max(0.0, seconds))
        except queue.Empty:
            return None


class InProcessExecutor(_InProcess):
    """Computes one step at a time, in the coordinator's own thread.

    Only the waiting for disks happens elsewhere: while one step's files are synced, the next independent step runs.
    """

    def __enter__(self) -> Self:
        self._publishers = ThreadPoolExecutor(PUBLISHERS, thread_name_prefix="headwater-publish")
        return self

    def __exit__(self, *_: object) -> None:
        self._publishers.shutdown(wait=True)

    def next(self) -> StepResult:
        """The next result; computes the steps that are due until there is one."""
        while True:
            try:
                return self._results.get_nowait()
            except queue.Empty:
                pass
            spec = self._due()
            if spec is not None:
                attempt = self._attempt(spec)
                if not self._waiting:  # nothing to do meanwhile: spare the hand-over to another thread
                    return attempt.publish()
                self._publishers.submit(self._publish, attempt)
                continue
            result = self._wait()
            if result is not None:
                return result


class ThreadExecutor(_InProcess):
    """Computes up to `max_workers` independent steps side by side, in threads."""

    def __init__(self, attempt: Callable[[StepSpec], Attempt], clock: Clock, max_workers: int) -> None:
        super().__init__(attempt, clock)
        self._max_workers = max_workers
        self._running = 0

    def __enter__(self) -> Self:
        self._workers = ThreadPoolExecutor(self._max_workers, thread_name_prefix="headwater-step")
        return self

    def __exit__(self, *_: object) -> None:
        self._workers.shutdown(wait=True)

    def next(self) -> StepResult:
        """The next result; starts the steps that are due as workers come free."""
        while True:
            while self._running < self._max_workers and (spec := self._due()) is not None:
                self._running += 1
                self._workers.submit(self._compute, spec)
            result = self._wait() if self._running < self._max_workers else self._results.get()
            if result is not None:
                self._running -= 1
                return result
