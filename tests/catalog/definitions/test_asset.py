# pyright: reportUnknownParameterType=false, reportMissingParameterType=false, reportUnknownLambdaType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Decorators and signatures; asset functions here are as bare as users write them."""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import headwater as P
from headwater.catalog.definitions.asset import AssetsDefinition
from headwater.catalog.definitions.dependencies import AssetDep, read_deps
from headwater.catalog.errors import DefinitionError, InvalidKeyError
from headwater.catalog.keys import AssetKey
from headwater.materialize.execution.context import AssetExecutionContext
from tests.catalog.definitions.project import imported, write_project
from tests.corpus import HOSTILE

DAILY = P.DailyPartitionsDefinition("2013-01-01")


class Limits(P.Config):
    top: int = 10


class Warehouse(P.ConfigurableResource):
    path: str = "x"


class Client:
    pass


def inputs_of(definition: AssetsDefinition) -> dict[str, str]:
    return {item.parameter: str(item.key) for item in definition.inputs}


def test_a_function_is_an_asset() -> None:
    @P.asset
    def orders(raw):
        """All orders.

        Cleaned.
        """
        return raw + 1

    assert isinstance(orders, AssetsDefinition)
    assert orders.key == AssetKey("orders")
    assert orders.keys == (AssetKey("orders"),)
    assert orders.name == "orders"
    assert inputs_of(orders) == {"raw": "raw"}
    assert orders.specs[0].description == "All orders.\n\nCleaned."
    assert orders.specs[0].group_name == "default"
    assert orders.specs[0].io_manager == "io_manager"
    assert orders(1) == 2
    assert orders(raw=1) == 2
    assert repr(orders) == "<asset orders>"
    assert orders.source.file == __file__


def test_every_attribute_is_kept() -> None:
    policy = P.RetryPolicy(max_retries=2)

    @P.asset(
        name="best",
        key_prefix=["a", "b"],
        group_name="core/raw",
        description="d",
        kinds={"python", "polars"},
        tags={"tier": "gold", "x.y/z": ""},
        owners=["me@example.org", "team:core"],
        metadata={"n": 5},
        deps=["x"],
        code_version="7",
        io_manager_key="warehouse",
        config=Limits(top=3),
        retry_policy=policy,
        required_resource_keys={"db"},
    )
    def f(context, config: Limits) -> None:
        """Not this."""

    spec = f.specs[0]
    assert f.key == AssetKey(["a", "b", "best"])
    assert f.name == "a/b/best"
    assert (spec.group_name, spec.description, spec.kinds) == ("core/raw", "d", {"python", "polars"})
    assert (spec.tags, spec.owners) == ({"tier": "gold", "x.y/z": ""}, ("me@example.org", "team:core"))
    assert (spec.metadata, spec.code_version, spec.io_manager) == ({"n": 5}, "7", "warehouse")
    assert spec.deps == (AssetDep("x"),)
    assert (f.context_parameter, f.config_parameter, f.config_class) == ("context", "config", Limits)
    assert (f.config, f.retry_policy, f.required_resource_keys) == (Limits(top=3), policy, {"db"})
    assert f.stores_nothing


def test_a_key_may_be_given_whole() -> None:
    assert P.asset(key=["a", "b"])(lambda: 1).key == AssetKey("a/b")
    assert P.asset(key="a/b")(lambda: 1).key == AssetKey("a/b")
    assert P.asset(name="n", key_prefix="p/q")(lambda: 1).key == AssetKey("p/q/n")
    assert P.asset(lambda: 1, name="n").key == AssetKey("n")


