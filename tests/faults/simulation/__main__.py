"""Run worlds by their seeds: `python -m tests.faults.simulation [--seed N] [--first N] [--count N] [--log]`."""

import argparse
import sys
import time

from tests.faults.simulation.checker import simulate
from tests.faults.simulation.world import World


def main() -> int:
    """Simulate the seeds that are asked for; 1 where one of them ends badly."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="this one alone")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--log", action="store_true", help="say what happened, call by call")
    given = parser.parse_args()
    seeds = range(given.first, given.first + given.count) if given.seed is None else [given.seed]
    began, cpu = time.monotonic(), time.process_time()
    steps = faults = bad = 0
    for seed in seeds:
        world = World(seed)
        world.scheduler.log = [] if given.log else None
        violations = simulate(world)
        steps, faults = steps + world.scheduler.steps, faults + len(world.injected)
        if given.log:
            print(*world.scheduler.log or (), sep="\n")
        if violations or given.seed is not None:
            bad += bool(violations)
            print(f"seed {seed}, trace {world.scheduler.trace}", *world.injected, *violations, sep="\n  ", flush=True)
    seconds, cpu = time.monotonic() - began, time.process_time() - cpu
    print(
        f"{len(seeds)} seeds, {bad} bad, {steps:,} steps, {faults:,} faults: "
        f"{len(seeds) / seconds:.1f} seeds a second, {len(seeds) / cpu:.1f} a second of CPU"
    )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
