"""Steps that wait for their time: those of which nobody has begun an attempt."""

import heapq
import itertools
import threading

from headwater.catalog.clock import Clock
from headwater.materialize.execution.step import StepSpec


class WaitingSteps:
    """Steps in the order in which they are due, and of one moment in the order in which they came. Thread-safe."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._waiting: list[tuple[float, int, StepSpec]] = []
        self._count = itertools.count()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, spec: StepSpec, delay: float = 0.0) -> None:
        """Let a step wait for at least `delay` seconds."""
        due = self._clock.monotonic() + delay if delay > 0 else 0.0
        with self._lock:
            heapq.heappush(self._waiting, (due, next(self._count), spec))

    def take(self) -> StepSpec | None:
        """The next step that is due; None when there is none."""
        with self._lock:
            if self._waiting and self._waiting[0][0] <= self._clock.monotonic():
                return heapq.heappop(self._waiting)[2]
        return None

    def take_all(self) -> list[StepSpec]:
        """Every step, due or not."""
        with self._lock:
            specs = [spec for *_, spec in sorted(self._waiting)]
            self._waiting.clear()
        return specs

    def seconds(self) -> float | None:
        """Until the next step is due; None when none waits."""
        with self._lock:
            return max(0.0, self._waiting[0][0] - self._clock.monotonic()) if self._waiting else None
