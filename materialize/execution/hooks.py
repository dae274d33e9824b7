"""What hooks are given, and how they are called: whatever they raise is logged, and harms nobody."""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

from headwater.catalog.definitions.hooks import HookDefinition, HookEvent
from headwater.catalog.keys import AssetKey
from headwater.catalog.records import Cell, ErrorRecord, Materialization
from headwater.materialize.execution.context import RunInfo
from headwater.materialize.execution.step import describe_failure

#: Logs a line of a step, or of the run: its key, the level, the text.
Log = Callable[[str | None, str, str], None]


class _Logger:
    """The methods of a logger that hooks use; lines become events of the run."""

    def __init__(self, log: Log, step_key: str | None) -> None:
        self._log, self._step_key = log, step_key

    def debug(self, message: object, *values: object) -> None:
        """Log a line of the level DEBUG."""
        self._say("DEBUG", message, values)

    def info(self, message: object, *values: object) -> None:
        """Log a line of the level INFO."""
        self._say("INFO", message, values)

    def warning(self, message: object, *values: object) -> None:
        """Log a line of the level WARNING."""
        self._say("WARNING", message, values)

    def error(self, message: object, *values: object) -> None:
        """Log a line of the level ERROR."""
        self._say("ERROR", message, values)

    def _say(self, level: str, message: object, values: tuple[object, ...]) -> None:
        self._log(self._step_key, level, str(message) % values if values else str(message))


@dataclass(frozen=True, slots=True, kw_only=True)
class HookContext:
    """What a hook is called with."""

    run: RunInfo
    log: Any
    #: The step that ended; None for a hook of a run.
    step_key: str | None = None
    #: What it was to build.
    cells: tuple[Cell, ...] = ()
    #: What it built.
    materializations: tuple[Materialization, ...] = ()
    #: Why it failed.
    error: ErrorRecord | None = None
    #: The exception, where it was raised in this process.
    op_exception: BaseException | None = None
    #: The resources that the hook asked for, as attributes.
    resources: SimpleNamespace = field(default_factory=SimpleNamespace)
    hook_name: str = ""

    @property
    def run_id(self) -> str:
        """The run's identifier."""
        return self.run.run_id

    @property
    def asset_key(self) -> AssetKey | None:
        """The asset that the step was to build, the first of several; None for a hook of a run."""
        return self.cells[0].asset if self.cells else None

    @property
    def partition_key(self) -> str | None:
        """Its partition, the first of several."""
        return self.cells[0].partition if self.cells else None

    def for_hook(self, hook: HookDefinition, resources: Mapping[str, Any]) -> "HookContext":
        """The same for one hook, with what it asked for."""
        asked = {name: resources[name] for name in hook.required_resource_keys if name in resources}
        return replace(
            self, log=_Logger(self.log, self.step_key), resources=SimpleNamespace(**asked), hook_name=hook.name
        )


def call_hook(hook: HookDefinition, context: HookContext, log: Log) -> None:
    """Call a hook. What it raises becomes a line of the run's events."""
    try:
        hook.function(context)
    except (Exception, SystemExit) as error:
        failure = describe_failure(error).error
        log(context.step_key, "ERROR", f"The hook `{hook.name}` failed: {failure.kind}: {failure.message}")


class HookCalls:
    """Hooks that are to be called as soon as nobody is kept waiting by it."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._waiting: deque[tuple[HookDefinition, HookContext]] = deque()

    def add(
        self,
        event: HookEvent,
        context: HookContext,
        hooks: Iterable[HookDefinition],
        resources: Mapping[str, Any],
    ) -> None:
        """Remember those hooks that are called at an event."""
        for hook in sorted((hook for hook in hooks if hook.event is event), key=lambda hook: hook.name):
            self._waiting.append((hook, context.for_hook(hook, resources)))

    def call(self) -> None:
        """Call them, each once; any number of threads may do so."""
        while True:
            try:
                hook, context = self._waiting.popleft()
            except IndexError:
                return
            call_hook(hook, context, self._log)
