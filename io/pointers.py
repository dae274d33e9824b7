"""Reading a stored version from its pointer alone: in notebooks, in SQL, in checks, without the project's code."""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from headwater.catalog.errors import ChecksumError, MissingDataError, StorageError, UserCodeError
from headwater.catalog.keys import AssetKey
from headwater.catalog.printable import printable_line, with_article
from headwater.catalog.records import Pointer
from headwater.io.engines import blake3
from headwater.io.json_codec import decode_value
from headwater.io.representation import Representation, Wanted, of_annotation, of_name
from headwater.io.store import Store, checksum_of, locate


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose data lies at a pointer, as errors name it."""

    asset: AssetKey | None = None
    partition: str | None = None
    version_id: str | None = None

    def __str__(self) -> str:
        if self.asset is None:
            return "a stored version"
        partition = "" if self.partition is None else f" [{printable_line(self.partition, 200)}]"
        return f"`{self.asset}{partition}` (version {self.version_id})"

    @property
    def again(self) -> str:
        """How to make the data anew; it counts as fresh, so nobody makes it unasked."""
        if self.asset is None:
            return "materialize the asset again with --force"
        quoted = self.asset.replace("\\", "\\\\").replace('"', '\\"')
        selection = self.asset if _PLAIN.fullmatch(self.asset) else shlex.quote(f'"{quoted}"')
        partition = "" if self.partition is None else f" --partition {_shell_word(self.partition)}"
        return f"make it anew with `headwater materialize {selection}{partition} --force`"


#: A key that a shell and a selection take as it is.
_PLAIN = re.compile(r"(?!(?:and|or|not)$)[A-Za-z0-9_][A-Za-z0-9_/.-]*")
#: The bytes that stand for themselves between a shell's `$'` and `'`.
_ANSI_C = {octet: chr(octet) for octet in range(0x20, 0x7F) if octet not in b"'\\"}


def _shell_word(text: str) -> str:
    """`text` as one word of a command line, without anything that a terminal would not show."""
    if printable_line(text) == text:
        return shlex.quote(text)
    octets = text.encode(errors="surrogatepass")
    return "$'" + "".join(_ANSI_C.get(octet) or f"\\x{octet:02x}" for octet in octets) + "'"


def load_pointer(
    pointer: Pointer,
    *,
    owner: Owner = Owner(),
    annotation: Any = None,
    columns: tuple[str, ...] | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Any:
    """The data of one version: a frame in the representation that `annotation` asks for, or a plain value.

    Without an annotation a frame comes as its producer returned it. `columns` reads only these, in this order; `owner`
    is for errors to name.
    Raises `MissingDataError` when nothing lies there, `ChecksumError` when it is not what was written,
    `UserCodeError` when a column or the representation does not fit, `StorageError` for a format that only the
    IO manager that wrote it can read.
    """
    if pointer.format not in ("parquet", "json"):
        raise _needs_manager(pointer)
    store, path = locate(pointer.uri, storage_options)
    return read_stored(store, path, pointer, annotation=annotation, columns=columns, owner=owner)


def verify_pointer(
    pointer: Pointer, *, owner: Owner = Owner(), storage_options: Mapping[str, Any] | None = None
) -> None:
    """Read every byte of a version and compare its size and checksum with what was written.

    Raises `MissingDataError`, `ChecksumError`, or `StorageError` for a pointer to no file.
    """
    if pointer.checksum is None:
        raise _needs_manager(pointer)
    store, path = locate(pointer.uri, storage_options)
    verify_stored(store, path, pointer, owner=owner)


def read_stored(
    store: Store, path: str, pointer: Pointer, *, annotation: Any, columns: tuple[str, ...] | None, owner: Owner
) -> Any:
    """What lies at `path`, as `load_pointer` does it; `owner` names it in errors."""
    wanted = of_annotation(annotation)
    try:
        match pointer.format:
            case "parquet":
                return _read_frame(store, path, pointer, wanted, columns, owner)
            case "json":
                return _read_value(store, path, pointer, wanted, columns, owner)
            case _:
                raise _needs_manager(pointer)
    except FileNotFoundError:
        raise missing(pointer, owner) from None
    except OSError as error:
        raise _unreadable(pointer, owner, error) from error


def verify_stored(store: Store, path: str, pointer: Pointer, *, owner: Owner) -> None:
    """Compare the file at `path` with its pointer, as `verify_pointer` does it."""
    try:
        with store.open(path) as file:
            checksum = checksum_of(file)
            size = file.tell()
    except FileNotFoundError:
        raise missing(pointer, owner) from None
    except OSError as error:
        raise _unreadable(pointer, owner, error) from error
    if pointer.bytes is not None and size != pointer.bytes:
        raise damaged(pointer.uri, owner, f"it has {size:,} bytes instead of {pointer.bytes:,}")
    if checksum != pointer.checksum:
        raise damaged(pointer.uri, owner, "its bytes are others")


def missing(pointer: Pointer, owner: Owner) -> MissingDataError:
    """The error for data that is not where its pointer says."""
    return MissingDataError(
        f"The data of {owner} is not at '{printable_line(pointer.uri, 300)}'.",
        remedy=f"It was removed, or its root was moved or is not mounted: bring it back, or {owner.again}.",
    )


def _unreadable(pointer: Pointer, owner: Owner, error: OSError) -> StorageError:
    """The error for a file that is there, and breaks off while it is read."""
    return StorageError(
        f"The data of {owner} at '{printable_line(pointer.uri, 300)}' cannot be read: {error.strerror or error}.",
        remedy=f"Look after the disk, or the connection to it, and try again; or {owner.again}.",
    )


def stored_form(pointer: Pointer) -> Representation:
    """The kind of frame that the producer of a stored frame returned."""
    form = of_name(pointer.representation)
    return form if form.is_frame else Representation.ARROW


def _read_frame(
    store: Store, path: str, pointer: Pointer, wanted: Wanted, columns: tuple[str, ...] | None, owner: Owner
) -> Any:
    from headwater.io.frames import ParquetSource, read_frame

    form = wanted.representation
    if form is Representation.VALUE:
        raise UserCodeError(
            f"{owner} holds a frame, and a plain value is asked for.",
            remedy="Annotate the parameter with a frame type.",
        )
    source = ParquetSource(store=store, path=path, size=pointer.bytes, checksum=pointer.checksum, owner=owner)
    return read_frame(source, form if form.is_frame else stored_form(pointer), columns)


def _read_value(
    store: Store, path: str, pointer: Pointer, wanted: Wanted, columns: tuple[str, ...] | None, owner: Owner
) -> Any:
    data = store.read_bytes(path)
    if pointer.checksum is not None and blake3()(data).hexdigest() != pointer.checksum:
        raise damaged(pointer.uri, owner, "its bytes are others")
    try:
        value = decode_value(data)
    except ValueError as error:
        raise damaged(pointer.uri, owner, str(error)) from error
    if wanted.representation.is_frame and not (value is None and wanted.optional):
        raise UserCodeError(
            f"{owner} holds {with_article(type(value).__name__)}, and a {wanted.representation} is asked for.",
            remedy="Annotate the parameter with what the asset returns, or return a frame.",
        )
    if columns is not None:
        raise UserCodeError(
            f"{owner} holds {with_article(type(value).__name__)}, which has no columns.", remedy="Leave out columns=…."
        )
    return value


def damaged(uri: str, owner: Owner, reason: str) -> ChecksumError:
    """The error for data that is not what was written; `reason` is a clause without a full stop."""
    return ChecksumError(
        f"'{printable_line(uri, 300)}', {owner}, is not the file that was written: {printable_line(reason, 200)}.",
        remedy=f"It was changed or damaged since: {owner.again}, or restore the file from a backup.",
    )


def _needs_manager(pointer: Pointer) -> StorageError:
    return StorageError(
        f"'{printable_line(pointer.uri, 300)}' is of the format '{printable_line(pointer.format, 60)}'.",
        remedy="Only the IO manager that wrote it can read it: load the asset through its project.",
    )
