"""Partitions in several dimensions."""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Union, cast

from headwater.catalog.errors import DefinitionError, InvalidKeyError
from headwater.catalog.keys import validate_partition_key
from headwater.catalog.partitions.definition import (
    PartitionsContext,
    PartitionsDefinition,
    definition_from_json,
    set_field,
)
from headwater.catalog.partitions.dynamic import DynamicPartitionsDefinition
from headwater.catalog.partitions.time_window import TimeWindowPartitionsDefinition
from headwater.catalog.printable import printable_line

if TYPE_CHECKING:
    from headwater.catalog.partitions.space import Partitions

_ESCAPED = re.compile("%7C|%25")
_NEEDS_ESCAPE = re.compile(r"%(?=7C|25)|\|")


def print_values(values: tuple[str, ...]) -> str:
    """The values of one partition, in the order of their dimensions' names, as one text."""
    return "|".join(
        _NEEDS_ESCAPE.sub(lambda match: "%7C" if match.group() == "|" else "%25", value)
        if "|" in value or "%" in value
        else value
        for value in values
    )


def parse_values(text: str) -> tuple[str, ...]:
    """The values that `print_values` printed; exact for any text."""
    parts = text.split("|")
    if "%" in text:
        return tuple(_ESCAPED.sub(lambda match: "|" if match.group() == "%7C" else "%", part) for part in parts)
    return tuple(parts)


class MultiPartitionKey(str):
    """A partition's value in each dimension: `MultiPartitionKey({"month": "2013-01", "origin": "JFK"})`.

    It is its printed form, `2013-01|JFK`: the values by the names of their dimensions; a `|` in a value is printed
    `%7C`. Raises `InvalidKeyError`.
    """

    __slots__ = ("_dimensions",)
    _dimensions: tuple[tuple[str, str], ...]

    def __new__(cls, keys_by_dimension: Union[Mapping[str, str], "MultiPartitionKey"]) -> "MultiPartitionKey":
        """The key with these values."""
        if isinstance(keys_by_dimension, MultiPartitionKey):
            return keys_by_dimension
        if not isinstance(cast(object, keys_by_dimension), Mapping) or len(keys_by_dimension) < 2:
            raise InvalidKeyError(
                "A multi-dimensional partition key names a value for each of at least two dimensions.",
                remedy="Write it like MultiPartitionKey({'date': '2013-01-01', 'origin': 'JFK'}).",
            )
        pairs = tuple(
            (validate_partition_key(name, "dimension name"), validate_partition_key(keys_by_dimension[name]))
            for name in sorted(keys_by_dimension)
        )
        self = super().__new__(cls, print_values(tuple(value for _, value in pairs)))
        self._dimensions = pairs
        return self

    @property
    def keys_by_dimension(self) -> dict[str, str]:
        """The value in each dimension."""
        return dict(self._dimensions)

    def __getnewargs__(self) -> tuple[Any, ...]:
        return (self.keys_by_dimension,)

    def __repr__(self) -> str:
        return f"MultiPartitionKey({self.keys_by_dimension!r})"


class MultiPartitionsDefinition(PartitionsDefinition):
    """Every combination of the partitions of two or more dimensions, themselves of any kind but this.

    A key is a `MultiPartitionKey`, or its printed form. Raises `DefinitionError`.
    """

    __slots__ = ("dimensions", "order")
    kind: ClassVar[str] = "multi"
    #: By name, in the order of names: that of the printed form.
    dimensions: Mapping[str, PartitionsDefinition]
    #: Names from the most to the least significant for ordinals: time windows, dynamic, static; by name within.
    order: tuple[str, ...]

    def __init__(self, partitions_defs: Mapping[str, PartitionsDefinition]) -> None:
        if not isinstance(cast(object, partitions_defs), Mapping) or len(partitions_defs) < 2:
            raise DefinitionError(
                "A multi-dimensional partitions definition has at least two dimensions.",
                remedy="Write it like MultiPartitionsDefinition({'date': DailyPartitionsDefinition(…), 'origin': …}), "
                "or use the definition of the one dimension.",
            )
        dimensions: dict[str, PartitionsDefinition] = {}
        for name in sorted(partitions_defs, key=str):
            one = cast(object, partitions_defs[name])
            if not isinstance(one, PartitionsDefinition) or isinstance(one, MultiPartitionsDefinition):
                raise DefinitionError(
                    f"The dimension '{printable_line(str(name), 60)}' is a {type(one).__name__}, "
                    "not a partitions definition of one dimension.",
                    remedy="Give each dimension a static, dynamic or time-window definition; there may be any number.",
                )
            dimensions[validate_partition_key(name, "dimension name")] = one
        set_field(self, "dimensions", MappingProxyType(dimensions))
        set_field(self, "order", tuple(sorted(dimensions, key=lambda name: (_rank(dimensions[name]), name))))

    def at(self, context: PartitionsContext) -> "Partitions":
        """The combinations of what exists in each dimension."""
        from headwater.catalog.partitions.space import MultiPartitions

        return MultiPartitions(self, context)

    def key(self, text: str) -> MultiPartitionKey:
        """The typed key that `text` prints, whether it exists or not. Raises `InvalidKeyError`."""
        if isinstance(text, MultiPartitionKey):
            if set(text.keys_by_dimension) == set(self.dimensions):
                return text
            raise InvalidKeyError(
                f"The partition key '{printable_line(text, 80)}' has the dimensions "
                f"{', '.join(text.keys_by_dimension)}, not {', '.join(self.dimensions)}.",
                remedy="Name a value for each dimension.",
            )
        values = parse_values(text)
        if len(values) != len(self.dimensions):
            raise InvalidKeyError(
                f"The partition key '{printable_line(text, 80)}' has {len(values)} values, not {len(self.dimensions)}.",
                remedy=f"Write it as {'|'.join(self.dimensions)}; a | in a value is written %7C.",
            )
        return MultiPartitionKey(dict(zip(self.dimensions, values, strict=True)))

    def to_json(self) -> dict[str, Any]:
        """`{"kind": "multi", "dimensions": {…}}`."""
        return {"kind": self.kind, "dimensions": {name: one.to_json() for name, one in self.dimensions.items()}}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "MultiPartitionsDefinition":
        """The definition that `to_json` described."""
        return cls({name: definition_from_json(one) for name, one in data["dimensions"].items()})

    def key_meaning(self) -> dict[str, Any]:
        """The dimensions' names, and what their keys mean."""
        return {name: one.key_meaning() for name, one in self.dimensions.items()}

    def _meaning(self) -> dict[str, Any]:
        return {"kind": self.kind, "dimensions": {name: one._meaning() for name, one in self.dimensions.items()}}

    def describe(self) -> str:
        """Such as "date (daily from 2013-01-01) × origin (static, …)"."""
        return " × ".join(f"{name} ({one.describe()})" for name, one in self.dimensions.items())


def _rank(definition: PartitionsDefinition) -> int:
    if isinstance(definition, TimeWindowPartitionsDefinition):
        return 0
    return 1 if isinstance(definition, DynamicPartitionsDefinition) else 2
