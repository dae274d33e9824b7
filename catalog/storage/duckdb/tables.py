"""The tables that an append inserts into, and how rows get in: one statement a table, whatever the number of rows.

Measured with DuckDB 2.0, 21 columns: a few rows cost least as `VALUES (?, …)`, 0.9 ms and 0.35 ms for each row
more; many cost least as one JSON text that holds a list a column, 2.4 ms and 0.01 ms a row; very many as an Arrow
table, 0.004 ms a row, but 150 ms to import its library. List parameters take as long as JSON in 2.0 and thirty times
as long in 1.5; `executemany` is slower than any.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection, Statement

#: Up to so many rows go in as VALUES.
FEW_ROWS = 4
#: From so many rows on, they go in as an Arrow table.
MANY_ROWS = 10_000

#: A value a column: None, bool, int, float, text; a time as text; a nested column as JSON text.
Row = Sequence[Any]


class Rows:
    """Rows of a table that are to be inserted, kept column by column.

    So a hundred thousand of them are some lists, and no work for the garbage collector.
    """

    __slots__ = ("columns",)

    def __init__(self, width: int, rows: Iterable[Row] = ()) -> None:
        self.columns: list[list[Any]] = [[] for _ in range(width)]
        for row in rows:
            self.append(row)

    def __len__(self) -> int:
        return len(self.columns[0])

    def append(self, row: Row) -> None:
        """Add a row."""
        for column, value in zip(self.columns, row, strict=True):
            column.append(value)

    def replace(self, place: int, row: Row) -> None:
        """Put another row in the place of one."""
        for column, value in zip(self.columns, row, strict=True):
            column[place] = value

    def extend(self, *columns: Iterable[Any]) -> None:
        """Add rows, column by column; all are as long as the first."""
        for column, values in zip(self.columns, columns, strict=True):
            column.extend(values)


#: Arrow's names of types; whatever is not here goes in as text.
_ARROW = {"INTEGER": "int32", "BIGINT": "int64", "UBIGINT": "uint64", "DOUBLE": "float64", "BOOLEAN": "bool"}
_INPUTS = {
    "asset_id": "INTEGER",
    "partition": "VARCHAR",
    "version_id": "UUID",
    "data_version": "VARCHAR",
    "columns": "VARCHAR",
    "hash": "UBIGINT",
}


@dataclass(frozen=True, slots=True)
class Table:
    """A table's columns in their order, by type; the type of a nested one is given as `from_json` wants it."""

    name: str
    columns: Mapping[str, Any]
    #: Parsed statements: parsing a wide one takes longer than executing it.
    _statements: dict[int, "Statement"] = field(default_factory=dict[int, "Statement"], compare=False)

    def rows(self, rows: Iterable[Row] = ()) -> Rows:
        """Rows to insert."""
        return Rows(len(self.columns), rows)

    def insert(self, connection: "DuckDBPyConnection", rows: Rows) -> None:
        """Insert `rows`; does nothing where there are none. Raises `duckdb.Error`, and `UnicodeEncodeError` for
        text that has no UTF-8 form."""
        if not rows:
            return
        if len(rows) >= MANY_ROWS:
            self._insert_many(connection, rows)
            return
        few = len(rows) if len(rows) <= FEW_ROWS else 0
        statement = self._statements.get(few)
        if statement is None:
            sql = self._values(few) if few else self._lists()
            statement = self._statements[few] = connection.extract_statements(sql)[0]
        parameters = (
            [value for row in zip(*rows.columns, strict=True) for value in row] if few else [self._document(rows)]
        )
        connection.execute(statement, parameters).fetchall()

    def _values(self, count: int) -> str:
        row = ", ".join(_strict("?", kind) if isinstance(kind, list) else "?" for kind in self.columns.values())
        return f"insert into {self.name} values {', '.join([f'({row})'] * count)}"  # noqa: S608 names of our own

    def _lists(self) -> str:
        columns = ", ".join(f"unnest(lists.{name})" for name in self.columns)
        lists = _strict("?", {name: [kind] for name, kind in self.columns.items()})
        return f"insert into {self.name} select {columns} from (select {lists} as lists)"  # noqa: S608

    def _document(self, rows: Rows) -> str:
        import msgspec

        lists: dict[str, Any] = {}
        for (name, kind), values in zip(self.columns.items(), rows.columns, strict=True):
            lists[name] = [msgspec.Raw(value) for value in values] if isinstance(kind, list) else values
        return msgspec.json.encode(lists, enc_hook=str).decode()  # str: for subclasses of text, such as AssetKey

    def _insert_many(self, connection: "DuckDBPyConnection", rows: Rows) -> None:
        arrow: Any = import_module("pyarrow")
        arrays = [
            arrow.array(values, "large_string" if isinstance(kind, list) else _ARROW.get(kind, "large_string"))
            for kind, values in zip(self.columns.values(), rows.columns, strict=True)
        ]
        columns = ", ".join(
            _strict(name, kind) if isinstance(kind, list) else name for name, kind in self.columns.items()
        )
        connection.register("incoming", arrow.table(arrays, list(self.columns)))
        try:
            connection.execute(f"insert into {self.name} select {columns} from incoming").fetchall()  # noqa: S608
        finally:
            connection.unregister("incoming")


