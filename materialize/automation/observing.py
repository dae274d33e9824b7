"""Sources that are observed by themselves: a tick each time that an interval is over, and one run for all that are due.

Instants are whole intervals since 1970, decided as those of schedules are. What was missed is not caught up with: who
looks late sees what there is now.
"""

import contextlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from weakref import WeakKeyDictionary

from headwater.catalog.definitions.definitions import Definitions
from headwater.catalog.definitions.selection import AssetSelection, coerce_selection
from headwater.catalog.errors import ConflictError, UnknownAssetError
from headwater.catalog.events import Event, RunQueued, TickEnded
from headwater.catalog.ids import new_id
from headwater.catalog.instance import Instance
from headwater.catalog.keys import AssetKey
from headwater.catalog.processes import this_host, user_name
from headwater.catalog.records import OPEN, Automation, TickStatus
from headwater.materialize.api import run_request
from headwater.materialize.automation.standing import moved
from headwater.materialize.executors.fit import IN_PROCESS
from headwater.materialize.partition_choice import PartitionChoice

#: Tag of requested runs.
OBSERVATION = "headwater/observation"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_BEFORE = timedelta(microseconds=1)
#: Until when nothing is due, as far as this process knows.
_next: WeakKeyDictionary[Definitions, WeakKeyDictionary[Instance, datetime]] = WeakKeyDictionary()


def tick(
    instance: Instance, definitions: Definitions, origin: Mapping[str, Any], now: datetime | None = None
) -> list[TickEnded]:
    """Put a run into the queue that observes every source that is due by `now`."""
    moment = now or instance.clock.now()
    waits = _next.setdefault(definitions, WeakKeyDictionary())
    if _EPOCH <= moment < waits.get(instance, _EPOCH):
        return []
    intervals = {
        spec.key: timedelta(minutes=spec.observe.auto_observe_interval_minutes)
        for spec in definitions.specs
        if spec.observe is not None and spec.observe.auto_observe_interval_minutes is not None
    }
    if not intervals:
        waits[instance] = datetime.max.replace(tzinfo=UTC)
        return []
    last = {key: _EPOCH + (moment - _EPOCH) // every * every for key, every in intervals.items()}
    known = instance.catalog.automations()
    due = {key: at for key, at in last.items() if (one := known.get(name_of(key))) is None or one.until < at}
    done = _request(instance, definitions, origin, due, known) if due else []
    waits[instance] = min(at + intervals[key] for key, at in last.items())
    return done


def name_of(key: AssetKey) -> str:
    """What the ticks of a source are called."""
    return f"observe:{key}"


def _request(
    instance: Instance,
    definitions: Definitions,
    origin: Mapping[str, Any],
    due: Mapping[AssetKey, datetime],
    known: Mapping[str, Automation],
) -> list[TickEnded]:
    now = instance.clock.now()
    busy: set[AssetKey] = set()
    for run in instance.catalog.runs(statuses=list(OPEN), limit=1000):
        with contextlib.suppress(UnknownAssetError):  # of definitions that were others then
            if run.request.get("observe"):
                busy |= coerce_selection(run.selection).resolve(definitions.observations.graph)
    chosen = [key for key in due if key not in busy]
    events: list[Event] = []
    run_ids: tuple[str, ...] = ()
    if chosen:
        text = str(AssetSelection.assets(*chosen))
        request = run_request(
            origin,
            text,
            PartitionChoice(all=True),
            {},
            job=None,
            force=True,
            upstream=False,
            only_missing=False,
            executor=IN_PROCESS,
            max_workers=None,
            on_conflict="queue",
            observe=True,
        )
        run = RunQueued(
            time=now,
            run_id=new_id(now),
            selection=text,
            tags={OBSERVATION: "true"},
            user=user_name(),
            host=this_host(),
            request=request,
        )
        events.append(run)
        run_ids = (run.run_id,)
    ticks: list[TickEnded] = []
    for key, at in due.items():
        before = known.get(name_of(key))
        until = at - _BEFORE if before is None else before.until
        if before is None:
            events.append(moved(instance, name_of(key), None, None, until))
        how: dict[str, Any] = {"status": TickStatus.SUCCESS, "run_ids": run_ids}
        if key in busy:
            how = {"status": TickStatus.SKIPPED, "reason": "the observation before is not over yet"}
        ticks.append(TickEnded(time=now, name=name_of(key), at=at, after=until, **how))
    try:
        instance.catalog.append([*events, *ticks])
    except ConflictError:  # somebody else observes; what they leave is due again in the next round
        return []
    return ticks
