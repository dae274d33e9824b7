"""Schedules: when jobs are run by themselves."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, cast

from headwater.catalog.definitions.due import CatchUp
from headwater.catalog.definitions.job import JobDefinition, check_mapping, check_name, check_tags, one_of
from headwater.catalog.definitions.run_request import MAX_REQUESTS, Requests, RunRequest, SkipReason, call, requests_of
from headwater.catalog.definitions.source import SourceLocation
from headwater.catalog.errors import DefinitionError, UserCodeError, nearest
from headwater.catalog.partitions.cron import normalize_cron
from headwater.catalog.partitions.definition import PartitionsContext
from headwater.catalog.partitions.time_window import TimeWindowPartitionsDefinition
from headwater.catalog.partitions.zone import canonical_zone
from headwater.catalog.printable import with_article

if TYPE_CHECKING:
    from headwater.catalog.partitions.definition import PartitionsDefinition

#: Instants that a schedule catches up with, at most, where it is to do so with all.
MAX_CATCH_UP = 100


class DefaultScheduleStatus(StrEnum):
    """Whether a schedule runs before somebody starts or stops it."""

    RUNNING = "RUNNING"
    STOPPED = "STOPPED"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleEvaluationContext:
    """What a schedule's function is given. `build_schedule_context` makes one for unit tests."""

    #: When it was due, on the clocks of its zone; that may be a while ago.
    scheduled_execution_time: datetime
    schedule_name: str = ""
    #: The `headwater.Instance`; None in unit tests that give none.
    instance: Any = None


def build_schedule_context(scheduled_execution_time: datetime, *, instance: Any = None) -> ScheduleEvaluationContext:
    """A context to call a schedule's function with."""
    return ScheduleEvaluationContext(scheduled_execution_time=scheduled_execution_time, instance=instance)


