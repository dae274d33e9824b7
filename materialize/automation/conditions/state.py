"""What an evaluation of conditions leaves for the next one, as plain JSON data."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from headwater.catalog.keys import AssetKey
from headwater.catalog.records import ConditionState
from headwater.catalog.storage.base import CatalogReader


@dataclass(frozen=True, slots=True, kw_only=True)
class AssetState:
    """What is remembered of one asset. Sets of partitions are as `PartitionSubset.to_json` writes them."""

    #: Its condition, by a digest of how it is written; empty where it has none.
    condition: str = ""
    #: What was requested of it; None for nothing.
    requested: Mapping[str, Any] | None = None
    #: The version of its code, where a condition asks for that.
    code: str | None = None
    #: Where parts of conditions were true, by their digests, as far as the next evaluation has to know.
    parts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])
    #: A digest of all that was true, to tell whether anything is different.
    digest: str = ""

    def to_json(self) -> dict[str, Any]:
        """Without what is empty; `from_json` reads it back."""
        data = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {name: value for name, value in data.items() if value}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "AssetState":
        """What `to_json` wrote."""
        return AssetState(**data)


NOTHING = AssetState()


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What is remembered of all."""

    #: When the evaluation before was; None where there was none.
    at: datetime | None = None
    #: The number of the last event that it knew of.
    seen: int = 0
    assets: Mapping[AssetKey, AssetState] = field(default_factory=dict[AssetKey, AssetState])

    @staticmethod
    def last(catalog: CatalogReader) -> "State":
        """What the last evaluation that a catalog knows of left."""
        states = catalog.condition_states()
        common = next((one.data for one in states if one.asset is None), None)
        if common is None:
            return State()
        assets = {one.asset: AssetState.from_json(one.data) for one in states if one.asset is not None and one.data}
        return State(at=datetime.fromisoformat(common["at"]), seen=common["seen"], assets=assets)

    def to_records(self, changed: Collection[AssetKey]) -> tuple[ConditionState, ...]:
        """What is to be recorded of it, where only these assets are not what they were."""
        assert self.at is not None  # it was made by an evaluation
        common = {"at": self.at.isoformat(), "seen": self.seen}
        of_assets = (ConditionState(asset=key, data=self.of(key).to_json()) for key in sorted(changed))
        return (ConditionState(asset=None, data=common), *of_assets)

    def of(self, key: AssetKey) -> AssetState:
        """What is remembered of one asset."""
        return self.assets.get(key, NOTHING)
