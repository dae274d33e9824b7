"""When an evaluation is not worth the while: nothing was different at the last one, and nothing happened since."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import TYPE_CHECKING

from headwater.catalog.definitions.condition import AutomationCondition
from headwater.catalog.definitions.due import upcoming
from headwater.catalog.events import EventKind
from headwater.catalog.keys import AssetKey
from headwater.catalog.lineage.asset_graph import AssetGraph
from headwater.catalog.lineage.node import nodes_to_bytes
from headwater.catalog.storage.base import CatalogReader
from headwater.materialize.automation.conditions.state import Quiet, State

if TYPE_CHECKING:
    from headwater.catalog.partitions.space import Partitions
    from headwater.materialize.automation.conditions.evaluator import Evaluated

#: Freshness is among them: conditions that ask for it are never quiet.
_OF_AUTOMATION = ("ALERT", "AUTOMATION_", "CONDITION_", "DAEMON_", "FRESHNESS_", "STALENESS_", "TICK_", "TICKS_")
#: What happens and makes no condition true or false.
_IRRELEVANT = frozenset(
    {
        *(kind for kind in EventKind if kind.startswith(_OF_AUTOMATION)),
        *(EventKind.LOG_MESSAGE, EventKind.SLOT_CLAIMED, EventKind.STEP_START, EventKind.DEFINITIONS_CHANGED),
    }
)
_RELEVANT = tuple(kind.value for kind in EventKind if kind not in _IRRELEVANT)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def is_quiet(
    catalog: CatalogReader,
    graph: AssetGraph,
    conditions: Mapping[AssetKey, AutomationCondition],
    before: State,
    moment: datetime,
) -> bool:
    """Whether an evaluation would find nothing different."""
    quiet = before.quiet
    if quiet is None or (quiet.until is not None and moment >= quiet.until):
        return False
    if catalog.events(kinds=_RELEVANT, after=before.seen, limit=1):
        return False
    return quiet.definitions == _digest(graph, conditions)


def settled(result: "Evaluated") -> State:
    """What is to be remembered of an evaluation, with how long it is going to be quiet where nothing was different."""
    conditions = set(result.evaluator.conditions.values())
    # Freshness is a matter of time that nobody here can foretell.
    if result.changed or any(node.name == "freshness" for one in conditions for node in one.nodes()):
        return replace(result.state, quiet=None)
    facts = result.evaluator.facts
    definitions = {node.partitions: node.key for node in facts.graph if node.partitions is not None}
    until = [*_windows(map(facts.partitions, definitions.values())), *_crons(conditions, facts.now)]
    digest = _digest(facts.graph, result.evaluator.conditions)
    return replace(result.state, quiet=Quiet(until=min(until, default=None), definitions=digest))


def _windows(partitions: "Iterable[Partitions]") -> Iterator[datetime]:
    """When a window ends that is then a partition, or is not the last one any more."""
    from headwater.catalog.partitions.space import MultiPartitions, WindowPartitions

    for one in partitions:
        if isinstance(one, MultiPartitions):
            yield from _windows(one.dimensions.values())
        elif isinstance(one, WindowPartitions):
            open_ended = max(0, one.count - one.definition.end_offset)
            yield _EPOCH + timedelta(seconds=int(one.ends([open_ended])[0]))


def _crons(conditions: Iterable[AutomationCondition], now: datetime) -> Iterator[datetime]:
    due = {node.arguments for one in conditions for node in one.nodes() if node.name == "cron_tick_passed"}
    for cron, zone in due:
        yield from upcoming([cron], zone, now, 1)


def _digest(graph: AssetGraph, conditions: Mapping[AssetKey, AutomationCondition]) -> str:
    hashed = blake2b(nodes_to_bytes(graph), digest_size=12)
    for key in sorted(conditions):
        hashed.update(f"\0{key}\0{conditions[key].text}".encode())
    return hashed.hexdigest()
