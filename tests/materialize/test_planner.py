from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.catalog.errors import UsageError
from headwater.catalog.keys import AssetKey
from headwater.catalog.lineage.node import AssetNode
from headwater.catalog.records import Cell, StepStatus
from headwater.materialize.causes import CauseKind, Status
from headwater.materialize.planner import Plan
from tests.materialize.simulation import COLUMNS, Made, World, node, world


def shape(plan: Plan) -> list[tuple[str, list[str], set[str]]]:
    """Each step with its assets and what it comes after."""
    return [(step.key, [str(cell.cell) for cell in step.cells], set(step.after)) for step in plan.steps]


def names(plan: Plan) -> list[str]:
    return [step.key for step in plan.steps]


def built(*nodes: AssetNode) -> World:
    w = world(*nodes)
    w.run(w.plan(), lambda key: Made(data=f"{key} 1", columns={c: f"{key} {c} 1" for c in COLUMNS}))
    assert not w.plan()
    return w


def rebuild(w: World, key: str) -> None:
    """The asset is made again by somebody, and comes out otherwise."""
    known = {cell.asset: state for cell, state in w.states.items()}
    w.states[Cell(AssetKey(key))] = w.record(w.graph, AssetKey(key), Made(data=f"{key} again"), known)


DIAMOND = (node("a"), node("b", "a"), node("c", "a"), node("d", "b", "c"))


def test_everything_that_is_missing_is_built_in_order() -> None:
    w = world(*DIAMOND)
    plan = w.plan()
    assert shape(plan) == [
        ("a", ["a"], set()),
        ("b", ["b"], {"a"}),
        ("c", ["c"], {"a"}),
        ("d", ["d"], {"b", "c"}),
    ]
    assert all(step.certain for step in plan.steps)
    assert [step.reason for step in plan.steps] == ["never materialized"] * 4
    assert plan


def test_nothing_is_built_that_is_fresh() -> None:
    w = built(*DIAMOND)
    assert not w.plan()
    assert w.plan().waiting == ()


def test_what_a_selection_needs_is_built_too() -> None:
    w = world(*DIAMOND)
    assert names(w.plan(["c"])) == ["a", "c"]
    w = built(*DIAMOND)
    w.edit("a", code="py1:2")
    assert names(w.plan(["b"])) == ["a", "b"]
    assert names(w.plan(["d"])) == ["a", "b", "c", "d"]


def test_reasons_tell_what_decides_first() -> None:
    w = built(*DIAMOND)
    w.edit("a", code="py1:2")
    w.edit("d", code="py1:2", config="cfg1:2", resources="cfg1:2", io="cfg1:2", definition="cfg1:2")
    plan = w.plan()
    assert [step.reason for step in plan.steps] == [
        "code changed (1 → 2)",
        "a is stale",
        "a is stale",
        "code changed (1 → 2); inputs are wired differently; config changed; and 2 more",
    ]
    assert [step.certain for step in plan.steps] == [True, False, False, True]
    assert plan.steps[3].causes[-1].kind is CauseKind.UPSTREAM_STALE


def test_force_builds_the_selected_assets_and_no_others() -> None:
    w = built(*DIAMOND)
    plan = w.plan(["b"], force=True)
    assert names(plan) == ["b"]
    assert plan.steps[0].reason == "forced"
    assert plan.steps[0].cells[0].status is Status.FRESH
    assert names(w.plan(force=True)) == ["a", "b", "c", "d"]
    w.edit("a", code="py1:2")
    assert names(w.plan(["b"], force=True)) == ["a", "b"]


def test_what_is_fresh_below_something_forced_follows() -> None:
    w = built(*DIAMOND)
    plan = w.plan(["a", "b", "d"], force=True)
    assert [cell.causes[-1].kind for step in plan.steps for cell in step.cells] == [
        CauseKind.FORCED,
        CauseKind.FORCED,
        CauseKind.UPSTREAM_REBUILT,
        CauseKind.FORCED,
    ]
    assert not plan.steps[2].certain
    assert plan.steps[2].reason == "a is rebuilt"


def test_without_upstream_only_the_selection_is_built() -> None:
    w = built(*DIAMOND)
    rebuild(w, "a")
    w.edit("b", code="py1:2")
    assert names(w.plan(["b"], upstream=False)) == ["b"]
    assert names(w.plan(["c", "d"], upstream=False)) == ["c", "d"]


