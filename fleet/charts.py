"""Charts as SVG text: points with intervals, drawn to be read without a legend."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

LABEL_PX = 150
ROW_PX = 22


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with its 95 % interval; `turn` picks the colour."""

    turn: int
    value: float
    low: float
    high: float


def turns_chart(points: Sequence[Interval], unit: str) -> str:
    """Rate (up) over turns (across), one point with its interval each; the line joins the points."""
    width, height, left, bottom = 420, 230, 52, 34
    top = 1.08 * max((p.high for p in points), default=1.0) or 1.0
    ticks = _ticks(top)

    def x(turn: int) -> float:
        return left + 40 + (width - left - 100) * turn / max(len(points) - 1, 1)

    def y(value: float) -> float:
        return (height - bottom) - (height - bottom - 14) * value / top

    parts = [
        f'<line class="grid" x1="{left}" x2="{width - 8}" y1="{y(t):.1f}" y2="{y(t):.1f}"/>'
        f'<text x="{left - 8}" y="{y(t) + 4:.1f}" text-anchor="end">{t:g}</text>'
        for t in ticks
    ]
    path = " ".join(f"{x(p.turn):.1f},{y(p.value):.1f}" for p in points)
    parts.append(f'<polyline class="trend" points="{path}"/>')
    for p in points:
        parts.append(
            f'<line class="bar t{p.turn}" x1="{x(p.turn):.1f}" x2="{x(p.turn):.1f}" '
            f'y1="{y(p.low):.1f}" y2="{y(p.high):.1f}"/>'
            f'<circle class="dot t{p.turn}" cx="{x(p.turn):.1f}" cy="{y(p.value):.1f}" r="5"/>'
            f'<text class="value" x="{x(p.turn) + 10:.1f}" y="{y(p.value) - 8:.1f}">{_short(p.value)}</text>'
            f'<text x="{x(p.turn):.1f}" y="{height - 12}" text-anchor="middle">turn {p.turn}</text>'
        )
    return _svg(width, height, f"{unit} by turn", parts)


def condition_chart(rows: Sequence[tuple[str, Sequence[Interval]]], unit: str) -> str:
    """One row for each condition; in it one dot with its interval for each turn. Square-root axis: zero and
    large rates both show."""
    width, left = 560, LABEL_PX
    height = 40 + len(rows) * (ROW_PX + 14)
    top = max((i.high for _, points in rows for i in points), default=1.0) or 1.0

    def x(value: float) -> float:
        return left + (width - left - 20) * math.sqrt(max(value, 0.0) / top)

    parts = []
    for t in _ticks(top, root=True):
        parts.append(
            f'<line class="grid" x1="{x(t):.1f}" x2="{x(t):.1f}" y1="10" y2="{height - 26}"/>'
            f'<text x="{x(t):.1f}" y="{height - 10}" text-anchor="middle">{t:g}</text>'
        )
    for row, (name, points) in enumerate(rows):
        middle = 26 + row * (ROW_PX + 14)
        parts.append(f'<text x="{left - 12}" y="{middle + 4}" text-anchor="end">{escape(name)}</text>')
        for offset, p in enumerate(points):
            y = middle - 8 + 16 * offset / max(len(points) - 1, 1)
            parts.append(
                f'<line class="bar t{p.turn}" x1="{x(p.low):.1f}" x2="{x(p.high):.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'
                f'<circle class="dot t{p.turn}" cx="{x(p.value):.1f}" cy="{y:.1f}" r="4">'
                f"<title>turn {p.turn}: {p.value:.2f} [{p.low:.2f}, {p.high:.2f}] {escape(unit)}</title></circle>"
            )
    return _svg(width, height, f"{unit} by condition", parts)


def _svg(width: float, height: float, title: str, parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>{''.join(parts)}</svg>"
    )


def _ticks(top: float, root: bool = False) -> list[float]:
    """Round numbers from 0 to top: about four, evenly spaced (in the square root where `root`)."""
    if root:
        return sorted({0.0, *(_round(top * share) for share in (1 / 16, 1 / 4, 9 / 16, 1))})
    step = _round(top / 4)
    return [round(step * k, 6) for k in range(int(top / step) + 1)]


def _round(value: float) -> float:
    """The largest of 1, 2, 5 × a power of ten that is at most value."""
    power: float = 10.0 ** math.floor(math.log10(value))
    return max(m * power for m in (1, 2, 5) if m * power <= value * 1.0001)


