"""Means over episodes and seeds."""

from __future__ import annotations

import numpy as np
import pytest

from simulation.scores.suites import Mean, Resampling, mean, summary

QUICK = Resampling(seed=3, resamples=500)


def test_all_alike_leaves_nothing_open() -> None:
    assert mean(np.full((3, 5), 0.25), QUICK) == Mean(0.25, 0.25, 0.25)


def test_one_of_each_tells_no_interval() -> None:
    assert mean(np.array([[0.5]])) == Mean(0.5)


def test_the_interval_of_a_share() -> None:
    # 400 episodes, half of them 1: standard error 0.5 / 20 = 0.025; 95 % is ± 1.96 of it.
    values = np.tile([0.0, 1.0], 200)[None]
    found = mean(values, Resampling(resamples=4000))
    assert found.value == 0.5
    assert found.low == pytest.approx(0.5 - 0.049, abs=0.006)
    assert found.high == pytest.approx(0.5 + 0.049, abs=0.006)
    wide = mean(values, Resampling(resamples=4000, confidence=0.99))
    assert wide.low is not None and found.low is not None and wide.low < found.low


def test_seeds_that_differ_widen_it() -> None:
    rng = np.random.default_rng(0)
    episodes = rng.uniform(0, 1, (1, 200)).repeat(4, 0)
    apart = episodes + np.array([[0.0], [0.3], [0.6], [0.9]])
    same, different = mean(episodes, QUICK), mean(apart, QUICK)
    assert same.low is not None and same.high is not None
    assert different.low is not None and different.high is not None
    assert different.high - different.low > 5 * (same.high - same.low)


def test_episodes_of_one_scene_hang_together() -> None:
    # What ten seeds find alike in twenty scenes is worth twenty values, not two hundred.
    scenes = np.random.default_rng(1).uniform(0, 1, (1, 20))
    once, often = mean(scenes, QUICK), mean(scenes.repeat(10, 0), QUICK)
    assert often.low == pytest.approx(once.low, abs=0.03)
    assert often.high == pytest.approx(once.high, abs=0.03)


def test_what_could_not_be_judged_is_left_out() -> None:
    values = np.array([[1.0, 0.0, np.nan, np.nan], [1.0, 0.0, 0.5, np.nan]])
    found = mean(values, QUICK)
    assert found.value == 0.5
    assert found.low is not None and 0 <= found.low <= 0.5
    assert mean(np.full((2, 2), np.nan)) == Mean(None)
    # Some draws have nothing at all to judge.
    lonely = mean(np.array([[np.nan, np.nan, 0.75]]), QUICK)
    assert (lonely.value, lonely.low, lonely.high) == (0.75, 0.75, 0.75)


def test_the_same_seed_makes_the_same_interval() -> None:
    values = np.random.default_rng(5).uniform(0, 1, (3, 30))
    assert mean(values, QUICK) == mean(values, QUICK)
    assert mean(values, QUICK) != mean(values, Resampling(seed=4, resamples=500))


def test_large_suites_fit_into_memory() -> None:
    values = np.random.default_rng(6).uniform(0, 1, (1, 6000))
    assert mean(values, Resampling(resamples=400)).low == pytest.approx(0.5, abs=0.02)


def test_a_summary_has_every_score() -> None:
    found = summary({"a": np.ones((2, 3)), "b": np.zeros((2, 3))}, QUICK)
    assert found == {"a": Mean(1.0, 1.0, 1.0), "b": Mean(0.0, 0.0, 0.0)}


@pytest.mark.parametrize("values", [np.ones(3), np.ones((0, 3)), np.ones((3, 0))])
def test_bad_shapes(values: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"\[seeds, episodes\]"):
        mean(values)
