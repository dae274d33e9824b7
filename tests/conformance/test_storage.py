"""What every storage of the catalog must do: the rules of `headwater.catalog.storage.base`, one test each."""

import contextlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from headwater.catalog.cell_hash import inputs_hash, version_hash
from headwater.catalog.clock import SystemClock
from headwater.catalog.errors import CatalogError, ConflictError, RunOverError, UsageError
from headwater.catalog.events import (
    AssetDefinition,
    DaemonStarted,
    DaemonStopped,
    DefinitionsChanged,
    DynamicPartitionsChanged,
    Event,
    EventKind,
    LogMessage,
    RunEnded,
    RunStarted,
    StepEnded,
    StepRetried,
    StepStarted,
    TicksPurged,
)
from headwater.catalog.keys import AssetKey
from headwater.catalog.metadata import MetadataValue
from headwater.catalog.records import (
    Automation,
    AutomationStatus,
    Backfill,
    BackfillCells,
    BackfillStatus,
    Cell,
    Column,
    Daemon,
    DefinitionChange,
    ErrorRecord,
    Fact,
    FactTopic,
    Failure,
    Fingerprint,
    Input,
    LoggedEvent,
    LogSlice,
    Pointer,
    Run,
    RunStatus,
    Slot,
    Step,
    StepCell,
    StepStatus,
    Tick,
    TickStatus,
)
from headwater.catalog.storage.base import CatalogWriter, CellState
from headwater.catalog.storage.duckdb import open_catalog
from headwater.catalog.storage.memory import MemoryStorage
from headwater.catalog.storage.sharing.shared import SharedStorage
from tests.histories import input_hashes, instant, partition_states

if TYPE_CHECKING:
    from headwater.tests.histories import History

Reopen = Callable[[], CatalogWriter]


@pytest.fixture(params=["memory", "duckdb", "owner", "keeper"])
def reopen(request: pytest.FixtureRequest, tmp_path: Path, empty_home: Path) -> Iterator[Reopen]:
    """Gives the storage, the second time in as fresh a state as it has: what survives must be in the catalog."""
    opened: list[CatalogWriter] = []
    home = tmp_path / "home"
    if request.param != "memory":
        shutil.copytree(empty_home, home)

    def open_again() -> CatalogWriter:
        if request.param == "memory":
            storage = opened[0] if opened else MemoryStorage()
        else:
            if opened:
                opened.pop().close()
            storage = _open(request.param, home)
        opened.append(storage)
        return storage

    yield open_again
    for storage in opened:
        storage.close()


def _open(how: str, home: Path) -> CatalogWriter:
    if how == "duckdb":
        return open_catalog(home, wait=0)
    return SharedStorage(home, wait=20, clock=SystemClock(), crowded=how == "keeper")


@pytest.fixture
def storage(reopen: Reopen) -> CatalogWriter:
    return reopen()


ERROR = ErrorRecord(
    kind="ValueError",
    message="bad \x1b[31m row\nsecond line",
    traceback='File "a.py", line 1',
    remedy="fix it",
    metadata={"table": MetadataValue.md("| a |"), "n": MetadataValue.int(3)},
)


def test_an_empty_catalog_answers_everything(storage: CatalogWriter) -> None:
    assert (
        partition_states(storage) == {} == storage.currents(AssetKey("a")) == input_hashes(storage, AssetKey("a"), [1])
    )
    key = AssetKey("a")
    nothing = "01900000-0000-7000-8000-000000000001"
    assert storage.cells() == {} == storage.cells([key]) == storage.latest() == storage.definitions()
    assert storage.current(key) is None is storage.materialization(nothing) is storage.run(nothing)
    assert storage.materializations(key) == [] == storage.runs() == storage.runs(asset=key) == storage.steps(nothing)
    assert storage.planned(nothing) == [] == storage.events() == storage.definition_history()
    assert storage.append([]) == 0


def test_a_materialization_comes_back_as_it_was(reopen: Reopen, history: "History") -> None:
    run = history.start("shop/orders")
    ended = history.succeed(
        run,
        metadata={
            "md": MetadataValue.md("## title"),
            "float": MetadataValue.float(float("inf")),
            "json": MetadataValue.json({"a": [1, None, "ü\x00"]}),
            "none": MetadataValue.null(),
        },
        tags={"team": "x", "": "empty"},
    )
    (made,) = ended.materializations
    assert reopen().append([run, ended]) == 3
    for _ in range(2):
        storage = reopen()
        assert storage.current(made.asset) == made
        assert storage.materialization(made.version_id) == made
        assert storage.materializations(made.asset) == [made]
        assert storage.latest() == {made.asset: made} == storage.latest([made.asset, AssetKey("other")])
        assert storage.latest([AssetKey("other")]) == {}


def test_a_cell_has_what_staleness_needs(storage: CatalogWriter, history: "History") -> None:
    run = history.start("a", ("b", ["2024-01-01", "2024-01-02"]))
    made = [*history.succeed(run, 0).materializations, *history.succeed(run, 1).materializations]
    bare = replace(made[0], pointer=None, inputs=())
    storage.append(
        [
            run,
            history.end(run, 0, StepStatus.SUCCESS, materializations=(bare,)),
            history.end(run, 1, StepStatus.SUCCESS, materializations=tuple(made[1:])),
        ]
    )
    a, b, unknown = AssetKey("a"), AssetKey("b"), AssetKey("unknown")
    whole = CellState(bare.version_id, bare.fingerprint, bare.data_version, (), {}, False)
    assert storage.cells() == {Cell(a): whole} == storage.cells([a, unknown])
    assert storage.cells([b, unknown]) == {} == storage.cells([])
    assert storage.cell_states(b, ["2024-01-01", "2024-01-02", "nope", "\ud800", "'"]) == {
        one.partition: CellState(one.version_id, one.fingerprint, one.data_version, one.inputs, {"id": "b3:id"}, True)
        for one in made[1:]
    }
    assert storage.cell_states(a, ["2024-01-01"]) == {} == storage.cell_states(unknown, ["x"])
    assert storage.cell_states(b, []) == {}
    assert storage.currents(b) == {one.partition: one for one in made[1:]}
    assert storage.currents(b, ["2024-01-02", "nope", "\ud800"]) == {"2024-01-02": made[2]}
    assert storage.currents(a) == {None: bare}
    assert storage.currents(a, ["nope"]) == {} == storage.currents(unknown) == storage.currents(b, [])
    assert storage.current(b, "2024-01-02") == made[2]
    assert storage.current(b) is None is storage.current(b, "nope") is storage.current(b, "\ud800")


def test_cells_with_partitions_come_as_arrays(reopen: Reopen, history: "History") -> None:
    b, c, unknown = AssetKey("b"), AssetKey("c"), AssetKey("unknown")
    days = ["2024-01-01", "2024-01-02"]
    run = history.start("a", ("b", days), ("c", days[::-1]), ("c", [None, "x|y'\x1b"]))
    other = Fingerprint(code="other")
    up, half = (Input(asset=AssetKey("up"), partition=day, version_id=run.run_id, data_version=day) for day in days)
    nothing = Input(asset=AssetKey("none"))
    run = replace(run, steps=tuple(replace(step, step_key=str(at)) for at, step in enumerate(run.steps)))
    ends = [
        history.succeed(run, 0),
        history.succeed(run, 1, inputs=(up, half, nothing)),
        history.succeed(run, 2, fingerprint=other, inputs=()),
        history.succeed(run, 3, data_version="same", inputs=(nothing, half)),
    ]
    reopen().append([run])
    for end in ends:
        reopen().append([end])
    storage = reopen()
    made = {event.partition: event for event in storage.events(asset=b, kinds=["ASSET_MATERIALIZATION"])}
    expected = {
        one.cell: (
            next(
                event.seq
                for event in storage.events(limit=None)
                if event.data.get("version_id") == one.version_id and event.kind == "ASSET_MATERIALIZATION"
            ),
            one.fingerprint,
            version_hash(one.asset, one.partition, one.data_version),
            inputs_hash(one.inputs),
        )
        for end in ends
        for one in end.materializations
        if one.partition is not None
    }
    assert len(expected) == 5
    assert partition_states(storage) == expected == partition_states(storage, [b, c, unknown])
    assert partition_states(storage, [b]) == {cell: state for cell, state in expected.items() if cell.asset == b}
    assert partition_states(storage, []) == {} == partition_states(storage, [unknown, AssetKey("a")])
    arrays = storage.partition_cells().by_asset[b]
    assert [column.dtype.name for column in (arrays.keys, arrays.seqs, arrays.fingerprints)] == [
        "int32",
        "int64",
        "int32",
    ]
    assert {arrays.version_hashes.dtype.name, arrays.inputs_hashes.dtype.name} == {"uint64"}
    seqs = [made[day].seq for day in days]
    both = sum(version_hash("up", day, day) for day in days) % 2**64
    assert input_hashes(storage, b, seqs[::-1]) == {"up": {0: both, 1: both}, "none": {0: 0, 1: 0}}
    assert input_hashes(storage, b, []) == {} == input_hashes(storage, unknown, seqs) == input_hashes(storage, c, seqs)


