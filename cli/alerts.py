"""`alerts`: what somebody was told, and whether telling works."""

from collections.abc import Mapping
from typing import Any

import click

from headwater.catalog.definitions.alerts import FIELDS
from headwater.catalog.errors import UsageError, nearest
from headwater.catalog.printable import printable_line
from headwater.catalog.records import Fact, FactTopic
from headwater.cli import output
from headwater.cli.app import App, json_option, pass_app


@click.group(invoke_without_command=True)
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True)
@json_option
@click.pass_context
def alerts(context: click.Context, limit: int, as_json: bool) -> None:
    """List what somebody was told, or is to be, the last changes first; list and test alert policies.

    \b
    Examples:
      headwater alerts
      headwater alerts ls
      headwater alerts test on_call
    """
    if context.invoked_subcommand is not None:
        return
    app = context.find_object(App)
    assert app is not None  # the group makes one
    with app.reading() as instance:
        found = list(instance.catalog.facts(FactTopic.ALERT, limit=limit).values())
        now = instance.clock.now()
    if as_json:
        output.say_json({"alerts": [_describe(fact) for fact in found]})
    elif not found:
        output.note("No alerts.")
    else:
        output.table(
            ["POLICY", "RAISED", "STATUS", "TO", "WHAT"],
            [
                (
                    fact.value["alert"]["policy"],
                    fact.value["alert"]["time"],
                    fact.value["status"],
                    fact.value["to"],
                    _what(fact.value),
                )
                for fact in found
            ],
        )
        output.note(f"The last change was {output.ago(found[0].changed, now)}.")


def _describe(fact: Fact) -> dict[str, Any]:
    value = fact.value
    return {
        "id": fact.name,
        "status": value["status"],
        "to": value["to"],
        "attempts": value["attempts"],
        "error": value["error"],
        "changed": output.rfc3339(fact.changed),
        **value["alert"],
    }


def _what(value: Mapping[str, Any]) -> str:
    title = value["alert"]["title"]
    return f"{title} ({value['error']})" if value["error"] else title


@alerts.command("ls")
@json_option
@pass_app
def list_policies(app: App, as_json: bool) -> None:
    """List alert policies: of what they tell whom.

    \b
    Examples:
      headwater alerts ls --json
    """
    found = [app.definitions.alerts[name] for name in sorted(app.definitions.alerts)]
    if as_json:
        output.say_json(
            {
                "policies": [
                    {
                        "name": one.name,
                        "events": sorted(one.events),
                        "selection": None if one.selection is None else str(one.selection),
                        "jobs": sorted(one.jobs),
                        "tags": one.tags,
                        "targets": [target.describe() for target in one.targets],
                        "source": str(one.source),
                    }
                    for one in found
                ]
            }
        )
    elif not found:
        output.note("No alert policies; AlertPolicy makes one, and Definitions(alerts=[…]) takes it.")
    else:
        output.table(
            ["POLICY", "EVENTS", "SELECTION", "JOBS", "TARGETS"],
            [
                (
                    one.name,
                    ", ".join(sorted(one.events)),
                    "" if one.selection is None else str(one.selection),
                    ", ".join(sorted(one.jobs)),
                    "; ".join(target.describe() for target in one.targets),
                )
                for one in found
            ],
        )


@alerts.command("test")
@click.argument("name")
@json_option
@click.pass_context
def test(context: click.Context, name: str, as_json: bool) -> None:
    """Tell the targets of an alert policy that this is a test, now. Exits with 1 when one of them cannot be told.

    \b
    Examples:
      headwater alerts test on_call
    """
    from headwater.materialize.automation.delivery import attempt

    app = context.find_object(App)
    assert app is not None  # the group makes one
    policies = app.definitions.alerts
    if name not in policies:
        hint = nearest(name, policies, "`headwater alerts ls` lists what there is.")
        raise UsageError(f"There is no alert policy `{printable_line(name, 60)}`.", remedy=hint)
    policy = policies[name]
    with app.reading() as instance:
        title = f"A test of the alert policy {name}"
        alert: dict[str, Any] = {
            **dict.fromkeys(FIELDS, ""),
            "policy": name,
            "event": "test",
            "subject": name,
            "title": title,
            "time": instance.clock.now().isoformat(timespec="seconds"),
            "text": title,
            "assets": list[str](),
        }
        outcomes = [
            (target.describe(), attempt(instance, policy, target, {**alert, "id": f"{name}:test:{number}"}))
            for number, target in enumerate(policy.targets)
        ]
    if as_json:
        output.say_json({"targets": [{"to": to, "error": error} for to, error in outcomes]})
    else:
        output.table(
            ["TARGET", "STATUS", "WHY"],
            [(to, "FAILURE" if error else "SUCCESS", error or "") for to, error in outcomes],
        )
    if any(error for _, error in outcomes):
        context.exit(1)
