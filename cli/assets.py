"""`ls`, `show` and `search`: what there is."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import click

from headwater.catalog.clock import SystemClock
from headwater.catalog.definitions.selection import coerce_selection
from headwater.catalog.errors import UnknownAssetError
from headwater.catalog.keys import AssetKey
from headwater.catalog.lineage.node import AssetNode
from headwater.catalog.metadata import MetadataKind, MetadataValue, display
from headwater.catalog.metadata import to_json as metadata_to_json
from headwater.catalog.records import Cell, DefinitionChange, Input, Materialization
from headwater.cli import output
from headwater.cli.app import App, complete_asset, json_option, pass_app, selection_argument
from headwater.materialize.reader import Reader

#: Versions that another was made from, of those that are shown.
_MOST_INPUTS = 20
#: Keys of a static definition that are shown with it; `headwater partitions` pages all of them.
_MOST_KEYS = 1000


@click.command()
@selection_argument("*")
@click.option("--external", is_flag=True, help="Also those that something else computes.")
@json_option
@pass_app
def ls(app: App, selection: str, external: bool, as_json: bool) -> None:
    """List the assets of SELECTION, all by default.

    \b
    Examples:
      headwater ls
      headwater ls 'group:core and not kind:sql'
      headwater ls '+orders'            with everything upstream
      headwater ls stale:
    """
    chosen = coerce_selection(selection)
    try:
        keys = app.graph.sorted(chosen.resolve(app.graph))
    except Exception as error:
        if getattr(error, "code", "") != "E-SELECTION" or "catalog" not in str(error):
            raise
        with app.reader() as reader:
            keys = reader.select(chosen)
    nodes = [app.graph[key] for key in keys]
    if not external and not any(app.graph[key].external and selection != "*" for key in keys):
        nodes = [node for node in nodes if not node.external]
    if as_json:
        output.say_json({"assets": [describe(node) for node in nodes]})
        return
    output.table(
        ["ASSET", "GROUP", "KINDS", "OWNERS", "DESCRIPTION"],
        [
            (
                node.key,
                "(external)" if node.external else node.group,
                ",".join(node.kinds),
                ",".join(node.owners),
                first_line(node),
            )
            for node in nodes
        ],
    )


@click.command()
@click.argument("asset", shell_complete=complete_asset)
@json_option
@pass_app
def show(app: App, asset: str, as_json: bool) -> None:
    """Show all about ASSET: its definition, and its last materialization with metadata and columns.

    \b
    Examples:
      headwater show orders
      headwater show orders --json | jq .materialization.rows
    """
    from headwater.cli.status import counts_text, describe_counts, describe_failure, failure_line

    try:
        node = app.graph.find(asset)
    except UnknownAssetError as error:
        _show_undefined(app, asset, error, as_json=as_json)
        return
    divided = node.partitions is not None
    with app.reader() as reader:
        last = reader.catalog.latest([node.key]).get(node.key) if divided else reader.catalog.current(node.key)
        history = reader.catalog.definition_history(node.key, limit=5)
        status = None if node.external else reader.status(node.key)
        failure = None if node.external else reader.last_failure(node.key)
        counts = reader.counts(node.key) if divided and not node.external else None
        outside = len(reader.partition_status(node.key).outside) if counts else 0
        heat = _heat_line(reader, node) if counts and not as_json else ""
    if as_json:
        output.say_json(
            {
                **describe(node),
                "defined": True,
                "status": status.status if status else None,
                "causes": [str(cause) for cause in status.causes] if status else [],
                "failure": describe_failure(failure),
                "definition": describe_definition(node),
                "cells": describe_counts(counts) if counts else None,
                "outside": outside,
                "downstream": list(app.graph.children(node.key)),
                "io_manager": node.io_manager,
                "source": node.source,
                "definition_metadata": describe_metadata(node.metadata),
                "definition_history": _describe_history(history),
                "materialization": describe_materialization(last) if last else None,
            }
        )
        return
    failures = [failure_line(failure)] if failure else []
    output.say(node.key, bold=True)
    if node.description:
        output.say_block(node.description)
    output.say()
    output.facts(
        [
            ("group", node.group),
            ("kinds", ", ".join(node.kinds)),
            ("owners", ", ".join(node.owners)),
            ("tags", output.tags_text(node.tags)),
            ("upstream", ", ".join(app.graph.parents(node.key))),
            ("downstream", ", ".join(app.graph.children(node.key))),
            ("code version", node.code_version),
            ("IO manager", None if node.external else node.io_manager if node.stored else "(stores nothing)"),
            ("source", node.source),
            ("partitions", node.partitions_def and node.partitions_def.describe()),
            ("", counts and counts_text(counts) + (f"; {outside:,} outside of the definition" if outside else "")),
            ("status", status and "\n· ".join((status.status, *map(str, status.causes), *failures))),
        ]
    )
    if heat:
        click.echo(heat)
    if node.metadata:
        output.say("\nDefinition metadata".strip(), dim=True)
        _show_metadata(node.metadata)
    if last is not None:
        _show_materialization(last)
    elif node.external:
        output.say("never materialized here", colour="magenta")


def _heat_line(reader: Reader, node: AssetNode) -> str:
    """How an asset's partitions stand, in a line of squares."""
    from headwater.cli.heat_map import line
    from headwater.materialize.heat_map import draw_line

    found = draw_line(reader.partition_status(node.key), reader.failed_partitions(node.key))
    return "".join(line(row.tiles) for row in found.rows)


