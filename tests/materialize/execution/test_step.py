# pyright: reportUnknownParameterType=false, reportMissingParameterType=false, reportUnknownLambdaType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnknownMemberType=false, reportOptionalMemberAccess=false
"""One attempt at a step that computes partitions; asset functions here are as bare as users write them."""

import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import headwater as P
from headwater.catalog.definitions.definitions import Definitions
from headwater.catalog.errors import UserCodeError
from headwater.catalog.ids import new_id
from headwater.catalog.keys import AssetKey
from headwater.catalog.partitions.definition import PartitionsContext, PartitionsDefinition
from headwater.catalog.records import Cell, PlannedCell
from headwater.io.base import InputContext, IOManager, OutputContext, Staged
from headwater.materialize.execution.context import RunInfo
from headwater.materialize.execution.partitions import StepPartitions, step_partitions
from headwater.materialize.execution.step import (
    StepEnvironment,
    StepInput,
    StepResult,
    StepSpec,
    StoredPart,
    attempt_step,
)
from headwater.materialize.io_managers import IOManagers

NOW = datetime(2014, 1, 1, tzinfo=UTC)
DAYS = P.DailyPartitionsDefinition("2013-01-01")
THREE = ("2013-01-01", "2013-01-02", "2013-01-03")
ORIGINS = P.StaticPartitionsDefinition(["EWR", "JFK", "LGA"])
BOTH = P.MultiPartitionsDefinition({"origin": ORIGINS, "day": DAYS})
ALL = P.BackfillPolicy.single_run()


