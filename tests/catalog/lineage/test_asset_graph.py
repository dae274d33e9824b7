import json
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.catalog.errors import CycleError, DuplicateAssetError, UnknownAssetError
from headwater.catalog.keys import AssetKey
from headwater.catalog.lineage.asset_graph import AssetGraph
from headwater.catalog.lineage.node import (
    AssetNode,
    Dependency,
    changed_parts,
    node_from_json,
    node_to_json,
    nodes_from_bytes,
    nodes_to_bytes,
)
from headwater.catalog.metadata import MetadataValue
from headwater.catalog.partitions.mapping import TimeWindowPartitionMapping
from headwater.catalog.partitions.time_window import DailyPartitionsDefinition
from headwater.catalog.records import Fingerprint


def node(key: str, *deps: str, step: str | None = None) -> AssetNode:
    return AssetNode(
        key=AssetKey(key),
        deps=tuple(Dependency(key=AssetKey(dep)) for dep in deps),
        step=step or key,
        source=f"{key}.py:1",
    )


def graph(**deps: str) -> AssetGraph:
    """A graph from names and what each depends on, separated by blanks."""
    return AssetGraph(node(key, *needs.split()) for key, needs in deps.items())


def keys(*names: str) -> set[AssetKey]:
    return {AssetKey(name) for name in names}


@st.composite
def random_graphs(draw: st.DrawFn) -> AssetGraph:
    size = draw(st.integers(1, 10))
    names = [f"n{i}" for i in range(size)]
    needs = {
        name: draw(st.lists(st.sampled_from([*names[:i], "outside"]), max_size=4, unique=True))
        for i, name in enumerate(names)
    }
    order = draw(st.permutations(names))
    return AssetGraph(node(name, *needs[name]) for name in order)


def naive_reach(graph: AssetGraph, starts: Iterable[AssetKey], depth: int | None, *, up: bool) -> set[AssetKey]:
    edges = [(n.key, dep.key) for n in graph for dep in n.deps]
    pairs = edges if up else [(b, a) for a, b in edges]
    reached: set[AssetKey] = set()
    layer = set(starts)
    for _ in range(len(graph) if depth is None else depth):
        layer = {b for a, b in pairs if a in layer}
        reached |= layer
    return reached


@given(random_graphs(), st.data())
def test_upstream_and_downstream_are_what_the_edges_say(graph: AssetGraph, data: st.DataObject) -> None:
    starts = data.draw(st.sets(st.sampled_from(list(graph.nodes))))
    depth = data.draw(st.none() | st.integers(0, 4))
    assert graph.upstream(starts, depth) == naive_reach(graph, starts, depth, up=True)
    assert graph.downstream(starts, depth) == naive_reach(graph, starts, depth, up=False)


@given(random_graphs(), st.data())
def test_roots_sinks_and_order(graph: AssetGraph, data: st.DataObject) -> None:
    chosen = data.draw(st.sets(st.sampled_from(list(graph.nodes))))
    direct = {key: set(graph.parents(key)) & chosen for key in chosen}
    assert graph.roots(chosen) == {key for key in chosen if not direct[key]}
    assert graph.sinks(chosen) == {key for key in chosen if not any(key in direct[other] for other in chosen)}
    ordered = graph.sorted(chosen)
    assert set(ordered) == chosen
    assert all(ordered.index(parent) < ordered.index(key) for key in chosen for parent in direct[key])
    for key in graph.keys:
        assert all(key in graph.parents(child) for child in graph.children(key))
        assert all(key in graph.children(parent) for parent in graph.parents(key))


@given(random_graphs())
def test_nodes_keep_their_order_once_it_is_right(graph: AssetGraph) -> None:
    again = AssetGraph(graph)
    assert list(again.nodes) == list(graph.nodes)
    assert list(AssetGraph(nodes_from_bytes(nodes_to_bytes(graph)))) == list(graph)


def test_the_order_of_definition_is_kept_where_it_can_be() -> None:
    g = graph(z="", b="outside d", c="", d="z", a="")
    assert list(g.nodes) == ["z", "outside", "d", "b", "c", "a"]


