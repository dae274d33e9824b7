import enum
import json
import math
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.catalog.errors import UserCodeError
from headwater.catalog.keys import AssetKey
from headwater.catalog.metadata import (
    MAX_DEPTH,
    MAX_ENTRIES,
    MAX_LABEL_BYTES,
    MAX_TOTAL_BYTES,
    MAX_VALUE_BYTES,
    MetadataKind,
    MetadataValue,
    TableColumn,
    TableColumnConstraints,
    TableColumnDep,
    TableColumnLineage,
    TableConstraints,
    TableRecord,
    TableSchema,
    display,
    from_json,
    normalize,
    to_json,
)
from headwater.catalog.printable import printable
from tests.corpus import HOSTILE


class Colour(enum.StrEnum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class NumpyLike:
    """What NumPy's scalars look like from outside."""

    shape = ()

    def __init__(self, value: Any) -> None:
        self._value = value

    def item(self) -> Any:
        return self._value


def one(raw: Any) -> MetadataValue:
    return normalize({"x": raw}, "the test")["x"]


NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
SCHEMA = TableSchema(
    [
        TableColumn("id", "int64", constraints=TableColumnConstraints(nullable=False, unique=True, other=("> 0",))),
        TableColumn("name", description="who", tags={"pii": "yes"}),
    ],
    TableConstraints(other=["at least one row"]),  # pyright: ignore[reportArgumentType]  (a list will do)
)
SCHEMA_JSON = {
    "columns": [
        {"name": "id", "type": "int64", "nullable": False, "unique": True, "constraints": ["> 0"]},
        {"name": "name", "type": "string", "description": "who", "tags": {"pii": "yes"}},
    ],
    "constraints": ["at least one row"],
}

#: What users write, and what is kept of it.
NORMALISED: list[tuple[Any, MetadataKind, Any]] = [
    ("x", MetadataKind.TEXT, "x"),
    ("https://example.org", MetadataKind.TEXT, "https://example.org"),
    (Colour.RED, MetadataKind.TEXT, "red"),
    (5, MetadataKind.INT, 5),
    (2**63 - 1, MetadataKind.INT, 2**63 - 1),
    (-(2**63), MetadataKind.INT, -(2**63)),
    (Level.HIGH, MetadataKind.INT, 3),
    (True, MetadataKind.BOOL, True),
    (1.5, MetadataKind.FLOAT, 1.5),
    (math.inf, MetadataKind.FLOAT, "inf"),
    (math.nan, MetadataKind.FLOAT, "nan"),
    (None, MetadataKind.NULL, None),
    ({"a": [1, (2, 3)], 4: None}, MetadataKind.JSON, {"a": [1, [2, 3]], "4": None}),
    ([math.nan, Path("/x"), date(2024, 1, 2), NOON], MetadataKind.JSON, ["nan", "/x", "2024-01-02", NOON.isoformat()]),
    ({"b", "a"}, MetadataKind.JSON, ["a", "b"]),
    ([Colour.RED, Level.HIGH, AssetKey("a/b")], MetadataKind.JSON, ["red", 3, "a/b"]),
    (Path("/x/y"), MetadataKind.PATH, "/x/y"),
    (PurePosixPath("y"), MetadataKind.PATH, "y"),
    (NOON, MetadataKind.TIMESTAMP, NOON.timestamp()),
    (NOON.astimezone(timezone(timedelta(hours=9))), MetadataKind.TIMESTAMP, NOON.timestamp()),
    (date(2024, 1, 2), MetadataKind.TEXT, "2024-01-02"),
    (SCHEMA, MetadataKind.TABLE_SCHEMA, SCHEMA_JSON),
    (TableColumnLineage({"a": [TableColumnDep("x/y", "b")]}), MetadataKind.COLUMN_LINEAGE, {"a": [["x/y", "b"]]}),
    (AssetKey("a/b"), MetadataKind.ASSET, "a/b"),
    (json.dumps, MetadataKind.PYTHON_ARTIFACT, "json:dumps"),
    (NumpyLike(7), MetadataKind.INT, 7),
    ([NumpyLike(7.5)], MetadataKind.JSON, [7.5]),
    (MetadataValue.text("x"), MetadataKind.TEXT, "x"),
    (MetadataValue.int(5), MetadataKind.INT, 5),
    (MetadataValue.float(5), MetadataKind.FLOAT, 5.0),
    (MetadataValue.bool(True), MetadataKind.BOOL, True),
    (MetadataValue.null(), MetadataKind.NULL, None),
    (MetadataValue.json({"a": (1,)}), MetadataKind.JSON, {"a": [1]}),
    (MetadataValue.md("# t"), MetadataKind.MARKDOWN, "# t"),
    (MetadataValue.path("/x"), MetadataKind.PATH, "/x"),
    (MetadataValue.url("https://x"), MetadataKind.URL, "https://x"),
    (MetadataValue.notebook(Path("x.ipynb")), MetadataKind.NOTEBOOK, "x.ipynb"),
    (MetadataValue.timestamp(0), MetadataKind.TIMESTAMP, 0.0),
    (MetadataValue.table_schema(SCHEMA), MetadataKind.TABLE_SCHEMA, SCHEMA_JSON),
    (
        MetadataValue.table_schema({"recipe_id": "INTEGER", "n": int}),
        MetadataKind.TABLE_SCHEMA,
        {"columns": [{"name": "recipe_id", "type": "INTEGER"}, {"name": "n", "type": "int"}], "constraints": []},
    ),
    (
        MetadataValue.table([TableRecord({"a": None, "b": "x"}), {"a": 2}]),
        MetadataKind.TABLE,
        {
            "columns": [{"name": "a", "type": "int"}, {"name": "b", "type": "str"}],
            "constraints": [],
            "records": [{"a": None, "b": "x"}, {"a": 2}],
        },
    ),
    (
        MetadataValue.column_lineage({"a": [TableColumnDep(["x"], "b")]}),
        MetadataKind.COLUMN_LINEAGE,
        {"a": [["x", "b"]]},
    ),
    (
        MetadataValue.python_artifact(TableSchema),
        MetadataKind.PYTHON_ARTIFACT,
        "headwater.catalog.metadata:TableSchema",
    ),
    (MetadataValue.asset(["a", "b"]), MetadataKind.ASSET, "a/b"),
    (MetadataValue.job("nightly"), MetadataKind.JOB, "nightly"),
    (MetadataValue.dagster_run("r1"), MetadataKind.RUN, "r1"),
    (MetadataValue.run("r1"), MetadataKind.RUN, "r1"),
    (MetadataValue.pool("p"), MetadataKind.POOL, "p"),
]


@pytest.mark.parametrize(("raw", "kind", "value"), NORMALISED, ids=lambda value: type(value).__name__)
def test_values_are_kept_with_their_kind(raw: Any, kind: MetadataKind, value: Any) -> None:
    entry = one(raw)
    assert (entry.kind, entry.value) == (kind, value)
    kept = json.loads(json.dumps(to_json({"x": entry}), allow_nan=False))
    assert from_json(kept) == {"x": entry}
    assert display(entry)


def test_every_kind_is_covered() -> None:
    assert {kind for _, kind, _ in NORMALISED} == set(MetadataKind)


def test_values_are_of_exactly_the_types_that_json_has() -> None:
    entry = one({Colour.RED: [Level.HIGH, Colour.RED, AssetKey("a")]})
    assert [type(key) for key in entry.value] == [str]
    assert [type(item) for item in entry.value["red"]] == [int, str, str]
    assert type(one(Colour.RED).value) is str


class Hostile:
    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("leave me alone")

    def __repr__(self) -> str:
        raise RuntimeError("leave me alone")


def _endless() -> list[Any]:
    items: list[Any] = []
    items.append(items)
    return items


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (object(), "a builtins.object is not JSON-able"),
        ({"a": [object()]}, "a builtins.object is not JSON-able"),
        (b"ab", "a builtins.bytes is not JSON-able"),
        ({(1, 2): 3}, "text labels, not tuple"),
        (2**63, "64 bits does not fit 64"),
        (10**5000, "does not fit 64"),
        ({"a": -(2**63) - 1}, "does not fit 64"),
        ("x" * MAX_VALUE_BYTES, f"it is {MAX_VALUE_BYTES + 2} bytes large"),
        ("é" * (MAX_VALUE_BYTES // 2), "bytes large"),
        ("\ud800", "surrogates not allowed"),
        ({"a": "\udfff"}, "surrogates not allowed"),
        (Path("\udcff"), "surrogates not allowed"),
        (_endless(), f"nested deeper than {MAX_DEPTH}"),
        (datetime(2024, 1, 1), "no time zone"),
        (MetadataValue(MetadataKind.JSON, object()), "a builtins.object is not JSON-able"),
        (MetadataValue("nonsense", 1), "'nonsense' is not a valid MetadataKind"),  # pyright: ignore[reportArgumentType]
        (Hostile(), "leave me alone"),
    ],
    ids=lambda raw: type(raw).__name__ if not isinstance(raw, str) else None,
)
def test_what_cannot_be_kept_is_refused_by_name(raw: Any, reason: str) -> None:
    with pytest.raises(UserCodeError) as caught:
        normalize({"first": 1, "second": raw}, "asset `orders`")
    message = str(caught.value)
    assert "asset `orders`: the metadata entry 'second' cannot be kept" in message
    assert reason in message
    assert caught.value.remedy


@pytest.mark.parametrize("label", ["", "x" * (MAX_LABEL_BYTES + 1), "\ud800", 5, None, ("a",)])
def test_labels_are_text_that_can_be_kept(label: Any) -> None:
    with pytest.raises(UserCodeError, match="cannot be kept"):
        normalize({label: 1}, "the test")


def test_limits_hold_for_all_of_it() -> None:
    assert len(normalize({str(i): i for i in range(MAX_ENTRIES)}, "the test")) == MAX_ENTRIES
    with pytest.raises(UserCodeError, match="257 metadata entries"):
        normalize({str(i): i for i in range(MAX_ENTRIES + 1)}, "the test")
    large = "x" * (MAX_VALUE_BYTES - 2)
    fitting = MAX_TOTAL_BYTES // MAX_VALUE_BYTES
    assert len(normalize({str(i): large for i in range(fitting)}, "the test")) == fitting
    with pytest.raises(UserCodeError, match="bytes of metadata; 1048576 is the most"):
        normalize({str(i): large for i in range(fitting + 1)}, "the test")
    assert normalize(None, "the test") == {}


@pytest.mark.parametrize(
    ("make", "value"),
    [
        (MetadataValue.int, "x"),
        (MetadataValue.int, 1.5),
        (MetadataValue.int, 2**63),
        (MetadataValue.float, "x"),
        (MetadataValue.json, object()),
        (MetadataValue.timestamp, "x"),
        (MetadataValue.table, 3),
        (MetadataValue.table, [3]),
        (MetadataValue.table_schema, 3),
        (MetadataValue.table_schema, TableSchema(["a"])),  # type: ignore[list-item]  # pyright: ignore
        (MetadataValue.column_lineage, 3),
        (MetadataValue.column_lineage, {"a": [3]}),
        (MetadataValue.python_artifact, 3),
    ],
)
def test_what_is_not_of_its_kind_is_refused(make: Any, value: Any) -> None:
    with pytest.raises(UserCodeError, match=rf"^MetadataValue\.{make.__name__}\(…\) cannot keep this: ") as caught:
        make(value)
    assert caught.value.remedy


@pytest.mark.parametrize("seconds", [math.nan, math.inf, -math.inf, 1e300, 10**18, -(10**18)])
def test_a_timestamp_is_a_moment(seconds: float) -> None:
    with pytest.raises(UserCodeError, match="years 1 and 9999"):
        MetadataValue.timestamp(seconds)


def test_timestamps_reach_from_the_first_to_the_last_year() -> None:
    for moment in (datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)):
        assert display(MetadataValue.timestamp(moment)) == moment.isoformat().replace("+00:00", "Z")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.text(min_size=1, max_size=20), json_values, max_size=6))
