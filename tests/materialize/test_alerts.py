"""Alerts: of what somebody is told, once, and how; the servers are real ones on loopback."""

import base64
import email
import email.policy
import json
import sys
import threading
from collections.abc import Callable, Generator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest
import trustme

from headwater import (
    AlertPolicy,
    AssetMaterialization,
    CommandTarget,
    Definitions,
    EmailTarget,
    EnvVar,
    FreshnessPolicy,
    Instance,
    ScheduleDefinition,
    SlackTarget,
    WebhookTarget,
    asset,
    define_asset_job,
    materialize,
    report,
)
from headwater.catalog.errors import DefinitionError
from headwater.catalog.events import BackfillEnded, BackfillStarted
from headwater.catalog.ids import new_id
from headwater.catalog.keys import AssetKey
from headwater.catalog.records import BackfillStatus, BackfillTarget, ErrorRecord, FactTopic
from headwater.materialize.automation import alerts, freshness, schedules
from headwater.materialize.automation.delivery import LEASE, PAUSES, attempt, deliver
from tests.clocks import Hands
from tests.receivers import Hook, mail_server, web_server

NOBODY = CommandTarget([sys.executable, "-c", ""])
ORIGIN = {"folder": "/project", "files": ["/project/assets.py"], "modules": []}


class Broken:
    """Whether the assets fail."""

    now = True


@asset(group_name="core")
def orders() -> int:
    if Broken.now:
        raise RuntimeError("no \x1b[31mbread\u202e today")
    return 1


@asset
def other() -> int:
    return 1


@pytest.fixture(autouse=True)
def broken() -> None:
    Broken.now = True


@pytest.fixture
def clock() -> Hands:
    return Hands()


@pytest.fixture
def instance(clock: Hands) -> Generator[Instance]:
    with Instance.ephemeral(clock=clock) as made:
        yield made


@pytest.fixture
def hook() -> Generator[Hook]:
    with web_server() as made:
        yield made


def defined(*policies: AlertPolicy, **more: Any) -> Definitions:
    jobs = [define_asset_job("nightly", "orders", tags={"team": "core"})]
    return Definitions([orders, other], jobs=jobs, alerts=policies, **more)


def raised(instance: Instance, definitions: Definitions) -> list[dict[str, Any]]:
    return [event.value["alert"] for event in alerts.raise_alerts(instance, definitions)]


def fail(instance: Instance, definitions: Definitions, **options: Any) -> None:
    options = {"selection": "orders", "force": True, "raise_on_error": False} | options
    materialize(definitions, instance=instance, **options)


def told(hook: Hook) -> tuple[dict[str, str], Any]:
    headers, body = hook.told.get(timeout=30)
    return headers, json.loads(body)


def finish(threads: list[threading.Thread]) -> int:
    for thread in threads:
        thread.join(60)
    return len(threads)


def states(instance: Instance) -> list[tuple[str, int]]:
    found = instance.catalog.facts(FactTopic.ALERT).values()
    return [(fact.value["status"], fact.value["attempts"]) for fact in found]


def test_a_run_that_failed_is_told_of_once(instance: Instance) -> None:
    definitions = defined(AlertPolicy("on_call", "run_failure", NOBODY))
    fail(instance, definitions)  # before there was a policy
    assert raised(instance, definitions) == []
    fail(instance, definitions)
    (alert,) = raised(instance, definitions)
    run = instance.catalog.runs()[0]
    assert (alert["policy"], alert["event"], alert["run_id"]) == ("on_call", "run_failure", run.run_id)
    assert alert["assets"] == ["orders"]
    assert alert["title"] == "The run of orders failed"
    assert "RuntimeError: no \\x1b[31mbread\\u202e today" in alert["text"]
    assert raised(instance, definitions) == []
    assert [fact.name.split(":")[0] for fact in instance.catalog.facts(FactTopic.ALERT).values()] == ["on_call"]


