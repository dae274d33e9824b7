"""One attempt at a step: load its inputs, call the user's function, write what it returns.

A `StepSpec` is all that an attempt is told and a `StepResult` all that it tells, both plain data: the same step can
run in this process or in another one. An attempt never touches the catalog.
"""

import functools
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from headwater.catalog.definitions.asset import AssetsDefinition
from headwater.catalog.definitions.definitions import Definitions
from headwater.catalog.definitions.policies import Failure, RetryRequested
from headwater.catalog.definitions.results import NO_VALUE
from headwater.catalog.definitions.signature import InputDefinition
from headwater.catalog.errors import HeadwaterError, MissingDataError, ResourceError, UserCodeError
from headwater.catalog.keys import AssetKey
from headwater.catalog.metadata import MetadataValue, normalize
from headwater.catalog.records import Cell, ErrorRecord, LogSlice, PlannedCell, Pointer
from headwater.io.base import InputContext, OutputContext, PartitionsInputContext, Staged, StoredPartition
from headwater.io.representation import mapping_of
from headwater.materialize.execution.compute import Produced, Refused, compute, compute_partitions
from headwater.materialize.execution.context import AssetExecutionContext, RunInfo
from headwater.materialize.execution.partitions import StepPartitions
from headwater.materialize.execution.user_traceback import user_traceback
from headwater.materialize.io_managers import IOManagers

#: Characters of a traceback or message that are kept.
MAX_ERROR_TEXT = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPart:
    """A version of one partition of an asset, or of an unpartitioned asset."""

    partition: str | None
    version_id: str
    #: None where it stores nothing.
    pointer: Pointer | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StepInput:
    """The versions of an upstream asset's partitions that a parameter is filled with."""

    parameter: str
    asset: AssetKey
    #: In the order of the asset's partitions definition. An unpartitioned asset has one, or none.
    parts: tuple[StoredPart, ...]
    #: Whether the parameter takes any number of partitions, whatever their number is here; otherwise the value of one.
    several: bool = False
    #: Whether there may be none: the parameter is then filled with None.
    optional: bool = False
    columns: tuple[str, ...] | None = None
    #: Columns to add to frames: name → the text of each of `parts`.
    partition_columns: Mapping[str, Sequence[str]] = field(default_factory=dict[str, Sequence[str]])


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSpec:
    """What one attempt at a step is to do."""

    run: RunInfo
    step_key: str
    #: The step's place in the plan, from 0.
    number: int
    attempt: int
    #: Assets and their partitions, not necessarily every combination of them.
    cells: tuple[PlannedCell, ...]
    inputs: tuple[StepInput, ...]
    #: None for assets without partitions.
    partitions: StepPartitions | None = None
    #: Where the current version of each cell lies, and whether this code is another than the one that made it.
    previous: Mapping[Cell, tuple[Pointer | None, bool]] = field(default_factory=dict[Cell, Any])
    #: For the footer of each file.
    provenance: Mapping[Cell, Mapping[str, str]] = field(default_factory=dict[Cell, Any])
    run_config: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class StepOutput:
    """One version that an attempt made."""

    cell: PlannedCell
    pointer: Pointer | None
    #: None where neither the user nor the IO manager knows one.
    data_version: str | None
    metadata: Mapping[str, MetadataValue]
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFailure:
    """Why an attempt failed, and whether user code said something about trying again."""

    error: ErrorRecord
    #: The exit code of the command line, by kind of error.
    exit_code: int = UserCodeError.exit_code
    canceled: bool = False
    allow_retries: bool = True
    #: What a RetryRequested asked for: how often at most, and seconds to wait.
    retry: tuple[int, float] | None = None
    #: The exception itself, where the step ran in this process.
    exception: BaseException | None = field(default=None, compare=False, repr=False)


