"""`logs`: what steps printed and logged, and what they print right now."""

import codecs
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import click

from headwater.catalog.errors import BusyError, UsageError, nearest
from headwater.catalog.printable import printable
from headwater.catalog.records import LoggedEvent, Run, RunStatus, Step
from headwater.catalog.settings_file import load_settings
from headwater.cli import output
from headwater.cli.app import App, json_option, pass_app
from headwater.cli.cells import some
from headwater.cli.runs import describe_event
from headwater.io.compute_logs import STREAMS, ComputeLogManager, compute_log_manager
from headwater.io.log_follower import LogFollower, Printed
from headwater.materialize.reader import find_run, settled

#: Seconds between two looks for news.
_POLL = 0.2
#: Seconds between two looks into the catalog whether a silent run is over: it may belong to the run.
_ASK = 2.0
_OVER = tuple(status for status in RunStatus if status.is_over)


@click.command()
@click.argument("run_id")
@click.argument("step", required=False)
@click.option("--stream", type=click.Choice(STREAMS), help="Only this stream. [default: both]")
@click.option("--follow", is_flag=True, help="Go on printing what steps print, until the run is over.")
@json_option
@pass_app
def logs(app: App, run_id: str, step: str | None, stream: str | None, follow: bool, as_json: bool) -> None:
    """Print what the steps of a run wrote to stdout and stderr, and what they logged.

    STEP is one of them, such as 'flights [2013-01-31]', or an asset for all that built it.

    Of a whole run also what no step wrote: resources that were set up and torn down, steps that were killed.
    Of a run that goes on, what it has printed so far. With --json and --follow, one object a line.

    \b
    Examples:
      headwater logs 01a1fbdc-d141
      headwater logs 01a1fbdc-d141 orders --stream stderr
      headwater logs 01a1fbdc-d141 'flights [2013-01-31]'
      headwater logs 01a1fbdc-d141 --follow
    """
    home = app.project.home
    manager = compute_log_manager(load_settings(home), home)
    streams = STREAMS if stream is None else (stream,)
    local = _local_run(manager, run_id)
    live = _Live(local, step, streams) if local is not None else None
    if follow:
        _follow(app, manager, run_id, live, step, streams, as_json=as_json)
        return
    try:
        with app.open(read_only=True, wait=None if live is None or live.over else 0) as instance:
            found = settled(find_run(instance.catalog, run_id))
            steps = instance.catalog.steps(found.run_id)
            wanted = steps if step is None else _find_steps(found, steps, step)
            only = wanted[0].step_key if step is not None and len(wanted) == 1 else None
            logged = instance.catalog.events(run_id=found.run_id, step_key=only, kinds=["LOG_MESSAGE"], limit=None)
    except BusyError:
        if live is None:
            raise
        live.show(as_json=as_json)
        return
    if step is not None:
        chosen = {one.step_key for one in wanted}
        logged = [event for event in logged if event.step_key in chosen]
    if not found.status.is_over and live is not None:
        if not as_json and stream is None:
            _print_logged(logged)
        live.show(as_json=as_json)
        return
    recorded = _Recorded(manager, found, steps, wanted, logged, streams, whole=step is None)
    if as_json:
        recorded.say_json(logged=stream is None)
    else:
        recorded.show(logged=stream is None)


