import re
from collections.abc import Collection, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.catalog.definitions.asset import AssetOut, AssetSpec, asset, multi_asset
from headwater.catalog.definitions.selection import (
    MAX_LEVELS,
    STATUSES,
    All,
    And,
    AssetSelection,
    Ends,
    Field,
    Key,
    Not,
    Nothing,
    Or,
    Traversal,
    coerce_selection,
    parse_selection,
)
from headwater.catalog.errors import DefinitionError, SelectionError, UnknownAssetError
from headwater.catalog.keys import AssetKey
from headwater.catalog.lineage.asset_graph import AssetGraph
from headwater.catalog.lineage.node import AssetNode, Dependency
from headwater.catalog.printable import printable
from tests.corpus import HOSTILE

NAMES = ("a", "b", "raw/orders", "raw/lines", "1", "and", "Or", "sinks", "x y", 'q"t', "ü", "a*b", "back\\slash", "p:q")


def node(key: str, *deps: str, external: bool = False, **attributes: Any) -> AssetNode:
    return AssetNode(
        key=AssetKey(key),
        deps=tuple(Dependency(key=AssetKey(dep)) for dep in deps),
        step=None if external else attributes.pop("step", key),
        **attributes,
    )


class Facts:
    """What a catalog would know."""

    def __init__(
        self,
        statuses: Mapping[str, str] | None = None,
        columns: Mapping[str, Collection[str]] | None = None,
        states: Mapping[str, str] | None = None,
        failed: Collection[str] = (),
    ) -> None:
        self._statuses = {AssetKey(k): v for k, v in (statuses or {}).items()}
        self._columns = {AssetKey(k): v for k, v in (columns or {}).items()}
        self._states = {AssetKey(k): v for k, v in (states or {}).items()}
        self._failed = {AssetKey(k) for k in failed}

    def statuses(self) -> Mapping[AssetKey, str]:
        return self._statuses

    def failed(self) -> Collection[AssetKey]:
        return self._failed

    def columns(self) -> Mapping[AssetKey, Collection[str]]:
        return self._columns

    def states(self) -> Mapping[AssetKey, str]:
        return self._states


SHOP = AssetGraph(
    [
        node("raw/orders", "feed", group="raw", kinds=("python",), owners=("team:core",), tags={"tier": "gold"}),
        node("raw/lines", group="raw", kinds=("sql",), tags={"tier": "silver", "pii": ""}, io_manager="lake"),
        node("clean", "raw/orders", "raw/lines", group="core", step="both", owners=("me@example.org",)),
        node("rejected", "raw/orders", group="core", step="both"),
        node("report", "clean", group="report/daily", kinds=("python", "polars")),
        node("extra", group="report"),
        node("feed", external=True),
    ]
)
FACTS = Facts(
    {"raw/orders": "FRESH", "clean": "STALE", "report": "STALE", "rejected": "MISSING", "gone": "STALE"},
    {"clean": ["id", "amount"], "report": ["amount_total"], "gone": ["id"]},
    {"clean": "modified", "extra": "new"},
    ("report", "gone"),
)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("*", "raw/orders raw/lines clean rejected report extra feed"),
        ("clean", "clean"),
        ('"clean"', "clean"),
        ("raw/orders", "raw/orders"),
        ("raw/*", "raw/orders raw/lines"),
        ("*re*", "rejected report"),
        ("+clean", "clean raw/orders raw/lines feed"),
        ("1+clean", "clean raw/orders raw/lines"),
        ("clean+", "clean report"),
        ("raw/orders+1", "raw/orders clean rejected"),
        ("raw/orders+", "raw/orders clean rejected report"),
        ("1+clean+1", "raw/orders raw/lines clean report"),
        ("+clean+", "feed raw/orders raw/lines clean report"),
        ("0+clean", "clean"),
        ("99999999999999999999+report", "report clean raw/orders raw/lines feed"),
        ("(raw/lines or rejected)+", "raw/lines clean report rejected"),
        ("group:raw", "raw/orders raw/lines"),
        ("group:report", "extra"),
        ("group:report*", "report extra"),
        ('group:"report/daily"', "report"),
        ("kind:python", "raw/orders report"),
        ("kind:p*", "raw/orders report"),
        ("owner:team:core", "raw/orders"),
        ("owner:*@example.org", "clean"),
        ("tag:tier", "raw/orders raw/lines"),
        ("tag:tier=gold", "raw/orders"),
        ('tag:"tier=silver"', "raw/lines"),
        ("tag:pii=", "raw/lines"),
        ('tag:"tier"="gold"', "raw/orders"),
        ('tag:tier="gold"', "raw/orders"),
        ('tag:"tier"=gold and clean+', ""),
        ('tag:"tier"=', ""),
        ("owner:<null>", "raw/lines rejected report extra feed"),
        ("kind:<null>", "clean rejected extra feed"),
        ("not tag:<null>", "raw/orders raw/lines"),
        ("group:<null>", "feed"),
        ("step:<null>", "feed"),
        ("column:<null> and not raw/*", "rejected extra feed"),
        ("io_manager:lake", "raw/lines"),
        ("step:both", "clean rejected"),
        ("key:raw/*", "raw/orders raw/lines"),
        ("key:nothing", ""),
        ("is:external", "feed"),
        ("is:Materializable and group:core", "clean rejected"),
        ("status:stale", "clean report"),
        ("status:STALE", "clean report"),
        ("stale:", "clean report"),
        ("failed: and status:stale", "report"),
        ("missing:", "rejected"),
        ("fresh:+1", "raw/orders clean rejected"),
        ("column:amount", "clean"),
        ("column:amount*", "clean report"),
        ("state:new", "extra"),
        ("state:modified or extra", "clean extra"),
        ("not group:raw", "clean rejected report extra feed"),
        ("not not clean", "clean"),
        ("NOT clean AND stale:", "report"),
        ("clean or report and extra", "clean"),
        ("(clean or report) and stale:", "clean report"),
        ("roots(*)", "feed raw/lines extra"),
        ("sinks(+report or raw/lines)", "report"),
        ("roots( clean or report )", "clean"),
        ("roots(raw/orders or report)", "raw/orders report"),
        ("sinks(*)+", "report extra rejected"),
        ("clean\nor\treport", "clean report"),
    ],
)
def test_a_selection_means(text: str, names: str) -> None:
    selection = parse_selection(text)
    expected = {AssetKey(name) for name in names.split()}
    assert selection.resolve(SHOP, FACTS) == expected
    assert parse_selection(str(selection)).resolve(SHOP, FACTS) == expected


