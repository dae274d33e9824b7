"""What must be true of a world, whatever happened in it."""

from collections import Counter
from collections.abc import Callable, Iterator

import headwater as hw
from headwater.catalog.errors import HeadwaterError
from headwater.catalog.events import EventKind
from headwater.catalog.records import BackfillStatus, Cell, Materialization, RunStatus
from headwater.io.base import InputContext
from headwater.io.file_manager import FileIOManager
from headwater.io.store import StoredFile
from headwater.materialize.backfill import resume_backfill
from headwater.materialize.doctor import _identifiers  # pyright: ignore[reportPrivateUsage]
from tests.faults.simulation.scenario import Actors, History, populate, whole
from tests.faults.simulation.world import NoFaults, World

_ENDS = {f"RUN_{status}" for status in RunStatus if status.is_over}


def simulate(world: World, people: Callable[[World], History] = populate) -> list[str]:
    """Let a world live and end, look at it as it was left, rebuild everything, look again: what was wrong."""
    with world.entered():
        history = people(world)
        world.run()
        world.violations += check(world, history)
        rebuild(world, history)
        world.violations += check(world, history)
        world.violations += settled(world)
    return world.violations


def check(world: World, history: History) -> Iterator[str]:
    """What is wrong with a world that nobody has repaired."""
    catalog = world.storage
    events = catalog.events(limit=None)
    if [event.seq for event in events] != list(range(1, len(events) + 1)):
        yield "the events are not numbered from 1 without a gap"
    made = [event for event in events if event.kind == EventKind.ASSET_MATERIALIZATION]
    cells = Counter((event.run_id, event.asset, event.partition) for event in made)
    for (run_id, asset, partition), count in cells.items():
        if count > 1:
            yield f"run {run_id} made {asset} [{partition}] {count} times"
    ends = Counter(event.run_id for event in events if event.kind in _ENDS and "late" not in event.data)
    for run_id, count in ends.items():
        if count > 1:
            yield f"run {run_id} ended {count} times"
    versions = {str(event.data["version_id"]) for event in made}
    for run_id, status, materializations in history.acknowledged:
        run = catalog.run(run_id)
        if run is None or run.status != status:
            yield f"run {run_id} was acknowledged as {status}, and is {run and run.status}"
        for one in materializations:
            if one.version_id not in versions:
                yield f"{one.cell} of run {run_id} was acknowledged, and is lost"
    for backfill_id, status in history.backfills.items():
        found = catalog.backfill(backfill_id)
        over = status in (BackfillStatus.SUCCESS, BackfillStatus.CANCELED)
        if found is None or (over and found.status is not status):
            yield f"backfill {backfill_id} was {status}, and is {found and found.status}"
    runs = {run.run_id: run.backfill_id for run in catalog.runs(limit=10_000)}
    filled = Counter((runs[event.run_id or ""], event.asset, event.partition) for event in made)
    for (backfill_id, asset, partition), count in filled.items():
        if backfill_id is not None and count > 1:
            yield f"backfill {backfill_id} made {asset} [{partition}] {count} times"
    newest = {Cell(event.asset, event.partition): event.data["version_id"] for event in made if event.asset}
    for cell, version_id in newest.items():
        current = catalog.current(cell.asset, cell.partition)
        if current is None or current.version_id != version_id:
            yield f"the newest event of {cell} is not its current version"
    yield from _files(world, history, made_of(world))


def made_of(world: World) -> list[Materialization]:
    """Every version that is recorded."""
    keys = [hw.AssetKey(name) for name in ("top", "below", "letters", "table")]
    return [one for key in keys for one in world.storage.materializations(key, limit=10_000)]


def _files(world: World, history: History, versions: list[Materialization]) -> Iterator[str]:
    """Every version's file is there with its checksum, holds what was computed, and names what it was made of."""
    manager = FileIOManager()
    manager.bind(world.home)
    values: dict[str, object] = {}
    for one in versions:
        assert one.pointer is not None
        context = InputContext(
            asset_key=one.asset,
            partition_key=one.partition,
            version_id=one.version_id,
            pointer=one.pointer,
            annotation="pa.Table" if one.pointer.format == "parquet" else None,
        )
        try:
            manager.verify(context)
            value = values[one.version_id] = manager.load_input(context)
        except HeadwaterError as error:
            yield f"{one.cell} of run {one.run_id} cannot be read: {error.code} {error.message}"
            continue
        yield from whole(history, one, value)
    for one in versions:
        value = values.get(one.version_id)
        if isinstance(value, dict) and "read" in value:
            (source,) = [source for source in one.inputs if source.asset == hw.AssetKey("top")]
            read = values.get(source.version_id or "")
            if isinstance(read, dict) and read["token"] != value["read"]:
                yield f"{one.cell} of run {one.run_id} was made of another version than its record says"


def rebuild(world: World, history: History) -> None:
    """Everybody is dead. Who comes next can build everything, and go on with every backfill."""
    world.faults, history.trouble = NoFaults(), 0.0
    world.scheduler.now += 1.0  # nobody gets the number of a process that began in the same hundredth of a second
    actors = Actors(world, history)

    def work() -> None:
        with world.instance() as instance:
            result = hw.materialize(
                history.definitions, instance=instance, all_partitions=True, force=True, raise_on_error=False
            )
            if result.outcome is not None:
                actors.tell(result.outcome)
            if not result.success:
                world.violations.append(f"rebuilding everything ended as {result.status}")
            for one in instance.catalog.backfills(statuses=[BackfillStatus.STARTED, BackfillStatus.FAILURE]):
                done = resume_backfill(history.definitions, one.backfill_id, instance=instance)
                if done.status is not BackfillStatus.SUCCESS:
                    world.violations.append(f"backfill {one.backfill_id}, resumed, ended as {done.status}")

    world.start("rebuild", work)
    world.run()


def settled(world: World) -> Iterator[str]:
    """What is wrong with a world in which everything was rebuilt: nothing goes on, and nothing lies about.

    Files that nobody refers to are what only kills cannot leave: a removal that failed or was undone by a power cut.
    Those are listed by `headwater catalog doctor`, as they are called by the version that they were to be.
    """
    catalog = world.storage
    if catalog.runs(statuses=[status for status in RunStatus if not status.is_over]):
        yield "a run is recorded as going on, and everybody is dead"
    if catalog.backfills(statuses=[BackfillStatus.STARTED]):
        yield "a backfill is recorded as going on, and everybody is dead"
    referred = {one.pointer.uri for one in made_of(world) if one.pointer}
    manager = FileIOManager()
    manager.bind(world.home)
    only_kills = not world.power_cuts and all(what.startswith("killed") for what in world.injected)
    planned = {cell.version_id for run in catalog.runs(limit=10_000) for cell in catalog.planned(run.run_id)}
    for file in manager.store.files():
        if manager.store.uri(file.path) in referred:
            continue
        if only_kills:
            yield f"{file.path} is left, and nobody refers to it"
        elif not _listed(file, planned):
            yield f"{file.path} is left, and doctor would not list it"


def _listed(file: StoredFile, planned: set[str]) -> bool:
    return any(one in planned for one in _identifiers(file.path))
