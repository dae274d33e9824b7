"""Ticks of sensors: what they want is recorded together with their cursor, the tick and the runs, or nothing of it is.

Of two who evaluate a sensor at the same time, the catalog refuses the second, as it does when somebody stops it or
sets its cursor meanwhile.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from headwater.catalog.definitions.definitions import Definitions
from headwater.catalog.definitions.event_sensors import SENSOR
from headwater.catalog.definitions.run_request import MAX_REQUESTS, RunRequest
from headwater.catalog.definitions.sensor import SensorDefinition
from headwater.catalog.errors import UserCodeError
from headwater.catalog.events import DynamicPartitionsChanged, Event, RunQueued, TickEnded
from headwater.catalog.instance import Instance
from headwater.catalog.records import Automation, ErrorRecord, TickStatus
from headwater.materialize.automation.evaluation import Evaluated, Evaluation
from headwater.materialize.automation.evaluators import Due, Evaluators, open_evaluators
from headwater.materialize.automation.recording import record
from headwater.materialize.automation.requesting import new_runs, requested_run
from headwater.materialize.automation.sensor_logs import keep_printed
from headwater.materialize.automation.standing import is_running, moved
from headwater.materialize.execution.step import describe_failure

#: A sensor that fails is evaluated after twice as many seconds each time, in the end once in so many.
MAX_DELAY = 3600.0
#: One that failed so often in a row is not evaluated until somebody starts it again.
MAX_FAILURES = 20
#: Seconds that a round waits for evaluations which others may ask about later.
PATIENCE = 0.2
_NEXT = timedelta(microseconds=1)


def is_paused(known: Automation | None) -> bool:
    """Whether a sensor failed so often that it is not evaluated any more, until somebody starts it."""
    return known is not None and known.failures >= MAX_FAILURES


def next_evaluation(sensor: SensorDefinition, known: Automation | None) -> datetime | None:
    """When a sensor that runs is due; None for at once."""
    if known is None or known.until != known.ticked:  # it was never evaluated, or somebody moved it since
        return None
    interval = sensor.minimum_interval_seconds
    return known.until + timedelta(seconds=max(interval, min(interval * 2**known.failures, MAX_DELAY)))


def next_due(
    definitions: Definitions, standing: Mapping[str, Automation], now: datetime, evaluators: Evaluators | None
) -> datetime | None:
    """When a sensor is due next that is evaluated and not under way; `standing` is what the catalog says of them.

    In whole seconds, so that of a thousand sensors many are evaluated together.
    """
    found = [
        next_evaluation(sensor, standing.get(name)) or now
        for name, sensor in definitions.sensors.items()
        if is_running(sensor, standing.get(name))
        and not is_paused(standing.get(name))
        and not (evaluators is not None and name in evaluators.under_way)
    ]
    first = min(found, default=None)
    return first if first is None or first <= now else first.replace(microsecond=0) + timedelta(seconds=1)


def evaluation_of(sensor: SensorDefinition, known: Automation | None) -> Evaluation:
    """What evaluating a sensor takes."""
    if known is None:
        return Evaluation(sensor=sensor.name)
    return Evaluation(
        sensor=sensor.name,
        cursor=known.cursor,
        last_run_key=known.last_run_key,
        last_tick_completion_time=known.ticked,
        is_first_tick_since_sensor_start=known.until != known.ticked,
    )


def tick(
    instance: Instance,
    definitions: Definitions,
    origin: Mapping[str, Any],
    now: datetime | None = None,
    evaluators: Evaluators | None = None,
) -> list[TickEnded]:
    """Evaluate the sensors that are due by `now`, and put the runs that they request into the queue.

    With `evaluators`, of the same definitions, what takes longer than a moment is left to them, and recorded in a
    later round; else processes are started for this round, which waits for all. `origin` is where another process
    finds the definitions. What user code raises is recorded with its tick.
    """
    moment = now or instance.clock.now()
    due = _due(instance, definitions, moment, evaluators)
    if evaluators is not None:
        for one in due:
            evaluators.submit(one)
        return _record(instance, definitions, origin, evaluators, PATIENCE)
    if not due:
        return []
    with open_evaluators(instance, definitions) as own:
        for one in due:
            own.submit(one)
        ticks = _record(instance, definitions, origin, own, PATIENCE)
        while own.under_way:
            ticks += _record(instance, definitions, origin, own, PATIENCE)
    return ticks


def preview(
    instance: Instance, definitions: Definitions, sensor: SensorDefinition, cursor: str | None = None
) -> Evaluated:
    """What a sensor would want now, with the cursor that is recorded or another; nothing is recorded."""
    known = instance.catalog.automations().get(sensor.name)
    wanted = evaluation_of(sensor, known)
    if cursor is not None:
        wanted = replace(wanted, cursor=cursor)
    with open_evaluators(instance, definitions) as evaluators:
        evaluators.submit(Due(wanted=wanted, known=known, at=instance.clock.now(), timeout=sensor.timeout_seconds))
        while True:
            for _, done in evaluators.take(PATIENCE):
                return done


def _due(instance: Instance, definitions: Definitions, now: datetime, evaluators: Evaluators | None) -> list[Due]:
    if not definitions.sensors:
        return []
    standing = instance.catalog.automations()
    found: list[Due] = []
    for name, sensor in definitions.sensors.items():
        known = standing.get(name)
        if not is_running(sensor, known) or is_paused(known):
            continue
        if evaluators is not None and name in evaluators.under_way:
            continue
        at = next_evaluation(sensor, known)
        if at is not None and known is not None:
            if known.until <= now < at:
                continue
            # The clock went back behind its last tick: how long that is ago, only the evaluators know.
            if known.until > now and evaluators is not None and not evaluators.has_rested(sensor):
                continue
        found.append(
            Due(
                wanted=evaluation_of(sensor, known),
                known=known,
                at=now if known is None else max(now, known.until + _NEXT),
                timeout=sensor.timeout_seconds,
            )
        )
    return found


def _record(
    instance: Instance, definitions: Definitions, origin: Mapping[str, Any], evaluators: Evaluators, seconds: float
) -> list[TickEnded]:
    decided: list[list[Event]] = []
    for due, done in evaluators.take(seconds):
        sensor = definitions.sensors.get(due.wanted.sensor)
        if sensor is None:  # the definitions are not those of the evaluators any more
            continue
        decided.append(_Decision(instance, definitions, origin, sensor, due, done).events())
        if done.printed:
            keep_printed(instance.home, sensor.name, instance.clock.now(), done.printed)
    return [event for event in record(instance, decided) if isinstance(event, TickEnded)]


class _Decision:
    """What comes of one evaluation."""

    def __init__(
        self,
        instance: Instance,
        definitions: Definitions,
        origin: Mapping[str, Any],
        sensor: SensorDefinition,
        due: Due,
        done: Evaluated,
    ) -> None:
        self.instance, self.definitions, self.origin = instance, definitions, origin
        self.sensor, self.due, self.done = sensor, due, done

    def events(self) -> list[Event]:
        """The tick, behind the runs that it requests; before them that it is seen, at the first time."""
        due, now = self.due, self.instance.clock.now()
        seen: list[Event] = []
        if due.known is None:
            seen.append(moved(self.instance, self.sensor.name, None, None, due.at - _NEXT))
        if self.done.error is not None:
            return [*seen, self._failed(self.done.error)]
        try:
            return [*seen, *self._changes(now), *self._requested()]
        except Exception as error:
            return [*seen, self._failed(describe_failure(error).error)]

    def _changes(self, now: datetime) -> list[Event]:
        return [
            DynamicPartitionsChanged(time=now, name=one.name, added=one.added, deleted=one.deleted)
            for one in self.done.changes
            if one.added or one.deleted
        ]

    def _requested(self) -> list[Event]:
        done = self.done
        if not done.requests:
            return [self._tick(TickStatus.SKIPPED, reason=done.reason, cursor=done.cursor)]
        is_keyed = all(one.run_key is not None for one in done.requests)
        if len(done.requests) > MAX_REQUESTS and not is_keyed:
            raise UserCodeError(
                f"The sensor `{self.sensor.name}` requests {len(done.requests):,} runs at once.",
                remedy=f"{MAX_REQUESTS:,} at most; with run keys, those that were not requested before count.",
            )
        name = self.sensor.name
        runs, keys = new_runs(self.instance, name, done.requests, self._run, most=MAX_REQUESTS)
        if not runs:
            reason = "each of its runs was requested before"
            return [self._tick(TickStatus.SKIPPED, reason=reason, cursor=done.cursor)]
        made = tuple(run.run_id for run in runs)
        if len(runs) < MAX_REQUESTS:
            return [*runs, self._tick(TickStatus.SUCCESS, run_ids=made, run_keys=keys, cursor=done.cursor)]
        # There may be more of them: it is asked again, with the same cursor.
        reason = f"{MAX_REQUESTS:,} runs at once: others come with the next tick"
        return [*runs, self._tick(TickStatus.SUCCESS, run_ids=made, run_keys=keys, reason=reason)]

    def _failed(self, error: ErrorRecord) -> TickEnded:
        return self._tick(TickStatus.FAILURE, error=error)

    def _tick(self, status: TickStatus, **more: Any) -> TickEnded:
        due = self.due
        return TickEnded(
            time=self.instance.clock.now(),
            name=self.sensor.name,
            at=due.at,
            after=due.at - _NEXT if due.known is None else due.known.until,
            status=status,
            **more,
        )

    def _run(self, request: RunRequest) -> RunQueued:
        assert request.job_name is not None  # whoever evaluated it said which it means
        return requested_run(
            self.instance,
            self.definitions,
            self.origin,
            request,
            job=self.definitions.job(request.job_name),
            config={},
            tags=self.sensor.tags,
            about={SENSOR: self.sensor.name},
        )
