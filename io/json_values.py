"""An IO manager for plain values only."""

from typing import Any

from headwater.catalog.errors import UnstorableValueError
from headwater.io.base import OutputContext
from headwater.io.file_manager import FileIOManager, StagedOutput
from headwater.io.representation import Representation


class JsonIOManager(FileIOManager):
    """Keeps JSON-able values as JSON (see `headwater.io.json_codec`), and refuses everything else.

    Takes the settings of `FileIOManager`.
    """

    def stage_frame(self, context: OutputContext, frame: Any, form: Representation) -> StagedOutput:
        """Refuse a frame."""
        raise UnstorableValueError(
            f"{context.asset_key} returned a {form}, and JsonIOManager keeps plain values only.",
            remedy="Use FileIOManager or ParquetIOManager, which keep frames.",
        )
