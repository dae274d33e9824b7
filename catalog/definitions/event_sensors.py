"""Sensors of what the catalog records: materializations of assets, and runs that come to their end.

What was recorded counts up, so a cursor is the number of the event up to which everything was seen: nothing is missed
between two evaluations, and nothing seen twice.
"""

import inspect
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from headwater.catalog.definitions.job import JobDefinition, one_of
from headwater.catalog.definitions.run_request import MAX_REQUESTS, RunRequest, SkipReason
from headwater.catalog.definitions.selection import AssetSelection, coerce_selection
from headwater.catalog.definitions.sensor import (
    PartitionsRequest,
    SensorDefinition,
    SensorEvaluationContext,
    SensorResult,
    make_sensor,
    result_of,
    targets_of,
)
from headwater.catalog.errors import UsageError, UserCodeError
from headwater.catalog.events import EventKind
from headwater.catalog.keys import AssetKey
from headwater.catalog.records import Materialization, Run, RunStatus

#: The tag with the sensor that requested a run.
SENSOR = "headwater/sensor"
_MADE = (EventKind.ASSET_MATERIALIZATION.value,)
#: Runs and materializations that one evaluation calls a function for, and that it may look at: what is left comes next.
_AT_ONCE, _IN_SIGHT = 100, 1000


def asset_sensor(
    asset_key: Any, *, job: JobDefinition | str | None = None, name: str | None = None, **settings: Any
) -> Callable[[Callable[..., object]], SensorDefinition]:
    """Make a sensor of a function that is called for each new materialization of an asset.

    The function gets a `SensorEvaluationContext` and the materialization (`asset`, `partition`, `run_id`, `metadata`,
    …), and answers as one under `@sensor` does. The first time, it is called for the last one that there is. `job`
    and `settings` are as of `@sensor`. Raises `DefinitionError`.
    """

    def define(function: Callable[..., object]) -> SensorDefinition:
        own = name or getattr(function, "__name__", "asset_sensor")
        targets = targets_of(own, job, *_other_targets(settings))
        key = AssetKey(asset_key)

        def evaluate(sensor: SensorDefinition, context: SensorEvaluationContext) -> SensorResult:
            events = _materializations(context.instance.catalog, key, context.cursor, _AT_ONCE)
            return _one_by_one(sensor, context, events, f"`{key}` was not materialized since")

        return make_sensor(own, function, evaluate, parameters=2, monitored=key, jobs=targets, **settings)

    return define


def multi_asset_sensor(
    monitored_assets: Any, *, job: JobDefinition | str | None = None, name: str | None = None, **settings: Any
) -> Callable[[Callable[..., object]], SensorDefinition]:
    """Make a sensor of a function that looks at what is new of several assets, together.

    `monitored_assets` is a list of keys, or a selection. The function gets a `MultiAssetSensorEvaluationContext`, and
    says what it has dealt with: `context.advance_cursor` or `advance_all_cursors`. `job` and `settings` are as of
    `@sensor`. Raises `DefinitionError`.
    """

    def define(function: Callable[..., object]) -> SensorDefinition:
        own = name or getattr(function, "__name__", "multi_asset_sensor")
        targets = targets_of(own, job, *_other_targets(settings))
        return make_sensor(
            own, function, _evaluate_several, parameters=1, monitored=monitored_assets, jobs=targets, **settings
        )

    return define


