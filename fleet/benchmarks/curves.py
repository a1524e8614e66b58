"""Open-loop figures beside closed-loop ones over the stages of a policy: whether the first tell the second."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

Point = Mapping[str, Any]
RESAMPLES, SEED = 2000, 1
LEAST_POINTS = 4
"""Fewer say nothing of how far a correlation may be off."""
OPEN: tuple[str, ...] = ("ade_m", "fde_m", "min_ade_m", "miss_rate", "mode_calibration_error")
"""Lower is better in each."""
CLOSED: dict[str, float] = {"per_km": 1.0, "pdms_share": -1.0}
"""And in these times their sign."""


def disagreement(points: Sequence[Point]) -> dict[str, dict[str, dict[str, float | None]]]:
    """Spearman's rank correlation over all points of each open-loop figure with each closed-loop one, signed so
    that 1 is perfect agreement, with its 95 % bootstrap interval; None where there are too few points to tell."""
    return {
        name: {
            other: correlation([p["open_loop"][name] for p in points], [sign * p[other] for p in points])
            for other, sign in CLOSED.items()
        }
        for name in OPEN
    }


def correlation(first: Sequence[float], second: Sequence[float]) -> dict[str, float | None]:
    """Spearman's rank correlation with the percentile interval of the bootstrap over pairs. A draw in which one
    side is constant has none and is left out."""
    pairs = np.array([first, second], float)[:, None]
    value, count = float(_spearman(pairs)[0]), pairs.shape[-1]
    if np.isnan(value):
        return {"value": None, "low": None, "high": None}
    if count < LEAST_POINTS:
        return {"value": value, "low": None, "high": None}
    index = np.random.default_rng(SEED).integers(count, size=(RESAMPLES, count))
    low, high = np.nanquantile(_spearman(pairs[:, 0, index]), (0.025, 0.975))
    return {"value": value, "low": float(low), "high": float(high)}


def _spearman(pairs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of R sets of N pairs [2, R, N], [R]; NaN where a side is constant."""
    ranks = rankdata(pairs, axis=-1)
    ranks -= ranks.mean(-1, keepdims=True)
    first, second = ranks
    with np.errstate(invalid="ignore"):
        return np.asarray((first * second).sum(-1) / np.sqrt((first**2).sum(-1) * (second**2).sum(-1)))


PANELS: tuple[tuple[str, str], ...] = (
    ("open loop: mean displacement (ADE), m", "ade_m"),
    ("closed loop: disengagements per km", "per_km"),
    ("closed loop: share of the expert's PDMS", "pdms_share"),
)
WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 320, 250, 48, 34, 40
COLOURS = ("#0b6e99", "#c2571a", "#4d7a2a", "#7a3b8f", "#444444")


def plot(curves: Mapping[str, Sequence[Point]]) -> str:
    """Three panels side by side over the frames shown so far, a line for each seed: SVG that stands by itself."""
    panels = [
        f'<g transform="translate({i * WIDTH},0)">{_panel(title, key, curves)}</g>'
        for i, (title, key) in enumerate(PANELS)
    ]
    legend = "".join(
        f'<text x="{LEFT + 90 * i}" y="{HEIGHT + 14}" fill="{COLOURS[i % len(COLOURS)]}">seed {seed}</text>'
        for i, seed in enumerate(curves)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH * len(PANELS)} {HEIGHT + 24}" '
        f'font-family="sans-serif" font-size="11"><rect width="100%" height="100%" fill="white"/>'
        f"{''.join(panels)}{legend}</svg>\n"
    )


def _panel(title: str, key: str, curves: Mapping[str, Sequence[Point]]) -> str:
    values = {seed: [_value(p, key) for p in points] for seed, points in curves.items()}
    most = max((v for line in values.values() for v in line), default=1.0) * 1.08 or 1.0
    last = max((p["samples"] for points in curves.values() for p in points), default=1) or 1

    def x(samples: float) -> float:
        return LEFT + (WIDTH - LEFT - 14) * samples / last

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * value / most

    parts = [f'<text x="{LEFT}" y="18" font-weight="bold">{title}</text>']
    for tick in np.linspace(0, most / 1.08, 4):
        parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH - 14}" y1="{y(tick):.1f}" y2="{y(tick):.1f}" stroke="#dddddd"/>'
            f'<text x="{LEFT - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:.2g}</text>'
        )
    for i, (seed, line) in enumerate(values.items()):
        at = [(x(p["samples"]), y(v)) for p, v in zip(curves[seed], line, strict=True)]
        colour = COLOURS[i % len(COLOURS)]
        path = " ".join(f"{px:.1f},{py:.1f}" for px, py in at)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        parts += [f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3.5" fill="{colour}"/>' for px, py in at]
    parts.append(f'<text x="{WIDTH - 14}" y="{HEIGHT - 22}" text-anchor="end">frames shown (to {last:,})</text>')
    return "".join(parts)


def _value(point: Point, key: str) -> float:
    found = point["open_loop"][key] if key in point["open_loop"] else point[key]
    return float(found)
