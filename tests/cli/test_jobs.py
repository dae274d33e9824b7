"""`jobs` and `materialize --job`, as commands."""

import pytest

from tests.project import ProjectFolder

ASSETS = """
from headwater import DailyPartitionsDefinition, asset, define_asset_job

@asset
def orders() -> int:
    return 1

@asset
def report(orders: int) -> int:
    return orders

@asset(partitions_def=DailyPartitionsDefinition("2024-01-01", end_date="2024-01-05"))
def visits() -> int:
    return 1

nightly = define_asset_job("nightly", "orders or report", description="What people look at.", tags={"team": "core"})
daily = define_asset_job("daily", visits)
"""


@pytest.fixture
def jobs(project: ProjectFolder) -> ProjectFolder:
    project.write(ASSETS)
    return project


def test_jobs_are_listed(jobs: ProjectFolder) -> None:
    found = {job["name"]: job for job in jobs.json("jobs")["jobs"]}
    assert list(found) == ["daily", "nightly"]
    assert found["nightly"]["selection"] == "orders or report"
    assert found["nightly"]["tags"] == {"team": "core"}
    assert "daily from 2024-01-01" in found["daily"]["partitions"]
    assert "What people look at." in jobs.run("jobs").out


def test_a_job_is_planned_and_run_and_its_runs_are_found(jobs: ProjectFolder) -> None:
    assert [step["key"] for step in jobs.json("plan", "--job", "nightly")["steps"]] == ["orders", "report"]
    assert jobs.built("--job", "nightly") == {"orders": "SUCCESS", "report": "SUCCESS"}
    assert jobs.built("--job", "nightly") == {"orders": "SUCCESS", "report": "VERIFIED"}
    (newest, _) = jobs.json("runs", "--job", "nightly")["runs"]
    assert (newest["job"], newest["tags"]) == ("nightly", {"team": "core"})
    assert "(job nightly)" in jobs.run("runs").out


def test_a_partition_of_a_job_in_a_process_of_its_own(jobs: ProjectFolder) -> None:
    run = jobs.json("materialize", "--job", "daily", "--partition", "2024-01-02", "--detach")
    jobs.run("run", "wait", run["run_id"])
    shown = jobs.json("run", "show", run["run_id"])
    assert (shown["job"], [step["partitions"] for step in shown["steps"]]) == ("daily", [["2024-01-02"]])


def test_a_job_that_is_not_there(jobs: ProjectFolder) -> None:
    done = jobs.run("materialize", "--job", "nigthly", code=2)
    assert "There is no job `nigthly`." in done.err
    assert "nightly" in done.err
