"""Freshness policies: how old an asset's data may become, and what follows from when it was last updated. Pure.

Freshness is about time, staleness about what data was made from: an asset may be either without the other.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, ClassVar, cast

from headwater.catalog.errors import DefinitionError
from headwater.catalog.partitions.cron import normalize_cron
from headwater.catalog.partitions.zone import canonical_zone, horizon_for
from headwater.catalog.printable import printable_line

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: No window is shorter.
MIN_WINDOW = timedelta(minutes=1)
#: No window is longer: times stay within what clocks can show.
MAX_WINDOW = timedelta(days=100 * 366)


class FreshnessState(StrEnum):
    """How old an asset's data is, by its policy."""

    PASS = "PASS"
    WARN = "WARN"
    FAIL = "FAIL"
    #: It was never made.
    UNKNOWN = "UNKNOWN"
    #: It has no policy.
    NOT_APPLICABLE = "NOT_APPLICABLE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Freshness:
    """How old an asset's data is at a moment."""

    state: FreshnessState
    #: When it was last updated.
    updated: datetime | None = None
    #: From when on it is WARN, where its policy knows that, and FAIL, unless it is updated before; or was, since then.
    warns_at: datetime | None = None
    fails_at: datetime | None = None


#: The freshness of an asset without a policy.
NOT_APPLICABLE = Freshness(state=FreshnessState.NOT_APPLICABLE)


