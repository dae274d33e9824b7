"""SQL from outside reads, and nothing gets past that."""

import contextlib
import shutil
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from headwater.catalog.errors import UsageError
from headwater.catalog.storage.base import FileRelation
from headwater.catalog.storage.duckdb import DuckDBStorage, open_catalog

if TYPE_CHECKING:
    from headwater.tests.histories import History

READS = [
    "select count(*) from runs",
    "from runs",
    "FROM runs;",
    "-- first\nselect 1 -- last",
    "/* a */ select 1;",
    "values (1)",
    "table runs",
    "with mine as (from runs) select * from mine",
    "with recursive n(i) as (select 1 union all select i + 1 from n where i < 3) select * from n",
    "select * from runs r join steps s using (run_id), lateral (select r.run_id)",
    "select (select count(*) from events), unnest([1, 2])",
    "select * from range(3), generate_series(1, 2)",
    "select * from json_each('{\"a\": 1}')",
    "show tables",
    "describe runs",
    "summarize runs",
    "explain select * from runs",
    "explain analyze from runs",
    "explain (format json) select 1",
    "select * from information_schema.tables",
    "select view_name from duckdb_views()",
    "select main.runs.run_id from main.runs",
    'select * from "RUNS"',
    "pivot runs on status in ('STARTED') using count(*)",
    "select 1 union by name select 2",
]

WRITES = [
    "insert into run select * from run",
    "update run set status = 'X'",
    "delete from event",
    "truncate event",
    "merge into run using run as r on run.run_no = r.run_no when matched then delete",
    "drop table event",
    "drop view runs",
    "create table t (i int)",
    "create temp table t (i int)",
    "create or replace view runs as select 1",
    "create macro f(x) as x",
    "alter table event add column x int",
    "comment on table event is 'x'",
    "copy event to '{out}'",
    "copy (select 1) to '{out}'",
    "copy event from '{out}'",
    "export database '{out}'",
    "import database '{out}'",
    "attach '{out}'",
    "attach ':memory:' as x",
    "detach catalog",
    "use memory",
    "pragma database_list",
    "pragma enable_profiling",
    "call pragma_version()",
    "set threads = 1",
    "set global enable_external_access = true",
    "reset threads",
    "install httpfs",
    "load httpfs",
    "checkpoint",
    "force checkpoint",
    "vacuum",
    "analyze",
    "begin",
    "commit",
    "rollback",
    "prepare p as select 1",
    "execute p",
    "deallocate p",
    "create secret s (type s3)",
    "select 1; drop table event",
    "drop table event; select 1",
    "explain delete from event",
    "explain analyze delete from event",
    "explain analyze copy event to '{out}'",
    "explain analyze explain delete from event",
    "with gone as (delete from event returning *) select * from gone",
    "with new as (insert into run from run returning *) select * from new",
    "",
    ";",
    "-- nothing",
    "nonsense",
]

READS_ELSEWHERE = [
    "select * from read_csv('/etc/passwd')",
    "select * from read_text('/etc/passwd')",
    "select * from read_blob('{database}')",
    "select * from read_duckdb('{database}')",
    "from '{database}'",
    "from '/etc/passwd'",
    "select * from '/etc/passwd'",
    "select * from glob('/*')",
    "select * from parquet_metadata('x')",
    "select * from sniff_csv('/etc/passwd')",
    "select (from read_text('/etc/passwd') select content)",
    "select * from runs where run_id in (select content from read_text('/etc/passwd'))",
    "with x as (from read_text('/etc/passwd')) from x",
    "select * from query('select * from enable_logging()')",
    "select * from query_table('runs')",
    "select * from enable_logging(storage = 'file', storage_path = '{out}')",
    "select * from enable_profiling()",
    "select * from checkpoint()",
    "select * from force_checkpoint()",
    "select * from truncate_duckdb_logs()",
    "select * from duckdb_secrets()",
    "select * from duckdb_settings()",
    "select * from sqlite_scan('x', 'y')",
    "select * from json_execute_serialized_sql('x')",
    "explain analyze select * from read_text('/etc/passwd')",
    "describe select * from read_text('/etc/passwd')",
    "summarize '/etc/passwd'",
    "select nextval('x')",
    "select write_log('x')",
]


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory, histories: Any) -> Iterator[DuckDBStorage]:
    with open_catalog(tmp_path_factory.mktemp("queries") / "home", wait=0) as storage:
        history: History = histories.History()
        run = history.start("a", "b")
        storage.append([run, history.succeed(run)])
        yield storage


@pytest.fixture(scope="module")
def reader(storage: DuckDBStorage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DuckDBStorage]:
    """The same catalog, opened read-only: a copy, since it is open."""
    home = tmp_path_factory.mktemp("reader") / "home"
    shutil.copytree(storage.home, home)
    with open_catalog(home, wait=0, read_only=True) as reader:
        yield reader


@pytest.mark.parametrize("sql", READS)
def test_reads(storage: DuckDBStorage, sql: str) -> None:
    answer = storage.query(sql)
    assert len(answer.columns) == len(answer.types) > 0
    assert all(len(row) == len(answer.columns) for row in answer.rows)


