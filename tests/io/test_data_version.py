"""Two data versions are equal exactly when the content is."""

import datetime as dt
import itertools
import struct
from decimal import Decimal
from typing import Any

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from headwater.catalog.errors import UnstorableValueError
from headwater.io.data_version import SCHEME, TableHasher, json_version, table_version, type_text, value_version
from headwater.io.engines import arrow, numpy

pa: Any = arrow()

SCALARS: dict[str, tuple[Any, st.SearchStrategy[Any]]] = {
    "int8": (pa.int8(), st.integers(-128, 127)),
    "int64": (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    "uint64": (pa.uint64(), st.integers(0, 2**64 - 1)),
    "double": (pa.float64(), st.floats(allow_nan=False)),
    "bool": (pa.bool_(), st.booleans()),
    "string": (pa.string(), st.text(st.characters(codec="utf-8"), max_size=6)),
    "binary": (pa.binary(), st.binary(max_size=6)),
    "fixed binary": (pa.binary(3), st.binary(min_size=3, max_size=3)),
    "decimal": (pa.decimal128(9, 2), st.integers(-(10**8), 10**8).map(lambda n: Decimal(n).scaleb(-2))),
    "date": (pa.date32(), st.dates()),
    "timestamp": (pa.timestamp("us", "UTC"), st.datetimes(timezones=st.just(dt.UTC))),
    "null": (pa.null(), st.none()),
}


def nested(name: str, kind: Any, values: st.SearchStrategy[Any]) -> list[tuple[str, Any, st.SearchStrategy[Any]]]:
    optional = st.none() | values
    return [
        (f"list of {name}", pa.list_(kind), st.lists(optional, max_size=3)),
        (f"struct of {name}", pa.struct([("a", kind), ("b", pa.int8())]), st.fixed_dictionaries({"a": optional})),
        (f"pairs of {name}", pa.list_(kind, 2), st.lists(optional, min_size=2, max_size=2)),
    ]


maps = st.dictionaries(st.sampled_from("abé"), st.integers(0, 9), max_size=3).map(lambda d: list(d.items()))
lists = st.lists(st.none() | st.lists(st.integers(0, 9), max_size=2), max_size=3)
TYPES: list[tuple[str, Any, st.SearchStrategy[Any]]] = [
    *((name, *rest) for name, rest in SCALARS.items()),
    *(case for name in ("int64", "string", "bool", "null") for case in nested(name, *SCALARS[name])),
    ("map", pa.map_(pa.string(), pa.int8()), maps),
    ("list of lists", pa.list_(pa.list_(pa.int8())), lists),
    ("dictionary", pa.dictionary(pa.int8(), pa.string()), st.sampled_from(["a", "b", "", "é"])),
]
NAMES = [name for name, _, _ in TYPES]
BY_NAME = {name: (kind, values) for name, kind, values in TYPES}


def version(*batches: Any, schema: Any = None) -> str:
    hasher = TableHasher(schema or batches[0].schema)
    for batch in batches:
        hasher.update(batch)
    return table_version(hasher.columns())


def column_version(*arrays: Any) -> str:
    batches = [pa.RecordBatch.from_arrays([array], names=["x"]) for array in arrays]
    hasher = TableHasher(batches[0].schema)
    for batch in batches:
        hasher.update(batch)
    return hasher.columns()["x"]


def build(kind: Any, values: list[Any]) -> Any:
    return pa.array(values, type=kind)


@st.composite
def columns(draw: st.DrawFn, min_size: int = 0) -> tuple[Any, list[Any]]:
    kind, values = BY_NAME[draw(st.sampled_from(NAMES))]
    return kind, draw(st.lists(st.none() | values, min_size=min_size, max_size=20))


@given(columns(), st.lists(st.integers(0, 20), max_size=4))
def test_chunks_do_not_matter(column: tuple[Any, list[Any]], cuts: list[int]) -> None:
    kind, values = column
    bounds = [0, *sorted(min(cut, len(values)) for cut in cuts), len(values)]
    parts = [build(kind, values[a:b]) for a, b in itertools.pairwise(bounds)]
    assert column_version(*parts) == column_version(build(kind, values))


@given(columns(), st.integers(0, 9), st.integers(0, 9))
def test_offsets_do_not_matter(column: tuple[Any, list[Any]], before: int, after: int) -> None:
    kind, values = column
    longer = build(kind, [*values[:before], *values, *values[:after]])
    assert column_version(longer[min(before, len(values)) :][: len(values)]) == column_version(build(kind, values))


@given(columns(min_size=1), st.data())
def test_any_other_value_is_another_version(column: tuple[Any, list[Any]], data: st.DataObject) -> None:
    kind, values = column
    name = next(name for name, other, _ in TYPES if other == kind)
    row = data.draw(st.integers(0, len(values) - 1))
    other = data.draw(st.none() | BY_NAME[name][1])
    changed = [*values[:row], other, *values[row + 1 :]]
    one, two = build(kind, values), build(kind, changed)
    same = one.equals(two) and not _signed_zeros_differ(values[row], other)
    assert (column_version(one) == column_version(two)) == same


def _signed_zeros_differ(one: object, other: object) -> bool:
    return isinstance(one, float) and isinstance(other, float) and struct.pack("d", one) != struct.pack("d", other)


@given(columns(min_size=1))
def test_one_row_more_is_another_version(column: tuple[Any, list[Any]]) -> None:
    kind, values = column
    assert column_version(build(kind, values)) != column_version(build(kind, [*values, values[-1]]))


@pytest.mark.parametrize("width", [1, 2, 4, 8, 16])
def test_what_lies_under_nulls_does_not_matter(width: int) -> None:
    kind = {1: pa.int8(), 2: pa.int16(), 4: pa.int32(), 8: pa.int64(), 16: pa.decimal128(38, 0)}[width]
    validity = pa.py_buffer(bytes([0b101]))
    clean = pa.py_buffer(bytes([1]) + bytes(width - 1) + bytes(width) + bytes([3]) + bytes(width - 1))
    dirty = pa.py_buffer(bytes([1]) + bytes(width - 1) + b"\xaa" * width + bytes([3]) + bytes(width - 1))
    one, other = (pa.Array.from_buffers(kind, 3, [validity, values]) for values in (clean, dirty))
    assert one.equals(other)
    assert column_version(one) == column_version(other) == column_version(pa.array([1, None, 3]).cast(kind))


def test_text_under_nulls_does_not_matter() -> None:
    offsets = pa.py_buffer(numpy().array([0, 1, 8, 9], "i4"))
    dirty = pa.Array.from_buffers(pa.string(), 3, [pa.py_buffer(bytes([0b101])), offsets, pa.py_buffer(b"xgarbagey")])
    assert dirty.to_pylist() == ["x", None, "y"]
    assert column_version(dirty) == column_version(pa.array(["x", None, "y"]))


def test_lists_and_structs_under_nulls_do_not_matter() -> None:
    mask = pa.array([False, True, False])
    lists = pa.ListArray.from_arrays(pa.array([0, 1, 3, 4], pa.int32()), pa.array([1, 8, 9, 4]), mask=mask)
    assert lists.to_pylist() == [[1], None, [4]]
    assert column_version(lists) == column_version(pa.array([[1], None, [4]]))
    structs = pa.StructArray.from_arrays([pa.array([1, 9, 3])], names=["a"], mask=mask)
    assert structs.to_pylist() == [{"a": 1}, None, {"a": 3}]
    assert column_version(structs) == column_version(pa.array([{"a": 1}, None, {"a": 3}]))
    pairs = pa.FixedSizeListArray.from_arrays(pa.array([1, 2, 8, 9, 3, 4]), 2, mask=mask)
    assert pairs.to_pylist() == [[1, 2], None, [3, 4]]
    assert column_version(pairs) == column_version(pa.array([[1, 2], None, [3, 4]], pa.list_(pa.int64(), 2)))
    spare = pa.StructArray.from_arrays([pa.array(["a", "bb", None])], names=["a"], mask=mask)
    assert column_version(spare[1:]) == column_version(pa.array([None, {"a": None}], pa.struct([("a", pa.string())])))


@given(st.lists(st.none() | st.text(max_size=20), max_size=30))
def test_representations_of_text_do_not_matter(values: list[str | None]) -> None:
    try:
        plain = pa.array(values, pa.string())
    except UnicodeEncodeError:
        return
    expected = column_version(plain)
    assert column_version(plain.cast(pa.large_string())) == expected
    assert column_version(plain.cast(pa.string_view())) == expected
    assert column_version(plain.cast(pa.binary())) != expected
    binary = column_version(plain.cast(pa.binary()))
    assert column_version(plain.cast(pa.large_binary())) == binary
    assert column_version(plain.cast(pa.binary_view())) == binary


@given(st.lists(st.none() | st.lists(st.none() | st.integers(0, 99), max_size=4), max_size=20))
def test_representations_of_lists_do_not_matter(values: list[list[int | None] | None]) -> None:
    plain = pa.array(values, pa.list_(pa.int64()))
    expected = column_version(plain)
    for kind in (pa.large_list(pa.int64()), pa.list_view(pa.int64()), pa.large_list_view(pa.int64())):
        other = pa.array(values, kind)
        assert column_version(other) == expected
        assert column_version(other[1:]) == column_version(plain[1:])
    assert column_version(plain.cast(pa.list_(pa.field("another_name", pa.int64())))) == expected


def test_a_dictionary_is_hashed_by_its_values() -> None:
    one = pa.DictionaryArray.from_arrays(pa.array([0, 1, None, 0], pa.int8()), pa.array(["a", "b"]))
    other = pa.DictionaryArray.from_arrays(pa.array([2, 0, None, 2], pa.int32()), pa.array(["b", "unused", "a"]))
    assert column_version(one) == column_version(other)
    assert column_version(one) == column_version(one[:2], other[2:].cast(one.type))
    assert column_version(one) != column_version(one.dictionary_decode())
    ordered = pa.DictionaryArray.from_arrays(one.indices, one.dictionary, ordered=True)
    assert column_version(one) != column_version(ordered)
    null_entry = pa.DictionaryArray.from_arrays(pa.array([0, 1, 2, 0], pa.int8()), pa.array(["a", "b", None]))
    assert null_entry.to_pylist() == one.to_pylist()
    assert column_version(one) == column_version(null_entry)


def test_run_ends_are_hashed_by_their_values() -> None:
    runs = pa.RunEndEncodedArray.from_arrays(pa.array([2, 3, 5], pa.int32()), pa.array(["a", None, "b"]))
    split = pa.RunEndEncodedArray.from_arrays(
        pa.array([1, 2, 3, 4, 5], pa.int16()), pa.array(["a", "a", None, "b", "b"])
    )
    assert column_version(runs) == column_version(split)


def test_an_extension_is_its_name_and_its_storage() -> None:
    storage = pa.array([b"0123456789abcdef", None], pa.binary(16))
    uuids = pa.ExtensionArray.from_storage(pa.uuid(), storage)
    assert column_version(uuids) != column_version(storage)
    assert column_version(uuids) == column_version(uuids[:1], uuids[1:])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (pa.int32(), pa.int64()),
        (pa.int64(), pa.uint64()),
        (pa.timestamp("us"), pa.timestamp("ms")),
        (pa.timestamp("us"), pa.timestamp("us", "UTC")),
        (pa.timestamp("us", "UTC"), pa.timestamp("us", "Europe/Berlin")),
        (pa.int64(), pa.timestamp("us")),
        (pa.int64(), pa.duration("us")),
        (pa.null(), pa.int64()),
        (pa.null(), pa.string()),
    ],
)
def test_the_type_counts(one: Any, other: Any) -> None:
    values = [None, None] if pa.types.is_null(one) else [1, 2]
    assert column_version(pa.array(values).cast(one)) != column_version(pa.array(values).cast(other))


