import enum
import json
from datetime import UTC, datetime
from typing import Any, ClassVar, Literal, Self

import msgspec
import pytest

from headwater.catalog.config import Config, EnvVar, bind_config, describe_config, is_config_class, references
from headwater.catalog.definitions.resource import ConfigurableResource
from headwater.catalog.errors import ConfigError, DefinitionError

PATH = "ops:best:config"
SECRET = "s3cr3t-canary"


class Colour(enum.Enum):
    RED = "red"


class Inner(Config):
    ratio: float = 0.5
    names: list[str] = []


class Limits(Config):
    top: int = 10
    since: datetime | None = None
    inner: Inner = Inner()
    parts: list[Inner] = []
    labels: dict[str, int] = {}
    colour: Colour = Colour.RED
    mode: Literal["fast", "exact"] = "fast"


class Needy(Config):
    table: str
    limit: int


class Secretive(Config):
    user: str = "me"
    token: str = EnvVar("TOKEN")
    port: int = EnvVar.int("PORT")


class Model:
    """What classes of pydantic look like from outside."""

    def __init__(self, **values: Any) -> None:
        self.values = values

    @classmethod
    def model_validate(cls, data: Any) -> Self:
        values: dict[str, Any] = dict(data)
        if not isinstance(values.get("top"), int):
            raise ValueError(f"top: Input should be a valid integer [input_value={data!r}]")
        return cls(**values)

    def model_dump(self) -> dict[str, Any]:
        return dict(self.values)


def test_defaults_and_values_are_bound() -> None:
    assert bind_config(Limits, None, PATH) == Limits()
    bound = bind_config(Limits, {"top": 5, "inner": {"ratio": 1.5}, "parts": [{"names": ["a"]}]}, PATH)
    assert bound == Limits(top=5, inner=Inner(ratio=1.5), parts=[Inner(names=["a"])])
    assert bind_config(Limits, Limits(top=7), PATH) == Limits(top=7)
    assert bind_config(Limits, {"since": "2024-01-02T00:00:00Z"}, PATH).since == datetime(2024, 1, 2, tzinfo=UTC)
    assert bind_config(Limits, {"inner": Inner(ratio=3)}, PATH).inner.ratio == 3


def test_an_instance_is_checked_too() -> None:
    with pytest.raises(ConfigError, match="ops:best:config:top: Expected `int`, got `str`"):
        bind_config(Limits, Limits(top="x"), PATH)  # pyright: ignore[reportArgumentType]


def test_fields_may_be_named_otherwise_outside() -> None:
    class Renamed(Config, rename="camel"):
        top_n: int = 1

    assert bind_config(Renamed, {"topN": 3}, PATH).top_n == 3
    assert bind_config(Renamed, Renamed(top_n=4), PATH).top_n == 4
    assert describe_config(Renamed, {"topN": 3}, PATH) == {"topN": 3}


@pytest.mark.parametrize(
    ("cls", "data", "message"),
    [
        (Limits, {"top": "ten"}, "ops:best:config:top: Expected `int`, got `str`"),
        (Limits, {"top": "10"}, "ops:best:config:top: Expected `int`, got `str`"),
        (Limits, {"inner": {"ratio": "x"}}, "ops:best:config:inner:ratio: Expected `float`, got `str`"),
        (Limits, {"parts": [{}, {"names": ["a", 5]}]}, "ops:best:config:parts:1:names:1: Expected `str`, got `int`"),
        (Limits, {"labels": {"a": "x"}}, "ops:best:config:labels: Expected `int`, got `str`"),
        (Limits, {"colour": "blue"}, "ops:best:config:colour: Invalid enum value 'blue'"),
        (Limits, {"mode": "slow"}, "ops:best:config:mode: Invalid enum value 'slow'"),
        (Limits, {"tpo": 5}, "ops:best:config: Object contains unknown field `tpo`"),
        (Limits, [1], "ops:best:config: Expected `object`, got `array`"),
        (Limits, 5, "ops:best:config: Expected `object`, got `int`"),
        (Needy, None, "ops:best:config: Object missing required field `table`"),
        (Needy, {"table": "a"}, "ops:best:config: Object missing required field `limit`"),
        (Model, {"top": "x"}, "ops:best:config: top: Input should be a valid integer"),
    ],
)
def test_errors_name_the_path(cls: type, data: Any, message: str) -> None:
    for check in (bind_config, describe_config):
        with pytest.raises(ConfigError) as caught:
            check(cls, data, PATH)
        assert caught.value.message.startswith(message)
        assert caught.value.remedy


