"""The process from which workers are forked: it has the heavy libraries loaded, and no thread, lock or connection.

Forking the run's own process would copy locks that other threads hold, and an open catalog. Starting every worker
anew would load the libraries again in each. So one process is started anew, loads them once, and is then forked: the
standard library's forkserver does the same, but imports the caller's `__main__` in every worker, and keeps the
environment of the first run.

Over a socket, the run asks for a worker by sending the descriptor that the worker is to talk through. The answers
are pairs of numbers: (process, `FORKED`) in the order of the requests, and (process, wait status) for each that
ended. When the run is gone, however it went, the socket closes, and every worker is killed with all it has started.
"""

import atexit
import contextlib
import ctypes
import gc
import importlib
import os
import select
import signal
import socket
import struct
import sys
import traceback
from collections.abc import Callable, Sequence
from types import FrameType

ANSWER = struct.Struct("=qq")
FORKED = -1
#: prctl(2): the signal that a process gets when its parent dies, Linux only.
_PR_SET_PDEATHSIG = 1


def main(control: int, work: str, libraries: Sequence[str]) -> None:
    """Load libraries and fork workers until the run is gone; in a worker, be it: the module `work` says how."""
    for name in libraries:
        with contextlib.suppress(Exception):  # it is for the worker that needs it to say what is wrong
            importlib.import_module(name)
    serve: Callable[[socket.socket], None] = importlib.import_module(work).serve
    gc.freeze()  # or else the workers' collections would copy every page
    worker = _Nursery(socket.socket(fileno=control)).run()
    code = 0 if worker is None else _serve(serve, worker)
    # The interpreter is not taken down: with what is frozen that only makes libraries complain of leaks.
    os._exit(code)


def _serve(serve: Callable[[socket.socket], None], worker: socket.socket) -> int:
    try:
        serve(worker)
        return 0
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        atexit._run_exitfuncs()  # pyright: ignore[reportPrivateUsage]
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()


class _Nursery:
    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._workers: set[int] = set()

    def run(self) -> socket.socket | None:
        """Returns in each worker with what it talks through, and in this process, with None, at the end."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's; what it means is for the run to say
        woken, wake = socket.socketpair()
        woken.setblocking(False)
        wake.setblocking(False)
        signal.signal(signal.SIGCHLD, _do_nothing)  # but wake the descriptor
        signal.set_wakeup_fd(wake.fileno())
        try:
            while True:
                readable, _, _ = select.select([self._control, woken], [], [])
                if woken in readable:
                    woken.recv(4096)
                    self._reap()
                if self._control in readable:
                    data, descriptors, _, _ = socket.recv_fds(self._control, 1, 1)
                    if not data:
                        return None
                    worker = self._fork(descriptors[0])
                    if worker is not None:
                        signal.set_wakeup_fd(-1)
                        for used in (woken, wake, self._control):
                            used.close()
                        return worker
        except ConnectionError:
            return None
        finally:
            for process in self._workers:
                _kill(process)
            for process in self._workers:  # whoever waits for this one knows that nobody writes any more
                os.waitpid(process, 0)

    def _fork(self, descriptor: int) -> socket.socket | None:
        parent = os.getpid()
        process = os.fork()
        if process:
            os.close(descriptor)
            self._workers.add(process)
            self._control.sendall(ANSWER.pack(process, FORKED))
            return None
        self._workers.clear()
        os.setsid()  # a group of its own: what a step starts is stopped with it
        for number in (signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(1)
        os.set_inheritable(descriptor, False)
        return socket.socket(fileno=descriptor)

    def _reap(self) -> None:
        while self._workers:
            process, status = os.waitpid(-1, os.WNOHANG)
            if not process:
                return
            self._workers.discard(process)
            _kill(process)  # what its step started and left behind
            self._control.sendall(ANSWER.pack(process, status))


def _do_nothing(number: int, frame: FrameType | None) -> None:
    pass


def _kill(group: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)
