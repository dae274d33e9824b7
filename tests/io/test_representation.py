import subprocess
import sys
import typing
from collections.abc import Mapping, MutableMapping
from typing import Annotated, Any, Optional, Union

import pytest

from headwater.io.engines import arrow, duckdb, numpy, pandas, polars
from headwater.io.representation import (
    MappingOf,
    Wanted,
    class_name,
    mapping_of,
    of_annotation,
    of_name,
    of_value,
    says_nothing,
)
from headwater.io.representation import Representation as R
from tests.corpus import HOSTILE
from tests.io.support import environment

pa, pd, pl, np, duck = arrow(), pandas(), polars(), numpy(), duckdb()

TYPES: list[tuple[Any, Wanted]] = [
    (None, Wanted(R.UNKNOWN)),
    (type(None), Wanted(R.UNKNOWN, True)),
    (Any, Wanted(R.UNKNOWN)),
    (object, Wanted(R.UNKNOWN)),
    (pl.DataFrame, Wanted(R.POLARS)),
    (pl.LazyFrame, Wanted(R.POLARS_LAZY)),
    (pd.DataFrame, Wanted(R.PANDAS)),
    (pa.Table, Wanted(R.ARROW)),
    (pa.RecordBatchReader, Wanted(R.ARROW_READER)),
    (duck.DuckDBPyRelation, Wanted(R.DUCKDB)),
    (pl.DataFrame | None, Wanted(R.POLARS, True)),
    (Optional[pd.DataFrame], Wanted(R.PANDAS, True)),  # noqa: UP045
    (Union[pl.DataFrame, pd.DataFrame], Wanted(R.UNKNOWN)),  # noqa: UP007
    (Annotated[pa.Table, "rows"], Wanted(R.ARROW)),
    (Annotated[pl.LazyFrame | None, "rows"], Wanted(R.POLARS_LAZY, True)),
    (dict, Wanted(R.VALUE)),
    (dict[str, int], Wanted(R.VALUE)),
    (list[dict[str, Any]], Wanted(R.VALUE)),
    (int, Wanted(R.VALUE)),
    (str | None, Wanted(R.VALUE, True)),
    (typing.Dict[str, int], Wanted(R.VALUE)),  # noqa: UP006
    (tuple[int, str], Wanted(R.UNKNOWN)),
    (set, Wanted(R.UNKNOWN)),
    (typing.TypeVar("T"), Wanted(R.UNKNOWN)),
    (typing.ForwardRef("pl.DataFrame"), Wanted(R.POLARS)),
    (42, Wanted(R.UNKNOWN)),
]
TEXTS: list[tuple[str, Wanted]] = [
    ("pl.DataFrame", Wanted(R.POLARS)),
    ("polars.DataFrame", Wanted(R.POLARS)),
    ("polars.dataframe.frame.DataFrame", Wanted(R.POLARS)),
    ("pl.LazyFrame", Wanted(R.POLARS_LAZY)),
    ("LazyFrame", Wanted(R.POLARS_LAZY)),
    ("pd.DataFrame | None", Wanted(R.PANDAS, True)),
    ("None | pd.DataFrame", Wanted(R.PANDAS, True)),
    ("Optional[pd.DataFrame]", Wanted(R.PANDAS, True)),
    ("typing.Union[pd.DataFrame, None]", Wanted(R.PANDAS, True)),
    ("Annotated[pa.Table, 'x']", Wanted(R.ARROW)),
    ("'pa.Table'", Wanted(R.ARROW)),
    ("pyarrow.lib.Table", Wanted(R.ARROW)),
    ("pa.RecordBatchReader", Wanted(R.ARROW_READER)),
    ("duckdb.DuckDBPyRelation", Wanted(R.DUCKDB)),
    ("DuckDBPyRelation", Wanted(R.DUCKDB)),
    ("DataFrame", Wanted(R.UNKNOWN)),  # of whom?
    ("Table", Wanted(R.UNKNOWN)),
    ("pl.DataFrame | pd.DataFrame", Wanted(R.UNKNOWN)),
    ("dict[str, int]", Wanted(R.VALUE)),
    ("typing.List[int]", Wanted(R.VALUE)),
    ("str", Wanted(R.VALUE)),
    ("mine.str", Wanted(R.UNKNOWN)),
    ("None", Wanted(R.UNKNOWN, True)),
    ("Any", Wanted(R.UNKNOWN)),
    ("geopandas.GeoDataFrame", Wanted(R.UNKNOWN)),
    ("__import__('os').system('id')", Wanted(R.UNKNOWN)),
    ("pl.DataFrame[", Wanted(R.UNKNOWN)),
    ("", Wanted(R.UNKNOWN)),
]


@pytest.mark.parametrize(("annotation", "wanted"), TYPES, ids=lambda value: str(value)[:40])
def test_annotations(annotation: Any, wanted: Wanted) -> None:
    assert of_annotation(annotation) == wanted


@pytest.mark.parametrize(("text", "wanted"), TEXTS)
def test_annotations_that_are_only_text(text: str, wanted: Wanted) -> None:
    assert of_annotation(text) == wanted


def test_any_text_is_looked_at_and_never_run() -> None:
    for text in HOSTILE:
        assert of_annotation(text).representation in (R.UNKNOWN, R.VALUE)


