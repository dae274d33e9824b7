"""What goes on in a world: processes that build, fill back, read, settle, cancel; and a project for them to build."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import headwater as hw
from headwater.catalog.errors import CellTakenError, ConflictError, HeadwaterError
from headwater.catalog.records import BackfillStatus, Cell, Materialization, RunStatus
from headwater.io.engines import arrow
from headwater.materialize.backfill import BackfillSettings, backfill, cancel_backfill, resume_backfill
from headwater.materialize.monitoring import recover
from tests.faults.simulation.scheduler import Process
from tests.faults.simulation.world import World

_pa = arrow()
LETTERS = ("a", "b")
#: Copies of a version's token in its value: enough for several writes, and for a torn one to show.
COPIES = 20


class Broken(Exception):
    """What user code raises now and then."""


@dataclass
class History:
    """What a world is told by those who live in it, to be compared with what its catalog says."""

    world: World
    #: What is built here.
    definitions: hw.Definitions
    #: The tokens that were computed for a cell by a run; several where it was tried again.
    tokens: dict[tuple[str, Cell], list[str]] = field(default_factory=dict[tuple[str, Cell], list[str]])
    #: What was returned to who asked for it: it must never be lost.
    acknowledged: list[tuple[str, str, list[Materialization]]] = field(
        default_factory=list[tuple[str, str, list[Materialization]]]
    )
    #: Backfills that are over, as it was told.
    backfills: dict[str, BackfillStatus] = field(default_factory=dict[str, BackfillStatus])
    #: Who computes a cell right now.
    computing: list[tuple[Cell, str, Process]] = field(default_factory=list[tuple[Cell, str, Process]])
    #: Processes that build although another one does.
    superseding: set[Process] = field(default_factory=set[Process])
    #: Cells of which user code always fails.
    broken: frozenset[Cell] = frozenset()
    #: How likely user code fails.
    trouble: float = 0.0
    #: How many versions were read back and found whole.
    reads: int = 0

    def compute(self, context: Any, asset: str, partition: str | None, **reads: Any) -> dict[str, Any]:
        """What the project's functions do: a value that nobody else has, which says what it was made of."""
        world, cell, run_id = self.world, Cell(hw.AssetKey(asset), partition), context.run_id
        process = world.process
        assert process is not None
        for other, other_run, there in self.computing:
            if other == cell and there.alive and not {process, there} & self.superseding:
                world.violations.append(f"runs {run_id} and {other_run} compute {cell} at the same time")
        entry = (cell, run_id, process)
        self.computing.append(entry)
        try:
            world.scheduler.point(f"compute {cell}")
            if cell in self.broken or (self.trouble and world.rng.random() < self.trouble):
                raise Broken(str(cell))
            token = f"{len(self.tokens)}-{world.rng.getrandbits(32):08x}"
            self.tokens.setdefault((run_id, cell), []).append(token)
            world.scheduler.point(f"computed {cell}")
            return {"token": token, "copies": [token] * COPIES, **reads}
        finally:
            self.computing.remove(entry)


#: The world that the project's functions live in: they are defined once.
_history: list[History] = []


def _now() -> History:
    return _history[-1]


@hw.asset(code_version="1")
def top(context: hw.AssetExecutionContext) -> dict[str, Any]:
    return _now().compute(context, "top", None)


@hw.asset(code_version="1", retry_policy=hw.RetryPolicy(max_retries=1, delay=1))
def below(context: hw.AssetExecutionContext, top: dict[str, Any]) -> dict[str, Any]:
    return _now().compute(context, "below", None, read=top["token"])


