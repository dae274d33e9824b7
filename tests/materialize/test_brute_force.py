"""Statuses, plans and runs of partitions against a model that takes cells one by one."""

import itertools
import shutil
import tempfile
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import headwater
from headwater.catalog.clock import SystemClock
from headwater.catalog.errors import UnknownPartitionError, UsageError
from headwater.catalog.events import RunEnded, RunStarted, StepEnded
from headwater.catalog.ids import new_id
from headwater.catalog.instance import Instance
from headwater.catalog.keys import AssetKey
from headwater.catalog.records import (
    BackfillStatus,
    Fingerprint,
    Materialization,
    PlannedCell,
    PlannedStep,
    RunStatus,
    StepCell,
    StepStatus,
)
from headwater.materialize.backfill import BackfillSettings, backfill
from headwater.materialize.causes import Status
from headwater.materialize.partition_choice import PartitionChoice
from headwater.materialize.reader import Reader
from tests.materialize.brute_force import (
    DYNAMIC,
    Asset,
    Dep,
    Grid,
    Kinds,
    Letters,
    Model,
    Node,
    Parts,
    Planned,
    Reads,
    Record,
    Refused,
    Tenants,
    Windows,
    World,
    plan,
    run,
)


@dataclass
class WorldClock(SystemClock):
    """It is as late as the world says."""

    world: World

    def now(self) -> datetime:
        return self.world.moment


# What worlds are made of.

_AB, _DAYS = Letters(("a", "b")), Windows("day", datetime(2024, 3, 9))
_PARTS: list[Parts] = [
    None,
    None,
    _AB,
    Letters(("a", "b", "c")),
    Letters(("c", "b")),
    Tenants(),
    _DAYS,
    _DAYS,
    Windows("day", datetime(2024, 3, 8)),
    Windows("day", datetime(2024, 3, 9), datetime(2024, 3, 11)),
    Windows("day", datetime(2024, 3, 9), end_offset=1),
    Windows("week", datetime(2024, 2, 25)),
    Windows("week", datetime(2024, 3, 3), end_offset=1),
    Windows("month", datetime(2024, 2, 1)),
    Windows("month", datetime(2024, 2, 1), end_offset=1),
    Windows("hour", datetime(2024, 3, 10), datetime(2024, 3, 10, 5)),
    Grid((("l", _AB), ("d", _DAYS))),
    Grid((("z", Letters(("x", "y"))), ("l", _AB))),
]
_MOMENTS = [datetime(2024, 3, 10, 6, tzinfo=UTC) + timedelta(hours=hours) for hours in (0, 3, 22, 24, 50, 60)]
_OFFSETS = [(0, 0), (0, 0), (-1, 0), (-1, -1), (-2, -1), (0, 1), (1, 1)]
_EARLIER = [(-1, -1), (-2, -1), (-2, -2)]


def reads(down: Parts, up: Parts) -> st.SearchStrategy[Reads]:
    """The ways in which an asset can read another one."""
    if up is None:
        return st.just(Reads())
    found: list[st.SearchStrategy[Reads]] = [st.just(Reads("all"))]
    if not isinstance(up, Grid):
        found.append(st.just(Reads("last")))
    if down is None:
        found.append(st.just(Reads()))
    if isinstance(up, Letters):
        found.append(
            st.lists(st.sampled_from(up.listed), unique=True).map(lambda keys: Reads("some", keys=tuple(keys)))
        )
    elif isinstance(up, Tenants):
        found.append(st.just(Reads("some", keys=("t1",))))
    if isinstance(down, Windows) and isinstance(up, Windows) and _fits(down, up):
        found += [st.builds(Reads, st.just("windows"), st.sampled_from(_OFFSETS), st.booleans()), st.just(Reads())]
    if _alike(down, up):
        found.append(st.just(Reads("same")))
        if not isinstance(down, Windows):
            found += [st.just(Reads())] * 2
    if isinstance(down, Letters) and isinstance(up, Letters):
        pairs = list(itertools.product(up.listed, down.listed))
        found.append(st.sets(st.sampled_from(pairs)).map(lambda chosen: Reads("static", pairs=tuple(sorted(chosen)))))
    if isinstance(down, Grid) and isinstance(up, Grid):
        found += [_grids(down, up)] * 2
    elif isinstance(down, Grid) or isinstance(up, Grid):
        grid, single = (down, up) if isinstance(down, Grid) else (up, down)
        assert isinstance(grid, Grid)
        if sum(one == single for _, one in grid.dimensions) == 1:
            found += [st.just(Reads()), st.just(Reads("single"))]
    return st.one_of(found)


