"""`lineage`: the graph around an asset, as a tree, for drawing programs or as JSON."""

from collections.abc import Collection, Iterator
from typing import Any

import click

from headwater.catalog.keys import AssetKey
from headwater.catalog.lineage.asset_graph import AssetGraph
from headwater.catalog.metadata import MetadataKind
from headwater.catalog.printable import printable_line
from headwater.cli import output
from headwater.cli.app import App, complete_asset, json_option, pass_app
from headwater.cli.assets import describe


@click.command()
@click.argument("asset", required=False, shell_complete=complete_asset)
@click.option("--up", "--upstream", type=click.IntRange(min=0), metavar="N", help="Layers upstream. [default: all]")
@click.option(
    "--down", "--downstream", type=click.IntRange(min=0), metavar="N", help="Layers downstream. [default: all]"
)
@click.option("--columns", is_flag=True, help="Which columns come from which, where known.")
@click.option(
    "--format", "form", type=click.Choice(["tree", "dot", "mermaid", "json"]), default="tree", show_default=True
)
@json_option
@pass_app
def lineage(
    app: App, asset: str | None, up: int | None, down: int | None, columns: bool, form: str, as_json: bool
) -> None:
    """Show what ASSET depends on and what depends on it; without ASSET, the whole graph.

    \b
    Examples:
      headwater lineage
      headwater lineage orders --up 1 --down 2
      headwater lineage --format mermaid
    """
    graph = app.graph
    focus = graph.find(asset).key if asset is not None else None
    if focus is None:
        keys = list(graph.nodes)
    else:
        keys = graph.sorted({focus} | graph.upstream({focus}, up) | graph.downstream({focus}, down))
    shown = set(keys)
    edges = [(dep.key, key) for key in keys for dep in graph[key].deps if dep.key in shown]
    column_edges = _column_edges(app, keys) if columns or form == "json" or as_json else []
    if as_json or form == "json":
        output.say_json(
            {
                "nodes": [describe(graph[key]) for key in keys],
                "edges": [{"upstream": a, "downstream": b} for a, b in edges],
                "column_edges": column_edges,
            }
        )
    elif form == "dot":
        click.echo("\n".join(_dot(keys, edges)))
    elif form == "mermaid":
        click.echo("\n".join(_mermaid(keys, edges)))
    else:
        _print_tree(graph, focus, keys)
        if columns:
            output.say()
            for edge in column_edges:
                output.say(
                    f"{edge['upstream']}.{edge['upstream_column']} → {edge['downstream']}.{edge['downstream_column']}"
                )


def _column_edges(app: App, keys: Collection[AssetKey]) -> list[dict[str, Any]]:
    """The column lineage that user code declared with its last materialization, or else in its definition."""
    with app.reading() as instance:
        latest = instance.catalog.latest(set(keys))
    found: list[dict[str, Any]] = []
    for key in keys:
        made = latest.get(key)
        for source in (made, app.graph[key]) if made else (app.graph[key],):
            declared = [value for value in source.metadata.values() if value.kind is MetadataKind.COLUMN_LINEAGE]
            for value in declared:
                found.extend(
                    {
                        "upstream": upstream,
                        "upstream_column": name,
                        "downstream": key,
                        "downstream_column": column,
                        "source": "declared",
                    }
                    for column, sources in value.value.items()
                    for upstream, name in sources
                )
            if declared:
                break
    return found


def _dot(keys: Collection[AssetKey], edges: Collection[tuple[AssetKey, AssetKey]]) -> Iterator[str]:
    def quoted(key: AssetKey) -> str:
        return '"' + key.replace("\\", "\\\\").replace('"', '\\"') + '"'

    yield "digraph lineage {"
    yield "  rankdir=LR; node [shape=box];"
    yield from (f"  {quoted(key)};" for key in keys)
    yield from (f"  {quoted(a)} -> {quoted(b)};" for a, b in edges)
    yield "}"


def _mermaid(keys: Collection[AssetKey], edges: Collection[tuple[AssetKey, AssetKey]]) -> Iterator[str]:
    ids = {key: f"n{i}" for i, key in enumerate(keys)}
    yield "graph LR"
    for key, name in ids.items():
        # Mermaid reads HTML entities inside a quoted label.
        label = "".join(char if char.isalnum() or char in "_-./ " else f"#{ord(char)};" for char in key)
        yield f'  {name}["{label}"]'
    yield from (f"  {ids[a]} --> {ids[b]}" for a, b in edges)


def _print_tree(graph: AssetGraph, focus: AssetKey | None, keys: Collection[AssetKey]) -> None:
    """From the asset upstream and downstream; without one, from every root down. Each asset is expanded once."""
    shown = set(keys)

    def children(key: AssetKey) -> list[AssetKey]:
        return [child for child in graph.children(key) if child in shown]

    def parents(key: AssetKey) -> list[AssetKey]:
        return [parent for parent in graph.parents(key) if parent in shown]

    def label(key: AssetKey) -> str:
        return printable_line(key) + (click.style(" (external)", dim=True) if graph[key].external else "")

    if focus is None:
        output.tree(graph.sorted(graph.roots(keys)), children, label, root=True)
        return
    output.say(focus, bold=True)
    if parents(focus):
        output.say("depends on", dim=True)
        output.tree(parents(focus), parents, label)
    if children(focus):
        output.say("is used by", dim=True)
        output.tree(children(focus), children, label)
    if not parents(focus) and not children(focus):
        output.say("depends on nothing, and nothing depends on it", dim=True)
