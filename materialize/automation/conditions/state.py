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
class Quiet:
    """Until when an evaluation finds nothing different, if nothing happens and definitions stay as they are."""

    #: None for ever.
    until: datetime | None
    #: A digest of the definitions.
    definitions: str


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What is remembered of all."""

    #: When the evaluation before was; None where there was none.
    at: datetime | None = None
    #: The number of the last event that it knew of.
    seen: int = 0
    #: Whether nothing was different then, and until when that stays so if nothing happens; None where that is unknown.
    quiet: Quiet | None = None
    assets: Mapping[AssetKey, AssetState] = field(default_factory=dict[AssetKey, AssetState])

    @staticmethod
    def last(catalog: CatalogReader, *, common: bool = False) -> "State":
        """What the last evaluation that a catalog knows of left; with `common`, without what is about single assets."""
        states = catalog.condition_states(common=common)
        data = next((one.data for one in states if one.asset is None), None)
        if data is None:
            return State()
        quiet = data.get("quiet")
        return State(
            at=datetime.fromisoformat(data["at"]),
            seen=data["seen"],
            quiet=quiet and Quiet(until=_moment(quiet["until"]), definitions=quiet["definitions"]),
            assets={one.asset: AssetState.from_json(one.data) for one in states if one.asset is not None and one.data},
        )

    def to_records(self, changed: Collection[AssetKey]) -> tuple[ConditionState, ...]:
        """What is to be recorded of it, where only these assets are not what they were."""
        assert self.at is not None  # it was made by an evaluation
        common: dict[str, Any] = {"at": self.at.isoformat(), "seen": self.seen}
        if self.quiet is not None:
            until = self.quiet.until
            common["quiet"] = {
                "until": None if until is None else until.isoformat(),
                "definitions": self.quiet.definitions,
            }
        of_assets = (ConditionState(asset=key, data=self.of(key).to_json()) for key in sorted(changed))
        return (ConditionState(asset=None, data=common), *of_assets)

    def of(self, key: AssetKey) -> AssetState:
        """What is remembered of one asset."""
        return self.assets.get(key, NOTHING)


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
