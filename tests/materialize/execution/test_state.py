from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.catalog.keys import AssetKey
from headwater.catalog.lineage.node import AssetNode
from headwater.catalog.records import Cell, StepStatus
from headwater.catalog.storage.base import CellState
from headwater.materialize.execution.state import Decision, RunState
from tests.materialize.simulation import COLUMNS, Made, World, node, world

A, B, C, D = (AssetKey(name) for name in "abcd")
CHAIN = (node("a"), node("b", "a"), node("c", "b"))


def started(w: World, **options: Any) -> RunState:
    return RunState(w.plan(**options), w.graph, {cell.asset: state for cell, state in w.states.items()})


def built(*nodes: AssetNode) -> World:
    w = world(*nodes)
    w.run(w.plan(), lambda key: Made(data=f"{key} 1", columns={c: f"{key} {c} 1" for c in COLUMNS}))
    return w


def only(state: RunState) -> Decision:
    (decision,) = state.ready()
    return decision


def make(w: World, state: RunState, key: AssetKey, data: str) -> dict[Cell, CellState]:
    return {Cell(key): w.record(w.graph, key, Made(data=data), state.current)}


def assets(decision: Decision) -> tuple[AssetKey, ...]:
    return tuple(cell.cell.asset for cell in decision.cells)


def finish(
    state: RunState,
    key: str,
    status: StepStatus,
    *,
    ran: Collection[AssetKey] = (),
    made: Mapping[Cell, CellState] | None = None,
    message: str = "",
) -> None:
    """A step that was to make `ran` came to its end."""
    made = made or {}
    ended = StepStatus.SKIPPED if status is StepStatus.SUCCESS else status
    lost = {Cell(key): ended for key in ran if Cell(key) not in made}
    state.finished(key, status, made=made, lost=lost, message=message)


def test_steps_become_ready_when_those_before_are_done() -> None:
    w = world(node("a"), node("b"), node("c", "a", "b"))
    state = started(w)
    assert [d.step.key for d in state.ready()] == ["a", "b"]
    assert state.ready() == []
    finish(state, "a", StepStatus.SUCCESS, ran=[A], made=make(w, state, A, "1"))
    assert state.ready() == []
    finish(state, "b", StepStatus.SUCCESS, ran=[B], made=make(w, state, B, "1"))
    decision = only(state)
    assert (decision.step.key, decision.status, assets(decision)) == ("c", None, (C,))
    assert not state.done
    finish(state, "c", StepStatus.SUCCESS, ran=[C], made=make(w, state, C, "1"))
    assert state.done


def test_an_empty_plan_is_done() -> None:
    state = started(built(*CHAIN))
    assert state.done
    assert state.ready() == []


def test_what_depends_on_a_failure_is_skipped_and_says_why() -> None:
    w = world(*CHAIN, node("d"))
    state = started(w)
    assert [d.step.key for d in state.ready()] == ["a", "d"]
    finish(state, "a", StepStatus.FAILURE, ran=[A])
    decision = only(state)
    assert (decision.step.key, decision.status, decision.message) == ("b", StepStatus.SKIPPED, "`a` failed")
    assert assets(decision) == (B,)
    finish(state, "b", StepStatus.SKIPPED, ran=assets(decision), message=decision.message)
    decision = only(state)
    assert (decision.step.key, decision.status, decision.message) == ("c", StepStatus.SKIPPED, "`a` failed")
    finish(state, "c", StepStatus.SKIPPED, ran=assets(decision), message=decision.message)
    finish(state, "d", StepStatus.SUCCESS, ran=[D], made=make(w, state, D, "1"))
    assert state.done


def test_what_depends_on_an_output_that_was_left_out_is_skipped() -> None:
    w = world(node("a", step="both", can_subset=False), node("b", step="both", can_subset=False), node("c", "b"))
    state = started(w)
    assert assets(only(state)) == (A, B)
    finish(state, "both", StepStatus.SUCCESS, ran=[A, B], made=make(w, state, A, "1"))
    decision = only(state)
    assert (decision.status, decision.message) == (StepStatus.SKIPPED, "`b` was not produced")


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (StepStatus.FAILURE, "`a` failed"),
        (StepStatus.SKIPPED, "`a` was skipped"),
        (StepStatus.CANCELED, "`a` was canceled"),
        (StepStatus.SUCCESS, "`a` was not produced"),
        (StepStatus.INTERRUPTED, "`a` was not produced"),
    ],
)
def test_each_end_has_its_words(status: StepStatus, reason: str) -> None:
    state = started(world(*CHAIN))
    only(state)
    finish(state, "a", status, ran=[A])
    assert only(state).message == reason


