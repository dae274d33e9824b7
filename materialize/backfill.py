"""Backfills: many cells, built in runs of bounded size, remembered in the catalog until each of them is done.

A backfill is a set of cells. What became of them is told by the runs that it made: a cell is done when one of them
made it, so a backfill whose process was killed goes on with what is not done, and nothing is built twice.
"""

import contextlib
import os
import platform
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from headwater.catalog.definitions.definitions import Definitions
from headwater.catalog.errors import ConflictError, UnknownBackfillError, UsageError
from headwater.catalog.events import BackfillEnded, BackfillResumed, BackfillStarted, Event
from headwater.catalog.ids import new_id
from headwater.catalog.instance import Instance
from headwater.catalog.keys import AssetKey
from headwater.catalog.lineage.asset_graph import AssetGraph
from headwater.catalog.partitions.definition import PartitionKeyRange
from headwater.catalog.records import Backfill, BackfillStatus, BackfillTarget, RunStatus
from headwater.materialize.api import check_executor, check_run_config, partition_choice, recover
from headwater.materialize.edges import Edges, holds_any, without
from headwater.materialize.execution.run import RunOutcome, RunRequest, execute, user_name
from headwater.materialize.partition_choice import PartitionChoice
from headwater.materialize.planner import Plan, PlanGroup, build_plan
from headwater.materialize.reader import Reader
from headwater.materialize.staleness import Cells

#: Steps of one run. Between two runs everything is looked at afresh, which takes some milliseconds and, with ten
#: million cells, some seconds.
STEPS_PER_RUN = 2_000

_IDENTIFIER = re.compile(r"[0-9a-fA-F-]{4,36}")