def test_a_run_that_is_tried_again_is_told_of_when_it_has_failed_for_good(instance: Instance) -> None:
    definitions = defined(AlertPolicy("on_call", "run_failure", NOBODY))
    assert raised(instance, definitions) == []
    seen: list[list[dict[str, Any]]] = []
    tags = {"headwater/max_retries": "2"}

    def look(*_: Any) -> None:
        seen.append(raised(instance, definitions))

    fail(instance, definitions, tags=tags, on_retry=look)
    assert seen == [[], []]
    (alert,) = raised(instance, definitions)
    assert alert["run_id"] == instance.catalog.runs()[0].run_id
    assert len(instance.catalog.runs()) == 3

    def mend(*_: Any) -> None:
        Broken.now = False

    fail(instance, definitions, tags=tags, on_retry=mend)
    assert raised(instance, definitions) == []


@pytest.mark.parametrize(
    ("about", "options", "expected"),
    [
        ({"selection": "group:core"}, {}, 1),
        ({"selection": "other"}, {}, 0),
        ({"jobs": ["nightly"]}, {}, 0),
        ({"jobs": ["nightly"]}, {"job": "nightly", "selection": None}, 1),
        ({"tags": {"team": "*"}}, {"tags": {"team": "core"}}, 1),
        ({"tags": {"team": "core"}}, {"job": "nightly", "selection": None}, 1),
        ({"tags": {"team": "web"}}, {"tags": {"team": "core"}}, 0),
        ({"tags": {"team": "*"}}, {}, 0),
    ],
)
def test_which_runs_a_policy_is_about(
    instance: Instance, about: dict[str, Any], options: dict[str, Any], expected: int
) -> None:
    definitions = defined(AlertPolicy("on_call", ["run_failure"], NOBODY, **about))
    assert raised(instance, definitions) == []
    fail(instance, definitions, **options)
    assert len(raised(instance, definitions)) == expected


def test_a_breach_of_freshness_is_told_of_once(instance: Instance, clock: Hands) -> None:
    @asset(freshness_policy=FreshnessPolicy.time_window(timedelta(hours=2), timedelta(hours=1)))
    def rates() -> int:
        return 1

    policies = (
        AlertPolicy("fails", "freshness_fail", NOBODY),
        AlertPolicy("both", ["freshness_fail", "freshness_warn"], NOBODY),
    )
    definitions = Definitions([rates], alerts=policies)
    report(AssetMaterialization("rates"), instance=instance, definitions=definitions)
    heard: list[list[str]] = []
    for _ in range(5):
        freshness.look(instance, definitions.graph)
        heard.append(sorted(f"{one['policy']} {one['event']}" for one in raised(instance, definitions)))
        clock.sleep(3600)
    assert heard == [[], ["both freshness_warn"], ["both freshness_fail", "fails freshness_fail"], [], []]
    report(AssetMaterialization("rates"), instance=instance, definitions=definitions)
    freshness.look(instance, definitions.graph)
    assert raised(instance, definitions) == []
    clock.sleep(7200)
    freshness.look(instance, definitions.graph)
    (alert, _) = raised(instance, definitions)
    assert alert["title"] == "rates is too old: its freshness is FAIL"


def test_what_becomes_stale_is_told_of_once(instance: Instance, clock: Hands) -> None:
    Broken.now = False
    definitions = Definitions(
        [orders, asset(lambda: 1, name="totals", deps=[orders])],
        alerts=[AlertPolicy("stale", "stale", NOBODY, selection="totals")],
    )

    def look() -> list[str]:
        clock.sleep(60)
        freshness.look_for_staleness(instance, definitions)
        return [one["title"] for one in raised(instance, definitions)]

    assert look() == []
    materialize(definitions, instance=instance)
    assert look() == []
    report(AssetMaterialization("orders", data_version="x"), instance=instance, definitions=definitions)
    assert look() == ["totals is stale"]
    report(AssetMaterialization("orders", data_version="y"), instance=instance, definitions=definitions)
    assert look() == []
    materialize(definitions, selection="totals", upstream=False, instance=instance)
    assert look() == []
    report(AssetMaterialization("orders", data_version="z"), instance=instance, definitions=definitions)
    assert look() == ["totals is stale"]


