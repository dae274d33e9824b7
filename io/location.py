"""Where a version of a cell lies below its root: a readable path that no other version has.

    <key segment>/…/[partition=<partition>/]<version id>.<extension>

Every segment of a key becomes one folder, and so does a partition: `partition=2024-01-31`; one in several dimensions
a folder each, in the order of their names: `month=2013-01/origin=JFK`. Letters and digits of any script, `_`, `-`
and `.` stay; everything else is percent-encoded as its UTF-8 bytes, and so is what some file system would take for
something special: a leading or trailing dot, a name that Windows reserves. A name too long for a file system is cut
and ends in `~` and a hash of the whole, names that are too long together become one that ends in `~~` and a hash;
`~` itself is always encoded, so nothing short can look like a cut name. `=` is too, so that only partitions' folders
have one.

The encoding is injective, so two keys never share a folder, except on a disk that ignores case, where `Sales`
and `sales` do. Their files are apart even there, because a version id is never used twice.
"""

import functools
import re
from contextvars import ContextVar
from pathlib import Path
from urllib.parse import unquote

from headwater.catalog.errors import StorageError
from headwater.catalog.keys import AssetKey
from headwater.catalog.partitions.multi import MultiPartitionKey
from headwater.catalog.printable import printable_line

#: The folder of the project whose definitions are being imported: relative roots start from it.
PROJECT_FOLDER: ContextVar[Path | None] = ContextVar("headwater project folder", default=None)

#: What the built-in IO managers write.
EXTENSIONS = ("parquet", "json", "pickle")
#: UTF-8 bytes of one encoded segment. File systems allow 255 for a name.
MAX_SEGMENT_BYTES = 200
#: UTF-8 bytes of all encoded segments of a key. S3 allows 1,024 for a whole object key with its prefix.
MAX_FOLDER_BYTES = 560
#: UTF-8 bytes of all folders of a partition: those of one dimension fit.
MAX_PARTITION_BYTES = len("partition=") + MAX_SEGMENT_BYTES

#: What is left of a cut name before `~` and 32 hexadecimal digits.
_KEPT_BYTES = 120
_RESERVED = re.compile(
    r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9\u00b9\u00b2\u00b3])(\..*)?", re.IGNORECASE | re.DOTALL
)
_PLAIN = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*(?<!\.)")
_VERSION_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


def absolute_root(root: str) -> str:
    """A root that means the same wherever a command is given: addresses and absolute folders stay as they are.

    A relative folder starts from the project's folder while its definitions are imported, else from the current one.
    """
    folder = PROJECT_FOLDER.get()
    return root if folder is None or "://" in root else str(folder / Path(root).expanduser())


def folder_path(asset: AssetKey, partition: str | None = None) -> str:
    """The folder that holds every version of one cell, relative to the root, with `/` between segments.

    A `MultiPartitionKey` lies elsewhere than its text, which does not tell the dimensions.
    """
    # They are equal, so what is remembered of one must not be found by the other.
    if isinstance(partition, MultiPartitionKey):
        return _folder_path(asset, tuple(partition.keys_by_dimension.items()))
    return _folder_path(asset, partition)


@functools.lru_cache(maxsize=4096)
def _folder_path(asset: AssetKey, partition: str | tuple[tuple[str, str], ...] | None) -> str:
    segments = [encode_segment(segment) for segment in asset.path]
    if _size("/".join(segments)) > MAX_FOLDER_BYTES:
        segments = [f"{_cut(segments[0], _KEPT_BYTES)}~~{_digest(str(asset))}"]
    if isinstance(partition, str):
        segments.append(f"partition={encode_segment(partition)}")
    elif partition is not None:
        segments += _dimension_folders(partition)
    return "/".join(segments)


def _dimension_folders(dimensions: tuple[tuple[str, str], ...]) -> list[str]:
    folders = [f"{encode_segment(name)}={encode_segment(value)}" for name, value in dimensions]
    if _size("/".join(folders)) <= MAX_PARTITION_BYTES:
        return folders
    values = _cut(encode_segment("|".join(value for _, value in dimensions)), _KEPT_BYTES)
    return [f"partition={values}~~{_digest(repr(dimensions))}"]


def moved_path(uri: str, asset: AssetKey, version_id: str) -> str | None:
    """Where a version would lie, relative to any root, if it lies as it did below the one of its address.

    The address tells the dimensions of its partition, which the text of a key does not. None where nothing of this
    asset and version can lie at such an address.
    """
    *parents, name = (unquote(uri) if uri.startswith("file://") else uri).split("/")
    first = len(parents)
    while first and "=" in parents[first - 1]:
        first -= 1
    folder = folder_path(asset)
    if not "/".join(parents[:first]).endswith(f"/{folder}") or name.partition(".")[0] != version_id:
        return None
    return "/".join([folder, *parents[first:], name])


def version_path(asset: AssetKey, partition: str | None, version_id: str, extension: str) -> str:
    """The path of one version's file, relative to the root.

    Raises `StorageError` for a version id that is none.
    """
    return f"{folder_path(asset, partition)}/{valid_name(version_id)}.{extension}"


def valid_name(identifier: str) -> str:
    """`identifier` itself, if it can be part of a file name as it is: a version or run id.

    Raises `StorageError`.
    """
    if not _VERSION_ID.fullmatch(identifier):
        raise StorageError(
            f"'{printable_line(identifier, 80)}' is not an identifier of a version or a run.",
            remedy="Identifiers are made of ASCII letters, digits, '-' and '_'.",
        )
    return identifier


def encode_segment(segment: str) -> str:
    """One segment as a file name, injectively; the empty segment, which no key has, becomes `%`."""
    if not segment:
        return "%"
    reserved = _RESERVED.fullmatch(segment) is not None
    if not reserved and len(segment) <= MAX_SEGMENT_BYTES and _PLAIN.fullmatch(segment):
        return segment
    last = len(segment) - 1
    encoded = "".join(
        _percent(char) if (i == 0 and (reserved or char == ".")) or (i == last and char == ".") else _encode(char)
        for i, char in enumerate(segment)
    )
    if _size(encoded) > MAX_SEGMENT_BYTES:
        encoded = f"{_cut(encoded, _KEPT_BYTES)}~{_digest(segment)}"
    return encoded


def _encode(char: str) -> str:
    return char if char.isalnum() or char in "_-." else _percent(char)


def _percent(char: str) -> str:
    return "".join(f"%{byte:02X}" for byte in char.encode("utf-8", "surrogatepass"))


def _cut(encoded: str, size: int) -> str:
    kept = encoded.encode()[:size].decode("utf-8", "ignore")
    # Never end inside of an escape, nor in a dot.
    return re.sub(r"%[0-9A-F]?$", "", kept).rstrip(".")


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _digest(text: str) -> str:
    import hashlib

    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
