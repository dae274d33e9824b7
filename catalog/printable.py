"""The one boundary between text that may hold anything and a terminal."""

import re

# C0 except tab and newline, DEL, C1; bidirectional controls; whatever Unicode calls Default_Ignorable_Code_Point,
# that is zero-width and invisible characters, fillers, variation selectors and tags (DerivedCoreProperties.txt 16);
# line and paragraph separators; interlinear controls; lone surrogates. Not among them: U+FE0E and U+FE0F, which choose
# between the text and the colour form of the sign before them.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0d\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e0fff\ud800-\udfff]"
)
_UNSAFE_LINE = re.compile(f"[\\t\\n]|{_UNSAFE.pattern}")
_UNSAFE_KEY = re.compile(f"[\ufe0e\ufe0f]|{_UNSAFE_LINE.pattern}")


def _escape(match: re.Match[str]) -> str:
    char = match.group()
    code = ord(char)
    if char in "\t\n\r":
        return {"\t": "\\t", "\n": "\\n", "\r": "\\r"}[char]
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def printable(text: str) -> str:
    """`text` for a terminal, over several lines: whatever could move the cursor, hide or reorder is escaped.

    Tabs and newlines stay. The result never holds a terminal escape, a bidirectional or invisible control
    or a lone surrogate, so it can be encoded and printed anywhere.
    """
    return _UNSAFE.sub(_escape, text)


def printable_line(text: str, limit: int = 0) -> str:
    """`text` for one line of a terminal: as `printable`, with tabs and newlines escaped too.

    With a `limit`, a longer result is cut to that many characters, the last one an ellipsis.
    """
    line = _UNSAFE_LINE.sub(_escape, text)
    return line if not limit or len(line) <= limit else line[: limit - 1] + "…"


def find_unprintable(text: str) -> str | None:
    """The first character of `text` that no key may hold, or None."""
    match = _UNSAFE_KEY.search(text)
    return match.group() if match else None


def with_article(noun: str) -> str:
    """`an int`, `a dict`, `a uint8`: the name of a type as it stands in a sentence."""
    return f"{'an' if noun[:1].lower() in 'aeio' else 'a'} {noun}" if noun else noun
