"""The engine from Python, on ephemeral instances: what runs, what is stored, what is recorded."""

import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest

import headwater as hw
from headwater.catalog.errors import (
    ConfigError,
    MissingDataError,
    MissingResourceError,
    ResourceError,
    UnstorableValueError,
    UserCodeError,
)
from headwater.catalog.records import RunStatus, StepStatus
from headwater.io.engines import arrow, pandas

pa: Any = arrow()
pd: Any = pandas()


@pytest.fixture
def instance() -> Iterator[hw.Instance]:
    with hw.Instance.ephemeral() as opened:
        yield opened


def statuses(result: hw.RunResult) -> dict[str, str]:
    return {str(cell.asset): str(cell.status) for cell in result.cells}


def kinds(instance: hw.Instance, **filters: Any) -> list[str]:
    return [event.kind for event in instance.catalog.events(**filters)]


def test_values_travel_by_parameter() -> None:
    @hw.asset
    def generate_numbers() -> list[int]:
        return list(range(1, 11))

    @hw.asset
    def even(generate_numbers: list[int]) -> list[int]:
        return [n for n in generate_numbers if n % 2 == 0]

    @hw.asset
    def odd(generate_numbers: list[int]) -> list[int]:
        return [n for n in generate_numbers if n % 2]

    @hw.asset
    def total(even: list[int], odd: list[int]) -> int:
        return sum(even) + sum(odd)

    result = hw.materialize([total, odd, even, generate_numbers])
    assert result.success
    assert result.asset_value("total") == 55
    assert even([1, 2]) == [2], "an asset can be called like the function it decorates"


def test_every_representation_arrives_as_annotated(instance: hw.Instance) -> None:
    @hw.asset
    def table() -> Any:
        return pa.table({"n": [1, 2, 3]})

    seen: dict[str, Any] = {}

    def reader(name: str, annotation: Any) -> Any:
        def read(table: Any) -> int:
            seen[name] = table
            rows = table.collect() if name == "lazy" else table.read_all() if name == "reader" else table
            return len(rows.fetchall() if name == "relation" else rows)

        read.__annotations__["table"] = annotation
        return hw.asset(name=name)(read)

    wanted = {
        "polars": pl.DataFrame,
        "lazy": pl.LazyFrame,
        "pandas": pd.DataFrame,
        "arrow": pa.Table,
        "reader": pa.RecordBatchReader,
        "relation": duckdb.DuckDBPyRelation,
    }
    readers = [reader(name, annotation) for name, annotation in wanted.items()]
    result = hw.materialize([table, *readers], instance=instance)
    assert result.success
    for name, kind in wanted.items():
        assert isinstance(seen[name], kind), name
        assert result.asset_value(name) == 3


def test_deps_order_without_loading(instance: hw.Instance) -> None:
    order: list[str] = []

    @hw.asset
    def first() -> None:
        order.append("first")

    @hw.asset(deps=[first])
    def second() -> int:
        order.append("second")
        return 2

    assert hw.materialize([second, first], instance=instance).success
    assert order == ["first", "second"]
    made = instance.catalog.current(hw.AssetKey("first"))
    assert made is not None
    assert made.pointer is None, "-> None stores nothing"


def test_reading_the_value_of_what_stores_nothing_says_so() -> None:
    @hw.asset
    def nothing() -> None: ...

    @hw.asset
    def reads(nothing: Any) -> int:
        return 1

    result = hw.materialize([nothing, reads], raise_on_error=False)
    assert statuses(result) == {"nothing": "SUCCESS", "reads": "FAILURE"}
    with pytest.raises(MissingDataError, match="`nothing` stores nothing"):
        hw.materialize([nothing, reads])


def test_an_unannotated_none_is_a_value() -> None:
    @hw.asset
    def nothing():  # type: ignore[no-untyped-def]
        return None

    @hw.asset
    def reads(nothing: Any) -> bool:
        return nothing is None

    assert hw.materialize([nothing, reads]).asset_value("reads") is True


