"""Partitions whose keys are added and deleted as the project runs."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from headwater.catalog.keys import validate_partition_key
from headwater.catalog.partitions.definition import PartitionsContext, PartitionsDefinition, set_field

if TYPE_CHECKING:
    from headwater.catalog.partitions.space import Partitions


class DynamicPartitionsDefinition(PartitionsDefinition):
    """The partitions that the catalog has under `name`; sensors, commands and code add and delete keys.

    Deleting a key leaves what was built for it. Raises `InvalidKeyError` for a name that cannot be one.
    """

    __slots__ = ("name",)
    kind: ClassVar[str] = "dynamic"
    name: str

    def __init__(self, name: str) -> None:
        set_field(self, "name", validate_partition_key(name, "name of dynamic partitions"))

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
