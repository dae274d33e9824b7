"""What loading a project's files and modules gives, and what it says when that fails."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headwater.catalog.definitions.definitions import Definitions
from headwater.catalog.errors import DefinitionError, UsageError
from headwater.io.file_manager import FileIOManager
from headwater.materialize.code_location import load_definitions
from headwater.materialize.project import Project
from tests.project import ProjectFolder

ASSET = "from headwater import asset\n\n@asset\ndef {name}():\n    return 1\n"

Load = Callable[..., Definitions]


@pytest.fixture
def load(tmp_path: Path) -> Iterator[Load]:
    """Loads files and modules below `tmp_path`, and lets this process forget them afterwards."""
    path, modules = list(sys.path), set(sys.modules)

    def load_some(*files: str, modules: tuple[str, ...] = ()) -> Definitions:
        named = tuple(tmp_path / file for file in files)
        return load_definitions(Project(root=tmp_path, home=tmp_path / "home", files=named, modules=modules))

    yield load_some
    sys.path[:] = path
    for name in sys.modules.keys() - modules:
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


def write(folder: Path, name: str, text: str) -> None:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def test_a_relative_root_starts_from_the_project(
    project: ProjectFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever a command is given; in Python, from the current folder."""
    project.write("""
        from headwater import Definitions, FileIOManager, asset

        @asset
        def one() -> int:
            return 1

        definitions = Definitions([one], {"io_manager": FileIOManager("lake")})
        """)
    (project.path / "deep" / "er").mkdir(parents=True)
    assert ProjectFolder(project.path / "deep" / "er").built() == {"one": "SUCCESS"}
    assert len(list((project.path / "lake" / "one").iterdir())) == 1
    assert project.built() == {}
    monkeypatch.chdir(tmp_path)
    assert FileIOManager("lake").store.root == (tmp_path / "lake").as_uri()


def test_nothing_to_load(load: Load) -> None:
    with pytest.raises(UsageError, match="headwater init"):
        load()


def test_the_assets_of_a_file(tmp_path: Path, load: Load) -> None:
    write(tmp_path, "some_assets.py", ASSET.format(name="a") + ASSET.format(name="b"))
    assert list(load("some_assets.py").graph.nodes) == ["a", "b"]


def test_a_definitions_object_decides(tmp_path: Path, load: Load) -> None:
    text = ASSET.format(name="a") + ASSET.format(name="b")
    write(tmp_path, "some_assets.py", f"{text}\nfrom headwater import Definitions\ndefs = again = Definitions([b])\n")
    assert list(load("some_assets.py").graph.nodes) == ["b"]


def test_several_files_and_modules(tmp_path: Path, load: Load) -> None:
    """Files of one name among them: each is a module of its own."""
    write(tmp_path, "one/some_assets.py", ASSET.format(name="a"))
    write(tmp_path, "two/some_assets.py", ASSET.format(name="b"))
    write(tmp_path, "some_package/__init__.py", "")
    write(tmp_path, "some_package/more.py", ASSET.format(name="c"))
    found = load("one/some_assets.py", "two/some_assets.py", modules=("some_package.more",))
    assert set(found.graph.nodes) == {"a", "b", "c"}
    found = load("one/some_assets.py", "two/some_assets.py", modules=("some_package.more",))
    assert set(found.graph.nodes) == {"a", "b", "c"}


def test_a_name_that_is_taken(tmp_path: Path, load: Load) -> None:
    """By a module of Python's: nobody who imports that one gets the project's."""
    write(tmp_path, "colorsys.py", ASSET.format(name="a"))
    assert list(load("colorsys.py").graph.nodes) == ["a"]
    assert list(load("colorsys.py").graph.nodes) == ["a"]
    assert "colorsys" not in sys.modules


def test_files_of_one_name_are_the_same_in_every_process(project: ProjectFolder) -> None:
    text = "import dataclasses\n@dataclasses.dataclass\nclass D:\n    n: int = 3\nX = D(1)\n"
    for folder, name in (("one", "a"), ("two", "b")):
        project.write(text + ASSET.format(name=name).replace("return 1", "return D(), X"), f"{folder}/assets.py")
    project.write('files = ["one/assets.py", "two/assets.py"]', "headwater.toml")
    assert project.json("ls") == project.json("ls")


