"""A project is found where its settings are, and settings that make no sense say so."""

import json
from pathlib import Path
from typing import Any

import pytest

from headwater.catalog.errors import UsageError
from headwater.materialize.project import HOME_VARIABLE, find_project


@pytest.fixture(autouse=True)
def no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(HOME_VARIABLE, raising=False)


def write(folder: Path, **files: str) -> Path:
    """A folder with files; a dot in a name is written as two underscores."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text, "utf-8")
    return folder


def test_without_settings(tmp_path: Path) -> None:
    project = find_project(folder=tmp_path)
    assert (project.root, project.home, project.files, project.modules) == (tmp_path, tmp_path / ".headwater", (), ())
    assert project.cache and project.config is None


def test_the_nearest_settings_upward(tmp_path: Path) -> None:
    write(tmp_path, headwater__toml='file = "outer.py"', outer__py="")
    inner = write(
        tmp_path / "inner",
        pyproject__toml='[tool.headwater]\nfiles = ["a.py"]\nmodules = ["m"]\ncache = false\nconfig = "run.toml"',
        a__py="",
    )
    deep = write(inner / "x" / "y", pyproject__toml="[tool.other]\nfiles = 3")
    for folder in (inner, deep):
        project = find_project(folder=folder)
        assert (project.root, project.files, project.modules) == (inner, (inner / "a.py",), ("m",))
        assert (project.home, project.cache, project.config) == (inner / ".headwater", False, inner / "run.toml")
    write(inner, headwater__toml='module = "own"')
    assert find_project(folder=deep).modules == ("own",)


def test_who_says_where_the_home_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, headwater__toml='home = "settings"')
    start = write(tmp_path / "sub")
    assert find_project(folder=start).home == tmp_path / "settings"
    monkeypatch.setenv(HOME_VARIABLE, "variable")
    assert find_project(folder=start).home == start / "variable"
    assert find_project(folder=start, home="argument").home == start / "argument"
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    assert find_project(folder=start, home="~/h").home == tmp_path / "me" / "h"


def test_files_that_the_caller_names(tmp_path: Path) -> None:
    write(tmp_path, headwater__toml='file = "gone.py"')
    start = write(tmp_path / "sub", a__py="")
    project = find_project(folder=start, files=["a.py"], modules=["m"])
    assert (project.root, project.files, project.modules) == (tmp_path, (start / "a.py",), ("m",))
    with pytest.raises(UsageError, match=r"no file .*sub/b\.py"):
        find_project(folder=start, files=["b.py"])
    with pytest.raises(UsageError, match=r"no file .*gone\.py"):
        find_project(folder=start)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("fles = ['a.py']", "no key `fles`.*Did you mean `files`"),
        ("files = 'a.py'", "files is a str.*a list"),
        ("files = [1]", "files holds a int"),
        ("cache = 1", "cache is a int"),
        ("files = [", "not valid TOML"),
    ],
)
def test_settings_that_make_no_sense(tmp_path: Path, text: str, says: str) -> None:
    write(tmp_path, headwater__toml=text)
    with pytest.raises(UsageError, match=f"(?s)headwater.toml.*{says}"):
        find_project(folder=tmp_path)


def test_settings_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "headwater.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="not valid TOML"):
        find_project(folder=tmp_path)


WORKSPACE: dict[str, Any] = {
    "load_from": [
        {"python_file": "a.py"},
        {"python_file": {"relative_path": "sub/b.py", "location_name": "b"}},
        {"python_module": "m"},
        {"python_module": {"module_name": "n.o"}},
    ]
}


@pytest.mark.parametrize("suffix", [".json", ".yaml", ".toml"])
def test_a_workspace(tmp_path: Path, suffix: str) -> None:
    if suffix == ".yaml":
        pytest.importorskip("yaml")
    write(tmp_path / "sub", b__py="")
    write(tmp_path, a__py="")
    text = json.dumps(WORKSPACE)  # which is YAML too
    if suffix == ".toml":
        entries = ('python_file = "a.py"', 'python_file.relative_path = "sub/b.py"', 'python_module = "m"')
        text = "".join(f"[[load_from]]\n{entry}\n" for entry in (*entries, 'python_module.module_name = "n.o"'))
    file = tmp_path / f"workspace{suffix}"
    file.write_text(text)
    project = find_project(folder=tmp_path, workspace=file)
    assert project.files == (tmp_path / "a.py", tmp_path / "sub" / "b.py")
    assert project.modules == ("m", "n.o")


@pytest.mark.parametrize("entries", ['[{"grpc_server": {}}]', '["a.py"]', '"a.py"', "5"])
def test_a_workspace_that_makes_no_sense(tmp_path: Path, entries: str) -> None:
    file = write(tmp_path, w__json=f'{{"load_from": {entries}}}') / "w.json"
    with pytest.raises(UsageError, match="load_from"):
        find_project(folder=tmp_path, workspace=file)
