from typing import Any, cast

import pytest

from headwater.catalog.definitions.results import NO_VALUE, DataVersion, MaterializeResult, Output
from headwater.catalog.errors import InvalidKeyError, UserCodeError
from headwater.catalog.keys import AssetKey
from headwater.materialize.execution.context import build_asset_context


def test_an_output_keeps_what_it_is_given() -> None:
    output = Output(5, "total", metadata={"n": 1}, data_version=DataVersion("v1"), tags={"a": "b"})
    assert (output.value, output.output_name, output.metadata) == (5, "total", {"n": 1})
    assert (output.data_version, output.tags) == ("v1", {"a": "b"})
    assert Output(None).output_name == "result"
    assert Output(None).data_version is None


def test_a_materialize_result_has_a_value_only_when_given_one() -> None:
    empty: MaterializeResult[int] = MaterializeResult()
    assert empty.value is NO_VALUE
    assert repr(NO_VALUE) == "<no value>"
    assert MaterializeResult(value=None).value is None
    result: MaterializeResult[int] = MaterializeResult(asset_key=["a", "b"], data_version="7")
    assert result.asset_key == AssetKey("a/b")
    assert result.data_version == "7"


def test_what_they_are_made_of_is_not_shared() -> None:
    metadata = {"n": 1}
    output = Output(1, metadata=metadata)
    metadata["n"] = 2
    assert output.metadata == {"n": 1}


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"data_version": 5}, "data version is text, not int"),
        ({"data_version": "x" * 1025}, "cannot be kept"),
        ({"data_version": "\ud800"}, "cannot be kept"),
        ({"tags": {"a": 1}}, "tag's value is text, not int"),
        ({"tags": {1: "a"}}, "tag's name is text, not int"),
        ({"tags": "x"}, "is a mapping of labels to values, not str"),
        ({"metadata": "x"}, "metadata is a mapping of labels to values, not str"),
    ],
)
def test_what_cannot_be_recorded_is_refused_at_once(settings: dict[str, Any], reason: str) -> None:
    for make in (lambda: Output(1, **settings), lambda: MaterializeResult(**settings)):
        with pytest.raises(UserCodeError, match=reason):
            make()


def test_what_a_context_adds_is_a_mapping() -> None:
    with pytest.raises(UserCodeError, match="metadata of an output is a mapping of labels to values, not str"):
        build_asset_context().add_output_metadata(cast(Any, "x"))


def test_versions_and_keys_are_checked() -> None:
    with pytest.raises(UserCodeError):
        DataVersion(cast(Any, 5))
    with pytest.raises(InvalidKeyError):
        MaterializeResult(asset_key="")
    assert DataVersion("x") == DataVersion("x")
