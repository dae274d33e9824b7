"""Every key of an instance's settings is read, or refused with the reason and what to do."""

import textwrap
from pathlib import Path
from typing import Any

import pytest

from headwater.catalog.config import EnvVar
from headwater.catalog.errors import ConfigError, UsageError
from headwater.catalog.instance import Instance
from headwater.catalog.settings import CustomLogs, NoLogs, S3Logs, Settings, TagConcurrencyLimit, describe
from headwater.catalog.settings_file import load_settings, parse_settings

#: A whole `dagster.yaml` as it is deployed with Kubernetes, PostgreSQL and MinIO.
DEPLOYED = """
    scheduler:
      module: dagster.core.scheduler
      class: DagsterDaemonScheduler
    schedule_storage:
      module: dagster_postgres.schedule_storage
      class: PostgresScheduleStorage
      config: {postgres_db: DB}
    run_storage:
      module: dagster_postgres.run_storage
      class: PostgresRunStorage
      config: {postgres_db: DB}
    event_log_storage:
      module: dagster_postgres.event_log
      class: PostgresEventLogStorage
      config: {postgres_db: DB}
    run_launcher:
      module: dagster_k8s
      class: K8sRunLauncher
      config:
        job_namespace: dagster
        run_k8s_config: {pod_spec_config: {nodeSelector: {node-group: worker}}}
    run_coordinator:
      module: dagster.core.run_coordinator
      class: QueuedRunCoordinator
      config: {max_concurrent_runs: -1, dequeue_use_threads: true, dequeue_num_workers: 4}
    compute_logs:
      module: "dagster_obstore.s3.compute_log_manager"
      class: "S3ComputeLogManager"
      config:
        access_key_id: minio
        allow_http: true
        allow_invalid_certificates: true
        bucket: dagster
        endpoint: http://minio.minio:9000
        prefix: compute-log
        region: default
        secret_access_key: canary123!
    run_monitoring:
      enabled: true
      start_timeout_seconds: 300
      max_resume_run_attempts: 0
      poll_interval_seconds: 120
      free_slots_after_run_end_seconds: 0
    run_retries: {enabled: true}
    sensors: {use_threads: true, num_workers: 4}
    schedules: {use_threads: true, num_workers: 4}
    telemetry: {enabled: true}
""".replace(
    "DB", "{username: postgres, password: {env: PG_PASSWORD}, hostname: db, db_name: dagster, port: 5432, params: {}}"
)


def load(home: Path, text: str, name: str = "instance.yaml") -> Settings:
    """The settings of a home with this file."""
    home.mkdir(exist_ok=True)
    (home / name).write_text(textwrap.dedent(text), "utf-8")
    return load_settings(home)


def test_defaults(tmp_path: Path) -> None:
    settings = load_settings(tmp_path)
    assert settings == Settings() and settings.file is None
    assert settings.run_queue.max_concurrent_runs == 10
    assert settings.run_queue.user_code_failure_retry_delay == 60
    assert (settings.scheduler.max_catchup_runs, settings.scheduler.max_tick_retries) == (5, 0)
    monitoring = settings.run_monitoring
    assert (monitoring.start_timeout_seconds, monitoring.cancel_timeout_seconds) == (180, 180)
    assert (monitoring.poll_interval_seconds, monitoring.max_runtime_seconds) == (120, 0)
    assert settings.retention.sensor.purge_after_days.skipped == 7
    assert settings.retention.schedule.purge_after_days.skipped == -1
    assert (settings.artifacts(tmp_path), settings.catalog_folder(tmp_path)) == (tmp_path, tmp_path)


def test_a_deployed_dagster_yaml_is_taken_over(tmp_path: Path) -> None:
    settings = load(tmp_path, DEPLOYED, "dagster.yaml")
    assert settings.run_coordinator == "queued"
    assert settings.run_queue.max_concurrent_runs == -1
    assert settings.sources["run_queue.max_concurrent_runs"] == "run_coordinator:config:max_concurrent_runs"
    assert settings.run_monitoring.start_timeout_seconds == 300
    assert settings.schedules.num_workers == 4 and settings.sensors.use_threads
    assert isinstance(settings.compute_logs, S3Logs) and settings.compute_logs.prefix == "compute-log"
    assert settings.references == (EnvVar("PG_PASSWORD"),)
    told = "\n".join(settings.warnings)
    for about in ("PostgreSQL", "K8sRunLauncher", "without max_retries", "a secret stands in the file"):
        assert about in told
    assert "canary" not in repr(settings) + str(describe(settings)) + told
    assert list(settings.secrets) == ["canary123!"]


