"""`sensors`: which there are, whether they run, what they remember, and what they would request now."""

from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from headwater.catalog.definitions.sensor import MAX_CURSOR, SensorDefinition
from headwater.catalog.errors import UsageError
from headwater.catalog.printable import printable_line
from headwater.catalog.records import AutomationStatus
from headwater.cli import output
from headwater.cli.app import App, json_option, pass_app
from headwater.cli.schedules import describe_error

if TYPE_CHECKING:
    from headwater.catalog.records import Automation


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
def sensors(context: click.Context, as_json: bool) -> None:
    """List sensors; start, stop and preview one, and set its cursor.

    \b
    Examples:
      headwater sensors
      headwater sensors start new_files
      headwater sensors preview new_files
    """
    if context.invoked_subcommand is None:
        app = context.find_object(App)
        assert app is not None  # the group makes one
        _list(app, as_json)


@sensors.command("ls")
@json_option
@pass_app
def list_sensors(app: App, as_json: bool) -> None:
    """List sensors, and when each is evaluated next.

    \b
    Examples:
      headwater sensors ls --json
    """
    _list(app, as_json)


def _list(app: App, as_json: bool) -> None:
    found = [app.definitions.sensors[name] for name in sorted(app.definitions.sensors)]
    with app.reading() as instance:
        standing = instance.catalog.automations()
        now = instance.clock.now()
    rows = [_describe(one, standing.get(one.name)) for one in found]
    if as_json:
        output.say_json({"sensors": rows})
        return
    if not rows:
        output.note("No sensors; @sensor makes one, and Definitions(sensors=[…]) takes it.")
        return

    def ticked(name: str) -> datetime | None:
        known = standing.get(name)
        return None if known is None else known.ticked

    output.table(
        ["SENSOR", "JOBS", "EVERY", "STATUS", "FAILED", "LAST", "NEXT (UTC)"],
        [
            (
                row["name"],
                ", ".join(row["jobs"]),
                f"{row['minimum_interval_seconds']:g} s",
                row["status"],
                str(row["failures"] or ""),
                output.ago(ticked(row["name"]), now),
                "" if row["status"] != AutomationStatus.RUNNING else (row["next"] or "at once")[:19],
            )
            for row in rows
        ],
    )


def _describe(one: SensorDefinition, known: "Automation | None") -> dict[str, Any]:
    from headwater.materialize.automation.sensors import is_paused, next_evaluation
    from headwater.materialize.automation.standing import is_running

    status = AutomationStatus.RUNNING.value if is_running(one, known) else AutomationStatus.STOPPED.value
    if status == AutomationStatus.RUNNING and is_paused(known):
        status = "PAUSED"
    due = next_evaluation(one, known) if status == AutomationStatus.RUNNING else None
    return {
        "name": one.name,
        "jobs": list(one.job_names),
        "status": status,
        "minimum_interval_seconds": one.minimum_interval_seconds,
        "last": output.rfc3339(known and known.ticked),
        "next": output.rfc3339(due),
        "failures": known.failures if known is not None else 0,
        "cursor": known.cursor if known is not None else None,
        "description": one.description,
    }


@sensors.command("start")
@click.argument("name")
@json_option
@pass_app
def start(app: App, name: str, as_json: bool) -> None:
    """Have a sensor evaluated, from now on; also one that is PAUSED since it failed too often.

    \b
    Examples:
      headwater sensors start new_files
    """
    _move(app, name, AutomationStatus.RUNNING, as_json)


@sensors.command("stop")
@click.argument("name")
@json_option
@pass_app
def stop(app: App, name: str, as_json: bool) -> None:
    """Have a sensor not evaluated any more. Its cursor stays.

    \b
    Examples:
      headwater sensors stop new_files
    """
    _move(app, name, AutomationStatus.STOPPED, as_json)


