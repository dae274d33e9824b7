"""What a run of a job is, as against one of a selection."""

from collections.abc import Collection, Mapping
from typing import Any

from headwater.catalog.definitions.job import JobDefinition
from headwater.catalog.definitions.selection import AssetSelection, coerce_selection
from headwater.catalog.keys import AssetKey
from headwater.catalog.lineage.asset_graph import AssetGraph
from headwater.materialize.planner import Plan
from headwater.materialize.reader import Reader

#: What `force` is where only sources are built although fresh.
SOURCES = "sources"


def selection_of(job: JobDefinition, narrowed: Any = None) -> AssetSelection:
    """What a run of a job selects: its assets, or those of them that are in another selection too."""
    return job.selection if narrowed is None else job.selection & coerce_selection(narrowed)


def sources(graph: AssetGraph, keys: Collection[AssetKey]) -> list[AssetKey]:
    """Those assets that depend on nothing that is computed: whether what they read has changed, nobody knows."""
    return [key for key in keys if not graph[key].external and all(graph[dep.key].external for dep in graph[key].deps)]


def plan_of(reader: Reader, selection: Any, job: JobDefinition | None, *, force: bool | str, **options: Any) -> Plan:
    """What materializing a selection, or a job, would do; `options` are those of `Reader.plan`.

    With `force="sources"`, the `sources` are built although fresh, as those of a job are.
    """
    chosen = selection
    if job is not None:
        chosen, force, options["upstream"] = selection_of(job, selection), force or SOURCES, False
    forced = sources(reader.graph, reader.select(chosen)) if force == SOURCES else bool(force)
    return reader.plan(chosen, force=forced, **options)


def merged_config(job: JobDefinition, given: Mapping[str, Any]) -> dict[str, Any]:
    """A job's configuration, with what a run is given in the place of what it says of the same steps and resources."""
    found = {section: dict(entries) for section, entries in job.config.items()}
    for section, entries in given.items():
        for same in ("ops", "assets") if section in ("ops", "assets") else ():
            found[same] = {name: entry for name, entry in found.get(same, {}).items() if name not in entries}
        found[section] = {**found.get(section, {}), **entries}
    return {section: entries for section, entries in found.items() if entries}


def pools_of(graph: AssetGraph, keys: Collection[AssetKey]) -> tuple[str, ...]:
    """The pools of assets, sorted."""
    return tuple(sorted({pool for key in keys if (pool := graph[key].pool) is not None}))
