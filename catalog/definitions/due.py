"""At which instants cron schedules in a zone are due, and which of those that were missed still count. Pure.

The clock is what `TimeWindowPartitionsDefinition` says: a time that clocks skip is due once, at the end of the gap; one
that they show twice the first time; with `*` in minutes or hours, every hour that passes counts.
"""

import functools
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: How late an instant may be evaluated that is not to be caught up with: who ticks every minute may miss one.
FRESH = timedelta(minutes=2)


class CatchUp(StrEnum):
    """Which of the instants that nobody evaluated in time are evaluated late."""

    #: The last one.
    LATEST = "latest"
    #: All, up to a number.
    ALL = "all"
    #: None.
    NONE = "none"


def instants(crons: Sequence[str], zone: str, after: datetime, until: datetime) -> list[datetime]:
    """When one of the crons is due, later than `after` and no later than `until`: in order, each once, in UTC."""
    import numpy as np

    from headwater.catalog.partitions.series import int64s, ticks_of
    from headwater.catalog.partitions.zone import horizon_for

    edges = int64s([_seconds(after) + 1, _seconds(until) + 1])
    if edges[1] <= edges[0]:
        return []
    found = [int64s([])]
    for cron in crons:
        ticks = ticks_of(cron, zone, horizon_for(until.year))
        first, end = ticks.rank(edges)
        found.append(ticks.instants(np.arange(first, end, dtype=np.int64)))
    return [_EPOCH + timedelta(seconds=second) for second in np.unique(np.concatenate(found)).tolist()]


@functools.lru_cache(maxsize=10_000)
def next_after(crons: tuple[str, ...], zone: str, after: datetime) -> datetime | None:
    """The first instant later than `after`; None where none comes any more. Remembered, as it is asked all the time."""
    return next(iter(upcoming(crons, zone, after, 1)), None)


def last_instant(cron: str, zone: str, after: datetime, until: datetime) -> datetime | None:
    """The last one that is later than `after` and no later than `until`."""
    import numpy as np

    from headwater.catalog.partitions.series import int64s, ticks_of
    from headwater.catalog.partitions.zone import horizon_for

    ticks = ticks_of(cron, zone, horizon_for(until.year))
    first, end = ticks.rank(int64s([_seconds(after) + 1, _seconds(until) + 1])).tolist()
    if end <= first:
        return None
    return _EPOCH + timedelta(seconds=int(ticks.instants(np.array([end - 1], np.int64))[0]))


def upcoming(crons: Sequence[str], zone: str, after: datetime, count: int) -> list[datetime]:
    """The first `count` instants later than `after`."""
    from headwater.catalog.partitions.series import int64s, ticks_of
    from headwater.catalog.partitions.zone import horizon_for

    found: set[datetime] = set()
    for cron in crons:
        ticks = ticks_of(cron, zone, horizon_for(after.year))
        first = int(ticks.rank(int64s([_seconds(after) + 1]))[0])
        numbers = int64s(range(first, first + count))
        found |= {_EPOCH + timedelta(seconds=second) for second in ticks.instants(numbers).tolist()}
    return sorted(found)[:count]


def caught_up(
    due: Sequence[datetime], policy: CatchUp, limit: int, now: datetime
) -> tuple[Sequence[datetime], Sequence[datetime]]:
    """Which of the instants that are due are dropped, and which are evaluated: the latter are the last ones."""
    if policy is CatchUp.NONE:
        kept = 1 if due and now - due[-1] <= FRESH else 0
    else:
        kept = 1 if policy is CatchUp.LATEST else limit
    at = max(0, len(due) - kept)
    return due[:at], due[at:]


def _seconds(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(seconds=1)
