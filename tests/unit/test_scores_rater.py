"""The rater feedback score worked by hand: straight plans along x, a point each 0.25 s."""

from __future__ import annotations

import numpy as np
import pytest

from simulation.arrays import Floats
from simulation.scores.rater import rater_feedback, thresholds


def straight(speed: float, aside_m: float = 0.0, turn: float = 0.0) -> Floats:
    """[20, 2]: 5 s at this speed, shifted to the left of its direction."""
    way = speed * 0.25 * np.arange(1, 21)
    c, s = np.cos(turn), np.sin(turn)
    return np.stack([way * c - aside_m * s, way * s + aside_m * c], -1)


def score(plan: Floats, rated: Floats, rating: float, speed: float = 11.0) -> float:
    one = np.ones((1, 1))
    return float(rater_feedback(plan[None, None], one, rated[None, None], rating * one, np.array([speed]))[0])


@pytest.mark.parametrize(("speed", "scale"), [(0.0, 0.5), (1.4, 0.5), (6.2, 0.75), (11.0, 1.0), (30.0, 1.0)])
def test_thresholds(speed: float, scale: float) -> None:
    lateral, longitudinal = thresholds(np.array([speed]))
    np.testing.assert_allclose(lateral, [[1.0 * scale, 1.8 * scale]])
    np.testing.assert_allclose(longitudinal, [[4.0 * scale, 7.2 * scale]])


@pytest.mark.parametrize("turn", [0.0, 0.7, np.pi, -2.0])
@pytest.mark.parametrize(
    ("speed", "aside", "rating", "expected"),
    [
        (10.0, 0.0, 9.0, 9.0),
        (10.0, 1.0, 9.0, 9.0),  # on the border at 3 s
        # 1.5 m aside: 1.5 widths at 3 s, 0.83 at 5 s: (9 · 0.1^0.5 + 9) / 2
        (10.0, 1.5, 9.0, (9 * 0.1**0.5 + 9) / 2),
        (10.0, -1.5, 9.0, (9 * 0.1**0.5 + 9) / 2),
        # 3.6 m: 3.6 and 2 widths: (9 · 0.1^2.6 + 9 · 0.1) / 2 is below the floor
        (10.0, 3.6, 9.0, 4.0),
        (10.0, 3.6, 2.0, 4.0),
        # 1.4 m/s faster: 4.2 m of 4 at 3 s and 7 m of 7.2 at 5 s
        (11.4, 0.0, 10.0, (10 * 0.1**0.05 + 10) / 2),
        (8.6, 0.0, 10.0, (10 * 0.1**0.05 + 10) / 2),
        # A low rating inside of its region stays low.
        (10.0, 0.5, 1.0, 1.0),
    ],
)
def test_score_by_hand(turn: float, speed: float, aside: float, rating: float, expected: float) -> None:
    assert score(straight(speed, aside, turn), straight(10.0, turn=turn), rating) == pytest.approx(expected)


def test_a_slow_vehicle_has_less_room() -> None:
    # Half as wide: 0.5 m at 3 s
    plan, rated = straight(1.0, 0.75), straight(1.0)
    assert score(plan, rated, 10.0, speed=11.0) == 10.0
    assert score(plan, rated, 10.0, speed=1.0) == pytest.approx((10 * 0.1**0.5 + 10) / 2)


def test_the_best_match_counts_at_each_time_by_itself() -> None:
    # One rated plan agrees at 3 s, the other at 5 s: no region holds the plan, but no rating fades.
    early, late = straight(10.0), straight(10.0)
    early[15:, 1], late[:15, 1] = 20.0, 20.0
    plan = straight(10.0)
    rated, ratings = np.stack([early, late])[None], np.array([[8.0, 6.0]])
    found = rater_feedback(plan[None, None], np.ones((1, 1)), rated, ratings, np.array([11.0]))
    assert found == pytest.approx(7.0)


def test_confidence_weighs_the_plans() -> None:
    plans = np.stack([straight(10.0), straight(10.0, 30.0)])[None]
    found = rater_feedback(
        plans, np.array([[0.75, 0.25]]), straight(10.0)[None, None], np.array([[10.0]]), np.ones(1) * 11
    )
    assert found == pytest.approx(0.75 * 10 + 0.25 * 4)


def test_a_rated_plan_that_stands_keeps_its_direction() -> None:
    stands = straight(10.0, turn=np.pi / 2)
    stands[8:] = stands[7]  # 20 m to the left, then it stands there
    # 3.9 m further to the left is along its direction, forward is across.
    assert score(stands + np.array([0.0, 3.9]), stands, 10.0) == 10.0
    assert score(stands + np.array([1.5, 0.0]), stands, 10.0) == pytest.approx((10 * 0.1**0.5 + 10) / 2)
    # One that never moves points ahead.
    assert score(np.tile([3.9, 0.0], (20, 1)), np.zeros((20, 2)), 10.0) == 10.0
    assert score(np.tile([0.0, 3.9], (20, 1)), np.zeros((20, 2)), 10.0) == 4.0


def test_plans_must_reach_five_seconds() -> None:
    with pytest.raises(ValueError, match="19 points"):
        score(straight(10.0)[:19], straight(10.0), 10.0)