def _show_undefined(app: App, asset: str, error: UnknownAssetError, *, as_json: bool) -> None:
    """What the catalog still knows of an asset that no definition makes. Raises `error` where that is nothing."""
    key = AssetKey(asset)
    with app.reading() as instance:
        last = instance.catalog.current(key) or instance.catalog.latest([key]).get(key)
        history = instance.catalog.definition_history(key, limit=5)
    if last is None and not history:
        raise error
    if as_json:
        output.say_json(
            {
                "key": key,
                "defined": False,
                "definition_history": _describe_history(history),
                "materialization": describe_materialization(last) if last else None,
            }
        )
        return
    output.say(key, bold=True)
    output.say("no longer defined", colour="yellow")
    if last is not None:
        _show_materialization(last)
    output.note(f"{error.remedy} `headwater versions {key}` and `headwater events {key}` show what is kept.")


def _show_materialization(last: Materialization) -> None:
    now = SystemClock().now()
    pointer = last.pointer
    output.say()
    output.say("Last materialization", bold=True)
    output.facts(
        [
            ("partition", last.partition),
            ("version", last.version_id),
            ("data version", last.data_version),
            (
                "made",
                f"{output.rfc3339(last.created)} ({output.ago(last.created, now)}, in {output.duration(last.seconds)})",
            ),
            ("run", last.run_id),
            ("lies at", pointer.uri if pointer else "(stores nothing)"),
            ("rows", output.number(pointer.rows) if pointer and pointer.rows is not None else None),
            ("size", pointer and output.size(pointer.bytes)),
            ("read", _read_text(last.inputs)),
        ]
    )
    _show_metadata(last.metadata)
    if pointer and pointer.columns:
        output.say()
        output.table(
            ["COLUMN", "TYPE", "NULLS", "MIN", "MAX"],
            [(c.name, c.type, output.number(c.nulls), _short(c.min), _short(c.max)) for c in pointer.columns],
            right=["NULLS"],
        )


def _read_text(inputs: Sequence[Input]) -> str:
    """What a version was made from, a line each."""
    lines = [f"{Cell(i.asset, i.partition)} @ {(i.version_id or 'none')[:13]}" for i in inputs[:_MOST_INPUTS]]
    return "\n".join([*lines, f"and {len(inputs) - len(lines):,} more"] if len(inputs) > len(lines) else lines)


@click.command()
@click.argument("text")
@json_option
@pass_app
def search(app: App, text: str, as_json: bool) -> None:
    """Find assets by key, description, columns, tags, owners and metadata.

    \b
    Examples:
      headwater search delay
      headwater search 'team:flights'
    """
    with app.reader() as reader:
        latest = reader.catalog.latest()
    found: list[tuple[int, AssetKey, list[tuple[str, str]]]] = []
    for node in app.graph:
        hits = _hits(node, latest.get(node.key), text.casefold())
        if hits:
            found.append((min(rank for rank, *_ in hits), node.key, [(where, what) for _, where, what in hits]))
    found.sort(key=lambda entry: (entry[0], entry[1]))
    if as_json:
        output.say_json(
            {
                "assets": [
                    {"key": key, "matches": [{"where": where, "text": what} for where, what in hits]}
                    for _, key, hits in found
                ]
            }
        )
        return
    if not found:
        output.note(f"Nothing matches '{text}'.")
        return
    output.table(
        ["ASSET", "WHERE", "MATCH"],
        [(key if i == 0 else "", where, what) for _, key, hits in found for i, (where, what) in enumerate(hits[:4])],
    )


