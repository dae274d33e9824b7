"""What was made or seen elsewhere is a version like any other."""

from datetime import UTC, datetime, timedelta

import pytest

from headwater import (
    AssetMaterialization,
    AssetObservation,
    AssetSpec,
    DailyPartitionsDefinition,
    Definitions,
    Instance,
    asset,
    materialize,
    report,
)
from headwater.catalog.errors import UnknownAssetError, UnknownPartitionError, UsageError, UserCodeError
from headwater.catalog.keys import AssetKey
from headwater.catalog.records import RunStatus, StepStatus
from headwater.materialize.reader import Reader
from headwater.materialize.reporting import REPORTED

DAYS = DailyPartitionsDefinition("2024-01-01")
RAW, DAILY = AssetSpec("raw"), AssetSpec("daily", partitions_def=DAYS)


@asset(deps=["raw", "daily"])
def orders() -> int:
    return 1


@asset(deps=["orders"])
def totals() -> None: ...


DEFINITIONS = Definitions([RAW, DAILY, orders, totals])


def statuses(instance: Instance) -> dict[str, str]:
    found = Reader(DEFINITIONS.graph, instance.catalog, instance.clock.now()).statuses()
    return {str(key): str(status) for key, status in found.items()}


def test_another_data_version_of_a_source_makes_what_reads_it_stale() -> None:
    with Instance.ephemeral() as instance:

        def say(version: str | None, *, partition: str | None = None) -> dict[str, str]:
            key = "raw" if partition is None else "daily"
            event = AssetMaterialization(key, partition=partition, data_version=version)
            report(event, instance=instance, definitions=DEFINITIONS)
            return statuses(instance)

        say("1")
        materialize(DEFINITIONS, instance=instance)
        fresh = {"orders": "FRESH", "totals": "FRESH"}
        assert say("1") == fresh
        assert say("2") == {"orders": "STALE", "totals": "STALE"}
        (cause,) = Reader(DEFINITIONS.graph, instance.catalog, instance.clock.now()).status(AssetKey("orders")).causes
        assert str(cause) == "raw has new data"
        materialize(DEFINITIONS, instance=instance)
        assert statuses(instance) == fresh
        assert say("x", partition="2024-01-02")["orders"] == "STALE"
        materialize(DEFINITIONS, instance=instance)
        assert say("x", partition="2024-01-02") == fresh
        assert say(None)["orders"] == "STALE"  # nobody knows what it holds


def test_a_report_of_a_computed_asset_makes_it_fresh() -> None:
    at = datetime(2024, 3, 9, 12, tzinfo=UTC)
    with Instance.ephemeral() as instance:
        raw = report(AssetMaterialization("raw", data_version="1"), instance=instance, definitions=DEFINITIONS)
        event = AssetMaterialization("orders", data_version="v", metadata={"rows": 5}, tags={"by": "spark"})
        made = report(event, instance=instance, definitions=DEFINITIONS, at=at)
        assert made is not None
        assert raw is not None
        assert statuses(instance) == {"orders": "FRESH", "totals": "MISSING"}
        assert instance.catalog.current(AssetKey("orders")) == made
        assert (made.created, made.data_version, made.tags) == (at, "v", {"by": "spark"})
        assert made.metadata["rows"].value == 5
        assert {item.asset: item.version_id for item in made.inputs} == {"raw": raw.version_id, "daily": None}
        run = instance.catalog.run(made.run_id)
        assert run is not None
        assert (run.status, run.tags, run.selection) == (RunStatus.SUCCESS, {REPORTED: "true"}, "orders")
        (step,) = instance.catalog.steps(run.run_id)
        assert (step.status, step.reason) == (StepStatus.SUCCESS, "made elsewhere")


def test_an_observation_is_a_version_where_the_data_version_is_another() -> None:
    with Instance.ephemeral() as instance:

        def see(version: str) -> bool:
            event = AssetObservation("raw", data_version=version, metadata={"size": 7})
            return report(event, instance=instance, definitions=DEFINITIONS) is not None

        assert [see(version) for version in ("1", "1", "2", "1")] == [True, False, True, True]
        assert len(instance.catalog.materializations(AssetKey("raw"))) == 3
        (line,) = [event.message for event in instance.catalog.events(kinds=["LOG_MESSAGE"])]
        assert '"value": 7' in line
        assert [step.status for step in instance.catalog.steps(instance.catalog.runs()[2].run_id)] == ["VERIFIED"]


def test_the_instance_takes_reports_about_what_it_has_recorded() -> None:
    with Instance.ephemeral() as instance:
        event = AssetMaterialization(["raw"], metadata={"path": "s3://bucket/x"})
        with pytest.raises(UnknownAssetError):
            instance.report_runless_asset_event(event)
        materialize(DEFINITIONS, instance=instance)
        instance.report_runless_asset_event(event)
        assert instance.catalog.current(AssetKey("raw")) is not None


def test_what_makes_no_sense_is_refused_and_nothing_is_recorded() -> None:
    with Instance.ephemeral() as instance:
        future = instance.clock.now() + timedelta(minutes=1)
        for event, at, error, words in (
            (AssetMaterialization("rew"), None, UnknownAssetError, "No asset `rew`"),
            (AssetMaterialization("raw", partition="x"), None, UsageError, "not partitioned"),
            (AssetMaterialization("daily"), None, UsageError, "`daily` is partitioned"),
            (AssetMaterialization("daily", partition="2023-12-31"), None, UnknownPartitionError, "`daily`"),
            (AssetMaterialization("daily", partition="\x1b[31m\ud800"), None, UnknownPartitionError, "`daily`"),
            (AssetMaterialization("raw"), future, UsageError, "in the future"),
            (AssetMaterialization("raw", metadata={"x": object()}), None, UserCodeError, "report about `raw`"),
            (AssetObservation("orders", data_version="1"), None, UsageError, "is computed here"),
        ):
            with pytest.raises(error, match=words):
                report(event, instance=instance, definitions=DEFINITIONS, at=at)
        for about in ({"data_version": "\ud800"}, {"data_version": 7}, {"tags": {"a": "b" * 2000}}, {"metadata": [1]}):
            with pytest.raises(UserCodeError):
                AssetMaterialization("raw", **about)  # pyright: ignore[reportArgumentType]
        assert instance.catalog.runs() == []
