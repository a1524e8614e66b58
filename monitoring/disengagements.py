"""Disengagement rates with honest uncertainty: exact intervals and tests for figures that are looked at once.

Counts are Poisson over exposure (km or vehicle-hours); where vehicles differ more than Poisson allows, counts and
exposures are deflated by the index of dispersion (quasi-Poisson). Sources: Garwood 1936 (rate), Przyborowski and
Wilenski 1940 with Clopper and Pearson 1934 (ratio), Holm 1979 (several tests at once). The test that may be looked
at every minute, for a rollout that goes on, is streams/evidence.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special


@dataclass(frozen=True, slots=True)
class Ratio:
    """Rate of the first arm over the rate of the second, with its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Arm:
    """What one arm did: events, and exposure in km or hours."""

    count: float
    exposure: float

    def __post_init__(self) -> None:
        if not (self.count >= 0 and self.exposure >= 0 and math.isfinite(self.count + self.exposure)):
            raise ValueError(f"count {self.count} and exposure {self.exposure} must be finite and not negative")

    def deflated(self, dispersion: float) -> Arm:
        """The same rate on the evidence that over-dispersed counts really carry."""
        phi = max(dispersion, 1.0)
        return Arm(self.count / phi, self.exposure / phi)


def garwood(count: float, exposure: float, confidence: float = 0.95) -> tuple[float, float]:
    """The exact Poisson interval of a rate (Garwood 1936): (low, high) per unit of exposure; without exposure
    (0, inf). Raises ValueError for a negative value or a confidence outside (0, 1)."""
    Arm(count, exposure)
    tail = _tail(confidence)
    if exposure == 0:
        return 0.0, math.inf
    low = float(special.gammaincinv(count, tail)) if count > 0 else 0.0
    return low / exposure, float(special.gammainccinv(count + 1, tail)) / exposure


def rate_ratio(first: Arm, second: Arm, confidence: float = 0.95, dispersion: float = 1.0) -> Ratio:
    """first's rate / second's rate. Given the total, first's count is binomial; Clopper-Pearson on its share is
    exact. Without any event, or without exposure in an arm, nothing is known: (nan, 0, inf)."""
    tail = _tail(confidence)
    if first.exposure == 0 or second.exposure == 0 or first.count + second.count == 0:
        return Ratio(math.nan, 0.0, math.inf)
    a, b = first.deflated(dispersion), second.deflated(dispersion)
    low = float(special.betaincinv(a.count, b.count + 1, tail)) if a.count > 0 else 0.0
    high = float(special.betaincinv(a.count + 1, b.count, 1 - tail)) if b.count > 0 else 1.0
    scale = b.exposure / a.exposure
    value = math.inf if b.count == 0 else a.count / b.count * scale
    return Ratio(value, _odds(low) * scale, _odds(high) * scale)


def p_above(first: Arm, second: Arm, margin: float = 1.0, dispersion: float = 1.0) -> float:
    """One-sided p-value against "first's rate is at most margin x second's": small means that it is above.
    Exact conditional binomial; 1 where there is no evidence."""
    a, b = first.deflated(dispersion), second.deflated(dispersion)
    if a.count == 0 or a.exposure == 0 or b.exposure == 0:
        return 1.0
    share = margin * a.exposure / (margin * a.exposure + b.exposure)
    return float(special.betainc(a.count, b.count + 1, share))


def p_below(first: Arm, second: Arm, margin: float = 1.0, dispersion: float = 1.0) -> float:
    """One-sided p-value against "first's rate is at least margin x second's": small means that it is below, which
    with margin > 1 is non-inferiority and with margin 1 superiority."""
    if margin <= 0:
        raise ValueError(f"margin {margin} must be positive")
    return p_above(second, first, 1 / margin, dispersion)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's step-down adjustment: rejecting where the adjusted value is at most alpha keeps the chance of any
    false rejection among all at alpha, whatever their dependence."""
    adjusted: dict[str, float] = {}
    largest = 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda n: (p_values[n], n))):
        largest = max(largest, min(1.0, p_values[name] * (len(p_values) - rank)))
        adjusted[name] = largest
    return adjusted


def dispersion_index(counts: Sequence[float], exposures: Sequence[float]) -> float:
    """Pearson's chi-square over its degrees of freedom, for per-vehicle counts under one common rate: 1 for
    Poisson, above 1 where vehicles (or worlds) differ. 1 where fewer than two vehicles drove or nothing happened.
    """
    if len(counts) != len(exposures):
        raise ValueError(f"{len(counts)} counts but {len(exposures)} exposures: one of each per vehicle")
    k, e = (np.asarray(x, np.float64) for x in (counts, exposures))
    k, e = k[e > 0], e[e > 0]
    if len(k) < 2 or k.sum() == 0:
        return 1.0
    expected = e * k.sum() / e.sum()
    return float(((k - expected) ** 2 / expected).sum() / (len(k) - 1))


def _odds(share: float) -> float:
    return math.inf if share >= 1 else share / (1 - share)


def _tail(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence {confidence} must lie between 0 and 1")
    return (1 - confidence) / 2
