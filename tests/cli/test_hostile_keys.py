"""Every hostile string as an asset's key, and in all that surrounds it, through every command.

One project holds them all. What needs a command for each key is run in one process, because starting one takes a
hundred times as long as the command.
"""

import contextlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from headwater.catalog.errors import InvalidKeyError
from headwater.catalog.keys import AssetKey
from headwater.catalog.printable import printable
from tests.corpus import BIDI, CONTROL, HOSTILE, MARKUP
from tests.project import ProjectFolder
from tests.s3_server import Bucket

PROJECT = """
import json
import os
import pathlib

import pyarrow as pa
from headwater import AssetExecutionContext, Definitions, FileIOManager, MetadataValue, Output, asset

corpus = json.loads((pathlib.Path(__file__).parent / "corpus.json").read_text("utf-8"))


def make(segment, text):
    @asset(
        key=[segment], deps=["root"], description=text, metadata={"text": text, "path": MetadataValue.path(text)},
        group_name="hostile",
    )
    def hostile() -> Output[dict]:
        return Output({"key": segment, "text": text}, metadata={"text": text, "md": MetadataValue.md(text)})

    return hostile


@asset
def root() -> int:
    return 1


@asset
def wide() -> pa.Table:
    return pa.table({name: [name] for name in corpus["columns"]})


@asset
def noisy(context: AssetExecutionContext) -> int:
    for text in corpus["texts"]:
        context.log.warning("%s", text)
        print(text)
    return 1


@asset
def failing() -> int:
    raise ValueError("".join(corpus["texts"]))


definitions = Definitions(
    assets=[root, wide, noisy, failing, *(make(*pair) for pair in corpus["pairs"])],
    resources={"io_manager": FileIOManager(root=os.environ.get("ROOT"))},
)
"""
#: Runs many commands and tells what each printed.
DRIVER = """
import contextlib, io, json, sys
from headwater.cli.main import main

def run(arguments):
    streams = [io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2)]
    with contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]):
        try:
            main(arguments)
        except SystemExit as done:
            code = done.code
        except BaseException as error:
            code = f"{type(error).__name__}: {error}"
    return [code, *(stream.buffer.getvalue().decode("utf-8") for stream in streams)]

commands = json.load(sys.stdin)
json.dump([run(arguments) for arguments in commands], sys.stdout)
"""


def keys() -> dict[AssetKey, str]:
    """Each string that can be a segment, as the key it makes."""
    found: dict[AssetKey, str] = {}
    for text in HOSTILE:
        try:
            found[AssetKey([text])] = text
        except InvalidKeyError:
            continue
    return found


KEYS = keys()
#: Texts that no key may hold, but everything else may. (JSON and UTF-8 have no half surrogates.)
TEXTS = [text for text in (*CONTROL, *BIDI, *MARKUP) if text.isprintable() or "\ud800" not in text]


def encodable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def write_project(project: ProjectFolder) -> None:
    texts = [encodable(text) for text in HOSTILE]
    by_case = {text.casefold(): text for text in texts if 0 < len(text) < 100}
    corpus = {
        "pairs": [[segment, texts[i % len(texts)]] for i, segment in enumerate(KEYS.values())],
        "columns": [*by_case.values()],
        "texts": texts,
    }
    (project.path / "corpus.json").write_text(json.dumps(corpus), "utf-8")
    project.write(PROJECT)


def run_all(project: ProjectFolder, commands: list[list[str]]) -> list[tuple[Any, str, str]]:
    done = subprocess.run(
        [sys.executable, "-c", DRIVER],
        cwd=project.path,
        env=project.environment(),
        input=json.dumps(commands),
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [(code, out, err) for code, out, err in json.loads(done.stdout)]


def check(arguments: list[str], code: Any, out: str, err: str, codes: tuple[int, ...] = (0,)) -> None:
    assert code in codes, (arguments, code, out[-500:], err[-2000:])
    assert "Traceback" not in err, (arguments, err)
    for text in (out, err):
        assert printable(text) == text, (arguments, [char for char in text if printable(char) != char][:5])


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> ProjectFolder:
    """The project, built on the local disk beside a file that nobody has to touch."""
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "canary").write_text("untouched")
    project = ProjectFolder(folder / "project")
    project.path.mkdir()
    (project.path / "headwater.toml").write_text('files = ["assets.py"]\n', "utf-8")
    write_project(project)
    done = project.run("materialize", 'not key:"failing"', "--json")
    steps = {step["key"]: step["status"] for step in done.json["steps"]}
    assert steps == dict.fromkeys((*KEYS, "root", "wide", "noisy"), "SUCCESS")
    check(["materialize"], done.code, "", done.err)
    return project