def test_a_file_of_a_package_is_loaded_as_such(tmp_path: Path, load: Load) -> None:
    write(tmp_path, "src/some_package/__init__.py", "")
    write(tmp_path, "src/some_package/names.py", "PREFIX = 'p'")
    write(
        tmp_path,
        "src/some_package/more.py",
        "from .names import PREFIX\n" + ASSET.format(name="c").replace("@asset", "@asset(key_prefix=PREFIX)"),
    )
    assert list(load("src/some_package/more.py").graph.nodes) == ["p/c"]
    assert "some_package.more" in sys.modules


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x = 1", "defines no assets"),
        ("from headwater import Definitions\na, b = Definitions(), Definitions()", "holds 2 Definitions"),
        ("1 / 0", "(?s)some_assets.py.*line 1.*1 / 0.*ZeroDivisionError"),
        ("from headwater import MetadataValue\nMetadataValue.int('x')", r"(?s)line 2.*MetadataValue\.int\(…\)"),
        ("import sys\nsys.exit(3)", "(?s)line 2.*SystemExit: 3"),
        ("def f(:", "(?s)line 1.*SyntaxError"),
        ("import no_such_module_at_all", "(?s)line 1.*ModuleNotFoundError.*no_such_module_at_all"),
        ("x = '\\x00'\nraise ValueError('\\x1b]0;x')", "ValueError"),
    ],
)
def test_files_that_cannot_be_loaded(tmp_path: Path, load: Load, text: str, says: str) -> None:
    """Corrected, they can, in the same process: a notebook, a long-lived server."""
    write(tmp_path, "some_assets.py", text)
    with pytest.raises(DefinitionError, match=says) as caught:
        load("some_assets.py")
    assert "code_location" not in str(caught.value)
    assert "\x1b" not in str(caught.value)
    sys.modules.pop("some_assets", None)
    write(tmp_path, "some_assets.py", ASSET.format(name="a") + "# of another size\n" * 9)
    assert list(load("some_assets.py").graph.nodes) == ["a"]


@pytest.mark.parametrize("folder", ["", "headwater-shop/"])
def test_an_error_in_a_module_that_a_file_imports(tmp_path: Path, load: Load, folder: str) -> None:
    """Also one of ours, and wherever the project lies."""
    write(tmp_path, f"{folder}some_assets.py", "import some_part\n")
    for line, kind in (("{}['x']", "KeyError"), ("from headwater import AssetKey; AssetKey('')", "key")):
        write(tmp_path, f"{folder}some_part.py", f"def f():\n    {line}\n\nf()\n")
        with pytest.raises(DefinitionError, match=kind) as caught:
            load(f"{folder}some_assets.py")
        text = str(caught.value)
        for place in ('some_assets.py", line 1', 'some_part.py", line 4', 'some_part.py", line 2, in f'):
            assert place in text
        assert "importlib" not in text and "code_location" not in text and "keys.py" not in text


def test_an_interrupt_is_one(tmp_path: Path, load: Load) -> None:
    write(tmp_path, "some_assets.py", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        load("some_assets.py")


def test_no_python(tmp_path: Path, load: Load) -> None:
    write(tmp_path, "some.txt", "")
    with pytest.raises(UsageError, match="no Python file"):
        load("some.txt")


def test_modules_that_are_not_there(tmp_path: Path, load: Load) -> None:
    write(tmp_path, "some_package/__init__.py", "")
    write(tmp_path, "some_package/broken.py", "import no_such_module_at_all")
    for name in ("no_such_module_at_all", "some_package.other"):
        with pytest.raises(UsageError, match=f"no module `{name}`"):
            load(modules=(name,))
    with pytest.raises(DefinitionError, match="no_such_module_at_all"):
        load(modules=("some_package.broken",))
