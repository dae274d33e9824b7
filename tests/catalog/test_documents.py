"""Documents that people write are read within bounds, and what is wrong with one is said."""

from pathlib import Path

import pytest

from headwater.catalog.documents import MAX_DOCUMENT, read_document
from headwater.catalog.errors import UsageError


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("c.json", "[1]", "no mapping"),
        ("c.json", "{", "cannot be parsed"),
        ("c.toml", "=", "cannot be parsed"),
        ("c.yaml", "a: [", "cannot be parsed"),
        ("c.yaml", "a: &x [1]\nb: *x", "aliases"),
        ("c.yml", "#" * (MAX_DOCUMENT + 1), "larger than"),
        ("c.toml", "#" * (MAX_DOCUMENT + 1), "larger than"),
        ("c.yaml", "[" * 65 + "]" * 65, "deeper than 64"),
        ("c.yaml", "{" * 5000, "deeper than 64"),
        ("c.json", "[" * 100_000, "too deep"),
        ("c.toml", "a = " + "[" * 5000, "too deep"),
        ("c.yaml", "!!python/object/apply:os.getcwd []", "cannot be parsed"),
    ],
)
def test_a_document_that_cannot_be_read(tmp_path: Path, name: str, text: str, says: str) -> None:
    if name.endswith(("yaml", "yml")):
        pytest.importorskip("yaml")
    file = tmp_path / name
    file.write_text(text)
    with pytest.raises(UsageError, match=says):
        read_document(file)


def test_a_document_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_document(tmp_path / "c.toml")
