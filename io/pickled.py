"""An IO manager for any Python object, by name only: whoever loads a pickle runs what it says.

So a pickle is loaded only after its seal was found to be right: an HMAC-SHA256 (RFC 2104) over the asset, the
partition, the version and the bytes, with a key that lies in the project's home, outside of the data folder, and
that only its owner can read. Who can write to the data but not read the key cannot make anybody run anything, nor
pass off one version as another.

The file: `HWPKL1\\n`, the pickle, 32 bytes of seal.
"""

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headwater.catalog.errors import ChecksumError, ConfigError, StorageError, UnstorableValueError, UserCodeError
from headwater.catalog.keys import AssetKey
from headwater.catalog.printable import printable_line, with_article
from headwater.catalog.records import Pointer
from headwater.io.base import InputContext, OutputContext
from headwater.io.data_version import value_version
from headwater.io.engines import blake3
from headwater.io.file_manager import FileIOManager, StagedOutput, owner_of
from headwater.io.location import version_path
from headwater.io.pointers import missing
from headwater.io.representation import class_name, of_value
from headwater.io.store import Sink, Store

KEY_NAME = "pickle.key"

_MAGIC = b"HWPKL1\n"
_SEAL_BYTES = 32


class PickleIOManager(FileIOManager):
    """Keeps any object that `pickle` takes.

    An object store is refused unless `allow_remote` says that the risk is known: every reader needs the same key
    in its home then. Raises `ConfigError`.
    """

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        *,
        allow_remote: bool = False,
        storage_options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(root, storage_options=storage_options)
        if root is not None and self.store.is_remote and not allow_remote:
            raise ConfigError(
                f"Pickles in '{self.store.root}' would be run by whoever reads them.",
                remedy="Use FileIOManager; or say allow_remote=True, and give every reader the same pickle.key.",
            )

    def stage(self, context: OutputContext, obj: Any) -> StagedOutput:
        """Pickle `obj`. Raises `UnstorableValueError` when pickle refuses it, `StorageError`."""
        import pickle

        path = version_path(context.asset_key, context.partition_key, context.version_id, "pickle")
        seal = _seal(self._key(create=True), context.asset_key, context.partition_key, context.version_id)
        with self.store.create(path, run_id=context.run_id) as sink:
            sink.write(_MAGIC)
            body = _Sealed(sink, seal)
            try:
                pickle.Pickler(body, protocol=5).dump(obj)
            except StorageError:
                raise
            except Exception as error:
                raise UnstorableValueError(
                    f"{context.asset_key} returned {with_article(class_name(obj))} that cannot be pickled: "
                    f"{printable_line(str(error), 200)}.",
                    remedy="Return plain data; open files, locks, connections and lambdas cannot be kept.",
                ) from error
            sink.write(seal.digest())
            file = sink.finish()
        pointer = Pointer(
            uri=file.uri,
            format="pickle",
            representation=class_name(obj),
            bytes=file.size,
            checksum=file.checksum,
        )
        return StagedOutput(file, pointer, value_version("pickle", body.hasher.digest()))

    def load_input(self, context: InputContext) -> Any:
        """The object, once its seal was found to be right.

        Raises `ChecksumError` before anything is unpickled, `MissingDataError`, `StorageError`, `UserCodeError` for
        columns of what has none.
        """
        import hmac
        import pickle

        from headwater.io.frames import from_arrow

        def read(store: Store, path: str) -> bytes:
            try:
                return store.read_bytes(path)
            except FileNotFoundError:
                raise missing(context.pointer, owner) from None

        owner = owner_of(context)
        data: bytes = self.read_where_it_lies(context, read)
        body = memoryview(data)[len(_MAGIC) : -_SEAL_BYTES]
        seal = _seal(self._key(create=False), context.asset_key, context.partition_key, context.version_id)
        seal.update(body)
        if not data.startswith(_MAGIC) or not hmac.compare_digest(seal.digest(), data[-_SEAL_BYTES:]):
            raise ChecksumError(
                f"The pickle of {owner} at '{printable_line(context.pointer.uri, 300)}' was not written by this "
                "project, or was changed.",
                remedy=f"It was not loaded, because a pickle can run anything: {owner.again}.",
            )
        # The seal proves that a process which knows the key wrote these very bytes for this very version.
        value = pickle.loads(body)  # noqa: S301
        if context.columns is None:
            return value
        form = of_value(value)
        if not form.is_frame:
            raise UserCodeError(
                f"{owner} holds {with_article(class_name(value))}, which has no columns.", remedy="Leave out columns=…."
            )
        return from_arrow(value, form, context.columns)

    def _key(self, *, create: bool) -> bytes:
        """The project's key, made when there is none and something is to be stored."""
        if self._home is None:
            raise StorageError(f"{self!r} has no key yet.", remedy="Call bind(home) before it is used.")
        path = self._home / KEY_NAME
        if create and not path.exists():
            _make_key(path)
        try:
            key = path.read_bytes()
        except OSError as error:
            raise StorageError(
                f"The key of this project's pickles, '{path}', cannot be read: {error.strerror}.",
                remedy="Bring back the file; without it the pickles cannot be told from forged ones.",
            ) from None
        if len(key) != 32 or path.stat().st_mode & 0o077:
            raise StorageError(
                f"'{path}' is not a key that only its owner can read.",
                remedy="Remove it and materialize again, or restore it and run chmod 600 on it.",
            )
        return key


class _Sealed:
    """Passes a pickle on while it is sealed."""

    def __init__(self, sink: Sink, seal: Any) -> None:
        self._sink = sink
        self._seal = seal
        self.hasher = blake3()()

    def write(self, data: Any) -> int:
        self._seal.update(data)
        self.hasher.update(data)
        return self._sink.write(data)


def _seal(key: bytes, asset: AssetKey, partition: str | None, version_id: str) -> Any:
    """An HMAC that has taken the identity of a version; every part is prefixed with its length."""
    import hmac

    seal = hmac.new(key, digestmod="sha256")
    for part in (str(asset), "" if partition is None else f"[{partition}]", version_id):
        data = part.encode(errors="surrogatepass")
        seal.update(len(data).to_bytes(8, "little"))
        seal.update(data)
    return seal


def _make_key(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    mine = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
    descriptor = os.open(mine, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(os.urandom(32))
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(mine, path)  # whole, and only if nobody was faster
    finally:
        os.unlink(mine)
