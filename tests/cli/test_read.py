import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios

import pytest

from tests.project import ProjectFolder

PROJECT = """
import polars as pl
from headwater import AssetSpec, Definitions, MetadataValue, Output, TableColumnDep, asset

@asset(
    key_prefix="shop",
    group_name="core",
    owners=["team:x", "ada@example.com"],
    kinds={"polars"},
    tags={"tier": "gold"},
    metadata={"note": MetadataValue.md("## hi")},
    deps=["elsewhere"],
)
def orders() -> Output[pl.DataFrame]:
    "All orders.\\n\\nMore."
    lineage = {"amount": [TableColumnDep("elsewhere", "cents")]}
    return Output(
        pl.DataFrame({"id": [1, 2], "amount": [10.5, None]}),
        metadata={"count": 2, "from": MetadataValue.column_lineage(lineage)},
    )

@asset
def report(orders: pl.DataFrame) -> dict[str, float]:
    return {"sum": orders["amount"].sum()}
"""


@pytest.fixture
def shop(project: ProjectFolder) -> ProjectFolder:
    project.write(PROJECT)
    return project


def test_ls(shop: ProjectFolder) -> None:
    listed = shop.json("ls")["assets"]
    assert [a["key"] for a in listed] == ["shop/orders", "report"]
    orders = listed[0]
    assert orders["group"] == "core"
    assert orders["kinds"] == ["polars"]
    assert orders["owners"] == ["team:x", "ada@example.com"]
    assert orders["tags"] == {"tier": "gold"}
    assert orders["description"].startswith("All orders.")
    assert orders["deps"] == ["elsewhere"]
    assert orders["partitioned"] is False
    assert orders["code_version"]
    assert "elsewhere" in [a["key"] for a in shop.json("ls", "--external")["assets"]]
    both = shop.json("ls", "report", "group:core and kind:polars")["assets"]  # several words: any of them
    assert [a["key"] for a in both] == ["shop/orders", "report"]
    assert [a["key"] for a in shop.json("ls", "tag:tier=gold")["assets"]] == ["shop/orders"]
    assert "All orders." in shop.run("ls").out


def test_errors_point_and_suggest(shop: ProjectFolder) -> None:
    done = shop.run("ls", "grop:core", code=2)
    assert "grop:core\n  ^" in done.err
    assert "Did you mean `group`?" in done.err
    done = shop.run("show", "shop/order", code=2)
    assert "Did you mean `shop/orders`?" in done.err
    done = shop.run("statsu", code=2)
    assert "Did you mean `status`?" in done.err


def test_show(shop: ProjectFolder) -> None:
    assert shop.json("show", "shop/orders")["materialization"] is None
    shop.run("materialize")
    shown = shop.json("show", "shop/orders")
    made = shown["materialization"]
    assert made["rows"] == 2
    assert made["uri"].startswith("file://")
    assert made["metadata"]["count"] == {"kind": "int", "value": 2}
    assert [(c["name"], c["type"], c["nulls"]) for c in made["columns"]] == [
        ("id", "int64", 0),
        ("amount", "double", 1),
    ]
    assert shown["definition_metadata"]["note"] == {"kind": "md", "value": "## hi"}
    assert shown["status"] == "FRESH"
    text = shop.run("show", "shop/orders").out
    for expected in ("shop/orders", "## hi", "team:x", "amount", "elsewhere", made["version_id"]):
        assert expected in text


def test_show_of_a_failed_asset(shop: ProjectFolder) -> None:
    shop.edit('return {"sum"', 'raise ValueError("boom")\n    return {"sum"')
    run_id = shop.json("materialize", code=4)["run_id"]
    failure = shop.json("show", "report")["failure"]
    assert (failure["run_id"], failure["error"]) == (run_id, "ValueError: boom")
    assert failure["at"].endswith("Z")
    text = shop.run("show", "report").out
    assert text.count("never materialized") == 1 and text.count("(ValueError: boom)") == 1
    assert shop.json("show", "shop/orders")["failure"] is None


def test_show_of_an_asset_that_is_no_longer_defined(shop: ProjectFolder) -> None:
    shop.run("materialize")
    version = shop.json("show", "report")["materialization"]["version_id"]
    shop.edit("def report(", "def summary(")
    shop.run("materialize")
    text = shop.run("show", "report").out
    assert text.startswith("report\nno longer defined\n") and version in text
    shown = shop.json("show", "report")
    assert (shown["defined"], shown["materialization"]["version_id"]) == (False, version)
    assert [change["change"] for change in shown["definition_history"]] == ["removed", "added"]
    assert shop.json("show", "summary")["defined"] is True
    assert "E-UNKNOWN-ASSET" in shop.run("show", "repot", code=2).err


def test_times_in_metadata_are_times(shop: ProjectFolder) -> None:
    shop.edit('metadata={"count": 2,', 'metadata={"then": MetadataValue.timestamp(1.5), "count": 2,')
    shop.run("materialize", "shop/orders")
    then = {"kind": "timestamp", "value": "1970-01-01T00:00:01.500000Z"}
    assert shop.json("show", "shop/orders")["materialization"]["metadata"]["then"] == then
    assert shop.json("versions", "shop/orders")["versions"][0]["metadata"]["then"] == then


