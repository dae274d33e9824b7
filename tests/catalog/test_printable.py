import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.catalog.errors import HeadwaterError, SelectionError
from headwater.catalog.printable import find_unprintable, printable, printable_line, with_article
from tests.corpus import HOSTILE

#: Marks that are formatting characters to Unicode, and visible all the same.
VISIBLE = {*range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD, *range(0x13430, 0x13440)}
BIDIRECTIONAL = {0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)}


def _hidden(char: str) -> bool:
    code = ord(char)
    return unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp") and code not in VISIBLE


def test_no_character_that_hides_or_moves_passes() -> None:
    passed = [hex(code) for code in range(0x110000) if _hidden(char := chr(code)) and char in printable_line(char)]
    assert passed == []


def test_what_passes_is_the_rest() -> None:
    escaped = {code for code in range(0x110000) if printable(chr(code)) != chr(code)}
    assert escaped > BIDIRECTIONAL
    assert not any(unicodedata.category(chr(code)) in ("Lu", "Ll", "Nd", "Sm", "So", "Po", "Zs") for code in escaped)
    assert len(escaped) < 7000  # the surrogates, the tags and about a hundred others


@given(st.text(st.characters(exclude_categories=())))
def test_the_result_is_safe_and_can_be_encoded(text: str) -> None:
    line = printable_line(text)
    assert not any(_hidden(char) or char in "\t\n" for char in line)
    line.encode()
    assert printable_line(line) == line
    assert printable(text).count("\n") == text.count("\n")
    assert printable(printable(text)) == printable(text)


@given(st.text(st.characters(exclude_categories=())), st.integers(1, 20))
def test_a_limit_is_kept(text: str, limit: int) -> None:
    line = printable_line(text, limit)
    assert len(line) <= limit
    assert line == printable_line(text) or line.endswith("…")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\tb\nc\r", "a\\tb\\nc\\r"),
        ("\x1b[31m", "\\x1b[31m"),
        ("\u202e", "\\u202e"),
        ("\U000e0041", "\\U000e0041"),
        ("\ud800", "\\ud800"),
        ("⚠\ufe0f schön", "⚠\ufe0f schön"),
    ],
)
def test_escapes_say_what_was_there(text: str, shown: str) -> None:
    assert printable_line(text) == shown


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_leaves_errors_readable(text: str) -> None:
    shown = str(HeadwaterError(f"no {text}", remedy=text))
    assert not any(_hidden(char) for char in shown.replace("\n", "").replace("\t", ""))
    shown = str(SelectionError("bad", text=text, position=min(3, len(text))))
    assert not any(_hidden(char) for char in shown.replace("\n", ""))


def test_keys_hold_less_than_text() -> None:
    assert find_unprintable("⚠\ufe0f") == "\ufe0f"
    assert find_unprintable("a\nb") == "\n"
    assert find_unprintable("schön") is None


def test_articles() -> None:
    names = ("int", "object", "Int128", "dict", "uint8", "str")
    assert [with_article(name) for name in names] == ["an int", "an object", "an Int128", "a dict", "a uint8", "a str"]
