"""Backfills that go on after their process died."""

from collections.abc import Mapping
from typing import Any

from headwater.catalog.definitions.definitions import Definitions
from headwater.catalog.instance import Instance
from headwater.catalog.processes import this_host
from headwater.catalog.records import Backfill, BackfillStatus, RunStatus
from headwater.materialize.backfill_signals import goes_on
from headwater.materialize.launching import Started, spawn


def resume_dead(instance: Instance, definitions: Definitions, origin: Mapping[str, Any], started: Started) -> list[str]:
    """Start processes that go on with backfills whose own one was killed here. Returns their identifiers.

    One whose last run was stopped by somebody waits until somebody resumes it. Raises `StorageError`.
    """
    found = [
        one.backfill_id
        for one in instance.catalog.backfills(statuses=[BackfillStatus.STARTED])
        if started.may_start(one.backfill_id) and _is_dead(instance, one)
        if all(target.asset in definitions.graph for target in one.targets)
    ]
    for backfill_id in found:
        words = ["backfill", "resume", backfill_id, "--json"]
        started.add(backfill_id, spawn(instance.home, origin, words, backfill_id))
    return found


def _is_dead(instance: Instance, one: Backfill) -> bool:
    if one.host != this_host() or goes_on(instance.home, one):
        return False
    last = instance.catalog.runs(backfill=one.backfill_id, limit=1)
    return not (last and last[0].status is RunStatus.CANCELED)
