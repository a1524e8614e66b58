"""How a score falls with parameters and data: score = E + A / N^alpha + B / D^beta, and how sure that is.

The form is Hoffmann et al.'s (arXiv:2203.15556, approach 3). For given exponents the rest is linear, so the fit is
a search over two numbers with a least-squares problem of three non-negative ones inside (variable projection):
nothing to start from, nothing to get stuck in. E may be negative where the score may be: a log-likelihood has no
zero."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
EXPONENTS = (0.02, 2.0)
"""Range that is searched."""
GRID, ZOOMS = 21, 3
"""Exponents tried along each axis; each zoom looks at the neighbourhood of the best with as many."""
LEAST_DIFFERENT = 3
"""Sizes of network, and of data, that a fit needs: a line through two says nothing about an exponent."""
INTERVAL = (2.5, 97.5)
"""Percentiles."""


class TooFewRuns(ValueError):
    """Runs that determine no law: says what is missing."""


@dataclass(frozen=True, slots=True)
class Run:
    """A trained model."""

    parameters: float
    frames: float
    """Different frames of data it was trained on."""
    score: float
    weight: float = 1.0
    """Inverse variance of the score, relative to the others."""


@dataclass(frozen=True, slots=True)
class Law:
    """A fitted law."""

    floor: float
    """E."""
    a: float
    alpha: float
    b: float
    beta: float

    def __call__(self, parameters: float, frames: float) -> float:
        """The score it predicts."""
        return float(self.floor + self.a * parameters**-self.alpha + self.b * frames**-self.beta)


@dataclass(frozen=True, slots=True)
class Fit:
    """The law, and the 95 % bootstrap interval of each of its numbers, by name."""

    law: Law
    intervals: dict[str, tuple[float, float]]
    explained: float
    """Share of the scores' (weighted) variance."""
    bootstraps: tuple[Law, ...]

    def predicted(self, parameters: float, frames: float) -> tuple[float, float, float]:
        """The score of another run, and its interval as far as the law's uncertainty goes."""
        low, high = np.percentile([law(parameters, frames) for law in self.bootstraps], INTERVAL)
        return self.law(parameters, frames), float(low), float(high)


def fit(runs: Sequence[Run], *, positive: bool, resamples: int, seed: int) -> Fit:
    """Fits the law; `positive` keeps E from being negative. Intervals come from resampling the runs. Raises
    TooFewRuns where networks or data are of fewer than LEAST_DIFFERENT sizes, or a score is not finite."""
    _check(runs)
    law = fit_law(runs, positive=positive)
    rng, laws = np.random.default_rng(seed), list[Law]()
    while len(laws) < resamples:
        chosen = [runs[i] for i in rng.integers(len(runs), size=len(runs))]
        if _sizes(chosen) >= LEAST_DIFFERENT:
            laws.append(fit_law(chosen, positive=positive))
    names = ("floor", "a", "alpha", "b", "beta")
    intervals = {
        name: (float(low), float(high))
        for name in names
        for low, high in [np.percentile([getattr(each, name) for each in laws or [law]], INTERVAL)]
    }
    return Fit(law, intervals, _explained(runs, law), tuple(laws))


def fit_law(runs: Sequence[Run], *, positive: bool) -> Law:
    """The law of least weighted squares."""
    parameters, frames, score, weight = np.array([(r.parameters, r.frames, r.score, r.weight) for r in runs]).T
    # Powers of sizes relative to their geometric mean are of order one: the problem inside is well conditioned.
    middle = [math.exp(float(np.log(size).mean())) for size in (parameters, frames)]
    low, high = np.full(2, EXPONENTS[0]), np.full(2, EXPONENTS[1])
    for _ in range(1 + ZOOMS):
        axes = [np.geomspace(low[i], high[i], GRID) for i in range(2)]
        exponents = np.array(list(itertools.product(*axes)))
        sizes = zip((parameters, frames), middle, exponents.T, strict=True)
        powers = [(size / m) ** -exponent[:, None] for size, m, exponent in sizes]
        solved, squares = _solve(np.stack([np.ones_like(powers[0]), *powers], -1), score, weight, positive)
        best = int(squares.argmin())
        step = (high / low) ** (1 / (GRID - 1))
        low = np.maximum(exponents[best] / step, EXPONENTS[0])
        high = np.minimum(exponents[best] * step, EXPONENTS[1])
    (floor, a, b), (alpha, beta) = solved[best], exponents[best]
    return Law(
        float(floor), float(a * middle[0] ** alpha), float(alpha), float(b * middle[1] ** beta), float(beta)
    )


def _solve(columns: Floats, score: Floats, weight: Floats, positive: bool) -> tuple[Floats, Floats]:
    """For each of G problems with columns [G, N, 3]: the best [G, 3] whose second and third number, and where
    `positive` the first, are not negative; and its weighted squares [G]. Tries every set of numbers that may be
    zero."""
    best = np.zeros((len(columns), 3))
    least = np.full(len(columns), np.inf)
    optional = (0, 1, 2) if positive else (1, 2)
    root = np.sqrt(weight / weight.sum())
    for count in range(len(optional) + 1):
        for zero in itertools.combinations(optional, count):
            used = [i for i in range(3) if i not in zero]
            solved = np.zeros((len(columns), 3))
            if used:
                solved[:, used] = _least_squares(columns[:, :, used] * root[:, None], score * root)
            error = ((columns @ solved[:, :, None])[..., 0] - score) * root
            squares = (error**2).sum(1)
            squares[(solved[:, list(optional)] < 0).any(1)] = np.inf
            better = squares < least
            best[better], least[better] = solved[better], squares[better]
    return best, least


def _least_squares(columns: Floats, score: Floats) -> Floats:
    """[G, K], by the normal equations; a touch of ridge where columns are all but equal."""
    transposed = columns.transpose(0, 2, 1)
    gram = transposed @ columns + 1e-12 * np.eye(columns.shape[2])
    return np.asarray(np.linalg.solve(gram, (transposed @ score)[..., None])[..., 0])


def _explained(runs: Sequence[Run], law: Law) -> float:
    score, weight = np.array([r.score for r in runs]), np.array([r.weight for r in runs])
    error = score - [law(r.parameters, r.frames) for r in runs]
    spread = score - np.average(score, weights=weight)
    total = float((weight * spread**2).sum())
    return 1.0 - float((weight * error**2).sum()) / total if total > 0 else 0.0


def _sizes(runs: Sequence[Run]) -> int:
    """The smaller of how many sizes of network and of data there are."""
    return min(len({r.parameters for r in runs}), len({r.frames for r in runs}))


def _check(runs: Sequence[Run]) -> None:
    bad = [
        run
        for run in runs
        if not math.isfinite(run.score) or run.weight <= 0 or min(run.parameters, run.frames) <= 0
    ]
    if bad:
        raise TooFewRuns(f"{len(bad)} runs have no finite score, weight or size, first {bad[0]}: leave them out")
    if not runs or _sizes(runs) < LEAST_DIFFERENT:
        raise TooFewRuns(
            f"{len(runs)} runs are of fewer than {LEAST_DIFFERENT} sizes of network or of data: "
            "train a longer ladder"
        )
