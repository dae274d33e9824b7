"""Reading the settings of an instance: what stands in the file is checked, key by key, and becomes `Settings`.

Dagster spells several things in two ways, and some as a class with a configuration; here each has one place, and
`Settings.sources` remembers where a value was written. A path in a file is written `run_queue:max_concurrent_runs`.
"""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar, cast, get_args, get_origin

import msgspec
from msgspec.structs import fields

from headwater.catalog.config import EnvVar, substitute
from headwater.catalog.documents import find_settings, read_document
from headwater.catalog.errors import ConfigError, nearest
from headwater.catalog.printable import with_article
from headwater.catalog.settings import (
    SECRETS,
    AzureLogs,
    CatalogStorage,
    Concurrency,
    CustomLogs,
    GCSLogs,
    LocalArtifactStorage,
    LocalLogs,
    NoLogs,
    Postgres,
    PurgeAfterDays,
    RunLauncher,
    RunQueue,
    S3Logs,
    Scheduler,
    ServedCatalog,
    Setting,
    Settings,
    describe,
)

T = TypeVar("T", bound=Setting)

_COMPUTE_LOGS: Mapping[str, type[Setting]] = {
    "LocalComputeLogManager": LocalLogs,
    "NoOpComputeLogManager": NoLogs,
    "S3ComputeLogManager": S3Logs,
    "GCSComputeLogManager": GCSLogs,
    "AzureComputeLogManager": AzureLogs,
    "AzureBlobComputeLogManager": AzureLogs,
}
_COORDINATORS = {"QueuedRunCoordinator": "queued", "DefaultRunCoordinator": "default"}
_SPLIT = {
    "run_storage": ("SqliteRunStorage", "PostgresRunStorage"),
    "event_log_storage": (
        "SqliteEventLogStorage",
        "ConsolidatedSqliteEventLogStorage",
        "PostgresEventLogStorage",
    ),
    "schedule_storage": ("SqliteScheduleStorage", "PostgresScheduleStorage"),
}
_LAUNCHERS = ("DefaultRunLauncher", "K8sRunLauncher", "CeleryK8sRunLauncher", "EcsRunLauncher", "DockerRunLauncher")
_REFUSED = {
    "instance_class": ("an instance is of one class", "Remove it."),
    "secrets": (
        "secrets are variables of the environment",
        "Write {env: NAME} where one is needed, and let what starts Headwater set the variable.",
    ),
    "defs_state_storage": ("definitions have no state of their own", "Remove it."),
}
#: Keys that name a place, which is no secret.
_PLACES = (
    "base_dir",
    "local_dir",
    "service_account_path",
    "application_credentials",
    "catalog:url",
    "token_file",
    "ca_file",
)
#: A shorter value says too little to be a secret, and occurs in texts that have nothing to do with it.
_SHORTEST_SECRET = 4


def load_settings(home: Path) -> Settings:
    """The settings of a home; those without a file are the defaults.

    Raises `ConfigError` naming the key, and `UsageError` for a file that cannot be read.
    """
    file = find_settings(home)
    return Settings() if file is None else parse_settings(read_document(file), file)


def parse_settings(document: Mapping[str, Any], file: Path) -> Settings:
    """What a document says. Raises `ConfigError`."""
    return _Parser(file).settings(document)


@dataclass(frozen=True)
class _Class:
    """A thing that is given as a class and its configuration."""

    name: str
    module: str | None
    config: Mapping[str, Any]
    #: The configuration's path.
    path: str


