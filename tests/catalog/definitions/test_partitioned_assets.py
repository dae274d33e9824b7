# pyright: reportUnknownParameterType=false, reportMissingParameterType=false, reportUnknownLambdaType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Assets with partitions: what decorators take, and what `Definitions` makes of it."""

from pathlib import Path
from typing import Any

import pytest

import headwater as P
from headwater.catalog.definitions.definitions import Definitions
from headwater.catalog.definitions.dependencies import AssetDep, PartitionColumns, read_deps
from headwater.catalog.errors import DefinitionError, InvalidKeyError, PartitionMappingError
from headwater.catalog.keys import AssetKey
from headwater.catalog.lineage.node import AssetNode, nodes_from_bytes, nodes_to_bytes
from headwater.catalog.partitions.definition import PartitionsDefinition
from tests.catalog.definitions.test_definitions import made, node

HERE = Path(__file__).name
DAILY = P.DailyPartitionsDefinition("2013-01-01")
WEEKLY = P.WeeklyPartitionsDefinition("2013-01-01")
MONTHLY = P.MonthlyPartitionsDefinition("2013-01-01")
ORIGINS = P.StaticPartitionsDefinition(["EWR", "JFK", "LGA"])
CUSTOMERS = P.DynamicPartitionsDefinition("customers")
BOTH = P.MultiPartitionsDefinition({"origin": ORIGINS, "month": MONTHLY})
EARLIER = P.TimeWindowPartitionMapping(start_offset=-1, end_offset=-1)


def external(key: str, definition: PartitionsDefinition | None) -> P.AssetSpec:
    return P.AssetSpec(key, partitions_def=definition)


def mapping(definitions: Definitions, key: str, upstream: str) -> P.PartitionMapping | None:
    return next(dep.partition_mapping for dep in node(definitions, key).deps if dep.key == upstream)


def definition_hash(given: PartitionsDefinition | None, **ins: P.AssetIn) -> str:
    asset = made("a", *ins, ins=ins, partitions_def=given)
    fingerprint = node(Definitions([asset, *(external(name, BOTH) for name in ins)]), "a").fingerprint
    assert fingerprint is not None
    return fingerprint.definition + fingerprint.partitions


def test_nodes_tell_definition_and_batch() -> None:
    again = P.DailyPartitionsDefinition("2013-01-01")
    definitions = Definitions(
        [
            made("one", partitions_def=DAILY),
            made("all", partitions_def=again, backfill_policy=P.BackfillPolicy.single_run()),
            made("some", partitions_def=BOTH, backfill_policy=P.BackfillPolicy.multi_run(30)),
            made("plain"),
            external("outside", CUSTOMERS),
        ]
    )
    found = {one.key: (one.partitions_def, one.batch) for one in definitions.graph}
    assert found == {
        "one": (DAILY, 1),
        "all": (DAILY, None),
        "some": (BOTH, 30),
        "plain": (None, 1),
        "outside": (CUSTOMERS, 1),
    }
    assert node(definitions, "one").partitions is node(definitions, "all").partitions
    assert definitions.partitions_of(AssetKey("outside")) == CUSTOMERS
    assert definitions.partitions_of(AssetKey("plain")) is definitions.partitions_of(AssetKey("nobody")) is None
    assert definitions.definition_of(AssetKey("one")).partitions_def is DAILY


@pytest.mark.parametrize("given", [0, -1, 1.5, True, "3", 1 << 60])
def test_batches_that_are_none(given: Any) -> None:
    with pytest.raises(DefinitionError, match="max_partitions_per_run"):
        P.BackfillPolicy(max_partitions_per_run=given)


class TestSeveralAssets:
    """All assets of one function are divided alike."""

    def test_said_once(self) -> None:
        @P.multi_asset(outs={"a": P.AssetOut(), "b": P.AssetOut(partitions_def=DAILY)}, partitions_def=DAILY)
        def f(): ...

        @P.multi_asset(specs=[P.AssetSpec("c"), P.AssetSpec("d", partitions_def=DAILY)], partitions_def=DAILY)
        def g(): ...

        @P.multi_asset(outs={"e": P.AssetOut(partitions_def=DAILY), "f": P.AssetOut(partitions_def=DAILY)})
        def h(): ...

        for one in (f, g, h):
            assert {spec.partitions_def for spec in one.specs} == {DAILY}
        assert g.moved({AssetKey("c"): AssetKey("x")}).specs[0].partitions_def == DAILY

    @pytest.mark.parametrize(
        "settings",
        [
            {"outs": {"a": P.AssetOut(partitions_def=MONTHLY)}, "partitions_def": DAILY},
            {"specs": [P.AssetSpec("a", partitions_def=MONTHLY)], "partitions_def": DAILY},
            {"specs": [P.AssetSpec("a", partitions_def=MONTHLY), P.AssetSpec("b", partitions_def=DAILY)]},
            {"outs": {"a": P.AssetOut(partitions_def=MONTHLY), "b": P.AssetOut()}},
        ],
    )
    def test_differently(self, settings: Any) -> None:
        with pytest.raises(DefinitionError, match=rf"{HERE}:\d+: the assets of `f` are divided in different ways.*`a`"):

            @P.multi_asset(**settings)
            def f(): ...

    @pytest.mark.parametrize("settings", [{"outs": {"a": P.AssetOut(partitions_def="daily")}}])  # pyright: ignore
    def test_of_another_type(self, settings: Any) -> None:
        with pytest.raises(DefinitionError, match=rf"{HERE}:\d+: asset `a`: the partitions_def is of the type str"):

            @P.multi_asset(**settings)
            def f(): ...


