import os
from pathlib import Path

import pytest

from headwater.catalog.definitions.source import SourceLocation


def test_a_place_is_shown_from_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = SourceLocation(str(tmp_path / "project" / "assets.py"), 7)
    monkeypatch.chdir(tmp_path)
    assert str(place) == os.path.join("project", "assets.py") + ":7"
    monkeypatch.chdir("/")
    assert str(SourceLocation("<stdin>", 1)) == "<stdin>:1"


def test_a_place_can_be_shown_where_the_current_folder_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert str(SourceLocation("/x/assets.py", 3)) == "/x/assets.py:3"


def test_the_caller_is_the_nearest_line_that_is_not_ours() -> None:
    here = SourceLocation.of_caller()
    assert here.file == __file__
    assert here.line == test_the_caller_is_the_nearest_line_that_is_not_ours.__code__.co_firstlineno + 1
