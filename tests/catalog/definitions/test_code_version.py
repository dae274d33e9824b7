import contextlib
import functools
import itertools
import json
import os
import shutil
import subprocess
import sys
import types
import weakref
from collections.abc import Generator, Mapping
from pathlib import Path
from textwrap import dedent
from typing import Any
from unittest.mock import MagicMock

import pytest

import headwater
from headwater.catalog.definitions.code_version import BYTECODE_SCHEME, SCHEME, CodeVersions
from headwater.catalog.definitions.installed import is_installed
from headwater.catalog.definitions.values import MAX_ENTRIES, Telling
from tests.catalog.definitions.project import imported, write_project

Files = Mapping[str, str]


def version_of(folder: Path, files: Files, name: str = "subject", module: str = "assets") -> str:
    with imported(write_project(folder, files), module) as loaded:
        return CodeVersions().of_function(getattr(loaded, name))


def files(source: str, **others: str) -> dict[str, str]:
    return {"assets.py": dedent(source), **{f"{name}.py": text for name, text in others.items()}}


PLAIN = """
    from headwater import asset

    @asset
    def subject(orders):
        '''What it does.'''
        # Why it does so.
        total = sum(orders) + 1
        return total
"""

#: Edits after which a function does what it did before: name, before, after.
SAME: list[tuple[str, Files, Files]] = [
    ("comment", files(PLAIN), files(PLAIN.replace("# Why it does so.", "# For no reason."))),
    ("no comment", files(PLAIN), files(PLAIN.replace("        # Why it does so.\n", ""))),
    ("docstring", files(PLAIN), files(PLAIN.replace("What it does.", "Something else."))),
    ("no docstring", files(PLAIN), files(PLAIN.replace("        '''What it does.'''\n", ""))),
    (
        "formatting",
        files(PLAIN),
        files(PLAIN.replace("sum(orders) + 1", "(  sum( orders )\n            + 1\n            )")),
    ),
    (
        "types of locals",
        files("def subject(n):\n    a = n\n    def f(b):\n        b.x, c = a, b\n        return c\n    return f"),
        files(
            "def subject(n):\n    z: float\n    a: int = n\n    def f(b):\n        b.x, c = a, b\n        return c\n"
            "    return f"
        ),
    ),
    ("quotes", files("def subject(): return 'a'"), files('def subject():\n    return "a"')),
    ("blank lines", files(PLAIN), files(PLAIN.replace("return total", "\n\n        return total\n\n"))),
    ("lines above", files(PLAIN), files("import os\n\n\n" + dedent(PLAIN))),
    ("another function", files(PLAIN), files(dedent(PLAIN) + "\n\ndef other():\n    return 5\n")),
    (
        "arguments of our decorator",
        files(PLAIN),
        files(PLAIN.replace("@asset", "@asset(description='x', group_name='y', tags={'a': 'b'})")),
    ),
    (
        "name of the function",
        files(PLAIN),
        files(PLAIN.replace("def subject", "def other") + "\n    subject = other\n"),
    ),
    (
        "imports for type checkers",
        files(PLAIN),
        files("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import decimal\n" + dedent(PLAIN)),
    ),
    (
        "annotations put off",
        files("import decimal\ndef subject(a: decimal.Decimal, b: int) -> decimal.Decimal: return a"),
        files(
            "from __future__ import annotations\nfrom typing import TYPE_CHECKING\n"
            "if TYPE_CHECKING:\n    import decimal\n"
            "def subject(a: decimal.Decimal, b: int) -> decimal.Decimal: return a"
        ),
    ),
    (
        "annotations in quotes",
        files("import decimal\ndef subject(a: decimal.Decimal) -> decimal.Decimal: return a"),
        files("import decimal\ndef subject(a: 'decimal.Decimal') -> \"decimal.Decimal\": return a"),
    ),
    (
        "helper moved to another file",
        files("def f(x): return x + 1\ndef subject(): return f(1)"),
        files("from helpers import f\ndef subject(): return f(1)", helpers="def f(x): return x + 1"),
    ),
    (
        "helper's docstring",
        files("def f(x): return x\ndef subject(): return f(1)"),
        files("def f(x):\n    'Now documented.'\n    return x\ndef subject(): return f(1)"),
    ),
    (
        "class's docstring",
        files("class C:\n    x = 1\ndef subject(): return C.x"),
        files("class C:\n    '''Doc.'''\n    x = 1\n\n    '''About x.'''\ndef subject(): return C.x"),
    ),
    (
        "constant computed otherwise",
        files("N = 6\ndef subject(): return N"),
        files("N = 2 * 3\ndef subject(): return N"),
    ),
    ("constant nobody uses", files("N = 6\ndef subject(): return 1"), files("N = 7\ndef subject(): return 1")),
    (
        "helper nobody calls",
        files("def f(): return 1\ndef subject(): return 1"),
        files("def f(): return 2\ndef subject(): return 1"),
    ),
    (
        "global with the name of a local variable",
        files("total = 1\ndef subject(x):\n    total = x\n    return total"),
        files("total = 2\ndef subject(x):\n    total = x\n    return total"),
    ),
    (
        "global with the name of a parameter",
        files("x = 1\ndef subject(x): return x"),
        files("x = 2\ndef subject(x): return x"),
    ),
    (
        "global with the name of an attribute",
        files("size = 1\ndef subject(a): return a.size"),
        files("size = 2\ndef subject(a): return a.size"),
    ),
    (
        "global with the name of a variable of a comprehension, a lambda, an except, a match",
        files(
            """
            x = y = z = u = 1
            def subject(a):
                try:
                    return [x for x in a], (lambda y: y)
                except ValueError as z:
                    match a:
                        case [u, *_]:
                            return z, u
            """
        ),
        files(
            """
            x = y = z = u = 2
            def subject(a):
                try:
                    return [x for x in a], (lambda y: y)
                except ValueError as z:
                    match a:
                        case [u, *_]:
                            return z, u
            """
        ),
    ),
    (
        "global with the name of a method's local variable",
        files("n = 1\nclass C:\n    def f(self, a):\n        n = a\n        return n\ndef subject(): return C()"),
        files("n = 2\nclass C:\n    def f(self, a):\n        n = a\n        return n\ndef subject(): return C()"),
    ),
    (
        "last value of a loop over a factory",
        files("made = []\nfor i in range(3):\n    def f(i=i): return i\n    made.append(f)\nsubject = made[0]"),
        files("made = []\nfor i in range(9):\n    def f(i=i): return i\n    made.append(f)\nsubject = made[0]"),
    ),
    (
        "what else a factory makes",
        files("def make(n):\n    def f(): return n\n    return f\nsubject = make(1)\nother = make(2)"),
        files("def make(n):\n    def f(): return n\n    return f\nsubject = make(1)\nother = make(3)"),
    ),
    (
        "decorator that was looked through anyway",
        files("def keep(f): return f\n@keep\ndef subject(): return 1"),
        files("def keep(f):\n    print\n    return f\n@keep\ndef subject(): return 1"),
    ),
    (
        "order of the entries of a set",
        files("S = {'a', 'b', 'c'}\ndef subject(): return S"),
        files("S = {'c', 'b', 'a'}\ndef subject(): return S"),
    ),
    (
        "module of the project imported by another name",
        files("import helpers\ndef subject(): return helpers.f()", helpers="def f(): return 1"),
        files("import helpers\ndef subject(): return helpers.f()", helpers="def f():\n    return 1\nN = 3"),
    ),
]