@pytest.mark.parametrize(
    ("settings", "reason", "remedy"),
    [
        ({"key": "a", "name": "b"}, "a key, or a name and a key_prefix, not both", "Keep key="),
        ({"key": "a", "key_prefix": "b"}, "a key, or a name and a key_prefix, not both", "Keep key="),
        ({"name": ""}, "no empty segment", "slash"),
        ({"name": "a\nb"}, "U+000A", "remove it"),
        ({"key_prefix": []}, "at least one segment", "name"),
        ({"group_name": "a-b"}, "the group 'a-b'", "letters, digits and _"),
        ({"group_name": "a//b"}, "the group 'a//b'", "segments joined by /"),
        ({"group_name": 5}, "the group 5", "letters"),
        ({"kinds": "python"}, "kinds is a list of texts, not str", "['python']"),
        ({"kinds": ["a b"]}, "the kind 'a b'", "1 to 63"),
        ({"kinds": [5]}, "kinds holds a thing of the type int", "texts"),
        ({"kinds": 5}, "kinds is a list of texts, not int", "list"),
        ({"owners": "team:a"}, "owners is a list of texts, not str", "['team:a']"),
        ({"owners": ["ingredients_team"]}, "the owner 'ingredients_team'", "'team:ingredients_team'"),
        ({"owners": ["team:"]}, "the owner 'team:'", "e-mail"),
        ({"tags": {"a b": "c"}}, "the tag 'a b'", "A-Z a-z 0-9 _ . -"),
        ({"tags": {"a": "c d"}}, "the tag a='c d'", "A-Z a-z 0-9 _ . -"),
        ({"tags": {"a": 5}}, "the tag a=5", "A-Z a-z 0-9 _ . -"),
        ({"tags": {"a" * 64: "b"}}, "the tag", "63"),
        ({"tags": ["ab", 5]}, "tags is a mapping", "{'name': value}"),
        ({"metadata": 5}, "metadata is a mapping of names to values, not int", "{'name': value}"),
        ({"metadata": "x"}, "metadata is a mapping", "{'name': value}"),
        ({"description": 5}, "its description is of the type int", "text"),
        ({"description": "\ud800"}, "its description cannot be kept", "surrogate"),
        ({"code_version": 7}, "its code_version is of the type int", "text"),
        ({"deps": "raw"}, "deps is a list of assets", "deps=['raw']"),
        ({"deps": 5}, "deps is a list of assets, not int", "list"),
        ({"deps": [5]}, "of the type int is no asset", "key"),
        ({"deps": [len]}, "is no asset", "key"),
        ({"deps": [""]}, "no empty segment", "slash"),
        ({"io_manager": object(), "io_manager_key": "x"}, "io_manager and io_manager_key", "Keep one"),
        ({"config": {"top": 5}}, "has a config, and no parameter of f() takes one", "Annotate"),
        ({"required_resource_keys": "db"}, "required_resource_keys is a list of texts", "['db']"),
        ({"ins": {"y": P.AssetIn("z")}}, "ins names `y`, which is no parameter of f()", "none"),
        ({"grup_name": "x"}, "@asset has no argument `grup_name`", "Did you mean `group_name`"),
        ({"zzzz": "x"}, "@asset has no argument `zzzz`", "Its arguments are name, key, key_prefix"),
        ({"freshness_policy": 3}, "asset `f`: the freshness_policy is of the type int", "FreshnessPolicy.time_window("),
        ({"op_tags": {"a": "b"}}, "the argument `op_tags` from Dagster, and does not support", "Leave it out"),
        ({"partitions_def": 3}, "asset `f`: the partitions_def is of the type int", "DailyPartitionsDefinition("),
        ({"partitions_def": DAILY, "backfill_policy": 3}, "the backfill_policy of `f` is of the type int", "multi_run"),
        ({"backfill_policy": P.BackfillPolicy.single_run()}, "no partitions to which it could apply", "partitions_def"),
        ({"compute_kind": "a b"}, "the kind 'a b'", "1 to 63"),
        ({"kinds": "sql", "compute_kind": "x"}, "kinds is a list of texts", "['sql']"),
        ({"ins": ["y"]}, "ins holds AssetIns by parameter, not a list", "AssetIn('key')"),
        ({"ins": {"y": "z"}}, "ins holds AssetIns by parameter, not a str", "AssetIn('key')"),
        ({"retry_policy": 3}, "the retry_policy of `f` is of the type int", "RetryPolicy(max_retries=3)"),
    ],
)
def test_what_makes_no_sense_is_refused(settings: dict[str, Any], reason: str, remedy: str) -> None:
    with pytest.raises(DefinitionError) as caught:

        @P.asset(**settings)
        def f():
            pass

    assert reason in caught.value.message
    assert remedy in caught.value.remedy
    if "required_resource_keys" not in settings and "io_manager" not in settings:
        assert f"{Path(__file__).name}:" in caught.value.message


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_attributes_are_refused_or_kept(text: str) -> None:
    every: list[dict[str, Any]] = [
        {"name": text},
        {"group_name": text},
        {"kinds": [text]},
        {"owners": [f"team:{text}"]},
        {"tags": {text: text}},
        {"description": text},
        {"code_version": text},
        {"deps": [text]},
    ]
    for settings in every:
        try:
            named: dict[str, Any] = {"name": "n", **settings}
            P.asset(lambda: 1, **named)
        except DefinitionError as error:
            str(error).encode()


