"""What user code is given while its step runs."""

import itertools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from headwater.catalog.definitions.results import entries
from headwater.catalog.errors import UsageError, UserCodeError, nearest
from headwater.catalog.keys import AssetKey
from headwater.catalog.partitions.definition import PartitionKeyRange, PartitionsDefinition, TimeWindow
from headwater.catalog.printable import printable_line
from headwater.materialize.execution.partitions import StepPartitions, partitions_by_themselves


@dataclass(frozen=True, slots=True, kw_only=True)
class RunInfo:
    """The run that a step is part of."""

    run_id: str
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    job_name: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunContext:
    """What a resource is set up with."""

    run: RunInfo
    log: logging.Logger

    @property
    def run_id(self) -> str:
        """The run's identifier."""
        return self.run.run_id


class AssetExecutionContext:
    """What an asset function's `context` parameter receives.

    `log` is a logger whose lines become events of the run; `resources` holds what `required_resource_keys` asked for.
    """

    __headwater_context__ = True

    def __init__(
        self,
        *,
        step_key: str,
        outputs: Mapping[str, AssetKey],
        run: RunInfo,
        log: logging.Logger,
        resources: Mapping[str, Any] | None = None,
        config: Any = None,
        partitions: StepPartitions | None = None,
        input_partitions: Mapping[str, Sequence[str]] | None = None,
        retry_number: int = 0,
    ) -> None:
        self.run = run
        self.log = log
        #: The resources, as attributes.
        self.resources = SimpleNamespace(**(resources or {}))
        #: The bound configuration; None for a step that takes none.
        self.config = config
        #: 0 for the first attempt.
        self.retry_number = retry_number
        #: The step's name.
        self.step_key = step_key
        self._outputs = dict(outputs)
        self._partitions = partitions
        self._known_keys = frozenset(partitions.keys if partitions is not None else ())
        #: The partitions that each parameter reads, of those that read any.
        self._input_partitions = dict(input_partitions or {})
        #: By output, and by partition where it was named.
        self._metadata: dict[tuple[str, str | None], dict[str, Any]] = {}

    @property
    def run_id(self) -> str:
        """The run's identifier."""
        return self.run.run_id

    @property
    def asset_key(self) -> AssetKey:
        """The asset being computed. Raises `UserCodeError` in a step with several."""
        if len(self._outputs) != 1:
            raise UserCodeError(
                f"The step `{self.step_key}` computes {len(self._outputs)} assets, so context.asset_key is not one.",
                remedy="Use context.selected_asset_keys.",
            )
        return next(iter(self._outputs.values()))

    @property
    def selected_asset_keys(self) -> frozenset[AssetKey]:
        """The assets that this run wants of the step."""
        return frozenset(self._outputs.values())

    @property
    def selected_output_names(self) -> frozenset[str]:
        """The names of the outputs that this run wants of the step."""
        return frozenset(self._outputs)

    @property
    def has_partition_key(self) -> bool:
        """Whether the step computes exactly one partition."""
        return self._partitions is not None and len(self._partitions.keys) == 1

    @property
    def partition_key(self) -> str:
        """The partition being computed, a `MultiPartitionKey` where there are several dimensions.

        Raises `UserCodeError` for an unpartitioned asset, and in a step with several partitions.
        """
        keys = self._partitions_or("partition key").keys
        if len(keys) != 1:
            raise UserCodeError(
                f"`{self.step_key}` computes {len(keys):,} partitions in this step, so context.partition_key is not "
                "one.",
                remedy="Use context.partition_keys, and return a value for each of them; or leave out the "
                "backfill_policy, for one partition a step.",
            )
        return keys[0]

    @property
    def partition_keys(self) -> Sequence[str]:
        """The partitions being computed, in the order of their definition. Raises `UserCodeError`."""
        return self._partitions_or("partition key").keys

    @property
    def has_partition_key_range(self) -> bool:
        """Whether the step computes partitions that follow each other, one or more."""
        return self._partitions is not None and bool(self._partitions.keys) and self._partitions.contiguous

    @property
    def partition_key_range(self) -> PartitionKeyRange:
        """The first and the last partition being computed. Raises `UserCodeError` where some between them are not."""
        partitions = self._partitions_or("range of partitions")
        if not self.has_partition_key_range:
            raise UserCodeError(
                f"`{self.step_key}` computes {len(partitions.keys):,} partitions in this step, and they do not follow "
                "each other.",
                remedy="Use context.partition_keys.",
            )
        return PartitionKeyRange(partitions.keys[0], partitions.keys[-1])

    @property
    def partition_time_window(self) -> TimeWindow:
        """From the start of the first window being computed to the end of the last.

        Of several dimensions, that of the only one with time windows. Raises `UserCodeError` where there are no
        windows, or others between them.
        """
        # By instants: on one clock, Python takes the second 01:00 of a night for the first.
        instants = {(one.start.timestamp(), one.end.timestamp()): one for one in self.partition_time_windows}
        ordered = [instants[at] for at in sorted(instants)]
        if not ordered or any(one[1] != other[0] for one, other in itertools.pairwise(sorted(instants))):
            raise UserCodeError(
                f"The {len(ordered):,} time windows of `{self.step_key}` in this step do not follow each other.",
                remedy="Use context.partition_time_windows.",
            )
        return TimeWindow(ordered[0].start, ordered[-1].end)

    @property
    def partition_time_windows(self) -> Sequence[TimeWindow]:
        """The window of each of `partition_keys`. Raises `UserCodeError` where they are none."""
        windows = self._partitions_or("time window").windows
        if windows is None:
            raise UserCodeError(
                f"The partitions of `{self.step_key}` are no time windows.", remedy="Use context.partition_keys."
            )
        return windows

    def asset_partition_keys_for_input(self, parameter: str) -> Sequence[str]:
        """The partitions that a parameter was filled with, in the order of their definition; there may be none.

        Raises `UserCodeError` for a parameter that reads no partitioned asset.
        """
        keys = self._input_partitions.get(parameter)
        if keys is None:
            raise UserCodeError(
                f"`{self.step_key}` has no parameter `{printable_line(parameter, 80)}` that reads a partitioned asset.",
                remedy=nearest(parameter, self._input_partitions)
                or f"Those that do are {', '.join(self._input_partitions) or 'none'}.",
            )
        return keys

    def _partitions_or(self, what: str) -> StepPartitions:
        if self._partitions is None:
            raise UserCodeError(
                f"`{self.step_key}` is not partitioned, so there is no {what}.",
                remedy="Ask context.has_partition_key first.",
            )
        return self._partitions

    def add_output_metadata(
        self,
        metadata: Mapping[str, Any],
        output_name: str | None = None,
        asset_key: AssetKey | str | None = None,
        partition_key: str | None = None,
    ) -> None:
        """Attach metadata to the materialization being made; in a step with several, say of which output or asset.

        In a step with several partitions it goes to the one of `partition_key`, or to all that are given from now on.
        Raises `UserCodeError`.
        """
        if asset_key is not None:
            named = [name for name, key in self._outputs.items() if key == asset_key]
            output_name = named[0] if named else str(asset_key)
        if output_name is None:
            output_name = next(iter(self._outputs)) if len(self._outputs) == 1 else ""
        if output_name not in self._outputs:
            raise UserCodeError(
                f"The step `{self.step_key}` has no output '{output_name}' to add metadata to.",
                remedy=f"Its outputs are {', '.join(self._outputs)}.",
            )
        if partition_key is not None and partition_key not in self._known_keys:
            raise UserCodeError(
                f"The step `{self.step_key}` does not compute the partition '{printable_line(str(partition_key), 80)}' "
                "to add metadata to.",
                remedy="Name one of context.partition_keys.",
            )
        kept = self._metadata.setdefault((output_name, partition_key), {})
        kept.update(entries(metadata, "The metadata of an output"))

    def output_metadata(self, output_name: str, partition_key: str | None = None) -> dict[str, Any]:
        """What was added for one partition of an output so far."""
        added = self._metadata.get((output_name, None), {})
        return {**added, **(self._metadata.get((output_name, partition_key), {}) if partition_key is not None else {})}


def build_asset_context(
    *,
    resources: Mapping[str, Any] | None = None,
    config: Any = None,
    partition_key: str | None = None,
    partition_keys: Sequence[str] | None = None,
    partitions_def: PartitionsDefinition | None = None,
    asset_key: AssetKey | str = "asset",
    run_id: str = "00000000-0000-0000-0000-000000000000",
) -> AssetExecutionContext:
    """A context for calling an asset function directly, in a unit test.

    `partition_key`, or `partition_keys` for a step with several, are those of `partitions_def`, if it is given: then
    there are time windows and dimensions as well. Raises `UnknownPartitionError` for a key that it does not have.
    """
    key = AssetKey(asset_key)
    if partition_key is not None and partition_keys is not None:
        raise UsageError("A step has partition_key or partition_keys, not both.", remedy="Keep one.")
    keys = partition_keys if partition_key is None else (partition_key,)
    return AssetExecutionContext(
        step_key=str(key),
        outputs={"result": key},
        run=RunInfo(run_id=run_id),
        log=logging.getLogger("headwater.test"),
        resources=resources,
        config=config,
        partitions=None if keys is None else partitions_by_themselves(partitions_def, keys),
    )
