"""Which upstream partitions a downstream partition reads: mappings as values, inferred and validated."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import date
from typing import TYPE_CHECKING, Any, ClassVar, cast

from headwater.catalog.errors import DefinitionError, PartitionMappingError
from headwater.catalog.keys import validate_partition_key
from headwater.catalog.partitions.definition import PartitionsDefinition
from headwater.catalog.partitions.multi import MultiPartitionsDefinition
from headwater.catalog.partitions.static import StaticPartitionsDefinition
from headwater.catalog.partitions.time_window import TimeWindowPartitionsDefinition
from headwater.catalog.printable import printable_line

if TYPE_CHECKING:
    from headwater.catalog.partitions.links import Links
    from headwater.catalog.partitions.space import Partitions

#: None is an asset without partitions.
MaybePartitions = PartitionsDefinition | None


@dataclass(frozen=True, slots=True)
class PartitionMapping(ABC):
    """Which partitions of an upstream asset each partition of a downstream asset reads. Immutable."""

    #: Names the kind in JSON.
    kind: ClassVar[str]

    @abstractmethod
    def links(self, downstream: "Partitions", upstream: "Partitions") -> "Links":
        """The mapping between two assets' partitions at one moment, both ways."""

    @abstractmethod
    def validate(self, downstream: MaybePartitions, upstream: MaybePartitions) -> None:
        """Raises `PartitionMappingError` where the mapping cannot connect these definitions."""

    @property
    def reads_only_earlier(self) -> bool:
        """No partition can read itself or a later one: what a dependency of an asset on itself needs."""
        return False

    @property
    def reads_none_later(self) -> bool:
        """No partition can read a later one: what assets need that one step computes from each other."""
        return self.reads_only_earlier

    @property
    def reads_the_one_before(self) -> bool:
        """Of an asset that reads itself: each partition but the first reads the one before it, whatever else."""
        return False

    def reads_one(self, downstream: MaybePartitions, upstream: MaybePartitions) -> bool:
        """Whether no partition can read more than one: then a parameter is its value, and no collection."""
        return upstream is None

    def to_json(self) -> dict[str, Any]:
        """Plain data that `mapping_from_json` makes an equal mapping of."""
        return {"kind": self.kind, **{one.name: getattr(self, one.name) for one in fields(self)}}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "PartitionMapping":
        """The mapping that `to_json` described."""
        return cls(**{name: value for name, value in data.items() if name != "kind"})

    def _error(
        self, reason: str, downstream: MaybePartitions, upstream: MaybePartitions, remedy: str
    ) -> PartitionMappingError:
        return PartitionMappingError(
            f"{type(self).__name__} cannot map {_describe(upstream)} to {_describe(downstream)}: {reason}.",
            remedy=remedy,
        )


def _describe(definition: MaybePartitions) -> str:
    return "an unpartitioned asset" if definition is None else f"[{printable_line(definition.describe(), 150)}]"


