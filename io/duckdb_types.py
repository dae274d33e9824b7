"""What DuckDB hands to Arrow as something else without a word: refused, or checked while it passes.

A UHUGEINT beyond 127 bits arrives as another number, BIT and BIGNUM as DuckDB's own bytes, a time of day without its
offset, and a HUGEINT as a Decimal of 38 digits though it may have 39.
"""

from collections.abc import Iterator
from typing import Any

from headwater.catalog.errors import UnstorableValueError
from headwater.catalog.printable import printable_line
from headwater.io.engines import arrow

_REFUSED = {
    "uhugeint": "DECIMAL(38, 0) or VARCHAR",
    "bit": "VARCHAR",
    "bignum": "VARCHAR",
    "time with time zone": "TIME or VARCHAR",
}
_NESTED = ("struct", "list", "map", "array", "union")


def checked(relation: Any, batches: Iterator[Any]) -> Iterator[Any]:
    """The batches of a relation's result, once its types are known to arrive as what they are.

    Raises `UnstorableValueError` before the first batch for a type, with a batch for a value.
    """
    types = dict(zip(relation.columns, relation.types, strict=True))
    for name, kind in types.items():
        for part in _parts(kind):
            if part in _REFUSED:
                raise UnstorableValueError(
                    f"The column '{printable_line(name, 120)}' is of DuckDB's type {part.upper()}, unknown to Arrow.",
                    remedy=f"Cast it to {_REFUSED[part]} in the query.",
                )
    suspects = [i for i, kind in enumerate(types.values()) if "hugeint" in _parts(kind)]
    return _validated(batches, suspects) if suspects else batches


def _validated(batches: Iterator[Any], suspects: list[int]) -> Iterator[Any]:
    before = 0
    for batch in batches:
        for i in suspects:
            if not _is_valid(batch.column(i)):
                row = next(row for row in range(batch.num_rows) if not _is_valid(batch.column(i).slice(row, 1)))
                raise UnstorableValueError(
                    f"The column '{printable_line(batch.schema.field(i).name, 120)}' holds a HUGEINT of more than 38 "
                    f"digits in row {before + row}.",
                    remedy="Cast it to VARCHAR in the query.",
                )
        before += batch.num_rows
        yield batch


def _is_valid(array: Any) -> bool:
    try:
        array.validate(full=True)
    except arrow().ArrowInvalid:
        return False
    return True


def _parts(kind: Any) -> set[str]:
    """The names of a type and of what it is made of."""
    found: set[str] = {kind.id}
    if kind.id in _NESTED:
        for _, child in kind.children:
            found |= _parts(child) if isinstance(child, type(kind)) else set()  # an array's size is a child too
    return found
