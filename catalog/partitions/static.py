"""Partitions that are a list."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, cast

from headwater.catalog.errors import DefinitionError
from headwater.catalog.keys import validate_partition_key
from headwater.catalog.partitions.definition import PartitionsContext, PartitionsDefinition, set_field
from headwater.catalog.printable import printable_line

if TYPE_CHECKING:
    from headwater.catalog.partitions.space import Partitions


class StaticPartitionsDefinition(PartitionsDefinition):
    """The partitions that `partition_keys` names, in that order: ranges and "the last one" follow it.

    Raises `InvalidKeyError` for a key that cannot be one, `DefinitionError` for a key given twice.
    """

    __slots__ = ("indexes", "partition_keys")
    kind: ClassVar[str] = "static"
    partition_keys: tuple[str, ...]
    #: The position of each key.
    indexes: dict[str, int]

    def __init__(self, partition_keys: Sequence[str]) -> None:
        if isinstance(partition_keys, str):
            raise DefinitionError(
                f"Partition keys are a list, not the text '{printable_line(partition_keys, 60)}'.",
                remedy=f"Write [{partition_keys!r}].",
            )
        keys = tuple(validate_partition_key(key) for key in partition_keys)
        indexes = {key: i for i, key in enumerate(keys)}
        if len(indexes) < len(keys):
            twice = next(key for i, key in enumerate(keys) if indexes[key] != i)
            raise DefinitionError(
                f"The partition key '{printable_line(twice, 80)}' is given twice.", remedy="Name each partition once."
            )
        set_field(self, "partition_keys", keys)
        set_field(self, "indexes", indexes)

    def at(self, context: PartitionsContext) -> "Partitions":
        """The same at every moment."""
        from headwater.catalog.partitions.space import StaticPartitions

        return StaticPartitions(self, context)

    def to_json(self) -> dict[str, Any]:
        """`{"kind": "static", "keys": […]}`."""
        return {"kind": self.kind, "keys": list(self.partition_keys)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "StaticPartitionsDefinition":
        """The definition that `to_json` described."""
        return cls(cast(list[str], data["keys"]))

    def describe(self) -> str:
        """Such as "static, 3 keys: a, b, c"."""
        shown = ", ".join(self.partition_keys[:3]) + (", …" if len(self.partition_keys) > 3 else "")
        return f"static, {len(self.partition_keys)} keys: {shown}"
