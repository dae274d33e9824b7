"""Drawing the picture of an asset's partitions: a character a square, in colours where there are some."""

import sys
from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

import click

from headwater.catalog.printable import printable_line
from headwater.cli import output

if TYPE_CHECKING:
    from headwater.materialize.heat_map import HeatMap, Tile

#: What a square is, its character, what it says, its colour. The first that fits is taken.
_KINDS = (
    ("failed", "✗", "failed", "red"),
    ("stale", "▒", "stale", "yellow"),
    ("missing", "·", "missing", "magenta"),
    ("partly", "▄", "partly missing", "cyan"),
    ("fresh", "█", "fresh", "green"),
)
_CHARACTERS = {kind: (character, colour) for kind, character, _, colour in _KINDS}
#: The widest label of a row, and of a column that has its own.
_LABEL = 24
#: Squares in a line, of a wide and of a narrow terminal.
_MOST_ACROSS, _FEWEST_ACROSS = 60, 10
#: The widest name that stands above one of many columns, and a space.
_SHORT = 12


def kind_of(tile: "Tile") -> str:
    """What a square is drawn as: the worst that is behind it."""
    if tile.failed:
        return "failed"
    if tile.stale:
        return "stale"
    if tile.missing:
        return "missing" if tile.missing == tile.total else "partly"
    return "fresh"


def squares_across() -> int:
    """How many squares a line may have: what is drawn for a terminal fits it."""
    return (
        min(_MOST_ACROSS, max(_FEWEST_ACROSS, output.columns() - _LABEL - 2)) if sys.stdout.isatty() else _MOST_ACROSS
    )


def print_heat_map(found: "HeatMap") -> None:
    """The picture with its labels and a legend."""
    labels = [_label(row.label) for row in found.rows]
    corner = _label(found.row_title)
    margin = max(map(output.width, (corner, *labels)), default=0)
    wide = _column_widths(found, margin)
    heading = _wide_heading(found.columns, wide) if wide else _heading(found.columns)
    if found.columns:
        click.echo(click.style(f"{_padded(corner, margin)}  {heading}".rstrip(), dim=True))
    for label, row in zip(labels, found.rows, strict=True):
        squares = _wide_line(row.tiles, wide) if wide else line(row.tiles)
        click.echo(f"{click.style(_padded(label, margin), dim=True)}  {squares}")
    _print_legend(found, named=bool(heading))


def line(tiles: "Sequence[Tile | None]") -> str:
    """A row's squares; equal neighbours share their colour."""
    parts: list[str] = []
    for kind, alike in groupby(tiles, lambda tile: None if tile is None else kind_of(tile)):
        count = len(list(alike))
        if kind is None:
            parts.append(" " * count)
        else:
            character, colour = _CHARACTERS[kind]
            parts.append(click.style(character * count, fg=colour))
    return "".join(parts).rstrip()


def _print_legend(found: "HeatMap", *, named: bool) -> None:
    """What the characters of a picture mean, and how much a square is; `named`: there are names above the columns."""
    seen = {kind_of(tile) for row in found.rows for tile in row.tiles if tile is not None}
    parts = [f"{click.style(char, fg=colour)} {text}" for kind, char, text, colour in reversed(_KINDS) if kind in seen]
    if found.columns:
        first = "" if named else f", from {_label(found.columns[0])} on"
        parts.append(f"columns: {printable_line(found.column_title, _LABEL)}{first}")
    if found.largest > 1:
        parts.append(f"a square is up to {found.largest:,} partitions")
    if found.summed:
        parts.append(f"over all of {', '.join(printable_line(name, _LABEL) for name in found.summed)}")
    click.echo("   ".join(parts))


def _column_widths(found: "HeatMap", margin: int) -> list[int]:
    """The widths of a grid's columns where each has room for its name; else none."""
    if found.kind != "grid":
        return []
    widths = [output.width(_label(column)) for column in found.columns]
    return widths if margin + 2 + sum(widths) + 2 * len(widths) <= output.columns() else []


def _wide_heading(columns: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(_padded(_label(column), room) for column, room in zip(columns, widths, strict=True))


def _wide_line(tiles: "Sequence[Tile | None]", widths: Sequence[int]) -> str:
    cells = zip(tiles, widths, strict=True)
    return "  ".join(line((tile,)) + " " * (room - (tile is not None)) for tile, room in cells).rstrip()


def _heading(columns: Sequence[str]) -> str:
    """The names of some columns, each above its square and apart from the next; of long names none."""
    room = max((output.width(printable_line(column)) for column in columns), default=0) + 1
    if room > _SHORT:
        return ""
    return "".join(_padded(printable_line(column), room) for column in columns[::room])


def _label(text: str) -> str:
    return output.cut(printable_line(text), _LABEL)


def _padded(text: str, room: int) -> str:
    return text + " " * (room - output.width(text))