class Noting(IOManager):
    """Keeps values by cell; fails for those that say so."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, str | None], Any] = {}
        self.contexts: list[OutputContext] = []
        self.loaded: list[InputContext] = []

    def handle_output(self, context: OutputContext, obj: Any) -> None:
        raise NotImplementedError

    def load_input(self, context: InputContext) -> Any:
        self.loaded.append(context)
        return self.values[context.asset_key, context.partition_key]

    def stage(self, context: OutputContext, obj: Any) -> Staged:
        if isinstance(obj, str) and obj == "cannot be staged":
            raise ValueError("too big")
        self.contexts.append(context)
        return NotedValue(self, context, obj)


class NotedValue(Staged):
    def __init__(self, manager: Noting, context: OutputContext, value: Any) -> None:
        self.pointer = P.InMemoryIOManager().stage(context, value).pointer
        self.data_version = repr(value)
        self._manager, self._context, self._value = manager, context, value

    def publish(self) -> None:
        if isinstance(self._value, str) and self._value == "cannot be published":
            raise OSError("no space")
        self._manager.values[self._context.asset_key, self._context.partition_key] = self._value

    def discard(self) -> None:
        self._manager.values.pop((self._context.asset_key, self._context.partition_key), None)


@dataclass
class Bench:
    """Attempts at steps of one project."""

    assets: Sequence[Any]
    home: Path
    manager: IOManager = field(default_factory=Noting)

    def __post_init__(self) -> None:
        self.definitions = Definitions(list(self.assets), resources={"io_manager": self.manager})
        self.environment = StepEnvironment(
            definitions=self.definitions,
            io_managers=IOManagers(self.definitions, None, self.home),
            resources={},
            check_resources=lambda _: None,
            log=lambda *_: None,
        )

    def spec(
        self,
        asset: str,
        keys: Sequence[str] | None = None,
        *,
        inputs: Sequence[StepInput] = (),
        cells: Sequence[tuple[str, str | None]] | None = None,
        **settings: Any,
    ) -> StepSpec:
        definition = self.definitions.definition_of(AssetKey(asset))
        wanted = cells or [(key, partition) for partition in keys or (None,) for key in definition.keys]
        return StepSpec(
            run=RunInfo(run_id="r"),
            step_key=definition.name,
            number=0,
            attempt=1,
            cells=tuple(
                PlannedCell(asset=AssetKey(key), partition=partition, version_id=new_id(NOW))
                for key, partition in wanted
            ),
            inputs=tuple(inputs),
            partitions=None if keys is None else partitions_of(definition.partitions_def, keys),
            **settings,
        )

    def attempt(self, asset: str, keys: Sequence[str] | None = None, **settings: Any) -> StepResult:
        return attempt_step(self.spec(asset, keys, **settings), self.environment).publish()


def partitions_of(definition: PartitionsDefinition | None, keys: Sequence[str]) -> StepPartitions:
    assert definition is not None
    return step_partitions(definition.at(PartitionsContext(NOW)), keys)


@pytest.fixture
def bench(tmp_path: Path) -> Callable[..., Bench]:
    return lambda *assets, **settings: Bench(assets, tmp_path, **settings)


def made(result: StepResult) -> dict[str | None, str | None]:
    """What a step made, by partition."""
    assert result.failure is None, result.failure
    return {output.cell.partition: output.data_version for output in result.outputs}


def failed(result: StepResult) -> dict[str | None, str]:
    return {one.cell.partition: one.failure.error.message for one in result.failed}


def message(result: StepResult) -> str:
    assert result.failure is not None
    assert result.outputs == ()
    return result.failure.error.message


def batch(function: Callable[..., Any], definition: PartitionsDefinition = DAYS, **settings: Any) -> Any:
    named: dict[str, Any] = {"name": "a", "partitions_def": definition, "backfill_policy": ALL, **settings}
    return P.asset(function, **named)


class TestOnePartition:
    """A step of an asset without a backfill policy."""

    def test_a_value(self, bench: Any) -> None:
        @P.asset(partitions_def=DAYS)
        def a(context) -> str:
            assert context.has_partition_key
            assert context.has_partition_key_range
            assert context.partition_keys == (context.partition_key,)
            assert context.partition_key_range == ("2013-01-01", "2013-01-01")
            return f"of {context.partition_key}"

        one = bench(a)
        result = one.attempt("a", THREE[:1])
        assert made(result) == {"2013-01-01": "'of 2013-01-01'"}
        assert one.manager.contexts[0].partition_key == "2013-01-01"
        assert one.manager.values == {("a", "2013-01-01"): "of 2013-01-01"}

    @pytest.mark.parametrize(
        "result",
        [
            P.Output(1, partition_key="2013-01-01"),
            P.MaterializeResult(value=1, partition_key="2013-01-01"),
            P.Output(1),
            1,
        ],
    )
    def test_may_name_its_partition(self, result: Any, bench: Any) -> None:
        assert made(bench(P.asset(lambda: result, name="a", partitions_def=DAYS)).attempt("a", THREE[:1])) == {
            "2013-01-01": "1"
        }

    def test_may_not_name_another(self, bench: Any) -> None:
        asset = P.asset(lambda: P.Output(1, partition_key="2013-01-02"), name="a", partitions_def=DAYS)
        result = bench(asset).attempt("a", THREE[:1])
        assert "gave the partition '2013-01-02', and this step computes 2013-01-01" in message(result)
        unpartitioned = P.asset(lambda: P.Output(1, partition_key="x"), name="a")
        assert "gave the partition 'x', and it is not partitioned" in message(bench(unpartitioned).attempt("a"))

    def test_fails_as_a_whole(self, bench: Any) -> None:
        @P.multi_asset(outs={"a": P.AssetOut(), "b": P.AssetOut()}, partitions_def=DAYS)
        def both():
            yield P.Output(1, "a")
            yield P.Output("cannot be published", "b")

        one = bench(both)
        result = one.attempt("a", THREE[:1])
        assert message(result) == "no space"
        assert result.failed == ()
        assert one.manager.values == {}

    def test_a_dict_is_a_value(self, bench: Any) -> None:
        value = {"2013-01-01": 5}
        one = bench(P.asset(lambda: value, name="a", partitions_def=DAYS))
        assert made(one.attempt("a", THREE[:1])) == {"2013-01-01": repr(value)}

    def test_a_failure_that_is_given_is_raised(self, bench: Any) -> None:
        def yields():
            yield P.Failure("bad", allow_retries=False)

        for function in (yields, lambda: P.Failure("bad", allow_retries=False)):
            result = bench(P.asset(function, name="a", partitions_def=DAYS)).attempt("a", THREE[:1])
            assert message(result) == "bad"
            assert result.failure.allow_retries is False


class TestSeveralPartitions:
    """A step of an asset with a backfill policy."""

    def test_a_dict(self, bench: Any) -> None:
        @batch
        def a(context):
            return {key: f"of {key}" for key in context.partition_keys}

        one = bench(a)
        assert made(one.attempt("a", THREE)) == {key: f"'of {key}'" for key in THREE}
        assert one.manager.values == {("a", key): f"of {key}" for key in THREE}

    def test_yields(self, bench: Any) -> None:
        @batch
        def a(context):
            for key in context.partition_keys:
                yield P.Output(key[-1], partition_key=key, metadata={"day": key[-1]}, tags={"x": "y"})

        result = bench(a).attempt("a", THREE)
        assert made(result) == {key: repr(key[-1]) for key in THREE}
        assert [output.metadata["day"].value for output in result.outputs] == ["1", "2", "3"]
        assert result.outputs[0].tags == {"x": "y"}

    def test_results_in_a_dict_or_a_list(self, bench: Any) -> None:
        result = {key: P.Output(1, data_version=f"v{key}") for key in THREE}
        assert made(bench(batch(lambda: result)).attempt("a", THREE)) == {key: f"v{key}" for key in THREE}
        listed = [P.MaterializeResult(partition_key=key, value=2) for key in THREE]
        assert made(bench(batch(lambda: listed)).attempt("a", THREE)) == dict.fromkeys(THREE, "2")

    def test_one_that_has_its_own_materializations(self, bench: Any) -> None:
        def a() -> None:
            pass

        result = bench(batch(a)).attempt("a", THREE)
        assert made(result) == dict.fromkeys(THREE)
        assert [output.pointer for output in result.outputs] == [None] * 3
        listed = [P.MaterializeResult(partition_key=key) for key in THREE]
        assert [o.pointer for o in bench(batch(lambda: listed)).attempt("a", THREE).outputs] == [None] * 3

    @pytest.mark.parametrize("given", [5, None, [1, 2, 3], "text", P.Output(1), P.MaterializeResult()])
    def test_anything_else(self, given: Any, bench: Any) -> None:
        result = bench(batch(lambda: given)).attempt("a", THREE)
        text = message(result) + result.failure.error.remedy
        assert "partition" in text
        assert "partition_key=key" in text

    def test_the_three_ways_are_shown(self, bench: Any) -> None:
        failure = bench(batch(lambda: 5)).attempt("a", THREE).failure
        assert failure.error.message == "`a` gave an int for 3 partitions."
        for way in ("dict {partition key: value}", "Output(value, partition_key=key)", "'partition_expr'"):
            assert way in failure.error.remedy

    def test_the_number_left_over_changes_nothing(self, bench: Any) -> None:
        """A dict by partition is one in a step of one partition too."""
        one = bench(batch(lambda context: dict.fromkeys(context.partition_keys, 7)))
        assert made(one.attempt("a", THREE[:1])) == {"2013-01-01": "7"}
        assert "gave the partition 'x'" in message(bench(batch(lambda: {"x": 1})).attempt("a", THREE[:1]))
        assert made(bench(batch(lambda: 7)).attempt("a", THREE[:1])) == {"2013-01-01": "7"}
        assert made(bench(batch(lambda: P.Output(7))).attempt("a", THREE[:1])) == {"2013-01-01": "7"}

    def test_a_result_for_all_of_them(self, bench: Any) -> None:
        """Its metadata goes to each."""
        values = {THREE[0]: 1, THREE[1]: P.Output(2, metadata={"own": 2}), THREE[2]: P.Failure("bad")}
        for given in (P.Output(values, metadata={"all": 0}), P.MaterializeResult(value=values, metadata={"all": 0})):
            result = bench(batch(lambda given=given: given)).attempt("a", THREE)
            assert made(result) == {THREE[0]: "1", THREE[1]: "2"}
            assert failed(result) == {THREE[2]: "bad"}
            assert [list(output.metadata) for output in result.outputs] == [["all"], ["all", "own"]]

    def test_unknown_partitions(self, bench: Any) -> None:
        one = bench(batch(lambda: {THREE[0]: 1, "\x1b[2J": 2}))
        result = one.attempt("a", THREE)
        assert "gave the partition '\\x1b[2J', and this step computes 2013-01-01, 2013-01-02, 2013-01-03." in message(
            result
        )
        assert one.manager.values == {}
        assert "gave the partition '3'" in message(bench(batch(lambda: {3: 2})).attempt("a", THREE))

    def test_given_twice(self, bench: Any) -> None:
        def a():
            yield P.Output(1, partition_key=THREE[0])
            yield P.Output(2, partition_key=THREE[0])

        result = bench(batch(a)).attempt("a", THREE)
        assert made(result) == {THREE[0]: "1"}
        assert failed(result) == dict.fromkeys(THREE[1:], "`a` gave the partition '2013-01-01' twice.")

    def test_the_annotation_is_that_of_a_value(self, bench: Any) -> None:
        def a() -> dict[str, int]:
            return dict.fromkeys(THREE, 1)

        one = bench(batch(a))
        made(one.attempt("a", THREE))
        assert [context.annotation for context in one.manager.contexts] == [int] * 3

    def test_dimensions(self, bench: Any) -> None:
        keys = ["2013-01-01|JFK", "2013-01-02|EWR"]

        def a(context):
            assert [key.keys_by_dimension["origin"] for key in context.partition_keys] == ["JFK", "EWR"]
            yield P.Output(1, partition_key=keys[0])
            yield P.Output(2, partition_key=P.MultiPartitionKey({"origin": "EWR", "day": "2013-01-02"}))

        one = bench(batch(a, BOTH))
        assert made(one.attempt("a", keys)) == {keys[0]: "1", keys[1]: "2"}
        for context in one.manager.contexts:
            assert isinstance(context.partition_key, P.MultiPartitionKey)

    def test_outputs_are_written_as_they_come(self, bench: Any) -> None:
        one = bench(batch(lambda context: stream(context)))

        def stream(context):
            for number, key in enumerate(context.partition_keys):
                assert len(one.manager.contexts) == number
                yield P.Output(number, partition_key=key)

        made(one.attempt("a", THREE))

    def test_specs_are_plain_data(self, bench: Any) -> None:
        one = bench(batch(lambda: 1, BOTH))
        part = StoredPart(partition="x", version_id="v", pointer=None)
        inputs = [StepInput(parameter="p", asset=AssetKey("x"), parts=(part,), several=True)]
        spec = one.spec("a", ["2013-01-01|JFK"], inputs=inputs, previous={Cell(AssetKey("a"), "x"): (None, True)})
        again = pickle.loads(pickle.dumps(spec))
        assert again == spec
        assert again.partitions.keys[0].keys_by_dimension == {"day": "2013-01-01", "origin": "JFK"}

    def test_previous_and_provenance_are_of_the_cell(self, bench: Any) -> None:
        one = bench(batch(lambda: dict.fromkeys(THREE, 1)))
        cells = [Cell(AssetKey("a"), key) for key in THREE]
        previous = {cells[1]: (P.InMemoryIOManager().stage(output("a", THREE[1]), 1).pointer, False)}
        result = one.attempt("a", THREE, previous=previous, provenance={cells[2]: {"k": "v"}})
        assert len(made(result)) == 3
        assert [context.previous is not None for context in one.manager.contexts] == [False, True, False]
        assert [context.code_changed for context in one.manager.contexts] == [True, False, True]
        assert [dict(context.provenance) for context in one.manager.contexts] == [{}, {}, {"k": "v"}]


class TestOneBadPartition:
    """It fails alone."""

    def test_cannot_be_stored(self, bench: Any) -> None:
        values = {THREE[0]: 1, THREE[1]: "cannot be staged", THREE[2]: 3}
        one = bench(batch(lambda: values))
        result = one.attempt("a", THREE)
        assert made(result) == {THREE[0]: "1", THREE[2]: "3"}
        assert failed(result) == {THREE[1]: "too big"}
        assert isinstance(result.failed[0].failure.exception, ValueError)
        assert set(one.manager.values) == {("a", THREE[0]), ("a", THREE[2])}

    def test_cannot_be_published(self, bench: Any) -> None:
        values = {THREE[0]: "cannot be published", THREE[1]: 2, THREE[2]: "cannot be published"}
        result = bench(batch(lambda: values)).attempt("a", THREE)
        assert made(result) == {THREE[1]: "2"}
        assert failed(result) == {THREE[0]: "no space", THREE[2]: "no space"}
        assert [one.failure.exception is None for one in result.failed] == [False, True]

    def test_says_so_itself(self, bench: Any) -> None:
        def yields():
            yield P.Output(1, partition_key=THREE[0])
            yield P.Failure("no rows", {"rows": 0}, allow_retries=False, partition_key=THREE[1])
            yield P.Output(3, partition_key=THREE[2])

        given = {THREE[0]: 1, THREE[1]: P.Failure("no rows", {"rows": 0}, allow_retries=False), THREE[2]: 3}
        for function in (yields, lambda: given):
            result = bench(batch(function)).attempt("a", THREE)
            assert made(result) == {THREE[0]: "1", THREE[2]: "3"}
            assert failed(result) == {THREE[1]: "no rows"}
            failure = result.failed[0].failure
            assert failure.allow_retries is False
            assert failure.error.metadata["rows"].value == 0

    def test_is_not_given(self, bench: Any) -> None:
        result = bench(batch(lambda: {THREE[0]: 1})).attempt("a", THREE)
        assert made(result) == {THREE[0]: "1"}
        assert failed(result) == {key: f"`a` gave nothing for partition '{key}' of `a`." for key in THREE[1:]}

    def test_may_be_left_out_where_it_is_optional(self, bench: Any) -> None:
        for value in ({THREE[0]: 1}, {THREE[0]: 1, THREE[1]: None}):
            result = bench(batch(lambda value=value: value, output_required=False)).attempt("a", THREE)
            assert (made(result), failed(result)) == ({THREE[0]: "1"}, {})
        result = bench(batch(lambda: None, output_required=False)).attempt("a", THREE)
        assert (made(result), failed(result)) == ({}, {})

    def test_raising_fails_what_was_not_given(self, bench: Any) -> None:
        def a():
            yield P.Output(1, partition_key=THREE[0])
            raise P.RetryRequested(2, 3)

        result = bench(batch(a)).attempt("a", THREE)
        assert made(result) == {THREE[0]: "1"}
        assert list(failed(result)) == list(THREE[1:])
        assert [one.failure.retry for one in result.failed] == [(2, 3), (2, 3)]

    def test_being_interrupted_keeps_what_was_given(self, bench: Any) -> None:
        def a():
            yield P.Output(1, partition_key=THREE[0])
            raise KeyboardInterrupt

        result = bench(batch(a)).attempt("a", THREE)
        assert made(result) == {THREE[0]: "1"}
        assert [one.failure.canceled for one in result.failed] == [True, True]

    @pytest.mark.parametrize("way", ["raises", "is not called", "each fails", "none is published"])
    def test_where_nothing_succeeds_the_step_fails(self, way: str, bench: Any) -> None:
        def raises():
            raise LookupError("all")

        functions: Mapping[str, Callable[..., Any]] = {
            "raises": raises,
            "is not called": lambda missing: 1,
            "each fails": lambda: dict.fromkeys(THREE, "cannot be staged"),
            "none is published": lambda: dict.fromkeys(THREE, "cannot be published"),
        }
        one = bench(batch(functions[way]), P.AssetSpec("missing"))
        inputs = [StepInput(parameter="missing", asset=AssetKey("missing"), parts=())]
        result = one.attempt("a", THREE, inputs=inputs)
        expected = {"raises": "all", "each fails": "too big", "none is published": "no space"}
        assert expected.get(way, "there is no version of it") in message(result)
        assert result.failure.exception is not None
        assert len(result.failed) == (0 if way == "is not called" else 3)
        assert one.manager.values == {}


class TestSeveralAssets:
    """Several assets, several partitions of each."""

    OUTS: Mapping[str, P.AssetOut] = {"a": P.AssetOut(), "b": P.AssetOut(is_required=False)}

    def step(self, function: Callable[..., Any], **settings: Any) -> Any:
        named: dict[str, Any] = {"partitions_def": DAYS, "backfill_policy": ALL, "name": "both", **settings}
        named.setdefault("outs", self.OUTS)
        return P.multi_asset(**named)(function)

    def cells(self, result: StepResult) -> list[tuple[str, str | None]]:
        assert result.failure is None, result.failure
        return sorted((output.cell.asset, output.cell.partition) for output in result.outputs)

    def test_dicts_of_dicts(self, bench: Any) -> None:
        a, b = dict.fromkeys(THREE, 1), dict.fromkeys(THREE[:2], 2)
        for given in ({"a": a, "b": b}, (a, b)):
            result = bench(self.step(lambda given=given: given)).attempt("a", THREE)
            assert self.cells(result) == [("a", key) for key in THREE] + [("b", key) for key in THREE[:2]]
            assert result.failed == ()

    def test_yields(self, bench: Any) -> None:
        def f():
            yield P.Output(1, "a", partition_key=THREE[0])
            yield P.MaterializeResult(asset_key="b", partition_key=THREE[0])
            yield P.Failure("bad", partition_key=THREE[1])
            yield P.Output(1, "b", partition_key=THREE[2])
            yield P.Failure("late", partition_key=THREE[2])

        result = bench(self.step(f)).attempt("a", THREE)
        assert self.cells(result) == [("a", THREE[0]), ("b", THREE[0]), ("b", THREE[2])]
        assert [(one.cell.asset, one.cell.partition, one.failure.error.message) for one in result.failed] == [
            ("a", THREE[1], "bad"),
            ("b", THREE[1], "bad"),
            ("a", THREE[2], "late"),
        ]

    def test_one_that_stores_by_itself(self, bench: Any) -> None:
        specs = [P.AssetSpec("a"), P.AssetSpec("b")]
        result = bench(self.step(lambda: None, outs=None, specs=specs)).attempt("a", THREE)
        assert len(self.cells(result)) == 6

    def test_cells_that_nobody_asked_for(self, bench: Any) -> None:
        one = bench(self.step(lambda: {"a": dict.fromkeys(THREE, 1), "b": dict.fromkeys(THREE, 2)}))
        result = one.attempt("a", THREE, cells=[("a", THREE[0]), ("b", THREE[2]), ("a", THREE[1])])
        assert self.cells(result) == [("a", THREE[0]), ("a", THREE[1]), ("b", THREE[2])]
        assert result.failed == ()
        result = one.attempt("a", THREE, cells=[("a", key) for key in THREE])
        assert self.cells(result) == [("a", key) for key in THREE]

    def test_what_is_no_dict(self, bench: Any) -> None:
        result = bench(self.step(lambda: {"a": 5})).attempt("a", THREE)
        assert message(result) == "`both` gave an int for 3 partitions."


class TestContext:
    def seen(self, definition: PartitionsDefinition, keys: Sequence[str], bench: Any) -> Any:
        contexts: list[Any] = []
        result = bench(batch(lambda context: (contexts.append(context), dict.fromkeys(keys, 1))[1], definition))
        made(result.attempt("a", keys))
        return contexts[0]

    def test_several(self, bench: Any) -> None:
        context = self.seen(DAYS, [*THREE[1:], THREE[0]], bench)
        assert context.partition_keys == THREE
        assert not context.has_partition_key
        assert context.has_partition_key_range
        assert context.partition_key_range == P.PartitionKeyRange("2013-01-01", "2013-01-03")
        assert context.partition_time_window == P.TimeWindow(
            datetime(2013, 1, 1, tzinfo=UTC), datetime(2013, 1, 4, tzinfo=UTC)
        )
        assert [window.start.day for window in context.partition_time_windows] == [1, 2, 3]
        with pytest.raises(UserCodeError, match="computes 3 partitions in this step") as caught:
            _ = context.partition_key
        assert "context.partition_keys" in caught.value.remedy

    def test_with_a_gap(self, bench: Any) -> None:
        context = self.seen(DAYS, THREE[::2], bench)
        assert not context.has_partition_key_range
        with pytest.raises(UserCodeError, match="do not follow each other"):
            _ = context.partition_key_range
        with pytest.raises(UserCodeError, match="do not follow each other"):
            _ = context.partition_time_window
        assert len(context.partition_time_windows) == 2

    def test_the_hour_that_a_clock_shows_twice(self, bench: Any) -> None:
        hours = P.HourlyPartitionsDefinition("2013-11-01", timezone="America/New_York")
        keys = ["2013-11-03-00:00", "2013-11-03-01:00", "2013-11-03-01:00-0500", "2013-11-03-02:00"]
        window = self.seen(hours, keys, bench).partition_time_window
        assert (window.end.timestamp() - window.start.timestamp()) / 3600 == 4
        with pytest.raises(UserCodeError, match="do not follow each other"):
            _ = self.seen(hours, [keys[0], keys[2]], bench).partition_time_window

    def test_dimensions(self, bench: Any) -> None:
        keys = ["2013-01-01|EWR", "2013-01-01|JFK", "2013-01-02|EWR"]
        context = self.seen(BOTH, keys, bench)
        assert [window.start.day for window in context.partition_time_windows] == [1, 1, 2]
        assert context.partition_time_window.end == datetime(2013, 1, 3, tzinfo=UTC)
        assert not context.has_partition_key_range

    def test_no_windows(self, bench: Any) -> None:
        context = self.seen(ORIGINS, ["JFK", "LGA"], bench)
        assert context.partition_key_range == ("JFK", "LGA")
        for name in ("partition_time_window", "partition_time_windows"):
            with pytest.raises(UserCodeError, match="are no time windows"):
                getattr(context, name)

    def test_of_an_unpartitioned_asset(self) -> None:
        context = P.build_asset_context()
        assert not context.has_partition_key
        assert not context.has_partition_key_range
        names = ("partition_key", "partition_keys", "partition_key_range", "partition_time_window")
        for name in (*names, "partition_time_windows"):
            with pytest.raises(UserCodeError, match="`asset` is not partitioned"):
                getattr(context, name)

    def test_metadata_of_a_partition(self, bench: Any) -> None:
        def a(context):
            context.add_output_metadata({"all": 1, "n": 0})
            context.add_output_metadata({"n": 2}, partition_key=THREE[1])
            with pytest.raises(UserCodeError, match="does not compute the partition 'x'"):
                context.add_output_metadata({"n": 2}, partition_key="x")
            return dict.fromkeys(THREE, 1)

        result = bench(batch(a)).attempt("a", THREE)
        found = [{name: value.value for name, value in output.metadata.items()} for output in result.outputs]
        assert found == [{"all": 1, "n": 0}, {"all": 1, "n": 2}, {"all": 1, "n": 0}]

    def test_for_unit_tests(self) -> None:
        assert P.build_asset_context(partition_key="x").partition_key == "x"
        context = P.build_asset_context(
            partition_key="2013-03-10",
            partitions_def=P.DailyPartitionsDefinition("2013-01-01", timezone="America/New_York"),
        )
        window = context.partition_time_window
        assert (window.end.timestamp() - window.start.timestamp()) / 3600 == 23
        several = P.build_asset_context(partition_keys=THREE, partitions_def=DAYS)
        assert several.partition_key_range == (THREE[0], THREE[-1])
        customers = P.DynamicPartitionsDefinition("customers")
        both = P.MultiPartitionsDefinition({"customer": customers, "day": DAYS})
        key: Any = P.build_asset_context(partition_key="ada|2013-01-02", partitions_def=both).partition_key
        assert key.keys_by_dimension == {"customer": "ada", "day": "2013-01-02"}
        for wrong in ("2012-12-31", "2013-1-1", "x", ""):
            with pytest.raises(P.HeadwaterError, match="There is no partition"):
                P.build_asset_context(partition_key=wrong, partitions_def=DAYS)
        with pytest.raises(P.HeadwaterError, match="not both"):
            P.build_asset_context(partition_key="x", partition_keys=["x"])


class TestInputs:
    def read(self, bench: Any, annotation: Any, count: int, *, several: bool, **settings: Any) -> Any:
        """What a parameter gets of so many partitions of `up`."""
        got: list[Any] = []

        def down(context, up):
            got.append((up, tuple(context.asset_partition_keys_for_input("up"))))

        down.__annotations__["up"] = annotation
        one = bench(P.asset(lambda: 1, name="up", partitions_def=DAYS), P.asset(down))
        parts = [
            StoredPart(partition=output.cell.partition, version_id=output.cell.version_id, pointer=output.pointer)
            for key in THREE[:count]
            for output in one.attempt("up", [key]).outputs
        ]
        source = StepInput(parameter="up", asset=AssetKey("up"), parts=tuple(parts), several=several, **settings)
        result = one.attempt("down", inputs=[source])
        if result.failure is not None:
            return result.failure.error
        return got[0]

    def test_one(self, bench: Any) -> None:
        assert self.read(bench, int, 1, several=False) == (1, THREE[:1])

    def test_none(self, bench: Any) -> None:
        assert "there is no version of it" in self.read(bench, int, 0, several=False).message
        assert self.read(bench, int, 0, several=False, optional=True) == (None, ())

    @pytest.mark.parametrize("count", [0, 1, 3])
    def test_several(self, count: int, bench: Any) -> None:
        for annotation in (dict[str, int], dict, Mapping[str, int]):
            assert self.read(bench, annotation, count, several=True) == (dict.fromkeys(THREE[:count], 1), THREE[:count])

    def test_what_stores_nothing(self, bench: Any) -> None:
        def down(up: dict[str, int]): ...

        one = bench(P.asset(lambda: 1, name="up", partitions_def=DAYS), P.asset(down))
        for several in (False, True):
            part = StoredPart(partition=THREE[0], version_id="v", pointer=None)
            source = StepInput(parameter="up", asset=AssetKey("up"), parts=(part,), several=several)
            assert "`up [2013-01-01]` stores nothing" in message(one.attempt("down", inputs=[source]))

    def test_frames_with_partition_columns(self, tmp_path: Path) -> None:
        def up(context) -> dict[str, pl.DataFrame]:
            return {key: pl.DataFrame({"n": [int(key[-1])]}) for key in context.partition_keys}

        frames: list[pl.DataFrame] = []

        def down(up: pl.DataFrame) -> None:
            frames.append(up)

        days = P.asset(up, partitions_def=DAYS, backfill_policy=P.BackfillPolicy.multi_run(2))
        one = Bench([days, P.asset(down)], tmp_path, P.FileIOManager())
        outputs = one.attempt("up", THREE[:2]).outputs + one.attempt("up", THREE[2:]).outputs
        parts = tuple(
            StoredPart(partition=o.cell.partition, version_id=o.cell.version_id, pointer=o.pointer) for o in outputs
        )
        source = StepInput(
            parameter="up", asset=AssetKey("up"), parts=parts, several=True, partition_columns={"day": THREE}
        )
        assert one.attempt("down", inputs=[source]).failure is None
        assert frames[0].rows() == [(1, THREE[0]), (2, THREE[1]), (3, THREE[2])]
        assert frames[0].columns == ["n", "day"]

    def test_a_parameter_that_reads_no_partitions(self) -> None:
        with pytest.raises(UserCodeError, match="no parameter `x` that reads a partitioned asset"):
            P.build_asset_context().asset_partition_keys_for_input("x")


def output(asset: str, partition: str) -> OutputContext:
    return OutputContext(
        asset_key=AssetKey(asset), partition_key=partition, version_id=new_id(NOW), run_id="r", step_key=asset
    )