def test_materialize_result_with_and_without_a_value(instance: hw.Instance) -> None:
    @hw.asset
    def told() -> hw.MaterializeResult[Any]:
        return hw.MaterializeResult(metadata={"rows": 3}, data_version="v1", tags={"a": "b"})

    @hw.asset
    def stored() -> hw.MaterializeResult[int]:
        return hw.MaterializeResult(value=9)

    @hw.asset
    def reads(stored: int) -> int:
        return stored + 1

    result = hw.materialize([told, stored, reads], instance=instance)
    assert result.asset_value("reads") == 10
    made = result.materialization("told")
    assert (made.data_version, made.tags, made.metadata["rows"].value, made.pointer) == ("v1", {"a": "b"}, 3, None)


def test_multi_assets_in_every_form(instance: hw.Instance) -> None:
    outs = {"one": hw.AssetOut(), "two": hw.AssetOut(key_prefix="deep", is_required=False)}

    @hw.multi_asset(outs=outs)
    def by_tuple() -> tuple[int, int]:
        return 1, 2

    @hw.multi_asset(outs={"three": hw.AssetOut(), "four": hw.AssetOut()})
    def by_dict() -> dict[str, int]:
        return {"four": 4, "three": 3}

    @hw.multi_asset(outs={"five": hw.AssetOut(), "six": hw.AssetOut(is_required=False)})
    def by_yield() -> Iterator[hw.Output[int]]:
        yield hw.Output(5, "five", metadata={"x": 1})

    @hw.multi_asset(specs=[hw.AssetSpec("seven"), hw.AssetSpec("eight", deps=["seven"])])
    def by_spec() -> Iterator[hw.MaterializeResult[Any]]:
        yield hw.MaterializeResult(asset_key="seven", value=7)
        yield hw.MaterializeResult(asset_key="eight", metadata={"stored": "elsewhere"})

    @hw.asset
    def needs_six(six: int) -> int:
        return six

    result = hw.materialize([by_tuple, by_dict, by_yield, by_spec, needs_six], instance=instance)
    assert result.success, "an optional output that is not given fails nothing"
    values = {key: result.asset_value(key) for key in ("one", "deep/two", "three", "four", "five", "seven")}
    assert list(values.values()) == [1, 2, 3, 4, 5, 7]
    assert statuses(result)["six"] == "SKIPPED"
    assert statuses(result)["needs_six"] == "SKIPPED"
    assert instance.catalog.current(hw.AssetKey("eight")).inputs[0].version_id == (  # type: ignore[union-attr]
        result.materialization("seven").version_id
    ), "an asset of a step may depend on another of the same step"


def test_a_required_output_that_is_missing_fails_the_step() -> None:
    @hw.multi_asset(outs={"one": hw.AssetOut(), "two": hw.AssetOut()})
    def half() -> Iterator[hw.Output[int]]:
        yield hw.Output(1, "one")

    result = hw.materialize([half], raise_on_error=False)
    assert statuses(result) == {"one": "FAILURE", "two": "FAILURE"}
    with pytest.raises(UserCodeError, match="did not give the output 'two'"):
        hw.materialize([half])
    assert result.materializations == [], "all of a step's assets or none"


def test_a_subset_runs_only_what_is_wanted(instance: hw.Instance) -> None:
    asked: list[frozenset[str]] = []

    # An explicit version: the list that it closes over would otherwise count as part of its code.
    @hw.multi_asset(outs={"one": hw.AssetOut(), "two": hw.AssetOut()}, can_subset=True, code_version="1")
    def both(context: hw.AssetExecutionContext) -> Iterator[hw.Output[int]]:
        asked.append(context.selected_output_names)
        for name in ("one", "two"):
            if name in context.selected_output_names:
                yield hw.Output(1, name)

    assert hw.materialize([both], selection="two", instance=instance).success
    assert hw.materialize([both], instance=instance).success
    assert asked == [{"two"}, {"one"}]


def test_a_step_without_subsets_builds_all_and_what_follows_is_checked(instance: hw.Instance) -> None:
    count = {"n": 0}

    @hw.multi_asset(outs={"one": hw.AssetOut(), "two": hw.AssetOut()})
    def both() -> tuple[int, int]:
        count["n"] += 1
        return count["n"], 7

    @hw.asset
    def after_one(one: int) -> int:
        return one

    @hw.asset
    def after_two(two: int) -> int:
        return two

    defs = hw.Definitions([both, after_one, after_two])
    hw.materialize(defs, instance=instance)
    result = hw.materialize(defs, instance=instance, selection="two+ or after_one", force=False)
    assert result.outcome is None
    result = hw.materialize(defs, instance=instance, selection="two", force=True)
    assert statuses(result) == {"one": "SUCCESS", "two": "SUCCESS"}
    again = hw.materialize(defs, instance=instance)
    assert statuses(again) == {"after_one": "SUCCESS"}, "two came out equal, one did not"
    assert hw.materialize(defs, instance=instance).outcome is None


