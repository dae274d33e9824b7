"""Definitions are remembered exactly as long as loading them again would give the same. Each look is a new process."""

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

import headwater
from tests.project import ProjectFolder, date

#: Prints "loaded" where the definitions are loaded, and then the graph as far as it matters here.
LOOK = """
import json, sys
from pathlib import Path
import headwater
headwater.__version__ = sys.argv[2]
from headwater.materialize.definitions_cache import DefinitionsCache
from headwater.materialize.project import find_project
graph = DefinitionsCache(find_project(folder=Path(sys.argv[1]))).graph()
print(json.dumps({node.key: [node.description, node.code_version] for node in graph}))
"""

PLAIN = """
from headwater import asset
print("loaded")

@asset
def orders():
    "All."
    return 1
"""


class Looker:
    """A project with a home, looked at by one process after the other."""

    def __init__(self, project: ProjectFolder) -> None:
        self.project = project
        self.home = project.path / ".headwater"
        self.home.mkdir()
        self.env: dict[str, str] = {}
        self.version = headwater.__version__
        self.folder = project.path

    @property
    def file(self) -> Path:
        return self.home / "cache" / "definitions.msgpack"

    def write(self, source: str, name: str = "assets.py") -> None:
        self.project.write(source, name)

    def start(self) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-c", LOOK, str(self.project.path), self.version],
            cwd=self.folder,
            env={**self.project.environment(), **self.env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self, process: "subprocess.Popen[str]") -> tuple[bool, dict[str, list[str]]]:
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        *said, graph = out.splitlines()
        return "loaded" in said, json.loads(graph)

    def look(self) -> tuple[bool, dict[str, list[str]]]:
        """Whether the definitions had to be loaded, and what they are."""
        return self.finish(self.start())

    def loads(self) -> bool:
        return self.look()[0]

    def description(self) -> tuple[bool, str]:
        loaded, graph = self.look()
        return loaded, graph["orders"][0]


@pytest.fixture
def looker(project: ProjectFolder) -> Looker:
    looker = Looker(project)
    looker.write(PLAIN)
    return looker


def test_remembered_until_the_file_changes(looker: Looker) -> None:
    first = looker.look()
    assert first[0]
    assert looker.look() == (False, first[1])
    looker.write(PLAIN)  # touched
    assert not looker.loads()
    looker.write(PLAIN.replace("return 1", "return 2"))
    loaded, graph = looker.look()
    assert loaded and graph["orders"][1] != first[1]["orders"][1]
    assert not looker.loads()


def test_a_file_that_changed_just_now_is_not_trusted(looker: Looker) -> None:
    """It may have changed after it was read."""
    date(looker.project.write(PLAIN), -60)
    assert looker.loads()
    assert looker.loads()
    looker.write(PLAIN)
    assert looker.loads()
    assert not looker.loads()


def test_a_file_that_changes_while_it_is_loaded(looker: Looker) -> None:
    looker.write(
        """
        from pathlib import Path
        from headwater import asset
        print("loaded")
        note = Path(__file__).with_name("note.txt")
        text = note.read_text()
        note.write_text("second")

        @asset(description=text)
        def orders():
            return 1
        """
    )
    looker.write("first", "note.txt")
    assert looker.description() == (True, "first")
    assert looker.description() == (True, "second")


