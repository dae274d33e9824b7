"""Asset keys: what an asset is called, everywhere."""

import functools
import re
import unicodedata
from collections.abc import Sequence
from typing import Union, cast

from headwater.catalog.errors import InvalidKeyError
from headwater.catalog.printable import find_unprintable, printable_line

#: UTF-8 bytes of a whole key in its printed form.
MAX_KEY_BYTES = 512

#: What most keys are made of, and what needs no closer look.
_PLAIN = re.compile(r"[A-Za-z0-9_.\-]+(?:/[A-Za-z0-9_.\-]+)*")
_ESCAPED = re.compile("%2F|%25")
_NEEDS_ESCAPE = re.compile("%(?=2F|25)|/")


class AssetKey(str):
    """The name of an asset: one or more segments, printed `a/b`.

    A key is its printed form: `AssetKey("a/b") == AssetKey(["a", "b"]) == "a/b"`. A slash inside a segment is
    printed `%2F` (and a literal `%2F` or `%25` starts with `%25`), so that the printed form is unambiguous.
    Any NFC text works as a segment, up to 512 bytes for the whole key; empty segments, control and invisible
    characters and lone surrogates do not. A key is data: no path or query is ever made of it unescaped.

    Raises `InvalidKeyError`.
    """

    __slots__ = ()

    def __new__(cls, path: Union[str, Sequence[str], "AssetKey"]) -> "AssetKey":
        """The key that `path` spells: its printed form, or its segments."""
        if isinstance(path, AssetKey):
            return path
        if isinstance(path, str):
            return _parse(path)
        if not isinstance(cast(object, path), Sequence):
            raise InvalidKeyError(
                f"An asset key is text or a list of texts, not {type(path).__name__}.",
                remedy="Write it like 'orders' or 'raw/orders'.",
            )
        if not path:
            raise InvalidKeyError("An asset key has at least one segment.", remedy="Give the asset a name.")
        return _make("/".join(_NEEDS_ESCAPE.sub(_escape, validate_segment(part, "asset key")) for part in path))

    @property
    def path(self) -> tuple[str, ...]:
        """The segments."""
        return tuple(_ESCAPED.sub(_unescape, part) for part in self.split("/"))

    @property
    def name(self) -> str:
        """The last segment."""
        return self.path[-1]

    def to_user_string(self) -> str:
        """The printed form, as Dagster calls it."""
        return str.__str__(self)

    @staticmethod
    def from_user_string(text: str) -> "AssetKey":
        """The key whose printed form this is, as Dagster calls it."""
        return AssetKey(text)

    def with_prefix(self, prefix: Union[str, Sequence[str], "AssetKey"]) -> "AssetKey":
        """This key below `prefix`."""
        return AssetKey((*AssetKey(prefix).path, *self.path))

    def __repr__(self) -> str:
        return f"AssetKey({str.__repr__(self)})"


def _make(text: str) -> AssetKey:
    size = len(text) if text.isascii() else len(text.encode())
    if size > MAX_KEY_BYTES:
        raise InvalidKeyError(
            f"The asset key '{printable_line(text, 60)}' is {size} bytes long; {MAX_KEY_BYTES} is the most.",
            remedy="Shorten it.",
        )
    return str.__new__(AssetKey, text)


@functools.lru_cache(maxsize=1 << 16)
def _parse(text: str) -> AssetKey:
    """A key from its printed form; cached, as a graph mentions each key many times."""
    if len(text) <= MAX_KEY_BYTES and _PLAIN.fullmatch(text):
        return str.__new__(AssetKey, text)
    return AssetKey([_ESCAPED.sub(_unescape, part) for part in text.split("/")])


#: What users may write where a key is wanted.
CoercibleToAssetKey = AssetKey | str | Sequence[str]


def validate_segment(segment: object, what: str) -> str:
    """`segment` itself, if it can be part of a key; raises `InvalidKeyError` otherwise."""
    if not isinstance(segment, str):
        raise InvalidKeyError(
            f"A segment of an {what} is text, not {type(segment).__name__}.", remedy="Convert it with str()."
        )
    if not segment:
        raise InvalidKeyError(
            f"An {what} has no empty segment.", remedy="Remove the doubled, leading or trailing slash."
        )
    return _validate_text(segment, f"{what} segment")


def validate_partition_key(key: object, what: str = "partition key") -> str:
    """`key` itself, if it can name a partition: text by the rule of asset keys, up to 512 bytes.

    Raises `InvalidKeyError`.
    """
    if not isinstance(key, str):
        raise InvalidKeyError(f"A {what} is text, not {type(key).__name__}.", remedy="Convert it with str().")
    if not key:
        raise InvalidKeyError(f"A {what} is not empty.", remedy="Give the partition a name.")
    _validate_text(key, what)
    if len(key.encode()) > MAX_KEY_BYTES:
        raise InvalidKeyError(
            f"The {what} '{printable_line(key, 60)}' is {len(key.encode())} bytes long; {MAX_KEY_BYTES} is the most.",
            remedy="Shorten it.",
        )
    return str(key)


def _validate_text(text: str, what: str) -> str:
    bad = find_unprintable(text)
    if bad is not None:
        raise InvalidKeyError(
            f"The {what} '{printable_line(text, 80)}' holds the character U+{ord(bad):04X}.",
            remedy="Control, invisible and text-direction characters cannot be part of a key: remove it.",
        )
    if not unicodedata.is_normalized("NFC", text):
        raise InvalidKeyError(
            f"The {what} '{printable_line(text, 80)}' is not in Unicode normal form C.",
            remedy="Use unicodedata.normalize('NFC', …), so that equal-looking keys are equal.",
        )
    return text


def _escape(match: re.Match[str]) -> str:
    return "%2F" if match.group() == "/" else "%25"


def _unescape(match: re.Match[str]) -> str:
    return "/" if match.group() == "%2F" else "%"