def test_the_remedy_lists_the_fields() -> None:
    with pytest.raises(ConfigError) as caught:
        bind_config(Needy, {}, PATH)
    assert caught.value.remedy == "Needy has the fields table: str (required), limit: int (required)."


def test_variables_are_looked_up_when_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TABLE", "orders")
    monkeypatch.setenv("LIMIT", "5")
    for data in (
        {"table": EnvVar("TABLE"), "limit": EnvVar.int("LIMIT")},
        {"table": {"env": "TABLE"}, "limit": {"env": "LIMIT"}},
        Needy(table=EnvVar("TABLE"), limit=EnvVar.int("LIMIT")),
    ):
        assert bind_config(Needy, data, PATH) == Needy(table="orders", limit=5)
    nested = bind_config(Limits, {"parts": [{"names": [{"env": "TABLE"}]}]}, PATH)
    assert nested.parts[0].names == ["orders"]


def test_defaults_may_be_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", SECRET)
    monkeypatch.setenv("PORT", "80")
    bound = bind_config(Secretive, None, PATH)
    assert (bound.token, bound.port) == (SECRET, 80)
    assert type(bound.token) is str
    given = bind_config(Secretive, {"token": "plain"}, PATH)
    assert (given.token, given.port) == ("plain", 80)


@pytest.mark.parametrize(
    ("cls", "data", "message"),
    [
        (Needy, {"table": {"env": "GONE"}, "limit": 1}, "ops:best:config:table: the environment variable GONE is not"),
        (Needy, {"table": "a", "limit": EnvVar.int("TOKEN")}, "ops:best:config:limit: the environment variable TOKEN"),
        (Needy, {"table": "a", "limit": {"env": "TOKEN"}}, "ops:best:config:limit: Expected `int`, got `str`"),
        (Limits, {"colour": {"env": "TOKEN"}}, "ops:best:config: what env:TOKEN holds does not fit"),
        (Limits, {"mode": {"env": "TOKEN"}}, "ops:best:config: what env:TOKEN holds does not fit"),
        (Model, {"top": {"env": "TOKEN"}}, "ops:best:config: what env:TOKEN holds does not fit"),
    ],
)
def test_no_error_shows_what_a_variable_holds(
    cls: type, data: Any, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", SECRET)
    with pytest.raises(ConfigError) as caught:
        bind_config(cls, data, PATH)
    assert caught.value.message.startswith(message)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("cls", "data"),
    [
        (Secretive, None),
        (Secretive, {"token": {"env": "TOKEN"}}),
        (Secretive, {"token": EnvVar("TOKEN"), "user": EnvVar("TOKEN")}),
        (Secretive, Secretive(user=EnvVar("TOKEN"))),
        (Limits, {"parts": [{"names": [{"env": "TOKEN"}]}]}),
        (Limits, {"inner": Inner(names=[EnvVar("TOKEN")])}),
        (Model, {"top": 5, "password": EnvVar("TOKEN")}),
        (Model, {"top": 5, "nested": [{"password": {"env": "TOKEN"}}]}),
    ],
)
def test_what_is_recorded_names_variables_and_never_looks_at_them(
    cls: type, data: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TOKEN", raising=False)
    monkeypatch.delenv("PORT", raising=False)
    without = json.dumps(describe_config(cls, data, PATH))
    monkeypatch.setenv("TOKEN", SECRET)
    monkeypatch.setenv("PORT", "81")
    with_it = json.dumps(describe_config(cls, data, PATH))
    assert without == with_it
    assert "env:TOKEN" in with_it
    assert SECRET not in with_it


def test_what_is_recorded_is_json_and_the_same_every_time() -> None:
    described = describe_config(Limits, {"top": 5, "since": "2024-01-02T00:00:00Z"}, PATH)
    assert described == {
        "top": 5,
        "since": "2024-01-02T00:00:00Z",
        "inner": {"ratio": 0.5, "names": []},
        "parts": [],
        "labels": {},
        "colour": "red",
        "mode": "fast",
    }

    class Sets(Config):
        names: set[str] = msgspec.field(default_factory=lambda: {"b", "a", "c"})

    assert describe_config(Sets, None, PATH) == {"names": ["a", "b", "c"]}
    assert describe_config(Limits, {"inner": {"ratio": 1}}, PATH) == describe_config(
        Limits, {"inner": {"ratio": 1.0}}, PATH
    )


def test_models_of_other_libraries_work() -> None:
    assert is_config_class(Model)
    bound = bind_config(Model, {"top": 5}, PATH)
    assert isinstance(bound, Model)
    assert bound.values == {"top": 5}
    assert bind_config(Model, bound, PATH).values == {"top": 5}
    assert describe_config(Model, Model(top=5, extra=object()), PATH) == {"top": 5, "extra": "object"}


def test_a_variable_shows_its_name_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", SECRET)
    variable = EnvVar("TOKEN")
    assert repr(variable) == "EnvVar('TOKEN')"
    assert variable.reference == "env:TOKEN"
    assert str(variable) == "TOKEN"
    assert variable.get_value() == SECRET
    assert EnvVar("GONE").get_value("x") == "x"
    assert references([{"a": variable}, (variable,), "TOKEN"]) == [variable, variable]


@pytest.mark.parametrize(("text", "kind", "value"), [("5", int, 5), ("0.5", float, 0.5), ("true", bool, True)])
def test_a_variable_may_be_of_another_type(text: str, kind: type, value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("X", text)
    assert EnvVar("X", kind).resolve("p") == value
    monkeypatch.setenv("X", "false" if kind is bool else "x")
    if kind is bool:
        assert EnvVar("X", bool).resolve("p") is False
    else:
        with pytest.raises(ConfigError, match=f"p: the environment variable X does not hold a valid {kind.__name__}"):
            EnvVar("X", kind).resolve("p")


def test_only_config_classes_receive_configuration() -> None:
    assert is_config_class(Limits)
    assert not any(map(is_config_class, (int, Limits(), None, "Limits", msgspec.Struct, list[int])))


@pytest.mark.parametrize("base", [Config, ConfigurableResource])
def test_a_default_that_could_be_changed_is_copied(base: Any) -> None:
    class Lists(base):
        names: list[str] = ["a"]
        nested: "dict[str, list[int]]" = {"n": [1]}
        seen: set[int] = {1}
        shared: ClassVar[list[int]] = [1]
        plain = ["no field"]

    one, other = Lists(), Lists()
    one.names.append("b")
    one.nested["n"].append(2)
    assert (other.names, other.nested, other.seen) == (["a"], {"n": [1]}, {1})
    assert (Lists.shared, Lists.plain) == ([1], ["no field"])
    assert Lists(names=["c"]).names == ["c"]


def test_a_default_that_could_be_changed_is_bound_and_described() -> None:
    class Lists(Config):
        names: list[str] = ["a"]

    assert bind_config(Lists, None, "ops:f:config").names == ["a"]
    assert describe_config(Lists, None, "ops:f:config") == {"names": ["a"]}


def test_a_field_hides_no_method() -> None:
    with pytest.raises(DefinitionError, match="Bad has the field `setup_for_execution`, which would hide a method"):

        class Bad(ConfigurableResource):  # pyright: ignore[reportUnusedClass]
            setup_for_execution: str = "x"  # type: ignore[assignment]  # pyright: ignore


def test_a_config_does_not_change() -> None:
    with pytest.raises(AttributeError):
        Limits().top = 5  # pyright: ignore[reportAttributeAccessIssue]
