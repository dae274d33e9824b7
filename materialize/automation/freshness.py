"""When an asset's freshness changes, an event says so: found out by looking, as time alone may change it.

The same for staleness, of assets about whose staleness an alert policy wants to tell somebody.
"""

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from headwater.catalog.definitions.alerts import AlertEvent
from headwater.catalog.events import FactChanged
from headwater.catalog.instance import Instance
from headwater.catalog.records import FactTopic
from headwater.materialize.automation import facts
from headwater.materialize.freshness import freshness_of
from headwater.materialize.reader import Reader

if TYPE_CHECKING:
    from headwater.catalog.definitions.definitions import Definitions
    from headwater.catalog.freshness import Freshness
    from headwater.catalog.lineage.asset_graph import AssetGraph

#: How often a process looks: policies count in minutes, and what is stale takes reading every version.
EVERY, STALENESS_EVERY = timedelta(seconds=30), timedelta(minutes=1)
_NEVER = datetime.min.replace(tzinfo=UTC)
_looked: WeakKeyDictionary[Instance, datetime] = WeakKeyDictionary()
_looked_for_staleness: WeakKeyDictionary[Instance, datetime] = WeakKeyDictionary()


def look(instance: Instance, graph: "AssetGraph", now: datetime | None = None) -> list[FactChanged]:
    """Record whose freshness is not what it was when somebody last looked, and return the events of that."""
    moment = now or instance.clock.now()
    if timedelta() <= moment - _looked.get(instance, _NEVER) < EVERY:
        return []
    keys = [node.key for node in graph if node.freshness is not None]
    found = freshness_of(graph, instance.catalog, keys, moment)
    values = {str(key): _described(one) for key, one in found.items()}
    changed = facts.record(instance, FactTopic.FRESHNESS, values) if values else []
    _looked[instance] = moment
    return changed


def look_for_staleness(
    instance: Instance, definitions: "Definitions", now: datetime | None = None
) -> list[FactChanged]:
    """Record whose staleness is not what it was, of what alert policies are about, and return the events of that."""
    policies = [policy for policy in definitions.alerts.values() if AlertEvent.STALE in policy.events]
    moment = now or instance.clock.now()
    if not policies or timedelta() <= moment - _looked_for_staleness.get(instance, _NEVER) < STALENESS_EVERY:
        return []
    reader = Reader(definitions.graph, instance.catalog, moment)
    keys = {key for policy in policies for key in reader.select(policy.selection)}
    statuses = reader.statuses()
    found = {str(key): {"state": str(statuses[key])} for key in sorted(keys) if key in statuses}
    _looked_for_staleness[instance] = moment
    return facts.record(instance, FactTopic.STALENESS, found)


def _described(one: "Freshness") -> dict[str, str | None]:
    times = {"updated": one.updated, "warns_at": one.warns_at, "fails_at": one.fails_at}
    return {"state": str(one.state)} | {name: time and time.isoformat() for name, time in times.items()}
