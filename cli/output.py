"""How commands print: tables, times, sizes, JSON. Every text passes through `printable` here, and nowhere else."""

import json
import math
import sys
import unicodedata
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar, cast

import click

from headwater.catalog.printable import printable, printable_line
from headwater.catalog.records import ErrorRecord

T = TypeVar("T", bound=Hashable)

#: Status → colour, where there are colours.
COLOURS = {
    "FRESH": "green",
    "STALE": "yellow",
    "MISSING": "magenta",
    "SUCCESS": "green",
    "VERIFIED": "cyan",
    "FAILURE": "red",
    "SKIPPED": "bright_black",
    "CANCELED": "yellow",
    "INTERRUPTED": "red",
    "QUEUED": "bright_black",
    "STARTING": "blue",
    "STARTED": "blue",
    "CANCELING": "yellow",
    "PENDING": "bright_black",
    "PASS": "green",
    "WARN": "yellow",
    "FAIL": "red",
    "UNKNOWN": "magenta",
    "ERROR": "red",
    "CRITICAL": "red",
    "WARNING": "yellow",
}


_FALLBACK_COLUMNS = 80
#: How wide a tree may get where no terminal sets a limit: 64 levels.
_TREE_COLUMNS = 200
#: What a line of a tree leaves for the name of its node.
_LABEL_COLUMNS = 32


def say(text: str = "", *, bold: bool = False, dim: bool = False, colour: str | None = None) -> None:
    """A line on stdout. Commands whose answer may hold newlines use `say_block`."""
    click.echo(click.style(printable_line(text), bold=bold or None, dim=dim or None, fg=colour))


def say_block(text: str) -> None:
    """Text of several lines on stdout."""
    click.echo(printable(text))


def note(text: str) -> None:
    """A message to the person, on stderr."""
    click.echo(printable(text), err=True)


def say_json(data: Any) -> None:
    """One JSON document on stdout: ASCII only, so that it is safe on any terminal and in any pipe.

    JSON has no NaN and no infinities: they are the texts `NaN`, `Infinity` and `-Infinity`.
    """
    try:
        text = _json(data)
    except (TypeError, ValueError):
        text = _json(_strict(data))
    click.echo(text)


def _json(data: Any) -> str:
    return json.dumps(data, indent=2 if sys.stdout.isatty() else None, default=_plain, allow_nan=False)


def _strict(value: Any) -> Any:
    """`value` without what JSON has no form for: such numbers, and keys that are no text."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {_key(key): _strict(item) for key, item in cast(dict[Any, Any], value).items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_strict(item) for item in cast(list[Any], value)]
    return value


def _key(key: Any) -> Any:
    if isinstance(key, str | int | None):
        return key
    text = _plain(key)
    return text if isinstance(text, str) else str(text)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return rfc3339(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).hex()  # pyright: ignore[reportUnknownArgumentType]
    if isinstance(value, set | frozenset | tuple):
        return list(value)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    return str(value)


def rfc3339(moment: datetime | None) -> str | None:
    """A time in UTC, to the microsecond, with a Z."""
    if moment is None:
        return None
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return aware.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def word(status: str) -> str:
    """What happened to a step, in a sentence."""
    return _WORDS.get(status, status.lower())


_WORDS = {"SUCCESS": "built", "VERIFIED": "left alone with unchanged inputs", "FAILURE": "failed"}


def ago(moment: datetime | None, now: datetime) -> str:
    """How long ago, roughly."""
    if moment is None:
        return "-"
    seconds = max(0.0, (now - moment).total_seconds())
    for size, unit in ((86400 * 365, "y"), (86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size or (seconds >= size and size < 86400):
            return f"{int(seconds // size)}{unit} ago"
    return f"{int(seconds)}s ago"


def duration(seconds: float | None) -> str:
    """Seconds as people say them."""
    if seconds is None:
        return "-"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"


def size(count: int | None) -> str:
    """Bytes in units of 1024."""
    if count is None:
        return "-"
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if amount < 1024 or unit == "TiB":
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    raise AssertionError  # the loop returns


def number(count: int | None) -> str:
    """A count with thousands separated."""
    return "-" if count is None else f"{count:,}"


def table(headers: Sequence[str], rows: Iterable[Sequence[Any]], *, right: Sequence[str] = ()) -> None:
    """Rows in aligned columns; a cell that is a status gets its colour. The last column is cut to the terminal."""
    texts = [[printable_line(str(cell)) for cell in row] for row in rows]
    titles = [printable_line(header) for header in headers]  # names of columns, where a query chose them
    widths = [max([width(title), *(width(row[i]) for row in texts)]) for i, title in enumerate(titles)]
    room = columns()
    before = sum(widths[:-1]) + 2 * (len(widths) - 1)
    if sys.stdout.isatty() and before + widths[-1] > room > before + 10:
        widths[-1] = room - before

    def line(cells: Sequence[str], style: bool) -> str:
        parts: list[str] = []
        for i, cell in enumerate(cells):
            text = cut(cell, widths[i]) if i == len(cells) - 1 else cell
            padding = " " * (widths[i] - width(text))
            shown = click.style(text, fg=COLOURS[cell]) if style and cell in COLOURS else text
            parts.append(padding + shown if headers[i] in right else shown + padding)
        return "  ".join(parts).rstrip()

    click.echo(click.style(line(titles, False), dim=True))
    for row in texts:
        click.echo(line(row, True))


def columns() -> int:
    """How wide the terminal is, or what is a good guess."""
    import shutil

    # A terminal that does not know its width says 0.
    return shutil.get_terminal_size((_FALLBACK_COLUMNS, 24)).columns or _FALLBACK_COLUMNS


def width(text: str) -> int:
    """The cells that `text` takes on a terminal."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )


def cut(text: str, room: int) -> str:
    """`text`, ending in an ellipsis where it takes more than `room` cells."""
    if width(text) <= room:
        return text
    while text and width(text) > room - 1:
        text = text[:-1]
    return f"{text}…"


def facts(pairs: Iterable[tuple[str, Any]], indent: str = "") -> None:
    """Labels and values, one a line; those without a value are left out. A status gets its colour."""
    shown = [(label, str(value)) for label, value in pairs if value not in (None, "", (), [])]
    if not shown:
        return
    room = max(width(printable_line(label)) for label, _ in shown)
    for label, value in shown:
        name = printable_line(label)
        text = styled(value) if value in COLOURS else printable(value)
        click.echo(
            f"{indent}{click.style(name, dim=True)}{' ' * (room - width(name))}  "
            + text.replace("\n", "\n" + indent + " " * (room + 2))
        )


def tree(
    roots: Sequence[T], children: Callable[[T], Sequence[T]], label: Callable[[T], str], *, root: bool = False
) -> None:
    """A tree in box-drawing lines; what occurs twice is expanded once, then marked `…`.

    With `root`, the roots themselves stand at the margin. What would begin beyond the width of the terminal is only
    counted. Iterative, as graphs may be deeper than the call stack.
    """
    room = (columns() if sys.stdout.isatty() else _TREE_COLUMNS) - _LABEL_COLUMNS
    expanded: set[T] = set()
    counted: set[T] = set()
    stack = [(node, "", i == len(roots) - 1, root) for i, node in enumerate(roots)][::-1]
    while stack:
        node, indent, last, bare = stack.pop()
        beyond = children(node)
        again = bool(beyond) and node in expanded
        branch = "" if bare else "└─ " if last else "├─ "
        click.echo(f"{indent}{branch}{label(node)}{' …' if again else ''}")
        if again or not beyond:
            continue
        expanded.add(node)
        deeper = indent if bare else indent + ("   " if last else "│  ")
        if len(deeper) > room:
            click.echo(f"{deeper}└─ … {_count_below(beyond, children, counted):,} more below")
            continue
        stack.extend((child, deeper, i == len(beyond) - 1, False) for i, child in reversed(list(enumerate(beyond))))


def _count_below(nodes: Sequence[T], children: Callable[[T], Sequence[T]], counted: set[T]) -> int:
    """How many there are of `nodes` and below them, without those in `counted`, to which they are added."""
    before = len(counted)
    stack = list(nodes)
    while stack:
        node = stack.pop()
        if node not in counted:
            counted.add(node)
            stack.extend(children(node))
    return len(counted) - before


def failure_text(error: ErrorRecord) -> str:
    """What a person reads of a step's error: the user's traceback, or else the message, and what to do."""
    text = error.traceback.rstrip() or f"{error.kind}: {error.message}"
    return text if not error.remedy or error.remedy in text else f"{text}\n{error.remedy}"


def styled(status: str) -> str:
    """A status in its colour."""
    return click.style(status, fg=COLOURS.get(status))


def counted(count: int, noun: str) -> str:
    """`1 row`, `1,000 rows`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def tags_text(tags: Mapping[str, str]) -> str:
    """Tags as people write them."""
    return ", ".join(f"{name}={value}" if value else name for name, value in tags.items())