def test_lengths_are_no_part_of_contents() -> None:
    assert column_version(pa.array(["ab", "c"])) != column_version(pa.array(["a", "bc"]))
    assert column_version(pa.array([[1, 2], [3]])) != column_version(pa.array([[1], [2, 3]]))
    assert column_version(pa.array([None, "", "a"])) != column_version(pa.array(["", None, "a"]))
    assert column_version(pa.array([[], None])) != column_version(pa.array([None, []], pa.list_(pa.null())))


def test_fields_of_structs_are_told_apart_by_name() -> None:
    one = pa.array([{"a": 1, "b": 2}])
    assert column_version(one) != column_version(pa.array([{"b": 1, "a": 2}]))
    tricky = pa.struct([("a: int64, b", pa.int64())])
    assert column_version(pa.array([{"a: int64, b": 1}], tricky)) != column_version(one)


def test_the_order_of_columns_does_not_matter_and_their_names_do() -> None:
    table = pa.table({"a": [1, 2], "b": ["x", None]})
    assert version(table) == version(table.select(["b", "a"]))
    assert version(table) != version(table.rename_columns(["a", "c"]))
    assert version(table) != version(table.rename_columns(["b", "a"]))
    assert version(table) != version(table.select(["a"]))


def test_a_table_and_its_batches_are_the_same() -> None:
    table = pa.table({"a": range(1000), "b": [str(i) for i in range(1000)]})
    chunked = pa.concat_tables([table[:10], table[10:11], table[11:]])
    assert version(table) == version(*table.to_batches(max_chunksize=7)) == version(chunked)
    # Columns need not be cut at the same rows.
    uneven = pa.table({"a": pa.chunked_array([range(3), range(3, 1000)]), "b": chunked["b"]})
    assert version(table) == version(uneven)


