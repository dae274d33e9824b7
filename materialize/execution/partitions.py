"""The partitions that one step computes."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from headwater.catalog.partitions.definition import (
    InMemoryDynamicKeys,
    PartitionsContext,
    PartitionsDefinition,
    TimeWindow,
)

if TYPE_CHECKING:
    from headwater.catalog.partitions.space import Partitions
    from headwater.catalog.partitions.time_window import TimeWindowPartitionsDefinition

#: The entry of an asset's metadata that names the column, or the column of each dimension, by which a frame of several
#: partitions is divided.
PARTITION_EXPR = "partition_expr"
#: Longer than any window: a cron may name February 29, which can be eight years away.
_LONGEST_WINDOW = timedelta(days=9 * 366)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepPartitions:
    """What a step computes of each of its assets, as its function sees it."""

    #: In the order of the definition; a `MultiPartitionKey` each where it has several dimensions.
    keys: tuple[str, ...]
    #: The window of each key, or of its dimension of time; None where there is none, or more than one.
    windows: tuple[TimeWindow, ...] | None = None
    #: Whether no partition lies between the first and the last that is not one of them.
    contiguous: bool


def step_partitions(space: "Partitions", keys: Sequence[str]) -> StepPartitions:
    """`keys` as a step gets them. Raises `UnknownPartitionError` for one that does not exist."""
    from headwater.catalog.partitions.space import MultiPartitions, WindowPartitions

    found = space.ordinals(keys)
    if (found < 0).any():
        space.ordinal(keys[int(found.argmin())])  # says why not
    order = found.argsort(kind="stable")
    ordinals = found[order]
    places: list[int] = order.tolist()
    ordered = [keys[place] for place in places]
    windows: list[TimeWindow] | None = None
    if isinstance(space, MultiPartitions):
        ordered = list[str](map(space.definition.key, ordered))
        over_time = [(name, one) for name, one in space.items() if isinstance(one, WindowPartitions)]
        if len(over_time) == 1:
            name, dimension = over_time[0]
            windows = dimension.windows_at(space.by_dimension(ordinals)[name])
    elif isinstance(space, WindowPartitions):
        windows = space.windows_at(ordinals)
    return StepPartitions(
        keys=tuple(ordered),
        windows=None if windows is None else tuple(windows),
        contiguous=not len(ordinals) or int(ordinals[-1] - ordinals[0]) == len(ordinals) - 1,
    )


def partitions_by_themselves(definition: PartitionsDefinition | None, keys: Sequence[str]) -> StepPartitions:
    """The partitions of a unit test, where no clock says which exist and no catalog which dynamic keys there are.

    Raises `UnknownPartitionError` for a key that `definition` never has, and `InvalidKeyError`.
    """
    if definition is None:
        return StepPartitions(keys=tuple(keys), contiguous=True)
    from headwater.catalog.partitions.dynamic import DynamicPartitionsDefinition
    from headwater.catalog.partitions.multi import MultiPartitionsDefinition
    from headwater.catalog.partitions.time_window import TimeWindowPartitionsDefinition

    moment = datetime.min.replace(tzinfo=UTC)
    dynamic: dict[str, list[str]] = {}
    for key in keys:
        if isinstance(definition, MultiPartitionsDefinition):
            values = definition.key(key).keys_by_dimension
            parts = [(one, values[name]) for name, one in definition.dimensions.items()]
        else:
            parts = [(definition, key)]
        for one, value in parts:
            if isinstance(one, TimeWindowPartitionsDefinition):
                moment = max(moment, _after(one, value))
            elif isinstance(one, DynamicPartitionsDefinition):
                dynamic.setdefault(one.name, []).append(value)
    return step_partitions(definition.at(PartitionsContext(moment, InMemoryDynamicKeys(dynamic))), keys)


def _after(definition: "TimeWindowPartitionsDefinition", key: str) -> datetime:
    """A moment at which the window of `key` has ended, if there is one."""
    try:
        start = definition.key_format.parse(definition.key_format.split_offset(key)[0])
    except (ValueError, OverflowError):  # no such key
        start = definition.start
    try:
        return start.replace(tzinfo=UTC) + _LONGEST_WINDOW
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC)
