"""Partitions in a catalog: staleness, recording, listing, planning and building (goals P1 to P5).

Ten million cells are put into the tables as recording would have left them, but by SQL: recording them one event after
another would take minutes. What is recorded by events is measured by itself (P3).
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import Row, measure, measure_pair, peak_memory
from headwater import (
    BackfillPolicy,
    DailyPartitionsDefinition,
    HourlyPartitionsDefinition,
    TimeWindowPartitionMapping,
    asset,
)
from headwater import Definitions as Project
from headwater import materialize as build
from headwater.catalog.cell_hash import dependency_hash
from headwater.catalog.clock import SystemClock
from headwater.catalog.events import RunStarted, StepEnded
from headwater.catalog.ids import new_id
from headwater.catalog.instance import Instance
from headwater.catalog.keys import AssetKey
from headwater.catalog.lineage.asset_graph import AssetGraph
from headwater.catalog.lineage.node import AssetNode, Dependency, canonical_json
from headwater.catalog.partitions.definition import PartitionsContext, PartitionsDefinition
from headwater.catalog.partitions.space import Partitions
from headwater.catalog.records import (
    Fingerprint,
    Input,
    Materialization,
    PlannedCell,
    PlannedStep,
    StepCell,
    StepStatus,
)
from headwater.catalog.storage.duckdb import DuckDBStorage, open_catalog
from headwater.materialize.partition_choice import PartitionChoice
from headwater.materialize.reader import Reader

MOMENT = datetime(2026, 3, 12, 5, 30, tzinfo=UTC)
BEFORE, AFTER = Fingerprint(code="py1:1"), Fingerprint(code="py1:2")
MAPPING = canonical_json(TimeWindowPartitionMapping().to_json())


class Then(SystemClock):
    """It is always the same moment."""

    def now(self) -> datetime:
        return MOMENT


def definition(partitions: int) -> PartitionsDefinition:
    """Hours or days, so many of them."""
    if partitions > 20_000:
        start = (MOMENT - timedelta(hours=partitions)).strftime("%Y-%m-%d-%H:00")
        return HourlyPartitionsDefinition(start)
    return DailyPartitionsDefinition((MOMENT - timedelta(days=partitions)).strftime("%Y-%m-%d"))


def chain(assets: int, partitions: int, first: Fingerprint = AFTER, batch: int | None = 1) -> AssetGraph:
    """Assets that each read the same partition of the one before; the first one's code has changed."""
    text = canonical_json(definition(partitions).to_json())
    keys = [AssetKey(f"asset_{i}") for i in range(assets)]
    return AssetGraph(
        AssetNode(
            key=key,
            deps=() if i == 0 else (Dependency(key=keys[i - 1], parameter="above", mapping=MAPPING),),
            step=key,
            fingerprint=BEFORE if i else first,
            partitions=text,
            batch=batch,
        )
        for i, key in enumerate(keys)
    )


def space(partitions: int) -> Partitions:
    return definition(partitions).at(PartitionsContext(MOMENT))


@contextmanager
def home() -> Iterator[Instance]:
    folder = Path(tempfile.mkdtemp(dir=os.environ.get("BENCH_DIR")))
    try:
        with Instance(folder, open_catalog(folder, wait=0, clock=Then()), Then()) as instance:
            yield instance
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def fill(instance: Instance, assets: int, partitions: int) -> None:
    """The cells of `chain`, all built from what there is."""
    storage = instance.catalog
    assert isinstance(storage, DuckDBStorage)
    keys = space(partitions).keys()
    count = len(keys)
    connection = storage._database.writer  # pyright: ignore[reportPrivateUsage]
    connection.begin()
    connection.register("given", {"number": np.arange(count, dtype=np.int32), "key": np.array(keys, object)})
    connection.execute("insert into partition_key select number, key, md5_number_lower(key) from given").fetchall()
    connection.unregister("given")
    connection.execute("insert into fingerprint values (0, 'py1:1', '', '', '', '', '')").fetchall()
    chance = np.random.default_rng(1)
    above: Any = None
    for i in range(assets):
        connection.execute("insert into asset values (?, ?)", [i, f"asset_{i}"]).fetchall()
        versions = chance.integers(0, 1 << 63, count, np.uint64)
        read = np.zeros(count, np.uint64) if above is None else above + np.uint64(dependency_hash(f"asset_{i - 1}"))
        numbers = np.arange(count, dtype=np.int64)
        columns = {"number": numbers, "seq": numbers + i * count, "version": versions, "read": read}
        connection.register("given", columns)
        connection.execute(
            f"insert into cell by name select {i} as asset_id, number::integer as partition_id, seq, "
            "0 as fingerprint_id, version as version_hash, read as inputs_hash from given"
        ).fetchall()
        connection.unregister("given")
        above = versions
    connection.commit()
    connection.execute("checkpoint").fetchall()


#: What a catalog with a row for each input would ask, one hop: the versions read against the current ones.
_JOIN = """
    select count(*)
    from cell as down join cell as up on up.asset_id = down.asset_id - 1 and up.partition_id = down.partition_id
    where down.inputs_hash <> up.version_hash
"""


