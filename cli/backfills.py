"""`backfill` and `backfills`: many partitions, built in runs that can be interrupted and resumed."""

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from headwater.catalog.errors import ConflictError
from headwater.catalog.printable import printable_line
from headwater.catalog.records import Backfill, BackfillStatus, Cell, Failure, Run
from headwater.cli import output
from headwater.cli.app import App, complete_partition, json_option, pass_app, selection_argument
from headwater.cli.build import parse_tags, print_plan, read_config
from headwater.cli.cells import NAMED
from headwater.materialize.partition_choice import NARROWINGS, PartitionChoice
from headwater.materialize.planner import Plan

if TYPE_CHECKING:
    from headwater.catalog.definitions.definitions import Definitions
    from headwater.catalog.instance import Instance
    from headwater.cli.progress import Progress
    from headwater.materialize.backfill import BackfillResult, BackfillSettings
    from headwater.materialize.backfill_signals import Running
    from headwater.materialize.backfill_standing import BackfillProgress

#: What a backfill is called that has not ended and that nobody carries out: its process died, or was interrupted.
_INTERRUPTED = "INTERRUPTED"
#: How much of an identifier commands are shown with: to the millisecond.
_SHORT = 13
#: How wide a bar is, and how many runs are shown.
_BAR, _RUNS = 20, 10
#: What a call without one of the words is passed on as: no argument is ever this.
_START = "\0"


class _Nameless(click.Context):
    """The context of a command without a name of its own: its path is that of the group."""

    @property
    def command_path(self) -> str:
        return super().command_path.rstrip()


class _Start(click.Command):
    """`backfill SELECTION`."""

    context_class = _Nameless


