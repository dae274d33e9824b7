"""What `test_damage.py` runs: damages copies of a catalog and opens them, in a process that may crash of it.

Prints a line for each case, `[name, outcome, details]` as JSON: `whole` and `prefix` for a catalog that opens and holds
everything, or what is left where nothing can tell that there was more; `refused` for an error of ours; anything else
is a failure. The name of a case is printed before it is tried, so that a crash has a name too.
"""

import json
import random
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from headwater.catalog.errors import CatalogError
from headwater.catalog.records import LoggedEvent
from headwater.catalog.storage.duckdb import DuckDBStorage, open_catalog
from tests.histories import History

DATABASE, LOG, HEAD = "catalog.duckdb", "catalog.duckdb.wal", "catalog.head"
FILES = (DATABASE, LOG, HEAD)

#: What a case does to the files: their content, None for a file that is not there, or b"/" for a folder of that name.
Files = dict[str, bytes | None]
FOLDER = b"/"


@dataclass(frozen=True)
class Case:
    """One way to damage a catalog."""

    name: str
    files: Files
    #: Nothing is left that could tell a loss of the last commits.
    blind: bool = False


@dataclass(frozen=True)
class Sample:
    """A catalog's files, and the events that its writer was told are durable."""

    files: Files
    events: list[LoggedEvent]


def make_samples(folder: Path) -> dict[str, Sample]:
    """A catalog as `kill -9` leaves it, with commits in database, log and journal; and one that was closed."""
    history = History()
    home = folder / "sample"
    open_catalog(home, wait=0).close()
    with open_catalog(home, wait=0) as storage:
        _record(storage, history, ["a", "shop/orders", "b"])
    with open_catalog(home, wait=0) as storage:
        for number in range(4):
            _record(storage, history, ["a", f"later{number}"])
            storage.cells()  # moves the journal on into the tables
        storage.append([history.start("c")])
        storage.append([history.start("d")])
        killed = {name: (home / name).read_bytes() for name in FILES}
        events = storage.events()
    closed: Files = {name: (home / name).read_bytes() if (home / name).exists() else None for name in FILES}
    return {"killed": Sample(dict(killed), events), "closed": Sample(closed, events)}


def _record(storage: DuckDBStorage, history: History, assets: list[str]) -> None:
    run = history.start(*assets)
    storage.append([run])
    for step in range(len(assets)):
        storage.append([history.step(run, step)])
        storage.append([history.succeed(run, step)])
    storage.append([history.finish(run)])


def make_cases(folder: Path, samples: dict[str, Sample]) -> Iterator[Case]:
    """All cases, the same ones every time."""
    chance = random.Random(20261121)
    strangers = make_strangers(folder)
    for state, sample in samples.items():
        for name, data in sample.files.items():
            if data is None:
                continue
            for what, changed in _changes(data, chance, of=name):
                yield Case(f"{state} {name} {what}", sample.files | {name: changed})
            for what, stranger in strangers[name].items():
                yield Case(f"{state} {name} {what}", sample.files | {name: stranger}, blind=name == HEAD)
        yield Case(f"{state} without head", sample.files | {HEAD: None})
        yield Case(f"{state} head alone", dict.fromkeys(FILES) | {HEAD: sample.files[HEAD]})
        yield Case(f"{state} database alone", dict.fromkeys(FILES) | {DATABASE: sample.files[DATABASE]}, blind=True)
    killed = samples["killed"].files
    log = killed[LOG]
    assert log is not None
    for number in range(12):  # nobody is left who could know how far it got
        cut = chance.randrange(len(log))
        yield Case(f"killed without head, log cut {number}", killed | {LOG: log[:cut], HEAD: None}, blind=True)
    yield Case("log without database", killed | {DATABASE: None})
    yield Case("log alone", killed | {DATABASE: None, HEAD: None})
    yield Case("a stray log beside a closed catalog", samples["closed"].files | {LOG: log})


