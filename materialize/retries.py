"""Whole runs that are tried again: what of a run is left to be built, and whether that is to be done by itself.

Tries of one thing are a group: each knows the one before it and the first one, its root.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headwater.catalog.errors import UsageError
from headwater.catalog.instance import Instance
from headwater.catalog.keys import AssetKey
from headwater.catalog.records import Run, RunStatus, StepCell, StepStatus
from headwater.catalog.settings import Settings
from headwater.catalog.storage.base import CatalogReader
from headwater.materialize.jobs import sources
from headwater.materialize.planner import Plan, build_plan
from headwater.materialize.reader import Reader
from headwater.materialize.staleness import Cells

#: Tags that say how often a run is tried again, and how.
MAX_RETRIES = ("headwater/max_retries", "dagster/max_retries")
STRATEGY = ("headwater/retry_strategy", "dagster/retry_strategy")
ON_STEP_FAILURE = ("headwater/retry_on_asset_or_op_failure", "dagster/retry_on_asset_or_op_failure")
FROM_FAILURE, ALL_STEPS = "FROM_FAILURE", "ALL_STEPS"

_DONE = (StepStatus.SUCCESS, StepStatus.VERIFIED)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryRule:
    """Whether and how a run is tried again by itself."""

    max_retries: int = 0
    strategy: str = FROM_FAILURE
    #: Whether that is so too where a step failed, and not only where the run was broken off.
    on_step_failure: bool = True

    @staticmethod
    def of(settings: Settings, tags: Mapping[str, str]) -> "RetryRule":
        """What the run's tags say, and else the settings. Raises `UsageError` for a tag that makes no sense."""
        own = settings.run_retries
        retries = _tag(tags, MAX_RETRIES)
        if retries is not None and not retries.isdecimal():
            raise UsageError(f"The tag {MAX_RETRIES[0]}={retries} is no number.", remedy="Such as 3; 0 is never.")
        strategy = _tag(tags, STRATEGY) or FROM_FAILURE
        if strategy not in (FROM_FAILURE, ALL_STEPS):
            raise UsageError(f"There is no retry strategy {strategy}.", remedy=f"It is {FROM_FAILURE} or {ALL_STEPS}.")
        on_failure = _tag(tags, ON_STEP_FAILURE)
        return RetryRule(
            max_retries=int(retries) if retries is not None else own.max_retries if own.enabled else 0,
            strategy=strategy,
            on_step_failure=own.retry_on_asset_or_op_failure if on_failure is None else on_failure.lower() == "true",
        )


def _tag(tags: Mapping[str, str], names: Sequence[str]) -> str | None:
    return next((tags[name] for name in names if name in tags), None)


def group(catalog: CatalogReader, run: Run) -> list[Run]:
    """All tries of what a run is one try at, oldest first."""
    return catalog.runs(root=run.root_run_id or run.run_id, limit=1000)[::-1]


def is_to_be_retried(instance: Instance, run: Run) -> bool:
    """Whether a run that is over is to be tried again: it is the last try, and its rule allows for another one.

    Tries that somebody asked for count as well. Raises `UsageError` for tags that make no sense.
    """
    if run.status not in (RunStatus.FAILURE, RunStatus.INTERRUPTED) or run.backfill_id is not None:
        return False
    rule = RetryRule.of(instance.settings, run.tags)
    if rule.max_retries == 0:
        return False
    tries = group(instance.catalog, run)
    if tries[-1].run_id != run.run_id or len(tries) - 1 >= rule.max_retries:
        return False
    return rule.on_step_failure or not run.step_counts.get(StepStatus.FAILURE)


def retry_tags(tags: Mapping[str, str], number: int) -> dict[str, str]:
    """The tags of try number `number`, from 1."""
    return {**tags, "headwater/retry_number": str(number)}


def left_undone(catalog: CatalogReader, run_id: str) -> list[StepCell]:
    """The cells that a run was to build and did not."""
    return [cell for step in catalog.steps(run_id) for cell in step.cells if cell.status not in _DONE]


def retry_plan(reader: Reader, run: Run, strategy: str) -> Plan:
    """What trying a run again builds: what it left undone, or with ALL_STEPS everything that it was to build.

    What was done is not done again, unless what it was made from has changed since; see `jobs.sources`.
    """
    every = strategy == ALL_STEPS
    steps = reader.catalog.steps(run.run_id)
    cells = [cell for step in steps for cell in step.cells if every or cell.status not in _DONE]
    cells = [cell for cell in cells if cell.asset in reader.graph]
    scoped = reader.within(list(dict.fromkeys(cell.asset for cell in cells)))
    targets = _targets(scoped, cells)
    forced = every or bool(run.request.get("force"))
    again = () if run.job is None else sources(scoped.graph, targets)
    return build_plan(scoped.edges, scoped.staleness, targets, force=forced or again, upstream=True)


def _targets(reader: Reader, cells: Sequence[StepCell]) -> dict[AssetKey, Cells]:
    names: dict[AssetKey, list[str | None]] = {}
    for cell in cells:
        names.setdefault(cell.asset, []).append(cell.partition)
    targets: dict[AssetKey, Any] = {}
    for key, keys in names.items():
        if reader.graph[key].partitions is None:
            targets[key] = True
        else:
            partitions = reader.partitions(key)
            ordinals = partitions.ordinals([one for one in keys if one is not None])
            targets[key] = partitions.subset_of_ordinals(ordinals[ordinals >= 0]).mask()
    return targets
