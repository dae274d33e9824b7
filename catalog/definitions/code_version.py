"""Automatic code versions: a hash of what a function does, not of how it is written down.

The version of a function covers its normalised syntax tree, the values it closes over and its defaults, and,
transitively, everything of the same project that it names: functions, classes, constants, what modules assign. What
comes from installed packages counts by name only. `docs/reference/code-versions.md` says it in full.

Versions are texts `py1:` + 32 hex digits. The tree is read from the file as it is while the definitions are being
loaded, once a file. Where there is no source, or not the one that was loaded, the byte code counts (`bc1:`).

Functions, classes and whatever else can be changed are the nodes of a graph whose edges are the names by which one
reaches another. Each node's digest is made of its own text and the digests of what it reaches, strongly connected
components (functions that call each other) as one: Tarjan, "Depth-first search and linear graph algorithms", 1972.
"""

import dis
import functools
import hashlib
import os
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import PurePath
from typing import Any

from headwater.catalog.definitions.sources import (
    Module,
    Sources,
    Statements,
    is_project_class,
    is_project_function,
)
from headwater.catalog.definitions.syntax import Body
from headwater.catalog.definitions.values import Telling, exact_type, is_record, plain_text, state_of

SCHEME = "py1"
BYTECODE_SCHEME = "bc1"

_CALLABLES = (types.FunctionType, types.BuiltinFunctionType, types.MethodType, functools.partial)


class _Node:
    """What something says by itself, and what it reaches under which name."""

    __slots__ = ("digest", "edges", "exact", "name", "parts")

    def __init__(self, *parts: str, name: str = "", exact: bool = True) -> None:
        self.parts = list(parts)
        self.edges: list[tuple[str, Any]] = []
        self.exact = exact
        #: How it is told apart from others that it reaches and that reach it.
        self.name = name
        #: Empty until everything that it reaches is known.
        self.digest = ""

    def add(self, label: str, value: Any) -> bool:
        """Take in a value: by its text where that says it all (True), otherwise as something reached."""
        text = plain_text(value, exact_type(value))
        if text is None:
            self.edges.append((label, _unwrap(value)))
            return False
        self.parts += (label, text)
        return True


