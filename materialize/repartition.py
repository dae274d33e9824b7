"""Bringing data into a changed partitions definition, without computing it again.

When a definition changes from days to hours, say, the old cells stay readable and count no more. Here their data
becomes cells of the new definition: rows are divided by a column, or partitions are renamed, or all of them become
one. Nothing old is removed, and nothing that the new definition has already is overwritten.
"""

import functools
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from headwater.catalog.definitions.definitions import Definitions
from headwater.catalog.definitions.spec import AssetSpec, replace_spec
from headwater.catalog.errors import UsageError
from headwater.catalog.events import Event, RunEnded, RunStarted, StepEnded, StepStarted
from headwater.catalog.ids import new_id
from headwater.catalog.instance import Instance
from headwater.catalog.keys import AssetKey
from headwater.catalog.metadata import normalize
from headwater.catalog.printable import printable_line
from headwater.catalog.processes import start_ticks, this_host, user_name
from headwater.catalog.records import (
    Cell,
    Materialization,
    PlannedCell,
    PlannedStep,
    RunStatus,
    StepCell,
    StepStatus,
)
from headwater.io.base import InputContext, OutputContext, Staged
from headwater.io.pointers import Owner
from headwater.io.representation import of_value
from headwater.materialize.api import recover
from headwater.materialize.causes import Status
from headwater.materialize.execution.partition_expr import RowOfNoPartitionError, divide
from headwater.materialize.execution.partitions import PARTITION_EXPR, StepPartitions, step_partitions
from headwater.materialize.execution.starting import definitions_changed
from headwater.materialize.execution.step import describe_failure
from headwater.materialize.execution.versions import Versions, typed_keys
from headwater.materialize.heartbeat import Heartbeat
from headwater.materialize.io_managers import IOManagers
from headwater.materialize.planner import Plan, PlanCell
from headwater.materialize.reader import Reader