def test_two_cells_that_read_the_same_have_the_same_hash() -> None:
    up = Input(asset=AssetKey("up"), version_id="v", data_version="1")
    days = [replace(up, partition=day) for day in ("p", "q")]
    sums = [
        inputs_hash(inputs)
        for inputs in (
            (),
            (up,),
            (replace(up, version_id="w"),),
            (replace(up, data_version="2"),),
            days,
            days[::-1],
            days[:1],
            (replace(up, version_id=None, data_version=None),),
            (replace(up, partition="p", version_id=None, data_version=None), days[0]),
        )
    ]
    assert sums[1] == sums[2] and sums[4] == sums[5] and sums[6] == sums[8]
    assert len(set(sums)) == 6
    assert all(0 <= number < 2**64 for number in sums)
    assert (
        len({version_hash(*parts) for parts in (("a", "b", ""), ("a", None, "b"), ("ab", None, ""), ("a", "", "b"))})
        == 4
    )


def test_the_newest_version_is_current_and_the_others_stay(reopen: Reopen, history: "History") -> None:
    versions: list[str] = []
    for partition in ("p", None, "p", None, "q"):
        run = history.start(("a", [partition]))
        ended = history.succeed(run)
        versions.append(ended.materializations[0].version_id)
        reopen().append([run, ended])
    storage, key = reopen(), AssetKey("a")
    assert {cell.partition: state.version_id for cell, state in storage.cells().items()} == {None: versions[3]}
    assert {key: made.version_id for key, made in storage.currents(key).items()} == {
        "p": versions[2],
        None: versions[3],
        "q": versions[4],
    }
    assert {cell.partition for cell in partition_states(storage)} == {"p", "q"}
    assert [one.version_id for one in storage.materializations(key)] == versions[::-1]
    assert [one.version_id for one in storage.materializations(key, "p")] == [versions[2], versions[0]]
    assert [one.version_id for one in storage.materializations(key, limit=2, before=versions[3])] == [
        versions[2],
        versions[1],
    ]
    assert storage.latest()[key].version_id == versions[4]
    current = storage.current(key)
    assert current is not None and current.version_id == versions[3]
    assert storage.current(key, "nope") is None


def test_two_versions_of_a_cell_in_one_append(storage: CatalogWriter, history: "History") -> None:
    first, second = history.start("a"), history.start("a")
    ends = [history.succeed(first), history.succeed(second)]
    storage.append([first, second, *ends])
    assert [state.version_id for state in storage.cells().values()] == [ends[1].materializations[0].version_id]
    assert len(storage.materializations(AssetKey("a"))) == 2


def test_a_version_to_start_from_must_exist(storage: CatalogWriter) -> None:
    for nonsense in ("01900000-0000-7000-8000-0000000000ff", "x"):
        with pytest.raises(UsageError, match=nonsense):
            storage.materializations(AssetKey("a"), before=nonsense)
        with pytest.raises(UsageError, match=nonsense):
            storage.runs(before=nonsense)
        assert storage.materialization(nonsense) is None


def test_the_life_of_a_run(reopen: Reopen, history: "History") -> None:
    run = history.start(
        "a", "b", "c", job="nightly", selection="+c", tags={"k": "v"}, user="u", host="h", pid=77, start_ticks=5
    )
    reopen().append([run])
    expected = Run(
        run_id=run.run_id,
        status=RunStatus.STARTED,
        started=run.time,
        job="nightly",
        selection="+c",
        tags={"k": "v"},
        user="u",
        host="h",
        pid=77,
        start_ticks=5,
        step_counts={StepStatus.PENDING: 3},
    )
    assert reopen().runs() == [expected]
    step = history.step(run)
    reopen().append([step])
    assert reopen().run(run.run_id) == replace(expected, step_counts={StepStatus.PENDING: 2, StepStatus.STARTED: 1})
    ended = history.finish(run, RunStatus.FAILURE, error=ERROR)
    reopen().append([history.succeed(run), history.end(run, 1, StepStatus.FAILURE, error=ERROR), ended])
    assert reopen().run(run.run_id[:30]) == replace(
        expected,
        status=RunStatus.FAILURE,
        ended=ended.time,
        error=ERROR,
        step_counts={StepStatus.SUCCESS: 1, StepStatus.FAILURE: 1, StepStatus.PENDING: 1},
    )


def test_the_life_of_a_step(reopen: Reopen, history: "History") -> None:
    run = history.start("a", ("b", ["p", "q"]))
    first, second = (history.step(run, 1, attempt) for attempt in (1, 2))
    retry = StepRetried(time=history.time(), run_id=run.run_id, step_key="b", attempt=1, delay=1.5, error=ERROR)
    cells = tuple(StepCell(asset=AssetKey("b"), partition=key, status=StepStatus.PENDING) for key in ("p", "q"))
    pending = Step(run_id=run.run_id, step_key="b", status=StepStatus.PENDING, reason="b is missing", cells=cells)
    reopen().append([run])
    assert reopen().steps(run.run_id)[1] == pending
    started = replace(
        pending,
        status=StepStatus.STARTED,
        started=first.time,
        attempts=1,
        cells=tuple(replace(cell, status=StepStatus.STARTED) for cell in cells),
    )
    reopen().append([first])
    assert reopen().steps(run.run_id)[1] == started
    reopen().append([retry, second])
    assert reopen().steps(run.run_id)[1] == replace(started, attempts=2)
    end = history.end(
        run,
        1,
        StepStatus.FAILURE,
        error=ERROR,
        logs=(LogSlice(stream="stdout", file="b.log", offset=5, size=7),),
        cells=(
            StepCell(asset=AssetKey("b"), partition="p", status=StepStatus.FAILURE),
            StepCell(asset=AssetKey("b"), partition="q", status=StepStatus.SKIPPED, version_id=run.run_id, rows=0),
        ),
    )
    reopen().append([end])
    steps = reopen().steps(run.run_id)
    assert [step.step_key for step in steps] == ["a", "b"]
    assert steps[1] == replace(
        started, status=StepStatus.FAILURE, ended=end.time, attempts=2, error=ERROR, logs=end.logs, cells=end.cells
    )


def test_planned_cells_are_those_without_a_version(reopen: Reopen, history: "History") -> None:
    run = history.start("a", ("b", ["p", "q"]), "c")
    half = history.end(
        run, 1, StepStatus.FAILURE, materializations=(history.make(run, 1, 1),), message="stopped half-way"
    )
    reopen().append([run])
    assert reopen().planned(run.run_id) == [cell for step in run.steps for cell in step.cells]
    reopen().append([history.succeed(run, 0), half])
    assert reopen().planned(run.run_id) == [run.steps[1].cells[0], run.steps[2].cells[0]]


def test_a_failure_counts_until_there_is_a_newer_version(reopen: Reopen, history: "History") -> None:
    b, c = AssetKey("b"), AssetKey("c")
    run = history.start("a", ("b", ["p", "q"]), "c")
    half = history.end(run, 1, StepStatus.FAILURE, materializations=(history.make(run, 1, 1),), error=ERROR)
    whole = history.end(run, 2, StepStatus.FAILURE)
    reopen().append([run, history.succeed(run, 0), half, whole])
    failures = reopen().failures()
    assert failures == {
        Cell(b, "p"): Failure(run_id=run.run_id, step_key="b", time=half.time, error=ERROR),
        Cell(c): Failure(run_id=run.run_id, step_key="c", time=whole.time, error=None),
    }
    again = history.start("c", ("b", ["p"]))
    later = history.end(again, 1, StepStatus.FAILURE)
    reopen().append([again, history.succeed(again, 0), later])
    assert {cell: failure.time for cell, failure in reopen().failures().items()} == {Cell(b, "p"): later.time}
    assert str(failures[Cell(b, "p")]) == f"{ERROR.kind}: {ERROR.message}"


def test_a_step_may_fail_for_some_of_its_cells(reopen: Reopen, history: "History") -> None:
    b = AssetKey("b")
    run = history.start(("b", [None, "p", "q", "'"]))
    statuses = (StepStatus.FAILURE, StepStatus.VERIFIED, StepStatus.SKIPPED, StepStatus.FAILURE)
    end = history.end(
        run,
        0,
        StepStatus.FAILURE,
        cells=tuple(
            StepCell(asset=b, partition=cell.partition, status=status)
            for cell, status in zip(run.steps[0].cells, statuses, strict=True)
        ),
    )
    reopen().append([run, end])
    assert reopen().failures().keys() == {Cell(b), Cell(b, "'")}
    whole = history.start("b")
    reopen().append([whole, history.succeed(whole)])
    assert reopen().failures().keys() == {Cell(b, "'")}


