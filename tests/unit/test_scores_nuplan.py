"""nuPlan's closed-loop score worked by hand on a straight road (score_samples.py)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from simulation.scores import nuplan
from simulation.scores.trace import CYCLIST, PEDESTRIAN, STATIC, Ego, joined
from tests.unit.score_samples import Other, drive, placed, steady

CLEAN = drive()


@pytest.mark.parametrize(
    ("kinds", "score"),
    [
        ([], 1.0),
        ([0], 0.0),
        ([PEDESTRIAN], 0.0),
        ([CYCLIST], 0.0),
        ([STATIC], 0.5),  # 1 - 1 / (1 + 1)
        ([STATIC, STATIC], 0.0),
        ([STATIC, 0], 0.0),
    ],
)
def test_collisions(kinds: list[int], score: float) -> None:
    trace = drive(others=[Other(20.5 + i, kind=kind) for i, kind in enumerate(kinds)])
    assert nuplan.no_collision(trace).tolist() == [score]


def test_drivable_area_forgives_a_hands_breadth() -> None:
    # The right side is at y - 1, the road ends at y = -2.
    assert nuplan.drivable(drive(steady(y=-1.29))).tolist() == [1.0]
    assert nuplan.drivable(drive(steady(y=-1.31))).tolist() == [0.0]


@pytest.mark.parametrize(("speed", "score"), [(1.8, 1.0), (1.83, 0.5), (5.4, 0.5), (5.5, 0.0)])
def test_direction(speed: float, score: float) -> None:
    # Along the oncoming lane, and backwards in one's own, are the same: 1.1 s, as nuPlan sums them.
    assert nuplan.direction(drive(steady(speed, y=4.0))).tolist() == [score]
    assert nuplan.direction(drive(steady(-speed))).tolist() == [score]
    assert nuplan.direction(drive(steady(-speed, y=4.0))).tolist() == [1.0]


def test_time_to_collision() -> None:
    # 5 m/s faster: gaps of 4.8 and 4.7 m at the last step are 0.96 and 0.94 s.
    for gap, score in ((4.8, 1.0), (4.7, 0.0)):
        assert nuplan.time_to_collision(drive(others=[Other(6.0 + 20.0 + gap, speed=5.0)])).tolist() == [score]


def test_speed_limit() -> None:
    assert nuplan.speed_limit(drive(limit=10.0)).tolist() == [1.0]
    # 1 m/s too fast at half of the 41 steps: 20 · 0.1 / (2.23 · 4.0)
    limits = np.where(np.arange(41) < 20, 9.0, 10.0)
    assert nuplan.speed_limit(placed(CLEAN, limit_mps=limits)) == pytest.approx(1 - 2 / 8.92)
    assert nuplan.speed_limit(drive(limit=7.0)).tolist() == [0.0]


@pytest.mark.parametrize(
    ("own", "expert", "ratio"),
    [
        (20.0, 40.0, 0.5),
        (50.0, 40.0, 1.0),
        (1.0, 1.5, 1.0),  # both count as 2 m
        (0.0, 8.0, 0.25),
        (-1.9, 8.0, 0.25),
        (-2.1, 0.0, 0.0),
    ],
)
def test_progress(own: float, expert: float, ratio: float) -> None:
    assert nuplan.progress_ratio(np.array([own]), np.array([expert])).tolist() == [ratio]


def test_score_by_hand() -> None:
    assert nuplan.closed_loop(CLEAN, CLEAN).score.tolist() == [1.0]
    # Half as far, 0.5 m/s too fast all the time (41 steps of 4.0 s): (2.5 + 5 + 4·(1 - 0.5·4.1/8.92) + 2) / 16
    slow = drive(steady(5.0), limit=4.5)
    assert nuplan.closed_loop(slow, CLEAN).score == pytest.approx((9.5 + 4 * (1 - 2.05 / 8.92)) / 16)
    # 7.6 m of 40 m are less than a fifth, 8.4 m are not: 2.1 m/s makes (5·0.21 + 5 + 4 + 2) / 16
    assert nuplan.closed_loop(drive(steady(1.9)), CLEAN).score.tolist() == [0.0]
    assert nuplan.closed_loop(drive(steady(2.1)), CLEAN).score == pytest.approx(12.05 / 16)
    # A thing hit: ½ · (5 + 0 + 4 + 2) / 16
    assert nuplan.closed_loop(drive(others=[Other(20.5, kind=STATIC)]), CLEAN).score == pytest.approx(5.5 / 16)


def test_discomfort_costs_two_sixteenths() -> None:
    jolted = replace(CLEAN, ego=replace(CLEAN.ego, accel_mps2=np.full((1, 41), -4.1)))
    assert nuplan.closed_loop(jolted, CLEAN).score == pytest.approx(14 / 16)


def test_as_many_drives_as_of_the_expert() -> None:
    with pytest.raises(ValueError, match="1 drives but 2"):
        nuplan.closed_loop(CLEAN, joined([CLEAN, CLEAN]))


@pytest.mark.parametrize(
    ("own", "misses"),
    [
        (steady(10.0, steps=81), {3.0: False, 5.0: False, 8.0: False}),
        # 1.9 m/s slower: 5.7, 9.5 and 15.2 m
        (steady(8.1, steps=81), {3.0: False, 5.0: True, 8.0: False}),
        # 2.1 m/s faster: 6.3, 10.5 and 16.8 m
        (steady(12.1, steps=81), {3.0: True, 5.0: True, 8.0: True}),
        (steady(12.1, steps=51), {3.0: True, 5.0: True}),
        (steady(12.1, steps=50), {3.0: True}),
        (steady(12.1, steps=9), {}),
    ],
)
def test_misses(own: Ego, misses: dict[float, bool]) -> None:
    found = nuplan.missed(drive(own), drive(steady(10.0, steps=81)))
    assert {horizon: bool(far[0]) for horizon, far in found.items()} == misses
