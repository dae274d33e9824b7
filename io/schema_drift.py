"""Whether a frame still has the columns of the version before.

A version made by other code may have any columns. When the code is the same, a change is news: `additive`, the
default, takes new columns and refuses missing and retyped ones; `strict` refuses new ones too; `any` takes all.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from headwater.catalog.errors import SchemaDriftError
from headwater.catalog.printable import printable_line
from headwater.catalog.records import Pointer

SchemaDrift = Literal["strict", "additive", "any"]
POLICIES: tuple[SchemaDrift, ...] = ("strict", "additive", "any")


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaChange:
    """How a frame's columns differ from those of the version before."""

    added: Mapping[str, str]
    removed: Mapping[str, str]
    #: Name to its type before and now.
    retyped: Mapping[str, tuple[str, str]]

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.retyped)

    def __str__(self) -> str:
        parts = [f"+ {name} {kind}" for name, kind in self.added.items()]
        parts += [f"- {name} {kind}" for name, kind in self.removed.items()]
        parts += [f"~ {name} {before} → {now}" for name, (before, now) in self.retyped.items()]
        return ", ".join(parts)

    def to_json(self) -> dict[str, Any]:
        """As plain data, to be kept with the materialization."""
        return {
            "added": dict(self.added),
            "removed": dict(self.removed),
            "retyped": {name: list(types) for name, types in self.retyped.items()},
        }


def compare(previous: Pointer | None, columns: Mapping[str, str]) -> SchemaChange:
    """How columns, names to types as text, differ from those of `previous`; not at all where it has none.

    A column of nothing but nulls has no type of its own, so it fits any.
    """
    before = {column.name: column.type for column in previous.columns} if previous else {}
    if not before:
        return SchemaChange(added={}, removed={}, retyped={})
    return SchemaChange(
        added={name: kind for name, kind in columns.items() if name not in before},
        removed={name: kind for name, kind in before.items() if name not in columns},
        retyped={
            name: (before[name], kind)
            for name, kind in columns.items()
            if name in before and before[name] != kind and "null" not in (before[name], kind)
        },
    )


def enforce(change: SchemaChange, policy: SchemaDrift, owner: str) -> None:
    """Raise `SchemaDriftError` when the policy refuses the change."""
    refused = {
        "any": False,
        "additive": bool(change.removed or change.retyped),
        "strict": bool(change),
    }
    if refused[policy]:
        raise SchemaDriftError(
            f"The columns of {owner} changed though its code did not: {printable_line(str(change), 400)}.",
            remedy="See what changed upstream. If the change is meant, change the asset's code or its code_version, "
            f'or give its IO manager schema_drift="any"; it is "{policy}" now.',
        )
