"""Conditions in unit tests: evaluated against an instance as often as wanted, and nothing is recorded."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from headwater.catalog.definitions.definitions import Definitions
from headwater.catalog.errors import UsageError
from headwater.catalog.instance import Instance
from headwater.catalog.keys import AssetKey, CoercibleToAssetKey
from headwater.materialize.automation.conditions.state import State
from headwater.materialize.automation.conditions.tick import evaluate

if TYPE_CHECKING:
    from headwater.catalog.partitions.subset import PartitionSubset


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateAutomationConditionsResult:
    """What an evaluation would request."""

    #: What the next evaluation is to be given.
    cursor: State
    requested: "Mapping[AssetKey, PartitionSubset]"

    @property
    def total_requested(self) -> int:
        """How many cells, of all assets."""
        return sum(len(subset) for subset in self.requested.values())

    def get_num_requested(self, key: CoercibleToAssetKey) -> int:
        """How many cells of an asset."""
        return len(self.requested.get(AssetKey(key), ()))

    def get_requested_partitions(self, key: CoercibleToAssetKey) -> set[str | None]:
        """Which partitions of an asset; None stands for the one cell of an asset without partitions."""
        return {name or None for name in self.requested.get(AssetKey(key), ())}


def evaluate_automation_conditions(
    defs: Definitions | Iterable[Any],
    instance: Instance,
    *,
    evaluation_time: datetime | None = None,
    cursor: State | None = None,
) -> EvaluateAutomationConditionsResult:
    """Evaluate the conditions of assets as a tick would, and neither request nor record anything.

    `cursor` is that of the evaluation before: without one, it is the first. `evaluation_time` is the moment as of which
    it is evaluated, now by default. Raises `UsageError` for a time without a zone, and for one before that of `cursor`.
    """
    definitions = defs if isinstance(defs, Definitions) else Definitions(defs)
    before = cursor or State()
    moment = evaluation_time or instance.clock.now()
    if moment.utcoffset() is None or (before.at is not None and moment < before.at):
        raise UsageError(
            f"evaluation_time is {moment.isoformat()}.", remedy="Give it a zone, and let it not be before the last one."
        )
    result = evaluate(definitions.graph, definitions.conditions, instance.catalog, before, moment.astimezone(UTC))
    return EvaluateAutomationConditionsResult(cursor=result.state, requested=result.requested)
