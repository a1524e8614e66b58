"""The statistics against published and hand-worked values, and their coverage by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from monitoring import disengagements as d
from monitoring.disengagements import Arm


@pytest.mark.parametrize(
    ("count", "low", "high"),
    [(0, 0.0, 3.6889), (1, 0.0253, 5.5716), (5, 1.6235, 11.6683), (10, 4.7954, 18.3904), (100, 81.36, 121.63)],
)
def test_garwood_matches_the_published_table(count: int, low: float, high: float) -> None:
    """Exact Poisson limits as tabulated (Garwood 1936; Ulm 1990)."""
    assert d.garwood(count, 1.0) == pytest.approx((low, high), rel=1e-4, abs=1e-4)
    assert d.garwood(count, 4.0) == pytest.approx((low / 4, high / 4), rel=1e-4, abs=1e-4)


def test_garwood_without_exposure_knows_nothing() -> None:
    assert d.garwood(0, 0.0) == (0.0, math.inf)


@pytest.mark.parametrize("bad", [(-1, 1.0), (1, -1.0), (math.nan, 1.0), (1, math.inf)])
def test_what_is_no_count_is_refused(bad: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="must be finite"):
        d.garwood(*bad)
    with pytest.raises(ValueError, match="confidence"):
        d.garwood(1, 1.0, 95)


@pytest.mark.parametrize("mean", [0.7, 3.0, 20.0])
def test_garwood_covers_at_least_as_often_as_it_says(mean: float) -> None:
    counts = np.random.default_rng(1).poisson(mean, 4000)
    limits = {int(k): d.garwood(int(k), 1.0) for k in np.unique(counts)}
    covered = np.mean([limits[int(k)][0] <= mean <= limits[int(k)][1] for k in counts])
    assert covered >= 0.945


def test_ratio_by_hand() -> None:
    """One event each: Clopper-Pearson for 1 of 2 is [0.012579, 0.987421], odds [1/78.5, 78.5]."""
    ratio = d.rate_ratio(Arm(1, 10.0), Arm(1, 10.0))
    assert ratio.value == 1.0
    assert ratio.low == pytest.approx(1 / 78.498, rel=1e-3)
    assert ratio.high == pytest.approx(78.498, rel=1e-3)
    scaled = d.rate_ratio(Arm(1, 10.0), Arm(1, 40.0))
    assert scaled.value == 4.0
    assert scaled.low == pytest.approx(4 * ratio.low)


def test_ratio_with_nothing_known() -> None:
    for first, second in ((Arm(0, 1), Arm(0, 1)), (Arm(0, 0), Arm(3, 1))):
        ratio = d.rate_ratio(first, second)
        assert math.isnan(ratio.value)
        assert (ratio.low, ratio.high) == (0.0, math.inf)
        assert d.p_above(first, second) == 1.0
    assert d.rate_ratio(Arm(2, 1), Arm(0, 1)).high == math.inf
    assert d.rate_ratio(Arm(0, 1), Arm(2, 1)).low == 0.0


def test_p_values_by_hand() -> None:
    """5 of 5 events in one of two equal arms: 1/32."""
    assert d.p_above(Arm(5, 1), Arm(0, 1)) == pytest.approx(1 / 32)
    assert d.p_below(Arm(0, 1), Arm(5, 1)) == pytest.approx(1 / 32)
    assert d.p_above(Arm(5, 1), Arm(0, 1), margin=2.0) == pytest.approx((2 / 3) ** 5)
    with pytest.raises(ValueError, match="margin"):
        d.p_below(Arm(1, 1), Arm(1, 1), 0.0)


def test_ratio_interval_covers() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.poisson(12.0, 1500), rng.poisson(10.0, 1500)  # 3 and 1 per unit: ratio 3
    ratios = [d.rate_ratio(Arm(int(x), 4.0), Arm(int(y), 10.0)) for x, y in zip(a, b, strict=True)]
    assert np.mean([r.low <= 3.0 <= r.high for r in ratios]) >= 0.94


def test_deflation_widens_and_keeps_the_estimate() -> None:
    plain = d.rate_ratio(Arm(20, 10), Arm(30, 10))
    wide = d.rate_ratio(Arm(20, 10), Arm(30, 10), dispersion=3.0)
    assert wide.value == pytest.approx(plain.value)
    assert wide.low < plain.low < plain.high < wide.high
    assert d.rate_ratio(Arm(20, 10), Arm(30, 10), dispersion=0.3) == plain  # under-dispersion earns nothing


def test_holm_by_hand() -> None:
    adjusted = d.holm({"a": 0.01, "b": 0.04, "c": 0.03})
    assert adjusted == pytest.approx({"a": 0.03, "c": 0.06, "b": 0.06})
    assert d.holm({}) == {}


def test_dispersion_index() -> None:
    assert d.dispersion_index([0, 4, 0, 4], [1.0] * 4) == pytest.approx(8 / 3)
    assert d.dispersion_index([3], [1.0]) == 1.0
    assert d.dispersion_index([0, 0], [1.0, 1.0]) == 1.0
    rng = np.random.default_rng(3)
    exposure = rng.uniform(0.5, 2.0, 4000)
    assert d.dispersion_index(rng.poisson(2 * exposure).tolist(), exposure.tolist()) == pytest.approx(1.0, abs=0.1)
    with pytest.raises(ValueError, match="per vehicle"):
        d.dispersion_index([1], [1.0, 2.0])
