"""What goes over the socket: operations of a catalog and their answers, as msgpack (https://msgpack.org), no pickles.

A message is its length in 8 bytes, the least significant first, and then that many bytes. A client first sends its
token, and is greeted; then, for each request, it sends a list of the operation's name and its arguments. The greeting
and each answer are a list of what became of it and its value: `true` and the answer, or `false` and the error.

Every operation is in `OPERATIONS` with the types of its arguments and of its answer, which are checked when it comes.
The same goes over a Unix socket on one host and over TCP with TLS between hosts.
"""

import functools
import re
import socket
import struct
import time as clock
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

import msgspec

from headwater.catalog import errors
from headwater.catalog.errors import CatalogError, HeadwaterError, UsageError
from headwater.catalog.events import AssetDefinition
from headwater.catalog.keys import AssetKey
from headwater.catalog.records import (
    Automation,
    Backfill,
    BackfillCells,
    BackfillStatus,
    Backup,
    Cell,
    ConditionState,
    Daemon,
    DefinitionChange,
    Fact,
    FactTopic,
    Failure,
    Fingerprint,
    LoggedEvent,
    Materialization,
    PlannedCell,
    Run,
    RunStatus,
    Slot,
    Step,
    Tick,
    TickStatus,
)
from headwater.catalog.storage import journal
from headwater.catalog.storage.base import AssetCells, CellState, PartitionCells, QueryResult
from headwater.catalog.storage.journal import plain, revive
from headwater.catalog.storage.text import map_text

if TYPE_CHECKING:
    from numpy import int64, uint64
    from numpy.typing import NDArray

_LENGTH = struct.Struct("<Q")
#: Ten million cells are 360 MB.
MAX_MESSAGE = 8 << 30
#: What both sides have to speak. It counts up whenever an operation or a message changes.
VERSION = 1


class Disconnected(Exception):
    """The other side is gone, or does not speak as it should."""


class Oversized(Disconnected):
    """A message that announces more bytes than it may have."""


def send(connection: socket.socket, message: bytes) -> None:
    """Send one message. Raises `Disconnected`, with a time-out on `connection` when nothing moves for as long."""
    try:
        if len(message) < 65536:
            return connection.sendall(_LENGTH.pack(len(message)) + message)
        connection.sendall(_LENGTH.pack(len(message)))
        view = memoryview(message)
        while view:
            view = view[connection.send(view) :]
    except OSError as error:
        raise Disconnected(str(error)) from error


def receive(
    connection: socket.socket, limit: int = MAX_MESSAGE, *, stall: float | None = None, within: float | None = None
) -> bytes | bytearray:
    """Receive one message of `limit` bytes at most. Raises `Disconnected`.

    Once it has begun, something has to come every `stall` seconds, which is left as the connection's time-out; or else
    all of it has to come `within` so many seconds.
    """
    deadline = None if within is None else clock.monotonic() + within
    (size,) = _LENGTH.unpack(_exactly(connection, _LENGTH.size, deadline))
    if size > limit:
        raise Oversized(f"a message of {size} bytes, where {limit} is the most")
    if stall is not None:
        connection.settimeout(stall)
    return _exactly(connection, size, deadline)


def _exactly(connection: socket.socket, size: int, deadline: float | None) -> bytearray:
    data = bytearray(size)
    view = memoryview(data)
    try:
        while view:
            if deadline is not None:
                connection.settimeout(max(deadline - clock.monotonic(), 0.001))
            count = connection.recv_into(view)
            if not count:
                raise Disconnected("the other side closed the connection")
            view = view[count:]
    except OSError as error:
        raise Disconnected(str(error)) from error
    return data


def _same(value: Any) -> Any:
    return value


class Access(IntEnum):
    """What a token allows, each all that those before it do."""

    READ = 1
    WRITE = 2
    #: What only the owner of the catalog's files may: who reads the lock file.
    OWNER = 3


@dataclass(frozen=True, slots=True)
class Operation:
    """Something that a catalog can be asked: the types of its arguments, by name, and of its answer."""

    arguments: Mapping[str, Any]
    answer: Any
    #: What goes over the socket in place of the answer, and back.
    give: Callable[[Any], Any] = _same
    take: Callable[[Any], Any] = _same
    #: The same for arguments that msgpack has no form for.
    give_arguments: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict[str, Any])
    take_arguments: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict[str, Any])
    #: What it takes to ask for it.
    access: Access = Access.READ


def _listed(values: Any) -> Any:
    return None if values is None else list(values)


