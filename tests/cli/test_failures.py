"""What commands say and leave behind when something is wrong: the right exit code, a remedy, no traceback of ours."""

import ctypes
import json
import os
import re
import resource
import shutil
import signal
import stat
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest

from tests.project import Done, ProjectFolder

pytestmark = pytest.mark.faults

CHAIN = """
import pathlib
import polars as pl
from headwater import asset

HERE = pathlib.Path(__file__).parent

@asset
def raw() -> pl.DataFrame:
    (HERE / "ran").touch()
    return pl.DataFrame({"a": [1, 2, 3]})

@asset
def total(raw: pl.DataFrame) -> int:
    return int(raw["a"].sum())
"""
READING = (["show", "raw"], ["status"], ["why", "raw"], ["runs"], ["events"], ["versions", "raw"], ["sql", "select 1"])


@pytest.fixture
def chain(project: ProjectFolder) -> ProjectFolder:
    project.write(CHAIN)
    return project


@pytest.fixture
def built(chain: ProjectFolder) -> ProjectFolder:
    chain.built()
    (chain.path / "ran").unlink()
    return chain


def limited(project: ProjectFolder, *arguments: str, limit: Callable[[], None], code: int) -> Done:
    """Run a command in a process that `limit` did something to."""
    process = project.start(*arguments, preexec_fn=limit)
    out, err = process.communicate(timeout=120)
    assert process.returncode == code, f"{arguments}: {process.returncode}\n{out}\n{err}"
    assert "/headwater/" not in err and "Traceback" not in err, err
    return Done(process.returncode, out, err)


def without_privilege() -> None:
    """Permission bits hold for root too: CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH and CAP_FOWNER end with exec."""
    if os.geteuid() == 0:
        for capability in (1, 2, 3):
            ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP


def protect(folder: Path, *, folders: int, files: int) -> None:
    for path in (*folder.rglob("*"), folder):
        path.chmod(folders if path.is_dir() else files)


# ---- the catalog


@pytest.mark.parametrize(
    "kind", ["garbage", "cut", "sqlite", "another database", "log of another", "no log", "removed"]
)
def test_a_wrong_catalog_is_refused_by_every_command(built: ProjectFolder, kind: str) -> None:
    home = built.path / ".headwater"
    catalog = home / "catalog.duckdb"
    match kind:
        case "garbage":
            catalog.write_bytes(b"garbage" * 5000)
        case "cut":
            os.truncate(catalog, 9000)
        case "sqlite":
            catalog.write_bytes(b"SQLite format 3\0" + bytes(4080))
        case "another database":
            catalog.unlink()
            with duckdb.connect(str(catalog)) as connection:
                connection.execute("create table t (i int)").fetchall()
            catalog.chmod(0o600)
        case "log of another":
            with duckdb.connect(str(built.path / "other.duckdb")) as connection:
                connection.execute("checkpoint").fetchall()
                connection.execute("create table t (i int)").fetchall()
                shutil.copyfile(built.path / "other.duckdb.wal", home / "catalog.duckdb.wal")
            (home / "catalog.duckdb.wal").chmod(0o600)
        case "removed":
            catalog.unlink()
        case _:
            # As if the log had been lost that held the last commits.
            from headwater.catalog.storage.duckdb.head import HeadFile, read_head

            head = read_head(home / "catalog.head")
            assert head is not None
            file = HeadFile(home / "catalog.head", head.catalog_id)
            file.write(head.seq + 1)
            file.close()
    before = {path.name: path.read_bytes() for path in home.glob("catalog.duckdb*")}
    commands = READING if kind == "cut" else (["status"],)  # all of them open it in the same place
    for command in (*commands, ["materialize", "--force"]):
        done = built.run(*command, code=6)
        assert re.match(r"Error \[E-CATALOG-[A-Z-]+\] .+\n.+", done.err), done.err
        assert "Traceback" not in done.err and not done.out
    assert {path.name: path.read_bytes() for path in home.glob("catalog.duckdb*")} == before
    assert not (built.path / "ran").exists()