@pytest.mark.parametrize(
    ("text", "position", "reason"),
    [
        ("", 0, "The selection is empty"),
        ("  ", 0, "The selection is empty"),
        ("clean report", 6, "Here is `report` where the selection could end"),
        ("clean)", 5, "Here is `)`"),
        ("and", 0, "`and` stands where a name should be"),
        ("clean and", 9, "The selection ends where a name or `(` should be"),
        ("clean and or report", 10, "`or` stands where a name should be"),
        ("not", 3, "The selection ends"),
        ("(clean", 6, "A `)` is missing here"),
        ("(clean report)", 7, "A `)` is missing here"),
        ("sinks(clean", 11, "A `)` is missing here"),
        ("()", 1, "`)` cannot stand here"),
        ("++clean", 1, "One + is enough"),
        ("clean++", 6, "One + is enough"),
        ("+", 1, "The selection ends"),
        ("clean+x", 6, "Here is `x`"),
        ('"clean', 0, "This quotation mark is never closed"),
        ('clean and "x', 10, "This quotation mark is never closed"),
        ("clean and x:y", 10, "There is no field `x:`"),
        ("grup:raw", 0, "There is no field `grup:`"),
        ("group:", 6, "`group:` needs a value"),
        ("group: raw", 6, "`group:` needs a value"),
        ("fresh:x", 6, "`fresh:` takes no value"),
        ("status:maybe", 7, "`status:` has no value 'maybe'"),
        ("is:nothing", 3, "`is:` has no value 'nothing'"),
        (":", 0, "`:` cannot stand here"),
        ("clean : report", 6, "Here is `:`"),
        ('tag:"a"="b""c"', 11, 'Here is `"c"`'),
        ('tag:a"b"', 5, 'Here is `"b"`'),
        ('kind:"a"="b"', 8, "Here is `=`"),
        ("(" * (MAX_LEVELS + 5), MAX_LEVELS, f"nested deeper than {MAX_LEVELS}"),
        ("not " * (MAX_LEVELS + 5) + "a", 4 * MAX_LEVELS, f"nested deeper than {MAX_LEVELS}"),
    ],
)
def test_an_error_points_at_the_character(text: str, position: int, reason: str) -> None:
    with pytest.raises(SelectionError) as caught:
        parse_selection(text)
    assert reason in caught.value.message
    assert caught.value.position == position
    if position < 60:
        pointer = caught.value.message.splitlines()[-1]
        assert pointer == "  " + " " * position + "^"


