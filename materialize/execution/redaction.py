"""Keeping secrets out of the record: a value that was declared as an `EnvVar` is shown by the variable's name.

It catches what leaks by accident, such as a password in an exception's message, in the forms that accidents have:
as it is, as `repr` writes it, as an address quotes it. Who takes a secret apart before printing it still prints it.
"""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from urllib.parse import quote

from headwater.catalog.config import EnvVar
from headwater.catalog.events import BackfillEnded, Event, LogMessage, RunEnded, StepEnded, StepRetried
from headwater.catalog.storage.text import map_text

#: A shorter value says too little to be a secret, and occurs in too many texts that have nothing to do with it.
SHORTEST = 4
_CHUNK = 1 << 20


class Redaction:
    """Replaces the values of `references` wherever they occur, and `secrets` by what is shown for each."""

    def __init__(self, references: Iterable[EnvVar], secrets: Mapping[str, str] = MappingProxyType({})) -> None:
        #: Each value, and what is shown in its place.
        self.secrets: dict[str, str] = {}
        values = [(one.get_value() or "", one.reference) for one in references if one.kind is str]
        for value, shown in (*values, *secrets.items()):
            if len(value) >= SHORTEST:
                self.secrets.setdefault(value, shown)
        self._names: dict[str, str] = {}
        for value, shown in self.secrets.items():
            for form in (value, repr(value)[1:-1], quote(value, safe="")):
                self._names.setdefault(form, shown)
        # The longest first: one value may begin with another.
        forms = sorted(self._names, key=len, reverse=True)
        self._forms = re.compile("|".join(map(re.escape, forms)))
        self._bytes = re.compile(b"|".join(re.escape(form.encode("utf-8", "surrogateescape")) for form in forms))
        #: Bytes at the end of a text that may be the beginning of a value.
        self.overlap = max((len(form.encode("utf-8", "surrogateescape")) for form in forms), default=1) - 1

    def __bool__(self) -> bool:
        return bool(self._names)

    def text(self, text: str) -> str:
        """`text` with `env:NAME` in place of each value."""
        if not self._names or type(text) is not str:  # enumerations and keys are no free text
            return text
        return self._forms.sub(lambda match: self._names[match.group()], text)

    def event(self, event: Event) -> Event:
        """`event` without values in what user code said: errors, logged lines, metadata, tags."""
        if not self._names:
            return event
        match event:
            case LogMessage():
                return replace(event, message=self.text(event.message))
            case StepEnded():
                made = tuple(
                    replace(one, metadata=map_text(one.metadata, self.text), tags=map_text(one.tags, self.text))
                    for one in event.materializations
                )
                return replace(event, error=map_text(event.error, self.text), materializations=made)
            case StepRetried() | RunEnded() | BackfillEnded():
                return replace(event, error=map_text(event.error, self.text))
            case _:
                return event

    def bytes(self, data: bytes) -> bytes:
        """`data` with as many asterisks in place of each value."""
        return self._bytes.sub(lambda match: b"*" * len(match.group()), data) if self._names else data

    def blot(self, path: Path, start: int, size: int) -> None:
        """Overwrite each value in a range of a file with as many asterisks, so that nothing moves."""
        if not self._names:
            return
        file = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            for at in range(start, start + size, _CHUNK):
                length = min(_CHUNK + self.overlap, start + size - at)
                for match in self._bytes.finditer(os.pread(file, length, at)):
                    os.pwrite(file, b"*" * len(match.group()), at + match.start())
        finally:
            os.close(file)