class CodeVersions:
    """Computes code versions; keep one for a whole load, as it remembers what it has read."""

    def __init__(self) -> None:
        self._sources = Sources()
        # By identity, and kept alive, so that no identity comes up again.
        self._bodies: dict[int, tuple[object, Body]] = {}
        self._nodes: dict[int, tuple[object, _Node]] = {}
        self._globals: dict[tuple[int, str], tuple[object, list[tuple[str, Any]]]] = {}

    def of_function(self, function: Callable[..., Any]) -> str:
        """The code version of `function`."""
        return self._version(_unwrap(function))

    def of_class(self, cls: type) -> str:
        """The code version of a class of the project; of an installed one, its name."""
        return self._version(cls)

    def _version(self, thing: Any) -> str:
        known = self._nodes.get(id(thing))
        node = known[1] if known else self._look_at(thing)
        if node.edges and not node.digest:
            self._nodes[id(thing)] = (thing, node)
            self._settle(thing, node)
        elif not node.digest:  # the usual case, not worth remembering
            node.digest = _hash(node.parts)
        return f"{SCHEME if node.exact else BYTECODE_SCHEME}:{node.digest}"

    def _settle(self, thing: Any, node: _Node) -> None:
        """Give a node and all that it reaches their digests (Tarjan's algorithm, without recursion)."""
        number = {id(thing): 0}
        lowest = {id(thing): 0}
        open_nodes = [(id(thing), node)]
        path: list[tuple[int, Iterator[tuple[str, Any]]]] = [(id(thing), iter(node.edges))]
        while path:
            key, rest = path[-1]
            for _, target in rest:
                other, reached = id(target), self._node(target)
                if reached.digest:
                    continue
                if other not in number:
                    number[other] = lowest[other] = len(number)
                    open_nodes.append((other, reached))
                    path.append((other, iter(reached.edges)))
                    break
                lowest[key] = min(lowest[key], number[other])
            else:
                path.pop()
                if path:
                    lowest[path[-1][0]] = min(lowest[path[-1][0]], lowest[key])
                if lowest[key] == number[key]:
                    first = next(i for i in reversed(range(len(open_nodes))) if open_nodes[i][0] == key)
                    self._seal([member for _, member in open_nodes[first:]])
                    del open_nodes[first:]

    def _seal(self, members: list[_Node]) -> None:
        """The digests of things that reach each other; or of one thing, where it reaches only others."""
        inside = {id(member) for member in members}
        texts: list[str] = []
        exact = True
        for member in members:
            parts = member.parts
            exact = exact and member.exact
            for label, target in member.edges:
                reached = self._node(target)
                exact = exact and reached.exact
                parts += (label, f"→ {reached.name}" if id(reached) in inside else reached.digest)
            texts.append(_hash(parts))
        if len(members) > 1:
            together = sorted(f"{member.name} {text}" for member, text in zip(members, texts, strict=True))
            texts = [_hash([text, *together]) for text in texts]
        for member, text in zip(members, texts, strict=True):
            member.digest, member.exact = text, exact

    def _node(self, thing: Any) -> _Node:
        known = self._nodes.get(id(thing))
        if known is None:
            known = self._nodes[id(thing)] = (thing, self._look_at(thing))
        return known[1]

    def _look_at(self, thing: Any) -> _Node:
        """What `thing` says by itself and reaches. Never raises, whatever a user's object does."""
        kind = exact_type(thing)
        if kind is types.FunctionType:
            return self._function(thing) if is_project_function(thing) else self._installed_function(thing)
        if issubclass(kind, type):
            return self._class(thing)
        if kind is Statements:
            return self._statements(thing)
        if kind is Module or kind is types.ModuleType:
            return self._module(thing)
        if kind is types.MethodType:
            return _reaching("method", function=thing.__func__, object=thing.__self__)
        if kind is functools.partial:
            return _reaching("partial", function=thing.func, arguments=thing.args, keywords=thing.keywords)
        if kind is types.BuiltinFunctionType:
            owner = None if type(thing.__self__) is types.ModuleType else thing.__self__
            return _reaching(f"name {_name_of(thing)}", object=owner)
        return self._value(thing, kind)

    def _function(self, function: types.FunctionType) -> _Node:
        code = function.__code__
        body = self._body(function)
        node = _Node(body.digest, name=function.__qualname__, exact=body.exact)
        doubtful = False
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            value = _cell(cell)
            doubtful = (not node.add(f"cell {name}", value) and _is_doubtful(value)) or doubtful
        for i, value in enumerate(function.__defaults__ or ()):
            node.add(f"default {i}", value)
        for name, value in (function.__kwdefaults__ or {}).items():
            node.add(f"default {name}", value)
        surroundings = self._sources.surroundings(function) if doubtful else None
        if surroundings is not None:
            node.add("made in", surroundings)
        self._resolve(node, body, function.__globals__)
        return node

    def _body(self, function: types.FunctionType) -> Body:
        code = function.__code__
        if id(code) not in self._bodies:
            self._bodies[id(code)] = (code, self._sources.body_of_function(function) or _bytecode(code))
        return self._bodies[id(code)][1]

    def _installed_function(self, function: types.FunctionType) -> _Node:
        """A function of a package: its name, and what of the project it wraps or calls back."""
        node = _Node("name", _name_of(function))
        self._add_wrapped(node, function)
        pending, seen = [function], [function]
        while pending:
            for cell in pending.pop().__closure__ or ():
                for other in Telling(_cell(cell)).others:
                    if type(other) is not types.FunctionType or any(other is one for one in seen):
                        continue
                    seen.append(other)
                    if is_project_function(other):
                        node.add("uses", other)
                    else:
                        pending.append(other)
        return node

    def _add_wrapped(self, node: _Node, thing: Any) -> None:
        """Add the function that a wrapper of a package says it wraps (`functools.wraps`), and how it came to be."""
        try:
            wrapped = thing.__wrapped__
        except Exception:  # there is none, or its class does not like to be asked
            return
        if type(wrapped) is types.FunctionType:
            node.add("wrapped", wrapped)
            node.parts += self._sources.decorators(wrapped)

    def _class(self, cls: type) -> _Node:
        if not is_project_class(cls):
            return _Node("name", _name_of(cls))
        bodies = self._sources.bodies_of_class(cls)
        namespace = vars(sys.modules.get(cls.__module__) or types.ModuleType("gone"))
        node = _Node("class", *(body.digest for body in bodies), name=cls.__qualname__)
        for i, base in enumerate(cls.__bases__):
            node.add(f"base {i}", base)
        for body in bodies:
            self._resolve(node, body, namespace)
        for name, member in sorted(vars(cls).items()):
            function = member if type(member) is types.FunctionType else getattr(member, "__func__", None)
            if not bodies:
                node.add(name, member)
            elif type(function) is types.FunctionType and function.__code__.co_filename == namespace.get("__file__"):
                for free, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
                    if _cell(cell) is not cls:  # super() closes over the class
                        node.add(f"cell {free}", _cell(cell))
        return node

    def _statements(self, statements: Statements) -> _Node:
        node = _Node("statements", *(body.digest for body in statements.bodies), name=statements.name)
        for body in statements.bodies:
            self._resolve(node, body, statements.namespace, without=statements.name)
        return node

    def _module(self, module: Module | types.ModuleType) -> _Node:
        """A module as a whole, with all that it imports of the project; an installed one by its name."""
        own = self._sources.module(module.__name__) if isinstance(module, types.ModuleType) else module
        if own is None:
            return _Node("module", str(getattr(module, "__name__", "")))
        digest, imported = self._sources.read_module(own)
        node = _Node("module", digest, name=own.name)
        for found in imported:
            node.add(f"import {found.name}", found)
        return node

    def _value(self, value: Any, kind: type) -> _Node:
        """A value: plain data by its text, an instance of one of the project's classes by that and its state."""
        telling = Telling(value)
        if telling.text != "#0" or telling.others[0] is not value:
            node = _Node("value", telling.text)
            for i, other in enumerate(telling.others):
                node.add(f"#{i}", other)
            return node
        is_own = is_project_class(kind)
        node = _Node("object", _name_of(kind), name=_name_of(kind))
        if is_own:
            node.add("class", kind)
        for name, part in state_of(value, whole=is_own):
            node.add(f"state {name}", part)
        if not is_own:
            self._add_wrapped(node, value)
        return node

    def _resolve(self, node: _Node, body: Body, namespace: Mapping[str, Any], *, without: str = "") -> None:
        """Add what the global names of a body mean, and the modules that it imports."""
        for chain in body.names:
            name = chain[0]
            if name in namespace and name != without and not (name.startswith("__") and name.endswith("__")):
                for label, value in self._named(chain, namespace):
                    node.add(label, value)
        if body.imports:
            for module in self._sources.imported(body.imports, str(namespace.get("__package__") or "")):
                node.add(f"import {module.name}", module)

    def _named(self, chain: tuple[str, ...], namespace: Mapping[str, Any]) -> list[tuple[str, Any]]:
        """What a dotted name means: attributes of the project's modules are followed, those of packages are names."""
        name = chain[0]
        value = namespace[name]
        for attribute in chain[1:]:
            if type(value) is not types.ModuleType or attribute not in vars(value):
                break
            if not self._sources.is_project_module(value):
                return [(name, f"module {value.__name__}")]
            name, namespace = attribute, vars(value)
            value = namespace[name]
        return self._global(name, namespace, value)

    def _global(self, name: str, namespace: Mapping[str, Any], value: Any) -> list[tuple[str, Any]]:
        """A module's global: its value where that says it all, otherwise the statements that made it as well."""
        known = self._globals.get((id(namespace), name))
        if known is None:
            known = (namespace, self._tell_global(name, namespace, _unwrap(value)))
            self._globals[id(namespace), name] = known
        return known[1]

    def _tell_global(self, name: str, namespace: Mapping[str, Any], value: Any) -> list[tuple[str, Any]]:
        kind = exact_type(value)
        if issubclass(kind, type) or kind is types.MethodType or kind is types.ModuleType or is_project_function(value):
            return [(name, value)]
        origin = self._sources.origin(name, namespace)
        if isinstance(origin, str):
            return [(name, value if issubclass(kind, _CALLABLES) else f"name {origin}")]
        if origin is None:
            return [(name, value)]
        if issubclass(kind, PurePath):
            return [(f"{name} =", origin)]  # where the project lies on this machine is no part of what it does
        if any(("__file__",) in body.names for body in origin.bodies):
            placed = Telling(value, _folders_of(origin.namespace))
            whole = placed.exact and not placed.others
            return [(name, placed.text), *([] if whole else [(f"{name} =", origin)])]
        telling = Telling(value)
        if telling.exact and not telling.others:
            return [(name, value)]
        # The state of an object that is no record may be another one every time that it is made.
        told = [(name, value)] if all(_is_record_or_code(other) for other in telling.others) else []
        return [*told, (f"{name} =", origin)]


