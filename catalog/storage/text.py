"""Text that cannot be kept as it is: lone surrogates have no UTF-8 form, and log lines may hold them."""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar, cast

Value = TypeVar("Value")


def storable(value: Value) -> Value:
    """`value` itself where all its text has a UTF-8 form; otherwise a copy with lone surrogates written `\\\\udcff`.

    Goes through dataclasses, mappings and sequences. Mapping keys that become equal keep the last value.
    """
    import msgspec

    try:
        msgspec.json.encode(value, enc_hook=str)
    except UnicodeEncodeError:
        return cast(Value, _escaped(value))
    return value


def _escaped(value: Any) -> Any:
    if isinstance(value, str):
        plain = value.encode("utf-8", "backslashreplace").decode()
        return type(value)(plain) if plain != value else value
    if isinstance(value, Mapping):
        return {_escaped(key): _escaped(item) for key, item in cast(Mapping[Any, Any], value).items()}
    if isinstance(value, list | tuple):
        return type(cast(Any, value))(_escaped(item) for item in cast(Any, value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = {part.name: _escaped(getattr(value, part.name)) for part in dataclasses.fields(value)}
        return dataclasses.replace(value, **parts)
    return value
