"""Against a real S3 server in a process of its own, and in memory where no server is needed."""

import gc
import io
import os
import signal
import socket
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any, cast

import pytest
from blake3 import blake3

from headwater.catalog.errors import ConfigError, CredentialsError, StorageError
from headwater.io.object_sink import SMALL_BYTES
from headwater.io.object_store import ObjectStore
from headwater.io.store import TAIL_BYTES, StagedFile, Store, checksum_of, locate, store_for
from tests.io.support import RUN, environment
from tests.s3_server import Bucket, S3Server


@pytest.fixture
def remote(bucket: Bucket) -> Store:
    return store_for(bucket.root, bucket.options)


def put(store: Store, path: str, data: bytes) -> StagedFile:
    with store.create(path, run_id=RUN) as sink:
        sink.write(data)
        return sink.finish()


def test_an_object_is_seen_when_it_is_published_and_not_before(remote: Store, bucket: Bucket) -> None:
    staged = put(remote, "a/v1.json", b"data")
    assert bucket.keys() == []
    assert staged.tail(2) == b"ta"
    staged.publish()
    assert bucket.keys() == ["warehouse/a/v1.json"]
    assert remote.read_bytes("a/v1.json") == b"data"
    assert remote.size("a/v1.json") == 4
    assert remote.exists("a/v1.json")
    assert staged.uri == f"s3://{bucket.name}/warehouse/a/v1.json"
    assert (staged.size, staged.checksum) == (4, blake3(b"data").hexdigest())


def test_a_large_object_streams_away_in_parts_and_appears_at_once(remote: Store, bucket: Bucket) -> None:
    data = os.urandom(40_000_000)
    with remote.create("big/v.bin", run_id=RUN) as sink:
        for start in range(0, len(data), 700_001):
            sink.write(data[start : start + 700_001])
        staged = sink.finish()
    assert bucket.uploads() == ["warehouse/big/v.bin"]
    assert bucket.keys() == []
    assert staged.tail(100_000) == data[-100_000:]
    assert TAIL_BYTES <= len(staged.tail(10**9)) < len(data)
    staged.publish()
    assert bucket.keys() == ["warehouse/big/v.bin"]
    assert bucket.uploads() == []
    assert remote.size("big/v.bin") == len(data)
    with remote.open("big/v.bin", len(data)) as file:
        assert checksum_of(file) == staged.checksum == blake3(data).hexdigest()


def test_a_large_object_is_read_by_ranges(remote: Store) -> None:
    data = os.urandom(SMALL_BYTES + 1000)
    put(remote, "big/v.bin", data).publish()
    for size in (None, len(data)):
        with remote.open("big/v.bin", size) as file:
            assert file.seekable() and file.readable()
            assert file.seek(-5, io.SEEK_END) == len(data) - 5
            assert file.read() == data[-5:]
            assert file.read() == b""
            file.seek(1_000_000)
            assert file.read(10) == data[1_000_000:1_000_010]
            file.seek(-10, io.SEEK_CUR)
            assert file.tell() == 1_000_000
            assert file.read(300_000) == data[1_000_000:1_300_000]


def test_exactly_at_the_border_between_small_and_large(remote: Store, bucket: Bucket) -> None:
    for size in (SMALL_BYTES, SMALL_BYTES + 1, 0):
        data = bytes(size)
        staged = put(remote, f"a/v{size}.bin", data)
        staged.publish()
        assert remote.read_bytes(f"a/v{size}.bin") == data
    assert bucket.uploads() == []


