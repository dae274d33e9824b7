"""Sensors as they are defined, what they want, and what is refused."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headwater import (
    AssetKey,
    ConfigurableResource,
    Definitions,
    DynamicPartitionsDefinition,
    ResourceParam,
    RunRequest,
    ScheduleDefinition,
    SensorDefinition,
    SensorResult,
    SkipReason,
    asset,
    asset_sensor,
    build_sensor_context,
    define_asset_job,
    multi_asset_sensor,
    run_failure_sensor,
    run_status_sensor,
    sensor,
)
from headwater.catalog.definitions.sensor import MAX_ASKED, MAX_CURSOR
from headwater.catalog.errors import DefinitionError, InvalidKeyError, MissingResourceError, UserCodeError


@asset
def orders() -> int:
    return 1


JOB = define_asset_job("nightly", "orders")


def wanted(function: Any, cursor: str | None = None, **settings: Any) -> SensorResult:
    """What a sensor of a function wants."""
    return sensor(job=JOB, name="s", **settings)(function).evaluate(build_sensor_context(cursor=cursor))


def test_the_example_of_a_file_that_may_be_there(tmp_path: Path) -> None:
    path = str(tmp_path / "check")

    @sensor(job=JOB, minimum_interval_seconds=5)
    def check_file_sensor() -> Iterator[Any]:
        if os.path.exists(path):
            yield RunRequest(
                run_key="check_file_exists",
            )
        else:
            yield SkipReason("check file not exists")

    assert check_file_sensor.minimum_interval_seconds == 5
    assert check_file_sensor.default_status == "STOPPED"
    assert check_file_sensor.evaluate(build_sensor_context()).skip_reason == SkipReason("check file not exists")
    Path(path).touch()
    assert check_file_sensor.evaluate(build_sensor_context()).run_requests == [RunRequest("check_file_exists")]


def test_what_functions_may_answer() -> None:
    def empty() -> list[RunRequest]:
        return []

    one, two = RunRequest("1"), RunRequest("2")
    assert wanted(lambda: one).run_requests == [one]
    assert wanted(lambda given=two: given).run_requests == [two]
    assert wanted(lambda: [one, two]).run_requests == [one, two]
    assert wanted(lambda: iter([one, two])).run_requests == [one, two]
    assert wanted(lambda: SkipReason("no")).skip_reason == SkipReason("no")
    assert wanted(lambda: None).skip_reason == SkipReason("its function returned nothing")
    assert wanted(empty).skip_reason == SkipReason("its function returned nothing")
    assert wanted(lambda: SensorResult(skip_reason="no files")).skip_reason == SkipReason("no files")
    assert wanted(lambda: iter([SensorResult([one], cursor="7")])) == SensorResult([one], None, "7", ())
    assert wanted(lambda: SensorResult()).skip_reason == SkipReason("its function requested no runs")


def test_cursors() -> None:
    def updates(context: Any) -> SkipReason:
        context.update_cursor(str(int(context.cursor or 0) + 1))
        return SkipReason(f"{context.cursor}")

    assert wanted(updates).cursor == "1"
    assert wanted(updates, "41").cursor == "42"
    assert wanted(lambda: SensorResult(cursor="b"), "a").cursor == "b"
    assert wanted(lambda: None, "a").cursor is None
    with pytest.raises(UserCodeError, match="is 262,145 characters"):
        wanted(lambda: SensorResult(cursor="x" * (MAX_CURSOR + 1)))
    with pytest.raises(UserCodeError, match="is an int"):
        wanted(lambda: SensorResult(cursor=7))  # pyright: ignore


def test_answers_that_are_refused() -> None:
    def endless() -> Iterator[RunRequest]:
        while True:
            yield RunRequest()

    with pytest.raises(UserCodeError, match="both requests runs and gives a reason"):
        wanted(lambda: SensorResult([RunRequest()], skip_reason="no"))
    with pytest.raises(UserCodeError, match="both requests runs and gives a reason"):
        wanted(lambda: [RunRequest(), SkipReason("no")])
    with pytest.raises(UserCodeError, match="gave an int"):
        wanted(lambda: 7)
    with pytest.raises(UserCodeError, match=f"requests more than {MAX_ASKED:,} runs"):
        wanted(endless)
    with pytest.raises(UserCodeError, match="changes dynamic partitions by a str"):
        wanted(lambda: SensorResult(dynamic_partitions_requests=["key"]))  # pyright: ignore


def test_keys_of_dynamic_partitions() -> None:
    customers = DynamicPartitionsDefinition("customers")
    added, deleted = customers.build_add_request(["a", "b"]), customers.build_delete_request(["c"])
    result = wanted(lambda: SensorResult(dynamic_partitions_requests=[added, deleted]))
    assert result.dynamic_partitions_requests == (added, deleted)
    assert (added.partitions_def_name, added.partition_keys) == ("customers", ("a", "b"))
    with pytest.raises(InvalidKeyError, match="given as a list"):
        customers.build_add_request("a")


class Bucket(ConfigurableResource):
    """A place with files."""

    name: str = "bucket"


def test_resources_fill_parameters_and_the_context() -> None:
    @sensor(job=JOB, required_resource_keys={"other"})
    def looks(context: Any, bucket: Bucket, client: ResourceParam[Any]) -> SkipReason:
        return SkipReason(f"{bucket.name} {client} {context.resources.other}")

    given = {"bucket": Bucket(name="b"), "client": 1, "other": 2}
    assert Definitions([orders], resources=given, sensors=[looks]).sensor("looks").resource_names == given.keys()
    context = build_sensor_context(resources=given)
    assert looks.evaluate(context).skip_reason == SkipReason("b 1 2")
    assert looks(context, bucket=Bucket(), client=3) == SkipReason("bucket 3 2")
    with pytest.raises(MissingResourceError, match="needs the resource `other`"):
        Definitions([orders], resources={"bucket": Bucket(), "client": 1}, sensors=[looks])


def test_which_job_a_request_means() -> None:
    other = define_asset_job("other", "orders")

    @sensor(jobs=[JOB, "other"], minimum_interval_seconds=1)
    def several() -> None: ...

    @sensor(asset_selection="orders")
    def of_assets() -> None: ...

    @sensor()
    def of_none() -> None: ...

    definitions = Definitions([orders], jobs=[other], sensors=[several, of_assets, of_none])
    assert definitions.jobs.keys() == {"nightly", "other", "of_assets_job"}
    assert str(definitions.job("of_assets_job").selection) == "orders"
    assert of_assets.job_of(RunRequest()) == "of_assets_job"
    assert several.job_of(RunRequest(job_name="other")) == "other"
    with pytest.raises(UserCodeError, match="requests a run, and has 2 jobs"):
        several.job_of(RunRequest())
    with pytest.raises(UserCodeError, match="requests a run, and has no jobs"):
        of_none.job_of(RunRequest())


def test_definitions_that_are_refused() -> None:
    def takes_two(context: Any, more: Any) -> None: ...

    def make(**settings: Any) -> SensorDefinition:
        given: dict[str, Any] = {"name": "s", "job": JOB, **settings}
        return sensor(**given)(lambda: None)

    for settings, message in (
        ({"minimum_interval_seconds": 0}, "has minimum_interval_seconds=0"),
        ({"timeout_seconds": "long"}, "has timeout_seconds='long'"),
        ({"default_status": "ON"}, "default_status is 'ON'"),
        ({"name": "no name"}, "cannot be called 'no name'"),
        ({"job": 7}, "is of an int"),
        ({"jobs": [JOB]}, "has several of job, jobs"),
        ({"tags": {"a": None}}, "has the tag 'a' with a NoneType"),
    ):
        with pytest.raises(DefinitionError, match=message):
            make(**settings)
    with pytest.raises(DefinitionError, match="has the parameters context, more, and fills 1 besides resources"):
        sensor(job=JOB, name="s")(takes_two)
    with pytest.raises(DefinitionError, match="is of the job `nigthly`: there is none"):
        Definitions([orders], jobs=[JOB], sensors=[make(job="nigthly")])
    with pytest.raises(DefinitionError, match="Two sensors are called `s`"):
        Definitions([orders], sensors=[make(), make()])
    with pytest.raises(DefinitionError, match="A schedule and a sensor are called `s`"):
        Definitions([orders], schedules=[ScheduleDefinition(JOB, "@daily", "s")], sensors=[make()])
    with pytest.raises(DefinitionError, match="No asset `oders`"):
        Definitions([orders], sensors=[asset_sensor("oders", job=JOB, name="s")(takes_two)])
    with pytest.raises(DefinitionError, match="is of the job `absent`"):
        Definitions([orders], sensors=[run_status_sensor("SUCCESS", monitored_jobs=["absent"], name="s")(lambda: None)])
    with pytest.raises(DefinitionError, match="run_status is 'DONE'"):
        run_status_sensor("DONE")


def test_merged_definitions_keep_sensors_and_watchers_have_names() -> None:
    @run_failure_sensor
    def tells(context: Any) -> None: ...

    @run_failure_sensor(name="named", monitored_jobs=[JOB])
    def other(context: Any) -> None: ...

    @multi_asset_sensor([AssetKey("orders")], job=JOB)
    def several(context: Any) -> None: ...

    first = Definitions([orders], jobs=[JOB], sensors=[tells, several])
    merged = Definitions.merge(first, Definitions(jobs=[JOB], assets=[orders], sensors=[other]))
    assert merged.sensors.keys() == {"tells", "several", "named"}
