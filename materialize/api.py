"""Building assets from Python."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, cast

from headwater.catalog.config import substitute
from headwater.catalog.definitions.definitions import Definitions
from headwater.catalog.definitions.selection import AssetSelection
from headwater.catalog.errors import (
    CellTakenError,
    QueuedError,
    RunStoppedError,
    TimedOutError,
    UnknownAssetError,
    UsageError,
    UserCodeError,
)
from headwater.catalog.events import Event
from headwater.catalog.instance import Instance
from headwater.catalog.keys import AssetKey, CoercibleToAssetKey
from headwater.catalog.lineage.asset_graph import AssetGraph
from headwater.catalog.partitions.definition import PartitionKeyRange
from headwater.catalog.records import Materialization, RunStatus, StepCell, StepStatus
from headwater.materialize.conflict import ON_CONFLICT
from headwater.materialize.execution.run import RunOutcome, execute
from headwater.materialize.execution.starting import RunSpec, definitions_changed
from headwater.materialize.executors.fit import IN_PROCESS, check_executor
from headwater.materialize.jobs import merged_config, plan_of, selection_of
from headwater.materialize.loading import load_asset
from headwater.materialize.monitoring import max_runtime, recover
from headwater.materialize.partition_choice import PartitionChoice
from headwater.materialize.planner import Plan
from headwater.materialize.reader import Reader, find_run
from headwater.materialize.retries import RetryRule, group, is_to_be_retried, retry_plan, retry_tags
from headwater.materialize.waiting_run import Asked, WaitingRun


class RunResult:
    """What became of a run that `materialize` made."""

    def __init__(
        self, outcome: RunOutcome | None, plan: Plan, instance: Instance, definitions: Definitions | None = None
    ) -> None:
        self.outcome = outcome
        self.plan = plan
        self.instance = instance
        self._definitions = definitions

    @property
    def run_id(self) -> str | None:
        """The run's identifier; None when nothing had to be done."""
        return self.outcome.run_id if self.outcome else None

    @property
    def status(self) -> RunStatus:
        """How it ended."""
        return self.outcome.status if self.outcome else RunStatus.SUCCESS

    @property
    def success(self) -> bool:
        """Whether everything that was to be built was."""
        return self.status is RunStatus.SUCCESS

    @property
    def cells(self) -> list[StepCell]:
        """What became of each asset of the plan."""
        return [cell for step in self.outcome.steps for cell in step.cells] if self.outcome else []

    @property
    def materializations(self) -> list[Materialization]:
        """The versions that were made, in the order in which they were."""
        return [m for step in self.outcome.steps for m in step.materializations] if self.outcome else []

    def status_of(self, key: CoercibleToAssetKey, partition: str | None = None) -> StepStatus | None:
        """What became of one asset, or one of its partitions; None when the plan did not hold it."""
        return next((cell.status for cell in self.cells if _is_of(cell, key, partition)), None)

    def materialization(self, key: CoercibleToAssetKey, partition: str | None = None) -> Materialization:
        """The version of an asset, or of one of its partitions, that this run made. Raises `UnknownAssetError`."""
        found = next((m for m in self.materializations if _is_of(m, key, partition)), None)
        if found is None:
            raise UnknownAssetError(str(AssetKey(key)), [m.asset for m in self.materializations])
        return found

    def asset_value(self, key: CoercibleToAssetKey, as_type: Any = None, *, partition: str | None = None) -> Any:
        """The current value of an asset or of one partition, in the representation that `as_type` asks for."""
        return load_asset(
            key, as_type=as_type, partition=partition, instance=self.instance, definitions=self._definitions
        )

    output_for_node = asset_value

    def __repr__(self) -> str:
        made = len(self.materializations)
        return f"<run {self.run_id or '(nothing to do)'} {self.status}: {made} materialized>"


