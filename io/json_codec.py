"""Plain values as JSON (RFC 8259, UTF-8): what comes back is equal to what went in, or it is refused.

None, booleans, integers, finite floats, text, lists and dicts with text as keys are plain; NumPy's scalars go in
as the Python numbers that they equal. NaN and the infinities are not JSON, and are refused. So are tuples, sets,
bytes, dates and objects, which would come back as something else.

The file keeps the order of keys. Versions are made of the canonical form, with keys sorted, because dicts of
another order are equal.
"""

import json
import math
from collections.abc import Iterator
from typing import Any, cast

from headwater.catalog.errors import UnstorableValueError
from headwater.catalog.printable import printable_line, with_article
from headwater.io.representation import class_name

#: Levels of lists and dicts inside of each other; Python's parser gives up not far above.
MAX_DEPTH = 500
#: Python reads no longer number from text unless told to (`sys.set_int_max_str_digits`); in bits.
_MAX_INT_BITS = 14_000


def encode_value(value: Any) -> bytes:
    """The JSON of a plain value. Raises `UnstorableValueError` naming the path of what is not plain."""
    try:
        return _dump(_plain(value, (), 0), sort_keys=False)
    except RecursionError:
        raise _too_deep() from None


def canonical(data: bytes) -> bytes:
    """The JSON in `data` with the keys of its objects sorted: equal for equal values."""
    return _dump(json.loads(data), sort_keys=True)


def decode_value(data: bytes) -> Any:
    """The value that `encode_value` was given. Raises `ValueError`."""
    return json.loads(data)


def _dump(value: Any, *, sort_keys: bool) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, sort_keys=sort_keys, separators=(",", ":")).encode()


def _plain(value: Any, path: tuple[Any, ...], depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise _too_deep()
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _text(value, path)
    if type(value).__module__ == "numpy" and getattr(value, "shape", None) == ():
        value = value.item()
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        if value.bit_length() > _MAX_INT_BITS:
            raise _refused(path, "is an integer of more than 4,000 digits", "Keep it as text.")
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise _refused(path, f"is {value!r}, which JSON does not have", "Use None, or a text.")
        return float(value)
    if isinstance(value, list):
        items = cast(list[Any], value)
        return [_plain(item, (*path, i), depth + 1) for i, item in enumerate(items)]
    if isinstance(value, dict):
        return dict(_items(cast(dict[Any, Any], value), path, depth))
    raise _refused(
        path,
        f"is {with_article(class_name(value))}, which would not come back as one",
        "Return a frame, or None, booleans, numbers, text, lists and dicts; PickleIOManager keeps any Python object.",
    )


def _items(value: dict[Any, Any], path: tuple[Any, ...], depth: int) -> Iterator[tuple[str, Any]]:
    for key, item in value.items():
        if not isinstance(key, str):
            raise _refused(
                path,
                f"has the key {printable_line(repr(key), 60)} of type {class_name(key)}",
                "Use text as keys: str(key).",
            )
        yield _text(key, path), _plain(item, (*path, key), depth + 1)


def _text(value: str, path: tuple[Any, ...]) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _refused(path, "holds half of a surrogate pair, which is no character", "Decode it correctly.") from None
    return str(value)


def _refused(path: tuple[Any, ...], what: str, remedy: str) -> UnstorableValueError:
    place = "$" + "".join(f"[{step!r}]" for step in path)
    return UnstorableValueError(f"The value at {printable_line(place, 160)} {what}.", remedy=remedy)


def _too_deep() -> UnstorableValueError:
    return UnstorableValueError(
        f"The value has lists and dicts more than {MAX_DEPTH} levels deep, or holds itself.",
        remedy="Return something flatter, such as a frame.",
    )
