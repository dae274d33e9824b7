"""Ticks that are not kept any longer, as `retention` in the settings says."""

from datetime import timedelta

from headwater.catalog.definitions.definitions import Definitions
from headwater.catalog.events import TicksPurged
from headwater.catalog.instance import Instance
from headwater.catalog.records import TickStatus

#: Ticks of one kind that are deleted at a time.
MANY = 1_000


def purge(instance: Instance, definitions: Definitions) -> bool:
    """Have the catalog forget ticks that are too old, some of them; returns whether there are more.

    What they requested by which run key is remembered.
    """
    now = instance.clock.now()
    kept = instance.settings.retention.schedule.purge_after_days
    names = tuple(instance.catalog.automations())
    days = {TickStatus.SUCCESS: kept.success, TickStatus.SKIPPED: kept.skipped, TickStatus.FAILURE: kept.failure}
    purges = [
        TicksPurged(time=now, names=names, status=status, before=now - timedelta(days=limit), limit=MANY)
        for status, limit in days.items()
        if limit >= 0
    ]
    purges = [one for one in purges if instance.catalog.ticks(statuses=[one.status], before=one.before, limit=1)]
    if purges:
        instance.catalog.append(purges)
    return bool(purges)
