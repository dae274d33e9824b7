import errno
import os
import stat
import threading
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from headwater.catalog.errors import DiskFullError, ReadOnlyStorageError, StorageError
from headwater.io.local import LocalStore
from headwater.io.store import StagedFile, checksum_of, locate, store_for
from tests.io.support import RUN, files_below

needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="looks at open files by /proc")


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "root")


def put(store: LocalStore, path: str, data: bytes) -> StagedFile:
    with store.create(path, run_id=RUN) as sink:
        sink.write(data)
        return sink.finish()


def test_a_file_is_seen_when_it_is_published_and_not_before(store: LocalStore, tmp_path: Path) -> None:
    staged = put(store, "a/b/v1.parquet", b"data")
    assert not store.exists("a/b/v1.parquet")
    assert not (tmp_path / "root/a").exists()
    staged.publish()
    assert store.read_bytes("a/b/v1.parquet") == b"data"
    assert files_below(tmp_path / "root") == ["a/b/v1.parquet"]
    assert (staged.size, staged.checksum) == (4, blake3(b"data").hexdigest())
    assert staged.uri == (tmp_path / "root/a/b/v1.parquet").as_uri()


def test_a_large_file_arrives_whole(store: LocalStore) -> None:
    data = os.urandom(3_500_000)
    with store.create("big/v.bin", run_id=RUN) as sink:
        for start in range(0, len(data), 333_333):
            assert sink.write(memoryview(data)[start : start + 333_333]) == len(data[start : start + 333_333])
        assert sink.tell() == len(data)
        staged = sink.finish()
    assert staged.tail(10) == data[-10:]
    assert staged.tail(10**9) == data
    staged.publish()
    with store.open("big/v.bin") as file:
        assert checksum_of(file) == staged.checksum == blake3(data).hexdigest()
    assert store.size("big/v.bin") == len(data)


def test_only_the_owner_may_read_what_is_written(store: LocalStore, tmp_path: Path) -> None:
    put(store, "a/v.json", b"1").publish()
    for path in (tmp_path / "root").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)