#: Old versions whose data is kept in memory while it is divided: neighbours mostly need the same.
_REMEMBERED = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One new cell and the old ones that its data comes from."""

    #: None where the asset is not partitioned any more.
    partition: str | None
    #: Old partitions; None for the cell of an asset that was not partitioned.
    sources: tuple[str | None, ...]
    #: None where nobody counted: data that is taken as it is.
    rows: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """What `migrate` would do."""

    asset: AssetKey
    moves: tuple[Move, ...]
    #: New cells that are built already, and stay as they are.
    kept: tuple[str | None, ...] = ()
    #: Old cells that nothing is made of.
    unused: tuple[str | None, ...] = ()
    #: The column of each dimension by which rows are divided; empty where whole partitions move.
    columns: Mapping[str | None, str] = field(default_factory=dict[str | None, str])

    @property
    def rows(self) -> int:
        """How many rows move, as far as they were counted."""
        return sum(move.rows or 0 for move in self.moves)


def plan_migration(
    definitions: Definitions,
    key: AssetKey,
    *,
    instance: Instance,
    columns: str | Mapping[str, str] | None = None,
    renames: Mapping[str, str] | None = None,
) -> Migration:
    """What becomes of the data that the definition of an asset does not have any more.

    Rows are divided by `columns`: the name of one, or one for each dimension; by default the asset's `partition_expr`.
    `renames` gives old partitions, as they are, new names. Of an asset that is not partitioned any more, all old
    partitions become one. Reads the columns, and writes nothing.

    Raises `UsageError` where there is nothing to move, no word on how, or a row that belongs to no partition, and
    `UserCodeError` for a column that does not tell.
    """
    work = _Work(definitions, key, instance)
    if not work.old:
        raise UsageError(
            f"`{key}` has no data outside of its definition.", remedy="There is nothing to migrate: it is as defined."
        )
    if renames:
        return work.renamed(renames)
    if work.node.partitions is None:
        return work.joined()
    return work.divided(columns)


def migrate(definitions: Definitions, migration: Migration, *, instance: Instance) -> str:
    """Carry out a migration as a run of one step, all or nothing; gives the run's id.

    The new cells count as built from the upstream versions that are current now: whoever migrates says that the data
    is right. Raises what storing raises, and `CatalogError`.
    """
    recover(instance, definitions)
    return _Work(definitions, migration.asset, instance).carry_out(migration)


class _Work:
    def __init__(self, definitions: Definitions, key: AssetKey, instance: Instance) -> None:
        self.definitions = definitions
        self.key = key
        self.instance = instance
        self.reader = Reader(definitions.graph, instance.catalog, instance.clock.now())
        self.node = self.reader.graph.find(key)
        if self.node.external:
            raise UsageError(f"`{key}` is computed by something else.", remedy="Migrate what is computed here.")
        spec = definitions.spec_of(key)
        assert spec is not None  # it is computed here
        self.spec: AssetSpec = spec
        self.managers = IOManagers(definitions, None, instance.artifacts)
        #: The old cells that store something.
        self.old: dict[str | None, Materialization] = self._old()

    def _old(self) -> dict[str | None, Materialization]:
        everything = self.instance.catalog.currents(self.key)
        found = {key: everything[key] for key in sorted(everything, key=lambda key: (key is not None, key or ""))}
        if self.node.partitions is None:
            return {key: made for key, made in found.items() if key is not None and made.pointer is not None}
        outside = {None, *self.reader.partition_status(self.key).outside}
        return {key: made for key, made in found.items() if made.pointer is not None and key in outside}

    def _is_built(self, partition: str | None) -> bool:
        many = self.reader.staleness.partitioned.get(self.key)
        if many is None:
            return self.reader.staleness.of(self.key).status is not Status.MISSING
        return partition is not None and not many.missing[many.partitions.ordinal(partition)]

    def _migration(self, moves: Sequence[Move], columns: Mapping[str | None, str] | None = None) -> Migration:
        kept = tuple(move.partition for move in moves if self._is_built(move.partition))
        used = {source for move in moves for source in move.sources}
        return Migration(
            asset=self.key,
            moves=tuple(move for move in moves if move.partition not in kept),
            kept=kept,
            unused=tuple(one for one in self.old if one not in used),
            columns=columns or {},
        )

    def renamed(self, renames: Mapping[str, str]) -> Migration:
        """Partitions as they are, under other names."""
        moves: list[Move] = []
        partitions = self.reader.partitions(self.key)
        for old, new in renames.items():
            if old not in self.old:
                raise UsageError(
                    f"`{self.key}` has no partition '{printable_line(old, 80)}' outside of its definition.",
                    remedy=f"`headwater partitions {self.key} --outside` lists them.",
                )
            partitions.ordinal(new)  # says why not
            moves.append(Move(partition=new, sources=(old,), rows=self._rows(old)))
        if len({move.partition for move in moves}) < len(moves):
            raise UsageError("Two partitions would get one name.", remedy="Rename each to another one.")
        return self._migration(moves)

    def joined(self) -> Migration:
        """All old partitions as one."""
        formats = {made.pointer.format for made in self.old.values() if made.pointer is not None}
        if formats != {"parquet"} and len(self.old) > 1:
            raise UsageError(
                f"The partitions of `{self.key}` are no tables, so they do not become one.",
                remedy=f"Compute it: headwater materialize {self.key}",
            )
        counts = [self._rows(key) for key in self.old]
        rows = None if None in counts else sum(count or 0 for count in counts)
        return self._migration([Move(partition=None, sources=tuple(sorted(self.old, key=str)), rows=rows)])

    def divided(self, columns: str | Mapping[str, str] | None) -> Migration:
        """Rows by the values of columns."""
        given: Any = columns or self.spec.metadata.get(PARTITION_EXPR)
        if given is None:
            raise UsageError(
                f"By which column are the rows of `{self.key}` to be divided?",
                remedy="Name it: --column day; with several dimensions --column dimension=column for each; or move "
                "whole partitions with --rename old=new.",
            )
        spec = replace_spec(self.spec, metadata={**self.spec.metadata, PARTITION_EXPR: given})
        by_dimension: dict[str | None, str] = {None: str(given)}
        if isinstance(given, Mapping):
            by_dimension = {str(name): str(column) for name, column in cast(Mapping[Any, Any], given).items()}
        names = list(by_dimension.values())
        sources: dict[str, list[str | None]] = {}
        rows: Counter[str] = Counter()
        everything = self._all_partitions()
        for key, made in self.old.items():
            if made.pointer is None or made.pointer.format != "parquet":
                raise UsageError(
                    f"{Owner(self.key, key, made.version_id)} is no table, so it has no rows to divide.",
                    remedy="Move whole partitions with --rename old=new, or compute it again.",
                )
            table = self._load(made, "pa.Table", tuple(names))
            try:
                parts = divide(table, spec, everything)
            except RowOfNoPartitionError as error:
                raise UsageError(
                    f"{Owner(self.key, key, made.version_id)} has {error.found}, which is in no partition of the "
                    "definition as it is now, and would be left behind.",
                    remedy="Widen the definition until it holds all rows, migrate, and narrow it again.",
                ) from error
            for partition, part in parts.items():
                sources.setdefault(partition, []).append(key)
                rows[partition] += part.num_rows
        ordered = sorted(sources, key=self.reader.partitions(self.key).ordinal)
        moves = [Move(partition=key, sources=tuple(sources[key]), rows=rows[key]) for key in ordered]
        return self._migration(moves, by_dimension)

    def carry_out(self, migration: Migration) -> str:
        """Write and record."""
        now = self.instance.clock.now()
        run_id, step_key = new_id(now), f"migrate {self.key}"
        manager = self.managers.for_output(self.key)
        typed = {None: None} | dict(zip([m.partition for m in migration.moves], self._typed(migration), strict=True))
        planned = [
            PlannedCell(
                asset=self.key,
                partition=typed[move.partition],
                version_id=new_id(now),
                folder=manager.folder_of(self.key, typed[move.partition]),
            )
            for move in migration.moves
        ]
        changes = definitions_changed(self.instance, self.reader.graph)
        started: list[Event] = [] if changes is None else [changes]
        started += [
            RunStarted(
                time=now,
                run_id=run_id,
                steps=(PlannedStep(step_key=step_key, cells=tuple(planned), reason="its partitions were redefined"),),
                selection=f"migrate {self.key}",
                user=user_name(),
                host=this_host(),
                pid=os.getpid(),
                start_ticks=start_ticks(os.getpid()),
            ),
            StepStarted(time=now, run_id=run_id, step_key=step_key),
        ]
        self.instance.catalog.append(started, by=run_id)
        staged: list[Staged] = []
        try:
            with Heartbeat(self.instance.catalog, run_id):
                made: list[Materialization] = []
                for cell, move, value in zip(planned, migration.moves, self._values(migration), strict=True):
                    context = OutputContext(
                        asset_key=self.key,
                        partition_key=cell.partition,
                        version_id=cell.version_id,
                        run_id=run_id,
                        step_key=step_key,
                        definition_metadata=self.spec.metadata,
                    )
                    staged.append(manager.stage(context, value))
                    made.append(self._materialization(cell, move, staged[-1], run_id, step_key))
                for one in staged:
                    one.publish()
        except BaseException as error:
            for one in staged:
                one.discard()
            failure = describe_failure(error)
            cells = tuple(StepCell(asset=c.asset, partition=c.partition, status=StepStatus.FAILURE) for c in planned)
            ended = self.instance.clock.now()
            self.instance.catalog.append(
                [
                    StepEnded(
                        time=ended,
                        run_id=run_id,
                        step_key=step_key,
                        status=StepStatus.FAILURE,
                        cells=cells,
                        error=failure.error,
                    ),
                    RunEnded(time=ended, run_id=run_id, status=RunStatus.FAILURE, error=failure.error),
                ]
            )
            raise
        self._record(run_id, step_key, made)
        return run_id

    def _record(self, run_id: str, step_key: str, made: Sequence[Materialization]) -> None:
        ended = self.instance.clock.now()
        cells = tuple(
            StepCell(
                asset=one.asset,
                partition=one.partition,
                status=StepStatus.SUCCESS,
                version_id=one.version_id,
                rows=one.pointer.rows if one.pointer else None,
            )
            for one in made
        )
        self.instance.catalog.append(
            [
                StepEnded(
                    time=ended,
                    run_id=run_id,
                    step_key=step_key,
                    status=StepStatus.SUCCESS,
                    cells=cells,
                    materializations=tuple(made),
                ),
                RunEnded(time=ended, run_id=run_id, status=RunStatus.SUCCESS),
            ],
            by=run_id,
        )

    def _materialization(
        self, cell: PlannedCell, move: Move, staged: Staged, run_id: str, step_key: str
    ) -> Materialization:
        assert self.node.fingerprint is not None  # it is computed here
        ordinal = 0 if cell.partition is None else self.reader.partitions(self.key).ordinal(cell.partition)
        plan_cell = PlanCell(cell=Cell(self.key, cell.partition), status=Status.MISSING, causes=(), ordinal=ordinal)
        return Materialization(
            version_id=cell.version_id,
            asset=self.key,
            partition=cell.partition,
            run_id=run_id,
            step_key=step_key,
            created=self.instance.clock.now(),
            fingerprint=self.node.fingerprint,
            data_version=staged.data_version or f"version:{cell.version_id}",
            pointer=staged.pointer,
            inputs=self._versions.recorded(plan_cell, {}),
            metadata=normalize({"migrated_from": _shown(move.sources)}, f"asset `{self.key}`"),
        )

    @functools.cached_property
    def _versions(self) -> Versions:
        """The current versions of everything upstream."""
        from headwater.materialize.planner import PlanGroup

        table = self.reader.table
        partitions = None if self.node.partitions is None else self.reader.partitions(self.key).all()
        group = PlanGroup(
            name=str(self.key),
            assets=(self.key,),
            partitions=partitions,
            subsets=(partitions,),
            batch=None,
            causes=(),
            certain=True,
        )
        plan = Plan(groups=(group,), selected=1)
        return Versions.of(plan, self.reader.graph, table, self.instance.catalog)

    def _values(self, migration: Migration) -> Iterator[Any]:
        """The data of each new cell, one after the other."""
        if not migration.columns:
            for move in migration.moves:
                yield self._joined_value(move)
            return
        columns = migration.columns
        given: Any = columns[None] if None in columns else dict(columns)
        spec = replace_spec(self.spec, metadata={**self.spec.metadata, PARTITION_EXPR: given})
        everything = self._all_partitions()

        @functools.lru_cache(maxsize=_REMEMBERED)
        def parts(source: str | None) -> Mapping[str, Any]:
            return divide(self._load(self.old[source], None, None), spec, everything)

        for move in migration.moves:
            assert move.partition is not None  # rows are divided among partitions
            yield self._united([(source, parts(source)[move.partition]) for source in move.sources])

    def _joined_value(self, move: Move) -> Any:
        loaded = [(source, self._load(self.old[source], None, None)) for source in move.sources]
        return loaded[0][1] if len(loaded) == 1 else self._united(loaded)

    def _united(self, parts: Sequence[tuple[str | None, Any]]) -> Any:
        """Frames as one, of the kind of the first."""
        from headwater.io.frames import from_arrow, to_arrow
        from headwater.io.united_frames import Piece, unite

        form = of_value(parts[0][1])
        pieces = [
            Piece(
                frame=frame if of_value(frame) is form else from_arrow(to_arrow(frame), form),
                owner=Owner(self.key, source, self.old[source].version_id),
            )
            for source, frame in parts
        ]
        return pieces[0].frame if len(pieces) == 1 else unite(pieces, form)

    def _load(self, made: Materialization, annotation: Any, columns: tuple[str, ...] | None) -> Any:
        assert made.pointer is not None  # `_old` holds only such
        return self.managers.for_output(self.key).load_input(
            InputContext(
                asset_key=self.key,
                partition_key=made.partition,
                version_id=made.version_id,
                pointer=made.pointer,
                annotation=annotation,
                columns=columns,
            )
        )

    def _all_partitions(self) -> StepPartitions:
        partitions = self.reader.partitions(self.key)
        return step_partitions(partitions, partitions.keys())

    def _typed(self, migration: Migration) -> list[str | None]:
        if self.node.partitions is None:
            return [None]
        assert self.reader.table is not None  # it has partitions
        partitions = self.reader.partitions(self.key)
        return [
            typed_keys(self.reader.table, self.key, partitions.ordinals([move.partition or ""]))[0]
            for move in migration.moves
        ]

    def _rows(self, key: str | None) -> int | None:
        pointer = self.old[key].pointer
        return None if pointer is None else pointer.rows


def _shown(sources: Sequence[str | None]) -> str:
    """Old partitions for people."""
    names = ["the unpartitioned asset" if one is None else one for one in sources[:3]]
    return ", ".join(names) + (f" and {len(sources) - 3} more" if len(sources) > 3 else "")
