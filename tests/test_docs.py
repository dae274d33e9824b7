"""The pages say what is so: their examples run, and their links lead somewhere."""

import re
from pathlib import Path

import pytest

from tests.project import ProjectFolder

ROOT = Path(__file__).parent.parent
PAGES = [
    *ROOT.glob("*.md"),
    *(ROOT / "docs").rglob("*.md"),
    *(ROOT / "sample_data").rglob("*.md"),
]
EXAMPLES = [
    pytest.param(code, id=f"{page}-{number}")
    for page in ("README.md", "docs/guide.md")
    for number, code in enumerate(re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text("utf-8"), re.M | re.S))
]


@pytest.mark.parametrize("code", EXAMPLES)
def test_an_example_builds_once(code: str, project: ProjectFolder) -> None:
    project.env["SHOP_TOKEN"] = "secret"
    (project.path / "orders.csv").write_text("month,amount\n2026-01,5\n2026-02,7\n", "utf-8")
    project.write(code)
    assert set(project.built("--all-partitions").values()) <= {"SUCCESS", "SKIPPED"}
    assert project.built("--all-partitions") == {}, "a second time, nothing is to be done"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text("utf-8")):
        assert target.startswith("https://") or (page.parent / target).exists(), target