def test_terminal_states_are_final(reopen: Reopen, history: "History") -> None:
    run = history.start("a", "b")
    made = history.succeed(run)
    reopen().append([run, made])
    before = reopen()
    steps, cells, count = before.steps(run.run_id), before.cells(), len(before.events(limit=None))
    again = history.end(run, 0, StepStatus.FAILURE, materializations=made.materializations, error=ERROR)
    reopen().append([history.step(run, 0, 9), again, replace(again, status=StepStatus.CANCELED)])
    after = reopen()
    assert (after.steps(run.run_id), after.cells()) == (steps, cells)
    assert len(after.materializations(AssetKey("a"))) == 1
    late = after.events(after=count)
    assert [event.kind for event in late] == ["STEP_START", "STEP_FAILURE", "STEP_CANCELED"]
    assert all(event.data["late"] is True for event in late)
    assert late[1].data["versions"] == [made.materializations[0].version_id]


def test_what_a_run_leaves_unfinished_stays_so(reopen: Reopen, history: "History") -> None:
    """A worker that was given up comes back after its run is over: what it made must not become current."""
    run = history.start("a", "b")
    reopen().append([run, history.step(run), history.finish(run, RunStatus.INTERRUPTED)])
    reopen().append([history.succeed(run), history.step(run, 1), history.finish(run)])
    storage = reopen()
    found = storage.run(run.run_id)
    assert found is not None and found.status is RunStatus.INTERRUPTED
    assert found.step_counts == {StepStatus.STARTED: 1, StepStatus.PENDING: 1}
    assert storage.cells() == {}
    assert len(storage.planned(run.run_id)) == 2
    assert [event.kind for event in storage.events(after=3)] == ["STEP_SUCCESS", "STEP_START", "RUN_SUCCESS"]


def test_late_within_one_append(storage: CatalogWriter, history: "History") -> None:
    run = history.start("a")
    storage.append([run, history.succeed(run), history.finish(run), history.finish(run, RunStatus.FAILURE)])
    found = storage.run(run.run_id)
    assert found is not None and found.status is RunStatus.SUCCESS


WRONG = (
    "run that was never started",
    "step of a run that was never started",
    "log of a run that was never started",
    "start of a step never planned",
    "log of a step never planned",
    "run started twice",
    "two steps of one name",
    "run of a backfill that was never started",
    "backfill started twice",
    "backfill that is no UUID",
    "end of a backfill that was never started",
    "resumption of a backfill that was never started",
    "a backfill that ends open",
    "run that is no UUID",
    "run in capitals",
    "version that is no UUID",
    "version of another run",
    "version of another step",
    "time without a zone",
    "time in another zone",
    "version without a zone",
    "dynamic partitions without a zone",
    "definition changed without a zone",
    "a step that ends open",
    "a run that ends open",
)


def _refused(history: "History") -> dict[str, tuple[list[Event], Event]]:
    """By what is wrong: the events before, and the one that no storage takes."""
    run, other, backfill = history.start("a"), history.start("a"), history.backfill("a")
    made = history.make(run)
    naive = datetime(2026, 1, 1)
    twice = replace(run, run_id=history.identifier(), steps=run.steps * 2)
    log = LogMessage(time=run.time, run_id=run.run_id, step_key="nope", level="INFO", message="m")

    def end(**changes: object) -> Event:
        return history.end(run, 0, StepStatus.SUCCESS, materializations=(replace(made, **changes),))

    return {
        "run that was never started": ([], history.finish(run)),
        "step of a run that was never started": ([], history.succeed(run)),
        "log of a run that was never started": ([], replace(log, step_key=None)),
        "start of a step never planned": (
            [run],
            StepStarted(time=run.time, run_id=run.run_id, step_key="nope"),
        ),
        "log of a step never planned": ([run], log),
        "run started twice": ([run], run),
        "two steps of one name": ([], twice),
        "run of a backfill that was never started": ([], replace(run, backfill_id=backfill.backfill_id)),
        "backfill started twice": ([backfill], backfill),
        "backfill that is no UUID": ([], replace(backfill, backfill_id="b1")),
        "end of a backfill that was never started": ([], history.stop(backfill, BackfillStatus.SUCCESS)),
        "resumption of a backfill that was never started": ([], history.resume(backfill)),
        "a backfill that ends open": ([backfill], history.stop(backfill, BackfillStatus.STARTED)),
        "run that is no UUID": ([], replace(run, run_id="r1")),
        "run in capitals": ([], replace(run, run_id=run.run_id.replace("01900000", "0190ABCD"))),
        "version that is no UUID": ([run], end(version_id="v1")),
        "version of another run": ([run, other], end(run_id=other.run_id)),
        "version of another step": ([run], end(step_key="b")),
        "time without a zone": ([], replace(run, time=naive)),
        "time in another zone": ([], replace(run, time=run.time.astimezone(timezone(timedelta(hours=1))))),
        "version without a zone": ([run], end(created=naive)),
        "dynamic partitions without a zone": ([], DynamicPartitionsChanged(time=naive, name="n", added=("k",))),
        "definition changed without a zone": (
            [],
            DefinitionsChanged(
                time=run.time,
                changes=(DefinitionChange(asset=AssetKey("a"), changed=naive, change="added"),),
                definitions=(),
            ),
        ),
        "a step that ends open": ([run], history.end(run, 0, StepStatus.STARTED)),
        "a run that ends open": ([run], RunEnded(time=run.time, run_id=run.run_id, status=RunStatus.STARTED)),
    }


@pytest.mark.parametrize("wrong", WRONG)
def test_a_refused_event_takes_its_whole_append_with_it(storage: CatalogWriter, history: "History", wrong: str) -> None:
    before, refused = _refused(history)[wrong]
    storage.append(before)
    seen = storage.events(limit=None), storage.runs(), storage.cells()
    fine, more = history.start("x"), history.backfill("x")
    with pytest.raises(CatalogError):
        storage.append([more, fine, history.succeed(fine), history.stop(more, BackfillStatus.CANCELED), refused])
    assert (storage.events(limit=None), storage.runs(), storage.cells()) == seen
    assert storage.append([more, fine, history.succeed(fine), history.resume(more)]) == len(seen[0]) + 5
    assert storage.backfills()[0].status is BackfillStatus.STARTED
    assert [cell.asset for cell in storage.cells()] == [AssetKey("x")]


def test_the_log_counts_without_gaps(reopen: Reopen, history: "History") -> None:
    seqs: list[int] = []
    for _ in range(5):
        run = history.start("a", ("b", ["p", "q"]))
        seqs.append(reopen().append([run]))
        seqs.append(reopen().append([history.succeed(run, 1), history.succeed(run, 0), history.finish(run)]))
    events = reopen().events(limit=None)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert seqs[-1] == len(events) and seqs == sorted(seqs)


def test_the_log_says_what_happened(storage: CatalogWriter, history: "History") -> None:
    run = history.start("a", selection="a", tags={"k": "v"})
    line = LogMessage(time=history.time(), run_id=run.run_id, step_key="a", level="WARNING", message="half of it")
    loud = replace(line, step_key=None, message="")
    made = history.succeed(run)
    ended = history.finish(run, RunStatus.FAILURE, error=ERROR)
    change = DefinitionChange(asset=AssetKey("z"), changed=history.time(), change="changed", parts=("code", "deps"))
    changed = DefinitionsChanged(time=history.time(), changes=(change,), definitions=())
    storage.append([run, history.step(run), line, loud, made, ended, changed])
    version = made.materializations[0]
    run_id, key = run.run_id, AssetKey("a")
    kinds = [
        ("RUN_START", run_id, None, None, "a", {"selection": "a", "tags": {"k": "v"}, "steps": 1, "cells": 1}),
        ("STEP_START", run_id, "a", None, "", {"attempt": 1}),
        ("LOG_MESSAGE", run_id, "a", None, "half of it", {"level": "WARNING"}),
        ("LOG_MESSAGE", run_id, None, None, "", {"level": "WARNING"}),
        (
            "STEP_SUCCESS",
            run_id,
            "a",
            None,
            "",
            {"cells": [{"asset": "a", "status": "SUCCESS", "version_id": version.version_id, "rows": 3}]},
        ),
        (
            "ASSET_MATERIALIZATION",
            run_id,
            "a",
            key,
            "",
            {
                "version_id": version.version_id,
                "data_version": version.data_version,
                "uri": version.pointer.uri if version.pointer else "",
                "rows": 3,
                "bytes": 999,
            },
        ),
        (
            "RUN_FAILURE",
            run_id,
            None,
            None,
            ERROR.message,
            {
                "error": {
                    "kind": "ValueError",
                    "message": ERROR.message,
                    "traceback": ERROR.traceback,
                    "remedy": "fix it",
                    "metadata": {"table": {"kind": "md", "value": "| a |"}, "n": {"kind": "int", "value": 3}},
                }
            },
        ),
        (
            "DEFINITIONS_CHANGED",
            None,
            None,
            AssetKey("z"),
            "changed: code, deps",
            {"change": "changed", "parts": ["code", "deps"]},
        ),
    ]
    found = storage.events()
    assert [(e.kind, e.run_id, e.step_key, e.asset, e.message, e.data) for e in found] == kinds
    assert [e.time for e in found] == [
        run.time,
        found[1].time,
        line.time,
        line.time,
        made.time,
        made.time,
        ended.time,
        changed.time,
    ]
    assert all(e.time.tzinfo is not None and e.partition is None for e in found)


def _numbers(events: list[LoggedEvent]) -> list[int]:
    return [event.seq for event in events]