@pytest.mark.parametrize("which", ["storage", "reader"])
@pytest.mark.parametrize("sql", WRITES + READS_ELSEWHERE)
def test_what_does_more_than_read_is_refused(
    request: pytest.FixtureRequest, tmp_path: Path, sql: str, which: str
) -> None:
    catalog: DuckDBStorage = request.getfixturevalue(which)
    out, database = tmp_path / "out", catalog.home / "catalog.duckdb"
    said, files = _said(catalog), _files(catalog)
    with pytest.raises(UsageError) as caught:
        catalog.query(sql.format(out=out, database=database))
    assert caught.value.remedy
    assert (_said(catalog), _files(catalog)) == (said, files)
    assert not out.exists()


def _said(storage: DuckDBStorage) -> list[Any]:
    counts = "select (select count(*) from event), (select count(*) from run), (select count(*) from duckdb_views())"
    return [storage.query(counts).rows, storage.query("select status from runs").rows]


def _files(storage: DuckDBStorage) -> dict[str, tuple[int, int]]:
    return {path.name: (path.stat().st_size, path.stat().st_mtime_ns) for path in storage.home.iterdir()}


def test_the_writer_goes_on_after_all_that(tmp_path: Path, history: "History") -> None:
    with open_catalog(tmp_path / "home", wait=0) as storage:
        for sql in READS + WRITES + READS_ELSEWHERE:
            with contextlib.suppress(UsageError):
                storage.query(sql)
        assert storage.append([history.start("a")]) == 1
        assert len(storage.runs()) == 1


def test_parameters(storage: DuckDBStorage) -> None:
    assert storage.query("select step_key from steps where position = ?", [1]).rows == [("b",)]
    assert storage.query("select $1 || $2", ["'; drop table event; --", "x"]).rows == [("'; drop table event; --x",)]


def test_moments_come_as_times_in_utc(storage: DuckDBStorage) -> None:
    answer = storage.query("select timestamptz '2026-01-01 12:00:00+02' as t, 1 as n; -- end")
    assert answer.columns == ("t", "n")
    assert answer.rows == [(datetime(2026, 1, 1, 10), 1)]
    assert storage.query("select bool_and(started > now() - interval 100 year) from runs").rows == [(True,)]


def test_a_wrong_name_is_answered_with_the_nearest(storage: DuckDBStorage) -> None:
    with pytest.raises(UsageError, match="no table or view 'asets'") as caught:
        storage.query("select * from asets")
    assert "assets" in caught.value.remedy


def test_python_variables_are_no_tables(storage: DuckDBStorage) -> None:
    pyarrow: Any = pytest.importorskip("pyarrow")
    secret = pyarrow.table({"x": [1]})
    with pytest.raises(UsageError, match="secret"):
        storage.query("from secret")
    assert secret.num_rows == 1


def test_relations_for_one_query(storage: DuckDBStorage, tmp_path: Path) -> None:
    pyarrow: Any = pytest.importorskip("pyarrow")
    parquet: Any = pytest.importorskip("pyarrow.parquet")
    table = pyarrow.table({"x": [1, 2, 3]})
    folder = tmp_path / "it's data"
    folder.mkdir()
    for name in ("one", "two"):
        parquet.write_table(table, folder / f"{name}.parquet")
    path = str(folder / "one.parquet")
    quoted = path.replace("'", "''")
    one = FileRelation(sql=f"select * from read_parquet(['{quoted}'])", paths=(path,))
    every = FileRelation(
        sql="select * from read_parquet('" + str(folder).replace("'", "''") + "/*.parquet')", paths=(f"{folder}/",)
    )
    relations: dict[str, Any] = {"shop/orders": one, "every": every, "arrow": table, "unused": object()}

    def ask(sql: str) -> list[tuple[Any, ...]]:
        return storage.query(sql, relations=relations).rows

    assert ask('select sum(x) from "shop/orders"') == [(6,)]
    assert ask("select count(*) from every") == [(6,)]
    assert ask("select sum(x), (select count(*) from runs) from arrow") == [(6, 1)]
    assert ask('select count(*) from arrow a, "shop/orders" o, runs, steps where a.x = o.x') == [(6,)]
    assert ask("explain from every")
    with pytest.raises(UsageError, match="orders"):
        storage.query('from "shop/orders"')
    for sneaky in (f"select * from read_parquet('{quoted}')", f"from every, '{quoted}'"):
        with pytest.raises(UsageError):
            ask(sneaky)


def test_a_relation_reads_its_own_paths_only(storage: DuckDBStorage, tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("a\n1\n")
    (tmp_path / "other.csv").write_text("a\n2\n")
    mine = str(tmp_path / "mine.csv")
    wrong = FileRelation(sql=f"select * from read_csv('{tmp_path}/other.csv')", paths=(mine,))
    with pytest.raises(UsageError, match=r"other\.csv"):
        storage.query("from wrong", relations={"wrong": wrong})
    gone = FileRelation(sql=f"select * from read_csv('{tmp_path}/gone.csv')", paths=(f"{tmp_path}/gone.csv",))
    with pytest.raises(UsageError, match=r"gone\.csv"):
        storage.query("from gone", relations={"gone": gone})