def _fits(down: Windows, up: Windows) -> bool:
    """Hours are listed for a fortnight only."""
    return up.unit != "hour" or down.unit in ("hour", "day")


def _alike(down: Parts, up: Parts) -> bool:
    """Whether keys can be compared."""
    if isinstance(down, Grid) and isinstance(up, Grid):
        below, above = dict(down.dimensions), dict(up.dimensions)
        return below.keys() == above.keys() and all(_alike(below[name], above[name]) for name in below)
    if isinstance(down, Letters) and isinstance(up, Letters):
        return bool(set(down.listed) & set(up.listed))
    if {type(down), type(up)} == {Letters, Windows}:
        return False  # no letter is a date, and that is an error
    return down is not None and not isinstance(down, Grid) and not isinstance(up, Grid)


@st.composite
def _grids(draw: st.DrawFn, down: Grid, up: Grid) -> Reads:
    left, chosen = dict(down.dimensions), list[tuple[str, str, Reads]]()
    for name, above in up.dimensions:
        fitting = [one for one, below in left.items() if type(below) is type(above) and _alike(below, above)]
        if fitting and draw(st.booleans()):
            other = draw(st.sampled_from(fitting))
            below = left.pop(other)
            chosen.append((name, other, draw(reads(below, above))))
    return Reads("grid", dimensions=tuple(chosen))


def reads_itself(parts: Parts) -> st.SearchStrategy[Reads] | None:
    """The ways in which an asset can read its own earlier partitions."""
    earlier = st.builds(Reads, st.just("windows"), st.sampled_from(_EARLIER))
    if isinstance(parts, Windows):
        return earlier
    if not isinstance(parts, Grid) or "d" not in dict(parts.dimensions):
        return None
    return st.tuples(earlier, st.booleans()).map(
        lambda drawn: Reads(
            "grid", dimensions=(("d", "d", drawn[0]), *([("l", "l", Reads("same"))] if drawn[1] else []))
        )
    )


def reads_together(parts: Parts) -> st.SearchStrategy[Reads]:
    """The ways in which an asset can read another one that the same step computes."""
    same = (
        st.just(Reads()) if isinstance(parts, Windows) or parts is None else st.sampled_from([Reads(), Reads("same")])
    )
    earlier = st.builds(Reads, st.just("windows"), st.sampled_from([(-1, 0), *_EARLIER]))
    return same | earlier if isinstance(parts, Windows) else same


