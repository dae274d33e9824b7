"""The daemon: it looks at short intervals whether there is anything to do, and goes a round where there is.

A look is a sign of life, whose answer is the number of the catalog's last event: where that did not change, nobody
asked for anything, and nothing is read. Between two looks it sleeps, until the next instant at which something is due
at the longest.
"""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from headwater.catalog.definitions.definitions import Definitions
from headwater.catalog.errors import HeadwaterError, RunOverError
from headwater.materialize.automation.evaluators import Evaluators
from headwater.materialize.automation.leadership import Place
from headwater.materialize.automation.retention import purge
from headwater.materialize.automation.round import go_round
from headwater.materialize.execution.step import describe_failure
from headwater.materialize.launching import Started, launch_waiting

#: Seconds between two looks, at most.
LOOK = 0.25
#: Seconds between two rounds, at least, where nothing is due; and at most, as nobody tells when a process dies.
PACE, TIDY = 0.5, 5.0
#: Seconds between two times that old ticks are looked for.
RETAIN = 3600.0
#: Seconds before it tries again what went wrong, doubling from the first to the last.
FIRST_PAUSE, LAST_PAUSE = 1.0, 60.0


class Daemon:
    """Does what goes on by itself, look by look.

    Without definitions, as while they are broken, it starts what is in the queue, and evaluates nothing. `evaluators`
    are those of the definitions' sensors. `tell` is told what went wrong.
    """

    def __init__(
        self,
        place: Place,
        definitions: Definitions | None,
        origin: Mapping[str, Any],
        *,
        evaluators: Evaluators | None = None,
        tell: Callable[[str], object],
    ) -> None:
        self.place = place
        self._definitions = definitions
        self._origin = origin
        self._evaluators = evaluators
        self._tell = tell
        self._clock = place.instance.clock
        self._started = Started(self._clock)
        #: The number of the catalog's last event.
        self.last_event = 0
        #: The number of the last event when it last went a round, and when that was.
        self._seen = -1
        self._went = float("-inf")
        self._is_first = True
        #: When it is next looked which ticks are too old.
        self._tidies = float("-inf")
        self._due: datetime | None = None
        self._pause = 0.0

    def look(self) -> float:
        """Do what there is to do; returns the seconds until the next look.

        Raises `RunOverError` where another process is the daemon by now. Whatever else goes wrong is told.
        """
        try:
            self.last_event = self.place.beat()
            if self._is_time():
                self._seen, self._went = self.last_event, self._clock.monotonic()
                self._go()
            self._pause = 0.0
        except RunOverError:
            raise
        except Exception as error:
            self._complain(error)
            return self._pause
        if self._due is None:
            return LOOK
        left = (self._due - self._clock.now()) / timedelta(seconds=1)
        return min(left, LOOK) if left > 0 else LOOK

    @property
    def children(self) -> list[int]:
        """The processes that it started and that go on."""
        return self._started.pids

    def _is_time(self) -> bool:
        since = self._clock.monotonic() - self._went
        if self._due is not None and self._due <= self._clock.now():
            return True
        under_way = self._evaluators is not None and self._evaluators.under_way
        return since >= TIDY or (since >= PACE and bool(under_way or self.last_event != self._seen))

    def _go(self) -> None:
        instance = self.place.instance
        if self._definitions is None:
            launch_waiting(instance, self._started)
            return
        done = go_round(
            instance,
            self._definitions,
            self._origin,
            evaluators=self._evaluators,
            started=self._started,
            anew=self._is_first,
        )
        self._due = done.due
        self._is_first = False
        if self._clock.monotonic() >= self._tidies and not purge(instance, self._definitions):
            self._tidies = self._clock.monotonic() + RETAIN

    def _complain(self, error: Exception) -> None:
        self._pause = min(max(2 * self._pause, FIRST_PAUSE), LAST_PAUSE)
        text = str(error) if isinstance(error, HeadwaterError) else describe_failure(error).error.traceback
        self._tell(f"{text.rstrip()}\nTrying again in {self._pause:g} seconds.")
