"""Selections of assets: one grammar for strings, and the same as objects.

    expression := expression "or" expression | expression "and" expression | "not" expression | traversal
    traversal  := ["+" | N "+"] atom ["+" | "+" N]       with all, or N layers, of what is above or below
    atom       := "*" | "(" expression ")" | "sinks(" expression ")" | "roots(" expression ")"
                | field ":" [value] | name
    field      := key group kind tag owner column io_manager step is status fresh stale missing failed state
    value      := word | "text" | "<null>"                `*` in a value or name stands for any characters
    name       := word | "text"                           an asset's key

`and` binds tighter than `or`, `not` tighter than both, `+` tightest. Values: `tag:name` or `tag:name=value`, each
part of which may be quoted; `owner:<null>` means the assets without an owner, and so on (`group:<null>`: in no group);
`is:external`, `is:materializable`; `status:fresh|stale|missing|failed`, with `stale:` and so on for short (what failed
when it was last to be built is stale or missing as well);
`state:new`, `state:modified` against the definitions that the last run recorded.
"""

import fnmatch
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

from headwater.catalog.definitions.dependencies import read_deps
from headwater.catalog.definitions.spec import DEFAULT_GROUP
from headwater.catalog.errors import SelectionError, UnknownAssetError, nearest
from headwater.catalog.keys import AssetKey, CoercibleToAssetKey
from headwater.catalog.lineage.asset_graph import AssetGraph
from headwater.catalog.lineage.node import AssetNode

STATUSES = ("fresh", "stale", "missing", "failed")
#: The value of a field for what has none.
NULL = "<null>"


class SelectionFacts(Protocol):
    """What a selection may ask beyond the graph; each is worked out only when a selection asks."""

    def statuses(self) -> Mapping[AssetKey, str]:
        """Each asset's status: FRESH, STALE or MISSING."""
        ...

    def failed(self) -> Collection[AssetKey]:
        """The assets that are not fresh because the last attempt to build them failed."""
        ...

    def columns(self) -> Mapping[AssetKey, Collection[str]]:
        """The columns of each asset's current version."""
        ...

    def states(self) -> Mapping[AssetKey, str]:
        """`new` or `modified` for each asset whose definition is not the recorded one."""
        ...


class AssetSelection:
    """A set of assets, described. Combine selections with `|`, `&`, `-` and `~`; `str()` gives the string form."""

    def resolve(self, graph: AssetGraph, facts: SelectionFacts | None = None) -> set[AssetKey]:
        """The keys it means in `graph`. Raises `UnknownAssetError`, `SelectionError`."""
        raise NotImplementedError

    @staticmethod
    def all() -> "AssetSelection":
        """Every asset."""
        return All()

    @staticmethod
    def assets(*assets: Any) -> "AssetSelection":
        """These assets, given as keys, definitions or specs."""
        return _any(Key(dep.asset) for dep in read_deps(assets))

    @staticmethod
    def keys(*keys: CoercibleToAssetKey) -> "AssetSelection":
        """The assets with these keys."""
        return _any(Key(AssetKey(key)) for key in keys)

    @staticmethod
    def groups(*groups: str) -> "AssetSelection":
        """The assets of these groups."""
        return _any(Field("group", group) for group in groups)

    @staticmethod
    def key_prefixes(*prefixes: CoercibleToAssetKey) -> "AssetSelection":
        """The assets whose keys are below one of these."""
        return _any(Field("key", f"{AssetKey(prefix)}/*") for prefix in prefixes)

    @staticmethod
    def key_substring(text: str) -> "AssetSelection":
        """The assets whose key contains `text`."""
        return Field("key", f"*{text}*")

    @staticmethod
    def tag(name: str, value: str | None = None) -> "AssetSelection":
        """The assets with a tag, of any or of this value."""
        return Field("tag", name if value is None else f"{name}={value}")

    @staticmethod
    def kind(kind: str | None) -> "AssetSelection":
        """The assets of a kind; None for those of none."""
        return Field("kind", kind or NULL)

    @staticmethod
    def owner(owner: str | None) -> "AssetSelection":
        """The assets that an e-mail address or team owns; None for those that nobody does."""
        return Field("owner", owner or NULL)

    @staticmethod
    def from_string(text: str) -> "AssetSelection":
        """What a selection string means. Raises `SelectionError`, pointing at the character."""
        return parse_selection(text)

    def upstream(self, depth: int | None = None, include_self: bool = True) -> "AssetSelection":
        """With what these depend on."""
        reached = Traversal(self, up=depth, down=0)
        return reached if include_self else reached - self

    def downstream(self, depth: int | None = None, include_self: bool = True) -> "AssetSelection":
        """With what depends on these."""
        reached = Traversal(self, up=0, down=depth)
        return reached if include_self else reached - self

    def roots(self) -> "AssetSelection":
        """Those that depend directly on none of the others."""
        return Ends("roots", self)

    def sinks(self) -> "AssetSelection":
        """Those on which none of the others depends directly."""
        return Ends("sinks", self)

    def materializable(self) -> "AssetSelection":
        """Those that are computed here."""
        return self & Field("is", "materializable")

    def __or__(self, other: "AssetSelection") -> "AssetSelection":
        return Or((*(self.of if isinstance(self, Or) else (self,)), other))

    def __and__(self, other: "AssetSelection") -> "AssetSelection":
        return And((*(self.of if isinstance(self, And) else (self,)), other))

    def __sub__(self, other: "AssetSelection") -> "AssetSelection":
        return self & Not(other)

    def __invert__(self) -> "AssetSelection":
        return Not(self)


