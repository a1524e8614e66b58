"""Disengagement rates with honest uncertainty: exact intervals, and tests that may be looked at every minute.

Counts are Poisson over exposure (km or vehicle-hours); where vehicles differ more than Poisson allows, counts and
exposures are deflated by the index of dispersion (quasi-Poisson). Sources: Garwood 1936 (rate), Przyborowski and
Wilenski 1940 with Clopper and Pearson 1934 (ratio), Howard, Ramdas, McAuliffe and Sekhon 2021 (time-uniform
mixtures), Wald 1945 (SPRT), Holm 1979 (several tests at once).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special


@dataclass(frozen=True, slots=True)
class Rate:
    """Events per unit of exposure, with its interval."""

    count: float
    exposure: float
    low: float
    high: float

    @property
    def value(self) -> float:
        """The estimate; NaN without exposure."""
        return self.count / self.exposure if self.exposure > 0 else math.nan


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


def rate(count: float, exposure: float, confidence: float = 0.95, dispersion: float = 1.0) -> Rate:
    """A rate with its Garwood interval, widened where vehicles are over-dispersed."""
    arm = Arm(count, exposure).deflated(dispersion)
    return Rate(count, exposure, *garwood(arm.count, arm.exposure, confidence))


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


# --- always valid: the error budget is not spent by looking


def log_e_rate(count: float, exposure: float, null_rate: float, shape: float, prior_exposure: float) -> float:
    """Log e-value against "the rate is null_rate": the likelihood mixed over Gamma(shape, prior_exposure) rates,
    over the null's. A martingale in exposure under the null, so the chance that it ever exceeds log(1 / alpha) is
    at most alpha (Ville). Any shape and prior_exposure are valid; the closer to the truth, the sooner it grows."""
    if null_rate <= 0:
        return 0.0 if count == 0 else math.inf
    mixed = shape * math.log(prior_exposure) - math.lgamma(shape)
    mixed += math.lgamma(shape + count) - (shape + count) * math.log(prior_exposure + exposure)
    return mixed - count * math.log(null_rate) + null_rate * exposure


def rate_sequence(
    count: float, exposure: float, alpha: float = 0.05, shape: float = 0.5, prior_exposure: float = 1.0
) -> tuple[float, float]:
    """A confidence sequence for a rate: the intervals of all times together cover it with chance 1 - alpha."""
    limit = math.log(1 / alpha)
    if exposure == 0:
        return 0.0, math.inf

    def excess(log_rate: float) -> float:
        return log_e_rate(count, exposure, math.exp(log_rate), shape, prior_exposure) - limit

    centre = math.log(max(count, 1e-9) / exposure)
    low = 0.0 if count == 0 else math.exp(_crossing(excess, centre, -1.0))
    return low, math.exp(_crossing(excess, centre, +1.0))


@dataclass(frozen=True, slots=True)
class Batch:
    """What both arms did between two looks. Their share of exposure may differ from batch to batch."""

    first: Arm
    second: Arm


_LOG_RATIOS: NDArray[np.float64] = np.linspace(-3.0, 3.0, 121)
"""Grid of the mixture over log rate ratios: from 1/20 to 20."""
_WEIGHTS: NDArray[np.float64] = special.softmax(-0.5 * (_LOG_RATIOS / 1.0) ** 2)
"""Log-normal about "no difference" with spread e: most of the weight on ratios that matter."""


def log_e_ratio(batches: Sequence[Batch], null_ratio: float = 1.0) -> float:
    """Log e-value against "the rate ratio first / second is null_ratio", both directions.

    Gamma-Poisson rates conditioned on the total leave binomial shares, free of the unknown common rate; their
    likelihood is mixed over the ratio. Exact for any sequence of exposures.
    """
    return _log_e_two_sided(batches, math.log(null_ratio))


def log_e_worse(batches: Sequence[Batch], margin: float = 1.0) -> float:
    """Log e-value against "first's rate is at most margin x second's": above log(1 / alpha), stop. The mixture has
    weight only on larger ratios, and the likelihood ratio grows with first's count, so every ratio of the
    hypothesis keeps the error bound."""
    above = math.log(margin) < _LOG_RATIOS
    terms = _log_likelihoods(batches, math.log(margin), _LOG_RATIOS[above])
    return float(special.logsumexp(terms, b=_WEIGHTS[above] / _WEIGHTS[above].sum()))


def ratio_sequence(batches: Sequence[Batch], alpha: float = 0.05) -> Ratio:
    """A confidence sequence for the rate ratio first / second: valid at all looks together."""
    first = Arm(sum(b.first.count for b in batches), sum(b.first.exposure for b in batches))
    second = Arm(sum(b.second.count for b in batches), sum(b.second.exposure for b in batches))
    if 0 in (first.exposure, second.exposure) or first.count + second.count == 0:
        return Ratio(math.nan, 0.0, math.inf)
    limit = math.log(1 / alpha)
    value = math.inf if second.count == 0 else first.count / second.count * second.exposure / first.exposure
    centre = math.log((first.count + 0.5) / (second.count + 0.5) * second.exposure / first.exposure)

    def excess(log_ratio: float) -> float:
        return _log_e_two_sided(batches, log_ratio) - limit

    low = 0.0 if first.count == 0 else math.exp(_crossing(excess, centre, -1.0))
    high = math.inf if second.count == 0 else math.exp(_crossing(excess, centre, +1.0))
    return Ratio(value, low, high)


# --- planning


def exposure_without_event(null_rate: float, confidence: float = 0.95) -> float:
    """Exposure that, passed without one event, shows a rate below null_rate (RAND RR-1478: 275 million miles at
    1.09 per 100 million)."""
    return -math.log1p(-confidence) / null_rate


def sprt_exposure_without_event(good: float, bad: float, alpha: float = 0.05, beta: float = 0.05) -> float:
    """Exposure after which Wald's SPRT, having seen no event, decides for the good rate against the bad."""
    if not 0 <= good < bad:
        raise ValueError(f"the good rate {good} must be below the bad {bad}")
    return math.log((1 - alpha) / beta) / (bad - good)