@dataclass(frozen=True, slots=True)
class FreshnessPolicy:
    """How old an asset's data may become. Make one with `time_window` or `cron`."""

    kind: ClassVar[str] = ""

    @staticmethod
    def time_window(fail_window: timedelta, warn_window: timedelta | None = None) -> "TimeWindowFreshnessPolicy":
        """The data fails when it was not updated for `fail_window`, and warns after `warn_window`.

        Both are at least a minute, and the second is the shorter one. Raises `DefinitionError`.
        """
        return TimeWindowFreshnessPolicy(fail_window, warn_window)

    @staticmethod
    def cron(deadline_cron: str, lower_bound_delta: timedelta, timezone: str = "UTC") -> "CronFreshnessPolicy":
        """At each time of `deadline_cron` the data fails unless it was updated within `lower_bound_delta` before.

        The times are those on the clocks of `timezone`. `lower_bound_delta` is at least a minute and no longer than
        the shortest time between two deadlines. Raises `DefinitionError`, `CronError` and `TimeZoneError`.
        """
        return CronFreshnessPolicy(deadline_cron, lower_bound_delta, timezone)

    def warns_at(self, updated: datetime) -> datetime | None:
        """When data of this age begins to be WARN; None where it never is."""
        return None

    def fails_at(self, updated: datetime) -> datetime:
        """When data of this age begins to be FAIL."""
        raise NotImplementedError

    def evaluate(self, updated: datetime | None, now: datetime) -> Freshness:
        """How fresh data is that was last updated then, or never."""
        if updated is None:
            return Freshness(state=FreshnessState.UNKNOWN)
        warns_at, fails_at = self.warns_at(updated), self.fails_at(updated)
        state = FreshnessState.PASS
        if now >= fails_at:
            state = FreshnessState.FAIL
        elif warns_at is not None and now >= warns_at:
            state = FreshnessState.WARN
        return Freshness(state=state, updated=updated, warns_at=warns_at, fails_at=fails_at)

    def describe(self) -> str:
        """In words."""
        raise NotImplementedError

    def to_json(self) -> dict[str, Any]:
        """Plain data, which `policy_from_json` reads."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class TimeWindowFreshnessPolicy(FreshnessPolicy):
    """See `FreshnessPolicy.time_window`."""

    kind: ClassVar[str] = "time_window"

    fail_window: timedelta
    warn_window: timedelta | None = None

    def __post_init__(self) -> None:
        _check_window("fail_window", self.fail_window)
        if self.warn_window is not None:
            _check_window("warn_window", self.warn_window)
            if self.warn_window >= self.fail_window:
                raise DefinitionError(
                    f"A freshness policy warns after {self.warn_window} and fails after {self.fail_window}.",
                    remedy="Give a warn_window that is shorter than the fail_window.",
                )

    def warns_at(self, updated: datetime) -> datetime | None:
        """See `FreshnessPolicy.warns_at`."""
        return None if self.warn_window is None else updated + self.warn_window

    def fails_at(self, updated: datetime) -> datetime:
        """See `FreshnessPolicy.fails_at`."""
        return updated + self.fail_window

    def describe(self) -> str:
        """See `FreshnessPolicy.describe`."""
        warns = "" if self.warn_window is None else f", warns after {self.warn_window}"
        return f"fails when not updated for {self.fail_window}{warns}"

    def to_json(self) -> dict[str, Any]:
        """See `FreshnessPolicy.to_json`."""
        data = {"kind": self.kind, "fail_window": self.fail_window.total_seconds()}
        return data if self.warn_window is None else {**data, "warn_window": self.warn_window.total_seconds()}


@dataclass(frozen=True, slots=True)
class CronFreshnessPolicy(FreshnessPolicy):
    """See `FreshnessPolicy.cron`."""

    kind: ClassVar[str] = "cron"

    deadline_cron: str
    lower_bound_delta: timedelta
    timezone: str = "UTC"

    def __post_init__(self) -> None:
        object.__setattr__(self, "deadline_cron", normalize_cron(self.deadline_cron))
        object.__setattr__(self, "timezone", canonical_zone(self.timezone))
        _check_window("lower_bound_delta", self.lower_bound_delta)
        shortest = _shortest_gap(self.deadline_cron)
        if self.lower_bound_delta > shortest:
            raise DefinitionError(
                f"A freshness policy looks back {self.lower_bound_delta} from each deadline of '{self.deadline_cron}', "
                f"and some are {shortest} apart.",
                remedy="Give a lower_bound_delta that ends where the deadline before it was.",
            )

    def fails_at(self, updated: datetime) -> datetime:
        """The first deadline that an update at this time is too early for."""
        from headwater.catalog.partitions.series import int64s, ticks_of

        latest = updated + self.lower_bound_delta
        ticks = ticks_of(self.deadline_cron, self.timezone, horizon_for(latest.year))
        after = (latest - _EPOCH) // timedelta(seconds=1) + 1
        return _EPOCH + timedelta(seconds=int(ticks.instants(ticks.rank(int64s([after])))[0]))

    def describe(self) -> str:
        """See `FreshnessPolicy.describe`."""
        return (
            f"fails at '{self.deadline_cron}' {self.timezone} unless updated in the {self.lower_bound_delta} before it"
        )

    def to_json(self) -> dict[str, Any]:
        """See `FreshnessPolicy.to_json`."""
        return {
            "kind": self.kind,
            "deadline_cron": self.deadline_cron,
            "lower_bound_delta": self.lower_bound_delta.total_seconds(),
            "timezone": self.timezone,
        }


def policy_from_json(data: Mapping[str, Any]) -> FreshnessPolicy:
    """What `FreshnessPolicy.to_json` wrote."""
    if data["kind"] == CronFreshnessPolicy.kind:
        delta = timedelta(seconds=data["lower_bound_delta"])
        return CronFreshnessPolicy(data["deadline_cron"], delta, data["timezone"])
    warn = data.get("warn_window")
    return TimeWindowFreshnessPolicy(
        timedelta(seconds=data["fail_window"]), None if warn is None else timedelta(seconds=warn)
    )


def one_policy(given: object) -> FreshnessPolicy:
    """What was given as a freshness policy. Raises `DefinitionError` for what is none."""
    if isinstance(given, TimeWindowFreshnessPolicy | CronFreshnessPolicy):
        return given
    raise DefinitionError(
        f"the freshness_policy is of the type {type(given).__name__}.",
        remedy="Write FreshnessPolicy.time_window(timedelta(hours=24)) or FreshnessPolicy.cron('0 9 * * *', …).",
    )


def _check_window(name: str, window: object) -> None:
    if not isinstance(window, timedelta) or not MIN_WINDOW <= window <= MAX_WINDOW:
        raise DefinitionError(
            f"A freshness policy with {name}={printable_line(repr(cast(object, window)), 60)}.",
            remedy=f"Give a timedelta of {MIN_WINDOW} to {MAX_WINDOW.days} days.",
        )


def _shortest_gap(cron: str) -> timedelta:
    """The shortest time between deadlines, on clocks that never change. Raises `CronError` where none ever comes."""
    import numpy as np

    from headwater.catalog.partitions.series import int64s, ticks_of

    ticks = ticks_of(cron, "UTC")
    first = int(ticks.rank(int64s([0]))[0])
    # More than any day has minutes: every gap of a day comes in the first days, and every gap of days in these years.
    instants = ticks.instants(np.arange(first, first + 3000, dtype=np.int64))
    return timedelta(seconds=int(np.diff(instants).min()))