def test_the_log_can_be_narrowed(storage: CatalogWriter, history: "History") -> None:
    first, second = history.start("a", ("b", ["p"])), history.start("a")
    line = LogMessage(time=history.time(), run_id=first.run_id, step_key="b", level="INFO", message="m")
    changed = DefinitionsChanged(
        time=history.time(),
        changes=(DefinitionChange(asset=AssetKey("b"), changed=history.time(), change="added"),),
        definitions=(),
    )
    storage.append(
        [
            first,  # 1
            history.succeed(first, 0),  # 2 3
            line,  # 4
            history.succeed(first, 1),  # 5 6
            second,  # 7
            history.succeed(second),  # 8 9
            changed,  # 10
        ]
    )
    assert _numbers(storage.events(run_id=first.run_id)) == [1, 2, 3, 4, 5, 6]
    assert _numbers(storage.events(run_id=second.run_id, kinds=["STEP_SUCCESS"])) == [8]
    assert _numbers(storage.events(step_key="a")) == [2, 3, 8, 9]
    assert _numbers(storage.events(run_id=first.run_id, step_key="b", after=4)) == [5, 6]
    assert _numbers(storage.events(asset=AssetKey("a"))) == [2, 3, 8, 9]
    assert _numbers(storage.events(asset=AssetKey("b"))) == [4, 5, 6, 10]
    assert _numbers(storage.events(kinds=[EventKind.ASSET_MATERIALIZATION, "RUN_START"])) == [1, 3, 6, 7, 9]
    assert _numbers(storage.events(limit=3)) == [1, 2, 3]
    assert _numbers(storage.events(after=8, limit=None)) == [9, 10]
    assert storage.events(kinds=[]) == [] == storage.events(after=10)
    assert storage.events(asset=AssetKey("unknown")) == [] == storage.events(run_id="nope")
    assert [event.partition for event in storage.events(asset=AssetKey("b"), kinds=["ASSET_MATERIALIZATION"])] == ["p"]


def test_the_log_of_one_partition(storage: CatalogWriter, history: "History") -> None:
    run = history.start(("a", ["p", "q"]), ("b", ["q"]), ("c", ["p"]))
    storage.append([run, history.succeed(run, 0), history.succeed(run, 1), history.succeed(run, 2)])  # 1, 2-4, 5-6, 7-8
    a, b = AssetKey("a"), AssetKey("b")
    assert _numbers(storage.events(asset=a)) == [2, 3, 4]
    assert _numbers(storage.events(asset=a, partition="p")) == [2, 3]
    assert _numbers(storage.events(asset=a, partition="q", kinds=["ASSET_MATERIALIZATION"])) == [4]
    assert storage.events(asset=b, partition="p") == [] == storage.events(asset=b, partition="\udcff")
    assert storage.materializations(a, "\udcff") == []


def test_runs_can_be_narrowed(storage: CatalogWriter, history: "History") -> None:
    runs = [history.start("a", job="x"), history.start("a", "b"), history.start("b", job="x"), history.start("c")]
    storage.append([*runs, history.finish(runs[0]), history.finish(runs[3], RunStatus.FAILURE)])

    def places(found: list[Run]) -> list[int]:
        return [[run.run_id for run in runs].index(one.run_id) for one in found]

    assert places(storage.runs()) == [3, 2, 1, 0]
    assert places(storage.runs(statuses=[RunStatus.STARTED])) == [2, 1]
    assert places(storage.runs(statuses=[RunStatus.SUCCESS, RunStatus.FAILURE])) == [3, 0]
    assert places(storage.runs(statuses=[])) == []
    assert places(storage.runs(asset=AssetKey("b"))) == [2, 1]
    assert places(storage.runs(asset=AssetKey("unknown"))) == []
    assert places(storage.runs(job="x")) == [2, 0]
    assert places(storage.runs(limit=2)) == [3, 2]
    assert places(storage.runs(before=runs[2].run_id, limit=1)) == [1]
    assert places(storage.runs(job="x", before=runs[2].run_id)) == [0]


def test_a_run_by_the_beginning_of_its_identifier(storage: CatalogWriter, history: "History") -> None:
    runs = [
        replace(history.start("a"), run_id=f"{start}-0000-7000-8000-00000000000a") for start in ("0190abcd", "0190abff")
    ]
    storage.append(runs)
    for beginning in ("0190abc", "0190abcd", "0190ABCD-0", runs[0].run_id):
        found = storage.run(beginning)
        assert found is not None and found.run_id == runs[0].run_id
    with pytest.raises(UsageError, match="More than one"):
        storage.run("0190ab")
    with pytest.raises(UsageError, match="too short"):
        storage.run("019")
    for nothing in ("0191", "zzzz", "0190abcd0", runs[0].run_id + "0", "0190%", "0190abcd_"):
        assert storage.run(nothing) is None


def test_the_life_of_a_backfill(reopen: Reopen, history: "History") -> None:
    started = history.backfill(
        "a",
        ("b", 3),
        title="fix",
        selection="b+",
        options={"only": "failed", "n": [1]},
        tags={"k": "v"},
        user="u",
        host="h",
        pid=7,
    )
    reopen().append([started])
    expected = Backfill(
        backfill_id=started.backfill_id,
        status=BackfillStatus.STARTED,
        started=started.time,
        title="fix",
        selection="b+",
        options={"only": "failed", "n": [1]},
        tags={"k": "v"},
        targets=started.targets,
        user="u",
        host="h",
        pid=7,
        total=4,
    )
    assert reopen().backfills() == [expected]
    failed, again = history.stop(started, BackfillStatus.FAILURE, error=ERROR), history.resume(started, user="v", pid=8)
    reopen().append([failed])
    broken = replace(expected, status=BackfillStatus.FAILURE, ended=failed.time, error=ERROR)
    assert reopen().backfill(started.backfill_id[:30]) == broken
    reopen().append([again])
    resumed = replace(expected, user="v", host="", pid=8)
    assert reopen().backfills(statuses=[BackfillStatus.STARTED]) == [resumed]
    reopen().append([history.resume(started, host="w"), canceled := history.stop(started, BackfillStatus.CANCELED)])
    over = replace(expected, status=BackfillStatus.CANCELED, ended=canceled.time, user="", host="w", pid=0)
    assert reopen().backfills() == [over]
    reopen().append([history.resume(started, user="x"), history.stop(started, BackfillStatus.SUCCESS)])
    storage = reopen()
    storage.append([history.stop(started, BackfillStatus.FAILURE, error=ERROR)])
    assert storage.backfills() == [over]
    log = storage.events()
    assert [(event.kind, event.message, event.data.get("late", False)) for event in log] == [
        ("BACKFILL_START", "fix", False),
        ("BACKFILL_FAILURE", ERROR.message, False),
        ("BACKFILL_RESUME", "", False),
        ("BACKFILL_RESUME", "", False),
        ("BACKFILL_CANCELED", "", False),
        ("BACKFILL_RESUME", "", True),
        ("BACKFILL_SUCCESS", "", True),
        ("BACKFILL_FAILURE", ERROR.message, True),
    ]
    assert all(event.data["backfill_id"] == started.backfill_id for event in log)
    assert (log[0].data["assets"], log[0].data["cells"]) == (2, 4)


def test_backfills_can_be_narrowed(storage: CatalogWriter, history: "History") -> None:
    backfills = [history.backfill("a") for _ in range(4)]
    storage.append([*backfills, history.stop(backfills[1], BackfillStatus.SUCCESS)])

    def places(found: list[Backfill]) -> list[int]:
        return [[one.backfill_id for one in backfills].index(one.backfill_id) for one in found]

    assert places(storage.backfills()) == [3, 2, 1, 0]
    assert places(storage.backfills(limit=2)) == [3, 2]
    assert places(storage.backfills(before=backfills[2].backfill_id)) == [1, 0]
    assert places(storage.backfills(statuses=[BackfillStatus.STARTED], limit=2)) == [3, 2]
    assert places(storage.backfills(statuses=[])) == []
    nothing = history.identifier()
    with pytest.raises(UsageError, match=nothing):
        storage.backfills(before=nothing)
    with pytest.raises(UsageError, match="More than one backfill"):
        storage.backfill(nothing[:20])
    with pytest.raises(UsageError, match="too short for the identifier of a backfill"):
        storage.backfill("019")
    assert storage.backfill(nothing) is None is storage.backfill("zzzz")
    assert storage.backfill_cells(nothing) == {} == storage.backfill_cells("zzzz")
    assert storage.runs(backfill=nothing) == [] == storage.runs(backfill="zzzz")


