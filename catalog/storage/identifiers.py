"""Identifiers as storages hold them: UUIDs in their canonical form (RFC 9562, section 4), which sorts as text."""

import re

from headwater.catalog.errors import CatalogError, UsageError

#: Characters that a shortened run identifier has at least: fewer say nothing, since identifiers start with the time.
MIN_PREFIX = 4

_LOWEST = "00000000-0000-0000-0000-000000000000"
_canonical = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}").fullmatch


def is_identifier(text: str) -> bool:
    """Whether `text` is a UUID in lower case, with its hyphens."""
    return _canonical(text) is not None


def check_identifier(text: str, what: str) -> None:
    """Raise `CatalogError` unless `text` can identify a run or version; `what` names it."""
    if _canonical(text) is None:
        raise CatalogError(
            f"'{text}' is not the identifier of a {what}.",
            remedy="Identifiers are made by headwater.catalog.ids.new_id.",
        )


def bounds(beginning: str, what: str) -> tuple[str, str] | None:
    """The least and the greatest identifier that start with `beginning`; None where none does. `what` names it.

    Raises `UsageError` for fewer than `MIN_PREFIX` characters.
    """
    if len(beginning) < MIN_PREFIX:
        raise UsageError(
            f"'{beginning}' is too short for the identifier of a {what}.",
            remedy=f"Give at least its first {MIN_PREFIX} characters.",
        )
    beginning = beginning.lower()
    least = beginning + _LOWEST[len(beginning) :]
    return (least, beginning + _LOWEST[len(beginning) :].replace("0", "f")) if _canonical(least) else None