def run_status_sensor(
    run_status: RunStatus | str,
    *,
    monitored_jobs: Sequence[JobDefinition | str] | None = None,
    request_job: JobDefinition | str | None = None,
    request_jobs: Sequence[JobDefinition | str] | None = None,
    name: str | None = None,
    **settings: Any,
) -> Callable[[Callable[..., object]], SensorDefinition]:
    """Make a sensor of a function that is called for each run that came to this status, of some jobs or of all.

    It begins with what happens after its first evaluation. Runs that it requested itself, it does not see. The function
    gets a `RunStatusSensorContext`, and may answer as one under `@sensor` does: requests mean `request_job`.
    `settings` are as of `@sensor`. Raises `DefinitionError`.
    """
    status = one_of(RunStatus, run_status, "run_status")
    # A run whose process died has failed, too.
    statuses = (status, RunStatus.INTERRUPTED) if status is RunStatus.FAILURE else (status,)
    kinds = [f"RUN_{one}" if one is not RunStatus.STARTED else EventKind.RUN_START.value for one in statuses]

    def define(function: Callable[..., object]) -> SensorDefinition:
        own = name or getattr(function, "__name__", "run_status_sensor")
        targets = targets_of(own, request_job, request_jobs, None, None)

        def evaluate(sensor: SensorDefinition, context: SensorEvaluationContext) -> SensorResult:
            catalog = context.instance.catalog
            if context.cursor is None:
                return SensorResult(skip_reason=SkipReason("it begins here"), cursor=str(catalog.last_event()))
            events = _runs(catalog, sensor, kinds, _number(context.cursor))
            return _one_by_one(sensor, context, events, f"no run came to {status}")

        watched = tuple(monitored_jobs or ())
        return make_sensor(own, function, evaluate, parameters=1, jobs=targets, monitored_jobs=watched, **settings)

    return define


def run_failure_sensor(
    name: Any = None, *, monitored_jobs: Sequence[JobDefinition | str] | None = None, **settings: Any
) -> Any:
    """Make a sensor of a function that is called for each run that failed, also as its process died.

    As `run_status_sensor`, whose `settings` it takes; `@run_failure_sensor` alone will do.
    """
    own = name if isinstance(name, str) else None
    define = run_status_sensor(RunStatus.FAILURE, monitored_jobs=monitored_jobs, name=own, **settings)
    return define(name) if inspect.isfunction(name) else define


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStatusSensorContext:
    """What the function of a `run_status_sensor` is given. `build_run_status_sensor_context` makes one for tests."""

    #: The run, as it is recorded; `run.error` is why it failed.
    run: Run
    sensor_name: str = ""
    instance: Any = None
    log: Any = None
    #: The resources that it asked for, as attributes.
    resources: Any = None


def build_run_status_sensor_context(
    run: Run, *, instance: Any = None, resources: Mapping[str, Any] | None = None
) -> RunStatusSensorContext:
    """A context to call the function of a `run_status_sensor` with."""
    made = SensorEvaluationContext(instance=instance, resources=resources)
    return RunStatusSensorContext(run=run, instance=instance, log=made.log, resources=made.resources)


