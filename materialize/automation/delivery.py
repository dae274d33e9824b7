"""Delivering alerts: at least once, a bounded number of times, in threads, so that nobody waits for a target.

Whoever delivers one says so first, for as long as a lease lasts, and says afterwards what came of it: of several
processes one delivers it, and after a kill another one does.
"""

import contextlib
import threading
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from headwater.catalog.definitions.alerts import AlertPolicy, Target
from headwater.catalog.definitions.definitions import Definitions
from headwater.catalog.errors import ConflictError, HeadwaterError
from headwater.catalog.events import FactChanged
from headwater.catalog.instance import Instance
from headwater.catalog.printable import printable_line
from headwater.catalog.records import Fact, FactTopic
from headwater.materialize.automation.targets import send
from headwater.materialize.execution.redaction import Redaction

#: How long whoever delivers an alert has it for himself: longer than any target may take.
LEASE = timedelta(minutes=5)
#: How long to wait after each try that failed; after the last one nobody tries again.
PAUSES = (timedelta(seconds=10), timedelta(minutes=1), timedelta(minutes=5), timedelta(minutes=15))
#: Deliveries of this process at a time. One that outstays its lease does not count: it cannot keep others waiting.
_AT_ONCE = 8
#: How many of the alerts that changed last are looked at.
_LOOKED_AT = 1000
_MAX_ERROR = 500

_under_way: dict[threading.Thread, float] = {}


def deliver(instance: Instance, definitions: Definitions) -> list[threading.Thread]:
    """Begin to deliver every alert whose time has come, in a thread each; the threads may be waited for."""
    now = instance.clock.now()
    started: list[threading.Thread] = []
    open_ones = [
        fact
        for fact in instance.catalog.facts(FactTopic.ALERT, limit=_LOOKED_AT).values()
        if fact.value["status"] in ("PENDING", "SENDING") and datetime.fromisoformat(fact.value["next"]) <= now
    ]
    for fact in reversed(open_ones):  # the oldest first
        if _places(instance) <= 0:
            break
        policy = definitions.alerts.get(fact.value["alert"]["policy"])
        number: int = fact.value["target"]
        if policy is None or number >= len(policy.targets):
            continue  # of another project with this home, or gone: nobody knows whom to tell
        claimed = _change(
            instance,
            fact.name,
            fact.value,
            {"status": "SENDING", "attempts": fact.value["attempts"] + 1, "next": (now + LEASE).isoformat()},
        )
        if claimed is not None:
            started.append(_start(instance, policy, policy.targets[number], fact, claimed))
    return started


def _places(instance: Instance) -> int:
    moment = instance.clock.monotonic()
    for thread, began in list(_under_way.items()):
        if not thread.is_alive() or moment - began > LEASE.total_seconds():
            _under_way.pop(thread, None)
    return _AT_ONCE - len(_under_way)


def _start(
    instance: Instance, policy: AlertPolicy, target: Target, fact: Fact, claimed: Mapping[str, Any]
) -> threading.Thread:
    thread = threading.Thread(
        target=_deliver, args=(instance, policy, target, fact.name, claimed), name=f"alert-{fact.name}", daemon=True
    )
    _under_way[thread] = instance.clock.monotonic()
    thread.start()
    return thread


def _deliver(instance: Instance, policy: AlertPolicy, target: Target, name: str, claimed: Mapping[str, Any]) -> None:
    """What a thread does. Whatever goes wrong is recorded; where even that fails, the lease ends and others try."""
    error = attempt(instance, policy, target, {**claimed["alert"], "id": name})
    changes: dict[str, Any] = {"status": "SENT", "error": None}
    if error is not None:
        pauses = PAUSES[claimed["attempts"] - 1 :]
        changes = {"status": "PENDING" if pauses else "FAILED", "error": error}
        if pauses:
            changes["next"] = (instance.clock.now() + pauses[0]).isoformat()
    with contextlib.suppress(Exception):  # the catalog may be closed by now
        _change(instance, name, claimed, changes)


def attempt(instance: Instance, policy: AlertPolicy, target: Target, alert: Mapping[str, Any]) -> str | None:
    """Tell one target, once. Returns why that failed, without any secret; None where it did not."""
    try:
        send(target, alert)
    except Exception as error:
        redaction = Redaction([*policy.references, *instance.settings.references], instance.settings.secrets)
        text = error.message if isinstance(error, HeadwaterError) else f"{type(error).__name__}: {error}"
        return printable_line(redaction.text(text), _MAX_ERROR)
    return None


def _change(
    instance: Instance, name: str, before: Mapping[str, Any], changes: Mapping[str, Any]
) -> Mapping[str, Any] | None:
    """Record what became of an alert, and return that; None where somebody else recorded something meanwhile."""
    value = {**before, **changes}
    said = "" if value["status"] == "SENDING" else value["error"] or ""
    event = FactChanged(
        time=instance.clock.now(),
        topic=FactTopic.ALERT,
        name=name,
        value=value,
        before=before,
        message=f"{value['status']}: {said}" if said else str(value["status"]),
    )
    try:
        instance.catalog.append([event])
    except ConflictError:
        return None
    return value
