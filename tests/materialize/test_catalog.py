"""Reading a home from Python, as a notebook does."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

import headwater as hw
from headwater.catalog.errors import LostCommitsError, MissingDataError, StorageError, UnknownAssetError, UsageError
from headwater.io.engines import arrow, pandas


@hw.asset
def orders() -> pl.DataFrame:
    return pl.DataFrame({"id": [1, 2, 3], "amount": [10.0, 20.0, 30.0]})


@hw.asset
def total(orders: pl.LazyFrame) -> float:
    return orders.select(pl.col("amount").sum()).collect().item()


@hw.asset
def elsewhere() -> None: ...


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    with hw.Instance.open(home) as instance:
        hw.materialize([orders, total, elsewhere], instance=instance)
    return home


def test_a_table_is_a_lazy_frame_and_a_value_a_value(home: Path) -> None:
    catalog = hw.Catalog.open(home)
    assert isinstance(catalog["orders"], pl.LazyFrame)
    assert catalog["orders"].select(pl.col("id").max()).collect().item() == 3
    assert catalog["total"] == hw.load_asset("total", home=home) == 60.0
    assert catalog.assets() == ["elsewhere", "orders", "total"]


@pytest.mark.parametrize(
    ("as_type", "kind"),
    [
        (pl.DataFrame, pl.DataFrame),
        ("pd.DataFrame", pandas().DataFrame),
        (arrow().Table, arrow().Table),
        ("duckdb.DuckDBPyRelation", None),
    ],
)
def test_in_the_representation_that_is_asked_for(home: Path, as_type: Any, kind: Any) -> None:
    found = hw.load_asset("orders", as_type=as_type, columns=["amount"], home=home)
    assert kind is None or isinstance(found, kind)
    assert list(found.column_names if kind is arrow().Table else found.columns) == ["amount"]


def test_every_version_can_be_read(home: Path) -> None:
    @hw.asset(name="orders")
    def fewer() -> pl.DataFrame:
        return pl.DataFrame({"id": [1], "amount": [10.0]})

    with hw.Instance.open(home) as instance:
        hw.materialize([fewer], instance=instance)
    catalog = hw.Catalog.open(home)
    new, old = catalog.versions("orders")
    assert catalog["orders"].collect().height == 1
    assert catalog.load("orders", version=old.version_id).collect().height == 3
    assert catalog.load("orders", version=new.version_id).collect().height == 1
    with pytest.raises(MissingDataError, match="nope"):
        catalog.load("orders", version="nope")


def test_sql_reads_views_and_data(home: Path) -> None:
    catalog = hw.Catalog.open(home)
    assert catalog.sql("select sum(amount) from orders where id > ?", [1]).rows == [(50.0,)]
    assert catalog.sql("select key from assets order by key").rows == [("elsewhere",), ("orders",), ("total",)]
    with pytest.raises(UsageError):
        catalog.sql("drop table cell")


def test_sql_over_damaged_data_says_so(home: Path) -> None:
    (file,) = (home / "data" / "orders").glob("*.parquet")
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StorageError, match="orders"):
        hw.Catalog.open(home).sql("select * from orders")
    file.unlink()
    with pytest.raises(StorageError, match="orders"):
        hw.Catalog.open(home).sql("select * from orders")


def test_documented_views_hide_assets_and_tables_behind_them_do_not(tmp_path: Path) -> None:
    @hw.asset
    def runs() -> pl.DataFrame:
        return pl.DataFrame({"n": [1]})

    @hw.asset
    def event() -> pl.DataFrame:
        return pl.DataFrame({"n": [2]})

    with hw.Instance.open(tmp_path / "home") as instance:
        hw.materialize([runs, event], instance=instance)
    catalog = hw.Catalog.open(tmp_path / "home")
    assert catalog.sql("select status from runs").rows == [("SUCCESS",)]
    assert catalog.sql("select n from event").rows == [(2,)]


def test_keys_that_sql_spells_in_its_own_way(tmp_path: Path) -> None:
    def make(key: list[str], number: int) -> hw.AssetsDefinition:
        @hw.asset(key=key)
        def one() -> pl.DataFrame:
            return pl.DataFrame({"n": [number]})

        return one

    with hw.Instance.open(tmp_path / "home") as instance:
        made = [make(["x", "y"], 1), make(["X", "Y"], 2), make(['q"q'], 3), make(["É"], 4), make(["é"], 5)]
        hw.materialize(made, instance=instance)
    catalog = hw.Catalog.open(tmp_path / "home")
    for name, number in (("x/y", 1), ("X/Y", 2), ('q""q', 3), ("É", 4), ("é", 5), ('Q""Q', 3)):
        assert catalog.sql(f'select n from "{name}"').rows == [(number,)]
    assert catalog.sql('select n from "É" union all select n from "é"').rows == [(4,), (5,)]
    with pytest.raises(UsageError, match="`X/Y` or `x/y`"):
        catalog.sql('select * from "x/Y"')
    with pytest.raises(UsageError, match="cannot read both"):
        catalog.sql('select * from "x/y", "X/Y"')


def test_show_tables_lists_views_and_assets_that_are_tables(home: Path, tmp_path: Path) -> None:
    views = {"assets", "lineage", "materializations", "partitions", "columns", "inputs", "runs", "steps", "events"}
    views |= {"definition_history", "backfills", "backfill_cells", "dynamic_partitions"}
    views |= {"automations", "ticks", "freshness", "alerts"}
    catalog = hw.Catalog.open(home)
    for command in ("show tables", "SHOW ALL TABLES;"):
        assert {name for (name,) in catalog.sql(command).rows} == views | {"orders"}
    assert {name for (name,) in hw.Catalog.open(tmp_path / "none").sql("show tables").rows} == views


def test_assets_that_are_no_tables(home: Path) -> None:
    catalog = hw.Catalog.open(home)
    with pytest.raises(UsageError, match="`total` holds a value, not a table"):
        catalog.sql("select * from total")
    with pytest.raises(UsageError, match="`elsewhere` stores nothing"):
        catalog.sql("select * from elsewhere")
    with pytest.raises(UsageError, match="no table or view 'orderz'") as caught:
        catalog.sql("select * from orderz")
    assert "`orders`" in caught.value.remedy


def test_a_home_without_a_catalog_has_empty_views(tmp_path: Path) -> None:
    catalog = hw.Catalog.open(tmp_path / "none")
    answer = catalog.sql("select m.asset, r.status from materializations m join runs r using (run_id)")
    assert (answer.columns, answer.rows) == (("asset", "status"), [])
    with pytest.raises(UsageError, match="materialisations"):
        catalog.sql("select * from materialisations")
    assert not (tmp_path / "none").exists(), "reading makes no home"


def test_a_catalog_that_was_removed_is_not_an_empty_one(home: Path) -> None:
    (home / "catalog.duckdb").unlink()
    with pytest.raises(LostCommitsError, match="moved or removed"):
        hw.Catalog.open(home).assets()


def test_what_is_not_there(home: Path, tmp_path: Path) -> None:
    catalog = hw.Catalog.open(home)
    with pytest.raises(UnknownAssetError, match="orderz") as unknown:
        catalog["orderz"]
    assert "orders" in unknown.value.remedy
    with pytest.raises(MissingDataError, match="stores nothing"):
        catalog["elsewhere"]
    with pytest.raises(UnknownAssetError):
        hw.Catalog.open(tmp_path / "empty")["orders"]
    assert not (tmp_path / "empty").exists(), "reading makes no home"


def test_runs_go_on_beside_an_open_catalog(home: Path) -> None:
    catalog = hw.Catalog.open(home)
    frame = catalog["orders"]
    with hw.Instance.open(home, wait=0) as instance:
        hw.materialize([orders, total, elsewhere], instance=instance, force=True)
    assert frame.collect().height == 3, "a version that was resolved stays as it is"
