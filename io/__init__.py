"""Where data lies and how a frame becomes bytes: IO managers, stores, formats, compute logs.

Public names are loaded when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headwater.io.base import (
        ConfigurableIOManager,
        InputContext,
        IOManager,
        OutputContext,
        PartitionsInputContext,
        Staged,
        StoredPartition,
    )
    from headwater.io.file_manager import FileIOManager
    from headwater.io.json_values import JsonIOManager
    from headwater.io.memory import InMemoryIOManager
    from headwater.io.parquet import ParquetIOManager
    from headwater.io.pickled import PickleIOManager
    from headwater.io.pointers import load_pointer, verify_pointer

__all__ = [
    "ConfigurableIOManager",
    "FileIOManager",
    "IOManager",
    "InMemoryIOManager",
    "InputContext",
    "JsonIOManager",
    "OutputContext",
    "ParquetIOManager",
    "PartitionsInputContext",
    "PickleIOManager",
    "Staged",
    "StoredPartition",
    "load_pointer",
    "verify_pointer",
]

_MODULES = {
    "ConfigurableIOManager": "base",
    "FileIOManager": "file_manager",
    "IOManager": "base",
    "InMemoryIOManager": "memory",
    "InputContext": "base",
    "JsonIOManager": "json_values",
    "OutputContext": "base",
    "ParquetIOManager": "parquet",
    "PartitionsInputContext": "base",
    "PickleIOManager": "pickled",
    "Staged": "base",
    "StoredPartition": "base",
    "load_pointer": "pointers",
    "verify_pointer": "pointers",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