@hw.asset(
    code_version="1",
    partitions_def=hw.StaticPartitionsDefinition(list(LETTERS)),
    backfill_policy=hw.BackfillPolicy.multi_run(2),
)
def letters(context: hw.AssetExecutionContext, top: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {key: _now().compute(context, "letters", key, read=top["token"]) for key in context.partition_keys}


@hw.asset(code_version="1")
def table(context: hw.AssetExecutionContext) -> Any:
    value = _now().compute(context, "table", None)
    return _pa.table({"token": value["copies"]})


DEFINITIONS = hw.Definitions([top, below, letters])
#: Parquet costs ten times what JSON does, and lies on the disk in the same way: few worlds have any.
WITH_TABLE = hw.Definitions([top, below, letters, table])
_SELECTIONS = (None, ["top"], ["*below"], ["letters"], ["top*"], ["*letters"])


class Actors:
    """What processes of one world do."""

    def __init__(self, world: World, history: History) -> None:
        self.world = world
        self.history = history
        self.rng = world.rng

    def tell(self, outcome: Any) -> None:
        """A run was said to be over. One that was canceled before it began need not be known to the catalog."""
        if outcome.status is RunStatus.CANCELED and not outcome.steps:
            return
        made = [m for step in outcome.steps for m in step.materializations]
        self.history.acknowledged.append((outcome.run_id, str(outcome.status), made))

    def build(self) -> None:
        """Materialize something once or twice."""
        for _ in range(self.rng.choice((1, 1, 2))):
            on_conflict = self.rng.choice(("queue", "queue", "queue", "fail", "supersede"))
            if on_conflict == "supersede" and self.world.process:
                self.history.superseding.add(self.world.process)
            with self.world.instance() as instance:
                result = hw.materialize(
                    self.history.definitions,
                    instance=instance,
                    selection=self.rng.choice(_SELECTIONS),
                    all_partitions=True,
                    force=self.rng.random() < 0.5,
                    on_conflict=on_conflict,
                    executor=self.rng.choice(("in_process", "in_process", "threads")),
                    max_workers=2,
                    raise_on_error=False,
                )
                if result.outcome is not None:
                    self.tell(result.outcome)

    def fill_back(self) -> None:
        """Begin a backfill."""
        settings = BackfillSettings(steps_per_run=self.rng.choice((1, 2, None)))
        with self.world.instance() as instance:
            self.over(backfill(self.history.definitions, instance=instance, selection=["letters"], settings=settings))

    def resume(self) -> None:
        """Go on with whatever backfill is not over."""
        with self.world.instance() as instance:
            for one in instance.catalog.backfills(statuses=[BackfillStatus.STARTED, BackfillStatus.FAILURE]):
                try:
                    self.over(resume_backfill(self.history.definitions, one.backfill_id, instance=instance))
                except ConflictError:
                    continue

    def cancel(self) -> None:
        """Cancel a backfill, if there is one."""
        with self.world.instance() as instance:
            for one in instance.catalog.backfills(limit=1):
                self.history.backfills[one.backfill_id] = cancel_backfill(instance, one.backfill_id).status

    def settle(self) -> None:
        """Do what every command does first."""
        for _ in range(6):
            with self.world.instance() as instance:
                recover(instance, self.history.definitions)
                instance.clock.sleep(0.3)

    def read(self) -> None:
        """Load current versions: each is whole, and is what its run computed."""
        for _ in range(6):
            with self.world.instance() as instance:
                key, partition = self.rng.choice([*CELLS])
                current = instance.catalog.current(key, partition)
                if current is not None:
                    value = hw.load_asset(
                        key,
                        partition=partition,
                        version=current.version_id,
                        instance=instance,
                        definitions=self.history.definitions,
                        as_type="pa.Table" if str(key) == "table" else None,
                    )
                    self.world.violations += whole(self.history, current, value)
                    self.history.reads += 1
                instance.clock.sleep(0.5)

    def over(self, result: Any) -> None:
        """A backfill was said to have come so far."""
        for outcome in result.runs:
            self.tell(outcome)
        if result.backfill_id is not None and result.status is not BackfillStatus.STARTED:
            self.history.backfills[result.backfill_id] = result.status

    def tolerant(self, work: Callable[[], None]) -> Callable[[], None]:
        """`work` may be refused for a good reason: a cell that is taken, or what was made to go wrong."""

        def main() -> None:
            try:
                work()
            except CellTakenError:
                pass
            except HeadwaterError:
                if not self.world.injected:
                    raise

        return main


CELLS = tuple(
    (hw.AssetKey(name), partition)
    for name, partitions in (("top", (None,)), ("below", (None,)), ("letters", LETTERS), ("table", (None,)))
    for partition in partitions
)


def whole(history: History, made: Materialization, value: Any) -> list[str]:
    """What is wrong with the value of a version."""
    name = f"{made.cell} of run {made.run_id}"
    if isinstance(value, _pa.Table):
        copies = value["token"].to_pylist()
        tokens = set(copies)
    else:
        copies = value["copies"]
        tokens = {value["token"], *copies}
    known = history.tokens.get((made.run_id, made.cell), [])
    if len(copies) != COPIES or len(tokens) != 1 or not tokens <= set(known):
        return [f"{name} is read as something else than was computed"]
    return []


def populate(world: World) -> History:
    """Start some processes, as the seed has it."""
    history = History(world, WITH_TABLE if world.rng.random() < 0.1 else DEFINITIONS)
    _history[:] = [history]
    history.trouble = world.rng.choice((0.0, 0.0, 0.1, 0.3))
    actors = Actors(world, history)
    rng = world.rng
    casts: Sequence[Sequence[str]] = (
        ("build", "build"),
        ("build", "build", "read"),
        ("build", "settle", "build"),
        ("build", "settle", "settle", "settle"),
        ("fill_back", "build", "settle"),
        ("fill_back", "resume", "resume"),
        ("fill_back", "cancel", "resume"),
        ("build", "build", "settle", "read"),
    )
    for number, name in enumerate(rng.choice(casts)):
        work: Callable[[], None] = getattr(actors, name)
        world.start(f"{name}{number}", actors.tolerant(work))
    # Who comes later, when others may have been killed: half of the time somebody does.
    if rng.random() < 0.5:
        delay = rng.uniform(0, 3)

        def come_late() -> None:
            world.scheduler.block(delay)
            actors.build()

        world.start("late", actors.tolerant(come_late))
    return history


def write_alone(world: World) -> History:
    """One process does everything that writes, always in the same way: for faults at each of its calls."""
    history = History(world, WITH_TABLE)
    _history[:] = [history]
    world.jumpy = 0.0
    actors = Actors(world, history)

    def materialize(**options: Any) -> None:
        with world.instance() as instance:
            result = hw.materialize(WITH_TABLE, instance=instance, all_partitions=True, raise_on_error=False, **options)
            if result.outcome is not None:
                actors.tell(result.outcome)

    def fail_of_one() -> None:
        history.broken = frozenset({Cell(hw.AssetKey("letters"), "b"), Cell(hw.AssetKey("below"))})
        try:
            materialize(force=True, selection=["top*"])
        finally:
            history.broken = frozenset()

    def fill_back() -> None:
        with world.instance() as instance:
            settings = BackfillSettings(steps_per_run=1)
            actors.over(backfill(WITH_TABLE, instance=instance, selection=["letters"], settings=settings))

    def main() -> None:
        # What is refused ends that part alone: a process that lives goes on.
        for work in (materialize, fail_of_one, fill_back, lambda: materialize(force=True, executor="threads")):
            actors.tolerant(work)()

    world.start("writer", main)
    return history