@dataclass(frozen=True, slots=True)
class IdentityPartitionMapping(PartitionMapping):
    """The upstream partition with the same key; where there is none, it is nonexistent."""

    kind: ClassVar[str] = "identity"

    def links(self, downstream: "Partitions", upstream: "Partitions") -> "Links":
        """Key by key."""
        from headwater.catalog.partitions.links import identity_links

        return identity_links(downstream, upstream)

    @property
    def reads_none_later(self) -> bool:
        """Only itself."""
        return True

    def reads_one(self, downstream: MaybePartitions, upstream: MaybePartitions) -> bool:
        """The one with its key."""
        return True

    def validate(self, downstream: MaybePartitions, upstream: MaybePartitions) -> None:
        """Keys have to be comparable."""
        if (downstream is None) != (upstream is None):
            raise self._error(
                "only one of them is partitioned",
                downstream,
                upstream,
                "Use AllPartitionMapping, LastPartitionMapping or SpecificPartitionsPartitionMapping.",
            )
        multi = [isinstance(one, MultiPartitionsDefinition) for one in (downstream, upstream)]
        if multi[0] != multi[1]:
            raise self._error(
                "only one of them has several dimensions",
                downstream,
                upstream,
                "Name the dimension: MultiToSingleDimensionPartitionMapping('…').",
            )
        if isinstance(downstream, MultiPartitionsDefinition) and isinstance(upstream, MultiPartitionsDefinition):
            if downstream.dimensions.keys() != upstream.dimensions.keys():
                raise self._error(
                    "their dimensions are not the same", downstream, upstream, "Use MultiPartitionMapping({…})."
                )
            for name, one in downstream.dimensions.items():
                self.validate(one, upstream.dimensions[name])
        if (
            isinstance(downstream, StaticPartitionsDefinition)
            and isinstance(upstream, StaticPartitionsDefinition)
            and downstream.partition_keys
            and upstream.partition_keys
            and not upstream.indexes.keys() & downstream.indexes.keys()
        ):
            raise self._error("they have no key in common", downstream, upstream, "Use StaticPartitionMapping({…}).")
        for listed, windows in ((downstream, upstream), (upstream, downstream)):
            if (
                isinstance(listed, StaticPartitionsDefinition)
                and isinstance(windows, TimeWindowPartitionsDefinition)
                and listed.partition_keys
                and not any(map(windows.may_have, listed.partition_keys))
            ):
                raise self._error(
                    "they have no key in common",
                    downstream,
                    upstream,
                    "Use AllPartitionMapping, LastPartitionMapping or SpecificPartitionsPartitionMapping.",
                )


@dataclass(frozen=True, slots=True)
class AllPartitionMapping(PartitionMapping):
    """Every upstream partition there is."""

    kind: ClassVar[str] = "all"

    def links(self, downstream: "Partitions", upstream: "Partitions") -> "Links":
        """The same for every partition."""
        from headwater.catalog.partitions.links import ConstantLinks

        return ConstantLinks(downstream, upstream, upstream.all())

    def validate(self, downstream: MaybePartitions, upstream: MaybePartitions) -> None:
        """It connects everything."""


@dataclass(frozen=True, slots=True)
class LastPartitionMapping(PartitionMapping):
    """The last upstream partition there is."""

    kind: ClassVar[str] = "last"

    def links(self, downstream: "Partitions", upstream: "Partitions") -> "Links":
        """The same for every partition."""
        from headwater.catalog.partitions.links import ConstantLinks

        return ConstantLinks(downstream, upstream, upstream.last())

    def reads_one(self, downstream: MaybePartitions, upstream: MaybePartitions) -> bool:
        """The last."""
        return True

    def validate(self, downstream: MaybePartitions, upstream: MaybePartitions) -> None:
        """There has to be an order."""
        if upstream is None:
            raise self._error("the upstream asset has no partitions", downstream, upstream, "Leave the mapping out.")
        if isinstance(upstream, MultiPartitionsDefinition):
            raise self._error(
                "partitions of several dimensions have no last one",
                downstream,
                upstream,
                "Use it for one dimension: MultiPartitionMapping({'…': DimensionPartitionMapping('…', "
                "LastPartitionMapping())}).",
            )