def test_of_ticks_that_fail_one_after_another_the_first_is_told_of(instance: Instance, clock: Hands) -> None:
    def function() -> dict[str, Any]:
        if Broken.now:
            raise RuntimeError("no calendar")
        return {}

    schedule = ScheduleDefinition(
        "nightly", "* * * * *", "early", execution_fn=function, default_status="RUNNING", catch_up="all"
    )
    definitions = defined(
        AlertPolicy("ticks", "tick_failure", NOBODY, jobs=["nightly"]),
        AlertPolicy("unrelated", "run_failure", NOBODY),
        schedules=[schedule],
    )
    heard: list[int] = []
    for state in (True, True, False, True):
        Broken.now = state
        schedules.tick(instance, definitions, ORIGIN)
        if not heard:
            assert raised(instance, definitions) == []
        heard.append(len(raised(instance, definitions)))
        clock.sleep(60)
    assert heard == [0, 0, 0, 1]


def test_a_backfill_that_failed_is_told_of_and_its_runs_are_not(instance: Instance, clock: Hands) -> None:
    definitions = defined(AlertPolicy("on_call", ["backfill_failure", "run_failure"], NOBODY, selection="orders"))
    assert raised(instance, definitions) == []
    target = BackfillTarget(asset=AssetKey("orders"), cells=2)
    first, second = new_id(clock.now()), new_id(clock.now())
    error = ErrorRecord(kind="Failed", message="2 of 2")
    for identifier, asset_key in ((first, "orders"), (second, "other")):
        chosen = (BackfillTarget(asset=AssetKey(asset_key), cells=1), *((target,) if asset_key == "orders" else ()))
        instance.catalog.append(
            [
                BackfillStarted(time=clock.now(), backfill_id=identifier, targets=chosen, title="January"),
                BackfillEnded(time=clock.now(), backfill_id=identifier, status=BackfillStatus.FAILURE, error=error),
            ]
        )
    (alert,) = raised(instance, definitions)
    assert (alert["subject"], alert["title"]) == (first, "The backfill of January failed")


