"""The life of a process that is the daemon, or stands by: signals, definitions that change, what it says."""

import signal
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

from headwater.catalog.clock import SystemClock
from headwater.catalog.errors import BusyError, HeadwaterError, RunOverError
from headwater.catalog.instance import Instance
from headwater.cli import output
from headwater.cli.app import App
from headwater.cli.news import News

if TYPE_CHECKING:
    from headwater.catalog.definitions.definitions import Definitions
    from headwater.materialize.automation.leadership import Place
    from headwater.materialize.automation.reloading import Changes

#: The option that has a command load its definitions, and end.
TRY = "--try-definitions"
#: Seconds between two looks, of one that stands by, whether the daemon's process is there.
_LOOK = 0.25
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def metrics_of(instance: Instance) -> str:
    """How an instance stands, in Prometheus' format."""
    from headwater.materialize.automation.metrics import gauges, text

    return text(gauges(instance))


class Service:
    """A process that is the daemon until it is told to stop, and begins anew when its definitions change.

    With `standby` it waits for its turn; otherwise it ends where another one is the daemon. One for developing waits
    for definitions that are broken from the beginning, and says what happens.
    """

    def __init__(
        self, app: App, *, standby: bool = False, developing: bool = False, metrics_port: int | None = None
    ) -> None:
        self._app = app
        self._standby = standby
        self._developing = developing
        self._metrics_port = metrics_port
        self._stop = threading.Event()
        self._hung_up = False
        self._clock = SystemClock()

    def run(self) -> None:
        """Live. Raises `BusyError` where another daemon goes on, and what loading the definitions raises."""
        from headwater.materialize.automation.reloading import Changes, begin_anew, wait_for_children

        for number in _SIGNALS:
            signal.signal(number, self._heed)
        wait_for_children()
        broken: HeadwaterError | None = None
        definitions = None
        try:
            definitions = self._app.definitions
        except HeadwaterError as error:
            broken = error
        with self._app.open(crowded=True) as instance:
            if broken is not None:
                self._bear(broken, instance)
            changes = Changes(
                self._sources(instance),
                self._app.project.root,
                TRY,
                instance.settings.code_servers.reload_timeout,
                is_broken=broken is not None,
            )
            # What came while a process that begins anew could not hear it comes now.
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            with self._answering(instance):
                children = self._live(instance, definitions, changes)
            changes.close()
            if children is None:
                return
            signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        begin_anew(children)

    @contextmanager
    def _answering(self, instance: Instance) -> Generator[None]:
        """Serve metrics meanwhile, where that is wanted."""
        if self._metrics_port is None:
            yield
            return
        from headwater.cli.metrics_server import MetricsServer

        server = MetricsServer(self._metrics_port, lambda: metrics_of(instance))
        self._tell(f"Metrics are at http://127.0.0.1:{server.port}/metrics.")
        try:
            yield
        finally:
            server.close()

    def _heed(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP and not self._developing:
            self._hung_up = True
        elif self._stop.is_set() and number == signal.SIGINT:
            sys.exit(128 + number)
        else:
            self._stop.set()

    def _sources(self, instance: Instance) -> set[str]:
        """What it is made from: definitions, and settings of the project and of the instance."""
        root, settings = self._app.project.root, instance.settings.file
        named = {str(root / name) for name in ("headwater.toml", "pyproject.toml")}
        return self._app.sources | named | ({str(settings)} if settings else set())

    def _bear(self, broken: HeadwaterError, instance: Instance) -> None:
        """Go on without definitions, where that makes sense: whoever develops, and who was the daemon before."""
        from headwater.materialize.automation.leadership import Candidate

        last = instance.catalog.daemon()
        if not self._developing and (last is None or not Candidate.this().is_of(last)):
            raise broken
        self._tell(f"{broken}\nUntil this is corrected, nothing is evaluated.")

    def _live(self, instance: Instance, definitions: "Definitions | None", changes: "Changes") -> list[int] | None:
        """Be the daemon, or wait to be. Returns its children when it is to begin anew, and None when it is to end."""
        from headwater.materialize.automation.daemon import Daemon
        from headwater.materialize.automation.evaluators import open_evaluators
        from headwater.materialize.automation.systemd import alive, notify, reloading

        while not self._stop.is_set():
            place = self._take(instance, changes)
            if place is None:
                return None if self._stop.is_set() else []
            notify("READY=1", "STATUS=It is the daemon.")
            self._tell(f"The daemon, number {place.epoch}.")
            evaluators = None if definitions is None else open_evaluators(place.instance, definitions)
            daemon = Daemon(place, definitions, self._app.project.origin, evaluators=evaluators, tell=self._tell)
            news = News(place.instance) if self._developing else None
            try:
                while not self._stop.wait(daemon.look()):
                    alive()
                    if news is not None:
                        news.tell(daemon.last_event)
                    if self._is_to_begin_anew(changes):
                        reloading()
                        return daemon.children
            except RunOverError:
                self._tell("Another process is the daemon by now.")
                continue
            finally:
                if evaluators is not None:
                    evaluators.close()
            notify("STOPPING=1")
            place.give_back()
        return None

    def _take(self, instance: Instance, changes: "Changes") -> "Place | None":
        """The place, when it is to be had; None where it is to stop before, or to begin anew."""
        from headwater.materialize.automation.leadership import Candidate, Waiting, take
        from headwater.materialize.automation.systemd import alive, notify

        candidate = Candidate.this()
        try:
            return take(instance, candidate)
        except BusyError as busy:
            if not self._standby:
                raise
            self._tell(f"Standing by: {busy.message}")
        notify("READY=1", "STATUS=It stands by.")
        waiting = Waiting(instance, candidate)
        while not self._stop.wait(_LOOK):
            alive()
            try:
                place = waiting.look()
            except HeadwaterError as error:
                self._tell(str(error))
                continue
            if place is not None or self._is_to_begin_anew(changes):
                return place
        return None

    def _is_to_begin_anew(self, changes: "Changes") -> bool:
        asked, self._hung_up = self._hung_up, False
        return changes.look(asked=asked, tell=self._tell)

    def _tell(self, text: str) -> None:
        output.note(f"{self._clock.now().astimezone():%H:%M:%S}  {text}")
