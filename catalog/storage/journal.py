"""Events as text and back: what the journal keeps until they are in the tables.

A text is a JSON list of `[class name, fields]`, asset keys in their printed form, times in ISO 8601; what is
committed at once is a JSON list of `[request, such a list]`.
"""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import msgspec

from headwater.catalog.events import (
    AutomationMoved,
    BackfillEnded,
    BackfillResumed,
    BackfillStarted,
    ConditionsEvaluated,
    DaemonStarted,
    DaemonStopped,
    DefinitionsChanged,
    DynamicPartitionsChanged,
    Event,
    FactChanged,
    LogMessage,
    RunEnded,
    RunMoved,
    RunQueued,
    RunStarted,
    SlotClaimed,
    StepEnded,
    StepRetried,
    StepStarted,
    TickEnded,
    TicksPurged,
)
from headwater.catalog.keys import AssetKey

_KINDS: Mapping[str, type[Event]] = {
    kind.__name__: kind
    for kind in (
        RunQueued,
        RunMoved,
        RunStarted,
        RunEnded,
        SlotClaimed,
        StepStarted,
        StepRetried,
        StepEnded,
        LogMessage,
        DefinitionsChanged,
        DynamicPartitionsChanged,
        BackfillStarted,
        BackfillResumed,
        BackfillEnded,
        AutomationMoved,
        TickEnded,
        TicksPurged,
        DaemonStarted,
        DaemonStopped,
        FactChanged,
        ConditionsEvaluated,
    )
}


def plain(value: Any) -> Any:
    """What msgspec writes in place of a value that it does not know."""
    return dict(cast(Mapping[Any, Any], value)) if isinstance(value, Mapping) else str(value)


def revive(kind: type, value: Any) -> Any:
    """The inverse of `plain`."""
    if kind in (AssetKey, Path):
        return kind(value)
    raise NotImplementedError(kind)


_encoder = msgspec.json.Encoder(enc_hook=plain)
_Entries = list[tuple[str, msgspec.Raw]]
_entries = msgspec.json.Decoder(_Entries)
_appends = msgspec.json.Decoder(list[tuple[str | None, _Entries]])

#: Events, and the name of the request to append them, if it has one.
Append = tuple[str | None, Sequence[Event]]


def write(events: Sequence[Event]) -> str:
    """`events` as text. Raises `UnicodeEncodeError` for text that has no UTF-8 form (see `storage.text`)."""
    return _encoder.encode(_named(events)).decode()


def read(text: str) -> list[Event]:
    """The events that `write` wrote. Raises `msgspec.ValidationError` for anything else."""
    return _revived(_entries.decode(text))


def write_appends(appends: Sequence[Append]) -> str:
    """What is committed at once, as text. Raises as `write` does."""
    return _encoder.encode([(request, _named(events)) for request, events in appends]).decode()


def read_appends(text: str) -> list[Append]:
    """What `write_appends` wrote. Raises as `read` does."""
    return [(request, _revived(entries)) for request, entries in _appends.decode(text)]


def _named(events: Sequence[Event]) -> list[tuple[str, Event]]:
    return [(type(event).__name__, event) for event in events]


def _revived(entries: _Entries) -> list[Event]:
    return [_decoder(name).decode(fields) for name, fields in entries]


@functools.cache
def _decoder(name: str) -> "msgspec.json.Decoder[Event]":
    return msgspec.json.Decoder(_KINDS[name], dec_hook=revive)
