"""Writing a run's events to the catalog: in order, durable, several at a time.

A commit costs about as much for a hundred events as for one, so events that come close together share one. What
is in the recorder is not yet in the catalog: `flush` waits until it is.
"""

import threading
from collections.abc import Callable, Sequence

from headwater.catalog.events import Event

#: Seconds that events wait for others to share their commit, which costs milliseconds of CPU whatever its size.
DELAY = 0.03


class Recorder:
    """Appends events in the order they came, in a thread of its own.

    When a commit fails, nothing more is written, and its error is raised by every later call.
    """

    def __init__(self, append: Callable[[Sequence[Event]], object], *, delay: float = DELAY) -> None:
        self._append = append
        self._delay = delay
        self._changed = threading.Condition()
        self._waiting: list[Event] = []
        self._writing = False
        self._urgent = False
        self._closed = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._write, name="headwater-recorder", daemon=True)
        self._thread.start()

    def append(self, *events: Event) -> None:
        """Have events written; returns at once."""
        with self._changed:
            self._check()
            self._waiting.extend(events)
            self._changed.notify_all()

    def flush(self) -> None:
        """Wait until everything appended so far is durable."""
        with self._changed:
            self._urgent = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._error is not None or not (self._waiting or self._writing))
            self._check()

    def close(self) -> None:
        """Write what is waiting, unless writing failed before, and stop."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    def _write(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                self._changed.wait_for(lambda: self._urgent or self._closed, timeout=self._delay)
                batch, self._waiting = self._waiting, []
                self._urgent = False
                if not batch:
                    return
                self._writing = True
            error: BaseException | None = None
            try:
                self._append(batch)
            except BaseException as caught:
                error = caught
            with self._changed:
                self._writing = False
                self._error = error
                self._changed.notify_all()
                if error is not None:
                    return
