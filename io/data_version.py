"""Data versions: what a table's or a value's content hashes to, whoever wrote it and however it lies in memory.

A column's version depends on its logical type and its values, and on nothing else: not on chunks and offsets,
not on what lies under nulls, not on the representation where the logical type is the same (`string`,
`large_string` and `string_view`; `list`, `large_list` and `list_view`; a dictionary's indices and unused entries).
A table's version is the hash of its columns' names and versions in name order.

A column is hashed as a tree. A node of it has a head (its kind), a count of rows, the positions of its nulls as
64-bit integers, and streams of its non-null values: the bytes of fixed-width values, little-endian; one byte for
a boolean; lengths and contents apart for text and binary; lengths for lists, whose elements are a child, as a
struct's fields are. Streams are hashed with BLAKE3 (https://github.com/BLAKE3-team/BLAKE3-specs) and a node's
digest is that of all its parts, each prefixed with its length. Floats are hashed by their bits: zero and minus
zero differ, because 1/x tells them apart, and so do NaNs of different bits. At worst that builds something once more;
taking two values for one would leave something stale. The order of rows counts.

A version reads `b3-1:` and 32 hexadecimal digits. Versions of different schemes are not comparable.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any

from headwater.catalog.errors import UnstorableValueError
from headwater.io.engines import arrow, blake3, numpy

#: The name of this scheme; a change of what is hashed needs a new one.
SCHEME = "b3-1"


def value_version(kind: str, data: bytes) -> str:
    """The version of a value from its bytes in a format called `kind`."""
    return _version([kind.encode(), data])


def json_version(data: bytes) -> str:
    """The version of a plain value, from its canonical JSON."""
    return value_version("json", data)


def table_version(columns: Mapping[str, str]) -> str:
    """The version of a table whose columns, by name, have these versions."""
    parts = [b"table"]
    for name in sorted(columns):
        parts += (name.encode(), columns[name].encode())
    return _version(parts)


class TableHasher:
    """Hashes the columns of a table while it passes in record batches.

    Raises `UnstorableValueError` for a column whose type no Parquet file can hold.
    """

    def __init__(self, schema: Any) -> None:
        self._names: list[str] = schema.names
        self._columns = [_node_maker(field.type)(field.name) for field in schema]
        self.rows = 0

    def update(self, batch: Any) -> None:
        """Take the next rows: a `RecordBatch` or a `Table` of the schema."""
        for part in batch.to_batches() if hasattr(batch, "to_batches") else (batch,):
            if part.num_rows:
                for column, array in zip(self._columns, part.columns, strict=True):
                    column.update(array)
        self.rows += batch.num_rows

    def nulls(self) -> dict[str, int]:
        """How many nulls each column has had."""
        return {name: column.null_count for name, column in zip(self._names, self._columns, strict=True)}

    def columns(self) -> dict[str, str]:
        """The version of each column so far, by name."""
        return {
            name: f"{SCHEME}:{column.digest()[:16].hex()}"
            for name, column in zip(self._names, self._columns, strict=True)
        }


@lru_cache(maxsize=512)
def type_text(kind: Any) -> str:
    """An Arrow type as text, the same for every representation of one logical type: `string`, `list<int64>`."""
    types = arrow().types
    if _is_text(kind):
        return "string"
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind):
        return "binary"
    if types.is_dictionary(kind):
        return f"dictionary<{type_text(kind.value_type)}{', ordered' if kind.ordered else ''}>"
    if types.is_run_end_encoded(kind):
        return type_text(kind.value_type)
    if types.is_fixed_size_list(kind):
        return f"list<{type_text(kind.value_type)}>[{kind.list_size}]"
    if types.is_map(kind):
        return f"map<{type_text(kind.key_type)}, {type_text(kind.item_type)}>"
    if _is_list(kind):
        return f"list<{type_text(kind.value_type)}>"
    if types.is_struct(kind):
        return f"struct<{', '.join(f'{field.name}: {type_text(field.type)}' for field in kind.fields)}>"
    if isinstance(kind, arrow().BaseExtensionType):
        return f"{kind.extension_name}<{type_text(kind.storage_type)}>"
    return str(kind)


def _version(parts: Iterable[bytes]) -> str:
    return f"{SCHEME}:{_digest_of(parts)[:16].hex()}"


def _digest_of(parts: Iterable[bytes]) -> bytes:
    prefixed = b"".join([piece for part in parts for piece in (len(part).to_bytes(8, "little"), part)])
    return blake3()(prefixed).digest()


def _is_text(kind: Any) -> bool:
    types = arrow().types
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def _is_list(kind: Any) -> bool:
    types = arrow().types
    return bool(
        types.is_list(kind) or types.is_large_list(kind) or types.is_list_view(kind) or types.is_large_list_view(kind)
    )


class _Node:
    """One node of a column's tree: rows, nulls, and the parts that a kind of type adds."""

    def __init__(self, head: str) -> None:
        self.head = head
        self.rows = 0
        self.null_count = 0
        self.null_positions: Any = None

    def update(self, array: Any) -> None:
        """Take the next rows, at least one."""
        keep: Any = None
        if array.null_count:
            keep = _validity(array)
            positions = (~keep).nonzero()[0]
            positions += self.rows
            if self.null_positions is None:
                self.null_positions = blake3()()
            self.null_positions.update(_octets(positions))
            self.null_count += len(positions)
        self.rows += len(array)
        self.add(array, keep)

    def add(self, array: Any, keep: Any) -> None:
        """Take the values that `keep` marks, all of them where it is None."""

    def streams(self) -> list[bytes]:
        """The digests of what `add` took."""
        return []

    def digest(self) -> bytes:
        """The digest of everything so far."""
        nulls = self.null_positions.digest() if self.null_positions else b""
        return _digest_of([self.head.encode(), self.rows.to_bytes(8, "little"), nulls, *self.streams()])