def _int64s(data: bytes) -> "NDArray[int64]":
    import numpy as np

    return np.frombuffer(data, np.int64)


def _uint64s(data: bytes) -> "NDArray[uint64]":
    import numpy as np

    return np.frombuffer(data, np.uint64)


def _give_seqs(seqs: Any) -> bytes:
    import numpy as np

    return np.ascontiguousarray(seqs, np.int64).tobytes()


#: By asset: keys, seqs, fingerprints, version_hashes, inputs_hashes; then all keys and fingerprints.
_PartitionCells = tuple[dict[AssetKey, tuple[bytes, bytes, bytes, bytes, bytes]], list[str | None], list[Fingerprint]]


def _give_partition_cells(cells: PartitionCells) -> Any:
    arrays = {
        str(key): [
            array.tobytes() for array in (one.keys, one.seqs, one.fingerprints, one.version_hashes, one.inputs_hashes)
        ]
        for key, one in cells.by_asset.items()
    }
    return arrays, cells.keys.tolist(), list(cells.fingerprints)


def _take_partition_cells(data: _PartitionCells) -> PartitionCells:
    import numpy as np

    by_asset, keys, fingerprints = data
    texts = np.empty(len(keys), object)
    texts[:] = keys
    return PartitionCells(
        {
            key: AssetCells(
                np.frombuffer(numbers, np.int32),
                _int64s(seqs),
                np.frombuffer(prints, np.int32),
                _uint64s(versions),
                _uint64s(inputs),
            )
            for key, (numbers, seqs, prints, versions, inputs) in by_asset.items()
        },
        texts,
        fingerprints,
    )


def _give_input_hashes(found: Mapping[AssetKey, tuple[Any, Any]]) -> Any:
    return {str(key): (places.tobytes(), hashes.tobytes()) for key, (places, hashes) in found.items()}


def _take_input_hashes(data: Mapping[AssetKey, tuple[bytes, bytes]]) -> Any:
    return {key: (_int64s(places), _uint64s(hashes)) for key, (places, hashes) in data.items()}


#: Values of SQL that are not msgpack's own: how they are told apart, and what they are made of.
_TAGGED: tuple[tuple[str, type, Callable[[Any], Any], Callable[[Any], Any]], ...] = (
    ("datetime", datetime, datetime.isoformat, datetime.fromisoformat),
    ("date", date, date.isoformat, date.fromisoformat),
    ("time", time, time.isoformat, time.fromisoformat),
    ("timedelta", timedelta, lambda d: (d.days, d.seconds, d.microseconds), lambda parts: timedelta(*parts)),
    ("decimal", Decimal, str, Decimal),
    ("uuid", UUID, str, UUID),
    ("tuple", tuple, lambda values: [give_value(one) for one in values], lambda v: tuple(map(take_value, v))),
    ("list", list, lambda values: [give_value(one) for one in values], lambda v: [take_value(one) for one in v]),
    (
        "dict",
        dict,
        lambda items: [[give_value(key), give_value(value)] for key, value in items.items()],
        lambda pairs: {take_value(key): take_value(value) for key, value in pairs},
    ),
)
_GIVE: Mapping[Any, tuple[str, Callable[[Any], Any]]] = {kind: (tag, give) for tag, kind, give, _ in _TAGGED}
_TAKE = {tag: take for tag, _, _, take in _TAGGED}
_INT64 = range(-(1 << 63), 1 << 63)


def give_value(value: Any) -> Any:
    """A value of SQL as msgpack can hold it without losing what it is: itself, or its tag and its parts."""
    if value is None or isinstance(value, bool | float | str | bytes):
        return value
    if isinstance(value, int):
        return value if value in _INT64 else ["int", str(value)]
    tag, give = _GIVE.get(type(value), (None, str))
    return give(value) if tag is None else [tag, give(value)]


def take_value(data: Any) -> Any:
    """The inverse of `give_value`."""
    if not isinstance(data, list):
        return data
    tag, parts = cast(Sequence[Any], data)
    return int(parts) if tag == "int" else _TAKE[tag](parts)


def _give_values(values: Sequence[Any]) -> list[Any]:
    return [give_value(value) for value in values]


def _take_values(data: Sequence[Any]) -> list[Any]:
    return [take_value(one) for one in data]


def _give_result(result: QueryResult) -> Any:
    return result.columns, result.types, [_give_values(row) for row in result.rows]


def _take_result(data: tuple[tuple[str, ...], tuple[str, ...], list[list[Any]]]) -> QueryResult:
    columns, types, rows = data
    return QueryResult(columns, types, [tuple(map(take_value, row)) for row in rows])


