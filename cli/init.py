"""`init`: a small project that runs."""

from pathlib import Path

import click

from headwater.catalog.errors import UsageError
from headwater.cli import output

_SETTINGS = """\
# Headwater looks for this file in the current folder and upward.
files = ["assets.py"]
"""

_ASSETS = '''\
"""Three assets: numbers, their squares, and a summary."""

import polars as pl

from headwater import asset


@asset(group_name="example", owners=["team:data"])
def numbers() -> pl.DataFrame:
    """The numbers from 1 to 100."""
    return pl.DataFrame({"n": range(1, 101)})


@asset(group_name="example", owners=["team:data"])
def squares(numbers: pl.LazyFrame) -> pl.LazyFrame:
    """Each number with its square."""
    return numbers.with_columns(square=pl.col("n") ** 2)


@asset(group_name="example", owners=["team:data"])
def summary(squares: pl.DataFrame) -> dict[str, int]:
    """How many numbers there are, and the sum of their squares."""
    return {"count": squares.height, "sum_of_squares": int(squares["square"].sum())}
'''

_IGNORE = ".headwater/\n"


@click.command()
@click.argument("folder", default=".", metavar="[DIR]")
def init(folder: str) -> None:
    """Write a small project that runs into DIR, the current folder by default.

    \b
    Examples:
      headwater init flights && cd flights && headwater materialize
    """
    root = Path(folder).expanduser()
    files = {"headwater.toml": _SETTINGS, "assets.py": _ASSETS, ".gitignore": _IGNORE}
    existing = [name for name in ("headwater.toml", "assets.py") if (root / name).exists()]
    if existing:
        raise UsageError(f"{root / existing[0]} is there already.", remedy="Choose an empty folder, or a new one.")
    root.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        if not (root / name).exists():
            (root / name).write_text(text, "utf-8")
    output.say(f"Made {root / 'assets.py'} and {root / 'headwater.toml'}.")
    enter = "" if folder == "." else f"cd {root} && "
    output.say(f"Next: {enter}headwater materialize && headwater status")
