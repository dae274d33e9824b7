"""How old data may become: policies as functions of time, and what the catalog and rounds make of them."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from headwater import (
    AssetMaterialization,
    AssetSpec,
    DailyPartitionsDefinition,
    Definitions,
    FreshnessPolicy,
    FreshnessState,
    Instance,
    StaticPartitionsDefinition,
    asset,
    report,
)
from headwater.catalog.errors import CronError, DefinitionError, TimeZoneError
from headwater.catalog.freshness import policy_from_json
from headwater.catalog.keys import AssetKey
from headwater.catalog.lineage.node import node_from_json, node_to_json, nodes_from_bytes, nodes_to_bytes
from headwater.catalog.records import FactTopic
from headwater.materialize.automation import freshness as rounds
from headwater.materialize.freshness import freshness
from tests.clocks import NOON, Hands

HOUR = timedelta(hours=1)
A_DAY = FreshnessPolicy.time_window(24 * HOUR, 12 * HOUR)


@pytest.mark.parametrize(
    ("age", "state"),
    [
        (timedelta(), "PASS"),
        (12 * HOUR - timedelta(microseconds=1), "PASS"),
        (12 * HOUR, "WARN"),
        (24 * HOUR - timedelta(microseconds=1), "WARN"),
        (24 * HOUR, "FAIL"),
        (-HOUR, "PASS"),  # a clock that went back
    ],
)
def test_a_time_window(age: timedelta, state: str) -> None:
    found = A_DAY.evaluate(NOON, NOON + age)
    assert (found.state, found.updated) == (state, NOON)
    assert (found.warns_at, found.fails_at) == (NOON + 12 * HOUR, NOON + 24 * HOUR)
    assert A_DAY.evaluate(None, NOON + age).state is FreshnessState.UNKNOWN


@pytest.mark.parametrize(
    ("updated", "fails"),
    [
        ("2024-03-09T14:30", "2024-03-10T14:00"),  # between 9:00 and 10:00 EST: good until the clocks have changed
        ("2024-03-09T14:00", "2024-03-10T14:00"),  # the first moment that counts
        ("2024-03-09T13:59:59", "2024-03-09T15:00"),
        ("2024-03-09T16:00", "2024-03-10T14:00"),  # late, so for the next deadline it is too early
        ("2024-03-10T13:30", "2024-03-11T14:00"),
    ],
)
def test_deadlines_on_the_clocks_of_a_zone(updated: str, fails: str) -> None:
    policy = FreshnessPolicy.cron("0 10 * * *", HOUR, "America/New_York")
    at, breach = (datetime.fromisoformat(text).replace(tzinfo=UTC) for text in (updated, fails))
    before = policy.evaluate(at, breach - timedelta(microseconds=1))
    assert (before.state, before.fails_at, before.warns_at) == ("PASS", breach, None)
    assert policy.evaluate(at, breach).state is FreshnessState.FAIL


def test_policies_that_make_no_sense_are_refused() -> None:
    for fail, warn, words in (
        (timedelta(seconds=59), None, "fail_window=datetime.timedelta"),
        (HOUR, HOUR, "warns after 1:00:00 and fails after 1:00:00"),
        (timedelta(days=365 * 200), None, "fail_window"),
        ("a day", None, "fail_window='a day'"),
    ):
        with pytest.raises(DefinitionError, match=words):
            FreshnessPolicy.time_window(fail, warn)  # pyright: ignore[reportArgumentType]
    with pytest.raises(DefinitionError, match="some are 1 day, 0:00:00 apart"):
        FreshnessPolicy.cron("0 9 * * 1-5", 25 * HOUR)
    with pytest.raises(CronError, match="whenever"):
        FreshnessPolicy.cron("whenever", HOUR)
    with pytest.raises(TimeZoneError, match="Mars"):
        FreshnessPolicy.cron("0 9 * * *", HOUR, "Mars/Olympus")
    with pytest.raises(DefinitionError, match="freshness_policy is of the type timedelta"):
        AssetSpec("a", freshness_policy=HOUR)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("policy", [A_DAY, FreshnessPolicy.cron("@daily", HOUR, "Asia/Tokyo")])
def test_a_policy_is_part_of_the_graph(policy: FreshnessPolicy) -> None:
    assert policy_from_json(policy.to_json()) == policy
    graph = Definitions([AssetSpec("a", freshness_policy=policy)]).graph
    node = graph[AssetKey("a")]
    assert node.freshness_policy == policy
    assert node_from_json(node_to_json(node)) == node
    assert nodes_from_bytes(nodes_to_bytes([node])) == [node]
    assert "freshness_policy" not in node_to_json(Definitions([AssetSpec("a")]).graph[AssetKey("a")])


def test_what_has_no_policy_and_what_was_never_made() -> None:
    graph = Definitions([AssetSpec("a", freshness_policy=A_DAY), AssetSpec("b")]).graph
    with Instance.ephemeral() as instance:
        states = [freshness(graph, instance.catalog, AssetKey(key), NOON).state for key in "ab"]
    assert states == ["UNKNOWN", "NOT_APPLICABLE"]


def test_of_windows_the_newest_one_counts_while_it_is_the_newest() -> None:
    days = DailyPartitionsDefinition("2024-01-01")
    definitions = Definitions([AssetSpec("d", partitions_def=days, freshness_policy=A_DAY)])
    clock = Hands(datetime(2024, 3, 9, 12, tzinfo=UTC))
    with Instance.ephemeral(clock=clock) as instance:

        def made(day: str) -> datetime | None:
            report(AssetMaterialization("d", partition=day), instance=instance, definitions=definitions)
            return freshness(definitions.graph, instance.catalog, AssetKey("d"), clock.now()).updated

        # More than are looked up at once lie between; and it stopped being the newest when the day after it had ended.
        assert made("2024-01-01") == datetime(2024, 1, 3, tzinfo=UTC)
        assert made("2024-03-07") == datetime(2024, 3, 9, tzinfo=UTC)
        assert made("2024-03-08") == NOON
        clock.sleep(3600)
        assert made("2024-01-01") == NOON  # an old one, made again
        clock.sleep(86400)
        assert made("2024-03-08") == datetime(2024, 3, 10, tzinfo=UTC)  # late


def test_of_other_partitions_any_counts() -> None:
    definitions = Definitions(
        [AssetSpec("s", partitions_def=StaticPartitionsDefinition(["x", "y"]), freshness_policy=A_DAY)]
    )
    clock = Hands()
    with Instance.ephemeral(clock=clock) as instance:
        report(AssetMaterialization("s", partition="y"), instance=instance, definitions=definitions)
        clock.sleep(3600)
        report(AssetMaterialization("s", partition="x"), instance=instance, definitions=definitions)
        found = freshness(definitions.graph, instance.catalog, AssetKey("s"), clock.now())
    assert found.updated == NOON + HOUR


def test_definitions_give_a_policy_to_what_they_compute() -> None:
    @asset
    def own() -> int:
        return 1

    week = FreshnessPolicy.time_window(timedelta(days=7))
    graph = Definitions([own, orders, AssetSpec("outside")], freshness_policy=week).graph
    policies = [graph[AssetKey(key)].freshness_policy for key in ("own", "orders", "outside")]
    assert policies == [week, A_DAY, None]
    merged = Definitions.merge(Definitions([own], freshness_policy=week), Definitions([orders]))
    assert merged.graph[AssetKey("own")].freshness_policy == week


@asset(freshness_policy=A_DAY)
def orders() -> int:
    return 1


def test_a_round_records_what_changed_and_only_that() -> None:
    definitions = Definitions([orders])
    graph, clock = definitions.graph, Hands()
    with Instance.ephemeral(clock=clock) as instance:

        def look() -> list[tuple[str, str]]:
            return [(event.value["state"], event.message) for event in rounds.look(instance, graph)]

        assert look() == [("UNKNOWN", "UNKNOWN")]
        report(AssetMaterialization("orders"), instance=instance, definitions=definitions)
        assert look() == []  # it looked a moment ago
        clock.sleep(30)
        assert look() == [("PASS", "UNKNOWN → PASS")]
        clock.sleep(11 * 3600)
        assert look() == []
        clock.sleep(3600)
        assert look() == [("WARN", "PASS → WARN")]
        clock.sleep(12 * 3600)
        assert look() == [("FAIL", "WARN → FAIL")]
        clock.sleep(3600)
        assert look() == []
        fact = instance.catalog.facts(FactTopic.FRESHNESS)["orders"]
        assert fact.value["fails_at"] == (NOON + 24 * HOUR).isoformat()
        kinds = [event.kind for event in instance.catalog.events(asset=AssetKey("orders"))]
        assert kinds.count("FRESHNESS_CHANGED") == 4


def nothing(*_: Any) -> dict[str, Any]:
    return {}


def test_of_two_that_look_one_records(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, clock = Definitions([orders, AssetSpec("other", freshness_policy=A_DAY)]).graph, Hands()
    with Instance.ephemeral(clock=clock) as instance:
        rounds.look(instance, Definitions([orders]).graph)  # the other one was faster about `orders` …
        monkeypatch.setattr(instance.catalog, "facts", nothing)  # … and this one looked before
        clock.sleep(30)
        assert [event.name for event in rounds.look(instance, graph)] == ["other"]
