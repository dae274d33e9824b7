"""Ticks that are not kept any longer, as `retention` in the settings says."""

from collections.abc import Iterator
from datetime import timedelta

from headwater.catalog.definitions.definitions import Definitions
from headwater.catalog.events import TicksPurged
from headwater.catalog.instance import Instance
from headwater.catalog.records import TickStatus
from headwater.catalog.settings import PurgeAfterDays
from headwater.materialize.automation.conditions.tick import NAME as CONDITIONS

#: Ticks of one kind that are deleted at a time.
MANY = 1_000


def purge(instance: Instance, definitions: Definitions) -> bool:
    """Have the catalog forget ticks that are too old, some of them; returns whether there are more.

    What they requested by which run key is remembered.
    """
    now = instance.clock.now()
    purges: list[TicksPurged] = []
    for names, kept in _kept(instance, definitions):
        days = {TickStatus.SUCCESS: kept.success, TickStatus.SKIPPED: kept.skipped, TickStatus.FAILURE: kept.failure}
        for status, limit in days.items():
            before = now - timedelta(days=limit) if limit >= 0 else now
            if limit >= 0 and names and instance.catalog.ticks(names, statuses=[status], before=before, limit=1):
                purges.append(TicksPurged(time=now, names=names, status=status, before=before, limit=MANY))
    if purges:
        instance.catalog.append(purges)
    return bool(purges)


def _kept(instance: Instance, definitions: Definitions) -> Iterator[tuple[tuple[str, ...], PurgeAfterDays]]:
    """For how long ticks are kept, and whose; those of a name that is not defined any more are a schedule's."""
    names = instance.catalog.automations().keys()
    retention = instance.settings.retention
    conditions = {CONDITIONS} & names
    sensors = definitions.sensors.keys() & names
    yield tuple(sensors), retention.sensor.purge_after_days
    yield tuple(conditions), retention.auto_materialize.purge_after_days
    yield tuple(names - sensors - conditions), retention.schedule.purge_after_days
