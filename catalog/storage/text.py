"""Text that cannot be kept as it is: lone surrogates have no UTF-8 form, and log lines may hold them."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar, cast

Value = TypeVar("Value")


def storable(value: Value) -> Value:
    """`value` itself where all its text has a UTF-8 form; otherwise a copy with lone surrogates written `\\\\udcff`."""
    import msgspec

    try:
        msgspec.json.encode(value, enc_hook=str)
    except UnicodeEncodeError:
        return map_text(value, _escape)
    return value


def storable_only(texts: Iterable[str]) -> list[str]:
    """Those of `texts` that have a UTF-8 form: the only ones that a question can be about."""
    return [text for text in texts if text.isascii() or storable(text) == text]


def map_text(value: Value, change: Callable[[str], str]) -> Value:
    """A copy of `value` with `change` made to each text in it; goes through dataclasses, mappings and sequences.

    Mapping keys that become equal keep the last value.
    """
    return cast(Value, _mapped(value, change))


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        changed = change(value)
        return type(value)(changed) if changed != value else value
    if isinstance(value, Mapping):
        items = cast(Mapping[Any, Any], value).items()
        return {_mapped(key, change): _mapped(item, change) for key, item in items}
    if isinstance(value, list | tuple):
        return type(cast(Any, value))(_mapped(item, change) for item in cast(Any, value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = {part.name: _mapped(getattr(value, part.name), change) for part in dataclasses.fields(value)}
        return dataclasses.replace(value, **parts)
    return value


def _escape(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