def _move(app: App, name: str, status: AutomationStatus, as_json: bool) -> None:
    from headwater.materialize.automation.standing import move

    found = app.definitions.sensor(name)
    with app.writing() as instance:
        known = instance.catalog.automations().get(name)
        if known is None or known.status is None or _describe(found, known)["status"] != status:
            move(instance, name, status)
        row = _describe(found, instance.catalog.automations().get(name))
    if as_json:
        output.say_json(row)
    else:
        output.say(f"{status}  {name}")


@sensors.command("cursor")
@click.argument("name")
@click.option("--set", "text", metavar="TEXT", help="What it is from now on.")
@click.option("--reset", is_flag=True, help="Have it begin anew, with no cursor.")
@json_option
@pass_app
def cursor(app: App, name: str, text: str | None, reset: bool, as_json: bool) -> None:
    """Show what a sensor remembers, or change it.

    An evaluation that is under way with the cursor before counts for nothing, and is made again.

    \b
    Examples:
      headwater sensors cursor new_files
      headwater sensors cursor new_files --set 2024-03-10
      headwater sensors cursor new_files --reset
    """
    from headwater.materialize.automation.standing import set_cursor

    app.definitions.sensor(name)
    if text is not None and (reset or len(text) > MAX_CURSOR):
        raise UsageError(
            "--set and --reset are given both." if reset else f"That are {len(text):,} characters.",
            remedy="Give one of them." if reset else f"A cursor has at most {MAX_CURSOR:,}.",
        )
    if text is not None or reset:
        with app.writing() as instance:
            set_cursor(instance, name, text)
            known = instance.catalog.automations().get(name)
    else:
        with app.reading() as instance:
            known = instance.catalog.automations().get(name)
    found = None if known is None else known.cursor
    if as_json:
        output.say_json({"name": name, "cursor": found})
    elif found is None:
        output.note(f"The sensor `{name}` has no cursor.")
    else:
        output.say_block(found)


@sensors.command("preview")
@click.argument("name")
@click.option("--cursor", metavar="TEXT", help="Evaluate it with this cursor. [default: the recorded one]")
@json_option
@pass_app
def preview(app: App, name: str, cursor: str | None, as_json: bool) -> None:
    """Evaluate a sensor now, and record nothing: neither its cursor nor the runs that it wants.

    \b
    Examples:
      headwater sensors preview new_files
      headwater sensors preview new_files --cursor 2024-03-10 --json
    """
    from headwater.materialize.automation.sensors import preview as evaluate

    found = app.definitions.sensor(name)
    with app.writing() as instance:
        done = evaluate(instance, app.definitions, found, cursor)
    if as_json:
        output.say_json(
            {
                "name": name,
                "requests": [
                    {
                        "job": one.job_name,
                        "run_key": one.run_key,
                        "run_config": one.run_config,
                        "tags": one.tags,
                        "partition": one.partition_key,
                        "selection": one.asset_selection,
                    }
                    for one in done.requests
                ],
                "reason": done.reason or None,
                "cursor": done.cursor,
                "dynamic_partitions": [
                    {"name": one.name, "added": one.added, "deleted": one.deleted} for one in done.changes
                ],
                "error": describe_error(done.error),
                "printed": done.printed,
            }
        )
        return
    if done.printed:
        output.note(done.printed.rstrip("\n"))
    if done.error is not None:
        output.say_block(output.failure_text(done.error))
    elif not done.requests:
        output.say(f"SKIPPED  {printable_line(done.reason, 200)}")
    else:
        output.table(
            ["JOB", "RUN KEY", "PARTITION"],
            [(one.job_name or "", one.run_key or "", one.partition_key or "") for one in done.requests],
        )
    for one in done.changes:
        keys = ", ".join([*(f"+{key}" for key in one.added), *(f"-{key}" for key in one.deleted)])
        output.say(printable_line(f"{one.name}: {keys}", 200))
    if done.cursor is not None:
        output.say(f"cursor  {printable_line(done.cursor, 200)}")
