"""`observe` and `report`: what something else than Headwater makes."""

import json
from typing import Any

import click

from headwater.catalog.definitions.results import AssetMaterialization, AssetObservation
from headwater.catalog.errors import UsageError
from headwater.catalog.printable import printable_line
from headwater.catalog.records import Cell
from headwater.cli import output
from headwater.cli.app import App, complete_asset, complete_partition, json_option, pass_app, selection_argument
from headwater.cli.assets import describe_materialization
from headwater.cli.times import parse_time
from headwater.materialize.partition_choice import PartitionChoice


@click.command()
@selection_argument("*")
@json_option
@click.pass_context
def observe(context: click.Context, selection: str, as_json: bool) -> None:
    """Look which versions the sources of SELECTION have, those that can be observed.

    A data version that is another than before makes stale what reads the source.

    \b
    Examples:
      headwater observe
      headwater observe raw/orders
    """
    from headwater.cli.build import carry_out
    from headwater.cli.build import report as report_run
    from headwater.materialize.api import observable

    app = context.find_object(App)
    assert app is not None  # the group makes one
    definitions = app.definitions
    with app.writing() as instance:
        chosen = observable(definitions, instance, selection)
        asked: dict[str, Any] = {"partitions": PartitionChoice(all=True), "force": True, "upstream": False}
        result = carry_out(app, instance, as_json, selection=chosen, observe=True, **asked)
    report_run(result, as_json)
    context.exit(result.outcome.exit_code if result.outcome else 0)


@click.command()
@click.argument("asset", shell_complete=complete_asset)
@click.option("--partition", metavar="KEY", help="The partition it is about.", shell_complete=complete_partition)
@click.option("--data-version", metavar="TEXT", help="What is the same for equal data. [default: other data each time]")
@click.option("--metadata", multiple=True, metavar="NAME=VALUE", help="A fact about it; JSON, or else text.")
@click.option("--at", metavar="TIME", help="When it was made. [default: now]")
@click.option("--observed", is_flag=True, help="It was only seen: a version if the data version is another.")
@json_option
@pass_app
def report(
    app: App,
    asset: str,
    partition: str | None,
    data_version: str | None,
    metadata: tuple[str, ...],
    at: str | None,
    observed: bool,
    as_json: bool,
) -> None:
    """Record that ASSET, or one of its partitions, was made by something else than Headwater.

    It is a version like any other, made from what there is now: fresh, and what depends on it is stale if its data
    version is another.

    \b
    Examples:
      headwater report raw/orders --data-version 2026-03-01
      headwater report flights --partition 2013-01-31 --metadata rows=842
      headwater report raw/orders --observed --data-version "$(stat -c %Y orders.csv)"
    """
    from headwater.materialize.reporting import report as record

    about: dict[str, Any] = {"partition": partition, "metadata": _parse_metadata(metadata)}
    if observed and data_version is None:
        raise UsageError("--observed says which data version was seen.", remedy="Add --data-version.")
    event = (
        AssetObservation(asset, data_version=data_version or "", **about)
        if observed
        else AssetMaterialization(asset, data_version=data_version, **about)
    )
    moment = None if at is None else parse_time(at, "--at")
    graph = app.graph
    with app.writing() as instance:
        made = record(event, instance=instance, definitions=graph, at=moment)
    if as_json:
        output.say_json({"key": event.asset_key, "version": None if made is None else describe_materialization(made)})
    elif made is None:
        output.say("UNCHANGED  the data version is that of the last one")
    else:
        output.say(f"RECORDED  {Cell(made.asset, made.partition)}  version {made.version_id}")


def _parse_metadata(given: tuple[str, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for entry in given:
        name, separator, value = entry.partition("=")
        if not separator or not name:
            raise UsageError(
                f"--metadata {printable_line(entry, 60)} is no metadata.", remedy="Write --metadata name=value."
            )
        try:
            found[name] = json.loads(value)
        except (ValueError, RecursionError):
            found[name] = value
    return found