def test_of_two_that_look_one_tells(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    definitions = defined(AlertPolicy("on_call", "run_failure", NOBODY))
    assert raised(instance, definitions) == []
    fail(instance, definitions)
    read: Callable[..., Any] = instance.catalog.facts
    before = read(FactTopic.ALERTING, ["on_call"])
    assert len(raised(instance, definitions)) == 1

    def known(what: Any) -> Callable[..., Any]:
        def facts(*_: Any, **__: Any) -> Any:
            return what

        return facts

    with monkeypatch.context() as patch:  # the other one had looked before
        patch.setattr(instance.catalog, "facts", known(before))
        assert raised(instance, definitions) == []
    pending = read(FactTopic.ALERT)
    assert finish(deliver(instance, definitions)) == 1
    monkeypatch.setattr(instance.catalog, "facts", known(pending))
    assert deliver(instance, definitions) == []
    monkeypatch.undo()
    assert states(instance) == [("SENT", 1)]


def test_what_is_not_delivered_is_tried_again_and_then_given_up(instance: Instance, clock: Hands, hook: Hook) -> None:
    policy = AlertPolicy("on_call", "run_failure", WebhookTarget(hook.url, {"X-Team": "core"}))
    definitions = defined(policy)
    assert raised(instance, definitions) == []
    fail(instance, definitions)
    (alert,) = raised(instance, definitions)
    hook.statuses = [500, 302, 404]
    assert finish(deliver(instance, definitions)) == 1
    assert states(instance) == [("PENDING", 1)]
    assert deliver(instance, definitions) == []  # not yet
    for pause in PAUSES[:2]:
        clock.sleep(pause.total_seconds())
        assert finish(deliver(instance, definitions)) == 1
    errors = [e.message for e in instance.catalog.events(kinds=["ALERT_CHANGED"]) if "answered" in e.message]
    assert errors == [f"PENDING: DeliveryFailed: it answered {status}" for status in (500, 302, 404)]
    clock.sleep(PAUSES[2].total_seconds())
    assert finish(deliver(instance, definitions)) == 1
    assert states(instance) == [("SENT", 4)]
    headers, data = told(hook)
    assert (headers["Content-Type"], headers["X-Team"]) == ("application/json", "core")
    assert data == {**alert, "id": next(iter(instance.catalog.facts(FactTopic.ALERT)))}
    assert hook.told.qsize() == 3
    fail(instance, definitions)
    assert len(raised(instance, definitions)) == 1
    hook.statuses = [500] * 10
    for pause in (timedelta(), *PAUSES):
        clock.sleep(pause.total_seconds())
        assert finish(deliver(instance, definitions)) == 1
    assert states(instance)[0] == ("FAILED", len(PAUSES) + 1)
    clock.sleep(86400)
    assert deliver(instance, definitions) == []


def test_whoever_is_killed_while_delivering_is_followed_by_another(
    instance: Instance, clock: Hands, hook: Hook
) -> None:
    definitions = defined(AlertPolicy("on_call", "run_failure", SlackTarget(hook.url)))
    assert raised(instance, definitions) == []
    fail(instance, definitions)
    assert len(raised(instance, definitions)) == 1
    hook.statuses = [0]
    (hanging,) = deliver(instance, definitions)
    told(hook)  # it has been sent, and nobody knows
    assert states(instance) == [("SENDING", 1)]
    clock.sleep(LEASE.total_seconds() - 1)
    assert deliver(instance, definitions) == []
    clock.sleep(1)
    assert finish(deliver(instance, definitions)) == 1
    assert states(instance) == [("SENT", 2)]
    _, data = told(hook)
    assert data["text"].startswith("The run of orders failed\nRuntimeError: no \\x1b[31mbread")
    assert data["blocks"][0]["text"]["type"] == "plain_text"
    hook.go_on.set()
    hanging.join(60)
    assert states(instance) == [("SENT", 2)]  # what comes late changes nothing


def test_a_target_that_hangs_is_given_up(instance: Instance, hook: Hook, tmp_path: Path) -> None:
    hook.statuses = [0]
    alert = {"title": "t", "text": "<b>&", "id": "x"}
    policy = AlertPolicy("p", "run_failure", NOBODY)
    assert "timed out" in str(attempt(instance, policy, WebhookTarget(hook.url, timeout=0.1), alert))
    sleep = f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    error = attempt(instance, policy, CommandTarget([sys.executable, "-c", sleep], timeout=1), alert)
    assert error == f"DeliveryFailed: {sys.executable} took longer than 1 s"
    assert "No such file" in str(attempt(instance, policy, CommandTarget(["/absent/program"]), alert))
    assert attempt(instance, policy, SlackTarget(hook.url), alert) is None
    told(hook)
    assert told(hook)[1]["text"] == "&lt;b&gt;&amp;"


def test_a_command_is_given_the_alert(instance: Instance, tmp_path: Path) -> None:
    copy = f"import shutil, sys; shutil.copyfileobj(sys.stdin.buffer, open({str(tmp_path / 'told')!r}, 'wb'))"
    policy = AlertPolicy("p", "run_failure", CommandTarget([sys.executable, "-c", copy]))
    alert = {"title": "ü", "text": "t"}
    assert attempt(instance, policy, policy.targets[0], alert) is None
    assert json.loads((tmp_path / "told").read_bytes()) == alert
    target = CommandTarget([sys.executable, "-c", "import sys; sys.exit('no\\x1b[31m paper')"])
    error = attempt(instance, policy, target, alert)
    assert error == f"DeliveryFailed: {sys.executable} exited with 1: no\\x1b[31m paper"


def test_secrets_are_looked_up_when_they_are_needed_and_never_shown(
    instance: Instance, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = WebhookTarget(EnvVar("HOOK_URL"), {"Authorization": EnvVar("HOOK_TOKEN")})
    policy = AlertPolicy("p", "run_failure", target)
    alert = {"title": "t", "text": "t"}
    assert "HOOK_TOKEN is not set" in str(attempt(instance, policy, target, alert))
    monkeypatch.setenv("HOOK_TOKEN", "Bearer hunter22")
    monkeypatch.setenv("HOOK_URL", "gopher://hunter22")
    assert attempt(instance, policy, target, alert) == "DeliveryFailed: its address is no http or https address"
    monkeypatch.setenv("HOOK_URL", hook.url)
    assert attempt(instance, policy, target, alert) is None
    assert told(hook)[0]["Authorization"] == "Bearer hunter22"
    assert target.describe() == "webhook env:HOOK_URL"
    assert SlackTarget(hook.url).describe() == "slack 127.0.0.1"
    monkeypatch.setenv("HOOK_TOKEN", "in\nvalid-hunter22")
    assert "hunter22" not in str(attempt(instance, policy, target, alert))
    monkeypatch.setenv("PASSWORD", "bread\u202e")
    definitions = defined(AlertPolicy("own", "run_failure", WebhookTarget(hook.url, {"X": EnvVar("PASSWORD")})))
    assert raised(instance, definitions) == []
    fail(instance, definitions)
    (one,) = raised(instance, definitions)
    assert "env:PASSWORD today" in one["reason"]


@pytest.fixture
def certificates(tmp_path: Path) -> tuple[Path, Path]:
    authority = trustme.CA()
    own, trusted = tmp_path / "own.pem", tmp_path / "trusted.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(own))
    authority.cert_pem.write_to_path(str(trusted))
    return own, trusted


def test_an_e_mail_is_sent_encrypted_to_a_server_that_is_trusted(
    instance: Instance, certificates: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    own, trusted = certificates
    monkeypatch.setenv("SMTP_PASSWORD", "hunter22")
    alert = {"title": "Broken\r\nBcc: all@example.com", "text": "no bread\n.\nü\x1b[31m"}
    secret = base64.b64encode(b"\0us\0hunter22").decode()
    with mail_server(own, credentials=secret) as box:
        target = EmailTarget(
            ("a@example.com", "b@example.com"),
            "headwater@example.com",
            "127.0.0.1",
            box.port,
            username="us",
            password=EnvVar("SMTP_PASSWORD"),
            ca_file=str(trusted),
        )
        policy = AlertPolicy("p", "run_failure", target)
        assert attempt(instance, policy, target, alert) is None
        message = email.message_from_bytes(box.sent.get(timeout=30), policy=email.policy.default)
        assert message["Subject"] == "Broken\\r\\nBcc: all@example.com"
        assert (message["To"], message["From"]) == ("a@example.com, b@example.com", "headwater@example.com")
        assert message["Bcc"] is None
        body = message.get_body()
        assert body is not None
        assert body.get_content() == "no bread\n.\nü\\x1b[31m\n"
        assert [line.split(" ")[0] for line in box.clear] == ["ehlo", "STARTTLS"]
        assert not any("hunter" in line or secret in line for line in box.clear)
        monkeypatch.setenv("SMTP_PASSWORD", "hunter23")
        error = str(attempt(instance, policy, target, alert))
        assert "SMTPAuthenticationError" in error
        assert "hunter" not in error
        untrusting = EmailTarget("a@example.com", "h@example.com", "127.0.0.1", box.port)
        assert "CERTIFICATE_VERIFY_FAILED" in str(attempt(instance, policy, untrusting, alert))
        assert box.sent.empty()


def test_an_e_mail_without_encryption_is_sent_where_that_is_asked_for(instance: Instance) -> None:
    with mail_server() as box:
        plain = EmailTarget("a@example.com", "h@example.com", "127.0.0.1", box.port, security="none")
        policy = AlertPolicy("p", "run_failure", plain)
        assert attempt(instance, policy, plain, {"title": "t", "text": "t"}) is None
        assert box.sent.get(timeout=30)
        encrypted = EmailTarget("a@example.com", "h@example.com", "127.0.0.1", box.port)
        assert "STARTTLS" in str(attempt(instance, policy, encrypted, {"title": "t", "text": "t"}))
        assert box.sent.empty()


HOOK = "https://hooks.example.com/x"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: AlertPolicy("p", "check_failure", NOBODY), "there are no checks yet"),
        (lambda: AlertPolicy("p", "fire", NOBODY), "is about 'fire'"),
        (lambda: AlertPolicy("p", [], NOBODY), "about nothing"),
        (lambda: AlertPolicy("p", "stale", []), "tells nobody"),
        (lambda: AlertPolicy("p", "stale", cast(Any, [HOOK])), "has a str as a target"),
        (lambda: AlertPolicy("p q", "stale", NOBODY), "cannot be called"),
        (lambda: AlertPolicy("p", "stale", NOBODY, selection="((("), "alert policy `p`"),
        (lambda: AlertPolicy("p", "stale", NOBODY, message="$nothing"), r"message with \$nothing"),
        (lambda: AlertPolicy("p", "stale", NOBODY, message="5 $"), r"a lone \$"),
        (lambda: WebhookTarget("file:///etc/passwd"), "no http or https"),
        (lambda: WebhookTarget(HOOK, {"X": "a\r\nY: b"}), "header 'X'"),
        (lambda: WebhookTarget(HOOK, timeout=3600), "timeout=3600"),
        (lambda: CommandTarget("rm -rf /"), "list of words"),
        (lambda: CommandTarget([]), "list of words"),
        (lambda: EmailTarget("nobody", "a@b", "h"), "address 'nobody'"),
        (lambda: EmailTarget("a@b", "a@b\r\nBcc: c@d", "h"), "address"),
        (lambda: EmailTarget([], "a@b", "h"), "to nobody"),
        (lambda: EmailTarget("a@b", "a@b", "h", security="maybe"), "security='maybe'"),
        (lambda: EmailTarget("a@b", "a@b", "h", username="u", password=cast(Any, "hunter22")), "stands in the code"),
        (lambda: EmailTarget("a@b", "a@b", "h", username="u"), "both a username and a password"),
        (
            lambda: EmailTarget("a@b", "a@b", "h", username="u", password=EnvVar("P"), security="none"),
            "unencrypted",
        ),
        (lambda: defined(AlertPolicy("p", "stale", NOBODY, jobs=["nighly"])), "the job `nighly`"),
        (lambda: defined(AlertPolicy("p", "stale", NOBODY, selection="ordrs")), "ordrs"),
        (lambda: defined(AlertPolicy("p", "stale", NOBODY), AlertPolicy("p", "stale", NOBODY)), "Two alerts"),
    ],
)
def test_what_makes_no_sense_is_refused(make: Callable[[], object], words: str) -> None:
    with pytest.raises(DefinitionError, match=words):
        make()


def test_a_message_says_what_its_template_does(instance: Instance) -> None:
    template = "$policy: $title at $time, ${job}, costs 5 $$ $reason.__class__"
    definitions = defined(AlertPolicy("p", "run_failure", NOBODY, message=template))
    assert raised(instance, definitions) == []
    fail(instance, definitions, selection=None, job="nightly")
    (alert,) = raised(instance, definitions)
    at = datetime(2024, 3, 9, 12, tzinfo=UTC).isoformat()
    assert alert["text"].startswith(f"p: The run of nightly failed at {at}, nightly, costs 5 $ RuntimeError: no ")
    assert alert["text"].endswith(".__class__")