def test_what_was_rebuilt_to_the_same_content_ends_there() -> None:
    w = built(*CHAIN)
    w.edit("a", code="py1:2")
    state = started(w)
    only(state)
    same = replace(w.record(w.graph, A, Made(data="a 1"), state.current), version_id="new")
    finish(state, "a", StepStatus.SUCCESS, ran=[A], made={Cell(A): same})
    for key in ("b", "c"):
        decision = only(state)
        assert (decision.step.key, decision.status, decision.run) == (key, StepStatus.VERIFIED, ())
        assert "turned out to be what it was built from" in decision.message
        finish(state, key, StepStatus.VERIFIED)
    assert state.done


def test_what_was_rebuilt_to_other_content_goes_on() -> None:
    w = built(*CHAIN)
    w.edit("a", code="py1:2")
    state = started(w)
    only(state)
    finish(state, "a", StepStatus.SUCCESS, ran=[A], made=make(w, state, A, "a 2"))
    assert assets(only(state)) == (B,)


def test_a_forced_step_runs_whatever_its_inputs_are() -> None:
    state = started(built(*CHAIN), force=True)
    decision = only(state)
    assert assets(decision) == (A,)


def test_of_a_step_that_can_make_some_only_those_run_that_have_to() -> None:
    some: dict[str, Any] = {"step": "some", "can_subset": True}
    w = built(node("a"), node("b", "a", **some), node("c", "-a:x", **some), node("d", "-b", **some))
    w.edit("a", code="py1:2")
    state = started(w)
    only(state)
    made = {Cell(A): w.record(w.graph, A, Made(data="a 2", columns={"x": "a x 1", "y": "other"}), state.current)}
    finish(state, "a", StepStatus.SUCCESS, ran=[A], made=made)
    decision = only(state)
    assert [str(cell.cell) for cell in decision.step.cells] == ["b", "c", "d"]
    assert assets(decision) == (B, D)


def test_after_a_cancel_nothing_is_started() -> None:
    w = world(*CHAIN, node("d"))
    state = started(w)
    assert len(state.ready()) == 2
    finish(state, "d", StepStatus.SUCCESS, ran=[D], made=make(w, state, D, "1"))
    state.cancel()
    finish(state, "a", StepStatus.SUCCESS, ran=[A], made=make(w, state, A, "1"))
    for key in ("b", "c"):
        decision = only(state)
        assert (decision.step.key, decision.status) == (key, StepStatus.CANCELED)
        assert decision.message == "the run was canceled"
        finish(state, key, StepStatus.CANCELED, ran=assets(decision))
    assert state.done


@st.composite
def worlds(draw: st.DrawFn) -> World:
    size = draw(st.integers(1, 8))
    nodes: list[AssetNode] = []
    for i in range(size):
        chosen = draw(st.lists(st.integers(0, i - 1), max_size=3, unique=True)) if i else []
        nodes.append(node(f"n{i}", *(f"n{j}" for j in chosen)))
    return world(*nodes)


@given(worlds(), st.data())
@settings(max_examples=200)
def test_every_step_ends_once_and_never_before_what_it_needs(w: World, data: st.DataObject) -> None:
    """Steps end in any order and any way, some produce nothing, and somebody may cancel the run."""
    state = started(w)
    running: dict[str, Decision] = {}
    ended: dict[str, StepStatus] = {}
    offered: list[str] = []
    missing: set[AssetKey] = set()
    canceled = False
    while not state.done:
        for decision in state.ready():
            key = decision.step.key
            offered.append(key)
            assert decision.step.after <= ended.keys()
            parents = {p for cell in decision.step.cells for p in w.graph.parents(cell.cell.asset)}
            if canceled:
                assert decision.status is StepStatus.CANCELED
            elif parents & missing:
                assert decision.status is StepStatus.SKIPPED
            else:
                assert decision.status is None
            running[key] = decision
        assert running, "a run that is not done has something to do"
        key = data.draw(st.sampled_from(sorted(running)))
        decision = running.pop(key)
        status = decision.status or data.draw(st.sampled_from([StepStatus.SUCCESS, StepStatus.FAILURE]))
        made: Mapping[Cell, CellState] = {}
        if status is StepStatus.SUCCESS and data.draw(st.integers(0, 4)):
            made = {Cell(asset): w.record(w.graph, asset, Made(data="1"), state.current) for asset in assets(decision)}
        missing.update(asset for asset in assets(decision) if Cell(asset) not in made)
        finish(state, key, status, ran=assets(decision), made=made)
        assert key not in ended
        ended[key] = status
        if not data.draw(st.integers(0, 9)):
            canceled = True
            state.cancel()
    assert not running
    assert sorted(offered) == sorted(set(offered)) == sorted(ended) == sorted(step.key for step in state.plan.steps)
    assert state.statuses == ended
    assert state.ready() == []
    assert set(state.unavailable) == missing