@dataclass(frozen=True, slots=True)
class All(AssetSelection):
    """`*`."""

    def resolve(self, graph: AssetGraph, facts: SelectionFacts | None = None) -> set[AssetKey]:
        return set(graph.keys)

    def __str__(self) -> str:
        return "*"


@dataclass(frozen=True, slots=True)
class Key(AssetSelection):
    """A name; with `*` in it, every key that matches."""

    name: str
    #: The selection that it was written in, and where in it.
    text: str | None = field(default=None, compare=False, repr=False)
    position: int = field(default=0, compare=False, repr=False)

    def resolve(self, graph: AssetGraph, facts: SelectionFacts | None = None) -> set[AssetKey]:
        if self.name in graph:
            return {AssetKey(self.name)}
        if "*" in self.name:
            return _matching(self.name, graph.keys)
        for i in (i for i, char in enumerate(self.name) if char == "."):
            if self.name[:i] in graph:
                raise SelectionError(
                    f"`{self.name}` would be a column of `{self.name[:i]}`: columns cannot be selected yet, that comes "
                    "with column lineage.",
                    text=self.text or self.name,
                    position=self.position,
                    remedy=nearest(self.name, graph.keys - {self.name[:i]}, f"Select the asset: `{self.name[:i]}`."),
                )
        raise UnknownAssetError(
            self.name, graph.keys, text=None if self.text == self.name else self.text, position=self.position
        )

    def __str__(self) -> str:
        bare = _WORD.fullmatch(self.name) and self.name.lower() not in _WORDS and not _is_number(self.name)
        return self.name if bare else _quote(self.name)


@dataclass(frozen=True, slots=True)
class Field(AssetSelection):
    """`field:value`."""

    field: str
    value: str

    def resolve(self, graph: AssetGraph, facts: SelectionFacts | None = None) -> set[AssetKey]:
        if self.field == "key":
            return _matching(self.value, graph.keys)
        if self.field in _NODE_FIELDS:
            texts = _NODE_FIELDS[self.field]
            if self.value == NULL:
                none = (DEFAULT_GROUP,) if self.field == "group" else ()
                return {node.key for node in graph if all(text in none for text in texts(node))}
            matches = _matcher(self.value)
            return {node.key for node in graph if any(matches(text) for text in texts(node))}
        if facts is None:
            raise SelectionError(
                f"`{self.field}:` needs the catalog, which is not at hand here.", text=str(self), position=0
            )
        if self.field == "column":
            if self.value == NULL:
                known = facts.columns()
                return {key for key in graph.keys if not known.get(key)}
            matches = _matcher(self.value)
            return {key for key, names in facts.columns().items() if key in graph and any(map(matches, names))}
        if (self.field, self.value.lower()) == ("status", "failed"):
            return {key for key in facts.failed() if key in graph}
        known = facts.states() if self.field == "state" else facts.statuses()
        return {key for key, value in known.items() if key in graph and value.lower() == self.value.lower()}

    def __str__(self) -> str:
        if self.field == "status":
            return f"{self.value}:"
        return f"{self.field}:{self.value if _VALUE.fullmatch(self.value) else _quote(self.value)}"


