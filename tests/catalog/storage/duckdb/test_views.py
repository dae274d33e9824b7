"""The views that users query: what the page says of them, and what they say."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from headwater.catalog.events import AssetDefinition, DefinitionsChanged, DynamicPartitionsChanged
from headwater.catalog.keys import AssetKey
from headwater.catalog.metadata import MetadataValue
from headwater.catalog.records import BackfillStatus, DefinitionChange, ErrorRecord, RunStatus, StepStatus
from headwater.catalog.storage.duckdb import DuckDBStorage, open_catalog

if TYPE_CHECKING:
    from headwater.tests.histories import History

PAGE = Path(__file__).parents[4] / "docs" / "catalog-views.md"


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[DuckDBStorage]:
    with open_catalog(tmp_path / "home", wait=0) as storage:
        yield storage


def documented() -> dict[str, list[tuple[str, str]]]:
    """Of the page: the columns and types of each view, in order."""
    views: dict[str, list[tuple[str, str]]] = {}
    for section in PAGE.read_text().split("\n## ")[1:]:
        name = section.partition("\n")[0]
        views[name] = re.findall(r"^\| (\w+) \| ([A-Z\[\]]+) \| .+ \|$", section, re.MULTILINE)
    return views


def test_the_page_and_the_catalog_agree(storage: DuckDBStorage) -> None:
    names = storage.query("select view_name from duckdb_views() where not internal order by 1").rows
    pages = documented()
    assert [name for (name,) in names] == sorted(pages)
    for view, columns in pages.items():
        answer = storage.query(f"select * from {view}")
        assert list(zip(answer.columns, answer.types, strict=True)) == columns, view


def test_every_example_of_the_page_runs(storage: DuckDBStorage) -> None:
    examples = re.findall(r"```sql\n(.+?)```", PAGE.read_text(), re.DOTALL)
    assert len(examples) == len(documented())
    for example in examples:
        storage.query(example)


def test_what_the_views_say_of_backfills(storage: DuckDBStorage, history: "History") -> None:
    backfill = history.backfill(
        "a", ("days", 2), title="t", selection="a+", options={"n": 1}, tags={"k": "v"}, user="me"
    )
    untouched = history.backfill("a")
    run, alone = history.start("a", ("days", ["p", "q"]), backfill_id=backfill.backfill_id), history.start("a")
    error = ErrorRecord(kind="ValueError", message="no")
    failed = history.end(
        run, 1, StepStatus.FAILURE, error=error, materializations=(history.make(run, 1, 0),),
    )  # fmt: skip
    ended = history.stop(backfill, BackfillStatus.FAILURE, error=error)
    storage.append([backfill, untouched, run, alone, history.succeed(run), history.succeed(alone), failed, ended])
    assert _rows(
        storage,
        "select backfill_id, status, ended, title, selection, options ->> 'n', tags ->> 'k', user_name, runs, cells, "
        "done, failed, error, error_message from backfills order by started",
    ) == [
        (
            UUID(backfill.backfill_id), "FAILURE", ended.time.replace(tzinfo=None), "t", "a+", "1", "v", "me", 1, 3,
            2, 1, "ValueError", "no",
        ),
        (UUID(untouched.backfill_id), "STARTED", None, "", None, None, None, "", 0, 1, 0, 0, None, None),
    ]  # fmt: skip
    assert _rows(storage, "from backfill_cells order by asset, partition") == [
        (UUID(backfill.backfill_id), "a", None, "DONE"),
        (UUID(backfill.backfill_id), "days", "p", "DONE"),
        (UUID(backfill.backfill_id), "days", "q", "FAILED"),
    ]
    assert _rows(storage, "select backfill_id from runs order by started") == [(UUID(backfill.backfill_id),), (None,)]


def test_what_the_views_say_of_dynamic_partitions(storage: DuckDBStorage, history: "History") -> None:
    added = DynamicPartitionsChanged(time=history.time(), name="customers", added=("bob", "ada", "eve"))
    storage.append([added, replace(added, added=(), deleted=("bob",))])
    assert _rows(storage, "from dynamic_partitions order by position") == [
        ("customers", "ada", 0),
        ("customers", "eve", 1),
    ]


def _rows(storage: DuckDBStorage, sql: str) -> list[tuple[Any, ...]]:
    return storage.query(sql).rows


def test_what_the_views_say(storage: DuckDBStorage, history: "History") -> None:
    first = history.start("shop/orders", ("days", ["p", "q"]), job="j", tags={"team": "x"}, user="me", host="h", pid=7)
    second = history.start(("days", ["q"]), "late")
    ends = [
        history.succeed(first, 0, metadata={"quality": MetadataValue.float(0.5)}, tags={"k": "v"}),
        history.succeed(first, 1),
        history.succeed(second, 0),
    ]
    error = ErrorRecord(kind="ValueError", message="no", traceback="t")
    key = AssetKey("shop/orders")
    definition = {
        "key": "shop/orders",
        "group": "sales",
        "kinds": ["parquet", "sql"],
        "owners": ["me"],
        "tags": {"a": "b"},
        "description": "Orders",
        "code_version": "7",
        "deps": [{"key": "raw/up"}, {"key": "days"}, {"key": "days"}],
        "external": False,
    }
    storage.append(
        [
            first,
            second,
            history.step(first, 0),
            *ends,
            history.finish(first, RunStatus.FAILURE, error=error),
            history.step(second, 1),
            history.end(second, 1, StepStatus.FAILURE, error=error),
            DefinitionsChanged(
                time=history.time(),
                changes=(DefinitionChange(asset=key, changed=history.time(), change="added", parts=("code",)),),
                definitions=(
                    AssetDefinition(asset=key, data=definition, metadata={"doc": MetadataValue.url("u")}),
                    AssetDefinition(asset=AssetKey("days"), data={"key": "days", "external": True, "deps": []}),
                ),
            ),
        ]
    )
    order, (day_p, _), (day_q,) = (end.materializations for end in ends)
    (made,) = order

    assert _rows(
        storage,
        "select group_name, kinds, owners, tags ->> 'a', description, code_version, is_defined, is_external, "
        "version_id, last_materialized, cells, rows, bytes, metadata ->> '$.doc.value' "
        "from assets where key = 'shop/orders'",
    ) == [
        (
            "sales", ["parquet", "sql"], ["me"], "b", "Orders", "7", True, False, UUID(made.version_id),
            made.created.replace(tzinfo=None), 1, 3, 999, "u",
        )
    ]  # fmt: skip
    assert _rows(storage, "select key, is_defined, is_external, cells, rows, kinds from assets order by key") == [
        ("days", True, True, 2, 6, None),
        ("late", False, False, 0, None, None),
        ("raw/up", False, False, 0, None, None),
        ("shop/orders", True, False, 1, 3, ["parquet", "sql"]),
    ]
    assert _rows(storage, "from lineage order by all") == [("days", "shop/orders"), ("raw/up", "shop/orders")]
    assert _rows(
        storage,
        "select run_id, step_key, seconds, data_version, code_version, uri, format, representation, rows, bytes, "
        "checksum, metadata ->> '$.quality.value', tags ->> 'k', is_current "
        "from materializations where asset = 'shop/orders'",
    ) == [
        (
            UUID(first.run_id), "shop/orders", 0.25, made.data_version, "ast:1",
            f"file:///data/{made.version_id}.parquet", "parquet", "polars.DataFrame", 3, 999, "c" * 64,
            "0.5", "v", True,
        )
    ]  # fmt: skip
    assert _rows(storage, "select partition, is_current from materializations where asset = 'days' order by seq") == [
        ("p", True),
        ("q", False),
        ("q", True),
    ]
    assert _rows(storage, "select partition, version_id from partitions where asset = 'days' order by 1") == [
        ("p", UUID(day_p.version_id)),
        ("q", UUID(day_q.version_id)),
    ]
    assert _rows(
        storage,
        "select position, name, type, version, nulls, min ->> '$', max ->> '$' from columns "
        "where asset = 'shop/orders' order by position",
    ) == [(1, "id", "int64", "b3:id", 0, "1", "3"), (2, 'na"me\\', "large_string", None, 1, "a", "z")]
    assert _rows(
        storage,
        "select input_asset, input_partition, input_version_id, input_data_version, input_columns ->> 'x' "
        f"from inputs where version_id = '{made.version_id}' order by input_partition nulls first",
    ) == [("raw/up", None, UUID(first.run_id), "b3:up", "b3:x"), ("raw/up", "p", None, None, None)]
    assert _rows(
        storage,
        "select status, job, tags ->> 'team', user_name, host, pid, steps, error, error_message, seconds > 0 "
        "from runs order by started",
    ) == [
        ("FAILURE", "j", "x", "me", "h", 7, 2, "ValueError", "no", True),
        ("STARTED", None, None, "", "", 0, 2, None, None, None),
    ]
    assert _rows(
        storage,
        "select step_key, position, status, reason, attempts, error, error_message, seconds > 0 "
        f"from steps where run_id = '{second.run_id}' order by position",
    ) == [
        ("days", 0, "SUCCESS", "days is missing", 0, None, None, None),
        ("late", 1, "FAILURE", "late is missing", 1, "ValueError", "no", True),
    ]
    assert _rows(storage, "select cells ->> '$[1].partition' from steps where step_key = 'days' and position = 1") == [
        ("q",)
    ]
    assert _rows(storage, "select count(*), max(seq) from events") == [(len(storage.events()), len(storage.events()))]
    assert _rows(storage, "select kind, asset, data ->> 'rows' from events where partition = 'p'") == [
        ("ASSET_MATERIALIZATION", "days", "3")
    ]
    assert _rows(storage, "select asset, change, parts, data ->> 'group' from definition_history") == [
        ("shop/orders", "added", ["code"], "sales")
    ]
