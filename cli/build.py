"""`plan` and `materialize`: what would be built, and building it."""

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import click

from headwater.catalog.errors import CellTakenError, QueuedError, UsageError
from headwater.catalog.keys import AssetKey
from headwater.catalog.records import OPEN, ErrorRecord, RunStatus, StepCell, StepStatus
from headwater.cli import output
from headwater.cli.app import App, complete_partition, json_option, pass_app, selection_argument
from headwater.cli.cells import NAMED, by_asset, outcome_text, some
from headwater.cli.status import describe_cause
from headwater.materialize.causes import Status
from headwater.materialize.conflict import ON_CONFLICT
from headwater.materialize.partition_choice import PartitionChoice
from headwater.materialize.planner import Plan, PlanCell, PlanStep

if TYPE_CHECKING:
    from headwater.catalog.instance import Instance
    from headwater.materialize.api import RunResult
    from headwater.materialize.execution.run import RunOutcome

#: Ranges that a line of a plan names.
_RANGES = 3


def _plan_options(command: Any) -> Any:
    for option in reversed(
        (
            selection_argument("*"),
            click.option("--job", metavar="NAME", help="A job: its assets, those that are in SELECTION too."),
            click.option(
                "--partition",
                "partitions",
                multiple=True,
                metavar="KEY",
                help="Only this partition, and what it depends on.",
                shell_complete=complete_partition,
            ),
            click.option(
                "--partition-range",
                "ranges",
                multiple=True,
                metavar="A..B",
                help="Only the partitions from A to B.",
                shell_complete=complete_partition,
            ),
            click.option("--all-partitions", is_flag=True, help="Every partition of what is selected."),
            click.option("--force", is_flag=True, help="Build what is selected although it is fresh."),
            click.option("--only-missing", is_flag=True, help="Rebuild nothing that exists."),
            click.option("--no-upstream", is_flag=True, help="Leave alone what the selection depends on."),
            click.option("--config", metavar="FILE", help="The run's configuration: TOML, JSON or YAML."),
        )
    ):
        command = option(command)
    return command


@click.command()
@_plan_options
@json_option
@pass_app
def plan(
    app: App,
    selection: str,
    job: str | None,
    partitions: tuple[str, ...],
    ranges: tuple[str, ...],
    all_partitions: bool,
    force: bool,
    only_missing: bool,
    no_upstream: bool,
    config: str | None,
    as_json: bool,
) -> None:
    """Say what `materialize` with the same arguments would do, step by step, and why.

    \b
    Examples:
      headwater plan
      headwater plan orders --force
      headwater plan flights --partition-range 2013-01-01..2013-01-31
      headwater plan --job nightly

    Of partitioned assets, every partition is planned unless some are named.
    """
    choice = PartitionChoice(keys=partitions, ranges=ranges, all=all_partitions)
    asked: _Asked = {
        "partitions": choice or PartitionChoice(all=True),
        "force": force,
        "upstream": not no_upstream,
        "only_missing": only_missing,
    }
    run_config = read_config(app, config)
    if run_config or job is not None:
        with app.reading() as instance:
            found = _planned(app, instance, selection, job, run_config, asked)
    else:
        with app.reader() as reader:
            found = reader.plan(selection, **asked)
    if as_json:
        output.say_json(
            {
                "steps": [_describe_step(step, key, cells) for step in found.steps for key, cells in _cells_of(step)],
                **_describe_left_out(found),
            }
        )
        return
    print_plan(found)
    if not choice and any(group.partitions is not None for group in found.groups):
        flags = [f"--{name}" for name, given in (("force", force), ("only-missing", only_missing)) if given]
        flags += ["--no-upstream"] if no_upstream else []
        flags += ["--config", shlex.quote(config)] if config else []
        what = shlex.quote(selection) if job is None else f"--job {shlex.quote(job)}"
        command = " ".join(["headwater materialize", what, "--all-partitions", *flags])
        output.note(f"`{command}` does it; --partition and --partition-range choose partitions.")


def _planned(
    app: App, instance: "Instance", selection: str, job: str | None, run_config: Mapping[str, Any], asked: "_Asked"
) -> Plan:
    """The plan of a run with a configuration, or of a job."""
    from headwater.materialize.api import check_run_config
    from headwater.materialize.jobs import merged_config, plan_of
    from headwater.materialize.reader import Reader

    of_job = None if job is None else app.definitions.job(job)
    config = run_config if of_job is None else merged_config(of_job, run_config)
    graph = app.definitions.graph_with(check_run_config(config, app.definitions)) if config else app.graph
    reader = Reader(graph, instance.catalog, instance.clock.now())
    return plan_of(reader, _narrowed(selection, job), of_job, **asked)


