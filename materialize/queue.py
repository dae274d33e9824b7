"""Who is next: which of the runs that wait may begin, by limits, priority and age.

There is no table of places that somebody would have to give back: what counts against a limit is a run that is not
over and whose process is there. Whoever waits looks for itself, and takes its turn by compare-and-set.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from headwater.catalog.errors import QueuedError
from headwater.catalog.instance import Instance
from headwater.catalog.records import BUSY, OPEN, Run, RunStatus
from headwater.catalog.settings import Settings, TagConcurrencyLimit
from headwater.catalog.storage.base import CatalogReader
from headwater.materialize.reader import is_interrupted

#: Tags that say how urgent a run is: the higher the number, the sooner.
PRIORITY = ("headwater/priority", "dagster/priority")
#: Runs that are not over at a time are fewer.
MAX_RUNS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How many runs go on at a time."""

    #: -1 is no limit.
    runs: int = -1
    tags: tuple[TagConcurrencyLimit, ...] = ()
    #: How many runs of each pool, of the pools that have a limit.
    pools: "PoolLimits | None" = None

    @staticmethod
    def of(settings: Settings) -> "Limits":
        """Those of an instance; none where its runs start at once."""
        pools = PoolLimits.of(settings)
        runs_of_pools = pools if settings.concurrency.pools.granularity == "run" else None
        if settings.run_coordinator == "default":
            return Limits(pools=runs_of_pools)
        queue = settings.run_queue
        return Limits(runs=queue.max_concurrent_runs, tags=queue.tag_concurrency_limits, pools=runs_of_pools)


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolLimits:
    """How many places each pool has."""

    default: int | None = None
    named: Mapping[str, int] = field(default_factory=dict[str, int])

    @staticmethod
    def of(settings: Settings) -> "PoolLimits":
        """Those of an instance."""
        pools = settings.concurrency.pools
        return PoolLimits(default=pools.default_limit, named=pools.limits)

    def of_pool(self, pool: str) -> int | None:
        """How many places a pool has; None for as many as one wants."""
        return self.named.get(pool, self.default)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a run cannot begin."""

    reason: str
    #: Whether waiting does not help.
    is_final: bool = False


def priority(tags: Mapping[str, str]) -> int:
    """How urgent a run with these tags is; 0 where they do not say, or say nonsense."""
    for name in PRIORITY:
        try:
            return int(tags[name])
        except (KeyError, ValueError):
            continue
    return 0


def in_order(queued: Iterable[Run]) -> list[Run]:
    """Runs as their turn comes: the most urgent ones first, and of these the oldest."""
    return sorted(queued, key=lambda run: (-priority(run.tags), run.created, run.run_id))


def refusals(
    queued: Iterable[Run], busy: Iterable[Run], limits: Limits, full: Collection[str] = ()
) -> dict[str, Refusal]:
    """Why each of the runs that have to wait does, by identifier. The other ones may begin, all of them together.

    One that has to wait keeps none from beginning that comes after it and needs something else. `full` are the pools
    in which no step finds a place: a run whose first steps are all in these waits.
    """
    count = _Count(limits)
    for run in busy:
        count.add(run)
    found: dict[str, Refusal] = {}
    for run in in_order(queued):
        refusal = count.refusal(run) or _without_place(run, full)
        if refusal is None:
            count.add(run)
        else:
            found[run.run_id] = refusal
    return found


def _without_place(run: Run, full: Collection[str]) -> Refusal | None:
    first: Sequence[str] = run.request.get("first_pools") or ()
    if first and all(pool in full for pool in first):
        return Refusal(f"{_pools(first)} no place for its first steps")
    return None


def _pools(names: Sequence[str]) -> str:
    listed = ", ".join(f"'{name}'" for name in names)
    return f"Pool {listed} has" if len(names) == 1 else f"Pools {listed} have"


class _Count:
    """How many runs count against each limit."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._runs = 0
        self._tags: Counter[tuple[int, str]] = Counter()
        self._pools: Counter[str] = Counter()

    def add(self, run: Run) -> None:
        self._runs += 1
        self._tags.update((at, group) for at, group, _ in self._matching(run))
        self._pools.update(run.pools)

    def refusal(self, run: Run) -> Refusal | None:
        """The first limit that a run would exceed."""
        if 0 <= self._limits.runs <= self._runs:
            return _refusal(self._limits.runs, "run", "run_queue.max_concurrent_runs")
        for at, group, text in self._matching(run):
            limit = self._limits.tags[at].limit
            if self._tags[at, group] >= limit:
                return _refusal(limit, f"run with {text}", "run_queue.tag_concurrency_limits")
        for pool in run.pools if self._limits.pools else ():
            assert self._limits.pools is not None
            limit = self._limits.pools.of_pool(pool)
            if limit is not None and self._pools[pool] >= limit:
                return _refusal(limit, f"run of pool '{pool}'", "concurrency.pools")
        return None

    def _matching(self, run: Run) -> list[tuple[int, str, str]]:
        """The limits by tag that a run counts against: which one, the group within it, and both in words."""
        found: list[tuple[int, str, str]] = []
        for at, limit in enumerate(self._limits.tags):
            value = run.tags.get(limit.key)
            if value is None or limit.value not in (None, value):
                continue
            one = limit.value is not None or limit.per_unique_value
            text = f"tag {limit.key}={value}" if one else f"tag {limit.key}"
            found.append((at, value if one else "", text))
        return found