def test_what_is_stale_only_further_up_waits() -> None:
    w = built(*DIAMOND)
    w.edit("a", code="py1:2")
    plan = w.plan(["c", "d"], upstream=False)
    assert not plan
    assert plan.waiting == ("c", "d")
    w.edit("c", code="py1:2")
    plan = w.plan(["c", "d"], upstream=False)
    assert names(plan) == ["c", "d"]
    assert plan.waiting == ()


def test_what_was_never_made_cannot_be_read() -> None:
    w = world(node("a"), node("b", "a"), node("c", "-a"))
    with pytest.raises(UsageError) as caught:
        w.plan(["b"], upstream=False)
    assert "`b` reads `a`, which was never materialized and is not part of this plan" in caught.value.message
    assert "+b" in caught.value.remedy
    assert names(w.plan(["c"], upstream=False)) == ["c"]
    assert names(w.plan(["a", "b"], upstream=False)) == ["a", "b"]
    assert names(world(node("feed", external=True), node("b", "feed")).plan()) == ["b"]


def test_only_what_is_missing() -> None:
    w = built(*DIAMOND)
    w.edit("a", code="py1:2")
    w.states.pop(Cell(AssetKey("c")))
    plan = w.plan(only_missing=True)
    assert names(plan) == ["c"]
    assert plan.waiting == ()


def test_external_assets_are_never_built() -> None:
    w = world(node("feed", external=True), node("a", "-feed"))
    assert names(w.plan(["feed"])) == []
    assert names(w.plan(force=True)) == ["a"]


BOTH: dict[str, Any] = {"step": "both", "can_subset": False}
SOME: dict[str, Any] = {"step": "some", "can_subset": True}


def test_a_step_that_makes_several_makes_all_of_them() -> None:
    w = built(node("a", **BOTH), node("b", **BOTH), node("c", "b"), node("d", "a"))
    w.edit("a", code="py1:2")
    plan = w.plan(["a"])
    assert shape(plan) == [("both", ["a", "b"], set())]
    assert plan.steps[0].reason == "code changed (1 → 2)"
    assert plan.steps[0].cells[1].causes == ()
    assert shape(w.plan()) == [("both", ["a", "b"], set()), ("c", ["c"], {"both"}), ("d", ["d"], {"both"})]
    assert w.plan().steps[1].reason == "b is rebuilt"


def test_an_optional_output_that_was_left_out_is_no_reason_to_run() -> None:
    extra: dict[str, Any] = {**BOTH, "optional": True}
    w = built(node("a", **BOTH), node("b", **extra), node("c", "b"), node("d", "c"), node("e", "a"))
    for key in "bcd":  # as its step left it
        del w.states[Cell(AssetKey(key))]
    plan = w.plan()
    assert (shape(plan), plan.absent) == ([], ("b", "c", "d"))
    assert w.plan(["c"], upstream=False).absent == ("c",)
    assert str(w.staleness().of(AssetKey("b")).causes[0]) == "optional, and its step did not make it"
    assert shape(w.plan(["b"], force=True)) == [("both", ["a", "b"], set())]
    w.edit("a", code="py1:2")
    plan = w.plan()
    assert shape(plan)[0] == ("both", ["a", "b"], set())
    assert shape(plan)[1:] == [("c", ["c"], {"both"}), ("d", ["d"], {"c"}), ("e", ["e"], {"both"})]
    assert plan.absent == ()


def test_a_step_that_can_make_some_makes_those() -> None:
    w = built(node("a", **SOME), node("b", **SOME), node("c", "b"))
    w.edit("a", code="py1:2")
    assert shape(w.plan()) == [("some", ["a"], set())]
    assert shape(w.plan(["b"], force=True)) == [("some", ["b"], set())]
    w = built(node("a", **SOME), node("b", "-a", **SOME), node("c", "b"))
    w.edit("a", code="py1:2")
    assert shape(w.plan()) == [("some", ["a", "b"], set()), ("c", ["c"], {"some"})]


def test_steps_come_after_those_of_all_of_their_assets() -> None:
    w = world(node("a", **BOTH), node("y"), node("z", "-y", **BOTH), node("w", "a"))
    assert shape(w.plan()) == [("y", ["y"], set()), ("both", ["a", "z"], {"y"}), ("w", ["w"], {"both"})]