class _Nulls(_Node):
    """The null type: nothing but a count."""

    def update(self, array: Any) -> None:
        self.rows += len(array)
        self.null_count += len(array)


class _Fixed(_Node):
    """Values of a fixed number of bytes."""

    def __init__(self, head: str, width: int) -> None:
        super().__init__(head)
        self.width = width
        self.values = blake3()()

    def add(self, array: Any, keep: Any) -> None:
        if not self.width:
            return
        start = array.offset * self.width
        view = memoryview(array.buffers()[1])[start : start + len(array) * self.width]
        if keep is not None:
            np = numpy()
            # A numpy integer is compacted several times faster than a row of bytes.
            integer = {1: "u1", 2: "u2", 4: "u4", 8: "u8"}.get(self.width)
            rows = np.frombuffer(view, integer) if integer else np.frombuffer(view, "u1").reshape(-1, self.width)
            view = _octets(rows[keep])
        self.values.update(view)

    def streams(self) -> list[bytes]:
        return [self.values.digest()]


class _Bools(_Node):
    """Booleans, a byte each."""

    def __init__(self) -> None:
        super().__init__("bool")
        self.values = blake3()()

    def add(self, array: Any, keep: Any) -> None:
        bits = _bits(array.buffers()[1], array.offset, len(array))
        self.values.update(_octets(bits if keep is None else bits[keep]))

    def streams(self) -> list[bytes]:
        return [self.values.digest()]


class _Bytes(_Node):
    """Text or binary: lengths of 32 bits, which is what Parquet has, and contents."""

    def __init__(self, head: str, name: str) -> None:
        super().__init__(head)
        self.name = name
        self.lengths = blake3()()
        self.contents = blake3()()

    def add(self, array: Any, keep: Any) -> None:
        pa = arrow()
        if array.type in (pa.string_view(), pa.binary_view()):
            array = array.cast(pa.large_string() if array.type == pa.string_view() else pa.large_binary())
        offsets = _offsets(array)
        lengths = offsets[1:] - offsets[:-1]
        if keep is not None:
            kept = lengths[keep]
            if kept.sum() != offsets[-1] - offsets[0]:  # bytes lie under nulls
                self.add(array.drop_null(), None)
                return
            lengths = kept
        if offsets[-1] - offsets[0] > 0xFFFF_FFFF and lengths.max() > 0xFFFF_FFFF:
            raise UnstorableValueError(
                f"The column '{self.name}' has a value of {lengths.max()} bytes.",
                remedy="Parquet keeps values up to 4 GiB: write such a value to a file of its own.",
            )
        self.lengths.update(_octets(lengths.astype("<u4", copy=False)))
        contents = array.buffers()[2]
        if contents is not None:
            self.contents.update(memoryview(contents)[int(offsets[0]) : int(offsets[-1])])

    def streams(self) -> list[bytes]:
        return [self.lengths.digest(), self.contents.digest()]


class _Lists(_Node):
    """Lists of any length, and maps, which are lists of pairs."""

    def __init__(self, head: str, child: _Node) -> None:
        super().__init__(head)
        self.child = child
        self.lengths = blake3()()

    def add(self, array: Any, keep: Any) -> None:
        types = arrow().types
        if types.is_list_view(array.type) or types.is_large_list_view(array.type):
            lengths = _sizes(array)  # not by a cast to lists, which pyarrow 26 gets wrong
        else:
            if types.is_map(array.type):
                array = _map_as_list(array)
            offsets = _offsets(array)
            lengths = offsets[1:] - offsets[:-1]
        if keep is not None:
            lengths = lengths[keep]
        self.lengths.update(_octets(lengths.astype("<i8", copy=False)))
        values = array.flatten()  # of lists that are not null
        if len(values):
            self.child.update(values)

    def streams(self) -> list[bytes]:
        return [self.lengths.digest(), self.child.digest()]


class _FixedLists(_Node):
    """Lists of one length."""

    def __init__(self, head: str, child: _Node) -> None:
        super().__init__(head)
        self.child = child

    def add(self, array: Any, keep: Any) -> None:
        values = array.flatten()
        if len(values):
            self.child.update(values)

    def streams(self) -> list[bytes]:
        return [self.child.digest()]


