import copy
import pickle
import unicodedata
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.catalog.errors import InvalidKeyError
from headwater.catalog.keys import MAX_KEY_BYTES, AssetKey, validate_segment
from headwater.catalog.printable import find_unprintable, printable
from tests.corpus import HOSTILE


def _usable(text: str) -> bool:
    return bool(text) and find_unprintable(text) is None and unicodedata.is_normalized("NFC", text)


def _made_usable(text: str) -> str:
    return unicodedata.normalize("NFC", "".join(char for char in text if find_unprintable(char) is None)) or "%"


#: Segments, with more than their share of what the printed form has to escape.
segments = st.text(st.one_of(st.sampled_from("%/25Ff a."), st.characters()), max_size=12).map(_made_usable)
paths = st.lists(segments, min_size=1, max_size=4).map(tuple)


@given(paths, paths)
def test_two_paths_never_print_alike(one: tuple[str, ...], other: tuple[str, ...]) -> None:
    assert (AssetKey(one) == AssetKey(other)) == (one == other)


@given(paths)
def test_the_printed_form_is_the_key(path: tuple[str, ...]) -> None:
    key = AssetKey(path)
    assert key.path == path
    assert AssetKey(str(key)) == key
    assert AssetKey(str(key)).path == path
    assert len(str(key).split("/")) == len(path)
    assert key.name == path[-1]


@given(paths, paths)
def test_a_prefix_goes_before(prefix: tuple[str, ...], path: tuple[str, ...]) -> None:
    assert AssetKey(path).with_prefix(AssetKey(prefix)).path == prefix + path


def test_a_key_is_a_string() -> None:
    key = AssetKey(["raw", "orders"])
    assert key == "raw/orders"
    assert "raw/orders" in {key: 1}
    assert repr(key) == "AssetKey('raw/orders')"
    assert str(key) == "raw/orders"
    assert type(str(key)) is str
    assert AssetKey(key) is key


def test_a_slash_in_a_segment_is_not_a_separator() -> None:
    assert AssetKey(["a/b"]) == "a%2Fb"
    assert AssetKey(["a/b"]) != AssetKey(["a", "b"])
    assert AssetKey(["a%2Fb"]) == "a%252Fb"
    assert AssetKey("100%").path == ("100%",)


def test_a_key_can_be_copied_and_pickled() -> None:
    key = AssetKey(["a/b", "c"])
    for other in (copy.copy(key), copy.deepcopy(key), pickle.loads(pickle.dumps(key))):
        assert type(other) is AssetKey
        assert other.path == ("a/b", "c")


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("", "no empty segment"),
        ("a//b", "no empty segment"),
        ("/a", "no empty segment"),
        ("a/", "no empty segment"),
        ([], "at least one segment"),
        ([""], "no empty segment"),
        ("a\nb", "U+000A"),
        ("a\x00", "U+0000"),
        ("\x1b[2J", "U+001B"),
        ("a\u202eb", "U+202E"),
        ("a\u200bb", "U+200B"),
        ("a\u3164b", "U+3164"),
        ("a\ufe0f", "U+FE0F"),
        ("\ud800", "U+D800"),
        ("e\u0301", "normal form C"),
        ("a" * (MAX_KEY_BYTES + 1), "513 bytes"),
        ("é" * 257, "514 bytes"),
        (["a" * 300, "b" * 300], "601 bytes"),
        ([1], "not int"),
        (["a", None], "not NoneType"),
        (b"ab", "not int"),
        (None, "not NoneType"),
        (7, "not int"),
        ({"a": 1}, "not dict"),
    ],
)
def test_what_cannot_be_a_key_is_refused_with_the_reason(path: Any, reason: str) -> None:
    with pytest.raises(InvalidKeyError) as caught:
        AssetKey(path)
    assert reason in str(caught.value)
    assert caught.value.remedy
    assert str(caught.value) == printable(str(caught.value))


def test_the_limit_is_in_bytes_of_the_printed_form() -> None:
    assert len(AssetKey("é" * 256).encode()) == MAX_KEY_BYTES
    assert len(AssetKey(["/" * 170]).encode()) == 510
    with pytest.raises(InvalidKeyError):
        AssetKey(["/" * 171])


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_a_key_that_prints_or_an_error_that_does(text: str) -> None:
    for path in (text, [text]):
        try:
            key = AssetKey(path)
        except InvalidKeyError as error:
            assert str(error) == printable(str(error))
        else:
            assert key == printable(key)
            assert AssetKey(str(key)) == key
            assert all(_usable(segment) for segment in key.path)


def test_text_of_any_script_is_a_key() -> None:
    for name in ("한글/표", "schöne Tage", "日本語", "👍", "a b", "..", "con"):
        assert AssetKey(name) == name


def test_a_segment_is_checked_by_itself() -> None:
    assert validate_segment("2024-01-01", "partition key") == "2024-01-01"
    with pytest.raises(InvalidKeyError, match="partition key"):
        validate_segment("", "partition key")
    with pytest.raises(InvalidKeyError, match="partition key is text"):
        validate_segment(cast(Any, 5), "partition key")
