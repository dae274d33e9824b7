"""An instance: one home folder with its catalog, opened."""

import os
import weakref
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

from headwater.catalog.clock import Clock, SystemClock
from headwater.catalog.config import EnvVar
from headwater.catalog.documents import find_settings
from headwater.catalog.errors import InvalidKeyError
from headwater.catalog.keys import validate_partition_key

if TYPE_CHECKING:
    from headwater.catalog.definitions.results import AssetMaterialization, AssetObservation
    from headwater.catalog.settings import Settings
    from headwater.catalog.storage.base import CatalogWriter
    from headwater.catalog.storage.sharing.remote import Address

#: Seconds to wait for another process that holds the catalog.
DEFAULT_WAIT = 10.0
#: The variable that says where a catalog is served.
SERVED_AT = "HEADWATER_CATALOG"


class Instance:
    """A home (catalog, logs, data without a root of its own) and its open catalog.

    Use it as a context manager, or close it.
    """

    #: The runs that this process carries out right now, in whatever thread.
    running: ClassVar[set[str]] = set()

    def __init__(
        self,
        home: Path,
        catalog: "CatalogWriter",
        clock: Clock,
    ) -> None:
        self.home = home
        self.catalog = catalog
        self.clock = clock
        self._remove: Callable[[], object] | None = None

    @staticmethod
    def open(
        home: str | Path = ".headwater",
        *,
        read_only: bool = False,
        wait: float = DEFAULT_WAIT,
        clock: Clock | None = None,
        catalog: str | None = None,
        crowded: bool = False,
    ) -> "Instance":
        """Open a home, made if there is none, together with any number of other processes.

        With `read_only`, nothing is made; a home without a catalog is then an empty one, unless something is left of a
        catalog. Waits up to `wait` seconds for a process that holds the catalog and cannot share it. Raises `BusyError`
        naming that one, and `CatalogError`.

        The catalog is the one that another host serves at the URL `catalog`, where that is given, or the variable
        HEADWATER_CATALOG, or `catalog.url` in the settings. Raises `UnreachableCatalogError` and `AccessDeniedError`.

        With `crowded`, others are expected: whoever comes next need not wait until this process makes way.
        """
        path = Path(home).absolute()
        clock = clock or SystemClock()
        address = catalog_address(path, catalog)
        if address is not None:
            from headwater.catalog.storage.sharing.shared import SharedStorage

            return Instance(path, SharedStorage(address, wait=wait, read_only=read_only, clock=clock), clock)
        folder = catalog_folder(path)
        if read_only and not (folder / "catalog.duckdb").exists():
            from headwater.catalog.storage.duckdb.opening import check_absent
            from headwater.catalog.storage.duckdb.unmade import UnmadeStorage

            check_absent(folder)
            return Instance(path, UnmadeStorage(), clock)
        from headwater.catalog.storage.sharing.shared import SharedStorage

        storage = SharedStorage(folder, wait=wait, read_only=read_only, clock=clock, crowded=crowded)
        return Instance(path, storage, clock)

    @staticmethod
    def ephemeral(*, clock: Clock | None = None) -> "Instance":
        """An instance that leaves nothing behind: its catalog is in memory, its data in a temporary folder."""
        import shutil
        import tempfile

        from headwater.catalog.storage.memory import MemoryStorage

        home = Path(tempfile.mkdtemp(prefix="headwater-"))
        instance = Instance(home, MemoryStorage(), clock or SystemClock())
        instance._remove = weakref.finalize(instance, shutil.rmtree, home, ignore_errors=True)
        return instance

    @cached_property
    def settings(self) -> "Settings":
        """What `instance.yaml` in the home says, or `instance.toml`; read when it is first asked for.

        Raises `ConfigError` naming the key that makes no sense.
        """
        from headwater.catalog.settings_file import load_settings

        return load_settings(self.home)

    @property
    def is_ephemeral(self) -> bool:
        """Whether it leaves nothing behind, so that no other process can open it."""
        return self._remove is not None

    @property
    def artifacts(self) -> Path:
        """Where data without a root of its own and compute logs lie: the home, unless the settings say otherwise."""
        return self.home if find_settings(self.home) is None else self.settings.artifacts(self.home)

    def report_runless_asset_event(self, asset_event: "AssetMaterialization | AssetObservation") -> None:
        """Record what was made or seen elsewhere: `headwater.report`, of assets as the catalog has recorded them."""
        import headwater

        headwater.report(asset_event, instance=self)

    def add_dynamic_partitions(self, name: str, keys: Sequence[str]) -> None:
        """Add keys to the dynamic partitions `name`, behind those that are there; those that are there stay.

        Raises `InvalidKeyError` for a key that cannot be one; then none is added.
        """
        if isinstance(keys, str):
            raise InvalidKeyError("Partition keys are given as a list of texts, not as one.", remedy="Write [key].")
        added = tuple(validate_partition_key(key) for key in keys)
        if added:
            self._change_keys(name, added=added)

    def delete_dynamic_partition(self, name: str, key: str) -> None:
        """Delete a key of the dynamic partitions `name`, if it is there. What was built for it stays."""
        self.delete_dynamic_partitions(name, [key])

    def delete_dynamic_partitions(self, name: str, keys: Sequence[str]) -> None:
        """Delete keys of the dynamic partitions `name`, those that are there. What was built for them stays."""
        deleted = tuple(validate_partition_key(key) for key in keys)
        if deleted:
            self._change_keys(name, deleted=deleted)

    def has_dynamic_partition(self, name: str, key: str) -> bool:
        """Whether the dynamic partitions `name` have `key`."""
        return self.catalog.dynamic_keys.indexes(name, [key])[0] >= 0

    def get_dynamic_partitions(self, name: str) -> list[str]:
        """The keys of the dynamic partitions `name`, in the order they were added in."""
        keys = self.catalog.dynamic_keys
        return list(keys.slice(name, 0, keys.count(name)))

    def _change_keys(self, name: str, *, added: tuple[str, ...] = (), deleted: tuple[str, ...] = ()) -> None:
        from headwater.catalog.events import DynamicPartitionsChanged

        name = validate_partition_key(name, "name of dynamic partitions")
        now = self.clock.now()
        self.catalog.append([DynamicPartitionsChanged(time=now, name=name, added=added, deleted=deleted)])

    def close(self) -> None:
        """Let go of the catalog; idempotent. An ephemeral instance's data is gone then."""
        self.catalog.close()
        if self._remove is not None:
            self._remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def catalog_folder(home: Path) -> Path:
    """Where the catalog of a home and its lock lie: there, unless its settings say otherwise. Raises `ConfigError`."""
    if find_settings(home) is None:
        return home
    from headwater.catalog.settings_file import load_settings

    return load_settings(home).catalog_folder(home)