def test_metadata_of_every_kind_is_recorded(instance: hw.Instance) -> None:
    @hw.asset(metadata={"source": hw.MetadataValue.url("https://example.com")})
    def one(context: hw.AssetExecutionContext) -> hw.Output[int]:
        context.add_output_metadata({"added": Path("/tmp/x")})
        return hw.Output(
            1,
            metadata={
                "text": "x",
                "int": 1,
                "float": float("nan"),
                "bool": True,
                "null": None,
                "json": {"a": [1]},
                "md": hw.MetadataValue.md("# x"),
                "at": datetime(2026, 1, 1, tzinfo=UTC),
                "schema": hw.MetadataValue.table_schema({"id": "INTEGER"}),
                "table": hw.MetadataValue.table([hw.TableRecord({"a": 1})]),
            },
        )

    made = hw.materialize([one], instance=instance).materialization("one")
    assert {label: str(value.kind) for label, value in made.metadata.items()} == {
        "added": "path",
        "text": "text",
        "int": "int",
        "float": "float",
        "bool": "bool",
        "null": "null",
        "json": "json",
        "md": "md",
        "at": "timestamp",
        "schema": "table_schema",
        "table": "table",
    }
    assert instance.catalog.current(hw.AssetKey("one")) == made


def test_metadata_that_cannot_be_kept_fails_the_step_before_anything_is_written(instance: hw.Instance) -> None:
    @hw.asset
    def one() -> hw.Output[int]:
        return hw.Output(1, metadata={"bad one": object()})

    with pytest.raises(UserCodeError, match="bad one"):
        hw.materialize([one], instance=instance)
    assert not list(instance.home.rglob("*.json"))


def test_unstorable_values_fail_and_leave_the_version_before(instance: hw.Instance) -> None:
    value: list[Any] = [1]

    @hw.asset(code_version="1")
    def one() -> Any:
        return value[0]

    hw.materialize([one], instance=instance)
    value[0] = {1, 2}
    with pytest.raises(UnstorableValueError):
        hw.materialize([one], instance=instance, force=True)
    assert hw.load_asset("one", instance=instance) == 1
    assert not [path for path in instance.home.rglob("*") if ".staging" in str(path) and path.is_file()]