def _refusal(limit: int, what: str, setting: str) -> Refusal:
    if limit == 0:
        return Refusal(f"No {what} may begin: {setting} is 0", is_final=True)
    noun, _, rest = what.partition(" ")
    return Refusal(f"{limit} {noun}{'' if limit == 1 else 's'} {rest}".rstrip() + f" at a time, says {setting}")


def open_runs(catalog: CatalogReader) -> list[Run]:
    """The runs that are not over and have not lost their process, oldest first."""
    found = catalog.runs(statuses=list(OPEN), limit=MAX_RUNS)
    return [run for run in reversed(found) if not is_interrupted(run)]


def check_turn(instance: Instance, run: Run, others: Sequence[Run]) -> None:
    """Raise `QueuedError` where a run cannot begin now. `others` are what `open_runs` gives.

    One whose turn has come, and that is STARTING, may.
    """
    if any(other.run_id == run.run_id and other.status is not RunStatus.QUEUED for other in others):
        return
    busy = [other for other in others if other.status in BUSY]
    working = {other.run_id for other in busy}
    queued = [
        other
        for other in others
        if other.status is RunStatus.QUEUED and other.pid and other.behind not in working and other.run_id != run.run_id
    ]
    settings = instance.settings
    refusal = refusals([*queued, run], busy, Limits.of(settings), _full_pools(instance, run, busy)).get(run.run_id)
    if refusal is not None:
        remedy = "headwater runs lists what goes on and waits; headwater instance show the limits."
        raise QueuedError(f"{refusal.reason}.", remedy=remedy, is_final=refusal.is_final)


def _full_pools(instance: Instance, run: Run, busy: Sequence[Run]) -> set[str]:
    """The pools of a run's first steps in which it would find no place, and is to wait for that in the queue."""
    settings = instance.settings
    rule, pools = settings.run_queue.block_op_concurrency_limited_runs, settings.concurrency.pools
    first: Sequence[str] = run.request.get("first_pools") or ()
    if not first or not rule.enabled or pools.granularity == "run":
        return set()
    limits, held = PoolLimits.of(settings), slots_held(instance.catalog, busy)
    buffer = max(rule.op_concurrency_slot_buffer, pools.op_granularity_run_buffer)  # two names of one thing
    full: set[str] = set()
    for pool in first:
        limit = limits.of_pool(pool)
        if limit is not None and held[pool] >= limit + buffer:
            full.add(pool)
    return full


def slots_held(catalog: CatalogReader, alive: Iterable[Run]) -> Counter[str]:
    """How many places in each pool are held by runs that are there."""
    runs = {run.run_id for run in alive}
    return Counter(slot.pool for slot in catalog.slots() if slot.run_id in runs)


def waiting_run(
    run_id: str, *, tags: Mapping[str, str], pools: Sequence[str], first_pools: Sequence[str], moment: datetime
) -> Run:
    """A run that nobody has heard of yet, for `check_turn`."""
    return Run(
        run_id=run_id,
        status=RunStatus.QUEUED,
        queued=moment,
        tags=tags,
        pools=tuple(pools),
        request={"first_pools": list(first_pools)},
    )