def test_what_dagster_has_other_words_for() -> None:
    manager = P.InMemoryIOManager()

    unsaid: dict[str, Any] = {"partitions_def": None, "backfill_policy": None, "op_tags": {}}

    @P.asset(compute_kind="polars", io_manager_def=manager, output_required=False, **unsaid)
    def f():
        pass

    assert (f.specs[0].kinds, f.specs[0].io_manager, f.outputs[0].is_required) == ({"polars"}, manager, False)

    @P.asset(kinds={"sql"}, compute_kind="polars")
    def g():
        pass

    assert g.specs[0].kinds == {"sql", "polars"}

    @P.multi_asset(outs={"a": P.AssetOut(), "b": P.AssetOut(kinds={"sql"})}, compute_kind="polars", partitions_def=None)
    def h():
        pass

    assert [spec.kinds for spec in h.specs] == [{"polars"}, {"sql"}]
    assert P.SourceAsset(key="x", io_manager_key="lake") == P.AssetSpec("x", io_manager="lake")
    assert P.AssetKey.from_user_string("a/b").to_user_string() == "a/b"


def test_only_functions_are_decorated() -> None:
    for thing in (5, "name", functools.partial(print), P.asset(lambda: 1, name="x"), Client):
        with pytest.raises(DefinitionError, match="@asset decorates a function"):
            P.asset(thing)  # pyright: ignore[reportArgumentType]
    with pytest.raises(DefinitionError, match="this asset has no name"):
        P.asset(lambda: 1)


def test_asynchronous_functions_are_refused() -> None:
    async def one():
        pass

    async def two():
        yield 1

    for function in (one, two):
        with pytest.raises(DefinitionError, match="asynchronous"):
            P.asset(function)


def test_parameters_have_roles() -> None:
    @P.asset
    def f(context, orders, limits: Limits, db: Warehouse, client: P.ResourceParam[Client], *, other: int):
        pass

    assert f.context_parameter == "context"
    assert f.config_parameter == "limits"
    assert f.config_class is Limits
    assert f.resources == {"db": "db", "client": "client"}
    assert inputs_of(f) == {"orders": "orders", "other": "other"}
    assert [item.annotation for item in f.inputs] == [None, int]

    @P.asset
    def g(ctx: AssetExecutionContext):
        pass

    @P.asset
    def h(_context):
        pass

    assert (g.context_parameter, h.context_parameter) == ("ctx", "_context")


def test_a_role_is_taken_once() -> None:
    with pytest.raises(DefinitionError, match="several config parameters, a and b"):

        @P.asset
        def f(a: Limits, b: Limits):
            pass

    with pytest.raises(DefinitionError, match="several context parameters, context and ctx"):

        @P.asset
        def g(context, ctx: AssetExecutionContext):
            pass


