"""`daemon` and `dev`: what goes on by itself, for as long as they run."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from headwater.cli import output
from headwater.cli.app import App, json_option, pass_app
from headwater.cli.service import TRY, Service, metrics_of

if TYPE_CHECKING:
    from headwater.catalog.records import Daemon as Record

_try_option = click.option(TRY, "only_try", is_flag=True, hidden=True)


@click.command()
@click.option("--standby", is_flag=True, help="Where another daemon goes on, wait, and take over when it is gone.")
@click.option("--check", is_flag=True, help="Say whether a daemon goes on: exit code 0, or 1 and the reason.")
@click.option("--metrics", is_flag=True, help="Print how things stand, in the text format of Prometheus.")
@click.option(
    "--metrics-port",
    type=click.IntRange(0, 65535),
    metavar="PORT",
    help="Answer to http://127.0.0.1:PORT/metrics; 0 is any port that is free.",
)
@_try_option
@json_option
@click.pass_context
def daemon(
    context: click.Context,
    standby: bool,
    check: bool,
    metrics: bool,
    metrics_port: int | None,
    only_try: bool,
    as_json: bool,
) -> None:
    """Do what goes on by itself, until SIGTERM or Ctrl-C.

    It evaluates what is due, starts what is in the queue, and sees to what killed processes left. One at a time does
    so; a second one exits with code 7. When a file changes that the definitions are made from, and on SIGHUP, they are
    loaded again; while they are broken, it goes on with those that it has.

    \b
    Examples:
      headwater daemon
      headwater daemon --standby
      headwater daemon --check
      headwater daemon --metrics-port 9394
    """
    app = context.find_object(App)
    assert app is not None  # the group makes one
    if check:
        context.exit(_check(app, as_json))
    elif metrics:
        with app.reading() as instance:
            output.say_block(metrics_of(instance).rstrip())
    elif only_try:
        _ = app.definitions
    else:
        Service(app, standby=standby, metrics_port=metrics_port).run()


@click.command()
@click.option("-f", "--file", "files", metavar="FILE", multiple=True, help="A Python file with definitions.")
@click.option("-m", "--module", "modules", metavar="MODULE", multiple=True, help="A module with definitions.")
@_try_option
@pass_app
def dev(app: App, files: Sequence[str], modules: Sequence[str], only_try: bool) -> None:
    """Be the daemon, and say what happens: ticks, runs, and what of the definitions is loaded again or broken.

    Definitions that are broken from the beginning are waited for.

    \b
    Examples:
      headwater dev
      headwater dev -f orders.py -f customers.py
    """
    app.files, app.modules = [*app.files, *files], [*app.modules, *modules]
    if only_try:
        _ = app.definitions
    else:
        Service(app, developing=True).run()


def _check(app: App, as_json: bool) -> int:
    from headwater.materialize.automation.leadership import trouble

    with app.reading() as instance:
        found = instance.catalog.daemon()
    why = trouble(found)
    if as_json:
        output.say_json({"alive": why is None, "reason": why, "daemon": None if found is None else _describe(found)})
    elif why is None and found is not None:
        output.say(f"Process {found.pid} on {found.host} goes on; its last sign of life was {found.silent:.1f} s ago.")
    else:
        output.say(f"{why}.")
    return 0 if why is None else 1


def _describe(found: "Record") -> dict[str, Any]:
    return {
        "epoch": found.epoch,
        "host": found.host,
        "pid": found.pid,
        "user": found.user,
        "started": output.rfc3339(found.started),
        "ended": output.rfc3339(found.ended),
        "silent_seconds": round(found.silent, 3),
    }
