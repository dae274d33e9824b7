"""How things stand, in the text format of Prometheus (https://prometheus.io/docs/instrumenting/exposition_formats/).

Everything is read from the catalog when it is asked for: nothing is counted twice, and a restart loses nothing.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from headwater.catalog.instance import Instance
from headwater.catalog.records import RunStatus
from headwater.materialize.automation.leadership import trouble

_RUNS = "select status, count(*) from runs group by status"
_TICKS = "select name, status, sum(instants) from ticks group by name, status order by name, status"
_LAST = "select name, epoch(ticked) from automations where ticked is not null order by name"


@dataclass(frozen=True, slots=True)
class Gauge:
    """A number that is what it is when it is asked for, or one for each of some labels."""

    name: str
    help: str
    values: Iterable[tuple[Mapping[str, str], float]]


def gauges(instance: Instance) -> list[Gauge]:
    """What the catalog says of an instance. Raises `CatalogError`."""
    query = instance.catalog.query
    runs = {str(status): int(count) for status, count in query(_RUNS).rows}
    daemon = instance.catalog.daemon()
    found = [
        Gauge("headwater_daemon_up", "Whether the daemon goes on.", [({}, trouble(daemon) is None)]),
        Gauge(
            "headwater_runs",
            "Runs by status.",
            [({"status": status}, runs.get(status, 0)) for status in RunStatus],
        ),
        Gauge("headwater_queue_length", "Runs in the queue.", [({}, runs.get(RunStatus.QUEUED, 0))]),
        Gauge(
            "headwater_ticks",
            "Instants at which something was due, by what came of it, as far as they are kept.",
            [({"name": name, "status": status}, float(count)) for name, status, count in query(_TICKS).rows],
        ),
        Gauge(
            "headwater_last_tick_timestamp_seconds",
            "The instant of the last tick.",
            [({"name": name}, float(second)) for name, second in query(_LAST).rows],
        ),
    ]
    if daemon is not None:
        started = daemon.started.timestamp()
        found += [
            Gauge("headwater_daemon_epoch", "How many daemons there have been.", [({}, daemon.epoch)]),
            Gauge("headwater_daemon_start_timestamp_seconds", "When the daemon started.", [({}, started)]),
            Gauge("headwater_daemon_silent_seconds", "Since the daemon's last sign of life.", [({}, daemon.silent)]),
        ]
    return found


def text(found: Iterable[Gauge]) -> str:
    """Gauges in Prometheus' format."""
    lines: list[str] = []
    for gauge in found:
        help_text = gauge.help.replace("\\", "\\\\").replace("\n", "\\n")
        lines += [f"# HELP {gauge.name} {help_text}", f"# TYPE {gauge.name} gauge"]
        for labels, value in gauge.values:
            named = ",".join(f'{label}="{_escaped(one)}"' for label, one in labels.items())
            lines.append(f"{gauge.name}{{{named}}} {_number(value)}" if named else f"{gauge.name} {_number(value)}")
    return "\n".join(lines) + "\n"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return "NaN" if math.isnan(value) else repr(int(value)) if value == int(value) else repr(float(value))
