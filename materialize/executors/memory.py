"""How much memory a process has for itself."""

import sys

#: Whether that can be known here.
MEASURABLE = sys.platform == "linux"
#: What files that are mapped into memory take is the system's to give back: a large Parquet file does not count.
_OWN = (b"RssAnon:", b"RssShmem:")


def memory_of(process: int) -> int:
    """Resident bytes of a process that no file holds; 0 for one that is gone, and where that cannot be known."""
    try:
        with open(f"/proc/{process}/status", "rb") as file:
            return sum(int(line.split()[1]) * 1024 for line in file if line.startswith(_OWN))
    except (OSError, ValueError, IndexError):
        return 0
