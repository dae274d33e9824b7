import os
import re
import unicodedata

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from headwater.catalog.errors import InvalidKeyError, StorageError
from headwater.catalog.keys import AssetKey
from headwater.catalog.partitions.multi import MultiPartitionKey
from headwater.io.local import LocalStore
from headwater.io.location import (
    MAX_FOLDER_BYTES,
    MAX_PARTITION_BYTES,
    MAX_SEGMENT_BYTES,
    encode_segment,
    folder_path,
    moved_path,
    valid_name,
    version_path,
)
from tests.corpus import HOSTILE

VERSION = "01a1fc16-6520-779d-8a28-9dd936ac8a0b"

#: Whatever a partition key might be, also what no key may be.
texts = st.one_of(
    st.text(max_size=40), st.text(st.sampled_from("a.%~=/\\ CONcon"), max_size=12), st.sampled_from(HOSTILE)
)


def _key(segments: list[str]) -> AssetKey:
    try:
        return AssetKey([unicodedata.normalize("NFC", segment) for segment in segments])
    except InvalidKeyError:
        return AssetKey("refused")


keys = st.lists(texts, min_size=1, max_size=5).map(_key)


def assert_safe(path: str) -> None:
    for name in path.split("/"):
        assert name not in ("", ".", "..")
        assert not name.startswith(".")
        assert not name.endswith((".", " "))
        assert len(name.encode()) <= 255
        assert not re.search(r'[\x00-\x1f\x7f<>:"|?*\\]', name)
        assert not re.fullmatch(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?", name)
    assert not os.path.isabs(path)
    assert os.path.normpath(path) == path


@given(texts, texts)
@example("a" * 200 + "b", "a" * 200 + "c")
@example("a" * 120 + "~" + "0" * 32, "a" * 300)
@example("", "%")
@example("CON", "%43ON")
@example(".", "%2E")
@example("ſ", "s")
def test_segments_are_encoded_injectively(one: str, other: str) -> None:
    assert (encode_segment(one) == encode_segment(other)) == (one == other)


@given(texts)
def test_a_segment_is_a_safe_file_name_of_bounded_length(text: str) -> None:
    encoded = encode_segment(text)
    assert_safe(encoded)
    assert len(encoded.encode()) <= MAX_SEGMENT_BYTES
    assert "=" not in encoded and "/" not in encoded


@given(keys, st.none() | texts, keys, st.none() | texts)
def test_two_cells_never_share_a_folder(one: AssetKey, p1: str | None, other: AssetKey, p2: str | None) -> None:
    assert (folder_path(one, p1) == folder_path(other, p2)) == ((one, p1) == (other, p2))


@given(keys, st.none() | texts)
def test_a_path_never_leaves_its_root(key: AssetKey, partition: str | None) -> None:
    path = version_path(key, partition, VERSION, "parquet")
    assert_safe(path)
    assert os.path.commonpath(["/srv/data", os.path.normpath(f"/srv/data/{path}")]) == "/srv/data"
    assert path.endswith(f"/{VERSION}.parquet")
    # An object store takes 1,024 bytes for a key, the user's prefix included.
    assert len(path.encode()) <= MAX_FOLDER_BYTES + len("partition=//") + MAX_SEGMENT_BYTES + len(VERSION) + 8


@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=60), min_size=1, max_size=12))
def test_long_keys_stay_apart(segments: list[str]) -> None:
    try:
        key = AssetKey(segments)
    except InvalidKeyError:
        assume(False)
        return
    for longer in ([*segments, "x"], [segments[0] + "x", *segments[1:]]):
        try:
            other = AssetKey(longer)
        except InvalidKeyError:
            continue
        assert folder_path(key) != folder_path(other)


def test_every_hostile_partition_has_a_folder_of_its_own() -> None:
    folders = {folder_path(AssetKey("a"), text) for text in HOSTILE}
    assert len(folders) == len(HOSTILE)
    for folder in folders:
        assert_safe(folder)


@pytest.mark.parametrize(
    ("key", "partition", "path"),
    [
        ("orders", None, "orders"),
        ("raw/orders", "2024-01-31", "raw/orders/partition=2024-01-31"),
        (["a/b"], None, "a%2Fb"),
        ("売上", "東京", "売上/partition=東京"),
        ("a b", "us|2024", "a%20b/partition=us%7C2024"),
        ("..", None, "%2E%2E"),
        ("v1.2", None, "v1.2"),
        (".hidden", None, "%2Ehidden"),
        ("nul.txt", None, "%6Eul.txt"),
        ("a", "partition=b", "a/partition=partition%3Db"),
        ("a/partition=b", None, "a/partition%3Db"),
        ("~", None, "%7E"),
    ],
)
def test_paths_are_readable(key: str | list[str], partition: str | None, path: str) -> None:
    assert folder_path(AssetKey(key), partition) == path


