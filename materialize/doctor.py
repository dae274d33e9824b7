"""Whether the data that a catalog speaks of are there, and what lies beside them that nobody speaks of.

A root is listed once, and each version looked up in the listing: a hundred thousand files take seconds, and an object
store a request a thousand. Which files nobody refers to is decided in an order in which nothing is lost: first the
listing; then the cells of running runs; then the versions. A version that is committed meanwhile is among the one
or the other, and a file that is written meanwhile was not listed.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import unquote

from headwater.catalog.errors import HeadwaterError, StorageError
from headwater.catalog.instance import Instance
from headwater.catalog.keys import AssetKey
from headwater.catalog.records import OPEN, Pointer, RunStatus
from headwater.io.file_manager import FileIOManager
from headwater.io.local import STAGING
from headwater.io.location import moved_path
from headwater.io.pointers import Owner, damaged, missing, verify_stored
from headwater.io.store import REMOTE_SCHEMES, Store, StoredFile, locate, store_for
from headwater.materialize.io_managers import IOManagers

if TYPE_CHECKING:
    from headwater.catalog.definitions.definitions import Definitions

#: How old a file is that nobody refers to, before anybody removes it: far longer than a commit takes.
GRACE = timedelta(hours=24)

#: A version's file is called by its identifier.
_VERSION = re.compile(r"([0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12})\.[^/]+")
_ADDRESSES = ("file://", *(f"{scheme}://" for scheme in REMOTE_SCHEMES))
_ENDED = [status for status in RunStatus if status.is_over]
_PAGE = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Orphan:
    """A file that no version and no running run refers to."""

    uri: str
    bytes: int
    modified: datetime
    #: Whether it is known to be this catalog's: in the home's own folder, or planned by a run that it knows.
    is_ours: bool
    #: Whether it is older than the grace time.
    is_old: bool
    removed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DataDiagnosis:
    """What was found of the data."""

    #: The roots that were listed.
    roots: tuple[str, ...]
    #: How many versions were looked at, and the bytes of their files.
    versions: int
    bytes: int
    #: Versions that only their IO manager could look at.
    elsewhere: int
    problems: tuple[HeadwaterError, ...]
    #: What could not be found out.
    notes: tuple[HeadwaterError, ...]
    orphans: tuple[Orphan, ...]


@dataclass(frozen=True, slots=True)
class _Version:
    asset: AssetKey
    partition: str | None
    version_id: str
    created: datetime
    pointer: Pointer
    is_current: bool
    seq: int

    @property
    def owner(self) -> Owner:
        return Owner(self.asset, self.partition, self.version_id)


@dataclass(frozen=True, slots=True)
class _Root:
    """A place below which data lie."""

    store: Store
    #: The home's own folder, which no other catalog writes to.
    is_own: bool


@dataclass(frozen=True, slots=True)
class _Listed:
    root: _Root
    file: StoredFile


def diagnose(
    instance: Instance,
    definitions: "Definitions | None" = None,
    *,
    every_version: bool = False,
    checksums: bool = False,
    fix: bool = False,
    grace: timedelta = GRACE,
) -> DataDiagnosis:
    """Look for the files of current versions, or of every version, and for files that belong to none.

    Without `definitions`, data are looked for where their pointers say, which reaches no store that needs options of
    its own. With `checksums` every byte is read. With `fix`, orphans of ours that are older than `grace` are removed.
    """
    began = instance.clock.now()
    notes: list[HeadwaterError] = []
    stores = _Stores(instance, definitions, notes)
    made = _versions(instance)
    roots = stores.roots(made)
    listed, unlisted = _list(roots, notes)
    running = _running(instance)  # before the versions: of a run that ends in between, they are there by then
    made += _versions(instance, after=made[-1].seq if made else 0)
    kept = running | {version.version_id for version in made}
    versions = [version for version in made if every_version or version.is_current]
    problems: list[HeadwaterError] = []
    size = elsewhere = 0
    for version in versions:
        try:
            if not version.pointer.uri.startswith(_ADDRESSES):
                elsewhere += 1
                continue
            store, path, actual = _find(version, listed, unlisted, stores, began)
            size += actual
            if version.pointer.bytes is not None and actual != version.pointer.bytes:
                reason = f"it has {actual:,} bytes instead of {version.pointer.bytes:,}"
                raise damaged(version.pointer.uri, version.owner, reason)
            if checksums and version.pointer.checksum is not None:
                verify_stored(store, path, version.pointer, owner=version.owner)
        except HeadwaterError as error:
            problems.append(error)
    orphans = _told_apart(instance, _orphans(listed, kept, began - grace))
    if fix:
        orphans = [_removed(orphan, listed, problems) for orphan in orphans]
    for root in roots:
        problems += _uploads(root.store, began - grace, notes)
    return DataDiagnosis(
        roots=tuple(root.store.root for root in roots),
        versions=len(versions) - elsewhere,
        bytes=size,
        elsewhere=elsewhere,
        problems=tuple(problems),
        notes=tuple(notes),
        orphans=tuple(sorted(orphans, key=lambda orphan: orphan.uri)),
    )


class _Stores:
    """Where assets are stored: by the project's IO managers, or else by what pointers say."""

    def __init__(self, instance: Instance, definitions: "Definitions | None", notes: list[HeadwaterError]) -> None:
        self._own = store_for(instance.home / "data")
        self._managers = None if definitions is None else IOManagers(definitions, None, instance.home)
        self._notes = notes
        self._by_asset: dict[AssetKey, Store | None] = {}
        self.found: list[_Root] = []
        self._defined = [] if definitions is None else [key for asset in definitions.assets for key in asset.keys]

    def of(self, asset: AssetKey) -> Store | None:
        """What an asset is stored in now; None where only its IO manager knows."""
        if self._managers is None:
            return self._own
        if asset not in self._by_asset:
            store = None
            try:
                manager = self._managers.for_output(asset)
                store = manager.store if isinstance(manager, FileIOManager) else None
            except HeadwaterError as error:
                self._notes.append(
                    StorageError(f"What stores `{asset}` cannot be set up: {error.message}", remedy=error.remedy)
                )
            self._by_asset[asset] = store
        return self._by_asset[asset]

    def roots(self, versions: "Iterable[_Version]") -> list[_Root]:
        """Every root that data of the project may lie below, the home's own first; none lies in another."""
        found = {self._own.root: _Root(self._own, True)}
        for asset in self._defined:
            store = self.of(asset)
            if store is not None:
                found.setdefault(store.root, _Root(store, False))
        for version in versions:
            uri = version.pointer.uri
            if not uri.startswith(_ADDRESSES) or any(uri.startswith(f"{root}/") for root in found):
                continue
            below = moved_path(uri, version.asset, version.version_id)
            if below is not None:
                plain = unquote(uri.removeprefix("file://")) if uri.startswith("file://") else uri
                store = store_for(plain[: -len(below) - 1])
                found.setdefault(store.root, _Root(store, False))
        self.found = [
            root
            for address, root in found.items()
            if not any(address.startswith(f"{other}/") for other in found if other != address)
        ]
        return self.found

    def holding(self, uri: str) -> Store | None:
        """The root's store that an address lies below."""
        return next((root.store for root in self.found if root.store.path_of(uri) is not None), None)


