"""Whether what goes on by itself is started or stopped."""

from datetime import datetime
from typing import Protocol

from headwater.catalog.errors import ConflictError
from headwater.catalog.events import AutomationMoved
from headwater.catalog.instance import Instance
from headwater.catalog.processes import this_host, user_name
from headwater.catalog.records import Automation, AutomationStatus


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


def moved(
    instance: Instance, name: str, known: Automation | None, status: AutomationStatus | None, until: datetime
) -> AutomationMoved:
    """The event of that; what is due until `until` counts as decided."""
    return AutomationMoved(
        time=instance.clock.now(),
        name=name,
        status=status,
        until=until,
        after=None if known is None else known.until,
        user=user_name(),
        host=this_host(),
    )
