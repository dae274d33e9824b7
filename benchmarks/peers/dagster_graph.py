"""Defining and validating a graph of assets in Dagster, and one selection on it."""

import json
import random
import sys
import time

from dagster import AssetSelection, Definitions, asset

count = int(sys.argv[1])
chance = random.Random(1)


def make(i):
    @asset(name=f"a{i}", deps=[f"a{j}" for j in {chance.randrange(i) for _ in range(3)}] if i else [])
    def one():
        return i

    return one


wall, cpu = time.perf_counter(), time.process_time()
definitions = Definitions(assets=[make(i) for i in range(count)])
Definitions.validate_loadable(definitions)
graph = definitions.resolve_asset_graph()
result = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
wall, cpu = time.perf_counter(), time.process_time()
AssetSelection.from_string(f"+a{count - 1}").resolve(graph)
print(json.dumps({**result, "select_wall": time.perf_counter() - wall, "select_cpu": time.process_time() - cpu}))
