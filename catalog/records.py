"""What happened, as plain values: the rows that the catalog keeps and hands out.

Times are aware datetimes in UTC. Every value here is immutable and made of JSON-able parts only, so that it
can cross a process boundary as bytes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from headwater.catalog.keys import AssetKey
from headwater.catalog.metadata import MetadataValue


@dataclass(frozen=True, slots=True)
class Cell:
    """One asset partition, the unit that is built and recorded; `partition` is None for an unpartitioned asset."""

    asset: AssetKey
    partition: str | None = None

    def __str__(self) -> str:
        return str(self.asset) if self.partition is None else f"{self.asset} [{self.partition}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of a stored table and what is known of its values."""

    name: str
    #: The Arrow type as text, such as `timestamp[us, tz=UTC]`.
    type: str
    #: The hash of the column's values; None where nobody computed one.
    version: str | None = None
    nulls: int | None = None
    #: Smallest and largest value, as JSON scalars: times as ISO 8601 text, decimals as text. None where unknown.
    min: Any = None
    max: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pointer:
    """Where one version of one cell lies, and what it is: everything that reading it takes."""

    #: A `file://` or object-store address, or an opaque name of a custom IO manager.
    uri: str
    #: parquet, json, pickle, memory, or what a custom IO manager calls its own.
    format: str
    #: What the producer returned, such as `polars.LazyFrame`: an un-annotated reader gets the same.
    representation: str | None = None
    rows: int | None = None
    bytes: int | None = None
    #: BLAKE3 of the file, in hex.
    checksum: str | None = None
    columns: tuple[Column, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """Everything but its inputs that decides what an asset's data will be, each part a version of its own.

    Parts are texts `scheme:hash`, so that parts of different schemes are known not to be comparable.
    """

    #: The code, explicit or hashed.
    code: str
    #: How the definition wires it: inputs by parameter, columns read.
    definition: str = ""
    config: str = ""
    resources: str = ""
    #: The IO manager that stores the output.
    io: str = ""
    #: What its partition key means; a cell for which it meant something else is not of the definition any more.
    partitions: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """An upstream cell as a materialization found it."""

    asset: AssetKey
    partition: str | None = None
    #: The version that was current when the step read it; None when there was none.
    version_id: str | None = None
    data_version: str | None = None
    #: Column name → column version, of the columns that were read; None where the whole was.
    columns: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Materialization:
    """One version of one cell."""

    version_id: str
    asset: AssetKey
    partition: str | None = None
    run_id: str
    step_key: str
    created: datetime
    fingerprint: Fingerprint
    data_version: str
    #: None when the asset stores nothing through an IO manager.
    pointer: Pointer | None = None
    inputs: tuple[Input, ...] = ()
    metadata: Mapping[str, MetadataValue] = field(default_factory=dict[str, MetadataValue])
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    #: Wall seconds of the step that made it.
    seconds: float = 0.0

    @property
    def cell(self) -> Cell:
        """The cell that this is a version of."""
        return Cell(self.asset, self.partition)


class RunStatus(StrEnum):
    """The life of a run. All but the first four are final."""

    #: It waits until limits, or a run that builds the same, let it go on.
    QUEUED = "QUEUED"
    #: Its turn has come, and its plan is being made.
    STARTING = "STARTING"
    STARTED = "STARTED"
    #: Somebody asked it to stop.
    CANCELING = "CANCELING"
    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"
    CANCELED = "CANCELED"
    #: Its process died; found by whoever opened the catalog next.
    INTERRUPTED = "INTERRUPTED"

    @property
    def is_over(self) -> bool:
        """Whether it is final."""
        return self not in OPEN


#: What a run is while its process works for it, and it counts against limits.
BUSY = frozenset({RunStatus.STARTING, RunStatus.STARTED, RunStatus.CANCELING})
#: What a run is that is not over.
OPEN = BUSY | {RunStatus.QUEUED}


class StepStatus(StrEnum):
    """The life of a step. All but PENDING and STARTED are final."""

    PENDING = "PENDING"
    STARTED = "STARTED"
    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"
    #: Not run: something upstream failed, or an optional output was not produced.
    SKIPPED = "SKIPPED"
    #: Not run: its inputs turned out to be what it was built from.
    VERIFIED = "VERIFIED"
    CANCELED = "CANCELED"
    INTERRUPTED = "INTERRUPTED"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedCell:
    """A cell that a run means to build, with the identifier that its version will have.

    Known before any data is written, so that what a killed run left behind can be found: `folder` is the address
    below which only this version's files start with `version_id`.
    """

    asset: AssetKey
    partition: str | None = None
    version_id: str
    folder: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedStep:
    """A step of a run before it starts."""

    step_key: str
    cells: tuple[PlannedCell, ...]
    #: Why it is to run, in words.
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorRecord:
    """Why something failed."""

    #: The exception's class name, or an error code of ours.
    kind: str
    message: str
    #: The user's part of the traceback, as text.
    traceback: str = ""
    #: What to do about it, where known.
    remedy: str = ""
    metadata: Mapping[str, MetadataValue] = field(default_factory=dict[str, MetadataValue])


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A step that failed after the current version of the cells that it was to build was made."""

    run_id: str
    step_key: str
    time: datetime
    error: ErrorRecord | None

    def __str__(self) -> str:
        return f"{self.error.kind}: {self.error.message}" if self.error else "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSlice:
    """Where a step's captured output lies: `size` bytes from `offset` of a file below the run's log folder."""

    stream: str
    file: str
    offset: int
    size: int
    #: Which attempt at the step, from 1.
    attempt: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A step of a run, as far as it got."""

    run_id: str
    step_key: str
    status: StepStatus
    reason: str = ""
    started: datetime | None = None
    ended: datetime | None = None
    attempts: int = 0
    error: ErrorRecord | None = None
    logs: tuple[LogSlice, ...] = ()
    cells: tuple["StepCell", ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCell:
    """What became of one cell of a step."""

    asset: AssetKey
    partition: str | None = None
    status: StepStatus
    #: The version that was made, once there is one.
    version_id: str | None = None
    rows: int | None = None
    #: Why it failed, where that is not why its step did.
    error: ErrorRecord | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run."""

    run_id: str
    status: RunStatus
    #: None for one that has not started, and maybe never did.
    started: datetime | None = None
    ended: datetime | None = None
    #: When it was put into the queue; None for one that started at once.
    queued: datetime | None = None
    #: When its status changed to STARTING or CANCELING, or back to QUEUED.
    moved: datetime | None = None
    job: str | None = None
    selection: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    user: str = ""
    host: str = ""
    pid: int = 0
    #: When process `pid` began: see `processes.start_ticks`.
    start_ticks: int | None = None
    error: ErrorRecord | None = None
    #: The backfill that it is a part of.
    backfill_id: str | None = None
    #: The run that it is another try at, and the first one of all of them.
    parent_run_id: str | None = None
    root_run_id: str | None = None
    #: The pools of the assets that it is to build.
    pools: tuple[str, ...] = ()
    #: While it is in the queue: the run that builds the same, and that it waits for.
    behind: str | None = None
    #: What was asked for, as plain JSON data: enough for another process to carry it out.
    request: Mapping[str, Any] = field(default_factory=dict[str, Any])
    #: How many steps have each status.
    step_counts: Mapping[StepStatus, int] = field(default_factory=dict[StepStatus, int])
    #: Whether it has not ended, and gave no sign of life for longer than a lease lasts.
    lapsed: bool = False

    @property
    def created(self) -> datetime:
        """When it was first heard of."""
        found = self.queued or self.started
        assert found is not None  # a run begins in one of the two ways
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """A place in a pool, held by an attempt at a step of a run that is not over."""

    pool: str
    run_id: str
    step_key: str
    attempt: int


class BackfillStatus(StrEnum):
    """The life of a backfill. SUCCESS and CANCELED are final; what failed may be resumed."""

    STARTED = "STARTED"
    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"
    CANCELED = "CANCELED"


@dataclass(frozen=True, slots=True, kw_only=True)
class BackfillTarget:
    """What a backfill is to build of one asset."""

    asset: AssetKey
    #: How many cells that is.
    cells: int
    #: Which partitions, as JSON data (`PartitionSubset.to_json`); None for an asset without partitions.
    partitions: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Backfill:
    """Cells that are to be built, in as many runs as it takes, and how far that got."""

    backfill_id: str
    status: BackfillStatus
    started: datetime
    ended: datetime | None = None
    title: str = ""
    selection: str | None = None
    #: How it goes about it; plain JSON data.
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    targets: tuple[BackfillTarget, ...] = ()
    #: Who works on it, or did last.
    user: str = ""
    host: str = ""
    pid: int = 0
    #: Its runs, oldest first.
    runs: tuple[str, ...] = ()
    #: How many cells are done, and failed, as `BackfillCells` says.
    done: int = 0
    failed: int = 0
    #: How many cells its targets have.
    total: int = 0
    error: ErrorRecord | None = None
    #: Whether it has not ended, and gave no sign of life for longer than a lease lasts.
    lapsed: bool = False


@dataclass(frozen=True, slots=True)
class BackfillCells:
    """What the runs of a backfill made of one asset's cells; None stands for the cell without a partition. Sorted."""

    #: Those of which a version was made, or that were found to be up to date.
    done: list[str | None]
    #: Those of the others that failed when they were last attempted.
    failed: list[str | None]


class AutomationStatus(StrEnum):
    """Whether somebody wants a schedule or sensor to be evaluated."""

    RUNNING = "RUNNING"
    STOPPED = "STOPPED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Automation:
    """A schedule or sensor, as far as the catalog knows of it."""

    name: str
    #: None where nobody said anything: then it is what its definition says.
    status: AutomationStatus | None = None
    #: Up to when everything is decided: of what is due until then, nothing is evaluated any more.
    until: datetime
    #: The instant of its last tick.
    ticked: datetime | None = None
    #: What a sensor remembers from one tick to the next.
    cursor: str | None = None
    #: The last run key that was requested.
    last_run_key: str | None = None
    #: How many ticks failed in a row, since somebody last started or stopped it.
    failures: int = 0


class TickStatus(StrEnum):
    """What came of a tick."""

    #: It requested runs.
    SUCCESS = "SUCCESS"
    #: It requested none, on purpose.
    SKIPPED = "SKIPPED"
    #: It could not be evaluated.
    FAILURE = "FAILURE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """A moment at which a schedule or sensor was due, and what came of it."""

    name: str
    #: When it was due; no two ticks of one have the same.
    at: datetime
    #: When that was decided.
    evaluated: datetime
    status: TickStatus
    #: Why it was skipped.
    reason: str = ""
    error: ErrorRecord | None = None
    run_ids: tuple[str, ...] = ()
    #: The keys of those of its runs that have one, with their identifiers.
    run_keys: Mapping[str, str] = field(default_factory=dict[str, str])
    #: How many instants it stands for, of which `at` is the last: more than one where very many were dropped.
    instants: int = 1


class FactTopic(StrEnum):
    """What facts are about."""

    #: How fresh an asset's data is: by the asset's key.
    FRESHNESS = "FRESHNESS"
    #: Whether an asset is stale, of those about which somebody wants to be told: by the asset's key.
    STALENESS = "STALENESS"
    #: Up to which event an alert policy is decided: by its name.
    ALERTING = "ALERTING"
    #: What somebody is to be told, and whether that was done: by the policy's name and the number of the event.
    ALERT = "ALERT"

    @property
    def of_assets(self) -> bool:
        """Whether facts are called by the keys of assets."""
        return self in (FactTopic.FRESHNESS, FactTopic.STALENESS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """Something that was found out by looking, and holds until somebody finds out something else."""

    topic: FactTopic
    #: What it is about; no two facts of a topic have the same.
    name: str
    #: Plain JSON data.
    value: Mapping[str, Any]
    #: When that was found out.
    changed: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Daemon:
    """The process that does what goes on by itself, or the last one that did."""

    #: Counts the daemons of the catalog from 1.
    epoch: int
    started: datetime
    #: When it gave its place back; None for one that goes on, or was killed.
    ended: datetime | None = None
    user: str = ""
    host: str = ""
    pid: int = 0
    #: When process `pid` began: see `processes.start_ticks`.
    start_ticks: int | None = None
    #: Seconds since its last sign of life, or since whoever has the catalog opened it.
    silent: float = 0.0

    @property
    def name(self) -> str:
        """What it appends as (`CatalogWriter.append`)."""
        return f"daemon-{self.epoch}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConditionState:
    """What an evaluation of conditions leaves for the next one, as plain JSON data."""

    #: None for what is about all of them.
    asset: AssetKey | None
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConditionEvaluation:
    """Where the condition of an asset and all that it is made of was true, when that was another than before."""

    asset: AssetKey
    #: How many cells were requested.
    requested: int
    #: As plain JSON data.
    tree: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Backup:
    """A backup that was made."""

    path: Path
    catalog_id: str
    #: How many events it holds, which is the number of the last one.
    events: int
    #: When the last of them happened; None where there is none.
    last: datetime | None
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DefinitionChange:
    """How one asset's definition changed, when."""

    asset: AssetKey
    changed: datetime
    #: added, changed or removed.
    change: str
    #: The parts that differ: code, deps, description, …; empty for added and removed.
    parts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedEvent:
    """A row of the event log."""

    #: Counts up from 1 over the whole catalog, without gaps.
    seq: int
    time: datetime
    #: See `headwater.catalog.events.EventKind`.
    kind: str
    run_id: str | None = None
    step_key: str | None = None
    asset: AssetKey | None = None
    partition: str | None = None
    message: str = ""
    #: More, by kind; plain JSON data.
    data: Mapping[str, Any] = field(default_factory=dict[str, Any])
