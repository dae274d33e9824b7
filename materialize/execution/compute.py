"""Calling the user's function and making sense of what it gives back."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import GeneratorType
from typing import Any, cast

from headwater.catalog.definitions.asset import AssetsDefinition, OutputDefinition
from headwater.catalog.definitions.results import NO_VALUE, MaterializeResult, Output
from headwater.catalog.errors import UserCodeError
from headwater.catalog.keys import AssetKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Produced:
    """What a function gave for one of its outputs."""

    output: OutputDefinition
    #: NO_VALUE where nothing is to be stored.
    value: Any
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])
    data_version: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict[str, str])


def compute(
    definition: AssetsDefinition, arguments: Mapping[str, Any], selected: frozenset[AssetKey]
) -> Iterator[Produced]:
    """Call the function and yield what it makes of `selected`, each output once, as it makes it.

    Raises whatever the function raises, and `UserCodeError` for an output that is unknown, missing or given twice.
    """
    outputs = {output.name: output for output in definition.outputs if output.spec.key in selected}
    seen: set[str] = set()
    for produced in _normalise(definition, definition.function(**arguments), outputs):
        name = produced.output.name
        if name in seen:
            raise UserCodeError(
                f"`{definition.name}` gave the output '{name}' twice.", remedy="Yield each output once."
            )
        seen.add(name)
        yield produced
    missing = [output for name, output in outputs.items() if output.is_required and name not in seen]
    if missing:
        raise UserCodeError(
            f"`{definition.name}` did not give the output '{missing[0].name}' (asset `{missing[0].spec.key}`).",
            remedy="Yield it, or declare it with AssetOut(is_required=False).",
        )


def _normalise(
    definition: AssetsDefinition, returned: Any, outputs: Mapping[str, OutputDefinition]
) -> Iterator[Produced]:
    if isinstance(returned, GeneratorType):
        for item in cast(Iterator[Any], returned):
            if not isinstance(item, Output | MaterializeResult):
                raise UserCodeError(
                    f"`{definition.name}` yielded a {type(item).__name__}.",
                    remedy="Yield Output(value) or MaterializeResult(…); a plain value is returned, not yielded.",
                )
            yield _one(definition, item, outputs)  # pyright: ignore[reportUnknownArgumentType]
    elif not definition.is_multi:
        if isinstance(returned, Output | MaterializeResult):
            yield _one(definition, returned, outputs)  # pyright: ignore[reportUnknownArgumentType]
        elif returned is not None or definition.stores_nothing or definition.outputs[0].is_required:
            yield _plain(definition, definition.outputs[0], returned)
    elif isinstance(returned, dict):
        for name, value in cast(dict[str, Any], returned).items():
            if name in outputs or not any(output.name == name for output in definition.outputs):
                yield _named(definition, str(name), value, outputs)
    elif isinstance(returned, Output | MaterializeResult):
        yield _one(definition, returned, outputs)  # pyright: ignore[reportUnknownArgumentType]
    elif isinstance(returned, tuple | list):
        yield from _in_order(definition, cast(tuple[Any, ...], returned), outputs)
    elif returned is None and (definition.from_specs or definition.stores_nothing):
        yield from (Produced(output=output, value=NO_VALUE) for output in outputs.values())
    elif returned is None and not any(output.is_required for output in outputs.values()):
        return
    elif len(outputs) == 1 and len(definition.outputs) == 1:
        yield _plain(definition, next(iter(outputs.values())), returned)
    else:
        raise UserCodeError(
            f"`{definition.name}` returned a {type(returned).__name__}, and computes {len(definition.outputs)} assets.",
            remedy="Return a tuple in the order of outs or a dict by name, or yield Output(value, name).",
        )


def _in_order(
    definition: AssetsDefinition, values: tuple[Any, ...], outputs: Mapping[str, OutputDefinition]
) -> Iterator[Produced]:
    if all(isinstance(value, MaterializeResult) for value in values):
        for value in values:
            yield _one(definition, value, outputs)
        return
    wanted = definition.outputs if len(values) == len(definition.outputs) else tuple(outputs.values())
    if len(values) != len(wanted):
        raise UserCodeError(
            f"`{definition.name}` returned {len(values)} values for {len(wanted)} outputs.",
            remedy=f"Return one for each of {', '.join(output.name for output in wanted)}, in this order.",
        )
    for output, value in zip(wanted, values, strict=True):
        if output.name not in outputs:
            continue
        if isinstance(value, Output | MaterializeResult):
            yield replace(_one(definition, value, {output.name: output}, output), output=output)  # pyright: ignore[reportUnknownArgumentType]
        else:
            yield _plain(definition, output, value)


def _named(definition: AssetsDefinition, name: str, value: Any, outputs: Mapping[str, OutputDefinition]) -> Produced:
    output = _find(definition, name, outputs)
    if isinstance(value, Output | MaterializeResult):
        return replace(_one(definition, value, outputs, output), output=output)  # pyright: ignore[reportUnknownArgumentType]
    return _plain(definition, output, value)


def _one(
    definition: AssetsDefinition,
    item: Output[Any] | MaterializeResult[Any],
    outputs: Mapping[str, OutputDefinition],
    at: OutputDefinition | None = None,
) -> Produced:
    if isinstance(item, Output):
        output = at or (_find(definition, item.output_name, outputs) if definition.is_multi else definition.outputs[0])
    elif item.asset_key is not None:
        output = next((o for o in outputs.values() if o.spec.key == item.asset_key), None) or _find(
            definition, str(item.asset_key), outputs
        )
    elif at is not None or len(outputs) == 1:
        output = at or next(iter(outputs.values()))
    else:
        raise UserCodeError(
            f"`{definition.name}` computes {len(definition.outputs)} assets, and a MaterializeResult of it names none.",
            remedy="Say which: MaterializeResult(asset_key=…).",
        )
    return Produced(
        output=output, value=item.value, metadata=item.metadata, data_version=item.data_version, tags=item.tags
    )


def _plain(definition: AssetsDefinition, output: OutputDefinition, value: Any) -> Produced:
    return Produced(output=output, value=NO_VALUE if value is None and definition.stores_nothing else value)


def _find(definition: AssetsDefinition, name: str, outputs: Mapping[str, OutputDefinition]) -> OutputDefinition:
    if name in outputs:
        return outputs[name]
    known = [output.name if definition.is_multi else str(output.spec.key) for output in definition.outputs]
    unselected = any(name in (output.name, output.spec.key) for output in definition.outputs)
    raise UserCodeError(
        f"`{definition.name}` gave the output '{name}', which "
        + ("this run did not ask for." if unselected else "it does not have."),
        remedy="Look at context.selected_output_names before yielding."
        if unselected
        else f"Its outputs are {', '.join(known)}.",
    )
