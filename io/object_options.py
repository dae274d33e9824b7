"""How an object store is reached: the options that users write, in every common spelling, and the environment.

`s3://`: access_key_id, secret_access_key, session_token, region, endpoint, virtual_hosted_style_request,
skip_signature, profile, and what else obstore's `S3Config` names. An `aws_` prefix, the names of boto3
(`endpoint_url`, `region_name`, `use_ssl`), of s3fs (`key`, `secret`, `anon`) and of Dagster's `s3_resource` work
too. What is not given comes from the usual `AWS_*` variables, and credentials that neither gives from boto3's own
chain (profiles, SSO, roles) when boto3 is installed, else from obstore's. `gs://` and `az://` take obstore's
`GCSConfig` and `AzureConfig`.
For all of them: allow_http, verify, timeout, connect_timeout, max_retries, retry_timeout (seconds).
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from importlib import import_module
from importlib.util import find_spec
from typing import Any, cast

from headwater.catalog.errors import ConfigError, CredentialsError

_ALIASES: Mapping[str, Mapping[str, str]] = {
    "s3": {
        "key": "access_key_id",
        "access_key": "access_key_id",
        "secret": "secret_access_key",
        "secret_key": "secret_access_key",
        "token": "session_token",
        "default_region": "region",
        "region_name": "region",
        "endpoint_url": "endpoint",
        "endpoint_url_s3": "endpoint",
        "endpoint_override": "endpoint",
        "anon": "skip_signature",
        "anonymous": "skip_signature",
        "profile_name": "profile",
    },
    "gs": {
        "token": "bearer_token",
        "anon": "skip_signature",
    },
    "az": {
        "sas_token": "sas_key",
        "bearer_token": "token",
        "anon": "skip_signature",
    },
}
_PREFIXES = {"s3": ("aws_",), "gs": ("google_", "gcs_"), "az": ("azure_storage_", "azure_")}
_S3_KEY = frozenset({"access_key_id", "secret_access_key", "session_token", "profile"})
#: In order of precedence.
_ENVIRONMENT = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT_URL",
    "AWS_ALLOW_HTTP",
    "AWS_PROFILE",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectOptions:
    """Options as obstore wants them. Its text never holds a secret."""

    scheme: str
    #: obstore's `S3Config`, `GCSConfig` or `AzureConfig`.
    config: Mapping[str, Any] = field(repr=False)
    #: obstore's `ClientConfig`.
    client: Mapping[str, Any]
    #: obstore's `RetryConfig`.
    retry: Mapping[str, Any]
    #: The profile of boto3's configuration to use.
    profile: str | None = None

    def redact(self, text: str) -> str:
        """`text` without any secret of these options."""
        for name, value in self.config.items():
            if any(word in name for word in ("key", "secret", "token")) and len(str(value)) >= 4:
                text = text.replace(str(value), "***")
        return text

    def credential_provider(self) -> Callable[[], Mapping[str, Any]] | None:
        """What gives obstore the credentials of S3: the configured key, else boto3's chain, else None for its own.

        Raises `CredentialsError` when boto3 finds none.
        """
        if self.scheme != "s3" or {"skip_signature", "web_identity_token_file"} & self.config.keys():
            return None
        if "access_key_id" in self.config:
            return lambda: {
                "access_key_id": self.config["access_key_id"],
                "secret_access_key": self.config.get("secret_access_key", ""),
                "token": self.config.get("session_token"),
                "expires_at": None,
            }
        if find_spec("boto3") is None:
            return None
        try:
            session = import_module("boto3").Session(profile_name=self.profile)
            return cast(
                Callable[[], Mapping[str, Any]],
                import_module("obstore.auth.boto3").Boto3CredentialProvider(session),
            )
        except Exception as error:
            raise CredentialsError(
                f"No credentials for s3://: {self.redact(str(error))}.",
                remedy="Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, or storage_options; "
                "skip_signature=True reads public buckets.",
            ) from None

    def boto3_client(self) -> Any:
        """boto3's client of S3, for the few requests that obstore does not know; None where boto3 is not installed."""
        if self.scheme != "s3" or find_spec("boto3") is None:
            return None
        botocore = import_module("botocore")
        unsigned = {"signature_version": botocore.UNSIGNED} if _flag(self.config.get("skip_signature", False)) else {}
        return (
            import_module("boto3")
            .Session(profile_name=self.profile)
            .client(
                "s3",
                endpoint_url=self.config.get("endpoint"),
                region_name=self.config.get("region"),
                aws_access_key_id=self.config.get("access_key_id"),
                aws_secret_access_key=self.config.get("secret_access_key"),
                aws_session_token=self.config.get("session_token"),
                verify=not self.client["allow_invalid_certificates"],
                config=import_module("botocore.config").Config(**unsigned),
            )
        )

    def for_obstore(self) -> dict[str, Any]:
        """Keyword arguments for the constructors of obstore's stores."""
        provider = self.credential_provider()
        config = {name: value for name, value in self.config.items() if provider is None or name not in _S3_KEY}
        if provider is not None:
            config = {**getattr(provider, "config", {}), **config}  # the region of boto3's profile
        arguments = {"config": config, "client_options": self.client, "retry_config": self.retry}
        return arguments | ({"credential_provider": provider} if provider else {})

    def for_polars(self) -> dict[str, Any]:
        """Keyword arguments for `polars.scan_parquet`."""
        arguments = self.for_obstore()
        prefix = {"s3": "aws_", "gs": "google_", "az": "azure_"}[self.scheme]
        options = {f"{prefix}{name}": _text(value) for name, value in arguments["config"].items()}
        if self.client["allow_http"]:
            options[f"{prefix}allow_http"] = "true"
        provider = arguments.get("credential_provider")

        def credentials() -> tuple[dict[str, str], int | None]:
            found = cast(Callable[[], Mapping[str, Any]], provider)()
            names = {
                "access_key_id": "access_key_id",
                "secret_access_key": "secret_access_key",
                "token": "session_token",
            }
            keys = {f"aws_{name}": str(found[key]) for key, name in names.items() if found.get(key)}
            return keys, int(found["expires_at"].timestamp()) if found["expires_at"] else None

        return {"storage_options": options, "credential_provider": credentials if provider else None}