class _Words(click.Group):
    """`backfill show ID` and the like; anything else that follows is a selection."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, args if args and args[0] in self.commands else [_START, *args])

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        return (None, _start, args[1:]) if args[0] == _START else super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> Any:
        below = click.Context(_start, parent=ctx, resilient_parsing=True)
        return [*super().shell_complete(ctx, incomplete), *_start.shell_complete(below, incomplete)]


@click.group(cls=_Words, add_help_option=False, no_args_is_help=False)
def backfill() -> None:
    """Build many partitions, in runs that can be resumed."""


def _settings_options(command: Any) -> Any:
    for option in reversed(
        (
            click.option("--executor", metavar="NAME", help="in_process, threads or processes. [default: in_process]"),
            click.option(
                "--max-workers",
                type=click.IntRange(min=1),
                metavar="N",
                help="How many threads or processes. [default: one a core]",
            ),
            click.option("--config", metavar="FILE", help="The runs' configuration: TOML, JSON or YAML."),
            click.option("--tag", "tags", multiple=True, metavar="NAME=VALUE", help="A tag for the backfill's runs."),
            click.option(
                "--steps-per-run",
                type=click.IntRange(min=1),
                metavar="N",
                help="At most N steps a run. [default: 2000]",
            ),
        )
    ):
        command = option(command)
    return command


@click.command(cls=_Start)
@selection_argument()
@click.option(
    "--partition",
    "partitions",
    multiple=True,
    metavar="KEY",
    help="Only this partition, and what it depends on.",
    shell_complete=complete_partition,
)
@click.option(
    "--partition-range",
    "ranges",
    multiple=True,
    metavar="A..B",
    help="Only the partitions from A to B.",
    shell_complete=complete_partition,
)
@click.option("--only", multiple=True, type=click.Choice(NARROWINGS), help="Only those that are so; may be repeated.")
@click.option("--only-missing", is_flag=True, help="The same as --only missing.")
@click.option("--only-stale", is_flag=True, help="The same as --only stale.")
@click.option("--only-failed", is_flag=True, help="The same as --only failed.")
@click.option("--no-upstream", is_flag=True, help="Leave alone what the selection depends on.")
@click.option("--dry-run", is_flag=True, help="Only say what would be built.")
@click.option("--title", default="", metavar="TEXT", help="What it is for.")
@click.option("--detach", is_flag=True, help="In a process of its own, which goes on when the terminal is closed.")
@click.option("--id", "backfill_id", hidden=True)
@_settings_options
@json_option
@click.pass_context
def _start(
    context: click.Context,
    selection: str,
    partitions: tuple[str, ...],
    ranges: tuple[str, ...],
    only: tuple[str, ...],
    only_missing: bool,
    only_stale: bool,
    only_failed: bool,
    no_upstream: bool,
    dry_run: bool,
    title: str,
    detach: bool,
    backfill_id: str | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Build the partitions of SELECTION, each once, whether they are fresh or not.

    What they depend on that is stale or missing is built before. A backfill that is interrupted or killed goes on with
    `backfill resume`, and builds nothing twice.

    \b
    Examples:
      headwater backfill flights
      headwater backfill '*' --partition-range 2013-01-01..2013-03-31 --dry-run
      headwater backfill flights --only failed
      headwater backfill flights --detach
      headwater backfill show 01a1fbdc-d141      how far it is, and what failed
      headwater backfill cancel 01a1fbdc-d141    stop it for good
      headwater backfill resume 01a1fbdc-d141    go on, and try again what failed

    An asset called show, cancel or resume is selected with key:"show".
    """
    app = _app(context)
    if detach and not dry_run:
        context.exit(_detach(app, context, as_json))
    flags = (("missing", only_missing), ("stale", only_stale), ("failed", only_failed))
    narrowed = sorted({*only, *(name for name, given in flags if given)})
    with _carrying_out(app, given, as_json) as work:
        if dry_run:
            _plan(app, work, selection, PartitionChoice(keys=partitions, ranges=ranges), narrowed, not no_upstream)
            return
        from headwater.materialize.backfill import backfill as start_backfill

        with app.writing() as instance:
            with work.progress:
                result = start_backfill(
                    work.definitions,
                    instance=instance,
                    selection=selection,
                    partition_keys=partitions,
                    partition_ranges=ranges,
                    only=narrowed,
                    upstream=not no_upstream,
                    title=title,
                    backfill_id=backfill_id,
                    settings=work.settings,
                    on_plan=None if as_json else work.show_plan,
                )
            code = _report(instance, result, narrowed, as_json)
    context.exit(code)


def _detach(app: App, context: click.Context, as_json: bool) -> int:
    """Have another process carry out a new backfill."""
    from headwater.catalog.clock import SystemClock
    from headwater.catalog.ids import new_id
    from headwater.cli.detached import detach, words

    name = new_id(SystemClock().now())
    command = ["backfill", f"--id={name}", *words(context)]
    return detach(app, command, name, lambda instance, _: instance.catalog.backfill(name) is not None, as_json=as_json)


@backfill.command("resume")
@click.argument("backfill_id", metavar="ID")
@click.option("--detach", is_flag=True, help="In a process of its own, which goes on when the terminal is closed.")
@_settings_options
@json_option
@click.pass_context
def resume(context: click.Context, backfill_id: str, detach: bool, as_json: bool, **given: Any) -> None:
    """Go on with a backfill that was interrupted, killed or failed: what is not built, and what failed once more.

    The start of ID is enough. Options are as they were when it began, unless they are given again.

    \b
    Examples:
      headwater backfill resume 01a1fbdc-d141
    """
    app = _app(context)
    if detach:
        context.exit(_resume_detached(app, context, backfill_id, as_json))
    with _carrying_out(app, given, as_json) as work:
        from headwater.materialize.backfill import resume_backfill

        with app.writing() as instance:
            with work.progress:
                result = resume_backfill(work.definitions, backfill_id, instance=instance, settings=work.settings)
            code = _report(instance, result, (), as_json)
    context.exit(code)


