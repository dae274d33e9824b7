from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.catalog.keys import AssetKey
from headwater.catalog.lineage.asset_graph import AssetGraph
from headwater.catalog.lineage.node import UNBOUND, AssetNode, Dependency
from headwater.catalog.records import Cell, Fingerprint
from headwater.catalog.storage.base import CellState
from headwater.materialize.causes import TRANSITIVE, CauseKind, Status
from headwater.materialize.staleness import evaluate
from tests.materialize.simulation import COLUMNS, Made, World, node, world

Kinds = list[tuple[CauseKind, str | None]]


def causes(w: World, key: str) -> Kinds:
    return [(cause.kind, cause.upstream and str(cause.upstream)) for cause in w.staleness().of(AssetKey(key)).causes]


def built(*nodes: AssetNode, columns: bool = True) -> World:
    """A world in which everything has been made once."""
    w = world(*nodes)
    w.run(w.plan(), lambda key: Made(data=f"{key} 1", columns={c: f"{key} {c} 1" for c in COLUMNS} if columns else {}))
    assert set(w.staleness().statuses().values()) <= {Status.FRESH}
    return w


def rebuild(w: World, key: str, data: str, **columns: str) -> None:
    """New data of one asset, its own inputs as they are now."""
    old = w.states[Cell(AssetKey(key))]
    known = {cell.asset: state for cell, state in w.states.items()}
    made = Made(data=data, columns={**old.columns, **columns})
    w.states[Cell(AssetKey(key))] = w.record(w.graph, AssetKey(key), made, known)


def test_what_was_never_made_is_missing() -> None:
    w = world(node("a"), node("b", "a"))
    assert causes(w, "a") == [(CauseKind.NEVER_MATERIALIZED, None)]
    assert causes(w, "b") == [(CauseKind.NEVER_MATERIALIZED, None)]
    assert w.staleness().statuses() == {"a": Status.MISSING, "b": Status.MISSING}


@pytest.mark.parametrize(
    ("part", "kind", "text"),
    [
        ("code", CauseKind.CODE_CHANGED, "code changed (1 → 2)"),
        ("definition", CauseKind.DEFINITION_CHANGED, "inputs are wired differently"),
        ("config", CauseKind.CONFIG_CHANGED, "config changed"),
        ("resources", CauseKind.RESOURCES_CHANGED, "a resource changed"),
        ("io", CauseKind.IO_MANAGER_CHANGED, "the IO manager changed"),
    ],
)
def test_each_part_of_a_fingerprint_is_a_cause(part: str, kind: CauseKind, text: str) -> None:
    w = built(node("a"), node("b", "a"), node("c", "b"))
    w.edit("b", **{part: "py1:2" if part == "code" else "cfg1:2"})
    assert causes(w, "a") == []
    assert causes(w, "b") == [(kind, None)]
    assert causes(w, "c") == [(CauseKind.UPSTREAM_STALE, "b")]
    assert str(w.staleness().of(AssetKey("b")).causes[0]) == text
    assert not w.staleness().of(AssetKey("b")).causes[0].transitive


def test_several_causes_stand_beside_each_other_direct_ones_first() -> None:
    w = built(node("a"), node("b"), node("c", "a", "b"))
    rebuild(w, "a", "a 2")
    w.edit("b", code="py1:2")
    w.edit("c", code="user:x", config="cfg1:2")
    assert causes(w, "c") == [
        (CauseKind.CODE_CHANGED, None),
        (CauseKind.CONFIG_CHANGED, None),
        (CauseKind.UPSTREAM_DATA_CHANGED, "a"),
        (CauseKind.UPSTREAM_STALE, "b"),
    ]
    assert [str(cause) for cause in w.staleness().of(AssetKey("c")).causes] == [
        "code changed (1 → 'x')",
        "config changed",
        "a has new data",
        "b is stale",
    ]


