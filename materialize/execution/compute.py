"""Calling the user's function and making sense of what it gives back."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import GeneratorType
from typing import Any, cast

from headwater.catalog.definitions.asset import AssetsDefinition, OutputDefinition
from headwater.catalog.definitions.policies import Failure
from headwater.catalog.definitions.results import NO_VALUE, MaterializeResult, Output
from headwater.catalog.errors import UserCodeError
from headwater.catalog.keys import AssetKey
from headwater.catalog.printable import printable_line, with_article
from headwater.io.representation import of_value
from headwater.materialize.execution.partitions import PARTITION_EXPR, StepPartitions


@dataclass(frozen=True, slots=True, kw_only=True)
class Produced:
    """What a function gave for one of its outputs, and for one partition of it where there are any."""

    output: OutputDefinition
    partition: str | None = None
    #: NO_VALUE where nothing is to be stored.
    value: Any
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])
    data_version: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """Why there is nothing for a partition: of one output, or, where that is None, of every one not given yet."""

    output: OutputDefinition | None
    partition: str
    error: Exception


def compute(
    definition: AssetsDefinition,
    arguments: Mapping[str, Any],
    selected: frozenset[AssetKey],
    partition: str | None = None,
) -> Iterator[Produced]:
    """Call the function for no partition or one, and yield what it makes of `selected`, each output once, as it does.

    Raises whatever the function raises, and `UserCodeError` for an output that is unknown, missing or given twice.
    """
    outputs = _outputs(definition, selected)
    seen: set[str] = set()
    for produced in _normalise(definition, definition.function(**arguments), outputs):
        name = produced.output.name
        if name in seen:
            raise UserCodeError(
                f"`{definition.name}` gave the output '{name}' twice.", remedy="Yield each output once."
            )
        if produced.partition is not None and produced.partition != partition:
            raise _foreign_partition(definition, produced.partition, () if partition is None else (partition,))
        seen.add(name)
        yield replace(produced, partition=partition)
    missing = [output for name, output in outputs.items() if output.is_required and name not in seen]
    if missing:
        raise UserCodeError(
            f"`{definition.name}` did not give the output '{missing[0].name}' (asset `{missing[0].spec.key}`).",
            remedy="Yield it, or declare it with AssetOut(is_required=False).",
        )


def compute_partitions(
    definition: AssetsDefinition,
    arguments: Mapping[str, Any],
    selected: frozenset[AssetKey],
    partitions: StepPartitions,
) -> Iterator[Produced | Refused]:
    """Call the function for any number of `partitions`, and yield what it makes of each of them, as it does.

    What it does not give for a partition is refused at the end, apart from optional outputs. Raises whatever the
    function raises, and `UserCodeError` for what is unknown, given twice, or given for no partition.
    """
    outputs = _outputs(definition, selected)
    known = {key: key for key in partitions.keys}  # users give plain text for keys that know their dimensions
    left = {name: dict(known) for name in outputs}
    results = _PartitionResults(definition=definition, outputs=outputs, partitions=partitions, known=known)
    for given in results.read(definition.function(**arguments)):
        key = known.get(given.partition or "")
        if key is None:
            raise _foreign_partition(definition, str(given.partition), partitions.keys)
        item = replace(given, partition=key)
        names = [name for name, missing in left.items() if key in missing]
        if item.output is not None:
            names = [item.output.name] if item.output.name in names else []
        if not names:
            raise UserCodeError(
                f"`{definition.name}` gave the partition '{printable_line(key, 80)}'"
                + (f" of the output '{item.output.name}'" if item.output and definition.is_multi else "")
                + " twice.",
                remedy="Give each partition once.",
            )
        for name in names:
            del left[name][key]
        yield item
    for name, missing in left.items():
        output = outputs[name]
        for partition in missing if output.is_required else ():
            error = UserCodeError(
                f"`{definition.name}` gave nothing for partition '{printable_line(partition, 80)}' of "
                f"`{output.spec.key}`.",
                remedy="Give a value for each of context.partition_keys.",
            )
            yield Refused(output=output, partition=partition, error=error)


def _outputs(definition: AssetsDefinition, selected: frozenset[AssetKey]) -> dict[str, OutputDefinition]:
    return {output.name: output for output in definition.outputs if output.spec.key in selected}


def _foreign_partition(definition: AssetsDefinition, given: str, partitions: Collection[str]) -> UserCodeError:
    shown = [printable_line(one, 80) for one in [*partitions][:3]]
    more = f" and {len(partitions) - 3:,} more" if len(partitions) > 3 else ""
    asked = f"this step computes {', '.join(shown)}{more}" if partitions else "it is not partitioned"
    return UserCodeError(
        f"`{definition.name}` gave the partition '{printable_line(given, 80)}', and {asked}.",
        remedy="Look at context.partition_keys." if partitions else "Leave out the partition_key.",
    )


#: What stands for the result of one output, or of one partition of it.
_RESULTS = (Output, MaterializeResult, Failure)


@dataclass(frozen=True, slots=True, kw_only=True)
class _PartitionResults:
    """What the function of a step with several partitions gives, partition by partition."""

    definition: AssetsDefinition
    #: Those that the run asked for, by name.
    outputs: Mapping[str, OutputDefinition]
    partitions: StepPartitions
    #: The keys of `partitions`, to look them up.
    known: Mapping[str, str]

    def read(self, returned: Any) -> Iterator[Produced | Refused]:
        """What was returned, or is yielded."""
        if isinstance(returned, GeneratorType):
            for item in cast(Iterator[Any], returned):
                if not isinstance(item, _RESULTS):
                    raise _no_result(self.definition, item)
                yield from self._result(item)  # pyright: ignore[reportUnknownArgumentType]
        elif isinstance(returned, _RESULTS):
            yield from self._result(returned)  # pyright: ignore[reportUnknownArgumentType]
        elif isinstance(returned, tuple | list) and all(isinstance(one, _RESULTS) for one in cast(list[Any], returned)):
            for item in cast(list[Any], returned):
                yield from self._result(item)
        elif not self.definition.is_multi:
            yield from self._spread(self.definition.outputs[0], returned)
        elif isinstance(returned, dict):
            for name, value in _wanted(self.definition, cast(dict[Any, Any], returned), self.outputs):
                yield from self._spread(_find(self.definition, name, self.outputs), value)
        elif isinstance(returned, tuple | list):
            for output, value in _pairs(self.definition, cast(tuple[Any, ...], returned), self.outputs):
                yield from self._spread(output, value)
        elif returned is None or len(self.definition.outputs) == 1:
            for output in self.outputs.values():
                yield from self._spread(output, returned)
        else:
            raise self._unreadable(returned)

    def _result(self, item: Output[Any] | MaterializeResult[Any] | Failure) -> Iterator[Produced | Refused]:
        """One result: of the partition that it names, or of all of them, each of which has its value in it."""
        if isinstance(item, Failure):
            if item.partition_key is None:
                raise item
            yield Refused(output=None, partition=item.partition_key, error=item)
            return
        result = _one(self.definition, item, self.outputs)
        if result.partition is not None:
            yield result
        elif result.value is NO_VALUE and self._only is None:
            raise self._unreadable(item)
        elif result.value is NO_VALUE:
            yield replace(result, partition=self._only)
        else:
            for one in self._spread(result.output, result.value):
                if isinstance(one, Refused):
                    yield one
                else:
                    yield replace(
                        one,
                        metadata={**result.metadata, **one.metadata},
                        data_version=one.data_version or result.data_version,
                        tags={**result.tags, **one.tags},
                    )

    @property
    def _only(self) -> str | None:
        """The partition that is meant where a step that may compute several computes one."""
        return next(iter(self.known)) if len(self.known) == 1 else None

    def _spread(self, output: OutputDefinition, value: Any) -> Iterator[Produced | Refused]:
        """The values of one output, which were given together."""
        if value is None and (self.definition.stores_nothing or self.definition.from_specs):
            yield from (Produced(output=output, partition=key, value=NO_VALUE) for key in self.known)
        elif value is None and not output.is_required:
            return
        elif isinstance(value, dict):
            yield from self._entries(output, cast(dict[Any, Any], value))
        elif PARTITION_EXPR in output.spec.metadata and of_value(value).is_frame:
            from headwater.materialize.execution.partition_expr import split_by_columns

            yield from self._entries(output, split_by_columns(value, output.spec, self.partitions))
        elif self._only is not None:
            yield replace(_plain(self.definition, output, value), partition=self._only)
        else:
            raise self._unreadable(value)

    def _entries(self, output: OutputDefinition, values: Mapping[Any, Any]) -> Iterator[Produced | Refused]:
        for key in values:
            if key not in self.known:  # before any of them is stored
                raise _foreign_partition(self.definition, str(key), self.partitions.keys)
        for key, value in values.items():
            if isinstance(value, Failure):
                yield Refused(output=output, partition=key, error=value)
            elif isinstance(value, Output | MaterializeResult):
                result = _one(self.definition, value, {output.name: output}, output)  # pyright: ignore[reportUnknownArgumentType]
                if result.partition not in (None, key):
                    raise _foreign_partition(self.definition, str(result.partition), (key,))
                yield replace(result, output=output, partition=key)
            elif value is not None or self.definition.stores_nothing or output.is_required:
                yield replace(_plain(self.definition, output, value), partition=key)

    def _unreadable(self, value: Any) -> UserCodeError:
        return UserCodeError(
            f"`{self.definition.name}` gave {_a(value)} for {len(self.known):,} partitions.",
            remedy="Return a dict {partition key: value}; or yield Output(value, partition_key=key) for each of "
            "context.partition_keys; or return one frame, and name the column that tells its partitions with "
            "metadata={'partition_expr': 'column'}.",
        )


def _no_result(definition: AssetsDefinition, item: Any) -> UserCodeError:
    return UserCodeError(
        f"`{definition.name}` yielded {_a(item)}.",
        remedy="Yield Output(value) or MaterializeResult(…); a plain value is returned, not yielded.",
    )


def _a(value: Any) -> str:
    return "None" if value is None else with_article(type(value).__name__)


def _normalise(
    definition: AssetsDefinition, returned: Any, outputs: Mapping[str, OutputDefinition]
) -> Iterator[Produced]:
    if isinstance(returned, GeneratorType):
        for item in cast(Iterator[Any], returned):
            if isinstance(item, Failure):
                raise item
            if not isinstance(item, Output | MaterializeResult):
                raise _no_result(definition, item)
            yield _one(definition, item, outputs)  # pyright: ignore[reportUnknownArgumentType]
    elif isinstance(returned, Failure):
        raise returned
    elif not definition.is_multi:
        if isinstance(returned, Output | MaterializeResult):
            yield _one(definition, returned, outputs)  # pyright: ignore[reportUnknownArgumentType]
        elif returned is not None or definition.stores_nothing or definition.outputs[0].is_required:
            yield _plain(definition, definition.outputs[0], returned)
    elif isinstance(returned, dict):
        for name, value in _wanted(definition, cast(dict[Any, Any], returned), outputs):
            yield _named(definition, name, value, outputs)
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
            f"`{definition.name}` returned {_a(returned)}, and computes {len(definition.outputs)} assets.",
            remedy="Return a tuple in the order of outs or a dict by name, or yield Output(value, name).",
        )


def _wanted(
    definition: AssetsDefinition, returned: Mapping[Any, Any], outputs: Mapping[str, OutputDefinition]
) -> Iterator[tuple[str, Any]]:
    """What a dict by name gives, without the outputs that this run did not ask for."""
    for name, value in returned.items():
        if name in outputs or not any(output.name == name for output in definition.outputs):
            yield str(name), value


def _in_order(
    definition: AssetsDefinition, values: tuple[Any, ...], outputs: Mapping[str, OutputDefinition]
) -> Iterator[Produced]:
    if all(isinstance(value, MaterializeResult) for value in values):
        for value in values:
            yield _one(definition, value, outputs)
        return
    for output, value in _pairs(definition, values, outputs):
        if isinstance(value, Output | MaterializeResult):
            yield replace(_one(definition, value, {output.name: output}, output), output=output)  # pyright: ignore[reportUnknownArgumentType]
        else:
            yield _plain(definition, output, value)


def _pairs(
    definition: AssetsDefinition, values: tuple[Any, ...], outputs: Mapping[str, OutputDefinition]
) -> Iterator[tuple[OutputDefinition, Any]]:
    """Values in the order of outputs with the outputs, those that this run did not ask for left out."""
    wanted = definition.outputs if len(values) == len(definition.outputs) else tuple(outputs.values())
    if len(values) != len(wanted):
        raise UserCodeError(
            f"`{definition.name}` returned {len(values)} values for {len(wanted)} outputs.",
            remedy=f"Return one for each of {', '.join(output.name for output in wanted)}, in this order.",
        )
    for output, value in zip(wanted, values, strict=True):
        if output.name in outputs:
            yield output, value


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
        output=output,
        partition=item.partition_key,
        value=item.value,
        metadata=item.metadata,
        data_version=item.data_version,
        tags=item.tags,
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