#: What the project reads, and how that changes.
READS: dict[str, tuple[str, Callable[[Looker, str], None]]] = {
    "an imported module": (
        "from helper import text",
        lambda looker, text: looker.write(f"text = {text!r}", "helper.py"),
    ),
    "a module that is imported when there is one": (
        "try:\n    from helper import text\nexcept ImportError:\n    text = 'one'",
        lambda looker, text: looker.write(f"text = {text!r}", "helper.py") if text != "one" else None,
    ),
    "a module of a package": (
        "from package.helper import text",
        lambda looker, text: looker.write(f"text = {text!r}", "package/helper.py"),
    ),
    "a text file": (
        "text = (Path(__file__).parent / 'note.txt').read_text()",
        lambda looker, text: looker.write(text, "note.txt"),
    ),
    "a text file that a package reads": (
        "from dotenv_like import read\ntext = read(str(Path(__file__).parent / 'note.txt'))",
        lambda looker, text: looker.write(text, "note.txt"),
    ),
    "a folder": (
        "text = min(p.name for p in (Path(__file__).parent / 'data').iterdir())",
        lambda looker, text: looker.write("", f"data/{'b' if text == 'one' else 'a'}"),
    ),
    "a variable": (
        "text = os.environ.get('NOTE', 'one')",
        lambda looker, text: looker.env.update({"NOTE": text} if text != "one" else {}),
    ),
    "a variable that a package reads": (
        "from dotenv_like import variable\ntext = variable('NOTE')",
        lambda looker, text: looker.env.update({"NOTE": text} if text != "one" else {}),
    ),
    "all variables": (
        "text = {k: v for k, v in os.environ.items()}.get('NOTE', 'one')",
        lambda looker, text: looker.env.update({"NOTE": text}),
    ),
    "a variable that it then sets itself": (
        "text = os.environ.get('NOTE', 'one')\nos.environ['NOTE'] = 'three'",
        lambda looker, text: looker.env.update({"NOTE": text} if text != "one" else {}),
    ),
}


@pytest.mark.parametrize("what", READS)
def test_forgotten_when_what_was_read_changes(looker: Looker, what: str) -> None:
    read, change = READS[what]
    looker.write(
        f"import os\nfrom pathlib import Path\nfrom headwater import asset\nprint('loaded')\n{textwrap.dedent(read)}\n"
        "@asset(description=text)\ndef orders():\n    return 1\n"
    )
    packages = looker.project.path.parent / "site-packages"
    packages.mkdir()
    source = "import os\ndef read(path):\n    return open(path).read()\n"
    source += "def variable(name):\n    return os.environ.get(name, 'one')\n"
    (packages / "dotenv_like.py").write_text(source)
    for path in (packages, packages / "dotenv_like.py"):
        date(path)
    looker.env["PYTHONPATH"] = os.pathsep.join([str(packages), os.environ.get("PYTHONPATH", "")])
    change(looker, "one")
    loaded, before = looker.description()
    assert loaded
    assert looker.description() == (False, before)
    change(looker, "two")
    loaded, after = looker.description()
    assert loaded and after != before


def test_a_relative_path_means_another_file_elsewhere(looker: Looker) -> None:
    looker.write(PLAIN.replace('    "All."\n', "").replace("@asset", "@asset(description=open('note.txt').read())"))
    looker.write("here", "note.txt")
    looker.write("there", "sub/note.txt")
    assert looker.description() == (True, "here")
    assert looker.description() == (False, "here")
    looker.folder = looker.project.path / "sub"
    assert looker.description() == (True, "there")


def test_a_name_that_is_no_text(looker: Looker) -> None:
    """It cannot be kept, and so nothing is."""
    (looker.project.path / os.fsdecode(b"caf\xe9.txt")).write_text("")
    looker.write(f"import os\nopen(os.fsdecode(b'caf\\xe9.txt')).close()\n{PLAIN}")
    assert looker.loads()
    assert looker.loads()


def test_a_module_that_is_only_imported_when_an_asset_runs(looker: Looker) -> None:
    """It is never loaded, and yet its code is part of the asset's."""
    looker.write("def make():\n    return 1\n", "helper.py")
    looker.write(PLAIN.replace("return 1", "from helper import make\n    return make()"))
    before = looker.look()[1]
    assert looker.look() == (False, before)
    looker.write("def make():\n    return 2\n", "helper.py")
    loaded, after = looker.look()
    assert loaded and after["orders"][1] != before["orders"][1]


def test_an_installed_package(looker: Looker) -> None:
    packages = looker.project.path.parent / "site-packages"
    packages.mkdir()
    date(packages)
    looker.env["PYTHONPATH"] = os.pathsep.join([str(packages), os.environ.get("PYTHONPATH", "")])
    assert looker.loads()
    (packages / "other").mkdir()
    date(packages, 30)
    assert looker.loads()
    assert not looker.loads()


def test_definitions_in_an_installed_package_are_not_remembered(looker: Looker) -> None:
    packages = looker.project.path.parent / "site-packages"
    packages.mkdir()
    (packages / "firm_assets.py").write_text(PLAIN)
    for path in (packages, packages / "firm_assets.py"):
        date(path)
    looker.write('module = "firm_assets"', "headwater.toml")
    looker.env["PYTHONPATH"] = os.pathsep.join([str(packages), os.environ.get("PYTHONPATH", "")])
    assert looker.loads()
    assert looker.loads()