@pytest.mark.parametrize(
    ("text", "attribute", "value"),
    [
        ("run_queue: {max_concurrent_runs: 2}", "run_queue.max_concurrent_runs", 2),
        ("concurrency: {runs: {max_concurrent_runs: 0}}", "run_queue.max_concurrent_runs", 0),
        ("concurrency: {pools: {default_limit: 3}}", "concurrency.pools.default_limit", 3),
        ("concurrency: {pools: {limits: {duckdb: 1}}}", "concurrency.pools.limits", {"duckdb": 1}),
        ("concurrency: {default_op_concurrency_limit: 3}", "concurrency.pools.default_limit", 3),
        ("concurrency: {pools: {granularity: run}}", "concurrency.pools.granularity", "run"),
        ("run_coordinator: {class: DefaultRunCoordinator}", "run_coordinator", "default"),
        ("run_monitoring: {max_runtime_seconds: 60}", "run_monitoring.max_runtime_seconds", 60),
        ("run_retries: {enabled: true, max_retries: 2}", "run_retries.max_retries", 2),
        ("run_retries: {retry_on_asset_or_op_failure: false}", "run_retries.retry_on_asset_or_op_failure", False),
        (
            "retention: {sensor: {purge_after_days: {failure: 30}}}",
            "retention.sensor.purge_after_days.failure",
            30,
        ),
        ("retention: {schedule: {purge_after_days: 90}}", "retention.schedule.purge_after_days.success", 90),
        ("backfills: {use_threads: true}", "backfills.use_threads", True),
        ("auto_materialize: {run_tags: {a: b}}", "auto_materialize.run_tags", {"a": "b"}),
        ("code_servers: {reload_timeout: 5}", "code_servers.reload_timeout", 5),
        ("freshness: {enabled: false}", "freshness.enabled", False),
        ("nux: {enabled: true}", "nux.enabled", True),
        ("run_queue:", "run_queue.max_concurrent_runs", 10),
        ("# nothing", "run_queue.max_concurrent_runs", 10),
    ],
)
def test_a_key(tmp_path: Path, text: str, attribute: str, value: object) -> None:
    found: Any = load(tmp_path, text)
    for name in attribute.split("."):
        found = getattr(found, name)
    assert found == value


def test_limits_by_tag(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        """
        run_queue:
          tag_concurrency_limits:
            - {key: team, limit: 2}
            - {key: team, value: core, limit: 1}
            - {key: user, value: {applyLimitPerUniqueValue: true}, limit: 1}
        """,
    )
    assert settings.run_queue.tag_concurrency_limits == (
        TagConcurrencyLimit(key="team", limit=2),
        TagConcurrencyLimit(key="team", limit=1, value="core"),
        TagConcurrencyLimit(key="user", limit=1, per_unique_value=True),
    )


@pytest.mark.parametrize(
    ("text", "says", "remedy"),
    [
        ("run_monitorin: {}", "run_monitorin: there is no such key", "`run_monitoring`"),
        ("max_concurrent_runs: 3", "no such key", "`run_queue:max_concurrent_runs`"),
        (
            "run_monitoring: {poll_interval_second: 3}",
            "run_monitoring:poll_interval_second: there is no such key",
            "`run_monitoring:poll_interval_seconds`",
        ),
        ("run_queue: {max_concurrent_runs: -2}", "run_queue:max_concurrent_runs: expected", "settings.md"),
        ("run_queue: {max_concurrent_runs: true}", "expected `int`, got `bool`", "settings.md"),
        ("run_queue: {tag_concurrency_limits: [{key: a}]}", "tag_concurrency_limits:0: it lacks limit", "Add"),
        ("sensors: 5", "sensors: it is an int", "mapping"),
        (
            "storage: {sqlite: {base_dir: a}}\nrun_storage: {class: SqliteRunStorage}",
            "together with run_storage",
            "Keep",
        ),
        ("storage: {sqlite: {}, postgres: {}}", "it has sqlite and postgres", "Keep one"),
        ("storage: {mysql: {}}", "storage:mysql: the catalog is a DuckDB file", "duckdb:base_dir"),
        (
            "run_storage: {class: SqliteRunStorage, config: {base_dir: a}}\n"
            "schedule_storage: {class: SqliteScheduleStorage, config: {base_dir: b}}",
            "different folders",
            "one folder",
        ),
        ("run_queue: {}\nconcurrency: {runs: {}}", "run_queue and concurrency:runs", "Keep one"),
        ("run_queue: {}\nrun_coordinator: {class: DefaultRunCoordinator}", "there is no queue", "Remove one"),
        ("run_coordinator: {class: QueuedRunCoordinater}", "run_coordinator:class", "`QueuedRunCoordinator`"),
        ("compute_logs: {class: S3ComputeLogManager, config: {}}", "compute_logs:config: it lacks bucket", "Add"),
        ("compute_logs: {module: dagster_x, class: S3Compute}", "there is no `S3Compute`", "S3ComputeLogManager"),
        ("compute_logs: {s3: {}}", "compute_logs:s3", "class, config, module"),
        ("secrets: {}", "secrets are variables", "env: NAME"),
        ("instance_class: {}", "an instance is of one class", "Remove"),
        ("defs_state_storage: {}", "no state", "Remove"),
        ("python_logs: {python_log_level: LOUD}", "invalid enum value 'LOUD'", "settings.md"),
        (
            "run_queue: {max_concurrent_runs: {env: HEADWATER_TEST_NOT_SET}}",
            "HEADWATER_TEST_NOT_SET is not set",
            "export",
        ),
    ],
)
def test_what_makes_no_sense(tmp_path: Path, text: str, says: str, remedy: str) -> None:
    with pytest.raises(ConfigError) as error:
        load(tmp_path, text)
    assert says in error.value.message and remedy in error.value.remedy
    assert str(error.value).startswith(f"{tmp_path}/instance.yaml") or "env" in text


