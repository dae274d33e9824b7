"""Commands over partitions, run in this process: what is printed of many cells, and that nothing hostile is obeyed."""

import contextlib
import json
import re
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from headwater.catalog.errors import HeadwaterError, InvalidKeyError
from headwater.catalog.keys import validate_partition_key
from headwater.catalog.printable import printable
from headwater.cli.main import cli
from tests.corpus import HOSTILE
from tests.project import Done, ProjectFolder

PROJECT = """
import json
import pathlib

import polars as pl
from headwater import (
    AssetExecutionContext, AssetOut, AssetSpec, BackfillPolicy, DailyPartitionsDefinition, DynamicPartitionsDefinition,
    MonthlyPartitionsDefinition, MultiPartitionsDefinition, Output, StaticPartitionsDefinition, asset, multi_asset,
)

folder = pathlib.Path(__file__).parent
days = DailyPartitionsDefinition("2013-01-01", end_date="2013-03-01")
months = MonthlyPartitionsDefinition("2013-01-01", end_date="2013-03-01")
origins = StaticPartitionsDefinition(["EWR", "JFK", "LGA"])
hostile_keys = StaticPartitionsDefinition(json.loads((folder / "keys.json").read_text("utf-8")))


@asset(partitions_def=days)
def flights(context: AssetExecutionContext) -> pl.DataFrame:
    day = context.partition_key
    if day in (folder / "bad").read_text():
        raise ValueError(f"no \\x1b[31mdata\\x1b[0m of {day}")
    print("reading", day)
    return pl.DataFrame({"day": [day], "n": [2 if day in (folder / "doubled").read_text() else 1]})


@asset(partitions_def=months)
def monthly(flights: pl.DataFrame) -> pl.DataFrame:
    return flights


@asset(partitions_def=MultiPartitionsDefinition({"origin": origins, "month": months}))
def by_origin(monthly: pl.DataFrame) -> int:
    return len(monthly)


@asset
def summary(monthly: pl.DataFrame) -> int:
    return len(monthly)


@asset(partitions_def=DynamicPartitionsDefinition("customers"))
def orders(context: AssetExecutionContext) -> str:
    return context.partition_key


@multi_asset(outs={"always": AssetOut(), "sometimes": AssetOut(is_required=False)}, partitions_def=origins)
def both(context: AssetExecutionContext):
    yield Output(1, "always")
    if context.partition_key == "JFK":
        yield Output(2, "sometimes")


elsewhere = AssetSpec("elsewhere", partitions_def=origins)


@asset(partitions_def=hostile_keys)
def hostile(context: AssetExecutionContext) -> str:
    print(context.partition_key)
    if context.partition_key in (folder / "bad").read_text():
        raise ValueError(context.partition_key)
    return context.partition_key


@asset(partitions_def=hostile_keys, backfill_policy=BackfillPolicy.single_run())
def together(context: AssetExecutionContext, hostile: dict[str, str]) -> dict[str, str]:
    return hostile
"""


#: What a command each is worth, of 0.1 s.
SOME_KEYS = ["--help", "'; DROP TABLE asset; --", "x..y [/nope]|%7C"]


def valid_keys() -> list[str]:
    """Of the hostile strings that can be partition keys every third: that all can is tested elsewhere."""
    found: dict[str, None] = {}
    for text in HOSTILE:
        with contextlib.suppress(InvalidKeyError):
            found[validate_partition_key(text)] = None
    return list(dict.fromkeys([*SOME_KEYS, *list(found)[::3]]))


KEYS = valid_keys()


def call(project: ProjectFolder, *arguments: str, code: int = 0, colour: bool = False) -> Done:
    """Run a command in this process."""
    with contextlib.chdir(project.path):
        result = CliRunner(env={"FORCE_COLOR": "1" if colour else ""}).invoke(
            cli, arguments, prog_name="headwater", color=colour
        )
    error = result.exception
    if isinstance(error, HeadwaterError):
        done = Done(error.exit_code, result.stdout, f"{result.stderr}{error}")
    else:
        trace = "".join(traceback.format_exception(error)) if error and not isinstance(error, SystemExit) else ""
        done = Done(result.exit_code, result.stdout, result.stderr + trace)
    assert done.code == code, f"headwater {' '.join(arguments)}: {done}"
    if not colour:
        assert printable(done.out + done.err) == done.out + done.err, arguments
    return done


