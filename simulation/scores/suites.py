"""Means over a suite's episodes and seeds, with intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import bootstrap

from simulation.arrays import Floats, Ints

BATCH = 1_000_000
"""Draws held in memory at a time."""


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean and its interval; the limits are None where one episode of one seed is all there is, the value too
    where no episode could be judged."""

    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Resampling:
    """How intervals are made; the same seed makes the same ones."""

    seed: int = 1
    resamples: int = 2000
    confidence: float = 0.95


def summary(scores: Mapping[str, Floats], how: Resampling = Resampling()) -> dict[str, Mean]:
    """The mean of each named score [S, E] of S seeds and E episodes. Raises ValueError as `mean` does."""
    return {name: mean(values, how) for name, values in scores.items()}


def mean(values: Floats, how: Resampling = Resampling()) -> Mean:
    """The mean of values [S, E] of S seeds in the same E episodes, NaN where one could not be judged, with the
    percentile interval of the pigeonhole bootstrap (Owen, Annals of Applied Statistics 1(2), 2007): seeds and
    episodes are both drawn anew, as results of one seed hang together and so do those of one scene; it errs on
    the wide side. Raises ValueError for another shape or without values."""
    if values.ndim != 2 or not values.size:
        raise ValueError(f"values are {values.shape}: a mean needs [seeds, episodes], at least one of each")
    judged = np.isfinite(values)
    if not judged.any():
        return Mean(None)
    centre = float(values[judged].mean())
    axes = [axis for axis in (0, 1) if values.shape[axis] > 1]
    if not axes:
        return Mean(centre)
    sums, counts = np.where(judged, values, 0.0), judged.astype(np.float64)

    def statistic(*drawn: Ints, axis: int) -> Floats:
        weights = [np.ones((1, size)) for size in values.shape]
        for number, rows in zip(axes, drawn, strict=True):
            weights[number] = _times_drawn(np.atleast_2d(rows), values.shape[number])
        seeds, episodes = weights
        total, number_judged = (((seeds @ table) * episodes).sum(1) for table in (sums, counts))
        return np.where(number_judged > 0, total / np.maximum(number_judged, 1.0), centre)

    result = bootstrap(
        [np.arange(values.shape[axis]) for axis in axes],
        statistic,
        n_resamples=how.resamples,
        batch=max(1, BATCH // max(values.shape)),
        vectorized=True,
        paired=False,
        confidence_level=how.confidence,
        method="percentile",
        rng=np.random.default_rng(how.seed),
    )
    return Mean(centre, float(result.confidence_interval.low), float(result.confidence_interval.high))


def _times_drawn(rows: Ints, size: int) -> NDArray[np.float64]:
    """How often each of `size` was drawn, [resamples, size]."""
    offset = np.arange(len(rows))[:, None] * size
    return np.bincount((rows + offset).ravel(), minlength=len(rows) * size).reshape(-1, size).astype(np.float64)
