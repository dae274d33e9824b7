"""Staleness of a graph of assets in Dagster after one root's code version changed."""

import json
import random
import sys
import tempfile
import time

from dagster import DagsterInstance, asset, materialize
from dagster._core.definitions.data_version import CachingStaleStatusResolver
from dagster._core.definitions.definitions_class import Definitions
from dagster._core.loader import LoadingContextForTest

count = int(sys.argv[1])
chance = random.Random(1)


def make(i, version="1"):
    @asset(
        name=f"a{i}",
        code_version=version,
        deps=[f"a{j}" for j in sorted({chance.randrange(max(0, i - 50), i) for _ in range(3)})] if i else [],
    )
    def one():
        return None

    return one


assets = [make(i) for i in range(count)]
with tempfile.TemporaryDirectory() as temporary, DagsterInstance.local_temp(temporary) as instance:
    assert materialize(assets, instance=instance).success
    changed = Definitions(assets=[make(0, "2"), *assets[1:]]).resolve_asset_graph()
    wall, cpu = time.perf_counter(), time.process_time()
    resolver = CachingStaleStatusResolver(
        instance=instance, asset_graph=changed, loading_context=LoadingContextForTest(instance)
    )
    for key in changed.get_all_asset_keys():
        resolver.get_status(key)
    print(json.dumps({"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}))