class MultiAssetSensorEvaluationContext:
    """What the function of a `multi_asset_sensor` is given. `build_multi_asset_sensor_context` makes one for tests.

    Of each asset, there is a cursor: the number of the event up to which everything was dealt with.
    """

    def __init__(self, context: SensorEvaluationContext, asset_keys: Iterable[AssetKey]) -> None:
        self.sensor_name = context.sensor_name
        self.instance = context.instance
        self.log = context.log
        self.resources = context.resources
        self.last_run_key = context.last_run_key
        self.definitions = context.definitions
        #: The assets that are monitored.
        self.asset_keys: tuple[AssetKey, ...] = tuple(sorted(asset_keys))
        self._numbers: dict[str, int] = _numbers(context.cursor)
        self._new: dict[AssetKey, list[tuple[int, Materialization]]] = {}
        self._advanced = False

    @property
    def cursor(self) -> str:
        """The cursors of all assets, as one text."""
        return json.dumps(self._numbers, sort_keys=True)

    @property
    def was_advanced(self) -> bool:
        """Whether anything was dealt with."""
        return self._advanced

    def latest_materialization_records_by_key(
        self, asset_keys: Iterable[Any] | None = None
    ) -> dict[AssetKey, Materialization | None]:
        """The newest materialization of each asset that was not dealt with yet; None where there is none."""
        chosen = self.asset_keys if asset_keys is None else map(self._known, asset_keys)
        return {key: found[-1][1] if (found := self._found(key)) else None for key in chosen}

    def latest_materialization_records_by_partition(self, asset_key: Any) -> dict[str, Materialization]:
        """Of the materializations of an asset that were not dealt with yet, the newest of each partition."""
        found = self._found(self._known(asset_key))
        return {made.partition: made for _, made in found if made.partition is not None}

    def materialization_records_for_key(self, asset_key: Any, limit: int | None = None) -> list[Materialization]:
        """The materializations of an asset that were not dealt with yet, oldest first."""
        return [made for _, made in self._found(self._known(asset_key))][:limit]

    def advance_cursor(self, materializations: Mapping[Any, Materialization | None]) -> None:
        """Have these and all before them dealt with, by asset."""
        for key, made in materializations.items():
            asset = self._known(key)
            for number, one in self._found(asset) if made is not None else ():
                if one.version_id == cast(Materialization, made).version_id:
                    self._advance(asset, number)

    def advance_all_cursors(self) -> None:
        """Have everything dealt with that there is by now."""
        for key in self.asset_keys:
            if found := self._found(key):
                self._advance(key, found[-1][0])

    def _advance(self, asset: AssetKey, number: int) -> None:
        self._numbers[str(asset)] = max(number, self._numbers.get(str(asset), 0))
        self._advanced = True

    def _known(self, asset_key: Any) -> AssetKey:
        key = AssetKey(asset_key)
        if key not in self.asset_keys:
            raise UsageError(
                f"The sensor `{self.sensor_name}` does not monitor `{key}`.", remedy="Add it to monitored_assets."
            )
        return key

    def _found(self, key: AssetKey) -> list[tuple[int, Materialization]]:
        if key not in self._new:
            number = self._numbers.get(str(key))
            cursor = None if number is None else str(number)
            self._new[key] = list(_materializations(self.instance.catalog, key, cursor, _IN_SIGHT))
        return self._new[key]


def build_multi_asset_sensor_context(
    monitored_assets: Any,
    *,
    instance: Any,
    definitions: Any = None,
    cursor: str | None = None,
    resources: Mapping[str, Any] | None = None,
) -> MultiAssetSensorEvaluationContext:
    """A context to call the function of a `multi_asset_sensor` with; a selection needs the `definitions`."""
    context = SensorEvaluationContext(cursor=cursor, instance=instance, definitions=definitions, resources=resources)
    if not isinstance(monitored_assets, str | AssetSelection):
        return MultiAssetSensorEvaluationContext(context, map(AssetKey, monitored_assets))
    if definitions is None:
        raise UsageError("A selection of assets is given without definitions.", remedy="Give definitions=….")
    return MultiAssetSensorEvaluationContext(context, coerce_selection(monitored_assets).resolve(definitions.graph))


def _other_targets(settings: dict[str, Any]) -> tuple[Any, Any, Any]:
    return settings.pop("jobs", None), settings.pop("job_name", None), settings.pop("asset_selection", None)


def _evaluate_several(sensor: SensorDefinition, context: SensorEvaluationContext) -> SensorResult:
    assert sensor.monitored is not None  # its maker gives it
    own = MultiAssetSensorEvaluationContext(context, sensor.monitored.resolve(context.definitions.graph))
    result = result_of(sensor.call(context, own=own), f"sensor `{sensor.name}`")
    if result.cursor is not None:
        raise UserCodeError(
            f"The sensor `{sensor.name}` gives a cursor, and has one for each asset.",
            remedy="Call context.advance_cursor or context.advance_all_cursors.",
        )
    if own.was_advanced:
        context.update_cursor(own.cursor)
    return result


