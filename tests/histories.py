"""Events for tests of storages: small, valid, and the same in every run."""

import itertools
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from headwater.catalog.events import (
    AutomationMoved,
    BackfillEnded,
    BackfillResumed,
    BackfillStarted,
    ConditionsEvaluated,
    FactChanged,
    RunEnded,
    RunMoved,
    RunQueued,
    RunStarted,
    SlotClaimed,
    StepEnded,
    StepStarted,
    TickEnded,
)
from headwater.catalog.keys import AssetKey
from headwater.catalog.records import (
    AutomationStatus,
    BackfillStatus,
    BackfillTarget,
    Cell,
    Column,
    ConditionEvaluation,
    ConditionState,
    FactTopic,
    Fingerprint,
    Input,
    Materialization,
    PlannedCell,
    PlannedStep,
    Pointer,
    RunStatus,
    StepCell,
    StepStatus,
    TickStatus,
)
from headwater.catalog.storage.base import CatalogReader


def partition_states(storage: CatalogReader, *only: Collection[AssetKey]) -> dict[Cell, tuple[Any, ...]]:
    """What `partition_cells` says of each cell: the number of its event, its fingerprint and its two hashes."""
    found = storage.partition_cells(*only)
    texts = found.keys.tolist()
    return {
        Cell(asset, texts[key]): (seq, found.fingerprints[fingerprint], version, inputs)
        for asset, cells in found.by_asset.items()
        for key, seq, fingerprint, version, inputs in zip(
            cells.keys.tolist(),
            cells.seqs.tolist(),
            cells.fingerprints.tolist(),
            cells.version_hashes.tolist(),
            cells.inputs_hashes.tolist(),
            strict=True,
        )
    }


def input_hashes(storage: CatalogReader, asset: AssetKey, seqs: Sequence[int]) -> dict[AssetKey, dict[int, int]]:
    """What `input_hashes` says: by input asset, for each position the sum."""
    import numpy as np

    found = storage.input_hashes(asset, np.array(seqs, np.int64))
    return {
        source: dict(zip(positions.tolist(), sums.tolist(), strict=True)) for source, (positions, sums) in found.items()
    }


def instant(minutes: int) -> datetime:
    """So many minutes after 2026-01-01."""
    return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes)


