"""Production code with one safety step missing: each has to be caught, or the checks have no teeth."""

from collections.abc import Callable, Mapping
from typing import Any

from headwater.catalog.events import RunStarted
from headwater.catalog.storage.admission import Progress
from headwater.io.local import LocalStore
from headwater.io.location import version_path
from headwater.materialize.execution.recorder import Recorder
from headwater.materialize.execution.step import Attempt, StepResult
from tests.faults.simulation.world import Replaced, World

_STARTING = "headwater.materialize.execution.starting"
_MONITORING = "headwater.materialize.monitoring"
_PROCESSES = "headwater.catalog.processes"
#: Every module that asks when a process began.
_ASKING = (_PROCESSES, _STARTING, "headwater.materialize.backfill_signals", "headwater.materialize.waiting_run")


def _nothing(*_: object) -> None:
    """Stands for what is left out; also for a no."""


def _true(*_: object) -> bool:
    return True


def no_fsync_of_files(world: World) -> None:
    """A file is renamed before its bytes are on the disk."""
    world.system.syncs_files = False


def no_fsync_of_folders(world: World) -> None:
    """A name is taken for durable before its folder is."""
    world.system.syncs_folders = False


def overwrite_in_place(world: World) -> None:
    """Every version of a cell has the same file."""

    def same(asset: Any, partition: Any, version: str, suffix: str) -> str:
        return version_path(asset, partition, "0" * len(version), suffix)

    world.mutations = [
        Replaced("headwater.io.file_manager", "version_path", same),
        Replaced("headwater.io.local", "_lies_in", _nothing),
    ]


def commit_before_rename(world: World) -> None:
    """A version is recorded first, and published then."""
    later: dict[Any, list[Any]] = {}
    flush = Recorder.flush

    def publish(attempt: Attempt) -> StepResult:
        if attempt.failure is not None:
            attempt.discard()
        outputs = () if attempt.failure else tuple(output for output, _ in (*attempt.published, *attempt.outputs))
        later.setdefault(world.process, []).extend(staged for _, staged in attempt.outputs if staged is not None)
        return StepResult(
            spec=attempt.spec,
            seconds=0.0,
            outputs=outputs,
            failed=tuple(attempt.failed),
            failure=attempt.failure,
        )

    def flush_and_publish(recorder: Recorder) -> None:
        flush(recorder)
        for staged in later.pop(world.process, []):
            staged.publish()

    world.mutations = [Replaced(Attempt, "publish", publish), Replaced(Recorder, "flush", flush_and_publish)]


def no_compare_and_set(world: World) -> None:
    """A run begins whoever else began since it looked."""

    def started(**fields: Any) -> RunStarted:
        fields["claims_before"] = None
        return RunStarted(**fields)

    world.mutations = [Replaced(_STARTING, "RunStarted", started)]


def no_look_at_others(world: World) -> None:
    """A run begins whatever others build."""
    world.mutations = [Replaced(_STARTING, "refuse_taken", _nothing)]


def ends_are_not_final(world: World) -> None:
    """What is over can end again."""
    world.mutations = [Replaced(Progress, "end", _true)]


def acknowledge_before_commit(world: World) -> None:
    """A run is over for its caller before it is for the catalog."""
    world.mutations = [
        Replaced(Recorder, "flush", _nothing),
        Replaced(Recorder, "close", _nothing),
    ]


def everybody_is_dead(world: World) -> None:
    """Who settles what killed runs left does not ask whether they were killed."""
    world.mutations = [Replaced(_MONITORING, "is_interrupted", _true)]


def nobody_sweeps(world: World) -> None:
    """What killed runs left on the disk stays there."""
    world.mutations = [Replaced(LocalStore, "sweep", _nothing)]


def numbers_are_processes(world: World) -> None:
    """A process is told by its number alone, which another one may have by now."""
    world.mutations = [Replaced(module, "start_ticks", _nothing) for module in _ASKING]


def starts_by_the_clock(world: World) -> None:
    """When a process began is told by the clock on the wall, which somebody may set."""

    def start(pid: int) -> int | None:
        process = world.system.processes.get(pid)
        return None if process is None or not process.alive else int((process.began + world.jumped) * 100)

    world.mutations = [Replaced(module, "start_ticks", start) for module in _ASKING]


MUTANTS: Mapping[str, Callable[[World], None]] = {
    mutant.__name__: mutant
    for mutant in (
        no_fsync_of_files,
        no_fsync_of_folders,
        overwrite_in_place,
        commit_before_rename,
        no_compare_and_set,
        no_look_at_others,
        ends_are_not_final,
        acknowledge_before_commit,
        everybody_is_dead,
        nobody_sweeps,
        numbers_are_processes,
        starts_by_the_clock,
    )
}