def _strict(parameter: str, structure: Any) -> str:
    """SQL that reads a JSON parameter or column. `from_json` would make NULL of what does not fit; this raises."""
    import json

    return f"from_json_strict({parameter}, '{json.dumps(structure)}')"


JOURNAL = Table("journal", {"last": "BIGINT", "appends": "VARCHAR"})
APPLIED_REQUEST = Table("applied_request", {"request": "VARCHAR", "seq": "BIGINT"})
ASSET = Table("asset", {"asset_id": "INTEGER", "key": "VARCHAR"})
FINGERPRINT = Table(
    "fingerprint",
    {"fingerprint_id": "INTEGER"}
    | dict.fromkeys(("code", "definition", "config", "resources", "io", "partitions"), "VARCHAR"),
)
EVENT = Table(
    "event",
    {
        "seq": "BIGINT",
        "time": "TIMESTAMP",
        "kind": "VARCHAR",
        "run_no": "INTEGER",
        "step_no": "INTEGER",
        "asset_id": "INTEGER",
        "partition": "VARCHAR",
        "attempt": "INTEGER",
        "late": "BOOLEAN",
        "message": "VARCHAR",
        "data": "VARCHAR",
    },
)
RUN = Table(
    "run",
    {
        "run_no": "INTEGER",
        "run_id": "UUID",
        "started": "TIMESTAMP",
        "ended": "TIMESTAMP",
        "status": "VARCHAR",
        "job": "VARCHAR",
        "selection": "VARCHAR",
        "tags": "VARCHAR",
        "user_name": "VARCHAR",
        "host": "VARCHAR",
        "pid": "BIGINT",
        "start_ticks": "BIGINT",
        "steps": "INTEGER",
        "backfill_no": "INTEGER",
        "error": "VARCHAR",
        "queued": "TIMESTAMP",
        "moved": "TIMESTAMP",
        "parent_run_id": "UUID",
        "root_run_id": "UUID",
        "pools": "VARCHAR",
        "behind": "UUID",
        "request": "VARCHAR",
        "claims": "INTEGER",
    },
)
SLOT = Table("slot", {"run_no": "INTEGER", "step_no": "INTEGER", "attempt": "INTEGER", "pool": "VARCHAR"})
BACKFILL = Table(
    "backfill",
    {
        "backfill_no": "INTEGER",
        "backfill_id": "UUID",
        "started": "TIMESTAMP",
        "ended": "TIMESTAMP",
        "status": "VARCHAR",
        "title": "VARCHAR",
        "selection": "VARCHAR",
        "options": "VARCHAR",
        "tags": "VARCHAR",
        "user_name": "VARCHAR",
        "host": "VARCHAR",
        "pid": "BIGINT",
        "targets": "VARCHAR",
        "total": "BIGINT",
        "error": "VARCHAR",
    },
)
AUTOMATION = Table(
    "automation",
    {
        "name": "VARCHAR",
        "status": "VARCHAR",
        "until": "TIMESTAMP",
        "ticked": "TIMESTAMP",
        "cursor": "VARCHAR",
        "last_run_key": "VARCHAR",
        "failures": "BIGINT",
    },
)
DAEMON = Table(
    "daemon",
    {
        "epoch": "BIGINT",
        "started": "TIMESTAMP",
        "ended": "TIMESTAMP",
        "user_name": "VARCHAR",
        "host": "VARCHAR",
        "pid": "BIGINT",
        "start_ticks": "BIGINT",
    },
)
FACT = Table(
    "fact", {"seq": "BIGINT", "topic": "VARCHAR", "name": "VARCHAR", "changed": "TIMESTAMP", "value": "VARCHAR"}
)
TICK = Table(
    "tick",
    {
        "seq": "BIGINT",
        "name": "VARCHAR",
        "due": "TIMESTAMP",
        "evaluated": "TIMESTAMP",
        "status": "VARCHAR",
        "reason": "VARCHAR",
        "error": "VARCHAR",
        "run_ids": "VARCHAR",
        "run_keys": "VARCHAR",
        "instants": "BIGINT",
    },
)
RUN_KEY = Table("run_key", {"name": "VARCHAR", "key": "VARCHAR", "run_id": "UUID"})
CONDITION_STATE = Table("condition_state", {"asset_id": "INTEGER", "data": "VARCHAR"})
STEP = Table("step", {"run_no": "INTEGER", "step_no": "INTEGER", "step_key": "VARCHAR", "reason": "VARCHAR"})
PLANNED_CELL = Table(
    "planned_cell",
    {
        "run_no": "INTEGER",
        "step_no": "INTEGER",
        "asset_id": "INTEGER",
        "partition": "VARCHAR",
        "version_id": "UUID",
        "folder": "VARCHAR",
    },
)
MATERIALIZATION = Table(
    "materialization",
    {
        "seq": "BIGINT",
        "version_id": "UUID",
        "asset_id": "INTEGER",
        "partition": "VARCHAR",
        "run_no": "INTEGER",
        "step_no": "INTEGER",
        "created": "TIMESTAMP",
        "seconds": "DOUBLE",
        "fingerprint_id": "INTEGER",
        "data_version": "VARCHAR",
        "uri": "VARCHAR",
        "format": "VARCHAR",
        "representation": "VARCHAR",
        "rows": "BIGINT",
        "bytes": "BIGINT",
        "checksum": "VARCHAR",
        "columns": "VARCHAR",
        "column_versions": "VARCHAR",
        "inputs": [_INPUTS],
        "metadata": "VARCHAR",
        "tags": "VARCHAR",
    },
)
CELL = Table(
    "cell",
    {
        "asset_id": "INTEGER",
        "partition_id": "INTEGER",
        "seq": "BIGINT",
        "fingerprint_id": "INTEGER",
        "version_hash": "UBIGINT",
        "inputs_hash": "UBIGINT",
        "version_id": "UUID",
        "data_version": "VARCHAR",
        "column_versions": "VARCHAR",
        "inputs": [_INPUTS],
        "stored": "BOOLEAN",
    },
)
DEFINITION = Table(
    "definition", {"asset_id": "INTEGER", "recorded": "TIMESTAMP", "data": "VARCHAR", "metadata": "VARCHAR"}
)
DEFINITION_CHANGE = Table(
    "definition_change",
    {
        "seq": "BIGINT",
        "asset_id": "INTEGER",
        "changed": "TIMESTAMP",
        "change": "VARCHAR",
        "parts": "VARCHAR",
        "data": "VARCHAR",
    },
)