def catalog_address(home: Path, url: str | None = None) -> "Address | None":
    """Where the catalog of a home is served: at `url`, or where the environment or its settings say; None for nowhere.

    Raises `ConfigError`, and `UsageError` for an address or a token that is none, or not there.
    """
    url = url or os.environ.get(SERVED_AT)
    if url is None and find_settings(home) is None:
        return None
    from headwater.catalog.settings import ServedCatalog
    from headwater.catalog.settings_file import load_settings

    settings = load_settings(home)
    served = settings.catalog
    configured = served.url.resolve("catalog:url") if isinstance(served.url, EnvVar) else served.url
    if not (url or configured):
        return None
    from headwater.catalog.storage.sharing.remote import Address
    from headwater.catalog.storage.sharing.tokens import VARIABLE, check_token, read_token

    if url not in (None, configured):
        served = ServedCatalog()  # another server is told nothing of this one's token
    if served.token_file is not None:
        token = read_token(settings.folder(served.token_file, home))
    else:
        token = served.token or EnvVar(VARIABLE)
        source = "catalog:token"
        if isinstance(token, EnvVar):
            source = token.name
            token = token.resolve(f"The catalog at {url or configured}")
        token = check_token(token, source)
    ca_file = None if served.ca_file is None else settings.folder(served.ca_file, home)
    return Address.of(str(url or configured), token, ca_file)