def _versions(instance: Instance, *, after: int = 0) -> "list[_Version]":
    """The versions that are stored, oldest first; with `after`, those after that event."""
    answer = instance.catalog.query(
        "select asset, partition, version_id::varchar, created, uri, format, bytes, checksum, is_current, seq "
        "from materializations where uri is not null and seq > ? order by seq",
        [after],
    )
    return [
        _Version(
            AssetKey(asset),
            partition,
            version_id,
            created.replace(tzinfo=UTC),
            Pointer(uri=uri, format=format_name, bytes=size, checksum=checksum),
            is_current,
            seq,
        )
        for asset, partition, version_id, created, uri, format_name, size, checksum, is_current, seq in answer.rows
    ]


def _list(roots: Iterable[_Root], notes: list[HeadwaterError]) -> tuple[dict[str, _Listed], set[str]]:
    """The files below the roots by their addresses; the roots of which there is no list."""
    listed: dict[str, _Listed] = {}
    unlisted: set[str] = set()
    for root in roots:
        try:
            for file in root.store.files():
                listed[root.store.uri(file.path)] = _Listed(root, file)
        except HeadwaterError as error:
            unlisted.add(root.store.root)
            notes.append(StorageError(f"{root.store.root} could not be listed: {error.message}", remedy=error.remedy))
    return listed, unlisted


