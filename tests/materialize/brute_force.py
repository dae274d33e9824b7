"""What partitions, staleness, plans and runs mean, cell by cell: no arrays, no intervals, no sets of windows.

A world is plain data that the tests edit. The model reads it in the most naive way there is: windows are listed by
stepping through a calendar, mappings are functions from a key to keys, staleness is recursion over cells, a plan is
a closure. The same world makes real definitions, whose functions fail where the world says so.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import polars as pl

import headwater
from headwater import (
    AllPartitionMapping,
    AssetDep,
    AssetIn,
    AssetOut,
    AssetSpec,
    BackfillPolicy,
    DailyPartitionsDefinition,
    Definitions,
    DimensionPartitionMapping,
    DynamicPartitionsDefinition,
    Failure,
    HourlyPartitionsDefinition,
    IdentityPartitionMapping,
    InMemoryIOManager,
    LastPartitionMapping,
    MonthlyPartitionsDefinition,
    MultiPartitionMapping,
    MultiPartitionsDefinition,
    MultiToSingleDimensionPartitionMapping,
    Output,
    SpecificPartitionsPartitionMapping,
    StaticPartitionMapping,
    StaticPartitionsDefinition,
    TimeWindowPartitionMapping,
    WeeklyPartitionsDefinition,
    multi_asset,
)
from headwater.catalog.definitions.code_version import CodeVersions
from headwater.catalog.partitions.definition import PartitionsDefinition
from headwater.catalog.partitions.mapping import PartitionMapping
from headwater.materialize.causes import CauseKind, Status

ZONE = ZoneInfo("America/New_York")
#: The name of the only dynamic partitions of a world.
DYNAMIC = "tenants"


class Node(NamedTuple):
    """A cell: an asset and one of its keys."""

    asset: str
    key: str | None = None


# Partitions, listed.


@dataclass(frozen=True)
class Letters:
    """A list of keys."""

    listed: tuple[str, ...]

    def keys(self, world: "World") -> list[str]:
        return list(self.listed)

    def definition(self) -> PartitionsDefinition:
        return StaticPartitionsDefinition(self.listed)


@dataclass(frozen=True)
class Tenants:
    """Keys that come and go."""

    def keys(self, world: "World") -> list[str]:
        return list(world.tenants)

    def definition(self) -> PartitionsDefinition:
        return DynamicPartitionsDefinition(DYNAMIC)


@dataclass(frozen=True)
class Windows:
    """Hours, days, weeks or months of New York, around the night in which an hour is missing."""

    unit: str
    #: A local time, at which a window starts.
    start: datetime
    end: datetime | None = None
    end_offset: int = 0

    def keys(self, world: "World") -> list[str]:
        line = _line(self.unit)
        ended = [at for at, (_, end) in enumerate(line) if end <= world.moment]
        last = max(ended) + self.end_offset
        chosen = [
            (start, end)
            for at, (start, end) in enumerate(line)
            if at <= last and start >= _instant(self.start) and (self.end is None or end <= _instant(self.end))
        ]
        return [self.key(start) for start, _ in chosen]

    def key(self, start: datetime) -> str:
        return start.astimezone(ZONE).strftime("%Y-%m-%d-%H:%M" if self.unit == "hour" else "%Y-%m-%d")

    def definition(self) -> PartitionsDefinition:
        kinds = {
            "hour": HourlyPartitionsDefinition,
            "day": DailyPartitionsDefinition,
            "week": WeeklyPartitionsDefinition,
            "month": MonthlyPartitionsDefinition,
        }
        return kinds[self.unit](self.start, end_date=self.end, timezone=ZONE.key, end_offset=self.end_offset)


@dataclass(frozen=True)
class Grid:
    """Two dimensions."""

    dimensions: tuple[tuple[str, "Letters | Windows"], ...]

    def keys(self, world: "World") -> list[str]:
        # Time is what grows: it comes first, then by name.
        order = sorted(self.dimensions, key=lambda item: (not isinstance(item[1], Windows), item[0]))
        combinations = itertools.product(*(one.keys(world) for _, one in order))
        names = [name for name, _ in order]
        return [self.joined(dict(zip(names, values, strict=True))) for values in combinations]

    @staticmethod
    def joined(values: Mapping[str, str]) -> str:
        return "|".join(values[name] for name in sorted(values))

    def values(self, key: str) -> dict[str, str]:
        return dict(zip(sorted(name for name, _ in self.dimensions), key.split("|"), strict=True))

    def definition(self) -> PartitionsDefinition:
        return MultiPartitionsDefinition({name: one.definition() for name, one in self.dimensions})


Parts = Letters | Tenants | Windows | Grid | None


def _instant(local: datetime) -> datetime:
    return local.replace(tzinfo=ZONE).astimezone(UTC)


@lru_cache
def _line(unit: str) -> tuple[tuple[datetime, datetime], ...]:
    """Every window of a unit near the days of the tests, one after the other."""
    low, high = datetime(2023, 9, 3), datetime(2024, 7, 1)
    starts: list[datetime] = []
    if unit == "hour":
        moment = _instant(datetime(2024, 3, 4))
        while moment < _instant(datetime(2024, 3, 18)):
            starts.append(moment)
            moment += timedelta(hours=1)
    elif unit == "month":
        starts = [_instant(datetime(2023 + (month // 12), month % 12 + 1, 1)) for month in range(6, 20)]
    else:
        day = low  # a Sunday
        while day < high:
            starts.append(_instant(day))
            day += timedelta(days=7 if unit == "week" else 1)
    return tuple(itertools.pairwise(starts))


# Mappings, key by key.


@dataclass(frozen=True)
class Reads:
    """How a dependency maps partitions: a name, and what it needs besides."""

    kind: str = "default"
    offsets: tuple[int, int] = (0, 0)
    allow: bool = False
    keys: tuple[str, ...] = ()
    pairs: tuple[tuple[str, str], ...] = ()
    #: For each upstream dimension the downstream one, and the mapping between the two.
    dimensions: tuple[tuple[str, str, "Reads"], ...] = ()

    def mapping(self) -> PartitionMapping | None:
        match self.kind:
            case "default":
                return None
            case "all":
                return AllPartitionMapping()
            case "last":
                return LastPartitionMapping()
            case "same":
                return IdentityPartitionMapping()
            case "some":
                return SpecificPartitionsPartitionMapping(self.keys)
            case "static":
                down: dict[str, set[str]] = {}
                for up, key in self.pairs:
                    down.setdefault(up, set()).add(key)
                return StaticPartitionMapping(down)
            case "windows":
                return TimeWindowPartitionMapping(*self.offsets, allow_nonexistent_upstream_partitions=self.allow)
            case "single":
                return MultiToSingleDimensionPartitionMapping()
            case _:
                return MultiPartitionMapping(
                    {up: DimensionPartitionMapping(down, one.mapping()) for up, down, one in self.dimensions}
                )


class Found(NamedTuple):
    """What one partition reads: keys that there are, and whether it needs one that there is not."""

    keys: list[str | None]
    incomplete: bool = False


def read(world: "World", how: Reads, down: Parts, up: Parts, key: str | None) -> Found:
    """The keys that the partition `key` reads."""
    if up is None:
        return Found([None])
    there = world.keys(up)
    kind = how.kind if how.kind != "default" else _inferred(down, up)
    match kind:
        case "all":
            return Found([*there])
        case "last":
            return Found([*there[-1:]])
        case "same" if isinstance(down, Grid) and isinstance(up, Grid):
            same = tuple((name, name, Reads("same")) for name, _ in up.dimensions)
            return _grid(world, same, down, up, key)
        case "same":
            return Found([key], False) if key in there else Found([], True)
        case "some":
            return Found([one for one in there if one in how.keys], any(one not in there for one in how.keys))
        case "static":
            return Found([one for one in there if (one, key) in how.pairs])
        case "single" if isinstance(up, Grid):
            name = next(name for name, one in up.dimensions if one == down)
            return Found([one for one in there if up.values(one)[name] == key])
        case "single":
            assert isinstance(down, Grid) and key is not None
            name = next(name for name, one in down.dimensions if one == up)
            return Found([down.values(key)[name]])
        case "grid":
            assert isinstance(down, Grid) and isinstance(up, Grid)
            return _grid(world, how.dimensions, down, up, key)
        case _:
            assert isinstance(down, Windows) and isinstance(up, Windows) and key is not None
            return _windows(world, how, down, up, key)


def _inferred(down: Parts, up: Parts) -> str:
    if down is None or up is None:
        return "all"
    if isinstance(down, Grid) != isinstance(up, Grid):
        grid, single = (down, up) if isinstance(down, Grid) else (up, down)
        assert isinstance(grid, Grid)
        if sum(one == single for _, one in grid.dimensions) == 1:
            return "single"
    return "windows" if isinstance(down, Windows) and isinstance(up, Windows) else "same"


def _windows(world: "World", how: Reads, down: Windows, up: Windows, key: str) -> Found:
    below, above = _line(down.unit), _line(up.unit)
    place = next(at for at, (start, _) in enumerate(below) if down.key(start) == key)
    begin, end = below[place + how.offsets[0]][0], below[place + how.offsets[1]][1]
    touched = [at for at, window in enumerate(above) if window[0] < end and window[1] > begin]
    assert touched and touched[0] > 0 and touched[-1] < len(above) - 1
    there = world.keys(up)
    found: list[str | None] = [name for at in touched if (name := up.key(above[at][0])) in there]
    if how.allow:
        return Found(found)
    places = [at for at, (start, _) in enumerate(above) if up.key(start) in there]
    first, last = _edges(world, up, above, places)
    incomplete = False
    for at in touched:
        itself = above[at][0] < below[place][1] and above[at][1] > below[place][0]
        early = at < first and not (how.offsets[0] < 0 and not itself)
        late = at > last and not (how.offsets[1] > 0 and not itself)
        incomplete = incomplete or early or late
    return Found(found, incomplete)


def _edges(
    world: "World", up: Windows, line: Sequence[tuple[datetime, datetime]], places: Sequence[int]
) -> tuple[int, int]:
    """The places of the first window and of the last one; where there is none, of the first that there could be."""
    if places:
        return places[0], places[-1]
    first = next(at for at, (start, _) in enumerate(line) if start >= _instant(up.start))
    return first, first - 1


def _grid(world: "World", dimensions: Iterable[tuple[str, str, Reads]], down: Grid, up: Grid, key: str | None) -> Found:
    """Dimension by dimension; of one that is not mapped, everything."""
    assert key is not None
    values, incomplete = down.values(key), False
    below, above = dict(down.dimensions), dict(up.dimensions)
    allowed: dict[str, list[str | None]] = {name: [*world.keys(one)] for name, one in up.dimensions}
    for name, other, how in dimensions:
        found = read(world, how, below[other], above[name], values[other])
        allowed[name] = found.keys
        incomplete = incomplete or found.incomplete
    there = world.keys(up)
    return Found([one for one in there if all(v in allowed[n] for n, v in up.values(one).items())], incomplete)


# The world.


@dataclass(frozen=True)
class Dep:
    """What an asset reads of another one, or of itself."""

    asset: str
    reads: Reads = field(default_factory=Reads)
    #: Whether its function gets the data.
    loads: bool = False
    #: The columns that matter; None for all.
    columns: tuple[str, ...] | None = None


@dataclass
class Asset:
    """One asset's definition."""

    name: str
    parts: Parts = None
    deps: tuple[Dep, ...] = ()
    code: int = 1
    #: Its step; assets of one step are alike in everything but their dependencies and code.
    step: str = ""
    subset: bool = True
    external: bool = False
    #: Partitions that a step computes; None for all.
    batch: int | None = 1
    #: Whether its step may leave it out; the assets of such a step have the same dependencies.
    optional: bool = False

    @property
    def wiring(self) -> tuple[Any, ...]:
        """What its function is called with."""
        loads = tuple((at, dep.asset, dep.columns) for at, dep in enumerate(self.deps) if dep.loads)
        return bool(self.step), loads

    @property
    def meaning(self) -> Any:
        """What its keys mean, apart from what they say: cells that were built under another meaning are no others."""
        return _meaning(self.parts)