def test_errors_say_what_to_do() -> None:
    for text, remedy in (
        ("grup:raw", "Did you mean `group`?"),
        ("zzzz:raw", "The fields are key:, group:"),
        ("clean report", "Join selections with `and` or `or`."),
        ("and", 'An asset called so is written "and".'),
        ("(a", "The `(` at character 1 is still open."),
        ("group:", "Such as `group:core`."),
        ("status:x", "It is one of fresh, stale, missing, failed."),
    ):
        with pytest.raises(SelectionError) as caught:
            parse_selection(text)
        assert remedy in caught.value.remedy


def test_an_asset_that_is_not_there_is_named() -> None:
    with pytest.raises(UnknownAssetError, match="Did you mean `report`"):
        parse_selection("+reprot").resolve(SHOP)
    assert parse_selection("nothing*").resolve(SHOP) == set()


@pytest.mark.parametrize(
    ("text", "position"), [("clean or reprot", 9), ('("reprot")', 1), ("group:raw and 2+reprot", 16), ("+reprot", 1)]
)
def test_an_asset_that_is_not_there_is_pointed_at(text: str, position: int) -> None:
    with pytest.raises(UnknownAssetError, match="Did you mean `report`") as caught:
        parse_selection(text).resolve(SHOP)
    assert caught.value.message.splitlines() == ["No asset `reprot`.", f"  {text}", "  " + " " * position + "^"]


def test_a_name_alone_needs_no_arrow() -> None:
    with pytest.raises(UnknownAssetError) as caught:
        parse_selection("reprot").resolve(SHOP)
    assert caught.value.message == "No asset `reprot`."


@pytest.mark.parametrize(("text", "position"), [("clean.amount+", 0), ("report and raw/orders.id.x", 11)])
def test_columns_are_not_taken_for_assets(text: str, position: int) -> None:
    with pytest.raises(
        SelectionError, match="columns cannot be selected yet, that comes with column lineage"
    ) as caught:
        parse_selection(text).resolve(SHOP)
    assert caught.value.position == position
    assert "Select the asset: `" in caught.value.remedy


def test_what_needs_the_catalog_says_so() -> None:
    for text in ("stale:", "column:id", "state:new"):
        with pytest.raises(SelectionError, match="needs the catalog"):
            parse_selection(text).resolve(SHOP)
    assert parse_selection("group:raw").resolve(SHOP)


def test_selections_are_made_of_objects_too() -> None:
    S = AssetSelection

    def names(selection: AssetSelection) -> set[str]:
        found = {str(key) for key in selection.resolve(SHOP, FACTS)}
        assert found == {str(key) for key in parse_selection(str(selection)).resolve(SHOP, FACTS)}
        return found

    assert names(S.all()) == set(SHOP.keys)
    assert names(S.keys("clean", ["raw", "orders"])) == {"clean", "raw/orders"}
    assert names(S.assets("clean", AssetKey("report"))) == {"clean", "report"}
    assert names(S.groups("raw") - S.keys("raw/lines")) == {"raw/orders"}
    assert names(S.groups("raw", "core") & S.kind("python")) == {"raw/orders"}
    assert names(S.key_prefixes("raw")) == {"raw/orders", "raw/lines"}
    assert names(S.key_substring("ej")) == {"rejected"}
    assert names(S.tag("tier")) == {"raw/orders", "raw/lines"}
    assert names(S.tag("tier", "gold")) == {"raw/orders"}
    assert names(S.owner("team:core")) == {"raw/orders"}
    assert names(S.keys("clean").upstream()) == {"clean", "raw/orders", "raw/lines", "feed"}
    assert names(S.keys("clean").upstream(1, include_self=False)) == {"raw/orders", "raw/lines"}
    assert names(S.keys("raw/orders").downstream(1)) == {"raw/orders", "clean", "rejected"}
    assert names(S.keys("raw/orders").downstream(include_self=False)) == {"clean", "rejected", "report"}
    assert names(S.all().roots()) == {"feed", "raw/lines", "extra"}
    assert names((S.keys("clean") | S.keys("report")).sinks()) == {"report"}
    assert names(S.all().materializable()) == set(SHOP.keys) - {"feed"}
    assert names(~S.groups("raw")) == set(SHOP.keys) - {"raw/orders", "raw/lines"}
    assert names(S.from_string("stale:")) == {"clean", "report"}
    assert names(S.keys()) == set()
    assert names(S.groups("")) == set()


def test_definitions_may_be_selected() -> None:
    @asset
    def clean() -> int:
        return 1

    @multi_asset(outs={"report": AssetOut(), "extra": AssetOut()})
    def several() -> tuple[int, int]:
        return 1, 2

    assert AssetSelection.assets(clean, several, AssetSpec("feed")).resolve(SHOP) == {
        AssetKey(name) for name in ("clean", "report", "extra", "feed")
    }
    with pytest.raises(DefinitionError):
        AssetSelection.assets(5)