@dataclass(frozen=True, slots=True)
class SpecificPartitionsPartitionMapping(PartitionMapping):
    """The upstream partitions with these keys."""

    kind: ClassVar[str] = "specific"
    partition_keys: Sequence[str]

    def __post_init__(self) -> None:
        if isinstance(self.partition_keys, str):
            raise DefinitionError(
                "SpecificPartitionsPartitionMapping takes a list of keys.", remedy=f"Write [{self.partition_keys!r}]."
            )
        keys = dict.fromkeys(validate_partition_key(key) for key in self.partition_keys)
        object.__setattr__(self, "partition_keys", tuple(keys))

    def to_json(self) -> dict[str, Any]:
        """The keys."""
        return {"kind": self.kind, "partition_keys": list(self.partition_keys)}

    def links(self, downstream: "Partitions", upstream: "Partitions") -> "Links":
        """The same for every partition."""
        from headwater.catalog.partitions.links import ConstantLinks

        found = upstream.ordinals(self.partition_keys)
        missing = tuple(key for key, at in zip(self.partition_keys, found.tolist(), strict=True) if at < 0)
        return ConstantLinks(downstream, upstream, upstream.subset_of_ordinals(found), missing)

    def reads_one(self, downstream: MaybePartitions, upstream: MaybePartitions) -> bool:
        """Where one is named."""
        return len(self.partition_keys) == 1

    def validate(self, downstream: MaybePartitions, upstream: MaybePartitions) -> None:
        """Keys of a list have to be in it, those of windows be written so; others may come to exist."""
        if upstream is None:
            raise self._error("the upstream asset has no partitions", downstream, upstream, "Leave the mapping out.")
        for key in self.partition_keys:
            if (isinstance(upstream, StaticPartitionsDefinition) and key not in upstream.indexes) or (
                isinstance(upstream, TimeWindowPartitionsDefinition) and not upstream.may_have(key)
            ):
                raise self._error(
                    f"there is no upstream partition '{printable_line(key, 80)}'",
                    downstream,
                    upstream,
                    "Name partitions that exist.",
                )


