"""Identifiers of versions and runs: UUID version 7 (RFC 9562, section 5.7), so that they sort by time."""

import os
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def new_id(now: datetime) -> str:
    """A fresh UUIDv7 in its usual 36-character form.

    48 bits of `now`, an aware time, in milliseconds, 12 bits of its fraction of a millisecond (section 6.2,
    method 3), 62 random bits.
    """
    millis, fraction = divmod((now - _EPOCH) // _MICROSECOND, 1000)
    value = (millis & ((1 << 48) - 1)) << 80
    value |= 0x7 << 76
    value |= ((fraction << 12) // 1000) << 64
    value |= 0b10 << 62
    value |= int.from_bytes(os.urandom(8), "big") & ((1 << 62) - 1)
    digits = f"{value:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
