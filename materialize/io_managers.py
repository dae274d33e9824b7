"""Which IO manager stores and loads which asset."""

import contextlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from headwater.catalog.definitions.asset import DEFAULT_IO_MANAGER
from headwater.catalog.definitions.definitions import Definitions
from headwater.catalog.definitions.resource import resolve_resource
from headwater.catalog.errors import DefinitionError
from headwater.catalog.keys import AssetKey
from headwater.catalog.printable import with_article
from headwater.catalog.records import PlannedCell, Pointer
from headwater.io.base import InputContext, IOManager, OutputContext


class _Adapted(IOManager):
    """An object with the two methods, made into an IO manager."""

    def __init__(self, manager: Any) -> None:
        self._manager = manager

    def handle_output(self, context: OutputContext, obj: Any) -> Pointer | None:
        """Store `obj` by the object's own means."""
        return self._manager.handle_output(context, obj)

    def load_input(self, context: InputContext) -> Any:
        """Load by the object's own means."""
        return self._manager.load_input(context)


class IOManagers:
    """The IO managers of a project, bound to a home: files of those without a root of their own go below it.

    `resources` are a run's own; without them the project's are used, with what the environment has to supply.
    """

    def __init__(self, definitions: Definitions, resources: Mapping[str, Any] | None, home: Path) -> None:
        self._definitions = definitions
        self._resources = resources
        self._home = home
        self._bound: dict[int, tuple[Any, IOManager]] = {}
        self._default: IOManager | None = None

    def for_output(self, key: AssetKey) -> IOManager:
        """What stores the asset `key`."""
        spec = self._definitions.spec_of(key)
        return self._manager(spec.io_manager if spec else DEFAULT_IO_MANAGER, key)

    def for_input(self, key: AssetKey, input_manager_key: str | None = None) -> IOManager:
        """What loads the asset `key`: what stored it, unless the reader names another."""
        return self.for_output(key) if input_manager_key is None else self._manager(input_manager_key, key)

    def sweep(self, run_id: str, planned: Iterable[PlannedCell]) -> None:
        """Remove what a run left of versions that were never committed, where that can be done."""
        for cell in planned:
            if cell.folder is not None:
                with contextlib.suppress(OSError):
                    self.for_output(cell.asset).sweep(cell.folder, cell.version_id, run_id)

    def _manager(self, named: Any, key: AssetKey) -> IOManager:
        resources = self._definitions.resources if self._resources is None else self._resources
        manager = given = resources.get(named) if isinstance(named, str) else named
        if manager is None:
            if self._default is None:
                from headwater.io.file_manager import FileIOManager

                self._default = self._bind(FileIOManager())
            return self._default
        if id(given) not in self._bound:
            if self._resources is None or not isinstance(named, str):
                manager = resolve_resource(
                    given, f"resources:{named}" if isinstance(named, str) else f"{key}:io_manager"
                )
            if not callable(getattr(manager, "handle_output", None)) or not callable(
                getattr(manager, "load_input", None)
            ):
                raise DefinitionError(
                    f"What stores `{key}` is {with_article(type(manager).__name__)}, which is no IO manager.",
                    remedy="An IO manager has the methods handle_output(context, obj) and load_input(context).",
                )
            self._bound[id(given)] = (given, self._bind(manager))
        return self._bound[id(given)][1]

    def _bind(self, manager: Any) -> IOManager:
        if isinstance(manager, IOManager):
            manager.bind(self._home)
            return manager
        return _Adapted(manager)
