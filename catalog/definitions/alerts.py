"""Alert policies: of what somebody is to be told, and how. What was told is in the catalog."""

import re
import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, cast
from urllib.parse import urlsplit

from headwater.catalog.config import EnvVar
from headwater.catalog.definitions.job import check_name, check_tags
from headwater.catalog.definitions.selection import AssetSelection, coerce_selection
from headwater.catalog.definitions.source import SourceLocation
from headwater.catalog.errors import DefinitionError, HeadwaterError, nearest
from headwater.catalog.lineage.asset_graph import AssetGraph
from headwater.catalog.printable import printable_line, with_article

#: Seconds that one try at telling somebody may take, by default and at most.
DEFAULT_TIMEOUT, MAX_TIMEOUT = 10.0, 60.0
#: What a message may say: `$name` in its template.
FIELDS = ("policy", "event", "subject", "title", "reason", "run_id", "job", "time")
_HEADER = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


class AlertEvent(StrEnum):
    """Of what somebody may be told."""

    #: A run failed or was broken off, and is not tried again.
    RUN_FAILURE = "run_failure"
    BACKFILL_FAILURE = "backfill_failure"
    #: A schedule or a sensor could not be evaluated, and could before.
    TICK_FAILURE = "tick_failure"
    #: An asset that was fresh is stale.
    STALE = "stale"
    #: An asset's freshness is WARN, or FAIL.
    FRESHNESS_WARN = "freshness_warn"
    FRESHNESS_FAIL = "freshness_fail"

    @property
    def of_asset(self) -> bool:
        """Whether it is about an asset as such."""
        return self in (AlertEvent.STALE, AlertEvent.FRESHNESS_WARN, AlertEvent.FRESHNESS_FAIL)


@dataclass(frozen=True, slots=True)
class CommandTarget:
    """A program that is started with the alert as JSON on its standard input; it succeeds by exiting with 0."""

    arguments: tuple[str, ...]
    timeout: float = DEFAULT_TIMEOUT

    def __init__(self, arguments: Sequence[str], *, timeout: float = DEFAULT_TIMEOUT) -> None:
        given = cast(object, arguments)
        if isinstance(given, str) or not isinstance(given, Sequence) or not given:
            raise DefinitionError(
                "A CommandTarget is a list of words.", remedy="Write CommandTarget(['notify', '-v'])."
            )
        words = cast(Sequence[Any], given)
        if any(not isinstance(word, str) or "\0" in word for word in words):
            raise DefinitionError("The words of a CommandTarget are texts.", remedy="Write them as 'text'.")
        object.__setattr__(self, "arguments", tuple(words))
        object.__setattr__(self, "timeout", _seconds(timeout))

    def describe(self) -> str:
        """In words."""
        return f"command {self.arguments[0]}"


