"""What user code is given while its step runs."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from headwater.catalog.definitions.results import entries
from headwater.catalog.errors import UserCodeError
from headwater.catalog.keys import AssetKey


@dataclass(frozen=True, slots=True, kw_only=True)
class RunInfo:
    """The run that a step is part of."""

    run_id: str
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    job_name: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunContext:
    """What a resource is set up with."""

    run: RunInfo
    log: logging.Logger

    @property
    def run_id(self) -> str:
        """The run's identifier."""
        return self.run.run_id


class AssetExecutionContext:
    """What an asset function's `context` parameter receives.

    `log` is a logger whose lines become events of the run; `resources` holds what `required_resource_keys` asked for.
    """

    __headwater_context__ = True

    def __init__(
        self,
        *,
        step_key: str,
        outputs: Mapping[str, AssetKey],
        run: RunInfo,
        log: logging.Logger,
        resources: Mapping[str, Any] | None = None,
        config: Any = None,
        partition_key: str | None = None,
        retry_number: int = 0,
    ) -> None:
        self.run = run
        self.log = log
        #: The resources, as attributes.
        self.resources = SimpleNamespace(**(resources or {}))
        #: The bound configuration; None for a step that takes none.
        self.config = config
        #: 0 for the first attempt.
        self.retry_number = retry_number
        #: The step's name.
        self.step_key = step_key
        self._outputs = dict(outputs)
        self._partition_key = partition_key
        self._metadata: dict[str, dict[str, Any]] = {}

    @property
    def run_id(self) -> str:
        """The run's identifier."""
        return self.run.run_id

    @property
    def asset_key(self) -> AssetKey:
        """The asset being computed. Raises `UserCodeError` in a step with several."""
        if len(self._outputs) != 1:
            raise UserCodeError(
                f"The step `{self.step_key}` computes {len(self._outputs)} assets, so context.asset_key is not one.",
                remedy="Use context.selected_asset_keys.",
            )
        return next(iter(self._outputs.values()))

    @property
    def selected_asset_keys(self) -> frozenset[AssetKey]:
        """The assets that this run wants of the step."""
        return frozenset(self._outputs.values())

    @property
    def selected_output_names(self) -> frozenset[str]:
        """The names of the outputs that this run wants of the step."""
        return frozenset(self._outputs)

    @property
    def has_partition_key(self) -> bool:
        """Whether the step computes one partition."""
        return self._partition_key is not None

    @property
    def partition_key(self) -> str:
        """The partition being computed. Raises `UserCodeError` for an unpartitioned asset."""
        if self._partition_key is None:
            raise UserCodeError(
                f"`{self.step_key}` is not partitioned, so there is no partition key.",
                remedy="Ask context.has_partition_key first.",
            )
        return self._partition_key

    def add_output_metadata(
        self, metadata: Mapping[str, Any], output_name: str | None = None, asset_key: AssetKey | str | None = None
    ) -> None:
        """Attach metadata to the materialization being made; in a step with several, say of which output or asset.

        Raises `UserCodeError`.
        """
        if asset_key is not None:
            named = [name for name, key in self._outputs.items() if key == asset_key]
            output_name = named[0] if named else str(asset_key)
        if output_name is None:
            output_name = next(iter(self._outputs)) if len(self._outputs) == 1 else ""
        if output_name not in self._outputs:
            raise UserCodeError(
                f"The step `{self.step_key}` has no output '{output_name}' to add metadata to.",
                remedy=f"Its outputs are {', '.join(self._outputs)}.",
            )
        self._metadata.setdefault(output_name, {}).update(entries(metadata, "The metadata of an output"))

    def output_metadata(self, output_name: str) -> dict[str, Any]:
        """What was added for an output so far."""
        return dict(self._metadata.get(output_name, {}))


def build_asset_context(
    *,
    resources: Mapping[str, Any] | None = None,
    config: Any = None,
    partition_key: str | None = None,
    asset_key: AssetKey | str = "asset",
    run_id: str = "00000000-0000-0000-0000-000000000000",
) -> AssetExecutionContext:
    """A context for calling an asset function directly, in a unit test."""
    key = AssetKey(asset_key)
    return AssetExecutionContext(
        step_key=str(key),
        outputs={"result": key},
        run=RunInfo(run_id=run_id),
        log=logging.getLogger("headwater.test"),
        resources=resources,
        config=config,
        partition_key=partition_key,
    )
