"""Several partitions as what a parameter's annotation asks for: a dict of them, or one frame."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from headwater.catalog.errors import UserCodeError
from headwater.catalog.printable import printable_line, with_article
from headwater.catalog.records import Pointer
from headwater.io.base import IOManager, PartitionsInputContext, StoredPartition
from headwater.io.pointers import Owner, stored_form
from headwater.io.representation import (
    Representation,
    class_name,
    mapping_of,
    of_annotation,
    of_name,
    of_value,
    says_nothing,
)


def load_partitions(manager: IOManager, context: PartitionsInputContext) -> Any:
    """What `IOManager.load_partitions` promises, by `load_input` and `load_united` of the manager."""
    mapping = mapping_of(context.annotation)
    if mapping is not None:
        return _load_each(manager, context, mapping.element)
    if not context.partitions:
        return None
    wanted = of_annotation(context.annotation).representation
    if wanted.is_frame:
        return manager.load_united(context, wanted)
    if not says_nothing(context.annotation):
        raise UserCodeError(
            f"A parameter takes {len(context.partitions):,} partitions of `{context.asset_key}`, and is annotated "
            f"'{printable_line(_text_of(context.annotation), 120)}'.",
            remedy="Annotate it dict[str, T], which is partition key → value, or as a frame, which is all of them.",
        )
    if all(_holds_frame(partition.pointer) for partition in context.partitions):
        return manager.load_united(context, stored_form(context.partitions[0].pointer))
    return _load_each(manager, context, None)


def load_united(manager: IOManager, context: PartitionsInputContext, representation: Representation) -> Any:
    """One frame of several partitions that are loaded one by one; None where each is None, and may be."""
    from headwater.io.frames import from_arrow
    from headwater.io.united_frames import Piece, unite

    optional = of_annotation(context.annotation).optional
    lacking = any(_known_columns(context, partition) != context.columns for partition in context.partitions)
    form = Representation.ARROW if lacking else representation
    pieces: list[Piece] = []
    for i, partition in enumerate(context.partitions):
        one = context.of_partition(partition, context.annotation)
        value = manager.load_input(replace(one, columns=_known_columns(context, partition)))
        if value is None and optional:
            continue
        owner = owner_of_partition(context, partition)
        if not of_value(value).is_frame:
            raise UserCodeError(
                f"{owner} holds {with_article(class_name(value))}, and a {representation} is asked for.",
                remedy="Annotate the parameter dict[str, T], with what the asset returns for T.",
            )
        frame = value if of_value(value) is form else from_arrow(value, form)
        pieces.append(Piece(frame=frame, owner=owner, added=added_texts(context.partition_columns, i)))
    if not pieces:
        return None
    whole = unite(pieces, form)
    return _with_order(whole, context, representation) if lacking else whole


def _known_columns(context: PartitionsInputContext, partition: StoredPartition) -> tuple[str, ...] | None:
    """The wanted columns that a partition has, at least one, as far as it is known which it has."""
    known = [column.name for column in partition.pointer.columns]
    if context.columns is None or not known or set(context.columns) <= set(known):
        return context.columns
    return tuple(name for name in context.columns if name in known) or (known[0],)


def _with_order(table: Any, context: PartitionsInputContext, representation: Representation) -> Any:
    from headwater.io.frames import from_arrow, selected

    names = selected(f"The data of `{context.asset_key}`", table.column_names, context.columns) or []
    return from_arrow(table.select([*names, *context.partition_columns]), representation)


def owner_of_partition(context: PartitionsInputContext, partition: StoredPartition) -> Owner:
    """A partition as errors name it."""
    return Owner(context.asset_key, partition.partition_key, partition.version_id)


def added_texts(columns: Mapping[str, Any], i: int) -> dict[str, str]:
    """The columns to add to the partition at the position `i`."""
    return {name: texts[i] for name, texts in columns.items()}


def _load_each(manager: IOManager, context: PartitionsInputContext, annotation: Any) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for i, partition in enumerate(context.partitions):
        value = manager.load_input(context.of_partition(partition, annotation))
        if context.partition_columns and value is not None:
            value = _with_added(
                value, owner_of_partition(context, partition), added_texts(context.partition_columns, i)
            )
        values[partition.partition_key] = value
    return values


def _with_added(value: Any, owner: Owner, added: Mapping[str, str]) -> Any:
    from headwater.io.united_frames import Piece, unite

    form = of_value(value)
    if not form.is_frame:
        raise UserCodeError(
            f"{owner} holds {with_article(class_name(value))}, which has no columns.",
            remedy="Leave out the columns of the partition; the key of the dict is the partition.",
        )
    return unite([Piece(frame=value, owner=owner, added=added)], form)


def _holds_frame(pointer: Pointer) -> bool:
    return pointer.format == "parquet" or (pointer.format == "memory" and of_name(pointer.representation).is_frame)


def _text_of(annotation: Any) -> str:
    if isinstance(annotation, str):
        return annotation
    return annotation.__name__ if type(annotation) is type else str(annotation)