def test_config_and_resources_are_injected(instance: hw.Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GREETING", "hello")
    life: list[str] = []

    class Greeter(hw.ConfigurableResource):
        word: str

        def setup_for_execution(self, context: Any) -> None:
            life.append(f"up {context.run_id}")

        def teardown_after_execution(self, context: Any) -> None:
            life.append("down")

        def greet(self, name: str) -> str:
            return f"{self.word} {name}"

    class Options(hw.Config):
        name: str = "world"

    @hw.asset
    def greeting(config: Options, greeter: Greeter) -> str:
        return greeter.greet(config.name)

    @hw.asset(required_resource_keys={"plain"})
    def from_context(context: hw.AssetExecutionContext) -> int:
        return context.resources.plain["n"]

    @hw.asset
    def by_name(plain: Any) -> int:
        return plain["n"] + 1

    defs = hw.Definitions(
        [greeting, from_context, by_name],
        resources={"greeter": Greeter(word=hw.EnvVar("GREETING")), "plain": {"n": 1}},
    )
    result = hw.materialize(
        defs, instance=instance, run_config={"ops": {"greeting": {"config": {"name": {"env": "GREETING"}}}}}
    )
    assert result.asset_value("greeting") == "hello hello"
    assert result.asset_value("from_context") == 1
    assert result.asset_value("by_name") == 2
    assert life == [f"up {result.run_id}", "down"]
    with pytest.raises(ConfigError, match="ops:greeting:config:name"):
        hw.materialize(defs, run_config={"ops": {"greeting": {"config": {"name": 3}}}})
    with pytest.raises(ConfigError, match="run_config is a mapping of sections, not str"):
        hw.materialize(defs, run_config="x")  # type: ignore[arg-type]  # pyright: ignore
    with pytest.raises(ConfigError, match="resources:greeter: this is a mapping of fields, not int"):
        hw.materialize(defs, run_config={"resources": {"greeter": 3}})
    with pytest.raises(ConfigError, match="ops:nope"):
        hw.materialize(defs, run_config={"ops": {"nope": {"config": {}}}})
    monkeypatch.delenv("GREETING")
    with pytest.raises(ConfigError, match="GREETING is not set"):
        hw.materialize(defs)
    with pytest.raises(MissingResourceError, match="greeter"):
        hw.Definitions([greeting])


def test_changing_a_resources_settings_makes_its_users_stale(instance: hw.Instance) -> None:
    class Source(hw.ConfigurableResource):
        path: str

    @hw.asset
    def reads(source: Source) -> str:
        return source.path

    @hw.asset
    def other() -> int:
        return 1

    hw.materialize([reads, other], resources={"source": Source(path="a")}, instance=instance)
    result = hw.materialize([reads, other], resources={"source": Source(path="b")}, instance=instance)
    assert statuses(result) == {"reads": "SUCCESS"}
    assert result.plan.steps[0].reason == "a resource changed"


class Flaky:
    def __init__(self, failures: int, error: Any) -> None:
        self.left = failures
        self.error = error
        self.calls = 0

    def __call__(self) -> int:
        self.calls += 1
        if self.left:
            self.left -= 1
            raise self.error
        return self.calls


@pytest.mark.parametrize(
    ("error", "policy", "calls", "status"),
    [
        (ValueError("x"), hw.RetryPolicy(max_retries=2), 3, "SUCCESS"),
        (ValueError("x"), hw.RetryPolicy(max_retries=1), 2, "FAILURE"),
        (ValueError("x"), None, 1, "FAILURE"),
        (hw.RetryRequested(max_retries=3), None, 3, "SUCCESS"),
        (hw.RetryRequested(max_retries=1), None, 2, "FAILURE"),
        (hw.Failure("no", allow_retries=False), hw.RetryPolicy(max_retries=5), 1, "FAILURE"),
        (hw.Failure("yes"), hw.RetryPolicy(max_retries=5), 3, "SUCCESS"),
        (SystemExit(3), None, 1, "FAILURE"),
    ],
)
def test_retries(instance: hw.Instance, error: Any, policy: Any, calls: int, status: str) -> None:
    flaky = Flaky(2, error)
    numbers: list[int] = []

    @hw.asset(retry_policy=policy)
    def one(context: hw.AssetExecutionContext) -> int:
        numbers.append(context.retry_number)
        return flaky()

    result = hw.materialize([one], instance=instance, raise_on_error=False)
    assert (flaky.calls, statuses(result)) == (calls, {"one": status})
    assert numbers == list(range(calls))
    assert kinds(instance).count("STEP_RETRY") == calls - 1
    assert instance.catalog.steps(result.run_id or "")[0].attempts == calls


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (lambda: hw.RetryRequested(max_retries="x"), "max_retries='x'"),  # type: ignore[arg-type]
        (lambda: hw.RetryRequested(seconds_to_wait="x"), "seconds_to_wait='x'"),  # type: ignore[arg-type]
        (lambda: hw.RetryRequested(seconds_to_wait=-1), "seconds_to_wait=-1"),
        (lambda: hw.Failure("too late", metadata={"kept": object()}), "too late"),
        (lambda: hw.Failure(5), "5"),  # type: ignore[arg-type]
    ],
)
def test_an_exception_that_makes_no_sense_fails_its_step_alone(
    instance: hw.Instance, body: Callable[[], Exception], said: str
) -> None:
    @hw.asset
    def one() -> int:
        raise body()

    @hw.asset
    def two() -> int:
        return 2

    result = hw.materialize([one, two], instance=instance, raise_on_error=False)
    assert statuses(result) == {"one": "FAILURE", "two": "SUCCESS"}
    error = instance.catalog.steps(result.run_id or "")[0].error
    assert error is not None
    assert said in error.message