def parse_options(
    scheme: str, options: Mapping[str, Any], environment: Mapping[str, str] | None = None
) -> ObjectOptions:
    """Options in any spelling as those of obstore; `environment` is the process's, unless given.

    A value with a `resolve()` method, such as a reference to a variable, is resolved here. Raises `ConfigError`
    for a number that is none; an option that obstore does not know shows when the store connects.
    """
    given = {_canonical(scheme, name): _resolved(value) for name, value in options.items() if value is not None}
    if scheme == "s3":
        environment = os.environ if environment is None else environment
        # The environment's key and token belong together, and a profile that was asked for replaces them.
        chosen = bool({"access_key_id", "profile"} & given.keys())
        for name in _ENVIRONMENT:
            option = _canonical(scheme, name)
            if environment.get(name) and not (chosen and option in _S3_KEY):
                given.setdefault(option, environment[name])
    secure = _flag(given.pop("use_ssl", True))
    endpoint = given.get("endpoint")
    if isinstance(endpoint, str) and "://" not in endpoint:
        given["endpoint"] = endpoint = f"{'https' if secure else 'http'}://{endpoint}"
    plain = not secure or (isinstance(endpoint, str) and endpoint.startswith("http://"))
    client = {
        "allow_http": _flag(given.pop("allow_http", plain)),
        "allow_invalid_certificates": not _flag(given.pop("verify", True)),
        "timeout": timedelta(seconds=_number(given, "timeout", 300)),
        "connect_timeout": timedelta(seconds=_number(given, "connect_timeout", 5)),
    }
    retry = {
        "max_retries": int(_number(given, "max_retries", 8)),
        "retry_timeout": timedelta(seconds=_number(given, "retry_timeout", 60)),
    }
    profile = given.pop("profile", None)
    return ObjectOptions(scheme=scheme, config=given, client=client, retry=retry, profile=profile)


def _canonical(scheme: str, name: str) -> str:
    name = name.lower()
    for prefix in _PREFIXES.get(scheme, ()):
        name = name.removeprefix(prefix)
    return _ALIASES.get(scheme, {}).get(name, name)


def _resolved(value: Any) -> Any:
    resolve = getattr(value, "resolve", None)
    return resolve() if callable(resolve) else value


def _number(given: dict[str, Any], name: str, default: float) -> float:
    value = given.pop(name, default)
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ConfigError(f"The storage option '{name}' is not a number.", remedy="Give seconds or a count.") from None


def _flag(value: Any) -> bool:
    return value.strip().lower() in ("1", "true", "yes", "on") if isinstance(value, str) else bool(value)


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