def _resume_detached(app: App, context: click.Context, backfill_id: str, as_json: bool) -> int:
    from headwater.cli.detached import detach, words
    from headwater.materialize.backfill import find_backfill

    with app.reading() as instance:
        name = find_backfill(instance, backfill_id).backfill_id

    def goes_on(instance: "Instance", pid: int) -> bool:
        return find_backfill(instance, name).pid == pid

    return detach(app, ["backfill", "resume", *words(context)], name, goes_on, as_json=as_json)


@backfill.command("cancel")
@click.argument("backfill_id", metavar="ID")
@json_option
@pass_app
def cancel(app: App, backfill_id: str, as_json: bool) -> None:
    """Stop a backfill for good, also one that is going on in another process: that ends when its running step has.

    The start of ID is enough.

    \b
    Examples:
      headwater backfill cancel 01a1fbdc-d141
    """
    from headwater.materialize.backfill import OVER, cancel_backfill, find_backfill
    from headwater.materialize.backfill_signals import request_cancel

    asked = request_cancel(app.project.home, backfill_id)
    if asked is not None:
        output.note(f"Asked process {asked.pid} to stop. It finishes the running step first.")
    with app.writing() as instance:
        before = find_backfill(instance, backfill_id).status
        if before is BackfillStatus.SUCCESS and asked is None:
            raise ConflictError("The backfill is done: nothing is left to cancel.", remedy="")
        found = cancel_backfill(instance, backfill_id)
        shown = _Shown.of(instance, found)
    if as_json:
        output.say_json(shown.describe())
    elif found.status is BackfillStatus.CANCELED:
        again = " already" if before is BackfillStatus.CANCELED and asked is None else ""
        output.say(f"{found.status}{again}  {shown.text()}", colour=output.COLOURS[found.status])
    else:
        assert found.status in OVER  # whatever had not ended is canceled now
        output.say(f"{found.status}  It was done before it was told.", colour=output.COLOURS[found.status])


@backfill.command("show")
@click.argument("backfill_id", metavar="ID")
@json_option
@pass_app
def show(app: App, backfill_id: str, as_json: bool) -> None:
    """Show how far a backfill is, its runs, and why partitions failed. The start of ID is enough.

    \b
    Examples:
      headwater backfill show 01a1fbdc-d141
    """
    from headwater.materialize.backfill_signals import running_backfill

    running = running_backfill(app.project.home, backfill_id)
    if running is not None:
        shown, runs, failures = _Shown.of_running(running), [], {}
    else:
        from headwater.materialize.backfill import find_backfill

        with app.reading() as instance:
            found = find_backfill(instance, backfill_id)
            shown = _Shown.of(instance, found)
            runs = instance.catalog.runs(backfill=found.backfill_id, limit=_RUNS)
            last = instance.catalog.failures()
            failures = {cell: last[cell] for cell in sorted(last, key=_in_order) if last[cell].run_id in found.runs}
    if as_json:
        errors = [
            {"key": cell.asset, "partition": cell.partition, "run_id": one.run_id, "error": str(one)}
            for cell, one in list(failures.items())[:NAMED]
        ]
        output.say_json({**shown.describe(), "errors": errors})
    else:
        _print(shown, runs, failures)


