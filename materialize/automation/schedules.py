"""Ticks of schedules: instants are decided, and the runs that they request are recorded with them.

What a tick requests is in the queue before anybody carries it out (`launching.launch_waiting`), so that whoever is
killed in between loses nothing. Two who tick at the same time decide each instant once: the catalog refuses the second.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from headwater.catalog.definitions.definitions import Definitions
from headwater.catalog.definitions.due import caught_up, instants, next_after
from headwater.catalog.definitions.run_request import RunRequest, SkipReason
from headwater.catalog.definitions.schedule import ScheduleDefinition, ScheduleEvaluationContext
from headwater.catalog.events import Event, RunQueued, TickEnded
from headwater.catalog.instance import Instance
from headwater.catalog.partitions.zone import load_zone
from headwater.catalog.records import Automation, TickStatus
from headwater.materialize.automation.recording import record
from headwater.materialize.automation.requesting import new_runs, requested_run
from headwater.materialize.automation.standing import is_running, moved
from headwater.materialize.execution.step import describe_failure

#: Tags of requested runs: the schedule, and the instant.
SCHEDULE, AT = "headwater/schedule", "headwater/scheduled_at"
#: Dropped instants that get a tick each; what comes before is one tick together.
MAX_DROPPED = 100
_BEFORE = timedelta(microseconds=1)


def tick(
    instance: Instance, definitions: Definitions, origin: Mapping[str, Any], now: datetime | None = None
) -> list[TickEnded]:
    """Decide every instant at which a schedule was due by `now`, and put the runs that are requested into the queue.

    `origin` is where another process finds the definitions. What user code raises is recorded with its tick.
    """
    moment = now or instance.clock.now()
    known = instance.catalog.automations()
    rounds = [
        _Round(instance, definitions, origin, one, known.get(name)).events(moment)
        for name, one in definitions.schedules.items()
        if is_running(one, known.get(name))
    ]
    return [event for event in record(instance, rounds) if isinstance(event, TickEnded)]


def next_due(definitions: Definitions, known: Mapping[str, Automation]) -> datetime | None:
    """When a schedule is due next that is evaluated, be that over; `known` is what the catalog says of them."""
    found = (
        next_after(one.cron_schedule, one.execution_timezone, known[name].until)
        for name, one in definitions.schedules.items()
        if name in known and is_running(one, known[name])
    )
    return min((due for due in found if due is not None), default=None)


@dataclass(slots=True)
class _Round:
    """What is due of one schedule."""

    instance: Instance
    definitions: Definitions
    origin: Mapping[str, Any]
    schedule: ScheduleDefinition
    known: Automation | None

    def events(self, now: datetime) -> list[Event]:
        schedule, known = self.schedule, self.known
        events: list[Event] = []
        until = known.until if known is not None else None
        never = known is None or (known.until > now and known.until != known.ticked)
        if never:
            # It is seen for the first time, or as of a time before it was started: what is due this very minute counts.
            until = now.replace(second=0, microsecond=0) - _BEFORE
            if known is not None and known.ticked is not None:
                until = max(until, known.ticked)
            events.append(moved(self.instance, schedule.name, known, known.status if known else None, until))
        assert until is not None
        first = next_after(schedule.cron_schedule, schedule.execution_timezone, until)
        if first is None or first > now:
            return events
        second = next_after(schedule.cron_schedule, schedule.execution_timezone, first)
        alone = second is None or second > now
        due = [first] if alone else instants(schedule.cron_schedule, schedule.execution_timezone, until, now)
        dropped, fired = caught_up(due, schedule.catch_up, schedule.max_catch_up, now)
        events += self._dropped(dropped, until)
        after = dropped[-1] if dropped else until
        asked: dict[str, str] = {}
        for at in fired:
            events += self._evaluate(at, after, asked)
            after = at
        return events

    def _dropped(self, dropped: Sequence[datetime], until: datetime) -> list[Event]:
        many = max(0, len(dropped) - MAX_DROPPED)
        found: list[Event] = []
        for number, at in enumerate(dropped[max(0, many - 1) :]):
            together = many if many and not number else 1
            reason = f"nobody evaluated it in time: catch_up is {self.schedule.catch_up}"
            found.append(self._tick(at, until, TickStatus.SKIPPED, reason=reason, instants=together))
            until = at
        return found

    def _tick(self, at: datetime, after: datetime, status: TickStatus, **more: Any) -> TickEnded:
        now = self.instance.clock.now()
        return TickEnded(time=now, name=self.schedule.name, at=at, after=after, status=status, **more)

    def _evaluate(self, at: datetime, after: datetime, asked: dict[str, str]) -> list[Event]:
        """A tick, behind the runs that it requests; `asked` are the run keys of this round so far."""
        context = ScheduleEvaluationContext(
            scheduled_execution_time=at.astimezone(load_zone(self.schedule.execution_timezone)),
            schedule_name=self.schedule.name,
            instance=self.instance,
        )
        try:
            wanted = self.schedule.evaluate(context)
        except Exception as error:
            return [self._failed(at, after, error)]
        if isinstance(wanted, SkipReason):
            return [self._tick(at, after, TickStatus.SKIPPED, reason=wanted.skip_message)]
        try:
            runs, keyed = new_runs(self.instance, self.schedule.name, wanted, lambda one: self._run(one, at), asked)
        except Exception as error:
            return [self._failed(at, after, error)]
        if not runs:
            return [self._tick(at, after, TickStatus.SKIPPED, reason="each of its runs was requested before")]
        asked |= keyed
        made = tuple(run.run_id for run in runs)
        return [*runs, self._tick(at, after, TickStatus.SUCCESS, run_ids=made, run_keys=keyed)]

    def _failed(self, at: datetime, after: datetime, error: Exception) -> TickEnded:
        return self._tick(at, after, TickStatus.FAILURE, error=describe_failure(error).error)

    def _run(self, request: RunRequest, at: datetime) -> RunQueued:
        schedule = self.schedule
        return requested_run(
            self.instance,
            self.definitions,
            self.origin,
            request,
            job=self.definitions.job(request.job_name or schedule.job_name),
            config=schedule.config,
            tags=schedule.tags,
            about={SCHEDULE: schedule.name, AT: at.isoformat()},
        )