def _hits(node: AssetNode, last: Materialization | None, text: str) -> list[tuple[int, str, str]]:
    """Where `text` occurs in what is known of an asset: rank, place, the matching text."""
    places: list[tuple[int, str, str]] = [(0, "key", node.key), (1, "group", node.group)]
    places.append((2, "description", " ".join((node.description or "").split())))
    places.extend((1, "owner", owner) for owner in node.owners)
    places.extend((1, "kind", kind) for kind in node.kinds)
    places.extend((2, "tag", f"{name}={value}") for name, value in node.tags.items())
    if last and last.pointer:
        places.extend((2, "column", column.name) for column in last.pointer.columns)
    for source in (node, last) if last else (node,):
        places.extend((3, "metadata", f"{label}: {display(value)}") for label, value in source.metadata.items())
    return [(rank, where, what) for rank, where, what in places if text in what.casefold()]


def describe_metadata(metadata: Mapping[str, MetadataValue]) -> dict[str, Any]:
    """Metadata as JSON, with times as everywhere."""
    plain = metadata_to_json(metadata)
    for label, entry in metadata.items():
        if entry.kind is MetadataKind.TIMESTAMP and isinstance(entry.value, int | float):
            plain[label]["value"] = output.rfc3339(datetime.fromtimestamp(entry.value, UTC))
    return plain


def _describe_history(history: Sequence[DefinitionChange]) -> list[dict[str, Any]]:
    return [{"changed": output.rfc3339(c.changed), "change": c.change, "parts": c.parts} for c in history]


def describe(node: AssetNode) -> dict[str, Any]:
    """A node as the JSON of `ls`."""
    return {
        "key": node.key,
        "group": node.group,
        "kinds": node.kinds,
        "owners": node.owners,
        "tags": node.tags,
        "description": node.description,
        "deps": [dep.key for dep in node.deps],
        "partitioned": node.partitions is not None,
        "partitions_def": node.partitions_def.describe() if node.partitions_def else None,
        "code_version": node.code_version,
        "external": node.external,
    }


def describe_definition(node: AssetNode) -> dict[str, Any] | None:
    """What an asset is divided into, as JSON; None for an unpartitioned one."""
    definition = node.partitions_def
    return definition and {"description": definition.describe(), **_shown(definition.to_json())}


def _shown(data: dict[str, Any]) -> dict[str, Any]:
    """A definition as JSON, with times as everywhere, and how many keys there are in the place of many keys."""
    if "dimensions" in data:
        return {**data, "dimensions": {name: _shown(one) for name, one in data["dimensions"].items()}}
    if "start" in data:
        moments = [one if isinstance(one, str) else _moment(one) for one in data["exclusions"]]
        return {**data, "start": _moment(data["start"]), "end": _moment(data["end"]), "exclusions": moments}
    keys = data.get("keys", ())
    return data if len(keys) <= _MOST_KEYS else {**data, "keys": None, "count": len(keys)}


def _moment(seconds: int | None) -> str | None:
    return None if seconds is None else output.rfc3339(datetime.fromtimestamp(seconds, UTC))


def describe_materialization(made: Materialization) -> dict[str, Any]:
    """A materialization as the JSON of `show` and `versions`."""
    pointer = made.pointer
    return {
        "version_id": made.version_id,
        "partition": made.partition,
        "data_version": made.data_version,
        "code_version": made.fingerprint.code.removeprefix("user:"),
        "run_id": made.run_id,
        "step": made.step_key,
        "at": output.rfc3339(made.created),
        "seconds": made.seconds,
        "uri": pointer.uri if pointer else None,
        "format": pointer.format if pointer else None,
        "rows": pointer.rows if pointer else None,
        "bytes": pointer.bytes if pointer else None,
        "metadata": describe_metadata(made.metadata),
        "tags": made.tags,
        "columns": [
            {"name": c.name, "type": c.type, "version": c.version, "nulls": c.nulls, "min": c.min, "max": c.max}
            for c in (pointer.columns if pointer else ())
        ],
        "inputs": [
            {
                "asset": i.asset,
                "partition": i.partition,
                "version_id": i.version_id,
                "data_version": i.data_version,
                "columns": list(i.columns) if i.columns is not None else None,
            }
            for i in made.inputs
        ],
    }


def first_line(node: AssetNode) -> str:
    """The first line of a description."""
    return (node.description or "").strip().partition("\n")[0]


def _show_metadata(metadata: Any) -> None:
    values: dict[str, MetadataValue] = dict(metadata)
    output.facts([(f"  {label}", display(value)) for label, value in values.items()])


def _short(value: Any) -> str:
    return "-" if value is None else output.cut(str(value), 24)
