"""Which frames a person sees."""

from pathlib import Path
from typing import Any

import polars as pl

from headwater.catalog.errors import StorageError
from headwater.catalog.keys import AssetKey
from headwater.materialize.execution.user_traceback import user_traceback


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