def test_nothing_is_written_outside(built: ProjectFolder) -> None:
    assert (built.path.parent / "canary").read_text() == "untouched"
    assert sorted(os.listdir(built.path.parent)) == ["canary", "project"]
    assert sorted(os.listdir(built.path)) == [".headwater", "assets.py", "corpus.json", "headwater.toml"]
    data = built.path / ".headwater" / "data"
    files = [path for path in data.rglob("*") if path.is_file()]
    assert len(files) == len(KEYS) + 3
    for path in files:
        assert path.resolve().is_relative_to(data.resolve())


def test_every_command_over_all_keys(built: ProjectFolder) -> None:
    run_id = built.json("runs", "--status", "success")["runs"][0]["run_id"]
    commands = [
        ["ls"],
        ["status"],
        ["status", "--partitions"],
        ["plan", "--force"],
        ["lineage"],
        ["lineage", "--columns"],
        ["lineage", "root"],
        ["search", "a"],
        ["search", "text"],
        ["show", "wide"],
        ["runs"],
        ["run", "show", run_id],
        ["logs", run_id],
        ["logs", run_id, "noisy"],
        ["events", "--limit", "10000"],
        ["sql", "select * from assets order by key"],
        ["sql", "select * from materializations"],
        ["sql", "select * from columns"],
        ["sql", "select * from lineage"],
        ["sql", "select * from events"],
        ["sql", "select * from wide"],
        ["versions", "noisy"],
    ]
    commands += [[*command, "--json"] for command in commands]
    commands += [["lineage", "--format", form] for form in ("dot", "mermaid")]
    found = run_all(built, commands)
    documents: dict[str, Any] = {}
    for arguments, (code, out, err) in zip(commands, found, strict=True):
        check(arguments, code, out, err)
        if arguments[-1] == "--json":
            assert out.isascii()
            documents[" ".join(arguments[:-1])] = json.loads(out)

    every = {*KEYS, "root", "wide", "noisy", "failing"}
    assert {asset["key"] for asset in documents["ls"]["assets"]} == every
    assert {asset["key"] for asset in documents["status"]["assets"]} == every
    assert {node["key"] for node in documents["lineage"]["nodes"]} == every
    assert {edge["downstream"] for edge in documents["lineage"]["edges"]} == set(KEYS)
    assert {row["key"] for row in documents["sql select * from assets order by key"]["rows"]} == every
    (built_run,) = [run for run in documents["runs"]["runs"] if run["run_id"] == run_id]
    assert {step["key"] for step in built_run["steps"]} == every - {"failing"}
    texts = {asset["key"]: asset["description"] for asset in documents["ls"]["assets"]}
    hostile = [encodable(text) for text in HOSTILE]
    assert [texts[key] for key in KEYS] == [hostile[i % len(hostile)] or None for i in range(len(KEYS))]
    (printed,) = [step for step in documents[f"logs {run_id} noisy"]["steps"] if step["key"] == "noisy"]
    assert printed["stdout"] == "".join(f"{text}\n" for text in hostile)


