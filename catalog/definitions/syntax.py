"""Python source as code versions see it: what it says, not how it is written down.

The normal form of a syntax tree leaves out comments, formatting, positions and docstrings, and what differs between
the trees that Python 3.11 and later make of the same text. It tells the global names that the code looks up, with
Python's own rules for what is local. Everything here is a loop over a stack: no source is too deep for it.
"""

import ast
import hashlib
import linecache
import os
import time
import types
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

#: When this process began, nearly: a file that has changed since may not be what was imported.
_STARTED = time.time() - 2

Definition: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
Scope: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_ANNOTATIONS = ("annotation", "returns")
_WITHOUT_MEANING = ("ctx", "type_comment", "kind")
_NONE: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Body:
    """What a piece of code says by itself."""

    digest: str
    #: The dotted names that it looks up among its module's globals, such as ("helpers", "clean").
    names: tuple[tuple[str, ...], ...] = ()
    #: The modules that it imports while it runs: name, relative level, names taken from it.
    imports: tuple[tuple[str, int, tuple[str, ...]], ...] = ()
    #: False where it is known by its byte code only.
    exact: bool = True


class SourceFile:
    """A source file: its functions and classes by place and name, and the statements that bind each global name."""

    def __init__(self, source: str, *, doubtful: bool) -> None:
        self.tree = tree = ast.parse(source)
        #: Where each definition stands: functions by the line of their first decorator, lambdas by theirs.
        self._functions: dict[tuple[int, str], list[ast.AST]] = {}
        #: By qualified name; several where one is redefined.
        self.definitions: dict[str, list[Definition]] = {}
        self.bindings: dict[str, list[ast.stmt]] = {}
        #: The modules that everything is imported from: name and level.
        self.stars: list[tuple[str, int]] = []
        self._compiled = _compiled(source) if doubtful else None
        self._index()
        for statement in tree.body:
            if isinstance(statement, ast.ImportFrom) and statement.names[0].name == "*":
                self.stars.append((statement.module or "", statement.level))
            for bound in _bound(statement):
                self.bindings.setdefault(bound, []).append(statement)

    def function(self, code: types.CodeType) -> list[ast.AST]:
        """The tree of a function; of several lambdas on one line, those that it may be. Empty if it is not here."""
        if self._compiled is not None and code not in self._compiled.get((code.co_firstlineno, code.co_name), ()):
            return []
        found = self._functions.get((code.co_firstlineno, code.co_name), [])
        return found if len(found) < 2 else [node for node in found if _covers(node, code)] or found

    def _index(self) -> None:
        pending: list[tuple[ast.AST, str]] = [(self.tree, "")]
        while pending:
            node, prefix = pending.pop()
            for child in ast.iter_child_nodes(node):
                inner = prefix
                if isinstance(child, _DEFINITIONS):
                    first = min([child.lineno, *(d.lineno for d in child.decorator_list)])
                    self._functions.setdefault((first, child.name), []).append(child)
                    inner = f"{prefix}{child.name}."
                    self.definitions.setdefault(inner[:-1], []).append(child)
                    inner += "" if isinstance(child, ast.ClassDef) else "<locals>."
                elif isinstance(child, ast.Lambda):
                    self._functions.setdefault((child.lineno, "<lambda>"), []).append(child)
                    inner = f"{prefix}<lambda>.<locals>."
                pending.append((child, inner))


def read_source(name: str, namespace: Any = None) -> SourceFile | None:
    """The source file `name` as it is now; None where there is none, or none that can be parsed.

    `namespace` is that of its module, whose loader may know the source of what is no file.
    """
    linecache.checkcache(name)
    source = "".join(linecache.getlines(name, namespace))
    if not source:
        return None
    try:
        doubtful = os.stat(name).st_mtime > _STARTED
    except OSError:
        doubtful = False
    try:
        return SourceFile(source, doubtful=doubtful)
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # changed since it was imported, and broken now
        return None


