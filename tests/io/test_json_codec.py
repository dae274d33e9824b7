import json
import math
from collections import OrderedDict
from datetime import date
from decimal import Decimal
from enum import IntEnum, StrEnum
from pathlib import Path
from typing import Any, NamedTuple, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.catalog.errors import UnstorableValueError
from headwater.io.engines import numpy, pandas
from headwater.io.json_codec import MAX_DEPTH, canonical, decode_value, encode_value
from tests.corpus import HOSTILE

np = numpy()

keys = st.text(st.characters(codec="utf-8"))
plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=4)
    ),
    max_leaves=20,
)


def normal(value: Any) -> object:
    """A value in which only what JSON does not tell apart is not told apart: the order of keys."""
    if isinstance(value, dict):
        return "dict", sorted((key, normal(item)) for key, item in cast(dict[str, Any], value).items())
    if isinstance(value, list):
        return "list", [normal(item) for item in cast(list[Any], value)]
    return repr(value)


@given(plain)
def test_plain_values_come_back_as_they_were(value: Any) -> None:
    data = encode_value(value)
    assert repr(decode_value(data)) == repr(value)
    json.loads(data.decode("utf-8"))  # and are JSON to everybody


@given(st.dictionaries(st.text(st.characters(codec="utf-8")), st.integers(), max_size=6), st.randoms())
def test_the_order_of_keys_is_kept_and_does_not_make_a_version(value: dict[str, int], random: Any) -> None:
    keys = list(value)
    random.shuffle(keys)
    shuffled = {key: value[key] for key in keys}
    assert list(decode_value(encode_value(shuffled))) == keys
    assert canonical(encode_value(shuffled)) == canonical(encode_value(value))


@given(plain, plain)
def test_other_values_have_another_canonical_form(one: Any, other: Any) -> None:
    assert (canonical(encode_value(one)) == canonical(encode_value(other))) == (normal(one) == normal(other))


def test_numpy_scalars_become_the_numbers_they_equal() -> None:
    value = {"mean": np.float64(1.5), "n": np.int64(3), "ok": np.bool_(True), "f": np.float32(0.1)}
    back = decode_value(encode_value(value))
    assert back == value
    assert [type(item) for item in back.values()] == [float, int, bool, float]


def test_subclasses_become_what_they_equal() -> None:
    class Colour(StrEnum):
        RED = "red"

    class Level(IntEnum):
        HIGH = 3

    value: OrderedDict[str, Any] = OrderedDict(a=Colour.RED, b=Level.HIGH)
    assert decode_value(encode_value(value)) == value == {"a": "red", "b": 3}


class Point(NamedTuple):
    x: int


def loop() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (math.nan, r"\$ is nan"),
        ({"rmse": math.inf}, r"\$\['rmse'\] is inf"),
        (np.float64("nan"), r"\$ is nan"),
        ((1, 2), r"\$ is a tuple"),
        ({"a": [1, (2,)]}, r"\$\['a'\]\[1\] is a tuple"),
        (Point(1), r"Point"),
        ({1, 2}, "set"),
        (b"x", "bytes"),
        (bytearray(b"x"), "bytearray"),
        (date(2020, 1, 1), "datetime.date"),
        (Decimal("1"), "decimal.Decimal"),
        (Path("x"), "PosixPath"),
        (object(), "object"),
        (1j, "complex"),
        (np.array([1, 2]), "numpy.ndarray"),
        (np.datetime64("2020-01-01"), "datetime.date"),
        (pandas().NaT, "NaTType"),
        ({1: "a"}, r"key 1 of type int"),
        ({("a",): 1}, "key .* of type tuple"),
        ({None: 1}, "key None of type NoneType"),
        ("\ud800", "surrogate"),
        ({"\udfff": 1}, "surrogate"),
        (pow(10, 5000), "4,000 digits"),
        (loop(), "holds itself"),
        (nested(MAX_DEPTH + 1), "levels deep"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_would_come_back_as_something_else_is_refused(value: Any, words: str) -> None:
    with pytest.raises(UnstorableValueError, match=words) as caught:
        encode_value(value)
    assert caught.value.remedy


def test_hostile_texts_are_only_texts() -> None:
    for text in HOSTILE:
        try:
            text.encode()
        except UnicodeEncodeError:
            with pytest.raises(UnstorableValueError):
                encode_value({text: text})
            continue
        assert decode_value(encode_value({text: [text]})) == {text: [text]}
