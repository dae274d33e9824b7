"""Steps and their results as bytes, for another process that has loaded the same definitions.

Whatever the definitions know is left out: what dimensions a partition key has, which run it is. Times go as
microseconds since 1970 with the name of their zone, as a moment alone would come back without its summer time.
"""

import functools
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar, cast
from zoneinfo import ZoneInfo

import msgspec

from headwater.catalog.config import EnvVar
from headwater.catalog.definitions.definitions import Definitions
from headwater.catalog.keys import AssetKey
from headwater.catalog.metadata import MetadataValue
from headwater.catalog.partitions.definition import PartitionsDefinition, TimeWindow
from headwater.catalog.records import Cell, ErrorRecord, LogSlice, PlannedCell, Pointer
from headwater.catalog.settings import PythonLogs
from headwater.catalog.storage.text import storable
from headwater.materialize.code_location import CodeLocation
from headwater.materialize.execution.context import RunInfo
from headwater.materialize.execution.partitions import StepPartitions
from headwater.materialize.execution.step import CellFailure, StepFailure, StepInput, StepOutput, StepResult, StepSpec

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What a worker is told first: all that the steps of a run have in common."""

    location: CodeLocation
    #: Where modules are looked for.
    path: tuple[str, ...]
    run: RunInfo
    run_config: dict[str, Any]
    #: What the run computes: what resources are set up for.
    assets: tuple[AssetKey, ...]
    artifacts: str
    #: Where what is printed goes, if anywhere, and what the names of the worker's own files begin with.
    log_folder: str | None
    log_prefix: str
    python_logs: PythonLogs
    #: The values that are not to be shown, as bytes since they need be no text, and what is shown for each.
    secrets: dict[bytes, str]
    #: Steps after which it makes room for a new one, and bytes of memory beyond which it does so earlier.
    max_steps: int
    max_memory: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Windows:
    zone: str
    #: Start and end of each.
    bounds: list[tuple[int, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Partitions:
    keys: list[str]
    windows: _Windows | None
    contiguous: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cell:
    planned: PlannedCell
    previous: Pointer | None
    code_changed: bool
    provenance: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    key: str
    number: int
    attempt: int
    cells: list[_Cell]
    inputs: list[StepInput]
    partitions: _Partitions | None


class Began(msgspec.Struct, frozen=True, tag=True):
    """A worker has everything ready and begins with the step that it was given."""


class Logged(msgspec.Struct, frozen=True, tag=True):
    """User code logged a line."""

    step_key: str | None
    level: str
    message: str


@dataclass(frozen=True, slots=True)
class Failed:
    """Why a step, or some of it, failed."""

    error: ErrorRecord
    exit_code: int
    canceled: bool
    allow_retries: bool
    retry: tuple[int, float] | None


@dataclass(frozen=True, slots=True)
class Output:
    """What was made of one of a step's cells, which it names by its place."""

    cell: int
    pointer: Pointer | None
    data_version: str | None
    metadata: dict[str, MetadataValue]
    tags: dict[str, str]


class Done(msgspec.Struct, frozen=True, tag=True):
    """What became of a step."""

    seconds: float
    outputs: list[Output]
    failed: list[tuple[int, Failed]]
    failure: Failed | None
    logs: tuple[LogSlice, ...]
    #: The worker takes no further step.
    retires: bool
    #: The signal that stopped it, if one did.
    signal: int | None


class Torn(msgspec.Struct, frozen=True, tag=True):
    """A worker's resource could not be torn down."""

    message: str
    remedy: str


News = Began | Logged | Done | Torn


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    if isinstance(value, EnvVar):
        return {"env": value.name}
    if isinstance(value, str):  # a key is text that knows more
        return str(value)
    raise NotImplementedError(type(cast(object, value)))


def _revive(kind: type, value: Any) -> Any:
    if kind is AssetKey:
        return AssetKey(value)
    raise NotImplementedError(kind)