def test_the_error_about_data_that_is_gone_says_which_command_makes_it_anew(built: ProjectFolder) -> None:
    """To the catalog it is fresh, so `materialize` alone has nothing to do."""
    (file,) = (built.path / ".headwater" / "data" / "raw").iterdir()
    file.unlink()
    for command, code in ((["materialize", "total", "--force"], 5), (["sql", "select * from raw"], 5)):
        done = built.run(*command, code=code)
        assert f"The data of `raw` (version {file.stem}) is not at " in done.err
    found = re.search("`headwater (materialize .*)`", done.err)
    assert found is not None
    assert built.built(*found[1].split()[1:]) == {"raw": "SUCCESS"}
    assert built.json("sql", "select count(*) as n from raw")["rows"] == [{"n": 3}]


def test_what_holds_the_catalog_is_named(built: ProjectFolder) -> None:
    built.edit('(HERE / "ran").touch()', '(HERE / "ran").touch()\n    import time; time.sleep(60)')
    process = built.start("materialize", "--force")
    try:
        while not (built.path / "ran").exists():
            assert process.poll() is None
        process.send_signal(signal.SIGSTOP)  # it cannot make way for a keeper
        for command in (["status"], ["materialize"]):
            done = built.run("--wait", "0.3", *command, code=7)
            assert f"process {process.pid} on " in done.err and "materialize --force" in done.err
            assert re.search(r"writing since \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", done.err)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert built.statuses()


def test_a_newer_catalog_is_left_alone(built: ProjectFolder) -> None:
    catalog = built.path / ".headwater" / "catalog.duckdb"
    for name, commands in (("min_writer", (["materialize"],)), ("min_reader", (["status"], ["materialize"]))):
        with duckdb.connect(str(catalog)) as connection:
            connection.execute("update meta set value = '99' where name = ?", [name]).fetchall()
            connection.execute("update migration set program = '9.9.9'").fetchall()
        if name == "min_writer":
            assert built.statuses()
        for command in commands:
            done = built.run(*command, code=6)
            assert "E-CATALOG-NEWER" in done.err and "Upgrade Headwater to 9.9.9" in done.err


# ---- disks


def test_reading_a_home_that_may_not_be_written(built: ProjectFolder) -> None:
    home = built.path / ".headwater"
    protect(home, folders=0o500, files=0o400)
    try:
        for command in (*READING, ["sql", "select count(*) from raw"]):
            limited(built, *command, limit=without_privilege, code=0)
        done = limited(built, "materialize", "--force", limit=without_privilege, code=6)
        assert "E-CATALOG-RO" in done.err
        assert not (built.path / "ran").exists(), "user code ran for nothing"
    finally:
        protect(home, folders=0o700, files=0o600)


@pytest.mark.parametrize("folder", ["data", "data/raw", "logs"])
def test_data_that_may_not_be_written_is_known_before_user_code_runs(built: ProjectFolder, folder: str) -> None:
    place = built.path / ".headwater" / folder
    place.mkdir(exist_ok=True)
    protect(place, folders=0o500, files=0o400)
    try:
        done = limited(built, "materialize", "--force", limit=without_privilege, code=5)
        assert "E-STORAGE-RO" in done.err and str(place) in done.err
        assert not (built.path / "ran").exists()
    finally:
        protect(place, folders=0o700, files=0o600)
    assert built.built("--force") == {"raw": "SUCCESS", "total": "SUCCESS"}


def test_a_home_that_may_not_be_made(chain: ProjectFolder) -> None:
    chain.path.chmod(0o500)
    try:
        done = limited(chain, "materialize", limit=without_privilege, code=6)
        assert "E-CATALOG-RO" in done.err
        limited(chain, "status", limit=without_privilege, code=0)
    finally:
        chain.path.chmod(0o700)


