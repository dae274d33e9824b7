"""Facts that are found out by looking: recorded when they are not what they were, each once by whoever is first."""

from collections.abc import Mapping, Sequence
from typing import Any

from headwater.catalog.errors import ConflictError
from headwater.catalog.events import FactChanged
from headwater.catalog.instance import Instance
from headwater.catalog.records import FactTopic


def record(instance: Instance, topic: FactTopic, found: Mapping[str, Mapping[str, Any]]) -> list[FactChanged]:
    """Record which facts have another `state` than they had, and return the events of that."""
    known = instance.catalog.facts(topic, list(found))
    now = instance.clock.now()
    events: list[FactChanged] = []
    for name, value in found.items():
        before = known[name].value if name in known else None
        if before is None or before["state"] != value["state"]:
            said = value["state"] if before is None else f"{before['state']} → {value['state']}"
            events.append(FactChanged(time=now, topic=topic, name=name, value=value, before=before, message=said))
    return append(instance, events)


def append(instance: Instance, events: Sequence[FactChanged]) -> list[FactChanged]:
    """Append all at once; where somebody else found out about one meanwhile, each by itself. Returns what is new."""
    if not events:
        return []
    try:
        instance.catalog.append(events)
        return list(events)
    except ConflictError:
        return [one for event in events for one in append(instance, [event])] if len(events) > 1 else []
