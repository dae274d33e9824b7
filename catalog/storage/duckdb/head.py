"""The catalog's head: how far it got, kept beside the database so that a loss cannot go unnoticed.

DuckDB opens a database whose write-ahead log was cut, removed or (in about one of twenty bit flips) damaged as if
the commits that are gone had never been. So after each commit the number of the last event is written to
`catalog.head`, and a catalog that holds less than its head says is not opened.

The head is not synced at each commit, which would cost as much as the commit: it is overwritten in place, within
one disk sector that is allocated and synced when the catalog is made. A process that dies, by `kill -9` too, leaves
what it wrote in the page cache. After a power cut the disk may hold an older head; an older head can only miss a
loss of the commits since, and never reports one that did not happen, because it is written after the commit that
it names was synced. `close` syncs it.

Format, 128 bytes: `HWHEAD1\\n`, 16 bytes of the catalog's identifier, the number of the last event and the number of
events as little-endian 64-bit integers, 16 bytes BLAKE2b of those 40 bytes, and zeros.
"""

import contextlib
import hashlib
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from headwater.catalog.errors import CatalogCorruptError

HEAD_FILE = "catalog.head"

_FORMAT = struct.Struct("<8s16sQQ16s72x")
_BODY = 40
_MAGIC = b"HWHEAD1\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """How far a catalog got: `count` events, the last one number `seq`."""

    catalog_id: str
    seq: int
    count: int


class HeadFile:
    """The head of the catalog that this process writes, held open."""

    def __init__(self, path: Path, catalog_id: str) -> None:
        self._catalog_id = catalog_id
        self._descriptor: int | None = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def write(self, seq: int, *, sync: bool = False) -> None:
        """Say that the catalog holds events 1 to `seq`. Only after their commit."""
        if self._descriptor is None:
            return
        os.pwrite(self._descriptor, _packed(Head(catalog_id=self._catalog_id, seq=seq, count=seq)), 0)
        if sync:
            os.fsync(self._descriptor)

    def close(self) -> None:
        """Sync it and let go. Idempotent."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with contextlib.suppress(OSError):
                os.fsync(descriptor)
            os.close(descriptor)


def read_head(path: Path) -> Head | None:
    """The head in `path`; None where there is no such file. Raises `CatalogCorruptError`."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        data = os.read(descriptor, _FORMAT.size + 1)
    finally:
        os.close(descriptor)
    head = _unpacked(data)
    if head is None:
        raise CatalogCorruptError(
            f"{path} is damaged, so it cannot tell whether the catalog beside it is complete.",
            remedy="`headwater catalog doctor` says what the catalog holds, `headwater catalog restore FILE` puts a "
            f"backup in its place. To accept it as it is: rm {path}",
        )
    return head


def _packed(head: Head) -> bytes:
    fields = (_MAGIC, UUID(head.catalog_id).bytes, head.seq, head.count)
    digest = hashlib.blake2b(_FORMAT.pack(*fields, b"")[:_BODY], digest_size=16).digest()
    return _FORMAT.pack(*fields, digest)


def _unpacked(data: bytes) -> Head | None:
    if len(data) != _FORMAT.size:
        return None
    _, catalog_id, seq, count, _ = _FORMAT.unpack(data)
    head = Head(catalog_id=str(UUID(bytes=catalog_id)), seq=seq, count=count)
    return head if _packed(head) == data else None
