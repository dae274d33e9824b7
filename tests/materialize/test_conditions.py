"""When conditions are true: the rules one by one, over real catalogs."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import headwater
from headwater import (
    AllPartitionMapping,
    AssetDep,
    AssetsDefinition,
    DailyPartitionsDefinition,
    Definitions,
    Failure,
    Instance,
    MonthlyPartitionsDefinition,
    MultiPartitionsDefinition,
    PartitionsDefinition,
    StaticPartitionsDefinition,
    asset,
    multi_asset,
)
from headwater import AutomationCondition as On
from headwater.catalog.clock import SystemClock
from headwater.catalog.errors import DefinitionError
from headwater.catalog.keys import AssetKey
from headwater.materialize.automation.conditions.evaluator import Evaluated
from headwater.materialize.automation.conditions.state import State
from headwater.materialize.automation.conditions.tick import evaluate

DAYS = DailyPartitionsDefinition("2024-03-01")
START = datetime(2024, 3, 5, 6, 0, tzinfo=UTC)  # four days have ended


@dataclass
class Hand(SystemClock):
    """It is what it is set to."""

    moment: datetime = START

    def now(self) -> datetime:
        return self.moment


def made(name: str, *deps: Any, condition: On | None = None, **settings: Any) -> AssetsDefinition:
    """An asset whose data is how often it was built."""
    built: list[int] = []

    def build() -> int:
        built.append(1)
        return len(built)

    settings = {"code_version": "1", **settings}
    return asset(build, name=name, deps=deps, automation_condition=condition, **settings)


@dataclass
class World:
    """Definitions, a catalog and a clock; each evaluation follows the one before."""

    assets: Iterable[AssetsDefinition]
    clock: Hand = field(default_factory=Hand)
    state: State = field(default_factory=State)
    last: Evaluated | None = None

    def __post_init__(self) -> None:
        self.definitions = Definitions(list(self.assets))
        self.instance = Instance.ephemeral(clock=self.clock)

    def pass_time(self, **time: float) -> None:
        self.clock.moment += timedelta(**time)

    def tick(self, **time: float) -> dict[str, list[str]]:
        """What is requested, half a minute later."""
        self.pass_time(**time or {"seconds": 30})
        one = self.definitions
        self.last = evaluate(one.graph, one.conditions, self.instance.catalog, self.state, self.clock.moment)
        self.state = self.last.state
        return {str(key): list(subset) for key, subset in self.last.requested.items()}

    def build(self, *keys: str, **options: Any) -> None:
        """Build assets, fresh or not, and nothing above them."""
        self.pass_time(seconds=1)
        options = {"upstream": False, "force": True, "raise_on_error": False, **options}
        headwater.materialize(self.definitions, selection=" or ".join(keys), instance=self.instance, **options)

    def redefine(self, *assets: AssetsDefinition) -> None:
        self.definitions = Definitions(list(assets))


CELL = [""]


def test_existing_missing_and_stale_assets_are_not_requested_at_first() -> None:
    world = World([made("a"), made("b", "a", condition=On.eager()), made("c", "b", condition=On.on_missing())])
    world.build("a", "b")
    world.build("a")
    assert [world.tick(), world.tick()] == [{}, {}]


def test_what_is_behind_at_first_is_requested_where_that_is_wanted() -> None:
    assets = [
        made("a"),
        made("b", "a", condition=On.eager(initial="request")),
        made("c", "b", condition=On.eager("request")),
        made("d", "c", condition=On.on_missing("request")),
        made("fresh", "a", condition=On.eager("request")),
    ]
    world = World(assets)
    world.build("a")
    world.build("a", "b")
    world.build("a", "fresh")
    assert world.tick() == {"b": CELL, "c": CELL, "d": CELL}
    assert world.tick() == {}


def test_eager_follows_what_it_reads() -> None:
    world = World([made("a"), made("b", "a", condition=On.eager()), made("c", "b", condition=On.eager())])
    world.build("a", "b", "c")
    assert world.tick() == {}
    world.build("a")
    assert world.tick() == {"b": CELL, "c": CELL}  # parents that are requested count
    assert world.tick() == {}


def test_eager_waits_for_missing_parents_and_remembers() -> None:
    world = World([made("a"), made("other"), made("b", "a", "other", condition=On.eager())])
    assert world.tick() == {}
    world.build("a")
    assert [world.tick(), world.tick()] == [{}, {}]
    world.build("other")
    assert world.tick() == {"b": CELL}


def test_updates_by_a_run_that_builds_the_asset_too_are_not_followed() -> None:
    failing: list[bool] = []

    @asset(deps=["a"], automation_condition=On.eager(), code_version="1")
    def b() -> int:
        if failing:
            raise Failure("no")
        return 1

    world = World([made("a"), b])
    world.build("a", "b")
    world.tick()
    failing.append(True)
    world.build("a", "b")
    assert [world.tick(), world.tick()] == [{}, {}]  # it failed, and is not tried over and over again
    world.build("a")
    assert world.tick() == {"b": CELL}


def test_of_an_unpartitioned_dimension_only_the_latest_partition_follows() -> None:
    world = World([made("dimension"), made("facts", "dimension", condition=On.eager(), partitions_def=DAYS)])
    world.build("dimension")
    world.build("facts", all_partitions=True)
    assert world.tick() == {}
    world.build("dimension")
    assert world.tick() == {"facts": ["2024-03-04"]}
    assert world.tick() == {}


def test_a_new_window_is_requested_when_it_ends() -> None:
    world = World([made("daily", condition=On.eager(), partitions_def=DAYS)])
    assert [world.tick(), world.tick()] == [{}, {}]
    assert world.tick(days=1) == {"daily": ["2024-03-05"]}
    assert world.tick() == {}
    assert world.tick(days=3) == {"daily": ["2024-03-08"]}


def test_windows_follow_through_their_mapping() -> None:
    every = On.eager().replace("in_latest_time_window", On.missing() | ~On.missing())
    monthly = made("monthly", "daily", condition=every, partitions_def=MonthlyPartitionsDefinition("2024-01-01"))
    total = made("total", AssetDep("daily", partition_mapping=AllPartitionMapping()), condition=On.eager())
    days = DailyPartitionsDefinition("2024-01-01")
    world = World([made("daily", partitions_def=days), monthly, total])
    world.build("daily", all_partitions=True)
    world.build("monthly", all_partitions=True)
    world.build("total")
    assert world.tick() == {}
    world.build("daily", partition_range="2024-01-30..2024-02-02")
    assert world.tick() == {"monthly": ["2024-01-01", "2024-02-01"], "total": CELL}
    world.build("monthly", all_partitions=True)
    world.build("total")
    world.tick()
    world.build("daily", partition_key="2024-03-02")
    assert world.tick() == {"total": CELL}  # March has not ended


def test_the_latest_window() -> None:
    both = MultiPartitionsDefinition({"day": DAYS, "letter": StaticPartitionsDefinition(["x", "y"])})
    cases: list[tuple[On, PartitionsDefinition | None, list[str]]] = [
        (On.in_latest_time_window(), DAYS, ["2024-03-04"]),
        (On.in_latest_time_window(timedelta(days=2)), DAYS, ["2024-03-03", "2024-03-04"]),
        (On.in_latest_time_window(timedelta(hours=30)), DAYS, ["2024-03-03", "2024-03-04"]),
        (On.in_latest_time_window(timedelta(days=99)), DAYS, [f"2024-03-0{day}" for day in (1, 2, 3, 4)]),
        (On.in_latest_time_window(), both, ["2024-03-04|x", "2024-03-04|y"]),
        (On.in_latest_time_window(), StaticPartitionsDefinition(["x", "y"]), ["x", "y"]),
        (On.in_latest_time_window(), DailyPartitionsDefinition("2030-01-01"), []),
        (On.in_latest_time_window(), None, CELL),
    ]
    for condition, partitions, expected in cases:
        world = World([made("a", condition=condition, partitions_def=partitions)])
        assert world.tick().get("a", []) == expected


def test_on_cron_waits_for_all_that_it_reads() -> None:
    nightly = On.on_cron("0 2 * * *", "America/New_York")
    world = World([made("a"), made("b"), made("c", "a", "b", condition=nightly)])
    world.build("a", "b", "c")
    assert world.tick() == {}
    world.clock.moment = datetime(2024, 3, 6, 6, 59, tzinfo=UTC)
    assert world.tick() == {}
    assert world.tick(minutes=1) == {}  # it is due, and nothing was updated since
    world.build("a")
    assert world.tick() == {}
    world.build("b")
    assert world.tick() == {"c": CELL}
    assert world.tick() == {}
    world.build("a", "b")
    assert world.tick() == {}  # once a night
    world.clock.moment = datetime(2024, 3, 7, 7, 1, tzinfo=UTC)
    world.build("a", "b")
    assert world.tick() == {"c": CELL}


def test_on_cron_counts_what_was_requested_and_found_to_be_up_to_date() -> None:
    daily = On.on_cron("0 0 * * *")
    world = World([made("a"), made("b", "a", condition=daily), made("late"), made("c", "b", "late", condition=daily)])
    world.build("a", "b", "late", "c")
    world.tick()
    world.clock.moment = datetime(2024, 3, 6, tzinfo=UTC)
    world.build("a", force=False)  # it is fresh: nothing is built
    assert world.tick() == {}
    world.build("a")
    assert world.tick() == {"b": CELL}
    world.tick()
    world.build("late")
    assert world.tick() == {}  # `b` is stale as yet
    world.build("b")
    assert world.tick() == {"c": CELL}


def test_of_a_trigger_and_a_reset_at_once_the_reset_wins_unless_the_trigger_came_later() -> None:
    condition = On.any_deps_updated().since(On.newly_updated())
    world = World([made("a"), made("b", "a", condition=condition)])
    world.tick()
    world.build("a")
    world.build("b")
    assert world.tick() == {}
    world.build("b")
    world.build("a")
    assert world.tick() == {"b": CELL}  # what came after it was built is not lost
    cron = World([made("a", condition=On.cron_tick_passed("0 0 * * *").since(On.newly_updated()))])
    cron.tick()
    cron.clock.moment = datetime(2024, 3, 6, 0, 0, tzinfo=UTC) - timedelta(seconds=5)
    cron.build("a")
    assert cron.tick() == {"a": CELL}  # it was built before midnight
    cron.clock.moment = datetime(2024, 3, 7, 0, 0, 5, tzinfo=UTC)
    cron.build("a")
    assert cron.tick() == {}


def test_a_reset_of_which_nobody_knows_when_it_came_wins() -> None:
    condition = On.newly_updated().since(On.missing() | ~On.missing())
    world = World([made("a", condition=condition)])
    world.tick()
    world.build("a")
    assert world.tick() == {}


def test_since_is_about_all_partitions_and_survives_those_that_come() -> None:
    condition = On.in_latest_time_window() & On.newly_updated().since(On.newly_requested())
    world = World([made("a", condition=condition, partitions_def=DAYS)])
    world.tick()
    world.build("a", partition_key="2024-03-02")
    assert world.tick() == {}
    (state,) = world.state.of(AssetKey("a")).parts.values()
    assert state["count"] == 1
    world.tick(days=1)
    assert list(world.state.of(AssetKey("a")).parts.values()) == [state]


def test_newly_true() -> None:
    world = World([made("a", condition=On.execution_failed().newly_true())])
    failing = World([asset(lambda: 1 / 0, name="a", automation_condition=On.execution_failed().newly_true())])
    assert [world.tick(), world.tick()] == [{}, {}]
    failing.tick()
    failing.build("a")
    assert [failing.tick(), failing.tick()] == [{"a": CELL}, {}]


def test_a_condition_that_is_rewritten_begins_anew() -> None:
    upstream, first = made("a"), made("b", "a", condition=On.eager())
    world = World([upstream, first])
    world.tick()
    world.build("a")
    world.redefine(upstream, made("b", "a", condition=On.eager() & ~On.execution_failed()))
    assert [world.tick(), world.tick()] == [{}, {}]
    world.build("a")
    assert world.tick() == {"b": CELL}


def test_labels_do_not_count() -> None:
    assert On.eager().with_label("mine") == On.eager()
    upstream = made("a")
    world = World([upstream, made("b", "a", condition=On.eager())])
    world.tick()
    world.build("a")
    world.redefine(upstream, made("b", "a", condition=On.eager().with_label("mine")))
    assert world.tick() == {"b": CELL}


def test_code_and_data_that_change() -> None:
    @asset(automation_condition=On.data_version_changed(), config=None)
    def same() -> int:
        return 1

    world = World(
        [same, made("other", condition=On.data_version_changed()), made("c", condition=On.code_version_changed())]
    )
    world.tick()
    world.build("same", "other", "c")
    assert world.tick() == {"same": CELL, "other": CELL}  # there was none before
    world.build("same", "other", "c")
    assert world.tick() == {"other": CELL}
    world.redefine(same, made("c", condition=On.code_version_changed(), code_version="2"))
    assert [world.tick(), world.tick()] == [{"c": CELL}, {}]


def test_tags_of_runs() -> None:
    condition = On.newly_updated() & ~On.executed_with_tags({"by"}, {"kind": "test"})
    world = World([made("a", condition=condition)])
    world.tick()
    for tags, expected in [
        ({}, {"a": CELL}),
        ({"by": "me", "kind": "test"}, {}),
        ({"by": "me", "kind": "other"}, {"a": CELL}),
    ]:
        world.build("a", tags=tags)
        assert world.tick() == expected
    bare = World([made("a", condition=On.executed_with_tags({"by"}))])
    bare.build("a", tags={"by": "me"})
    assert [bare.tick(), bare.tick()] == [{"a": CELL}, {"a": CELL}]  # it is so of the current version, not of news


def test_selections_of_dependencies() -> None:
    updated = On.any_deps_match(On.newly_updated())
    cases = [
        (updated.allow("a"), {"a"}),
        (updated.ignore("a"), {"b"}),
        (updated.allow("a").allow("b"), {"a", "b"}),
        (updated.since_last_handled().ignore("a or b"), set[str]()),
    ]
    for condition, wanted in cases:
        for key in "ab":
            world = World([made("a"), made("b"), made("c", "a", "b", condition=condition)])
            world.tick()
            world.build(key)
            assert world.tick() == ({"c": CELL} if key in wanted else {})
    with pytest.raises(DefinitionError, match="does not look at dependencies"):
        On.missing().allow("a")


def test_other_assets() -> None:
    """Above, below and elsewhere."""
    updated = On.newly_updated()
    days = {"partitions_def": DAYS}
    world = World(
        [
            made("up", condition=On.asset_matches("down", updated), **days),
            made("down", "up", condition=On.asset_matches("up", updated), **days),
            made("like", condition=On.asset_matches("up", updated), **days),
            made("one", condition=On.asset_matches("up", updated)),
        ]
    )
    world.tick()
    world.build("up", partition_key="2024-03-02")
    assert world.tick() == {"down": ["2024-03-02"], "like": ["2024-03-02"], "one": CELL}
    world.build("down", partition_key="2024-03-03")
    assert world.tick() == {"up": ["2024-03-03"]}
    with pytest.raises(DefinitionError, match="`b` asks for the asset `upp`"):
        Definitions([made("up"), made("b", condition=On.asset_matches("upp", updated))])


def test_conditions_downstream() -> None:
    lazy = On.any_downstream_conditions()
    hourly = On.cron_tick_passed("0 * * * *")
    world = World([made("a", condition=lazy), made("b", "a", condition=lazy), made("c", "b", condition=hourly)])
    assert world.tick() == {}
    assert world.tick(hours=1) == {"a": CELL, "b": CELL, "c": CELL}
    assert world.tick() == {}


def test_what_is_computed_together_is_requested_together() -> None:
    specs = [
        headwater.AssetSpec("x", automation_condition=On.cron_tick_passed("0 * * * *"), code_version="1"),
        headwater.AssetSpec("y", code_version="1"),
    ]

    @multi_asset(specs=specs)
    def both() -> None: ...

    world = World([both, made("after", "y", condition=On.eager())])
    world.build("after")
    world.tick()
    assert world.tick(hours=1) == {"x": CELL, "y": CELL, "after": CELL}


def test_on_stale() -> None:
    assets = [made("a"), made("b", "a", condition=On.on_stale()), made("c", "b", condition=On.on_stale())]
    world = World(assets)
    world.build("a")
    assert world.tick() == {"b": CELL, "c": CELL}  # whatever happened before
    assert world.tick() == {}
    world.build("b", "c")
    assert world.tick() == {}
    world.build("a")
    assert world.tick() == {"b": CELL, "c": CELL}
    world.build("b", "c")
    world.redefine(assets[0], made("b", "a", condition=On.on_stale(), code_version="2"), assets[2])
    assert world.tick() == {"b": CELL, "c": CELL}


def test_on_stale_does_not_try_again_what_failed_before_something_changes() -> None:
    broken = asset(lambda: 1 / 0, name="b", deps=["a"], automation_condition=On.on_stale(), code_version="1")
    world = World([made("a"), broken])
    world.build("a")
    assert world.tick() == {"b": CELL}
    world.build("b")
    assert [world.tick(), world.tick()] == [{}, {}]
    world.build("a")
    assert world.tick() == {"b": CELL}
    world.build("b")
    assert world.tick() == {}
    world.redefine(made("a"), made("b", "a", condition=On.on_stale(), code_version="2"))
    assert world.tick() == {"b": CELL}


def test_on_stale_does_not_ask_for_ever_for_what_is_left_out() -> None:
    optional = asset(lambda: None, name="a", automation_condition=On.on_stale(), output_required=False)
    world = World([optional])
    assert world.tick() == {"a": CELL}
    for _ in range(3):
        world.build("a")
        assert world.tick() == {}


def test_how_it_is_written() -> None:
    condition = (On.missing().newly_true() | ~On.in_progress()).since(On.cron_tick_passed("@daily")) & On.stale(True)
    assert str(condition) == (
        "((missing().newly_true() | ~(run_in_progress() | backfill_in_progress())).since(cron_tick_passed('0 0 * * *', "
        "'UTC')) & stale(True))"
    )
    assert str(On.eager()) == "eager"
    assert On.eager().replace("any_deps_missing", On.missing()) != On.eager()
    assert On.eager().replace("no such", On.missing()) is On.eager()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: On.eager("all"), "initial is 'all'"),
        (lambda: On.cron_tick_passed("0 0 30 2 *"), "none of its months"),
        (lambda: On.on_cron("0 0 * * *", "Mars/Base"), "Mars"),
        (lambda: On.in_latest_time_window(timedelta()), "lookback_delta"),
        (lambda: On.check_passed(), "no"),
        (lambda: On.any_checks_match(On.missing()), "checks of assets"),
        (lambda: On.missing() & True, "A bool is no condition"),  # type: ignore[operator]
        (lambda: On.executed_with_tags(), "names no tag"),
        (lambda: asset(lambda: 1, name="a", automation_condition="eager"), "A str is no condition"),  # type: ignore[call-overload]
        (lambda: Definitions([headwater.AssetSpec("a", automation_condition=On.eager())]), "something else computes"),
    ],
)
def test_what_makes_no_sense_is_refused(wrong: Callable[[], object], message: str) -> None:
    with pytest.raises(headwater.HeadwaterError, match=message):
        wrong()