@dataclass(frozen=True, slots=True)
class WebhookTarget:
    """An address to which the alert is sent as JSON by POST; it succeeds by answering 2xx."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    timeout: float = DEFAULT_TIMEOUT

    def __post_init__(self) -> None:
        _check_url(self.url)
        for name, value in self.headers.items():
            if not isinstance(cast(object, value), str) or not _HEADER.fullmatch(name) or re.search(r"[\r\n\0]", value):
                raise DefinitionError(
                    f"A WebhookTarget with the header {printable_line(name, 60)!r}.",
                    remedy="A header is a name and a line of text, or EnvVar('NAME').",
                )
        _seconds(self.timeout)

    def describe(self) -> str:
        """In words: the host alone, as paths of such addresses are secrets."""
        return f"webhook {_host(self.url)}"


@dataclass(frozen=True, slots=True)
class SlackTarget:
    """An incoming webhook of Slack, or of whatever takes the same."""

    url: str
    timeout: float = DEFAULT_TIMEOUT

    def __post_init__(self) -> None:
        _check_url(self.url)
        _seconds(self.timeout)

    def describe(self) -> str:
        """In words: the host alone."""
        return f"slack {_host(self.url)}"


@dataclass(frozen=True, slots=True, init=False)
class EmailTarget:
    """An e-mail to `to`, through the SMTP server `host`.

    `security` is "starttls", "tls" for a connection that is encrypted from the start, or "none". The password is an
    `EnvVar`. `ca_file` names the certificates to trust instead of the system's.
    """

    to: tuple[str, ...]
    sender: str
    host: str
    port: int | None = None
    username: str | None = None
    password: EnvVar | None = None
    security: str = "starttls"
    ca_file: str | None = None
    timeout: float = DEFAULT_TIMEOUT

    def __init__(
        self,
        to: str | Iterable[str],
        sender: str,
        host: str,
        port: int | None = None,
        *,
        username: str | None = None,
        password: EnvVar | None = None,
        security: str = "starttls",
        ca_file: str | None = None,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> None:
        values = {
            "to": (to,) if isinstance(to, str) else tuple(to),
            "sender": sender,
            "host": host,
            "port": port,
            "username": username,
            "password": password,
            "security": security,
            "ca_file": ca_file,
            "timeout": _seconds(timeout),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)
        self._check()

    def _check(self) -> None:
        for address in (*self.to, self.sender):
            if not isinstance(cast(object, address), str) or not re.fullmatch(r"[^@\s<>,;]+@[^@\s<>,;]+", address):
                raise DefinitionError(
                    f"An EmailTarget with the address {printable_line(str(address), 60)!r}.",
                    remedy="Write name@host, without anything else.",
                )
        if not self.to:
            raise DefinitionError("An EmailTarget to nobody.", remedy="Write to=['name@host'].")
        if self.security not in ("starttls", "tls", "none"):
            raise DefinitionError(
                f"An EmailTarget with security={self.security!r}.", remedy="It is 'starttls', 'tls' or 'none'."
            )
        if self.password is not None and not isinstance(cast(object, self.password), EnvVar):
            raise DefinitionError(
                "The password of an EmailTarget stands in the code.", remedy="Write password=EnvVar('SMTP_PASSWORD')."
            )
        if (self.username is None) != (self.password is None):
            raise DefinitionError("An EmailTarget has both a username and a password, or none.", remedy="Give both.")
        if self.security == "none" and self.password is not None:
            raise DefinitionError(
                "An EmailTarget would send its password unencrypted.", remedy="Write security='starttls' or 'tls'."
            )

    def describe(self) -> str:
        """In words."""
        return f"e-mail {', '.join(self.to)}"


Target = CommandTarget | WebhookTarget | SlackTarget | EmailTarget
_TARGETS = "CommandTarget(…), WebhookTarget(…), SlackTarget(…) or EmailTarget(…)"


@dataclass(frozen=True, slots=True, init=False)
class AlertPolicy:
    """Whom to tell of what: each of `events`, of what is selected, once to each of `targets`.

    `selection` says which assets: those that are stale or too old, or that a run or backfill failed to build. `jobs`
    and `tags` say which runs; a tag with the value "*" may have any. `message` is what is said, with `$title`,
    `$reason` and the other `FIELDS` in it. Raises `DefinitionError`.
    """

    name: str
    events: frozenset[AlertEvent]
    targets: tuple[Target, ...]
    selection: AssetSelection | None
    jobs: frozenset[str]
    tags: Mapping[str, str]
    message: str
    source: SourceLocation = field(compare=False)

    def __init__(
        self,
        name: str,
        events: AlertEvent | str | Iterable[AlertEvent | str],
        targets: Target | Iterable[Target],
        *,
        selection: Any = None,
        jobs: Iterable[str] = (),
        tags: Mapping[str, str] | None = None,
        message: str = "$title\n$reason",
    ) -> None:
        source = SourceLocation.of_caller()
        place = f"{source}: the alert policy `{check_name(name, 'alert policy', source)}`"
        listed = (targets,) if isinstance(targets, Target) else tuple(cast(Iterable[Any], targets))
        for target in listed:
            if not isinstance(cast(object, target), Target):
                raise DefinitionError(
                    f"{place} has {with_article(type(target).__name__)} as a target.", remedy=f"Give {_TARGETS}."
                )
        if not listed:
            raise DefinitionError(f"{place} tells nobody.", remedy=f"Give targets=[{_TARGETS}].")
        names = (jobs,) if isinstance(jobs, str) else tuple(jobs)
        try:
            chosen = None if selection is None else coerce_selection(selection)
        except HeadwaterError as error:
            raise DefinitionError(f"{place}: {error.message}", remedy=error.remedy) from None
        values = {
            "name": name,
            "events": frozenset(_event(one, place) for one in ((events,) if isinstance(events, str) else events)),
            "targets": listed,
            "selection": chosen,
            "jobs": frozenset(names),
            "tags": check_tags(tags, place),
            "message": _message(message, place),
            "source": source,
        }
        if not values["events"]:
            raise DefinitionError(f"{place} is about nothing.", remedy=f"Give one of {', '.join(AlertEvent)}.")
        for attribute, value in values.items():
            object.__setattr__(self, attribute, value)

    @property
    def references(self) -> list[EnvVar]:
        """The environment variables that its targets refer to."""
        found: list[object] = []
        for one in self.targets:
            if isinstance(one, WebhookTarget):
                found += [one.url, *one.headers.values()]
            elif isinstance(one, SlackTarget):
                found.append(one.url)
            elif isinstance(one, EmailTarget):
                found.append(one.password)
        return [one for one in found if isinstance(one, EnvVar)]


def check_alerts(policies: Mapping[str, AlertPolicy], jobs: Iterable[str], graph: AssetGraph) -> None:
    """Raise `DefinitionError` for a policy about a job or an asset that there is not."""
    known = list(jobs)
    for policy in policies.values():
        try:
            _ = policy.selection and policy.selection.resolve(graph)
        except HeadwaterError as error:
            place = f"{policy.source}: the alert policy `{policy.name}`"
            raise DefinitionError(f"{place}: {error.message}", remedy=error.remedy) from None
        for name in sorted(policy.jobs.difference(known)):
            raise DefinitionError(
                f"{policy.source}: the alert policy `{policy.name}` is about the job `{name}`: there is none.",
                remedy=nearest(name, known) or "Add it to Definitions(jobs=[…]).",
            )


def _event(given: object, place: str) -> AlertEvent:
    try:
        return AlertEvent(str(given))
    except ValueError:
        if "check" in str(given):
            raise DefinitionError(
                f"{place} is about checks, and there are no checks yet.", remedy="Leave it out until there are."
            ) from None
        raise DefinitionError(
            f"{place} is about {printable_line(str(given), 60)!r}.", remedy=f"It is one of {', '.join(AlertEvent)}."
        ) from None


def _message(template: object, place: str) -> str:
    if not isinstance(template, str):
        raise DefinitionError(f"{place} has a message that is no text.", remedy="Write it like '$title'.")
    parsed = string.Template(template)
    unknown = [f"${name}" for name in parsed.get_identifiers() if name not in FIELDS] if parsed.is_valid() else []
    if unknown or not parsed.is_valid():
        shown = unknown[0] if unknown else "a lone $"
        raise DefinitionError(
            f"{place} has a message with {shown}.",
            remedy=f"It may hold {', '.join(f'${name}' for name in FIELDS)}; $$ is a dollar.",
        )
    return template


def _check_url(url: object) -> None:
    if isinstance(url, EnvVar):
        return
    parts = urlsplit(url) if isinstance(url, str) else None
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname or re.search(r"\s", str(url)):
        raise DefinitionError(
            "A target's url is no http or https address.", remedy="Write https://host/path, or EnvVar('NAME')."
        )


def _host(url: str) -> str:
    return url.reference if isinstance(url, EnvVar) else str(urlsplit(url).hostname)


def _seconds(given: object) -> float:
    if not isinstance(given, int | float) or not 0 < given <= MAX_TIMEOUT:
        raise DefinitionError(f"A target with timeout={given!r}.", remedy=f"Give seconds, up to {MAX_TIMEOUT:g}.")
    return float(given)
