"""Damaged, cut, mixed up and foreign files: what opens holds everything, or it is an error and nothing is touched.

Done in processes of their own, as DuckDB promises nothing for files that it did not write. It never crashed so far;
a crash is a failure here, which names the file.
"""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

PARTS = 2


def outcomes(folder: Path, part: int) -> list[tuple[str, str, str]]:
    """What came of each case of a part: its name, the outcome, details."""
    found: list[tuple[str, str, str]] = []
    expected = 1
    while len(found) < expected:
        place = folder / f"from-{len(found)}"
        place.mkdir()
        arguments = map(str, (place, part, PARTS, len(found)))
        done = subprocess.run(
            [sys.executable, "-m", "tests.catalog.storage.duckdb.damage_worker", *arguments],
            cwd=Path(__file__).parents[4],
            capture_output=True,
            text=True,
            check=False,
        )
        count, *lines = done.stdout.splitlines()
        expected = int(count)
        for line in map(json.loads, lines):
            if len(line) == 3:
                found.append(line)
        if done.returncode:
            (name,) = json.loads(lines[-1])
            found.append((name, "crashed", f"{done.returncode}: {done.stderr[-1000:]}"))
    return found


@pytest.mark.faults
@pytest.mark.parametrize("part", range(PARTS))
def test_a_damaged_catalog_is_whole_or_refused_and_left_alone(tmp_path: Path, part: int) -> None:
    found = outcomes(tmp_path, part)
    counts = Counter(outcome for _, outcome, _ in found)
    assert not [case for case in found if case[1] not in ("whole", "prefix", "refused", "refused when read")], counts
    assert len(found) >= 500 // PARTS, counts
    # Every kind of outcome really occurs, so that the cases are not all of one sort.
    assert min(counts[kind] for kind in ("whole", "prefix", "refused", "refused when read")) >= 3, counts
