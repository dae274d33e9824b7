"""What the doctor keeps and what it takes, while runs go on."""

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from headwater.catalog.events import RunStarted, StepEnded
from headwater.catalog.instance import Instance
from headwater.catalog.records import Materialization, RunStatus, StepStatus
from headwater.catalog.storage.duckdb.examining import file_system_of
from headwater.io.local import LocalStore
from headwater.io.location import version_path
from headwater.io.store import StoredFile
from headwater.materialize.doctor import diagnose

if TYPE_CHECKING:
    from headwater.tests.histories import History

NO_GRACE = timedelta(0)


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[Instance]:
    """An empty home, open."""
    with Instance.open(tmp_path / "home") as opened:
        yield opened


def written(root: Path, run: RunStarted) -> Path:
    """The file of a run's only cell, written long ago."""
    (cell,) = run.steps[0].cells
    file = root / version_path(cell.asset, cell.partition, cell.version_id, "parquet")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"12345")
    then = time.time() - 1000
    os.utime(file, (then, then))
    return file


def committed(history: "History", run: RunStarted, file: Path) -> StepEnded:
    """The end of the step that wrote a file."""
    done = history.succeed(run)

    def there(made: Materialization) -> Materialization:
        assert made.pointer is not None
        return replace(made, pointer=replace(made.pointer, uri=file.as_uri(), bytes=5))

    return replace(done, materializations=tuple(there(made) for made in done.materializations))


def test_what_a_running_run_is_to_make_is_kept(instance: Instance, history: "History") -> None:
    run = history.start("a")
    file = written(instance.home / "data", run)
    instance.catalog.append([run])
    assert diagnose(instance, fix=True, grace=NO_GRACE).orphans == () and file.exists()
    instance.catalog.append([history.end(run, 0, StepStatus.FAILURE), history.finish(run, RunStatus.FAILURE)])
    (orphan,) = diagnose(instance, fix=True, grace=NO_GRACE).orphans
    assert orphan.removed and not file.exists()


@pytest.mark.parametrize("moment", ["before the list", "after the list", "after the running runs"])
def test_what_is_committed_meanwhile_is_kept(
    instance: Instance, history: "History", monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    run = history.start("a")
    file = written(instance.home / "data", run)
    instance.catalog.append([run])

    def commit() -> None:
        monkeypatch.undo()
        instance.catalog.append([committed(history, run, file), history.finish(run)])

    listed, runs = LocalStore.files, instance.catalog.runs

    def files(store: LocalStore) -> Iterator[StoredFile]:
        if moment == "before the list":
            commit()
        found = list(listed(store))
        if moment == "after the list":
            commit()
        yield from found

    monkeypatch.setattr(LocalStore, "files", files)
    if moment == "after the running runs":

        def then_commit(**options: object) -> object:
            found = runs(**options)  # type: ignore[arg-type]
            if options.get("before") is not None or not found:
                commit()
            return found

        monkeypatch.setattr(instance.catalog, "runs", then_commit)
    found = diagnose(instance, fix=True, grace=NO_GRACE)
    assert instance.catalog.latest(), "it was committed"
    assert found.orphans == () and found.problems == () and file.exists()
    assert diagnose(instance).problems == ()


def test_elsewhere_only_what_a_run_of_this_catalog_planned_is_removed(
    instance: Instance, history: "History", tmp_path: Path
) -> None:
    lake = tmp_path / "lake"
    run, failed, unknown = history.start("a"), history.start("a"), history.start("a")
    kept = written(lake, run)
    instance.catalog.append([run, committed(history, run, kept), history.finish(run)])
    ours, theirs = written(lake, failed), written(lake, unknown)
    instance.catalog.append([failed, history.end(failed, 0, StepStatus.FAILURE)])
    instance.catalog.append([history.finish(failed, RunStatus.FAILURE)])
    found = diagnose(instance, fix=True, grace=NO_GRACE)
    assert [(orphan.is_ours, orphan.removed) for orphan in found.orphans] == [(True, True), (False, False)]
    assert (kept.exists(), ours.exists(), theirs.exists()) == (True, False, True)


def test_a_network_file_system_is_known_by_its_mount(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "21 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
        "30 21 0:40 / /net rw shared:1 - nfs4 server:/x rw\n"
        "31 30 8:2 / /net/my\\040disk rw - xfs /dev/sdb rw\n"
    )
    for folder, kind in (
        ("/srv/x", "ext4"),
        ("/net", "nfs4"),
        ("/net/x/y", "nfs4"),
        ("/network", "ext4"),
        ("/net/my disk/x", "xfs"),
    ):
        assert file_system_of(Path(folder), mounts) == kind
    assert file_system_of(tmp_path, tmp_path / "nothing") == ""