def _compiled(source: str) -> dict[tuple[int, str], list[types.CodeType]]:
    """Every code object of a file, by line and name: functions of the loaded module must be among them."""
    found: dict[tuple[int, str], list[types.CodeType]] = {}
    pending = [compile(source, "", "exec", dont_inherit=True)]
    while pending:
        code = pending.pop()
        found.setdefault((code.co_firstlineno, code.co_name), []).append(code)
        pending.extend(constant for constant in code.co_consts if isinstance(constant, types.CodeType))
    return found


def _covers(node: ast.AST, code: types.CodeType) -> bool:
    """Whether all of a function's instructions lie within a tree."""
    start, end = (node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset)  # type: ignore[attr-defined]  # pyright: ignore
    for line, end_line, column, end_column in code.co_positions():
        if None in (line, end_line, column, end_column) or (column == end_column == 0):
            continue
        if not start <= (line, column) <= (end_line, end_column) <= end:
            return False
    return True


def analyse(node: ast.AST, *, evaluated: bool) -> Body:
    """What a tree says. `evaluated` is for a function that exists: its name, decorators and defaults are past."""
    names: set[tuple[str, ...]] = set()
    imports: set[tuple[str, int, tuple[str, ...]]] = set()
    out: list[str] = []
    # Each entry: a text, or a node with the names that are local to it: of functions around it, of its class.
    stack: list[Any] = [(node, _NONE, _NONE, True)]
    while stack:
        entry = stack.pop()
        if isinstance(entry, str):
            out.append(entry)
            continue
        current, outer, own, counts = entry
        if not isinstance(current, ast.AST):
            out.append(_atom(current))
            continue
        chain = dotted(current)
        if chain is not None:
            out.append(".".join(chain))
            if counts and chain[0] not in outer and chain[0] not in own:
                names.add(chain)
            continue
        if isinstance(current, ast.Import | ast.ImportFrom) and outer:
            imports.update(_imported(current))
        if isinstance(current, ast.AnnAssign) and outer and not own:  # Python never evaluates the type of a local
            if current.value is not None:
                stack.append((ast.Assign([current.target], current.value), outer, own, counts))
            continue
        is_past = evaluated and current is node
        inner_outer, inner_own = outer, own
        if isinstance(current, _SCOPES):
            inner_outer, inner_own = outer | _locals(current), _NONE
        elif isinstance(current, _COMPREHENSIONS):
            inner_outer = outer | {
                n.id for g in current.generators for n in ast.walk(g.target) if isinstance(n, ast.Name)
            }
        elif isinstance(current, ast.ClassDef):
            inner_own = frozenset(name for statement in current.body for name in _bound(statement))
        parts: list[Any] = [f"({type(current).__name__}"]
        for field in current._fields:
            value = getattr(current, field, None)
            if value is None or value == [] or field in _WITHOUT_MEANING:
                continue
            if is_past and field in ("name", "decorator_list"):
                continue
            inside = field == "body" or isinstance(current, _COMPREHENSIONS)
            scopes = (inner_outer, inner_own) if inside else (outer, own)
            here = counts and field not in _ANNOTATIONS and not (is_past and field == "args")
            parts.append(field)
            parts.extend((item, *scopes, here) for item in _meaningful(current, field, value))
        parts.append(")")
        stack.extend(reversed(parts))
    digest = hashlib.blake2b("\n".join(out).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    return Body(digest, tuple(sorted(names)), tuple(sorted(imports)))


def dotted(node: ast.AST) -> tuple[str, ...] | None:
    """`a.b.c`, loaded, as its parts."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
        parts.append(node.attr)
        node = node.value
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
        return (node.id, *reversed(parts))
    return None


def module_imports(tree: ast.Module) -> list[tuple[str, int, tuple[str, ...]]]:
    """Everything that a module imports, anywhere in it."""
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    return sorted({entry for node in nodes for entry in _imported(node)})


def _imported(node: ast.Import | ast.ImportFrom) -> Iterable[tuple[str, int, tuple[str, ...]]]:
    if isinstance(node, ast.Import):
        return [(alias.name, 0, ()) for alias in node.names]
    return [(node.module or "", node.level, tuple(alias.name for alias in node.names))]


def _atom(value: Any) -> str:
    return f"int {value:x}" if type(value) is int else f"{type(value).__name__} {value!r}"


def _meaningful(node: ast.AST, field: str, value: Any) -> Iterable[Any]:
    """What a field says, item by item, the same for every Python and every way to write it."""
    if field in _ANNOTATIONS:
        return [_unquoted(value)]
    if not isinstance(value, list):
        return [value]
    items = cast(list[Any], value)
    if isinstance(node, ast.JoinedStr):
        return _joined(items)
    return [item for item in items if not _says_nothing(item)] if field == "body" else items


def _joined(parts: list[ast.expr]) -> list[ast.expr]:
    """The parts of an f-string with adjacent texts as one: Pythons differ in how they cut it."""
    joined: list[ast.expr] = []
    for part in parts:
        if isinstance(part, ast.Constant) and not part.value:
            continue
        last = joined[-1] if joined else None
        if isinstance(part, ast.Constant) and isinstance(last, ast.Constant):
            joined[-1] = ast.Constant(f"{last.value}{part.value}")
        else:
            joined.append(part)
    return joined


def _says_nothing(statement: ast.AST) -> bool:
    match statement:
        case ast.Expr(value=ast.Constant(value=str())):  # a docstring, or another text that stands alone
            return True
        case ast.If(test=test, orelse=[]):
            chain = dotted(test)
            return chain is not None and chain[-1] == "TYPE_CHECKING"
        case _:
            return False


def _unquoted(annotation: Any) -> Any:
    """An annotation without the quotes that put off its evaluation."""
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        try:
            return ast.parse(annotation.value, mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return annotation
    return annotation


def _locals(function: Scope) -> frozenset[str]:
    """The names that are a function's own."""
    arguments = function.args
    parameters = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    found = {parameter.arg for parameter in parameters if parameter is not None}
    elsewhere: set[str] = set()
    pending: list[ast.AST] = list(function.body) if isinstance(function.body, list) else [function.body]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Global):
            elsewhere.update(node.names)
        found.update(_binds(node))
        if isinstance(node, _COMPREHENSIONS):  # of what is assigned in one, only `:=` is visible outside
            found.update(n.target.id for n in ast.walk(node) if isinstance(n, ast.NamedExpr))
        elif not isinstance(node, _DEFINITIONS + _SCOPES):
            pending.extend(ast.iter_child_nodes(node))
    return frozenset(found - elsewhere)


def _binds(node: ast.AST) -> Iterable[str]:
    """The names that a node binds by itself, in the scope that it is in."""
    match node:
        case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
            return (name,)
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return (name,)
        case ast.Import() | ast.ImportFrom():
            return [alias.asname or alias.name.partition(".")[0] for alias in node.names]
        case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
            return (name,)
        case ast.MatchMapping(rest=str(name)):
            return (name,)
        case _:
            return ()


def _bound(statement: ast.stmt) -> Iterable[str]:
    """The names to which a statement of a module or class, or what is nested in it, gives a value or does something.

    `RULES["x"] = …` and `RULES.append(…)` count for RULES.
    """
    found: list[str] = []
    pending: list[ast.AST] = [statement]
    while pending:
        node = pending.pop()
        found.extend(_binds(node))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            found.extend((dotted(node.value.func) or ())[:1])
        elif isinstance(node, ast.Subscript | ast.Attribute) and not isinstance(node.ctx, ast.Load):
            found.extend((dotted(node.value) or ())[:1])
        if not isinstance(node, _DEFINITIONS + _SCOPES + _COMPREHENSIONS):
            pending.extend(ast.iter_child_nodes(node))
    return dict.fromkeys(found)
