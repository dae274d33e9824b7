"""Evaluating one sensor: what is asked of whoever does it, in whatever process, and what comes of it."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import cast

from headwater.catalog.config import substitute
from headwater.catalog.definitions.definitions import Definitions
from headwater.catalog.definitions.resource import resolve_resource
from headwater.catalog.definitions.run_request import RunRequest, SkipReason
from headwater.catalog.definitions.selection import coerce_selection
from headwater.catalog.definitions.sensor import SensorDefinition, SensorEvaluationContext
from headwater.catalog.instance import Instance
from headwater.catalog.partitions.dynamic import AddDynamicPartitionsRequest
from headwater.catalog.records import ErrorRecord
from headwater.materialize.execution.context import RunInfo
from headwater.materialize.execution.redaction import Redaction
from headwater.materialize.execution.resources import set_up_resource
from headwater.materialize.execution.step import describe_failure


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """A sensor that is to be evaluated, with all that its context holds."""

    sensor: str
    cursor: str | None = None
    last_run_key: str | None = None
    last_tick_completion_time: datetime | None = None
    is_first_tick_since_sensor_start: bool = True


@dataclass(frozen=True, slots=True)
class KeysChange:
    """Keys of the dynamic partitions `name` that a sensor wants deleted or added."""

    name: str
    added: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """What a sensor wants, as plain data; or why it could not be evaluated."""

    requests: list[RunRequest]
    #: Why it wants no run.
    reason: str = ""
    #: What its cursor is to be; None for what it was.
    cursor: str | None = None
    changes: tuple[KeysChange, ...] = ()
    error: ErrorRecord | None = None
    #: The beginning and the end of what it printed.
    printed: str = ""


def failed(error: BaseException) -> Evaluated:
    """That a sensor could not be evaluated."""
    return Evaluated(requests=[], error=describe_failure(error).error)


def evaluate(definitions: Definitions, wanted: Evaluation, open_instance: Callable[[], Instance]) -> Evaluated:
    """Evaluate a sensor in this process. Never raises what user code does."""
    try:
        return _evaluate(definitions, definitions.sensor(wanted.sensor), wanted, open_instance)
    except (Exception, SystemExit) as error:
        return failed(error)


def _evaluate(
    definitions: Definitions, sensor: SensorDefinition, wanted: Evaluation, open_instance: Callable[[], Instance]
) -> Evaluated:
    with contextlib.ExitStack() as stack:
        resources = {
            name: stack.enter_context(
                set_up_resource(
                    name,
                    resolve_resource(definitions.resources[name], f"resources:{name}"),
                    RunInfo(run_id=""),
                    Redaction(()),
                )
            )
            for name in sorted(sensor.resource_names)
        }
        context = SensorEvaluationContext(
            sensor_name=sensor.name,
            cursor=wanted.cursor,
            last_run_key=wanted.last_run_key,
            last_tick_completion_time=wanted.last_tick_completion_time,
            is_first_tick_since_sensor_start=wanted.is_first_tick_since_sensor_start,
            open_instance=open_instance,
            definitions=definitions,
            resources=resources,
        )
        result = sensor.evaluate(context)
    return Evaluated(
        requests=[_plain(sensor, request) for request in result.run_requests or ()],
        reason=cast(SkipReason, result.skip_reason or SkipReason()).skip_message,
        cursor=result.cursor,
        changes=tuple(
            KeysChange(one.partitions_def_name, added=one.partition_keys)
            if isinstance(one, AddDynamicPartitionsRequest)
            else KeysChange(one.partitions_def_name, deleted=one.partition_keys)
            for one in result.dynamic_partitions_requests or ()
        ),
    )


def _plain(sensor: SensorDefinition, request: RunRequest) -> RunRequest:
    """A request that another process understands, and that says which job it means. Raises `HeadwaterError`."""
    narrowed = request.asset_selection
    return replace(
        request,
        run_config=request.run_config and substitute(request.run_config, lambda reference, _: {"env": reference.name}),
        partition_key=None if request.partition_key is None else str(request.partition_key),
        asset_selection=None if narrowed is None else str(coerce_selection(narrowed)),
        job_name=sensor.job_of(request),
    )
