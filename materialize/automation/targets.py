"""Telling somebody: one try at one target, which takes no longer than the target may."""

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Mapping
from typing import Any

from headwater.catalog.config import EnvVar
from headwater.catalog.definitions.alerts import CommandTarget, EmailTarget, SlackTarget, Target, WebhookTarget
from headwater.catalog.printable import printable, printable_line

#: Characters of what a program prints that are kept.
_MAX_PRINTED = 500
#: Characters that Slack takes as a text.
_MAX_SLACK = 3000


class DeliveryFailed(Exception):
    """Nobody was told; the message says why."""


def send(target: Target, alert: Mapping[str, Any]) -> None:
    """Tell a target of an alert: its `title`, its `text` and everything else that is known of it.

    Raises whatever goes wrong; a variable that is not set is a `ConfigError`.
    """
    match target:
        case CommandTarget():
            _run(target, alert)
        case WebhookTarget():
            headers = {name: _resolved(value, f"The header {name}") for name, value in target.headers.items()}
            _post(target.url, alert, headers, target.timeout)
        case SlackTarget():
            _post(target.url, _for_slack(alert), {}, target.timeout)
        case EmailTarget():
            _mail(target, alert)


def _resolved(value: str, path: str) -> str:
    return str(value.resolve(path)) if isinstance(value, EnvVar) else value


def _run(target: CommandTarget, alert: Mapping[str, Any]) -> None:
    process = subprocess.Popen(
        target.arguments,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        _, printed = process.communicate(json.dumps(alert).encode(), timeout=target.timeout)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # what it started as well
        process.communicate()
        raise DeliveryFailed(f"{target.arguments[0]} took longer than {target.timeout:g} s") from None
    if process.returncode:
        said = printable_line(printed.decode(errors="replace").strip(), _MAX_PRINTED)
        raise DeliveryFailed(f"{target.arguments[0]} exited with {process.returncode}: {said}")


def _post(url: str, data: Mapping[str, Any], headers: Mapping[str, str], timeout: float) -> None:
    from urllib.error import HTTPError, URLError
    from urllib.request import HTTPHandler, HTTPSHandler, OpenerDirector, ProxyHandler, Request

    opener = OpenerDirector()  # which follows no redirection: what is sent is for who was named
    for handler in (ProxyHandler(), HTTPHandler(), HTTPSHandler()):
        opener.add_handler(handler)
    address = _resolved(url, "The address of a target")
    if not address.startswith(("http://", "https://")):
        raise DeliveryFailed("its address is no http or https address")
    body = json.dumps(data).encode()
    request = Request(address, body, {"Content-Type": "application/json", **headers}, method="POST")
    try:
        answer = opener.open(request, timeout=timeout)
        assert answer is not None  # its handlers know the scheme
        with answer:
            status: int = answer.status
    except HTTPError as error:
        status = error.code
        error.close()
    except URLError as error:
        raise DeliveryFailed(f"it cannot be reached: {error.reason}") from None
    if not 200 <= status < 300:
        raise DeliveryFailed(f"it answered {status}")


def _for_slack(alert: Mapping[str, Any]) -> dict[str, Any]:
    """What an incoming webhook of Slack takes; in a text that is plain nothing means anything."""
    text = printable(str(alert["text"]))[:_MAX_SLACK] or str(alert["title"])
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return {
        "text": escaped,
        "blocks": [{"type": "section", "text": {"type": "plain_text", "text": text, "emoji": False}}],
    }


def _mail(target: EmailTarget, alert: Mapping[str, Any]) -> None:
    import smtplib
    import ssl
    from email.message import EmailMessage
    from email.utils import formatdate, make_msgid

    message = EmailMessage()
    message["Subject"] = printable_line(str(alert["title"]), 200)
    message["From"], message["To"] = target.sender, ", ".join(target.to)
    message["Date"] = formatdate()
    message["Message-ID"] = make_msgid(domain=target.sender.partition("@")[2])
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(printable(str(alert["text"])) + "\n")
    password = None if target.password is None else target.password.resolve("The password of an EmailTarget")
    context = None if target.security == "none" else ssl.create_default_context(cafile=target.ca_file)
    port = target.port or {"none": 25, "starttls": 587, "tls": 465}[target.security]
    if target.security == "tls":
        assert context is not None
        server = smtplib.SMTP_SSL(target.host, port, timeout=target.timeout, context=context)
    else:
        server = smtplib.SMTP(target.host, port, timeout=target.timeout)
    with server:
        if target.security == "starttls":
            server.starttls(context=context)
        if target.username is not None and password is not None:
            server.login(target.username, password)
        server.send_message(message)