def _one_by_one(
    sensor: SensorDefinition,
    context: SensorEvaluationContext,
    events: Iterable[tuple[int, Materialization | Run | None]],
    nothing: str,
) -> SensorResult:
    """Call a function for one event after the other; where it raises, those before count, and this one comes again."""
    requests: list[RunRequest] = []
    changes: list[PartitionsRequest] = []
    reasons: list[str] = []
    cursor: str | None = None
    calls = 0
    for number, about in events:
        if about is not None:
            try:
                result = _of_one(sensor, context, about)
            except Exception:
                if not calls:
                    raise
                break
            calls += 1
            wanted = result.run_requests or ()
            if calls > 1 and len(requests) + len(wanted) > MAX_REQUESTS:
                break
            requests += wanted
            changes += result.dynamic_partitions_requests or ()
            if isinstance(result.skip_reason, SkipReason):
                reasons.append(result.skip_reason.skip_message)
        cursor = str(number)
    skip = None if requests else SkipReason("; ".join(dict.fromkeys(reasons)) if calls else nothing)
    return SensorResult(run_requests=requests, skip_reason=skip, cursor=cursor, dynamic_partitions_requests=changes)


def _of_one(sensor: SensorDefinition, context: SensorEvaluationContext, about: Materialization | Run) -> SensorResult:
    who = f"sensor `{sensor.name}`"
    if isinstance(about, Materialization):
        result = result_of(sensor.call(context, about), who)
    else:
        own = RunStatusSensorContext(
            run=about,
            sensor_name=sensor.name,
            instance=context.instance,
            log=context.log,
            resources=context.resources,
        )
        result = result_of(sensor.call(context, own=own), who)
    if result.cursor is not None or context.updated_cursor is not None:
        raise UserCodeError(
            f"The {who} gives a cursor: it has one of its own, of what it has seen.", remedy="Leave it out."
        )
    return result


def _materializations(
    catalog: Any, key: AssetKey, cursor: str | None, limit: int
) -> Iterator[tuple[int, Materialization]]:
    """Materializations of an asset that come after a cursor, with their numbers; without one the last that there is."""
    if cursor is None:
        last = catalog.latest([key]).get(key)
        if last is None:
            return
        of_run = catalog.events(asset=key, run_id=last.run_id, kinds=_MADE, limit=None)
        found = [event for event in of_run if event.data["version_id"] == last.version_id]
    else:
        found = catalog.events(asset=key, kinds=_MADE, after=_number(cursor), limit=limit)
    for event in found:
        made = catalog.materialization(event.data["version_id"])
        if made is not None:
            yield event.seq, made


def _runs(catalog: Any, sensor: SensorDefinition, kinds: Sequence[str], after: int) -> Iterator[tuple[int, Run | None]]:
    """The runs that came to a status after a number, with the numbers of those events; None for others' runs."""
    jobs = {one if isinstance(one, str) else one.name for one in sensor.monitored_jobs}
    for event in catalog.events(kinds=kinds, after=after, limit=_AT_ONCE):
        run = None if "late" in event.data else catalog.run(event.run_id)
        is_seen = run is not None and (not jobs or run.job in jobs) and run.tags.get(SENSOR) != sensor.name
        yield event.seq, run if is_seen else None


def _number(cursor: str) -> int:
    try:
        return int(cursor)
    except ValueError:
        raise UserCodeError(
            f"The cursor of this sensor is {cursor!r:.80}, and not the number of an event.",
            remedy="`headwater sensors cursor NAME --reset` has it begin anew.",
        ) from None


def _numbers(cursor: str | None) -> dict[str, int]:
    try:
        found = json.loads(cursor or "{}")
        return {str(key): int(number) for key, number in found.items()}
    except (ValueError, TypeError, AttributeError):
        raise UserCodeError(
            f"The cursor of this sensor is {cursor!r:.80}, and not numbers of events by asset.",
            remedy="`headwater sensors cursor NAME --reset` has it begin anew.",
        ) from None
