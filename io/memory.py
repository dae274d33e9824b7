"""An IO manager that keeps values in this process, for tests and for steps that are cheap to repeat."""

import copy
import threading
from typing import Any

from headwater.catalog.errors import HeadwaterError, MissingDataError, UserCodeError
from headwater.catalog.keys import AssetKey
from headwater.catalog.printable import with_article
from headwater.catalog.records import Column, Pointer
from headwater.io.base import InputContext, IOManager, OutputContext, Staged
from headwater.io.data_version import TableHasher, json_version, table_version, type_text
from headwater.io.file_manager import owner_of
from headwater.io.frames import from_arrow, to_arrow
from headwater.io.json_codec import canonical, encode_value
from headwater.io.representation import Representation, class_name, of_annotation, of_name, of_value

_SCHEME = "memory:"


class InMemoryIOManager(IOManager):
    """Keeps what assets return, every version of it, until the process ends.

    Streams (a lazy frame, a reader, a DuckDB relation) are run once, when they are stored. Frames and plain values
    are safe from what their readers do to them; any other object is handed out as it is. Steps that run in another
    process do not see any of it.
    """

    in_process_only = True

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}
        self._lock = threading.Lock()

    def handle_output(self, context: OutputContext, obj: Any) -> Pointer:
        """Keep `obj`."""
        staged = self.stage(context, obj)
        staged.publish()
        return staged.pointer

    def stage(self, context: OutputContext, obj: Any) -> Staged:
        """Keep `obj` where no reader finds it before it is published. Raises what a stream raises."""
        form = of_value(obj)
        rows: int | None = None
        columns: tuple[Column, ...] = ()
        data_version: str | None = None
        value = obj
        if form in (Representation.POLARS_LAZY, Representation.ARROW_READER, Representation.DUCKDB):
            value = to_arrow(obj)
        elif form is Representation.PANDAS:
            value = obj.copy(deep=False)
        elif form is Representation.VALUE:
            value = copy.deepcopy(obj)
        try:
            if form.is_frame:
                rows, columns = _describe(value)
                data_version = table_version({column.name: column.version or "" for column in columns})
            elif form is Representation.VALUE:
                data_version = json_version(canonical(encode_value(obj)))
        except HeadwaterError:
            pass  # what Arrow or JSON cannot hold can still be kept here; it just has no version
        representation = form.value if form.is_frame else class_name(obj)
        uri = f"{_SCHEME}{context.version_id}"
        pointer = Pointer(uri=uri, format="memory", representation=representation, rows=rows, columns=columns)
        return _Held(self, pointer, data_version, value)

    def load_input(self, context: InputContext) -> Any:
        """What was kept, in the representation that the annotation asks for.

        Raises `MissingDataError`, `UserCodeError` for a column or a representation that does not fit.
        """
        owner = owner_of(context)
        with self._lock:
            if context.pointer.uri not in self._values:
                raise MissingDataError(
                    f"The data of {owner} was kept in the memory of a process that is gone.",
                    remedy="Materialize it in the same run as its reader, or give it an IO manager that writes files.",
                )
            value = self._values[context.pointer.uri]
        stored = of_name(context.pointer.representation)
        wanted = of_annotation(context.annotation).representation
        if not stored.is_frame:
            if context.columns is not None:
                raise UserCodeError(
                    f"{owner} holds {with_article(type(value).__name__)}, which has no columns.",
                    remedy="Leave out columns=….",
                )
            if wanted.is_frame and value is not None:
                raise UserCodeError(
                    f"{owner} holds {with_article(type(value).__name__)}, and a frame is asked for.",
                    remedy="Annotate the parameter with what the asset returns.",
                )
            return copy.deepcopy(value) if of_value(value) is Representation.VALUE else value
        if wanted is Representation.VALUE:
            raise UserCodeError(f"{owner} holds a frame.", remedy="Annotate the parameter with a frame type.")
        return from_arrow(value, wanted if wanted.is_frame else stored, context.columns)

    def delete(self, pointer: Pointer) -> None:
        """Forget a version. Idempotent."""
        with self._lock:
            self._values.pop(pointer.uri, None)

    def folder_of(self, asset_key: AssetKey, partition_key: str | None) -> None:
        """None: nothing is left by a process that ends."""

    def fingerprint(self) -> Any:
        """The class."""
        return {"class": f"{type(self).__module__}.{type(self).__qualname__}"}

    def keep(self, pointer: Pointer, value: Any) -> None:
        """Let readers see a value."""
        with self._lock:
            self._values[pointer.uri] = value


class _Held(Staged):
    """A value that nobody sees yet."""

    def __init__(self, manager: InMemoryIOManager, pointer: Pointer, data_version: str | None, value: Any) -> None:
        self._manager = manager
        self._value = value
        self.pointer = pointer
        self.data_version = data_version

    def publish(self) -> None:
        self._manager.keep(self.pointer, self._value)

    def discard(self) -> None:
        self._value = None
        self._manager.delete(self.pointer)


def _describe(frame: Any) -> tuple[int, tuple[Column, ...]]:
    table = to_arrow(frame)
    hasher = TableHasher(table.schema)
    hasher.update(table)
    versions, nulls = hasher.columns(), hasher.nulls()
    columns = [
        Column(name=item.name, type=type_text(item.type), version=versions[item.name], nulls=nulls[item.name])
        for item in table.schema
    ]
    return hasher.rows, tuple(columns)