def ask(project: ProjectFolder, *arguments: str, code: int = 0) -> Any:
    """Run a command with --json, and its document."""
    return call(project, *arguments, "--json", code=code).json


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> ProjectFolder:
    """January is built, and one day of it once more; of February a part, in which a day failed."""
    project = ProjectFolder(tmp_path_factory.mktemp("partitions"))
    project.write('files = ["assets.py"]', "headwater.toml")
    project.write(PROJECT)
    (project.path / "keys.json").write_text(json.dumps(KEYS), "utf-8")
    write(project, bad="", doubled="")
    call(project, "materialize", "flights or by_origin or monthly", "--partition-range", "2013-01-01..2013-01-31")
    write(project, bad="2013-02-05", doubled="2013-01-10")
    call(project, "materialize", "flights", "--partition-range", "2013-02-01..2013-02-19", code=4)
    call(project, "materialize", "flights", "--partition", "2013-01-10", "--force")
    return project


def write(project: ProjectFolder, **files: str) -> None:
    for name, text in files.items():
        (project.path / name).write_text(text, "utf-8")


FLIGHTS = {"fresh": 49, "stale": 0, "missing": 10, "failed": 1, "total": 59}


def test_status_counts_cells(built: ProjectFolder) -> None:
    found = {one["key"]: one for one in ask(built, "status", "* and not key:hostile")["assets"]}
    assert found["flights"]["cells"] == FLIGHTS
    assert found["flights"]["status"] == "STALE"
    assert found["flights"]["failure"]["step"] == "flights [2013-02-05]"
    assert found["monthly"]["cells"] == {"fresh": 0, "stale": 1, "missing": 1, "failed": 0, "total": 2}
    assert [(c["kind"], c["detail"]) for c in found["monthly"]["causes"]] == [
        ("never_materialized", "1 of 2 partitions"),
        ("upstream_data_changed", "1 of 2 partitions"),
    ]
    assert found["summary"]["cells"] == {"fresh": 0, "stale": 0, "missing": 1, "failed": 0, "total": 1}
    assert found["orders"]["cells"]["total"] == 0
    text = call(built, "status").out
    assert "49 of 59 fresh, 10 missing, 1 failed" in text
    assert "no partitions yet" in text
    titles, flights, *_ = call(built, "status", "flights or monthly", "--partitions").out.splitlines()
    assert titles.split() == ["ASSET", "STATUS", "FRESH", "STALE", "MISSING", "FAILED", "TOTAL", "WHY"]
    assert flights.split()[:7] == ["flights", "STALE", "49", "0", "10", "1", "59"]


def test_status_check_looks_at_cells(built: ProjectFolder) -> None:
    call(built, "status", "flights", "--check", code=1)
    call(built, "status", "orders", "--check")


def test_what_is_left_out_stays_out(built: ProjectFolder, tmp_path: Path) -> None:
    """An optional output that its step does not make of some partitions is missing there, and not to be built."""
    home = ("--home", str(tmp_path))
    call(built, *home, "materialize", "always", "--all-partitions")
    (found,) = ask(built, *home, "status", "sometimes", "--check")["assets"]
    assert found["cells"] == {"fresh": 1, "stale": 0, "missing": 2, "failed": 0, "total": 3}
    assert [(cause["kind"], cause["detail"]) for cause in found["causes"]] == [("not_made", "2 of 3 partitions")]
    assert call(built, *home, "plan", "sometimes").out.startswith("Nothing to do.")


def test_partitions_of_what_is_computed_elsewhere(built: ProjectFolder) -> None:
    assert "computed by something else" in call(built, "partitions", "elsewhere", code=2).err
    assert "static, 3 keys" in call(built, "show", "elsewhere").out
    listed = {one["key"]: one for one in ask(built, "ls", "--external")["assets"]}
    assert listed["elsewhere"]["partitioned"] is True