@dataclass(frozen=True, slots=True, init=False)
class ScheduleDefinition:
    """A job that runs whenever one of its cron expressions is due, on the clocks of `execution_timezone`.

    `job` is a job, or the name of one. Of instants that nobody evaluated in time, for want of a running process, the
    last is evaluated late, with `catch_up` "all" up to `max_catch_up` of them, with "none" none; the others are
    recorded as skipped. `should_execute` is asked each time; `execution_fn` may say which runs are wanted, as the
    function under `@schedule` does. `config` is a run's configuration, in addition to the job's. It is stopped until
    somebody starts it, unless `default_status` says otherwise.

    Raises `CronError`, `TimeZoneError` and `DefinitionError`.
    """

    name: str
    job: JobDefinition | str
    #: Five fields each; none until its job's partitions are known.
    cron_schedule: tuple[str, ...]
    execution_timezone: str
    description: str
    default_status: DefaultScheduleStatus
    catch_up: CatchUp
    max_catch_up: int
    tags: Mapping[str, str]
    config: Mapping[str, Any]
    should_execute: Callable[..., object] | None
    execution_fn: Callable[..., object] | None
    source: SourceLocation = field(compare=False)
    #: Runs are for its job's partitions; those are settled when definitions are loaded.
    of_partitions: "_OfPartitions | None"

    def __init__(
        self,
        job: JobDefinition | str,
        cron_schedule: str | Iterable[str],
        name: str | None = None,
        *,
        description: str = "",
        execution_timezone: str = "UTC",
        default_status: DefaultScheduleStatus | str = DefaultScheduleStatus.STOPPED,
        catch_up: CatchUp | str = CatchUp.LATEST,
        max_catch_up: int = MAX_CATCH_UP,
        tags: Mapping[str, str] | None = None,
        config: Mapping[str, Any] | None = None,
        should_execute: Callable[..., object] | None = None,
        execution_fn: Callable[..., object] | None = None,
    ) -> None:
        source = SourceLocation.of_caller()
        if not isinstance(cast(object, job), JobDefinition | str):
            raise DefinitionError(
                f"{source}: a schedule of {with_article(type(job).__name__)}.", remedy="Give a job, or its name."
            )
        job_name = job if isinstance(job, str) else job.name
        self._set(name=check_name(f"{job_name}_schedule" if name is None else name, "schedule", source))
        place = f"{source}: the schedule `{self.name}`"
        if not isinstance(cast(object, max_catch_up), int) or not 1 <= max_catch_up <= MAX_REQUESTS:
            raise DefinitionError(
                f"{place} has max_catch_up={max_catch_up!r}.", remedy=f"Give a number from 1 to {MAX_REQUESTS}."
            )
        try:
            crons = tuple(dict.fromkeys(map(normalize_cron, _listed(cron_schedule))))
            self._set(
                job=job,
                cron_schedule=crons,
                execution_timezone=canonical_zone(execution_timezone),
                description=description,
                default_status=one_of(DefaultScheduleStatus, default_status, "default_status"),
                catch_up=one_of(CatchUp, catch_up, "catch_up"),
                max_catch_up=max_catch_up,
                tags=check_tags(tags, place),
                config=check_mapping(config, "a config", place),
                should_execute=should_execute,
                execution_fn=execution_fn,
                source=source,
                of_partitions=None,
            )
            self._check_crons()
        except DefinitionError as error:
            if not error.message.startswith(place):
                error.message = f"{place}: {error.message}"
            raise

    def _set(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def _check_crons(self) -> None:
        from headwater.catalog.partitions.series import ticks_of

        for cron in self.cron_schedule:
            ticks_of(cron, self.execution_timezone)

    @property
    def job_name(self) -> str:
        """The name of its job."""
        return self.job if isinstance(self.job, str) else self.job.name

    def settled(self, partitions: "PartitionsDefinition | None") -> "ScheduleDefinition":
        """The same for a job with these partitions. Raises `DefinitionError` where that makes no sense."""
        if self.of_partitions is None:
            return self
        if partitions is None:
            raise DefinitionError(
                f"{self.source}: the schedule `{self.name}` is of the partitions of the job `{self.job_name}`, whose "
                "assets have none, or different ones.",
                remedy="Say which: define_asset_job(…, partitions_def=…).",
            )
        cron, zone = self.of_partitions.cron_and_zone(partitions, f"{self.source}: the schedule `{self.name}`")
        wanted = replace(self.of_partitions, partitions=partitions)
        found = object.__new__(ScheduleDefinition)
        found._set(**{name: getattr(self, name) for name in self.__slots__})  # pyright: ignore
        found._set(of_partitions=wanted, cron_schedule=(cron,), execution_timezone=zone)
        found._check_crons()
        return found

    def evaluate(self, context: ScheduleEvaluationContext) -> Requests:
        """The runs that it wants, or why it wants none. Raises what its functions raise, and `UserCodeError`."""
        if self.should_execute is not None and not call(self.should_execute, context):
            return SkipReason("should_execute said no")
        if self.of_partitions is not None:
            return self.of_partitions.requests(context)
        if self.execution_fn is None:
            return [RunRequest()]
        return requests_of(call(self.execution_fn, context), f"schedule `{self.name}`")

    def __call__(self, *arguments: Any) -> Any:
        """Call its function, for unit tests."""
        if self.execution_fn is None:
            raise UserCodeError(f"The schedule `{self.name}` has no function.", remedy="Decorate one with @schedule.")
        return self.execution_fn(*arguments)


def schedule(
    cron_schedule: str | Iterable[str],
    *,
    job: JobDefinition | str,
    name: str | None = None,
    **settings: Any,
) -> Callable[[Callable[..., object]], ScheduleDefinition]:
    """Make a schedule of a function that says which runs are wanted, each time it is due.

    The function gets a `ScheduleEvaluationContext`, or nothing, and returns or yields `RunRequest`s, or a `SkipReason`,
    or a run's configuration. `settings` are those of `ScheduleDefinition`.
    """

    def define(function: Callable[..., object]) -> ScheduleDefinition:
        own = name or getattr(function, "__name__", "schedule")
        described = settings.pop("description", None) or inspect.getdoc(function) or ""
        return ScheduleDefinition(job, cron_schedule, own, description=described, execution_fn=function, **settings)

    return define


def build_schedule_from_partitioned_job(
    job: JobDefinition,
    name: str | None = None,
    *,
    minute_of_hour: int | None = None,
    hour_of_day: int | None = None,
    day_of_week: int | None = None,
    day_of_month: int | None = None,
    cron_schedule: str | None = None,
    execution_timezone: str | None = None,
    catch_up: CatchUp | str = CatchUp.ALL,
    **settings: Any,
) -> ScheduleDefinition:
    """A schedule that runs a job for each of its partitions: the last window that has ended when it is due.

    It is due when a window of the job's partitions ends, or at another time of that day, week or month. A window that
    was requested is not requested again. All that nobody evaluated in time are caught up with. With static partitions,
    each time there is a run for each; say when with `cron_schedule`, or the time of day. `settings` are those of
    `ScheduleDefinition`. Raises as that does.
    """
    wanted = _OfPartitions(
        minute=minute_of_hour,
        hour=hour_of_day,
        weekday=day_of_week,
        day=day_of_month,
        cron=None if cron_schedule is None else normalize_cron(cron_schedule),
        zone=None if execution_timezone is None else canonical_zone(execution_timezone),
    )
    found = ScheduleDefinition(job, (), name, catch_up=catch_up, **settings)
    found._set(of_partitions=wanted)  # pyright: ignore[reportPrivateUsage]
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _OfPartitions:
    """When a schedule of partitions is due, and which it then wants."""

    minute: int | None
    hour: int | None
    weekday: int | None
    day: int | None
    cron: str | None
    zone: str | None
    partitions: "PartitionsDefinition | None" = None

    def cron_and_zone(self, partitions: "PartitionsDefinition", place: str) -> tuple[str, str]:
        if isinstance(partitions, TimeWindowPartitionsDefinition):
            base, zone = partitions.cron_schedule, self.zone or partitions.timezone
        elif partitions.kind == "static":
            base, zone = "0 0 * * *", self.zone or "UTC"
        else:
            raise DefinitionError(
                f"{place} cannot be of {partitions.describe()}.",
                remedy="It takes windows of time and static keys; write @schedule for others.",
            )
        if self.cron is not None:
            return self.cron, zone
        fields = base.split()
        given = {"minute_of_hour": self.minute, "hour_of_day": self.hour, "day_of_month": self.day}
        places = {name: at for at, name in enumerate(given)} | {"day_of_week": 4}
        for name, value in (given | {"day_of_week": self.weekday}).items():
            if value is None:
                continue
            if fields[places[name]] == "*" and isinstance(partitions, TimeWindowPartitionsDefinition):
                raise DefinitionError(
                    f"{place} has {name}={value}, and would miss windows of '{base}'.",
                    remedy="Leave it out, or give a cron_schedule.",
                )
            fields[places[name]] = str(value)
        return normalize_cron(" ".join(fields)), zone

    def requests(self, context: ScheduleEvaluationContext) -> Requests:
        assert self.partitions is not None  # settled when definitions are loaded
        found = self.partitions.at(PartitionsContext(context.scheduled_execution_time.astimezone(UTC)))
        if not isinstance(self.partitions, TimeWindowPartitionsDefinition):
            return [RunRequest(partition_key=key) for key in found.keys(0, found.count)]
        if not found.count:
            return SkipReason("no window has ended yet")
        (key,) = found.keys(found.count - 1, found.count)
        return [RunRequest(run_key=key, partition_key=key)]


def _listed(crons: str | Iterable[str]) -> list[str]:
    return [crons] if isinstance(crons, str) else list(crons)


def check_schedule(schedule: ScheduleDefinition, jobs: Mapping[str, JobDefinition]) -> None:
    """Raise `DefinitionError` for a schedule of a job that is not there."""
    if schedule.job_name not in jobs:
        raise DefinitionError(
            f"{schedule.source}: the schedule `{schedule.name}` is of the job `{schedule.job_name}`: there is none.",
            remedy=nearest(schedule.job_name, jobs) or "Add it to Definitions(jobs=[…]).",
        )
