"""CARLA's driving score worked by hand on a straight road (score_samples.py)."""

from __future__ import annotations

import numpy as np
import pytest

from simulation.scores import carla
from simulation.scores.trace import CYCLIST, PEDESTRIAN, STATIC, joined
from tests.unit.score_samples import Other, drive, event, placed, steady


def counted(**counts: int) -> dict[str, int]:
    return dict.fromkeys(carla.PENALTY, 0) | counts


def test_infractions_are_counted() -> None:
    trace = drive(
        others=[Other(20.5), Other(26.0, kind=CYCLIST), Other(30.0, kind=PEDESTRIAN), Other(35.0, kind=STATIC)]
    )
    for name in ("ran_red", "missed_stop", "no_yield"):
        trace = event(trace, name, 3, 9)
    trace = event(trace, "timeout", 40)
    found = {name: int(count[0]) for name, count in carla.infractions(trace).items()}
    assert found == counted(
        vehicle=2, pedestrian=1, static=1, red_light=2, stop_sign=2, no_yield_to_emergency=2, timeout=1
    )


def test_who_stands_was_hit_and_who_moves_has_hit() -> None:
    both = joined([drive(steady(0.09), [Other(9.0, speed=-2.0)]), drive(steady(0.11), [Other(9.0, speed=-2.0)])])
    assert carla.infractions(both)["vehicle"].tolist() == [0, 1]
    # Whoever is at fault: from behind counts too.
    assert carla.infractions(drive(steady(5.0), [Other(-6.0, speed=15.0)]))["vehicle"].tolist() == [1]


def test_completion() -> None:
    assert carla.completion(drive(route=80.0)).tolist() == [0.5]
    assert carla.completion(drive(route=30.0)).tolist() == [1.0]
    assert carla.completion(drive(steady(-1.0))).tolist() == [0.0]


def test_metres_out_of_lane_do_not_count() -> None:
    wrong = placed(drive(), wrong_way=np.arange(41) < 10)
    assert carla.in_lanes(wrong) == pytest.approx(31 / 41)
    assert carla.routes(wrong).score == pytest.approx(31 / 41)
    assert carla.in_lanes(placed(wrong, junction=True)).tolist() == [1.0]
    assert carla.in_lanes(drive(steady(0.0, y=4.0))).tolist() == [1.0]


def test_score_by_hand() -> None:
    assert carla.driving_score(np.array([0.9]), {"stop_sign": 2, "vehicle": 1}) == pytest.approx(0.9 * 0.64 * 0.6)
    with pytest.raises(KeyError, match="speeding"):
        carla.driving_score(np.ones(1), {"speeding": 1})
    # Half of the route, one car, one light: 0.5 · 0.6 · 0.7
    trace = event(drive(others=[Other(20.5)], route=80.0), "ran_red", 5)
    scored = carla.routes(trace)
    assert scored.score == pytest.approx(0.21)
    assert scored.terms["completion"].tolist() == [0.5]
    assert scored.terms["penalty"] == pytest.approx(0.42)


def test_each_penalty() -> None:
    # One of each: 0.5 · 0.6 · 0.65 · 0.7 · 0.8 · 0.7 · 0.7
    assert carla.driving_score(np.ones(1), dict.fromkeys(carla.PENALTY, 1)) == pytest.approx(0.053508)