@pytest.mark.parametrize(
    ("given_as", "names"),
    [
        (None, set(SHOP.keys)),
        ("clean or report", {"clean", "report"}),
        (["clean", "raw/*"], {"clean", "raw/orders", "raw/lines"}),
        ([], set[str]()),
        (AssetKey("clean"), {"clean"}),
        ([AssetKey("clean"), AssetSelection.groups("report")], {"clean", "extra"}),
        (AssetSelection.keys("clean"), {"clean"}),
        (AssetSpec("clean"), {"clean"}),
    ],
)
def test_what_may_be_written_for_a_selection(given_as: Any, names: set[str]) -> None:
    assert {str(key) for key in coerce_selection(given_as).resolve(SHOP)} == names


def test_thousands_of_names_are_no_problem() -> None:
    keys = [f"n{i}" for i in range(5000)]
    graph = AssetGraph(node(key) for key in keys)
    selection = AssetSelection.keys(*keys)
    assert selection.resolve(graph) == graph.keys
    assert parse_selection(str(selection)).resolve(graph) == graph.keys
    grown = AssetSelection.keys("n0")
    for key in keys[1:]:
        grown = grown | AssetSelection.keys(key)
    assert grown.resolve(graph) == graph.keys


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_never_breaks_the_parser(text: str) -> None:
    for whole in (text, f"a and {text}", f'"{text}', f"tag:{text}", f"+{text}+2", f"({text})"):
        try:
            selection = parse_selection(whole)
            selection.resolve(SHOP, FACTS)
            assert str(parse_selection(str(selection))) == str(selection)
        except (SelectionError, UnknownAssetError) as error:
            assert str(error) == printable(str(error))


@given(st.text(st.sampled_from('ab1+():"\\* andornotsik=tg\n'), max_size=40))
@settings(max_examples=400)
def test_any_text_is_a_selection_or_an_error_within_it(text: str) -> None:
    try:
        selection = parse_selection(text)
    except SelectionError as error:
        assert 0 <= error.position <= len(text)
    else:
        assert str(parse_selection(str(selection))) == str(selection)


@st.composite
def graphs(draw: st.DrawFn) -> AssetGraph:
    size = draw(st.integers(1, 8))
    names = draw(st.permutations(NAMES))[:size]
    return AssetGraph(
        node(
            name,
            *draw(st.lists(st.sampled_from(names[:i]), max_size=3, unique=True) if i else st.just([])),
            external=draw(st.booleans()),
            group=draw(st.sampled_from(["g", "h/i"])),
            kinds=tuple(draw(st.sets(st.sampled_from(["k", "l"])))),
            tags=draw(st.dictionaries(st.sampled_from(["t", "u/v"]), st.sampled_from(["", "x"]), max_size=2)),
            owners=tuple(draw(st.sets(st.sampled_from(["team:x", "a@b.c"])))),
        )
        for i, name in enumerate(names)
    )


fields = st.one_of(
    st.tuples(st.just("key"), st.sampled_from([*NAMES, "*a*", "raw/*", "*"])),
    st.tuples(st.just("group"), st.sampled_from(["g", "h/*", "none", ""])),
    st.tuples(st.just("kind"), st.sampled_from(["k", "*"])),
    st.tuples(st.just("tag"), st.sampled_from(["t", "t=x", "u/v=", "*=x"])),
    st.tuples(st.just("owner"), st.sampled_from(["team:x", "*@*"])),
    st.tuples(st.just("is"), st.sampled_from(["external", "materializable"])),
    st.tuples(st.just("status"), st.sampled_from(STATUSES)),
    st.tuples(st.just("state"), st.sampled_from(["new", "modified"])),
    st.tuples(st.just("column"), st.sampled_from(["c", "*", "d d"])),
)
layers = st.none() | st.integers(0, 3)
selections = st.recursive(
    st.one_of(
        st.just(All()),
        st.just(Nothing()),
        st.sampled_from([*NAMES, "a*", "*o*"]).map(Key),
        fields.map(lambda pair: Field(*pair)),
    ),
    lambda inner: st.one_of(
        st.builds(Traversal, inner, up=layers, down=layers),
        st.builds(Ends, st.sampled_from(["roots", "sinks"]), inner),
        st.builds(Not, inner),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: And(tuple(parts))),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: Or(tuple(parts))),
        st.tuples(inner, inner).map(lambda pair: pair[0] - pair[1]),
    ),
    max_leaves=6,
)


