"""One round of everything that goes on by itself."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from threading import Thread
from typing import Any

from headwater.catalog.definitions.definitions import Definitions
from headwater.catalog.events import FactChanged, TickEnded
from headwater.catalog.instance import Instance
from headwater.materialize.automation import alerts, freshness, observing, schedules, sensors
from headwater.materialize.automation.backfills import resume_dead
from headwater.materialize.automation.conditions import tick as conditions
from headwater.materialize.automation.delivery import deliver
from headwater.materialize.automation.evaluators import Evaluators
from headwater.materialize.launching import Started, due_retries, lately_interrupted, launch_waiting, relaunch
from headwater.materialize.monitoring import recover


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What a round did."""

    ticks: list[TickEnded]
    #: Assets whose freshness changed.
    freshness: list[FactChanged]
    #: Runs out of the queue for which a process was started.
    launched: list[str]
    #: Runs that try again what others did not finish.
    retried: list[str]
    #: Backfills whose process died, and for which another one was started.
    resumed: list[str]
    #: When something is due next; None where nothing is, until somebody starts a schedule.
    due: datetime | None
    #: Alerts that were raised.
    alerts: list[FactChanged]
    #: Threads that deliver alerts; nobody has to wait for them.
    deliveries: list[Thread]


def go_round(
    instance: Instance,
    definitions: Definitions,
    origin: Mapping[str, Any],
    now: datetime | None = None,
    *,
    evaluators: Evaluators | None = None,
    started: Started | None = None,
    anew: bool = True,
) -> Round:
    """Settle what dead processes left, evaluate all that is due by `now`, and start processes for what may begin.

    Each part is durable before the next begins: whoever comes after a kill goes on where it was. Any number may do so
    at the same time. `origin` is where another process finds the definitions (`Project.origin`). Who goes round again
    and again keeps `evaluators` of the same definitions open (`open_evaluators`): sensors that take their time are then
    left to them until a later round; and gives the processes that rounds before this one `started`. `anew` has it look
    for what a round that was killed left undone.
    """
    started = Started(instance.clock) if started is None else started
    over = [run for run in map(instance.catalog.run, recover(instance, definitions)) if run is not None]
    if anew:
        known = {run.run_id for run in over}
        over += [run for run in lately_interrupted(instance) if run.run_id not in known]
    retried = [relaunch(instance, run) for run in due_retries(instance, over)]
    ticks = schedules.tick(instance, definitions, origin, now)
    ticks += sensors.tick(instance, definitions, origin, now, evaluators)
    ticks += observing.tick(instance, definitions, origin, now)
    ticks += conditions.tick(instance, definitions, origin, now)
    aged = freshness.look(instance, definitions.graph, now)
    freshness.look_for_staleness(instance, definitions, now)
    raised: list[FactChanged] = []
    deliveries: list[Thread] = []
    if alerts.is_time(instance, definitions):
        raised = alerts.raise_alerts(instance, definitions)
        deliveries = deliver(instance, definitions)
    launched = launch_waiting(instance, started)
    resumed = resume_dead(instance, definitions, origin, started)
    standing = instance.catalog.automations()
    due = (
        schedules.next_due(definitions, standing),
        sensors.next_due(definitions, standing, now or instance.clock.now(), evaluators),
    )
    return Round(
        ticks=ticks,
        freshness=aged,
        alerts=raised,
        deliveries=deliveries,
        launched=launched,
        retried=retried,
        resumed=resumed,
        due=min((at for at in due if at is not None), default=None),
    )