def materialize(
    assets: Definitions | Iterable[Any],
    *,
    selection: Any = None,
    job: str | None = None,
    instance: Instance | None = None,
    resources: Mapping[str, Any] | None = None,
    run_config: Mapping[str, Any] | None = None,
    partition_key: str | None = None,
    partition_keys: Iterable[str] = (),
    partition_range: str | tuple[str, str] | PartitionKeyRange | None = None,
    all_partitions: bool = False,
    partitions: PartitionChoice | None = None,
    force: bool | str = False,
    upstream: bool = True,
    only_missing: bool = False,
    executor: str | None = None,
    max_workers: int | None = None,
    tags: Mapping[str, str] | None = None,
    raise_on_error: bool = True,
    listener: Callable[[Event], None] | None = None,
    on_conflict: str = "queue",
    on_wait: Callable[[CellTakenError | QueuedError], None] | None = None,
    on_retry: Callable[[RunOutcome, int], None] | None = None,
    retry_of: str | None = None,
    retry_strategy: str | None = None,
    run_id: str | None = None,
    origin: Mapping[str, Any] | None = None,
) -> RunResult:
    """Build what is stale among the selected assets and all that they depend on.

    Without an `instance` it runs in an ephemeral one, where everything is missing and so everything is built.
    `force` builds the selected assets although fresh, or with "sources" those of them that depend on nothing that is
    computed; `upstream=False` leaves what they depend on alone,
    `only_missing` rebuilds nothing that exists. Where partitioned assets are selected, `partition_key`,
    `partition_keys` or `partition_range` ("first..last", or a pair) say which partitions are meant, or `all_partitions`
    that all are, or `partitions` all of that in one value; of other selected assets, the partitions that read those are
    built too. `executor` is "in_process", "threads" or "processes".

    What another run builds already is waited for, and then built if it still has to be; with `on_conflict` "fail" that
    raises `CellTakenError`, with "supersede" it is built at the same time, and who ends last wins. Where the instance's
    limits do not let it begin, the run waits too. `on_wait` is told what for; whoever waits is in the queue.

    `job` names one of the definitions' jobs: its assets are built, or those that are in `selection` too, as
    `define_asset_job` says, with its configuration, tags, executor and hooks.

    With `retry_of`, what that run left undone is built instead of a selection, or with `retry_strategy` "ALL_STEPS"
    all that it was to build. A run that fails is tried again as its tags or the instance's settings say; `on_retry` is
    told of the one that failed, and the number of the next try.

    `run_id` is that of a run that is in the queue already, `origin` where another process finds the definitions: then
    it can carry out the run, or try it again.

    With `raise_on_error`, the first exception of user code is raised again when the run is over; in any case the
    rest of the run was carried out. Raises `DefinitionError`, `ConfigError`, `CatalogError`, `UnknownPartitionError`,
    and `UsageError` where partitioned assets are selected without a word about partitions.
    """
    definitions = assets if isinstance(assets, Definitions) else Definitions(assets, resources)
    if isinstance(assets, Definitions) and resources:
        everything = {**assets.resources, **resources}
        given = [*assets.assets, *assets.specs]
        definitions = Definitions(given, everything, assets.executor, assets.hooks, assets.jobs.values())
    of_job = None if job is None else definitions.job(job)
    chosen, given_tags = selection, dict(tags or {})
    if of_job is not None:
        definitions, executor = definitions.in_job(of_job), executor or of_job.executor
        chosen, run_config = selection_of(of_job, selection), merged_config(of_job, run_config or {})
        given_tags = {**of_job.tags, **given_tags}
    executor = check_executor(executor or definitions.executor or IN_PROCESS)
    instance = instance or Instance.ephemeral()
    config = check_run_config(run_config or {}, definitions)
    if on_conflict not in ON_CONFLICT:
        raise UsageError(f"on_conflict is '{on_conflict}'.", remedy=f"It is one of {', '.join(ON_CONFLICT)}.")
    choice = partitions or partition_choice(partition_key, partition_keys, partition_range, all_partitions)
    asked = Asked(
        job=job,
        selection=None if chosen is None else str(chosen),
        tags=given_tags,
        request=run_request(
            origin,
            selection,
            choice,
            run_config or {},
            job=job,
            force=force,
            upstream=upstream,
            only_missing=only_missing,
            executor=executor,
            max_workers=max_workers,
            on_conflict=on_conflict,
            **({"observe": True} if definitions.observing else {}),
        ),
    )
    rule = RetryRule.of(instance.settings, asked.tags)
    max_runtime(instance.settings, asked.tags)  # a tag that makes no sense is an error before anything is done
    parent = None if retry_of is None else find_run(instance.catalog, retry_of)
    strategy = retry_strategy or rule.strategy
    found: list[Plan] = []

    def prepare(place: WaitingRun) -> RunSpec | None:
        reader = Reader(definitions.graph_with(config), instance.catalog, instance.clock.now())
        if parent is None:
            reader = reader.within(reader.select(chosen))
            options = {"partitions": choice, "upstream": upstream, "only_missing": only_missing}
            plan = plan_of(reader, selection, of_job, force=force, **options)
        else:
            plan = retry_plan(reader, parent, strategy)
        found.append(plan)
        if not plan:
            if not definitions.observing:
                record_definitions(instance, reader.graph)
            return None
        return RunSpec(
            plan=plan,
            definitions=definitions,
            graph=reader.graph,
            states=reader.cells,
            table=reader.table,
            run_config=config,
            executor=executor,
            max_workers=max_workers,
            place=place,
            supersede=on_conflict == "supersede",
            listener=listener,
        )

    while True:
        if parent is not None:
            asked = replace(asked, parent_run_id=parent.run_id, root_run_id=parent.root_run_id or parent.run_id)
        outcome = carry_out(
            WaitingRun(instance, asked, run_id),
            prepare,
            tidy=lambda: recover(instance, definitions.whole),
            fail=on_conflict == "fail",
            on_wait=on_wait,
        )
        last = None if outcome is None else instance.catalog.run(outcome.run_id)
        if outcome is None or last is None or outcome.signal is not None or not is_to_be_retried(instance, last):
            break
        number = len(group(instance.catalog, last))
        if on_retry is not None:
            on_retry(outcome, number)
        parent, run_id, strategy = last, None, rule.strategy
        asked = replace(asked, tags=retry_tags(asked.tags, number))
    result = RunResult(outcome, found[-1], instance, definitions)
    if raise_on_error and outcome is not None and outcome.status is not RunStatus.SUCCESS:
        _raise(outcome)
    return result