def test_what_the_runs_of_a_backfill_did(reopen: Reopen, history: "History") -> None:
    """Done is what was made or found up to date; failed is what failed last of the rest."""
    b, keys = AssetKey("b"), ["p", "q", "r", "s", "'", "t"]
    backfill, other = history.backfill("a", ("b", 6)), history.backfill(("b", 6))

    def outcome(run: RunStarted, status: StepStatus, made: Sequence[int] = (), **cells: str) -> StepEnded:
        return history.end(
            run,
            1,
            status,
            materializations=tuple(history.make(run, 1, cell) for cell in made),
            cells=tuple(StepCell(asset=b, partition=key, status=StepStatus(ended)) for key, ended in cells.items()),
        )

    first, second, third = (history.start("a", ("b", keys), backfill_id=backfill.backfill_id) for _ in range(3))
    elsewhere, alone = history.start(("b", keys), backfill_id=other.backfill_id), history.start(("b", keys))
    reopen().append([backfill, other, first])
    storage = reopen()
    assert storage.backfill_cells(backfill.backfill_id) == {}
    mixed = outcome(first, StepStatus.FAILURE, [0], p="SUCCESS", q="VERIFIED", r="FAILURE", s="FAILURE", t="CANCELED")
    reopen().append([history.end(first, 0, StepStatus.FAILURE, error=ERROR), mixed])
    assert reopen().backfill_cells(backfill.backfill_id) == {
        AssetKey("a"): BackfillCells([], [None]),
        b: BackfillCells(["p", "q"], ["r", "s"]),
    }
    reopen().append([history.finish(first, RunStatus.FAILURE), second, elsewhere, alone, history.succeed(alone)])
    whole = history.end(
        second, 0, StepStatus.VERIFIED, cells=(StepCell(asset=AssetKey("a"), status=StepStatus.VERIFIED),)
    )
    later = outcome(
        second, StepStatus.SUCCESS, [2, 4], r="SUCCESS", s="SKIPPED", p="FAILURE", t="FAILURE", **{"'": "SUCCESS"}
    )
    reopen().append([whole, later, history.end(elsewhere, 0, StepStatus.FAILURE)])
    late = history.finish(third), history.succeed(third)
    reopen().append([third, *late])
    storage = reopen()
    assert storage.backfill_cells(backfill.backfill_id) == {
        AssetKey("a"): BackfillCells([None], []),
        b: BackfillCells(["'", "p", "q", "r"], ["t"]),
    }
    assert storage.backfill_cells(other.backfill_id) == {b: BackfillCells([], [*sorted(keys)])}
    counted = [(one.runs, one.done, one.failed, one.total) for one in storage.backfills()]
    assert counted == [
        ((elsewhere.run_id,), 0, 6, 6),
        ((first.run_id, second.run_id, third.run_id), 5, 1, 7),
    ]
    assert storage.backfill(backfill.backfill_id) == storage.backfills()[1]
    assert [run.run_id for run in storage.runs(backfill=backfill.backfill_id)] == [
        third.run_id,
        second.run_id,
        first.run_id,
    ]
    assert [run.backfill_id for run in storage.runs(limit=5)] == [
        backfill.backfill_id,
        None,
        other.backfill_id,
        backfill.backfill_id,
        backfill.backfill_id,
    ]


def test_definitions(reopen: Reopen, history: "History") -> None:
    def changed(*pairs: tuple[str, str], code: int = 1) -> DefinitionsChanged:
        return DefinitionsChanged(
            time=history.time(),
            changes=tuple(
                DefinitionChange(
                    asset=AssetKey(name), changed=history.time(), change=change, parts=("code",) * (change == "changed")
                )
                for name, change in pairs
            ),
            definitions=tuple(
                AssetDefinition(
                    asset=AssetKey(name),
                    data={"key": name, "code": code, "deps": [{"key": "up", "columns": None}]},
                    metadata={"owner": MetadataValue.text("me")},
                )
                for name, change in pairs
                if change != "removed"
            ),
        )

    first = changed(("a", "added"), ("b", "added"), ("c", "added"))
    second = changed(("a", "changed"), ("b", "removed"), code=2)
    third = changed(("b", "added"), code=3)
    reopen().append([first])
    assert reopen().definitions() == {one.asset: one for one in first.definitions}
    reopen().append([second, third])
    storage = reopen()
    assert storage.definitions() == {
        one.asset: one for one in (*first.definitions[2:], *second.definitions, *third.definitions)
    }
    changes = [*first.changes, *second.changes, *third.changes]
    assert storage.definition_history() == changes[::-1]
    assert storage.definition_history(limit=2) == changes[:-3:-1]
    assert storage.definition_history(AssetKey("b")) == [changes[5], changes[4], changes[1]]
    assert storage.definition_history(AssetKey("unknown")) == []


def test_keys_of_dynamic_partitions(reopen: Reopen, history: "History") -> None:
    def change(name: str, added: Sequence[str] = (), deleted: Sequence[str] = ()) -> DynamicPartitionsChanged:
        return DynamicPartitionsChanged(time=history.time(), name=name, added=tuple(added), deleted=tuple(deleted))

    hostile = ["x'; drop table event", "a/b", "\x1b[31m", "%", "ü", "Ü", "\x00", "nul\x00l", "\ud83d", ""]
    stored = [key.replace("\ud83d", "\\ud83d") for key in hostile]
    reopen().append([change("one", ["b", "a", "b"]), change("two'", hostile)])
    reopen().append([change("one", ["a", "c", "d"]), change("one", [], ["nope"])])
    for _ in range(2):
        keys = reopen().dynamic_keys
        assert (keys.count("one"), keys.count("two'"), keys.count("none"), keys.count("\ud800")) == (4, 10, 0, 0)
        assert list(keys.slice("one", 0, 10)) == ["b", "a", "c", "d"]
        assert list(keys.slice("one", 1, 3)) == ["a", "c"]
        assert list(keys.slice("one", 4, 4)) == [] == list(keys.slice("none", 0, 9)) == list(keys.slice("\ud800", 0, 9))
        assert list(keys.indexes("one", ["d", "nope", "b", "d", "\ud800", "'"])) == [3, -1, 0, 3, -1, -1]
        assert list(keys.indexes("none", ["a"])) == [-1] == list(keys.indexes("\ud800", ["a"]))
        assert list(keys.slice("two'", 0, 99)) == stored
        assert list(keys.indexes("two'", stored)) == list(range(10))
    assert reopen().dynamic_partition_names() == ["one", "two'"]
    storage = reopen()
    keys = storage.dynamic_keys
    storage.append(
        [
            change("one", ["e"], ["a"]),  # b c d e
            change("one", ["b", "c"], ["b"]),  # c d e b
            change("one", ["f"]),  # c d e b f
            change("one", [], ["f", "d"]),  # c e b
            change("one", ["f", "d", "f"]),  # c e b f d
            change("two'", [], stored),
        ]
    )
    assert list(keys.slice("one", 0, 9)) == ["c", "e", "b", "f", "d"]
    assert list(keys.indexes("one", ["c", "e", "b", "f", "d", "a"])) == [0, 1, 2, 3, 4, -1]
    assert list(reopen().dynamic_keys.slice("one", 3, 9)) == ["f", "d"]
    assert reopen().dynamic_partition_names() == ["one"]
    log = reopen().events(kinds=["DYNAMIC_PARTITIONS_CHANGED"])
    assert (log[0].message, log[0].data) == ("one: 3 added", {"name": "one", "added": ["b", "a", "b"]})
    assert (log[4].message, log[4].data) == (
        "one: 1 added, 1 deleted",
        {"name": "one", "added": ["e"], "deleted": ["a"]},
    )
    assert (log[0].run_id, log[0].asset, log[0].partition) == (None, None, None)


def test_thousands_of_dynamic_keys(reopen: Reopen, history: "History") -> None:
    names = [f"k{number}" for number in range(5000)]
    storage = reopen()
    for part in (names[:3000], names[2000:]):
        storage.append([DynamicPartitionsChanged(time=history.time(), name="n", added=tuple(part))])
    storage.append([DynamicPartitionsChanged(time=history.time(), name="n", deleted=tuple(names[1:4001:2]))])
    left = names[:4001:2] + names[4001:]
    for look in (lambda: storage, reopen):
        keys = look().dynamic_keys
        assert keys.count("n") == 3000
        assert list(keys.slice("n", 1990, 2100)) == left[1990:2100]
        assert list(keys.indexes("n", names[3990:4010])) == [
            left.index(key) if key in left else -1 for key in names[3990:4010]
        ]


def test_text_of_every_kind_comes_back(reopen: Reopen, history: "History") -> None:
    texts = [
        "", "'", '"', "\\", "%", "\x00", "\n\r\t", "\x1b]52;c;x\x07", "\u202e", "é", "🎉", "[/nope]", "null", "{}",
        "$1", "?", "--", "; drop table event", "a" * 100_000,
    ]  # fmt: skip
    runs = [history.start("a", job=text, selection=text, tags={text: text}, user=text, host=text) for text in texts]
    storage = reopen()
    storage.append(runs[:2])
    for run in runs[2:]:
        storage.append([run])
    lines = [
        LogMessage(time=history.time(), run_id=runs[0].run_id, step_key=None, level="INFO", message=text)
        for text in texts
    ]
    storage.append(lines)
    storage = reopen()
    found = storage.runs()[::-1]
    assert [(run.job, run.selection, run.tags, run.user, run.host) for run in found] == [
        (text, text, {text: text}, text, text) for text in texts
    ]
    assert [event.message for event in storage.events(kinds=["LOG_MESSAGE"])] == texts


