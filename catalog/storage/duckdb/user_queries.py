"""SQL from outside: one SELECT, or EXPLAIN of one, that can do nothing but read the catalog.

Four things see to that, and each alone would keep the catalog from changing:

1. DuckDB's own parser has to accept the text as one SELECT (`json_serialize_sql` takes nothing else).
2. The parse tree is walked: table functions only from a list, tables only that exist here. So no file is read, the
   database file among them (opening that one would drop DuckDB's lock on it), and no function with an effect runs:
   in DuckDB 1.5 a SELECT from `enable_logging` can wreck the whole process.
3. The query runs in a READ ONLY transaction, on a connection of its own.
4. The database was opened without access to any other file.

Relations over files are read in a database of their own in memory, which may open exactly their files and holds
copies of the views that the query names.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from string import ascii_lowercase, ascii_uppercase
from typing import TYPE_CHECKING, Any, cast

from headwater.catalog.errors import UnknownTableError, UsageError
from headwater.catalog.storage.base import FileRelation, QueryResult
from headwater.catalog.storage.duckdb.connection import connect, is_damage, literal

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

#: Table functions that neither read files nor have an effect.
TABLE_FUNCTIONS = frozenset(
    (
        "unnest",
        "range",
        "generate_series",
        "repeat",
        "json_each",
        "json_tree",
        "pragma_table_info",
        "duckdb_tables",
        "duckdb_views",
        "duckdb_columns",
        "duckdb_functions",
        "duckdb_types",
        "duckdb_keywords",
    )
)
#: Functions that have an effect, or that only waste time, of those that may stand in an expression.
FORBIDDEN_FUNCTIONS = frozenset(("nextval", "setval", "setseed", "write_log", "sleep_ms"))

_SYSTEM_SCHEMAS = frozenset({"information_schema"})
_EXPLAIN = re.compile(
    r"(?:\s|--[^\n]*\n|/\*.*?\*/)*explain\b(?:\s+analyze\b)?(?:\s*\(\s*format\s+\w+\s*\))?", re.IGNORECASE | re.DOTALL
)
_WITH_ZONE = "TIMESTAMP WITH TIME ZONE"


def answer(
    cursor: "DuckDBPyConnection",
    sql: str,
    parameters: Sequence[Any],
    relations: Mapping[str, Any],
    table: Callable[[str], Any] | None = None,
    max_rows: int | None = None,
) -> QueryResult:
    """The answer to `sql` on a connection to the catalog. Raises `UsageError` and, for damage, `duckdb.Error`.

    Where the connection is to an empty catalog, `table` gives what the tables and views of the right one hold.
    A query of the catalog alone that has more than `max_rows` is refused.
    """
    import duckdb

    explain = _EXPLAIN.match(sql)
    select = sql[explain.end() :] if explain else sql
    try:
        tree = _parse(cursor, select)
        known = {folded(name): is_view for name, is_view in cursor.execute(_KNOWN).fetchall()}
        # A documented view means the same in every project; a table behind them gives way to an asset of its name.
        relations = {name: relation for name, relation in relations.items() if not known.get(folded(name))}
        if _lists_tables(tree):
            names = sorted({*(name for name, is_view in known.items() if is_view), *relations})
            return QueryResult(("name",), ("VARCHAR",), [(name,) for name in names])
        named, used = _check(tree, known, relations)
        prefix = sql[: explain.end()] if explain else ""
        if table is not None or any(isinstance(relation, FileRelation) for relation in used.values()):
            copied = (named & known.keys()) - {folded(name) for name in used}
            copies = {name: contents(cursor, name) if table is None else table(name) for name in copied}
            return _answer_apart(prefix, select, parameters, copies | used)
        for name, relation in used.items():
            cursor.register(name, relation)
        return _run(cursor, prefix, select, parameters, max_rows)
    except duckdb.Error as error:
        if is_damage(str(error)):
            raise
        raise UsageError(
            f"The query failed: {error}", remedy="`headwater sql` reads the views of `SHOW TABLES`."
        ) from error


_KNOWN = """
    select table_name, false from duckdb_tables()
    union all select view_name, true from duckdb_views() where not internal