@pytest.mark.parametrize(
    ("old", "new", "stale"),
    [
        ("py1:1", "py1:2", True),
        ("py1:1", "py2:1", False),
        ("py9:1", "py10:2", False),
        ("py1:1", "bc1:1", True),
        ("py1:1", "user:1", True),
        ("user:1", "user:2", True),
        ("user:py1:1", "user:py2:1", True),
        ("", "py1:1", True),
    ],
)
def test_versions_of_one_method_compare_and_of_its_next_release_do_not(old: str, new: str, stale: bool) -> None:
    w = world(node("a", fingerprint=Fingerprint(code=old)))
    w.run(w.plan(), lambda key: Made(data="1"))
    w.edit("a", code=new)
    assert causes(w, "a") == ([(CauseKind.CODE_CHANGED, None)] if stale else [])


def test_a_configuration_that_is_left_to_the_run_is_not_known_to_differ() -> None:
    w = built(node("a"))
    w.edit("a", config="cfg1:1")
    assert causes(w, "a") == [(CauseKind.CONFIG_CHANGED, None)]
    w.edit("a", config=UNBOUND)
    assert causes(w, "a") == []


def test_dependencies_come_and_go() -> None:
    w = built(node("a"), node("b"), node("c", "a", "-b"))
    w.edit("c", deps=(Dependency(key=AssetKey("a")), Dependency(key=AssetKey("d"))))
    w.nodes[AssetKey("d")] = node("d")
    assert causes(w, "c") == [
        (CauseKind.DEPENDENCY_ADDED, "d"),
        (CauseKind.DEPENDENCY_REMOVED, "b"),
        (CauseKind.UPSTREAM_MISSING, "d"),
    ]
    assert [str(cause) for cause in w.staleness().of(AssetKey("c")).causes] == [
        "new dependency d",
        "no longer depends on b",
        "d is missing",
    ]


@pytest.mark.parametrize("dep", ["a", "-a"])
def test_new_data_above_is_a_cause_loaded_or_not(dep: str) -> None:
    w = built(node("a"), node("b", dep), node("c", "b"))
    version = w.states[Cell(AssetKey("a"))].version_id
    rebuild(w, "a", "a 2")
    (cause,) = w.staleness().of(AssetKey("b")).causes
    assert (cause.kind, cause.upstream, cause.columns) == (CauseKind.UPSTREAM_DATA_CHANGED, "a", ())
    assert cause.read_version == version
    assert causes(w, "c") == [(CauseKind.UPSTREAM_STALE, "b")]
    rebuild(w, "a", "a 1")
    assert causes(w, "b") == []


@pytest.mark.parametrize("dep", ["a:x", "-a:x"])
def test_only_the_columns_that_are_read_matter(dep: str) -> None:
    w = built(node("a"), node("b", dep))
    rebuild(w, "a", "a 2", y="a y 2")
    assert causes(w, "b") == []
    rebuild(w, "a", "a 3", x="a x 2")
    (cause,) = w.staleness().of(AssetKey("b")).causes
    assert (cause.kind, cause.columns) == (CauseKind.UPSTREAM_DATA_CHANGED, ("x",))
    assert str(cause) == "a has new data in x"


def test_a_column_that_is_gone_or_new_matters_to_who_reads_it() -> None:
    w = built(node("a"), node("b", "a:x"), node("c", "a:z"))
    state = w.states[Cell(AssetKey("a"))]
    w.states[Cell(AssetKey("a"))] = replace(state, data_version="a 2", columns={"y": "a y 1", "z": "a z 1"})
    assert [c.columns for c in w.staleness().of(AssetKey("b")).causes] == [("x",)]
    assert [c.columns for c in w.staleness().of(AssetKey("c")).causes] == [("z",)]


def test_without_versions_of_columns_all_of_the_data_matters() -> None:
    w = built(node("a"), node("b", "a:x"), columns=False)
    rebuild(w, "a", "a 2")
    assert causes(w, "b") == [(CauseKind.UPSTREAM_DATA_CHANGED, "a")]


