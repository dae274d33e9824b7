"""Runs of jobs."""

from collections.abc import Callable
from typing import Any

import pytest

from headwater import (
    Config,
    DailyPartitionsDefinition,
    Definitions,
    Instance,
    asset,
    define_asset_job,
    materialize,
    run_success_hook,
)
from headwater.catalog.errors import UsageError
from headwater.catalog.records import RunStatus
from headwater.materialize.jobs import merged_config


class Settings(Config):
    """What `scaled` may be told."""

    factor: int = 1


def project(calls: list[str], *, hooks: Any = (), config: Any = None, outside: Callable[[], int] = lambda: 1) -> Any:
    @asset(code_version="1")
    def source() -> int:
        calls.append("source")
        return outside()

    @asset(code_version="1")
    def scaled(config: Settings, source: int) -> int:
        calls.append(f"scaled by {config.factor}")
        return source * config.factor

    @asset(code_version="1")
    def other() -> int:
        calls.append("other")
        return 1

    job = define_asset_job("j", "+scaled", config=config, tags={"team": "core"}, hooks=hooks)
    return Definitions([source, scaled, other], jobs=[job])


def test_a_run_of_a_job_reads_its_sources_again_and_builds_what_that_changed() -> None:
    calls: list[str] = []
    values = iter([1, 1, 2])
    definitions = project(calls, outside=lambda: next(values))
    with Instance.ephemeral() as instance:
        first = materialize(definitions, job="j", instance=instance)
        assert calls == ["source", "scaled by 1"]
        materialize(definitions, job="j", instance=instance)
        assert calls[2:] == ["source"]  # it came out the same
        materialize(definitions, job="j", instance=instance)
        assert calls[3:] == ["source", "scaled by 1"]
        run = instance.catalog.run(first.run_id or "")
        assert run is not None
        assert (run.job, run.selection, run.tags) == ("j", "+scaled", {"team": "core"})
        assert len(instance.catalog.runs(job="j")) == 3


def test_a_run_may_narrow_its_selection_and_change_its_config_and_tags() -> None:
    calls: list[str] = []
    definitions = project(calls, config={"ops": {"scaled": {"config": {"factor": 2}}}})
    with Instance.ephemeral() as instance:
        materialize(definitions, job="j", instance=instance)
        assert calls == ["source", "scaled by 2"]
        given = {"assets": {"scaled": {"config": {"factor": 3}}}}
        result = materialize(
            definitions, job="j", selection="scaled or other", run_config=given, tags={"team": "x"}, instance=instance
        )
        assert calls[2:] == ["scaled by 3"]
        assert instance.catalog.runs(job="j")[0].tags == {"team": "x"}
        assert [cell.asset for cell in result.cells] == ["scaled"]


def test_it_leaves_alone_what_it_does_not_select_though_it_is_missing() -> None:
    calls: list[str] = []

    @asset
    def above() -> int:
        calls.append("above")
        return 1

    @asset
    def below(above: int) -> int:
        return above

    definitions = Definitions([above, below], jobs=[define_asset_job("only", "below")])
    with Instance.ephemeral() as instance, pytest.raises(UsageError, match="above"):
        materialize(definitions, job="only", instance=instance)
    assert calls == []


def test_its_hooks_are_called_in_its_runs_alone() -> None:
    told: list[str] = []

    @run_success_hook
    def tell(context: Any) -> None:
        told.append(context.run_id)

    definitions = project([], hooks={tell})
    with Instance.ephemeral() as instance:
        materialize(definitions, instance=instance)
        assert told == []
        result = materialize(definitions, job="j", instance=instance)
        assert told == [result.run_id]


def test_partitions_of_a_job() -> None:
    built: list[str] = []

    @asset(partitions_def=DailyPartitionsDefinition("2024-01-01"))
    def visits(context: Any) -> int:
        built.append(context.partition_key)
        return 1

    definitions = Definitions([visits], jobs=[define_asset_job("daily")])
    with Instance.ephemeral() as instance:
        with pytest.raises(UsageError):
            materialize(definitions, job="daily", instance=instance)
        for _ in range(2):  # the second time too: it is a source
            materialize(definitions, job="daily", partition_key="2024-01-03", instance=instance)
    assert built == ["2024-01-03"] * 2


def test_a_job_that_failed_is_tried_again_as_one() -> None:
    failing = [True]

    @asset
    def shaky() -> int:
        if failing.pop():
            raise ValueError("no")
        return 1

    definitions = Definitions([shaky], jobs=[define_asset_job("j", tags={"headwater/max_retries": "1"})])
    with Instance.ephemeral() as instance:
        failing.insert(0, False)
        result = materialize(definitions, job="j", instance=instance)
        assert result.status is RunStatus.SUCCESS
        assert [run.job for run in instance.catalog.runs()] == ["j", "j"]


def test_what_a_run_is_given_takes_the_place_of_the_jobs_configuration() -> None:
    job = define_asset_job("j", config={"ops": {"a": {"config": {"x": 1}}, "b": {}}, "resources": {"r": {}}})
    merged = merged_config(job, {"assets": {"a": {"config": {"x": 2}}}})
    assert merged == {"ops": {"b": {}}, "assets": {"a": {"config": {"x": 2}}}, "resources": {"r": {}}}
    assert merged_config(job, {}) == job.config