def _multi(pairs: dict[str, str]) -> MultiPartitionKey | None:
    try:
        return MultiPartitionKey(
            {unicodedata.normalize("NFC", n): unicodedata.normalize("NFC", v) for n, v in pairs.items()}
        )
    except InvalidKeyError:
        return None


multis = st.dictionaries(texts, texts, min_size=2, max_size=4).map(_multi)


@given(keys, multis, keys, st.one_of(multis, st.none(), texts))
def test_two_cells_in_several_dimensions_never_share_a_folder(
    one: AssetKey, p1: MultiPartitionKey | None, other: AssetKey, p2: str | None
) -> None:
    def cell(asset: AssetKey, partition: str | None) -> object:
        return (asset, partition.keys_by_dimension if isinstance(partition, MultiPartitionKey) else partition)

    assert (folder_path(one, p1) == folder_path(other, p2)) == (cell(one, p1) == cell(other, p2))
    for asset, partition in ((one, p1), (other, p2)):
        path = version_path(asset, partition, VERSION, "parquet")
        assert_safe(path)
        assert len(path.encode()) <= MAX_FOLDER_BYTES + MAX_PARTITION_BYTES + len(VERSION) + 10
        assert moved_path(f"s3://bucket/a=b/{path}", asset, VERSION) == path
        assert moved_path(LocalStore("/srv/a=b ü").uri(path), asset, VERSION) == path


@pytest.mark.parametrize(
    ("pairs", "path"),
    [
        ({"month": "2013-01", "origin": "JFK"}, "month=2013-01/origin=JFK"),
        ({"z": "1", "a": "2", "m": "3"}, "a=2/m=3/z=1"),
        ({"a": "x|y", "b/c": "../d"}, "a=x%7Cy/b%2Fc=%2E.%2Fd"),
        ({"a=b": "c", "d": "=e"}, "a%3Db=c/d=%3De"),
        ({"partition": "a", "x": "b"}, "partition=a/x=b"),
        ({"都市": "東京", "a": "CON"}, "a=%43ON/都市=東京"),
    ],
)
def test_a_folder_for_each_dimension(pairs: dict[str, str], path: str) -> None:
    key = MultiPartitionKey(pairs)
    assert folder_path(AssetKey("o"), key) == f"o/{path}"
    assert folder_path(AssetKey("o"), str(key)) == f"o/partition={encode_segment(key)}", "the text is another's"
    assert folder_path(AssetKey("o"), key) == f"o/{path}"


def test_many_long_dimensions_are_one_folder() -> None:
    pairs = {f"dimension-{i}": "v" * 60 for i in range(5)}
    folder = folder_path(AssetKey("o"), MultiPartitionKey(pairs))
    assert re.fullmatch("o/partition=v{60}%7Cv*(%7Cv*)?~~[0-9a-f]{32}", folder)
    assert folder != folder_path(AssetKey("o"), MultiPartitionKey({**pairs, "dimension-4": "w"}))


@pytest.mark.parametrize(
    "uri",
    [
        f"s3://b/other/a=1/{VERSION}.parquet",
        f"s3://b/shop/orders/x/{VERSION}.parquet",
        "s3://b/shop/orders/a=1/another.parquet",
        f"s3://b/xshop/orders/{VERSION}.parquet",
        f"memory:{VERSION}",
        "",
    ],
)
def test_an_address_of_something_else_is_no_place_of_a_version(uri: str) -> None:
    assert moved_path(uri, AssetKey("shop/orders"), VERSION) is None


def test_a_long_segment_keeps_its_beginning() -> None:
    encoded = encode_segment("日" * 100)
    assert encoded.startswith("日" * 40 + "~")
    assert len(encoded) == 40 + 1 + 32


def test_a_cut_never_ends_inside_of_an_escape() -> None:
    for shift in range(3):
        kept = encode_segment("a" * shift + "%" * 200).partition("~")[0]
        assert re.fullmatch("a*(%25)+", kept)


@pytest.mark.parametrize("identifier", ["", "../x", "a/b", "a.b", "x\0", "a" * 65, "é", " "])
def test_identifiers_of_versions_and_runs_are_plain(identifier: str) -> None:
    with pytest.raises(StorageError, match="identifier"):
        version_path(AssetKey("a"), None, identifier, "parquet")
    with pytest.raises(StorageError, match="identifier"):
        valid_name(identifier)
