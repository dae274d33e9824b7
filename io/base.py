"""What an IO manager is, and what it is given.

An IO manager turns what a step returned into stored bytes and back. User classes implement `handle_output` and
`load_input`. The built-in file managers implement `stage` instead: writing and publishing are apart, so that
the engine may check what was written before anybody can see it and may overlap the syncs of independent steps.
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from headwater.catalog.definitions.resource import ConfigurableResource, describe_fields
from headwater.catalog.keys import AssetKey
from headwater.catalog.records import Pointer
from headwater.io.representation import Representation


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputContext:
    """What an IO manager knows of the output it is to store."""

    asset_key: AssetKey
    #: None for an unpartitioned asset.
    partition_key: str | None = None
    #: The identifier of the version being written: fresh, and never used again.
    version_id: str
    run_id: str
    step_key: str
    #: The return annotation: a type, the text of one that could not be evaluated, or None.
    annotation: Any = None
    #: The definition's metadata, as the user wrote it.
    definition_metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])
    #: Where the previous version lies; None for the first.
    previous: Pointer | None = None
    #: True when the asset's code is not the one that made `previous`: then its schema may change freely.
    code_changed: bool = True
    #: What to write into the file for whoever finds it without a catalog: run, code version, input versions.
    provenance: Mapping[str, str] = field(default_factory=dict[str, str])
    #: Where an IO manager adds metadata entries to the materialization.
    added_metadata: dict[str, Any] = field(default_factory=dict[str, Any])
    log: logging.Logger = field(default_factory=lambda: logging.getLogger("headwater"))

    @property
    def has_partition_key(self) -> bool:
        """Whether the output is one partition of an asset."""
        return self.partition_key is not None

    def add_output_metadata(self, metadata: Mapping[str, Any]) -> None:
        """Attach metadata to the materialization being made."""
        self.added_metadata.update(metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class InputContext:
    """What an IO manager knows of the version it is to load."""

    #: The upstream asset, the one that is loaded.
    asset_key: AssetKey
    partition_key: str | None = None
    version_id: str
    #: What the manager that stored it returned. A custom manager that returned none finds an empty one.
    pointer: Pointer
    #: The parameter's annotation: a type, the text of one that could not be evaluated, or None.
    annotation: Any = None
    #: The columns to read; None for all.
    columns: tuple[str, ...] | None = None
    #: `AssetIn(metadata=…)`.
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])
    definition_metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])
    log: logging.Logger = field(default_factory=lambda: logging.getLogger("headwater"))

    @property
    def has_partition_key(self) -> bool:
        """Whether one partition of an asset is loaded."""
        return self.partition_key is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPartition:
    """One partition of an asset, as it is stored."""

    partition_key: str
    version_id: str
    pointer: Pointer


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionsInputContext:
    """What an IO manager knows of the partitions of one asset that it is to load together."""

    #: The upstream asset, the one that is loaded.
    asset_key: AssetKey
    #: In the order of the asset's partitions definition; there may be none.
    partitions: tuple[StoredPartition, ...]
    #: The parameter's annotation: a type, the text of one that could not be evaluated, or None.
    annotation: Any = None
    #: The columns to read; None for all.
    columns: tuple[str, ...] | None = None
    #: Columns to add to frames, at their end: name → the text of each partition, in the order of `partitions`.
    partition_columns: Mapping[str, Sequence[str]] = field(default_factory=dict[str, Sequence[str]])
    #: `AssetIn(metadata=…)`.
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])
    definition_metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])
    log: logging.Logger = field(default_factory=lambda: logging.getLogger("headwater"))

    def of_partition(self, partition: StoredPartition, annotation: Any) -> InputContext:
        """The context that loads one of them by itself, as `annotation`."""
        return InputContext(
            asset_key=self.asset_key,
            partition_key=partition.partition_key,
            version_id=partition.version_id,
            pointer=partition.pointer,
            annotation=annotation,
            columns=self.columns,
            metadata=self.metadata,
            definition_metadata=self.definition_metadata,
            log=self.log,
        )


class Staged(ABC):
    """An output that is written, and that nobody can see yet.

    `pointer` says where it will lie and what it is; `data_version` is the hash of its content, None where the
    manager does not know it.
    """

    pointer: Pointer
    data_version: str | None
    #: What a person should know about how it was stored: warnings, a sentence each.
    notes: tuple[str, ...] = ()

    @abstractmethod
    def publish(self) -> None:
        """Make it durable at its place. Only after this may the catalog point at it. Thread-safe, once."""

    @abstractmethod
    def discard(self) -> None:
        """Remove every trace of it, staged or published. Never raises; only for what was not committed."""


class IOManager(ABC):
    """Stores what assets return and loads what they ask for."""

    #: True when what it stores is seen by this process only, so that every step has to run in it.
    in_process_only: ClassVar[bool] = False

    def bind(self, home: Path) -> None:
        """Learn where the project's home is: called once, before anything is stored or loaded."""

    @abstractmethod
    def handle_output(self, context: OutputContext, obj: Any) -> Pointer | None:
        """Store `obj` as one version of one cell, durably, and say where.

        Returning None is for managers that find it again by `asset_key` and `partition_key` alone; such a
        manager overwrites and so keeps no earlier versions.
        """

    @abstractmethod
    def load_input(self, context: InputContext) -> Any:
        """The value that was stored, in the representation that `context.annotation` asks for."""

    def load_partitions(self, context: PartitionsInputContext) -> Any:
        """Several partitions at once, as `context.annotation` asks for them.

        `dict[str, T]`, or another mapping: always a dict, partition key → value, each loaded as T. A type of frame: one
        frame of all of them, in their order; columns that some of them lack are null there. No annotation:
        one frame where all of them are stored as frames, of the kind that the first one's producer returned; else
        a dict. Without any partition a dict is empty, and everything else None.

        Raises `UserCodeError` for another annotation, for frames that do not go together and for a column that is none,
        and what `load_input` raises.
        """
        from headwater.io.partitions import load_partitions

        return load_partitions(self, context)

    def load_united(self, context: PartitionsInputContext, representation: Representation) -> Any:
        """One frame, of the kind `representation`, of several partitions; there is at least one.

        This default loads them one by one, and keeps streams streams. Raises as `load_partitions`.
        """
        from headwater.io.partitions import load_united

        return load_united(self, context, representation)

    def stage(self, context: OutputContext, obj: Any) -> Staged:
        """Write `obj` so that nobody sees it before `publish`.

        This default, for managers that cannot do the two apart, stores it at once.
        """
        pointer = self.handle_output(context, obj)
        return _Stored(pointer or Pointer(uri="", format=type(self).__qualname__))

    def folder_of(self, asset_key: AssetKey, partition_key: str | None) -> str | None:
        """The address below which a version's files start with its identifier, so that leftovers can be swept."""
        return None

    def check_writable(self, asset_key: AssetKey, partition_key: str | None) -> None:
        """Called before any step of a run that is to write this cell. Raises `StorageError` where it could not."""

    def sweep(self, folder: str, version_id: str, run_id: str) -> None:
        """Remove what a killed run left of a version that was never committed. Idempotent."""

    def delete(self, pointer: Pointer) -> None:
        """Remove the data of a version that the catalog gave up. Idempotent."""

    def fingerprint(self) -> Any:
        """JSON-able settings that decide what is stored and where: when they change, the data is stale.

        By default the fields of a manager that is a `ConfigurableResource` as well.
        """
        return describe_fields(self) if isinstance(self, ConfigurableResource) else {}


class ConfigurableIOManager(ConfigurableResource, IOManager):
    """An IO manager with fields. Subclass it, annotate them and write the two methods.

    What its fields take from the environment is looked up when it is used. One that is among the resources is set up
    and torn down by the run, as every `ConfigurableResource`.
    """


class _Stored(Staged):
    """What a manager stored in one go."""

    def __init__(self, pointer: Pointer) -> None:
        self.pointer = pointer
        self.data_version = None

    def publish(self) -> None:
        pass

    def discard(self) -> None:
        pass