@dataclass(frozen=True, slots=True)
class Traversal(AssetSelection):
    """`N+e+N`: with what is above and below; None for all of it, 0 for none."""

    of: AssetSelection
    up: int | None = 0
    down: int | None = 0

    def resolve(self, graph: AssetGraph, facts: SelectionFacts | None = None) -> set[AssetKey]:
        keys = self.of.resolve(graph, facts)
        above = graph.upstream(keys, self.up) if self.up != 0 else set[AssetKey]()
        below = graph.downstream(keys, self.down) if self.down != 0 else set[AssetKey]()
        return keys | above | below

    def __str__(self) -> str:
        above = "+" if self.up is None else f"{self.up}+" if self.up else ""
        below = "+" if self.down is None else f"+{self.down}" if self.down else ""
        return f"{above}{_bracket(self.of, Key, Field, All, Ends)}{below}"


@dataclass(frozen=True, slots=True)
class Ends(AssetSelection):
    """`roots(e)` and `sinks(e)`."""

    which: str
    of: AssetSelection

    def resolve(self, graph: AssetGraph, facts: SelectionFacts | None = None) -> set[AssetKey]:
        keys = self.of.resolve(graph, facts)
        return graph.roots(keys) if self.which == "roots" else graph.sinks(keys)

    def __str__(self) -> str:
        return f"{self.which}({self.of})"


@dataclass(frozen=True, slots=True)
class Not(AssetSelection):
    """`not e`."""

    of: AssetSelection

    def resolve(self, graph: AssetGraph, facts: SelectionFacts | None = None) -> set[AssetKey]:
        return set(graph.keys - self.of.resolve(graph, facts))

    def __str__(self) -> str:
        return f"not {_bracket(self.of, Key, Field, All, Ends, Traversal, Not)}"


@dataclass(frozen=True, slots=True)
class And(AssetSelection):
    """`e and e and …`."""

    of: tuple[AssetSelection, ...]

    def resolve(self, graph: AssetGraph, facts: SelectionFacts | None = None) -> set[AssetKey]:
        return set[AssetKey].intersection(*(part.resolve(graph, facts) for part in self.of))

    def __str__(self) -> str:
        return " and ".join(_bracket(part, Key, Field, All, Ends, Traversal, Not) for part in self.of)


@dataclass(frozen=True, slots=True)
class Or(AssetSelection):
    """`e or e or …`."""

    of: tuple[AssetSelection, ...]

    def resolve(self, graph: AssetGraph, facts: SelectionFacts | None = None) -> set[AssetKey]:
        return set[AssetKey]().union(*(part.resolve(graph, facts) for part in self.of))

    def __str__(self) -> str:
        return " or ".join(_bracket(part, Key, Field, All, Ends, Traversal, Not, And) for part in self.of)


@dataclass(frozen=True, slots=True)
class Nothing(AssetSelection):
    """No asset at all."""

    def resolve(self, graph: AssetGraph, facts: SelectionFacts | None = None) -> set[AssetKey]:
        return set()

    def __str__(self) -> str:
        return "not *"


def coerce_selection(selection: Any) -> AssetSelection:
    """A selection from what users may write: a string in the grammar, an object, or a list of these to join."""
    if selection is None:
        return All()
    if isinstance(selection, AssetSelection):
        return selection
    if isinstance(selection, AssetKey):
        return Key(selection)
    if isinstance(selection, str):
        return parse_selection(selection)
    if isinstance(selection, Iterable):
        return _any(coerce_selection(entry) for entry in cast(Iterable[Any], selection))
    return AssetSelection.assets(selection)


def _any(selections: Iterable[AssetSelection]) -> AssetSelection:
    parts = tuple(selections)
    return parts[0] if len(parts) == 1 else Or(parts) if parts else Nothing()


_NODE_FIELDS: Mapping[str, Callable[[AssetNode], Iterable[str]]] = {
    "group": lambda node: (node.group,),
    "kind": lambda node: node.kinds,
    "owner": lambda node: node.owners,
    "tag": lambda node: [text for name, value in node.tags.items() for text in (name, f"{name}={value}")],
    "io_manager": lambda node: () if node.external else (node.io_manager,),
    "step": lambda node: () if node.step is None else (node.step,),
    "is": lambda node: ("external",) if node.external else ("materializable",),
}
_FACT_FIELDS = ("column", "status", "state")
_VALUES: Mapping[str, tuple[str, ...]] = {
    "is": ("external", "materializable"),
    "status": STATUSES,
    "state": ("new", "modified"),
}
_FIELDS = ("key", *_NODE_FIELDS, *_FACT_FIELDS, *STATUSES)
_WORDS = frozenset({"and", "or", "not"})

