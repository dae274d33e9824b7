"""`runs`, `run` and `events`: what happened."""

import os
import signal
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import click

from headwater.catalog.errors import BusyError, UsageError
from headwater.catalog.events import EventKind
from headwater.catalog.keys import AssetKey
from headwater.catalog.metadata import to_json as metadata_to_json
from headwater.catalog.processes import this_host
from headwater.catalog.records import Cell, ErrorRecord, LoggedEvent, Run, RunStatus, Step, StepStatus
from headwater.catalog.storage.base import CatalogReader
from headwater.cli import output
from headwater.cli.app import App, complete_asset, complete_partition, json_option, pass_app
from headwater.cli.cells import NAMED, by_asset, name_of, outcome_text, rows_of
from headwater.materialize.reader import settled, settled_steps

#: Seconds between two looks for news.
_POLL = 0.5
#: Cells that are listed one by one.
_FEW_CELLS = 30


@click.command()
@click.option(
    "--status", "statuses", multiple=True, type=click.Choice([s.value for s in RunStatus], case_sensitive=False)
)
@click.option(
    "--asset", metavar="ASSET", help="Only runs that were to build this asset.", shell_complete=complete_asset
)
@click.option("--job", metavar="NAME", help="Only runs of this job.")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True)
@json_option
@pass_app
def runs(app: App, statuses: tuple[str, ...], asset: str | None, job: str | None, limit: int, as_json: bool) -> None:
    """List runs, newest first.

    \b
    Examples:
      headwater runs --status failure
      headwater runs --asset orders --limit 5
    """
    wanted = {RunStatus(status.upper()) for status in statuses}
    # A run that is not finished although we could open the catalog has lost its process.
    asked = wanted | {RunStatus.STARTED} if RunStatus.INTERRUPTED in wanted else wanted - {RunStatus.STARTED}
    with app.reading() as instance:
        found = (
            []
            if wanted and not asked
            else instance.catalog.runs(
                statuses=asked or None, asset=AssetKey(asset) if asset else None, job=job, limit=limit
            )
        )
        found = [settled(run) for run in found]
        steps = {run.run_id: settled_steps(instance.catalog.steps(run.run_id)) for run in found} if as_json else {}
        now = instance.clock.now()
    if as_json:
        output.say_json({"runs": [describe_run(run, steps[run.run_id]) for run in found]})
        return
    if not found:
        output.note("No runs.")
        return
    output.table(
        ["RUN", "STATUS", "STARTED", "TOOK", "STEPS", "SELECTION"],
        [
            (
                run.run_id,
                run.status,
                output.ago(run.started, now),
                output.duration(_took(run)),
                ", ".join(f"{count} {status.lower()}" for status, count in run.step_counts.items() if count),
                _about(run),
            )
            for run in found
        ],
    )


@click.group()
def run() -> None:
    """Show, cancel or retry one run."""


@run.command("show")
@click.argument("run_id")
@json_option
@pass_app
def show_run(app: App, run_id: str, as_json: bool) -> None:
    """Show a run, its steps and their errors. The start of RUN_ID is enough.

    \b
    Examples:
      headwater run show 01a1fbdc-d141
    """
    with app.reading() as instance:
        found = settled(find_run(instance.catalog, run_id))
        steps = settled_steps(instance.catalog.steps(found.run_id))
    if as_json:
        output.say_json(describe_run(found, steps))
        return
    output.say(f"run {found.run_id}", bold=True)
    output.facts(
        [
            ("status", found.status),
            ("started", output.rfc3339(found.started)),
            ("took", output.duration(took) if (took := _took(found)) is not None else None),
            ("selection", found.selection),
            ("backfill", found.backfill_id),
            ("tags", output.tags_text(found.tags)),
            ("by", f"{found.user} on {found.host}, process {found.pid}"),
        ]
    )
    output.say()
    cells = sum(len(step.cells) for step in steps)
    if cells > _FEW_CELLS and any(cell.partition is not None for step in steps for cell in step.cells):
        _print_by_asset(steps)
    else:
        output.table(
            ["ASSET", "STATUS", "TOOK", "ROWS", "WHY"],
            [
                (name_of(cell), cell.status, output.duration(_took(step)), output.number(cell.rows), step.reason)
                for step in steps
                for cell in step.cells
            ],
            right=["TOOK", "ROWS"],
        )
    _print_errors(steps)