def _meaning(parts: Parts) -> Any:
    if isinstance(parts, Grid):
        return {name: _meaning(one) for name, one in parts.dimensions}
    return parts.unit if isinstance(parts, Windows) else None


Value = tuple[int, int]


@dataclass(frozen=True)
class Record:
    """How a cell was built: by which code, wired how, and what it read of each dependency."""

    value: Value
    code: int
    wiring: tuple[Any, ...]
    meaning: Any
    reads: Mapping[str, Mapping[str | None, tuple[Value, tuple[str, ...] | None]]]


@dataclass
class World:
    """Definitions, data and what was recorded."""

    assets: dict[str, Asset]
    moment: datetime = datetime(2024, 3, 12, 12, tzinfo=UTC)
    tenants: list[str] = field(default_factory=list[str])
    #: What each cell makes of itself, before what it reads is added.
    own: dict[Node, Value] = field(default_factory=dict[Node, Value])
    #: Cells whose computation fails.
    bad: set[Node] = field(default_factory=set[Node])
    #: Optional cells that their step leaves out.
    left_out: set[Node] = field(default_factory=set[Node])
    built: dict[Node, Record] = field(default_factory=dict[Node, Record])
    io: InMemoryIOManager = field(default_factory=InMemoryIOManager)
    _listed: dict[Any, list[str]] = field(default_factory=dict[Any, list[str]])

    def record(self, node: Node) -> Record | None:
        """How a cell was built, if it was."""
        found, asset = self.built.get(node), self.assets[node.asset]
        return found if found is None or asset.external or found.meaning == asset.meaning else None

    def nodes(self, name: str) -> list[Node]:
        """The cells of an asset that there are now."""
        parts = self.assets[name].parts
        return [Node(name, key) for key in ([None] if parts is None else self.keys(parts))]

    def keys(self, parts: "Letters | Tenants | Windows | Grid") -> list[str]:
        """The keys that there are now."""
        at = (parts, self.moment, tuple(self.tenants))
        if at not in self._listed:
            self._listed[at] = parts.keys(self)
        return self._listed[at]

    def steps(self) -> dict[str, list[Asset]]:
        """The assets of each step; steps in an order in which they can run."""
        found: dict[str, list[Asset]] = {}
        for one in self.assets.values():
            if not one.external:
                found.setdefault(one.step or one.name, []).append(one)
        return found

    def reads(self, node: Node) -> list[tuple[Dep, Found]]:
        """What a cell reads of each dependency."""
        own = self.assets[node.asset]
        return [(dep, read(self, dep.reads, own.parts, self.assets[dep.asset].parts, node.key)) for dep in own.deps]

    def read_nodes(self, node: Node) -> list[Node]:
        """The cells that a cell reads."""
        return [Node(dep.asset, key) for dep, found in self.reads(node) for key in found.keys]

    def definitions(self) -> Definitions:
        """The same as real definitions."""
        made: list[Any] = []
        for step, members in self.steps().items():
            made.append(_define(self, step, members))
        for one in self.assets.values():
            if one.external:
                made.append(AssetSpec(one.name, partitions_def=one.parts and one.parts.definition()))
        return _Definitions(made, resources={"io_manager": self.io})

    def made(self, node: Node, read: Value) -> Value:
        """What a cell holds, given the sums of what it loaded."""
        x, y = self.own.get(node, (1, 1))
        return (x + read[0]) % 3, (y + read[1]) % 3


