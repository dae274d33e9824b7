"""Hooks: when they are called, with what, and that they harm nobody."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import headwater as hw
from headwater.catalog.definitions.hooks import HookDefinition
from headwater.catalog.errors import DefinitionError, MissingResourceError
from headwater.catalog.records import RunStatus, StepStatus
from tests.project import ProjectFolder

Calls = list[tuple[Any, ...]]


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[hw.Instance]:
    with hw.Instance.open(tmp_path / "home") as opened:
        yield opened


@pytest.fixture
def calls() -> Calls:
    return []


def hooks(calls: Calls) -> list[HookDefinition]:
    """One of each kind, which notes its calls."""

    @hw.success_hook
    def on_success(context: hw.HookContext) -> None:
        (made,) = context.materializations
        calls.append(("success", context.run_id, context.asset_key, context.partition_key, made.asset))

    @hw.failure_hook(required_resource_keys={"mail"})
    def on_failure(context: hw.HookContext) -> None:
        assert context.error is not None
        calls.append(("failure", context.step_key, context.error.message, type(context.op_exception)))
        context.resources.mail.append(context.run_id)

    @hw.run_success_hook(name="done")
    def on_run_success(context: hw.HookContext) -> None:
        calls.append((context.hook_name, context.run_id, context.asset_key))

    @hw.run_failure_hook
    def on_run_failure(context: hw.HookContext) -> None:
        assert context.error is not None
        calls.append(("run failure", context.run_id, context.error.message))

    return [on_success, on_failure, on_run_success, on_run_failure]


@hw.asset
def good() -> int:
    return 1


@hw.asset
def bad(good: int) -> int:
    raise ValueError("no luck")


@hw.asset
def below(bad: int) -> int:
    return 1


@pytest.mark.parametrize("executor", ["in_process", "threads"])
def test_hooks_are_called_once_for_each_step_that_ended_and_for_the_run(
    instance: hw.Instance, calls: Calls, executor: str
) -> None:
    mail: list[str] = []
    definitions = hw.Definitions([good, bad, below], {"mail": mail}, hooks=hooks(calls))
    result = hw.materialize(definitions, instance=instance, raise_on_error=False, executor=executor)
    assert result.status is RunStatus.FAILURE
    assert calls == [
        ("success", result.run_id, "good", None, "good"),
        ("failure", "bad", "no luck", ValueError),
        ("run failure", result.run_id, "no luck"),
    ]
    assert mail == [result.run_id]


def test_a_run_that_succeeds_calls_its_own_hook(instance: hw.Instance, calls: Calls) -> None:
    result = hw.materialize(hw.Definitions([good], {"mail": []}, hooks=hooks(calls)), instance=instance)
    assert calls[-1] == ("done", result.run_id, None)


def test_hooks_of_an_asset_are_about_that_alone_and_retries_do_not_count(instance: hw.Instance, calls: Calls) -> None:
    @hw.failure_hook
    def on_failure(context: hw.HookContext) -> None:
        calls.append((context.step_key,))

    attempts: list[int] = []

    @hw.asset(hooks={on_failure}, retry_policy=hw.RetryPolicy(max_retries=2))
    def flaky() -> int:
        attempts.append(1)
        raise ValueError

    @hw.asset
    def other() -> int:
        raise ValueError

    hw.materialize([flaky, other], instance=instance, raise_on_error=False)
    assert (len(attempts), calls) == (3, [("flaky",)])


@pytest.mark.parametrize(
    ("raised", "said"),
    [(ValueError("broken"), "ValueError: broken"), (SystemExit("broken"), "SystemExit: SystemExit(broken)")],
)
def test_what_a_hook_raises_is_logged_and_fails_nothing(
    instance: hw.Instance, raised: BaseException, said: str
) -> None:
    @hw.success_hook
    def broken(context: hw.HookContext) -> None:
        context.log.info("about to %s", "break")
        raise raised

    result = hw.materialize(hw.Definitions([good, bad], hooks=[broken]), instance=instance, raise_on_error=False)
    assert result.status_of("good") is StepStatus.SUCCESS
    lines = instance.catalog.events(run_id=result.run_id, kinds=["LOG_MESSAGE"])
    assert [(line.step_key, line.data["level"], line.message) for line in lines] == [
        ("good", "INFO", "about to break"),
        ("good", "ERROR", f"The hook `broken` failed: {said}"),
    ]


def test_a_hook_is_a_function_for_unit_tests(calls: Calls) -> None:
    @hw.success_hook
    def note(context: Any) -> None:
        calls.append((context,))

    note("x")
    assert calls == [("x",)]


def test_what_is_no_hook_or_no_place_for_one_is_an_error() -> None:
    @hw.run_failure_hook(required_resource_keys={"mail"})
    def of_runs(_: hw.HookContext) -> None: ...

    with pytest.raises(MissingResourceError, match="The hook `of_runs` needs the resource `mail`"):
        hw.Definitions([good], hooks=[of_runs])
    with pytest.raises(DefinitionError, match="`x` has the hook `of_runs`, which is called at the end of a run"):

        @hw.asset(hooks=[of_runs])
        def x() -> int: ...

    with pytest.raises(DefinitionError, match="has a hook that is of the type str"):
        hw.Definitions([good], hooks=["no"])  # type: ignore[list-item]
    with pytest.raises(DefinitionError, match="A hook of step success is made of a int"):
        hw.success_hook(1)  # type: ignore[call-overload]


def test_hooks_and_pools_change_no_fingerprint() -> None:
    @hw.success_hook
    def note(_: hw.HookContext) -> None: ...

    def make(**settings: Any) -> hw.Definitions:
        @hw.asset(name="x", **settings)
        def x() -> int:
            return 1

        return hw.Definitions([x])

    plain, other = make(), make(pool="duckdb", hooks=[note])
    key = hw.AssetKey("x")
    assert plain.graph[key].fingerprint == other.graph[key].fingerprint
    assert other.graph[key].pool == "duckdb"


def test_hooks_of_runs_in_a_process_pool_have_their_resources_set_up(project: ProjectFolder) -> None:
    project.write("""
        import os
        from headwater import ConfigurableResource, Definitions, asset, failure_hook

        class Mail(ConfigurableResource):
            _ready: bool = False

            def setup_for_execution(self, context):
                self._ready = True

            def send(self, text):
                assert self._ready
                print(text, flush=True)

        @failure_hook(required_resource_keys={"mail"})
        def tell(context):
            context.resources.mail.send(f"{context.asset_key} in {os.getpid() == int(os.environ['RUN'])}")
            context.log.info("told")

        @asset
        def bad() -> int:
            raise ValueError("no")

        os.environ.setdefault("RUN", str(os.getpid()))
        defs = Definitions([bad], {"mail": Mail()}, hooks=[tell])
    """)
    project.run("materialize", "--executor", "processes", code=4)
    run = project.json("runs")["runs"][0]["run_id"]
    events = project.json("events", run, "--kind", "LOG_MESSAGE")["events"]
    assert [event["message"] for event in events] == ["told"]