def _short(value: float) -> str:
    """Three digits at most."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"


@dataclass(frozen=True, slots=True)
class Series:
    """Measured points, and the curve through them."""

    name: str
    points: Sequence[tuple[float, float]]
    curve: Sequence[tuple[float, float]]


COLOURS = ("#4c78a8", "#f58518", "#54a24b", "#b279a2", "#e45756", "#72b7b2", "#9d755d")


def law_chart(series: Sequence[Series], up: str, across: str) -> str:
    """Values (up) over sizes (across, logarithmic, above 0): a dot for each measurement, a line for each curve."""
    width, height, left, bottom = 620, 360, 60, 44
    drawn = [point for one in series for point in (*one.points, *one.curve)]
    low_x, high_x = min(x for x, _ in drawn), max(x for x, _ in drawn)
    low_y, high_y = min(y for _, y in drawn), max(y for _, y in drawn)
    margin = 0.05 * (high_y - low_y) or 1.0
    low_y, high_y = low_y - margin, high_y + margin

    def x(value: float) -> float:
        return left + (width - left - 110) * math.log(value / low_x) / (math.log(high_x / low_x) or 1.0)

    def y(value: float) -> float:
        return height - bottom - (height - bottom - 24) * (value - low_y) / (high_y - low_y)

    step = _round((high_y - low_y) / 4)
    parts = [
        f'<line class="grid" x1="{left}" x2="{width - 104}" y1="{y(t):.1f}" y2="{y(t):.1f}"/>'
        f'<text x="{left - 8}" y="{y(t) + 4:.1f}" text-anchor="end">{t:.3g}</text>'
        for t in (step * k for k in range(math.ceil(low_y / step), math.floor(high_y / step) + 1))
    ]
    parts.append(f'<text x="{left}" y="14">{escape(up)}</text>')
    for size in sorted({x for one in series for x, _ in one.points}):
        parts.append(f'<text x="{x(size):.1f}" y="{height - 26}" text-anchor="middle">{size:.0f}</text>')
    parts.append(
        f'<text x="{(left + width - 110) / 2}" y="{height - 8}" text-anchor="middle">{escape(across)}</text>'
    )
    for number, one in enumerate(series):
        parts += [*_drawn(one, number, x, y), *_key(one.name, number, width - 84, 24 + 18 * number)]
    return _svg(width, height, up, parts)


def panels_chart(panels: Sequence[tuple[str, Sequence[Series]]], across: str) -> str:
    """Panels side by side, each of a title and its series: values (up) from 0 over amounts (across) from 0. The
    series have the same names in each."""
    width, height = 320, 274
    parts = [
        f'<g transform="translate({width * i},0)">{_panel(title, series, across, width, height - 24)}</g>'
        for i, (title, series) in enumerate(panels)
    ]
    for number, one in enumerate(panels[0][1]):
        parts += _key(one.name, number, 52 + 90 * number, height - 10)
    return _svg(width * len(panels), height, ", ".join(title for title, _ in panels), parts)


def _panel(title: str, series: Sequence[Series], across: str, width: float, height: float) -> str:
    left, right, top, bottom = 48, width - 14, 34, height - 40
    drawn = [point for one in series for point in one.curve]
    most, last = (1.08 * max(at) or 1.0 for at in ([y for _, y in drawn], [x for x, _ in drawn]))

    def x(value: float) -> float:
        return left + (right - left) * value / last

    def y(value: float) -> float:
        return bottom - (bottom - top) * value / most

    parts = [f'<text x="{left}" y="18" font-weight="bold">{escape(title)}</text>']
    parts += [
        f'<line class="grid" x1="{left}" x2="{right}" y1="{y(t):.1f}" y2="{y(t):.1f}"/>'
        f'<text x="{left - 6}" y="{y(t) + 4:.1f}" text-anchor="end">{t:g}</text>'
        for t in _ticks(most)
    ]
    parts += [
        f'<text x="{x(t):.1f}" y="{bottom + 16}" text-anchor="middle">{t:,.0f}</text>'
        for t in _ticks(last / 1.08)[::2]
    ]
    parts.append(f'<text x="{right}" y="{bottom + 32}" text-anchor="end">{escape(across)}</text>')
    for number, one in enumerate(series):
        parts += _drawn(one, number, x, y)
    return "".join(parts)


Scale = Callable[[float], float]
"""From a value to where it is drawn, px."""


def _drawn(one: Series, number: int, x: Scale, y: Scale) -> list[str]:
    colour = COLOURS[number % len(COLOURS)]
    path = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in one.curve)
    dots = [f'<circle cx="{x(a):.1f}" cy="{y(b):.1f}" r="3.5" fill="{colour}"/>' for a, b in one.points]
    return [f'<polyline points="{path}" fill="none" stroke="{colour}"/>', *dots]


def _key(name: str, number: int, x: float, y: float) -> list[str]:
    """What a colour is."""
    dot = f'<circle cx="{x}" cy="{y - 4}" r="4" fill="{COLOURS[number % len(COLOURS)]}"/>'
    return [dot, f'<text x="{x + 10}" y="{y}">{escape(name)}</text>']


STANDALONE = (
    "<style>text{font:12px sans-serif;fill:#333}.grid{stroke:#ddd}</style>"
    "<rect width='100%' height='100%' fill='white'/>"
)


def standalone(chart: str) -> str:
    """A chart as a file of its own: on white, in a browser's own font."""
    named = chart.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    return named.replace("</title>", f"</title>{STANDALONE}", 1)