HELPERS: dict[str, tuple[str, Files]] = {
    "same file": ("def f(): return {}\ndef subject(): return f()", {}),
    "from x import f": ("from helpers import f\ndef subject(): return f()", {"helpers": "def f(): return {}"}),
    "from x import f as g": (
        "from helpers import f as g\ndef subject(): return g()",
        {"helpers": "def f(): return {}"},
    ),
    "import x": ("import helpers\ndef subject(): return helpers.f()", {"helpers": "def f(): return {}"}),
    "import x as y": ("import helpers as h\ndef subject(): return h.f()", {"helpers": "def f(): return {}"}),
    "import p.x": (
        "import pack.helpers\ndef subject(): return pack.helpers.f()",
        {"pack/__init__": "", "pack/helpers": "def f(): return {}"},
    ),
    "import p.x of a namespace": (
        "import pack.helpers\ndef subject(): return pack.helpers.f()",
        {"pack/helpers": "def f(): return {}"},
    ),
    "from p import x": (
        "from pack import helpers\ndef subject(): return helpers.f()",
        {"pack/__init__": "", "pack/helpers": "def f(): return {}"},
    ),
    "re-exported": (
        "import pack\ndef subject(): return pack.f()",
        {"pack/__init__": "from pack.helpers import f", "pack/helpers": "def f(): return {}"},
    ),
    "relative import": (
        "from pack.b import g\ndef subject(): return g()",
        {"pack/__init__": "", "pack/a": "def f(): return {}", "pack/b": "from .a import f\ndef g(): return f()"},
    ),
    "nested twice": (
        "import one\ndef subject(): return one.f()",
        {"one": "from two import g\ndef f(): return g()", "two": "def g(): return {}"},
    ),
    "import in the function": (
        "def subject():\n    from helpers import f\n    return f()",
        {"helpers": "def f(): return {}"},
    ),
    "import in the function, nested": (
        "def subject():\n    import one\n    return one.f()",
        {"one": "from two import g\ndef f(): return g()", "two": "def g(): return {}"},
    ),
    "relative import in the function": (
        "from pack.b import g\ndef subject(): return g()",
        {
            "pack/__init__": "",
            "pack/a": "def f(): return {}",
            "pack/b": "def g():\n    from . import a\n    return a.f()",
        },
    ),
    "star import": ("from helpers import *\ndef subject(): return f()", {"helpers": "def f(): return {}"}),
    "module passed around": (
        "import helpers\ndef subject(): return getattr(helpers, 'f')()",
        {"helpers": "def f(): return {}"},
    ),
    "module constant": ("N = {}\ndef subject(): return N", {}),
    "constant of a module": ("import consts\ndef subject(): return consts.N", {"consts": "N = {}"}),
    "imported constant": ("from consts import N as M\ndef subject(): return M", {"consts": "N = {}"}),
    "constant computed": ("N = 10 * {}\ndef subject(): return N", {}),
    "constant in a list": ("N = [1, (2, {{'a': {}}})]\ndef subject(): return N", {}),
    "large constant": ("N = list(range(50_000)) + [{}]\ndef subject(): return N", {}),
    "frozen set": ("N = frozenset([1, 5, {}])\ndef subject(): return N", {}),
    "date": ("import datetime\nN = datetime.date(2024, 1, {})\ndef subject(): return N", {}),
    "regex": ("import re\nR = re.compile('a{{{}}}')\ndef subject(s): return R.match(s)", {}),
    "bound method of a regex": ("import re\nR = re.compile('a{{{}}}').match\ndef subject(s): return R(s)", {}),
    "enum": ("import enum\nclass E(enum.Enum):\n    A = {}\ndef subject(): return E.A", {}),
    "member of an enum": (
        "from e import A\ndef subject(): return A.value",
        {"e": "import enum\nclass E(enum.Enum):\n    A = {}\nA = E.A"},
    ),
    "method of an enum": (
        "from e import A\ndef subject(): return A.f()",
        {"e": "import enum\nclass E(enum.Enum):\n    A = 1\n    def f(self): return {}\nA = E.A"},
    ),
    "opaque expression": (
        "from library import col\nIS_LATE = col('d') > {}\ndef subject(t): return t.filter(IS_LATE)",
        {"site-packages/library": "EXPR"},
    ),
    "opaque expression of another module": (
        "import rules\ndef subject(t): return t.filter(rules.IS_LATE)",
        {"rules": "from library import col\nIS_LATE = col('d') > {}", "site-packages/library": "EXPR"},
    ),
    "opaque expression imported": (
        "from rules import IS_LATE as L\ndef subject(t): return t.filter(L)",
        {"rules": "from library import col\nIS_LATE = col('d') > {}", "site-packages/library": "EXPR"},
    ),
    "what an opaque expression names": (
        "from library import col\nN = {}\nIS_LATE = col('d') > N\ndef subject(t): return t.filter(IS_LATE)",
        {"site-packages/library": "EXPR"},
    ),
    "list of opaque expressions": (
        "from library import col\nRULES = []\nRULES.append(col('d') > {})\ndef subject(t): return RULES",
        {"site-packages/library": "EXPR"},
    ),
    "registry filled by item": (
        "from library import col\nRULES = {{}}\nRULES['a'] = col('d') > {}\ndef subject(t): return RULES",
        {"site-packages/library": "EXPR"},
    ),
    "opaque expression closed over": (
        "from library import col\ndef make():\n    e = col('d') > {}\n    def f(t): return t.filter(e)\n    return f\n"
        "subject = make()",
        {"site-packages/library": "EXPR"},
    ),
    "opaque expression assigned under a condition": (
        "from library import col\nif True:\n    E = col('d') > {}\nelse:\n    E = None\ndef subject(t): return t[E]",
        {"site-packages/library": "EXPR"},
    ),
    "registry of functions": ("def f(): return {}\nALL = {{'f': f}}\ndef subject(n): return ALL[n]()", {}),
    "closure": ("def make(n):\n    def f(): return n\n    return f\nsubject = make({})", {}),
    "closure over a function": ("def make(g):\n    def f(): return g()\n    return f\nsubject = make(lambda: {})", {}),
    "closure over an object of the project": (
        "class Settings:\n    def __init__(self, n): self.n = n\n"
        "def make(s):\n    def f(): return s.n\n    return f\nsubject = make(Settings({}))",
        {},
    ),
    "closure over the class of an object": (
        "class Settings:\n    def f(self): return {}\n"
        "def make(s):\n    def f(): return s.f()\n    return f\nsubject = make(Settings())",
        {},
    ),
    "default argument": ("def subject(a={}): return a", {}),
    "default by name": ("N = {}\ndef subject(*, a=N): return a", {}),
    "lambda as default": ("def subject(a=lambda: {}): return a()", {}),
    "function as default": ("def g(): return {}\ndef subject(a=g): return a()", {}),
    "class method": ("class C:\n    def f(self): return {}\ndef subject(): return C().f()", {}),
    "static method": ("class C:\n    @staticmethod\n    def f(): return {}\ndef subject(): return C.f()", {}),
    "class attribute": ("class C:\n    n = {}\ndef subject(): return C.n", {}),
    "constant used by a method": ("N = {}\nclass C:\n    def f(self): return N\ndef subject(): return C().f()", {}),
    "base class": (
        "from bases import Base\nclass C(Base): pass\ndef subject(): return C().f()",
        {"bases": "class Base:\n    def f(self): return {}"},
    ),
    "base of a base": (
        "from bases import B\nclass C(B): pass\ndef subject(): return C().f()",
        {"bases": "class A:\n    def f(self): return {}\nclass B(A): pass"},
    ),
    "base made by a function": (
        "def base():\n    class Base:\n        def f(self): return {}\n    return Base\n"
        "class C(base()): pass\ndef subject(): return C().f()",
        {},
    ),
    "bound method": ("class C:\n    def f(self): return {}\nF = C().f\ndef subject(): return F()", {}),
    "lambda": ("subject = lambda: {}", {}),
    "lambda it calls": ("F = lambda: {}\ndef subject(): return F()", {}),
    "second lambda of a line": ("F, G = (lambda: 1), (lambda: {})\ndef subject(): return G()", {}),
    "nested function": ("def subject():\n    def f(): return {}\n    return f()", {}),
    "what a nested function calls": ("def g(): return {}\ndef subject():\n    def f(): return g()\n    return f()", {}),
    "what a comprehension calls": ("def g(x): return {}\ndef subject(a): return [g(x) for x in a]", {}),
    "global of the same name outside a comprehension": (
        "x = {}\ndef subject(a): return [x for x in a] and (lambda: x)()",
        {},
    ),
    "global declared": ("n = {}\ndef subject():\n    global n\n    n = n + 1\n    return n", {}),
    "partial": (
        "import functools\ndef f(a, b): return a\nP = functools.partial(f, {})\ndef subject(): return P(1)",
        {},
    ),
    "partial's keyword": (
        "import functools\ndef f(a, b): return a\nP = functools.partial(f, b={})\ndef subject(): return P(1)",
        {},
    ),
    "partial's function": (
        "import functools\ndef f(a, b): return {}\nP = functools.partial(f, 1)\ndef subject(): return P(1)",
        {},
    ),
    "decorator of the project": (
        "import functools\ndef twice(f):\n    @functools.wraps(f)\n    def w(*a, **k): return f(*a, **k) * {}\n"
        "    return w\n@twice\ndef subject(): return 1",
        {},
    ),
    "what a decorator of the project wraps": (
        "import functools\ndef twice(f):\n    @functools.wraps(f)\n    def w(*a, **k): return f(*a, **k) * 2\n"
        "    return w\n@twice\ndef subject(): return {}",
        {},
    ),
    "argument of a decorator of the project": (
        "import functools\ndef times(n):\n    def deco(f):\n        @functools.wraps(f)\n"
        "        def w(*a, **k): return f(*a, **k) * n\n        return w\n    return deco\n"
        "@times({})\ndef subject(): return 1",
        {},
    ),
    "decorated helper": (
        "def twice(f):\n    def w(): return f() * {}\n    return w\n"
        "@twice\ndef g(): return 1\ndef subject(): return g()",
        {},
    ),
    "what a decorator of a package wraps": (
        "from library import retry\n@retry(times=3)\ndef subject(): return {}",
        {"site-packages/library": "RETRY"},
    ),
    "argument of a decorator of a package": (
        "from library import retry\n@retry(times={})\ndef subject(): return 1",
        {"site-packages/library": "RETRY"},
    ),
    "cached helper": ("import functools\n@functools.cache\ndef f(): return {}\ndef subject(): return f()", {}),
    "context manager": (
        "import contextlib\n@contextlib.contextmanager\ndef f():\n    yield {}\ndef subject():\n    with f() as x:\n"
        "        return x",
        {},
    ),
    "single dispatch": (
        "import functools\n@functools.singledispatch\ndef f(x): return 0\n@f.register(int)\ndef _(x): return {}\n"
        "def subject(): return f(1)",
        {},
    ),
    "dataclass constant": (
        "import dataclasses\n@dataclasses.dataclass\nclass D:\n    n: int\nX = D({})\ndef subject(): return X.n",
        {},
    ),
    "method of a dataclass constant": (
        "import dataclasses\n@dataclasses.dataclass\nclass D:\n    n: int\n    def f(self): return {}\nX = D(1)\n"
        "def subject(): return X.f()",
        {},
    ),
    "default of a dataclass": (
        "import dataclasses\n@dataclasses.dataclass\nclass D:\n    n: int = {}\ndef subject(): return D().n",
        {},
    ),
    "named tuple": (
        "import typing\nclass T(typing.NamedTuple):\n    n: int\nX = T({})\ndef subject(): return X.n",
        {},
    ),
    "asset it calls": (
        "from headwater import asset\n@asset\ndef other(): return {}\ndef subject(): return other()",
        {},
    ),
    "byte string": ("N = b'a' * {}\ndef subject(): return N", {}),
    "long text": ("N = 'a' * (2000 + {})\ndef subject(): return N", {}),
    "huge number": ("N = 10 ** 5000 + {}\ndef subject(): return N", {}),
    "item getter": ("import operator\nG = operator.itemgetter({})\ndef subject(x): return G(x)", {}),
    "environment": ("import os\nN = os.environ.get('NOT_THERE', '{}')\ndef subject(): return N", {}),
}