#: A bare name: anything but what the grammar needs for itself.
_WORD = re.compile(r'[^\s()+:"]+')
_VALUE = re.compile(r'[^\s()+"]+')
_TOKEN = re.compile(
    r"""(?P<space>\s+) | (?P<text>"(?:[^"\\]|\\.)*+") | (?P<open>".*) | (?P<call>(?:sinks|roots)\s*\()
      | (?P<sign>[()+]) | (?P<field>[A-Za-z_]+:) | (?P<word>[^\s()+:"]+) | (?P<bad>.)""",
    re.VERBOSE | re.DOTALL,
)


#: Brackets and negations inside each other.
MAX_LEVELS = 100


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    start: int
    end: int


def parse_selection(text: str) -> AssetSelection:
    """What a selection string means; see the module for the grammar. Raises `SelectionError`."""
    return _Parser(text).parse()


class _Parser:
    """A recursive-descent parser; every error names the position it is about."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.level = 0
        matches = [m for m in _TOKEN.finditer(text) if m.lastgroup != "space"]
        self.tokens = [_Token(str(m.lastgroup), m.group(), m.start(), m.end()) for m in matches]

    def parse(self) -> AssetSelection:
        if not self.tokens:
            raise self.error("The selection is empty.", 0, "Write `*` for everything.")
        selection = self.either()
        left = self.peek()
        if left is not None:
            hint = "Join selections with `and` or `or`." if left.kind in ("word", "text", "field", "call") else ""
            raise self.error(f"Here is `{left.text}` where the selection could end.", left.start, hint)
        return selection

    def either(self) -> AssetSelection:
        parts = [self.both()]
        while self.take_word("or"):
            parts.append(self.both())
        return _any(parts)

    def both(self) -> AssetSelection:
        parts = [self.negated()]
        while self.take_word("and"):
            parts.append(self.negated())
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def negated(self) -> AssetSelection:
        self.level += 1
        token = self.peek()
        if token is not None and self.level > MAX_LEVELS:
            raise self.error(
                f"This is nested deeper than {MAX_LEVELS} levels.", token.start, "Leave out some brackets."
            )
        selection = Not(self.negated()) if self.take_word("not") else self.traversal()
        self.level -= 1
        return selection

    def traversal(self) -> AssetSelection:
        up = self.above()
        selection = self.atom()
        down = self.below()
        return selection if up == 0 and down == 0 else Traversal(selection, up=up, down=down)

    def above(self) -> int | None:
        """`+` or `N+` before an atom: how far up; 0 where there is none."""
        first, second, third = self.peek(), self.peek(1), self.peek(2)
        if first and first.kind == "word" and _is_number(first.text):
            if (
                second
                and third
                and first.end == second.start
                and second.end == third.start
                and second.text == "+"
                and third.text not in (")", "+")
            ):
                self.at += 2
                return _layers(first.text)
            return 0  # a name
        if first and first.text == "+" and first.kind == "sign":
            self.at += 1
            again = self.peek()
            if again and again.text == "+" and again.kind == "sign":
                raise self.error(
                    "One + is enough for everything upstream.", again.start, "For two layers, write `2+name`."
                )
            return None
        return 0

    def below(self) -> int | None:
        """`+` or `+N` behind an atom: how far down; 0 where there is none."""
        sign = self.peek()
        if not sign or sign.kind != "sign" or sign.text != "+":
            return 0
        self.at += 1
        number = self.peek()
        if number and number.kind == "word" and number.start == sign.end and _is_number(number.text):
            self.at += 1
            return _layers(number.text)
        if number and number.start == sign.end and number.text == "+":
            raise self.error(
                "One + is enough for everything downstream.", number.start, "For two layers, write `name+2`."
            )
        return None

    def atom(self) -> AssetSelection:
        token = self.peek()
        if token is None:
            raise self.error("The selection ends where a name or `(` should be.", len(self.text))
        self.at += 1
        match token.kind:
            case "word" if token.text.lower() in _WORDS:
                raise self.error(
                    f"`{token.text}` stands where a name should be.",
                    token.start,
                    f'An asset called so is written "{token.text}".',
                )
            case "word":
                return All() if token.text == "*" else Key(token.text, self.text, token.start)
            case "text":
                return Key(_unquote(token.text), self.text, token.start)
            case "field":
                return self.field(token)
            case "call":
                inner = self.either()
                self.close(token)
                return Ends(token.text[:5], inner)
            case "sign" if token.text == "(":
                inner = self.either()
                self.close(token)
                return inner
            case "open":
                raise self.error("This quotation mark is never closed.", token.start, 'Close it, or write it as \\".')
            case _:
                hint = "A name with special characters is quoted." if token.kind == "bad" else ""
                raise self.error(f"`{token.text}` cannot stand here.", token.start, hint)

    def field(self, token: _Token) -> AssetSelection:
        name = token.text[:-1]
        value = self.value(token)
        if name in STATUSES:
            if value is not None:
                raise self.error(f"`{name}:` takes no value.", token.end, f"Write `{name}: and …`.")
            return Field("status", name)
        if name not in _FIELDS:
            known = ", ".join(f"{field}:" for field in _FIELDS)
            raise self.error(
                f"There is no field `{name}:`.", token.start, nearest(name, _FIELDS) or f"The fields are {known}."
            )
        if value is None:
            raise self.error(f"`{name}:` needs a value.", token.end, f"Such as `{name}:{_EXAMPLES[name]}`.")
        allowed = _VALUES.get(name)
        if allowed and value.lower() not in allowed:
            raise self.error(f"`{name}:` has no value {value!r}.", token.end, f"It is one of {', '.join(allowed)}.")
        return Field(name, value.lower() if allowed else value)

    def value(self, token: _Token) -> str | None:
        """The value right behind a field, which may hold what a name may not; None where there is none."""
        parts: list[str] = []
        end = token.end
        is_tag = token.text == "tag:"  # whose name and value may each be quoted
        while (part := self.peek()) and part.start == end and part.text not in ("(", ")", "+"):
            if part.kind == "text":
                if parts and not (is_tag and parts[-1].endswith("=")):
                    break
                self.at += 1
                after = self.peek()
                has_more = is_tag and after and after.start == part.end and after.text.startswith("=")
                if parts or not has_more:
                    return "".join([*parts, _unquote(part.text)])
                parts.append(_unquote(part.text))
            elif part.kind in ("word", "field", "bad"):
                parts.append(part.text)
                self.at += 1
            else:
                break
            end = part.end
        return "".join(parts) or None

    def close(self, opening: _Token) -> None:
        token = self.peek()
        if token is None or token.text != ")":
            at = token.start if token else len(self.text)
            raise self.error("A `)` is missing here.", at, f"The `(` at character {opening.end} is still open.")
        self.at += 1

    def peek(self, ahead: int = 0) -> _Token | None:
        i = self.at + ahead
        return self.tokens[i] if i < len(self.tokens) else None

    def take_word(self, word: str) -> bool:
        token = self.peek()
        if token is None or token.kind != "word" or token.text.lower() != word:
            return False
        self.at += 1
        return True

    def error(self, message: str, position: int, remedy: str = "") -> SelectionError:
        return SelectionError(message, text=self.text, position=position, remedy=remedy)


_EXAMPLES = {
    "key": '"orders*"',
    "group": "core",
    "kind": "polars",
    "tag": "tier=gold",
    "owner": "team:core",
    "column": "amount",
    "io_manager": "warehouse",
    "step": "orders",
    "is": "external",
    "status": "stale",
    "state": "modified",
}


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _layers(number: str) -> int:
    """A number of layers; more digits than these mean all of them, too."""
    return int(number) if len(number) < 10 else 10**9


def _matcher(pattern: str) -> Callable[[str], bool]:
    if "*" not in pattern:
        return pattern.__eq__
    expression = re.compile(fnmatch.translate(pattern.replace("[", "[[]").replace("?", "[?]")))
    return lambda text: expression.match(text) is not None


def _matching(pattern: str, keys: Iterable[AssetKey]) -> set[AssetKey]:
    matches = _matcher(pattern)
    return {key for key in keys if matches(key)}


def _quote(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _unquote(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1], flags=re.DOTALL)


def _bracket(selection: AssetSelection, *bare: type) -> str:
    return str(selection) if isinstance(selection, bare) else f"({selection})"
