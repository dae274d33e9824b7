import contextlib
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from headwater.catalog.records import LogSlice
from headwater.io.compute_logs import read_rest, read_slices
from headwater.materialize.execution import capture
from headwater.materialize.execution.capture import OutputCapture


def text(folder: Path, slices: list[LogSlice], stream: str) -> str:
    return b"".join(read_slices(folder, slices, stream)).decode()


def test_python_c_and_child_processes_are_captured_by_step(tmp_path: Path) -> None:
    with OutputCapture(tmp_path / "run") as captured:
        with captured.step(0) as first:
            print("python 1")
            os.write(1, b"descriptor 1\n")
            os.write(2, b"error 1\n")
            subprocess.run([sys.executable, "-c", "print('child 1')"], check=True)
        with captured.step(1) as second:
            print("python 2", file=sys.stderr)
    assert text(tmp_path / "run", first, "stdout") == "python 1\ndescriptor 1\nchild 1\n"
    assert text(tmp_path / "run", first, "stderr") == "error 1\n"
    assert text(tmp_path / "run", second, "stdout") == ""
    assert text(tmp_path / "run", second, "stderr") == "python 2\n"


def test_everything_is_as_before_afterwards(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = (sys.stdout, sys.stderr, os.fstat(1).st_ino, os.fstat(2).st_ino)
    with OutputCapture(tmp_path / "run") as captured, captured.step(0):
        print("inside")
    assert (sys.stdout, sys.stderr, os.fstat(1).st_ino, os.fstat(2).st_ino) == before
    for descriptor in Path("/proc/self/fd").glob("*"):  # none on systems without it
        with contextlib.suppress(FileNotFoundError):  # others come and go
            assert not str(descriptor.readlink()).startswith(str(tmp_path)), "a descriptor stays open"
    print("outside")
    assert capfd.readouterr().out == "outside\n"


def test_a_run_that_prints_nothing_leaves_no_files(tmp_path: Path) -> None:
    with OutputCapture(tmp_path / "run") as captured, captured.step(0) as slices:
        pass
    assert slices == []
    assert not (tmp_path / "run").exists()


def test_a_logging_handler_made_before_the_run_is_captured(tmp_path: Path) -> None:
    code = """
import logging, sys, pathlib
logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(message)s")
from headwater.materialize.execution.capture import OutputCapture
from headwater.io.compute_logs import read_slices
folder = pathlib.Path(sys.argv[1])
with OutputCapture(folder) as captured, captured.step(0) as slices:
    logging.info("from a handler")
assert b"".join(read_slices(folder, slices, "stderr")) == b"from a handler\\n"
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "run")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_what_is_said_to_the_person_goes_past_the_capture(tmp_path: Path) -> None:
    code = """
import sys, pathlib
from headwater.materialize.execution.capture import OutputCapture
with OutputCapture(pathlib.Path(sys.argv[1])) as captured, captured.step(0):
    print("hidden")
    captured.terminal().write("seen\\n")
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "run")], capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("", "seen\n")


def test_side_by_side_steps_have_files_of_their_own(tmp_path: Path) -> None:
    slices: dict[int, list[LogSlice]] = {}
    barrier = threading.Barrier(4)

    def work(captured: OutputCapture, number: int) -> None:
        with captured.step(number) as found:
            barrier.wait(10)
            for line in range(50):
                print(f"step {number} line {line}")
            barrier.wait(10)
        slices[number] = found

    with OutputCapture(tmp_path / "run", side_by_side=True) as captured:
        threads = [threading.Thread(target=work, args=(captured, n)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for number in range(4):
        assert text(tmp_path / "run", slices[number], "stdout") == "".join(
            f"step {number} line {line}\n" for line in range(50)
        )


def test_binary_and_unfinished_lines_are_kept_as_they_are(tmp_path: Path) -> None:
    blob = bytes(range(256)) * 10 + b"no newline"
    with OutputCapture(tmp_path / "run") as captured, captured.step(0) as slices:
        sys.stdout.buffer.write(blob)
        print("\udc80 lone surrogate", end="")
    assert b"".join(read_slices(tmp_path / "run", slices, "stdout")) == blob + b"\\udc80 lone surrogate"


@pytest.mark.parametrize("side_by_side", [False, True])
def test_a_step_that_prints_too_much_keeps_its_head_and_tail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side_by_side: bool
) -> None:
    monkeypatch.setattr(capture, "MAX_STEP_BYTES", 20_000)
    with OutputCapture(tmp_path / "run", side_by_side=side_by_side) as captured:
        with captured.step(0) as slices:
            for line in range(10_000):
                print(f"line {line:05d}")
        with captured.step(1) as after:
            print("the next step")
    kept = text(tmp_path / "run", slices, "stdout")
    assert kept.startswith("line 00000\n")
    assert kept.endswith("line 09999\n")
    assert "90,000 bytes of output left out" in kept
    assert len(kept) < 20_200
    assert text(tmp_path / "run", after, "stdout") == "the next step\n"


@pytest.mark.skipif(sys.platform != "linux", reason="disk space is given back early on Linux only")
def test_the_disk_a_running_step_takes_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture, "MAX_STEP_BYTES", 1 << 20)
    monkeypatch.setattr(capture, "_LOOK", 0.01)
    with OutputCapture(tmp_path / "run") as captured, captured.step(0):
        for _ in range(64):
            os.write(1, b"x" * (1 << 20))
        waited, taken = threading.Event(), 0
        for _ in range(500):
            taken = (tmp_path / "run" / "stdout").stat().st_blocks * 512
            if taken <= 4 << 20:
                break
            waited.wait(0.02)
        assert taken <= 4 << 20


def test_a_second_capture_in_the_same_process_leaves_the_first_alone(tmp_path: Path) -> None:
    with OutputCapture(tmp_path / "one") as outer, outer.step(0) as slices:
        with OutputCapture(tmp_path / "two") as inner, inner.step(0) as nothing:
            print("goes to the first")
        assert nothing == []
    assert text(tmp_path / "one", slices, "stdout") == "goes to the first\n"


def test_what_was_printed_survives_a_kill(tmp_path: Path) -> None:
    code = """
import os, signal, sys, pathlib
from headwater.materialize.execution.capture import OutputCapture
with OutputCapture(pathlib.Path(sys.argv[1])) as captured, captured.step(0):
    print("last words")
    os.write(2, b"and an error\\n")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "run")], check=False)
    assert b"".join(read_rest(tmp_path / "run", [], "stdout")) == b"last words\n"
    assert b"".join(read_rest(tmp_path / "run", [], "stderr")) == b"and an error\n"


def test_missing_log_files_read_as_empty(tmp_path: Path) -> None:
    gone = LogSlice(stream="stdout", file="stdout", offset=0, size=10)
    assert list(read_slices(tmp_path, [gone], "stdout")) == []
    assert list(read_rest(tmp_path / "nowhere", [], "stdout")) == []


def test_the_logger_of_a_library_does_not_lose_its_lines(tmp_path: Path) -> None:
    logger = logging.getLogger("some.library")
    with OutputCapture(tmp_path / "run") as captured, captured.step(0) as slices:
        handler = logging.StreamHandler()
        logger.addHandler(handler)
        logger.warning("made inside")
        logger.removeHandler(handler)
    assert text(tmp_path / "run", slices, "stderr") == "made inside\n"
