from datetime import timedelta
from typing import Any

import pytest

from headwater.catalog.errors import ConfigError
from headwater.io.object_options import ObjectOptions, parse_options
from headwater.io.store import store_for

SECRET = "canary-secret-77aa"


def parse(scheme: str = "s3", environment: dict[str, str] | None = None, **options: Any) -> ObjectOptions:
    return parse_options(scheme, options, environment or {})


@pytest.mark.parametrize(
    "options",
    [
        {"access_key_id": "AK", "secret_access_key": SECRET, "region": "r", "endpoint": "http://h:1"},
        {"aws_access_key_id": "AK", "aws_secret_access_key": SECRET, "region_name": "r", "endpoint_url": "http://h:1"},
        {
            "AWS_ACCESS_KEY_ID": "AK",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "r",
            "AWS_ENDPOINT_URL": "http://h:1",
        },
        {"key": "AK", "secret": SECRET, "aws_default_region": "r", "endpoint_override": "http://h:1"},
        {"access_key": "AK", "secret_key": SECRET, "default_region": "r", "endpoint_url": "h:1", "use_ssl": False},
    ],
)
def test_every_spelling_means_the_same(options: dict[str, Any]) -> None:
    found = parse(**options)
    expected = {"access_key_id": "AK", "secret_access_key": SECRET, "region": "r", "endpoint": "http://h:1"}
    assert dict(found.config) == expected
    assert found.client["allow_http"] is True


def test_a_plain_endpoint_is_reached_over_tls() -> None:
    found = parse(endpoint_url="minio.example:9000")
    assert found.config["endpoint"] == "https://minio.example:9000"
    assert found.client["allow_http"] is False


def test_flags_and_numbers() -> None:
    found = parse(allow_http="true", verify="false", max_retries="3", retry_timeout=5, timeout="1.5", connect_timeout=2)
    assert found.client == {
        "allow_http": True,
        "allow_invalid_certificates": True,
        "timeout": timedelta(seconds=1.5),
        "connect_timeout": timedelta(seconds=2),
    }
    assert found.retry == {"max_retries": 3, "retry_timeout": timedelta(seconds=5)}
    assert parse().retry == {"max_retries": 8, "retry_timeout": timedelta(seconds=60)}
    with pytest.raises(ConfigError, match="timeout"):
        parse(timeout="soon")


def test_the_environment_fills_in_what_is_not_given() -> None:
    environment = {
        "AWS_ACCESS_KEY_ID": "ENV",
        "AWS_SECRET_ACCESS_KEY": "envsecret",
        "AWS_SESSION_TOKEN": "envtoken",
        "AWS_DEFAULT_REGION": "default",
        "AWS_REGION": "region",
        "AWS_ENDPOINT_URL": "http://all",
        "AWS_ENDPOINT_URL_S3": "http://s3",
        "AWS_CA_BUNDLE": "ignored",
        "HOME": "/root",
    }
    found = parse(environment=environment)
    assert dict(found.config) == {
        "access_key_id": "ENV",
        "secret_access_key": "envsecret",
        "session_token": "envtoken",
        "region": "region",
        "endpoint": "http://s3",
    }
    # A key that is given goes without the environment's token, which belongs to another.
    own = parse(environment=environment, key="AK", secret="s")
    assert (own.config["access_key_id"], own.config["secret_access_key"]) == ("AK", "s")
    assert "session_token" not in own.config
    profile = parse(environment=environment, profile="work")
    assert profile.profile == "work"
    assert "access_key_id" not in profile.config
    assert "access_key_id" not in parse("gs", environment).config


def test_a_reference_is_resolved() -> None:
    class Reference:
        def resolve(self) -> str:
            return SECRET

    assert parse(key="AK", secret=Reference()).config["secret_access_key"] == SECRET
    assert "region" not in parse(region=None).config


def test_no_secret_is_ever_shown() -> None:
    found = parse(key="AKIASHOWN", secret=SECRET, token="sessiontoken1")
    assert SECRET not in repr(found) and "sessiontoken1" not in repr(found)
    text = f"request with {SECRET} and sessiontoken1 failed"
    assert found.redact(text) == "request with *** and *** failed"
    azure = parse("az", account_key="azure-key-canary", account_name="a", sas_token="sv=2024&sig=canary")
    assert azure.redact("azure-key-canary sv=2024&sig=canary a") == "*** *** a"


def test_what_obstore_and_polars_are_given() -> None:
    found = parse(
        key="AK", secret=SECRET, token="tok", region="r", endpoint="http://h", virtual_hosted_style_request=False
    )
    arguments = found.for_obstore()
    # Credentials go through a provider only, so that no variable of the environment is mixed in.
    assert arguments["config"] == {"region": "r", "endpoint": "http://h", "virtual_hosted_style_request": False}
    assert arguments["credential_provider"]() == {
        "access_key_id": "AK",
        "secret_access_key": SECRET,
        "token": "tok",
        "expires_at": None,
    }
    native = found.for_polars()
    assert native["storage_options"] == {
        "aws_region": "r",
        "aws_endpoint": "http://h",
        "aws_virtual_hosted_style_request": "false",
        "aws_allow_http": "true",
    }
    keys, expires = native["credential_provider"]()
    assert keys == {"aws_access_key_id": "AK", "aws_secret_access_key": SECRET, "aws_session_token": "tok"}
    assert expires is None


def test_a_public_bucket_needs_no_credentials() -> None:
    assert parse(anon=True).credential_provider() is None
    assert dict(parse(anonymous=True).config) == {"skip_signature": True}


def test_the_other_clouds() -> None:
    assert dict(parse("gs", service_account="f.json", token="t").config) == {
        "service_account": "f.json",
        "bearer_token": "t",
    }
    assert dict(parse("gs", google_application_credentials="f").config) == {"application_credentials": "f"}
    found = parse("az", azure_storage_account_name="n", AZURE_STORAGE_ACCOUNT_KEY="k", sas_token="s")
    assert dict(found.config) == {"account_name": "n", "account_key": "k", "sas_key": "s"}
    assert found.for_polars()["storage_options"]["azure_account_name"] == "n"


def test_an_option_that_nobody_knows_shows_by_name() -> None:
    store = store_for("s3://bucket", {"acess_key_id": "x", "skip_signature": True})
    with pytest.raises(ConfigError, match="acess_key_id"):
        store.exists("x")