def small_files(size: int) -> Callable[[], None]:
    """Files end at `size` bytes: the kernel says EFBIG where a full disk says ENOSPC, at any file and for anybody."""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return limit


def test_a_disk_that_is_full_of_data(built: ProjectFolder) -> None:
    home = built.path / ".headwater"
    before = sorted(path for path in (home / "data").rglob("*") if path.is_file())
    built.edit('{"a": [1, 2, 3]}', "{\"a\": __import__('random').Random(1).sample(range(10**12), 400_000)}")
    # More than the catalog needs, with its reserve; less than 3 MB of random numbers.
    process = built.start("materialize", "--json", preexec_fn=small_files(1_500_000))
    out, err = process.communicate(timeout=120)
    assert process.returncode == 5, out + err
    steps = {step["key"]: step for step in json.loads(out)["steps"]}
    assert steps["raw"]["error"].startswith("E-DISKFULL") and steps["total"]["status"] == "SKIPPED"
    assert built.json("runs")["runs"][0]["status"] == "FAILURE"
    assert sorted(path for path in (home / "data").rglob("*") if path.is_file()) == before, "something was left"
    assert built.json("sql", "select count(*) as n from raw")["rows"] == [{"n": 3}], "the old version is gone"
    assert built.built() == {"raw": "SUCCESS", "total": "SUCCESS"}


# ---- user code


@pytest.mark.parametrize("body", ["sys.exit(3)", "sys.exit(0)", "raise BaseException('no')", "raise GeneratorExit"])
def test_leaving_in_user_code_fails_the_step_alone(project: ProjectFolder, body: str) -> None:
    project.write(f"""
        import sys
        from headwater import asset

        @asset
        def good() -> int:
            return 1

        @asset
        def bad() -> int:
            {body}

        @asset
        def below(bad: int) -> int:
            return bad
        """)
    steps = {step["key"]: step for step in project.json("materialize", code=4)["steps"]}
    assert {key: step["status"] for key, step in steps.items()} == {
        "good": "SUCCESS",
        "bad": "FAILURE",
        "below": "SKIPPED",
    }
    if body == "sys.exit(3)":
        assert steps["bad"]["error"] == "SystemExit: SystemExit(3)"


def test_a_process_that_ends_in_user_code_is_an_interrupted_run(project: ProjectFolder) -> None:
    project.write("""
        import os
        from headwater import asset

        @asset
        def bad() -> int:
            os.abort()
        """)
    project.run("materialize", code=-signal.SIGABRT)
    project.edit("os.abort()", "return 1")
    assert project.built() == {"bad": "SUCCESS"}
    assert [run["status"] for run in project.json("runs")["runs"]] == ["SUCCESS", "INTERRUPTED"]


SECRET = "hunter2/c@nary"
LEAKY = """
import os, sys, subprocess
from headwater import Config, ConfigurableResource, Definitions, EnvVar, asset

class Database(ConfigurableResource):
    password: str

    def setup_for_execution(self, context):
        print("setting up with", self.password)

    def teardown_after_execution(self, context):
        pass

class Settings(Config):
    token: str = EnvVar("OTHER_SECRET")

@asset
def leaky(context, database: Database, config: Settings) -> int:
    print("python", database.password, config.token)
    print("python", repr(database.password), file=sys.stderr, flush=True)
    subprocess.run(["echo", "child", database.password])
    os.write(1, database.password.encode() * 3)
    context.log.warning("logged %s", database.password)
    context.add_output_metadata({"dsn": f"pg://me:{database.password}@host", "nested": {"x": [config.token]}})
    return 1

@asset
def failing(database: Database) -> int:
    try:
        raise ValueError(database.password)
    except ValueError as error:
        raise RuntimeError(f"cannot connect with {database.password}") from error

definitions = Definitions([leaky, failing], resources={"database": Database(password=EnvVar("SECRET"))})
"""


