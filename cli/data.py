"""`versions` and `sql`: data through time, and questions to it."""

import csv
import sys
from collections.abc import Sequence

import click

from headwater.catalog.keys import AssetKey
from headwater.catalog.printable import printable
from headwater.catalog.records import Cell
from headwater.cli import output
from headwater.cli.app import App, complete_asset, complete_partition, json_option, pass_app
from headwater.cli.assets import describe_materialization


@click.command()
@click.argument("asset", shell_complete=complete_asset)
@click.option("--partition", metavar="KEY", help="Only of this partition.", shell_complete=complete_partition)
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True)
@json_option
@pass_app
def versions(app: App, asset: str, partition: str | None, limit: int, as_json: bool) -> None:
    """List the versions of ASSET or of one partition, newest first; current ones are marked.

    \b
    Examples:
      headwater versions orders
      headwater versions flights --partition 2013-01-31
    """
    with app.reading() as instance:
        key = AssetKey(asset)
        found = instance.catalog.materializations(key, partition, limit=limit)
        partitions = list(dict.fromkeys(made.partition for made in found if made.partition is not None))
        currents = instance.catalog.currents(key, partitions) if partitions else {}
        whole = None if all(made.partition is not None for made in found) else instance.catalog.current(key)
        now = instance.clock.now()
    current = {made.version_id for made in (*currents.values(), *([whole] if whole else ()))}
    if not found:
        key = app.graph.find(asset).key
    if as_json:
        output.say_json(
            {
                "key": key,
                "versions": [
                    {
                        **describe_materialization(m),
                        "current": m.version_id in current,
                    }
                    for m in found
                ],
            }
        )
        return
    if not found:
        output.note(f"`{Cell(key, partition)}` was never materialized.")
        return
    output.table(
        ["", "VERSION", *(["PARTITION"] if partitions else []), "MADE", "ROWS", "SIZE", "DATA", "CODE", "RUN"],
        [
            (
                "*" if m.version_id in current else "",
                m.version_id,
                *([m.partition or ""] if partitions else []),
                output.ago(m.created, now),
                output.number(m.pointer.rows if m.pointer else None),
                output.size(m.pointer.bytes if m.pointer else None),
                m.data_version.partition(":")[2][:8] or m.data_version[:8],
                m.fingerprint.code.partition(":")[2][:8],
                m.run_id[:13],
            )
            for m in found
        ],
        right=["ROWS", "SIZE"],
    )


@click.command()
@click.argument("query")
@click.option("--csv", "as_csv", is_flag=True, help="Comma-separated values on stdout.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Print at most N rows. [terminals: 1000]")
@json_option
@pass_app
def sql(app: App, query: str, as_csv: bool, limit: int | None, as_json: bool) -> None:
    """Run a read-only QUERY over the catalog's views and over the assets' data, each under its key.

    `SHOW TABLES` lists them; the views are described in docs/catalog-views.md.

    \b
    Examples:
      headwater sql "select asset, rows, seconds from materializations order by created desc"
      headwater sql 'select count(*) from "delays/by_carrier"'
    """
    from headwater.materialize.sql import query_catalog

    with app.reading() as instance:
        answer = query_catalog(instance, query)
    rows = answer.rows if limit is None else answer.rows[:limit]
    if as_json:
        columns = _unique(answer.columns)
        output.say_json({"columns": columns, "rows": [dict(zip(columns, row, strict=True)) for row in rows]})
    elif as_csv:
        # A program gets what the data are; a terminal, what cannot harm it.
        shown = printable if sys.stdout.isatty() else str
        writer = csv.writer(sys.stdout, lineterminator="\n")
        for row in (answer.columns, *rows):
            writer.writerow([shown(cell) if isinstance(cell, str) else cell for cell in row])
    else:
        shown = rows if limit is not None else rows[:1000]
        output.table(answer.columns, [["NULL" if cell is None else cell for cell in row] for row in shown])
        rest = len(answer.rows) - len(shown)
        output.note(output.counted(len(answer.rows), "row") + (f", {rest:,} not shown" if rest else ""))


def _unique(names: Sequence[str]) -> list[str]:
    """Names of which each occurs once, as an object's must: `a` and `a` become `a` and `a_1`."""
    found: list[str] = []
    for name in names:
        number, unique = 0, name
        while unique in found or (number and unique in names):
            number += 1
            unique = f"{name}_{number}"
        found.append(unique)
    return found
