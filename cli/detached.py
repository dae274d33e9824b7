"""A command that is given again to a process of its own, and goes on there."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import click

from headwater.catalog.instance import Instance
from headwater.cli import output
from headwater.cli.app import App
from headwater.materialize.launching import log_file, spawn

#: Seconds between two looks at whether it has begun.
_LOOK = 0.05
#: Options that say how the answer is to be, and not what is to be done.
_OURS = ("detach", "as_json")


def words(context: click.Context) -> list[str]:
    """The options and arguments that the command of `context` was given, to be given to another process."""
    options: list[str] = []
    arguments: list[str] = []
    for parameter in context.command.params:
        value: Any = context.params.get(parameter.name or "")
        if parameter.name in _OURS or value in (None, False, (), ""):
            continue
        if isinstance(parameter, click.Argument):
            arguments.append(value)
        elif value is True:
            options.append(parameter.opts[0])
        else:
            values = cast(tuple[object, ...], value) if isinstance(value, tuple) else (value,)
            given = (str(Path(str(one)).absolute()) if parameter.name == "config" else str(one) for one in values)
            options += [f"{parameter.opts[0]}={one}" for one in given]
    return [*options, *arguments]


def detach(
    app: App, command: list[str], name: str, has_begun: Callable[[Instance, int], bool], *, as_json: bool
) -> int:
    """Start a command in a process of its own, and return when it has begun; returns the exit code.

    `name` is what its output is called, and that of what it does; `has_begun` is asked with the number of its process.
    One that ends before it begins has its say here.
    """
    home = app.project.home
    process = spawn(home, app.project.origin, command, name)
    log = log_file(home, name)
    while True:
        ended = process.poll()
        with app.reading() as instance:
            if has_begun(instance, process.pid):
                break
            if ended is None:
                instance.clock.sleep(_LOOK)
        if ended is not None:
            output.note(log.read_text("utf-8", "replace").rstrip())
            return ended
    if as_json:
        output.say_json({"backfill_id": name, "pid": process.pid, "log": str(log)})
    else:
        output.say(f"backfill {name}")
        output.note(
            f"It goes on in process {process.pid}: `headwater backfill show {name[:13]}` says how far it is; "
            f"its output is in {log}."
        )
    return 0
