"""Ticks of conditions: evaluated against the catalog, and what they request recorded with what is to be remembered.

When an evaluation finds nothing different, there is no other before something happens or a time comes that changes
something: nobody reads or writes anything then. Of two evaluations at the same time, the catalog refuses the second.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from headwater.catalog.definitions.condition import AutomationCondition
from headwater.catalog.definitions.definitions import Definitions
from headwater.catalog.errors import ConflictError
from headwater.catalog.events import ConditionsEvaluated, Event, TickEnded
from headwater.catalog.instance import Instance
from headwater.catalog.keys import AssetKey
from headwater.catalog.lineage.asset_graph import AssetGraph
from headwater.catalog.records import Automation, ConditionEvaluation, TickStatus
from headwater.catalog.storage.base import CatalogReader
from headwater.materialize.automation.conditions.grouping import grouped
from headwater.materialize.automation.conditions.quiet import is_quiet, settled
from headwater.materialize.automation.conditions.state import State
from headwater.materialize.automation.requesting import requested_cells
from headwater.materialize.automation.standing import is_running
from headwater.materialize.execution.step import describe_failure

if TYPE_CHECKING:
    from headwater.materialize.automation.conditions.evaluator import Evaluated

#: What evaluates all conditions: it is started and stopped, and has ticks, under this name.
NAME = "default_automation_condition_sensor"
#: The tag of runs that conditions request: the moment of the evaluation.
EVALUATED_AT = "headwater/conditions_at"


class AutomationConditionSensor:
    """Implements `Automated`."""

    name = NAME
    default_status = "STOPPED"


def tick(
    instance: Instance, definitions: Definitions, origin: Mapping[str, Any], now: datetime | None = None
) -> list[TickEnded]:
    """Evaluate the conditions of assets as of `now`, and put the runs that are requested into the queue.

    `origin` is where another process finds the definitions.
    """
    if not definitions.conditions or not instance.settings.auto_materialize.enabled:
        return []
    known = instance.catalog.automations().get(NAME)
    moment = now or instance.clock.now()
    if known is None or not is_running(AutomationConditionSensor(), known) or moment <= known.until:
        return []
    try:
        events = _events(instance, definitions, origin, known, moment)
    except Exception as error:
        ended = _ended(instance, known, moment, TickStatus.FAILURE, error=describe_failure(error).error)
        events = [ended]
    try:
        if events:
            instance.catalog.append(events)
    except ConflictError:  # somebody else evaluated them meanwhile, or stopped that
        return []
    return [event for event in events if isinstance(event, TickEnded)]


def evaluate(
    graph: AssetGraph,
    conditions: Mapping[AssetKey, AutomationCondition],
    catalog: CatalogReader,
    before: State,
    moment: datetime,
) -> "Evaluated":
    """Evaluate the conditions of assets against a catalog, and change nothing."""
    from headwater.materialize.automation.conditions.catalog_facts import CatalogFacts, asked_about
    from headwater.materialize.automation.conditions.evaluator import Evaluator

    after = None if before.at is None else before.seen
    facts = CatalogFacts(graph, catalog, moment, after, asked_about(graph, conditions))
    return Evaluator(facts, conditions, before).evaluate()


def _events(
    instance: Instance, definitions: Definitions, origin: Mapping[str, Any], known: Automation, moment: datetime
) -> list[Event]:
    catalog, graph, conditions = instance.catalog, definitions.graph, definitions.conditions
    if is_quiet(catalog, graph, conditions, State.last(catalog, common=True), moment):
        return []
    result = evaluate(graph, conditions, catalog, State.last(catalog), moment)
    tags = {**instance.settings.auto_materialize.run_tags, EVALUATED_AT: moment.isoformat()}
    runs = [
        requested_cells(instance, definitions, origin, cells, tags)
        for cells in grouped(definitions.graph, result.requested)
    ]
    status = TickStatus.SUCCESS if runs else TickStatus.SKIPPED
    reason = "" if runs else "nothing is to be requested" if result.changed else "nothing is different"
    run_ids = tuple(run.run_id for run in runs)
    evaluated = _evaluated(instance, result)
    return [*runs, evaluated, _ended(instance, known, moment, status, run_ids=run_ids, reason=reason)]


def _evaluated(instance: Instance, result: "Evaluated") -> ConditionsEvaluated:
    return ConditionsEvaluated(
        time=instance.clock.now(),
        states=settled(result).to_records(result.changed),
        evaluations=tuple(
            ConditionEvaluation(
                asset=key, requested=len(result.requested.get(key, ())), tree=result.tree(key).to_json()
            )
            for key in sorted(result.different)
        ),
    )


def _ended(instance: Instance, known: Automation, moment: datetime, status: TickStatus, **more: Any) -> TickEnded:
    return TickEnded(time=instance.clock.now(), name=NAME, at=moment, after=known.until, status=status, **more)