def test_a_reader_of_all_columns_that_will_read_few_compares_the_whole() -> None:
    w = built(node("a"), node("b", "-a"))
    w.edit("b", deps=(Dependency(key=AssetKey("a"), columns=("x",)),))
    assert causes(w, "b") == []
    rebuild(w, "a", "a 2", y="a y 2")
    assert causes(w, "b") == [(CauseKind.UPSTREAM_DATA_CHANGED, "a")]


def test_external_assets_matter_once_they_are_observed() -> None:
    w = built(node("feed", external=True), node("b", "-feed"))
    assert causes(w, "b") == []
    w.observe("feed", Made(data="f 1"))
    assert causes(w, "b") == [(CauseKind.UPSTREAM_DATA_CHANGED, "feed")]
    w.run(w.plan(), lambda key: Made(data="b 2"))
    assert causes(w, "b") == []
    w.observe("feed", Made(data="f 1"))
    assert causes(w, "b") == []
    w.observe("feed", Made(data="f 2"))
    assert causes(w, "b") == [(CauseKind.UPSTREAM_DATA_CHANGED, "feed")]
    del w.states[Cell(AssetKey("feed"))]
    assert causes(w, "b") == []
    assert AssetKey("feed") not in w.staleness().statuses()


def test_staleness_reaches_as_far_as_the_graph() -> None:
    names = [f"n{i}" for i in range(50)]
    w = built(*(node(name, *names[max(0, i - 2) : i]) for i, name in enumerate(names)))
    w.edit("n3", code="py1:2")
    statuses = w.staleness().statuses()
    assert [statuses[AssetKey(n)] for n in names[:3]] == [Status.FRESH] * 3
    assert {statuses[AssetKey(n)] for n in names[3:]} == {Status.STALE}
    assert causes(w, "n5") == [(CauseKind.UPSTREAM_STALE, "n3"), (CauseKind.UPSTREAM_STALE, "n4")]


def test_what_is_recorded_of_assets_that_are_gone_is_ignored() -> None:
    w = built(node("a"), node("b"))
    del w.nodes[AssetKey("a")]
    assert w.staleness().statuses() == {"b": Status.FRESH}


# A model of what staleness means, written from the definition and nothing else.


