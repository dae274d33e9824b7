"""The process from which workers are forked (`nursery`), as whoever wants workers knows it."""

import contextlib
import signal
import socket
import subprocess
import sys

from headwater.materialize.executors.nursery import ANSWER

#: What is worth loading once for all workers, where this process has loaded it: up to a second together. DuckDB is not
#: among them, as the catalog loads it whether steps use it or not.
_LIBRARIES = ("numpy", "pyarrow", "pandas", "polars")
#: What tables take besides.
_FOR_TABLES = ("pyarrow.parquet", "headwater.io.frames", "headwater.io.parquet")


class ForkServer:
    """A process that forks workers, which do what the function `serve` of the module `work` does with a socket."""

    def __init__(self, work: str) -> None:
        loaded = [name for name in _LIBRARIES if name in sys.modules]
        libraries = (*loaded, *_FOR_TABLES) if loaded else ()
        #: Readable when there is something to hear.
        self.control, theirs = socket.socketpair()
        code = (
            f"import sys; sys.path[:] = {sys.path!r}; from headwater.materialize.executors.nursery import main; "
            f"main({theirs.fileno()}, {work!r}, {libraries!r})"
        )
        with theirs:
            # A session of its own: what is typed at the terminal is for this process to understand.
            self._process = subprocess.Popen(
                [sys.executable, "-c", code],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        self._answers = bytearray()

    @property
    def exit_code(self) -> int | None:
        """How it ended, once it was stopped."""
        return self._process.returncode

    def fork(self) -> socket.socket:
        """Ask for a worker; what it is talked to through."""
        ours, theirs = socket.socketpair()
        with theirs, contextlib.suppress(ConnectionError):  # it died: that is heard of, too
            socket.send_fds(self.control, [b"+"], [theirs.fileno()])
        return ours

    def hear(self) -> list[tuple[int, int]] | None:
        """What it says of workers: pairs as in `nursery`. None when it is gone, and every worker with it."""
        data = read_now(self.control)
        if not data:
            return None
        self._answers += data
        whole = len(self._answers) // ANSWER.size * ANSWER.size
        found = list(ANSWER.iter_unpack(bytes(self._answers[:whole])))
        del self._answers[:whole]
        return [(process, status) for process, status in found]

    def stop(self) -> None:
        """End it, and with it every worker."""
        self.control.close()
        self._process.wait()


def read_now(connection: socket.socket) -> bytes:
    """What is there to be read; nothing when the other side is gone."""
    try:
        return connection.recv(1 << 16, socket.MSG_DONTWAIT)
    except (ConnectionError, BlockingIOError):
        return b""


def ending(code: int | None) -> str:
    """How a process ended, in words."""
    if code is None or code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:  # a real-time signal has no name
        return f"was killed by signal {-code}"
