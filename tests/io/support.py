"""What tests of storage share."""

import os
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from headwater.catalog.ids import new_id
from headwater.catalog.keys import AssetKey
from headwater.catalog.records import Pointer
from headwater.io.base import InputContext, IOManager, OutputContext, PartitionsInputContext, StoredPartition

RUN = "01a1fc16-0000-7000-8000-000000000001"


def output(key: str | AssetKey = "shop/orders", partition: str | None = None, **more: Any) -> OutputContext:
    """A context for a fresh version."""
    version = more.pop("version_id", None) or new_id(datetime.now(UTC))
    return OutputContext(
        asset_key=AssetKey(key), partition_key=partition, version_id=version, run_id=RUN, step_key="step", **more
    )


def input_of(context: OutputContext, pointer: Pointer, **more: Any) -> InputContext:
    """The context that reads what `context` wrote."""
    return InputContext(
        asset_key=context.asset_key,
        partition_key=context.partition_key,
        version_id=context.version_id,
        pointer=pointer,
        **more,
    )


def store(manager: IOManager, value: Any, context: OutputContext | None = None) -> tuple[OutputContext, Pointer]:
    """Stage and publish a value."""
    context = context or output()
    staged = manager.stage(context, value)
    staged.publish()
    return context, staged.pointer


def store_partitions(manager: IOManager, values: Mapping[str, Any], **more: Any) -> PartitionsInputContext:
    """Store a value for each partition of one asset; the context that loads all of them."""
    key = AssetKey("shop/orders")
    stored: list[StoredPartition] = []
    for partition, value in values.items():
        context, pointer = store(manager, value, output(key, partition=partition))
        stored.append(StoredPartition(partition_key=partition, version_id=context.version_id, pointer=pointer))
    return PartitionsInputContext(asset_key=key, partitions=tuple(stored), **more)


def round_trip(manager: IOManager, value: Any, annotation: Any = None, columns: tuple[str, ...] | None = None) -> Any:
    """Store a value and load it again."""
    context, pointer = store(manager, value)
    return manager.load_input(input_of(context, pointer, annotation=annotation, columns=columns))


def files_below(folder: Path) -> list[str]:
    """Every file below a folder, by relative path."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


def environment() -> dict[str, str]:
    """The environment of a process that finds what this one finds."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(os.path.abspath(path) for path in sys.path if path)}


def run_python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own."""
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment())


def as_ordinary_user() -> str:
    """Code that gives up the rights of root, if this is root, which may write everywhere."""
    return "import os\nif os.geteuid() == 0: os.setgid(65534); os.setuid(65534)\n"
