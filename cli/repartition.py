"""`partitions ASSET --migrate`: what was built before partitions were redefined, brought into the new definition."""

from collections.abc import Mapping, Sequence
from typing import Any

from headwater.catalog.errors import UsageError
from headwater.catalog.keys import AssetKey
from headwater.catalog.printable import printable_line
from headwater.cli import output
from headwater.cli.app import App
from headwater.materialize.repartition import Migration, Move, migrate, plan_migration

#: Moves that are listed.
_SHOWN = 20


def run_migration(
    app: App, asset: AssetKey, columns: Sequence[str], renames: Sequence[str], *, dry_run: bool, as_json: bool
) -> None:
    """Carry out a migration, or only say what it would do."""
    chosen = _columns(columns)
    named = dict(_pair(text, "--rename", "old=new") for text in renames)
    with app.writing() as instance:
        found = plan_migration(app.definitions, asset, instance=instance, columns=chosen, renames=named)
        run_id = None
        if found.moves and not dry_run:
            run_id = migrate(app.definitions, found, instance=instance)
    if as_json:
        output.say_json(
            {
                "key": asset,
                "run_id": run_id,
                "dry_run": dry_run,
                "moves": [
                    {"partition": move.partition, "sources": move.sources, "rows": move.rows} for move in found.moves
                ],
                "kept": found.kept,
                "unused": found.unused,
            }
        )
        return
    _print(found, run_id, dry_run=dry_run)


def _print(found: Migration, run_id: str | None, *, dry_run: bool) -> None:
    rows: list[tuple[Any, ...]] = [(_name(move.partition), move.rows, _sources(move)) for move in found.moves[:_SHOWN]]
    if rows:
        output.table(["PARTITION", "ROWS", "FROM"], rows)
    if len(found.moves) > _SHOWN:
        output.note(f"and {len(found.moves) - _SHOWN:,} more; --json lists all")
    counted = output.counted(len(found.moves), "partition")
    if not found.moves:
        output.say("Nothing to migrate: what could be moved is there already.", colour="green")
    elif dry_run:
        output.say(f"Would make {counted} of {found.rows:,} rows. Nothing was written.", colour="yellow")
    else:
        output.say(f"Made {counted} of {found.rows:,} rows.", colour="green")
        output.say(f"run {run_id}", dim=True)
    if found.kept:
        output.note(f"Left as they are, being built already: {_some(found.kept)}.")
    if found.unused:
        output.note(f"Nothing is made of: {_some(found.unused)}.")


def _columns(given: Sequence[str]) -> str | Mapping[str, str] | None:
    """One column, or one for each dimension."""
    if not given:
        return None
    if len(given) == 1 and "=" not in given[0]:
        return given[0]
    return dict(_pair(text, "--column", "dimension=column") for text in given)


def _pair(text: str, option: str, form: str) -> tuple[str, str]:
    before, separator, after = text.partition("=")
    if not separator or not before or not after:
        raise UsageError(f"{option} '{printable_line(text, 80)}' is not {form}.", remedy=f"Write {option} {form}.")
    return before, after


def _name(partition: str | None) -> str:
    return "(unpartitioned)" if partition is None else partition


def _sources(move: Move) -> str:
    return _some(move.sources)


def _some(keys: Sequence[str | None]) -> str:
    shown = ", ".join(printable_line(_name(key), 60) for key in keys[:3])
    return f"{shown} and {len(keys) - 3:,} more" if len(keys) > 3 else shown