#: Edits of the function itself: before, after.
OWN = {
    "constant": ("return 1", "return 2"),
    "kind of constant": ("return 1", "return 1.0"),
    "text": ("return 'a'", "return 'b'"),
    "bytes": ("return 'a'", "return b'a'"),
    "operator": ("return x + 1", "return x - 1"),
    "comparison": ("return x < 1", "return x <= 1"),
    "order of arguments": ("return f(x, 1)", "return f(1, x)"),
    "keyword": ("return f(a=x)", "return f(b=x)"),
    "name": ("return f(x)", "return g(x)"),
    "attribute": ("return x.a", "return x.b"),
    "method": ("return x.a()", "return x.b()"),
    "statement": ("return x", "x += 1\n    return x"),
    "block": ("if x:\n        x = 1\n    return x", "if x:\n        x = 1\n        return x"),
    "f-string": ("return f'{x}a'", "return f'{x}b'"),
    "format": ("return f'{x:>5}'", "return f'{x:>6}'"),
    "conversion": ("return f'{x!r}'", "return f'{x!s}'"),
    "items of a dict": ("return {'a': 'x', 'b': 'y'}", "return {'a': 'xy', 'b': ''}"),
    "texts joined": ("return 'a' and 'b'", "return 'ab' and ''"),
    "unpacking": ("return [*x]", "return [x]"),
    "await": ("return (yield x)", "return (yield from x)"),
    "slice": ("return x[1:]", "return x[:1]"),
    "huge number": ("return 0x" + "f" * 5000, "return 0x" + "f" * 4999 + "e"),
    "type of a result": ("return x", "return x\n    "),
    "field of a class in it": (
        "class C:\n        n: int = 3\n    return C",
        "class C:\n        n: float = 3\n    return C",
    ),
    "value of a local with a type": ("y: int = 3\n    return y", "y: int = 4\n    return y"),
}

