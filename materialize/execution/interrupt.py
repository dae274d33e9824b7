"""Ctrl-C and SIGTERM: the first lets the running steps finish, the second stops them."""

import ctypes
import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType

#: Seconds that running steps get after the first signal, and again after they were told to stop.
GRACE = 5.0
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """Watches for signals while it is entered, in the main thread; elsewhere it does nothing.

    After the first signal `requested` holds it and no step should be started. After a second one, or `GRACE` seconds,
    whatever runs inside `interruptible()` gets a KeyboardInterrupt, and `on_second` is called. If that does not help
    for as long again, `on_stuck` is called from another thread, to save what can be saved and leave.
    """

    def __init__(
        self, *, on_first: Callable[[int], None], on_second: Callable[[], None], on_stuck: Callable[[int], None]
    ) -> None:
        self.requested: int | None = None
        #: Whether running steps were told to stop.
        self.stopping = False
        self._on_first = on_first
        self._on_second = on_second
        self._on_stuck = on_stuck
        #: The threads that run user code now.
        self._inside: set[int] = set()
        self._timer: threading.Timer | None = None
        self._previous: dict[int, object] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer.join()  # or else its signal might come when nobody takes it
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType]

    @contextmanager
    def interruptible(self) -> Generator[None]:
        """A block that a signal may break off, with KeyboardInterrupt: user code, not our own bookkeeping."""
        thread = threading.get_ident()
        self._inside.add(thread)
        try:
            if self.stopping:
                raise KeyboardInterrupt
            yield
        finally:
            self._inside.discard(thread)

    def stop(self, number: int) -> None:
        """The same as two signals at once. From any thread."""
        if self.requested is None:
            self.requested = number
        if self._previous:
            # A real one, which ends what the main thread waits for; it finds that it is the second.
            signal.pthread_kill(threading.main_thread().ident or 0, number)
        else:
            self.stopping = True
            self._on_second()
            self._interrupt()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested is None:
            self.requested = number
            main = threading.get_ident()  # where handlers run; a real signal also ends its waiting
            self._start_timer(lambda: signal.pthread_kill(main, number))
            self._on_first(number)
        elif not self.stopping:
            self.stopping = True
            self._start_timer(lambda: self._on_stuck(number))
            self._on_second()
            self._interrupt()
        else:
            self._interrupt()

    def _interrupt(self) -> None:
        """Raise KeyboardInterrupt in every thread that runs user code, as soon as it runs Python code again."""
        here = threading.get_ident()
        for thread in self._inside - {here}:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(KeyboardInterrupt))
        if here in self._inside:
            raise KeyboardInterrupt

    def _start_timer(self, action: Callable[[], None]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = threading.Timer(GRACE, action)
        self._timer.daemon = True
        self._timer.start()
