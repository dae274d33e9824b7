"""Partitions whose keys are added and deleted as the project runs."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from headwater.catalog.errors import InvalidKeyError
from headwater.catalog.keys import validate_partition_key
from headwater.catalog.partitions.definition import PartitionsContext, PartitionsDefinition, set_field

if TYPE_CHECKING:
    from headwater.catalog.partitions.space import Partitions

_NAME = "name of dynamic partitions"


@dataclass(frozen=True, slots=True, init=False)
class _KeysRequest:
    partitions_def_name: str
    partition_keys: tuple[str, ...]

    def __init__(self, partitions_def_name: str, partition_keys: Iterable[str]) -> None:
        if isinstance(partition_keys, str):
            raise InvalidKeyError("Partition keys are given as a list of texts, not as one.", remedy="Write [key].")
        object.__setattr__(self, "partitions_def_name", validate_partition_key(partitions_def_name, _NAME))
        object.__setattr__(self, "partition_keys", tuple(map(validate_partition_key, partition_keys)))


class AddDynamicPartitionsRequest(_KeysRequest):
    """Keys that a sensor wants added to the dynamic partitions `partitions_def_name`; those that are there stay.

    Raises `InvalidKeyError`.
    """

    __slots__ = ()


class DeleteDynamicPartitionsRequest(_KeysRequest):
    """Keys that a sensor wants deleted, those that are there. What was built for them stays.

    Raises `InvalidKeyError`.
    """

    __slots__ = ()


class DynamicPartitionsDefinition(PartitionsDefinition):
    """The partitions that the catalog has under `name`; sensors, commands and code add and delete keys.

    Deleting a key leaves what was built for it. Raises `InvalidKeyError` for a name that cannot be one.
    """

    __slots__ = ("name",)
    kind: ClassVar[str] = "dynamic"
    name: str

    def __init__(self, name: str) -> None:
        set_field(self, "name", validate_partition_key(name, _NAME))

    def build_add_request(self, partition_keys: Iterable[str]) -> AddDynamicPartitionsRequest:
        """A request to add keys, for a sensor's `SensorResult`."""
        return AddDynamicPartitionsRequest(self.name, partition_keys)

    def build_delete_request(self, partition_keys: Iterable[str]) -> DeleteDynamicPartitionsRequest:
        """A request to delete keys, for a sensor's `SensorResult`."""
        return DeleteDynamicPartitionsRequest(self.name, partition_keys)

    def at(self, context: PartitionsContext) -> "Partitions":
        """The keys that `context.dynamic` has now."""
        from headwater.catalog.partitions.space import DynamicPartitions

        return DynamicPartitions(self, context)

    def to_json(self) -> dict[str, Any]:
        """`{"kind": "dynamic", "name": …}`."""
        return {"kind": self.kind, "name": self.name}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "DynamicPartitionsDefinition":
        """The definition that `to_json` described."""
        return cls(data["name"])

    def describe(self) -> str:
        """Such as "dynamic, customers"."""
        return f"dynamic, {self.name}"
