"""`status` and `why`: what is stale, and the reasons."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import click

from headwater.catalog.clock import SystemClock
from headwater.catalog.errors import UsageError
from headwater.catalog.keys import AssetKey
from headwater.catalog.printable import printable_line
from headwater.catalog.records import Failure
from headwater.cli import output
from headwater.cli.app import App, complete_asset, json_option, pass_app
from headwater.materialize.causes import Cause, CellStatus, Status
from headwater.materialize.reader import Reason


@click.command()
@click.argument("selection", default="*", shell_complete=complete_asset)
@click.option("--check", is_flag=True, help="Exit with 1 when anything selected is to be built.")
@click.option("--partitions", is_flag=True, help="Count the cells of each asset.")
@json_option
@click.pass_context
def status(context: click.Context, selection: str, check: bool, partitions: bool, as_json: bool) -> None:
    """Say for each asset of SELECTION whether it is FRESH, STALE or MISSING, and why.

    \b
    Examples:
      headwater status
      headwater status stale: --json
      headwater status --check || headwater materialize
    """
    app = context.find_object(App)
    assert app is not None  # the group makes one
    with app.reader() as reader:
        keys = [key for key in reader.select(selection) if not reader.graph[key].external]
        found = {key: reader.status(key) for key in keys}
        failures = {cell.asset: failure for cell, failure in reader.failures.items()}
    if as_json:
        output.say_json(
            {
                "assets": [
                    {
                        "key": key,
                        "status": one.status,
                        "causes": [describe_cause(cause) for cause in one.causes],
                        "cells": _counts(one, failed=key in failures),
                        "failure": describe_failure(failures.get(key)),
                    }
                    for key, one in found.items()
                ]
            }
        )
    else:
        rows = [(key, one.status, _reasons(one, failures.get(key))) for key, one in found.items()]
        if partitions:
            counted = [(key, s, *_counts(found[key], failed=key in failures).values(), why) for key, s, why in rows]
            output.table(["ASSET", "STATUS", "FRESH", "STALE", "MISSING", "FAILED", "TOTAL", "WHY"], counted)
        else:
            output.table(["ASSET", "STATUS", "WHY"], rows)
        totals = Counter(one.status for one in found.values())
        counts = [f"{totals[s]} {s.lower()}" for s in Status if totals[s]]
        failed = len(failures.keys() & found.keys())
        output.note((", ".join(counts) or "No assets.") + (f"; {failed} failed" if failed else ""))
    if check and any(not one.settled for one in found.values()):
        context.exit(1)


@click.command()
@click.argument("asset", shell_complete=complete_asset)
@click.option("--partition", metavar="KEY", help="The partition to explain.")
@json_option
@pass_app
def why(app: App, asset: str, partition: str | None, as_json: bool) -> None:
    """Explain why ASSET is fresh, stale or missing, back to the causes that started it.

    \b
    Examples:
      headwater why delays_by_carrier
    """
    node = app.graph.find(asset)
    if node.external:
        raise UsageError(
            f"`{node.key}` is computed by something else.", remedy="Only what is computed here can be stale."
        )
    if partition is not None:
        raise UsageError(f"`{node.key}` is not partitioned.", remedy="Leave --partition out.")
    with app.reader() as reader:
        reasons = reader.explain(node.key)
    if as_json:
        output.say_json(
            {
                "key": node.key,
                "reasons": [
                    {
                        "key": reason.asset,
                        "status": reason.status,
                        "causes": [describe_cause(cause) for cause in reason.causes],
                        "because": reason.because,
                    }
                    for reason in reasons.values()
                ],
            }
        )
        return
    _print_reasons(node.key, reasons)


def describe_cause(cause: Cause) -> dict[str, Any]:
    """A cause as JSON."""
    return {
        "kind": cause.kind,
        "upstream": cause.upstream,
        "columns": cause.columns,
        "detail": cause.detail,
        "transitive": cause.transitive,
        "text": str(cause),
    }


def _shown(status: CellStatus) -> list[Cause]:
    """The causes worth a line: the direct ones, if there are any."""
    direct = [cause for cause in status.causes if not cause.transitive]
    return direct or list(status.causes)


def _reasons(status: CellStatus, failure: Failure | None) -> str:
    parts = [str(cause) for cause in _shown(status)]
    if failure:
        parts.append(failure_line(failure))
    return "; ".join(parts)


def failure_line(failure: Failure) -> str:
    """A failure in a sentence."""
    return f"failed {output.ago(failure.time, SystemClock().now())} ({failure})"


def describe_failure(failure: Failure | None) -> dict[str, Any] | None:
    """A failure as JSON."""
    if failure is None:
        return None
    return {"run_id": failure.run_id, "step": failure.step_key, "at": failure.time, "error": str(failure)}


def _counts(status: CellStatus, *, failed: bool) -> dict[str, int]:
    return {
        "fresh": int(status.status is Status.FRESH),
        "stale": int(status.status is Status.STALE),
        "missing": int(status.status is Status.MISSING),
        "failed": int(failed),
        "total": 1,
    }


def _print_reasons(root: AssetKey, reasons: Mapping[AssetKey, Reason]) -> None:
    """Each asset with its direct causes, and below it the assets that its transitive ones name."""

    def beyond(node: AssetKey | Cause) -> list[AssetKey | Cause]:
        if isinstance(node, Cause):
            return []
        reason = reasons[node]
        return [*(cause for cause in reason.causes if not cause.transitive), *reason.because]

    def label(node: AssetKey | Cause) -> str:
        if isinstance(node, Cause):
            return printable_line(str(node))
        return f"{click.style(printable_line(node), bold=True)} {output.styled(reasons[node].status)}"

    output.tree([root], beyond, label, root=True)
