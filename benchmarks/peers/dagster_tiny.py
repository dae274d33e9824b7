"""Tiny tables through Dagster's in-process executor with a persistent instance and its default IO manager."""

import json
import sys
import tempfile
import time

import pandas as pd
from dagster import AssetIn, DagsterInstance, asset, materialize

FRAME = pd.DataFrame({"a": [1, 2, 3], "b": ["x", "y", "z"], "c": [0.5, 1.5, 2.5]})
shape, count = sys.argv[1], int(sys.argv[2])


def make(i):
    if i == 0 or shape == "wide":

        @asset(name=f"a{i}")
        def first():
            return FRAME

        return first

    @asset(name=f"a{i}", ins={"before": AssetIn(f"a{i - 1}")})
    def one(before):
        return before

    return one


assets = [make(i) for i in range(count)]
with tempfile.TemporaryDirectory() as temporary, DagsterInstance.local_temp(temporary) as instance:
    wall, cpu = time.perf_counter(), time.process_time()
    assert materialize(assets, instance=instance).success
    print(json.dumps({"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}))
