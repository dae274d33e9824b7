"""`partitions` and `dynamic-partitions`: what an asset is divided into, and how its partitions stand."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from headwater.catalog.errors import UnknownPartitionError, UsageError, nearest
from headwater.catalog.lineage.node import AssetNode
from headwater.catalog.printable import printable_line
from headwater.catalog.records import Cell, Failure, Materialization
from headwater.cli import output
from headwater.cli.app import App, complete_asset, complete_partition, json_option, pass_app
from headwater.cli.assets import describe_definition
from headwater.cli.status import counts_text, describe_cause, describe_counts, describe_failure, reasons_text
from headwater.materialize.causes import CellStatus, Status
from headwater.materialize.reader import Reader

if TYPE_CHECKING:
    from headwater.catalog.partitions.subset import PartitionSubset
    from headwater.materialize.heat_map import HeatMap

#: Partitions that a page lists by default: below a picture, and as JSON.
_TEXT_PAGE, _JSON_PAGE = 20, 100


@click.command()
@click.argument("asset", shell_complete=complete_asset)
@click.option(
    "--status",
    "statuses",
    multiple=True,
    type=click.Choice([*(status.value for status in Status), "FAILED"], case_sensitive=False),
    help="Only partitions with this status.",
)
@click.option("--range", "ranges", multiple=True, metavar="A..B", help="Only these.", shell_complete=complete_partition)
@click.option("--limit", type=click.IntRange(min=0), metavar="N", help="List at most N. [default: 20, with --json 100]")
@click.option("--offset", type=click.IntRange(min=0), default=0, metavar="N", help="Leave out the first N.")
@click.option("--counts", "only_counts", is_flag=True, help="Only how many have which status.")
@click.option("--outside", is_flag=True, help="List those that were built and are not in the definition (any more).")
@click.option("--migrate", "migrating", is_flag=True, help="Bring these into the definition as it is now.")
@click.option("--column", "columns", multiple=True, metavar="[DIMENSION=]NAME", help="Of --migrate: divide rows by it.")
@click.option("--rename", "renames", multiple=True, metavar="OLD=NEW", help="Of --migrate: move a partition whole.")
@click.option("--dry-run", is_flag=True, help="Of --migrate: only say what it would do.")
@json_option
@pass_app
def partitions(
    app: App,
    asset: str,
    statuses: tuple[str, ...],
    ranges: tuple[str, ...],
    limit: int | None,
    offset: int,
    only_counts: bool,
    outside: bool,
    migrating: bool,
    columns: tuple[str, ...],
    renames: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
) -> None:
    """Show the partitions of ASSET: a picture of all of them, and a page of keys.

    \b
    Examples:
      headwater partitions flights
      headwater partitions flights --status missing --range 2013-01-01..2013-03-31
      headwater partitions flights --counts --json
      headwater partitions flights --migrate --column departure --dry-run
    """
    node = app.graph.find(asset)
    if migrating:
        from headwater.cli.repartition import run_migration

        run_migration(app, node.key, columns, renames, dry_run=dry_run, as_json=as_json)
        return
    if columns or renames or dry_run:
        raise UsageError("--column, --rename and --dry-run belong to --migrate.", remedy="Add --migrate.")
    if node.partitions is None and outside:
        _show_former(app, node, offset, limit, as_json=as_json)
        return
    if node.partitions is None:
        raise UsageError(
            f"`{node.key}` is not partitioned.", remedy=f"`headwater status {node.key}` says how it stands."
        )
    if limit is None:
        limit = _JSON_PAGE if as_json else _TEXT_PAGE
    with app.reader() as reader:
        status = reader.partition_status(node.key)
        within = _within(reader, node, ranges)
        counts = reader.counts(node.key, within)
        if outside:
            matching, keys = len(status.outside), sorted(status.outside)[offset : offset + limit]
        else:
            found = _with_statuses(reader, node, statuses, within)
            matching, keys = len(found), found.keys(offset, offset + limit)
        page = [] if only_counts else _page(reader, node, keys, outside=outside)
        drawn = bool(within) and not (as_json or only_counts or outside)
        picture = _draw(reader, node, within) if drawn else None
    if as_json:
        data: dict[str, Any] = {
            "key": node.key,
            "definition": describe_definition(node),
            "counts": describe_counts(counts),
            "outside": len(status.outside),
        }
        listed = {
            "matching": matching,
            "offset": offset,
            "limit": limit,
            "partitions": [one.describe() for one in page],
        }
        output.say_json(data if only_counts else data | listed)
        return
    output.say(node.key, bold=True)
    output.say(node.partitions_def.describe() if node.partitions_def else "")
    lost = f"; {output.counted(len(status.outside), 'partition')} outside of the definition" if status.outside else ""
    output.say(counts_text(counts) + lost)
    if picture is not None:
        from headwater.cli.heat_map import print_heat_map

        output.say()
        print_heat_map(picture)
    if not only_counts:
        _print_page(page, matching, offset, reader.moment)


def _show_former(app: App, node: AssetNode, offset: int, limit: int | None, *, as_json: bool) -> None:
    """The partitions of an asset that has none any more."""
    with app.reading() as instance:
        found = instance.catalog.currents(node.key)
        now = instance.clock.now()
    former = sorted(((key, made) for key, made in found.items() if key is not None), key=lambda pair: pair[0])
    limit = limit if limit is not None else _JSON_PAGE if as_json else _TEXT_PAGE
    page = [
        _Listed(partition=key, status=None, failure=None, made=made) for key, made in former[offset : offset + limit]
    ]
    if as_json:
        listed = [one.describe() for one in page]
        output.say_json({"key": node.key, "definition": None, "outside": len(former), "partitions": listed})
        return
    output.say(node.key, bold=True)
    output.say(f"unpartitioned; {output.counted(len(former), 'partition')} outside of the definition")
    _print_page(page, len(former), offset, now)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Listed:
    """A line of the list. What is outside of the definition has no status."""

    partition: str
    status: CellStatus | None
    failure: Failure | None
    made: Materialization | None

    def describe(self) -> dict[str, Any]:
        """As JSON."""
        pointer = self.made.pointer if self.made else None
        return {
            "partition": self.partition,
            "status": self.status and self.status.status,
            "causes": [describe_cause(cause) for cause in self.status.causes] if self.status else [],
            "failure": describe_failure(self.failure),
            "version_id": self.made and self.made.version_id,
            "run_id": self.made and self.made.run_id,
            "at": self.made and output.rfc3339(self.made.created),
            "rows": pointer and pointer.rows,
            "bytes": pointer and pointer.bytes,
        }


def _within(reader: Reader, node: AssetNode, ranges: Sequence[str]) -> "PartitionSubset":
    """The partitions that ranges name, all by default. Raises `UnknownPartitionError`, `UsageError`."""
    space = reader.partitions(node.key)
    if not ranges:
        return space.all()
    found = space.none()
    for text in ranges:
        found = found | space.parse_range(text)
    return found


def _with_statuses(
    reader: Reader, node: AssetNode, statuses: Sequence[str], within: "PartitionSubset"
) -> "PartitionSubset":
    """The partitions of a set that have one of some statuses, all by default."""
    if not statuses:
        return within
    status = reader.partition_status(node.key)
    found = status.partitions.none()
    for name in (one.upper() for one in statuses):
        found = found | (reader.failed_partitions(node.key) if name == "FAILED" else status.with_status(Status(name)))
    return found & within


def _page(reader: Reader, node: AssetNode, keys: Sequence[str], *, outside: bool) -> list[_Listed]:
    """What there is to say of each of some partitions."""
    made = reader.catalog.currents(node.key, keys) if keys else {}
    many = reader.partition_status(node.key)
    ordinals: list[int] = [] if outside else many.partitions.ordinals(keys).tolist()
    found = {key: many.of(at) for key, at in zip(keys, ordinals, strict=False)}
    return [
        _Listed(
            partition=key,
            status=found.get(key),
            failure=reader.failures.get(Cell(node.key, key)),
            made=made.get(key),
        )
        for key in keys
    ]


def _draw(reader: Reader, node: AssetNode, within: "PartitionSubset") -> "HeatMap":
    from headwater.cli.heat_map import squares_across
    from headwater.materialize.heat_map import draw_heat_map

    status, failed = reader.partition_status(node.key), reader.failed_partitions(node.key)
    return draw_heat_map(status, failed, within, columns=squares_across())


def _print_page(page: Sequence[_Listed], matching: int, offset: int, now: datetime) -> None:
    if page:
        output.say()
        output.table(
            ["PARTITION", "STATUS", "BUILT", "ROWS", "WHY"],
            [
                (
                    one.partition,
                    one.status.status if one.status else "-",
                    output.ago(one.made.created, now) if one.made else "-",
                    output.number(one.made.pointer.rows if one.made and one.made.pointer else None),
                    reasons_text(one.status, one.failure) if one.status else "not in the definition",
                )
                for one in page
            ],
            right=["ROWS"],
        )
    shown = f"{offset + 1:,} to {offset + len(page):,} of " if page and len(page) < matching else ""
    rest = matching - offset - len(page)
    more = f"; --offset {offset + len(page)} shows the next" if page and rest > 0 else ""
    output.note(f"{shown}{output.counted(matching, 'partition')}{more}")


@click.group("dynamic-partitions")
def dynamic_partitions() -> None:
    """List, add and remove the keys of dynamic partitions."""


@dynamic_partitions.command("ls")
@click.argument("name", required=False)
@click.option("--limit", type=click.IntRange(min=0), default=1000, show_default=True, metavar="N")
@click.option("--offset", type=click.IntRange(min=0), default=0, metavar="N", help="Leave out the first N keys.")
@json_option
@pass_app
def list_dynamic(app: App, name: str | None, limit: int, offset: int, as_json: bool) -> None:
    """List the keys of NAME in the order they were added in, or what names there are.

    \b
    Examples:
      headwater dynamic-partitions ls
      headwater dynamic-partitions ls customers
    """
    with app.reading() as instance:
        keys = instance.catalog.dynamic_keys
        names = instance.catalog.dynamic_partition_names() if name is None else [name]
        counts = {one: keys.count(one) for one in names}
        page: Sequence[str] = [] if name is None else keys.slice(name, offset, offset + limit)
    if name is None:
        if as_json:
            found = [{"name": one, "count": count} for one, count in counts.items()]
            output.say_json({"dynamic_partitions": found})
        elif counts:
            output.table(
                ["NAME", "KEYS"], [(one, output.number(count)) for one, count in counts.items()], right=["KEYS"]
            )
        else:
            output.note("No dynamic partition was added yet.")
        return
    if as_json:
        output.say_json({"name": name, "count": counts[name], "offset": offset, "limit": limit, "keys": page})
        return
    for key in page:
        output.say(key)
    output.note(f"{len(page):,} of {output.counted(counts[name], 'key')}" if page else f"`{name}` has no keys.")


@dynamic_partitions.command("add")
@click.argument("name")
@click.argument("keys", nargs=-1, required=True, metavar="KEY...")
@json_option
@pass_app
def add_dynamic(app: App, name: str, keys: tuple[str, ...], as_json: bool) -> None:
    """Add each KEY to the dynamic partitions NAME; those that are there stay where they are.

    \b
    Examples:
      headwater dynamic-partitions add customers ada bob
    """
    with app.writing() as instance:
        before = instance.catalog.dynamic_keys.count(name)
        instance.add_dynamic_partitions(name, keys)
        count = instance.catalog.dynamic_keys.count(name)
    if as_json:
        output.say_json({"name": name, "added": count - before, "count": count})
        return
    output.say(f"Added {output.counted(count - before, 'key')} to `{name}`, which has {count:,} now.")


@dynamic_partitions.command("remove")
@click.argument("name")
@click.argument("keys", nargs=-1, required=True, metavar="KEY...")
@json_option
@pass_app
def remove_dynamic(app: App, name: str, keys: tuple[str, ...], as_json: bool) -> None:
    """Remove each KEY from the dynamic partitions NAME. What was built for it stays, outside of the definition.

    \b
    Examples:
      headwater dynamic-partitions remove customers bob
    """
    with app.writing() as instance:
        positions = instance.catalog.dynamic_keys.indexes(name, keys)
        unknown = [key for key, at in zip(keys, positions, strict=True) if at < 0]
        if unknown:
            known = instance.catalog.dynamic_keys.slice(name, 0, 10_000)
            raise UnknownPartitionError(
                f"`{printable_line(name, 60)}` has no key `{printable_line(unknown[0], 100)}`.",
                remedy=nearest(unknown[0], known, "`headwater dynamic-partitions ls` lists what there is."),
            )
        instance.delete_dynamic_partitions(name, keys)
        count = instance.catalog.dynamic_keys.count(name)
    removed = len(set(keys))
    if as_json:
        output.say_json({"name": name, "removed": removed, "count": count})
        return
    output.say(f"Removed {output.counted(removed, 'key')} from `{name}`, which has {count:,} now.")
