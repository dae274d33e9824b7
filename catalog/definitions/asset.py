"""Assets: what a function computes, under which key, from what.

`@asset` and `@multi_asset` make an `AssetsDefinition`: a function, the assets it computes and everything it is given.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import FunctionType
from typing import TYPE_CHECKING, Any, TypedDict, Unpack, cast, overload

from headwater.catalog.config import Config
from headwater.catalog.definitions.dependencies import AssetDep, AssetIn, read_deps, texts
from headwater.catalog.definitions.hooks import HookDefinition, step_hooks
from headwater.catalog.definitions.policies import NO_LIMITS, BackfillPolicy, RetryPolicy, StepLimits
from headwater.catalog.definitions.signature import InputDefinition, Signature, read_signature
from headwater.catalog.definitions.source import SourceLocation
from headwater.catalog.definitions.spec import (
    DEFAULT_GROUP,
    DEFAULT_IO_MANAGER,
    AssetOut,
    AssetSpec,
    SourceAsset,
    one_io_manager,
    refuse_others,
    replace_spec,
)
from headwater.catalog.errors import DefinitionError, InvalidKeyError
from headwater.catalog.keys import AssetKey, CoercibleToAssetKey
from headwater.catalog.metadata import RawMetadata
from headwater.catalog.printable import printable_line

if TYPE_CHECKING:
    from headwater.catalog.definitions.condition import AutomationCondition
    from headwater.catalog.freshness import FreshnessPolicy
    from headwater.catalog.partitions.definition import PartitionsDefinition

__all__ = [
    "DEFAULT_IO_MANAGER",
    "AssetDep",
    "AssetIn",
    "AssetOut",
    "AssetSpec",
    "AssetsDefinition",
    "InputDefinition",
    "OutputDefinition",
    "SourceAsset",
    "asset",
    "multi_asset",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputDefinition:
    """One asset that a function computes."""

    name: str
    spec: AssetSpec
    is_required: bool = True


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AssetsDefinition:
    """A function and the assets it computes. Calling it calls the function, for unit tests."""

    #: The step's name; unique among the definitions.
    name: str
    function: Callable[..., Any]
    outputs: tuple[OutputDefinition, ...]
    inputs: tuple[InputDefinition, ...] = ()
    #: Parameter → name of the resource that fills it.
    resources: Mapping[str, str] = field(default_factory=dict[str, str])
    #: Parameter → the class that its resource has to be of, where the annotation is one.
    resource_classes: Mapping[str, type] = field(default_factory=dict[str, type])
    #: Resources used through the context.
    required_resource_keys: frozenset[str] = frozenset()
    context_parameter: str | None = None
    config_parameter: str | None = None
    config_class: type | None = None
    #: What the config is when a run says nothing.
    config: Any = None
    retry_policy: RetryPolicy | None = None
    #: How many partitions a step computes; None for one.
    backfill_policy: BackfillPolicy | None = None
    #: The pool in which its step has to find a place.
    pool: str | None = None
    #: What is called when its step has ended.
    hooks: frozenset[HookDefinition] = frozenset()
    #: What one attempt at the step may take.
    limits: StepLimits = NO_LIMITS
    is_multi: bool = False
    #: Whether the function can compute some of its assets alone.
    can_subset: bool = False
    return_annotation: Any = None
    #: True for `-> None`: the function stores what it makes by itself.
    stores_nothing: bool = False
    #: True where its assets were given as specs: when it returns nothing, it has made them all by itself.
    from_specs: bool = False
    source: SourceLocation

    @property
    def __headwater_function__(self) -> Callable[..., Any]:
        return self.function

    @property
    def key(self) -> AssetKey:
        """The asset's key. Raises `DefinitionError` where there are several."""
        if len(self.outputs) != 1:
            raise DefinitionError(
                f"`{self.name}` computes {len(self.outputs)} assets, so it has no single key.",
                remedy=f"Use .keys: {', '.join(str(k) for k in self.keys)}.",
            )
        return self.outputs[0].spec.key

    @property
    def keys(self) -> tuple[AssetKey, ...]:
        """The keys of all its assets, in the order they were given."""
        return tuple(output.spec.key for output in self.outputs)

    @property
    def partitions_def(self) -> "PartitionsDefinition | None":
        """What all of its assets are divided into."""
        return self.outputs[0].spec.partitions_def

    @property
    def batch(self) -> int | None:
        """How many partitions a step computes at most; None for all."""
        return 1 if self.backfill_policy is None else self.backfill_policy.max_partitions_per_run

    @property
    def specs(self) -> tuple[AssetSpec, ...]:
        """What is said of each of its assets."""
        return tuple(output.spec for output in self.outputs)

    def output(self, key: AssetKey) -> OutputDefinition:
        """The output that is the asset `key`."""
        return next(output for output in self.outputs if output.spec.key == key)

    def moved(
        self, keys: Mapping[AssetKey, AssetKey], *, name: str | None = None, group_name: str | None = None
    ) -> "AssetsDefinition":
        """A copy in which assets have other keys, here and where it reads them, and another name for the step.

        With `group_name`, assets without a group of their own are in that one.
        """
        return replace(
            self,
            name=name or self.name,
            outputs=tuple(replace(o, spec=move_spec(o.spec, keys, group_name=group_name)) for o in self.outputs),
            inputs=tuple(
                replace(item, key=keys[item.key], by_name=False) if item.key in keys else item for item in self.inputs
            ),
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the function as it is, with what is given."""
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<asset {', '.join(str(key) for key in self.keys)}>"


def move_spec(spec: AssetSpec, keys: Mapping[AssetKey, AssetKey], *, group_name: str | None = None) -> AssetSpec:
    """A copy of `spec` in which assets have other keys; see `AssetsDefinition.moved`."""
    return replace_spec(
        spec,
        key=keys.get(spec.key, spec.key),
        deps=[replace(dep, asset=keys.get(dep.asset, dep.asset)) for dep in spec.deps],
        group_name=group_name if group_name and spec.group_name == DEFAULT_GROUP else spec.group_name,
    )


class AssetSettings(TypedDict, total=False):
    """The keywords of `asset`, for type checkers."""

    name: str | None
    key: CoercibleToAssetKey | None
    key_prefix: str | Sequence[str] | None
    group_name: str | None
    description: str | None
    kinds: Iterable[str] | None
    tags: Mapping[str, str] | None
    owners: Sequence[str] | None
    metadata: RawMetadata | None
    deps: Iterable[Any]
    ins: Mapping[str, AssetIn] | None
    code_version: str | None
    io_manager: Any
    io_manager_key: str | None
    config: Config | Mapping[str, Any] | None
    retry_policy: RetryPolicy | None
    partitions_def: "PartitionsDefinition | None"
    freshness_policy: "FreshnessPolicy | None"
    automation_condition: "AutomationCondition | None"
    backfill_policy: BackfillPolicy | None
    pool: str | None
    hooks: Iterable[HookDefinition]
    timeout: float | None
    memory_limit: int | str | None
    required_resource_keys: Iterable[str]
    output_required: bool
    compute_kind: str | None
    io_manager_def: Any


@overload
def asset(compute_fn: Callable[..., Any], **settings: Unpack[AssetSettings]) -> AssetsDefinition: ...
@overload
def asset(**settings: Unpack[AssetSettings]) -> Callable[[Callable[..., Any]], AssetsDefinition]: ...
def asset(
    compute_fn: Callable[..., Any] | None = None,
    *,
    name: str | None = None,
    key: CoercibleToAssetKey | None = None,
    key_prefix: str | Sequence[str] | None = None,
    group_name: str | None = None,
    description: str | None = None,
    kinds: Iterable[str] | None = None,
    tags: Mapping[str, str] | None = None,
    owners: Sequence[str] | None = None,
    metadata: RawMetadata | None = None,
    deps: Iterable[Any] = (),
    ins: Mapping[str, AssetIn] | None = None,
    code_version: str | None = None,
    io_manager: Any = None,
    io_manager_key: str | None = None,
    config: Config | Mapping[str, Any] | None = None,
    retry_policy: RetryPolicy | None = None,
    partitions_def: "PartitionsDefinition | None" = None,
    freshness_policy: "FreshnessPolicy | None" = None,
    automation_condition: "AutomationCondition | None" = None,
    backfill_policy: BackfillPolicy | None = None,
    pool: str | None = None,
    hooks: Iterable[HookDefinition] = (),
    timeout: float | None = None,
    memory_limit: int | str | None = None,
    required_resource_keys: Iterable[str] = (),
    output_required: bool = True,
    compute_kind: str | None = None,
    io_manager_def: Any = None,
    **others: Any,
) -> Any:
    """Declare that a function computes an asset; usable as `@asset` and as `@asset(...)`.

    The key is the function's name unless `name`, `key_prefix` or `key` says otherwise. A parameter called
    `context` receives the `AssetExecutionContext`; one annotated with a `Config` class the configuration; one
    annotated with a resource class, or named like a resource, the resource; every other one the value of the
    upstream asset of its name, or of the asset that `ins` names for it. A parameter with a default does without an
    asset of its name. `deps` are dependencies that are not loaded. The annotations choose the representation:
    `pl.LazyFrame`, `pd.DataFrame`, `pa.Table`, … With `output_required=False`, the function may return None, or
    yield nothing, when there is nothing to make: what depends on it is skipped then.

    `partitions_def` divides the asset into partitions, which are built and recorded one by one: a step computes one of
    them, or as many as `backfill_policy` says. Of the steps of one `pool`, no more run at a time than the instance's
    settings say, in whatever runs. `hooks` are called when the step has ended. `freshness_policy` says how old the data
    may become. It is built by itself whenever `automation_condition` is true, such as `AutomationCondition.eager()`,
    once that is started.

    `timeout`, in seconds, and `memory_limit`, in bytes or like "2GiB", stop an attempt that takes more: they need the
    executor "processes".

    `compute_kind="polars"` is another way to write `kinds={"polars"}`, and `io_manager_def` another to write
    `io_manager`: definitions written for Dagster have them.

    Returns an `AssetsDefinition`. Raises `DefinitionError`.
    """

    refuse_others(others, AssetSettings.__annotations__, "@asset")

    def define(function: Callable[..., Any]) -> AssetsDefinition:
        function = plain_function(function, "asset")
        source = SourceLocation.of(function)
        own = own_key(key, name, key_prefix, function.__name__, source)
        signature = read_signature(function, ins or {}, source)
        spec = AssetSpec(
            own,
            deps=deps,
            description=description if description is not None else docstring(function),
            metadata=metadata,
            group_name=group_name,
            code_version=code_version,
            owners=owners,
            tags=tags,
            kinds=_all_kinds(kinds, compute_kind),
            io_manager=one_io_manager(io_manager if io_manager is not None else io_manager_def, io_manager_key),
            partitions_def=partitions_def,
            freshness_policy=freshness_policy,
            automation_condition=automation_condition,
            source=source,
        )
        return _definition(
            str(own),
            function,
            (OutputDefinition(name="result", spec=spec, is_required=output_required),),
            signature,
            config=config,
            retry_policy=retry_policy,
            partitions_def=partitions_def,
            backfill_policy=backfill_policy,
            pool=pool,
            hooks=hooks,
            limits=_limits(timeout, memory_limit, source),
            required_resource_keys=required_resource_keys,
            source=source,
        )

    return define if compute_fn is None else define(compute_fn)


def multi_asset(
    *,
    outs: Mapping[str, AssetOut] | None = None,
    specs: Sequence[AssetSpec] | None = None,
    name: str | None = None,
    group_name: str | None = None,
    description: str | None = None,
    deps: Iterable[Any] = (),
    ins: Mapping[str, AssetIn] | None = None,
    can_subset: bool = False,
    code_version: str | None = None,
    config: Config | Mapping[str, Any] | None = None,
    retry_policy: RetryPolicy | None = None,
    partitions_def: "PartitionsDefinition | None" = None,
    backfill_policy: BackfillPolicy | None = None,
    pool: str | None = None,
    hooks: Iterable[HookDefinition] = (),
    timeout: float | None = None,
    memory_limit: int | str | None = None,
    required_resource_keys: Iterable[str] = (),
    compute_kind: str | None = None,
    **others: Any,
) -> Callable[[Callable[..., Any]], AssetsDefinition]:
    """Declare that a function computes several assets in one step.

    With `outs`, the function returns a tuple in their order or a dict by name, or yields `Output(value, name)` or
    `MaterializeResult(asset_key=…)`; with `specs`, it yields or returns `MaterializeResult`s, or returns nothing
    when it has made all of them by itself. With `can_subset`, it may be asked for some of them:
    `context.selected_output_names` and `context.selected_asset_keys` say which. `partitions_def` divides all of them
    alike: the assets of one function cannot be divided in different ways. `pool`, `hooks`, `timeout` and
    `memory_limit` are those of `asset`, for the step.

    Raises `DefinitionError`.
    """
    own = [name for name in multi_asset.__annotations__ if name not in ("others", "return")]
    refuse_others(others, own, "@multi_asset")
    for given, kind, name_of in ((outs, Mapping, "outs"), (specs, Iterable, "specs")):
        if given is not None and not isinstance(cast(object, given), kind):
            raise DefinitionError(
                f"{SourceLocation.of_caller()}: the {name_of} of @multi_asset are of the type {type(given).__name__}.",
                remedy="outs holds AssetOuts by name, specs holds AssetSpecs.",
            )
    listed = tuple(specs or ())
    if bool(outs) == bool(listed):
        raise DefinitionError(
            f"{SourceLocation.of_caller()}: @multi_asset needs its assets as outs or as specs.",
            remedy="Write outs={'name': AssetOut()} for values that are stored, specs=[AssetSpec('key')] for others.",
        )
    for one in cast(Iterable[object], listed or (outs or {}).values()):
        if not isinstance(one, AssetSpec if listed else AssetOut):
            raise DefinitionError(
                f"{SourceLocation.of_caller()}: @multi_asset was given a {type(one).__name__}.",
                remedy="outs holds AssetOuts by name, specs holds AssetSpecs.",
            )

    def define(function: Callable[..., Any]) -> AssetsDefinition:
        function = plain_function(function, "multi_asset")
        source = SourceLocation.of(function)
        common = read_deps(deps)
        outputs: list[OutputDefinition] = []
        for label, out in (outs or {}).items():
            spec = out.spec(
                label,
                deps=common,
                description=description,
                group_name=group_name,
                code_version=code_version,
                kinds=_all_kinds(None, compute_kind),
                partitions_def=partitions_def,
                source=source,
            )
            outputs.append(OutputDefinition(name=label, spec=spec, is_required=out.is_required))
        for spec in listed:
            completed = replace_spec(
                spec,
                deps=(*common, *spec.deps),
                description=spec.description or description,
                group_name=spec.group_name if spec.group_name != DEFAULT_GROUP else group_name,
                code_version=spec.code_version or code_version,
                kinds=_all_kinds(spec.kinds, compute_kind),
                partitions_def=spec.partitions_def if spec.partitions_def is not None else partitions_def,
            )
            outputs.append(OutputDefinition(name=str(spec.key), spec=completed))
        return _definition(
            name or function.__name__,
            function,
            tuple(outputs),
            read_signature(function, ins or {}, source),
            config=config,
            retry_policy=retry_policy,
            partitions_def=partitions_def,
            backfill_policy=backfill_policy,
            pool=pool,
            hooks=hooks,
            limits=_limits(timeout, memory_limit, source),
            required_resource_keys=required_resource_keys,
            is_multi=True,
            can_subset=can_subset,
            from_specs=bool(listed),
            source=source,
        )

    return define


def _definition(
    name: str,
    function: FunctionType,
    outputs: tuple[OutputDefinition, ...],
    signature: Signature,
    *,
    config: Any,
    retry_policy: RetryPolicy | None,
    partitions_def: "PartitionsDefinition | None",
    backfill_policy: BackfillPolicy | None,
    pool: str | None,
    hooks: Iterable[HookDefinition],
    required_resource_keys: Iterable[str],
    source: SourceLocation,
    **settings: Any,
) -> AssetsDefinition:
    if config is not None and signature.config_class is None:
        raise DefinitionError(
            f"{source}: `{name}` has a config, and no parameter of {function.__name__}() takes one.",
            remedy="Annotate a parameter with a subclass of Config, or drop config=….",
        )
    if retry_policy is not None and not isinstance(cast(object, retry_policy), RetryPolicy):
        raise DefinitionError(
            f"{source}: the retry_policy of `{name}` is of the type {type(retry_policy).__name__}.",
            remedy="Write retry_policy=RetryPolicy(max_retries=3).",
        )
    _check_partitions(name, outputs, partitions_def, source)
    if backfill_policy is not None:
        _check_policy(name, outputs, backfill_policy, source)
    if pool is not None and (not isinstance(cast(object, pool), str) or not pool):
        raise DefinitionError(f"{source}: the pool of `{name}` is {pool!r}.", remedy='Write pool="duckdb".')
    return AssetsDefinition(
        name=name,
        function=function,
        outputs=outputs,
        inputs=signature.inputs,
        resources=signature.resources,
        resource_classes=signature.resource_classes,
        required_resource_keys=frozenset(
            texts(required_resource_keys, "required_resource_keys") if required_resource_keys else ()
        ),
        context_parameter=signature.context_parameter,
        config_parameter=signature.config_parameter,
        config_class=signature.config_class,
        config=config,
        retry_policy=retry_policy,
        backfill_policy=backfill_policy,
        pool=pool,
        hooks=step_hooks(hooks, f"{source}: `{name}`"),
        return_annotation=signature.return_annotation,
        stores_nothing=signature.stores_nothing,
        source=source,
        **settings,
    )


def _limits(timeout: float | None, memory_limit: int | str | None, source: SourceLocation) -> StepLimits:
    try:
        return StepLimits.of(timeout, memory_limit)
    except DefinitionError as error:
        raise DefinitionError(f"{source}: {error.message}", remedy=error.remedy) from None


def _check_partitions(
    name: str,
    outputs: tuple[OutputDefinition, ...],
    given: "PartitionsDefinition | None",
    source: SourceLocation,
) -> None:
    """A step computes the same partitions of all of its assets."""
    first = outputs[0].spec
    whole, common = (f"`{first.key}`", first.partitions_def) if given is None else ("the function", given)
    for output in outputs:
        own = output.spec.partitions_def
        if own is not common and own != common:
            raise DefinitionError(
                f"{source}: the assets of `{name}` are divided in different ways: {whole} is "
                f"{_describe_partitions(common)}, `{output.spec.key}` is {_describe_partitions(own)}.",
                remedy="Write @multi_asset(partitions_def=…), which holds for all of them; or split the function.",
            )


def _check_policy(
    name: str, outputs: tuple[OutputDefinition, ...], backfill_policy: object, source: SourceLocation
) -> None:
    if not isinstance(backfill_policy, BackfillPolicy):
        raise DefinitionError(
            f"{source}: the backfill_policy of `{name}` is of the type {type(backfill_policy).__name__}.",
            remedy="Write backfill_policy=BackfillPolicy.single_run() or BackfillPolicy.multi_run(30).",
        )
    if outputs[0].spec.partitions_def is None:
        raise DefinitionError(
            f"{source}: `{name}` has a backfill_policy, and no partitions to which it could apply.",
            remedy="Add partitions_def=…, or leave out the backfill_policy.",
        )


def _describe_partitions(one: "PartitionsDefinition | None") -> str:
    return "unpartitioned" if one is None else f"[{printable_line(one.describe(), 150)}]"


def _all_kinds(kinds: Iterable[str] | None, compute_kind: str | None) -> Iterable[str] | None:
    if compute_kind is None or isinstance(kinds, str):  # a text is no list of kinds, which the spec says
        return kinds
    return (*(kinds or ()), compute_kind)


def own_key(
    key: CoercibleToAssetKey | None,
    name: str | None,
    prefix: str | Sequence[str] | None,
    function_name: str,
    source: SourceLocation,
) -> AssetKey:
    """The key that a decorator's arguments give, or else the function's name."""
    if key is not None and (name is not None or prefix is not None):
        raise DefinitionError(
            f"{source}: an asset has a key, or a name and a key_prefix, not both.",
            remedy="Keep key=… and drop the others.",
        )
    if key is None and name is None and function_name == "<lambda>":
        raise DefinitionError(f"{source}: this asset has no name.", remedy="Give it one: asset(…, name='orders').")
    try:
        own = AssetKey(key if key is not None else name if name is not None else function_name)
        return own if prefix is None else own.with_prefix(prefix)
    except InvalidKeyError as error:
        raise InvalidKeyError(f"{source}: {error.message}", remedy=error.remedy) from None


def plain_function(function: Any, decorator: str) -> FunctionType:
    """What was decorated. Raises `DefinitionError` where that is no function."""
    if isinstance(function, FunctionType):
        return function
    raise DefinitionError(
        f"{SourceLocation.of_caller()}: @{decorator} decorates a function, not a {type(function).__name__}.",
        remedy=f"Write @{decorator} directly above `def`, above every other decorator.",
    )


def docstring(function: FunctionType) -> str | None:
    """What a function says of itself."""
    text = function.__doc__
    if not text:
        return None
    import inspect

    return inspect.cleandoc(text)