#: Stand-ins for what packages do: values that nobody can look into.
LIBRARIES = {
    "EXPR": "class Expr:\n    __slots__ = ()\n    def __gt__(self, n): return Expr()\ndef col(n): return Expr()",
    "RETRY": (
        "import functools\ndef retry(times):\n    def deco(f):\n        @functools.wraps(f)\n"
        "        def w(*a, **k): return f(*a, **k)\n        return w\n    return deco"
    ),
}


@pytest.mark.parametrize(("before", "after"), [(b, a) for _, b, a in SAME], ids=[name for name, *_ in SAME])
def test_what_changes_nothing_changes_no_version(before: Files, after: Files, tmp_path: Path) -> None:
    one, two = version_of(tmp_path / "one", before), version_of(tmp_path / "two", after)
    assert one == two
    assert one.startswith(f"{SCHEME}:")


@pytest.mark.parametrize(("source", "others"), HELPERS.values(), ids=HELPERS)
def test_whatever_a_function_reaches_counts(source: str, others: Mapping[str, str], tmp_path: Path) -> None:
    def version(number: int, folder: str) -> str:
        texts = {name: LIBRARIES.get(text, text.replace("{}", str(number))) for name, text in others.items()}
        written = write_project(tmp_path / folder, files(source.format(number), **texts))
        with imported(written, "assets") if "site-packages/library" not in others else _with_library(written) as loaded:
            return CodeVersions().of_function(loaded.subject)

    one = version(3, "one")
    assert one == version(3, "two")
    assert one != version(4, "three")
    assert one.startswith(f"{SCHEME}:")