@dataclass(frozen=True)
class Naive:
    """Statuses by recursion over the definition, without order, sharing or shortcuts."""

    nodes: Mapping[AssetKey, AssetNode]
    states: Mapping[AssetKey, CellState]

    def status(self, key: AssetKey) -> Status:
        if key not in self.states:
            return Status.MISSING
        return Status.STALE if self.kinds(key) else Status.FRESH

    def kinds(self, key: AssetKey) -> set[tuple[CauseKind, AssetKey | None]]:
        here, state = self.nodes[key], self.states[key]
        found: set[tuple[CauseKind, AssetKey | None]] = set()
        assert here.fingerprint is not None
        for part, kind in (("code", CauseKind.CODE_CHANGED), ("config", CauseKind.CONFIG_CHANGED)):
            if getattr(here.fingerprint, part) != getattr(state.fingerprint, part):
                found.add((kind, None))
        read = {item.asset: item for item in state.inputs}
        now = {dep.key: dep for dep in here.deps}
        found |= {(CauseKind.DEPENDENCY_ADDED, name) for name in now.keys() - read.keys()}
        found |= {(CauseKind.DEPENDENCY_REMOVED, name) for name in read.keys() - now.keys()}
        for name in now.keys() & read.keys():
            if self.differs(now[name], name, read):
                found.add((CauseKind.UPSTREAM_DATA_CHANGED, name))
        for name in now:
            if name in self.nodes and self.nodes[name].step is not None:
                above = self.status(name)
                if above is Status.STALE:
                    found.add((CauseKind.UPSTREAM_STALE, name))
                elif above is Status.MISSING:
                    found.add((CauseKind.UPSTREAM_MISSING, name))
        return found

    def differs(self, dep: Dependency, name: AssetKey, read: Mapping[AssetKey, object]) -> bool:
        item, state = read[name], self.states.get(name)
        if state is None:
            return False
        same = getattr(item, "data_version") == state.data_version  # noqa: B009
        columns = getattr(item, "columns")  # noqa: B009
        if same or dep.columns is None or columns is None or not state.columns:
            return not same
        return any(columns.get(c) != state.columns.get(c) for c in dep.columns)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Up to six assets, one of them perhaps external."""
    size = draw(st.integers(1, 6))
    nodes: list[AssetNode] = []
    for i in range(size):
        chosen = draw(st.lists(st.integers(0, i - 1), max_size=3, unique=True)) if i else []
        deps = [f"{draw(st.sampled_from(['', '-']))}n{j}{draw(st.sampled_from(['', ':x', ':x,y']))}" for j in chosen]
        nodes.append(node(f"n{i}", *deps, external=i == 0 and draw(st.booleans())))
    return world(*nodes)


def draw_data(data: st.DataObject, w: World) -> Callable[[AssetKey], Made]:
    def produce(key: AssetKey) -> Made:
        versions = {c: data.draw(st.sampled_from("12")) for c in data.draw(st.sampled_from([(), COLUMNS]))}
        return Made(data="".join(versions.values()) or data.draw(st.sampled_from("12")), columns=versions)

    return produce


@given(worlds(), st.data())
@settings(max_examples=150)
def test_statuses_are_those_of_the_naive_model_after_any_history(w: World, data: st.DataObject) -> None:
    for _ in range(data.draw(st.integers(1, 6))):
        key = data.draw(st.sampled_from(sorted(w.nodes)))
        match data.draw(st.sampled_from(["build", "build one", "edit", "rewire", "observe", "wipe"])):
            case "build":
                w.run(w.plan(force=data.draw(st.booleans())), draw_data(data, w))
            case "build one" if w.nodes[key].step is not None:
                known = {cell.asset: state for cell, state in w.states.items()}
                w.states[Cell(key)] = w.record(w.graph, key, draw_data(data, w)(key), known)
            case "edit" if w.nodes[key].step is not None:
                w.edit(key, **{data.draw(st.sampled_from(["code", "config"])): f"py1:{data.draw(st.integers(1, 3))}"})
            case "rewire":
                others = [k for k in sorted(w.nodes) if k < key]
                chosen = data.draw(st.lists(st.sampled_from(others), max_size=3, unique=True)) if others else []
                w.edit(key, deps=tuple(Dependency(key=k) for k in chosen))
            case "observe" if w.nodes[key].step is None:
                w.observe(key, draw_data(data, w)(key))
            case "wipe":
                w.states.pop(Cell(key), None)
            case _:
                pass
        model = Naive(w.nodes, {cell.asset: state for cell, state in w.states.items()})
        staleness = w.staleness()
        for name, one in w.nodes.items():
            if one.step is None:
                continue
            status = staleness.of(name)
            assert status.status is model.status(name)
            found = [(cause.kind, cause.upstream) for cause in status.causes]
            assert len(set(found)) == len(found)
            if status.status is not Status.MISSING:
                assert set(found) == model.kinds(name)
            direct = [kind not in TRANSITIVE for kind, _ in found]
            assert direct == sorted(direct, reverse=True)


def test_ten_thousand_assets_are_decided_in_one_pass() -> None:
    keys = [AssetKey(f"a{i}") for i in range(10_000)]
    nodes = [
        AssetNode(
            key=key,
            step=key,
            deps=tuple(Dependency(key=keys[j]) for j in {i // 2, i // 3} if j < i),
            fingerprint=Fingerprint(code="py1:1"),
        )
        for i, key in enumerate(keys)
    ]
    w = world(*nodes)
    w.run(w.plan(), lambda key: Made(data="1"))
    w.edit("a0", code="py1:2")
    assert set(evaluate(AssetGraph(w.nodes.values()), w.states).statuses().values()) == {Status.STALE}