@dataclass(frozen=True, slots=True, kw_only=True)
class BackfillProgress:
    """How far a backfill has come."""

    done: int
    failed: int
    #: Cells that are not built because something that they read failed.
    blocked: int
    total: int
    #: What is left at the pace of the runs so far; None as long as there is none.
    remaining: timedelta | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BackfillResult:
    """What became of a backfill as far as it was carried out here."""

    #: None where there was nothing to do.
    backfill_id: str | None
    status: BackfillStatus | None
    progress: BackfillProgress
    runs: tuple[RunOutcome, ...] = ()
    #: What was planned at first.
    plan: Plan | None = None

    @property
    def exit_code(self) -> int:
        """0, or that of the first run that did not succeed."""
        return next((run.exit_code for run in self.runs if run.exit_code), 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class BackfillSettings:
    """How a backfill is carried out; what of it is remembered is `options` of its record."""

    executor: str | None = None
    max_workers: int | None = None
    steps_per_run: int = STEPS_PER_RUN
    run_config: Mapping[str, Any] = field(default_factory=dict[str, Any])
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    listener: Callable[[Event], None] | None = None
    #: Told before each run: the plan, and how far the backfill has come.
    on_run: Callable[[Plan, BackfillProgress], None] | None = None


def backfill(
    definitions: Definitions,
    *,
    instance: Instance,
    selection: Any = None,
    partition_keys: Iterable[str] = (),
    partition_range: str | tuple[str, str] | PartitionKeyRange | None = None,
    only: Collection[str] = (),
    upstream: bool = True,
    title: str = "",
    settings: BackfillSettings | None = None,
) -> BackfillResult:
    """Build the selected partitions, each exactly once, whether they are fresh or not.

    Without keys or a range all partitions of the selected assets are meant. `only` narrows them to those that are
    "missing", "stale" or "failed". With `upstream`, what they depend on that is stale or missing is built before.
    A backfill that stops before its end, killed or interrupted, goes on with `resume_backfill`.

    Raises `UsageError`, `UnknownPartitionError`, `DefinitionError`, `ConfigError`, `CatalogError`; errors of user code
    are recorded.
    """
    settings = settings or BackfillSettings()
    check_executor(settings.executor or "in_process")
    config = check_run_config(settings.run_config, definitions)
    recover(instance, definitions)
    reader = Reader(definitions.graph_with(config), instance.catalog, instance.clock.now())
    choice = partition_choice(None, partition_keys, partition_range, False)
    found = plan_backfill(reader, selection, choice, only=only, upstream=upstream)
    if not found:
        progress = BackfillProgress(done=0, failed=0, blocked=0, total=0)
        return BackfillResult(backfill_id=None, status=None, progress=progress, plan=found)
    now = instance.clock.now()
    backfill_id = new_id(now)
    instance.catalog.append(
        [
            BackfillStarted(
                time=now,
                backfill_id=backfill_id,
                targets=tuple(_targets(found.groups)),
                title=title,
                selection=None if selection is None else str(selection),
                options={
                    "only": sorted(only),
                    "run_config": dict(settings.run_config),
                    "steps_per_run": settings.steps_per_run,
                },
                tags=dict(settings.tags),
                user=user_name(),
                host=platform.node(),
                pid=os.getpid(),
            )
        ]
    )
    return _Backfiller(definitions, instance, backfill_id, settings).run(found)


def plan_backfill(
    reader: Reader, selection: Any, choice: PartitionChoice, *, only: Collection[str] = (), upstream: bool = True
) -> Plan:
    """What `backfill` would build. Raises `UsageError`, `UnknownPartitionError`."""
    keys = reader.select(selection)
    narrowed = PartitionChoice(
        keys=choice.keys, ranges=choice.ranges, all=not (choice.keys or choice.ranges), only=frozenset(only)
    )
    targets = reader.targets(keys, narrowed)
    strict = bool(choice.keys or choice.ranges)
    return build_plan(reader.edges, reader.staleness, targets, force=True, upstream=upstream, strict=strict)


def resume_backfill(
    definitions: Definitions, backfill_id: str, *, instance: Instance, settings: BackfillSettings | None = None
) -> BackfillResult:
    """Go on with a backfill that was killed, interrupted or failed: build what is not done, what failed once more.

    Raises `UnknownBackfillError`, and `ConflictError` for one that is done or was canceled.
    """
    recover(instance, definitions)
    found = find_backfill(instance, backfill_id)
    if found.status in (BackfillStatus.SUCCESS, BackfillStatus.CANCELED):
        ended = "was canceled" if found.status is BackfillStatus.CANCELED else "is done"
        raise ConflictError(
            f"The backfill {found.backfill_id} {ended}.",
            remedy="Start another one: `headwater backfill`.",
        )
    instance.catalog.append(
        [
            BackfillResumed(
                time=instance.clock.now(),
                backfill_id=found.backfill_id,
                user=user_name(),
                host=platform.node(),
                pid=os.getpid(),
            )
        ]
    )
    given = settings or BackfillSettings()
    remembered = BackfillSettings(
        executor=given.executor,
        max_workers=given.max_workers,
        steps_per_run=int(found.options.get("steps_per_run", STEPS_PER_RUN)),
        run_config=given.run_config or found.options.get("run_config", {}),
        tags={**found.tags, **given.tags},
        listener=given.listener,
        on_run=given.on_run,
    )
    return _Backfiller(definitions, instance, found.backfill_id, remembered).run()


def cancel_backfill(instance: Instance, backfill_id: str) -> Backfill:
    """End a backfill for good: nothing more of it is built. One that has ended stays as it is.

    Raises `UnknownBackfillError`.
    """
    found = find_backfill(instance, backfill_id)
    ended = BackfillEnded(
        time=instance.clock.now(), backfill_id=found.backfill_id, status=BackfillStatus.CANCELED, error=None
    )
    instance.catalog.append([ended])
    clear_requests(instance.home, found.backfill_id)
    return find_backfill(instance, found.backfill_id)


def find_backfill(instance: Instance, backfill_id: str) -> Backfill:
    """A backfill by its identifier, or the beginning of it. Raises `UnknownBackfillError`."""
    found = instance.catalog.backfill(backfill_id)
    if found is None:
        raise UnknownBackfillError(backfill_id, [one.backfill_id for one in instance.catalog.backfills(limit=20)])
    return found


def request_cancel(home: Path, backfill_id: str) -> None:
    """Ask the process that carries out a backfill, and so holds the catalog, to cancel it.

    Raises `UsageError` for a text that is no identifier.
    """
    if not _IDENTIFIER.fullmatch(backfill_id):
        raise UsageError(f"{backfill_id!r} is no backfill's identifier.", remedy="`headwater backfills` lists them.")
    folder = _requests(home)
    folder.mkdir(mode=0o700, exist_ok=True)
    (folder / backfill_id.lower()).touch(mode=0o600)


def clear_requests(home: Path, backfill_id: str) -> None:
    """Forget that somebody asked for a cancel."""
    for request in _asked(home, backfill_id):
        with contextlib.suppress(OSError):
            request.unlink()


def _requests(home: Path) -> Path:
    return home / "cancel-backfill"


def _asked(home: Path, backfill_id: str) -> Iterator[Path]:
    with contextlib.suppress(FileNotFoundError):
        for request in _requests(home).iterdir():
            if backfill_id.startswith(request.name):
                yield request


class _Backfiller:
    """Carries out one backfill, run by run."""

    def __init__(
        self, definitions: Definitions, instance: Instance, backfill_id: str, settings: BackfillSettings
    ) -> None:
        self.definitions = definitions
        self.instance = instance
        self.backfill_id = backfill_id
        self.settings = settings
        self.config = check_run_config(settings.run_config, definitions)
        self.graph: AssetGraph = definitions.graph_with(self.config)
        self.started = instance.clock.now()
        self.done_before: int | None = None
        #: Cells that failed in a run of this process: they are tried again by the next who resumes.
        self.tried: dict[AssetKey, Cells] = {}

    def run(self, first: Plan | None = None) -> BackfillResult:
        runs: list[RunOutcome] = []
        while True:
            if self._canceled():
                return self._end(BackfillStatus.CANCELED, runs, first)
            reader = Reader(self.graph, self.instance.catalog, self.instance.clock.now())
            plan, progress = self._next(reader)
            if not plan:
                lost = progress.failed or progress.blocked
                return self._end(BackfillStatus.FAILURE if lost else BackfillStatus.SUCCESS, runs, first, progress)
            if self.settings.on_run is not None:
                self.settings.on_run(plan, progress)
            outcome = execute(
                RunRequest(
                    plan=plan,
                    definitions=self.definitions,
                    graph=self.graph,
                    states=reader.cells,
                    table=reader.table,
                    run_config=self.config,
                    executor=self.settings.executor or self.definitions.executor or "in_process",
                    max_workers=self.settings.max_workers,
                    tags=self.settings.tags,
                    backfill_id=self.backfill_id,
                    listener=self.settings.listener,
                    stop_asked=self._canceled,
                ),
                self.instance,
            )
            runs.append(outcome)
            if outcome.status is RunStatus.CANCELED and not self._canceled():
                # Interrupted by its user: it can be resumed.
                _, progress = self._next(Reader(self.graph, self.instance.catalog, self.instance.clock.now()))
                return BackfillResult(
                    backfill_id=self.backfill_id,
                    status=BackfillStatus.STARTED,
                    progress=progress,
                    runs=tuple(runs),
                    plan=first,
                )
            self._note_failures(plan, outcome, reader.edges)

    def _next(self, reader: Reader) -> tuple[Plan, BackfillProgress]:
        """What the next run builds, and how far all has come."""
        edges = reader.edges
        record = find_backfill(self.instance, self.backfill_id)
        cells = self.instance.catalog.backfill_cells(self.backfill_id)
        open_cells: dict[AssetKey, Cells] = {}
        total = done = failed = 0
        for target in record.targets:
            if target.asset not in self.graph or self.graph[target.asset].external:
                continue  # it is not defined any more
            wanted = _read_target(edges, target)
            outcome = cells.get(target.asset)
            made = _cells_of(edges, target.asset, outcome.done if outcome else ())
            lost = without(wanted & self.tried.get(target.asset, edges.none(target.asset)), made)
            total += target.cells
            done += _count(wanted & made)
            failed += _count(lost)
            open_cells[target.asset] = without(without(wanted, made), lost)
            if holds_any(lost):
                self.tried[target.asset] = lost
        blocked = self._block(edges, open_cells)
        plan = build_plan(edges, reader.staleness, _filled(open_cells), force=True, upstream=False)
        plan = self._limited(reader, plan)
        progress = BackfillProgress(
            done=done,
            failed=failed,
            blocked=blocked,
            total=total,
            remaining=self._remaining(done, total - failed - blocked),
        )
        return plan, progress

    def _block(self, edges: Edges, open_cells: dict[AssetKey, Cells]) -> int:
        """Take out the cells that read what failed, directly or not; gives how many."""
        lost = dict(self.tried)
        blocked = 0
        for key in self.graph.sorted(open_cells):
            node = self.graph[key]
            stuck = edges.none(key)
            for dep in node.deps:
                if dep.key in lost:
                    found = edges.readers(node, dep, lost[dep.key])
                    if dep.key == key:
                        found = self._later(edges, key, found)
                    stuck = stuck | found
            stuck = stuck & open_cells[key]
            if holds_any(stuck):
                open_cells[key] = without(open_cells[key], stuck)
                lost[key] = stuck | lost.get(key, edges.none(key))
                blocked += _count(stuck)
        return blocked

    def _later(self, edges: Edges, key: AssetKey, cells: Cells) -> Cells:
        """`cells` and all later partitions of the asset that read them."""
        node = self.graph[key]
        itself = next(dep for dep in node.deps if dep.key == key)
        new = cells
        while holds_any(new):
            new = without(edges.readers(node, itself, new), cells)
            cells = cells | new
        return cells

    def _limited(self, reader: Reader, plan: Plan) -> Plan:
        """The beginning of a plan: no more steps than one run has."""
        limit = self.settings.steps_per_run
        if plan.step_count <= limit:
            return plan
        targets: dict[AssetKey, Cells] = {}
        left = limit
        for group in plan.groups:
            if left <= 0:
                break
            subset = group.partitions
            cells: Cells = True
            if subset is not None:
                count = len(subset) if group.batch is None else left * group.batch
                cells = subset.partitions.subset_of_ordinals(subset.ordinals(0, count)).mask()
            for key, own in zip(group.assets, group.subsets, strict=True):
                targets[key] = cells if own is None else cells & own.mask()
            left -= min(group.steps, left)
        return build_plan(reader.edges, reader.staleness, targets, force=True, upstream=False)

    def _note_failures(self, plan: Plan, outcome: RunOutcome, edges: Edges) -> None:
        """Remember which cells a run was to make and did not."""
        lost: dict[AssetKey, list[str | None]] = {}
        for step in outcome.steps:
            for cell in step.cells:
                if cell.status.value not in ("SUCCESS", "VERIFIED"):
                    lost.setdefault(cell.asset, []).append(cell.partition)
        for key, partitions in lost.items():
            found = _cells_of(edges, key, partitions)
            self.tried[key] = self.tried[key] | found if key in self.tried else found

    def _remaining(self, done: int, reachable: int) -> timedelta | None:
        if self.done_before is None:
            self.done_before = done
        made = done - self.done_before
        if made <= 0:
            return None
        return (self.instance.clock.now() - self.started) * ((reachable - done) / made)

    def _canceled(self) -> bool:
        return any(True for _ in _asked(self.instance.home, self.backfill_id))

    def _end(
        self,
        status: BackfillStatus,
        runs: list[RunOutcome],
        plan: Plan | None,
        progress: BackfillProgress | None = None,
    ) -> BackfillResult:
        now = self.instance.clock.now()
        self.instance.catalog.append([BackfillEnded(time=now, backfill_id=self.backfill_id, status=status, error=None)])
        clear_requests(self.instance.home, self.backfill_id)
        if progress is None:
            _, progress = self._next(Reader(self.graph, self.instance.catalog, now))
        return BackfillResult(
            backfill_id=self.backfill_id, status=status, progress=progress, runs=tuple(runs), plan=plan
        )


def estimate(found: Backfill, started: datetime, now: datetime) -> timedelta | None:
    """How long a backfill that is going on takes yet, at its pace since `started`."""
    if not found.done or now <= started:
        return None
    return (now - started) * ((found.total - found.failed - found.done) / found.done)


def _targets(groups: Iterable[PlanGroup]) -> Iterator[BackfillTarget]:
    for group in groups:
        for key, subset in zip(group.assets, group.subsets, strict=True):
            yield BackfillTarget(
                asset=key,
                cells=1 if subset is None else len(subset),
                partitions=None if subset is None else subset.to_json(),
            )


def _read_target(edges: Edges, target: BackfillTarget) -> Cells:
    """The cells of a target that exist; none where the asset is partitioned in another way now."""
    if (edges.graph[target.asset].partitions is None) != (target.partitions is None):
        return edges.none(target.asset)
    if target.partitions is None:
        return True
    assert edges.table is not None  # there is one where something is partitioned
    with contextlib.suppress(UsageError):
        return edges.table.partitions(target.asset).read_subset(target.partitions)[0].mask()
    return edges.none(target.asset)


def _cells_of(edges: Edges, key: AssetKey, partitions: Collection[str | None]) -> Cells:
    if edges.graph[key].partitions is None:
        return None in partitions
    assert edges.table is not None  # there is one where something is partitioned
    space = edges.table.partitions(key)
    ordinals = space.ordinals([one for one in partitions if one is not None])
    return space.subset_of_ordinals(ordinals[ordinals >= 0]).mask()


def _filled(cells: Mapping[AssetKey, Cells]) -> dict[AssetKey, Cells]:
    return {key: some for key, some in cells.items() if holds_any(some)}


def _count(cells: Cells) -> int:
    return int(cells) if isinstance(cells, bool) else int(cells.sum())