def test_the_picture_of_a_calendar(built: ProjectFolder) -> None:
    text = call(built, "partitions", "flights", "--limit", "2", "--offset", "34").out
    assert text.startswith(
        "flights\n"
        "daily from 2013-01-01 to 2013-03-01, UTC\n"
        "49 of 59 fresh, 10 missing, 1 failed\n\n"
        "month    01 04 07 10 13 16 19 22 25 28 31\n"
        f"2013-01  {'█' * 31}\n"
        f"2013-02  ████✗{'█' * 14}{'·' * 9}\n"
        "█ fresh   · missing   ✗ failed   columns: day\n\n"
        "PARTITION   STATUS   BUILT"
    )
    *_, first, second = text.splitlines()
    assert first.startswith("2013-02-04  FRESH") and second.startswith("2013-02-05  MISSING")
    assert "(ValueError: no \\x1b[31mdata\\x1b[0m of 2013-02-05)" in second
    part = call(built, "partitions", "flights", "--range", "2013-01-30..2013-02-02", "--limit", "0").out
    assert f"\n2013-01  {' ' * 29}██\n2013-02  ██\n" in part
    coloured = call(built, "partitions", "flights", "--limit", "2", "--offset", "34", colour=True).out
    assert "\x1b[32m████\x1b[0m\x1b[31m✗\x1b[0m" in coloured


def test_the_picture_of_two_dimensions(built: ProjectFolder) -> None:
    text = call(built, "partitions", "by_origin").out
    assert "month       EWR  JFK  LGA\n2013-01-01  ▒    ▒    ▒\n2013-02-01  ·    ·    ·\n" in text
    assert "2013-02-01|LGA  MISSING" in text


def test_partitions_as_json(built: ProjectFolder) -> None:
    found = ask(built, "partitions", "flights", "--status", "missing", "--offset", "1", "--limit", "2")
    assert found["key"] == "flights"
    assert found["definition"]["kind"] == "daily"
    assert found["definition"]["start"] == "2013-01-01T00:00:00.000000Z"
    assert (found["counts"], found["outside"], found["matching"]) == (FLIGHTS, 0, 10)
    assert [one["partition"] for one in found["partitions"]] == ["2013-02-20", "2013-02-21"]
    failed = ask(built, "partitions", "flights", "--status", "failed")["partitions"]
    assert [(one["partition"], one["failure"]["error"][:10]) for one in failed] == [("2013-02-05", "ValueError")]
    fresh = ask(built, "partitions", "flights", "--range", "2013-01-10", "--range", "2013-02-05..2013-02-06")
    assert fresh["counts"] == {"fresh": 2, "stale": 0, "missing": 1, "failed": 1, "total": 3}
    assert [(one["status"], one["rows"]) for one in fresh["partitions"]] == [
        ("FRESH", 1),
        ("MISSING", None),
        ("FRESH", 1),
    ]
    assert ask(built, "partitions", "flights", "--counts") == {
        name: found[name] for name in ("key", "definition", "counts", "outside")
    }
    stale = ask(built, "partitions", "monthly", "--status", "stale")["partitions"]
    assert [[cause["kind"] for cause in one["causes"]] for one in stale] == [["upstream_data_changed"]]


def test_what_makes_no_sense(built: ProjectFolder) -> None:
    assert "`summary` is not partitioned" in call(built, "partitions", "summary", code=2).err
    assert "`summary` is not partitioned" in call(built, "why", "summary", "--partition", "x", code=2).err
    assert "no partition `2013-01-32`" in call(built, "why", "flights", "--partition", "2013-01-32", code=2).err
    backwards = call(built, "partitions", "flights", "--range", "2013-02-01..2013-01-01", code=2)
    assert "runs backwards" in backwards.err
    assert "not the start" not in call(built, "plan", "summary", "--partition", "2013-01-01", code=2).err
    refused = call(built, "materialize", "monthly", code=2).err
    assert "--all-partitions" in refused and "--partition '2013-02-01'" in refused
    assert "one of an asset" in call(built, "events", "--partition", "x", code=2).err


def test_why_leads_to_the_partition_that_changed(built: ProjectFolder) -> None:
    found = ask(built, "why", "monthly", "--partition", "2013-01-01")
    assert (found["key"], found["partition"]) == ("monthly", "2013-01-01")
    (reason,) = found["reasons"]
    assert [(c["kind"], c["detail"]) for c in reason["causes"]] == [("upstream_data_changed", "2013-01-10")]
    root, above = ask(built, "why", "by_origin", "--partition", "2013-01-01|JFK")["reasons"]
    assert (root["status"], root["because"]) == ("STALE", [{"key": "monthly", "partition": "2013-01-01"}])
    assert above == reason
    assert call(built, "why", "by_origin", "--partition", "2013-01-01|JFK").out.splitlines() == [
        "by_origin [2013-01-01|JFK] STALE",
        "└─ monthly [2013-01-01] STALE",
        "   └─ flights has new data (2013-01-10)",
    ]
    assert call(built, "why", "monthly").out.startswith("monthly STALE\n")