def staleness_rows(row: str, assets: int, partitions: int, goal: str) -> list[Row]:
    graph = chain(assets, partitions)
    with home() as instance:
        fill(instance, assets, partitions)

        def everything() -> Reader:
            reader = Reader(graph, instance.catalog, MOMENT)
            counts = reader.counts(AssetKey(f"asset_{assets - 1}"))
            assert counts.stale == counts.total, counts
            return reader

        def joined() -> None:
            with instance.catalog._database.cursor() as cursor:  # type: ignore[attr-defined]
                cursor.execute(_JOIN).fetchall()

        cells = assets * space(partitions).count
        what = f"staleness of {assets:,} × {space(partitions).count:,} = {cells:,} cells, the root's code changed"
        ours, other = measure_pair(everything, joined)
        found = [Row(row, what, ours, "one hash join in DuckDB", other, goal=goal)]
        reader = everything()
        plan = partial(reader.plan, "*", partitions=PartitionChoice(all=True))
        found.append(Row("P5" if cells < 100_000 else row, f"plan of these {cells:,} cells", measure(plan)))
        if cells < 100_000:
            found.append(
                Row("P5", f"its {plan().step_count:,} single steps", measure(lambda: len(plan().steps)), goal="≤ 0.2 s")
            )
        found[0].more["peak MB"] = round(peak_memory())
    return found


def listing_rows() -> list[Row]:
    found: list[Row] = []
    for partitions in (100_000, 1_000_000):
        with home() as instance:
            fill(instance, 1, partitions)
            found += _listing(chain(1, partitions, BEFORE), instance, partitions)
    return found


def _listing(graph: AssetGraph, instance: Instance, partitions: int) -> list[Row]:
    key = AssetKey("asset_0")

    def read() -> Reader:
        return Reader(graph, instance.catalog, MOMENT)

    return [
        Row("P4", f"{what} of {partitions:,}", measure(work), goal="≤ 20 ms")
        for what, work in (
            ("a page of keys", lambda: read().partitions(key).keys(0, 100)),
            ("count", lambda: read().partitions(key).count),
            ("fresh, stale and missing, from the catalog,", lambda: read().partition_status(key).counts()),
        )
    ]


def recorded(instance: Instance, count: int) -> Callable[[], None]:
    """A run with one step of `count` partitions, ready to be recorded."""
    keys = space(count).keys(0, count)

    def record() -> None:
        run, time = new_id(MOMENT), MOMENT
        planned = [PlannedCell(asset=AssetKey("one"), partition=key, version_id=new_id(MOMENT)) for key in keys]
        source = Input(asset=AssetKey("zero"), partition="x", version_id=new_id(MOMENT), data_version="b3:1")
        instance.catalog.append(
            [RunStarted(time=time, run_id=run, steps=(PlannedStep(step_key="one", cells=tuple(planned), reason=""),))]
        )
        made = tuple(
            Materialization(
                version_id=cell.version_id,
                asset=cell.asset,
                partition=cell.partition,
                run_id=run,
                step_key="one",
                created=time,
                fingerprint=BEFORE,
                data_version=f"b3:{cell.version_id}",
                inputs=(source,),
            )
            for cell in planned
        )
        cells = tuple(
            StepCell(asset=m.asset, partition=m.partition, status=StepStatus.SUCCESS, version_id=m.version_id)
            for m in made
        )
        instance.catalog.append(
            [
                StepEnded(
                    time=time,
                    run_id=run,
                    step_key="one",
                    status=StepStatus.SUCCESS,
                    cells=cells,
                    materializations=made,
                )
            ]
        )

    return record


def recording_rows() -> list[Row]:
    with home() as instance:
        many = measure(recorded(instance, 100_000), runs=3)
        one = recorded(instance, 1)
        single = measure(lambda: [one() for _ in range(20)], runs=3)
    return [
        Row("P3", "record 100,000 partitions at once, run and plan included", many, per=100_000, goal="≤ 0.02 ms"),
        Row("P3", "one at a time: a run of one partition, two commits", single, per=20),
    ]


def building_rows() -> list[Row]:
    days = DailyPartitionsDefinition("2025-01-01", end_date="2026-01-01")

    def project(size: int | None) -> Project:
        policy = BackfillPolicy(max_partitions_per_run=size)

        @asset(partitions_def=days, backfill_policy=policy, code_version="1")
        def numbers(context: Any) -> dict[str, int]:
            return dict.fromkeys(context.partition_keys, 1)

        @asset(partitions_def=days, code_version="1")
        def single(context: Any) -> int:
            return 1

        return Project([numbers if size != 1 else single])

    found: list[Row] = []
    for size, what in ((None, "one step"), (31, "steps of 31"), (1, "a step each")):
        definitions = project(size)
        with home() as instance:
            built = measure(partial(_force, definitions, instance), runs=3)
        found.append(Row("P5", f"build 365 partitions, {what}", built, per=365, goal="≤ 5 ms" if size != 1 else ""))
    return found


def _force(definitions: Project, instance: Instance) -> None:
    result = build(definitions, instance=instance, all_partitions=True, force=True)
    assert len(result.materializations) == 365


def rows() -> list[Row]:
    found = staleness_rows("P1", 50, 365, "≤ 0.1 s; ≥ 1,000×")
    found += staleness_rows("P2", 1_000, 1_000, "≤ 0.5 s")
    found += staleness_rows("P2", 10, 1_000_000, "≤ 5 s, ≤ 3 GB")
    return found + recording_rows() + listing_rows() + building_rows()
