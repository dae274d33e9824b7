"""`runs`, `run` and `events`: what happened."""

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import click

from headwater.catalog.errors import BusyError, DefinitionError, TimedOutError, UsageError
from headwater.catalog.events import EventKind
from headwater.catalog.instance import Instance
from headwater.catalog.keys import AssetKey
from headwater.catalog.metadata import to_json as metadata_to_json
from headwater.catalog.records import OPEN, Cell, ErrorRecord, LoggedEvent, Run, RunStatus, Step, StepStatus
from headwater.catalog.storage.base import CatalogReader
from headwater.cli import output
from headwater.cli.app import App, complete_asset, complete_partition, json_option, pass_app
from headwater.cli.cells import NAMED, by_asset, name_of, outcome_text, rows_of
from headwater.materialize.reader import find_run, maybe_run, settled, settled_steps

#: Seconds between two looks for news.
_POLL = 0.5
#: Cells that are listed one by one.
_FEW_CELLS = 30
#: Seconds that a process waits until the run that it is to carry out is recorded.
_RECORDED = 30.0
#: Of `run wait`; what is not here has the exit code 1.
_EXIT_CODES = {RunStatus.SUCCESS: 0, RunStatus.FAILURE: 4, RunStatus.CANCELED: 130}
#: What a retry does as the run did that it is a retry of.
_KEPT = ("run_config", "executor", "max_workers", "on_conflict", "force", "upstream", "only_missing", "observe")


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
    # A run that has lost its process is not what is recorded of it.
    asked = wanted | (OPEN if wanted & {RunStatus.INTERRUPTED, RunStatus.CANCELED} else frozenset[RunStatus]())
    with app.reading() as instance:
        key = AssetKey(asset) if asset else None
        found = [settled(run) for run in instance.catalog.runs(statuses=asked or None, asset=key, job=job, limit=limit)]
        found = [run for run in found if not wanted or run.status in wanted]
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
                output.ago(run.started or run.created, now),
                output.duration(_took(run)),
                ", ".join(f"{count} {status.lower()}" for status, count in run.step_counts.items() if count),
                _about(run),
            )
            for run in found
        ],
    )


@click.group()
def run() -> None:
    """Show, cancel, retry or wait for one run."""


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
            ("queued", output.rfc3339(found.queued)),
            ("started", output.rfc3339(found.started)),
            ("took", output.duration(took) if (took := _took(found)) is not None else None),
            ("job", found.job),
            ("selection", found.selection),
            ("backfill", found.backfill_id),
            ("retry of", found.parent_run_id),
            ("first try", found.root_run_id if found.root_run_id != found.parent_run_id else None),
            ("waits for run", found.behind),
            ("pools", ", ".join(found.pools) or None),
            ("error", found.error and f"{found.error.kind}: {found.error.message}"),
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
@json_option
@pass_app
def cancel_run(app: App, run_id: str, as_json: bool) -> None:
    """Ask a run to stop after its current step; one that waits in the queue never begins.

    A run that does not stop in time, run_monitoring.cancel_timeout_seconds, is killed by the next command that builds
    something, or by calling this again.

    \b
    Examples:
      headwater run cancel 01a1fbdc-d141
    """
    from headwater.materialize.monitoring import cancel

    with app.writing() as instance:
        found = settled(find_run(instance.catalog, run_id))
        if found.status.is_over:
            raise UsageError(
                f"Run {found.run_id} is over: {found.status}.",
                remedy="`headwater runs --status started --status queued` lists the others.",
            )
        now = cancel(instance, found)
    if as_json:
        output.say_json({"run_id": found.run_id, "status": now.status, "pid": found.pid})
    elif now.status is RunStatus.CANCELED:
        output.say(f"{now.status}  It had not begun.", colour=output.COLOURS[now.status])
    else:
        output.note(f"Told process {found.pid} to stop.")


