"""When a step is tried again and how user code asks for it, how many partitions it computes, what it may take."""

import math
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from headwater.catalog.errors import DefinitionError, UserCodeError

#: Seconds, a year: no delay is longer, whatever the backoff.
MAX_DELAY = 365 * 86400
#: What fits the integers of the definitions cache and of every other reader.
MAX_BATCH = (1 << 53) - 1
_UNITS = {"": 1, "B": 1} | {
    unit: base**power
    for power, letter in enumerate("KMGT", 1)
    for unit, base in ((f"{letter}B", 1000), (f"{letter}IB", 1024))
}
_MEMORY = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*")


class Backoff(Enum):
    """How the delay grows from one attempt to the next."""

    LINEAR = "LINEAR"
    EXPONENTIAL = "EXPONENTIAL"


class Jitter(Enum):
    """How chance changes the delay, so that many retries do not come at once."""

    #: Anything from nothing to the whole delay.
    FULL = "FULL"
    #: The delay, more or less by up to itself.
    PLUS_MINUS = "PLUS_MINUS"


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often a failed step is tried again, and after how many seconds.

    The delay before retry n (from 1) is `delay` without backoff, `delay * n` with LINEAR and
    `delay * (2**n - 1)` with EXPONENTIAL backoff; then jitter. It is never longer than a year.
    """

    max_retries: int = 1
    #: Seconds.
    delay: float | None = None
    backoff: Backoff | None = None
    jitter: Jitter | None = None

    def __post_init__(self) -> None:
        if not (_is_count(self.max_retries) and (self.delay is None or _is_delay(self.delay))):
            raise DefinitionError(
                f"A retry policy with max_retries={self.max_retries!r} and delay={self.delay!r}.",
                remedy=f"Give max_retries >= 0, and a delay of 0 to {MAX_DELAY} seconds.",
            )
        for name, kind in (("backoff", Backoff), ("jitter", Jitter)):
            given = getattr(self, name)
            if given is not None and not isinstance(given, kind):
                raise DefinitionError(
                    f"A retry policy with {name}={given!r}.",
                    remedy=f"Give {' or '.join(f'{kind.__name__}.{one.name}' for one in kind)}.",
                )
        if self.delay is None and (self.backoff or self.jitter):
            raise DefinitionError(
                "A retry policy with backoff or jitter needs a delay to apply them to.",
                remedy="Add delay=…, in seconds.",
            )

    def calculate_delay(self, retry: int, rng: random.Random | None = None) -> float:
        """Seconds to wait before retry number `retry`, counted from 1."""
        delay = self.delay or 0.0
        if self.backoff is Backoff.LINEAR:
            delay *= retry
        elif self.backoff is Backoff.EXPONENTIAL:
            delay *= 2 ** min(retry, 64) - 1
        chance = (rng or random).random()
        if self.jitter is Jitter.FULL:
            delay *= chance
        elif self.jitter is Jitter.PLUS_MINUS:
            delay += delay * (2 * chance - 1)
        return min(delay, MAX_DELAY)


@dataclass(frozen=True, slots=True)
class BackfillPolicy:
    """How many partitions one step of a partitioned asset computes: one by default, `None` for all in one step.

    A step with several gives a value for each, and one that fails does so alone. Raises `DefinitionError`.
    """

    max_partitions_per_run: int | None = 1

    def __post_init__(self) -> None:
        given = self.max_partitions_per_run
        if given is not None and not (_is_count(given) and 1 <= given <= MAX_BATCH):
            raise DefinitionError(
                f"A backfill policy with max_partitions_per_run={given!r}.",
                remedy="Give a number from 1; or write BackfillPolicy.single_run(), for all partitions in one step.",
            )

    @staticmethod
    def single_run() -> "BackfillPolicy":
        """All partitions of a run in one step."""
        return BackfillPolicy(None)

    @staticmethod
    def multi_run(max_partitions_per_run: int = 1) -> "BackfillPolicy":
        """Steps of up to so many partitions."""
        return BackfillPolicy(max_partitions_per_run)


@dataclass(frozen=True, slots=True)
class StepLimits:
    """What one attempt at a step may take. They change nothing of what it makes, and so make nothing stale.

    Raises `DefinitionError`.
    """

    #: Seconds.
    timeout: float | None = None
    #: Bytes.
    memory: int | None = None

    def __post_init__(self) -> None:
        if self.timeout is not None and not (_is_delay(self.timeout) and self.timeout > 0):
            raise DefinitionError(
                f"A step with timeout={self.timeout!r}.", remedy=f"Give seconds, more than 0 and less than {MAX_DELAY}."
            )
        if self.memory is not None and not (_is_count(self.memory) and self.memory > 0):
            raise DefinitionError(f"A step with memory_limit={self.memory!r}.", remedy="Give bytes, or '2GiB'.")

    def __bool__(self) -> bool:
        return self.timeout is not None or self.memory is not None

    @staticmethod
    def of(timeout: float | None, memory_limit: int | str | None) -> "StepLimits":
        """The limits that a definition gives; memory as bytes, or as text such as "2GiB" or "500 MB"."""
        return StepLimits(timeout, parse_bytes(memory_limit) if isinstance(memory_limit, str) else memory_limit)


#: What a step may take of which nothing is said.
NO_LIMITS = StepLimits()


def parse_bytes(text: str) -> int:
    """How many bytes a text such as "2GiB" or "500 MB" means. Raises `DefinitionError`."""
    match = _MEMORY.fullmatch(text)
    unit = _UNITS.get(match[2].upper()) if match else None
    if match is None or unit is None:
        raise DefinitionError(f"{text!r} is no amount of memory.", remedy="Write bytes, or a text such as '2GiB'.")
    return math.ceil(float(match[1]) * unit)


class Failure(Exception):
    """Raised by user code to fail its step, with a description and metadata for the record.

    In a step with several partitions, one with a `partition_key` is yielded, or returned in the place of the value:
    then that partition fails alone.
    """

    def __init__(
        self,
        description: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        allow_retries: bool = True,
        partition_key: str | None = None,
    ) -> None:
        super().__init__(description or "")
        self.description = description
        self.metadata = dict(metadata or {})
        #: False ends the step at once, whatever its retry policy says.
        self.allow_retries = allow_retries
        self.partition_key = partition_key


class RetryRequested(Exception):
    """Raised by user code to have its step tried again, whatever its retry policy says.

    Making one raises `UserCodeError`, which fails the step, for numbers that say nothing.
    """

    def __init__(self, max_retries: int = 1, seconds_to_wait: float | None = None) -> None:
        if not (_is_count(max_retries) and (seconds_to_wait is None or _is_delay(seconds_to_wait))):
            raise UserCodeError(
                f"RetryRequested(max_retries={max_retries!r}, seconds_to_wait={seconds_to_wait!r}).",
                remedy=f"Give max_retries >= 0, and seconds_to_wait of 0 to {MAX_DELAY}.",
            )
        super().__init__(f"retry requested, at most {max_retries}")
        self.max_retries = max_retries
        self.seconds_to_wait = seconds_to_wait


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_delay(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < MAX_DELAY
