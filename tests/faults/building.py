"""Processes that build what tests tell them, and what must be true of a home that they built in."""

import contextlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

import polars as pl

import headwater as hw
from headwater.catalog.events import EventKind
from headwater.catalog.records import RunStatus
from headwater.io import load_pointer, verify_pointer
from tests.faults.builder import ROWS


class Builder:
    """A process of `tests/faults/builder.py`."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.builder"],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def wait_until_ready(self) -> None:
        """Until it has everything imported."""
        assert self.answer() == {"ready": True}

    def tell(self, home: Path, asset: str, mark: str, **more: Any) -> None:
        """Have something built, and return at once."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"home": str(home), "asset": asset, "mark": mark, **more}) + "\n")
        self.process.stdin.flush()

    def answer(self) -> dict[str, Any] | None:
        """What came of it; None where the process is gone, and maybe half of an answer with it."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        return json.loads(line) if line.endswith("\n") else None

    def stop(self) -> int:
        """Let it end by itself."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


def check_home(home: Path, acknowledged: dict[str, str]) -> int:
    """What a home holds once nobody is left who builds in it; how many versions there are.

    `acknowledged` has the versions that somebody was told of, with what their rows hold.
    """
    with hw.Instance.open(home, read_only=True, wait=120) as instance:
        catalog = instance.catalog
        events = catalog.events(limit=None)
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
        recorded = [event for event in events if event.kind == EventKind.ASSET_MATERIALIZATION]
        made = {str(event.data["version_id"]) for event in recorded}
        assert len(made) == len(recorded), "a version is recorded twice"
        assert acknowledged.keys() <= made, "an acknowledged version is lost"
        newest = {(event.asset, event.partition): event.data["version_id"] for event in recorded}
        for (asset, partition), version_id in newest.items():
            assert asset is not None
            current = catalog.current(asset, partition)
            assert current is not None and current.version_id == version_id
        for version_id in made:
            one = catalog.materialization(version_id)
            assert one is not None and one.pointer is not None
            verify_pointer(one.pointer)
            frame = load_pointer(one.pointer, annotation=pl.DataFrame)
            (mark,) = frame["mark"].unique().to_list()
            assert frame["row"].to_list() == list(range(ROWS))
            assert mark == acknowledged.get(version_id, mark)
        assert catalog.runs(statuses=[RunStatus.FAILURE], limit=10_000) == []
        return len(made)
