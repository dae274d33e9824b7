"""Why conditions request what they do: as of now, or as it was evaluated at some time."""

from dataclasses import dataclass
from datetime import datetime

from headwater.catalog.definitions.definitions import Definitions
from headwater.catalog.errors import UsageError
from headwater.catalog.events import EventKind
from headwater.catalog.instance import Instance
from headwater.catalog.keys import AssetKey
from headwater.materialize.automation.conditions.catalog_facts import CatalogFacts, asked_about
from headwater.materialize.automation.conditions.evaluator import Evaluator
from headwater.materialize.automation.conditions.state import State
from headwater.materialize.automation.conditions.tree import Row, part_from_json, rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """The tree of an asset's condition."""

    asset: AssetKey
    #: When it was evaluated; None for an evaluation as of now, which nobody records.
    evaluated: datetime | None
    #: How many cells it requested, or would.
    requested: int
    rows: tuple[Row, ...]


def explain(
    definitions: Definitions,
    instance: Instance,
    key: AssetKey,
    partition: str | None = None,
    at: datetime | None = None,
) -> Explanation:
    """Where the condition of an asset and its parts are true: now, or as they were when evaluated last before `at`.

    Of all its cells, or of one partition and of what that reads. Raises `UsageError` where there is no condition, or no
    such evaluation, and `UnknownPartitionError`.
    """
    graph, conditions = definitions.graph, definitions.conditions
    if at is None and key not in conditions:
        raise UsageError(
            f"`{key}` has no condition.",
            remedy="Such as @asset(automation_condition=AutomationCondition.eager()).",
        )
    scope = asked_about(graph, conditions) | graph.self_contained([key])
    if at is None:
        before = State.last(instance.catalog)
        after = None if before.at is None else before.seen
        facts = CatalogFacts(graph, instance.catalog, instance.clock.now(), after, scope)
        result = Evaluator(facts, conditions, before).evaluate()
        tree, evaluated, requested = result.tree(key), None, len(result.requested.get(key, ()))
    else:
        kinds = [EventKind.CONDITION_EVALUATED]
        events = instance.catalog.events(asset=key, kinds=kinds, limit=None)
        event = next((one for one in reversed(events) if one.time <= at), None)
        if event is None:
            raise UsageError(
                f"The condition of `{key}` was not evaluated by {at.isoformat()}.",
                remedy="`headwater conditions start` has conditions evaluated at every tick.",
            )
        facts = CatalogFacts(graph, instance.catalog, event.time, None, scope)
        found = part_from_json(event.data["tree"], lambda one: facts.partitions(one) if one in graph else None)
        if found is None:
            raise UsageError(
                f"`{key}` is divided in another way by now.", remedy=f"headwater events {key} shows what was recorded."
            )
        tree, evaluated, requested = found, event.time, event.data.get("requested", 0)
    among = facts.partitions(key).all()
    if partition is not None:
        among = facts.partitions(key).subset([partition])
    return Explanation(asset=key, evaluated=evaluated, requested=requested, rows=tuple(rows(tree, facts, among)))