class _Recorded:
    """What a run that is over printed, as the catalog knows it."""

    def __init__(
        self,
        manager: ComputeLogManager,
        run: Run,
        steps: Sequence[Step],
        wanted: Sequence[Step],
        logged: Sequence[LoggedEvent],
        streams: Sequence[str],
        *,
        whole: bool,
    ) -> None:
        self._manager = manager
        self._run = run.run_id
        self._everything = [piece for one in steps for piece in one.logs]
        self._wanted = wanted
        self._logged = logged
        self._streams = streams
        self._whole = whole

    def say_json(self, *, logged: bool) -> None:
        """All of it in one document."""
        output.say_json(
            {
                "run_id": self._run,
                **({"run": {name: _text(self._rest(name)) for name in self._streams}} if self._whole else {}),
                "steps": [
                    {
                        "key": one.step_key,
                        **{s: _text(self._manager.read_slices(self._run, one.logs, s)) for s in self._streams},
                    }
                    for one in self._wanted
                ],
                "log": [describe_event(event) for event in self._logged] if logged else [],
            }
        )

    def show(self, *, logged: bool) -> None:
        """All of it for a person."""
        if logged:
            _print_logged(self._logged)
        headed = len(self._streams) > 1 or len(self._wanted) > 1 or any(one.attempts > 1 for one in self._wanted)
        printed = logged and bool(self._logged)
        for title, name, pieces in self._parts():
            first = next(pieces, None)
            if first is None:
                continue
            printed = True
            if headed:
                _say_head(title, name)
            _stream_out(first, pieces)
        if not printed:
            output.note("Nothing was printed.")

    def _rest(self, stream: str) -> Iterator[bytes]:
        return self._manager.read_rest(self._run, self._everything, stream)

    def _parts(self) -> Iterator[tuple[str, str, Iterator[bytes]]]:
        if self._whole:
            for name in self._streams:
                yield "(no step)", name, self._rest(name)
        for one in self._wanted:
            for attempt in sorted({piece.attempt for piece in one.logs}):
                title = one.step_key if one.attempts < 2 else f"{one.step_key}, attempt {attempt}"
                slices = [piece for piece in one.logs if piece.attempt == attempt]
                for name in self._streams:
                    yield title, name, self._manager.read_slices(self._run, slices, name)


class _Live:
    """What a run prints, read from its files: the catalog may belong to it."""

    def __init__(self, folder: Path, step: str | None, streams: tuple[str, ...]) -> None:
        self._follower = LogFollower(folder, streams=streams)
        self._run = folder.name
        self._step = step
        self._head: tuple[str, str] | None = None
        self._decoders: dict[tuple[str, str], codecs.IncrementalDecoder] = {}
        self._first = list(self._follower.read())
        self._ended_line = True

    @property
    def over(self) -> bool:
        """Whether the run said that it prints no more."""
        return self._follower.over

    def news(self) -> Iterator[Printed]:
        """What is asked for of what came since the last time."""
        first, self._first = self._first, []
        for one in (*first, *self._follower.read()):
            if one.marker or self._step is None or _is_of(one.step, self._step):
                yield one

    def show(self, *, as_json: bool) -> None:
        """What there is by now."""
        if not as_json:
            if not self.print_news():
                output.note("Nothing was printed so far.")
            self.finish()
            return
        texts: dict[str, dict[str, bytes]] = {}
        rest: dict[str, bytes] = {}
        for one in self.news():
            of = rest if one.step is None else texts.setdefault(one.step, {})
            of[one.stream] = of.get(one.stream, b"") + one.data
        steps = [{"key": key, **{s: _text([data]) for s, data in of.items()}} for key, of in texts.items()]
        whole = {} if self._step else {"run": {s: _text([data]) for s, data in rest.items()}}
        output.say_json({"run_id": self._run, **whole, "steps": steps, "log": []})

    def print_news(self, *, as_json: bool = False) -> bool:
        """Print what came since the last time; whether there was anything."""
        printed = False
        for one in self.news():
            printed = True
            title = "(no step)" if one.step is None else one.step
            title = title if one.attempt < 2 else f"{title}, attempt {one.attempt}"
            decoder = self._decoders.setdefault((title, one.stream), codecs.getincrementaldecoder("utf-8")("replace"))
            text = decoder.decode(one.data)
            if as_json:
                line = {"step": one.step, "attempt": one.attempt, "stream": one.stream, "text": text}
                click.echo(json.dumps({**line, "marker": one.marker} if one.marker else line))
                continue
            if one.marker:
                self.finish()
                click.echo(click.style(f"── {printable(one.marker)} ──", dim=True))
                self._head = None
                continue
            if (title, one.stream) != self._head:
                self.finish()
                _say_head(title, one.stream)
                self._head = title, one.stream
            click.echo(printable(text), nl=False)
            self._ended_line = text.endswith("\n") or (self._ended_line and not text)
        return printed

    def finish(self) -> None:
        """End a line that was begun."""
        if not self._ended_line:
            click.echo()
            self._ended_line = True