"""


def _parse(cursor: "DuckDBPyConnection", select: str) -> Any:
    tree = json.loads(cursor.execute("select json_serialize_sql(?)", [select]).fetchall()[0][0])
    if tree["error"]:
        if tree["error_type"] == "not implemented":  # what DuckDB says of DELETE, CREATE and the like
            raise UsageError("This statement does more than read.", remedy="Write one SELECT.")
        raise UsageError(
            f"The query is not SQL that DuckDB understands: {tree['error_message']}",
            remedy="Correct it; one SELECT is read.",
        )
    if len(tree["statements"]) != 1:
        raise UsageError(f"{len(tree['statements'])} statements where one is expected.", remedy="Write one SELECT.")
    return tree["statements"][0]


def folded(name: str) -> str:
    """`name` as DuckDB compares it with others: without regard to the case of ASCII letters."""
    return name.translate(_LOWER)


_LOWER = str.maketrans(ascii_uppercase, ascii_lowercase)


def _lists_tables(tree: Any) -> bool:
    source = cast(dict[str, Any], tree["node"].get("from_table") or {})
    return source.get("type") == "SHOW_REF" and source.get("table_name") in ('"tables"', "__show_tables_expanded")


def _check(tree: Any, known: Mapping[str, bool], relations: Mapping[str, Any]) -> tuple[set[str], dict[str, Any]]:
    """The tables that a parse tree names, folded, and those of `relations` that are meant.

    `known` holds what is there besides, folded, and whether it is a view. Raises `UsageError` for what it may not use.
    """
    named: dict[str, str] = {}
    nodes = list(_nodes(tree))
    local = {folded(str(entry["key"])) for node in nodes for entry in _entries(node.get("cte_map"))}
    for node in nodes:
        function = str(node.get("function_name") or "").lower()
        if node.get("type") == "TABLE_FUNCTION":
            source = str(node["function"].get("function_name", "")).lower()
            if source not in TABLE_FUNCTIONS:
                raise UsageError(
                    f"A query of the catalog may not use {source}(…).",
                    remedy="It reads the catalog's views, and an asset's data by its name.",
                )
        elif function in FORBIDDEN_FUNCTIONS:
            raise UsageError(f"A query of the catalog may not use {function}(…).", remedy="Leave it out.")
        elif node.get("type") == "BASE_TABLE" and str(node.get("schema_name")).lower() not in _SYSTEM_SCHEMAS:
            name = str(node["table_name"])
            meant = _meant(name, relations)
            if meant is None and folded(name) not in known and folded(name) not in local:
                raise UnknownTableError(name, [*(view for view, is_view in known.items() if is_view), *relations])
            before = named.setdefault(folded(name), meant or name)
            if meant not in (None, before):
                raise UsageError(
                    f"One query cannot read both `{before}` and `{meant}`: SQL takes no notice of case.",
                    remedy="Read one at a time, or load both in Python with headwater.load_asset.",
                )
    return set(named), {name: relations[name] for name in named.values() if name in relations}


def _meant(name: str, relations: Mapping[str, Any]) -> str | None:
    """Which relation an SQL name means: the one spelled so, or else the only one that differs in case alone."""
    if name in relations:
        return name
    alike = sorted(relation for relation in relations if folded(relation) == folded(name))
    if len(alike) > 1:
        either = " or ".join(f"`{relation}`" for relation in alike)
        raise UsageError(f"'{name}' may mean {either}.", remedy="Write the one that you mean as it is spelled.")
    return alike[0] if alike else None


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """Every JSON object below `tree`."""
    stack = [tree]
    while stack:
        node = stack.pop()
        if isinstance(node, dict):
            yield cast(dict[str, Any], node)
            stack.extend(cast(dict[str, Any], node).values())
        elif isinstance(node, list):
            stack.extend(cast(list[Any], node))


def _entries(cte_map: Any) -> list[Any]:
    return cast(dict[str, Any], cte_map).get("map", []) if isinstance(cte_map, dict) else []


def _run(
    cursor: "DuckDBPyConnection", prefix: str, select: str, parameters: Sequence[Any], max_rows: int | None = None
) -> QueryResult:
    cursor.execute("begin transaction read only").fetchall()
    try:
        result = cursor.execute(prefix + select, list(parameters))
        described = [(str(column[0]), str(column[1])) for column in result.description or ()]
        names, types = zip(*described, strict=True)
        if _WITH_ZONE in types and not prefix:
            # Python's client needs pytz for these. They are moments in UTC, as the catalog's own times are.
            result = cursor.execute(_without_zones(cursor, select, types), list(parameters))
        rows = result.fetchall() if max_rows is None else result.fetchmany(max_rows + 1)
        if max_rows is not None and len(rows) > max_rows:
            raise UsageError(
                f"The query has more than {max_rows:,} rows, which is the most.",
                remedy="Let it count or filter, or ask in pages: ORDER BY, LIMIT and OFFSET.",
            )
        return QueryResult(names, types, rows)
    finally:
        cursor.rollback()


def _without_zones(cursor: "DuckDBPyConnection", select: str, types: Sequence[str]) -> str:
    # Written anew from its parse tree: no semicolon and no comment at its end.
    ((select,),) = cursor.execute("select json_deserialize_sql(json_serialize_sql(?))", [select]).fetchall()
    columns = [f"c{number}" for number in range(len(types))]
    casts = [f"{name}::timestamp" if kind == _WITH_ZONE else name for name, kind in zip(columns, types, strict=True)]
    return f"select {', '.join(casts)} from ({select}) as answer({', '.join(columns)})"  # noqa: S608 our own names


def contents(cursor: "DuckDBPyConnection", name: str) -> Any:
    """What a table or view holds, as an Arrow table."""
    return cursor.sql(f"from {_quoted(name)}").to_arrow_table()


def parquet_bytes(relation: Any, folder: Path) -> bytes:
    """What has Arrow's stream protocol as the bytes of a Parquet file, which lies in `folder` for a moment."""
    from tempfile import TemporaryDirectory

    with closing(connect(":memory:", external=True)) as connection, TemporaryDirectory(dir=folder) as scratch:
        file = Path(scratch, "table.parquet")
        connection.register("given", relation)
        connection.execute(f"copy given to {literal(file)} (format parquet)").fetchall()
        return file.read_bytes()


