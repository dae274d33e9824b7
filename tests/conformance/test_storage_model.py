"""DuckDB against the twin in memory: any sequence of appends, good and bad, leaves both saying the same."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headwater.catalog.errors import CatalogError, ConflictError
from headwater.catalog.events import (
    AssetDefinition,
    BackfillStarted,
    DefinitionsChanged,
    DynamicPartitionsChanged,
    Event,
    LogMessage,
    RunQueued,
    RunStarted,
    StepRetried,
)
from headwater.catalog.keys import AssetKey
from headwater.catalog.records import (
    AutomationStatus,
    BackfillStatus,
    DefinitionChange,
    ErrorRecord,
    FactTopic,
    Fingerprint,
    Materialization,
    RunStatus,
    StepCell,
    StepStatus,
    TickStatus,
)
from headwater.catalog.storage.base import CatalogReader
from headwater.catalog.storage.duckdb import DuckDBStorage, open_catalog
from headwater.catalog.storage.memory import MemoryStorage
from tests.histories import input_hashes, instant, partition_states

if TYPE_CHECKING:
    from headwater.tests.histories import History

ASSETS = ("a", "b", "c/d", "ü%2F")
PARTITIONS = (None, "p", "q", "2024-01-01")
DYNAMIC = "abcdefg"
ENDED_RUNS = [status for status in RunStatus if status.is_over]
MOVES = (RunStatus.STARTING, RunStatus.STARTING, RunStatus.QUEUED, RunStatus.CANCELING)
ENDED_BACKFILLS = [status for status in BackfillStatus if status is not BackfillStatus.STARTED]
ENDED_STEPS = [status for status in StepStatus if status not in (StepStatus.PENDING, StepStatus.STARTED)]


class Author:
    """Draws events that mostly make sense, about runs that it drew before."""

    def __init__(self, data: st.DataObject, history: "History") -> None:
        self._draw = data.draw
        self._history = history
        self._runs: list[RunStarted] = []
        self._queued: list[RunQueued] = []
        #: Up to when schedules are decided, if all went well.
        self._decided: dict[str, int] = {}
        self._backfills: list[BackfillStarted] = []

    def events(self) -> list[Event]:
        """What one append is given."""
        return [self._event() for _ in range(self._draw(st.integers(1, 4)))]

    def _event(self) -> Event:
        kinds: list[Callable[[], Event]] = [self._start, self._queue, self._redefine, self._change_keys, self._backfill]
        kinds += [self._automate, self._tick, self._tick, self._find_out]
        kinds += [self._automate, self._tick, self._tick, self._conditions]
        if self._queued:
            kinds += [self._move, self._move, self._leave]
        if self._runs:
            kinds += [
                self._claim,
                self._step,
                self._retry,
                self._succeed,
                self._succeed,
                self._fail,
                self._log,
                self._finish,
            ]
        return self._draw(st.sampled_from(kinds))()

    def _start(self) -> Event:
        if self._runs and self._draw(st.integers(0, 9)) == 0:
            return self._runs[-1]
        assets = self._draw(st.lists(st.sampled_from(ASSETS), min_size=1, max_size=3, unique=True))
        keys = st.lists(st.sampled_from(PARTITIONS), min_size=1, max_size=3, unique=True)
        wide = self._draw(st.integers(0, 7)) == 0
        steps = [(asset, [f"w{i}" for i in range(300)] if wide else self._draw(keys)) for asset in assets]
        backfill = self._draw(st.sampled_from((None, *(one.backfill_id for one in self._backfills))))
        more = {"job": self._draw(st.sampled_from((None, "x"))), "claims_before": self._claims()}
        run = self._history.start(*steps, backfill_id=backfill, pid=self._draw(st.integers(0, 3)), **more)
        if self._queued and self._draw(st.booleans()):
            run = replace(run, run_id=self._draw(st.sampled_from(self._queued)).run_id)
        self._runs.append(run)
        return run

    def _claims(self) -> int | None:
        """How many claims somebody has seen, rightly or not."""
        return self._draw(st.sampled_from((None, None, None, len(self._runs), 1)))

    def _queue(self) -> Event:
        others = (None, *(one.run_id for one in self._runs))
        run = self._history.queue(
            selection=self._draw(st.sampled_from((None, "a"))),
            tags={"k": self._draw(st.text(max_size=3))},
            pools=tuple(self._draw(st.lists(st.sampled_from("pq"), unique=True))),
            behind=self._draw(st.sampled_from(others)),
            root_run_id=self._draw(st.sampled_from(others)),
            request={"selection": "a", "partitions": ["p"], "force": True},
            pid=self._draw(st.integers(0, 3)),
        )
        self._queued.append(run)
        return run

    def _find_out(self) -> Event:
        states = ("PASS", "FAIL")
        name = self._draw(st.sampled_from(ASSETS[:2]))
        before = self._draw(st.sampled_from((None, *states)))
        return self._history.fact(name, self._draw(st.sampled_from(states)), before)

    def _automate(self) -> Event:
        """Mostly as somebody does who looked."""
        name = self._draw(st.sampled_from("st"))
        known = self._decided.get(name)
        after = self._draw(st.sampled_from((known, known, known, None, 1)))
        until = self._decided[name] = self._draw(st.integers(0, 5))
        status = self._draw(st.sampled_from((None, *AutomationStatus)))
        seen = None if after is None else instant(after)
        cursor = self._draw(st.sampled_from((None, "c")))
        return self._history.automate(name, status, until=instant(until), after=seen, cursor=cursor)

    def _conditions(self) -> Event:
        assets = self._draw(st.lists(st.sampled_from((None, "a", "b")), min_size=1, max_size=2, unique=True))
        return self._history.conditions(*assets, n=self._draw(st.integers(0, 3)))

    def _tick(self) -> Event:
        name = self._draw(st.sampled_from("st"))
        known = self._decided.get(name, 0)
        at = self._decided[name] = known + self._draw(st.sampled_from((1, 1, 2, 0)))
        keys = self._draw(st.sampled_from(({}, {"k": self._history.identifier()})))
        status = self._draw(st.sampled_from(tuple(TickStatus)))
        more: dict[str, Any] = {"reason": "r", "run_ids": tuple(keys.values()), "run_keys": keys}
        more["cursor"] = self._draw(st.sampled_from((None, "d", "")))
        return self._history.tick(at, self._draw(st.sampled_from((known, known, 0))), name, status, **more)

    def _move(self) -> Event:
        run = self._draw(st.sampled_from([*self._queued, *self._runs]))
        behind = self._draw(st.sampled_from((None, *(one.run_id for one in self._runs))))
        more = {"behind": behind, "pid": self._draw(st.integers(0, 3)), "host": self._draw(st.sampled_from(("", "h")))}
        return self._history.move(run, self._draw(st.sampled_from(MOVES)), claims_before=self._claims(), **more)

    def _leave(self) -> Event:
        return self._history.finish(self._draw(st.sampled_from(self._queued)), self._draw(st.sampled_from(ENDED_RUNS)))

    def _claim(self) -> Event:
        run, step = self._pick()
        more = {"attempt": self._draw(st.integers(1, 3)), "claims_before": self._claims()}
        return self._history.claim(run, step, self._draw(st.sampled_from("pq")), **more)

    def _pick(self) -> tuple[RunStarted, int]:
        run = self._draw(st.sampled_from(self._runs))
        return run, self._draw(st.integers(0, len(run.steps) - 1))

    def _step(self) -> Event:
        return self._history.step(*self._pick(), attempt=self._draw(st.integers(1, 3)))

    def _retry(self) -> Event:
        run, step = self._pick()
        return StepRetried(
            time=self._history.time(),
            run_id=run.run_id,
            step_key=run.steps[step].step_key,
            attempt=self._draw(st.integers(1, 3)),
            delay=0.5,
            error=ErrorRecord(kind="E", message=self._draw(st.text(max_size=5))),
        )

    def _succeed(self) -> Event:
        run, step = self._pick()
        return self._history.succeed(run, step, fingerprint=Fingerprint(code=self._draw(st.sampled_from("xyz"))))

    def _fail(self) -> Event:
        run, step = self._pick()
        status = self._draw(st.sampled_from(ENDED_STEPS))
        made: list[Materialization] = []
        cells: list[StepCell] = []
        for number, cell in enumerate(run.steps[step].cells):
            ended = self._draw(st.sampled_from(ENDED_STEPS)) if number < 3 else status
            cells.append(StepCell(asset=cell.asset, partition=cell.partition, status=ended))
            if ended is StepStatus.SUCCESS:
                made.append(self._history.make(run, step, number))
        return self._history.end(
            run,
            step,
            status,
            message=self._draw(st.text(max_size=5)),
            cells=tuple(cells),
            materializations=tuple(made),
        )

    def _log(self) -> Event:
        run, step = self._pick()
        key = self._draw(st.sampled_from((None, run.steps[step].step_key, "never planned")))
        text = self._draw(st.text(st.characters(), max_size=8))
        return LogMessage(time=self._history.time(), run_id=run.run_id, step_key=key, level="INFO", message=text)

    def _finish(self) -> Event:
        return self._history.finish(self._pick()[0], self._draw(st.sampled_from(ENDED_RUNS)))

    def _backfill(self) -> Event:
        move = self._draw(st.integers(0, 4))
        if not self._backfills or move == 0:
            self._backfills.append(self._history.backfill("a", ("b", 3), title=self._draw(st.text(max_size=5))))
            return self._backfills[-1]
        backfill = self._draw(st.sampled_from(self._backfills))
        if move == 1:
            return self._history.resume(backfill, user=self._draw(st.text(max_size=5)))
        return self._history.stop(backfill, self._draw(st.sampled_from(ENDED_BACKFILLS)))

    def _change_keys(self) -> Event:
        keys = st.lists(st.sampled_from(DYNAMIC), max_size=5)
        return DynamicPartitionsChanged(
            time=self._history.time(),
            name=self._draw(st.sampled_from("nm")),
            added=tuple(self._draw(keys)),
            deleted=tuple(self._draw(keys)),
        )

    def _redefine(self) -> Event:
        changes = self._draw(
            st.lists(
                st.tuples(st.sampled_from(ASSETS), st.sampled_from(("added", "changed", "removed"))),
                max_size=3,
                unique_by=lambda pair: pair[0],
            )
        )
        return DefinitionsChanged(
            time=self._history.time(),
            changes=tuple(
                DefinitionChange(asset=AssetKey(asset), changed=self._history.time(), change=change)
                for asset, change in changes
            ),
            definitions=tuple(
                AssetDefinition(asset=AssetKey(asset), data={"key": asset, "n": self._draw(st.integers(0, 5))})
                for asset, change in changes
                if change != "removed"
            ),
        )


def everything(storage: CatalogReader) -> dict[str, Any]:
    """All that a storage has to say."""
    runs, backfills = storage.runs(limit=1000), storage.backfills()
    keys = [AssetKey(asset) for asset in ASSETS]
    return {
        "cells": storage.cells(),
        "partition cells": partition_states(storage),
        "partition cells of some": partition_states(storage, keys[:2]),
        "inputs": [input_hashes(storage, key, range(1, 200)) for key in keys],
        "states": [storage.cell_states(key, ["p", "q", "w7"]) for key in keys],
        "currents": [storage.currents(key) for key in keys],
        "some currents": [storage.currents(key, ["p", "w8", "q"]) for key in keys],
        "dynamic": [
            (
                storage.dynamic_keys.count(name),
                storage.dynamic_keys.slice(name, 0, 99),
                storage.dynamic_keys.slice(name, 1, 3),
            )
            for name in "nm"
        ],
        "dynamic positions": [storage.dynamic_keys.indexes(name, DYNAMIC) for name in "nm"],
        "dynamic names": storage.dynamic_partition_names(),
        "backfills": backfills,
        "one backfill": [storage.backfill(one.backfill_id) for one in backfills],
        "backfill cells": [storage.backfill_cells(one.backfill_id) for one in backfills],
        "ended backfills": storage.backfills(statuses=ENDED_BACKFILLS),
        "runs of backfills": [storage.runs(backfill=one.backfill_id) for one in backfills],
        "failures": storage.failures(),
        "cells of some": storage.cells(keys[:2]),
        "latest": storage.latest(),
        "versions": [storage.materializations(key, limit=10_000) for key in keys],
        "partition": [storage.materializations(key, "p") for key in keys],
        "current": [storage.current(key, partition) for key in keys for partition in PARTITIONS],
        "runs": runs,
        "claims": storage.claims(),
        "slots": storage.slots(),
        "automations": storage.automations(),
        "facts": storage.facts(FactTopic.FRESHNESS),
        "conditions": sorted(storage.condition_states(), key=lambda one: str(one.asset)),
        "last event": storage.last_event(),
        "ticks": storage.ticks(),
        "ticks of one": storage.ticks(["s"], limit=2),
        "run keys": storage.requested("s", ["k", "l"]),
        "tries": [storage.runs(root=run.run_id) for run in runs],
        "queued": storage.runs(statuses=[RunStatus.QUEUED]),
        "one run": [storage.run(run.run_id) for run in runs],
        "started": storage.runs(statuses=[RunStatus.STARTED]),
        "runs of an asset": storage.runs(asset=keys[0]),
        "older runs": storage.runs(before=runs[0].run_id) if runs else None,
        "steps": [storage.steps(run.run_id) for run in runs],
        "planned": [storage.planned(run.run_id) for run in runs],
        "log": storage.events(limit=None),
        "log of an asset": storage.events(asset=keys[0]),
        "log of a step": storage.events(step_key="b", kinds=["STEP_SUCCESS", "LOG_MESSAGE"], after=3),
        "definitions": storage.definitions(),
        "changes": storage.definition_history(),
    }


def append(storage: MemoryStorage | DuckDBStorage, events: list[Event]) -> int | str:
    """What appending comes to: the number of the last event, or the words of the refusal."""
    try:
        return storage.append(events)
    except (CatalogError, ConflictError) as error:
        return error.message


@settings(
    max_examples=16,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(data=st.data())
def test_both_say_the_same(
    data: st.DataObject, empty_home: Path, tmp_path_factory: pytest.TempPathFactory, history: "History"
) -> None:
    root = tmp_path_factory.mktemp("model")
    home = shutil.copytree(empty_home, root / "home")
    author = Author(data, history)
    memory, duckdb = MemoryStorage(), open_catalog(home, wait=0)
    try:
        for number in range(data.draw(st.integers(1, 10))):
            events = author.events()
            assert append(duckdb, events) == append(memory, events)
            match data.draw(st.integers(0, 9)):
                case 1:
                    assert everything(duckdb) == everything(memory)
                case 2:
                    duckdb.close()
                    duckdb = open_catalog(home, wait=0)
                case 3:  # what a power cut would leave: the next one to open finds the journal full
                    home = shutil.copytree(home, root / str(number), ignore=shutil.ignore_patterns("*.lock"))
                    duckdb.close()
                    duckdb = open_catalog(home, wait=0)
                case _:
                    pass
        assert everything(duckdb) == everything(memory)
    finally:
        duckdb.close()
        shutil.rmtree(root)