class _Definitions(Definitions):
    """Definitions that read the source of the IO manager once: 20 ms each time."""

    _code_versions = CodeVersions()  # type: ignore[assignment]


def _define(world: World, step: str, members: list[Asset]) -> Any:
    first = members[0]
    policy = None if first.batch == 1 else BackfillPolicy(max_partitions_per_run=first.batch)
    settings: dict[str, Any] = {"partitions_def": first.parts and first.parts.definition(), "backfill_policy": policy}
    compute = _function(world, members)
    if any(one.optional for one in members):
        outs = {one.name: AssetOut(is_required=not one.optional, code_version=str(one.code)) for one in members}
        return multi_asset(outs=outs, deps=_deps(first), name=step, **settings)(compute)
    if first.step:
        specs = [
            AssetSpec(
                one.name,
                code_version=str(one.code),
                deps=_deps(one),
            )
            for one in members
        ]
        return multi_asset(specs=specs, name=step, can_subset=first.subset, **settings)(compute)
    ins = {
        f"d{at}": AssetIn(dep.asset, columns=dep.columns, partition_mapping=dep.reads.mapping())
        for at, dep in enumerate(first.deps)
        if dep.loads
    }
    compute.__annotations__.update(dict.fromkeys(ins, pl.DataFrame | None))
    return headwater.asset(name=first.name, code_version=str(first.code), ins=ins, deps=_deps(first), **settings)(
        compute
    )