def test_a_plan_is_a_line_for_each_asset(built: ProjectFolder) -> None:
    done = call(built, "plan", "monthly or summary", "--force")
    lines = [re.split(r"  +", line.strip()) for line in done.out.splitlines()]
    assert lines[0] == ["ASSET", "STEPS", "PARTITIONS", "WHY"]
    assert lines[1][:3] == ["flights", "10", "2013-02-05, 2013-02-20..2013-02-28 (10)"]
    assert lines[2][:3] == ["monthly", "2", "2013-01-01..2013-02-01 (2)"]
    assert "13 steps" in done.err
    assert "`headwater materialize 'monthly or summary' --all-partitions --force` does it" in done.err
    one = call(built, "plan", "monthly", "--partition", "2013-01-01")
    assert "2013-01-01 (1)" in one.out and "--all-partitions" not in one.err
    planned = ask(built, "plan", "monthly")["steps"]
    assert [step["step"] for step in planned][-2:] == ["monthly [2013-01-01]", "monthly [2013-02-01]"]
    assert [step["partitions"] for step in planned][-2:] == [["2013-01-01"], ["2013-02-01"]]
    assert [step["status"] for step in planned] == [*["MISSING"] * 10, "STALE", "MISSING"]


def test_show_and_ls(built: ProjectFolder) -> None:
    listed = {one["key"]: one for one in ask(built, "ls")["assets"]}
    assert listed["flights"]["partitioned"] is True
    assert listed["flights"]["partitions_def"] == "daily from 2013-01-01 to 2013-03-01, UTC"
    assert (listed["summary"]["partitioned"], listed["summary"]["partitions_def"]) == (False, None)
    shown = ask(built, "show", "flights")
    assert (shown["cells"], shown["outside"], shown["materialization"]["partition"]) == (FLIGHTS, 0, "2013-01-10")
    text = call(built, "show", "flights").out
    assert "49 of 59 fresh, 10 missing, 1 failed" in text
    assert f"{'█' * 35}✗{'█' * 14}{'·' * 9}\n" in text
    assert ask(built, "show", "summary")["cells"] is None


def test_the_history_of_a_partition(built: ProjectFolder) -> None:
    versions = ask(built, "versions", "flights", "--partition", "2013-01-10")["versions"]
    assert [(one["partition"], one["current"]) for one in versions] == [("2013-01-10", True), ("2013-01-10", False)]
    assert "2013-01-10" in call(built, "versions", "flights", "--limit", "1").out
    events = ask(built, "events", "flights", "--partition", "2013-02-05")["events"]
    assert [event["kind"] for event in events] == ["STEP_START", "STEP_FAILURE"]
    assert "never materialized" in call(built, "versions", "flights", "--partition", "2013-02-28").err


def test_runs_over_many_partitions(built: ProjectFolder) -> None:
    failed = ask(built, "runs", "--status", "failure")["runs"][-1]
    assert len(failed["steps"]) == 19
    text = call(built, "run", "show", failed["run_id"]).out
    assert "flights [2013-02-06]  SUCCESS" in text and "flights [2013-02-05] failed\n" in text
    big = ask(built, "runs", "--status", "success")["runs"][-1]["run_id"]
    assert "31 built" in call(built, "run", "show", big).out
    step = call(built, "logs", big, "flights [2013-01-03]").out
    assert step.splitlines()[-1] == "reading 2013-01-03"
    assert call(built, "logs", big, "flights", "--stream", "stdout").out.count("reading 2013") == 31
    unknown = call(built, "logs", big, "flights [2013-01-33]", code=2).err
    assert "Did you mean `flights [2013-01-" in unknown and len(unknown) < 500