@pytest.mark.parametrize("count", [1, 300])
def test_a_subclass_of_text_is_text(storage: CatalogWriter, history: "History", count: int) -> None:
    """The name of a step may be anything that is a `str`."""
    run = history.start("a")
    lines = [
        LogMessage(time=history.time(), run_id=run.run_id, step_key=AssetKey("a"), level="INFO", message=AssetKey("m"))
        for _ in range(count)
    ]
    storage.append([run, *lines])
    found = storage.events(kinds=["LOG_MESSAGE"], limit=None)
    assert [(event.step_key, event.message) for event in found] == [("a", "m")] * count


@pytest.mark.parametrize("count", [1, 300])
def test_a_lone_surrogate_is_written_out(storage: CatalogWriter, history: "History", count: int) -> None:
    """It has no UTF-8 form, and a log line may hold one: a name of a file that is not UTF-8, read by Python."""
    run = history.start("a", tags={"\udc80": "\ud800x"})
    line = LogMessage(time=history.time(), run_id=run.run_id, step_key="a", level="INFO", message="caf\udce9 ok")
    failed = history.end(run, 0, StepStatus.FAILURE, error=ErrorRecord(kind="E", message="caf\udce9"))
    storage.append([run, *[line] * count, failed])
    found = storage.run(run.run_id)
    assert found is not None and found.tags == {"\\udc80": "\\ud800x"}
    (message, *_) = storage.events(kinds=["LOG_MESSAGE"])
    assert message.message == "caf\\udce9 ok"
    (step,) = storage.steps(run.run_id)
    assert step.error == ErrorRecord(kind="E", message="caf\\udce9")


