"""The command `headwater`: its options, its commands, its errors."""

import errno
import importlib
import os
import sys
from typing import Any

import click

import headwater
from headwater.catalog.errors import DiskFullError, HeadwaterError, StorageError
from headwater.catalog.instance import SERVED_AT
from headwater.catalog.printable import printable
from headwater.cli.app import App
from headwater.cli.streams import OutputError, drop_answer, take_streams

#: Command → where it is and what it does in a line, so that `--help` imports none of them.
COMMANDS: dict[str, tuple[str, str]] = {
    "init": ("headwater.cli.init:init", "Start a small project that runs."),
    "ls": ("headwater.cli.assets:ls", "List assets."),
    "show": ("headwater.cli.assets:show", "Show all about one asset."),
    "search": ("headwater.cli.assets:search", "Find assets by what they are called, described and made of."),
    "lineage": ("headwater.cli.lineage:lineage", "Show what depends on what."),
    "status": ("headwater.cli.status:status", "Say what is fresh, stale and missing, and why."),
    "freshness": ("headwater.cli.freshness:freshness", "Say whose data is too old, and when it will be."),
    "why": ("headwater.cli.status:why", "Explain one asset's status back to its causes."),
    "partitions": ("headwater.cli.partitions:partitions", "Show an asset's partitions."),
    "dynamic-partitions": ("headwater.cli.partitions:dynamic_partitions", "List, add and remove dynamic partitions."),
    "plan": ("headwater.cli.build:plan", "Say what materialize would do, and why."),
    "materialize": ("headwater.cli.build:materialize", "Build what is stale, and nothing else."),
    "backfill": ("headwater.cli.backfills:backfill", "Build many partitions, in runs that can be resumed."),
    "backfills": ("headwater.cli.backfills:backfills", "List backfills."),
    "observe": ("headwater.cli.reports:observe", "Look which versions sources have."),
    "report": ("headwater.cli.reports:report", "Record what was made or seen elsewhere."),
    "jobs": ("headwater.cli.jobs:jobs", "List jobs."),
    "schedules": ("headwater.cli.schedules:schedules", "List, start, stop and preview schedules."),
    "sensors": ("headwater.cli.sensors:sensors", "List, start, stop and preview sensors."),
    "conditions": ("headwater.cli.conditions:conditions", "List, start and stop what is built by itself."),
    "daemon": ("headwater.cli.daemon:daemon", "Do what goes on by itself, for as long as it runs."),
    "dev": ("headwater.cli.daemon:dev", "The daemon for developing: it says what happens, and heeds every change."),
    "tick": ("headwater.cli.schedules:tick", "Evaluate what is due, once."),
    "ticks": ("headwater.cli.schedules:ticks", "List what was due, and what came of it."),
    "alerts": ("headwater.cli.alerts:alerts", "List what somebody was told; test whether telling works."),
    "runs": ("headwater.cli.runs:runs", "List runs."),
    "run": ("headwater.cli.runs:run", "Show, cancel or retry one run."),
    "logs": ("headwater.cli.logs:logs", "Print what a run's steps printed."),
    "events": ("headwater.cli.runs:events", "List what happened."),
    "versions": ("headwater.cli.data:versions", "List an asset's versions."),
    "sql": ("headwater.cli.data:sql", "Query the catalog and the assets' data."),
    "instance": ("headwater.cli.instance:instance", "Show what the instance is told by its settings."),
    "catalog": ("headwater.cli.catalog:catalog", "Back the catalog up, restore, examine, migrate or serve it."),
    "completion": ("headwater.cli.completion:completion", "Print the completion script of a shell."),
}


class _Commands(click.Group):
    """Imports a command when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        return getattr(importlib.import_module(module), name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        from headwater.catalog.errors import nearest

        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            hint = nearest(args[0], COMMANDS, "`headwater --help` lists the commands.")
            raise click.UsageError(f"There is no command '{printable(args[0])}'. {hint}", ctx)
        return super().resolve_command(ctx, args)


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
Examples:
  headwater ls                          what there is
  headwater status                      what is stale, and why
  headwater materialize                 build it
  headwater materialize +orders         one asset and what it depends on
  headwater sql "select * from runs"    ask the catalog
""",
)
@click.option("--home", metavar="DIR", help="The home: catalog, logs, data. [default: .headwater beside the settings]")
@click.option("--catalog", metavar="URL", help="Where another host serves the catalog. [default: that of the home]")
@click.option("-f", "--file", "files", metavar="FILE", multiple=True, help="A Python file with definitions.")
@click.option("-m", "--module", "modules", metavar="MODULE", multiple=True, help="A module with definitions.")
@click.option("-w", "--workspace", metavar="FILE", help="A workspace file that lists files and modules.")
@click.option(
    "--wait",
    type=click.FloatRange(min=0),
    default=10.0,
    show_default="10",
    metavar="SECONDS",
    help="Wait for a busy catalog.",
)
@click.option("--no-color", is_flag=True, help="Plain text; so does the variable NO_COLOR.")
@click.option("--debug", is_flag=True, help="Show Headwater's own tracebacks.")
@click.version_option(headwater.__version__, prog_name="headwater")
@click.pass_context
def cli(
    context: click.Context,
    home: str | None,
    catalog: str | None,
    files: tuple[str, ...],
    modules: tuple[str, ...],
    workspace: str | None,
    wait: float,
    no_color: bool,
    debug: bool,
) -> None:
    """Headwater: define data assets, know exactly what is stale and why, rebuild only that."""
    context.obj = App(
        home=home, files=files, modules=modules, workspace=workspace, wait=wait, catalog=catalog, debug=debug
    )
    if catalog is not None:
        os.environ[SERVED_AT] = catalog  # for the processes that it starts
    if no_color or os.environ.get("NO_COLOR"):
        context.color = False
    elif os.environ.get("FORCE_COLOR"):
        context.color = True


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    debug = "--debug" in (sys.argv if arguments is None else arguments)
    take_streams()
    try:
        code = _run(arguments, debug=debug)
        sys.stdout.flush()
    except OutputError as error:
        drop_answer()
        code = _explain(error.cause)
    sys.exit(code)


def _run(arguments: list[str] | None, *, debug: bool) -> int:
    try:
        code = cli.main(args=arguments, prog_name="headwater", standalone_mode=False)
    except HeadwaterError as error:
        if debug:
            raise
        _complain(error.message, error.remedy, error.code)
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted.", err=True)
        return 130
    return code if isinstance(code, int) else 0


def _explain(error: OSError) -> int:
    """Say why the answer was not written; returns the exit code."""
    if isinstance(error, BrokenPipeError):  # whoever read it has seen enough
        return 0
    kind = DiskFullError if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else StorageError
    _complain(
        f"The answer could not be written: {error.strerror}.",
        "What the command did is done. Make room where its output goes, or send it elsewhere, and ask again.",
        kind.code,
    )
    return kind.exit_code


def _complain(message: str, remedy: str, code: str) -> None:
    """An error on stderr: what, why, what to do."""
    click.echo(f"{click.style('Error', fg='red', bold=True)} [{code}] {printable(message)}", err=True)
    if remedy:
        click.echo(printable(remedy), err=True)
