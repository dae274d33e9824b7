"""What commands cost as whole processes (goals F1, F2, F3, F8)."""

import shutil
import sys
import tempfile
from pathlib import Path

from benchmarks.harness import Figure, Row, measure_process, run_peer, write_project

HEADWATER = [sys.executable, "-m", "headwater"]

TRIVIAL = "from headwater import asset\n\n" + "\n".join(
    f"@asset\ndef a{i}({f'a{i - 1}' if i else ''}):\n    return {i}\n" for i in range(10)
)


def rows() -> list[Row]:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        ten = write_project(folder / "ten", TRIVIAL)
        one = write_project(folder / "one", "from headwater import asset\n\n@asset\ndef a0():\n    return 0\n")
        thousand = write_project(
            folder / "thousand",
            "from headwater import asset\n\n"
            "def make(i):\n"
            "    @asset(name=f'a{i}', deps=[f'a{i - 1}'] if i % 10 else [])\n"
            "    def one():\n        return i\n"
            "    return one\n\n"
            "assets = [make(i) for i in range(1000)]\n",
        )
        measure_process([*HEADWATER, "materialize"], cwd=ten, runs=1)
        measure_process([*HEADWATER, "materialize"], cwd=thousand, runs=1)
        bare = measure_process([sys.executable, "-c", "pass"])
        database = measure_process([sys.executable, "-c", "import duckdb"])
        found = [
            Row(
                "F1",
                "import headwater",
                measure_process([sys.executable, "-c", "import headwater"]),
                "bare Python",
                bare,
                goal="≤ 30 ms over it",
            ),
            Row(
                "F2",
                "headwater ls, 10 assets, warm home",
                measure_process([*HEADWATER, "ls"], cwd=ten),
                "import duckdb",
                database,
                goal="≤ 0.2 s, ≤ 70 MB",
            ),
        ]
        for command in (
            ["status"],
            ["plan"],
            ["show", "a5"],
            ["why", "a5"],
            ["lineage"],
            ["runs"],
            ["events"],
            ["versions", "a5"],
            ["search", "a5"],
            ["sql", "select count(*) from runs"],
            ["--help"],
        ):
            figure = measure_process([*HEADWATER, *command], cwd=ten)
            found.append(Row("F2", f"headwater {' '.join(command)}", figure, "import duckdb", database))

        def reset(project: Path) -> None:
            shutil.rmtree(project / ".headwater", ignore_errors=True)

        for name, where, goal in (("1", one, "≤ 0.5 s"), ("10", ten, "≤ 0.6 s")):
            figure = measure_process([*HEADWATER, "materialize"], cwd=where, before=lambda where=where: reset(where))
            row = Row("F3", f"headwater materialize, {name} trivial assets, cold", figure, goal=goal)
            peer = run_peer("dagster_cli.py", name)
            if peer:
                row.against, row.other = "dagster asset materialize", Figure(peer["wall"], peer["cpu"])
            found.append(row)
        peer = run_peer("dagster_cli.py", "list")
        if peer:
            found.append(
                Row(
                    "F2",
                    "headwater ls",
                    measure_process([*HEADWATER, "ls"], cwd=ten),
                    "dagster asset list",
                    Figure(peer["wall"], peer["cpu"]),
                    goal="≥ 10× faster",
                )
            )
        figure = measure_process([*HEADWATER, "plan"], cwd=thousand)
        found.append(Row("F8", "headwater plan, 1,000 assets, nothing stale", figure, goal="≤ 0.4 s"))
        return found
