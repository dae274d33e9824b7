"""Of what somebody is to be told: what the log says since each alert policy last looked.

An alert is called by its policy and the number of the event that it is about, and is recorded together with how far
the policy has come: of several who look at the same time, one records it. What is told of is what is final: a run that
is tried again is not, and of ticks that fail one after another the first is.
"""

import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from weakref import WeakKeyDictionary

from headwater.catalog.definitions.alerts import AlertEvent, AlertPolicy
from headwater.catalog.definitions.definitions import Definitions
from headwater.catalog.errors import ConflictError, UsageError
from headwater.catalog.events import EventKind, FactChanged
from headwater.catalog.instance import Instance
from headwater.catalog.keys import AssetKey
from headwater.catalog.printable import printable, printable_line
from headwater.catalog.records import Fact, FactTopic, LoggedEvent, Run, StepStatus, TickStatus
from headwater.materialize.automation import facts
from headwater.materialize.execution.redaction import Redaction
from headwater.materialize.retries import group, is_to_be_retried

#: How often a process looks.
EVERY = timedelta(seconds=5)
#: Alerts of a policy that are recorded at once; more are next time.
_AT_ONCE = 50
#: Assets that an alert names, and ticks that are looked through for the one before.
_NAMED, _TICKS = 100, 1000
_MAX_REASON = 4000
_KINDS: Mapping[AlertEvent, tuple[EventKind, ...]] = {
    AlertEvent.RUN_FAILURE: (EventKind.RUN_FAILURE, EventKind.RUN_INTERRUPTED),
    AlertEvent.BACKFILL_FAILURE: (EventKind.BACKFILL_FAILURE,),
    AlertEvent.TICK_FAILURE: (EventKind.TICK_FAILURE,),
    AlertEvent.STALE: (EventKind.STALENESS_CHANGED,),
    AlertEvent.FRESHNESS_WARN: (EventKind.FRESHNESS_CHANGED,),
    AlertEvent.FRESHNESS_FAIL: (EventKind.FRESHNESS_CHANGED,),
}
_looked: WeakKeyDictionary[Instance, datetime] = WeakKeyDictionary()


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """What there is to tell."""

    event: AlertEvent
    #: The asset, run, backfill, schedule or sensor.
    subject: str
    title: str
    reason: str = ""
    run_id: str | None = None
    job: str | None = None
    assets: tuple[AssetKey, ...] = ()

    def describe(self, policy: AlertPolicy, time: datetime, redaction: Redaction) -> dict[str, Any]:
        """What targets are given: plain JSON data, in which nothing moves a cursor or is a secret."""
        words = {
            "policy": policy.name,
            "event": str(self.event),
            "subject": printable_line(redaction.text(self.subject), 500),
            "title": printable_line(redaction.text(self.title), 200),
            "reason": printable(redaction.text(self.reason[:_MAX_REASON])),
            "run_id": self.run_id or "",
            "job": self.job or "",
            "time": time.isoformat(timespec="seconds"),
        }
        text = string.Template(policy.message).safe_substitute(words).strip()
        return {**words, "text": text, "assets": [str(key) for key in self.assets[:_NAMED]]}


def is_time(instance: Instance, definitions: Definitions) -> bool:
    """Whether this process is to look again; it then has."""
    moment = instance.clock.now()
    last = _looked.get(instance)
    if not definitions.alerts or (last is not None and timedelta() <= moment - last < EVERY):
        return False
    _looked[instance] = moment
    return True


def raise_alerts(instance: Instance, definitions: Definitions) -> list[FactChanged]:
    """Record the alerts of what happened since each policy looked last, and return the events of that.

    A policy that is seen for the first time tells of nothing that happened before.
    """
    cursors = _cursors(instance, definitions.alerts)
    if not cursors:
        return []
    kinds = {kind for name in cursors for event in definitions.alerts[name].events for kind in _KINDS[event]}
    first = min(fact.value["after"] for fact in cursors.values())
    events = instance.catalog.events(kinds=sorted(kinds), after=first)
    found: list[FactChanged] = []
    for name, cursor in cursors.items() if events else ():
        policy = definitions.alerts[name]
        own = {kind for event in policy.events for kind in _KINDS[event]}
        mine = [event for event in events if event.seq > cursor.value["after"] and event.kind in own]
        found += _raise(_Looking(instance, definitions, policy), cursor, mine)
    return found


