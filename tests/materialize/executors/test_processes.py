"""Steps in a pool of processes: what they can do, and what becomes of a run when one of them dies."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import psutil
import pytest

import headwater as hw
from headwater.catalog.errors import HeadwaterError, ResourceError, UsageError
from headwater.catalog.events import Event, LogMessage
from headwater.catalog.records import ErrorRecord, StepStatus
from headwater.io.compute_logs import compute_log_manager
from headwater.materialize.api import RunResult
from headwater.materialize.code_location import load_definitions
from headwater.materialize.executors import processes
from headwater.materialize.project import Project
from tests.project import ProjectFolder

SUCCESS, FAILURE, SKIPPED = StepStatus.SUCCESS, StepStatus.FAILURE, StepStatus.SKIPPED


class Build(Protocol):
    def __call__(self, source: str, /, **options: Any) -> RunResult: ...


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[hw.Instance]:
    with hw.Instance.open(tmp_path / "home") as opened:
        yield opened


@pytest.fixture
def load(project: ProjectFolder) -> Iterator[Callable[[str], hw.Definitions]]:
    """Loads a source file as a project, and lets this process forget it afterwards."""
    path, modules = list(sys.path), set(sys.modules)

    def load_source(source: str) -> hw.Definitions:
        file = project.write(source)
        return load_definitions(Project(root=project.path, home=project.path / "home", files=(file,)))

    yield load_source
    sys.path[:] = path
    for name in sys.modules.keys() - modules:
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(project.path)):
            del sys.modules[name]


@pytest.fixture
def build(load: Callable[[str], hw.Definitions], instance: hw.Instance) -> Build:
    """Builds the assets of a source file in two processes."""

    def build_source(source: str, /, **options: Any) -> RunResult:
        given: dict[str, Any] = {
            "instance": instance,
            "executor": "processes",
            "max_workers": 2,
            "raise_on_error": False,
        }
        return hw.materialize(load(source), **{**given, **options})

    return build_source


def error_of(result: RunResult, key: str) -> ErrorRecord:
    assert result.outcome is not None
    (step,) = (step for step in result.outcome.steps if step.step_key == key)
    assert step.error is not None
    return step.error


def printed(result: RunResult, key: str, stream: str) -> str:
    assert result.outcome is not None and result.run_id is not None
    (step,) = (step for step in result.outcome.steps if step.step_key == key)
    manager = compute_log_manager(result.instance.settings, result.instance.home)
    return b"".join(manager.read_slices(result.run_id, step.logs, stream)).decode()


def files(home: Path) -> list[str]:
    return sorted(str(path.relative_to(home / "data")) for path in (home / "data").rglob("*") if path.is_file())


def gone(process: int) -> bool:
    return not psutil.pid_exists(process) or psutil.Process(process).status() == psutil.STATUS_ZOMBIE


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


CHAIN = """
    import os
    import polars as pl
    from headwater import asset

    def make(number):
        @asset(name=f"a{number}", deps=[f"a{number - 1}"] if number else [])
        def one() -> int:
            return os.getpid()
        return one

    chain = [make(number) for number in range(8)]

    @asset
    def frame() -> pl.DataFrame:
        return pl.DataFrame({"n": [1, 2, 3]})

    @asset
    def total(frame: pl.LazyFrame) -> int:
        return frame.select(pl.col("n").sum()).collect().item()
    """


def test_workers_stay_for_the_next_step(build: Build) -> None:
    result = build(CHAIN)
    assert result.success
    found = {result.asset_value(f"a{number}") for number in range(8)}
    assert len(found) <= 2 and os.getpid() not in found
    assert result.asset_value("total") == 6
    assert all(map(gone, found))


def test_workers_are_replaced_after_some_steps(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "MAX_STEPS", 2)
    result = build(CHAIN, selection="a*", max_workers=1)
    assert [result.asset_value(f"a{number}") for number in range(8)] == sorted(
        [result.asset_value(f"a{number}") for number in range(0, 8, 2)] * 2
    )
    assert len({result.asset_value(f"a{number}") for number in range(8)}) == 4


def test_workers_are_replaced_when_they_hold_much_memory(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "MAX_MEMORY", 1)
    result = build(CHAIN, selection="a*", max_workers=1)
    assert len({result.asset_value(f"a{number}") for number in range(8)}) == 8


DYING = """
    import ctypes, os, signal, sys
    from headwater import asset

    @asset
    def bad() -> int:
        print("last words", file=sys.stderr)
        {death}
        return 1

    @asset
    def reader(bad: int) -> int:
        return bad

    @asset
    def other() -> int:
        return 2

    @asset
    def after(other: int) -> int:
        return other + 1
    """


@pytest.mark.parametrize(
    ("death", "said"),
    [
        ("os._exit(3)", "ended with exit code 3"),
        ("os._exit(0)", "ended with exit code 0"),
        ("ctypes.string_at(0)", "was killed by SIGSEGV"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "was killed by SIGKILL"),
        ("os.abort()", "was killed by SIGABRT"),
        ("os.kill(os.getpid(), signal.SIGTERM); import time; time.sleep(60)", "was killed by SIGTERM"),
    ],
)
@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_that_dies_fails_its_step_alone(build: Build, death: str, said: str, workers: int) -> None:
    result = build(DYING.format(death=death), max_workers=workers)
    assert {cell.asset: cell.status for cell in result.cells} == {
        "bad": FAILURE,
        "reader": SKIPPED,
        "other": SUCCESS,
        "after": SUCCESS,
    }
    assert result.outcome is not None and result.outcome.exit_code == 4
    error = error_of(result, "bad")
    assert error.kind == "E-WORKER" and said in error.message
    if "SIGTERM" not in death:
        assert "last words" in error.message
    assert "last words" in printed(result, "bad", "stderr")


def test_sys_exit_and_exceptions_are_what_they_are_elsewhere(build: Build) -> None:
    result = build(
        """
        import sys
        from headwater import asset, Failure

        @asset
        def leaves():
            sys.exit(3)

        @asset
        def raises():
            raise Failure("no", metadata={"n": 1})
        """
    )
    assert error_of(result, "leaves").message == "SystemExit(3)"
    error = error_of(result, "raises")
    assert (error.message, error.metadata["n"].value) == ("no", 1)
    assert "assets.py" in error.traceback


def test_a_worker_that_dies_is_tried_again(build: Build, tmp_path: Path) -> None:
    result = build(
        """
        import os
        from pathlib import Path
        from headwater import RetryPolicy, asset

        @asset(retry_policy=RetryPolicy(max_retries=2))
        def flaky(context) -> int:
            print("attempt", context.retry_number)
            if context.retry_number < 2:
                os._exit(1)
            return context.retry_number
        """
    )
    assert result.success and result.asset_value("flaky") == 2
    assert printed(result, "flaky", "stdout") == "attempt 0\nattempt 1\nattempt 2\n"


def test_a_worker_that_dies_leaves_nothing(build: Build, instance: hw.Instance) -> None:
    result = build(
        """
        import os
        import polars as pl
        from headwater import AssetOut, Output, multi_asset

        @multi_asset(outs={"one": AssetOut(), "two": AssetOut()})
        def both():
            yield Output(pl.DataFrame({"n": [1]}), "one")
            os._exit(1)
        """
    )
    assert {cell.status for cell in result.cells} == {FAILURE}
    assert files(instance.home) == []


TIMEOUT = """
    import signal, subprocess, time
    from pathlib import Path
    from headwater import asset

    @asset(timeout=0.5)
    def slow() -> int:
        {before}
        process = subprocess.Popen(["sleep", "100"])
        Path({file!r}).write_text(str(process.pid))
        while True:
            time.sleep(1)

    @asset
    def other() -> int:
        return 1
    """


@pytest.mark.parametrize("before", ["pass", "signal.signal(signal.SIGTERM, signal.SIG_IGN)"])
def test_a_time_out(build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str) -> None:
    """A step is asked to stop, and killed if it does not, with what it started."""
    monkeypatch.setattr(processes, "TIMEOUT_GRACE", 0.5)
    file = tmp_path / "process"
    result = build(TIMEOUT.format(before=before, file=str(file)))
    error = error_of(result, "slow")
    assert error.kind == "E-TIMEOUT" and "0.5 s" in error.message
    assert result.outcome is not None and result.outcome.exit_code == 8
    assert result.status_of("other") is SUCCESS
    wait_for(lambda: gone(int(file.read_text())))


def test_a_time_out_lets_a_step_tidy_up(build: Build, tmp_path: Path) -> None:
    result = build(
        f"""
        import time
        from pathlib import Path
        from headwater import asset

        @asset(timeout=0.3)
        def slow() -> int:
            try:
                time.sleep(100)
            finally:
                Path({str(tmp_path / "tidy")!r}).touch()
        """
    )
    assert error_of(result, "slow").kind == "E-TIMEOUT"
    assert (tmp_path / "tidy").exists()


def test_what_is_made_after_the_time_out_does_not_count(build: Build, instance: hw.Instance) -> None:
    result = build(
        """
        import time
        from headwater import asset

        @asset(timeout=0.3)
        def stubborn() -> int:
            try:
                time.sleep(100)
            except BaseException:
                return 1
        """
    )
    assert error_of(result, "stubborn").kind == "E-TIMEOUT"
    assert files(instance.home) == []


def test_a_memory_limit(build: Build) -> None:
    result = build(
        """
        import time
        import numpy as np
        from headwater import asset

        @asset(memory_limit="400 MB")
        def fat() -> int:
            kept = np.ones(100_000_000)
            time.sleep(10)
            return len(kept)

        @asset(memory_limit="400 MB")
        def thin() -> int:
            return len(np.ones(1000))
        """
    )
    error = error_of(result, "fat")
    assert error.kind == "E-MEMORY" and "381 MiB" in error.message
    assert result.status_of("thin") is SUCCESS


def refused(instance: hw.Instance, work: Callable[[], object]) -> str:
    """What is said of a run that is refused, and that leaves no trace."""
    with pytest.raises(UsageError) as caught:
        work()
    assert not instance.catalog.runs()
    return f"{caught.value.message} {caught.value.remedy}"


@pytest.mark.parametrize("executor", ["in_process", "threads"])
@pytest.mark.parametrize(("limit", "name"), [("timeout=3", "time-out"), ("memory_limit='2GiB'", "memory limit")])
def test_limits_that_cannot_be_kept_are_refused(
    build: Build, instance: hw.Instance, executor: str, limit: str, name: str
) -> None:
    source = f"from headwater import asset\n\n@asset({limit})\ndef one() -> int:\n    return 1\n"
    said = refused(instance, lambda: build(source, executor=executor))
    assert f"`one` has a {name}" in said and "--executor processes" in said


def test_values_in_memory_are_refused(build: Build, instance: hw.Instance) -> None:
    source = """
        from headwater import Definitions, InMemoryIOManager, asset

        @asset
        def one() -> int:
            return 1

        definitions = Definitions([one], {"io_manager": InMemoryIOManager()})
        """
    said = refused(instance, lambda: build(source))
    assert "`one` cannot run in another process" in said and "InMemoryIOManager" in said


def test_definitions_of_this_process_alone_are_refused(instance: hw.Instance) -> None:
    @hw.asset
    def here() -> int:
        return 1

    said = refused(instance, lambda: hw.materialize([here], instance=instance, executor="processes"))
    assert "cannot load these definitions" in said and "headwater -f" in said


def test_a_configuration_of_this_process_alone_is_refused(build: Build, instance: hw.Instance) -> None:
    source = """
        from typing import Any
        from headwater import Config, asset

        class Settings(Config):
            value: Any = None

        @asset
        def one(config: Settings) -> int:
            return 1
        """
    config = {"ops": {"one": {"config": {"value": object()}}}}
    assert "cannot be given to another process" in refused(instance, lambda: build(source, run_config=config))


def test_definitions_in_a_module(tmp_path: Path, instance: hw.Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that a script imports and gives to `materialize`."""
    (tmp_path / "shop_definitions.py").write_text(
        "import os\nimport headwater as hw\n\n@hw.asset\ndef one() -> int:\n    return os.getpid()\n\n"
        "shop = hw.Definitions([one], executor='multiprocess')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))  # pyright: ignore[reportUnknownMemberType]
    import shop_definitions  # pyright: ignore[reportMissingImports]

    result = hw.materialize(shop_definitions.shop, instance=instance)  # pyright: ignore
    assert result.success and result.asset_value("one") != os.getpid()
    del sys.modules["shop_definitions"]


SECRET = """
    import os, sys
    from headwater import ConfigurableResource, Definitions, EnvVar, asset

    class Warehouse(ConfigurableResource):
        password: str

    @asset
    def leaks(context, warehouse: Warehouse) -> int:
        print("in Python", warehouse.password)
        os.write(1, b"in C " + warehouse.password.encode() + b"\\n")
        os.system("echo in a child $SHOP_PASSWORD")
        context.log.warning("logged %s", warehouse.password)
        raise ValueError(warehouse.password)

    @asset
    def dies(warehouse: Warehouse) -> int:
        print("at last", warehouse.password, file=sys.stderr)
        os._exit(1)

    definitions = Definitions([leaks, dies], {"warehouse": Warehouse(password=EnvVar("SHOP_PASSWORD"))})
    """


def test_secrets_do_not_appear(build: Build, monkeypatch: pytest.MonkeyPatch, instance: hw.Instance) -> None:
    monkeypatch.setenv("SHOP_PASSWORD", "hunter2hunter2")
    events: list[Event] = []
    result = build(SECRET, listener=events.append)
    assert (
        printed(result, "leaks", "stdout")
        == "in Python **************\nin C **************\nin a child **************\n"
    )
    assert "at last **************" in error_of(result, "dies").message
    assert printed(result, "dies", "stderr") == "at last **************\n"
    assert error_of(result, "leaks").message == "env:SHOP_PASSWORD"
    assert [event.message for event in events if isinstance(event, LogMessage)] == ["logged env:SHOP_PASSWORD"]
    assert "hunter2" not in repr(events)
    for path in (instance.home / "logs").rglob("*"):
        assert path.is_dir() or b"hunter2" not in path.read_bytes()


def test_logged_lines_come_while_the_step_runs(build: Build, tmp_path: Path) -> None:
    seen = tmp_path / "seen"

    def listen(event: Event) -> None:
        if isinstance(event, LogMessage):
            seen.touch()

    result = build(
        f"""
        import time
        from pathlib import Path
        from headwater import asset

        @asset
        def talks(context) -> int:
            context.log.info("hello")
            deadline = time.monotonic() + 20
            while not Path({str(seen)!r}).exists():
                assert time.monotonic() < deadline
                time.sleep(0.01)
            return 1
        """,
        listener=listen,
    )
    assert result.success


RESOURCE = """
    import os
    from contextlib import contextmanager
    from pathlib import Path
    from headwater import ConfigurableResource, Definitions, asset

    class Connection(ConfigurableResource):
        folder: str

        @contextmanager
        def yield_for_execution(self, context):
            Path(self.folder, f"up-{os.getpid()}").touch()
            {up}
            yield self
            Path(self.folder, f"down-{os.getpid()}").touch()
            {down}

    def make(number):
        @asset(name=f"a{number}")
        def one(connection: Connection) -> int:
            return os.getpid()
        return one

    definitions = Definitions([make(number) for number in range(6)], {"connection": Connection(folder=FOLDER)})
    """


def resource(folder: Path, up: str = "pass", down: str = "pass") -> str:
    return RESOURCE.replace("{up}", up).replace("{down}", down).replace("FOLDER", repr(str(folder)))


def test_resources_are_set_up_once_in_each_process(build: Build, tmp_path: Path) -> None:
    result = build(resource(tmp_path))
    used = {result.asset_value(f"a{number}") for number in range(6)}
    assert sorted(path.name for path in tmp_path.glob("up-*")) == sorted(f"up-{process}" for process in used)
    assert len(list(tmp_path.glob("down-*"))) == len(used)
    assert os.getpid() not in used


def test_a_resource_that_cannot_be_set_up(build: Build, tmp_path: Path) -> None:
    result = build(resource(tmp_path, up="raise ValueError('no such host')"))
    assert {cell.status for cell in result.cells} == {FAILURE}
    error = error_of(result, "a0")
    assert error.kind == "E-RESOURCE" and "no such host" in error.message


def test_a_resource_that_cannot_be_torn_down(build: Build, tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="still busy"):
        build(resource(tmp_path, down="raise ValueError('still busy')"))


def test_configuration_from_the_environment(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the environment is when the run begins."""
    source = """
        from headwater import Config, asset

        class Settings(Config):
            top: int
            token: str

        @asset
        def one(config: Settings) -> str:
            return f"{config.top} {len(config.token)}"
        """
    monkeypatch.setenv("SHOP_TOKEN", "abc")
    config = {"ops": {"one": {"config": {"top": 3, "token": hw.EnvVar("SHOP_TOKEN")}}}}
    assert build(source, run_config=config).asset_value("one") == "3 3"


PARTITIONS = """
    import polars as pl
    from headwater import (
        BackfillPolicy, DailyPartitionsDefinition, MultiPartitionsDefinition, Output, StaticPartitionsDefinition, asset,
    )

    days = DailyPartitionsDefinition("2024-03-30", timezone="Europe/Berlin", end_date="2024-04-02")
    both = MultiPartitionsDefinition({"day": days, "shop": StaticPartitionsDefinition(["x", "y"])})

    @asset(partitions_def=days)
    def hours(context) -> float:
        window = context.partition_time_window
        assert window.start.tzinfo.key == "Europe/Berlin"
        return (window.end.timestamp() - window.start.timestamp()) / 3600

    @asset(partitions_def=days, backfill_policy=BackfillPolicy.single_run())
    def several(context, hours: dict[str, float]):
        for key in context.partition_keys:
            if key == "2024-03-31":
                context.add_output_metadata({"short": True}, partition_key=key)
            yield Output(hours[key], partition_key=key)

    @asset(partitions_def=both)
    def shops(context) -> str:
        return context.partition_key.keys_by_dimension["shop"] + str(context.partition_time_window.start.utcoffset())
    """


def test_partitions(build: Build, instance: hw.Instance) -> None:
    result = build(PARTITIONS, all_partitions=True)
    assert result.success, [step.error for step in result.outcome.steps if step.error] if result.outcome else None
    assert [result.asset_value("hours", partition=f"2024-03-{day}") for day in (30, 31)] == [24, 23]
    assert result.asset_value("several", partition="2024-03-31") == 23
    assert result.materialization("several", "2024-03-31").metadata["short"].value is True
    assert result.asset_value("shops", partition="2024-03-30|y") == "y1:00:00"


def test_one_partition_of_several_fails(build: Build) -> None:
    result = build(
        """
        from headwater import BackfillPolicy, Failure, StaticPartitionsDefinition, asset

        @asset(partitions_def=StaticPartitionsDefinition(["a", "b"]), backfill_policy=BackfillPolicy.single_run())
        def some(context):
            return {"a": 1, "b": Failure("no b")}
        """,
        all_partitions=True,
    )
    assert (result.status_of("some", "a"), result.status_of("some", "b")) == (SUCCESS, FAILURE)


def test_records_are_those_of_one_process(build: Build, load: Callable[[str], hw.Definitions]) -> None:
    source = """
        import polars as pl
        from headwater import MaterializeResult, asset

        @asset
        def frame(context) -> pl.DataFrame:
            context.add_output_metadata({"n": 1, "where": None, "list": [1, {"a": 2.5}]})
            return pl.DataFrame({"n": [1, 2, None], "s": ["ä", "b", "c"]})

        @asset
        def counted(frame: pl.DataFrame) -> MaterializeResult:
            return MaterializeResult(value=frame.height, metadata={"rows": frame.height}, tags={"t": "u"})

        @asset
        def nothing() -> None:
            pass
        """
    there = build(source)
    here = hw.materialize(load(source))
    for key in ("frame", "counted", "nothing"):
        one, other = there.materialization(key), here.materialization(key)
        for part in ("fingerprint", "metadata", "tags"):
            assert getattr(one, part) == getattr(other, part)
        assert (one.pointer and one.pointer.columns) == (other.pointer and other.pointer.columns)
        assert one.data_version == other.data_version or key == "nothing"


def test_text_without_a_utf8_form(build: Build) -> None:
    result = build(
        """
        from headwater import asset

        @asset
        def bad(context) -> int:
            context.log.info("caf\\udce9")
            raise ValueError("caf\\udce9")
        """
    )
    assert error_of(result, "bad").message == "caf\\udce9"


def test_code_that_changed_after_it_was_loaded_is_not_run(
    load: Callable[[str], hw.Definitions], project: ProjectFolder, instance: hw.Instance
) -> None:
    """What is recorded of a version says which code made it."""
    definitions = load("from headwater import asset\n\n@asset\ndef one() -> int:\n    return 1\n")
    project.edit("return 1", "return 1 + 1")
    result = hw.materialize(definitions, instance=instance, executor="processes", raise_on_error=False)
    assert error_of(result, "one").kind == "E-CONFLICT"


def test_code_that_cannot_be_loaded_any_more(
    load: Callable[[str], hw.Definitions], project: ProjectFolder, instance: hw.Instance
) -> None:
    definitions = load("from headwater import asset\n\n@asset\ndef one() -> int:\n    return 1\n")
    project.edit("return 1", "return (1, ")  # another size: Python may have kept the compiled file
    with pytest.raises(HeadwaterError, match="SyntaxError"):
        hw.materialize(definitions, instance=instance, executor="processes")


def test_code_that_takes_its_process_along_when_it_is_loaded(build: Build) -> None:
    """Each step fails, and the run comes to its end."""
    result = build(f"import os\nif os.getpid() != {os.getpid()}:\n    os._exit(5)\n" + textless(DYING))
    assert {cell.status for cell in result.cells} == {FAILURE, SKIPPED}
    assert "ended with exit code 5" in error_of(result, "other").message


def textless(source: str) -> str:
    import textwrap

    return textwrap.dedent(source).format(death="pass")


def test_the_process_that_forks_is_killed(build: Build) -> None:
    result = build(
        """
        import os, signal, time
        from headwater import RetryPolicy, asset

        @asset(retry_policy=RetryPolicy(max_retries=1))
        def rude(context) -> int:
            if not context.retry_number:
                os.kill(os.getppid(), signal.SIGKILL)
                time.sleep(60)
            return 1

        @asset
        def later(rude: int) -> int:
            return rude + 1
        """
    )
    assert result.success and result.asset_value("later") == 2


SLEEPY = """
    import os, signal, time
    from pathlib import Path
    from headwater import asset

    @asset
    def sleepy() -> int:
        Path("started").write_text(str(os.getpid()))
        {how}
        time.sleep(60)
        return 1

    @asset
    def never(sleepy: int) -> int:
        return 1
    """


def start(project: ProjectFolder, how: str = "pass") -> tuple[Any, int]:
    project.write(SLEEPY.format(how=how))
    process = project.start("materialize", "--executor", "processes", "--max-workers", "2")
    started = project.path / "started"
    wait_for(lambda: started.exists() and started.read_text() != "")
    return process, int(started.read_text())


@pytest.mark.parametrize("how", ["pass", "signal.signal(signal.SIGTERM, signal.SIG_IGN)"])
def test_a_second_signal_stops_running_steps(project: ProjectFolder, how: str) -> None:
    process, worker = start(project, how)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert process.poll() is None and not gone(worker), "the first one lets it finish"
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 130, said
    assert gone(worker)
    assert "did not stop" not in said
    run = project.json("runs")["runs"][0]
    assert run["status"] == "CANCELED"


def test_the_first_signal_lets_running_steps_finish(project: ProjectFolder) -> None:
    process, _ = start(project, "time.sleep(1); return 1")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 143
    assert {one["key"]: one["status"] for one in project.json("status")["assets"]} == {
        "sleepy": "FRESH",
        "never": "MISSING",
    }


@pytest.mark.faults
def test_no_process_outlives_a_run_that_is_killed(project: ProjectFolder) -> None:
    process, worker = start(project, "os.system('sleep 60 & echo $! > child')")
    below = psutil.Process(process.pid).children(recursive=True)
    assert worker in [one.pid for one in below]
    process.kill()
    process.communicate()
    wait_for(lambda: all(gone(one.pid) for one in below))
    child = project.path / "child"
    wait_for(lambda: not child.exists() or gone(int(child.read_text())))