class History:
    """Makes events whose times and identifiers count up."""

    def __init__(self, start: int = 0) -> None:
        self._numbers = itertools.count(start + 1)

    def identifier(self) -> str:
        """The next UUID."""
        return f"01900000-0000-7000-8000-{next(self._numbers):012x}"

    def time(self) -> datetime:
        """The next moment, a second and a microsecond later."""
        return datetime(2026, 1, 1, tzinfo=UTC) + next(self._numbers) * timedelta(seconds=1, microseconds=1)

    def queue(self, **more: Any) -> RunQueued:
        """A run that waits for its turn."""
        return RunQueued(time=self.time(), run_id=self.identifier(), **more)

    def move(self, run: RunQueued | RunStarted, status: RunStatus, **more: Any) -> RunMoved:
        """A run that goes on waiting, has its turn, or is to stop."""
        return RunMoved(time=self.time(), run_id=run.run_id, status=status, **more)

    def automate(self, name: str = "s", status: AutomationStatus | None = None, **more: Any) -> AutomationMoved:
        """A schedule that is started, stopped or seen; by default for the first time, and decided until 2026-01-01."""
        known: dict[str, Any] = {"time": self.time(), "name": name, "status": status, "until": instant(0)}
        return AutomationMoved(**(known | more))

    def tick(
        self, at: int, after: int, name: str = "s", status: TickStatus = TickStatus.SKIPPED, **more: Any
    ) -> TickEnded:
        """A tick so many minutes after 2026-01-01, the one before it being so many minutes after that."""
        return TickEnded(time=self.time(), name=name, at=instant(at), after=instant(after), status=status, **more)

    def fact(self, name: str, value: str, before: str | None = None, **more: Any) -> FactChanged:
        """Something about an asset that was found out: what it is, and what it was."""
        known: dict[str, Any] = {"time": self.time(), "topic": FactTopic.FRESHNESS, "name": name}
        values: dict[str, Any] = {"value": {"state": value}, "before": None if before is None else {"state": before}}
        return FactChanged(**(known | values | more))

    def conditions(self, *assets: str | None, **data: Any) -> ConditionsEvaluated:
        """What an evaluation of conditions leaves: `data` of each asset, and a tree; None stands for all."""
        keys = [None if asset is None else AssetKey(asset) for asset in assets]
        return ConditionsEvaluated(
            time=self.time(),
            states=tuple(ConditionState(asset=key, data=data) for key in keys),
            evaluations=tuple(
                ConditionEvaluation(asset=key, requested=1, tree={"name": "missing"}) for key in keys if key is not None
            ),
        )

    def claim(self, run: RunStarted, step: int = 0, pool: str = "p", **more: Any) -> SlotClaimed:
        """A place in a pool."""
        return SlotClaimed(time=self.time(), run_id=run.run_id, step_key=run.steps[step].step_key, pool=pool, **more)

    def start(self, *assets: str | tuple[str, Sequence[str | None]], **more: Any) -> RunStarted:
        """A run with a step for each asset: one cell, or one for each of some partitions."""
        pairs = [(asset, (None,)) if isinstance(asset, str) else asset for asset in assets]
        return RunStarted(
            time=self.time(),
            run_id=self.identifier(),
            steps=tuple(
                PlannedStep(
                    step_key=asset,
                    cells=tuple(
                        PlannedCell(
                            asset=AssetKey(asset), partition=key, version_id=self.identifier(), folder="f/" + asset
                        )
                        for key in keys
                    ),
                    reason=f"{asset} is missing",
                )
                for asset, keys in pairs
            ),
            **more,
        )

    def step(self, run: RunStarted, step: int = 0, attempt: int = 1) -> StepStarted:
        """An attempt at a step."""
        return StepStarted(time=self.time(), run_id=run.run_id, step_key=run.steps[step].step_key, attempt=attempt)

    def make(self, run: RunStarted, step: int = 0, cell: int = 0, **more: Any) -> Materialization:
        """A version of a planned cell, as far as it goes with a pointer, columns and an input."""
        planned = run.steps[step].cells[cell]
        defaults: Mapping[str, Any] = {
            "fingerprint": Fingerprint(code="ast:1", definition="def:1", config="", resources="res:1", io="io:1"),
            "data_version": f"b3:{planned.version_id}",
            "seconds": 0.25,
            "pointer": Pointer(
                uri=f"file:///data/{planned.version_id}.parquet",
                format="parquet",
                representation="polars.DataFrame",
                rows=3,
                bytes=999,
                checksum="c" * 64,
                columns=(
                    Column(name="id", type="int64", version="b3:id", nulls=0, min=1, max=3),
                    Column(name='na"me\\', type="large_string", nulls=1, min="a", max="z"),
                ),
            ),
            "inputs": (
                Input(
                    asset=AssetKey("raw/up"),
                    version_id=run.run_id,
                    data_version="b3:up",
                    columns={"x": "b3:x", "y": "b3:y"},
                ),
                Input(asset=AssetKey("raw/up"), partition="p"),
            ),
        }
        return Materialization(
            version_id=planned.version_id,
            asset=planned.asset,
            partition=planned.partition,
            run_id=run.run_id,
            step_key=run.steps[step].step_key,
            created=self.time(),
            **(defaults | more),
        )

    def succeed(self, run: RunStarted, step: int = 0, **more: Any) -> StepEnded:
        """A step that made every cell that it planned."""
        made = tuple(self.make(run, step, cell, **more) for cell in range(len(run.steps[step].cells)))
        cells = tuple(
            StepCell(
                asset=one.asset, partition=one.partition, status=StepStatus.SUCCESS, version_id=one.version_id, rows=3
            )
            for one in made
        )
        return self.end(run, step, StepStatus.SUCCESS, cells=cells, materializations=made)

    def end(self, run: RunStarted, step: int, status: StepStatus, **more: Any) -> StepEnded:
        """The end of a step."""
        cells = (StepCell(asset=cell.asset, partition=cell.partition, status=status) for cell in run.steps[step].cells)
        defaults: Mapping[str, Any] = {"cells": tuple(cells)}
        return StepEnded(
            time=self.time(),
            run_id=run.run_id,
            step_key=run.steps[step].step_key,
            status=status,
            **(defaults | more),
        )

    def backfill(self, *assets: str | tuple[str, int], **more: Any) -> BackfillStarted:
        """A backfill of unpartitioned assets, and of so many days of others."""
        targets = (
            BackfillTarget(asset=AssetKey(one), cells=1)
            if isinstance(one, str)
            else BackfillTarget(
                asset=AssetKey(one[0]), cells=one[1], partitions={"kind": "days", "ranges": [[0, one[1]]]}
            )
            for one in assets
        )
        return BackfillStarted(time=self.time(), backfill_id=self.identifier(), targets=tuple(targets), **more)

    def resume(self, backfill: BackfillStarted, **more: Any) -> BackfillResumed:
        """Somebody goes on with it."""
        return BackfillResumed(time=self.time(), backfill_id=backfill.backfill_id, **more)

    def stop(self, backfill: BackfillStarted, status: BackfillStatus, **more: Any) -> BackfillEnded:
        """The end of a backfill."""
        return BackfillEnded(time=self.time(), backfill_id=backfill.backfill_id, status=status, **more)

    def finish(self, run: RunQueued | RunStarted, status: RunStatus = RunStatus.SUCCESS, **more: Any) -> RunEnded:
        """The end of a run."""
        return RunEnded(time=self.time(), run_id=run.run_id, status=status, **more)
