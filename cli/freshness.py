"""`freshness`: how old data is, by the policies of assets."""

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from headwater.catalog.freshness import NOT_APPLICABLE, Freshness, FreshnessState
from headwater.cli import output
from headwater.cli.app import App, json_option, selection_argument

if TYPE_CHECKING:
    from headwater.catalog.keys import AssetKey
    from headwater.materialize.reader import Reader


@click.command()
@selection_argument("*")
@click.option("--check", is_flag=True, help="Exit with 1 when anything selected is FAIL.")
@json_option
@click.pass_context
def freshness(context: click.Context, selection: str, check: bool, as_json: bool) -> None:
    """Say for each asset of SELECTION that has a freshness policy whether its data is too old, and when it will be.

    \b
    Examples:
      headwater freshness
      headwater freshness group:core --check
    """
    app = context.find_object(App)
    assert app is not None  # the group makes one
    with app.reader() as reader:
        found = {
            key: one
            for key, one in read_freshness(reader, reader.select(selection)).items()
            if one.state is not FreshnessState.NOT_APPLICABLE
        }
    policies = {key: app.graph[key].freshness_policy for key in found}
    if as_json:
        output.say_json(
            {
                "assets": [
                    {"key": key, **describe_freshness(one), "policy": (policy := policies[key]) and policy.to_json()}
                    for key, one in found.items()
                ]
            }
        )
    elif not found:
        output.note("No freshness policies; @asset(freshness_policy=FreshnessPolicy.time_window(…)) gives one.")
    else:
        output.table(
            ["ASSET", "FRESHNESS", "UPDATED", "WHEN", "POLICY"],
            [
                (
                    key,
                    one.state,
                    output.ago(one.updated, reader.moment) if one.updated else "never",
                    _when(one, reader.moment),
                    (policy := policies[key]) and policy.describe(),
                )
                for key, one in found.items()
            ],
        )
    if check and any(one.state is FreshnessState.FAIL for one in found.values()):
        context.exit(1)


def read_freshness(reader: "Reader", keys: "Sequence[AssetKey]") -> "dict[AssetKey, Freshness]":
    """How fresh some assets are; nothing is read where none of them has a policy."""
    if all(reader.graph[key].freshness is None for key in keys):
        return dict.fromkeys(keys, NOT_APPLICABLE)
    from headwater.materialize.freshness import freshness_of

    return freshness_of(reader.graph, reader.catalog, keys, reader.moment)


def describe_freshness(one: Freshness) -> dict[str, Any]:
    """As JSON."""
    times = {"updated": one.updated, "warns_at": one.warns_at, "fails_at": one.fails_at}
    return {"state": one.state, **{name: output.rfc3339(time) for name, time in times.items()}}


def _when(one: Freshness, now: datetime) -> str:
    """What comes next, or since when it is what it is."""
    if one.fails_at is None:
        return ""
    if one.state is FreshnessState.FAIL:
        return f"failed {output.ago(one.fails_at, now)}"
    warns = one.state is FreshnessState.PASS and one.warns_at is not None
    at = one.warns_at if warns and one.warns_at is not None else one.fails_at
    return f"{'warns' if warns else 'fails'} in {output.duration((at - now).total_seconds())}"