@dataclass(frozen=True, slots=True)
class StaticPartitionMapping(PartitionMapping):
    """Which downstream keys read each upstream key: `StaticPartitionMapping({"jan": "q1", "feb": {"q1", "h1"}})`."""

    kind: ClassVar[str] = "static"
    downstream_partition_keys_by_upstream_partition_key: Mapping[str, str | Collection[str]]

    def __post_init__(self) -> None:
        given = cast(object, self.downstream_partition_keys_by_upstream_partition_key)
        if not isinstance(given, Mapping):
            raise DefinitionError(
                "StaticPartitionMapping takes a mapping from upstream to downstream keys.",
                remedy="Write it like {'jan': 'q1', 'feb': {'q1', 'h1'}}.",
            )
        pairs = {
            str(up): (down,) if isinstance(down, str) else tuple(sorted(set(down)))
            for up, down in cast(Mapping[str, str | Collection[str]], given).items()
        }
        object.__setattr__(self, "downstream_partition_keys_by_upstream_partition_key", pairs)

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Upstream and downstream keys."""
        return [
            (up, one) for up, down in self.downstream_partition_keys_by_upstream_partition_key.items() for one in down
        ]

    def to_json(self) -> dict[str, Any]:
        """Lists of downstream keys."""
        keys = {up: list(down) for up, down in self.downstream_partition_keys_by_upstream_partition_key.items()}
        return {"kind": self.kind, "downstream_partition_keys_by_upstream_partition_key": keys}

    def __hash__(self) -> int:
        return hash(tuple(self.pairs))

    def links(self, downstream: "Partitions", upstream: "Partitions") -> "Links":
        """Pair by pair."""
        from headwater.catalog.partitions.links import links_of_pairs

        pairs = self.pairs
        return links_of_pairs(
            downstream,
            upstream,
            downstream.ordinals([down for _, down in pairs]),
            upstream.ordinals([up for up, _ in pairs]),
        )

    def validate(self, downstream: MaybePartitions, upstream: MaybePartitions) -> None:
        """Both are lists, and every key is in its list."""
        if not isinstance(downstream, StaticPartitionsDefinition) or not isinstance(
            upstream, StaticPartitionsDefinition
        ):
            raise self._error("both have to be static", downstream, upstream, "Use another mapping.")
        for up, down in self.pairs:
            for key, side, known in ((up, "upstream", upstream), (down, "downstream", downstream)):
                if key not in known.indexes:
                    raise self._error(
                        f"there is no {side} partition '{printable_line(key, 80)}'",
                        downstream,
                        upstream,
                        "Correct the key; the mapping goes from upstream to downstream keys.",
                    )


@dataclass(frozen=True, slots=True)
class _OffsetMapping(PartitionMapping):
    start_offset: int = 0
    end_offset: int = 0
    allow_nonexistent_upstream_partitions: bool = False

    def __post_init__(self) -> None:
        offsets = (self.start_offset, self.end_offset)
        if any(not isinstance(cast(object, one), int) or abs(one) > 1 << 31 for one in offsets):
            raise DefinitionError(f"The offsets {offsets} are no whole numbers.", remedy="Use small whole numbers.")
        if self.start_offset > self.end_offset:
            raise DefinitionError(
                f"start_offset {self.start_offset} is after end_offset {self.end_offset}: nothing would be read.",
                remedy="For the window before alone give both: start_offset=-1, end_offset=-1.",
            )

    @property
    def reads_only_earlier(self) -> bool:
        """With offsets below 0."""
        return self.end_offset < 0

    @property
    def reads_none_later(self) -> bool:
        """With offsets up to 0."""
        return self.end_offset <= 0

    def reads_one(self, downstream: MaybePartitions, upstream: MaybePartitions) -> bool:
        """Where windows are the same on both sides and one is read of them."""
        return (
            isinstance(downstream, TimeWindowPartitionsDefinition)
            and isinstance(upstream, TimeWindowPartitionsDefinition)
            and downstream.cron_schedule == upstream.cron_schedule
            and self.start_offset == self.end_offset
        )

    def validate(self, downstream: MaybePartitions, upstream: MaybePartitions) -> None:
        """Both are windows of time in one zone."""
        if not isinstance(downstream, TimeWindowPartitionsDefinition) or not isinstance(
            upstream, TimeWindowPartitionsDefinition
        ):
            raise self._error("both have to be windows of time", downstream, upstream, "Use another mapping.")
        if downstream.timezone != upstream.timezone:
            raise self._error(
                f"their time zones are {upstream.timezone} and {downstream.timezone}",
                downstream,
                upstream,
                "Give both assets the same time zone.",
            )


@dataclass(frozen=True, slots=True)
class TimeWindowPartitionMapping(_OffsetMapping):
    """All upstream windows that share time with the downstream window, moved by offsets.

    It reads from the window `start_offset` windows away (counted in downstream windows) to the one `end_offset` away:
    `start_offset=-1` is yesterday and today, `-1, -1` yesterday alone; time between the two that downstream exclusions
    leave out is read too. Upstream windows that do not exist are
    nonexistent, an error unless allowed; those that only an offset reaches, before the first or after the last, are
    left out.
    """

    kind: ClassVar[str] = "time_window"

    @property
    def reads_the_one_before(self) -> bool:
        """With -1 as the last offset."""
        return self.end_offset == -1

    def links(self, downstream: "Partitions", upstream: "Partitions") -> "Links":
        """By arithmetic."""
        from headwater.catalog.partitions.links import window_links

        return window_links(self, downstream, upstream)


#: Monday to Sunday, 1 for working days.
_WEEK = "1111100"


@dataclass(frozen=True, slots=True)
class BusinessCalendarPartitionMapping(_OffsetMapping):
    """As `TimeWindowPartitionMapping`, reading only windows that start on business days, with offsets in those.

    Offset 0 is the business days in the downstream window itself, -1 the last one before it, 1 the first after it: on
    a Monday, `start_offset=-1, end_offset=-1` reads Friday. `working_days` are seven signs from Monday, 1 for a working
    day.
    """

    kind: ClassVar[str] = "business_calendar"
    #: Dates, or texts like "2024-12-25".
    holidays: Sequence[date | str] = ()
    working_days: str = _WEEK

    def __post_init__(self) -> None:
        # A slots dataclass is another class than the one that super() without arguments would mean.
        _OffsetMapping.__post_init__(self)
        if isinstance(self.holidays, str):
            raise DefinitionError("holidays is a list of dates.", remedy=f"Write [{self.holidays!r}].")
        try:
            found = {one if isinstance(one, str) else one.isoformat()[:10] for one in self.holidays}
            days = tuple(sorted(date.fromisoformat(one).isoformat() for one in found))
        except (ValueError, AttributeError) as error:
            raise DefinitionError(
                f"A holiday is no date: {printable_line(str(error), 80)}.", remedy="Write it like '2024-12-25'."
            ) from None
        object.__setattr__(self, "holidays", days)
        if len(self.working_days) != 7 or set(self.working_days) - {"0", "1"} or "1" not in self.working_days:
            raise DefinitionError(
                f"working_days is '{printable_line(self.working_days, 20)}'.",
                remedy=f"Write seven signs from Monday to Sunday, 1 for a working day: '{_WEEK}'.",
            )

    def to_json(self) -> dict[str, Any]:
        """Holidays as texts."""
        return {**PartitionMapping.to_json(self), "holidays": list(self.holidays)}

    def links(self, downstream: "Partitions", upstream: "Partitions") -> "Links":
        """By counting business days."""
        from headwater.catalog.partitions.links import business_links

        return business_links(self, downstream, upstream)


@dataclass(frozen=True, slots=True)
class DimensionPartitionMapping:
    """The downstream dimension that an upstream dimension is read by, and how (inferred when None)."""

    dimension_name: str
    partition_mapping: PartitionMapping | None = None

    def __post_init__(self) -> None:
        validate_partition_key(self.dimension_name, "dimension name")


@dataclass(frozen=True, slots=True)
class MultiPartitionMapping(PartitionMapping):
    """One mapping for each upstream dimension; of a dimension not named here, all is read.

    `MultiPartitionMapping({"day": DimensionPartitionMapping("month"), "origin": DimensionPartitionMapping("origin")})`
    """

    kind: ClassVar[str] = "multi"
    downstream_mappings_by_upstream_dimension: Mapping[str, DimensionPartitionMapping]

    def __post_init__(self) -> None:
        given = dict(self.downstream_mappings_by_upstream_dimension)
        for name, one in given.items():
            if not isinstance(cast(object, one), DimensionPartitionMapping):
                raise DefinitionError(
                    f"The dimension '{printable_line(str(name), 60)}' is mapped by a {type(one).__name__}.",
                    remedy="Use DimensionPartitionMapping('downstream dimension', mapping).",
                )
        object.__setattr__(
            self, "downstream_mappings_by_upstream_dimension", {name: given[name] for name in sorted(given)}
        )

    def __hash__(self) -> int:
        return hash(tuple(self.downstream_mappings_by_upstream_dimension.items()))

    @property
    def reads_only_earlier(self) -> bool:
        """When one dimension does."""
        return any(
            one.partition_mapping is not None and one.partition_mapping.reads_only_earlier
            for one in self.downstream_mappings_by_upstream_dimension.values()
        )

    def to_json(self) -> dict[str, Any]:
        """Mappings by dimension."""
        return {
            "kind": self.kind,
            "dimensions": {
                name: [one.dimension_name, one.partition_mapping and one.partition_mapping.to_json()]
                for name, one in self.downstream_mappings_by_upstream_dimension.items()
            },
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> PartitionMapping:
        """The mapping that `to_json` described."""
        return cls(
            {
                name: DimensionPartitionMapping(down, None if one is None else mapping_from_json(one))
                for name, (down, one) in data["dimensions"].items()
            }
        )

    def links(self, downstream: "Partitions", upstream: "Partitions") -> "Links":
        """Dimension by dimension."""
        from headwater.catalog.partitions.links import product_links

        return product_links(
            downstream,
            upstream,
            {
                name: (one.dimension_name, one.partition_mapping)
                for name, one in self.downstream_mappings_by_upstream_dimension.items()
            },
        )

    def reads_one(self, downstream: MaybePartitions, upstream: MaybePartitions) -> bool:
        """When each upstream dimension does."""
        return (
            isinstance(downstream, MultiPartitionsDefinition)
            and isinstance(upstream, MultiPartitionsDefinition)
            and all(
                (given := self.downstream_mappings_by_upstream_dimension.get(name)) is not None
                and (
                    given.partition_mapping or infer_mapping(downstream.dimensions[given.dimension_name], one)
                ).reads_one(downstream.dimensions[given.dimension_name], one)
                for name, one in upstream.dimensions.items()
            )
        )

    def validate(self, downstream: MaybePartitions, upstream: MaybePartitions) -> None:
        """The dimensions exist, are used once, and can be mapped."""
        if not isinstance(downstream, MultiPartitionsDefinition) or not isinstance(upstream, MultiPartitionsDefinition):
            raise self._error(
                "both have to have several dimensions",
                downstream,
                upstream,
                "Use MultiToSingleDimensionPartitionMapping('…').",
            )
        used: set[str] = set()
        for name, one in self.downstream_mappings_by_upstream_dimension.items():
            for dimension, side, known in (
                (name, "upstream", upstream),
                (one.dimension_name, "downstream", downstream),
            ):
                if dimension not in known.dimensions:
                    raise self._error(
                        f"there is no {side} dimension '{printable_line(dimension, 60)}'",
                        downstream,
                        upstream,
                        f"Use one of {', '.join(known.dimensions)}.",
                    )
            if one.dimension_name in used:
                raise self._error(
                    f"the downstream dimension '{one.dimension_name}' is used twice",
                    downstream,
                    upstream,
                    "Map each downstream dimension to one upstream dimension at most.",
                )
            used.add(one.dimension_name)
            down, up = downstream.dimensions[one.dimension_name], upstream.dimensions[name]
            (one.partition_mapping or infer_mapping(down, up)).validate(down, up)


@dataclass(frozen=True, slots=True)
class MultiToSingleDimensionPartitionMapping(PartitionMapping):
    """Between several dimensions on one side and one on the other: that dimension is mapped, of the others all is read.

    The dimension is the one whose definition equals the other asset's, unless it is named; `partition_mapping` maps it
    (inferred when None).
    """

    kind: ClassVar[str] = "multi_to_single"
    partition_dimension_name: str | None = None
    partition_mapping: PartitionMapping | None = None

    def to_json(self) -> dict[str, Any]:
        """The dimension and its mapping."""
        return {
            "kind": self.kind,
            "partition_dimension_name": self.partition_dimension_name,
            "partition_mapping": self.partition_mapping and self.partition_mapping.to_json(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> PartitionMapping:
        """The mapping that `to_json` described."""
        one = data["partition_mapping"]
        return cls(data["partition_dimension_name"], None if one is None else mapping_from_json(one))

    def links(self, downstream: "Partitions", upstream: "Partitions") -> "Links":
        """As a product with one dimension on one side."""
        from headwater.catalog.partitions.links import single_dimension_links

        return single_dimension_links(self, downstream, upstream)

    def dimension(self, multi: MultiPartitionsDefinition, single: PartitionsDefinition) -> str | None:
        """The dimension that is mapped, None where it is not clear."""
        if self.partition_dimension_name is not None:
            return self.partition_dimension_name
        equal = [name for name, one in multi.dimensions.items() if one == single]
        return equal[0] if len(equal) == 1 else None

    def reads_one(self, downstream: MaybePartitions, upstream: MaybePartitions) -> bool:
        """When the upstream side has the one dimension, and its mapping does."""
        if upstream is None or not isinstance(downstream, MultiPartitionsDefinition):
            return False
        name = self.dimension(downstream, upstream)
        if name is None:
            return False
        one = downstream.dimensions[name]
        return (self.partition_mapping or infer_mapping(one, upstream)).reads_one(one, upstream)

    def validate(self, downstream: MaybePartitions, upstream: MaybePartitions) -> None:
        """One side has several dimensions, and the dimension is clear and can be mapped."""
        if isinstance(upstream, MultiPartitionsDefinition):
            multi, single = upstream, downstream
        else:
            multi, single = downstream, upstream
        if not isinstance(multi, MultiPartitionsDefinition) or single is None:
            raise self._error(
                "one has to have several dimensions and the other one", downstream, upstream, "Use another mapping."
            )
        if isinstance(single, MultiPartitionsDefinition):
            raise self._error("both have several dimensions", downstream, upstream, "Use MultiPartitionMapping({…}).")
        name = self.dimension(multi, single)
        if name is None or name not in multi.dimensions:
            reason = (
                "which dimension to map is not clear"
                if name is None
                else f"there is no dimension '{printable_line(name, 60)}'"
            )
            raise self._error(reason, downstream, upstream, f"Name one of {', '.join(multi.dimensions)}.")
        one = multi.dimensions[name]
        down, up = (single, one) if multi is upstream else (one, single)
        (self.partition_mapping or infer_mapping(down, up)).validate(down, up)


def infer_mapping(downstream: MaybePartitions, upstream: MaybePartitions) -> PartitionMapping:
    """The mapping of a dependency that names none."""
    if downstream is None or upstream is None:
        return AllPartitionMapping()
    for multi, single in ((upstream, downstream), (downstream, upstream)):
        if (
            isinstance(multi, MultiPartitionsDefinition)
            and not isinstance(single, MultiPartitionsDefinition)
            and sum(one == single for one in multi.dimensions.values()) == 1
        ):
            return MultiToSingleDimensionPartitionMapping()
    if isinstance(downstream, TimeWindowPartitionsDefinition) and isinstance(upstream, TimeWindowPartitionsDefinition):
        return TimeWindowPartitionMapping()
    return IdentityPartitionMapping()


def resolve_mapping(
    mapping: PartitionMapping | None,
    downstream: MaybePartitions,
    upstream: MaybePartitions,
    *,
    downstream_name: str = "",
    upstream_name: str = "",
) -> PartitionMapping:
    """The mapping of one dependency, given or inferred, checked when definitions are loaded.

    Raises `PartitionMappingError` naming the assets and their definitions.
    """
    if mapping is not None and not isinstance(cast(object, mapping), PartitionMapping):
        raise PartitionMappingError(
            f"The partition_mapping of `{upstream_name}` in `{downstream_name}` is a {type(mapping).__name__}.",
            remedy="Use a mapping such as TimeWindowPartitionMapping().",
        )
    found = mapping if mapping is not None else infer_mapping(downstream, upstream)
    try:
        found.validate(downstream, upstream)
        if downstream_name and downstream_name == upstream_name and not found.reads_only_earlier:
            if downstream is None:
                raise PartitionMappingError("It would be made of itself.", remedy="Remove this dependency.")
            raise PartitionMappingError(
                f"{type(found).__name__} lets partitions of {_describe(downstream)} read themselves.",
                remedy="An asset may read its own earlier windows: partition_mapping=TimeWindowPartitionMapping"
                "(start_offset=-1, end_offset=-1).",
            )
    except PartitionMappingError as error:
        if not downstream_name:
            raise
        raise PartitionMappingError(
            f"`{downstream_name}` cannot read `{upstream_name}`. {error.message}", remedy=error.remedy
        ) from None
    return found


def mapping_from_json(data: Mapping[str, Any]) -> PartitionMapping:
    """The mapping that `to_json` described. Raises `DefinitionError`."""
    kinds: dict[str, Callable[[Mapping[str, Any]], PartitionMapping]] = {
        cls.kind: cls.from_json
        for cls in (
            IdentityPartitionMapping,
            AllPartitionMapping,
            LastPartitionMapping,
            SpecificPartitionsPartitionMapping,
            StaticPartitionMapping,
            TimeWindowPartitionMapping,
            BusinessCalendarPartitionMapping,
            MultiPartitionMapping,
            MultiToSingleDimensionPartitionMapping,
        )
    }
    try:
        return kinds[data["kind"]](data)
    except (KeyError, TypeError, ValueError) as error:
        raise DefinitionError(
            f"This is no partition mapping in JSON: {printable_line(repr(error), 100)}.",
            remedy="It was written by another version of Headwater.",
        ) from None