MAPPINGS: list[tuple[Any, MappingOf | None]] = [
    (dict, MappingOf()),
    (dict[str, int], MappingOf(int)),
    (dict[str, pl.DataFrame], MappingOf(pl.DataFrame)),
    (typing.Dict[str, pa.Table], MappingOf(pa.Table)),  # noqa: UP006
    (typing.Dict, MappingOf()),  # noqa: UP006
    (Mapping[str, pl.LazyFrame], MappingOf(pl.LazyFrame)),
    (typing.Mapping[str, "pl.LazyFrame"], MappingOf(typing.ForwardRef("pl.LazyFrame"))),
    (MutableMapping, MappingOf()),
    (dict[str, int] | None, MappingOf(int)),
    (Optional[dict[str, int]], MappingOf(int)),  # noqa: UP045
    (Annotated[dict[str, int] | None, "x"], MappingOf(int)),
    (typing.ForwardRef("dict[str, int]"), MappingOf("int")),
    ("dict", MappingOf()),
    ("dict[str, pl.DataFrame]", MappingOf("pl.DataFrame")),
    ("Dict[str, pl.DataFrame]", MappingOf("pl.DataFrame")),
    ("typing.Mapping[str, dict[str, int]]", MappingOf("dict[str, int]")),
    ("collections.abc.Mapping[str, 'pa.Table | None']", MappingOf("'pa.Table | None'")),
    ("dict[str, int] | None", MappingOf("int")),
    ("None | dict[str, int]", MappingOf("int")),
    ("Optional[dict[str, int]]", MappingOf("int")),
    ("Union[dict[str, int], None]", MappingOf("int")),
    ("Annotated[dict[str, int], 1]", MappingOf("int")),
    ("'dict[str, int]'", MappingOf("int")),
    (None, None),
    (Any, None),
    (pl.DataFrame, None),
    (list[dict[str, int]], None),
    (dict[str, int] | pl.DataFrame, None),
    ("list[dict[str, int]]", None),
    ("dict[str, int] | pl.DataFrame", None),
    ("mine.dict", None),
    ("dict[", None),
    ("", None),
    (42, None),
]


@pytest.mark.parametrize(("annotation", "mapping"), MAPPINGS, ids=lambda value: str(value)[:40])
def test_mappings(annotation: Any, mapping: MappingOf | None) -> None:
    assert mapping_of(annotation) == mapping


def test_annotations_that_say_nothing() -> None:
    assert all(says_nothing(annotation) for annotation in (None, Any, object, "Any", " typing.Any", "object", ""))
    assert not any(says_nothing(annotation) for annotation in (int, "int", type(None), "None", dict, Any | None))
    assert not any(says_nothing(text) or mapping_of(text) for text in HOSTILE if text.strip())


def test_names_of_representations() -> None:
    assert of_name("polars.DataFrame") is R.POLARS
    assert {of_name(None), of_name("mine.Frame"), of_name("")} == {R.UNKNOWN}


def test_values() -> None:
    relation = duck.sql("select 1 as a")
    cases: list[tuple[Any, R]] = [
        (pl.DataFrame(), R.POLARS),
        (pl.LazyFrame(), R.POLARS_LAZY),
        (pd.DataFrame(), R.PANDAS),
        (pa.table({}), R.ARROW),
        (pa.table({"a": [1]}).to_batches()[0], R.ARROW),
        (pa.table({"a": [1]}).to_reader(), R.ARROW_READER),
        (relation, R.DUCKDB),
        (None, R.VALUE),
        (True, R.VALUE),
        (1, R.VALUE),
        (1.5, R.VALUE),
        ("x", R.VALUE),
        ([], R.VALUE),
        ({}, R.VALUE),
        (np.float64(1), R.VALUE),
        (np.int8(1), R.VALUE),
        ((1,), R.UNKNOWN),
        ({1}, R.UNKNOWN),
        (b"x", R.UNKNOWN),
        (object(), R.UNKNOWN),
        (pd.Series([1]), R.ARROW_READER),
        (lambda: None, R.UNKNOWN),
    ]
    for value, expected in cases:
        assert of_value(value) is expected, value
    relation.fetchall()


def test_subclasses_are_what_their_base_is() -> None:
    class GeoFrame(pd.DataFrame):
        pass

    class Settings(dict[str, int]):
        pass

    assert of_value(GeoFrame()) is R.PANDAS
    assert of_annotation(GeoFrame) == Wanted(R.PANDAS)
    assert of_value(Settings()) is R.VALUE


def test_anything_that_speaks_arrow_is_a_frame() -> None:
    class Foreign:
        def __arrow_c_stream__(self, requested_schema: object = None) -> object:
            return pa.table({"a": [1]}).__arrow_c_stream__(requested_schema)

    assert of_value(Foreign()) is R.ARROW_READER


def test_classes_as_errors_name_them() -> None:
    assert class_name(1) == "int"
    assert class_name(pa.table({})) == "pyarrow.lib.Table"


def test_no_library_is_imported_to_decide() -> None:
    code = """
import sys
from headwater.io.representation import of_annotation, of_value
for text in ("pl.DataFrame", "pd.DataFrame | None", "pa.Table", "duckdb.DuckDBPyRelation"):
    of_annotation(text)
of_value({"a": 1}), of_value(3), of_value(object())
heavy = {"polars", "pandas", "pyarrow", "duckdb", "numpy"} & sys.modules.keys()
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True, env=environment(), timeout=60)
