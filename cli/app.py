"""What every command works with: the project, its graph, the catalog."""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from headwater.catalog.clock import SystemClock
from headwater.catalog.errors import UsageError
from headwater.catalog.instance import Instance, catalog_address, catalog_folder
from headwater.cli.streams import stdout_to_stderr
from headwater.materialize.project import Project, find_project

if TYPE_CHECKING:
    from headwater.catalog.definitions.definitions import Definitions
    from headwater.catalog.lineage.asset_graph import AssetGraph
    from headwater.catalog.partitions.definition import PartitionsContext, PartitionsDefinition
    from headwater.materialize.definitions_cache import DefinitionsCache
    from headwater.materialize.reader import Reader

#: Partition keys that a shell is offered; nobody reads more.
_MAX_COMPLETIONS = 100
#: Partition keys that are looked through in one go.
_PAGE = 10_000


@dataclass
class App:
    """The options that stand before the command, and what follows from them."""

    home: str | None = None
    files: Sequence[str] = ()
    modules: Sequence[str] = ()
    workspace: str | None = None
    wait: float = 10.0
    #: The URL of the catalog, where the command line says so.
    catalog: str | None = None
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

    @property
    def sources(self) -> set[str]:
        """The files and folders that the definitions were made from."""
        return self._cache.sources()

    @cached_property
    def _cache(self) -> "DefinitionsCache":
        from headwater.materialize.definitions_cache import DefinitionsCache

        return DefinitionsCache(self.project)

    @contextmanager
    def reading(self) -> Generator[Instance]:
        """The instance, for commands that only read."""
        with self.open(read_only=True) as instance:
            yield instance

    @contextmanager
    def writing(self) -> Generator[Instance]:
        """The instance, for commands that write."""
        with self.open() as instance:
            yield instance

    def open(self, *, read_only: bool = False, wait: float | None = None, crowded: bool = False) -> Instance:
        """The instance, to be closed."""
        return Instance.open(
            self.project.home,
            read_only=read_only,
            wait=self.wait if wait is None else wait,
            catalog=self.catalog,
            crowded=crowded,
        )

    def own_catalog(self) -> Path:
        """The folder of the home's catalog. Raises `UsageError` where another host serves it."""
        served = catalog_address(self.project.home, self.catalog)
        if served is not None:
            raise UsageError(
                f"The catalog is served at {served}, and this takes its files.", remedy=f"Do it on {served.host}."
            )
        return catalog_folder(self.project.home)

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
        return [str(key) for key in _completing(context).graph.nodes if key.startswith(incomplete)]
    except Exception:  # a shell has no use for our errors
        return []


def selection_argument(default: str | None = None) -> Callable[[Any], Any]:
    """The argument SELECTION; several words select what any of them does. Without a default it has to be given."""

    def joined(context: click.Context, parameter: click.Parameter, words: Sequence[str]) -> str | None:
        if len(words) < 2:
            return words[0] if words else default
        return " or ".join(f"({word})" if " " in word else word for word in words)

    return click.argument(
        "selection",
        nargs=-1,
        required=default is None,
        metavar="SELECTION" if default is None else "[SELECTION]",
        callback=joined,
        shell_complete=complete_asset,
    )


def complete_partition(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Partition keys of the asset or selection that was given, for shell completion: the first hundred that match.

    Of a range, its end is completed once there are dots.
    """
    try:
        before, dots, start = incomplete.rpartition("..") if parameter.name == "ranges" else ("", "", incomplete)
        found = _matching_partitions(_completing(context), context.params, start)
        return [before + dots + key for key in islice(found, _MAX_COMPLETIONS)]
    except Exception:  # a shell has no use for our errors
        return []


def _completing(context: click.Context) -> App:
    """What a command that is being typed would work with."""
    app = context.find_root().obj
    root = context.find_root().params
    if isinstance(app, App):
        return app
    return App(
        home=root.get("home"),
        files=root.get("files") or (),
        modules=root.get("modules") or (),
        workspace=root.get("workspace"),
        catalog=root.get("catalog"),
        wait=0.0,  # whoever presses Tab does not wait for a run
    )


def _matching_partitions(app: App, given: Mapping[str, Any], start: str) -> Iterator[str]:
    """The keys that begin with `start`, each once."""
    from headwater.catalog.definitions.selection import coerce_selection
    from headwater.catalog.partitions.definition import PartitionsContext

    asset, selection = given.get("asset") or given.get("subject"), given.get("selection") or "*"
    keys = [app.graph.find(asset).key] if asset else coerce_selection(selection).resolve(app.graph)
    definitions = dict.fromkeys(app.graph[key].partitions for key in app.graph.sorted(keys))
    nodes = {node.partitions: node for node in app.graph if node.partitions in definitions}
    found = [node.partitions_def for node in nodes.values() if node.partitions_def is not None]
    if not any('"dynamic"' in text for text in nodes if text is not None):
        yield from _keys_of(found, PartitionsContext(SystemClock().now()), start)
        return
    with app.reading() as instance:
        yield from _keys_of(found, PartitionsContext(instance.clock.now(), instance.catalog.dynamic_keys), start)


def _keys_of(definitions: Sequence["PartitionsDefinition"], moment: "PartitionsContext", start: str) -> Iterator[str]:
    """The keys that definitions have at a moment and that begin with `start`, each once."""
    seen: set[str] = set()
    for definition in definitions:
        partitions = definition.at(moment)
        for at in range(0, partitions.count, _PAGE):
            found = [key for key in partitions.keys(at, at + _PAGE) if key.startswith(start)]
            yield from (key for key in found if key not in seen)
            seen.update(found)