_ASSETS = {"assets": list[AssetKey] | None}
_LISTED_ASSETS = {"assets": _listed}
_PARTITIONS = list[str] | None

OPERATIONS: Mapping[str, Operation] = {
    "append": Operation(
        {"events": str, "request": str | None, "by": str | None, "lapsed": list[str]},
        int,
        take_arguments={"events": journal.read},
        access=Access.WRITE,
    ),
    "applied": Operation({"request": str}, int | None),
    "cells": Operation(_ASSETS, dict[Cell, CellState], give_arguments=_LISTED_ASSETS),
    "partition_cells": Operation(
        _ASSETS, _PartitionCells, _give_partition_cells, _take_partition_cells, give_arguments=_LISTED_ASSETS
    ),
    "cell_states": Operation({"asset": AssetKey, "partitions": list[str]}, dict[str, CellState]),
    "input_hashes": Operation(
        {"asset": AssetKey, "seqs": bytes},
        dict[AssetKey, tuple[bytes, bytes]],
        _give_input_hashes,
        _take_input_hashes,
        {"seqs": _give_seqs},
        {"seqs": _int64s},
    ),
    "failures": Operation({}, dict[Cell, Failure]),
    "current": Operation({"asset": AssetKey, "partition": str | None}, Materialization | None),
    "currents": Operation({"asset": AssetKey, "partitions": _PARTITIONS}, dict[str | None, Materialization]),
    "dynamic_partition_names": Operation({}, list[str]),
    "dynamic_count": Operation({"name": str}, int),
    "dynamic_indexes": Operation({"name": str, "keys": list[str]}, list[int]),
    "dynamic_slice": Operation({"name": str, "start": int, "stop": int}, list[str]),
    "latest": Operation(_ASSETS, dict[AssetKey, Materialization], give_arguments=_LISTED_ASSETS),
    "materialization": Operation({"version_id": str}, Materialization | None),
    "materializations": Operation(
        {"asset": AssetKey, "partition": str | None, "limit": int, "before": str | None}, list[Materialization]
    ),
    "runs": Operation(
        {
            "statuses": list[RunStatus] | None,
            "asset": AssetKey | None,
            "job": str | None,
            "backfill": str | None,
            "root": str | None,
            "limit": int,
            "before": str | None,
        },
        list[Run],
        give_arguments={"statuses": _listed},
    ),
    "last_event": Operation({}, int),
    "claims": Operation({}, int),
    "slots": Operation({}, list[Slot]),
    "backfills": Operation(
        {"statuses": list[BackfillStatus] | None, "limit": int, "before": str | None},
        list[Backfill],
        give_arguments={"statuses": _listed},
    ),
    "backfill": Operation({"backfill_id": str}, Backfill | None),
    "backfill_cells": Operation({"backfill_id": str}, dict[AssetKey, BackfillCells]),
    "run": Operation({"run_id": str}, Run | None),
    "automations": Operation({}, dict[str, Automation]),
    "facts": Operation(
        {"topic": FactTopic, "names": list[str] | None, "limit": int | None},
        dict[str, Fact],
        give_arguments={"names": _listed},
    ),
    "ticks": Operation(
        {"names": list[str] | None, "statuses": list[TickStatus] | None, "before": datetime | None, "limit": int},
        list[Tick],
        give_arguments={"names": _listed, "statuses": _listed},
    ),
    "requested": Operation({"name": str, "keys": list[str]}, dict[str, str], give_arguments={"keys": list}),
    "daemon": Operation({}, Daemon | None),
    "condition_states": Operation({"common": bool}, list[ConditionState]),
    "steps": Operation({"run_id": str}, list[Step]),
    "planned": Operation({"run_id": str}, list[PlannedCell]),
    "events": Operation(
        {
            "asset": AssetKey | None,
            "partition": str | None,
            "run_id": str | None,
            "step_key": str | None,
            "kinds": list[str] | None,
            "after": int,
            "limit": int | None,
        },
        list[LoggedEvent],
        give_arguments={"kinds": _listed},
    ),
    "definitions": Operation({}, dict[AssetKey, AssetDefinition]),
    "definition_history": Operation({"asset": AssetKey | None, "limit": int}, list[DefinitionChange]),
    "query": Operation(
        {"sql": str, "parameters": list[Any], "max_rows": int | None},
        tuple[tuple[str, ...], tuple[str, ...], list[list[Any]]],
        _give_result,
        _take_result,
        {"parameters": _give_values},
        {"parameters": _take_values},
    ),
    # A table or view as the bytes of a Parquet file.
    "table": Operation({"name": str}, bytes),
    "backup": Operation({"target": Path, "replace": bool}, Backup, access=Access.OWNER),
    # Only to an owner that serves nobody: let go of the catalog, so that a keeper can have it.
    "make_way": Operation({}, None, access=Access.OWNER),
}


