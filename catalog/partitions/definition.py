"""What every partitions definition is, and the moment at which it is asked."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, cast

import msgspec

from headwater.catalog.errors import DefinitionError, UsageError
from headwater.catalog.printable import printable_line

if TYPE_CHECKING:
    from headwater.catalog.partitions.space import Partitions


class TimeWindow(NamedTuple):
    """A stretch of time, `start` included and `end` not; both are aware datetimes in the definition's zone."""

    start: datetime
    end: datetime


class PartitionKeyRange(NamedTuple):
    """All partitions from `start` to `end`, both included, in the order of their definition."""

    start: str
    end: str

    def __str__(self) -> str:
        return f"{self.start}..{self.end}"


class DynamicKeys(Protocol):
    """Where the keys of dynamic partitions are: the catalog, or a dict in tests.

    Keys of one `name` have an order (the one they were added in) and positions without holes.
    """

    def count(self, name: str) -> int:
        """How many keys there are."""
        ...

    def indexes(self, name: str, keys: Sequence[str]) -> Sequence[int]:
        """The position of each key, -1 for those that do not exist."""
        ...

    def slice(self, name: str, start: int, stop: int) -> Sequence[str]:
        """The keys at positions `start` to `stop`, the last not included."""
        ...


class InMemoryDynamicKeys:
    """Dynamic keys in a dict: `InMemoryDynamicKeys({"customers": ["ada", "bob"]})`."""

    def __init__(self, keys: Mapping[str, Sequence[str]] | None = None) -> None:
        self._keys = {name: list(dict.fromkeys(values)) for name, values in (keys or {}).items()}
        self._indexes = {name: {key: i for i, key in enumerate(values)} for name, values in self._keys.items()}

    def count(self, name: str) -> int:
        """How many keys there are."""
        return len(self._keys.get(name, ()))

    def indexes(self, name: str, keys: Sequence[str]) -> Sequence[int]:
        """The position of each key, -1 for those that do not exist."""
        known = self._indexes.get(name, {})
        return [known.get(key, -1) for key in keys]

    def slice(self, name: str, start: int, stop: int) -> Sequence[str]:
        """The keys at positions `start` to `stop`, the last not included."""
        return self._keys.get(name, [])[start:stop]


@dataclass(frozen=True, slots=True)
class PartitionsContext:
    """The moment at which partitions are asked for, and where dynamic keys are. Raises `UsageError`."""

    #: With a time zone. Nothing here asks a clock.
    moment: datetime
    dynamic: DynamicKeys = field(default_factory=InMemoryDynamicKeys)

    def __post_init__(self) -> None:
        if not isinstance(cast(object, self.moment), datetime) or self.moment.utcoffset() is None:
            raise UsageError(
                f"The moment {self.moment!r} is no datetime with a time zone.",
                remedy="Use datetime(…, tzinfo=timezone.utc).",
            )


class PartitionsDefinition(ABC):
    """What an asset is divided into. Definitions are immutable and equal when they mean the same."""

    __slots__ = ()
    #: Names the kind in JSON.
    kind: ClassVar[str]

    @abstractmethod
    def at(self, context: PartitionsContext) -> "Partitions":
        """The partitions that exist at a moment; all arithmetic with keys and ordinals starts there."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """Plain data that `definition_from_json` makes an equal definition of."""

    @abstractmethod
    def describe(self) -> str:
        """One line for messages: "daily from 2013-01-01"."""

    def key_meaning(self) -> Any:
        """Plain data that differs where the same key means something else, so that what was built for it is stale.

        None where a key means just itself. Which partitions there are does not count.
        """
        return None

    @property
    def fingerprint(self) -> str:
        """32 hexadecimal digits: the same for equal definitions, in every process and version."""
        return hashlib.sha256(msgspec.json.encode(self._meaning(), order="deterministic")).hexdigest()[:32]

    def _meaning(self) -> dict[str, Any]:
        """What makes two definitions equal."""
        return self.to_json()

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, PartitionsDefinition) and self._meaning() == other._meaning())

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {printable_line(self.describe(), 200)}>"

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"A {type(self).__name__} cannot be changed; make another.")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"A {type(self).__name__} cannot be changed; make another.")

    def __reduce__(self) -> tuple[Any, ...]:
        return definition_from_json, (self.to_json(),)


def set_field(definition: PartitionsDefinition, name: str, value: object) -> None:
    """For constructors of definitions alone, which are immutable afterwards."""
    object.__setattr__(definition, name, value)


def definition_from_json(data: Mapping[str, Any]) -> PartitionsDefinition:
    """The definition that `to_json` described. Raises `DefinitionError`."""
    from headwater.catalog.partitions.dynamic import DynamicPartitionsDefinition
    from headwater.catalog.partitions.multi import MultiPartitionsDefinition
    from headwater.catalog.partitions.static import StaticPartitionsDefinition
    from headwater.catalog.partitions.time_window import TIME_WINDOW_KINDS

    kinds: dict[str, Callable[[Mapping[str, Any]], PartitionsDefinition]] = {
        "static": StaticPartitionsDefinition.from_json,
        "dynamic": DynamicPartitionsDefinition.from_json,
        "multi": MultiPartitionsDefinition.from_json,
        **{kind: cls.from_json for kind, cls in TIME_WINDOW_KINDS.items()},
    }
    make = kinds.get(data.get("kind", "")) if isinstance(cast(object, data), Mapping) else None
    if make is None:
        raise DefinitionError(
            "This is no partitions definition in JSON.", remedy="It was written by another version of Headwater."
        )
    try:
        return make(data)
    except (KeyError, TypeError, ValueError) as error:
        raise DefinitionError(
            f"A partitions definition in JSON is damaged: {printable_line(repr(error), 200)}.",
            remedy="It was written by another version of Headwater.",
        ) from None
