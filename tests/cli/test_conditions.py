"""Conditions on the command line, with real processes."""

import pytest

from tests.project import ProjectFolder

ASSETS = """
from headwater import AutomationCondition, Definitions, asset

@asset
def orders() -> int:
    return ROWS

@asset(automation_condition=AutomationCondition.eager())
def revenue(orders: int) -> int:
    return orders

definitions = Definitions([orders, revenue])
"""


@pytest.fixture
def shop(project: ProjectFolder) -> ProjectFolder:
    project.write(ASSETS.replace("ROWS", "1"))
    return project


def test_conditions_are_started_and_what_they_request_is_built_and_explained(shop: ProjectFolder) -> None:
    listed = shop.json("conditions")
    assert (listed["status"], [one["key"] for one in listed["conditions"]]) == ("STOPPED", ["revenue"])
    assert listed["conditions"][0]["label"] == "eager"
    assert "`headwater conditions start` starts them" in shop.run("conditions").err
    shop.run("materialize")
    assert shop.json("tick")["ticks"] == []
    assert shop.json("conditions", "start")["status"] == "RUNNING"
    assert {one["status"] for one in shop.json("tick")["ticks"]} == {"SKIPPED"}
    shop.write(ASSETS.replace("ROWS", "2"))
    shop.run("materialize", "orders")
    (done,) = shop.json("tick")["ticks"]
    assert (done["name"], done["status"], len(done["run_ids"])) == ("default_automation_condition_sensor", "SUCCESS", 1)
    shop.run("run", "wait", done["run_ids"][0])
    assert shop.json("run", "show", done["run_ids"][0])["selection"] == "revenue"
    assert shop.statuses() == {"orders": "FRESH", "revenue": "FRESH"}
    shown = shop.json("why", "revenue", "--automation", "--at", done["evaluated"])
    assert (shown["key"], shown["requested"], shown["parts"][0]["true"]) == ("revenue", 1, 1)
    updated = next(part for part in shown["parts"] if part["condition"] == "newly_updated()")
    assert (updated["asset"], updated["true"], updated["of"]) == ("orders", 1, 1)
    told = shop.run("why", "revenue", "--automation")
    assert told.out.splitlines()[:3] == ["TRUE  CONDITION", "no    eager: all of", "yes     in_latest_time_window()"]
    assert "0 cells of revenue would be requested now." in told.err
    assert shop.run("conditions", "stop").err == "Conditions are STOPPED.\n"


def test_what_makes_no_sense_is_refused(shop: ProjectFolder) -> None:
    assert "`orders` has no condition" in shop.run("why", "orders", "--automation", code=2).err
    assert "was not evaluated by" in shop.run("why", "revenue", "--automation", "--at", "2024-01-01", code=2).err
    assert "--at says as of when" in shop.run("why", "revenue", "--at", "2024-01-01", code=2).err
