"""Where the things of a project come from: their source, the statements behind them, and what is the project's at all.

Nothing is imported to find out, and every file is read once.
"""

import ast
import os
import sys
import types
from collections.abc import Iterable, Mapping
from typing import Any, cast

from headwater.catalog.definitions.installed import is_installed
from headwater.catalog.definitions.syntax import Body, SourceFile, analyse, dotted, module_imports, read_source


class Statements:
    """Stands for a value that cannot be told: the statements that made it."""

    __slots__ = ("bodies", "name", "namespace")

    def __init__(self, bodies: list[Body], namespace: Mapping[str, Any], name: str) -> None:
        self.bodies = bodies
        self.namespace = namespace
        self.name = name


class Module:
    """Stands for a module of the project as a whole: it may not be loaded."""

    __slots__ = ("file", "name")

    def __init__(self, name: str, file: str) -> None:
        self.name = name
        self.file = file


class Sources:
    """The source files of one load."""

    def __init__(self) -> None:
        self._files: dict[str, SourceFile | None] = {}
        self._modules: dict[str, Module | None] = {}
        # By identity of trees that the files keep alive.
        self._bodies: dict[int, Body] = {}

    def body_of_function(self, function: types.FunctionType) -> Body | None:
        """What the source of a function says; None where there is none, or not the one that was loaded."""
        source = self._file(function.__code__.co_filename, function.__globals__)
        trees = source.function(function.__code__) if source else []
        bodies = [self._analyse(tree, evaluated=True) for tree in trees]
        return _together(bodies) if len(bodies) > 1 else bodies[0] if bodies else None

    def bodies_of_class(self, cls: type) -> list[Body]:
        """What the source of a class says, every one of that name; empty where there is none."""
        source = self._file(str(getattr(sys.modules.get(cls.__module__), "__file__", None) or ""))
        trees = source.definitions.get(cls.__qualname__, []) if source else []
        return [self._analyse(tree, evaluated=False) for tree in trees]

    def surroundings(self, function: types.FunctionType) -> Statements | None:
        """The function in which this one was made: it made what this one closes over."""
        source = self._file(function.__code__.co_filename, function.__globals__)
        around = function.__qualname__.rpartition(".<locals>.")[0]
        trees = source.definitions.get(around, []) if source else []
        bodies = [self._analyse(tree, evaluated=True) for tree in trees]
        return Statements(bodies, function.__globals__, function.__qualname__) if bodies else None

    def decorators(self, function: types.FunctionType) -> list[str]:
        """The decorators of a function but Headwater's, for where what they made of it cannot be looked into."""
        source = self._file(function.__code__.co_filename, function.__globals__)
        return [
            self._analyse(decorator, evaluated=False).digest
            for tree in (source.function(function.__code__) if source else [])
            for decorator in getattr(tree, "decorator_list", ())
            if not _is_ours(decorator, function.__globals__)
        ]

    def origin(self, name: str, namespace: Mapping[str, Any]) -> Statements | str | None:
        """The statements that bind a global, in the module that it was imported from.

        The full name of what comes from a package; None where there is no source.
        """
        for _ in range(20):  # an import of an import of …
            source = self._file(str(namespace.get("__file__") or ""))
            if source is None:
                return None
            statements = source.bindings.get(name, [])
            imports = [s for s in statements if isinstance(s, ast.ImportFrom)]
            wanted = [(s.module or "", s.level) for s in imports] if statements else source.stars
            if not wanted:
                bodies = [self._analyse(statement, evaluated=False) for statement in statements]
                return Statements(bodies, namespace, name) if bodies else None
            name = next((a.name for s in imports for a in s.names if (a.asname or a.name) == name), name)
            found = [_absolute(module, level, namespace.get("__package__")) for module, level in wanted]
            loaded = [m for m in found if name in vars(sys.modules.get(m) or types.ModuleType(m))]
            if not loaded:
                return None
            if self.module(loaded[-1]) is None:
                return f"{loaded[-1]}.{name}"
            namespace = vars(sys.modules[loaded[-1]])
        return None

    def imported(self, imports: Iterable[tuple[str, int, tuple[str, ...]]], package: str) -> list[Module]:
        """The project's modules among what statements in `package` import."""
        found: dict[str, Module] = {}
        for module, level, names in imports:
            base = _absolute(module, level, package)
            for name in (base, *(f"{base}.{part}" for part in names)):
                known = self.module(name)
                if known is not None:
                    found[name] = known
        return list(found.values())

    def read_module(self, module: Module) -> tuple[str, list[Module]]:
        """The digest of a whole module, and the project's modules that it imports anywhere."""
        source = self._file(module.file)
        if source is None:
            return module.name, []
        is_package = os.path.basename(module.file) == "__init__.py"
        package = module.name if is_package else module.name.rpartition(".")[0]
        imported = self.imported(module_imports(source.tree), package)
        return self._analyse(source.tree, evaluated=False).digest, imported

    def module(self, name: str) -> Module | None:
        """A module of the project by its full name, loaded or not; None for every other one."""
        if name not in self._modules:
            loaded = sys.modules.get(name)
            file = _find_module(name) if loaded is None else str(getattr(loaded, "__file__", None) or "")
            self._modules[name] = Module(name, file) if file and is_project(file, name) else None
        return self._modules[name]

    def is_project_module(self, module: types.ModuleType) -> bool:
        """Whether a loaded module is the user's; a package without a file is by its folders."""
        if self.module(module.__name__) is not None:
            return True
        return any(not is_installed(os.path.join(folder, "")) for folder in getattr(module, "__path__", ()))

    def _file(self, name: str, namespace: Any = None) -> SourceFile | None:
        if name not in self._files:
            self._files[name] = read_source(name, namespace) if name else None
        return self._files[name]

    def _analyse(self, tree: ast.AST, *, evaluated: bool) -> Body:
        if id(tree) not in self._bodies:
            self._bodies[id(tree)] = analyse(tree, evaluated=evaluated)
        return self._bodies[id(tree)]


