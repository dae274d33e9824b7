"""Ticks of conditions: what they request is in the queue with what they remember, once, whoever is killed or late."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import headwater
from headwater import AutomationCondition as On
from headwater import (
    DailyPartitionsDefinition,
    Definitions,
    FreshnessPolicy,
    Instance,
    MonthlyPartitionsDefinition,
    StaticPartitionsDefinition,
    evaluate_automation_conditions,
)
from headwater.catalog.errors import UsageError
from headwater.catalog.events import RunEnded
from headwater.catalog.keys import AssetKey
from headwater.catalog.records import Automation, AutomationStatus, ConditionState, Run, RunStatus, TickStatus
from headwater.materialize.automation.conditions.explaining import explain
from headwater.materialize.automation.conditions.grouping import grouped
from headwater.materialize.automation.conditions.state import State
from headwater.materialize.automation.conditions.tick import EVALUATED_AT, NAME, tick
from headwater.materialize.automation.standing import move
from headwater.materialize.partition_choice import PartitionChoice
from tests.materialize.test_conditions import DAYS, Hand, made

ORIGIN = {"folder": "/project", "files": ["/project/assets.py"], "modules": []}


@pytest.fixture
def clock() -> Hand:
    return Hand()


#: For tests of what is kept: a catalog in memory, and one in a folder.
kept = pytest.mark.parametrize("instance", [False, True], ids=["memory", "folder"], indirect=True)


@pytest.fixture
def instance(request: pytest.FixtureRequest, tmp_path: Path, clock: Hand) -> Iterator[Instance]:
    in_folder = getattr(request, "param", False)
    with Instance.open(tmp_path, clock=clock) if in_folder else Instance.ephemeral(clock=clock) as instance:
        move(instance, NAME, AutomationStatus.RUNNING)
        yield instance


def look(instance: Instance, clock: Hand, definitions: Definitions, **time: float) -> list[Run]:
    """The runs that a tick requests, half a minute later."""
    clock.moment += timedelta(**time or {"seconds": 30})
    done = tick(instance, definitions, ORIGIN)
    found = [instance.catalog.run(run_id) for one in done for run_id in one.run_ids]
    return [run for run in found if run is not None]


def settle(instance: Instance, clock: Hand, definitions: Definitions) -> None:
    for _ in range(3):
        assert look(instance, clock, definitions) == []


def build(instance: Instance, clock: Hand, definitions: Definitions, *keys: str, **options: Any) -> None:
    clock.moment += timedelta(seconds=1)
    options = {"upstream": False, "force": True, **options}
    headwater.materialize(definitions, selection=" or ".join(keys), instance=instance, **options)


def carry_out(instance: Instance, definitions: Definitions, run: Run) -> list[tuple[str, str | None]]:
    """What another process does, as far as it builds something."""
    asked = {name: value for name, value in run.request.items() if name not in ("origin", "partitions")}
    choice = PartitionChoice.from_json(run.request["partitions"])
    result = headwater.materialize(definitions, instance=instance, partitions=choice, run_id=run.run_id, **asked)
    return [(str(made.asset), made.partition) for made in result.materializations]


def chain() -> Definitions:
    return Definitions([made("a"), made("b", "a", condition=On.eager()), made("c", "b", condition=On.eager())])


@kept
def test_what_is_requested_is_one_run_that_anybody_can_carry_out(instance: Instance, clock: Hand) -> None:
    definitions = chain()
    settle(instance, clock, definitions)
    build(instance, clock, definitions, "a")
    (run,) = look(instance, clock, definitions)
    assert (run.status, run.pid, run.selection) == (RunStatus.QUEUED, 0, "b or c")
    assert run.tags == {EVALUATED_AT: clock.moment.isoformat()}
    assert run.request["origin"] == ORIGIN
    last = instance.catalog.ticks([NAME])[0]
    assert (last.status, last.run_ids) == (TickStatus.SUCCESS, (run.run_id,))
    assert look(instance, clock, definitions) == []  # it is in the queue
    assert carry_out(instance, definitions, run) == [("b", None), ("c", None)]
    settle(instance, clock, definitions)


def test_data_that_did_not_change_is_not_built_upon(instance: Instance, clock: Hand) -> None:
    same = headwater.asset(lambda: 1, name="a")
    definitions = Definitions([same, made("b", "a", condition=On.eager())])
    build(instance, clock, definitions, "a", "b")
    settle(instance, clock, definitions)
    build(instance, clock, definitions, "a")
    (run,) = look(instance, clock, definitions)
    assert carry_out(instance, definitions, run) == []
    found = instance.catalog.run(run.run_id)
    assert found is not None and found.status is RunStatus.SUCCESS
    settle(instance, clock, definitions)


def test_sources_are_read_again(instance: Instance, clock: Hand) -> None:
    nightly = On.on_cron("0 0 * * *")
    definitions = Definitions([made("a", condition=nightly), made("b", "a", condition=nightly)])
    build(instance, clock, definitions, "a", "b")
    settle(instance, clock, definitions)
    (run,) = look(instance, clock, definitions, days=1)
    assert carry_out(instance, definitions, run) == [("a", None), ("b", None)]


def test_what_is_too_old_is_requested(instance: Instance, clock: Hand) -> None:
    hourly = FreshnessPolicy.time_window(timedelta(hours=1))
    old = On.freshness_failed() & ~On.in_progress()
    definitions = Definitions([headwater.asset(lambda: 1, name="a", freshness_policy=hourly, automation_condition=old)])
    assert look(instance, clock, definitions) == []  # never made: nobody knows how old it is
    build(instance, clock, definitions, "a")
    settle(instance, clock, definitions)
    assert look(instance, clock, definitions, minutes=57) == []
    (run,) = look(instance, clock, definitions, minutes=5)
    assert look(instance, clock, definitions) == []  # it is in the queue
    assert carry_out(instance, definitions, run) == [("a", None)]
    settle(instance, clock, definitions)


def test_partitions_that_are_requested_are_those_that_are_built(instance: Instance, clock: Hand) -> None:
    every = On.eager().replace("in_latest_time_window", On.missing() | ~On.missing())
    definitions = Definitions(
        [
            made("day", partitions_def=DailyPartitionsDefinition("2024-01-01")),
            made("month", "day", condition=every, partitions_def=MonthlyPartitionsDefinition("2024-01-01")),
            made("days", "day", condition=every, partitions_def=DAYS),
        ]
    )
    build(instance, clock, definitions, "day", "month", all_partitions=True)
    build(instance, clock, definitions, "days", all_partitions=True)
    settle(instance, clock, definitions)
    build(instance, clock, definitions, "day", partition_range="2024-02-28..2024-03-02")
    runs = look(instance, clock, definitions)
    built = [cell for run in runs for cell in carry_out(instance, definitions, run)]
    assert sorted(built) == [("days", "2024-03-01"), ("days", "2024-03-02"), ("month", "2024-02-01")]


def test_what_goes_together() -> None:
    letters = StaticPartitionsDefinition(["x", "y"])
    hourly = On.cron_tick_passed("0 * * * *")
    assets = [
        *(made(name, condition=hourly) for name in ("one", "two")),
        made("day", condition=hourly & On.in_latest_time_window(), partitions_def=DAYS),
        made("day_too", condition=hourly & On.in_latest_time_window(), partitions_def=DAYS),
        made("all_days", condition=hourly, partitions_def=DAYS),
        made("letter", condition=hourly, partitions_def=letters),
        made("reader", "letter", condition=hourly),
    ]
    definitions, clock = Definitions(assets), Hand()
    with Instance.ephemeral(clock=clock) as instance:
        before = evaluate_automation_conditions(definitions, instance)
        clock.moment += timedelta(hours=1)
        found = evaluate_automation_conditions(definitions, instance, cursor=before.cursor)
    runs = [sorted(map(str, run)) for run in grouped(definitions.graph, found.requested)]
    assert sorted(runs) == [["all_days"], ["day", "day_too"], ["letter", "one", "reader", "two"]]


@kept
def test_while_nothing_happens_nothing_is_evaluated_or_written(
    instance: Instance, clock: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    def evaluated(*_: object) -> None:
        pytest.fail("it is evaluated")

    definitions = Definitions([made("a", condition=On.eager(), partitions_def=DAYS)])
    settle(instance, clock, definitions)
    events, ticks = instance.catalog.last_event(), instance.catalog.ticks([NAME])
    assert ticks[0].reason == "nothing is different"
    monkeypatch.setattr(type(instance.catalog), "partition_cells", evaluated)
    for _ in range(5):
        assert look(instance, clock, definitions) == []
    assert instance.catalog.last_event() == events
    monkeypatch.undo()
    assert len(look(instance, clock, definitions, days=1)) == 1  # a window ended
    other = Definitions([made("a", condition=On.on_stale(), partitions_def=DAYS)])
    settle(instance, clock, definitions)
    look(instance, clock, other)  # a condition was rewritten
    assert len(instance.catalog.ticks([NAME])) > len(ticks) + 2


@kept
def test_of_two_who_evaluate_at_the_same_time_one_requests(
    instance: Instance, clock: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one looked before the first one was done."""

    def automations(_: object) -> dict[str, Automation]:
        return known

    def condition_states(_: object, *, common: bool = False) -> list[ConditionState]:
        return [one for one in states if one.asset is None or not common]

    definitions = chain()
    settle(instance, clock, definitions)
    build(instance, clock, definitions, "a")
    known = instance.catalog.automations()
    states = instance.catalog.condition_states()
    assert len(look(instance, clock, definitions)) == 1
    left = instance.catalog.condition_states()
    monkeypatch.setattr(type(instance.catalog), "automations", automations)
    monkeypatch.setattr(type(instance.catalog), "condition_states", condition_states)
    assert look(instance, clock, definitions) == []
    monkeypatch.undo()
    assert instance.catalog.condition_states() == left
    assert [run.selection for run in instance.catalog.runs(statuses=[RunStatus.QUEUED])] == ["b or c"]