def _folders_of(namespace: Mapping[str, Any]) -> list[str]:
    """The folders that a module lies in, nearest first, as they are called and as they are: one may be a link."""
    file = str(namespace.get("__file__") or "")
    paths = [PurePath(os.path.abspath(file)), PurePath(os.path.realpath(file))]
    return [str(folder) for path in paths for folder in path.parents if folder != folder.parent]


def _hash(parts: Iterable[str]) -> str:
    text = "".join([f"{len(part)}:{part}" for part in parts])
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _unwrap(thing: Any) -> Any:
    """The function behind a definition of ours."""
    is_ours = type(thing).__module__ == "headwater.catalog.definitions.asset"
    return getattr(thing, "__headwater_function__", thing) if is_ours else thing


def _reaching(text: str, **reached: Any) -> _Node:
    node = _Node(text)
    for label, value in reached.items():
        node.add(label, value)
    return node


def _is_record_or_code(value: Any) -> bool:
    kind = exact_type(value)
    return issubclass(kind, (*_CALLABLES, type)) or (is_record(kind) and is_project_class(kind))


def _is_doubtful(value: Any) -> bool:
    """Whether something in a value cannot be told: an object of a class of some package, too many entries."""
    telling = Telling(value)
    return not telling.exact or any(
        not issubclass(exact_type(other), (*_CALLABLES, type))
        and not is_project_class(exact_type(other))
        and not state_of(other, whole=False)
        for other in telling.others
    )


def _name_of(thing: Any) -> str:
    try:
        return f"{thing.__module__}.{thing.__qualname__}"
    except Exception:
        return "something without a name"


def _cell(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not yet assigned
        return None


def _bytecode(code: types.CodeType) -> Body:
    """What a function without source says: its byte code, which differs from one Python to the next."""
    parts: list[str] = [repr(sys.version_info[:2])]
    names: set[tuple[str, ...]] = set()
    pending = [code]
    while pending:
        current = pending.pop()
        parts += [current.co_code.hex(), *current.co_names, *current.co_varnames]
        for constant in current.co_consts:
            if isinstance(constant, types.CodeType):
                pending.append(constant)
            else:
                parts.append(Telling(constant).text)
        loads = [i for i in dis.get_instructions(current) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME")]
        names.update((str(instruction.argval),) for instruction in loads)
    return Body(_hash(parts), tuple(sorted(names)), exact=False)
