"""One round of everything that goes on by itself."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from headwater.catalog.definitions.definitions import Definitions
from headwater.catalog.events import TickEnded
from headwater.catalog.instance import Instance
from headwater.materialize.automation import schedules
from headwater.materialize.automation.conditions import tick as conditions
from headwater.materialize.launching import due_retries, launch_waiting, relaunch
from headwater.materialize.monitoring import recover


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What a round did."""

    ticks: list[TickEnded]
    #: Runs out of the queue for which a process was started.
    launched: list[str]
    #: Runs that try again what others did not finish.
    retried: list[str]


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
    ticks += conditions.tick(instance, definitions, origin, now)
    return Round(ticks=ticks, launched=launch_waiting(instance), retried=retried)