def test_names_that_nobody_defines_are_external() -> None:
    g = graph(a="elsewhere", b="a elsewhere")
    assert g[AssetKey("elsewhere")].external
    assert g[AssetKey("elsewhere")].source == "a.py:1"
    assert g.materializable == keys("a", "b")
    assert g.keys == keys("a", "b", "elsewhere")
    assert "elsewhere" in g
    assert "nowhere" not in g


def test_find_names_the_nearest() -> None:
    g = graph(orders="", customers="")
    assert g.find("orders").key == "orders"
    with pytest.raises(UnknownAssetError, match="Did you mean `orders`"):
        g.find("orderz")


def test_steps_hold_their_assets_in_order() -> None:
    g = AssetGraph([node("b", "a", step="s"), node("a", step="s"), node("c", "b")])
    assert dict(g.steps) == {"s": ("a", "b"), "c": ("c",)}


def test_two_nodes_of_one_key_are_refused_with_both_places() -> None:
    first = AssetNode(key=AssetKey("a"), source="one.py:3")
    second = AssetNode(key=AssetKey("a"), source="two.py:7")
    with pytest.raises(DuplicateAssetError) as caught:
        AssetGraph([first, second])
    assert "one.py:3" in str(caught.value)
    assert "two.py:7" in str(caught.value)


def test_the_shortest_circle_is_printed_with_its_places() -> None:
    with pytest.raises(CycleError) as caught:
        graph(a="d", b="a", c="b", d="c", e="a f", f="e", g="f")
    assert "`e` → `f` → `e`" in str(caught.value) or "`f` → `e` → `f`" in str(caught.value)
    assert "  e: e.py:1" in str(caught.value)
    assert "  f: f.py:1" in str(caught.value)
    assert "a.py" not in str(caught.value)


def test_an_asset_that_depends_on_itself_is_a_circle() -> None:
    with pytest.raises(CycleError, match="`a` → `a`"):
        graph(a="a")


def test_the_direction_of_a_circle_is_that_of_the_data() -> None:
    with pytest.raises(CycleError) as caught:
        graph(raw="report", clean="raw", report="clean")
    line = str(caught.value).splitlines()[0]
    assert line.endswith("`raw` → `clean` → `report` → `raw`")


def test_a_circle_of_thousands_fits_a_screen() -> None:
    size = 3000
    with pytest.raises(CycleError) as caught:
        AssetGraph(node(f"a{i}", f"a{(i or size) - 1}") for i in range(size))
    assert len(str(caught.value).splitlines()) < 30


def test_a_step_that_would_run_before_and_after_another_is_refused() -> None:
    nodes = [node("a", step="both"), node("b", "a"), node("c", "b", step="both")]
    with pytest.raises(CycleError) as caught:
        AssetGraph(nodes)
    message = str(caught.value)
    assert "The step `both`" in message
    assert "  b depends on a: b.py:1" in message
    assert "  c depends on b: c.py:1" in message
    assert "Split it" in message


FULL = AssetNode(
    key=AssetKey(["a/b", "c"]),
    group="core/raw",
    description="what it is",
    kinds=("python", "polars"),
    owners=("team:x",),
    tags={"tier": "gold"},
    metadata={"n": MetadataValue.int(5), "t": MetadataValue.table_schema({"a": "int"})},
    deps=(Dependency(key=AssetKey("d"), parameter="p", columns=("x", "y")), Dependency(key=AssetKey("e"))),
    step="s",
    can_subset=False,
    fingerprint=Fingerprint(code="user:7", definition="cfg1:1", config="cfg1:2", resources="cfg1:3", io="cfg1:4"),
    io_manager="warehouse",
    stored=False,
    source="assets.py:12",
)


