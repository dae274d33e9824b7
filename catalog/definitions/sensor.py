"""Sensors: functions that look at the world every now and then and say which runs that takes."""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import islice
from types import SimpleNamespace
from typing import Any, cast

from headwater.catalog.definitions.job import (
    JobDefinition,
    check_name,
    check_tags,
    define_asset_job,
    one_of,
)
from headwater.catalog.definitions.resource import is_resource_annotation
from headwater.catalog.definitions.run_request import RunRequest, SkipReason, requests_of
from headwater.catalog.definitions.schedule import DefaultScheduleStatus
from headwater.catalog.definitions.selection import AssetSelection, coerce_selection
from headwater.catalog.definitions.signature import evaluate_annotation
from headwater.catalog.definitions.source import SourceLocation
from headwater.catalog.errors import DefinitionError, HeadwaterError, MissingResourceError, UserCodeError, nearest
from headwater.catalog.partitions.dynamic import AddDynamicPartitionsRequest, DeleteDynamicPartitionsRequest
from headwater.catalog.printable import with_article

#: Seconds between two evaluations at least, and that one may take at most.
MINIMUM_INTERVAL, TIMEOUT = 30.0, 60.0
#: Runs that a sensor may ask for in one go; those that were requested before do not count as requested.
MAX_ASKED = 100_000
#: Characters that a cursor may have.
MAX_CURSOR = 1 << 18

#: Whether a sensor runs before somebody starts or stops it.
DefaultSensorStatus = DefaultScheduleStatus

PartitionsRequest = AddDynamicPartitionsRequest | DeleteDynamicPartitionsRequest


@dataclass(frozen=True, slots=True)
class SensorResult:
    """What a sensor's function may answer: all of it is recorded together, or nothing.

    `cursor` is what `context.cursor` is the next time; None leaves it. Raises `UserCodeError` for runs and a reason
    to skip at once.
    """

    run_requests: Sequence[RunRequest] | None = None
    skip_reason: SkipReason | str | None = None
    cursor: str | None = None
    dynamic_partitions_requests: Sequence[PartitionsRequest] | None = None

    def __post_init__(self) -> None:
        if self.run_requests and self.skip_reason is not None:
            raise UserCodeError(
                "A SensorResult both requests runs and gives a reason to skip.", remedy="Give one of them."
            )


class SensorEvaluationContext:
    """What a sensor's function is given. `build_sensor_context` makes one for unit tests."""

    def __init__(
        self,
        *,
        sensor_name: str = "",
        cursor: str | None = None,
        last_run_key: str | None = None,
        last_tick_completion_time: datetime | None = None,
        is_first_tick_since_sensor_start: bool = True,
        instance: Any = None,
        open_instance: Callable[[], Any] | None = None,
        definitions: Any = None,
        resources: Mapping[str, Any] | None = None,
    ) -> None:
        self.sensor_name = sensor_name
        #: The last run key that it requested.
        self.last_run_key = last_run_key
        #: When its last tick was recorded.
        self.last_tick_completion_time = last_tick_completion_time
        #: Whether somebody started it, or gave it another cursor, since its last tick.
        self.is_first_tick_since_sensor_start = is_first_tick_since_sensor_start
        #: The project's `Definitions`; None in unit tests that give none.
        self.definitions = definitions
        #: What it logs is kept with what it prints.
        import logging  # not where definitions are only listed

        self.log = logging.getLogger(f"headwater.sensors.{sensor_name or 'test'}")
        #: The resources that it asked for, as attributes.
        self.resources = SimpleNamespace(**(resources or {}))
        self._cursor = cursor
        self._updated = False
        self._instance = instance
        self._open_instance = open_instance

    @property
    def cursor(self) -> str | None:
        """What it last updated its cursor to; None at the first time."""
        return self._cursor

    def update_cursor(self, cursor: str | None) -> None:
        """Have `cursor` be this from the next evaluation on, once this one is recorded. None leaves what it was."""
        self._cursor, self._updated = cursor, True

    @property
    def updated_cursor(self) -> str | None:
        """What it was updated to; None where it was not."""
        return self._cursor if self._updated else None

    @property
    def instance(self) -> Any:
        """The `headwater.Instance`, opened when it is first asked for; None in unit tests that give none."""
        if self._instance is None and self._open_instance is not None:
            self._instance = self._open_instance()
        return self._instance