def _cursors(instance: Instance, policies: Mapping[str, AlertPolicy]) -> dict[str, Fact]:
    """How far each policy has come; one that is new, to where it was introduced."""
    known = instance.catalog.facts(FactTopic.ALERTING, list(policies))
    now = instance.clock.now()
    topic = FactTopic.ALERTING
    new = [FactChanged(time=now, topic=topic, name=name, value={"after": None}) for name in policies.keys() - known]
    if new:
        facts.append(instance, new)
        known = instance.catalog.facts(topic, list(policies))
    beginning = [fact for fact in known.values() if fact.value["after"] is None]
    if beginning:
        # The log knows at which event that was, whoever did it, and was perhaps killed since.
        introduced = {
            event.data["name"]: event.seq
            for event in instance.catalog.events(kinds=[EventKind.ALERTING_CHANGED], limit=None)
            if event.data["value"]["after"] is None
        }
        moves = [_moved(instance, fact, introduced[fact.name]) for fact in beginning]
        facts.append(instance, moves)
        known = instance.catalog.facts(topic, list(policies))
    return {name: fact for name, fact in known.items() if fact.value["after"] is not None}


def _moved(instance: Instance, cursor: Fact, after: int) -> FactChanged:
    now = instance.clock.now()
    return FactChanged(
        time=now, topic=FactTopic.ALERTING, name=cursor.name, value={"after": after}, before=cursor.value
    )


def _raise(looking: "_Looking", cursor: Fact, events: Sequence[LoggedEvent]) -> list[FactChanged]:
    instance, policy = looking.instance, looking.policy
    new: list[FactChanged] = []
    after = None
    redaction = Redaction([*policy.references, *instance.settings.references], instance.settings.secrets)
    now = instance.clock.now()
    for event in events:
        alert = looking.alert(event)
        after = event.seq
        if alert is None:
            continue
        described = alert.describe(policy, event.time, redaction)
        for number, target in enumerate(policy.targets):
            value = {
                "status": "PENDING",
                "attempts": 0,
                "next": now.isoformat(),
                "error": None,
                "target": number,
                "to": target.describe(),
                "alert": described,
            }
            name = f"{policy.name}:{event.seq}:{number}"
            new.append(FactChanged(time=now, topic=FactTopic.ALERT, name=name, value=value, message=described["title"]))
        if len(new) >= _AT_ONCE:
            break
    if after is None:
        return []
    try:
        instance.catalog.append([_moved(instance, cursor, after), *new])
    except ConflictError:  # somebody else looked as well, and was faster
        return []
    return new


