from pathlib import Path

import pytest

from tests.project import ProjectFolder

CHAIN = """
import polars as pl
from headwater import asset

@asset(group_name="core", owners=["team:x"], kinds={"polars"}, tags={"tier": "gold"})
def raw() -> pl.DataFrame:
    "Where it begins."
    return pl.DataFrame({"a": [1, 2, 3], "b": ["x", "y", None]})

@asset
def cleaned(raw: pl.LazyFrame) -> pl.LazyFrame:
    return raw.filter(pl.col("b").is_not_null())

@asset
def total(cleaned: pl.DataFrame) -> int:
    print("summing up")
    return int(cleaned["a"].sum())
"""


@pytest.fixture
def chain(project: ProjectFolder) -> ProjectFolder:
    project.write(CHAIN)
    return project


def test_a_second_materialize_runs_nothing(chain: ProjectFolder) -> None:
    first = chain.json("materialize")
    assert first["status"] == "SUCCESS"
    assert [(s["key"], s["status"], s["rows"]) for s in first["steps"]] == [
        ("raw", "SUCCESS", 3),
        ("cleaned", "SUCCESS", 2),
        ("total", "SUCCESS", None),
    ]
    second = chain.json("materialize")
    nothing: dict[str, list[str]] = {"steps": [], "waiting": [], "absent": [], "impossible": []}
    assert second == {"run_id": None, "status": "SUCCESS", **nothing}
    assert chain.json("plan")["steps"] == []


def test_comments_docstrings_and_formatting_make_nothing_stale(chain: ProjectFolder) -> None:
    chain.built()
    chain.edit('    "Where it begins."\n', '    """Where it all begins."""\n    # a comment\n\n')
    chain.edit("    return raw.filter(", "    return (raw).filter(  # another\n        ")
    assert set(chain.statuses().values()) == {"FRESH"}
    assert chain.built() == {}


def test_changed_code_with_equal_output_rebuilds_that_asset_alone(chain: ProjectFolder) -> None:
    chain.built()
    chain.edit('pl.col("b").is_not_null()', '~pl.col("b").is_null()')
    status = {a["key"]: a for a in chain.json("status")["assets"]}
    assert (status["cleaned"]["status"], status["cleaned"]["causes"][0]["kind"]) == ("STALE", "code_changed")
    assert (status["total"]["status"], status["total"]["causes"][0]["kind"]) == ("STALE", "upstream_stale")
    assert status["total"]["causes"][0]["upstream"] == "cleaned"
    assert chain.built() == {"cleaned": "SUCCESS", "total": "VERIFIED"}
    assert set(chain.statuses().values()) == {"FRESH"}


def test_changed_output_rebuilds_what_depends_on_it(chain: ProjectFolder) -> None:
    chain.built()
    chain.edit('.filter(pl.col("b").is_not_null())', '.filter(pl.col("a") > 1)')
    assert chain.built() == {"cleaned": "SUCCESS", "total": "SUCCESS"}


def test_plan_prints_what_materialize_does(chain: ProjectFolder) -> None:
    planned = chain.json("plan")["steps"]
    assert [s["key"] for s in planned] == ["raw", "cleaned", "total"]
    assert all(s["reason"] == "never materialized" for s in planned)
    assert [s["key"] for s in chain.json("materialize")["steps"]] == [s["key"] for s in planned]
    assert "everything selected is fresh" in chain.run("plan").out
    assert "no asset is selected" in chain.run("plan", "group:nobody").out


def test_a_selection_also_builds_its_stale_upstream(chain: ProjectFolder) -> None:
    assert list(chain.built("cleaned")) == ["raw", "cleaned"]
    assert chain.statuses() == {"raw": "FRESH", "cleaned": "FRESH", "total": "MISSING"}


def test_without_upstream_a_missing_input_is_refused_before_anything_runs(chain: ProjectFolder) -> None:
    done = chain.run("materialize", "total", "--no-upstream", code=2)
    assert "`total` reads `cleaned`, which was never materialized" in done.err
    assert chain.json("runs")["runs"] == []