def build_sensor_context(
    *,
    cursor: str | None = None,
    last_run_key: str | None = None,
    last_tick_completion_time: datetime | None = None,
    instance: Any = None,
    definitions: Any = None,
    resources: Mapping[str, Any] | None = None,
    sensor_name: str = "",
) -> SensorEvaluationContext:
    """A context to call a sensor's function with."""
    return SensorEvaluationContext(
        sensor_name=sensor_name,
        cursor=cursor,
        last_run_key=last_run_key,
        last_tick_completion_time=last_tick_completion_time,
        instance=instance,
        definitions=definitions,
        resources=resources,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SensorDefinition:
    """A function that is called again and again, and the jobs of which it requests runs. `@sensor` makes one.

    It is called `minimum_interval_seconds` after its last evaluation at the earliest, in a process of its own; one
    that takes longer than `timeout_seconds` is killed. It is stopped until somebody starts it, unless `default_status`
    says otherwise.
    """

    name: str
    #: Those that a request means which names no other: of several, it has to name one.
    jobs: tuple[JobDefinition | str, ...] = ()
    minimum_interval_seconds: float = MINIMUM_INTERVAL
    timeout_seconds: float = TIMEOUT
    description: str = ""
    default_status: DefaultScheduleStatus = DefaultScheduleStatus.STOPPED
    #: What all of its runs have.
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    #: The assets that it watches, where it does.
    monitored: AssetSelection | None = None
    #: The jobs whose runs it watches, by name; none for all.
    monitored_jobs: tuple[JobDefinition | str, ...] = ()
    #: What the decorated function is.
    function: Callable[..., object]
    #: Calls it, and turns what it answers into a result.
    evaluation_fn: Callable[["SensorDefinition", SensorEvaluationContext], SensorResult]
    #: Parameter → name of the resource that fills it.
    resources: Mapping[str, str] = field(default_factory=dict[str, str])
    required_resource_keys: frozenset[str] = frozenset()
    source: SourceLocation = field(compare=False)

    @property
    def job_names(self) -> tuple[str, ...]:
        """The names of its jobs."""
        return tuple(one if isinstance(one, str) else one.name for one in self.jobs)

    @property
    def resource_names(self) -> frozenset[str]:
        """Every resource that it uses."""
        return self.required_resource_keys.union(self.resources.values())

    def job_of(self, request: RunRequest) -> str:
        """The name of the job that a request means. Raises `UserCodeError` where that is not clear."""
        if request.job_name is not None:
            return request.job_name
        if len(self.jobs) != 1:
            raise UserCodeError(
                f"The sensor `{self.name}` requests a run, and has {len(self.jobs) or 'no'} jobs.",
                remedy="Say which: RunRequest(job_name=…).",
            )
        return self.job_names[0]

    def call(self, context: SensorEvaluationContext, *more: object, own: object = None) -> object:
        """Call the function, with as many of the context and `more` as it has parameters, and with its resources.

        `own` is the context that it gets, where that is another one.
        """
        given = {parameter: getattr(context.resources, name) for parameter, name in self.resources.items()}
        parameters = [name for name in _parameters(self.function) if name not in given]
        return self.function(*(own or context, *more)[: len(parameters)], **given)

    def evaluate(self, context: SensorEvaluationContext) -> SensorResult:
        """What it wants. Raises what its function raises, and `UserCodeError`."""
        result = self.evaluation_fn(self, context)
        cursor = context.updated_cursor if result.cursor is None else result.cursor
        if cursor is not None and (not isinstance(cast(object, cursor), str) or len(cursor) > MAX_CURSOR):
            kind = with_article(type(cast(object, cursor)).__name__)
            what = f"{len(cursor):,} characters" if isinstance(cast(object, cursor), str) else kind
            raise UserCodeError(
                f"The cursor of the sensor `{self.name}` is {what}.",
                remedy=f"It is a text of at most {MAX_CURSOR:,} characters; keep more elsewhere.",
            )
        return replace(result, cursor=cursor)

    def __call__(self, *arguments: Any, **resources: Any) -> Any:
        """Call its function, for unit tests."""
        return self.function(*arguments, **resources)


def result_of(value: object, who: str) -> SensorResult:
    """What a sensor's function gave, as a result in which every part is what it says. Raises `UserCodeError`."""
    given = value
    if isinstance(value, Iterable) and not isinstance(value, Mapping | str | bytes):
        found = list(islice(cast(Iterable[object], value), MAX_ASKED + 1))
        given = found[0] if len(found) == 1 else found
    if not isinstance(given, SensorResult):
        wanted = requests_of(given, who, MAX_ASKED)
        if isinstance(wanted, SkipReason):
            return SensorResult(skip_reason=wanted)
        return SensorResult(run_requests=wanted)
    requests = list(given.run_requests or ())
    wanted = requests_of(requests, who, MAX_ASKED) if requests else ()
    changes = tuple(given.dynamic_partitions_requests or ())
    for one in changes:
        if not isinstance(cast(object, one), PartitionsRequest):
            raise UserCodeError(
                f"The {who} changes dynamic partitions by {with_article(type(cast(object, one)).__name__)}.",
                remedy="Give what build_add_request and build_delete_request make.",
            )
    skip = given.skip_reason if isinstance(given.skip_reason, SkipReason | None) else SkipReason(given.skip_reason)
    if not requests and skip is None:
        skip = SkipReason("its function requested no runs")
    if isinstance(wanted, SkipReason):
        return replace(given, run_requests=(), skip_reason=wanted, dynamic_partitions_requests=changes)
    return replace(given, run_requests=wanted, skip_reason=skip, dynamic_partitions_requests=changes)


def call_once(sensor: SensorDefinition, context: SensorEvaluationContext) -> SensorResult:
    """Evaluate a sensor whose function says it all."""
    return result_of(sensor.call(context), f"sensor `{sensor.name}`")


def sensor(
    job: JobDefinition | str | None = None,
    *,
    jobs: Sequence[JobDefinition | str] | None = None,
    job_name: str | None = None,
    asset_selection: Any = None,
    name: str | None = None,
    **settings: Any,
) -> Callable[[Callable[..., object]], SensorDefinition]:
    """Make a sensor of a function that looks whether something is to run.

    The function gets a `SensorEvaluationContext`, if it wants one, and the resources that its other parameters are
    annotated with. It returns or yields `RunRequest`s, or a `SkipReason`, or a `SensorResult`, or nothing. Requests
    mean `job`, or the only one of `jobs`, unless they name another; with an `asset_selection`, a job of these assets
    that is called after the sensor. `settings` are `minimum_interval_seconds` (30), `timeout_seconds` (60),
    `description`, `default_status`, `tags` and `required_resource_keys`.

    `Definitions(sensors=[…])` takes it. Raises `DefinitionError`.
    """

    def define(function: Callable[..., object]) -> SensorDefinition:
        own = name or getattr(function, "__name__", "sensor")
        targets = targets_of(own, job, jobs, job_name, asset_selection)
        return make_sensor(own, function, call_once, parameters=1, jobs=targets, **settings)

    return define


def targets_of(
    own: str,
    job: JobDefinition | str | None,
    jobs: Sequence[JobDefinition | str] | None,
    job_name: str | None,
    asset_selection: Any,
) -> tuple[JobDefinition | str, ...]:
    """The jobs of a sensor called `own`. Raises `DefinitionError` for more than one way of giving them."""
    source = SourceLocation.of_caller()
    given = [one for one in (job, jobs, job_name, asset_selection) if one is not None]
    if len(given) > 1:
        raise DefinitionError(
            f"{source}: the sensor `{own}` has several of job, jobs, job_name and asset_selection.",
            remedy="Keep one of them.",
        )
    if asset_selection is not None:
        return (define_asset_job(f"{own}_job", asset_selection),)
    found = tuple(jobs) if jobs is not None else (job or job_name,) if job or job_name else ()
    for one in found:
        if not isinstance(one, JobDefinition | str):
            raise DefinitionError(
                f"{source}: the sensor `{own}` is of {with_article(type(cast(object, one)).__name__)}.",
                remedy="Give a job, or its name.",
            )
    return cast(tuple[JobDefinition | str, ...], found)


def make_sensor(
    name: str,
    function: Callable[..., object],
    evaluation_fn: Callable[[SensorDefinition, SensorEvaluationContext], SensorResult],
    *,
    parameters: int,
    minimum_interval_seconds: float = MINIMUM_INTERVAL,
    timeout_seconds: float = TIMEOUT,
    description: str | None = None,
    default_status: DefaultScheduleStatus | str = DefaultScheduleStatus.STOPPED,
    tags: Mapping[str, str] | None = None,
    required_resource_keys: Iterable[str] = (),
    monitored: Any = None,
    jobs: tuple[JobDefinition | str, ...] = (),
    monitored_jobs: tuple[JobDefinition | str, ...] = (),
) -> SensorDefinition:
    """A sensor of a function with at most so many `parameters` beside its resources. Raises `DefinitionError`."""
    source = SourceLocation.of_caller()
    check_name(name, "sensor", source)
    place = f"{source}: the sensor `{name}`"
    for what, seconds in (("minimum_interval_seconds", minimum_interval_seconds), ("timeout_seconds", timeout_seconds)):
        if not isinstance(cast(object, seconds), int | float) or not 0 < seconds < 1e9:
            raise DefinitionError(f"{place} has {what}={seconds!r}.", remedy="Give a number of seconds above 0.")
    if inspect.iscoroutinefunction(function) or not callable(function):
        raise DefinitionError(f"{place} is made of something that cannot be called.", remedy="Decorate a function.")
    resources = _resources_of(function)
    others = [one for one in _parameters(function) if one not in resources]
    if len(others) > parameters:
        raise DefinitionError(
            f"{place} has the parameters {', '.join(others)}, and fills {parameters} besides resources.",
            remedy="Annotate resources with their class, or ResourceParam[…].",
        )
    try:
        return SensorDefinition(
            name=name,
            jobs=jobs,
            minimum_interval_seconds=float(minimum_interval_seconds),
            timeout_seconds=float(timeout_seconds),
            description=(inspect.getdoc(function) or "") if description is None else description,
            default_status=one_of(DefaultSensorStatus, default_status, "default_status"),
            tags=check_tags(tags, place),
            monitored=None if monitored is None else coerce_selection(monitored),
            monitored_jobs=monitored_jobs,
            function=function,
            evaluation_fn=evaluation_fn,
            resources=resources,
            required_resource_keys=frozenset(required_resource_keys),
            source=source,
        )
    except HeadwaterError as error:
        if error.message.startswith(place):
            raise
        raise DefinitionError(f"{place}: {error.message}", remedy=error.remedy) from None


def _parameters(function: Callable[..., object]) -> list[str]:
    """The names of the parameters that have no value by themselves."""
    try:
        found = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return ["context"]
    empty = inspect.Parameter.empty
    return [one.name for one in found if one.default is empty and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)]