@pytest.mark.parametrize("size", [10, 40_000_000])
def test_an_exception_leaves_nothing(remote: Store, bucket: Bucket, size: int) -> None:
    with pytest.raises(RuntimeError, match="mine"), remote.create("a/v.bin", run_id=RUN) as sink:
        for _ in range(10):
            sink.write(bytes(size // 10))
        raise RuntimeError("mine")
    assert bucket.keys() == []
    assert bucket.uploads() == []  # aborted: nothing invisible is paid for either


@pytest.mark.parametrize("size", [10, 40_000_000])
def test_discard_removes_staged_and_published(remote: Store, bucket: Bucket, size: int) -> None:
    staged = put(remote, "a/v.bin", bytes(size))
    staged.discard()
    staged.discard()
    assert bucket.keys() == [] and bucket.uploads() == []
    published = put(remote, "a/v.bin", bytes(size))
    published.publish()
    published.discard()
    assert bucket.keys() == []


def test_a_name_is_never_used_twice(remote: Store) -> None:
    put(remote, "a/v.json", b"first").publish()
    with pytest.raises(StorageError, match="exists already"):
        put(remote, "a/v.json", b"second").publish()
    assert remote.read_bytes("a/v.json") == b"first"


def test_an_answer_that_was_lost_is_no_failure(remote: Store, bucket: Bucket) -> None:
    """The request was done and is repeated: what lies there already is what we wanted to put there."""
    put(remote, "a/v.json", b"mine").publish()
    put(remote, "a/v.json", b"mine").publish()
    assert remote.read_bytes("a/v.json") == b"mine"
    assert bucket.keys() == ["warehouse/a/v.json"]


def test_delete_is_idempotent_and_a_missing_object_says_so(remote: Store) -> None:
    remote.delete("a/v.json")
    put(remote, "a/v.json", b"x").publish()
    remote.delete("a/v.json")
    remote.delete("a/v.json")
    assert not remote.exists("a/v.json")
    for read in (remote.open, remote.read_bytes, remote.size):
        with pytest.raises(FileNotFoundError, match=r"a/v\.json"):
            read("a/v.json")


def test_sweep_removes_one_version_and_nothing_else(remote: Store, bucket: Bucket) -> None:
    for name in ("a/v1.parquet", "a/v2.parquet", "a/v2.json", "a/v21.parquet", "a/v2/v2.parquet"):
        put(remote, name, b"x").publish()
    remote.sweep("a", "v2", RUN)
    remote.sweep("a", "v2", RUN)
    assert bucket.keys() == [f"warehouse/{name}" for name in ("a/v1.parquet", "a/v2/v2.parquet", "a/v21.parquet")]


def test_keys_are_kept_as_they_are(remote: Store, bucket: Bucket) -> None:
    paths = ["a%2Fb/v.json", "売上/partition=東京%20x/v.json", "a-_.b/v.json", "x%25y~0123/v.json"]
    for path in paths:
        put(remote, path, path.encode()).publish()
        assert remote.path_of(remote.uri(path)) == path
        found, name = locate(remote.uri(path), bucket.options)
        assert found.read_bytes(name) == path.encode()
    assert sorted(bucket.keys()) == sorted(f"warehouse/{path}" for path in paths)
    assert remote.path_of("s3://other/warehouse/x") is None
    assert remote.path_of(f"s3://{bucket.name}/warehouse2/x") is None


def test_a_bucket_that_does_not_exist(s3_server: S3Server, bucket: Bucket) -> None:
    store = store_for("s3://no-such-bucket-here", bucket.options)
    for size in (1, 40_000_000):
        staged = put_or_fail(store, size)
        assert "bucket" in staged and "does not exist" in staged
    with pytest.raises(StorageError, match="does not exist"):
        store.read_bytes("x")


def put_or_fail(store: Store, size: int) -> str:
    with pytest.raises(StorageError) as caught:
        put(store, "a/v.bin", bytes(size)).publish()
    return caught.value.message


def test_an_endpoint_that_nobody_listens_on(bucket: Bucket) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = {**bucket.options, "endpoint_url": f"http://127.0.0.1:{port}", "max_retries": 1}
    store = store_for(bucket.root, options)
    for size in (1, 40_000_000):
        message = put_or_fail(store, size)
        assert f"s3://{bucket.name}" in message
    with pytest.raises(StorageError) as caught:
        store.read_bytes("a/v.bin")
    assert "canary-secret" not in str(caught.value)


def test_a_key_that_the_server_refuses() -> None:
    server = S3Server(open_requests=1)  # the bucket may be made, then everybody has to prove who they are
    try:
        bucket = server.bucket()
        store = store_for(bucket.root, bucket.options)
        for act in (lambda: put(store, "a/v.json", b"x").publish(), lambda: store.read_bytes("a/v.json")):
            with pytest.raises(CredentialsError, match="refused") as caught:
                act()
            assert "canary-secret-5f1d" not in str(caught.value)
            assert "Signature=" not in str(caught.value)
    finally:
        server.stop()


def test_no_credentials_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bucket: Bucket) -> None:
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    store = store_for(bucket.root, {"endpoint_url": bucket.endpoint, "region": "us-east-1"})
    with pytest.raises(CredentialsError, match="No credentials"):
        put(store, "a/v.json", b"x").publish()


def test_a_profile_of_boto3_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bucket: Bucket) -> None:
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    (tmp_path / "credentials").write_text("[work]\naws_access_key_id=AKIAWORK\naws_secret_access_key=s3cr3t-of-work\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    store = store_for(bucket.root, {"endpoint_url": bucket.endpoint, "region": "us-east-1", "profile": "work"})
    put(store, "a/v.json", b"x").publish()
    assert store.read_bytes("a/v.json") == b"x"
    native = store.native("a/v.json")
    assert native is not None
    keys, _ = native[1]["credential_provider"]()
    assert keys == {"aws_access_key_id": "AKIAWORK", "aws_secret_access_key": "s3cr3t-of-work"}
    assert "s3cr3t" not in repr(native[1]["storage_options"])


def test_a_killed_upload_leaves_nothing_to_see(remote: Store, bucket: Bucket) -> None:
    code = """
import sys, time, json
from headwater.io.store import store_for
store = store_for(sys.argv[1], json.loads(sys.argv[2]))
with store.create("a/v.bin", run_id="run") as sink:
    for _ in range(60):
        sink.write(bytes(1_000_000))
    print("ready", flush=True)
    time.sleep(60)
"""
    import json

    command = [sys.executable, "-c", code, bucket.root, json.dumps(bucket.options)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment()) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert bucket.keys() == []
    put(remote, "a/v.bin", b"the next attempt").publish()
    assert remote.read_bytes("a/v.bin") == b"the next attempt"


def test_an_abandoned_sink_ends_its_upload(remote: Store, bucket: Bucket) -> None:
    import threading

    with pytest.raises(KeyboardInterrupt), remote.create("a/v.bin", run_id=RUN) as sink:
        for _ in range(40):
            sink.write(bytes(1_000_000))
        raise KeyboardInterrupt
    gc.collect()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("upload")]
    assert bucket.uploads() == []


