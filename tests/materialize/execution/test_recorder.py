import threading
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from headwater.catalog.errors import DiskFullError
from headwater.catalog.events import Event, StepStarted
from headwater.materialize.execution.recorder import Recorder


def event(number: int) -> StepStarted:
    return StepStarted(time=datetime(2026, 1, 1, tzinfo=UTC), run_id="r", step_key=str(number))


class Sink:
    """A catalog that can be made slow, or full."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.full_after: int | None = None

    def append(self, events: Sequence[Event]) -> None:
        self.gate.wait(10)
        if self.full_after is not None and len(self.batches) >= self.full_after:
            raise DiskFullError("No space left.", remedy="Make some.")
        self.batches.append([e.step_key for e in events if isinstance(e, StepStarted)])

    @property
    def written(self) -> list[str]:
        return [key for batch in self.batches for key in batch]


def test_events_are_written_in_order_and_all_of_them() -> None:
    sink = Sink()
    recorder = Recorder(sink.append, delay=0.001)
    for number in range(500):
        recorder.append(event(number))
    recorder.flush()
    assert sink.written == [str(n) for n in range(500)]
    recorder.close()


def test_events_that_come_while_a_commit_is_under_way_share_the_next_one() -> None:
    sink = Sink()
    sink.gate.clear()
    recorder = Recorder(sink.append, delay=0.0)
    recorder.append(event(0))
    for number in range(1, 100):
        recorder.append(event(number))
    sink.gate.set()
    recorder.flush()
    assert sink.written == [str(n) for n in range(100)]
    assert len(sink.batches) <= 3
    recorder.close()


def test_flush_waits_until_what_was_appended_is_written() -> None:
    sink = Sink()
    recorder = Recorder(sink.append, delay=60)
    recorder.append(event(1))
    recorder.flush()
    assert sink.written == ["1"]
    recorder.close()


def test_close_writes_what_is_waiting() -> None:
    sink = Sink()
    recorder = Recorder(sink.append, delay=60)
    recorder.append(event(1), event(2))
    recorder.close()
    assert sink.written == ["1", "2"]


def test_after_a_failed_commit_nothing_more_is_written_and_every_call_says_so() -> None:
    sink = Sink()
    sink.full_after = 1
    recorder = Recorder(sink.append, delay=0.0)
    recorder.append(event(1))
    recorder.flush()
    recorder.append(event(2))
    with pytest.raises(DiskFullError):
        recorder.flush()
    sink.full_after = None
    with pytest.raises(DiskFullError):
        recorder.append(event(3))
    recorder.close()
    assert sink.written == ["1"], "an event after a lost one would leave a gap in history"
