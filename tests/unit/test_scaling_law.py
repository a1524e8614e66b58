"""A law is found again where there is one, is honest where there is none, and asks for enough runs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.scaling_law import Law, Run, TooFewRuns, fit, fit_law

SIZES, FRAMES = (1e4, 3e4, 1e5, 3e5), (1e3, 2e3, 4e3, 8e3)


def runs_of(law: Law, noise: float = 0.0, seed: int = 0) -> list[Run]:
    rng = np.random.default_rng(seed)
    return [Run(n, d, law(n, d) + float(rng.normal(0, noise)), 1.0) for n in SIZES for d in FRAMES]


@given(
    st.floats(-2, 2),
    st.floats(0.05, 3),
    st.floats(0.1, 1.2),
    st.floats(0.05, 3),
    st.floats(0.1, 1.2),
)
@settings(max_examples=25, deadline=None)
def test_exact_scores_give_the_law_back(floor: float, a: float, alpha: float, b: float, beta: float) -> None:
    law = Law(floor, a * 5e4**alpha, alpha, b * 3e3**beta, beta)
    found = fit_law(runs_of(law), positive=False)
    for n, d in ((1e4, 1e3), (3e5, 8e3), (6e5, 1.6e4)):
        assert found(n, d) == pytest.approx(law(n, d), abs=0.02 * (a + b))


def test_noisy_scores_give_it_back_within_its_intervals() -> None:
    law = Law(0.5, 30.0, 0.4, 60.0, 0.5)
    found = fit(runs_of(law, noise=0.01, seed=3), positive=True, resamples=60, seed=1)
    assert found.explained > 0.97
    for name in ("alpha", "beta", "floor"):
        low, high = found.intervals[name]
        assert low - 0.1 <= getattr(law, name) <= high + 0.1, name
    value, low, high = found.predicted(6e5, 1.6e4)
    assert low <= value <= high
    assert value == pytest.approx(law(6e5, 1.6e4), abs=0.03)


def test_the_same_seed_gives_the_same_intervals() -> None:
    runs = runs_of(Law(0.5, 30.0, 0.4, 60.0, 0.5), noise=0.02)
    assert fit(runs, positive=True, resamples=10, seed=4) == fit(runs, positive=True, resamples=10, seed=4)


def test_what_cannot_be_negative_is_not() -> None:
    law = Law(-1.0, 30.0, 0.3, 10.0, 0.4)
    assert fit_law(runs_of(law), positive=False).floor < -0.5
    bound = fit_law(runs_of(law), positive=True)
    assert min(bound.floor, bound.a, bound.b) >= 0


def test_scores_that_get_worse_with_size_are_no_law_of_it() -> None:
    runs = [Run(n, d, 1.0 + n / 1e5, 1.0) for n in SIZES for d in FRAMES]
    assert fit_law(runs, positive=True).a == 0


def test_a_heavy_run_counts_for_more() -> None:
    law = Law(0.5, 30.0, 0.4, 60.0, 0.5)
    runs = runs_of(law)
    wrong = replace(runs[0], score=runs[0].score + 1)
    light = fit_law([replace(wrong, weight=1e-6), *runs[1:]], positive=True)
    heavy = fit_law([replace(wrong, weight=1e3), *runs[1:]], positive=True)
    assert abs(light(1e4, 1e3) - law(1e4, 1e3)) < 0.01
    assert heavy(1e4, 1e3) == pytest.approx(wrong.score, abs=0.01)


@pytest.mark.parametrize(
    ("runs", "said"),
    [
        ([], "fewer than 3 sizes"),
        ([Run(n, 1e3, 1.0) for n in SIZES], "fewer than 3 sizes"),
        ([Run(1e4, d, 1.0) for d in FRAMES], "fewer than 3 sizes"),
        ([Run(n, d, float("nan")) for n in SIZES for d in FRAMES], "no finite score"),
        ([Run(n, 0, 1.0) for n in SIZES], "no finite score, weight or size"),
    ],
)
def test_too_few_runs_are_told(runs: list[Run], said: str) -> None:
    with pytest.raises(TooFewRuns, match=said):
        fit(runs, positive=True, resamples=5, seed=0)
