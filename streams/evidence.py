"""Evidence that one arm does worse than another, valid at every look.

Given their sum, the counts of two Poisson arms are binomial with a share that holds only the exposures and the
rate ratio (Przyborowski and Wilenski 1940). The likelihood ratio against the largest harmless ratio, mixed over
larger ratios, is a supermartingale whatever the harmless ratio is, so the chance that it ever exceeds 1 / alpha is
at most alpha (Ville 1939; Howard, Ramdas, McAuliffe and Sekhon 2021). Standard library alone, as streams need no
scipy; what is looked at once, by the gate and in reports, has its statistics in monitoring.disengagements.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

GRID = 48
_LARGEST = math.log(20.0)
"""Ratios up to 20 are mixed over."""

Evidence = tuple[float, ...]
"""Log likelihood ratio of each ratio of the grid."""
NONE: Evidence = (0.0,) * GRID


def update(evidence: Evidence, first: tuple[float, float], second: tuple[float, float], margin: float) -> Evidence:
    """The evidence after another stretch, in which the arms had (events, exposure). A stretch without exposure in
    one arm tells nothing about the ratio. Raises ValueError for a negative value."""
    (a, a_exposure), (b, b_exposure) = first, second
    if min(a, b, a_exposure, b_exposure) < 0 or margin <= 0:
        raise ValueError(f"events and exposure are not negative: {first}, {second}, margin {margin}")
    if a_exposure == 0 or b_exposure == 0:
        return evidence
    allocation = math.log(a_exposure / b_exposure)
    null = _log_share(a, b, math.log(margin) + allocation)
    return tuple(
        e + _log_share(a, b, ratio + allocation) - null for e, ratio in zip(evidence, _ratios(margin), strict=True)
    )


def e_value(evidence: Sequence[float]) -> float:
    """The mixture: 1 for no evidence; at or above 1 / alpha the first arm is worse. At most 1e12."""
    weights = [math.exp(-0.5 * ((i + 0.5) / GRID * _LARGEST) ** 2) for i in range(GRID)]
    top = max(evidence)
    total = sum(w * math.exp(e - top) for w, e in zip(weights, evidence, strict=True)) / sum(weights)
    return math.exp(min(top + math.log(total), math.log(1e12))) if total > 0 else 0.0


def _ratios(margin: float) -> list[float]:
    """Log rate ratios above the margin, evenly spaced."""
    return [math.log(margin) + (i + 0.5) / GRID * _LARGEST for i in range(GRID)]


def _log_share(first: float, second: float, log_odds: float) -> float:
    """Log probability of the counts where an event is the first arm's with these odds, without the factor that
    cancels."""
    return -first * _softplus(-log_odds) - second * _softplus(log_odds)


def _softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))
