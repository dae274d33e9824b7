"""Freshness and reports on the command line."""

import json

import pytest

from tests.project import ProjectFolder
from tests.receivers import web_server

ASSETS = """
from datetime import timedelta
from headwater import AssetSpec, DailyPartitionsDefinition, Definitions, FreshnessPolicy, asset

a_day = FreshnessPolicy.time_window(timedelta(hours=24), timedelta(hours=12))
raw = AssetSpec("raw", freshness_policy=a_day)
days = AssetSpec("days", partitions_def=DailyPartitionsDefinition("2024-01-01"))

@asset(deps=["raw"], freshness_policy=a_day)
def orders() -> int:
    return 1

@asset(deps=["orders", "days"])
def totals() -> int:
    return 1

definitions = Definitions([raw, days, orders, totals])
"""


@pytest.fixture
def shop(project: ProjectFolder) -> ProjectFolder:
    project.write(ASSETS)
    return project


def test_what_is_reported_is_fresh_until_it_is_too_old(shop: ProjectFolder) -> None:
    assert shop.json("freshness")["assets"][0]["state"] == "UNKNOWN"
    assert shop.run("freshness", "--check").code == 0
    made = shop.json("report", "raw", "--at", "2024-03-09T12:00:00Z", "--data-version", "1", "--metadata", "rows=5")
    assert made["version"]["metadata"]["rows"]["value"] == 5
    raw, orders = shop.json("freshness", "raw+")["assets"]
    assert (raw["key"], raw["state"], raw["fails_at"]) == ("raw", "FAIL", "2024-03-10T12:00:00.000000Z")
    assert raw["policy"] == {"kind": "time_window", "fail_window": 86400.0, "warn_window": 43200.0}
    assert orders["state"] == "UNKNOWN"
    assert shop.run("freshness", "--check", code=1).code == 1
    assert "FAIL" in shop.run("freshness", "raw").out
    shop.run("materialize")
    orders, totals = shop.json("status")["assets"]
    assert orders["freshness"]["state"] == "PASS"
    assert "freshness" not in totals
    assert "FRESHNESS" in shop.run("status").out
    assert "FRESHNESS" not in shop.run("status", "totals").out
    assert "fails in 23 h" in shop.run("freshness", "orders").out or "warns in 11 h" in shop.run("freshness").out
    assert shop.run("report", "raw", "--observed", "--data-version", "1").out.startswith("UNCHANGED")
    assert shop.run("report", "raw", "--data-version", "2").out.startswith("RECORDED  raw  version ")
    assert {one["status"] for one in shop.json("status")["assets"]} == {"STALE"}
    assert len(shop.json("versions", "raw")["versions"]) == 2
    done = shop.json("tick")
    assert [(one["asset"], one["state"]) for one in done["freshness"]] == [("raw", "PASS"), ("orders", "PASS")]
    assert shop.json("tick")["freshness"] == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["rew"], "No asset `rew`"),
        (["raw", "--partition", "x"], "not partitioned"),
        (["days", "--partition", "1999-01-01"], "days"),
        (["raw", "--at", "yesterday"], "--at yesterday is no time"),
        (["raw", "--metadata", "x"], "is no metadata"),
        (["raw", "--observed"], "which data version"),
    ],
)
def test_a_report_that_makes_no_sense_is_refused(shop: ProjectFolder, arguments: list[str], words: str) -> None:
    done = shop.run("report", *arguments, code=2)
    assert words in done.err
    assert "Traceback" not in done.err


def test_sources_are_observed_in_processes_of_their_own(shop: ProjectFolder) -> None:
    shop.edit(
        "definitions = ",
        """
from pathlib import Path
from headwater import DataVersion, observable_source_asset

@observable_source_asset(auto_observe_interval_minutes=5)
def file():
    print("looking")
    return DataVersion((Path(__file__).parent / "version").read_text())

@asset(deps=["file"])
def copy() -> int:
    return 1

definitions = """,
    )
    shop.edit("orders, totals]", "orders, totals, file, copy]")
    version = shop.path / "version"
    version.write_text("1")
    (step,) = shop.json("observe")["steps"]
    assert (step["key"], step["status"]) == ("file", "SUCCESS")
    shop.run("materialize", "copy")
    assert shop.run("status", "copy", "--check").code == 0
    version.write_text("2")
    (run_id,) = shop.json("tick")["launched"]
    shop.run("run", "wait", run_id)
    assert shop.json("why", "copy")["reasons"][0]["causes"][0]["text"] == "file has new data"
    assert "looking" in shop.run("logs", run_id).out
    assert shop.json("ticks")["ticks"][0]["name"] == "observe:file"
    assert "Nothing that is selected can be observed" in shop.run("observe", "raw", code=2).err


def test_an_alert_is_raised_and_delivered_by_ticks(shop: ProjectFolder) -> None:
    with web_server() as hook:
        shop.env["HOOK"] = hook.url
        shop.edit(
            "definitions = ",
            """
from headwater import AlertPolicy, EnvVar, WebhookTarget

@asset
def broken() -> int:
    raise RuntimeError("no bread")

on_call = AlertPolicy("on_call", "run_failure", WebhookTarget(EnvVar("HOOK")))
definitions = """,
        )
        shop.edit("orders, totals]", "orders, totals, broken], alerts=[on_call]")
        assert shop.json("alerts") == {"alerts": []}
        assert shop.json("alerts", "ls")["policies"][0]["targets"] == ["webhook env:HOOK"]
        assert shop.json("alerts", "test", "on_call")["targets"] == [{"to": "webhook env:HOOK", "error": None}]
        assert json.loads(hook.told.get(timeout=30)[1])["event"] == "test"
        shop.run("tick")
        shop.run("materialize", "broken", code=4)
        hook.statuses = [503]
        (raised,) = shop.json("tick")["alerts"]
        (one,) = shop.json("alerts")["alerts"]
        assert (one["id"], one["status"], one["attempts"]) == (raised["id"], "PENDING", 1)
        assert one["error"] == "DeliveryFailed: it answered 503"
        told = json.loads(hook.told.get(timeout=30)[1])
        assert (told["id"], told["run_id"]) == (one["id"], one["run_id"])
        assert "RuntimeError: no bread" in told["text"]
        assert "it answered 503" in shop.run("alerts").out
        hook.statuses = [500]
        assert "it answered 500" in shop.run("alerts", "test", "on_call", code=1).out
        assert "`on_call`" in shop.run("alerts", "test", "oncall", code=2).err
        found = shop.json("sql", "select policy, status, attempts from alerts")
        assert found["rows"] == [{"policy": "on_call", "status": "PENDING", "attempts": 1}]