def test_what_was_remembered_survives_and_nothing_is_requested_twice(tmp_path: Path) -> None:
    """As if each process were killed as soon as its tick was recorded."""
    clock, definitions = Hand(), chain()
    requested: list[str] = []
    for step in range(8):
        with Instance.open(tmp_path, clock=clock) as instance:
            if step == 0:
                move(instance, NAME, AutomationStatus.RUNNING)
            if step == 3:
                build(instance, clock, definitions, "a")
            requested += [str(run.selection) for run in look(instance, clock, definitions)]
    assert requested == ["b or c"]


def test_stopped_conditions_are_not_evaluated_and_go_on_where_they_were(instance: Instance, clock: Hand) -> None:
    definitions = chain()
    settle(instance, clock, definitions)
    move(instance, NAME, AutomationStatus.STOPPED)
    build(instance, clock, definitions, "a")
    assert look(instance, clock, definitions) == []
    move(instance, NAME, AutomationStatus.RUNNING)
    assert len(look(instance, clock, definitions)) == 1


def test_what_is_being_built_is_waited_for(instance: Instance, clock: Hand) -> None:
    definitions = chain()
    settle(instance, clock, definitions)
    build(instance, clock, definitions, "a")
    (run,) = look(instance, clock, definitions)
    build(instance, clock, definitions, "a")
    assert [look(instance, clock, definitions), look(instance, clock, definitions)] == [[], []]  # one is in the queue
    instance.catalog.append([RunEnded(time=clock.now(), run_id=run.run_id, status=RunStatus.CANCELED)])
    (again,) = look(instance, clock, definitions)
    assert again.selection == "b or c"


