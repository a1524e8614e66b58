"""Scores and distances against cases worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from simulation.arrays import Floats
from simulation.metrics import (
    NEVER_S,
    Epdm,
    Rss,
    comfortable,
    driving_score,
    pdm_score,
    rss_distance,
    time_to_collision,
)


@pytest.mark.parametrize(("kmh", "metres"), [(50, 41.4), (100, 103.6)])
def test_rss_distance_behind_a_lead_of_equal_speed_that_brakes_to_a_stop(kmh: float, metres: float) -> None:
    assert float(rss_distance(kmh / 3.6, kmh / 3.6)) == pytest.approx(metres, abs=0.05)


def test_rss_by_hand() -> None:
    # 10·1 + 3.5/2 + 13.5²/8 - 10²/16 = 10 + 1.75 + 22.78125 - 6.25
    assert float(rss_distance(10.0, 10.0)) == pytest.approx(28.28125)
    assert float(rss_distance(0.0, 30.0)) == 0.0
    # 10·2 + 3.5·4/2 + 17²/8 = 20 + 7 + 36.125
    assert float(rss_distance(10.0, 0.0, Rss(response_s=2.0))) == pytest.approx(63.125)


def test_time_to_collision() -> None:
    seconds = time_to_collision([10.0, 10.0, 10.0, -1.0], [7.0, 5.0, 5.0, 0.0], [2.0, 5.0, 9.0, 9.0])
    np.testing.assert_allclose(seconds, [2.0, NEVER_S, NEVER_S, 0.0])


Drive = tuple[Floats, Floats, Floats]


def _drive(accel: float = 0.0, yaw_rate: float = 0.0, speed: float = 10.0) -> Drive:
    return np.full((5, 1), speed), np.full((5, 1), accel), np.full((5, 1), yaw_rate)


@pytest.mark.parametrize(
    ("drive", "fine"),
    [
        (_drive(), True),
        (_drive(accel=2.40), True),
        (_drive(accel=2.41), False),
        (_drive(accel=-4.05), True),
        (_drive(accel=-4.06), False),
        (_drive(yaw_rate=0.488), True),
        (_drive(yaw_rate=0.490), False),
        (_drive(yaw_rate=0.96, speed=1.0), False),
    ],
)
def test_comfort_bounds(drive: Drive, fine: bool) -> None:
    assert bool(comfortable(*drive, dt_s=0.2)[0]) is fine


def test_comfort_bounds_jerk_and_yaw_acceleration() -> None:
    still = np.zeros((2, 3))
    accel = np.array([[0.0, 0.0, 0.0], [0.412, 0.414, 0.0]])
    yaw_rate = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 0.194]])
    np.testing.assert_array_equal(comfortable(still, accel, yaw_rate, 0.1), [True, False, False])
    with pytest.raises(ValueError, match="at least 2"):
        comfortable(still[:1], still[:1], still[:1], 0.1)


def test_pdm_score_by_hand() -> None:
    assert float(pdm_score(1, 1, 1, 1, 1)) == 1.0
    assert float(pdm_score(0.5, 1, 1, 0.4, 0)) == pytest.approx(0.5 * 7 / 12)
    assert float(pdm_score(1, 0, 1, 1, 1)) == 0.0


def test_extended_pdm_score_by_hand() -> None:
    assert Epdm(1, 1, 1, 1, 1, 1, 1, 1, 1).score == 1.0
    assert Epdm(1, 1, 0.5, 1, 0.8, 1, 0, 1, 1).score == pytest.approx(0.5 * (4 + 5 + 4) / 16)


def test_driving_score_by_hand() -> None:
    assert driving_score(0.9, {"stop_sign": 2, "vehicle": 1}) == pytest.approx(0.9 * 0.64 * 0.6)
    with pytest.raises(KeyError):
        driving_score(1.0, {"speeding": 1})