_encoder = msgspec.msgpack.Encoder(enc_hook=_plain)


@functools.cache
def _decoder(kind: Any) -> "msgspec.msgpack.Decoder[Any]":
    return msgspec.msgpack.Decoder(kind, dec_hook=_revive)


def to_bytes(message: Any) -> bytes:
    """A message. Text that has no UTF-8 form is written as the catalog keeps it."""
    try:
        return _encoder.encode(message)
    except UnicodeEncodeError:
        if isinstance(message, msgspec.Struct):
            fields = {name: storable(getattr(message, name)) for name in message.__struct_fields__}
            return _encoder.encode(msgspec.structs.replace(message, **fields))
        return _encoder.encode(storable(message))


_LENGTH = struct.Struct("=Q")


class Frames:
    """Takes bytes as they come and gives messages."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The messages that are complete with `data`."""
        self._bytes += data
        while len(self._bytes) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._bytes)
            end = _LENGTH.size + length
            if len(self._bytes) < end:
                return
            message = bytes(self._bytes[_LENGTH.size : end])
            del self._bytes[:end]
            yield message


def send(connection: socket.socket, message: bytes) -> None:
    """Send a message, all of it. Raises `OSError` when nobody is there to take it."""
    connection.sendall(_LENGTH.pack(len(message)) + message)


def receive(connection: socket.socket) -> Iterator[bytes]:
    """The messages that come, until the other side is gone."""
    frames = Frames()
    while True:
        try:
            data = connection.recv(1 << 16)
        except ConnectionError:
            return
        if not data:
            return
        yield from frames.feed(data)


Message = TypeVar("Message")


def from_bytes(data: bytes, kind: type[Message]) -> Message:
    """A message of this kind that `to_bytes` wrote."""
    return _decoder(kind).decode(data)


def setting_of(data: bytes) -> Setting:
    """The `Setting` that `to_bytes` wrote."""
    return _decoder(Setting).decode(data)


def news_of(data: bytes) -> News:
    """What a worker says."""
    return _decoder(News).decode(data)


def step_to_bytes(spec: StepSpec) -> bytes:
    """A step, without what `Setting` holds of it."""
    cells: list[_Cell] = []
    for planned in spec.cells:
        cell = Cell(planned.asset, planned.partition)
        previous, code_changed = spec.previous.get(cell, (None, True))
        provenance = dict(spec.provenance.get(cell, {}))
        cells.append(_Cell(planned=planned, previous=previous, code_changed=code_changed, provenance=provenance))
    partitions = spec.partitions
    step = _Step(
        key=spec.step_key,
        number=spec.number,
        attempt=spec.attempt,
        cells=cells,
        inputs=list(spec.inputs),
        partitions=partitions
        and _Partitions(
            keys=list(partitions.keys), windows=_windows(partitions.windows), contiguous=partitions.contiguous
        ),
    )
    return to_bytes(step)


def step_of(data: bytes, setting: Setting, definitions: Definitions) -> StepSpec:
    """The step that `step_to_bytes` wrote, with keys that know what the definitions do."""
    step: _Step = _decoder(_Step).decode(data)
    cells: list[PlannedCell] = []
    previous: dict[Cell, tuple[Pointer | None, bool]] = {}
    provenance: dict[Cell, Mapping[str, str]] = {}
    for one in step.cells:
        planned = one.planned
        if planned.partition is not None:
            (partition,) = _typed([planned.partition], definitions.partitions_of(planned.asset))
            planned = replace(planned, partition=partition)
        cells.append(planned)
        cell = Cell(planned.asset, planned.partition)
        previous[cell] = (one.previous, one.code_changed)
        provenance[cell] = one.provenance
    partitions = step.partitions
    return StepSpec(
        run=setting.run,
        step_key=step.key,
        number=step.number,
        attempt=step.attempt,
        cells=tuple(cells),
        inputs=tuple(_typed_input(one, definitions) for one in step.inputs),
        partitions=partitions
        and StepPartitions(
            keys=tuple(_typed(partitions.keys, definitions.partitions_of(cells[0].asset))),
            windows=None
            if partitions.windows is None
            else tuple(map(_window(partitions.windows.zone), partitions.windows.bounds)),
            contiguous=partitions.contiguous,
        ),
        previous=previous,
        provenance=provenance,
        run_config=setting.run_config,
    )


