"""The tree of a condition with where each part is true, as plain JSON data: for the log, and for whoever asks why."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headwater.materialize.automation.conditions.evaluator import Part


def tree_to_json(part: "Part", asset: object = None) -> dict[str, Any]:
    """What is written: of a part, the asset only where that is another one than its whole's; how it is written only
    where it is not made of others.
    """
    found: dict[str, Any] = {"name": part.condition.name}
    if not part.operands:
        found["condition"] = part.condition.text
    if part.condition.label is not None:
        found["label"] = part.condition.label
    if part.asset != asset:
        found["asset"] = str(part.asset)
    total = part.true.partitions.count
    found |= {"true": len(part.true), "of": total}
    if 0 < len(part.true) < total:
        found["partitions"] = part.true.to_json()
    if part.operands:
        found["operands"] = [tree_to_json(one, part.asset) for one in part.operands]
    return found