@contextlib.contextmanager
def _with_library(folder: Path) -> Generator[types.ModuleType]:
    with imported(folder / "site-packages", "library"), imported(folder) as module:
        yield module


@pytest.mark.parametrize(("before", "after"), OWN.values(), ids=OWN)
def test_the_function_itself_counts(before: str, after: str, tmp_path: Path) -> None:
    one, two = (
        version_of(tmp_path / name, files(f"def subject(x):\n    {body}\n"))
        for name, body in (("one", before), ("two", after))
    )
    assert (one == two) == (before == after.rstrip())


def test_the_folder_and_the_name_of_the_module_do_not_matter(tmp_path: Path) -> None:
    source = """
        from pathlib import Path
        import os
        HERE = Path(__file__).parent / "data"
        ALSO = os.path.dirname(__file__) + "/data"
        class C:
            n = 1
        def f(): return HERE, ALSO, C.n, __name__
        def subject(): return f()
    """
    one = version_of(tmp_path / "one", {"assets.py": source})
    two = version_of(tmp_path / "elsewhere" / "two", {"other.py": source}, module="other")
    assert one == two


#: Ways to read a file at module level.
READ = {
    "beside the module": "X = Path(__file__).with_name('q.sql').read_text()",
    "in its folder": "HERE = Path(__file__).parent\nX = (HERE / 'q.sql').read_text()",
    "as bytes": "import os\nX = Path(os.path.join(os.path.dirname(__file__), 'q.sql')).read_bytes()",
    "several": "X = {p.name: p.read_text() for p in sorted(Path(__file__).parent.glob('*.sql'))}",
    "by path": "X = {p: [p.read_text()] for p in sorted(Path(__file__).resolve().parent.glob('*.sql'))}",
    "by a function": "def read(n): return Path(__file__).with_name(n).read_text()\nX = read('q.sql')",
    "beside what is opaque": "X = [Path(__file__).with_name('q.sql').read_text(), object()]",
}