def test_times_of_every_year(storage: CatalogWriter, history: "History") -> None:
    times = [
        datetime(1, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
        datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
        datetime(2024, 3, 10, 12, tzinfo=timezone(timedelta(0), "Zulu")),
        datetime(9999, 12, 30, 23, 59, 59, 999_999, tzinfo=UTC),
    ]
    storage.append([replace(history.start("a"), time=time) for time in times])
    assert [run.started for run in storage.runs()] == times[::-1]
    assert all(run.created.utcoffset() == timedelta(0) for run in storage.runs())


def test_column_statistics_of_every_type(storage: CatalogWriter, history: "History") -> None:
    values = [None, 0, -(2**63), 2**64 - 1, 0.1, 1e300, 5e-324, "", "2024-01-01T00:00:00Z", "12.50", True, False]
    columns = tuple(
        Column(name=f"c{number}", type="t", nulls=number, min=value, max=value) for number, value in enumerate(values)
    )
    run = history.start("a")
    storage.append([run, history.succeed(run, pointer=Pointer(uri="x", format="y", columns=columns))])
    made = storage.current(AssetKey("a"))
    assert made is not None and made.pointer is not None and made.pointer.columns == columns
    assert [type(column.min) for column in made.pointer.columns] == [type(value) for value in values]


def test_large_appends_and_small_ones_are_alike(reopen: Reopen, history: "History") -> None:
    """A storage may treat them differently; nobody may notice."""
    partitions = [f"p{number}" for number in range(700)]
    run = history.start(("a", partitions), *(f"b{number}" for number in range(5)))
    code = [Fingerprint(code=f"ast:{number}") for number in range(3)]
    storage = reopen()
    storage.append([run])
    for step in range(1, 3):
        storage.append([history.succeed(run, step, fingerprint=code[0])])
    storage.append([history.succeed(run, 0, fingerprint=code[1]), history.succeed(run, 3, fingerprint=code[2])])
    storage.append([history.succeed(run, 4)])
    again = history.start(("a", partitions[::7]))
    storage.append([again])
    storage.append([history.succeed(again, fingerprint=code[2])])
    for look in (lambda: storage, reopen):
        seen = look()
        states = list(partition_states(seen).values())
        assert (len(seen.cells()), len(states)) == (4, 700)
        assert sum(fingerprint == code[2] for _, fingerprint, _, _ in states) == 100
        assert len(seen.planned(run.run_id)) == 1
        assert len(seen.materializations(AssetKey("a"), limit=1000)) == 800
        assert [event.seq for event in seen.events(limit=None)] == list(range(1, seen.append([]) + 1))


def test_appends_so_large_that_they_go_in_another_way(reopen: Reopen, history: "History") -> None:
    """With text of every kind in them, and a cell that is made twice."""
    partitions = [f"p{number}" for number in range(10_001)]
    run, again = history.start(("a", partitions)), history.start(("a", partitions[5:9]))
    end = history.succeed(run, fingerprint=Fingerprint(code="x"), inputs=(), pointer=None)
    odd, *others = end.materializations
    strange = {"version": "\x00'\"\ue000", "lone": "caf\udce9"}
    odd = replace(
        odd,
        partition=AssetKey("p/0"),
        data_version=strange["version"],
        tags=strange,
        inputs=(Input(asset=AssetKey("up"), partition="'", version_id=run.run_id, data_version=strange["lone"]),),
        pointer=Pointer(uri="ü", format="f", columns=(Column(name="c", type="t", version="v", min=2**64 - 1),)),
    )
    storage = reopen()
    storage.append([run, again])
    storage.append([replace(end, materializations=(odd, *others)), history.succeed(again)])
    kept = {"version": strange["version"], "lone": "caf\\udce9"}
    read = replace(odd.inputs[0], data_version=kept["lone"])
    for look in (lambda: storage, reopen):
        seen = look()
        assert seen.current(odd.asset, "p/0") == replace(odd, tags=kept, inputs=(read,))
        assert seen.current(odd.asset, "p9999") == others[9998]
        states = partition_states(seen)
        assert len(states) == 10_001
        assert states[Cell(odd.asset, "p/0")] == (
            4,
            odd.fingerprint,
            version_hash("a", "p/0", kept["version"]),
            inputs_hash([read]),
        )
        assert [states[Cell(odd.asset, key)][0] for key in ("p1", "p5", "p9999")] == [5, 10_006, 10_003]
        assert len(seen.planned(run.run_id)) == 0
        assert [event.seq for event in seen.events(limit=None)] == list(range(1, 10_010))


def test_closing_is_final_and_idempotent(storage: CatalogWriter, history: "History") -> None:
    storage.close()
    storage.close()
    for use in (storage.runs, storage.cells, lambda: storage.append([history.start("a")])):
        with pytest.raises(CatalogError, match="closed"):
            use()


def test_a_query_reads_or_says_that_there_is_no_sql(storage: CatalogWriter, history: "History") -> None:
    storage.append([history.start("a")])
    with contextlib.suppress(UsageError):
        assert storage.query("select count(*) from runs").rows == [(1,)]
        return
    assert isinstance(storage, MemoryStorage)


def test_what_conditions_leave(reopen: Reopen, history: "History") -> None:
    storage = reopen()
    assert (storage.condition_states(), storage.last_event()) == ([], 0)
    seen = history.automate()
    storage.append([seen, history.conditions(None, "a", "b", n=1), history.tick(1, 0)])
    storage.append([history.conditions(None, "b", n={"deep": [2]}), history.tick(2, 1)])
    late = history.tick(2, 1)
    with pytest.raises(ConflictError):
        storage.append([history.conditions(None, "a", n=3), late])

    def check(storage: CatalogWriter) -> None:
        found = {one.asset and str(one.asset): one.data for one in storage.condition_states()}
        assert found == {None: {"n": {"deep": [2]}}, "a": {"n": 1}, "b": {"n": {"deep": [2]}}}
        assert [one.asset for one in storage.condition_states(common=True)] == [None]
        of_b = storage.events(asset=AssetKey("b"), kinds=["CONDITION_EVALUATED"])
        assert [one.data for one in of_b] == [{"requested": 1, "tree": {"name": "missing"}}] * 2
        assert storage.last_event() == len(storage.events(limit=None)) == 8

    check(storage)
    check(reopen())


def test_ticks_of_a_schedule(reopen: Reopen, history: "History") -> None:
    storage = reopen()
    assert storage.automations() == {} == storage.requested("s", ["k"])
    assert storage.ticks() == []
    run = history.queue(job="j")
    seen, other = history.automate(), history.automate("t", AutomationStatus.RUNNING)
    skipped = history.tick(1, 0, reason="not now")
    done = history.tick(2, 1, status=TickStatus.SUCCESS, run_ids=(run.run_id,), run_keys={"k": run.run_id})
    failed = history.tick(7, 2, status=TickStatus.FAILURE, error=ERROR, instants=5)
    storage.append([seen, other, skipped])
    storage.append([run, done, failed])

    def check(storage: CatalogWriter) -> None:
        assert storage.automations() == {
            "s": Automation(name="s", until=instant(7), ticked=instant(7), last_run_key="k", failures=1),
            "t": Automation(name="t", status=AutomationStatus.RUNNING, until=instant(0)),
        }
        last, middle, first = storage.ticks(["s"])
        assert storage.ticks() == [last, middle, first]
        assert last == Tick(
            name="s", at=instant(7), evaluated=failed.time, status=TickStatus.FAILURE, error=ERROR, instants=5
        )
        assert (middle.at, middle.status, middle.run_ids) == (instant(2), TickStatus.SUCCESS, (run.run_id,))
        assert middle.run_keys == {"k": run.run_id}
        assert (first.status, first.reason) == (TickStatus.SKIPPED, "not now")
        assert storage.ticks(["t"]) == [] == storage.ticks(["\ud800"])
        assert storage.ticks(["s"], limit=2) == [last, middle]
        assert storage.requested("s", ["k", "l", "\ud800"]) == {"k": run.run_id}
        assert storage.requested("t", ["k"]) == {} == storage.requested("s", [])
        kinds = [event.kind for event in storage.events() if event.kind != "RUN_QUEUED"]
        assert kinds == ["AUTOMATION_SEEN", "AUTOMATION_RUNNING", "TICK_SKIPPED", "TICK_SUCCESS", "TICK_FAILURE"]

    check(storage)
    check(reopen())


def test_an_instant_is_decided_once(reopen: Reopen, history: "History") -> None:
    storage = reopen()
    with pytest.raises(CatalogError, match="never seen"):
        storage.append([history.tick(1, 0)])
    storage.append([history.automate(), history.tick(1, 0), history.tick(5, 1)])

    def check(storage: CatalogWriter) -> None:
        refused: list[list[Event]] = [
            [history.tick(5, 1)],  # somebody else was faster
            [history.tick(6, 1)],
            [history.tick(5, 5)],  # clocks that went back
            [history.tick(4, 5)],
            [history.automate()],
            [history.queue(), history.tick(9, 0)],  # and its run is not there either
            [history.tick(6, 5), history.tick(7, 5)],
        ]
        for events in refused:
            with pytest.raises(ConflictError, match="Somebody else decided about 's'"):
                storage.append(events)
        assert storage.automations()["s"].until == instant(5)
        assert storage.runs() == []

    check(storage)
    storage = reopen()
    check(storage)
    storage.append([history.tick(6, 5), history.tick(7, 6)])


def test_a_schedule_that_is_stopped_has_no_ticks_and_starting_it_undoes_none(
    reopen: Reopen, history: "History"
) -> None:
    storage = reopen()
    storage.append([history.automate(), history.tick(5, 0)])
    storage.append([history.automate(status=AutomationStatus.STOPPED, until=instant(6), after=instant(5))])
    with pytest.raises(ConflictError):
        storage.append([history.tick(7, 6)])
    # A clock that went back: what was decided stays decided.
    storage.append([history.automate(status=AutomationStatus.RUNNING, until=instant(2), after=instant(6))])
    found = storage.automations()
    assert reopen().automations() == found
    running = Automation(name="s", status=AutomationStatus.RUNNING, until=instant(5), ticked=instant(5))
    assert found == {"s": running}


def test_a_failed_append_leaves_schedules_as_they_were(storage: CatalogWriter, history: "History") -> None:
    storage.append([history.automate()])
    with pytest.raises(CatalogError):
        storage.append([history.tick(1, 0), history.automate("new"), history.tick(2, 1), history.tick(1, 0, "absent")])
    assert storage.automations() == {"s": Automation(name="s", until=instant(0))}
    storage.append([history.tick(1, 0), history.automate("new")])


def test_what_a_sensor_remembers_is_what_its_last_tick_said(reopen: Reopen, history: "History") -> None:
    storage = reopen()
    keys = {"b": history.identifier(), "a": history.identifier()}
    done = history.tick(1, 0, status=TickStatus.SUCCESS, cursor="one", run_keys=keys)
    storage.append([history.automate(), done])
    expected = Automation(name="s", until=instant(1), ticked=instant(1), cursor="one", last_run_key="a")
    assert storage.automations() == {"s": expected}
    failed = [history.tick(at, at - 1, status=TickStatus.FAILURE, error=ERROR) for at in (2, 3)]
    storage.append(failed)
    expected = replace(expected, until=instant(3), ticked=instant(3), failures=2)
    assert storage.automations() == {"s": expected} == reopen().automations()
    storage = reopen()
    with pytest.raises(ConflictError):  # the cursor of one who was too late
        storage.append([history.tick(4, 2, cursor="late")])
    started = history.automate(status=AutomationStatus.RUNNING, until=instant(5), after=instant(3), cursor="set")
    storage.append([started])
    expected = replace(expected, status=AutomationStatus.RUNNING, until=instant(5), cursor="set", failures=0)
    assert storage.automations() == {"s": expected} == reopen().automations()
    storage = reopen()
    storage.append([history.tick(6, 5, cursor=""), history.tick(7, 6)])
    assert storage.automations()["s"].cursor == ""
    storage.append([history.automate(until=instant(8), after=instant(7))])
    assert storage.automations()["s"].cursor is None


def test_the_number_of_the_last_event(reopen: Reopen, history: "History") -> None:
    storage = reopen()
    assert storage.last_event() == 0
    number = storage.append([history.automate(), history.tick(1, 0)])
    assert storage.last_event() == number == 2
    assert reopen().last_event() == number


def test_old_ticks_are_forgotten_and_what_they_requested_is_not(reopen: Reopen, history: "History") -> None:
    storage = reopen()
    runs = [history.queue() for _ in range(3)]
    ticks = [
        history.tick(at, at - 1, status=TickStatus.SUCCESS, run_ids=(run.run_id,), run_keys={str(at): run.run_id})
        for at, run in enumerate(runs, 1)
    ]
    skipped = history.tick(4, 3)
    other = history.tick(1, 0, "t")
    storage.append([history.automate(), history.automate("t"), *runs, *ticks, skipped, other])
    found = storage.ticks()
    assert storage.ticks(statuses=[TickStatus.SUCCESS], before=ticks[2].time) == found[3:]
    assert storage.ticks(statuses=[]) == [] == storage.ticks(["t"], before=other.time)
    of_all = TicksPurged(
        time=history.time(), names=("s", "t", "u"), status=TickStatus.SUCCESS, before=ticks[2].time, limit=1
    )
    late = history.tick(5, 4)
    storage.append([of_all, replace(of_all, names=("t",), status=TickStatus.SKIPPED, before=history.time()), late])

    def check(storage: CatalogWriter) -> None:
        assert [(tick.name, tick.at) for tick in storage.ticks()] == [
            *(("s", instant(at)) for at in (5, 4, 3, 2)),
        ]
        assert storage.requested("s", ["1", "3"]) == {"1": runs[0].run_id, "3": runs[2].run_id}
        assert storage.automations()["t"].ticked == instant(1)

    check(storage)
    storage = reopen()
    check(storage)
    storage.append([replace(of_all, limit=10)])
    assert [tick.at for tick in storage.ticks()] == [instant(5), instant(4), instant(3)]
    (first, *_) = storage.events(kinds=["TICKS_PURGED"])
    assert (first.data["status"], first.data["names"]) == ("SUCCESS", 3)


def test_daemons_come_one_after_the_other(reopen: Reopen, history: "History") -> None:
    storage = reopen()
    assert storage.daemon() is None
    first = DaemonStarted(time=history.time(), epoch=1, user="u", host="h", pid=7, start_ticks=5)
    storage.append([first], by="daemon-1")
    found = storage.daemon()
    assert found is not None and 0 <= found.silent < 60
    assert replace(found, silent=0.0) == Daemon(
        epoch=1, started=first.time, user="u", host="h", pid=7, start_ticks=5, silent=0.0
    )
    storage = reopen()
    seq = storage.append([], by=found.name)
    second = replace(first, time=history.time(), epoch=2, pid=8)
    with pytest.raises(ConflictError, match="gave a sign of life"):
        storage.append([second], lapsed=["daemon-1"])
    for epoch in (1, 3):
        with pytest.raises(ConflictError, match="Another process became the daemon"):
            storage.append([replace(first, epoch=epoch)])
    assert storage.append([second]) == seq + 1
    # Whoever was it before cannot do anything any more, nor end the other one.
    with pytest.raises(RunOverError):
        storage.append([history.queue()], by="daemon-1")
    storage.append([DaemonStopped(time=history.time(), epoch=1)])
    stopped = DaemonStopped(time=history.time(), epoch=2)
    storage = reopen()
    storage.append([stopped], by="daemon-2")
    for again in (False, True):
        one = reopen() if again else storage
        last = one.daemon()
        assert last is not None and (last.epoch, last.pid, last.ended) == (2, 8, stopped.time)
        with pytest.raises(RunOverError):
            one.append([], by="daemon-2")
        assert one.runs() == []
    kinds = [(event.kind, event.data.get("late")) for event in reopen().events()]
    start, stop = "DAEMON_START", "DAEMON_STOP"
    assert kinds == [(start, None), (start, None), (stop, True), (stop, None)]


def test_a_failed_append_leaves_the_daemon_as_it_was(storage: CatalogWriter, history: "History") -> None:
    started = [DaemonStarted(time=history.time(), epoch=epoch, pid=epoch) for epoch in (1, 2)]
    with pytest.raises(CatalogError):
        storage.append([*started, history.tick(1, 0, "absent")])
    assert storage.daemon() is None
    storage.append(started)
    with pytest.raises(CatalogError):
        storage.append([DaemonStopped(time=history.time(), epoch=2), history.tick(1, 0, "absent")])
    found = storage.daemon()
    assert found is not None and (found.epoch, found.pid, found.ended) == (2, 2, None)


def test_facts_are_found_out_once(reopen: Reopen, history: "History") -> None:
    storage = reopen()
    assert storage.facts(FactTopic.FRESHNESS) == {}
    first, other = history.fact("a/b", "PASS"), history.fact("c", "PASS")
    alert = history.fact("c", "SENT", topic=FactTopic.ALERT)
    storage.append([first, other, alert, history.fact("c", "WARN", "PASS")])
    last = history.fact("a/b", "FAIL", "PASS", message="for a day")
    storage.append([last])
    refused: list[list[Event]] = [
        [history.fact("a/b", "FAIL", "PASS")],  # somebody else was faster
        [history.fact("a/b", "FAIL")],
        [history.fact("new", "FAIL", "PASS")],
        [history.queue(), history.fact("c", "FAIL", "PASS")],  # and its run is not there either
        [history.fact("c", "FAIL", "WARN"), history.fact("c", "PASS", "WARN")],
    ]

    def check(storage: CatalogWriter) -> None:
        for events in refused:
            with pytest.raises(ConflictError, match="Somebody else found out about"):
                storage.append(events)
        found = storage.facts(FactTopic.FRESHNESS)
        assert list(found) == ["a/b", "c"]  # the last changes first
        topic = FactTopic.FRESHNESS
        assert found["a/b"] == Fact(topic=topic, name="a/b", value={"state": "FAIL"}, changed=last.time)
        assert storage.facts(topic, ["c", "absent", "\ud800"]) == {"c": found["c"]}
        assert storage.facts(topic, []) == {}
        assert [*storage.facts(topic, limit=1)] == ["a/b"]
        assert [*storage.facts(FactTopic.ALERT)] == ["c"]
        assert storage.runs() == []
        about = storage.events(asset=AssetKey("a/b"))
        assert [(event.kind, event.message) for event in about][-1] == ("FRESHNESS_CHANGED", "for a day")

    check(storage)
    check(reopen())
    reopen().append([history.fact("c", "FAIL", "WARN"), history.fact("c", "PASS", "FAIL")])


def test_the_life_of_a_run_that_waits(reopen: Reopen, history: "History") -> None:
    other = history.start("a")
    queued = history.queue(
        selection="+c", tags={"k": "v"}, host="h", pid=7, pools=("p",), behind=other.run_id, request={"force": True}
    )
    reopen().append([other, queued])
    expected = Run(
        run_id=queued.run_id,
        status=RunStatus.QUEUED,
        queued=queued.time,
        selection="+c",
        tags={"k": "v"},
        host="h",
        pid=7,
        pools=("p",),
        behind=other.run_id,
        request={"force": True},
    )
    assert reopen().runs(statuses=[RunStatus.QUEUED]) == [expected]
    assert (reopen().claims(), expected.created) == (1, queued.time)
    starting = history.move(queued, RunStatus.STARTING, pid=8, host="i", start_ticks=3, claims_before=1)
    reopen().append([starting])
    expected = replace(
        expected, status=RunStatus.STARTING, moved=starting.time, host="i", pid=8, start_ticks=3, behind=None
    )
    assert reopen().run(queued.run_id) == expected
    assert reopen().claims() == 2
    started = replace(history.start("c"), run_id=queued.run_id, host="i", pid=9, start_ticks=4, claims_before=2)
    reopen().append([started])
    expected = replace(
        expected,
        status=RunStatus.STARTED,
        started=started.time,
        pid=9,
        start_ticks=4,
        step_counts={StepStatus.PENDING: 1},
    )
    assert reopen().run(queued.run_id) == expected
    canceling, end = history.move(started, RunStatus.CANCELING), history.finish(started, RunStatus.CANCELED)
    reopen().append([canceling, history.succeed(started), end])
    found = reopen().run(queued.run_id)
    assert found is not None
    assert (found.status, found.ended, found.moved) == (RunStatus.CANCELED, end.time, canceling.time)
    assert found.step_counts == {StepStatus.SUCCESS: 1}
    with pytest.raises(ConflictError):
        reopen().append([history.move(queued, RunStatus.STARTING)])


def test_a_run_that_leaves_the_queue_cannot_begin(storage: CatalogWriter, history: "History") -> None:
    queued = history.queue()
    storage.append([queued, history.finish(queued, RunStatus.CANCELED)])
    with pytest.raises(ConflictError, match="is CANCELED by now"):
        storage.append([replace(history.start("a"), run_id=queued.run_id)])
    with pytest.raises(CatalogError, match="has no step"):
        storage.append([history.step(replace(history.start("a"), run_id=queued.run_id))])
    assert storage.runs()[0].status is RunStatus.CANCELED


def test_of_claims_that_were_made_at_the_same_time_one_is_granted(storage: CatalogWriter, history: "History") -> None:
    run, queued = history.start("a", "b", claims_before=0), history.queue()
    storage.append([run, queued])
    storage.append([history.claim(run, 0, claims_before=1)])
    for late in (
        history.claim(run, 1, claims_before=1),
        history.start("c", claims_before=1),
        history.move(queued, RunStatus.STARTING, claims_before=1),
    ):
        with pytest.raises(ConflictError, match="1 claims, and there are 2"):
            storage.append([late])
    assert storage.claims() == 2
    storage.append([history.claim(run, 1, claims_before=2)])
    assert [slot.step_key for slot in storage.slots()] == [step.step_key for step in run.steps]


def test_a_place_in_a_pool_is_held_until_its_attempt_ends_or_its_run(reopen: Reopen, history: "History") -> None:
    run, other = history.start("a", "b"), history.start("c")
    reopen().append([run, other, *(history.claim(run, at) for at in (0, 1)), history.claim(other, 0, "q")])
    held = [("p", run, 0, 1), ("p", run, 1, 1), ("q", other, 0, 1)]

    def slots() -> list[Slot]:
        return [
            Slot(pool=pool, run_id=of.run_id, step_key=of.steps[at].step_key, attempt=attempt)
            for pool, of, at, attempt in held
        ]

    assert reopen().slots() == slots()
    retried = StepRetried(
        time=history.time(),
        run_id=run.run_id,
        step_key=run.steps[0].step_key,
        attempt=1,
        delay=0.0,
        error=ErrorRecord(kind="E", message=""),
    )
    reopen().append([history.step(run, 0), retried, history.succeed(run, 1)])
    held = held[2:]
    assert reopen().slots() == slots()
    reopen().append([history.claim(run, 0, attempt=2)])
    held.append(("p", run, 0, 2))
    assert reopen().slots() == slots()
    reopen().append([history.finish(other)])
    held = held[1:]
    assert reopen().slots() == slots()


def test_tries_at_one_thing(storage: CatalogWriter, history: "History") -> None:
    first, other = history.start("a"), history.start("a")
    second = history.start("a", parent_run_id=first.run_id, root_run_id=first.run_id)
    third = history.queue(parent_run_id=second.run_id, root_run_id=first.run_id)
    storage.append([first, second, other, third])
    assert [run.run_id for run in storage.runs(root=first.run_id)] == [third.run_id, second.run_id, first.run_id]
    assert [run.parent_run_id for run in storage.runs(root=first.run_id)] == [second.run_id, first.run_id, None]
    assert storage.runs(root="nonsense") == []


def test_who_is_over_adds_nothing_more(storage: CatalogWriter, history: "History") -> None:
    run, other = history.start("a"), history.start("b")
    assert storage.append([run], by=run.run_id) == 1
    assert storage.append([], by=run.run_id) == 1, "a sign of life is no event"
    storage.append([history.finish(run, RunStatus.INTERRUPTED), other])
    before = storage.events(limit=None)
    for late in ([history.succeed(run)], []):
        with pytest.raises(RunOverError, match=run.run_id):
            storage.append(late, by=run.run_id)
    assert storage.events(limit=None) == before
    assert storage.current(AssetKey("a")) is None
    storage.append([history.succeed(other)], by=other.run_id)
    assert storage.current(AssetKey("b")) is not None
    backfill = history.backfill("a")
    storage.append([backfill], by=backfill.backfill_id)
    storage.append([history.stop(backfill, BackfillStatus.FAILURE)], by=backfill.backfill_id)
    storage.append([], by=backfill.backfill_id)
    storage.append([history.stop(backfill, BackfillStatus.CANCELED)])
    with pytest.raises(RunOverError, match=backfill.backfill_id):
        storage.append([], by=backfill.backfill_id)


def test_who_has_just_given_a_sign_of_life_is_not_taken_for_gone(storage: CatalogWriter, history: "History") -> None:
    run = history.start("a")
    storage.append([run], by=run.run_id)
    (found,) = storage.runs()
    assert not found.lapsed
    with pytest.raises(ConflictError, match=run.run_id):
        storage.append([history.finish(run, RunStatus.INTERRUPTED)], lapsed=[run.run_id])
    (found,) = storage.runs()
    assert found.status is RunStatus.STARTED