def test_whatever_is_json_comes_back(raw: dict[str, Any]) -> None:
    entries = normalize(raw, "the test")
    kept = json.loads(json.dumps(to_json(entries), allow_nan=False))
    assert from_json(kept) == entries
    assert normalize(entries, "the test") == entries
    for entry in entries.values():
        display(entry)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_kept_as_it_is_or_refused_readably(text: str) -> None:
    try:
        entries = normalize({text: text, "json": {text: [text]}}, text)
    except UserCodeError as error:
        assert str(error) == printable(str(error))
    else:
        assert from_json(json.loads(json.dumps(to_json(entries)))) == entries
        assert entries[text].value == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (MetadataValue.null(), "null"),
        (MetadataValue.bool(False), "false"),
        (MetadataValue.int(1234567), "1,234,567"),
        (MetadataValue.float(1 / 3), "0.333333"),
        (MetadataValue.float(math.nan), "nan"),
        (MetadataValue.timestamp(0), "1970-01-01T00:00:00Z"),
        (MetadataValue.json({"ü": [1]}), '{"ü": [1]}'),
        (MetadataValue.table_schema({"a": "int", "b": "text"}), "a int, b text"),
        (MetadataValue.table([{"a": 1}, {"a": 2}]), "2 rows"),
        (MetadataValue.column_lineage({"a": [TableColumnDep("x", "b"), TableColumnDep("y", "c")]}), "a ← x.b + y.c"),
        (MetadataValue.md("# t"), "# t"),
        # Written by something else, and not what its kind promises.
        (MetadataValue(MetadataKind.TABLE, 5), "5"),
        (MetadataValue(MetadataKind.INT, "a"), '"a"'),
        (MetadataValue(MetadataKind.TIMESTAMP, 1e300), "1e+300"),
    ],
)
def test_a_value_is_shown_as_a_short_text(value: MetadataValue, text: str) -> None:
    assert display(value) == text