@needs_proc
def test_everything_is_synced_before_publish_returns(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """File, rename, folder, and every new folder's parent, in an order that survives a power cut."""
    calls: list[tuple[str, str]] = []
    real_fsync, real_rename = os.fsync, os.rename

    def fsync(descriptor: int) -> None:
        calls.append(("fsync", os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}"))))
        real_fsync(descriptor)

    def rename(*args: Any, **kwargs: Any) -> None:
        calls.append(("rename", args[1]))
        real_rename(*args, **kwargs)

    staged = put(store, "a/b/v1.json", b"1")
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", rename)
    staged.publish()
    assert calls[0][0] == "fsync" and calls[0][1].startswith("v1.json.")
    assert calls[1:] == [("fsync", "root"), ("fsync", "a"), ("rename", "v1.json"), ("fsync", "b")]
    calls.clear()
    put(store, "a/b/v2.json", b"2").publish()
    assert [call for call in calls if call[0] == "rename" or not call[1].startswith("v2.json.")] == [
        ("rename", "v2.json"),
        ("fsync", "b"),
    ]


@needs_proc
def test_a_folder_that_another_process_made_is_synced_once_too(store: LocalStore, tmp_path: Path) -> None:
    synced: list[str] = []
    (tmp_path / "root/a").mkdir(parents=True)
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        real(descriptor)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        put(store, "a/v1.json", b"1").publish()
        put(store, "a/v2.json", b"1").publish()
    assert synced.count(str(tmp_path / "root")) == 1


def test_an_exception_leaves_nothing(store: LocalStore, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="mine"), store.create("a/v.json", run_id=RUN) as sink:
        sink.write(b"x" * 5_000_000)
        raise RuntimeError("mine")
    assert files_below(tmp_path) == []


def test_leaving_without_finish_leaves_nothing(store: LocalStore, tmp_path: Path) -> None:
    with store.create("a/v.json", run_id=RUN) as sink:
        sink.write(b"x")
    assert files_below(tmp_path) == []


def test_discard_removes_staged_and_published(store: LocalStore, tmp_path: Path) -> None:
    staged = put(store, "a/v.json", b"x")
    staged.discard()
    staged.discard()
    assert files_below(tmp_path) == []
    with pytest.raises(StorageError, match="before"):
        staged.publish()
    published = put(store, "a/v.json", b"x")
    published.publish()
    published.discard()
    assert files_below(tmp_path) == []


def test_a_name_is_never_used_twice(store: LocalStore) -> None:
    put(store, "a/v.json", b"first").publish()
    second = put(store, "a/v.json", b"second")
    with pytest.raises(StorageError, match="exists already"):
        second.publish()
    assert store.read_bytes("a/v.json") == b"first"


def test_publishing_twice_is_an_error_and_harmless(store: LocalStore) -> None:
    staged = put(store, "a/v.json", b"x")
    staged.publish()
    with pytest.raises(StorageError):
        staged.publish()
    # The failed second attempt took the file back: it was not committed.
    assert not store.exists("a/v.json")


def test_delete_is_idempotent(store: LocalStore) -> None:
    store.delete("a/v.json")
    put(store, "a/v.json", b"x").publish()
    store.delete("a/v.json")
    store.delete("a/v.json")
    assert not store.exists("a/v.json")


def test_a_missing_file_says_so(store: LocalStore) -> None:
    for read in (store.open, store.read_bytes, store.size, store.native):
        with pytest.raises(FileNotFoundError):
            read("no/such.file")


def test_sweep_removes_one_version_and_nothing_else(store: LocalStore, tmp_path: Path) -> None:
    put(store, "a/v1.parquet", b"1").publish()
    put(store, "a/v2.parquet", b"2").publish()
    put(store, "a/v2.json", b"2").publish()
    left = [put(store, "a/v2.parquet", b"staged"), put(store, "a/v3.parquet", b"another step's")]
    store.sweep("a", "v2", RUN)
    store.sweep("a", "v2", RUN)
    assert [name.partition(".json")[0] for name in files_below(tmp_path / "root/a")] == ["v1.parquet"]
    assert [name.rpartition(".")[0] for name in files_below(tmp_path / "root/.staging" / RUN)] == ["v3.parquet"]
    with pytest.raises(StorageError, match="gone"):
        left[0].publish()
    left[1].publish()
    store.sweep("a", "v3", RUN)
    assert not (tmp_path / "root/.staging" / RUN).exists()


def test_sweep_of_what_never_was_is_fine(store: LocalStore) -> None:
    store.sweep("a", "v1", RUN)


@pytest.mark.parametrize("name", ["../x", "a/b", ".", ""])
def test_sweep_takes_identifiers_only(store: LocalStore, name: str) -> None:
    with pytest.raises(StorageError):
        store.sweep("a", name, RUN)
    with pytest.raises(StorageError):
        store.sweep("a", "v1", name)
    with pytest.raises(StorageError):
        store.create("a/v", run_id=name)


def test_empty_folders_of_earlier_runs_are_tidied_away(store: LocalStore, tmp_path: Path) -> None:
    put(store, "a/v1.json", b"1").publish()
    assert os.listdir(tmp_path / "root/.staging") == [RUN]
    with store.create("a/v2.json", run_id="next") as sink:
        sink.finish().publish()
    assert os.listdir(tmp_path / "root/.staging") == ["next"]
    # A run whose folder was tidied away while it was idle makes another.
    other = LocalStore(tmp_path / "root")
    with other.create("a/v3.json", run_id="third") as sink:
        sink.finish().publish()
    with store.create("a/v4.json", run_id="next") as sink:
        sink.finish().publish()
    assert store.exists("a/v4.json")


@pytest.mark.parametrize("path", ["../x", "a/../x", "a//x", "./x", "a/./x"])
def test_a_path_that_leads_out_is_refused(store: LocalStore, tmp_path: Path, path: str) -> None:
    (tmp_path / "x").write_bytes(b"outside")
    staged = put(store, path, b"1")
    with pytest.raises(StorageError):
        staged.publish()
    for act in (store.read_bytes, store.delete, store.native):
        with pytest.raises((StorageError, FileNotFoundError)):
            act(path)
    assert (tmp_path / "x").read_bytes() == b"outside"


class TestSymbolicLinks:
    def test_a_folder_that_is_a_link_is_not_written_through(self, store: LocalStore, tmp_path: Path) -> None:
        (tmp_path / "root").mkdir()
        (tmp_path / "outside").mkdir()
        (tmp_path / "root/a").symlink_to(tmp_path / "outside")
        staged = put(store, "a/v.json", b"x")
        with pytest.raises(StorageError, match="link"):
            staged.publish()
        assert files_below(tmp_path / "outside") == []

    def test_a_folder_that_becomes_a_link_is_not_written_through(self, store: LocalStore, tmp_path: Path) -> None:
        put(store, "a/v1.json", b"x").publish()
        staged = put(store, "a/v2.json", b"x")
        (tmp_path / "root/a").rename(tmp_path / "outside")
        (tmp_path / "root/a").symlink_to(tmp_path / "outside")
        with pytest.raises(StorageError, match="link"):
            staged.publish()
        assert files_below(tmp_path / "outside") == ["v1.json"]

    def test_staging_that_is_a_link_is_refused(self, store: LocalStore, tmp_path: Path) -> None:
        (tmp_path / "root").mkdir()
        (tmp_path / "outside").mkdir()
        (tmp_path / "root/.staging").symlink_to(tmp_path / "outside")
        with pytest.raises(StorageError, match="link"):
            store.create("a/v.json", run_id=RUN)
        assert files_below(tmp_path / "outside") == []

    def test_a_file_that_is_a_link_is_not_read(self, store: LocalStore, tmp_path: Path) -> None:
        (tmp_path / "secret").write_bytes(b"secret")
        (tmp_path / "root/a").mkdir(parents=True)
        (tmp_path / "root/a/v.json").symlink_to(tmp_path / "secret")
        for read in (store.read_bytes, store.size, store.exists, store.native):
            with pytest.raises(StorageError, match="link"):
                read("a/v.json")

    def test_a_link_at_the_final_name_is_not_replaced(self, store: LocalStore, tmp_path: Path) -> None:
        (tmp_path / "root/a").mkdir(parents=True)
        (tmp_path / "root/a/v.json").symlink_to(tmp_path / "elsewhere")
        staged = put(store, "a/v.json", b"x")
        with pytest.raises(StorageError, match="exists"):
            staged.publish()
        assert not (tmp_path / "elsewhere").exists()

    def test_delete_removes_the_link_and_not_its_target(self, store: LocalStore, tmp_path: Path) -> None:
        (tmp_path / "kept").write_bytes(b"kept")
        (tmp_path / "root/a").mkdir(parents=True)
        (tmp_path / "root/a/v.json").symlink_to(tmp_path / "kept")
        store.delete("a/v.json")
        assert (tmp_path / "kept").read_bytes() == b"kept"
        assert not (tmp_path / "root/a/v.json").is_symlink()

    def test_the_root_itself_may_be_a_link(self, tmp_path: Path) -> None:
        (tmp_path / "disk").mkdir()
        (tmp_path / "root").symlink_to(tmp_path / "disk")
        put(LocalStore(tmp_path / "root"), "a/v.json", b"x").publish()
        assert files_below(tmp_path / "disk") == ["a/v.json"]


def test_a_planted_fifo_is_refused_and_does_not_block(store: LocalStore, tmp_path: Path) -> None:
    (tmp_path / "root/a").mkdir(parents=True)
    os.mkfifo(tmp_path / "root/a/v.json")
    with pytest.raises(StorageError, match="not a file"):
        store.read_bytes("a/v.json")


def test_a_planted_folder_is_refused(store: LocalStore, tmp_path: Path) -> None:
    (tmp_path / "root/a/v.json").mkdir(parents=True)
    with pytest.raises(StorageError, match="not a file"):
        store.read_bytes("a/v.json")
    with pytest.raises(StorageError):
        put(store, "a/v.json", b"x").publish()


@pytest.mark.parametrize(
    ("number", "kind", "words"),
    [
        (errno.ENOSPC, DiskFullError, "after 4 bytes"),
        (errno.EDQUOT, DiskFullError, "quota"),
        (errno.EROFS, ReadOnlyStorageError, "Read-only"),
        (errno.EACCES, ReadOnlyStorageError, "Permission"),
        (errno.EIO, StorageError, "Input/output"),
    ],
)
@pytest.mark.parametrize("call", ["write", "fsync", "mkdir", "rename", "open"])
def test_every_call_may_fail_and_leaves_nothing(
    store: LocalStore, tmp_path: Path, number: int, kind: type[StorageError], words: str, call: str
) -> None:
    put(store, "other/v.json", b"kept").publish()
    before = files_below(tmp_path)

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    with pytest.MonkeyPatch.context() as patch, pytest.raises(kind) as caught:
        if call in ("open", "write"):
            patch.setattr(os, call, fail)
            put(store, "a/v.json", b"data").publish()
        staged = put(store, "a/v.json", b"data")
        patch.setattr(os, call, fail)
        staged.publish()
    assert type(caught.value) is kind
    assert "a/v.json" in caught.value.message
    if call != "open" or kind is not DiskFullError:
        assert words in caught.value.message
    assert files_below(tmp_path) == before


def test_the_rename_may_be_done_and_its_sync_fail(store: LocalStore, tmp_path: Path) -> None:
    put(store, "a/v1.json", b"x").publish()
    staged = put(store, "a/v2.json", b"data")
    real = os.fsync

    def fail_on_folders(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EIO, "Input/output error")
        real(descriptor)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(StorageError):
        patch.setattr(os, "fsync", fail_on_folders)
        staged.publish()
    assert files_below(tmp_path / "root/a") == ["v1.json"]


def test_an_encoder_may_wrap_what_the_sink_raises(store: LocalStore) -> None:
    """The caller sees that the disk is full, not what the encoder made of it."""

    def fail(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.MonkeyPatch.context() as patch, pytest.raises(DiskFullError):
        patch.setattr(os, "write", fail)
        with store.create("a/v.json", run_id=RUN) as sink:
            try:
                sink.write(b"x" * 2_000_000)
            except StorageError:
                raise RuntimeError("encoding failed") from None


def test_many_threads_publish_at_once(store: LocalStore) -> None:
    staged = [put(store, f"asset{i % 5}/v{i}.json", str(i).encode()) for i in range(40)]
    threads = [threading.Thread(target=one.publish) for one in staged]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(store.read_bytes(f"asset{i % 5}/v{i}.json") == str(i).encode() for i in range(40))


def test_addresses_and_paths_are_each_other(store: LocalStore, tmp_path: Path) -> None:
    for path in ("a/b.parquet", "a%2Fb/partition=x y%25/v.json", "日本/ü#?&=.json"):
        uri = store.uri(path)
        assert store.path_of(uri) == path
        found, name = locate(uri)
        assert isinstance(found, LocalStore)
        assert f"{found.folder}/{name}" == str(tmp_path / "root" / path)
    assert store.path_of("file:///elsewhere/v.json") is None
    assert store.path_of("s3://bucket/v.json") is None
    other = LocalStore(tmp_path / "root2")
    assert store.path_of(other.uri("a/v.json")) is None


def test_roots_are_written_in_several_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    expected = {"x y": "x y", (tmp_path / "x y").as_uri(): "x y", "~/z": "home/z", "./x y/../q": "q"}
    for root, folder in expected.items():
        assert store_for(root).root == (tmp_path / folder).as_uri()


@needs_proc
def test_descriptors_are_closed(store: LocalStore) -> None:
    put(store, "a/v0.json", b"x").publish()
    before = len(os.listdir("/proc/self/fd"))
    for i in range(1, 20):
        put(store, f"a/v{i}.json", b"x").publish()
        put(store, f"a/w{i}.json", b"x").discard()
        store.read_bytes(f"a/v{i}.json")
    assert len(os.listdir("/proc/self/fd")) == before
