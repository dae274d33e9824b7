"""`conditions`, and `why --automation`: what is built by itself, whether that goes on, and why something is."""

from datetime import datetime
from typing import TYPE_CHECKING

import click

from headwater.catalog.records import AutomationStatus
from headwater.cli import output
from headwater.cli.app import App, json_option, pass_app

if TYPE_CHECKING:
    from headwater.catalog.keys import AssetKey


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
def conditions(context: click.Context, as_json: bool) -> None:
    """List the assets that are built by themselves; start and stop that.

    \b
    Examples:
      headwater conditions
      headwater conditions start
    """
    if context.invoked_subcommand is None:
        app = context.ensure_object(App)
        _list(app, as_json)


@conditions.command("ls")
@json_option
@pass_app
def list_conditions(app: App, as_json: bool) -> None:
    """List the assets that have a condition, and what was requested last.

    \b
    Examples:
      headwater conditions ls --json
    """
    _list(app, as_json)


@conditions.command("start")
@json_option
@pass_app
def start(app: App, as_json: bool) -> None:
    """Have conditions evaluated at every tick, from now on.

    \b
    Examples:
      headwater conditions start
    """
    _move(app, AutomationStatus.RUNNING, as_json)


@conditions.command("stop")
@json_option
@pass_app
def stop(app: App, as_json: bool) -> None:
    """Have conditions not evaluated any more. What happens meanwhile is seen when they are started again.

    \b
    Examples:
      headwater conditions stop
    """
    _move(app, AutomationStatus.STOPPED, as_json)


def _move(app: App, status: AutomationStatus, as_json: bool) -> None:
    from headwater.materialize.automation.conditions.tick import NAME
    from headwater.materialize.automation.standing import move

    with app.writing() as instance:
        move(instance, NAME, status)
    if as_json:
        output.say_json({"name": NAME, "status": status})
    else:
        output.note(f"Conditions are {status}.")


def _list(app: App, as_json: bool) -> None:
    from headwater.materialize.automation.conditions.tick import NAME, AutomationConditionSensor
    from headwater.materialize.automation.standing import is_running

    found = app.definitions.conditions
    with app.reading() as instance:
        known = instance.catalog.automations().get(NAME)
        last = next(iter(instance.catalog.ticks([NAME], limit=1)), None)
    status = AutomationStatus.RUNNING if is_running(AutomationConditionSensor(), known) else AutomationStatus.STOPPED
    if as_json:
        listed = [{"key": key, "condition": one.text, "label": one.label} for key, one in sorted(found.items())]
        output.say_json(
            {"name": NAME, "status": status, "ticked": last and output.rfc3339(last.at), "conditions": listed}
        )
        return
    if not found:
        output.note("No asset has a condition; @asset(automation_condition=AutomationCondition.eager()) gives it one.")
        return
    output.table(["ASSET", "CONDITION"], [(key, str(one)) for key, one in sorted(found.items())])
    said = f"Conditions are {status}"
    output.note(f"{said}; `headwater conditions start` starts them." if status == "STOPPED" else f"{said}.")


def explain_automation(app: App, key: "AssetKey", partition: str | None, at: datetime | None, as_json: bool) -> None:
    """`why --automation`."""
    from headwater.materialize.automation.conditions.explaining import explain

    definitions = app.definitions
    with app.reading() as instance:
        found = explain(definitions, instance, key, partition, at)
    if as_json:
        output.say_json(
            {
                "key": found.asset,
                "partition": partition,
                "evaluated": output.rfc3339(found.evaluated),
                "requested": found.requested,
                "parts": [
                    {
                        "depth": row.depth,
                        "name": row.part.name,
                        "label": row.part.label,
                        "condition": row.part.text or None,
                        "asset": row.part.asset,
                        "true": row.true,
                        "of": row.of,
                    }
                    for row in found.rows
                ],
            }
        )
        return
    output.table(
        ["TRUE", "CONDITION"],
        [
            (
                _truth(row.true, row.of),
                f"{'  ' * row.depth}{f'{row.part.asset}: ' if row.elsewhere and row.depth else ''}{row.part.shown}",
            )
            for row in found.rows
        ],
    )
    when = "would be" if found.evaluated is None else "were"
    moment = "now" if found.evaluated is None else f"at {output.rfc3339(found.evaluated)}"
    output.note(f"{output.counted(found.requested, 'cell')} of {key} {when} requested {moment}.")


def _truth(true: int, of: int) -> str:
    if of == 1:
        return "yes" if true else "no"
    return f"{true:,} of {of:,}"
