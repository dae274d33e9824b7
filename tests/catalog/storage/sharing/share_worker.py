"""A process of its own that appends keys `NAME-0`, `NAME-1`, … of the dynamic partitions NAME, and prints each one."""

import sys
from pathlib import Path

from headwater.catalog.clock import SystemClock
from headwater.catalog.events import DynamicPartitionsChanged
from headwater.catalog.storage.sharing.shared import SharedStorage

home, name, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
clock = SystemClock()
with SharedStorage(home, wait=60, clock=clock) as storage:
    for number in range(count):
        storage.append([DynamicPartitionsChanged(time=clock.now(), name=name, added=(f"{name}-{number}",))])
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()
        if number == 0 and "wait" in sys.argv:
            sys.stdin.readline()