def test_positional_only_parameters_are_refused() -> None:
    with pytest.raises(DefinitionError, match="positional-only"):

        @P.asset
        def f(a, /):
            pass


def test_inputs_say_where_they_come_from() -> None:
    @P.asset
    def upstream():
        return 1

    @P.asset(
        ins={
            "a": P.AssetIn("x/y"),
            "b": P.AssetIn(key_prefix=["p"]),
            "c": P.AssetIn(columns=["k", "v"], metadata={"m": 1}, input_manager_key="im"),
            "d": P.AssetIn(key=upstream),
        }
    )
    def f(a, b, c: str, d, e):
        pass

    assert inputs_of(f) == {"a": "x/y", "b": "p/b", "c": "c", "d": "upstream", "e": "e"}
    assert [item.by_name for item in f.inputs] == [False, False, True, False, True]
    c = f.inputs[2]
    assert (c.columns, c.metadata, c.input_manager_key, c.annotation) == (("k", "v"), {"m": 1}, "im", str)


def test_what_inputs_cannot_say_is_refused() -> None:
    with pytest.raises(DefinitionError, match="key or key_prefix, not both"):
        P.AssetIn("a", key_prefix="b")
    with pytest.raises(DefinitionError, match="columns is a list of texts"):
        P.AssetIn(columns="name")
    with pytest.raises(DefinitionError, match="columns is a list of texts"):
        P.AssetDep("a", columns="name")
    with pytest.raises(InvalidKeyError):
        P.AssetIn("")
    with pytest.raises(DefinitionError, match="Did you mean `orders`"):
        P.asset(lambda orders: 1, name="x", ins={"orderz": P.AssetIn("a")})


def test_any_keyword_may_be_an_input() -> None:
    @P.asset(ins={"a": P.AssetIn("x"), "b": P.AssetIn("y")})
    def f(**kwargs):
        return kwargs

    assert inputs_of(f) == {"a": "x", "b": "y"}
    assert f(a=1, b=2) == {"a": 1, "b": 2}


def test_a_parameter_with_a_default_is_optional() -> None:
    made: list[AssetsDefinition] = []
    for i in range(3):

        @P.asset(name=f"a{i}")
        def f(orders, i=i, *, j=i):
            return i

        made.append(f)
    assert [f(None) for f in made] == [0, 1, 2]
    assert [(item.parameter, item.optional) for item in made[0].inputs] == [
        ("orders", False),
        ("i", True),
        ("j", True),
    ]


def test_a_factory_makes_assets() -> None:
    def make(n: int) -> AssetsDefinition:
        @P.asset(name=f"n{n}", deps=[f"n{n - 1}"] if n else [])
        def f():
            return n

        return f

    assets = [make(n) for n in range(3)]
    assert [a() for a in assets] == [0, 1, 2]
    assert list(P.Definitions(assets).graph.nodes) == ["n0", "n1", "n2"]


