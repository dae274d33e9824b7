"""Every hostile string, as a key and as a partition, through every IO manager."""

import contextlib
import re
import subprocess
import unicodedata
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from headwater.catalog.errors import InvalidKeyError
from headwater.catalog.keys import AssetKey
from headwater.catalog.partitions.multi import MultiPartitionKey
from headwater.catalog.printable import printable_line
from headwater.io import (
    FileIOManager,
    InMemoryIOManager,
    IOManager,
    JsonIOManager,
    ParquetIOManager,
    PickleIOManager,
)
from headwater.io.engines import arrow
from headwater.io.pointers import Owner
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


@pytest.mark.parametrize("name", MANAGERS)
def test_hostile_dimensions(name: str, tmp_path: Path) -> None:
    """Stored by a key that knows its dimensions, found again by its text, and swept."""
    make, value_of = MANAGERS[name]
    manager = make()
    manager.bind(tmp_path / "home")
    (tmp_path / "canary").write_text("untouched")
    partitions: list[MultiPartitionKey] = []
    for text in HOSTILE[::5]:
        for pairs in ({"day": "1", text: "x"}, {"day": "1", "shop": text}):
            with contextlib.suppress(InvalidKeyError):
                partitions.append(MultiPartitionKey(pairs))
    assert len(partitions) > 60
    stored = [store(manager, value_of(key), output("a", partition=key)) for key in partitions]
    check_files(tmp_path, len(stored), in_memory=name == "memory")
    for context, pointer in stored:
        plain = replace(input_of(context, pointer), partition_key=str(context.partition_key))
        back, expected = manager.load_input(plain), value_of(str(context.partition_key))
        assert back.equals(expected) if name == "parquet" else back == expected
        folder = manager.folder_of(context.asset_key, context.partition_key)
        if folder is not None:
            assert pointer.uri.startswith(f"{folder}/{context.version_id}.")
            manager.sweep(folder, context.version_id, context.run_id)
    check_files(tmp_path, 0, in_memory=name == "memory")


@pytest.mark.parametrize("name", MANAGERS)
def test_hostile_partitions_of_a_home_that_moved(name: str, tmp_path: Path) -> None:
    make, value_of = MANAGERS[name]
    manager = make()
    manager.bind(tmp_path / "home")
    if manager.in_process_only:
        pytest.skip("lies nowhere")
    stored = [store(manager, value_of(encodable(text)), output("a", partition=text)) for text in HOSTILE[::7]]
    for pairs in ({"day": "1", "shop": "a/b"}, {"a=b": "..", "c": "%2F"}):
        key = MultiPartitionKey(pairs)
        context, pointer = store(manager, value_of(key), output("a", partition=key))
        stored.append((replace(context, partition_key=str(key)), pointer))
    (tmp_path / "home").rename(tmp_path / "elsewhere")
    moved = make()
    moved.bind(tmp_path / "elsewhere")
    for context, pointer in stored:
        expected = value_of(encodable(str(context.partition_key)))
        back = moved.load_input(input_of(context, pointer))
        assert back.equals(expected) if name == "parquet" else back == expected


@pytest.mark.parametrize("text", HOSTILE[::3])
def test_a_remedy_is_a_command_that_names_the_partition(text: str) -> None:
    """Through a real shell, as far as a shell can pass the text at all."""
    remedy = Owner(AssetKey("a b"), text, "v").again
    command = re.fullmatch("make it anew with `(.*)`", remedy)
    assert command and printable_line(remedy) == remedy
    assert printable_line(str(Owner(AssetKey("a"), text, "v"))) == str(Owner(AssetKey("a"), text, "v"))
    if "\0" in text:
        return
    code = f"printf '%s\\0' {command[1].removeprefix('headwater ')}"
    done = subprocess.run(["bash", "-c", code], capture_output=True, check=True)
    words = [word.decode(errors="surrogatepass") for word in done.stdout.split(b"\0")]
    assert words == ["materialize", '"a b"', "--partition", text, "--force", ""]


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