def _answer_apart(prefix: str, select: str, parameters: Sequence[Any], relations: Mapping[str, Any]) -> QueryResult:
    """Answer in a database of its own, which knows `relations` alone and may read their files."""
    import duckdb

    apart = connect(":memory:", external=True)
    try:
        files = [relation for relation in relations.values() if isinstance(relation, FileRelation)]
        _allow(apart, [path for relation in files for path in relation.paths])
        for name, relation in relations.items():
            if isinstance(relation, FileRelation):
                apart.execute(f"create view {_quoted(name)} as {relation.sql}").fetchall()
            else:
                apart.register(name, relation)
        return _run(apart, prefix, select, parameters)
    except duckdb.Error as error:
        raise _failed(error) from error
    finally:
        apart.close()


def _allow(connection: "DuckDBPyConnection", paths: Sequence[str]) -> None:
    """Let SQL on a connection open `paths` and no other file."""
    folders = ", ".join(literal(path) for path in paths if path.endswith("/"))
    files = ", ".join(literal(path) for path in paths if not path.endswith("/"))
    connection.execute(f"set allowed_directories = [{folders}]").fetchall()
    connection.execute(f"set allowed_paths = [{files}]").fetchall()
    connection.execute("set enable_external_access = false").fetchall()


def _failed(error: Exception) -> UsageError:
    return UsageError(f"The query failed: {error}", remedy="SHOW TABLES lists what there is to query.")


def _quoted(name: str) -> str:
    """`name` as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'
