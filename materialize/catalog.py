"""A home as an object to read from."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from headwater.catalog.instance import DEFAULT_WAIT, Instance
from headwater.catalog.keys import AssetKey, CoercibleToAssetKey
from headwater.catalog.records import Materialization
from headwater.catalog.storage.base import QueryResult
from headwater.materialize.loading import home_of, load_asset, open_to_read
from headwater.materialize.sql import query_catalog


class Catalog:
    """A home to read from, in a notebook or a script: `catalog["orders"]` is a lazy frame.

    It holds no lock between calls, so runs can go on beside it.
    """

    def __init__(self, home: Path, wait: float = DEFAULT_WAIT) -> None:
        self.home = home
        self._wait = wait

    @staticmethod
    def open(home: str | Path | None = None, *, wait: float = DEFAULT_WAIT) -> "Catalog":
        """The catalog of a home; without one, of the project that the current folder is in."""
        return Catalog(home_of(home), wait)

    def __getitem__(self, key: CoercibleToAssetKey) -> Any:
        """The current version of an asset, lazily where it is a table."""
        return self.load(key)

    def load(
        self,
        key: CoercibleToAssetKey,
        *,
        as_type: Any = None,
        columns: Sequence[str] | None = None,
        partition: str | None = None,
        partition_range: str | tuple[str, str] | None = None,
        version: str | None = None,
    ) -> Any:
        """A version of an asset, a partition of it, or several; see `load_asset`."""
        with self._opened() as instance:
            return load_asset(
                key,
                as_type=as_type,
                columns=columns,
                partition=partition,
                partition_range=partition_range,
                version=version,
                instance=instance,
            )

    def assets(self) -> list[AssetKey]:
        """The keys of all assets that have been materialized."""
        with self._opened() as instance:
            return sorted(instance.catalog.latest())

    def versions(
        self, key: CoercibleToAssetKey, *, partition: str | None = None, limit: int = 100
    ) -> list[Materialization]:
        """An asset's versions, newest first; of one partition, if given."""
        with self._opened() as instance:
            return instance.catalog.materializations(AssetKey(key), partition, limit=limit)

    def sql(self, query: str, parameters: Sequence[Any] = ()) -> QueryResult:
        """The answer to a query over the catalog's views and the assets' data, each under its key."""
        with self._opened() as instance:
            return query_catalog(instance, query, parameters)

    def _opened(self) -> AbstractContextManager[Instance]:
        return open_to_read(self.home, wait=self._wait)

    def __repr__(self) -> str:
        return f"<catalog {self.home}>"