def test_one_file_counts(tmp_path: Path) -> None:
    load(tmp_path, "telemetry: {enabled: true}", "dagster.yaml")
    assert load(tmp_path, "run_queue.max_concurrent_runs = 1", "instance.toml").run_queue.max_concurrent_runs == 1
    with pytest.raises(ConfigError, match=r"instance\.yaml and instance\.toml"):
        load(tmp_path, "run_queue: {max_concurrent_runs: 2}")


def test_numbers_and_switches_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNS", "3")
    monkeypatch.setenv("RETRY", "true")
    text = "run_queue: {max_concurrent_runs: {env: RUNS}}\nrun_retries: {enabled: {env: RETRY}, max_retries: 1}"
    settings = load(tmp_path, text)
    assert settings.run_queue.max_concurrent_runs == 3 and settings.run_retries.enabled
    monkeypatch.setenv("RUNS", "canary")
    with pytest.raises(ConfigError, match="env:RUNS holds no value that fits") as error:
        load(tmp_path, text)
    assert "canary" not in str(error.value)


def test_a_secret_from_the_environment_stays_a_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S3_SECRET", "canary")
    text = "compute_logs: {class: S3ComputeLogManager, config: {bucket: b, secret_access_key: {env: S3_SECRET}}}"
    settings = load(tmp_path, text)
    assert describe(settings)["compute_logs"]["secret_access_key"] == "env:S3_SECRET"
    assert settings.references == (EnvVar("S3_SECRET"),) and "canary" not in repr(settings)


def test_classes_of_compute_logs(tmp_path: Path) -> None:
    assert load(tmp_path, "compute_logs: {class: NoOpComputeLogManager}").compute_logs == NoLogs()
    own = load(tmp_path, "compute_logs: {module: my.logs, class: Mine, config: {a: {env: B}, password: canary}}")
    assert own.compute_logs == CustomLogs(
        module="my.logs", class_name="Mine", config={"a": EnvVar("B"), "password": "canary"}
    )
    assert "canary" not in repr(own)


def test_an_instance_has_settings(tmp_path: Path) -> None:
    text = """
        storage: {duckdb: {base_dir: elsewhere}}
        local_artifact_storage: {class: LocalArtifactStorage, config: {base_dir: "/var/artifacts"}}
        """
    load(tmp_path, text)
    with Instance.open(tmp_path) as instance:
        assert instance.settings.file == tmp_path / "instance.yaml"
        assert instance.artifacts == Path("/var/artifacts")
    assert (tmp_path / "elsewhere" / "catalog.duckdb").exists() and not (tmp_path / "catalog.duckdb").exists()
    with Instance.open(tmp_path, read_only=True) as instance:
        assert instance.catalog.runs(limit=1) == []
    with Instance.ephemeral() as instance:
        assert instance.settings == Settings()


def test_a_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be parsed"):
        load(tmp_path, "a: [")
    with pytest.raises(ConfigError):
        parse_settings({"telemetry": {"enabled": 1}}, tmp_path / "x.yaml")