def is_project(file: str, module: object) -> bool:
    """Whether code counts as the user's: no installed package, no standard library, not Headwater."""
    return str(module).partition(".")[0] != "headwater" and not file.startswith("<frozen") and not is_installed(file)


def is_project_function(function: Any) -> bool:
    """Whether something is a function of the user's."""
    return type(function) is types.FunctionType and is_project(function.__code__.co_filename, function.__module__)


def is_project_class(cls: type) -> bool:
    """Whether a class is the user's. One whose module has no file is if one of its methods is."""
    name = str(cast(object, cls.__module__))
    file = getattr(sys.modules.get(name), "__file__", None)
    if name.partition(".")[0] in sys.stdlib_module_names:
        return False
    return is_project(str(file), name) if file else any(map(is_project_function, vars(cls).values()))


def _find_module(name: str) -> str:
    """The file of a module that is not loaded; empty where there is none."""
    for folder in sys.path:
        base = os.path.join(folder or os.curdir, *name.split("."))
        for file in (f"{base}.py", os.path.join(base, "__init__.py")):
            if name and os.path.isfile(file):
                return file
    return ""


def _absolute(module: str, level: int, package: object) -> str:
    """The full name of what an import statement in `package` names."""
    if not level:
        return module
    base = str(package or "").rsplit(".", level - 1)[0]
    return f"{base}.{module}" if module else base


def _is_ours(decorator: ast.expr, namespace: Mapping[str, Any]) -> bool:
    """Whether a decorator is one of Headwater's: what matters of it is versioned apart."""
    chain = dotted(decorator.func if isinstance(decorator, ast.Call) else decorator)
    value = namespace.get(chain[0]) if chain else None
    name = value.__name__ if type(value) is types.ModuleType else getattr(value, "__module__", None)
    return type(value) in (types.ModuleType, types.FunctionType) and str(name).partition(".")[0] == "headwater"


def _together(bodies: list[Body]) -> Body:
    """What several functions say that cannot be told apart: lambdas on one line."""
    return Body(
        " ".join(body.digest for body in bodies),
        tuple(sorted({name for body in bodies for name in body.names})),
        tuple(sorted({entry for body in bodies for entry in body.imports})),
    )
