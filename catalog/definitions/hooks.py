"""Functions of the user's that are called when a step or a run has ended: to tell somebody, mostly."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, overload

from headwater.catalog.errors import DefinitionError


class HookEvent(StrEnum):
    """When a hook is called."""

    STEP_SUCCESS = "step success"
    STEP_FAILURE = "step failure"
    RUN_SUCCESS = "run success"
    RUN_FAILURE = "run failure"

    @property
    def of_run(self) -> bool:
        """Whether it is about a whole run."""
        return self in (HookEvent.RUN_SUCCESS, HookEvent.RUN_FAILURE)


@dataclass(frozen=True, slots=True)
class HookDefinition:
    """A function and when it is called. Calling the hook calls the function, for unit tests."""

    name: str
    function: Callable[[Any], object]
    event: HookEvent
    #: Resources that it uses through its context.
    required_resource_keys: frozenset[str] = frozenset()

    def __call__(self, context: Any) -> object:
        """Call the function."""
        return self.function(context)


_Decorator = Callable[[Callable[[Any], object]], HookDefinition]


@overload
def success_hook(hook_fn: Callable[[Any], object], /) -> HookDefinition: ...
@overload
def success_hook(*, name: str | None = None, required_resource_keys: Iterable[str] = ()) -> _Decorator: ...
def success_hook(hook_fn: Any = None, /, **settings: Any) -> Any:
    """Declare a function that is called with a `HookContext` after each step that succeeded.

    Give it to assets with `@asset(hooks={…})`, or to all of them with `Definitions(hooks=[…])`. What it raises is
    logged, and changes nothing else.
    """
    return _hook(HookEvent.STEP_SUCCESS, hook_fn, **settings)


@overload
def failure_hook(hook_fn: Callable[[Any], object], /) -> HookDefinition: ...
@overload
def failure_hook(*, name: str | None = None, required_resource_keys: Iterable[str] = ()) -> _Decorator: ...
def failure_hook(hook_fn: Any = None, /, **settings: Any) -> Any:
    """Declare a function that is called after each step that failed for good: `context.op_exception` says why."""
    return _hook(HookEvent.STEP_FAILURE, hook_fn, **settings)


@overload
def run_success_hook(hook_fn: Callable[[Any], object], /) -> HookDefinition: ...
@overload
def run_success_hook(*, name: str | None = None, required_resource_keys: Iterable[str] = ()) -> _Decorator: ...
def run_success_hook(hook_fn: Any = None, /, **settings: Any) -> Any:
    """Declare a function that is called when a run has succeeded. `Definitions(hooks=[…])` takes it."""
    return _hook(HookEvent.RUN_SUCCESS, hook_fn, **settings)


@overload
def run_failure_hook(hook_fn: Callable[[Any], object], /) -> HookDefinition: ...
@overload
def run_failure_hook(*, name: str | None = None, required_resource_keys: Iterable[str] = ()) -> _Decorator: ...
def run_failure_hook(hook_fn: Any = None, /, **settings: Any) -> Any:
    """Declare a function that is called when a run has failed. `Definitions(hooks=[…])` takes it."""
    return _hook(HookEvent.RUN_FAILURE, hook_fn, **settings)


def _hook(
    event: HookEvent, function: Any, *, name: str | None = None, required_resource_keys: Iterable[str] = ()
) -> Any:
    def define(function: Callable[[Any], object]) -> HookDefinition:
        if not callable(function):
            raise DefinitionError(
                f"A hook of {event} is made of a {type(function).__name__}.", remedy="Decorate a function."
            )
        own = name or getattr(function, "__name__", "hook")
        return HookDefinition(own, function, event, frozenset(required_resource_keys))

    return define if function is None else define(function)


def step_hooks(given: Iterable[Any], where: str) -> frozenset[HookDefinition]:
    """The hooks of an asset. Raises `DefinitionError` for what is none, and for those of runs."""
    found = all_hooks(given, where)
    for hook in found:
        if hook.event.of_run:
            raise DefinitionError(
                f"{where} has the hook `{hook.name}`, which is called at the end of a run.",
                remedy="Write Definitions(hooks=[…]).",
            )
    return found


def all_hooks(given: Iterable[Any], where: str) -> frozenset[HookDefinition]:
    """Hooks. Raises `DefinitionError` for what is none."""
    found = tuple(given or ())
    for hook in found:
        if not isinstance(hook, HookDefinition):
            raise DefinitionError(
                f"{where} has a hook that is of the type {type(hook).__name__}.",
                remedy="Decorate the function with @success_hook or @failure_hook.",
            )
    return frozenset(found)
