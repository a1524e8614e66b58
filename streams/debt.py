"""Coverage debt: where the fleet drives and what it risks there, at the upper end of what is credible.

    debt(cell) = share of the fleet's driven distance in the cell
               x upper posterior quantile of its disengagement rate, 1/km

The rate of a cell is Poisson over the engaged distance of the model that drives now. Its prior is Gamma with the
fleet's own mean rate, worth `prior_km` of driving (empirical Bayes: Clayton and Kaldor 1987, Biometrics 43), so a
cell that was hardly driven borrows the fleet's rate and keeps a wide interval. Its upper quantile, not its mean,
counts: what is little known counts as worse than it may be, and the debt falls as evidence comes (Bayes-UCB:
Kaufmann, Cappe and Garivier 2012).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist


@dataclass(frozen=True, slots=True)
class Driven:
    """What was driven in a cell."""

    km: float
    """By all, engaged or not."""
    engaged_km: float
    """By the model that drives now."""
    disengagements: int
    """Of that model."""


@dataclass(frozen=True, slots=True)
class Debt:
    """A cell's debt and what it was made from."""

    cell: str
    driven: Driven
    share: float
    """Of the fleet's km."""
    rate_per_km: float
    """Posterior mean."""
    upper_per_km: float
    debt: float
    """Disengagements per km of the fleet's driving that the cell may cost."""
    part: float
    """Of the sum over all cells."""


def debts(driven: Mapping[str, Driven], prior_km: float, quantile: float) -> list[Debt]:
    """All cells, the largest debt first; ties by name. None where nothing was driven."""
    km, engaged_km = sum(d.km for d in driven.values()), sum(d.engaged_km for d in driven.values())
    if km <= 0:
        return []
    fleet_rate = (sum(d.disengagements for d in driven.values()) + 0.5) / max(engaged_km, prior_km)
    found = [(c, d, *_posterior(d, fleet_rate, prior_km, quantile)) for c, d in driven.items()]
    total = sum(d.km / km * upper for _, d, _, upper in found)
    ranked = [
        Debt(c, d, d.km / km, mean, upper, d.km / km * upper, d.km / km * upper / total)
        for c, d, mean, upper in found
    ]
    return sorted(ranked, key=lambda d: (-d.debt, d.cell))


def gamma_quantile(shape: float, rate: float, quantile: float) -> float:
    """Of the Gamma distribution, by Wilson and Hilferty 1931: within 3 % for shapes from 0.5 and quantiles from
    0.8 to 0.99."""
    z = NormalDist().inv_cdf(quantile)
    return shape / rate * float(max(0.0, 1 - 1 / (9 * shape) + z / (3 * shape**0.5)) ** 3)


def _posterior(driven: Driven, fleet_rate: float, prior_km: float, quantile: float) -> tuple[float, float]:
    """Mean and upper quantile of the rate, 1/km."""
    shape, rate = fleet_rate * prior_km + driven.disengagements, prior_km + driven.engaged_km
    return shape / rate, gamma_quantile(shape, rate, quantile)
