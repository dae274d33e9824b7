"""Which frames a person sees."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl

from headwater.catalog.errors import StorageError, UnstorableValueError
from headwater.catalog.keys import AssetKey
from headwater.io.base import OutputContext
from headwater.io.engines import arrow, pandas
from headwater.io.file_manager import FileIOManager
from headwater.materialize.execution.user_traceback import user_frames, user_traceback


def caught(call: Any) -> BaseException:
    try:
        call()
    except BaseException as error:
        return error
    raise AssertionError("it should have raised")


def users_function(source: str, file: str) -> Any:
    namespace: dict[str, Any] = {"AssetKey": AssetKey}
    exec(compile(source, file, "exec"), namespace)
    return namespace["make"]


def test_the_users_own_code_is_shown_wherever_it_lies() -> None:
    """Also beside our packages, as the sample project does in a checkout, and in a folder called nearly the same."""
    root = Path(__file__).resolve().parents[3]
    for file in (root / "sample_data" / "flights" / "x.py", root.with_name(f"{root.name}-shop") / "x.py"):
        error = caught(users_function("def make():\n    raise KeyError('mine')\n", str(file)))
        assert str(file) in user_traceback(error)


def test_an_error_of_ours_shows_only_the_users_code() -> None:
    error = caught(users_function("def make():\n    return AssetKey('')\n", "/srv/project/assets.py"))
    assert user_traceback(error).count('File "/srv/project/assets.py", line 2') == 1
    # From our code alone, or by way of an installed library: nothing to see.
    ours = StorageError("damaged")
    assert user_traceback(ours) == ""
    ours.__cause__ = caught(lambda: pl.DataFrame({"a": [1]}).select("b"))
    ours.__cause__.__traceback__ = without_this_file(ours.__cause__.__traceback__)
    assert "polars" in user_traceback(ours.__cause__)
    assert user_traceback(ours) == ""


def test_a_refusal_is_no_traceback_whatever_library_noticed(tmp_path: Path) -> None:
    """Frames of compiled libraries name no folder, as in pyarrow/array.pxi."""
    manager = FileIOManager(tmp_path)
    context = OutputContext(asset_key=AssetKey("a"), version_id="v", run_id="r", step_key="a")
    for value in (pandas().DataFrame({"a": [Decimal("NaN")]}), pandas().DataFrame({"a": [2**70]}), pl.Series([1])):
        error = caught(lambda value=value: manager.stage(context, value))
        error.__traceback__ = without_this_file(error.__traceback__)
        assert isinstance(error, UnstorableValueError) and error.__cause__ is not None
        assert user_traceback(error) == ""
    arrow_error = caught(lambda: arrow().array([1, "x"]))
    assert "pyarrow" in user_traceback(arrow_error)


def test_where_in_user_code_an_error_comes_from() -> None:
    error = caught(users_function("def make():\n    return AssetKey('')\n", "/srv/project/assets.py"))
    error.__traceback__ = without_this_file(error.__traceback__)
    assert user_frames(error).strip() == 'File "/srv/project/assets.py", line 2, in make'
    assert user_frames(StorageError("damaged")) == ""


def test_an_exception_that_cannot_be_printed() -> None:
    class Broken(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    def fail() -> None:
        raise Broken

    assert "Broken" in user_traceback(caught(fail))


def without_this_file(trace: Any) -> Any:
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    return trace
