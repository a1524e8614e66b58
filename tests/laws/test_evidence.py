"""The e-value: its error bound holds at every look, it finds harm, and it is the mixture that it says it is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats

from streams.evidence import GRID, NONE, e_value, update

counts = st.integers(0, 50)
exposures = st.floats(0.01, 1000)


def path(rate_ratio: float, seed: int, looks: int = 40, share: float = 0.3) -> list[float]:
    """e-values at each look, with about one event a look; the shares of exposure vary."""
    rng = np.random.default_rng(seed)
    evidence, values = NONE, []
    for _ in range(looks):
        a, b = share * rng.uniform(0.2, 2), (1 - share) * rng.uniform(0.2, 2)
        first = float(rng.poisson(a * rate_ratio)), float(a)
        evidence = update(evidence, first, (float(rng.poisson(b)), float(b)), 1.0)
        values.append(e_value(evidence))
    return values


@pytest.mark.parametrize("ratio", [0.3, 1.0])
def test_a_release_that_is_no_worse_is_rarely_halted_however_often_one_looks(ratio: float) -> None:
    halted = sum(max(path(ratio, seed)) >= 1 / 0.05 for seed in range(200))
    assert halted <= 200 * 0.05


def test_a_release_that_is_worse_is_halted() -> None:
    assert sum(max(path(6.0, seed)) >= 100 for seed in range(50)) >= 45


def reference(looks: list[tuple[int, float, int, float]], margin: float) -> float:
    """The log mixture of binomial likelihood ratios as it is defined, by scipy: ratios up to 20 times the margin,
    weighted as a normal density of the log ratio."""
    above = (np.arange(GRID) + 0.5) / GRID * np.log(20)
    total = np.zeros(GRID)
    for a, x, b, y in looks:
        odds = margin * np.exp(above) * x / y
        total += stats.binom.logpmf(a, a + b, odds / (1 + odds))
        total -= stats.binom.logpmf(a, a + b, margin * x / (margin * x + y))
    weights = stats.norm.pdf(above)
    return float(special.logsumexp(total, b=weights / weights.sum()))


@given(st.lists(st.tuples(counts, exposures, counts, exposures), max_size=5), st.sampled_from([1.0, 1.25]))
def test_is_the_mixture_of_binomial_likelihood_ratios(
    looks: list[tuple[int, float, int, float]], margin: float
) -> None:
    evidence = NONE
    for a, x, b, y in looks:
        evidence = update(evidence, (a, x), (b, y), margin)
    expected = min(reference(looks, margin), float(np.log(1e12)))
    if expected > -600:
        assert float(np.log(e_value(evidence))) == pytest.approx(expected, abs=1e-6, rel=1e-6)


@given(counts, exposures, counts, exposures)
def test_more_events_are_more_evidence_and_the_value_is_bounded(a: int, x: float, b: int, y: float) -> None:
    less = e_value(update(NONE, (a, x), (b, y), 1.0))
    more = e_value(update(NONE, (a + 1, x), (b, y), 1.0))
    assert 0 <= less <= more * (1 + 1e-9) <= 1.1e12


@given(counts, counts, exposures)
def test_without_exposure_in_an_arm_nothing_is_learned(a: int, b: int, x: float) -> None:
    assert update(NONE, (a, 0.0), (b, x), 1.0) == NONE == update(NONE, (a, x), (b, 0.0), 1.0)
    assert e_value(NONE) == pytest.approx(1.0)


def test_extremes_stay_finite() -> None:
    worst = update(NONE, (1e6, 1.0), (0.0, 1.0), 1.0)
    assert e_value(worst) == pytest.approx(1e12)
    assert e_value(update(NONE, (0.0, 1.0), (1e6, 1.0), 1.0)) >= 0
    assert e_value(tuple(-1e9 for _ in NONE)) == 0.0


@pytest.mark.parametrize("bad", [((-1, 1), (0, 1)), ((0, -1.0), (0, 1)), ((0, 1), (0, -1))])
def test_negative_figures_are_refused(bad: tuple[tuple[float, float], tuple[float, float]]) -> None:
    with pytest.raises(ValueError, match="not negative"):
        update(NONE, bad[0], bad[1], 1.0)
    with pytest.raises(ValueError, match="margin"):
        update(NONE, (0, 1), (0, 1), 0.0)
