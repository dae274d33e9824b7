"""Runs that are requested by what goes on by itself: recorded in the queue, nobody's yet."""

from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from headwater.catalog.definitions.definitions import Definitions
from headwater.catalog.definitions.job import JobDefinition
from headwater.catalog.definitions.run_request import RunRequest
from headwater.catalog.definitions.selection import AssetSelection, coerce_selection
from headwater.catalog.errors import UserCodeError
from headwater.catalog.events import RunQueued
from headwater.catalog.ids import new_id
from headwater.catalog.instance import Instance
from headwater.catalog.keys import AssetKey
from headwater.catalog.processes import this_host, user_name
from headwater.materialize.api import check_run_config, run_request
from headwater.materialize.jobs import SOURCES, merged_config, pools_of, selection_of
from headwater.materialize.monitoring import max_runtime
from headwater.materialize.partition_choice import PartitionChoice
from headwater.materialize.reader import Reader
from headwater.materialize.retries import RetryRule

if TYPE_CHECKING:
    from headwater.catalog.partitions.subset import PartitionSubset

#: The tag with the key of the request.
RUN_KEY = "headwater/run_key"


def new_runs(
    instance: Instance,
    name: str,
    wanted: Sequence[RunRequest],
    make: Callable[[RunRequest], RunQueued],
    asked: Mapping[str, str] = MappingProxyType({}),
    most: int | None = None,
) -> tuple[list[RunQueued], dict[str, str]]:
    """The runs of requests by `name` whose run key was not requested before, `most` at the utmost; and those keys.

    `asked` are keys that were requested and are not recorded yet. Raises what `make` does.
    """
    keys = [one.run_key for one in wanted if one.run_key is not None]
    before = {**instance.catalog.requested(name, keys), **asked} if keys else asked
    runs: list[RunQueued] = []
    keyed: dict[str, str] = {}
    for request in wanted:
        if request.run_key in before or request.run_key in keyed:
            continue
        if len(runs) == most:
            break
        runs.append(make(request))
        if request.run_key is not None:
            keyed[request.run_key] = runs[-1].run_id
    return runs, keyed


def requested_run(
    instance: Instance,
    definitions: Definitions,
    origin: Mapping[str, Any],
    request: RunRequest,
    *,
    job: JobDefinition,
    config: Mapping[str, Any],
    tags: Mapping[str, str],
    about: Mapping[str, str],
) -> RunQueued:
    """The run of a job that a request asks for, to be recorded with the tick that requested it.

    `origin` is where another process finds the definitions. `config` and `tags` are what whoever requests gives to each
    of its runs; `about` are tags that say who that is, and win over all others. Raises what a run would: unknown
    assets, wrong configuration, wrong tags.
    """
    config = {**config, **(request.run_config or {})}
    check_run_config(merged_config(job, config), definitions)
    keyed = {} if request.run_key is None else {RUN_KEY: request.run_key}
    tags = {**job.tags, **tags, **{name: str(value) for name, value in (request.tags or {}).items()}}
    narrowed = None if request.asset_selection is None else str(coerce_selection(request.asset_selection))
    keys = () if request.partition_key is None else (request.partition_key,)
    asked = run_request(
        origin,
        narrowed,
        PartitionChoice(keys=keys),
        config,
        job=job.name,
        force=False,
        upstream=True,
        only_missing=False,
        executor=job.executor,
        max_workers=None,
        on_conflict="queue",
    )
    if not asked:
        raise UserCodeError(
            f"The configuration of a run of `{job.name}` holds something that JSON has no form for.",
            remedy="Give texts, numbers, lists and mappings, or EnvVar('NAME').",
        )
    chosen = selection_of(job, narrowed)
    keys_of = Reader(definitions.graph, instance.catalog, instance.clock.now()).select(chosen)
    return _queued(instance, definitions, str(chosen), keys_of, asked, {**tags, **about, **keyed}, job.name)


def requested_cells(
    instance: Instance,
    definitions: Definitions,
    origin: Mapping[str, Any],
    cells: "Mapping[AssetKey, PartitionSubset]",
    tags: Mapping[str, str],
) -> RunQueued:
    """The run that builds cells of assets, as one of a job that has these would: to be recorded with its tick."""
    selection = str(AssetSelection.keys(*cells))
    asked = run_request(
        origin,
        selection,
        PartitionChoice(
            cells={
                str(key): None if definitions.graph[key].partitions is None else subset.to_json()
                for key, subset in cells.items()
            }
        ),
        {},
        job=None,
        force=SOURCES,
        upstream=False,
        only_missing=False,
        executor=None,
        max_workers=None,
        on_conflict="queue",
    )
    return _queued(instance, definitions, selection, list(cells), asked, tags)


def _queued(
    instance: Instance,
    definitions: Definitions,
    selection: str,
    keys: Collection[AssetKey],
    asked: Mapping[str, Any],
    tags: Mapping[str, str],
    job: str | None = None,
) -> RunQueued:
    """A run that is nobody's yet. Raises `UsageError` for tags that make no sense."""
    RetryRule.of(instance.settings, tags)
    max_runtime(instance.settings, tags)
    now = instance.clock.now()
    return RunQueued(
        time=now,
        run_id=new_id(now),
        job=job,
        selection=selection,
        tags=tags,
        user=user_name(),
        host=this_host(),
        pools=pools_of(definitions.graph, keys),
        request=asked,
    )
