"""Recording what was decided of several, each by itself where somebody else decided something meanwhile."""

from collections.abc import Sequence

from headwater.catalog.errors import ConflictError
from headwater.catalog.events import Event
from headwater.catalog.instance import Instance


def record(instance: Instance, decided: Sequence[Sequence[Event]]) -> list[Event]:
    """Append what was decided, of each all or nothing; returns what was recorded. Of what somebody else decided, none.

    It is one transaction unless somebody did.
    """
    events = [event for one in decided for event in one]
    if not events:
        return []
    try:
        instance.catalog.append(events)
        return events
    except ConflictError:
        middle = len(decided) // 2
        return [*record(instance, decided[:middle]), *record(instance, decided[middle:])] if middle else []
