"""Staleness of 10,000 assets after one root's code changed (goal F5)."""

import random
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from benchmarks.harness import Figure, Row, measure, run_peer
from headwater import AssetKey, Instance
from headwater.catalog.events import RunStarted, StepEnded
from headwater.catalog.ids import new_id
from headwater.catalog.lineage.asset_graph import AssetGraph
from headwater.catalog.lineage.node import AssetNode, Dependency
from headwater.catalog.records import (
    Fingerprint,
    Input,
    Materialization,
    PlannedCell,
    PlannedStep,
    StepCell,
    StepStatus,
)
from headwater.materialize.reader import Reader

COUNT = 10_000
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def nodes(count: int, edges: int = 3) -> list[AssetNode]:
    """A layered graph of `count` assets with up to `edges` dependencies each."""
    chance = random.Random(1)
    return [
        AssetNode(
            key=AssetKey(f"a{i}"),
            step=f"a{i}",
            deps=tuple(
                Dependency(key=AssetKey(f"a{j}"), parameter=f"a{j}")
                for j in sorted({chance.randrange(max(0, i - 500), i) for _ in range(edges)})
            )
            if i
            else (),
            fingerprint=Fingerprint(code=f"py1:{i:032x}"),
        )
        for i in range(count)
    ]


def record(instance: Instance, graph: list[AssetNode]) -> None:
    """A run that built everything."""
    run_id = new_id(NOW)
    versions = {node.key: new_id(NOW) for node in graph}
    steps = tuple(
        PlannedStep(step_key=str(n.key), cells=(PlannedCell(asset=n.key, version_id=versions[n.key]),), reason="new")
        for n in graph
    )
    instance.catalog.append([RunStarted(time=NOW, run_id=run_id, steps=steps)])
    ended = [
        StepEnded(
            time=NOW,
            run_id=run_id,
            step_key=str(node.key),
            status=StepStatus.SUCCESS,
            cells=(StepCell(asset=node.key, status=StepStatus.SUCCESS, version_id=versions[node.key]),),
            materializations=(
                Materialization(
                    version_id=versions[node.key],
                    asset=node.key,
                    run_id=run_id,
                    step_key=str(node.key),
                    created=NOW,
                    fingerprint=node.fingerprint or Fingerprint(code=""),
                    data_version=f"d:{node.key}",
                    inputs=tuple(
                        Input(asset=d.key, version_id=versions[d.key], data_version=f"d:{d.key}") for d in node.deps
                    ),
                ),
            ),
        )
        for node in graph
    ]
    for start in range(0, len(ended), 1000):
        instance.catalog.append(ended[start : start + 1000])


def rows() -> list[Row]:
    graph = nodes(COUNT)
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary) / "home"
        with Instance.open(home) as instance:
            record(instance, graph)
            changed = AssetGraph(
                [msgspec.structs.replace(graph[0], fingerprint=Fingerprint(code="py1:" + "f" * 32)), *graph[1:]]
            )
            stale = Reader(changed, instance.catalog, instance.clock.now()).statuses()
            count = sum(status == "STALE" for status in stale.values())
            ours = measure(lambda: Reader(changed, instance.catalog, instance.clock.now()).statuses())
            fetch = measure(lambda: instance.catalog.cells())
            scan = measure(
                lambda: instance.catalog.query("select count(*), count(distinct input_data_version) from inputs")
            )
    found = [
        Row(
            "F5",
            f"staleness of {COUNT:,} assets from the catalog",
            ours,
            "one scan in DuckDB",
            scan,
            goal="≤ 0.25 s",
            more={"stale": count, "of it reading": f"{fetch.wall * 1000:.0f} ms"},
        )
    ]
    peer = run_peer("dagster_staleness.py", "500")
    if peer:
        found.append(
            Row(
                "F5",
                "ours for 10,000, Dagster for 500",
                ours,
                "dagster, 500 assets",
                Figure(peer["wall"], peer["cpu"]),
            )
        )
    return found
