"""Versions of cells as numbers that can be added, so that what millions of cells read is compared without joins.

A cell's `inputs_hash` is a sum, modulo 2^64, of one number for each asset it depends on and one for each version it
read. So two cells read the same versions of the same dependencies if and only if their sums agree, up to a chance
of 2^-64; and the sum that a cell would get now is worked out from the current versions' hashes, whatever number of
partitions it reads, by differences of prefix sums (see `headwater.catalog.partitions.links`).
"""

import functools
import hashlib
from collections.abc import Iterable

from headwater.catalog.records import Input

#: Where the numbers wrap around: they are unsigned 64-bit integers.
MODULUS = 1 << 64


def version_hash(asset: str, partition: str | None, data_version: str) -> int:
    """The number of a version of a cell: the same wherever the data is the same."""
    return _hash(b"version", b"%b%b%b" % (_asset_part(asset), _part(partition), _part(data_version)))


@functools.lru_cache(maxsize=1 << 16)
def dependency_hash(asset: str) -> int:
    """The number that stands for depending on `asset`, whatever is read of it."""
    return _hash(b"dependency", _part(asset))


def input_hash(source: Input) -> int:
    """The number of the version that an input was; 0 where there was none."""
    if source.data_version is None:
        return 0
    return version_hash(source.asset, source.partition, source.data_version)


def inputs_hash(inputs: Iterable[Input]) -> int:
    """The sum for some inputs: each asset among them once, and every version that was read."""
    sources = tuple(inputs)
    return sum_hashes((source.asset for source in sources), map(input_hash, sources))


def sum_hashes(assets: Iterable[str], versions: Iterable[int]) -> int:
    """The sum for dependencies on `assets`, each counted once, of which versions with these numbers were read."""
    return sum(versions, sum(map(dependency_hash, set(assets)))) % MODULUS


def _part(text: str | None) -> bytes:
    """A text with its length before it, so that no two lists of texts are written the same.

    Lone surrogates as storages write them (`storage.text`), so that the number is the same before and after.
    """
    if text is None:
        return b"-:"
    data = text.encode("utf-8", "backslashreplace")
    return b"%d:%b" % (len(data), data)


_asset_part = functools.lru_cache(maxsize=1 << 16)(_part)


def _hash(kind: bytes, data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8, person=kind).digest())
