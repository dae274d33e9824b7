"""The house: docs/decisions/0001-house.md says why."""

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
#: Folders of the repository that are no part of the package.
APART = {"tests", "sample_data", "benchmarks", "docs", "build", "dist"}


def settings() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def package_folders() -> set[str]:
    found: set[str] = set()
    for init in ROOT.rglob("__init__.py"):
        parts = init.parent.relative_to(ROOT).parts
        if not parts or (parts[0] not in APART and not parts[0].startswith(".")):
            found.add(".".join(("headwater", *parts)))
    return found


def tracked() -> list[str]:
    done = subprocess.run(
        ["git", "-c", "core.quotepath=off", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        pytest.skip("not a git checkout")
    return [name for name in done.stdout.split("\0") if name]


def test_every_package_folder_is_listed() -> None:
    assert set(settings()["tool"]["setuptools"]["packages"]) == package_folders()


def test_no_stray_module_at_the_root() -> None:
    assert {path.name for path in ROOT.glob("*.py")} == {"__init__.py", "__main__.py"}


def test_required_dependencies_are_few() -> None:
    names = {line.split(">")[0].split("=")[0] for line in settings()["project"]["dependencies"]}
    assert {"duckdb", "pyarrow", "pandas", "polars", "sqlglot", "textual"} <= names
    assert len(names) <= 12
    reasons = (ROOT / "docs" / "decisions" / "0002-dependencies.md").read_text("utf-8")
    assert all(f"**{name}**" in reasons or f"| {name} |" in reasons for name in names)


def test_constraints_hold_versions_only() -> None:
    for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines():
        assert "==" in line, line
        assert not any(sign in line for sign in ("@", "/", "--")), line


def test_the_wheel_holds_every_tracked_file_of_the_package_and_nothing_else(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for name in tracked():
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(source)],
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    tops = {folder.split(".")[1] for folder in package_folders() if "." in folder}
    wanted = {f"headwater/{name}" for name in tracked() if name.split("/")[0] in tops}
    assert held == wanted | {"headwater/__init__.py", "headwater/__main__.py", "headwater/py.typed"}


def test_the_import_contracts_hold() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True))",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_nothing_tracked_names_a_machine() -> None:
    """Paths of one machine and addresses of package registries have no place in a project."""
    words = ["/" + "root/", "/" + "work/", "index" + "-url", "/" + "home/"]
    for name in tracked():
        path = ROOT / name
        if path.suffix in (".parquet", ".svg", ".png") or not path.is_file():
            continue
        text = path.read_text("utf-8", "replace")
        assert not [word for word in words if word in text], name
