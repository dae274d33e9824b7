"""`schedules`, `tick` and `ticks`: when what runs by itself, and what came of it."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from headwater.catalog.definitions.due import upcoming
from headwater.catalog.definitions.schedule import ScheduleDefinition
from headwater.catalog.errors import UsageError, nearest
from headwater.catalog.events import TickEnded
from headwater.catalog.partitions.zone import load_zone
from headwater.catalog.printable import printable_line
from headwater.catalog.records import AutomationStatus, ErrorRecord, Tick
from headwater.cli import output
from headwater.cli.app import App, json_option, pass_app
from headwater.cli.times import parse_time

if TYPE_CHECKING:
    from headwater.catalog.records import Automation

#: Seconds to wait for alerts to be delivered; what takes longer is tried again by whoever ticks later.
_DELIVERED = 70.0


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
def schedules(context: click.Context, as_json: bool) -> None:
    """List schedules; start, stop and preview one.

    \b
    Examples:
      headwater schedules
      headwater schedules start nightly
      headwater schedules preview nightly --count 3
    """
    if context.invoked_subcommand is None:
        app = context.find_object(App)
        assert app is not None  # the group makes one
        _list(app, as_json)


@schedules.command("ls")
@json_option
@pass_app
def list_schedules(app: App, as_json: bool) -> None:
    """List schedules, and when each is due next.

    \b
    Examples:
      headwater schedules ls --json
    """
    _list(app, as_json)


def _list(app: App, as_json: bool) -> None:
    found = [app.definitions.schedules[name] for name in sorted(app.definitions.schedules)]
    with app.reading() as instance:
        known = instance.catalog.automations()
        now = instance.clock.now()
    rows = [(one, *_standing(one, known.get(one.name), now)) for one in found]
    if as_json:
        output.say_json({"schedules": [_describe(one, status, due) for one, status, due in rows]})
        return
    if not rows:
        output.note("No schedules; ScheduleDefinition makes one, and Definitions(schedules=[…]) takes it.")
        return
    output.table(
        ["SCHEDULE", "JOB", "CRON", "ZONE", "STATUS", "NEXT"],
        [
            (
                one.name,
                one.job_name,
                " | ".join(one.cron_schedule),
                one.execution_timezone,
                status,
                "" if due is None else _local(due, one.execution_timezone),
            )
            for one, status, due in rows
        ],
    )


def _standing(
    one: ScheduleDefinition, known: "Automation | None", now: datetime
) -> tuple[AutomationStatus, datetime | None]:
    """Whether a schedule runs, and when it is due next if it does."""
    from headwater.materialize.automation.standing import is_running

    if not is_running(one, known):
        return AutomationStatus.STOPPED, None
    after = now if known is None else max(now, known.ticked or now)
    return AutomationStatus.RUNNING, next(iter(upcoming(one.cron_schedule, one.execution_timezone, after, 1)), None)


def _describe(one: ScheduleDefinition, status: AutomationStatus, due: datetime | None) -> dict[str, Any]:
    crons = one.cron_schedule
    return {
        "name": one.name,
        "job": one.job_name,
        "cron": crons[0] if len(crons) == 1 else crons,
        "timezone": one.execution_timezone,
        "status": status,
        "next": _utc(due),
        "description": one.description,
        "catch_up": one.catch_up,
        "tags": one.tags,
    }


@schedules.command("start")
@click.argument("name")
@json_option
@pass_app
def start(app: App, name: str, as_json: bool) -> None:
    """Have a schedule evaluated, from now on.

    \b
    Examples:
      headwater schedules start nightly
    """
    _move(app, name, AutomationStatus.RUNNING, as_json)


@schedules.command("stop")
@click.argument("name")
@json_option
@pass_app
def stop(app: App, name: str, as_json: bool) -> None:
    """Have a schedule not evaluated any more. What it is due for meanwhile is never caught up with.

    \b
    Examples:
      headwater schedules stop nightly
    """
    _move(app, name, AutomationStatus.STOPPED, as_json)


def _move(app: App, name: str, status: AutomationStatus, as_json: bool) -> None:
    from headwater.materialize.automation.standing import is_running, move

    found = app.definitions.schedule(name)
    with app.writing() as instance:
        known = instance.catalog.automations().get(name)
        if is_running(found, known) != (status is AutomationStatus.RUNNING) or known is None or known.status is None:
            move(instance, name, status)
        now = instance.clock.now()
        _, due = _standing(found, instance.catalog.automations().get(name), now)
    if as_json:
        output.say_json(_describe(found, status, due))
    elif due is None:
        output.say(f"{status}  {name}")
    else:
        output.say(f"{status}  {name}, next {_local(due, found.execution_timezone)}")


@schedules.command("preview")
@click.argument("name")
@click.option("--from", "start", metavar="TIME", help="The first instant is after this. [default: now]")
@click.option("--count", type=click.IntRange(1, 10_000), default=10, show_default=True, metavar="N")
@json_option
@pass_app
def preview(app: App, name: str, start: str | None, count: int, as_json: bool) -> None:
    """Show when a schedule is due, on the clocks here and on its own.

    \b
    Examples:
      headwater schedules preview nightly
      headwater schedules preview nightly --from 2024-03-09T00:00:00Z --count 3
    """
    found = app.definitions.schedule(name)
    after = datetime.now(UTC) if start is None else parse_time(start, "--from")
    due = upcoming(found.cron_schedule, found.execution_timezone, after, count)
    if as_json:
        output.say_json({"name": name, "timezone": found.execution_timezone, "ticks": [_utc(at) for at in due]})
        return
    output.table(
        ["UTC", "HERE", found.execution_timezone],
        [(_utc(at), f"{at.astimezone():%a %Y-%m-%d %H:%M %Z}", _local(at, found.execution_timezone)) for at in due],
    )


@click.command()
@click.option("--now", "as_of", metavar="TIME", help="Evaluate what is due by this time. [default: now]")
@json_option
@pass_app
def tick(app: App, as_of: str | None, as_json: bool) -> None:
    """Evaluate everything that is due, once, and start what it requests in processes of their own.

    A crontab or a systemd timer may call this every minute; nothing else has to go on. Any number may do so at the same
    time: each instant is decided once.

    \b
    Examples:
      headwater tick
      headwater tick --now 2024-03-10T07:00:00Z
    """
    from headwater.materialize.automation.round import go_round

    now = None if as_of is None else parse_time(as_of, "--now")
    definitions = app.definitions
    with app.writing() as instance:
        done = go_round(instance, definitions, app.project.origin, now)
        end = time.monotonic() + _DELIVERED
        for delivery in done.deliveries:
            delivery.join(max(0.0, end - time.monotonic()))
    if as_json:
        output.say_json(
            {
                "ticks": [_describe_tick(one, one.time) for one in done.ticks],
                "freshness": [{"asset": one.name, **one.value} for one in done.freshness],
                "alerts": [{"id": one.name, "title": one.message} for one in done.alerts],
                "launched": done.launched,
                "retried": done.retried,
            }
        )
        return
    if not done.ticks:
        output.note("Nothing was due.")
    else:
        _print([(one, one.time) for one in done.ticks])
    for one in done.freshness:
        output.note(f"{one.name}: freshness {one.message}.")
    for one in done.alerts:
        output.note(f"Alert {one.name}: {one.message}.")
    if done.launched:
        output.note(f"Started {output.counted(len(done.launched), 'run')}; `headwater runs` shows how they go.")


@click.command()
@click.argument("name", required=False)
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True)
@json_option
@pass_app
def ticks(app: App, name: str | None, limit: int, as_json: bool) -> None:
    """List at which instants schedules and sensors were due and what came of it, the last ones first.

    \b
    Examples:
      headwater ticks
      headwater ticks nightly --limit 5
    """
    with app.reading() as instance:
        found = instance.catalog.ticks(None if name is None else [name], limit=limit)
        if not found and name is not None and name not in instance.catalog.automations():
            known = [*app.definitions.schedules, *app.definitions.sensors]
            if name not in known:
                raise UsageError(f"There is no schedule or sensor `{name}`.", remedy=nearest(name, known))
    if as_json:
        output.say_json({"ticks": [_describe_tick(one, one.evaluated) for one in found]})
    elif not found:
        output.note("No ticks.")
    else:
        _print([(one, one.evaluated) for one in found])


def _describe_tick(one: Tick | TickEnded, evaluated: datetime) -> dict[str, Any]:
    return {
        "name": one.name,
        "at": _utc(one.at),
        "status": one.status,
        "run_ids": one.run_ids,
        "reason": one.reason or None,
        "error": describe_error(one.error),
        "run_keys": one.run_keys,
        "instants": one.instants,
        "evaluated": output.rfc3339(evaluated),
    }


def describe_error(error: ErrorRecord | None) -> dict[str, str] | None:
    """Why something could not be evaluated, for machines."""
    return error and {"kind": error.kind, "message": error.message, "traceback": error.traceback}


def _print(found: Sequence[tuple[Tick | TickEnded, datetime]]) -> None:
    output.table(
        ["NAME", "AT", "STATUS", "RUNS", "WHY"],
        [
            (
                one.name,
                _utc(one.at),
                one.status,
                " ".join(run_id[:13] for run_id in one.run_ids[:3]) + (" …" if len(one.run_ids) > 3 else ""),
                _why(one),
            )
            for one, _ in found
        ],
    )


def _why(one: Tick | TickEnded) -> str:
    if one.error is not None:
        return printable_line(f"{one.error.kind}: {one.error.message}", 200)
    many = f"{one.instants:,} instants: " if one.instants > 1 else ""
    return printable_line(many + one.reason, 200)


def _utc(moment: datetime | None) -> str | None:
    """An instant at which something is due: those are whole seconds."""
    return None if moment is None else moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _local(moment: datetime, zone: str) -> str:
    return f"{moment.astimezone(load_zone(zone)):%a %Y-%m-%d %H:%M %Z}"
