"""A command that reads no data pays for no data library."""

import subprocess
import sys
from pathlib import Path

import pytest

import headwater.io
from tests.io.support import environment

MODULES = sorted(path.stem for path in (Path(headwater.io.__file__).parent).glob("*.py") if path.stem != "__init__")
HEAVY = """
heavy = {"polars", "pandas", "pyarrow", "duckdb", "numpy", "obstore", "blake3", "boto3", "sqlglot"} & sys.modules.keys()
assert not heavy, heavy
"""


@pytest.mark.parametrize("module", MODULES)
def test_every_module_is_light(module: str) -> None:
    code = f"""
import sys
import headwater.io.{module}
{HEAVY}
"""
    subprocess.run([sys.executable, "-c", code], check=True, env=environment(), timeout=60)


def test_making_a_manager_is_light() -> None:
    code = f"""
import sys
from pathlib import Path
from headwater.io import FileIOManager, InMemoryIOManager, JsonIOManager, ParquetIOManager, PickleIOManager
remote = ParquetIOManager("s3://bucket/x")
for manager in (FileIOManager(), remote, JsonIOManager(), PickleIOManager(), InMemoryIOManager()):
    manager.bind(Path("/nonexistent"))
    manager.fingerprint()
{HEAVY}
"""
    subprocess.run([sys.executable, "-c", code], check=True, env=environment(), timeout=60)


def test_public_names() -> None:
    for name in headwater.io.__all__:
        assert getattr(headwater.io, name).__name__ == name
    with pytest.raises(AttributeError, match="nonsense"):
        _ = headwater.io.nonsense  # type: ignore[attr-defined]