def _print_by_asset(steps: Sequence[Step]) -> None:
    """A line for each asset of a run over many partitions."""
    reasons: dict[AssetKey, str] = {}
    seconds: dict[AssetKey, float] = {}
    for step in steps:
        for asset in {cell.asset for cell in step.cells}:
            reasons.setdefault(asset, step.reason)
            seconds[asset] = seconds.get(asset, 0.0) + (_took(step) or 0.0)
    output.table(
        ["ASSET", "CELLS", "TOOK", "ROWS", "BECAME", "WHY"],
        [
            (
                asset,
                output.number(len(cells)),
                output.duration(seconds[asset]),
                output.number(rows_of(cells)),
                outcome_text(cells),
                reasons[asset],
            )
            for asset, cells in by_asset(cell for step in steps for cell in step.cells).items()
        ],
        right=["CELLS", "TOOK", "ROWS"],
    )


def _print_errors(steps: Sequence[Step]) -> None:
    """Why steps and single cells failed: of many, the first few of each asset, as the others are mostly alike."""
    told: Counter[AssetKey] = Counter()
    left: Counter[AssetKey] = Counter()
    for step in steps:
        single = [(name_of(cell), cell.asset, cell.error) for cell in step.cells if cell.error is not None]
        whole = [] if step.error is None or single else [(step.step_key, step.cells[0].asset, step.error)]
        for name, asset, error in (*whole, *single):
            if told[asset] >= NAMED:
                left[asset] += 1
                continue
            told[asset] += 1
            output.say()
            output.say(f"{name} failed", bold=True, colour="red")
            output.say_block(output.failure_text(error))
    for asset, count in left.items():
        output.say()
        output.say(f"{asset}: {count:,} more failed; --json has all errors", colour="red")


@run.command("cancel")
@click.argument("run_id")
@pass_app
def cancel_run(app: App, run_id: str) -> None:
    """Ask a run that is going on in another process of this host to stop after its current step."""
    with app.reading() as instance:
        found = settled(find_run(instance.catalog, run_id))
    if found.status is not RunStatus.STARTED:
        raise UsageError(
            f"Run {found.run_id} is over: {found.status}.", remedy="`headwater runs --status started` lists the others."
        )
    if found.host != this_host():
        raise UsageError(
            f"Run {found.run_id} goes on in process {found.pid} on {found.host}, and this is {this_host()}.",
            remedy=f"Cancel it there: headwater run cancel {found.run_id}",
        )
    os.kill(found.pid, signal.SIGINT)
    output.note(f"Told process {found.pid} to stop.")


@run.command("retry")
@click.argument("run_id")
@json_option
@click.pass_context
def retry_run(context: click.Context, run_id: str, as_json: bool) -> None:
    """Build what a run was to build and did not."""
    from headwater.cli.build import materialize

    app = context.find_object(App)
    assert app is not None  # the group makes one
    with app.reading() as instance:
        found = find_run(instance.catalog, run_id)
        steps = instance.catalog.steps(found.run_id)
    done = (StepStatus.SUCCESS, StepStatus.VERIFIED)
    left = [cell for step in steps for cell in step.cells if cell.status not in done]
    if not left:
        output.note(f"Run {found.run_id} left nothing undone.")
        return
    keys = dict.fromkeys(cell.asset for cell in left)
    selection = " or ".join('"' + key.replace("\\", "\\\\").replace('"', '\\"') + '"' for key in keys)
    context.invoke(
        materialize,
        selection=selection,
        partitions=tuple(dict.fromkeys(cell.partition for cell in left if cell.partition is not None)),
        tags=(f"headwater/retry_of={found.run_id}",),
        as_json=as_json,
    )


@click.command()
@click.argument("subject", required=False, metavar="[ASSET|RUN]", shell_complete=complete_asset)
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    type=click.Choice([str(kind) for kind in EventKind], case_sensitive=False),
    metavar="KIND",
    help="Only events of this kind, such as STEP_FAILURE.",
)
@click.option("--partition", metavar="KEY", help="Only of this partition of ASSET.", shell_complete=complete_partition)
@click.option("--after", type=int, default=0, metavar="SEQ", help="Only events after this number.")
@click.option("--limit", type=click.IntRange(min=1), default=1000, show_default=True)
@click.option("--follow", is_flag=True, help="Go on printing events as they come.")
@json_option
@pass_app
def events(
    app: App,
    subject: str | None,
    kinds: tuple[str, ...],
    partition: str | None,
    after: int,
    limit: int,
    follow: bool,
    as_json: bool,
) -> None:
    """List events of everything, of an ASSET or of a RUN, in order. With --json and --follow, one event a line.

    \b
    Examples:
      headwater events orders
      headwater events --kind STEP_FAILURE
      headwater events flights --partition 2013-01-31
    """
    if partition is not None and subject is None:
        raise UsageError(
            "A partition is one of an asset.", remedy="Name the asset: headwater events ASSET --partition KEY."
        )
    while True:
        try:
            with app.reading() as instance:
                found = _events(instance.catalog, subject, partition, kinds, after, limit)
        except BusyError:
            if not follow:
                raise
            found = []
        if as_json and not follow:
            output.say_json({"events": [describe_event(event) for event in found]})
        elif as_json:
            import json

            for event in found:
                click.echo(json.dumps(describe_event(event), default=str))
        else:
            for event in found:
                _print_event(event)
        if not follow:
            return
        after = found[-1].seq if found else after
        time.sleep(_POLL)


