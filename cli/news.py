"""What happens, in a line each, as it happens."""

from datetime import datetime

from headwater.catalog.instance import Instance
from headwater.catalog.printable import printable_line
from headwater.catalog.records import LoggedEvent
from headwater.cli import output

_RUN_ENDS = ("RUN_SUCCESS", "RUN_FAILURE", "RUN_CANCELED", "RUN_INTERRUPTED")
_TICKS = ("TICK_SUCCESS", "TICK_SKIPPED", "TICK_FAILURE")
_KINDS = (*_TICKS, "RUN_START", *_RUN_ENDS, "STEP_FAILURE", "BACKFILL_RESUME")


class News:
    """Says of an instance which ticks there are, and which runs start and end, from now on."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._seen: int | None = None
        #: Why those that were skipped last time were, by name.
        self._skipped: dict[str, str] = {}

    def tell(self, last: int) -> None:
        """Say what happened since it was asked before; `last` is the number of the catalog's last event."""
        before, self._seen = self._seen, last
        if before is None or before == last:
            return
        for event in self._instance.catalog.events(after=before, kinds=_KINDS, limit=None):
            if event.seq <= last and self._is_news(event):
                say(event.time, _line(event))

    def _is_news(self, event: LoggedEvent) -> bool:
        """A sensor that is skipped every half minute for the same reason is not."""
        if event.kind not in _TICKS:
            return True
        name = event.data["name"]
        if event.kind != "TICK_SKIPPED":
            self._skipped.pop(name, None)
            return True
        before, self._skipped[name] = self._skipped.get(name), event.message
        return before != event.message


def say(moment: datetime, text: str) -> None:
    """A line on stdout, at once, with the time of day here."""
    import sys

    output.say(f"{moment.astimezone():%H:%M:%S}  {text}")
    sys.stdout.flush()


def _line(event: LoggedEvent) -> str:
    run = f"run {event.run_id[:13]}" if event.run_id else ""
    said = printable_line(event.message, 160)
    if event.kind in _TICKS:
        made = output.counted(len(event.data.get("run_ids", ())), "run")
        what = made if event.kind == "TICK_SUCCESS" else said
        return f"tick  {event.data['name']} {event.data['at']}  {event.kind.removeprefix('TICK_')}  {what}"
    if event.kind == "RUN_START":
        return f"{run}  started  {said}"
    if event.kind == "STEP_FAILURE":
        return f"{run}  {event.step_key} failed  {said}"
    if event.kind == "BACKFILL_RESUME":
        return f"backfill {event.data['backfill_id'][:13]}  goes on"
    return f"{run}  {event.kind.removeprefix('RUN_')}  {said}".rstrip()
