"""`status` and `why`: what is stale, and the reasons."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click

from headwater.catalog.clock import SystemClock
from headwater.catalog.errors import UsageError
from headwater.catalog.freshness import Freshness, FreshnessState
from headwater.catalog.keys import AssetKey
from headwater.catalog.printable import printable_line
from headwater.catalog.records import Cell, Failure
from headwater.cli import output
from headwater.cli.app import App, complete_asset, complete_partition, json_option, pass_app, selection_argument
from headwater.cli.freshness import describe_freshness, read_freshness
from headwater.materialize.causes import Cause, CellStatus, Status
from headwater.materialize.reader import CellCounts, Reason


@click.command()
@selection_argument("*")
@click.option("--check", is_flag=True, help="Exit with 1 when anything selected is to be built.")
@click.option("--partitions", is_flag=True, help="Count the partitions of each asset in columns.")
@json_option
@click.pass_context
def status(context: click.Context, selection: str, check: bool, partitions: bool, as_json: bool) -> None:
    """Say for each asset of SELECTION whether it is FRESH, STALE or MISSING, and why.

    \b
    Examples:
      headwater status
      headwater status stale: --json
      headwater status --partitions         how many partitions have which status
      headwater status --check || headwater materialize
    """
    app = context.find_object(App)
    assert app is not None  # the group makes one
    with app.reader() as reader:
        keys = [key for key in reader.select(selection) if not reader.graph[key].external]
        ages = read_freshness(reader, keys)
        found = [
            _Shown(
                key=key,
                freshness=ages[key],
                partitioned=reader.graph[key].partitions is not None,
                status=reader.status(key),
                counts=reader.counts(key),
                failure=reader.last_failure(key),
            )
            for key in keys
        ]
    if as_json:
        output.say_json({"assets": [one.describe() for one in found]})
    else:
        _print_statuses(found, counts=partitions)
    if check and any(not one.status.settled for one in found):
        context.exit(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shown:
    """A line of `status`."""

    key: AssetKey
    partitioned: bool
    status: CellStatus
    counts: CellCounts
    #: The last one.
    failure: Failure | None
    freshness: Freshness

    @property
    def has_policy(self) -> bool:
        """Whether it says how old its data may become."""
        return self.freshness.state is not FreshnessState.NOT_APPLICABLE

    def describe(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "key": self.key,
            "status": self.status.status,
            "causes": [describe_cause(cause) for cause in self.status.causes],
            "cells": describe_counts(self.counts),
            "failure": describe_failure(self.failure),
        } | ({"freshness": describe_freshness(self.freshness)} if self.has_policy else {})


def _print_statuses(found: Sequence[_Shown], *, counts: bool) -> None:
    cells: list[tuple[Any, ...]] = [() for _ in found]
    titles: list[str] = []
    if counts:
        titles = ["FRESH", "STALE", "MISSING", "FAILED", "TOTAL"]
        cells = [tuple(map(output.number, describe_counts(one.counts).values())) for one in found]
    elif any(one.partitioned for one in found):
        titles = ["PARTITIONS"]
        cells = [(counts_text(one.counts) if one.partitioned else "",) for one in found]
    right = titles if counts else []
    if any(one.has_policy for one in found):
        titles = ["FRESHNESS", *titles]
        cells = [(one.freshness.state if one.has_policy else "", *more) for one, more in zip(found, cells, strict=True)]
    output.table(
        ["ASSET", "STATUS", *titles, "WHY"],
        [
            (one.key, one.status.status, *more, reasons_text(one.status, one.failure))
            for one, more in zip(found, cells, strict=True)
        ],
        right=right,
    )
    totals = Counter(one.status.status for one in found)
    parts = [f"{totals[s]} {s.lower()}" for s in Status if totals[s]]
    failed = sum(one.failure is not None for one in found)
    output.note((", ".join(parts) or "No assets.") + (f"; {failed} failed" if failed else ""))


@click.command()
@click.argument("asset", shell_complete=complete_asset)
@click.option(
    "--partition", metavar="KEY", help="The partition to explain; by default, all.", shell_complete=complete_partition
)
@click.option("--automation", is_flag=True, help="Explain instead whether its condition requests it, and why.")
@click.option("--at", metavar="TIME", help="With --automation: as it was evaluated by this time.  [default: now]")
@json_option
@pass_app
def why(app: App, asset: str, partition: str | None, automation: bool, at: str | None, as_json: bool) -> None:
    """Explain why ASSET is fresh, stale or missing, back to the causes that started it.

    \b
    Examples:
      headwater why delays_by_carrier
      headwater why flights --partition 2013-01-31
      headwater why flights --automation --at 2024-03-05T06:00:00Z
    """
    node = app.graph.find(asset)
    if node.external:
        raise UsageError(
            f"`{node.key}` is computed by something else.", remedy="Only what is computed here can be stale."
        )
    if partition is not None and node.partitions is None:
        raise UsageError(f"`{node.key}` is not partitioned.", remedy="Leave --partition out.")
    if at is not None and not automation:
        raise UsageError("--at says as of when --automation explains.", remedy="Give both, or leave it out.")
    if automation:
        from headwater.cli.conditions import explain_automation
        from headwater.cli.times import parse_time

        explain_automation(app, node.key, partition, None if at is None else parse_time(at, "--at"), as_json)
        return
    with app.reader() as reader:
        reasons = reader.explain(node.key, partition)
    root = Cell(node.key, partition)
    if as_json:
        output.say_json(
            {
                **_describe_cell(root),
                "reasons": [
                    {
                        **_describe_cell(reason.cell),
                        "status": reason.status,
                        "causes": [describe_cause(cause) for cause in reason.causes],
                        "because": [_describe_cell(cell) for cell in reason.because],
                        "more": reason.more,
                    }
                    for reason in reasons.values()
                ],
            }
        )
        return
    _print_reasons(root, reasons)


def _describe_cell(cell: Cell) -> dict[str, Any]:
    return {"key": cell.asset, "partition": cell.partition}


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


def reasons_text(status: CellStatus, failure: Failure | None) -> str:
    """Why something is not fresh, and how its last attempt failed, in a line."""
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


def describe_counts(counts: CellCounts) -> dict[str, int]:
    """How many cells have each status, as JSON."""
    return {
        "fresh": counts.fresh,
        "stale": counts.stale,
        "missing": counts.missing,
        "failed": counts.failed,
        "total": counts.total,
    }


def counts_text(counts: CellCounts) -> str:
    """Such as `340 of 365 fresh, 20 stale, 5 missing`."""
    if not counts.total:
        return "no partitions yet"
    behind = ((counts.stale, "stale"), (counts.missing, "missing"), (counts.failed, "failed"))
    parts = [f"{number:,} {text}" for number, text in behind if number]
    return ", ".join([f"{counts.fresh:,} of {counts.total:,} fresh", *parts])


def _print_reasons(root: Cell, reasons: Mapping[Cell, Reason]) -> None:
    """Each cell with its direct causes, and below it the cells that its transitive ones lead to."""

    def beyond(node: Cell | str) -> list[Cell | str]:
        if isinstance(node, str):
            return []
        reason = reasons[node]
        more = [f"and {output.counted(reason.more, 'more partition')}"] if reason.more else []
        return [*(str(cause) for cause in reason.causes if not cause.transitive), *reason.because, *more]

    def label(node: Cell | str) -> str:
        if isinstance(node, str):
            return printable_line(node)
        return f"{click.style(printable_line(str(node)), bold=True)} {output.styled(reasons[node].status)}"

    output.tree([root], beyond, label, root=True)
