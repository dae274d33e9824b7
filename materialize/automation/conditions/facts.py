"""What conditions ask of the world: sets of cells as masks over ordinals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from headwater.catalog.keys import AssetKey
from headwater.catalog.lineage.asset_graph import AssetGraph
from headwater.catalog.lineage.node import AssetNode, Dependency
from headwater.catalog.partitions.links import Links
from headwater.catalog.partitions.series import Int64s, int64s
from headwater.catalog.partitions.space import Partitions
from headwater.materialize.cell_table import Mask

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def microseconds(moment: datetime) -> int:
    """A moment as a number."""
    return round((moment - _EPOCH).total_seconds() * 1_000_000)


@dataclass(frozen=True, slots=True, eq=False)
class Updates:
    """The versions of an asset that were recorded since the evaluation before, the last one of each cell."""

    ordinals: Int64s
    #: In microseconds since 1970.
    times: Int64s
    run_ids: Sequence[str]
    version_ids: Sequence[str]


#: Those of an asset of which nothing was recorded.
NO_UPDATES = Updates(int64s([]), int64s([]), (), ())


class Facts(Protocol):
    """What conditions ask. Masks have an entry for each ordinal; whoever gets one leaves it as it is."""

    graph: AssetGraph
    #: The moment as of which everything is told.
    now: datetime

    @property
    def seen(self) -> int:
        """The number of the last event that it knows of."""
        ...

    def partitions(self, key: AssetKey) -> Partitions:
        """The partitions of an asset; of an unpartitioned one, its one cell."""
        ...

    def links(self, node: AssetNode, dep: Dependency) -> Links:
        """Which cells read which."""
        ...

    def missing(self, key: AssetKey) -> Mask:
        """Cells without a version."""
        ...

    def stale(self, key: AssetKey, transitive: bool) -> Mask:
        """Stale cells: those with a cause of their own, or all."""
        ...

    def in_run(self, key: AssetKey) -> Mask:
        """Cells that a run is to build which is not over."""
        ...

    def in_backfill(self, key: AssetKey) -> Mask:
        """Cells that a backfill is to build which is not over."""
        ...

    def failed(self, key: AssetKey) -> Mask:
        """Cells whose last attempt failed."""
        ...

    def updates(self, key: AssetKey) -> Updates:
        """What was recorded since the evaluation before."""
        ...

    def changed(self, key: AssetKey) -> Mask:
        """Cells that were updated, and not to the data that they had."""
        ...

    def makers(self, key: AssetKey, ordinals: Int64s) -> Sequence[str | None]:
        """The runs that made the current versions of cells."""
        ...

    def planned(self, run_id: str, key: AssetKey) -> Mask:
        """The cells of an asset that a run planned to build."""
        ...

    def tags(self, run_id: str) -> Mapping[str, str]:
        """The tags of a run."""
        ...

    def freshness(self, key: AssetKey) -> str:
        """The state of an asset's freshness policy: PASS, WARN, FAIL, or UNKNOWN."""
        ...

    def cron(self, cron: str, zone: str, after: datetime) -> datetime | None:
        """The last instant later than `after`, and not later than now, at which a schedule was due."""
        ...

    def selected(self, selection: Any) -> set[AssetKey]:
        """The assets in a selection."""
        ...