class TestMappings:
    """The graph has the mapping of every edge where there are partitions."""

    def test_inferred(self) -> None:
        definitions = Definitions(
            [
                made("day", partitions_def=DAILY),
                made("month", "day", partitions_def=MONTHLY),
                made("cube", "month", partitions_def=BOTH, deps=["origins"]),
                made("origins", partitions_def=ORIGINS),
                made("total", "cube", deps=["elsewhere"]),
                made("beside", "day", partitions_def=DAILY, deps=["elsewhere"]),
                made("plain", deps=["elsewhere"]),
            ]
        )
        assert mapping(definitions, "month", "day") == P.TimeWindowPartitionMapping()
        assert mapping(definitions, "cube", "month") == P.MultiToSingleDimensionPartitionMapping()
        assert mapping(definitions, "cube", "origins") == P.MultiToSingleDimensionPartitionMapping()
        assert mapping(definitions, "total", "cube") == P.AllPartitionMapping()
        assert mapping(definitions, "beside", "elsewhere") == P.AllPartitionMapping()
        assert mapping(definitions, "plain", "elsewhere") is None
        assert node(definitions, "total").deps[1].mapping is None
        assert list(nodes_from_bytes(nodes_to_bytes(definitions.graph))) == list(definitions.graph)

    def test_given(self) -> None:
        last = P.LastPartitionMapping()
        definitions = Definitions(
            [
                made("day", partitions_def=DAILY),
                made("a", deps=[AssetDep("day", partition_mapping=last)], partitions_def=CUSTOMERS),
                made("b", "x", ins={"x": P.AssetIn("day", partition_mapping=EARLIER)}, partitions_def=DAILY),
                made("c", "day", deps=[AssetDep("day", partition_mapping=EARLIER)], partitions_def=DAILY),
                made("d", "day", ins={"day": P.AssetIn(partition_mapping=last)}, deps=["day"], partitions_def=DAILY),
            ]
        )
        assert [mapping(definitions, key, "day") for key in "abcd"] == [last, EARLIER, EARLIER, last]
        (definition,) = (one for one in definitions.assets if one.name == "b")
        assert definition.inputs[0].partition_mapping is EARLIER

    def test_where_nothing_is_partitioned(self) -> None:
        ins = {"x": P.AssetIn("day", partition_mapping=P.AllPartitionMapping())}
        assert node(Definitions([made("a", "x", ins=ins), made("day")]), "a").deps[0].mapping is None
        with pytest.raises(PartitionMappingError, match="LastPartitionMapping cannot map"):
            Definitions([made("a", deps=[AssetDep("b", partition_mapping=P.LastPartitionMapping())])])

    def test_a_mapping_that_cannot_be_names_both_places(self) -> None:
        london = P.DailyPartitionsDefinition("2013-01-01", timezone="Europe/London")
        with pytest.raises(PartitionMappingError) as caught:
            Definitions([made("up", partitions_def=london), P.asset(lambda up: 1, name="down", partitions_def=DAILY)])
        assert caught.value.message.startswith(f"tests/catalog/definitions/{HERE}:")
        assert "`down` cannot read `up`" in caught.value.message
        assert "Europe/London" in caught.value.message
        assert "`up` is defined at <string>:1." in caught.value.message

    def test_two_of_one_asset(self) -> None:
        last, every = P.LastPartitionMapping(), P.AllPartitionMapping()
        both = [AssetDep("day", partition_mapping=last), AssetDep("day", partition_mapping=every)]
        with pytest.raises(DefinitionError, match=rf"{HERE}:\d+: asset `a`: it reads `day` through two mappings"):
            P.asset(lambda: 1, name="a", deps=both)
        assert read_deps(["day", both[0]]) == read_deps([both[0], both[0]]) == (both[0],)
        ins = {"x": P.AssetIn("day", partition_mapping=last)}
        day = external("day", DAILY)
        with pytest.raises(DefinitionError, match="asset `a`: it reads `day` through two mappings"):
            Definitions([day, made("a", "x", ins=ins, deps=[both[1]])])
        ins["y"] = P.AssetIn("day")
        with pytest.raises(DefinitionError, match="two parameters of `a` read `day` through different mappings"):
            Definitions([day, made("a", "x", "y", ins=ins)])
        ins["y"] = P.AssetIn("day", partition_mapping=last)
        assert mapping(Definitions([day, made("a", "x", "y", ins=ins)]), "a", "day") == last

    @pytest.mark.parametrize("make", [lambda: P.AssetIn("x", partition_mapping=P.AllPartitionMapping)])  # pyright: ignore
    def test_what_is_no_mapping(self, make: Any) -> None:
        with pytest.raises(DefinitionError, match=rf"{HERE}:\d+: the partition_mapping of AssetIn is of the type"):
            make()
        with pytest.raises(DefinitionError, match=rf"{HERE}:\d+: the partition_mapping of AssetDep of `x` is of"):
            P.AssetDep("x", partition_mapping="last")  # pyright: ignore[reportArgumentType]
        with pytest.raises(InvalidKeyError):
            P.SpecificPartitionsPartitionMapping(["\ud800"])

    def test_keys_of_any_text(self) -> None:
        keys = ["';--", "a/b|c", "%7C", "日本", '"']
        definitions = Definitions(
            [
                external("up", P.StaticPartitionsDefinition(keys)),
                made("down", deps=[AssetDep("up", partition_mapping=P.SpecificPartitionsPartitionMapping(keys[1:3]))]),
            ]
        )
        (up, _) = nodes_from_bytes(nodes_to_bytes(definitions.graph))
        assert up.partitions_def == P.StaticPartitionsDefinition(keys)
        assert mapping(definitions, "down", "up") == P.SpecificPartitionsPartitionMapping(keys[1:3])