@dataclass(frozen=True, slots=True)
class _Looking:
    """What a policy makes of events."""

    instance: Instance
    definitions: Definitions
    policy: AlertPolicy

    def alert(self, event: LoggedEvent) -> Alert | None:
        """What is to be told of an event; None for nothing."""
        if event.data.get("late"):
            return None
        match event.kind:
            case EventKind.RUN_FAILURE | EventKind.RUN_INTERRUPTED:
                return self._of_run(event)
            case EventKind.BACKFILL_FAILURE:
                return self._of_backfill(event)
            case EventKind.TICK_FAILURE:
                return self._of_tick(event)
            case _:
                return self._of_asset(event)

    def _of_run(self, event: LoggedEvent) -> Alert | None:
        catalog = self.instance.catalog
        run = None if event.run_id is None else catalog.run(event.run_id)
        if run is None or run.backfill_id is not None or not self._is_mine(run.job, run.tags):
            return None
        if group(catalog, run)[-1].run_id != run.run_id or self._is_to_be_retried(run):
            return None
        steps = catalog.steps(run.run_id)
        failed = [cell.asset for step in steps for cell in step.cells if cell.status is StepStatus.FAILURE]
        assets = tuple(dict.fromkeys(failed or [cell.asset for step in steps for cell in step.cells]))
        if not self._selects(assets):
            return None
        error = run.error or next((step.error for step in steps if step.error is not None), None)
        what = run.job or run.selection or "everything"
        words = "was broken off" if event.kind == EventKind.RUN_INTERRUPTED else "failed"
        return Alert(
            event=AlertEvent.RUN_FAILURE,
            subject=run.run_id,
            title=f"The run of {what} {words}",
            reason=_because(error and f"{error.kind}: {error.message}", assets, failed, run),
            run_id=run.run_id,
            job=run.job,
            assets=assets,
        )

    def _is_to_be_retried(self, run: Run) -> bool:
        try:
            return is_to_be_retried(self.instance, run)
        except UsageError:  # its tags make no sense, so nobody tries it again
            return False

    def _of_backfill(self, event: LoggedEvent) -> Alert | None:
        backfill = self.instance.catalog.backfill(event.data["backfill_id"])
        if backfill is None or not self._is_mine(None, backfill.tags):
            return None
        assets = tuple(target.asset for target in backfill.targets)
        if not self._selects(assets):
            return None
        error = backfill.error
        return Alert(
            event=AlertEvent.BACKFILL_FAILURE,
            subject=backfill.backfill_id,
            title=f"The backfill of {backfill.title or backfill.selection or 'everything'} failed",
            reason=f"{error.kind}: {error.message}" if error else f"{backfill.failed:,} of {backfill.total:,} failed",
            assets=assets,
        )

    def _of_tick(self, event: LoggedEvent) -> Alert | None:
        name = str(event.data["name"])
        schedule = self.definitions.schedules.get(name)
        job = None if schedule is None else schedule.job_name
        if self.policy.jobs and job not in self.policy.jobs:
            return None
        at = datetime.fromisoformat(event.data["at"])
        before = [tick for tick in self.instance.catalog.ticks([name], limit=_TICKS) if tick.at < at]
        if before and before[0].status is TickStatus.FAILURE:
            return None
        error: Mapping[str, str] = event.data.get("error") or {}
        return Alert(
            event=AlertEvent.TICK_FAILURE,
            subject=name,
            title=f"{name} could not be evaluated",
            reason=f"{error.get('kind', '')}: {error.get('message', '')}",
            job=job,
        )

    def _of_asset(self, event: LoggedEvent) -> Alert | None:
        value: Mapping[str, Any] = event.data["value"]
        before: Mapping[str, Any] = event.data.get("before") or {}
        state, asset = value["state"], event.asset
        if asset is None or not self._selects([asset]):
            return None
        if event.kind == EventKind.STALENESS_CHANGED:
            if state != "STALE" or before.get("state") != "FRESH":
                return None
            return Alert(event=AlertEvent.STALE, subject=str(asset), title=f"{asset} is stale", assets=(asset,))
        if f"freshness_{state.lower()}" not in self.policy.events:
            return None
        age = f"It was last updated at {value['updated']}." if value.get("updated") else ""
        words = "too old" if state == "FAIL" else "growing old"
        return Alert(
            event=AlertEvent(f"freshness_{state.lower()}"),
            subject=str(asset),
            title=f"{asset} is {words}: its freshness is {state}",
            reason=age,
            assets=(asset,),
        )

    def _is_mine(self, job: str | None, tags: Mapping[str, str]) -> bool:
        policy = self.policy
        return (not policy.jobs or job in policy.jobs) and all(
            name in tags and value in ("*", tags[name]) for name, value in policy.tags.items()
        )

    def _selects(self, assets: Iterable[AssetKey]) -> bool:
        selection = self.policy.selection
        return selection is None or not selection.resolve(self.definitions.graph).isdisjoint(assets)


def _because(error: str | None, assets: Sequence[AssetKey], failed: Sequence[AssetKey], run: Run) -> str:
    lines = [error] if error else []
    if failed:
        lines.append(f"Failed: {', '.join(map(str, assets[:10]))}{' and more' if len(assets) > 10 else ''}")
    return "\n".join([*lines, f"headwater run show {run.run_id}"])
