"""`instance`: what the settings in the home say, and whether they make sense."""

from collections.abc import Iterator, Mapping
from typing import Any, cast

import click

from headwater.catalog.instance import catalog_address
from headwater.catalog.settings import describe
from headwater.catalog.settings_file import load_settings
from headwater.cli import output
from headwater.cli.app import App, json_option, pass_app


@click.group()
def instance() -> None:
    """Show what the instance is told by its settings."""


@instance.command("show")
@json_option
@pass_app
def show(app: App, as_json: bool) -> None:
    """Check the settings in the home, and show what is in effect and where it comes from.

    A value of the environment is shown as env:NAME, a secret that stands in the file as ***.

    \b
    Examples:
      headwater instance show
      headwater --home /srv/warehouse instance show --json
    """
    home = app.project.home
    settings = load_settings(home)
    shown = describe(settings)
    served = catalog_address(home, app.catalog)
    warnings = list(settings.warnings)
    if served is not None:
        warnings.append(
            f"catalog: data without a root of its own and what steps print lie in {settings.artifacts(home)} of this "
            "host, and other hosts read them only where that folder is shared; a bucket serves all of them."
        )
    if as_json:
        output.say_json(
            {
                "home": str(home),
                "file": None if settings.file is None else str(settings.file),
                "settings": shown,
                "sources": settings.sources,
                "catalog": None if served is None else str(served),
                "warnings": warnings,
            }
        )
        return
    output.facts(
        [
            ("home", str(home)),
            ("catalog", None if served is None else str(served)),
            ("settings", str(settings.file or "none; these are the defaults")),
        ]
    )
    output.say()
    output.table(
        ["SETTING", "FROM", "VALUE"],  # the last may be long, and is cut to the terminal
        [(name, settings.sources.get(name, "default"), _text(value)) for name, value in _leaves(shown)],
    )
    for warning in warnings:
        output.note(f"Warning: {warning}")


def _leaves(shown: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Each value with its name; mappings of free form are one value."""
    for key, value in shown.items():
        name = f"{above}{key}"
        if isinstance(value, Mapping) and value and key not in ("config", "run_tags"):
            yield from _leaves(cast(Mapping[str, Any], value), f"{name}.")
        else:
            yield name, value


def _text(value: Any) -> str:
    import json

    return value if isinstance(value, str) else "-" if value is None else json.dumps(value)
