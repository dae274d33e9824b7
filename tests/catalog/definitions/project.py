"""Projects written to disk and imported afresh, for tests."""

import contextlib
import importlib
import sys
from collections.abc import Generator, Mapping
from pathlib import Path
from textwrap import dedent
from types import ModuleType


def write_project(folder: Path, files: Mapping[str, str]) -> Path:
    """Write files below `folder`."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text), "utf-8")
    return folder


@contextlib.contextmanager
def imported(folder: Path, module: str = "assets") -> Generator[ModuleType]:
    """A module of a project, imported as if for the first time; forgotten afterwards, with all that it imported."""
    known = dict(sys.modules)
    path = list(sys.path)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield importlib.import_module(module)
    finally:
        sys.path[:] = path
        for name in set(sys.modules) - set(known):
            file = getattr(sys.modules[name], "__file__", None) or ""
            if file.startswith(str(folder)) or not file:
                del sys.modules[name]
