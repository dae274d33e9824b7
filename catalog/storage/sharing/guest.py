"""One who asks another process that has the catalog, on this host or another."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from headwater.catalog.events import Event
from headwater.catalog.storage.base import QueryResult
from headwater.catalog.storage.sharing.client import Client, Listener


class Guest:
    """Another process has the catalog, which is asked; what a query needs of it lies in `folder` meanwhile."""

    def __init__(self, listener: Listener, folder: Path | None) -> None:
        self._folder = folder
        self._client = Client(listener)
        self._client.greet()

    def ask(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """See `Backend.ask`."""
        return self._client.ask(name, arguments)

    def append(self, events: Sequence[Event], **conditions: Any) -> int:
        """See `Backend.append`."""
        from headwater.catalog.storage import journal
        from headwater.catalog.storage.admission import check
        from headwater.catalog.storage.text import storable

        for event in events:
            check(event)
        try:
            text = journal.write(events)
        except UnicodeEncodeError:
            text = journal.write([storable(event) for event in events])
        return self._client.ask("append", {"events": text, **conditions})

    def query(self, sql: str, parameters: Sequence[Any], relations: Mapping[str, Any]) -> QueryResult:
        """A query of the catalog alone is the other side's to answer; files of data are read in this process."""
        if not relations:
            return self._client.ask("query", {"sql": sql, "parameters": parameters})
        from headwater.catalog.storage.sharing.files import query_with_files

        return query_with_files(
            sql, parameters, relations, lambda name: self._client.ask("table", {"name": name}), self._folder
        )

    def forget(self) -> None:
        """See `Backend.forget`. A client sees by itself that it was forked."""

    def close(self) -> None:
        """See `Backend.close`."""
        self._client.close()