def test_an_empty_table_has_a_version_of_its_schema() -> None:
    empty = pa.table({"a": pa.array([], pa.int64())})
    assert version(empty) == version(schema=empty.schema)
    assert version(empty) != version(pa.table({"a": pa.array([], pa.string())}))
    assert version(empty) != version(pa.table({"b": pa.array([], pa.int64())}))


def test_nulls_are_counted() -> None:
    table = pa.table({"a": [1, None, None], "b": pa.nulls(3), "c": ["x", "y", "z"], "d": [[None], None, []]})
    hasher = TableHasher(table.schema)
    hasher.update(table)
    assert hasher.nulls() == {"a": 2, "b": 3, "c": 0, "d": 1}
    assert hasher.rows == 3


def test_a_type_that_parquet_does_not_have_is_refused_by_name() -> None:
    union = pa.UnionArray.from_dense(pa.array([0], pa.int8()), pa.array([0], pa.int32()), [pa.array([1])])
    with pytest.raises(UnstorableValueError, match=r"'u'.*dense_union"):
        TableHasher(pa.schema([("u", union.type)]))


def test_versions_say_what_they_are() -> None:
    for found in (json_version(b"{}"), value_version("pickle", b"{}"), version(pa.table({"a": [1]}))):
        assert found.startswith(f"{SCHEME}:") and len(found) == len(SCHEME) + 1 + 32
    assert json_version(b"{}") != value_version("pickle", b"{}")
    assert json_version(b"1") != json_version(b"2")


