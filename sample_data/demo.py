"""What Headwater does, shown on the sample project: build it, change it, build what the change touched.

Runs the command line in a copy of the project, so that nothing here changes. `make demo` calls it.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main() -> None:
    """Tell the story."""
    with tempfile.TemporaryDirectory(prefix="headwater-demo-") as temporary:
        project = Path(temporary) / "sample_data"
        shutil.copytree(HERE, project, ignore=shutil.ignore_patterns(".headwater", "__pycache__"))

        say("The assets of the project, and what depends on what.")
        headwater(project, "ls")
        headwater(project, "lineage", "delay_report")

        say("Nothing was built yet. Build one month of flights with the weather, and what it is made of, day by day.")
        headwater(project, "materialize", "flights_weather", "--partition", "2013-01-01")
        headwater(project, "partitions", "weather", "--limit", "3")

        say("Backfill what is missing: every day, every month, what sums them up. Killed, it could be resumed.")
        headwater(project, "backfill", "*", "--only-missing", "--title", "the whole year")
        headwater(project, "backfills")

        say("A second time, nothing is to be done.")
        headwater(project, "materialize", "--all-partitions")

        say("Read one day again. It comes out as it was, so nothing below it is stale.")
        headwater(project, "materialize", "raw_flights", "--partition", "2013-02-08", "--force")
        headwater(project, "status", "--check")

        say("Edit a comment and a docstring: still fresh.")
        edit(
            project, "cleaned.py", "#: A departure this many minutes late counts as late", "#: From here on it is late"
        )
        edit(project, "cleaned.py", "Both airports as one text", "From where to where")
        headwater(project, "status", "--check")

        say("Rewrite the code of a cleaned asset so that its output stays the same: it is rebuilt, and nothing else.")
        edit(project, "cleaned.py", 'pc.is_valid(raw_planes["year"])', 'pc.field("year").is_valid()')
        headwater(project, "status", "stale:")
        headwater(project, "materialize", "fleet_age")

        say("Count a departure as late from 30 minutes on: what that changes, and why. fleet_age reads other columns.")
        edit(project, "cleaned.py", "LATE = 15", "LATE = 30")
        headwater(project, "why", "delay_report")
        headwater(project, "plan")
        headwater(project, "materialize", "--all-partitions")

        say("The result, and what the catalog knows of it.")
        headwater(
            project, "sql", "select carrier, name, flights, round(late, 3) as late from delays_by_carrier limit 5"
        )
        headwater(project, "sql", "select count(*) as flights, round(avg(dep_delay), 3) as mean_delay from flights")
        headwater(project, "partitions", "airport_months", "--range", "2013-01-01|EWR..2013-02-01|LGA", "--limit", "3")
        headwater(project, "sql", "select key, rows, bytes from assets where group_name = 'delays' order by key")
        headwater(project, "versions", "planes")
        headwater(project, "show", "delay_report")


def say(text: str) -> None:
    """A line of the story."""
    print(
        f"\n\033[1m# {text}\033[0m" if sys.stdout.isatty() and "NO_COLOR" not in os.environ else f"\n# {text}",
        flush=True,
    )


def headwater(project: Path, *arguments: str) -> None:
    """Run a command of Headwater's, as a person would type it."""
    shown = " ".join(f'"{argument}"' if {*" |*'"} & {*argument} else argument for argument in arguments)
    print(f"\n$ headwater {shown}", flush=True)
    # Where somebody keeps data of their own is no place for ours.
    kept = {name: value for name, value in os.environ.items() if name not in ("HEADWATER_HOME", "FLIGHTS_ROOT")}
    subprocess.run([sys.executable, "-m", "headwater", *arguments], cwd=project, env=kept, check=True)


def edit(project: Path, name: str, old: str, new: str) -> None:
    """Replace a text in a file of the project."""
    file = project / "flights" / name
    text = file.read_text("utf-8")
    assert text.count(old) == 1, f"{old!r} is not there once"
    file.write_text(text.replace(old, new), "utf-8")
    print(f"\n  flights/{name}:  {old}\n  {'→':>{len(name) + 9}}  {new}", flush=True)


if __name__ == "__main__":
    main()