_encoder = msgspec.msgpack.Encoder(enc_hook=plain)
_request = msgspec.msgpack.Decoder(tuple[str, dict[str, msgspec.Raw]])
_answer = msgspec.msgpack.Decoder(tuple[bool, msgspec.Raw])


@functools.cache
def _decoder(kind: Any) -> "msgspec.msgpack.Decoder[Any]":
    return msgspec.msgpack.Decoder(kind, dec_hook=revive)


#: Lone surrogates have no UTF-8 form, so nothing that is stored has any.
_SURROGATE = re.compile("[\ud800-\udfff]")
#: What stands for one in a question: no character, in no key, and so just as well not to be found (Unicode, 23.7).
_NOTHING = "\uffff"


def write_greeting(max_request: int) -> bytes:
    """What a client that may come in is told first."""
    return _encoder.encode((True, (VERSION, max_request)))


def read_greeting(message: bytes | bytearray) -> int:
    """The bytes that a request may have. Raises why the client may not come in, and `Disconnected` for nonsense."""
    version, max_request = _value(message, tuple[int, int])
    if version != VERSION:
        raise CatalogError(
            f"Who has the catalog speaks version {version} of Headwater's protocol, and this process {VERSION}.",
            remedy="Use the same Headwater on both sides; a keeper leaves a few seconds after its last client.",
        )
    return max_request


def write_request(name: str, arguments: Mapping[str, Any]) -> bytes:
    """A request."""
    give = OPERATIONS[name].give_arguments
    given = {key: give.get(key, _same)(value) for key, value in arguments.items()}
    try:
        return _encoder.encode((name, given))
    except UnicodeEncodeError:
        return _encoder.encode((name, map_text(given, lambda text: _SURROGATE.sub(_NOTHING, str(text)))))


def read_request(message: bytes | bytearray) -> tuple[str, dict[str, Any]]:
    """The operation and its arguments. Raises `Disconnected` for anything but a request."""
    try:
        name, given = _request.decode(message)
        operation = OPERATIONS[name]
        arguments = {key: _decoder(operation.arguments[key]).decode(value) for key, value in given.items()}
    except (msgspec.MsgspecError, LookupError, UnicodeError) as error:
        raise Disconnected(f"no request: {error}") from error
    return name, {key: operation.take_arguments.get(key, _same)(value) for key, value in arguments.items()}


def write_answer(name: str, answer: Any) -> bytes:
    """The answer to an operation."""
    return _encoder.encode((True, OPERATIONS[name].give(answer)))


def write_error(error: BaseException) -> bytes:
    """The error in place of an answer; one that is not ours says that it is a fault of the program."""
    if not isinstance(error, HeadwaterError):
        error = CatalogError(
            f"The process that keeps the catalog failed: {type(error).__name__}: {error}",
            remedy="Please report it, with logs/keeper.log of the home.",
        )
    more = {name: value for name, value in vars(error).items() if name not in ("message", "remedy")}
    return _encoder.encode((False, (type(error).__name__, error.message, error.remedy, more)))


def read_answer(name: str, message: bytes | bytearray) -> Any:
    """What the operation gave, or raises the error that it raised; `Disconnected` for anything else."""
    operation = OPERATIONS[name]
    return operation.take(_value(message, operation.answer))


def _value(message: bytes | bytearray, kind: Any) -> Any:
    try:
        good, value = _answer.decode(message)
        if good:
            return _decoder(kind).decode(value)
        name, text, remedy, more = _decoder(tuple[str, str, str, dict[str, Any]]).decode(value)
    except msgspec.MsgspecError as error:
        raise Disconnected(f"no answer: {error}") from error
    raise _error(name, text, remedy, more)


def _error(kind: str, message: str, remedy: str, more: Mapping[str, Any]) -> HeadwaterError:
    """An error as it was on the other side."""
    found = getattr(errors, kind, None)
    if not (isinstance(found, type) and issubclass(found, HeadwaterError)):
        return UsageError(message, remedy=remedy)
    # Not through its constructor, which makes the message of its own arguments.
    error = found.__new__(found, message)
    for name, value in {**more, "message": message, "remedy": remedy}.items():
        setattr(error, name, value)
    return error