def test_the_server_goes_away_in_the_middle(bucket: Bucket) -> None:
    server = S3Server()
    try:
        own = server.bucket()
        store = store_for(own.root, {**own.options, "max_retries": 1, "retry_timeout": 3})
        with pytest.raises(StorageError), store.create("a/v.bin", run_id=RUN) as sink:
            for i in range(200):
                if i == 30:
                    server.stop()
                sink.write(bytes(1_000_000))
            sink.finish().publish()
    finally:
        server.stop()


@pytest.fixture
def memory() -> ObjectStore:
    return ObjectStore(f"memory://{uuid.uuid4().hex}/p", {})


def test_memory_is_a_store_like_the_others(memory: ObjectStore) -> None:
    put(memory, "a/v.json", b"x").publish()
    assert memory.read_bytes("a/v.json") == b"x"
    assert ObjectStore(memory.root, {}).read_bytes("a/v.json") == b"x"
    assert memory.native("a/v.json") is None
    large = os.urandom(SMALL_BYTES * 2)
    put(memory, "a/w.json", large).publish()
    assert memory.read_bytes("a/w.json") == large
    memory.delete("a/v.json")
    assert not memory.exists("a/v.json")


@pytest.mark.parametrize("root", ["s3://", "s3:///x", "gs://", "http://x/y", "ftp://x", "s3a://x", "://x", "az://"])
def test_a_root_that_is_none(root: str) -> None:
    with pytest.raises(ConfigError):
        store_for(root)


def test_credentials_do_not_belong_into_a_root() -> None:
    with pytest.raises(ConfigError, match="credentials") as caught:
        store_for("s3://AKIA:hunter2@bucket/x")
    assert "hunter2" not in str(caught.value)


def test_a_store_never_shows_its_secrets(bucket: Bucket) -> None:
    store: Any = store_for(bucket.root, bucket.options)
    store.exists("x")
    assert "canary-secret-5f1d" not in repr(store)
    assert "canary-secret-5f1d" not in repr(cast(Any, vars(store)["_options"]))


@pytest.mark.parametrize("root", ["gs://bucket/prefix", "az://container/prefix"])
def test_the_other_clouds_have_addresses_alike(root: str) -> None:
    """Only what needs no network: no server for them can be had here that behaves like the real ones."""
    store = store_for(root)
    assert store.root == root
    assert store.uri("a/v.json") == f"{root}/a/v.json"
    assert store.path_of(f"{root}/a/v.json") == "a/v.json"
    assert store.is_remote