def test_options_that_make_no_sense(shop: ProjectFolder) -> None:
    """Whether anything is to be done or not."""
    for _ in range(2):
        assert "no executor 'bogus'" in shop.run("materialize", "--executor", "bogus", code=2).err
        shop.run("materialize")
    assert "--wait" in shop.run("--wait", "-1", "ls", code=2).err


def test_the_lineage_of_a_long_chain(project: ProjectFolder) -> None:
    project.write("""
        from headwater import AssetSpec, Definitions

        names = [f"a{i:04}" for i in range(3000)]
        definitions = Definitions([AssetSpec(b, deps=[a]) for a, b in zip(names, names[1:])])
        """)
    for command in (["lineage"], ["lineage", "a2999"]):
        lines = project.run(*command).out.splitlines()
        assert max(len(line) for line in lines) <= 200
        assert re.fullmatch(r" +└─ … 2,9\d\d more below", lines[-1])
    assert len(project.json("lineage")["nodes"]) == 3000


def test_a_terminal_that_does_not_know_its_width(shop: ProjectFolder) -> None:
    """It has 0 columns; 80 are as good a guess as any."""
    shop.edit("All orders.", "All orders " + "and more " * 20 + ".")
    main, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 0, 0, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "headwater", "ls"], cwd=shop.path, env=shop.environment() | {"COLUMNS": ""}, stdout=side
    )
    os.close(side)
    out = b""
    while data := read_terminal(main):
        out += data
    assert process.wait() == 0
    lines = re.sub(r"\x1b\[[0-9;]*m", "", out.decode()).splitlines()
    assert max(len(line) for line in lines) == 80


