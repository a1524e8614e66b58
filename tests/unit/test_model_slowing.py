"""Free frames shown as a slower vehicle sees them: slower, along the same way, never further."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.data import Samples, concatenate
from model.slowing import LARGEST_FACTOR, TIMES_S, PullAway, pull_away, slowed
from tests.unit.model_samples import some_samples

DRIVER = PullAway(np.array([0.0, 10.0]), np.array([1.5, 0.5]))


def _driving(speed: float, acceleration: float, curvature: float = 0.0) -> Samples:
    x = np.maximum(speed * TIMES_S + 0.5 * acceleration * TIMES_S**2, 0)
    target = np.stack([x, curvature * x**2 / 2], 1)[None]
    speeds = np.array([speed], np.float32)
    return replace(some_samples(1), speed_mps=speeds, yaw_rate_radps=speeds * curvature, target=target)


def _all_slowed(samples: Samples, seed: int = 0) -> Samples:
    return slowed(samples, 1.0, DRIVER, np.random.default_rng(seed))


def test_a_slower_vehicle_on_a_free_road_pulls_away() -> None:
    after = _all_slowed(_driving(8.0, 0.2))
    speed = float(after.speed_mps[0])
    assert speed <= 8.0 * LARGEST_FACTOR
    expected = speed * TIMES_S + float(DRIVER.at(after.speed_mps)[0]) * TIMES_S**2 / 2
    np.testing.assert_allclose(after.target[0, :, 0], expected, rtol=1e-4)


def test_it_keeps_to_the_same_way() -> None:
    before = _driving(8.0, 0.2, curvature=0.02)
    after = _all_slowed(before)
    way = np.concatenate([np.zeros((1, 2)), before.target[0]])
    np.testing.assert_allclose(
        after.target[0, :, 1], np.interp(after.target[0, :, 0], way[:, 0], way[:, 1]), atol=0.02
    )
    assert after.yaw_rate_radps[0] == pytest.approx(0.02 * float(after.speed_mps[0]), rel=1e-4)


@pytest.mark.parametrize("samples", [_driving(8.0, -0.5), _driving(1.0, 1.0), _driving(0.0, 0.0)])
def test_who_brakes_or_is_slow_already_is_left_alone(samples: Samples) -> None:
    after = _all_slowed(samples)
    np.testing.assert_array_equal(after.target, samples.target)
    np.testing.assert_array_equal(after.speed_mps, samples.speed_mps)


@given(seed=st.integers(0, 2**32 - 1), share=st.floats(0, 1))
def test_the_same_seed_slows_the_same_and_nobody_gets_further(seed: int, share: float) -> None:
    before = concatenate([_driving(v, a) for v in (3.0, 6.0, 12.0) for a in (-1.0, 0.0, 1.0)])
    one, other = (slowed(before, share, DRIVER, np.random.default_rng(seed)) for _ in range(2))
    np.testing.assert_array_equal(one.target, other.target)
    assert (one.speed_mps <= before.speed_mps).all()
    assert (one.target[..., 0] <= before.target[..., 0] + 1e-4).all()
    assert one.images is before.images


def test_the_driver_is_learnt_from_his_own_samples() -> None:
    rng = np.random.default_rng(0)
    slow = [_driving(float(v), 1.5) for v in rng.uniform(1.0, 2.0, 30)]
    fast = [_driving(float(v), 0.4) for v in rng.uniform(9.0, 10.0, 30)]
    standing, rare = [_driving(0.0, 0.0)] * 30, [_driving(5.5, 9.0)] * 3
    driver = pull_away(concatenate(slow + fast + standing + rare))
    np.testing.assert_allclose(driver.speed_mps, [1.5, 9.5])
    np.testing.assert_allclose(driver.acceleration_mps2, [1.5, 0.4], rtol=1e-3)


def test_where_nothing_is_known_of_the_driver_nothing_is_slowed() -> None:
    before = _driving(8.0, 0.2)
    assert slowed(before, 1.0, pull_away(before), np.random.default_rng(0)) is before