class Broken(hw.RetryPolicy):
    def calculate_delay(self, retry: int, rng: Any = None) -> float:
        raise ZeroDivisionError("a policy of the user's own")


@pytest.mark.parametrize("executor", ["in_process", "threads"])
def test_an_error_outside_of_steps_leaves_nothing_unfinished(instance: hw.Instance, executor: str) -> None:
    @hw.asset(retry_policy=Broken())
    def one() -> int:
        raise ValueError("x")

    @hw.asset
    def two(one: int) -> int:
        return one

    with pytest.raises(ZeroDivisionError):
        hw.materialize([one, two], instance=instance, executor=executor)
    run = instance.catalog.runs()[0]
    assert run.status is RunStatus.FAILURE
    assert run.step_counts == {StepStatus.INTERRUPTED: 1, StepStatus.CANCELED: 1}


def test_retry_delays_grow_and_other_steps_run_meanwhile(instance: hw.Instance) -> None:
    order: list[str] = []
    flaky = Flaky(2, ValueError("x"))

    @hw.asset(retry_policy=hw.RetryPolicy(max_retries=2, delay=0.05, backoff=hw.Backoff.EXPONENTIAL))
    def slow() -> int:
        order.append("slow")
        return flaky()

    @hw.asset
    def other() -> int:
        order.append("other")
        return 1

    start = time.monotonic()
    assert hw.materialize([slow, other], instance=instance).success
    assert order == ["slow", "other", "slow", "slow"]
    assert time.monotonic() - start >= 0.05 + 0.15
    delays = [e.data["delay"] for e in instance.catalog.events(kinds=["STEP_RETRY"])]
    assert delays == pytest.approx([0.05, 0.15])


def test_a_failure_keeps_its_description_and_metadata(instance: hw.Instance) -> None:
    @hw.asset
    def one() -> int:
        raise hw.Failure("the file is bad", metadata={"path": Path("/x")})

    result = hw.materialize([one], instance=instance, raise_on_error=False)
    step = instance.catalog.steps(result.run_id or "")[0]
    assert step.error is not None
    assert (step.error.kind, step.error.message) == ("Failure", "the file is bad")
    assert step.error.metadata["path"].value == "/x"
    with pytest.raises(hw.Failure, match="the file is bad"):
        hw.materialize([one], instance=instance)


def test_failures_skip_downstream_keep_the_rest_and_the_old_versions(instance: hw.Instance) -> None:
    broken = [False]

    @hw.asset(code_version="1")
    def top() -> int:
        if broken[0]:
            raise RuntimeError("broken")
        return 1

    @hw.asset
    def below(top: int) -> int:
        return top

    @hw.asset
    def beside() -> int:
        return 2

    defs = hw.Definitions([top, below, beside])
    hw.materialize(defs, instance=instance)
    broken[0] = True
    result = hw.materialize(defs, instance=instance, force=True, raise_on_error=False)
    assert statuses(result) == {"top": "FAILURE", "below": "SKIPPED", "beside": "SUCCESS"}
    assert (result.status, result.success) == (RunStatus.FAILURE, False)
    assert hw.load_asset("top", instance=instance) == 1
    steps = {step.step_key: step.status for step in instance.catalog.steps(result.run_id or "")}
    assert steps["below"] is StepStatus.SKIPPED
    assert hw.materialize(defs, instance=instance).outcome is None, "a failed run changes nothing: all is still fresh"


def test_early_cut_off_by_content_and_by_column(instance: hw.Instance) -> None:
    rows: list[dict[str, list[int]]] = [{"a": [1, 2], "b": [3, 4]}]

    @hw.asset(code_version="1")
    def table() -> pl.DataFrame:
        return pl.DataFrame(rows[0])

    @hw.asset(ins={"table": hw.AssetIn("table", columns=["a"])})
    def reads_a(table: pl.DataFrame) -> int:
        assert table.columns == ["a"]
        return int(table["a"].sum())

    @hw.asset
    def reads_all(table: pl.DataFrame) -> int:
        return table.height

    defs = hw.Definitions([table, reads_a, reads_all])
    hw.materialize(defs, instance=instance)
    hw.materialize(defs, selection="table", force=True, instance=instance)
    assert hw.materialize(defs, instance=instance).outcome is None, "equal content"
    rows[0] = {"a": [1, 2], "b": [3, 5]}
    hw.materialize(defs, selection="table", force=True, instance=instance)
    result = hw.materialize(defs, instance=instance)
    assert statuses(result) == {"reads_all": "SUCCESS"}, "a column that reads_a does not read"
    assert result.plan.steps[0].reason == "table has new data"
    rows[0] = {"a": [1, 3], "b": [3, 5]}
    hw.materialize(defs, selection="table", force=True, instance=instance)
    again = hw.plan(defs, instance=instance)
    assert {step.key: step.reason for step in again.steps} == {
        "reads_a": "table has new data in a",
        "reads_all": "table has new data",
    }