def _find(
    version: "_Version", listed: Mapping[str, _Listed], unlisted: set[str], stores: _Stores, began: datetime
) -> tuple[Store, str, int]:
    """Where a version lies, and how large it is. Raises `MissingDataError`."""
    uri = version.pointer.uri
    found = listed.get(uri)
    store = stores.of(version.asset)
    if found is None and store is not None:
        moved = moved_path(uri, version.asset, version.version_id)
        found = None if moved is None else listed.get(store.uri(moved))
    if found is not None:
        return found.root.store, found.file.path, found.file.size
    # A list tells everything of what was there before it; what is newer, or in no list, is asked for by itself.
    holding = stores.holding(uri)
    if holding is not None and holding.root not in unlisted and version.created < began:
        raise missing(version.pointer, version.owner)
    place, path = locate(uri) if holding is None else (holding, holding.path_of(uri) or "")
    try:
        return place, path, place.size(path)
    except FileNotFoundError:
        raise missing(version.pointer, version.owner) from None


def _running(instance: Instance) -> set[str]:
    """The identifiers of the runs that have not ended, and of the versions that they are to make."""
    running: set[str] = set()
    for run in _runs(instance, list(OPEN)):
        running.add(run)
        running.update(cell.version_id for cell in instance.catalog.planned(run))
    return running


def _orphans(listed: Mapping[str, _Listed], kept: Collection[str], before: datetime) -> Iterator[Orphan]:
    """The files of versions that are not kept. What is called otherwise is none of ours."""
    for uri, found in listed.items():
        identifiers = _identifiers(found.file.path)
        if identifiers and not any(identifier in kept for identifier in identifiers):
            yield Orphan(
                uri=uri,
                bytes=found.file.size,
                modified=found.file.modified,
                is_ours=found.root.is_own,
                is_old=found.file.modified < before,
            )


def _identifiers(path: str) -> tuple[str, ...]:
    """The identifiers in the path of a file of ours: of its version, and, while it is staged, of its run."""
    folder, _, name = path.rpartition("/")
    version = _VERSION.fullmatch(name)
    if version is None:
        return ()
    run = folder.removeprefix(f"{STAGING}/")
    return (version[1],) if run == folder else (version[1], run)


def _told_apart(instance: Instance, found: Iterable[Orphan]) -> list[Orphan]:
    """Those in roots that other catalogs may share are ours where a run of this catalog planned their version."""
    orphans = list(found)
    unknown = {_identifiers(orphan.uri)[0] for orphan in orphans if not orphan.is_ours}
    planned: set[str] = set()
    runs = _runs(instance, _ENDED) if unknown else iter(())
    while len(planned) < len(unknown) and (run := next(runs, None)) is not None:
        planned |= unknown & {cell.version_id for cell in instance.catalog.planned(run)}
    return [
        orphan if orphan.is_ours else replace(orphan, is_ours=_identifiers(orphan.uri)[0] in planned)
        for orphan in orphans
    ]


def _runs(instance: Instance, statuses: list[RunStatus]) -> Iterator[str]:
    """The identifiers of all runs of some statuses, newest first."""
    before = None
    while runs := instance.catalog.runs(statuses=statuses, limit=_PAGE, before=before):
        yield from (run.run_id for run in runs)
        before = runs[-1].run_id


def _removed(orphan: Orphan, listed: Mapping[str, _Listed], problems: list[HeadwaterError]) -> Orphan:
    """An orphan, removed if it may be."""
    if not (orphan.is_ours and orphan.is_old):
        return orphan
    found = listed[orphan.uri]
    try:
        found.root.store.delete(found.file.path)
    except HeadwaterError as error:
        problems.append(error)
        return orphan
    return replace(orphan, removed=True)


def _uploads(store: Store, before: datetime, notes: list[HeadwaterError]) -> Iterator[HeadwaterError]:
    """Uploads that were begun long ago, and take room that nothing else shows."""
    try:
        uploads = store.uploads()
    except HeadwaterError as error:
        notes.append(error)
        return
    if uploads is None:
        notes.append(
            StorageError(
                f"Unfinished uploads to {store.root} cannot be listed here.",
                remedy="On S3 they can with boto3 installed. A lifecycle rule of the bucket ends them by itself.",
            )
        )
        return
    for upload in uploads:
        if upload.modified < before:
            yield StorageError(
                f"An upload to {store.uri(upload.path)} was begun {upload.modified:%Y-%m-%d %H:%M} and never ended.",
                remedy="Let a lifecycle rule of the bucket abort incomplete uploads after a day.",
            )
