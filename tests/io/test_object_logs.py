"""Compute logs in an object store: what is there while a step prints, when it is over, and when nothing answers."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from headwater.catalog.records import LogSlice
from headwater.catalog.settings_file import load_settings
from headwater.io.compute_logs import ComputeLogManager, compute_log_manager
from headwater.io.object_logs import ObjectComputeLogManager
from tests.project import ProjectFolder
from tests.s3_server import Bucket

CANARY = b"canary-in-a-log"


def manager(bucket: Bucket, folder: Path, interval: float = 0.1) -> ObjectComputeLogManager:
    return ObjectComputeLogManager(f"s3://{bucket.name}/logs", bucket.options, folder, upload_interval=interval)


def until(what: Callable[[], object]) -> None:
    end = time.monotonic() + 30
    while not what():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


def read(logs: ComputeLogManager, slices: list[LogSlice], stream: str = "stdout") -> tuple[bytes, bytes]:
    """What steps wrote, and what none did."""
    return b"".join(logs.read_slices("run", slices, stream)), b"".join(logs.read_rest("run", slices, stream))


def test_output_goes_up_while_it_grows_and_when_it_is_over(bucket: Bucket, tmp_path: Path) -> None:
    here, elsewhere = manager(bucket, tmp_path / "here"), manager(bucket, tmp_path / "elsewhere")
    folder = here.folder("run")
    folder.mkdir(parents=True)
    keeper = here.keeper("run", lambda data: data.replace(CANARY, b"*" * len(CANARY)))
    out = folder / "stdout"
    out.write_bytes(b"set up\nstep one " + CANARY)
    until(lambda: "logs/run/stdout/running" in set(bucket.keys()))
    assert read(elsewhere, []) == (b"", b"set up\nstep one " + b"*" * len(CANARY))
    one = LogSlice(stream="stdout", file="stdout", offset=7, size=9 + len(CANARY))
    keeper.keep([one])
    until(lambda: {"logs/run/stdout/7"} == set(bucket.keys()))  # without `running`
    with out.open("ab") as file:
        file.write(b"step two")
    two = LogSlice(stream="stdout", file="stdout", offset=one.offset + one.size, size=8)
    until(lambda: "logs/run/stdout/running" in set(bucket.keys()))
    keeper.keep([two, LogSlice(stream="stderr", file="stderr", offset=0, size=0)])
    assert keeper.close() is None
    assert set(bucket.keys()) == {"logs/run/stdout/7", f"logs/run/stdout/{two.offset}", "logs/run/stdout/rest"}
    assert not folder.exists()
    for logs in (here, elsewhere):
        assert read(logs, [one, two]) == (b"step one " + b"*" * len(CANARY) + b"step two", b"set up\n")
        assert read(logs, [one, two], "stderr") == (b"", b"")


def test_a_store_that_does_not_answer_harms_nobody(bucket: Bucket, tmp_path: Path) -> None:
    options = {**bucket.options, "endpoint_url": "http://127.0.0.1:1", "max_retries": "0"}
    logs = ObjectComputeLogManager("s3://nowhere/logs", options, tmp_path, upload_interval=0.05)
    folder = logs.folder("run")
    folder.mkdir()
    (folder / "stdout").write_bytes(b"kept")
    keeper = logs.keeper("run", lambda data: data)
    one = LogSlice(stream="stdout", file="stdout", offset=0, size=4)
    began = time.monotonic()
    for _ in range(100):
        keeper.keep([one])
    assert time.monotonic() - began < 1, "nothing waits for a network"
    problem = keeper.close()
    assert problem is not None and str(folder) in problem and "canary" not in problem
    assert b"".join(logs.read_slices("run", [one], "stdout")) == b"kept"
    assert "headwater-log-uploads" not in [thread.name for thread in threading.enumerate()]


@pytest.mark.parametrize(("executor", "file"), [("in_process", ""), ("processes", "worker-1.")])
def test_a_run_whose_logs_are_in_a_bucket(bucket: Bucket, project: ProjectFolder, executor: str, file: str) -> None:
    project.env["LOGS_SECRET"] = bucket.options["aws_secret_access_key"]
    project.write(
        """
        import os
        from headwater import asset

        @asset
        def one() -> int:
            print("one says", os.environ["LOGS_SECRET"])
            return 1

        @asset
        def two(one: int) -> int:
            os.system("echo two says hello >&2")
            return 2
        """
    )
    project.write(
        f"""
        compute_logs:
          module: dagster_obstore.s3.compute_log_manager
          class: S3ComputeLogManager
          config:
            access_key_id: {bucket.options["aws_access_key_id"]}
            secret_access_key: {{env: LOGS_SECRET}}
            allow_http: true
            allow_invalid_certificates: true
            bucket: {bucket.name}
            endpoint: {bucket.endpoint}
            prefix: compute-log
            region: us-east-1
        """,
        ".headwater/instance.yaml",
    )
    run = project.json("materialize", "--executor", executor)["run_id"]
    assert sorted(bucket.keys()) == [f"compute-log/{run}/{file}{stream}/0" for stream in ("stderr", "stdout")]
    assert list((project.path / ".headwater" / "logs").iterdir()) == []
    found = {step["key"]: step for step in project.json("logs", run)["steps"]}
    assert found["one"]["stdout"] == f"one says {'*' * len(project.env['LOGS_SECRET'])}\n"
    assert found["two"]["stderr"] == "two says hello\n"
    assert "two says hello" in project.run("logs", run, "--follow").out
    home = project.path / ".headwater"
    secret = project.env["LOGS_SECRET"].encode()
    assert [file for file in home.rglob("*") if file.is_file() and secret in file.read_bytes()] == []
    shown = project.run("instance", "show")
    assert "env:LOGS_SECRET" in shown.out and project.env["LOGS_SECRET"] not in shown.out + shown.err


def test_a_run_is_done_though_its_logs_cannot_go_up(project: ProjectFolder) -> None:
    project.write("from headwater import asset\n\n@asset\ndef one() -> int:\n    print('hello')\n    return 1\n")
    project.write(
        """
        compute_logs:
          class: S3ComputeLogManager
          config: {bucket: b, endpoint: "http://127.0.0.1:1", access_key_id: a, secret_access_key: {env: KEY}}
        """,
        ".headwater/instance.yaml",
    )
    project.env["KEY"] = "canary-key-9"
    run = project.json("materialize")["run_id"]
    told = project.run("logs", run).out
    assert "could not be uploaded" in told and "hello" in told and "canary" not in told


def test_a_class_of_the_users(project: ProjectFolder, tmp_path: Path) -> None:
    project.write("from headwater import asset\n\n@asset\ndef one() -> int:\n    print('hello')\n    return 1\n")
    project.write(
        """
        from headwater.io.compute_logs import LocalComputeLogManager

        class Mine(LocalComputeLogManager):
            def __init__(self, where: str) -> None:
                super().__init__(where)
        """,
        "my_logs.py",
    )
    project.write(
        f"compute_logs: {{module: my_logs, class: Mine, config: {{where: '{tmp_path}/mine'}}}}",
        ".headwater/instance.yaml",
    )
    project.env["PYTHONPATH"] = str(project.path)
    run = project.json("materialize")["run_id"]
    assert (tmp_path / "mine" / run / "stdout").read_text() == "hello\n"
    assert "hello" in project.run("logs", run).out
    project.edit("class Mine(LocalComputeLogManager)", "class Yours(LocalComputeLogManager)", "my_logs.py")
    assert "my_logs.Mine cannot be imported" in project.run("logs", run, code=2).err


def test_settings_choose(tmp_path: Path) -> None:
    (tmp_path / "instance.yaml").write_text("compute_logs: {class: LocalComputeLogManager, config: {base_dir: l}}")
    assert compute_log_manager(load_settings(tmp_path), tmp_path).folder("run") == tmp_path / "l" / "run"
