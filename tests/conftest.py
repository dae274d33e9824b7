"""What every test may use."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import settings

# `from tests.corpus import HOSTILE`: behind everything else, because the root holds folders called io and cli.
sys.path.append(str(Path(__file__).parent.parent))

from tests import histories as _histories
from tests.project import ProjectFolder
from tests.s3_server import Bucket, S3Server

# The same examples every time, however slow the machine: a test that fails fails again.
settings.register_profile("headwater", deadline=None, derandomize=True)
settings.load_profile("headwater")


@pytest.fixture(scope="session")
def histories() -> ModuleType:
    """The module `histories`."""
    return _histories


@pytest.fixture(scope="session")
def empty_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalog without events, closed, to copy: making one takes three times as long as opening it."""
    from headwater.catalog.storage.duckdb import open_catalog

    home = tmp_path_factory.mktemp("empty") / "home"
    open_catalog(home, wait=0).close()
    return home


@pytest.fixture
def project(tmp_path: Path) -> Iterator[ProjectFolder]:
    """An empty project whose definitions are in assets.py."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "headwater.toml").write_text('files = ["assets.py"]\n', "utf-8")
    made = ProjectFolder(folder)
    yield made
    made.end()


@pytest.fixture
def history() -> "_histories.History":
    """Makes events for storages."""
    return _histories.History()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """An S3 server, started when the first test asks for it."""
    server = S3Server()
    yield server
    server.stop()


@pytest.fixture
def bucket(s3_server: S3Server) -> Bucket:
    """An empty bucket."""
    return s3_server.bucket()
