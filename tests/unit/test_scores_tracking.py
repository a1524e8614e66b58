"""The LQR tracker on plans whose motion is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from simulation.arrays import Floats
from simulation.scores.trace import STEP_S, Body
from simulation.scores.tracking import State, follow, poses, profiles
from tests.unit.score_samples import clock

BODY = Body(wheelbase_m=3.0)
T = clock(41)


def start(speed: float, accel: float = 0.0, steering: float = 0.0, heading: float = 0.0) -> State:
    return State(*(np.array([v]) for v in (0.0, 0.0, heading, speed, accel, steering)))


def arc(speed: Floats | float, curvature: float, heading: float = 0.0) -> Floats:
    """Poses [1, 41, 3] of a circle driven at this speed."""
    way = np.concatenate([[0.0], np.cumsum(np.broadcast_to(speed, T.shape)[:-1]) * STEP_S])
    angle = heading + curvature * way
    if curvature == 0:
        return np.stack([way * np.cos(heading), way * np.sin(heading), angle], -1)[None]
    x, y = np.sin(angle) - np.sin(heading), np.cos(heading) - np.cos(angle)
    return np.stack([x / curvature, y / curvature, angle], -1)[None]


def test_profiles_of_an_even_arc() -> None:
    speed, curvature = profiles(arc(10.0, 0.05))
    # The chord of 1 m at a curvature of 0.05 is 2 · sin(0.025) / 0.05 long, seen from its start 0.025 rad askew.
    np.testing.assert_allclose(speed, 10 * np.sin(0.05) / 0.05, rtol=1e-6)
    np.testing.assert_allclose(curvature, 0.05 * 0.05 / np.sin(0.05), rtol=1e-3)


def test_profiles_of_speeding_up() -> None:
    speed, _ = profiles(arc(5 + 1.5 * T, 0.0))
    np.testing.assert_allclose(speed[0], 5 + 1.5 * T[:-1], atol=1e-6)


def test_a_straight_plan_at_even_speed_is_driven_exactly() -> None:
    driven = follow(arc(10.0, 0.0, 0.6), start(10.0, heading=0.6), BODY)
    np.testing.assert_allclose(driven.x_m[0], 10 * T * np.cos(0.6), atol=1e-6)
    np.testing.assert_allclose(driven.y_m[0], 10 * T * np.sin(0.6), atol=1e-6)
    np.testing.assert_allclose(driven.accel_mps2, 0.0, atol=1e-6)
    np.testing.assert_allclose(driven.heading_rad, 0.6)


def test_the_first_step_by_hand() -> None:
    # 1 m/s too slow: the gain is 10 · 1 / (10 · 1² + 1); the lag lets a third of it through in 0.1 s.
    driven = follow(arc(10.0, 0.0), start(9.0), BODY)
    assert driven.accel_mps2[0, 1] == pytest.approx(10 / 11 / 3)
    assert driven.speed_mps[0, 1] == pytest.approx(9 + 0.1 * 10 / 11 / 3)
    assert driven.x_m[0, 1] == pytest.approx(0.9)


def test_the_first_turn_of_the_wheel_by_hand() -> None:
    # 1 m to the left of a straight plan, at its speed of 10 m/s: a metre a step. A rate of 1 turns the wheel by
    # 0.1 a step, so the heading by 0.1 · (0 + .. + k - 1) / 3 after k steps: 0.1 · 45 / 3 = 1.5 rad after ten, and
    # takes it 0.1 / 3 · (0 + 0 + 1 + 3 + 6 + 10 + 15 + 21 + 28 + 36) = 4 m aside. Q = (1, 10), R = 1:
    # u = -4 · 1 · 1 / (4² + 10 · 1.5² + 1) = -4 / 39.5; two thirds come through the lag.
    driven = follow(arc(10.0, 0.0), replace(start(10.0), y_m=np.array([1.0])), BODY)
    turned = 0.1 * -4 / 39.5 / 1.5
    assert driven.yaw_rate_radps[0, 1] == pytest.approx(10 * np.tan(turned) / 3)
    # The error shrinks without much overshoot.
    assert abs(driven.y_m[0, -1]) < 0.1
    assert driven.y_m.min() > -0.25


def test_an_arc_is_tracked() -> None:
    driven = follow(arc(8.0, 0.04), start(8.0, steering=float(np.arctan(3.0 * 0.04))), BODY)
    plan = arc(8.0, 0.04)[0]
    assert np.hypot(driven.x_m[0] - plan[:, 0], driven.y_m[0] - plan[:, 1]).max() < 0.35
    np.testing.assert_allclose(driven.yaw_rate_radps[0], 0.32, atol=0.03)


def test_standing_still() -> None:
    driven = follow(np.zeros((1, 41, 3)), start(0.0), BODY)
    np.testing.assert_allclose([driven.x_m, driven.y_m, driven.speed_mps, driven.yaw_rate_radps], 0.0, atol=1e-12)
    # Below 0.2 m/s a proportional controller of gain 0.5 takes over: -0.5 · 0.1, a third through the lag.
    slowing = follow(np.zeros((1, 41, 3)), start(0.1, steering=0.2), BODY)
    np.testing.assert_allclose(slowing.yaw_rate_radps, slowing.speed_mps * np.tan(0.2) / 3)
    assert slowing.accel_mps2[0, 1] == pytest.approx(-0.05 / 3)
    assert abs(slowing.speed_mps[0, -1]) < 0.05


def test_the_wheel_turns_no_further_than_it_can() -> None:
    driven = follow(arc(2.0, 3.0), start(2.0), BODY)
    assert np.abs(driven.yaw_rate_radps / driven.speed_mps).max() <= np.tan(np.pi / 3) / 3 + 1e-9


def test_plans_do_not_touch_each_other() -> None:
    plans = np.concatenate([arc(10.0, 0.0), arc(6.0, -0.05), arc(0.0, 0.0)])
    zero = np.zeros(3)
    each = State(zero, zero, zero, np.array([10.0, 5.0, 1.0]), zero, zero)
    together = follow(plans, each, BODY)
    for i in range(3):
        alone = follow(plans[i : i + 1], State(*(getattr(each, n)[i : i + 1] for n in each.__slots__)), BODY)
        np.testing.assert_allclose(together.x_m[i], alone.x_m[0])
        np.testing.assert_allclose(together.heading_rad[i], alone.heading_rad[0])


def test_poses_of_a_plan() -> None:
    # Waypoints each 0.3 s: 3 m ahead, then a quarter turn to the left.
    plan = np.array([[[3.0, 0.0], [6.0, 0.0], [6.0, 3.0], [6.0, 6.0]]])
    found = poses(plan, start(10.0, heading=np.pi / 2), 0.3, 12)
    assert found.shape == (1, 13, 3)
    # In the world the vehicle looks along y: ahead is up, left is to -x.
    np.testing.assert_allclose(
        found[0, [0, 3, 6, 9, 12], :2], [[0, 0], [0, 3], [0, 6], [-3, 6], [-6, 6]], atol=1e-9
    )
    np.testing.assert_allclose(found[0, 1, :2], [0.0, 1.0], atol=1e-9)
    # Chords over two periods: straight, straight, 45°, left, left
    np.testing.assert_allclose(
        found[0, [0, 3, 6, 9, 12], 2] - np.pi / 2, np.deg2rad([0, 0, 45, 90, 90]), atol=1e-9
    )


def test_poses_that_stand_keep_their_heading() -> None:
    plan = np.array([[[2.0, 2.0], [4.0, 4.0], [4.0, 4.0], [4.0, 4.0], [3.99, 4.0]]])
    found = poses(plan, start(0.0), 0.3, 15)
    np.testing.assert_allclose(found[0, [6, 9, 12, 15], 2], np.pi / 4)


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (np.zeros((1, 3, 3)), r"T > 3"),
        (np.zeros((1, 41, 2)), r"\[P, T, 3\]"),
        (np.full((1, 41, 3), np.nan), "not finite"),
    ],
)
def test_bad_plans(plan: Floats, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        follow(plan, start(1.0))


def test_a_plan_too_short() -> None:
    with pytest.raises(ValueError, match=r"8 points, 0\.3 s apart, ends before 4\.0 s"):
        poses(np.zeros((1, 8, 2)), start(1.0), 0.3, 40)
    assert poses(np.zeros((1, 8, 2)), start(1.0), 0.3, 24).shape == (1, 25, 3)
