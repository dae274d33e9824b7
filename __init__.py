"""Headwater: define data assets, know exactly what is stale and why, rebuild only that.

Public names are loaded when they are first used, so that `import headwater` costs next to nothing.
"""

# pyright: reportUnusedImport=false

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_NAMES = {
    "headwater.catalog.config": ("Config", "EnvVar"),
    "headwater.catalog.definitions.alerts": (
        "AlertEvent",
        "AlertPolicy",
        "CommandTarget",
        "EmailTarget",
        "SlackTarget",
        "WebhookTarget",
    ),
    "headwater.catalog.definitions.asset": (
        "AssetDep",
        "AssetIn",
        "AssetOut",
        "AssetSpec",
        "AssetsDefinition",
        "SourceAsset",
        "asset",
        "multi_asset",
    ),
    "headwater.catalog.definitions.condition": ("AutomationCondition",),
    "headwater.catalog.definitions.definitions": (
        "Definitions",
        "load_assets_from_current_module",
        "load_assets_from_modules",
        "load_assets_from_package_module",
    ),
    "headwater.catalog.definitions.event_sensors": (
        "MultiAssetSensorEvaluationContext",
        "RunStatusSensorContext",
        "asset_sensor",
        "build_multi_asset_sensor_context",
        "build_run_status_sensor_context",
        "multi_asset_sensor",
        "run_failure_sensor",
        "run_status_sensor",
    ),
    "headwater.catalog.definitions.hooks": (
        "HookDefinition",
        "failure_hook",
        "run_failure_hook",
        "run_success_hook",
        "success_hook",
    ),
    "headwater.catalog.definitions.job": ("JobDefinition", "define_asset_job"),
    "headwater.catalog.definitions.observation": ("Observation", "observable_source_asset"),
    "headwater.catalog.definitions.policies": (
        "BackfillPolicy",
        "Backoff",
        "Failure",
        "Jitter",
        "RetryPolicy",
        "RetryRequested",
    ),
    "headwater.catalog.definitions.resource": ("ConfigurableResource", "ResourceParam"),
    "headwater.catalog.definitions.results": (
        "AssetMaterialization",
        "AssetObservation",
        "DataVersion",
        "DataVersionsByPartition",
        "MaterializeResult",
        "ObserveResult",
        "Output",
    ),
    "headwater.catalog.definitions.run_request": ("RunRequest", "SkipReason"),
    "headwater.catalog.definitions.schedule": (
        "DefaultScheduleStatus",
        "ScheduleDefinition",
        "ScheduleEvaluationContext",
        "build_schedule_context",
        "build_schedule_from_partitioned_job",
        "schedule",
    ),
    "headwater.catalog.definitions.selection": ("AssetSelection",),
    "headwater.catalog.definitions.sensor": (
        "DefaultSensorStatus",
        "SensorDefinition",
        "SensorEvaluationContext",
        "SensorResult",
        "build_sensor_context",
        "sensor",
    ),
    "headwater.catalog.errors": ("HeadwaterError",),
    "headwater.catalog.freshness": ("FreshnessPolicy", "FreshnessState"),
    "headwater.catalog.instance": ("Instance",),
    "headwater.catalog.keys": ("AssetKey",),
    "headwater.catalog.metadata": (
        "MetadataValue",
        "TableColumn",
        "TableColumnConstraints",
        "TableColumnDep",
        "TableColumnLineage",
        "TableConstraints",
        "TableRecord",
        "TableSchema",
    ),
    "headwater.catalog.partitions.definition": (
        "DynamicKeys",
        "InMemoryDynamicKeys",
        "PartitionKeyRange",
        "PartitionsContext",
        "PartitionsDefinition",
        "TimeWindow",
    ),
    "headwater.catalog.partitions.dynamic": (
        "AddDynamicPartitionsRequest",
        "DeleteDynamicPartitionsRequest",
        "DynamicPartitionsDefinition",
    ),
    "headwater.catalog.partitions.mapping": (
        "AllPartitionMapping",
        "BusinessCalendarPartitionMapping",
        "DimensionPartitionMapping",
        "IdentityPartitionMapping",
        "LastPartitionMapping",
        "MultiPartitionMapping",
        "MultiToSingleDimensionPartitionMapping",
        "PartitionMapping",
        "SpecificPartitionsPartitionMapping",
        "StaticPartitionMapping",
        "TimeWindowPartitionMapping",
    ),
    "headwater.catalog.partitions.multi": ("MultiPartitionKey", "MultiPartitionsDefinition"),
    "headwater.catalog.partitions.static": ("StaticPartitionsDefinition",),
    "headwater.catalog.partitions.subset": ("PartitionSubset",),
    "headwater.catalog.partitions.time_window": (
        "DailyPartitionsDefinition",
        "HourlyPartitionsDefinition",
        "MonthlyPartitionsDefinition",
        "TimeWindowPartitionsDefinition",
        "WeeklyPartitionsDefinition",
    ),
    "headwater.catalog.records": ("RunStatus",),
    "headwater.io.base": ("ConfigurableIOManager", "IOManager", "InputContext", "OutputContext"),
    "headwater.io.file_manager": ("FileIOManager",),
    "headwater.io.json_values": ("JsonIOManager",),
    "headwater.io.memory": ("InMemoryIOManager",),
    "headwater.io.parquet": ("ParquetIOManager",),
    "headwater.io.pickled": ("PickleIOManager",),
    "headwater.materialize.api": ("RunResult", "observe", "plan"),
    "headwater.materialize.automation.conditions.testing": (
        "EvaluateAutomationConditionsResult",
        "evaluate_automation_conditions",
    ),
    "headwater.materialize.backfill": (
        "BackfillResult",
        "BackfillSettings",
        "backfill",
        "cancel_backfill",
        "resume_backfill",
    ),
    "headwater.materialize.catalog": ("Catalog",),
    "headwater.materialize.loading": ("load_asset",),
    "headwater.materialize.execution.context": ("AssetExecutionContext", "build_asset_context"),
    "headwater.materialize.execution.hooks": ("HookContext",),
    "headwater.materialize.reporting": ("report",),
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names}
#: Both the package and, called, the function: docs/decisions/0003-a-callable-package.md.
_PACKAGE = "materialize"