@pytest.mark.parametrize("read", READ.values(), ids=READ)
def test_a_file_read_at_module_level_counts_by_its_content(read: str, tmp_path: Path) -> None:
    def version(folder: str, text: str) -> str:
        source = f"from pathlib import Path\n{read}\ndef subject(): return X\n"
        return version_of(tmp_path / folder, {"assets.py": source, "q.sql": text})

    one = version("one", "select 1")
    assert one == version("elsewhere/two", "select 1")
    assert one != version("three", "select 2")


def test_the_folder_is_left_out_where_a_file_names_it(tmp_path: Path) -> None:
    around = "os.path.dirname(os.path.dirname(os.path.abspath(__file__)))"
    source = f"import os\nX = [{around} + '/data/{{}}']\ndef subject(): return X\n"
    one, two, other = (
        version_of(tmp_path / folder, {"assets.py": source.format(name)})
        for folder, name in (("one", "a"), ("deep/two", "a"), ("three", "b"))
    )
    assert one == two != other


def test_functions_that_call_each_other(tmp_path: Path) -> None:
    def version(folder: str, name: str, **changes: str) -> str:
        bodies = {"even": "n == 0 or odd(n - 1)", "odd": "n != 0 and even(n - 1)", "subject": "even(5)", **changes}
        source = "\n".join(f"def {name}(n=0): return {body}" for name, body in bodies.items())
        return version_of(tmp_path / folder, {"assets.py": source}, name)

    assert version("a", "subject") == version("b", "subject")
    assert version("a", "subject") != version("c", "subject", odd="n != 1 and even(n - 1)")
    assert version("a", "even") != version("c", "even", odd="n != 1 and even(n - 1)")
    assert version("a", "even") != version("a", "odd")
    assert version("a", "even") == version("d", "even", subject="even(6)")
    recursive = version("e", "subject", subject="subject(n - 1) if n else 0")
    assert recursive != version("f", "subject", subject="subject(n - 2) if n else 0")


def test_it_does_not_matter_what_was_asked_before(tmp_path: Path) -> None:
    source = """
        def a(n): return b(n) + c(n)
        def b(n): return c(n) + a(n)
        def c(n): return d(n) + b(n)
        def d(n): return e(n)
        def e(n): return d(n) + K
        K = [1, 2]
    """
    with imported(write_project(tmp_path, {"assets.py": source})) as module:
        alone = {name: CodeVersions().of_function(getattr(module, name)) for name in "abcde"}
        for order in itertools.permutations("abcde"):
            versions = CodeVersions()
            assert {name: versions.of_function(getattr(module, name)) for name in order} == alone
    assert len(set(alone.values())) == 5


SCRIPT = """
import json, sys
from headwater.catalog.definitions.code_version import CodeVersions
import assets
versions = CodeVersions()
print(json.dumps({name: versions.of_function(getattr(assets, name)) for name in assets.NAMES}))
"""
PORTABLE = """
    import dataclasses, enum, functools, re
    from helpers import clean, Base

    class Colour(enum.Enum):
        RED = "red"

    @dataclasses.dataclass(frozen=True)
    class Limits:
        top: int = 10
        names: frozenset = frozenset({"x", "y", "z"})

    LIMITS = Limits(top=5)
    WORDS = {"a", "b", "c", "d"}
    TABLE = {"k": [1, 2.5, None, True, b"x", (1,)], "p": re.compile("a+", re.I)}

    class Child(Base):
        def go(self, n: int = 3) -> "int":
            return n if n in WORDS else self.up(n)

    def a(x, *, y=3, **kw):
        '''Doc.'''
        if x in {"p", "q", "r"}:
            return f"{x!r:>{y}} {{}} {x=} a" "b" f"{y}" "c"
        with open(x) as f, open(y) as g:
            return [clean(line) for line in f if line.strip() and (n := len(line)) > 2] + [g]

    def b(p):
        match p:
            case {"a": [1, *rest], **more} if rest:
                return rest, more
            case Limits(top=t) | t:
                return t
        try:
            return Child().go(LIMITS.top), TABLE, Colour.RED
        except (ValueError, TypeError) as error:
            raise RuntimeError("x") from error
        finally:
            del p

    def c(*args):
        total: int = 0
        while True:
            for i, (q, *r) in enumerate(args):
                total += i if q else ~i ** 2
                continue
            else:
                break
            assert total, "no"
        return lambda z=1, /, *w: (yield_ for yield_ in (z, w, *args) if not yield_)

    async def d(s):
        async with s as t:
            async for u in t:
                yield await u
        global WORDS
        WORDS |= {1}

    def make(n):
        def inner():
            nonlocal n
            n = n + 1
            return n, functools.reduce(lambda v, w: v @ w, [n])
        return inner

    e = make(4)
    NAMES = ["a", "b", "c", "d", "e"]
"""
PORTABLE_HELPERS = """
    def clean(line):
        return line.replace("\\\\", "/")[1:-1:2]

    class Base:
        registry: dict = {}

        @property
        def size(self): return 1 if self.registry else 2

        def up(self, n): return super().__init__() or n
"""