class _Structs(_Node):
    """Structs: a child a field, of the rows where the struct itself is not null."""

    def __init__(self, fields: list[tuple[str, _Node]]) -> None:
        super().__init__("struct")
        self.fields = fields

    def add(self, array: Any, keep: Any) -> None:
        if keep is not None:
            array = array.drop_null()
        if len(array):
            for i, (_, child) in enumerate(self.fields):
                child.update(array.field(i))

    def streams(self) -> list[bytes]:
        return [part for name, child in self.fields for part in (name.encode(), child.digest())]


class _Wrapped(_Node):
    """A type that is another one underneath: a dictionary, run ends, an extension."""

    def __init__(self, head: str, child: _Node, unwrap: str) -> None:
        super().__init__(head)
        self.child = child
        self.unwrap = unwrap

    def update(self, array: Any) -> None:
        match self.unwrap:
            case "storage":
                array = array.storage
            case "dictionary":
                array = array.dictionary_decode()
            case _:
                array = arrow().compute.run_end_decode(array)
        self.child.update(array)
        self.rows, self.null_count = self.child.rows, self.child.null_count

    def streams(self) -> list[bytes]:
        return [self.child.digest()]


@lru_cache(maxsize=512)
def _node_maker(kind: Any) -> Callable[[str], _Node]:
    """What makes the node for a type, given the name of its column, which errors name."""
    pa = arrow()
    types = pa.types
    if types.is_null(kind):
        return lambda name: _Nulls("null")
    if types.is_boolean(kind):
        return lambda name: _Bools()
    text = type_text(kind)
    if types.is_struct(kind):
        fields = [(field.name, _node_maker(field.type)) for field in kind.fields]
        return lambda name: _Structs([(label, make(name)) for label, make in fields])
    if types.is_map(kind):
        key, value = _node_maker(kind.key_type), _node_maker(kind.item_type)
        return lambda name: _Lists("map", _Structs([("key", key(name)), ("value", value(name))]))
    if isinstance(kind, pa.BaseExtensionType):
        # pyarrow's own extensions say in their text what those written in Python serialize.
        parameters = getattr(kind, "__arrow_ext_serialize__", lambda: str(kind).encode())()
        head = f"extension {kind.extension_name} {parameters.hex()}"
        storage = _node_maker(kind.storage_type)
        return lambda name: _Wrapped(head, storage(name), "storage")
    if hasattr(kind, "value_type"):
        inner = _node_maker(kind.value_type)
        if types.is_dictionary(kind):
            return lambda name: _Wrapped(f"dictionary{kind.ordered:d}", inner(name), "dictionary")
        if types.is_run_end_encoded(kind):
            return lambda name: _Wrapped("run ends", inner(name), "run ends")
        if types.is_fixed_size_list(kind):
            return lambda name: _FixedLists(f"list {kind.list_size}", inner(name))
        return lambda name: _Lists("list", inner(name))
    if text in ("string", "binary"):
        return lambda name: _Bytes(text, name)
    try:
        width = kind.bit_width // 8
    except ValueError:
        return lambda name: _refuse(name, text)
    return lambda name: _Fixed(text, width)


def _refuse(name: str, text: str) -> _Node:
    raise UnstorableValueError(
        f"The column '{name}' has the type {text}, which Parquet does not have.",
        remedy="Convert the column to another type before it is returned.",
    )


def _octets(values: Any) -> memoryview:
    return numpy().ascontiguousarray(values).reshape(-1).view("u1").data


def _bits(buffer: Any, offset: int, size: int) -> Any:
    """The `size` bits of a bitmap from `offset` on, a byte each (Arrow: least significant bit first)."""
    np = numpy()
    first, skip = divmod(offset, 8)
    octets = np.frombuffer(buffer, "u1", count=(skip + size + 7) // 8, offset=first)
    return np.unpackbits(octets, bitorder="little")[skip : skip + size]


def _validity(array: Any) -> Any:
    bitmap = array.buffers()[0]
    if bitmap is None:  # run ends and the like know their nulls without a bitmap
        return array.is_valid().to_numpy(zero_copy_only=False)
    return _bits(bitmap, array.offset, len(array)).view("?")


def _offsets(array: Any) -> Any:
    pa = arrow()
    types = pa.types
    wide = types.is_large_string(array.type) or types.is_large_binary(array.type) or types.is_large_list(array.type)
    width = 8 if wide else 4
    buffer = array.buffers()[1]
    return numpy().frombuffer(buffer, f"<i{width}", count=len(array) + 1, offset=array.offset * width)


def _sizes(array: Any) -> Any:
    width = 8 if arrow().types.is_large_list_view(array.type) else 4
    return numpy().frombuffer(array.buffers()[2], f"<i{width}", count=len(array), offset=array.offset * width)


def _map_as_list(array: Any) -> Any:
    pa = arrow()
    entries = pa.StructArray.from_arrays([array.keys, array.items], names=["key", "value"])
    return pa.Array.from_buffers(
        pa.list_(entries.type), len(array), array.buffers()[:2], offset=array.offset, children=[entries]
    )