def read_terminal(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # EIO: nobody has the other side open any more
        return b""


def test_lineage(shop: ProjectFolder) -> None:
    shop.run("materialize")
    found = shop.json("lineage", "report")
    assert {n["key"] for n in found["nodes"]} == {"elsewhere", "shop/orders", "report"}
    assert {"upstream": "elsewhere", "downstream": "shop/orders"} in found["edges"]
    assert found["column_edges"] == [
        {
            "upstream": "elsewhere",
            "upstream_column": "cents",
            "downstream": "shop/orders",
            "downstream_column": "amount",
            "source": "declared",
        }
    ]
    assert {n["key"] for n in shop.json("lineage", "report", "--up", "1")["nodes"]} == {"shop/orders", "report"}
    assert '"shop/orders" -> "report"' in shop.run("lineage", "--format", "dot").out
    assert "graph LR" in shop.run("lineage", "--format", "mermaid").out
    tree = shop.run("lineage", "report").out
    assert tree.index("shop/orders") < tree.index("elsewhere")


def test_status_and_why(shop: ProjectFolder) -> None:
    assert shop.run("status", "--check", code=1).code == 1
    shop.run("materialize")
    shop.run("status", "--check")
    shop.edit("[10.5, None]", "[10.5, 1.0]")
    status = {a["key"]: a for a in shop.json("status", code=0)["assets"]}
    assert status["shop/orders"]["cells"] == {"fresh": 0, "stale": 1, "missing": 0, "failed": 0, "total": 1}
    reasons = {r["key"]: r for r in shop.json("why", "report")["reasons"]}
    assert reasons["report"]["because"] == [{"key": "shop/orders", "partition": None}]
    assert reasons["shop/orders"]["causes"][0]["kind"] == "code_changed"
    assert "code changed" in shop.run("why", "report").out
    shop.run("materialize", "shop/orders")
    cause = {a["key"]: a for a in shop.json("status")["assets"]}["report"]["causes"][0]
    assert (cause["kind"], cause["upstream"], cause["columns"]) == ("upstream_data_changed", "shop/orders", ["amount"])


def test_versions(shop: ProjectFolder) -> None:
    shop.run("materialize")
    shop.edit("[10.5, None]", "[10.5, 1.0]")
    shop.run("materialize")
    found = shop.json("versions", "shop/orders")["versions"]
    assert [v["current"] for v in found] == [True, False]
    assert found[0]["data_version"] != found[1]["data_version"]
    assert shop.run("versions", "nope", code=2).code == 2


def test_runs_and_events(shop: ProjectFolder) -> None:
    run_id = shop.json("materialize", "--tag", "why=test")["run_id"]
    run = shop.json("run", "show", run_id[:13])
    assert run["tags"] == {"why": "test"}
    assert run["started"].endswith("Z")
    kinds = [e["kind"] for e in shop.json("events")["events"]]
    assert kinds[:4] == ["DEFINITIONS_CHANGED"] * 3 + ["RUN_START"]
    assert kinds[-1] == "RUN_SUCCESS"
    assert kinds.count("ASSET_MATERIALIZATION") == 2
    about = shop.json("events", "report")["events"]
    assert {"STEP_START", "STEP_SUCCESS", "ASSET_MATERIALIZATION"} <= {e["kind"] for e in about}
    assert shop.json("events", run_id)["events"][0]["run_id"] == run_id
    assert shop.json("runs", "--status", "failure")["runs"] == []
    assert "no run" in shop.run("run", "show", "ffffffff", code=2).err


def test_search(shop: ProjectFolder) -> None:
    shop.run("materialize")
    for text, where in (
        ("ORDER", "key"),
        ("amount", "column"),
        ("gold", "tag"),
        ("ada@", "owner"),
        ("## hi", "metadata"),
    ):
        matches = shop.json("search", text)["assets"]
        assert any(m["where"] == where for a in matches for m in a["matches"]), (text, matches)
    assert shop.json("search", "nothing like it")["assets"] == []


def test_sql(shop: ProjectFolder) -> None:
    shop.run("materialize")
    rows = shop.json("sql", "select asset, rows from materializations order by asset")["rows"]
    assert rows == [{"asset": "report", "rows": None}, {"asset": "shop/orders", "rows": 2}]
    assert shop.json("sql", 'select sum(amount) as s from "shop/orders"')["rows"] == [{"s": 10.5}]
    assert shop.run("sql", 'select id from "shop/orders" order by id', "--csv").out == "id\n1\n2\n"
    for attack in (
        "drop table event",
        "insert into run select * from run",
        "copy (select 1) to '/tmp/headwater-must-not-exist.csv'",
        "attach '/tmp/x.duckdb'",
        "set memory_limit='1GB'",
        "select 1; drop view runs",
        "delete from event",
        "selec 1",
    ):
        done = shop.run("sql", attack, code=2)
        assert done.err.startswith("Error"), attack
    assert shop.json("sql", "select count(*) as n from runs")["rows"] == [{"n": 1}]


def test_sql_as_json_is_json_and_drops_nothing(shop: ProjectFolder) -> None:
    """Also before anything is built."""
    assert shop.json("sql", "select * from materializations")["rows"] == []
    odd = "'nan'::double as a, '-inf'::float as a, 1 as a_1, map([date '2020-01-01'], ['inf'::double]) as m"
    done = shop.run("sql", f"select {odd}", "--json")
    document = json.loads(done.out, parse_constant=lambda text: pytest.fail(f"{text} is no JSON"))
    assert document["columns"] == ["a", "a_2", "a_1", "m"]
    assert document["rows"] == [{"a": "NaN", "a_2": "-Infinity", "a_1": 1, "m": {"2020-01-01": "Infinity"}}]


def test_help_has_examples_and_completion_scripts_work(shop: ProjectFolder) -> None:
    commands = ["init", "ls", "show", "search", "lineage", "status", "why", "plan", "materialize", "runs", "events"]
    assert all(command in shop.run("--help").out for command in [*commands, "logs", "versions", "sql"])
    for command in ["ls", "materialize", "sql", "lineage"]:
        assert "Examples:" in shop.run(command, "--help").out
    for shell in ("bash", "zsh", "fish"):
        assert "_HEADWATER_COMPLETE" in shop.run("completion", shell).out
    shop.env.update(_HEADWATER_COMPLETE="bash_complete", COMP_WORDS="headwater show sh", COMP_CWORD="2")
    assert shop.run().out.split() == ["plain,shop/orders"]


def test_init_makes_a_project_that_runs(project: ProjectFolder) -> None:
    done = project.run("init", "fresh")
    assert "headwater materialize" in done.out
    fresh = ProjectFolder(project.path / "fresh")
    assert set(fresh.built().values()) == {"SUCCESS"}
    assert fresh.json("sql", "select max(square) as m from squares")["rows"] == [{"m": 10000}]
    assert "is there already" in project.run("init", "fresh", code=2).err


def test_there_is_help_where_there_is_no_project(tmp_path: object, project: ProjectFolder) -> None:
    (project.path / "headwater.toml").unlink()
    done = project.run("ls", code=2)
    assert "headwater init" in done.err


def test_broken_definitions_show_the_users_traceback(project: ProjectFolder) -> None:
    project.write("""
        from headwater import asset

        def boom():
            raise RuntimeError("bad import")

        boom()
        """)
    done = project.run("ls", code=3)
    assert "RuntimeError: bad import" in done.err
    assert 'assets.py", line 6' in done.err
    assert "importlib" not in done.err


def test_json_documents_are_safe_on_a_terminal(project: ProjectFolder) -> None:
    project.write("""
        from headwater import asset

        @asset(description="bad \\x1b]52;c;eA==\\x07 \\u202e text")
        def one() -> str:
            return "x"
        """)
    for arguments in (["ls"], ["show", "one"], ["search", "bad"]):
        for extra in ([], ["--json"]):
            out = project.run(*arguments, *extra).out
            assert not set(out) & {"\x1b", "\x07", "\u202e"}, arguments
    assert json.loads(project.run("ls", "--json").out)["assets"][0]["description"].startswith("bad \x1b")
