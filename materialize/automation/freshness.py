"""When an asset's freshness changes, an event says so: found out by looking, as time alone may change it."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from headwater.catalog.errors import ConflictError
from headwater.catalog.events import FactChanged
from headwater.catalog.instance import Instance
from headwater.catalog.records import FactTopic
from headwater.materialize.freshness import freshness_of

if TYPE_CHECKING:
    from headwater.catalog.freshness import Freshness
    from headwater.catalog.lineage.asset_graph import AssetGraph

#: How often a process looks: policies count in minutes.
EVERY = timedelta(seconds=30)
_looked: WeakKeyDictionary[Instance, datetime] = WeakKeyDictionary()


def look(instance: Instance, graph: "AssetGraph", now: datetime | None = None) -> list[FactChanged]:
    """Record whose freshness is not what it was when somebody last looked, and return the events of that."""
    keys = [node.key for node in graph if node.freshness is not None]
    moment = now or instance.clock.now()
    if not keys or timedelta() <= moment - _looked.get(instance, datetime.min.replace(tzinfo=moment.tzinfo)) < EVERY:
        return []
    found = freshness_of(graph, instance.catalog, keys, moment)
    known = instance.catalog.facts(FactTopic.FRESHNESS, [str(key) for key in keys])
    events: list[FactChanged] = []
    for key, one in found.items():
        before = known.get(str(key))
        if before is None or before.value["state"] != one.state:
            events.append(
                FactChanged(
                    time=instance.clock.now(),
                    topic=FactTopic.FRESHNESS,
                    name=str(key),
                    value=_described(one),
                    before=None if before is None else before.value,
                    message=str(one.state) if before is None else f"{before.value['state']} → {one.state}",
                )
            )
    _looked[instance] = moment
    return _append(instance, events)


def _described(one: "Freshness") -> dict[str, str | None]:
    times = {"updated": one.updated, "warns_at": one.warns_at, "fails_at": one.fails_at}
    return {"state": str(one.state)} | {name: time and time.isoformat() for name, time in times.items()}


def _append(instance: Instance, events: Sequence[FactChanged]) -> list[FactChanged]:
    """Append all at once; where somebody else found out about one meanwhile, each by itself."""
    if not events:
        return []
    try:
        instance.catalog.append(events)
        return list(events)
    except ConflictError:
        return [one for event in events for one in _append(instance, [event])] if len(events) > 1 else []
