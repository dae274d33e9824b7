"""How a project's definitions get into this process."""

import hashlib
import importlib
import importlib.util
import os
import sys
import traceback
import weakref
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from headwater.catalog.definitions.alerts import AlertPolicy
from headwater.catalog.definitions.definitions import Definitions, assets_of_module, objects_of_module
from headwater.catalog.definitions.job import JobDefinition
from headwater.catalog.definitions.schedule import ScheduleDefinition
from headwater.catalog.definitions.sensor import SensorDefinition
from headwater.catalog.errors import DefinitionError, HeadwaterError, UsageError, UserCodeError
from headwater.io.location import PROJECT_FOLDER
from headwater.materialize.execution.user_traceback import user_frames, user_traceback
from headwater.materialize.project import Project

#: The project that definitions were loaded from.
_projects: "weakref.WeakKeyDictionary[Definitions, Project]" = weakref.WeakKeyDictionary()


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeLocation:
    """Where definitions come from, in plain data: a project's files and modules, or a variable of one module."""

    root: str
    files: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    #: The name of the variable, where the only module is not loaded as a project's is.
    variable: str | None = None

    def load(self) -> Definitions:
        """The definitions, imported. Raises what `load_definitions` does."""
        if self.variable is not None:
            return getattr(_import_module(self.modules[0]), self.variable)
        root = Path(self.root)
        return load_definitions(Project(root=root, home=root, files=tuple(map(Path, self.files)), modules=self.modules))


def location_of(definitions: Definitions) -> CodeLocation | None:
    """Where another process finds the same definitions; None for those that were made in this one alone."""
    definitions = definitions.whole
    project = _projects.get(definitions)
    if project is not None:
        return CodeLocation(root=str(project.root), files=tuple(map(str, project.files)), modules=project.modules)
    for name, module in list(sys.modules.items()):
        if name == "__main__" or getattr(module, "__spec__", None) is None:
            continue
        for variable, value in list(vars(module).items()):
            if value is definitions:
                return CodeLocation(root="", modules=(name,), variable=variable)
    return None


def load_definitions(project: Project) -> Definitions:
    """Import the project's files and modules and merge what they define.

    Of each module, its `Definitions` object counts, or else all assets found in it. Relative roots of IO managers start
    from the project's folder. Raises `DefinitionError` with
    the user's part of the traceback when importing fails, and whatever checking the definitions finds.
    """
    if not project.files and not project.modules:
        raise UsageError(
            "There are no definitions here.",
            remedy="Name them with -f FILE or -m MODULE, list them under [tool.headwater] in pyproject.toml as "
            'files = ["assets.py"], or start with `headwater init`.',
        )
    if str(project.root) not in sys.path:
        sys.path.insert(0, str(project.root))
    token = PROJECT_FOLDER.set(project.root)
    try:
        loaded = [_definitions_of(_import_file(file, project.root)) for file in project.files]
        loaded += [_definitions_of(_import_module(name)) for name in project.modules]
    finally:
        PROJECT_FOLDER.reset(token)
    definitions = loaded[0] if len(loaded) == 1 else Definitions.merge(*loaded)
    _projects[definitions] = project
    return definitions


def _definitions_of(module: ModuleType) -> Definitions:
    objects = [value for value in vars(module).values() if isinstance(value, Definitions)]
    unique = list({id(one): one for one in objects}.values())
    if len(unique) > 1:
        raise DefinitionError(
            f"{module.__file__ or module.__name__} holds {len(unique)} Definitions objects.",
            remedy="Keep one: Definitions.merge(…) joins several.",
        )
    if unique:
        return unique[0]
    found = assets_of_module(module)
    if not found:
        raise DefinitionError(
            f"{module.__file__ or module.__name__} defines no assets.",
            remedy="Decorate a function with @asset, or make a Definitions object.",
        )
    return Definitions(
        found,
        jobs=objects_of_module(module, JobDefinition),
        schedules=objects_of_module(module, ScheduleDefinition),
        sensors=objects_of_module(module, SensorDefinition),
        alerts=objects_of_module(module, AlertPolicy),
    )


def _import_file(file: Path, root: Path) -> ModuleType:
    """Import a file under its own name; one that belongs to a package, as a part of it."""
    folder, parts = file.parent, [file.stem]
    while (folder / "__init__.py").exists():
        parts.insert(0, folder.name)
        folder = folder.parent
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    if len(parts) == 1 and (name in sys.stdlib_module_names or _is_loaded(name, file) is False):
        # Another module has this name. Code versions hold the one chosen here, so it is the same in every process.
        place = os.path.relpath(file, root).encode("utf-8", "surrogateescape")
        name = f"{name}_{hashlib.blake2b(place, digest_size=4).hexdigest()}"
    if _is_loaded(name, file):
        return sys.modules[name]
    if len(parts) > 1:
        return _import_module(name)
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise UsageError(f"{file} is no Python file.", remedy="Name a file that ends in .py.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    with _user_errors(str(file)):
        try:
            spec.loader.exec_module(module)
        except BaseException:
            sys.modules.pop(name, None)
            raise
    return module


def _import_module(name: str) -> ModuleType:
    with _user_errors(f"the module {name}"):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
                raise UsageError(
                    f"There is no module `{name}`.",
                    remedy="Modules are looked for in the project's folder and among what is installed.",
                ) from None
            raise


class _user_errors:
    """Turns what importing user code raises into a `DefinitionError` with the user's part of the traceback.

    An error of ours stays what it is, and says where in user code it comes from.
    """

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None or isinstance(error, KeyboardInterrupt):
            return
        if isinstance(error, HeadwaterError) and not isinstance(error, UserCodeError):
            error.message = f"{error.message}\n{user_frames(error)}".rstrip()
            return
        text = user_traceback(error) or "".join(traceback.format_exception_only(error))
        raise DefinitionError(
            f"Importing {self._what} failed:\n{text.rstrip()}", remedy="Correct it and run the command again."
        ) from error


def _is_loaded(name: str, file: Path) -> bool | None:
    """Whether the module of that name is this file; None where there is none."""
    if name not in sys.modules:
        return None
    known = getattr(sys.modules[name], "__file__", None)
    return known is not None and Path(known).exists() and Path(known).samefile(file)