def test_rows_come_in_any_order_of_columns(instance: hw.Instance) -> None:
    flip = [False]

    @hw.asset(code_version="1")
    def table() -> pl.DataFrame:
        frame = pl.DataFrame({"a": [1], "b": [2]})
        return frame.select("b", "a") if flip[0] else frame

    hw.materialize([table], instance=instance)
    first = instance.catalog.current(hw.AssetKey("table"))
    flip[0] = True
    hw.materialize([table], instance=instance, force=True)
    second = instance.catalog.current(hw.AssetKey("table"))
    assert first is not None
    assert second is not None
    assert first.data_version == second.data_version
    assert first.version_id != second.version_id


def test_provenance_is_what_was_read_even_if_it_is_rebuilt_meanwhile(instance: hw.Instance) -> None:
    @hw.asset(code_version="1")
    def top() -> int:
        return 1

    @hw.asset
    def below(top: int) -> int:
        return top

    result = hw.materialize([top, below], instance=instance)
    assert result.materialization("below").inputs[0].version_id == result.materialization("top").version_id


def test_steps_in_threads_run_side_by_side(instance: hw.Instance) -> None:
    barrier = threading.Barrier(3)

    def make(i: int) -> Any:
        @hw.asset(name=f"a{i}")
        def one() -> int:
            barrier.wait(10)
            return i

        return one

    result = hw.materialize([make(i) for i in range(3)], instance=instance, executor="threads", max_workers=3)
    assert result.success
    assert result.asset_value("a2") == 2


def test_custom_io_managers_drive_everything(instance: hw.Instance) -> None:
    kept: dict[str, Any] = {}

    class Mine(hw.IOManager):
        def handle_output(self, context: hw.OutputContext, obj: Any) -> None:
            kept[context.asset_key] = obj
            context.add_output_metadata({"where": "memory"})

        def load_input(self, context: hw.InputContext) -> Any:
            return kept[context.asset_key]

    @hw.asset(io_manager_key="mine")
    def one() -> object:
        return {1, 2}

    @hw.asset(io_manager=Mine())
    def two(one: set[int]) -> int:
        return len(one)

    result = hw.materialize([one, two], resources={"mine": Mine()}, instance=instance)
    assert result.success
    assert kept["two"] == 2
    assert result.materialization("one").metadata["where"].value == "memory"


def test_a_duck_that_handles_outputs_will_do(instance: hw.Instance) -> None:
    class Duck:
        def __init__(self) -> None:
            self.kept: dict[str, Any] = {}

        def handle_output(self, context: Any, obj: Any) -> None:
            self.kept[context.asset_key] = obj

        def load_input(self, context: Any) -> Any:
            return self.kept[context.asset_key]

    @hw.asset
    def one() -> Any:
        return object

    duck = Duck()
    assert hw.materialize([one], resources={"io_manager": duck}, instance=instance).success
    assert duck.kept == {"one": object}


def test_what_user_code_logs_becomes_events(instance: hw.Instance) -> None:
    @hw.asset
    def one(context: hw.AssetExecutionContext) -> int:
        context.log.info("rows: %d", 3)
        context.log.warning("bad \x1b[31m text")
        context.log.info("broken %d", "format")
        return 1

    result = hw.materialize([one], instance=instance)
    logged = instance.catalog.events(run_id=result.run_id, kinds=["LOG_MESSAGE"])
    assert next((e.data["level"], e.message) for e in logged) == ("INFO", "rows: 3")
    assert logged[1].step_key == "one"
    assert len(logged) == 3


