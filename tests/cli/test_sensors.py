"""Sensors on the command line, with real processes that are really killed."""

import signal

import psutil
import pytest

from tests.project import ProjectFolder

ASSETS = """
import os, pathlib
import psutil
from headwater import Config, Definitions, RunRequest, SensorResult, SkipReason, asset, define_asset_job, sensor

here = pathlib.Path(__file__).parent

class Source(Config):
    file_path: str = ""

@asset
def process_recipe(config: Source) -> str:
    return config.file_path

process_new_recipes_job = define_asset_job("process_new_recipes", "process_recipe")

@sensor(
    job=process_new_recipes_job,
    minimum_interval_seconds=60
)
def new_recipe_sensor(context):
    \"\"\"Looks for recipes.\"\"\"
    files = list(here.glob("new_recipes/*.json"))
    if not files:
        return SensorResult(skip_reason="no new recipes")

    # The newest one.
    newest_file = max(files, key=os.path.getctime)
    context.update_cursor(os.path.basename(newest_file))
    print("found", newest_file.name)
    return RunRequest(
        run_key=os.path.basename(newest_file),
        run_config={"ops": {"process_recipe": {"config": {"file_path": str(newest_file)}}}}
    )

@sensor(job="process_new_recipes", minimum_interval_seconds=1)
def kills(context):
    if not (here / "spared").exists():
        (here / "spared").write_text(str(os.getpid()))
        psutil.Process(os.getppid()).parent().kill()
    return SensorResult([RunRequest(run_key="once")], cursor="after")

definitions = Definitions([process_recipe], sensors=[new_recipe_sensor, kills])
"""


@pytest.fixture
def recipes(project: ProjectFolder) -> ProjectFolder:
    project.write(ASSETS)
    return project


def test_a_sensor_is_started_previewed_evaluated_and_its_runs_are_carried_out(recipes: ProjectFolder) -> None:
    _, described = recipes.json("sensors")["sensors"]
    assert (described["name"], described["jobs"]) == ("new_recipe_sensor", ["process_new_recipes"])
    assert (described["status"], described["next"]) == ("STOPPED", None)
    assert recipes.json("sensors", "start", "new_recipe_sensor")["status"] == "RUNNING"
    (skipped,) = recipes.json("tick")["ticks"]
    assert (skipped["status"], skipped["reason"]) == ("SKIPPED", "no new recipes")
    recipes.write("{}", "new_recipes/cake.json")
    shown = recipes.json("sensors", "preview", "new_recipe_sensor")
    assert [one["run_key"] for one in shown["requests"]] == ["cake.json"]
    assert (shown["cursor"], shown["printed"]) == ("cake.json", "found cake.json\n")
    assert recipes.json("sensors", "cursor", "new_recipe_sensor", "--set", "begin")["cursor"] == "begin"
    assert "at once" in recipes.run("sensors").out
    done = recipes.json("tick")
    (run_id,) = done["launched"]
    assert done["ticks"][0]["run_keys"] == {"cake.json": run_id}
    recipes.run("run", "wait", run_id)
    (stored,) = (recipes.path / ".headwater" / "data" / "process_recipe").iterdir()
    assert "new_recipes/cake.json" in stored.read_text()
    assert recipes.run("sensors", "stop", "new_recipe_sensor").out == "STOPPED  new_recipe_sensor\n"


def test_who_is_killed_while_a_sensor_is_evaluated_leaves_everything_to_the_next_one(recipes: ProjectFolder) -> None:
    recipes.run("sensors", "start", "kills")
    assert recipes.run("tick", code=None).code == -signal.SIGKILL
    assert recipes.json("sensors", "cursor", "kills")["cursor"] is None
    evaluator = int((recipes.path / "spared").read_text())
    assert not psutil.pid_exists(evaluator) or psutil.Process(evaluator).status() == psutil.STATUS_ZOMBIE
    done = recipes.json("tick")
    assert [one["status"] for one in done["ticks"]] == ["SUCCESS"]
    (run,) = recipes.json("runs")["runs"]
    assert run["run_id"] == done["launched"][0]
    assert recipes.json("sensors", "cursor", "kills")["cursor"] == "after"
    recipes.run("run", "wait", run["run_id"])


def test_names_and_options_that_make_no_sense(recipes: ProjectFolder) -> None:
    assert "Did you mean `kills`?" in recipes.run("sensors", "start", "kill", code=2).err
    assert "--set and --reset" in recipes.run("sensors", "cursor", "kills", "--set", "1", "--reset", code=2).err
    assert "There is no schedule or sensor `kill`." in recipes.run("ticks", "kill", code=2).err