def observe(
    assets: Definitions | Iterable[Any], *, selection: Any = None, instance: Instance | None = None, **options: Any
) -> RunResult:
    """Look which versions the selected sources have, by calling the functions that observe them.

    One whose data version is another than before has a new version then, and what reads it is stale. Of partitioned
    sources all partitions are meant unless some are given. `options` are those of `materialize` about partitions, tags,
    configuration, waiting and errors. Raises `UsageError` where nothing that is selected can be observed.
    """
    definitions = assets if isinstance(assets, Definitions) else Definitions(assets)
    instance = instance or Instance.ephemeral()
    chosen = observable(definitions, instance, selection)
    if not options.keys() & {"partition_key", "partition_keys", "partition_range", "partitions"}:
        options["all_partitions"] = True
    return materialize(
        definitions.observations, selection=chosen, instance=instance, force=True, upstream=False, **options
    )


def observable(definitions: Definitions, instance: Instance, selection: Any) -> str:
    """Those sources of a selection that can be observed, as a selection. Raises `UsageError` where there are none."""
    known = definitions.observations.graph.nodes
    found = Reader(definitions.graph, instance.catalog, instance.clock.now()).select(selection)
    keys = [key for key in found if key in known]
    if not keys:
        raise UsageError(
            "Nothing that is selected can be observed.",
            remedy="@observable_source_asset makes a source that can be, and AssetSpec('key', observe=function).",
        )
    return str(AssetSelection.assets(*keys))


def carry_out(
    place: WaitingRun,
    prepare: Callable[[WaitingRun], RunSpec | None],
    *,
    tidy: Callable[[], object],
    fail: bool = False,
    on_wait: Callable[[CellTakenError | QueuedError], None] | None = None,
) -> RunOutcome | None:
    """Make a run of what `prepare` gives, as soon as it may begin; None where that is nothing.

    Whenever it had to wait it is prepared again, as what there is to do may have changed. With `fail`, it does not wait
    for what another run builds. One that was canceled while it waited has the status CANCELED, and no steps.
    """
    with place:
        try:
            while True:
                tidy()
                place.check_not_stopped()
                request = prepare(place)
                if request is None:
                    place.end(RunStatus.SUCCESS)
                    return None
                try:
                    return execute(request, place.instance)
                except (CellTakenError, QueuedError) as why:
                    if fail and isinstance(why, CellTakenError):
                        raise
                    if on_wait is not None and not (isinstance(why, QueuedError) and why.is_final):
                        on_wait(why)
                    place.wait(why, tidy)
        except RunStoppedError:
            place.end(RunStatus.CANCELED)
            return RunOutcome(run_id=place.run_id, status=RunStatus.CANCELED, steps=(), exit_code=130)


def run_request(
    origin: Mapping[str, Any] | None, selection: Any, choice: PartitionChoice, config: Mapping[str, Any], **options: Any
) -> Mapping[str, Any]:
    """What another process needs to carry out a run, as plain JSON data: references to the environment, no values.

    Empty where it could not: there is no `origin`, or something that JSON has no form for.
    """
    plain = substitute(config, lambda reference, _: {"env": reference.name})
    try:
        run_config = json.loads(json.dumps(plain, allow_nan=False))
    except (TypeError, ValueError):
        return {}
    if origin is None or not isinstance(selection, str | None):
        return {"force": True} if options["force"] else {}
    return {
        "origin": dict(origin),
        "selection": selection,
        "partitions": choice.to_json(),
        "run_config": run_config,
        **options,
    }