def _versions(python: str, folder: Path, **environment: str) -> dict[str, str]:
    library = folder / "library"
    library.mkdir(exist_ok=True)
    if not (library / "headwater").exists():
        (library / "headwater").symlink_to(Path(headwater.__file__).parent, target_is_directory=True)
    done = subprocess.run(
        [python, "-c", SCRIPT],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(library), str(folder)]), **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def test_every_process_finds_the_same_versions(tmp_path: Path) -> None:
    write_project(tmp_path, {"assets.py": PORTABLE, "helpers.py": PORTABLE_HELPERS})
    found = [_versions(sys.executable, tmp_path, PYTHONHASHSEED=seed) for seed in ("0", "1", "77")]
    assert found[0] == found[1] == found[2]
    assert all(version.startswith(f"{SCHEME}:") for version in found[0].values())
    assert len(set(found[0].values())) == 5


@pytest.mark.parametrize("version", ["3.12", "3.13", "3.14"])
def test_other_pythons_find_the_same_versions(version: str, tmp_path: Path) -> None:
    python = _other_python(version)
    if python is None:
        pytest.skip(f"Python {version} is not installed")
    write_project(tmp_path, {"assets.py": PORTABLE, "helpers.py": PORTABLE_HELPERS})
    assert _versions(python, tmp_path) == _versions(sys.executable, tmp_path)


def _other_python(version: str) -> str | None:
    beside = map(str, Path(sys.base_prefix).parent.glob(f"{version}*/bin/python{version}"))
    for python in (*beside, shutil.which(f"python{version}")):
        if python and subprocess.run([python, "-c", ""], capture_output=True).returncode == 0:
            return python
    return None


def test_a_name_on_the_first_line_of_a_file(tmp_path: Path) -> None:
    assert version_of(tmp_path, {"assets.py": "subject = lambda: 1"}).startswith("py1:")