PIPE = """
import os, threading
pipe = f"{__file__}.{os.getpid()}"
os.mkfifo(pipe)
threading.Thread(target=lambda: open(pipe, "w").write("x")).start()
assert open(pipe).read() == "x"
os.unlink(pipe)
"""


@pytest.mark.parametrize(
    "impure",
    [
        "import subprocess, sys; subprocess.run([sys.executable, '-c', ''])",
        "import sqlite3; sqlite3.connect(':memory:')",
        "import socket; socket.socket().connect_ex(('127.0.0.1', 9))",
        "import os; os.fork() or os._exit(0); os.wait()",
        PIPE,
    ],
)
def test_what_starts_processes_or_connects_is_not_remembered(looker: Looker, impure: str) -> None:
    looker.write(f"{impure}\n{PLAIN}")
    assert looker.loads()
    assert looker.loads()


def test_switched_off(looker: Looker) -> None:
    looker.write('files = ["assets.py"]\ncache = false', "headwater.toml")
    assert looker.loads()
    assert looker.loads()
    assert not looker.file.exists()


def test_a_lost_or_damaged_memory(looker: Looker) -> None:
    before = looker.look()[1]
    good = looker.file.read_bytes()
    middle = len(good) // 2
    flipped = good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1 :]
    for bad in (None, b"", good[:-1], flipped):
        if bad is None:
            looker.file.unlink()
        else:
            looker.file.write_bytes(bad)
        assert looker.look() == (True, before)
        assert looker.file.read_bytes() == good


def test_what_others_remember(looker: Looker) -> None:
    """Another version of Headwater, another PYTHONPATH, another project with the same home."""
    assert looker.loads()
    looker.version = "0.0.9"
    assert looker.loads()
    looker.env["PYTHONPATH"] = os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(looker.project.path)])
    assert looker.loads()
    assert not looker.loads()
    other = ProjectFolder(looker.project.path.parent / "other")
    other.write(f'files = ["assets.py"]\nhome = "{looker.home}"', "headwater.toml")
    other.write(PLAIN.replace("All.", "Other."))
    mine, looker.project = looker.project, other
    assert looker.description() == (True, "Other.")
    looker.project = mine
    assert looker.description() == (True, "All.")


def test_where_nothing_can_be_kept(looker: Looker) -> None:
    """In a home that is not there, or a file, or not to be written to. None is a reason to fail or to make one."""
    looker.home.rmdir()
    assert looker.loads()
    assert not looker.home.exists()
    looker.home.write_text("")
    assert looker.loads()
    looker.home.unlink()
    looker.home.mkdir()
    (looker.home / "cache").write_text("")
    assert looker.loads()
    (looker.home / "cache").unlink()
    looker.file.mkdir(parents=True)
    assert looker.loads()
    assert [path.name for path in (looker.home / "cache").iterdir()] == [looker.file.name]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_home_that_may_only_be_read(looker: Looker) -> None:
    before = looker.look()[1]
    looker.home.chmod(0o500)
    (looker.home / "cache").chmod(0o500)
    try:
        assert looker.look() == (False, before)
        looker.write(PLAIN.replace("All.", "New."))
        assert looker.description() == (True, "New.")
        assert looker.description() == (True, "New.")
    finally:
        (looker.home / "cache").chmod(0o700)
        looker.home.chmod(0o700)


def test_definitions_that_fail(looker: Looker) -> None:
    looker.look()
    good = looker.file.read_bytes()
    looker.write("raise ValueError('broken')")
    for _ in range(2):
        process = looker.start()
        _, err = process.communicate(timeout=60)
        assert process.returncode != 0 and "broken" in err
    assert looker.file.read_bytes() == good
    looker.write(PLAIN)
    assert not looker.loads()


def test_several_processes_at_once(looker: Looker) -> None:
    processes = [looker.start() for _ in range(4)]
    found = [looker.finish(process)[1] for process in processes]
    assert found == [found[0]] * 4
    assert looker.look() == (False, found[0])
    assert [path.name for path in (looker.home / "cache").iterdir()] == [looker.file.name]
