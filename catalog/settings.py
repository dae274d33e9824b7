"""The settings of an instance: what `instance.yaml` in the home may say, as values, each with its default.

The names are those of `dagster.yaml`, so that a file can be taken over as it is; docs/reference/settings.md tells what
each does here. Files are read by `headwater.catalog.settings_file`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import msgspec
from msgspec import Meta

from headwater.catalog.config import EnvVar, mask

Natural = Annotated[int, Meta(ge=0)]
Positive = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(ge=0)]
#: -1 is no limit.
Limit = Annotated[int, Meta(ge=-1)]

#: Fields whose text nobody may see, though it stands in the file as it is.
SECRETS = frozenset(
    {
        "access_key",
        "client_secret",
        "password",
        "postgres_url",
        "sas_token",
        "secret_access_key",
        "service_account_key",
        "session_token",
        "token",
    }
)

#: What is known of settings beside what they say.
_ORIGIN = ("file", "sources", "warnings", "references", "secrets")


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """A group of settings. A struct is made five times as fast as a dataclass, and there are many."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({describe(self)})"  # without what nobody may see


class LocalArtifactStorage(Setting, frozen=True, kw_only=True):
    """Where data of IO managers without a root of their own and compute logs lie; the home unless given."""

    base_dir: str | None = None


class PostgresDb(Setting, frozen=True, kw_only=True):
    """How a PostgreSQL server would be reached. Nothing here connects to one."""

    username: str | None = None
    password: str | None = None
    hostname: str | None = None
    db_name: str | None = None
    port: Annotated[int, Meta(ge=1, le=65535)] = 5432
    params: Mapping[str, Any] = msgspec.field(default_factory=dict[str, Any])
    scheme: str | None = None


class Postgres(Setting, frozen=True, kw_only=True):
    """What Dagster's PostgreSQL storage is told: read and checked, so that a file can be taken over, and not used."""

    postgres_db: PostgresDb = PostgresDb()
    postgres_url: str | None = None
    should_autocreate_tables: bool = True


class CatalogStorage(Setting, frozen=True, kw_only=True):
    """Where runs, events and schedules are recorded: one DuckDB catalog, in the home unless `base_dir` is given."""

    base_dir: str | None = None


class ServedCatalog(Setting, frozen=True, kw_only=True):
    """The catalog that another host serves, in place of one in a folder."""

    #: `headwater+tls://HOST:PORT`.
    url: str | None = None
    #: Without one and without a file, that of the variable HEADWATER_CATALOG_TOKEN.
    token: str | None = None
    token_file: str | None = None
    #: The certificates to trust; those of the system without it.
    ca_file: str | None = None


class Scheduler(Setting, frozen=True, kw_only=True):
    """How ticks of schedules that nobody was there for are made up for."""

    #: Of partitioned schedules.
    max_catchup_runs: Natural = 5
    max_tick_retries: Natural = 0


class TagConcurrencyLimit(Setting, frozen=True, kw_only=True):
    """How many runs with a tag go on at a time: with one value of it, with any, or with each."""

    key: str
    limit: Natural
    value: str | None = None
    per_unique_value: bool = False


class BlockedRuns(Setting, frozen=True, kw_only=True):
    """Whether runs wait in the queue that could not start a step for a full pool."""

    enabled: bool = True
    op_concurrency_slot_buffer: Natural = 0


class RunQueue(Setting, frozen=True, kw_only=True):
    """How runs leave the queue."""

    max_concurrent_runs: Limit = 10
    tag_concurrency_limits: tuple[TagConcurrencyLimit, ...] = ()
    dequeue_interval_seconds: Annotated[float, Meta(gt=0)] = 0.5
    dequeue_use_threads: bool = False
    dequeue_num_workers: Positive | None = None
    max_user_code_failure_retries: Natural = 0
    user_code_failure_retry_delay: Seconds = 60.0
    block_op_concurrency_limited_runs: BlockedRuns = BlockedRuns()


class Pools(Setting, frozen=True, kw_only=True):
    """How many steps, or runs, of a pool go on at a time, unless the pool has a limit of its own."""

    default_limit: Natural | None = None
    #: By pool.
    limits: Mapping[str, Natural] = msgspec.field(default_factory=dict[str, int])
    granularity: Literal["op", "run"] = "op"
    op_granularity_run_buffer: Natural = 0


class Concurrency(Setting, frozen=True, kw_only=True):
    """Limits of steps; those of runs are in `run_queue`."""

    pools: Pools = Pools()


class RunLauncher(Setting, frozen=True, kw_only=True):
    """What creates the processes of runs: a class by its name, and its configuration."""

    class_name: str = "DefaultRunLauncher"
    module: str | None = None
    config: Mapping[str, Any] = msgspec.field(default_factory=dict[str, Any])


