"""Sources that are observed: another version makes stale what reads them, the same one does not."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from headwater import (
    AssetSpec,
    DailyPartitionsDefinition,
    DataVersion,
    DataVersionsByPartition,
    Definitions,
    Instance,
    Observation,
    ObserveResult,
    ResourceParam,
    asset,
    materialize,
    observable_source_asset,
    observe,
)
from headwater.catalog.errors import DefinitionError, MissingResourceError, UsageError, UserCodeError
from headwater.catalog.events import RunEnded
from headwater.catalog.keys import AssetKey
from headwater.catalog.records import RunStatus, StepStatus, TickStatus
from headwater.materialize.automation.observing import OBSERVATION, tick
from headwater.materialize.reader import Reader
from tests.clocks import Hands

DAYS = DailyPartitionsDefinition("2024-01-01", end_date="2024-01-11")
ORIGIN = {"folder": "/project", "files": ["/project/assets.py"], "modules": []}


class World:
    """What there is to see."""

    def __init__(self) -> None:
        self.raw: Any = DataVersion("1")
        self.days: Mapping[str, str] = {"2024-01-01": "a", "2024-01-02": "b"}


@observable_source_asset(key_prefix="raw", required_resource_keys={"world"})
def orders(context: Any) -> Any:
    """What the shop sells."""
    context.log.info("looking")
    return context.resources.world.raw


@observable_source_asset(partitions_def=DAYS)
def days(world: ResourceParam[World]) -> Any:
    return DataVersionsByPartition(world.days)


@asset(deps=[orders])
def totals() -> int:
    return 1


@asset(deps=[days], partitions_def=DAYS)
def copies() -> int:
    return 1


def shop() -> tuple[World, Definitions]:
    world = World()
    return world, Definitions([orders, days, totals, copies], {"world": world})


def stale(definitions: Definitions, instance: Instance) -> list[str]:
    staleness = Reader(definitions.graph, instance.catalog, instance.clock.now()).staleness
    many = staleness.partitioned[AssetKey("copies")]
    keys = many.partitions.keys_at(many.stale.nonzero()[0])
    return [*keys, *(["totals"] if staleness.stale(AssetKey("totals")) else [])]


def test_only_another_version_makes_stale() -> None:
    world, definitions = shop()
    with Instance.ephemeral() as instance:
        result = observe(definitions, instance=instance)
        assert [str(cell.status) for cell in result.cells] == ["SUCCESS"] * 3
        materialize(definitions, instance=instance, all_partitions=True)
        assert stale(definitions, instance) == []
        again = observe(definitions, instance=instance)
        assert {cell.status for cell in again.cells} == {StepStatus.VERIFIED}
        assert again.materializations == []
        assert stale(definitions, instance) == []
        world.raw, world.days = DataVersion("2"), {"2024-01-02": "c", "2024-01-03": "d"}
        assert len(observe(definitions, instance=instance).materializations) == 3
        assert stale(definitions, instance) == ["2024-01-02", "2024-01-03", "totals"]
        observed = instance.catalog.current(AssetKey("raw/orders"))
        assert observed is not None
        assert observed.data_version == "2"
        # What was observed is no definition of what is computed here.
        assert set(instance.catalog.definitions()) == definitions.graph.keys
        assert definitions.graph[AssetKey("raw/orders")].external


def test_a_selection_and_what_a_result_says() -> None:
    world, definitions = shop()
    world.raw = ObserveResult(data_version="7", metadata={"rows": 5}, tags={"by": "us"})
    with Instance.ephemeral() as instance:
        (made,) = observe(definitions, selection="raw/*", instance=instance).materializations
        assert (made.data_version, made.metadata["rows"].value, made.tags) == ("7", 5, {"by": "us"})
        world.raw = ObserveResult(metadata={"rows": 6})  # nothing about the version
        (cell,) = observe(definitions, selection="raw/*", instance=instance).cells
        assert (cell.status, cell.version_id) == (StepStatus.VERIFIED, made.version_id)
        messages = [event.message for event in instance.catalog.events(kinds=["LOG_MESSAGE"])]
        assert messages[0] == "looking"
        assert '"value": 6' in messages[-1]
        with pytest.raises(UsageError, match="Nothing that is selected can be observed"):
            observe(definitions, selection="totals", instance=instance)


@pytest.mark.parametrize("seen", [None, 5, "1", [], ValueError("no network")])
def test_what_cannot_be_understood_fails_and_changes_nothing(seen: Any) -> None:
    def look() -> Any:
        if isinstance(seen, Exception):
            raise seen
        return seen

    definitions = Definitions([AssetSpec("raw", observe=look)])
    with Instance.ephemeral() as instance:
        with pytest.raises(ValueError if isinstance(seen, Exception) else UserCodeError):
            observe(definitions, instance=instance)
        result = observe(definitions, instance=instance, raise_on_error=False)
        assert result.status is RunStatus.FAILURE
        assert instance.catalog.current(AssetKey("raw")) is None


def test_an_observation_that_fails_is_tried_again_as_any_run_is() -> None:
    tries: list[str] = []

    def look() -> DataVersion:
        tries.append("x")
        if len(tries) == 2:
            raise ValueError("no network")
        return DataVersion(str(len(tries)))

    definitions = Definitions([AssetSpec("raw", observe=look)])
    with Instance.ephemeral() as instance:
        observe(definitions, instance=instance, origin=ORIGIN)
        result = observe(definitions, instance=instance, tags={"headwater/max_retries": "1"}, origin=ORIGIN)
        assert [made.data_version for made in result.materializations] == ["3"]
        statuses = [(run.status, run.request["observe"]) for run in instance.catalog.runs()]
        assert statuses == [(RunStatus.SUCCESS, True), (RunStatus.FAILURE, True), (RunStatus.SUCCESS, True)]


def test_a_partition_that_there_is_not_is_refused() -> None:
    world, definitions = shop()
    world.days = {"2023-12-31": "x"}
    with Instance.ephemeral() as instance, pytest.raises(UserCodeError, match="2023-12-31"):
        observe(definitions, selection="days", instance=instance)


def test_definitions_that_make_no_sense_are_refused() -> None:
    with pytest.raises(DefinitionError, match="auto_observe_interval_minutes is 0"):
        observable_source_asset(auto_observe_interval_minutes=0)(lambda: DataVersion("1"))
    with pytest.raises(DefinitionError, match="asset `raw`"):
        AssetSpec("raw", observe=5)  # pyright: ignore[reportArgumentType]
    with pytest.raises(MissingResourceError, match="world"):
        Definitions([orders])
    with pytest.raises(DefinitionError, match="no argument `interval`"):
        observable_source_asset(interval=5)  # type: ignore[call-arg]


def every(minutes: float, key: str = "raw") -> AssetSpec:
    return AssetSpec(key, observe=Observation(lambda: DataVersion("1"), minutes))


def test_sources_are_observed_when_their_interval_is_over() -> None:
    definitions, clock = Definitions([every(10), every(30, "slow"), AssetSpec("never")]), Hands()
    with Instance.ephemeral(clock=clock) as instance:

        def round_at(minutes: int) -> list[tuple[str, str]]:
            clock.moment = datetime(2024, 3, 9, 12, 1, tzinfo=UTC) + timedelta(minutes=minutes)
            return [(done.name, f"{done.at:%H:%M}") for done in tick(instance, definitions, ORIGIN)]

        def over() -> None:
            for run in instance.catalog.runs(statuses=[RunStatus.QUEUED]):
                instance.catalog.append([RunEnded(time=clock.now(), run_id=run.run_id, status=RunStatus.SUCCESS)])

        assert round_at(0) == [("observe:raw", "12:00"), ("observe:slow", "12:00")]
        (run,) = instance.catalog.runs()
        assert (run.status, run.pid, run.selection, run.tags) == (
            RunStatus.QUEUED,
            0,
            "raw or slow",
            {OBSERVATION: "true"},
        )
        assert run.request["observe"] is True
        assert round_at(8) == []
        over()
        assert round_at(9) == [("observe:raw", "12:10")]
        assert round_at(19) == [("observe:raw", "12:20")]
        assert instance.catalog.ticks(["observe:raw"], limit=1)[0].status is TickStatus.SKIPPED  # one is under way
        over()
        assert round_at(100) == [("observe:raw", "13:40"), ("observe:slow", "13:30")]
        assert len(instance.catalog.runs()) == 3
        # Another process knows what was decided, and clocks that go back decide nothing again.
        other = Definitions([every(10), every(30, "slow")])
        assert instance.catalog.ticks(["observe:slow"], limit=1)[0].status is TickStatus.SUCCESS
        assert tick(instance, other, ORIGIN) == []
        assert tick(instance, other, ORIGIN, clock.now() - timedelta(days=1)) == []


def test_of_two_that_look_at_the_same_time_one_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    definitions, clock = Definitions([every(10)]), Hands()
    with Instance.ephemeral(clock=clock) as instance:
        tick(instance, definitions, ORIGIN)
        monkeypatch.setattr(instance.catalog, "automations", dict)
        assert tick(instance, Definitions([every(10)]), ORIGIN) == []
        assert len(instance.catalog.runs()) == 1
