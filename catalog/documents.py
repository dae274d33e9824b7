"""Files that people write, as plain data: TOML, JSON, and YAML where PyYAML is installed. And which are settings."""

import tomllib
from pathlib import Path
from typing import Any, cast

from headwater.catalog.errors import ConfigError, UsageError

#: What is looked for in a home, the one that users of Dagster bring along only where there is no other.
SETTINGS_NAMES = ("instance.yaml", "instance.yml", "instance.toml")
FOREIGN_SETTINGS_NAME = "dagster.yaml"
#: Bytes of a document that are read at all: aliases can make a small file huge.
MAX_DOCUMENT = 1 << 20
#: How deep a YAML document may nest. Parsers of the other two end in a `RecursionError` that is caught.
MAX_DEPTH = 64


def find_settings(home: Path) -> Path | None:
    """The settings file of a home. Raises `ConfigError` where there are several."""
    found = [home / name for name in SETTINGS_NAMES if (home / name).is_file()]
    if len(found) > 1:
        raise ConfigError(
            f"{home} holds {' and '.join(path.name for path in found)}.", remedy="Keep one of them as the settings."
        )
    foreign = home / FOREIGN_SETTINGS_NAME
    return found[0] if found else foreign if foreign.is_file() else None


def read_document(path: Path) -> dict[str, Any]:
    """The mapping that a file holds, in the format that its name says: TOML, JSON or YAML. Raises `UsageError`."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_DOCUMENT + 1)
        text = content.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}.", remedy="Check the path and its permissions.") from None
    if len(content) > MAX_DOCUMENT:
        raise UsageError(f"{path} is larger than {MAX_DOCUMENT} bytes.", remedy="Split it.")
    data: Any
    try:
        if path.suffix == ".json":
            import json

            data = json.loads(text)
        elif path.suffix in (".yaml", ".yml"):
            data = _read_yaml(path, text)
        else:
            data = tomllib.loads(text)
    except ValueError as error:
        raise UsageError(f"{path} cannot be parsed: {error}.", remedy="Correct it.") from None
    except RecursionError:
        raise UsageError(f"{path} nests too deep.", remedy="Write it flatter.") from None
    if data is None and path.suffix in (".yaml", ".yml"):
        return {}  # nothing but comments
    if not isinstance(data, dict):
        raise UsageError(f"{path} holds no mapping.", remedy="It has to be a mapping of names at its top.")
    return cast(dict[str, Any], data)


def _read_yaml(path: Path, text: str) -> Any:
    try:
        import yaml  # pyright: ignore[reportMissingModuleSource]
    except ImportError:
        raise UsageError(
            f"Reading {path} takes PyYAML, which is not installed.",
            remedy="pip install 'headwater[yaml]', or write the file as TOML or JSON.",
        ) from None
    depth = 0
    try:
        for event in cast(Any, yaml).parse(text, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                raise UsageError(f"{path} uses YAML aliases.", remedy="Write the values out.")
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
                if depth > MAX_DEPTH:
                    raise UsageError(f"{path} nests deeper than {MAX_DEPTH} levels.", remedy="Write it flatter.")
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None