def test_wrapped_functions_keep_their_parameters() -> None:
    def audited(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return ["audited", function(*args, **kwargs)]

        return wrapper

    def with_context(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(context, **kwargs: Any) -> Any:
            return function(**kwargs)

        return wrapper

    @P.asset
    @audited
    def f(orders: int, limits: Limits, n=3) -> str:
        """Doc."""
        return str(orders + n)

    assert f.key == "f"
    assert inputs_of(f) == {"orders": "orders", "n": "n"}
    assert (f.config_parameter, f.return_annotation, f.specs[0].description) == ("limits", str, "Doc.")
    assert f(orders=1, limits=None) == ["audited", "4"]

    @P.asset
    @with_context
    def g(orders):
        return orders

    assert g.context_parameter == "context"
    assert inputs_of(g) == {"orders": "orders"}
    assert g(context=None, orders=5) == 5


def test_annotations_that_are_put_off(tmp_path: Path) -> None:
    source = """
        from __future__ import annotations
        from typing import TYPE_CHECKING
        import decimal
        from headwater import Config, ConfigurableResource, ResourceParam, Output, asset

        if TYPE_CHECKING:
            import polars as pl
            from headwater import AssetExecutionContext

        class Limits(Config):
            top: int = 10

        class Warehouse(ConfigurableResource):
            path: str

        @asset
        def f(
            orders: pl.LazyFrame, n: decimal.Decimal, limits: Limits, db: Warehouse, c: ResourceParam[str]
        ) -> pl.DataFrame: ...

        @asset
        def g(ctx: AssetExecutionContext) -> None: ...

        @asset
        def h(x: "pl.LazyFrame | None") -> Output[pl.DataFrame]: ...
    """
    with imported(write_project(tmp_path, {"assets.py": source})) as module:
        import decimal

        f = module.f
        assert [(item.parameter, item.annotation) for item in f.inputs] == [
            ("orders", "pl.LazyFrame"),
            ("n", decimal.Decimal),
        ]
        assert (f.config_parameter, f.config_class) == ("limits", module.Limits)
        assert f.resources == {"db": "db", "c": "c"}
        assert f.return_annotation == "pl.DataFrame"
        assert not f.stores_nothing
        assert module.g.context_parameter == "ctx"
        assert module.g.stores_nothing
        assert module.h.inputs[0].annotation == "pl.LazyFrame | None"
        assert module.h.return_annotation == "pl.DataFrame"


@pytest.mark.parametrize(
    ("annotation", "unwrapped", "stores_nothing"),
    [
        (int, int, False),
        (None, None, True),
        (type(None), type(None), True),
        ("None", None, True),
        (P.Output, None, False),
        (P.Output[int], int, False),
        (P.MaterializeResult, None, False),
        (P.MaterializeResult[int], int, False),
        (Iterator[P.Output[int]], int, False),
        ("hw.Output[pl.DataFrame]", "pl.DataFrame", False),
        ("MaterializeResult", P.MaterializeResult, False),
        (dict[str, int], dict[str, int], False),
    ],
)
def test_the_value_behind_a_return_annotation(annotation: Any, unwrapped: Any, stores_nothing: bool) -> None:
    def f():
        pass

    f.__annotations__["return"] = annotation
    made = P.asset(f)
    if annotation == "MaterializeResult":
        assert made.return_annotation is None
    else:
        assert made.return_annotation == unwrapped
    assert made.stores_nothing == stores_nothing


def test_no_annotation_is_not_none() -> None:
    made = P.asset(lambda: None, name="x")
    assert made.return_annotation is None
    assert not made.stores_nothing


def test_deps_are_keys_definitions_specs_and_each_counts_once() -> None:
    @P.asset
    def one():
        pass

    @P.multi_asset(outs={"two": P.AssetOut(), "three": P.AssetOut()})
    def several():
        pass

    spec = P.AssetSpec("four")
    deps = read_deps([one, several, spec, "five", ["six", "seven"], AssetKey("one"), P.AssetDep("five", columns=["a"])])
    assert [str(dep.asset) for dep in deps] == ["one", "two", "three", "four", "five", "six/seven"]
    assert deps[4].columns is None
    merged = read_deps([P.AssetDep("x", columns=["a", "b"]), P.AssetDep("x", columns=["b", "c"])])
    assert merged == (AssetDep("x", columns=["a", "b", "c"]),)
    assert read_deps({one, spec}) and read_deps({"a": 1})[0].asset == "a"


def test_a_definition_of_several_has_no_single_key() -> None:
    @P.multi_asset(outs={"a": P.AssetOut(), "b": P.AssetOut(key_prefix="p"), "c": P.AssetOut("x/y", is_required=False)})
    def several(upstream):
        return 1, 2, 3

    assert several.keys == ("a", "p/b", "x/y")
    assert [o.is_required for o in several.outputs] == [True, True, False]
    assert several.is_multi
    assert not several.can_subset
    assert several.output(AssetKey("p/b")).name == "b"
    assert several(0) == (1, 2, 3)
    with pytest.raises(DefinitionError, match="computes 3 assets") as caught:
        _ = several.key
    assert "a, p/b, x/y" in caught.value.remedy


def test_outputs_say_what_they_do_not_share() -> None:
    @P.multi_asset(
        outs={
            "a": P.AssetOut(description="A", group_name="g1", code_version="2", io_manager_key="m", kinds=["k"]),
            "b": P.AssetOut(owners=["team:x"], tags={"t": ""}, metadata={"n": 1}),
        },
        group_name="g",
        description="all",
        code_version="1",
        deps=["up"],
        can_subset=True,
        name="both",
    )
    def f():
        pass

    a, b = f.specs
    assert f.name == "both"
    assert (a.description, a.group_name, a.code_version, a.io_manager, a.kinds) == ("A", "g1", "2", "m", {"k"})
    assert (b.description, b.group_name, b.code_version, b.io_manager) == ("all", "g", "1", "io_manager")
    assert (b.owners, b.tags, b.metadata) == (("team:x",), {"t": ""}, {"n": 1})
    assert a.deps == b.deps == (AssetDep("up"),)
    assert f.can_subset


def test_specs_may_depend_on_each_other() -> None:
    @P.multi_asset(
        specs=(P.AssetSpec(key, deps=deps) for key, deps in (("a", []), ("b", ["a"]))),  # pyright: ignore
        deps=["up"],
        group_name="g",
    )
    def f():
        pass

    assert [o.name for o in f.outputs] == ["a", "b"]
    assert f.specs[1].deps == (AssetDep("up"), AssetDep("a"))
    assert f.specs[0].group_name == "g"


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({}, "needs its assets as outs or as specs"),
        ({"outs": {}}, "needs its assets as outs or as specs"),
        ({"specs": []}, "needs its assets as outs or as specs"),
        ({"outs": {"a": P.AssetOut()}, "specs": [P.AssetSpec("b")]}, "needs its assets as outs or as specs"),
        ({"specs": ["a"]}, "was given a str"),
        ({"outs": {"a": P.AssetOut()}, "can_subest": True}, "@multi_asset has no argument `can_subest`"),
        ({"specs": 3}, "the specs of @multi_asset are of the type int"),
        ({"outs": ["a"]}, "the outs of @multi_asset are of the type list"),
        ({"outs": {"a": P.AssetSpec("a")}}, "was given a AssetSpec"),
        ({"outs": {"a": P.AssetOut(kinds="python")}}, "kinds is a list of texts"),
    ],
)
def test_several_assets_are_said_in_one_way(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(DefinitionError, match=reason) as caught:

        @P.multi_asset(**settings)
        def f():
            pass

    assert Path(__file__).name in caught.value.message


def test_an_output_has_a_key_or_a_prefix() -> None:
    with pytest.raises(DefinitionError, match="key or key_prefix"):
        P.AssetOut("a", key_prefix="b")


def test_specs_are_values_and_definitions_are_themselves() -> None:
    source = P.AssetSpec("a").source
    assert P.AssetSpec("a", source=source) == P.AssetSpec("a", source=source)
    assert len({P.AssetSpec("a", source=source), P.AssetSpec("a", source=source)}) == 1
    one, two = (P.asset(lambda: 1, name="x") for _ in range(2))
    assert one != two
    assert len({one, two}) == 2
    assert P.AssetSpec("a").source.file == __file__


def test_names_that_only_type_checkers_see_are_there_for_people() -> None:
    assert set(P.__all__) <= set(dir(P))
