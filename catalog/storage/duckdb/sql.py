"""SQL lives in .sql files; this reads them.

A query file holds any number of queries. Each starts with a line `-- name: what_it_is_called`, and a comment line
that says what it is for. Its parameters are `$named`. A line that ends in `--if parameter` is part of the query
only when that parameter is given and not None.
"""

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_NAME = re.compile(r"^-- name: *(\w+) *$", re.MULTILINE)
_CONDITION = re.compile(r"--if (\w+)\s*$")
_PARAMETER = re.compile(r"\$(\w+)")


@dataclass(frozen=True, slots=True)
class Query:
    """A query by name. `lines` are its lines, each with the parameter that it depends on, or None."""

    name: str
    purpose: str
    lines: tuple[tuple[str, str | None], ...]

    def bind(self, parameters: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """The text to execute and the parameters that it needs, of those given."""
        kept = [line for line, condition in self.lines if condition is None or parameters.get(condition) is not None]
        text = "\n".join(kept)
        return text, {name: parameters[name] for name in _PARAMETER.findall(text)}


@functools.cache
def queries() -> Mapping[str, Query]:
    """Every query of `queries/*.sql`. Raises `ValueError` for a file that breaks the rules above."""
    found: dict[str, Query] = {}
    for file in sorted((Path(__file__).parent / "queries").glob("*.sql")):
        for query in parse(file.read_text(encoding="utf-8"), file.name):
            if query.name in found:
                raise ValueError(f"{file.name}: there is another query named {query.name}")
            found[query.name] = query
    return found


def parse(text: str, source: str) -> list[Query]:
    """The queries in `text`; `source` names it in errors."""
    before, *parts = _NAME.split(text)
    if any(line and not line.startswith("--") for line in before.splitlines()):
        raise ValueError(f"{source}: SQL before the first name")
    return [_parse_one(name, body, source) for name, body in zip(parts[::2], parts[1::2], strict=True)]


def _parse_one(name: str, body: str, source: str) -> Query:
    first, *rest = body.strip().splitlines()
    if not first.startswith("-- "):
        raise ValueError(f"{source}: query {name} does not say what it is for")
    lines: list[tuple[str, str | None]] = []
    for line in rest:
        condition = _CONDITION.search(line)
        lines.append((line[: condition.start()].rstrip(), condition[1]) if condition else (line, None))
    return Query(name, first[3:], tuple(lines))