def test_an_evaluation_that_fails_is_recorded_and_the_next_one_goes_on(instance: Instance, clock: Hand) -> None:
    broken = On.eager().ignore("a").ignore("status:fresh")
    definitions = Definitions([made("a"), made("b", "a", condition=broken)])
    wrong = Definitions([made("a"), made("b", "a", condition=On.eager().ignore("nobody"))])
    assert look(instance, clock, wrong) == []
    last = instance.catalog.ticks([NAME])[0]
    assert (last.status, last.error and last.error.kind) == (TickStatus.FAILURE, "E-UNKNOWN-ASSET")
    settle(instance, clock, definitions)


@kept
def test_why_it_was_requested_can_be_told_later(instance: Instance, clock: Hand) -> None:
    definitions = chain()
    settle(instance, clock, definitions)
    before = clock.moment
    build(instance, clock, definitions, "a")
    look(instance, clock, definitions)
    asked = clock.moment
    settle(instance, clock, definitions)

    def truth(at: datetime | None) -> dict[str, int]:
        found = explain(definitions, instance, AssetKey("b"), at=at)
        return {row.part.shown.partition(":")[0]: row.true for row in found.rows if row.part.label} | {
            "requested": found.requested
        }

    assert truth(asked) == {
        "eager": 1,
        "newly_missing": 0,
        "any_deps_updated": 1,
        "handled": 0,
        "any_deps_missing": 0,
        "any_deps_in_progress": 0,
        "in_progress": 0,
        "requested": 1,
    }
    now = truth(None)
    assert (now["eager"], now["requested"], now["in_progress"], now["any_deps_updated"]) == (0, 0, 1, 0)
    assert truth(before)["eager"] == 0
    with pytest.raises(UsageError, match="was not evaluated by"):
        truth(datetime(2020, 1, 1, tzinfo=UTC))
    with pytest.raises(UsageError, match="`a` has no condition"):
        explain(definitions, instance, AssetKey("a"))