class TestSelfDependencies:
    def test_earlier_partitions(self) -> None:
        ins = {"balance": P.AssetIn(partition_mapping=EARLIER)}
        definitions = Definitions(
            [
                made("report", "balance", partitions_def=DAILY),
                made("balance", "balance", "sales", ins=ins, partitions_def=DAILY),
                made("sales", partitions_def=DAILY),
                made("loop", deps=[AssetDep("loop", partition_mapping=EARLIER)], partitions_def=WEEKLY),
            ]
        )
        graph = definitions.graph
        assert graph.parents(AssetKey("balance")) == ("sales",)
        assert [dep.key for dep in graph[AssetKey("balance")].deps] == ["balance", "sales"]
        assert mapping(definitions, "balance", "balance") == EARLIER
        assert graph.sorted(["report", "balance", "sales"]) == ["sales", "balance", "report"]  # pyright: ignore
        assert graph.steps["loop"] == ("loop",)

    @pytest.mark.parametrize(
        ("definition", "given", "reason"),
        [
            (DAILY, None, "lets partitions of .daily.* read themselves"),
            (DAILY, P.TimeWindowPartitionMapping(start_offset=-1), "read themselves"),
            (DAILY, P.LastPartitionMapping(), "read themselves"),
            (ORIGINS, None, "IdentityPartitionMapping lets partitions"),
            (None, None, "would be made of itself"),
            (None, EARLIER, "both have to be windows of time"),
        ],
    )
    def test_itself(self, definition: Any, given: Any, reason: str) -> None:
        asset = made("a", "a", ins={"a": P.AssetIn(partition_mapping=given)}, partitions_def=definition)
        with pytest.raises(PartitionMappingError, match=f"`a` cannot read `a`.*{reason}"):
            Definitions([asset])


