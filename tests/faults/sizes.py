"""How much is tried: a little in every test run, more by `make faults`, for hours by `make soak`.

`HEADWATER_FAULTS` says which: short (the default), commit, soak. The figures are those of docs/development/faults.md.
"""

import os
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Numbers of what is tried."""

    #: Simulated worlds.
    seeds: int
    #: A mutant has to be caught within so many.
    mutant_seeds: int = 1000
    #: Of the calls at which something could go wrong, every so-manieth is tried.
    stride: int
    #: Times that processes start at once on a fresh home, and how many.
    first_starts: int
    starting: int = 16
    #: Seconds for which builders are killed while others go on; 0 leaves that out.
    together: float
    #: Races for one partition.
    races: int
    #: Processes that are killed by `test_kill.py`.
    kills: int = 100
    #: Simulated years and weeks of two daemons.
    years: int
    weeks: int
    #: The days of which these years are made, as a cron says it.
    weekdays: str = "*"
    #: Of the points at which a daemon is killed, every so-manieth is tried.
    point_stride: int = 1


SIZE = os.environ.get("HEADWATER_FAULTS", "short")
SIZES = {
    "short": Sizes(
        seeds=80,
        stride=16,
        first_starts=1,
        starting=6,
        together=0,
        races=10,
        kills=40,
        years=1,
        weeks=1,
        weekdays="0,5",
        point_stride=6,
    ),
    "commit": Sizes(seeds=2_000, stride=1, first_starts=20, together=60, races=200, years=4, weeks=200),
    "soak": Sizes(
        seeds=200_000, stride=1, first_starts=500, together=600, races=10_000, kills=1_000, years=200, weeks=20_000
    ),
}[SIZE]

#: Of each kind of test so many parts, so that several workers share them.
PARTS = 8


def share(total: int, part: int) -> range:
    """The numbers below `total` that one part tries."""
    return range(part, total, PARTS)