def test_force_builds_what_is_fresh(chain: ProjectFolder) -> None:
    chain.built()
    assert chain.built("raw", "--force") == {"raw": "SUCCESS"}
    assert chain.built() == {}, "the same data again makes nothing stale"


def test_only_missing_rebuilds_nothing_that_exists(chain: ProjectFolder) -> None:
    chain.built("cleaned")
    chain.edit("[1, 2, 3]", "[1, 2, 4]")
    assert chain.built("--only-missing") == {"total": "SUCCESS"}


def test_a_failing_step_skips_its_downstream_and_keeps_the_rest(project: ProjectFolder) -> None:
    project.write("""
        from headwater import asset

        @asset
        def good() -> int:
            return 1

        @asset
        def bad() -> int:
            raise ValueError("no \\x1b[31mdata\\x1b[0m today")

        @asset
        def after_bad(bad: int) -> int:
            return bad

        @asset
        def after_good(good: int) -> int:
            return good
        """)
    done = project.run("materialize", code=4)
    assert "ValueError: no \\x1b[31mdata" in done.err, "escapes are shown, not obeyed"
    assert "\x1b" not in done.out + done.err
    assert 'raise ValueError("no' in done.err, "the user's own line is in the traceback"
    assert "headwater/materialize" not in done.err, "ours is not"
    run = project.json("runs")["runs"][0]
    assert run["status"] == "FAILURE"
    assert {s["key"]: s["status"] for s in run["steps"]} == {
        "good": "SUCCESS",
        "bad": "FAILURE",
        "after_bad": "SKIPPED",
        "after_good": "SUCCESS",
    }
    cells = {asset["key"]: asset for asset in project.json("status")["assets"]}
    assert cells["bad"]["cells"] == {"fresh": 0, "stale": 0, "missing": 1, "failed": 1, "total": 1}
    assert cells["bad"]["failure"]["run_id"] == run["run_id"]
    assert cells["after_bad"]["failure"] is None, "it was never tried"
    assert [asset["key"] for asset in project.json("ls", "failed:")["assets"]] == ["bad"]
    assert "(ValueError: no \\x1b[31m" in project.run("status").out
    project.edit('raise ValueError("no \\x1b[31mdata\\x1b[0m today")', "return 2")
    retried = project.json("run", "retry", run["run_id"])
    assert {s["key"]: s["status"] for s in retried["steps"]} == {"bad": "SUCCESS", "after_bad": "SUCCESS"}
    assert project.json("ls", "failed:")["assets"] == []


def test_an_optional_output_that_is_left_out_stays_out(project: ProjectFolder) -> None:
    project.write("""
        from headwater import AssetOut, Output, asset, multi_asset

        MAKE_BOTH = False

        @multi_asset(outs={"always": AssetOut(), "sometimes": AssetOut(is_required=False)})
        def two():
            yield Output(1, "always")
            if MAKE_BOTH:
                yield Output(2, "sometimes")

        @asset
        def after(sometimes: int) -> int:
            return sometimes
        """)
    first = project.run("materialize")
    assert "- sometimes  optional, and not made" in first.err
    second = project.run("materialize")
    assert "Nothing to do." in second.out
    assert "left out an optional output: sometimes, after." in second.err
    assert project.json("materialize")["absent"] == ["sometimes", "after"]
    project.run("status", "always or sometimes", "--check")
    assert project.statuses() == {"always": "FRESH", "sometimes": "MISSING", "after": "MISSING"}
    project.edit("MAKE_BOTH = False", "MAKE_BOTH = True")
    assert project.built() == {"always": "SUCCESS", "sometimes": "SUCCESS", "after": "SUCCESS"}


def test_what_steps_print_is_kept_by_step(chain: ProjectFolder) -> None:
    run_id = chain.json("materialize")["run_id"]
    assert "summing up" in chain.run("logs", run_id).out
    assert chain.run("logs", run_id[:13], "total", "--stream", "stdout").out.splitlines()[-1] == "summing up"
    assert chain.run("logs", run_id, "raw").err.strip() == "Nothing was printed."
    assert "no step" in chain.run("logs", run_id, "nope", code=2).err


