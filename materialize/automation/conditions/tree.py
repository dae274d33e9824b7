"""The tree of a condition with where each part is true: as it is recorded, and as it is shown to whoever asks why."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headwater.catalog.errors import UsageError
from headwater.catalog.keys import AssetKey

if TYPE_CHECKING:
    from headwater.catalog.partitions.space import Partitions
    from headwater.catalog.partitions.subset import PartitionSubset
    from headwater.materialize.automation.conditions.facts import Facts

#: How what is made of other parts is shown.
_SHOWN = {
    "and": "all of",
    "or": "any of",
    "not": "not",
    "since": "the first, since the second",
    "newly_true": "newly",
    "any_deps_match": "any dependency",
    "all_deps_match": "each dependency",
}


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Part:
    """A part of a condition and where it is true."""

    name: str
    label: str | None
    #: How it is written.
    text: str
    #: The asset of whose cells it is true.
    asset: AssetKey
    true: "PartitionSubset"
    operands: "tuple[Part, ...]" = ()

    @property
    def shown(self) -> str:
        """A few words for it."""
        if not self.operands:
            return self.label or self.text
        said = _SHOWN.get(self.name, self.name)
        return f"{self.label}: {said}" if self.label else said

    def to_json(self, above: AssetKey | None = None) -> dict[str, Any]:
        """Plain data. `above` is the asset of the part that this is one of: another one is named."""
        total = self.true.partitions.count
        found: dict[str, Any] = {"name": self.name, "true": len(self.true), "of": total}
        if not self.operands:
            found["condition"] = self.text
        if self.label is not None:
            found["label"] = self.label
        if self.asset != above:
            found["asset"] = str(self.asset)
        if 0 < len(self.true) < total:
            found["partitions"] = self.true.to_json()
        if self.operands:
            found["operands"] = [one.to_json(self.asset) for one in self.operands]
        return found


def part_from_json(
    data: Mapping[str, Any], partitions: "Callable[[AssetKey], Partitions | None]", above: AssetKey | None = None
) -> Part | None:
    """What `Part.to_json` wrote, as far as `partitions` still knows its assets, and they are divided as they were."""
    asset = AssetKey(data["asset"]) if "asset" in data else above
    space = None if asset is None else partitions(asset)
    if asset is None or space is None:
        return None
    try:
        true = space.all() if data["true"] else space.none()
        if "partitions" in data:
            true, _ = space.read_subset(data["partitions"])
    except UsageError:
        return None
    operands = (part_from_json(one, partitions, asset) for one in data.get("operands", ()))
    return Part(
        name=data["name"],
        label=data.get("label"),
        text=data.get("condition", ""),
        asset=asset,
        true=true,
        operands=tuple(one for one in operands if one is not None),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A line of a tree: of how many cells of some a part is true."""

    depth: int
    part: Part
    #: Whether it is of another asset than the part above.
    elsewhere: bool
    true: int
    of: int


def rows(
    part: Part, facts: "Facts", among: "PartitionSubset", depth: int = 0, above: Part | None = None
) -> Iterator[Row]:
    """A tree line by line, told of some cells of its asset, and of what those read of others."""
    elsewhere = above is None or above.asset != part.asset
    yield Row(depth=depth, part=part, elsewhere=elsewhere, true=len(part.true & among), of=len(among))
    for one in part.operands:
        yield from rows(one, facts, _read(part.asset, one.asset, facts, among), depth + 1, part)


def _read(asset: AssetKey, other: AssetKey, facts: "Facts", among: "PartitionSubset") -> "PartitionSubset":
    """What some cells of an asset read of another; all of one that it does not depend on."""
    if other == asset:
        return among
    for dep in facts.graph[asset].deps:
        if dep.key == other:
            return facts.links(facts.graph[asset], dep).upstream(among).subset
    return facts.partitions(other).all()
