"""What is written to the catalog: events, and nothing else.

A write appends events; the same transaction brings the tables of current state up to date with them (assets,
cells, materializations, runs, steps). So history and state cannot disagree, and a storage has one write operation.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from headwater.catalog.keys import AssetKey
from headwater.catalog.metadata import MetadataValue
from headwater.catalog.records import (
    AutomationStatus,
    BackfillStatus,
    BackfillTarget,
    ConditionEvaluation,
    ConditionState,
    DefinitionChange,
    ErrorRecord,
    FactTopic,
    LogSlice,
    Materialization,
    PlannedStep,
    RunStatus,
    StepCell,
    StepStatus,
    TickStatus,
)


class EventKind(StrEnum):
    """The names of events in the log."""

    RUN_QUEUED = "RUN_QUEUED"
    RUN_STARTING = "RUN_STARTING"
    RUN_START = "RUN_START"
    RUN_CANCELING = "RUN_CANCELING"
    RUN_SUCCESS = "RUN_SUCCESS"
    RUN_FAILURE = "RUN_FAILURE"
    RUN_CANCELED = "RUN_CANCELED"
    RUN_INTERRUPTED = "RUN_INTERRUPTED"
    STEP_START = "STEP_START"
    STEP_SUCCESS = "STEP_SUCCESS"
    STEP_FAILURE = "STEP_FAILURE"
    STEP_SKIPPED = "STEP_SKIPPED"
    STEP_VERIFIED = "STEP_VERIFIED"
    STEP_CANCELED = "STEP_CANCELED"
    STEP_INTERRUPTED = "STEP_INTERRUPTED"
    STEP_RETRY = "STEP_RETRY"
    SLOT_CLAIMED = "SLOT_CLAIMED"
    ASSET_MATERIALIZATION = "ASSET_MATERIALIZATION"
    LOG_MESSAGE = "LOG_MESSAGE"
    DEFINITIONS_CHANGED = "DEFINITIONS_CHANGED"
    DYNAMIC_PARTITIONS_CHANGED = "DYNAMIC_PARTITIONS_CHANGED"
    BACKFILL_START = "BACKFILL_START"
    BACKFILL_RESUME = "BACKFILL_RESUME"
    BACKFILL_SUCCESS = "BACKFILL_SUCCESS"
    BACKFILL_FAILURE = "BACKFILL_FAILURE"
    BACKFILL_CANCELED = "BACKFILL_CANCELED"
    AUTOMATION_RUNNING = "AUTOMATION_RUNNING"
    AUTOMATION_STOPPED = "AUTOMATION_STOPPED"
    AUTOMATION_SEEN = "AUTOMATION_SEEN"
    TICK_SUCCESS = "TICK_SUCCESS"
    TICK_SKIPPED = "TICK_SKIPPED"
    TICK_FAILURE = "TICK_FAILURE"
    TICKS_PURGED = "TICKS_PURGED"
    DAEMON_START = "DAEMON_START"
    DAEMON_STOP = "DAEMON_STOP"
    FRESHNESS_CHANGED = "FRESHNESS_CHANGED"
    STALENESS_CHANGED = "STALENESS_CHANGED"
    ALERTING_CHANGED = "ALERTING_CHANGED"
    ALERT_CHANGED = "ALERT_CHANGED"
    CONDITION_EVALUATED = "CONDITION_EVALUATED"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunQueued:
    """A run is to be carried out when its turn comes, by the process that is named; 0 stands for any."""

    time: datetime
    run_id: str
    job: str | None = None
    selection: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    user: str = ""
    host: str = ""
    pid: int = 0
    #: When process `pid` began: see `processes.start_ticks`.
    start_ticks: int | None = None
    backfill_id: str | None = None
    parent_run_id: str | None = None
    root_run_id: str | None = None
    pools: tuple[str, ...] = ()
    #: The run that builds the same, and that it waits for.
    behind: str | None = None
    request: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class RunMoved:
    """A run that is not over goes from one of its waiting statuses to another.

    STARTING: its turn has come. QUEUED: it gives its turn back, as it waits for the run `behind`. CANCELING: somebody
    asked it to stop.
    """

    time: datetime
    run_id: str
    status: RunStatus
    user: str = ""
    #: The process that has it from now on; 0 where that stays.
    host: str = ""
    pid: int = 0
    #: When process `pid` began: see `processes.start_ticks`.
    start_ticks: int | None = None
    behind: str | None = None
    #: See `RunStarted`.
    claims_before: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted:
    """A run begins, out of the queue or at once; its plan, with the version each cell is going to get, is part of it.

    What a run is about is told when it is first heard of: for one out of the queue, only `steps`, `host` and `pid`
    matter.
    """

    time: datetime
    run_id: str
    steps: tuple[PlannedStep, ...]
    job: str | None = None
    selection: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    user: str = ""
    host: str = ""
    pid: int = 0
    #: When process `pid` began: see `processes.start_ticks`.
    start_ticks: int | None = None
    #: The backfill that it is a part of.
    backfill_id: str | None = None
    parent_run_id: str | None = None
    root_run_id: str | None = None
    pools: tuple[str, ...] = ()
    request: Mapping[str, Any] = field(default_factory=dict[str, Any])
    #: How many claims the catalog has to have for this one to be granted: nobody claimed anything since somebody
    #: looked what there is to have. The claims are RunStarted, RunMoved to STARTING and SlotClaimed.
    claims_before: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnded:
    """A run came to its end; `status` is final."""

    time: datetime
    run_id: str
    status: RunStatus
    error: ErrorRecord | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StepStarted:
    """An attempt at a step begins."""

    time: datetime
    run_id: str
    step_key: str
    attempt: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotClaimed:
    """An attempt at a step has a place in a pool, until the attempt ends, or its run."""

    time: datetime
    run_id: str
    step_key: str
    pool: str
    attempt: int = 1
    #: See `RunStarted`.
    claims_before: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRetried:
    """An attempt at a step failed and there is going to be another, `delay` seconds later."""

    time: datetime
    run_id: str
    step_key: str
    attempt: int
    delay: float
    error: ErrorRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class StepEnded:
    """A step came to its end; what it materialized is recorded with it, all or nothing."""

    time: datetime
    run_id: str
    step_key: str
    status: StepStatus
    cells: tuple[StepCell, ...]
    materializations: tuple[Materialization, ...] = ()
    error: ErrorRecord | None = None
    logs: tuple[LogSlice, ...] = ()
    #: Why, in words, where the status alone does not say it.
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogMessage:
    """A line that user code logged through its context."""

    time: datetime
    run_id: str
    step_key: str | None
    level: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AssetDefinition:
    """The definition of one asset as the catalog keeps it."""

    asset: AssetKey
    #: Everything that a graph needs to know of it, as JSON data (see `lineage.asset_graph`).
    data: Mapping[str, Any]
    metadata: Mapping[str, MetadataValue] = field(default_factory=dict[str, MetadataValue])


@dataclass(frozen=True, slots=True, kw_only=True)
class DefinitionsChanged:
    """The project's definitions are not what they were: what changed, and the new ones of what did."""

    time: datetime
    changes: tuple[DefinitionChange, ...]
    #: New definitions of every added and changed asset.
    definitions: tuple[AssetDefinition, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DynamicPartitionsChanged:
    """Keys of the dynamic partitions `name` are deleted, and then others added behind those that are there.

    Deleting a key that is not there and adding one that is change nothing but the log. What was built for a deleted
    key stays.
    """

    time: datetime
    name: str
    added: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BackfillStarted:
    """A backfill begins: what it is to build, whatever number of runs that takes."""

    time: datetime
    backfill_id: str
    targets: tuple[BackfillTarget, ...]
    title: str = ""
    selection: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    user: str = ""
    host: str = ""
    pid: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BackfillResumed:
    """Somebody goes on with a backfill that failed, or whose process died."""

    time: datetime
    backfill_id: str
    user: str = ""
    host: str = ""
    pid: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BackfillEnded:
    """A backfill came to an end; SUCCESS and CANCELED are final."""

    time: datetime
    backfill_id: str
    status: BackfillStatus
    error: ErrorRecord | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AutomationMoved:
    """A schedule or sensor is started or stopped, or given another cursor; or seen for the first time, with no status.

    What it was due for until then is decided: nothing of it is evaluated.
    """

    time: datetime
    name: str
    status: AutomationStatus | None = None
    #: See `Automation.until`; the last tick is never undone.
    until: datetime
    #: What that was when whoever moves it looked: None for one that the catalog knows nothing of.
    after: datetime | None = None
    #: What a sensor's cursor is from now on.
    cursor: str | None = None
    user: str = ""
    host: str = ""
    pid: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TickEnded:
    """A tick was evaluated; its runs are recorded in the same transaction."""

    time: datetime
    name: str
    at: datetime
    #: `Automation.until` as it was before.
    after: datetime
    status: TickStatus
    reason: str = ""
    error: ErrorRecord | None = None
    run_ids: tuple[str, ...] = ()
    run_keys: Mapping[str, str] = field(default_factory=dict[str, str])
    instants: int = 1
    #: What a sensor's cursor is from now on; None for what it was.
    cursor: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TicksPurged:
    """Old ticks are no longer kept: the oldest `limit` of those that ended so, of these names, evaluated `before`.

    Which runs they requested by which run keys is kept.
    """

    time: datetime
    names: tuple[str, ...]
    status: TickStatus
    before: datetime
    limit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonStarted:
    """A process is the daemon from now on, and whoever was it before is not."""

    time: datetime
    #: One more than that of the daemon before: of several that looked at the same time one gets it.
    epoch: int
    user: str = ""
    host: str = ""
    pid: int = 0
    #: When process `pid` began: see `processes.start_ticks`.
    start_ticks: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonStopped:
    """The daemon of that epoch gives its place back."""

    time: datetime
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FactChanged:
    """A fact is not what it was: of several who find out the same at the same time, one is the first."""

    time: datetime
    topic: FactTopic
    name: str
    #: Plain JSON data.
    value: Mapping[str, Any]
    #: What it was when whoever found out looked; None where nobody knew anything.
    before: Mapping[str, Any] | None = None
    #: In words.
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConditionsEvaluated:
    """Conditions were evaluated: what is different about them, and what the next evaluation is to know.

    It goes with the tick of that evaluation, and is refused with it.
    """

    time: datetime
    states: tuple[ConditionState, ...]
    evaluations: tuple[ConditionEvaluation, ...] = ()


Event = (
    RunQueued
    | RunMoved
    | RunStarted
    | RunEnded
    | SlotClaimed
    | StepStarted
    | StepRetried
    | StepEnded
    | LogMessage
    | DefinitionsChanged
    | DynamicPartitionsChanged
    | BackfillStarted
    | BackfillResumed
    | BackfillEnded
    | AutomationMoved
    | TickEnded
    | TicksPurged
    | DaemonStarted
    | DaemonStopped
    | FactChanged
    | ConditionsEvaluated
)
