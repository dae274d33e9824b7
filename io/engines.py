"""The heavy libraries, loaded when they are first used.

Importing them costs 0.1 to 0.9 seconds each, which a command that reads no data must not pay. Most of them ship
no types, hence `Any`.
"""

import sys
from functools import cache
from importlib import import_module
from typing import Any


@cache
def arrow() -> Any:
    """`pyarrow`."""
    return import_module("pyarrow")


@cache
def parquet() -> Any:
    """`pyarrow.parquet`, of which only `ParquetFile` and `ParquetWriter` are cheap: `read_table` imports pandas."""
    return import_module("pyarrow.parquet")


@cache
def numpy() -> Any:
    """`numpy`."""
    return import_module("numpy")


@cache
def pandas() -> Any:
    """`pandas`."""
    return import_module("pandas")


@cache
def polars() -> Any:
    """`polars`."""
    return import_module("polars")


@cache
def duckdb() -> Any:
    """`duckdb`."""
    return import_module("duckdb")


@cache
def blake3() -> Any:
    """The class `blake3.blake3`."""
    return import_module("blake3").blake3


def is_loaded(name: str) -> bool:
    """Whether somebody has imported the module `name` already."""
    return name in sys.modules
