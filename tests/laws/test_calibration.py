"""Calibration: uniform p-values where events are exchangeable, the wanted rate where they are not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.benchmarks.novelty_data import Mixture, mixture
from fleet.benchmarks.novelty_picks import score
from streams.calibration import HIGHEST, conformal, even, hashes, levelled, next_level, unlikely_many
from streams.novelty import NoveltyConfig

seeds = st.integers(0, 2**32 - 1)
shares = st.floats(0.005, 0.5)


@given(seeds, st.integers(0, 50))
def test_a_p_value_is_the_rank_among_the_recent(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    recent = np.sort(rng.integers(0, 6, count).astype(np.float32))
    asked = rng.integers(-1, 8, 20).astype(np.float32)
    ties = rng.random(20)
    found, known = conformal(asked, [recent], [slice(0, 20)], ties)
    assert known.tolist() == [count] * 20
    for d, u, p in zip(asked, ties, found, strict=True):
        assert p == pytest.approx((sum(recent > d) + u * (sum(recent == d) + 1)) / (count + 1))


@pytest.mark.parametrize("known", [1, 20, 500])
def test_p_values_of_exchangeable_distances_are_uniform(known: int) -> None:
    rng = np.random.default_rng(7)
    drawn = rng.gamma(2.0, size=(4000, known + 1)).round(1).astype(np.float32)
    ties = even(hashes(f"event-{i}" for i in range(4000)))
    parts = [slice(i, i + 1) for i in range(4000)]
    p_values = np.sort(conformal(drawn[:, 0], list(np.sort(drawn[:, 1:])), parts, ties)[0])
    assert np.abs(p_values - (np.arange(4000) + 0.5) / 4000).max() < 0.026  # Kolmogorov, 1 %


@given(st.floats(-1.0, 0.9), shares, seeds)
def test_levelling_keeps_the_order_and_moves_the_level_to_the_threshold(
    level: float, alpha: float, seed: int
) -> None:
    raw = np.sort(np.random.default_rng(seed).random(50))
    found = levelled(raw, np.full(50, level), alpha)
    assert (np.diff(found) >= 0).all() and (found <= 1).all()
    assert ((found <= alpha + 1e-12) == (raw <= level)).all()


@given(st.floats(-1.0, 2.0), shares, st.integers(0, 300), st.integers(0, 300))
def test_the_level_stays_in_bounds_and_moves_against_the_alarms(
    level: float, alpha: float, judged: int, novel: int
) -> None:
    moved = next_level(level, alpha, judged, min(novel, judged), 0.005, -1.0)
    assert -alpha <= moved <= min(HIGHEST * alpha, (1 + alpha) / 2) < 1
    assert next_level(alpha, alpha, judged, judged, 0.005, -1.0) <= alpha
    assert next_level(alpha, alpha, judged, 0, 0.005, -1.0) >= alpha


def test_hashes_are_even_and_the_same_everywhere() -> None:
    spread = np.sort(even(hashes(f"{i:032x}" for i in range(5000))))
    assert np.abs(spread - (np.arange(5000) + 0.5) / 5000).max() < 0.023
    assert hashes(["abc"]).tolist() == [0x352441C2]


@given(shares, st.integers(1, 500))
def test_unlikely_many_is_unlikely(alpha: float, judged: int) -> None:
    assert unlikely_many(alpha, judged) > alpha * judged + 3 * (alpha * judged) ** 0.5


CASES = {
    "stationary": Mixture(turn_rad=0.0, jump=0.0),
    "gradual": Mixture(turn_rad=1.2, jump=0.0),
    "abrupt": Mixture(turn_rad=0.0, jump=0.5),
    "one vehicle again and again": Mixture(turn_rad=0.0, jump=0.0, repeats=0.7),
    "small cells": Mixture(turn_rad=0.5, jump=0.0, cells=200, any_cell=True),
    "small cells of their own kind": Mixture(turn_rad=0.5, jump=0.0, cells=200, common=200),
}


@pytest.mark.parametrize("case", CASES)
def test_the_threshold_is_the_false_alarm_rate(case: str) -> None:
    """From the first event on: start-up counts. Three standard errors of 15,000 events are 11 %."""
    stream = mixture(5, replace(CASES[case], events=15_000, each=0))
    told = score(stream, NoveltyConfig(prototypes=64)).novel
    assert told.mean() == pytest.approx(0.05, rel=0.2)


def test_without_adaption_drift_breaks_the_rate() -> None:
    """What the level is for: the reservoir alone lags behind."""
    stream = mixture(5, replace(CASES["gradual"], events=15_000, each=0, turn_rad=3.0))
    late = slice(5_000, None)
    still = score(stream, NoveltyConfig(prototypes=64, adaption=0.0)).novel[late].mean()
    follows = score(stream, NoveltyConfig(prototypes=64)).novel[late].mean()
    assert abs(follows - 0.05) < 0.01 < abs(still - 0.05)