@pytest.mark.parametrize("executor", ["in_process", "threads"])
def test_a_declared_secret_is_nowhere(project: ProjectFolder, executor: str) -> None:
    project.write(LEAKY)
    project.env |= {"SECRET": SECRET, "OTHER_SECRET": "swordfish-7"}
    done = project.run("materialize", "--executor", executor, code=4)
    run_id = project.json("runs")["runs"][0]["run_id"]
    shown = project.run("run", "show", run_id)
    assert "cannot connect with env:SECRET" in done.err and "cannot connect with env:SECRET" in shown.out + shown.err
    logs = project.run("logs", run_id)
    assert "python *" in logs.out
    said = [done.out, done.err, shown.out, shown.err, logs.out, logs.err, project.run("events").out]
    kept = [path.read_bytes() for path in (project.path / ".headwater").rglob("*") if path.is_file()]
    for secret in (SECRET, "swordfish-7"):
        assert not [text for text in said if secret in text]
        assert not [data for data in kept if secret.encode() in data]


@pytest.mark.parametrize("moment", ["setup", "teardown"])
def test_a_resource_that_fails_is_the_users_error(project: ProjectFolder, moment: str) -> None:
    project.write(LEAKY.replace("        pass", f'        raise OSError("no " + self.password)  # {moment}'))
    project.env |= {"SECRET": SECRET, "OTHER_SECRET": "swordfish-7"}
    if moment == "setup":
        project.edit('print("setting up with", self.password)', 'raise OSError("no " + self.password)')
    done = project.run("materialize", "leaky", code=4)
    assert "The resource `database` could not be" in done.err and "OSError: no env:SECRET" in done.err
    assert "headwater/" not in done.err and SECRET not in done.err
    assert project.json("runs")["runs"][0]["status"] == "FAILURE"


def test_everything_in_a_home_is_private(built: ProjectFolder) -> None:
    built.edit("return int(", "print(1)\n    return int(")
    mask = os.umask(0)
    try:
        built.run("--home", "open/home", "materialize")
        built.run("--home", "open/home", "ls")
    finally:
        os.umask(mask)
    home = built.path / "open" / "home"
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (home, *home.rglob("*"))}
    assert {path.suffix for path in modes} >= {".parquet", ".json", ".duckdb"} and (home / "logs").is_dir()
    wrong = {str(path): oct(mode) for path, mode in modes.items() if mode != (0o700 if path.is_dir() else 0o600)}
    assert not wrong


# ---- definitions


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("@asset\ndef x(): ...\n@asset(name='x')\ndef y(): ...", ["E-DUPLICATE", "assets.py:2", "assets.py:4"]),
        ("@asset\ndef a(b): ...\n@asset\ndef b(a): ...", ["E-CYCLE", "assets.py:2", "assets.py:4", "`a` → `b` → `a`"]),
        ("@asset\ndef a(nope): ...", ["E-UNKNOWN-DEPENDENCY", "assets.py:2", "`nope`"]),
        ("@asset(required_resource_keys={'db'})\ndef a(): ...", ["E-MISSING-RESOURCE", "assets.py:2", "`db`"]),
        ("@asset(name='a\\nb')\ndef a(): ...", ["E-KEY"]),
        ("@asset(name='')\ndef a(): ...", ["E-KEY"]),
        ("@asset(name='x' * 600)\ndef a(): ...", ["E-KEY"]),
        ("def x(:", ["E-DEFINITION", "assets.py", "SyntaxError"]),
        ("import sys; sys.exit(3)", ["E-DEFINITION", "SystemExit: 3"]),
    ],
)
def test_definitions_that_do_not_hold_together(project: ProjectFolder, source: str, said: list[str]) -> None:
    project.write(f"from headwater import asset\n{source}\n")
    for command in (["ls"], ["materialize"]):
        done = project.run(*command, code=3)
        assert not [text for text in said if text not in done.err], done.err
        assert "site-packages" not in done.err and "/headwater/" not in done.err
    assert not (project.path / ".headwater" / "catalog.duckdb").exists() or project.json("runs", code=None)
