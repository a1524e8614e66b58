"""Open-loop figures beside closed-loop ones over the stages of a policy: whether the first tell the second."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from fleet.charts import Series, panels_chart, standalone

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


def plot(curves: Mapping[str, Sequence[Point]]) -> str:
    """Three panels side by side over the frames shown so far, a line for each seed: SVG that stands by itself."""
    panels = [(title, [_line(f"seed {s}", points, key) for s, points in curves.items()]) for title, key in PANELS]
    return standalone(panels_chart(panels, "frames shown"))


def _line(name: str, points: Sequence[Point], key: str) -> Series:
    line = [(float(point["samples"]), _value(point, key)) for point in points]
    return Series(name, line, line)


def _value(point: Point, key: str) -> float:
    found = point["open_loop"][key] if key in point["open_loop"] else point[key]
    return float(found)
