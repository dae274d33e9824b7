"""What a catalog answers to conditions."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import Any

import numpy as np

from headwater.catalog.definitions.condition import AutomationCondition
from headwater.catalog.definitions.due import last_instant
from headwater.catalog.errors import HeadwaterError
from headwater.catalog.events import EventKind
from headwater.catalog.freshness import Freshness
from headwater.catalog.keys import AssetKey
from headwater.catalog.lineage.asset_graph import AssetGraph
from headwater.catalog.lineage.node import AssetNode, Dependency
from headwater.catalog.partitions.definition import PartitionsContext
from headwater.catalog.partitions.links import Links
from headwater.catalog.partitions.series import Int64s, int64s
from headwater.catalog.partitions.space import Partitions
from headwater.catalog.records import OPEN, BackfillStatus, LoggedEvent, Run
from headwater.catalog.storage.base import CatalogReader
from headwater.materialize.automation.conditions.facts import NO_UPDATES, Updates, microseconds
from headwater.materialize.cell_table import CellTable, Mask
from headwater.materialize.freshness import freshness_of
from headwater.materialize.partition_choice import PartitionChoice
from headwater.materialize.reader import Reader, is_interrupted


class CatalogFacts:
    """Implements `Facts` by a catalog. What it knows is read when it is asked for."""

    def __init__(
        self,
        graph: AssetGraph,
        catalog: CatalogReader,
        now: datetime,
        after: int | None = None,
        scope: set[AssetKey] | None = None,
    ) -> None:
        """`after` is the number of the last event that the evaluation before knew of; None where there was none.

        `scope` are the assets that it is going to be asked about.
        """
        self.graph = graph
        self.catalog = catalog
        self.now = now
        # What happened is read before what is the case: what happens in between is seen again the next time.
        self._seen = catalog.last_event()
        kinds = [EventKind.ASSET_MATERIALIZATION]
        self._happened = [] if after is None else catalog.events(kinds=kinds, after=after, limit=None)
        self.reader = Reader(graph, catalog, now, scope)
        self._planned: dict[str, dict[AssetKey, list[str | None]]] = {}
        self._tags: dict[str, Mapping[str, str]] = {}

    @property
    def seen(self) -> int:
        """See `Facts.seen`."""
        return max(self._seen, self._happened[-1].seq if self._happened else 0)

    @cached_property
    def table(self) -> CellTable:
        """What is recorded of every cell."""
        context = PartitionsContext(self.now, self.catalog.dynamic_keys)
        reader = self.reader
        return reader.table or CellTable(self.graph, reader.cells, self.catalog, context, reader.scope)

    def partitions(self, key: AssetKey) -> Partitions:
        """See `Facts.partitions`."""
        return self.table.partitions(key)

    def links(self, node: AssetNode, dep: Dependency) -> Links:
        """See `Facts.links`."""
        return self.table.links(node, dep)

    def missing(self, key: AssetKey) -> Mask:
        """See `Facts.missing`."""
        built = self.table.arrays(key).built
        return np.zeros(len(built), np.bool_) if self.graph[key].external else ~built

    def stale(self, key: AssetKey, transitive: bool) -> Mask:
        """See `Facts.stale`."""
        if self.graph[key].external:
            return self._none(key)
        found = self.reader.staleness.stale(key) if transitive else self.reader.staleness.direct(key)
        return np.array([found]) if isinstance(found, bool) else found & self.table.arrays(key).built

    def in_run(self, key: AssetKey) -> Mask:
        """See `Facts.in_run`."""
        return self._in_runs.get(key, self._none(key))

    def in_backfill(self, key: AssetKey) -> Mask:
        """See `Facts.in_backfill`."""
        return self._in_backfills.get(key, self._none(key))

    def failed(self, key: AssetKey) -> Mask:
        """See `Facts.failed`."""
        return self._mask(key, self._failures.get(key, ()))

    def updates(self, key: AssetKey) -> Updates:
        """See `Facts.updates`."""
        events = self._updates.get(key)
        if events is None:
            return NO_UPDATES
        ordinals = self._ordinals(key, list(events))
        found = [event for event, at in zip(events.values(), ordinals.tolist(), strict=True) if at >= 0]
        return Updates(
            ordinals[ordinals >= 0],
            int64s([microseconds(event.time) for event in found]),
            [event.run_id or "" for event in found],
            [event.data["version_id"] for event in found],
        )

    def changed(self, key: AssetKey) -> Mask:
        """See `Facts.changed`."""
        found: list[str | None] = []
        for partition, event in self._updates.get(key, {}).items():
            first = self._first[key, partition].data["version_id"]
            before = self.catalog.materializations(key, partition, limit=1, before=first)
            if not before or before[0].data_version != event.data["data_version"]:
                found.append(partition)
        return self._mask(key, found)

    def makers(self, key: AssetKey, ordinals: Int64s) -> Sequence[str | None]:
        """See `Facts.makers`."""
        names = self._names(key, ordinals)
        known = {partition: event.run_id for partition, event in self._updates.get(key, {}).items()}
        asked = [name for name in names if name not in known]
        if asked:
            some = None if asked == [None] else [name for name in asked if name is not None]
            known |= {name: made.run_id for name, made in self.catalog.currents(key, some).items()}
        return [known.get(name) for name in names]

    def planned(self, run_id: str, key: AssetKey) -> Mask:
        """See `Facts.planned`."""
        if run_id not in self._planned:
            found = self._planned[run_id] = {}
            for step in self.catalog.steps(run_id):
                for cell in step.cells:
                    found.setdefault(cell.asset, []).append(cell.partition)
        return self._mask(key, self._planned[run_id].get(key, ()))

    def tags(self, run_id: str) -> Mapping[str, str]:
        """See `Facts.tags`."""
        if run_id not in self._tags:
            run = self.catalog.run(run_id)
            self._tags[run_id] = {} if run is None else run.tags
        return self._tags[run_id]

    def freshness(self, key: AssetKey) -> str:
        """See `Facts.freshness`."""
        found = self._freshness.get(key)
        return "UNKNOWN" if found is None else found.state

    @cached_property
    def _freshness(self) -> Mapping[AssetKey, Freshness]:
        judged = [node.key for node in self.graph if node.freshness is not None]
        return freshness_of(self.graph, self.catalog, judged, self.now)

    def cron(self, cron: str, zone: str, after: datetime) -> datetime | None:
        """See `Facts.cron`."""
        return last_instant(cron, zone, after, self.now)

    def selected(self, selection: Any) -> set[AssetKey]:
        """See `Facts.selected`."""
        return set(self.reader.select(selection))

    @cached_property
    def _updates(self) -> dict[AssetKey, dict[str | None, LoggedEvent]]:
        """The last version of every cell that has a new one."""
        found: dict[AssetKey, dict[str | None, LoggedEvent]] = {}
        for event in self._happened:
            if event.asset is not None and event.asset in self.graph:
                found.setdefault(event.asset, {})[event.partition] = event
        return found

    @cached_property
    def _first(self) -> dict[tuple[AssetKey | None, str | None], LoggedEvent]:
        return {(event.asset, event.partition): event for event in reversed(self._happened)}

    @cached_property
    def _failures(self) -> dict[AssetKey, list[str | None]]:
        found: dict[AssetKey, list[str | None]] = {}
        for cell in self.catalog.failures():
            found.setdefault(cell.asset, []).append(cell.partition)
        return found

    @cached_property
    def _in_runs(self) -> dict[AssetKey, Mask]:
        found: dict[AssetKey, Mask] = {}
        runs = self.catalog.runs(statuses=OPEN, limit=100_000)
        for run in runs:
            if not is_interrupted(run):
                for key, mask in self._meant(run).items():
                    found[key] = found[key] | mask if key in found else mask
        return found

    def _meant(self, run: Run) -> dict[AssetKey, Mask]:
        """The cells that a run is to build: of its plan, or of what was asked for as long as there is none."""
        if run.started is not None or run.parent_run_id is not None:
            planned = self.catalog.planned(run.run_id if run.started is not None else run.parent_run_id or "")
            cells: dict[AssetKey, list[str | None]] = {}
            for cell in planned:
                cells.setdefault(cell.asset, []).append(cell.partition)
            return {key: self._mask(key, names) for key, names in cells.items() if key in self.graph}
        try:
            keys = self.reader.select(run.selection)
            targets = self.reader.targets(keys, PartitionChoice.from_json(run.request.get("partitions", {})))
        except HeadwaterError:  # the definitions are not what they were when it was asked for
            return {}
        return {key: np.array([cells]) if isinstance(cells, bool) else cells for key, cells in targets.items()}

    @cached_property
    def _in_backfills(self) -> dict[AssetKey, Mask]:
        found: dict[AssetKey, Mask] = {}
        for backfill in self.catalog.backfills(statuses=[BackfillStatus.STARTED], limit=1000):
            cells = self.catalog.backfill_cells(backfill.backfill_id)
            for target in backfill.targets:
                key = target.asset
                if key not in self.graph:
                    continue
                partitions = self.partitions(key)
                whole = target.partitions is None
                try:
                    mask = (partitions.all() if whole else partitions.read_subset(target.partitions or {})[0]).mask()
                except HeadwaterError:  # it is divided in another way by now
                    continue
                if key in cells:
                    mask &= ~self._mask(key, cells[key].done)
                found[key] = found[key] | mask if key in found else mask
        return found

    def _none(self, key: AssetKey) -> Mask:
        return np.zeros(self.partitions(key).count, np.bool_)

    def _ordinals(self, key: AssetKey, names: Sequence[str | None]) -> Int64s:
        """-1 for what is no partition (any more)."""
        if self.graph[key].partitions is None:
            return int64s([-1 if name is not None else 0 for name in names])
        found = self.partitions(key).ordinals([name or "" for name in names])
        return np.where([name is None for name in names], -1, found) if None in names else found

    def _names(self, key: AssetKey, ordinals: Int64s) -> list[str | None]:
        if self.graph[key].partitions is None:
            return [None] * len(ordinals)
        return [*self.partitions(key).keys_at(ordinals)]

    def _mask(self, key: AssetKey, names: Sequence[str | None]) -> Mask:
        mask = self._none(key)
        if names:
            ordinals = self._ordinals(key, list(names))
            mask[ordinals[ordinals >= 0]] = True
        return mask


def asked_about(graph: AssetGraph, conditions: Mapping[AssetKey, AutomationCondition]) -> set[AssetKey]:
    """The assets that conditions may be about, and what telling their staleness takes."""
    nodes = (node for one in set(conditions.values()) for node in one.nodes())
    matched = {node.arguments[0] for node in nodes if node.name == "asset_matches"}
    return graph.self_contained({*conditions, *(key for key in matched if key in graph)})