def _deps(one: Asset) -> list[AssetDep]:
    """What it depends on and does not load."""
    return [
        AssetDep(dep.asset, columns=dep.columns, partition_mapping=dep.reads.mapping())
        for dep in one.deps
        if not dep.loads
    ]


def _function(world: World, members: Sequence[Asset]) -> Callable[..., Any]:
    several = bool(members[0].step)

    def compute(context: headwater.AssetExecutionContext, **values: Any) -> Iterator[Any]:
        keys: Sequence[str | None] = context.partition_keys if members[0].parts is not None else [None]
        total = (0, 0) if members[0].batch != 1 else _sums(values.values())
        wanted = context.selected_asset_keys
        for one in members:
            for key in keys:
                node = Node(one.name, None if key is None else str(key))
                if headwater.AssetKey(one.name) not in wanted or node in world.left_out:
                    continue
                if node in world.bad:
                    failure = Failure(f"{node} is bad", partition_key=key)
                    if members[0].batch == 1:
                        raise failure
                    yield failure
                    continue
                x, y = world.made(node, total)
                frame = pl.DataFrame({"x": [x], "y": [y]})
                yield Output(frame, one.name if several else "result", partition_key=key)

    return compute


def _sums(frames: Iterable[pl.DataFrame | None]) -> Value:
    sums = [0, 0]
    for frame in frames:
        for at, column in enumerate("xy"):
            if frame is not None and column in frame.columns:
                sums[at] += int(frame[column].sum())
    return sums[0], sums[1]


