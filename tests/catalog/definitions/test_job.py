"""Jobs as they are defined, and what is refused."""

from typing import Any

import pytest

from headwater import AssetSelection, DailyPartitionsDefinition, Definitions, asset, define_asset_job, run_success_hook
from headwater.catalog.errors import DefinitionError, MissingResourceError, UsageError


@asset
def orders() -> int:
    return 1


@asset
def report(orders: int) -> int:
    return orders


DAYS = DailyPartitionsDefinition("2024-01-01")


@asset(partitions_def=DAYS)
def visits() -> int:
    return 1


ASSETS = [orders, report, visits]


def test_a_job_selects_by_text_object_or_list() -> None:
    for selection in ("orders or report", AssetSelection.assets(orders, report), ["orders", report], "+report"):
        definitions = Definitions(ASSETS, jobs=[define_asset_job("nightly", selection)])
        found = definitions.job("nightly").selection.resolve(definitions.graph)
        assert sorted(found) == ["orders", "report"]


def test_its_partitions_are_those_of_its_assets() -> None:
    jobs = [define_asset_job("all"), define_asset_job("plain", "orders"), define_asset_job("said", partitions_def=DAYS)]
    definitions = Definitions(ASSETS, jobs=jobs)
    found = {name: job.partitions(definitions.graph) for name, job in definitions.jobs.items()}
    assert found == {"all": DAYS, "plain": None, "said": DAYS}


@pytest.mark.parametrize(
    ("job", "message", "remedy"),
    [
        (lambda: define_asset_job("j", "ordrs"), "the job `j`: No asset `ordrs`", "orders"),
        (lambda: define_asset_job("j", "key:nothing"), "selects no asset that can be built", "headwater ls"),
        (lambda: define_asset_job("j", "(orders"), "the job `j`: ", ""),
        (lambda: define_asset_job("a b", "orders"), "a job cannot be called 'a b'", "letters"),
        (lambda: define_asset_job("j", "orders", tags={"a": []}), "has the tag 'a' with a list", "text"),  # pyright: ignore
        (
            lambda: define_asset_job("j", partitions_def=DailyPartitionsDefinition("2025-01-01")),
            "has the partitions daily from 2025-01-01",
            "Leave out",
        ),
        (lambda: orders, "Definitions(jobs=…) holds a AssetsDefinition", "define_asset_job"),
    ],
)
def test_what_cannot_be_is_refused_when_it_is_loaded(job: Any, message: str, remedy: str) -> None:
    with pytest.raises(DefinitionError) as error:
        Definitions(ASSETS, jobs=[job()])
    assert message in error.value.message
    assert remedy in error.value.remedy
    if message.startswith("the job"):
        assert "test_job.py" in error.value.message


def test_a_selection_by_status_is_fine_although_nothing_is_known_yet() -> None:
    assert Definitions(ASSETS, jobs=[define_asset_job("mend", "stale: or missing:")]).job("mend")


def test_two_jobs_of_a_name_and_one_that_is_not_there() -> None:
    with pytest.raises(DefinitionError, match="Two jobs are called `j`"):
        Definitions(ASSETS, jobs=[define_asset_job("j"), define_asset_job("j")])
    with pytest.raises(UsageError) as error:
        Definitions(ASSETS, jobs=[define_asset_job("nightly")]).job("nigthly")
    assert "nightly" in error.value.remedy


def test_resources_of_its_hooks_have_to_be_there() -> None:
    @run_success_hook(required_resource_keys={"slack"})
    def tell(context: Any) -> None: ...

    with pytest.raises(MissingResourceError, match="The hook `tell` needs the resource `slack`"):
        Definitions(ASSETS, jobs=[define_asset_job("j", hooks={tell})])


def test_merged_definitions_have_the_jobs_of_all() -> None:
    job = define_asset_job("one", "orders")
    merged = Definitions.merge(Definitions([orders], jobs=[job]), Definitions([report, orders], jobs=[job]))
    assert list(merged.jobs) == ["one"]