@click.command()
@click.option(
    "--status",
    "statuses",
    multiple=True,
    type=click.Choice([*(status.value for status in BackfillStatus), _INTERRUPTED], case_sensitive=False),
)
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True)
@json_option
@pass_app
def backfills(app: App, statuses: tuple[str, ...], limit: int, as_json: bool) -> None:
    """List backfills, newest first.

    \b
    Examples:
      headwater backfills --status interrupted --status failure
    """
    wanted = {status.upper() for status in statuses}
    asked = {BackfillStatus.STARTED if status == _INTERRUPTED else BackfillStatus(status) for status in wanted}
    with app.reading() as instance:
        found = instance.catalog.backfills(statuses=asked or None, limit=limit)
        shown = [_Shown.of(instance, one) for one in found]
        shown = [one for one in shown if not wanted or one.status in wanted]
        now = instance.clock.now()
    if as_json:
        output.say_json({"backfills": [one.describe() for one in shown]})
        return
    if not shown:
        output.note("No backfills.")
        return
    output.table(
        ["BACKFILL", "STATUS", "STARTED", "TOOK", "DONE", "FAILED", "RUNS", "TITLE"],
        [
            (
                one.backfill_id,
                one.status,
                output.ago(one.started, now),
                output.duration(one.seconds),
                f"{one.progress.done:,} of {one.progress.total:,}",
                output.number(one.progress.failed),
                output.number(len(one.runs)),
                one.title or one.selection or "",
            )
            for one in shown
        ],
        right=["DONE", "FAILED", "RUNS"],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shown:
    """A backfill as it is shown, from the catalog or from the process that carries it out."""

    backfill_id: str
    status: str
    progress: "BackfillProgress"
    runs: Sequence[str]
    started: datetime
    ended: datetime | None = None
    title: str = ""
    selection: str | None = None
    tags: Mapping[str, str]
    by: str

    @staticmethod
    def of(instance: "Instance", found: Backfill) -> "_Shown":
        """What the catalog knows of it, and whether it goes on."""
        from headwater.materialize.backfill_signals import goes_on
        from headwater.materialize.backfill_standing import recorded_progress

        over = found.status is not BackfillStatus.STARTED
        return _Shown(
            backfill_id=found.backfill_id,
            status=found.status if over or goes_on(instance.home, found) else _INTERRUPTED,
            progress=recorded_progress(found, instance.catalog.backfill_cells(found.backfill_id)),
            runs=found.runs,
            started=found.started,
            ended=found.ended,
            title=found.title,
            selection=found.selection,
            tags=found.tags,
            by=f"{found.user} on {found.host}, process {found.pid}",
        )

    @staticmethod
    def of_running(running: "Running") -> "_Shown":
        """What its process says."""
        return _Shown(
            backfill_id=running.backfill_id,
            status=BackfillStatus.STARTED,
            progress=running.progress,
            runs=running.runs,
            started=running.started,
            title=running.title,
            selection=running.selection,
            tags={},
            by=f"process {running.pid} on {running.host}",
        )

    @property
    def short(self) -> str:
        """Enough of the identifier."""
        return self.backfill_id[:_SHORT]

    @property
    def seconds(self) -> float | None:
        """How long it took, where that is known."""
        return None if self.ended is None else (self.ended - self.started).total_seconds()

    def text(self) -> str:
        """How far it is, in words."""
        return progress_text(self.progress)

    def describe(self) -> dict[str, Any]:
        """As JSON."""
        progress, left = self.progress, self.progress.remaining
        return {
            "backfill_id": self.backfill_id,
            "status": self.status,
            "title": self.title,
            "selection": self.selection,
            "started": output.rfc3339(self.started),
            "ended": output.rfc3339(self.ended),
            "tags": self.tags,
            "total": progress.total,
            "done": progress.done,
            "failed": progress.failed,
            "blocked": progress.blocked,
            "remaining_seconds": None if left is None else left.total_seconds(),
            "runs": self.runs,
            "assets": [
                {
                    "key": one.key,
                    "total": one.total,
                    "done": one.done,
                    "failed": one.failed,
                    "remaining": one.remaining,
                }
                for one in progress.assets
            ],
        }


def progress_text(progress: "BackfillProgress") -> str:
    """Such as `1,200 of 3,650 built, 3 failed, 2 blocked, about 3 min left`."""
    parts = [f"{progress.done:,} of {progress.total:,} built"]
    for count, words in (
        (progress.failed, "failed"),
        (progress.blocked, "blocked by what failed"),
        (progress.absent, "optional and not made"),
        (progress.gone, "not defined any more"),
    ):
        if count:
            parts.append(f"{count:,} {words}")
    if progress.remaining and progress.open:
        parts.append(f"about {output.duration(progress.remaining.total_seconds())} left")
    return ", ".join(parts)


@dataclass(slots=True)
class _Work:
    """What a process needs that carries out a backfill, and what it says meanwhile."""

    definitions: "Definitions"
    progress: "Progress"
    quiet: bool
    settings: "BackfillSettings" = field(init=False)
    #: Once it is known.
    backfill_id: str | None = None

    def show_plan(self, found: Plan) -> None:
        """Say what is going to be built."""
        if found:
            print_plan(found)

    def show_run(self, backfill_id: str, _: Plan, progress: "BackfillProgress") -> None:
        """Say which backfill it is, and between its runs how far it is."""
        if not self.quiet:
            output.note(
                f"backfill {backfill_id}" if self.backfill_id is None else f"backfill: {progress_text(progress)}"
            )
        self.backfill_id = backfill_id


@contextmanager
def _carrying_out(app: App, given: Mapping[str, Any], as_json: bool) -> Generator[_Work]:
    """Get ready to carry out a backfill; should it break off, say how it goes on."""
    from headwater.cli.progress import Progress
    from headwater.materialize.backfill import BackfillSettings

    run_config = read_config(app, given["config"])
    tags = parse_tags(given["tags"])
    definitions = app.definitions
    steps = {node.key: node.step for node in definitions.graph if node.step is not None}
    work = _Work(definitions, Progress(quiet=as_json, steps=steps), as_json)
    work.settings = BackfillSettings(
        executor=given["executor"],
        max_workers=given["max_workers"],
        steps_per_run=given["steps_per_run"],
        run_config=run_config,
        tags=tags,
        listener=work.progress.show,
        on_run=work.show_run,
    )
    try:
        yield work
    except (click.exceptions.Exit, click.ClickException):
        raise
    except BaseException:
        if work.backfill_id is not None:
            output.note(f"`headwater backfill resume {work.backfill_id[:_SHORT]}` goes on with what is not built.")
        raise


def _plan(app: App, work: _Work, selection: str, choice: PartitionChoice, only: Sequence[str], upstream: bool) -> None:
    """Say what would be built."""
    from headwater.materialize.api import check_run_config
    from headwater.materialize.backfill import plan_backfill
    from headwater.materialize.reader import Reader

    graph = work.definitions.graph_with(check_run_config(work.settings.run_config, work.definitions))
    with app.reading() as instance:
        reader = Reader(graph, instance.catalog, instance.clock.now())
        found = plan_backfill(reader, selection, choice, only=only, upstream=upstream)
        if not work.quiet:
            _say_nothing(only) if not found else print_plan(found)
            return
        output.say_json(
            {
                **_NOTHING,
                "status": None,
                "total": sum(_cells(own) for group in found.groups for own in group.subsets),
                "assets": [
                    {
                        "key": key,
                        "total": _cells(own),
                        "done": 0,
                        "failed": 0,
                        "remaining": _cells(own),
                        "step": group.name,
                        "steps": group.steps,
                        "partitions": [] if own is None else [str(one) for one in own.ranges()],
                        "reason": group.reason,
                    }
                    for group in found.groups
                    for key, own in zip(group.assets, group.subsets, strict=True)
                ],
            }
        )


def _cells(partitions: Any) -> int:
    return 1 if partitions is None else len(partitions)


def _report(instance: "Instance", result: "BackfillResult", only: Sequence[str], as_json: bool) -> int:
    """Say what became of a backfill; returns the exit code."""
    if result.backfill_id is None or result.status is None:
        output.say_json({**_NOTHING, "status": BackfillStatus.SUCCESS}) if as_json else _say_nothing(only)
        return result.exit_code
    if as_json:
        found = instance.catalog.backfill(result.backfill_id)
        assert found is not None  # it was carried out just now
        progress = result.progress
        output.say_json(
            {**_Shown.of(instance, found).describe(), "failed": progress.failed, "blocked": progress.blocked}
        )
        return result.exit_code
    status = _INTERRUPTED if result.status is BackfillStatus.STARTED else result.status
    output.say(f"{status}  {progress_text(result.progress)}", colour=output.COLOURS[status])
    output.say(f"backfill {result.backfill_id}, {output.counted(len(result.runs), 'run')}", dim=True)
    short = result.backfill_id[:_SHORT]
    if status == _INTERRUPTED:
        output.note(f"`headwater backfill resume {short}` goes on with what is not built.")
    elif result.status is BackfillStatus.FAILURE:
        output.note(
            f"`headwater backfill show {short}` shows the errors, `headwater backfill resume {short}` tries again."
        )
    return result.exit_code


def _say_nothing(only: Sequence[str]) -> None:
    said = f"nothing selected is {' or '.join(only)}" if only else "no partition is selected"
    output.say(f"Nothing to do: {said}.", colour="green" if only else "yellow")


#: A backfill of nothing, as JSON.
_NOTHING: Mapping[str, Any] = {
    "backfill_id": None,
    "status": None,
    "total": 0,
    "done": 0,
    "failed": 0,
    "blocked": 0,
    "remaining_seconds": None,
    "runs": [],
    "assets": [],
}


def _print(shown: _Shown, runs: Sequence[Run], failures: Mapping[Cell, Failure]) -> None:
    """A backfill for a person."""
    from headwater.materialize.reader import settled

    output.say(f"backfill {shown.backfill_id}", bold=True)
    output.facts(
        [
            ("status", shown.status),
            ("title", shown.title),
            ("selection", shown.selection),
            ("started", output.rfc3339(shown.started)),
            ("took", None if shown.seconds is None else output.duration(shown.seconds)),
            ("progress", shown.text()),
            ("tags", output.tags_text(shown.tags)),
            ("by", shown.by),
        ]
    )
    output.say()
    output.table(
        ["ASSET", "", "DONE", "FAILED", "REMAINING"],
        [
            (
                one.key,
                bar(one.done, one.failed, one.total),
                f"{one.done:,} of {one.total:,}",
                output.number(one.failed),
                output.number(one.remaining),
            )
            for one in shown.progress.assets
        ],
        right=["DONE", "FAILED", "REMAINING"],
    )
    if runs:
        output.say()
        output.table(
            ["RUN", "STATUS", "STARTED", "STEPS"],
            [
                (
                    one.run_id,
                    one.status,
                    output.rfc3339(one.started),
                    ", ".join(f"{count:,} {status.lower()}" for status, count in one.step_counts.items() if count),
                )
                for one in map(settled, runs)
            ],
        )
        if len(shown.runs) > len(runs):
            output.note(f"and {len(shown.runs) - len(runs):,} earlier runs")
    for cell, failure in list(failures.items())[:NAMED]:
        output.say()
        output.say(f"{printable_line(str(cell))} failed in run {failure.run_id[:_SHORT]}", bold=True, colour="red")
        if failure.error is not None:
            output.say_block(output.failure_text(failure.error))
    if len(failures) > NAMED:
        output.note(f"and {len(failures) - NAMED:,} more")
    if shown.status in (_INTERRUPTED, BackfillStatus.FAILURE):
        does = "goes on with it" if shown.status == _INTERRUPTED else "tries again what failed"
        output.note(f"`headwater backfill resume {shown.short}` {does}.")


def bar(done: int, failed: int, total: int) -> str:
    """What is done, failed and left, as a bar. Whatever there is shows."""
    lost = min(_BAR, -(-failed * _BAR // total)) if total else 0
    full = min(_BAR - lost, done * _BAR // total) if total else 0
    return "█" * full + "▒" * lost + "░" * (_BAR - full - lost)


def _in_order(cell: Cell) -> tuple[str, str]:
    return cell.asset, cell.partition or ""


def _app(context: click.Context) -> App:
    app = context.find_object(App)
    assert app is not None  # the group makes one
    return app