def _resources_of(function: Callable[..., object]) -> dict[str, str]:
    annotations: dict[str, Any] = getattr(function, "__annotations__", {})
    return {
        name: name
        for name, one in annotations.items()
        if name != "return" and is_resource_annotation(evaluate_annotation(one, cast(Any, function)))
    }


def check_sensor(
    sensor: SensorDefinition, jobs: Mapping[str, JobDefinition], resources: Mapping[str, Any], graph: Any
) -> None:
    """Raise `DefinitionError` for a sensor of a job, of assets or of a resource that is not there."""
    place = f"{sensor.source}: the sensor `{sensor.name}`"
    watched = (one if isinstance(one, str) else one.name for one in sensor.monitored_jobs)
    for name in (*sensor.job_names, *watched):
        if name not in jobs:
            raise DefinitionError(
                f"{place} is of the job `{name}`: there is none.",
                remedy=nearest(name, jobs) or "Add it to Definitions(jobs=[…]).",
            )
    for name in sorted(sensor.resource_names - resources.keys()):
        raise MissingResourceError(
            f"{place} needs the resource `{name}`; nobody provides it.",
            remedy=nearest(name, resources) or "Add it to Definitions(resources={…}).",
        )
    if sensor.monitored is not None:
        try:
            sensor.monitored.resolve(graph)
        except HeadwaterError as error:
            raise DefinitionError(f"{place}: {error.message}", remedy=error.remedy) from None