def naive(selection: AssetSelection, graph: AssetGraph, facts: Facts) -> set[str]:
    """What a selection means, by another way: over names, edge by edge."""
    edges = [(str(n.key), str(dep.key)) for n in graph for dep in n.deps]

    def glob(pattern: str, text: str) -> bool:
        expression = ".*".join(map(re.escape, pattern.split("*")))
        return re.fullmatch(expression, text, re.DOTALL) is not None

    def layers_of(keys: set[str], depth: int | None, pairs: list[tuple[str, str]]) -> set[str]:
        reached: set[str] = set()
        layer = keys
        for _ in range(len(graph) if depth is None else depth):
            layer = {b for a, b in pairs if a in layer}
            reached |= layer
        return reached

    def text_of(n: AssetNode, name: str) -> list[str]:
        match name:
            case "group":
                return [n.group]
            case "kind":
                return list(n.kinds)
            case "owner":
                return list(n.owners)
            case "tag":
                return [*n.tags, *(f"{k}={v}" for k, v in n.tags.items())]
            case "is":
                return ["external" if n.step is None else "materializable"]
            case _:
                return [str(n.key)]

    def known(values: Mapping[AssetKey, Any]) -> dict[str, Any]:
        return {str(key): value for key, value in values.items() if key in graph.keys}

    match selection:
        case All():
            return {str(n.key) for n in graph}
        case Nothing():
            return set()
        case Key(name):
            exact = {str(n.key) for n in graph if n.key == name}
            if not exact and "*" not in name:
                raise UnknownAssetError(name, [])
            return exact or {str(n.key) for n in graph if glob(name, n.key)}
        case Field("status", "failed"):
            return {str(key) for key in facts.failed() if key in graph.keys}
        case Field("status", value):
            return {key for key, status in known(facts.statuses()).items() if status.lower() == value}
        case Field("state", value):
            return {key for key, state in known(facts.states()).items() if state == value}
        case Field("column", value):
            return {key for key, names in known(facts.columns()).items() if any(glob(value, n) for n in names)}
        case Field(name, value):
            return {str(n.key) for n in graph if any(glob(value, text) for text in text_of(n, name))}
        case Traversal(of, up, down):
            keys = naive(of, graph, facts)
            back = [(b, a) for a, b in edges]
            return keys | layers_of(keys, up, edges) | layers_of(keys, down, back)
        case Ends(which, of):
            keys = naive(of, graph, facts)
            inside = [(a, b) for a, b in edges if a in keys and b in keys]
            return keys - {a if which == "roots" else b for a, b in inside}
        case Not(of):
            return {str(n.key) for n in graph} - naive(of, graph, facts)
        case And(of):
            return set[str].intersection(*[naive(part, graph, facts) for part in of])
        case Or(of):
            return set[str]().union(*[naive(part, graph, facts) for part in of])
        case _:
            raise AssertionError(selection)


@given(graphs(), selections, st.data())
@settings(max_examples=200)
def test_a_selection_means_what_a_naive_reader_makes_of_it(
    graph: AssetGraph, selection: AssetSelection, data: st.DataObject
) -> None:
    some = st.sampled_from([str(key) for key in graph.nodes])
    facts = Facts(
        data.draw(st.dictionaries(some, st.sampled_from(["FRESH", "STALE", "MISSING"]))),
        data.draw(st.dictionaries(some, st.lists(st.sampled_from(["c", "d d"])))),
        data.draw(st.dictionaries(some, st.sampled_from(["new", "modified"]))),
        data.draw(st.lists(some)),
    )
    try:
        expected = naive(selection, graph, facts)
    except UnknownAssetError:
        for one in (selection, parse_selection(str(selection))):
            with pytest.raises(UnknownAssetError):
                one.resolve(graph, facts)
        return
    assert {str(key) for key in selection.resolve(graph, facts)} == expected
    assert {str(key) for key in parse_selection(str(selection)).resolve(graph, facts)} == expected


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("a*", "a", True),
        ("a*", "ba", False),
        ("*b", "a/b", True),
        ("a*c", "a\nc", True),
        ("a?c", "abc", False),
        ("a?c", "a?c", True),
        ("[ab]", "a", False),
        ("[ab]*", "[ab]c", True),
        ("A*", "a", False),
        ("*" * 50, "a", True),
        ("a*" * 30 + "b", "a" * 200, False),
    ],
)
def test_only_the_asterisk_stands_for_others(pattern: str, name: str, matches: bool) -> None:
    graph = AssetGraph([AssetNode(key=str.__new__(AssetKey, name), step="s")])
    assert bool(Field("key", pattern).resolve(graph)) == matches
