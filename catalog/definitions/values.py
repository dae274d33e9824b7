"""The canonical text of a value: the same in every process, different where the value is.

Of a constant, a default or a closed-over value only what is plain data can be told so; whatever else is in it
(functions, instances of classes) is handed back, to be told by other means. Nothing here raises, whatever the
methods of a user's object do, and nothing takes long: `MAX_ENTRIES` and `MAX_LEVELS` bound it.
"""

import hashlib
import operator
import re
import types
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Iterable, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from pathlib import PurePath
from typing import Any, cast
from uuid import UUID

#: Entries of a value, those of everything in it included, that are told; of more, only how many there are.
MAX_ENTRIES = 10_000
#: Levels of values inside each other that are told.
MAX_LEVELS = 50
_BASES: tuple[type[Any], ...] = (str, bytes, int, float, complex, tuple, list, dict)
#: A longer text or number of bytes counts by its hash.
_LONG = 1000

_BY_REPR = (float, complex, range, Decimal, Fraction, UUID, timedelta, type(Ellipsis), type(NotImplemented))
# Types are looked up, not compared: the type of a type is free to define what equal means.
_HOW: dict[type, str] = {
    **dict.fromkeys(_BY_REPR, "repr"),
    **dict.fromkeys((datetime, date, time), "iso"),
    **dict.fromkeys((list, tuple, deque), "sequence"),
    **dict.fromkeys((set, frozenset), "set"),
    **dict.fromkeys((dict, OrderedDict, defaultdict, Counter, types.MappingProxyType), "mapping"),
    **dict.fromkeys((operator.itemgetter, operator.attrgetter, operator.methodcaller), "getter"),
}


class Telling:
    """What could be told of one value.

    `text` is its canonical text, in which `#0`, `#1`, … stand for the `others`. `exact` is False where something
    was left out, because there is too much of it or because it has no order. Texts and paths below one of `folders`,
    nearest first, are told from there: what is read beside a module counts, where the module lies does not.
    """

    __slots__ = ("_folders", "_left", "exact", "others", "text")

    def __init__(self, value: Any, folders: Sequence[str] = ()) -> None:
        self.others: list[Any] = []
        self.exact = True
        self._folders = folders
        self._left = MAX_ENTRIES
        self.text = self._tell(value, 0)

    def _tell(self, value: Any, level: int) -> str:
        kind = exact_type(value)
        plain = self._plain(value, kind)
        if plain is not None:
            return plain
        match _HOW.get(kind):
            case "sequence":
                return self._join(kind, len(value), value, level)
            case "mapping":
                return self._join(kind, 2 * len(value), (item for pair in value.items() for item in pair), level)
            case "set":
                return self._tell_set(value, kind)
            case "getter":
                return self._join(kind, 1, value.__reduce__()[1], level)
            case _:
                self.others.append(value)
                return f"#{len(self.others) - 1}"

    def _plain(self, value: Any, kind: type) -> str | None:
        if self._folders and (kind is str or _is_path(kind)):
            value = str(value)
            for i, folder in enumerate(self._folders):
                value = value.replace(folder, f"<{i}>") if folder in value else value
        return plain_text(value, exact_type(value))

    def _tell_set(self, value: Any, kind: type) -> str:
        items = cast(Iterable[Any], value)
        texts = [self._plain(item, exact_type(item)) for item in items] if len(value) <= self._left else [None]
        if None in texts:
            self.exact = False
            return f"{kind.__name__} of {len(value)}"
        self._left -= len(texts)
        return f"{kind.__name__}({','.join(sorted(map(_framed, cast(list[str], texts))))})"

    def _join(self, kind: type, size: int, items: Iterable[Any], level: int) -> str:
        self._left -= size
        if self._left < 0 or level >= MAX_LEVELS:
            self.exact = False
            return f"{kind.__name__} of {size}"
        return f"{kind.__name__}({','.join([_framed(self._tell(item, level + 1)) for item in items])})"


def _framed(text: str) -> str:
    return f"{len(text)}:{text}"


def exact_type(value: object) -> type[Any]:
    """What a value is. `isinstance` would ask the value itself, and proxies answer anything, or raise."""
    return type(value)


def plain_text(value: Any, kind: type) -> str | None:
    """The text of a value that has no parts, with its type; None for every other one. `kind` is its exact type."""
    if value is None or kind is bool:
        return str(value)
    if kind is str or kind is bytes:
        if len(value) <= _LONG:
            return f"{kind.__name__} {value!r}"
        data = value if isinstance(value, bytes) else value.encode("utf-8", "surrogatepass")
        return f"{kind.__name__} {hashlib.blake2b(data, digest_size=16).hexdigest()}"
    if kind is int:
        return f"int {value:x}"  # decimal digits are limited, and slow
    how = _HOW.get(kind)
    if how == "repr":
        return f"{kind.__name__} {value!r}"
    if how == "iso":
        return f"{kind.__name__} {value.isoformat()}"
    if kind is re.Pattern:
        return f"Pattern {value.pattern!r} {value.flags}"
    return f"path {str(value)!r}" if _is_path(kind) else None


def _is_path(kind: type) -> bool:
    return issubclass(kind, PurePath) and kind.__module__.partition(".")[0] == "pathlib"


def is_record(kind: type) -> bool:
    """Whether instances of a class are their fields: enums, dataclasses, named tuples, attrs, msgspec, pydantic."""
    names = ("__dataclass_fields__", "_fields", "__attrs_attrs__", "__struct_fields__", "model_fields")
    return issubclass(kind, Enum) or any(name in vars(base) for base in kind.__mro__ for name in names)


def state_of(value: Any, *, whole: bool) -> list[tuple[str, Any]]:
    """The parts of an instance, by name, that are told as its state; `whole` includes attributes that no field names.

    That is what it is as a member of an enum, a str, a number, a tuple, a list or a dict, and the fields of a
    dataclass, a NamedTuple, an attrs class or a msgspec struct.
    """
    kind = exact_type(value)
    parts: list[tuple[str, Any]] = []
    try:
        if issubclass(kind, Enum):
            return [("name", str(value.name)), ("value", value.value)]
        base: Any = next((base for base in _BASES if issubclass(kind, base)), None)
        if base is not None:
            parts.append((base.__name__, str.__str__(value) if base is str else base(value)))
        names: list[Any] = [*getattr(kind, "__dataclass_fields__", ()), *getattr(kind, "__struct_fields__", ())]
        names += [attribute.name for attribute in getattr(kind, "__attrs_attrs__", ())]
        if whole:
            names += [name for cls in kind.__mro__ for name in _slots(cls)]
            names += [*vars(value)] if hasattr(value, "__dict__") else []
        for name in dict.fromkeys(map(str, names)):
            try:
                parts.append((name, getattr(value, name)))
            except Exception:  # not set, or a property that raises
                continue
    except Exception:  # whatever its class makes of being looked at
        return parts
    return parts


def _slots(cls: type) -> Iterable[str]:
    slots = vars(cls).get("__slots__", ())
    names = (slots,) if isinstance(slots, str) else slots
    return [name for name in names if name not in ("__dict__", "__weakref__")]