def _changes(data: bytes, chance: random.Random, *, of: str) -> Iterator[tuple[str, bytes | None]]:
    size = len(data)
    many = {DATABASE: 51, LOG: 90, HEAD: 9}[of]
    yield "missing", None
    yield "empty", b""
    yield "a folder", FOLDER
    yield "zeros", bytes(size)
    yield "garbage", chance.randbytes(size)
    yield "longer", data + chance.randbytes(100)
    yield "twice", data + data
    for _ in range(many // 3):
        cut = chance.randrange(size)
        yield f"cut at {cut}", data[:cut]
    for edge in (1, 4096, 8192, 12288, 12288 + 16384, size // 2, size - 1):
        if edge < size:
            yield f"cut at edge {edge}", data[:edge]
    for _ in range(many):
        at = chance.randrange(size)
        bit = chance.randrange(8)
        yield f"bit {bit} of {at}", data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]
    for _ in range(many // 3):  # where a file says what it is
        at = chance.randrange(min(size, 12288 if of == DATABASE else 64))
        yield f"byte {at}", data[:at] + bytes([data[at] ^ 0xA5]) + data[at + 1 :]
    for _ in range(many // 3):
        at, length = chance.randrange(size), chance.choice((8, 100, 4096))
        noise = chance.choice((bytes(length), chance.randbytes(length)))
        yield f"{length} of noise at {at}", (data[:at] + noise + data[at + length :])[:size]


def make_strangers(folder: Path) -> dict[str, dict[str, bytes]]:
    """For each of the files, one that belongs to something else."""
    import sqlite3

    import duckdb

    with duckdb.connect(str(folder / "plain")) as connection:
        connection.execute("create table meta (name varchar, value varchar)").fetchall()
        connection.execute("create table event (i integer)").fetchall()
    lite = sqlite3.connect(folder / "sqlite")
    lite.execute("create table t (i)")
    lite.commit()
    lite.close()
    other = folder / "other"
    history = History(start=1_000_000)
    open_catalog(other, wait=0).close()
    with open_catalog(other, wait=0) as storage:
        for _ in range(3):
            _record(storage, history, ["x"])
        catalog = {name: (other / name).read_bytes() for name in FILES}
    return {
        DATABASE: {
            "of another program": (folder / "plain").read_bytes(),
            "of SQLite": (folder / "sqlite").read_bytes(),
            "of another catalog": catalog[DATABASE],
        },
        LOG: {"of another catalog": catalog[LOG]},
        HEAD: {"of another catalog": catalog[HEAD]},
    }


def lay(home: Path, files: Files) -> None:
    """Put files into a new home."""
    home.mkdir(mode=0o700)
    for name, data in files.items():
        if data == FOLDER:
            (home / name).mkdir(mode=0o700)
        elif data is not None:
            (home / name).write_bytes(data)
            (home / name).chmod(0o600)


def found(home: Path) -> Files:
    """The files of a home that are its memory."""
    return {
        path.name: FOLDER if path.is_dir() else path.read_bytes()
        for path in home.iterdir()
        if path.name not in ("catalog.lock", "catalog.reserve")
    }


def read_all(storage: DuckDBStorage) -> list[LoggedEvent]:
    """Everything, by every way there is to it."""
    events = storage.events(limit=None)
    storage.cells()
    storage.definitions()
    storage.runs(limit=100)
    for key in storage.latest():
        storage.materializations(key, limit=100)
    return events


def attempt(home: Path, case: Case, events: list[LoggedEvent], *, insist: bool) -> tuple[str, str]:
    """Open the damaged catalog for reading, then for writing: what comes of it.

    A refusal costs 15 ms, DuckDB's start: unless we `insist`, one of the two is enough.
    """
    lay(home, case.files)
    before = found(home)
    outcome, details = "", ""
    for read_only in (True, False):
        mode = "read" if read_only else "write"
        opened = False
        try:
            with open_catalog(home, wait=0, read_only=read_only) as storage:
                opened = True
                got = read_all(storage)
                if got != events:
                    if not case.blind or got != events[: len(got)]:
                        return "lost", f"{mode}: {len(got)} of {len(events)} events"
                    outcome = "prefix"
                elif not outcome:
                    outcome = "whole"
                if not read_only:
                    last = storage.append([History(2_000_000).start("new")])
                    if last != len(got) + 1:
                        return "lost", f"{last} after {len(got)}"
        except CatalogError as error:
            if not error.remedy or error.exit_code != 6:
                return "mute", str(error)
            outcome, details = "refused" if not opened else "refused when read", f"{error.code} {error.message[:300]}"
            # A block is looked at when it is read: by then a journal was settled perhaps, or a head brought up to date.
            excused = "is damaged: " in error.message and (LOG in before or not read_only)
            if found(home) != before and not excused:
                return "changed", f"{mode}: {details}"
            if not (opened or insist):
                break
        except Exception as error:
            return "raised", f"{mode}: {type(error).__name__}: {error}"[:500]
    return outcome, details


def main() -> None:
    """Arguments: an empty folder, the part of the cases to try of how many parts, how many of it to leave out."""
    folder = Path(sys.argv[1])
    part, parts, skipped = map(int, sys.argv[2:])
    samples = make_samples(folder)
    cases = list(make_cases(folder, samples))[part::parts]
    print(len(cases), flush=True)
    home = folder / "home"
    for number, case in enumerate(cases[skipped:], skipped):
        shutil.rmtree(home, ignore_errors=True)
        print(json.dumps([case.name]), flush=True)
        outcome = attempt(home, case, samples["killed"].events, insist=number % 3 == 0)
        print(json.dumps([case.name, *outcome]), flush=True)


if __name__ == "__main__":
    main()
