import enum
import json
import logging
from pathlib import Path
from typing import Annotated, Any

import pytest

from headwater.catalog.config import EnvVar
from headwater.catalog.definitions.resource import (
    ConfigurableResource,
    ResourceParam,
    describe_resource,
    hash_json,
    is_resource_annotation,
    resolve_resource,
)
from headwater.catalog.errors import ConfigError
from headwater.materialize.execution.context import RunContext, RunInfo

SECRET = "s3cr3t-canary"


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Credentials(ConfigurableResource):
    user: str
    password: str = ""


class Warehouse(ConfigurableResource):
    path: str
    port: int = 5432
    colour: Colour = Colour.RED
    root: Path = Path("/data")
    login: Credentials | None = None
    hosts: list[str] = []
    options: dict[str, Any] = {}
    client: Any = None


class Client:
    def __init__(self) -> None:
        self.calls: list[str] = []


class Talkative:
    """Makes up whatever attribute it is asked for, as mocks do."""

    def __getattr__(self, name: str) -> Any:
        return lambda: object()


def test_what_is_a_resource_is_seen_by_its_annotation() -> None:
    assert is_resource_annotation(Warehouse)
    assert is_resource_annotation(ResourceParam[Client])
    assert is_resource_annotation(ResourceParam[str])
    for other in (Client, str, None, "Warehouse", Warehouse(path="x"), Annotated[int, "x"], list[int], Talkative()):
        assert not is_resource_annotation(other)


def test_a_run_gets_a_copy_with_its_variables_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PASSWORD", SECRET)
    monkeypatch.setenv("PORT", "99")
    given = Warehouse(
        path=EnvVar("PASSWORD"),
        port=EnvVar.int("PORT"),
        login=Credentials(user="me", password=EnvVar("PASSWORD")),
        hosts=["a", EnvVar("PASSWORD")],
        options={"deep": [{"key": EnvVar("PASSWORD")}]},
        client=Client(),
    )
    resolved = resolve_resource(given, "resources:db")
    assert resolved is not given
    assert (resolved.path, resolved.port, resolved.login.password) == (SECRET, 99, SECRET)
    assert resolved.hosts == ["a", SECRET]
    assert resolved.options == {"deep": [{"key": SECRET}]}
    assert resolved.client is given.client
    assert given.path == "PASSWORD"
    assert isinstance(given.login, Credentials)
    assert isinstance(given.login.password, EnvVar)


def test_variables_are_text_and_fields_may_be_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "99")
    given = Warehouse(path="x", port=EnvVar("PORT"))  # pyright: ignore[reportArgumentType]
    assert resolve_resource(given, "r").port == 99


@pytest.mark.parametrize(
    ("resource", "message"),
    [
        (Warehouse(path=EnvVar("GONE")), "resources:db:path: the environment variable GONE is not set"),
        (Warehouse(path="x", hosts=[EnvVar("GONE")]), "resources:db:hosts:0: the environment variable GONE is not set"),
        (Warehouse(path="x", login=Credentials(user=EnvVar("GONE"))), "resources:db:login:user: the environment"),
        (Warehouse(path="x", port=EnvVar.int("TOKEN")), "resources:db:port: the environment variable TOKEN does not"),
        (Warehouse(path="x", port=EnvVar("TOKEN")), "resources:db:port: Expected `int`, got `str`"),  # pyright: ignore
        (Warehouse(path="x", colour=EnvVar("TOKEN")), "resources:db:colour: what env:TOKEN holds does not fit"),  # pyright: ignore
        (Warehouse(path=5), "resources:db:path: Expected `str`, got `int`"),  # pyright: ignore[reportArgumentType]
        (Warehouse(path="x", port="y"), "resources:db:port: Expected `int`, got `str`"),  # pyright: ignore
    ],
)
def test_errors_name_the_path_and_no_secret(resource: Warehouse, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", SECRET)
    monkeypatch.delenv("GONE", raising=False)
    with pytest.raises(ConfigError) as caught:
        resolve_resource(resource, "resources:db")
    assert caught.value.message.startswith(message)
    assert caught.value.remedy
    assert SECRET not in str(caught.value)


def test_other_objects_are_handed_out_as_they_are() -> None:
    client = Client()
    assert resolve_resource(client, "r") is client
    assert resolve_resource("text", "r") == "text"


def test_settings_are_described_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", SECRET)
    warehouse = Warehouse(
        path="x",
        login=Credentials(user="me", password=EnvVar("TOKEN")),
        hosts=[EnvVar("TOKEN")],
        options={"a": {"env": "TOKEN"}},
    )
    text = json.dumps(describe_resource(warehouse))
    assert SECRET not in text
    assert text.count("env:TOKEN") == 3
    assert "Warehouse" in text


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Warehouse(path="x"), Warehouse(path="y")),
        (Warehouse(path="x"), Warehouse(path="x", port=1)),
        (Warehouse(path="x"), Warehouse(path="x", colour=Colour.BLUE)),
        (Warehouse(path="x"), Warehouse(path="x", root=Path("/other"))),
        (Warehouse(path="x"), Warehouse(path="x", login=Credentials(user="a"))),
        (Warehouse(path="x", login=Credentials(user="a")), Warehouse(path="x", login=Credentials(user="b"))),
        (Warehouse(path="x", options={"a": b"1"}), Warehouse(path="x", options={"a": b"2"})),
        (Warehouse(path="x"), Credentials(user="x")),
        ({"a": 1}, {"a": 2}),
        ("a", "b"),
        (Client(), Credentials(user="x")),
    ],
)
def test_another_configuration_is_described_otherwise(one: Any, other: Any) -> None:
    assert hash_json(describe_resource(one)) == hash_json(describe_resource(one))
    assert hash_json(describe_resource(one)) != hash_json(describe_resource(other))


def test_objects_are_described_the_same_every_time() -> None:
    for thing in (Client(), Talkative(), object(), {"s": {"b", "a"}}, Warehouse(path="x", client=Talkative()), print):
        assert json.dumps(describe_resource(thing)) == json.dumps(describe_resource(thing))
        assert "0x" not in json.dumps(describe_resource(thing))


def test_an_object_may_say_what_matters_of_it() -> None:
    class Store:
        def __init__(self, root: str) -> None:
            self.root = root

        def fingerprint(self) -> Any:
            return {"root": self.root, "names": {"b", "a"}}

    assert describe_resource(Store("x"))[1] == {"root": "x", "names": ["a", "b"]}
    assert describe_resource(Store("x")) != describe_resource(Store("y"))


def test_a_resource_is_set_up_and_torn_down() -> None:
    happened: list[str] = []

    class Connection(ConfigurableResource):
        url: str

        def setup_for_execution(self, context: RunContext) -> None:
            self.session = f"{self.url} {context.run_id}"
            happened.append("setup")

        def teardown_after_execution(self, context: RunContext) -> None:
            happened.append("teardown")

    context = RunContext(run=RunInfo(run_id="r1"), log=logging.getLogger("test"))
    with (
        pytest.raises(RuntimeError, match="in the run"),
        Connection(url="db").yield_for_execution(context) as connection,
    ):
        assert connection.session == "db r1"  # pyright: ignore
        raise RuntimeError("in the run")
    assert happened == ["setup", "teardown"]


def test_hashes_name_their_scheme_and_do_not_depend_on_the_order_of_keys() -> None:
    assert hash_json({"a": 1, "b": 2}) == hash_json({"b": 2, "a": 1})
    assert hash_json([1]).startswith("cfg1:")
    assert hash_json([1]) != hash_json(["1"])
    with pytest.raises(TypeError):
        hash_json(object())
