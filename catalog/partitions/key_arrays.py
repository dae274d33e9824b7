"""Keys of windows by the million: wall-clock times to texts and back, as arrays."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headwater.catalog.partitions.key_format import WIDTHS, KeyFormat
from headwater.catalog.partitions.series import DAY, Int64s, int64s

_EPOCH = datetime(1970, 1, 1)
#: Keys turned to text in one go: 4 bytes a character.
_BATCH = 1 << 17
#: Stands for a text that is no key.
NO_TIME = np.iinfo(np.int64).min


def format_keys(form: KeyFormat, local: Int64s) -> list[str]:
    """Wall-clock seconds as keys."""
    if form.fields is None:
        return [form.format(_EPOCH + timedelta(seconds=second)) for second in local.tolist()]
    found: list[str] = []
    for start in range(0, len(local), _BATCH):
        found += _format_batch(form.fields, local[start : start + _BATCH])
    return found


def _format_batch(fields: tuple[str, ...], local: Int64s) -> list[str]:
    day, second = np.divmod(local, DAY)
    # The same day comes often in a row: its digits are worked out once.
    changed = np.empty(len(day), np.bool_)
    changed[0] = True
    np.not_equal(day[1:], day[:-1], out=changed[1:])
    which = np.cumsum(changed) - 1
    year, month, of_month = _calendar(day[changed])
    width = sum(WIDTHS[text] if i % 2 else len(text) for i, text in enumerate(fields))
    characters = np.empty((len(local), width), np.uint32)
    at = 0
    for i, text in enumerate(fields):
        if i % 2 == 0:
            characters[:, at : at + len(text)] = [ord(char) for char in text]
            at += len(text)
            continue
        if text in "HM":
            value = second // 3600 if text == "H" else second // 60 % 60
            characters[:, at : at + 2] = _digits(value, 2)
        else:
            value = year if text == "Y" else month if text == "m" else of_month
            characters[:, at : at + WIDTHS[text]] = _digits(value, WIDTHS[text])[which]
        at += WIDTHS[text]
    return characters.view(f"<U{width}").ravel().tolist()


def _digits(values: Int64s, width: int) -> NDArray[np.uint32]:
    characters = np.empty((len(values), width), np.uint32)
    for at in range(width - 1, -1, -1):
        values, digit = np.divmod(values, 10)
        characters[:, at] = digit + 48
    return characters


def _calendar(day: Int64s) -> tuple[Int64s, Int64s, Int64s]:
    dates = day.astype("M8[D]")
    months = dates.astype("M8[M]")
    number = months.astype(np.int64)
    return number // 12 + 1970, number % 12 + 1, (dates - months.astype("M8[D]")).astype(np.int64) + 1


def parse_keys(form: KeyFormat, keys: Sequence[str]) -> Int64s:
    """Keys as the earliest wall-clock seconds that are written so; NO_TIME for what is no key.

    A text that means a time but is not how it is written may give that time.
    """
    if form.fields is None:
        return int64s([_parse_one(form, key) for key in keys])
    width = sum(WIDTHS[text] if i % 2 else len(text) for i, text in enumerate(form.fields))
    found = np.full(len(keys), NO_TIME)
    for start in range(0, len(keys), _BATCH):
        batch = keys[start : start + _BATCH]
        lengths = np.fromiter(map(len, batch), np.int64, len(batch))
        fits = lengths == width
        if not fits.all():
            batch = [batch[i] for i in np.flatnonzero(fits).tolist()]
        text = "".join(batch)
        # A lone surrogate is no key, but is no error either.
        raw = text.encode() if text.isascii() else text.encode("utf-32-le", "surrogatepass")
        characters = np.frombuffer(raw, np.uint8 if text.isascii() else np.uint32)
        found[start : start + len(lengths)][fits] = _parse_batch(form.fields, characters.reshape(-1, width))
    return found


def _parse_batch(fields: tuple[str, ...], rows: NDArray[Any]) -> Int64s:
    columns = np.ascontiguousarray(rows.T)
    zero = columns.dtype.type(48)
    valid = np.ones(len(rows), np.bool_)
    values: dict[str, Int64s] = {}
    at = 0
    for i, text in enumerate(fields):
        if i % 2 == 0:
            for char in text:
                valid &= columns[at] == ord(char)
                at += 1
            continue
        value = np.zeros(len(rows), np.int32)
        for _ in range(WIDTHS[text]):
            # Unsigned: what is below "0" becomes a big number.
            digit = columns[at] - zero
            valid &= digit < 10
            value = value * 10 + digit.astype(np.int32)
            at += 1
        values[text] = value.astype(np.int64)
    nothing = np.zeros(len(rows), np.int64)
    year, month = values["Y"], values.get("m", nothing + 1)
    day, hour, minute = values.get("d", nothing + 1), values.get("H", nothing), values.get("M", nothing)
    valid &= (year >= 1) & (month >= 1) & (month <= 12) & (day >= 1) & (hour < 24) & (minute < 60)
    number = np.where(valid, (year - 1970) * 12 + month - 1, 0)
    first = number.astype("M8[M]").astype("M8[D]").astype(np.int64)
    after = (number + 1).astype("M8[M]").astype("M8[D]").astype(np.int64)
    valid &= day <= after - first
    return np.where(valid, (first + day - 1) * DAY + hour * 3600 + minute * 60, NO_TIME)


def _parse_one(form: KeyFormat, key: str) -> int:
    try:
        parsed = form.parse(key).replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return int(NO_TIME)
    return int((parsed - _EPOCH.replace(tzinfo=UTC)) // timedelta(seconds=1))