def test_every_key_in_some_command(built: ProjectFolder) -> None:
    """A key by itself: quoted in a selection, bare where a key is asked for, in text or in JSON by turns."""
    commands: list[list[str]] = []
    some = [*KEYS][::5]
    for i, key in enumerate(some):
        quoted = '"' + key.replace("\\", "\\\\").replace('"', '\\"') + '"'
        command = [
            ["ls", quoted],
            ["show", "--", key],
            ["status", quoted],
            ["why", "--", key],
            ["plan", "--force", "--no-upstream", quoted],
            ["lineage", "--", key],
            ["versions", "--", key],
            ["events", "--", key],
            ["search", "--", key],
            ["sql", "--", "select * from assets where key = '{}'".format(key.replace("'", "''"))],
        ][i // 2 % 10]
        commands.append([command[0], "--json", *command[1:]] if i % 2 else command)
    for key, arguments, (code, out, err) in zip(some, commands, run_all(built, commands), strict=True):
        check(arguments, code, out, err)
        if "--json" in arguments:
            document = json.loads(out)
            named = [document.get("key")]
            for kind in ("assets", "steps", "rows", "nodes", "events"):
                named.extend(one.get("key", one.get("asset")) for one in document.get(kind, []))
            assert key in named, (arguments, named[:5])


def test_text_that_is_no_key(built: ProjectFolder) -> None:
    """An error of ours, one that names it and can be printed; never a traceback."""
    commands: list[list[str]] = []
    for i, text in enumerate(text for text in (*CONTROL, *BIDI, *MARKUP, "", "-", "--", "\ud800", "\udcff")):
        commands.append(
            [
                ["ls", "--", text],
                ["show", "--", text],
                ["status", text],
                ["why", "--", text],
                ["plan", "--", text],
                ["lineage", "--", text],
                ["versions", "--", text],
                ["events", "--", text],
                ["search", "--", text],
                ["sql", "--", text],
                ["logs", "--", text],
                ["run", "show", "--", text],
                ["runs", "--asset", text],
                ["runs", "--status", text],
                [text],
                [f"--{text}"],
                ["lineage", "--format", text],
                ["-f", text, "ls"],
                ["-m", text, "ls"],
                ["--wait", text, "ls"],
                ["materialize", "--config", text],
            ][i % 21]
        )
    for arguments, (code, out, err) in zip(commands, run_all(built, commands), strict=True):
        check(arguments, code, out, err, codes=(0, 2, 3, 5, 6))


def test_a_failure_full_of_control_characters(built: ProjectFolder) -> None:
    done = built.run("materialize", "failing", code=4)
    assert "ValueError" in done.err
    assert printable(done.err) == done.err and printable(done.out) == done.out
    (failed,) = built.json("runs", "--limit", "1")["runs"]
    for arguments in (["run", "show", failed["run_id"]], ["events", "failing"], ["show", "failing"]):
        for more in ([], ["--json"]):
            done = built.run(*arguments, *more)
            check(arguments, done.code, done.out, done.err)


def on_a_terminal(project: ProjectFolder, *arguments: str) -> str:
    """What a terminal receives of a command."""
    ours, theirs = os.openpty()
    with os.fdopen(ours, "rb", buffering=0) as screen:
        process = subprocess.Popen(
            [sys.executable, "-m", "headwater", *arguments],
            cwd=project.path,
            env={**project.environment(), "TERM": "xterm-256color"},
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=subprocess.PIPE,
        )
        os.close(theirs)
        received = b""
        with contextlib.suppress(OSError):  # Linux's way of saying that nobody will write any more
            while piece := screen.read(65536):
                received += piece
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    return received.decode()


def test_a_terminal_receives_our_colours_and_no_other_escapes(built: ProjectFolder) -> None:
    run = built.json("runs", "--status", "success")["runs"][0]
    shown = on_a_terminal(built, "run", "show", run["run_id"])
    assert "\x1b[32mSUCCESS\x1b[0m" in shown
    escapes = "select 'a' || chr(27) || '[2J' || chr(155) || 'b' as \"\x1b]0;x\x07\""
    for arguments in (["sql", escapes], ["sql", "--csv", escapes], ["show", "noisy"], ["logs", run["run_id"], "noisy"]):
        shown = on_a_terminal(built, *arguments)
        plain = re.sub("\x1b\\[[0-9;]*m", "", shown).replace("\r\n", "\n")
        assert printable(plain) == plain, arguments
    # In a pipe, --csv is the data itself.
    assert built.run("sql", "--csv", "select chr(27) || 'é' as x").out == "x\n\x1bé\n"


def test_in_a_bucket(tmp_path: Path, bucket: Bucket) -> None:
    project = ProjectFolder(
        tmp_path,
        {
            "ROOT": bucket.root,
            "AWS_ENDPOINT_URL": bucket.endpoint,
            "AWS_ACCESS_KEY_ID": "AKIATESTTESTTEST",
            "AWS_SECRET_ACCESS_KEY": "canary-secret-5f1d",
            "AWS_REGION": "us-east-1",
        },
    )
    (tmp_path / "headwater.toml").write_text('files = ["assets.py"]\n', "utf-8")
    write_project(project)
    done = project.run("materialize", 'not key:"failing"', "--json")
    assert len(done.json["steps"]) == len(KEYS) + 3
    assert {step["status"] for step in done.json["steps"]} == {"SUCCESS"}
    found = bucket.keys()
    assert len(found) == len(KEYS) + 3
    assert all(name.startswith("warehouse/") and ".." not in name.split("/") for name in found)
    assert project.json("plan", 'not key:"failing"')["steps"] == []
