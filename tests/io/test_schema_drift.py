from pathlib import Path
from typing import Any

import pytest

from headwater.catalog.errors import ConfigError, SchemaDriftError
from headwater.catalog.records import Column, Pointer
from headwater.io import ParquetIOManager
from headwater.io.engines import arrow, polars
from headwater.io.schema_drift import SchemaDrift, compare, enforce
from tests.io.support import files_below, output, store

pa, pl = arrow(), polars()

NOBODY: set[SchemaDrift] = set()
BEFORE = Pointer(
    uri="file:///x", format="parquet", columns=(Column(name="a", type="int64"), Column(name="b", type="string"))
)


@pytest.mark.parametrize(
    ("columns", "refused_by", "text"),
    [
        ({"a": "int64", "b": "string"}, NOBODY, ""),
        ({"b": "string", "a": "int64"}, NOBODY, ""),
        ({"a": "int64", "b": "string", "c": "bool"}, {"strict"}, "+ c bool"),
        ({"a": "int64"}, {"strict", "additive"}, "- b string"),
        ({"a": "double", "b": "string"}, {"strict", "additive"}, "~ a int64 → double"),
        ({"a": "null", "b": "string"}, NOBODY, ""),
        ({"A": "int64", "b": "string"}, {"strict", "additive"}, "+ A int64, - a int64"),
    ],
)
def test_what_a_policy_refuses(columns: dict[str, str], refused_by: set[SchemaDrift], text: str) -> None:
    change = compare(BEFORE, columns)
    assert str(change) == text
    assert bool(change) == bool(text)
    policies: tuple[SchemaDrift, ...] = ("strict", "additive", "any")
    for policy in policies:
        if policy in refused_by:
            with pytest.raises(SchemaDriftError, match="shop/orders changed"):
                enforce(change, policy, "shop/orders")
        else:
            enforce(change, policy, "shop/orders")


def test_there_is_nothing_to_compare_with() -> None:
    assert not compare(None, {"a": "int64"})
    assert not compare(Pointer(uri="file:///x", format="json"), {"a": "int64"})


def test_a_column_of_nulls_fits_any_type_both_ways() -> None:
    before = Pointer(uri="x", format="parquet", columns=(Column(name="a", type="null"),))
    assert not compare(before, {"a": "string"})


class TestManager:
    @pytest.fixture
    def previous(self, tmp_path: Path) -> Pointer:
        return store(ParquetIOManager(tmp_path), pa.table({"a": [1], "b": ["x"]}))[1]

    def test_the_same_code_may_not_drop_a_column(self, previous: Pointer, tmp_path: Path) -> None:
        before = files_below(tmp_path)
        for frame in (pa.table({"a": [1]}), pl.DataFrame({"a": [1]}), pl.LazyFrame({"a": [1]})):
            with pytest.raises(SchemaDriftError, match="- b string") as caught:
                ParquetIOManager(tmp_path).stage(output(previous=previous, code_changed=False), frame)
            assert caught.value.code == "E-SCHEMA-DRIFT"
        assert files_below(tmp_path) == before

    def test_other_code_may(self, previous: Pointer, tmp_path: Path) -> None:
        context = output(previous=previous, code_changed=True)
        ParquetIOManager(tmp_path).stage(context, pa.table({"a": [1.5]}))
        assert context.added_metadata["schema_change"] == {
            "added": {},
            "removed": {"b": "string"},
            "retyped": {"a": ["int64", "double"]},
        }

    def test_a_new_column_is_reported(self, previous: Pointer, tmp_path: Path) -> None:
        context = output(previous=previous, code_changed=False)
        ParquetIOManager(tmp_path).stage(context, pa.table({"a": [1], "b": ["x"], "c": [True]}))
        assert context.added_metadata["schema_change"]["added"] == {"c": "bool"}
        with pytest.raises(SchemaDriftError):
            ParquetIOManager(tmp_path, schema_drift="strict").stage(
                output(previous=previous, code_changed=False), pa.table({"a": [1], "b": ["x"], "c": [True]})
            )

    def test_no_change_is_not_reported(self, previous: Pointer, tmp_path: Path) -> None:
        context = output(previous=previous, code_changed=False)
        frame: Any = pl.DataFrame({"b": ["other"], "a": [2]})  # another library and order, the same columns
        ParquetIOManager(tmp_path, schema_drift="strict").stage(context, frame)
        assert context.added_metadata == {}

    def test_any_takes_all(self, previous: Pointer, tmp_path: Path) -> None:
        manager = ParquetIOManager(tmp_path, schema_drift="any")
        manager.stage(output(previous=previous, code_changed=False), pa.table({"z": [1]}))

    def test_a_policy_that_is_none(self) -> None:
        with pytest.raises(ConfigError, match="loose"):
            ParquetIOManager(schema_drift="loose")  # type: ignore[arg-type]
