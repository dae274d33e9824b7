"""Whether what goes on by itself is started or stopped."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Protocol

from headwater.catalog.errors import ConflictError
from headwater.catalog.events import AutomationMoved
from headwater.catalog.instance import Instance
from headwater.catalog.processes import this_host, user_name
from headwater.catalog.records import Automation, AutomationStatus

_NEXT = timedelta(microseconds=1)


class Automated(Protocol):
    """The definition of something that goes on by itself, such as a schedule."""

    @property
    def name(self) -> str:
        """No two have the same."""
        ...

    @property
    def default_status(self) -> str:
        """Whether it runs before somebody starts or stops it."""
        ...


def is_running(one: Automated, known: Automation | None) -> bool:
    """Whether it is evaluated; `known` is what the catalog says of it."""
    status = known.status if known is not None else None
    return (status or one.default_status) == AutomationStatus.RUNNING


def move(instance: Instance, name: str, status: AutomationStatus) -> None:
    """Start or stop it. What would have been due until now is not evaluated any more."""
    while True:
        known = instance.catalog.automations().get(name)
        try:
            instance.catalog.append([moved(instance, name, known, status, instance.clock.now())])
            return
        except ConflictError:
            continue


def set_cursor(instance: Instance, name: str, cursor: str | None) -> None:
    """Give a sensor another cursor, or none. What is evaluated right now with the one before counts for nothing."""
    while True:
        known = instance.catalog.automations().get(name)
        until = instance.clock.now()
        if known is not None:
            until = max(until, known.until + _NEXT)  # or else nobody could tell that it was moved
        event = moved(instance, name, known, known.status if known else None, until)
        try:
            instance.catalog.append([replace(event, cursor=cursor)])
            return
        except ConflictError:
            continue


def moved(
    instance: Instance, name: str, known: Automation | None, status: AutomationStatus | None, until: datetime
) -> AutomationMoved:
    """The event of that; what is due until `until` counts as decided. A cursor stays."""
    return AutomationMoved(
        time=instance.clock.now(),
        name=name,
        status=status,
        until=until,
        after=None if known is None else known.until,
        cursor=None if known is None else known.cursor,
        user=user_name(),
        host=this_host(),
    )