def _narrowed(selection: str, job: str | None) -> str | None:
    """The selection that is to be given with a job: none where nothing was said."""
    return selection if job is None or selection != "*" else None


def _cells_of(step: PlanStep) -> list[tuple[AssetKey, list[PlanCell]]]:
    """What a step builds of each of its assets."""
    found: dict[AssetKey, list[PlanCell]] = {}
    for cell in step.cells:
        found.setdefault(cell.cell.asset, []).append(cell)
    return list(found.items())


def _describe_step(step: PlanStep, key: AssetKey, cells: Sequence[PlanCell]) -> dict[str, Any]:
    statuses = {cell.status for cell in cells}
    return {
        "key": key,
        "step": step.key,
        "partitions": [cell.cell.partition for cell in cells if cell.cell.partition is not None],
        "status": statuses.pop() if len(statuses) == 1 else Status.STALE,
        "certain": step.certain,
        "reason": step.reason,
        "causes": [describe_cause(cause) for cause in dict.fromkeys(c for cell in cells for c in cell.causes)],
    }


def _describe_left_out(found: Plan) -> dict[str, Any]:
    """What of a selection is not built, as JSON."""
    return {
        "waiting": found.waiting,
        "absent": found.absent,
        "impossible": [
            {
                "key": one.asset,
                "partitions": one.partitions.keys() if one.partitions else [],
                "upstream": one.upstream,
                "nonexistent": one.examples,
            }
            for one in found.impossible
        ],
    }


@click.command()
@_plan_options
@click.option("--executor", metavar="NAME", help="in_process, threads or processes. [default: in_process]")
@click.option(
    "--max-workers",
    type=click.IntRange(min=1),
    metavar="N",
    help="How many threads or processes. [default: one a core]",
)
@click.option("--tag", "tags", multiple=True, metavar="NAME=VALUE", help="A tag for the run.")
@click.option(
    "--on-conflict",
    type=click.Choice(ON_CONFLICT),
    default="queue",
    show_default=True,
    help="What another run builds already: wait for it, fail, or build it as well.",
)
@click.option("--detach", is_flag=True, help="In a process of its own, which goes on when the terminal is closed.")
@json_option
@click.pass_context
def materialize(
    context: click.Context,
    selection: str,
    job: str | None,
    partitions: tuple[str, ...],
    ranges: tuple[str, ...],
    all_partitions: bool,
    force: bool,
    only_missing: bool,
    no_upstream: bool,
    config: str | None,
    executor: str | None,
    max_workers: int | None,
    tags: tuple[str, ...],
    on_conflict: str,
    detach: bool,
    as_json: bool,
) -> None:
    """Build what is stale or missing among SELECTION and all that it depends on, and nothing else.

    \b
    Examples:
      headwater materialize
      headwater materialize 'group:core' --executor threads
      headwater materialize orders --force --no-upstream
      headwater materialize flights --partition 2013-01-31
      headwater materialize '*' --partition-range 2013-01-01..2013-01-31
      headwater materialize --detach --tag headwater/priority=10
      headwater materialize --job nightly

    A run that limits do not let begin is QUEUED and waits: headwater instance show tells the limits.
    """
    app = context.find_object(App)
    assert app is not None  # the group makes one
    run_config = read_config(app, config)
    given = parse_tags(tags)
    if executor is not None:
        from headwater.materialize.executors.fit import check_executor

        check_executor(executor)
    asked: _Asked = {
        "partitions": PartitionChoice(keys=partitions, ranges=ranges, all=all_partitions),
        "force": force,
        "upstream": not no_upstream,
        "only_missing": only_missing,
    }
    with app.writing() as instance:
        result = None if run_config or job is not None else _nothing_to_do(app, instance, selection, asked)
        request: dict[str, Any] = {
            "run_config": run_config,
            "executor": executor,
            "max_workers": max_workers,
            "on_conflict": on_conflict,
        }
        if result is None and detach:
            _detach(app, instance, selection, job, given, {**request, **asked}, as_json)
            return
        if result is None:
            narrowed = _narrowed(selection, job)
            result = carry_out(app, instance, as_json, selection=narrowed, job=job, tags=given, **request, **asked)
    report(result, as_json)
    context.exit(result.outcome.exit_code if result.outcome else 0)