class RunMonitoring(Setting, frozen=True, kw_only=True):
    """When runs are given up. Runs whose process died are noticed with and without it."""

    enabled: bool = True
    start_timeout_seconds: Natural = 180
    cancel_timeout_seconds: Natural = 180
    #: 0 is no limit.
    max_runtime_seconds: Natural = 0
    max_resume_run_attempts: Natural = 0
    poll_interval_seconds: Positive = 120
    cancellation_thread_poll_interval_seconds: Positive = 10
    free_slots_after_run_end_seconds: Natural = 0


class RunRetries(Setting, frozen=True, kw_only=True):
    """How often failed runs are carried out again."""

    enabled: bool = False
    max_retries: Natural = 0
    retry_on_asset_or_op_failure: bool = True


class Evaluation(Setting, frozen=True, kw_only=True):
    """How schedules, sensors or backfills are evaluated: one after the other, or by several threads."""

    use_threads: bool = False
    num_workers: Positive | None = None
    num_submit_workers: Positive | None = None


class AutoMaterialize(Setting, frozen=True, kw_only=True):
    """How automation conditions are evaluated."""

    enabled: bool = True
    minimum_interval_seconds: Positive = 30
    run_tags: Mapping[str, str] = msgspec.field(default_factory=dict[str, str])
    respect_materialization_data_versions: bool = True
    max_tick_retries: Natural = 3
    use_sensors: bool = True
    use_threads: bool = False
    num_workers: Positive | None = None


class PurgeAfterDays(Setting, frozen=True, kw_only=True):
    """Days that ticks are kept, by what became of them; -1 keeps them."""

    skipped: Limit = -1
    started: Limit = -1
    success: Limit = -1
    failure: Limit = -1


class TickRetention(Setting, frozen=True, kw_only=True):
    """How long ticks of schedules are kept."""

    purge_after_days: PurgeAfterDays = PurgeAfterDays()


class PolledTickRetention(Setting, frozen=True, kw_only=True):
    """How long ticks of what is asked every half minute are kept."""

    purge_after_days: PurgeAfterDays = PurgeAfterDays(skipped=7)


class Retention(Setting, frozen=True, kw_only=True):
    """How long ticks are kept."""

    schedule: TickRetention = TickRetention()
    sensor: PolledTickRetention = PolledTickRetention()
    auto_materialize: PolledTickRetention = PolledTickRetention()


class HandlerConfig(Setting, frozen=True, kw_only=True):
    """Handlers of the standard library's `logging`, as `dictConfig` takes them."""

    handlers: Mapping[str, Any] = msgspec.field(default_factory=dict[str, Any])
    formatters: Mapping[str, Any] = msgspec.field(default_factory=dict[str, Any])
    filters: Mapping[str, Any] = msgspec.field(default_factory=dict[str, Any])


class PythonLogs(Setting, frozen=True, kw_only=True):
    """Which lines of `logging` become events of the run."""

    managed_python_loggers: tuple[str, ...] = ()
    python_log_level: Literal["NOTSET", "DEBUG", "INFO", "WARNING", "WARN", "ERROR", "CRITICAL", "FATAL"] | None = None
    dagster_handler_config: HandlerConfig = HandlerConfig()


class LocalLogs(Setting, frozen=True, kw_only=True):
    """What steps print is kept in files of this machine."""

    base_dir: str | None = None
    #: Dagster polls its files so often; ours are looked at twice a second.
    polling_timeout: Natural | None = None


class NoLogs(Setting, frozen=True, kw_only=True):
    """What steps print is not kept."""


class S3Logs(Setting, frozen=True, kw_only=True):
    """What steps print is kept in a bucket of S3, or of what speaks its protocol."""

    bucket: str
    prefix: str = "dagster"
    access_key_id: str | None = None
    secret_access_key: str | None = None
    session_token: str | None = None
    region: str | None = None
    endpoint: str | None = None
    endpoint_url: str | None = None
    allow_http: bool | None = None
    allow_invalid_certificates: bool | None = None
    use_ssl: bool = True
    verify: bool = True
    timeout: str | int | None = None
    local_dir: str | None = None
    upload_interval: Positive = 30
    skip_empty_files: bool = True


class GCSLogs(Setting, frozen=True, kw_only=True):
    """What steps print is kept in a bucket of Google Cloud Storage."""

    bucket: str
    prefix: str = "dagster"
    service_account_key: str | None = None
    service_account_path: str | None = None
    application_credentials: str | None = None
    allow_http: bool | None = None
    allow_invalid_certificates: bool | None = None
    timeout: str | int | None = None
    local_dir: str | None = None
    upload_interval: Positive = 30
    skip_empty_files: bool = True


