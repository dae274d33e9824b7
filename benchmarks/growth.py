"""How partitions grow: the same work at three sizes, as a table and as the picture docs/growth.svg.

`python -m benchmarks.growth` measures and draws; it takes some minutes and 2 GB.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.cells import MOMENT, chain, fill, home, recorded, space
from benchmarks.harness import ROOT, measure
from headwater.catalog.instance import Instance
from headwater.catalog.keys import AssetKey
from headwater.catalog.lineage.asset_graph import AssetGraph
from headwater.materialize.partition_choice import PartitionChoice
from headwater.materialize.reader import Reader

PICTURE = ROOT / "docs" / "growth.svg"
WIDTH, HEIGHT, LEFT, BOTTOM = 720, 420, 70, 50
COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#8c564b")


@dataclass(frozen=True)
class Line:
    """One kind of work: cells and seconds."""

    name: str
    points: tuple[tuple[int, float], ...]

    @property
    def slope(self) -> float:
        """The exponent of its growth over all sizes: 1 is linear, 0 constant."""
        (x0, y0), (x1, y1) = self.points[0], self.points[-1]
        return math.log(y1 / y0) / math.log(x1 / x0)


def measured() -> list[Line]:
    """CPU seconds of each kind of work at three sizes."""
    found: dict[str, list[tuple[int, float]]] = {}
    for partitions in (10_000, 100_000, 1_000_000):
        cells = 10 * space(partitions).count
        with home() as instance:
            fill(instance, 10, partitions)
            for name, work in _works(chain(10, partitions), instance).items():
                found.setdefault(name, []).append((cells, measure(work, runs=3).cpu))
    for count in (1_000, 10_000, 100_000):
        with home() as instance:
            instance.catalog.append([])
            found.setdefault("record new versions", []).append((count, measure(recorded(instance, count), runs=3).cpu))
    return [Line(name, tuple(points)) for name, points in found.items()]


def _works(graph: AssetGraph, instance: Instance) -> dict[str, Callable[[], object]]:
    key = AssetKey("asset_9")

    def read() -> Reader:
        return Reader(graph, instance.catalog, MOMENT)

    return {
        "staleness of all": lambda: read().counts(key),
        "plan of all": lambda: read().plan("*", partitions=PartitionChoice(all=True)),
        "count one asset's partitions": lambda: read().partitions(key).count,
        "a page of keys": lambda: read().partitions(key).keys(0, 100),
    }


def draw(lines: Sequence[Line]) -> str:
    """A picture with logarithmic axes: cells to the right, CPU seconds upwards."""
    xs = [math.log10(x) for line in lines for x, _ in line.points]
    ys = [math.log10(y) for line in lines for _, y in line.points]
    x0, x1, y0, y1 = math.floor(min(xs)), math.ceil(max(xs)), math.floor(min(ys)), math.ceil(max(ys))

    def place(x: float, y: float) -> tuple[float, float]:
        right = LEFT + (math.log10(x) - x0) / (x1 - x0) * (WIDTH - LEFT - 210)
        return round(right, 1), round(HEIGHT - BOTTOM - (math.log10(y) - y0) / (y1 - y0) * (HEIGHT - BOTTOM - 20), 1)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"',
        ' font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
    ]
    for power in range(x0, x1 + 1):
        x, y = place(10**power, 10**y0)
        parts.append(f'<line x1="{x}" y1="20" x2="{x}" y2="{y}" stroke="#ddd"/>')
        parts.append(f'<text x="{x}" y="{y + 18}" text-anchor="middle">{10**power:,}</text>')
    for power in range(y0, y1 + 1):
        x, y = place(10**x0, 10**power)
        parts.append(f'<line x1="{x}" y1="{y}" x2="{WIDTH - 210}" y2="{y}" stroke="#ddd"/>')
        label = f"{10**power:g} s" if power >= 0 else f"{10 ** (power + 3):g} ms"
        parts.append(f'<text x="{x - 8}" y="{y + 4}" text-anchor="end">{label}</text>')
    parts.append(f'<text x="{(LEFT + WIDTH - 210) / 2}" y="{HEIGHT - 8}" text-anchor="middle">cells</text>')
    for line, colour in zip(lines, COLOURS, strict=False):
        points = [place(x, y) for x, y in line.points]
        path = " ".join(f"{x},{y}" for x, y in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x}" cy="{y}" r="3.5" fill="{colour}"/>' for x, y in points]
        x, y = points[-1]
        parts.append(f'<text x="{x + 8}" y="{y + 4}" fill="{colour}">{line.name}</text>')
    return "\n".join([*parts, "</svg>", ""])


def table(lines: Sequence[Line]) -> str:
    """The same as a Markdown table, with the exponent of the growth."""
    rows = ["| work | cells: CPU seconds | growth |", "|---|---|---|"]
    for line in lines:
        shown = ", ".join(f"{x:,}: {y:.4f}" if y < 0.1 else f"{x:,}: {y:.2f}" for x, y in line.points)
        rows.append(f"| {line.name} | {shown} | cells^{line.slope:.2f} |")
    return "\n".join(rows)


def main(picture: Path = PICTURE) -> None:
    lines = measured()
    picture.write_text(draw(lines))
    print(table(lines))


if __name__ == "__main__":
    main()