def km_left_to_decide(
    batches: Sequence[Batch], second_rate_per_km: float, ratio: float, share: float = 0.5, alpha: float = 0.05
) -> float:
    """Further km of both arms together until log_e_worse is expected to reach its limit, were first's rate `ratio`
    times second's and `share` of the km driven by first. 0 once decided; inf where the rates do not differ."""
    missing = math.log(1 / alpha) - log_e_worse(batches)
    if missing <= 0:
        return 0.0
    per_km = second_rate_per_km * (share * ratio + 1 - share)
    gain = _divergence(share * ratio / (share * ratio + 1 - share), share)
    return math.inf if ratio <= 1 or per_km * gain <= 0 else missing / (per_km * gain)


def _divergence(p: float, q: float) -> float:
    """Kullback-Leibler divergence of two coins, nats."""
    return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))


def _log_e_two_sided(batches: Sequence[Batch], null_log_ratio: float) -> float:
    return float(special.logsumexp(_log_likelihoods(batches, null_log_ratio, _LOG_RATIOS), b=_WEIGHTS))


def _log_likelihoods(
    batches: Sequence[Batch], null_log_ratio: float, log_ratios: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Log likelihood of each ratio over the null's, summed over batches with exposure in both arms."""
    total: NDArray[np.float64] = np.zeros_like(log_ratios)
    for batch in batches:
        a, b = batch.first, batch.second
        if a.exposure == 0 or b.exposure == 0:
            continue
        allocation = math.log(a.exposure / b.exposure)
        total += _log_share(a.count, b.count, log_ratios + allocation)
        total -= _log_share(a.count, b.count, np.asarray(null_log_ratio + allocation))
    return total


def _log_share(first: float, second: float, log_odds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log probability of the counts where an event is first's with these odds (binomial factor left out)."""
    return np.asarray(-first * np.logaddexp(0.0, -log_odds) - second * np.logaddexp(0.0, log_odds))


def _crossing(excess: Callable[[float], float], inside: float, direction: float) -> float:
    """Where `excess` turns positive on one side of a point at which it is negative."""
    step = 0.5
    outside = inside + direction * step
    while excess(outside) < 0 and step < 1e3:
        step *= 2
        outside = inside + direction * step
    for _ in range(80):
        middle = (inside + outside) / 2
        inside, outside = (middle, outside) if excess(middle) < 0 else (inside, middle)
    return outside


def _odds(share: float) -> float:
    return math.inf if share >= 1 else share / (1 - share)


def _tail(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence {confidence} must lie between 0 and 1")
    return (1 - confidence) / 2
