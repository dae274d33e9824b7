"""Whether an executor can do what a run asks of it: found out before anything runs."""

from collections.abc import Iterable

from headwater.catalog.definitions.definitions import Definitions
from headwater.catalog.errors import UsageError
from headwater.catalog.keys import AssetKey
from headwater.materialize.executors.memory import MEASURABLE
from headwater.materialize.io_managers import IOManagers

IN_PROCESS, THREADS, PROCESSES = "in_process", "threads", "processes"
EXECUTORS = (IN_PROCESS, THREADS, PROCESSES)
#: Names that definitions written for Dagster have.
_OTHER_NAMES = {"multiprocess": PROCESSES, "multiprocess_executor": PROCESSES, "in_process_executor": IN_PROCESS}


def check_executor(name: str) -> str:
    """What the executor that is called `name` is called here. Raises `UsageError` where there is none."""
    name = _OTHER_NAMES.get(name, name)
    if name not in EXECUTORS:
        raise UsageError(f"There is no executor '{name}'.", remedy=f"It is one of {', '.join(EXECUTORS)}.")
    return name


def check_fit(executor: str, definitions: Definitions, managers: IOManagers, assets: Iterable[AssetKey]) -> None:
    """Raise `UsageError` where computing `assets` takes what the executor does not have."""
    steps = {id(step): step for step in map(definitions.definition_of, assets)}
    for step in steps.values():
        if executor != PROCESSES:
            if step.limits:
                limit = "time-out" if step.limits.timeout is not None else "memory limit"
                raise UsageError(
                    f"`{step.name}` has a {limit}, and the executor '{executor}' cannot stop a step that exceeds it.",
                    remedy="Use the executor 'processes' (--executor processes), or leave the limit out.",
                )
            continue
        if step.limits.memory is not None and not MEASURABLE:
            raise UsageError(
                f"`{step.name}` has a memory limit, and this system does not tell what a process takes.",
                remedy="Memory limits are kept on Linux; leave it out here.",
            )
        used = [(key, managers.for_output(key)) for key in step.keys if not step.stores_nothing]
        used += [(item.key, managers.for_input(item.key, item.input_manager_key)) for item in step.inputs]
        for key, manager in used:
            if manager.in_process_only:
                raise UsageError(
                    f"`{step.name}` cannot run in another process: what {type(manager).__name__} keeps of `{key}` is "
                    "in the memory of this one.",
                    remedy="Use the executor 'in_process' or 'threads', or an IO manager that writes files.",
                )