def carry_out(app: App, instance: "Instance", as_json: bool, **asked: Any) -> "RunResult":
    """Make a run, and show how it goes."""
    import headwater.materialize.api as api
    from headwater.cli.progress import Progress

    definitions = app.definitions.observations if asked.pop("observe", False) else app.definitions
    steps = {node.key: node.step for node in definitions.graph if node.step is not None}
    with Progress(quiet=as_json, steps=steps) as progress:
        return api.materialize(
            definitions,
            instance=instance,
            raise_on_error=False,
            listener=progress.show,
            on_wait=_say_wait,
            on_retry=_say_retry,
            origin=app.project.origin,
            **asked,
        )


def _detach(
    app: App,
    instance: "Instance",
    selection: str,
    job: str | None,
    tags: Mapping[str, str],
    asked: dict[str, Any],
    as_json: bool,
) -> None:
    """Have another process make the run."""
    from headwater.materialize.api import run_request
    from headwater.materialize.execution.pooled import pools_of
    from headwater.materialize.jobs import selection_of
    from headwater.materialize.launching import launch, log_file
    from headwater.materialize.monitoring import max_runtime
    from headwater.materialize.retries import RetryRule

    RetryRule.of(instance.settings, tags)  # tags that make no sense are an error here, and not only there
    max_runtime(instance.settings, tags)
    choice, run_config = asked.pop("partitions"), asked.pop("run_config")
    options: _Asked = {
        "partitions": choice,
        "force": asked["force"],
        "upstream": asked["upstream"],
        "only_missing": asked["only_missing"],
    }
    pools, first = pools_of(_planned(app, instance, selection, job, run_config, options), app.graph)
    narrowed, shown = _narrowed(selection, job), selection
    if job is not None:
        of_job = app.definitions.job(job)
        shown, tags = str(selection_of(of_job, narrowed)), {**of_job.tags, **tags}
        asked["executor"] = asked["executor"] or of_job.executor
    request = run_request(app.project.origin, narrowed, choice, run_config, job=job, **asked)
    run_id, process = launch(
        instance, {**request, "first_pools": list(first)}, job=job, selection=shown, tags=tags, pools=pools
    )
    log = log_file(instance.home, run_id)
    if as_json:
        output.say_json({"run_id": run_id, "status": RunStatus.QUEUED, "pid": process.pid, "log": str(log)})
    else:
        output.say(f"run {run_id}")
        output.note(
            f"It goes on in process {process.pid}: `headwater logs {run_id[:13]} --follow` shows its output, "
            f"`headwater run wait {run_id[:13]}` waits for it."
        )


def report(result: "RunResult", as_json: bool) -> None:
    """What became of a run."""
    seconds = {m.version_id: m.seconds for m in result.materializations}
    if as_json:
        output.say_json(
            {
                "run_id": result.run_id,
                "status": result.status,
                "steps": [
                    {
                        "key": cell.asset,
                        "step": step.step_key,
                        "partitions": [] if cell.partition is None else [cell.partition],
                        "status": cell.status,
                        "seconds": seconds.get(cell.version_id or "", 0.0),
                        "rows": cell.rows,
                        "version_id": cell.version_id,
                        "error": _error_text(cell.error or step.error),
                    }
                    for step in (result.outcome.steps if result.outcome else ())
                    for cell in step.cells
                ],
                **_describe_left_out(result.plan),
            }
        )
    else:
        _summarise(result.status, result.run_id, result.cells, result.plan)
        if result.outcome is not None and result.outcome.error is not None:
            output.note(f"{result.outcome.error.message}. {result.outcome.error.remedy}")


def _error_text(error: ErrorRecord | None) -> str | None:
    return error and f"{error.kind}: {error.message}"


def _say_wait(why: CellTakenError | QueuedError) -> None:
    if isinstance(why, CellTakenError):
        output.note(f"{why.message} Waiting for it; --on-conflict has other choices.")
    else:
        output.note(f"{why.message} Waiting in the queue.")


def _say_retry(failed: "RunOutcome", number: int) -> None:
    output.note(f"Run {failed.run_id} failed; this is retry {number}.")


