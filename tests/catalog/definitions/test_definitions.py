# pyright: reportUnknownParameterType=false, reportMissingParameterType=false, reportUnknownLambdaType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
"""`Definitions` as a whole; asset functions here are as bare as users write them."""

import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import headwater as P
from headwater.catalog.config import EnvVar
from headwater.catalog.definitions.definitions import Definitions, assets_of_module
from headwater.catalog.errors import (
    ConfigError,
    CycleError,
    DefinitionError,
    DuplicateAssetError,
    MissingResourceError,
    PartitionMappingError,
    UnknownDependencyError,
)
from headwater.catalog.keys import AssetKey
from headwater.catalog.lineage.node import UNBOUND, AssetNode, Dependency
from headwater.catalog.metadata import MetadataValue
from headwater.catalog.records import Fingerprint
from tests.catalog.definitions.project import imported, write_project

HERE = Path(__file__).name


class Limits(P.Config):
    top: int = 10

    @property
    def half(self) -> int:
        return self.top // 2


class Needy(P.Config):
    table: str


class Warehouse(P.ConfigurableResource):
    path: str = "x"


def made(name: str, *parameters: str, **settings: Any) -> Any:
    """An asset whose function takes parameters of these names."""
    namespace: dict[str, Any] = {}
    exec(f"def f({', '.join(parameters)}): return 1", namespace)
    named: dict[str, Any] = {"key": name, **settings}
    return P.asset(namespace["f"], **named)


def node(definitions: Definitions, key: str) -> AssetNode:
    return definitions.graph[AssetKey(key)]


def fingerprint(definitions: Definitions, key: str) -> Fingerprint:
    found = node(definitions, key).fingerprint
    assert found is not None
    return found


def parents(definitions: Definitions, key: str) -> tuple[str, ...]:
    return tuple(map(str, definitions.graph.parents(AssetKey(key))))


def test_parameters_and_deps_are_edges() -> None:
    definitions = Definitions([made("c", "a", deps=["b", "a"]), made("a"), made("b")])
    assert list(definitions.graph.nodes) == ["a", "b", "c"]
    assert node(definitions, "c").deps == (
        Dependency(key=AssetKey("a"), parameter="a"),
        Dependency(key=AssetKey("b")),
    )


def test_every_attribute_is_in_the_node() -> None:
    @P.asset(
        key="x/best",
        group_name="g",
        description="d",
        kinds=["b", "a"],
        owners=["team:x"],
        tags={"t": "v"},
        metadata={"n": 5},
        io_manager_key="m",
        deps=["up"],
    )
    def f() -> None:
        pass

    found = node(Definitions(f, resources={"m": object()}), "x/best")
    assert (found.group, found.description, found.kinds, found.owners) == ("g", "d", ("a", "b"), ("team:x",))
    assert (found.tags, found.metadata, found.io_manager) == ({"t": "v"}, {"n": MetadataValue.int(5)}, "m")
    assert (found.step, found.can_subset, found.stored, found.external) == ("x/best", True, False, False)
    assert HERE in found.source


def test_metadata_that_cannot_be_kept_names_the_asset_and_the_place() -> None:
    with pytest.raises(DefinitionError) as caught:
        Definitions([made("a", metadata={"x": object()})])
    assert "asset `a`: the metadata entry 'x'" in caught.value.message
    assert caught.value.message.startswith("<string>:1: ")


