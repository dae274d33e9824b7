"""Where a project is: its settings, its home, its files and modules. Finding them imports none of them.

A project is found as `docs/reference/cli.md` says: from files or modules named by the caller, or from
`[tool.headwater]` in the nearest `pyproject.toml` upward, or the same keys in `headwater.toml`.
"""

import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from headwater.catalog.documents import read_document
from headwater.catalog.errors import UsageError, nearest

HOME_NAME = ".headwater"
HOME_VARIABLE = "HEADWATER_HOME"

_KEYS = {"file": str, "files": list, "module": str, "modules": list, "home": str, "cache": bool, "config": str}
_LISTS = ("files", "modules")


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """Where definitions come from and where the home is."""

    #: The folder that relative paths start from; it is importable while definitions are loaded.
    root: Path
    home: Path
    files: tuple[Path, ...] = ()
    modules: tuple[str, ...] = ()
    #: Whether definitions may be remembered until a file, folder or environment variable that they read changes.
    cache: bool = True
    #: A file with a run's configuration, used where the caller names no other.
    config: Path | None = None

    @property
    def locator(self) -> list[list[str]]:
        """What tells one project from another."""
        return [[str(self.root)], [str(file) for file in self.files], list(self.modules)]

    @property
    def origin(self) -> dict[str, Any]:
        """Where another process finds the definitions, as plain JSON data."""
        return {
            "folder": str(self.root),
            "files": [str(file) for file in self.files],
            "modules": list(self.modules),
        }


def find_project(
    *,
    files: Sequence[str | Path] = (),
    modules: Sequence[str] = (),
    workspace: str | Path | None = None,
    home: str | Path | None = None,
    folder: Path | None = None,
) -> Project:
    """The project that a caller in `folder` (the current one by default) means.

    The home is `home`, else `HEADWATER_HOME`, else what the settings say, else `.headwater` beside them, or in
    `folder` where there are none. Raises `UsageError` for settings that make no sense.
    """
    start = (folder or Path.cwd()).absolute()
    found = _find_settings(start)
    root, settings = (found[0].parent, found[1]) if found else (start, {})
    home_path = home or os.environ.get(HOME_VARIABLE) or settings.get("home") or HOME_NAME
    base = start if home or os.environ.get(HOME_VARIABLE) else root
    location: tuple[tuple[Path, ...], tuple[str, ...]]
    if workspace is not None:
        location = _read_workspace(Path(workspace))
    elif files or modules:
        location = tuple(_existing(start / file) for file in files), tuple(modules)
    else:
        location = (
            tuple(_existing(root / file) for file in _listed(settings, "file", "files")),
            tuple(_listed(settings, "module", "modules")),
        )
    return Project(
        root=root,
        home=(base / Path(home_path).expanduser()).absolute(),
        files=location[0],
        modules=location[1],
        cache=bool(settings.get("cache", True)),
        config=root / settings["config"] if "config" in settings else None,
    )


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise UsageError(f"There is no file {path}.", remedy="Check the path; it starts from the current folder.")
    return path.resolve()


def _find_settings(start: Path) -> tuple[Path, dict[str, Any]] | None:
    """The nearest settings upward from `start`: the file and its table."""
    for folder in (start, *start.parents):
        own = folder / "headwater.toml"
        if own.is_file():
            return own, _checked(own, _read_toml(own))
        shared = folder / "pyproject.toml"
        if shared.is_file():
            table = _read_toml(shared).get("tool", {}).get("headwater")
            if table is not None:
                return shared, _checked(shared, table)
    return None


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not valid TOML: {error}.", remedy="Correct it.") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.", remedy="Check its permissions.") from None


def _checked(path: Path, table: Mapping[str, Any]) -> dict[str, Any]:
    for key, value in table.items():
        if key not in _KEYS:
            known = ", ".join(_KEYS)
            raise UsageError(
                f"{path}: [tool.headwater] has no key `{key}`.", remedy=nearest(key, _KEYS) or f"Its keys are {known}."
            )
        if not isinstance(value, _KEYS[key]):
            raise UsageError(
                f"{path}: {key} is a {type(value).__name__}.", remedy=f"It has to be a {_KEYS[key].__name__}."
            )
        wrong = [item for item in cast(list[object], value) if not isinstance(item, str)] if key in _LISTS else []
        if wrong:
            raise UsageError(f"{path}: {key} holds a {type(wrong[0]).__name__}.", remedy="It is a list of texts.")
    return dict(table)


def _listed(settings: Mapping[str, Any], one: str, several: str) -> Iterator[str]:
    if one in settings:
        yield settings[one]
    yield from settings.get(several, ())


def _read_workspace(path: Path) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """The files and modules of a workspace file: `load_from`, a list of `python_file` and `python_module` entries."""
    path = _existing(path.absolute())
    files: list[Path] = []
    modules: list[str] = []
    document = read_document(path)
    entries = document.get("load_from", [])
    for entry in cast(list[Any], entries) if isinstance(entries, list) else [entries]:
        match entry:
            case {"python_file": {"relative_path": str(name)}} | {"python_file": str(name)}:
                files.append(_existing(path.parent / name))
            case {"python_module": {"module_name": str(name)}} | {"python_module": str(name)}:
                modules.append(name)
            case _:
                raise UsageError(
                    f"{path}: load_from has the entry {entry!r}.",
                    remedy="An entry is a python_file or a python_module.",
                )
    return tuple(files), tuple(modules)
