"""Dagster's command line on the trivial project: `list`, or materialize 1 or 10 assets from nothing."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SOURCE = "from dagster import asset, Definitions\n\n" + "\n".join(
    f"@asset\ndef a{i}({f'a{i - 1}' if i else ''}):\n    return {i}\n" for i in range(10)
)

what = sys.argv[1]
count = 10 if what == "list" else int(what)
names = ", ".join(f"a{i}" for i in range(count))
walls, cpus = [], []
for _ in range(1 if count == 10 and what != "list" else 3):  # ten assets take half a minute
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary) / "defs.py"
        file.write_text(f"{SOURCE}\ndefs = Definitions(assets=[{names}])\n")
        home = Path(temporary) / "home"
        home.mkdir()
        (home / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
        tool = [str(Path(sys.executable).parent / "dagster"), "asset"]
        command = (
            [*tool, "list", "-f", str(file)]
            if what == "list"
            else [*tool, "materialize", "--select", "*", "-f", str(file)]
        )
        start = time.perf_counter()
        process = subprocess.Popen(
            command, env={**os.environ, "DAGSTER_HOME": str(home)}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        _, status, usage = os.wait4(process.pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        walls.append(time.perf_counter() - start)
        cpus.append(usage.ru_utime + usage.ru_stime)
print(json.dumps({"wall": statistics.median(walls), "cpu": statistics.median(cpus)}))