#: What became of an attempt that the run was not to wait for.
CANCELED = StepFailure(
    error=ErrorRecord(kind="Canceled", message="the run was canceled"), canceled=True, allow_retries=False
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CellFailure:
    """Why one cell of an attempt failed."""

    cell: PlannedCell
    failure: StepFailure


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """What became of one attempt.

    A step of one partition, or of none, makes all of its outputs or fails as a whole. In one of several partitions
    each cell fails by itself. A cell that is in neither `outputs` nor `failed` is an optional output that was not made.
    """

    spec: StepSpec
    #: Wall seconds, publishing excluded.
    seconds: float
    outputs: tuple[StepOutput, ...] = ()
    #: The cells that failed, where others did not; each for its own reason.
    failed: tuple[CellFailure, ...] = ()
    #: Why nothing succeeded. `failed` then has the reason of each cell that has one of its own.
    failure: StepFailure | None = None
    logs: tuple[LogSlice, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StepEnvironment:
    """What every step of a run uses."""

    definitions: Definitions
    io_managers: IOManagers
    #: The run's own resources, set up.
    resources: Mapping[str, Any]
    #: Raises `ResourceError` for a step that needs a resource that could not be set up.
    check_resources: Callable[[AssetsDefinition], None]
    #: Receives each line that user code logs: level, message.
    log: Callable[[str, str, str], None]


#: A version, and what of it is not published yet.
_Stored = tuple[StepOutput, Staged | None]

#: Partitions that a step writes before it makes them durable: each keeps a file open.
MAX_WRITTEN = 50


class Attempt:
    """An attempt that has computed; `publish` makes its outputs durable and gives the result."""

    def __init__(self, spec: StepSpec, seconds: float) -> None:
        self.spec = spec
        self.seconds = seconds
        self.logs: tuple[LogSlice, ...] = ()
        self.failure: StepFailure | None = None
        self.failed: list[CellFailure] = []
        self.outputs: list[_Stored] = []
        #: Those that are durable already, where there are many.
        self.published: list[_Stored] = []

    def publish(self) -> StepResult:
        """Make every output durable, or none, or, of several partitions, those of which it is possible.

        May run in another thread than the one that computed.
        """
        if self.failure is None and self.by_cell:
            self.publish_each()
            self.settle()
        elif self.failure is None:
            try:
                for _, staged in self.outputs:
                    if staged is not None:
                        staged.publish()
            except BaseException as error:
                self.failure = describe_failure(error)
        if self.failure is not None:
            self.discard()
        return StepResult(
            spec=self.spec,
            seconds=self.seconds,
            outputs=() if self.failure else tuple(output for output, _ in (*self.published, *self.outputs)),
            failed=tuple(self.failed),
            failure=self.failure,
            logs=self.logs,
        )

    @property
    def by_cell(self) -> bool:
        """Whether its cells fail one by one."""
        return self.spec.partitions is not None and len(self.spec.partitions.keys) > 1

    def fail(self, failure: StepFailure, cells: Iterable[PlannedCell]) -> None:
        """`cells` failed, for this reason."""
        if self.failed:  # of many exceptions one is kept: each keeps whatever its traceback has in its hands
            failure = replace(failure, exception=None)
        self.failed.extend(CellFailure(cell=cell, failure=failure) for cell in cells)

    def settle(self) -> None:
        """Where no cell succeeded, the step failed, for the reason of the first that did."""
        if self.failure is None and self.failed and not self.outputs and not self.published:
            self.failure = self.failed[0].failure

    def publish_each(self) -> None:
        """Make what was written so far durable: each partition by itself, as it fails by itself."""
        written, self.outputs = self.outputs, []
        for output, staged in written:
            try:
                if staged is not None:
                    staged.publish()
            except BaseException as error:
                if staged is not None:
                    staged.discard()
                self.fail(describe_failure(error), [output.cell])
            else:
                self.published.append((output, staged))

    def discard(self) -> None:
        """Remove whatever the attempt wrote."""
        for _, staged in (*self.published, *self.outputs):
            if staged is not None:
                staged.discard()


def attempt_step(spec: StepSpec, environment: StepEnvironment) -> Attempt:
    """Run one attempt up to where its outputs are written and nobody can see them. Never raises."""
    started = time.perf_counter()
    attempt = Attempt(spec, 0.0)
    try:
        _run(spec, environment, attempt)
    except BaseException as error:
        attempt.failure = describe_failure(error)
    attempt.seconds = time.perf_counter() - started
    return attempt


def _run(spec: StepSpec, environment: StepEnvironment, attempt: Attempt) -> None:
    definitions = environment.definitions
    definition = definitions.definition_of(spec.cells[0].asset)
    environment.check_resources(definition)
    assets = frozenset(cell.asset for cell in spec.cells)
    log = _logger(spec.step_key, environment.log)
    context = AssetExecutionContext(
        step_key=spec.step_key,
        outputs={o.name: o.spec.key for o in definition.outputs if o.spec.key in assets},
        run=spec.run,
        log=log,
        resources={name: environment.resources[name] for name in definition.required_resource_keys},
        config=definitions.config_of(definition, spec.run_config),
        partitions=spec.partitions,
        input_partitions=_input_partitions(spec),
        retry_number=spec.attempt - 1,
    )
    arguments = _arguments(spec, definition, environment, context)
    store = functools.partial(_store, spec, definition, environment, context)
    partitions = spec.partitions or StepPartitions(keys=(), contiguous=True)
    # What the function gives has to be told apart by partition wherever a step may have several, whether this one has
    # or not: the number of partitions left over for the last step must not change what is asked of it.
    if definition.batch == 1 and len(partitions.keys) <= 1:
        items = compute(definition, arguments, assets, next(iter(partitions.keys), None))
    else:
        items = compute_partitions(definition, arguments, assets, partitions)
    (_store_each if attempt.by_cell else _store_all)(attempt, items, store)


def _store_all(
    attempt: Attempt, items: Iterator[Produced | Refused], store: Callable[[Produced, PlannedCell], "_Stored"]
) -> None:
    """Write what a function makes of one partition, or without any: everything, or the step has failed."""
    cells = {cell.asset: cell for cell in attempt.spec.cells}
    for item in items:
        if isinstance(item, Refused):
            raise item.error
        attempt.outputs.append(store(item, cells[item.output.spec.key]))


def _store_each(
    attempt: Attempt, items: Iterator[Produced | Refused], store: Callable[[Produced, PlannedCell], "_Stored"]
) -> None:
    """Write what a function makes of several partitions, as it makes it: what fails for one cell fails for that alone.

    When the function itself raises, what it has given counts, and what it has not fails.
    """
    left = {(cell.asset, cell.partition): cell for cell in attempt.spec.cells}
    assets = dict.fromkeys(cell.asset for cell in attempt.spec.cells)
    try:
        for item in items:
            if isinstance(item, Refused):
                keys = assets if item.output is None else [item.output.spec.key]
                refused = [left.pop((key, item.partition), None) for key in keys]
                attempt.fail(describe_failure(item.error), [cell for cell in refused if cell is not None])
                continue
            cell = left.pop((item.output.spec.key, item.partition), None)
            if cell is None:  # nobody asked for this one
                continue
            try:
                attempt.outputs.append(store(item, cell))
            except Exception as error:
                attempt.fail(describe_failure(error), [cell])
            if len(attempt.outputs) >= MAX_WRITTEN:
                attempt.publish_each()
    except BaseException as error:
        attempt.fail(describe_failure(error), left.values())
    attempt.settle()


def _input_partitions(spec: StepSpec) -> dict[str, tuple[str, ...]]:
    """The partitions that each parameter reads, of those that read a partitioned asset."""
    found: dict[str, tuple[str, ...]] = {}
    for source in spec.inputs:
        keys = tuple(part.partition for part in source.parts if part.partition is not None)
        if keys or source.several or not source.parts:
            found[source.parameter] = keys
    return found


def _arguments(
    spec: StepSpec, definition: AssetsDefinition, environment: StepEnvironment, context: AssetExecutionContext
) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        parameter: environment.resources[name] for parameter, name in definition.resources.items()
    }
    if definition.context_parameter is not None:
        arguments[definition.context_parameter] = context
    if definition.config_parameter is not None:
        arguments[definition.config_parameter] = context.config
    given = {item.parameter: item for item in spec.inputs}
    for item in definition.inputs:
        source = given[item.parameter]
        load = _load_several if source.several else _load_one
        arguments[item.parameter] = load(definition, item, source, environment, context)
    return arguments


def _load_one(
    definition: AssetsDefinition,
    item: InputDefinition,
    source: StepInput,
    environment: StepEnvironment,
    context: AssetExecutionContext,
) -> Any:
    if source.optional and not source.parts:
        return None
    if not source.parts:
        raise MissingDataError(
            f"`{definition.name}` reads the value of `{item.key}`, and there is no version of it.",
            remedy=f"Materialize `{item.key}` first, or report it if something else computes it.",
        )
    (part,) = source.parts  # whoever made the spec says `several` where there may be more
    upstream = environment.definitions.spec_of(item.key)
    manager = environment.io_managers.for_input(item.key, item.input_manager_key)
    return manager.load_input(
        InputContext(
            asset_key=item.key,
            partition_key=part.partition,
            version_id=part.version_id,
            pointer=_stored_pointer(definition, item, part),
            annotation=item.annotation,
            columns=source.columns,
            metadata=item.metadata,
            definition_metadata=upstream.metadata if upstream else {},
            log=context.log,
        )
    )


def _load_several(
    definition: AssetsDefinition,
    item: InputDefinition,
    source: StepInput,
    environment: StepEnvironment,
    context: AssetExecutionContext,
) -> Any:
    upstream = environment.definitions.spec_of(item.key)
    manager = environment.io_managers.for_input(item.key, item.input_manager_key)
    return manager.load_partitions(
        PartitionsInputContext(
            asset_key=item.key,
            partitions=tuple(
                StoredPartition(
                    partition_key=part.partition or "",
                    version_id=part.version_id,
                    pointer=_stored_pointer(definition, item, part),
                )
                for part in source.parts
            ),
            annotation=item.annotation,
            columns=source.columns,
            partition_columns=source.partition_columns,
            metadata=item.metadata,
            definition_metadata=upstream.metadata if upstream else {},
            log=context.log,
        )
    )


def _stored_pointer(definition: AssetsDefinition, item: InputDefinition, part: StoredPart) -> Pointer:
    if part.pointer is not None:
        return part.pointer
    raise MissingDataError(
        f"`{definition.name}` reads the value of `{item.key}`, and `{Cell(item.key, part.partition)}` stores nothing.",
        remedy=f"List it in deps instead of as a parameter, or have `{item.key}` return its value.",
    )


def _store(
    spec: StepSpec,
    definition: AssetsDefinition,
    environment: StepEnvironment,
    context: AssetExecutionContext,
    produced: Produced,
    cell: PlannedCell,
) -> _Stored:
    output = produced.output
    metadata = {**context.output_metadata(output.name, produced.partition), **produced.metadata}
    # Whatever cannot be kept is refused before anything is written.
    normalize(metadata, f"asset `{output.spec.key}`")
    staged: Staged | None = None
    if produced.value is not NO_VALUE:
        previous, code_changed = spec.previous.get(Cell(cell.asset, cell.partition), (None, True))
        target = OutputContext(
            asset_key=cell.asset,
            partition_key=produced.partition,
            version_id=cell.version_id,
            run_id=spec.run.run_id,
            step_key=spec.step_key,
            annotation=_annotation_of_value(definition),
            definition_metadata=output.spec.metadata,
            previous=previous,
            code_changed=code_changed,
            provenance=spec.provenance.get(Cell(cell.asset, cell.partition), {}),
            log=context.log,
        )
        staged = environment.io_managers.for_output(cell.asset).stage(target, produced.value)
        metadata.update(target.added_metadata)
    stored = StepOutput(
        cell=cell,
        pointer=staged.pointer if staged else None,
        data_version=produced.data_version or (staged.data_version if staged else None),
        metadata=normalize(metadata, f"asset `{output.spec.key}`"),
        tags=produced.tags,
    )
    return stored, staged


def _annotation_of_value(definition: AssetsDefinition) -> Any:
    """What the function says of the value of one output, and of one partition of it where it gives several."""
    if definition.is_multi:
        return None
    by_partition = None if definition.batch == 1 else mapping_of(definition.return_annotation)
    return definition.return_annotation if by_partition is None else by_partition.element


def describe_failure(error: BaseException) -> StepFailure:
    """What the record says of an exception that ended an attempt. Never raises."""
    try:
        described = _describe(error)
    except Exception as other:  # what user code put into the exception cannot be kept
        record = _record(error)
        record = replace(record, message=f"{record.message}\n({other})")
        described = StepFailure(error=record, allow_retries=bool(getattr(error, "allow_retries", True)))
    return replace(described, exception=error)


def _describe(error: BaseException) -> StepFailure:
    match error:
        case KeyboardInterrupt():
            record = ErrorRecord(kind="KeyboardInterrupt", message="interrupted")
            return StepFailure(error=record, canceled=True, allow_retries=False)
        case RetryRequested():
            cause = error.__cause__
            record = _record(cause or error)
            return StepFailure(error=record, retry=(error.max_retries, error.seconds_to_wait or 0.0))
        case Failure():
            record = _record(error, error.description or "Failure", normalize(error.metadata, "the failure"))
            return StepFailure(error=record, allow_retries=error.allow_retries)
        case ResourceError():  # its message holds the traceback, and trying again sets nothing up
            record = ErrorRecord(kind=error.code, message=error.message[:MAX_ERROR_TEXT], remedy=error.remedy)
            return StepFailure(error=record, exit_code=error.exit_code, allow_retries=False)
        case HeadwaterError():
            record = ErrorRecord(
                kind=error.code,
                message=error.message[:MAX_ERROR_TEXT],
                remedy=error.remedy,
                traceback=_traceback(error),
            )
            return StepFailure(error=record, exit_code=error.exit_code)
        case SystemExit():
            return StepFailure(error=_record(error, f"SystemExit({error.code})"))
        case _:
            return StepFailure(error=_record(error))


def _record(
    error: BaseException, message: str | None = None, metadata: Mapping[str, MetadataValue] | None = None
) -> ErrorRecord:
    try:
        text = str(error if message is None else message)
    except Exception:  # an exception whose own __str__ fails
        text = "<an exception that cannot be printed>"
    return ErrorRecord(
        kind=type(error).__qualname__,
        message=text[:MAX_ERROR_TEXT],
        traceback=_traceback(error),
        metadata=metadata or {},
    )


def _traceback(error: BaseException) -> str:
    text = user_traceback(error)
    return text if len(text) <= MAX_ERROR_TEXT else f"{text[: MAX_ERROR_TEXT // 2]}\n…\n{text[-MAX_ERROR_TEXT // 2 :]}"


class _EventHandler(logging.Handler):
    def __init__(self, step_key: str, emit: Callable[[str, str, str], None]) -> None:
        super().__init__()
        self._step_key = step_key
        self._emit = emit

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = self.format(record)
        except Exception:  # logging's own rule: a bad format string never harms the program
            message = str(record.msg)
        self._emit(self._step_key, record.levelname, message[:MAX_ERROR_TEXT])


def _logger(step_key: str, emit: Callable[[str, str, str], None]) -> logging.Logger:
    """A logger whose lines become events; apart from the tree of loggers, so that nobody's settings silence it."""
    logger = logging.Logger(f"headwater.step.{step_key}", logging.DEBUG)
    logger.addHandler(_EventHandler(step_key, emit))
    return logger