# Whatever a run makes, doing it again has nothing to do.


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Up to seven assets, some of them made together by one step."""
    size = draw(st.integers(1, 7))
    steps = [draw(st.sampled_from([f"n{i}", "some", "both"])) for i in range(size)]
    nodes: list[AssetNode] = []
    for i, step in enumerate(steps):
        # What a step that makes several depends on comes from before all of them, or from itself.
        first = steps.index(step)
        above = [j for j in range(i) if j < first or steps[j] == step]
        above = [j for j in above if steps[j] == step or steps.index(steps[j]) == j or steps[j] not in steps[first:]]
        chosen = draw(st.lists(st.sampled_from(above), max_size=3, unique=True)) if above else []
        deps = [
            f"{'-' if steps[j] == step else draw(st.sampled_from(['', '-']))}n{j}{draw(st.sampled_from(['', ':x']))}"
            for j in chosen
        ]
        nodes.append(node(f"n{i}", *deps, step=step, can_subset=step != "both"))
    return world(*nodes)


def changeable(data: st.DataObject) -> Callable[[AssetKey], Made]:
    """Steps that come out otherwise each time, or not, or only in some columns."""

    def produce(key: AssetKey) -> Made:
        versions = {c: data.draw(st.sampled_from("12")) for c in COLUMNS}
        return Made(data="".join(versions.values()), columns=versions)

    return produce


def disturb(w: World, data: st.DataObject) -> None:
    for _ in range(data.draw(st.integers(0, 3))):
        key = data.draw(st.sampled_from(sorted(w.nodes)))
        match data.draw(st.sampled_from(["edit", "rebuild", "wipe"])):
            case "edit":
                w.edit(key, code=f"py1:{data.draw(st.integers(1, 3))}")
            case "rebuild":
                known = {cell.asset: state for cell, state in w.states.items()}
                w.states[Cell(key)] = w.record(w.graph, key, changeable(data)(key), known)
            case _:
                w.states.pop(Cell(key), None)


@given(worlds(), st.data())
@settings(max_examples=200)
def test_after_a_plan_was_carried_out_there_is_nothing_left_of_it(w: World, data: st.DataObject) -> None:
    w.run(w.plan(), changeable(data))
    disturb(w, data)
    selected = data.draw(st.none() | st.sets(st.sampled_from(sorted(w.nodes)), min_size=1))
    plan = w.plan(selected, force=data.draw(st.booleans()))
    statuses = w.run(plan, changeable(data))
    assert set(statuses.values()) <= {StepStatus.SUCCESS, StepStatus.VERIFIED}
    again = w.plan(selected)
    assert names(again) == []
    assert again.waiting == ()


@given(worlds(), st.data())
@settings(max_examples=200)
def test_a_plan_holds_together(w: World, data: st.DataObject) -> None:
    w.run(w.plan(), changeable(data))
    disturb(w, data)
    selected = data.draw(st.none() | st.sets(st.sampled_from(sorted(w.nodes)), min_size=1))
    options = {name: data.draw(st.booleans()) for name in ("force", "upstream", "only_missing")}
    try:
        plan = w.plan(selected, **options)
    except UsageError:
        assert not options["upstream"]
        return
    graph, staleness = w.graph, w.staleness()
    seen: set[str] = set()
    planned = {cell.cell.asset: step.key for step in plan.steps for cell in step.cells}
    for step in plan.steps:
        members = [cell.cell.asset for cell in step.cells]
        assert len(set(members)) == len(members)
        assert {graph[key].step for key in members} == {step.key}
        assert step.after <= seen, "what comes before is planned before"
        needed = {planned[p] for key in members for p in graph.parents(key) if p in planned} - {step.key}
        assert step.after == needed
        if not graph[members[0]].can_subset:
            assert set(members) == set(graph.steps[step.key])
        assert step.causes, "nothing is built for no reason"
        for cell in step.cells:
            assert cell.status is staleness.of(cell.cell.asset).status
        seen.add(step.key)
    targets = graph.keys if selected is None else {AssetKey(key) for key in selected}
    wanted = targets | graph.upstream(targets) if options["upstream"] else targets
    for key in wanted:
        status = staleness.of(key).status
        if status is Status.MISSING or (options["force"] and key in targets):
            assert key in planned
        elif status is Status.STALE and not options["only_missing"]:
            assert key in planned or key in plan.waiting
    assert not set(plan.waiting) & planned.keys()
    assert options["upstream"] is False or not plan.waiting
