"""Every hostile string, as a key and as a partition, through every IO manager."""

import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headwater.catalog.errors import InvalidKeyError
from headwater.catalog.keys import AssetKey
from headwater.io import (
    FileIOManager,
    InMemoryIOManager,
    IOManager,
    JsonIOManager,
    ParquetIOManager,
    PickleIOManager,
)
from headwater.io.engines import arrow
from tests.corpus import HOSTILE
from tests.io.support import files_below, input_of, output, store
from tests.s3_server import Bucket

pa = arrow()

MANAGERS: dict[str, tuple[Callable[[], IOManager], Callable[[str], Any]]] = {
    "files": (FileIOManager, lambda text: {"text": text}),
    "parquet": (ParquetIOManager, lambda text: pa.table({"text": [text]})),
    "json": (JsonIOManager, lambda text: [text]),
    "pickle": (PickleIOManager, lambda text: (text,)),
    "memory": (InMemoryIOManager, lambda text: [text]),
}


def encodable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def keys() -> tuple[list[AssetKey], int]:
    """Every string that can be a key, as one and below one, and how many cannot."""
    found: dict[AssetKey, None] = {}
    refused = 0
    for text in HOSTILE:
        for path in ([text], ["a", text], [text, "b"], text):
            try:
                found[AssetKey(path)] = None
            except InvalidKeyError as error:
                assert (error.remedy and str(error).isprintable()) or "\n" in str(error)
                refused += 1
    return list(found), refused


def test_the_corpus_is_large_and_both_ways_are_taken() -> None:
    found, refused = keys()
    assert len(HOSTILE) >= 400
    assert len(found) > 800 and refused > 300


@pytest.mark.parametrize("name", MANAGERS)
def test_hostile_keys(name: str, tmp_path: Path) -> None:
    make, value_of = MANAGERS[name]
    manager = make()
    manager.bind(tmp_path / "home")
    (tmp_path / "canary").write_text("untouched")
    stored = [store(manager, value_of(encodable(str(key))), output(key)) for key in keys()[0][::3]]
    for context, pointer in stored:
        back = manager.load_input(input_of(context, pointer))
        expected = value_of(encodable(str(context.asset_key)))
        assert back.equals(expected) if name == "parquet" else back == expected
    check_files(tmp_path, len(stored), in_memory=name == "memory")
    assert len({manager.folder_of(context.asset_key, None) for context, _ in stored}) in (1, len(stored))


@pytest.mark.parametrize("name", MANAGERS)
def test_hostile_partitions(name: str, tmp_path: Path) -> None:
    """A partition key may be what no asset key can be: newlines, NULs, half surrogates."""
    make, value_of = MANAGERS[name]
    manager = make()
    manager.bind(tmp_path / "home")
    (tmp_path / "canary").write_text("untouched")
    stored = [(text, *store(manager, value_of(encodable(text)), output("a", partition=text))) for text in HOSTILE]
    for text, context, pointer in stored:
        back = manager.load_input(input_of(context, pointer))
        expected = value_of(encodable(text))
        assert back.equals(expected) if name == "parquet" else back == expected
    check_files(tmp_path, len(stored), in_memory=name == "memory")


def check_files(tmp_path: Path, count: int, *, in_memory: bool) -> None:
    assert (tmp_path / "canary").read_text() == "untouched"
    assert sorted(path.name for path in tmp_path.iterdir()) == (["canary"] if in_memory else ["canary", "home"])
    files = [name for name in files_below(tmp_path) if name not in ("canary", "home/pickle.key")]
    assert len(files) == (0 if in_memory else count)
    assert all(name.startswith("home/data/") and ".staging" not in name for name in files)
    folders = [name.rpartition("/")[0] for name in files]
    assert len(set(folders)) == len(folders)
    # On a disk that ignores case or normalizes names, folders may fall together; files still do not.
    folded = [unicodedata.normalize("NFKC", name).casefold() for name in files]
    assert len(set(folded)) == len(files)


@pytest.mark.parametrize(
    "manager_class", [FileIOManager, ParquetIOManager, JsonIOManager, PickleIOManager], ids=lambda cls: cls.__name__
)
def test_hostile_keys_on_an_object_store(manager_class: type[FileIOManager], bucket: Bucket, tmp_path: Path) -> None:
    more: dict[str, Any] = {"allow_remote": True} if manager_class is PickleIOManager else {}
    manager = manager_class(bucket.root, storage_options=bucket.options, **more)
    manager.bind(tmp_path / "home")
    in_parquet = manager_class is ParquetIOManager
    stored: list[tuple[Any, ...]] = []
    for key in keys()[0][::17]:
        value = pa.table({"text": [str(key)]}) if in_parquet else str(key)
        stored.append((value, *store(manager, value, output(key, partition=str(key)))))
    assert len(stored) > 40
    for value, context, pointer in stored:
        back = manager.load_input(input_of(context, pointer))
        assert back.equals(value) if in_parquet else back == value
    found = bucket.keys()
    assert len(found) == len(stored)
    assert all(name.startswith("warehouse/") and len(name.encode()) <= 1024 for name in found)
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} <= {"pickle.key"}
