"""Identifiers and their beginnings."""

import pytest

from headwater.catalog.errors import CatalogError, UsageError
from headwater.catalog.storage.identifiers import bounds, check_identifier, is_identifier

WHOLE = "0190abcd-0123-7000-8000-00000000000a"


def test_an_identifier_is_a_canonical_uuid() -> None:
    assert is_identifier(WHOLE)
    check_identifier(WHOLE, "run")
    for wrong in (
        "",
        "x",
        WHOLE.upper(),
        WHOLE + "0",
        WHOLE[:-1],
        WHOLE.replace("-", ""),
        f"{{{WHOLE}}}",
        WHOLE + "\n",
    ):
        assert not is_identifier(wrong)
        with pytest.raises(CatalogError):
            check_identifier(wrong, "run")


def test_bounds_enclose_exactly_what_starts_alike() -> None:
    assert bounds(WHOLE, "run") == (WHOLE, WHOLE)
    assert bounds("0190ABCD-01", "run") == (
        "0190abcd-0100-0000-0000-000000000000",
        "0190abcd-01ff-ffff-ffff-ffffffffffff",
    )
    assert bounds("0190", "run") == ("01900000-0000-0000-0000-000000000000", "0190ffff-ffff-ffff-ffff-ffffffffffff")
    for nothing in ("xyzw", "0190abcd0", "0190-", WHOLE + "0"):
        assert bounds(nothing, "run") is None
    for short in ("", "019"):
        with pytest.raises(UsageError, match="too short"):
            bounds(short, "run")