class TestFingerprint:
    """What a key means counts, which keys there are does not."""

    def test_an_unpartitioned_asset_keeps_its_hash(self) -> None:
        assert definition_hash(None) == "cfg1:2502bb1f581188e60574563b594e45e7"

    @pytest.mark.parametrize(
        "other",
        [
            P.DailyPartitionsDefinition("2012-06-01"),
            P.DailyPartitionsDefinition("2013-01-01", end_date="2014-01-01", end_offset=1),
            P.DailyPartitionsDefinition("2013-01-01", exclusions=["0 0 * * 6"]),
            P.TimeWindowPartitionsDefinition("0 0 * * *", "2013-01-01", fmt="%Y-%m-%d"),
        ],
    )
    def test_which_windows_there_are(self, other: PartitionsDefinition) -> None:
        assert definition_hash(other) == definition_hash(DAILY)

    @pytest.mark.parametrize(
        "other",
        [
            None,
            MONTHLY,
            WEEKLY,
            P.DailyPartitionsDefinition("2013-01-01", hour_offset=3),
            P.DailyPartitionsDefinition("2013-01-01", timezone="Europe/London"),
            P.DailyPartitionsDefinition("2013-01-01", fmt="%d.%m.%Y"),
            BOTH,
        ],
    )
    def test_what_a_window_is(self, other: PartitionsDefinition | None) -> None:
        assert definition_hash(other) != definition_hash(DAILY)

    def test_lists(self) -> None:
        plain = definition_hash(None)
        for one in (ORIGINS, P.StaticPartitionsDefinition(["EWR"]), CUSTOMERS, P.DynamicPartitionsDefinition("x")):
            assert definition_hash(one) == plain

    def test_dimensions(self) -> None:
        def both(**dimensions: PartitionsDefinition) -> str:
            return definition_hash(P.MultiPartitionsDefinition(dimensions))

        assert both(origin=ORIGINS, month=MONTHLY) == both(month=MONTHLY, origin=CUSTOMERS)
        assert both(origin=ORIGINS, month=MONTHLY) != both(origin=ORIGINS, month=WEEKLY)
        assert both(origin=ORIGINS, month=MONTHLY) != both(source=ORIGINS, month=MONTHLY)

    def test_columns(self) -> None:
        plain = definition_hash(None, up=P.AssetIn())
        every = definition_hash(None, up=P.AssetIn(partition_columns=True))
        assert plain != every
        assert definition_hash(None, up=P.AssetIn(partition_columns=["origin", "month"])) == every
        assert definition_hash(None, up=P.AssetIn(partition_columns=["month"])) not in (plain, every)


class TestPartitionColumns:
    @pytest.mark.parametrize(
        ("given", "definition", "columns"),
        [
            (True, DAILY, {"partition": None}),
            ("day", DAILY, {"day": None}),
            (["day"], ORIGINS, {"day": None}),
            (True, BOTH, {"month": "month", "origin": "origin"}),
            ("origin", BOTH, {"origin": "origin"}),
            (["origin", "month"], BOTH, {"month": "month", "origin": "origin"}),
            ({"origin": "airport"}, BOTH, {"airport": "origin"}),
        ],
    )
    def test_of(self, given: Any, definition: PartitionsDefinition, columns: dict[str, str | None]) -> None:
        read = PartitionColumns.read(given)
        assert read is not None
        assert read.of(definition) == columns

    def test_values(self) -> None:
        keys = ["2013-01-01|JFK", P.MultiPartitionKey({"month": "2013-02-01", "origin": "a|b"})]
        asset_in = P.AssetIn(partition_columns={"origin": "airport", "month": "m"})
        assert asset_in.partition_columns is not None
        found = asset_in.partition_columns.values(BOTH, keys)
        assert found == {"m": ["2013-01-01", "2013-02-01"], "airport": ["JFK", "a|b"]}
        assert PartitionColumns(single="day").values(DAILY, ["2013-01-01"]) == {"day": ["2013-01-01"]}

    def test_none(self) -> None:
        assert P.AssetIn("x", partition_columns=False).partition_columns is P.AssetIn("x").partition_columns is None

    @pytest.mark.parametrize(
        ("given", "definition", "reason"),
        [
            (True, None, "`up`, and it has no partitions"),
            (["a", "b"], DAILY, "it has one dimension, and partition_columns names 2"),
            ("x", BOTH, "it has no dimension 'x'"),
            (["origin", "\x1b[2J"], BOTH, "it has no dimension"),
            ({"origin": "x", "month": "x"}, BOTH, "two of its dimensions would be one column"),
        ],
    )
    def test_that_cannot_be(self, given: Any, definition: PartitionsDefinition | None, reason: str) -> None:
        asset = made("a", "up", ins={"up": P.AssetIn(partition_columns=given)})
        with pytest.raises(DefinitionError) as caught:
            Definitions([asset, external("up", definition)])
        assert reason in caught.value.message
        assert caught.value.message.startswith("<string>:1: `a` asks for the partition columns of `up`")
        assert "\x1b" not in str(caught.value)

    def test_of_another_type(self) -> None:
        with pytest.raises(DefinitionError, match="partition_columns is a list of texts, not int"):
            P.AssetIn("x", partition_columns=5)  # pyright: ignore[reportArgumentType]


def test_external_nodes_by_name_are_unpartitioned() -> None:
    definitions = Definitions([made("a", deps=["elsewhere"], partitions_def=DAILY)])
    outside: AssetNode = node(definitions, "elsewhere")
    assert (outside.partitions_def, mapping(definitions, "a", "elsewhere")) == (None, P.AllPartitionMapping())