def plan(
    assets: Definitions | Iterable[Any],
    *,
    selection: Any = None,
    instance: Instance | None = None,
    run_config: Mapping[str, Any] | None = None,
    partition_key: str | None = None,
    partition_keys: Iterable[str] = (),
    partition_range: str | tuple[str, str] | PartitionKeyRange | None = None,
    all_partitions: bool = False,
    force: bool = False,
    upstream: bool = True,
    only_missing: bool = False,
) -> Plan:
    """What `materialize` would do with the same arguments, without doing it; without partitions, with all of them."""
    definitions = assets if isinstance(assets, Definitions) else Definitions(assets)
    instance = instance or Instance.ephemeral()
    graph = definitions.graph_with(check_run_config(run_config or {}, definitions))
    choice = partition_choice(partition_key, partition_keys, partition_range, all_partitions)
    return Reader(graph, instance.catalog, instance.clock.now()).plan(
        selection,
        partitions=choice or PartitionChoice(all=True),
        force=force,
        upstream=upstream,
        only_missing=only_missing,
    )


def partition_choice(
    key: str | None,
    keys: Iterable[str],
    key_range: str | tuple[str, str] | PartitionKeyRange | None,
    all_partitions: bool,
) -> PartitionChoice:
    """The partitions that the arguments of `materialize` mean. Raises `UsageError` for a text where keys belong."""
    if isinstance(keys, str):
        raise UsageError("partition_keys is a list of keys.", remedy=f"Write [{keys!r}], or partition_key={keys!r}.")
    one = () if key is None else (key,)
    ranges = () if key_range is None else (key_range if isinstance(key_range, str) else "..".join(key_range),)
    return PartitionChoice(keys=(*one, *keys), ranges=ranges, all=all_partitions)


def _is_of(one: StepCell | Materialization, key: CoercibleToAssetKey, partition: str | None) -> bool:
    return one.asset == AssetKey(key) and partition in (None, one.partition)


def record_definitions(instance: Instance, graph: AssetGraph) -> None:
    """Record the definitions where they are not what was recorded last; a run does so by itself."""
    changed = definitions_changed(instance, graph)
    if changed is not None:
        instance.catalog.append([changed])


def check_run_config(run_config: Mapping[str, Any], definitions: Definitions) -> Mapping[str, Any]:
    """`run_config` itself, when every section and step that it names exists. Raises `ConfigError` otherwise."""
    from headwater.catalog.errors import ConfigError, nearest

    sections = ("ops", "assets", "resources")
    if not isinstance(cast(object, run_config), Mapping):
        raise ConfigError(
            f"run_config is a mapping of sections, not {type(run_config).__name__}.",
            remedy='Such as {"ops": {"orders": {"config": {}}}}.',
        )
    for section, entries in run_config.items():
        if section not in sections:
            raise ConfigError(
                f"{section}: a run's configuration has no such section.",
                remedy=nearest(section, sections) or "Its sections are ops (or assets) and resources.",
            )
        if not isinstance(entries, Mapping):
            raise ConfigError(
                f"{section}: this is a mapping of names.", remedy='Such as {"ops": {"orders": {"config": {}}}}.'
            )
        if section == "resources":
            for name, entry in entries.items():  # pyright: ignore[reportUnknownVariableType]
                if not isinstance(entry, Mapping):
                    raise ConfigError(
                        f"resources:{name}: this is a mapping of fields, not {type(entry).__name__}.",  # pyright: ignore
                        remedy=f"Write {{'{name}': {{'config': {{…}}}}}}.",
                    )
            continue
        steps = {definition.name: definition for definition in definitions.assets}
        for name, entry in entries.items():  # pyright: ignore[reportUnknownVariableType]
            place = f"{section}:{name}"
            if name not in steps:
                raise ConfigError(f"{place}: there is no such step.", remedy=nearest(str(name), steps))  # pyright: ignore[reportUnknownArgumentType]
            if not isinstance(entry, Mapping) or set(entry) - {"config"}:  # pyright: ignore[reportUnknownArgumentType]
                raise ConfigError(
                    f"{place}: this holds one key, config.", remedy=f"Write {{'{name}': {{'config': {{…}}}}}}."
                )
            if steps[name].config_class is None and entry.get("config"):  # pyright: ignore
                raise ConfigError(
                    f"{place}:config: `{name}` takes no configuration.",
                    remedy="Give its function a parameter annotated with a Config class.",
                )
    return run_config


def _raise(outcome: RunOutcome) -> None:
    if outcome.status is RunStatus.CANCELED:
        raise KeyboardInterrupt
    if outcome.exception is not None:
        raise outcome.exception
    if outcome.error is not None:
        raise TimedOutError(f"Run {outcome.run_id}: {outcome.error.message}.", remedy=outcome.error.remedy)
    failed = next(step for step in outcome.steps if step.error is not None)
    error = failed.error
    assert error is not None
    raise UserCodeError(f"{failed.step_key}: {error.kind}: {error.message}\n{error.traceback}", remedy=error.remedy)