def test_partition_keys_are_completed(built: ProjectFolder) -> None:
    from headwater.cli.app import App, complete_partition
    from headwater.cli.build import materialize
    from headwater.cli.status import why

    def complete(command: Any, name: str, start: str, **given: str) -> list[str]:
        with contextlib.chdir(built.path), command.make_context("x", [], resilient_parsing=True, obj=App()) as context:
            context.params.update(given)
            parameter = next(one for one in command.params if one.name == name)
            return complete_partition(context, parameter, start)

    assert complete(why, "partition", "2013-02-0", asset="flights") == [f"2013-02-0{day}" for day in range(1, 10)]
    assert len(complete(materialize, "partitions", "")) == 100
    assert complete(materialize, "ranges", "2013-01-01..2013-02", selection="monthly") == ["2013-01-01..2013-02-01"]
    assert complete(why, "partition", "", asset="nobody") == []


def test_dynamic_partitions(built: ProjectFolder, tmp_path: Path) -> None:
    home = ("--home", str(tmp_path))
    assert ask(built, *home, "dynamic-partitions", "ls") == {"dynamic_partitions": []}
    keys = ("ada", "-- drop table", "ada", "⚡|/..")
    added = call(built, *home, "dynamic-partitions", "add", "--json", "customers", "--", *keys).json
    assert added == {"name": "customers", "added": 3, "count": 3}
    assert ask(built, *home, "dynamic-partitions", "ls") == {"dynamic_partitions": [{"name": "customers", "count": 3}]}
    call(built, *home, "materialize", "orders", "--all-partitions")
    assert "Added 0 keys" in call(built, *home, "dynamic-partitions", "add", "customers", "ada").out
    assert ask(built, *home, "dynamic-partitions", "ls", "customers", "--offset", "1")["keys"] == [
        "-- drop table",
        "⚡|/..",
    ]
    call(built, *home, "dynamic-partitions", "remove", "customers", "ada")
    assert "has no key `ada`" in call(built, *home, "dynamic-partitions", "remove", "customers", "ada", code=2).err
    assert ask(built, *home, "partitions", "orders", "--counts")["outside"] == 1
    outside = ask(built, *home, "partitions", "orders", "--outside")
    assert [(one["partition"], one["status"]) for one in outside["partitions"]] == [("ada", None)]
    text = call(built, *home, "partitions", "orders").out
    assert "2 of 2 fresh; 1 partition outside of the definition" in text
    assert "not in the definition" in call(built, *home, "partitions", "orders", "--outside").out
    bad = call(built, *home, "dynamic-partitions", "add", "customers", "a\x1b[31m", code=3)
    assert "U+001B" in bad.err


def test_hostile_keys_everywhere(built: ProjectFolder, tmp_path: Path) -> None:
    home = ("--home", str(tmp_path))
    bad = "".join(KEYS[:8])
    failing = [key for key in KEYS if key in bad]
    write(built, bad=bad)
    run = ask(built, *home, "materialize", "together", "--all-partitions", code=4)
    assert {step["partitions"][0] for step in run["steps"]} == set(KEYS)
    ends = Counter((step["key"], step["status"]) for step in run["steps"])
    assert ends["hostile", "FAILURE"] == len(failing) == ends["together", "SKIPPED"]
    write(built, bad="")
    run_id = ask(built, *home, "run", "retry", run["run_id"])["run_id"]
    assert call(built, *home, "plan", "together").out.startswith("Nothing to do")
    for command in (
        ["partitions", "hostile", "--limit", "1000"],
        ["plan", "together", "--force"],
        ["show", "together"],
        ["versions", "hostile", "--limit", "1000"],
        ["events", "hostile"],
        ["run", "show", run_id],
        ["logs", run_id],
    ):
        call(built, *home, *command)
    named = [f"--partition={key}" for key in KEYS]
    planned = ask(built, *home, "plan", "hostile", "--force", *named)["steps"]
    assert sorted(step["partitions"][0] for step in planned) == sorted(KEYS)
    call(built, *home, "plan", "hostile", "--force", *named)
    for key in SOME_KEYS:
        assert ask(built, *home, "why", "together", f"--partition={key}")["reasons"][0]["status"] == "FRESH"
        assert ask(built, *home, "versions", "hostile", f"--partition={key}")["versions"][0]["partition"] == key
        call(built, *home, "logs", run["run_id"], f"hostile [{key}]")
    for text in ("", "\x1b[31m\u202e\0\n", "\ud800"):
        call(built, *home, "why", "hostile", f"--partition={text}", code=2)
        call(built, *home, "events", "hostile", f"--partition={text}")
        call(built, *home, "versions", "hostile", f"--partition={text}")