def _follow(
    app: App,
    manager: ComputeLogManager,
    run_id: str,
    live: _Live | None,
    step: str | None,
    streams: tuple[str, ...],
    *,
    as_json: bool,
) -> None:
    """Print what comes, until the run is over."""
    asked = 0.0
    over = False
    while True:
        if live is None:
            folder = _local_run(manager, run_id)
            live = None if folder is None else _Live(folder, step, streams)
        news = live is not None and live.print_news(as_json=as_json)
        if over or (live is not None and live.over):
            break
        if not news and time.monotonic() - asked >= _ASK:
            over = _is_over(app, run_id)
            asked = time.monotonic()
            if over:
                continue  # there may be last words
        time.sleep(_POLL)
    if live is not None:
        live.print_news(as_json=as_json)
        live.finish()
        return
    # Nothing is left of it here: it printed nothing, or it is kept elsewhere.
    context = click.get_current_context()
    stream = streams[0] if len(streams) == 1 else None
    context.invoke(logs, run_id=run_id, step=step, stream=stream, follow=False, as_json=as_json)


def _is_over(app: App, run_id: str) -> bool:
    """Whether a run is known and over. Who cannot look into the catalog does not know, and so says no."""
    try:
        with app.open(read_only=True, wait=0) as instance:
            return settled(find_run(instance.catalog, run_id)).status in _OVER
    except BusyError:
        return False


def _local_run(manager: ComputeLogManager, run_id: str) -> Path | None:
    """The log folder on this machine of the run whose identifier starts so, where it is the only one."""
    bare = run_id.replace("-", "").lower()
    if len(bare) < 4 or any(char not in "0123456789abcdef" for char in bare):
        return None
    folder = manager.folder(run_id.lower())
    if folder is None:
        return None
    found = list(folder.parent.glob(f"{folder.name}*"))
    return found[0] if len(found) == 1 else None


def _is_of(key: str | None, name: str) -> bool:
    """Whether a step is the one called `name`, or one that builds partitions of it."""
    return key is not None and (key == name or key.startswith(f"{name} ["))


def _find_steps(run: Run, steps: Sequence[Step], name: str) -> list[Step]:
    """The step that is called so, or else those that built the asset of that name. Raises `UsageError`."""
    found = [one for one in steps if one.step_key == name]
    found = found or [one for one in steps if any(cell.asset == name for cell in one.cells)]
    if not found:
        known = [one.step_key for one in steps]
        raise UsageError(
            f"Run {run.run_id} has no step '{name}'.",
            remedy=nearest(name, known[:10_000]) or f"Its steps are {some(known)}.",
        )
    return found


def _print_logged(logged: Iterable[LoggedEvent]) -> None:
    for event in logged:
        level = str(event.data.get("level", "INFO"))
        about = f"{event.step_key}: " if event.step_key else ""
        output.say(
            f"{output.rfc3339(event.time)} {level} {about}{event.message}",
            colour=output.COLOURS.get(level),
        )


def _say_head(title: str, stream: str) -> None:
    click.echo(click.style(f"── {printable(title)} {stream} ──", dim=True))


def _text(pieces: Iterable[bytes]) -> str:
    return b"".join(pieces).decode("utf-8", "replace")


def _stream_out(first: bytes, rest: Iterable[bytes]) -> None:
    """Captured output for a terminal: made safe line by line, whatever its size."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    text = ""
    for piece in (first, *rest):
        text = decoder.decode(piece)
        click.echo(printable(text), nl=False)
    text = decoder.decode(b"", True) or text[-1:]
    if not text.endswith("\n"):
        click.echo()