def test_events_tell_the_whole_story(instance: hw.Instance) -> None:
    heard: list[str] = []

    @hw.asset
    def one() -> int:
        return 1

    hw.materialize([one], instance=instance, listener=lambda event: heard.append(type(event).__name__))
    assert kinds(instance) == [
        "DEFINITIONS_CHANGED",
        "RUN_START",
        "STEP_START",
        "STEP_SUCCESS",
        "ASSET_MATERIALIZATION",
        "RUN_SUCCESS",
    ] or sorted(kinds(instance)) == sorted(
        ["DEFINITIONS_CHANGED", "RUN_START", "STEP_START", "STEP_SUCCESS", "ASSET_MATERIALIZATION", "RUN_SUCCESS"]
    )
    assert heard == ["DefinitionsChanged", "RunStarted", "StepStarted", "StepEnded", "RunEnded"]


def test_definition_history_says_what_changed(instance: hw.Instance) -> None:
    @hw.asset(description="old", code_version="1")
    def one() -> int:
        return 1

    @hw.asset
    def two() -> int:
        return 2

    hw.materialize([one, two], instance=instance)

    @hw.asset(name="one", description="new", code_version="2")
    def changed() -> int:
        return 1

    hw.materialize([changed], instance=instance)
    history = [(c.asset, c.change, c.parts) for c in instance.catalog.definition_history()]
    assert ("two", "removed", ()) in history
    assert ("one", "changed", ("code_version", "description")) in history


def test_old_versions_stay_readable(instance: hw.Instance) -> None:
    value = [1]

    @hw.asset(code_version="1")
    def one() -> int:
        return value[0]

    first = hw.materialize([one], instance=instance).materialization("one").version_id
    value[0] = 2
    hw.materialize([one], instance=instance, force=True)
    assert hw.load_asset("one", instance=instance) == 2
    assert hw.load_asset("one", instance=instance, version=first) == 1
    with pytest.raises(MissingDataError, match="no version"):
        hw.load_asset("one", instance=instance, version="ffff")


def test_external_assets_are_edges_only(instance: hw.Instance) -> None:
    spec = hw.AssetSpec("elsewhere", description="made by others")

    @hw.asset(deps=[spec, "unknown"])
    def one() -> int:
        return 1

    result = hw.materialize([spec, one], instance=instance)
    assert statuses(result) == {"one": "SUCCESS"}
    assert hw.materialize([spec, one], instance=instance).outcome is None


def test_a_keyboard_interrupt_from_user_code_cancels_the_run(instance: hw.Instance) -> None:
    @hw.asset
    def one() -> int:
        raise KeyboardInterrupt

    @hw.asset
    def two(one: int) -> int:
        return one

    result = hw.materialize([one, two], instance=instance, raise_on_error=False)
    assert result.status is RunStatus.CANCELED
    assert statuses(result)["one"] == "CANCELED"
    with pytest.raises(KeyboardInterrupt):
        hw.materialize([one, two], instance=instance)


@pytest.mark.parametrize("executor", ["in_process", "threads"])
def test_a_failing_resource_fails_the_steps_that_use_it(instance: hw.Instance, executor: str) -> None:
    class Bad(hw.ConfigurableResource):
        def setup_for_execution(self, context: Any) -> None:
            raise ConnectionError("no route")

    @hw.asset(retry_policy=hw.RetryPolicy(max_retries=5, delay=3000))
    def one(bad: Bad) -> int:
        return 1

    @hw.asset(required_resource_keys={"bad"})
    def two() -> int:
        return 1

    @hw.asset(io_manager_key="lost")
    def three() -> int:
        return 1

    @hw.asset
    def below(three: int) -> int:
        return 1

    @hw.asset
    def apart() -> int:
        return 1

    class Lost(hw.ConfigurableResource):
        def setup_for_execution(self, context: Any) -> None:
            raise SystemExit("no disk")

        def handle_output(self, context: Any, obj: Any) -> None: ...
        def load_input(self, context: Any) -> Any: ...

    assets = [one, two, three, below, apart]
    resources: dict[str, Any] = {"bad": Bad(), "lost": Lost()}
    result = hw.materialize(assets, resources=resources, instance=instance, executor=executor, raise_on_error=False)
    failed = dict.fromkeys(["one", "two", "three"], "FAILURE")
    assert statuses(result) == {**failed, "below": "SKIPPED", "apart": "SUCCESS"}
    assert result.outcome is not None
    assert result.outcome.exit_code == ResourceError.exit_code
    errors = {step.step_key: step.error for step in instance.catalog.steps(result.run_id or "")}
    for key, said in (("one", "no route"), ("two", "no route"), ("three", "no disk")):
        error = errors[key]
        assert error is not None
        assert (error.kind, said in error.message) == ("E-RESOURCE", True)
    with pytest.raises(ResourceError, match="no route") as caught:
        hw.materialize([one], resources={"bad": Bad()}, instance=instance)
    assert isinstance(caught.value.__cause__, ConnectionError)