TRIED = """
import sys
from headwater import ConfigurableResource, Definitions, RetryPolicy, asset

class Database(ConfigurableResource):
    def setup_for_execution(self, context):
        print("setting up")

    def teardown_after_execution(self, context):
        print("tearing down")

@asset(retry_policy=RetryPolicy(max_retries=1))
def flaky(context, database: Database) -> int:
    print("try", context.retry_number + 1)
    if context.retry_number == 0:
        print("bad luck", file=sys.stderr)
        raise ValueError("again")
    return 1

@asset
def once() -> int:
    print("once")
    return 1

definitions = Definitions([flaky, once], resources={"database": Database()})
"""


@pytest.mark.parametrize("executor", ["in_process", "threads"])
def test_what_every_attempt_and_resource_prints_is_kept(project: ProjectFolder, executor: str) -> None:
    project.write(TRIED)
    run_id = project.json("materialize", "--executor", executor)["run_id"]
    tried = [
        "── flaky, attempt 1 stdout ──",
        "try 1",
        "── flaky, attempt 1 stderr ──",
        "bad luck",
        "── flaky, attempt 2 stdout ──",
        "try 2",
    ]
    rest = ["── (no step) stdout ──", "setting up", "tearing down"]
    once = ["── once stdout ──", "once"]
    assert project.run("logs", run_id).out.splitlines() == [*rest, *tried, *once]
    assert project.run("logs", run_id, "flaky").out.splitlines() == tried
    told = project.json("logs", run_id)
    assert told["run"] == {"stdout": "setting up\ntearing down\n", "stderr": ""}
    assert told["steps"][0] == {"key": "flaky", "stdout": "try 1\ntry 2\n", "stderr": "bad luck\n"}


def test_config_is_checked_before_anything_runs(project: ProjectFolder) -> None:
    project.write("""
        from headwater import Config, asset

        class Limits(Config):
            top: int = 10

        @asset
        def best(config: Limits) -> int:
            return config.top
        """)
    bad = project.path / "bad.json"
    bad.write_text('{"ops": {"best": {"config": {"top": "ten"}}}}')
    done = project.run("materialize", "--config", str(bad), code=2)
    assert "ops:best:config:top" in done.err
    assert project.json("runs")["runs"] == []
    good = project.path / "good.toml"
    good.write_text("[ops.best.config]\ntop = 3\n")
    assert project.built("--config", str(good)) == {"best": "SUCCESS"}
    status = project.json("status")["assets"][0]
    assert (status["status"], status["causes"][0]["kind"]) == ("STALE", "config_changed")
    assert project.built("--config", str(good)) == {}


def test_threads_build_the_same(chain: ProjectFolder) -> None:
    assert chain.built("--executor", "threads", "--max-workers", "3") == dict.fromkeys(
        ("raw", "cleaned", "total"), "SUCCESS"
    )
    assert "There is no executor 'nope'" in chain.run("materialize", "--force", "--executor", "nope", code=2).err


def test_reading_commands_make_no_home(chain: ProjectFolder) -> None:
    for command in (["ls"], ["status"], ["plan"], ["runs"], ["events"], ["lineage"], ["show", "raw"], ["why", "raw"]):
        chain.run(*command)
        chain.run(*command, "--json")
    assert not (chain.path / ".headwater").exists()


def test_the_home_can_be_elsewhere(chain: ProjectFolder, tmp_path: Path) -> None:
    chain.run("--home", str(tmp_path / "one"), "materialize")
    assert (tmp_path / "one" / "catalog.duckdb").exists()
    chain.env["HEADWATER_HOME"] = str(tmp_path / "two")
    assert chain.statuses()["raw"] == "MISSING"
    assert not (chain.path / ".headwater").exists()


def test_json_is_alone_on_stdout(project: ProjectFolder) -> None:
    project.write("""
        import sys
        from headwater import asset
        print("printed while importing")

        @asset
        def one() -> int:
            print("printed while running")
            return 1
        """)
    done = project.run("materialize", "--json")
    assert done.json["steps"][0]["key"] == "one"
    assert "printed while importing" in done.err
