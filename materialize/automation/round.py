"""One round of everything that goes on by itself."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from threading import Thread
from typing import Any

from headwater.catalog.definitions.definitions import Definitions
from headwater.catalog.events import FactChanged, TickEnded
from headwater.catalog.instance import Instance
from headwater.materialize.automation import alerts, freshness, observing, schedules
from headwater.materialize.automation.delivery import deliver
from headwater.materialize.launching import due_retries, launch_waiting, relaunch
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
    #: Alerts that were raised.
    alerts: list[FactChanged]
    #: Threads that deliver alerts; nobody has to wait for them.
    deliveries: list[Thread]


def go_round(
    instance: Instance, definitions: Definitions, origin: Mapping[str, Any], now: datetime | None = None
) -> Round:
    """Settle what dead processes left, evaluate all that is due by `now`, and start processes for what may begin.

    Each part is durable before the next begins: whoever comes after a kill goes on where it was. Any number may do so
    at the same time. `origin` is where another process finds the definitions (`Project.origin`).
    """
    over = [run for run in map(instance.catalog.run, recover(instance, definitions)) if run is not None]
    retried = [relaunch(instance, run) for run in due_retries(instance, over)]
    ticks = schedules.tick(instance, definitions, origin, now)
    ticks += observing.tick(instance, definitions, origin, now)
    aged = freshness.look(instance, definitions.graph, now)
    freshness.look_for_staleness(instance, definitions, now)
    raised: list[FactChanged] = []
    deliveries: list[Thread] = []
    if alerts.is_time(instance, definitions):
        raised = alerts.raise_alerts(instance, definitions)
        deliveries = deliver(instance, definitions)
    return Round(
        ticks=ticks,
        freshness=aged,
        alerts=raised,
        deliveries=deliveries,
        launched=launch_waiting(instance),
        retried=retried,
    )