def test_why_is_told_of_one_partition_and_what_it_reads(instance: Instance, clock: Hand) -> None:
    month = made("month", "day", condition=On.eager(), partitions_def=MonthlyPartitionsDefinition("2024-01-01"))
    definitions = Definitions([made("day", partitions_def=DailyPartitionsDefinition("2024-01-01")), month])
    build(instance, clock, definitions, "day", partition_range="2024-01-01..2024-02-10")
    settle(instance, clock, definitions)
    found = explain(definitions, instance, AssetKey("month"), "2024-02-01")
    missing = [row for row in found.rows if row.part.text == "missing()" and row.part.asset == "day"]
    assert [(row.true, row.of) for row in missing] == [(19, 29)]
    recorded = explain(definitions, instance, AssetKey("month"), "2024-02-01", at=clock.moment)
    assert [(row.part.shown, row.true, row.of) for row in recorded.rows] == [
        (row.part.shown, row.true, row.of) for row in found.rows
    ]


def test_conditions_in_unit_tests() -> None:
    definitions, clock = chain(), Hand()
    with Instance.ephemeral(clock=clock) as instance:
        first = evaluate_automation_conditions(definitions, instance)
        assert first.total_requested == 0
        build(instance, clock, definitions, "a")
        second = evaluate_automation_conditions(definitions, instance, cursor=first.cursor)
        assert (second.total_requested, second.get_num_requested("b"), second.get_num_requested("a")) == (2, 1, 0)
        assert second.get_requested_partitions("c") == {None}
        assert instance.catalog.condition_states() == []
        wrong = datetime(2024, 1, 1, tzinfo=UTC)
        with pytest.raises(UsageError, match="evaluation_time"):
            evaluate_automation_conditions(definitions, instance, cursor=second.cursor, evaluation_time=wrong)
        assert State.last(instance.catalog) == State()