class AzureLogs(Setting, frozen=True, kw_only=True):
    """What steps print is kept in a container of Azure Blob Storage."""

    storage_account: str
    container: str
    prefix: str = "dagster"
    access_key: str | None = None
    client_id: str | None = None
    client_secret: str | None = None
    tenant_id: str | None = None
    sas_token: str | None = None
    endpoint: str | None = None
    allow_http: bool | None = None
    allow_invalid_certificates: bool | None = None
    timeout: str | int | None = None
    local_dir: str | None = None
    upload_interval: Positive = 30
    skip_empty_files: bool = True


class CustomLogs(Setting, frozen=True, kw_only=True):
    """What steps print is kept by a class of the user's, made with `config` as keywords."""

    module: str
    class_name: str
    config: Mapping[str, Any] = msgspec.field(default_factory=dict[str, Any])


class Switch(Setting, frozen=True, kw_only=True):
    """A thing that is on or off."""

    enabled: bool = False


class CodeServers(Setting, frozen=True, kw_only=True):
    """How long loading definitions may take, where a process of its own does it."""

    local_startup_timeout: Positive = 180
    reload_timeout: Positive = 180
    wait_for_local_processes_on_shutdown: bool = False


class Settings(Setting, frozen=True, kw_only=True):
    """Everything that an instance can be told."""

    local_artifact_storage: LocalArtifactStorage = LocalArtifactStorage()
    storage: CatalogStorage = CatalogStorage()
    catalog: ServedCatalog = ServedCatalog()
    scheduler: Scheduler = Scheduler()
    #: Whether runs are started by the daemon, out of the queue, or at once.
    run_coordinator: Literal["queued", "default"] = "queued"
    run_queue: RunQueue = RunQueue()
    concurrency: Concurrency = Concurrency()
    run_launcher: RunLauncher = RunLauncher()
    run_monitoring: RunMonitoring = RunMonitoring()
    run_retries: RunRetries = RunRetries()
    schedules: Evaluation = Evaluation()
    sensors: Evaluation = Evaluation()
    backfills: Evaluation = Evaluation()
    auto_materialize: AutoMaterialize = AutoMaterialize()
    retention: Retention = Retention()
    python_logs: PythonLogs = PythonLogs()
    compute_logs: LocalLogs | NoLogs | S3Logs | GCSLogs | AzureLogs | CustomLogs = LocalLogs()
    #: Nothing is ever sent, whatever it says.
    telemetry: Switch = Switch()
    code_servers: CodeServers = CodeServers()
    freshness: Switch = Switch(enabled=True)
    nux: Switch = Switch()
    #: The file; None where there is none.
    file: Path | None = None
    #: Where each value that is no default was given: `run_queue.max_concurrent_runs` → `run_coordinator:config:…`.
    sources: Mapping[str, str] = msgspec.field(default_factory=dict[str, str])
    #: What is accepted, and does not do what whoever wrote it may expect.
    warnings: tuple[str, ...] = ()
    #: The variables whose values nobody may see.
    references: tuple[EnvVar, ...] = ()
    #: The secrets that stand in the file itself, and what is shown in their place.
    secrets: Mapping[str, str] = msgspec.field(default_factory=dict[str, str])

    def folder(self, base_dir: str, home: Path) -> Path:
        """A folder or file that the settings name; a relative one starts from the home.

        Raises `ConfigError` for a variable that is not set.
        """
        text = base_dir.resolve("base_dir") if isinstance(base_dir, EnvVar) else base_dir
        return (home / Path(text).expanduser()).absolute()

    def artifacts(self, home: Path) -> Path:
        """Where data without a root of its own and compute logs lie."""
        base_dir = self.local_artifact_storage.base_dir
        return home if base_dir is None else self.folder(base_dir, home)

    def catalog_folder(self, home: Path) -> Path:
        """Where the home's own catalog lies."""
        return home if self.storage.base_dir is None else self.folder(self.storage.base_dir, home)


def describe(value: Any, name: str = "") -> Any:
    """Settings as JSON data: references as `env:NAME`, secrets as `***`."""
    if isinstance(value, Setting):
        told = [one for one in value.__struct_fields__ if not (isinstance(value, Settings) and one in _ORIGIN)]
        shown = {one: describe(getattr(value, one), one) for one in told}
        return {"kind": type(value).__name__, **shown} if name == "compute_logs" else shown
    if isinstance(value, tuple):
        return [describe(one) for one in cast(tuple[Any, ...], value)]
    if isinstance(value, Mapping):
        return {str(key): describe(item, str(key)) for key, item in cast(Mapping[Any, Any], value).items()}
    if name in SECRETS and value is not None and not isinstance(value, EnvVar):
        return "***"
    return mask(value)