@st.composite
def dependencies(draw: st.DrawFn, world: World, name: str) -> tuple[Dep, ...]:
    """What an asset may read of those before it."""
    own = world.assets[name]
    before = list(itertools.takewhile(lambda one: one != name, world.assets))
    deps: list[Dep] = []
    for other in draw(st.lists(st.sampled_from(before), max_size=2, unique=True)) if before else ():
        up = world.assets[other]
        loads = not own.step and not up.external and draw(st.booleans())
        columns = draw(st.sampled_from([None, None, ("x",), ("x", "y")]))
        together = bool(own.step) and up.step == own.step
        how = draw(reads_together(own.parts) if together else reads(own.parts, up.parts))
        deps.append(Dep(other, how, loads, columns))
    itself = reads_itself(own.parts)
    if itself is not None and not own.external and draw(st.integers(0, 2)) == 0:
        deps.append(Dep(name, draw(itself), loads=not own.step and own.batch == 1 and draw(st.booleans())))
    return tuple(deps)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Two to six assets, some of which are computed by one step, and perhaps one that something else computes."""
    world = World({}, moment=draw(st.sampled_from(_MOMENTS)), tenants=draw(st.sampled_from([["t1"], ["t2", "t1"], []])))
    size = draw(st.integers(2, 6))
    while len(world.assets) < size:
        at = len(world.assets)
        external = at == 0 and draw(st.integers(0, 2)) == 0
        together = 0 if external else draw(st.sampled_from([1, 1, 1, 2]))
        parts = draw(st.sampled_from(_PARTS))
        batch = 1 if parts is None or external else draw(st.sampled_from([1, 1, 2, None]))
        common = Asset("", parts, external=external, batch=batch)
        if together == 2:
            common = replace(common, step=f"s{at}", subset=draw(st.booleans()))
        optional = together == 2 and not common.subset and draw(st.booleans())
        for number in range(max(together, 1)):
            name = f"n{at + number}"
            world.assets[name] = replace(common, name=name)
        for number in range(max(together, 1)):
            one = world.assets[f"n{at + number}"]
            one.deps = () if external else draw(dependencies(world, one.name))
            one.optional = optional and number == 1
            if one.optional:
                one.deps = world.assets[f"n{at}"].deps = _without_own(world, one)
    return world


def _without_own(world: World, one: Asset) -> tuple[Dep, ...]:
    """The dependencies of an asset that are none of its own step."""
    return tuple(dep for dep in one.deps if world.assets[dep.asset].step != one.step)


# What happens to them.


def change(world: World, data: st.DataObject, instance: Instance) -> None:
    """Edit a definition, data or the time."""
    kinds = ["code", "own", "own", "deps", "parts", "time", "tenants", "bad", "observe", "left out"]
    name = data.draw(st.sampled_from(sorted(world.assets)))
    one = world.assets[name]
    match data.draw(st.sampled_from(kinds)):
        case "code" if not one.external:
            one.code = data.draw(st.integers(1, 3))
        case "own" if not one.external:
            for node in data.draw(st.sets(st.sampled_from(world.nodes(name) or [Node(name)]), max_size=2)):
                world.own[node] = data.draw(st.tuples(st.integers(0, 1), st.integers(0, 1)))
        case "deps" if not one.external:
            _depend_anew(world, data, one)
        case "parts":
            parts = data.draw(st.sampled_from(_PARTS))
            for other in world.assets.values():
                if other is one or (one.step and other.step == one.step):
                    other.parts, other.batch = parts, 1 if parts is None else other.batch
            for other in world.assets.values():
                if not other.external and not _still_fits(world, other):
                    _depend_anew(world, data, other)
        case "time":
            world.moment = data.draw(st.sampled_from(_MOMENTS))
        case "tenants":
            tenants = data.draw(st.sampled_from([["t1"], ["t2", "t1"], ["t3", "t1", "t2"], []]))
            set_tenants(world, instance, tenants)
        case "bad":
            nodes = [node for key in world.assets if not world.assets[key].external for node in world.nodes(key)]
            if nodes:
                world.bad = data.draw(st.sets(st.sampled_from(nodes), max_size=2))
                # What a step that fails for some cells makes of cells that read those is its own business.
                world.bad = {node for node in world.bad if fails_simply(world.assets[node.asset])}
        case "left out" if one.optional and world.nodes(name):
            world.left_out = data.draw(st.sets(st.sampled_from(world.nodes(name)), max_size=2))
        case "observe" if one.external and world.nodes(name):
            for node in data.draw(st.sets(st.sampled_from(world.nodes(name)), max_size=2)):
                observe(world, instance, node, (data.draw(st.integers(0, 1)), 0))
        case _:
            pass


def _depend_anew(world: World, data: st.DataObject, one: Asset) -> None:
    one.deps = data.draw(dependencies(world, one.name))
    mates = [other for other in world.assets.values() if one.step and other.step == one.step]
    if any(mate.optional for mate in mates):
        deps = _without_own(world, one)
        # The first of them has fewer to choose from.
        before = list(itertools.takewhile(lambda name: name != mates[0].name, world.assets))
        for mate in mates:
            mate.deps = tuple(dep for dep in deps if dep.asset in before)


def fails_simply(one: Asset) -> bool:
    return one.batch == 1 or (not one.step and all(dep.asset != one.name for dep in one.deps))


def _still_fits(world: World, one: Asset) -> bool:
    """Whether a definition is still valid after others were divided anew, and one that the model can follow."""
    for dep in one.deps:
        up = world.assets[dep.asset].parts
        if isinstance(one.parts, Windows) and isinstance(up, Windows) and not _fits(one.parts, up):
            return False
    try:
        world.definitions().graph  # noqa: B018
    except headwater.HeadwaterError as error:
        return f"`{one.name}`" not in error.message.partition(" cannot read ")[0]
    else:
        return True


def set_tenants(world: World, instance: Instance, tenants: list[str]) -> None:
    for key in world.tenants:
        instance.delete_dynamic_partition(DYNAMIC, key)
    instance.add_dynamic_partitions(DYNAMIC, tenants)
    world.tenants = tenants


def observe(world: World, instance: Instance, node: Node, value: tuple[int, int]) -> None:
    """Something reports a version of what it computes."""
    now = world.moment
    cell = PlannedCell(asset=AssetKey(node.asset), partition=node.key, version_id=new_id(now), folder=None)
    started = RunStarted(
        time=now, run_id=new_id(now), steps=(PlannedStep(step_key="report", cells=(cell,), reason=""),)
    )
    made = Materialization(
        version_id=cell.version_id,
        asset=cell.asset,
        partition=cell.partition,
        run_id=started.run_id,
        step_key="report",
        created=now,
        fingerprint=Fingerprint(code=""),
        data_version=str(value),
        seconds=0.0,
    )
    done = StepCell(asset=cell.asset, partition=cell.partition, status=StepStatus.SUCCESS, version_id=cell.version_id)
    ended = StepEnded(
        time=now,
        run_id=started.run_id,
        step_key="report",
        status=StepStatus.SUCCESS,
        cells=(done,),
        materializations=(made,),
    )
    finished = RunEnded(time=now, run_id=started.run_id, status=RunStatus.SUCCESS)
    instance.catalog.append([started, ended, finished])
    world.built[node] = Record(value, 0, (), world.assets[node.asset].meaning, {})


# What is compared.


def look(world: World, instance: Instance) -> Reader:
    return Reader(world.definitions().graph, instance.catalog, world.moment)


def check_statuses(world: World, instance: Instance) -> None:
    """Every cell has the status, the causes and the name that the model says."""
    reader, model = look(world, instance), Model(world)
    for name, one in world.assets.items():
        nodes = world.nodes(name)
        if one.parts is not None:
            assert reader.partitions(AssetKey(name)).keys() == [node.key for node in nodes]
        if one.external:
            continue
        for node in nodes:
            status = reader.status(AssetKey(name), node.key)
            assert status.status is model.status(node), (node, model.kinds(node), status)
            expected = model.kinds(node)
            found: Kinds = {(cause.kind, cause.upstream and str(cause.upstream)) for cause in status.causes}
            assert expected is None or found == expected, (node, found, expected)
            transitive = [cause.transitive for cause in status.causes]
            assert transitive == sorted(transitive), node
        counts = reader.counts(AssetKey(name))
        statuses = [model.status(node) for node in nodes]
        assert (counts.fresh, counts.stale, counts.missing) == tuple(
            statuses.count(one) for one in (Status.FRESH, Status.STALE, Status.MISSING)
        )


@dataclass(frozen=True)
class Request:
    """What somebody asks for."""

    selection: tuple[str, ...]
    #: None for all partitions.
    key: str | None = None
    force: bool = False
    upstream: bool = True
    only_missing: bool = False
    executor: str = "in_process"


@st.composite
def requests(draw: st.DrawFn, world: World) -> Request:
    """A request for all partitions, or for one that some selected asset has."""
    selection = draw(st.just(tuple(world.assets)) | st.sets(st.sampled_from(sorted(world.assets)), min_size=1))
    selection = tuple(sorted(selection))
    keys = {node.key for name in selection if not world.assets[name].external for node in world.nodes(name)} - {None}
    key = draw(st.none() | st.sampled_from(sorted(keys, key=str))) if keys else None
    options = draw(st.sampled_from(["", "", "", "force", "upstream", "only_missing"]))
    return Request(
        selection,
        key,
        force=options == "force",
        upstream=options != "upstream",
        only_missing=options == "only_missing",
        executor=draw(st.sampled_from(["in_process", "in_process", "threads"])),
    )


def targets(world: World, request: Request) -> set[Node]:
    """The cells that a request means. Raises `Refused`."""
    every = {node for name in request.selection for node in world.nodes(name)}
    if request.key is None:
        return every
    divided = [n for n in request.selection if world.assets[n].parts is not None and not world.assets[n].external]
    found = {Node(name, request.key) for name in divided} & every
    named = {node.asset for node in found}
    reached = set(found)
    for name in world.assets:
        if name not in named and not world.assets[name].external:
            reading = {
                node
                for node in world.nodes(name)
                if any(one in reached and one.asset != name for one in world.read_nodes(node))
            }
            reached |= reading
            if name in divided:
                found |= reading
    if {node.asset for node in found} != set(divided):
        raise Refused
    return found | {node for node in every if node.asset not in divided}


def carry_out(world: World, instance: Instance, request: Request) -> None:
    """Plan and run a request; the plan, how each cell ended and what there is then are as the model says."""
    refused = False
    try:
        chosen = targets(world, request)
        expected = plan(
            world,
            chosen,
            force=request.force,
            upstream=request.upstream,
            only_missing=request.only_missing,
            strict=request.key is not None,
        )
    except Refused:
        chosen, expected, refused = set[Node](), Planned(), True
    options: dict[str, Any] = {
        "force": request.force,
        "upstream": request.upstream,
        "only_missing": request.only_missing,
    }
    partitions = PartitionChoice(keys=() if request.key is None else (request.key,), all=request.key is None)
    try:
        found = look(world, instance).plan(list(request.selection), partitions=partitions, **options)
    except (UsageError, UnknownPartitionError):
        assert refused
        return
    assert not refused
    cells = [Node(str(cell.cell.asset), cell.cell.partition) for step in found.steps for cell in step.cells]
    assert len(set(cells)) == len(cells)
    assert set(cells) == expected.build
    assert found.step_count == len(found.steps)
    assert sum(len(group.assets) * len(group.partitions or [0]) for group in found.groups) >= len(cells)
    ended = run(world, expected, chosen if request.force else set())
    result = headwater.materialize(
        world.definitions(),
        selection=list(request.selection),
        instance=instance,
        raise_on_error=False,
        partition_key=request.key,
        all_partitions=request.key is None,
        executor=request.executor,
        **options,
    )
    assert {Node(str(cell.asset), cell.partition): str(cell.status) for cell in result.cells} == ended
    made = [Node(str(one.asset), one.partition) for one in result.materializations]
    assert sorted(made, key=str) == sorted((node for node, end in ended.items() if end == "SUCCESS"), key=str)
    check_statuses(world, instance)
    if request.upstream and not request.only_missing and not {"FAILURE", "SKIPPED"} & set(ended.values()):
        again = look(world, instance).plan(list(request.selection), partitions=partitions)
        assert not again, "what was just built is built again"
        assert not plan(world, targets(world, request)).build


def fill_back(world: World, instance: Instance, request: Request, steps: int) -> None:
    """A backfill in runs of a few steps builds the targets, and what they need, once each."""
    world.bad, world.left_out = set(), set()
    keys = () if request.key is None else (request.key,)
    try:
        expected = plan(
            world, targets(world, request), force=True, upstream=request.upstream, strict=request.key is not None
        )
    except Refused:
        return  # as `carry_out` does
    result = backfill(
        world.definitions(),
        instance=instance,
        selection=list(request.selection),
        partition_keys=keys,
        upstream=request.upstream,
        settings=BackfillSettings(steps_per_run=steps),
    )
    made = [Node(str(m.asset), m.partition) for one in result.runs for step in one.steps for m in step.materializations]
    assert sorted(made, key=str) == sorted(expected.build, key=str), (
        set(made) ^ expected.build,
        len(made),
        result.status,
        result.progress,
    )
    assert (result.progress.done, result.progress.total) == (len(made), len(made))
    assert result.status is (BackfillStatus.SUCCESS if made else None)
    run(world, expected, expected.build)
    check_statuses(world, instance)


def live(world: World, data: st.DataObject, instance: Instance) -> None:
    """A history: edits and runs, checked after each."""
    set_tenants(world, instance, world.tenants)
    if data.draw(st.integers(0, 3)):
        carry_out(world, instance, Request(tuple(world.assets)))
    for _ in range(data.draw(st.integers(1, 4))):
        for _ in range(data.draw(st.integers(1, 2))):
            change(world, data, instance)
        check_statuses(world, instance)
        if data.draw(st.integers(0, 4)):
            carry_out(world, instance, data.draw(requests(world)))
        else:
            fill_back(world, instance, data.draw(requests(world)), data.draw(st.integers(1, 5)))


@given(worlds(), st.data())
@settings(max_examples=100, phases=(Phase.generate,))  # making an example smaller would take minutes
def test_cells_are_what_brute_force_says(world: World, data: st.DataObject) -> None:
    with Instance.ephemeral(clock=WorldClock(world)) as instance:
        live(world, data, instance)


@given(worlds(), st.data())
@settings(max_examples=12, phases=(Phase.generate,))
def test_so_they_are_in_a_catalog_on_disk(empty_home: Path, world: World, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = shutil.copytree(empty_home, Path(folder) / "home")
        with Instance.open(home, clock=WorldClock(world)) as instance:
            live(world, data, instance)