#: Canonical: names in order, no spaces.
DAILY = (
    '{"cron":"0 0 * * *","end":null,"end_offset":0,"exclusions":[],"fmt":"%Y-%m-%d","kind":"daily",'
    '"start":1356998400,"timezone":"UTC"}'
)
EARLIER = '{"allow_nonexistent_upstream_partitions":false,"end_offset":-1,"kind":"time_window","start_offset":-1}'
DIVIDED = AssetNode(
    key=AssetKey("sum"),
    deps=(Dependency(key=AssetKey("sum"), parameter="sum", mapping=EARLIER), Dependency(key=AssetKey("e"))),
    step="sum",
    partitions=DAILY,
    batch=None,
)


def test_an_asset_may_read_its_own_earlier_partitions() -> None:
    other = AssetNode(key=AssetKey("z"), step="z", deps=(Dependency(key=AssetKey("sum")),))
    graph = AssetGraph([other, DIVIDED])
    own = AssetKey("sum")
    assert list(graph.nodes) == ["e", "sum", "z"]
    assert graph.parents(own) == ("e",)
    assert graph.children(own) == ("z",)
    assert own not in graph.upstream([own]) | graph.downstream([own])
    assert graph.roots([own]) == graph.sinks([own]) == {own}
    assert graph.steps == {"sum": ("sum",), "z": ("z",)}
    assert graph[own].deps == DIVIDED.deps


def test_definitions_and_mappings_of_nodes() -> None:
    assert DIVIDED.partitions_def == DailyPartitionsDefinition("2013-01-01")
    assert DIVIDED.partitions_def is AssetNode(key=AssetKey("x"), partitions=str(DAILY)).partitions_def
    assert DIVIDED.deps[0].partition_mapping == TimeWindowPartitionMapping(start_offset=-1, end_offset=-1)
    assert (FULL.partitions_def, FULL.deps[0].partition_mapping) == (None, None)


def test_equal_definitions_are_one_text_after_reading() -> None:
    again = AssetNode(key=AssetKey("x"), partitions="".join(DAILY))
    one, other = nodes_from_bytes(nodes_to_bytes([DIVIDED, again]))
    assert one.partitions is other.partitions


@pytest.mark.parametrize("one", [FULL, DIVIDED, AssetNode(key=AssetKey("plain"))])
def test_nodes_survive_being_kept(one: AssetNode) -> None:
    kept = json.loads(json.dumps(node_to_json(one)))
    assert node_from_json(kept) == one
    (again,) = nodes_from_bytes(nodes_to_bytes([one]))
    assert again == one
    assert type(again.key) is AssetKey
    assert kept["external"] == (one.step is None)
    assert kept["code_version"] == ("7" if one is FULL else None)


def test_bytes_that_are_no_nodes_are_refused() -> None:
    data = nodes_to_bytes([FULL])
    for bad in (b"", b"\x00", data[:-3], data + b"\x00", b"\x91\x91\xa1\x0a", b"\x91\x91\xa0"):
        with pytest.raises(ValueError, match=r"."):
            nodes_from_bytes(bad)


def test_the_parts_that_changed_are_named() -> None:
    old = node_to_json(FULL)
    assert changed_parts(old, old) == ()
    assert changed_parts(old, {**old, "source": "elsewhere.py:1"}) == ()
    divided = {**old, "partitions_def": {"kind": "dynamic", "name": "x"}, "backfill_policy": {}}
    assert changed_parts(old, divided) == ("backfill_policy", "partitions_def")
    before_partitions = {name: old[name] for name in old if name not in ("partitions_def", "backfill_policy")}
    assert changed_parts(before_partitions, old) == ()
    mapped = [{**dep, "mapping": {"kind": "last"}} for dep in old["deps"]]
    assert changed_parts(old, {**old, "deps": mapped}) == ("deps",)
    assert changed_parts(old, {**old, "group": "other"}) == ("group",)
    assert changed_parts(old, {**old, "fingerprint": {**old["fingerprint"], "code": "user:8"}}) == ("code_version",)
    assert changed_parts(old, {**old, "fingerprint": {**old["fingerprint"], "config": "cfg1:9"}}) == ("config",)
    assert changed_parts(old, {**old, "fingerprint": None, "external": True, "step": None}) == (
        "code_version",
        "config",
        "io",
        "resources",
        "step",
    )