class _Asked(TypedDict):
    partitions: PartitionChoice
    force: bool
    upstream: bool
    only_missing: bool


def _nothing_to_do(app: App, instance: "Instance", selection: str, asked: _Asked) -> "RunResult | None":
    """The result where the remembered graph is enough to see that nothing is to be built; None otherwise."""
    graph = app.graph
    if instance.catalog.runs(statuses=list(OPEN), limit=1):
        return None
    from headwater.materialize.reader import Reader

    found = Reader(graph, instance.catalog, instance.clock.now()).plan(selection, **asked)
    if found:
        return None
    from headwater.materialize.api import RunResult, record_definitions

    record_definitions(instance, graph)
    return RunResult(None, found, instance)


def print_plan(found: Plan) -> None:
    """A plan for a person."""
    if not found:
        _say_nothing_to_do(found)
    elif any(group.partitions is not None for group in found.groups):
        _print_groups(found)
    else:
        rows = [
            (cell.cell.asset, cell.status, step.reason if step.certain else f"if it matters: {step.reason}")
            for step in found.steps
            for cell in step.cells
        ]
        output.table(["ASSET", "STATUS", "WHY"], rows)
        _say_steps(found)
    _say_left_out(found)


def _print_groups(found: Plan) -> None:
    """A line for all steps of one name, however many there are."""
    output.table(
        ["ASSET", "STEPS", "PARTITIONS", "WHY"],
        [
            (
                some(group.assets),
                output.number(group.steps),
                "" if group.partitions is None else group.partitions.describe(_RANGES),
                group.reason if group.certain else f"if it matters: {group.reason}",
            )
            for group in found.groups
        ],
        right=["STEPS"],
    )
    _say_steps(found)


def _say_steps(found: Plan) -> None:
    maybe = sum(group.steps for group in found.groups if not group.certain)
    text = output.counted(found.step_count, "step")
    output.note(text + (f", {maybe:,} of them only if what they read really changes" if maybe else ""))


def _summarise(status: RunStatus, run_id: str | None, cells: Sequence[StepCell], found: Plan) -> None:
    if run_id is None:
        _say_nothing_to_do(found)
    else:
        counts = Counter(cell.status for cell in cells)
        parts = [f"{counts[s]:,} {output.word(s)}" for s in StepStatus if counts[s]]
        output.say(f"{status}  {', '.join(parts)}", colour=output.COLOURS[status])
        if any(cell.partition is not None for cell in cells):
            output.facts([(key, outcome_text(own)) for key, own in by_asset(cells).items()], "  ")
        output.say(f"run {run_id}", dim=True)
        if status is RunStatus.FAILURE:
            output.note(
                f"`headwater run show {run_id[:13]}` shows the errors, `headwater logs {run_id[:13]}` the output."
            )
    _say_left_out(found)


def _say_nothing_to_do(found: Plan) -> None:
    if not found.selected:
        output.say("Nothing to do: no asset is selected.", colour="yellow")
    elif found.waiting or found.absent or found.impossible:
        output.say("Nothing to do.", colour="green")
    else:
        output.say("Nothing to do: everything selected is fresh.", colour="green")


def _say_left_out(found: Plan) -> None:
    if found.waiting:
        one = next(iter(found.waiting))
        output.note(
            f"Left alone, as only something further up is stale: {some(found.waiting)}. Select `+{one}` to build that."
        )
    if found.absent:
        output.note(f"Not there, as a step left out an optional output: {some(found.absent)}.")
    for one in found.impossible[:NAMED]:
        output.note(f"Left out: {one}.")
    if len(found.impossible) > NAMED:
        output.note(f"Left out too: partitions of {len(found.impossible) - NAMED} more assets.")


def read_config(app: App, path: str | None) -> Mapping[str, Any]:
    """The configuration in a file, by default the project's."""
    from headwater.catalog.documents import read_document

    if path is not None:
        return read_document(Path(path).expanduser())
    return read_document(app.project.config) if app.project.config is not None else {}


def parse_tags(tags: tuple[str, ...]) -> dict[str, str]:
    """Tags given as `name=value`. Raises `UsageError` for others."""
    parsed: dict[str, str] = {}
    for tag in tags:
        name, separator, value = tag.partition("=")
        if not separator or not name:
            raise UsageError(f"--tag {tag!r} is no tag.", remedy="Write --tag name=value.")
        parsed[name] = value
    return parsed
