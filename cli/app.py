"""What every command works with: the project, its graph, the catalog."""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import click

from headwater.catalog.instance import Instance
from headwater.cli.streams import stdout_to_stderr
from headwater.materialize.project import Project, find_project

if TYPE_CHECKING:
    from headwater.catalog.definitions.definitions import Definitions
    from headwater.catalog.lineage.asset_graph import AssetGraph
    from headwater.materialize.definitions_cache import DefinitionsCache
    from headwater.materialize.reader import Reader


@dataclass
class App:
    """The options that stand before the command, and what follows from them."""

    home: str | None = None
    files: Sequence[str] = ()
    modules: Sequence[str] = ()
    workspace: str | None = None
    wait: float = 10.0
    debug: bool = False

    @cached_property
    def project(self) -> Project:
        """Where definitions and home are."""
        return find_project(files=self.files, modules=self.modules, workspace=self.workspace, home=self.home)

    @cached_property
    def graph(self) -> "AssetGraph":
        """The project's graph, without importing its code where nothing changed."""
        with stdout_to_stderr():
            return self._cache.graph()

    @cached_property
    def definitions(self) -> "Definitions":
        """The project's definitions, imported."""
        with stdout_to_stderr():
            return self._cache.definitions()

    @cached_property
    def _cache(self) -> "DefinitionsCache":
        from headwater.materialize.definitions_cache import DefinitionsCache

        return DefinitionsCache(self.project)

    @contextmanager
    def reading(self) -> Generator[Instance]:
        """The instance, for commands that only read."""
        with Instance.open(self.project.home, read_only=True, wait=self.wait) as instance:
            yield instance

    @contextmanager
    def writing(self) -> Generator[Instance]:
        """The instance, for commands that write."""
        with Instance.open(self.project.home, wait=self.wait) as instance:
            yield instance

    @contextmanager
    def reader(self) -> Generator["Reader"]:
        """The graph and the catalog, for reading."""
        from headwater.materialize.reader import Reader

        graph = self.graph
        with self.reading() as instance:
            yield Reader(graph, instance.catalog, instance.clock.now())


pass_app = click.make_pass_decorator(App, ensure=True)


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--json`, as every reading command has it."""
    return click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")(command)


def complete_asset(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Asset keys for shell completion; from memory, so that pressing Tab runs no user code twice."""
    try:
        app = context.find_root().obj
        root = context.find_root().params
        app = app if isinstance(app, App) else App(home=root.get("home"), files=root.get("files") or ())
        return [str(key) for key in app.graph.nodes if key.startswith(incomplete)]
    except Exception:  # a shell has no use for our errors
        return []
