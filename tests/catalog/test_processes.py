"""Whether a process is still there, told by its number and when it began: numbers are given out again."""

import os
import subprocess
import sys

from headwater.catalog.processes import is_running, start_ticks, this_host

HOST = this_host()


def test_a_process_that_is_there_and_then_is_not() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        ticks = start_ticks(child.pid)
        assert ticks is not None
        assert is_running(HOST, child.pid, ticks)
        assert is_running(HOST, child.pid, None)
        assert not is_running("another-host", child.pid, ticks)
        assert not is_running(HOST, child.pid, ticks - 1), "its number was given out again"
        child.communicate(b"\n")
    assert not is_running(HOST, child.pid, ticks)
    assert start_ticks(child.pid) is None


def test_a_number_that_this_process_has_was_somebody_elses_before() -> None:
    """In a container every first process is number 1, on a host of the same name."""
    ticks = start_ticks(os.getpid())
    assert ticks is not None and ticks == start_ticks(os.getpid())
    assert is_running(HOST, os.getpid(), ticks)
    assert not is_running(HOST, os.getpid(), ticks - 1)


def test_numbers_that_no_process_has() -> None:
    for pid in (0, -1, 1 << 80):
        assert not is_running(HOST, pid, None)