def done_of(result: StepResult, *, retires: bool, signal: int | None) -> Done:
    """What a worker says of a result."""
    places = {cell.version_id: place for place, cell in enumerate(result.spec.cells)}
    return Done(
        seconds=result.seconds,
        outputs=[
            Output(places[one.cell.version_id], one.pointer, one.data_version, dict(one.metadata), dict(one.tags))
            for one in result.outputs
        ],
        failed=[(places[one.cell.version_id], _failed(one.failure)) for one in result.failed],
        failure=None if result.failure is None else _failed(result.failure),
        logs=result.logs,
        retires=retires,
        signal=signal,
    )


def refusal(failure: StepFailure, signal: int | None) -> Done:
    """What a worker says of a step that it cannot even read."""
    return Done(seconds=0.0, outputs=[], failed=[], failure=_failed(failure), logs=(), retires=True, signal=signal)


def result_of(done: Done, spec: StepSpec) -> StepResult:
    """The result of the step `spec`, of which a worker said `done`."""
    return StepResult(
        spec=spec,
        seconds=done.seconds,
        outputs=tuple(
            StepOutput(
                cell=spec.cells[one.cell],
                pointer=one.pointer,
                data_version=one.data_version,
                metadata=one.metadata,
                tags=one.tags,
            )
            for one in done.outputs
        ),
        failed=tuple(CellFailure(cell=spec.cells[place], failure=_failure(one)) for place, one in done.failed),
        failure=None if done.failure is None else _failure(done.failure),
        logs=done.logs,
    )


def _failed(failure: StepFailure) -> Failed:
    return Failed(failure.error, failure.exit_code, failure.canceled, failure.allow_retries, failure.retry)


def _failure(failed: Failed) -> StepFailure:
    return StepFailure(
        error=failed.error,
        exit_code=failed.exit_code,
        canceled=failed.canceled,
        allow_retries=failed.allow_retries,
        retry=failed.retry,
    )


def _typed(keys: Sequence[str], definition: PartitionsDefinition | None) -> list[str]:
    """Partition keys; of several dimensions those that know them."""
    from headwater.catalog.partitions.multi import MultiPartitionsDefinition

    return [definition.key(key) for key in keys] if isinstance(definition, MultiPartitionsDefinition) else [*keys]


def _typed_input(one: StepInput, definitions: Definitions) -> StepInput:
    definition = definitions.partitions_of(one.asset)
    if definition is None:
        return one
    keys = _typed([part.partition or "" for part in one.parts], definition)
    parts = zip(one.parts, keys, strict=True)
    return replace(one, parts=tuple(replace(part, partition=part.partition and key) for part, key in parts))


def _windows(windows: Sequence[TimeWindow] | None) -> _Windows | None:
    if windows is None:
        return None
    zone = windows[0].start.tzinfo if windows else None
    bounds = [((one.start - _EPOCH) // _MICROSECOND, (one.end - _EPOCH) // _MICROSECOND) for one in windows]
    return _Windows(zone=zone.key if isinstance(zone, ZoneInfo) else "UTC", bounds=bounds)


def _window(name: str) -> Any:
    zone = ZoneInfo(name)

    def window(bounds: tuple[int, int]) -> TimeWindow:
        start, end = ((_EPOCH + at * _MICROSECOND).astimezone(zone) for at in bounds)
        return TimeWindow(start, end)

    return window