def test_versions_do_not_change_from_release_to_release() -> None:
    """A change here makes everything that anybody stored look changed: then the scheme needs a new name."""
    table = pa.table(
        {
            "i": pa.array([1, None, 3], pa.int64()),
            "t": ["a", None, "é"],
            "b": [True, False, None],
            "l": pa.array([[1], None, []], pa.list_(pa.int8())),
            "s": [{"x": 1.5}, None, {"x": None}],
            "d": pa.array(["a", "b", None]).dictionary_encode(),
        }
    )
    hasher = TableHasher(table.schema)
    hasher.update(table)
    assert hasher.columns() == {
        "i": "b3-1:fa22bdd94b6cd11c17b9730f51fd409f",
        "t": "b3-1:ea76302f11f8ad8140e5d97bfc8f194c",
        "b": "b3-1:084bb9a38e16bcef06cac84f6fcc618f",
        "l": "b3-1:44104fafdc5abaed542dc4e983abee6f",
        "s": "b3-1:c1c09a2bbed340ac720aed58c65bb76a",
        "d": "b3-1:2b172eb68bb4f4b1f3399346fb3d909a",
    }
    assert table_version(hasher.columns()) == "b3-1:d7e46c680205f5c3040439b0e1354d1e"
    assert json_version(b'{"a":1}') == "b3-1:7010bab18386bfcf7ccab7505a04ad79"


def test_versions_are_what_the_documentation_says() -> None:
    def digest(*parts: bytes) -> bytes:
        return blake3(b"".join(len(part).to_bytes(8, "little") + part for part in parts)).digest()

    nulls = blake3(struct.pack("<q", 1)).digest()
    numbers = digest(b"int64", struct.pack("<q", 3), nulls, blake3(struct.pack("<qq", 5, -7)).digest())
    assert column_version(pa.array([5, None, -7])) == f"b3-1:{numbers[:16].hex()}"
    lengths, contents = blake3(struct.pack("<II", 2, 1)).digest(), blake3("éa".encode()).digest()
    texts = digest(b"string", struct.pack("<q", 3), nulls, lengths, contents)
    assert column_version(pa.array(["é", None, "a"])) == f"b3-1:{texts[:16].hex()}"
    columns = {"b": "b3-1:1", "a": "b3-1:2"}
    table = digest(b"table", b"a", b"b3-1:2", b"b", b"b3-1:1")
    assert table_version(columns) == f"b3-1:{table[:16].hex()}"


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (pa.large_string(), "string"),
        (pa.string_view(), "string"),
        (pa.binary_view(), "binary"),
        (pa.binary(4), "fixed_size_binary[4]"),
        (pa.large_list(pa.large_string()), "list<string>"),
        (pa.list_(pa.int8(), 3), "list<int8>[3]"),
        (pa.dictionary(pa.int8(), pa.large_string()), "dictionary<string>"),
        (pa.dictionary(pa.int8(), pa.string(), ordered=True), "dictionary<string, ordered>"),
        (pa.struct([("a", pa.large_string()), ("b", pa.int8())]), "struct<a: string, b: int8>"),
        (pa.map_(pa.string(), pa.int8()), "map<string, int8>"),
        (pa.timestamp("us", "UTC"), "timestamp[us, tz=UTC]"),
        (pa.decimal128(9, 2), "decimal128(9, 2)"),
        (pa.uuid(), "arrow.uuid<fixed_size_binary[16]>"),
        (pa.run_end_encoded(pa.int32(), pa.string()), "string"),
    ],
)
def test_types_as_text(kind: Any, text: str) -> None:
    assert type_text(kind) == text
