"""Laws of the scores a vehicle computes, and of drawing samples."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.contracts.scores import hindsight_miss, path_from_poses, plan_jump, uncertainty

STEP_S, PERIOD_S = 0.3, 0.2
TIMES_S = STEP_S * np.arange(1, 9)
speeds = st.floats(0, 30)
yaw_rates = st.floats(-0.5, 0.5)


def _arc(speed: float, yaw_rate: float, times_s: np.ndarray) -> np.ndarray:
    """Poses [1, T, 3] of constant speed and yaw rate from the origin."""
    yaw = yaw_rate * times_s
    share = np.sinc(yaw / 2 / np.pi)
    return np.stack(
        [speed * times_s * share * np.cos(yaw / 2), speed * times_s * share * np.sin(yaw / 2), yaw], 1
    )[None]


@given(speeds, st.floats(-3.1, 3.1))
def test_a_vehicle_that_follows_its_straight_plan_does_not_jump(speed: float, heading: float) -> None:
    plan = _arc(speed, 0, TIMES_S)[..., :2]
    motion = _arc(speed, 0, np.array([PERIOD_S]))[:, 0]
    assert plan_jump(plan, motion, plan, STEP_S, PERIOD_S) == pytest.approx(0, abs=1e-6)
    turned = motion + np.array([0, 0, heading])
    expected = plan_jump(plan, turned, plan, STEP_S, PERIOD_S) > 1e-6
    assert expected == (speed * abs(np.sin(heading / 2)) > 1e-6)


@given(st.floats(1, 15), st.floats(-0.3, 0.3))
def test_a_steady_turn_jumps_by_interpolation_only(speed: float, yaw_rate: float) -> None:
    plan = _arc(speed, yaw_rate, TIMES_S)[..., :2]
    motion = _arc(speed, yaw_rate, np.array([PERIOD_S]))[:, 0]
    sagitta = speed * abs(yaw_rate) * STEP_S**2 / 8
    assert plan_jump(plan, motion, plan, STEP_S, PERIOD_S)[0] <= sagitta + 1e-6


@given(st.floats(1, 15), st.floats(-2, 2))
def test_a_plan_that_shifts_aside_jumps_by_the_shift(speed: float, shift: float) -> None:
    plan = _arc(speed, 0, TIMES_S)[..., :2]
    motion = np.array([[speed * PERIOD_S, 0, 0]])
    assert plan_jump(plan, motion, plan + np.array([0, shift]), STEP_S, PERIOD_S)[0] == pytest.approx(
        abs(shift), abs=1e-6
    )


def test_plans_that_do_not_overlap_have_no_jump() -> None:
    with pytest.raises(ValueError, match="do not overlap"):
        plan_jump(np.zeros((1, 2, 2)), np.zeros((1, 3)), np.zeros((1, 2, 2)), 0.3, 0.5)


@given(st.floats(-50, 50), st.floats(-50, 50), st.floats(-3, 3), speeds, yaw_rates)
def test_a_path_seen_from_its_start_does_not_depend_on_where_it_was_driven(
    x: float, y: float, yaw: float, speed: float, yaw_rate: float
) -> None:
    local = _arc(speed, yaw_rate, TIMES_S)
    turn = np.array([[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]])
    world = np.concatenate([local[..., :2] @ turn.T + [x, y], local[..., 2:] + yaw], 2)
    seen = path_from_poses(world, np.array([[x, y, yaw]]))
    np.testing.assert_allclose(seen, local[..., :2], atol=1e-6)


@given(st.floats(0.05, 5), st.floats(0.1, 10))
def test_hindsight_miss_is_in_units_of_the_expected_error(scale: float, factor: float) -> None:
    planned = np.zeros((1, 8, 2))
    scales = np.full((1, 8, 2), scale)
    assert hindsight_miss(planned, scales, planned) == 0
    assert hindsight_miss(planned, scales, planned - factor * scale)[0] == pytest.approx(factor)


def test_hindsight_miss_of_the_predicted_distribution_is_one_on_average() -> None:
    rng = np.random.default_rng(0)
    driven = rng.laplace(0, 0.7, (4000, 8, 2))
    scale = np.full((4000, 8, 2), 0.7)
    assert hindsight_miss(np.zeros_like(driven), scale, driven).mean() == pytest.approx(1, abs=0.02)
    assert uncertainty(scale)[0] == pytest.approx(0.7)