class _Parser:
    """Reads one document; what it meets on the way is kept for `Settings`."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._sources: dict[str, str] = {}
        self._warnings: list[str] = []
        self._references: dict[str, EnvVar] = {}
        self._secrets: dict[str, str] = {}

    def settings(self, document: Mapping[str, Any]) -> Settings:
        """All of it."""
        given = {key: value for key, value in document.items() if value is not None}
        composed = {"storage", *_SPLIT, "run_coordinator", "run_queue", "concurrency", "compute_logs"}
        classes = {
            "local_artifact_storage": (LocalArtifactStorage, ("LocalArtifactStorage",)),
            "scheduler": (Scheduler, ("DagsterDaemonScheduler",)),
        }
        plain = {one.name: one.type for one in fields(Settings) if _is_group(one.type)}
        values: dict[str, Any] = {}
        for key, data in given.items():
            if key in _REFUSED:
                reason, remedy = _REFUSED[key]
                self._fail(key, f"this cannot be set here: {reason}.", remedy)
            if key in classes:
                kind, names = classes[key]
                one = self._class(key, data, names)
                values[key] = self._fields(kind, one.config, one.path, key)
            elif key == "run_launcher":
                values[key] = self._run_launcher(data)
            elif key == "compute_logs":
                values[key] = self._compute_logs(data)
            elif key in plain and key not in composed:
                values[key] = self._fields(plain[key], data, key, key)
            elif key not in composed:
                self._unknown(key, "", [*composed, *classes, *plain])
        values |= self._storage(given) | self._queue(given)
        self._check_served(values.get("catalog"), given)
        retries = values.get("run_retries")
        if retries is not None and retries.enabled and "run_retries.max_retries" not in self._sources:
            self._warn("run_retries:enabled", "nothing is retried without max_retries, which is 0 unless it is given")
        return Settings(
            **values,
            file=self._file,
            sources=self._sources,
            warnings=tuple(self._warnings),
            references=tuple(self._references.values()),
            secrets=self._secrets,
        )

    # Keys that have a form of their own

    def _run_launcher(self, data: Any) -> RunLauncher:
        one = self._class("run_launcher", data, _LAUNCHERS)
        if one.name != "DefaultRunLauncher":
            self._warn("run_launcher", f"{one.name} is kept as it is written, and runs are started on this machine")
        self._sources["run_launcher.class_name"] = "run_launcher:class"
        if one.module is not None:
            self._sources["run_launcher.module"] = "run_launcher:module"
        config = self._free(one.config, one.path, "run_launcher.config")
        return RunLauncher(class_name=one.name, module=one.module, config=config)

    def _compute_logs(self, data: Any) -> Any:
        key = "compute_logs"
        one = self._class(key, data, None)
        self._sources["compute_logs.kind"] = "compute_logs:class"
        if one.name in _COMPUTE_LOGS:
            return self._fields(_COMPUTE_LOGS[one.name], one.config, one.path, key)
        if one.module is None or one.module.partition(".")[0].startswith("dagster"):
            self._fail(
                f"{key}:class",
                f"there is no `{one.name}`.",
                nearest(one.name, _COMPUTE_LOGS)
                or f"It is one of {', '.join(_COMPUTE_LOGS)}, or a class of yours with its module.",
            )
        return CustomLogs(
            module=one.module, class_name=one.name, config=self._free(one.config, one.path, "compute_logs.config")
        )

    def _storage(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Where the catalog lies, from `storage` or from the three keys that say it for a part each."""
        split = [key for key in _SPLIT if key in given]
        if split and "storage" in given:
            self._fail(
                "storage",
                f"it is given together with {' and '.join(split)}, which say the same.",
                f"Keep storage, or {' and '.join(split)}.",
            )
        folders: dict[str, str] = {}
        if "storage" in given:
            data = self._mapping(given["storage"], "storage")
            for key, config in data.items():
                if key in ("mysql", "custom"):
                    self._fail(f"storage:{key}", "the catalog is a DuckDB file.", "Remove it, or give duckdb:base_dir.")
                if key not in ("duckdb", "sqlite", "postgres"):
                    self._unknown(key, "storage", ("duckdb", "sqlite", "postgres"))
                if len(data) > 1:
                    self._fail("storage", f"it has {' and '.join(data)}.", "Keep one of them.")
                self._one_storage("postgres" if key == "postgres" else "files", config, f"storage:{key}", folders)
        for key in split:
            one = self._class(key, given[key], _SPLIT[key])
            self._one_storage("postgres" if "Postgres" in one.name else "files", one.config, one.path, folders)
        if len(set(folders.values())) > 1:
            self._fail(
                " and ".join(folders), "they name different folders, and the catalog is one file.", "Name one folder."
            )
        for path, folder in folders.items():
            self._sources["storage.base_dir"] = path
            return {"storage": CatalogStorage(base_dir=folder)}
        return {}

    def _check_served(self, catalog: ServedCatalog | None, given: Mapping[str, Any]) -> None:
        """A catalog is with a server or in a folder, and its token in one place."""
        if catalog is None:
            return
        folders = [key for key in ("storage", *_SPLIT) if key in given]
        if catalog.url is not None and folders:
            self._fail("catalog:url", f"the catalog is served, and in a folder by {folders[0]}.", "Keep one of them.")
        if catalog.url is None and catalog != ServedCatalog():
            self._fail("catalog", "it lacks url.", "Add it: headwater+tls://HOST:PORT.")
        if catalog.token is not None and catalog.token_file is not None:
            self._fail("catalog", "it has token and token_file.", "Keep one of them.")

    def _one_storage(self, kind: str, config: Any, path: str, folders: dict[str, str]) -> None:
        if kind == "files":
            given = dict(self._mapping(config or {}, path))
            given.pop("inst_data", None)  # Dagster's own
            folder = self._fields(CatalogStorage, given, path, "").base_dir
            if folder is not None:
                folders[f"{path}:base_dir"] = folder
            return
        self._fields(Postgres, config or {}, path, "")
        self._warn(path, "the catalog is a DuckDB file in the home; nothing connects to PostgreSQL")

    def _queue(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """How runs leave the queue, from whichever of its three places tells; and the limits of steps."""
        values: dict[str, Any] = {}
        places: dict[str, Any] = {}
        if "run_queue" in given:
            places["run_queue"] = given["run_queue"]
        if "run_coordinator" in given:
            one = self._class("run_coordinator", given["run_coordinator"], tuple(_COORDINATORS))
            values["run_coordinator"] = _COORDINATORS[one.name]
            self._sources["run_coordinator"] = "run_coordinator:class"
            if one.config:
                places[one.path] = one.config
        if "concurrency" in given:
            steps = dict(self._mapping(given["concurrency"], "concurrency"))
            if (runs := steps.pop("runs", None)) is not None:
                places["concurrency:runs"] = runs
            limit = steps.pop("default_op_concurrency_limit", None)
            if limit is not None:
                pools = self._mapping(steps.get("pools") or {}, "concurrency:pools")
                if "default_limit" in pools:
                    self._fail(
                        "concurrency:default_op_concurrency_limit",
                        "concurrency:pools:default_limit says the same.",
                        "Keep one of them.",
                    )
                steps["pools"] = {**pools, "default_limit": limit}
            values["concurrency"] = self._fields(
                Concurrency, steps, "concurrency", "concurrency", more=("runs", "default_op_concurrency_limit")
            )
        if len(places) > 1:
            self._fail(" and ".join(places), "they say the same of the queue.", "Keep one of them.")
        for path, data in places.items():
            if values.get("run_coordinator") == "default":
                self._fail(path, "there is no queue with DefaultRunCoordinator.", "Remove one of the two.")
            values["run_queue"] = self._fields(RunQueue, self._limits(data, path), path, "run_queue")
        return values

    def _limits(self, data: Any, path: str) -> Mapping[str, Any]:
        """A queue's settings with limits by tag as our fields: `applyLimitPerUniqueValue` stands in for a value."""
        given = self._mapping(data, path)
        limits = given.get("tag_concurrency_limits")
        if not isinstance(limits, list):
            return given
        plain: list[Any] = []
        for limit in cast(list[Any], limits):
            match limit:
                case {"value": {"applyLimitPerUniqueValue": each, **others}, **rest} if not others:
                    plain.append({**rest, "per_unique_value": each})
                case _:
                    plain.append(limit)
        return {**given, "tag_concurrency_limits": plain}

    # What all keys have in common

    def _class(self, key: str, data: Any, names: Sequence[str] | None) -> _Class:
        """`module`, `class` and `config`; the class is one of `names`, by whatever module."""
        given = self._mapping(data, key)
        for one in given:
            if one not in ("module", "class", "config"):
                self._unknown(one, key, ("module", "class", "config"))
        name, module = given.get("class"), given.get("module")
        if not isinstance(name, str) or not isinstance(module, str | None):
            self._fail(key, "it is a class, by its name, and maybe a module.", "Write module, class and config.")
        if names is not None and name not in names:
            remedy = nearest(name, names) or f"It is one of {', '.join(names)}."
            self._fail(f"{key}:class", f"there is no `{name}`.", remedy)
        path = f"{key}:config"
        return _Class(name, module, self._mapping(given.get("config") or {}, path), path)

    def _fields(self, kind: type[T], data: Any, path: str, name: str, *, more: Iterable[str] = ()) -> T:
        """A value of the class `kind`; it is `Settings`' attribute `name`, or none where that is empty."""
        if kind is PurgeAfterDays and isinstance(data, int):  # one number for all
            data = dict.fromkeys(PurgeAfterDays.__struct_fields__, data)
        given = self._mapping(data, path)
        known = {one.name: one for one in fields(kind)}
        for key in given:
            if key not in known:
                self._unknown(key, path, [*known, *more])
        values: dict[str, Any] = {}
        for key, value in given.items():
            if value is not None:
                place, attribute = f"{path}:{key}", f"{name}.{key}" if name else ""
                values[key] = self._value(known[key].type, value, place, attribute)
        missing = [one.name for one in known.values() if one.required and one.name not in values]
        if missing:
            self._fail(path, f"it lacks {' and '.join(missing)}.", "Add it.")
        return kind(**values)

    def _value(self, kind: Any, data: Any, path: str, attribute: str) -> Any:
        """One value, whatever its type. Numbers and switches from the environment are looked up here, texts are not."""
        if _is_group(kind):
            return self._fields(kind, data, path, attribute)
        if attribute:
            self._sources[attribute] = path
        if get_origin(kind) is Mapping:
            return self._free(self._convert(Mapping[str, Any], data, path), path, "")
        if get_origin(kind) is tuple:
            inner = get_args(kind)[0]
            return tuple(
                self._value(inner, one, f"{path}:{number}", "")
                for number, one in enumerate(self._convert(list[Any], data, path))
            )
        match data:
            case {"env": str(variable), **others} if not others:
                return self._from_environment(kind, variable, path)
            case _:
                value = self._convert(kind, data, path)
        key = path.rpartition(":")[2]
        if key in SECRETS:
            self._keep_secret(value, path)
        return value

    def _from_environment(self, kind: Any, variable: str, path: str) -> Any:
        if kind is str or str in get_args(kind):
            reference = EnvVar(variable)
            if not path.endswith(_PLACES):
                self._references[variable] = reference
            return reference
        text = EnvVar(variable).resolve(f"{self._file.name}: {path}")
        return self._convert(kind, text, path, source=f"env:{variable}")

    def _free(self, data: Mapping[str, Any], path: str, attribute: str) -> Mapping[str, Any]:
        """A mapping whose keys are somebody else's: references in it become `EnvVar`, secrets are remembered."""
        if attribute and data:
            self._sources[attribute] = path

        def kept(reference: EnvVar, _: str) -> EnvVar:
            return self._references.setdefault(reference.name, reference)

        found = substitute(data, kept)
        self._look_for_secrets(found, path)
        return found

    def _look_for_secrets(self, data: Any, path: str) -> None:
        if isinstance(data, Mapping):
            for key, value in cast(Mapping[Any, Any], data).items():
                if key in SECRETS and isinstance(value, str) and not isinstance(value, EnvVar):
                    self._keep_secret(value, f"{path}:{key}")
                self._look_for_secrets(value, f"{path}:{key}")

    def _keep_secret(self, value: str, path: str) -> None:
        self._warn(path, "a secret stands in the file; write {env: NAME} and set that variable")
        if len(value) >= _SHORTEST_SECRET:
            self._secrets[value] = "***"

    def _mapping(self, data: Any, path: str) -> Mapping[str, Any]:
        if not isinstance(data, Mapping):
            self._fail(path, f"it is {with_article(type(data).__name__)}.", "It has to be a mapping of names.")
        return {str(key): value for key, value in cast(Mapping[Any, Any], data).items()}

    def _convert(self, kind: Any, data: Any, path: str, *, source: str = "") -> Any:
        """`data` as a value of the type `kind`; text of a `source` outside of the file may be anything."""
        try:
            return msgspec.convert(data, kind, strict=not source)
        except msgspec.ValidationError as error:
            if source:  # its value is nobody's business
                self._fail(path, f"{source} holds no value that fits.", "Correct the variable.")
            reason = str(error).partition(" - at `$")[0]
            self._fail(path, f"{reason[0].lower()}{reason[1:]}.", "docs/reference/settings.md tells what it may be.")

    def _warn(self, path: str, what: str) -> None:
        self._warnings.append(f"{path}: {what}.")

    def _unknown(self, key: str, path: str, known: Iterable[str]) -> NoReturn:
        before = f"{path}:" if path else ""
        known = sorted(set(known))
        elsewhere = [one for one in _all_paths() if one.rpartition(":")[2] == key]
        if elsewhere:
            remedy = f"Did you mean {' or '.join(f'`{one}`' for one in elsewhere[:3])}?"
        else:
            close = difflib.get_close_matches(key, known, n=1)
            remedy = f"Did you mean `{before}{close[0]}`?" if close else ""
        self._fail(f"{before}{key}", "there is no such key.", remedy or f"Its keys are {', '.join(known) or 'none'}.")

    def _fail(self, path: str, what: str, remedy: str) -> NoReturn:
        raise ConfigError(f"{self._file}: {path}: {what}", remedy=remedy)


def _is_group(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Setting)


def _all_paths() -> list[str]:
    """The path of every key of the settings, as it stands in a file."""
    found: list[str] = []

    def walk(shown: Any, path: str) -> None:
        for key, value in cast(Mapping[str, Any], shown).items():
            found.append(f"{path}:{key}" if path else key)
            if isinstance(value, Mapping):
                walk(value, found[-1])

    walk(describe(Settings()), "")
    return found