# Staleness, by recursion.

Kinds = set[tuple[CauseKind, str | None]]


class Model:
    """What is to be said of a world as it is."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._known: dict[Node, Kinds | None] = {}

    def direct(self, node: Node) -> Kinds:
        """Why a recorded cell is stale on its own account."""
        world, record = self.world, self.world.record(node)
        assert record is not None
        asset = world.assets[node.asset]
        found: Kinds = set()
        if asset.code != record.code:
            found.add((CauseKind.CODE_CHANGED, None))
        if asset.wiring != record.wiring:
            found.add((CauseKind.DEFINITION_CHANGED, None))
        now = {dep.asset: (dep, keys) for dep, keys in world.reads(node)}
        found |= {(CauseKind.DEPENDENCY_ADDED, name) for name in now.keys() - record.reads.keys()}
        found |= {(CauseKind.DEPENDENCY_REMOVED, name) for name in record.reads.keys() - now.keys()}
        for name in now.keys() & record.reads.keys():
            dep, keys = now[name]
            versions = {key: known.value for key in keys.keys if (known := world.record(Node(name, key))) is not None}
            if _differs(dep, record.reads[name], versions, world.assets[name].external):
                found.add((CauseKind.UPSTREAM_DATA_CHANGED, name))
        return found

    def kinds(self, node: Node) -> Kinds | None:
        """Every cause of a cell; None where it was never built."""
        if node not in self._known:
            self._known[node] = self._kinds(node) if self.world.record(node) is not None else None
        return self._known[node]

    def _kinds(self, node: Node) -> Kinds:
        found = self.direct(node)
        for other in self.world.read_nodes(node):
            if self.world.assets[other.asset].external:
                continue
            status = self.status(other)
            if status is Status.MISSING:
                found.add((CauseKind.UPSTREAM_MISSING, other.asset))
            elif status is Status.STALE:
                found.add((CauseKind.UPSTREAM_STALE, other.asset))
        return found

    def not_made(self, node: Node) -> bool:
        """Whether its step left a cell out, as one that it made of the same key proves."""
        asset = self.world.assets[node.asset]
        if not asset.optional or self.world.record(node) is not None:
            return False
        mates = [Node(one.name, node.key) for one in self.world.assets.values() if one.step == asset.step]
        return any(self.status(mate) is Status.FRESH for mate in mates)

    def status(self, node: Node) -> Status:
        kinds = self.kinds(node)
        return Status.MISSING if kinds is None else Status.STALE if kinds else Status.FRESH


def _differs(
    dep: Dep,
    before: Mapping[str | None, tuple[Value, tuple[str, ...] | None]],
    now: Mapping[str | None, Value],
    external: bool,
) -> bool:
    """Whether what was read is not what would be read now, as far as the columns go that were read both times."""
    if before.keys() != now.keys():
        return True
    for key, (value, columns) in before.items():
        if value == now[key]:
            continue
        if dep.columns is None or columns is None or external:
            return True
        if any(c not in columns or value["xy".index(c)] != now[key]["xy".index(c)] for c in dep.columns):
            return True
    return False


# Plans, by closure.


class Refused(Exception):
    """The request cannot be carried out, and the engine has to say so."""


@dataclass
class Planned:
    """What a run is to build, and what it has to leave out because something that it needs does not exist."""

    build: set[Node] = field(default_factory=set[Node])
    lost: set[Node] = field(default_factory=set[Node])


def plan(
    world: World,
    targets: Iterable[Node],
    *,
    force: bool = False,
    upstream: bool = True,
    only_missing: bool = False,
    strict: bool = False,
) -> Planned:
    """The cells that make `targets` fresh. Raises `Refused`."""
    model, targets = Model(world), {one for one in targets if not world.assets[one.asset].external}
    wanted = set(targets)
    pending = list(targets) if upstream else []
    while pending:
        for one in world.read_nodes(pending.pop()):
            if one not in wanted and not world.assets[one.asset].external:
                wanted.add(one)
                pending.append(one)
    found = Planned()
    #: What reads a cell that its step left out, and is not built therefore.
    stuck: set[Node] = set()

    def forced(node: Node) -> bool:
        return force and node in targets

    def needed(node: Node) -> bool:
        if model.not_made(node) and not forced(node):
            return False
        if forced(node) or world.record(node) is None:
            return True
        return not only_missing and (
            bool(model.direct(node)) or any(one in found.build for one in world.read_nodes(node))
        )

    def blocked(node: Node) -> bool:
        """Whether it reads what is not there, as some step left something out."""
        return any(
            one in stuck or (model.not_made(one) and one not in found.build and not forced(one))
            for one in world.read_nodes(node)
            if not world.assets[one.asset].external
        )

    def possible(node: Node) -> bool:
        reads = world.reads(node)
        return not any(keys.incomplete or any(_gone(Node(dep.asset, key)) for key in keys.keys) for dep, keys in reads)

    def _gone(node: Node) -> bool:
        return node in found.lost and world.record(node) is None

    for members in world.steps().values():
        for unit in _units(world, members):
            chosen = [node for node in unit if node in wanted and needed(node)]
            stale = [node for node in unit if node in wanted and model.status(node) is Status.STALE]
            held = {node for node in [*chosen, *([] if only_missing else stale)] if blocked(node)}
            chosen = [node for node in chosen if node not in held]
            if chosen and not members[0].subset:
                chosen, held = unit, set()
            stuck |= held
            (found.build if all(map(possible, chosen)) else found.lost).update(chosen)
    if strict and any(keys.incomplete for node in found.lost for _, keys in world.reads(node)):
        raise Refused
    for node in found.build:
        for dep, keys in world.reads(node):
            for one in (Node(dep.asset, key) for key in keys.keys):
                lacking = world.record(one) is None and one not in found.build
                if dep.loads and lacking and not world.assets[dep.asset].external and dep.asset != node.asset:
                    raise Refused
    return found


def _units(world: World, members: Sequence[Asset]) -> list[list[Node]]:
    """The cells of a step that belong together: those of one key; for assets that are made alone, each by itself."""
    columns = [world.nodes(one.name) for one in members]
    if members[0].subset:
        return [[node] for nodes in columns for node in nodes]
    return [list(row) for row in zip(*columns, strict=True)]


# Runs, cell by cell.


def run(world: World, planned: Planned, forced: set[Node]) -> dict[Node, str]:
    """Build what is planned, and say how each cell ended; records are brought up to date."""
    ended: dict[Node, str] = {}
    for members in world.steps().values():
        keys = [node.key for node in world.nodes(members[0].name)]
        keys = [key for key in keys if any(Node(one.name, key) in planned.build for one in members)]
        size = members[0].batch or len(keys) or 1
        for start in range(0, len(keys), size):
            batch = [
                Node(one.name, key)
                for one in members
                for key in keys[start : start + size]
                if Node(one.name, key) in planned.build
            ]
            _run_step(world, members, batch, forced, ended)
    return ended


_LOST = ("FAILURE", "SKIPPED")


def _run_step(
    world: World, members: Sequence[Asset], batch: list[Node], forced: set[Node], ended: dict[Node, str]
) -> None:
    together, model = not members[0].subset, Model(world)
    lost = {node for node in batch if any(ended.get(one) in _LOST for one in world.read_nodes(node))}
    if together:
        lost = {node for node in batch if node.key in {one.key for one in lost}}
    needed: set[Node] = set()
    for node in batch:
        if node in lost:
            continue
        reason = node in forced or world.record(node) is None or bool(model.direct(node))
        if reason or not needed.isdisjoint(world.read_nodes(node)):
            needed.add(node)
    if together:
        needed = {node for node in batch if node.key in {one.key for one in needed}}
    failed = {node for node in needed if node in world.bad}
    if members[0].batch == 1 and failed:
        failed = set(needed)
    # What a step loads is there before it begins.
    sums = {node: _loaded(world, node) for node in needed} if members[0].batch == 1 else {}
    for node in batch:
        if node in lost:
            ended[node] = "SKIPPED"
        elif node not in needed:
            ended[node] = "VERIFIED"
        elif node in failed:
            ended[node] = "FAILURE"
        elif node in world.left_out:
            ended[node] = "SKIPPED"
        else:
            ended[node] = "SUCCESS"
            world.built[node] = _recorded(world, node, world.made(node, sums.get(node, (0, 0))))


def _loaded(world: World, node: Node) -> Value:
    total = [0, 0]
    for dep, keys in world.reads(node):
        for key in keys.keys if dep.loads else ():
            record = world.record(Node(dep.asset, key))
            for at, column in enumerate("xy"):
                if record is not None and (dep.columns is None or column in dep.columns):
                    total[at] += record.value[at]
    return total[0], total[1]


def _recorded(world: World, node: Node, value: Value) -> Record:
    reads = {
        dep.asset: {
            key: (known.value, dep.columns)
            for key in keys.keys
            if (known := world.record(Node(dep.asset, key))) is not None
        }
        for dep, keys in world.reads(node)
    }
    asset = world.assets[node.asset]
    return Record(value, asset.code, asset.wiring, asset.meaning, reads)