class Odd:
    """Whatever is asked of it, it raises."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(f"you asked for {name}")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("you compared me")

    def __hash__(self) -> int:
        return 1

    def __repr__(self) -> str:
        raise RuntimeError("you printed me")

    __str__ = __bool__ = __len__ = __iter__ = __reduce__ = __repr__  # pyright: ignore


class Proxy:
    """As those of web frameworks: outside of a request, even its class is not known."""

    @property
    def __class__(self) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        raise RuntimeError("working outside of a request")

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("working outside of a request")


class OddMeta(type):
    def __getattr__(cls, name: str) -> Any:
        raise RuntimeError("you asked my class")

    def __eq__(cls, other: object) -> bool:
        raise RuntimeError("you compared my class")

    __hash__ = type.__hash__


class OddClass(metaclass=OddMeta):
    __module__ = 5  # pyright: ignore


class OddText(str):
    def __repr__(self) -> str:
        raise RuntimeError("you printed me")

    __str__ = __repr__


class OddInt(int):
    def __format__(self, spec: str) -> str:
        raise RuntimeError("you formatted me")

    __repr__ = __index__ = __str__ = __format__  # pyright: ignore


class ArrayLike:
    shape = (3,)
    dtype = "int64"

    def __eq__(self, other: object) -> Any:
        return [True, False, True]

    __hash__ = None  # pyright: ignore

    def __bool__(self) -> bool:
        raise ValueError("the truth of an array is ambiguous")


def _endless() -> list[Any]:
    items: list[Any] = [{}]
    items[0]["again"] = items
    return items


def _deep(levels: int) -> list[Any]:
    items: list[Any] = []
    for _ in range(levels):
        items = [items]
    return items


ODD: dict[str, Any] = {
    "raises": Odd(),
    "proxy": Proxy(),
    "class": OddClass,
    "instance of an odd class": OddClass(),
    "text": OddText("a"),
    "number": OddInt(5),
    "array": ArrayLike(),
    "mock": MagicMock(),
    "endless": _endless(),
    "deep": _deep(100_000),
    "in a list": [Odd(), Proxy(), ArrayLike()],
    "as a key": {Odd(): 1},
    "in a set": {Odd()},
    "C function": len,
    "method of C": [1].append,
    "slot of a type": str.upper,
    "descriptor": property(lambda _: 1),
    "generator": (i for i in ()),
    "coroutine-like": contextlib.nullcontext(),
    "module": os,
    "nameless module": types.ModuleType(""),
    "odd module": types.SimpleNamespace(__file__=5),
    "partial of odd": functools.partial(isinstance, Odd(), Odd()),  # pyright: ignore[reportArgumentType]
    "huge number": 10**5000,
    "long text": "x" * 10_000_000,
    "surrogate": "\ud800",
    "nan": float("nan"),
    "a million entries": list(range(1_000_000)),
    "a set of a million entries": set(range(1_000_000)),
    "a dict of a million entries": dict.fromkeys(range(1_000_000)),
    "lambda": lambda a=lambda: Odd(): a,  # pyright: ignore[reportUnknownLambdaType]
    "class without source": type("Made", (), {"f": lambda self: 1, "n": 3}),  # pyright: ignore
    "not implemented": NotImplemented,
    "weak": weakref.WeakSet(),
    "frame": sys._getframe(),  # pyright: ignore[reportPrivateUsage]
}


@pytest.mark.parametrize("kind", ODD)
def test_no_object_is_too_odd(kind: str, tmp_path: Path) -> None:
    source = """
        from library import VALUE
        import library

        LOCAL = [VALUE]

        def by_name(): return VALUE
        def by_module(): return library.VALUE
        def in_a_list(): return LOCAL
        def by_default(a=VALUE, *, b=VALUE): return a, b

        def make(v):
            def f(): return v
            return f

        by_cell = make(VALUE)
    """
    library = types.ModuleType("library")
    vars(library)["VALUE"] = ODD[kind]
    sys.modules["library"] = library
    try:
        with imported(write_project(tmp_path, {"assets.py": source})) as module:
            for name in ("by_name", "by_module", "in_a_list", "by_default", "by_cell"):
                first, second = (CodeVersions().of_function(getattr(module, name)) for _ in range(2))
                assert first == second
    finally:
        del sys.modules["library"]


def test_large_values_are_told_by_their_beginning() -> None:
    for value in (list(range(10**6)), set(range(10**6)), dict.fromkeys(range(10**6)), [list(range(9000))] * 200):
        telling = Telling(value)
        assert len(telling.text) < 200_000
        assert not telling.exact
    assert Telling(list(range(MAX_ENTRIES))).exact
    assert Telling([1, 2]).text != Telling([2, 1]).text
    assert Telling({"a": 1}).text != Telling({"a": "1"}).text
    assert Telling([[1], [2]]).text != Telling([[1, 2]]).text
    assert Telling(True).text != Telling(1).text


def test_code_without_source_counts_by_its_byte_code() -> None:
    def made(body: str) -> Any:
        namespace: dict[str, Any] = {"__name__": "made"}
        exec(f"N = 3\ndef g(): return N\ndef subject(x): return {body}", namespace)
        return namespace["subject"]

    one, two, other = (CodeVersions().of_function(made(body)) for body in ("x + g()", "x  +  g()", "x - g()"))
    assert one == two
    assert one != other
    assert one.startswith(f"{BYTECODE_SCHEME}:")


def test_code_that_reaches_code_without_source_says_so(tmp_path: Path) -> None:
    source = "exec('def f(): return {}')\ndef subject(): return f()"
    one, two = (version_of(tmp_path / str(n), {"assets.py": source.format(n)}) for n in (1, 2))
    assert one != two
    assert one.startswith(f"{BYTECODE_SCHEME}:")


def test_byte_code_is_the_same_in_every_process(tmp_path: Path) -> None:
    source = 'exec(\'def f(x): return x in {1, "a", "b", "c"}\')\nNAMES = [\'f\']'
    write_project(tmp_path, {"assets.py": source})
    found = [_versions(sys.executable, tmp_path, PYTHONHASHSEED=seed) for seed in ("0", "1", "2", "3")]
    assert all(one == found[0] for one in found)


def test_a_file_that_changed_since_its_import_does_not_count(tmp_path: Path) -> None:
    before, after = "def subject(): return 1\n", "def subject(): return 2\n"
    with imported(write_project(tmp_path / "one", {"assets.py": before})) as module:
        loaded = CodeVersions().of_function(module.subject)
        (tmp_path / "one" / "assets.py").write_text(after)
        changed = CodeVersions().of_function(module.subject)
        (tmp_path / "one" / "assets.py").write_text("def subject(:\n")
        broken = CodeVersions().of_function(module.subject)
        (tmp_path / "one" / "assets.py").unlink()
        gone = CodeVersions().of_function(module.subject)
    assert loaded.startswith("py1:")
    assert changed == broken == gone
    assert changed.startswith("bc1:")
    assert version_of(tmp_path / "two", {"assets.py": after}) not in (loaded, changed)


def test_no_source_is_too_deep(tmp_path: Path) -> None:
    sums = " + ".join(["x"] * 1500)
    branches = "\n".join(f"    elif x == {i}: return {i}" for i in range(1, 400))
    source = f"def subject(x): return {sums}\ndef other(x):\n    if x == 0: return 0\n{branches}\n"
    one = version_of(tmp_path / "one", {"assets.py": source})
    assert one.startswith("py1:")
    assert one != version_of(tmp_path / "two", {"assets.py": source.replace("x + x", "x - x", 1)})
    assert version_of(tmp_path / "three", {"assets.py": source}, "other").startswith("py1:")


def test_lambdas_that_cannot_be_told_apart_count_together(tmp_path: Path) -> None:
    source = "NAMES = ['f', 'g']\nf, g = (lambda: {}), (lambda: 2)"
    found: list[dict[str, str]] = []
    for number in (1, 3):
        folder = write_project(tmp_path / str(number), {"assets.py": source.format(number)})
        found.append(_versions(sys.executable, folder, PYTHONNODEBUGRANGES="1"))
        assert found[-1]["f"] == found[-1]["g"]
    assert found[0]["f"] != found[1]["f"]


def test_installed_classes_count_by_name() -> None:
    versions = CodeVersions()
    assert versions.of_class(Path) == CodeVersions().of_class(Path) != versions.of_class(dict)
    assert is_installed(os.__file__)
    assert is_installed(pytest.__file__)
    assert is_installed("/usr/lib/python3/dist-packages/pandas/__init__.py")
    assert not is_installed("/srv/project/assets.py")
