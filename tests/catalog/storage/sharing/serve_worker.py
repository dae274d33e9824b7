"""A process as on another host: appends keys `NAME-0`, `NAME-1`, … of the dynamic partitions NAME, and prints each."""

import os
import sys
from pathlib import Path

from headwater.catalog.clock import SystemClock
from headwater.catalog.events import DynamicPartitionsChanged
from headwater.catalog.storage.sharing.remote import Address
from headwater.catalog.storage.sharing.shared import SharedStorage

url, ca_file, name, count = sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
clock = SystemClock()
with SharedStorage(Address.of(url, os.environ["HEADWATER_CATALOG_TOKEN"], ca_file), wait=60, clock=clock) as storage:
    for number in range(count):
        storage.append([DynamicPartitionsChanged(time=clock.now(), name=name, added=(f"{name}-{number}",))])
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()