__all__ = ["__version__", *_HOMES, "materialize"]  # noqa: PLE0604  # pyright: ignore[reportUnsupportedDunderAll]

if TYPE_CHECKING:
    from headwater.catalog.config import Config, EnvVar
    from headwater.catalog.definitions.alerts import (
        AlertEvent,
        AlertPolicy,
        CommandTarget,
        EmailTarget,
        SlackTarget,
        WebhookTarget,
    )
    from headwater.catalog.definitions.asset import (
        AssetDep,
        AssetIn,
        AssetOut,
        AssetsDefinition,
        AssetSpec,
        SourceAsset,
        asset,
        multi_asset,
    )
    from headwater.catalog.definitions.condition import AutomationCondition
    from headwater.catalog.definitions.definitions import (
        Definitions,
        load_assets_from_current_module,
        load_assets_from_modules,
        load_assets_from_package_module,
    )
    from headwater.catalog.definitions.event_sensors import (
        MultiAssetSensorEvaluationContext,
        RunStatusSensorContext,
        asset_sensor,
        build_multi_asset_sensor_context,
        build_run_status_sensor_context,
        multi_asset_sensor,
        run_failure_sensor,
        run_status_sensor,
    )
    from headwater.catalog.definitions.hooks import (
        HookDefinition,
        failure_hook,
        run_failure_hook,
        run_success_hook,
        success_hook,
    )
    from headwater.catalog.definitions.job import JobDefinition, define_asset_job
    from headwater.catalog.definitions.observation import Observation, observable_source_asset
    from headwater.catalog.definitions.policies import (
        BackfillPolicy,
        Backoff,
        Failure,
        Jitter,
        RetryPolicy,
        RetryRequested,
    )
    from headwater.catalog.definitions.resource import ConfigurableResource, ResourceParam
    from headwater.catalog.definitions.results import (
        AssetMaterialization,
        AssetObservation,
        DataVersion,
        DataVersionsByPartition,
        MaterializeResult,
        ObserveResult,
        Output,
    )
    from headwater.catalog.definitions.run_request import RunRequest, SkipReason
    from headwater.catalog.definitions.schedule import (
        DefaultScheduleStatus,
        ScheduleDefinition,
        ScheduleEvaluationContext,
        build_schedule_context,
        build_schedule_from_partitioned_job,
        schedule,
    )
    from headwater.catalog.definitions.selection import AssetSelection
    from headwater.catalog.definitions.sensor import (
        DefaultSensorStatus,
        SensorDefinition,
        SensorEvaluationContext,
        SensorResult,
        build_sensor_context,
        sensor,
    )
    from headwater.catalog.errors import HeadwaterError
    from headwater.catalog.freshness import FreshnessPolicy, FreshnessState
    from headwater.catalog.instance import Instance
    from headwater.catalog.keys import AssetKey
    from headwater.catalog.metadata import (
        MetadataValue,
        TableColumn,
        TableColumnConstraints,
        TableColumnDep,
        TableColumnLineage,
        TableConstraints,
        TableRecord,
        TableSchema,
    )
    from headwater.catalog.partitions.definition import (
        DynamicKeys,
        InMemoryDynamicKeys,
        PartitionKeyRange,
        PartitionsContext,
        PartitionsDefinition,
        TimeWindow,
    )
    from headwater.catalog.partitions.dynamic import (
        AddDynamicPartitionsRequest,
        DeleteDynamicPartitionsRequest,
        DynamicPartitionsDefinition,
    )
    from headwater.catalog.partitions.mapping import (
        AllPartitionMapping,
        BusinessCalendarPartitionMapping,
        DimensionPartitionMapping,
        IdentityPartitionMapping,
        LastPartitionMapping,
        MultiPartitionMapping,
        MultiToSingleDimensionPartitionMapping,
        PartitionMapping,
        SpecificPartitionsPartitionMapping,
        StaticPartitionMapping,
        TimeWindowPartitionMapping,
    )
    from headwater.catalog.partitions.multi import MultiPartitionKey, MultiPartitionsDefinition
    from headwater.catalog.partitions.static import StaticPartitionsDefinition
    from headwater.catalog.partitions.subset import PartitionSubset
    from headwater.catalog.partitions.time_window import (
        DailyPartitionsDefinition,
        HourlyPartitionsDefinition,
        MonthlyPartitionsDefinition,
        TimeWindowPartitionsDefinition,
        WeeklyPartitionsDefinition,
    )
    from headwater.catalog.records import RunStatus
    from headwater.io.base import ConfigurableIOManager, InputContext, IOManager, OutputContext
    from headwater.io.file_manager import FileIOManager
    from headwater.io.json_values import JsonIOManager
    from headwater.io.memory import InMemoryIOManager
    from headwater.io.parquet import ParquetIOManager
    from headwater.io.pickled import PickleIOManager
    from headwater.materialize.api import RunResult, materialize, observe, plan
    from headwater.materialize.automation.conditions.testing import (
        EvaluateAutomationConditionsResult,
        evaluate_automation_conditions,
    )
    from headwater.materialize.backfill import (
        BackfillResult,
        BackfillSettings,
        backfill,
        cancel_backfill,
        resume_backfill,
    )
    from headwater.materialize.catalog import Catalog
    from headwater.materialize.execution.context import AssetExecutionContext, build_asset_context
    from headwater.materialize.execution.hooks import HookContext
    from headwater.materialize.loading import load_asset
    from headwater.materialize.reporting import report


def __getattr__(name: str) -> Any:
    import importlib

    if name == _PACKAGE:
        return importlib.import_module(f"headwater.{name}")
    module = _HOMES.get(name)
    if module is None:
        raise AttributeError(f"module 'headwater' has no attribute {name!r}")
    value = getattr(importlib.import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, _PACKAGE})