@run.command("wait")
@click.argument("run_id")
@click.option("--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="Wait no longer; exit code 8.")
@json_option
@click.pass_context
def wait_for_run(context: click.Context, run_id: str, timeout: float | None, as_json: bool) -> None:
    """Wait until a run is over. Exit code 0 for SUCCESS, 4 FAILURE, 8 where it took too long, 130 CANCELED, else 1.

    \b
    Examples:
      headwater run wait 01a1fbdc-d141 && headwater status
    """
    app = context.find_object(App)
    assert app is not None  # the group makes one
    end = None if timeout is None else time.monotonic() + timeout
    while True:
        with app.reading() as instance:
            found = settled(find_run(instance.catalog, run_id))
            steps = settled_steps(instance.catalog.steps(found.run_id)) if found.status.is_over else []
        if found.status.is_over:
            break
        if end is not None and time.monotonic() >= end:
            raise TimedOutError(
                f"Run {found.run_id} is {found.status} after {timeout:g} seconds.",
                remedy=f"It goes on; headwater run cancel {found.run_id[:13]} stops it.",
            )
        time.sleep(_POLL / 2)
    if as_json:
        output.say_json(describe_run(found, steps))
    else:
        output.say(f"{found.status}  run {found.run_id}", colour=output.COLOURS.get(found.status))
    late = found.error is not None and found.error.kind == TimedOutError.code
    context.exit(TimedOutError.exit_code if late else _EXIT_CODES.get(found.status, 1))


@run.command("retry")
@click.argument("run_id", required=False)
@click.option("--from-failure", "strategy", flag_value="FROM_FAILURE", default=True, help="What it left undone.")
@click.option("--all-steps", "strategy", flag_value="ALL_STEPS", help="Everything that it was to build.")
@click.option("--interrupted", is_flag=True, help="In the background, each run that was killed and may be retried.")
@json_option
@click.pass_context
def retry_run(context: click.Context, run_id: str | None, strategy: str, interrupted: bool, as_json: bool) -> None:
    """Build what a run was to build and did not, with its tags and options.

    \b
    Examples:
      headwater run retry 01a1fbdc-d141
      headwater run retry --interrupted
    """
    app = context.find_object(App)
    assert app is not None  # the group makes one
    if (run_id is None) is not interrupted:
        raise click.UsageError("Name a run, or give --interrupted.", context)
    if run_id is None:
        _retry_interrupted(app, as_json)
        return
    from headwater.cli.build import carry_out, read_config, report
    from headwater.materialize.retries import left_undone

    with app.writing() as instance:
        found = find_run(instance.catalog, run_id)
        if not settled(found).status.is_over:
            raise UsageError(f"Run {found.run_id} is {found.status}.", remedy="Wait for it: headwater run wait.")
        if strategy == "FROM_FAILURE" and not left_undone(instance.catalog, found.run_id):
            output.note(f"Run {found.run_id} left nothing undone.")
            return
        kept = {name: found.request[name] for name in _KEPT if found.request.get(name) is not None}
        kept.setdefault("run_config", read_config(app, None))
        result = carry_out(
            app,
            instance,
            as_json,
            job=found.job,
            selection=found.selection,
            tags=found.tags,
            retry_of=found.run_id,
            retry_strategy=strategy,
            **kept,
        )
    report(result, as_json)
    context.exit(result.outcome.exit_code if result.outcome else 0)


def _retry_interrupted(app: App, as_json: bool) -> None:
    from headwater.materialize.launching import due_retries, relaunch
    from headwater.materialize.monitoring import recover

    with app.writing() as instance:
        recover(instance, app.definitions)
        ended = instance.catalog.runs(statuses=[RunStatus.INTERRUPTED], limit=1000)
        started = [(run.run_id, relaunch(instance, run)) for run in due_retries(instance, ended)]
    if as_json:
        output.say_json({"runs": [{"run_id": new, "parent_run_id": old} for old, new in started]})
    elif not started:
        output.note("No run that was killed is to be retried; the tag headwater/max_retries says how often one is.")
    else:
        output.table(["RUN", "RETRY OF"], [(new, old) for old, new in started])


def _load_definitions(app: App, instance: Instance) -> None:
    """Import them, as often as the settings say where that fails."""
    queue = instance.settings.run_queue
    for attempt in range(queue.max_user_code_failure_retries + 1):
        try:
            _ = app.definitions
        except DefinitionError as error:
            if attempt == queue.max_user_code_failure_retries:
                raise
            output.note(f"{error.message} Trying again in {output.duration(queue.user_code_failure_retry_delay)}.")
            instance.clock.sleep(queue.user_code_failure_retry_delay)
        else:
            return


@run.command("execute", hidden=True)
@click.argument("run_id")
@click.pass_context
def execute_run(context: click.Context, run_id: str) -> None:
    """Carry out a run that is in the queue, when its turn comes: what --detach starts."""
    from headwater.cli.build import carry_out, report
    from headwater.materialize.launching import launch_waiting
    from headwater.materialize.monitoring import stop_canceled
    from headwater.materialize.partition_choice import PartitionChoice
    from headwater.materialize.waiting_run import Asked, WaitingRun

    app = context.find_object(App)
    assert app is not None  # the group makes one
    with app.writing() as instance:
        end = instance.clock.monotonic() + _RECORDED
        while (found := instance.catalog.run(run_id)) is None:
            if instance.clock.monotonic() >= end:
                find_run(instance.catalog, run_id)  # which says that there is none
            instance.clock.sleep(0.02)
        with WaitingRun(instance, Asked(), run_id) as place:
            if not place.take_turn(lambda: stop_canceled(instance)):
                output.note(f"Run {run_id} is carried out by another process.")
                return
            _load_definitions(app, instance)
            asked = {**found.request}
            chosen = asked.pop("partitions")
            given = {name: value for name, value in asked.items() if name not in ("origin", "first_pools")}
            choice = PartitionChoice.from_json(chosen)
        result = carry_out(
            app,
            instance,
            False,
            tags=found.tags,
            partitions=choice,
            run_id=run_id,
            retry_of=found.parent_run_id,
            **given,
        )
        launch_waiting(instance)
    report(result, False)
    context.exit(result.outcome.exit_code if result.outcome else 0)


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
    found = maybe_run(catalog, subject) if partition is None else None
    if found is not None:
        return catalog.events(run_id=found.run_id, **chosen)
    return catalog.events(asset=AssetKey(subject), partition=partition, **chosen)


def describe_run(run: Run, steps: list[Step]) -> dict[str, Any]:
    """A run and its steps as JSON."""
    return {
        "run_id": run.run_id,
        "job": run.job,
        "status": run.status,
        "queued": output.rfc3339(run.queued),
        "started": output.rfc3339(run.started),
        "ended": output.rfc3339(run.ended),
        "selection": run.selection,
        "backfill_id": run.backfill_id,
        "parent_run_id": run.parent_run_id,
        "root_run_id": run.root_run_id,
        "behind": run.behind,
        "pools": run.pools,
        "error": _describe_error(run.error),
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
    of += [] if run.job is None else [f"(job {run.job})"]
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
