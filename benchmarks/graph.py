"""Defining, loading and asking a graph of 10,000 assets (goals F6, F7)."""

import random
import sys
import tempfile
from collections import deque
from pathlib import Path
from typing import Any

from benchmarks.harness import Figure, Row, measure, measure_process, run_peer, write_project
from headwater import AssetSelection, Definitions, asset

COUNT = 10_000


def define(count: int) -> list[Any]:
    """`count` assets with three dependencies each, made by one factory."""
    chance = random.Random(1)

    def make(i: int) -> Any:
        deps = [f"a{j}" for j in {chance.randrange(i) for _ in range(3)}] if i else []

        @asset(name=f"a{i}", deps=deps, group_name="bench", kinds={"python"}, owners=["team:bench"])
        def one() -> int:
            return i

        return one

    return [make(i) for i in range(count)]


PROJECT = """
import random
from headwater import asset

chance = random.Random(1)

def make(i):
    @asset(name=f"a{i}", deps=[f"a{j}" for j in {chance.randrange(i) for _ in range(3)}] if i else [])
    def one():
        return i
    return one

assets = [make(i) for i in range(10_000)]
"""


def rows() -> list[Row]:
    whole = measure(lambda: Definitions(define(COUNT)).graph)
    graph = Definitions(define(COUNT)).graph
    edges = {key: graph.parents(key) for key in graph.nodes}
    sink = max(graph.nodes, key=lambda key: len(graph.upstream({key})))

    def search() -> int:
        seen, queue = {sink}, deque([sink])
        while queue:
            for parent in edges[queue.popleft()]:
                if parent not in seen:
                    seen.add(parent)
                    queue.append(parent)
        return len(seen)

    plain = measure(search)
    found = [
        Row(
            "F6",
            f"define and load {COUNT:,} assets, {sum(map(len, edges.values())):,} edges",
            whole,
            "plain search of that graph",
            plain,
            goal="≤ 1.0 s CPU",
        ),
        Row(
            "F7",
            f"ancestors of a sink ({len(graph.upstream({sink})):,})",
            measure(lambda: graph.upstream({sink})),
            "plain search",
            plain,
            goal="≤ 5 ms",
        ),
        Row(
            "F7",
            f"selection +{sink}",
            measure(lambda: AssetSelection.from_string(f"+{sink}").resolve(graph)),
            "plain search",
            plain,
            goal="≤ 5 ms",
        ),
    ]
    with tempfile.TemporaryDirectory() as temporary:
        folder = write_project(Path(temporary), PROJECT)
        (folder / ".headwater").mkdir()
        command = [sys.executable, "-m", "headwater", "ls", "a0"]
        measure_process(command, cwd=folder, runs=1)
        nothing = measure_process([sys.executable, "-m", "headwater", "--help"], cwd=folder)
        found.append(
            Row(
                "F6",
                "headwater ls of it, remembered",
                measure_process(command, cwd=folder),
                "--help",
                nothing,
                goal="≤ 0.2 s over",
            )
        )
    peer = run_peer("dagster_graph.py", str(COUNT))
    if peer:
        found.append(Row("F6", "define and load", whole, "dagster", Figure(peer["wall"], peer["cpu"])))
        found.append(Row("F7", "selection", found[2].ours, "dagster", Figure(peer["select_wall"], peer["select_cpu"])))
    return found
