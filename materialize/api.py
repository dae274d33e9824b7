"""Building assets from Python."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

from headwater.catalog.definitions.definitions import Definitions
from headwater.catalog.errors import CellTakenError, ConflictError, UnknownAssetError, UsageError, UserCodeError
from headwater.catalog.events import Event, RunEnded, StepEnded
from headwater.catalog.instance import Instance
from headwater.catalog.keys import AssetKey, CoercibleToAssetKey
from headwater.catalog.lineage.asset_graph import AssetGraph
from headwater.catalog.partitions.definition import PartitionKeyRange
from headwater.catalog.processes import this_host
from headwater.catalog.records import Materialization, RunStatus, StepCell, StepStatus
from headwater.materialize.conflict import ON_CONFLICT, await_run
from headwater.materialize.execution.run import RunOutcome, RunRequest, definitions_changed, execute
from headwater.materialize.io_managers import IOManagers
from headwater.materialize.loading import load_asset
from headwater.materialize.partition_choice import PartitionChoice
from headwater.materialize.planner import Plan
from headwater.materialize.reader import UNFINISHED, Reader, is_interrupted, settled_steps

EXECUTORS = ("in_process", "threads")


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
    instance: Instance | None = None,
    resources: Mapping[str, Any] | None = None,
    run_config: Mapping[str, Any] | None = None,
    partition_key: str | None = None,
    partition_keys: Iterable[str] = (),
    partition_range: str | tuple[str, str] | PartitionKeyRange | None = None,
    all_partitions: bool = False,
    partitions: PartitionChoice | None = None,
    force: bool = False,
    upstream: bool = True,
    only_missing: bool = False,
    executor: str | None = None,
    max_workers: int | None = None,
    tags: Mapping[str, str] | None = None,
    raise_on_error: bool = True,
    listener: Callable[[Event], None] | None = None,
    on_conflict: str = "queue",
    on_wait: Callable[[CellTakenError], None] | None = None,
) -> RunResult:
    """Build what is stale among the selected assets and all that they depend on.

    Without an `instance` it runs in an ephemeral one, where everything is missing and so everything is built.
    `force` builds the selected assets although fresh, `upstream=False` leaves what they depend on alone,
    `only_missing` rebuilds nothing that exists. Where partitioned assets are selected, `partition_key`,
    `partition_keys` or `partition_range` ("first..last", or a pair) say which partitions are meant, or `all_partitions`
    that all are, or `partitions` all of that in one value; of other selected assets, the partitions that read those are
    built too. `executor` is "in_process" or "threads".

    What another run builds already is waited for, and then built if it still has to be; with `on_conflict` "fail" that
    raises `CellTakenError`, with "supersede" it is built at the same time, and who ends last wins. `on_wait` is told
    whom it waits for.

    With `raise_on_error`, the first exception of user code is raised again when the run is over; in any case the
    rest of the run was carried out. Raises `DefinitionError`, `ConfigError`, `CatalogError`, `UnknownPartitionError`,
    and `UsageError` where partitioned assets are selected without a word about partitions.
    """
    definitions = assets if isinstance(assets, Definitions) else Definitions(assets, resources)
    if isinstance(assets, Definitions) and resources:
        definitions = Definitions([*assets.assets, *assets.specs], {**assets.resources, **resources}, assets.executor)
    executor = check_executor(executor or definitions.executor or EXECUTORS[0])
    instance = instance or Instance.ephemeral()
    config = check_run_config(run_config or {}, definitions)
    if on_conflict not in ON_CONFLICT:
        raise UsageError(f"on_conflict is '{on_conflict}'.", remedy=f"It is one of {', '.join(ON_CONFLICT)}.")
    choice = partitions or partition_choice(partition_key, partition_keys, partition_range, all_partitions)
    while True:
        recover(instance, definitions)
        reader = Reader(definitions.graph_with(config), instance.catalog, instance.clock.now())
        reader = reader.within(reader.select(selection))
        plan = reader.plan(selection, partitions=choice, force=force, upstream=upstream, only_missing=only_missing)
        outcome: RunOutcome | None = None
        if not plan:
            record_definitions(instance, reader.graph)
            break
        try:
            outcome = execute(
                RunRequest(
                    plan=plan,
                    definitions=definitions,
                    graph=reader.graph,
                    states=reader.cells,
                    table=reader.table,
                    run_config=config,
                    executor=executor,
                    max_workers=max_workers,
                    tags=tags or {},
                    selection=None if selection is None else str(selection),
                    supersede=on_conflict == "supersede",
                    listener=listener,
                ),
                instance,
            )
            break
        except CellTakenError as taken:
            if on_conflict == "fail":
                raise
            if on_wait is not None:
                on_wait(taken)
            await_run(instance, taken.run_id)
    result = RunResult(outcome, plan, instance, definitions)
    if raise_on_error and outcome is not None and outcome.status is not RunStatus.SUCCESS:
        _raise(outcome)
    return result


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


def check_executor(name: str) -> str:
    """`name` itself, where an executor is called so. Raises `UsageError` otherwise."""
    if name not in EXECUTORS:
        raise UsageError(f"There is no executor '{name}'.", remedy=f"It is one of {', '.join(EXECUTORS)}.")
    return name


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


def recover(instance: Instance, definitions: Definitions) -> list[str]:
    """Settle what killed runs left: sweep their unfinished files, record how they and their steps ended.

    Returns the runs' ids, which are INTERRUPTED from now on.
    """
    started = instance.catalog.runs(statuses=[RunStatus.STARTED], limit=1000)
    dead = [run for run in started if is_interrupted(run)]
    if not dead:
        return []
    managers = IOManagers(definitions, None, instance.artifacts)
    settled: list[str] = []
    for run in dead:
        # One of this host has no process any more; one of another may wake up until this moment, and not after it.
        elsewhere = [run.run_id] if run.host != this_host() else []
        planned = instance.catalog.planned(run.run_id)
        if not elsewhere:
            managers.sweep(run.run_id, planned)
        now = instance.clock.now()
        unfinished = [step for step in instance.catalog.steps(run.run_id) if step.status in UNFINISHED]
        events: list[Event] = [
            StepEnded(time=now, run_id=run.run_id, step_key=step.step_key, status=step.status, cells=step.cells)
            for step in settled_steps(unfinished)
        ]
        events.append(RunEnded(time=now, run_id=run.run_id, status=RunStatus.INTERRUPTED))
        try:
            instance.catalog.append(events, lapsed=elsewhere)
        except ConflictError:
            continue
        if elsewhere:
            managers.sweep(run.run_id, planned)
        settled.append(run.run_id)
    return settled


def _raise(outcome: RunOutcome) -> None:
    if outcome.status is RunStatus.CANCELED:
        raise KeyboardInterrupt
    if outcome.exception is not None:
        raise outcome.exception
    failed = next(step for step in outcome.steps if step.error is not None)
    error = failed.error
    assert error is not None
    raise UserCodeError(f"{failed.step_key}: {error.kind}: {error.message}\n{error.traceback}", remedy=error.remedy)
