"""Comfort of motions whose derivatives are known by hand: a Savitzky-Golay filter of order 2 keeps quadratics."""

from __future__ import annotations

import numpy as np
import pytest

from simulation.arrays import Floats
from simulation.scores.comfort import after, comfortable, felt
from simulation.scores.comfort import steady as alike
from simulation.scores.trace import STEP_S, Ego
from tests.unit.score_samples import clock, motion, steady

T = clock(41)


def driven(
    accel: Floats | float = 0.0,
    yaw_rate: Floats | float = 0.0,
    speed: Floats | float = 10.0,
    heading: Floats | float = 0.0,
) -> Ego:
    """A motion with just these columns: comfort asks for no others."""
    columns = np.broadcast_arrays(T * 0, T * 0, heading, speed, accel, yaw_rate)
    return Ego(*(np.array(c, float)[None] for c in columns))


@pytest.mark.parametrize(
    ("ego", "fine"),
    [
        (driven(), True),
        (driven(accel=2.40), True),
        (driven(accel=2.41), False),
        (driven(accel=-4.05), True),
        (driven(accel=-4.06), False),
        (driven(yaw_rate=0.488), True),  # 4.88 m/s² to the side
        (driven(yaw_rate=0.490), False),
        (driven(yaw_rate=-0.490), False),
        (driven(accel=-4.05 + 1.5 * T), True),  # up to 1.95 m/s²
        (driven(heading=0.94 * T, yaw_rate=0.0), True),
        (driven(heading=0.96 * T, yaw_rate=0.0), False),
        (driven(heading=np.pi - 0.94 * T), True),
        (driven(heading=-0.96 * T), False),
        (driven(heading=(0.94 * T + 3.0 + np.pi) % (2 * np.pi) - np.pi), True),  # past pi, wrapped
        # Yaw acceleration: half of it times t² from a yaw rate of -0.94
        (driven(heading=-0.94 * T + 0.2 * T**2), True),
    ],
)
def test_bounds_of_comfort(ego: Ego, fine: bool) -> None:
    assert comfortable(ego).tolist() == [fine]


def test_jerk_and_yaw_acceleration_have_bounds_of_their_own() -> None:
    t = clock(8)

    def brief(accel: Floats, heading: Floats) -> Ego:
        zero = np.zeros_like(t)
        return Ego(*(c[None] for c in (zero, zero, heading, zero, accel, zero)))

    # For 0.7 s from -2 m/s²: up to 4.14 · 0.7 - 2 = 0.9 m/s². The magnitude's jerk changes its sign on the way.
    assert comfortable(brief(-2 + 4.12 * t, t * 0)).tolist() == [True]
    assert comfortable(brief(-2 + 4.14 * t, t * 0)).tolist() == [False]
    # Yaw accelerations of 1.92 and 1.94 rad/s² from a yaw rate of -0.9, up to 0.46.
    assert comfortable(brief(t * 0, -0.9 * t + 0.96 * t**2)).tolist() == [True]
    assert comfortable(brief(t * 0, -0.9 * t + 0.97 * t**2)).tolist() == [False]


def test_the_magnitudes_jerk() -> None:
    # To the side only, 10 m/s · yaw rate: 8.3 and 8.4 m/s³ for half a second; nothing lengthwise.
    t = clock(6)
    for jerk, fine in ((8.3, True), (8.4, False)):
        zero = np.zeros_like(t)
        ego = Ego(*(c[None] for c in (zero, zero, zero, zero + 10.0, zero, jerk / 10 * t)))
        np.testing.assert_allclose(felt(ego).jerk_mps3, jerk, atol=1e-8)
        assert comfortable(ego).tolist() == [fine]


def test_smoothing_keeps_quadratics_and_drops_noise() -> None:
    # The window of accelerations is even: away from the ends they are those of half a step later.
    later, motion_felt = T + STEP_S / 2, felt(driven(accel=1 + 0.5 * T - 0.1 * T**2))
    np.testing.assert_allclose(motion_felt.accel_mps2[0, 4:-4], (1 + 0.5 * later - 0.1 * later**2)[4:-4])
    np.testing.assert_allclose(motion_felt.accel_mps2[0, :4], (1 + 0.5 * T - 0.1 * T**2)[:4])
    np.testing.assert_allclose(motion_felt.longitudinal_jerk_mps3[0, 11:-11], (0.5 - 0.2 * later)[11:-11])
    noisy = driven(accel=2.25 + 0.2 * (-1.0) ** np.arange(41, dtype=np.float64))
    assert noisy.accel_mps2.max() > 2.4
    assert comfortable(noisy).tolist() == [True]


def test_history_counts() -> None:
    braked, calm = motion(T, T * 0, T * 0, 9 - 4.5 * T[:41], -4.5), steady(10.0)
    assert comfortable(calm).tolist() == [True]
    assert after(None, calm) is calm
    both = after(braked, calm)
    assert both.x_m.shape == (1, 82)
    assert comfortable(both).tolist() == [False]


def test_comfort_needs_a_few_steps() -> None:
    with pytest.raises(ValueError, match="at least 4 steps, got 3"):
        comfortable(steady(steps=3))
    assert comfortable(steady(steps=4)).tolist() == [True]


@pytest.mark.parametrize(
    ("other", "fine"),
    [
        (driven(), True),
        (driven(accel=0.69), True),
        (driven(accel=0.71), False),
        (driven(accel=0.45 * T), False),  # 0.45 · 4 / sqrt 3 = 1.04 away
        (driven(accel=0.45 * (T - 2)), True),  # 0.45 · 2 / sqrt 3 = 0.52, and its jerk is 0.45
        (driven(accel=0.60 * (T - 2)), False),  # 0.69, but its jerk is nearly 0.6
        (driven(heading=0.09 * T), True),
        (driven(heading=0.11 * T), False),
        (driven(heading=0.049 * (T - 2) ** 2), False),  # the rate is up to 0.196 away, rms 0.113
    ],
)
def test_plans_of_consecutive_frames(other: Ego, fine: bool) -> None:
    assert alike(driven(), other).tolist() == [fine]
    assert alike(other, driven()).tolist() == [fine]


def test_steadiness_of_jerk_and_yaw_acceleration() -> None:
    t = clock(11)

    def brief(accel: Floats, heading: Floats) -> Ego:
        zero = np.zeros_like(t)
        return Ego(*(c[None] for c in (zero, zero, heading, zero, accel, zero)))

    calm = brief(t * 0 + 1, t * 0)
    # Around 1 m/s², so that the magnitude has no kink: 0.49 and 0.51 m/s³
    assert alike(calm, brief(1 + 0.49 * (t - 0.5), t * 0)).tolist() == [True]
    assert alike(calm, brief(1 + 0.51 * (t - 0.5), t * 0)).tolist() == [False]
    # 0.098 and 0.102 rad/s², with yaw rates of at most 0.05
    assert alike(calm, brief(t * 0 + 1, 0.049 * (t - 0.5) ** 2)).tolist() == [True]
    assert alike(calm, brief(t * 0 + 1, 0.051 * (t - 0.5) ** 2)).tolist() == [False]
