"""What becomes of a command whose output goes nowhere: a full disk, a closed descriptor, a reader who has enough."""

import os
import re
import subprocess
import sys

import pytest

from tests.project import ProjectFolder

pytestmark = pytest.mark.faults


@pytest.fixture
def noisy(project: ProjectFolder) -> ProjectFolder:
    project.write("""
        from headwater import asset

        print("importing")

        @asset
        def one() -> int:
            print("computing")
            return 1
        """)
    return project


def shell(project: ProjectFolder, line: str) -> "subprocess.CompletedProcess[str]":
    """Run a line of a shell in which `headwater` is this one."""
    script = f'set -o pipefail; headwater() {{ "{sys.executable}" -m headwater "$@"; }}; {line}'
    return subprocess.run(
        ["bash", "-c", script], cwd=project.path, env=project.environment(), capture_output=True, text=True, timeout=120
    )


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
@pytest.mark.parametrize("command", ["ls", "ls --json", "materialize", "materialize --json", "--help"])
def test_an_answer_that_cannot_be_written(noisy: ProjectFolder, command: str) -> None:
    done = shell(noisy, f"headwater {command} > /dev/full")
    assert done.returncode == 5, done.stderr
    assert re.search(r"Error \[E-DISKFULL\] The answer could not be written: .+\n.+\n\Z", done.stderr)
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr
    if "materialize" in command:
        assert [run["status"] for run in noisy.json("runs")["runs"]] == ["SUCCESS"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_messages_that_cannot_be_said(noisy: ProjectFolder) -> None:
    done = shell(noisy, "headwater ls --json 2> /dev/full")
    assert done.returncode == 0 and done.stdout.startswith('{"assets":')
    assert shell(noisy, "headwater nope 2> /dev/full").returncode == 2
    assert shell(noisy, "headwater materialize --force 2> /dev/full").returncode == 0


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_descriptors(noisy: ProjectFolder, closed: str) -> None:
    for command in ("ls", "materialize --force"):
        done = shell(noisy, f"headwater {command} {closed}")
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr and "importing" not in done.stdout
    assert [run["status"] for run in noisy.json("runs")["runs"]] == ["SUCCESS"]


def test_a_reader_who_has_seen_enough(noisy: ProjectFolder) -> None:
    noisy.built()
    done = shell(noisy, "headwater sql 'select * from range(300000)' --csv | head -1")
    assert (done.returncode, done.stdout) == (0, "range\n")
    assert not done.stderr