class Notes(hw.ConfigurableIOManager):
    """An IO manager with fields."""

    folder: str
    suffixes: list[str] = ["txt"]

    def setup_for_execution(self, context: Any) -> None:
        Path(self.folder).mkdir(exist_ok=True)

    def handle_output(self, context: hw.OutputContext, obj: Any) -> None:
        self._path(context.asset_key).write_text(str(obj))

    def load_input(self, context: hw.InputContext) -> Any:
        return self._path(context.asset_key).read_text()

    def _path(self, key: str) -> Path:
        return Path(self.folder) / f"{key}.{self.suffixes[0]}"


def test_an_io_manager_with_fields(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTES", str(tmp_path / "notes"))

    @hw.asset(io_manager="notes")
    def first() -> int:
        return 5

    @hw.asset(io_manager=Notes(folder=hw.EnvVar("NOTES"), suffixes=["md"]))
    def second(first: str) -> str:
        return first + "6"

    def defined(**fields: Any) -> hw.Definitions:
        return hw.Definitions([first, second], resources={"notes": Notes(folder=hw.EnvVar("NOTES"), **fields)})

    with hw.Instance.ephemeral() as instance:
        result = hw.materialize(defined(), instance=instance)
        assert [result.asset_value("first"), result.asset_value("second")] == ["5", "56"]
        assert sorted(path.name for path in (tmp_path / "notes").iterdir()) == ["first.txt", "second.md"]
        assert not hw.plan(defined(), instance=instance)
        assert hw.plan(defined(suffixes=["rst"]), instance=instance), "its fields decide where the data lies"


def test_what_an_io_manager_of_one_asset_takes_from_the_environment_is_kept_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTES", str(tmp_path / "s3cr3t-canary"))

    @hw.asset(io_manager=Notes(folder=hw.EnvVar("NOTES")))
    def first() -> int:
        return 5

    with hw.Instance.ephemeral() as instance:  # nobody makes the folder, so that writing fails
        result = hw.materialize([first], instance=instance, raise_on_error=False)
        assert result.run_id is not None
        error = instance.catalog.steps(result.run_id)[0].error
        assert error is not None and error.kind == "FileNotFoundError"
        assert "s3cr3t-canary" not in f"{error.message} {error.traceback}"


def test_a_resource_may_be_made_an_io_manager() -> None:
    class Both(hw.ConfigurableResource, hw.IOManager):
        path: str = "x"

        def handle_output(self, context: hw.OutputContext, obj: Any) -> None:
            pass

        def load_input(self, context: hw.InputContext) -> Any:
            pass

    assert Both(path="y").fingerprint() == {"path": "y"}


def test_an_asset_that_may_make_nothing() -> None:
    @hw.asset(output_required=False)
    def returned() -> Any:
        return made[0] or None

    @hw.asset(output_required=False)
    def yielded() -> Iterator[hw.Output[int]]:
        if made[0]:
            yield hw.Output(made[0])

    @hw.asset
    def below(returned: int) -> int:
        return returned + 1

    with hw.Instance.ephemeral() as instance:
        made = [0]
        result = hw.materialize([returned, yielded, below], instance=instance)
        assert result.success
        assert {cell.asset: cell.status for cell in result.cells} == dict.fromkeys(
            ("returned", "yielded", "below"), StepStatus.SKIPPED
        )
        made = [1]
        result = hw.materialize([returned, yielded, below], instance=instance)
        assert (result.asset_value("below"), result.asset_value("yielded")) == (2, 1)