def _events(
    catalog: CatalogReader, subject: str | None, partition: str | None, kinds: tuple[str, ...], after: int, limit: int
) -> list[LoggedEvent]:
    chosen: dict[str, Any] = {"kinds": list(kinds) or None, "after": after, "limit": limit}
    if subject is None:
        return catalog.events(**chosen)
    found = _maybe_run(catalog, subject) if partition is None else None
    if found is not None:
        return catalog.events(run_id=found.run_id, **chosen)
    return catalog.events(asset=AssetKey(subject), partition=partition, **chosen)


def _maybe_run(catalog: CatalogReader, text: str) -> Run | None:
    """The run whose identifier starts with `text`, where `text` looks like the start of one."""
    bare = text.replace("-", "")
    if len(bare) < 4 or any(char not in "0123456789abcdef" for char in bare.lower()):
        return None
    return catalog.run(text.lower())


def find_run(catalog: CatalogReader, run_id: str) -> Run:
    """The run whose identifier starts with `run_id`. Raises `UsageError` where there is none."""
    found = _maybe_run(catalog, run_id)
    if found is None:
        raise UsageError(f"There is no run '{run_id}'.", remedy="`headwater runs` lists them; 4 characters are enough.")
    return found


def describe_run(run: Run, steps: list[Step]) -> dict[str, Any]:
    """A run and its steps as JSON."""
    return {
        "run_id": run.run_id,
        "job": run.job,
        "status": run.status,
        "started": output.rfc3339(run.started),
        "ended": output.rfc3339(run.ended),
        "selection": run.selection,
        "backfill_id": run.backfill_id,
        "tags": run.tags,
        "user": run.user,
        "host": run.host,
        "pid": run.pid,
        "steps": [
            {
                "key": cell.asset,
                "step": step.step_key,
                "partitions": [] if cell.partition is None else [cell.partition],
                "status": cell.status,
                "reason": step.reason,
                "attempts": step.attempts,
                "started": output.rfc3339(step.started),
                "ended": output.rfc3339(step.ended),
                "seconds": _took(step),
                "rows": cell.rows,
                "version_id": cell.version_id,
                "error": _describe_error(cell.error or step.error),
            }
            for step in steps
            for cell in step.cells
        ],
    }


def _describe_error(error: ErrorRecord | None) -> dict[str, Any] | None:
    return error and {
        "kind": error.kind,
        "message": error.message,
        "traceback": error.traceback,
        "remedy": error.remedy,
        "metadata": metadata_to_json(error.metadata),
    }


def _about(run: Run) -> str:
    """What a run was to build, and what for."""
    of = [] if run.backfill_id is None else [f"(backfill {run.backfill_id[:13]})"]
    return " ".join([*([run.selection] if run.selection else []), *of])


def _took(one: Run | Step) -> float | None:
    # When a run was killed is not known: its recorded end is when somebody noticed.
    if one.started is None or one.ended is None or one.status in (RunStatus.INTERRUPTED, StepStatus.INTERRUPTED):
        return None
    return (one.ended - one.started).total_seconds()


def describe_event(event: LoggedEvent) -> dict[str, Any]:
    """An event as JSON."""
    return {
        "seq": event.seq,
        "at": output.rfc3339(event.time),
        "kind": event.kind,
        "run_id": event.run_id,
        "step": event.step_key,
        "asset": event.asset,
        "partition": event.partition,
        "message": event.message,
        "data": event.data,
    }


def _print_event(event: LoggedEvent) -> None:
    about = Cell(event.asset, event.partition) if event.asset else event.step_key or ""
    run_id = (event.run_id or "")[:13]
    output.say(
        f"{event.seq:>6}  {output.rfc3339(event.time)}  {event.kind:<22}  {run_id:<13}  {about}  {event.message}"
    )
