"""Why a cell is not fresh: the kinds of causes, and the rule for one cell of an unpartitioned asset."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from headwater.catalog.keys import AssetKey
from headwater.catalog.lineage.node import UNBOUND, AssetNode, Dependency
from headwater.catalog.records import Fingerprint, Input
from headwater.catalog.storage.base import CellState


class Status(StrEnum):
    """Whether a cell's data is what building it now would give."""

    FRESH = "FRESH"
    STALE = "STALE"
    MISSING = "MISSING"


class CauseKind(StrEnum):
    """Why a cell is not fresh."""

    NEVER_MATERIALIZED = "never_materialized"
    NOT_MADE = "not_made"
    CODE_CHANGED = "code_changed"
    DEFINITION_CHANGED = "definition_changed"
    CONFIG_CHANGED = "config_changed"
    RESOURCES_CHANGED = "resources_changed"
    IO_MANAGER_CHANGED = "io_manager_changed"
    DEPENDENCY_ADDED = "dependency_added"
    DEPENDENCY_REMOVED = "dependency_removed"
    UPSTREAM_DATA_CHANGED = "upstream_data_changed"
    UPSTREAM_STALE = "upstream_stale"
    UPSTREAM_MISSING = "upstream_missing"
    UPSTREAM_REBUILT = "upstream_rebuilt"
    FORCED = "forced"


#: Causes that lie further up: whether they matter shows when the upstream asset has been built.
TRANSITIVE = frozenset({CauseKind.UPSTREAM_STALE, CauseKind.UPSTREAM_MISSING, CauseKind.UPSTREAM_REBUILT})


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """One reason why a cell is not fresh."""

    kind: CauseKind
    #: The upstream asset that it is about.
    upstream: AssetKey | None = None
    #: The columns of it that changed, where known.
    columns: tuple[str, ...] = ()
    detail: str = ""
    #: The upstream version that was read, where its data changed.
    read_version: str | None = None

    @property
    def transitive(self) -> bool:
        """Whether it lies further up than the asset's own inputs."""
        return self.kind in TRANSITIVE

    def __str__(self) -> str:
        text = _PHRASES[self.kind].format(upstream=self.upstream)
        if self.columns:
            text += f" in {', '.join(self.columns)}"
        return f"{text} ({self.detail})" if self.detail else text


_PHRASES: Mapping[CauseKind, str] = {
    CauseKind.NEVER_MATERIALIZED: "never materialized",
    CauseKind.NOT_MADE: "optional, and its step did not make it",
    CauseKind.CODE_CHANGED: "code changed",
    CauseKind.DEFINITION_CHANGED: "inputs are wired differently",
    CauseKind.CONFIG_CHANGED: "config changed",
    CauseKind.RESOURCES_CHANGED: "a resource changed",
    CauseKind.IO_MANAGER_CHANGED: "the IO manager changed",
    CauseKind.DEPENDENCY_ADDED: "new dependency {upstream}",
    CauseKind.DEPENDENCY_REMOVED: "no longer depends on {upstream}",
    CauseKind.UPSTREAM_DATA_CHANGED: "{upstream} has new data",
    CauseKind.UPSTREAM_STALE: "{upstream} is stale",
    CauseKind.UPSTREAM_MISSING: "{upstream} is missing",
    CauseKind.UPSTREAM_REBUILT: "{upstream} is rebuilt",
    CauseKind.FORCED: "forced",
}

_PARTS = (
    ("code", CauseKind.CODE_CHANGED),
    ("definition", CauseKind.DEFINITION_CHANGED),
    ("config", CauseKind.CONFIG_CHANGED),
    ("resources", CauseKind.RESOURCES_CHANGED),
    ("io", CauseKind.IO_MANAGER_CHANGED),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CellStatus:
    """The status of one cell and its causes, direct ones first; a fresh cell has none."""

    status: Status
    causes: tuple[Cause, ...] = ()

    @property
    def settled(self) -> bool:
        """Whether building it now would change nothing: it is fresh, or its step chose not to make it."""
        return all(cause.kind is CauseKind.NOT_MADE for cause in self.causes)


FRESH = CellStatus(status=Status.FRESH)
MISSING = CellStatus(status=Status.MISSING, causes=(Cause(kind=CauseKind.NEVER_MATERIALIZED),))
NOT_MADE = CellStatus(status=Status.MISSING, causes=(Cause(kind=CauseKind.NOT_MADE),))


def direct_causes(node: AssetNode, state: CellState, current: Mapping[AssetKey, CellState]) -> list[Cause]:
    """Why a recorded cell is stale on its own account, given the current state of what it depends on."""
    causes: list[Cause] = []
    if node.fingerprint is not None and node.fingerprint != state.fingerprint:
        causes.extend(fingerprint_causes(state.fingerprint, node.fingerprint))
    recorded = {item.asset: item for item in state.inputs}
    for dep in node.deps:
        item = recorded.pop(dep.key, None)
        if item is None:
            causes.append(Cause(kind=CauseKind.DEPENDENCY_ADDED, upstream=dep.key))
            continue
        upstream = current.get(dep.key)
        if item.partition is not None:  # it was divided then: what was read is not what there is now, whatever that is
            causes.append(Cause(kind=CauseKind.UPSTREAM_DATA_CHANGED, upstream=dep.key))
        elif upstream is not None and upstream.data_version != item.data_version:
            cause = _data_cause(dep, item, upstream)
            if cause is not None:
                causes.append(cause)
    causes.extend(Cause(kind=CauseKind.DEPENDENCY_REMOVED, upstream=key) for key in recorded)
    return causes


def fingerprint_causes(old: Fingerprint, new: Fingerprint) -> Iterable[Cause]:
    """What of everything but the inputs is not what it was."""
    for part, kind in _PARTS:
        before, after = getattr(old, part), getattr(new, part)
        if before != after and _comparable(before, after):
            detail = f"{_short(before)} → {_short(after)}" if kind is CauseKind.CODE_CHANGED else ""
            yield Cause(kind=kind, detail=detail)


def _data_cause(dep: Dependency, item: Input, upstream: CellState) -> Cause | None:
    """Why the upstream's new data matters; None when only columns that are not read differ."""
    columns: tuple[str, ...] = ()
    if dep.columns is not None and item.columns is not None and upstream.columns:
        columns = tuple(c for c in dep.columns if item.columns.get(c) != upstream.columns.get(c))
        if not columns:
            return None
    return Cause(kind=CauseKind.UPSTREAM_DATA_CHANGED, upstream=dep.key, columns=columns, read_version=item.version_id)


def _comparable(old: str, new: str) -> bool:
    """Whether two different versions mean different things.

    Versions of one family of schemes, such as `py1` and `py2`, do not: what changed is how Headwater hashes. Nor does
    one that only a run's configuration settles.
    """
    a, b = old.partition(":")[0], new.partition(":")[0]
    return UNBOUND not in (old, new) and (a == b or _family(a) != _family(b))


def _family(scheme: str) -> str:
    return re.sub(r"[0-9]+$", "", scheme)


def _short(version: str) -> str:
    scheme, _, text = version.partition(":")
    return f"'{text}'" if scheme == "user" else text[:8]