def test_what_assets_may_be() -> None:
    a, b, c = made("a"), made("b"), made("c")
    module = types.ModuleType("some_module")
    vars(module).update(a=a, b=[b, P.AssetSpec("s")], again=a, other=5)
    assert set(Definitions(module).graph.nodes) == {"a", "b", "s"}
    assert set(Definitions([module, [a, (c,)]]).graph.nodes) == {"a", "b", "c", "s"}
    assert set(Definitions(a).graph.nodes) == {"a"}
    assert set(Definitions(x for x in (a, b)).graph.nodes) == {"a", "b"}
    assert len(Definitions().graph) == 0
    assert assets_of_module(module)[:2] == [a, b]


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (lambda: 1, "holds a function, `<lambda>`"),
        ("orders", "holds a str, `orders`"),
        (5, "holds a int."),
        (None, "holds a NoneType."),
    ],
)
def test_what_assets_may_not_be(entry: Any, reason: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        Definitions([entry])
    assert reason in caught.value.message
    assert HERE in caught.value.message
    assert "@asset" in caught.value.remedy


def test_two_assets_of_one_key_are_refused_with_both_places() -> None:
    @P.asset
    def a():
        pass

    def one() -> Any:
        @P.asset(name="a")
        def f():
            pass

        return f

    second = one()
    with pytest.raises(DuplicateAssetError) as caught:
        Definitions([a, second])
    assert str(a.source) in caught.value.message
    assert str(second.source) in caught.value.message
    with pytest.raises(DuplicateAssetError):
        Definitions([a, P.AssetSpec("a")])
    assert len(Definitions([a, a, [a]]).graph) == 1


def test_two_steps_of_one_name_are_refused_with_both_places() -> None:
    def one(key: str) -> Any:
        @P.multi_asset(name="both", outs={key: P.AssetOut()})
        def f():
            pass

        return f

    with pytest.raises(DuplicateAssetError, match="Two steps are called `both`"):
        Definitions([one("a"), one("b")])


def test_circles_are_refused_with_their_places() -> None:
    with pytest.raises(CycleError, match="`a` → `b` → `a`"):
        Definitions([made("a", "b"), made("b", "a")])
    with pytest.raises(PartitionMappingError, match=r"`a` cannot read `a`.*It would be made of itself"):
        Definitions([made("a", deps=["a"])])


class TestParameters:
    """How a parameter finds its asset."""

    def test_a_key_of_the_same_name(self) -> None:
        assert parents(Definitions([made("x/b", "a"), made("a"), made("x/a")]), "x/b") == ("a",)

    def test_an_asset_beside_it(self) -> None:
        assert parents(Definitions([made("x/b", "a"), made("x/a"), made("y/a")]), "x/b") == ("x/a",)

    def test_the_only_asset_called_so(self) -> None:
        assert parents(Definitions([made("x/b", "a"), made("y/z/a")]), "x/b") == ("y/z/a",)

    def test_several_assets_called_so_are_ambiguous(self) -> None:
        with pytest.raises(UnknownDependencyError) as caught:
            Definitions([made("x/b", "a"), made("y/a"), made("z/a")])
        assert "may mean `y/a` or `z/a`" in caught.value.message
        assert "AssetIn('y/a')" in caught.value.remedy

    def test_a_resource_of_the_name(self) -> None:
        definitions = Definitions([made("b", "db")], resources={"db": 5})
        assert definitions.assets[0].resources == {"db": "db"}
        assert parents(definitions, "b") == ()

    def test_an_asset_goes_before_a_resource(self) -> None:
        assert parents(Definitions([made("b", "db"), made("db")], resources={"db": 5}), "b") == ("db",)

    def test_nothing_of_the_name(self) -> None:
        with pytest.raises(UnknownDependencyError) as caught:
            Definitions([made("b", "orderz"), made("orders")])
        assert "the parameter `orderz` of `b` asks for the asset `orderz`, and there is none" in caught.value.message
        assert "Did you mean `orders`? (orders: <string>:1)" in caught.value.remedy
        with pytest.raises(UnknownDependencyError) as caught:
            Definitions([made("b", "zzz")])
        assert "deps=['zzz']" in caught.value.remedy

    def test_a_default_where_there_is_no_asset(self) -> None:
        assert parents(Definitions([made("b", "a=5"), made("c")]), "b") == ()
        assert parents(Definitions([made("b", "a=5"), made("x/a")]), "b") == ()
        assert parents(Definitions([made("b", "a=5"), made("a")]), "b") == ("a",)
        assert parents(Definitions([made("x/b", "a=5"), made("x/a")]), "x/b") == ("x/a",)

    def test_an_annotation_that_is_not_there_at_run_time(self) -> None:
        @P.asset
        def f(limits: "NowhereToBeSeen"):  # pyright: ignore  # noqa: F821
            pass

        with pytest.raises(UnknownDependencyError) as caught:
            Definitions([f])
        assert "'NowhereToBeSeen'" in caught.value.remedy
        assert "TYPE_CHECKING" in caught.value.remedy

    def test_a_whole_key_must_exist(self) -> None:
        with pytest.raises(UnknownDependencyError, match="asks for the asset `x/a`"):
            Definitions([made("b", "p", ins={"p": P.AssetIn("x/a")}), made("a")])
        assert parents(Definitions([made("b", "p", ins={"p": P.AssetIn("x/a")}), made("x/a")]), "b") == ("x/a",)

    def test_an_external_asset(self) -> None:
        definitions = Definitions([made("b", "a"), P.AssetSpec("a", group_name="g", deps=["z"])])
        assert parents(definitions, "b") == ("a",)
        assert node(definitions, "a").external
        assert node(definitions, "a").group == "g"
        assert parents(definitions, "a") == ("z",)
        assert definitions.spec_of(AssetKey("a")) is definitions.specs[0]
        assert definitions.spec_of(AssetKey("z")) is None

    def test_one_output_of_several(self) -> None:
        @P.multi_asset(outs={"a": P.AssetOut(), "b": P.AssetOut()})
        def several():
            return 1, 2

        definitions = Definitions([several, made("c", "x", ins={"x": P.AssetIn("b")})])
        assert parents(definitions, "c") == ("b",)
        assert definitions.definition_of(AssetKey("a")) is definitions.definition_of(AssetKey("b"))
        assert not node(definitions, "a").can_subset

    def test_two_parameters_of_one_asset(self) -> None:
        both = made("b", "p", "q", ins={"p": P.AssetIn("a", columns=["x"]), "q": P.AssetIn("a", columns=["y"])})
        definitions = Definitions([both, made("a")])
        assert node(definitions, "b").deps == (Dependency(key=AssetKey("a"), parameter="p", columns=("x", "y")),)
        whole = made("c", "p", "q", ins={"p": P.AssetIn("a", columns=["x"]), "q": P.AssetIn("a")})
        assert node(Definitions([whole, made("a")]), "c").deps[0].columns is None


def test_external_names_in_deps() -> None:
    definitions = Definitions([made("a", deps=["elsewhere"])])
    assert node(definitions, "elsewhere").external
    assert "elsewhere" not in definitions.graph.materializable


def test_resources_that_nobody_provides() -> None:
    @P.asset
    def f(db: Warehouse):
        pass

    for assets, resources, name in (
        ([f], {}, "db"),
        ([made("a", required_resource_keys=["db"])], {"x": 1}, "db"),
        ([made("a", io_manager_key="lake")], {"laek": 1}, "lake"),
        ([made("b", "a", ins={"a": P.AssetIn(input_manager_key="im")}), made("a")], {}, "im"),
    ):
        with pytest.raises(MissingResourceError) as caught:
            Definitions(assets, resources)
        assert f"needs the resource `{name}`; nobody provides it" in caught.value.message
        assert caught.value.remedy
    with pytest.raises(MissingResourceError) as caught:
        Definitions([made("a", io_manager_key="lake")], {"laek": 1})
    assert "Did you mean `laek`" in caught.value.remedy
    Definitions([f], {"db": Warehouse()})


def test_resources_of_another_class() -> None:
    @P.asset
    def f(db: Warehouse):
        pass

    with pytest.raises(DefinitionError, match="parameter `db` of `f` wants a Warehouse, and the resource `db` is of"):
        Definitions([f], {"db": 3})


@pytest.mark.parametrize(("resources", "reason"), [([3], "not list"), ({3: 3}, "the name 3, which is no text")])
def test_what_resources_may_not_be(resources: Any, reason: str) -> None:
    with pytest.raises(DefinitionError, match=reason) as caught:
        Definitions([made("a")], resources)
    assert HERE in caught.value.message


class TestFingerprints:
    """What of a definition makes its data stale, and what does not."""

    def same(self, one: Any, other: Any, *, resources: Any = None, others: Any = None) -> set[str]:
        """The parts in which the asset `f` of two definitions differs."""
        a = fingerprint(Definitions([one, made("up"), made("up2")], resources or {}), "f")
        b = fingerprint(Definitions([other, made("up"), made("up2")], others or resources or {}), "f")
        return {
            part for part in ("code", "definition", "config", "resources", "io") if getattr(a, part) != getattr(b, part)
        }

    def asset(self, function: Callable[..., Any], **settings: Any) -> Any:
        named: dict[str, Any] = {"name": "f", **settings}
        return P.asset(function, **named)

    def test_what_people_read_does_not_count(self) -> None:
        def f(up):
            return up

        for settings in (
            {"description": "d"},
            {"group_name": "g"},
            {"owners": ["team:x"]},
            {"tags": {"a": "b"}},
            {"kinds": ["k"]},
            {"metadata": {"n": 1}},
            {"retry_policy": P.RetryPolicy()},
            {"deps": ["up2"]},
        ):
            assert self.same(self.asset(f), self.asset(f, **settings)) == set()

    def test_wiring_counts(self) -> None:
        def f(up):
            return up

        for ins in (P.AssetIn("up2"), P.AssetIn("up", columns=["a"])):
            assert self.same(self.asset(f), self.asset(f, ins={"up": ins})) == {"definition"}
        assert self.same(self.asset(f), self.asset(f, ins={"up": P.AssetIn("up", metadata={"x": 1})})) == set()

    def test_an_explicit_code_version_replaces_the_code(self) -> None:
        one, other = self.asset(lambda: 1, code_version="1"), self.asset(lambda: 2, code_version="1")
        assert self.same(one, other) == set()
        assert self.same(one, self.asset(lambda: 1, code_version="2")) == {"code"}
        assert fingerprint(Definitions(one), "f").code == "user:1"

    def test_configuration_counts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def f(config: Limits):
            return config.half

        plain = self.asset(f)
        assert self.same(plain, self.asset(f, config={"top": 10})) == set()
        assert self.same(plain, self.asset(f, config=Limits(top=10))) == set()
        assert self.same(plain, self.asset(f, config={"top": 11})) == {"config"}
        variable = self.asset(f, config={"top": EnvVar.int("TOP")})
        without = fingerprint(Definitions(variable), "f")
        monkeypatch.setenv("TOP", "5")
        assert fingerprint(Definitions(variable), "f") == without

    def test_a_run_may_configure_otherwise(self) -> None:
        def f(config: Limits):
            return config.top

        definitions = Definitions(self.asset(f))
        default = fingerprint(definitions, "f")
        for section in ("ops", "assets"):
            graph = definitions.graph_with({section: {"f": {"config": {"top": 5}}}})
            changed = graph[AssetKey("f")].fingerprint
            assert changed is not None
            assert changed.config != default.config
            assert changed.code == default.code
            config = definitions.config_of(definitions.assets[0], {section: {"f": {"config": {"top": 5}}}})
            assert config == Limits(top=5)
        assert definitions.graph_with({}) is definitions.graph
        with pytest.raises(ConfigError, match="ops:f:config:top"):
            definitions.graph_with({"ops": {"f": {"config": {"top": "x"}}}})

    def test_configuration_may_be_left_to_the_run(self) -> None:
        def f(config: Needy):
            return config.table

        assert fingerprint(Definitions(self.asset(f)), "f").config == UNBOUND
        definitions = Definitions(self.asset(f))
        with pytest.raises(ConfigError, match="missing required field `table`"):
            definitions.config_of(definitions.assets[0], {})
        with pytest.raises(ConfigError, match="missing required field `table`"):
            definitions.graph_with({"ops": {"f": {"config": {}}}})

    def test_a_wrong_configuration_in_the_definition_is_refused_with_its_place(self) -> None:
        def f(config: Limits):
            pass

        with pytest.raises(DefinitionError) as caught:
            Definitions(self.asset(f, config={"tpo": 5}))
        assert HERE in caught.value.message
        assert "ops:f:config: Object contains unknown field `tpo`" in caught.value.message

    def test_the_code_of_a_config_class_counts(self) -> None:
        def f(config: Any):
            return config.half

        class Other(P.Config):
            top: int = 10

            @property
            def half(self) -> int:
                return self.top // 3

        def g(config: Any):
            return config.half

        f.__annotations__["config"], g.__annotations__["config"] = Limits, Other
        assert self.same(self.asset(f), self.asset(g)) == {"config"}

    def test_resources_count(self) -> None:
        def f(db: Warehouse):
            return db

        def g(db):
            return db

        one, other = {"db": Warehouse(path="x")}, {"db": Warehouse(path="y")}
        assert self.same(self.asset(f), self.asset(f), resources=one, others=other) == {"resources"}
        assert self.same(self.asset(g), self.asset(g), resources=one, others=other) == {"resources"}
        unused = {"db": Warehouse(path="x"), "other": Warehouse()}
        assert self.same(self.asset(f), self.asset(f), resources=one, others=unused) == set()
        by_context = self.asset(lambda: 1, required_resource_keys=["db"])
        assert self.same(by_context, by_context, resources=one, others=other) == {"resources"}

    def test_a_run_may_configure_resources_otherwise(self) -> None:
        def f(db: Warehouse):
            return db

        definitions = Definitions(self.asset(f), {"db": Warehouse()})
        graph = definitions.graph_with({"resources": {"db": {"config": {"path": "z"}}}})
        changed = graph[AssetKey("f")].fingerprint
        assert changed is not None
        assert changed.resources != fingerprint(definitions, "f").resources

    def test_the_io_manager_counts(self) -> None:
        class Manager:
            def __init__(self, root: str) -> None:
                self.root = root

            def fingerprint(self) -> Any:
                return self.root

        f = lambda: 1  # noqa: E731
        assert self.same(self.asset(f, io_manager=Manager("x")), self.asset(f, io_manager=Manager("x"))) == set()
        assert self.same(self.asset(f, io_manager=Manager("x")), self.asset(f, io_manager=Manager("y"))) == {"io"}
        named = self.asset(f, io_manager_key="m")
        x, y = {"m": Manager("x")}, {"m": Manager("y")}
        assert self.same(named, named, resources=x, others=y) == {"io"}
        default = self.asset(f)
        assert self.same(default, default, resources={"io_manager": Manager("x")}, others={"io_manager": 5}) == {"io"}
        assert fingerprint(Definitions(default), "f").io == ""
        definitions = Definitions(named, x)
        assert definitions.io_manager_of(AssetKey("f")) is x["m"]
        assert Definitions(default).io_manager_of(AssetKey("f")) is None


def test_merging_definitions() -> None:
    a, shared = made("a"), made("shared", "x")
    x = made("x")
    one = Definitions([a, shared, x], {"db": 5}, executor="threads")
    five = one.resources["db"]
    two = Definitions([made("b", "a2"), made("a2"), shared, x, P.AssetSpec("s")], {"db": five, "other": 6})
    merged = Definitions.merge(one, two)
    assert set(merged.graph.nodes) == {"a", "shared", "x", "b", "a2", "s"}
    assert dict(merged.resources) == {"db": 5, "other": 6}
    assert merged.executor == "threads"
    with pytest.raises(DefinitionError, match="Two different resources are called `db`"):
        Definitions.merge(one, Definitions(resources={"db": object()}))
    with pytest.raises(DuplicateAssetError):
        Definitions.merge(one, Definitions(made("a")))
    assert len(Definitions.merge().graph) == 0


def test_an_asset_in_two_definitions_is_one_though_its_parameters_were_settled() -> None:
    shared, source = made("p/shared", "source"), made("p/source")
    merged = Definitions.merge(Definitions([shared, source]), Definitions([shared, source]))
    assert set(merged.graph.nodes) == {"p/shared", "p/source"}


class TestLoading:
    """Assets found in modules and packages."""

    FILES = {
        "shop/__init__.py": "from headwater import asset\n@asset\ndef top(): return 1\n",
        "shop/orders.py": """
            from headwater import AssetIn, AssetSpec, asset, multi_asset, AssetOut
            @asset
            def raw(): return 1
            @asset
            def clean(raw): return raw
            @asset(deps=[raw], group_name="own")
            def by_object(): ...
            @asset(deps=["raw", "elsewhere"])
            def by_name(): ...
            @asset(ins={"x": AssetIn("raw"), "y": AssetIn("other")})
            def by_key(x, y): ...
            @multi_asset(outs={"m1": AssetOut(), "m2": AssetOut()})
            def both(clean): return 1, 2
            listed = [AssetSpec("outside", deps=["raw"])]
        """,
        "shop/deep/__init__.py": "",
        "shop/deep/more.py": "from headwater import asset\nfrom shop.orders import raw\n@asset\ndef last(raw): ...\n",
        "here.py": """
            from headwater import asset, load_assets_from_current_module
            @asset
            def one(): ...
            loaded = load_assets_from_current_module(group_name="g", key_prefix="p")
            @asset
            def two(): ...
        """,
    }

    def test_modules(self, tmp_path: Path) -> None:
        with imported(write_project(tmp_path, self.FILES), "shop.orders") as module:
            assets = P.load_assets_from_modules([module])
            found = {str(key) for a in assets for key in getattr(a, "keys", None) or [a.key]}
            assert found == {"raw", "clean", "by_object", "by_name", "by_key", "m1", "m2", "outside"}
            definitions = Definitions([assets, made("other")])
            assert node(definitions, "clean").group == "default"

    def test_a_prefix_goes_before_every_mention(self, tmp_path: Path) -> None:
        with imported(write_project(tmp_path, self.FILES), "shop.orders") as module:
            staging = P.load_assets_from_modules([module], key_prefix=["s", "t"], group_name="staging")
            plain = P.load_assets_from_modules([module])
            definitions = Definitions([staging, plain, made("other")])
        assert parents(definitions, "s/t/clean") == ("s/t/raw",)
        assert parents(definitions, "s/t/by_object") == ("s/t/raw",)
        assert parents(definitions, "s/t/by_name") == ("s/t/raw", "elsewhere")
        assert parents(definitions, "s/t/by_key") == ("s/t/raw", "other")
        assert parents(definitions, "s/t/m1") == ("s/t/clean",)
        assert parents(definitions, "s/t/outside") == ("s/t/raw",)
        assert parents(definitions, "clean") == ("raw",)
        assert node(definitions, "s/t/clean").group == "staging"
        assert node(definitions, "s/t/by_object").group == "own"
        assert node(definitions, "s/t/m1").step == "s/t/both"
        assert fingerprint(definitions, "s/t/clean").code == fingerprint(definitions, "clean").code

    def test_packages(self, tmp_path: Path) -> None:
        with imported(write_project(tmp_path, self.FILES), "shop") as package:
            assets = P.load_assets_from_package_module(package)
            definitions = Definitions([assets, made("other")])
            assert {"top", "raw", "last"} <= set(definitions.graph.nodes)
            with pytest.raises(DefinitionError, match="is no package"):
                P.load_assets_from_package_module(sys.modules["shop.orders"])

    def test_the_current_module(self, tmp_path: Path) -> None:
        with imported(write_project(tmp_path, self.FILES), "here") as module:
            (one,) = module.loaded
            assert one.key == "p/one"
            assert one.specs[0].group_name == "g"
            assert module.one.key == "one"
