"""What steps print is seen while they do, by other processes, whatever becomes of the files and of the run."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.project import ProjectFolder

CANARY = "canary-7f31-do-not-tell"
#: Those that differ in who prints.
EXECUTORS = ("in_process", "processes")

#: Prints a line, waits for a file, prints another.
SLOW = """
    import os, time
    from pathlib import Path
    from headwater import asset

    def wait(name):
        until = time.monotonic() + 60
        while not Path(name).exists():
            assert time.monotonic() < until
            time.sleep(0.02)

    @asset
    def first() -> int:
        print("first says hello")
        return 1

    @asset
    def slow(first: int) -> int:
        print("slow begins")
        os.system("echo from a child")
        wait("go")
        print("slow ends")
        return 2
    """


def until(what: Callable[[], object], seconds: float = 60) -> None:
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


def run_folder(project: ProjectFolder) -> Path:
    """The log folder of the only run, once there is one."""
    logs = project.path / ".headwater" / "logs"
    until(lambda: logs.is_dir() and any(logs.iterdir()))
    (folder,) = logs.iterdir()
    return folder


class Follower:
    """A process that follows, and what it has printed."""

    def __init__(self, project: ProjectFolder, *arguments: str) -> None:
        self._out = project.path / "followed.txt"
        with self._out.open("wb") as out:
            self.process = project.start("logs", *arguments, "--follow", stdout=out, stderr=subprocess.STDOUT)

    @property
    def text(self) -> str:
        return self._out.read_text("utf-8")

    def end(self) -> str:
        """All that it printed, once it ends by itself."""
        assert self.process.wait(60) == 0, self.text
        return self.text


@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_running_step_is_followed_until_the_run_is_over(project: ProjectFolder, executor: str) -> None:
    project.write(SLOW)
    running = project.start("materialize", "--json", "--executor", executor)
    folder = run_folder(project)
    follower = Follower(project, folder.name)
    until(lambda: "from a child" in follower.text)
    only = project.run("logs", folder.name[:13])  # what is there, while the run holds the catalog
    assert "first says hello" in only.out
    assert "slow ends" not in follower.text
    found = project.json("logs", folder.name)
    assert {step["key"]: step["stdout"] for step in found["steps"]}["first"] == "first says hello\n"
    (project.path / "go").touch()
    text = follower.end()
    running.communicate(timeout=60)
    assert running.returncode == 0
    assert text == ("── first stdout ──\nfirst says hello\n── slow stdout ──\nslow begins\nfrom a child\nslow ends\n")
    assert project.run("logs", folder.name, "--follow").out == text  # of a run that is over, all and at once
    assert project.run("logs", folder.name, "slow", "--follow").out.startswith("── slow stdout ──\nslow begins\n")
    line = json.loads(project.run("logs", folder.name, "first", "--follow", "--json").out)
    assert line == {"step": "first", "attempt": 1, "stream": "stdout", "text": "first says hello\n"}


def test_following_goes_on_when_a_worker_dies_or_leaves(project: ProjectFolder) -> None:
    project.write(
        SLOW
        + """
    @asset
    def dies() -> int:
        print("dies at once", flush=True)
        os._exit(3)
    """
    )
    running = project.start("materialize", "--executor", "processes", "--max-workers", "2")
    folder = run_folder(project)
    follower = Follower(project, folder.name)
    until(lambda: "dies at once" in follower.text and "slow begins" in follower.text)
    until(lambda: '"step": "dies", "attempt": 1, "file": "worker-' in (folder / "steps.jsonl").read_text())
    assert follower.process.poll() is None
    (project.path / "go").touch()
    running.communicate(timeout=60)
    assert running.returncode == 4
    assert "slow ends" in follower.end()
    assert (folder / "steps.jsonl").read_text().count("over") == 1
    steps = {one["key"]: one["stdout"] for one in project.json("logs", folder.name)["steps"]}
    assert steps["dies"] == "dies at once\n"


@pytest.mark.parametrize("executor", EXECUTORS)
def test_following_ends_with_a_run_that_is_killed(project: ProjectFolder, executor: str) -> None:
    project.write(SLOW)
    running = project.start("materialize", "--executor", executor)
    folder = run_folder(project)
    follower = Follower(project, folder.name)
    until(lambda: "slow begins" in follower.text)
    running.send_signal(signal.SIGKILL)
    running.communicate()
    assert "slow begins" in follower.end()


def test_files_that_go_and_come_while_they_are_followed(project: ProjectFolder) -> None:
    project.write(SLOW)
    running = project.start("materialize")
    folder = run_folder(project)
    follower = Follower(project, folder.name)
    until(lambda: "from a child" in follower.text)
    (folder / "stdout").rename(folder / "stdout.1")  # it is written on
    (folder / "stdout").write_text("another file\n")
    until(lambda: "another file" in follower.text)
    assert "── stdout was rotated ──" in follower.text
    (folder / "stdout").unlink()
    until(lambda: "── stdout was deleted ──" in follower.text)
    (project.path / "go").touch()
    running.communicate(timeout=60)
    follower.end()


@pytest.mark.parametrize("executor", EXECUTORS)
def test_no_secret_is_seen_by_a_follower_or_left_by_a_kill(project: ProjectFolder, executor: str) -> None:
    project.env["TOKEN"] = CANARY
    project.env["LOG_PASSWORD"] = f"{CANARY}-settings"
    project.write(
        """
        import os, time
        from headwater import ConfigurableResource, Definitions, EnvVar, asset

        class Client(ConfigurableResource):
            token: str

        @asset
        def talkative(client: Client) -> int:
            for _ in range(10_000):
                print("token", client.token, "and", os.environ["LOG_PASSWORD"], flush=True)
                time.sleep(0.01)
            return 1

        definitions = Definitions([talkative], resources={"client": Client(token=EnvVar("TOKEN"))})
        """
    )
    settings = "storage: {postgres: {postgres_db: {password: {env: LOG_PASSWORD}}}}"
    project.write(settings, ".headwater/instance.yaml")
    running = project.start("materialize", "--executor", executor)
    folder = run_folder(project)
    follower = Follower(project, folder.name)
    until(lambda: follower.text.count("token ***") > 50 or CANARY in follower.text)
    assert CANARY not in follower.text
    running.send_signal(signal.SIGINT)
    running.send_signal(signal.SIGINT)
    running.communicate(timeout=60)
    assert CANARY not in follower.end()
    assert_nowhere(project.path / ".headwater", CANARY)


def assert_nowhere(folder: Path, text: str) -> None:
    """No file below a folder holds a text."""
    holding = [file for file in folder.rglob("*") if file.is_file() and text.encode() in file.read_bytes()]
    assert holding == []


@pytest.mark.parametrize("executor", EXECUTORS)
def test_settings_secrets_reach_no_output(project: ProjectFolder, executor: str) -> None:
    project.env["LOG_PASSWORD"] = CANARY
    project.write(
        """
        import logging, os
        from headwater import AssetExecutionContext, MaterializeResult, asset

        @asset
        def leaky(context: AssetExecutionContext) -> MaterializeResult:
            secret = os.environ["LOG_PASSWORD"]
            context.log.warning("logged %s", secret)
            logging.getLogger("my.library").error("by a library: %s", secret)
            os.system("echo $LOG_PASSWORD; echo literal-secret-41")
            return MaterializeResult(metadata={"dsn": f"postgres://u:{secret}@h"}, value=1)

        @asset
        def broken() -> int:
            raise ValueError("cannot connect with " + os.environ["LOG_PASSWORD"])
        """
    )
    project.write(
        """
        python_logs:
          managed_python_loggers: [my.library]
          dagster_handler_config:
            handlers: {mine: {class: logging.FileHandler, filename: handled.txt, level: ERROR}}
        storage:
          postgres:
            postgres_db: {username: u, password: {env: LOG_PASSWORD}, params: {old: {password: literal-secret-41}}}
        """,
        ".headwater/instance.yaml",
    )
    done = project.run("materialize", "--executor", executor, code=4)
    run = project.json("runs")["runs"][0]["run_id"]
    told = [done, project.run("logs", run), project.run("events", run), project.run("run", "show", run)]
    told += [project.run("instance", "show"), project.run("instance", "show", "--json")]
    assert CANARY not in "".join(one.out + one.err for one in told)
    assert "literal-secret" not in "".join(one.out + one.err for one in told)
    assert "by a library: env:LOG_PASSWORD" in told[1].out
    assert (project.path / "handled.txt").read_text() == "by a library: env:LOG_PASSWORD\n"
    assert_nowhere(project.path / ".headwater" / "logs", "literal-secret")
    assert_nowhere(project.path, CANARY)


@pytest.mark.parametrize("executor", ["in_process", "threads", "processes"])
def test_output_that_is_not_kept(project: ProjectFolder, executor: str) -> None:
    project.write(SLOW)
    project.write("compute_logs: {class: NoOpComputeLogManager}", ".headwater/instance.yaml")
    (project.path / "go").touch()
    done = project.run("materialize", "--json", "--executor", executor)
    assert [step["status"] for step in done.json["steps"]] == ["SUCCESS", "SUCCESS"]
    assert "hello" not in done.err and not (project.path / ".headwater" / "logs").exists()
    assert project.run("logs", done.json["run_id"]).err == "Nothing was printed.\n"
    assert project.run("logs", done.json["run_id"], "--follow").err == "Nothing was printed.\n"


def test_artifacts_lie_where_the_settings_say(project: ProjectFolder) -> None:
    project.write(SLOW)
    project.write(
        "local_artifact_storage: {class: LocalArtifactStorage, config: {base_dir: {env: ARTIFACTS}}}",
        ".headwater/instance.yaml",
    )
    (project.path / "go").touch()
    assert "ARTIFACTS is not set" in project.run("materialize", code=2).err
    project.env["ARTIFACTS"] = str(project.path / "elsewhere")
    project.built()
    assert sorted(os.listdir(project.path / "elsewhere")) == ["data", "logs"]
    assert not {"data", "logs"} & set(os.listdir(project.path / ".headwater"))
    assert project.statuses() == {"first": "FRESH", "slow": "FRESH"}
    run = project.json("runs")["runs"][0]["run_id"]
    assert "slow ends" in project.run("logs", run).out
    shown = project.json("instance", "show")
    assert shown["settings"]["local_artifact_storage"]["base_dir"] == "env:ARTIFACTS"
    assert shown["sources"] == {"local_artifact_storage.base_dir": "local_artifact_storage:config:base_dir"}


def test_what_was_built_before_artifacts_moved_stays_readable(project: ProjectFolder) -> None:
    project.write(SLOW)
    (project.path / "go").touch()
    project.built()
    project.write(
        "local_artifact_storage: {class: LocalArtifactStorage, config: {base_dir: elsewhere}}",
        ".headwater/instance.yaml",
    )
    assert project.statuses() == {"first": "FRESH", "slow": "FRESH"}
    assert project.built("slow", "--force") == {"slow": "SUCCESS"}
    assert (project.path / ".headwater" / "elsewhere" / "data" / "slow").is_dir()


def test_a_catalog_elsewhere(project: ProjectFolder) -> None:
    project.write(SLOW)
    (project.path / "go").touch()
    project.write("storage: {sqlite: {base_dir: ../catalog}}", ".headwater/instance.yaml")
    project.built()
    assert (project.path / "catalog" / "catalog.duckdb").exists()
    assert not (project.path / ".headwater" / "catalog.duckdb").exists()
    assert project.statuses() == {"first": "FRESH", "slow": "FRESH"}


def test_settings_that_make_no_sense_stop_a_run_before_it_begins(project: ProjectFolder) -> None:
    project.write(SLOW)
    project.write("run_monitoring: {poll_interval: 3}", ".headwater/instance.yaml")
    for command in (["instance", "show"], ["materialize"], ["runs"]):
        done = project.run(*command, code=2)
        assert "[E-CONFIG]" in done.err and "run_monitoring:poll_interval: there is no such key" in done.err
        assert "Did you mean `run_monitoring:poll_interval_seconds`?" in done.err
